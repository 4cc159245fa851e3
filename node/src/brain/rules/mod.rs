//! Conditions over events, and the alarms that they raise.
//!
//! | module | what it owns |
//! |---|---|
//! | [`expression`], [`template`] | CEL, compiled once |
//! | [`arithmetic`] | numbers of an event, with a fraction or without |
//! | [`rule`] | rules as they run, found by an event's type |
//! | [`window`] | what was seen lately, in bounded memory |
//! | [`keys`] | what a rule remembers of one value of its `by` |
//! | [`memory`] | what all rules remember, and the timers and [`raisers`] that are found by it: the one owner of that |
//! | [`queue`] | what was concluded and waits to be said: the one owner of that |
//! | [`step`] | what one event, or one moment, makes of what is remembered of a key; pure |
//! | [`timing`] | when a rule is to look at a key again, and what an edited file makes of that; pure |
//! | [`fold`] | what follows from a record: the only code that changes anything |
//! | [`recover`] | the part of it for alarms that outlive what was remembered of them, as behind a lost disk |
//! | [`boxes`] | which box each child is, and what the one before it had said |
//! | [`speak`] | conclusions and timers, turned into a group of records |
//! | [`telling`] | what a group says of alarms: each as the group leaves it, and who raises it by then |
//! | [`act`] | what a rule does: its actions |
//! | [`drafts`] | the records of a group, as they are written |
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
//! **Moments.** The log's own times decide, not when somebody looks. An event that comes to a key at or behind a moment
//! that was planned for it, of whatever kind, waits in the queue, too, uncounted: [`speak`] says first what that moment
//! has come to, as of its own time, and only then is the event met. An event that comes to a rule which waits for an
//! alarm waits until all that is older is said. Where alarms decide, a group says events and moments in the order of
//! their times, and ends where an alarm has turned for which some rule waits: the alarm's record says of which moment
//! that is, and what it lets fire is said before anything newer. So a node that is late (a slow disk, a busy machine)
//! says what one says that is not, and what [`rehearse`] says. Where nothing is due that costs one comparison.
//!
//! **Bounds.** Keys per rule, cells per window, values told apart, alarms, conclusions waiting: each
//! has a limit beside its constant, gives way oldest first, and counts what gave way.

mod act;
pub mod alarms;
mod arithmetic;
mod asking;
mod boxes;
pub mod check;
mod cost;
mod drafts;
pub mod expression;
mod fold;
mod keys;
mod memory;
mod queue;
mod raisers;
mod recover;
pub mod rehearse;
mod rule;
mod said;
mod speak;
mod step;
mod telling;
mod template;
#[cfg(test)]
mod tests;
mod timing;
mod uptime;
mod window;

pub use asking::{AskError, Wish};

use super::services::Catalogue;
use alarms::Table;
use boxes::Boxes;
use citybrain_hub::policy::{Policy, Row};
use citybrain_hub::state::State;
use citybrain_shared::config::cases::Category;
use citybrain_shared::config::rules::{Action, Rule};
use citybrain_shared::config::{Config, presets};
use citybrain_shared::record::{Draft, Header};
use citybrain_shared::view::{self, RuleState};
use citybrain_shared::{Address, LogId, Pos, words};
use memory::Memories;
use queue::Queue;
use rule::{Above, Set};
use std::any::Any;
use std::sync::{Arc, OnceLock};
use uptime::Uptime;

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
    memories: Memories,
    pub alarms: Table,
    /// The newest revision of this node's own alarms when its log began its present history; 0: it knew none.
    newest_before: i64,
    dirty_newest_before: bool,
    boxes: Boxes,
    waiting: Queue,
    uptime: Uptime,
    dirty_uptime: bool,
    /// When this process first asked for what is due.
    first_asked_us: OnceLock<i64>,
}

