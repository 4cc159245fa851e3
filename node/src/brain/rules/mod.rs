//! Conditions over events, and the alarms that they raise.
//!
//! | module | what it owns |
//! |---|---|
//! | [`expression`], [`template`] | CEL, compiled once |
//! | [`rule`] | rules as they run, found by an event's type |
//! | [`window`] | what was seen lately, in bounded memory |
//! | [`keys`] | what a rule remembers for each value of its `by` |
//! | [`fold`] | what follows from a record: the only code that changes anything |
//! | [`speak`] | conclusions and timers, turned into records |
//! | [`said`] | the record that says which conclusions are done |
//! | [`asking`] | what people want done with an alarm, turned into records |
//! | [`alarms`] | the life of an alarm, and the table of all that are known |
//! | [`check`] | what is wrong with rules before they run |
//! | [`uptime`] | how long the node was there to hear anything |
//! | [`cost`] | what a condition may cost whoever runs it for others |
//! | [`rehearse`] | rules over recorded events |
//!
//! **Constraints.** A rule never speaks twice of one event, nor forgets to, whatever is killed; what
//! it knows is the same after a replay; an event that no rule names costs a look at its type.
//!
//! **Operation.** [`fold`] meets every record once, live or in a replay, in the order of the log: it
//! counts, evaluates, and puts what it concludes into a queue that is part of the state. A frame of
//! 256 records is thus counted one by one, which `decide`, asked before any of them is folded in,
//! could not do. [`speak`] is asked right after the commit that a conclusion came from, and gives one
//! group: a record that says which conclusions are done and why, and all that follows from them.
//! Killed in between, the queue is still there. Timers go the same way.
//!
//! **Bounds.** Keys per rule, cells per window, values told apart, alarms, conclusions waiting: each
//! has a limit beside its constant, gives way oldest first, and counts what gave way.

pub mod alarms;
mod asking;
pub mod check;
mod cost;
pub mod expression;
mod fold;
mod keys;
pub mod rehearse;
mod rule;
mod said;
mod speak;
mod template;
#[cfg(test)]
mod tests;
mod uptime;
mod window;

pub use asking::{AskError, Wish};

use super::services::Catalogue;
use alarms::Table;
use citybrain_hub::policy::{Policy, Row};
use citybrain_hub::state::State;
use citybrain_shared::config::Config;
use citybrain_shared::record::{Draft, Header};
use citybrain_shared::view::{self, RuleState};
use citybrain_shared::{Address, Pos};
use keys::{Due, Intent, KeyState, Memory, Tally};
use rule::{Above, Set};
use speak::Speaker;
use std::any::Any;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use uptime::Uptime;

/// Conclusions that wait to be said before [`Policy::is_behind`] asks for time: some groups of them.
const BEHIND: usize = 1_000;
/// Conclusions that wait, and bytes of the events that they hold. One commit, of 4,096 records or
/// frames, may bring some ten thousands with many rules on one type; what is beyond is dropped, the
/// oldest first, and counted.
const WAITING_MAX: usize = 100_000;
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

pub struct Rules {
    set: Set,
    /// Where the set is from.
    config: Arc<Config>,
    /// What it goes by where the config has no calendar.
    above: Above,
    dirty_above: bool,
    me: Address,
    /// By the rule's index in the set.
    memories: Vec<Memory>,
    pub alarms: Table,
    waiting: VecDeque<Intent>,
    waiting_bytes: usize,
    dropped: u64,
    /// Records that came while what waits was late already, and when the last of them did.
    late: (u32, i64),
    /// When something is due, and for which rule and key.
    due: BTreeSet<(i64, u32, String)>,
    dirty_keys: HashSet<(u32, String)>,
    dirty_tallies: HashSet<u32>,
    dirty_waiting: bool,
    gone_rows: Vec<Vec<u8>>,
    slot: Arc<Slot>,
    adopted: u64,
    uptime: Uptime,
    dirty_uptime: bool,
    /// When this process first asked for what is due.
    first_asked_us: OnceLock<i64>,
}

/// Type of the record that says which rules are in force from here on.
pub const LOADED: &str = "city.brain.rule.loaded";

/// Type of the record that shows that the node is up.
const UP: &str = "city.brain.rule.up";

