//! Alarms that outlive what was remembered of them: the box was another one before, or the rule was another.
//!
//! What is known of an alarm, here or above, is made the rule's own again, so that the rule ends it; and a node that has
//! lost its disk is told.

use super::Rules;
use super::alarms;
use super::keys::KeyState;
use super::queue::Conclusion;
use super::raisers::Raiser;
use super::{drafts, step};
use citybrain_shared::record::Header;
use citybrain_shared::view::Alarm;
use citybrain_shared::{Address, LogId, Pos, Tier};
use std::cmp::Reverse;

impl Rules {
    /// Every alarm of this node that is active is raised by the rule that it is of, also if that knows nothing of it:
    /// the box that was here before has raised it, the rule did before it was gone from the file for a while, or its end
    /// was dropped before it was said. It ends what it raises with the next event that says so.
    pub(super) fn take_up(&mut self, index: u32, key: &str, now_us: i64) {
        let rule = &self.set.rules[index as usize];
        let known = self.memories.get(index, key);
        if !rule.latches() || known.is_some_and(|state| state.on) {
            return;
        }
        let own = self.own_of(index, key);
        if own.is_empty() || self.waiting_of(index, key).is_some() {
            return;
        }
        self.go_on(index, key, &own, now_us);
    }

    /// Active alarms of this node that are of that rule and key.
    fn own_of(&self, index: u32, key: &str) -> Vec<Alarm> {
        let rule = &self.set.rules[index as usize];
        self.alarms.raised_by(&rule.name, key).filter(|a| a.origin == self.me).cloned().collect()
    }

    /// The rule goes on raising these for that key.
    fn go_on(&mut self, index: u32, key: &str, lasting: &[Alarm], now_us: i64) {
        let rule = &self.set.rules[index as usize];
        self.memories.open(index, key);
        self.memories.change(index, key, |state| step::take_up(rule, state, lasting, now_us));
    }

    /// An alarm that the box which was here had, or this one before a backup was put back, as its parent knows it.
    pub(super) fn known(&mut self, pos: Pos, now_us: i64, known: Alarm) {
        self.outrun(pos, now_us, known.rev);
        let rule = self.latching(&known.rule);
        let key = known.rule_key.clone();
        let Some(own) = self.alarms.get(&known.id) else {
            self.changing(now_us, |table| table.fold(known));
            return rule.into_iter().for_each(|rule| self.take_up(rule, &key, now_us));
        };
        // As it is since the backup, this box has said nothing of it: all that is known goes on from there.
        let is_as_before = own.rev <= self.newest_before;
        if is_as_before && known.rev <= own.rev {
            return;
        }
        match (known.active, is_as_before) {
            (true, true) => self.catch_up(pos, rule, known, now_us),
            (true, false) => self.go_on_beside(pos, rule, known, now_us),
            (false, _) => self.known_over(pos, is_as_before, known, now_us),
        }
    }

    /// What this node had said behind the backup that was put back is how it stands, but for those who were heard since.
    fn catch_up(&mut self, pos: Pos, rule: Option<u32>, known: Alarm, now_us: i64) {
        let (id, key) = (known.id.clone(), known.rule_key.clone());
        let is_heard = self.is_raised_since(&known);
        self.changing(now_us, |table| table.fold(known));
        let is_on = |state: &KeyState| state.on && !state.from_backup;
        if let Some(rule) = rule.filter(|rule| !self.memories.get(*rule, &key).is_some_and(is_on)) {
            self.go_on(rule, &key, &self.own_of(rule, &key), now_us);
        }
        if is_heard {
            self.waiting.push(pos, now_us, Conclusion::HandOn(id));
        }
    }

    /// What this box has said of it itself is newer: by the word of the same rule and key, or of a person who has ended
    /// it. Of another's word it is the alarm as well, and as bad as the worse of both says.
    fn go_on_beside(&mut self, pos: Pos, rule: Option<u32>, known: Alarm, now_us: i64) {
        let is_unheard =
            |state: &KeyState| state.from_backup || !state.on && state.fired_us.is_none() && state.calm_us.is_none();
        let is_new = |rule: &u32| self.memories.get(*rule, &known.rule_key).is_none_or(is_unheard);
        let is_by_rule = |a: &Alarm| a.active || a.cleared_by.as_deref().is_some_and(|by| by.starts_with("rule:"));
        // Whoever has ended it has not seen that it was worse.
        let is_open = self.alarms.get(&known.id).is_some_and(|own| is_by_rule(own) || known.severity < own.severity);
        let Some(rule) = rule.filter(is_new).filter(|_| is_open) else { return };
        self.go_on(rule, &known.rule_key, std::slice::from_ref(&known), now_us);
        self.waiting.push(pos, now_us, Conclusion::GoOn(Box::new(known)));
    }

