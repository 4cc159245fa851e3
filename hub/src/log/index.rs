//! Where things are in a segment: by position, by lane, by key.
//!
//! The newest segment's index ([`Fresh`]) is all in memory. When the segment is sealed it becomes a
//! file beside it, of which only [`Resident`] stays in memory, and only once somebody asked:
//! about 1.5 bytes a record. The file holds nothing that the segment does not; it is rebuilt
//! when it is missing or bad.
//!
//! **Format** (little-endian): a head of [`HEAD_BYTES`]; the resident part (holes, sparse points,
//! first keys and first urgent positions of the pages, filter); pages of [`PAGE_BYTES`] with the
//! (key, position) pairs, sorted; pages with the urgent positions, sorted. Positions are counted
//! from the segment's first. Head, resident part and each page have their own crc32c.

use super::format;
use citybrain_shared::{Lane, Pos, record};
use crc32c::{crc32c, crc32c_append};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of log between two points of the sparse index: a read of one record reads that much.
const SPARSE_BYTES: u64 = 32 * 1024;

const MAGIC: [u8; 8] = *b"cbrainix";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 104;
const PAGE_BYTES: usize = 4096;
const PAGE_HEAD: usize = 8;
const KEY_BYTES: usize = 12;
const KEYS_A_PAGE: usize = (PAGE_BYTES - PAGE_HEAD) / KEY_BYTES;
const URGENT_A_PAGE: usize = (PAGE_BYTES - PAGE_HEAD) / 4;

/// Positions that cannot be read: `after + 1 ..= upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub after: Pos,
    pub upto: Pos,
    /// Where the damage begins in the segment file.
    pub offset: u64,
}

/// The hole that holds `pos`, else the first one behind it.
pub(super) fn hole_from(holes: &[Hole], pos: Pos) -> Option<Hole> {
    holes.get(holes.partition_point(|h| h.upto < pos)).copied()
}

/// The newest position of each key, 12 to 16 bytes a record: a table of positions, probed in line,
/// beside the keys by position.
#[derive(Default)]
struct Keys {
    /// By position counted from the segment's first; 0: the record has no key, or is lost.
    by_position: Vec<u64>,
    /// Position + 1; 0: free. A power of two, at most three quarters taken.
    slots: Vec<u32>,
    taken: usize,
}

impl Keys {
    fn insert(&mut self, key: u64, at: u32) {
        self.by_position.resize(at as usize, 0);
        self.by_position.push(key);
        if (self.taken + 1) * 4 > self.slots.len() * 3 {
            let larger = vec![0; (self.slots.len() * 2).max(64)];
            for at in std::mem::replace(&mut self.slots, larger).into_iter().filter(|at| *at != 0) {
                let slot = self.slot(self.by_position[at as usize - 1]);
                self.slots[slot] = at;
            }
        }
        let slot = self.slot(key);
        self.taken += usize::from(self.slots[slot] == 0);
        self.slots[slot] = at + 1;
    }

    /// Where `key` is, else where it would be.
    fn slot(&self, key: u64) -> usize {
        // Keys are hashes already.
        let mut slot = key as usize & (self.slots.len() - 1);
        loop {
            match self.slots[slot] {
                0 => return slot,
                at if self.by_position[at as usize - 1] == key => return slot,
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }

    fn find(&self, key: u64) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        self.slots[self.slot(key)].checked_sub(1)
    }

    /// Positions, ascending by key.
    fn sorted(&self) -> Vec<u32> {
        let mut all = Vec::with_capacity(self.taken);
        all.extend(self.slots.iter().filter_map(|at| at.checked_sub(1)));
        all.sort_unstable_by_key(|at| self.by_position[*at as usize]);
        all
    }
}

/// The index of the segment that is being written; bounded by the segment's size.
#[derive(Default)]
pub(super) struct Fresh {
    pub first: Pos,
    points: Vec<(Pos, u64)>,
    next_point: u64,
    urgent: Vec<u32>,
    keys: Keys,
    pub holes: Vec<Hole>,
    pub newest_us: i64,
}

impl Fresh {
    pub(super) fn new(first: Pos) -> Fresh {
        Fresh { first, ..Fresh::default() }
    }

