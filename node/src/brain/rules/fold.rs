//! What follows from a record.

use super::alarms::{self, Turn, id_of};
use super::expression::{Expression, Facts};
use super::keys::{Conclusion, Due, Held, Intent, KeyState, Marks, Meet, What};
use super::raisers::Raised;
use super::rule::{Dependency, Rule};
use super::said::{FIRED, Said, SaidOf};
use super::window::{Seen, Summary};
use super::{Rules, WAITING_BYTES_MAX, WAITING_MAX, speak};
use crate::brain::cases;
use crate::brain::in_force::LOADED;
use crate::brain::services::CATALOGUE;
use citybrain_hub::state::{RETIRED_TYPE, RETURNED_TYPE, subtree_of};
use citybrain_shared::record::{Direction, Header, Kind};
use citybrain_shared::view::{self, Alarm, AlarmAsked};
use citybrain_shared::{Address, Pos, Tier, event};
use serde::Deserialize;
use serde_json::Value as Json;
use std::cmp::Reverse;
use xxhash_rust::xxh3::xxh3_64;

/// Rules that fire on what rules emitted; deeper than this is a circle.
pub const HOPS_MAX: u64 = 4;
/// The attribute that counts them.
pub const HOPS: &str = "rulehops";
/// A conclusion that was not written down for this long, by the records' own time, while others were:
/// it comes from a replay under other rules than those that ran. So many records came since then, each a
/// second or more behind the one before: a disk that takes nothing for hours brings none.
const STALE_US: i64 = 600_000_000;
const STALE_RECORDS: u32 = 5;
/// How far the records' time may step back before what was written ahead of it is taken back, too. Less
/// is an adjustment of the clock, and time stands still until it is made up for.
const AHEAD_US: i64 = 600_000_000;
/// Moments at which a window is looked at ahead, to know when it will be over.
const LOOK_AHEAD: usize = 16;
/// Bytes of an event about an alarm that is believed of another node: title, keys and some times. Fifty thousand are kept.
const ALARM_BYTES_MAX: usize = 16 * 1024;
/// Bytes of what a rule keeps apart: names and addresses are shorter.
const KEY_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
struct DataOf<T> {
    data: T,
}

/// `data` of [`alarms::ASK`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, Deserialize)]
pub struct Ask {
    pub id: String,
    pub name: String,
    pub key: String,
    pub action: String,
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<i64>,
    /// What whoever asks had before him. Its node may have lost its disk since, and then knows it from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Box<Alarm>>,
    /// Of whoever asks: the answer goes as far. A node of an earlier version says neither.
    #[serde(default = "top")]
    pub tier: Tier,
}

fn top() -> Tier {
    Tier::City
}

fn data_of<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Option<T> {
    serde_json::from_slice::<DataOf<T>>(payload).ok().map(|d| d.data)
}

