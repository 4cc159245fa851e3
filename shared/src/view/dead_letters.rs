//! What was refused and kept, and how it was settled.

use crate::Pos;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

views! {
    DeadLetters = "citybrain.dlq/1",
    DeadLetter = "citybrain.dead-letter/1",
    DlqSettled = "citybrain.dlq-settled/1",
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetters {
    /// All that are open; the list may hold fewer.
    pub open: u64,
    /// Newest last.
    pub dead_letters: Vec<DeadLetter>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetter {
    pub pos: Pos,
    pub at: DateTime<Utc>,
    /// Stable, for programs: `not-json`, `unmapped`, `forbidden`, …
    pub reason: String,
    /// One sentence for people.
    pub detail: String,
    pub via: String,
    pub topic: String,
    /// Its first bytes, or why they are withheld.
    pub payload: String,
    pub payload_is_hex: bool,
    /// Its whole size.
    pub payload_bytes: u64,
    /// It may name a person, and is not for whoever asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withheld: bool,
}

/// `POST /v1/dlq/retry`, `POST /v1/dlq/drop`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DlqSettle {
    pub positions: Vec<Pos>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DlqSettled {
    pub letters: Vec<SettledLetter>,
    /// Dead letters that are still open.
    pub open: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SettledLetter {
    pub pos: Pos,
    /// `committed`, `duplicate`, `delivered`, `dropped`; or still open: `refused`, `cut`, `not-sent`, `not-tried`,
    /// `not-retryable`; or `not-open`; or `under-way`, and not known yet.
    pub outcome: String,
    pub detail: String,
    /// Where its payload is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now_at_pos: Option<Pos>,
}
