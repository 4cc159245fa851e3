//! A wish, done or refused.

use super::turn::{LIST_MAX, NAME_MAX, TEXT_MAX, Turn, cut, is_same_person, missing};
use super::{Asker, Book, Refusal, Stepped, TIMER, allowed, fits, is_name, is_taken_back, roles, watching};
use crate::brain::cases::letter::bytes_of;
use chrono::{DateTime, Utc};
use citybrain_shared::case::{
    Ask, Assist, CLIMB, Case, ClosedReason, DISPATCH, Finding, Kind, Role, SOLUTION, Solved, Status, Verb, assist_clock,
};

/// Bytes of a case as JSON. With the lines that travel, and with whom to call, it is less than an event may
/// have ([`citybrain_shared::limits::EVENT_BYTES_MAX`]): so every link takes it.
const CASE_BYTES_MAX: usize = 96 * 1024;
/// By so many bytes a step may make a case larger that has too many: a name and a few times.
const MOVING_BYTES_MAX: usize = 512;

impl Book<'_> {
    /// Does what is asked, if the owner may. `other` finds a second case that is known here, for a merge.
    ///
    /// # Errors
    /// [`Refusal`], naming the steps that are allowed.
    pub fn act(
        &self,
        case: &Case,
        verb: Verb,
        ask: &Ask,
        asker: Asker<'_>,
        other: &dyn Fn(&str) -> Option<Case>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Stepped>, Refusal> {
        let ask = &named(ask);
        self.check(case, verb, ask, asker.opened_it)?;
        let from = (asker.at != self.me).then(|| asker.at.clone());
        let mut turn = Turn::new(self, case, verb.done(), &ask.by, ask.role, from.clone(), now);
        turn.entry.text = cut(ask.text.as_deref().unwrap_or_default(), TEXT_MAX);
        if verb != Verb::Resolve {
            turn.show(&ask.evidence)?;
        }
        if verb == Verb::Comment {
            turn.moved(ask.place.as_ref());
        }
        let mut more = Vec::new();
        match verb {
            Verb::Accept => {
                turn.case.status = Status::Accepted;
                turn.case.accepted_by = Some(ask.by.clone());
                turn.case.accepted_from = Some(from.as_ref().unwrap_or(self.me).clone());
                turn.stop_clock(CLIMB);
                turn.start_clock(DISPATCH, turn.limit_of(|t| t.dispatch));
                if case.kind == Kind::Incident {
                    turn.case.signed.get_or_insert(now);
                }
                turn.responded(ask.contacted);
            }
            Verb::Reject => {
                turn.need_text("why it is rejected")?;
                let reason = ask.reason.unwrap_or(ClosedReason::NotOurs);
                one_of(reason, &[ClosedReason::NotOurs, ClosedReason::Refused, ClosedReason::Emergency])?;
                turn.end(Status::Rejected, reason);
            }
            Verb::Dispatch => turn.dispatch(ask)?,
            Verb::Start => {
                turn.case.status = Status::Handling;
                turn.case.signed.get_or_insert(now);
                turn.handled()?;
                turn.responded(ask.contacted);
            }
            Verb::Contact => turn.responded(true),
            Verb::Resolve => turn.resolve(ask)?,
            Verb::Verify => {
                let passed = ask.passed.ok_or_else(|| missing("passed", "whether the check passed"))?;
                if !passed {
                    turn.need_text("what the check found")?;
                }
                turn.case.finding =
                    Some(Finding { by: ask.by.clone(), at: now, passed, text: turn.entry.text.clone() });
                turn.entry.to = Some(if passed { "passed" } else { "failed" }.into());
                if !passed {
                    turn.case.status = Status::Handling;
                    turn.case.reworks += 1;
                    turn.start_clock(SOLUTION, turn.limit_of(|t| t.solution));
                }
            }
            Verb::Evaluate => {
                if ask.solved.is_none() && ask.satisfied.is_none() && turn.entry.text.is_empty() {
                    return Err(missing("solved", "what the resident says, or why nobody could be asked (`--text`)"));
                }
                if case.verdict.is_some() && ask.solved.is_none() && ask.satisfied.is_none() {
                    return Err(missing("solved", "what is said otherwise now, or `--satisfied`"));
                }
                turn.judge(ask);
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
                let said = case.said_solved().or(case.outcome.as_ref().map(|o| o.solved));
                let solved = said == Some(Solved::Solved);
                let reason = if solved { ClosedReason::Solved } else { ClosedReason::Unsolved };
                let reason = ask.reason.unwrap_or(reason);
                // What follows another is merged, what a resident takes back is withdrawn.
                use ClosedReason as R;
                one_of(reason, &[R::Solved, R::Unsolved, R::NotOurs, R::Refused])?;
                turn.end(Status::Closed, reason);
            }
            Verb::Return => {
                turn.need_text("why it is returned")?;
                turn.case.returns += 1;
                turn.case.status = Status::Accepted;
                turn.case.unit.clear();
                turn.case.suspended = None;
                turn.stop_clock(SOLUTION);
                turn.void_clock(SOLUTION);
                turn.start_clock(DISPATCH, turn.limit_of(|t| t.dispatch));
                // It stays on the list until it has come there: called back, it is returned there again.
                if let Some(to) = turn.case.dispatched_by.last().cloned() {
                    turn.hand_to(to);
                }
            }
            Verb::Suspend => {
                let approved = turn.approved(ask, "why it must wait")?;
                turn.case.suspended = Some(approved);
                turn.case.suspensions += 1;
                turn.pause_clock(SOLUTION);
            }
            Verb::Resume => {
                turn.case.suspended = None;
                turn.resume_clock(SOLUTION);
            }
            Verb::Extend => {
                let limit = turn.limit(ask)?.ok_or_else(|| missing("limit", "by how much, such as 2wd"))?;
                let approved = turn.approved(ask, "why it takes longer")?;
                if !turn.extend_clock(SOLUTION, limit) {
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
                    a.reported_by = ask.by.clone();
                    a.result = text;
                }
                turn.stop_clock(&assist_clock(&id));
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
                    may_rate(a, ask)?;
                    a.rating = Some(rating);
                }
                turn.entry.to = Some(format!("{id}: {rating} of 5"));
            }
            // Whoever it was offered to takes it.
            Verb::Escalate if ask.by == TIMER => {
                let taker = turn.case.offered_to.take().filter(|to| from.as_ref() == Some(to));
                let Some(taker) = taker else {
                    let detail = format!("`{}` is not offered any more", case.id);
                    return Err(Refusal::new("not-now", detail, "it was dealt with, or taken, since the limit passed"));
                };
                turn.entry.text = "a limit has passed, and it takes over".into();
                turn.hand_to(taker);
            }
            Verb::Escalate => {
                turn.need_text("why it is escalated")?;
                // Whoever takes it is the next one above its owner, however far up it is watched already.
                let from = watching(case).filter(|_| !ask.hand_over).unwrap_or(&case.owner);
                let Some(above) = from.parent() else {
                    return Err(Refusal::new("nobody-above", format!("`{}` is at the top already", case.id), ""));
                };
                turn.escalate(above.clone());
                if ask.hand_over {
                    turn.hand_to(above);
                }
            }
            Verb::Reopen => {
                turn.need_text("why it is reopened")?;
                let until = self.reopen_until(case);
                if now > until {
                    return Err(Refusal::new(
                        "too-late",
                        format!("`{}` could be reopened until {}", case.id, citybrain_shared::view::rfc3339(until)),
                        "open a new case: `citybrain case new`",
                    ));
                }
                turn.case.reopened += 1;
                turn.begin_again(Status::Accepted);
            }
            Verb::Withdraw => turn.end(Status::Withdrawn, ClosedReason::Withdrawn),
            Verb::Merge => more.push(turn.merge(ask, other)?),
            // A picture says it, too.
            Verb::Comment if !turn.entry.evidence.is_empty() => {}
            Verb::Comment => turn.need_text("what you want to say")?,
            // It asks the other node and steps nothing: `Cases::recall`.
            Verb::Recall => {}
            Verb::Forget => turn.case.forgotten = true,
            Verb::Exclude => {
                let approved = turn.approved(ask, "why it is not counted")?;
                turn.case.excluded = Some(approved);
            }
        }
        is_small(case, &turn.case)?;
        let mut all = vec![turn.done()];
        all.append(&mut more);
        Ok(all)
    }

    /// May he ask for that now?
    ///
    /// # Errors
    /// [`Refusal`], naming the steps that are allowed.
    pub(in crate::brain::cases) fn check(
        &self,
        case: &Case,
        verb: Verb,
        ask: &Ask,
        opened_it: bool,
    ) -> Result<(), Refusal> {
        let list = |verbs: Vec<Verb>| verbs.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", ");
        is_named(ask)?;
        is_as_seen(case, ask)?;
        if let Some(to) = case.handing_to.as_ref().filter(|_| verb != Verb::Recall) {
            let detail = format!("`{}` is on its way to {to}: nobody steps until it has been taken there", case.id);
            let why = if self.me.covers(to) && to != self.me { format!("why {to}") } else { "why".to_owned() };
            let hint = format!("`citybrain {why}` says what holds it up; `recall` asks for it back");
            return Err(Refusal::new("on-its-way", detail, hint));
        }
        if let Err(why) = fits(case, verb)
            && (verb != Verb::Recall || case.handing_to.is_none())
        {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            let detail = format!("`{}` is {} and does not take `{verb}`{why}", case.id, case.standing());
            return Err(Refusal::new("not-now", detail, format!("it takes {}", list(allowed(case)))));
        }
        if !(opened_it && is_taken_back(case, verb)) {
            may(verb, ask)?;
        }
        use Verb::{Close, Evaluate, Merge, Reject, Verify, Withdraw};
        let ends_it = matches!(verb, Verify | Evaluate | Close | Reject | Merge | Withdraw);
        if ends_it && case.handlers.iter().any(|handler| is_same_person(handler, &ask.by)) {
            let detail = format!("{} has handled `{}`: who handles may not {verb}", ask.by, case.id);
            return Err(Refusal::new("handler", detail, "somebody else must: `--by NAME`"));
        }
        Ok(())
    }
}

