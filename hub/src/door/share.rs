//! Shared subscriptions, `$share/GROUP/FILTER`: each message goes to one member of the group.
//!
//! **Constraints**: a message is given to one member at a time; what a member has not acknowledged
//! is given again, to itself when it comes back or, when its session is over, to another; nobody's
//! absence makes the group keep more than [`GAP_MAX`] positions in mind.
//! **Format**: a group with a durable member is kept in the state as a session under its own whole
//! name, which no client may have as its id. So its cursor is noted, held against trimming and shown
//! like any other; the members' sessions name the group among their filters.
//! **Operation**: the group owns one inbox and one cursor and hands messages out in turn, to
//! members with room; the members' connections drive it. QoS 1 at most is granted: a QoS 2 message
//! half given cannot go to another member without being given twice.

use super::Door;
use super::core::look;
use super::feed::Feed;
use super::message::Item;
use super::route::{Key, Next, OwnFilters, Sub};
use super::window::Window;
use crate::note::Note;
use citybrain_shared::{Pos, topic};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// First level of the filters, and of the groups' names in the state.
pub const PREFIX: &str = "$share/";

/// Messages that one member may have at a time.
const HAND_MAX: usize = 128;

/// Positions between the oldest unsettled record and the newest one handed out. With this many, what
/// absent members hold goes to others, and what connected ones hold stops the group.
const GAP_MAX: u64 = 4096;

/// Records looked at before other work gets its turn.
const LOOKED_AT_MAX: usize = 64;

/// The group's QoS 1, and the retain flag as published; the member's own options follow.
const OPTIONS: u8 = 1 | 8;

/// The filter of a shared subscription: `None` for any other; `Some(Err)`: a broken one.
pub fn filter_of(name: &str) -> Option<Result<&str, ()>> {
    let rest = name.strip_prefix(PREFIX)?;
    Some(match rest.split_once('/') {
        Some((group, filter))
            if !group.is_empty() && !group.contains(['+', '#']) && topic::check_filter(filter).is_ok() =>
        {
            Ok(filter)
        }
        _ => Err(()),
    })
}

pub fn is_shared(filter: &str) -> bool {
    filter.starts_with(PREFIX)
}

/// All groups of a door.
#[derive(Debug, Default)]
pub struct Shares {
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    /// A session has ended, or left a group: some may be of nobody now.
    changed: AtomicBool,
}

#[derive(Debug)]
pub struct Group {
    name: Arc<str>,
    key: Key,
    bell: Arc<Bell>,
    inner: Mutex<Inner>,
}

/// Wakes the members' connections. Apart from [`Inner`], because the router rings it under its lock.
#[derive(Debug, Default)]
struct Bell(Mutex<Vec<Waker>>);

impl Bell {
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
    away: HashMap<Arc<str>, BTreeMap<(Pos, u8), Item>>,
    turn: usize,
    /// The state keeps its cursor.
    durable: bool,
    acked: bool,
    /// Whose note is on its way.
    noting: Option<Arc<str>>,
}

#[derive(Debug)]
struct Member {
    client: Arc<str>,
    sub: Sub,
    max: usize,
    /// Its own, and not yet written to it.
    hand: VecDeque<Item>,
    given: BTreeMap<(Pos, u8), Item>,
}

impl Shares {
    /// Makes the client a member; what it was given before and did not acknowledge comes first.
    pub fn join(&self, door: &Door, name: &str, client: &Arc<str>, sub: Sub, in_flight_max: usize) -> Arc<Group> {
        let mut groups = self.groups.lock();
        let group = match groups.get(name) {
            Some(group) => group.clone(),
            None => {
                let group = Group::open(door, name);
                groups.insert(group.name.clone(), group.clone());
                group
            }
        };
        group.join(client, sub, in_flight_max.min(HAND_MAX));
        group
    }

    /// `keep`: it is a durable member, and what it was given waits for it.
    pub fn leave(&self, door: &Door, group: &Arc<Group>, client: &Arc<str>, keep: bool) {
        let mut groups = self.groups.lock();
        group.leave(client, keep);
        self.changed.store(true, Ordering::Relaxed);
        if group.is_idle() && !look(&*door.core, |s| s.sessions.contains_key(&*group.name)) {
            groups.remove(&group.name);
            group.close(door);
        }
    }

    /// The client's session is over: what it had goes to others.
    pub fn session_ended(&self, client: &str) {
        self.changed.store(true, Ordering::Relaxed);
        for group in self.groups.lock().values() {
            group.forget(client);
        }
    }