impl Rules {
    pub fn new(config: &Config) -> Rules {
        let (set, _) = Set::compile(config, &Above::new());
        Rules {
            memories: Memories::new(&set),
            me: config.node.address.clone(),
            has_parent: config.parent.is_some() && config.node.address.parent().is_some(),
            set,
            config: Arc::new(config.clone()),
            above: Above::new(),
            dirty_above: false,
            alarms: Table::default(),
            newest_before: 0,
            dirty_newest_before: false,
            boxes: Boxes::default(),
            waiting: Queue::default(),
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
        self.memories.adopt(old, &self.set);
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
        (self.set.has_absences && self.memories.next_due_us().is_some()).then(|| self.uptime.next_us())
    }

    fn index_of(&self, rule: &str) -> Option<u32> {
        self.set.index_of(rule)
    }

    /// The same of one that raises alarms.
    fn latching(&self, rule: &str) -> Option<u32> {
        self.index_of(rule).filter(|rule| self.set.rules[*rule as usize].latches())
    }

    /// One of the rules, for `citybrain rule list`: its keys are counted, some microseconds for a thousand.
    pub fn view_of(&self, index: usize) -> Option<RuleState> {
        let r = self.set.rules.get(index)?;
        let (keys, tally) = (self.memories.keys(index as u32), self.memories.tally(index as u32));
        Some(RuleState {
            name: r.name.clone(),
            on: r.on.clone(),
            condition: r.in_words(),
            then: r.then.iter().map(rule::Action::in_words).collect(),
            keys: keys.len() as u64,
            on_keys: keys.values().filter(|k| k.on).count() as u64,
            matched: tally.matched,
            fired: tally.fired,
            errors: tally.errors,
            last_error: tally.last_error.clone(),
            last_fired_at: tally.last_fired_us.map(view::time_of),
            keys_given_way: tally.given_way,
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
        let is_raised =
            || self.memories.raisers().of(alarms::hash(&a.name, &a.key)).any(|r| self.hears(r.rule, &r.key));
        a.active && a.origin == self.me && !is_ended() && !self.set.cleared.contains(&a.name) && !is_raised()
    }

    /// May what comes still lead the rule to that key, for all that is known? It came to it by other types, or told
    /// them apart otherwise, if it was edited since.
    fn hears(&self, rule: u32, key: &str) -> bool {
        let state = self.memories.get(rule, key).filter(|state| state.on);
        state.is_none_or(|state| state.hears == self.set.rules[rule as usize].hears)
    }

    /// What its parent knows of this node's alarms beyond that is said since: by the box that was here, or by this one
    /// before a backup was put back.
    pub fn newest_before(&self) -> i64 {
        self.newest_before
    }

    /// Rules that could not be judged, or could not do what they are to, since then: a sentence each.
    pub fn failing(&self, since_us: i64) -> Vec<String> {
        let tallies = self.set.rules.iter().enumerate().map(|(i, rule)| (rule, self.memories.tally(i as u32)));
        let failing = tallies.filter(|(_, tally)| tally.last_error_us.is_some_and(|at| at >= since_us));
        let of = |(rule, tally): (&rule::Rule, &memory::Tally)| {
            let (name, times) = (&rule.name, words::counted(tally.errors, "time"));
            format!("rule {name} has failed {times}, the last: {}", tally.last_error.as_deref().unwrap_or_default())
        };
        failing.map(of).collect()
    }

    /// Of which categories the node's own rules open cases and nobody here or above has them, a sentence each.
    pub fn nameless(&self, known: &[Category]) -> Vec<String> {
        let lacks = |code: &&str| !known.iter().any(|c| c.code == *code || c.name == *code);
        let named = |rule: &Rule, code: &str| {
            let name = &rule.name;
            format!("rule {name}: nobody here or above has a category `{code}`: its cases get no limits")
        };
        let of = |rule: &Rule| {
            let told: Vec<String> =
                rule.then.iter().filter_map(Action::opens).filter(lacks).map(|code| named(rule, code)).collect();
            // What a preset brings is for nobody here to mend.
            if told.is_empty() || presets::brings(rule, self.me.tier()) { Vec::new() } else { told }
        };
        self.config.rule.iter().flat_map(of).collect()
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
            dropped: self.waiting.dropped(),
        }
    }
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
        self.memories.next_due_us().map(|at| self.shows_us().map_or(at, |shows| shows.min(at)))
    }

    fn is_behind(&self) -> bool {
        self.waiting.is_behind()
    }

    fn on_due(&self, state: &State, now_us: i64) -> Vec<Draft> {
        let group = self.speak(now_us);
        let is_told = self.uptime.started == state.me.boot.counter;
        if group.is_empty() && is_told && self.shows_us().is_some_and(|at| at <= now_us) {
            return self.show_up(now_us);
        }
        group
    }

    fn begin_history(&mut self, _: LogId, first: Pos, now_us: i64) {
        self.newest_before = self.alarms.iter().filter(|a| a.origin == self.me).map(|a| a.rev).max().unwrap_or(0);
        self.dirty_newest_before = true;
        self.memories.begin_anew(&self.set, first, now_us);
        self.waiting.begin_anew(first);
    }

    fn apply(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        self.meet(pos, header, payload);
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let mut rows = self.memories.take_rows(&self.set);
        for (id, alarm) in self.alarms.take_dirty() {
            rows.push((format!("a{id}").into_bytes(), alarm.as_ref().map(json)));
        }
        rows.extend(self.alarms.take_floor().map(|floor| (b"f".to_vec(), Some(json(&floor)))));
        rows.extend(self.alarms.take_retired().map(|retired| (b"g".to_vec(), Some(json(retired)))));
        if std::mem::take(&mut self.dirty_newest_before) {
            rows.push((b"n".to_vec(), Some(json(&self.newest_before))));
        }
        for (child, known) in self.boxes.take_dirty() {
            rows.push((format!("b{child}").into_bytes(), known.map(json)));
        }
        rows.extend(self.waiting.take_row());
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
            "b" => {
                let child = Address::parse(name).map_err(|e| e.to_string())?;
                self.boxes.load(child, serde_json::from_slice(value).map_err(said)?);
            }
            "c" => {
                let all: Vec<_> = serde_json::from_slice(value).map_err(said)?;
                self.above = all.into_iter().collect();
                self.adopt(self.config.clone());
            }
            "f" => self.alarms.load_floor(serde_json::from_slice(value).map_err(said)?),
            "g" => self.alarms.load_retired(serde_json::from_slice(value).map_err(said)?),
            "n" => self.newest_before = serde_json::from_slice(value).map_err(said)?,
            "p" => self.uptime = serde_json::from_slice(value).map_err(said)?,
            "w" => self.waiting.load(value).map_err(said)?,
            "t" => self.memories.load_tally(&self.set, name, serde_json::from_slice(value).map_err(said)?),
            "k" => self.memories.load_key(&self.set, name, value)?,
            other => return Err(format!("kind `{other}` is not known to this build")),
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
