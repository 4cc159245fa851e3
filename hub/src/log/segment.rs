//! A sealed segment: a file that no longer changes, and the index beside it.

use super::format::{HEAD_BYTES, Head};
use super::index::{self, About, Fresh, Hole, Resident};
use super::walk::{Step, Walk};
use super::{Damage, Error};
use crate::files::{self, at, put_whole};
use citybrain_shared::Pos;
use citybrain_shared::words::with_causes;
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SCAN_BYTES: usize = 1024 * 1024;

pub(super) struct Sealed {
    pub about: About,
    pub path: PathBuf,
    index_bytes: AtomicU64,
    /// A log that is only looked at writes nothing.
    read_only: bool,
    /// `None`: nobody has asked yet.
    index: Mutex<Option<Index>>,
}

#[derive(Clone)]
enum Index {
    /// Sealed a moment ago, or its file cannot be written.
    Fresh(Arc<Fresh>),
    Resident(Arc<Resident>),
}

impl Index {
    fn holes(&self) -> &[Hole] {
        match self {
            Index::Fresh(index) => &index.holes,
            Index::Resident(index) => &index.holes,
        }
    }

    /// An entry at or before `want`.
    fn point(&self, want: Pos) -> Option<(Pos, u64)> {
        match self {
            Index::Fresh(index) => index.point(want),
            Index::Resident(index) => index.point(want),
        }
    }
}

/// How to read from one segment.
pub(super) struct Plan {
    pub path: PathBuf,
    pub salt: u32,
    /// An entry at or before the wanted position, good when it was indexed.
    pub start: (Pos, u64),
    pub limit: u64,
    pub last: Pos,
    /// The known hole that holds the wanted position, else the next one.
    pub hole: Option<Hole>,
    /// The next urgent positions, if those are wanted.
    pub targets: Option<Vec<Pos>>,
}

impl Plan {
    /// Urgent positions that one plan holds at most.
    pub(super) const TARGETS: usize = 1024;
}

pub(super) fn path_of(dir: &Path, first: Pos) -> PathBuf {
    dir.join(format!("{:020}.log", first.0))
}

pub(super) fn index_path(log: &Path) -> PathBuf {
    log.with_extension("idx")
}

impl Sealed {
    /// Takes over the index of the segment that was just closed.
    pub(super) fn fresh(path: PathBuf, about: About, fresh: Fresh, read_only: bool) -> Sealed {
        let index = Mutex::new(Some(Index::Fresh(Arc::new(fresh))));
        Sealed { about, path, index_bytes: AtomicU64::new(0), read_only, index }
    }

    /// Opens a sealed segment by its index alone; rebuilds the index when that does not fit the file.
    /// `next`: the next segment's first position; `before`: the chain hash before the segment, as
    /// far as it is known from the one before.
    pub(super) fn open(
        path: PathBuf,
        first: Pos,
        next: Pos,
        before: Option<u64>,
        read_only: bool,
    ) -> Result<Sealed, Error> {
        let io = at(&path);
        let len = fs::metadata(&path).map_err(io)?.len();
        let index = index_path(&path);
        if let Some(about) = index::about(&index)
            && about.first == first
            && about.last < next
            && about.log_bytes == len
        {
            let index_bytes = AtomicU64::new(fs::metadata(&index).map_or(0, |m| m.len()));
            return Ok(Sealed { about, path, index_bytes, read_only, index: Mutex::new(None) });
        }
        let (about, fresh) = scan_sealed(&path, first, Pos(next.0 - 1), before)?;
        let sealed = Sealed::fresh(path, about, fresh, read_only);
        sealed.write_index();
        Ok(sealed)
    }

    /// Writes the index file of a fresh index and keeps only its resident part. A failure costs
    /// memory now and a scan at the next start, nothing else.
    pub(super) fn write_index(&self) {
        let Some(Index::Fresh(fresh)) = self.index.lock().clone() else { return };
        if self.read_only {
            return;
        }
        let path = index_path(&self.path);
        let written = put_index(&path, &self.about, &fresh);
        self.index_bytes.store(fs::metadata(&path).map_or(0, |m| m.len()), Relaxed);
        match written.map(|()| Resident::load(&path)) {
            Ok(Some(resident)) => *self.index.lock() = Some(Index::Resident(Arc::new(resident))),
            Ok(None) => tracing::warn!(path = %path.display(), "An index does not read back; kept in memory."),
            Err(error) => {
                tracing::warn!(error = %with_causes(&error), "An index could not be written; kept in memory.");
            }
        }
    }

