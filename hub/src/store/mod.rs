//! What the state adds up to, on disk: its rows in sled ([`table`]), and snapshots of them
//! ([`snapshot`]).
//!
//! # Constraints
//! - The state is a fold over the log, so nothing here is the only copy of anything, as long as the
//!   log reaches back to the older snapshot ([`Store::trim_floor`]).
//! - What [`Store::write`] returned for is on disk, rows and position together.
//! - sled panics on most damage and silently goes back to an older flush on some. So it is opened
//!   in a thread of its own, all rows are read and checked against a count and a sum, and its
//!   position against the newest snapshot's. If anything is wrong the folder is moved aside and
//!   made anew from a snapshot, and [`Opened::rebuilt`] says why.
//! - sled's `flush` is no fsync, and it never syncs the files that it makes of values above a
//!   quarter of its segment. So its file is synced here, and rows are cut into pieces.
//!
//! In the node's data folder: `state/` (sled), `snapshots/POSITION.snap` (the newest two), and at
//! most one `state.damaged-N/`.

mod snapshot;
mod table;
#[cfg(test)]
mod tests;

use crate::files::{self, at, put_whole, sync_folder};
use citybrain_shared::Pos;
use citybrain_shared::words::with_causes;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use table::{Fault, Table};

/// A key, and its value; `None` removes it.
pub type Row = (Vec<u8>, Option<Vec<u8>>);
/// Keys and values, ascending by key.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

const SNAPSHOTS_KEPT: usize = 2;
/// Rows written at a time when all of them are.
const ROWS_TOGETHER: usize = 4_096;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] files::Error),
    #[error("`{path}` is in use by another process")]
    Locked { path: PathBuf },
    /// The store is to be closed and opened again.
    #[error("the state's store has failed: {reason}")]
    Failed { reason: String },
    #[error("the snapshot was given up")]
    GivenUp,
    #[error("`{path}` is not a good snapshot: {reason}")]
    Snapshot { path: PathBuf, reason: String },
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        match fault {
            Fault::Error(error) => error,
            Fault::Damaged(reason) => Error::Failed { reason },
        }
    }
}

/// What was in the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    pub rows: Rows,
    /// The newest position that is in the rows; the log must be applied from here on.
    pub upto: Pos,
    /// Why sled's folder was made anew, a sentence; the old one is kept as `state.damaged-N`.
    pub rebuilt: Option<String>,
    /// That folder was not there, though the store had been.
    pub was_gone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub pos: Pos,
    pub rows: u64,
    pub bytes: u64,
    /// The log may be trimmed up to here: the older snapshot's position, zero without one.
    pub trim_to: Pos,
}

/// The state's rows on disk. Owned by the engine's thread.
pub struct Store {
    dir: PathBuf,
    table: Table,
    /// The snapshot that was read back last.
    checked: Pos,
    /// The next write fails, as on a disk that others have filled.
    #[cfg(test)]
    pub(crate) fails: bool,
}

impl Store {
    fn of(dir: &Path, table: Table) -> Store {
        Store {
            dir: dir.to_owned(),
            table,
            checked: Pos::ZERO,
            #[cfg(test)]
            fails: false,
        }
    }

    /// Opens the store in a node's data folder, or begins one. `cache_bytes`: sled's cache.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Locked`]. Damage is no error: the store is rebuilt from the newest
    /// good snapshot, without one it is empty, at position zero.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<(Store, Opened), Error> {
        let (state, snapshots) = (dir.join("state"), dir.join("snapshots"));
        let io = at(dir);
        snapshot::tidy(&snapshots);
        // Made once sled's folder is there: if it is there alone, sled's folder has gone.
        let known = snapshots.exists();
        let existed = state.join("db").exists();
        let newest = snapshot::list(&snapshots).first().map_or(Pos::ZERO, |(pos, _)| *pos);
        let good = |upto: Pos| upto >= newest || snapshot::newest_good(&snapshots).is_none_or(|(pos, _)| upto >= pos);

        let reason = if existed || !known {
            match Table::open(&state, cache_bytes) {
                Ok((table, _)) if !good(table.upto()) => {
                    format!("it ends at {}, before the newest good snapshot", table.upto())
                }
                Ok((table, rows)) => {
                    if !existed || !known {
                        sync_files(&state)?;
                        fs::create_dir_all(&snapshots).map_err(io)?;
                        sync_folder(dir)?;
                    }
                    let opened = Opened { rows, upto: table.upto(), ..Opened::default() };
                    return Ok((Store::of(dir, table), opened));
                }
                Err(Fault::Error(error)) => return Err(error),
                Err(Fault::Damaged(reason)) => reason,
            }
        } else {
            "its folder was gone".to_owned()
        };

