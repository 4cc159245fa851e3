//! Records folded into what this node holds: the only way to change it.

use super::asking::{content, heard_of, takes_back};
use super::calendar::Calendar;
use super::deciding::SENT_BACK;
use super::letter::{self, Body, End, Letter, WhatOf};
use super::letters::Posted;
use super::machine::{self, TEXT_MAX, cut, shown};
use super::succession;
use super::{
    AGAIN, CASES_MAX, COMING_MAX, Cases, Dirty, Disowned, HISTORY_MAX, Held, Uncalled, WISH_ID_MAX, WISHES_MAX, Wish,
    awaits_help, booked, is_hand_over, is_true, joined, name_of, number_there, opened, spots,
};
use citybrain_shared::case::{Ask, Case, Coming, Contact, Denial, Entry, Place, Status, Verb, step};
use citybrain_shared::config::cases::Category;
use citybrain_shared::record::{Direction, Header};
use citybrain_shared::view::{self, CasesGone};
use citybrain_shared::{Address, Pos};
use std::sync::Arc;

impl Held {
    /// It is asked for here, for the first time or again.
    fn note_wish(&mut self, wish: Wish, is_sent_on: bool) {
        // One that comes by here after its case, and goes on, was asked for when it was, and not anew.
        if let Some(noted) = self.wishes.iter_mut().find(|w| w.id == wish.id && w.again == wish.again) {
            *noted = Wish { asked_us: noted.asked_us, asked_after: noted.asked_after, ..wish };
            return;
        }
        // Asked again, the answer to come is the one that counts.
        let is_same = |w: &Wish| w.verb == wish.verb && w.by == wish.by && w.content == wish.content;
        self.wishes.retain(|w| w.id == wish.id || !(w.refused.is_some() && is_same(w)));
        // In its place: this node may ask for it again by itself, and that is not what people asked for last.
        if let Some(noted) = self.wishes.iter_mut().find(|w| w.id == wish.id) {
            let asked_after = if noted.refused.is_none() { noted.asked_after.saturating_add(1) } else { 0 };
            *noted = Wish { content: noted.content, asked_after, ..wish };
            return;
        }
        // Known no more, it was asked for at the box before this one, and before all that was asked for at this one.
        let extra = (self.wishes.len() + 1).saturating_sub(WISHES_MAX);
        self.wishes.drain(..extra);
        let place = if is_sent_on { 0 } else { self.wishes.len() };
        self.wishes.insert(place, wish);
    }

    /// These say no more that whoever has accepted it does not come, or that it is not over.
    fn believe_no_more(&mut self, is_gone: impl Fn(&Denial) -> bool) {
        self.disowned.take_if(|disowned| {
            disowned.said.retain(|said| !is_gone(said));
            disowned.said.is_empty()
        });
    }

    /// Is that line the box's answer to the word that whoever has accepted it does not come?
    fn takes_back(&self, entry: &Entry) -> bool {
        let stood = [Verb::Accept.done(), Verb::Escalate.done()];
        let before = |e: &&Entry| (e.term, e.version) < (entry.term, entry.version) && stood.contains(&e.step.as_str());
        let accepted = self.history.iter().rfind(before).filter(|e| e.step == Verb::Accept.done());
        self.disowned.as_ref().zip(accepted).is_some_and(|(disowned, e)| disowned.wish == name_of(e))
    }

    /// What somebody has said under his name is not sent again, unless without it; nor is he named here who may be the
    /// one who is forgotten.
    fn forget_what_was_said(&mut self) {
        for wish in &mut self.wishes {
            let unknown = wish.said.as_mut().filter(|said| said.role.is_none() && machine::is_residents(wish.verb));
            if let Some(said) = unknown {
                machine::RESIDENT.clone_into(&mut said.by);
                machine::RESIDENT.clone_into(&mut wish.by);
            }
            wish.said.take_if(|_| wish.verb == Verb::Comment);
        }
    }

    fn forget_needless_calls(&mut self) {
        let (case, now) = (&self.case, self.case.status);
        let key = |e: &Entry| (e.term, e.version);
        let (history, calls) = (&self.history, &mut self.uncalled);
        let is_kept = |line: &Entry| case.owner == line.node && case.handing_to.is_none() && case.offered_to.is_none();
        calls.retain(|u| {
            let line = history.binary_search_by_key(&(u.term, u.version), key).map(|at| &history[at]);
            now.is_open()
                && u.stood.is_none_or(|stood| stood == now)
                && line.is_ok_and(|line| !(u.is_offer && is_kept(line)))
        });
    }
}

/// What tells a line of history from the others, in their order. Under one (term, version) there are two where a box
/// of which a backup was put back has stepped again.
fn line(e: &Entry) -> impl Ord + '_ {
    (e.term, e.version, e.at, &e.node, &e.step, &e.by)
}

/// Does the category name that node among those above the owner who are to know whom to call?
pub(super) fn is_named(node: &Address, case: &Case) -> bool {
    let reach = case.terms.as_ref().and_then(|terms| terms.contact_reach);
    node.covers(&case.owner) && reach.is_some_and(|reach| reach <= node.tier())
}

/// May that letter take back this acceptance? Asked for again, it takes back what it did, and nothing that was said since.
fn is_meant(letter: &Letter, wish: &String) -> bool {
    letter.again == 0 || letter.takes_back.contains(wish)
}

/// Who says by that letter that somebody does not come, or that a case is not over.
fn said_by(letter: &Letter, verb: Verb, ask: &Ask, header: &Header<'_>) -> Denial {
    let at = letter.at.unwrap_or_else(|| view::time_of(header.committed_us));
    let (by, node, wish) = (heard_of(verb, ask).to_owned(), letter.from.clone(), letter.id.clone());
    Denial { by, node, at, wish }
}

