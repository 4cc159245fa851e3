//! Frames from the log: what of it is for a peer, and how much fits.

use super::handshake::{Session, log_at};
use super::sender::Send;
use crate::log::{Error as LogError, Reader};
use crate::note::{DeadLetter, Note, reason};
use citybrain_shared::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX};
use citybrain_shared::record::{Direction, Header, Origin, TTL_OVER_MS};
use citybrain_shared::wire::{Epoch, FrameBuilder, FrameHead, Party, UNPACKED_BYTES_MAX};
use citybrain_shared::{Address, Lane, Pos, Selector};
use std::collections::VecDeque;

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

/// The downward records of the newest part of the log, so that many children need not each look
/// through all that goes up. One for all children; filled by one reader.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Covers the positions in (`after`, `upto`].
    after: Pos,
    upto: Pos,
    items: VecDeque<(Pos, Lane, Selector)>,
}

/// Index entries kept, about 200 bytes each. A child that is further behind reads the log itself.
const OUTBOX_ITEMS_MAX: usize = 16 * 1024;

/// Children hear of the log's growth at such steps even if nothing is for them, so that their
/// cursors follow.
const STEP_POSITIONS: u64 = super::sender::COVER_RECORDS_MIN;

impl Outbox {
    pub fn new(last: Pos) -> Outbox {
        Outbox { after: last, upto: last, items: VecDeque::new() }
    }

