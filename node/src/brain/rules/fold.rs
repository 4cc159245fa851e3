//! What follows from a record: each is met once, live or in a replay, in the order of the log.
//!
//! The only code that changes anything: what it decides is in [`step`], what it changes belongs to
//! [`Memories`](super::memory::Memories), the queue, the table of alarms and [`Uptime`](super::uptime::Uptime).

use super::Rules;
use super::alarms::{self, Turn, id_of};
use super::asking::Ask;
use super::expression::Facts;
use super::keys::{Held, KeyState};
use super::queue::{Conclusion, Counted, Intent, Meet};
use super::rule::{Action, Dependency, Rule};
use super::said::{FIRED, Outcome, Said, SaidOf};
use super::step::{self, Free, Met, Step};
use crate::brain::cases;
use crate::brain::in_force::LOADED;
use crate::brain::services::CATALOGUE;
use chrono::{DateTime, Utc};
use citybrain_hub::state::{RETIRED_TYPE, RETURNED_TYPE, subtree_of};
use citybrain_shared::record::{Direction, Header, Kind};
use citybrain_shared::view::{self, Alarm};
use citybrain_shared::{Address, Pos, Tier, event};
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::HashSet;

/// Rules that fire on what rules emitted; deeper than this is a circle.
const HOPS_MAX: u64 = 4;
/// The attribute that counts them.
pub const HOPS: &str = "rulehops";
/// The attribute of an alarm's event that says of which moment a rule's word is, if that is before it was written.
pub const MOMENT: &str = "rulemoment";
/// How far the records' time may step back before what was written ahead of it is taken back, too. Less
/// is an adjustment of the clock, and time stands still until it is made up for.
const AHEAD_US: i64 = 600_000_000;
/// Bytes of an event about an alarm that is believed of another node: title, keys and some times. Fifty thousand are kept.
const ALARM_BYTES_MAX: usize = 16 * 1024;

#[derive(Deserialize)]
struct DataOf<T> {
    data: T,
}

fn data_of<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Option<T> {
    serde_json::from_slice::<DataOf<T>>(payload).ok().map(|d| d.data)
}

/// The moment of which a rule's word on an alarm is: it may be said much later.
fn moment_of(payload: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Dated {
        rulemoment: Option<DateTime<Utc>>,
    }
    let dated = serde_json::from_slice::<Dated>(payload).ok()?;
    dated.rulemoment.map(|at| at.timestamp_micros())
}

impl Rules {
    pub(super) fn meet(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        if header.committed_us.saturating_add(AHEAD_US) < self.uptime.latest_us {
            self.take_back(header.committed_us);
            self.uptime.set_back(header.committed_us);
            self.dirty_uptime = true;
            self.waiting.forget_late();
        }
        if header.kind == Kind::Presence && header.origin.is_none() {
            self.start(header.committed_us, payload);
            return self.look_at_own(pos, header.committed_us);
        }
        if self.set.has_absences {
            self.note_time(header.committed_us);
        }
        if header.kind != Kind::Event {
            return;
        }
        if header.name.starts_with(event::OWN) {
            self.own_word(pos, header, payload);
            if header.name.starts_with("city.brain.rule.") {
                return; // a rule on `*` would speak of its own words
            }
        }
        if self.set.is_empty() {
            return;
        }
        let Some(rules) = self.set.on(header.name) else { return };
        self.waiting.forget_stale(header.committed_us);
        self.note_time(header.committed_us);
        let me = self.me.clone();
        let origin = header.origin.map_or(me.as_str(), |o| o.address);
        let Some(facts) = Facts::new(payload, origin, header.committed_us, &self.set.node) else { return };
        let hops = facts.json.get(HOPS).and_then(Json::as_u64).unwrap_or(0);
        // This address has met it. What was active then is known above, if it reaches so far; who has fallen silent since
        // is not.
        for index in rules.iter().copied() {
            let rule = &self.set.rules[index as usize];
            if header.had_before && rule.absent_us.is_none() && !self.is_found_anew(rule) {
                continue;
            }
            if hops >= HOPS_MAX {
                let why = format!("{hops} rules caused each other; the chain ends here");
                self.memories.tally_mut(index).failed(&why, header.committed_us);
                continue;
            }
            let held =
                || Held { had_before: header.had_before, ..Held::new(pos, header.committed_us, origin, payload) };
            if let Err(why) = self.consider(index, &facts, &held, pos, header.committed_us) {
                self.memories.tally_mut(index).failed(&why, header.committed_us);
            }
        }
    }

