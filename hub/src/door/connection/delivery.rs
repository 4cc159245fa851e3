//! Messages that go out: from the inbox while the session is live, from the log while it is behind.
//!
//! | module | what it owns |
//! |---|---|
//! | here | finding messages, giving them, and which are under way |
//! | `cursor` | how far the session has come, what is noted of that, and the PUBRELs that wait for it |
//! | `loose` | packet ids of QoS 2 messages of no record |
//! | `retained` | retained messages that a new subscription brings |

mod cursor;
mod loose;
mod retained;

pub(crate) use cursor::{Before, Earlier};
pub(super) use cursor::{Cursor, Resumed};
pub(super) use retained::RetainedScan;

use super::super::counters::Counters;
use super::super::feed::{Feed, READ_RECORDS};
use super::super::message::{Give, Item};
use super::super::packet::{kind, put_ack, reason};
use super::super::route::{Inbox, Key, Next, OwnFilters, Sub};
use super::super::share::{Group, Joining, Noting, is_shared};
use super::super::trie::wild_levels;
use super::super::window::{RECORD_IDS, Window, packet_id};
use super::super::{Door, now_us};
use super::{Connection, OUTPUT_BYTES_MAX};
use crate::state::filter_cost as cost;
use citybrain_shared::Pos;
use cursor::Until;
use loose::Loose;
use retained::RETAINED_AT_ONCE;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Context;

/// Filters added to or taken from the routes under one hold of their lock.
pub(super) const FILTERS_AT_ONCE: usize = 512;
/// Records that the client may acknowledge behind one that it does not: each is named in every note of
/// the cursor.
const BEYOND_MAX: usize = 4096;

/// A message that the client has not completed.
#[derive(Clone, Debug)]
struct Flight {
    /// [`Pos::ZERO`]: of no record.
    pos: Pos,
    part: u8,
    qos: u8,
    /// QoS 2, and the client has received it.
    releasing: bool,
    /// It goes on with its QoS, whatever the filters are now.
    begun: bool,
    share: Option<Arc<Group>>,
}

pub(super) struct Delivery {
    key: Key,
    feed: Feed,
    filters: HashMap<String, Sub>,
    /// Of all filters, see [`cost`].
    filters_cost: usize,
    /// Of all filters, see [`wild_levels`].
    wild_levels: usize,
    /// The groups of the shared ones among them.
    shares: HashMap<String, Arc<Group>>,
    /// The unshared ones, for reading the log; built when that is first needed.
    own: Option<OwnFilters>,
    flights: HashMap<u16, Flight>,
    in_flight_max: usize,
    packet_bytes_max: usize,
    /// Found for the client, and not yet written.
    ready: VecDeque<Item>,
    resumed: Resumed,
    /// QoS 2 messages to be released without more ado.
    orphans: Vec<u16>,
    retained: VecDeque<RetainedScan>,
    retained_cost: usize,
    /// For messages of no record and QoS 1.
    next_id: u16,
    loose: Loose,
    /// The cursor as last offered to the log.
    noted: Cursor,
    /// As last jotted.
    jotted: Pos,
    /// Something of a record was written with QoS 0 since it was jotted.
    given_lightly: bool,
    /// PUBRELs to be sent, in the order of their PUBRECs: one that waits holds up those behind it.
    pubrels: VecDeque<(u16, Until)>,
    /// The client has acknowledged something since.
    acked: bool,
    /// A note is on its way.
    noting: bool,
    /// Something of this record, and nothing of later ones, was written to the client.
    given: Pos,
    /// Records up to here may have been found by filters that have changed since.
    begun_upto: Pos,
}

