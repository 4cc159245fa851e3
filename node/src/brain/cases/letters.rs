//! Letters that wait for a decision, by when they came; found by their ids too, and those that bring a
//! case back by that case: of a lost box's tens of thousands each must cost as little as the first.

use super::letter::{Body, Letter};
use citybrain_shared::{LogId, Pos};
use std::collections::{BTreeMap, BTreeSet};

/// A letter, and the history of its sender's that it comes from; `None`: this node's own.
pub(super) type Posted = (Letter, Option<LogId>);

#[derive(Debug, Default)]
pub(super) struct Letters {
    all: BTreeMap<u64, Posted>,
    ids: BTreeSet<(String, u64)>,
    /// Those that bring a case back ([`Body::Returned`]), by that case.
    back: BTreeSet<(String, u64)>,
}

fn brings_back(letter: &Letter) -> bool {
    matches!(letter.body, Body::Returned { .. })
}

impl Letters {
    pub fn insert(&mut self, pos: u64, (letter, log): Posted) {
        self.ids.insert((letter.id.clone(), pos));
        if brings_back(&letter) {
            self.back.insert((letter.body.case().to_owned(), pos));
        }
        self.all.insert(pos, (letter, log));
    }

    pub fn remove(&mut self, pos: u64) -> Option<Posted> {
        let (letter, log) = self.all.remove(&pos)?;
        self.ids.remove(&(letter.id.clone(), pos));
        if brings_back(&letter) {
            self.back.remove(&(letter.body.case().to_owned(), pos));
        }
        Some((letter, log))
    }

    /// The one of this id that came first.
    pub fn place(&self, id: &str) -> Option<u64> {
        let first = self.ids.range((id.to_owned(), 0)..).next();
        first.filter(|(known, _)| known == id).map(|(_, pos)| *pos)
    }

    pub fn get(&self, pos: u64) -> Option<&Posted> {
        self.all.get(&pos)
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Has everything that came up to there been decided?
    pub fn is_behind(&self, pos: Pos) -> bool {
        self.all.first_key_value().is_none_or(|(first, _)| *first > pos.0)
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Posted)> {
        self.all.iter().map(|(pos, posted)| (*pos, posted))
    }

    pub fn values(&self) -> impl Iterator<Item = &Letter> {
        self.all.values().map(|(letter, _)| letter)
    }

    pub fn bring_back_any(&self) -> bool {
        !self.back.is_empty()
    }

    /// All that bring this case back.
    pub fn back_of(&self, case: &str) -> impl Iterator<Item = &Letter> {
        let back = self.back.range((case.to_owned(), 0)..=(case.to_owned(), u64::MAX));
        back.map(|(_, pos)| &self.all[pos].0)
    }

    /// Of each case that is brought back its newest word, for some cases.
    pub fn brought_back(&self, cases_max: usize) -> Vec<&Letter> {
        let order = |letter: &Letter| match &letter.body {
            Body::Returned { case, .. } => Some(case.order()),
            _ => None,
        };
        let mut newest: Vec<&Letter> = Vec::new();
        for (case, pos) in &self.back {
            let (letter, _) = &self.all[pos];
            let is_same = newest.last().is_some_and(|known| known.body.case() == case);
            if is_same && newest.last().is_some_and(|known| order(known) < order(letter)) {
                newest.pop();
            } else if is_same {
                continue;
            } else if newest.len() == cases_max {
                break;
            }
            newest.push(letter);
        }
        newest
    }
}
