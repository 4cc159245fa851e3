//! Messages that go out: from the inbox while the session is live, from the log while it is behind.

use super::super::Door;
use super::super::core::look_ahead;
use super::super::counters::Counters;
use super::super::feed::{Feed, READ_RECORDS};
use super::super::message::{Give, Item, Message};
use super::super::packet::{kind, put_ack, reason};
use super::super::route::{Inbox, Key, Next, OwnFilters, Router, Sub};
use super::super::seats::Delivered;
use super::super::share::{Group, Joining, Noting, is_shared};
use super::super::window::{Window, packet_id};
use super::super::{now_us, route, sys};
use super::{Connection, OUTPUT_BYTES_MAX};
use crate::engine::Haste;
use crate::note::Note;
use crate::state::filter_cost as cost;
use citybrain_shared::{Pos, topic};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::task::Context;

/// Filters added to or taken from the routes under one hold of their lock.
pub const FILTERS_AT_ONCE: usize = 512;

/// Retained messages fetched, and topics looked at, under one look into the state.
const RETAINED_AT_ONCE: usize = 64;
const RETAINED_LOOKED_AT: usize = 1024;

/// Records that the client may acknowledge behind one that it does not: each is named in every note of
/// the cursor.
const BEYOND_MAX: usize = 4096;

/// With nothing to acknowledge, the cursor is noted when it has moved this far: it costs a record,
/// and saves reading this many again after a kill.
const IDLE_NOTE_RECORDS: u64 = 4096;

/// Records up to `upto` may have been given by an earlier process, and at most `left` messages of
/// them not be marked as repetitions yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    pub upto: Pos,
    pub left: usize,
}

impl Earlier {
    pub const NOTHING: Earlier = Earlier { upto: Pos::ZERO, left: 0 };

    /// Up to here some may have been given; 0: none.
    pub fn unsure(&self) -> Pos {
        if self.left > 0 { self.upto } else { Pos::ZERO }
    }
}

/// Where a session begins.
pub struct Resumed {
    /// Everything up to here is settled, and besides it `beyond`.
    pub upto: Pos,
    pub beyond: Vec<Pos>,
    /// Records up to here were given before.
    pub given_upto: Pos,
    pub earlier: Earlier,
    /// QoS 2 messages that the client has received and not completed.
    pub releasing: HashSet<(Pos, u8)>,
    /// Messages given before a filter changed, with the QoS by which they go on: the client may have
    /// received them, and would keep an id of QoS 2 for ever if they did not.
    pub begun: HashMap<(Pos, u8), u8>,
    /// Ids of QoS 2 messages of no record, which are not sent again: the client must not take another
    /// for one of them.
    pub loose: Vec<u16>,
}

impl Resumed {
    /// A new session.
    pub fn new(upto: Pos) -> Resumed {
        Resumed {
            upto,
            beyond: Vec::new(),
            given_upto: Pos::ZERO,
            earlier: Earlier::NOTHING,
            releasing: HashSet::new(),
            begun: HashMap::new(),
            loose: Vec::new(),
        }
    }
}

/// How far a session has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    upto: Pos,
    beyond: Vec<Pos>,
    releasing: Vec<(Pos, u8)>,
    begun: Vec<(Pos, u8, u8)>,
}

impl Cursor {
    pub fn note(self, client: String) -> Note {
        let Cursor { upto, beyond, releasing, begun } = self;
        Note::SessionAcked { client, upto, beyond, releasing, begun, apart: Vec::new() }
    }
}

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

/// What a PUBREL waits for: the fsync of what says that the client has the message. After PUBREL it hands
/// the message on, so that it must not come again, whatever ends the node.
enum Until {
    /// A note that is to be made.
    Note,
    /// The note that is on its way.
    Noted,
    /// The group's note.
    Group(Arc<Group>),
    Nothing,
}

/// Retained messages that a new subscription still gets.
pub struct RetainedScan {
    filter: String,
    sub: Sub,
    /// Topics up to here are done.
    after: Option<String>,
    /// What came later is delivered as it comes.
    upto: Pos,
}

impl RetainedScan {
    pub fn new(filter: &str, sub: Sub, upto: Pos) -> RetainedScan {
        RetainedScan { filter: filter.to_owned(), sub, after: None, upto }
    }
}