impl Delivery {
    pub(super) async fn join(
        door: &Door,
        client: &Arc<str>,
        filters: HashMap<String, Sub>,
        mut resumed: Resumed,
        in_flight_max: u16,
        packet_bytes_max: usize,
    ) -> Delivery {
        let (key, inbox) = door.router.join(client);
        let mut all: Vec<(&str, Sub)> =
            filters.iter().filter(|(f, _)| !is_shared(f)).map(|(f, s)| (f.as_str(), *s)).collect();
        for some in all.chunks_mut(FILTERS_AT_ONCE) {
            door.router.subscribe(key, &*door.core, some.iter_mut().map(|(f, s)| (*f, s)));
            tokio::task::yield_now().await;
        }
        let shared: Vec<(String, Sub)> =
            filters.iter().filter(|(f, _)| is_shared(f)).map(|(f, s)| (f.clone(), *s)).collect();
        // What is read by the filters of before goes on as it began.
        let begun_upto = if resumed.before.is_some() { resumed.upto_given() } else { Pos::ZERO };
        let mut delivery = Delivery {
            key,
            feed: Feed::new(inbox, Window::resume(resumed.upto, std::mem::take(&mut resumed.beyond))),
            filters_cost: filters.keys().map(|f| cost(f)).sum(),
            wild_levels: filters.keys().map(|f| wild_levels(f)).sum(),
            filters,
            shares: HashMap::new(),
            own: None,
            flights: HashMap::new(),
            in_flight_max: in_flight_max.into(),
            packet_bytes_max,
            ready: VecDeque::new(),
            noted: Cursor { upto: resumed.upto, ..Cursor::default() },
            jotted: resumed.upto,
            given_lightly: false,
            pubrels: VecDeque::new(),
            resumed,
            orphans: Vec::new(),
            retained: VecDeque::new(),
            retained_cost: 0,
            next_id: 0,
            loose: Loose::default(),
            acked: false,
            noting: false,
            given: Pos::ZERO,
            begun_upto,
        };
        for (filter, sub) in shared {
            delivery.join_group(door, client, &filter, sub);
        }
        delivery.loose = Loose::new(std::mem::take(&mut delivery.resumed.loose_noted));
        for id in std::mem::take(&mut delivery.resumed.loose) {
            let flight = Flight { pos: Pos::ZERO, part: 0, qos: 2, releasing: true, begun: false, share: None };
            delivery.flights.insert(id, flight);
            delivery.orphans.push(id);
        }
        delivery
    }

    fn join_group(&mut self, door: &Door, client: &Arc<str>, filter: &str, sub: Sub) {
        let who = Joining { client, sub, in_flight_max: self.in_flight_max };
        let flights = &mut self.flights;
        let (group, releasing) = door.shares.join(door, filter, &who, |group, at| {
            flights.values().any(|f| (f.pos, f.part) == at && f.share.as_ref().is_some_and(|g| Arc::ptr_eq(g, group)))
        });
        for (pos, part) in releasing {
            let id = packet_id(pos, part);
            flights.entry(id).or_insert_with(|| {
                self.pubrels.push_back((id, Until::Group(group.clone())));
                Flight { pos, part, qos: 2, releasing: true, begun: false, share: Some(group.clone()) }
            });
        }
        self.shares.insert(filter.to_owned(), group);
    }

