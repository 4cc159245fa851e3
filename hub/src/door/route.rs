//! From the log to those who asked: one task reads what was committed and hands it on.
//!
//! **Constraints**: a message costs only those whose filters match it; a slow subscriber costs
//! nobody else anything; nothing that must arrive is dropped.
//! **Operation**: each connected session has an [`Inbox`], bounded. While it is *live*, the router
//! puts in what matches. When it is full, the session is no longer live: it empties its inbox,
//! reads on in the log by itself from the last record that it saw, and becomes live again when it
//! has come to where the router is. Both happen under the lock of [`Routes`], so no record falls
//! between the two.

use super::core::{Core, read_on};
use super::counters::Counters;
use super::message::{Item, Me, Message, Waiting, parts};
use super::trie::Trie;
use crate::meta::Meta;
use crate::state::{FILTER_BYTES, filter_cost};
use bytes::Bytes;
use citybrain_shared::record::Header;
use citybrain_shared::{Pos, topic};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::watch;

/// Records waiting in a session's inbox. More would only repeat the log, which has them anyway.
const RECORDS_MAX: usize = 512;
const RECORD_BYTES_MAX: usize = 512 * 1024;

/// Live messages, which are nowhere else: the frames under way to a child fit (2 lanes, 8 frames), and
/// what several publishers send in their turns before this session has its own.
const LIVE_MAX: usize = 4096;
const LIVE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What every inbox may hold, whatever waits in all of them: those that read fast enough to have no more
/// are to notice nothing of those that do not.
const OWN_BYTES: usize = 64 * 1024;

/// Records routed under one hold of the lock, and deliveries after which no further record is begun:
/// about a millisecond.
const CHUNK_RECORDS: usize = 256;
const CHUNK_BYTES: usize = 256 * 1024;
pub(crate) const CHUNK_DELIVERIES: usize = 4096;

/// Nodes of filters that are looked at in the time of one delivery, nearly: what matches nothing costs, too.
const NODES_A_DELIVERY: usize = 16;

/// Wild levels of all filters of one session (see [`super::trie::wild_levels`]): so its filters make no message cost
/// more than a turn.
pub(crate) const WILD_LEVELS_MAX: usize = CHUNK_DELIVERIES * NODES_A_DELIVERY;

/// Before a log that could not be read is asked again.
const BROKEN_PAUSE: Duration = Duration::from_secs(1);

/// One filter of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sub {
    /// QoS in bits 0-1, no-local 2, retain-as-published 3, retain handling 4-5.
    pub options: u8,
    pub id: Option<u32>,
    /// Only records after this position.
    pub since: Pos,
}

impl Sub {
    /// To be made [`Sub::since`]: what is committed when the filter comes into the routes.
    pub(crate) const FROM_NOW: Pos = Pos(u64::MAX);

    pub(crate) fn qos(&self) -> u8 {
        self.options & 3
    }

    fn no_local(&self) -> bool {
        self.options & 4 != 0
    }

    pub(crate) fn retain_as_published(&self) -> bool {
        self.options & 8 != 0
    }

    /// May it have this record of this publisher?
    fn wants(&self, pos: Pos, publisher: &[u8], own: &str) -> bool {
        pos > self.since && !(self.no_local() && publisher == own.as_bytes())
    }
}

/// Names a connected session in the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(u32);

/// What waits for one connected session.
#[derive(Debug)]
pub(crate) struct Inbox {
    client: Arc<str>,
    queue: Mutex<Queue>,
    /// Of all inboxes together.
    waiting: Waiting,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.waiting.sub(self.queue.get_mut().items.len() * size_of::<Item>());
    }
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    live: bool,
    /// Of the connection, while it waits.
    waker: Option<Waker>,
}

impl Queue {
    fn has_room(&self, items: usize, items_max: usize, bytes_max: usize) -> bool {
        // Whatever its size, one message fits into an empty inbox.
        self.items.is_empty() || (self.items.len() + items <= items_max && self.bytes < bytes_max)
    }

