//! Conditions that hold: alarms of rules, and the rules themselves; warnings that came in by CAP.

use super::{Awaited, CalendarShown};
use crate::case::{Place, Status};
use crate::config::rules::Severity as AlarmSeverity;
use crate::{Address, Pos, Tier};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

views! {
    Alarms = "citybrain.alarms/1",
    AlarmShown = "citybrain.alarm/1",
    Rules = "citybrain.rules/1",
    RulesTested = "citybrain.rules-tested/1",
    Reloaded = "citybrain.reloaded/2",
    CapWarnings = "citybrain.cap/1",
    CapTaken = "citybrain.cap-taken/1",
}

/// A condition that holds or has ended. The same object travels in the events of an alarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Alarm {
    /// The same on every node: made of origin, name and key.
    pub id: String,
    /// The node that owns it: the only one that changes it.
    pub origin: Address,
    pub name: String,
    pub key: String,
    pub severity: AlarmSeverity,
    pub title: String,
    pub active: bool,
    pub acknowledged: bool,
    pub reach: Tier,
    /// The last time it was raised.
    pub raised_at: DateTime<Utc>,
    pub first_raised_at: DateTime<Utc>,
    /// How often it was raised.
    pub raises: u64,
    /// When its severity or title has changed since it was raised, oldest first; the 32 newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed_at: Vec<DateTime<Utc>>,
    /// Where what it was raised for says that it is, without words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_at: Option<DateTime<Utc>>,
    /// A person, `rule:NAME`, or `node:retired`: its node was taken out of the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_by: Option<String>,
    /// Not shown in lists by default until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelved_until: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelved_by: Option<String>,
    /// How bad it was then: worse, it comes off the shelf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelved_severity: Option<AlarmSeverity>,
    /// The rule that raised it, and the `by` it was raised for.
    #[serde(default)]
    pub rule: String,
    #[serde(default)]
    pub rule_key: String,
    /// Grows with each change.
    pub rev: i64,
    /// A change that was asked for here or above and that its owner has not made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<AlarmAsked>,
    /// What its owner has answered last to somebody who asked above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<AlarmAnswer>,
}

impl Alarm {
    /// In `cleared_by`: nobody knows whether it is over, but nobody will say so any more.
    pub const RETIRED: &'static str = "node:retired";

    /// Why its owner has not done what he asked for.
    pub fn refused(&self, action: &str, by: &str) -> Option<&str> {
        let answer =
            self.answer.as_ref().filter(|a| self.asked.is_none() && a.asked.action == action && a.asked.by == by);
        answer?.refused.as_deref()
    }

    /// As lists call it.
    pub fn named(&self) -> String {
        named(&self.name, &self.key)
    }
}

fn named(name: &str, key: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{name}/{key}") }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlarmAsked {
    /// `ack`, `clear` or `shelve`.
    pub action: String,
    pub by: String,
    pub at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlarmAnswer {
    /// To what.
    #[serde(flatten)]
    pub asked: AlarmAsked,
    /// Why it was not done: the alarm is no longer what whoever asked had before him, or is over. Without it, it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Alarms {
    /// All that are active in the node's subtree, whatever was asked for.
    pub active: u64,
    /// Of them, those that nobody has acknowledged.
    pub unacknowledged: u64,
    /// Of them, those that are shelved.
    #[serde(default)]
    pub shelved: u64,
    /// Worst first, then newest first.
    pub alarms: Vec<Alarm>,
    /// Nodes below that are not heard at present, at most 20: what they have raised since is not here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<Address>,
    /// How many more there are than `unheard` says.
    #[serde(default)]
    pub unheard_more: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
    /// Of each of these the newest case that was opened beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<AlarmCase>,
    /// Where the next page goes on: `after=…`; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlarmShown {
    pub alarm: Alarm,
    /// It is of the node that is asked, and no rule in force there will end it: somebody must.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// Those that were opened beside it, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<AlarmCase>,
    /// It may be old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
}

/// A case that was opened beside an alarm, as the node that is asked has heard of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlarmCase {
    /// Id of the alarm.
    pub alarm: String,
    pub id: String,
    pub status: Status,
    pub owner: Address,
    pub opened: DateTime<Utc>,
}

/// `POST /v1/alarms/{id}/ack` and its siblings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AlarmAction {
    /// Who does it.
    pub by: String,
    /// Of `shelve`: for how long, seconds; 0 takes it off the shelf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rules {
    pub rules: Vec<RuleState>,
    /// By which `hours` and days of tumbling windows go; not there if no rule has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<CalendarShown>,
    /// Firings that are decided and not yet written.
    pub waiting: u64,
    /// Firings given up because they were too many or too old.
    pub dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RuleState {
    pub name: String,
    pub on: Vec<String>,
    /// In words: what it waits for.
    pub condition: String,
    /// What it does, a word each.
    pub then: Vec<String>,
    /// Values of `by` that are kept apart.
    pub keys: u64,
    /// Of them, those for which it is on.
    pub on_keys: u64,
    /// Events that it looked at, since the data folder was made.
    pub matched: u64,
    pub fired: u64,
    /// Evaluations that failed, and why the last one did.
    pub errors: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fired_at: Option<DateTime<Utc>>,
    /// Keys that gave way to newer ones.
    pub keys_given_way: u64,
}

