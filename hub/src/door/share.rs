//! Shared subscriptions, `$share/GROUP/FILTER`: each message goes to one member of the group.
//!
//! **Constraints**: a message is given to one member at a time; what a member has not acknowledged
//! is given again, to itself when it comes back or, when its session is over, to another; nobody's
//! absence makes the group keep more than [`GAP_MAX`] of its records in mind.
//! **Format**: a group with a durable member is kept in the state as a session under its own whole
//! name, which no client may have as its id. So its cursor is noted, held against trimming and shown
//! like any other; the members' sessions name the group among their filters.
//! **Operation**: the group owns one inbox and one cursor and hands messages out in turn, to
//! members with room; the members' connections drive it.
//! **QoS 2**: what is given as QoS 2 never goes to another member (MQTT 5, 4.8.2), since it may have been
//! handed on. So it leaves the cursor and has an [`Exchange`] of its own, noted together with the cursor:
//! and synced: whose it is before its PUBLISH, that it was received before its PUBREL. It is over with PUBCOMP, or
//! with the member's session; then nobody gets it, and it is counted.

use super::Door;
use super::core::{look, look_ahead};
use super::feed::Feed;
use super::message::Item;
use super::route::{Key, Next, OwnFilters, Sub};
use super::window::Window;
use crate::engine::Haste;
use crate::log::Entry;
use crate::note::{Apart, Note};
use citybrain_shared::{Pos, topic};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// Messages that one member may have at a time.
const HAND_MAX: usize = 128;

/// The same of QoS 2: each is named in every note of the group, some 40 bytes.
const EXCHANGES_MAX: usize = 32;

/// And of all members together: with ids of 512 bytes, each six as JSON, they still fit into one record of
/// the log. With this many the group waits.
const APART_MAX: usize = 4096;

/// The group's records from the oldest unsettled one to the newest that was handed out. With this many,
/// what absent members hold goes to others, and what connected ones hold stops the group.
const GAP_MAX: usize = 4096;

/// Records looked at before other work gets its turn.
const LOOKED_AT_MAX: usize = 64;

/// The group's QoS 2, and the retain flag as published; the member's own options follow.
const OPTIONS: u8 = 2 | 8;

/// The filter of a shared subscription: `None` for any other; `Some(Err)`: a broken one.
pub(crate) fn filter_of(name: &str) -> Option<Result<&str, ()>> {
    let rest = name.strip_prefix(topic::SHARE)?;
    Some(match rest.split_once('/') {
        Some((group, filter))
            if !group.is_empty() && !group.contains(['+', '#']) && topic::check_filter(filter).is_ok() =>
        {
            Ok(filter)
        }
        _ => Err(()),
    })
}

pub(crate) fn is_shared(filter: &str) -> bool {
    filter.starts_with(topic::SHARE)
}

/// All groups of a door.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    /// A session has ended, or left a group: some may be of nobody now.
    changed: AtomicBool,
    /// Groups that seemed to be of nobody when it was looked last.
    suspects: Mutex<HashSet<String>>,
}

#[derive(Debug)]
pub(crate) struct Group {
    name: Arc<str>,
    key: Key,
    bell: Arc<Bell>,
    inner: Mutex<Inner>,
}

/// Wakes the members' connections. Apart from [`Inner`], because the router rings it under its lock.
#[derive(Debug, Default)]
struct Bell(Mutex<Vec<Waker>>);

