//! Categories, cases and their history, as GeoReport v2 and mySociety's extension have them.

use super::ask::{self, w3c};
use super::body::Body;
use crate::brain::cases::Held;
use crate::brain::form::Fault;
use chrono::{DateTime, Utc};
use citybrain_shared::case::{Case, ClosedReason, Entry, Role, SOLUTION, Solved, Verb, closed_word, step};
use citybrain_shared::config::cases::Category;
use citybrain_shared::config::services::{Answer as Type, Field};
use citybrain_shared::view;

/// Each line of its history, and since when it can be told here.
pub fn told(held: &Held) -> impl Iterator<Item = (&Entry, DateTime<Utc>)> {
    held.told().map(|(e, at_us)| (e, view::time_of(at_us)))
}

/// When it has changed last, as far as that can be told here: also behind its closing.
pub fn changed(held: &Held) -> DateTime<Utc> {
    view::time_of(held.told_us())
}

/// When it was closed, as GeoReport has it, or has changed.
fn updated(held: &Held) -> DateTime<Utc> {
    match held.case.closed.filter(|_| !held.case.status.is_open()) {
        Some(closed) => told(held).find(|(e, _)| e.at == closed).map_or(closed, |(_, at)| at),
        None => changed(held),
    }
}

/// When this node came to know of it.
pub fn came(held: &Held) -> DateTime<Utc> {
    told(held).next().map_or(held.case.opened, |(_, at)| at)
}

pub fn service(c: &Category) -> Body {
    Body::Object(vec![
        ("service_code", Body::text(c.code.clone())),
        ("service_name", Body::text(c.name.clone())),
        ("description", Body::text(c.description.clone())),
        ("metadata", Body::Bool(!c.form.is_empty())),
        ("type", Body::text("realtime")),
        ("keywords", Body::text(c.keywords.join(","))),
        ("group", Body::text(c.department.clone())),
    ])
}

/// What a service asks.
pub fn definition(c: &Category) -> Body {
    let attribute = |(i, f): (usize, &Field)| {
        let datatype = match (f.choices.is_empty(), f.multiple, f.kind) {
            (false, false, _) => "singlevaluelist",
            (false, true, _) => "multivaluelist",
            (true, _, Type::String) => "string",
            (true, _, Type::Text) => "text",
            (true, _, Type::Number) => "number",
            (true, _, Type::Datetime) => "datetime",
        };
        let value = |v: &String| Body::Object(vec![("key", Body::text(v.clone())), ("name", Body::text(v.clone()))]);
        let mut fields = vec![
            ("variable", Body::Bool(true)),
            ("code", Body::text(f.name.clone())),
            ("datatype", Body::text(datatype)),
            ("required", Body::Bool(f.required)),
            ("datatype_description", Body::Null),
            ("order", Body::Count(i as u64 + 1)),
            ("description", Body::text(f.label())),
        ];
        if !f.choices.is_empty() {
            fields.push(("values", Body::List("value", f.choices.iter().map(value).collect())));
        }
        Body::Object(fields)
    };
    Body::Object(vec![
        ("service_code", Body::text(c.code.clone())),
        ("attributes", Body::List("attribute", c.form.iter().enumerate().map(attribute).collect())),
    ])
}

/// What would do, in this door's words: its clients have no command line.
pub fn allowed(c: &Category, fault: &Fault) -> String {
    match c.form.iter().find(|f| f.name == fault.name) {
        Some(f) if fault.is_missing && !f.choices.is_empty() => format!("one of {}", f.choices.join(", ")),
        Some(_) if fault.is_missing => "it is required".into(),
        _ => fault.hint.clone(),
    }
}

/// What has a title alone (from a rule, from a desk) says there what it is about; of a request that was filed
/// without a word that is its service's name.
fn words_of(c: &Case) -> String {
    let title = if c.title == c.category_name { "" } else { &c.title };
    if c.description.is_empty() { title.to_owned() } else { c.description.clone() }
}

pub fn request(held: &Held, extended: bool) -> Body {
    let c = &held.case;
    let place = c.place.clone().unwrap_or_default();
    let agency = c.unit_at_work().unwrap_or(&c.department).to_owned();
    let name = if c.category_name.is_empty() { &c.category } else { &c.category_name };
    let expected = c.clock(SOLUTION).and_then(|clock| clock.due).map(w3c).unwrap_or_default();
    let mut fields = vec![
        ("service_request_id", Body::text(c.id.clone())),
        ("status", Body::text(if c.status.is_open() { "open" } else { "closed" })),
        ("status_notes", Body::text(notes(held))),
        ("service_name", Body::text(name.clone())),
        ("service_code", Body::text(c.category.clone())),
        ("description", Body::text(words_of(c))),
        ("agency_responsible", Body::text(agency)),
        ("service_notice", Body::Null),
        ("requested_datetime", Body::text(w3c(c.opened))),
        ("updated_datetime", Body::text(w3c(updated(held)))),
        ("expected_datetime", Body::text(expected)),
        ("address", Body::text(place.text)),
        ("address_id", Body::Null),
        ("zipcode", Body::Null),
        ("lat", Body::number(place.lat)),
        ("long", Body::number(place.lon)),
        ("media_url", Body::text(c.media.first().cloned().unwrap_or_default())),
    ];
    if extended {
        let answer = |(name, answer): (&String, &String)| {
            Body::Object(vec![("code", Body::text(name.clone())), ("value", Body::text(answer.clone()))])
        };
        fields.push(("attributes", Body::List("attribute", c.form.iter().map(answer).collect())));
    }
    Body::Object(fields)
}

