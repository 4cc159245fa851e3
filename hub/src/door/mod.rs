//! The front door: MQTT 3.1.1 and 5.0 on one port, a thin layer over the log.
//!
//! **Promises**: a publish of QoS 1 or 2 is acknowledged after the fsync that covers it, in the
//! order in which the publishes came; what a subscriber must get waits in the log until it
//! acknowledges it; no client can stall or stop another, nor make the node keep more than the
//! bounds say.
//!
//! | module | what it owns |
//! |---|---|
//! | [`entrance`] | listeners, and the TLS and WebSocket handshakes |
//! | [`socket`], [`websocket`] | what a client is connected by |
//! | [`packet`] | bytes in, plain structs out, and back |
//! | [`connection`] | one client: from its CONNECT to its end |
//! | [`pending`] | what was offered to the engine and is not on disk yet |
//! | [`held`] | acknowledgements that wait for a commit |
//! | [`window`] | a session's cursor: what it was given, what of that is settled |
//! | [`feed`] | a cursor's next messages: from its inbox, or from the log |
//! | [`route`] | from the log to those who asked |
//! | [`trie`] | which filters match a topic |
//! | [`message`] | what a record says to a subscriber |
//! | [`share`] | shared subscriptions: groups that take turns |
//! | [`seats`] | who is connected, who has left a session behind |
//! | [`crowd`] | how many connections an address and a user have |
//! | [`sys`] | `$SYS/broker/…` |
//! | [`expired`] | retained messages whose time is over |
//! | [`hearing`] | retained messages of before an announcement |
//! | [`local`] | link traffic between child nodes and this one |
//! | [`access`] | users and rights |
//! | [`users`] | accounts: a file of password hashes |
//! | [`core`] | what is needed of the engine |
//! | [`counters`] | what the door has counted since its start |
//! | [`outside`] | the same node as a client of somebody else's broker |
//!
//! Deliberately absent: enhanced authentication. The door reads nothing of a payload; it
//! only checks that one which says it is UTF-8 is.

pub(crate) mod access;
pub(crate) mod connection;
pub(crate) mod core;
pub(crate) mod counters;
pub mod crowd;
pub mod entrance;
pub(crate) mod expired;
pub(crate) mod feed;
pub(crate) mod hearing;
pub(crate) mod held;
pub(crate) mod local;
pub(crate) mod message;
pub mod outside;
pub mod packet;
pub(crate) mod pending;
pub(crate) mod route;
pub(crate) mod seats;
pub(crate) mod share;
pub(crate) mod socket;
pub(crate) mod sys;
#[cfg(test)]
mod tests;
pub(crate) mod trie;
pub mod users;
pub(crate) mod websocket;
pub(crate) mod window;

use self::access::{Access, User};
use self::core::Core;
use self::counters::Counters;
use self::crowd::Crowd;
use self::entrance::Entrance;
use self::expired::Expired;
use self::message::Me;
use self::packet::control::Will;
use self::packet::publish::{Properties, UserProperties};
use self::packet::reason;
use self::route::Router;
use self::seats::{LeftWill, Seats};
use self::share::Shares;
use self::sys::Sys;
use self::trie::LEVELS_MAX;
use self::users::RefusedLogin;
use crate::engine::{Haste, Offered, Ticket};
use crate::meta;
use crate::note::{DeadLetter, LastWill, Note};
use crate::state::{Retained, State};
use citybrain_shared::record::Draft;
use citybrain_shared::{Lane, config, topic};
pub use local::{LocalClient, LocalMessage};
pub use seats::SessionView;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Makes of a publish what the log keeps.
pub trait Ingress: Send + Sync {
    fn take(&self, publish: &Publish<'_>) -> Taken;

    /// Would it be an urgent event? Nothing is taken: what it announces is not so yet.
    fn is_urgent(&self, publish: &Publish<'_>) -> bool;

    /// Topics on which something has announced itself, and of which what is retained is to be heard now. Ask each
    /// second.
    fn unheard(&self) -> Vec<String> {
        Vec::new()
    }

    /// What those who announced themselves on such a topic hear in what it retains; nothing where that is said
    /// already. An event of it is on no topic: subscribers have had the message.
    fn hear(&self, _topic: &str, _kept: &Retained) -> Vec<Offered> {
        Vec::new()
    }

    /// What came of them is committed.
    fn have_heard(&self, _topics: &[String]) {}
}

/// A publish that the client has a right to; its topic is valid and no link topic.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    pub client: &'a str,
    /// Empty: anonymous.
    pub user: &'a str,
    pub topic: &'a str,
    pub qos: u8,
    pub retain: bool,
    pub payload: &'a [u8],
    pub content_type: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
    /// MQTT 5 message expiry, s.
    pub expiry_s: Option<u32>,
    /// A last will. Its payload is as old as its CONNECT, or written into a device for ever, and tells of what
    /// happens now: an event that it makes is a new one, whatever id it says.
    pub is_will: bool,
    /// To be put into [`citybrain_shared::record::Header::door`] as it is. Where the record's
    /// payload is not what was published, [`Publish::door_with_payload`] keeps that for subscribers
    /// of the topic.
    pub door: &'a [u8],
}

impl<'a> Publish<'a> {
    /// One with QoS 1 of a client without a user, and with nothing besides.
    pub fn plain(client: &'a str, topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            client,
            user: "",
            topic,
            qos: 1,
            retain: false,
            payload,
            content_type: None,
            user_properties: UserProperties::default(),
            expiry_s: None,
            is_will: false,
            door: &[],
        }
    }