impl Bell {
    /// Rings for this task too.
    fn know(&self, cx: &Context<'_>) {
        let mut wakers = self.0.lock();
        if !wakers.iter().any(|w| w.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
    }

    fn ring(&self) {
        let wakers = std::mem::take(&mut *self.0.lock());
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

#[derive(Debug)]
struct Inner {
    feed: Feed,
    own: OwnFilters,
    /// Found, and nobody has it.
    ready: VecDeque<Item>,
    members: Vec<Member>,
    /// Given and not acknowledged, to clients that are away or have left the group since.
    away: HashMap<Arc<str>, BTreeMap<At, Item>>,
    /// Messages published as QoS 2, from when they are found. For the window they are settled.
    apart: BTreeMap<At, Exchange>,
    turn: usize,
    /// The state keeps its cursor.
    durable: bool,
    /// Since the last note.
    changed: bool,
    noting: Option<UnderWay>,
    notes: u64,
}

/// A message: record and part.
type At = (Pos, u8);

#[derive(Debug)]
struct Exchange {
    /// Whose it is; `None`: nobody was given it as QoS 2.
    client: Option<Arc<str>>,
    /// The client has received it.
    releasing: bool,
    /// The log says all this, or need not.
    noted: bool,
}

/// A note to be written, and when; with its number, for [`Group::was_noted`].
pub(crate) struct Noting {
    pub number: u64,
    pub note: Note,
    pub haste: Haste,
}

/// A note on its way.
#[derive(Debug)]
struct UnderWay {
    /// Told to whoever waits for it: a member may leave meanwhile, and another note anew.
    number: u64,
    /// Whose connection waits for it.
    by: Arc<str>,
    /// What it says of exchanges that are somebody's.
    said: Vec<(At, Arc<str>, bool)>,
}

#[derive(Debug)]
struct Member {
    client: Arc<str>,
    sub: Sub,
    max: usize,
    /// Its own, and not yet written to it.
    hand: VecDeque<Item>,
    given: BTreeMap<At, Item>,
}

/// A client that joins.
pub(crate) struct Joining<'a> {
    pub client: &'a Arc<str>,
    pub sub: Sub,
    pub in_flight_max: usize,
}

impl Shares {
    /// Makes the client a member; what it was given before and did not acknowledge comes first, but for
    /// what is `under_way` in this connection. The messages that it has received and is to be told to
    /// release are returned.
    pub(crate) fn join(
        &self,
        door: &Door,
        name: &str,
        who: &Joining<'_>,
        under_way: impl Fn(&Arc<Group>, At) -> bool,
    ) -> (Arc<Group>, Vec<At>) {
        let mut groups = self.groups.lock();
        let group = match groups.get(name) {
            Some(group) => group.clone(),
            None => {
                let group = Group::open(door, name);
                groups.insert(group.name.clone(), group.clone());
                group
            }
        };
        let releasing = group.join(who, |at| under_way(&group, at));
        (group, releasing)
    }

    /// `keep`: it is a durable member, and what it was given waits for it.
    pub(crate) fn leave(&self, door: &Door, group: &Arc<Group>, client: &Arc<str>, keep: bool) {
        let mut groups = self.groups.lock();
        door.counters.abandoned.add(group.leave(client, keep));
        self.changed.store(true, Ordering::Relaxed);
        if group.is_idle() && !look_ahead(&*door.core, |s| s.sessions.contains_key(&*group.name)) {
            groups.remove(&group.name);
            group.close(door);
        }
    }

    /// The client's session is over: what it had goes to others.
    pub(crate) fn session_ended(&self, door: &Door, client: &str) {
        self.changed.store(true, Ordering::Relaxed);
        for group in self.groups.lock().values() {
            group.forget(door, client);
        }
    }

    /// Ends groups that no session names any more. Notes to be committed are returned.
    pub(crate) fn sweep(&self, door: &Door) -> Vec<Note> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        let mut groups = self.groups.lock();
        let mut orphans: Vec<String> = look_ahead(&*door.core, |s| {
            let from = (Bound::Included(topic::SHARE), Bound::Unbounded);
            let named: HashSet<&str> = s
                .sessions
                .iter()
                .filter(|(client, _)| !is_shared(client))
                .flat_map(|(_, s)| {
                    s.filters.range::<str, _>(from).map(|(f, _)| f.as_str()).take_while(|f| is_shared(f))
                })
                .collect();
            s.sessions.keys().filter(|c| is_shared(c) && !named.contains(c.as_str())).cloned().collect()
        });
        // The notes of one that has just joined may be on their way: the state is asked twice.
        let mut suspects = self.suspects.lock();
        let before = std::mem::take(&mut *suspects);
        orphans.retain(|name| {
            let is_certain = before.contains(name);
            if !is_certain {
                self.changed.store(true, Ordering::Relaxed);
                suspects.insert(name.clone());
            }
            is_certain
        });
        groups.retain(|name, group| {
            if orphans.iter().any(|o| **o == **name) {
                group.inner.lock().durable = false;
            }
            let over = group.is_idle()
                && (orphans.iter().any(|o| **o == **name)
                    || !look_ahead(&*door.core, |s| s.sessions.contains_key(&**name)));
            if over {
                group.close(door);
            }
            !over
        });
        let why = "its last durable member is gone";
        orphans.into_iter().map(|client| Note::SessionEnded { client, why: why.into() }).collect()
    }

    /// At the start: those that the state has. Before anybody comes, since what was given to a session
    /// that did not outlive the process must not go to a new one of the same client.
    pub(crate) fn open(&self, door: &Door) {
        let names = look(&*door.core, |s| s.sessions.keys().filter(|c| is_shared(c)).cloned().collect::<Vec<_>>());
        let groups = names.iter().map(|name| Group::open(door, name));
        self.groups.lock().extend(groups.map(|g| (g.name.clone(), g)));
        // Some may be of nobody now.
        self.changed.store(true, Ordering::Relaxed);
    }
}

/// What makes a group durable; harmless if it is.
pub(crate) fn open_notes(name: &str) -> Vec<Note> {
    let filter = filter_of(name).and_then(Result::ok).unwrap_or_default();
    Note::open_own(name, 5, &[filter], OPTIONS)
}

impl Group {
    fn open(door: &Door, name: &str) -> Arc<Group> {
        let name: Arc<str> = name.into();
        let filter = filter_of(&name).and_then(Result::ok).unwrap_or_default();
        let found = look_ahead(&*door.core, |s| {
            let session = s.sessions.get(&*name)?;
            let lasts = |a: &Apart| a.client.as_ref().is_none_or(|c| s.sessions.contains_key(c));
            let (apart, over): (Vec<Apart>, Vec<Apart>) = session.apart.iter().cloned().partition(lasts);
            Some((session.upto, session.beyond.clone(), apart, over.len() as u64))
        });
        let durable = found.is_some();
        let (upto, beyond, apart, over) =
            found.unwrap_or_else(|| (*door.core.committed().borrow(), Vec::new(), Vec::new(), 0));
        door.counters.abandoned.add(over);
        let mut sub = Sub { options: OPTIONS, id: None, since: upto };
        let (key, inbox) = door.router.join(&name);
        door.router.subscribe(key, &*door.core, [(filter, &mut sub)].into_iter());
        let mut inner = Inner {
            feed: Feed::new(inbox, Window::resume(upto, beyond)),
            own: OwnFilters::new([(filter, sub)].into_iter()),
            ready: VecDeque::new(),
            members: Vec::new(),
            away: HashMap::new(),
            apart: BTreeMap::new(),
            turn: 0,
            durable,
            changed: over > 0,
            noting: None,
            notes: 0,
        };
        for a in apart {
            inner.resume(door, &name, a);
        }
        Arc::new(Group { key, bell: Arc::default(), inner: Mutex::new(inner), name })
    }

