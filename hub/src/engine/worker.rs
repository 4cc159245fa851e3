//! The engine's thread: takes what is queued, decides, appends, syncs, tells.

use super::{
    Change, Error, Haste, House, Job, Offered, Outcome, Received, Settled, Shared, all_fit, history_of, open, receipts,
};
use crate::log::{self, Disk, Log};
use crate::note::{DeadLetter, Note};
use crate::operator;
use crate::state::{RETIRED_TYPE, RETURNED_TYPE, State, class};
use crate::store::Store;
use citybrain_shared::config::Store as StoreConfig;
use citybrain_shared::record::{Direction, Draft, Header};
use citybrain_shared::selector::{Labels, Selector};
use citybrain_shared::words::with_causes;
use citybrain_shared::{Address, Pos, event, limits};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};

/// Rows go to sled at least this often while anything changes: what is not there is folded again
/// at a start, and half a second of records folds in a few milliseconds.
const STORE_EVERY: Duration = Duration::from_millis(500);
/// Lazy notes wait at most this long for a commit of somebody else.
const LAZY_MAX: Duration = Duration::from_millis(200);
/// How often retention and free space are looked at.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(2);
/// An idle engine turns at least this often, so that a watchdog sees it alive.
const TURN_EVERY: Duration = Duration::from_millis(500);
/// After a failed write the log is opened again this often.
const REOPEN_EVERY: Duration = Duration::from_millis(500);
/// A snapshot that failed is tried again after so long: it may be as large as the state.
const SNAPSHOT_AGAIN_EVERY: Duration = Duration::from_secs(60);
/// How long timers go on while somebody waits: a few commits of them.
const DUE_MAX: Duration = Duration::from_millis(5);
/// Groups of them in one turn, though nobody waits.
const DUE_ROUNDS: u32 = 16;

/// How much room the disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    Enough,
    /// Less than `free_bytes_min`: nothing new is taken. Notes are, or a log that has filled the disk itself
    /// would stay for ever: who has what, who is there and who is gone.
    Short,
    /// Less than half of that: of them only those that let the log go ([`Note::lets_go`]). Clients that come
    /// and are sent away for hours must not use up the room that these need.
    Scarce,
    /// Less than a quarter: nothing at all.
    Spent,
}

/// What comes back from the thread that writes a snapshot. `None`: it was given no store.
type Lent = JoinHandle<Option<(Store, Result<(), String>)>>;

pub struct Engine {
    pub(super) log: Log,
    pub(super) disk: Arc<dyn Disk>,
    /// `None` after a failure, until it is opened again, and while it is lent.
    pub(super) store: Option<Store>,
    /// The store is with a thread that writes a snapshot of it, which takes as long as the state is large.
    /// Commits go on meanwhile; what they change stays with the state until the store is back.
    pub(super) lent: Option<Lent>,
    pub(super) shared: Arc<Shared>,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) committed: watch::Sender<Pos>,
    pub(super) config: StoreConfig,
    pub(super) dir: PathBuf,
    pub(super) me: Address,
    pub(super) labels: Labels,
    pub(super) parent: Option<Address>,
    pub(super) policy: crate::policy::Make,
    /// Events in the batch that is not committed yet, by key.
    pub(super) fresh_keys: HashMap<u64, Pos>,
    pub(super) stored: Pos,
    pub(super) last_store: Instant,
    pub(super) last_housekeeping: Instant,
    pub(super) lazy_since: Option<Instant>,
    pub(super) broken_since: Option<Instant>,
    pub(super) space: Space,
    /// Written since free space was last looked at.
    pub(super) unwatched_bytes: u64,
    pub(super) ballast_is_gone: bool,
    pub(super) snapshot_at: Pos,
    /// Before its number of records is reached: retention may take only what is behind two of them.
    pub(super) is_snapshot_due: bool,
    /// When the last one failed, until one is written.
    pub(super) snapshot_failed_at: Option<Instant>,
}