        if state.exists() {
            move_aside(dir)?;
        }
        let (table, _) = Table::open(&state, cache_bytes).map_err(Error::from)?;
        let mut store = Store::of(dir, table);
        let (upto, rows) = snapshot::newest_good(&snapshots).unwrap_or_default();
        // A few at a time, so that memory holds them once. Until the position is there they count for nothing.
        for some in rows.chunks(ROWS_TOGETHER) {
            store.write(some.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect(), Pos::ZERO)?;
        }
        store.write(Vec::new(), upto)?;
        sync_files(&state)?;
        fs::create_dir_all(&snapshots).map_err(io)?;
        sync_folder(dir)?;
        let rebuilt = match upto {
            Pos::ZERO => format!("The state was made anew, empty, without a snapshot, because {reason}."),
            _ => format!("The state was made anew from the snapshot at {upto}, because {reason}."),
        };
        Ok((store, Opened { rows, upto, rebuilt: Some(rebuilt), was_gone: !existed && known }))
    }

    /// Newest position that is in the rows.
    pub fn upto(&self) -> Pos {
        self.table.upto()
    }

    /// Writes changes that bring the rows to `upto`: all of them or none, durable on return. Of
    /// several changes of one key the last counts.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Failed`]: the rows may be at either position. sled fails from then
    /// on; drop the store and open it again.
    pub fn write(&mut self, rows: Vec<Row>, upto: Pos) -> Result<(), Error> {
        #[cfg(test)]
        if std::mem::take(&mut self.fails) {
            return Err(Error::Failed { reason: "a test says so".into() });
        }
        self.table.write(rows, upto)
    }

    #[cfg(test)]
    pub fn snapshot(&mut self, upto: Pos) -> Result<Snapshot, Error> {
        self.snapshot_unless(upto, &AtomicBool::new(false))
    }

    /// Writes all rows to a snapshot file and keeps the newest two. `upto` must be where the rows
    /// are: the position of the last [`Store::write`]. Stops at the next row once `given_up` is set.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Failed`], [`Error::GivenUp`]; the older snapshots are untouched then.
    pub fn snapshot_unless(&mut self, upto: Pos, given_up: &AtomicBool) -> Result<Snapshot, Error> {
        assert_eq!(upto, self.table.upto(), "a snapshot is of what was written");
        let dir = self.dir.join("snapshots");
        let path = snapshot::path_of(&dir, upto);
        let temporary = path.with_extension("tmp");
        let file = File::create(&temporary).map_err(at(&temporary))?;
        let bytes = put_whole(&file, &temporary, &path, || {
            let io = at(&temporary);
            let mut out = snapshot::Writing::begin(&file, upto, self.table.rows()).map_err(io)?;
            self.table.each_row(|key, value| match given_up.load(Ordering::Relaxed) {
                false => Ok(out.put_row(key, value).map_err(io)?),
                true => Err(Error::GivenUp),
            })?;
            Ok::<_, Error>(out.finish().map_err(io)?)
        })?;
        for (_, old) in snapshot::list(&dir).into_iter().skip(SNAPSHOTS_KEPT) {
            fs::remove_file(&old).map_err(at(&old))?;
        }
        Ok(Snapshot { pos: upto, rows: self.table.rows(), bytes, trim_to: self.trim_floor() })
    }

    /// The older snapshot's position: what is behind it must stay in the log. Zero without two.
    pub fn trim_floor(&self) -> Pos {
        snapshots(&self.dir).get(SNAPSHOTS_KEPT - 1).map_or(Pos::ZERO, |(pos, _)| *pos)
    }

    /// As [`Store::trim_floor`], but the newest snapshot's position, if it reads back as it was written.
    /// It is read once.
    pub fn checked_floor(&mut self) -> Pos {
        let Some((pos, path)) = snapshots(&self.dir).into_iter().next() else { return Pos::ZERO };
        if self.checked != pos {
            if let Err(error) = snapshot::check(&path) {
                tracing::error!(error = %with_causes(&error), "A snapshot of the state is damaged.");
                return self.trim_floor();
            }
            self.checked = pos;
        }
        pos
    }

    /// Bytes that the next snapshot takes, about.
    pub fn snapshot_bytes(&self) -> u64 {
        self.table.row_bytes()
    }

    /// The newest snapshot's position; zero without one.
    pub fn newest_snapshot(&self) -> Pos {
        snapshots(&self.dir).first().map_or(Pos::ZERO, |(pos, _)| *pos)
    }

    /// Rows of the state.
    pub fn rows(&self) -> u64 {
        self.table.rows()
    }

    /// Bytes of sled's file.
    pub fn bytes(&self) -> u64 {
        self.table.bytes()
    }
}

