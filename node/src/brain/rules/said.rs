//! What a node says of its rules' conclusions, for itself.

use citybrain_shared::Pos;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::view::{self, Firing};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Type of the record that says what rules have concluded; stays on its node.
pub const FIRED: &str = "city.brain.rule.fired";

/// `data` of [`FIRED`].
#[derive(Serialize, Deserialize)]
pub struct Said {
    /// Conclusions from records up to here are done,
    pub upto: Pos,
    /// but for so many, the last of those from that record.
    #[serde(default, skip_serializing_if = "is_none")]
    pub but: u32,
    pub fired: Vec<SaidOf>,
    /// Of each event that was met by a rule which depends on an alarm, in order: might it fire?
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub free: Vec<bool>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_none(but: &u32) -> bool {
    *but == 0
}

/// What came of an event, or of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Fired,
    Changed,
    Over,
    /// It was held back, and is looked at again.
    Held,
    /// It did not hold for long enough.
    Lapsed,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Fired => "fired",
            Outcome::Changed => "changed",
            Outcome::Over => "over",
            Outcome::Held => "held",
            Outcome::Lapsed => "lapsed",
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub struct SaidOf {
    pub rule: String,
    pub key: String,
    pub what: Outcome,
    pub at_us: i64,
    /// Of a timer: when it was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_us: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// The id of the event that did it.
    #[serde(default)]
    pub event: String,
    pub why: BTreeMap<String, Json>,
    /// What was done, a few words each.
    #[serde(default)]
    pub done: Vec<String>,
    /// What could not be filled in, the first of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<SaidOf> for Firing {
    fn from(s: SaidOf) -> Firing {
        let SaidOf { rule, key, what, at_us, due_us: _, severity, event, why, done, error } = s;
        Firing { at: view::time_of(at_us), rule, key, what: what.word().into(), severity, event, why, done, error }
    }
}
