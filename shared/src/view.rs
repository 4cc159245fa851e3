//! Answers: what the API sends and the CLI shows. One type each, written and read here, so that
//! both speak of the same thing.
//!
//! Every answer but a stream comes in an [`Answer`]: which schema, whose record, as of when. Times
//! are RFC 3339 in UTC; every number has its unit in its key, and a count has none. A stream is one
//! object a line, without a head; HTTP headers carry it ([`HEADER_NODE`], [`HEADER_AS_OF`]).

mod ops;

pub use ops::*;

use crate::case::Place;
use crate::config::rules::Severity as AlarmSeverity;
use crate::selector::Labels;
use crate::{Address, Pos, Tier, words};
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

mod accounts;
mod cases;
mod inspect;
mod services;
mod supervision;
pub use accounts::*;
pub use cases::*;
pub use inspect::*;
pub use services::*;
pub use supervision::*;

/// Response header: the address of the node whose record a stream is.
pub const HEADER_NODE: &str = "citybrain-node";
/// Response header: positions up to this one were not looked at.
pub const HEADER_AFTER: &str = "citybrain-after";
/// Response header: which history of the node's log it is of; positions of another one mean nothing in it.
pub const HEADER_HISTORY: &str = "citybrain-history";
/// Response header: when the stream began, RFC 3339.
pub const HEADER_AS_OF: &str = "citybrain-as-of";

/// A view that stands under a name: `citybrain.links/1`. The number grows when a key changes its
/// meaning or goes; new keys may come without that.
pub trait View: Serialize + DeserializeOwned {
    const SCHEMA: &'static str;
}

macro_rules! views {
    ($($view:ty = $schema:literal),* $(,)?) => {
        $(impl View for $view { const SCHEMA: &'static str = $schema; })*
    };
}

views! {
    Status = "citybrain.status/1",
    Ready = "citybrain.ready/1",
    Tree = "citybrain.tree/1",
    Links = "citybrain.links/1",
    Shown = "citybrain.event/1",
    Counts = "citybrain.counts/1",
    DeadLetters = "citybrain.dlq/1",
    DeadLetter = "citybrain.dead-letter/1",
    Directives = "citybrain.directives/1",
    Directive = "citybrain.directive/1",
    Sent = "citybrain.sent/1",
    Accepted = "citybrain.accepted/1",
    AcceptedBatch = "citybrain.accepted-batch/1",
    Alarms = "citybrain.alarms/1",
    AlarmShown = "citybrain.alarm/1",
    CapTaken = "citybrain.cap-taken/1",
    CapWarnings = "citybrain.cap/1",
    Rules = "citybrain.rules/1",
    RulesTested = "citybrain.rules-tested/1",
    Reloaded = "citybrain.reloaded/1",
    Check = "citybrain.check/1",
    Version = "citybrain.version/1",
    StoreStats = "citybrain.store-stats/1",
    StoreVerify = "citybrain.store-verify/1",
    StoreChange = "citybrain.store-change/1",
    DlqSettled = "citybrain.dlq-settled/1",
    LogLevel = "citybrain.log-level/1",
    ConfigShown = "citybrain.config/1",
    ConfigDiff = "citybrain.config-diff/1",
    Doctor = "citybrain.doctor/1",
    Tokens = "citybrain.tokens/1",
    Users = "citybrain.users/1",
    Contexts = "citybrain.contexts/1",
    Enrolments = "citybrain.enrolments/1",
    Enrolled = "citybrain.enrolled/1",
    Retired = "citybrain.retired/1",
    LogReplayed = "citybrain.log-replayed/1",
    Presets = "citybrain.presets/1",
    PresetShown = "citybrain.preset/1",
    Tried = "citybrain.tried/1",
}

/// An answer with its head; in JSON the body's keys stand beside the head's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer<T> {
    #[serde(flatten)]
    pub head: Head,
    #[serde(flatten)]
    pub body: T,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Head {
    pub schema: String,
    /// Whose record this is; empty for what no node said (`check`, `version`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    pub as_of: DateTime<Utc>,
    /// Read from a stopped node's folder; `as_of` is its last commit then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offline: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

impl<T: View> Answer<T> {
    pub fn new(node: &str, as_of: DateTime<Utc>, body: T) -> Answer<T> {
        // Milliseconds are enough, and nine digits only look exact.
        let as_of = as_of.trunc_subsecs(3);
        let head = Head { schema: T::SCHEMA.to_owned(), node: node.to_owned(), as_of, offline: false, cut: None };
        Answer { head, body }
    }

    /// Reads an answer, of this view's schema only.
    ///
    /// # Errors
    /// When the JSON does not fit, or is another schema's: the other side is another version.
    pub fn parse(json: &[u8]) -> Result<Answer<T>, serde_json::Error> {
        let head: Head = serde_json::from_slice(json)?;
        if head.schema != T::SCHEMA {
            let message = format!("schema `{}` where `{}` was expected", head.schema, T::SCHEMA);
            return Err(serde::de::Error::custom(message));
        }
        // Twice over the bytes, because serde cannot flatten raw JSON.
        Ok(Answer { head, body: serde_json::from_slice(json)? })
    }
}

/// A time as the records keep it, µs since 1970; `None` becomes 1970 for a number that is no time.
pub fn time_of(us: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(us).unwrap_or_default()
}

/// RFC 3339 with milliseconds, as in every answer.
pub fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

// ---- a node ------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status {
    pub name: String,
    pub tier: Tier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default)]
    pub labels: Labels,
    pub version: String,
    pub pid: u32,
    pub uptime_s: u64,
    /// Incarnation: minted with the data folder.
    pub incarnation: String,
    /// Starts of this incarnation.
    pub boots: u64,
    pub data: String,
    pub ready: Ready,
    pub log: Log,
    pub counters: Counters,
    pub door: Door,
    pub links: Vec<Link>,
    /// Descendants that ever told who they are.
    pub descendants: u64,
    pub dead_letters_open: u64,
}