    fn relative(&self, pos: Pos) -> u32 {
        u32::try_from(pos.0 - self.first.0).expect("a segment holds less than 2^32 records")
    }

    pub(super) fn note(&mut self, pos: Pos, offset: u64, bytes: &[u8]) {
        if offset >= self.next_point {
            self.points.push((pos, offset));
            self.next_point = offset + SPARSE_BYTES;
        }
        let at = self.relative(pos);
        if record::lane_of(bytes) == Lane::Urgent {
            self.urgent.push(at);
        }
        let key = record::key_of(bytes);
        if key != 0 {
            self.keys.insert(key, at);
        }
        self.newest_us = self.newest_us.max(format::committed_us(bytes));
    }

    pub(super) fn find(&self, key: u64) -> Option<Pos> {
        self.keys.find(key).map(|at| Pos(self.first.0 + u64::from(at)))
    }

    /// The nearest known entry at or before `pos`.
    pub(super) fn point(&self, pos: Pos) -> Option<(Pos, u64)> {
        self.points[..self.points.partition_point(|p| p.0 <= pos)].last().copied()
    }

    /// At most `max` urgent positions from `from` on.
    pub(super) fn urgent_from(&self, from: Pos, max: usize) -> Vec<Pos> {
        let begin = self.urgent.partition_point(|at| self.first.0 + u64::from(*at) < from.0);
        self.urgent[begin..].iter().take(max).map(|at| Pos(self.first.0 + u64::from(*at))).collect()
    }

    pub(super) fn last_urgent(&self) -> Pos {
        self.urgent.last().map_or(Pos::ZERO, |at| Pos(self.first.0 + u64::from(*at)))
    }

    /// Writes the index file.
    pub(super) fn encode(&self, about: &About, out: &mut dyn Write) -> io::Result<()> {
        let sorted = self.keys.sorted();
        let key_of = |at: &u32| self.keys.by_position[*at as usize];
        let mut filter = Filter::with_room(sorted.len());
        sorted.iter().for_each(|at| filter.insert(key_of(at)));

        let mut resident = Vec::new();
        for hole in &self.holes {
            for n in [hole.after.0, hole.upto.0, hole.offset] {
                resident.extend_from_slice(&n.to_le_bytes());
            }
        }
        for (pos, offset) in &self.points {
            resident.extend_from_slice(&pos.0.to_le_bytes());
            resident.extend_from_slice(&offset.to_le_bytes());
        }
        for page in sorted.chunks(KEYS_A_PAGE) {
            resident.extend_from_slice(&key_of(&page[0]).to_le_bytes());
        }
        for page in self.urgent.chunks(URGENT_A_PAGE) {
            resident.extend_from_slice(&page[0].to_le_bytes());
        }
        for word in filter.0.iter().flatten() {
            resident.extend_from_slice(&word.to_le_bytes());
        }

        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        for n in [about.first.0, about.last.0, about.before, about.chain, about.log_bytes, about.last_urgent.0] {
            head.extend_from_slice(&n.to_le_bytes());
        }
        head.extend_from_slice(&about.newest_us.to_le_bytes());
        head.extend_from_slice(&about.lost.to_le_bytes());
        for n in [self.holes.len(), self.points.len(), sorted.len(), self.urgent.len(), filter.0.len()] {
            head.extend_from_slice(&(n as u32).to_le_bytes());
        }
        head.extend_from_slice(&crc32c(&resident).to_le_bytes());
        let crc = crc32c(&head);
        head.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(head.len(), HEAD_BYTES);
        out.write_all(&head)?;
        out.write_all(&resident)?;
        let mut page = Page::default();
        for some in sorted.chunks(KEYS_A_PAGE) {
            some.iter().for_each(|at| page.put(&[&key_of(at).to_le_bytes()[..], &at.to_le_bytes()]));
            page.write(out)?;
        }
        for some in self.urgent.chunks(URGENT_A_PAGE) {
            some.iter().for_each(|at| page.put(&[&at.to_le_bytes()]));
            page.write(out)?;
        }
        Ok(())
    }
}

/// A page that is being written: crc32c (4), items (4), items.
#[derive(Default)]
struct Page {
    data: Vec<u8>,
    items: u32,
}

impl Page {
    fn put(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.data.extend_from_slice(part));
        self.items += 1;
    }

    fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.data.resize(PAGE_BYTES - PAGE_HEAD, 0);
        let items = self.items.to_le_bytes();
        let crc = crc32c_append(crc32c(&items), &self.data);
        out.write_all(&crc.to_le_bytes())?;
        out.write_all(&items)?;
        out.write_all(&self.data)?;
        self.data.clear();
        self.items = 0;
        Ok(())
    }
}

/// What is known of a sealed segment without its resident part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub first: Pos,
    pub last: Pos,
    /// Chain hash at `first - 1` and at `last`.
    pub before: u64,
    pub chain: u64,
    pub log_bytes: u64,
    pub last_urgent: Pos,
    pub newest_us: i64,
    /// Positions in holes.
    pub lost: u64,
}

/// A split-block Bloom filter (8 bits of one 32-byte block a key): one cache line a question, at
/// about 10 bits a key wrong once in a hundred.
#[derive(Default)]
pub(super) struct Filter(Vec<[u32; 8]>);

const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

impl Filter {
    fn with_room(keys: usize) -> Filter {
        Filter(vec![[0; 8]; (keys * 10).div_ceil(256)])
    }

    fn block(&self, key: u64) -> usize {
        (((key >> 32) * self.0.len() as u64) >> 32) as usize
    }

    fn insert(&mut self, key: u64) {
        let block = self.block(key);
        for (word, salt) in self.0[block].iter_mut().zip(SALTS) {
            *word |= 1 << ((key as u32).wrapping_mul(salt) >> 27);
        }
    }

    fn may_hold(&self, key: u64) -> bool {
        let Some(block) = self.0.get(self.block(key)) else { return false };
        block.iter().zip(SALTS).all(|(word, salt)| word & (1 << ((key as u32).wrapping_mul(salt) >> 27)) != 0)
    }
}

/// The part of an index file that stays in memory.
pub(super) struct Resident {
    pub about: About,
    pub holes: Vec<Hole>,
    points: Vec<(u32, u64)>,
    keys: Vec<u64>,
    urgent: Vec<u32>,
    filter: Filter,
    pages_at: u64,
}

/// The head of the index file at `path`; `None` if it is missing or bad.
pub(super) fn about(path: &Path) -> Option<About> {
    let mut head = [0; HEAD_BYTES];
    File::open(path).ok()?.read_exact_at(&mut head, 0).ok()?;
    head_of(&head).map(|(about, ..)| about)
}