    fn close(&self, door: &Door) {
        let filter = filter_of(&self.name).and_then(Result::ok).unwrap_or_default();
        door.router.unsubscribe(self.key, [filter].into_iter());
        door.router.leave(self.key);
    }

    fn is_idle(&self) -> bool {
        self.inner.lock().members.is_empty()
    }

    /// A durable session names it, by the notes of [`open_notes`].
    pub(crate) fn make_durable(&self) {
        let mut inner = self.inner.lock();
        inner.durable = true;
        inner.changed |= !inner.apart.is_empty();
    }

    fn join(&self, who: &Joining<'_>, under_way: impl Fn(At) -> bool) -> Vec<At> {
        let mut inner = self.inner.lock();
        if let Some(m) = inner.members.iter_mut().find(|m| m.client == *who.client) {
            m.sub = who.sub;
            return Vec::new();
        }
        let of_client = inner.apart.iter().filter(|(_, x)| x.client.as_ref() == Some(who.client));
        let releasing: Vec<At> = of_client.filter(|(_, x)| x.releasing).map(|(at, _)| *at).collect();
        let mut given = inner.away.remove(who.client).unwrap_or_default();
        let again = given.extract_if(.., |at, _| !releasing.contains(at) && !under_way(*at));
        let hand = again.map(|(_, item)| Item { again: true, ..item }).collect();
        let max = who.in_flight_max.clamp(1, HAND_MAX);
        inner.members.push(Member { client: who.client.clone(), sub: who.sub, max, hand, given });
        releasing
    }

