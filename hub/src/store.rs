//! sled, and snapshots of what is in it. The only file that names sled.
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
//! # Format
//! In the node's data folder: `state/` (sled), `snapshots/POSITION.snap` (the newest two), and at
//! most one `state.damaged-N/`.
//!
//! In sled, one tree, keys with a prefix of one byte:
//!
//! | prefix | key | value |
//! |---|---|---|
//! | `m` | | position, rows, sum of the rows' hashes, staged pieces, crc32c |
//! | `r` | the row's (long ones hashed) | key is long (1), hash (8), length (4), the first bytes of the row |
//! | `p` | the row's, number (4) | further bytes of a row |
//! | `s` | number (4) | a piece of a list of changes that is too long for one batch |
//!
//! A snapshot: magic (8), version (4), position (8), rows (8), then each row as key length (4), value
//! length (4), key, value; at the end the crc32c (4) of all before. Little-endian but for numbers in keys.
//!
//! # Operation
//! A sled batch is atomic, but it pins memory, so it is kept small. More changes than fit are
//! first staged: their list goes in piece by piece; one small batch makes it valid; then it is
//! carried out batch by batch, again after a crash; one more small batch forgets it.

use citybrain_shared::Pos;
use crc32c::{crc32c, crc32c_append};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

/// A key, and its value; `None` removes it.
pub type Row = (Vec<u8>, Option<Vec<u8>>);
/// Keys and values, ascending by key.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Changes in one sled batch. A batch pins memory that grows out of proportion with its size.
const BATCH_ROWS: usize = 256;
/// A leaf of sled's tree holds 16 values, and must stay below a quarter of sled's segment.
const PIECE_BYTES: usize = 4096;
/// sled's segment, bytes: also the size of its write buffer, of which two may exist.
const SEGMENT_BYTES: usize = 512 * 1024;
/// Longer keys are shortened by a hash: 256 keys lie in an inner node of sled's tree.
const KEY_BYTES: usize = 192;
const SNAPSHOTS_KEPT: usize = 2;
/// 20 ms apart.
const LOCK_TRIES: u32 = 50;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use `{path}`")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is in use by another process")]
    Locked { path: PathBuf },
    /// The store is to be closed and opened again.
    #[error("the state's store has failed: {reason}")]
    Failed { reason: String },
    #[error("`{path}` is not a good snapshot: {reason}")]
    Snapshot { path: PathBuf, reason: String },
}

impl Error {
    /// The disk is full: giving up the log's ballast may help.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
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
    db: sled::Db,
    /// sled's own file, once more, to sync it.
    file: File,
    meta: Meta,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Meta {
    upto: Pos,
    rows: u64,
    sum: u64,
    staged: u32,
}

impl Meta {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.extend_from_slice(&self.upto.0.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.sum.to_le_bytes());
        out.extend_from_slice(&self.staged.to_le_bytes());
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Meta> {
        let mut rest = bytes;
        let meta = Meta {
            upto: Pos(u64::from_le_bytes(take(&mut rest)?)),
            rows: u64::from_le_bytes(take(&mut rest)?),
            sum: u64::from_le_bytes(take(&mut rest)?),
            staged: u32::from_le_bytes(take(&mut rest)?),
        };
        (meta.encode() == bytes).then_some(meta)
    }
}

impl Store {
    /// Opens the store in a node's data folder, or begins one. `cache_bytes`: sled's cache.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Locked`]. Damage is no error: the store is rebuilt from the newest
    /// good snapshot, without one it is empty, at position zero.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<(Store, Opened), Error> {
        let (state, snapshots) = (dir.join("state"), dir.join("snapshots"));
        let io = |source| Error::Io { path: dir.to_owned(), source };
        // Made once sled's folder is there: if it is there alone, sled's folder has gone.
        let known = snapshots.exists();
        let existed = state.join("db").exists();
        let newest = list_snapshots(&snapshots).first().map_or(Pos::ZERO, |(pos, _)| *pos);
        let good = |upto: Pos| upto >= newest || newest_good(&snapshots).is_none_or(|(pos, _)| upto >= pos);

