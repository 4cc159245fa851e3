//! Conclusions and timers, turned into records.
//!
//! One group at a time: first the record that says which conclusions are done, for which rules and
//! why; behind it everything that follows from them. Whole or not at all, so nothing is said twice.

use super::alarms::{self, Identity, Step, Told, id_of};
use super::asking::Wish;
use super::expression::Facts;
use super::fold::{self, Ask, HOPS};
use super::keys::{Conclusion, Held, Intent, KeyState, Meet, What};
use super::raisers::{Raised, Raiser, Raisers};
use super::rule::{Action, Rule, alarm_key, severity};
use super::said::{FIRED, Said, SaidOf};
use super::template::Template;
use super::window::Summary;
use super::{Rules, UP};
use crate::brain::cases::intake;
use citybrain_hub::state::State;
use citybrain_shared::case::{self, Place};
use citybrain_shared::event::is_reserved;
use citybrain_shared::record::{Direction, Draft, Header, Kind, event_key};
use citybrain_shared::view::{self, Alarm};
use citybrain_shared::{Lane, Pos, Selector, Tier, limits};
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, HashMap, HashSet};

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

/// Characters of a title or a shown value: enough for people, whatever an event holds.
const TEXT_MAX: usize = 300;
/// What is due waits this long after a start for the node to have said that it is there.
const AWAKE_AFTER_US: i64 = 60_000_000;

impl Rules {
    /// Everything that is to be written now: empty when nothing waits.
    pub(super) fn speak(&self, now_us: i64) -> Vec<Draft> {
        let mut speaker = Speaker::new(self, now_us);
        let due = self.due_by(now_us);
        speaker.due_us = due.first().map_or(i64::MAX, |(at, _, _)| *at);
        let (mut upto, mut spoken) = (Pos::ZERO, 0);
        for intent in self.waiting.iter().take(SPOKEN_MAX) {
            // A quarter is for timers: what comes without end must not keep them back.
            if speaker.is_full(3) || !speaker.conclusion(intent) {
                break;
            }
            (upto, spoken) = (intent.pos, spoken + 1);
        }
        let but = self.waiting.iter().skip(spoken).take_while(|intent| intent.pos == upto).count() as u32;
        let mut timers = 0;
        for (at, rule, key) in due {
            // One at least, however much there was to say before it.
            if timers > 0 && speaker.is_full(4) {
                break;
            }
            if !speaker.calls(*rule, key) {
                continue;
            }
            timers += 1;
            speaker.timer(*at, *rule, key);
        }
        speaker.group(upto, but)
    }