    /// How many messages go to nobody for it.
    fn leave(&self, client: &Arc<str>, keep: bool) -> u64 {
        let mut inner = self.inner.lock();
        let Some(i) = inner.members.iter().position(|m| m.client == *client) else { return 0 };
        let member = inner.members.swap_remove(i);
        let (mut given, mut back) = (member.given, Vec::new());
        for item in member.hand {
            // Written to it in an earlier connection: still its own.
            if item.again {
                given.insert(at(&item), item);
            } else {
                back.push(item);
            }
        }
        inner.give_back(back);
        let mut abandoned = 0;
        if !keep {
            abandoned = inner.give_up(client, given);
        } else if !given.is_empty() {
            inner.away.insert(client.clone(), given);
        }
        if inner.noting.as_ref().is_some_and(|n| n.by == *client) {
            // It was handed to the engine before this, so that a later one follows it.
            inner.noting = None;
            inner.changed = true;
        }
        drop(inner);
        self.bell.ring();
        abandoned
    }

    /// What the client was given goes to others, or if it is of QoS 2 to nobody.
    pub(crate) fn forget(&self, door: &Door, client: &str) {
        let mut inner = self.inner.lock();
        let given = inner.away.remove(client).unwrap_or_default();
        let abandoned = inner.give_up(client, given);
        drop(inner);
        door.counters.abandoned.add(abandoned);
        self.bell.ring();
    }

    /// The next message for this member; `None`: none for now, and the task will be woken.
    pub(crate) fn poll_next(self: &Arc<Self>, door: &Door, client: &Arc<str>, cx: &Context<'_>) -> Option<Item> {
        let mut inner = self.inner.lock();
        let i = inner.members.iter().position(|m| m.client == *client)?;
        if inner.members[i].hand.is_empty() {
            self.bell.know(cx);
            if inner.deal(self, door) {
                self.bell.ring();
            }
        }
        let at = at(inner.members[i].hand.front()?);
        let exchange = inner.apart.get(&at).filter(|x| x.client.as_ref() == Some(client));
        let is_exchange = exchange.is_some();
        if exchange.is_some_and(|x| !x.noted) {
            self.bell.know(cx);
            return None;
        }
        let member = &mut inner.members[i];
        let item = member.hand.pop_front()?;
        // Without an exchange it may have been given to somebody before.
        let qos = if is_exchange { 2 } else { item.qos.min(member.sub.qos()).min(1) };
        if qos > 0 && at.0 > Pos::ZERO {
            member.given.insert(at, item.clone());
        }
        let given = Item {
            qos,
            retain: item.retain && member.sub.retain_as_published(),
            subscription_ids: member.sub.id.into_iter().collect(),
            share: Some(self.clone()),
            ..item
        };
        if qos == 0 && item.qos > 0 && at.0 > Pos::ZERO {
            inner.settle(at);
        }
        Some(given)
    }

    /// What the client was to get next was not written to it, and it is leaving: others may have it.
    pub(crate) fn take_back(&self, client: &str, at: At) {
        let mut inner = self.inner.lock();
        let member = inner.members.iter_mut().find(|m| *m.client == *client);
        let of_member = member.and_then(|m| m.given.remove(&at));
        if let Some(item) = of_member.or_else(|| inner.away.get_mut(client)?.remove(&at)) {
            inner.give_back(vec![item]);
        }
    }

    /// The client has received a message of QoS 2.
    pub(crate) fn release(&self, client: &Arc<str>, at: At) {
        let mut inner = self.inner.lock();
        let noted = !inner.durable;
        let Some(x) = inner.apart.get_mut(&at).filter(|x| x.client.as_ref() == Some(client)) else { return };
        if !x.releasing {
            (x.releasing, x.noted) = (true, noted);
            inner.changed = true;
        }
    }

    /// May the client be told to release it? If not, the task will be woken.
    pub(crate) fn poll_release(&self, at: At, cx: &Context<'_>) -> bool {
        let inner = self.inner.lock();
        let may = inner.apart.get(&at).is_none_or(|x| x.noted);
        if !may {
            self.bell.know(cx);
        }
        may
    }

