//! SUBSCRIBE and UNSUBSCRIBE: filters that come and go, some at a time.
//!
//! **Constraints**: a packet holds up to 87,000 filters, and nobody else may wait for all of them. So
//! [`FILTERS_AT_ONCE`] are taken in one turn, under one hold of the routes and in one note; the next
//! when that note is committed. Meanwhile nothing else of the client is read. The answer comes behind
//! the last.

use super::super::packet::answer::suback_bytes;
use super::super::packet::control::{Subscribe, Unsubscribe};
use super::super::packet::{Fault, Version, reason};
use super::super::route::{Sub, WILD_LEVELS_MAX};
use super::super::share::{self, is_shared};
use super::super::trie::{LEVELS_MAX, wild_levels};
use super::delivery::{FILTERS_AT_ONCE, RetainedScan};
use super::{After, Connection, End};
use crate::engine::Haste;
use crate::note::Note;
use crate::state::{FILTER_BYTES, filter_cost as cost};
use citybrain_shared::topic;

/// Shared subscriptions of one session: each of its turns asks all of them.
const SHARED_MAX: usize = 256;

/// Filters that are to come or to go, as far as they have.
pub(super) struct Asked {
    what: What,
    /// Of the packet.
    id: u16,
    /// Not looked at yet, with their options.
    left: std::vec::IntoIter<(String, u8)>,
    codes: Vec<u8>,
    retained: Vec<RetainedScan>,
    /// What `retained` costs, see [`cost`].
    retained_cost: usize,
    /// Codes and retained messages that were there before the last step.
    from: (usize, usize),
    /// What the filters of the last step were before it.
    before: Vec<(String, Option<Sub>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// With this identifier.
    Subscribe(Option<u32>),
    Unsubscribe,
    /// By no packet: the user has no right to them any more.
    Drop,
}

impl Asked {
    fn new(what: What, id: u16, filters: Vec<(String, u8)>) -> Box<Asked> {
        Box::new(Asked {
            what,
            id,
            codes: Vec::with_capacity(filters.len()),
            left: filters.into_iter(),
            retained: Vec::new(),
            retained_cost: 0,
            from: (0, 0),
            before: Vec::new(),
        })
    }
}

impl Connection<'_> {
    pub(super) fn subscribe(&mut self, s: Subscribe) -> Result<(), End> {
        self.check_answer(s.entries.len())?;
        self.ask(Asked::new(What::Subscribe(s.subscription_id), s.id, s.entries));
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, u: Unsubscribe) -> Result<(), End> {
        self.check_answer(u.filters.len())?;
        self.ask(Asked::new(What::Unsubscribe, u.id, u.filters.into_iter().map(|f| (f, 0)).collect()));
        Ok(())
    }

    /// Of a session that was resumed: what its user may no longer subscribe to is over.
    pub(super) fn drop_forbidden(&mut self) {
        let before = self.delivery.kept_filters().take();
        *self.delivery.kept_filters() = before.filter(|all| all.keys().all(|f| self.may_have(f)));
        let forbidden: Vec<_> =
            self.delivery.filters().filter(|f| !self.may_have(f)).map(|f| (f.to_owned(), 0)).collect();
        if forbidden.is_empty() {
            return;
        }
        tracing::info!(client = %self.client, filters = forbidden.len(), first = forbidden[0].0, "A session loses subscriptions that its user may no longer have.");
        self.door.counters.forbidden_subscriptions.add(forbidden.len() as u64);
        self.ask(Asked::new(What::Drop, 0, forbidden));
    }

    /// May a SUBACK or UNSUBACK with that many codes be sent?
    fn check_answer(&self, codes: usize) -> Result<(), Fault> {
        if self.tongue.version == Version::V5 && suback_bytes(codes) > self.delivery.packet_bytes_max() {
            return Err(Fault { reason: reason::TOO_LARGE, what: "the answer would be larger than the client takes" });
        }
        Ok(())
    }

    /// The next step.
    pub(super) fn ask(&mut self, mut asked: Box<Asked>) {
        asked.from = (asked.codes.len(), asked.retained.len());
        let some: Vec<_> = asked.left.by_ref().take(FILTERS_AT_ONCE).collect();
        self.asks_more = asked.left.len() > 0;
        let notes = match asked.what {
            What::Subscribe(id) => self.add_filters(&mut asked, some, id),
            What::Unsubscribe | What::Drop => self.drop_filters(&mut asked, some),
        };
        self.show_in_flight();
        if notes.is_empty() {
            self.was_asked(asked, true);
        } else {
            self.offer_note(notes, Haste::Now, After::Asked(asked));
        }
    }

