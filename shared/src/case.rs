//! A case 诉求/工单: a matter that somebody must deal with, as it lies in records, rows and answers.
//!
//! What the handler reports ([`Outcome`]), what the verifier finds ([`Finding`]) and what the resident
//! says ([`Verdict`]) are three facts, and stand apart. Nothing here names a person who reported:
//! names and telephone numbers stay at the node that needs them.

use crate::{Address, Tier};
use chrono::{DateTime, Datelike, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A time of a case, from whoever says it. What lies beyond the years that people write would be counted
/// on with, and past the end of the calendar.
fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
    let at = DateTime::<Utc>::deserialize(from)?;
    if (1..=9999).contains(&at.year()) { Ok(at) } else { Err(D::Error::custom("its year is not 1 to 9999")) }
}

fn some_moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    #[derive(Deserialize)]
    struct Moment(#[serde(deserialize_with = "moment")] DateTime<Utc>);
    Option::<Moment>::deserialize(from).map(|at| at.map(|Moment(at)| at))
}

/// An event of exactly this type opens a case where it enters.
pub const APPEAL: &str = "city.appeal";
/// An event of this type, or of one that goes on behind a dot (`city.sos.pressed.v1`), opens an incident.
pub const SOS: &str = "city.sos";

/// Does an event of this type open a case, whatever its data says?
pub fn is_call(kind: &str) -> bool {
    kind == APPEAL || kind.strip_prefix(SOS).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Is this what nodes say to each other of their cases, with the people whom to call in it? Such events
/// are for no subscriber; what there is to know of a case comes as its steps.
pub fn is_letter(kind: &str) -> bool {
    let step = kind.strip_prefix("city.brain.case.").unwrap_or_default();
    matches!(step, "letter" | "contact" | "answered" | "wanted" | "told" | "roll" | "present")
}

/// Does an event open a case? Those of the types above; and what is urgent and says so in its data
/// (`"sos": true`, or 1), whatever its type, except the node's own. Whoever called may be named in it.
pub fn opens_case(kind: &str, is_urgent: bool, payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        sos: serde_json::Value,
    }
    if is_call(kind) {
        return true;
    }
    // Only what has the word is read at all.
    is_urgent
        && !kind.starts_with("city.brain.")
        && payload.windows(5).any(|w| w == b"\"sos\"")
        && serde_json::from_slice::<Event>(payload)
            .is_ok_and(|e| matches!(e.data.sos, serde_json::Value::Bool(true)) || e.data.sos.as_i64() == Some(1))
}

/// Who gets an event outside of the tree of nodes, a webhook's endpoint or the sink of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    Anybody,
    /// People say in it who and where they are: only who names exactly its type.
    ByName,
    /// What nodes say to each other of cases.
    Nobody,
}

/// The one rule for all that leaves the tree.
pub fn outside(kind: &str, is_urgent: bool, payload: &[u8]) -> Outside {
    let is_appeal = kind.strip_prefix(APPEAL).is_some_and(|rest| rest.starts_with('.'));
    if is_letter(kind) {
        Outside::Nobody
    } else if is_appeal || opens_case(kind, is_urgent, payload) {
        Outside::ByName
    } else {
        Outside::Anybody
    }
}

/// Gives an enum its words: in JSON, on the command line, and for people.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        $(#[$doc])*
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                let known = || Self::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", ");
                Self::ALL.iter().copied().find(|v| v.as_str() == s).ok_or_else(|| format!("`{s}` is none of {}", known()))
            }
        }
    };
}

words! {
    Kind {
        /// 诉求
        Appeal = "appeal",
        /// 服务
        Service = "service",
        /// 事件
        Incident = "incident",
    }
}

words! {
    #[cfg_attr(feature = "schema", schemars(rename = "CaseStatus"))]
    /// Where a case stands. Suspension, extension, escalation and a hand-over under way stand beside it.
    Status {
        /// 信息收集 / 受理
        Submitted = "submitted",
        /// 立案 / 登记
        Accepted = "accepted",
        /// 任务派遣 / 派单
        Dispatched = "dispatched",
        /// 任务处理 / 签收, 办理
        Handling = "handling",
        /// 处理反馈 / 答复
        Resolved = "resolved",
        /// 核实 / 回访
        Evaluated = "evaluated",
        /// 结案 / 办结
        Closed = "closed",
        /// 不予受理
        Rejected = "rejected",
        /// 撤单
        Withdrawn = "withdrawn",
    }
}

