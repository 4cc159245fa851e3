//! A sender's history, and where in it a receiver stands.

use citybrain_shared::wire::{Cursor, Epoch};
use citybrain_shared::{LogId, Pos};

/// The name of the history that holds `pos`: the newest that had begun.
pub(crate) fn log_at(epochs: &[Epoch], pos: Pos) -> LogId {
    epochs.iter().rev().find(|e| e.first <= pos).map_or_else(LogId::default, |e| e.log)
}

/// What a sender shows of its chain.
pub(super) enum Shown {
    NotAsked,
    Trimmed,
    Chain(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct At {
    pub upto: Pos,
    pub chain: u64,
    /// What lies between this and `upto` can no longer be sent.
    pub lost_after: Option<Pos>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fit {
    At(At),
    /// The sender has to show a hash first.
    Prove,
    Past,
    Forked,
}

/// A sender's log as its receiver gets to know it.
pub(super) struct History<'a> {
    pub epochs: &'a [Epoch],
    pub first: Pos,
    pub last: Pos,
    pub minted_for: Option<LogId>,
}

impl History<'_> {
    /// Where a receiver that stands at `cursor` goes on.
    pub(super) fn fit(&self, cursor: &Cursor, shown: &impl Fn(Pos) -> Shown) -> Fit {
        let known = self.epochs.iter().position(|e| e.log == cursor.log);
        // The earliest position that got another name after the receiver's.
        let renamed = match known {
            Some(i) => self.epochs[i + 1..].iter().map(|e| e.first).min(),
            None if self.minted_for == Some(cursor.log) => self.epochs.last().map(|e| e.first),
            None => return Fit::Forked,
        };
        let renamed = renamed.filter(|f| *f <= cursor.upto);
        if cursor.upto > self.last {
            return match renamed {
                Some(f) => self.start(Some(Pos(f.0.saturating_sub(1))), shown),
                None => Fit::Past,
            };
        }
        if cursor.upto.next() < self.first {
            return self.start(Some(cursor.upto), shown);
        }
        match (shown(cursor.upto), renamed) {
            (Shown::NotAsked, _) => Fit::Prove,
            (Shown::Chain(c), Some(f)) if c != cursor.chain => self.start(Some(Pos(f.0.saturating_sub(1))), shown),
            (Shown::Chain(c), None) if c != cursor.chain => Fit::Forked,
            // Equal; or just trimmed, which is as far as anybody can look.
            _ => Fit::At(At { upto: cursor.upto, chain: cursor.chain, lost_after: None }),
        }
    }

    /// A cursor at `at`, or at the oldest that can be served.
    pub(super) fn start(&self, at: Option<Pos>, shown: &impl Fn(Pos) -> Shown) -> Fit {
        let oldest = Pos(self.first.0.saturating_sub(1)).min(self.last);
        let upto = at.unwrap_or(oldest).clamp(oldest, self.last.max(oldest));
        let lost_after = at.filter(|a| *a < upto);
        match shown(upto) {
            _ if upto == Pos::ZERO => Fit::At(At { upto, chain: 0, lost_after }),
            Shown::NotAsked => Fit::Prove,
            // The hash before a trimmed log's first record may be gone; both ends then write 0.
            Shown::Trimmed => Fit::At(At { upto, chain: 0, lost_after }),
            Shown::Chain(chain) => Fit::At(At { upto, chain, lost_after }),
        }
    }
}
