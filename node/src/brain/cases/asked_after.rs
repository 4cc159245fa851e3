//! What became of a wish that may be lost with a disk: whoever made it asks, when he hears of a loss or has heard
//! nothing for too long, and whoever would have it answers.

use super::letter::{self, Body, Letter, Pen, RECALL, WhatOf};
use super::machine::{self, Refusal};
use super::{Cases, HISTORY_MAX, HOPS_MAX, Held, WISH_ID_MAX, Wish};
use chrono::{DateTime, Utc};
use citybrain_hub::state::{Presence, State};
use citybrain_shared::Address;
use citybrain_shared::case::{Entry, Verb, step};
use citybrain_shared::record::{Draft, Header};

/// At least so often a wish without an answer is asked after: one letter a day for each, while its node is away.
const ASKS_EVERY_US: i64 = 86_400_000_000;
/// So often the wait doubles at most: from a second on that is more than a day.
const DOUBLED_MAX: u32 = 17;

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

    /// Asks after each wish of this node that may be lost with what that node knew, and that nobody would ever answer
    /// then. Not of whoever comes to a press: that is said with the case ([`Cases::still_come`]). `knows_some`: the node
    /// did not lose all. `token` names this loss.
    pub(super) fn ask_after(&self, node: &Address, knows_some: bool, token: &str, now: DateTime<Utc>) -> Vec<Draft> {
        let may_be_lost = |held: &Held, w: &Wish| {
            let is_said_otherwise = held.coming.iter().any(|c| c.wish == w.id);
            w.refused.is_none() && node.covers(&w.to) && !is_said_otherwise
        };
        let how = Some(how_lost(node, knows_some));
        let theirs = |held: &Held| -> Vec<Draft> {
            let lost = held.wishes.iter().filter(|w| may_be_lost(held, w));
            lost.flat_map(|w| self.asked_after(held, w, how.as_ref(), token, now)).collect()
        };
        self.held.values().flat_map(theirs).collect()
    }

    /// When this node asks after what it has asked for of that case, µs since 1970. Not every node hears that its letter,
    /// or the answer, is lost: so each asks by itself, each time after twice as long, for the one that is to answer may
    /// be away for days.
    pub(super) fn asks_after_at(&self, held: &Held) -> Option<i64> {
        let first_us = self.first_asks_after_us(held);
        held.wishes.iter().filter_map(|w| w.asks_after_at(first_us)).min()
    }

    fn first_asks_after_us(&self, held: &Held) -> i64 {
        self.on_its_way_s(&held.case).saturating_mul(1_000_000)
    }

    /// The cases for which that is now.
    pub(super) fn unheard(&self, now_us: i64) -> impl Iterator<Item = &Held> {
        self.too_long_in(&self.unheard, now_us)
    }

    /// Asks after each wish of that case that has had no answer for too long.
    pub(super) fn ask_after_unheard(&self, held: &Held, now: DateTime<Utc>) -> Vec<Draft> {
        let (now_us, first_us) = (now.timestamp_micros(), self.first_asks_after_us(held));
        let unheard = held.wishes.iter().filter(|w| w.asks_after_at(first_us).is_some_and(|at| at <= now_us));
        let token = format!("{now_us:x}");
        unheard.flat_map(|w| self.asked_after(held, w, None, &token, now)).collect()
    }

    /// The question what has become of a wish. It goes the same way behind the wish, so whatever came of that is told
    /// first, and only what is lost indeed is said to be; no node need know how far each of those below had come. What
    /// done twice is done once is asked for again instead.
    fn asked_after(&self, held: &Held, w: &Wish, how: Option<&String>, token: &str, now: DateTime<Utc>) -> Vec<Draft> {
        let (case, verb) = (held.case.id.clone(), w.verb);
        // Whoever comes by now may be the same one, who has thought better of it: that word would take him back, too.
        // Nor is an end that came since the one that was not to hold.
        let is_true_still = match verb {
            Verb::Escalate => held.is_unanswered(),
            Verb::Reopen => held.not_over().is_some(),
            _ => true,
        };
        if let Some(ask) = w.said.as_deref().filter(|_| is_true_still && !self.may_step(&case)) {
            let to = self.sends_on(held, verb, ask).unwrap_or(held.case.bound_for());
            let body = Body::Ask { case, verb, ask: ask.clone(), hops: 0, contact: None, offered: None };
            let letter = self.letter(w.id.clone(), to, held.case.urgent, body);
            let again = w.again.saturating_add(1);
            return self.wish_sent(held, &Letter { again, takes_back: w.takes_back.clone(), ..letter }, now);
        }
        let body = Body::WhatOf(WhatOf { case, verb, wish: w.id.clone(), hops: 0, how: how.cloned() });
        let question = self.letter(format!("{}.what.{token}", w.id), &w.to, held.case.urgent, body);
        let question = Pen { me: &self.me, now }.letter(&Letter { again: w.again, ..question });
        question.into_iter().collect()
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
        let unheard = || format!("no answer to it has come, and {} does not know whether it was done", self.me);
        let how = match self.knows_all_of(case) {
            true => format!("it has not come to {}, and was not done", self.me),
            false => how.clone().unwrap_or_else(unheard),
        };
        let lost = self.refusal_of(case, lost(how), &Letter { id: wish.clone(), ..letter.clone() }, now);
        pen.answered(letter, letter::LOST, lost)
    }
}

impl Cases {
    /// Does this node have all that was ever done with that case? Then what is no line of its history was not done.
    fn knows_all_of(&self, case: &str) -> bool {
        let is_whole = |held: &Held| {
            let was_lost = self.knows_some() || held.history.iter().any(|e| e.step == step::RECOVERED);
            !was_lost && held.history.len() < HISTORY_MAX && self.may_step(case)
        };
        self.held.get(case).is_some_and(is_whole)
    }
}

impl Wish {
    /// When it is asked after, if it has no answer yet; the `first` time after so long (µs).
    fn asks_after_at(&self, first_us: i64) -> Option<i64> {
        let wait_us = first_us.saturating_mul(1 << self.asked_after.min(DOUBLED_MAX)).min(first_us.max(ASKS_EVERY_US));
        self.refused.is_none().then(|| self.asked_us.saturating_add(wait_us))
    }
}

/// Nobody knows what became of a wish.
pub(super) fn lost(how: String) -> Refusal {
    Refusal::new(letter::LOST, how, "look at the case, and ask again if it is still wanted")
}

pub(super) fn how_lost(node: &Address, knows_some: bool) -> String {
    format!("{node} has lost {}, and does not know whether it was done", what_is_lost(knows_some))
}

pub(super) fn what_is_lost(knows_some: bool) -> &'static str {
    if knows_some { "some of what it knew" } else { "its disk" }
}
