//! The log: the truth of a node. One writer, many readers, no async.
//!
//! # Constraints
//! - What [`Log::commit`] returned for is on disk; what readers see has been committed.
//! - A group is there whole or not at all.
//! - A position is never given to another record, and never shifts, whatever is damaged.
//! - Damage is told with its place; the rest stays readable. Bad bytes are never returned as good.
//! - After a failed write or fsync nothing is promised until [`Log::reopen`]: an fsync that failed
//!   once may succeed the next time without having written anything.
//! - Memory: the index of the newest segment (bounded by the segment's size), about 1.5 bytes a
//!   record of the others once they are asked by key, the tail ([`Options::tail_bytes`]), and what
//!   is not committed yet.
//!
//! # Format
//! A folder with one file a segment, named by its first position (20 digits, `.log`), little-endian:
//! a head of 32 bytes (`format::Head`), then entries:
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 4 | length of the record; bit 31: ends its group; bit 30: first after an fsync |
//! | 4 | 4 | crc32c of record, position, the four bytes above, chain, and the segment's salt |
//! | 8 | 8 | chain hash (`format::chain`) |
//! | 16 | | the record |
//!
//! Beside each sealed segment lies its index (`.idx`, `index.rs`), which can always be rebuilt.
//!
//! # Operation
//! `append` encodes into a buffer, `write` hands the buffer to the kernel, `commit` also syncs it,
//! then publishes: it becomes visible to readers, and a copy goes into the tail. A segment that
//! has reached its size is then sealed; its index is written by a thread of its own.
//!
//! Behind the newest entry lie zeros ([`ROOM_BYTES`]), written ahead by small commits: a commit into
//! them changes neither the file's length nor its blocks, so that its fsync is one write to the disk
//! and not two, one behind the other. No entry begins with zeros, so they end the log as the file's
//! end does. A sealed segment has none.
//!
//! At start only the newest segment is read. A torn write can only have hit what was written after
//! the last fsync, and the first entry after an fsync says so: whatever is bad before the last
//! such entry is damage, and is kept as a hole; what is bad behind it, and the rest of its
//! group and all that follows, is the torn part of the last commit, and is cut.
//!
//! | module | what it owns |
//! |---|---|
//! | [`mod@format`] | heads, entries and the chain hash, as bytes |
//! | [`folder`] | which segments there are, what they hold at a start, and who may write |
//! | [`segment`], [`walk`] | one file, and its entries one after the other |
//! | [`index`] | where a key's and a lane's records are |
//! | [`reader`], [`tail`] | what is committed, from files and from memory |
//! | [`disk`] | writes and fsyncs, and in tests a disk that fails |
//! | [`ballast`] | room that is kept for the last words on a full disk |

mod ballast;
mod disk;
mod folder;
mod format;
mod index;
mod reader;
mod segment;
mod tail;
mod walk;

pub use ballast::release as release_ballast;
pub use folder::{begin, hold, is_in_use, open_read_only};
pub use format::{RECORD_BYTES_MAX, RECORD_BYTES_MIN};
pub use reader::{Entry, Reader};

use crate::files::{self, at, sync_folder};
use bytes::Bytes;
use citybrain_shared::Pos;
use citybrain_shared::words::with_causes;
#[cfg(test)]
pub(crate) use disk::test::Faulty;
pub(crate) use disk::{Disk, Real};

use folder::{Loaded, create, list, load, lock, remove, special};
use format::{HEAD_BYTES, Head};
use index::{About, Fresh, Hole};
use parking_lot::RwLock;
use reader::Shared;
use segment::{Sealed, path_of};
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tail::Chunk;

/// Room that the buffer keeps between commits: more than what a busy node commits at once, less than
/// what one large batch once needed.
const BUFFER_BYTES_KEPT: usize = 512 * 1024;

