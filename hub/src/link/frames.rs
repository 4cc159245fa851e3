//! Frames from the log: what of it is for a peer, and how much fits.

use super::downward::Downward;
use super::handshake::{Session, log_at};
use super::sender::Send;
use crate::log::{Error as LogError, Reader};
use crate::note::{DeadLetter, Note, reason};
use crate::protocol::pack::pack;
use citybrain_shared::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX};
use citybrain_shared::record::{Direction, Header, Origin, TTL_OVER_MS};
use citybrain_shared::wire::{Epoch, FrameBuilder, FrameHead, Party};
use citybrain_shared::{Address, Lane, Pos, Selector};

/// Bytes of a record in a frame besides its texts and payload, rounded up.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Bytes of a frame besides its records and origins, rounded up.
const FRAME_OVERHEAD_BYTES: usize = 512;
/// Reads that one frame makes at most to find a record for its peer, so that a driver that looks
/// through a long log comes back to its other work in between.
const READS_MAX: usize = 16;

/// For whom the frames are.
#[derive(Clone, Debug)]
pub enum Audience {
    /// The parent: events whose reach is its tier or above.
    Up(Address),
    /// A child: downward events that may be meant for somebody at or below it.
    Down(Address),
}

impl Audience {
    pub fn peer(&self) -> &Address {
        match self {
            Audience::Up(a) | Audience::Down(a) => a,
        }
    }

    pub fn wants(&self, h: &Header<'_>) -> bool {
        match self {
            Audience::Up(parent) => {
                h.direction == Direction::Up && h.kind.is_event() && h.reach.depth() <= parent.depth()
            }
            Audience::Down(child) => {
                h.direction == Direction::Down
                    && h.kind.is_event()
                    && Selector::parse(h.target).is_ok_and(|s| s.may_reach(child))
            }
        }
    }
}

/// What is needed to build a frame.
pub struct Press<'a> {
    pub reader: &'a Reader,
    pub address: &'a Address,
    pub me: Party,
    pub epochs: &'a [Epoch],
    pub session: &'a Session,
    pub audience: &'a Audience,
    pub downward: Option<&'a Downward>,
    pub compress: bool,
    /// µs since 1970.
    pub now_us: i64,
}

#[derive(Debug, Default)]
pub struct Built {
    /// `None`: nothing up to `upto` is for this peer.
    pub message: Option<Vec<u8>>,
    pub upto: Pos,
    pub records: u32,
    /// Records that were left out because their time was over, and nobody waits for an answer.
    pub expired: Vec<Pos>,
    /// Dead letters for records that are too large for the peer, and ranges that do not read. To be
    /// on disk before the frame leaves.
    pub parked: Vec<Note>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Retention was faster than the peer: only a new hello can settle what is lost.
    #[error("records after {0} are no longer in the log")]
    Trimmed(Pos),
    #[error("the log cannot be read")]
    Log(#[source] LogError),
}

/// A frame that is being filled.
struct Filling<'a> {
    send: Send,
    builder: &'a mut FrameBuilder,
    /// So many bytes of records fit, and one record even if it is larger.
    budget: usize,
    bytes: usize,
    /// What is not sent up to here is told already.
    told_upto: Pos,
    built: Built,
}

impl Filling<'_> {
    /// As much as the line is to get at once.
    fn is_enough(&self) -> bool {
        self.bytes >= self.send.bytes_max
    }
}

