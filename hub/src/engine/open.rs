//! Starting: log, store and state, from whatever a kill or a power cut left.

use super::jots::Jots;
use super::upkeep::Space;
use super::worker::Engine;
use super::{Hub, Queues, Shared, Waiting, Work};
use crate::backup;
use crate::log::{self, Log, Reader};
use crate::note::Note;
use crate::operator;
use crate::policy::{self, Policy};
use crate::state::{State, rows};
use crate::store::{self, Opened, Store};
use citybrain_shared::config::Config;
use citybrain_shared::record::Header;
use citybrain_shared::{Boot, Inc, LogId, Pos, limits};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make the data folder `{dir}`")]
    Folder {
        dir: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("another node is running on this data folder")]
    InUse,
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the state's store is closed after a failure")]
    StoreClosed,
    #[error("the state does not read back")]
    Rows(#[from] rows::Error),
    #[error("no random numbers from the operating system: {0}")]
    Random(String),
    #[error("record {pos} of the log does not decode: {reason}")]
    Record { pos: Pos, reason: String },
    #[error("cannot mark the data folder")]
    Mark(#[source] Box<backup::Error>),
    #[error("the first commit failed")]
    FirstCommit(#[source] super::Error),
}

impl Error {
    /// Somebody else has the folder open, and may let go of it.
    pub fn is_in_use(&self) -> bool {
        let locked = matches!(self, Error::Log(log::Error::Locked { .. }) | Error::Store(store::Error::Locked { .. }));
        locked || matches!(self, Error::InUse)
    }
}

/// What was found at the start; for the log and for `status`.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub records: u64,
    pub first: Pos,
    pub last: Pos,
    /// Bytes of an unfinished write that were cut off.
    pub cut_bytes: u64,
    /// First and last of the records at the log's end that were durable, as the state shows, and are
    /// gone: damage in the last commit looks like an unfinished write.
    pub lost_end: Option<(Pos, Pos)>,
    /// Places in the log that do not read.
    pub damages: Vec<String>,
    /// Why the state was rebuilt, if it was.
    pub rebuilt: Option<String>,
    /// It was made of a backup that was put back, which is the log alone or with a snapshot.
    pub is_restored: bool,
    pub replayed: u64,
    pub took_ms: u64,
}

fn random() -> Result<u128, Error> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| Error::Random(e.to_string()))?;
    Ok(u128::from_le_bytes(bytes))
}

