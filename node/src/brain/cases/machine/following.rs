//! A case that was merged into another follows it.
//!
//! How that one ends is told in the history of this one. If it ends without anybody having dealt with the
//! matter (withdrawn, rejected, refused), this one is a case of its own again: somebody else reported it,
//! and nobody has taken that back.

use super::turn::Turn;
use super::{Book, Stepped};
use chrono::{DateTime, Utc};
use citybrain_shared::case::{Booked, CLIMB, Case, Ending, RESPONSE, Status, step};

/// Who writes what follows from the case that another follows.
const BY: &str = "merge";

/// How a case has ended; of one that follows another itself: how that one has.
fn ending(leader: &Case) -> Option<Ending> {
    match leader.status.is_open() {
        true => None,
        false if leader.is_merged() => leader.leader_ended,
        false => Some(Ending { status: leader.status, reason: leader.closed_reason }),
    }
}

/// Has the follower not been told yet how its leader stands?
pub fn is_owed_a_word(case: &Case, leader: &Case) -> bool {
    case.merged_into.as_ref() == Some(&leader.id) && case.leader_ended != ending(leader)
}

impl Book<'_> {
    /// Tells a follower how its leader stands now ([`is_owed_a_word`]).
    pub fn follow(&self, case: &Case, leader: &Case, now: DateTime<Utc>) -> Stepped {
        let ended = ending(leader);
        let mut turn = Turn::new(self, case, step::FOLLOWED, BY, None, None, now);
        turn.entry.to = ended.map(|e| e.reason.map_or(e.status.to_string(), |reason| reason.to_string()));
        match ended {
            None => turn.entry.text = format!("{}, which it follows, is open again", leader.id),
            Some(end) if end.is_dealt_with() => {
                let result = leader.outcome.as_ref().map(|o| o.text.as_str()).filter(|text| !text.is_empty());
                // What became of one is told to nobody who may not see that one itself.
                let may_know = (leader.is_public() || !case.is_public()) && leader.reach <= case.reach;
                let result = result.filter(|_| may_know);
                let result = result.map_or(String::new(), |text| format!(": {text}"));
                turn.entry.text = format!("{}, which it follows, is {}{result}", leader.id, leader.standing());
            }
            Some(_) => {
                turn.entry.step = step::UNMERGED.into();
                turn.entry.text = format!("{}, which it followed, is {}", leader.id, leader.standing());
                turn.come_back();
                return turn.done();
            }
        }
        turn.case.leader_ended = ended;
        turn.done()
    }
}

impl Turn<'_> {
    /// What it had come to before it was merged is not known any more, but for whether it was accepted.
    fn come_back(&mut self) {
        (self.case.merged_into, self.case.leader_ended) = (None, None);
        let was_accepted = self.case.accepted_by.is_some();
        self.begin_again(if was_accepted { Status::Accepted } else { Status::Submitted });
        if self.case.responded().is_none() {
            self.start_clock(RESPONSE, self.limit_of(|t| t.response));
        }
        if self.case.urgent {
            if !was_accepted && self.book.me.parent().is_some() {
                self.start_clock(CLIMB, Some(self.climb()));
            }
            self.entry.calls.push(self.book.me.clone());
        }
        // Its seat was given back; whether there is one left is asked anew.
        if let Some(booking) = self.case.booking.as_mut().filter(|b| b.state == Booked::GivenBack) {
            booking.state = Booked::Asked;
        }
    }
}
