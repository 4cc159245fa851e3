//! The node's own mind: what it makes of events beside keeping and moving them.
//!
//! | module | what it owns |
//! |---|---|
//! | [`cases`] | matters that somebody must deal with: their steps, clocks and rates |
//! | [`form`] | what categories and services ask, and whether answers are some |
//! | [`in_force`] | which config counts, and how a newer one takes its place |
//! | [`rules`] | conditions over events, and the alarms that they raise |
//! | [`services`] | what is offered here and above: services, activities, scenes |
//! | [`warnings`] | what came in by CAP, and when it is over |
//!
//! Pure, each part: [`Policy`] has no clock, no I/O and no random source. A part tells another
//! something only by events: a rule that opens a case writes an event that [`cases`] reads in the same
//! commit. One number is looked up: how new the alarms are that [`rules`] know, for the question that a box asks its
//! parent, which [`cases`] write for both. What they share of [`cases`] is its calendar, its letters and its ids; and
//! [`warnings`] says which of its events rules hear.

pub mod cases;
pub mod form;
pub mod in_force;
pub mod rules;
pub mod services;
#[cfg(test)]
mod tests;
pub mod warnings;

use chrono::{DateTime, TimeDelta, Utc};
use citybrain_hub::policy::{Make, Policy, Row};
use citybrain_hub::state::State;
use citybrain_shared::config::Config;
use citybrain_shared::record::{Draft, Header};
use citybrain_shared::{LogId, Pos};
use in_force::{Numbered, Slot};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows of the rules begin with it.
const RULES: u8 = b'r';

pub struct Brain {
    pub cases: cases::Cases,
    pub rules: rules::Rules,
    pub services: services::Services,
    pub warnings: warnings::Warnings,
    slot: Arc<Slot>,
    /// What the parts go by.
    in_force: Numbered,
    /// Which part has its turn to say what is due: no state, only manners.
    turn: AtomicUsize,
}

impl Brain {
    /// For [`citybrain_hub::engine::open`].
    pub fn make(config: &Config) -> Make {
        // One slot for all: a state that is read back anew goes by what is in force, too.
        let slot = Slot::new(config);
        Arc::new(move || {
            let (number, config) = slot.in_force();
            Box::new(Brain {
                cases: cases::Cases::new(&config),
                rules: rules::Rules::new(&config),
                services: services::Services::new(&config),
                warnings: warnings::Warnings::new(&config),
                slot: slot.clone(),
                in_force: (number, config),
                turn: AtomicUsize::new(0),
            })
        })
    }

    /// The brain of a state, for those who answer questions.
    pub fn of(state: &State) -> Option<&Brain> {
        state.policy_as()
    }

    /// The config that it goes by.
    pub fn in_force(&self) -> Arc<Config> {
        self.in_force.1.clone()
    }

    /// Where another is laid down.
    pub fn slot(&self) -> Arc<Slot> {
        self.slot.clone()
    }

    fn adopt(&mut self, newer: Numbered) {
        let config = &newer.1;
        self.rules.adopt(config.clone());
        self.cases.adopt(config);
        self.services.adopt(config);
        self.in_force = newer;
    }

    /// What the node's own rules, services and scenes name and nobody here or above has, a sentence each.
    pub fn nameless(&self) -> Vec<String> {
        let known = self.cases.categories();
        self.rules.nameless(&known).into_iter().chain(self.services.nameless(&known)).collect()
    }

    /// Rules that failed within a day, a sentence each. One that is mended is no longer named then.
    pub fn failing(&self, now: DateTime<Utc>) -> Vec<String> {
        self.rules.failing((now - TimeDelta::days(1)).timestamp_micros())
    }

    /// Activities of this node that are booked and still to come, and past by its config, a sentence each.
    pub fn past_by_a_slip(&self, now: DateTime<Utc>) -> Vec<String> {
        self.cases.past_by_a_slip(now).map(services::request::past_in_words).collect()
    }

    fn parts(&self) -> [(u8, &dyn Policy); 4] {
        [(b'c', &self.cases), (RULES, &self.rules), (services::PART, &self.services), (b'w', &self.warnings)]
    }

    fn parts_mut(&mut self) -> [(u8, &mut dyn Policy); 4] {
        [
            (b'c', &mut self.cases),
            (RULES, &mut self.rules),
            (services::PART, &mut self.services),
            (b'w', &mut self.warnings),
        ]
    }
}

