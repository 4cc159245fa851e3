//! What each wish does to a case, or why not: a method each, of the step that is being made.
//!
//! A `now` that is handed in is the node's own clock, which may have been set back; the step's own is never
//! before the step that was last.

use super::turn::{LIST_MAX, NAME_MAX, Turn, cut, is_same_person, missing, missing_such, shown};
use super::{NOBODY_ABOVE, Refusal, above_watching, common, may_be_offered, not_offered, watching};
use chrono::{DateTime, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{
    Ask, Assist, CALL_BACK, CLIMB, ClosedReason, DISPATCH, Finding, Kind, Outcome, RESPONSE, Role, SOLUTION, Solved,
    Status, Verdict, assist_clock,
};

impl Turn<'_> {
    pub(super) fn accept(&mut self, ask: &Ask, now: DateTime<Utc>) {
        self.case.status = Status::Accepted;
        self.case.accepted_by = Some(ask.by.clone());
        self.case.accepted_from = Some(self.entry.from.as_ref().unwrap_or(self.book.me).clone());
        self.stop_clock(CLIMB);
        self.start_clock(DISPATCH, self.limit_of(|t| t.dispatch));
        if self.case.kind == Kind::Incident {
            self.case.signed.get_or_insert(now);
        }
        self.responded(ask.contacted);
    }

    pub(super) fn reject(&mut self, ask: &Ask) -> Result<(), Refusal> {
        self.need_text("why it is rejected")?;
        let reason = ask.reason.unwrap_or(ClosedReason::NotOurs);
        one_of(reason, &[ClosedReason::NotOurs, ClosedReason::Refused, ClosedReason::Emergency])?;
        self.end(Status::Rejected, reason);
        Ok(())
    }

    pub(super) fn dispatch(&mut self, ask: &Ask) -> Result<(), Refusal> {
        let now = self.now;
        self.case.status = Status::Dispatched;
        self.case.dispatched.get_or_insert(now);
        self.case.unit = cut(ask.unit.as_deref().unwrap_or_default(), NAME_MAX);
        self.case.suspended = None;
        self.resume_clock(SOLUTION);
        self.stop_clock(DISPATCH);
        // A transfer goes on with the clock that runs.
        if self.case.clock(SOLUTION).is_none_or(|c| c.stopped.is_some()) {
            self.start_clock(SOLUTION, self.limit_of(|t| t.solution));
        }
        self.entry.to = Some(if self.case.unit.is_empty() { self.book.me.to_string() } else { self.case.unit.clone() });
        let Some(to) = ask.to.as_ref().filter(|to| *to != self.book.me) else { return Ok(()) };
        if common(self.book.me, to).is_none() {
            let detail = format!("{to} is in another tree than {}", self.book.me);
            return Err(Refusal::new(
                "foreign-node",
                detail,
                "a case stays in its city; an address is whole, from the city on",
            ));
        }
        // Of more, the oldest give way: a return goes to the latest.
        if self.case.dispatched_by.len() >= LIST_MAX {
            self.case.dispatched_by.remove(0);
        }
        self.case.dispatched_by.push(self.book.me.clone());
        self.hand_to(to.clone());
        if !self.case.unit.is_empty() {
            self.entry.to = Some(format!("{to}, {}", self.case.unit));
        }
        Ok(())
    }

    pub(super) fn start(&mut self, ask: &Ask, now: DateTime<Utc>) -> Result<(), Refusal> {
        self.case.status = Status::Handling;
        self.case.signed.get_or_insert(now);
        self.handled()?;
        self.responded(ask.contacted);
        Ok(())
    }

    pub(super) fn resolve(&mut self, ask: &Ask) -> Result<(), Refusal> {
        self.need_text("what was done")?;
        // Whoever is to believe it must be able to look at it.
        let shows = |text: &str| {
            let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || c.is_control()))
        };
        let has =
            |name: &str| ask.evidence.iter().any(|e| e.split_once('=').is_some_and(|(n, v)| n == name && shows(v)));
        let needed = self.case.terms.as_ref().map(|t| t.evidence.as_slice()).unwrap_or_default();
        let lacking: Vec<&str> = needed.iter().map(String::as_str).filter(|n| !has(n)).collect();
        let solved = ask.solved.unwrap_or(Solved::Solved);
        if let Some(first) = lacking.first().filter(|_| solved == Solved::Solved) {
            let detail =
                format!("{} must show {}, each by an http or https URL", self.case.category_name, lacking.join(", "));
            return Err(Refusal::new("no-evidence", detail, format!("`\"evidence\":[\"{first}=URL\"]`")));
        }
        self.handled()?;
        self.case.status = Status::Resolved;
        self.case.offered_to = None;
        self.case.finding = None;
        self.case.outcome = Some(Outcome {
            by: ask.by.clone(),
            at: self.now,
            solved,
            text: self.entry.text.clone(),
            evidence: ask.evidence.iter().take(LIST_MAX).map(|e| cut(e, 500)).collect(),
        });
        // The answer goes if the case begins again; what showed it stays in the history.
        self.entry.evidence = shown(&ask.evidence);
        self.entry.to = Some(solved.to_string());
        self.stop_clock(SOLUTION);
        self.start_clock(CALL_BACK, self.limit_of(|t| t.call_back));
        Ok(())
    }

    pub(super) fn verify(&mut self, ask: &Ask, now: DateTime<Utc>) -> Result<(), Refusal> {
        let passed = ask.passed.ok_or_else(|| missing_such("passed", "true", "whether the check passed"))?;
        if !passed {
            self.need_text("what the check found")?;
        }
        self.case.finding = Some(Finding { by: ask.by.clone(), at: now, passed, text: self.entry.text.clone() });
        self.entry.to = Some(if passed { "passed" } else { "failed" }.into());
        if !passed {
            self.case.status = Status::Handling;
            self.case.reworks += 1;
            self.set_verdicts_aside();
            // There is nothing to ask about.
            if self.case.clock(CALL_BACK).is_some_and(|c| c.stopped.is_none()) {
                self.stop_clock(CALL_BACK);
                self.void_clock(CALL_BACK);
            }
            self.start_clock(SOLUTION, self.limit_of(|t| t.solution));
        }
        Ok(())
    }

    pub(super) fn evaluate(&mut self, ask: &Ask) -> Result<(), Refusal> {
        let is_judged = ask.solved.is_some() || ask.satisfied.is_some();
        if !is_judged && self.entry.text.is_empty() {
            return Err(missing("solved", "what the resident says, or why nobody could be asked (`text`)"));
        }
        if !is_judged && self.case.verdict.is_some() {
            return Err(missing("solved", "what is said otherwise now, or `satisfied`"));
        }
        self.judge(ask);
        let word = |w: Option<&str>| w.unwrap_or("no answer").to_owned();
        self.entry.to = Some(format!(
            "solved: {}, satisfied: {}",
            word(ask.solved.map(Solved::as_str)),
            word(ask.satisfied.map(|s| s.as_str()))
        ));
        if self.case.status == Status::Resolved {
            self.case.status = Status::Evaluated;
            self.stop_clock(CALL_BACK);
        }
        Ok(())
    }

    /// A word on how it was solved. What is not asked again stays as the same side said it. Nobody else's word takes
    /// a resident's place; his first takes the place of what others have noted before it.
    fn judge(&mut self, ask: &Ask) {
        let is_residents = ask.role == Some(Role::Resident);
        let said = [self.case.verdict.take(), self.case.other_verdict.take()].into_iter().flatten();
        let (own, others): (Vec<Verdict>, Vec<Verdict>) = said.partition(|v| v.is_residents == is_residents);
        let (own, mut other) = (own.into_iter().next(), others.into_iter().next());
        // Also where he has spoken of the other question meanwhile.
        let is_before = |noted: &&mut Verdict| own.as_ref().is_none_or(|own| noted.at < own.at);
        if let Some(noted) = other.as_mut().filter(|_| is_residents).filter(is_before) {
            noted.solved.take_if(|_| ask.solved.is_some() && own.as_ref().is_none_or(|v| v.solved.is_none()));
            noted.satisfied.take_if(|_| ask.satisfied.is_some() && own.as_ref().is_none_or(|v| v.satisfied.is_none()));
        }
        // What was said of an answer goes with it; why there was none is past once there is one.
        let stands = |v: &&Verdict| {
            (v.solved.is_some() || v.satisfied.is_some())
                && (v.solved.is_none() || ask.solved.is_none())
                && (v.satisfied.is_none() || ask.satisfied.is_none())
        };
        let said = own.as_ref().filter(stands).map(|v| v.text.clone()).unwrap_or_default();
        let text = if self.entry.text.is_empty() { said } else { self.entry.text.clone() };
        self.case.verdict = Some(Verdict {
            by: self.entry.by.clone(),
            is_residents,
            at: self.now,
            solved: ask.solved.or(own.as_ref().and_then(|v| v.solved)),
            satisfied: ask.satisfied.or(own.as_ref().and_then(|v| v.satisfied)),
            text,
        });
        self.case.other_verdict = other.filter(|v| v.solved.is_some() || v.satisfied.is_some());
    }

    pub(super) fn close(&mut self, ask: &Ask) -> Result<(), Refusal> {
        let said = self.case.said_solved().or(self.case.outcome.as_ref().map(|o| o.solved));
        let solved = said == Some(Solved::Solved);
        let reason = if solved { ClosedReason::Solved } else { ClosedReason::Unsolved };
        let reason = ask.reason.unwrap_or(reason);
        // What follows another is merged, what a resident takes back is withdrawn.
        use ClosedReason as R;
        one_of(reason, &[R::Solved, R::Unsolved, R::NotOurs, R::Refused])?;
        self.end(Status::Closed, reason);
        Ok(())
    }

    pub(super) fn sent_back(&mut self) -> Result<(), Refusal> {
        self.need_text("why it is returned")?;
        self.case.returns += 1;
        // It stays on the list until it has come there: called back, it is returned there again.
        if let Some(to) = self.case.dispatched_by.last().cloned() {
            self.hand_to(to);
        }
        self.nobody_came();
        Ok(())
    }

    pub(super) fn suspend(&mut self, ask: &Ask) -> Result<(), Refusal> {
        let approved = self.approved(ask, "why it must wait")?;
        self.case.suspended = Some(approved);
        self.case.suspensions += 1;
        self.pause_clock(SOLUTION);
        Ok(())
    }

    pub(super) fn resume(&mut self) {
        self.case.suspended = None;
        self.resume_clock(SOLUTION);
    }

    pub(super) fn extend(&mut self, ask: &Ask) -> Result<(), Refusal> {
        let limit = self.limit(ask)?.ok_or_else(|| missing("limit", "by how much, such as 2wd"))?;
        let approved = self.approved(ask, "why it takes longer")?;
        if !self.extend_clock(SOLUTION, limit) {
            return Err(Refusal::new(
                "no-clock",
                format!("`{}` has no solution limit that could be extended", self.case.id),
                "limits stand in `[[category]]` of the node's config",
            ));
        }
        self.case.extended = Some(approved);
        Ok(())
    }

    pub(super) fn assist(&mut self, ask: &Ask) -> Result<(), Refusal> {
        self.need_text("what is needed")?;
        let unit = ask.unit.clone().or_else(|| ask.to.as_ref().map(ToString::to_string));
        let unit = unit.ok_or_else(|| missing("unit", "who is summoned, or `to`: its node"))?;
        if ask.to.as_ref().is_some_and(|to| common(self.book.me, to).is_none()) {
            return Err(Refusal::new(
                "foreign-node",
                "that node is in another tree",
                "a case stays in its city; an address is whole, from the city on",
            ));
        }
        if self.case.assists.len() >= LIST_MAX {
            return Err(Refusal::new("too-many", format!("{LIST_MAX} units were summoned already"), ""));
        }
        let limit = self.limit(ask)?;
        let id = format!("a{}", self.case.assists.len() + 1);
        self.start_clock(&assist_clock(&id), limit);
        let unit = cut(&unit, NAME_MAX);
        let node = ask.to.as_ref().map(ToString::to_string).filter(|node| *node != unit);
        let node = node.map_or(String::new(), |node| format!(" ({node})"));
        let until = limit.map_or(String::new(), |limit| format!(", within {limit}"));
        self.entry.to = Some(format!("{id}: {unit}{node}{until}"));
        if let Some(node) = &ask.to {
            if let Some(top) = common(self.book.me, node) {
                self.case.reach = self.case.reach.min(top.tier());
            }
            self.entry.calls.push(node.clone());
        }
        self.case.assists.push(Assist {
            id,
            unit,
            node: ask.to.clone(),
            asked: self.now,
            by: ask.by.clone(),
            reason: self.entry.text.clone(),
            reported: None,
            reported_by: String::new(),
            result: String::new(),
            rating: None,
        });
        Ok(())
    }

    pub(super) fn report(&mut self, ask: &Ask, now: DateTime<Utc>) -> Result<(), Refusal> {
        self.need_text("what was done")?;
        let from = self.entry.from.clone();
        let is_its = |a: &Assist| from.is_none() || a.node == from;
        if ask.assist.is_none() {
            let its: Vec<&Assist> = self.case.assists.iter().filter(|a| is_its(a)).collect();
            is_awaited(&its, from.as_ref())?;
        }
        let id = self.assist_of(ask, |a| a.reported.is_none() && is_its(a))?;
        if let Some(a) = self.case.assists.iter_mut().find(|a| a.id == id) {
            may_report(a, self.entry.from.as_ref())?;
            a.reported.get_or_insert(now);
            a.reported_by = ask.by.clone();
            a.result = self.entry.text.clone();
        }
        self.stop_clock(&assist_clock(&id));
        self.entry.to = Some(id);
        Ok(())
    }

    pub(super) fn rate(&mut self, ask: &Ask) -> Result<(), Refusal> {
        let rating = ask.rating.ok_or_else(|| missing_such("rating", "4", "1 (bad) to 5 (good)"))?;
        if !(1..=5).contains(&rating) {
            let detail = format!("{rating} is no rating: 1 (bad) to 5 (good)");
            return Err(Refusal::new("bad-request", detail, r#"such as `"rating":4`"#));
        }
        let id = self.assist_of(ask, |a| a.reported.is_some() && a.rating.is_none())?;
        if let Some(a) = self.case.assists.iter_mut().find(|a| a.id == id) {
            may_rate(a, ask)?;
            a.rating = Some(rating);
        }
        self.entry.to = Some(format!("{id}: {rating} of 5"));
        Ok(())
    }

    /// Which summons is meant, by its id or its unit; where only one waits for that, or is there, it need not be said.
    fn assist_of(&self, ask: &Ask, waits: impl Fn(&Assist) -> bool) -> Result<String, Refusal> {
        let all = &self.case.assists;
        let is_named = |a: &Assist| match &ask.assist {
            Some(word) if all.iter().any(|a| a.id == *word) => a.id == *word,
            Some(word) => a.unit == *word,
            None => true,
        };
        let named: Vec<&Assist> = all.iter().filter(|a| is_named(a)).collect();
        let waiting: Vec<&Assist> = named.iter().copied().filter(|a| waits(a)).collect();
        let known = match (named.as_slice(), waiting.as_slice()) {
            ([only], _) | (_, [only]) => return Ok(only.id.clone()),
            ([], _) => all.iter().collect(),
            (_, []) => named,
            _ => waiting,
        };
        let known = known.iter().map(|a| format!("{} ({})", a.id, a.unit)).collect::<Vec<_>>().join(", ");
        let detail = match &ask.assist {
            Some(word) if !all.iter().any(is_named) => format!("nobody was summoned as `{word}`"),
            _ => "several units were summoned".to_owned(),
        };
        Err(Refusal::new("which-assist", detail, format!("`\"assist\":\"ID\"`: one of {known}")))
    }

    pub(super) fn take_over(&mut self) -> Result<(), Refusal> {
        let taker = self.case.offered_to.take().filter(|to| self.entry.from.as_ref() == Some(to));
        let taker = taker.ok_or_else(|| not_offered(&self.case))?;
        self.entry.text = "it was offered, and is taken over".into();
        self.hand_to(taker);
        Ok(())
    }

    /// Its owner keeps what he has offered. What is on its way already is asked for at the other node: `Cases::recall`.
    pub(super) fn take_back(&mut self) -> Result<(), Refusal> {
        let offered = self.case.offered_to.take().ok_or_else(|| not_offered(&self.case))?;
        self.entry.to = Some(format!("the offer to {offered}"));
        Ok(())
    }

    /// Whoever has accepted a press does not come: it climbs on, and all that it has climbed to are called anew.
    pub(super) fn comes_not(&mut self) -> Result<(), Refusal> {
        self.need_text("why it is escalated")?;
        self.case.status = Status::Submitted;
        (self.case.accepted_by, self.case.accepted_from, self.case.signed) = (None, None, None);
        self.stop_clock(DISPATCH);
        self.void_clock(DISPATCH);
        self.run_on(RESPONSE);
        let (owner, top) = (self.case.owner.clone(), watching(&self.case).unwrap_or(&self.case.owner).clone());
        let called = std::iter::successors(Some(owner), Address::parent).take_while(|node| top.covers(node));
        self.entry.calls.extend(called);
        // At the top there is nobody else to call.
        if let Some(above) = above_watching(&self.case) {
            self.escalate(above);
            if above_watching(&self.case).is_some() {
                self.start_clock(CLIMB, Some(self.climb()));
            }
        }
        Ok(())
    }

    pub(super) fn escalate_by(&mut self, ask: &Ask) -> Result<(), Refusal> {
        self.need_text("why it is escalated")?;
        // Whoever takes it is the next one above its owner, however far up it is watched already.
        let from = watching(&self.case).filter(|_| !ask.hand_over).unwrap_or(&self.case.owner);
        let Some(above) = from.parent() else {
            let may_be_taken = may_be_offered(&self.case).is_some();
            let hint = if may_be_taken { r#"`"hand_over":true` offers it to the node above its owner"# } else { "" };
            return Err(Refusal::new(NOBODY_ABOVE, format!("`{}` is at the top already", self.case.id), hint));
        };
        if ask.hand_over && self.case.offered_to.as_ref() == Some(&above) {
            let detail = format!("`{}` is offered to {above} already", self.case.id);
            let hint = "it is taken there as soon as that node hears of it; `recall` takes the offer back";
            return Err(Refusal::new("not-now", detail, hint));
        }
        self.escalate(above.clone());
        if ask.hand_over {
            self.case.offered_to = Some(above);
        }
        Ok(())
    }

    pub(super) fn reopen(&mut self, now: DateTime<Utc>) -> Result<(), Refusal> {
        self.need_text("why it is reopened")?;
        if let Some(until) = self.case.reopen_until.filter(|until| now > *until) {
            return Err(Refusal::new(
                "too-late",
                format!("`{}` could be reopened until {}", self.case.id, citybrain_shared::view::rfc3339(until)),
                if self.case.booking.is_some() {
                    "ask for it anew: `citybrain service request`"
                } else {
                    "open a new case: `citybrain case new`"
                },
            ));
        }
        self.case.reopened += 1;
        self.begin_again(Status::Accepted);
        Ok(())
    }

    pub(super) fn exclude(&mut self, ask: &Ask) -> Result<(), Refusal> {
        self.case.excluded = Some(self.approved(ask, "why it is not counted")?);
        Ok(())
    }
}

fn one_of(reason: ClosedReason, all: &[ClosedReason]) -> Result<(), Refusal> {
    if all.contains(&reason) {
        return Ok(());
    }
    let list = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let hint = "`merge` says that it follows another, `withdraw` that it is no longer wanted";
    Err(Refusal::new("bad-request", format!("`{reason}` is no reason here: one of {list}"), hint))
}

/// A report that does not say whose it is belongs to a summons that waits for one: of the node where it is said, if
/// that is not where the case is.
fn is_awaited(its: &[&Assist], from: Option<&Address>) -> Result<(), Refusal> {
    if its.iter().any(|a| a.reported.is_none()) {
        return Ok(());
    }
    let Some(first) = its.first() else {
        let detail = from.map_or("nobody was summoned".into(), |from| format!("nobody was summoned to {from}"));
        return Err(Refusal::new("not-summoned", detail, "at the node that was, or where the case is"));
    };
    let all = its.iter().map(|a| format!("{} ({})", a.id, a.unit)).collect::<Vec<_>>().join(", ");
    let detail = format!("{all} {} reported already", if its.len() == 1 { "has" } else { "have" });
    Err(Refusal::new("not-now", detail, format!("`\"assist\":\"{}\"` puts another report in its place", first.id)))
}

/// What a unit did is said at its own node, or where the case is, and not by others for it.
fn may_report(assist: &Assist, from: Option<&Address>) -> Result<(), Refusal> {
    let Some(from) = from.filter(|from| assist.node.as_ref() != Some(from)) else { return Ok(()) };
    let detail = format!("{} ({}) was not summoned to {from}", assist.id, assist.unit);
    let hint = match &assist.node {
        Some(node) => format!("at {node}, or at the node whose case it is"),
        None => "at the node whose case it is".to_owned(),
    };
    Err(Refusal::new("not-summoned", detail, hint))
}

/// The one who summoned a unit rates it, once, when it has reported; or whoever supervises him, but never the unit
/// itself.
fn may_rate(assist: &Assist, ask: &Ask) -> Result<(), Refusal> {
    let not_now = |detail: String, hint: &str| Err(Refusal::new("not-now", detail, hint));
    if assist.reported.is_none() {
        return not_now(format!("{} ({}) has not reported", assist.id, assist.unit), "rate it when it has: `report`");
    }
    if let Some(rating) = assist.rating {
        return not_now(format!("{} ({}) was rated {rating} of 5 already", assist.id, assist.unit), "once is all");
    }
    if is_same_person(&assist.by, &ask.by) || assist.by.is_empty() {
        return Ok(());
    }
    let is_its = [&assist.unit, &assist.reported_by].into_iter().any(|name| is_same_person(name, &ask.by));
    if ask.role == Some(Role::Supervisor) && !is_its {
        return Ok(());
    }
    let detail = format!("{} was summoned by {}, who rates it; {} may not", assist.unit, assist.by, ask.by);
    Err(Refusal::new("not-the-caller", detail, r#"whoever summoned it: `"by":"NAME"`; or a supervisor does it"#))
}
