//! The engine: the one writer of the log and the one owner of the state.
//!
//! **Promise**: a ticket that says "committed" completes after the fsync that covers the record;
//! frames and subscribers read only what is committed; state is never ahead of the log on disk.
//!
//! **Operation**: a thread of its own ([`worker`]) takes what is queued, decides each request
//! against the state, appends what follows from it as one atomic group, and applies it; one fsync
//! covers them all; then the tickets complete. From the first decision to the fsync whoever looks waits
//! ([`Hub::state`]), so that a power cut takes back nothing that was seen but notes that were in no haste;
//! only who asks for it sees what is being committed ([`Hub::state_ahead`]).
//!
//! | module | what it owns |
//! |---|---|
//! | [`worker`] | the thread: batches, groups, tickets |
//! | [`deciding`] | what becomes of what is offered, and what follows from it |
//! | [`upkeep`] | between batches: rows, snapshots, room on the disk, the log after a failure |
//! | [`mod@open`], [`offline`] | a data folder at a start, and one that is only read |
//! | [`frames`] | what came over a link, judged and committed |
//! | [`receipts`] | what the node writes about itself: its presence, receipts of directives |
//! | [`retention`] | what the log may forget |
//! | [`jots`] | how far sessions acknowledged, between two commits |

mod deciding;
mod frames;
pub(crate) mod jots;
mod offline;
mod open;
mod receipts;
mod retention;
#[cfg(test)]
mod tests;
mod upkeep;
mod worker;

pub use deciding::find_event;
pub use offline::{Offline, open_offline};
pub use open::{Error as OpenError, Facts, open};
pub use receipts::{presence, subtree};
pub use retention::needed;
pub use worker::Engine;

use self::jots::Jots;
use crate::log::Reader;
use crate::note::Note;
use crate::protocol::Received;
use crate::state::State;
use bytes::Bytes;
use citybrain_shared::record::{self, Draft};
use citybrain_shared::wire::Epoch;
use citybrain_shared::words::with_causes;
use citybrain_shared::{Address, Lane, Pos, limits};
use parking_lot::{RwLock, RwLockWriteGuard};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

/// A record that is offered, with one that is written behind it in the same group, so that there is never
/// the first alone: also where the first is a duplicate, and then the second alone.
#[derive(Clone, Debug)]
pub struct Offered {
    pub draft: Draft,
    pub with: Option<Draft>,
}

impl Offered {
    pub fn lane(&self) -> Lane {
        record::lane_of(self.draft.bytes())
    }

    /// Is it taken on a disk with little room, too?
    pub(crate) fn lets_log_go(&self) -> bool {
        self.with.is_none() && deciding::lets_log_go(&self.draft)
    }

    pub fn bytes(&self) -> usize {
        self.draft.bytes().len() + self.with.as_ref().map_or(0, |d| d.bytes().len())
    }
}

impl From<Draft> for Offered {
    fn from(draft: Draft) -> Offered {
        Offered { draft, with: None }
    }
}

/// What became of one offered record, after the fsync that covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed(Pos),
    /// An event with this source and id is in the log already, at this position.
    Duplicate(Pos),
}

/// Why a node takes nothing at the moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Its disk has too little room.
    #[error("{0}")]
    Short(String),
    /// Its log or its store cannot be written.
    #[error("{0}")]
    Broken(String),
}

impl Trouble {
    /// Whoever asks for it is told of the causes, too.
    pub(super) fn broken(error: &dyn std::error::Error) -> Trouble {
        Trouble::Broken(with_causes(error))
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the node is stopping")]
    Stopping,
    /// Disk full, read-only or failing. Nothing of the offer is kept.
    #[error("the node cannot write its log: {0}")]
    Unwritable(String),
    /// A record of so many bytes; nothing of the offer is kept, and nothing would be of the same again.
    #[error("a record of {0} bytes does not fit into the log: at most {max} do; send less at a time", max = limits::RECORD_BYTES_MAX)]
    TooLarge(usize),
}

/// # Errors
/// [`Error::TooLarge`]: one of them has no place in the log.
fn all_fit<'a>(drafts: impl IntoIterator<Item = &'a Draft>) -> Result<(), Error> {
    let sizes = drafts.into_iter().map(|d| d.bytes().len());
    sizes.max().filter(|bytes| *bytes > limits::RECORD_BYTES_MAX).map_or(Ok(()), |bytes| Err(Error::TooLarge(bytes)))
}

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was not open (any more): nothing was done.
    NotOpen,
    /// Closed, without its payload being taken.
    Closed,
    /// Closed, and its payload taken.
    Taken(Outcome),
}