impl Status {
    pub fn is_open(self) -> bool {
        !matches!(self, Status::Closed | Status::Rejected | Status::Withdrawn)
    }
}

words! {
    /// What somebody wants done with a case.
    Verb {
        Accept = "accept",
        Reject = "reject",
        Dispatch = "dispatch",
        Start = "start",
        /// The resident was called.
        Contact = "contact",
        Resolve = "resolve",
        /// 核查
        Verify = "verify",
        /// 回访, 评价
        Evaluate = "evaluate",
        Close = "close",
        /// 退单
        Return = "return",
        /// 挂账
        Suspend = "suspend",
        Resume = "resume",
        /// 延期
        Extend = "extend",
        /// 吹哨
        Assist = "assist",
        /// 报到: a summoned unit has come, or is done
        Report = "report",
        /// The one who summoned rates the unit
        Rate = "rate",
        /// 督办, 提级
        Escalate = "escalate",
        Reopen = "reopen",
        Withdraw = "withdraw",
        /// 并案
        Merge = "merge",
        Comment = "comment",
        /// Names and telephone numbers go, wherever the case was; its history stays.
        Forget = "forget",
        /// 剔除
        Exclude = "exclude",
        /// 收回: a hand-over that nobody has begun to work on comes back.
        Recall = "recall",
    }
}

impl Verb {
    /// Whose it mostly is: what somebody is who does not say as what he asks.
    pub fn usual_role(self) -> Role {
        match self {
            Verb::Verify | Verb::Close | Verb::Exclude | Verb::Forget => Role::Supervisor,
            Verb::Evaluate | Verb::Withdraw | Verb::Reopen => Role::Resident,
            _ => Role::Worker,
        }
    }

    /// One asks for it, and another approves.
    pub fn needs_two(self) -> bool {
        matches!(self, Verb::Suspend | Verb::Extend | Verb::Exclude)
    }
}

words! {
    Role {
        Resident = "resident",
        Worker = "worker",
        Supervisor = "supervisor",
    }
}

words! {
    /// Solved 解决, partly 部分解决, unsolved 未解决: as the handler claims, or as the resident says.
    Solved {
        Solved = "solved",
        Partly = "partly",
        Unsolved = "unsolved",
    }
}

words! {
    Satisfied {
        /// 满意
        Yes = "yes",
        /// 基本满意
        Mostly = "mostly",
        /// 不满意
        No = "no",
    }
}

words! {
    ClosedReason {
        Solved = "solved",
        Unsolved = "unsolved",
        Duplicate = "duplicate",
        NotOurs = "not-ours",
        /// 转紧急: passed on to 110, 119 or 120 at once; it is theirs.
        Emergency = "emergency",
        Refused = "refused",
        Withdrawn = "withdrawn",
    }
}

/// A clock of a case. The limits are those of its category at the node that started it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Clock {
    /// `response`, `dispatch`, `solution`, `climb`, `assist:ID`.
    pub name: String,
    /// As in config: `4wh`, `2wd`, `24h`.
    pub limit: String,
    #[serde(deserialize_with = "moment")]
    pub started: DateTime<Utc>,
    /// `None` while it is suspended.
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// What was left of it when it was suspended, in the time of its own kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_us: Option<i64>,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub stopped: Option<DateTime<Utc>>,
    /// Its limit passed while it ran; when that was seen.
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub missed: Option<DateTime<Utc>>,
}

/// The clock of a press that nobody has accepted.
pub const CLIMB: &str = "climb";

impl Clock {
    /// Is it a limit of the case itself? That nobody came to a press at once is none, and a unit that was
    /// summoned has its own.
    pub fn is_limit(&self) -> bool {
        self.name != CLIMB && !self.name.starts_with("assist:")
    }

    pub fn runs(&self) -> bool {
        self.stopped.is_none() && self.due.is_some()
    }

    /// Stopped in time.
    pub fn is_kept(&self) -> bool {
        matches!((self.stopped, self.due), (Some(stopped), Some(due)) if stopped <= due)
    }

    /// Over its limit: it ran past it, or runs past it now.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.due.is_some_and(|due| self.stopped.unwrap_or(now) > due)
    }
}

/// Where it is. WGS84.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Place {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lat: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lon: Option<f64>,
}