    /// The client has completed a message.
    pub(crate) fn settle(&self, client: &str, at: At) {
        let mut inner = self.inner.lock();
        let member = inner.members.iter_mut().find(|m| *m.client == *client);
        let of_member = member.is_some_and(|m| m.given.remove(&at).is_some());
        let was_given = of_member || inner.away.get_mut(client).is_some_and(|g| g.remove(&at).is_some());
        // Received by it before this process, of which the log may not have the record any more.
        if was_given || inner.apart.get(&at).is_some_and(|x| x.client.as_deref() == Some(client)) {
            inner.settle(at);
        }
    }

    /// How far the group has come, if that is not known to the log and nobody is noting it. `idle`: also
    /// what an earlier note should have said.
    pub(crate) fn to_note(&self, client: &Arc<str>, idle: bool) -> Option<Noting> {
        let mut inner = self.inner.lock();
        let is_due = inner.changed || (idle && inner.apart.values().any(|x| !x.noted));
        if !inner.durable || !is_due || inner.noting.is_some() {
            return None;
        }
        inner.changed = false;
        let said = |(at, x): (&At, &Exchange)| Some((*at, x.client.clone()?, x.releasing));
        inner.notes += 1;
        let number = inner.notes;
        let said = inner.apart.iter().filter_map(said).collect();
        inner.noting = Some(UnderWay { number, by: client.clone(), said });
        // A PUBLISH or a PUBREL waits for it, and neither may be taken back by a power cut.
        let haste = if inner.apart.values().any(|x| !x.noted) { Haste::Now } else { Haste::Lazy };
        let apart = |(at, x): (&At, &Exchange)| Apart {
            pos: at.0,
            part: at.1,
            client: x.client.as_deref().map(str::to_owned),
            releasing: x.releasing,
        };
        let note = Note::SessionAcked {
            client: self.name.to_string(),
            upto: inner.feed.window.upto(),
            beyond: inner.feed.window.beyond(),
            releasing: Vec::new(),
            begun: Vec::new(),
            apart: inner.apart.iter().map(apart).collect(),
        };
        Some(Noting { number, note, haste })
    }

    /// The note on its way is written, or could not be. Then the next one says it again, whenever there
    /// is reason for one: at once would be a busy loop while the disk is full.
    pub(crate) fn was_noted(&self, number: u64, written: bool) {
        let mut inner = self.inner.lock();
        let said = inner.noting.take_if(|n| n.number == number).map_or_else(Vec::new, |n| n.said);
        for (at, client, releasing) in said.into_iter().filter(|_| written) {
            let x = inner.apart.get_mut(&at).filter(|x| x.client.as_ref() == Some(&client));
            if let Some(x) = x.filter(|x| x.releasing == releasing) {
                x.noted = true;
            }
        }
        drop(inner);
        self.bell.ring();
    }
}

fn at(item: &Item) -> At {
    (item.message.pos, item.message.part)
}

impl Inner {
    fn settle(&mut self, at: At) {
        if self.apart.remove(&at).is_none() {
            self.feed.window.settle(at.0);
        }
        self.changed = true;
    }

    /// Another has never seen it: each goes back to where it stood in the log.
    fn give_back(&mut self, items: Vec<Item>) {
        for item in items {
            if let Some(x) = self.apart.get_mut(&at(&item)) {
                *x = Exchange { client: None, releasing: false, noted: true };
            }
            let place = self.ready.partition_point(|r| at(r) < at(&item));
            self.ready.insert(place, Item { again: false, ..item });
        }
    }

    /// The client's session is over, and it had these. How many go to nobody.
    fn give_up(&mut self, client: &str, mut given: BTreeMap<At, Item>) -> u64 {
        let mut abandoned = 0;
        self.apart.retain(|at, x| {
            let is_over = x.client.as_deref() == Some(client);
            if is_over {
                given.remove(at);
                abandoned += 1;
            }
            !is_over
        });
        self.changed |= abandoned > 0;
        self.give_back(given.into_values().collect());
        abandoned
    }

    /// A message that an earlier process had set apart is read again.
    fn resume(&mut self, door: &Door, name: &str, a: Apart) {
        let at = (a.pos, a.part);
        let record = door.core.get(a.pos).ok().flatten();
        let items = record.map(|entry| self.own.items(&door.me, &entry, name, |n| (n == a.part).then_some(2)));
        let item = items.into_iter().flatten().find(|i| i.message.part == a.part);
        let client: Option<Arc<str>> = a.client.map(Into::into);
        match (item, &client) {
            (Some(item), Some(client)) => {
                self.away.entry(client.clone()).or_default().insert(at, item);
            }
            (Some(item), None) => self.ready.push_back(item),
            // Nothing is needed of it any more.
            (None, _) if a.releasing => {}
            (None, _) => {
                door.counters.unreadable.add(1);
                tracing::warn!(group = name, pos = a.pos.0, "A record is gone that a group had not delivered.");
                self.changed = true;
                return;
            }
        }
        self.apart.insert(at, Exchange { client, releasing: a.releasing, noted: true });
    }

