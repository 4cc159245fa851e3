//! Answers to questions about a tree: who answered for whom, the way of an event, why something
//! does not move, and whether the books add up.

use super::{Directive, Failure, Link};
use crate::{Address, Pos, Tier};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Request header on any GET: the node below that is to answer instead.
pub const HEADER_AT: &str = "x-citybrain-at";
/// Response header of a stream that came through links: more was there than an answer may hold.
pub const HEADER_CUT: &str = "citybrain-cut";
/// Response header: how long the way to the node and back took, ms.
pub const HEADER_TOOK_MS: &str = "citybrain-took-ms";

/// One segment of a path, or a value in a query, with whatever would end it escaped.
pub fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

views! {
    Known = "citybrain.known/1",
    Health = "citybrain.health/1",
    Asked = "citybrain.asked/1",
    Hop = "citybrain.hop/1",
    Trace = "citybrain.trace/1",
    Symptoms = "citybrain.symptoms/1",
    Why = "citybrain.why/1",
    Ledger = "citybrain.ledger/1",
    Explained = "citybrain.explained/1",
    Audit = "citybrain.audit/1",
    Held = "citybrain.held/1",
}

/// A list that was longer than an answer may be: its first `kept` of `of` are here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cut {
    pub list: String,
    pub kept: u64,
    pub of: u64,
}

// ---- who answers for whom ----------------------------------------------------------------------

/// What a node knows of another, told when that one cannot be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Known {
    pub address: Address,
    /// False: it has never told of itself here.
    pub is_registered: bool,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub version: String,
    /// Since it last told of itself, by its own clock then and the teller's now.
    pub presence_ms_ago: Option<u64>,
    /// The teller's link to it, or to the node on the way to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
}

/// The body of a 504: who could not be asked, and what the nearest node above last knew of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Unanswered {
    #[serde(flatten)]
    pub failure: Failure,
    /// An answer of [`Known`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<serde_json::Value>,
}

/// A node's condition in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    pub ready: bool,
    pub reasons: Vec<String>,
    /// Why the outside broker that it uses is not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_away: Option<String>,
    pub uptime_s: u64,
    pub version: String,
    /// State of the link to the parent, if one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_state: Option<String>,
    /// Records that the parent does not have yet, at most.
    pub behind: u64,
    pub dead_letters_open: u64,
    pub lost: u64,
}

/// A node that was asked and did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Missing {
    pub node: Address,
    /// Stable: `late`, `away`, `busy`, `too-large`, `refused`.
    pub why: String,
    pub detail: String,
}

/// A line of `/v1/ask`: one node's answer.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reply {
    pub node: Address,
    pub took_ms: u64,
    pub status: u16,
    /// Of a stream: more was there than an answer may hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Box<RawValue>>,
    /// Of a stream: its lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The last line of `/v1/ask`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Asked {
    pub selector: String,
    pub asked: u64,
    pub answered: u64,
    pub missing: Vec<Missing>,
    /// Meant too, but over the bound of one question.
    #[serde(default)]
    pub not_asked: u64,
}

// ---- the way of an event -----------------------------------------------------------------------

/// What one node knows of one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hop {
    /// `None`: it is not in this node's log.
    pub record: Option<HopRecord>,
    /// The parent, if the event is to go there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Onward>,
    /// Children that it is to go to; those that do not have it first, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub down: Vec<Onward>,
    /// Events here that name it as what they answer or follow from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caused: Vec<Caused>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directive: Option<Directive>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HopRecord {
    pub pos: Pos,
    pub source: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub priority: String,
    pub direction: String,
    pub origin: String,
    pub origin_pos: Pos,
    pub reach: Tier,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u32>,
    pub received_at: DateTime<Utc>,
    pub committed_us: i64,
    /// Since it was committed here, by this node's clock.
    pub age_ms: u64,
}