/// Completes after the fsync; in the order of the offers.
pub type Ticket<T> = oneshot::Receiver<Result<T, Error>>;

/// When a note must be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Commit it (fsync) before the ticket completes.
    Now,
    /// Write it soon, with whatever is committed next; the ticket completes once it is written,
    /// which survives a kill but not a power cut.
    Lazy,
}

/// Looks at the state as of the present moment (µs since 1970) and says what is to be recorded.
pub type Decide = Box<dyn FnOnce(&State, i64) -> Vec<Draft> + Send>;

enum Job {
    Offer {
        offered: Vec<Offered>,
        reply: oneshot::Sender<Result<Vec<Outcome>, Error>>,
        room: Room,
    },
    Note {
        drafts: Vec<Draft>,
        /// All of them let the log go: see [`Note::lets_go`].
        let_go: bool,
        haste: Haste,
        reply: oneshot::Sender<Result<(), Error>>,
        room: Option<Room>,
    },
    Decide {
        decide: Decide,
        reply: oneshot::Sender<Result<Pos, Error>>,
    },
    Settle {
        letter: Pos,
        draft: Option<Draft>,
        extra: Vec<Draft>,
        reply: oneshot::Sender<Result<Settled, Error>>,
    },
    Frame {
        peer: Address,
        message: Bytes,
        reply: oneshot::Sender<Result<Received, Error>>,
        room: Room,
    },
    Stop,
}

/// A request's share of what a [`Queue`] holds, given back when it is done.
type Room = OwnedSemaphorePermit;

/// The share is counted in these, bytes.
const ROOM_BYTES: usize = 1024;

/// Notes of one call that take no room in the queue: with as many jobs as it holds they are one mebibyte.
const NOTE_BYTES_MAX: usize = 4096;

/// Upper bounds of the buckets of [`Work::commit_buckets`], µs: from a good NVMe's fsync to a disk
/// that is in trouble, two or three a decade.
pub const COMMIT_BUCKETS_US: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// What the engine has done since it started. Plain numbers, for metrics.
#[derive(Debug, Default)]
pub struct Work {
    /// Commits that took at most the bound of the same place, and longer than the one before.
    pub commit_buckets: [AtomicU64; COMMIT_BUCKETS_US.len()],
    pub commits: AtomicU64,
    pub commit_us_sum: AtomicU64,
    pub commit_us_max: AtomicU64,
    pub records: AtomicU64,
    pub frames_ignored: AtomicU64,
    /// Turns of the loop: grows while the engine makes progress (a watchdog looks at it).
    pub turns: AtomicU64,
}

impl Work {
    fn committed(&self, us: u64, records: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let bucket = COMMIT_BUCKETS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.commit_buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.commit_us_sum.fetch_add(us, Ordering::Relaxed);
        self.commit_us_max.fetch_max(us, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
    }
}

/// What lies on the disk, as the engine's housekeeping saw it a few seconds ago.
#[derive(Clone, Debug, Default)]
pub struct House {
    pub log_bytes: u64,
    pub log_segments: u64,
    /// Newest commit time in the oldest segment, µs since 1970.
    pub oldest_segment_us: i64,
    pub state_bytes: u64,
    pub state_rows: u64,
    /// The newest snapshot's position; zero without one.
    pub snapshot_pos: Pos,
    /// The oldest position that somebody still needs, and who.
    pub needed_pos: Pos,
    pub needed_by: String,
}

struct Shared {
    house: RwLock<House>,
    /// Held for reading while nothing in the state waits for an fsync but notes that are in no haste
    /// ([`Haste::Lazy`]), which are written. Taken before `state`.
    committed: RwLock<()>,
    state: RwLock<State>,
    /// [`history_of`] the committed state.
    history: AtomicU64,
    /// Why nothing can be written at the moment.
    trouble: RwLock<Option<Trouble>>,
    work: Work,
}

/// The state in the hands of the engine, from the first change of a group to its commit.
struct Change<'a> {
    state: RwLockWriteGuard<'a, State>,
    uncommitted: RwLockWriteGuard<'a, ()>,
}

impl Shared {
    fn change(&self) -> Change<'_> {
        let uncommitted = self.committed.write();
        Change { state: self.state.write(), uncommitted }
    }
}

impl Deref for Change<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Change<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

/// Where requests wait for the engine: at most [`limits::ENGINE_QUEUE_MAX`] of so many bytes.
#[derive(Clone)]
struct Queue {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    bytes_max: usize,
}