/// # Errors
/// [`Refusal`]: nobody says who he is.
pub(in crate::brain::cases) fn is_named(ask: &Ask) -> Result<(), Refusal> {
    if ask.by.trim().is_empty() { Err(missing("by", "who does it")) } else { Ok(()) }
}

/// May somebody of his role ask for that, wherever the case stands?
///
/// # Errors
/// [`Refusal`]: nobody says who he is, or it is for others.
pub(in crate::brain::cases) fn may(verb: Verb, ask: &Ask) -> Result<(), Refusal> {
    is_named(ask)?;
    let role = ask.role.unwrap_or(Role::Worker);
    if roles(verb).contains(&role) {
        return Ok(());
    }
    let needed = roles(verb).iter().map(|r| r.as_str()).collect::<Vec<_>>().join(" or ");
    // Others read the answer to a wish, and a resident's name is not for them.
    let who = if role == Role::Resident && is_name(&ask.by) { "whoever asks" } else { &ask.by };
    let detail = format!("`{verb}` is for a {needed}, and {who} is a {role} here");
    Err(Refusal::new("not-your-role", detail, format!("`--role {}`", roles(verb)[0])))
}

fn one_of(reason: ClosedReason, all: &[ClosedReason]) -> Result<(), Refusal> {
    if all.contains(&reason) {
        return Ok(());
    }
    let list = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let hint = "`merge` says that it follows another, `withdraw` that it is no longer wanted";
    Err(Refusal::new("bad-request", format!("`{reason}` is no reason here: one of {list}"), hint))
}