impl Rules {
    pub(super) fn meet(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        if header.committed_us.saturating_add(AHEAD_US) < self.uptime.latest_us {
            self.take_back(header.committed_us);
            self.uptime.set_back(header.committed_us);
            self.dirty_uptime = true;
            self.late = (0, 0);
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
        self.forget_stale(header.committed_us);
        self.note_time(header.committed_us);
        let me = self.me.clone();
        let origin = header.origin.map_or(me.as_str(), |o| o.address);
        let Some(facts) = Facts::new(payload, origin, header.committed_us, &self.set.node) else { return };
        let hops = facts.json.get(HOPS).and_then(Json::as_u64).unwrap_or(0);
        // The box that was here has met it. What was active then is known above; who has fallen silent since is not.
        let is_done = header.had_before && self.has_parent;
        for index in rules.iter().copied() {
            if is_done && self.set.rules[index as usize].absent_us.is_none() {
                continue;
            }
            if hops >= HOPS_MAX {
                self.memories[index as usize].failed(format!("{hops} rules caused each other; the chain ends here"));
                self.dirty_tallies.insert(index);
                continue;
            }
            let held =
                || Held { had_before: header.had_before, ..Held::new(pos, header.committed_us, origin, payload) };
            if let Err(why) = self.consider(index, &facts, &held, pos, header.committed_us) {
                self.memories[index as usize].failed(why);
            }
            self.dirty_tallies.insert(index);
        }
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
        let memory = &mut self.memories[index as usize];
        if let Some(only) = &rule.only
            && !only.truth(facts, None)?
        {
            return Ok(());
        }
        memory.tally.matched += 1;
        let key = rule.key(facts)?;
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("`by` gives {} bytes; a key has at most {KEY_BYTES_MAX}", key.len()));
        }
        let value = value_of(rule, facts)?;
        self.make_room(index, &key);
        self.take_up(index, &key, at_us);
        let rule = &self.set.rules[index as usize];
        if rule.absent_us.is_some() && self.is_no_sign_of_life(index, &key, held) {
            return Ok(());
        }
        // Behind one that waits to be met it waits, too.
        let waits = matches!(self.waiting_of(index, &key), Some(Conclusion::Meet(_)));
        let free = self.is_free(rule, &key, at_us);
        let memory = &mut self.memories[index as usize];
        let state = memory.keys.entry(key.clone()).or_default();
        self.dirty_keys.insert((index, key.clone()));
        (state.text, state.hears, state.deaf_us) = (rule.text, rule.hears, 0);
        let now = at_us.max(state.last_us);
        state.last_us = now;
        let faded = has_faded(rule, state, now);
        let mut grew = false;
        let window = rule.window.as_ref().map(|w| {
            let number = value.as_ref().and_then(Json::as_f64).unwrap_or(0.0);
            let hash = w.distinct.then(|| xxh3_64(value.as_ref().map(Json::to_string).unwrap_or_default().as_bytes()));
            let window = state.window.get_or_insert_default();
            grew = window.add(w.span, Seen { at: now, value: number, hash });
            window.summary(w.span, now)
        });
        let before = state.marks();
        let met = Met { facts, window: window.as_ref(), grew, faded, held, now, free };
        let step = if waits { Ok(Step::Later) } else { advance(rule, &key, state, &met) };
        if !matches!(step, Ok(Step::Nothing) | Err(_)) {
            state.concluded = pos;
        }
        let after = state.marks();
        self.mark(index, &key, &before, &after);
        let rule = &self.set.rules[index as usize];
        let (name, key) = (rule.name.clone(), key);
        let what = match step? {
            Step::Nothing => return Ok(()),
            Step::Later => Conclusion::Meet(Meet { rule: name, key, held: held(), window, grew, faded }),
            Step::Fire => Conclusion::Fire { rule: name, key, held: held(), window },
            Step::Change => Conclusion::Change { rule: name, key, held: held(), window },
            Step::Over(first) => {
                let over = held();
                Conclusion::Over { rule: name, key, held: first.unwrap_or_else(|| over.clone()), over, window }
            }
        };
        self.conclude(pos, now, what);
        Ok(())
    }

    /// Who is silent now may have said that before.
    fn is_no_sign_of_life(&self, index: u32, key: &str, held: &dyn Fn() -> Held) -> bool {
        let is_on = self.memories[index as usize].keys.get(key).is_some_and(|state| state.on);
        is_on && held().had_before
    }

    /// May the rule fire, as far as that is known before what waits is said?
    fn is_free(&self, rule: &Rule, key: &str, now_us: i64) -> Free {
        let is_settled = || self.waiting.is_empty() && self.due.first().is_none_or(|(at, _, _)| *at > now_us);
        if !rule.depends() {
            return Free::Yes;
        }
        let by_now = depends(rule, key, |name, key| self.alarms.is_active(name, key));
        // How long it holds counts from when the alarm has turned, at any rate.
        if !by_now && (rule.hold_us.is_some() || is_settled()) { Free::No } else { Free::Open }
    }

    /// An event that waited has been met.
    fn met(&mut self, meet: &Meet, free: bool, now_us: i64) {
        let Some(index) = self.index_of(&meet.rule) else { return };
        let (rule, memory) = (&self.set.rules[index as usize], &mut self.memories[index as usize]);
        let Some(state) = memory.keys.get_mut(&meet.key) else { return };
        let before = state.marks();
        if let Err(why) = meet_again(rule, state, meet, free, now_us) {
            memory.failed(why);
            self.dirty_tallies.insert(index);
        }
        let after = self.memories[index as usize].keys.get(&meet.key).map(KeyState::marks).unwrap_or_default();
        self.mark(index, &meet.key, &before, &after);
        self.dirty_keys.insert((index, meet.key.clone()));
    }

    /// For that key, if it is a new one.
    fn make_room(&mut self, index: u32, key: &str) {
        let memory = &mut self.memories[index as usize];
        if memory.keys.contains_key(key) {
            return;
        }
        for (gone, state) in memory.make_room() {
            self.mark(index, &gone, &state.marks(), &Marks::default());
            self.dirty_keys.insert((index, gone));
        }
    }

    /// Every alarm of this node that is active is raised by the rule that it is of, also if that knows nothing of it:
    /// the box that was here before has raised it, the rule did before it was gone from the file for a while, or its end
    /// was dropped before it was said. It ends what it raises with the next event that says so.
    fn take_up(&mut self, index: u32, key: &str, now_us: i64) {
        let rule = &self.set.rules[index as usize];
        let known = self.memories[index as usize].keys.get(key);
        if !rule.latches() || known.is_some_and(|state| state.on) {
            return;
        }
        let own = self.alarms.raised_by(&rule.name, key).filter(|a| a.origin == self.me);
        let own: Vec<Alarm> = own.cloned().collect();
        if own.is_empty() || self.waiting_of(index, key).is_some() {
            return;
        }
        self.go_on(index, key, &own, now_us);
    }

    /// The rule goes on raising these for that key.
    fn go_on(&mut self, index: u32, key: &str, lasting: &[Alarm], now_us: i64) {
        let Some(since) = lasting.iter().map(|a| a.raised_at.timestamp_micros()).max() else { return };
        self.make_room(index, key);
        let rule = &self.set.rules[index as usize];
        let state = self.memories[index as usize].keys.entry(key.to_owned()).or_default();
        let before = state.marks();
        (state.on, state.text, state.hears) = (true, rule.text, rule.hears);
        // It may have been edited since it raised them.
        (state.edited, state.since_us) = (true, None);
        // What it has heard since then was calm already, and has nothing to end any more.
        let calm = state.calm_us.take().map(|since| since + rule.calm_us);
        state.due = calm.map(|at_us| Due { at_us, what: What::Over });
        state.last_us = state.last_us.max(now_us);
        state.fired_us = state.fired_us.max(Some(since));
        state.raised = lasting.iter().map(|a| (alarms::hash(&a.name, &a.key), a.severity)).collect();
        let after = state.marks();
        self.mark(index, key, &before, &after);
        self.dirty_keys.insert((index, key.to_owned()));
    }

    /// An alarm that the box which was here had, as its parent knows it.
    fn known(&mut self, pos: Pos, now_us: i64, known: Alarm) {
        self.outrun(pos, now_us, known.rev);
        let rule = self.latching(&known.rule);
        let key = known.rule_key.clone();
        let Some(own) = self.alarms.get(&known.id) else {
            self.changing(now_us, |table| table.fold(known));
            return rule.into_iter().for_each(|rule| self.take_up(rule, &key, now_us));
        };
        // What this box has said of it itself is newer: by the word of the same rule and key, or of a person. Of
        // another's word it is the alarm as well, and as bad as the worse of both says.
        let is_unheard = |state: &KeyState| !state.on && state.fired_us.is_none() && state.calm_us.is_none();
        let is_new = |rule: &u32| self.memories[*rule as usize].keys.get(&key).is_none_or(is_unheard);
        let is_by_rule = own.active || own.cleared_by.as_deref().is_some_and(|by| by.starts_with("rule:"));
        let Some(rule) = rule.filter(is_new).filter(|_| known.active && is_by_rule) else { return };
        self.go_on(rule, &key, std::slice::from_ref(&known), now_us);
        self.conclude(pos, now_us, Conclusion::GoOn(Box::new(known)));
    }

    /// The box that was here has said more than this one, by its clock, can follow: what is said from now on, and what
    /// this box has said already, must be newer.
    fn outrun(&mut self, pos: Pos, now_us: i64, rev: i64) {
        if rev < now_us || !self.alarms.outrun(rev) {
            return;
        }
        let own = self.alarms.iter().filter(|a| a.origin == self.me && a.rev <= rev);
        for id in own.map(|a| a.id.clone()).collect::<Vec<_>>() {
            self.conclude(pos, now_us, Conclusion::Repeat(id));
        }
    }

    /// What was concluded of it last, if that is still to be said.
    fn waiting_of(&self, index: u32, key: &str) -> Option<&Conclusion> {
        if self.waiting.is_empty() {
            return None;
        }
        let of = (self.set.rules[index as usize].name.as_str(), key);
        let concluded = self.memories[index as usize].keys.get(key)?.concluded;
        let first = self.waiting.partition_point(|intent| intent.pos < concluded);
        let of_that = self.waiting.range(first..).take_while(|intent| intent.pos == concluded);
        of_that.map(|intent| &intent.what).find(|what| what.of() == Some(of))
    }

    /// Other rules are in force, or may be: an alarm whose rule is gone passes to another that raises it.
    fn look_at_own(&mut self, pos: Pos, now_us: i64) {
        let own = self.alarms.iter().filter(|a| a.active && a.origin == self.me);
        let own: Vec<_> = own
            .map(|a| (a.id.clone(), self.latching(&a.rule), a.rule_key.clone(), alarms::hash(&a.name, &a.key)))
            .collect();
        for (id, rule, key, alarm) in own {
            match rule {
                Some(rule) => self.take_up(rule, &key, now_us),
                None if self.raisers.of(alarm).next().is_some() => self.conclude(pos, now_us, Conclusion::HandOn(id)),
                None => {}
            }
        }
    }

    fn conclude(&mut self, pos: Pos, at_us: i64, what: Conclusion) {
        let intent = Intent { pos, at_us, starts: 0, what };
        self.waiting_bytes += intent.bytes();
        self.waiting.push_back(intent);
        while self.waiting.len() > WAITING_MAX || self.waiting_bytes > WAITING_BYTES_MAX && self.waiting.len() > 1 {
            self.take_first();
            self.dropped += 1;
        }
        self.dirty_waiting = true;
    }

    fn take_first(&mut self) -> Option<Intent> {
        let first = self.waiting.pop_front()?;
        self.waiting_bytes -= first.bytes();
        Some(first)
    }

    /// The clock was ahead, and is right again: without this, windows would not empty, and timers not
    /// come, until it is as late as it was said to be.
    fn take_back(&mut self, now_us: i64) {
        for index in 0..self.memories.len() {
            let absent = self.set.rules[index].absent_us;
            let rule = index as u32;
            for (key, state) in &mut self.memories[index].keys {
                let before = state.due;
                if state.last_us > now_us + AHEAD_US {
                    state.shift(state.last_us - now_us);
                }
                if let (Some(due), Some(absent)) = (&mut state.due, absent) {
                    due.at_us = due.at_us.min(now_us + absent);
                }
                if state.due != before {
                    if let Some(due) = before {
                        self.due.remove(&(due.at_us, rule, key.clone()));
                    }
                    self.due.extend(state.due.map(|d| (d.at_us, rule, key.clone())));
                }
                self.dirty_keys.insert((rule, key.clone()));
            }
        }
    }

    /// The node has started again. A conclusion that three starts did not get rid of is not going to
    /// be spoken: it comes from a replay under other rules.
    fn start(&mut self, now_us: i64, payload: &[u8]) {
        #[derive(Deserialize)]
        struct Presence {
            id: String,
        }
        let id = serde_json::from_slice::<Presence>(payload).map(|p| p.id).unwrap_or_default();
        let counter = id.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let off_us = self.uptime.start(counter, now_us);
        self.dirty_uptime = true;
        let before = self.waiting.len();
        self.waiting.iter_mut().for_each(|i| i.starts += 1);
        self.waiting.retain(|i| i.starts < 3);
        self.waiting_bytes = self.waiting.iter().map(Intent::bytes).sum();
        self.dropped += (before - self.waiting.len()) as u64;
        self.dirty_waiting |= before > 0;
        // Nothing could come while the node was down: what is missed is put off by that, but not by what it waited.
        for (index, rule) in self.set.rules.iter().enumerate() {
            let Some(absent) = rule.absent_us else { continue };
            for (key, state) in &mut self.memories[index].keys {
                let Some(due) = state.due.filter(|d| d.at_us < now_us + absent) else { continue };
                let later = Due { at_us: (due.at_us + off_us).min(now_us + absent), ..due };
                state.deaf_us += later.at_us - due.at_us;
                state.due = Some(later);
                self.due.remove(&(due.at_us, index as u32, key.clone()));
                self.due.insert((later.at_us, index as u32, key.clone()));
                self.dirty_keys.insert((index as u32, key.clone()));
            }
        }
    }

    fn forget_stale(&mut self, now_us: i64) {
        let is_late = |i: &Intent| i.at_us < now_us - STALE_US;
        if !self.waiting.front().is_some_and(is_late) || now_us < self.late.1 + 1_000_000 {
            return;
        }
        self.late = (self.late.0 + 1, now_us);
        while self.late.0 > STALE_RECORDS && self.waiting.front().is_some_and(is_late) {
            self.take_first();
            self.dropped += 1;
            self.dirty_waiting = true;
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
                if own && header.name == alarms::CLEARED {
                    self.rest_all(&alarm);
                }
                self.changing(header.committed_us, |table| table.fold(alarm));
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
                // A child with an empty disk: its alarms are known here alone.
                let child = header.origin.and_then(|o| Address::parse(o.address).ok());
                let Some(child) = child.filter(|child| child.is_child_of(&self.me)) else { return };
                let mut theirs: Vec<&Alarm> = self.alarms.iter().filter(|a| a.origin == child).collect();
                // The newest first, and in any case: by it the new box knows what it must be ahead of, and says once
                // more what it has said itself. Each that is newer than one before it would have it do so again.
                theirs.sort_by_key(|a| Reverse(a.rev));
                let told = theirs.iter().enumerate().filter(|(i, a)| *i == 0 || a.active);
                for id in told.map(|(_, a)| a.id.clone()).collect::<Vec<_>>() {
                    self.conclude(pos, header.committed_us, Conclusion::Return(id));
                }
            }
            name if cases::is_present(name) && header.origin.is_none() => {
                // Whoever has called this node may have lost its disk, and what was told long ago is in no log any more.
                let Some(above) = cases::tells_again(payload) else { return };
                let is_told = |a: &&Alarm| a.active && a.origin == self.me && a.reach <= above.tier();
                let of_lane = |a: &&Alarm| speak::lane(a.severity.is_urgent()) == header.lane;
                let own = self.alarms.iter().filter(is_told).filter(of_lane).map(|a| a.id.clone());
                for id in own.collect::<Vec<_>>() {
                    self.conclude(pos, header.committed_us, Conclusion::Repeat(id));
                }
            }
            _ => {}
        }
    }

    /// Alarms begin or end: rules that others keep waiting look again.
    fn changing(&mut self, now_us: i64, change: impl FnOnce(&mut alarms::Table) -> Vec<Turn>) {
        for Turn { name, key } in change(&mut self.alarms) {
            self.look_again(&name, key.as_deref(), now_us);
        }
    }

    /// The only alarm of this name and key, or of this name at all, has begun or ended. A rule that it keeps waiting
    /// waits on, or begins to count how long its condition holds.
    fn look_again(&mut self, name: &str, key: Option<&str>, now_us: i64) {
        for index in 0..self.set.rules.len() {
            let (rule, memory) = (&self.set.rules[index], &self.memories[index]);
            let named = |d: &Dependency| d.alarm == name && d.any_key == key.is_none();
            if !rule.dependencies().any(named) {
                continue;
            }
            let waits = |state: &KeyState| !state.on && state.held.is_some();
            let one = key.and_then(|key| memory.keys.get_key_value(key));
            let all = memory.keys.iter().filter(|_| key.is_none());
            let keys: Vec<String> =
                one.into_iter().chain(all).filter(|(_, s)| waits(s)).map(|(k, _)| k.clone()).collect();
            for key in keys {
                let rule = &self.set.rules[index];
                let free = depends(rule, &key, |name, key| self.alarms.is_active(name, key));
                let Some(state) = self.memories[index].keys.get_mut(&key) else { continue };
                let (before, since_us) = (state.marks(), state.since_us);
                if let Some(absent) = rule.absent_us {
                    // Put off for as long once more, it has been silent for long enough all the same.
                    let since = now_us.max(state.last_us + state.deaf_us + absent);
                    state.due.iter_mut().filter(|_| free).for_each(|due| due.at_us = due.at_us.min(since));
                } else if !free {
                    (state.since_us, state.due) = (None, None);
                } else if state.due.is_none() {
                    let now = now_us.max(state.last_us);
                    wait_to_fire(rule, state, now, now);
                }
                let (after, is_other) = (state.marks(), state.since_us != since_us);
                self.mark(index as u32, &key, &before, &after);
                if is_other || before != after {
                    self.dirty_keys.insert((index as u32, key));
                }
            }
        }
    }

    /// Whoever raised it may raise it again. Of whom it still waits to be said has begun behind that end; not so who has
    /// yet to meet an event.
    fn rest_all(&mut self, alarm: &Alarm) {
        let waits =
            |rule: u32, key: &str| self.waiting_of(rule, key).is_some_and(|what| !matches!(what, Conclusion::Meet(_)));
        let all = self.raisers.of(alarms::hash(&alarm.name, &alarm.key)).filter(|r| !waits(r.rule, &r.key));
        let all: Vec<_> = all.map(|r| (r.rule, r.key.clone())).collect();
        all.iter().for_each(|(rule, key)| self.rest(*rule, key));
    }

    fn rest(&mut self, index: u32, key: &str) {
        let Some(state) = self.memories[index as usize].keys.get_mut(key) else { return };
        let before = state.marks();
        (state.on, state.since_us, state.raised, state.ended) = (false, None, Vec::new(), None);
        // An absence is told with the last event that there was.
        state.due = state.due.filter(|d| d.what == What::Absent);
        state.held = state.held.take().filter(|_| state.due.is_some());
        let after = state.marks();
        self.mark(index, key, &before, &after);
        self.dirty_keys.insert((index, key.to_owned()));
    }

    fn asked(&mut self, pos: Pos, header: &Header<'_>, ask: Ask) {
        if header.target == self.me.as_str() {
            self.conclude(pos, header.committed_us, Conclusion::Ask(ask));
        } else {
            let asked = AlarmAsked { action: ask.action, by: ask.by, at: view::time_of(header.received_us) };
            self.alarms.note_asked(&ask.id, asked);
        }
    }

    /// What was written down is no longer waiting.
    fn spoken(&mut self, said: Said) {
        let before = self.waiting.len();
        self.late = (0, 0);
        let of_those = self.waiting.partition_point(|i| i.pos < said.upto);
        let of_last = self.waiting.range(of_those..).take_while(|i| i.pos == said.upto).count();
        let mut free = said.free.into_iter();
        for _ in 0..of_those + of_last.saturating_sub(said.but as usize) {
            if let Some(Intent { what: Conclusion::Meet(meet), at_us, .. }) = self.take_first() {
                self.met(&meet, free.next().unwrap_or(false), at_us);
            }
        }
        self.dirty_waiting |= before != self.waiting.len();
        for of in said.fired {
            self.spoken_of(of);
        }
    }

    fn spoken_of(&mut self, said: SaidOf) {
        let Some(index) = self.index_of(&said.rule) else { return };
        let memory = &mut self.memories[index as usize];
        let rule = &self.set.rules[index as usize];
        self.dirty_tallies.insert(index);
        if let Some(why) = said.error {
            memory.failed(why);
        }
        if said.what == "fired" {
            memory.tally.fired += 1;
            memory.tally.last_fired_us = Some(said.at_us);
        }
        let Some(due_us) = said.due_us else { return };
        let Some(state) = memory.keys.get_mut(&said.key) else { return };
        let Some(due) = state.due.filter(|d| d.at_us == due_us) else { return };
        self.dirty_keys.insert((index, said.key.clone()));
        let before = state.marks();
        match (said.what.as_str(), due.what) {
            ("fired", _) => {
                (state.on, state.since_us, state.fired_us) = (true, None, Some(said.at_us));
                state.title = None;
                let facts = state
                    .held
                    .as_ref()
                    .and_then(|held| Facts::new(held.event.as_bytes(), &held.origin, held.at_us, &self.set.node));
                let w = rule.window.as_ref().zip(state.window.as_ref());
                let window = w.map(|(w, seen)| seen.summary(w.span, said.at_us));
                let raised = facts.as_ref().map(|facts| rule.raised(&said.key, facts, window.as_ref()));
                state.raised = raised.unwrap_or_default();
                let title = facts.as_ref().and_then(|facts| rule.titles(facts, window.as_ref()));
                title.into_iter().for_each(|title| state.entitle(title, said.at_us));
                state.due = match (due.what, &rule.window) {
                    (What::Held, _) => fading(rule, state, said.at_us),
                    _ => None,
                };
            }
            ("over", _) => {
                (state.on, state.held, state.due, state.ended) = (false, None, None, None);
                state.raised.clear();
            }
            ("lapsed", _) => (state.since_us, state.held, state.due) = (None, None, None),
            (_, what @ (What::Held | What::Absent)) => {
                state.due = again(rule, state, due, said.at_us).map(|at_us| Due { at_us, what });
            }
            // Events that shared a cell have come since it was planned. It may have become calm since then, however
            // late that was looked at.
            (_, What::Over) => state.due = fading(rule, state, due.at_us - rule.calm_us),
        }
        let after = state.marks();
        self.mark(index, &said.key, &before, &after);
    }
}