    /// Do nodes above know how it is with what reaches so far?
    pub(super) fn is_known_above(&self, reach: Tier) -> bool {
        self.has_parent && reach < self.me.tier()
    }

    /// Is all that the rule says of alarms found by what comes again? Not by a count that begins anew, and not beside
    /// what is known above.
    fn is_found_anew(&self, rule: &Rule) -> bool {
        let is_of_alarms = |a: &Action| matches!(a, Action::Raise { .. } | Action::Clear { .. });
        let is_above = |a: &Action| matches!(a, Action::Raise { reach, .. } if self.is_known_above(*reach));
        let is_all_here = rule.then.iter().any(is_of_alarms) && !rule.then.iter().any(is_above);
        !self.has_parent || is_all_here && rule.window.is_none()
    }

    fn note_time(&mut self, now_us: i64) {
        self.dirty_uptime |= self.uptime.note(now_us);
    }

    /// One rule meets one event. What cannot be evaluated is an error, and counts as "no".
    fn consider(
        &mut self,
        index: u32,
        facts: &Facts,
        held: &dyn Fn() -> Held,
        pos: Pos,
        at_us: i64,
    ) -> Result<(), String> {
        let rule = &self.set.rules[index as usize];
        if let Some(only) = &rule.only
            && !only.truth(facts, None)?
        {
            return Ok(());
        }
        self.memories.tally_mut(index).matched += 1;
        let key = rule.key(facts)?;
        let value = step::value_of(rule, facts)?;
        self.memories.open(index, &key);
        self.take_up(index, &key, at_us);
        let rule = &self.set.rules[index as usize];
        if rule.absent_us.is_some() && self.is_no_sign_of_life(index, &key, held) {
            return Ok(());
        }
        // Behind one that waits to be met it waits, too.
        let waits = matches!(self.waiting_of(index, &key), Some(Conclusion::Meet(_)));
        let is_settled = self.waiting.is_empty() && self.memories.next_due_us().is_none_or(|at| at > at_us);
        let free = self.is_free(rule, &key, is_settled);
        let meets = |state: &mut KeyState| {
            let now = at_us.max(state.last_us);
            let is_open = !is_settled && step::awaits_alarm(rule, state, now);
            let (step, counted) = if waits || is_open || step::is_behind(state, now) {
                (Step::Later, None)
            } else {
                let counted = step::count(rule, state, value.as_ref(), now);
                (step::advance(rule, &key, state, &Met { facts, counted: &counted, held, now, free })?, Some(counted))
            };
            if !matches!(step, Step::Nothing) {
                state.concluded = pos;
            }
            Ok::<_, String>((step, now, counted))
        };
        let Some(met) = self.memories.change(index, &key, meets) else { return Ok(()) };
        let (step, now, counted) = met?;
        let name = || rule.name.clone();
        let window = |counted: Option<Counted>| counted.and_then(|counted| counted.window);
        let what = match step {
            Step::Nothing => return Ok(()),
            Step::Later => Conclusion::Meet(Meet { rule: name(), key, held: held(), counted }),
            Step::Fire => Conclusion::Fire { rule: name(), key, held: held(), window: window(counted) },
            Step::Change => Conclusion::Change { rule: name(), key, held: held(), window: window(counted) },
            Step::Over(first) => {
                let (over, window) = (held(), window(counted));
                Conclusion::Over { rule: name(), key, held: first.unwrap_or_else(|| over.clone()), over, window }
            }
        };
        self.waiting.push(pos, now, what);
        Ok(())
    }

    /// Who is silent now may have said that before.
    fn is_no_sign_of_life(&self, index: u32, key: &str, held: &dyn Fn() -> Held) -> bool {
        let is_on = self.memories.get(index, key).is_some_and(|state| state.on);
        is_on && held().had_before
    }

    /// May the rule fire, as far as that is known before what waits is said? `is_settled`: nothing does.
    fn is_free(&self, rule: &Rule, key: &str, is_settled: bool) -> Free {
        if !rule.depends() {
            return Free::Yes;
        }
        let by_now = step::depends(rule, key, |name, key| self.alarms.is_active(name, key));
        // How long it holds counts from when the alarm has turned, at any rate.
        if !by_now && (rule.hold_us.is_some() || is_settled) { Free::No } else { Free::Open { by_now } }
    }

