//! The words of a case: what it is, where it stands, what may be done with it and by whom.

use serde::{Deserialize, Serialize};
use std::fmt;

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

    /// The step of a history in which it was done.
    pub fn done(self) -> &'static str {
        match self {
            Verb::Accept => "accepted",
            Verb::Reject => "rejected",
            Verb::Dispatch => "dispatched",
            Verb::Start => "started",
            Verb::Contact => "contacted",
            Verb::Resolve => "resolved",
            Verb::Verify => "verified",
            Verb::Evaluate => "evaluated",
            Verb::Close => "closed",
            Verb::Return => "returned",
            Verb::Suspend => "suspended",
            Verb::Resume => "resumed",
            Verb::Extend => "extended",
            Verb::Assist => "assist",
            Verb::Report => "reported",
            Verb::Rate => "rated",
            Verb::Escalate => "escalated",
            Verb::Reopen => "reopened",
            Verb::Withdraw => "withdrawn",
            Verb::Merge => "merged",
            Verb::Comment => "comment",
            Verb::Forget => "forgotten",
            Verb::Exclude => "excluded",
            Verb::Recall => "recalled",
        }
    }

    /// What was done in that step; `None`: it is one of [`step`], or of a later version.
    pub fn of_done(step: &str) -> Option<Verb> {
        Verb::ALL.iter().copied().find(|verb| verb.done() == step)
    }
}

/// The steps of a history for which nobody asks by a [`Verb`].
pub mod step {
    /// The first line of a history.
    pub const SUBMITTED: &str = "submitted";
    /// Another system told of it.
    pub const IMPORTED: &str = "imported";
    /// Whoever it was handed to has it.
    pub const TAKEN: &str = "taken";
    /// A hand-over came to nothing.
    pub const CAME_BACK: &str = "came-back";
    /// The box that had it has lost its disk.
    pub const RECOVERED: &str = "recovered";
    /// A hand-over of that box is under way once more.
    pub const SENT_AGAIN: &str = "sent-again";
    /// What it is about is known now where it was not when it was opened, or nobody knows it.
    pub const CATEGORISED: &str = "categorised";
    /// What was asked for is given.
    pub const BOOKED: &str = "booked";
    /// What it has seats of is at another time or place.
    pub const RESCHEDULED: &str = "rescheduled";
    /// What it has seats of is no longer offered.
    pub const CANCELLED: &str = "cancelled";
    /// A limit has passed, and nobody above is called.
    pub const MISSED: &str = "missed";
    /// It goes to the owner of another, to be merged into that one.
    pub const MERGING: &str = "merging";
    /// That one could not take it.
    pub const NOT_MERGED: &str = "not-merged";
    /// Another was merged into it.
    pub const JOINED: &str = "joined";
    /// The case that it follows has ended, or is open again.
    pub const FOLLOWED: &str = "followed";
    /// It is a case of its own again.
    pub const UNMERGED: &str = "unmerged";
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
        /// The node that has given it offers it no longer. It is kept, in case it is offered again.
        Cancelled = "cancelled",
        /// The case was withdrawn or rejected; others may have it.
        GivenBack = "given-back",
    }
}

impl Booked {
    /// May nobody else have it?
    pub fn has_seat(self) -> bool {
        matches!(self, Booked::Booked | Booked::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_in_json_and_on_the_command_line() {
        for verb in Verb::ALL {
            let json = serde_json::to_string(verb).unwrap();
            assert_eq!(json, format!("\"{verb}\""));
            assert_eq!(verb.as_str().parse::<Verb>().unwrap(), *verb);
            assert_eq!(Verb::of_done(verb.done()), Some(*verb), "each is done in a step of its own");
        }
        assert_eq!("satisfied".parse::<Satisfied>().unwrap_err(), "`satisfied` is none of yes, mostly, no");
    }
}
