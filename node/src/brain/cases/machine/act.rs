//! A wish, done or refused.

use super::turn::{LIST_MAX, NAME_MAX, TEXT_MAX, Turn, cut, is_same_person, missing};
use super::{Asker, Book, Refusal, Stepped, TIMER, common, fits, is_name, is_taken_back, roles};
use crate::brain::cases::letter::bytes_of;
use chrono::{DateTime, Utc};
use citybrain_shared::case::{Ask, Case, ClosedReason, Role, Status, Verb};

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
        self.check(case, verb, ask, asker.opened_it, now)?;
        let from = (asker.at != self.me).then(|| asker.at.clone());
        // What a node does by itself is nobody's role.
        let role = ask.role.filter(|_| ask.by != TIMER);
        let mut turn = Turn::new(self, case, verb.done(), &ask.by, role, from, now);
        turn.entry.text = cut(ask.text.as_deref().unwrap_or_default(), TEXT_MAX);
        if verb != Verb::Resolve {
            turn.show(&ask.evidence)?;
        }
        if verb == Verb::Comment {
            turn.moved(ask.place.as_ref());
        }
        let mut joined = None;
        match verb {
            Verb::Accept => turn.accept(ask, now),
            Verb::Reject => turn.reject(ask)?,
            Verb::Dispatch => turn.dispatch(ask)?,
            Verb::Start => turn.start(ask, now)?,
            Verb::Contact => turn.responded(true),
            Verb::Resolve => turn.resolve(ask)?,
            Verb::Verify => turn.verify(ask, now)?,
            Verb::Evaluate => turn.evaluate(ask)?,
            Verb::Close => turn.close(ask)?,
            Verb::Return => turn.sent_back()?,
            Verb::Suspend => turn.suspend(ask)?,
            Verb::Resume => turn.resume(),
            Verb::Extend => turn.extend(ask)?,
            Verb::Assist => turn.assist(ask)?,
            Verb::Report => turn.report(ask, now)?,
            Verb::Rate => turn.rate(ask)?,
            // Whoever it was offered to takes it.
            Verb::Escalate if ask.by == TIMER => turn.take_over()?,
            Verb::Escalate if asker.takes_back && case.urgent && case.status == Status::Accepted => {
                turn.comes_not()?;
            }
            Verb::Escalate => turn.escalate_by(ask)?,
            Verb::Reopen => turn.reopen(now)?,
            Verb::Withdraw => turn.end(Status::Withdrawn, ClosedReason::Withdrawn),
            Verb::Merge => joined = turn.merge(ask, other)?,
            // A picture says it, too.
            Verb::Comment if !turn.entry.evidence.is_empty() => {}
            Verb::Comment => turn.need_text("what you want to say")?,
            Verb::Recall => turn.take_back()?,
            Verb::Forget => turn.case.forgotten = true,
            Verb::Exclude => turn.exclude(ask)?,
        }
        is_small(case, &turn.case)?;
        Ok(std::iter::once(turn.done()).chain(joined).collect())
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
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let list = |verbs: Vec<Verb>| verbs.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", ");
        is_named(ask)?;
        is_as_seen(case, ask)?;
        if let Some(to) = case.handing_to.as_ref().filter(|_| verb != Verb::Recall) {
            let detail = format!("`{}` is on its way to {to}: nobody steps until it has been taken there", case.id);
            // Only a node above both sees the whole way; of its own way up a node sees the link alone.
            let top = common(self.me, to).unwrap_or_else(|| self.me.clone());
            let look = match top == *to {
                true => "here: `citybrain links` says whether the tier above is heard".to_owned(),
                false => format!("at {top}: `citybrain why {to}` says what holds it up"),
            };
            let hint = format!("{look}; `recall` asks for it back");
            return Err(Refusal::new("on-its-way", detail, hint));
        }
        if let Err(why) = fits(case, verb) {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            let detail = format!("`{}` is {} and does not take `{verb}`{why}", case.id, case.standing());
            // What is for others is no advice.
            let is_his = |v: Verb| ask.role.is_none_or(|role| roles(v).contains(&role));
            let may =
                |v: &Verb| (is_his(*v) || (opened_it && is_taken_back(case, *v))) && !is_for_others(case, *v, &ask.by);
            let takes: Vec<Verb> = self.allowed(case, now).into_iter().filter(may).collect();
            let of_whom = ask.role.map_or(String::new(), |role| format!(" of a {role}'s"));
            let takes = if takes.is_empty() { format!("nothing{of_whom} now") } else { list(takes) };
            return Err(Refusal::new("not-now", detail, format!("it takes {takes}")));
        }
        if !(opened_it && is_taken_back(case, verb)) {
            may(verb, ask)?;
        }
        if is_for_others(case, verb, &ask.by) {
            let detail = format!("{} has handled `{}`: who handles may not {verb}", ask.by, case.id);
            let hint = match ask.role {
                Some(Role::Resident) => {
                    r#"a resident who is called as whoever handles says so: `"by":"NAME (resident)"`"#
                }
                _ => r#"somebody else must: `"by":"NAME"`"#,
            };
            return Err(Refusal::new("handler", detail, hint));
        }
        Ok(())
    }
}

/// Would it end what he has handled himself?
pub fn is_for_others(case: &Case, verb: Verb, by: &str) -> bool {
    use Verb::{Close, Evaluate, Merge, Reject, Verify, Withdraw};
    let ends_it = matches!(verb, Verify | Evaluate | Close | Reject | Merge | Withdraw);
    ends_it && handlers(case).any(|handler| is_same_person(handler, by))
}

/// Who has handled it, or does: people, their units, summoned units that have reported, and whoever did so for them.
fn handlers(case: &Case) -> impl Iterator<Item = &str> {
    let reported = case.assists.iter().filter(|a| a.reported.is_some()).flat_map(|a| [&a.unit, &a.reported_by]);
    let all = case.handlers.iter().chain([&case.unit]).chain(reported);
    all.map(String::as_str).filter(|name| !name.is_empty())
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
    let role = ask.role.unwrap_or(verb.usual_role());
    if roles(verb).contains(&role) {
        return Ok(());
    }
    let needed = roles(verb).iter().map(|r| r.as_str()).collect::<Vec<_>>().join(" or ");
    // Others read the answer to a wish, and a resident's name is not for them.
    let who = if role == Role::Resident && is_name(&ask.by) { "whoever asks" } else { &ask.by };
    let detail = format!("`{verb}` is for a {needed}, and {who} is a {role} here");
    Err(Refusal::new(super::NOT_YOUR_ROLE, detail, format!("`\"role\":\"{}\"`", roles(verb)[0])))
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
    Err(Refusal::new("too-large", detail, r#"say it shorter, or by reference (`"evidence":["NAME=URL"]`)"#))
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
