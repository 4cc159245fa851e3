//! What rules remember, with what is found by it: whose timer is next, and who raises an alarm.
//!
//! A key's state changes in here only, so that neither of those is ever behind it, and a row is written for it.

use super::json;
use super::keys::{Due, KeyState};
use super::raisers::{Raised, Raisers};
use super::rule::Set;
use super::step;
use super::timing::plan_anew;
use citybrain_hub::policy::Row;
use citybrain_shared::{Pos, words};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// Keys that one rule keeps apart: more than any tier has children or a neighbourhood devices.
/// Beyond it the ones longest unheard of give way, those that are on last of all.
pub const KEYS_MAX: usize = 10_000;
/// Characters of an error that is shown: whatever an event holds, a row is written for each.
const ERROR_MAX: usize = 300;

/// Of all rules, by their indices in the set.
#[derive(Debug, Default)]
pub struct Memories {
    all: Vec<Memory>,
    /// When something is due, and for which rule and key.
    due: BTreeSet<(i64, u32, String)>,
    raisers: Raisers,
    /// Keys whose rows are not as they are here; some stand twice.
    dirty: Vec<(u32, String)>,
    gone_rows: Vec<Vec<u8>>,
}

/// All keys of one rule.
#[derive(Debug, Default)]
struct Memory {
    keys: HashMap<String, KeyState>,
    tally: Tally,
    is_tally_dirty: bool,
}

/// What a rule has done since the data folder was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    pub matched: u64,
    pub fired: u64,
    pub errors: u64,
    pub last_error: Option<String>,
    pub last_error_us: Option<i64>,
    pub last_fired_us: Option<i64>,
    pub given_way: u64,
}

impl Tally {
    pub fn failed(&mut self, why: &str, at_us: i64) {
        self.errors += 1;
        self.last_error = Some(words::beginning(why, ERROR_MAX).into());
        self.last_error_us = Some(at_us);
    }
}

/// What of a state is found elsewhere by it.
#[derive(Default)]
struct Marks {
    due: Option<Due>,
    raised: Vec<Raised>,
    /// It is among those whose rows are to be written.
    is_dirty: bool,
}

impl Marks {
    fn of(state: &KeyState) -> Marks {
        Marks { due: state.next(), raised: state.raised.clone(), is_dirty: state.is_dirty }
    }

    /// Of a state that has been changed.
    fn of_changed(state: &mut KeyState) -> Marks {
        state.is_dirty = true;
        Marks::of(state)
    }
}

impl Memories {
    pub fn new(set: &Set) -> Memories {
        Memories { all: set.rules.iter().map(|_| Memory::default()).collect(), ..Memories::default() }
    }

    pub fn keys(&self, rule: u32) -> &HashMap<String, KeyState> {
        &self.all[rule as usize].keys
    }

    pub fn get(&self, rule: u32, key: &str) -> Option<&KeyState> {
        self.keys(rule).get(key)
    }

    pub fn tally(&self, rule: u32) -> &Tally {
        &self.all[rule as usize].tally
    }

    /// To count something more.
    pub fn tally_mut(&mut self, rule: u32) -> &mut Tally {
        let memory = &mut self.all[rule as usize];
        memory.is_tally_dirty = true;
        &mut memory.tally
    }

    /// When something is due, and for which rule and key, the first first.
    pub fn due(&self) -> impl Iterator<Item = &(i64, u32, String)> {
        self.due.iter()
    }

    pub fn next_due_us(&self) -> Option<i64> {
        self.due.first().map(|(at, _, _)| *at)
    }

    pub fn raisers(&self) -> &Raisers {
        &self.raisers
    }

    /// Begins to remember something of that key, if nothing is.
    pub fn open(&mut self, rule: u32, key: &str) {
        if self.get(rule, key).is_some() {
            return;
        }
        for (gone, state) in self.make_room(rule) {
            self.gone(rule, gone, &state);
        }
        self.all[rule as usize].keys.insert(key.to_owned(), KeyState { is_dirty: true, ..KeyState::default() });
        self.dirty.push((rule, key.to_owned()));
    }

    /// Gives what gave way.
    fn make_room(&mut self, rule: u32) -> Vec<(String, KeyState)> {
        let Memory { keys, .. } = &mut self.all[rule as usize];
        if keys.len() < KEYS_MAX {
            return Vec::new();
        }
        let mut order: Vec<(bool, i64, String)> = keys.iter().map(|(k, s)| (s.on, s.last_us, k.clone())).collect();
        order.sort_unstable();
        order.truncate(KEYS_MAX / 16);
        let gone: Vec<_> = order.into_iter().filter_map(|(_, _, key)| keys.remove_entry(&key)).collect();
        self.tally_mut(rule).given_way += gone.len() as u64;
        gone
    }

    /// Changes what is remembered of that key, if anything is.
    pub fn change<T>(&mut self, rule: u32, key: &str, change: impl FnOnce(&mut KeyState) -> T) -> Option<T> {
        let state = self.all[rule as usize].keys.get_mut(key)?;
        let before = Marks::of(state);
        let out = change(state);
        let after = Marks::of_changed(state);
        self.changed(rule, key, &before, &after);
        Some(out)
    }

    /// The same; the closure says whether it did.
    pub fn change_if(&mut self, rule: u32, key: &str, change: impl FnOnce(&str, &mut KeyState) -> bool) {
        let Some(state) = self.all[rule as usize].keys.get_mut(key) else { return };
        let before = Marks::of(state);
        if change(key, state) {
            let after = Marks::of_changed(state);
            self.changed(rule, key, &before, &after);
        }
    }