    /// The log knows the groups among these filters, and that this session, which lasts, is of them.
    pub(super) fn groups_are_durable<'a>(&self, filters: impl Iterator<Item = &'a str>) {
        filters.filter_map(|f| self.shares.get(f)).for_each(|g| g.make_durable());
    }

    /// `keep`: the session goes on without its client. What is to be noted of its groups is returned.
    pub(super) async fn leave(&mut self, door: &Door, client: &Arc<str>, keep: bool) -> Vec<(Arc<Group>, Noting)> {
        let mut notes = Vec::new();
        let router = &door.router;
        for item in self.ready.iter().filter(|i| !i.again) {
            if let Some(group) = &item.share {
                group.take_back(client, (item.message.pos, item.message.part));
            }
        }
        let has_left = |group: &&Arc<Group>| !self.shares.values().any(|s| Arc::ptr_eq(s, group));
        for group in self.ready.iter().filter_map(|i| i.share.as_ref()).filter(has_left) {
            group.forget(door, client);
        }
        for flight in self.flights.values() {
            let Some(group) = flight.share.as_ref().filter(has_left) else { continue };
            group.forget(door, client);
            // It comes no more, and the client must not wait for it under its id.
            if flight.qos == 2 {
                self.resumed.releasing.insert((flight.pos, flight.part));
            }
        }
        for (_, group) in self.shares.drain() {
            door.shares.leave(door, &group, client, keep);
            if let Some(noting) = group.to_note(client, false) {
                notes.push((group, noting));
            }
        }
        let all: Vec<&str> = self.filters.keys().map(String::as_str).filter(|f| !is_shared(f)).collect();
        for some in all.chunks(FILTERS_AT_ONCE) {
            router.unsubscribe(self.key, some.iter().copied());
            tokio::task::yield_now().await;
        }
        router.leave(self.key);
        notes
    }

    /// Gives memory back that a burst has taken.
    pub(super) fn free_room(&mut self) {
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
        self.feed.inbox.free_room();
    }

    /// What retention took while this session was reading on: first and last position, told once.
    pub(super) fn take_lost(&mut self) -> Option<(Pos, Pos)> {
        self.feed.lost.take()
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        let waited_for = self.pubrels.iter().filter_map(|(_, until)| match until {
            Until::Group(group) => Some(group),
            _ => None,
        });
        self.shares.values().chain(waited_for)
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    pub(super) fn inbox(&self) -> Arc<Inbox> {
        self.feed.inbox.clone()
    }

    pub(super) fn filter(&self, filter: &str) -> Option<Sub> {
        self.filters.get(filter).copied()
    }

    pub(super) fn filters(&self) -> impl Iterator<Item = &str> {
        self.filters.keys().map(String::as_str)
    }

    pub(super) fn filters_len(&self) -> usize {
        self.filters.len()
    }

    /// What they cost, see [`cost`].
    pub(super) fn filters_cost(&self) -> usize {
        self.filters_cost
    }

    pub(super) fn wild_levels(&self) -> usize {
        self.wild_levels
    }

    pub(super) fn groups_len(&self) -> usize {
        self.shares.len()
    }

    /// Largest packet that the client takes, bytes.
    pub(super) fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// In memory for the client, and not written yet, beside what its inbox holds.
    pub(super) fn fetched(&self) -> usize {
        self.ready.len() + self.feed.fetched()
    }

    pub(super) fn subscribe(&mut self, door: &Door, client: &Arc<str>, filter: &str, sub: Sub) {
        if self.filters.insert(filter.to_owned(), sub).is_none() {
            self.filters_cost += cost(filter);
            self.wild_levels += wild_levels(filter);
        } else {
            self.change_retained(filter, sub);
        }
        if is_shared(filter) {
            self.join_group(door, client, filter, sub);
            return;
        }
        if let Some(own) = self.own_now() {
            own.insert(filter, sub);
        }
    }

    /// Built already, and by the filters as they are now.
    fn own_now(&mut self) -> Option<&mut OwnFilters> {
        self.own.as_mut().filter(|_| self.resumed.before.is_none())
    }

    /// Says of a filter that was just subscribed from where on it is.
    pub(super) fn set_sub(&mut self, filter: &str, sub: Sub) {
        if let Some(known) = self.filters.get_mut(filter) {
            *known = sub;
        }
        if let Some(own) = self.own_now().filter(|_| !is_shared(filter)) {
            own.insert(filter, sub);
        }
    }

    pub(super) fn unsubscribe(&mut self, door: &Door, client: &Arc<str>, filter: &str) -> bool {
        if let Some(group) = self.shares.remove(filter) {
            // What is under way is still the client's to acknowledge.
            door.shares.leave(door, &group, client, true);
        }
        if let Some(own) = self.own_now() {
            own.remove(filter);
        }
        let had = self.filters.remove(filter).is_some();
        if had {
            self.filters_cost -= cost(filter);
            self.wild_levels -= wild_levels(filter);
        }
        had
    }

    /// Is this what the message under `id` waits for? An id that is not under way takes anything.
    pub(super) fn takes(&self, kind: u8, id: u16) -> bool {
        self.flights.get(&id).is_none_or(|f| match kind {
            kind::PUBACK => f.qos == 1,
            kind::PUBREC => f.qos == 2,
            _ => f.qos == 2 && f.releasing,
        })
    }

    /// The client has completed a message: PUBACK, PUBCOMP, or a PUBREC that refuses. An id that is
    /// not under way means nothing.
    pub(super) fn complete(&mut self, id: u16, client: &str) {
        let Some(flight) = self.flights.remove(&id) else { return };
        // A client that does not wait for its PUBREL needs none.
        if flight.releasing {
            self.pubrels.retain(|(i, _)| *i != id);
        }
        if let Some(group) = flight.share {
            group.settle(client, (flight.pos, flight.part));
        } else if flight.pos > Pos::ZERO {
            self.feed.window.settle(flight.pos);
            self.acked = true;
        }
    }

    /// Takes the next record's messages, from wherever they are; false: none for now, and the task
    /// will be woken.
    fn find(&mut self, door: &Door, client: &Arc<str>, cx: &mut Context<'_>, looked_at: &mut usize) -> bool {
        // Behind what earlier connections were given: those messages keep their ids, and the client would
        // take a new one under one of them for a repetition.
        if self.feed.window.seen() >= self.resumed.upto_given() {
            if self.next_retained(door) {
                *looked_at += RETAINED_AT_ONCE;
                return true;
            }
            for group in self.shares.values() {
                self.ready.extend(group.poll_next(door, client, cx));
            }
        }
        let before = self.ready.len();
        if self.feed.window.under_way() > self.flights.len() + before + BEYOND_MAX {
            // The acknowledgement that it waits for wakes the task.
            return before > 0;
        }
        match self.feed.poll(cx, &mut self.ready) {
            Next::Pending => before > 0,
            Next::Item => true,
            Next::Behind => {
                *looked_at += 1 + self.read_log(door, client);
                // The connection's tick tries again.
                !std::mem::take(&mut self.feed.broken)
            }
        }
    }

    /// Looks at one record of the log, or fetches some, or goes live. What it cost in records, beside itself.
    fn read_log(&mut self, door: &Door, client: &Arc<str>) -> usize {
        let Delivery { feed, filters, shares, own, ready, resumed, orphans, .. } = self;
        let upto_given = resumed.upto_given();
        let Resumed { releasing, begun, before, .. } = resumed;
        if filters.len() == shares.len() && releasing.is_empty() && begun.is_empty() && before.is_none() {
            // Nothing in it is for this session.
            feed.window.see(*door.core.committed().borrow());
        }
        let mut cost = 0;
        let live = feed.read_log(door, ready, |entry| {
            if entry.pos > upto_given && before.take().is_some() {
                *own = None;
            }
            let own = own.get_or_insert_with(|| {
                let all = before.as_deref().unwrap_or(filters).iter();
                OwnFilters::new(all.filter(|(f, _)| !is_shared(f)).map(|(f, s)| (f.as_str(), *s)))
            });
            let items = own.items(&door.me, entry, client, |n| {
                let at = (entry.pos, n);
                if releasing.contains(&at) { Some(2) } else { begun.get(&at).copied() }
            });
            cost = own.cost_of(READ_RECORDS);
            items
        });
        if live {
            // Kept only while it is used: it doubles what the filters cost.
            (*own, *before) = (None, None);
            // Their records are gone; without PUBREL the client would take another message, under
            // the same id, for a repetition.
            begun.clear();
            orphans.extend(releasing.drain().map(|(pos, part)| packet_id(pos, part)));
        }
        cost
    }

    /// The packet id of a message; `None`: there is none now, or what has it is still under way.
    fn id_for(&mut self, pos: Pos, part: u8, qos: u8, durable: bool) -> Option<u16> {
        let id = match (qos, pos) {
            (0, _) => return Some(0),
            (2, Pos::ZERO) => self.take_loose_id(durable)?,
            (_, Pos::ZERO) => self.free_id(),
            _ => packet_id(pos, part),
        };
        (!self.flights.contains_key(&id)).then_some(id)
    }

    /// An id for a message of no record and QoS 1.
    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = if self.next_id == RECORD_IDS { 1 } else { self.next_id + 1 };
            if !self.flights.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }
}