/// What the handler reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Outcome {
    pub by: String,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    pub solved: Solved,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// `photo-after=https://…`: references, not the things.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// What the verifier found on the spot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "CaseFinding"))]
pub struct Finding {
    pub by: String,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    pub passed: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// What the resident says. Without `solved` nobody could be asked, or nobody answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "CaseVerdict"))]
pub struct Verdict {
    pub by: String,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solved: Option<Solved>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub satisfied: Option<Satisfied>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// Something that needs a second person's word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Approved {
    pub by: String,
    pub approved_by: String,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    pub reason: String,
}

/// A unit that was summoned 吹哨; its clock is `assist:ID`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Assist {
    pub id: String,
    pub unit: String,
    /// The unit's node, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Address>,
    #[serde(deserialize_with = "moment")]
    pub asked: DateTime<Utc>,
    /// Who summoned it, and so rates it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    pub reason: String,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub reported: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reported_by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// 1 (bad) to 5 (good), by the one who summoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<u8>,
}

words! {
    /// What a seat of an activity is for.
    Seat {
        Visitor = "visitor",
        Volunteer = "volunteer",
    }
}

words! {
    Booked {
        /// The node that offers it has not answered yet.
        Asked = "asked",
        Booked = "booked",
        /// It was gone; the case is rejected.
        Refused = "refused",
    }
}

/// A requested service, and the appointment or the seats that go with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Booking {
    /// Whose service it is; it alone counts.
    pub node: Address,
    pub service: String,
    pub name: String,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    pub seat: Seat,
    pub seats: u32,
    /// Answers that are nobody's secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub form: BTreeMap<String, String>,
    pub state: Booked,
}

/// Where a case comes from that another system ran, or runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Imported {
    /// That system, as events' `source` names it.
    pub source: String,
    /// Its number there.
    pub id: String,
    /// When it was last changed there.
    #[serde(deserialize_with = "moment")]
    pub updated: DateTime<Utc>,
    /// The case's version since then; a higher one means that it is now dealt with here.
    pub version: u32,
}