/// An answer that waits for the fsync.
enum Reply {
    Offer(oneshot::Sender<Result<Vec<Outcome>, Error>>, Vec<Outcome>),
    Note(oneshot::Sender<Result<(), Error>>),
    Decide(oneshot::Sender<Result<Pos, Error>>, Pos),
    Settle(oneshot::Sender<Result<Settled, Error>>, Settled),
    // Boxed: refusals are large and rare, and a batch may hold hundreds of replies.
    Frame(oneshot::Sender<Result<Received, Error>>, Box<Received>),
}

impl Reply {
    fn send(self, result: &Result<(), Error>) {
        // Whoever asked may be gone; what it asked for is done all the same.
        match (self, result) {
            (Reply::Offer(to, outcomes), Ok(())) => drop(to.send(Ok(outcomes))),
            (Reply::Offer(to, _), Err(e)) => drop(to.send(Err(e.clone()))),
            (Reply::Note(to), result) => drop(to.send(result.clone())),
            (Reply::Decide(to, first), Ok(())) => drop(to.send(Ok(first))),
            (Reply::Decide(to, _), Err(e)) => drop(to.send(Err(e.clone()))),
            (Reply::Settle(to, settled), Ok(())) => drop(to.send(Ok(settled))),
            (Reply::Settle(to, _), Err(e)) => drop(to.send(Err(e.clone()))),
            (Reply::Frame(to, received), Ok(())) => drop(to.send(Ok(*received))),
            (Reply::Frame(to, _), Err(e)) => drop(to.send(Err(e.clone()))),
        }
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Engine {
    /// Runs until [`super::Hub::stop`] or until every handle is gone. Call it on a thread of its own.
    pub fn run(mut self) {
        loop {
            self.shared.work.turns.fetch_add(1, Ordering::Relaxed);
            let first = match self.next_job() {
                Next::Job(job) => Some(job),
                Next::Nothing => None,
                Next::Closed => break,
            };
            let stop = self.turn(first);
            self.fire_due();
            self.keep_house();
            if stop {
                break;
            }
        }
        self.settle();
    }

    /// Waits for a job, but not longer than the next duty.
    fn next_job(&mut self) -> Next {
        match self.jobs.try_recv() {
            Ok(job) => return Next::Job(job),
            Err(mpsc::error::TryRecvError::Disconnected) => return Next::Closed,
            Err(mpsc::error::TryRecvError::Empty) => {}
        }
        let busy = self.lazy_since.is_some() || self.broken_since.is_some() || self.stored < self.applied();
        let mut wait = if busy { LAZY_MAX } else { TURN_EVERY };
        // Timers stand still while nothing is taken.
        if let Some(due) = self.shared.state.read().policy.next_due_us().filter(|_| !self.refuses_new()) {
            wait = wait
                .min(Duration::from_micros(u64::try_from(due - now_us()).unwrap_or(0)).max(Duration::from_millis(1)));
        }
        open::block_on_timeout(self.jobs.recv(), wait).map_or(Next::Nothing, |job| job.map_or(Next::Closed, Next::Job))
    }

    fn applied(&self) -> Pos {
        self.shared.state.read().applied
    }

    /// One batch: from the first decision to the answers. True when it is time to stop.
    fn turn(&mut self, first: Option<Job>) -> bool {
        let Some(first) = first else { return false };
        let shared = self.shared.clone();
        let mut state = shared.change();
        let before = state.applied;
        let started = Instant::now();
        let now = now_us();
        let mut replies = Vec::new();
        let (mut stop, mut urgent_sync, mut bytes) = (false, false, 0usize);
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match job {
                Job::Stop => stop = true,
                _ if !self.takes(&job) => self.refuse(job),
                Job::Offer { offered, reply, room: _room } => {
                    urgent_sync = true;
                    // All are looked up before any is taken: an offer is not half kept.
                    match offered.iter().map(|o| self.known(&o.draft)).collect::<Result<Vec<_>, _>>() {
                        Ok(known) => {
                            let take = |(o, known): (Offered, Option<Pos>)| {
                                bytes += o.bytes();
                                self.decide_offer(&mut state, o.draft, known, o.with.into_iter().collect(), now)
                            };
                            let outcomes = offered.into_iter().zip(known).map(take).collect();
                            replies.push(Reply::Offer(reply, outcomes));
                        }
                        Err(e) => drop(reply.send(Err(e))),
                    }
                }
                Job::Note { drafts, haste, reply, room: _room, .. } => {
                    urgent_sync |= haste == Haste::Now;
                    bytes += drafts.iter().map(|d| d.bytes().len()).sum::<usize>();
                    self.append(&mut state, drafts, now);
                    if haste == Haste::Lazy {
                        self.lazy_since.get_or_insert(started);
                    }
                    replies.push(Reply::Note(reply));
                }
                Job::Decide { decide, reply } => {
                    let mut group = decide(&state, now);
                    if let Err(e) = all_fit(&group) {
                        drop(reply.send(Err(e)));
                    } else if group.is_empty() {
                        replies.push(Reply::Decide(reply, state.applied));
                    } else {
                        urgent_sync = true;
                        self.follow(&state, &mut group, now);
                        replies.push(Reply::Decide(reply, self.append(&mut state, group, now)));
                    }
                }
                Job::Settle { letter, draft, extra, reply } => {
                    urgent_sync = true;
                    match draft.as_ref().map_or(Ok(None), |d| self.known(d)) {
                        Ok(known) => {
                            let settled = self.settle_letter(&mut state, letter, draft.map(|d| (d, known)), extra, now);
                            replies.push(Reply::Settle(reply, settled));
                        }
                        Err(e) => drop(reply.send(Err(e))),
                    }
                }
                Job::Frame { peer, message, reply, room: _room } => {
                    bytes += message.len();
                    let before = state.applied;
                    match self.decide_frame(&mut state, &peer, &message, now) {
                        Ok(received) => replies.push(Reply::Frame(reply, Box::new(received))),
                        Err(e) => drop(reply.send(Err(e))),
                    }
                    urgent_sync |= state.applied != before;
                }
            }
            let records = state.applied.0 - before.0;
            if stop || records >= limits::COMMIT_RECORDS_MAX as u64 || bytes >= limits::COMMIT_BYTES_MAX {
                break;
            }
            next = self.jobs.try_recv().ok();
        }
        let records = state.applied.0 - before.0;
        let result = if records == 0 {
            drop(state);
            Ok(())
        } else if urgent_sync {
            self.commit(state)
        } else {
            self.write(state)
        };
        self.unwatched_bytes += bytes as u64;
        if result.is_ok() && urgent_sync && records > 0 {
            self.shared.work.committed(started.elapsed().as_micros() as u64, records);
        }
        for reply in replies {
            reply.send(&result);
        }
        stop
    }

    /// Is nothing new taken at the moment?
    fn refuses_new(&self) -> bool {
        self.broken_since.is_some() || self.space != Space::Enough
    }

    fn takes(&self, job: &Job) -> bool {
        if !self.refuses_new() {
            return true;
        }
        self.broken_since.is_none()
            && self.space < Space::Spent
            && match job {
                Job::Note { let_go, .. } => *let_go || self.space == Space::Short,
                Job::Offer { offered, .. } => offered.iter().all(|o| o.with.is_none() && lets_log_go(&o.draft)),
                _ => false,
            }
    }

    fn refuse(&self, job: Job) {
        let why = self.shared.trouble.read().clone().unwrap_or_else(|| "the log is not open".into());
        let error = Err(Error::Unwritable(why));
        match job {
            Job::Offer { reply, .. } => Reply::Offer(reply, Vec::new()).send(&error),
            Job::Note { reply, .. } => Reply::Note(reply).send(&error),
            Job::Decide { reply, .. } => Reply::Decide(reply, Pos::ZERO).send(&error),
            Job::Settle { reply, .. } => Reply::Settle(reply, Settled::NotOpen).send(&error),
            Job::Frame { reply, .. } => Reply::Frame(reply, Box::new(Received::Ignore)).send(&error),
            Job::Stop => {}
        }
    }

    /// Appends drafts as one group and folds them in.
    fn append(&mut self, state: &mut State, mut drafts: Vec<Draft>, now: i64) -> Pos {
        stamp(state, &mut drafts, now);
        self.append_group(state, drafts.iter().map(Draft::bytes))
    }

    pub(super) fn append_group<'a>(&mut self, state: &mut State, group: impl Iterator<Item = &'a [u8]> + Clone) -> Pos {
        let (first, _) = self.log.append(group.clone());
        for (i, bytes) in group.enumerate() {
            let (header, payload) = Header::decode(bytes).expect("this process encoded it");
            state.apply(Pos(first.0 + i as u64), &header, payload);
        }
        first
    }

