//! What others call it: digital urban management (GB/T 30428), the 12345 hotline, Open311 and mySociety.

use super::{Case, ClosedReason, Solved, Status};
use serde::{Deserialize, Serialize};

/// What others call it that a case stands where it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Words {
    /// Of the seven steps of digital urban management (GB/T 30428), 1 to 7; 0: it left that way.
    pub step: u8,
    /// Its name there: 任务处理; and what is the matter with it: 任务处理（返工）.
    pub urban: String,
    /// The hotline's (12345): 办理.
    pub hotline: String,
    /// Open311's status: `open` or `closed`. Left out of what is never shown there: incidents and appointments.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub open311: String,
    /// mySociety's: `in_progress`. Left out as that is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub update: String,
}

impl Case {
    /// Where it stands, in the words of those who work by other standards.
    pub fn words(&self) -> Words {
        // Watched from above, or even offered to those there.
        let watched = if self.offered_to.is_some() { "提级" } else { "督办" };
        let (step, urban, hotline, update) = match self.status {
            Status::Submitted if self.is_watched() => (1, "信息收集（督办）", watched, "internal_referral"),
            Status::Submitted => (1, "信息收集", "受理", "open"),
            Status::Accepted if self.reopened > 0 => (2, "案卷建立", "重办", "reopen"),
            Status::Accepted if self.returns > 0 => (2, "案卷建立（退回）", "退单", "for_triage"),
            Status::Accepted if self.is_watched() => (2, "案卷建立（督办）", watched, "internal_referral"),
            Status::Accepted => (2, "案卷建立", "登记", "investigating"),
            Status::Dispatched if self.suspended.is_some() => (3, "任务派遣（挂账）", "挂账", "planned"),
            Status::Dispatched if self.is_watched() => (3, "任务派遣（督办）", watched, "internal_referral"),
            Status::Dispatched => (3, "任务派遣", "派单", "in_progress"),
            Status::Handling if self.suspended.is_some() => (4, "任务处理（挂账）", "挂账", "planned"),
            Status::Handling if self.finding.as_ref().is_some_and(|f| !f.passed) => {
                (4, "任务处理（返工）", "重办", "reopen")
            }
            // Above they watch, and here it is being done: the resident hears the latter.
            Status::Handling if self.is_watched() => (4, "任务处理（督办）", watched, "in_progress"),
            Status::Handling if self.is_helped() => (4, "任务处理", "办理（协办）", "in_progress"),
            Status::Handling => (4, "任务处理", "办理", "in_progress"),
            Status::Resolved if self.finding.as_ref().is_some_and(|f| f.passed) => {
                (6, "核实结案", "答复", self.done_word())
            }
            Status::Resolved => (5, "处理反馈", "答复", self.done_word()),
            Status::Evaluated => (6, "核实结案", "回访", self.done_word()),
            Status::Closed => (7, "综合评价", "办结", self.ended_word()),
            Status::Rejected => {
                let is_emergency = self.closed_reason == Some(ClosedReason::Emergency);
                (0, "不予立案", if is_emergency { "转紧急" } else { "不予受理" }, self.ended_word())
            }
            Status::Withdrawn => (0, "作废", "撤单", "cancelled"),
        };
        let (open311, update) = match self.is_public() {
            true => (if self.status.is_open() { "open" } else { "closed" }, update),
            false => ("", ""),
        };
        let own = str::to_owned;
        Words { step, urban: own(urban), hotline: own(hotline), open311: own(open311), update: own(update) }
    }

    /// mySociety's word for one that is answered and not closed yet.
    fn done_word(&self) -> &'static str {
        if self.is_fixed() { "fixed" } else { "in_progress" }
    }

    /// mySociety's word for one that has ended.
    fn ended_word(&self) -> &'static str {
        let said = (self.handlers_solved(), self.residents_solved());
        self.closed_reason.map_or("closed", |reason| closed_word(reason, said.0, said.1))
    }

    fn is_fixed(&self) -> bool {
        is_fixed(self.handlers_solved(), self.residents_solved())
    }

    fn handlers_solved(&self) -> Option<Solved> {
        self.outcome.as_ref().map(|o| o.solved)
    }

    fn residents_solved(&self) -> Option<Solved> {
        self.verdicts().find(|v| v.is_residents).and_then(|v| v.solved)
    }

    /// Is a summoned unit still to report?
    fn is_helped(&self) -> bool {
        self.assists.iter().any(|a| a.reported.is_none())
    }
}

/// Is it fixed, by those who know? The resident's word counts before the handler's; what somebody else notes is
/// neither. Where nobody has said anything (in another system's case) nobody says otherwise.
fn is_fixed(handlers: Option<Solved>, residents: Option<Solved>) -> bool {
    residents.or(handlers).is_none_or(|said| said == Solved::Solved)
}

/// mySociety's word for why a case was closed or rejected, by what handler and resident have said of the last answer;
/// `fixed` is for what was closed as solved and is.
pub fn closed_word(reason: ClosedReason, handlers: Option<Solved>, residents: Option<Solved>) -> &'static str {
    match reason {
        ClosedReason::Solved if is_fixed(handlers, residents) => "fixed",
        // Whoever closed it believed no handler; the resident knows better than both.
        ClosedReason::Unsolved if residents == Some(Solved::Solved) => "fixed",
        ClosedReason::Duplicate => "duplicate",
        ClosedReason::NotOurs | ClosedReason::Emergency => "not_councils_responsibility",
        ClosedReason::Withdrawn => "cancelled",
        ClosedReason::Solved | ClosedReason::Unsolved | ClosedReason::Refused => "no_further_action",
    }
}
