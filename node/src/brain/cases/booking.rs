//! Appointments and seats of this node's services: what is left, and the answer to a request.

use super::letter::{Body, Offered, Pen};
use super::machine::{Stepped, TEXT_MAX, TIMER, common, cut};
use super::{Cases, Dirty, Held};
use crate::brain::services::{hours, request};
use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use citybrain_shared::case::{Ask, Booked, Booking, Case, Place, Role, Seat, Verb, step};
use citybrain_shared::config::services::Service;
use citybrain_shared::record::Draft;
use citybrain_shared::{Address, view};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use xxhash_rust::xxh3::xxh3_64;

/// An activity, as long as it is not over: moved to another time it has the same seats. One of the same
/// code that is offered once this is over is another, with seats of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Edition {
    /// When it was to begin; the newest last. Seats were given under each.
    begins: Vec<DateTime<Utc>>,
    until: DateTime<Utc>,
}

impl Edition {
    /// Nothing that is still to come is moved to a time that is past.
    fn is_slip(&self, starts: DateTime<Utc>, until: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        self.until > now && until <= now && self.begins.last() != Some(&starts)
    }

    fn move_to(&mut self, begin: DateTime<Utc>, until: DateTime<Utc>) {
        self.begins.retain(|at| *at != begin);
        self.begins.push(begin);
        self.until = until;
    }
}

/// What cases have asked for: a service by its code, of one node or of any, under one name or under any.
pub struct OfService {
    pub code: String,
    node: Option<Address>,
    name: Option<String>,
}

impl OfService {
    pub fn offered(node: &Address, service: &Service) -> OfService {
        OfService { code: service.code.clone(), node: Some(node.clone()), name: None }
    }

    /// Whose it is, if it is of one node.
    pub fn node(&self) -> Option<&Address> {
        self.node.as_ref()
    }

    pub fn holds(&self, booking: &Booking) -> bool {
        self.code == booking.service
            && self.node.as_ref().is_none_or(|node| *node == booking.node)
            && self.name.as_ref().is_none_or(|name| *name == booking.name)
    }
}

impl Cases {
    /// A service that is not offered here, as cases here ask for it: by its code, or by the name that it had then.
    pub fn asked_for(&self, word: &str, of: Option<&Address>) -> Option<OfService> {
        let bookings = || self.bookings.iter().filter_map(|(_, (_, id))| self.held.get(id)?.case.booking.as_ref());
        let any = |name: bool| {
            let is_called = |b: &&Booking| if name { b.name == word } else { b.service == word };
            let found = bookings().filter(is_called).find(|b| of.is_none_or(|of| *of == b.node))?;
            let name = name.then(|| word.to_owned());
            Some(OfService { code: found.service.clone(), node: of.cloned(), name })
        };
        any(false).or_else(|| any(true))
    }

    /// What this node offers from now on, as its own catalogue says.
    pub(super) fn apply_offers(&mut self, services: &[Service], now: DateTime<Utc>) {
        let offers = |code: &String| services.iter().any(|s| s.code == *code && s.starts.is_some());
        for code in self.editions.keys().filter(|code| !offers(code)) {
            self.dirty.insert((Dirty::Edition, code.clone()));
        }
        // One that is taken back for a while comes back with its seats.
        self.editions.retain(|code, edition| offers(code) || edition.until > now);
        for service in services {
            let Some((starts, ends)) = request::activity(service, &self.calendar) else { continue };
            let until = ends.unwrap_or(starts);
            self.dirty.insert((Dirty::Edition, service.code.clone()));
            match self.editions.get_mut(&service.code) {
                // Of a slip nobody is told, and the seats wait for the time that is meant.
                Some(edition) if edition.is_slip(starts, until, now) => {}
                Some(edition) if edition.until > now || edition.begins.contains(&starts) => {
                    edition.move_to(starts, until);
                }
                _ => drop(self.editions.insert(service.code.clone(), Edition { begins: vec![starts], until })),
            }
        }
        self.look_at_bookings();
    }