/// Can the node do its work: take events, make them durable, answer?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ready {
    pub ready: bool,
    /// Why not; or, when ready, what is worth knowing.
    pub reasons: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Log {
    pub first_pos: Pos,
    pub last_pos: Pos,
    /// The state is folded up to here.
    pub applied_pos: Pos,
    /// The name of the log's present history.
    pub history: String,
}

/// Totals since the data folder was made: a restart does not reset them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Counters {
    /// Events that began here.
    pub accepted: u64,
    /// Of them and of those received, the urgent ones.
    pub urgent: u64,
    /// Events received from children.
    pub received_up: u64,
    /// Events received from the parent.
    pub received_down: u64,
    /// Plain MQTT messages kept.
    pub messages: u64,
    /// Records received again and dropped.
    pub duplicates: u64,
    pub dead_letters: u64,
    pub receipts: u64,
    /// Directives for this node that came too late.
    pub expired: u64,
    /// Positions recorded as lost.
    pub lost: u64,
}

/// The front door since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Door {
    /// `embedded` or `outside`.
    pub kind: String,
    /// `127.0.0.1:1883`, or an outside broker's URL.
    pub address: String,
    pub connections: u64,
    pub connections_max: u64,
    /// Durable sessions, connected or not.
    pub sessions: u64,
    /// Publishes taken.
    pub received: u64,
    /// Publishes sent to subscribers.
    pub delivered: u64,
    /// QoS 0 publishes that a slow subscriber did not get.
    pub dropped: u64,
    /// Connections and publishes turned away.
    pub refused: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tree {
    /// The node itself first, then all that it ever heard of below it, by address.
    pub nodes: Vec<TreeNode>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TreeNode {
    pub address: Address,
    pub name: String,
    pub tier: Tier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default)]
    pub labels: Labels,
    pub version: String,
    /// `self`; for a child the state of its link; for who was asked and is further down what it says of
    /// its link up; `known` for all others.
    pub state: String,
    /// Since its last word reached this node; `None` for the node itself.
    pub last_heard_ms_ago: Option<u64>,
    /// `well`, or why not; its own word, so `None` for whom nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Records that its parent does not have yet, at most; its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
    /// Active alarms that it raised, as known at the node asked.
    #[serde(default)]
    pub alarms: u64,
}

