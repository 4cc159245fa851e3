//! A node as it stands: its state, its place in the tree, and its links.

use crate::selector::Labels;
use crate::words::counted;
use crate::{Address, Lane, Pos, Tier, words};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

views! {
    Status = "citybrain.status/1",
    Ready = "citybrain.ready/1",
    Tree = "citybrain.tree/1",
    Links = "citybrain.links/1",
    WebhookSkipped = "citybrain.webhook-skipped/1",
}

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
    /// The config's; none of a folder alone.
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
}

/// How far a webhook is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Webhook {
    pub name: String,
    /// Records of the log that it has not looked at.
    pub behind: u64,
    /// What its receiver does not take, and is sent again and again; of each lane one at most.
    pub stands: Vec<WebhookStands>,
    /// Since then its receiver is asked whether it wants events from here (`handshake`), and has not agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_agreed_since: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_agreed_why: Option<String>,
    /// Since then its receiver takes nothing any more (410), and nothing is sent until the node starts again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_why: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebhookStands {
    pub pos: Pos,
    pub lane: Lane,
    pub since: DateTime<Utc>,
    /// How the last attempt ended.
    pub why: String,
    /// Its receiver was not asked: the node has no token of the name in which it speaks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unasked: bool,
}

/// What keeps a webhook from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookTrouble {
    /// Its receiver is to agree first, and has not.
    NotAgreed,
    /// Its receiver is gone for good.
    Gone,
    /// The tokens file has no token of its name.
    NoToken,
    /// Its receiver does not take an event.
    NotTaken,
}

impl Webhook {
    /// What keeps it from going on, with a sentence each.
    pub fn troubles(&self) -> Vec<(WebhookTrouble, String)> {
        let at = |at: DateTime<Utc>| super::rfc3339(at);
        let behind = counted(self.behind, "record");
        let not_agreed = self.not_agreed_since.zip(self.not_agreed_why.as_deref()).map(|(since, why)| {
            let name = &self.name;
            format!(
                "webhook {name}: its receiver has not agreed to events from here since {} ({why}); {behind} behind",
                at(since)
            )
        });
        let gone = self.gone_since.zip(self.gone_why.as_deref()).map(|(since, why)| {
            format!("webhook {}: its receiver is gone since {} ({why}); nothing is sent to it", self.name, at(since))
        });
        let stands = |s: &WebhookStands| {
            let WebhookStands { pos, lane, since, why, unasked } = s;
            let trouble = if *unasked { WebhookTrouble::NoToken } else { WebhookTrouble::NotTaken };
            let since = at(*since);
            (trouble, format!("webhook {} stands at {pos} ({lane}) since {since}: {why}; {behind} behind", self.name))
        };
        let not_agreed = not_agreed.map(|sentence| (WebhookTrouble::NotAgreed, sentence));
        let gone = gone.map(|sentence| (WebhookTrouble::Gone, sentence));
        not_agreed.into_iter().chain(gone).chain(self.stands.iter().map(stands)).collect()
    }
}

/// `POST /v1/webhooks/skip`: an operator's word that this event is not sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WebhookSkip {
    pub name: String,
    pub pos: Pos,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebhookSkipped {
    pub name: String,
    pub pos: Pos,
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
    /// 0: this node sets none, as its broker is an outside one.
    pub connections_max: u64,
    /// An outside broker is not reached: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
    /// For how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away_ms: Option<u64>,
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

impl Door {
    /// A start, or a restart of an outside broker, is as long without it.
    const AWAY_MIN_MS: u64 = 2_000;

    /// Why an outside broker is not reached, if that is more than a moment.
    pub fn lost(&self) -> Option<&str> {
        self.away.as_deref().filter(|_| self.away_ms >= Some(Self::AWAY_MIN_MS))
    }
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
    /// It was asked and did not answer; `health` says why.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// Records that its parent does not have yet, at most; its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
    /// Active alarms that it raised, as known at the node asked.
    #[serde(default)]
    pub alarms: u64,
}

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

/// A node that its parent does not hear, nor any below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Unheard {
    pub node: Address,
    /// `None`: never in the life of its parent's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heard_ms_ago: Option<u64>,
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
    /// The same for programs, where something is to be done about it: why a hello was refused (`duplicate`,
    /// `unenrolled`, …); `login`, `unavailable`, `certificate`, `no-progress` or `silent`; `refused-another` if it is up and
    /// a second node wants its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// `None`: never in this process's life. A peer that has nothing else to say says that it is there, every
    /// `link.keep_alive_s` of its own and at least every four minutes; when three of these are over, by the slower of
    /// both ends, it is no longer up.
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
    /// Records that were not sent because their time (`expirytime`) was over, since this node started.
    #[serde(default)]
    pub expired_records: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
    /// Nodes below a child that it does not hear, as it said last; the topmost, at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<Unheard>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "super::cases::is_zero")]
    pub unheard_more: u64,
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
    /// Frames that the peer lets be under way; 0 before the first session.
    pub credit_frames: u16,
}