impl Connection<'_> {
    /// Writes messages into the output while there is room. True if there was any.
    pub(super) fn deliver(&mut self, cx: &mut Context<'_>) -> bool {
        let door = self.door;
        let (mut moved, mut looked_at, mut now) = (false, 0, None);
        self.put_pubrels(cx);
        while self.output.len() - self.written < OUTPUT_BYTES_MAX {
            if self.delivery.ready.is_empty() {
                if looked_at > READ_RECORDS {
                    break;
                }
                if !self.delivery.find(door, &self.client, cx, &mut looked_at) {
                    break;
                }
                moved = true;
                continue;
            }
            if !self.give(&door.counters, *now.get_or_insert_with(now_us)) {
                break;
            }
            moved = true;
        }
        self.put_pubrels(cx);
        if moved {
            self.show_in_flight();
        }
        moved | (self.delivery.waits_for_id() && self.note_cursor(false))
    }

    /// Writes PUBRELs that wait for nothing any more.
    pub(super) fn put_pubrels(&mut self, cx: &Context<'_>) {
        self.delivery.poll_pubrels(cx);
        for id in std::mem::take(&mut self.delivery.orphans) {
            put_ack(self.tongue.version, kind::PUBREL, id, reason::SUCCESS, &mut self.output);
        }
    }

    /// Writes the first message that is ready; false: it must wait for an acknowledgement.
    fn give(&mut self, counters: &Counters, now_us: i64) -> bool {
        let d = &mut self.delivery;
        let Some(item) = d.ready.front() else { return false };
        let (pos, part, qos) = (item.message.pos, item.message.part, item.qos);
        let shared = item.share.is_some();
        // The client has it and waits for its PUBREL, which takes no room. [MQTT-3.3.4-10]
        let is_received = qos == 2 && !shared && d.resumed.releasing.contains(&(pos, part));
        if qos > 0 && !is_received && d.flights.len() >= d.in_flight_max {
            return false;
        }
        let Some(id) = d.id_for(pos, part, qos, self.durable) else { return false };
        let Some(item) = d.ready.pop_front() else { return false };
        let r = &mut d.resumed;
        let of_earlier = pos <= r.earlier.upto && r.earlier.left > 0;
        let again = item.again || (!shared && pos > Pos::ZERO && (pos <= r.given_upto || of_earlier));
        if of_earlier && again && qos > 0 && !shared {
            r.earlier.left -= 1;
        }
        let mut flight = Flight { pos, part, qos, releasing: is_received, begun: false, share: item.share };
        if is_received {
            d.resumed.releasing.remove(&(pos, part));
            d.flights.insert(id, flight);
            put_ack(self.tongue.version, kind::PUBREL, id, 0, &mut self.output);
            return true;
        }
        // What was found by the old filters is completed by the next connection too.
        flight.begun = qos > 0 && !shared && pos > Pos::ZERO && pos <= d.begun_upto;
        d.acked |= flight.begun;
        flight.begun |= qos > 0 && !shared && d.resumed.begun.remove(&(pos, part)).is_some();
        // What was begun is completed: the client may wait for it, by its id.
        let expired = !(again && qos > 0) && item.message.has_expired(now_us);
        let mut put = |alias| {
            let give = Give {
                dup: again && qos > 0,
                qos,
                retain: item.retain,
                id,
                alias,
                subscription_ids: &item.subscription_ids,
            };
            item.message.put(self.tongue.version, &give, now_us, d.packet_bytes_max, &mut self.output)
        };
        let was_put = !expired && {
            // A widely used client hands QoS 2 on at PUBREL, with the topic as it was on the wire: none.
            let alias = (qos < 2).then(|| self.aliases_out.of(item.message.topic_bytes())).flatten();
            put(alias)
                || (alias.is_some_and(|a| !a.known) && {
                    // Without what makes the alias known it may fit.
                    self.aliases_out.forget(item.message.topic_bytes());
                    put(None)
                })
        };
        if !was_put {
            if expired { &counters.expired } else { &counters.too_large_for_client }.add(1);
            self.give_up(id, flight, again);
            return true;
        }
        counters.delivered.add(1);
        d.given_lightly |= qos == 0 && pos > Pos::ZERO && !shared;
        if !shared {
            d.given = d.given.max(pos);
        }
        if again {
            counters.redelivered.add(1);
        }
        if qos > 0 {
            d.flights.insert(id, flight);
        }
        true
    }

    /// Settles a message that the client does not get: it is too large for it, or its time is over.
    fn give_up(&mut self, id: u16, flight: Flight, again: bool) {
        let d = &mut self.delivery;
        if again && flight.qos == 2 {
            // An earlier connection, which took more, may have brought it: then the client waits for its end, and
            // would take another message under the same id for a repetition.
            d.flights.insert(id, flight);
            if let Some(reason) = d.release(id, &self.client, self.durable) {
                put_ack(self.tongue.version, kind::PUBREL, id, reason, &mut self.output);
            }
        } else if let Some(group) = &flight.share {
            group.settle(&self.client, (flight.pos, flight.part));
        } else if flight.qos > 0 && flight.pos > Pos::ZERO {
            d.feed.window.settle(flight.pos);
            d.acked = true;
        }
    }
}
