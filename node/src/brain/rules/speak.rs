//! What waits to be said, turned into records: conclusions first, then timers.
//!
//! One group at a time: first the record that says which conclusions are done, for which rules and
//! why; behind it everything that follows from them. Whole or not at all, so nothing is said twice.

use super::Rules;
use super::act::Occasion;
use super::alarms::Turn;
use super::drafts::{Drafts, TEXT_MAX, cut, draft, header};
use super::keys::{Due, Held, KeyState, What};
use super::queue::{Conclusion, Intent, Meet};
use super::rule::{Action, Dependency, Rule};
use super::said::{FIRED, Outcome, Said, SaidOf};
use super::step::{self, Step};
use super::telling::Telling;
use super::timing::time_to_fire;
use super::window::Summary;
use citybrain_hub::state::State;
use citybrain_shared::Pos;
use citybrain_shared::record::Draft;
use serde_json::json;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Type of the record that shows that the node is up.
const UP: &str = "city.brain.rule.up";

/// Conclusions in one group, and timers: a few milliseconds of work.
const SPOKEN_MAX: usize = 256;
const TIMERS_MAX: usize = 256;
/// Bytes of what one group says is done, and of what follows from it: the first is an event of its own,
/// of 256 KiB at most and never without its data; the second is what one commit should bring at most.
/// What is left waits for the next group.
const SAID_BYTES_MAX: usize = 128 * 1024;
const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one of them: room for 30 values of [`TEXT_MAX`]. Of a larger one, why it was is left out.
const SAID_ONE_BYTES_MAX: usize = 64 * 1024;
/// What is due waits this long after a start for the node to have said that it is there.
const AWAKE_AFTER_US: i64 = 60_000_000;

impl Rules {
    /// Everything that is to be written now: empty when nothing waits.
    pub(super) fn speak(&self, now_us: i64) -> Vec<Draft> {
        let mut speaker = Speaker::new(self, now_us);
        // Also what is due by an event that waits, however the clock goes.
        let due = self.due_by(self.waiting.iter().next().map_or(now_us, |first| first.at_us.max(now_us)));
        speaker.due_us = due.first().map_or(i64::MAX, |come| come.at_us);
        let (mut upto, mut spoken) = (Pos::ZERO, 0);
        for intent in self.waiting.iter().take(SPOKEN_MAX) {
            // What an alarm has let fire does so before anything newer.
            let is_newer = speaker.turned_us.is_some() && intent.pos > upto;
            // A quarter is for timers: what comes without end must not keep them back.
            if is_newer || speaker.is_full(3) || !speaker.conclusion(intent) {
                break;
            }
            speaker.heed(intent.at_us);
            (upto, spoken) = (intent.pos, spoken + 1);
        }
        let first_us = self.waiting.iter().nth(spoken).map(|intent| intent.at_us);
        let but = self.waiting.iter().skip(spoken).take_while(|intent| intent.pos == upto).count() as u32;
        let mut timers = 0;
        for come in due {
            // One at least, however much there was to say before it.
            if timers > 0 && speaker.is_full(4) {
                break;
            }
            // Where alarms decide, what is older is said before.
            let is_newer = first_us.into_iter().chain(speaker.turned_us).any(|at| at < come.at_us);
            if (is_newer || speaker.next_us <= come.at_us) && self.is_in_turn(come.rule)
                || !speaker.calls(come.rule, come.key)
            {
                continue;
            }
            timers += 1;
            let at_us = come.at_us;
            speaker.timer(come);
            speaker.heed(at_us);
        }
        speaker.group(upto, but)
    }

    fn memory_of(&self, rule: &str, key: &str) -> Option<(u32, &KeyState)> {
        self.index_of(rule).and_then(|index| Some((index, self.memories.get(index, key)?)))
    }

    /// Does it count when the rule speaks, beside others: does it depend on an alarm, or some rule on one of its own?
    fn is_in_turn(&self, rule: u32) -> bool {
        let rule = &self.set.rules[rule as usize];
        rule.depends() || self.set.sways(rule)
    }