    /// A note of the engine's own, written but not committed.
    pub(super) fn append_note(&mut self, state: &mut State, note: &Note) {
        self.append(state, vec![note.draft()], now_us());
    }

    pub(super) fn record_drafts(&mut self, drafts: Vec<Draft>) -> Result<(), Error> {
        let shared = self.shared.clone();
        let mut state = shared.change();
        self.append(&mut state, drafts, now_us());
        self.commit(state)
    }

    fn settle_letter(
        &mut self,
        state: &mut State,
        letter: Pos,
        draft: Option<(Draft, Option<Pos>)>,
        mut extra: Vec<Draft>,
        now: i64,
    ) -> Settled {
        if !state.dead_letters.contains_key(&letter) {
            return Settled::NotOpen;
        }
        extra.insert(0, Note::DeadLetterClosed { pos: letter, retried: draft.is_some() }.draft());
        let Some((draft, known)) = draft else {
            self.append(state, extra, now);
            return Settled::Closed;
        };
        Settled::Taken(self.decide_offer(state, draft, known, extra, now))
    }

    /// Where an event that is offered is already.
    fn known(&self, draft: &Draft) -> Result<Option<Pos>, Error> {
        let (header, payload) = draft.parts();
        if header.key == 0 { Ok(None) } else { self.find_same(header.key, payload) }
    }

