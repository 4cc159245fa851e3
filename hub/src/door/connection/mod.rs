//! One client, from its CONNECT to its end.
//!
//! | module | what it does |
//! |---|---|
//! | here | the state of a connection, its loop, its end |
//! | [`greet`] | CONNECT: who is it, which session does it get |
//! | [`intake`] | packets that come in |
//! | [`filters`] | SUBSCRIBE and UNSUBSCRIBE among them |
//! | [`delivery`] | messages that go out |
//! | [`aliases`] | topic aliases for them |
//! | [`pace`] | how fast a client may send |
//!
//! One task owns all of it, and never waits for one thing alone: reading, writing, commits,
//! messages and deadlines are polled in turn. It stops reading, which is the back-pressure towards
//! its client, exactly while the link driver's queue is full, as much waits for room in the engine's as
//! may, as many acknowledgements are held as the client was allowed, the client is faster than it may be,
//! or it does not read.

mod aliases;
mod delivery;
mod filters;
mod greet;
mod intake;
mod pace;

pub(crate) use self::aliases::Alias;
use self::aliases::Aliases;
use self::delivery::Delivery;
pub(crate) use self::delivery::{Before, Earlier};
use self::pace::Pace;
use super::access::User;
use super::crowd::Place;
use super::held::{Answer, Held};
use super::packet::answer::{Tongue, lost_text};
use super::packet::control::Will;
use super::packet::{Fault, kind, reason};
use super::pending::{Load, Pending};
use super::seats::{Live, Taken};
use super::share::Group;
use super::socket::{FAREWELL, Peer, Socket};
use super::{Door, dead_letter, settled};
use crate::engine::{Error, Haste, Offered};
use crate::note::Note;
use bytes::BytesMut;
use citybrain_shared::{Lane, Pos};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};

/// Bytes read at once: from the first to the second, as the client fills them.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 128 * 1024;

/// While more than this waits to be written, the connection reads nothing and delivers nothing.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// CONNACK has no "shutting down".
const STOPPING: &str = "the node is stopping";

/// Ends a turn: the next one comes when every other task that is ready has had its own, and the
/// sockets of all were looked at. (A task that wakes itself is run again at once, up to 61 times.)
fn yield_turn<T>(cx: &mut Context<'_>) -> Poll<T> {
    let mut turn = std::pin::pin!(tokio::task::yield_now());
    let _ = turn.as_mut().poll(cx);
    Poll::Pending
}

/// Without any news a connection wakes this often: to free its buffers and to move its cursor.
const IDLE_TICK: Duration = Duration::from_secs(30);

/// Why a connection ends.
enum End {
    /// The client closed its half: it may still listen.
    Left,
    /// The connection is broken.
    Gone,
    /// The client said so; `true`: its will is to be published all the same.
    Said { will: bool },
    /// The client broke the protocol.
    Fault(Fault),
    /// We end it: taken over, shutting down, keep-alive, unwritable.
    Closed(u8),
    /// What it was to get next, from the first to the last of these, is gone.
    Lost(Pos, Pos),
}

/// What follows when a note is written.
enum After {
    Acked,
    /// And the note's number.
    GroupAcked(Arc<Group>, u64),
    LooseIds,
    Asked(Box<filters::Asked>),
}