/// What an event brings into the rule's window.
///
/// # Errors
/// It has no such value, or the rule computes with it and it is no number.
fn value_of(rule: &Rule, facts: &Facts) -> Result<Option<Json>, String> {
    let Some((window, cel)) = rule.window.as_ref().and_then(|w| Some((w, w.value.as_ref()?))) else { return Ok(None) };
    let value = match cel.pointer.as_ref().and_then(|p| facts.json.pointer(p)) {
        Some(found) => found.clone(),
        None => cel.json(facts, None)?,
    };
    if window.numbers && value.as_f64().is_none() {
        let kind = match value {
            Json::Null => "null",
            Json::Bool(_) => "true or false",
            Json::String(_) => "a string",
            Json::Array(_) => "a list",
            Json::Object(_) | Json::Number(_) => "a map",
        };
        return Err(format!("`{}` gives {kind}, which is no number to compute with", cel.text));
    }
    Ok(Some(value))
}

/// What waits for a rule whose text is another one now, planned from what is known. What is past by then is due at
/// once.
pub(super) fn plan_anew(rule: &Rule, state: &mut KeyState) {
    if state.text == rule.text {
        return;
    }
    let (now, was_due) = (state.last_us, state.due.take());
    (state.text, state.edited) = (rule.text, state.on);
    if let Some(absent) = rule.absent_us {
        (state.since_us, state.ended) = (None, None);
        let is_told = state.on || state.held.is_none();
        state.due = (!is_told).then(|| Due { at_us: now + state.deaf_us + absent, what: What::Absent });
    } else if state.on {
        state.due = match &state.ended {
            _ if rule.clear.is_none() => None,
            Some(ended) => Some(Due { at_us: ended.at_us + rule.calm_us, what: What::Over }),
            None => fading(rule, state, now),
        };
    } else {
        let waits = match was_due {
            Some(due) => due.what == What::Held,
            None => state.since_us.is_some() || state.held.is_some(),
        };
        if waits && rule.latches() && still_holds(rule, state) {
            let since = state.since_us.unwrap_or(now);
            wait_to_fire(rule, state, since, now);
        } else {
            (state.since_us, state.held) = (None, None);
        }
    }
}

