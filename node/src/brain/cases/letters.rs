//! Letters that wait for a decision, by when they came; found by their ids too, and by the case that they
//! bring back, hand over or wish something of: of a lost box's tens of thousands each must cost as little as the first.

use super::letter::{Body, Letter};
use citybrain_shared::{LogId, Pos};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Posted {
    pub letter: Letter,
    /// The history of its sender's that it comes from; `None`: this node's own.
    pub log: Option<LogId>,
    /// No box before this one can have answered it: what it waits for is its case.
    pub is_new: bool,
}

#[derive(Debug, Default)]
pub(super) struct Letters {
    all: BTreeMap<u64, Posted>,
    ids: BTreeSet<(String, u64)>,
    /// The routine ones, the urgent ones.
    lanes: [BTreeSet<u64>; 2],
    /// Those that bring a case back ([`Body::Returned`]), by that case: routine ones, urgent ones.
    back: [BTreeSet<(String, u64)>; 2],
    /// Those that wish something of a case ([`Body::Ask`]), by that case.
    wishes: BTreeSet<(String, u64)>,
    /// Those that hand a case over ([`Body::HandOver`]), by that case.
    handed: BTreeSet<(String, u64)>,
}

impl Letters {
    pub fn insert(&mut self, pos: u64, posted: Posted) {
        let letter = &posted.letter;
        self.ids.insert((letter.id.clone(), pos));
        self.lanes[usize::from(letter.urgent)].insert(pos);
        if let Some(of_case) = self.of_case(letter) {
            of_case.insert((letter.body.case().to_owned(), pos));
        }
        self.all.insert(pos, posted);
    }

    pub fn remove(&mut self, pos: u64) -> Option<Posted> {
        let posted = self.all.remove(&pos)?;
        let letter = &posted.letter;
        self.ids.remove(&(letter.id.clone(), pos));
        self.lanes[usize::from(letter.urgent)].remove(&pos);
        if let Some(of_case) = self.of_case(letter) {
            of_case.remove(&(letter.body.case().to_owned(), pos));
        }
        Some(posted)
    }

    fn of_case(&mut self, letter: &Letter) -> Option<&mut BTreeSet<(String, u64)>> {
        match letter.body {
            Body::Returned { .. } => Some(&mut self.back[usize::from(letter.urgent)]),
            Body::Ask { .. } => Some(&mut self.wishes),
            Body::HandOver { .. } => Some(&mut self.handed),
            _ => None,
        }
    }

    /// Nobody before this box can have answered that one, as one knows now.
    pub fn is_new(&mut self, pos: u64) {
        if let Some(posted) = self.all.get_mut(&pos) {
            posted.is_new = true;
        }
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

    /// Oldest first.
    pub fn values(&self) -> impl Iterator<Item = &Letter> {
        self.all.values().map(|posted| &posted.letter)
    }

    /// The urgent ones, or the others, oldest first.
    pub fn of_lane(&self, urgent: bool) -> impl Iterator<Item = (u64, &Posted)> {
        self.lanes[usize::from(urgent)].iter().map(|pos| (*pos, &self.all[pos]))
    }

    pub fn bring_back_any(&self) -> bool {
        self.back.iter().any(|back| !back.is_empty())
    }

    /// All that bring a case back.
    pub fn brings_back(&self) -> impl Iterator<Item = u64> {
        self.back.iter().flatten().map(|(_, pos)| *pos)
    }

    /// All that bring this case back.
    pub fn back_of(&self, case: &str) -> impl Iterator<Item = &Letter> {
        self.back.iter().flat_map(move |back| self.theirs(back, case)).map(|(_, posted)| &posted.letter)
    }

    /// All that wish something of this case.
    pub fn wishes_of(&self, case: &str) -> impl Iterator<Item = (u64, &Posted)> {
        self.theirs(&self.wishes, case)
    }

    /// All that hand this case over.
    pub fn handing(&self, case: &str) -> impl Iterator<Item = &Letter> {
        self.theirs(&self.handed, case).map(|(_, posted)| &posted.letter)
    }

    /// Those of that case in one of the tables.
    fn theirs<'a>(
        &'a self,
        table: &'a BTreeSet<(String, u64)>,
        case: &str,
    ) -> impl Iterator<Item = (u64, &'a Posted)> + use<'a> {
        let theirs = table.range((case.to_owned(), 0)..=(case.to_owned(), u64::MAX));
        theirs.map(|(_, pos)| (*pos, &self.all[pos]))
    }

    /// Of each case of that lane that is brought back its newest word, for some cases.
    pub fn brought_back(&self, urgent: bool, cases_max: usize) -> Vec<&Posted> {
        let order = |posted: &Posted| match &posted.letter.body {
            Body::Returned { case, .. } => Some(case.order()),
            _ => None,
        };
        let mut newest: Vec<&Posted> = Vec::new();
        for (case, pos) in &self.back[usize::from(urgent)] {
            let posted = &self.all[pos];
            let is_same = newest.last().is_some_and(|known| known.letter.body.case() == case);
            if is_same && newest.last().is_some_and(|known| order(known) < order(posted)) {
                newest.pop();
            } else if is_same {
                continue;
            } else if newest.len() == cases_max {
                break;
            }
            newest.push(posted);
        }
        newest
    }
}