/// Which rules are in force, and where a newer set is laid down for the running one to take over.
///
/// A set that is [`offered`](Slot::offer) is taken over with the record that says so; what comes of
/// that record's commit is told by [`confirm`](Slot::confirm) or [`withdraw`](Slot::withdraw). A state
/// that is read back anew, because the commit failed, begins with what was confirmed.
pub struct Slot {
    /// Number of the set in force: a look at it costs no lock.
    version: AtomicU64,
    sets: parking_lot::Mutex<Sets>,
}

struct Sets {
    in_force: Arc<Config>,
    offered: Option<Offer>,
    /// How many there have been, the first not counted.
    numbered: u64,
}

#[derive(Clone)]
struct Offer {
    /// Of the record that puts it in force.
    key: u64,
    number: u64,
    config: Arc<Config>,
}

impl Slot {
    pub fn new(config: &Config) -> Arc<Slot> {
        let sets = Sets { in_force: Arc::new(config.clone()), offered: None, numbered: 0 };
        Arc::new(Slot { version: AtomicU64::new(0), sets: parking_lot::Mutex::new(sets) })
    }

    /// Lays down a set, to be taken over with the [`LOADED`] record of this key; windows and alarms of
    /// rules whose name stays are kept.
    pub fn offer(&self, key: u64, config: Arc<Config>) {
        let mut sets = self.sets.lock();
        sets.numbered += 1;
        sets.offered = Some(Offer { key, number: sets.numbered, config });
    }

    /// The record is on disk.
    pub fn confirm(&self) {
        let mut sets = self.sets.lock();
        if let Some(offer) = sets.offered.take() {
            sets.in_force = offer.config;
            self.version.store(offer.number, Ordering::Release);
        }
    }

    /// The record is not on disk.
    pub fn withdraw(&self) {
        self.sets.lock().offered = None;
    }

    fn in_force(&self) -> (u64, Arc<Config>) {
        let sets = self.sets.lock();
        (self.version.load(Ordering::Acquire), sets.in_force.clone())
    }

    fn offered(&self, key: u64) -> Option<(u64, Arc<Config>)> {
        self.sets.lock().offered.as_ref().filter(|o| o.key == key).map(|o| (o.number, o.config.clone()))
    }
}

impl Rules {
    pub fn new(config: &Config) -> Rules {
        Rules::with(Slot::new(config))
    }

    pub fn with(slot: Arc<Slot>) -> Rules {
        let (adopted, config) = slot.in_force();
        let (set, _) = Set::compile(&config, &Above::new());
        Rules {
            memories: set.rules.iter().map(|_| Memory::default()).collect(),
            me: config.node.address.clone(),
            set,
            config,
            above: Above::new(),
            dirty_above: false,
            alarms: Table::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            dropped: 0,
            late: (0, 0),
            due: BTreeSet::new(),
            dirty_keys: HashSet::new(),
            dirty_tallies: HashSet::new(),
            dirty_waiting: false,
            gone_rows: Vec::new(),
            slot,
            adopted,
            uptime: Uptime::default(),
            dirty_uptime: false,
            first_asked_us: OnceLock::new(),
        }
    }

    pub fn slot(&self) -> Arc<Slot> {
        self.slot.clone()
    }

    /// The rules in force, as a config file says them.
    pub fn in_force(&self) -> &[citybrain_shared::config::rules::Rule] {
        &self.config.rule
    }

    /// Takes over a newer set of rules.
    fn adopt(&mut self, (version, config): (u64, Arc<Config>)) {
        let (set, _) = Set::compile(&config, &self.above);
        let old = std::mem::replace(&mut self.set, set);
        self.config = config;
        let memories = std::mem::take(&mut self.memories);
        // What gave way, and is not written yet, must not be there again at the next start.
        for (index, key) in std::mem::take(&mut self.dirty_keys) {
            let Some(rule) = old.rules.get(index as usize) else { continue };
            if !memories[index as usize].keys.contains_key(&key) {
                self.gone_rows.push(key_row(&rule.name, &key));
            }
        }
        let mut by_name: HashMap<String, Memory> = old.rules.into_iter().map(|r| r.name).zip(memories).collect();
        self.memories = self.set.rules.iter().map(|r| by_name.remove(&r.name).unwrap_or_default()).collect();
        for (name, memory) in by_name {
            self.gone_rows.extend(memory.keys.keys().map(|key| key_row(&name, key)));
            self.gone_rows.push(tally_row(&name));
        }
        self.due.clear();
        for (i, memory) in self.memories.iter_mut().enumerate() {
            for (key, state) in &mut memory.keys {
                fold::plan_anew(&self.set.rules[i], state);
                self.dirty_keys.insert((i as u32, key.clone()));
                self.due.extend(state.due.map(|d| (d.at_us, i as u32, key.clone())));
            }
            self.dirty_tallies.insert(i as u32);
        }
        self.adopted = version;
    }