    /// Bytes of the index file.
    pub(super) fn index_bytes(&self) -> u64 {
        self.index_bytes.load(Relaxed)
    }

    fn index(&self) -> Result<Index, Error> {
        let mut known = self.index.lock();
        if let Some(index) = &*known {
            return Ok(index.clone());
        }
        let index = match Resident::load(&index_path(&self.path)) {
            Some(resident) if resident.about == self.about => Index::Resident(Arc::new(resident)),
            _ => self.rebuilt()?,
        };
        Ok(known.insert(index).clone())
    }

    fn rebuilt(&self) -> Result<Index, Error> {
        let (_, fresh) = scan_sealed(&self.path, self.about.first, self.about.last, Some(self.about.before))?;
        let path = index_path(&self.path);
        if !self.read_only
            && put_index(&path, &self.about, &fresh).is_ok()
            && let Some(resident) = Resident::load(&path)
        {
            return Ok(Index::Resident(Arc::new(resident)));
        }
        Ok(Index::Fresh(Arc::new(fresh)))
    }

    /// Asks the index file; if a page of it is bad, it is rebuilt and asked again.
    fn ask<R>(
        &self,
        fresh: impl Fn(&Fresh) -> R,
        resident: impl Fn(&Resident, &Path) -> io::Result<R>,
    ) -> Result<R, Error> {
        let path = index_path(&self.path);
        let asked = |index| match index {
            Index::Fresh(index) => Ok(fresh(&index)),
            Index::Resident(index) => resident(&index, &path),
        };
        if let Ok(answer) = asked(self.index()?) {
            return Ok(answer);
        }
        let rebuilt = {
            let mut known = self.index.lock();
            known.insert(self.rebuilt()?).clone()
        };
        Ok(asked(rebuilt).map_err(at(&path))?)
    }

    pub(super) fn find(&self, key: u64) -> Result<Option<Pos>, Error> {
        // The usual answer is no, by the filter, without a copy of the handle.
        if let Some(Index::Resident(index)) = &*self.index.lock()
            && !index.may_hold(key)
        {
            return Ok(None);
        }
        self.ask(|fresh| fresh.find(key), |resident, path| resident.find(path, key))
    }

    pub(super) fn plan(&self, want: Pos, urgent: bool) -> Result<Plan, Error> {
        let head = Head { first: self.about.first, before: self.about.before };
        let index = self.index()?;
        let (start, hole) = (index.point(want), index::hole_from(index.holes(), want));
        let targets = if !urgent {
            None
        } else if want > self.about.last_urgent {
            Some(Vec::new())
        } else {
            Some(self.ask(
                |fresh| fresh.urgent_from(want, Plan::TARGETS),
                |resident, path| resident.urgent_from(path, want, Plan::TARGETS),
            )?)
        };
        Ok(Plan {
            path: self.path.clone(),
            salt: head.salt(),
            start: start.unwrap_or((self.about.first, HEAD_BYTES as u64)),
            limit: self.about.log_bytes,
            last: self.about.last,
            hole,
            targets,
        })
    }

    /// Reads all of the segment; holes that it finds, known or not.
    pub(super) fn check(&self) -> Result<Vec<Damage>, Error> {
        let (_, fresh) = scan_sealed(&self.path, self.about.first, self.about.last, Some(self.about.before))?;
        Ok(fresh.holes.iter().map(|hole| Damage::new(&self.path, hole)).collect())
    }

    /// Known damage; reads the index only if there is some.
    pub(super) fn damage(&self) -> Result<Vec<Damage>, Error> {
        if self.about.lost == 0 {
            return Ok(Vec::new());
        }
        Ok(self.index()?.holes().iter().map(|hole| Damage::new(&self.path, hole)).collect())
    }
}

fn put_index(path: &Path, about: &About, fresh: &Fresh) -> Result<(), files::Error> {
    let temporary = path.with_extension("tmp");
    let file = File::create(&temporary).map_err(at(&temporary))?;
    put_whole(&file, &temporary, path, || {
        let mut out = BufWriter::with_capacity(64 * 1024, &file);
        fresh.encode(about, &mut out).and_then(|()| out.flush()).map_err(at(&temporary))
    })
}