    /// Hands out what there is, in turn. True: somebody got something, or there is more to look at.
    fn deal(&mut self, group: &Group, door: &Door) -> bool {
        let mut dealt = false;
        let mut looked_at = 0;
        loop {
            let n = self.members.len();
            let free = (0..n).map(|i| (self.turn + i) % n).find(|i| {
                let m = &self.members[*i];
                m.hand.len() + m.given.len() < m.room()
            });
            let Some(to) = free else { return dealt };
            if self.ready.is_empty() {
                if looked_at > LOOKED_AT_MAX {
                    return true;
                }
                looked_at += 1;
                // The parts of one more record fit in any case.
                if self.apart.len() >= APART_MAX {
                    return dealt;
                }
                if self.feed.window.under_way() > GAP_MAX && !self.take_from_absent() {
                    return dealt;
                }
                if self.ready.is_empty() && !self.find(group, door) {
                    return dealt;
                }
                continue;
            }
            let Some(item) = self.ready.pop_front() else { return dealt };
            let member = &mut self.members[to];
            if member.sub.qos() == 2
                && let Some(x) = self.apart.get_mut(&at(&item))
            {
                *x = Exchange { client: Some(member.client.clone()), releasing: false, noted: !self.durable };
                self.changed = true;
            }
            member.hand.push_back(item);
            self.turn = (to + 1) % n;
            dealt = true;
        }
    }

    /// What absent members hold goes to others; false: they hold nothing, the group must wait.
    fn take_from_absent(&mut self) -> bool {
        let apart = &self.apart;
        let may = |at: &At| apart.get(at).is_none_or(|x| x.client.is_none());
        let held = self.away.values_mut().flat_map(|given| given.extract_if(.., |at, _| may(at)));
        let items: Vec<Item> = held.map(|(_, item)| item).collect();
        let any = !items.is_empty();
        self.give_back(items);
        any
    }

    /// Takes the next record's messages; false: none for now, and the bell will ring.
    fn find(&mut self, group: &Group, door: &Door) -> bool {
        let waker = Waker::from(group.bell.clone());
        let before = self.ready.len();
        let found = match self.feed.poll(&mut Context::from_waker(&waker), &mut self.ready) {
            Next::Pending => false,
            Next::Item => true,
            Next::Behind => {
                let own = &mut self.own;
                // A member may have it for long.
                let items = |entry: &Entry| own.items(&door.me, &entry.alone(), &group.name, |_| None);
                self.feed.read_log(door, &mut self.ready, items);
                if let Some((first, last)) = self.feed.lost.take() {
                    // Whom should it be told? The group goes on with what there is.
                    tracing::warn!(group = %group.name, first = first.0, last = last.0, "Records are gone that a group had not read.");
                }
                // A member's tick tries again.
                !std::mem::take(&mut self.feed.broken)
            }
        };
        for item in self.ready.iter().skip(before).filter(|i| i.qos == 2 && i.message.pos > Pos::ZERO) {
            self.apart.insert(at(item), Exchange { client: None, releasing: false, noted: true });
            self.feed.window.settle(item.message.pos);
        }
        found
    }
}

impl Member {
    /// Messages that it may have at a time.
    fn room(&self) -> usize {
        if self.sub.qos() == 2 { self.max.min(EXCHANGES_MAX) } else { self.max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_needs_a_name_and_a_filter() {
        assert_eq!(filter_of("a/b"), None);
        assert_eq!(filter_of("$share/g/a/+"), Some(Ok("a/+")));
        assert_eq!(filter_of("$share/g//a"), Some(Ok("/a")));
        for broken in ["$share/g", "$share/g/", "$share//a", "$share/g+/a", "$share/g/a#"] {
            assert_eq!(filter_of(broken), Some(Err(())), "{broken}");
        }
    }
}
