//! The engine's thread: takes what is queued, decides, appends, syncs, tells.

use super::deciding::{park_if_unfit, stamp};
use super::upkeep::{Lent, Space};
use super::{
    Change, Error, Haste, Job, Offered, Outcome, Settled, Shared, Trouble, Waiting, all_fit, history_of, open,
};
use crate::log::{self, Disk, Log};
use crate::note::Note;
use crate::protocol::Received;
use crate::state::State;
use crate::store::Store;
use citybrain_shared::config::Store as StoreConfig;
use citybrain_shared::record::{Draft, Header};
use citybrain_shared::selector::Labels;
use citybrain_shared::words::with_causes;
use citybrain_shared::{Address, Pos, limits};
use std::collections::HashMap;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};

/// Lazy notes wait at most this long for a commit of somebody else.
pub(super) const LAZY_MAX: Duration = Duration::from_millis(200);
/// An idle engine turns at least this often, so that a watchdog sees it alive.
const TURN_EVERY: Duration = Duration::from_millis(500);
/// How long timers go on while somebody waits: a few commits of them.
const DUE_MAX: Duration = Duration::from_millis(5);
/// Groups of them in one turn, though nobody waits.
const DUE_ROUNDS: u32 = 16;

pub struct Engine {
    pub(super) log: Log,
    pub(super) disk: Arc<dyn Disk>,
    /// `None` after a failure, until it is opened again, and while it is lent.
    pub(super) store: Option<Store>,
    /// The store is with a thread that writes a snapshot of it, which takes as long as the state is large.
    /// Commits go on meanwhile; what they change stays with the state until the store is back.
    pub(super) lent: Option<Lent>,
    pub(super) shared: Arc<Shared>,
    pub(super) waiting: Waiting,
    pub(super) committed: watch::Sender<Pos>,
    pub(super) config: StoreConfig,
    pub(super) dir: PathBuf,
    pub(super) me: Address,
    pub(super) labels: Labels,
    pub(super) parent: Option<Address>,
    /// Frames that a peer may have under way on a lane.
    pub(super) credit: u16,
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
    /// How long it lately takes until a commit is on disk, smoothed.
    pub(super) sync_takes: Duration,
    /// Before its number of records is reached: retention may take only what is behind two of them.
    pub(super) is_snapshot_due: bool,
    /// When the last one failed, until one is written.
    pub(super) snapshot_failed_at: Option<Instant>,
}