/// Scans a sealed segment; everything in it was durable, so whatever is bad is damage.
fn scan_sealed(path: &Path, first: Pos, last: Pos, before: Option<u64>) -> Result<(About, Fresh), Error> {
    let scan = scan(path, first, before, last, None)?;
    if scan.head_bad && scan.last < first && before.is_none() {
        return Err(Error::Headless { path: path.to_owned() });
    }
    let Scan { mut fresh, before, mut holes, last: good, chain, end, rest, .. } = scan;
    if good < last {
        holes.push(Hole { after: good, upto: last, offset: rest.unwrap_or(end) });
    }
    let lost = holes.iter().map(|h| h.upto.0 - h.after.0).sum();
    let log_bytes = fs::metadata(path).map_err(at(path))?.len();
    fresh.holes = holes;
    let about = About {
        first,
        last,
        before,
        chain,
        log_bytes,
        last_urgent: fresh.last_urgent(),
        newest_us: fresh.newest_us,
        lost,
    };
    Ok((about, fresh))
}

pub(super) struct Scan {
    pub fresh: Fresh,
    /// Chain hash before the segment.
    pub before: u64,
    /// The head was bad, and is known from elsewhere.
    pub head_bad: bool,
    /// Damage to what was durable.
    pub holes: Vec<Hole>,
    /// The last good entry.
    pub last: Pos,
    pub chain: u64,
    /// Where the last good entry ends.
    pub end: u64,
    /// Where bytes begin that hold no good entry.
    pub rest: Option<u64>,
    /// Last position and end of what a crash cannot have torn: if it is not `(last, end)`, all
    /// behind it is the torn part of the last commit.
    pub whole: (Pos, u64),
    /// The first entry that an fsync may not have covered.
    pub barrier: u64,
    /// Where what was written ends: behind it are zeros at most.
    pub used: u64,
}

/// Scans a segment up to `limit` (its end if `None`). `before` is needed only when its head is bad.
pub(super) fn scan(
    path: &Path,
    first: Pos,
    before: Option<u64>,
    upper: Pos,
    limit: Option<u64>,
) -> Result<Scan, Error> {
    let io = at(path);
    let file = File::open(path).map_err(io)?;
    let mut bytes = [0; HEAD_BYTES];
    let read = (&file).read(&mut bytes).map_err(io)?;
    let head = Head::decode(&bytes[..read]).filter(|head| head.first == first);
    let head_bad = head.is_none();
    let before = head.map(|h| h.before).or(before).unwrap_or(0);
    let salt = Head { first, before }.salt();

    let start = HEAD_BYTES as u64;
    let limit = limit.unwrap_or(u64::MAX);
    let mut walk = Walk::new(file, salt, (first, start), limit, upper, SCAN_BYTES).map_err(io)?;
    let mut scan = Scan {
        fresh: Fresh::new(first),
        before,
        head_bad,
        holes: Vec::new(),
        last: Pos(first.0 - 1),
        chain: before,
        end: start,
        rest: None,
        whole: (Pos(first.0 - 1), start),
        barrier: start,
        used: start,
    };
    let mut cut = None;
    let mut doubtful = Vec::new();
    loop {
        match walk.step().map_err(io)? {
            Step::Record { pos, offset, tag, bytes } => {
                if tag.barrier {
                    // All before it was synced: what is bad there is damage, not a torn write.
                    scan.holes.append(&mut doubtful);
                    scan.barrier = offset;
                    cut = None;
                }
                scan.fresh.note(pos, offset, &bytes);
                (scan.last, scan.chain, scan.end) = (pos, tag.chain, walk.offset);
                if tag.end {
                    scan.whole = (pos, walk.offset);
                }
            }
            Step::Hole { after, upto, offset } => {
                doubtful.push(Hole { after, upto, offset });
                cut.get_or_insert(scan.whole);
            }
            Step::Rest { offset } => {
                scan.rest = Some(offset);
                break;
            }
            Step::End => break,
        }
    }
    scan.used = walk.used().map_err(io)?;
    if upper.0 != u64::MAX {
        scan.holes.append(&mut doubtful);
    } else if let Some(cut) = cut {
        scan.whole = cut;
    }
    Ok(scan)
}
