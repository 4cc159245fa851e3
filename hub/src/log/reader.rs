//! Reading: by position, by lane, by key, beside the writer.

use super::format::{HEAD_BYTES, Head};
use super::index::{self, Fresh, Hole};
use super::segment::{Plan, Sealed};
use super::tail::Tail;
use super::walk::{Step, Walk};
use super::{Damage, Error};
use crate::files::at;
use bytes::Bytes;
use citybrain_shared::{Lane, Pos, record};
use parking_lot::RwLock;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that one `pread` of a sequential read takes; a slice of it keeps it all in memory.
const READ_BYTES: usize = 256 * 1024;
/// On top of what was asked for: the way from a sparse point to the record.
const LEAD_BYTES: usize = 36 * 1024;
/// Records, and bytes of them, that a walk reads at a time.
const STEP_RECORDS: usize = 2_048;
const STEP_BYTES: usize = 1024 * 1024;
/// Urgent records nearer to each other than this are reached by walking on, others by the index.
const WALK_RECORDS: u64 = 64;

/// Reads what is durable. A cheap handle: clone it into each task that reads.
///
/// No call waits for a commit, and none holds a lock during I/O that the writer needs.
#[derive(Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

/// One record as read: `bytes` is its log form ([`citybrain_shared::record::Header::decode`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub pos: Pos,
    /// The rolling chain hash at this position.
    pub chain: u64,
    pub bytes: Bytes,
}

impl Entry {
    /// A copy that keeps no more in memory than itself: `bytes` may be a slice of a whole commit.
    pub fn alone(&self) -> Entry {
        Entry { bytes: Bytes::copy_from_slice(&self.bytes), ..*self }
    }
}

pub(super) struct Shared {
    pub inner: RwLock<Inner>,
}

/// What is durable. The writer holds the lock only to add to it.
pub(super) struct Inner {
    pub sealed: Arc<Vec<Arc<Sealed>>>,
    /// Highest position in the sealed segments that is urgent, lost, or in a missing segment.
    pub sealed_special: Pos,
    pub path: PathBuf,
    pub head: Head,
    pub fresh: Fresh,
    /// Durable bytes of the newest segment.
    pub bytes: u64,
    pub last: Pos,
    pub chain: u64,
    pub tail: Tail,
}

enum Place {
    Sealed(Arc<Sealed>),
    Newest(Plan),
    /// The segment file is not there.
    Missing {
        upto: Pos,
        path: PathBuf,
    },
}

impl Inner {
    pub(super) fn first(&self) -> Pos {
        self.sealed.first().map_or(self.head.first, |s| s.about.first)
    }

    fn special(&self) -> Pos {
        let hole = self.fresh.holes.last().map_or(Pos::ZERO, |h| h.upto);
        self.sealed_special.max(self.fresh.last_urgent()).max(hole)
    }

    /// Where `want` lies; it is at least `first()` and at most `last`.
    fn place(&self, want: Pos, lane: Option<Lane>) -> Place {
        if want >= self.head.first {
            let urgent = lane == Some(Lane::Urgent);
            return Place::Newest(Plan {
                path: self.path.clone(),
                salt: self.head.salt(),
                start: self.fresh.point(want).unwrap_or((self.head.first, HEAD_BYTES as u64)),
                limit: self.bytes,
                last: self.last,
                hole: index::hole_from(&self.fresh.holes, want),
                targets: urgent.then(|| self.fresh.urgent_from(want, Plan::TARGETS)),
            });
        }
        let i = self.sealed.partition_point(|s| s.about.first <= want) - 1;
        let segment = &self.sealed[i];
        if want <= segment.about.last {
            return Place::Sealed(segment.clone());
        }
        let next = self.sealed.get(i + 1).map_or(self.head.first, |s| s.about.first);
        Place::Missing { upto: Pos(next.0 - 1), path: segment.path.clone() }
    }
}