    /// Timers that have come, but for those of which something else is to be said before. An event that came behind one
    /// is met behind it.
    fn due_by(&self, now_us: i64) -> Vec<Come<'_>> {
        let mut due = self.memories.due().take_while(|(at, _, _)| *at <= now_us).peekable();
        if due.peek().is_none() {
            return Vec::new();
        }
        // Of each rule and key, when the first came that is to be said.
        let mut waits: HashMap<(&str, &str), i64> = HashMap::new();
        for Intent { what, at_us, .. } in self.waiting.iter() {
            let at_us = if matches!(what, Conclusion::Meet(_)) { *at_us } else { i64::MIN };
            if let Some(of) = what.of() {
                waits.entry(of).or_insert(at_us);
            }
        }
        let name = |rule: u32| self.set.rules.get(rule as usize).map_or("", |rule| &rule.name);
        let due = due.map(|(at_us, rule, key)| {
            let event_us = waits.get(&(name(*rule), key.as_str())).copied();
            Come { at_us: *at_us, rule: *rule, key, event_us }
        });
        let due = due.filter(|come| come.event_us.is_none_or(|first| come.at_us <= first));
        // Of one moment, those that others depend on are first; then what begins takes over from what ends.
        let ends = |rule: u32, key: &str| {
            let state = self.memories.get(rule, key);
            state.and_then(KeyState::next).is_some_and(|due| due.what == What::Over)
        };
        let mut due: Vec<_> = due.take(TIMERS_MAX).collect();
        due.sort_by_key(|c| (c.at_us, self.set.rules[c.rule as usize].turn, ends(c.rule, c.key)));
        due
    }

    /// The subject of the case that this rule opens of that key, if it opens any: whether it is the same matter as
    /// another is judged by what was there before the group.
    fn subject<'a>(&'a self, rule: u32, key: &'a str) -> Option<&'a str> {
        let rule = self.set.rules.get(rule as usize)?;
        let opens = rule.then.iter().any(|a| matches!(a, Action::Case { .. }));
        opens.then_some(if key.is_empty() { rule.name.as_str() } else { key })
    }

    /// Has this start of the node been told of? Only then is anything said that is due: that record tells how long
    /// the node was down, and what could not come meanwhile is not absent.
    pub(in crate::brain) fn is_awake(&self, state: &State, now_us: i64) -> bool {
        if self.uptime.started == state.me.boot.counter {
            return true;
        }
        // A disk that takes nothing keeps that word back; then time alone must do.
        let first = self.first_asked_us.get_or_init(|| now_us);
        now_us - first >= AWAKE_AFTER_US
    }

    /// The record that shows that the node is up.
    pub(super) fn show_up(&self, now_us: i64) -> Vec<Draft> {
        let mut drafts = Drafts::new(&self.me, now_us);
        let event = drafts.event(UP, &drafts.id("up"), json!({}), 0);
        drafts.push(header(UP), &event);
        drafts.into_all()
    }
}

/// A timer that has come.
struct Come<'a> {
    at_us: i64,
    rule: u32,
    key: &'a str,
    /// When the first event came that waits to be met behind it.
    event_us: Option<i64>,
}

/// One group, as it is put together.
struct Speaker<'a> {
    rules: &'a Rules,
    now: i64,
    /// When the first of this group's timers came.
    due_us: i64,
    /// When an alarm has turned that some rule waits for: what that leads to is older than all that comes behind.
    turned_us: Option<i64>,
    /// The first moment that what this group says has planned, of rules that are in turn: it is said before what is newer.
    next_us: i64,
    alarms: Telling<'a>,
    /// States of those that met an event in this group, as that has left them.
    met: HashMap<(u32, &'a str), KeyState>,
    /// As [`Said::free`].
    free: Vec<bool>,
    /// Subjects of cases that this group opens.
    called: HashSet<&'a str>,
    said: Vec<SaidOf>,
    said_bytes: usize,
    any: bool,
}

/// What comes of an event or a moment. `held` is the event that the alarm speaks of, `by` the one that did it.
struct Deed<'d> {
    rule: &'d str,
    key: &'d str,
    what: Outcome,
    held: &'d Held,
    by: &'d Held,
    window: Option<&'d Summary>,
    at_us: i64,
    /// Of a moment: when it was due.
    due_us: Option<i64>,
}

