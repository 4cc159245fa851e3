//! What became of a wish that may be lost with a disk: whoever made it asks, and whoever would have it answers.

use super::letter::{self, Body, Letter, Pen, RECALL, WhatOf};
use super::machine::{self, Refusal};
use super::{Cases, HOPS_MAX, Held, WISH_ID_MAX, Wish};
use chrono::{DateTime, Utc};
use citybrain_hub::state::{Presence, State};
use citybrain_shared::Address;
use citybrain_shared::case::{Entry, Verb};
use citybrain_shared::record::{Draft, Header};

impl Cases {
    /// A node below says which folder it is: what was on its way to it, or past it, may be lost with the one before.
    pub(super) fn lost_below(
        &self,
        header: &Header<'_>,
        payload: &[u8],
        state: &State,
        now: DateTime<Utc>,
    ) -> Vec<Draft> {
        let Some(node) = header.origin.and_then(|o| Address::parse(o.address).ok()) else { return Vec::new() };
        let inc = letter::data::<Presence>(payload).map(|presence| presence.inc);
        let known = state.registry.get(&node).map(|known| known.inc);
        let other = inc.filter(|inc| known.is_some_and(|known| known != *inc));
        other.map_or_else(Vec::new, |inc| self.ask_after(&node, false, &inc.to_string(), now))
    }

    /// Of each wish of this node that may be lost with what that node knew, and that nobody would ever answer then: the
    /// question what has become of it. It goes the same way behind the wish, so whatever came of that is told first, and
    /// only what is lost indeed is said to be; no node need know how far each of those below had come. Not of whoever
    /// comes to a press: that is said with the case ([`Cases::still_come`]). `knows_some`: the node did not lose all.
    /// `token` names this loss.
    pub(super) fn ask_after(&self, node: &Address, knows_some: bool, token: &str, now: DateTime<Utc>) -> Vec<Draft> {
        let may_be_lost = |held: &Held, w: &Wish| {
            let is_said_otherwise = held.coming.iter().any(|c| c.wish == w.id);
            w.refused.is_none() && node.covers(&w.to) && !is_said_otherwise
        };
        let question = |held: &Held, w: &Wish| {
            let (case, verb, wish) = (held.case.id.clone(), w.verb, w.id.clone());
            let body = Body::WhatOf(WhatOf { case, verb, wish, hops: 0, how: how_lost(node, knows_some) });
            let question = self.letter(format!("{}.what.{token}", w.id), &w.to, held.case.urgent, body);
            Pen { me: &self.me, now }.letter(&Letter { again: w.again, ..question })
        };
        let theirs = |held: &Held| -> Vec<Draft> {
            let lost = held.wishes.iter().filter(|w| may_be_lost(held, w));
            lost.filter_map(|w| question(held, w)).collect()
        };
        self.held.values().flat_map(theirs).collect()
    }

    /// The answer to that letter, if the wish was done.
    pub(super) fn told_that_done(
        &self,
        case: &str,
        verb: Verb,
        wish: &str,
        letter: &Letter,
        now: DateTime<Utc>,
    ) -> Option<Vec<Draft>> {
        let held = self.held.get(case)?;
        let name = if verb == Verb::Recall { letter::recalled_by(wish) } else { wish };
        let name = machine::cut(name, WISH_ID_MAX);
        // Who is forgotten is, whoever has asked for it first.
        let is_forget = |e: &Entry| verb == Verb::Forget && e.step == Verb::Forget.done();
        let done = held.history.iter().find(|e| e.wish.as_deref() == Some(&name) || is_forget(e))?;
        let (case, history) = (held.case.clone(), letter::sent(&held.history));
        let body = Body::Copy { case, entry: done.clone(), history, answers: Some(wish.to_owned()) };
        let told = self.letter(format!("{}.done", letter.id_of_time()), &letter.from, letter.urgent, body);
        let pen = Pen { me: &self.me, now };
        Some(pen.answered(letter, "known", pen.letter(&told)))
    }

    /// Somebody asks what has become of a wish of his that may be lost: all that came here before is decided.
    pub(super) fn what_of(&self, asked: &WhatOf, letter: &Letter, now: DateTime<Utc>) -> Vec<Draft> {
        let WhatOf { case, verb, wish, hops, how } = asked;
        if let Some(told) = self.told_that_done(case, *verb, wish, letter, now) {
            return told;
        }
        let pen = Pen { me: &self.me, now };
        if let Some(held) = self.held.get(case) {
            let recall = format!("{wish}{RECALL}");
            let is_under_way = held.wishes.iter().any(|w| w.id == recall && w.refused.is_none());
            // The case's own giver hears so by its coming back.
            if *verb == Verb::Recall && (is_under_way || held.sent_back == Some(held.case.order())) {
                return pen.answered(letter, "known", None);
            }
            let to = held.case.bound_for();
            // After its case, as the wish.
            if *verb != Verb::Recall && *to != self.me && *hops < HOPS_MAX {
                let body = Body::WhatOf(WhatOf { hops: hops + 1, ..asked.clone() });
                let on = Letter { to: to.clone(), via: Some(self.me.clone()), body, ..letter.clone() };
                return pen.answered(letter, "sent on", pen.letter(&on));
            }
        }
        let lost = self.refusal_of(case, lost(how.clone()), &Letter { id: wish.clone(), ..letter.clone() }, now);
        pen.answered(letter, letter::LOST, lost)
    }
}

/// Nobody knows what became of a wish.
pub(super) fn lost(how: String) -> Refusal {
    Refusal::new(letter::LOST, how, "look at the case, and ask again if it is still wanted")
}

pub(super) fn how_lost(node: &Address, knows_some: bool) -> String {
    let what = if knows_some { "some of what it knew" } else { "its disk" };
    format!("{node} has lost {what}, and does not know whether it was done")
}
