//! A request for a service, checked against what is offered, as a case that opens.

use super::hours::{self, Hours};
use crate::brain::cases::calendar::Calendar;
use crate::brain::cases::{Held, Opening, Refusal};
use crate::brain::form;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{Booked, Booking, Contact, Kind, Seat, step};
use citybrain_shared::config::services::Service;
use citybrain_shared::view;
use citybrain_shared::words::counted;
use std::collections::BTreeMap;

/// Seats that one request may take.
const SEATS_MAX: u32 = 20;

/// Clocks of two nodes that are right differ by less, also where one has a wrong summer time.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::hours(1);

/// A service as a node knows it that may not be the one which offers it.
pub struct Offered<'a> {
    pub node: &'a Address,
    pub service: &'a Service,
    /// Of the node that offers it: its times are its own, wherever they are asked for.
    pub calendar: Calendar,
    /// Of the node that is asked: it alone says what is just over, as clocks may differ.
    pub is_own: bool,
}

/// What a request asks for, as an opening of a case of the node that offers it. `free`: is an appointment
/// still to be had, as far as is known?
///
/// # Errors
/// [`Refusal`]: which answer is missing or wrong, and what would do.
pub fn opening(
    offered: &Offered<'_>,
    wanted: &view::ServiceRequest,
    id: String,
    free: impl Fn(DateTime<Utc>) -> bool,
    now: DateTime<Utc>,
) -> Result<(Opening, Contact), Refusal> {
    let Offered { node, service, .. } = *offered;
    if wanted.by.trim().is_empty() {
        return Err(Refusal::new("missing", "`by` is missing: who asks for it", r#"`"by":"NAME"`"#));
    }
    let mut contact = wanted.contact.clone();
    let form = form(service, wanted, &mut contact)?;
    let seat = if wanted.volunteer { Seat::Volunteer } else { Seat::Visitor };
    if seat == Seat::Volunteer && service.volunteers.is_none() {
        return Err(Refusal::new("bad-request", format!("{} asks for no volunteers", service.name), "leave it out"));
    }
    if seat == Seat::Visitor && service.places == Some(0) && service.volunteers.is_some() {
        let detail = format!("{} is for volunteers only", service.name);
        return Err(Refusal::new("bad-request", detail, r#"`"volunteer":true`"#));
    }
    let seats = wanted.seats.unwrap_or(1);
    if !(1..=SEATS_MAX).contains(&seats) || (seats > 1 && service.starts.is_none()) {
        let detail = format!("{seats} seats of {} cannot be requested", service.name);
        return Err(Refusal::new("bad-request", detail, format!("1 to {SEATS_MAX} of an activity, 1 of a service")));
    }
    let (at, until) = times(offered, wanted.slot.as_deref(), free, now)?;
    let booking = Booking {
        node: node.clone(),
        service: service.code.clone(),
        name: service.name.clone(),
        at,
        until,
        seat,
        seats,
        form,
        place: service.place.clone(),
        state: Booked::Asked,
    };
    let opening = Opening {
        id,
        event: None,
        alarm: None,
        button: None,
        by: wanted.by.clone(),
        sos: false,
        kind: Some(Kind::Service),
        category: service.category.clone().unwrap_or_default(),
        title: service.name.clone(),
        description: wanted.text.clone(),
        place: wanted.place.clone().or_else(|| service.place.clone()),
        form: BTreeMap::new(),
        media: Vec::new(),
        channel: if wanted.channel.is_empty() { "service".into() } else { wanted.channel.clone() },
        governance: service.governance.clone(),
        has_contact: !contact.is_empty(),
        booking: Some(booking),
        bound_for: None,
        note: String::new(),
    };
    Ok((opening, contact))
}

/// Is this what that request has booked, if it is one that is repeated?
pub fn has_asked_for(wanted: &view::ServiceRequest, service: &str, held: &Held, calendar: &Calendar) -> bool {
    let Some(booked) = &held.case.booking else { return false };
    let at = wanted.slot.as_deref().map(|slot| hours::moment(slot, calendar));
    // It may be at another time by now; what it is called is kept as it was when it was asked for.
    let was_moved = held.history.iter().any(|e| e.step == step::RESCHEDULED);
    [&booked.service, &booked.name].into_iter().any(|name| name == service)
        && wanted.of.as_ref().is_none_or(|of| *of == booked.node)
        && wanted.volunteer == (booked.seat == Seat::Volunteer)
        && wanted.seats.unwrap_or(1) == booked.seats
        && (was_moved || at.is_none_or(|at| at == booked.at))
}

/// The answers that are nobody's secret; the others go to the contact data.
fn form(
    service: &Service,
    wanted: &view::ServiceRequest,
    contact: &mut Contact,
) -> Result<BTreeMap<String, String>, Refusal> {
    let answers = form::answers(&service.name, &service.form, &wanted.form).map_err(Refusal::of_form)?;
    contact.more.extend(answers.personal);
    Ok(answers.open)
}

type Span = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

fn times(
    offered: &Offered<'_>,
    slot: Option<&str>,
    free: impl Fn(DateTime<Utc>) -> bool,
    now: DateTime<Utc>,
) -> Result<Span, Refusal> {
    let Offered { node, service, ref calendar, is_own } = *offered;
    // What was before that is over by the clock of whoever offers it, too, if the one here is right.
    let surely_past = if is_own { now } else { now.checked_sub_signed(CLOCKS_DIFFER).unwrap_or(now) };
    if let Some((starts, ends)) = activity(service, calendar) {
        if is_over(service, calendar, surely_past) {
            return Err(Refusal::new(
                "too-late",
                format!("{} was on {}", service.name, calendar.shown(starts)),
                "see what else is offered",
            ));
        }
        // Whoever names another time does not mean this.
        if let Some(text) = slot.filter(|text| hours::moment(text, calendar) != Some(starts)) {
            let detail = format!("{} is on {}, not at {text}", service.name, calendar.shown(starts));
            return Err(Refusal::new("no-slot", detail, "leave `slot` out: it has one time"));
        }
        return Ok((Some(starts), ends));
    }
    let Some(length_s) = service.slot.map(|l| length_s(l, calendar)) else {
        return match slot {
            None => Ok((None, None)),
            Some(_) => {
                Err(Refusal::new("bad-request", format!("{} has no appointments", service.name), "leave `slot` out"))
            }
        };
    };
    let next = || {
        let ahead = slots_ahead(service, now, calendar);
        let shown: Vec<String> = ahead.filter(|at| free(*at)).take(3).map(|at| calendar.shown(at)).collect();
        match shown.as_slice() {
            [] => "none is free".to_owned(),
            [one] => format!("`\"slot\":\"{one}\"`"),
            [one, others @ ..] => format!("such as `\"slot\":\"{one}\"`; also {}", others.join(", ")),
        }
    };
    let Some(text) = slot else {
        return Err(Refusal::new(
            "missing",
            format!("{} is given by appointment: `slot` is missing", service.name),
            next(),
        ));
    };
    let Some(at) = hours::moment(text, calendar) else {
        return Err(Refusal::new("bad-request", format!("`{text}` is no moment"), next()));
    };
    let lies_near = (at - now).abs() <= TimeDelta::days(service.ahead_days.into());
    let other = || if is_own || lies_near { next() } else { format!("{node} says what is free: ask there") };
    if at <= surely_past {
        let detail = format!("{} is past: by the clock of this node it is {}", calendar.shown(at), calendar.shown(now));
        return Err(Refusal::new("too-late", detail, other()));
    }
    // Of what another node offers, that node's clock says how far ahead it gives.
    if is_own && calendar.day(at) > last_day(service, now, calendar) {
        let days = counted(service.ahead_days.into(), "day");
        let detail = format!("{} is beyond the {days} ahead for which {} is given", calendar.shown(at), service.name);
        return Err(Refusal::new("no-slot", detail, next()));
    }
    if !is_begin(service, at, calendar) {
        return Err(Refusal::new("no-slot", format!("{} has no appointment at {text}", service.name), other()));
    }
    Ok((Some(at), Some(at + TimeDelta::seconds(length_s.into()))))
}

/// Begin and end of an activity.
pub fn activity(service: &Service, calendar: &Calendar) -> Option<Span2> {
    let starts = hours::moment(service.starts.as_deref()?, calendar)?;
    Some((starts, service.ends.as_deref().and_then(|t| hours::moment(t, calendar))))
}

/// Is it an activity that has been?
pub fn is_over(service: &Service, calendar: &Calendar, now: DateTime<Utc>) -> bool {
    activity(service, calendar).is_some_and(|(starts, ends)| ends.unwrap_or(starts) <= now)
}

/// Of one that has been, and hardly is meant to have.
pub fn past_in_words(service: &Service) -> String {
    let time = service.ends.as_ref().or(service.starts.as_ref()).map_or("", String::as_str);
    format!("service {}: its time is past, {time}: who has booked it is told nothing", service.code)
}

type Span2 = (DateTime<Utc>, Option<DateTime<Utc>>);

/// Is that the begin of an appointment that is given, and not over?
pub fn is_slot(service: &Service, at: DateTime<Utc>, now: DateTime<Utc>, calendar: &Calendar) -> bool {
    at > now && calendar.day(at) <= last_day(service, now, calendar) && is_begin(service, at, calendar)
}

/// For which appointments are given.
fn last_day(service: &Service, now: DateTime<Utc>, calendar: &Calendar) -> NaiveDate {
    calendar.day(now) + chrono::Days::new(service.ahead_days.into())
}

/// Does an appointment begin then, whenever that is?
fn is_begin(service: &Service, at: DateTime<Utc>, calendar: &Calendar) -> bool {
    let Some(length_s) = service.slot.map(|l| length_s(l, calendar)) else { return false };
    hours::slots_of(&hours_of(service), length_s, calendar.day(at), calendar).contains(&at)
}

/// Begins of the appointments that lie ahead, in order; none where there are no appointments.
pub fn slots_ahead(service: &Service, now: DateTime<Utc>, calendar: &Calendar) -> impl Iterator<Item = DateTime<Utc>> {
    let (hours, length_s) = service.slot.map_or((Vec::new(), 1), |l| (hours_of(service), length_s(l, calendar)));
    hours::slots_ahead(hours, length_s, now, service.ahead_days, calendar)
}

pub fn length_s(limit: citybrain_shared::config::cases::Limit, calendar: &Calendar) -> u32 {
    u32::try_from(calendar.length_us(limit) / 1_000_000).unwrap_or(u32::MAX).max(1)
}

/// Config is checked before a start; what does not read opens nothing.
pub fn hours_of(service: &Service) -> Vec<Hours> {
    service.hours.iter().filter_map(|text| Hours::parse(text).ok()).collect()
}
