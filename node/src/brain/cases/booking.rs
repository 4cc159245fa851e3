//! Appointments and seats of this node's services: what is left, and the answer to a request.

use super::machine::Stepped;
use super::{Cases, Dirty};
use crate::brain::services::{hours, request};
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_shared::case::{Booked, Booking, Case, Seat};
use citybrain_shared::config::services::Service;
use citybrain_shared::view;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// An activity, as long as it is not over: moved to another time it has the same seats. One of the same
/// code that is offered once this is over is another, with seats of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Edition {
    /// When it was to begin; the newest last. Seats were given under each.
    begins: Vec<DateTime<Utc>>,
    until: DateTime<Utc>,
}

impl Cases {
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
                Some(edition) if edition.until > now || edition.begins.contains(&starts) => {
                    edition.begins.retain(|at| *at != starts);
                    edition.begins.push(starts);
                    edition.until = until;
                }
                _ => drop(self.editions.insert(service.code.clone(), Edition { begins: vec![starts], until })),
            }
        }
        self.look_at_bookings();
    }

    /// An activity may have been moved: every case of this node that is open may have to say so.
    pub(super) fn look_at_bookings(&mut self) {
        let open: Vec<String> = self.open.iter().cloned().collect();
        open.iter().for_each(|id| self.look_at_booking(id));
    }

    pub(super) fn look_at_booking(&mut self, id: &str) {
        match self.held.get(id).is_some_and(|held| self.new_time(&held.case).is_some()) {
            true => drop(self.to_reschedule.insert(id.to_owned())),
            false => drop(self.to_reschedule.remove(id)),
        }
    }

    /// When the activity is now that this case of this node has seats of, begin and end, if it was moved since.
    fn new_time(&self, case: &Case) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let booking = case.booking.as_ref().filter(|b| b.node == self.me && b.state == Booked::Booked)?;
        let edition = self.editions.get(&booking.service)?;
        let (now, at) = (*edition.begins.last()?, booking.at?);
        let is_mine = case.status.is_open() && case.owner == self.me && case.handing_to.is_none();
        (is_mine && at != now && edition.begins.contains(&at)).then_some((now, edition.until))
    }

    /// Tells a case that the activity was moved which it has seats of.
    pub(super) fn reschedule(&self, case: &Case, now: DateTime<Utc>) -> Option<Stepped> {
        let (at, until) = self.new_time(case)?;
        let before = case.booking.as_ref().and_then(|b| b.at).map(|at| self.calendar.shown(at)).unwrap_or_default();
        Some(self.book().reschedule(case, (at, until), &self.calendar.shown(at), &before, now))
    }

    /// The answer to a request for a service of this node that has none yet.
    pub(super) fn booked(&self, case: &Case, now: DateTime<Utc>) -> Option<Stepped> {
        let booking = case.booking.as_ref().filter(|b| b.node == self.me && b.state == Booked::Asked)?;
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
            let next = self.free(service, now).slots.into_iter().filter(|s| s.free > 0).take(3);
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

    /// What is free of a service of this node.
    pub fn free(&self, service: &Service, now: DateTime<Utc>) -> view::Free {
        let at = request::activity(service, &self.calendar).map(|(starts, _)| starts);
        let slot = |at| view::Slot {
            at,
            local: self.calendar.shown(at),
            free: self.left(service, Some(at), Seat::Visitor).unwrap_or(0),
        };
        let slots = match service.slot {
            Some(length) => {
                let (hours, length_s) = (request::hours_of(service), request::length_s(length, &self.calendar));
                hours::slots_ahead(&hours, length_s, now, service.ahead_days, &self.calendar)
            }
            None => Vec::new(),
        };
        view::Free {
            slots: slots.into_iter().map(slot).collect(),
            places: service.starts.as_ref().and_then(|_| self.left(service, at, Seat::Visitor)),
            volunteers: service.starts.as_ref().and_then(|_| self.left(service, at, Seat::Volunteer)),
        }
    }
}

/// How many seats there are; `None` where nothing is counted.
fn limit_of(service: &Service, seat: Seat) -> Option<u32> {
    match (service.starts.is_some(), seat) {
        (true, Seat::Visitor) => service.places,
        (true, Seat::Volunteer) => service.volunteers,
        (false, _) => service.slot.map(|_| service.capacity),
    }
}
