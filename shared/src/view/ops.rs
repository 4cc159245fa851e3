//! Answers for whoever keeps nodes running: stores, config, levels, enrolment, doctor, accounts, presets.

use crate::{Address, Pos};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

views! {
    StoreStats = "citybrain.store-stats/1",
    StoreVerify = "citybrain.store-verify/2",
    StoreChange = "citybrain.store-change/1",
    LogReplayed = "citybrain.log-replayed/1",
    Check = "citybrain.check/1",
    LogLevel = "citybrain.log-level/1",
    ConfigShown = "citybrain.config/1",
    ConfigDiff = "citybrain.config-diff/1",
    Enrolments = "citybrain.enrolments/1",
    Enrolled = "citybrain.enrolled/1",
    Retired = "citybrain.retired/1",
    Doctor = "citybrain.doctor/1",
    Tokens = "citybrain.tokens/1",
    Users = "citybrain.users/1",
    Contexts = "citybrain.contexts/1",
    Presets = "citybrain.presets/1",
    PresetShown = "citybrain.preset/1",
    Tried = "citybrain.tried/1",
}

/// Request header: who asks, `user@host`, as the asking side says of itself.
pub const HEADER_OPERATOR: &str = "citybrain-operator";

// ---- a data folder -----------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreStats {
    pub dir: String,
    /// A node runs on it: numbers are of the moment, and the state was not read.
    pub in_use: bool,
    pub records: u64,
    pub first_pos: Pos,
    pub last_pos: Pos,
    pub first_at: Option<DateTime<Utc>>,
    pub last_at: Option<DateTime<Utc>>,
    pub segments: u64,
    pub log_bytes: u64,
    /// Bytes of an unfinished write at the end; the next start cuts them off.
    pub torn_bytes: u64,
    pub state_bytes: u64,
    /// `None`: not read.
    pub state_rows: Option<u64>,
    pub state_upto_pos: Option<Pos>,
    pub snapshots: Vec<SnapshotStats>,
    pub damage: Vec<StoreDamage>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotStats {
    pub pos: Pos,
    pub bytes: u64,
    pub at: DateTime<Utc>,
}

/// Records that cannot be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreDamage {
    pub segment: String,
    pub offset_bytes: u64,
    pub first_pos: Pos,
    pub last_pos: Pos,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreVerify {
    pub dir: String,
    pub ok: bool,
    pub records: u64,
    pub segments: u64,
    pub torn_bytes: u64,
    pub damage: Vec<StoreDamage>,
    pub state: StoreState,
    /// Newest first.
    pub snapshots: Vec<SnapshotVerdict>,
}

/// What became of the state in a data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum StoreState {
    /// A node runs on it.
    Unread,
    /// The next start makes it.
    Missing,
    Good {
        rows: u64,
        upto_pos: Pos,
    },
    /// It stands for more than the log has: the log has lost its end, from `lost_from_pos` on.
    Ahead {
        rows: u64,
        upto_pos: Pos,
        lost_from_pos: Pos,
    },
    /// No rows, although there are records, and every start writes rows: sled went back to before the first.
    Empty,
    Damaged {
        why: String,
    },
}

impl StoreState {
    /// Is nothing wrong, as far as was looked?
    pub fn is_good(&self) -> bool {
        matches!(self, StoreState::Unread | StoreState::Missing | StoreState::Good { .. })
    }
}

/// A snapshot, read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotVerdict {
    pub pos: Pos,
    /// `None`: they do not read.
    pub rows: Option<u64>,
    /// What is wrong with it.
    pub damage: Option<String>,
}

impl SnapshotVerdict {
    pub fn is_good(&self) -> bool {
        self.damage.is_none()
    }
}

/// What `store rebuild|snapshot|restore` did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreChange {
    pub dir: String,
    /// `rebuilt`, `snapshot`, `restored`.
    pub done: String,
    /// Sentences.
    pub notes: Vec<String>,
    pub first_pos: Pos,
    pub last_pos: Pos,
    pub bytes: u64,
}

/// What `log replay` sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogReplayed {
    pub to: String,
    /// It began behind this position.
    pub after_pos: Pos,
    /// Everything that fits, up to here, is settled.
    pub upto_pos: Pos,
    /// Events that fit.
    pub events: u64,
    pub acknowledged: u64,
    /// Whose data this token may not see: not sent.
    pub withheld: u64,
    /// That may name people and whose type was not named, or that nodes say to each other: not sent.
    pub private: u64,
    /// That the sink will not have, now or later.
    pub refused: u64,
    /// The first 20 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_refused: Vec<RefusedEvent>,
    /// Records that the log has lost.
    pub damaged: u64,
    pub wall_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEvent {
    pub pos: Pos,
    pub reason: String,
}

// ---- config files ------------------------------------------------------------------------------

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