/// Makes the next [`Store::open`] go back to a snapshot that a log ending at `log_end` can continue:
/// sled's folder is moved aside, and snapshots beyond `log_end` are removed. Call it with the store
/// dropped.
///
/// # Errors
/// [`Error::Io`].
pub fn rewind(dir: &Path, log_end: Pos) -> Result<(), Error> {
    if dir.join("state").exists() {
        move_aside(dir)?;
    }
    for (_, path) in snapshots(dir).into_iter().filter(|(pos, _)| *pos > log_end) {
        fs::remove_file(&path).map_err(at(&path))?;
    }
    // One that came back after a power cut would be of records that are others by then.
    let folder = dir.join("snapshots");
    match sync_folder(&folder) {
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

/// The snapshots in a node's data folder, newest first: their positions and files.
pub fn snapshots(dir: &Path) -> Vec<(Pos, PathBuf)> {
    snapshot::list(&dir.join("snapshots"))
}

/// The newest snapshot in a node's data folder whose position `fits` and that is whole.
pub fn newest_whole(dir: &Path, fits: impl Fn(Pos) -> bool) -> Option<(Pos, PathBuf)> {
    snapshots(dir).into_iter().find(|(pos, path)| fits(*pos) && snapshot::check(path).is_ok())
}

/// What [`verify`] found in a stopped node's folder.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Rows and position, or what is wrong.
    pub state: Result<(u64, Pos), String>,
    /// Newest first: position, and rows or what is wrong.
    pub snapshots: Vec<(Pos, Result<u64, String>)>,
}

/// Checks a stopped node's store and its snapshots; changes nothing.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be read or copied.
pub fn verify(dir: &Path, cache_bytes: u64) -> Result<Verdict, Error> {
    let state = match read(dir, cache_bytes) {
        Ok(opened) => Ok((opened.rows.len() as u64, opened.upto)),
        Err(Error::Failed { reason }) => Err(reason),
        Err(error) => return Err(error),
    };
    let snapshots = snapshots(dir)
        .into_iter()
        .map(|(pos, path)| (pos, snapshot::read(&path).map(|(_, rows)| rows.len() as u64).map_err(|e| with_causes(&e))))
        .collect();
    Ok(Verdict { state, snapshots })
}

/// The rows of a stopped node. sled writes when it opens, so it is given a copy.
///
/// # Errors
/// [`Error::Io`]; [`Error::Failed`] when they are damaged.
pub fn read(dir: &Path, cache_bytes: u64) -> Result<Opened, Error> {
    let copy = Scratch::of(dir, &dir.join("state"))?;
    let (table, rows) = Table::open(&copy.0, cache_bytes).map_err(Error::from)?;
    Ok(Opened { rows, upto: table.upto(), ..Opened::default() })
}

/// A folder that goes when it is dropped. Residents' matters lie in it: it is for nobody else.
struct Scratch(PathBuf);

/// Begins the name of such a folder; behind it stands whose it is.
const SCRATCH: &str = ".citybrain-state-";

impl Scratch {
    /// A copy of this folder: beside the data folder `dir`, or where it finds no room or no leave there in
    /// the folder for temporary files, which may be in memory.
    fn of(dir: &Path, folder: &Path) -> Result<Scratch, Error> {
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let copy = |above: &Path| {
            let copy = Scratch::make(above)?;
            copy_folder(folder, &copy.0).map_err(at(folder))?;
            Ok(copy)
        };
        dir.parent().and_then(|above| copy(above).ok()).map_or_else(|| copy(&std::env::temp_dir()), Ok)
    }

    fn make(above: &Path) -> Result<Scratch, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Scratch::tidy(above);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = above.join(format!("{SCRATCH}{}-{n}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(at(&path))?;
        Ok(Scratch(path))
    }

    /// Removes what processes have left that were killed.
    fn tidy(above: &Path) {
        for item in fs::read_dir(above).into_iter().flatten().flatten() {
            let name = item.file_name();
            let owner = name.to_str().and_then(|n| n.strip_prefix(SCRATCH)?.split('-').next()?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                // Another user's stays his.
                let _ = fs::remove_dir_all(item.path());
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is for its owner alone, and goes with the next.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for item in fs::read_dir(from)? {
        let item = item?;
        let target = to.join(item.file_name());
        if item.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_folder(&item.path(), &target)?;
        } else {
            fs::copy(item.path(), &target)?;
        }
    }
    Ok(())
}

/// Renames `state` to `state.damaged-N` and removes older ones.
fn move_aside(dir: &Path) -> Result<(), Error> {
    let io = at(dir);
    let mut old: Vec<(u32, PathBuf)> = Vec::new();
    for item in fs::read_dir(dir).map_err(io)? {
        let path = item.map_err(io)?.path();
        let name = path.file_name().and_then(|n| n.to_str());
        if let Some(n) = name.and_then(|n| n.strip_prefix("state.damaged-")).and_then(|n| n.parse().ok()) {
            old.push((n, path));
        }
    }
    let n = old.iter().map(|(n, _)| *n).max().unwrap_or(0) + 1;
    fs::rename(dir.join("state"), dir.join(format!("state.damaged-{n}"))).map_err(io)?;
    for (_, path) in old {
        fs::remove_dir_all(path).map_err(io)?;
    }
    Ok(sync_folder(dir)?)
}

/// sled syncs little of what it writes beside its main file.
fn sync_files(dir: &Path) -> Result<(), Error> {
    let io = at(dir);
    for item in fs::read_dir(dir).map_err(io)? {
        File::open(item.map_err(io)?.path()).and_then(|file| file.sync_all()).map_err(io)?;
    }
    Ok(sync_folder(dir)?)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