impl Cases {
    pub(super) fn fold(&mut self, case: &Case, entries: &[Entry]) {
        let id = case.id.clone();
        let is_from_before = !self.held.contains_key(&id)
            || !self.knows_all()
            || entries.iter().any(|entry| entry.step == step::RECOVERED);
        self.index(&id, false);
        match self.held.get_mut(&id) {
            None => {
                let (history, wishes) = (Vec::new(), Vec::new());
                let (sent_back, called, uncalled) = (None, None, Vec::new());
                let (coming, to_forget, contact, moved_to) = (Vec::new(), None, None, None);
                let (case, heard_us) = (case.clone(), self.now_us);
                let held = Held {
                    case,
                    heard_us,
                    history,
                    came_us: Vec::new(),
                    contact,
                    sent_back,
                    called,
                    uncalled,
                    coming,
                    taken_back: false,
                    disowned: None,
                    to_forget,
                    forgotten_us: None,
                    moved_to,
                    anew: None,
                    times_anew: 0,
                    pressed: 0,
                    offer_told: None,
                    unproven: false,
                    lent: false,
                    wishes,
                };
                self.held.insert(id.clone(), held);
            }
            Some(held) if case.supersedes(&held.case) => {
                held.moved_to.take_if(|_| case.place_again != held.case.place_again);
                (held.case, held.heard_us) = (case.clone(), self.now_us);
                (held.times_anew, held.pressed) = (0, 0);
                (held.unproven, held.lent) = (false, false);
            }
            Some(_) => {}
        }
        let knows = self.held.get(&id).is_some_and(|held| self.is_to_know(held));
        if let Some(held) = self.held.get_mut(&id) {
            held.contact.take_if(|_| !knows);
            if held.case.handing_to.is_none() && held.case.offered_to.is_none() {
                // It is back, or offered to nobody any more. Where it was taken, whoever has it answers: it may come
                // back all the same.
                let owner = &held.case.owner;
                held.wishes.retain(|w| w.giver.as_ref() != Some(owner) || w.refused.is_some());
            } else {
                // It is on its way after all.
                for wish in held.wishes.iter_mut().filter(|w| w.verb == Verb::Recall && w.giver.is_none()) {
                    wish.giver = Some(held.case.owner.clone());
                }
            }
            for entry in entries {
                held.wishes.retain(|w| entry.wish.as_ref() != Some(&w.id));
                if let Err(place) = held.history.binary_search_by(|known| line(known).cmp(&line(entry))) {
                    // A node of ours writes none that is longer.
                    let (text, evidence) = (cut(&entry.text, TEXT_MAX), shown(&entry.evidence));
                    held.history.insert(place, Entry { text, evidence, ..entry.clone() });
                    let own_us = Some(entry.at.timestamp_micros()).filter(|_| entry.node == self.me);
                    let came_us = own_us.map_or(self.now_us, |at_us| at_us.min(self.now_us));
                    held.came_us.insert(place, came_us);
                }
            }
            if held.history.len() > HISTORY_MAX {
                let extra = held.history.len() - HISTORY_MAX;
                held.history.drain(1..=extra);
                held.came_us.drain(1..=extra);
            }
            if !held.is_unaccepted() {
                held.coming.clear();
                held.taken_back = false;
            }
            let may_call = matches!(held.case.status, Status::Submitted | Status::Accepted | Status::Closed);
            // That it is not over may have been written down without opening it again.
            let notes = |e: &Entry, wish: &str| e.step == Verb::Comment.done() && e.wish.as_deref() == Some(wish);
            let is_noted = |wish: &str| entries.iter().any(|e| notes(e, wish));
            held.believe_no_more(|said| !may_call || is_noted(&said.wish));
            if held.case.forgotten {
                held.forgotten_us.get_or_insert(self.now_us);
                held.to_forget = None;
                held.wishes.retain(|w| w.verb != Verb::Forget);
            }
            if held.is_forgotten() {
                held.forget_what_was_said();
            }
            held.forget_needless_calls();
        }
        self.index(&id, true);
        self.look_at_followers(&id);
        if is_from_before {
            self.keep_edition(&id);
        }
        self.look_at_booking(&id);
        self.dirty.insert((Dirty::Case, id));
        self.make_room(CASES_MAX);
    }

    /// Is whom to call kept here? The owner alone keeps it, beside those above him that the category names: who gives a
    /// case away has it no longer than until it was taken, and it has come with the case; and so those above him.
    pub(super) fn is_to_know(&self, held: &Held) -> bool {
        let case = &held.case;
        let is_named = is_named(&self.me, case);
        let stays = !self.settings.contact_travels && case.opened_at == self.me;
        let has_come = case.contact_came || !case.has_contact;
        !held.is_forgotten() && (self.is_here(case) || is_named || stays || !has_come)
    }

    /// Those that have been over for the longest give way, and are counted nowhere any more.
    pub(super) fn make_room(&mut self, most: usize) {
        while self.held.len() > most {
            let Some((_, id)) = self.over.first().cloned() else { break };
            self.index(&id, false);
            let gone = self.held.remove(&id).map(|held| held.case);
            self.look_at_booking(&id);
            let followers = gone.as_ref().map(|case| case.followers.clone()).unwrap_or_default();
            followers.iter().chain([&id]).for_each(|id| self.look_at_follower(id));
            self.dirty.extend([(Dirty::Case, id), (Dirty::Gone, String::new())]);
            let Some(case) = gone else { continue };
            let upto = case.dispatched.map_or(case.opened, |at| at.max(case.opened));
            let before = self.gone.get_or_insert(CasesGone { cases: 0, upto });
            (before.cases, before.upto) = (before.cases + 1, before.upto.max(upto));
        }
    }

