//! Commands and notices on their way down.

use crate::{Address, Pos};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

views! {
    Directives = "citybrain.directives/1",
    Directive = "citybrain.directive/1",
    Sent = "citybrain.sent/1",
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Directives {
    /// Newest last; the next page has older ones.
    pub directives: Vec<Directive>,
    /// Where the next page goes on: `after=…`; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Pos>,
}

/// A command or notice on its way down, and what came back: each number counts nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Directive {
    pub id: String,
    pub pos: Pos,
    #[serde(rename = "type")]
    pub event_type: String,
    /// `command` or `notice`.
    pub directive: String,
    pub origin: String,
    pub target: String,
    pub issued_at: DateTime<Utc>,
    /// Nodes meant in this subtree, as far as they were known when it was committed here.
    pub expected: u64,
    pub delivered: u64,
    pub done: u64,
    pub failed: u64,
    /// Too late, and not executed.
    pub expired: u64,
    /// Of those expected: no word yet.
    pub silent: u64,
    /// Who that is, when one directive is asked for; at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_nodes: Vec<Address>,
}

/// `POST /v1/send`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// A selector at or below the node.
    pub target: String,
    #[serde(rename = "type")]
    pub event_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
    /// `routine` (default) or `urgent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// `command` asks for an act and gets receipts; `notice` (default) only informs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directive: Option<String>,
    /// After this it is answered "not executed".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u32>,
}

/// It is on the node's disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sent {
    pub id: String,
    pub source: String,
    pub pos: Pos,
    pub target: String,
    #[serde(rename = "type")]
    pub event_type: String,
}
