//! What one group says of alarms: each as the group leaves it, and who raises it by then.

use super::Rules;
use super::act::{Occasion, told_of};
use super::alarms::{self, Identity, Step, Told, Turn, id_of};
use super::asking::{Ask, Wish};
use super::drafts::{Drafts, header, lane, prioritise};
use super::fold::MOMENT;
use super::raisers::{Raised, Raiser, Raisers};
use super::rule::Rule;
use super::step;
use chrono::SecondsFormat;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::record::{Direction, Header};
use citybrain_shared::view::{Alarm, AlarmAnswer, time_of};
use citybrain_shared::{Address, Tier};
use std::collections::{BTreeMap, HashSet};

pub struct Telling<'a> {
    rules: &'a Rules,
    now: i64,
    pub drafts: Drafts<'a>,
    /// Alarms as this group leaves them.
    changed: BTreeMap<String, Alarm>,
    /// Rules and keys of which this group says another thing: their states follow when it is folded, and what they raise
    /// by then is in `begun`.
    moved: HashSet<(u32, &'a str)>,
    begun: Raisers,
    /// Alarms that this group ends. Folded behind all that it says is done, their end is that of all who raise them by
    /// then: whoever begins to waits for the next group.
    cleared: HashSet<u64>,
    /// The moment of what is being said.
    moment_us: i64,
    /// What has begun or ended since that was last asked for, of what some rule depends on.
    turned: Vec<Turn>,
}

impl<'a> Telling<'a> {
    pub fn new(rules: &'a Rules, now: i64) -> Telling<'a> {
        Telling {
            rules,
            now,
            drafts: Drafts::new(&rules.me, now),
            changed: BTreeMap::new(),
            moved: HashSet::new(),
            begun: Raisers::default(),
            cleared: HashSet::new(),
            moment_us: now,
            turned: Vec::new(),
        }
    }

    /// What is said from now on is of that moment.
    pub fn speaks_of(&mut self, moment_us: i64) {
        self.moment_us = moment_us;
    }

    pub fn take_turned(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.turned)
    }