    fn wake(&mut self) {
        if let Some(w) = self.waker.take() {
            w.wake();
        }
    }
}

/// What [`Inbox::poll`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Item,
    /// Nothing; the task will be woken.
    Pending,
    /// Nothing, and nothing will come: read on in the log.
    Behind,
}

impl Inbox {
    /// Moves the messages of the next record, or the next live message, to the end of `ready`.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, ready: &mut VecDeque<Item>) -> Next {
        let mut q = self.queue.lock();
        let Some(first) = q.items.pop_front() else {
            if !q.live {
                return Next::Behind;
            }
            match &mut q.waker {
                Some(w) => w.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Next::Pending;
        };
        q.bytes -= first.bytes();
        let pos = first.message.pos;
        let before = ready.len();
        ready.push_back(first);
        while pos > Pos::ZERO && q.items.front().is_some_and(|i| i.message.pos == pos) {
            let item = q.items.pop_front().expect("it was looked at");
            q.bytes -= item.bytes();
            ready.push_back(item);
        }
        self.waiting.sub((ready.len() - before) * size_of::<Item>());
        Next::Item
    }

    /// Messages that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.lock().items.len()
    }

    /// The record of the newest of them; 0: none.
    pub(crate) fn newest(&self) -> Pos {
        self.queue.lock().items.iter().map(|i| i.message.pos).max().unwrap_or(Pos::ZERO)
    }

    /// Gives memory back that a burst has taken.
    pub(crate) fn free_room(&self) {
        let mut q = self.queue.lock();
        if q.items.is_empty() {
            q.items = VecDeque::new();
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.queue.lock().live
    }
}

/// Who gets what. One per door.
#[derive(Debug)]
pub(crate) struct Router {
    me: Arc<Me>,
    counters: Arc<Counters>,
    link_root: String,
    /// What waits in all inboxes, and how much may before each is held to [`OWN_BYTES`]; 0: no limit.
    waiting: Waiting,
    waiting_bytes_max: usize,
    routes: Mutex<Routes>,
}

#[derive(Debug, Default)]
struct Routes {
    filters: Trie<Key, Sub>,
    /// Filters below the link root; link traffic is seen through no other.
    links: Trie<Key, Sub>,
    /// What both keep in memory, bytes, nearly.
    filter_bytes: usize,
    sessions: Vec<Option<Arc<Inbox>>>,
    free: Vec<u32>,
    /// Records up to here have been routed.
    routed: Pos,
    /// Kept between calls, so that a message allocates nothing here.
    found: Vec<Found>,
    topic: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    key: Key,
    part: u8,
    sub: FoundSub,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FoundSub {
    qos: u8,
    retain_as_published: bool,
    id: Option<u32>,
}

impl Router {
    /// Routes what is committed behind `routed`.
    pub(crate) fn new(
        me: Arc<Me>,
        counters: Arc<Counters>,
        link_root: &str,
        waiting_bytes_max: usize,
        routed: Pos,
    ) -> Router {
        let routes = Mutex::new(Routes { routed, ..Routes::default() });
        let waiting = Waiting::default();
        Router { me, counters, link_root: link_root.to_owned(), waiting, waiting_bytes_max, routes }
    }

    /// What one inbox may hold, that may hold `alone` where little waits in the others.
    fn inbox_bytes_max(&self, alone: usize) -> usize {
        match self.waiting_bytes_max {
            0 => alone,
            max if self.waiting.bytes() <= max => alone,
            _ => OWN_BYTES,
        }
    }

    pub(crate) fn routed(&self) -> Pos {
        self.routes.lock().routed
    }

    /// Bytes that the filters of connected sessions keep in memory here, nearly.
    pub(crate) fn filter_bytes(&self) -> usize {
        self.routes.lock().filter_bytes
    }

    /// A session that is not live yet.
    pub(crate) fn join(&self, client: &Arc<str>) -> (Key, Arc<Inbox>) {
        let inbox = Arc::new(Inbox { client: client.clone(), queue: Mutex::default(), waiting: self.waiting.clone() });
        let mut r = self.routes.lock();
        let key = match r.free.pop() {
            Some(i) => {
                r.sessions[i as usize] = Some(inbox.clone());
                Key(i)
            }
            None => {
                r.sessions.push(Some(inbox.clone()));
                Key(r.sessions.len() as u32 - 1)
            }
        };
        (key, inbox)
    }

