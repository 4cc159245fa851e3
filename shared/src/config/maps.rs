//! How messages become events, and how far those travel.

use crate::address::Tier;
use crate::danger::Danger;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One of [`super::presets`], put to use. At the file's top, before any section, a name stands for one
/// without options: `preset = "zigbee2mqtt"`, `preset = ["zigbee2mqtt", "tasmota"]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    pub name: String,
    /// The topic levels before the preset's own. Default: the preset's, such as `zigbee2mqtt`.
    #[serde(default)]
    pub base: Option<String>,
    /// The highest tier that its events travel to. Default: they stay at this node; alarms and
    /// cases that follow from them climb all the same.
    #[serde(default)]
    pub reach: Option<Tier>,
    /// `false`: without the rules that it brings. Default true.
    #[serde(default = "yes")]
    pub rules: bool,
}

/// Turns messages on a topic into events.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// MQTT topic filter.
    pub filter: String,
    #[serde(default)]
    pub format: Format,
    /// JSON pointers that must lead to something that is neither null nor an empty text, each with
    /// the values that count (none: any). `*` as a pointer's segment is every element. Where this
    /// does not hold the next entry is looked at.
    #[serde(default)]
    pub has: BTreeMap<String, Vec<serde_json::Value>>,
    /// No event: such messages stay plain ones, whatever further entries say.
    #[serde(default)]
    pub skip: bool,
    /// Where the device says whether there is a danger: for each the JSON pointers to it; any of them is enough. Of
    /// what is told the event says `true` or `false`, and is urgent while anything is there. Without `type` its type is
    /// that of the worst that is there, else of the worst that is told; where none is told the next entry is looked at.
    #[serde(default)]
    pub dangers: BTreeMap<Danger, Vec<String>>,
    /// Event type; `{1}`, `{2}`, … stand for topic levels, counted from 1, `{2..}` for the second
    /// and all behind it, `{client}` for the sender's client id.
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    /// JSON pointer (`/a/b`) or template (`{2}`) of the subject. Where the payload has nothing there: the topic.
    #[serde(default)]
    pub subject: Option<String>,
    /// Stands before a subject that the payload gives: where a preset is there twice, its base.
    #[serde(skip)]
    pub below: Option<String>,
    /// JSON pointer of the time: RFC 3339, or a number of seconds or milliseconds since 1970. Nothing or null
    /// there is when it came; so is what is no time where the event is urgent, or ends what is.
    #[serde(default)]
    pub time: Option<String>,
    /// JSON pointer of the data; without it the whole payload.
    #[serde(default)]
    pub value: Option<String>,
    /// Instead of `value`: the data's members, each with the JSON pointer (or template) of its
    /// value. `*` stands for all members of the object, or objects, that its pointer leads to.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    /// Members of the data that are objects with this member are replaced by its value.
    #[serde(default)]
    pub inner: Option<String>,
    /// What words or numbers stand for, where `data` names a member or the data is one of them.
    #[serde(default)]
    pub words: BTreeMap<String, serde_json::Value>,
    /// JSON pointer of an id that makes retransmissions recognisable.
    #[serde(default)]
    pub id: Option<String>,
    /// Source; default `/ADDRESS/TOPIC`.
    #[serde(default)]
    pub source: Option<String>,
    #[serde(default)]
    pub priority: Option<Priority>,
    #[serde(default)]
    pub reach: Option<Tier>,
    /// Selector: makes the events downward.
    #[serde(default)]
    pub target: Option<String>,
}

impl Map {
    /// Does it take only what tells of a danger, and is its events' type that danger's?
    pub fn is_told_by_dangers(&self) -> bool {
        self.kind.is_none() && !self.dangers.is_empty()
    }

    /// The types of its events, the worst first; none: those that come as such have their own.
    pub fn kinds(&self) -> Vec<&str> {
        let mut all: Vec<&str> = match &self.kind {
            Some(kind) => vec![kind],
            None => self.dangers.keys().map(|danger| danger.kind()).collect(),
        };
        all.dedup();
        all
    }

    /// Do its events say whether a danger is there?
    pub fn warns(&self) -> bool {
        !self.dangers.is_empty() || self.kind.as_deref().is_some_and(|kind| Danger::promised(kind).is_some())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A CloudEvents JSON object, taken as it is.
    #[default]
    Cloudevents,
    /// Any JSON value.
    Json,
    /// A number, a word, a line: becomes a JSON number if it is one, else a string.
    Text,
    /// A device's announcement in the words of Home Assistant's MQTT discovery: no event itself, but
    /// what the device says on the topics that it names there is.
    Discovery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Routine,
    Urgent,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// A type, or a prefix with `*` at its end.
    #[serde(rename = "type")]
    pub kind: String,
    pub tier: Tier,
}

fn yes() -> bool {
    true
}