/// Why it stands where it does: what was said of its end, else what was done, else which case it
/// follows, else the reason in a word.
fn notes(held: &Held) -> String {
    let c = &held.case;
    let since = held.history.iter().rev().take_while(|e| c.closed.is_some_and(|closed| closed <= e.at));
    let of_end = since.filter(|e| is_answer(e) || (c.closed == Some(e.at) && is_for_residents(e)));
    let ended = of_end.map(|e| words_and_picture(&e.text).0);
    let done = c.outcome.iter().map(|o| o.text.as_str());
    let reason = c.closed_reason.map(ClosedReason::as_str);
    let said = ended.chain(done).find(|text| !text.is_empty()).map(str::to_owned);
    // Why it was merged is said among those who did it.
    let follows = || c.merged_into.as_ref().map(|leader| format!("it follows {leader}"));
    said.or_else(follows).or_else(|| reason.map(str::to_owned)).unwrap_or_default()
}

pub fn update_id(case: &str, term: u32, version: u32) -> String {
    format!("{case}.{term}.{version}")
}

/// By what an update is known: whoever posted it under a name of its own, or where the case was another node's, has
/// been told the id of his wish, before it had a place in the case's history.
fn id_of(case: &str, e: &Entry) -> String {
    e.wish.clone().unwrap_or_else(|| update_id(case, e.term, e.version))
}

/// Is its text for residents? What is said among those who handle a case stays among them.
pub fn is_for_residents(e: &Entry) -> bool {
    is_answer(e) || e.role == Some(Role::Resident)
}

/// Does it say to residents what became of the matter?
fn is_answer(e: &Entry) -> bool {
    match Verb::of_done(&e.step) {
        Some(verb) => matches!(verb, Verb::Resolve | Verb::Reject | Verb::Close),
        None => [step::FOLLOWED, step::UNMERGED].contains(&e.step.as_str()),
    }
}

/// A resident's picture stands behind his words.
fn words_and_picture(text: &str) -> (&str, &str) {
    text.rsplit_once('\n').filter(|(_, url)| ask::is_url(url)).unwrap_or((text, ""))
}

/// Where a reference leads: `NAME=URL`, or the URL alone.
pub fn url_of(reference: &str) -> Option<&str> {
    let named = reference.split_once('=').map(|(_, url)| url);
    [Some(reference), named].into_iter().flatten().find(|url| ask::is_url(url))
}

/// `at`: since when it can be told here.
pub fn update(case: &Case, e: &Entry, at: DateTime<Utc>, status: &str) -> Body {
    let text = if is_for_residents(e) { e.text.as_str() } else { "" };
    // The handler's picture is what shows that it is done.
    let (text, media) = words_and_picture(text);
    let shown = case.outcome.as_ref().filter(|o| e.step == Verb::Resolve.done() && o.at == e.at);
    let own = is_for_residents(e).then_some(&e.evidence);
    let shown = shown.map(|o| &o.evidence).into_iter().chain(own).flatten();
    let media = Some(media).filter(|m| !m.is_empty()).or_else(|| shown.into_iter().find_map(|r| url_of(r)));
    Body::Object(vec![
        ("update_id", Body::text(id_of(&case.id, e))),
        ("service_request_id", Body::text(case.id.clone())),
        ("status", Body::text(status)),
        ("updated_datetime", Body::text(w3c(at))),
        ("description", Body::text(text)),
        ("media_url", Body::text(media.unwrap_or_default())),
    ])
}