pub struct Delivery {
    key: Key,
    feed: Feed,
    filters: HashMap<String, Sub>,
    /// Of all filters, see [`cost`].
    filters_cost: usize,
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
    /// For messages of no record.
    next_id: u16,
    /// The cursor as last offered to the log.
    noted: Cursor,
    /// As last jotted.
    jotted: Pos,
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
    pub async fn join(
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
        let mut delivery = Delivery {
            key,
            feed: Feed::new(inbox, Window::resume(resumed.upto, std::mem::take(&mut resumed.beyond))),
            filters_cost: filters.keys().map(|f| cost(f)).sum(),
            filters,
            shares: HashMap::new(),
            own: None,
            flights: HashMap::new(),
            in_flight_max: in_flight_max.into(),
            packet_bytes_max,
            ready: VecDeque::new(),
            noted: Cursor { upto: resumed.upto, ..Cursor::default() },
            jotted: resumed.upto,
            pubrels: VecDeque::new(),
            resumed,
            orphans: Vec::new(),
            retained: VecDeque::new(),
            retained_cost: 0,
            next_id: 0,
            acked: false,
            noting: false,
            given: Pos::ZERO,
            begun_upto: Pos::ZERO,
        };
        for (filter, sub) in shared {
            delivery.join_group(door, client, &filter, sub);
        }
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
    pub fn groups_are_durable<'a>(&self, filters: impl Iterator<Item = &'a str>) {
        filters.filter_map(|f| self.shares.get(f)).for_each(|g| g.make_durable());
    }

    /// `keep`: the session goes on without its client. What is to be noted of its groups is returned.
    pub async fn leave(&mut self, door: &Door, client: &Arc<str>, keep: bool) -> Vec<(Arc<Group>, Noting)> {
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
    pub fn free_room(&mut self) {
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
        self.feed.inbox.free_room();
    }

    /// What retention took while this session was reading on: first and last position, told once.
    pub fn take_lost(&mut self) -> Option<(Pos, Pos)> {
        self.feed.lost.take()
    }

    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        let waited_for = self.pubrels.iter().filter_map(|(_, until)| match until {
            Until::Group(group) => Some(group),
            _ => None,
        });
        self.shares.values().chain(waited_for)
    }

    pub fn key(&self) -> Key {
        self.key
    }

    pub fn inbox(&self) -> Arc<Inbox> {
        self.feed.inbox.clone()
    }

