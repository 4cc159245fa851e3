//! Appointments and seats of this node's services: what is left, and the answer to a request.

use super::Cases;
use super::machine::Stepped;
use crate::brain::services::{hours, request};
use chrono::{DateTime, Utc};
use citybrain_shared::case::{Booked, Booking, Case, Seat};
use citybrain_shared::config::services::Service;
use citybrain_shared::view;

impl Cases {
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

    /// Seats that are left; `None` where nothing is counted.
    pub(super) fn left(&self, service: &Service, at: Option<DateTime<Utc>>, seat: Seat) -> Option<u32> {
        let given = self.given.get(&(service.code.clone(), at, seat)).copied().unwrap_or(0);
        Some(limit_of(service, seat)?.saturating_sub(given))
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
