//! What an app is shown of a case that it brought: what residents said and were told, where the matter stands,
//! and by when it is to be done. Whoever works on it has no name here; what they say among themselves, how they
//! are supervised, and other cases stay out, as they do at Open311 ([`told`](super::open311::told)).
//!
//! Each struct is written out: a field that is new does not compile until it is decided here for whom it is.

use super::open311::told::{is_for_residents, update_status, url_of};
use crate::brain::cases::Held;
use crate::brain::cases::machine::{RESIDENT, app_of};
use chrono::{DateTime, Utc};
use citybrain_shared::case::{Approved, Case, Coming, Denial, Entry, Outcome, Tally, Verdict, step};
use citybrain_shared::view::{Awaited, CaseShown, Due};

/// Stands where a name would.
const WITHHELD: &str = "withheld";

/// The case itself.
pub fn case(held: &Held) -> Case {
    let c = held.case.clone();
    let unit = c.unit_at_work().unwrap_or_default().to_owned();
    // What somebody else noted is no resident's word.
    let verdict = c.verdicts().find(|v| v.is_residents).cloned().map(|v| Verdict { by: name(held, v.by), ..v });
    let was_told = |e: &&Entry| is_for_residents(e) || is_own(held, &e.by);
    let place_again =
        c.place_again.filter(|p| held.history.iter().filter(was_told).any(|e| e.place.as_ref() == Some(p)));
    let outcome = c.outcome.map(|o| Outcome {
        by: WITHHELD.into(),
        evidence: o.evidence.into_iter().filter(|e| url_of(e).is_some()).collect(),
        ..o
    });
    let suspended = c.suspended.map(|a| Approved {
        by: WITHHELD.into(),
        approved_by: WITHHELD.into(),
        at: a.at,
        reason: String::new(),
    });
    Case {
        id: c.id,
        term: c.term,
        version: c.version,
        kind: c.kind,
        status: c.status,
        owner: c.owner,
        handing_to: c.handing_to,
        opened_at: c.opened_at,
        filed_for: c.filed_for,
        opened: c.opened,
        changed: c.changed,
        event: None,
        alarm: None,
        imported: None,
        button: None,
        urgent: c.urgent,
        reach: c.reach,
        category: c.category,
        category_awaited: c.category_awaited,
        category_name: c.category_name,
        department: c.department,
        governance: c.governance,
        channel: c.channel,
        title: c.title,
        description: c.description,
        place: c.place,
        place_again,
        form: c.form,
        media: c.media,
        has_contact: c.has_contact,
        contact_came: false,
        contact_lost: None,
        forgotten: c.forgotten,
        unit,
        dispatched_by: Vec::new(),
        dispatched: c.dispatched,
        accepted_by: None,
        accepted_from: None,
        signed: None,
        contacted: None,
        responded_before: None,
        handlers: Vec::new(),
        terms: None,
        clocks: c.clocks.into_iter().filter(|clock| clock.name == "solution").collect(),
        late: false,
        outcome,
        finding: None,
        verdict,
        other_verdict: None,
        judged_before: Tally::default(),
        suspended,
        extended: None,
        excluded: None,
        offered_to: None,
        escalated_to: None,
        assists: Vec::new(),
        suspensions: 0,
        escalations: 0,
        returns: 0,
        reworks: 0,
        reopened: c.reopened,
        merged_into: None,
        merging: None,
        leader_ended: c.leader_ended,
        followers: Vec::new(),
        booking: c.booking,
        closed: c.closed,
        closed_reason: c.closed_reason,
        reopen_until: c.reopen_until,
    }
}

/// All that is shown of it.
pub fn shown(held: &Held, shown: CaseShown, now: DateTime<Utc>) -> CaseShown {
    let case = case(held);
    // What happens to a booking is nobody's step, and the resident's business.
    let is_booking = |e: &Entry| matches!(e.step.as_str(), step::BOOKED | step::RESCHEDULED | step::CANCELLED);
    let is_news = |e: &Entry| {
        update_status(&held.history, e).is_some() || is_for_residents(e) || is_booking(e) || is_own(held, &e.by)
    };
    let line = |e: Entry| {
        let says = is_for_residents(&e) || is_booking(&e) || is_own(held, &e.by);
        Entry {
            term: e.term,
            version: e.version,
            at: e.at,
            node: e.node,
            from: None,
            wish: e.wish,
            by: name(held, e.by),
            role: e.role,
            text: if says { e.text } else { String::new() },
            place: e.place.filter(|_| says),
            to: e.to.filter(|_| says || e.step == "verified"),
            clocks: Vec::new(),
            calls: Vec::new(),
            evidence: if says { e.evidence } else { Vec::new() },
            step: e.step,
        }
    };
    CaseShown {
        overdue: held.known(&case).is_overdue(now),
        due: Due::of(&held.known(&case)),
        words: shown.words,
        allowed: shown.allowed,
        unproven: shown.unproven,
        awaits: shown.awaits.map(Awaited::without_nodes),
        asked: shown.asked,
        wishes: shown.wishes.into_iter().filter(|w| is_own(held, &w.by)).collect(),
        coming: shown.coming.into_iter().map(who_comes).collect(),
        not_coming: shown.not_coming.map(denied),
        not_over: shown.not_over.map(denied),
        forgotten_here: shown.forgotten_here,
        moved_to: None,
        contact: None,
        contact_withheld: shown.contact_withheld,
        similar: Vec::new(),
        alarm: None,
        history: shown.history.into_iter().filter(is_news).map(line).collect(),
        case,
    }
}

/// Somebody comes; who that is has no name here.
pub fn who_comes(coming: Coming) -> Coming {
    Coming { by: WITHHELD.into(), ..coming }
}

/// Nobody does after all, or it is not over; who says so has no name here.
pub fn denied(said: Denial) -> Denial {
    Denial { by: WITHHELD.into(), ..said }
}

/// Did whoever brought the case say it?
fn is_own(held: &Held, by: &str) -> bool {
    let brought = held.history.first().and_then(|first| app_of(&first.by));
    brought.is_some() && app_of(by) == brought
}

/// Who did it, as far as it is for him to know.
fn name(held: &Held, by: String) -> String {
    if by == RESIDENT || is_own(held, &by) { by } else { WITHHELD.into() }
}