struct Connection<'a> {
    door: &'a Door,
    socket: Socket,
    /// What was written may still be held back by TLS or WebSocket.
    unflushed: bool,
    tongue: Tongue,
    client: Arc<str>,
    user: User,
    live: Arc<Live>,

    input: BytesMut,
    /// Whole packets are left in `input`, because the reading had to stop.
    leftover: bool,
    /// The next of them is to be taken when nothing is held any more.
    after_held: bool,
    read_bytes: usize,
    packet_bytes_max: usize,
    /// An oversized publish that is being read and thrown away.
    skip: Option<intake::Skip>,
    heard: Instant,
    /// The client last took something of what waits for it.
    wrote: Instant,
    keep_alive: Option<Duration>,
    tick: Pin<Box<Sleep>>,
    aliases: Vec<Option<Box<str>>>,
    aliases_out: Aliases,
    publish_pace: Pace,
    bytes_pace: Pace,
    /// Set while the client has been faster than it may.
    slowed: Option<Pin<Box<Sleep>>>,
    /// QoS 2 publishes of the client, received and not released.
    received: HashSet<u16>,
    /// Those of them that an earlier connection brought, with what they are recognised by: a receive maximum
    /// is one connection's.
    received_before: HashMap<u16, u32>,
    held: Held,
    /// The publishes of this read, and their answers.
    drafts: Vec<Offered>,
    answers: Vec<Answer>,
    /// Of the publishes: topics and payloads.
    batch_bytes: usize,
    /// Of the publishes that went directly, by this turn.
    deliveries: usize,
    /// Filters that come or go: some are left, and those before them are done.
    asked: Option<Box<filters::Asked>>,
    /// Some are left, wherever they are.
    asks_more: bool,
    notes: Pending<(), After>,
    /// A link message for which the driver's queue has no room yet.
    handing_on: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The last link topic on which the client spoke.
    link_topic: Option<String>,

    output: Vec<u8>,
    written: usize,

    durable: bool,
    /// The session was there before this connection.
    resumed: bool,
    expiry_s: u32,
    /// Its CONNECT has asked for a session that lasts, whatever it was granted.
    asked_to_last: bool,
    will: Option<Will>,
    delivery: Delivery,
}

/// What the session of a connection begins with.
struct Opened {
    /// It was there before.
    is_resumed: bool,
    /// See [`Connection::received_before`].
    received_before: HashMap<u16, u32>,
    delivery: Delivery,
    /// To be written first.
    connack: Vec<u8>,
}

/// A connection with what it occupies.
struct Admitted<'a> {
    connection: Connection<'a>,
    _place: Place<'a>,
    _seat: Taken<'a>,
}

impl Admitted<'_> {
    /// Gives everything back but the socket.
    fn leave(self: Box<Self>) -> Socket {
        self.connection.socket
    }
}

/// Serves one socket until its end. What comes before and after the connection itself has boxes of its
/// own: a task keeps the room of its largest moment, and most clients are idle for days.
pub(crate) async fn run(door: &Door, socket: Socket, peer: Peer, waiting: Place<'_>) {
    let ip = peer.ip;
    let admitted = Box::pin(admit(door, socket, peer)).await;
    drop(waiting);
    let Some(mut admitted) = admitted else {
        door.counters.refused.add(1);
        return;
    };
    door.counters.connects.add(1);
    let end = std::future::poll_fn(|cx| admitted.connection.poll(cx)).await;
    let was_told = Box::pin(admitted.connection.end(end)).await;
    let mut socket = admitted.leave();
    // It is nobody's any more, and counts as those do that have not said who they are.
    if was_told && let Ok(_waiting) = door.crowd.wait(ip, &door.broker) {
        Box::pin(socket.linger(door.stop.subscribe())).await;
    }
}

/// From the first byte to the CONNACK; `None`: it was turned away, and told why where it may be.
async fn admit(door: &Door, mut socket: Socket, peer: Peer) -> Option<Box<Admitted<'_>>> {
    let mut input = BytesMut::new();
    let hello = match greet::first_packet(door, &mut socket, &peer, &mut input).await {
        Ok(hello) => hello,
        Err(why) => {
            tracing::debug!(peer = %peer.ip, why, "Turned a connection away before its session.");
            return None;
        }
    };
    let client: Arc<str> = hello.client.as_str().into();
    let live = Live::new(hello.user.clone(), hello.connect.version.level(), hello.is_durable());
    let (seat, took_over) = door.seats.take(&client, &live, reason::TAKEN_OVER).await;
    if took_over {
        door.counters.taken_over.add(1);
    }
    // Whoever had a seat when the node began to stop is told so by that; who took one since is told here, and so
    // is who was still waiting for his.
    if *door.stop.borrow() {
        greet::refuse(door, &mut socket, Tongue::of(&hello.connect), reason::UNAVAILABLE, STOPPING).await;
        return None;
    }
    if live.is_kicked() {
        tracing::debug!(client = %client, "A newer connection of the same client came while this one waited.");
        return None;
    }
    // Only now, so that whoever takes its own session over is not in its own way.
    let place = match door.crowd.enter(peer.ip, &hello.user.name, &door.broker) {
        Ok(place) => place,
        Err(limit) => {
            tracing::debug!(client = %client, peer = %peer.ip, limit, "Turned a connection away: too many of its kind.");
            greet::refuse(door, &mut socket, Tongue::of(&hello.connect), reason::QUOTA, limit).await;
            return None;
        }
    };
    let connection = greet::open(door, socket, input, hello, client, live).await?;
    Some(Box::new(Admitted { connection, _place: place, _seat: seat }))
}