/// What rules make of recorded events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RulesTested {
    pub events: u64,
    /// Lines that are no event with a time, with their numbers; at most 100.
    pub unread: Vec<String>,
    /// How many more could not be read than `unread` says.
    pub unread_more: u64,
    /// Events that rules of this node had made when it recorded them: what is tested makes its own.
    pub left_out: u64,
    pub fired: Vec<Firing>,
    /// What still waits when the last event has been looked at, the soonest first; at most 100.
    #[serde(default)]
    pub waiting: Vec<RuleWaits>,
    /// How much more there is than `waiting` says.
    #[serde(default)]
    pub waiting_more: u64,
    pub rules: Vec<RuleState>,
    /// By which `hours` and days of tumbling windows went: the file's own, or, `of` nobody, what is usual; at a node
    /// that of the nearest node above comes before that. Not there if no rule has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<CalendarShown>,
}

/// Something that a rule waits for, for one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleWaits {
    pub rule: String,
    pub key: String,
    /// `held`: its condition must hold on; `absent`: nothing must come; `over`: it must stay over; `alarm`: it holds,
    /// and another alarm keeps it from firing.
    pub what: String,
    /// Until then; none while it waits for another alarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// A rule that fired or came to its end, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Firing {
    pub at: DateTime<Utc>,
    pub rule: String,
    pub key: String,
    /// `fired`, `changed`, `over`; `held` when a dependency held it back at its time; `lapsed` when its
    /// window emptied before the condition had held for long enough.
    pub what: String,
    /// Of the alarm that it raises, if it raises one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<AlarmSeverity>,
    /// The id of the event that did it; empty for the passing of time.
    #[serde(default)]
    pub event: String,
    /// What the expressions read, with its values.
    pub why: std::collections::BTreeMap<String, serde_json::Value>,
    /// What was done, in words.
    #[serde(default)]
    pub done: Vec<String>,
    /// What could not be filled in or sent, the first of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reloaded {
    /// The lists of the file that are in force now: `rule`, `service`, `scene`, `category`.
    pub parts: Vec<ReloadedPart>,
    /// The calendar is in force too, and is another than before.
    pub calendar_changed: bool,
    /// Alarms of this node that no rule in force ends any more, at most 100; somebody must clear them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<AlarmLeft>,
    /// How many more there are than `left` says.
    #[serde(default)]
    pub left_more: u64,
    /// What can hardly be meant of the services and scenes in force, and which windows begin anew: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// Parts of the file that are otherwise than in force, and wait for a start: `broker`.
    #[serde(default)]
    pub waits: Vec<String>,
}

/// One list of a config file, before and after it was read again: entries by name, or by code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReloadedPart {
    pub part: String,
    /// How many entries there are now.
    pub in_force: u64,
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

/// An active alarm that has outlived its rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlarmLeft {
    pub id: String,
    pub name: String,
    pub key: String,
    /// What raised it.
    pub rule: String,
}

impl AlarmLeft {
    /// As lists call it.
    pub fn named(&self) -> String {
        named(&self.name, &self.key)
    }
}

/// Warnings that came in by CAP and are in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CapWarnings {
    /// Worst first.
    pub warnings: Vec<CapWarning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
}

impl CapWarnings {
    /// Why nothing in the list is called so: a word for programs, a sentence, and what to type.
    pub fn none_is(&self, word: &str) -> (&'static str, String, String) {
        let none = format!("no warning in force is `{word}`");
        match &self.awaits {
            Some(awaits) => {
                ("not-yet", format!("{none}, as far as is known: {}", awaits.whole("warnings")), awaits.hint())
            }
            None => ("not-found", none, "`citybrain cap list` shows those in force".to_owned()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CapWarning {
    /// The first message of its chain: `sender,identifier,sent`, the time in UTC.
    pub about: String,
    pub level: AlarmSeverity,
    /// What it is about: 暴雨.
    pub event: String,
    pub headline: String,
    pub sent: DateTime<Utc>,
    /// In force until then.
    pub expires: DateTime<Utc>,
    /// Nodes that were told, each with all below it.
    pub nodes: Vec<Address>,
    /// Its messages, oldest first, as `about` names the first.
    pub messages: Vec<String>,
}

/// A warning is over before its time, by this node's own word.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CapCancel {
    /// Which: as [`CapWarning::about`] has it.
    pub about: String,
    /// Why, for those who were told.
    pub note: String,
}

/// What became of a message of CAP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CapTaken {
    /// `sender,identifier,sent`, the time in UTC: the event's id.
    pub id: String,
    /// The same of the first message of its chain: the event's subject.
    pub about: String,
    pub pos: Pos,
    /// It was there before.
    pub duplicate: bool,
    /// Nodes that are told, each with all below it; one below at which the warning came in, alone.
    pub notified: Vec<Address>,
    /// What the sender may not expect, such as codes of areas that no node has; often nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}
