//! The life of a case, as a pure machine: a case, a wish and a moment in; the case afterwards and a
//! line of its history out, or a refusal that says what would be allowed.
//!
//! **One owner.** Only the owner's node calls this, and only on its newest copy. A step may set
//! [`Case::handing_to`]: from then on nobody steps until that node has [`take`]n the case. Two nodes
//! can never both believe that they may step, whatever is delayed, repeated or reordered between
//! them: the one has written that it gave the case away before the other can learn of it.
//!
//! **Who handles may not close**: whoever started or resolved a case may neither verify, evaluate,
//! nor close it.

use super::calendar::Calendar;
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{
    Approved, Ask, Assist, Booked, Booking, Case, Clock, ClosedReason, Entry, Finding, Kind, Outcome, Place, Role,
    Solved, Status, Verb, Verdict,
};
use citybrain_shared::config::cases::{Cases as Settings, Category, Limit, Missed, Unit};

/// Characters of a reason, a result or a comment. What is longer belongs into an attachment.
const TEXT_MAX: usize = 2000;
/// Summons, dispatchers, handlers, followers of one case, each.
const LIST_MAX: usize = 64;

/// What the machine knows beside the case: this node, its calendar, its categories.
pub struct Book<'a> {
    pub me: &'a Address,
    pub calendar: &'a Calendar,
    pub categories: &'a [Category],
    pub settings: &'a Settings,
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, for programs.
    pub error: &'static str,
    pub detail: String,
    pub hint: String,
}

impl Refusal {
    pub fn new(error: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal { error, detail: detail.into(), hint: hint.into() }
    }
}

/// A case after a step, and the line that says what was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped {
    pub case: Case,
    pub entry: Entry,
}

/// A new case, as it came in.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    pub id: String,
    pub event: Option<String>,
    /// Of an incident: what was pressed, so that it is known again ([`super::intake::button`]).
    pub button: Option<String>,
    pub by: String,
    pub sos: bool,
    pub kind: Option<Kind>,
    pub category: String,
    pub title: String,
    pub description: String,
    pub place: Option<Place>,
    pub channel: String,
    pub governance: Option<String>,
    pub has_contact: bool,
    /// Of a request for a service.
    pub booking: Option<Booking>,
}

/// Which of its verbs a case would take now, whoever asks.
pub fn allowed(case: &Case) -> Vec<Verb> {
    if case.handing_to.is_some() {
        return Vec::new();
    }
    Verb::ALL.iter().copied().filter(|v| fits(case, *v).is_ok()).collect()
}

/// Does the verb fit where the case stands? If not: why, beyond its status.
fn fits(case: &Case, verb: Verb) -> Result<(), &'static str> {
    use Status::{Accepted, Closed, Dispatched, Evaluated, Handling, Resolved, Submitted};
    let status = case.status;
    let is = |all: &[Status]| if all.contains(&status) { Ok(()) } else { Err("") };
    let merged = case.closed_reason == Some(ClosedReason::Duplicate);
    match verb {
        Verb::Accept => is(&[Submitted]),
        Verb::Reject => is(&[Submitted, Accepted]),
        Verb::Dispatch => is(&[Accepted, Dispatched, Handling]),
        Verb::Start => is(&[Dispatched]),
        Verb::Resolve if case.suspended.is_some() => Err("it is suspended: resume it first"),
        Verb::Resolve => is(&[Handling]),
        Verb::Verify => is(&[Resolved, Evaluated]),
        Verb::Evaluate if merged => Err("it was merged into another: evaluate that one"),
        Verb::Evaluate => is(&[Resolved, Evaluated, Closed]),
        Verb::Close if status == Resolved && case.finding.as_ref().is_none_or(|f| !f.passed) => {
            Err("nobody has evaluated it, and no check has passed: verify or evaluate it first")
        }
        Verb::Close => is(&[Resolved, Evaluated]),
        Verb::Return => is(&[Dispatched, Handling]),
        Verb::Suspend if case.suspended.is_some() => Err("it is suspended already"),
        Verb::Suspend if case.suspensions > 0 => Err("it was suspended once, and once is all"),
        Verb::Suspend => is(&[Dispatched, Handling]),
        Verb::Resume if case.suspended.is_none() => Err("it is not suspended"),
        Verb::Extend if case.extended.is_some() => Err("it was extended once, and once is all"),
        Verb::Extend if case.suspended.is_some() => Err("it is suspended: its clock stands still"),
        Verb::Extend => is(&[Dispatched, Handling]),
        Verb::Assist => is(&[Accepted, Dispatched, Handling]),
        Verb::Report | Verb::Rate if case.assists.is_empty() => Err("nobody was summoned"),
        Verb::Reopen if merged => Err("it was merged into another: reopen that one"),
        Verb::Reopen => is(&[Closed]),
        Verb::Exclude if case.excluded.is_some() => Err("it is excluded already"),
        Verb::Report | Verb::Rate | Verb::Comment | Verb::Exclude => Ok(()),
        Verb::Contact | Verb::Resume | Verb::Escalate | Verb::Withdraw | Verb::Merge if status.is_open() => Ok(()),
        Verb::Contact | Verb::Resume | Verb::Escalate | Verb::Withdraw | Verb::Merge => Err(""),
    }
}