impl Queue {
    fn new(bytes_max: usize) -> (Queue, mpsc::Receiver<Job>) {
        let (jobs, waiting) = mpsc::channel(limits::ENGINE_QUEUE_MAX);
        (Queue { jobs, room: Arc::new(Semaphore::new(bytes_max / ROOM_BYTES)), bytes_max }, waiting)
    }

    async fn room(&self, bytes: usize) -> Result<Room, Error> {
        self.room.clone().acquire_many_owned(self.share(bytes)).await.map_err(|_| Error::Stopping)
    }

    /// In [`ROOM_BYTES`].
    fn share(&self, bytes: usize) -> u32 {
        bytes.min(self.bytes_max).div_ceil(ROOM_BYTES) as u32
    }

    async fn send(&self, job: Job) -> Result<(), Error> {
        self.jobs.send(job).await.map_err(|_| Error::Stopping)
    }

    /// A place for a request of so many bytes, if there is one now.
    fn place(&self, bytes: usize) -> Result<Option<(mpsc::Permit<'_, Job>, Room)>, Error> {
        let Ok(room) = self.room.clone().try_acquire_many_owned(self.share(bytes)) else { return Ok(None) };
        Ok(place_in(&self.jobs)?.map(|place| (place, room)))
    }
}

/// A place in a queue, if there is one now.
fn place_in(jobs: &mpsc::Sender<Job>) -> Result<Option<mpsc::Permit<'_, Job>>, Error> {
    match jobs.try_reserve() {
        Ok(place) => Ok(Some(place)),
        Err(mpsc::error::TrySendError::Full(())) => Ok(None),
        Err(mpsc::error::TrySendError::Closed(())) => Err(Error::Stopping),
    }
}

/// One for each lane, so that a press for help has a place though a flood has filled the other; and one for
/// notes of how far somebody is ([`Hub::place`]), which wait behind no flood and hold up nobody.
#[derive(Clone)]
struct Queues {
    urgent: Queue,
    routine: Queue,
    lazy: mpsc::Sender<Job>,
}

/// Requests that wait in the last of them.
const LAZY_QUEUE_MAX: usize = 16;
/// As many notes are enough for one of them: some 20 KB.
pub const LAZY_NOTES: usize = 64;

impl Queues {
    fn new() -> (Queues, Waiting) {
        let (urgent, u) = Queue::new(limits::ENGINE_QUEUE_BYTES_MAX / 4);
        let (routine, r) = Queue::new(limits::ENGINE_QUEUE_BYTES_MAX);
        let (lazy, l) = mpsc::channel(LAZY_QUEUE_MAX);
        (Queues { urgent, routine, lazy }, Waiting { urgent: u, routine: r, lazy: l, in_a_row: 0, is_routines: false })
    }

    fn of(&self, lane: Lane) -> &Queue {
        match lane {
            Lane::Urgent => &self.urgent,
            Lane::Routine => &self.routine,
        }
    }
}

/// Requests that wait, as the engine takes them.
struct Waiting {
    urgent: mpsc::Receiver<Job>,
    routine: mpsc::Receiver<Job>,
    lazy: mpsc::Receiver<Job>,
    /// Urgent ones taken since a routine one was.
    in_a_row: u32,
    /// The batch that is being made is for what is routine.
    is_routines: bool,
}

/// As many urgent requests before a routine one, if both wait: so that neither starves.
const URGENT_IN_A_ROW: u32 = 8;

impl Waiting {
    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.routine.is_empty() && self.lazy.is_empty()
    }

    /// What is not urgent: a note in no haste first, since a handshake that is asked for after it relies on it.
    fn next_routine(&mut self) -> Option<Job> {
        self.lazy.try_recv().or_else(|_| self.routine.try_recv()).ok()
    }

    /// What is urgent alone.
    fn next_urgent(&mut self) -> Option<Job> {
        self.urgent.try_recv().ok()
    }

    /// Without waiting.
    fn next(&mut self) -> Option<Job> {
        self.is_routines = self.in_a_row >= URGENT_IN_A_ROW;
        if !self.is_routines
            && let Some(job) = self.next_urgent()
        {
            self.in_a_row += 1;
            return Some(job);
        }
        self.in_a_row = 0;
        self.next_routine().or_else(|| self.next_urgent())
    }

    /// What joins the batch of what was taken last. Behind something urgent only what is urgent too: its commit
    /// waits for nothing else. But where that was routine's turn, all of it comes first that waits.
    fn also(&mut self) -> Option<Job> {
        if self.is_routines {
            return self.next_routine().or_else(|| self.next_urgent());
        }
        if self.in_a_row == 0 {
            return self.next();
        }
        self.next_urgent().inspect(|_| self.in_a_row += 1)
    }

    /// `Ready(None)`: every handle is gone, and everything taken.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Job>> {
        if let Some(job) = self.next() {
            return Poll::Ready(Some(job));
        }
        let urgent = self.urgent.poll_recv(cx);
        if matches!(urgent, Poll::Ready(Some(_))) {
            (self.in_a_row, self.is_routines) = (1, false);
            return urgent;
        }
        for others in [&mut self.lazy, &mut self.routine] {
            if let Poll::Ready(Some(job)) = others.poll_recv(cx) {
                return Poll::Ready(Some(job));
            }
        }
        urgent
    }
}