/// Entries read so far, and how many more are wanted.
pub(super) struct Taken {
    pub entries: Vec<Entry>,
    bytes: usize,
    records_max: usize,
    bytes_max: usize,
}

impl Taken {
    /// False: it is full, and `entry` was not taken or was the last.
    pub(super) fn push(&mut self, entry: Entry) -> bool {
        let len = entry.bytes.len();
        if !self.entries.is_empty() && self.bytes + len > self.bytes_max {
            self.records_max = 0;
            return false;
        }
        self.bytes += len;
        self.entries.push(entry);
        !self.full()
    }

    fn full(&self) -> bool {
        self.entries.len() >= self.records_max || self.bytes >= self.bytes_max
    }
}

impl Reader {
    /// Oldest retained position (`Pos(1)` in an empty, never trimmed log).
    pub fn first(&self) -> Pos {
        self.shared.inner.read().first()
    }

    /// Newest durable position; `Pos::ZERO` if there is none.
    pub fn last(&self) -> Pos {
        self.shared.inner.read().last
    }

    /// Chain hash at a durable position; 0 at `Pos::ZERO`; `None` if it is trimmed or not written.
    /// The position right before [`Reader::first`] is still known.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] when the record at `pos` is lost.
    pub fn chain_at(&self, pos: Pos) -> Result<Option<u64>, Error> {
        if pos == Pos::ZERO {
            return Ok(Some(0));
        }
        {
            let inner = self.shared.inner.read();
            if pos == inner.last {
                return Ok(Some(inner.chain));
            }
            if pos.next() == inner.head.first {
                return Ok(Some(inner.head.before));
            }
            if let Some(segment) = inner.sealed.iter().find(|s| s.about.first == pos.next()) {
                return Ok(Some(segment.about.before));
            }
        }
        Ok(self.get(pos)?.map(|entry| entry.chain))
    }

    /// Shows every record in (`after`, `upto`], in order. What is damaged is passed over.
    ///
    /// # Errors
    /// As [`Reader::read`], but for damage.
    pub fn each(&self, after: Pos, upto: Pos, mut look: impl FnMut(&Entry)) -> Result<(), Error> {
        self.walk(after, upto, |entry| {
            look(entry);
            true
        })
    }