impl<'a> Connection<'a> {
    /// `input`: what came behind the CONNECT.
    fn new(
        door: &'a Door,
        socket: Socket,
        input: BytesMut,
        hello: greet::Hello,
        client: Arc<str>,
        live: Arc<Live>,
        opened: Opened,
    ) -> Connection<'a> {
        let keep_alive = match greet::keep_alive_s(door, &hello.connect) {
            0 => None,
            s => Some(Duration::from_millis(u64::from(s) * 1500)),
        };
        let first_tick = keep_alive.map_or(IDLE_TICK, |k| k.min(IDLE_TICK));
        let now = Instant::now();
        Connection {
            door,
            socket,
            unflushed: false,
            tongue: Tongue::of(&hello.connect),
            client,
            live,
            // It may be whole packets.
            leftover: !input.is_empty(),
            after_held: false,
            // Else it would hold its memory for as long as the client says nothing.
            input: if input.is_empty() { BytesMut::new() } else { input },
            read_bytes: READ_BYTES_MIN,
            packet_bytes_max: door.packet_bytes_max(&hello.user),
            skip: None,
            heard: now,
            wrote: now,
            keep_alive,
            tick: Box::pin(tokio::time::sleep(first_tick)),
            aliases: Vec::new(),
            aliases_out: Aliases::new(hello.connect.topic_alias_maximum),
            publish_pace: Pace::new(door.broker.client_publishes_per_s_max, now),
            bytes_pace: Pace::new(door.broker.client_bytes_per_s_max, now),
            slowed: None,
            received: opened.received_before.keys().copied().collect(),
            received_before: opened.received_before,
            held: Default::default(),
            drafts: Vec::new(),
            answers: Vec::new(),
            batch_bytes: 0,
            deliveries: 0,
            asked: None,
            asks_more: false,
            notes: Pending::default(),
            handing_on: None,
            link_topic: None,
            output: opened.connack,
            written: 0,
            durable: hello.is_durable() || opened.is_resumed,
            resumed: opened.is_resumed,
            expiry_s: hello.expiry_s,
            asked_to_last: hello.connect.expiry_s > 0,
            user: hello.user,
            will: hello.connect.will,
            delivery: opened.delivery,
        }
    }
}

