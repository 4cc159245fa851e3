//! What a rule does when it fires, changes or is over: its actions, turned into records.

use super::alarms::{self, Identity, Step, Told, id_of};
use super::drafts::{Directive, cut, header, lane, link, prioritise};
use super::expression::Facts;
use super::fold::HOPS;
use super::rule::{Action, Rule, alarm_key, severity};
use super::said::Outcome;
use super::telling::Telling;
use super::template::{JsonTemplate, Template};
use super::window::Summary;
use crate::brain::cases::intake;
use citybrain_shared::case::{self, Place};
use citybrain_shared::config::rules::Severity;
use citybrain_shared::event::is_reserved;
use citybrain_shared::record::Header;
use citybrain_shared::{Lane, Selector, Tier};
use serde_json::{Map, Value as Json};

/// What a rule acts on.
#[derive(Clone, Copy)]
pub struct Occasion<'o> {
    pub rule: &'o Rule,
    pub key: &'o str,
    pub facts: &'o Facts,
    pub window: Option<&'o Summary>,
}

impl Occasion<'_> {
    fn hops(&self) -> u64 {
        self.facts.json.get(HOPS).and_then(Json::as_u64).unwrap_or(0) + 1
    }

    fn text(&self, template: &Template) -> String {
        template.text(self.facts, self.window)
    }

    fn fill(&self, template: &JsonTemplate) -> Json {
        template.fill(self.facts, self.window)
    }

    /// `None`: it is not there, or says nothing.
    fn subject(&self, template: Option<&Template>) -> Option<String> {
        template.map(|template| self.text(template)).filter(|subject| !subject.is_empty())
    }

    fn told(&self, severity: Severity, title: &Template, reach: Tier) -> Told {
        let (rule, rule_key) = (self.rule.name.clone(), self.key.to_owned());
        Told { severity, title: cut(self.text(title)), reach, rule, rule_key, place: place(&self.facts.json) }
    }

    /// Of its first alarm.
    pub fn severity(&self) -> Option<Severity> {
        self.rule.then.iter().find_map(|action| match action {
            Action::Raise { severity: s, .. } => Some(severity(s, self.facts, self.window)),
            _ => None,
        })
    }

    /// What a rule wanted to send and may not, in words; it counts as an error of the rule.
    fn refused(&self, what: &str, value: &str, why: &str) -> String {
        let is_shown = !self.facts.is_of_persons;
        let value = if is_shown { format!("`{}`", cut(value.to_owned())) } else { "what it gives".into() };
        let words = format!("{what}: {value} {why}");
        self.facts.lacks(words.as_str());
        words
    }
}