/// Plans when it may fire, if its condition goes on holding as it has since then.
fn wait_to_fire(rule: &Rule, state: &mut KeyState, since: i64, now: i64) {
    state.since_us = rule.hold_us.map(|_| since);
    state.due = match rule.hold_us {
        Some(hold) => Some(holding(rule, state, since + hold, now)),
        None => time_to_fire(rule, state, now).map(|at_us| Due { at_us, what: What::Held }),
    };
}

/// Does the condition, as the rule has it now, hold for what was heard last?
fn still_holds(rule: &Rule, state: &KeyState) -> bool {
    let Some(when) = &rule.when else { return state.held.is_some() };
    let Some(held) = &state.held else { return false };
    let window = rule.window.as_ref().zip(state.window.as_ref()).map(|(w, seen)| seen.summary(w.span, state.last_us));
    let facts = Facts::new(held.event.as_bytes(), &held.origin, held.at_us, &rule.node);
    facts.is_some_and(|facts| when.truth(&facts, window.as_ref()) == Ok(true))
}

/// What an event makes of a rule's state for one key.
pub(super) enum Step {
    Nothing,
    /// It would fire, and another alarm has a say in that.
    Later,
    Fire,
    Change,
    /// With the event that it was raised by.
    Over(Option<Held>),
}

