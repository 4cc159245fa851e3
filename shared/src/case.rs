//! A case 诉求/工单: a matter that somebody must deal with, as it lies in records, rows and answers.
//!
//! What the handler reports ([`Outcome`]), what the verifier finds ([`Finding`]) and what the resident
//! says ([`Verdict`]) are three facts, and stand apart. Nothing here names a person who reported:
//! names and telephone numbers stay at the node that needs them.
//!
//! | module | what it says |
//! |---|---|
//! | here | the case itself, a line of its history, and what somebody may ask of it |
//! | `vocabulary` | what it is, where it stands, what may be done with it, in one word each |
//! | `facts` | its clocks, its place, and who said what of it |
//! | `opening` | which events open one, and who may hear of them outside of the tree |
//! | `standards` | what others call it that a case stands where it does |

mod facts;
mod opening;
mod standards;
mod vocabulary;

pub use facts::*;
pub use opening::*;
pub use standards::*;
pub use vocabulary::*;

use crate::{Address, Tier};
use chrono::{DateTime, Utc};
use facts::{moment, some_moment};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

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
    /// The node below that it was filed for there, wherever it has gone since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filed_for: Option<Address>,
    #[serde(deserialize_with = "moment")]
    pub opened: DateTime<Utc>,
    #[serde(deserialize_with = "moment")]
    pub changed: DateTime<Utc>,
    /// Id of the event that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Id of the alarm that it was opened beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
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
    /// Its category was not known yet where it was opened, as the parent had not been heard there: what that asks is
    /// still to come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub category_awaited: bool,
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
    /// Of an incident: where it was said to be last, if elsewhere than at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place_again: Option<Place>,
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
    /// The node with whose disk it was lost: nobody knows it any more, but those above whom the category names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_lost: Option<Address>,
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
    /// Where it was accepted: who comes is there, wherever the case goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_from: Option<Address>,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub signed: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub contacted: Option<DateTime<Utc>>,
    /// Of a call for help that calls again: when it was answered the first time. Only that is in the rates.
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub responded_before: Option<DateTime<Utc>>,
    /// Who has handled it: none of them may verify or close it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<String>,
    /// What its category asks of whoever deals with it. Fixed by the first of its owners that knew that category;
    /// `None`: none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    pub clocks: Vec<Clock>,
    /// A limit was missed, though its clock may have begun anew since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// What was said last in this round, by a resident or by somebody who notes it for him.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What the other of the two has said in this round; both count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_verdict: Option<Verdict>,
    /// What residents said of it in rounds that are over: a check that failed and a reopening begin another.
    #[serde(default, skip_serializing_if = "Tally::is_empty")]
    pub judged_before: Tally,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Approved>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended: Option<Approved>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<Approved>,
    /// A limit was missed, or somebody asked for it: this node takes the case (提级) as soon as it has heard of
    /// it. Until then its owner works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_to: Option<Address>,
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
    /// On its way to the owner of that one, to be merged into it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merging: Option<String>,
    /// How the case ended that this one follows, as its history last said; `None`: that one is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_ended: Option<Ending>,
    /// Those that were merged into this one itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followers: Vec<String>,
    /// Of a case that asks for a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booking: Option<Booking>,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub closed: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_reason: Option<ClosedReason>,
    /// Of a closed one: until when it may be reopened, by what its owner allowed when it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopen_until: Option<DateTime<Utc>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Case {
    /// Is there somebody to call, and does some node still know whom?
    pub fn knows_contact(&self) -> bool {
        self.has_contact && self.contact_lost.is_none()
    }

    /// What orders two accounts of one case: who held it later, then who stepped later.
    pub fn order(&self) -> (u32, u32) {
        (self.term, self.version)
    }

    /// Is this the newer account? A box of which a backup was put back may have written another step under an order
    /// that it had used before: then that which was written later counts, at every node the same.
    pub fn supersedes(&self, other: &Case) -> bool {
        let text = |case: &Case| serde_json::to_string(case).unwrap_or_default();
        match (self.order(), self.changed).cmp(&(other.order(), other.changed)) {
            Ordering::Equal => self != other && text(self) > text(other),
            order => order.is_gt(),
        }
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

    /// Has that node to do with it: as its owner or above it, as one on its way to which it is, that is summoned to it, or
    /// where it was opened? What becomes of it any other hears when it is closed, and cannot say that it is late.
    pub fn concerns(&self, node: &Address) -> bool {
        let awaits = |a: &Assist| a.reported.is_none() && a.node.as_ref() == Some(node);
        node.covers(&self.owner)
            || node.covers(self.bound_for())
            || *node == self.opened_at
            || self.assists.iter().any(awaits)
    }

    /// What a resident says of this round and what others have noted, the newest first.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.verdict.iter().chain(&self.other_verdict)
    }

    /// Was it the end of the case that stopped the clock until the resident is called back, and no word of his? What
    /// he says later was not asked for in time.
    pub fn ended_uncalled(&self) -> bool {
        let stopped = self.clock(CALL_BACK).and_then(|c| c.stopped);
        stopped.is_some_and(|at| self.closed == Some(at) && self.verdicts().all(|v| v.at > at))
    }

    /// Whether it was solved, as it was said last; `None`: nobody has said so in this round.
    pub fn said_solved(&self) -> Option<Solved> {
        self.verdicts().find_map(|v| v.solved)
    }

    pub fn said_satisfied(&self) -> Option<Satisfied> {
        self.verdicts().find_map(|v| v.satisfied)
    }

    /// All that counts of what was said, in this round and before it.
    pub fn judged(&self) -> Tally {
        let mut tally = self.judged_before;
        tally.add(self.verdict.as_ref(), self.other_verdict.as_ref());
        tally
    }

    /// May anybody see it? Somebody's emergency, or appointment, is nobody else's business.
    pub fn is_public(&self) -> bool {
        self.kind != Kind::Incident && self.booking.is_none()
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

    /// Is it in no rate, by a step of its own or as its category says?
    pub fn is_excluded(&self) -> bool {
        self.excluded.is_some() || self.terms.as_ref().is_some_and(|terms| terms.excluded)
    }

    pub fn is_overdue(&self, now: DateTime<Utc>) -> bool {
        self.clocks.iter().any(|c| c.is_limit() && c.stopped.is_none() && c.is_over(now))
    }

    /// Has a limit ever been missed, be it over by now?
    pub fn was_late(&self) -> bool {
        let over = |c: &Clock| c.missed.is_some() || c.stopped.is_some_and(|s| c.is_over(s));
        self.late || self.clocks.iter().any(|c| c.is_limit() && over(c))
    }

    /// When somebody had signed for it and, if there is anybody to call, had called: the response. That its
    /// clock has stopped says less, as the end of a case stops all of them.
    pub fn responded(&self) -> Option<DateTime<Utc>> {
        match (self.signed, self.contacted) {
            (Some(signed), Some(contacted)) => Some(signed.max(contacted)),
            (signed, None) => signed.filter(|_| !self.has_contact),
            (None, Some(_)) => None,
        }
    }

    /// The response that counts, however often it has called for help since.
    pub fn first_responded(&self) -> Option<DateTime<Utc>> {
        self.responded_before.or_else(|| self.responded())
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

    /// The unit that handles it, or did. Open again, it has none before it is dispatched: the last one has nothing
    /// to do with it any more.
    pub fn unit_at_work(&self) -> Option<&str> {
        let waits = matches!(self.status, Status::Submitted | Status::Accepted);
        Some(self.unit.as_str()).filter(|unit| !waits && !unit.is_empty())
    }

    /// Status and what stands beside it, for people.
    pub fn standing(&self) -> String {
        let mut text = self.status.to_string();
        let mut beside = Vec::new();
        if let Some(to) = &self.handing_to {
            let why = self.merging.as_ref().map_or(String::new(), |main| format!(", to be merged into {main}"));
            beside.push(format!("on its way to {to}{why}"));
        }
        if self.suspended.is_some() {
            beside.push("suspended".into());
        }
        if let Some(to) = &self.offered_to {
            beside.push(format!("offered to {to}"));
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
    /// Of what was said at another node, or under a name of its own: the id of that wish, by which whoever said it
    /// knows it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<String>,
    /// A person, or `timer`, `event`.
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Where it is said to be, if that is news.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
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
    /// With a comment: where it is, if elsewhere than was said before. Of a call for help, responders are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
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
    /// Which summons, by its id or its unit; where only one can be meant it need not be said.
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