    /// `known`: where the log has it. `extra` is recorded with it, in its group, also when it is a
    /// duplicate.
    fn decide_offer(
        &mut self,
        state: &mut State,
        draft: Draft,
        known: Option<Pos>,
        extra: Vec<Draft>,
        now: i64,
    ) -> Outcome {
        let key = draft.header().key;
        if key != 0 {
            // Those of its own offer are not in the log yet.
            if let Some(pos) = known.or_else(|| self.fresh_keys.get(&key).copied()) {
                state.count_repeated();
                if !extra.is_empty() {
                    self.append(state, extra, now);
                }
                return Outcome::Duplicate(pos);
            }
            self.fresh_keys.insert(key, state.applied.next());
        }
        let mut group = vec![draft];
        self.follow(state, &mut group, now);
        group.extend(extra);
        Outcome::Committed(self.append(state, group, now))
    }

    /// Adds this node's receipts for drafts that are for itself, and what the policy makes of the
    /// drafts, and of what it makes of them.
    pub(super) fn follow(&self, state: &State, group: &mut Vec<Draft>, now: i64) {
        let mut from = 0;
        for depth in 0..=crate::policy::DEPTH_MAX {
            let mut next = Vec::new();
            for draft in &group[from..] {
                let (header, payload) = draft.parts();
                if header.direction == Direction::Down {
                    next.extend(self.receipt_for(&header, payload, header.ttl_ms));
                }
                next.extend(decided(state, now, &header, payload));
            }
            if next.is_empty() {
                return;
            }
            if depth == crate::policy::DEPTH_MAX {
                tracing::error!(drafts = next.len(), "Decisions go in a circle; the deepest were left out.");
                return;
            }
            from = group.len();
            group.append(&mut next);
        }
    }