/// A cheap handle on the engine. Cloned into every door and link.
#[derive(Clone)]
pub struct Hub {
    queues: Queues,
    shared: Arc<Shared>,
    reader: Reader,
    committed: watch::Receiver<Pos>,
    jots: Arc<Jots>,
}

impl Hub {
    /// Offers records, each decided and committed on its own, in this order. Waits while the
    /// engine's queue is full: that is the back-pressure. Where all are urgent they go before what is not.
    ///
    /// # Errors
    /// [`Error::Stopping`], [`Error::TooLarge`]; the ticket may still answer [`Error::Unwritable`].
    pub async fn offer(&self, drafts: Vec<Draft>) -> Result<Ticket<Vec<Outcome>>, Error> {
        self.offer_groups(drafts.into_iter().map(Offered::from).collect()).await
    }

    /// As [`Hub::offer`], of records that may have another with them.
    ///
    /// # Errors
    /// As [`Hub::offer`].
    pub async fn offer_groups(&self, offered: Vec<Offered>) -> Result<Ticket<Vec<Outcome>>, Error> {
        all_fit(offered.iter().flat_map(|o| [&o.draft].into_iter().chain(&o.with)))?;
        let (reply, ticket) = oneshot::channel();
        let is_urgent = offered.iter().all(|o| o.lane() == Lane::Urgent);
        let queue = self.queues.of(if is_urgent { Lane::Urgent } else { Lane::Routine });
        let room = queue.room(offered.iter().map(Offered::bytes).sum()).await?;
        queue.send(Job::Offer { offered, reply, room }).await?;
        Ok(ticket)
    }

    /// As [`Hub::offer`], for bookkeeping; the notes of one call are one group.
    ///
    /// # Errors
    /// As [`Hub::offer`].
    pub async fn note(&self, notes: Vec<Note>, haste: Haste) -> Result<Ticket<()>, Error> {
        let (reply, ticket) = oneshot::channel();
        let drafts: Vec<Draft> = notes.iter().map(Note::draft).collect();
        all_fit(&drafts)?;
        let bytes: usize = drafts.iter().map(|d| d.bytes().len()).sum();
        // A few that tell how far somebody is do not wait behind a backlog for room: what is urgent may
        // wait for them.
        let room = if bytes > NOTE_BYTES_MAX { Some(self.queues.routine.room(bytes).await?) } else { None };
        let let_go = notes.iter().all(Note::lets_go);
        self.queues.routine.send(Job::Note { drafts, let_go, haste, reply, room }).await?;
        Ok(ticket)
    }

