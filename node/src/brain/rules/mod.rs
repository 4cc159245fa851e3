//! Conditions over events, and the alarms that they raise.
//!
//! | module | what it owns |
//! |---|---|
//! | [`expression`], [`template`] | CEL, compiled once |
//! | [`rule`] | rules as they run, found by an event's type |
//! | [`window`] | what was seen lately, in bounded memory |
//! | [`keys`] | what a rule remembers for each value of its `by` |
//! | [`raisers`] | which of them raise an alarm |
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
//! Killed in between, the queue is still there. Timers go the same way. Where a rule would fire that depends on
//! another alarm, what waits in the queue is the event itself: [`speak`] knows what came before it, and says with
//! the rest whether that let the rule fire; the fold of that record has the rule meet the event.
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
mod raisers;
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
use keys::{Intent, KeyState, Marks, Memory, Tally};
use raisers::Raisers;
use rule::{Above, Set};
use speak::Speaker;
use std::any::Any;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use uptime::Uptime;

/// Conclusions that wait to be said before [`Policy::is_behind`] asks for time: some groups of them.
const BEHIND: usize = 1_000;
/// Conclusions that wait, and bytes of the events that they hold. One commit, of 4,096 records or
/// frames, may bring some ten thousands with many rules on one type; what is beyond is dropped, the
/// oldest first, and counted.
const WAITING_MAX: usize = 100_000;
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Alarms that are named when no rule ends them.
const LEFT_MAX: usize = 100;

pub struct Rules {
    set: Set,
    /// Where the set is from.
    config: Arc<Config>,
    /// What it goes by where the config has no calendar.
    above: Above,
    dirty_above: bool,
    me: Address,
    has_parent: bool,
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
    raisers: Raisers,
    dirty_keys: HashSet<(u32, String)>,
    dirty_tallies: HashSet<u32>,
    dirty_waiting: bool,
    gone_rows: Vec<Vec<u8>>,
    uptime: Uptime,
    dirty_uptime: bool,
    /// When this process first asked for what is due.
    first_asked_us: OnceLock<i64>,
}

/// Type of the record that shows that the node is up.
const UP: &str = "city.brain.rule.up";

impl Rules {
    pub fn new(config: &Config) -> Rules {
        let (set, _) = Set::compile(config, &Above::new());
        Rules {
            memories: set.rules.iter().map(|_| Memory::default()).collect(),
            me: config.node.address.clone(),
            has_parent: config.parent.is_some() && config.node.address.parent().is_some(),
            set,
            config: Arc::new(config.clone()),
            above: Above::new(),
            dirty_above: false,
            alarms: Table::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            dropped: 0,
            late: (0, 0),
            due: BTreeSet::new(),
            raisers: Raisers::default(),
            dirty_keys: HashSet::new(),
            dirty_tallies: HashSet::new(),
            dirty_waiting: false,
            gone_rows: Vec::new(),
            uptime: Uptime::default(),
            dirty_uptime: false,
            first_asked_us: OnceLock::new(),
        }
    }

    /// Takes over the rules of another config; windows and alarms of those whose name stays are kept.
    pub fn adopt(&mut self, config: Arc<Config>) {
        let (set, _) = Set::compile(&config, &self.above);
        self.config = config;
        let old = std::mem::replace(&mut self.set, set);
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
        self.raisers.clear();
        for (i, memory) in self.memories.iter_mut().enumerate() {
            for (key, state) in &mut memory.keys {
                fold::plan_anew(&self.set.rules[i], state);
                self.dirty_keys.insert((i as u32, key.clone()));
                self.due.extend(state.due.map(|d| (d.at_us, i as u32, key.clone())));
                self.raisers.add(i as u32, key, &state.raised);
            }
            self.dirty_tallies.insert(i as u32);
        }
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
        self.adopt(self.config.clone());
    }

    /// When a record is to show that the node is up, if none does: while something may be missed.
    fn shows_us(&self) -> Option<i64> {
        (self.set.has_absences && !self.due.is_empty()).then(|| self.uptime.next_us())
    }

    fn index_of(&self, rule: &str) -> Option<u32> {
        self.set.index_of(rule)
    }

    /// The same of one that raises alarms.
    fn latching(&self, rule: &str) -> Option<u32> {
        self.index_of(rule).filter(|rule| self.set.rules[*rule as usize].latches())
    }

    /// What a rule waits for and raises is another for this key.
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

    /// Active alarms of this node that no rule in force will end.
    pub fn left(&self) -> impl Iterator<Item = &view::Alarm> {
        self.alarms.iter().filter(|a| self.is_left(a))
    }

    /// The first of them as they are told, and how many more there are.
    pub fn left_named(&self) -> (Vec<view::AlarmLeft>, u64) {
        let of = |a: &view::Alarm| view::AlarmLeft {
            id: a.id.clone(),
            name: a.name.clone(),
            key: a.key.clone(),
            rule: a.rule.clone(),
        };
        let mut all = self.left();
        let first = all.by_ref().take(LEFT_MAX).map(of).collect();
        (first, all.count() as u64)
    }

    /// Is it active, and its rule gone?
    pub fn is_left(&self, a: &view::Alarm) -> bool {
        // A rule that is back, or has lost its memory, takes up what it had raised with the next event and ends it.
        let is_ended = || self.latching(&a.rule).is_some_and(|rule| self.hears(rule, &a.rule_key));
        let is_raised = || self.raisers.of(alarms::hash(&a.name, &a.key)).any(|r| self.hears(r.rule, &r.key));
        a.active && a.origin == self.me && !is_ended() && !self.set.cleared.contains(&a.name) && !is_raised()
    }

    /// May what comes still lead the rule to that key, for all that is known? It came to it by other types, or told
    /// them apart otherwise, if it was edited since.
    fn hears(&self, rule: u32, key: &str) -> bool {
        let state = self.memories[rule as usize].keys.get(key).filter(|state| state.on);
        state.is_none_or(|state| state.hears == self.set.rules[rule as usize].hears)
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
        rows.extend(self.alarms.take_floor().map(|floor| (b"f".to_vec(), Some(json(&floor)))));
        rows.extend(self.alarms.take_retired().map(|retired| (b"g".to_vec(), Some(json(retired)))));
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
                self.adopt(self.config.clone());
            }
            "f" => self.alarms.load_floor(serde_json::from_slice(value).map_err(said)?),
            "g" => self.alarms.load_retired(serde_json::from_slice(value).map_err(said)?),
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
                        self.mark(i, by, &Marks::default(), &state.marks());
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