/// The roles that may ask for it.
fn roles(verb: Verb) -> &'static [Role] {
    use Role::{Resident, Supervisor, Worker};
    match verb {
        Verb::Verify | Verb::Close | Verb::Exclude => &[Supervisor],
        Verb::Evaluate | Verb::Withdraw | Verb::Reopen => &[Resident, Supervisor],
        Verb::Comment => &[Resident, Worker, Supervisor],
        _ => &[Worker, Supervisor],
    }
}

impl Book<'_> {
    pub fn category(&self, code: &str) -> Option<&Category> {
        self.categories.iter().find(|c| c.code == code || c.name == code)
    }

    /// Which category it names, and what is known of that.
    fn code<'o>(&self, opening: &'o Opening) -> (&'o str, Option<&Category>) {
        let code = if opening.category.is_empty() && opening.sos { "sos" } else { &opening.category };
        (code, self.category(code))
    }

    /// Is that case of the category that this opening would have?
    pub fn is_same_category(&self, case: &Case, opening: &Opening) -> bool {
        let (code, known) = self.code(opening);
        case.category == known.map_or(code, |c| &c.code)
    }

    /// Opens a case here; one of a category that another tier handles is handed there at once.
    pub fn open(&self, opening: Opening, now: DateTime<Utc>) -> Stepped {
        let (code, category) = self.code(&opening);
        let code = code.to_owned();
        let kind = match opening.sos {
            true => Kind::Incident,
            false => opening.kind.or(category.map(|c| c.kind)).unwrap_or(Kind::Appeal),
        };
        let name = category.map(|c| c.name.clone()).unwrap_or_default();
        let case = Case {
            id: opening.id,
            term: 1,
            version: 0,
            kind,
            status: Status::Submitted,
            owner: self.me.clone(),
            handing_to: None,
            opened_at: self.me.clone(),
            opened: now,
            changed: now,
            event: opening.event,
            button: opening.button,
            urgent: opening.sos,
            reach: category.map_or(citybrain_shared::Tier::City, |c| c.reach),
            category: category.map_or(code, |c| c.code.clone()),
            title: match opening.title.as_str() {
                "" if name.is_empty() => opening.category.clone(),
                "" => name.clone(),
                title => cut(title, 200),
            },
            category_name: name,
            department: category.map(|c| c.department.clone()).unwrap_or_default(),
            governance: opening.governance.or_else(|| category.and_then(|c| c.governance.clone())),
            channel: opening.channel,
            description: cut(&opening.description, TEXT_MAX),
            place: opening.place,
            has_contact: opening.has_contact,
            unit: String::new(),
            dispatched_by: Vec::new(),
            dispatched: None,
            accepted_by: None,
            signed: None,
            contacted: None,
            handlers: Vec::new(),
            clocks: Vec::new(),
            outcome: None,
            finding: None,
            verdict: None,
            suspended: None,
            extended: None,
            excluded: None,
            escalated_to: None,
            assists: Vec::new(),
            suspensions: 0,
            escalations: 0,
            returns: 0,
            reworks: 0,
            reopened: 0,
            merged_into: None,
            followers: Vec::new(),
            booking: opening.booking,
            closed: None,
            closed_reason: None,
        };
        let mut turn = Turn::new(self, &case, "submitted", &opening.by, None, None, now);
        turn.start_clock("response", category.and_then(|c| c.response));
        if opening.sos {
            if self.me.parent().is_some() {
                let limit = Limit { amount: self.settings.sos_climb_s.max(1), unit: Unit::Clock("s", 1_000_000) };
                turn.start_clock("climb", Some(limit));
            }
            turn.entry.calls.push(self.me.clone());
        } else if let Some(to) = case.booking.as_ref().map(|b| b.node.clone()) {
            turn.hand_to(to);
        } else if let Some(to) = category.and_then(|c| c.tier).and_then(|tier| ancestor(self.me, tier)) {
            turn.hand_to(to);
        }
        turn.done()
    }

    /// Takes a case that was handed here; `case` is what came with the hand-over.
    pub fn take(&self, case: &Case, now: DateTime<Utc>) -> Stepped {
        let mut turn = Turn::new(self, case, "taken", "hand-over", None, Some(case.owner.clone()), now);
        turn.case.owner = self.me.clone();
        turn.case.handing_to = None;
        turn.case.term += 1;
        turn.entry.term = turn.case.term;
        turn.done()
    }

    /// The node that offers the service answers a request: the appointment is given, or `why` not.
    pub fn book(&self, case: &Case, why: Option<String>, now: DateTime<Utc>) -> Stepped {
        let step = if why.is_none() { "booked" } else { "rejected" };
        let mut turn = Turn::new(self, case, step, "booking", None, None, now);
        let state = if why.is_none() { Booked::Booked } else { Booked::Refused };
        if let Some(booking) = &mut turn.case.booking {
            booking.state = state;
        }
        if let Some(why) = why {
            turn.entry.text = why;
            turn.end(Status::Rejected, ClosedReason::Refused);
        }
        turn.done()
    }

    /// A clock's time is over.
    pub fn timer(&self, case: &Case, clock: &str, now: DateTime<Utc>) -> Stepped {
        let mut turn = Turn::new(self, case, "escalated", "timer", None, None, now);
        let above = case.escalated_to.as_ref().unwrap_or(&case.owner).parent();
        if clock == "climb" {
            match above.filter(|_| case.status == Status::Submitted) {
                None => turn.stop_clock("climb"),
                Some(above) => {
                    turn.entry.text = "nobody has accepted it yet".into();
                    if above.parent().is_some() {
                        let limit =
                            Limit { amount: self.settings.sos_climb_s.max(1), unit: Unit::Clock("s", 1_000_000) };
                        turn.start_clock("climb", Some(limit));
                    } else {
                        turn.stop_clock("climb");
                    }
                    turn.escalate(above);
                }
            }
            return turn.done();
        }
        if let Some(c) = turn.case.clocks.iter_mut().find(|c| c.name == clock) {
            c.missed = Some(now);
        }
        turn.entry.clocks.push(format!("{clock} missed"));
        turn.entry.text = format!("the {clock} limit has passed");
        match above.filter(|_| !clock.starts_with("assist:")) {
            Some(above) => {
                let next = case.owner.parent();
                turn.escalate(above);
                if self.settings.missed == Missed::HandOver
                    && let Some(next) = next
                {
                    turn.hand_to(next);
                }
            }
            None => turn.entry.step = "missed".into(),
        }
        turn.done()
    }

    /// Does what is asked, if the owner may. `other` finds a second case of this owner, for a merge.
    ///
    /// # Errors
    /// [`Refusal`], naming the steps that are allowed.
    pub fn act(
        &self,
        case: &Case,
        verb: Verb,
        ask: &Ask,
        from: &Address,
        other: &dyn Fn(&str) -> Option<Case>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Stepped>, Refusal> {
        self.check(case, verb, ask)?;
        let from = (from != self.me).then(|| from.clone());
        let mut turn = Turn::new(self, case, past(verb), &ask.by, ask.role, from, now);
        turn.entry.text = cut(ask.text.as_deref().unwrap_or_default(), TEXT_MAX);
        let mut more = Vec::new();
        match verb {
            Verb::Accept => {
                turn.case.status = Status::Accepted;
                turn.case.accepted_by = Some(ask.by.clone());
                turn.stop_clock("climb");
                turn.start_clock("dispatch", turn.category().and_then(|c| c.dispatch));
                if case.kind == Kind::Incident {
                    turn.case.signed.get_or_insert(now);
                }
                turn.responded(ask.contacted);
            }
            Verb::Reject => {
                turn.need_text("why it is rejected")?;
                turn.end(Status::Rejected, ask.reason.unwrap_or(ClosedReason::NotOurs));
            }
            Verb::Dispatch => turn.dispatch(ask)?,
            Verb::Start => {
                turn.case.status = Status::Handling;
                turn.case.signed.get_or_insert(now);
                turn.handled();
                turn.responded(ask.contacted);
            }
            Verb::Contact => turn.responded(true),
            Verb::Resolve => turn.resolve(ask)?,
            Verb::Verify => {
                let passed = ask.passed.ok_or_else(|| missing("passed", "whether the check passed"))?;
                turn.case.finding =
                    Some(Finding { by: ask.by.clone(), at: now, passed, text: turn.entry.text.clone() });
                turn.entry.to = Some(if passed { "passed" } else { "failed" }.into());
                if !passed {
                    turn.case.status = Status::Handling;
                    turn.case.reworks += 1;
                    turn.start_clock("solution", turn.category().and_then(|c| c.solution));
                }
            }
            Verb::Evaluate => {
                turn.case.verdict = Some(Verdict {
                    by: ask.by.clone(),
                    at: now,
                    solved: ask.solved,
                    satisfied: ask.satisfied,
                    text: turn.entry.text.clone(),
                });
                let word = |w: Option<&str>| w.unwrap_or("no answer").to_owned();
                turn.entry.to = Some(format!(
                    "solved: {}, satisfied: {}",
                    word(ask.solved.map(Solved::as_str)),
                    word(ask.satisfied.map(|s| s.as_str()))
                ));
                if case.status == Status::Resolved {
                    turn.case.status = Status::Evaluated;
                }
            }
            Verb::Close => {
                let said = case.verdict.as_ref().and_then(|v| v.solved).or(case.outcome.as_ref().map(|o| o.solved));
                let solved = said == Some(Solved::Solved);
                let reason = if solved { ClosedReason::Solved } else { ClosedReason::Unsolved };
                turn.end(Status::Closed, ask.reason.unwrap_or(reason));
            }
            Verb::Return => {
                turn.need_text("why it is returned")?;
                turn.case.returns += 1;
                turn.case.status = Status::Accepted;
                turn.case.unit.clear();
                turn.case.suspended = None;
                turn.stop_clock("solution");
                turn.start_clock("dispatch", turn.category().and_then(|c| c.dispatch));
                if let Some(to) = turn.case.dispatched_by.pop() {
                    turn.hand_to(to);
                }
            }
            Verb::Suspend => {
                let approved = turn.approved(ask, "why it must wait")?;
                turn.case.suspended = Some(approved);
                turn.case.suspensions += 1;
                turn.pause_clock("solution");
            }
            Verb::Resume => {
                turn.case.suspended = None;
                turn.resume_clock("solution");
            }
            Verb::Extend => {
                let limit = turn.limit(ask)?.ok_or_else(|| missing("limit", "by how much, such as 2wd"))?;
                let approved = turn.approved(ask, "why it takes longer")?;
                if !turn.extend_clock("solution", limit) {
                    return Err(Refusal::new(
                        "no-clock",
                        format!("`{}` has no solution limit that could be extended", case.id),
                        "limits stand in `[[category]]` of the node's config",
                    ));
                }
                turn.case.extended = Some(approved);
            }
            Verb::Assist => turn.assist(ask)?,
            Verb::Report => {
                turn.need_text("what was done")?;
                let id = turn.assist_of(ask)?;
                let text = turn.entry.text.clone();
                if let Some(a) = turn.case.assists.iter_mut().find(|a| a.id == id) {
                    a.reported.get_or_insert(now);
                    a.result = text;
                }
                turn.stop_clock(&format!("assist:{id}"));
                turn.entry.to = Some(id);
            }
            Verb::Rate => {
                let rating = ask.rating.ok_or_else(|| missing("rating", "1 (bad) to 5 (good)"))?;
                if !(1..=5).contains(&rating) {
                    let detail = format!("{rating} is no rating: 1 (bad) to 5 (good)");
                    return Err(Refusal::new("bad-request", detail, "such as `--rating 4`"));
                }
                let id = turn.assist_of(ask)?;
                if let Some(a) = turn.case.assists.iter_mut().find(|a| a.id == id) {
                    a.rating = Some(rating);
                }
                turn.entry.to = Some(format!("{id}: {rating} of 5"));
            }
            Verb::Escalate => {
                turn.need_text("why it is escalated")?;
                let above = case.escalated_to.as_ref().unwrap_or(&case.owner).parent();
                let Some(above) = above else {
                    return Err(Refusal::new("nobody-above", format!("`{}` is at the top already", case.id), ""));
                };
                turn.escalate(above);
                if ask.hand_over
                    && let Some(next) = case.owner.parent()
                {
                    turn.hand_to(next);
                }
            }
            Verb::Reopen => {
                turn.need_text("why it is reopened")?;
                let until = case.closed.unwrap_or(case.changed) + TimeDelta::days(self.settings.reopen_days.into());
                if now > until {
                    return Err(Refusal::new(
                        "too-late",
                        format!("`{}` could be reopened until {until}", case.id),
                        "open a new case: `citybrain case new`",
                    ));
                }
                turn.case.reopened += 1;
                turn.case.status = Status::Accepted;
                (turn.case.closed, turn.case.closed_reason) = (None, None);
                (turn.case.outcome, turn.case.finding, turn.case.verdict) = (None, None, None);
                turn.start_clock("dispatch", turn.category().and_then(|c| c.dispatch));
            }
            Verb::Withdraw => turn.end(Status::Withdrawn, ClosedReason::Withdrawn),
            Verb::Merge => more.push(turn.merge(ask, other)?),
            Verb::Comment => turn.need_text("what you want to say")?,
            Verb::Exclude => {
                let approved = turn.approved(ask, "why it is not counted")?;
                turn.case.excluded = Some(approved);
            }
        }
        let mut all = vec![turn.done()];
        all.append(&mut more);
        Ok(all)
    }

    fn check(&self, case: &Case, verb: Verb, ask: &Ask) -> Result<(), Refusal> {
        let list = |verbs: Vec<Verb>| verbs.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", ");
        if ask.by.trim().is_empty() {
            return Err(missing("by", "who does it"));
        }
        if let Some(to) = &case.handing_to {
            let detail = format!("`{}` is on its way to {to}: nobody steps until it has been taken there", case.id);
            return Err(Refusal::new("on-its-way", detail, format!("`citybrain why {to}` says what holds it up")));
        }
        if let Err(why) = fits(case, verb) {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            let detail = format!("`{}` is {} and does not take `{verb}`{why}", case.id, case.standing());
            return Err(Refusal::new("not-now", detail, format!("it takes {}", list(allowed(case)))));
        }
        let role = ask.role.unwrap_or(Role::Worker);
        if !roles(verb).contains(&role) {
            let needed = roles(verb).iter().map(|r| r.as_str()).collect::<Vec<_>>().join(" or ");
            let detail = format!("`{verb}` is for a {needed}, and {} is a {role} here", ask.by);
            return Err(Refusal::new("not-your-role", detail, format!("`--role {}`", roles(verb)[0])));
        }
        if matches!(verb, Verb::Verify | Verb::Evaluate | Verb::Close) && case.handlers.contains(&ask.by) {
            let detail = format!("{} has handled `{}`: who handles may not {verb}", ask.by, case.id);
            return Err(Refusal::new("handler", detail, "somebody else must: `--by NAME`"));
        }
        Ok(())
    }
}