/// May a rule fire, as far as other alarms go?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Free {
    Yes,
    No,
    /// It is known when all that came before is said.
    Open,
}

/// May the rule fire, as far as other alarms go, of which those are active?
pub fn depends(rule: &Rule, key: &str, is_active: impl Fn(&str, Option<&str>) -> bool) -> bool {
    let is_active = |d: &Dependency| is_active(&d.alarm, (!d.any_key).then_some(key));
    !rule.unless.as_ref().is_some_and(is_active) && rule.whilst.as_ref().is_none_or(is_active)
}

/// Has the rule been quiet long enough, and is it within its hours?
pub fn is_time(rule: &Rule, state: &KeyState, now: i64) -> bool {
    time_to_fire(rule, state, now) == Some(now)
}

/// The first moment from `now` on at which it may fire, as far as time alone goes; `None`: within a year
/// there is none.
fn time_to_fire(rule: &Rule, state: &KeyState, now: i64) -> Option<i64> {
    let quiet_until = state.fired_us.filter(|at| *at <= now).map_or(now, |at| at + rule.quiet_us);
    rule.next_open_us(quiet_until.max(now))
}

/// An event as one rule meets it.
struct Met<'a> {
    facts: &'a Facts,
    window: Option<&'a Summary>,
    /// The window has a cell more than before it.
    grew: bool,
    /// Before this event the condition was over already, since the moment that was planned.
    faded: bool,
    held: &'a dyn Fn() -> Held,
    now: i64,
    free: Free,
}

