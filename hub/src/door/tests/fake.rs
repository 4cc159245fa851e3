//! An engine in memory: what the door's tests hold back, break and restart.

use crate::door::core::{Core, Offering};
use crate::door::{Ingress, Publish, Taken, dead_letter, now_us};
use crate::engine::{Error, Haste, Offered, Outcome, jots};
use crate::log::{self, Entry};
use crate::note::Note;
use crate::state::{Session, State};
use bytes::Bytes;
use citybrain_shared::record::{Draft, Header, Kind};
use citybrain_shared::{Lane, Pos};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Everything is in [`Inner`], so that a clone is the same log seen by a new process.
#[derive(Clone)]
pub(crate) struct Fake {
    inner: Arc<Mutex<Inner>>,
    committed: watch::Sender<Pos>,
    /// Turns false when the process is killed: whoever still has this handle writes nothing more.
    alive: Arc<AtomicBool>,
    /// The queue for what is not urgent has no room.
    is_full: watch::Sender<bool>,
}

/// An engine that does not keep what it says: a test that does not notice is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Tickets complete before the commit.
    EarlyTickets,
    /// Cursors are noted and forgotten.
    ForgetsCursors,
    /// A cursor is noted one record too far.
    HastyCursors,
    ForgetsReceived,
    ForgetsReleasing,
    /// Of a group's messages of QoS 2: whose they are, and that there are any.
    ForgetsOwners,
    ForgetsApart,
    ForgetsSubscriptions,
    ForgetsWills,
    ForgetsGoodbyes,
}

/// Where a record says when it was committed, see `shared/src/record.rs`.
const COMMITTED_AT: std::ops::Range<usize> = 12..20;

type Commit = Box<dyn FnOnce(&mut Inner) + Send>;

#[derive(Default)]
struct Inner {
    log: Vec<Entry>,
    state: State,
    /// Commits wait here while they are held back.
    held: Option<Vec<Commit>>,
    /// Only the fsync is held back: what is in no haste is written.
    syncs_alone: bool,
    /// Only what is urgent is held back.
    urgent_alone: bool,
    unwritable: bool,
    /// Its disk has no room for what is new.
    short: bool,
    unreadable: bool,
    /// First and last of the records that are lost.
    damaged: Option<(Pos, Pos)>,
    jots: HashMap<String, Pos>,
    /// Retention took everything up to here.
    trimmed: Pos,
    offers: usize,
    flaw: Option<Flaw>,
}

impl Fake {
    pub(crate) fn new() -> Fake {
        Fake::of(Arc::default(), Pos::ZERO)
    }

    /// A process that has just begun.
    fn of(inner: Arc<Mutex<Inner>>, last: Pos) -> Fake {
        let (committed, alive) = (watch::Sender::new(last), Arc::new(AtomicBool::new(true)));
        Fake { inner, committed, alive, is_full: watch::Sender::new(false) }
    }

    pub(super) fn with_flaw(flaw: Option<Flaw>) -> Fake {
        let fake = Fake::new();
        fake.inner.lock().flaw = flaw;
        fake
    }

    /// The process is killed: of the commits that were held back the first `keep(their number)` have
    /// reached the disk: each is one group. Are they not all there, it was a power cut, and takes the jots with it.
    /// What is returned is the log as the next process finds it.
    pub(crate) fn crash(&self, keep: impl FnOnce(usize) -> usize) -> Fake {
        let mut inner = self.inner.lock();
        self.alive.store(false, Ordering::SeqCst);
        inner.syncs_alone = false;
        let held = inner.held.take().unwrap_or_default();
        let keep = keep(held.len());
        let is_power_cut = keep < held.len();
        for commit in held.into_iter().take(keep) {
            commit(&mut inner);
        }
        // As the engine and the state do it at a start.
        let last = inner.last();
        let jots = std::mem::take(&mut inner.jots);
        let sessions = &inner.state.sessions;
        let jotted = jots
            .iter()
            .filter(|_| !is_power_cut)
            .filter_map(|(client, upto)| jots::note(client, sessions.get(client)?, *upto, last));
        let jotted = jotted.collect();
        inner.state.start_again(jotted, now_us());
        Fake::of(self.inner.clone(), inner.last())
    }

    /// From now on nothing is committed, until [`Fake::release`].
    pub(super) fn hold(&self) {
        self.inner.lock().held.get_or_insert_default();
    }