/// With names as they are compared, blanks around one make no other person; and with no more text than a
/// step takes, so that it always fits into a letter.
pub(in crate::brain::cases) fn named(ask: &Ask) -> Ask {
    let trimmed = |name: &String| cut(name, NAME_MAX);
    Ask {
        by: trimmed(&ask.by),
        approved_by: ask.approved_by.as_ref().map(trimmed),
        text: ask.text.as_ref().map(|text| cut(text, TEXT_MAX)),
        unit: ask.unit.as_ref().map(trimmed),
        evidence: ask.evidence.iter().take(LIST_MAX).map(|e| cut(e, 500)).collect(),
        limit: ask.limit.as_ref().map(trimmed),
        assist: ask.assist.as_ref().map(trimmed),
        into: ask.into.as_ref().map(trimmed),
        place: ask.place.as_ref().map(super::placed),
        seen: ask.seen.iter().take(LIST_MAX).map(trimmed).collect(),
        ..ask.clone()
    }
}

/// Has the step left a case that still travels? What only closes it, or moves it on, always may.
fn is_small(before: &Case, after: &Case) -> Result<(), Refusal> {
    let bytes = bytes_of(after);
    if bytes <= CASE_BYTES_MAX || bytes <= bytes_of(before) + MOVING_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("`{}` would be of {bytes} bytes; a case has at most {CASE_BYTES_MAX}", after.id);
    Err(Refusal::new("too-large", detail, "say it shorter, or by reference (`--evidence NAME=URL`)"))
}

/// The one who summoned a unit rates it; or whoever supervises him, but never the unit itself.
fn may_rate(assist: &Assist, ask: &Ask) -> Result<(), Refusal> {
    if is_same_person(&assist.by, &ask.by) || assist.by.is_empty() {
        return Ok(());
    }
    if ask.role == Some(Role::Supervisor) && !is_same_person(&assist.reported_by, &ask.by) {
        return Ok(());
    }
    let detail = format!("{} was summoned by {}, who rates it; {} may not", assist.unit, assist.by, ask.by);
    Err(Refusal::new("not-the-caller", detail, "`--by` whoever summoned it; or a supervisor does it"))
}

/// Has it moved on since whoever asks has looked at it?
pub(in crate::brain::cases) fn is_as_seen(case: &Case, ask: &Ask) -> Result<(), Refusal> {
    let stamp = case.stamp();
    if ask.seen.is_empty() || ask.seen.contains(&stamp) {
        return Ok(());
    }
    let seen = cut(&ask.seen.join(" or "), NAME_MAX);
    let detail = format!("`{}` has moved on: it was seen as {seen}, and is {stamp} now", case.id);
    Err(Refusal::new("moved-on", detail, "look at it again, and ask again if it is still wanted"))
}