    /// `door`, with the payload as published in it. `None`: too large for a record's header.
    pub fn door_with_payload(&self) -> Option<Vec<u8>> {
        meta::with_payload(self.door, self.payload)
    }
}

/// What became of a publish.
#[derive(Clone, Debug)]
pub struct Taken {
    /// `None`: a plain QoS 0 message, which only goes to those who are there.
    pub draft: Option<Draft>,
    /// A dead letter of what could not be read in it, though the whole was taken.
    pub beside: Option<Draft>,
    /// The MQTT 5 reason code of PUBACK or PUBREC.
    pub reason: u8,
}

/// Why a publish is not taken.
struct Refusal {
    /// Of the dead letter.
    name: &'static str,
    detail: Cow<'static, str>,
    /// The MQTT 5 reason code.
    reason: u8,
}

impl Refusal {
    fn is_forbidden(&self) -> bool {
        self.reason == reason::NOT_AUTHORIZED
    }
}

/// Wills that are committed together at most, and their bytes.
const WILLS_AT_ONCE: usize = 256;
const WILLS_BYTES: usize = 1024 * 1024;

/// Those that could not be committed are tried again after so long.
const WILLS_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Connections may take so long to end when the node stops. Less than the 5 s that the node gives all its tasks, so
/// that it is the door that says so, and ends by itself.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// What is to be done about a will: committed, and then told to those who are there.
#[derive(Default)]
struct Saying {
    offered: Option<Offered>,
    live: Option<message::Message>,
    is_forbidden: bool,
}

impl Saying {
    fn lane(&self) -> Lane {
        self.offered.as_ref().map_or(Lane::Routine, Offered::lane)
    }
}

/// The front door of one node.
pub struct Door {
    core: Arc<dyn Core>,
    ingress: Arc<dyn Ingress>,
    broker: config::Broker,
    access: Access,
    link: config::Link,
    me: Arc<Me>,
    counters: Arc<Counters>,
    router: Router,
    seats: Seats,
    crowd: Crowd,
    shares: Shares,
    sys: Sys,
    links: local::Links,
    stop: watch::Sender<bool>,
}