    /// The position of an event with this key and, indeed, this source and id. Where that record is
    /// damaged the key alone says so: two events share one by chance of 2^-64.
    ///
    /// # Errors
    /// [`Error::Unwritable`] when the log cannot be read: then nobody knows whether the event is new.
    pub(super) fn find_same(&self, key: u64, payload: &[u8]) -> Result<Option<Pos>, Error> {
        if let Some(pos) = self.fresh_keys.get(&key) {
            // Two events of one batch whose 64-bit hashes meet by chance: 10^-13 for 1,000 events.
            return Ok(Some(*pos));
        }
        let unreadable =
            |e: log::Error| Error::Unwritable(format!("what is there already cannot be read: {}", with_causes(&e)));
        let reader = self.log.reader();
        let Some(pos) = reader.find(key).map_err(unreadable)? else { return Ok(None) };
        let entry = match reader.get(pos) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(None), // trimmed meanwhile
            Err(log::Error::Damaged { .. }) => return Ok(Some(pos)),
            Err(e) => return Err(unreadable(e)),
        };
        let same = Header::decode(&entry.bytes).is_ok_and(|(_, known)| {
            let (a, b) = (event::identity(known), event::identity(payload));
            matches!((a, b), (Ok(a), Ok(b)) if (&a.source, &a.id) == (&b.source, &b.id))
        });
        Ok(same.then_some(pos))
    }

    /// A downward event that is for this node is answered in the commit that takes it.
    pub(super) fn receipt_for(&self, header: &Header<'_>, payload: &[u8], ttl_ms: u32) -> Option<Draft> {
        let selector = Selector::parse(header.target).ok()?;
        if !selector.matches(&self.me, &self.labels) {
            return None;
        }
        receipts::automatic(&self.me, header, payload, ttl_ms)
    }

    pub(super) fn commit(&mut self, change: Change<'_>) -> Result<(), Error> {
        let history = history_of(&change.me.epochs);
        let Change { state, uncommitted } = change;
        // An fsync may take long, and whoever looks ahead need not wait for it.
        drop(state);
        let done = match self.log.commit() {
            Ok(pos) => {
                self.fresh_keys.clear();
                self.lazy_since = None;
                self.shared.history.store(history, Ordering::Relaxed);
                // Whoever is woken by it sees the number above.
                self.committed.send_replace(pos);
                Ok(())
            }
            Err(e) => Err(self.broke(&e)),
        };
        drop(uncommitted);
        done
    }

    /// Writes what is in no haste, without a sync.
    fn write(&mut self, change: Change<'_>) -> Result<(), Error> {
        let Change { state, uncommitted } = change;
        drop(state);
        let done = self.log.write().map_err(|e| self.broke(&e));
        drop(uncommitted);
        done
    }

    /// A write failed: nothing of the batch counts, the state goes back to what is on disk.
    fn broke(&mut self, e: &crate::log::Error) -> Error {
        let why = with_causes(e);
        tracing::error!(error = %why, "The log cannot be written; nothing is acknowledged until it can.");
        *self.shared.trouble.write() = Some(why.clone());
        self.broken_since = Some(Instant::now());
        self.fresh_keys.clear();
        self.lazy_since = None;
        self.log.rollback();
        // sled needs room to open, on a disk that may have none left.
        match self.log.release_ballast() {
            Ok(()) => self.ballast_is_gone = true,
            Err(error) => tracing::error!(%error, "The ballast cannot be given up."),
        }
        let shared = self.shared.clone();
        if let Err(e) = self.reload(&mut shared.state.write()) {
            tracing::error!(error = %e, "The state cannot be read back yet.");
        }
        Error::Unwritable(why)
    }

    /// True: some of the log was passed over, because it does not read.
    fn reload(&mut self, state: &mut State) -> Result<bool, super::OpenError> {
        // sled fails for good after a failure, and its rows may be of either side of it.
        self.take_back();
        self.store = None;
        let (store, found) = Store::open(&self.dir, self.config.cache_bytes)?;
        if let Some(why) = &found.rebuilt {
            tracing::warn!(reason = %why, "The state was rebuilt.");
        }
        let folded = open::fold(found.rows, found.upto, &self.log.reader(), (self.policy)())?;
        *state = folded.state;
        self.stored = found.upto;
        self.store = Some(store);
        Ok(folded.skipped)
    }

    /// Timers of the policy that are over.
    fn fire_due(&mut self) {
        let shared = self.shared.clone();
        // A few rounds a turn, and none that somebody would wait for longer than for a commit or two, so
        // that a flood of timers cannot keep the doors waiting. Unless more would come than is said.
        let begun = Instant::now();
        for round in 0.. {
            let state = shared.state.read();
            let enough = round >= DUE_ROUNDS || begun.elapsed() >= DUE_MAX && !self.jobs.is_empty();
            if enough && !state.policy.is_behind() {
                return;
            }
            if self.refuses_new() || state.policy.next_due_us().is_none_or(|due| due > now_us()) {
                return;
            }
            drop(state);
            let mut state = shared.change();
            let now = now_us();
            let mut group = state.policy.on_due(&state, now);
            group.iter_mut().for_each(park_if_unfit);
            if group.is_empty() {
                return;
            }
            self.follow(&state, &mut group, now);
            self.append(&mut state, group, now);
            // The error is told to the next who asks; the timers are still due then.
            let _ = self.commit(state);
        }
    }

    fn keep_house(&mut self) {
        if let Some(since) = self.broken_since
            && since.elapsed() >= REOPEN_EVERY
        {
            self.mend();
        }
        if self.lazy_since.is_some_and(|t| t.elapsed() >= LAZY_MAX) {
            let shared = self.shared.clone();
            // The error is told to the next who asks; lazy notes promised nothing.
            let _ = self.commit(shared.change());
        }
        if self.lent.as_ref().is_some_and(JoinHandle::is_finished) {
            self.take_back();
        }
        if self.broken_since.is_none() && self.last_store.elapsed() >= STORE_EVERY && self.stored < self.applied() {
            self.write_rows();
        }
        // A fast writer can fill what is left of a disk between two looks.
        if self.unwatched_bytes > self.config.free_bytes_min / 8 {
            self.watch_space();
        }
        if self.last_housekeeping.elapsed() >= HOUSEKEEPING_EVERY {
            self.last_housekeeping = Instant::now();
            self.watch_space();
            self.is_snapshot_due |= self.log_since(self.snapshot_at) >= self.config.log_bytes_max / 4;
            self.retain();
            self.look_around();
        }
        self.snapshot();
    }

    /// Notes what lies on the disk, for whoever asks.
    pub(super) fn look_around(&self) {
        let segments = self.log.segments();
        let (needed_pos, needed_by) = self.needed();
        let mut house = self.shared.house.write();
        *house = House {
            log_bytes: segments.iter().map(|s| s.bytes).sum(),
            log_segments: segments.len() as u64,
            oldest_segment_us: segments.first().map_or(0, |s| s.newest_us),
            needed_pos,
            needed_by,
            // Of the store what was seen last, while it is lent.
            ..*house
        };
        if let Some(store) = &self.store {
            (house.state_bytes, house.state_rows) = (store.bytes(), store.rows());
            house.snapshot_pos = store.newest_snapshot();
        }
    }

    fn mend(&mut self) {
        self.broken_since = Some(Instant::now());
        // Notes that were written and not synced kept their positions over the failure: the state must
        // know them before anything follows them.
        if let Err(e) = self.log.reopen().and_then(|()| self.log.commit()) {
            *self.shared.trouble.write() = Some(with_causes(&e));
            return;
        }
        let shared = self.shared.clone();
        let mut state = shared.change();
        let reloaded = self.reload(&mut state).and_then(|skipped| {
            // Numbers that were given there would be given again under the same name.
            if skipped {
                let note = open::epoch(state.applied.next(), open::SKIPPED)?;
                self.append_note(&mut state, &note);
            }
            Ok(skipped)
        });
        match reloaded {
            Ok(skipped) => {
                let upto = state.applied;
                if skipped && self.commit(state).is_err() {
                    return;
                }
                self.broken_since = None;
                *self.shared.trouble.write() = None;
                self.committed.send_replace(upto);
                tracing::info!(upto = upto.0, "The log can be written again.");
            }
            Err(e) => {
                *self.shared.trouble.write() = Some(e.to_string());
                return;
            }
        }
        // It may still be short of space, and then says so.
        self.space = Space::Enough;
        self.watch_space();
    }

    pub(super) fn watch_space(&mut self) {
        self.unwatched_bytes = 0;
        let free = self.disk.free_bytes(&self.dir);
        if self.ballast_is_gone
            && self.broken_since.is_none()
            && free > self.config.free_bytes_min + 2 * limits::BALLAST_BYTES
        {
            match self.log.restore_ballast(limits::BALLAST_BYTES) {
                Ok(()) => self.ballast_is_gone = false,
                Err(error) => tracing::warn!(%error, "The ballast could not be put back."),
            }
        }
        let space = match self.config.free_bytes_min {
            min if free >= min => Space::Enough,
            min if free >= min / 2 => Space::Short,
            min if free >= min / 4 => Space::Scarce,
            _ => Space::Spent,
        };
        if space != self.space && self.broken_since.is_none() {
            let than = match space {
                Space::Enough => None,
                Space::Short => Some("store.free_bytes_min"),
                Space::Scarce => Some("half of store.free_bytes_min: nobody new is let in"),
                Space::Spent => Some("a quarter of store.free_bytes_min: not even what was sent on is noted"),
            };
            *self.shared.trouble.write() = than.map(|than| {
                format!("only {} MB are free in {}, less than {than}", free / 1_000_000, self.dir.display())
            });
            if space == Space::Enough {
                tracing::info!(free_bytes = free, "There is room on the disk again.");
            } else if space > self.space {
                tracing::error!(free_bytes = free, "The disk is nearly full; nothing is accepted until there is room.");
            }
            self.space = space;
        }
    }

    /// Hands the changed rows to sled. Only what the log holds on disk.
    pub(super) fn write_rows(&mut self) {
        self.last_store = Instant::now();
        if self.lent.is_some() {
            return;
        }
        let shared = self.shared.clone();
        // Is something written and not synced? First that.
        if self.log.reader().last() < self.applied() && self.commit(shared.change()).is_err() {
            return;
        }
        let (rows, upto) = {
            let mut state = shared.state.write();
            (state.take_rows(), state.applied)
        };
        let Some(store) = &mut self.store else { return };
        match store.write(rows, upto) {
            Ok(()) => self.stored = upto,
            Err(e) => {
                // The rows that were taken are only in memory now: fold them again from the log.
                let mut state = shared.state.write();
                *self.shared.trouble.write() = Some(with_causes(&e));
                self.broken_since = Some(Instant::now());
                tracing::error!(error = %with_causes(&e), "The state cannot be stored; it is read back from the log.");
                if let Err(e) = self.reload(&mut state) {
                    tracing::error!(error = %e, "The state cannot be read back yet.");
                }
            }
        }
    }

    /// Has a snapshot written of what is stored, if it is time.
    fn snapshot(&mut self) {
        let upto = self.stored;
        let is_due = upto.0.saturating_sub(self.snapshot_at.0) >= self.config.snapshot_records || self.is_snapshot_due;
        if !is_due
            || upto == self.snapshot_at
            || self.broken_since.is_some()
            || self.snapshot_failed_at.is_some_and(|at| at.elapsed() < SNAPSHOT_AGAIN_EVERY)
        {
            return;
        }
        let Some(store) = &self.store else { return };
        // It will be about as large as the last one. Half of one on a full disk would be written for nothing.
        let (needs, free) = (store.snapshot_bytes(), self.disk.free_bytes(&self.dir));
        if free < needs + self.config.free_bytes_min / 4 {
            return self.snapshot_failed(&format!("it needs about {needs} bytes, and {free} are free"));
        }
        let (give, take) = sync_channel::<Store>(1);
        let write = move || {
            let mut store = take.recv().ok()?;
            let written = store.snapshot(upto).map(drop).map_err(|e| with_causes(&e));
            Some((store, written))
        };
        match std::thread::Builder::new().name("snapshot".into()).spawn(write) {
            Ok(thread) => {
                self.lent = Some(thread);
                // It waits for it, and there is room for one.
                let _ = self.store.take().map(|store| give.send(store));
            }
            Err(error) => self.snapshot_failed(&error.to_string()),
        }
    }

    /// Takes the store back from the thread that writes a snapshot; waits until it has.
    fn take_back(&mut self) {
        let Some(thread) = self.lent.take() else { return };
        match thread.join() {
            Ok(Some((store, written))) => {
                match written {
                    Ok(()) => {
                        (self.snapshot_at, self.snapshot_failed_at) = (store.upto(), None);
                        self.is_snapshot_due = false;
                    }
                    Err(error) => self.snapshot_failed(&error),
                }
                self.store = Some(store);
            }
            _ => {
                // It went with its thread, which is a bug: it is opened anew, as after any other failure of it.
                tracing::error!("The thread that writes snapshots has panicked.");
                *self.shared.trouble.write() = Some("the state's store was lost".into());
                self.broken_since = Some(Instant::now());
            }
        }
    }

    fn snapshot_failed(&mut self, error: &str) {
        tracing::error!(error, "A snapshot could not be written; it is tried again in a minute.");
        self.snapshot_failed_at = Some(Instant::now());
    }

    fn settle(&mut self) {
        if self.broken_since.is_none() {
            let shared = self.shared.clone();
            let _ = self.commit(shared.change());
            self.take_back();
            self.write_rows();
        }
        tracing::info!(upto = self.applied().0, "The engine has stopped.");
    }
}