/// Whether a peer has an event, and what its link does if not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Onward {
    pub peer: Address,
    /// The peer said that everything up to here is on its disk.
    pub acknowledged: bool,
    /// It was set aside for this peer, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<String>,
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub last_heard_ms_ago: Option<u64>,
    /// Records that go to the peer before it.
    pub ahead: u64,
    /// Too many to be counted: there are no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ahead_at_most: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Caused {
    pub node: Address,
    pub pos: Pos,
    pub kind: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub id: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Trace {
    pub id: String,
    pub source: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub priority: String,
    pub direction: String,
    pub origin: String,
    pub reach: Tier,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// `arrived`; `passed-on` (the node above has it, and can tell more); `waiting`; `parked`; `expired`;
    /// `missing` (acknowledged, and not there); `unknown`.
    pub outcome: String,
    pub sentence: String,
    /// In the order of its way.
    pub hops: Vec<TraceHop>,
    pub caused: Vec<Caused>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directive: Option<Directive>,
    /// Nodes that did not answer.
    pub missing: Vec<Missing>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TraceHop {
    pub node: Address,
    /// `committed`; `acknowledged` (the node below was told so); `waiting` (for this node, at the
    /// one before it); `absent`; `missing` (acknowledged, and not there); `unknown` (not asked).
    pub state: String,
    pub pos: Option<Pos>,
    pub committed_at: Option<DateTime<Utc>>,
    /// Between the commit at the node before and this one, each by its own clock: it may be negative.
    pub since_previous_us: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

// ---- why something does not move ---------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "SymptomSeverity"))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing moves until somebody acts, or until it mends itself.
    Stuck,
    /// It moves, but not as it should.
    Slow,
    /// Worth knowing.
    Note,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Symptom {
    /// Stable, for programs: `refused-duplicate`, `parent-unreachable`, `disk-low`, …
    pub code: String,
    pub severity: Severity,
    /// Whom it is about.
    pub node: Address,
    /// Who says so.
    pub by: Address,
    pub sentence: String,
    /// What to do.
    pub remedy: String,
}

/// What a node finds wrong with itself, and with the child that was asked about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Symptoms {
    pub symptoms: Vec<Symptom>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Why {
    pub address: Address,
    /// The first symptom's code; `well` without one.
    pub code: String,
    pub sentence: String,
    pub remedy: String,
    /// Nothing is stuck.
    pub moves: bool,
    /// The worst first.
    pub symptoms: Vec<Symptom>,
    /// Who was looked at, from the node asked down to the one in question.
    pub looked: Vec<Looked>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Looked {
    pub node: Address,
    /// `None`: it did not answer.
    pub took_ms: Option<u64>,
    /// Its clock against that of the node asked; half of the way's time is guessed.
    pub clock_ahead_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

// ---- do the books add up -----------------------------------------------------------------------

/// Numbers from the first to the second, both included.
pub type Run = (u64, u64);

/// What a node holds that must climb to its parent, a page of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ledger {
    pub rows: Vec<LedgerRow>,
    /// The page after this one begins behind this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// False: more waits than was looked through; what is beyond counts as missing here.
    pub is_waiting_complete: bool,
}

/// One origin's records of one class (lane and reach), by their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LedgerRow {
    pub origin: Address,
    /// The histories that the numbers may stand under.
    pub logs: Vec<String>,
    pub class: u8,
    pub held: Vec<Run>,
    /// Of them: not acknowledged by the parent yet.
    pub waiting: Vec<Run>,
}

/// What became of numbers that a parent does not hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explained {
    pub numbers: Vec<Number>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Number {
    pub seq: u64,
    /// `waiting`, `parked`, `expired`, `lost` (recorded), `sent` (acknowledged!), `absent` (not in this log either).
    pub fate: String,
    pub pos: Option<Pos>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
}

/// Which of a parent's directives a node holds, by the keys of `source` and `id` (16 hexadecimal
/// digits).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Held {
    /// Not in its log.
    pub absent: Vec<String>,
    /// Of them: among its dead letters.
    pub refused: Vec<String>,
    /// When its oldest record was committed, µs since 1970: nothing from before can be held.
    pub oldest_us: i64,
}

/// Conservation over a subtree, upward: accepted = above + waiting + parked + expired + lost + missing;
/// downward: sent = held + waiting + parked + refused + lost + not kept + missing. `missing` must be none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Audit {
    pub adds_up: bool,
    pub totals: Sums,
    /// Of what goes down.
    #[serde(default)]
    pub down: DownSums,
    /// Those that do not add up first.
    pub links: Vec<LinkAudit>,
    /// Nodes that did not answer: nothing is said of what is below them.
    pub unasked: Vec<Missing>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sums {
    /// Records at the child that must climb.
    pub accepted: u64,
    /// Of them held by the parent.
    pub above: u64,
    pub waiting: u64,
    pub parked: u64,
    pub expired: u64,
    pub lost: u64,
    /// Nobody accounts for them.
    pub missing: u64,
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        self.accepted += other.accepted;
        self.above += other.above;
        self.waiting += other.waiting;
        self.parked += other.parked;
        self.expired += other.expired;
        self.lost += other.lost;
        self.missing += other.missing;
    }
}

/// Directives for a child or for somebody below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DownSums {
    /// That the parent holds, however it answers.
    pub sent: u64,
    pub held: u64,
    pub waiting: u64,
    pub parked: u64,
    /// Among the child's dead letters.
    pub refused: u64,
    pub lost: u64,
    /// From before the oldest record that the child keeps: a new box, or retention.
    pub not_kept: u64,
    /// Nobody accounts for them.
    pub missing: u64,
}

impl std::ops::AddAssign for DownSums {
    fn add_assign(&mut self, other: DownSums) {
        self.sent += other.sent;
        self.held += other.held;
        self.waiting += other.waiting;
        self.parked += other.parked;
        self.refused += other.refused;
        self.lost += other.lost;
        self.not_kept += other.not_kept;
        self.missing += other.missing;
    }
}

/// A directive that the child acknowledged and does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DownMissing {
    /// In the parent's log.
    pub pos: Pos,
    pub id: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub target: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LinkAudit {
    pub child: Address,
    pub parent: Address,
    pub sums: Sums,
    #[serde(default)]
    pub down: DownSums,
    /// At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub down_missing: Vec<DownMissing>,
    /// At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// What makes the sums less than exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Numbers that nobody accounts for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gap {
    pub origin: Address,
    /// `urgent` or `routine`.
    pub priority: String,
    pub reach: Tier,
    pub first: u64,
    pub last: u64,
    /// Ids of those that the child still has, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
}