// ---- a running node ----------------------------------------------------------------------------

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogLevel {
    /// As in `RUST_LOG`: `info`, `citybrain_hub::link=debug,info`.
    pub level: String,
    /// What it was before; absent when it was only asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// Keys as in the file, flat: `store.keep_s`, `map.0.filter`. Secrets are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfigShown {
    /// Defaults are in it, too.
    pub effective: bool,
    pub config: Value,
    /// By what working time is counted; not of a file, which cannot know what the nodes above say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<CalendarShown>,
}

/// The calendar in force at a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CalendarShown {
    /// The node whose `[calendar]` it is: this one, or the nearest above that has one. `None`: nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Address>,
    /// `+08:00, Mon,Tue,Wed,Thu,Fri 09:00-12:00,13:00-17:00, 7 days off, 1 made up`
    pub words: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigDiff {
    pub differences: Vec<ConfigDifference>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigDifference {
    pub key: String,
    /// In the node that runs; absent: not there.
    pub running: Option<String>,
    pub file: Option<String>,
}

// ---- children to be let in ----------------------------------------------------------------------

/// Children that are connected and wait for an operator's word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Enrolments {
    /// `link.enrol` is `manual` here; otherwise nobody waits.
    pub is_manual: bool,
    pub waiting: Vec<Waiting>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Waiting {
    pub address: Address,
    /// As it says of itself.
    pub name: String,
    /// Minted with its data folder.
    pub incarnation: String,
    /// The incarnation that holds the address; `None` for one that comes for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// An operator has said no, and it still asks.
    pub is_refused: bool,
}

/// `POST /v1/enrolments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    pub admit: bool,
    pub children: Vec<EnrolledChild>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrolledChild {
    pub address: Address,
    pub incarnation: String,
}

/// The word is on disk; it counts when the child asks again, within seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Enrolled {
    pub is_admitted: bool,
    pub children: Vec<EnrolledChild>,
}

/// `POST /v1/enrolments/retire`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Retire {
    pub address: Address,
    /// Though it, or somebody below it, owns open cases.
    #[serde(default)]
    pub even_with_cases: bool,
}

/// Nothing is kept for it any more; it counts until one of them comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Retired {
    pub address: Address,
    /// It, and those known below it, that are no longer in the tree.
    pub nodes: Vec<Address>,
    /// Open cases that they own: nobody steps them now.
    pub open_cases: u64,
    /// Alarms that were active there: over now (`node:retired`), until one of them comes back.
    #[serde(default)]
    pub active_alarms: u64,
}

// ---- doctor ------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "DoctorVerdict"))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Could not be found out, or worth knowing.
    Note,
    /// Works, and will not for long, or not as promised.
    Warn,
    /// Something does not work, or a promise is not kept.
    Bad,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Doctor {
    pub ok: bool,
    pub checks: Vec<Finding>,
    /// What the findings were made from.
    pub facts: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "DoctorFinding"))]
pub struct Finding {
    /// Stable: `disk-fsync`, `clock-sync`, …
    pub id: String,
    pub severity: Verdict,
    pub found: String,
    /// What to do; empty when all is well.
    #[serde(default)]
    pub remedy: String,
}

// ---- who may ask, and whom ---------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    pub tokens: Vec<TokenHeld>,
    /// Lines that open nothing, and why.
    pub unreadable: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenHeld {
    pub name: String,
    /// `reader`, `operator`.
    pub role: String,
    pub created: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Users {
    pub users: Vec<UserHeld>,
    /// Lines that let nobody in, and why.
    pub unreadable: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserHeld {
    pub name: String,
    /// The child node whose account it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<Address>,
    pub roles: Vec<String>,
    /// `password` or `certificate`.
    pub by: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contexts {
    pub contexts: Vec<ContextKept>,
}

/// A name for a node elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextKept {
    pub name: String,
    pub url: String,
    pub token_file: Option<String>,
    /// Whose certificates are trusted there; `None`: whom this machine trusts.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// The certificate that is shown there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// Commands that name no node ask this one.
    pub used: bool,
}

// ---- devices from a shop -----------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Presets {
    pub presets: Vec<PresetKnown>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PresetKnown {
    pub name: String,
    pub base: String,
    pub about: String,
    /// Names of the rules that it brings.
    pub rules: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PresetShown {
    #[serde(flatten)]
    pub preset: PresetKnown,
    /// What to set at the devices.
    pub setup: Vec<String>,
    /// As a file would write them out; the first that fits counts.
    pub map: Vec<crate::config::Map>,
}

/// What a node would make of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// `event`, `announcement` (a device is known by it), `message` (no event), `refused`.
    pub outcome: String,
    /// Of what is refused: why; of an announcement a line for each part of its device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Value>,
    pub urgent: bool,
    /// The highest tier that it travels to; `null`: it stays at its node.
    pub reach: Option<crate::Tier>,
}
