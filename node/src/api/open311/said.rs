//! What the `status` of an update that is posted asks for.
//!
//! Clients of mySociety's extension (FixMyStreet) send with every comment the state that the report has on
//! their side, most often the word that they were told last. So only [`ASKS`] ask for a step whatever the case
//! is; a state is a step where it says what is not known yet, and a comment otherwise. Nothing that a client
//! sends by itself may be refused: it would send it again for ever, and hold back what was said after it. So a
//! case that cannot be reopened any more takes a comment, and so does an owner elsewhere who finds that it
//! cannot do what was asked.
//!
//! Source: github.com/mysociety/fixmystreet, `perllib/Open311.pm`, `perllib/Open311/PostServiceRequestUpdates.pm`.

use crate::api::guard;
use crate::brain::cases::{Cases, Held};
use chrono::{DateTime, Utc};
use citybrain_shared::case::{Solved, Status, Verb};

/// A resident's own wish.
const ASKS: [&str; 3] = ["REOPEN", "CANCELLED", "UNCHANGED"];
/// What a report may be on the other side.
const STATES: [&str; 14] = [
    "OPEN",
    "FIXED",
    "CLOSED",
    "INVESTIGATING",
    "IN_PROGRESS",
    "PLANNED",
    "ACTION_SCHEDULED",
    "FOR_TRIAGE",
    "INTERNAL_REFERRAL",
    "NO_FURTHER_ACTION",
    "UNABLE_TO_FIX",
    "NOT_COUNCILS_RESPONSIBILITY",
    "NOT_RESPONSIBLE",
    "DUPLICATE",
];

/// The words that are known, for an error.
pub fn known() -> String {
    [&ASKS[..], &STATES[..]].concat().join(", ")
}

/// What a case is to whoever says something of it.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    status: Status,
    may_reopen: bool,
    is_merged: bool,
    is_judged: bool,
    pub is_his: bool,
}

impl Standing {
    /// `own`: the name of his token, where only what he brought is his; `None`: all is.
    pub fn of(cases: &Cases, held: &Held, own: Option<&str>, now: DateTime<Utc>) -> Standing {
        let case = &held.case;
        Standing {
            status: case.status,
            may_reopen: cases.book().allowed(case, now).contains(&Verb::Reopen),
            is_merged: case.is_merged(),
            is_judged: case.said_solved().is_some(),
            is_his: own.is_none_or(|own| guard::is_of_app(held, cases.book().me, own)),
        }
    }
}

/// The step that `word` (in capitals) asks of such a case, and the verdict that comes with it; `None`: the
/// word is not known.
pub fn says(word: &str, of: Standing) -> Option<(Verb, Option<Solved>)> {
    let comment = (Verb::Comment, None);
    let is_done = matches!(of.status, Status::Resolved | Status::Evaluated);
    let is_closed = of.status == Status::Closed && !of.is_merged;
    Some(match word {
        // He was told that it is fixed, and it is not.
        "REOPEN" if is_done => (Verb::Evaluate, Some(Solved::Unsolved)),
        "REOPEN" if of.may_reopen => (Verb::Reopen, None),
        "OPEN" if of.may_reopen && of.is_his => (Verb::Reopen, None),
        // Where he has given his verdict it may only be what he was told.
        "FIXED" if of.is_his && (is_done || is_closed) && !of.is_judged => (Verb::Evaluate, Some(Solved::Solved)),
        // Of one that is over it can only be its state.
        "CANCELLED" if of.status.is_open() => (Verb::Withdraw, None),
        word if ASKS.contains(&word) || STATES.contains(&word) => comment,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn his(status: Status) -> Standing {
        let may_reopen = status == Status::Closed;
        Standing { status, may_reopen, is_merged: false, is_judged: false, is_his: true }
    }

    const COMMENT: Option<(Verb, Option<Solved>)> = Some((Verb::Comment, None));
    const SOLVED: Option<(Verb, Option<Solved>)> = Some((Verb::Evaluate, Some(Solved::Solved)));
    const UNSOLVED: Option<(Verb, Option<Solved>)> = Some((Verb::Evaluate, Some(Solved::Unsolved)));

    #[test]
    fn a_state_that_a_client_sends_by_itself_is_a_comment_and_never_refused() {
        for status in Status::ALL {
            for word in STATES {
                let said = says(word, Standing { is_judged: true, ..his(*status) });
                let reopens = word == "OPEN" && *status == Status::Closed;
                assert_eq!(said, if reopens { Some((Verb::Reopen, None)) } else { COMMENT }, "{word} of {status}");
            }
        }
        assert_eq!(says("FISHED", his(Status::Handling)), None);
        assert!(known().contains("REOPEN") && known().contains("DUPLICATE"));
    }

    #[test]
    fn whoever_says_that_it_is_not_fixed_is_heard_before_it_is_closed() {
        assert_eq!(says("REOPEN", his(Status::Resolved)), UNSOLVED);
        assert_eq!(says("REOPEN", Standing { is_judged: true, ..his(Status::Evaluated) }), UNSOLVED);
        assert_eq!(says("REOPEN", his(Status::Closed)), Some((Verb::Reopen, None)));
        assert_eq!(says("REOPEN", his(Status::Handling)), COMMENT);
    }

    #[test]
    fn whoever_would_reopen_what_cannot_be_reopened_any_more_says_so_all_the_same() {
        for status in [Status::Closed, Status::Rejected, Status::Withdrawn] {
            for word in ["OPEN", "REOPEN"] {
                assert_eq!(says(word, Standing { may_reopen: false, ..his(status) }), COMMENT, "{word} of {status}");
            }
        }
    }

    #[test]
    fn fixed_is_a_verdict_once_and_never_in_place_of_another() {
        for status in [Status::Resolved, Status::Evaluated, Status::Closed] {
            assert_eq!(says("FIXED", his(status)), SOLVED);
            assert_eq!(says("FIXED", Standing { is_judged: true, ..his(status) }), COMMENT);
        }
        assert_eq!(says("FIXED", his(Status::Handling)), COMMENT);
    }

    #[test]
    fn of_a_case_that_somebody_else_brought_or_that_follows_another_a_state_is_a_comment() {
        for (word, status) in [("OPEN", Status::Closed), ("FIXED", Status::Resolved), ("CLOSED", Status::Closed)] {
            assert_eq!(says(word, Standing { is_his: false, ..his(status) }), COMMENT, "{word}");
        }
        for word in ["OPEN", "FIXED", "DUPLICATE"] {
            let merged = Standing { is_merged: true, may_reopen: false, ..his(Status::Closed) };
            assert_eq!(says(word, merged), COMMENT, "{word}");
        }
        assert_eq!(says("CANCELLED", his(Status::Withdrawn)), COMMENT);
        assert_eq!(says("CANCELLED", his(Status::Handling)), Some((Verb::Withdraw, None)));
    }
}