impl Telling<'_> {
    /// All that follows, in a few words each. `had_before`: this address has done what it is to lead to. Of that only
    /// alarms are found anew.
    pub fn act(&mut self, on: Occasion<'_>, what: Outcome, had_before: bool) -> Vec<String> {
        let done: Vec<String> = match what {
            Outcome::Fired | Outcome::Changed => {
                let mut done = Vec::new();
                for action in &on.rule.then {
                    let runs = match action {
                        Action::Raise { .. } => true,
                        _ if what == Outcome::Changed => false,
                        Action::Clear { alarm, key } => !had_before || !self.is_known_above(on, alarm, key.as_ref()),
                        _ => !had_before,
                    };
                    done.extend(if runs { self.run(on, action) } else { None });
                }
                done
            }
            // Alarms are cleared, the rest is done and past.
            Outcome::Over => {
                let raised = self.raised(on).collect();
                self.end_all(on.rule, on.key, raised)
            }
            Outcome::Held | Outcome::Lapsed => Vec::new(),
        };
        done.into_iter().map(cut).collect()
    }

    /// A title that came too soon behind the last is told, of the alarms that are still this rule's: what another has
    /// said of one since is newer.
    pub fn retitle(&mut self, on: Occasion<'_>) -> Vec<String> {
        let mut done = Vec::new();
        for action in &on.rule.then {
            let Action::Raise { alarm, key, severity, title, reach } = action else { continue };
            let who = self.identity(on, alarm, key.as_ref());
            if self.is_of(&who, on) {
                done.extend(self.raise(on, &who, severity, title, *reach).map(cut));
            }
        }
        done
    }

    fn is_known_above(&self, on: Occasion<'_>, alarm: &str, key: Option<&Template>) -> bool {
        self.active(&self.identity(on, alarm, key)).is_some_and(|a| self.rules().is_known_above(a.reach))
    }

    fn run(&mut self, on: Occasion<'_>, action: &Action) -> Option<String> {
        match action {
            Action::Raise { alarm, key, severity, title, reach } => {
                let who = self.identity(on, alarm, key.as_ref());
                self.raise(on, &who, severity, title, *reach)
            }
            Action::Clear { alarm, key } => {
                let who = self.identity(on, alarm, key.as_ref());
                self.step_in_words(&who, Step::Clear { by: format!("rule:{}", on.rule.name) }, on.hops())
            }
            Action::Emit { kind, subject, urgent, reach, data } => {
                let header = Header { lane: lane(*urgent), reach: *reach, ..header("") };
                Some(self.emit(on, kind, subject.as_ref(), header, data))
            }
            Action::Case { kind, category, title, data } => Some(self.open_case(on, kind, category, title, data)),
            Action::Send { command, target, subject, kind, ttl_ms, urgent, data } => {
                let (target, kind) = (&on.text(target), &on.text(kind));
                let word = if *command { "command" } else { "notice" };
                let directive = Directive { kind, word, target, subject: None, ttl_ms: *ttl_ms, urgent: *urgent };
                Some(self.send(on, directive, subject.as_ref(), data))
            }
        }
    }

    fn raise(
        &mut self,
        on: Occasion<'_>,
        who: &Identity,
        bad: &Template,
        title: &Template,
        reach: Tier,
    ) -> Option<String> {
        let severity = severity(bad, on.facts, on.window);
        let told = self.told_worse(who, on, severity, reach).unwrap_or_else(|| on.told(severity, title, reach));
        self.step_in_words(who, Step::Raise(told), on.hops())
    }

    /// `header` has the lane and the reach.
    fn emit(
        &mut self,
        on: Occasion<'_>,
        kind: &Template,
        subject: Option<&Template>,
        header: Header<'_>,
        data: &JsonTemplate,
    ) -> String {
        let kind = on.text(kind);
        if is_reserved(&kind) || kind.is_empty() {
            return on.refused("nothing emitted", &kind, "is no type for a rule");
        }
        let mut event = self.drafts.event(&kind, &self.drafts.id(&on.rule.name), on.fill(data), on.hops());
        if let Some(subject) = on.subject(subject) {
            event.insert("subject".into(), subject.into());
        }
        prioritise(&mut event, header.lane == Lane::Urgent);
        link(&mut event, on.facts);
        let direction = self.direction(header.reach);
        self.drafts.push(Header { name: &kind, direction, ..header }, &event);
        format!("emitted {kind}")
    }

    fn open_case(
        &mut self,
        on: Occasion<'_>,
        kind: &str,
        category: &Template,
        title: &Template,
        data: &[(String, JsonTemplate)],
    ) -> String {
        let urgent = kind == "sos";
        let (event_type, category) = (if urgent { case::SOS } else { case::APPEAL }, on.text(category));
        let mut body: Map<String, Json> = data.iter().map(|(name, t)| (name.clone(), on.fill(t))).collect();
        body.insert("kind".into(), kind.into());
        body.insert("category".into(), category.clone().into());
        body.insert("title".into(), cut(on.text(title)).into());
        body.insert("channel".into(), format!("rule:{}", on.rule.name).into());
        if let Some(id) = self.beside(on) {
            body.insert("alarm".into(), id.into());
        }
        let id = self.drafts.id(&on.rule.name);
        let mut event = self.drafts.event(event_type, &id, Json::Object(body), on.hops());
        event.insert("subject".into(), if on.key.is_empty() { &on.rule.name } else { on.key }.into());
        prioritise(&mut event, urgent);
        link(&mut event, on.facts);
        self.drafts.push(Header { lane: lane(urgent), ..header(event_type) }, &event);
        format!("opened a case of {category}")
    }

    fn send(
        &mut self,
        on: Occasion<'_>,
        directive: Directive<'_>,
        subject: Option<&Template>,
        data: &JsonTemplate,
    ) -> String {
        let Directive { kind, word, target, .. } = directive;
        if !Selector::parse(target).is_ok_and(|s| self.me().covers(&s.root)) {
            return on.refused(&format!("no {word}"), target, "is not below this node");
        }
        if is_reserved(kind) || kind.is_empty() {
            return on.refused(&format!("no {word}"), kind, "is no type for a rule");
        }
        let done = format!("sent {word} {kind} to {target}");
        let data = on.fill(data);
        self.drafts.push_down(Directive { subject: on.subject(subject), ..directive }, data, on.hops());
        done
    }

    fn raised<'o>(&self, on: Occasion<'o>) -> impl Iterator<Item = Identity> + use<'_, 'o> {
        on.rule.then.iter().filter_map(move |action| match action {
            Action::Raise { alarm, key, .. } => Some(self.identity(on, alarm, key.as_ref())),
            _ => None,
        })
    }

    fn identity(&self, on: Occasion<'_>, alarm: &str, own: Option<&Template>) -> Identity {
        let key = alarm_key(own, on.key, on.facts, on.window);
        self.own(alarm, &key)
    }

    /// Id of the alarm that a case of this firing is about: the rule raises it, or was told of it.
    fn beside(&self, on: Occasion<'_>) -> Option<String> {
        if let Some(who) = self.raised(on).next() {
            return Some(id_of(&who.owner, &who.name, &who.key));
        }
        let kind = on.facts.json["type"].as_str().unwrap_or_default();
        let is_told = [alarms::RAISED, alarms::CHANGED, alarms::ACKNOWLEDGED, alarms::CLEARED].contains(&kind);
        on.facts.json["data"]["id"].as_str().filter(|_| is_told).map(str::to_owned)
    }
}

/// What a rule says on these facts of one of the alarms that it raises, which `is` so bad, told as far as `reach` at
/// least.
pub fn told_of(on: Occasion<'_>, who: &Identity, is: Severity, reach: Tier) -> Option<Told> {
    on.rule.then.iter().find_map(|action| match action {
        Action::Raise { alarm, key, title, reach: far, .. }
            if *alarm == who.name && alarm_key(key.as_ref(), on.key, on.facts, on.window) == who.key =>
        {
            Some(on.told(is, title, reach.min(*far)))
        }
        _ => None,
    })
}

/// Where an event says that it was, in degrees. What somebody calls for help with is the case's alone.
fn place(event: &Json) -> Option<Place> {
    if intake::is_of_persons(event) {
        return None;
    }
    let place = intake::place(&event["data"])?;
    place.lat.is_some().then(|| Place { text: String::new(), ..place })
}