    /// Somebody comes to a press; nobody here, nor above, needs to be called for it.
    pub(super) fn note_coming(&mut self, id: &str, coming: Coming) {
        if self.held.get(id).is_none_or(|held| !held.is_unaccepted()) {
            return;
        }
        let (by, wish) = (cut(&coming.by, WISH_ID_MAX), cut(&coming.wish, WISH_ID_MAX));
        let coming = Coming { by, wish, ..coming };
        self.index(id, false);
        if let Some(held) = self.held.get_mut(id) {
            held.coming.retain(|c| c.wish != coming.wish);
            held.coming.push(coming);
            held.taken_back = false;
            let extra = held.coming.len().saturating_sub(COMING_MAX);
            held.coming.drain(..extra);
            self.dirty.insert((Dirty::Case, id.to_owned()));
        }
        self.index(id, true);
    }

    /// The same by a word that comes by here: what is known here of the press came before it.
    fn note_coming_now(&mut self, id: &str, coming: Coming) {
        if let Some((term, version)) = self.held.get(id).map(|held| held.case.order()) {
            self.note_coming(id, Coming { term, version, ..coming });
        }
    }

    /// Somebody calls for help from there, and the owner may not hear of it soon. Who was called for a case on
    /// its way is called for it anew; `own`: has heard of it by now.
    fn note_moved(&mut self, id: &str, place: &Place, own: bool) {
        if self.held.get(id).is_none_or(|held| held.place_now() == Some(place)) {
            return;
        }
        self.index(id, false);
        if let Some(held) = self.held.get_mut(id) {
            let place = Place { text: cut(&place.text, TEXT_MAX), ..place.clone() };
            if held.calls_to(&place) {
                held.called.take_if(|_| !own);
                held.times_anew += 1;
                held.anew = Some(place.clone());
            }
            held.moved_to = Some(place);
            self.dirty.insert((Dirty::Case, id.to_owned()));
        }
        self.index(id, true);
    }

    /// He does not come after all.
    pub(super) fn comes_not(&mut self, id: &str, node: &Address, wish: &str, end: &End) {
        self.come_not(id, end, |c| c.node == *node && c.wish == wish);
        if let End::TakenBack(said) = end {
            self.disown(id, said, |held| held.stands_as().filter(|stands_as| stands_as == wish));
        }
    }

    /// Nor does whoever has accepted it, or it is not over; `wish` says which acceptance or end that was, if it is the
    /// one that stands.
    fn disown(&mut self, id: &str, said: &Denial, wish: impl Fn(&Held) -> Option<String>) {
        let Some(wish) = self.held.get(id).and_then(wish) else { return };
        self.index(id, false);
        if let Some(held) = self.held.get_mut(id) {
            let (by, name) = (cut(&said.by, WISH_ID_MAX), cut(&said.wish, WISH_ID_MAX));
            let said = Denial { by, wish: name, ..said.clone() };
            let is_known = held.denies(&said.node, &said.wish);
            match held.disowned.as_mut().filter(|disowned| disowned.wish == wish) {
                Some(disowned) if is_known || disowned.said.len() >= COMING_MAX => {}
                Some(disowned) => disowned.said.push(said),
                None => {
                    held.disowned = Some(Disowned { wish, said: vec![said], heard_us: self.now_us, called: None });
                    held.times_anew += 1;
                }
            }
            self.dirty.insert((Dirty::Case, id.to_owned()));
        }
        self.index(id, true);
    }

    /// The owner has refused what somebody at that node has said by that wish: it counts no more.
    pub(super) fn stands_after_all(&mut self, id: &str, node: &Address, wish: &str) {
        if !self.held.get(id).is_some_and(|held| held.denies(node, wish)) {
            return;
        }
        self.index(id, false);
        if let Some(held) = self.held.get_mut(id) {
            held.believe_no_more(|said| said.node == *node && said.wish == wish);
            self.dirty.insert((Dirty::Case, id.to_owned()));
        }
        self.index(id, true);
    }

    /// The owner refuses what was asked for at that node: whoever was to come does not, and what was taken back stands.
    fn refused_to(&mut self, id: &str, node: &Address, wish: &str, error: &str) {
        self.comes_not(id, node, wish, &End::Refused);
        if error != letter::LOST {
            self.stands_after_all(id, node, wish);
        }
    }

    /// These do not come after all. If nobody does now, whoever was called before they were to come is called anew; and
    /// if it is their own word, everybody: a box that has refused them lives, and lets the press climb.
    fn come_not(&mut self, id: &str, end: &End, is_gone: impl Fn(&Coming) -> bool) {
        let has_climbed = self.held.get(id).is_some_and(|held| self.has_climbed_here(&held.case));
        self.index(id, false);
        if let Some(held) = self.held.get_mut(id)
            && held.coming.iter().any(&is_gone)
        {
            held.coming.retain(|c| !is_gone(c));
            let was_called = has_climbed || held.was_called_for();
            // What it has let climb meanwhile calls by itself.
            let waits = held.uncalled.iter().any(Uncalled::is_of_press);
            if held.is_unanswered() && !waits && (was_called || matches!(end, End::TakenBack(_))) {
                held.taken_back = true;
                held.times_anew += 1;
            }
            self.dirty.insert((Dirty::Case, id.to_owned()));
        }
        self.index(id, true);
    }

    /// A person is forgotten here, whoever owns the case.
    pub(super) fn forget_here(&mut self, id: &str, by: String) {
        self.index(id, false);
        if let Some(held) = self.held.get_mut(id) {
            held.contact = None;
            held.forget_what_was_said();
            held.to_forget = Some(by).filter(|_| !held.case.forgotten);
            held.forgotten_us.get_or_insert(self.now_us);
            self.dirty.insert((Dirty::Case, id.to_owned()));
        }
        self.index(id, true);
    }

    /// A case has changed: it may follow another, or others may follow it.
    pub(super) fn look_at_followers(&mut self, id: &str) {
        let followers = self.held.get(id).map(|held| held.case.followers.clone()).unwrap_or_default();
        followers.iter().map(String::as_str).chain([id]).for_each(|id| self.look_at_follower(id));
    }

    fn look_at_follower(&mut self, id: &str) {
        match self.held.get(id).is_some_and(|held| self.leader(&held.case).is_some()) {
            true => drop(self.led.insert(id.to_owned())),
            false => drop(self.led.remove(id)),
        }
    }