    /// From now on nothing is synced: what is in no haste is told that it is written. A power cut takes it.
    pub(super) fn hold_syncs(&self) {
        self.hold();
        self.inner.lock().syncs_alone = true;
    }

    /// From now on nothing urgent is committed, while all else is.
    pub(super) fn hold_urgent(&self) {
        self.hold();
        self.inner.lock().urgent_alone = true;
    }

    /// From now on there is room for what is urgent alone.
    pub(super) fn fill_queue(&self) {
        self.is_full.send_replace(true);
    }

    pub(super) fn release(&self) {
        self.is_full.send_replace(false);
        let mut inner = self.inner.lock();
        (inner.syncs_alone, inner.urgent_alone) = (false, false);
        for commit in inner.held.take().unwrap_or_default() {
            commit(&mut inner);
        }
        self.committed.send_replace(inner.last());
    }

    /// The engine ends before the door does.
    pub(super) fn stop(&self) {
        self.alive.store(false, Ordering::SeqCst);
    }

    /// So much time passes: all that is in the log was committed so much earlier.
    pub(super) fn age(&self, by: Duration) {
        for entry in &mut self.inner.lock().log {
            let mut bytes = entry.bytes.to_vec();
            let mut committed_us = [0; 8];
            committed_us.copy_from_slice(&bytes[COMMITTED_AT]);
            let earlier_us = i64::from_le_bytes(committed_us) - by.as_micros() as i64;
            bytes[COMMITTED_AT].copy_from_slice(&earlier_us.to_le_bytes());
            entry.bytes = bytes.into();
        }
    }

    pub(super) fn break_disk(&self, broken: bool) {
        self.inner.lock().unwritable = broken;
    }

    pub(super) fn fill_disk(&self, full: bool) {
        self.inner.lock().short = full;
    }

    pub(super) fn break_reads(&self, broken: bool) {
        self.inner.lock().unreadable = broken;
    }

    /// These, first and last, are lost.
    pub(crate) fn damage(&self, first: Pos, last: Pos) {
        self.inner.lock().damaged = Some((first, last));
    }

    pub(super) fn last(&self) -> Pos {
        self.inner.lock().last()
    }

    /// Retention takes everything up to `upto`, whoever needs it.
    pub(super) fn trim(&self, upto: Pos) {
        self.inner.lock().trimmed = upto;
    }

    pub(super) fn offers(&self) -> usize {
        self.inner.lock().offers
    }

    /// Puts records in, as a link would.
    pub(crate) fn commit(&self, drafts: Vec<Draft>) {
        let mut inner = self.inner.lock();
        for d in &drafts {
            inner.append(d);
        }
        self.committed.send_replace(inner.last());
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let inner = self.inner.lock();
        let notes = inner.log.iter().filter_map(|e| {
            let (header, payload) = Header::decode(&e.bytes).unwrap();
            (header.kind == Kind::Note).then(|| Note::parse(payload).unwrap())
        });
        notes.collect()
    }

    pub(super) fn session(&self, client: &str) -> Option<Session> {
        self.inner.lock().state.sessions.get(client).cloned()
    }

    /// `early`: the ticket does not wait for the commit, if that is held back.
    fn submit<T: Send + 'static>(&self, groups: Vec<Vec<Draft>>, early: bool, done: fn(Vec<Pos>) -> T) -> Offering<T> {
        let fake = self.clone();
        Box::pin(async move {
            let is_urgent = groups.iter().flatten().any(|d| d.header().lane == Lane::Urgent);
            if !is_urgent {
                let _ = fake.is_full.subscribe().wait_for(|is_full| !is_full).await;
            }
            let (tx, rx) = oneshot::channel();
            let mut inner = fake.inner.lock();
            if !fake.alive.load(Ordering::SeqCst) {
                return Err(Error::Stopping);
            }
            inner.offers += 1;
            let early = early && inner.syncs_alone || inner.flaw == Some(Flaw::EarlyTickets);
            let (early, tx) = if early && inner.held.is_some() { (Some(tx), oneshot::channel().0) } else { (None, tx) };
            if let Some(early) = early {
                let _ = early.send(Ok(done(Vec::new())));
            }
            let firsts: Arc<Mutex<Vec<Pos>>> = Arc::default();
            let mut tx = Some(tx);
            let last = groups.len() - 1;
            for (n, group) in groups.into_iter().enumerate() {
                let (firsts, tx) = (firsts.clone(), if n == last { tx.take() } else { None });
                let commit = move |inner: &mut Inner| {
                    if !inner.unwritable {
                        let all: Vec<Pos> = group.iter().map(|d| inner.append(d)).collect();
                        firsts.lock().extend(all.first());
                    }
                    let Some(tx) = tx else { return };
                    let _ = tx.send(if inner.unwritable {
                        Err(Error::Unwritable("the test says so".into()))
                    } else {
                        Ok(done(std::mem::take(&mut *firsts.lock())))
                    });
                };
                let goes_on = inner.urgent_alone && !is_urgent;
                match &mut inner.held {
                    Some(held) if !goes_on => held.push(Box::new(commit)),
                    _ => commit(&mut inner),
                }
            }
            fake.committed.send_replace(inner.last());
            Ok(rx)
        })
    }
}

