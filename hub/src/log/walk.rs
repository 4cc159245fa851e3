//! Walks over the entries of one segment file, checks each, and finds its way past damage.

use super::format::{self, ENTRY_BYTES, Parsed, RECORD_BYTES_MIN, Tag};
use bytes::Bytes;
use citybrain_shared::Pos;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that one search for the next good entry may checksum (about 50 ms). Beyond it only entries
/// up to [`SEARCH_SMALL`] are tried, so that a payload made of what looks like lengths cannot stop
/// the node: 16 MiB of them, the largest payload, take some seconds.
const SEARCH_BYTES: u64 = 256 * 1024 * 1024;
const SEARCH_SMALL: usize = 1024;
/// After so many positions that were thought possible, over all bytes tried, a checksum of 32 bits alone
/// is no proof any more: up to here a search takes wrong bytes for an entry once in 2^20 times.
const SEARCH_TRUSTED: u64 = 4096;

/// Bytes that one look for zeros takes: usually one look is all.
const ZEROS_BYTES: usize = 64 * 1024;

const SMALLEST: u64 = (ENTRY_BYTES + RECORD_BYTES_MIN) as u64;

pub(super) struct Walk {
    file: File,
    salt: u32,
    /// The position that the next entry must have, and where it begins.
    pub next: Pos,
    pub offset: u64,
    /// Where the last good entry ends.
    good: u64,
    /// Nothing is read at or beyond this offset.
    limit: u64,
    /// No entry has a higher position.
    upper: Pos,
    chunk: usize,
    buffer: Bytes,
    buffer_at: u64,
}

pub(super) enum Step {
    Record {
        pos: Pos,
        offset: u64,
        tag: Tag,
        bytes: Bytes,
    },
    /// `after + 1 ..= upto` cannot be read; the walk goes on behind them.
    Hole {
        after: Pos,
        upto: Pos,
        offset: u64,
    },
    /// From here to the end there are bytes, and no good entry in them.
    Rest {
        offset: u64,
    },
    End,
}

impl Walk {
    /// Starts at the entry for `next`, which begins at `offset`. `chunk`: bytes read at a time.
    pub(super) fn new(
        file: File,
        salt: u32,
        (next, offset): (Pos, u64),
        limit: u64,
        upper: Pos,
        chunk: usize,
    ) -> io::Result<Walk> {
        // A file that was cut short behind our back ends where it ends.
        let limit = limit.min(file.metadata()?.len());
        Ok(Walk { file, salt, next, offset, good: offset, limit, upper, chunk, buffer: Bytes::new(), buffer_at: 0 })
    }

    pub(super) fn step(&mut self) -> io::Result<Step> {
        if self.offset >= self.limit || self.next > self.upper {
            return Ok(Step::End);
        }
        let mut need = ENTRY_BYTES;
        let tag = loop {
            if self.offset + need as u64 > self.limit {
                return self.search();
            }
            self.fill(self.offset, need)?;
            match format::parse(self.at(self.offset), self.salt, self.next) {
                Parsed::Good(tag) => break tag,
                Parsed::Short(n) => need = n,
                Parsed::Bad => return self.search(),
            }
        };
        let begin = (self.offset - self.buffer_at) as usize + ENTRY_BYTES;
        let bytes = self.buffer.slice(begin..begin + tag.len);
        let (pos, offset) = (self.next, self.offset);
        self.next = pos.next();
        self.offset += (ENTRY_BYTES + tag.len) as u64;
        self.good = self.offset;
        Ok(Step::Record { pos, offset, tag, bytes })
    }

    /// The entry for `next` is bad: finds the next one that is good, whatever its position. Each
    /// lost entry took some bytes, which bounds the positions that can follow.
    fn search(&mut self) -> io::Result<Step> {
        let bad = self.offset;
        let written = self.zeros_from(bad)?;
        if written == bad {
            self.limit = bad;
            return Ok(Step::End);
        }
        let (mut spent, mut tried) = (0, 0);
        let mut at = bad + SMALLEST;
        while at + SMALLEST <= self.limit {
            self.fill(at, ENTRY_BYTES)?;
            let len = format::tag(self.at(at)).len;
            let whole = ENTRY_BYTES + len;
            let plausible = (RECORD_BYTES_MIN..=format::RECORD_BYTES_MAX).contains(&len)
                && at + whole as u64 <= self.limit
                && (spent < SEARCH_BYTES || len <= SEARCH_SMALL);
            if plausible {
                spent += whole as u64;
                self.fill(at, whole)?;
                let from = self.next.next();
                let upto = Pos(self.next.0 + (at - bad) / SMALLEST).min(self.upper);
                tried += (upto.0 + 1).saturating_sub(from.0);
                if let Some((pos, tag)) = format::parse_any(self.at(at), self.salt, from, upto)
                    && (tried <= SEARCH_TRUSTED || self.goes_on(at + whole as u64, written, pos.next(), tag.chain)?)
                {
                    let hole = Step::Hole { after: Pos(self.next.0 - 1), upto: Pos(pos.0 - 1), offset: bad };
                    self.next = pos;
                    self.offset = at;
                    return Ok(hole);
                }
            }
            at += 1;
        }
        self.offset = self.limit;
        Ok(Step::Rest { offset: bad })
    }

    /// Is the entry that ends at `end` one of this log, because the next one follows from it, or because it is
    /// the last?
    fn goes_on(&mut self, end: u64, written: u64, next: Pos, chain: u64) -> io::Result<bool> {
        if end >= written {
            return Ok(true);
        }
        if end + ENTRY_BYTES as u64 > self.limit {
            return Ok(false);
        }
        self.fill(end, ENTRY_BYTES)?;
        let whole = ENTRY_BYTES + format::tag(self.at(end)).len;
        if whole > ENTRY_BYTES + format::RECORD_BYTES_MAX || end + whole as u64 > self.limit {
            return Ok(false);
        }
        self.fill(end, whole)?;
        Ok(format::follows(self.at(end), self.salt, next, chain))
    }

    /// Where what was written ends, once the walk has ended: the last good entry's end, or behind it
    /// the last byte that is not zero.
    pub(super) fn used(&self) -> io::Result<u64> {
        self.zeros_from(self.good)
    }

    /// The lowest offset from `from` on behind which there is nothing but zeros up to the limit.
    fn zeros_from(&self, from: u64) -> io::Result<u64> {
        let mut end = self.limit;
        let mut bytes = vec![0; ZEROS_BYTES];
        while end > from {
            let len = (end - from).min(ZEROS_BYTES as u64) as usize;
            self.file.read_exact_at(&mut bytes[..len], end - len as u64)?;
            if let Some(at) = bytes[..len].iter().rposition(|byte| *byte != 0) {
                return Ok(end - len as u64 + at as u64 + 1);
            }
            end -= len as u64;
        }
        Ok(from.min(self.limit))
    }

    fn at(&self, offset: u64) -> &[u8] {
        &self.buffer[(offset - self.buffer_at) as usize..]
    }

    /// Makes `need` bytes at `offset` available; they lie below the limit.
    fn fill(&mut self, offset: u64, need: usize) -> io::Result<()> {
        let buffered = self.buffer_at..self.buffer_at + self.buffer.len() as u64;
        if buffered.contains(&offset) && offset + need as u64 <= buffered.end {
            return Ok(());
        }
        let len = (need.max(self.chunk) as u64).min(self.limit - offset) as usize;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        self.buffer = bytes.into();
        self.buffer_at = offset;
        Ok(())
    }
}
