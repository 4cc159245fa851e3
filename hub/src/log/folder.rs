//! A log's folder: which segments there are, what they hold at a start, and who may write.

use super::disk::{Disk, Real};
use super::format::{HEAD_BYTES, Head};
use super::index::{About, Hole};
use super::reader::{Inner, Reader, Shared};
use super::segment::{self, Sealed, path_of};
use super::tail::Tail;
use super::{Damage, Error, Found, Options};
use crate::files::{self, at, sync_folder};
use citybrain_shared::Pos;
use parking_lot::RwLock;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Opens the log of a stopped node to look at it; changes nothing, and shows what [`open`](super::Log::open)
/// would keep.
///
/// # Errors
/// [`Error::Io`], also when there is no log; [`Error::Headless`].
pub fn open_read_only(dir: &Path) -> Result<(Reader, Found), Error> {
    let firsts = list(dir, false)?;
    if firsts.is_empty() {
        return Err(Error::Io(files::Error { path: dir.to_owned(), source: io::ErrorKind::NotFound.into() }));
    }
    let options = Options { tail_bytes: 0, ..Options::default() };
    let Loaded { inner, found, .. } = load(dir, &firsts, &options, true)?;
    Ok((Reader { shared: Arc::new(Shared { inner: RwLock::new(inner) }) }, found))
}

/// Begins a log in `dir` whose first position is `first`, behind the chain hash `before`: for records
/// that had these positions elsewhere.
///
/// # Errors
/// [`Error::Io`], also when there is a log already.
pub fn begin(dir: &Path, first: Pos, before: u64) -> Result<(), Error> {
    let io = at(dir);
    fs::create_dir_all(dir).map_err(io)?;
    if !list(dir, false)?.is_empty() {
        return Err(io(io::ErrorKind::AlreadyExists.into()).into());
    }
    create(&Real, dir, Head { first, before }).map(drop)
}

/// True while a node has this log open for writing. Changes nothing.
///
/// # Errors
/// [`Error::Io`].
pub fn is_in_use(dir: &Path) -> Result<bool, Error> {
    let path = dir.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(files::Error { path, source }.into()),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Err(fs::TryLockError::Error(source)) => Err(files::Error { path, source }.into()),
    }
}

/// Keeps every node off the log in `dir` for as long as what it returns is held; `None` where there is
/// no such folder.
///
/// # Errors
/// [`Error::Locked`] while a node has it open; [`Error::Io`].
pub fn hold(dir: &Path) -> Result<Option<File>, Error> {
    if !dir.exists() {
        return Ok(None);
    }
    lock(dir).map(Some)
}

pub(super) struct Loaded {
    pub(super) inner: Inner,
    pub(super) found: Found,
    /// From here to the end of the newest segment, an fsync may be missing.
    pub(super) barrier: u64,
    pub(super) head_bad: bool,
}

