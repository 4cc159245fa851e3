//! Events: from a log, counted, and as they are taken from outside.

use crate::{Pos, Tier};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

views! {
    Shown = "citybrain.event/1",
    Counts = "citybrain.counts/1",
    Accepted = "citybrain.accepted/1",
    AcceptedBatch = "citybrain.accepted-batch/1",
}

/// Stands in a stream of events, as `{"damaged":…}`, where the log does not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Damaged {
    /// The records after this position …
    pub after: Pos,
    /// … up to this one are lost.
    pub upto: Pos,
}

/// One event of a log, with all that the node knows about it beside the event itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    pub pos: Pos,
    /// `event`, `presence` or `receipt`.
    pub kind: String,
    /// `urgent` or `routine`.
    pub priority: String,
    /// `local`, `up` or `down`.
    pub direction: String,
    /// The node where it began, and its position in that node's log.
    pub origin: String,
    pub origin_pos: Pos,
    /// When it began there, by that node's clock.
    pub received_at: DateTime<Utc>,
    /// When it was committed here, by this node's clock.
    pub committed_at: DateTime<Utc>,
    pub reach: Tier,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u32>,
    /// The CloudEvents object, byte for byte as it was received (line breaks outside strings aside).
    pub event: Box<RawValue>,
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.pos == other.pos && self.event.get() == other.event.get()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shown {
    pub record: Event,
}

/// What events are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CountBy {
    #[default]
    Source,
    Type,
    /// The node where they began.
    Origin,
    Priority,
}

/// Who says how much: the newest events that fit, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counts {
    pub by: CountBy,
    /// What was looked through: records behind the first position, up to the second.
    pub after_pos: Pos,
    pub upto_pos: Pos,
    /// Of them: events that fit.
    pub events: u64,
    /// Between the first of them and the last, at least 1000 if there are any.
    pub span_ms: u64,
    /// Different names among them; with `names_cut` at least so many, and the rest is not in `rows`.
    pub names: u64,
    pub names_cut: bool,
    /// Those with the most events first.
    pub rows: Vec<CountRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CountRow {
    pub name: String,
    pub events: u64,
    pub bytes: u64,
    pub per_s: f64,
    /// Of all that fit, 0 to 1.
    pub share: f64,
    pub last_pos: Pos,
}

/// A log's event record in short, for whoever keeps account of many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Record<'a> {
    pub pos: Pos,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    pub event_type: Cow<'a, str>,
    #[serde(borrow)]
    pub origin: Cow<'a, str>,
    pub origin_pos: Pos,
    #[serde(borrow)]
    pub lane: Cow<'a, str>,
    #[serde(borrow)]
    pub direction: Cow<'a, str>,
    pub received_us: i64,
    pub committed_us: i64,
}

/// An event from outside is on the node's disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Accepted {
    pub id: String,
    pub source: String,
    pub pos: Pos,
    /// It was there already, at `pos`.
    pub duplicate: bool,
}

/// Events of one batch, in its order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AcceptedBatch {
    pub events: Vec<Accepted>,
}