/// A case as its newest known step left it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Case {
    pub id: String,
    /// How often it changed hands.
    pub term: u32,
    /// Steps so far; goes on across hands.
    pub version: u32,
    pub kind: Kind,
    pub status: Status,
    /// The one node that may step.
    pub owner: Address,
    /// A hand-over is under way: until this node has taken it nobody steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handing_to: Option<Address>,
    /// Where it came in.
    pub opened_at: Address,
    #[serde(deserialize_with = "moment")]
    pub opened: DateTime<Utc>,
    #[serde(deserialize_with = "moment")]
    pub changed: DateTime<Utc>,
    /// Id of the event that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
    /// Of an incident: a hash of what was pressed; the same button pressed again is the same incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub button: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub urgent: bool,
    /// The highest tier that holds a copy.
    pub reach: Tier,
    pub category: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub department: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governance: Option<String>,
    pub channel: String,
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Answers to its category's form that are nobody's secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub form: BTreeMap<String, String>,
    /// Pictures and the like: URLs, not the things.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<String>,
    /// There is somebody to call; the response then counts from the call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_contact: bool,
    /// That has come to the owner with the case, all that was known of it: whoever gave it away need not keep it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub contact_came: bool,
    /// Whom to call is to be forgotten, by every node that ever held it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgotten: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Those that dispatched it here, first to last: where a return goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dispatched_by: Vec<Address>,
    /// First dispatch; the rates' period.
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub dispatched: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_by: Option<String>,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub signed: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub contacted: Option<DateTime<Utc>>,
    /// Who has handled it: none of them may verify or close it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<String>,
    pub clocks: Vec<Clock>,
    /// A limit was missed, though its clock may have begun anew since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Approved>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended: Option<Approved>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<Approved>,
    /// The highest node that supervises it or was called for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalated_to: Option<Address>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assists: Vec<Assist>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suspensions: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub escalations: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub returns: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reworks: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reopened: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followers: Vec<String>,
    /// Of a case that asks for a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booking: Option<Booking>,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub closed: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_reason: Option<ClosedReason>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Case {
    /// What orders two accounts of one case: who held it later, then who stepped later.
    pub fn order(&self) -> (u32, u32) {
        (self.term, self.version)
    }

    /// The same as text: `1.7`.
    pub fn stamp(&self) -> String {
        format!("{}.{}", self.term, self.version)
    }

    pub fn clock(&self, name: &str) -> Option<&Clock> {
        self.clocks.iter().find(|c| c.name == name)
    }

    /// The node whose word it is or will be: the owner, or who it is on its way to.
    pub fn bound_for(&self) -> &Address {
        self.handing_to.as_ref().unwrap_or(&self.owner)
    }

    /// From opening to the end; never less than nothing, whatever another system's clock said.
    pub fn took(&self) -> Option<chrono::TimeDelta> {
        Some((self.closed? - self.opened).max(chrono::TimeDelta::zero()))
    }

    /// Does it follow another, here or in the system that it comes from? Only the other one counts.
    pub fn is_merged(&self) -> bool {
        let there = self.imported.is_some() && self.closed_reason == Some(ClosedReason::Duplicate);
        self.merged_into.is_some() || there
    }

    pub fn is_overdue(&self, now: DateTime<Utc>) -> bool {
        self.clocks.iter().any(|c| c.is_limit() && c.stopped.is_none() && c.is_over(now))
    }

    /// Has a limit ever been missed, be it over by now?
    pub fn was_late(&self) -> bool {
        let over = |c: &Clock| c.missed.is_some() || c.stopped.is_some_and(|s| c.is_over(s));
        self.late || self.clocks.iter().any(|c| c.is_limit() && over(c))
    }

    /// The next limit that will pass.
    pub fn due(&self) -> Option<(&Clock, DateTime<Utc>)> {
        let running = self.clocks.iter().filter(|c| c.runs() && c.is_limit());
        running.filter_map(|c| Some((c, c.due?))).min_by_key(|(_, due)| *due)
    }

    /// Does somebody above its owner supervise it 督办, or was called for it?
    pub fn is_watched(&self) -> bool {
        self.escalated_to.as_ref().is_some_and(|top| *top != self.owner && top.covers(&self.owner))
    }

    /// Status and what stands beside it, for people.
    pub fn standing(&self) -> String {
        let mut text = self.status.to_string();
        let mut beside = Vec::new();
        if let Some(to) = &self.handing_to {
            beside.push(format!("on its way to {to}"));
        }
        if self.suspended.is_some() {
            beside.push("suspended".into());
        }
        if self.status.is_open() && self.is_watched() {
            beside.push("escalated".into());
        }
        if let Some(reason) = self.closed_reason.filter(|_| self.status == Status::Closed) {
            beside.push(reason.to_string());
        }
        if !beside.is_empty() {
            text = format!("{text} ({})", beside.join(", "));
        }
        text
    }
}

/// What others call it that a case stands where it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Words {
    /// Of the seven steps of digital urban management (GB/T 30428), 1 to 7; 0: it left that way.
    pub step: u8,
    /// Its name there: 任务处理.
    pub urban: String,
    /// The hotline's (12345): 办理.
    pub hotline: String,
    /// Open311's status: `open` or `closed`.
    pub open311: String,
    /// mySociety's: `in_progress`.
    pub update: String,
}

impl Case {
    /// Where it stands, in the words of those who work by other standards.
    pub fn words(&self) -> Words {
        let (step, urban, hotline, update) = match self.status {
            Status::Submitted => (1, "信息收集", "受理", "open"),
            Status::Accepted if self.reopened > 0 => (2, "案卷建立", "重办", "reopen"),
            Status::Accepted if self.returns > 0 => (2, "案卷建立", "退单", "for_triage"),
            Status::Accepted if self.is_watched() => (2, "案卷建立", "督办", "internal_referral"),
            Status::Accepted => (2, "案卷建立", "登记", "investigating"),
            Status::Dispatched if self.is_watched() => (3, "任务派遣", "督办", "internal_referral"),
            Status::Dispatched => (3, "任务派遣", "派单", "in_progress"),
            Status::Handling if self.suspended.is_some() => (4, "任务处理", "挂账", "planned"),
            Status::Handling if self.finding.as_ref().is_some_and(|f| !f.passed) => (4, "任务处理", "重办", "reopen"),
            // Above they watch, and here it is being done: the resident hears the latter.
            Status::Handling if self.is_watched() => (4, "任务处理", "督办", "in_progress"),
            Status::Handling => (4, "任务处理", "办理", "in_progress"),
            Status::Resolved => (5, "处理反馈", "答复", "fixed"),
            Status::Evaluated => (6, "核实结案", "回访", "fixed"),
            Status::Closed => (7, "综合评价", "办结", self.closed_word()),
            Status::Rejected if self.closed_reason == Some(ClosedReason::Emergency) => {
                (0, "不予立案", "转紧急", "not_councils_responsibility")
            }
            Status::Rejected => (0, "不予立案", "不予受理", "not_councils_responsibility"),
            Status::Withdrawn => (0, "作废", "撤单", "cancelled"),
        };
        let open311 = if self.status.is_open() { "open" } else { "closed" };
        let own = str::to_owned;
        Words { step, urban: own(urban), hotline: own(hotline), open311: own(open311), update: own(update) }
    }