    /// Puts a case's timers and its place among those that are over in, or takes them out.
    pub(super) fn index(&mut self, id: &str, put: bool) {
        let Some(held) = self.held.get(id) else { return };
        let case = &held.case;
        let timers = case.clocks.iter().filter(|c| c.runs() && c.missed.is_none());
        let timers: Vec<_> =
            timers.filter_map(|c| Some((self.due_us(held, c)?, id.to_owned(), c.name.clone()))).collect();
        let waits = Some((self.too_long(held), id.to_owned()));
        let is_due = held.calls_back() || held.called != Some(case.order());
        let waits = waits.filter(|_| self.watches(held) && is_due);
        let unheard = self.asks_after_at(held).map(|at| (at, id.to_owned()));
        let button = case.button.clone().filter(|_| case.opened_at == self.me && awaits_help(case));
        let button = button.map(|b| (b, id.to_owned()));
        let over = (case.closed.unwrap_or(case.changed).timestamp_micros(), id.to_owned());
        // Once given, a seat is taken, whoever has the case by now, until it is given back.
        if let Some(b) = case.booking.as_ref().filter(|b| b.node == self.me && b.state.has_seat()) {
            let seats = self.given.entry((b.service.clone(), b.at, b.until, b.seat)).or_default();
            *seats = if put { seats.saturating_add(b.seats) } else { seats.saturating_sub(b.seats) };
        }
        let booking = case.booking.as_ref().map(|b| (b.service.clone(), booked(case)));
        let changed = (held.told_us(), id.to_owned());
        let opened = opened(case);
        let rest = id.split('-').nth(1).map(|rest| (rest.to_owned(), id.to_owned()));
        let known = held.as_known();
        let is_open = known.status.is_open();
        let near = spots(case, 0).into_iter().filter(|_| is_open).map(|spot| (spot, id.to_owned()));
        let is_below = self.me.covers(&case.owner);
        let limits = known.clocks.iter().filter(|c| is_open && is_below && c.is_limit() && c.runs());
        let limit = limits.filter_map(|c| c.due).min().map(|due| (due.timestamp_micros(), id.to_owned()));
        let known_call = u64::from(is_open && case.urgent);
        let call = u64::from(is_open && case.urgent && is_below);
        let unaccepted = u64::from(is_open && case.urgent && is_below && held.is_unanswered());
        let of_kind = &mut self.open_by_kind[case.kind as usize];
        if put {
            *of_kind += u64::from(is_open && is_below);
            self.of_below += u64::from(is_below);
            self.calls.known += known_call;
            self.calls.open += call;
            self.calls.unaccepted += unaccepted;
        } else {
            *of_kind = of_kind.saturating_sub((is_open && is_below).into());
            self.of_below = self.of_below.saturating_sub(is_below.into());
            self.calls.known = self.calls.known.saturating_sub(known_call);
            self.calls.open = self.calls.open.saturating_sub(call);
            self.calls.unaccepted = self.calls.unaccepted.saturating_sub(unaccepted);
        }
        let beside = case.alarm.clone().map(|alarm| (alarm, opened.clone()));
        let imported = case.imported.as_ref().map(|there| number_there(&there.source, &there.id));
        if !put {
            if let Some(rest) = rest {
                self.rests.remove(&rest);
            }
            if let Some(limit) = limit {
                self.limits.remove(&limit);
            }
            for near in near {
                self.spots.remove(&near);
            }
            if let Some(beside) = &beside {
                self.beside.remove(beside);
            }
            imported.iter().for_each(|there| drop(self.imported.remove(there)));
            if let Some(booking) = &booking {
                self.bookings.remove(booking);
            }
            self.changed.remove(&changed);
            self.open.remove(id);
            self.open_since.remove(&opened);
            self.opened.remove(&opened);
            for timer in timers {
                self.due.remove(&timer);
            }
            if let Some(waits) = waits {
                self.waits.remove(&waits);
            }
            if let Some(unheard) = unheard {
                self.unheard.remove(&unheard);
            }
            self.over.remove(&over);
            if let Some(button) = button {
                self.buttons.remove(&button);
            }
            self.uncalled.remove(id);
            self.to_call.remove(id);
            self.to_categorise.remove(id);
            self.forgetting.remove(id);
            self.forgotten.remove(id);
            if let Some(button) = &case.button {
                self.by_button.remove(&(button.clone(), id.to_owned()));
            }
            return;
        }
        self.rests.extend(rest);
        self.limits.extend(limit);
        self.spots.extend(near);
        self.beside.extend(beside);
        self.imported.extend(imported.map(|there| (there, id.to_owned())));
        self.bookings.extend(booking);
        self.changed.insert(changed);
        self.buttons.extend(button);
        self.by_button.extend(case.button.clone().map(|b| (b, id.to_owned())));
        self.uncalled.extend((!held.uncalled.is_empty()).then(|| id.to_owned()));
        if self.calls_for_unproven(held) {
            self.to_call.insert(id.to_owned());
        }
        if self.may_categorise(held) {
            self.to_categorise.insert(id.to_owned());
        }
        if self.is_own(held) {
            self.due.extend(timers);
            self.forgetting.extend(held.to_forget.as_ref().map(|_| id.to_owned()));
        }
        if held.is_forgotten() {
            self.forgotten.insert(id.to_owned());
        }
        self.waits.extend(waits);
        self.unheard.extend(unheard);
        if is_open {
            self.open.insert(id.to_owned());
            self.open_since.insert(opened.clone());
        } else {
            self.over.insert(over);
        }
        self.opened.insert(opened);
    }

    /// Can it be said now what that case is about, which was not known when it was opened?
    fn may_categorise(&self, held: &Held) -> bool {
        let can = || !self.awaits_parent() || self.book().category_of(&held.case).is_some();
        held.case.category_awaited && self.is_own(held) && can()
    }