impl Press<'_> {
    /// Builds the frame that `send` asks for. Records at or below `told_upto` that are too large are skipped
    /// without another dead letter, and those whose time was over are counted already.
    ///
    /// # Errors
    /// See [`Error`]; nothing is skipped then.
    pub fn build(&self, builder: &mut FrameBuilder, send: Send, told_upto: Pos) -> Result<Built, Error> {
        // A frame that could not be finished is of a lane, and of a session, that may be over.
        builder.clear();
        let budget = FRAME_BYTES_MAX.min(self.message_budget());
        let built = Built { upto: send.looked, ..Built::default() };
        let mut filling = Filling { send, builder, budget, bytes: 0, told_upto, built };
        if !send.cover {
            self.fill(&mut filling)?;
        }
        let Filling { builder, mut built, .. } = filling;
        if builder.is_empty() && !send.cover {
            return Ok(built);
        }
        built.records = builder.records() as u32;
        let head = FrameHead {
            from: self.me,
            lease: self.session.lease,
            log: self.session.log,
            lane: send.lane,
            after: send.after,
            upto: built.upto,
            after_chain: chain(self.reader, self.session, send.lane, send.after)?,
            upto_chain: chain(self.reader, self.session, send.lane, built.upto)?,
            records: 0,
        };
        built.message = Some(builder.finish(head, |body| if self.compress { pack(body) } else { None }));
        Ok(built)
    }

    /// Bytes of records that the peer takes in one message.
    fn message_budget(&self) -> usize {
        (self.session.message_bytes_max as usize).saturating_sub(FRAME_OVERHEAD_BYTES)
    }

    fn fill(&self, filling: &mut Filling<'_>) -> Result<(), Error> {
        if let (Some(downward), Audience::Down(child)) = (self.downward, self.audience)
            && let Some(due) = downward.for_child(child, filling.send.lane, filling.send.looked)
        {
            return self.fill_with(filling, due, downward.upto());
        }
        self.fill_from_log(filling)
    }

    /// With the records at these positions. If there are no more of them nothing up to `upto` is for the peer.
    fn fill_with(&self, filling: &mut Filling<'_>, due: impl Iterator<Item = Pos>, upto: Pos) -> Result<(), Error> {
        let mut looked = 0;
        for pos in due {
            looked += 1;
            let entry = match self.reader.get(pos) {
                Ok(Some(entry)) => entry,
                Ok(None) => return Err(Error::Trimmed(pos)),
                Err(LogError::Damaged { .. }) => {
                    self.hole(filling, Pos(pos.0 - 1), pos);
                    continue;
                }
                Err(e) => return Err(Error::Log(e)),
            };
            if !self.add(filling, pos, &entry.bytes) || filling.is_enough() {
                return Ok(());
            }
        }
        // As many as were asked for: there may be more of them. Not all go into the frame.
        if looked < FRAME_RECORDS_MAX {
            filling.built.upto = filling.built.upto.max(upto);
        }
        Ok(())
    }

    fn fill_from_log(&self, filling: &mut Filling<'_>) -> Result<(), Error> {
        for _ in 0..READS_MAX {
            // Asked before reading: what is committed meanwhile may be of this lane.
            let last = self.reader.last();
            let upto = filling.built.upto;
            if self.reader.first() > upto.next() {
                return Err(Error::Trimmed(upto));
            }
            let entries = match self.reader.read(upto, Some(filling.send.lane), FRAME_RECORDS_MAX, FRAME_BYTES_MAX) {
                Ok(entries) => entries,
                Err(LogError::Damaged { after, upto: lost, .. }) if lost > upto => {
                    self.hole(filling, after, lost);
                    continue;
                }
                Err(e) => return Err(Error::Log(e)),
            };
            if entries.is_empty() {
                filling.built.upto = upto.max(last);
                return Ok(());
            }
            for e in &entries {
                if !self.add(filling, e.pos, &e.bytes) || filling.is_enough() {
                    return Ok(());
                }
            }
            if !filling.builder.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Records that were durable and cannot be read any more: written down and passed over, for the
    /// lane must go on.
    fn hole(&self, filling: &mut Filling<'_>, after: Pos, upto: Pos) {
        filling.built.upto = filling.built.upto.max(upto);
        if upto > filling.told_upto {
            filling.built.parked.push(Note::Lost {
                peer: Some(self.audience.peer().clone()),
                lane: Some(filling.send.lane),
                after,
                upto,
                reason: "the log is damaged there".into(),
            });
        }
    }

    /// Adds a record if it is for the peer; what was looked at is covered then. False if the frame is full
    /// without it.
    fn add(&self, filling: &mut Filling<'_>, pos: Pos, record: &[u8]) -> bool {
        let has_place = self.put(filling, pos, record);
        if has_place {
            filling.built.upto = pos;
        }
        has_place
    }

    fn put(&self, filling: &mut Filling<'_>, pos: Pos, record: &[u8]) -> bool {
        if filling.builder.is_full() {
            return false;
        }
        let Ok((h, payload)) = Header::decode(record) else {
            return true; // the log's checksum held, so a newer build wrote it: not for this one's peers
        };
        if !self.audience.wants(&h) {
            return true;
        }
        let spent_ms = ((self.now_us - h.committed_us).max(0) / 1000) as u64;
        let Some(ttl_ms) = left_ms(&h, spent_ms) else {
            filling.built.expired.push(pos);
            return true;
        };
        let address = h.origin.map_or(self.address.as_str(), |o| o.address);
        let size = RECORD_OVERHEAD_BYTES + h.name.len() + h.target.len() + 2 * address.len() + payload.len();
        if size > self.message_budget() {
            if pos > filling.told_upto {
                filling.built.parked.push(self.too_large(pos, &h, payload));
            }
            return true;
        }
        if !filling.builder.is_empty() && filling.bytes + size > filling.budget {
            return false;
        }
        filling.bytes += size;
        let own = Origin { address: self.address.as_str(), log: log_at(self.epochs, pos), pos };
        let had_before = pos <= self.session.had_before[filling.send.lane as usize];
        filling.builder.push(&Header { had_before, ..h }, own, ttl_ms, payload);
        true
    }

    fn too_large(&self, pos: Pos, h: &Header<'_>, payload: &[u8]) -> Note {
        let (most, peer) = (self.session.message_bytes_max, self.audience.peer());
        let detail = format!(
            "record {pos} does not fit into a message of {most} bytes, the most that {peer} accepts; raise link.message_bytes_max there and send it again"
        );
        let letter = DeadLetter::new(reason::TOO_LARGE_FOR_LINK, detail, format!("link:{peer}"), h.topic, payload);
        Note::DeadLetter(DeadLetter { of: Some(pos), ..letter })
    }
}

/// What is left of a record's time after `spent_ms` on this node. `None`: it is over, and nobody waits
/// for an answer. A directive is sent on even then: whoever it names has to say that it was late.
fn left_ms(h: &Header<'_>, spent_ms: u64) -> Option<u32> {
    match h.ttl_ms {
        0 => Some(0),
        ttl if u64::from(ttl) > spent_ms => Some(ttl - spent_ms as u32),
        _ if h.direction == Direction::Down => Some(TTL_OVER_MS),
        _ => None,
    }
}

/// The chain hash at a position of this session; where it is trimmed, what both ends agreed on.
pub fn chain(reader: &Reader, session: &Session, lane: Lane, at: Pos) -> Result<u64, Error> {
    let start = session.starts[lane as usize];
    if at == start.upto {
        return Ok(start.chain);
    }
    match reader.chain_at(at) {
        Ok(Some(chain)) => Ok(chain),
        Ok(None) => Err(Error::Trimmed(at)),
        // Unknown for good; whoever asks for this position gets the same answer.
        Err(LogError::Damaged { .. }) => Ok(0),
        Err(e) => Err(Error::Log(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::Tier;
    use citybrain_shared::record::Kind;

    fn a(s: &str) -> Address {
        Address::parse(s).unwrap()
    }

    #[test]
    fn up_goes_what_reaches_the_parents_tier() {
        let up = Audience::Up(a("c/s"));
        let h = Header { direction: Direction::Up, reach: Tier::City, ..Header::local(Kind::Event, "x") };
        assert!(up.wants(&h));
        assert!(up.wants(&Header { reach: Tier::Street, ..h }));
        assert!(!up.wants(&Header { reach: Tier::Community, ..h }));
        assert!(!up.wants(&Header { kind: Kind::Note, ..h }));
        assert!(!up.wants(&Header { direction: Direction::Local, ..h }));
        assert!(up.wants(&Header { kind: Kind::Receipt, ..h }));
    }

    #[test]
    fn down_goes_what_may_be_for_somebody_below() {
        let down = Audience::Down(a("c/s"));
        let h = Header { direction: Direction::Down, target: "c/**", ..Header::local(Kind::Event, "x") };
        assert!(down.wants(&h));
        assert!(down.wants(&Header { target: "c/s/m", ..h }));
        assert!(!down.wants(&Header { target: "c/t", ..h }));
        assert!(!down.wants(&Header { target: "nonsense!", ..h }));
        assert!(!down.wants(&Header { direction: Direction::Up, ..h }));
    }

    #[test]
    fn a_late_directive_travels_on_to_be_answered_and_a_late_event_does_not() {
        let down = Header { direction: Direction::Down, target: "c/s", ttl_ms: 500, ..Header::local(Kind::Event, "x") };
        let up = Header { direction: Direction::Up, ..down };
        assert_eq!((left_ms(&down, 100), left_ms(&up, 100)), (Some(400), Some(400)));
        assert_eq!((left_ms(&down, 500), left_ms(&up, 500)), (Some(TTL_OVER_MS), None));
        let over = Header { ttl_ms: TTL_OVER_MS, ..down };
        assert_eq!((left_ms(&over, 0), left_ms(&over, 9)), (Some(TTL_OVER_MS), Some(TTL_OVER_MS)));
        assert_eq!(left_ms(&Header { ttl_ms: 0, ..down }, 1 << 40), Some(0));
    }
}
