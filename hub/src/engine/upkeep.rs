//! What the engine does between batches: rows to the store, snapshots, room on the disk, and the log again after a
//! failure.

use super::worker::{Engine, LAZY_MAX};
use super::{House, Trouble, open};
use crate::state::State;
use crate::store::Store;
use citybrain_shared::limits;
use citybrain_shared::words::with_causes;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Rows go to sled at least this often while anything changes: what is not there is folded again
/// at a start, and half a second of records folds in a few milliseconds.
const STORE_EVERY: Duration = Duration::from_millis(500);
/// How often retention and free space are looked at.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(2);
/// After a failed write the log is opened again this often.
const REOPEN_EVERY: Duration = Duration::from_millis(500);
/// A snapshot that failed is tried again after so long: it may be as large as the state.
const SNAPSHOT_AGAIN_EVERY: Duration = Duration::from_secs(60);

/// How much room the disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    Enough,
    /// Less than `free_bytes_min`: nothing new is taken. Notes are, or a log that has filled the disk itself
    /// would stay for ever: who has what, who is there and who is gone.
    Short,
    /// Less than half of that: of them only those that let the log go ([`lets_go`](crate::note::Note::lets_go)). Clients that come
    /// and are sent away for hours must not use up the room that these need.
    Scarce,
    /// Less than a quarter: nothing at all.
    Spent,
}

/// The store is with the thread that writes a snapshot.
pub(super) struct Lent {
    /// `None`: it was given no store.
    pub thread: JoinHandle<Option<(Store, Result<(), String>)>>,
    /// Set, it ends soon.
    pub given_up: Arc<AtomicBool>,
}

impl Engine {
    pub(super) fn keep_house(&mut self) {
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
        if self.lent.as_ref().is_some_and(|lent| lent.thread.is_finished()) {
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
            *self.shared.trouble.write() = Some(Trouble::broken(&e));
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
                if !skipped {
                    drop(state);
                } else if self.commit(state).is_err() {
                    return;
                }
                self.broken_since = None;
                *self.shared.trouble.write() = None;
                self.committed.send_replace(upto);
                tracing::info!(upto = upto.0, "The log can be written again.");
            }
            Err(e) => {
                *self.shared.trouble.write() = Some(Trouble::broken(&e));
                return;
            }
        }
        // It may still be short of space, and then says so.
        self.space = Space::Enough;
        self.watch_space();
    }

    /// True: some of the log was passed over, because it does not read.
    pub(super) fn reload(&mut self, state: &mut State) -> Result<bool, super::OpenError> {
        debug_assert!(self.lent.is_none(), "whoever holds the state waits for nobody");
        // sled fails for good after a failure, and its rows may be of either side of it.
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

    pub(super) fn watch_space(&mut self) {
        self.unwatched_bytes = 0;
        let free = self.disk.free_bytes(&self.dir);
        if self.ballast_is_gone
            && self.broken_since.is_none()
            && free > self.config.free_bytes_min + 2 * limits::BALLAST_BYTES
        {
            match self.log.restore_ballast(limits::BALLAST_BYTES) {
                Ok(()) => self.ballast_is_gone = false,
                Err(error) => tracing::warn!(error = %with_causes(&error), "The ballast could not be put back."),
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
                let free_mb = free / 1_000_000;
                Trouble::Short(format!("only {free_mb} MB are free in {}, less than {than}", self.dir.display()))
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
                // Of a disk that others have filled sled may be the first to hear.
                self.give_up_ballast();
                // The rows that were taken are only in memory now: fold them again from the log.
                let mut state = shared.state.write();
                *self.shared.trouble.write() = Some(Trouble::broken(&e));
                self.broken_since = Some(Instant::now());
                tracing::error!(error = %with_causes(&e), "The state cannot be stored; it is read back from the log.");
                if let Err(e) = self.reload(&mut state) {
                    tracing::error!(error = %with_causes(&e), "The state cannot be read back yet.");
                }
            }
        }
    }

    /// sled needs room to open, on a disk that may have none left.
    pub(super) fn give_up_ballast(&mut self) {
        match self.log.release_ballast() {
            Ok(()) => self.ballast_is_gone = true,
            Err(error) => tracing::error!(error = %with_causes(&error), "The ballast cannot be given up."),
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
        let given_up = Arc::new(AtomicBool::new(false));
        let until = given_up.clone();
        let write = move || {
            let mut store = take.recv().ok()?;
            let written = store.snapshot_unless(upto, &until).map(drop).map_err(|e| with_causes(&e));
            Some((store, written))
        };
        match std::thread::Builder::new().name("snapshot".into()).spawn(write) {
            Ok(thread) => {
                self.lent = Some(Lent { thread, given_up });
                // It waits for it, and there is room for one.
                let _ = self.store.take().map(|store| give.send(store));
            }
            Err(error) => self.snapshot_failed(&error.to_string()),
        }
    }

    /// Takes the store back from the thread that writes a snapshot; waits until it has.
    pub(super) fn take_back(&mut self) {
        let Some(lent) = self.lent.take() else { return };
        match lent.thread.join() {
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
                *self.shared.trouble.write() = Some(Trouble::Broken("the state's store was lost".into()));
                self.broken_since = Some(Instant::now());
            }
        }
    }

    fn snapshot_failed(&mut self, error: &str) {
        tracing::error!(error, "A snapshot could not be written; it is tried again in a minute.");
        self.snapshot_failed_at = Some(Instant::now());
    }
}