/// mySociety's word for a step of that history; `None`: it is no news to a resident. It goes by what was said until
/// then: what was told once stays so.
pub fn update_status(history: &[Entry], e: &Entry) -> Option<&'static str> {
    Some(match Verb::of_done(&e.step) {
        Some(Verb::Accept) => "investigating",
        Some(Verb::Dispatch | Verb::Start | Verb::Resume) => "in_progress",
        Some(Verb::Suspend) => "planned",
        Some(Verb::Return) => "for_triage",
        Some(Verb::Escalate) => "internal_referral",
        Some(Verb::Resolve) if solved(e) == Some(Solved::Solved) => "fixed",
        Some(Verb::Resolve) => "in_progress",
        Some(Verb::Verify) if e.to.as_deref() == Some("failed") => "reopen",
        Some(Verb::Reopen) => "reopen",
        Some(Verb::Withdraw) => "cancelled",
        Some(Verb::Merge) => "duplicate",
        Some(Verb::Reject | Verb::Close) => {
            let reason = e.to.as_deref().and_then(|to| to.parse().ok());
            let (handlers, residents) = said_until(history, e);
            reason.map_or("closed", |reason| closed_word(reason, handlers, residents))
        }
        Some(Verb::Comment) if e.role == Some(Role::Resident) => "unchanged",
        // Whoever posted it has been told its id.
        Some(Verb::Evaluate) if e.role == Some(Role::Resident) => match solved(e) {
            Some(Solved::Solved) => "fixed",
            // Only a reopening opens what is closed, and is told as that.
            Some(Solved::Unsolved) if is_closed_until(history, e) => "no_further_action",
            Some(Solved::Unsolved) => "reopen",
            _ => "unchanged",
        },
        // How the case ended that it follows.
        None if e.step == step::FOLLOWED => match e.to.as_deref() {
            Some("solved") => "fixed",
            Some(_) => "no_further_action",
            None => "reopen",
        },
        None if e.step == step::UNMERGED => "open",
        _ => return None,
    })
}

/// Whether it is solved, as an answer (`solved`) or a verdict (`solved: solved, satisfied: yes`) says in its line.
fn solved(e: &Entry) -> Option<Solved> {
    let to = e.to.as_deref()?;
    let to = to.strip_prefix("solved: ").unwrap_or(to);
    to.split(',').next()?.parse().ok()
}

/// The lines before that one, the newest first.
fn before<'h>(history: &'h [Entry], line: &Entry) -> impl Iterator<Item = &'h Entry> {
    let order = |e: &Entry| (e.term, e.version);
    let at = order(line);
    history.iter().rev().skip_while(move |e| order(e) >= at)
}

/// Was the case closed when that line was written?
fn is_closed_until(history: &[Entry], e: &Entry) -> bool {
    let mut steps = before(history, e).filter_map(|b| Verb::of_done(&b.step));
    steps.find(|verb| matches!(verb, Verb::Close | Verb::Reopen)) == Some(Verb::Close)
}

/// Was it solved, as handler and resident had said of the last answer when that line closed it?
fn said_until(history: &[Entry], closing: &Entry) -> (Option<Solved>, Option<Solved>) {
    let mut residents = None;
    for e in before(history, closing) {
        match Verb::of_done(&e.step) {
            Some(Verb::Resolve) => return (solved(e), residents),
            Some(Verb::Evaluate) if e.role == Some(Role::Resident) => residents = residents.or_else(|| solved(e)),
            _ => {}
        }
    }
    (None, residents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::Address;

    /// A history of these steps; what a resident says is his.
    fn history(steps: &[(&str, &str)]) -> Vec<Entry> {
        let line = |(i, (step, to)): (usize, &(&str, &str))| Entry {
            term: 1,
            version: i as u32 + 1,
            step: (*step).to_owned(),
            at: DateTime::UNIX_EPOCH,
            node: Address::parse("c").unwrap(),
            from: None,
            wish: None,
            by: String::new(),
            role: (*step == Verb::Evaluate.done()).then_some(Role::Resident),
            text: String::new(),
            place: None,
            to: Some((*to).to_owned()),
            clocks: Vec::new(),
            calls: Vec::new(),
            evidence: Vec::new(),
        };
        steps.iter().enumerate().map(line).collect()
    }

    #[test]
    fn the_word_for_a_step_stays_the_same_whatever_is_done_after_it() {
        let (solved, unsolved) = ("solved: solved, satisfied: yes", "solved: unsolved, satisfied: no answer");
        let steps = [
            ("resolved", "solved", "fixed"),
            ("evaluated", unsolved, "reopen"),
            ("closed", "unsolved", "no_further_action"),
            ("reopened", "", "reopen"),
            ("resolved", "unsolved", "in_progress"),
            ("closed", "solved", "no_further_action"),
            ("evaluated", solved, "fixed"),
            ("reopened", "", "reopen"),
            ("resolved", "solved", "fixed"),
            ("evaluated", unsolved, "reopen"),
            ("closed", "solved", "no_further_action"),
            ("reopened", "", "reopen"),
            ("resolved", "solved", "fixed"),
            ("closed", "solved", "fixed"),
            ("evaluated", unsolved, "no_further_action"),
            ("reopened", "", "reopen"),
            ("resolved", "partly", "in_progress"),
            ("evaluated", solved, "fixed"),
            ("closed", "unsolved", "fixed"),
        ];
        let all = history(&steps.map(|(step, to, _)| (step, to)));
        for known in 1..=all.len() {
            let told: Vec<_> = all[..known].iter().map(|e| update_status(&all[..known], e)).collect();
            let wanted: Vec<_> = steps[..known].iter().map(|(_, _, word)| Some(*word)).collect();
            assert_eq!(told, wanted);
        }
    }
}