    /// A node above says when people work there. What waits for an hour or a day is planned anew.
    fn inherit(&mut self, Catalogue { node, calendar, .. }: Catalogue) {
        if node == self.me || !node.covers(&self.me) || self.above.get(&node) == calendar.as_ref() {
            return;
        }
        match calendar {
            Some(days) => drop(self.above.insert(node, days)),
            None => drop(self.above.remove(&node)),
        }
        self.dirty_above = true;
        self.adopt((self.adopted, self.config.clone()));
    }

    /// When a record is to show that the node is up, if none does: while something may be missed.
    fn shows_us(&self) -> Option<i64> {
        (self.set.has_absences && !self.due.is_empty()).then(|| self.uptime.next_us())
    }

    fn index_of(&self, rule: &str) -> Option<u32> {
        self.set.rules.iter().position(|r| r.name == rule).map(|i| i as u32)
    }

    fn set_due(&mut self, rule: u32, key: &str, old: Option<Due>, new: Option<Due>) {
        if old == new {
            return;
        }
        if let Some(d) = old {
            self.due.remove(&(d.at_us, rule, key.to_owned()));
        }
        if let Some(d) = new {
            self.due.insert((d.at_us, rule, key.to_owned()));
        }
    }

    /// One of the rules, for `citybrain rule list`: its keys are counted, some microseconds for a thousand.
    pub fn view_of(&self, index: usize) -> Option<RuleState> {
        let rule = self.set.rules.iter().zip(&self.memories).nth(index);
        rule.map(|(r, m)| RuleState {
            name: r.name.clone(),
            on: r.on.clone(),
            condition: r.in_words(),
            then: r.then.iter().map(rule::Action::in_words).collect(),
            keys: m.keys.len() as u64,
            on_keys: m.keys.values().filter(|k| k.on).count() as u64,
            matched: m.tally.matched,
            fired: m.tally.fired,
            errors: m.tally.errors,
            last_error: m.tally.last_error.clone(),
            last_fired_at: m.tally.last_fired_us.map(view::time_of),
            keys_given_way: m.tally.given_way,
        })
    }

    /// Active alarms of this node that no rule in force will end: theirs is gone, or knows nothing of them.
    pub fn left(&self) -> impl Iterator<Item = &view::Alarm> {
        let is_on = |a: &view::Alarm| {
            let memory = self.index_of(&a.rule).map(|index| &self.memories[index as usize]);
            memory.and_then(|m| m.keys.get(&a.rule_key)).is_some_and(|state| state.on)
        };
        let clears = |a: &view::Alarm| {
            let mut actions = self.set.rules.iter().flat_map(|r| &r.then);
            actions.any(|action| matches!(action, rule::Action::Clear { alarm, .. } if *alarm == a.name))
        };
        self.alarms.iter().filter(move |a| a.active && a.origin == self.me && !is_on(a) && !clears(a))
    }

    /// All of them.
    pub fn view(&self) -> view::Rules {
        let rules = (0..).map_while(|index| self.view_of(index)).collect();
        view::Rules { rules, ..self.view_of_none() }
    }

    /// What is to be said without any rule.
    pub fn view_of_none(&self) -> view::Rules {
        view::Rules {
            rules: Vec::new(),
            calendar: self.set.calendar.clone(),
            waiting: self.waiting.len() as u64,
            dropped: self.dropped,
        }
    }
}

fn key_row(rule: &str, key: &str) -> Vec<u8> {
    format!("k{rule}\0{key}").into_bytes()
}

fn tally_row(rule: &str) -> Vec<u8> {
    format!("t{rule}").into_bytes()
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("these types have string keys only")
}