/// An event that waited is met now.
pub(super) fn meet_again(rule: &Rule, state: &mut KeyState, meet: &Meet, free: bool, now: i64) -> Result<Step, String> {
    let Meet { key, held, window, grew, faded, .. } = meet;
    let Some(facts) = Facts::new(held.event.as_bytes(), &held.origin, held.at_us, &rule.node) else {
        return Ok(Step::Nothing);
    };
    let (free, held) = (if free { Free::Yes } else { Free::No }, || held.clone());
    let met = Met { facts: &facts, window: window.as_ref(), grew: *grew, faded: *faded, held: &held, now, free };
    advance(rule, key, state, &met)
}

fn advance(rule: &Rule, key: &str, state: &mut KeyState, met: &Met<'_>) -> Result<Step, String> {
    let Met { facts, window, grew, faded, held, now, free } = *met;
    if let Some(absent) = rule.absent_us {
        let (was_on, first) = (state.on, state.held.take());
        state.on = false;
        state.raised.clear();
        state.held = Some(held().kept());
        state.due = Some(Due { at_us: now + absent, what: What::Absent });
        return Ok(if was_on { Step::Over(first) } else { Step::Nothing });
    }
    // An event that lacks the field says nothing: it neither begins nor ends anything.
    let holds = match &rule.when {
        Some(when) => when.truth(facts, window)?,
        None => true,
    };
    if state.on {
        state.held.get_or_insert_with(|| held().kept());
        let over = match &rule.clear {
            Some(clear) => clear.truth(facts, window)?,
            None => !rule.raises() && !holds,
        };
        if over && rule.calm_us > 0 {
            let calm = Due { at_us: now + rule.calm_us, what: What::Over };
            // It may be calm for a while already: since an event before this, or by the window's emptying.
            let began = state.due.filter(|d| (faded || state.ended.is_some()) && d.at_us < calm.at_us);
            state.due = Some(began.unwrap_or(calm));
            state.ended.get_or_insert_with(|| held().kept());
            return Ok(Step::Nothing);
        }
        let was_ending = state.ended.take().is_some();
        if over {
            (state.on, state.due) = (false, None);
            state.raised.clear();
            return Ok(Step::Over(state.held.take()));
        }
        // What shares a cell has made no plan, and has outlived this one.
        let is_stale = rule.calm_us > 0 && state.due.is_some_and(|d| d.at_us - rule.calm_us <= now);
        if grew || was_ending || is_stale {
            state.due = fading(rule, state, now);
        }
        if !holds || !is_news(rule, key, state, met) {
            return Ok(Step::Nothing);
        }
        state.held = Some(held().kept());
        return Ok(Step::Change);
    }
    if holds {
        state.calm_us = None;
    } else if let Some(clear) = rule.clear.as_ref().filter(|_| rule.raises() && state.calm_us.is_none()) {
        let is_calm = state.fired_us.is_none() && clear.truth(facts, window) == Ok(true);
        state.calm_us = is_calm.then_some(now);
    }
    if !holds || free == Free::No {
        // Wanted while the condition holds, also if nothing more is heard: as soon as the other alarm lets it be.
        state.held = (holds && rule.latches()).then(|| held().kept());
        (state.since_us, state.due) = (None, None);
        return Ok(Step::Nothing);
    }
    if let Some(hold) = rule.hold_us {
        let since = *state.since_us.get_or_insert(now);
        // What is said then should tell of the newest event.
        state.held = Some(held().kept());
        if now - since < hold {
            if grew || state.due.is_none() {
                state.due = Some(holding(rule, state, since + hold, now));
            }
            return Ok(Step::Nothing);
        }
    }
    if !is_time(rule, state, now) {
        // An alarm is wanted while the condition holds, also if nothing more is heard: as soon as it may be.
        if rule.raises() {
            state.held = Some(held().kept());
            state.due = time_to_fire(rule, state, now).map(|at_us| Due { at_us, what: What::Held });
        }
        return Ok(Step::Nothing);
    }
    if free == Free::Open {
        return Ok(Step::Later);
    }
    (state.since_us, state.due, state.fired_us) = (None, None, Some(now));
    if rule.latches() {
        state.on = true;
        state.raised = rule.raised(key, facts, window);
        state.title = None;
        rule.titles(facts, window).into_iter().for_each(|title| state.entitle(title, now));
        state.held = Some(held().kept());
        state.due = fading(rule, state, now);
    }
    Ok(Step::Fire)
}