    /// The last step is in the log, or could not be.
    pub(super) fn was_asked(&mut self, mut asked: Box<Asked>, written: bool) {
        if !written {
            self.put_back(&mut asked);
        } else if self.durable && matches!(asked.what, What::Subscribe(_)) {
            self.delivery.groups_are_durable(asked.before.iter().map(|(f, _)| f.as_str()));
        }
        // What was put back goes on, and so does what it still brings.
        if !matches!(asked.what, What::Subscribe(_)) {
            asked.before.iter().for_each(|(filter, _)| self.delivery.drop_retained(filter));
        }
        asked.before.clear();
        if asked.left.len() > 0 {
            self.asked = Some(asked);
            return;
        }
        match asked.what {
            What::Subscribe(_) => self.tongue.put_suback(0x90, asked.id, &asked.codes, &mut self.output),
            What::Unsubscribe => self.tongue.put_suback(0xb0, asked.id, &asked.codes, &mut self.output),
            What::Drop => {}
        }
        self.delivery.send_retained(asked.retained);
    }

    /// Undoes the last step.
    fn put_back(&mut self, asked: &mut Asked) {
        let (code, retained) = asked.from;
        let failed = asked.codes[code..].iter_mut().filter(|c| **c < reason::UNSPECIFIED);
        failed.for_each(|c| *c = reason::IMPLEMENTATION);
        asked.retained.truncate(retained);
        // 3.1.1 cannot be refused to unsubscribe, and nobody what he has no right to.
        let stands = match asked.what {
            What::Subscribe(_) => false,
            What::Unsubscribe => self.tongue.version == Version::V4,
            What::Drop => true,
        };
        if stands {
            return;
        }
        for (filter, before) in asked.before.drain(..).rev() {
            match before {
                Some(mut sub) => {
                    self.delivery.subscribe(self.door, &self.client, &filter, sub);
                    if !is_shared(&filter) {
                        let one = std::iter::once((filter.as_str(), &mut sub));
                        self.door.router.subscribe(self.delivery.key(), &*self.door.core, one);
                    }
                }
                None => {
                    self.delivery.unsubscribe(self.door, &self.client, &filter);
                    if !is_shared(&filter) {
                        self.door.router.unsubscribe(self.delivery.key(), std::iter::once(filter.as_str()));
                    }
                }
            }
        }
        self.show_in_flight();
    }

    fn add_filters(&mut self, asked: &mut Asked, some: Vec<(String, u8)>, id: Option<u32>) -> Vec<Note> {
        struct New {
            filter: String,
            sub: Sub,
            old: Option<Sub>,
            wants_retained: bool,
        }
        let door = self.door;
        let mut new: Vec<New> = Vec::with_capacity(some.len());
        let mut room = door.room_of_sessions();
        for (filter, options) in some {
            let options = match self.granted(&filter, options, &mut room) {
                Ok(options) => options,
                Err(refused) => {
                    if refused == reason::NOT_AUTHORIZED {
                        door.counters.forbidden_subscriptions.add(1);
                    }
                    asked.codes.push(refused);
                    continue;
                }
            };
            let retain_handling = options >> 4 & 3;
            let old = self.delivery.filter(&filter);
            let wants_retained =
                !is_shared(&filter) && (retain_handling == 0 || (retain_handling == 1 && old.is_none()));
            if wants_retained {
                // They are fetched for one filter after the other, as the client reads.
                let waiting = self.delivery.retained_cost() + asked.retained_cost + cost(&filter);
                if waiting > door.broker.client_subscriptions_max {
                    asked.codes.push(reason::QUOTA);
                    continue;
                }
                asked.retained_cost += cost(&filter);
            }
            asked.codes.push(options & 3);
            asked.before.push((filter.clone(), old));
            let sub = Sub { options, id, since: old.map_or(Sub::FROM_NOW, |o| o.since) };
            self.delivery.subscribe(door, &self.client, &filter, sub);
            new.push(New { filter, sub, old, wants_retained });
        }
        let changes = new.iter().any(|n| !is_shared(&n.filter) && n.old.is_some_and(|o| o.qos() > 0 && o != n.sub));
        let mut notes = Vec::new();
        if changes {
            self.begin(&mut notes);
            self.delivery.keep_filters(&asked.before);
        }
        let unshared = new.iter_mut().filter(|n| !is_shared(&n.filter)).map(|n| (n.filter.as_str(), &mut n.sub));
        let now = door.router.subscribe(self.delivery.key(), &*door.core, unshared);
        if changes {
            self.delivery.filters_have_changed();
        }
        for New { filter, mut sub, old, wants_retained } in new {
            if sub.since == Sub::FROM_NOW {
                sub.since = now;
            }
            self.delivery.set_sub(&filter, sub);
            if self.durable {
                if is_shared(&filter) {
                    // Also where the session has it: its group may have gone for want of a durable member.
                    notes.extend(share::open_notes(&filter));
                }
                if old != Some(sub) {
                    let (client, filter) = (self.client.to_string(), filter.clone());
                    notes.push(Note::Subscribed { client, filter, options: sub.options, id, since: sub.since });
                }
            }
            if wants_retained {
                asked.retained.push(RetainedScan::new(&filter, sub, now));
            }
        }
        notes
    }