/// What a part finds wrong with a config, in words.
#[cfg(test)]
pub(crate) fn found(
    problems: fn(&Config, &citybrain_shared::config::Places) -> Vec<citybrain_shared::config::Problem>,
    text: &str,
) -> Vec<String> {
    use citybrain_shared::config::{Variables, parse};
    let parsed = parse(&format!("[node]\naddress = \"c\"\ndata = \"d\"\n{text}"), &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    problems(&parsed.config.unwrap(), &parsed.places).into_iter().map(|p| p.message).collect()
}

/// Is this a record about a person who is forgotten at this node? Few name persons, and only for those the
/// state is looked at.
pub fn is_forgotten(hub: &citybrain_hub::Hub, header: &Header<'_>, payload: &[u8]) -> bool {
    cases::intake::may_name_persons(header, payload)
        && hub.state(|state| Brain::of(state).is_some_and(|brain| brain.cases.is_forgotten(header, payload)))
}

/// Is this a letter that only passes through this node, about a case that it never had?
pub fn is_passing(hub: &citybrain_hub::Hub, header: &Header<'_>, payload: &[u8]) -> bool {
    header.name == cases::letter::LETTER
        && hub.state(|state| Brain::of(state).is_some_and(|brain| brain.cases.is_passing(header, payload)))
}

impl Policy for Brain {
    fn decide(&self, state: &State, now_us: i64, header: &Header<'_>, payload: &[u8]) -> Vec<Draft> {
        let parts = self.parts();
        let of_parts = parts.into_iter().flat_map(|(_, p)| p.decide(state, now_us, header, payload));
        // What is offered goes down in the commit that puts it in force: whoever booked hears of a change once.
        let offered = self.slot.offered(header).and_then(|(_, config)| self.services.news(&config, now_us));
        of_parts.chain(offered).collect()
    }

    fn next_due_us(&self) -> Option<i64> {
        self.parts().into_iter().filter_map(|(_, p)| p.next_due_us()).min()
    }

    fn is_behind(&self) -> bool {
        self.parts().into_iter().any(|(_, p)| p.is_behind())
    }

    fn on_due(&self, state: &State, now_us: i64) -> Vec<Draft> {
        // A start is told of first: by that record rules know how long the node was down.
        if !self.rules.is_awake(state, now_us) {
            return Vec::new();
        }
        // One part at a time: what a rule says may be a step of a case that has a timer of its own due. In
        // turn, so that rules that always have something to say keep no call for help from climbing.
        let parts: [&dyn Policy; 4] = [&self.rules, &self.cases, &self.services, &self.warnings];
        let first = self.turn.load(Ordering::Relaxed);
        for i in (0..parts.len()).map(|i| (first + i) % parts.len()) {
            let group = parts[i].on_due(state, now_us);
            if !group.is_empty() {
                self.turn.store(i + 1, Ordering::Relaxed);
                return group;
            }
        }
        Vec::new()
    }

    fn apply(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        if let Some(newer) = self.slot.newer(header, self.in_force.0) {
            self.adopt(newer);
        }
        let is_for_rules = self.warnings.is_news(header, payload);
        for (_, part) in self.parts_mut().into_iter().filter(|(part, _)| is_for_rules || *part != RULES) {
            part.apply(pos, header, payload);
        }
    }

    fn begin_history(&mut self, log: LogId, first: Pos, now_us: i64) {
        for (_, part) in self.parts_mut() {
            part.begin_history(log, first, now_us);
        }
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let mut all = Vec::new();
        for (letter, part) in self.parts_mut() {
            all.extend(part.take_rows().into_iter().map(|(key, value)| ([&[letter], key.as_slice()].concat(), value)));
        }
        all
    }

    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let (letter, rest) = key.split_first().ok_or("a row without a key")?;
        match self.parts_mut().into_iter().find(|(l, _)| l == letter) {
            Some((_, part)) => part.load_row(rest, value),
            None => Err(format!("no part of this build owns rows of `{}`", char::from(*letter))),
        }
    }

    fn is_withheld(&self, header: &Header<'_>, payload: &[u8]) -> bool {
        self.cases.is_forgotten(header, payload)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