/// Is its alarm of another severity now, or called otherwise, or is there one more? After an edit it may be, and reach
/// farther.
fn is_news(rule: &Rule, key: &str, state: &mut KeyState, met: &Met<'_>) -> bool {
    let raised = (state.edited || rule.raised_varies()).then(|| rule.raised(key, met.facts, met.window));
    let title = rule.titles(met.facts, met.window);
    let is_retitled = title.is_some_and(|title| state.is_retitled(title, met.now));
    let is_other = raised.as_ref().is_some_and(|raised| !raised.iter().all(|one| state.raised.contains(one)));
    // What it has raised under another name before it was edited goes on as it is, unless there is news of it.
    let is_renamed = state.edited && raised.as_ref().is_some_and(|raised| is_renamed(rule, key, state, raised));
    let is_edited = state.edited && !is_renamed;
    state.edited = is_renamed;
    let is_worse = || {
        let severities = |raised: &[Raised]| raised.iter().map(|(_, severity)| *severity).collect::<Vec<_>>();
        rule.severity_varies() && raised.as_deref().map(severities) != Some(severities(&state.raised))
    };
    let is_news = if is_renamed { is_worse() } else { is_other };
    if !is_news && !is_edited && !is_retitled {
        return false;
    }
    let raised = raised.unwrap_or_else(|| rule.raised(key, met.facts, met.window));
    state.raise(raised);
    title.into_iter().for_each(|title| state.entitle(title, met.now));
    true
}