    /// Other categories are known, or all are.
    pub(super) fn look_at_categories(&mut self) {
        let can = self.held.iter().filter(|(_, held)| self.may_categorise(held)).map(|(id, _)| id.clone());
        self.to_categorise = can.collect();
    }

    /// Puts together what cases may be about, and when people work: the nearest node that says something of a
    /// code or a name, or has a calendar, is the one that counts.
    pub(super) fn inherit(&mut self) {
        let mut all: Vec<Category> = self.own_categories.to_vec();
        // Deeper nodes sort behind those that they begin with.
        for category in self.inherited.values().rev().flat_map(|above| &above.categories) {
            let is_taken =
                |c: &Category| [&category.code, &category.name].iter().any(|w| [&c.code, &c.name].contains(w));
            if !all.iter().any(is_taken) {
                all.push(category.clone());
            }
        }
        self.categories = Arc::new(all);
        let own = self.own_calendar.iter().map(|calendar| (&self.me, calendar));
        let above = self.inherited.iter().rev().filter_map(|(of, above)| Some((of, above.calendar.as_ref()?)));
        let nearest = own.chain(above).find_map(|(of, days)| Some((of.clone(), Calendar::new(days).ok()?)));
        (self.calendar_of, self.calendar) = nearest.map(|(of, calendar)| (Some(of), calendar)).unwrap_or_default();
        self.look_at_categories();
    }

    /// `is_believed`: what a case that came back tells counts.
    pub(super) fn settle(&mut self, answers: &str, is_believed: bool) {
        if let Some(pos) = self.inbox.place(answers) {
            let was = self.inbox.remove(pos).map(|posted| posted.letter);
            self.dirty.insert((Dirty::Inbox, format!("{pos:020}")));
            let case = was.as_ref().map(|letter| letter.body.case().to_owned());
            self.keep_contact(was);
            self.free_wishes(&case.unwrap_or_default());
        } else if let Some(pos) = self.waiting.place(answers) {
            self.dirty.insert((Dirty::Waiting, format!("{pos:020}")));
            // Behind the step that it led to: what is older than that is history.
            let Some(Posted { letter: was, .. }) = self.waiting.remove(pos) else { return };
            let case = was.body.case().to_owned();
            let was = Some(was).filter(|_| is_believed);
            was.iter().for_each(|letter| self.fold_returned(letter));
            self.keep_contact(was);
            self.prove(&case);
            if !self.waiting.bring_back_any() {
                self.look_at_bookings();
            }
            self.free_wishes(&case);
        }
    }

    /// Wishes that have waited for their case, and need not any more.
    pub(super) fn free_wishes(&mut self, case: &str) {
        let is_free = |posted: &Posted| posted.is_new && !self.must_wait(&posted.letter);
        let free = self.waiting.wishes_of(case).filter(|(_, posted)| is_free(posted));
        let free: Vec<u64> = free.map(|(pos, _)| pos).collect();
        free.into_iter().for_each(|pos| self.take_up(pos));
    }

    /// What waited may be decided.
    pub(super) fn take_up(&mut self, pos: u64) {
        if let Some(posted) = self.waiting.remove(pos) {
            self.inbox.insert(pos, posted);
            self.dirty.extend([Dirty::Waiting, Dirty::Inbox].map(|kind| (kind, format!("{pos:020}"))));
        }
    }

    /// Whom to call, as a hand-over brought it: kept by whoever has taken the case, or takes it, and by nobody else.
    fn keep_contact(&mut self, was: Option<Letter>) {
        let Some(Letter { body: Body::HandOver { case: given, contact: Some(contact), .. }, .. }) = was else {
            return;
        };
        // A second hand-over, of a box that has lost the first one, may be about to be taken.
        let Some(held) = self.held.get_mut(&given.id).filter(|h| *h.case.bound_for() == self.me && !h.is_forgotten())
        else {
            return;
        };
        // One that comes again, or late, tells nothing newer than what is known.
        let (known, is_newest) = (held.contact.take(), held.case.version == given.version + 1);
        held.contact = if is_newest { joined(Some(contact), known) } else { joined(known, Some(contact)) };
        self.dirty.insert((Dirty::Case, given.id));
    }

    /// Whom to call, as the owner or the one that has opened it says: the case may have gone another way meanwhile.
    pub(super) fn keep_word(&mut self, case: String, contact: Contact) {
        if self.held.get(&case).is_some_and(|held| self.is_to_know(held))
            && let Some(held) = self.held.get_mut(&case)
        {
            held.contact = Some(contact);
            self.dirty.insert((Dirty::Case, case));
        }
    }

    /// A step from elsewhere calls this node. It does right behind the commit that took it: what came with
    /// it may say that nobody needs to come any more.
    pub(super) fn note_call(&mut self, case: &Case, entry: &Entry, header: &Header<'_>) {
        if entry.node == self.me || !entry.calls.contains(&self.me) {
            return;
        }
        // A box of which a backup was put back does again what it did before: this node has called for that.
        let is_again = |e: &Entry| {
            line(e) != line(entry)
                && (e.term, e.version, &e.step) == (entry.term, entry.version, &entry.step)
                && e.calls.contains(&self.me)
        };
        if self.held.get(&case.id).is_some_and(|held| held.history.iter().any(is_again)) {
            return;
        }
        let is_old = self.is_from_before(header);
        // A press climbs until somebody comes. All else is for whoever is called, whatever was done since; but
        // what the box before this one may have called for.
        let is_press = case.urgent && case.status == Status::Submitted;
        let climbs = is_press && entry.by == machine::TIMER;
        // What has passed a limit calls whoever is next, also if he was called because it had not climbed.
        let is_late = machine::misses(entry);
        // It says, too, that whoever had accepted it does not come.
        let disowns = is_press && entry.step == Verb::Escalate.done();
        // Somebody else comes by now, whom the box has not heard yet.
        let is_replaced = |held: &Held| held.takes_back(entry) && !held.coming.is_empty();
        let climbs_on = climbs || disowns && self.held.get(&case.id).is_some_and(is_replaced);
        let stood = Some(case.status).filter(|_| climbs_on || is_old && entry.step != Verb::Assist.done());
        let is_offer = entry.step == Verb::Escalate.done() && case.offered_to.as_ref() == Some(&self.me);
        // Whoever is said to come since then may be refused, and would be nobody's reason to call any more.
        let was_called = |held: &Held| held.coming.is_empty() && held.was_called_for();
        if (climbs || disowns) && !is_late && self.held.get(&case.id).is_some_and(was_called) {
            return;
        }
        self.index(&case.id, false);
        if let Some(held) = self.held.get_mut(&case.id) {
            held.uncalled.push(Uncalled { term: entry.term, version: entry.version, stood, is_old, is_offer });
            held.taken_back = false;
            held.forget_needless_calls();
        }
        self.index(&case.id, true);
    }