impl Policy for Rules {
    /// Nothing: see the module's text.
    fn decide(&self, _: &State, _: i64, _: &Header<'_>, _: &[u8]) -> Vec<Draft> {
        Vec::new()
    }

    fn next_due_us(&self) -> Option<i64> {
        if !self.waiting.is_empty() {
            return Some(i64::MIN / 2);
        }
        self.due.first().map(|(at, _, _)| self.shows_us().map_or(*at, |shows| shows.min(*at)))
    }

    fn is_behind(&self) -> bool {
        self.waiting.len() > BEHIND
    }

    fn on_due(&self, state: &State, now_us: i64) -> Vec<Draft> {
        let group = self.speak(now_us);
        let is_told = self.uptime.started == state.me.boot.counter;
        if group.is_empty() && is_told && self.shows_us().is_some_and(|at| at <= now_us) {
            return Speaker::new(self, now_us).up();
        }
        group
    }

    fn apply(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        if header.name == LOADED
            && let Some(offer) = self.slot.offered(header.key)
        {
            self.adopt(offer);
        } else if self.slot.version.load(Ordering::Relaxed) > self.adopted {
            self.adopt(self.slot.in_force());
        }
        self.meet(pos, header, payload);
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let mut rows: Vec<Row> = std::mem::take(&mut self.gone_rows).into_iter().map(|key| (key, None)).collect();
        for (index, key) in std::mem::take(&mut self.dirty_keys) {
            let Some(rule) = self.set.rules.get(index as usize) else { continue };
            let state = self.memories[index as usize].keys.get(&key);
            rows.push((key_row(&rule.name, &key), state.map(KeyState::row)));
        }
        for index in std::mem::take(&mut self.dirty_tallies) {
            let Some(rule) = self.set.rules.get(index as usize) else { continue };
            rows.push((tally_row(&rule.name), Some(json(&self.memories[index as usize].tally))));
        }
        for (id, alarm) in self.alarms.take_dirty() {
            rows.push((format!("a{id}").into_bytes(), alarm.as_ref().map(json)));
        }
        if std::mem::take(&mut self.dirty_waiting) {
            rows.push((b"w".to_vec(), Some(json(&(self.dropped, &self.waiting)))));
        }
        if std::mem::take(&mut self.dirty_above) {
            let all: Vec<_> = self.above.iter().collect();
            rows.push((b"c".to_vec(), Some(json(&all))));
        }
        if std::mem::take(&mut self.dirty_uptime) {
            rows.push((b"p".to_vec(), Some(json(&self.uptime))));
        }
        rows
    }

    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(key).map_err(|e| e.to_string())?;
        let (letter, name) = text.split_at_checked(1).ok_or("a row without a key")?;
        let said = |e: serde_json::Error| e.to_string();
        match letter {
            "a" => self.alarms.load(serde_json::from_slice(value).map_err(said)?),
            "c" => {
                let all: Vec<_> = serde_json::from_slice(value).map_err(said)?;
                self.above = all.into_iter().collect();
                self.adopt((self.adopted, self.config.clone()));
            }
            "p" => self.uptime = serde_json::from_slice(value).map_err(said)?,
            "w" => {
                (self.dropped, self.waiting) = serde_json::from_slice(value).map_err(said)?;
                self.waiting_bytes = self.waiting.iter().map(Intent::bytes).sum();
            }
            "t" => {
                let tally: Tally = serde_json::from_slice(value).map_err(said)?;
                match self.index_of(name) {
                    Some(i) => self.memories[i as usize].tally = tally,
                    None => self.gone_rows.push(key.to_vec()),
                }
            }
            "k" => {
                let (rule, by) = name.split_once('\0').ok_or("its key has no rule")?;
                let mut state = KeyState::from_row(value)?;
                match self.index_of(rule) {
                    Some(i) => {
                        // Its file may have been edited while the node was down.
                        fold::plan_anew(&self.set.rules[i as usize], &mut state);
                        self.due.extend(state.due.map(|d| (d.at_us, i, by.to_owned())));
                        self.memories[i as usize].keys.insert(by.to_owned(), state);
                    }
                    // The rule is not in the config any more.
                    None => self.gone_rows.push(key.to_vec()),
                }
            }
            other => return Err(format!("kind `{other}` is not known to this build")),
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