/// Does the rule, by the words that it has now, call what it has raised otherwise? By this event it may raise one more.
fn is_renamed(rule: &Rule, key: &str, state: &KeyState, raised: &[Raised]) -> bool {
    let is_known = |raised: &[Raised]| raised.iter().all(|(alarm, _)| state.raised.iter().any(|(a, _)| a == alarm));
    let by_then = || {
        let held = state.held.as_ref()?;
        let facts = Facts::new(held.event.as_bytes(), &held.origin, held.at_us, &rule.node)?;
        let window = rule.window.as_ref().zip(state.window.as_ref()).map(|(w, seen)| seen.summary(w.span, held.at_us));
        Some(rule.raised(key, &facts, window.as_ref()))
    };
    !is_known(raised) && !by_then().is_some_and(|raised| is_known(&raised))
}

/// When a timer is asked again that has come and could not fire at `now`.
fn again(rule: &Rule, state: &mut KeyState, due: Due, now: i64) -> Option<i64> {
    let long_enough = state.since_us.zip(rule.hold_us).map(|(since, hold)| since + hold);
    if let Some(end) = long_enough.filter(|end| due.at_us < *end && due.what == What::Held) {
        // It was planned for the window's emptying; events that share a cell have come since.
        return Some(holding(rule, state, end, now).at_us);
    }
    // Outside its hours it has held, or nothing has come, all the same.
    if rule.next_open_us(now) != Some(now) {
        return rule.next_open_us(now);
    }
    if due.what == What::Absent {
        // Another alarm holds it back: looked at again when as much time has gone by once more.
        return rule.absent_us.map(|us| now + us);
    }
    // Too soon behind the last time; else another alarm holds it back, and counts how long it holds when it ends.
    let later = time_to_fire(rule, state, now).filter(|at| *at > now);
    state.since_us = state.since_us.filter(|_| later.is_some());
    later
}

/// When the condition will have held long enough, which is at `end`, or has ended by the window's emptying.
fn holding(rule: &Rule, state: &KeyState, end: i64, now: i64) -> Due {
    let ends = rule.when.as_ref().and_then(|when| turns(rule, state, when, false, now));
    Due { at_us: ends.filter(|at| *at < end).unwrap_or(end), what: What::Held }
}

/// When the condition will be over by the window's emptying alone.
fn fading(rule: &Rule, state: &KeyState, now: i64) -> Option<Due> {
    let at = turns(rule, state, rule.clear.as_ref()?, true, now)?;
    Some(Due { at_us: at + rule.calm_us, what: What::Over })
}

/// Has the window's emptying alone made it calm, as was planned, at a moment that has passed by `now`?
fn has_faded(rule: &Rule, state: &KeyState, now: i64) -> bool {
    let planned = state.due.filter(|d| state.on && d.what == What::Over && state.ended.is_none());
    let since = planned.map(|d| d.at_us - rule.calm_us).filter(|since| rule.calm_us > 0 && *since <= now);
    let Some((since, clear)) = since.zip(rule.clear.as_ref()) else { return false };
    asks(rule, state, clear).is_some_and(|is| is(since) == Some(true))
}

/// When the window's emptying alone makes `asked` true, or false: found by looking ahead, so that no
/// timer has to ask again and again.
fn turns(rule: &Rule, state: &KeyState, asked: &Expression, to: bool, now: i64) -> Option<i64> {
    let (span, asks) = (rule.window.as_ref()?.span, asks(rule, state, asked)?);
    let window = state.window.as_ref()?;
    window.changes(span, now, LOOK_AHEAD).into_iter().find(|at| asks(*at) == Some(to))
}

/// What the window makes of `asked` at a moment, for the event that the rule tells of.
fn asks<'a>(rule: &'a Rule, state: &'a KeyState, asked: &'a Expression) -> Option<impl Fn(i64) -> Option<bool> + 'a> {
    let (w, held) = (rule.window.as_ref()?, state.held.as_ref()?);
    let window = state.window.as_ref().filter(|_| asked.uses_window)?;
    let facts = Facts::new(held.event.as_bytes(), &held.origin, held.at_us, &rule.node)?;
    Some(move |at| asked.truth(&facts, Some(&window.summary(w.span, at))).ok())
}