    /// Others know these lines from the box that was here, which has called when it took them.
    fn were_called(&mut self, case: &str, lines: &[Entry]) {
        if !self.uncalled.contains(case) {
            return;
        }
        self.index(case, false);
        if let Some(held) = self.held.get_mut(case) {
            held.uncalled.retain(|u| !lines.iter().any(|e| u.is_of(e)));
            self.dirty.insert((Dirty::Case, case.to_owned()));
        }
        self.index(case, true);
    }

    /// This node's responders were called: one call tells of all that there was.
    pub(super) fn apply_call(&mut self, case: &str) {
        if !self.uncalled.contains(case) {
            return;
        }
        self.index(case, false);
        if let Some(held) = self.held.get_mut(case) {
            held.uncalled.clear();
            self.dirty.insert((Dirty::Case, case.to_owned()));
        }
        self.index(case, true);
    }

    /// The answer to a wish of this node, in the case's own records.
    pub(super) fn granted(&mut self, case: &str, wish: &str) {
        self.index(case, false);
        if let Some(held) = self.held.get_mut(case) {
            held.wishes.retain(|w| w.id != wish);
        }
        self.index(case, true);
    }

    /// A letter of this node, for it, or on its way past it.
    pub(super) fn apply_letter(&mut self, pos: Pos, header: &Header<'_>, letter: Letter) {
        let (own, log) = (header.origin.is_none(), header.origin.map(|o| o.log));
        if let Body::Ask { case, verb: Verb::Comment, ask: Ask { place: Some(place), .. }, .. } = &letter.body
            && is_true(header, &letter)
            && !self.may_step(case)
        {
            self.note_moved(case, place, own);
        }
        // This node's own word, or one that goes past it: a hand-over that went back is over.
        if let Body::SentBack { case, term, version, .. } = &letter.body
            && letter.to != self.me
            && let Some(held) = self.held.get_mut(case)
        {
            held.sent_back = Some((*term, *version));
            self.dirty.insert((Dirty::Case, case.clone()));
        }
        let (is_sent, is_here) = (own && letter.from == self.me, letter.to == self.me);
        if is_sent && (!is_here || matches!(letter.body, Body::Ask { .. } | Body::WhatOf(_))) {
            self.note_sent(&letter);
        }
        if !is_here {
            if !is_sent {
                self.apply_passing(pos, header, Posted { letter, log, is_new: false });
            } else if letter.via.is_some() {
                // Its own wish, which came back here after its case and has turned.
                self.has_turned(&letter.id);
            }
        } else if is_true(header, &letter) {
            self.apply_received(pos, header, Posted { letter, log, is_new: false });
        }
    }

    /// A letter of this node to another, or its own wish to itself.
    fn note_sent(&mut self, letter: &Letter) {
        if let Body::Returned { log, case, .. } = &letter.body {
            self.apply_sent(&letter.to, *log, case);
        }
        if let Body::Ask { case, offered: Some(_), .. } = &letter.body
            && let Some(held) = self.held.get_mut(case)
        {
            held.offer_told = Some(letter.id.clone());
            self.dirty.insert((Dirty::Case, case.clone()));
            return self.look_at_booking(case);
        }
        if let Body::WhatOf(WhatOf { case, wish, .. }) = &letter.body {
            return self.note_asked_after(case, wish);
        }
        // Those above it have been told by a word that came by here.
        if let Body::Refused { case, answers, error, .. } = &letter.body {
            return self.refused_to(case, &letter.to, answers, error);
        }
        let wished = match &letter.body {
            Body::Ask { case, verb, ask, .. } => Some((case, *verb, heard_of(*verb, ask), content(*verb, ask))),
            Body::Recall { case, by, .. } => Some((&case.id, Verb::Recall, by.as_str(), 0)),
            _ => None,
        };
        let Some((case, verb, by, content)) = wished else { return };
        let Some(held) = self.held.get_mut(case) else { return };
        let by = by.to_owned();
        let is_press = |ask: &Ask| ask.text.as_ref().is_some_and(|text| text.starts_with(AGAIN));
        if let Body::Ask { verb: Verb::Comment, ask, hops: 0, .. } = &letter.body
            && is_press(ask)
        {
            held.pressed += 1;
            self.dirty.insert((Dirty::Case, case.clone()));
        }
        // What the node does by itself is nobody's wish.
        if by == machine::TIMER || by == self.me.as_str() {
            return;
        }
        let (id, to, again) = (letter.id.clone(), letter.to.clone(), letter.again);
        // What is on its way to nobody will be refused, and is no case that comes back.
        let giver = Some(held.case.owner.clone()).filter(|_| verb == Verb::Recall && held.case.handing_to.is_some());
        let takes_back = letter.takes_back.clone();
        let said = match &letter.body {
            // Who has it opened again may be a resident, who has no name above.
            Body::Ask { ask, .. } if letter.may_be_sent_again() && verb == Verb::Reopen => {
                let by = machine::heard_as(&ask.by, ask.role).to_owned();
                Some(Box::new(Ask { by, ..ask.clone() }))
            }
            Body::Ask { ask, .. } if letter.may_be_sent_again() => Some(Box::new(ask.clone())),
            _ => None,
        };
        let (asked_us, asked_after, refused, is_lost) = (self.now_us, 0, None, false);
        let wish =
            Wish { id, verb, by, to, content, again, takes_back, giver, refused, is_lost, asked_us, asked_after, said };
        self.dirty.insert((Dirty::Case, case.clone()));
        self.index(case, false);
        if let Some(held) = self.held.get_mut(case) {
            // What goes to whoever gives a case away goes on from there, and is asked for here and now.
            let is_sent_on = letter.via.is_some() && matches!(letter.body, Body::Ask { hops: 0, .. });
            held.note_wish(wish, is_sent_on);
        }
        self.index(case, true);
    }