// ---- links -------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Links {
    pub links: Vec<Link>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LinkRole {
    /// To the parent.
    Up,
    /// To a child.
    Down,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Link {
    /// What the peer is to this node's log: `up` is the parent, `down` a child.
    pub role: LinkRole,
    pub peer: Address,
    /// One word: `up` when records flow; else what it waits for (`connecting`, `waiting`, `refused`, …).
    pub state: String,
    /// Why, when it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// `None`: never in this process's life. A peer that has nothing else to say says that it is there, every
    /// `link.keep_alive_s` of its own and at least every four minutes.
    pub last_heard_ms_ago: Option<u64>,
    /// For so long it has not been up; `None`: it is, or it never was in this process's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_ms: Option<u64>,
    pub urgent: LinkLane,
    pub routine: LinkLane,
    /// Fencing number of the session.
    #[serde(default)]
    pub lease: u64,
    /// Records received, and of them those that were there already.
    #[serde(default)]
    pub received: u64,
    #[serde(default)]
    pub dropped: u64,
    /// Frames sent again.
    #[serde(default)]
    pub resent_frames: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
}

impl Link {
    /// `for 12 s, last heard 7 m 36 s ago`: since when it is as it is.
    pub fn since_in_words(&self) -> String {
        let down = self.down_ms.map_or_else(String::new, |ms| format!("for {}, ", words::span(ms)));
        match self.last_heard_ms_ago {
            None => format!("{down}never heard since this start"),
            Some(ms) => format!("{down}last heard {} ago", words::span(ms)),
        }
    }

    /// Records for the peer that are not on its disk, and whether they are only known to be no more.
    pub fn behind(&self) -> (u64, bool) {
        let lanes = [&self.urgent, &self.routine];
        (lanes.iter().map(|l| l.unsent + l.in_flight).sum(), lanes.iter().any(|l| l.at_most))
    }

    /// As words: `7`, `at most 7`.
    pub fn behind_in_words(&self) -> String {
        let (records, at_most) = self.behind();
        format!("{}{records}", if at_most { "at most " } else { "" })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct LinkLane {
    /// Records for the peer that are not yet on their way.
    pub unsent: u64,
    /// Sent and not yet acknowledged.
    pub in_flight: u64,
    /// Bytes of all these in the log.
    pub bytes: u64,
    /// How long the oldest of them has been on this node's disk; none without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
    /// Too many positions to look through now: the numbers are at most so high, `bytes` is of the
    /// newest only.
    pub at_most: bool,
    /// Everything of ours up to here is on the peer's disk.
    pub durable_at_peer_pos: Pos,
    /// Everything of the peer's up to here is on our disk.
    pub durable_here_pos: Pos,
    /// Frames that the peer takes before it has acknowledged any; 0 while frames wait: it is busy.
    pub credit_frames: u16,
}

// ---- events ------------------------------------------------------------------------------------

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

// ---- dead letters ------------------------------------------------------------------------------

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
    /// Its first bytes.
    pub payload: String,
    pub payload_is_hex: bool,
    /// Its whole size.
    pub payload_bytes: u64,
}

// ---- directives --------------------------------------------------------------------------------

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

// ---- rules and alarms --------------------------------------------------------------------------

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
    /// A person, or `rule:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_by: Option<String>,
    /// Not shown in lists by default until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelved_until: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelved_by: Option<String>,
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
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlarmAsked {
    /// `ack`, `clear` or `shelve`.
    pub action: String,
    pub by: String,
    pub at: DateTime<Utc>,
}

/// Warnings that came in by CAP and are in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CapWarnings {
    /// Worst first.
    pub warnings: Vec<CapWarning>,
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
    /// Nodes that are told, each with all below it.
    pub notified: Vec<Address>,
    /// What the sender may not expect; often nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Alarms {
    /// All that are active in the node's subtree, whatever was asked for.
    pub active: u64,
    /// Of them, those that nobody has acknowledged.
    pub unacknowledged: u64,
    /// Worst first, then newest first.
    pub alarms: Vec<Alarm>,
    /// Where the next page goes on: `after=…`; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlarmShown {
    pub alarm: Alarm,
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
    pub fired: Vec<Firing>,
    pub rules: Vec<RuleState>,
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
    /// The id of the event that did it; empty for the passing of time.
    #[serde(default)]
    pub event: String,
    /// What the expressions read, with its values.
    pub why: std::collections::BTreeMap<String, serde_json::Value>,
    /// What was done, in words.
    #[serde(default)]
    pub done: Vec<String>,
}

/// `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reloaded {
    pub rules: u64,
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

// ---- others ------------------------------------------------------------------------------------

/// Why something was refused. The body of every HTTP error, and `--json` errors on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Failure {
    /// Stable, for programs: `not-found`, `bad-target`, …
    pub error: String,
    /// For people.
    pub detail: String,
    /// What to do next; may be empty.
    #[serde(default)]
    pub hint: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub ok: bool,
    pub files: Vec<CheckedFile>,
    /// What was looked at, a sentence each.
    pub checked: Vec<String>,
    /// Worth knowing, and no reason to refuse a start.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckedFile {
    pub path: String,
    pub address: Option<Address>,
    pub name: String,
    pub broker: String,
    pub api: String,
    /// The parent's address, or the URL of one that is not among the files; empty without one.
    pub parent: String,
    pub data: String,
    pub problems: Vec<FileProblem>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileProblem {
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub message: String,
    pub help: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    pub version: String,
    /// Link protocol versions that this build speaks.
    pub link_version_min: u8,
    pub link_version_max: u8,
}

/// `DATA/api.json`: how to reach the node that runs on this data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiFile {
    pub url: String,
    pub pid: u32,
    pub address: Address,
    /// Opens the API while the node runs, for whoever may read its folder; only with a tokens file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_back_and_another_schema_is_refused() {
        let raw = RawValue::from_string("{\"id\":\"1\",\"n\":1.10}".into()).unwrap();
        let record = Event {
            pos: Pos(7),
            kind: "event".into(),
            priority: "routine".into(),
            direction: "up".into(),
            origin: "c/s".into(),
            origin_pos: Pos(3),
            received_at: time_of(1_000_000),
            committed_at: time_of(2_000_000),
            reach: Tier::City,
            target: String::new(),
            topic: String::new(),
            ttl_ms: None,
            event: raw,
        };
        let answer = Answer::new("c", time_of(3_000_000), Shown { record });
        let json = serde_json::to_vec(&answer).unwrap();
        assert!(std::str::from_utf8(&json).unwrap().contains("{\"id\":\"1\",\"n\":1.10}"));
        assert_eq!(Answer::<Shown>::parse(&json).unwrap(), answer);
        let error = Answer::<Version>::parse(&json).unwrap_err().to_string();
        assert_eq!(error, "schema `citybrain.event/1` where `citybrain.version/1` was expected");
    }
}