    /// An event that waited has been met.
    fn met(&mut self, meet: &Meet, free: bool, now_us: i64) {
        let Some(index) = self.index_of(&meet.rule) else { return };
        let rule = &self.set.rules[index as usize];
        // The node was down since then, and heard nothing.
        let since_us = self.uptime.since_us();
        let is_deaf = now_us < since_us && self.waiting_of(index, &meet.key).is_none();
        let until_us = rule.absent_us.filter(|_| is_deaf).map(|absent| since_us + absent);
        let meets = |state: &mut KeyState| {
            let met = step::meet_again(rule, state, meet, free, now_us);
            if let Some(until) = until_us {
                step::put_off(state, until);
            }
            met
        };
        if let Some(Err(why)) = self.memories.change(index, &meet.key, meets) {
            self.memories.tally_mut(index).failed(&why, now_us);
        }
    }

    /// What was concluded of it last, if that is still to be said.
    pub(super) fn waiting_of(&self, index: u32, key: &str) -> Option<&Conclusion> {
        if self.waiting.is_empty() {
            return None;
        }
        let concluded = self.memories.get(index, key)?.concluded;
        self.waiting.find(concluded, (&self.set.rules[index as usize].name, key))
    }

    /// The clock was ahead, and is right again: without this, windows would not empty, and timers not
    /// come, until it is as late as it was said to be.
    fn take_back(&mut self, now_us: i64) {
        for (index, rule) in (0..).zip(&self.set.rules) {
            self.memories.change_each(index, |_, state| {
                let is_ahead = state.last_us > now_us + AHEAD_US;
                if is_ahead {
                    state.shift(state.last_us - now_us);
                }
                let before = state.due;
                if let (Some(due), Some(absent)) = (&mut state.due, rule.absent_us) {
                    due.at_us = due.at_us.min(now_us + absent);
                }
                is_ahead || state.due != before
            });
        }
    }

    /// The node has started again.
    fn start(&mut self, now_us: i64, payload: &[u8]) {
        #[derive(Deserialize)]
        struct Presence {
            id: String,
        }
        let id = serde_json::from_slice::<Presence>(payload).map(|p| p.id).unwrap_or_default();
        let counter = id.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let off_us = self.uptime.start(counter, now_us);
        self.dirty_uptime = true;
        self.waiting.start();
        // Nothing could come while the node was down: what is missed is put off by that, but not by what it waited. Where
        // an event has come and waits to be met, that is what it is put off behind.
        let meets = self.waiting.iter().filter(|intent| matches!(intent.what, Conclusion::Meet(_)));
        let meets: HashSet<(&str, &str)> = meets.filter_map(|intent| intent.what.of()).collect();
        for (index, rule) in (0..).zip(&self.set.rules) {
            let Some(absent) = rule.absent_us else { continue };
            self.memories.change_each(index, |key, state| {
                let due = state.due.filter(|_| !meets.contains(&(rule.name.as_str(), key)));
                due.is_some_and(|due| step::put_off(state, (due.at_us + off_us).min(now_us + absent)))
            });
        }
    }

    /// Records that rules and alarms write themselves, here or elsewhere.
    fn own_word(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        match header.name {
            FIRED if header.origin.is_none() => {
                if let Some(said) = data_of::<Said>(payload) {
                    self.spoken(said);
                }
            }
            alarms::ASK if header.direction == Direction::Down => {
                if let Some(ask) = data_of::<Ask>(payload) {
                    self.asked(pos, header, ask);
                }
            }
            CATALOGUE if header.direction == Direction::Down && header.origin.is_some() => {
                data_of(payload).into_iter().for_each(|catalogue| self.inherit(catalogue));
            }
            alarms::RAISED | alarms::CHANGED | alarms::ACKNOWLEDGED | alarms::CLEARED => {
                if header.origin.is_some() && payload.len() > ALARM_BYTES_MAX {
                    return;
                }
                let Some(alarm) = data_of::<Alarm>(payload) else { return };
                // The header's origin is what the links vouch for.
                let owner = header.origin.map_or(self.me.as_str(), |o| o.address);
                if alarm.origin.as_str() != owner || alarm.id != id_of(&alarm.origin, &alarm.name, &alarm.key) {
                    return;
                }
                let own = header.origin.is_none();
                if let Some(origin) = header.origin.filter(|_| alarm.origin.is_child_of(&self.me)) {
                    self.boxes.hear(&alarm.origin, origin.log, self.alarms.get(&alarm.id));
                }
                if own && header.name == alarms::CLEARED {
                    self.rest_all(&alarm);
                }
                // What comes from elsewhere, or from a person, counts when it is heard.
                let as_of = if own { moment_of(payload) } else { None };
                let turned_us = as_of.map_or(header.committed_us, |at| at.min(header.committed_us));
                self.changing(turned_us, |table| table.fold(alarm));
            }
            alarms::KNOWN if header.direction == Direction::Down && header.target == self.me.as_str() => {
                let Some(alarm) = data_of::<Alarm>(payload) else { return };
                let is_ours = alarm.origin == self.me && alarm.id == id_of(&self.me, &alarm.name, &alarm.key);
                if is_ours {
                    self.known(pos, header.committed_us, alarm);
                }
            }
            LOADED if header.origin.is_none() => self.look_at_own(pos, header.committed_us),
            RETIRED_TYPE | RETURNED_TYPE => {
                let Some(node) = subtree_of(Some(&self.me), header, payload) else { return };
                let gone = (header.name == RETIRED_TYPE).then(|| view::time_of(header.committed_us));
                self.changing(header.committed_us, |table| table.leave(&node, gone));
            }
            name if cases::is_wanted(name) => {
                let Some(origin) = header.origin else { return };
                let child = Address::parse(origin.address).ok().filter(|child| child.is_child_of(&self.me));
                let newest = cases::newest_alarm(payload);
                if let Some(child) = child {
                    self.give_back_all(pos, header.committed_us, &child, origin.log, newest);
                }
            }
            name if cases::is_present(name) && header.origin.is_none() => {
                let Some(above) = cases::tells_again(payload) else { return };
                self.repeat_all(pos, header, above.tier());
            }
            _ => {}
        }
    }