    /// Looks through what was committed since. False if there is more to look through.
    ///
    /// # Errors
    /// When the log cannot be read there; nothing is skipped.
    pub fn fill(&mut self, reader: &Reader) -> Result<bool, LogError> {
        for _ in 0..READS_MAX {
            let entries = match reader.read(self.upto, None, 1024, 1024 * 1024) {
                Ok(entries) => entries,
                // Nobody can be sent what is not there; the children's own reading records it.
                Err(LogError::Damaged { upto, .. }) if upto > self.upto => {
                    self.upto = upto;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let Some(last) = entries.last().map(|e| e.pos) else { return Ok(true) };
            for e in &entries {
                let Ok((h, _)) = Header::decode(&e.bytes) else { continue };
                if h.direction == Direction::Down
                    && h.kind.is_event()
                    && let Ok(selector) = Selector::parse(h.target)
                {
                    self.items.push_back((e.pos, h.lane, selector));
                }
            }
            self.upto = last;
            while self.items.len() > OUTBOX_ITEMS_MAX {
                self.after = self.items.pop_front().map_or(self.after, |(pos, ..)| pos);
            }
        }
        Ok(false)
    }

    /// How far a child has to look.
    pub fn goal(&self) -> Pos {
        let newest = self.items.back().map_or(Pos::ZERO, |(pos, ..)| *pos);
        newest.max(Pos(self.upto.0 / STEP_POSITIONS * STEP_POSITIONS))
    }

    /// Positions after `looked` that are for `child`, oldest first; `None` if the outbox does not
    /// go back so far, or no further: a lane that reads the log itself may be ahead of it, and the
    /// other one must get there, too.
    fn for_child(&self, child: &Address, lane: Lane, looked: Pos) -> Option<impl Iterator<Item = Pos>> {
        (looked >= self.after && looked < self.upto).then(|| {
            let from = self.items.partition_point(|(pos, ..)| *pos <= looked);
            let due = self.items.iter().skip(from).filter(move |(_, l, s)| *l == lane && s.may_reach(child));
            due.map(|(pos, ..)| *pos).take(FRAME_RECORDS_MAX)
        })
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
    pub outbox: Option<&'a Outbox>,
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

impl Press<'_> {
    /// Builds the frame that `send` asks for. Records at or below `told_upto` that are too large are skipped
    /// without another dead letter, and those whose time was over are counted already.
    ///
    /// # Errors
    /// See [`Error`]; nothing is skipped then.
    pub fn build(&self, builder: &mut FrameBuilder, send: Send, told_upto: Pos) -> Result<Built, Error> {
        let mut built = Built { upto: send.looked, ..Built::default() };
        // A frame that could not be finished is of a lane, and of a session, that may be over.
        builder.clear();
        let budget =
            FRAME_BYTES_MAX.min((self.session.message_bytes_max as usize).saturating_sub(FRAME_OVERHEAD_BYTES));
        if !send.cover {
            self.gather(builder, send, told_upto, budget, &mut built)?;
        }
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

    fn gather(
        &self,
        builder: &mut FrameBuilder,
        send: Send,
        told_upto: Pos,
        budget: usize,
        built: &mut Built,
    ) -> Result<(), Error> {
        let mut bytes = 0;
        if let (Some(outbox), Audience::Down(child)) = (self.outbox, self.audience)
            && let Some(due) = outbox.for_child(child, send.lane, send.looked)
        {
            let mut looked = 0;
            for pos in due {
                looked += 1;
                let entry = match self.reader.get(pos) {
                    Ok(Some(entry)) => entry,
                    Ok(None) => return Err(Error::Trimmed(pos)),
                    Err(LogError::Damaged { .. }) => {
                        self.hole(send.lane, Pos(pos.0 - 1), pos, told_upto, built);
                        continue;
                    }
                    Err(e) => return Err(Error::Log(e)),
                };
                if !self.add(builder, pos, &entry.bytes, budget, &mut bytes, told_upto, built) {
                    return Ok(());
                }
                built.upto = pos;
                if bytes >= send.bytes_max {
                    return Ok(());
                }
            }
            // As many as were asked for: there may be more of them. Not all go into the frame.
            if looked < FRAME_RECORDS_MAX {
                built.upto = built.upto.max(outbox.upto);
            }
            return Ok(());
        }
        for _ in 0..READS_MAX {
            // Asked before reading: what is committed meanwhile may be of this lane.
            let last = self.reader.last();
            if self.reader.first() > built.upto.next() {
                return Err(Error::Trimmed(built.upto));
            }
            let entries = match self.reader.read(built.upto, Some(send.lane), FRAME_RECORDS_MAX, FRAME_BYTES_MAX) {
                Ok(entries) => entries,
                Err(LogError::Damaged { after, upto, .. }) if upto > built.upto => {
                    self.hole(send.lane, after, upto, told_upto, built);
                    continue;
                }
                Err(e) => return Err(Error::Log(e)),
            };
            if entries.is_empty() {
                built.upto = built.upto.max(last);
                return Ok(());
            }
            for e in &entries {
                if !self.add(builder, e.pos, &e.bytes, budget, &mut bytes, told_upto, built) {
                    return Ok(());
                }
                built.upto = e.pos;
                if bytes >= send.bytes_max {
                    return Ok(());
                }
            }
            if !builder.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Records that were durable and cannot be read any more: written down and passed over, for the
    /// lane must go on.
    fn hole(&self, lane: Lane, after: Pos, upto: Pos, told_upto: Pos, built: &mut Built) {
        built.upto = built.upto.max(upto);
        if upto > told_upto {
            built.parked.push(Note::Lost {
                peer: Some(self.audience.peer().clone()),
                lane: Some(lane),
                after,
                upto,
                reason: "the log is damaged there".into(),
            });
        }
    }

    /// False if the frame is full without this record.
    #[allow(clippy::too_many_arguments, reason = "one caller's loop body, twice")]
    fn add(
        &self,
        builder: &mut FrameBuilder,
        pos: Pos,
        record: &[u8],
        budget: usize,
        bytes: &mut usize,
        told_upto: Pos,
        built: &mut Built,
    ) -> bool {
        if builder.is_full() {
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
            built.expired.push(pos);
            return true;
        };
        let address = h.origin.map_or(self.address.as_str(), |o| o.address);
        let size = RECORD_OVERHEAD_BYTES + h.name.len() + h.target.len() + 2 * address.len() + payload.len();
        let message_budget = (self.session.message_bytes_max as usize).saturating_sub(FRAME_OVERHEAD_BYTES);
        if size > message_budget {
            if pos > told_upto {
                let (most, peer) = (self.session.message_bytes_max, self.audience.peer());
                let detail = format!(
                    "record {pos} does not fit into a message of {most} bytes, the most that {peer} accepts; raise link.message_bytes_max there and send it again"
                );
                let via = format!("link:{peer}");
                let letter = DeadLetter::new(reason::TOO_LARGE_FOR_LINK, detail, via, h.topic, payload);
                built.parked.push(Note::DeadLetter(DeadLetter { of: Some(pos), ..letter }));
            }
            return true;
        }
        if !builder.is_empty() && *bytes + size > budget {
            return false;
        }
        *bytes += size;
        let own = Origin { address: self.address.as_str(), log: log_at(self.epochs, pos), pos };
        builder.push(&h, own, ttl_ms, payload);
        true
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

/// zstd level 1, if that makes it smaller by at least an eighth. A single record may be larger than what a
/// receiver unpacks; it goes as it is.
fn pack(body: &[u8]) -> Option<Vec<u8>> {
    const WORTH_IT_BYTES_MIN: usize = 256;
    if !(WORTH_IT_BYTES_MIN..=UNPACKED_BYTES_MAX).contains(&body.len()) {
        return None;
    }
    zstd::bulk::compress(body, 1).ok().filter(|packed| packed.len() <= body.len() / 8 * 7)
}

/// For [`citybrain_shared::wire::decode`]: `len` is bounded by the caller.
pub fn unpack(body: &[u8], len: usize) -> Option<Vec<u8>> {
    zstd::bulk::decompress(body, len).ok()
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

    #[test]
    fn the_outbox_finds_a_childs_records_and_says_when_it_cannot() {
        let mut outbox = Outbox::new(Pos(10));
        for (pos, target) in [(12, "c/s"), (13, "c/t"), (20, "c/**")] {
            outbox.items.push_back((Pos(pos), Lane::Routine, Selector::parse(target).unwrap()));
        }
        outbox.upto = Pos(25);
        let due = |looked| outbox.for_child(&a("c/s"), Lane::Routine, Pos(looked)).map(|i| i.collect::<Vec<_>>());
        assert_eq!(due(10), Some(vec![Pos(12), Pos(20)]));
        assert_eq!(due(12), Some(vec![Pos(20)]));
        assert_eq!(due(9), None);
        assert_eq!((due(24), due(25)), (Some(Vec::new()), None), "what is beyond it only the log knows");
        assert_eq!(outbox.goal(), Pos(20));
    }

    #[test]
    fn what_is_packed_unpacks_and_what_gains_nothing_is_left() {
        let body = vec![7u8; 4096];
        let packed = pack(&body).unwrap();
        assert_eq!(unpack(&packed, body.len()), Some(body));
        assert_eq!(unpack(&packed, 100), None);
        assert_eq!(pack(b"short"), None);
        // Nobody would unpack it, and the lane would stand still.
        assert!(pack(&vec![7; UNPACKED_BYTES_MAX]).is_some() && pack(&vec![7; UNPACKED_BYTES_MAX + 1]).is_none());
        let noise: Vec<u8> =
            (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (i >> 3) as u8).collect();
        if let Some(p) = pack(&noise) {
            assert!(p.len() < noise.len());
        }
    }
}