    /// A place for a few notes that tell how far somebody is, if there is one: they may as well be noted later.
    /// They come before whatever is not urgent and asked for after them.
    ///
    /// # Errors
    /// [`Error::Stopping`]
    pub fn place(&self) -> Result<Option<Place<'_>>, Error> {
        Ok(place_in(&self.queues.lazy)?.map(Place))
    }

    /// Decides on the state as it is at its turn, and commits what is decided as one group: for steps
    /// that are right or wrong by what was committed before them. The closure tells its caller what
    /// it found by whatever it captured; it must be quick, the engine waits. The ticket holds the
    /// first position of the group (or the newest one, if nothing was decided). `lane`: of what it is about.
    ///
    /// # Errors
    /// As [`Hub::offer`].
    pub async fn decide(&self, lane: Lane, decide: Decide) -> Result<Ticket<Pos>, Error> {
        let (reply, ticket) = oneshot::channel();
        self.queues.of(lane).send(Job::Decide { decide, reply }).await?;
        Ok(ticket)
    }

    /// Hands in a frame (a whole wire message) of a peer: a child, or the parent. Each lane, which is the
    /// frame's, has a cursor of its own.
    ///
    /// # Errors
    /// As [`Hub::offer`].
    pub async fn receive(&self, peer: Address, lane: Lane, message: Bytes) -> Result<Ticket<Received>, Error> {
        let (reply, ticket) = oneshot::channel();
        let queue = self.queues.of(lane);
        let room = queue.room(message.len()).await?;
        queue.send(Job::Frame { peer, message, reply, room }).await?;
        Ok(ticket)
    }

    /// As [`Hub::receive`]; `None` where it would have to wait.
    ///
    /// # Errors
    /// [`Error::Stopping`]
    pub fn try_receive(&self, peer: &Address, lane: Lane, message: &Bytes) -> Result<Option<Ticket<Received>>, Error> {
        let Some((place, room)) = self.queues.of(lane).place(message.len())? else { return Ok(None) };
        let (reply, ticket) = oneshot::channel();
        place.send(Job::Frame { peer: peer.clone(), message: message.clone(), reply, room });
        Ok(Some(ticket))
    }

    /// Closes a dead letter, takes `draft` (what it held) as [`Hub::offer`] would, and records `extra`:
    /// all in one group, and only if it is open.
    ///
    /// # Errors
    /// As [`Hub::offer`].
    pub async fn settle(&self, letter: Pos, draft: Option<Draft>, extra: Vec<Draft>) -> Result<Ticket<Settled>, Error> {
        all_fit(draft.iter().chain(&extra))?;
        let (reply, ticket) = oneshot::channel();
        self.queues.routine.send(Job::Settle { letter, draft, extra, reply }).await?;
        Ok(ticket)
    }

    /// Asks the engine to commit what it has and to end, behind all that was asked before that is not urgent.
    /// Waits while its queue is full; join its thread.
    pub async fn stop(&self) {
        // A closed channel means that it has ended already.
        let _ = self.queues.routine.send(Job::Stop).await;
    }

    /// Reads the log, as far as it is durable. Clone it into each task that reads.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The newest durable position; changes after each commit.
    pub fn committed(&self) -> watch::Receiver<Pos> {
        self.committed.clone()
    }

    /// A durable session's client has acknowledged everything up to `upto`: kept at once, so that a
    /// kill does not bring it again, and until a note of it is written.
    pub fn jot(&self, client: &str, upto: Pos) {
        // What is not durable yet may be gone after a power cut, and its positions given anew.
        self.jots.put(client, upto.min(*self.committed.borrow()));
    }

    /// Looks at the state as of the newest commit, and of the notes written since that are in no haste: if one
    /// is being made, after it. Keep `look` short: the engine waits meanwhile. Where it could not be read back
    /// after a write that failed ([`Hub::trouble`]), what was refused may be in it until it can.
    pub fn state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        let _committed = self.shared.committed.read();
        look(&self.shared.state.read())
    }

    /// As [`Hub::state`], but without waiting for an fsync: what is being committed is in it already, and
    /// if the disk fails it never was. For whoever only decides what to ask of the engine next.
    pub fn state_ahead<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.shared.state.read())
    }

    /// Tells the present history of the log from those before, as of the newest commit: see [`history_of`].
    /// Unlike [`Hub::state`] it never waits: a link asks it for each frame, just when the engine begins
    /// the next commit.
    pub fn history(&self) -> u64 {
        self.shared.history.load(Ordering::Relaxed)
    }

    /// Why the node takes nothing at the moment; `None` is well.
    pub fn trouble(&self) -> Option<Trouble> {
        self.shared.trouble.read().clone()
    }

    pub fn work(&self) -> &Work {
        &self.shared.work
    }

    /// What lies on the disk, a few seconds ago.
    pub fn house(&self) -> House {
        self.shared.house.read().clone()
    }
}

/// See [`Hub::place`]. Given back where nothing is put there.
pub struct Place<'a>(mpsc::Permit<'a, Job>);

impl Place<'_> {
    /// As [`Hub::note`] in no haste. Nobody hears what becomes of them.
    pub fn note_lazily(self, notes: &[Note]) {
        let drafts: Vec<Draft> = notes.iter().map(Note::draft).collect();
        if !drafts.is_empty() {
            let (let_go, reply) = (notes.iter().all(Note::lets_go), oneshot::channel().0);
            self.0.send(Job::Note { drafts, let_go, haste: Haste::Lazy, reply, room: None });
        }
    }
}

/// A number that changes whenever the log gets a new history: half of its random name.
pub fn history_of(epochs: &[Epoch]) -> u64 {
    epochs.last().map_or(0, |e| e.log.0 as u64)
}

/// What a ticket holds, or that the engine has ended.
///
/// # Errors
/// As the ticket says, and [`Error::Stopping`] when the engine ended before it answered.
pub async fn wait<T>(ticket: Ticket<T>) -> Result<T, Error> {
    ticket.await.unwrap_or(Err(Error::Stopping))
}