    /// It was over: so are all who raise it by what the backup has. It is of those who were heard since.
    fn known_over(&mut self, pos: Pos, is_as_before: bool, known: Alarm, now_us: i64) {
        let rested = self.rest_unheard(&known);
        if is_as_before {
            self.changing(now_us, |table| table.fold(known.clone()));
        }
        if rested || is_as_before && self.is_raised_since(&known) {
            self.waiting.push(pos, now_us, Conclusion::GoOn(Box::new(known)));
        }
    }

    /// Does one raise it who was heard since a backup was put back?
    fn is_raised_since(&self, alarm: &Alarm) -> bool {
        let is_heard = |r: &Raiser| self.memories.get(r.rule, &r.key).is_some_and(|state| !state.from_backup);
        self.memories.raisers().of(alarms::hash(&alarm.name, &alarm.key)).any(is_heard)
    }

    /// Those who raise it and were not heard since are at rest. Are there any?
    fn rest_unheard(&mut self, alarm: &Alarm) -> bool {
        let is_of_backup = |r: &&Raiser| self.memories.get(r.rule, &r.key).is_some_and(|state| state.from_backup);
        let all = self.memories.raisers().of(alarms::hash(&alarm.name, &alarm.key)).filter(is_of_backup);
        let all: Vec<_> = all.map(|r| (r.rule, r.key.clone())).collect();
        for (rule, key) in &all {
            self.memories.change(*rule, key, |state| {
                step::rest(state);
                state.from_backup = false;
            });
        }
        !all.is_empty()
    }

    /// The box that was here has said more than this one, by its clock, can follow: what is said from now on, and what
    /// this box has said already, must be newer.
    fn outrun(&mut self, pos: Pos, now_us: i64, rev: i64) {
        if rev < now_us || !self.alarms.outrun(rev) {
            return;
        }
        for alarm in self.alarms.iter().filter(|a| a.origin == self.me && a.rev <= rev) {
            self.waiting.push(pos, now_us, Conclusion::Repeat(alarm.id.clone()));
        }
    }

    /// Other rules are in force, or may be: an alarm whose rule is gone passes to another that raises it.
    pub(super) fn look_at_own(&mut self, pos: Pos, now_us: i64) {
        let own = self.alarms.iter().filter(|a| a.active && a.origin == self.me);
        let own: Vec<_> = own
            .map(|a| (a.id.clone(), self.latching(&a.rule), a.rule_key.clone(), alarms::hash(&a.name, &a.key)))
            .collect();
        for (id, rule, key, alarm) in own {
            match rule {
                Some(rule) => self.take_up(rule, &key, now_us),
                None if self.memories.raisers().of(alarm).next().is_some() => {
                    self.waiting.push(pos, now_us, Conclusion::HandOn(id))
                }
                None => {}
            }
        }
    }

    /// A child that has lost what it knew, or all beyond the revision `newest` of its own alarms: the rest is known here
    /// alone. Of what it has said itself before it has asked that counts which was known before.
    pub(super) fn give_back_all(&mut self, pos: Pos, now_us: i64, child: &Address, log: LogId, newest: i64) {
        let spoken_over = self.boxes.answer(child, log);
        let theirs = self.alarms.iter().filter(|a| a.origin == *child);
        let mut theirs: Vec<&Alarm> = theirs.map(|a| spoken_over.get(&a.id).unwrap_or(a)).collect();
        // The newest first, and in any case: by it the new box knows what it must be ahead of, and says once
        // more what it has said itself. Each that is newer than one before it would have it do so again.
        theirs.sort_by_key(|a| Reverse(a.rev));
        for (i, alarm) in theirs.into_iter().enumerate() {
            // One that has lost nothing but the end lacks those that are over, too.
            let is_lacking = if newest == 0 { i == 0 || alarm.active } else { alarm.rev > newest };
            if is_lacking {
                self.waiting.push(pos, now_us, Conclusion::Return(Box::new(alarm.clone())));
            }
        }
    }

    /// Whoever has called this node may have lost its disk, and what was told long ago is in no log any more. Each lane
    /// tells of its own.
    pub(super) fn repeat_all(&mut self, pos: Pos, header: &Header<'_>, above: Tier) {
        let is_told = |a: &&Alarm| a.active && a.origin == self.me && a.reach <= above;
        let of_lane = |a: &&Alarm| drafts::lane(a.severity.is_urgent()) == header.lane;
        for alarm in self.alarms.iter().filter(is_told).filter(of_lane) {
            self.waiting.push(pos, header.committed_us, Conclusion::Repeat(alarm.id.clone()));
        }
    }
}