impl Door {
    pub fn new(
        core: Arc<dyn Core>,
        ingress: Arc<dyn Ingress>,
        node: &config::Node,
        broker: &config::Broker,
        access: (&config::Access, &[config::Role]),
        link: &config::Link,
    ) -> Arc<Door> {
        let me = Arc::new(Me::new(node));
        let counters = Arc::new(Counters::default());
        let opened_at = *core.committed().borrow();
        let seats = Seats::default();
        let access = Access::new(access.0, access.1, &link.root);
        let wills = self::core::look(&*core, |s| {
            seats.park_all(s, now_us());
            lasting_wills(s, &access)
        });
        let door = Arc::new(Door {
            ingress,
            broker: broker.clone(),
            access,
            link: link.clone(),
            router: Router::new(me.clone(), counters.clone(), &link.root, broker.waiting_bytes_max, opened_at),
            me,
            counters,
            seats,
            crowd: Crowd::default(),
            shares: Shares::default(),
            sys: Sys::default(),
            links: local::Links::new(&link.root),
            stop: watch::Sender::new(false),
            core,
        });
        door.shares.open(&door);
        for (client, delay, user, will) in wills {
            door.put_will(client, delay, user, will);
        }
        door
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Accounts whose last login was refused less than `within` ago.
    pub fn refused_logins(&self, within: Duration) -> Vec<RefusedLogin> {
        self.access.refused_logins(within)
    }

    /// All sessions: connected ones, and those that wait for their client.
    pub fn sessions(&self) -> Vec<SessionView> {
        self.seats.views(&*self.core, &self.router)
    }

    /// Bytes that filters and last wills may still take.
    fn room_of_sessions(&self) -> usize {
        match self.broker.sessions_bytes_max {
            0 => usize::MAX,
            max => {
                let kept = self::core::look_ahead(&*self.core, |s| s.sessions.bytes());
                max.saturating_sub(kept + self.router.filter_bytes())
            }
        }
    }

    /// Is there room for this client's last will? It takes the place of the one that it may have had.
    fn may_leave_will(&self, client: &str, will: &LastWill) -> bool {
        let before = self::core::look_ahead(&*self.core, |s| s.sessions.wills().get(client).map_or(0, LastWill::bytes));
        will.bytes() <= self.room_of_sessions().saturating_add(before)
    }

    /// Is there room for this retained message? What is there already may always be removed, and
    /// replaced by what is no larger.
    fn may_retain(&self, topic: &str, payload: &[u8]) -> bool {
        let max = self.broker.retained_bytes_max;
        payload.is_empty()
            || max == 0
            || self::core::look_ahead(&*self.core, |s| {
                let old = s.retained.get(topic).map_or(0, |r| r.bytes(topic));
                let new = Retained::cost(topic, payload.len());
                new <= old || s.retained_bytes - old + new <= max
            })
    }

    /// Why this publish is not taken, whatever its topic means (but what is urgent, and no text though it is said to
    /// be one, is the ingress' to judge); `fits`: its MQTT 5 properties have room in a record's header.
    fn refusal(&self, user: &User, p: &Publish<'_>, is_text: bool, fits: bool) -> Option<Refusal> {
        let no = |name, detail: &'static str, reason| Some(Refusal { name, detail: detail.into(), reason });
        if !self.access.may_publish(user, p.topic) {
            let detail = match &*user.name {
                "" => "who has not logged in may not publish on this topic".into(),
                name => format!("the user `{name}` may not publish on this topic").into(),
            };
            Some(Refusal { name: "forbidden", detail, reason: reason::NOT_AUTHORIZED })
        } else if p.topic.bytes().filter(|b| *b == b'/').count() >= LEVELS_MAX {
            no("topic", "the topic has more than 128 levels", reason::TOPIC_INVALID)
        } else if is_text && std::str::from_utf8(p.payload).is_err() && !self.ingress.is_urgent(p) {
            no("payload-format", "the payload is said to be UTF-8 and is not", reason::PAYLOAD_FORMAT)
        } else if !fits {
            no("too-large", "the MQTT 5 properties are larger than 64 KiB together", reason::QUOTA)
        } else if p.retain && !self.may_retain(p.topic, p.payload) {
            let why = "the node keeps no more retained messages: publish an empty one, retained, on topics that are no longer used, or raise `retained_bytes_max`";
            no("retained", why, reason::QUOTA)
        } else {
            None
        }
    }

    /// Largest packet that this user may send, bytes.
    fn packet_bytes_max(&self, user: &User) -> usize {
        if self.access.may_be_child(user) {
            self.broker.packet_bytes_max.max(self.link_packet_bytes_max())
        } else {
            self.broker.packet_bytes_max
        }
    }

    /// A link message and its topic.
    fn link_packet_bytes_max(&self) -> usize {
        self.link.message_bytes_max + 1024
    }

    /// The note that keeps a will over the node's end. A child node's hello is not kept: the link sees
    /// for itself who is there.
    fn will_to_keep(&self, user: &User, will: &Will) -> Option<LastWill> {
        let Will { topic, payload, qos, retain, delay_s, properties } = will.clone();
        let user = user.name.to_string();
        let is_link = topic::is_link(&self.link.root, &topic);
        (!is_link).then_some(LastWill { user, topic, payload, qos, retain, delay_s, properties })
    }

    /// The note that ends what [`Door::will_to_keep`] began, if it did.
    fn will_ended(&self, client: &str) -> Option<Note> {
        let is_kept = self::core::look_ahead(&*self.core, |s| s.sessions.wills().contains_key(client));
        is_kept.then(|| Note::WillEnded { client: client.to_owned() })
    }

    /// Publishes a will as its client would have done; false: it could not be committed.
    async fn publish_will(&self, client: &str, user: &User, will: &Will) -> bool {
        let said = self.saying(client, user, will).await;
        self.say_wills(vec![said]).await
    }

    /// Publishes it, or has it tried again: its client is gone.
    async fn say_will(&self, client: &Arc<str>, user: User, will: Will) {
        if !self.publish_will(client, &user, &will).await {
            self.put_will(client.clone(), WILLS_AGAIN_AFTER, user, will);
        }
    }

    /// Has it said after `delay`, unless its client comes back before.
    fn put_will(&self, client: Arc<str>, delay: Duration, user: User, will: Will) {
        let lane = if self.is_urgent(&client, &user, &will) { Lane::Urgent } else { Lane::Routine };
        self.seats.put_will(client, delay, LeftWill { user, will, lane });
    }

    /// Commits them, all of one lane, and tells of them; false: that was not possible.
    async fn say_wills(&self, mut all: Vec<Saying>) -> bool {
        let wills: Vec<Offered> = all.iter_mut().filter_map(|s| s.offered.take()).collect();
        if !wills.is_empty()
            && let Err(error) = settled(self.core.offer(wills).await).await
        {
            tracing::warn!(%error, "Last wills could not be committed yet.");
            return false;
        }
        self.counters.wills.add(all.len() as u64);
        self.counters.forbidden.add(all.iter().filter(|s| s.is_forbidden).count() as u64);
        for message in all.into_iter().filter_map(|s| s.live) {
            self.router.live(message);
        }
        true
    }

    /// What is to be done about a will. One for a link is handed on here: the log has nothing of it.
    async fn saying(&self, client: &str, user: &User, will: &Will) -> Saying {
        let user = &*self.today(user);
        if topic::is_link(&self.link.root, &will.topic) {
            if self.access.may_link(user, &will.topic, true) {
                self.links.take_patiently(client, &will.topic, will.payload.clone().into(), will.retain).await;
            }
            return Saying::default();
        }
        self.as_published(client, user, will, |publish, refusal| {
            let is_forbidden = refusal.as_ref().is_some_and(Refusal::is_forbidden);
            let draft = match refusal {
                Some(r) => {
                    Some(dead_letter(r.name, &format!("a will: {}", r.detail), client, &will.topic, &will.payload))
                }
                None => {
                    let taken = self.ingress.take(publish);
                    // A will's record is one, with its end.
                    if taken.beside.is_some() {
                        tracing::warn!(client, topic = %will.topic, "Of a will a part that may warn cannot be read.");
                    }
                    taken.draft
                }
            };
            let live = draft.is_none().then(|| {
                let payload = will.payload.clone().into();
                route::live_message(&will.topic, publish.door, payload, will.qos, will.retain, now_us())
            });
            // Whoever waits for it reads it from the log, where its end is with it.
            let ended = self.will_ended(client).map(|n| n.draft());
            let offered = match draft {
                Some(draft) => Some(Offered { draft, with: ended }),
                None => ended.map(Offered::from),
            };
            Saying { offered, live, is_forbidden }
        })
    }

    /// Would this will be an urgent event?
    fn is_urgent(&self, client: &str, user: &User, will: &Will) -> bool {
        let is_such =
            |publish: &Publish<'_>, refusal: Option<Refusal>| refusal.is_none() && self.ingress.is_urgent(publish);
        !topic::is_link(&self.link.root, &will.topic) && self.as_published(client, &self.today(user), will, is_such)
    }

    /// Whose account has changed since has the rights of today.
    fn today<'a>(&self, user: &'a User) -> Cow<'a, User> {
        if self.access.is_current(user) { Cow::Borrowed(user) } else { Cow::Owned(self.access.formerly(&user.name)) }
    }

    /// A will as its client would have published it, and why that would not be taken.
    fn as_published<T>(
        &self,
        client: &str,
        user: &User,
        will: &Will,
        make: impl FnOnce(&Publish<'_>, Option<Refusal>) -> T,
    ) -> T {
        let properties = Properties::parse(&will.properties).unwrap_or_default();
        let mut door = Vec::new();
        let fits = meta::put(client, properties.expiry_s, |out| properties.put_forwarded(out), &mut door);
        let publish = Publish {
            client,
            user: &user.name,
            topic: &will.topic,
            qos: will.qos,
            retain: will.retain,
            payload: &will.payload,
            content_type: properties.content_type,
            user_properties: properties.user(),
            expiry_s: properties.expiry_s,
            is_will: true,
            door: &door,
        };
        make(&publish, self.refusal(user, &publish, properties.is_text, fits))
    }

    /// Many together: after a power cut each device of a house has one, and each fsync may take long. But no
    /// more: whose will still waits may come back, and takes it along.
    async fn publish_wills_due(&self, lane: Lane) {
        loop {
            let due = self.seats.wills_due(lane, WILLS_AT_ONCE, WILLS_BYTES);
            if due.is_empty() {
                return;
            }
            let mut such = Vec::new();
            for (client, left) in due {
                let said = self.saying(&client, &left.user, &left.will).await;
                if said.lane() == lane {
                    such.push(((client, left), said));
                } else {
                    // Rights or room have changed since it was left: no lane waits with the other.
                    self.seats.put_will(client.clone(), Duration::ZERO, LeftWill { lane: said.lane(), ..left });
                    self.seats.have_ended([&client].into_iter());
                }
            }
            if !self.say_due(such).await {
                return;
            }
        }
    }

    /// Those of one lane; false: they could not be committed, and are tried again.
    async fn say_due(&self, due: Vec<((Arc<str>, LeftWill), Saying)>) -> bool {
        let (due, wills): (Vec<_>, Vec<_>) = due.into_iter().unzip();
        let are_said = self.say_wills(wills).await;
        let clients: Vec<Arc<str>> = due.iter().map(|(client, _)| client.clone()).collect();
        if !are_said {
            for (client, left) in due {
                self.seats.put_will(client, WILLS_AGAIN_AFTER, left);
            }
        }
        self.seats.have_ended(clients.iter());
        are_said
    }

    async fn end_expired_sessions(&self) {
        let expired = self.seats.expired();
        if expired.is_empty() {
            return;
        }
        let ended =
            |(client, _): &(Arc<str>, _)| Note::SessionEnded { client: client.to_string(), why: "expired".into() };
        let noted = settled(self.core.note(expired.iter().map(ended).collect(), Haste::Lazy).await).await;
        if let Err(error) = &noted {
            tracing::warn!(%error, "Expired sessions could not be ended yet.");
        }
        for (client, parked) in &expired {
            match noted {
                Ok(()) => self.shares.session_ended(self, client),
                // Tried again by the next round.
                Err(_) => self.seats.park_again(client, parked.clone()),
            }
        }
        self.seats.have_ended(expired.iter().map(|(client, _)| client));
    }

    /// Those that are urgent wait for no other.
    async fn publish_all_wills_due(&self) {
        for lane in Lane::ALL {
            self.publish_wills_due(lane).await;
        }
    }

    /// Each lane is kept by itself: while one waits for room, the other goes on.
    async fn keep_wills(&self, lane: Lane, mut stop: watch::Receiver<bool>) {
        let mut tick = each_second();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            self.publish_wills_due(lane).await;
        }
    }

    /// Accounts, sessions, groups and retained messages that are due.
    async fn keep_house(&self, mut stop: watch::Receiver<bool>) {
        let mut tick = each_second();
        let mut accounts = self.access.generation();
        let mut expired = Expired::default();
        let mut tell = tokio::time::interval_at(tokio::time::Instant::now() + sys::PERIOD, sys::PERIOD);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = tell.tick() => self.sys.tell(self),
                _ = stop.wait_for(|s| *s) => return,
            }
            let now = self.access.generation();
            if now != accounts {
                accounts = now;
                // Whoever's account has changed may come back with what it now is.
                self.seats.kick_if(|user| !self.access.is_current(user), reason::ADMINISTRATIVE);
            }
            let mut notes = self.shares.sweep(self);
            let now_us = now_us();
            // The note names topic and record: what the log does not get to know of is passed over there.
            if expired.is_time(Instant::now(), now_us) {
                notes.extend(self::core::look_ahead(&*self.core, |s| expired.next(&s.retained, now_us)));
            }
            if !notes.is_empty()
                && let Err(error) = settled(self.core.note(notes, Haste::Lazy).await).await
            {
                tracing::warn!(%error, "What is over could not be forgotten.");
            }
            self.end_expired_sessions().await;
        }
    }
}