impl Connection<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(reason) = self.live.poll_kicked(cx) {
            return Poll::Ready(End::Closed(reason));
        }
        let mut moved = false;
        match self.poll_round(cx, &mut moved) {
            Err(end) => Poll::Ready(end),
            Ok(()) if moved => yield_turn(cx),
            Ok(()) => self.poll_tick(cx),
        }
    }

    /// Everything that can go on without waiting; `moved`: something did.
    fn poll_round(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Result<(), End> {
        self.poll_slowed(cx);
        self.poll_offers(cx, moved);
        if self.may_read() && !self.leftover {
            match self.poll_read(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(0)) => return Err(End::Left),
                Poll::Ready(Ok(n)) => {
                    *moved = true;
                    self.door.counters.bytes_in.add(n as u64);
                    self.heard = Instant::now();
                    self.bytes_pace.take(n as u64, self.heard);
                }
                Poll::Ready(Err(_)) => return Err(End::Gone),
            }
        }
        if self.may_read() {
            // What was left over may be half a packet: then the socket must be asked again.
            let was_left = self.leftover;
            *moved |= self.take_packets()? || was_left;
            self.slow_down(cx);
        }
        self.poll_offers(cx, moved);
        self.poll_held(cx, moved)?;
        self.poll_notes(cx, moved)?;
        if let Some(asked) = self.asked.take() {
            self.ask(asked);
            *moved = true;
        }
        *moved |= self.note_cursor(false);
        if self.deliver(cx) {
            *moved = true;
        }
        // What goes with QoS 0 is over before it is on the wire: it comes at most once.
        self.jot();
        if let Some((first, last)) = self.delivery.take_lost() {
            return Err(End::Lost(first, last));
        }
        self.poll_write(cx, moved)
    }

    /// A client that was faster than it may be is not read until its rate allows it.
    fn slow_down(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        if let Some(at) = self.publish_pace.wait_until(now).max(self.bytes_pace.wait_until(now)) {
            self.door.counters.slowed.add(1);
            self.slowed = Some(Box::pin(tokio::time::sleep_until(at)));
            self.poll_slowed(cx);
        } else if self.leftover {
            // Taking them took as long as they had to wait; the rest waits for no news from the socket.
            self.heard = now;
        }
    }

    fn poll_slowed(&mut self, cx: &mut Context<'_>) {
        if self.slowed.as_mut().is_some_and(|s| s.as_mut().poll(cx).is_ready()) {
            self.slowed = None;
            self.heard = Instant::now();
        }
    }

    fn may_read(&self) -> bool {
        !self.is_held_up()
            && (!self.after_held || self.held.is_empty())
            && self.slowed.is_none()
            && self.output.len() - self.written < OUTPUT_BYTES_MAX
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        // Room grows with what came, not with what a packet's header promises.
        let want = self.read_bytes.max(self.input.len().min(READ_BYTES_MAX));
        let read = self.socket.poll_input(cx, &mut self.input, want);
        if let Poll::Ready(Ok(n)) = &read {
            self.read_bytes = if *n == want { (want * 2).min(READ_BYTES_MAX) } else { self.read_bytes };
        }
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Result<(), End> {
        while self.written < self.output.len() {
            match self.socket.poll_output(cx, &self.output[self.written..]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::Gone),
                Poll::Ready(Ok(n)) => {
                    *moved = true;
                    self.written += n;
                    self.wrote = Instant::now();
                    self.unflushed = true;
                    self.door.counters.bytes_out.add(n as u64);
                }
            }
        }
        self.output.clear();
        self.written = 0;
        if self.unflushed {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(End::Gone),
            }
        }
        Ok(())
    }

    fn poll_offers(&mut self, cx: &mut Context<'_>, moved: &mut bool) {
        if let Some(handing) = &mut self.handing_on
            && handing.as_mut().poll(cx).is_ready()
        {
            self.handing_on = None;
            *moved = true;
        }
        *moved |= self.held.poll_room(cx);
        *moved |= self.notes.poll_room(cx);
    }

    fn poll_held(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Result<(), End> {
        let received = &mut self.received;
        loop {
            let done = self.held.poll(self.tongue, cx, &mut self.output, |failed| {
                // Not kept, so when it comes again it is a first time.
                if failed.kind == kind::PUBREC {
                    received.remove(&failed.id);
                }
            });
            match done {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => *moved = true,
                Poll::Ready(Err(error)) => return Err(self.unwritable(&error)),
            }
        }
    }

    fn unwritable(&self, error: &Error) -> End {
        match error {
            Error::Stopping => End::Closed(reason::SHUTTING_DOWN),
            Error::Unwritable(_) | Error::TooLarge(_) => {
                tracing::warn!(client = %self.client, %error, "Ended a connection that cannot be told of a failed commit.");
                End::Closed(reason::IMPLEMENTATION)
            }
        }
    }

    fn poll_notes(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Result<(), End> {
        while let Poll::Ready((after, done)) = self.notes.poll_next(cx) {
            *moved = true;
            let written = match done {
                Ok(()) => true,
                Err(Error::Unwritable(_)) => false,
                Err(error) => return Err(self.unwritable(&error)),
            };
            match after {
                After::Acked => self.delivery.cursor_was_noted(written),
                After::GroupAcked(group, number) => group.was_noted(number, written),
                After::LooseIds => self.delivery.loose_were_noted(written),
                After::Asked(asked) => self.was_asked(asked, written),
            }
        }
        Ok(())
    }

    fn offer_note(&mut self, notes: Vec<Note>, haste: Haste, after: After) {
        let load = Load { records: notes.len(), bytes: 0 };
        self.notes.push(Lane::Routine, load, self.door.core.note(notes, haste), after);
    }

    /// The last thing before the task sleeps.
    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.tick.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        let mut next = IDLE_TICK;
        // A client that we do not read cannot be blamed for its silence, unless it does not read either.
        let is_stuck = self.output.len() - self.written >= OUTPUT_BYTES_MAX;
        if let Some(limit) = self.keep_alive {
            let silent = now.duration_since(if is_stuck { self.heard.max(self.wrote) } else { self.heard });
            if silent >= limit && (is_stuck || self.may_read()) {
                self.door.counters.keep_alive_timeouts.add(1);
                return Poll::Ready(End::Closed(reason::KEEP_ALIVE));
            }
            next = next.min(limit.checked_sub(silent).filter(|left| !left.is_zero()).unwrap_or(limit));
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
            self.read_bytes = READ_BYTES_MIN;
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
        self.delivery.free_room();
        self.note_cursor(true);
        self.tick.as_mut().reset(now + next);
        // Polled once more, so that the deadline knows whom to wake.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What the client asked and does not know yet. Ready when all is said, or nothing more can be.
    fn poll_last_answers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            self.poll_offers(cx, &mut moved);
            let going = self.poll_held(cx, &mut moved).and(self.poll_notes(cx, &mut moved));
            self.put_pubrels(cx);
            if going.and_then(|()| self.poll_write(cx, &mut moved)).is_err() {
                return Poll::Ready(());
            }
            if let Some(asked) = self.asked.take() {
                self.ask(asked);
                return yield_turn(cx);
            }
        }
        let is_all = self.held.is_empty() && self.notes.is_empty() && self.output.is_empty();
        if is_all { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Leaves everything in order: what was taken is offered, the session is parked, the will said.
    /// True: the client was told why, and may not have read it yet.
    async fn end(&mut self, end: End) -> bool {
        let door = self.door;
        let says_will = match &end {
            End::Said { will: false } => {
                self.will = None;
                false
            }
            // The next start says it.
            End::Closed(reason::SHUTTING_DOWN) => false,
            End::Said { will: true } | End::Closed(_) | End::Left | End::Gone | End::Fault(_) | End::Lost(..) => true,
        };
        let last_word = match &end {
            End::Left => {
                let _ = tokio::time::timeout(FAREWELL, std::future::poll_fn(|cx| self.poll_last_answers(cx))).await;
                None
            }
            End::Gone | End::Said { .. } => None,
            End::Fault(fault) => {
                door.counters.malformed.add(1);
                tracing::debug!(client = %self.client, %fault, "A client broke the protocol.");
                Some((fault.reason, fault.what.into()))
            }
            End::Closed(reason) => Some((*reason, reason::text(*reason).into())),
            End::Lost(first, last) => Some((reason::QUOTA, lost_text(*first, *last))),
        };
        let was_told = last_word.is_some();
        if let Some((reason, why)) = last_word {
            self.tongue.put_disconnect(reason, &why, &mut self.output);
            let rest = self.output.split_off(self.written);
            self.socket.say_last(&rest).await;
        } else if matches!(self.socket, Socket::Wrapped(_)) {
            // TLS and WebSocket have a goodbye of their own.
            self.socket.say_last(&[]).await;
        }
        let has_none = self.will.is_none();
        let mut will = self.will.take().filter(|_| says_will);
        // It waits for no room with what is not urgent.
        if let Some(urgent) = will.take_if(|will| door.is_urgent(&self.client, &self.user, will)) {
            self.held.offered(Lane::Urgent).await;
            self.leave_will(urgent).await;
        }
        // A publish directly before the end, with nobody left to hear its answer, counts as well.
        self.held.all_offered().await;
        self.notes.all_offered().await;
        // The session's notes overtake what is urgent, or the other way round: the next connection must find the ids
        // of what it has brought. If the disk stands, so does the note of its leaving.
        if self.durable {
            self.held.settle().await;
        }
        if let Some(handing) = self.handing_on.take() {
            handing.await;
        }
        let groups = self.delivery.leave(door, &self.client, self.durable && self.expiry_s > 0).await;
        if !groups.is_empty() {
            let haste = if groups.iter().any(|(_, n)| n.haste == Haste::Now) { Haste::Now } else { Haste::Lazy };
            let notes = groups.iter().map(|(_, n)| n.note.clone()).collect();
            let noted = settled(door.core.note(notes, haste).await).await;
            if let Err(error) = &noted {
                tracing::warn!(client = %self.client, %error, "A group's cursor could not be noted.");
            }
            groups.iter().for_each(|(group, n)| group.was_noted(n.number, noted.is_ok()));
        }
        if self.durable {
            self.leave_session().await;
        }
        if has_none
            && let Some(note) = door.will_ended(&self.client)
            && let Err(error) = settled(door.core.note(vec![note], Haste::Lazy).await).await
        {
            tracing::warn!(client = %self.client, %error, "A will that was taken back could not be forgotten.");
        }
        if let Some(will) = will {
            self.leave_will(will).await;
        }
        if let Some(topic) = self.link_topic.take() {
            door.links.closed(&self.client, topic).await;
        }
        was_told
    }

    /// Said, or left to wait for its time.
    async fn leave_will(&mut self, will: Will) {
        // A session that ends takes its will's delay with it.
        match will.delay_s.min(self.expiry_s) {
            0 => self.door.say_will(&self.client, self.user.clone(), will).await,
            s => {
                let delay = Duration::from_secs(s.into());
                self.door.put_will(self.client.clone(), delay, self.user.clone(), will);
            }
        }
    }

    async fn leave_session(&mut self) {
        let client = self.client.to_string();
        let (mut notes, mut haste, mut loose) = (Vec::new(), Haste::Lazy, None);
        if self.expiry_s == 0 {
            self.door.shares.session_ended(self.door, &self.client);
            notes.push(Note::SessionEnded { client, why: "its client left and asked for no more".into() });
        } else {
            if let Some(cursor) = self.delivery.cursor_to_note() {
                notes.push(cursor.note(client.clone()));
            }
            loose = self.delivery.loose_at_end().map(|ids| Note::LooseIds { client: client.clone(), ids });
            // The next connection sends PUBREL at once.
            haste = self.delivery.note_haste();
            let delivered = self.delivery.delivered();
            let (given, unsure) = (delivered.upto, delivered.earlier.unsure());
            notes.push(Note::SessionLeft { client, expiry_s: self.expiry_s, given, unsure });
            self.door.seats.park(&self.client, self.expiry_s, delivered);
        }
        // Written, though perhaps not yet synced, before the next connection may take the session.
        if let Err(error) = settled(self.door.core.note(notes, haste).await).await {
            tracing::warn!(client = %self.client, %error, "A session's end could not be noted.");
        }
        // By itself, since a disk that is nearly full takes the others: without it some ids are released in vain.
        if let Some(note) = loose {
            let _ = settled(self.door.core.note(vec![note], Haste::Lazy).await).await;
        }
    }

    fn jot(&mut self) {
        if self.durable
            && let Some(upto) = self.delivery.take_jot()
        {
            self.door.core.jot(&self.client, upto);
        }
    }

    /// Notes how far the client has acknowledged; `idle`: also how far there was nothing for it.
    /// True: there is an offer to be polled.
    fn note_cursor(&mut self, idle: bool) -> bool {
        self.jot();
        if self.notes.waiting().records > 0 {
            return false;
        }
        let of_group = self.delivery.groups().find_map(|g| g.to_note(&self.client, idle).map(|n| (g.clone(), n)));
        if let Some((group, n)) = of_group {
            self.offer_note(vec![n.note], n.haste, After::GroupAcked(group, n.number));
            return true;
        }
        if !self.durable {
            return false;
        }
        // Of ids that are over it is enough to tell when there is nothing else: the disk may take the cursor alone.
        if idle {
            self.note_acked(true) || self.note_loose(true)
        } else {
            self.note_loose(false) || self.note_acked(false)
        }
    }

    fn note_loose(&mut self, idle: bool) -> bool {
        let Some((ids, haste)) = self.delivery.loose_to_note(idle) else { return false };
        self.offer_note(vec![Note::LooseIds { client: self.client.to_string(), ids }], haste, After::LooseIds);
        true
    }

    fn note_acked(&mut self, idle: bool) -> bool {
        if !self.delivery.may_note(&self.door.router, idle) {
            return false;
        }
        let Some(cursor) = self.delivery.cursor_to_note() else { return false };
        let haste = self.delivery.note_haste();
        self.offer_note(vec![cursor.note(self.client.to_string())], haste, After::Acked);
        true
    }

    fn refuse(&mut self, reason: &str, detail: &str, topic: &str, payload: &[u8]) {
        self.put_draft(dead_letter(reason, detail, &self.client, topic, payload));
    }

    fn show_in_flight(&self) {
        self.live.in_flight.store(self.delivery.in_flight(), Ordering::Relaxed);
        self.live.fetched.store(self.delivery.fetched(), Ordering::Relaxed);
        self.live.filters.store(self.delivery.filters_len(), Ordering::Relaxed);
    }
}