    /// The same of all keys of that rule.
    pub fn change_each(&mut self, rule: u32, mut change: impl FnMut(&str, &mut KeyState) -> bool) {
        let mut changed = Vec::new();
        for (key, state) in &mut self.all[rule as usize].keys {
            let before = Marks::of(state);
            if change(key, state) {
                changed.push((key.clone(), before, Marks::of_changed(state)));
            }
        }
        for (key, before, after) in changed {
            self.changed(rule, &key, &before, &after);
        }
    }

    /// All that came before that position is a backup's.
    pub fn begin_anew(&mut self, set: &Set, first: Pos, now_us: i64) {
        for (index, rule) in (0..).zip(&set.rules) {
            let mut gone = Vec::new();
            self.change_each(index, |key, state| {
                if !step::begin_anew(rule, state, first, now_us) {
                    gone.push(key.to_owned());
                }
                true
            });
            for key in gone {
                let Some(state) = self.all[index as usize].keys.remove(&key) else { continue };
                self.gone(index, key, &state);
            }
        }
    }

    fn changed(&mut self, rule: u32, key: &str, before: &Marks, after: &Marks) {
        self.mark(rule, key, before, after);
        if !before.is_dirty {
            self.dirty.push((rule, key.to_owned()));
        }
    }

    fn gone(&mut self, rule: u32, key: String, state: &KeyState) {
        self.mark(rule, &key, &Marks::of(state), &Marks::default());
        self.dirty.push((rule, key));
    }

    fn mark(&mut self, rule: u32, key: &str, old: &Marks, new: &Marks) {
        if old.due != new.due {
            if let Some(d) = old.due {
                self.due.remove(&(d.at_us, rule, key.to_owned()));
            }
            self.due.extend(new.due.map(|d| (d.at_us, rule, key.to_owned())));
        }
        if old.raised != new.raised {
            self.raisers.remove(rule, key, &old.raised);
            self.raisers.add(rule, key, &new.raised);
        }
    }

    /// Other rules are in force: of those whose name stays all is kept, and what waits is planned by their new text.
    pub fn adopt(&mut self, old: Set, new: &Set) {
        let memories = std::mem::take(&mut self.all);
        // What gave way, and is not written yet, must not be there again at the next start.
        for (index, key) in std::mem::take(&mut self.dirty) {
            let Some(rule) = old.rules.get(index as usize) else { continue };
            if !memories[index as usize].keys.contains_key(&key) {
                self.gone_rows.push(key_row(&rule.name, &key));
            }
        }
        let mut by_name: HashMap<String, Memory> = old.rules.into_iter().map(|r| r.name).zip(memories).collect();
        self.all = new.rules.iter().map(|r| by_name.remove(&r.name).unwrap_or_default()).collect();
        for (name, memory) in by_name {
            self.gone_rows.extend(memory.keys.keys().map(|key| key_row(&name, key)));
            self.gone_rows.push(tally_row(&name));
        }
        self.due.clear();
        self.raisers.clear();
        for (i, memory) in (0..).zip(&mut self.all) {
            for (key, state) in &mut memory.keys {
                plan_anew(&new.rules[i as usize], state);
                state.is_dirty = true;
                self.dirty.push((i, key.clone()));
                self.due.extend(state.next().map(|d| (d.at_us, i, key.clone())));
                self.raisers.add(i, key, &state.raised);
            }
            memory.is_tally_dirty = true;
        }
    }

    pub fn take_rows(&mut self, set: &Set) -> Vec<Row> {
        let mut rows: Vec<Row> = std::mem::take(&mut self.gone_rows).into_iter().map(|key| (key, None)).collect();
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for (index, key) in dirty {
            let Some(rule) = set.rules.get(index as usize) else { continue };
            let state = self.all[index as usize].keys.get_mut(&key);
            let row = state.map(|state| {
                state.is_dirty = false;
                state.row()
            });
            rows.push((key_row(&rule.name, &key), row));
        }
        for (memory, rule) in self.all.iter_mut().zip(&set.rules) {
            if std::mem::take(&mut memory.is_tally_dirty) {
                rows.push((tally_row(&rule.name), Some(json(&memory.tally))));
            }
        }
        rows
    }

    /// A key's row, by what stands behind the kind. Of a rule that is not in the config any more it goes.
    ///
    /// # Errors
    /// When it does not read.
    pub fn load_key(&mut self, set: &Set, name: &str, row: &[u8]) -> Result<(), String> {
        let (rule, key) = name.split_once('\0').ok_or("its key has no rule")?;
        let mut state = KeyState::from_row(row)?;
        let Some(index) = set.index_of(rule) else {
            self.gone_rows.push(key_row(rule, key));
            return Ok(());
        };
        // Its file may have been edited while the node was down.
        plan_anew(&set.rules[index as usize], &mut state);
        self.mark(index, key, &Marks::default(), &Marks::of(&state));
        self.all[index as usize].keys.insert(key.to_owned(), state);
        Ok(())
    }

    pub fn load_tally(&mut self, set: &Set, rule: &str, tally: Tally) {
        match set.index_of(rule) {
            Some(index) => self.all[index as usize].tally = tally,
            None => self.gone_rows.push(tally_row(rule)),
        }
    }
}

fn key_row(rule: &str, key: &str) -> Vec<u8> {
    format!("k{rule}\0{key}").into_bytes()
}

fn tally_row(rule: &str) -> Vec<u8> {
    format!("t{rule}").into_bytes()
}