/// Zeros that are written ahead, bytes: one in about 150 commits of a small record makes room for the
/// others. Half of it is no slower, sixteen times as much no faster.
const ROOM_BYTES: u64 = 64 * 1024;
/// A commit larger than this, bytes, makes no room: it changes the file's length by itself, and what
/// that costs is shared by many records.
const ROOM_COMMIT_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug)]
pub struct Options {
    /// A segment is sealed after the commit that reaches this size, bytes.
    pub segment_bytes: u64,
    /// The newest committed records are kept in memory up to this size, bytes.
    pub tail_bytes: usize,
    /// A file of this size is kept to be given up when the disk is full, bytes; 0: none.
    pub ballast_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 * 1024 * 1024,
            tail_bytes: citybrain_shared::limits::LOG_TAIL_BYTES,
            ballast_bytes: 0,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] files::Error),
    /// The records after `after` up to and including `upto` are lost. Read on after `upto`.
    #[error("the log is damaged at byte {offset} of `{path}`: records {} to {upto} cannot be read", after.next())]
    Damaged { after: Pos, upto: Pos, path: PathBuf, offset: u64 },
    #[error("records before {first} are no longer kept")]
    Trimmed { first: Pos },
    /// A write or fsync failed before; [`Log::reopen`] tries again.
    #[error("the log cannot be written since: {reason}")]
    Poisoned { reason: String },
    #[error("`{path}` is in use by another process")]
    Locked { path: PathBuf },
    /// Neither the segment's head nor what would replace it is known, so none of it can be checked.
    #[error("the head of `{path}` is damaged, and the segment before it is gone; restore the file, or move it away")]
    Headless { path: PathBuf },
}

/// Records that were durable and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub segment: PathBuf,
    /// Where it begins in the file.
    pub offset: u64,
    pub first: Pos,
    pub last: Pos,
}

impl Damage {
    fn new(segment: &Path, hole: &Hole) -> Damage {
        Damage { segment: segment.to_owned(), offset: hole.offset, first: hole.after.next(), last: hole.upto }
    }
}

/// What [`Log::open`] met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Readable records, as far as is known without reading sealed segments.
    pub records: u64,
    /// Bytes of the last, unfinished commit that were cut off.
    pub cut_bytes: u64,
    pub damage: Vec<Damage>,
}

pub struct Opened {
    pub log: Log,
    pub found: Found,
}

/// One segment, for retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub first: Pos,
    /// Before `first` if there is nothing in it.
    pub last: Pos,
    /// With its index.
    pub bytes: u64,
    /// Newest commit time in it, µs since 1970; 0 if there is nothing in it.
    pub newest_us: i64,
    /// Only sealed segments can be trimmed.
    pub sealed: bool,
}

/// The writer. Its owner is the only one that changes the folder.
pub struct Log {
    dir: PathBuf,
    options: Options,
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    file: File,
    path: PathBuf,
    salt: u32,
    /// Durable bytes of `file`, and the chain hash at the last durable record.
    durable: Mark,
    /// Entries since then.
    buffer: Vec<u8>,
    offsets: Vec<u32>,
    /// How many bytes of `buffer` are in the file.
    in_file: usize,
    /// Where the file ends; what lies before it behind the entries is zeros.
    room: u64,
    /// Entries of `buffer` that a `write` has returned for.
    written: usize,
    last: Pos,
    chain: u64,
    poison: Option<String>,
    sealer: Option<JoinHandle<()>>,
    /// Held for as long as the log is open.
    _lock: File,
}

#[derive(Clone, Copy)]
struct Mark {
    last: Pos,
    chain: u64,
    bytes: u64,
}

impl Log {
    /// Opens the log in `dir`, or begins one there. Reads the newest segment, cuts what a crash has
    /// torn, and syncs the rest: a process that was killed may have written more than it synced.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Locked`], [`Error::Headless`]. Damage is no error.
    pub fn open(dir: &Path, options: Options) -> Result<Opened, Error> {
        Log::open_on(dir, options, Arc::new(Real))
    }