pub(super) fn load(dir: &Path, firsts: &[Pos], options: &Options, read_only: bool) -> Result<Loaded, Error> {
    let mut found = Found::default();
    let mut sealed: Vec<Arc<Sealed>> = Vec::new();
    let mut sealed_special = Pos::ZERO;
    let mut before = None;
    for (i, first) in firsts.iter().enumerate() {
        if let Some(last) = sealed.last().map(|s| s.about.last)
            && last.next() < *first
        {
            let hole = Hole { after: last, upto: Pos(first.0 - 1), offset: 0 };
            found.damage.push(Damage::new(&path_of(dir, last.next()), &hole));
            sealed_special = hole.upto;
            before = None;
        }
        if *first == Pos(1) {
            before = Some(0);
        }
        let Some(next) = firsts.get(i + 1) else { break };
        let segment = Sealed::open(path_of(dir, *first), *first, *next, before, read_only)?;
        sealed_special = sealed_special.max(special(&segment.about));
        before = Some(segment.about.chain);
        found.damage.extend(segment.damage()?);
        found.records += segment.about.last.next().0 - first.0 - segment.about.lost;
        sealed.push(Arc::new(segment));
    }
    let first = *firsts.last().expect("the caller gives at least one");
    let path = path_of(dir, first);
    let any = Pos(u64::MAX);
    let mut scan = segment::scan(&path, first, before, any, None)?;
    if scan.head_bad && scan.last < first && before.is_none() {
        return Err(Error::Headless { path });
    }
    let used = scan.used;
    if scan.whole != (scan.last, scan.end) || scan.rest.is_some() {
        scan = segment::scan(&path, first, before, any, Some(scan.whole.1))?;
    }
    let bytes = scan.end.max(HEAD_BYTES as u64);
    let mut fresh = scan.fresh;
    fresh.holes = scan.holes;
    let lost: u64 = fresh.holes.iter().map(|h| h.upto.0 - h.after.0).sum();
    found.records += scan.last.next().0 - first.0 - lost;
    found.cut_bytes = used.saturating_sub(bytes);
    found.damage.extend(fresh.holes.iter().map(|hole| Damage::new(&path, hole)));
    let inner = Inner {
        sealed: Arc::new(sealed),
        sealed_special,
        head: Head { first, before: scan.before },
        path,
        fresh,
        bytes,
        last: scan.last,
        chain: scan.chain,
        tail: Tail::new(options.tail_bytes),
    };
    Ok(Loaded { inner, found, barrier: scan.barrier.min(bytes), head_bad: scan.head_bad })
}

/// Highest position of a segment that a reader of urgent records must look at.
pub(super) fn special(about: &About) -> Pos {
    if about.lost > 0 { about.last } else { about.last_urgent }
}

/// First positions of the segments in `dir`, ascending. Segments in which nothing was ever written
/// are left out, unless there is no other, and with `tidy` removed, with half-written indexes.
pub(super) fn list(dir: &Path, tidy: bool) -> Result<Vec<Pos>, Error> {
    let io = at(dir);
    let mut firsts = Vec::new();
    for item in fs::read_dir(dir).map_err(io)? {
        let path = item.map_err(io)?.path();
        let extension = path.extension().and_then(|e| e.to_str());
        let first = path.file_stem().and_then(|s| s.to_str()).filter(|s| s.len() == 20).and_then(|s| s.parse().ok());
        match (first, extension) {
            (Some(first), Some("log")) => {
                let len = fs::metadata(&path).map_err(io)?.len();
                firsts.push((Pos(first), len <= HEAD_BYTES as u64));
            }
            (Some(_), Some("tmp")) if tidy => fs::remove_file(&path).map_err(io)?,
            _ => {}
        }
    }
    firsts.sort_unstable();
    // A segment that was begun and never used: either the crash came right then, or the rotation
    // failed and the segment before it has grown on, past that position.
    let some_used = firsts.iter().any(|(_, empty)| !empty);
    let newest = firsts.last().map(|(first, _)| *first);
    let mut kept = Vec::new();
    for (first, empty) in firsts {
        if !empty || (!some_used && Some(first) == newest) {
            kept.push(first);
        } else if tidy {
            fs::remove_file(path_of(dir, first)).map_err(io)?;
        }
    }
    Ok(kept)
}

/// Removes a file. That there is none is no error.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(at(path)(source).into()),
        _ => Ok(()),
    }
}

/// Begins a segment: durable, with its name, before it is used.
pub(super) fn create(disk: &dyn Disk, dir: &Path, head: Head) -> Result<File, Error> {
    let path = path_of(dir, head.first);
    let created = (|| {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        disk.write(&path, &file, &head.encode(), 0)?;
        disk.sync(&path, &file)?;
        Ok(file)
    })();
    let created = created.map_err(at(&path)).and_then(|file| sync_folder(dir).map(|()| file));
    created.map_err(|e| {
        // If it cannot be removed either, the next start ignores it: nothing was written to it.
        let _ = fs::remove_file(&path);
        e.into()
    })
}

pub(super) fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let io = at(&path);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path }),
        Err(fs::TryLockError::Error(source)) => Err(io(source).into()),
    }
}