    pub fn filter(&self, filter: &str) -> Option<Sub> {
        self.filters.get(filter).copied()
    }

    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.filters.keys().map(String::as_str)
    }

    pub fn filters_len(&self) -> usize {
        self.filters.len()
    }

    /// What they cost, see [`cost`].
    pub fn filters_cost(&self) -> usize {
        self.filters_cost
    }

    /// The same of those whose retained messages are still to be fetched.
    pub fn retained_cost(&self) -> usize {
        self.retained_cost
    }

    pub fn groups_len(&self) -> usize {
        self.shares.len()
    }

    /// Largest packet that the client takes, bytes.
    pub fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub fn subscribe(&mut self, door: &Door, client: &Arc<str>, filter: &str, sub: Sub) {
        if self.filters.insert(filter.to_owned(), sub).is_none() {
            self.filters_cost += cost(filter);
        }
        if is_shared(filter) {
            self.join_group(door, client, filter, sub);
            return;
        }
        if let Some(own) = &mut self.own {
            own.insert(filter, sub);
        }
    }

    /// Says of a filter that was just subscribed from where on it is.
    pub fn set_sub(&mut self, filter: &str, sub: Sub) {
        if let Some(known) = self.filters.get_mut(filter) {
            *known = sub;
        }
        if let Some(own) = self.own.as_mut().filter(|_| !is_shared(filter)) {
            own.insert(filter, sub);
        }
    }

    pub fn unsubscribe(&mut self, door: &Door, client: &Arc<str>, filter: &str) -> bool {
        if let Some(group) = self.shares.remove(filter) {
            // What is under way is still the client's to acknowledge.
            door.shares.leave(door, &group, client, true);
        }
        if let Some(own) = &mut self.own {
            own.remove(filter);
        }
        let had = self.filters.remove(filter).is_some();
        if had {
            self.filters_cost -= cost(filter);
        }
        had
    }

    pub fn send_retained(&mut self, scans: Vec<RetainedScan>) {
        self.retained_cost += scans.iter().map(|s| cost(&s.filter)).sum::<usize>();
        self.retained.extend(scans);
    }

    /// Is this what the message under `id` waits for? An id that is not under way takes anything.
    pub fn takes(&self, kind: u8, id: u16) -> bool {
        self.flights.get(&id).is_none_or(|f| match kind {
            kind::PUBACK => f.qos == 1,
            kind::PUBREC => f.qos == 2,
            _ => f.qos == 2 && f.releasing,
        })
    }

    /// The client has completed a message: PUBACK, PUBCOMP, or a PUBREC that refuses. An id that is
    /// not under way means nothing.
    pub fn complete(&mut self, id: u16, client: &str) {
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

    /// PUBREC. The reason of the PUBREL to be sent now; `None`: it comes when it may.
    pub fn release(&mut self, id: u16, client: &Arc<str>, durable: bool) -> Option<u8> {
        let Some(flight) = self.flights.get_mut(&id) else { return Some(reason::ID_NOT_FOUND) };
        let is_known = std::mem::replace(&mut flight.releasing, true);
        // Its PUBREL is on its way: a client that asks again and again adds nothing.
        if is_known && self.pubrels.iter().any(|(i, _)| *i == id) {
            return None;
        }
        let until = match &flight.share {
            _ if is_known => Until::Nothing,
            Some(group) => {
                group.release(client, (flight.pos, flight.part));
                Until::Group(group.clone())
            }
            None if !durable || flight.pos == Pos::ZERO => Until::Nothing,
            None => {
                self.acked = true;
                Until::Note
            }
        };
        if matches!(until, Until::Nothing) && self.pubrels.is_empty() {
            return Some(reason::SUCCESS);
        }
        self.pubrels.push_back((id, until));
        None
    }

    pub fn releasing(&self) -> HashSet<(Pos, u8)> {
        let of_records = self.flights.values().filter(|f| f.releasing && f.pos > Pos::ZERO && f.share.is_none());
        of_records.map(|f| (f.pos, f.part)).chain(self.resumed.releasing.iter().copied()).collect()
    }

    /// PUBRELs that may be sent now.
    fn poll_pubrels(&mut self, cx: &Context<'_>) {
        while let Some((id, until)) = self.pubrels.front() {
            let may = match (until, self.flights.get(id)) {
                (Until::Nothing, _) => true,
                (Until::Note | Until::Noted, _) => false,
                (Until::Group(group), Some(flight)) => group.poll_release((flight.pos, flight.part), cx),
                // It was completed by another way.
                (Until::Group(_), None) => true,
            };
            if !may {
                return;
            }
            self.orphans.push(*id);
            self.pubrels.pop_front();
        }
    }

    fn awaits_note(&self) -> bool {
        self.pubrels.iter().any(|(_, until)| matches!(until, Until::Note))
    }

    fn begun(&self) -> HashMap<(Pos, u8), u8> {
        let flights = self.flights.values().filter(|f| f.begun && !f.releasing).map(|f| ((f.pos, f.part), f.qos));
        flights.chain(self.resumed.begun.iter().map(|(at, qos)| (*at, *qos))).collect()
    }

    /// A filter of QoS 1 or 2 changes or goes: what was given keeps its QoS, by the next connection too.
    /// The cursor that says so; `None`: nothing is under way.
    pub fn begin(&mut self) -> Option<Cursor> {
        for f in self.flights.values_mut().filter(|f| f.pos > Pos::ZERO && f.share.is_none()) {
            f.begun = true;
        }
        let cursor = self.cursor();
        (!cursor.begun.is_empty()).then_some(cursor)
    }

    /// Filters have changed: what was found by the old ones, and not yet written, goes on as well.
    pub fn filters_have_changed(&mut self) {
        self.begun_upto = self.feed.window.seen().max(self.feed.inbox.newest());
    }

    fn cursor(&self) -> Cursor {
        let mut releasing: Vec<_> = self.releasing().into_iter().collect();
        releasing.sort_unstable();
        let mut begun: Vec<_> = self.begun().into_iter().map(|((pos, part), qos)| (pos, part, qos)).collect();
        begun.sort_unstable();
        Cursor { upto: self.feed.window.upto(), beyond: self.feed.window.beyond(), releasing, begun }
    }

    /// What the session's next connection must know. A connection may end before it has come as far
    /// as those before it.
    pub fn delivered(&self) -> Delivered {
        Delivered {
            upto: self.given.max(self.resumed.given_upto),
            earlier: self.resumed.earlier,
            releasing: self.releasing(),
            begun: self.begun(),
            loose: self.flights.iter().filter(|(_, f)| f.qos == 2 && f.pos == Pos::ZERO).map(|(id, _)| *id).collect(),
        }
    }

    /// How far the client has acknowledged, where it has come farther since this was asked last.
    pub fn take_jot(&mut self) -> Option<Pos> {
        let upto = self.feed.window.upto();
        let is_new = self.acked && upto > self.jotted;
        is_new.then(|| {
            self.jotted = upto;
            upto
        })
    }

    /// Is there something to note, and nothing on its way? `idle`: also what moved without the
    /// client's doing.
    pub fn may_note(&mut self, router: &Router, idle: bool) -> bool {
        if self.noting {
            return false;
        }
        if idle && self.ready.is_empty() {
            if let Some(upto) = router.looked_upto(&self.feed.inbox) {
                self.feed.window.see(upto);
            }
            let moved = self.feed.window.upto().0 >= self.noted.upto.0 + IDLE_NOTE_RECORDS;
            return self.acked || moved || self.awaits_note();
        }
        self.acked
    }

    /// The cursor, if it is not what was noted last.
    pub fn cursor_to_note(&mut self) -> Option<Cursor> {
        let cursor = self.cursor();
        self.acked = false;
        if cursor == self.noted && !self.awaits_note() {
            return None;
        }
        self.noting = true;
        self.change_pubrels(|until| matches!(until, Until::Note).then_some(Until::Noted));
        self.noted = cursor.clone();
        Some(cursor)
    }

    /// When the note that is on its way must be on disk.
    pub fn note_haste(&self) -> Haste {
        let waits = self.pubrels.iter().any(|(_, until)| matches!(until, Until::Noted));
        if waits { Haste::Now } else { Haste::Lazy }
    }

    /// The note is written, or could not be.
    pub fn cursor_was_noted(&mut self, written: bool) {
        self.noting = false;
        if !written {
            // The next note, whenever there is reason for one, says it again. Not at once: while the
            // disk is full that would be a busy loop.
            self.noted = Cursor::default();
        }
        let next = || if written { Until::Nothing } else { Until::Note };
        self.change_pubrels(|until| matches!(until, Until::Noted).then(next));
    }

    fn change_pubrels(&mut self, change: impl Fn(&Until) -> Option<Until>) {
        for (_, until) in &mut self.pubrels {
            if let Some(new) = change(until) {
                *until = new;
            }
        }
    }

    /// Takes the next record's messages, from wherever they are; false: none for now, and the task
    /// will be woken.
    fn find(&mut self, door: &Door, client: &Arc<str>, cx: &mut Context<'_>, looked_at: &mut usize) -> bool {
        // Behind what earlier connections were given: those messages keep their ids, and the client would
        // take a new one under one of them for a repetition.
        let earlier = self.resumed.given_upto.max(self.resumed.earlier.unsure());
        if self.feed.window.seen() >= earlier && self.next_retained(door) {
            *looked_at += RETAINED_AT_ONCE;
            return true;
        }
        for group in self.shares.values() {
            self.ready.extend(group.poll_next(door, client, cx));
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
                *looked_at += 1;
                self.read_log(door, client);
                // The connection's tick tries again.
                !std::mem::take(&mut self.feed.broken)
            }
        }
    }

    /// Looks at one record of the log, or fetches some, or goes live.
    fn read_log(&mut self, door: &Door, client: &Arc<str>) {
        let Delivery { feed, filters, shares, own, ready, resumed, orphans, .. } = self;
        let Resumed { releasing, begun, .. } = resumed;
        if filters.len() == shares.len() && releasing.is_empty() && begun.is_empty() {
            // Nothing in it is for this session.
            feed.window.see(*door.core.committed().borrow());
        }
        let live = feed.read_log(door, ready, |entry| {
            let own = own.get_or_insert_with(|| {
                OwnFilters::new(filters.iter().filter(|(f, _)| !is_shared(f)).map(|(f, s)| (f.as_str(), *s)))
            });
            own.items(&door.me, entry, client, |n| {
                let at = (entry.pos, n);
                if releasing.contains(&at) { Some(2) } else { begun.get(&at).copied() }
            })
        });
        if live {
            // Kept only while it is used: it doubles what the filters cost.
            *own = None;
            // Their records are gone; without PUBREL the client would take another message, under
            // the same id, for a repetition.
            begun.clear();
            orphans.extend(releasing.drain().map(|(pos, part)| packet_id(pos, part)));
        }
    }

    /// Fetches some retained messages; false: none are asked for.
    fn next_retained(&mut self, door: &Door) -> bool {
        let Some(scan) = self.retained.front_mut() else { return false };
        let ready = &mut self.ready;
        let done = if topic::is_link(&door.link.root, &scan.filter) {
            if let Some(payload) = door.links.retained(&scan.filter) {
                let message = route::live_message(&scan.filter, &[], payload, 0, true, now_us());
                ready.push_back(Item::retained(message, &scan.sub));
            }
            true
        } else if scan.filter.starts_with(sys::PREFIX) {
            ready.extend(door.sys.now(door, &scan.filter, &scan.sub));
            true
        } else {
            // What is being committed is newer than what this scan looks for, and comes by the log.
            look_ahead(&*door.core, |state| scan.collect(&state.retained, ready))
        };
        if done && let Some(scan) = self.retained.pop_front() {
            self.retained_cost -= cost(&scan.filter);
        }
        true
    }

    /// An id for a message of no record.
    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = if self.next_id == u16::MAX { 1 } else { self.next_id + 1 };
            if !self.flights.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }
}

