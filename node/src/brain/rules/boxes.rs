//! Which box stands at the address of each child, by its log, and what the one before it had said that the new one has
//! spoken over.
//!
//! A box with an empty disk, or one of which a backup was put back, asks its parent for what it had said. Its own words
//! may be here before it asks: they go by another lane, or stand before it in its log. So from the first word of a new
//! history until it asks, what it speaks over is kept as it was known.

use citybrain_shared::view::Alarm;
use citybrain_shared::{Address, LogId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Histories of one child that are told from a new one: words of an earlier one may come late.
const FORMER_MAX: usize = 16;

#[derive(Debug, Default)]
pub struct Boxes {
    all: BTreeMap<Address, Known>,
    dirty: BTreeSet<Address>,
}

/// What is known of one child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// The history of its log that has spoken last.
    log: LogId,
    /// Those before it, the oldest first.
    #[serde(default)]
    former: Vec<LogId>,
    /// It may yet ask.
    #[serde(default)]
    asks: bool,
    /// Alarms of which it has spoken before it has asked, as they were known until then.
    #[serde(default)]
    before: BTreeMap<String, Alarm>,
}

impl Known {
    fn new(log: LogId) -> Known {
        Known { log, former: Vec::new(), asks: false, before: BTreeMap::new() }
    }

    /// Words of that history; true if it is a new one.
    fn turns_to(&mut self, log: LogId) -> bool {
        if self.log == log || self.former.contains(&log) {
            return false;
        }
        self.former.push(std::mem::replace(&mut self.log, log));
        let extra = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..extra);
        true
    }
}

impl Boxes {
    /// A child speaks of an alarm, which is known as that until now.
    pub fn hear(&mut self, child: &Address, log: LogId, until_now: Option<&Alarm>) {
        let Some(known) = self.all.get_mut(child) else {
            self.all.insert(child.clone(), Known::new(log));
            self.dirty.insert(child.clone());
            return;
        };
        let is_new = known.turns_to(log);
        known.asks |= is_new;
        let kept = until_now.filter(|alarm| known.asks && known.log == log && !known.before.contains_key(&alarm.id));
        if is_new || kept.is_some() {
            known.before.extend(kept.map(|alarm| (alarm.id.clone(), alarm.clone())));
            self.dirty.insert(child.clone());
        }
    }

    /// A child asks: what it has spoken over is given out, and kept no longer.
    pub fn answer(&mut self, child: &Address, log: LogId) -> BTreeMap<String, Alarm> {
        let known = self.all.entry(child.clone()).or_insert_with(|| Known::new(log));
        known.turns_to(log);
        known.asks = false;
        self.dirty.insert(child.clone());
        std::mem::take(&mut known.before)
    }

    pub fn load(&mut self, child: Address, known: Known) {
        self.all.insert(child, known);
    }

    /// Those that changed since the last call.
    pub fn take_dirty(&mut self) -> Vec<(Address, Option<&Known>)> {
        std::mem::take(&mut self.dirty).into_iter().map(|child| (child.clone(), self.all.get(&child))).collect()
    }
}