    pub fn rules(&self) -> &'a Rules {
        self.rules
    }

    pub fn me(&self) -> &'a Address {
        &self.rules.me
    }

    /// Of what is told as far as that.
    pub fn direction(&self, reach: Tier) -> Direction {
        if reach < self.me().tier() { Direction::Up } else { Direction::Local }
    }

    pub fn own(&self, alarm: &str, key: &str) -> Identity {
        Identity { owner: self.me().clone(), name: alarm.to_owned(), key: key.to_owned() }
    }

    /// Does this group end one of these?
    pub fn ends_one_of(&self, raised: &[Raised]) -> bool {
        raised.iter().any(|(alarm, _)| self.cleared.contains(alarm))
    }

    /// Might the rule raise these for that key in this group? What begins behind the end of its alarm does so in a group
    /// behind that end.
    pub fn may_raise(&self, rule: u32, key: &str, raised: &[Raised]) -> bool {
        let raises = self.rules.set.rules[rule as usize].raises();
        !raises || !self.moved.contains(&(rule, key)) && !self.ends_one_of(raised)
    }

    /// The rule raises these for that key by the end of this group.
    pub fn begins(&mut self, rule: u32, key: &str, raised: &[Raised]) {
        self.begun.add(rule, key, raised);
    }

    /// This group says another thing of that rule and key.
    pub fn moves(&mut self, rule: u32, key: &'a str) {
        self.moved.insert((rule, key));
    }

    fn is_moved(&self, r: &Raiser) -> bool {
        self.moved.contains(&(r.rule, r.key.as_str()))
    }

    /// Do other alarms let the rule fire, by the table and by what this group has said?
    pub fn is_free(&self, rule: &Rule, key: &str) -> bool {
        step::depends(rule, key, |name, key| self.is_active(name, key))
    }

    fn is_active(&self, name: &str, key: Option<&str>) -> bool {
        let is_of = |a: &&Alarm| a.name == name && key.is_none_or(|key| a.key == key);
        let was = |a: &&Alarm| self.rules.alarms.get(&a.id).is_some_and(|a| a.active);
        let said = || self.changed.values().filter(is_of);
        let over = said().filter(|a| !a.active).filter(was).count();
        let stays = || match over {
            0 => self.rules.alarms.is_active(name, key),
            _ => self.rules.alarms.active(name, key) as usize > over,
        };
        said().any(|a| a.active) || stays()
    }

    /// These alarms, and all that are active of that rule and key.
    pub fn end_all(&mut self, rule: &Rule, key: &str, mut all: Vec<Identity>) -> Vec<String> {
        // Of a large event not everything is kept that has made an alarm's key, and the rule may have raised one of
        // another name before it was edited; the alarm knows who raised it.
        let now = self.changed.values().filter(|a| a.active && a.rule == rule.name && a.rule_key == key);
        for a in self.rules.alarms.raised_by(&rule.name, key).chain(now) {
            let who = Identity::of(a);
            if a.origin == *self.me() && !all.contains(&who) {
                all.push(who);
            }
        }
        let this = self.rules.index_of(&rule.name).map(|index| (index, key));
        all.iter().filter_map(|who| self.end(who, rule, this)).collect()
    }

    /// Another who raises it still has it from now on; else it is over.
    fn end(&mut self, who: &Identity, rule: &Rule, this: Option<(u32, &str)>) -> Option<String> {
        let step = match self.worst_other(who, this) {
            Some(other) => Step::HandOn(self.as_told_by(&other, who, Tier::Neighbourhood)?),
            None => Step::Clear { by: format!("rule:{}", rule.name) },
        };
        self.step_in_words(who, step, 1)
    }

    /// If another who raises it says that it is worse: what he says.
    pub fn told_worse(&self, who: &Identity, on: Occasion<'_>, severity: Severity, reach: Tier) -> Option<Told> {
        let this = self.rules.index_of(&on.rule.name).map(|index| (index, on.key));
        let worse = self.worst_other(who, this).filter(|other| other.severity.0 < severity)?;
        self.as_told_by(&worse, who, reach)
    }

    /// The worst of those that are on and raise the alarm, beside this rule and key.
    fn worst_other(&self, who: &Identity, this: Option<(u32, &str)>) -> Option<Raiser> {
        let alarm = alarms::hash(&who.name, &who.key);
        let is_other = |r: &Raiser| this != Some((r.rule, r.key.as_str()));
        let was = self.rules.memories.raisers().of(alarm).find(|r| is_other(r) && !self.is_moved(r));
        let worst = was.into_iter().chain(self.begun.of(alarm).find(|r| is_other(r))).max()?;
        // Of several that are as bad the one of whom it is already: it goes on as it is.
        let holder = self.active(who).and_then(|a| {
            let rule = self.rules.index_of(&a.rule)?;
            Some(Raiser { severity: worst.severity, rule, key: a.rule_key.clone() })
        });
        let raises =
            |r: &Raiser| self.begun.has(alarm, r) || self.rules.memories.raisers().has(alarm, r) && !self.is_moved(r);
        let stays = holder.filter(|r| is_other(r) && raises(r));
        Some(stays.unwrap_or_else(|| worst.clone()))
    }

    /// The alarm as one who raises it has said last, told as far as this at least.
    fn as_told_by(&self, other: &Raiser, who: &Identity, reach: Tier) -> Option<Told> {
        let Raiser { severity, rule, key } = other;
        let state = self.rules.memories.get(*rule, key)?;
        let rule = &self.rules.set.rules[*rule as usize];
        let called = |title: &str| {
            let (rule, rule_key) = (rule.name.clone(), key.clone());
            Told { severity: severity.0, title: title.to_owned(), reach, rule, rule_key, place: None }
        };
        let is_his = |a: &&Alarm| a.rule == rule.name && a.rule_key == *key && a.severity == severity.0;
        let known = self.active(who).filter(is_his).map(|a| a.title.as_str());
        if let Some(title) = known.or_else(|| state.called(alarms::hash(&who.name, &who.key))) {
            return Some(called(title));
        }
        let said = || {
            let (facts, window) = (state.held.as_ref()?.facts(&rule.node)?, state.summary(rule, self.now));
            told_of(Occasion { rule, key, facts: &facts, window: window.as_ref() }, who, severity.0, reach)
        };
        // Edited since, the rule may not know any more what it had said; what another has said is not its word.
        Some(said().unwrap_or_else(|| called(&named(who))))
    }

    /// Is the alarm this rule's, for this key?
    pub fn is_of(&self, who: &Identity, on: Occasion<'_>) -> bool {
        self.active(who).is_some_and(|a| a.rule == on.rule.name && a.rule_key == on.key)
    }

    pub fn active(&self, who: &Identity) -> Option<&Alarm> {
        self.alarm(&id_of(&who.owner, &who.name, &who.key)).filter(|a| a.active)
    }

    /// Its rule is gone, and others raise it.
    pub fn pass_on(&mut self, id: &str) {
        let Some(alarm) = self.alarm(id).filter(|a| a.active) else { return };
        let who = Identity::of(alarm);
        let reach = alarm.reach;
        let told = self.worst_other(&who, None).and_then(|other| self.as_told_by(&other, &who, reach));
        if let Some(told) = told {
            self.step(&who, Step::HandOn(told), 1);
        }
    }

    /// One more raises it, as it was known above, if it was active there.
    pub fn go_on(&mut self, known: &Alarm) {
        let who = Identity::of(known);
        if known.active {
            self.step(&who, Step::GoOn(Box::new(known.clone())), 1);
        } else {
            self.go_on_without(&who, known);
        }
    }

    /// It was over above: whoever raises it now has it, or it is over here, too.
    fn go_on_without(&mut self, who: &Identity, known: &Alarm) {
        let step = match self.worst_other(who, None) {
            Some(other) => {
                let Some(told) = self.as_told_by(&other, who, known.reach) else { return };
                if self.active(who).is_some() { Step::HandOn(told) } else { Step::Raise(told) }
            }
            None => Step::Clear { by: known.cleared_by.clone().unwrap_or_else(|| format!("rule:{}", known.rule)) },
        };
        self.step(who, step, 1);
    }

    /// To its node, which has lost it.
    pub fn give_back(&mut self, alarm: &Alarm) {
        let (target, urgent) = (alarm.origin.to_string(), alarm.severity.is_urgent());
        let data = serde_json::to_value(Alarm { asked: None, ..alarm.clone() }).unwrap_or_default();
        let mut event = self.drafts.event(alarms::KNOWN, &self.drafts.id("known"), data, 0);
        event.insert("target".into(), target.as_str().into());
        prioritise(&mut event, urgent);
        let (lane, direction) = (lane(urgent), Direction::Down);
        self.drafts.push(Header { lane, direction, target: &target, ..header(alarms::KNOWN) }, &event);
    }

    /// Somebody above has asked for a change; he hears whether it was made.
    pub fn asked(&mut self, ask: &Ask) {
        let Ask { asked, known, .. } = ask;
        let who = Identity::of(known);
        if who.owner != *self.me() {
            return;
        }
        let wish = match (asked.action.as_str(), ask.until_us) {
            ("ack", _) => Wish::Acknowledge,
            ("clear", _) => Wish::Clear,
            ("shelve", Some(until_us)) => Wish::Shelve { until_us },
            _ => return,
        };
        // Of a box that has lost its disk: it goes on as it was known above.
        let id = id_of(&who.owner, &who.name, &who.key);
        let alarm = self.alarm(&id).unwrap_or(known).clone();
        let refused = match wish {
            Wish::Shelve { until_us } => {
                (until_us > self.now && !alarm.active).then(|| "it was over by then".to_owned())
            }
            Wish::Acknowledge | Wish::Clear => is_another(known, &alarm),
        };
        let is_meant = refused.is_none();
        // Whoever asks shows what it is told from now on, so it must hear how that goes on and ends.
        let reach = alarm.reach.min(ask.tier);
        let alarm = Alarm { reach, answer: Some(AlarmAnswer { asked: asked.clone(), refused }), ..alarm };
        self.changed.insert(id, alarm.clone());
        if !is_meant || self.step(&who, wish.step(asked.by.clone()), 0).is_none() {
            self.repeat(alarm);
        }
    }

    /// A node above may not know it any more. One that has ended meanwhile was told behind the call.
    pub fn repeat_known(&mut self, id: &str) {
        let is_heard = |a: &&Alarm| a.active || a.rev <= self.rules.alarms.floor();
        let alarm = self.alarm(id).filter(is_heard).cloned();
        alarm.into_iter().for_each(|alarm| self.repeat(alarm));
    }

    /// As it is, said once more.
    fn repeat(&mut self, alarm: Alarm) {
        let rev = alarm.rev.saturating_add(1);
        self.tell(Alarm { rev, asked: None, ..alarm }, alarms::CHANGED, 0);
    }

    fn alarm(&self, id: &str) -> Option<&Alarm> {
        self.changed.get(id).or_else(|| self.rules.alarms.get(id))
    }

    fn step(&mut self, who: &Identity, step: Step, hops: u64) -> Option<&'static str> {
        let id = id_of(&who.owner, &who.name, &who.key);
        let (alarm, kind) = alarms::step(self.alarm(&id), who, step, self.now)?;
        if kind == alarms::CLEARED {
            self.cleared.insert(alarms::hash(&who.name, &who.key));
        }
        let stood = self.stand(who);
        self.tell(alarm, kind, hops);
        let turned = stood.into_iter().filter(|(turn, was)| self.is_active(&turn.name, turn.key.as_deref()) != *was);
        self.turned.extend(turned.map(|(turn, _)| turn).collect::<Vec<_>>());
        Some(kind)
    }

    /// Is one active of this name and key, and one of this name, if a rule depends on that?
    fn stand(&self, who: &Identity) -> Vec<(Turn, bool)> {
        if !self.rules.set.is_watched(&who.name) {
            return Vec::new();
        }
        let stands = |key: Option<String>| {
            let was = self.is_active(&who.name, key.as_deref());
            (Turn { name: who.name.clone(), key }, was)
        };
        [Some(who.key.clone()), None].map(stands).into()
    }

    pub fn step_in_words(&mut self, who: &Identity, step: Step, hops: u64) -> Option<String> {
        let kind = self.step(who, step, hops)?;
        Some(format!("{} {}", last_word(kind), named(who)))
    }

    /// The event in which the owner says what an alarm is now.
    pub fn tell(&mut self, alarm: Alarm, kind: &'static str, hops: u64) {
        let alarm = Alarm { rev: alarm.rev.max(self.rules.alarms.floor().saturating_add(1)), ..alarm };
        let data = serde_json::to_value(&alarm).unwrap_or_default();
        let id = format!("{}-{}", alarm.id, alarm.rev);
        let mut event = self.drafts.event(kind, &id, data, hops);
        event.insert("subject".into(), if alarm.key.is_empty() { &alarm.name } else { &alarm.key }.as_str().into());
        let urgent = alarm.severity.is_urgent();
        prioritise(&mut event, urgent);
        event.insert("reach".into(), alarm.reach.as_str().into());
        if self.moment_us < self.now && self.rules.set.is_watched(&alarm.name) {
            event.insert(MOMENT.into(), time_of(self.moment_us).to_rfc3339_opts(SecondsFormat::Micros, true).into());
        }
        let (lane, direction, reach) = (lane(urgent), self.direction(alarm.reach), alarm.reach);
        self.drafts.push(Header { lane, direction, reach, ..header(kind) }, &event);
        self.changed.insert(alarm.id.clone(), alarm);
    }
}

/// Why the alarm is not what somebody has seen, who asks for a change of it: his word came to it too late.
fn is_another(known: &Alarm, now: &Alarm) -> Option<String> {
    // By when it was raised: a new box counts its raises from one.
    if known.raised_at != now.raised_at {
        let at = now.raised_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        return Some(format!("it was raised anew meanwhile, at {at}"));
    }
    let (was, is) = (known.severity.as_str(), now.severity.as_str());
    (now.severity < known.severity).then(|| format!("it has got worse meanwhile: {is}, and was {was}"))
}

fn last_word(kind: &str) -> &str {
    kind.rsplit('.').next().unwrap_or(kind)
}

fn named(who: &Identity) -> String {
    if who.key.is_empty() { who.name.clone() } else { format!("{}/{}", who.name, who.key) }
}