impl RetainedScan {
    /// True: that was all.
    fn collect(
        &mut self,
        all: &std::collections::BTreeMap<String, crate::state::Retained>,
        ready: &mut VecDeque<Item>,
    ) -> bool {
        let mut take = |topic: &str, r: &crate::state::Retained| {
            if r.pos <= self.upto {
                ready.push_back(Item::retained(Message::retained(topic, r), &self.sub));
            }
        };
        let Some(wild) = self.filter.find(['+', '#']) else {
            if let Some(r) = all.get(&self.filter) {
                take(&self.filter, r);
            }
            return true;
        };
        // `a/#` matches `a` too.
        let prefix = self.filter[..wild].trim_end_matches('/');
        let from = match &self.after {
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(prefix),
        };
        let (mut taken, mut last) = (0, None);
        let range = all.range::<str, _>((from, Bound::Unbounded));
        for (n, (topic, r)) in range.take_while(|(t, _)| t.starts_with(prefix)).enumerate() {
            if n == RETAINED_LOOKED_AT || taken == RETAINED_AT_ONCE {
                self.after = last;
                return false;
            }
            if topic::matches(&self.filter, topic) {
                taken += 1;
                take(topic, r);
            }
            last = Some(topic.clone());
        }
        true
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
                    return true;
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
        moved
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
        if qos > 0 && d.flights.len() >= d.in_flight_max {
            return false;
        }
        let id = match (qos, pos) {
            (0, _) => 0,
            (_, Pos::ZERO) => d.free_id(),
            _ => packet_id(pos, part),
        };
        if qos > 0 && d.flights.contains_key(&id) {
            return false;
        }
        let Some(item) = d.ready.pop_front() else { return false };
        let shared = item.share.is_some();
        let r = &mut d.resumed;
        let of_earlier = pos <= r.earlier.upto && r.earlier.left > 0;
        let again = item.again || (!shared && pos > Pos::ZERO && (pos <= r.given_upto || of_earlier));
        if of_earlier && again && qos > 0 && !shared {
            r.earlier.left -= 1;
        }
        if qos == 2 && !shared && d.resumed.releasing.remove(&(pos, part)) {
            d.flights.insert(id, Flight { pos, part, qos, releasing: true, begun: false, share: None });
            put_ack(self.tongue.version, kind::PUBREL, id, 0, &mut self.output);
            return true;
        }
        // What was found by the old filters is completed by the next connection too.
        let mut begun = qos > 0 && !shared && pos > Pos::ZERO && pos <= d.begun_upto;
        d.acked |= begun;
        begun |= qos > 0 && !shared && d.resumed.begun.remove(&(pos, part)).is_some();
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
            let alias = self.aliases_out.of(item.message.topic_bytes());
            put(alias)
                || (alias.is_some_and(|a| !a.known) && {
                    // Without what makes the alias known it may fit.
                    self.aliases_out.forget(item.message.topic_bytes());
                    put(None)
                })
        };
        if !was_put {
            if expired { &counters.expired } else { &counters.too_large_for_client }.add(1);
            if let Some(group) = &item.share {
                group.settle(&self.client, (pos, part));
            } else if qos > 0 && pos > Pos::ZERO {
                d.feed.window.settle(pos);
                d.acked = true;
            }
            return true;
        }
        counters.delivered.add(1);
        if !shared {
            d.given = d.given.max(pos);
        }
        if again {
            counters.redelivered.add(1);
        }
        if qos > 0 {
            d.flights.insert(id, Flight { pos, part, qos, releasing: false, begun, share: item.share });
        }
        true
    }
}