    /// Timers that have come, but for those of which something else is to be said before.
    fn due_by(&self, now_us: i64) -> Vec<&(i64, u32, String)> {
        let mut due = self.due.iter().take_while(|(at, _, _)| *at <= now_us).peekable();
        if due.peek().is_none() {
            return Vec::new();
        }
        let waits: HashSet<(&str, &str)> = self.waiting.iter().filter_map(|intent| intent.what.of()).collect();
        let name = |rule: u32| self.set.rules.get(rule as usize).map_or("", |rule| &rule.name);
        let due = due.filter(|(_, rule, key)| waits.is_empty() || !waits.contains(&(name(*rule), key.as_str())));
        // Of one moment, those that others depend on are first; then what begins takes over from what ends.
        let ends = |rule: u32, key: &str| {
            let state = self.memories[rule as usize].keys.get(key);
            state.and_then(|state| state.due).is_some_and(|due| due.what == What::Over)
        };
        let mut due: Vec<_> = due.take(TIMERS_MAX).collect();
        due.sort_by_key(|(at, rule, key)| (*at, self.set.rules[*rule as usize].turn, ends(*rule, key)));
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
}

/// One group, as it is put together.
pub(super) struct Speaker<'a> {
    rules: &'a Rules,
    now: i64,
    /// When the first of this group's timers came.
    due_us: i64,
    /// Alarms as this group leaves them.
    changed: BTreeMap<String, Alarm>,
    /// Rules and keys of which this group says another thing: their states follow when it is folded, and what they raise
    /// by then is in `begun`.
    moved: HashSet<(u32, String)>,
    begun: Raisers,
    /// States of those that met an event in this group, as that has left them.
    met: HashMap<(u32, &'a str), KeyState>,
    /// As [`Said::free`].
    free: Vec<bool>,
    /// Subjects of cases that this group opens.
    called: HashSet<&'a str>,
    /// Alarms that this group ends. Folded behind all that it says is done, their end is that of all who raise them by
    /// then: whoever begins to waits for the next group.
    cleared: HashSet<u64>,
    pub(super) drafts: Vec<Draft>,
    said: Vec<SaidOf>,
    said_bytes: usize,
    any: bool,
}

impl<'a> Speaker<'a> {
    pub(super) fn new(rules: &'a Rules, now: i64) -> Speaker<'a> {
        Speaker {
            rules,
            now,
            due_us: i64::MAX,
            changed: BTreeMap::new(),
            moved: HashSet::new(),
            begun: Raisers::default(),
            met: HashMap::new(),
            free: Vec::new(),
            called: HashSet::new(),
            cleared: HashSet::new(),
            drafts: Vec::new(),
            said: Vec::new(),
            said_bytes: 0,
            any: false,
        }
    }

    /// Has this group said so many quarters of what it may say?
    fn is_full(&self, quarters: usize) -> bool {
        let bytes = self.drafts.iter().map(|d| d.bytes().len()).sum::<usize>();
        self.said_bytes >= SAID_BYTES_MAX / 4 * quarters || bytes >= GROUP_BYTES_MAX / 4 * quarters
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

    fn group(mut self, upto: Pos, but: u32) -> Vec<Draft> {
        if !self.any {
            return Vec::new();
        }
        let said = Said { upto, but, fired: std::mem::take(&mut self.said), free: std::mem::take(&mut self.free) };
        // Before they are taken out: no draft has that number.
        let id = self.id("fired");
        let drafts = std::mem::take(&mut self.drafts);
        let data = serde_json::to_value(said).unwrap_or_default();
        let event = self.event(FIRED, &id, data, 0);
        self.draft(FIRED, Lane::Routine, Direction::Local, Tier::Neighbourhood, "", 0, event);
        self.drafts.extend(drafts);
        self.drafts
    }

    /// The record that shows that the node is up.
    pub(super) fn up(mut self) -> Vec<Draft> {
        let event = self.event(UP, &self.id("up"), json!({}), 0);
        self.draft(UP, Lane::Routine, Direction::Local, Tier::Neighbourhood, "", 0, event);
        self.drafts
    }

    fn facts(&self, held: &Held) -> Option<Facts> {
        Facts::new(held.event.as_bytes(), &held.origin, held.at_us, &self.rules.set.node)
    }

    fn rule(&self, name: &str) -> Option<&'a Rule> {
        self.rules.index_of(name).map(|i| &self.rules.set.rules[i as usize])
    }

    /// Does this conclusion begin what this group ends?
    fn has_ended(&self, what: &Conclusion) -> bool {
        let (Conclusion::Fire { rule, key, .. } | Conclusion::Change { rule, key, .. }) = what else { return false };
        let index = self.rules.index_of(rule).filter(|_| !self.cleared.is_empty());
        let state = index.and_then(|index| self.rules.memories[index as usize].keys.get(key));
        state.is_some_and(|state| self.ends_one_of(&state.raised))
    }

    fn ends_one_of(&self, raised: &[Raised]) -> bool {
        raised.iter().any(|(alarm, _)| self.cleared.contains(alarm))
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
        match what {
            Conclusion::Meet(meet) => return self.meets(meet, at_us),
            Conclusion::Fire { rule, key, held, window } => {
                self.act(rule, key, "fired", held, held, window.as_ref(), at_us, None);
            }
            Conclusion::Change { rule, key, held, window } => {
                self.act(rule, key, "changed", held, held, window.as_ref(), at_us, None);
            }
            Conclusion::Over { rule, key, held, over, window } => {
                self.act(rule, key, "over", held, over, window.as_ref(), at_us, None);
            }
            Conclusion::Ask(ask) => self.asked(ask),
            Conclusion::Return(id) => self.give_back(id),
            Conclusion::HandOn(id) => self.pass_on(id),
            Conclusion::GoOn(known) => self.go_on(known),
            Conclusion::Repeat(id) => {
                // One that has ended meanwhile was told behind the call.
                let is_heard = |a: &&Alarm| a.active || a.rev <= self.rules.alarms.floor();
                let alarm = self.alarm(id).filter(is_heard).cloned();
                alarm.into_iter().for_each(|alarm| self.repeat(alarm));
            }
        }
        self.any = true;
        true
    }

    /// A rule meets an event and depends on alarms, of which it is known now whether they are active. False: it waits
    /// for the next group.
    fn meets(&mut self, meet: &'a Meet, at_us: i64) -> bool {
        // Timers that were over when it came are said before.
        if self.due_us <= at_us {
            return false;
        }
        let index = self.rules.index_of(&meet.rule);
        let known = index.and_then(|index| {
            let met = self.met.get(&(index, meet.key.as_str()));
            let state = met.or_else(|| self.rules.memories[index as usize].keys.get(&meet.key));
            state.cloned().map(|state| (index, state))
        });
        let Some((index, mut state)) = known else {
            // Neither it nor what it knew is there any more.
            self.any = true;
            self.free.push(false);
            return true;
        };
        let rule = &self.rules.set.rules[index as usize];
        let free = self.is_free(rule, &meet.key);
        let (what, held) = match fold::meet_again(rule, &mut state, meet, free, at_us) {
            Ok(fold::Step::Fire) => ("fired", None),
            Ok(fold::Step::Change) => ("changed", None),
            Ok(fold::Step::Over(first)) => ("over", first),
            Ok(fold::Step::Nothing | fold::Step::Later) | Err(_) => ("", None),
        };
        if !what.is_empty() && !self.moves(index, &meet.key, what, &state.raised) {
            return false;
        }
        self.any = true;
        self.free.push(free);
        self.met.insert((index, &meet.key), state);
        if !what.is_empty() {
            let held = held.as_ref().unwrap_or(&meet.held);
            self.act(&meet.rule, &meet.key, what, held, &meet.held, meet.window.as_ref(), at_us, None);
        }
        true
    }

    /// Notes one of which this group says another thing than it was, and what it raises now. False: that must wait for
    /// the next group.
    fn moves(&mut self, index: u32, key: &'a str, what: &str, raised: &[Raised]) -> bool {
        let rule = &self.rules.set.rules[index as usize];
        let of = (index, key.to_owned());
        // What begins behind the end of its alarm does so in a group behind that end.
        if rule.raises() && (self.moved.contains(&of) || self.ends_one_of(raised)) {
            return false;
        }
        if what == "fired" && !self.calls(index, key) {
            return false;
        }
        self.begun.add(index, key, raised);
        self.moved.insert(of);
        true
    }

    /// Do other alarms let the rule fire, by the table and by what this group has said?
    fn is_free(&self, rule: &Rule, key: &str) -> bool {
        fold::depends(rule, key, |name, key| {
            let is_of = |a: &&Alarm| a.name == name && key.is_none_or(|key| a.key == key);
            let was = |a: &&Alarm| self.rules.alarms.get(&a.id).is_some_and(|a| a.active);
            let said = || self.changed.values().filter(is_of);
            let over = said().filter(|a| !a.active).filter(was).count();
            let stays = || match over {
                0 => self.rules.alarms.is_active(name, key),
                _ => self.rules.alarms.active(name, key) as usize > over,
            };
            said().any(|a| a.active) || stays()
        })
    }

    /// A moment has come.
    fn timer(&mut self, due_us: i64, index: u32, key: &'a str) {
        let rule = &self.rules.set.rules[index as usize];
        let Some(state) = self.rules.memories[index as usize].keys.get(key) else { return };
        let Some(due) = state.due.filter(|d| d.at_us == due_us) else { return };
        self.any = true;
        let Some(held) = &state.held else {
            return match due.what {
                What::Over => self.over_unseen(rule, index, key, due_us),
                What::Held | What::Absent => self.lapsed(&rule.name, key, due_us),
            };
        };
        let w = rule.window.as_ref().zip(state.window.as_ref());
        let window_at = |at_us| w.map(|(w, seen)| seen.summary(w.span, at_us));
        let window = window_at(due_us);
        let free = self.is_free(rule, key) && fold::is_time(rule, state, due_us);
        let holds = || {
            let facts = self.facts(held);
            let truth = |f: &Facts| rule.when.as_ref().is_none_or(|w| w.truth(f, window.as_ref()).unwrap_or(false));
            facts.as_ref().is_some_and(truth)
        };
        let has_ended = || {
            let when = rule.when.as_ref().filter(|when| when.uses_window);
            when.zip(self.facts(held)).is_some_and(|(when, facts)| when.truth(&facts, window.as_ref()) == Ok(false))
        };
        // It was planned for the window's emptying; events that share a cell have come since. Where it must be calm
        // for a while it is so from the beginning of that.
        let goes_on = || {
            let clear = rule.clear.as_ref().filter(|clear| clear.uses_window && state.ended.is_none());
            clear.zip(self.facts(held)).is_some_and(|(clear, facts)| {
                let is_on = |at_us| clear.truth(&facts, window_at(at_us).as_ref()) == Ok(false);
                is_on(due_us) || rule.calm_us > 0 && is_on(due_us - rule.calm_us)
            })
        };
        let is_long_enough = state.since_us.zip(rule.hold_us).is_none_or(|(since, hold)| due_us >= since + hold);
        let what = match due.what {
            // Nothing came, and the window has emptied under the condition.
            What::Held if has_ended() => "lapsed",
            What::Held if free && is_long_enough => "fired",
            What::Absent if free && holds() => "fired",
            What::Over if !goes_on() => "over",
            What::Held | What::Absent | What::Over => "held",
        };
        match what {
            "fired" => {
                let raised = self.facts(held).map(|facts| rule.raised(key, &facts, window.as_ref()));
                let raised = raised.unwrap_or_default();
                if self.ends_one_of(&raised) {
                    return;
                }
                self.begun.add(index, key, &raised);
            }
            "over" => drop(self.moved.insert((index, key.to_owned()))),
            _ => {}
        }
        // Looked at again from now on, not from a moment long past.
        let at_us = if what == "held" { self.now } else { due_us };
        let by = state.ended.as_ref().filter(|_| what == "over").unwrap_or(held);
        self.act(&rule.name, key, what, held, by, window.as_ref(), at_us, Some(due_us));
    }

    /// A timer of which nobody knows any more what it was to tell of: unspoken, it would be due for ever.
    fn lapsed(&mut self, rule: &str, key: &str, due_us: i64) {
        self.say_unseen(rule, key, "lapsed", self.now, due_us, Vec::new());
    }

    /// The end of what the box that was here before had raised, by an event that came before this one had heard of it.
    fn over_unseen(&mut self, rule: &'a Rule, index: u32, key: &'a str, due_us: i64) {
        self.moved.insert((index, key.to_owned()));
        let mut done = Vec::new();
        self.end_all(rule, key, Vec::new(), &mut done);
        self.say_unseen(&rule.name, key, "over", due_us, due_us, done);
    }

    /// What a timer has come to of which no event is known.
    fn say_unseen(&mut self, rule: &str, key: &str, what: &str, at_us: i64, due_us: i64, done: Vec<String>) {
        self.say(SaidOf {
            rule: rule.to_owned(),
            key: key.to_owned(),
            what: what.to_owned(),
            at_us,
            due_us: Some(due_us),
            severity: None,
            event: String::new(),
            why: BTreeMap::new(),
            done,
            error: None,
        });
    }

    /// What a rule does. `held` is the event that the alarm speaks of, `by` the one that did it.
    #[allow(clippy::too_many_arguments, reason = "one call with all that a firing is made of")]
    fn act(
        &mut self,
        name: &str,
        key: &str,
        what: &str,
        held: &Held,
        by: &Held,
        window: Option<&Summary>,
        at_us: i64,
        due_us: Option<i64>,
    ) {
        let Some(rule) = self.rule(name) else { return };
        let (Some(facts), Some(cause)) = (self.facts(held), self.facts(by)) else {
            return due_us.into_iter().for_each(|due_us| self.lapsed(name, key, due_us));
        };
        let id = cause.json["id"].as_str().unwrap_or_default().to_owned();
        let mut done = Vec::new();
        for action in &rule.then {
            let raise = matches!(action, Action::Raise { .. });
            match what {
                "fired" if raise || !held.had_before => self.action(rule, key, action, &facts, window, &mut done),
                "changed" if raise => self.action(rule, key, action, &facts, window, &mut done),
                _ => {}
            }
        }
        if what == "over" {
            self.end(rule, key, &facts, window, &mut done);
        }
        let done = done.into_iter().map(cut).collect();
        // Of its first alarm.
        let severity = rule.then.iter().find_map(|action| match action {
            Action::Raise { severity: s, .. } if ["fired", "changed"].contains(&what) => {
                Some(severity(s, &facts, window))
            }
            _ => None,
        });
        let event = if due_us.is_some() { String::new() } else { id };
        let mut why = rule.why(&cause, window);
        for value in why.values_mut() {
            let text = value.to_string();
            if text.len() > TEXT_MAX {
                *value = cut(text).into();
            }
        }
        let (rule, key, what) = (name.to_owned(), key.to_owned(), what.to_owned());
        let error = facts.lacking().map(|why| cut(why.to_owned()));
        self.say(SaidOf { rule, key, what, at_us, due_us, severity, event, why, done, error });
    }

    fn action(
        &mut self,
        rule: &Rule,
        key: &str,
        action: &Action,
        facts: &Facts,
        window: Option<&Summary>,
        done: &mut Vec<String>,
    ) {
        let hops = facts.json.get(HOPS).and_then(Json::as_u64).unwrap_or(0) + 1;
        match action {
            Action::Raise { alarm, key: own, severity: s, title, reach } => {
                let who = self.identity(alarm, own.as_ref(), key, facts, window);
                let severity = severity(s, facts, window);
                // It is as bad as the worst of those who raise it say.
                let this = self.rules.index_of(&rule.name).map(|index| (index, key));
                let worse = self.worst_other(&who, this).filter(|other| other.severity.0 < severity);
                let told = worse.and_then(|other| self.as_told_by(&other, &who, *reach)).unwrap_or_else(|| Told {
                    severity,
                    title: cut(title.text(facts, window)),
                    reach: *reach,
                    rule: rule.name.clone(),
                    rule_key: key.to_owned(),
                    place: place(&facts.json),
                });
                if let Some(kind) = self.step(&who, Step::Raise(told), hops) {
                    done.push(format!("{} {}", last_word(kind), named(&who)));
                }
            }
            Action::Clear { alarm, key: own } => {
                let who = self.identity(alarm, own.as_ref(), key, facts, window);
                if self.step(&who, Step::Clear { by: format!("rule:{}", rule.name) }, hops).is_some() {
                    done.push(format!("cleared {}", named(&who)));
                }
            }
            Action::Emit { kind, subject, urgent, reach, data } => {
                let kind = kind.text(facts, window);
                if is_reserved(&kind) || kind.is_empty() {
                    done.push(refused(facts, "nothing emitted", &kind, "is no type for a rule"));
                    return;
                }
                let data = data.fill(facts, window);
                let mut event = self.event(&kind, &self.id(&rule.name), data, hops);
                if let Some(subject) = subject.as_ref().map(|s| s.text(facts, window)).filter(|s| !s.is_empty()) {
                    event.insert("subject".into(), subject.into());
                }
                self.linked(&mut event, facts);
                let direction = if *reach < self.rules.me.tier() { Direction::Up } else { Direction::Local };
                self.draft(&kind, lane(*urgent), direction, *reach, "", 0, event);
                done.push(format!("emitted {kind}"));
            }
            Action::Case { kind, category, title, data } => {
                let urgent = kind == "sos";
                let (event_type, category) =
                    (if urgent { case::SOS } else { case::APPEAL }, category.text(facts, window));
                let mut body: Map<String, Json> =
                    data.iter().map(|(name, t)| (name.clone(), t.fill(facts, window))).collect();
                body.insert("kind".into(), kind.clone().into());
                body.insert("category".into(), category.clone().into());
                body.insert("title".into(), cut(title.text(facts, window)).into());
                body.insert("channel".into(), format!("rule:{}", rule.name).into());
                if let Some(id) = self.beside(rule, key, facts, window) {
                    body.insert("alarm".into(), id.into());
                }
                let mut event = self.event(event_type, &self.id(&rule.name), Json::Object(body), hops);
                event.insert("subject".into(), if key.is_empty() { rule.name.clone() } else { key.to_owned() }.into());
                if urgent {
                    event.insert("priority".into(), "urgent".into());
                }
                self.linked(&mut event, facts);
                self.draft(event_type, lane(urgent), Direction::Local, Tier::Neighbourhood, "", 0, event);
                done.push(format!("opened a case of {category}"));
            }
            Action::Send { command, target, subject, kind, ttl_ms, urgent, data } => {
                let (target, kind) = (target.text(facts, window), kind.text(facts, window));
                let word = if *command { "command" } else { "notice" };
                let below = Selector::parse(&target).is_ok_and(|s| self.rules.me.covers(&s.root));
                if !below {
                    done.push(refused(facts, &format!("no {word}"), &target, "is not below this node"));
                    return;
                }
                if is_reserved(&kind) || kind.is_empty() {
                    done.push(refused(facts, &format!("no {word}"), &kind, "is no type for a rule"));
                    return;
                }
                let data = data.fill(facts, window);
                let subject = subject.as_ref().map(|s| s.text(facts, window)).filter(|s| !s.is_empty());
                self.down(&kind, word, &target, subject, *ttl_ms, *urgent, data, hops);
                done.push(format!("sent {word} {kind} to {target}"));
            }
        }
    }

    /// The end of what a rule began: alarms are cleared, the rest is done and past.
    fn end(&mut self, rule: &Rule, key: &str, facts: &Facts, window: Option<&Summary>, done: &mut Vec<String>) {
        let raised = rule.then.iter().filter_map(|action| match action {
            Action::Raise { alarm, key: own, .. } => Some(self.identity(alarm, own.as_ref(), key, facts, window)),
            _ => None,
        });
        self.end_all(rule, key, raised.collect(), done);
    }

    /// These alarms, and all that are active of that rule and key.
    fn end_all(&mut self, rule: &Rule, key: &str, mut all: Vec<Identity>, done: &mut Vec<String>) {
        // Of a large event not everything is kept that has made an alarm's key, and the rule may have raised one of
        // another name before it was edited; the alarm knows who raised it.
        let now = self.changed.values().filter(|a| a.active && a.rule == rule.name && a.rule_key == key);
        for a in self.rules.alarms.raised_by(&rule.name, key).chain(now) {
            let who = Identity::of(a);
            if a.origin == self.rules.me && !all.contains(&who) {
                all.push(who);
            }
        }
        let this = self.rules.index_of(&rule.name).map(|index| (index, key));
        for who in all {
            let step = match self.worst_other(&who, this) {
                Some(other) => self.as_told_by(&other, &who, Tier::Neighbourhood).map(Step::HandOn),
                None => Some(Step::Clear { by: format!("rule:{}", rule.name) }),
            };
            if let Some(kind) = step.and_then(|step| self.step(&who, step, 1)) {
                done.push(format!("{} {}", last_word(kind), named(&who)));
            }
        }
    }

    /// The worst of those that are on and raise the alarm, beside this rule and key.
    fn worst_other(&self, who: &Identity, this: Option<(u32, &str)>) -> Option<Raiser> {
        let alarm = alarms::hash(&who.name, &who.key);
        let is_past = |r: &Raiser| !self.moved.is_empty() && self.moved.contains(&(r.rule, r.key.clone()));
        let is_other = |r: &Raiser| this != Some((r.rule, r.key.as_str()));
        let was = self.rules.raisers.of(alarm).find(|r| is_other(r) && !is_past(r));
        let worst = was.into_iter().chain(self.begun.of(alarm).find(|r| is_other(r))).max()?;
        // Of several that are as bad the one of whom it is already: it goes on as it is.
        let holder = self.active(who).and_then(|a| {
            let rule = self.rules.index_of(&a.rule)?;
            Some(Raiser { severity: worst.severity, rule, key: a.rule_key.clone() })
        });
        let raises = |r: &Raiser| self.begun.has(alarm, r) || self.rules.raisers.has(alarm, r) && !is_past(r);
        let stays = holder.filter(|r| is_other(r) && raises(r));
        Some(stays.unwrap_or_else(|| worst.clone()))
    }

    /// The alarm as one who raises it has said last, told as far as this at least.
    fn as_told_by(&self, other: &Raiser, who: &Identity, reach: Tier) -> Option<Told> {
        let Raiser { severity, rule, key } = other;
        let state = self.rules.memories[*rule as usize].keys.get(key)?;
        let rule = &self.rules.set.rules[*rule as usize];
        let told = |title, reach, place| {
            let (rule, rule_key) = (rule.name.clone(), key.clone());
            Told { severity: severity.0, title, reach, rule, rule_key, place }
        };
        let as_it_is = self.active(who).map(|a| (told(a.title.clone(), reach, None), a));
        if let Some((told, _)) =
            as_it_is.as_ref().filter(|(t, a)| a.rule == t.rule && a.rule_key == t.rule_key && a.severity == t.severity)
        {
            return Some(told.clone());
        }
        let said = || {
            let facts = self.facts(state.held.as_ref()?)?;
            let w = rule.window.as_ref().zip(state.window.as_ref()).map(|(w, seen)| seen.summary(w.span, self.now));
            rule.then.iter().find_map(|action| match action {
                Action::Raise { alarm, key: own, title, reach: far, .. }
                    if self.identity(alarm, own.as_ref(), key, &facts, w.as_ref()) == *who =>
                {
                    Some(told(cut(title.text(&facts, w.as_ref())), reach.min(*far), place(&facts.json)))
                }
                _ => None,
            })
        };
        // Edited since, the rule may not know any more what it had said.
        said().or(as_it_is.map(|(told, _)| told))
    }

    fn active(&self, who: &Identity) -> Option<&Alarm> {
        self.alarm(&id_of(&who.owner, &who.name, &who.key)).filter(|a| a.active)
    }

    /// Its rule is gone, and others raise it.
    fn pass_on(&mut self, id: &str) {
        let Some(alarm) = self.alarm(id).filter(|a| a.active) else { return };
        let who = Identity::of(alarm);
        let reach = alarm.reach;
        let told = self.worst_other(&who, None).and_then(|other| self.as_told_by(&other, &who, reach));
        if let Some(told) = told {
            self.step(&who, Step::HandOn(told), 1);
        }
    }

    /// One more raises it, as it was known above. If that is the worse word it is the one that counts.
    fn go_on(&mut self, known: &Alarm) {
        let who = Identity::of(known);
        let Alarm { severity, title, reach, rule, rule_key, place, .. } = known.clone();
        let told = Told { severity, title, reach, rule, rule_key, place };
        match self.active(&who).map(|a| a.severity) {
            Some(by_another) if by_another <= severity => {}
            Some(_) => drop(self.step(&who, Step::HandOn(told), 1)),
            None => drop(self.step(&who, Step::Raise(told), 1)),
        }
    }

    /// To its node, which has lost its disk.
    fn give_back(&mut self, id: &str) {
        let Some(alarm) = self.rules.alarms.get(id) else { return };
        let (target, urgent) = (alarm.origin.to_string(), alarm.severity.is_urgent());
        let data = serde_json::to_value(Alarm { asked: None, ..alarm.clone() }).unwrap_or_default();
        let mut event = self.event(alarms::KNOWN, &self.id("known"), data, 0);
        event.insert("target".into(), target.as_str().into());
        if urgent {
            event.insert("priority".into(), "urgent".into());
        }
        self.draft(alarms::KNOWN, lane(urgent), Direction::Down, Tier::Neighbourhood, &target, 0, event);
    }

    fn asked(&mut self, ask: &Ask) {
        let Ask { id, by, .. } = ask;
        let who = Identity { owner: self.rules.me.clone(), name: ask.name.clone(), key: ask.key.clone() };
        if *id != id_of(&who.owner, &who.name, &who.key) {
            return;
        }
        let wish = match (ask.action.as_str(), ask.until_us) {
            ("ack", _) => Wish::Acknowledge,
            ("clear", _) => Wish::Clear,
            ("shelve", Some(until_us)) => Wish::Shelve { until_us },
            _ => return,
        };
        // Of a box that has lost its disk: it goes on as it was known above.
        let known = ask.known.as_deref().filter(|known| known.id == *id && known.origin == who.owner);
        let Some(alarm) = self.alarm(id).or(known).cloned() else { return };
        // Whoever asks shows what it is told from now on, so it must hear how that goes on and ends.
        let alarm = Alarm { reach: alarm.reach.min(ask.tier), ..alarm };
        self.changed.insert(id.clone(), alarm.clone());
        // What was raised again, or got worse, on the way of the word down is not what somebody has seen.
        // By when that was: a new box counts its raises from one.
        let is_news = known.is_some_and(|k| k.raised_at != alarm.raised_at || alarm.severity < k.severity);
        let is_meant = !is_news || matches!(wish, Wish::Shelve { .. });
        if !is_meant || self.step(&who, wish.step(by.clone()), 0).is_none() {
            // So that whoever asked stops waiting.
            self.repeat(alarm);
        }
    }

    /// As it is, said once more.
    fn repeat(&mut self, alarm: Alarm) {
        let rev = alarm.rev.saturating_add(1);
        self.tell(Alarm { rev, asked: None, ..alarm }, alarms::CHANGED, 0);
    }

    fn alarm(&self, id: &str) -> Option<&Alarm> {
        self.changed.get(id).or_else(|| self.rules.alarms.get(id))
    }

    fn identity(
        &self,
        alarm: &str,
        own: Option<&Template>,
        key: &str,
        facts: &Facts,
        window: Option<&Summary>,
    ) -> Identity {
        let key = alarm_key(own, key, facts, window);
        Identity { owner: self.rules.me.clone(), name: alarm.to_owned(), key }
    }

    /// Id of the alarm that a case of this firing is about: the rule raises it, or was told of it.
    fn beside(&self, rule: &Rule, key: &str, facts: &Facts, window: Option<&Summary>) -> Option<String> {
        let raised = rule.then.iter().find_map(|action| match action {
            Action::Raise { alarm, key: own, .. } => Some(self.identity(alarm, own.as_ref(), key, facts, window)),
            _ => None,
        });
        if let Some(who) = raised {
            return Some(id_of(&who.owner, &who.name, &who.key));
        }
        let kind = facts.json["type"].as_str().unwrap_or_default();
        let is_told = [alarms::RAISED, alarms::CHANGED, alarms::ACKNOWLEDGED, alarms::CLEARED].contains(&kind);
        facts.json["data"]["id"].as_str().filter(|_| is_told).map(str::to_owned)
    }

    fn step(&mut self, who: &Identity, step: Step, hops: u64) -> Option<&'static str> {
        let id = id_of(&who.owner, &who.name, &who.key);
        let (alarm, kind) = alarms::step(self.alarm(&id), who, step, self.now)?;
        if kind == alarms::CLEARED {
            self.cleared.insert(alarms::hash(&who.name, &who.key));
        }
        self.tell(alarm, kind, hops);
        Some(kind)
    }