    /// Alarms begin or end: rules that others keep waiting look again.
    pub(super) fn changing(&mut self, now_us: i64, change: impl FnOnce(&mut alarms::Table) -> Vec<Turn>) {
        for Turn { name, key } in change(&mut self.alarms) {
            self.look_again(&name, key.as_deref(), now_us);
        }
    }

    /// The only alarm of this name and key, or of this name at all, has begun or ended.
    fn look_again(&mut self, name: &str, key: Option<&str>, now_us: i64) {
        let named = |d: &Dependency| d.alarm == name && d.any_key == key.is_none();
        for (index, rule) in (0..).zip(&self.set.rules) {
            if !rule.dependencies().any(named) {
                continue;
            }
            let looks = |key: &str, state: &mut KeyState| {
                let is_free = || step::depends(rule, key, |name, key| self.alarms.is_active(name, key));
                step::look_again(rule, state, is_free, now_us)
            };
            match key {
                Some(key) => self.memories.change_if(index, key, looks),
                None => self.memories.change_each(index, looks),
            }
        }
    }

    /// Whoever raised it may raise it again. Of whom it still waits to be said has begun behind that end; not so who has
    /// yet to meet an event.
    pub(super) fn rest_all(&mut self, alarm: &Alarm) {
        let waits =
            |rule: u32, key: &str| self.waiting_of(rule, key).is_some_and(|what| !matches!(what, Conclusion::Meet(_)));
        let all = self.memories.raisers().of(alarms::hash(&alarm.name, &alarm.key)).filter(|r| !waits(r.rule, &r.key));
        let all: Vec<_> = all.map(|r| (r.rule, r.key.clone())).collect();
        for (rule, key) in all {
            self.memories.change(rule, &key, step::rest);
        }
    }

    fn asked(&mut self, pos: Pos, header: &Header<'_>, ask: Ask) {
        if header.target == self.me.as_str() {
            self.waiting.push(pos, header.committed_us, Conclusion::Ask(ask));
        } else {
            self.alarms.note_asked(&ask.known.id, ask.asked);
        }
    }

    /// What was written down is no longer waiting.
    fn spoken(&mut self, said: Said) {
        let mut free = said.free.into_iter();
        for done in self.waiting.take_said(said.upto, said.but) {
            if let Intent { what: Conclusion::Meet(meet), at_us, .. } = done {
                self.met(&meet, free.next().unwrap_or(false), at_us);
            }
        }
        for of in said.fired {
            self.spoken_of(of);
        }
    }

    fn spoken_of(&mut self, said: SaidOf) {
        let Some(index) = self.index_of(&said.rule) else { return };
        let tally = self.memories.tally_mut(index);
        if let Some(why) = &said.error {
            tally.failed(why, said.at_us);
        }
        if said.what == Outcome::Fired {
            tally.fired += 1;
            tally.last_fired_us = Some(said.at_us);
        }
        let Some(due_us) = said.due_us else { return };
        let due = self.memories.get(index, &said.key).and_then(KeyState::next);
        let Some(due) = due.filter(|due| due.at_us == due_us) else { return };
        let rule = &self.set.rules[index as usize];
        let settles = |state: &mut KeyState| step::settle(rule, &said.key, state, said.what, due, said.at_us);
        self.memories.change(index, &said.key, settles);
    }
}