/// Serves until `shutdown` turns true or its sender is gone; then ends all connections and returns.
pub async fn serve(entrances: Vec<Entrance>, door: Arc<Door>, shutdown: watch::Receiver<bool>) {
    let mut tasks = JoinSet::new();
    let stop = door.stop.subscribe();
    {
        let (door, stop) = (door.clone(), stop.clone());
        tasks.spawn(async move { door.router.run(&*door.core, stop).await });
    }
    {
        let (door, stop) = (door.clone(), stop.clone());
        tasks.spawn(async move { door.keep_house(stop).await });
    }
    {
        let (door, stop) = (door.clone(), stop.clone());
        tasks.spawn(async move { door.keep_hearing(stop).await });
    }
    for lane in Lane::ALL {
        let (door, stop) = (door.clone(), stop.clone());
        tasks.spawn(async move { door.keep_wills(lane, stop).await });
    }
    // Before their clients can come back and say that they are well.
    door.publish_all_wills_due().await;
    let mut open = JoinSet::new();
    for entrance in entrances {
        open.spawn(entrance.serve(door.clone(), shutdown.clone()));
    }
    let mut connections: Vec<JoinSet<()>> = open.join_all().await;
    door.stop.send_replace(true);
    door.seats.kick_all(reason::SHUTTING_DOWN);
    let ended = tokio::time::timeout(STOP_WITHIN, async {
        for tasks in connections.iter_mut().chain([&mut tasks]) {
            while tasks.join_next().await.is_some() {}
        }
    });
    if ended.await.is_err() {
        tracing::warn!("Some connections did not end in time.");
    }
}