    /// The event in which the owner says what an alarm is now.
    pub(super) fn tell(&mut self, alarm: Alarm, kind: &'static str, hops: u64) {
        let alarm = Alarm { rev: alarm.rev.max(self.rules.alarms.floor().saturating_add(1)), ..alarm };
        let data = serde_json::to_value(&alarm).unwrap_or_default();
        let mut event = self.event(kind, &format!("{}-{}", alarm.id, alarm.rev), data, hops);
        event.insert("subject".into(), if alarm.key.is_empty() { &alarm.name } else { &alarm.key }.as_str().into());
        let urgent = alarm.severity.is_urgent();
        if urgent {
            event.insert("priority".into(), "urgent".into());
        }
        event.insert("reach".into(), alarm.reach.as_str().into());
        let up = alarm.reach < self.rules.me.tier();
        let direction = if up { Direction::Up } else { Direction::Local };
        self.draft(kind, lane(urgent), direction, alarm.reach, "", 0, event);
        self.changed.insert(alarm.id.clone(), alarm);
    }

    #[allow(clippy::too_many_arguments, reason = "one call with all that a directive is made of")]
    pub(super) fn down(
        &mut self,
        kind: &str,
        word: &str,
        target: &str,
        subject: Option<String>,
        ttl_ms: u32,
        urgent: bool,
        data: Json,
        hops: u64,
    ) {
        let mut event = self.event(kind, &self.id(word), data, hops);
        if let Some(subject) = subject {
            event.insert("subject".into(), subject.into());
        }
        event.insert("target".into(), target.into());
        event.insert("directive".into(), word.into());
        if urgent {
            event.insert("priority".into(), "urgent".into());
        }
        if ttl_ms > 0 {
            let until = view::time_of(self.now + i64::from(ttl_ms) * 1000);
            event.insert("expirytime".into(), view::rfc3339(until).into());
        }
        self.draft(kind, lane(urgent), Direction::Down, Tier::Neighbourhood, target, ttl_ms, event);
    }

