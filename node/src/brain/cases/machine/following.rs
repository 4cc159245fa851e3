//! A case that was merged into another follows it.
//!
//! How that one ends is told in the history of this one. If it ends without anybody having dealt with the
//! matter (withdrawn, rejected, refused), this one is a case of its own again: somebody else reported it,
//! and nobody has taken that back.

use super::turn::{LIST_MAX, Turn, missing};
use super::{Book, Refusal, Stepped, common, kept};
use chrono::{DateTime, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{Ask, Case, ClosedReason, Ending, RESPONSE, Role, Status, Verb, step};

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
    /// May another case be merged into `main`, which is `id`, at this node? `from`: where it was asked for, if not here.
    ///
    /// # Errors
    /// Why not, and what to do.
    fn mergeable<'m>(
        &self,
        id: &str,
        main: Option<&'m Case>,
        from: Option<&Address>,
    ) -> Result<&'m Case, (String, String)> {
        let me = self.me;
        let unknown = || {
            // A node above that knew it would have said where it is.
            let asked = from.filter(|from| from.covers(me) && *from != me);
            let nor = asked.map_or(String::new(), |from| format!(", nor does {from}"));
            let above = me.parent().filter(|_| asked.is_none());
            let above = above.map(|above| format!("; if it is right, a node above may know it: ask at {above}"));
            (format!("{me} knows no case `{id}`{nor}"), format!("look at its id again{}", above.unwrap_or_default()))
        };
        let main = main.ok_or_else(unknown)?;
        if !main.status.is_open() || main.owner != *me || main.handing_to.is_some() {
            let whose = if main.owner == *me { String::new() } else { format!(", at {}", main.owner) };
            return Err((format!("`{}` is {}{whose}", main.id, main.standing()), "both must be open".into()));
        }
        if main.followers.len() >= LIST_MAX {
            return Err((format!("`{}` has {LIST_MAX} followers already", main.id), String::new()));
        }
        Ok(main)
    }

    /// A case has come to be merged into `main`, from `giver`. If that cannot be it goes back to where it came from.
    pub fn merge_here(
        &self,
        case: &Case,
        main: Option<&Case>,
        giver: Option<&Address>,
        now: DateTime<Utc>,
    ) -> Vec<Stepped> {
        let Some(id) = &case.merging else { return Vec::new() };
        let main = self.mergeable(id, main, None);
        let done = if main.is_ok() { Verb::Merge.done() } else { step::NOT_MERGED };
        let mut turn = Turn::new(self, case, done, BY, None, None, now);
        turn.case.merging = None;
        match main {
            Ok(main) => {
                turn.case.dispatched_by.pop_if(|last| last == self.me);
                let joined = turn.joins(main, BY, None);
                vec![turn.done(), joined]
            }
            Err((why, _)) => {
                turn.entry.text = why;
                giver.cloned().into_iter().for_each(|giver| turn.hand_to(giver));
                vec![turn.done()]
            }
        }
    }

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
    /// At the owner of both the one is closed and the other told in one group. Elsewhere the case goes to the other
    /// one's owner first, for nobody else can do that: [`Book::merge_here`].
    pub(super) fn merge(
        &mut self,
        ask: &Ask,
        other: &dyn Fn(&str) -> Option<Case>,
    ) -> Result<Option<Stepped>, Refusal> {
        let into = ask
            .into
            .as_deref()
            .filter(|into| !into.trim().is_empty())
            .ok_or_else(|| missing("into", "the case that this one follows"))?;
        let (me, main) = (self.book.me, other(into));
        if main.as_ref().is_some_and(|main| main.id == self.case.id) || into == self.case.id {
            return Err(Refusal::new("no-merge", "a case does not follow itself", ""));
        }
        let there = main.as_ref().filter(|main| main.status.is_open()).map(Case::bound_for);
        let there = there.or(ask.to.as_ref().filter(|_| main.is_none())).filter(|there| *there != me);
        if let Some(there) = there {
            if common(me, there).is_none() {
                let detail = format!("{there} is in another tree");
                return Err(Refusal::new("no-merge", detail, "both must be in one tree"));
            }
            let id = main.as_ref().map_or(into, |main| &main.id);
            self.entry.step = step::MERGING.into();
            let bound = format!("to be merged into {id} there");
            let said = kept(&self.entry.text, bound.chars().count() + 2);
            self.entry.text = if said.is_empty() { bound } else { format!("{bound}: {said}") };
            self.case.merging = Some(id.to_owned());
            self.hand_to(there.clone());
            return Ok(None);
        }
        let main = self
            .book
            .mergeable(into, main.as_ref(), self.entry.from.as_ref())
            .map_err(|(detail, hint)| Refusal::new("no-merge", detail, hint))?;
        Ok(Some(self.joins(main, &ask.by, ask.role)))
    }

    /// This case ends, and `main` is told so.
    fn joins(&mut self, main: &Case, by: &str, role: Option<Role>) -> Stepped {
        self.end(Status::Closed, ClosedReason::Duplicate);
        self.case.merged_into = Some(main.id.clone());
        self.entry.to = Some(main.id.clone());
        let mut turn = Turn::new(self.book, main, step::JOINED, by, role, self.entry.from.clone(), self.now);
        // One that came back from it may be merged into it again.
        if !turn.case.followers.contains(&self.case.id) {
            turn.case.followers.push(self.case.id.clone());
        }
        turn.entry.to = Some(self.case.id.clone());
        turn.done()
    }

    /// What it had come to before it was merged is not known any more, but for whether it was accepted, of what is no
    /// call for help.
    fn come_back(&mut self) {
        (self.case.merged_into, self.case.leader_ended) = (None, None);
        let was_accepted = self.case.accepted_by.is_some();
        let is_answered = self.case.responded().is_some();
        // Nobody needed to answer it while it followed: unless its limit had passed by then, the next one counts.
        if !is_answered {
            self.void_clock(RESPONSE);
        }
        self.begin_again(if was_accepted { Status::Accepted } else { Status::Submitted });
        // A call for help has it already.
        if !is_answered && !self.case.urgent {
            self.start_clock(RESPONSE, self.limit_of(|t| t.response));
        }
    }
}
