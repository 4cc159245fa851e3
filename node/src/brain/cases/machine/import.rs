//! A case as another system tells of it.

use super::turn::{Turn, cut};
use super::{Book, PLACE_MAX, Refusal, Stepped, described};
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use citybrain_shared::Tier;
use citybrain_shared::case::{Case, Clock, Imported, Kind, Place, SOLUTION, Terms, Verdict, step};
use citybrain_shared::view::CaseAccount;

/// The limit of a clock that was not ours to wind.
const AS_TOLD: &str = "as-told";
/// How far another system's clock, or its idea of where it is, may be ahead of ours.
const AHEAD_MAX: TimeDelta = TimeDelta::days(1);
/// Characters of a system's name, and of a number in it.
const NAME_MAX: usize = 200;

impl Book<'_> {
    /// The case as `told`, which [`check`] found possible; `known` being what was told or done before; `None`: nothing in it is new.
    /// The line of history has that system's time. A limit that had passed before `now` was missed
    /// there, and calls nobody here.
    ///
    /// # Errors
    /// [`Refusal`]: the case is no longer that system's.
    pub fn import(
        &self,
        id: &str,
        told: &CaseAccount,
        known: Option<&Case>,
        by: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<Stepped>, Refusal> {
        if let Some(known) = known {
            let Some(before) = &known.imported else {
                return Err(Refusal::new("not-theirs", format!("`{id}` was opened here, and by no import"), ""));
            };
            if before.updated >= told.updated {
                return Ok(None);
            }
            if known.owner != *self.me || known.handing_to.is_some() || known.version != before.version {
                let detail = format!("`{id}` is dealt with here since it was imported: {}", known.standing());
                return Err(Refusal::new("not-theirs", detail, "`citybrain case` steps it"));
            }
        }
        let fresh = known.is_none();
        let new;
        let known = match known {
            Some(known) => known,
            None => {
                new = self.untold(id, told);
                &new
            }
        };
        let mut turn =
            Turn::new(self, known, step::IMPORTED, by, None, None, told.updated.max(told.opened).max(known.changed));
        let at = turn.now;
        self.describe(&mut turn.case, told);
        let case = &mut turn.case;
        case.status = told.status;
        // Whether a limit was missed is told anew, with its clock.
        case.late = false;
        (case.opened, case.dispatched) = (told.opened, Some(told.opened));
        let closed = closed(told);
        (case.closed, case.closed_reason) = (closed, told.reason.filter(|_| !told.status.is_open()));
        case.reopen_until = Some(self.reopen_until(closed.unwrap_or(at))).filter(|_| !told.status.is_open());
        let said = (told.solved, told.satisfied);
        case.verdict = (said != (None, None)).then(|| Verdict {
            by: told.source.clone(),
            is_residents: true,
            at,
            solved: told.solved,
            satisfied: told.satisfied,
            text: String::new(),
        });
        case.clocks = told.due.into_iter().map(|due| solution(told, due, now)).collect();
        case.imported = Some(Imported {
            source: told.source.clone(),
            id: told.id.clone(),
            updated: told.updated,
            version: case.version,
        });
        turn.entry.to = Some(format!("{} of {}", told.id, told.source));
        turn.entry.text = if fresh { format!("known since now, {}", told.status) } else { told.status.to_string() };
        Ok(Some(turn.done()))
    }

    /// What an account says of itself, and the node's category where it says nothing.
    fn describe(&self, case: &mut Case, told: &CaseAccount) {
        let category = self.category(&told.category);
        let or = |told: &str, known: Option<&String>, chars: usize| match told.trim() {
            "" => known.cloned().unwrap_or_default(),
            told => cut(told, chars),
        };
        case.category = category.map_or_else(|| cut(&told.category, 60), |c| c.code.clone());
        case.category_name = or(&told.category_name, category.map(|c| &c.name), 60);
        case.department = or(&told.department, category.map(|c| &c.department), 100);
        case.governance = told
            .governance
            .as_ref()
            .map(|text| cut(text, NAME_MAX))
            .or_else(|| category.and_then(|c| c.governance.clone()));
        case.terms = category.map(Terms::of);
        case.reach = category.map_or(Tier::City, |c| c.reach);
        case.kind = category.map_or(Kind::Appeal, |c| c.kind);
        case.title = or(&told.title, Some(&case.category_name), 200);
        case.description = described(&told.description);
        case.channel = or(&told.channel, Some(&"import".to_owned()), 60);
        case.place = told.place.clone().map(|p| Place { text: cut(&p.text, PLACE_MAX), ..p });
    }

    fn untold(&self, id: &str, told: &CaseAccount) -> Case {
        let opening = super::Opening { id: id.to_owned(), ..super::Opening::default() };
        self.blank(opening, told.opened)
    }
}

/// Nothing is closed before it was opened, whatever that system's clerks have written.
fn closed(told: &CaseAccount) -> Option<DateTime<Utc>> {
    told.closed.map(|closed| closed.max(told.opened))
}

fn solution(told: &CaseAccount, due: DateTime<Utc>, now: DateTime<Utc>) -> Clock {
    Clock {
        name: SOLUTION.into(),
        limit: AS_TOLD.into(),
        started: told.opened,
        due: Some(due),
        left_us: None,
        stopped: closed(told),
        missed: Some(due).filter(|due| *due < closed(told).unwrap_or(now)),
        due_before: None,
        missed_before: false,
    }
}

/// Can it be so?
///
/// # Errors
/// [`Refusal`]: what cannot.
pub fn check(told: &CaseAccount, now: DateTime<Utc>) -> Result<(), Refusal> {
    let wrong = |detail: String| Err(Refusal::new("bad-account", detail, ""));
    for (name, text) in [("source", &told.source), ("id", &told.id), ("category", &told.category)] {
        if text.trim().is_empty() || text.chars().count() > NAME_MAX {
            return wrong(format!("its `{name}` has {} characters; it has 1 to {NAME_MAX}", text.chars().count()));
        }
    }
    let times = [Some(told.opened), Some(told.updated), told.due, told.closed];
    if let Some(at) = times.into_iter().flatten().find(|at| !(1..=9999).contains(&at.year())) {
        return wrong(format!("{at} is no time of a case: years have four digits"));
    }
    // Every later step would bear that time, and no limit pass before it.
    let past = [Some(told.opened), Some(told.updated), told.closed];
    if let Some(at) = past.into_iter().flatten().find(|at| *at - now > AHEAD_MAX) {
        return wrong(format!("{at} is more than a day ahead: what has happened has a time that is over"));
    }
    match (told.status.is_open(), told.closed) {
        (true, Some(_)) => wrong(format!("it is {}, and has a time of closing", told.status)),
        (false, None) => wrong(format!("it is {}, and has no time of closing", told.status)),
        _ => Ok(()),
    }
}