    /// The session is gone; its filters must be removed before.
    pub(crate) fn leave(&self, key: Key) {
        let mut r = self.routes.lock();
        if let Some(slot) = r.sessions.get_mut(key.0 as usize) {
            *slot = None;
            r.free.push(key.0);
        }
    }

    /// Filters of one session, in one hold of the lock; the caller gives few at a time. What is committed
    /// then is returned, and put into those that are [`Sub::FROM_NOW`]: no later record was routed yet.
    pub(crate) fn subscribe<'a>(
        &self,
        key: Key,
        core: &dyn Core,
        subs: impl Iterator<Item = (&'a str, &'a mut Sub)>,
    ) -> Pos {
        let mut r = self.routes.lock();
        let now = *core.committed().borrow();
        for (filter, sub) in subs {
            if sub.since == Sub::FROM_NOW {
                sub.since = now;
            }
            let trie = if topic::is_link(&self.link_root, filter) { &mut r.links } else { &mut r.filters };
            if trie.insert(filter, key, *sub).is_none() {
                r.filter_bytes += filter_cost(filter) * FILTER_BYTES;
            }
        }
        now
    }

    pub(crate) fn unsubscribe<'a>(&self, key: Key, filters: impl Iterator<Item = &'a str>) {
        let mut r = self.routes.lock();
        for filter in filters {
            let trie = if topic::is_link(&self.link_root, filter) { &mut r.links } else { &mut r.filters };
            if trie.remove(filter, key).is_some() {
                r.filter_bytes -= filter_cost(filter) * FILTER_BYTES;
            }
        }
    }

    /// Makes the session live if it has seen all that was routed.
    pub(crate) fn go_live(&self, inbox: &Inbox, seen: Pos) -> bool {
        let r = self.routes.lock();
        let live = r.routed <= seen;
        if live {
            inbox.queue.lock().live = true;
        }
        live
    }

    /// If the session is live and nothing waits for it: everything up to here was looked at for it.
    pub(crate) fn looked_upto(&self, inbox: &Inbox) -> Option<Pos> {
        let r = self.routes.lock();
        let q = inbox.queue.lock();
        (q.live && q.items.is_empty()).then_some(r.routed)
    }

    /// Hands a message that is in no log to whoever is there now. What it cost, in deliveries.
    pub(crate) fn live(&self, message: Message) -> usize {
        let mut r = self.routes.lock();
        let mut found = std::mem::take(&mut r.found);
        let topic = message.topic();
        let trie = if topic::is_link(&self.link_root, topic) { &r.links } else { &r.filters };
        let looked_at = trie.matches(topic, |key, sub| {
            if r.wants(key, sub, Pos(u64::MAX), &message.publisher) {
                found.push(Found::new(key, 0, sub));
            }
        });
        if !found.is_empty() {
            found.sort_unstable();
            let message = message.shared(&self.waiting);
            let bytes_max = self.inbox_bytes_max(LIVE_BYTES_MAX);
            for of_session in found.chunk_by(|a, b| a.key == b.key) {
                let Some(inbox) = r.inbox(of_session[0].key) else { continue };
                let item = merge(of_session, message.clone());
                let mut q = inbox.queue.lock();
                if q.has_room(1, LIVE_MAX, bytes_max) {
                    self.waiting.add(size_of::<Item>());
                    q.bytes += item.bytes();
                    q.items.push_back(item);
                    q.wake();
                } else {
                    self.counters.qos0_dropped.add(1);
                }
            }
        }
        let cost = cost(found.len(), looked_at);
        found.clear();
        r.found = found;
        cost
    }

    /// Routes what is committed, until the engine is gone or `stop` says so.
    pub(crate) async fn run(&self, core: &dyn Core, mut stop: watch::Receiver<bool>) {
        let mut committed = core.committed();
        loop {
            let last = *committed.borrow_and_update();
            loop {
                match self.route_some(core, last) {
                    Routed::All => break,
                    Routed::Some => tokio::task::yield_now().await,
                    Routed::Broken => tokio::time::sleep(BROKEN_PAUSE).await,
                }
            }
            tokio::select! {
                changed = committed.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    }

    fn route_some(&self, core: &dyn Core, last: Pos) -> Routed {
        let after = {
            let mut r = self.routes.lock();
            if r.filters.is_empty() {
                // Nobody listens: nothing is read. Who subscribes later starts behind `last`.
                r.routed = r.routed.max(last);
            }
            r.routed
        };
        if after >= last {
            return Routed::All;
        }
        let chunk = read_on(core, after, last, CHUNK_RECORDS, CHUNK_BYTES);
        let mut r = self.routes.lock();
        if chunk.unreadable > 0 {
            self.counters.unreadable.add(chunk.unreadable);
        }
        let mut deliveries = 0;
        for (n, entry) in chunk.entries.iter().enumerate() {
            deliveries += r.route(self, entry);
            if deliveries >= CHUNK_DELIVERIES && n + 1 < chunk.entries.len() {
                r.routed = entry.pos;
                return Routed::Some;
            }
        }
        r.routed = chunk.upto;
        match (chunk.broken, chunk.upto < last) {
            (true, _) => Routed::Broken,
            (_, true) => Routed::Some,
            _ => Routed::All,
        }
    }
}

/// Of a message, in deliveries: so many filters matched, and so many nodes of them were looked at.
fn cost(found: usize, looked_at: usize) -> usize {
    found.max(looked_at / NODES_A_DELIVERY)
}

enum Routed {
    All,
    Some,
    /// The log could not be read.
    Broken,
}

impl Found {
    fn new(key: Key, part: u8, sub: &Sub) -> Found {
        let sub = FoundSub { qos: sub.qos(), retain_as_published: sub.retain_as_published(), id: sub.id };
        Found { key, part, sub }
    }
}

impl Routes {
    fn inbox(&self, key: Key) -> Option<&Arc<Inbox>> {
        self.sessions.get(key.0 as usize)?.as_ref()
    }

    fn wants(&self, key: Key, sub: &Sub, pos: Pos, publisher: &[u8]) -> bool {
        self.inbox(key).is_some_and(|inbox| sub.wants(pos, publisher, &inbox.client))
    }

    /// What it cost, in deliveries.
    fn route(&mut self, router: &Router, entry: &crate::log::Entry) -> usize {
        let Ok((header, _)) = Header::decode(&entry.bytes) else {
            router.counters.unreadable.add(1);
            return 0;
        };
        let mut found = std::mem::take(&mut self.found);
        let mut topic = std::mem::take(&mut self.topic);
        let publisher = Meta::decode(header.door).client;
        let mut looked_at = 0;
        parts(&router.me, &header, &mut topic, |n, topic| {
            looked_at += self.filters.matches(topic, |key, sub| {
                if self.wants(key, sub, entry.pos, publisher) {
                    found.push(Found::new(key, n, sub));
                }
            });
        });
        if !found.is_empty() {
            found.sort_unstable();
            let mut made: [Option<Arc<Message>>; 3] = [None, None, None];
            // Else one that waits for a slow subscriber would keep the whole commit.
            let alone = entry.alone();
            let (header, payload) = Header::decode(&alone.bytes).expect("these bytes were decoded above");
            parts(&router.me, &header, &mut topic, |n, topic| {
                if found.iter().any(|f| f.part == n) {
                    let message = Message::of_record(&router.me, &alone, &header, payload, n, topic);
                    made[n as usize] = Some(message.shared(&router.waiting));
                }
            });
            for of_session in found.chunk_by(|a, b| a.key == b.key) {
                if let Some(inbox) = self.inbox(of_session[0].key) {
                    put(router, inbox, of_session, &made);
                }
            }
        }
        let cost = cost(found.len(), looked_at);
        found.clear();
        self.found = found;
        self.topic = topic;
        cost
    }
}

/// All messages of a record for one session go into its inbox, or none.
fn put(router: &Router, inbox: &Inbox, found: &[Found], made: &[Option<Arc<Message>>; 3]) {
    let mut q = inbox.queue.lock();
    if !q.live {
        return;
    }
    let items = found.chunk_by(|a, b| a.part == b.part).filter_map(|same| {
        let message = made[same[0].part as usize].as_ref()?;
        Some(merge(same, message.clone()))
    });
    if q.has_room(3, RECORDS_MAX, router.inbox_bytes_max(RECORD_BYTES_MAX)) {
        for item in items {
            router.waiting.add(size_of::<Item>());
            q.bytes += item.bytes();
            q.items.push_back(item);
        }
    } else if items.clone().all(|i| i.qos == 0) {
        router.counters.qos0_dropped.add(items.count() as u64);
        return;
    } else {
        q.live = false;
        router.counters.fell_behind.add(1);
    }
    q.wake();
}

/// One delivery for all matching filters of a session: the highest QoS, all identifiers.
fn merge(found: &[Found], message: Arc<Message>) -> Item {
    let qos = found.iter().map(|f| f.sub.qos).max().unwrap_or(0).min(message.qos);
    let retain = message.retain && found.iter().any(|f| f.sub.retain_as_published);
    let subscription_ids = found.iter().filter_map(|f| f.sub.id).collect();
    Item { message, qos, retain, subscription_ids, share: None, again: false }
}

/// A session's own filters, for reading the log by itself.
#[derive(Debug, Default)]
pub(crate) struct OwnFilters {
    trie: Trie<(), Sub>,
    found: Vec<Found>,
    topic: String,
    /// Nodes, for the last record.
    looked_at: usize,
}

impl OwnFilters {
    pub(crate) fn new<'a>(subs: impl Iterator<Item = (&'a str, Sub)>) -> OwnFilters {
        let mut own = OwnFilters::default();
        for (filter, sub) in subs {
            own.trie.insert(filter, (), sub);
        }
        own
    }

    pub(crate) fn insert(&mut self, filter: &str, sub: Sub) {
        self.trie.insert(filter, (), sub);
    }

    pub(crate) fn remove(&mut self, filter: &str) {
        self.trie.remove(filter, ());
    }

    /// How much of a turn the last record has cost, where a turn is so much.
    pub(crate) fn cost_of(&self, turn: usize) -> usize {
        self.looked_at * turn / WILD_LEVELS_MAX
    }

    /// The messages of a record for this session, as the router would have found them; besides, the
    /// parts whose exchange has begun, with the QoS that `begun` says, whatever the filters are now.
    pub(crate) fn items(
        &mut self,
        me: &Me,
        entry: &crate::log::Entry,
        client: &str,
        begun: impl Fn(u8) -> Option<u8>,
    ) -> Vec<Item> {
        let Ok((header, payload)) = Header::decode(&entry.bytes) else { return Vec::new() };
        let publisher = Meta::decode(header.door).client;
        let mut items = Vec::new();
        let OwnFilters { trie, found, topic, looked_at } = self;
        *looked_at = 0;
        parts(me, &header, topic, |n, topic| {
            found.clear();
            *looked_at += trie.matches(topic, |(), sub| {
                if sub.wants(entry.pos, publisher, client) {
                    found.push(Found::new(Key(0), n, sub));
                }
            });
            let begun = begun(n);
            if begun.is_some() || !found.is_empty() {
                found.sort_unstable();
                let item = merge(found, Arc::new(Message::of_record(me, entry, &header, payload, n, topic)));
                items.push(Item { qos: begun.unwrap_or(item.qos), ..item });
            }
        });
        items
    }
}

/// A live message of a publisher on this node.
pub(crate) fn live_message(topic: &str, door: &[u8], payload: Bytes, qos: u8, retain: bool, now_us: i64) -> Message {
    Message::live(topic, &Meta::decode(door), payload, qos, retain, now_us)
}