/// Of a memory card or a disk that turns; an SSD takes a tenth of it, also when four nodes share it.
const SLOW_SYNC: Duration = Duration::from_millis(10);

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
            let stop = first.is_some_and(|job| self.turn(job, Waiting::also));
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
        if let Some(job) = self.waiting.next() {
            return Next::Job(job);
        }
        let busy = self.lazy_since.is_some() || self.broken_since.is_some() || self.stored < self.applied();
        let mut wait = if busy { LAZY_MAX } else { TURN_EVERY };
        // Timers stand still while nothing is taken.
        if let Some(due) = self.shared.state.read().policy.next_due_us().filter(|_| !self.refuses_new()) {
            wait = wait
                .min(Duration::from_micros(u64::try_from(due - now_us()).unwrap_or(0)).max(Duration::from_millis(1)));
        }
        open::block_on_timeout(poll_fn(|cx| self.waiting.poll_next(cx)), wait)
            .map_or(Next::Nothing, |job| job.map_or(Next::Closed, Next::Job))
    }

    pub(super) fn applied(&self) -> Pos {
        self.shared.state.read().applied
    }

    /// One batch, with what of the others that wait is `also` to be in it: from the first decision to the
    /// answers. True when it is time to stop.
    fn turn(&mut self, first: Job, also: fn(&mut Waiting) -> Option<Job>) -> bool {
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
            if stop || records >= limits::COMMIT_RECORDS_MAX as u64 || bytes >= self.commit_bytes_max() {
                break;
            }
            next = also(&mut self.waiting);
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

    /// What is urgent waits for the commit before its own. Where an fsync takes long, it waits for that, however little
    /// is in it; and the more is in it, the less of the time is the disk's.
    fn commit_bytes_max(&self) -> usize {
        if self.sync_takes < SLOW_SYNC { limits::COMMIT_BYTES_MAX } else { limits::COMMIT_BYTES_MAX_SLOW }
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
                Job::Offer { offered, .. } => offered.iter().all(Offered::lets_log_go),
                _ => false,
            }
    }

    fn refuse(&self, job: Job) {
        let why = self.shared.trouble.read().as_ref().map_or_else(|| "the log is not open".into(), ToString::to_string);
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
    pub(super) fn append(&mut self, state: &mut State, mut drafts: Vec<Draft>, now: i64) -> Pos {
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

    pub(super) fn commit(&mut self, change: Change<'_>) -> Result<(), Error> {
        let history = history_of(&change.me.epochs);
        self.put(change, |engine| {
            let began = Instant::now();
            let pos = engine.log.commit()?;
            engine.sync_takes = (engine.sync_takes * 7 + began.elapsed()) / 8;
            engine.fresh_keys.clear();
            engine.lazy_since = None;
            engine.shared.history.store(history, Ordering::Relaxed);
            // Whoever is woken by it sees the number above.
            engine.committed.send_replace(pos);
            Ok(())
        })
    }

    /// Writes what is in no haste, without a sync.
    fn write(&mut self, change: Change<'_>) -> Result<(), Error> {
        self.put(change, |engine| engine.log.write())
    }

    fn put(
        &mut self,
        change: Change<'_>,
        to_disk: impl FnOnce(&mut Engine) -> Result<(), log::Error>,
    ) -> Result<(), Error> {
        let Change { state, uncommitted } = change;
        // An fsync may take long, and whoever looks ahead need not wait for it.
        drop(state);
        let done = to_disk(self).map_err(|e| self.broke(&e));
        drop(uncommitted);
        done
    }

    /// A write failed: nothing of the batch counts, the state goes back to what is on disk.
    fn broke(&mut self, e: &crate::log::Error) -> Error {
        let why = with_causes(e);
        tracing::error!(error = %why, "The log cannot be written; nothing is acknowledged until it can.");
        *self.shared.trouble.write() = Some(Trouble::Broken(why.clone()));
        self.broken_since = Some(Instant::now());
        self.fresh_keys.clear();
        self.lazy_since = None;
        self.log.rollback();
        self.give_up_ballast();
        // Whoever looks at the state waits until what was refused is out of it, for which the store is needed: a
        // snapshot may come later, and on a full disk its room is given back.
        if let Some(lent) = &self.lent {
            lent.given_up.store(true, Ordering::Relaxed);
        }
        self.take_back();
        let shared = self.shared.clone();
        if let Err(e) = self.reload(&mut shared.state.write()) {
            tracing::error!(error = %with_causes(&e), "The state cannot be read back yet.");
        }
        Error::Unwritable(why)
    }

    /// Timers of the policy that are over.
    fn fire_due(&mut self) {
        let shared = self.shared.clone();
        // A few rounds a turn, and none that somebody would wait for longer than for a commit or two, so
        // that a flood of timers cannot keep the doors waiting. Unless more would come than is said: then
        // only a press for help and the like do not wait.
        let begun = Instant::now();
        for round in 0.. {
            if round > 0 {
                self.shared.work.turns.fetch_add(1, Ordering::Relaxed);
                if let Some(urgent) = self.waiting.next_urgent() {
                    self.turn(urgent, Waiting::next_urgent);
                }
            }
            let state = shared.state.read();
            let enough = round >= DUE_ROUNDS || begun.elapsed() >= DUE_MAX && !self.waiting.is_empty();
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

enum Next {
    Job(Job),
    Nothing,
    Closed,
}