    pub(crate) fn open_on(dir: &Path, options: Options, disk: Arc<dyn Disk>) -> Result<Opened, Error> {
        let io = at(dir);
        fs::create_dir_all(dir).map_err(io)?;
        let lock = lock(dir)?;
        let mut firsts = list(dir, true)?;
        if firsts.is_empty() {
            create(&*disk, dir, Head { first: Pos(1), before: 0 })?;
            if let Some(above) = dir.parent() {
                sync_folder(above)?;
            }
            firsts.push(Pos(1));
        }
        let loaded = load(dir, &firsts, &options, false)?;
        let Loaded { inner, found, barrier, head_bad } = loaded;
        let path = inner.path.clone();
        let io = at(&path);
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        (|| {
            if head_bad {
                disk.write(&path, &file, &inner.head.encode(), 0)?;
            }
            file.set_len(inner.bytes)?;
            // If the last fsync before this start failed, the kernel believes these pages clean
            // although they never reached the disk. Written anew, they are synced for certain.
            let mut unsure = vec![0; (inner.bytes - barrier) as usize];
            file.read_exact_at(&mut unsure, barrier)?;
            disk.write(&path, &file, &unsure, barrier)?;
            disk.sync(&path, &file)
        })()
        .map_err(io)?;
        sync_folder(dir)?;
        if options.ballast_bytes > 0 {
            // Without room for it the node runs all the same; the owner tries again later.
            let _ = ballast::create(dir, options.ballast_bytes);
        }
        let log = Log {
            dir: dir.to_owned(),
            options,
            disk,
            file,
            salt: inner.head.salt(),
            durable: Mark { last: inner.last, chain: inner.chain, bytes: inner.bytes },
            buffer: Vec::new(),
            offsets: Vec::new(),
            in_file: 0,
            room: inner.bytes,
            written: 0,
            last: inner.last,
            chain: inner.chain,
            path: inner.path.clone(),
            shared: Arc::new(Shared { inner: RwLock::new(inner) }),
            poison: None,
            sealer: None,
            _lock: lock,
        };
        Ok(Opened { log, found })
    }