/// What tests see of the state.
impl Fake {
    /// The reasons of all dead letters.
    pub(super) fn letters(&self) -> Vec<String> {
        let reason = |n| if let Note::DeadLetter(letter) = n { Some(letter.reason) } else { None };
        self.notes().into_iter().filter_map(reason).collect()
    }

    pub(super) fn events(&self) -> usize {
        let is_event = |e: &&Entry| Header::decode(&e.bytes).unwrap().0.kind.is_event();
        self.inner.lock().log.iter().filter(is_event).count()
    }

    /// The payloads of all messages and events on this topic.
    pub(crate) fn published(&self, topic: &str) -> Vec<String> {
        let inner = self.inner.lock();
        let all = inner.log.iter().map(|e| Header::decode(&e.bytes).unwrap());
        let on_topic = all.filter(|(header, _)| header.kind != Kind::Note && header.topic == topic);
        on_topic.map(|(_, payload)| String::from_utf8(payload.to_vec()).unwrap()).collect()
    }

    pub(super) fn has_session(&self, client: &str) -> bool {
        self.inner.lock().state.sessions.contains_key(client)
    }

    pub(super) fn expiry_s(&self, client: &str) -> u32 {
        self.inner.lock().state.sessions[client].expiry_s
    }

    /// Makes the client have left so much earlier.
    pub(super) fn left_earlier(&self, client: &str, by: Duration) {
        let mut inner = self.inner.lock();
        inner.state.sessions.left_earlier(client, by);
    }
}

impl Inner {
    fn last(&self) -> Pos {
        self.log.last().map_or(Pos::ZERO, |e| e.pos)
    }

    fn append(&mut self, draft: &Draft) -> Pos {
        let pos = self.last().next();
        let mut draft = draft.clone();
        draft.stamp(now_us(), pos.0);
        let entry = Entry { pos, chain: 0, bytes: Bytes::copy_from_slice(draft.bytes()) };
        let (header, payload) = Header::decode(&entry.bytes).unwrap();
        match (header.kind, self.flaw) {
            (Kind::Note, Some(flaw)) => match flaw.spoils(Note::parse(payload).unwrap()) {
                Some(note) => {
                    let spoilt = note.draft();
                    let committed_us = header.committed_us;
                    let (header, payload) = spoilt.parts();
                    self.state.apply(pos, &Header { committed_us, ..header }, payload);
                }
                None => self.state.applied = pos,
            },
            _ => self.state.apply(pos, &header, payload),
        }
        self.log.push(entry);
        pos
    }
}

impl Flaw {
    /// What such an engine makes of a note.
    fn spoils(self, note: Note) -> Option<Note> {
        match (self, note) {
            (Flaw::ForgetsCursors, Note::SessionAcked { .. })
            | (Flaw::ForgetsSubscriptions, Note::Subscribed { .. })
            | (Flaw::ForgetsReceived, Note::Qos2Held { .. })
            | (Flaw::ForgetsWills, Note::WillSet { .. })
            | (Flaw::ForgetsGoodbyes, Note::WillEnded { .. }) => None,
            (_, Note::SessionAcked { client, mut upto, beyond, mut releasing, begun, mut apart }) => {
                match self {
                    Flaw::HastyCursors => upto = upto.next(),
                    Flaw::ForgetsReleasing => {
                        releasing.clear();
                        apart.iter_mut().for_each(|a| a.releasing = false);
                    }
                    Flaw::ForgetsOwners => apart.iter_mut().for_each(|a| a.client = None),
                    Flaw::ForgetsApart => apart.clear(),
                    _ => {}
                }
                Some(Note::SessionAcked { client, upto, beyond, releasing, begun, apart })
            }
            (_, other) => Some(other),
        }
    }
}