    /// Shows the records in (`after`, `upto`], in order, until `look` says false. What is damaged is
    /// passed over.
    ///
    /// # Errors
    /// As [`Reader::read`], but for damage.
    pub fn walk(&self, mut after: Pos, upto: Pos, mut look: impl FnMut(&Entry) -> bool) -> Result<(), Error> {
        while after < upto {
            let entries = match self.read(after, None, STEP_RECORDS, STEP_BYTES) {
                Err(Error::Damaged { upto: bad, .. }) if bad > after => {
                    after = bad;
                    continue;
                }
                read => read?,
            };
            let Some(last) = entries.last() else { return Ok(()) };
            after = last.pos;
            if !entries.iter().take_while(|e| e.pos <= upto).all(&mut look) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Durable records after `after`, oldest first, until `records` or `bytes` are reached (at
    /// least one if there is one; `bytes` counts records without their overhead). With a lane,
    /// only records of that lane: urgent ones are found by an index, for routine ones the urgent
    /// ones between are passed over.
    ///
    /// Entries are slices of larger buffers (a commit's, or 256 KiB of the file): copy what is to
    /// be kept for long.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the first record to return cannot be read: what can be, before the
    /// damage, is returned first. To go on, read after its `upto`. With the urgent lane, damage
    /// that may hold urgent records is told too. [`Error::Trimmed`] when `after + 1` is older than
    /// what is retained. [`Error::Io`].
    pub fn read(&self, after: Pos, lane: Option<Lane>, records: usize, bytes: usize) -> Result<Vec<Entry>, Error> {
        let records = records.max(1);
        let mut taken = Taken { entries: Vec::new(), bytes: 0, records_max: records, bytes_max: bytes };
        let mut want = after.next();
        loop {
            let place = {
                let inner = self.shared.inner.read();
                if want > inner.last || (lane == Some(Lane::Urgent) && want > inner.special()) {
                    break;
                }
                if want < inner.first() {
                    let error = Error::Trimmed { first: inner.first() };
                    return if taken.entries.is_empty() { Err(error) } else { Ok(taken.entries) };
                }
                if want >= inner.tail.first() {
                    inner.tail.take(want, lane, &mut taken);
                    break;
                }
                inner.place(want, lane)
            };
            match read_place(place, want, lane, &mut taken) {
                Ok(next) => want = next,
                // The error comes again, first, at the next read.
                Err(_) if !taken.entries.is_empty() => break,
                Err(error) => {
                    // The segment may have been trimmed under our feet.
                    let first = self.first();
                    return Err(if want < first { Error::Trimmed { first } } else { error });
                }
            }
            if taken.full() {
                break;
            }
        }
        Ok(taken.entries)
    }

    /// The record at `pos`; `None` if it is trimmed or not written.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn get(&self, pos: Pos) -> Result<Option<Entry>, Error> {
        let Some(before) = pos.0.checked_sub(1) else { return Ok(None) };
        match self.read(Pos(before), None, 1, 1) {
            Ok(entries) => Ok(entries.into_iter().next()),
            Err(Error::Trimmed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Position of the newest durable record with this key; `None` for key 0. Compares keys only:
    /// two different events share one by chance of 2^-64.
    ///
    /// An absent key costs about 100 ns for each sealed segment, after the first call has loaded
    /// their filters.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn find(&self, key: u64) -> Result<Option<Pos>, Error> {
        if key == 0 {
            return Ok(None);
        }
        let sealed = {
            let inner = self.shared.inner.read();
            if let Some(pos) = inner.fresh.find(key) {
                return Ok(Some(pos));
            }
            inner.sealed.clone()
        };
        for segment in sealed.iter().rev() {
            match segment.find(key) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                // Trimmed meanwhile: nothing of it counts.
                Err(_) if segment.about.last < self.first() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Reader {
    /// The segments' files, oldest first, and how many bytes of each count; of the newest none behind that.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        let inner = self.shared.inner.read();
        let sealed = inner.sealed.iter().map(|s| (s.path.clone(), s.about.log_bytes));
        sealed.chain([(inner.path.clone(), inner.bytes)]).collect()
    }

    /// Reads and checks every retained record, segment by segment; `progress` is told how many
    /// segments are done, and of how many. Returns all damage, known before or not.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn verify(&self, mut progress: impl FnMut(usize, usize)) -> Result<Vec<Damage>, Error> {
        let (sealed, path, head, limit, last) = {
            let inner = self.shared.inner.read();
            (inner.sealed.clone(), inner.path.clone(), inner.head, inner.bytes, inner.last)
        };
        let mut damage: Vec<Damage> = Vec::new();
        let mut next = None;
        for (done, segment) in sealed.iter().enumerate() {
            progress(done, sealed.len() + 1);
            missing(next, segment.about.first, &segment.path, &mut damage);
            match segment.check() {
                Ok(found) => damage.extend(found),
                Err(_) if segment.about.last < self.first() => {}
                Err(error) => return Err(error),
            }
            next = Some(segment.about.last.next());
        }
        progress(sealed.len(), sealed.len() + 1);
        missing(next, head.first, &path, &mut damage);
        if last >= head.first {
            let scan = super::segment::scan(&path, head.first, Some(head.before), last, Some(limit))?;
            damage.extend(scan.holes.iter().map(|hole| Damage::new(&path, hole)));
            if scan.last < last {
                let hole = Hole { after: scan.last, upto: last, offset: scan.rest.unwrap_or(scan.end) };
                damage.push(Damage::new(&path, &hole));
            }
        }
        progress(sealed.len() + 1, sealed.len() + 1);
        Ok(damage)
    }

    /// The chain hash at `last`, read from the file, not from memory; `None` when that lies in an
    /// older segment than the newest.
    pub(super) fn check_end(&self, last: Pos) -> Result<Option<u64>, Error> {
        let place = {
            let inner = self.shared.inner.read();
            if last < inner.head.first {
                return Ok(None);
            }
            inner.place(last, None)
        };
        let mut taken = Taken { entries: Vec::new(), bytes: 0, records_max: 1, bytes_max: 1 };
        read_place(place, last, None, &mut taken)?;
        Ok(taken.entries.first().map(|entry| entry.chain))
    }
}

/// Adds the gap between two segments, if there is one.
fn missing(expected: Option<Pos>, first: Pos, path: &Path, damage: &mut Vec<Damage>) {
    if let Some(expected) = expected
        && expected < first
    {
        let hole = Hole { after: Pos(expected.0 - 1), upto: Pos(first.0 - 1), offset: 0 };
        damage.push(Damage::new(&path.with_file_name(format!("{:020}.log", expected.0)), &hole));
    }
}

/// Reads from one segment; returns where to go on.
fn read_place(place: Place, want: Pos, lane: Option<Lane>, taken: &mut Taken) -> Result<Pos, Error> {
    let plan = match place {
        Place::Newest(plan) => plan,
        Place::Sealed(segment) => segment.plan(want, lane == Some(Lane::Urgent))?,
        Place::Missing { upto, path } => {
            return Err(Error::Damaged { after: Pos(want.0 - 1), upto, path, offset: 0 });
        }
    };
    let damaged = |after: Pos, upto: Pos, offset: u64| Error::Damaged {
        after: after.max(Pos(want.0 - 1)),
        upto,
        path: plan.path.clone(),
        offset,
    };
    let mut targets = plan.targets.iter().flatten().copied().peekable();
    let urgent = plan.targets.is_some();
    if urgent {
        let target = targets.peek().copied();
        if let Some(hole) = plan.hole
            && target.is_none_or(|target| hole.after < target)
        {
            return Err(damaged(hole.after, hole.upto, hole.offset));
        }
        if target.is_none() {
            return Ok(plan.last.next());
        }
    }
    let io = at(&plan.path);
    let chunk = taken.bytes_max.saturating_sub(taken.bytes).saturating_add(LEAD_BYTES).min(READ_BYTES);
    let file = File::open(&plan.path).map_err(io)?;
    let mut walk = Walk::new(file, plan.salt, plan.start, plan.limit, plan.last, chunk).map_err(io)?;
    loop {
        let seek = targets.peek().copied().unwrap_or(want).max(want);
        match walk.step().map_err(io)? {
            Step::Record { pos, .. } if pos < seek => {}
            Step::Record { pos, tag, bytes, .. } => {
                if urgent {
                    targets.next();
                } else if lane.is_some_and(|lane| lane != record::lane_of(&bytes)) {
                    continue;
                }
                if !taken.push(Entry { pos, chain: tag.chain, bytes }) {
                    return Ok(pos.next());
                }
                if urgent {
                    let Some(target) = targets.peek() else { return Ok(pos.next()) };
                    if plan.hole.is_some() || target.0 - pos.0 > WALK_RECORDS {
                        return Ok(pos.next());
                    }
                }
            }
            Step::Hole { upto, .. } if upto < seek => {}
            Step::Hole { after, upto, offset } => return Err(damaged(after, upto, offset)),
            Step::Rest { .. } | Step::End if walk.next > plan.last => return Ok(plan.last.next()),
            Step::Rest { offset } => return Err(damaged(Pos(walk.next.0 - 1), plan.last, offset)),
            Step::End => return Err(damaged(Pos(walk.next.0 - 1), plan.last, walk.offset)),
        }
    }
}