/// An event that makes room: a child that is gone for good holds the log no more; and what an operator
/// does about it, which is recorded first. Nobody outside can send one.
fn lets_log_go(draft: &Draft) -> bool {
    let header = draft.header();
    header.origin.is_none() && [RETIRED_TYPE, RETURNED_TYPE, operator::TYPE].contains(&header.name)
}

enum Next {
    Job(Job),
    Nothing,
    Closed,
}

/// What the policy makes of a record.
pub(super) fn decided(state: &State, now: i64, header: &Header<'_>, payload: &[u8]) -> Vec<Draft> {
    let mut drafts = state.policy.decide(state, now, header, payload);
    drafts.iter_mut().for_each(park_if_unfit);
    drafts
}

/// A rule makes types and texts of whatever came in. A type that is no topic would end the connections of
/// those who get it, and what is larger than a record has no place in the log.
fn park_if_unfit(draft: &mut Draft) {
    let (header, payload) = draft.parts();
    let (reason, detail) = if draft.bytes().len() > limits::RECORD_BYTES_MAX {
        (
            "too-large",
            format!(
                "a rule made a record of {} bytes; the log takes {}",
                draft.bytes().len(),
                limits::RECORD_BYTES_MAX
            ),
        )
    } else if header.kind.is_event() && !event::is_type(header.name) {
        (
            "bad-attribute",
            "a rule made an event whose type is none: at most 255 bytes and none of `+`, `#`, `/` and space".into(),
        )
    } else {
        return;
    };
    *draft = Note::DeadLetter(DeadLetter::new(reason, detail, "policy", "", payload)).draft();
}

/// Sets the times, and counts the upward records that begin here.
pub(super) fn stamp(state: &State, drafts: &mut [Draft], now: i64) {
    let mut seqs = state.me.seqs;
    for draft in drafts {
        let header = draft.header();
        let mut seq = 0;
        if header.origin.is_none() && header.direction == Direction::Up {
            let place = &mut seqs[class(header.lane, header.reach) as usize];
            *place += 1;
            seq = *place;
        }
        draft.stamp(now, seq);
    }
}