    /// Ends groups that no session names any more. Notes to be committed are returned.
    pub fn sweep(&self, door: &Door) -> Vec<Note> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        let mut groups = self.groups.lock();
        let orphans: Vec<String> = look(&*door.core, |s| {
            let from = (Bound::Included(PREFIX), Bound::Unbounded);
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
        groups.retain(|name, group| {
            if orphans.iter().any(|o| **o == **name) {
                group.inner.lock().durable = false;
            }
            let over = group.is_idle()
                && (orphans.iter().any(|o| **o == **name) || !look(&*door.core, |s| s.sessions.contains_key(&**name)));
            if over {
                group.close(door);
            }
            !over
        });
        let why = "its last durable member is gone";
        orphans.into_iter().map(|client| Note::SessionEnded { client, why: why.into() }).collect()
    }

    /// At the start groups may be left of nobody.
    pub fn look_again(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }
}

/// What makes a group durable; harmless if it is.
pub fn open_notes(name: &str) -> Vec<Note> {
    let filter = filter_of(name).and_then(Result::ok).unwrap_or_default();
    Note::open_own(name, 5, &[filter], OPTIONS)
}

impl Group {
    fn open(door: &Door, name: &str) -> Arc<Group> {
        let name: Arc<str> = name.into();
        let filter = filter_of(&name).and_then(Result::ok).unwrap_or_default();
        let found = look(&*door.core, |s| s.sessions.get(&*name).map(|s| (s.upto, s.beyond.clone())));
        let committed = *door.core.committed().borrow();
        let durable = found.is_some();
        let (upto, beyond) = found.unwrap_or((committed, Vec::new()));
        let sub = Sub { options: OPTIONS, id: None, since: upto };
        let (key, inbox) = door.router.join(&name);
        door.router.subscribe(key, [(filter, sub)].into_iter());
        Arc::new(Group {
            key,
            bell: Arc::default(),
            inner: Mutex::new(Inner {
                feed: Feed::new(inbox, Window::resume(upto, beyond)),
                own: OwnFilters::new([(filter, sub)].into_iter()),
                ready: VecDeque::new(),
                members: Vec::new(),
                away: HashMap::new(),
                turn: 0,
                durable,
                acked: false,
                noting: None,
            }),
            name,
        })
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
    pub fn make_durable(&self) {
        self.inner.lock().durable = true;
    }

    fn join(&self, client: &Arc<str>, sub: Sub, max: usize) {
        let mut inner = self.inner.lock();
        if let Some(m) = inner.members.iter_mut().find(|m| m.client == *client) {
            m.sub = sub;
            return;
        }
        let hand = inner.away.remove(client).unwrap_or_default();
        let hand = hand.into_values().map(|item| Item { again: true, ..item }).collect();
        let member = Member { client: client.clone(), sub, max: max.max(1), hand, given: BTreeMap::new() };
        inner.members.push(member);
    }

    fn leave(&self, client: &Arc<str>, keep: bool) {
        let mut inner = self.inner.lock();
        let Some(i) = inner.members.iter().position(|m| m.client == *client) else { return };
        let member = inner.members.swap_remove(i);
        let (mut given, mut back) = (member.given, Vec::new());
        for item in member.hand {
            // Written to it in an earlier connection: still its own.
            if item.again {
                given.insert((item.message.pos, item.message.part), item);
            } else {
                back.push(item);
            }
        }
        if keep {
            if !given.is_empty() {
                inner.away.insert(client.clone(), given);
            }
        } else {
            back.extend(given.into_values());
        }
        inner.give_back(back);
        if inner.noting.as_ref() == Some(client) {
            // It was handed to the engine before this, so that a later one follows it.
            inner.noting = None;
            inner.acked = true;
        }
        drop(inner);
        self.bell.ring();
    }

    /// What the client was given goes to others.
    pub fn forget(&self, client: &str) {
        let mut inner = self.inner.lock();
        if let Some(given) = inner.away.remove(client) {
            inner.give_back(given.into_values().collect());
            drop(inner);
            self.bell.ring();
        }
    }

    /// The next message for this member; `None`: none for now, and the task will be woken.
    pub fn poll_next(self: &Arc<Self>, door: &Door, client: &Arc<str>, cx: &Context<'_>) -> Option<Item> {
        let mut inner = self.inner.lock();
        let at = inner.members.iter().position(|m| m.client == *client)?;
        if inner.members[at].hand.is_empty() {
            {
                let mut wakers = self.bell.0.lock();
                if !wakers.iter().any(|w| w.will_wake(cx.waker())) {
                    wakers.push(cx.waker().clone());
                }
            }
            if inner.deal(self, door) {
                self.bell.ring();
            }
        }
        let member = &mut inner.members[at];
        let item = member.hand.pop_front()?;
        let qos = item.qos.min(member.sub.qos());
        let pos = item.message.pos;
        if qos > 0 && pos > Pos::ZERO {
            member.given.insert((pos, item.message.part), item.clone());
        }
        let given = Item {
            qos,
            retain: item.retain && member.sub.retain_as_published(),
            subscription_ids: member.sub.id.into_iter().collect(),
            share: Some(self.clone()),
            ..item
        };
        if qos == 0 && item.qos > 0 && pos > Pos::ZERO {
            inner.settle(pos);
        }
        Some(given)
    }

    /// The client has completed a message of the record at `pos`.
    pub fn settle(&self, client: &str, pos: Pos, part: u8) {
        let mut inner = self.inner.lock();
        let member = inner.members.iter_mut().find(|m| *m.client == *client);
        let of_member = member.is_some_and(|m| m.given.remove(&(pos, part)).is_some());
        if of_member || inner.away.get_mut(client).is_some_and(|g| g.remove(&(pos, part)).is_some()) {
            inner.settle(pos);
        }
    }

    /// How far the group has come, if that is not known to the log and nobody is noting it.
    pub fn to_note(&self, client: &Arc<str>) -> Option<Note> {
        let mut inner = self.inner.lock();
        if !inner.durable || !inner.acked || inner.noting.is_some() {
            return None;
        }
        inner.acked = false;
        inner.noting = Some(client.clone());
        Some(Note::settled(&self.name, inner.feed.window.upto(), inner.feed.window.beyond()))
    }

    pub fn was_noted(&self) {
        let mut inner = self.inner.lock();
        inner.noting = None;
        let more = inner.acked;
        drop(inner);
        if more {
            self.bell.ring();
        }
    }
}

impl Inner {
    fn settle(&mut self, pos: Pos) {
        self.feed.window.settle(pos);
        self.acked = true;
    }