        let reason = if existed || !known {
            match open_sled(&state, cache_bytes) {
                Ok((_, contents)) if !good(contents.meta.upto) => {
                    format!("it ends at {}, before the newest good snapshot", contents.meta.upto)
                }
                Ok((db, contents)) => {
                    let store = Store::new(dir, db, contents.meta)?;
                    if !existed || !known {
                        sync_files(&state)?;
                        fs::create_dir_all(&snapshots).map_err(io)?;
                        sync(dir)?;
                    }
                    let opened = Opened { rows: contents.rows, upto: contents.meta.upto, rebuilt: None };
                    return Ok((store, opened));
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
        let (db, contents) = open_sled(&state, cache_bytes).map_err(|fault| match fault {
            Fault::Error(error) => error,
            Fault::Damaged(reason) => Error::Failed { reason },
        })?;
        let mut store = Store::new(dir, db, contents.meta)?;
        let (upto, rows) = newest_good(&snapshots).unwrap_or_default();
        store.write(rows.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect(), upto)?;
        sync_files(&state)?;
        fs::create_dir_all(&snapshots).map_err(io)?;
        sync(dir)?;
        let rebuilt = match upto {
            Pos::ZERO => format!("The state was made anew, empty, without a snapshot, because {reason}."),
            _ => format!("The state was made anew from the snapshot at {upto}, because {reason}."),
        };
        Ok((store, Opened { rows, upto, rebuilt: Some(rebuilt) }))
    }

    fn new(dir: &Path, db: sled::Db, meta: Meta) -> Result<Store, Error> {
        let path = dir.join("state").join("db");
        let file = File::open(&path).map_err(|source| Error::Io { path, source })?;
        Ok(Store { dir: dir.to_owned(), db, file, meta })
    }

    /// Newest position that is in the rows.
    pub fn upto(&self) -> Pos {
        self.meta.upto
    }

    /// Writes changes that bring the rows to `upto`: all of them or none, durable on return. Of
    /// several changes of one key the last counts.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Failed`]: the rows may be at either position. sled fails from then
    /// on; drop the store and open it again.
    pub fn write(&mut self, rows: Vec<Row>, upto: Pos) -> Result<(), Error> {
        let rows: BTreeMap<Vec<u8>, Option<Vec<u8>>> = rows.into_iter().collect();
        let path = self.dir.join("state");
        let meta = quietly(|| write_rows(&self.db, self.meta, &rows, upto))
            .map_err(|reason| Error::Failed { reason })?
            .map_err(|error| from_sled(&path, error))?;
        self.file.sync_data().map_err(|source| Error::Io { path, source })?;
        self.meta = meta;
        Ok(())
    }

    /// Writes all rows to a snapshot file and keeps the newest two. `upto` must be where the rows
    /// are: the position of the last [`Store::write`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Failed`]; the older snapshots are untouched then.
    pub fn snapshot(&mut self, upto: Pos) -> Result<Snapshot, Error> {
        assert_eq!(upto, self.meta.upto, "a snapshot is of what was written");
        let dir = self.dir.join("snapshots");
        let path = snapshot_path(&dir, upto);
        let temporary = path.with_extension("tmp");
        let io = |source| Error::Io { path: path.clone(), source };
        let written = (|| {
            let mut out = SnapshotFile::create(&temporary, upto, self.meta.rows).map_err(io)?;
            let all = quietly(|| each_row(&self.db, |key, value| out.put_row(key, value).map_err(io)));
            match all {
                Ok(Ok(_)) => {}
                Ok(Err(Fault::Error(error))) => return Err(error),
                Ok(Err(Fault::Damaged(reason))) | Err(reason) => return Err(Error::Failed { reason }),
            }
            let bytes = out.finish().map_err(io)?;
            fs::rename(&temporary, &path).map_err(io)?;
            sync(&dir)?;
            Ok(bytes)
        })();
        let bytes = written.inspect_err(|_| {
            // Best effort: half a file on a full disk is in the way.
            let _ = fs::remove_file(&temporary);
        })?;
        for (_, old) in list_snapshots(&dir).into_iter().skip(SNAPSHOTS_KEPT) {
            fs::remove_file(&old).map_err(|source| Error::Io { path: old, source })?;
        }
        Ok(Snapshot { pos: upto, rows: self.meta.rows, bytes, trim_to: self.trim_floor() })
    }

    /// The older snapshot's position: what is behind it must stay in the log. Zero without two.
    pub fn trim_floor(&self) -> Pos {
        list_snapshots(&self.dir.join("snapshots")).get(SNAPSHOTS_KEPT - 1).map_or(Pos::ZERO, |(pos, _)| *pos)
    }

    /// The newest snapshot's position; zero without one.
    pub fn newest_snapshot(&self) -> Pos {
        list_snapshots(&self.dir.join("snapshots")).first().map_or(Pos::ZERO, |(pos, _)| *pos)
    }

    /// Rows of the state.
    pub fn rows(&self) -> u64 {
        self.meta.rows
    }

    /// Bytes of sled's file.
    pub fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.len())
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
    for (_, path) in list_snapshots(&dir.join("snapshots")).into_iter().filter(|(pos, _)| *pos > log_end) {
        fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
    }
    Ok(())
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
    let snapshots = list_snapshots(&dir.join("snapshots"))
        .into_iter()
        .map(|(pos, path)| (pos, read_snapshot(&path).map(|(_, rows)| rows.len() as u64).map_err(|e| e.to_string())))
        .collect();
    Ok(Verdict { state, snapshots })
}

/// Makes a stopped node's store anew from its newest good snapshot; the old one is moved aside.
///
/// # Errors
/// As [`Store::open`].
pub fn rebuild(dir: &Path, cache_bytes: u64) -> Result<Opened, Error> {
    if dir.join("state").exists() {
        move_aside(dir)?;
    }
    Ok(Store::open(dir, cache_bytes)?.1)
}

/// The rows of a stopped node. sled writes when it opens, so it is given a copy.
///
/// # Errors
/// [`Error::Io`]; [`Error::Failed`] when they are damaged.
pub fn read(dir: &Path, cache_bytes: u64) -> Result<Opened, Error> {
    let state = dir.join("state");
    let copy = Scratch::new()?;
    copy_folder(&state, &copy.0).map_err(|source| Error::Io { path: state.clone(), source })?;
    match open_sled(&copy.0, cache_bytes) {
        Ok((_, contents)) => Ok(Opened { rows: contents.rows, upto: contents.meta.upto, rebuilt: None }),
        Err(Fault::Error(error)) => Err(error),
        Err(Fault::Damaged(reason)) => Err(Error::Failed { reason }),
    }
}

/// A folder that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("citybrain-state-{}-{n}", std::process::id()));
        fs::create_dir(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is a copy in the folder for temporary files.
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

struct Contents {
    meta: Meta,
    rows: Rows,
}

enum Fault {
    /// The disk or the rights are in the way: nothing is known to be wrong with the data.
    Error(Error),
    /// As the end of a sentence that begins with "because".
    Damaged(String),
}

/// sled lets go of its lock a moment after it was dropped.
fn open_sled(path: &Path, cache_bytes: u64) -> Result<(sled::Db, Contents), Fault> {
    let mut tries = 0;
    loop {
        match open_sled_once(path, cache_bytes) {
            Err(Fault::Error(Error::Locked { .. })) if tries < LOCK_TRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

fn open_sled_once(path: &Path, cache_bytes: u64) -> Result<(sled::Db, Contents), Fault> {
    let path = path.to_owned();
    // A thread of its own: a panic deep in sled leaves nothing of ours half done.
    let opened = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                quietly(|| {
                    let db = sled::Config::new()
                        .path(&path)
                        .cache_capacity(cache_bytes)
                        .segment_size(SEGMENT_BYTES)
                        .flush_every_ms(None)
                        .mode(sled::Mode::HighThroughput)
                        .open()
                        .map_err(|error| fault(&path, error))?;
                    finish_staged(&db).map_err(|error| fault(&path, error))?;
                    let contents = load(&db)?;
                    Ok((db, contents))
                })
            })
            .join()
    });
    match opened {
        Ok(Ok(result)) => result,
        Ok(Err(reason)) => Err(Fault::Damaged(format!("opening it failed: {reason}"))),
        Err(_) => Err(Fault::Damaged("opening it failed".to_owned())),
    }
}

fn fault(path: &Path, error: sled::Error) -> Fault {
    use io::ErrorKind::*;
    match from_sled(path, error) {
        Error::Io { path, source } => match source.kind() {
            StorageFull | PermissionDenied | ReadOnlyFilesystem | QuotaExceeded | OutOfMemory => {
                Fault::Error(Error::Io { path, source })
            }
            _ => Fault::Damaged(format!("opening it failed: {source}")),
        },
        Error::Failed { reason } => Fault::Damaged(format!("opening it failed: {reason}")),
        other => Fault::Error(other),
    }
}

fn from_sled(path: &Path, error: sled::Error) -> Error {
    match error {
        // sled has no variant of its own for this.
        sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            Error::Locked { path: path.to_owned() }
        }
        sled::Error::Io(source) => Error::Io { path: path.to_owned(), source },
        other => Error::Failed { reason: other.to_string() },
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` and makes a panic in it a sentence instead of a message on stderr.
fn quietly<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // sled's own threads panic along with it, on the same damage.
            let of_sled = std::thread::current().name().is_some_and(|name| name.starts_with("sled-"));
            if !of_sled && !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    QUIET.set(false);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        text.unwrap_or_else(|| "a panic without words".to_owned()).lines().next().unwrap_or_default().to_owned()
    })
}

/// Reads and checks everything.
fn load(db: &sled::Db) -> Result<Contents, Fault> {
    let mut rows = Vec::new();
    let meta = each_row(db, |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        Ok(())
    })?;
    // Shortened keys do not sort as the whole ones do.
    rows.sort_unstable();
    Ok(Contents { meta, rows })
}

/// Shows every row to `see`, and checks them: each as it comes, their number and sum at the end.
fn each_row(db: &sled::Db, mut see: impl FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<Meta, Fault> {
    let sled = |error| fault(Path::new("state"), error);
    let bad = |what: &str| Fault::Damaged(format!("its check failed: {what}"));
    let Some(meta) = db.get(META).map_err(sled)? else {
        return if db.is_empty() { Ok(Meta::default()) } else { Err(bad("it has rows and no position")) };
    };
    let meta = Meta::decode(&meta).ok_or_else(|| bad("its position does not decode"))?;
    let (mut rows, mut sum) = (0_u64, 0_u64);
    let mut blob = Vec::new();
    for item in db.scan_prefix(b"r") {
        let (stored_key, first) = item.map_err(sled)?;
        let stored_key = &stored_key[1..];
        let head = Head::decode(&first).ok_or_else(|| bad("a row does not decode"))?;
        blob.clear();
        blob.extend_from_slice(&first[Head::BYTES..]);
        for n in 1..head.pieces() {
            let piece = db.get(piece_key(stored_key, n)).map_err(sled)?;
            blob.extend_from_slice(&piece.ok_or_else(|| bad("a row has lost a piece"))?);
        }
        if blob.len() != head.len as usize || hash(stored_key, &blob) != head.hash {
            return Err(bad("a row is not what was written"));
        }
        rows += 1;
        sum = sum.wrapping_add(head.hash);
        let (key, value) = if head.long {
            blob.split_first_chunk()
                .and_then(|(len, rest)| rest.split_at_checked(u32::from_le_bytes(*len) as usize))
                .ok_or_else(|| bad("a row does not decode"))?
        } else {
            (stored_key, blob.as_slice())
        };
        see(key, value).map_err(Fault::Error)?;
    }
    if (rows, sum) != (meta.rows, meta.sum) {
        return Err(bad("rows are missing, or are older than its position"));
    }
    Ok(meta)
}

const META: &[u8] = b"m";

/// The beginning of a stored row.
struct Head {
    long: bool,
    hash: u64,
    len: u32,
}

impl Head {
    const BYTES: usize = 13;

    fn decode(bytes: &[u8]) -> Option<Head> {
        let mut rest = bytes;
        let [long] = take(&mut rest)?;
        Some(Head {
            long: long == 1,
            hash: u64::from_le_bytes(take(&mut rest)?),
            len: u32::from_le_bytes(take(&mut rest)?),
        })
    }

    fn pieces(&self) -> u32 {
        self.len.div_ceil(PIECE_BYTES as u32).max(1)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn hash(stored_key: &[u8], blob: &[u8]) -> u64 {
    xxh3_64_with_seed(blob, xxh3_64(stored_key))
}

fn stored_key(key: &[u8]) -> Vec<u8> {
    if key.len() <= KEY_BYTES {
        return key.to_vec();
    }
    let mut short = key[..KEY_BYTES].to_vec();
    short.extend_from_slice(&xxh3_128(key).to_be_bytes());
    short
}

fn row_key(stored: &[u8]) -> Vec<u8> {
    [b"r", stored].concat()
}

fn piece_key(stored: &[u8], n: u32) -> Vec<u8> {
    [b"p", stored, &n.to_be_bytes()].concat()
}

fn staged_key(n: u32) -> Vec<u8> {
    [b"s".as_slice(), &n.to_be_bytes()].concat()
}

/// One row's changes, and what they do to count and sum.
fn change(
    db: &sled::Db,
    key: &[u8],
    value: Option<&[u8]>,
    meta: &mut Meta,
    changes: &mut Vec<Row>,
) -> sled::Result<()> {
    let stored = stored_key(key);
    let old = db.get(row_key(&stored))?.and_then(|bytes| Head::decode(&bytes));
    let mut pieces = 0;
    if let Some(old) = &old {
        meta.rows -= 1;
        meta.sum = meta.sum.wrapping_sub(old.hash);
    }
    if let Some(value) = value {
        let long = key.len() > KEY_BYTES;
        let blob = if long { [&(key.len() as u32).to_le_bytes(), key, value].concat() } else { value.to_vec() };
        let head = Head { long, hash: hash(&stored, &blob), len: blob.len() as u32 };
        meta.rows += 1;
        meta.sum = meta.sum.wrapping_add(head.hash);
        pieces = head.pieces();
        let mut chunks = blob.chunks(PIECE_BYTES);
        let mut first = vec![u8::from(long)];
        first.extend_from_slice(&head.hash.to_le_bytes());
        first.extend_from_slice(&head.len.to_le_bytes());
        first.extend_from_slice(chunks.next().unwrap_or_default());
        changes.push((row_key(&stored), Some(first)));
        for (n, chunk) in (1..).zip(chunks) {
            changes.push((piece_key(&stored, n), Some(chunk.to_vec())));
        }
    } else if old.is_some() {
        changes.push((row_key(&stored), None));
    }
    for n in pieces.max(1)..old.map_or(0, |old| old.pieces()) {
        changes.push((piece_key(&stored, n), None));
    }
    Ok(())
}

fn batch(changes: impl IntoIterator<Item = Row>) -> sled::Batch {
    let mut batch = sled::Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    batch
}

fn write_rows(db: &sled::Db, meta: Meta, rows: &BTreeMap<Vec<u8>, Option<Vec<u8>>>, upto: Pos) -> sled::Result<Meta> {
    let mut meta = Meta { upto, ..meta };
    let mut changes = Vec::new();
    for (key, value) in rows {
        change(db, key, value.as_deref(), &mut meta, &mut changes)?;
    }
    if changes.len() <= BATCH_ROWS {
        changes.push((META.to_vec(), Some(meta.encode())));
        db.apply_batch(batch(changes))?;
        db.flush()?;
        return Ok(meta);
    }
    let list = encode_list(&changes);
    drop(changes);
    for (numbers, pieces) in (0..).step_by(BATCH_ROWS).zip(list.chunks(PIECE_BYTES * BATCH_ROWS)) {
        let staged = (numbers..).zip(pieces.chunks(PIECE_BYTES)).map(|(n, p)| (staged_key(n), Some(p.to_vec())));
        db.apply_batch(batch(staged))?;
    }
    meta.staged = list.len().div_ceil(PIECE_BYTES) as u32;
    db.insert(META, meta.encode())?;
    carry_out(db, meta, &list)?;
    db.flush()?;
    Ok(Meta { staged: 0, ..meta })
}

fn encode_list(changes: &[Row]) -> Vec<u8> {
    let mut list = Vec::new();
    for (key, value) in changes {
        list.extend_from_slice(&(key.len() as u32).to_le_bytes());
        let len = value.as_ref().map_or(u32::MAX, |v| v.len() as u32);
        list.extend_from_slice(&len.to_le_bytes());
        list.extend_from_slice(key);
        list.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    list
}

fn decode_list(list: &[u8]) -> Option<Vec<Row>> {
    let mut rest = list;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let key_len = u32::from_le_bytes(take(&mut rest)?) as usize;
        let len = u32::from_le_bytes(take(&mut rest)?);
        let (key, tail) = rest.split_at_checked(key_len)?;
        let (value, tail) = tail.split_at_checked(if len == u32::MAX { 0 } else { len as usize })?;
        changes.push((key.to_vec(), (len != u32::MAX).then(|| value.to_vec())));
        rest = tail;
    }
    Some(changes)
}

/// Carries out a staged list. Any part of it may have been done before: each change is whole in itself.
fn carry_out(db: &sled::Db, meta: Meta, list: &[u8]) -> sled::Result<()> {
    let changes =
        decode_list(list).ok_or_else(|| sled::Error::Unsupported("staged changes do not decode".to_owned()))?;
    for some in changes.chunks(BATCH_ROWS) {
        db.apply_batch(batch(some.iter().cloned()))?;
    }
    db.insert(META, Meta { staged: 0, ..meta }.encode())?;
    forget_staged(db)
}

fn forget_staged(db: &sled::Db) -> sled::Result<()> {
    loop {
        let keys: Vec<_> = db.scan_prefix(b"s").keys().take(BATCH_ROWS).collect::<sled::Result<_>>()?;
        if keys.is_empty() {
            return Ok(());
        }
        db.apply_batch(batch(keys.into_iter().map(|key| (key.to_vec(), None))))?;
    }
}

/// At start: a valid list is carried out once more, any other is forgotten.
fn finish_staged(db: &sled::Db) -> sled::Result<()> {
    if let Some(meta) = db.get(META)?.and_then(|bytes| Meta::decode(&bytes))
        && meta.staged > 0
    {
        let mut list = Vec::new();
        for n in 0..meta.staged {
            let piece = db.get(staged_key(n))?;
            list.extend_from_slice(&piece.ok_or_else(|| sled::Error::Unsupported("staged changes are gone".into()))?);
        }
        carry_out(db, meta, &list)?;
        db.flush()?;
    }
    forget_staged(db)
}

/// Renames `state` to `state.damaged-N` and removes older ones.
fn move_aside(dir: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: dir.to_owned(), source };
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
    sync(dir)
}

fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|source| Error::Io { path: dir.to_owned(), source })
}

/// sled syncs little of what it writes beside its main file.
fn sync_files(dir: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: dir.to_owned(), source };
    for item in fs::read_dir(dir).map_err(io)? {
        File::open(item.map_err(io)?.path()).and_then(|file| file.sync_all()).map_err(io)?;
    }
    sync(dir)
}

fn snapshot_path(dir: &Path, pos: Pos) -> PathBuf {
    dir.join(format!("{:020}.snap", pos.0))
}

/// Newest first; none if the folder cannot be read.
fn list_snapshots(dir: &Path) -> Vec<(Pos, PathBuf)> {
    let mut all: Vec<(Pos, PathBuf)> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|item| {
            let path = item.ok()?.path();
            let pos = path.file_stem()?.to_str()?.parse().ok()?;
            (path.extension()? == "snap").then_some((Pos(pos), path))
        })
        .collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all
}

/// The rows of the newest snapshot that is good.
fn newest_good(dir: &Path) -> Option<(Pos, Rows)> {
    list_snapshots(dir).into_iter().find_map(|(_, path)| match read_snapshot(&path) {
        Ok(good) => Some(good),
        Err(error) => {
            tracing::error!(error = %error, "A snapshot of the state is damaged.");
            None
        }
    })
}

const SNAPSHOT_MAGIC: [u8; 8] = *b"cbrainsn";
const SNAPSHOT_VERSION: u32 = 1;

/// A snapshot file that is being written.
struct SnapshotFile {
    out: BufWriter<File>,
    crc: u32,
    bytes: u64,
}

impl SnapshotFile {
    fn create(path: &Path, upto: Pos, rows: u64) -> io::Result<SnapshotFile> {
        let out = BufWriter::with_capacity(64 * 1024, File::create(path)?);
        let mut file = SnapshotFile { out, crc: 0, bytes: 0 };
        file.put(&SNAPSHOT_MAGIC)?;
        file.put(&SNAPSHOT_VERSION.to_le_bytes())?;
        file.put(&upto.0.to_le_bytes())?;
        file.put(&rows.to_le_bytes())?;
        Ok(file)
    }

    fn put(&mut self, part: &[u8]) -> io::Result<()> {
        self.crc = crc32c_append(self.crc, part);
        self.bytes += part.len() as u64;
        self.out.write_all(part)
    }

    fn put_row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.put(&(key.len() as u32).to_le_bytes())?;
        self.put(&(value.len() as u32).to_le_bytes())?;
        self.put(key)?;
        self.put(value)
    }

    /// Syncs it and returns its size.
    fn finish(mut self) -> io::Result<u64> {
        self.put(&self.crc.to_le_bytes())?;
        self.out.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        Ok(self.bytes)
    }
}

/// Position and rows of a snapshot file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Snapshot`] when it is damaged.
pub fn read_snapshot(path: &Path) -> Result<(Pos, Rows), Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| BufReader::new(file).read_to_end(&mut bytes))
        .map_err(|source| Error::Io { path: path.to_owned(), source })?;
    decode_snapshot(&bytes)
        .ok_or_else(|| Error::Snapshot { path: path.to_owned(), reason: "its checksum does not hold".to_owned() })
}