    /// Unique on this node: a group is written in well over a microsecond.
    fn id(&self, what: &str) -> String {
        format!("{what}-{:x}-{}", self.now, self.drafts.len())
    }

    fn event(&self, kind: &str, id: &str, data: Json, hops: u64) -> Map<String, Json> {
        let event = json!({
            "specversion": "1.0", "id": id, "source": format!("/{}", self.rules.me), "type": kind,
            "time": view::rfc3339(view::time_of(self.now)), "datacontenttype": "application/json", "data": data,
        });
        let Json::Object(mut event) = event else { return Map::new() };
        if hops > 0 {
            event.insert(HOPS.into(), hops.into());
        }
        event
    }

    /// What it follows from.
    fn linked(&self, event: &mut Map<String, Json>, facts: &Facts) {
        for (name, from) in [("causationid", "id"), ("correlationid", "correlationid"), ("traceparent", "traceparent")]
        {
            if let Some(value) = facts.json.get(from).filter(|v| v.is_string()) {
                event.insert(name.into(), value.clone());
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a header that differ")]
    fn draft(
        &mut self,
        kind: &str,
        lane: Lane,
        direction: Direction,
        reach: Tier,
        target: &str,
        ttl_ms: u32,
        event: Map<String, Json>,
    ) {
        let (id, source) = (event["id"].as_str().unwrap_or_default(), event["source"].as_str().unwrap_or_default());
        let key = event_key(source, id);
        let header = Header { lane, direction, reach, target, ttl_ms, key, ..Header::local(Kind::Event, kind) };
        let mut payload = serde_json::to_vec(&event).expect("a JSON value always serialises");
        if payload.len() > limits::EVENT_BYTES_MAX && kind != FIRED {
            // Larger than an event may be: a template took a whole event in, and added to it.
            let small = event.iter().filter(|(name, _)| *name != "data").map(|(n, v)| (n.clone(), v.clone()));
            payload = serde_json::to_vec(&small.collect::<Map<_, _>>()).expect("a JSON value always serialises");
        }
        // A template that made a type of 64 KiB: nothing can be done with it.
        if let Ok(draft) = Draft::new(&header, &payload) {
            self.drafts.push(draft);
        }
    }
}

/// What a rule wanted to send and may not, in words; it counts as an error of the rule.
fn refused(facts: &Facts, what: &str, value: &str, why: &str) -> String {
    let value = if facts.is_of_persons { "what it gives".into() } else { format!("`{}`", cut(value.to_owned())) };
    let words = format!("{what}: {value} {why}");
    facts.lacks(words.as_str());
    words
}

pub(super) fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((i, _)) => format!("{}…", &text[..i]),
        None => text,
    }
}

/// Where an event says that it was, in degrees. What somebody calls for help with is the case's alone.
fn place(event: &Json) -> Option<Place> {
    if intake::is_of_persons(event) {
        return None;
    }
    let place = intake::place(&event["data"])?;
    place.lat.is_some().then(|| Place { text: String::new(), ..place })
}

pub(super) fn lane(urgent: bool) -> Lane {
    if urgent { Lane::Urgent } else { Lane::Routine }
}

fn last_word(kind: &str) -> &str {
    kind.rsplit('.').next().unwrap_or(kind)
}

fn named(who: &Identity) -> String {
    if who.key.is_empty() { who.name.clone() } else { format!("{}/{}", who.name, who.key) }
}