    /// mySociety's word for why it was closed.
    pub fn closed_word(&self) -> &'static str {
        match self.closed_reason {
            Some(ClosedReason::Solved) => "fixed",
            Some(ClosedReason::Duplicate) => "duplicate",
            Some(ClosedReason::NotOurs | ClosedReason::Emergency) => "not_councils_responsibility",
            Some(ClosedReason::Withdrawn) => "cancelled",
            Some(ClosedReason::Unsolved | ClosedReason::Refused) => "no_further_action",
            // It was reopened since.
            None => "closed",
        }
    }
}

/// One line of a case's history: what was done, by whom, when, where, and to which clocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "CaseEntry"))]
pub struct Entry {
    pub term: u32,
    pub version: u32,
    /// `submitted`, `accepted`, `handed-over`, …: the last part of the record's type.
    pub step: String,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    /// The owner that wrote it.
    pub node: Address,
    /// Where it was asked for, if elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
    /// A person, or `timer`, `event`.
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// To whom: a node or a unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// `solution started, due 2026-…`, `response stopped`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clocks: Vec<String>,
    /// Nodes whose responders are to be called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Address>,
    /// What shows it, `NAME=URL`; that of a solution stands in its [`Outcome`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// What somebody asks for. Which fields a verb needs, its refusal says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "CaseAsk"))]
#[serde(default, deny_unknown_fields)]
pub struct Ask {
    pub by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// A reason, a result, a comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A node to dispatch or hand to, or one to summon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub contacted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solved: Option<Solved>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub satisfied: Option<Satisfied>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// `2wd`: of an extension, or of a summons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Which summons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assist: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating: Option<u8>,
    /// The case that this one follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<ClosedReason>,
    /// An escalation that also hands the case over.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hand_over: bool,
    /// The case as whoever asks has seen it, `TERM.VERSION`, or any of several: if it stands otherwise
    /// when it is to be stepped, nothing is done. `If-Match` says the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<String>,
}

/// How the person who reported can be reached; stays at the node that needs it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Contact {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Answers of a service's form that are personal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, String>,
}

impl Contact {
    pub fn is_empty(&self) -> bool {
        *self == Contact::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appeals_presses_and_urgent_events_that_say_so_open_cases() {
        for kind in ["city.appeal", "city.sos", "city.sos.pressed.v1"] {
            assert!(opens_case(kind, false, b"{}"), "{kind}");
        }
        for kind in ["city.sosx", "city.appeal.heating.v1", "city.brain.x"] {
            assert!(!opens_case(kind, true, b"{}"), "{kind}");
        }
        for (yes, says) in [(true, "true"), (true, "1"), (false, "false"), (false, "0"), (false, "\"yes\"")] {
            let payload = format!("{{\"data\":{{\"sos\":{says}}}}}");
            assert_eq!(opens_case("acme.button", true, payload.as_bytes()), yes, "{says}");
            assert!(!opens_case("acme.button", false, payload.as_bytes()), "not urgent");
        }
        assert!(is_letter("city.brain.case.letter") && !is_letter("city.brain.case.call"));
        assert!(!opens_case("city.brain.case.letter", true, b"{\"data\":{\"sos\":true}}"));
    }

    #[test]
    fn words_are_the_same_in_json_and_on_the_command_line() {
        for verb in Verb::ALL {
            let json = serde_json::to_string(verb).unwrap();
            assert_eq!(json, format!("\"{verb}\""));
            assert_eq!(verb.as_str().parse::<Verb>().unwrap(), *verb);
        }
        assert_eq!("satisfied".parse::<Satisfied>().unwrap_err(), "`satisfied` is none of yes, mostly, no");
    }
}