    /// This node asks what has become of that wish.
    fn note_asked_after(&mut self, case: &str, wish: &str) {
        self.index(case, false);
        let wishes = self.held.get_mut(case).map(|held| held.wishes.iter_mut());
        if let Some(wish) = wishes.and_then(|mut wishes| wishes.find(|w| w.id == wish)) {
            wish.asked_us = self.now_us;
            wish.asked_after += 1;
            self.dirty.insert((Dirty::Case, case.to_owned()));
        }
        self.index(case, true);
    }

    /// A letter for another node, which comes by here.
    fn apply_passing(&mut self, pos: Pos, header: &Header<'_>, posted: Posted) {
        let letter = &posted.letter;
        if header.origin.is_none() && header.direction == Direction::Down {
            self.has_turned(&letter.id);
        }
        let is_kept = matches!(letter.body, Body::Ask { .. } | Body::WhatOf(_) | Body::HandOver { .. });
        let turns = is_kept && self.turns(header, letter);
        let waits = turns && self.turns_later(header, letter);
        // On its way down: those between must know as much as those below.
        match &letter.body {
            // This node is between whoever says it and the press, or above both.
            Body::Ask { case, verb, ask, .. } if is_true(header, letter) => {
                self.hear_wish(case, *verb, ask, letter, header);
            }
            Body::Refused { case, answers, error, .. } if is_true(header, letter) => {
                self.refused_to(case, &letter.to, answers, error);
            }
            Body::Copy { case, entry, history, .. } if header.direction == Direction::Down => {
                self.fold_copy(case, entry, history);
            }
            // If it comes to a box that is lost, this node can say what it was to get.
            Body::HandOver { case, history, .. } if header.direction == Direction::Down && header.origin.is_some() => {
                self.fold(case, history);
            }
            _ => {}
        }
        // Kept until it has gone down, behind it in the same group or later: whether it may go at once was judged
        // before what came with it in one frame.
        if turns {
            let is_new = !is_hand_over(&posted.letter);
            self.post(pos, Posted { is_new, ..posted }, waits);
        }
    }

    /// Somebody comes to a press, or does not after all, or it is not over: that is true before the press's box has done
    /// what he wants.
    fn hear_wish(&mut self, case: &str, verb: Verb, ask: &Ask, letter: &Letter, header: &Header<'_>) {
        let said = said_by(letter, verb, ask, header);
        match verb {
            Verb::Accept => {
                let (node, by, wish) = (letter.from.clone(), ask.by.clone(), letter.id.clone());
                self.note_coming_now(case, Coming { node, by, at: said.at, wish, term: 0, version: 0 });
            }
            Verb::Escalate => {
                self.come_not(case, &End::TakenBack(said.clone()), |coming| {
                    takes_back(&letter.from, ask, coming) && is_meant(letter, &coming.wish)
                });
                self.disown(case, &said, |held| {
                    held.taken_back_by(&letter.from, verb, ask).filter(|wish| is_meant(letter, wish))
                });
            }
            Verb::Reopen => self
                .disown(case, &said, |held| held.stands_as().filter(|stands_as| letter.takes_back.contains(stands_as))),
            _ => {}
        }
    }

    /// A letter that turns here has gone down, or back.
    fn has_turned(&mut self, id: &str) {
        let id = id.strip_suffix(SENT_BACK).unwrap_or(id);
        for (kind, letters) in [(Dirty::Inbox, &mut self.inbox), (Dirty::Waiting, &mut self.waiting)] {
            let place = letters.place(id);
            let turned = |pos: &u64| letters.get(*pos).is_some_and(|posted| posted.letter.to != self.me);
            if let Some(pos) = place.filter(turned) {
                letters.remove(pos);
                self.dirty.insert((kind, format!("{pos:020}")));
            }
        }
    }