/// Makes the data folder where it is not there, with those above it; their names survive a power cut, as all
/// that will be in it must.
fn make_folder(dir: &Path) -> std::io::Result<()> {
    let new: Vec<&Path> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    // Residents' matters: a folder that it makes itself is not for every user of the machine.
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
    for folder in new {
        let above = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

/// A new history of the log, from `first` on.
pub(super) fn epoch(first: Pos, why: &str) -> Result<Note, Error> {
    Ok(Note::Epoch { log: LogId(random()?), first, why: why.into() })
}

/// Opens a node's data folder, commits this start's boot, and returns the handle, the engine (to be
/// run on a thread of its own) and what was found.
///
/// # Errors
/// [`Error`]; nothing was changed but what a torn write left.
pub fn open(config: &Config, policy: policy::Make) -> Result<(Hub, Engine, Facts), Error> {
    open_on(config, policy, Arc::new(log::Real))
}

/// As [`open`], with the log on this disk.
pub(super) fn open_on(
    config: &Config,
    policy: policy::Make,
    disk: Arc<dyn log::Disk>,
) -> Result<(Hub, Engine, Facts), Error> {
    let started = Instant::now();
    let mut recovered = recover(config, &policy, disk.clone())?;
    let (unproven, mut facts) = (recovered.unproven.take(), std::mem::take(&mut recovered.facts));
    let reader = recovered.log.reader();
    let (queues, waiting) = Queues::new();
    let (committed, watcher) = watch::channel(reader.last());
    let mut engine = Engine::new(recovered, config, policy, disk, waiting, committed);
    let jots = engine.boot(unproven.as_deref())?;
    engine.tell_operators()?;
    if unproven.is_some() {
        // Only now: until the new history is committed, another start must begin it.
        let dir = &config.node.data;
        backup::forget_mark(dir).map_err(|source| Error::Folder { dir: dir.clone(), source })?;
    }
    engine.watch_space();
    engine.look_around();
    (facts.first, facts.last) = (reader.first(), reader.last());
    facts.records = facts.last.0 + 1 - facts.first.0;
    facts.took_ms = started.elapsed().as_millis() as u64;
    let shared = engine.shared.clone();
    Ok((Hub { queues, shared, reader, committed: watcher, jots: Arc::new(jots) }, engine, facts))
}

/// What a data folder holds, brought to agree.
struct Recovered {
    log: Log,
    store: Store,
    state: State,
    /// The store's rows are as of here.
    stored: Pos,
    /// Why this start must begin a new history.
    unproven: Option<String>,
    ballast_is_gone: bool,
    facts: Facts,
}

/// True: the disk is full, and the ballast given up.
fn open_log(config: &Config, disk: Arc<dyn log::Disk>) -> Result<(log::Opened, bool), Error> {
    let dir = &config.node.data;
    let log_dir = dir.join("log");
    // On a full disk the ballast goes first: a node must start there, to serve what it has.
    let is_full = disk.free_bytes(dir) < limits::BALLAST_BYTES / 4;
    if is_full {
        tracing::error!(dir = %dir.display(), "The disk is full; the ballast is given up so that the node can start.");
        log::release_ballast(&log_dir)?;
    }
    // Not made again before there is room: the engine sees to it.
    let ballast_bytes = if is_full { 0 } else { limits::BALLAST_BYTES };
    let options = log::Options { segment_bytes: config.store.segment_bytes, ballast_bytes, ..Default::default() };
    Ok((Log::open_on(&log_dir, options, disk)?, is_full))
}

fn recover(config: &Config, policy: &policy::Make, disk: Arc<dyn log::Disk>) -> Result<Recovered, Error> {
    let dir = &config.node.data;
    make_folder(dir).map_err(|source| Error::Folder { dir: dir.clone(), source })?;
    let (opened, ballast_is_gone) = open_log(config, disk)?;
    let log = opened.log;
    let (mut store, found) = Store::open(dir, config.store.cache_bytes)?;
    let mut facts = Facts {
        cut_bytes: opened.found.cut_bytes,
        damages: opened
            .found
            .damage
            .iter()
            .map(|d| format!("records {} to {} ({}, byte {})", d.first, d.last, d.segment.display(), d.offset))
            .collect(),
        ..Facts::default()
    };
    let reader = log.reader();
    let again = |log_end: Pos, store: Store| -> Result<(Store, store::Opened), Error> {
        drop(store);
        store::rewind(dir, log_end)?;
        Ok(Store::open(dir, config.store.cache_bytes)?)
    };
    let (mut rows, mut upto) = (found.rows, found.upto);
    // The store is written behind the log, so it can only be ahead if the log lost its end.
    // A backup is an older past: peers may hold positions that this log will give to other records.
    let mut unproven = backup::mark(dir);
    facts.is_restored = found.was_gone && unproven.as_deref() == Some(backup::RESTORED);
    facts.rebuilt = found.rebuilt.filter(|_| !facts.is_restored);
    if upto > reader.last() {
        facts.lost_end = Some((reader.last().next(), upto));
        facts.rebuilt = Some(format!("The log ends at {}, before the state, which ends at {upto}.", reader.last()));
        // Before the state goes that shows it: a kill would have the next start know of nothing.
        if unproven.is_none() {
            let why = "the log had lost its end";
            backup::put_mark(dir, why, "").map_err(|e| Error::Mark(Box::new(e)))?;
            unproven = Some(why.into());
        }
        (store, Opened { rows, upto, .. }) = again(reader.last(), store)?;
    }
    // Every start writes rows: sled has gone back to before the first, which is all that it does on
    // some damage. The log has everything.
    if rows.is_empty() && reader.last() > Pos::ZERO && facts.rebuilt.is_none() && !facts.is_restored {
        facts.rebuilt = Some("The state was empty, although the log is not; it was folded anew from the log.".into());
    }
    let folded = match fold(rows, upto, &reader, policy()) {
        Ok(folded) => folded,
        // Rows that do not read are no loss while the log has everything that they came from.
        Err(Error::Rows(e @ rows::Error::Row { .. })) if reader.first() <= Pos(1) => {
            facts.rebuilt = Some(format!("{e}; it was folded anew from the log."));
            let (new, found) = again(Pos::ZERO, store)?;
            (store, upto) = (new, found.upto);
            fold(found.rows, found.upto, &reader, policy())?
        }
        Err(Error::Log(log::Error::Trimmed { first })) => {
            unproven = unproven.or(Some("the state's beginning was lost".into()));
            facts.rebuilt = Some(format!(
                "{} The log begins at {first}: what the records before it said (cursors, sessions, counts) is lost.",
                facts.rebuilt.as_deref().unwrap_or_default()
            ));
            (store, Opened { upto, .. }) = again(Pos::ZERO, store)?;
            let mut state = State::with(policy());
            state.skip_to(Pos(first.0 - 1));
            fold_onto(state, &reader)?
        }
        Err(e) => return Err(e),
    };
    if folded.skipped {
        unproven = unproven.or(Some(SKIPPED.into()));
    }
    let state = folded.state;
    facts.replayed = state.applied.0 - upto.0;
    Ok(Recovered { log, store, state, stored: upto, unproven, ballast_is_gone, facts })
}

impl Engine {
    fn new(
        recovered: Recovered,
        config: &Config,
        policy: policy::Make,
        disk: Arc<dyn log::Disk>,
        waiting: Waiting,
        committed: watch::Sender<Pos>,
    ) -> Engine {
        let Recovered { log, store, state, stored, ballast_is_gone, .. } = recovered;
        let shared = Arc::new(Shared {
            house: RwLock::default(),
            committed: Default::default(),
            state: RwLock::new(state),
            trouble: RwLock::new(None),
            work: Work::default(),
            history: Default::default(),
        });
        let now = Instant::now();
        Engine {
            snapshot_at: store.newest_snapshot(),
            sync_takes: Duration::ZERO,
            is_snapshot_due: false,
            snapshot_failed_at: None,
            lent: None,
            log,
            disk,
            store: Some(store),
            shared,
            waiting,
            committed,
            config: config.store.clone(),
            dir: config.node.data.clone(),
            me: config.node.address.clone(),
            labels: config.node.labels.clone(),
            parent: config.node.address.parent().filter(|_| config.parent.is_some()),
            credit: config.link.credit(),
            policy,
            fresh_keys: HashMap::new(),
            stored,
            last_store: now,
            last_housekeeping: now,
            lazy_since: None,
            broken_since: None,
            space: Space::Enough,
            unwatched_bytes: 0,
            ballast_is_gone,
        }
    }

    /// Commits the notes that begin this start.
    fn boot(&mut self, unproven: Option<&str>) -> Result<Jots, Error> {
        let shared = self.shared.clone();
        let mut state = shared.change();
        let me = &state.me;
        let inc = if me.inc == Inc::default() { Inc(random()?) } else { me.inc };
        let boot = Boot { counter: me.boot.counter + 1, nonce: random()? as u64 };
        let mut notes = vec![Note::Booted { inc, boot }];
        let first = self.log.last().next();
        if me.epochs.is_empty() {
            notes.push(epoch(first, "the data folder is new")?);
        } else if let Some(why) = unproven {
            notes.push(epoch(first, why)?);
        } else {
            notes.extend(Jots::left(&self.dir, me, self.log.last(), state.sessions.iter()));
        }
        for note in notes {
            self.append_note(&mut state, &note);
        }
        self.commit(state).map_err(Error::FirstCommit)?;
        let jots = Jots::open(&self.dir, &shared.state.read().me);
        self.write_rows();
        Ok(jots)
    }

    /// Records what operators did to the folder while the node was stopped, but for what an earlier start has
    /// recorded that did not come to remove the file.
    fn tell_operators(&mut self) -> Result<(), Error> {
        let acts = operator::left(&self.dir, &self.me);
        if acts.is_empty() {
            return Ok(());
        }
        let mut new = Vec::new();
        for act in acts {
            if self.known(&act).map_err(Error::FirstCommit)?.is_none() {
                new.push(act);
            }
        }
        if !new.is_empty() {
            self.record_drafts(new).map_err(Error::FirstCommit)?;
        }
        operator::forget(&self.dir).map_err(|source| Error::Folder { dir: self.dir.clone(), source })
    }

    /// Commits a note of the engine's own.
    pub(super) fn record(&mut self, note: Note) -> Result<(), super::Error> {
        let shared = self.shared.clone();
        let mut state = shared.change();
        self.append_note(&mut state, &note);
        self.commit(state)
    }
}

/// Why a log has a new history when some of it was passed over as the state was made of it: what stood
/// there may have had numbers that the state does not know to be given.
pub(super) const SKIPPED: &str = "records that the state is made of cannot be read";

/// What the log adds up to.
pub(super) struct Folded {
    pub state: State,
    /// Some of it could not be read.
    pub skipped: bool,
}

/// The state as of the end of the log: rows as of `upto`, and what the log holds behind them.
pub(super) fn fold(
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    upto: Pos,
    reader: &Reader,
    policy: Box<dyn Policy>,
) -> Result<Folded, Error> {
    fold_onto(State::load(rows, upto, policy)?, reader)
}

pub(super) fn fold_onto(mut state: State, reader: &Reader) -> Result<Folded, Error> {
    let (mut after, mut skipped) = (state.applied, false);
    while after < reader.last() {
        let entries = match reader.read(after, None, 4096, 1 << 20) {
            Ok(entries) => entries,
            Err(log::Error::Damaged { upto: bad, .. }) => {
                // What the damaged records said is gone; what comes behind them still counts.
                state.skip_to(bad);
                (after, skipped) = (bad, true);
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let Some(last) = entries.last() else { break };
        after = last.pos;
        for entry in &entries {
            let (header, payload) =
                Header::decode(&entry.bytes).map_err(|e| Error::Record { pos: entry.pos, reason: e.to_string() })?;
            if entry.pos != state.applied.next() {
                state.skip_to(Pos(entry.pos.0 - 1));
                skipped = true;
            }
            state.apply(entry.pos, &header, payload);
        }
    }
    Ok(Folded { state, skipped })
}

/// Waits for a future on a thread that belongs to no runtime, but not longer than `wait`.
pub(super) fn block_on_timeout<F: Future>(future: F, wait: Duration) -> Option<F::Output> {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    let end = Instant::now() + wait;
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut context) {
            return Some(out);
        }
        let left = end.checked_duration_since(Instant::now())?;
        std::thread::park_timeout(left);
    }
}