    /// # Errors
    /// The reason code that refuses the subscription.
    fn granted(&self, filter: &str, options: u8, room: &mut usize) -> Result<u8, u8> {
        if topic::check_filter(filter).is_err() || filter.bytes().filter(|b| *b == b'/').count() >= LEVELS_MAX {
            return Err(reason::FILTER_INVALID);
        }
        let shared = share::filter_of(filter).transpose().map_err(|()| reason::FILTER_INVALID)?;
        if self.delivery.filter(filter).is_none()
            && (self.delivery.filters_cost() + cost(filter) > self.door.broker.client_subscriptions_max
                || self.delivery.wild_levels() + wild_levels(filter) > WILD_LEVELS_MAX
                || (shared.is_some() && self.delivery.groups_len() >= SHARED_MAX))
        {
            return Err(reason::QUOTA);
        }
        if !self.may_have(filter) {
            return Err(reason::NOT_AUTHORIZED);
        }
        if topic::is_link(&self.door.link.root, filter) {
            // A link's own acknowledgements are its quality of service. Its few filters always have room.
            return Ok(options & !3);
        }
        if self.delivery.filter(filter).is_none() {
            let places = if self.durable { 2 } else { 1 };
            *room = room.checked_sub(cost(filter) * FILTER_BYTES * places).ok_or(reason::QUOTA)?;
        }
        Ok(options)
    }

    /// By the user's rights as they are now.
    fn may_have(&self, filter: &str) -> bool {
        let (root, access) = (&self.door.link.root, &self.door.access);
        match share::filter_of(filter) {
            Some(Ok(of)) => !topic::is_link(root, of) && access.may_subscribe(&self.user, of),
            Some(Err(())) => false,
            None if topic::is_link(root, filter) => access.may_link(&self.user, filter, false),
            None => access.may_subscribe(&self.user, filter),
        }
    }

    fn drop_filters(&mut self, asked: &mut Asked, some: Vec<(String, u8)>) -> Vec<Note> {
        let mut notes = Vec::new();
        let changes =
            some.iter().any(|(f, _)| !is_shared(f) && self.delivery.filter(f).is_some_and(|sub| sub.qos() > 0));
        if changes {
            self.begin(&mut notes);
            // What its user may no longer have does not come again, whoever gave it.
            if asked.what != What::Drop {
                self.delivery.keep_filters(&[]);
            }
        }
        let plain = some.iter().map(|(f, _)| f.as_str()).filter(|f| !is_shared(f));
        self.door.router.unsubscribe(self.delivery.key(), plain);
        if changes {
            self.delivery.filters_have_changed();
        }
        for (filter, _) in some {
            let before = self.delivery.filter(&filter);
            self.delivery.unsubscribe(self.door, &self.client, &filter);
            asked.codes.push(if before.is_some() { reason::SUCCESS } else { reason::NO_SUBSCRIPTION_EXISTED });
            if before.is_some() {
                if self.durable {
                    notes.push(Note::Unsubscribed { client: self.client.to_string(), filter: filter.clone() });
                }
                asked.before.push((filter, before));
            }
        }
        notes
    }

    /// In the log before the filters change.
    fn begin(&mut self, notes: &mut Vec<Note>) {
        if self.durable
            && let Some(cursor) = self.delivery.begin()
        {
            notes.insert(0, cursor.note(self.client.to_string()));
        }
    }
}