    /// Activities that are booked and still to come, and past by what is offered now: a slip.
    pub fn past_by_a_slip(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Service> {
        let is_booked = move |service: &Service| {
            let mut asks = self.asking_for(&service.code, None);
            asks.any(|held| self.booking_here(&held.case, Booked::Booked).is_some() && lies_ahead(&held.case, now))
        };
        self.services.iter().filter(move |service| {
            let activity = request::activity(service, &self.calendar);
            let moved = activity.zip(self.editions.get(&service.code));
            moved.is_some_and(|((starts, ends), edition)| edition.is_slip(starts, ends.unwrap_or(starts), now))
                && is_booked(service)
        })
    }

    /// Other clocks count from now on, and what was said to begin at nine still does.
    pub(super) fn shift_editions(&mut self, before: FixedOffset) {
        let later = TimeDelta::seconds((before.local_minus_utc() - self.calendar.offset().local_minus_utc()).into());
        if later.is_zero() {
            return;
        }
        for (code, edition) in &mut self.editions {
            let Some(begin) = edition.begins.last().map(|begin| *begin + later) else { continue };
            edition.move_to(begin, edition.until + later);
            self.dirty.insert((Dirty::Edition, code.clone()));
        }
    }

    /// A case has come from before a loss, with seats of an activity that is still to come: the time that it names is
    /// one that this was to be at, whatever the file says by now.
    pub(super) fn keep_edition(&mut self, id: &str) {
        let now = view::time_of(self.now_us);
        let booking = self.held.get(id).and_then(|held| self.booking_here(&held.case, Booked::Booked));
        let Some((booking, at)) = booking.and_then(|b| Some((b, b.at?))) else { return };
        let until = booking.until.unwrap_or(at);
        let is_activity = self.services.iter().any(|s| s.code == booking.service && s.starts.is_some());
        if !is_activity || until <= now {
            return;
        }
        let code = booking.service.clone();
        match self.editions.get_mut(&code) {
            Some(edition) if edition.begins.contains(&at) => return,
            Some(edition) if edition.until > now => edition.begins.insert(0, at),
            // What the file says is not known yet, or is past, which is a slip.
            _ => drop(self.editions.insert(code.clone(), Edition { begins: vec![at], until })),
        }
        self.dirty.insert((Dirty::Edition, code));
    }

    /// What is offered, or when people work, may have changed: every case that has seats here may have to say so.
    pub(super) fn look_at_bookings(&mut self) {
        let all: Vec<String> = self.bookings.iter().map(|(_, (_, id))| id.clone()).collect();
        all.iter().for_each(|id| self.look_at_booking(id));
    }

    pub(super) fn look_at_booking(&mut self, id: &str) {
        match self.held.get(id).is_some_and(|held| self.owes_a_word(held)) {
            true => drop(self.to_rebook.insert(id.to_owned())),
            false => drop(self.to_rebook.remove(id)),
        }
    }

    /// Is what this case has booked offered otherwise now, and was neither it told nor its owner? He is told again
    /// whenever his newest word of the case still says otherwise: so it does not matter what became of a letter.
    fn owes_a_word(&self, held: &Held) -> bool {
        let case = &held.case;
        if self.awaits_seat(case) {
            return true;
        }
        let Some(now) = self.changed_booking(case).filter(|_| lies_ahead(case, view::time_of(self.now_us))) else {
            return false;
        };
        self.may_step(&case.id) || self.is_at_another(case) && held.offer_told.as_ref() != Some(&offer_id(case, &now))
    }

    /// What that case asks this node for, if it has come so far.
    pub(super) fn booking_here<'c>(&self, case: &'c Case, state: Booked) -> Option<&'c Booking> {
        case.booking.as_ref().filter(|b| b.node == self.me && b.state == state)
    }

    /// Was it asked for here while nobody knew which seats were given, and can be answered now?
    fn awaits_seat(&self, case: &Case) -> bool {
        self.booking_here(case, Booked::Asked).is_some()
            && case.status.is_open()
            && self.may_step(&case.id)
            && self.knows_all()
    }

    /// Does another node have it, or will have? What comes here is told when it is here, and what goes from here
    /// when it has gone.
    fn is_at_another(&self, case: &Case) -> bool {
        case.owner != self.me && *case.bound_for() != self.me && common(&self.me, case.bound_for()).is_some()
    }

    /// What this case has booked here as it is offered now, if that is otherwise than the case says.
    fn changed_booking(&self, case: &Case) -> Option<Booking> {
        let booking = case.booking.as_ref().filter(|b| b.node == self.me && b.state.has_seat())?;
        // Of what is cancelled, where it would be is nobody's news.
        let is_cancelled = |now: &Booking| [booking.state, now.state] == [Booked::Cancelled; 2];
        Some(self.as_offered(booking)).filter(|now| now != booking && !is_cancelled(now))
    }

    fn as_offered(&self, booking: &Booking) -> Booking {
        let mut now = booking.clone();
        let Some(service) = self.services.iter().find(|s| s.code == booking.service) else {
            return Booking { state: Booked::Cancelled, ..now };
        };
        now.place.clone_from(&service.place);
        if service.starts.is_some() {
            let edition = self.editions.get(&service.code).and_then(|e| Some((e, *e.begins.last()?)));
            let (Some((edition, begin)), Some(at)) = (edition, booking.at) else { return booking.clone() };
            // After a start the file may say what this node has not said yet: then its cases are told once it has.
            let is_said = |(starts, ends): (_, Option<_>)| (starts, ends.unwrap_or(starts)) == (begin, edition.until);
            if !request::activity(service, &self.calendar).is_some_and(is_said) {
                return booking.clone();
            }
            // Booked as an appointment, before it was an activity.
            if !edition.begins.contains(&at) {
                return Booking { state: Booked::Cancelled, ..now };
            }
            (now.at, now.until) = (Some(begin), Some(edition.until).filter(|until| *until != begin));
            now.state = Booked::Booked;
        } else {
            let hours = request::hours_of(service);
            let is_open = |at| hours::lie_around(&hours, at, booking.until.unwrap_or(at), &self.calendar);
            let is_given = hours.is_empty() || booking.at.is_none_or(is_open);
            // Only an activity wants volunteers.
            now.state = if is_given && booking.seat == Seat::Visitor { Booked::Booked } else { Booked::Cancelled };
        }
        now
    }

    /// Tells a case of this node what has become of its seats.
    pub(super) fn rebook(&self, case: &Case, now: DateTime<Utc>) -> Option<Stepped> {
        let offered = self.offered_now(case).filter(|_| self.may_step(&case.id))?;
        self.offered_otherwise(case, &self.me, &offered, now)
    }

    /// Tells the owner of a case of another node: it goes after the case as a comment does.
    pub(super) fn offer_letter(&self, held: &Held, now: DateTime<Utc>) -> Option<Draft> {
        let case = &held.case;
        let offered = self.offered_now(case)?;
        let id = offer_id(case, &offered.after);
        let ask = Ask { by: TIMER.into(), role: Some(Role::Worker), ..Ask::default() };
        let offered = Some(Box::new(offered));
        let body = Body::Ask { case: case.id.clone(), verb: Verb::Comment, ask, hops: 0, contact: None, offered };
        Pen { me: &self.me, now }.letter(&self.letter(id, case.bound_for(), case.urgent, body))
    }

    /// What becomes of a case of this node by the word of the node that offers what it has booked; `None`: it says
    /// something else by now, which that node has not heard yet. Whoever is on duty here is called, as somebody must
    /// say so to whoever counts on it.
    pub(super) fn offered_otherwise(
        &self,
        case: &Case,
        by: &Address,
        offered: &Offered,
        now: DateTime<Utc>,
    ) -> Option<Stepped> {
        let Offered { before, after, to, text } = offered;
        if case.booking.as_ref() != Some(before) || [&before.node, &after.node] != [by, by] {
            return None;
        }
        let step = match (before.state, after.state) {
            (Booked::Booked, Booked::Cancelled) => step::CANCELLED,
            (Booked::Cancelled, Booked::Booked) => step::BOOKED,
            _ => step::RESCHEDULED,
        };
        Some(self.book().rebook(case, after.clone(), step, to.clone(), cut(text, TEXT_MAX), now))
    }

    /// What a case has booked here as it is offered now, in words, if that is otherwise than the case says.
    fn offered_now(&self, case: &Case) -> Option<Offered> {
        let (before, after) = (case.booking.as_ref()?, self.changed_booking(case)?);
        let time = |at: Option<DateTime<Utc>>| at.map(|at| self.calendar.shown(at)).unwrap_or_default();
        let place = |p: &Option<Place>| p.as_ref().map(Place::to_string).unwrap_or_default();
        let mut said = Vec::new();
        if before.state != after.state {
            said.push(match (after.state, self.services.iter().any(|s| s.code == before.service)) {
                (Booked::Cancelled, true) => format!("there is no appointment at {} any more", time(before.at)),
                (Booked::Cancelled, false) => format!("{} no longer offers it", self.me),
                _ => "it is offered again".into(),
            });
        }
        if before.at != after.at {
            said.push(format!("it was to be at {}", time(before.at)));
        } else if before.until != after.until {
            let end = |b: &Booking| time(b.until.or(b.at));
            said.push(format!("it ends at {} now, not at {}", end(&after), end(before)));
        }
        if before.place != after.place {
            let there =
                [&before.place, &after.place].map(place).map(|p| if p.is_empty() { "no place".into() } else { p });
            said.push(format!("it is at {} now, not at {}", there[1], there[0]));
        }
        let to = Some(time(after.at)).filter(|_| before.at != after.at);
        Some(Offered { before: before.clone(), after, to, text: said.join("; ") })
    }

    /// The answer to a request for a service of this node that has none yet; none before it knows which seats are given.
    pub(super) fn booked(&self, case: &Case, now: DateTime<Utc>) -> Option<Stepped> {
        let booking = self.booking_here(case, Booked::Asked)?;
        if !self.knows_all() {
            return None;
        }
        Some(self.book().book(case, self.lack(booking, now), now))
    }

    /// Why a booking cannot be given.
    pub(super) fn lack(&self, booking: &Booking, now: DateTime<Utc>) -> Option<String> {
        let Some(service) = self.services.iter().find(|s| s.code == booking.service) else {
            return Some(format!("{} no longer offers `{}`", self.me, booking.service));
        };
        if let Some(at) = booking.at.filter(|_| service.starts.is_none())
            && !request::is_slot(service, at, now, &self.calendar)
        {
            return Some(format!("there is no appointment at {} any more", self.calendar.shown(at)));
        }
        if let Some((starts, _)) = request::activity(service, &self.calendar)
            && booking.at != Some(starts)
        {
            return Some(format!("it is at {} now: ask again", self.calendar.shown(starts)));
        }
        if booking.until.or(booking.at).is_some_and(|end| end <= now) {
            return Some("it is over".into());
        }
        let left = self.left(service, booking.at, booking.seat)?;
        (left < booking.seats).then(|| {
            let next = self.slots(service, now).filter(|s| s.free > 0).take(3);
            let next: Vec<String> = next.map(|s| s.local).collect();
            let free = if next.is_empty() { String::new() } else { format!("; free is {}", next.join(", ")) };
            format!("{left} of {} are left{free}", limit_of(service, booking.seat).unwrap_or(0))
        })
    }

    /// Seats that are left; `None` where nothing is counted. An appointment has those that no other has
    /// which it meets: its hours, or its length, may have been others when that was given.
    pub(super) fn left(&self, service: &Service, at: Option<DateTime<Utc>>, seat: Seat) -> Option<u32> {
        let limit = limit_of(service, seat)?;
        let begins = |from, to| {
            let place = |at| (service.code.clone(), Some(at), None, Seat::Visitor);
            self.given.range(place(from)..place(to)).filter(move |((_, _, _, s), _)| *s == seat)
        };
        let given: u64 = match (service.slot, at) {
            (Some(length), Some(at)) => {
                let end = at + TimeDelta::seconds(request::length_s(length, &self.calendar).into());
                let meets = |until: Option<DateTime<Utc>>| until.is_none_or(|until| until > at);
                let near = begins(at - TimeDelta::days(1), end).filter(|((_, _, until, _), _)| meets(*until));
                near.map(|(_, seats)| u64::from(*seats)).sum()
            }
            _ => {
                let edition = self.editions.get(&service.code).into_iter().flat_map(|e| &e.begins).copied();
                let all: BTreeSet<DateTime<Utc>> = edition.chain(at).collect();
                let same = |at: DateTime<Utc>| begins(at, at + TimeDelta::microseconds(1));
                all.into_iter().flat_map(same).map(|(_, seats)| u64::from(*seats)).sum()
            }
        };
        Some(u32::try_from(u64::from(limit).saturating_sub(given)).unwrap_or(limit))
    }

    /// May an appointment be had, as far as this node knows? Only the one that offers it counts.
    pub fn may_be_free(&self, offered: &request::Offered<'_>, at: DateTime<Utc>) -> bool {
        *offered.node != self.me || self.left(offered.service, Some(at), Seat::Visitor).is_none_or(|left| left > 0)
    }

    /// What is free of a service of this node.
    pub fn free(&self, service: &Service, now: DateTime<Utc>) -> view::Free {
        let at = request::activity(service, &self.calendar).map(|(starts, _)| starts);
        let left = |seat| service.starts.as_ref().and_then(|_| self.left(service, at, seat));
        let mut free =
            view::Free { places: left(Seat::Visitor), volunteers: left(Seat::Volunteer), ..Default::default() };
        let mut listed = 0;
        for slot in self.slots(service, now) {
            if slot.free > 0 && listed == hours::SLOTS_MAX {
                free.more = true;
                break;
            }
            listed += usize::from(slot.free > 0);
            free.slots.push(slot);
        }
        free
    }

    /// Appointments ahead, also full ones.
    fn slots(&self, service: &Service, now: DateTime<Utc>) -> impl Iterator<Item = view::Slot> {
        request::slots_ahead(service, now, &self.calendar).map(move |at| view::Slot {
            at,
            local: self.calendar.shown(at),
            free: self.left(service, Some(at), Seat::Visitor).unwrap_or(0),
        })
    }
}

/// Of the letter that says so to whoever has the case, as it stands there.
fn offer_id(case: &Case, now: &Booking) -> String {
    let text = serde_json::to_vec(now).expect("a booking has string keys only");
    format!("{}.{}.{}.offered.{:016x}", case.id, case.term, case.version, xxh3_64(&text))
}

/// Is what the case has booked still to come? Without a time it is for as long as the case is open.
fn lies_ahead(case: &Case, now: DateTime<Utc>) -> bool {
    let end = case.booking.as_ref().and_then(|b| b.until.or(b.at));
    end.map_or(case.status.is_open(), |end| end > now)
}

/// How many seats there are; `None` where nothing is counted.
fn limit_of(service: &Service, seat: Seat) -> Option<u32> {
    match (service.starts.is_some(), seat) {
        (true, Seat::Visitor) => service.places,
        (true, Seat::Volunteer) => service.volunteers,
        (false, _) => service.slot.map(|_| service.capacity),
    }
}
