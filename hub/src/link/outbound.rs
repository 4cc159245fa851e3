//! The sending half of a live link, as both drivers use it: the machine, the frames, and the
//! bookkeeping of what the peer acknowledged.

use super::downward::Downward;
use super::driver::{Context, End};
use super::frames::{self, Audience, Press};
use super::handshake::Session;
use super::pipe::Outlet;
use super::sender::{Acked, Ms, Sender, Terms};
use super::view::{LaneView, LinkView};
use crate::engine::{Error, Haste, Hub, history_of};
use crate::log::Reader;
use crate::note::Note;
use citybrain_shared::topic::Verb;
use citybrain_shared::wire::{Ack, Cursor, Epoch, FrameBuilder, Party};
use citybrain_shared::words::with_causes;
use citybrain_shared::{Address, Lane, Pos};
use std::collections::BTreeSet;

/// An acknowledgement is written down after so long, or so many; what is lost of it is only sent
/// again.
const HAS_AFTER_MS: Ms = 200;
const HAS_ACKS_MAX: u32 = 64;

/// A frame to publish, and what to write down about it.
struct Due {
    message: Vec<u8>,
    parked: Vec<Note>,
    lane: Lane,
    /// How far it goes.
    upto: Pos,
}

/// Why nothing more can be sent in a session.
pub(crate) enum Halt {
    /// The connection or the node has ended.
    End(End),
    /// What is passed over cannot be noted.
    Unnoted(Error),
    /// The log cannot serve the session.
    Unread(frames::Error),
}

pub(crate) struct Outbound {
    pub sender: Sender,
    address: Address,
    audience: Audience,
    session: Option<Session>,
    builder: FrameBuilder,
    me: Party,
    epochs: Vec<Epoch>,
    /// Up to here what is not sent is parked.
    told_upto: [Pos; 2],
    has_changed: [bool; 2],
    has_at: Option<Ms>,
    has_acks: u32,
    sent_records: u64,
    expired: Expired,
    sent_bytes: u64,
    late_acks: u64,
}

/// Records that were not sent because their time was over: each once, however often the line goes back.
#[derive(Default)]
struct Expired {
    settled: u64,
    /// Beyond what the peer has acknowledged: they are looked at again if the line goes back.
    open: [BTreeSet<Pos>; 2],
}

/// Of a lane that are remembered, 24 bytes each or so; of more the oldest may be counted twice.
const EXPIRED_OPEN_MAX: usize = 16_384;

impl Expired {
    fn see(&mut self, lane: Lane, positions: Vec<Pos>) {
        let open = &mut self.open[lane as usize];
        open.extend(positions);
        while open.len() > EXPIRED_OPEN_MAX && open.pop_first().is_some() {
            self.settled += 1;
        }
    }

    fn settle(&mut self, lane: Lane, upto: Pos) {
        let open = &mut self.open[lane as usize];
        let later = open.split_off(&upto.next());
        self.settled += std::mem::replace(open, later).len() as u64;
    }

    fn count(&self) -> u64 {
        self.settled + self.open.iter().map(|open| open.len() as u64).sum::<u64>()
    }
}