fn decode_snapshot(bytes: &[u8]) -> Option<(Pos, Rows)> {
    let (mut rest, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c(rest) != u32::from_le_bytes(*crc)
        || take(&mut rest)? != SNAPSHOT_MAGIC
        || u32::from_le_bytes(take(&mut rest)?) != SNAPSHOT_VERSION
    {
        return None;
    }
    let upto = Pos(u64::from_le_bytes(take(&mut rest)?));
    let n = u64::from_le_bytes(take(&mut rest)?);
    let mut rows = Vec::new();
    for _ in 0..n {
        let key_len = u32::from_le_bytes(take(&mut rest)?) as usize;
        let len = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (key, tail) = rest.split_at_checked(key_len)?;
        let (value, tail) = tail.split_at_checked(len)?;
        rows.push((key.to_vec(), value.to_vec()));
        rest = tail;
    }
    rows.sort_unstable();
    rest.is_empty().then_some((upto, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CACHE: u64 = 1 << 20;
    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn open(dir: &Path) -> (Store, Opened) {
        Store::open(dir, CACHE).unwrap()
    }

    fn row(key: &str, value: &[u8]) -> Row {
        (key.as_bytes().to_vec(), Some(value.to_vec()))
    }

    fn db(dir: &Path) -> PathBuf {
        dir.join("state").join("db")
    }

    /// A store with 300 rows at 20, snapshots at 10 and 20, and one more row at 25.
    fn filled(dir: &Path) -> Model {
        let (mut store, opened) = open(dir);
        assert_eq!(opened, Opened::default());
        let mut model = Model::new();
        for upto in [10, 20, 25] {
            let n = if upto == 25 { 1 } else { 300 };
            let rows: Vec<Row> = (0..n).map(|i| row(&format!("row/{i}"), format!("{upto} {i}").as_bytes())).collect();
            model.extend(rows.iter().cloned().map(|(k, v)| (k, v.unwrap())));
            store.write(rows, Pos(upto)).unwrap();
            if upto < 25 {
                store.snapshot(Pos(upto)).unwrap();
            }
        }
        model
    }

    fn at(dir: &Path) -> (u64, usize, Option<String>) {
        let (_, opened) = open(dir);
        (opened.upto.0, opened.rows.len(), opened.rebuilt)
    }

    #[test]
    fn rows_and_their_position_are_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let model = filled(dir.path());
        let (mut store, opened) = open(dir.path());
        assert_eq!((opened.upto, opened.rebuilt), (Pos(25), None));
        assert_eq!(opened.rows.into_iter().collect::<Model>(), model);
        assert_eq!(store.trim_floor(), Pos(10));
        let third = store.snapshot(Pos(25)).unwrap();
        assert_eq!((third.rows, third.trim_to), (300, Pos(20)));
        assert_eq!(list_snapshots(&dir.path().join("snapshots")).len(), 2);
    }

    #[test]
    fn a_row_of_256_kib_and_a_key_of_many_bytes_are_kept_without_sleds_unsynced_files() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path());
        let keys = ["k".repeat(1000), "k".repeat(1001), "short".to_owned()];
        for (i, key) in keys.iter().enumerate() {
            store.write((0..20).map(|n| row(&format!("{key}{n}"), &vec![n; 256 * 1024])).collect(), Pos(1)).unwrap();
            store.write(vec![row(key, &vec![i as u8; 256 * 1024 - i]), row("empty", b"")], Pos(2)).unwrap();
        }
        store.write((0..20).map(|n| (format!("short{n}").into_bytes(), None)).collect(), Pos(3)).unwrap();
        store.write(vec![row("short", b"now it is short")], Pos(4)).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("state/blobs")).map_or(0, |files| files.count()), 0);
        drop(store);
        let (store, opened) = open(dir.path());
        assert_eq!((opened.rebuilt, opened.upto, opened.rows.len()), (None, Pos(4), 44));
        let rows: Model = opened.rows.into_iter().collect();
        assert_eq!(rows[keys[1].as_bytes()], vec![1; 256 * 1024 - 1]);
        assert_eq!(rows[b"short".as_slice()], b"now it is short");
        let left: Vec<_> = store.db.scan_prefix(b"pshort").keys().map(Result::unwrap).collect();
        assert!(left.is_empty(), "pieces of removed rows are removed");
    }

    #[test]
    fn a_deleted_folder_is_made_anew_from_the_newest_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        fs::remove_dir_all(dir.path().join("state")).unwrap();
        let (upto, rows, rebuilt) = at(dir.path());
        assert_eq!((upto, rows), (20, 300));
        assert_eq!(rebuilt.unwrap(), "The state was made anew from the snapshot at 20, because its folder was gone.");
        assert_eq!(at(dir.path()), (20, 300, None));
    }

    #[test]
    fn a_deleted_folder_without_a_snapshot_is_told_too() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).0.write(vec![row("a", b"b")], Pos(3)).unwrap();
        fs::remove_dir_all(dir.path().join("state")).unwrap();
        let (upto, rows, rebuilt) = at(dir.path());
        assert_eq!((upto, rows), (0, 0));
        assert!(rebuilt.unwrap().contains("without a snapshot"));
    }

    #[test]
    fn a_store_rebuilt_by_hand_begins_at_the_newest_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let opened = rebuild(dir.path(), CACHE).unwrap();
        assert_eq!((opened.upto, opened.rows.len(), opened.rebuilt.is_some()), (Pos(20), 300, true));
        assert!(dir.path().join("state.damaged-1").exists());
    }

    #[test]
    fn a_damaged_newest_snapshot_does_not_condemn_a_good_state() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        fs::write(snapshot_path(&dir.path().join("snapshots"), Pos(99)), b"half of one").unwrap();
        assert_eq!(at(dir.path()), (25, 300, None));
    }

    #[test]
    fn a_damaged_newest_snapshot_gives_way_to_the_older() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let newest = snapshot_path(&dir.path().join("snapshots"), Pos(20));
        let mut bytes = fs::read(&newest).unwrap();
        bytes[100] ^= 1;
        fs::write(&newest, bytes).unwrap();
        fs::remove_dir_all(dir.path().join("state")).unwrap();
        assert_eq!(at(dir.path()).0, 10);
    }

    #[test]
    fn a_sled_that_went_back_behind_the_newest_snapshot_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path());
        store.write(vec![row("a", b"1")], Pos(1)).unwrap();
        drop(store);
        let old = Scratch::new().unwrap();
        copy_folder(&dir.path().join("state"), &old.0).unwrap();
        let (mut store, _) = open(dir.path());
        store.write(vec![row("a", b"2")], Pos(2)).unwrap();
        store.snapshot(Pos(2)).unwrap();
        drop(store);
        fs::remove_dir_all(dir.path().join("state")).unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        copy_folder(&old.0, &dir.path().join("state")).unwrap();
        let (upto, _, rebuilt) = at(dir.path());
        assert_eq!(upto, 2);
        assert!(rebuilt.unwrap().contains("before the newest good snapshot"));
    }

    #[test]
    fn a_row_changed_behind_our_back_fails_the_check() {
        let dir = tempfile::tempdir().unwrap();
        for how in 0..4 {
            let model = filled(dir.path());
            let (store, _) = open(dir.path());
            match how {
                0 => drop(store.db.remove(row_key(b"row/7")).unwrap()),
                1 => drop(store.db.insert(row_key(b"row/7"), b"short".as_slice()).unwrap()),
                2 => drop(store.db.remove(META).unwrap()),
                _ => {
                    // Good in itself, but not what was written last.
                    let mut changes = Vec::new();
                    change(&store.db, b"row/7", Some(b"10 7"), &mut Meta { rows: 9, ..Meta::default() }, &mut changes)
                        .unwrap();
                    store.db.apply_batch(batch(changes)).unwrap();
                }
            }
            store.db.flush().unwrap();
            drop(store);
            let (_, opened) = open(dir.path());
            assert!(opened.rebuilt.unwrap().contains("its check failed"));
            assert_eq!((opened.upto, opened.rows.len()), (Pos(20), model.len()));
            fs::remove_dir_all(dir.path().join("state")).unwrap();
            fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
        }
        let aside: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(aside, ["state.damaged-4"], "only the newest is kept");
    }

    #[test]
    fn a_staged_list_is_carried_out_after_a_crash_and_half_of_one_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        let db = &store.db;
        let mut meta = Meta { upto: Pos(9), ..Meta::default() };
        let mut changes = Vec::new();
        for i in 0..500 {
            change(db, format!("{i}").as_bytes(), Some(&[7; 50]), &mut meta, &mut changes).unwrap();
        }
        let list = encode_list(&changes);
        let pieces: Vec<Row> =
            (0..).zip(list.chunks(PIECE_BYTES)).map(|(n, p)| (staged_key(n), Some(p.to_vec()))).collect();
        meta.staged = pieces.len() as u32;
        db.apply_batch(batch(pieces.clone())).unwrap();
        db.insert(META, meta.encode()).unwrap();
        // The crash comes when some of it has been carried out.
        db.apply_batch(batch(changes[..100].iter().cloned())).unwrap();
        db.flush().unwrap();
        drop(store);
        let (store, opened) = open(dir.path());
        assert_eq!((opened.upto, opened.rows.len(), opened.rebuilt), (Pos(9), 500, None));
        // The next crash comes before a list was valid.
        store.db.apply_batch(batch(pieces)).unwrap();
        store.db.flush().unwrap();
        drop(store);
        let (store, opened) = open(dir.path());
        assert_eq!((opened.upto, opened.rows.len(), opened.rebuilt), (Pos(9), 500, None));
        assert_eq!(store.db.scan_prefix(b"s").count(), 0);
    }

    #[test]
    fn a_locked_store_is_not_taken_for_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let _store = open(dir.path());
        assert!(matches!(open_sled_once(&dir.path().join("state"), CACHE), Err(Fault::Error(Error::Locked { .. }))));
        assert!(db(dir.path()).exists());
    }

    #[test]
    fn looking_at_a_stopped_store_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let model = filled(dir.path());
        let bytes = fs::read(db(dir.path())).unwrap();
        let opened = read(dir.path(), CACHE).unwrap();
        assert_eq!((opened.rows.into_iter().collect::<Model>(), opened.upto), (model, Pos(25)));
        let verdict = verify(dir.path(), CACHE).unwrap();
        assert_eq!(
            verdict,
            Verdict { state: Ok((300, Pos(25))), snapshots: vec![(Pos(20), Ok(300)), (Pos(10), Ok(300))] }
        );
        assert_eq!(fs::read(db(dir.path())).unwrap(), bytes);
        fs::write(db(dir.path()), &bytes[..bytes.len() / 2]).unwrap();
        fs::write(snapshot_path(&dir.path().join("snapshots"), Pos(10)), b"?").unwrap();
        let verdict = verify(dir.path(), CACHE).unwrap();
        assert!(verdict.state.is_err() || verdict.state.is_ok_and(|(_, upto)| upto < Pos(25)));
        assert!(verdict.snapshots[0].1.is_ok() && verdict.snapshots[1].1.is_err());
    }

    #[test]
    fn a_row_that_cannot_be_snapshotted_leaves_the_older_snapshots() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let (mut store, _) = open(dir.path());
        store.db.remove(row_key(b"row/7")).unwrap();
        assert!(matches!(store.snapshot(Pos(25)), Err(Error::Failed { .. })));
        assert_eq!(store.trim_floor(), Pos(10));
        assert!(!snapshot_path(&dir.path().join("snapshots"), Pos(25)).with_extension("tmp").exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        #[test]
        fn a_damaged_file_is_good_or_older_or_made_anew_but_never_wrong(
            at in any::<prop::sample::Index>(), how in 0..4) {
            let dir = tempfile::tempdir().unwrap();
            let model = filled(dir.path());
            let path = db(dir.path());
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] ^= 0x10,
                1 => bytes[at..].iter_mut().take(4096).for_each(|b| *b = 0),
                2 => bytes.truncate(at),
                _ => bytes.truncate(bytes.len() - at.min(4000)),
            }
            fs::write(&path, bytes).unwrap();
            let (mut store, opened) = open(dir.path());
            let rows: Model = opened.rows.into_iter().collect();
            match (&opened.rebuilt, opened.upto) {
                (_, Pos(25)) => prop_assert_eq!(&rows, &model),
                (_, Pos(20)) => {
                    prop_assert_eq!(rows.len(), 300);
                    prop_assert_eq!(&rows[b"row/0".as_slice()], b"20 0");
                    prop_assert!(opened.rebuilt.is_none() || dir.path().join("state.damaged-1").exists());
                }
                other => prop_assert!(false, "{:?}", other),
            }
            store.write(vec![row("new", b"1")], Pos(26)).unwrap();
        }

        #[test]
        fn the_store_agrees_with_a_map(
            writes in prop::collection::vec((prop::collection::vec((0..40_u8, prop::option::of(0..9000_usize)), 0..60), any::<bool>()), 1..8)) {
            let dir = tempfile::tempdir().unwrap();
            let (mut store, _) = open(dir.path());
            let mut model = Model::new();
            for (upto, (rows, reopen)) in (1..).zip(writes) {
                let rows: Vec<Row> = rows
                    .into_iter()
                    .map(|(key, len)| (vec![b'k', key], len.map(|len| vec![key; len])))
                    .collect();
                for (key, value) in rows.clone() {
                    match value {
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
                store.write(rows, Pos(upto)).unwrap();
                if reopen {
                    drop(store);
                    let (again, opened) = open(dir.path());
                    prop_assert_eq!((opened.upto, opened.rebuilt), (Pos(upto), None));
                    prop_assert_eq!(opened.rows.into_iter().collect::<Model>(), model.clone());
                    store = again;
                }
            }
        }
    }
}
