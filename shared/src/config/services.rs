//! `[[service]]` and `[[scene]]`: what a node offers to its residents, and what belongs together.

use super::cases::Limit;
use crate::case::Place;
use serde::{Deserialize, Serialize};

/// A service that residents of this node and of all below it may request; with `starts` an activity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Unique at its node; such as `haircut`.
    pub code: String,
    pub name: String,
    /// Who gives it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provider: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// For people; empty is free of charge.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub price: String,
    /// `party`, `autonomy`, `virtue`, `law`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governance: Option<String>,
    /// Code of the `[[category]]` whose limits a request gets. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// When it is given: `mon-fri 09:00-11:30`, `sat,sun 10:00-12:00`, `workdays 14:00-17:00`, or
    /// `09:00-17:00` for every day; local time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<String>,
    /// How long one appointment takes: `30m`. With it a request books one; without it nothing is booked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Limit>,
    /// Requests that fit into one appointment.
    #[serde(default = "one")]
    pub capacity: u32,
    /// So far ahead appointments are given, days.
    #[serde(default = "fortnight")]
    pub ahead_days: u32,
    /// An activity's begin and end: `2026-12-05T09:00:00+08:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
    /// Seats of an activity, and volunteers that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volunteers: Option<u32>,
    /// What a request must or may say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub form: Vec<Field>,
}

fn one() -> u32 {
    1
}

fn fortnight() -> u32 {
    14
}

/// A question that a request answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// `floor`
    pub name: String,
    /// For people. Default: the name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// The only answers; empty: whatever is of its kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// Several of the choices may be given, with commas between them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multiple: bool,
    /// What an answer is where there are no choices.
    #[serde(default, skip_serializing_if = "Answer::is_usual")]
    pub kind: Answer,
    /// Kept like a telephone number: only where it is needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub personal: bool,
}

impl Field {
    /// For people.
    pub fn label(&self) -> &str {
        if self.label.is_empty() { &self.name } else { &self.label }
    }
}

/// What an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "FieldKind"))]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// A line.
    #[default]
    String,
    /// Several lines.
    Text,
    Number,
    /// RFC 3339.
    Datetime,
}

impl Answer {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_usual(&self) -> bool {
        *self == Answer::String
    }
}

/// A theme of a community (sports, culture, elderly care) and what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// Unique at its node.
    pub code: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub theme: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Of `party`, `autonomy`, `virtue`, `law`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub governance: Vec<String>,
    /// A GeoJSON geometry: WGS84, longitude first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geometry: Option<serde_json::Value>,
    /// Codes of services and activities of this node or of one above it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Names of rules of this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Subjects of devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}