impl Outbound {
    /// `address`: this node's.
    pub(crate) fn new(address: Address, terms: Terms, audience: Audience) -> Outbound {
        Outbound {
            sender: Sender::new(terms),
            address,
            audience,
            session: None,
            builder: FrameBuilder::default(),
            me: Party::default(),
            epochs: Vec::new(),
            told_upto: [Pos::ZERO; 2],
            has_changed: [false; 2],
            has_at: None,
            has_acks: 0,
            sent_records: 0,
            expired: Expired::default(),
            sent_bytes: 0,
            late_acks: 0,
        }
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(crate) fn up(&mut self, session: Session, me: Party, last: Pos) {
        Lane::ALL.into_iter().zip(session.starts).for_each(|(lane, start)| self.expired.settle(lane, start.upto));
        self.sender.on_welcome(session.starts.map(|c| c.upto), last, session.credit);
        self.me = me;
        self.session = Some(session);
        (self.has_changed, self.has_at, self.has_acks) = ([false; 2], None, 0);
    }

    /// Ends the session, if any. What the peer has is noted first: another box may come in its place, or a backup be put
    /// back, and it must not do again what it has done.
    pub(crate) fn leave(&mut self, hub: &Hub) {
        if let Ok(Some(place)) = hub.place() {
            place.note_lazily(&self.notes(&hub.reader()));
        }
        self.down();
    }

    pub(crate) fn down(&mut self) {
        self.sender.on_down();
        self.session = None;
        // What was not noted is only sent again; a timer without a session would be over for ever.
        (self.has_changed, self.has_at, self.has_acks) = ([false; 2], None, 0);
    }

    /// An acknowledgement of an older connection, start or lease changes nothing and is counted.
    pub(crate) fn on_ack(&mut self, now: Ms, ack: &Ack) -> Acked {
        let is_of_session = self
            .session
            .as_ref()
            .is_some_and(|s| ack.from == s.party && ack.to == self.me.boot && ack.lease == s.lease && ack.log == s.log);
        if !is_of_session {
            self.late_acks += 1;
            return Acked::Nothing;
        }
        let acked = self.sender.on_ack(now, ack.lane, ack.upto, ack.credit, ack.gap);
        if acked == Acked::Progress {
            self.expired.settle(ack.lane, ack.upto);
            self.has_changed[ack.lane as usize] = true;
            self.has_at.get_or_insert(now + HAS_AFTER_MS);
            self.has_acks += 1;
        }
        acked
    }

    /// Sends the next frame; false: there is none to send now. `downward`: of all children.
    ///
    /// # Errors
    /// [`Halt`]: nothing more can be sent in this session.
    pub(crate) async fn send_next(
        &mut self,
        cx: &Context,
        reader: &Reader,
        downward: Option<&Downward>,
        outlet: &Outlet,
    ) -> Result<bool, Halt> {
        let next = self.next(cx.now(), &cx.hub, reader, downward, cx.config.compress).map_err(|e| {
            let error = with_causes(&e);
            tracing::warn!(peer = %self.audience.peer(), error, "The session ends because the log cannot serve it.");
            Halt::Unread(e)
        })?;
        let Some(due) = next else { return Ok(false) };
        // On disk before the frame that skips it: otherwise a crash would lose it in silence.
        cx.commit(due.parked, Haste::Now).await.map_err(|e| match e {
            Error::Stopping => Halt::End(End::Stop),
            e => Halt::Unnoted(e),
        })?;
        self.on_told(due.lane, due.upto);
        if !due.message.is_empty() {
            let topic = match &self.audience {
                Audience::Up(_) => cx.topic(Verb::Up, &self.address),
                Audience::Down(child) => cx.topic(Verb::Down, child),
            };
            outlet.publish(topic, due.message, false).await.map_err(|e| Halt::End(End::again(e)))?;
        }
        Ok(true)
    }

    /// The next frame, until there is none to send now.
    ///
    /// # Errors
    /// [`frames::Error`]: end the session.
    fn next(
        &mut self,
        now: Ms,
        hub: &Hub,
        reader: &Reader,
        downward: Option<&Downward>,
        compress: bool,
    ) -> Result<Option<Due>, frames::Error> {
        let Some(session) = &self.session else { return Ok(None) };
        let mut is_fresh = false;
        while let Some(send) = self.sender.poll_send(now) {
            if !is_fresh {
                is_fresh = true;
                if history_of(&self.epochs) != hub.history() {
                    self.epochs = hub.state(|s| s.me.epochs.clone());
                }
            }
            let press = Press {
                reader,
                address: &self.address,
                me: self.me,
                epochs: &self.epochs,
                session,
                audience: &self.audience,
                downward,
                compress,
                now_us: chrono::Utc::now().timestamp_micros(),
            };
            let built = press.build(&mut self.builder, send, self.told_upto[send.lane as usize])?;
            let (lane, upto) = (send.lane, built.upto);
            self.expired.see(lane, built.expired);
            match built.message {
                Some(message) => {
                    self.sender.on_sent(now, send.lane, built.upto, message.len());
                    self.sent_records += u64::from(built.records);
                    self.sent_bytes += message.len() as u64;
                    return Ok(Some(Due { message, parked: built.parked, lane, upto }));
                }
                None => {
                    self.sender.on_skipped(now, send.lane, built.upto);
                    if !built.parked.is_empty() {
                        return Ok(Some(Due { message: Vec::new(), parked: built.parked, lane, upto }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What an [`Due`] parked is on disk: it is not parked again.
    fn on_told(&mut self, lane: Lane, upto: Pos) {
        let told = &mut self.told_upto[lane as usize];
        *told = upto.max(*told);
    }

    /// Adds to `notes` what the peer has, if it is time to note it; where there is no place for it, a while
    /// later: nothing waits for it.
    pub(crate) fn note_due(&mut self, now: Ms, reader: &Reader, notes: Option<&mut Vec<Note>>) {
        if self.has_at.is_none_or(|at| at > now) && self.has_acks < HAS_ACKS_MAX {
            return;
        }
        match notes {
            Some(notes) => notes.extend(self.notes(reader)),
            None => self.has_at = Some(now + HAS_AFTER_MS),
        }
    }

    /// What the peer has and is not noted, early or not: the session ends, or the node. Another box may come in its
    /// place, or it under another address, where what is sent again has another origin.
    pub(crate) fn notes(&mut self, reader: &Reader) -> Vec<Note> {
        let Some(session) = self.session.as_ref() else { return Vec::new() };
        (self.has_at, self.has_acks) = (None, 0);
        let changed = std::mem::take(&mut self.has_changed);
        let lanes = Lane::ALL.into_iter().filter(|l| changed[*l as usize]);
        let note = |lane| {
            let upto = self.sender.acked(lane);
            // A hash that cannot be read is left for the next acknowledgement.
            let chain = frames::chain(reader, session, lane, upto).ok()?;
            let cursor = Cursor { log: session.log, upto, chain };
            Some(Note::PeerHas { peer: self.audience.peer().clone(), inc: session.party.inc, lane, cursor })
        };
        lanes.filter_map(note).collect()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Ms> {
        [self.sender.poll_timeout(), self.has_at].into_iter().flatten().min()
    }

    pub(crate) fn show(&self, view: &mut LinkView) {
        let lane = |lane| LaneView {
            acked_pos: self.sender.acked(lane),
            looked_pos: self.sender.looked(lane),
            credit_frames: self.sender.credit(lane),
        };
        (view.urgent, view.routine) = (lane(Lane::Urgent), lane(Lane::Routine));
        view.last_pos = self.sender.last();
        (view.sent_records, view.sent_bytes) = (self.sent_records, self.sent_bytes);
        view.expired_records = self.expired.count();
        view.late_acks = self.late_acks;
        view.resends = self.sender.resends();
        view.rtt_ms = self.sender.rtt_ms();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::LogId;

    /// In session, with an acknowledgement that came at 100 ms.
    fn acked() -> Outbound {
        let terms = Terms { window_frames: 8, resend_after_ms: 2000 };
        let child = Address::parse("c/s").unwrap();
        let mut out = Outbound::new(Address::parse("c").unwrap(), terms, Audience::Down(child));
        let start = Cursor { log: LogId(1), upto: Pos::ZERO, chain: 0 };
        let (party, me) = (Party::default(), Party::default());
        let session = Session {
            party,
            lease: 1,
            log: start.log,
            starts: [start; 2],
            had_before: [Pos::ZERO; 2],
            credit: 8,
            message_bytes_max: 1 << 20,
            alive_every_ms: 10_000,
        };
        out.up(session, me, Pos(10));
        let ack = Ack {
            from: party,
            to: me.boot,
            lease: 1,
            log: start.log,
            lane: Lane::Routine,
            upto: Pos(1),
            credit: 8,
            gap: false,
        };
        assert_eq!(out.on_ack(100, &ack), Acked::Progress);
        out
    }

    #[test]
    fn what_expires_under_way_is_counted_once_though_the_line_goes_back() {
        let mut expired = Expired::default();
        expired.see(Lane::Routine, vec![Pos(3), Pos(9)]);
        assert_eq!(expired.count(), 2);
        // It goes back behind 5, where one more has expired since; the other lane has positions of its own.
        expired.settle(Lane::Routine, Pos(5));
        expired.see(Lane::Routine, vec![Pos(7), Pos(9)]);
        expired.see(Lane::Urgent, vec![Pos(8)]);
        assert_eq!(expired.count(), 4);
        expired.settle(Lane::Routine, Pos(9));
        assert_eq!((expired.count(), expired.open[Lane::Routine as usize].len()), (4, 0));
    }

    #[test]
    fn a_link_without_a_session_wakes_nobody() {
        let mut out = acked();
        assert!(out.poll_timeout().is_some());
        out.down();
        assert_eq!(out.poll_timeout(), None);
    }

    #[test]
    fn what_the_peer_has_is_noted_though_a_flood_waits_and_later_where_there_is_no_place_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[node]\naddress = \"c\"\ndata = \"{}\"\n", dir.path().display());
        let config = toml::from_str(&text).unwrap();
        let (hub, engine, _) = crate::engine::open(&config, crate::policy::none()).unwrap();
        let (reader, mut out) = (hub.reader(), acked());
        out.note_due(100 + HAS_AFTER_MS, &reader, None);
        assert_eq!(out.poll_timeout(), Some(100 + 2 * HAS_AFTER_MS), "nobody waits, and nobody is woken at once");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let flood: Vec<_> = (0..citybrain_shared::limits::ENGINE_QUEUE_MAX)
            .map(|_| runtime.block_on(hub.decide(Lane::Routine, Box::new(|_, _| Vec::new()))).unwrap())
            .collect();
        let mut notes = Vec::new();
        out.note_due(100 + 2 * HAS_AFTER_MS, &reader, Some(&mut notes));
        hub.place().unwrap().expect("the flood has another queue").note_lazily(&notes);
        let thread = std::thread::spawn(|| engine.run());
        for ticket in flood {
            ticket.blocking_recv().unwrap().unwrap();
        }
        runtime.block_on(hub.stop());
        thread.join().unwrap();
        let has = hub.state(|s| s.peers[&Address::parse("c/s").unwrap()].peer_has[Lane::Routine as usize]);
        assert_eq!(has.map(|c| c.upto), Some(Pos(1)));
    }
}
