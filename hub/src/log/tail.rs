//! The newest committed groups, in memory, as they lie in the file.

use super::format::{self, ENTRY_BYTES};
use super::reader::{Entry, Taken};
use bytes::Bytes;
use citybrain_shared::{Lane, Pos, record};
use std::collections::VecDeque;

/// What a chunk costs besides its bytes.
const CHUNK_BYTES: usize = 96;

/// One commit: entries one after the other.
pub(super) struct Chunk {
    pub first: Pos,
    pub data: Bytes,
    /// Where each entry begins.
    pub offsets: Box<[u32]>,
}

impl Chunk {
    fn cost(&self) -> usize {
        CHUNK_BYTES + self.data.len() + 4 * self.offsets.len()
    }

    pub(super) fn record(&self, i: usize) -> (format::Tag, &[u8]) {
        let entry = &self.data[self.offsets[i] as usize..];
        let tag = format::tag(entry);
        (tag, &entry[ENTRY_BYTES..ENTRY_BYTES + tag.len])
    }

    fn entry(&self, i: usize) -> Entry {
        let begin = self.offsets[i] as usize + ENTRY_BYTES;
        let tag = format::tag(&self.data[begin - ENTRY_BYTES..]);
        Entry { pos: Pos(self.first.0 + i as u64), chain: tag.chain, bytes: self.data.slice(begin..begin + tag.len) }
    }
}

pub(super) struct Tail {
    chunks: VecDeque<Chunk>,
    urgent: VecDeque<Pos>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Tail {
        Tail { chunks: VecDeque::new(), urgent: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Bytes, and urgent positions.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.bytes, self.urgent.len())
    }

    /// The oldest position in memory; beyond every other if there is none.
    pub(super) fn first(&self) -> Pos {
        self.chunks.front().map_or(Pos(u64::MAX), |c| c.first)
    }

    pub(super) fn push(&mut self, chunk: Chunk) {
        for i in 0..chunk.offsets.len() {
            if record::lane_of(chunk.record(i).1) == Lane::Urgent {
                self.urgent.push_back(Pos(chunk.first.0 + i as u64));
            }
        }
        self.bytes += chunk.cost();
        self.chunks.push_back(chunk);
        while self.bytes > self.bytes_max {
            let Some(gone) = self.chunks.pop_front() else { break };
            self.bytes -= gone.cost();
            let first = self.first();
            while self.urgent.front().is_some_and(|pos| *pos < first) {
                self.urgent.pop_front();
            }
        }
    }

    /// Takes from `want` on, which is in memory, until `taken` is full or there is no more.
    pub(super) fn take(&self, want: Pos, lane: Option<Lane>, taken: &mut Taken) {
        let chunk_of = |pos: Pos| self.chunks.partition_point(|c| c.first <= pos) - 1;
        if lane == Some(Lane::Urgent) {
            for pos in self.urgent.range(self.urgent.partition_point(|pos| *pos < want)..) {
                let chunk = &self.chunks[chunk_of(*pos)];
                if !taken.push(chunk.entry((pos.0 - chunk.first.0) as usize)) {
                    return;
                }
            }
            return;
        }
        let mut skip = (want.0 - self.chunks[chunk_of(want)].first.0) as usize;
        for chunk in self.chunks.range(chunk_of(want)..) {
            for i in skip..chunk.offsets.len() {
                if lane.is_some_and(|lane| lane != record::lane_of(chunk.record(i).1)) {
                    continue;
                }
                if !taken.push(chunk.entry(i)) {
                    return;
                }
            }
            skip = 0;
        }
    }
}
