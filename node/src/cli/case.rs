//! `citybrain case`

use super::asking::Wait;
use super::confirm::Yes;
use super::whom::{self, Coordinates, Whom};
use super::{At, Direct, Fail, Output};
use crate::ask::hint::as_flags;
use citybrain_shared::Address;
use citybrain_shared::case::{Ask, Case as View, ClosedReason, Kind, Role, Satisfied, Solved, Verb};
use citybrain_shared::event::GOVERNANCE;
use citybrain_shared::view::{self, segment};
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{ArgGroup, Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Case {
    /// Open a case
    New(Box<New>),
    /// Cases that this node knows, newest first
    List(List),
    /// One, with its history, its clocks, what it takes now, and (for workers, supervisors and operators) whom to call
    Show {
        #[command(flatten)]
        id: Id,
        #[command(flatten)]
        at: At,
    },
    /// 立案, 登记: it is a matter for us; of a press: somebody is coming
    Accept {
        #[command(flatten)]
        step: Step,
        /// The resident was called
        #[arg(long)]
        contacted: bool,
    },
    /// 不予受理: it is no matter for us; closed, and whoever asked is told why
    Reject {
        #[command(flatten)]
        step: Step,
        /// not-ours (default), refused, emergency 转紧急 (110, 119 or 120 has it)
        #[arg(long)]
        closed_reason: Option<ClosedReason>,
    },
    /// 派单: to a unit here, or to another node; again: a transfer
    Dispatch {
        #[command(flatten)]
        step: Step,
        /// The node that handles it
        #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
        to: Option<Address>,
        /// The unit that handles it
        #[arg(long)]
        unit: Option<String>,
    },
    /// 签收: work begins
    Start {
        #[command(flatten)]
        step: Step,
        /// The resident was called
        #[arg(long)]
        contacted: bool,
    },
    /// The resident was called
    Contact(Step),
    /// 处理反馈: what was done
    Resolve {
        #[command(flatten)]
        step: Step,
        /// solved (default), partly, unsolved
        #[arg(long)]
        outcome: Option<Solved>,
        #[command(flatten)]
        evidence: Evidence,
    },
    /// 核查: what a check on the spot found
    #[command(group = ArgGroup::new("finding").args(["passed", "failed"]).required(true))]
    Verify {
        #[command(flatten)]
        step: Step,
        /// The check passed
        #[arg(long)]
        passed: bool,
        /// It did not: back to work
        #[arg(long)]
        failed: bool,
        #[command(flatten)]
        evidence: Evidence,
    },
    /// 回访, 评价: what the resident says; also after it was closed
    Evaluate {
        #[command(flatten)]
        step: Step,
        /// solved, partly, unsolved; left out: nobody answered
        #[arg(long)]
        solved: Option<Solved>,
        /// yes, mostly, no
        #[arg(long)]
        satisfied: Option<Satisfied>,
    },
    /// 结案; not by whoever handled it
    Close {
        #[command(flatten)]
        step: Step,
        /// solved, unsolved, not-ours, refused [default: by what the resident said]
        #[arg(long)]
        closed_reason: Option<ClosedReason>,
    },
    /// 退单: not mine; back to whoever dispatched it
    Return(Step),
    /// 挂账: it must wait; once, and with a second person's word
    Suspend {
        #[command(flatten)]
        step: Step,
        /// Who approved it: somebody else than who asks
        #[arg(long, value_name = "NAME")]
        approved_by: Option<String>,
    },
    /// The wait is over
    Resume(Step),
    /// 延期: more time; once, and with a second person's word
    Extend {
        #[command(flatten)]
        step: Step,
        /// How much: `2wd`, `4wh`, `24h`
        #[arg(long)]
        limit: Option<String>,
        /// Who approved it: somebody else than who asks
        #[arg(long, value_name = "NAME")]
        approved_by: Option<String>,
    },
    /// 吹哨: summon a unit, with a clock of its own
    Assist {
        #[command(flatten)]
        step: Step,
        /// The unit that is summoned
        #[arg(long)]
        unit: Option<String>,
        /// The unit's node: its responders are called
        #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
        to: Option<Address>,
        /// By when it must report: `2h`, `4wh`
        #[arg(long)]
        limit: Option<String>,
    },
    /// 报到: a summoned unit is done
    Report {
        #[command(flatten)]
        step: Step,
        /// Which summons, by its id or its unit, if several can be meant
        #[arg(long, value_name = "ID")]
        assist: Option<String>,
        #[command(flatten)]
        evidence: Evidence,
    },
    /// Rate a summoned unit
    Rate {
        #[command(flatten)]
        step: Step,
        /// Which summons, by its id or its unit, if several can be meant
        #[arg(long, value_name = "ID")]
        assist: Option<String>,
        /// 1 (bad) to 5 (good)
        #[arg(long)]
        rating: Option<u8>,
    },
    /// 督办: the tier above watches; 提级 with --hand-over: the case is offered to it. Of a press that you have
    /// accepted: you cannot come
    Escalate {
        #[command(flatten)]
        step: Step,
        /// The tier above takes the case when it hears of it; until then its owner works on
        #[arg(long)]
        hand_over: bool,
    },
    /// A closed case was not solved after all; a call for help calls again
    Reopen(Step),
    /// 撤单: the resident no longer wants it
    Withdraw(Step),
    /// 并案: it is about the same as another, and follows that
    Merge {
        #[command(flatten)]
        step: Step,
        /// The case that it follows from now on
        #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        into: Option<String>,
    },
    /// Say something, and refer to what shows it
    Comment {
        #[command(flatten)]
        step: Step,
        #[command(flatten)]
        evidence: Evidence,
    },
    /// 收回: asks for a case back that is on its way to another node and that nobody has begun there; one that is
    /// offered to the tier above stays
    Recall(Step),
    /// 剔除: not counted in the rates, with a second person's word
    Exclude {
        #[command(flatten)]
        step: Step,
        /// Who approved it: somebody else than who asks
        #[arg(long, value_name = "NAME")]
        approved_by: Option<String>,
    },
    /// Remove names and telephone numbers from every node that has them; the history stays
    Forget {
        #[command(flatten)]
        step: Step,
        #[command(flatten)]
        yes: Yes,
    },
    /// How many there are of each status, category, department, …, and how long they took
    Stats(super::supervision::Stats),
    /// Bring cases that another system ran, from a CSV or NDJSON file, each to the node that it belongs to
    Import(crate::bring::Import),
    /// All cases, as CSV (or, with --json, one object a line)
    Export {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Args)]
pub struct Id {
    /// The case's id, or enough of it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Evidence {
    /// What shows it: `photo-after=https://…`, a URL, or what it is called where it is kept; may be repeated
    #[arg(long, visible_alias = "media", value_name = "[NAME=]URL")]
    evidence: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Step {
    #[command(flatten)]
    pub id: Id,
    /// Who does it [default: the user of this shell]
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    pub by: String,
    /// As what: resident, worker, supervisor [default: what the token is; an operator's: whoever may, the resident if it is his name]
    #[arg(long)]
    pub role: Option<Role>,
    /// A reason, a result, a comment
    #[arg(long, visible_aliases = ["reason", "result", "note"])]
    pub text: Option<String>,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub at: Direct,
}

#[derive(Debug, Args)]
pub struct New {
    /// Code or name, as in the node's `[[category]]`
    #[arg(long, default_value = "", hide_default_value = true)]
    pub category: String,
    /// What it is about, in a few words
    #[arg(long, default_value = "", hide_default_value = true)]
    pub title: String,
    /// All that there is to say of it
    #[arg(long, default_value = "", hide_default_value = true)]
    pub description: String,
    /// Where, in words
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub location: String,
    #[command(flatten)]
    pub coordinates: Coordinates,
    /// appeal, service, incident [default: the category's]
    #[arg(long)]
    pub kind: Option<Kind>,
    /// 一键求助: at once to everybody who can help
    #[arg(long)]
    pub sos: bool,
    /// What it is governed by [default: the category's]
    #[arg(long, value_parser = PossibleValuesParser::new(GOVERNANCE))]
    pub governance: Option<String>,
    /// An answer to what the category asks; several choices with commas between them; may be repeated
    #[arg(long, value_name = "NAME=ANSWER", value_parser = super::variable)]
    pub form: Vec<(String, String)>,
    /// A picture of it; may be repeated
    #[arg(long, value_name = "URL")]
    pub media: Vec<String>,
    /// How it came in: `12345`, `counter`, `app`
    #[arg(long, default_value = "cli")]
    pub channel: String,
    #[command(flatten)]
    pub whom: Whom,
    /// Yours: asked twice with the same one, it opens one case
    #[arg(long)]
    pub key: Option<String>,
    /// Who opens it [default: the user of this shell]; with a number and no `--name`, whom to call
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    pub by: String,
    /// As what: `worker` opens it for somebody whose name is not known
    #[arg(long)]
    pub role: Option<Role>,
    #[command(flatten)]
    pub at: Direct,
}

#[derive(Debug, Args)]
pub struct Which {
    /// A status, `open` or `all`
    #[arg(long, default_value = "all")]
    pub status: String,
    /// Code or name
    #[arg(long)]
    pub category: Option<String>,
    /// appeal, service, incident
    #[arg(long)]
    pub kind: Option<Kind>,
    /// Owned by this node or one below it
    #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
    pub owner: Option<Address>,
    /// Owned by the node itself: what it has to do
    #[arg(long)]
    pub mine: bool,
    /// Open, and past a limit
    #[arg(long)]
    pub overdue: bool,
    /// Closed once, and open again or closed again
    #[arg(long)]
    pub reopened: bool,
    /// Suspended 挂账: its clock stands still until somebody resumes it, if it had not run out before
    #[arg(long)]
    pub suspended: bool,
    /// Open, and escalated: somebody above its owner supervises it 督办
    #[arg(long)]
    pub escalated: bool,
    /// Only urgent ones
    #[arg(long)]
    pub urgent: bool,
    /// Of others, with a summons 吹哨 to this node that has no report yet: what it has to help with
    #[arg(long, conflicts_with = "mine")]
    pub summoned: bool,
    /// Handled by this unit, or waiting for its report
    #[arg(long)]
    pub unit: Option<String>,
    /// Of this department's categories
    #[arg(long)]
    pub department: Option<String>,
    /// That ask for this service, by code or name, the earliest appointment first: when, seats, and whom to call
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// Whose service, if nodes below or above have another of that code [default: the nearest here or above]
    #[arg(long, value_name = "NODE", requires = "service")]
    pub of: Option<Address>,
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub which: Which,
    /// At most this many, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Go on behind this id
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    #[command(flatten)]
    pub at: At,
}

impl Which {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![("status", self.status.clone())];
        query.extend(self.category.clone().map(|c| ("category", c)));
        query.extend(self.kind.map(|k| ("kind", k.to_string())));
        query.extend(self.owner.as_ref().map(|o| ("owner", o.to_string())));
        query.extend(self.unit.clone().map(|u| ("unit", u)));
        query.extend(self.department.clone().map(|d| ("department", d)));
        query.extend(self.service.clone().map(|s| ("service", s)));
        query.extend(self.of.as_ref().map(|of| ("of", of.to_string())));
        let flags = [
            ("mine", self.mine),
            ("overdue", self.overdue),
            ("reopened", self.reopened),
            ("suspended", self.suspended),
            ("escalated", self.escalated),
            ("urgent", self.urgent),
            ("summoned", self.summoned),
        ];
        query.extend(flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true".to_owned())));
        query
    }
}

impl Case {
    pub fn act(self) -> Result<Output, Fail> {
        let none = Ask::default;
        match self {
            Case::New(new) => new.act(),
            Case::List(l) => {
                let mut query = l.which.query();
                query.push(("limit", l.limit.to_string()));
                let shown = match &l.which {
                    Which { service: Some(_), .. } => Output::Bookings,
                    Which { summoned: true, .. } => Output::Summoned,
                    _ => Output::Cases,
                };
                query.extend(l.after.map(|a| ("after", a)));
                l.at.ask("/v1/cases", &query, shown)
            }
            Case::Show { id, at } => {
                at.ask(&format!("/v1/cases/{}", segment(&id.id)), &[], |a| Output::Case(Box::new(a)))
            }
            Case::Accept { step, contacted } => step.send(Verb::Accept, Ask { contacted, ..none() }),
            Case::Reject { step, closed_reason } => step.send(Verb::Reject, Ask { reason: closed_reason, ..none() }),
            Case::Dispatch { step, to, unit } => step.send(Verb::Dispatch, Ask { to, unit, ..none() }),
            Case::Start { step, contacted } => step.send(Verb::Start, Ask { contacted, ..none() }),
            Case::Contact(step) => step.send(Verb::Contact, none()),
            Case::Resolve { step, outcome, evidence } => {
                step.send(Verb::Resolve, Ask { solved: outcome, evidence: evidence.evidence, ..none() })
            }
            Case::Verify { step, passed, evidence, .. } => {
                step.send(Verb::Verify, Ask { passed: Some(passed), evidence: evidence.evidence, ..none() })
            }
            Case::Evaluate { step, solved, satisfied } => {
                step.send(Verb::Evaluate, Ask { solved, satisfied, ..none() })
            }
            Case::Close { step, closed_reason } => step.send(Verb::Close, Ask { reason: closed_reason, ..none() }),
            Case::Return(step) => step.send(Verb::Return, none()),
            Case::Suspend { step, approved_by } => step.send(Verb::Suspend, Ask { approved_by, ..none() }),
            Case::Resume(step) => step.send(Verb::Resume, none()),
            Case::Extend { step, limit, approved_by } => step.send(Verb::Extend, Ask { limit, approved_by, ..none() }),
            Case::Assist { step, unit, to, limit } => step.send(Verb::Assist, Ask { unit, to, limit, ..none() }),
            Case::Report { step, assist, evidence } => {
                step.send(Verb::Report, Ask { assist, evidence: evidence.evidence, ..none() })
            }
            Case::Rate { step, assist, rating } => step.send(Verb::Rate, Ask { assist, rating, ..none() }),
            Case::Escalate { step, hand_over } => step.send(Verb::Escalate, Ask { hand_over, ..none() }),
            Case::Reopen(step) => step.send(Verb::Reopen, none()),
            Case::Withdraw(step) => step.send(Verb::Withdraw, none()),
            Case::Merge { step, into } => step.send(Verb::Merge, Ask { into, ..none() }),
            Case::Comment { step, evidence } => step.send(Verb::Comment, Ask { evidence: evidence.evidence, ..none() }),
            Case::Recall(step) => step.send(Verb::Recall, none()),
            Case::Exclude { step, approved_by } => step.send(Verb::Exclude, Ask { approved_by, ..none() }),
            Case::Forget { step, yes } => {
                yes.confirm(&format!(
                    "The names and telephone numbers of case {} are removed from every node that has them, for good, and \
                     no screen shows the events that brought them. What was typed into descriptions and comments stays.",
                    step.id.id
                ))?;
                step.send(Verb::Forget, none())
            }
            Case::Stats(stats) => stats.act(),
            Case::Import(import) => import.bring().map(Output::CasesBrought),
            Case::Export { which, at } => export(&which, &at),
        }
    }
}

impl Step {
    fn send(self, verb: Verb, ask: Ask) -> Result<Output, Fail> {
        let role = self.role;
        self.post(verb.as_str(), Ask { role, ..ask })
    }

    fn post(self, step: &str, ask: Ask) -> Result<Output, Fail> {
        let ask = Ask { by: self.by, text: self.text, ..ask };
        let node = self.at.node()?;
        let path = format!("/v1/cases/{}/{step}", segment(&self.id.id));
        let answer = node.post::<view::CaseShown>(&path, &ask)?;
        let Some(to) = answer.body.asked.clone() else { return Ok(Output::Case(Box::new(answer))) };
        // The newest is this one.
        let is_ours = |w: &&view::CaseWish| w.verb.as_str() == step && w.refused.is_none();
        let Some(ours) = answer.body.wishes.iter().rev().find(is_ours).map(|w| w.id.clone()) else {
            return Ok(Output::Case(Box::new(answer)));
        };
        let told = |shown: &view::CaseShown| shown.wishes.iter().find(|w| w.id == ours).map(|w| w.refused.clone());
        let is_on_its_way = |shown: &view::CaseShown| told(shown) == Some(None);
        let id = answer.body.case.id.clone();
        let mut answer = node.until(&format!("/v1/cases/{}", segment(&id)), answer, self.wait.time(), is_on_its_way)?;
        let is_open = is_on_its_way(&answer.body);
        if is_open {
            answer.body.asked = Some(to);
        } else if let Some(why) = told(&answer.body).flatten() {
            return Err(Fail::no(
                "refused",
                format!("{to}, whose case it is: {}", as_flags(&why)),
                format!("`citybrain case show {id}`"),
            ));
        }
        Ok(self.wait.shown(Output::Case(Box::new(answer)), is_open))
    }
}

impl New {
    fn act(self) -> Result<Output, Fail> {
        let new = view::CaseNew {
            category: self.category,
            title: self.title,
            description: self.description,
            place: self.coordinates.place(self.location),
            kind: self.kind,
            sos: self.sos,
            governance: self.governance,
            channel: self.channel,
            form: whom::answers(self.form)?,
            media: self.media,
            contact: self.whom.contact(),
            role: whom::role(self.role, &self.by),
            by: self.by,
            key: self.key,
        };
        let (answer, is_new) = self.at.node()?.post_new::<view::CaseShown>("/v1/cases", &new)?;
        if !is_new {
            let (id, title) = (&answer.body.case.id, &answer.body.case.title);
            let why = match (new.sos, new.key.is_some()) {
                (false, _) => format!("this key has opened {id} before, with the title `{title}`"),
                (true, false) => format!("{id} is open at that place, and the call is a line of its history"),
                (true, true) => format!("this key, or another call from that place, has opened {id} before"),
            };
            eprintln!("nothing was opened: {why}");
        }
        Ok(Output::Case(Box::new(answer)))
    }
}

/// Page by page, oldest page last; one text in the end, because a table of cases is no stream.
fn export(which: &Which, at: &At) -> Result<Output, Fail> {
    let node = at.node()?;
    let mut after: Option<String> = None;
    let mut all: Vec<View> = Vec::new();
    loop {
        let mut query = which.query();
        query.push(("limit", "1000".into()));
        query.extend(after.take().map(|a| ("after", a)));
        let mut answer = node.get::<view::Cases>("/v1/cases", &query)?;
        if let Some(cut) = answer.head.cut {
            let detail = format!("of {} cases only {} came through the links", cut.of, cut.kept);
            return Err(Fail::no("cut", detail, "export at the node itself: `--node URL`"));
        }
        all.append(&mut answer.body.cases);
        after = answer.body.next.take();
        if after.is_none() {
            answer.body.cases = all;
            return Ok(Output::CasesExport(answer));
        }
    }
}