    fn give_back(&mut self, mut items: Vec<Item>) {
        items.sort_by_key(|i| (i.message.pos, i.message.part));
        for item in items.into_iter().rev() {
            // Another has never seen it.
            self.ready.push_front(Item { again: false, ..item });
        }
    }

    /// Hands out what there is, in turn. True: somebody got something, or there is more to look at.
    fn deal(&mut self, group: &Group, door: &Door) -> bool {
        let mut dealt = false;
        let mut looked_at = 0;
        loop {
            let n = self.members.len();
            let free = (0..n).map(|i| (self.turn + i) % n).find(|i| {
                let m = &self.members[*i];
                m.hand.len() + m.given.len() < m.max
            });
            let Some(to) = free else { return dealt };
            if self.ready.is_empty() {
                if looked_at > LOOKED_AT_MAX {
                    return true;
                }
                looked_at += 1;
                if self.feed.window.seen().0.saturating_sub(self.feed.window.upto().0) > GAP_MAX
                    && !self.take_from_absent()
                {
                    return dealt;
                }
                if self.ready.is_empty() && !self.find(group, door) {
                    return dealt;
                }
                continue;
            }
            let Some(item) = self.ready.pop_front() else { return dealt };
            self.members[to].hand.push_back(item);
            self.turn = (to + 1) % n;
            dealt = true;
        }
    }

    /// What absent members hold goes to others; false: they hold nothing, the group must wait.
    fn take_from_absent(&mut self) -> bool {
        let items: Vec<Item> = self.away.drain().flat_map(|(_, given)| given.into_values()).collect();
        let any = !items.is_empty();
        self.give_back(items);
        any
    }

    /// Takes the next record's messages; false: none for now, and the bell will ring.
    fn find(&mut self, group: &Group, door: &Door) -> bool {
        let waker = Waker::from(group.bell.clone());
        match self.feed.poll(&mut Context::from_waker(&waker), &mut self.ready) {
            Next::Pending => false,
            Next::Item => true,
            Next::Behind => {
                let own = &mut self.own;
                self.feed.read_log(door, &mut self.ready, |entry| own.items(&door.me, entry, &group.name, |_| false));
                if let Some((first, last)) = self.feed.lost.take() {
                    // Whom should it be told? The group goes on with what there is.
                    tracing::warn!(group = %group.name, first = first.0, last = last.0, "Records are gone that a group had not read.");
                }
                true
            }
        }
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