/// One step being made.
struct Turn<'a> {
    book: &'a Book<'a>,
    case: Case,
    entry: Entry,
    now: DateTime<Utc>,
}

impl<'a> Turn<'a> {
    fn new(
        book: &'a Book<'a>,
        case: &Case,
        step: &str,
        by: &str,
        role: Option<Role>,
        from: Option<Address>,
        now: DateTime<Utc>,
    ) -> Turn<'a> {
        let mut case = case.clone();
        case.version += 1;
        // A clock that was set back must not write a history that runs backwards.
        let now = now.max(case.changed);
        case.changed = now;
        let entry = Entry {
            term: case.term,
            version: case.version,
            step: step.to_owned(),
            at: now,
            node: book.me.clone(),
            from,
            by: cut(by, 100),
            role,
            text: String::new(),
            to: None,
            clocks: Vec::new(),
            calls: Vec::new(),
        };
        Turn { book, case, entry, now }
    }

    fn done(self) -> Stepped {
        Stepped { case: self.case, entry: self.entry }
    }

    fn category(&self) -> Option<&'a Category> {
        self.book.category(&self.case.category)
    }

    // ---- clocks

    fn start_clock(&mut self, name: &str, limit: Option<Limit>) {
        let Some(limit) = limit else { return };
        let due = self.book.calendar.due(self.now, limit);
        let clock = Clock {
            name: name.to_owned(),
            limit: limit.to_string(),
            started: self.now,
            due: Some(due),
            left_us: None,
            stopped: None,
            missed: None,
        };
        self.entry.clocks.push(format!("{name} runs until {}", citybrain_shared::view::rfc3339(due)));
        match self.case.clocks.iter_mut().find(|c| c.name == name) {
            Some(old) => *old = clock,
            None => self.case.clocks.push(clock),
        }
    }

    fn stop_clock(&mut self, name: &str) {
        let now = self.now;
        let Some(clock) = self.case.clocks.iter_mut().find(|c| c.name == name && c.stopped.is_none()) else { return };
        clock.stopped = Some(now);
        let over = if clock.is_over(now) { ", too late" } else { "" };
        self.entry.clocks.push(format!("{name} stopped{over}"));
    }

    fn pause_clock(&mut self, name: &str) {
        let (now, calendar) = (self.now, self.book.calendar);
        let Some(clock) = self.case.clocks.iter_mut().find(|c| c.name == name && c.runs()) else { return };
        if let Some(due) = clock.due.take() {
            clock.left_us = Some(calendar.left(unit_of(&clock.limit), now, due));
            self.entry.clocks.push(format!("{name} paused"));
        }
    }

    fn resume_clock(&mut self, name: &str) {
        let (now, calendar) = (self.now, self.book.calendar);
        let Some(clock) = self.case.clocks.iter_mut().find(|c| c.name == name && c.stopped.is_none()) else { return };
        if let Some(left) = clock.left_us.take() {
            let unit = unit_of(&clock.limit);
            // What was over stays over.
            let due = if left > 0 { calendar.later(now, unit, left) } else { now - TimeDelta::microseconds(1) };
            clock.due = Some(due);
            self.entry.clocks.push(format!("{name} runs until {}", citybrain_shared::view::rfc3339(due)));
        }
    }

    fn extend_clock(&mut self, name: &str, limit: Limit) -> bool {
        let (now, calendar) = (self.now, self.book.calendar);
        let Some(clock) = self.case.clocks.iter_mut().find(|c| c.name == name && c.runs()) else { return false };
        let Some(due) = clock.due else { return false };
        let later = calendar.due(due, limit);
        clock.due = Some(later);
        clock.limit = format!("{}+{limit}", clock.limit);
        if later > now {
            clock.missed = None;
        }
        self.entry.clocks.push(format!("{name} runs until {}", citybrain_shared::view::rfc3339(later)));
        true
    }

    fn stop_all(&mut self) {
        let running: Vec<String> =
            self.case.clocks.iter().filter(|c| c.stopped.is_none()).map(|c| c.name.clone()).collect();
        running.iter().for_each(|name| self.stop_clock(name));
    }

    // ---- parts of steps

    fn need_text(&self, what: &str) -> Result<(), Refusal> {
        if self.entry.text.trim().is_empty() { Err(missing("text", what)) } else { Ok(()) }
    }

    fn approved(&mut self, ask: &Ask, what: &str) -> Result<Approved, Refusal> {
        self.need_text(what)?;
        let approved_by = ask.approved_by.clone().filter(|a| !a.trim().is_empty());
        let approved_by = approved_by.ok_or_else(|| missing("approved_by", "who approved it"))?;
        if approved_by == ask.by {
            return Err(Refusal::new("own-approval", "nobody approves what they ask for", "`--approved-by` another"));
        }
        self.entry.to = Some(format!("approved by {approved_by}"));
        Ok(Approved { by: ask.by.clone(), approved_by, at: self.now, reason: self.entry.text.clone() })
    }

    fn limit(&self, ask: &Ask) -> Result<Option<Limit>, Refusal> {
        ask.limit.as_deref().map(Limit::parse).transpose().map_err(|e| Refusal::new("bad-limit", e, "such as `2wd`"))
    }

    /// Whoever handles is remembered.
    fn handled(&mut self) {
        let by = self.entry.by.clone();
        if !self.case.handlers.contains(&by) && self.case.handlers.len() < LIST_MAX {
            self.case.handlers.push(by);
        }
    }

    /// Signed for, and the resident called, if there is one: then the response is there.
    fn responded(&mut self, contacted: bool) {
        if contacted {
            self.case.contacted.get_or_insert(self.now);
        }
        if self.case.signed.is_some() && (self.case.contacted.is_some() || !self.case.has_contact) {
            self.stop_clock("response");
        }
    }

    fn hand_to(&mut self, to: Address) {
        if to == *self.book.me {
            return;
        }
        if let Some(top) = common(self.book.me, &to) {
            // Whoever passes it on must see it.
            self.case.reach = self.case.reach.min(top.tier());
        }
        self.entry.to = Some(to.to_string());
        self.case.handing_to = Some(to);
    }

    fn escalate(&mut self, above: Address) {
        self.case.escalations += 1;
        self.case.reach = self.case.reach.min(above.tier());
        self.entry.to = Some(above.to_string());
        self.entry.calls.push(above.clone());
        self.case.escalated_to = Some(above);
    }

    fn end(&mut self, status: Status, reason: ClosedReason) {
        self.case.status = status;
        self.case.closed = Some(self.now);
        self.case.closed_reason = Some(reason);
        self.case.suspended = None;
        self.entry.to = Some(reason.to_string());
        self.stop_all();
    }

    fn dispatch(&mut self, ask: &Ask) -> Result<(), Refusal> {
        let now = self.now;
        self.case.status = Status::Dispatched;
        self.case.dispatched.get_or_insert(now);
        self.case.unit = cut(ask.unit.as_deref().unwrap_or_default(), 100);
        self.case.suspended = None;
        self.resume_clock("solution");
        self.stop_clock("dispatch");
        // A transfer goes on with the clock that runs.
        if self.case.clock("solution").is_none_or(|c| c.stopped.is_some()) {
            self.start_clock("solution", self.category().and_then(|c| c.solution));
        }
        self.entry.to = Some(if self.case.unit.is_empty() { self.book.me.to_string() } else { self.case.unit.clone() });
        let Some(to) = ask.to.as_ref().filter(|to| *to != self.book.me) else { return Ok(()) };
        if common(self.book.me, to).is_none() {
            let detail = format!("{to} is in another tree than {}", self.book.me);
            return Err(Refusal::new("foreign-node", detail, "a case stays in its city"));
        }
        if self.case.dispatched_by.len() < LIST_MAX {
            self.case.dispatched_by.push(self.book.me.clone());
        }
        self.hand_to(to.clone());
        if !self.case.unit.is_empty() {
            self.entry.to = Some(format!("{to}, {}", self.case.unit));
        }
        Ok(())
    }

    fn resolve(&mut self, ask: &Ask) -> Result<(), Refusal> {
        self.need_text("what was done")?;
        let has = |name: &str| {
            ask.evidence.iter().any(|e| e.split_once('=').is_some_and(|(n, v)| n == name && !v.is_empty()))
        };
        let needed = self.category().map(|c| c.evidence.as_slice()).unwrap_or_default();
        let lacking: Vec<&str> = needed.iter().map(String::as_str).filter(|n| !has(n)).collect();
        let solved = ask.solved.unwrap_or(Solved::Solved);
        if let Some(first) = lacking.first().filter(|_| solved == Solved::Solved) {
            let detail = format!("{} must show {}", self.case.category_name, lacking.join(", "));
            return Err(Refusal::new("no-evidence", detail, format!("`--evidence {first}=URL`")));
        }
        self.handled();
        self.case.status = Status::Resolved;
        self.case.finding = None;
        self.case.outcome = Some(Outcome {
            by: ask.by.clone(),
            at: self.now,
            solved,
            text: self.entry.text.clone(),
            evidence: ask.evidence.iter().take(LIST_MAX).map(|e| cut(e, 500)).collect(),
        });
        self.entry.to = Some(solved.to_string());
        self.stop_clock("solution");
        Ok(())
    }

    fn assist(&mut self, ask: &Ask) -> Result<(), Refusal> {
        self.need_text("what is needed")?;
        let unit = ask.unit.clone().or_else(|| ask.to.as_ref().map(ToString::to_string));
        let unit = unit.ok_or_else(|| missing("unit", "who is summoned, or `to`: its node"))?;
        if ask.to.as_ref().is_some_and(|to| common(self.book.me, to).is_none()) {
            return Err(Refusal::new("foreign-node", "that node is in another tree", "a case stays in its city"));
        }
        if self.case.assists.len() >= LIST_MAX {
            return Err(Refusal::new("too-many", format!("{LIST_MAX} units were summoned already"), ""));
        }
        let limit = self.limit(ask)?;
        let id = format!("a{}", self.case.assists.len() + 1);
        self.start_clock(&format!("assist:{id}"), limit);
        self.entry.to = Some(format!("{id}: {unit}"));
        if let Some(node) = &ask.to {
            if let Some(top) = common(self.book.me, node) {
                self.case.reach = self.case.reach.min(top.tier());
            }
            self.entry.calls.push(node.clone());
        }
        self.case.assists.push(Assist {
            id,
            unit: cut(&unit, 100),
            node: ask.to.clone(),
            asked: self.now,
            reason: self.entry.text.clone(),
            reported: None,
            result: String::new(),
            rating: None,
        });
        Ok(())
    }

    /// Which summons is meant; with only one it need not be said.
    fn assist_of(&self, ask: &Ask) -> Result<String, Refusal> {
        let known =
            || self.case.assists.iter().map(|a| format!("{} ({})", a.id, a.unit)).collect::<Vec<_>>().join(", ");
        match (&ask.assist, self.case.assists.as_slice()) {
            (Some(id), all) if all.iter().any(|a| a.id == *id) => Ok(id.clone()),
            (None, [only]) => Ok(only.id.clone()),
            _ => Err(Refusal::new(
                "which-assist",
                "several units were summoned, or not this one",
                format!("`--assist` one of {}", known()),
            )),
        }
    }

    fn merge(&mut self, ask: &Ask, other: &dyn Fn(&str) -> Option<Case>) -> Result<Stepped, Refusal> {
        let into = ask.into.as_deref().ok_or_else(|| missing("into", "the case that this one follows"))?;
        let refuse = |detail: String| Refusal::new("no-merge", detail, "both must be open, and owned by one node");
        if into == self.case.id {
            return Err(refuse("a case does not follow itself".into()));
        }
        let main = other(into).ok_or_else(|| refuse(format!("{} does not own an open case `{into}`", self.book.me)))?;
        if !main.status.is_open() || main.handing_to.is_some() {
            return Err(refuse(format!("`{into}` is {}", main.standing())));
        }
        if main.followers.len() + 1 + self.case.followers.len() > LIST_MAX {
            return Err(refuse(format!("`{into}` has {LIST_MAX} followers already")));
        }
        self.end(Status::Closed, ClosedReason::Duplicate);
        self.case.merged_into = Some(main.id.clone());
        self.entry.to = Some(main.id.clone());
        let followers = std::mem::take(&mut self.case.followers);
        let mut turn = Turn::new(self.book, &main, "joined", &ask.by, ask.role, self.entry.from.clone(), self.now);
        turn.case.followers.push(self.case.id.clone());
        turn.case.followers.extend(followers);
        turn.entry.to = Some(self.case.id.clone());
        Ok(turn.done())
    }
}

fn missing(field: &str, what: &str) -> Refusal {
    let flag = field.replace('_', "-");
    Refusal::new("missing", format!("`{field}` is missing: {what}"), format!("`--{flag} …`"))
}

fn cut(text: &str, chars: usize) -> String {
    text.trim().chars().take(chars).collect()
}

fn unit_of(limit: &str) -> Unit {
    let first = limit.split('+').next().unwrap_or(limit);
    Limit::parse(first).map_or(Unit::Clock("s", 1_000_000), |l| l.unit)
}

fn past(verb: Verb) -> &'static str {
    match verb {
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
        Verb::Exclude => "excluded",
    }
}

/// The ancestor of that tier, if it is one and not the node itself.
pub fn ancestor(me: &Address, tier: citybrain_shared::Tier) -> Option<Address> {
    let mut at = me.parent();
    while let Some(a) = at {
        if a.tier() == tier {
            return Some(a);
        }
        at = a.parent();
    }
    None
}

/// The lowest node that is above both, or one of them; none in different trees.
pub fn common(a: &Address, b: &Address) -> Option<Address> {
    let mut at = Some(a.clone());
    while let Some(x) = at {
        if x.covers(b) {
            return Some(x);
        }
        at = x.parent();
    }
    None
}