impl Core for Fake {
    /// # Panics
    /// Where some are urgent and some are not: they would wait for each other.
    fn offer(&self, offered: Vec<Offered>) -> Offering<Vec<Outcome>> {
        assert!(offered.windows(2).all(|two| two[0].lane() == two[1].lane()), "both lanes in one offer");
        if self.is_short() && !offered.iter().all(Offered::lets_log_go) {
            let (tx, rx) = oneshot::channel();
            let _ = tx.send(Err(Error::Unwritable("the test says so".into())));
            return Box::pin(async { Ok(rx) });
        }
        let groups = offered.into_iter().map(|o| std::iter::once(o.draft).chain(o.with).collect()).collect();
        self.submit(groups, false, |all| all.into_iter().map(Outcome::Committed).collect())
    }

    fn note(&self, notes: Vec<Note>, haste: Haste) -> Offering<()> {
        self.submit(vec![notes.iter().map(Note::draft).collect()], haste == Haste::Lazy, |_| ())
    }

    fn jot(&self, client: &str, upto: Pos) {
        let mut inner = self.inner.lock();
        if self.alive.load(Ordering::SeqCst) {
            inner.jots.insert(client.to_owned(), upto);
        }
    }

    fn is_short(&self) -> bool {
        self.inner.lock().short
    }

    fn first(&self) -> Pos {
        self.inner.lock().trimmed.next()
    }

    fn read(&self, after: Pos, records: usize, _bytes: usize) -> Result<Vec<Entry>, log::Error> {
        let inner = self.inner.lock();
        if inner.unreadable {
            return Err(broken());
        }
        let first = inner.trimmed.next();
        if after.next() < first {
            return Err(log::Error::Trimmed { first });
        }
        let (damaged, upto) = inner.damaged.unwrap_or((Pos(u64::MAX), Pos(u64::MAX)));
        if (damaged..=upto).contains(&after.next()) {
            return Err(log::Error::Damaged { after, upto, path: "log".into(), offset: 0 });
        }
        let entries = inner.log.iter().skip(after.0 as usize).take_while(|e| e.pos < damaged || e.pos > upto);
        Ok(entries.take(records).cloned().collect())
    }

    fn get(&self, pos: Pos) -> Result<Option<Entry>, log::Error> {
        let inner = self.inner.lock();
        if inner.unreadable { Err(broken()) } else { Ok(inner.log.get(pos.0 as usize - 1).cloned()) }
    }

    fn committed(&self) -> watch::Receiver<Pos> {
        self.committed.subscribe()
    }

    fn state(&self, look: &mut dyn FnMut(&State)) {
        look(&self.inner.lock().state);
    }

    fn state_ahead(&self, look: &mut dyn FnMut(&State)) {
        self.state(look);
    }
}

fn broken() -> log::Error {
    log::Error::Io(crate::files::at("log".as_ref())(std::io::Error::other("the test says so")))
}

/// Every QoS 1 or 2 publish, and every retained one, is a message; below `in/` it is an event of
/// the type `t`, unless its payload is no object; below `in/sos/` an urgent one, as is what comes on [`BELLS`].
pub(crate) struct Plain;

pub(super) const BELLS: &str = "bells";

impl Ingress for Plain {
    fn take(&self, p: &Publish<'_>) -> Taken {
        let event = p.topic.starts_with("in/");
        if event && !p.payload.starts_with(b"{") {
            let draft = dead_letter("not-json", "it is no object", p.client, p.topic, p.payload);
            return Taken { draft: Some(draft), beside: None, reason: 0x99 };
        }
        let (kind, name) = if event { (Kind::Event, "t") } else { (Kind::Message, "") };
        if p.qos == 0 && !p.retain && !event {
            return Taken { draft: None, beside: None, reason: 0 };
        }
        let is_urgent = p.topic.starts_with("in/sos/") || p.topic == BELLS;
        let lane = if is_urgent { Lane::Urgent } else { Lane::Routine };
        let header =
            Header { lane, topic: p.topic, qos: p.qos, retain: p.retain, door: p.door, ..Header::local(kind, name) };
        Taken { draft: Some(Draft::new(&header, p.payload).unwrap()), beside: None, reason: 0 }
    }

    fn is_urgent(&self, p: &Publish<'_>) -> bool {
        self.take(p).draft.is_some_and(|draft| draft.header().lane == Lane::Urgent)
    }
}