impl<'a> Speaker<'a> {
    fn new(rules: &'a Rules, now: i64) -> Speaker<'a> {
        Speaker {
            rules,
            now,
            due_us: i64::MAX,
            turned_us: None,
            next_us: i64::MAX,
            alarms: Telling::new(rules, now),
            met: HashMap::new(),
            free: Vec::new(),
            called: HashSet::new(),
            said: Vec::new(),
            said_bytes: 0,
            any: false,
        }
    }

    /// Has this group said so many quarters of what it may say?
    fn is_full(&self, quarters: usize) -> bool {
        let is_full = |bytes: usize, max: usize| bytes >= max / 4 * quarters;
        is_full(self.said_bytes, SAID_BYTES_MAX) || is_full(self.alarms.drafts.bytes(), GROUP_BYTES_MAX)
    }

    /// One more that is done. Whatever an event held, it is small enough to be said.
    fn say(&mut self, mut of: SaidOf) {
        let bytes = |of: &SaidOf| serde_json::to_string(of).map_or(0, |text| text.len());
        if bytes(&of) > SAID_ONE_BYTES_MAX {
            (of.why, of.event) = (BTreeMap::new(), cut(of.event));
            of.done.truncate(8);
        }
        self.said_bytes += bytes(&of);
        self.said.push(of);
    }

    fn group(self, upto: Pos, but: u32) -> Vec<Draft> {
        if !self.any {
            return Vec::new();
        }
        let said = Said { upto, but, fired: self.said, free: self.free };
        let drafts = self.alarms.drafts;
        let data = serde_json::to_value(said).unwrap_or_default();
        let event = drafts.event(FIRED, &drafts.id("fired"), data, 0);
        draft(header(FIRED), &event).into_iter().chain(drafts.into_all()).collect()
    }

    /// Does this conclusion begin what this group ends?
    fn has_ended(&self, what: &Conclusion) -> bool {
        let (Conclusion::Fire { rule, key, .. } | Conclusion::Change { rule, key, .. }) = what else { return false };
        self.rules.memory_of(rule, key).is_some_and(|(_, state)| self.alarms.ends_one_of(&state.raised))
    }

    /// A second call for help with the same button ends the group: cases must know of the first before they are asked
    /// about it.
    fn calls(&mut self, rule: u32, key: &'a str) -> bool {
        self.rules.subject(rule, key).is_none_or(|button| self.called.insert(button))
    }

    /// False: it waits for the next group.
    fn conclusion(&mut self, Intent { what, at_us, .. }: &'a Intent) -> bool {
        let at_us = *at_us;
        if let Conclusion::Fire { rule, key, .. } = what
            && let Some(index) = self.rules.index_of(rule)
            && !self.calls(index, key)
        {
            return false;
        }
        if self.has_ended(what) {
            return false;
        }
        // Timers that were over when it came are said before.
        if self.due_us.min(self.next_us) <= at_us && self.is_behind_timers(what) {
            return false;
        }
        self.alarms.speaks_of(at_us);
        match what {
            Conclusion::Meet(meet) => return self.meets(meet, at_us),
            Conclusion::Fire { rule, key, held, window } => {
                let (what, window) = (Outcome::Fired, window.as_ref());
                self.act(&Deed { rule, key, what, held, by: held, window, at_us, due_us: None });
            }
            Conclusion::Change { rule, key, held, window } => {
                let (what, window) = (Outcome::Changed, window.as_ref());
                self.act(&Deed { rule, key, what, held, by: held, window, at_us, due_us: None });
            }
            Conclusion::Over { rule, key, held, over, window } => {
                let (what, window) = (Outcome::Over, window.as_ref());
                self.act(&Deed { rule, key, what, held, by: over, window, at_us, due_us: None });
            }
            Conclusion::Ask(ask) => self.alarms.asked(ask),
            Conclusion::Return(alarm) => self.alarms.give_back(alarm),
            Conclusion::HandOn(id) => self.alarms.pass_on(id),
            Conclusion::GoOn(known) => self.alarms.go_on(known),
            Conclusion::Repeat(id) => self.alarms.repeat_known(id),
        }
        if let Some((index, state)) = what.of().and_then(|(rule, key)| self.rules.memory_of(rule, key)) {
            self.plans(index, state.next(), at_us);
        }
        self.any = true;
        true
    }

    /// May what it says be another thing by what timers say, or the other way round?
    fn is_behind_timers(&self, what: &Conclusion) -> bool {
        let set = &self.rules.set;
        match what {
            Conclusion::Meet(_) => true,
            Conclusion::Fire { rule, .. } | Conclusion::Change { rule, .. } | Conclusion::Over { rule, .. } => {
                set.index_of(rule).is_some_and(|index| self.rules.is_in_turn(index))
            }
            Conclusion::Ask(ask) => set.is_watched(&ask.known.name),
            Conclusion::GoOn(alarm) => set.is_watched(&alarm.name),
            Conclusion::Return(_) | Conclusion::HandOn(_) | Conclusion::Repeat(_) => false,
        }
    }

    /// If what was just said, of that moment, has begun or ended an alarm for which some rule waits, this group says nothing
    /// newer.
    fn heed(&mut self, at_us: i64) {
        let turned = self.alarms.take_turned();
        if turned.iter().any(|turn| self.is_awaited(turn, at_us)) {
            self.turned_us.get_or_insert(at_us);
        }
    }

    fn is_awaited(&self, turn: &Turn, at_us: i64) -> bool {
        let Rules { set, memories, .. } = self.rules;
        let named = |d: &Dependency| d.alarm == turn.name && d.any_key == turn.key.is_none();
        (0..).zip(&set.rules).filter(|(_, rule)| rule.dependencies().any(named)).any(|(index, rule)| {
            let awaits = |state: &KeyState| step::awaits_alarm(rule, state, at_us);
            let is_waiting = |key: &str| self.state(index, key).is_some_and(awaits);
            match &turn.key {
                Some(key) => is_waiting(key),
                None => memories.keys(index).keys().any(|key| is_waiting(key)),
            }
        })
    }

    /// As the events that this group has met have left it, or as it was.
    fn state<'s>(&'s self, rule: u32, key: &'s str) -> Option<&'s KeyState> {
        self.met.get(&(rule, key)).or_else(|| self.rules.memories.get(rule, key))
    }

    /// A rule meets an event that has waited: all that came before is known now, as whether alarms are active on which it
    /// depends. False: it waits for the next group.
    fn meets(&mut self, meet: &'a Meet, at_us: i64) -> bool {
        let (rules, key) = (self.rules, meet.key.as_str());
        let Some((index, known)) = rules.memory_of(&meet.rule, key) else {
            // Neither it nor what it knew is there any more.
            self.any = true;
            self.free.push(false);
            return true;
        };
        let rule = &rules.set.rules[index as usize];
        let free = self.alarms.is_free(rule, key);
        let state = self.met.entry((index, key)).or_insert_with(|| known.clone());
        if step::is_behind(state, at_us) {
            return false;
        }
        let (step, window) = step::meet_again(rule, state, meet, free, at_us).unwrap_or((Step::Nothing, None));
        let comes = match step {
            Step::Fire => Some((Outcome::Fired, None)),
            Step::Change => Some((Outcome::Changed, None)),
            Step::Over(first) => Some((Outcome::Over, first)),
            Step::Nothing | Step::Later => None,
        };
        if let Some((what, held)) = comes {
            let raised = state.raised.clone();
            // One that must wait is the last that this group meets: nobody asks for its state again.
            if !self.alarms.may_raise(index, key, &raised) || what == Outcome::Fired && !self.calls(index, key) {
                return false;
            }
            self.alarms.begins(index, key, &raised);
            self.alarms.moves(index, key);
            let (held, by, window) = (held.as_ref().unwrap_or(&meet.held), &meet.held, window.as_ref());
            self.act(&Deed { rule: &meet.rule, key, what, held, by, window, at_us, due_us: None });
        }
        let next = self.met.get(&(index, key)).and_then(KeyState::next);
        self.plans(index, next, at_us);
        self.any = true;
        self.free.push(free);
        true
    }

    /// What was just said of a rule, as of that moment, has it look again then.
    fn plans(&mut self, rule: u32, next: Option<Due>, at_us: i64) {
        let next = next.filter(|_| self.rules.is_in_turn(rule));
        next.into_iter().for_each(|due| self.next_us = self.next_us.min(due.at_us.max(at_us + 1)));
    }

    /// A moment has come.
    fn timer(&mut self, come: Come<'a>) {
        let (rules, Come { at_us: due_us, rule: index, key, event_us }) = (self.rules, come);
        let rule = &rules.set.rules[index as usize];
        let Some(state) = rules.memories.get(index, key) else { return };
        let Some(due) = state.next().filter(|d| d.at_us == due_us) else { return };
        self.any = true;
        self.alarms.speaks_of(due_us);
        let what = step::come(rule, state, due, self.alarms.is_free(rule, key));
        // A title is told as it was by its event.
        let seen_us = state.held.as_ref().filter(|_| due.what == What::Title).map_or(due_us, |held| held.at_us);
        let window = state.summary(rule, seen_us);
        match what {
            Outcome::Fired => {
                let facts = state.held.as_ref().and_then(|held| held.facts(&rule.node));
                let raised = facts.map(|facts| rule.raised(key, &facts, window.as_ref())).unwrap_or_default();
                if self.alarms.ends_one_of(&raised) {
                    return;
                }
                self.alarms.begins(index, key, &raised);
            }
            Outcome::Over => self.alarms.moves(index, key),
            Outcome::Changed if self.alarms.ends_one_of(&state.raised) => return,
            Outcome::Changed | Outcome::Held | Outcome::Lapsed => {}
        }
        let Some(held) = &state.held else { return self.unseen(rule, key, what, due_us) };
        let by = state.ended.as_ref().filter(|_| what == Outcome::Over).unwrap_or(held);
        let window = window.as_ref();
        let at_us = if what == Outcome::Held { self.last_look(rule, state, due, event_us) } else { due_us };
        self.act(&Deed { rule: &rule.name, key, what, held, by, window, at_us, due_us: Some(due_us) });
        if rules.is_in_turn(index) {
            let mut state = state.clone();
            step::settle(rule, key, &mut state, what, due, at_us);
            self.plans(index, state.next(), due_us);
        }
    }

    /// A silence that is held back is looked at each time as much time has gone by once more. Of the looks that are past
    /// the last one counts for all: a clock that was years behind, or a node that stood still, has thousands of them. An
    /// event that waits comes between, and so does the moment from which on the time is right.
    fn last_look(&self, rule: &Rule, state: &KeyState, due: Due, event_us: Option<i64>) -> i64 {
        let Some(absent) = rule.absent_us.filter(|_| due.what == What::Absent) else { return due.at_us };
        let opens = time_to_fire(rule, state, due.at_us).filter(|at| *at > due.at_us);
        let before = opens.map(|at| at - 1);
        let until = event_us.into_iter().chain(before).fold(self.now, i64::min);
        due.at_us + (until - due.at_us).max(0) / absent * absent
    }

    /// What a moment has come to of which no event is known: the end of what the box that was here before had raised, or
    /// of a timer of which nobody knows any more what it was to tell of. Unspoken, it would be due for ever.
    fn unseen(&mut self, rule: &Rule, key: &str, what: Outcome, due_us: i64) {
        let (at_us, done) = match what {
            Outcome::Over => (due_us, self.alarms.end_all(rule, key, Vec::new())),
            _ => (self.now, Vec::new()),
        };
        self.say(SaidOf {
            rule: rule.name.clone(),
            key: key.to_owned(),
            what,
            at_us,
            due_us: Some(due_us),
            severity: None,
            event: String::new(),
            why: BTreeMap::new(),
            done,
            error: None,
        });
    }

    fn act(&mut self, deed: &Deed<'_>) {
        let Deed { rule, key, what, held, by, window, at_us, due_us } = *deed;
        let Some(index) = self.rules.index_of(rule) else { return };
        let rule = &self.rules.set.rules[index as usize];
        let (Some(facts), Some(cause)) = (held.facts(&rule.node), by.facts(&rule.node)) else {
            return due_us.into_iter().for_each(|due_us| self.unseen(rule, key, Outcome::Lapsed, due_us));
        };
        let on = Occasion { rule, key, facts: &facts, window };
        let is_late_title = due_us.is_some() && what == Outcome::Changed;
        let done = if is_late_title { self.alarms.retitle(on) } else { self.alarms.act(on, what, held.had_before) };
        let what = if is_late_title && done.is_empty() { Outcome::Lapsed } else { what };
        let is_raised = matches!(what, Outcome::Fired | Outcome::Changed);
        let severity = if is_raised { on.severity() } else { None };
        let id = cause.json["id"].as_str().unwrap_or_default();
        let event = if due_us.is_some() { String::new() } else { id.to_owned() };
        let mut why = rule.why(&cause, window);
        for value in why.values_mut() {
            let text = value.to_string();
            if text.len() > TEXT_MAX {
                *value = cut(text).into();
            }
        }
        let error = facts.lacking().map(|why| cut(why.to_owned()));
        let (rule, key) = (rule.name.clone(), key.to_owned());
        self.say(SaidOf { rule, key, what, at_us, due_us, severity, event, why, done, error });
    }
}