    /// A letter for this node.
    fn apply_received(&mut self, pos: Pos, header: &Header<'_>, posted: Posted) {
        let letter = &posted.letter;
        let is_old = self.is_old(header, letter);
        match &letter.body {
            Body::Copy { case, entry, history, answers } => {
                let is_new = self.held.get(&case.id).is_none_or(|h| !h.history.contains(entry));
                self.fold_copy(case, entry, history);
                if is_new {
                    self.note_call(case, entry, header);
                }
                if let Some(wish) = answers {
                    self.granted(&case.id, wish);
                }
                let id = case.id.clone();
                self.free_wishes(&id);
            }
            Body::HandOver { case, history, .. } | Body::Recall { case, history, .. } => {
                self.fold(case, history);
                self.post(pos, posted, is_old);
            }
            Body::Ask { case, verb, ask, .. } => {
                // It waits with the case, and counts now. Who came before this box was there says the one above.
                let is_told = *verb == Verb::Accept && is_old;
                let is_done = |held: &Held| held.history.iter().any(|e| e.wish.as_ref() == Some(&letter.id));
                if self.is_unproven(case) && !is_told && !self.held.get(case).is_some_and(is_done) {
                    self.hear_wish(case, *verb, ask, letter, header);
                }
                // This box's own wish, which comes back by way of the one that gives the case.
                let is_own = |held: &Held| held.wishes.iter().any(|w| w.id == letter.id);
                let is_new = !is_old || (letter.from == self.me && self.held.get(case).is_some_and(is_own));
                let waits = !is_new || self.must_wait(letter);
                self.post(pos, Posted { is_new, ..posted }, waits);
            }
            Body::WhatOf(_) => {
                let waits = self.must_wait(letter);
                self.post(pos, Posted { is_new: true, ..posted }, waits);
            }
            Body::SentBack { .. } => self.post(pos, posted, is_old),
            // Whether he knows of it is judged when everybody has spoken.
            Body::Returned { case, .. }
                if header.direction == Direction::Up
                    && case.owner != self.me
                    && !succession::may_return(case, letter.sender()) => {}
            Body::Returned { log, case, coming, .. } => {
                if self.is_for(*log) && self.was_here(case) {
                    if header.direction == Direction::Down {
                        self.lend(letter);
                    }
                    self.post(pos, posted, true);
                } else if self.is_for(*log) {
                    self.fold_returned(letter);
                    if header.direction == Direction::Down {
                        coming.iter().for_each(|coming| self.note_coming_now(&case.id, coming.clone()));
                    }
                }
            }
            Body::Refused { case, answers, detail, error, .. } => {
                let is_over = error == letter::OVER;
                self.refused_to(case, &letter.to, answers, error);
                // What was refused for a reason is not lost.
                let is_news = |w: &Wish| w.refused.is_none() || error != letter::LOST;
                let is_it = |w: &Wish| w.id == *answers && w.again == letter.again && is_news(w);
                self.index(case, false);
                if let Some(held) = self.held.get_mut(case)
                    && let Some(wish) = held.wishes.iter_mut().find(|w| is_it(w))
                {
                    (wish.refused, wish.is_lost) = (Some(detail.clone()), error == letter::LOST);
                    // Where somebody calls from now is true though the owner cannot hear it yet, or never has.
                    let is_unheard = wish.is_lost || error == "on-its-way";
                    held.moved_to.take_if(|_| wish.verb == Verb::Comment && !is_unheard);
                    self.dirty.insert((Dirty::Case, case.clone()));
                }
                self.index(case, true);
                // Whoever pressed calls for help all the same.
                if is_over {
                    self.post(pos, posted, is_old);
                }
            }
        }
    }

    /// This node's responders were called for a hand-over.
    pub(super) fn apply_called(&mut self, case: &str, order: (u32, u32)) {
        self.index(case, false);
        if let Some(held) = self.held.get_mut(case) {
            held.called = Some(order);
            held.taken_back = false;
            if held.disowns().is_some() {
                held.disowned.iter_mut().for_each(|disowned| disowned.called = Some(order));
            }
            // Whoever was said to come has no answer: nobody waits for him any more.
            held.coming = held.who_comes().cloned().collect();
            held.uncalled.retain(|u| !u.is_of_press());
            self.dirty.insert((Dirty::Case, case.to_owned()));
        }
        self.index(case, true);
    }

    /// A copy from elsewhere. One by which this node could step waits until it knows all that was before.
    fn fold_copy(&mut self, case: &Case, entry: &Entry, history: &[Entry]) {
        if case.owner != self.me || self.is_settled() {
            self.fold(case, history);
            self.fold(case, std::slice::from_ref(entry));
        }
    }

    /// A case of the box that was here, as the one above knows it: it is shown, and called for, before all are heard who
    /// may know more of it. Nobody steps it before.
    fn lend(&mut self, letter: &Letter) {
        let Body::Returned { case, coming, .. } = &letter.body else { return };
        let is_news = self.held.get(&case.id).is_none_or(|held| case.supersedes(&held.case));
        if case.owner != self.me || self.is_settled() || !is_news {
            return;
        }
        self.fold_returned(letter);
        coming.iter().for_each(|coming| self.note_coming_now(&case.id, coming.clone()));
        self.index(&case.id, false);
        if let Some(held) = self.held.get_mut(&case.id) {
            (held.unproven, held.lent) = (true, true);
        }
        self.index(&case.id, true);
        self.look_at_followers(&case.id);
        self.look_at_booking(&case.id);
    }

    /// What others know of a case that the box that was here may have known better.
    fn fold_returned(&mut self, letter: &Letter) {
        let Body::Returned { case, history, sent_back, contact, .. } = &letter.body else { return };
        self.fold(case, history);
        let is_to_know = self.held.get(&case.id).is_some_and(|held| self.is_to_know(held));
        if let Some(held) = self.held.get_mut(&case.id) {
            held.sent_back = held.sent_back.max(*sent_back);
            if is_to_know {
                held.contact = joined(held.contact.take(), contact.clone());
            }
        }
        // Whoever has the case may have written lines that have come to no other box here.
        if case.owner != *letter.sender() {
            self.were_called(&case.id, history);
        }
    }

    pub(super) fn post(&mut self, pos: Pos, posted: Posted, waits: bool) {
        let (kind, letters) = if waits { (Dirty::Waiting, &mut self.waiting) } else { (Dirty::Inbox, &mut self.inbox) };
        let case = posted.letter.body.case().to_owned();
        letters.insert(pos.0, posted);
        self.dirty.insert((kind, format!("{:020}", pos.0)));
        if !waits {
            return;
        }
        // A wish that came just before its case waits with it.
        let wishes = self.inbox.wishes_of(&case).filter(|(_, wish)| self.must_wait(&wish.letter));
        for pos in wishes.map(|(pos, _)| pos).collect::<Vec<_>>() {
            if let Some(wish) = self.inbox.remove(pos) {
                self.waiting.insert(pos, Posted { is_new: true, ..wish });
                self.dirty.extend([Dirty::Waiting, Dirty::Inbox].map(|kind| (kind, format!("{pos:020}"))));
            }
        }
    }
}