fn head_of(head: &[u8; HEAD_BYTES]) -> Option<(About, [usize; 5], u32)> {
    let mut rest = &head[..HEAD_BYTES - 4];
    let crc = u32::from_le_bytes(head[HEAD_BYTES - 4..].try_into().ok()?);
    if crc32c(rest) != crc || take(&mut rest)? != MAGIC || u32::from_le_bytes(take(&mut rest)?) != VERSION {
        return None;
    }
    let mut n = || take(&mut rest).map(u64::from_le_bytes);
    let about = About {
        first: Pos(n()?),
        last: Pos(n()?),
        before: n()?,
        chain: n()?,
        log_bytes: n()?,
        last_urgent: Pos(n()?),
        newest_us: n()? as i64,
        lost: n()?,
    };
    let mut counts = [0; 5];
    for count in &mut counts {
        *count = u32::from_le_bytes(take(&mut rest)?) as usize;
    }
    Some((about, counts, u32::from_le_bytes(take(&mut rest)?)))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

impl Resident {
    /// `None`: the file is missing or bad, and to be rebuilt.
    pub(super) fn load(path: &Path) -> Option<Resident> {
        let file = File::open(path).ok()?;
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0).ok()?;
        let (about, [holes, points, keys, urgent, blocks], crc) = head_of(&head)?;
        let (key_pages, urgent_pages) = (keys.div_ceil(KEYS_A_PAGE), urgent.div_ceil(URGENT_A_PAGE));
        let bytes = holes * 24 + points * 16 + key_pages * 8 + urgent_pages * 4 + blocks * 32;
        let pages_at = (HEAD_BYTES + bytes) as u64;
        if file.metadata().ok()?.len() != pages_at + ((key_pages + urgent_pages) * PAGE_BYTES) as u64 {
            return None;
        }
        let mut body = vec![0; bytes];
        file.read_exact_at(&mut body, HEAD_BYTES as u64).ok()?;
        if crc32c(&body) != crc {
            return None;
        }
        let mut rest = body.as_slice();
        let mut resident = Resident {
            about,
            holes: Vec::with_capacity(holes),
            points: Vec::with_capacity(points),
            keys: Vec::with_capacity(key_pages),
            urgent: Vec::with_capacity(urgent_pages),
            filter: Filter(Vec::with_capacity(blocks)),
            pages_at,
        };
        let long = |rest: &mut &[u8]| take(rest).map(u64::from_le_bytes);
        for _ in 0..holes {
            let (after, upto, offset) = (Pos(long(&mut rest)?), Pos(long(&mut rest)?), long(&mut rest)?);
            resident.holes.push(Hole { after, upto, offset });
        }
        for _ in 0..points {
            let (pos, offset) = (long(&mut rest)?, long(&mut rest)?);
            resident.points.push((u32::try_from(pos.checked_sub(about.first.0)?).ok()?, offset));
        }
        for _ in 0..key_pages {
            resident.keys.push(long(&mut rest)?);
        }
        for _ in 0..urgent_pages {
            resident.urgent.push(u32::from_le_bytes(take(&mut rest)?));
        }
        for _ in 0..blocks {
            let mut block = [0; 8];
            for word in &mut block {
                *word = u32::from_le_bytes(take(&mut rest)?);
            }
            resident.filter.0.push(block);
        }
        Some(resident)
    }

    pub(super) fn may_hold(&self, key: u64) -> bool {
        self.filter.may_hold(key)
    }

    /// The newest position with this key in the segment. Reads one page of the file at `path`.
    ///
    /// # Errors
    /// Also when the page is bad: the file is then to be rebuilt.
    pub(super) fn find(&self, path: &Path, key: u64) -> io::Result<Option<Pos>> {
        if !self.may_hold(key) {
            return Ok(None);
        }
        let Some(page) = self.keys.partition_point(|first| *first <= key).checked_sub(1) else { return Ok(None) };
        let page = self.page(path, page, KEY_BYTES)?;
        let pair = |i: usize| -> (u64, u32) {
            let bytes = &page[i * KEY_BYTES..][..KEY_BYTES];
            (
                u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")),
                u32::from_le_bytes(bytes[8..].try_into().expect("four bytes")),
            )
        };
        let (mut low, mut high) = (0, page.len() / KEY_BYTES);
        while low < high {
            let middle = low.midpoint(high);
            match pair(middle) {
                (k, at) if k == key => return Ok(Some(Pos(self.about.first.0 + u64::from(at)))),
                (k, _) if k < key => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(None)
    }

    /// The nearest known entry at or before `pos`.
    pub(super) fn point(&self, pos: Pos) -> Option<(Pos, u64)> {
        let end = self.points.partition_point(|p| self.about.first.0 + u64::from(p.0) <= pos.0);
        self.points[..end].last().map(|(at, offset)| (Pos(self.about.first.0 + u64::from(*at)), *offset))
    }

    /// Urgent positions from `from` on: those of one page of the file, none if there are no more.
    ///
    /// # Errors
    /// As [`Resident::find`].
    pub(super) fn urgent_from(&self, path: &Path, from: Pos, max: usize) -> io::Result<Vec<Pos>> {
        let at = u32::try_from(from.0.saturating_sub(self.about.first.0)).unwrap_or(u32::MAX);
        let start = self.urgent.partition_point(|first| *first <= at).saturating_sub(1);
        for page in start..self.urgent.len() {
            let bytes = self.page(path, self.keys.len() + page, 4)?;
            let found: Vec<Pos> = bytes
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")))
                .filter(|n| *n >= at)
                .take(max)
                .map(|n| Pos(self.about.first.0 + u64::from(n)))
                .collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    fn page(&self, path: &Path, page: usize, item: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE_BYTES];
        File::open(path)?.read_exact_at(&mut bytes, self.pages_at + (page * PAGE_BYTES) as u64)?;
        let crc = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        let n = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
        if crc32c(&bytes[4..]) != crc || n * item > PAGE_BYTES - PAGE_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.drain(..PAGE_HEAD);
        bytes.truncate(n * item);
        Ok(bytes)
    }
}