    /// Adds one group to the buffer and returns the positions of its first and last record. No I/O,
    /// and no bound: the caller commits before the buffer is too large.
    ///
    /// # Panics
    /// When the group is empty, or a record is shorter than 40 bytes or longer than 16 MiB.
    pub fn append<'a>(&mut self, group: impl IntoIterator<Item = &'a [u8]>) -> (Pos, Pos) {
        let first = self.last.next();
        let mut records = group.into_iter().peekable();
        assert!(records.peek().is_some(), "a group has at least one record");
        while let Some(record) = records.next() {
            let pos = self.last.next();
            let at = u32::try_from(self.buffer.len()).expect("one commit is far below 4 GiB");
            let (end, barrier) = (records.peek().is_none(), self.buffer.is_empty());
            self.chain = format::put(&mut self.buffer, self.salt, self.chain, pos, record, end, barrier);
            self.offsets.push(at);
            self.last = pos;
        }
        (first, self.last)
    }

    /// Hands what is buffered to the kernel: it survives a kill, not yet a power cut. Readers do
    /// not see it before the next commit.
    ///
    /// # Errors
    /// [`Error::Io`] the first time, [`Error::Poisoned`] from then on.
    pub fn write(&mut self) -> Result<(), Error> {
        self.put_buffer()?;
        self.written = self.offsets.len();
        Ok(())
    }

    /// Writes and syncs what is buffered, shows it to readers, and returns the newest durable
    /// position. Seals the segment when it has reached its size.
    ///
    /// # Errors
    /// [`Error::Io`] the first time, [`Error::Poisoned`] from then on. What was appended since the
    /// last commit is then not committed; it stays buffered until [`Log::rollback`].
    pub fn commit(&mut self) -> Result<Pos, Error> {
        self.put_buffer()?;
        if self.buffer.is_empty() {
            return Ok(self.last);
        }
        if let Err(source) = self.disk.sync(&self.path, &self.file) {
            return Err(self.poisoned(source));
        }
        self.publish();
        if self.durable.bytes >= self.options.segment_bytes
            && let Err(error) = self.rotate()
        {
            // The commit stands. The segment grows beyond its size until a new one can be made.
            tracing::warn!(error = %with_causes(&error), "A new log segment could not be begun.");
        }
        Ok(self.last)
    }

    /// Newest position given out, committed or not.
    pub fn last(&self) -> Pos {
        self.last
    }

    pub fn reader(&self) -> Reader {
        Reader { shared: self.shared.clone() }
    }

    /// Forgets the groups appended since the last commit, but for those that a [`Log::write`] has
    /// returned for: their positions may be known already. Their positions are given out again.
    pub fn rollback(&mut self) {
        let keep = self.offsets.get(self.written).map_or(self.buffer.len(), |at| *at as usize);
        self.buffer.truncate(keep);
        self.offsets.truncate(self.written);
        self.last = Pos(self.durable.last.0 + self.written as u64);
        self.chain = match self.offsets.last() {
            Some(at) => format::tag(&self.buffer[*at as usize..]).chain,
            None => self.durable.chain,
        };
    }

    /// Why nothing can be written, if that is so.
    pub fn poison(&self) -> Option<&str> {
        self.poison.as_deref()
    }

    /// After a failed write or fsync: opens the file anew, cuts it back to what was committed, and
    /// checks its end. What is buffered will be written again by the next write or commit; call
    /// [`Log::rollback`] before if its owner was told that it is not kept.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`]; the log stays as it was, and this can be tried again.
    pub fn reopen(&mut self) -> Result<(), Error> {
        self.join_sealer();
        let path = self.path.clone();
        let io = at(&path);
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        if file.metadata().map_err(io)?.len() < self.durable.bytes {
            return Err(io(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter")).into());
        }
        file.set_len(self.durable.bytes).map_err(io)?;
        self.disk.sync(&path, &file).map_err(io)?;
        let reader = self.reader();
        let good = match reader.check_end(self.durable.last) {
            Ok(chain) => chain.is_none_or(|chain| chain == self.durable.chain),
            Err(error) => return Err(error),
        };
        if !good {
            return Err(io(io::Error::new(io::ErrorKind::InvalidData, "the file's end is not what was written")).into());
        }
        self.file = file;
        self.in_file = 0;
        self.room = self.durable.bytes;
        self.poison = None;
        Ok(())
    }

    /// Removes whole sealed segments that lie wholly below `keep_from`; returns the positions that went.
    ///
    /// # Errors
    /// [`Error::Io`]; segments removed before the failure stay removed, and what is left can be tried again.
    pub fn trim(&mut self, keep_from: Pos) -> Result<Option<(Pos, Pos)>, Error> {
        let gone: Vec<Arc<Sealed>> = {
            let inner = self.shared.inner.read();
            inner.sealed.iter().take_while(|s| s.about.last < keep_from).cloned().collect()
        };
        let (Some(first), Some(last)) = (gone.first(), gone.last()) else { return Ok(None) };
        self.join_sealer();
        // Readers first: they must not be led to a file that is about to go.
        let all = self.shared.inner.read().sealed.clone();
        self.shared.inner.write().sealed = Arc::new(all[gone.len()..].to_vec());
        for (n, segment) in gone.iter().enumerate() {
            let index = segment::index_path(&segment.path);
            // The log first: without its index it is still whole.
            if let Err(error) = remove(&segment.path).and_then(|()| remove(&index)) {
                let left = n + usize::from(!segment.path.exists());
                self.shared.inner.write().sealed = Arc::new(all[left..].to_vec());
                return Err(error);
            }
        }
        sync_folder(&self.dir)?;
        Ok(Some((first.about.first, last.about.last)))
    }

    /// Bytes on disk: segments and indexes, without the ballast.
    pub fn bytes(&self) -> u64 {
        self.segments().iter().map(|s| s.bytes).sum()
    }

    /// All segments, oldest first; the last is the one that is being written.
    pub fn segments(&self) -> Vec<Segment> {
        let inner = self.shared.inner.read();
        let sealed = inner.sealed.iter().map(|s| Segment {
            first: s.about.first,
            last: s.about.last,
            bytes: s.about.log_bytes + s.index_bytes(),
            newest_us: s.about.newest_us,
            sealed: true,
        });
        let newest = Segment {
            first: inner.head.first,
            last: inner.last,
            bytes: inner.bytes,
            newest_us: inner.fresh.newest_us,
            sealed: false,
        };
        sealed.chain([newest]).collect()
    }

    /// Gives up the ballast: its bytes are free for whatever must be written on a full disk.
    ///
    /// # Errors
    /// [`Error::Io`]. That there was none is no error.
    pub fn release_ballast(&mut self) -> Result<(), Error> {
        ballast::release(&self.dir)
    }

    /// Makes the ballast again, of this size, if it is not there. Call it only when there is room to spare.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing of it is left then.
    pub fn restore_ballast(&mut self, bytes: u64) -> Result<(), Error> {
        ballast::create(&self.dir, bytes)
    }

    fn put_buffer(&mut self) -> Result<(), Error> {
        if let Some(reason) = &self.poison {
            return Err(Error::Poisoned { reason: reason.clone() });
        }
        if self.in_file < self.buffer.len() {
            let offset = self.durable.bytes + self.in_file as u64;
            if let Err(source) = self.disk.write(&self.path, &self.file, &self.buffer[self.in_file..], offset) {
                return Err(self.poisoned(source));
            }
            self.in_file = self.buffer.len();
            self.make_room(self.durable.bytes + self.in_file as u64);
        }
        Ok(())
    }

    /// The entries reach up to `end`: writes zeros behind them if the next commit needs room.
    fn make_room(&mut self, end: u64) {
        if end <= self.room {
            return;
        }
        self.room = end;
        let zeros = ROOM_BYTES.min(self.options.segment_bytes.saturating_sub(end));
        if zeros == 0 || self.buffer.len() > ROOM_COMMIT_BYTES {
            return;
        }
        // Where there is no room, the commit does without: it will say itself if the disk is full.
        match self.disk.zero(&self.path, &self.file, end, zeros) {
            Ok(()) => self.room = end + zeros,
            // The zeros that found room would stay in the sealed segment. Where even that fails they
            // do: they are no entry.
            Err(_) => drop(self.file.set_len(end)),
        }
    }

    fn poisoned(&mut self, source: io::Error) -> Error {
        self.poison = Some(source.to_string());
        Error::Io(files::Error { path: self.path.clone(), source })
    }

    fn publish(&mut self) {
        // An exact copy: the buffer keeps its room, and the tail holds no spare bytes.
        let chunk = Chunk {
            first: self.durable.last.next(),
            data: Bytes::copy_from_slice(&self.buffer),
            offsets: self.offsets.as_slice().into(),
        };
        {
            let mut inner = self.shared.inner.write();
            for i in 0..chunk.offsets.len() {
                let offset = self.durable.bytes + u64::from(chunk.offsets[i]);
                inner.fresh.note(Pos(chunk.first.0 + i as u64), offset, chunk.record(i).1);
            }
            inner.bytes += self.buffer.len() as u64;
            inner.last = self.last;
            inner.chain = self.chain;
            inner.tail.push(chunk);
        }
        self.durable =
            Mark { last: self.last, chain: self.chain, bytes: self.durable.bytes + self.buffer.len() as u64 };
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.offsets.clear();
        self.in_file = 0;
        self.written = 0;
    }

    /// Seals the newest segment and begins the next one. Nothing is buffered, and no zeros are left:
    /// they never reach beyond a segment's size.
    fn rotate(&mut self) -> Result<(), Error> {
        self.join_sealer();
        let head = Head { first: self.last.next(), before: self.chain };
        let file = create(&*self.disk, &self.dir, head)?;
        let path = path_of(&self.dir, head.first);
        let sealed = {
            let mut inner = self.shared.inner.write();
            let fresh = mem::replace(&mut inner.fresh, Fresh::new(head.first));
            let about = About {
                first: inner.head.first,
                last: self.last,
                before: inner.head.before,
                chain: self.chain,
                log_bytes: inner.bytes,
                last_urgent: fresh.last_urgent(),
                newest_us: fresh.newest_us,
                lost: fresh.holes.iter().map(|h| h.upto.0 - h.after.0).sum(),
            };
            let sealed = Arc::new(Sealed::fresh(inner.path.clone(), about, fresh, false));
            let mut all = inner.sealed.to_vec();
            all.push(sealed.clone());
            inner.sealed = Arc::new(all);
            inner.sealed_special = inner.sealed_special.max(special(&about));
            inner.path = path.clone();
            inner.head = head;
            inner.bytes = HEAD_BYTES as u64;
            sealed
        };
        self.file = file;
        self.path = path;
        self.salt = head.salt();
        self.durable.bytes = HEAD_BYTES as u64;
        self.room = HEAD_BYTES as u64;
        // Sorting and syncing some megabytes would hold up the next commit for tens of ms.
        let by_thread = sealed.clone();
        let spawned = std::thread::Builder::new().name("log-seal".into()).spawn(move || by_thread.write_index());
        match spawned {
            Ok(handle) => self.sealer = Some(handle),
            Err(_) => sealed.write_index(),
        }
        Ok(())
    }

    fn join_sealer(&mut self) {
        if let Some(handle) = self.sealer.take()
            && handle.join().is_err()
        {
            tracing::error!("The thread that writes log indexes has panicked.");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.join_sealer();
    }
}

#[cfg(test)]
mod tests;