/// Ticks each second, and after a pause once.
fn each_second() -> tokio::time::Interval {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick
}

/// The wills of clients that the node's end cut off, or that were waiting then, with what is left of their
/// delay: it counts from when the client was last there, as far as the log knows.
fn lasting_wills(state: &State, access: &Access) -> Vec<(Arc<str>, Duration, User, Will)> {
    let lasting = state.sessions.wills().iter().map(|(client, will)| {
        let session = state.sessions.get(client);
        let away = Duration::from_micros(session.map_or(0, |s| now_us() - s.left_us).try_into().unwrap_or(0));
        // A session that has ended takes its will's delay with it.
        let delay = Duration::from_secs(will.delay_s.min(session.map_or(0, |s| s.expiry_s)).into());
        let LastWill { user, topic, payload, qos, retain, delay_s, properties } = will.clone();
        let will = Will { topic, payload, qos, retain, delay_s, properties };
        (client.as_str().into(), delay.saturating_sub(away), access.formerly(&user), will)
    });
    lasting.collect()
}

/// Waits for a ticket, if it was given.
async fn settled<T>(ticket: Result<Ticket<T>, crate::engine::Error>) -> Result<T, crate::engine::Error> {
    ticket?.await.unwrap_or(Err(crate::engine::Error::Stopping))
}

fn dead_letter(reason: &str, detail: &str, client: &str, topic: &str, payload: &[u8]) -> Draft {
    Note::DeadLetter(DeadLetter::new(reason, detail, format!("mqtt:{client}"), topic, payload)).draft()
}

/// The wall clock; only for expiry, which was counted by it from the commit on.
fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
