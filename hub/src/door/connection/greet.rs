//! CONNECT: who is it, and which session does it get.

use super::super::access::{Denied, User};
use super::super::core::look_ahead;
use super::super::packet::answer::{Granted, Tongue};
use super::super::packet::control::{Connect, Refusal};
use super::super::packet::{Fault, Head, LONG, Version, kind, reason};
use super::super::route::Sub;
use super::super::seats::{Delivered, Live};
use super::super::share;
use super::super::socket::{Peer, Socket};
use super::super::users::Refused;
use super::super::{Door, WILLS_AGAIN_AFTER, settled};
use super::delivery::{Delivery, Earlier, Resumed};
use super::intake::ALIASES_MAX;
use super::{Connection, Opened};
use crate::engine::Haste;
use crate::note::Note;
use crate::state::{Session, Subscription};
use bytes::{Buf, BytesMut};
use citybrain_shared::Pos;
use citybrain_shared::limits::PACKET_BYTES_UNAUTHENTICATED_MAX;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// From the first byte to a whole CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a CONNECT of MQTT 5 begins with.
const NAME_AND_LEVEL: &[u8] = b"\0\x04MQTT\x05";

/// Read at once before the session; most CONNECTs are smaller.
const CONNECT_BYTES: usize = 512;

/// A client id is part of notes and of every record's header.
const CLIENT_ID_BYTES_MAX: usize = 512;

/// Sessions that may wait for their clients, for each connection that may be open.
const SESSIONS_PER_CONNECTION: usize = 4;

/// Messages under way to a 3.1.1 client, which cannot say how many it takes, and at most to any.
const IN_FLIGHT_MAX: u16 = 1024;

/// A client that may come in.
pub(super) struct Hello {
    pub connect: Connect,
    pub client: String,
    assigned: bool,
    pub user: User,
    /// As granted.
    pub expiry_s: u32,
}

impl Hello {
    pub(super) fn is_durable(&self) -> bool {
        self.expiry_s > 0
    }
}

/// Reads and checks the CONNECT; what came behind it stays in `input`.
///
/// # Errors
/// Why the client is turned away. It has been told, where the protocol has a word for it.
pub(super) async fn first_packet(
    door: &Door,
    socket: &mut Socket,
    peer: &Peer,
    input: &mut BytesMut,
) -> Result<Hello, &'static str> {
    let mut stop = door.stop.subscribe();
    let connect = tokio::select! {
        read = tokio::time::timeout(CONNECT_TIMEOUT, read_connect(socket, input)) => match read {
            Ok(connect) => connect?,
            Err(_) => return Err("no CONNECT came in time"),
        },
        _ = stop.wait_for(|s| *s) => return Err(super::STOPPING),
    };
    let (tongue, refused, why) = match connect {
        Ok(connect) => {
            let tongue = Tongue::of(&connect);
            match admit(door, connect, peer).await {
                Ok(hello) if connack_bytes(door, &hello) > hello.connect.packet_bytes_max => {
                    return Err("it takes no packet as large as its CONNACK");
                }
                Ok(hello) => return Ok(hello),
                Err((reason, why)) => (tongue, reason, why),
            }
        }
        Err(Refusal::Close) => return Err("it does not speak MQTT"),
        // 3.1.1's answer is understood by those before it; those after it ask again with an older.
        Err(Refusal::Level) => (Tongue::unknown(Version::V4), reason::UNSUPPORTED_VERSION, "an unknown protocol level"),
        Err(Refusal::Fault(version, fault)) => {
            let is_large = fault.reason == reason::TOO_LARGE;
            if is_large { &door.counters.oversized } else { &door.counters.malformed }.add(1);
            (Tongue::unknown(version), fault.reason, fault.what)
        }
    };
    refuse(door, socket, tongue, refused, why).await;
    Err(why)
}

/// Says why there is no session, and closes.
pub(super) async fn refuse(door: &Door, socket: &mut Socket, tongue: Tongue, reason: u8, why: &str) {
    let mut words = Vec::new();
    tongue.put_refusal(reason, why, &mut words);
    socket.say_last(&words).await;
    if !words.is_empty() {
        socket.linger(door.stop.subscribe()).await;
    }
}

async fn read_connect(socket: &mut Socket, input: &mut BytesMut) -> Result<Result<Connect, Refusal>, &'static str> {
    loop {
        if input.first().is_some_and(|b| b >> 4 != kind::CONNECT) {
            return Err("its first packet is no CONNECT");
        }
        if let Some(head) = Head::parse(input).map_err(|_| "its first packet is malformed")? {
            if head.total_bytes() > PACKET_BYTES_UNAUTHENTICATED_MAX {
                // 3.1.1 has no word for it.
                let begin = &input[head.head_bytes..input.len().min(head.head_bytes + NAME_AND_LEVEL.len())];
                if begin == NAME_AND_LEVEL {
                    let what = "a CONNECT above 64 KiB";
                    return Ok(Err(Refusal::Fault(Version::V5, Fault { reason: reason::TOO_LARGE, what })));
                } else if !NAME_AND_LEVEL.starts_with(begin) {
                    return Err("its CONNECT is too large");
                }
            }
            if input.len() >= head.total_bytes() {
                let connect = Connect::parse(&input[head.head_bytes..head.total_bytes()]);
                input.advance(head.total_bytes());
                return Ok(match connect {
                    Ok(connect) if connect.version == Version::V5 && !head.is_shortest() => {
                        Err(Refusal::Fault(Version::V5, LONG))
                    }
                    as_it_is => as_it_is,
                });
            }
        }
        input.reserve(CONNECT_BYTES);
        match socket.read_buf(input).await {
            Ok(0) | Err(_) => return Err("it left before its CONNECT"),
            Ok(_) => {}
        }
    }
}

async fn admit(door: &Door, mut connect: Connect, peer: &Peer) -> Result<Hello, (u8, &'static str)> {
    let version = connect.version;
    let no = |reason, why| Err((reason, why));
    if connect.auth_method {
        return no(reason::BAD_AUTH_METHOD, "it asks for enhanced authentication");
    }
    let user = match door.access.admit(peer, connect.user.as_deref(), connect.password.as_deref()).await {
        Ok(user) => user,
        Err(denied) => {
            door.counters.logins_failed.add(1);
            let (reason, why) = match denied {
                Denied::BadUserOrPassword => (reason::BAD_USER_OR_PASSWORD, Refused::Wrong.words()),
                Denied::TooOften => (reason::CONNECTION_RATE, Refused::TooOften.words()),
                Denied::OtherName => (reason::NOT_AUTHORIZED, "it gives another user than its certificate does"),
                Denied::NoAccount => (reason::NOT_AUTHORIZED, "its certificate names no user of the users file"),
                Denied::Anonymous => (reason::NOT_AUTHORIZED, "it gives no user, and anonymous access is off"),
            };
            return no(reason, why);
        }
    };
    let assigned = connect.client.is_empty();
    if assigned && version == Version::V4 && !connect.clean {
        return no(reason::CLIENT_ID, "a session without a client id");
    }
    if share::is_shared(&connect.client) {
        return no(reason::CLIENT_ID, "a client id that is a group's name");
    }
    if crate::state::is_own_session(&connect.client) {
        return no(reason::CLIENT_ID, "a client id that is the node's own");
    }
    if connect.client.len() > CLIENT_ID_BYTES_MAX {
        return no(reason::CLIENT_ID, "a client id of more than 512 bytes");
    }
    let client = if assigned { format!("auto-{}", uuid::Uuid::now_v7()) } else { std::mem::take(&mut connect.client) };
    let expiry_s = connect.expiry_s.min(door.broker.session_expiry_s_max);
    Ok(Hello { client, assigned, user, expiry_s, connect })
}

/// First and last of the records that the session was to get and that the log, which begins at `first`,
/// does not have any more.
fn gone(s: &Session, first: Pos) -> Option<(Pos, Pos)> {
    let since = s.filters.iter().filter(|(f, _)| !share::is_shared(f)).map(|(_, s)| s.since).min()?;
    let (from, last) = (s.upto.max(since).next(), Pos(first.0.saturating_sub(1)));
    (from <= last).then_some((from, last))
}

/// What the client is granted; `session_present` is not known before its session is opened.
fn granted<'a>(door: &Door, hello: &'a Hello, session_present: bool, lost: Option<(Pos, Pos)>) -> Granted<'a> {
    Granted {
        session_present,
        lost,
        expiry_s: Some(hello.expiry_s).filter(|s| *s != hello.connect.expiry_s),
        receive_maximum: door.broker.receive_maximum,
        // Only links may send more, and those are 3.1.1 or have a child's account.
        packet_bytes_max: u32::try_from(match hello.user.child() {
            Some(_) => door.packet_bytes_max(&hello.user),
            None => door.broker.packet_bytes_max,
        })
        .unwrap_or(u32::MAX),
        assigned_client: hello.assigned.then_some(&*hello.client),
        topic_alias_maximum: ALIASES_MAX,
        keep_alive_s: Some(keep_alive_s(door, &hello.connect)).filter(|s| *s != hello.connect.keep_alive_s),
    }
}

/// 0: none. A 3.1.1 client cannot be told another than its own.
pub(super) fn keep_alive_s(door: &Door, connect: &Connect) -> u16 {
    match (connect.version, door.broker.keep_alive_s_max, connect.keep_alive_s) {
        (Version::V4, _, asked) | (_, 0, asked) => asked,
        (_, max, 0) => max,
        (_, max, asked) => asked.min(max),
    }
}

fn connack_bytes(door: &Door, hello: &Hello) -> usize {
    let mut out = Vec::new();
    Tongue::of(&hello.connect).put_connack(&granted(door, hello, false, None), &mut out);
    out.len()
}

/// Opens or resumes the session, and answers CONNACK. `None`: that was not possible.
pub(super) async fn open<'a>(
    door: &'a Door,
    mut socket: Socket,
    input: BytesMut,
    hello: Hello,
    client: Arc<str>,
    live: Arc<Live>,
) -> Option<Connection<'a>> {
    let tongue = Tongue::of(&hello.connect);
    // The users file may have changed while the client waited for its place.
    if !door.access.is_current(&hello.user) {
        door.counters.logins_failed.add(1);
        refuse(door, &mut socket, tongue, reason::NOT_AUTHORIZED, "the user's account has changed meanwhile").await;
        return None;
    }
    let will = hello.connect.will.as_ref().and_then(|will| door.will_to_keep(&hello.user, will));
    if will.as_ref().is_some_and(|will| !door.may_leave_will(&client, will)) {
        refuse(door, &mut socket, tongue, reason::QUOTA, "the node keeps no more last wills").await;
        return None;
    }
    let mut parked = door.seats.unpark(&client);
    door.seats.nothing_ends(&client).await;
    // Its end could not be written.
    parked = parked.or_else(|| door.seats.unpark(&client));
    let (found, sessions) = look_ahead(&*door.core, |s| (s.sessions.get(&*client).cloned(), s.sessions.len()));
    // Whoever comes under another name does not get what waits for the first.
    // Without being parked it is about to be ended, because its time is over.
    let is_kept = parked.as_ref().is_some_and(|p| !p.is_over());
    let old = found.as_ref().filter(|s| !hello.connect.clean && *s.user == *hello.user.name && is_kept);
    if found.is_none() && hello.is_durable() && is_full(door, sessions) {
        refuse(door, &mut socket, tongue, reason::QUOTA, "the node keeps no more sessions").await;
        return None;
    }
    let will_before = door.seats.take_will(&client);
    if will_before.is_none() {
        // It may just be on its way: what the client says now comes behind it.
        door.seats.nothing_ends(&client).await;
    }
    let unsaid = match will_before {
        // The old session is over, and its will's delay with it.
        Some((_, left)) if old.is_none() => {
            let is_said = door.publish_will(&client, &left.user, &left.will).await;
            (!is_said).then_some((WILLS_AGAIN_AFTER, left))
        }
        before => before,
    };
    let (note, mut haste) = first_note(found.is_some(), old.is_some(), &hello, &client);
    if will.is_some() {
        haste = Haste::Now;
    }
    let will = match will {
        Some(will) => Some(Note::WillSet { client: client.to_string(), will }),
        None => door.will_ended(&client),
    };
    let notes: Vec<Note> = note.into_iter().chain(will).collect();
    if !notes.is_empty()
        && let Err(error) = settled(door.core.note(notes, haste).await).await
    {
        tracing::warn!(client = %client, %error, "A session could not be opened.");
        if let Some(parked) = parked {
            door.seats.park_again(&client, parked);
        }
        if let Some((delay, left)) = unsaid {
            door.seats.put_will(client, delay, left);
        }
        refuse(door, &mut socket, tongue, reason::IMPLEMENTATION, reason::text(reason::IMPLEMENTATION)).await;
        return None;
    }
    if old.is_none() {
        door.shares.session_ended(door, &client);
    }
    let Start { filters, received_before, lost, resumed } = match old {
        Some(s) => resume(s, parked.and_then(|p| p.delivered), door.core.first()),
        None => Start::new(*door.core.committed().borrow()),
    };
    if let Some((first, last)) = lost {
        door.counters.unreadable.add(last.0 + 1 - first.0);
        tracing::warn!(client = %client, first = first.0, last = last.0, "Records are gone that a session had not read.");
    }
    let in_flight_max = hello.connect.receive_maximum.min(IN_FLIGHT_MAX);
    let delivery = Delivery::join(door, &client, filters, resumed, in_flight_max, hello.connect.packet_bytes_max).await;
    *live.inbox.lock() = Some(delivery.inbox());
    let mut connack = Vec::new();
    tongue.put_connack(&granted(door, &hello, old.is_some(), lost), &mut connack);
    let opened = Opened { is_resumed: old.is_some(), received_before, delivery, connack };
    let mut connection = Connection::new(door, socket, input, hello, client, live, opened);
    connection.show_in_flight();
    connection.drop_forbidden();
    Some(connection)
}

/// Does the node keep as many sessions of clients as it may?
fn is_full(door: &Door, sessions: usize) -> bool {
    let sessions_max = door.broker.connections_max.saturating_mul(SESSIONS_PER_CONNECTION);
    // Those of groups and of the node itself are no client's.
    let of_clients = |c: &&String| !share::is_shared(c) && !crate::state::is_own_session(c);
    sessions >= sessions_max
        && look_ahead(&*door.core, |s| s.sessions.keys().filter(of_clients).count()) >= sessions_max
}

/// What the log is told of a session that begins, and how soon it must have it. `found`: there is one of that
/// name.
fn first_note(found: bool, is_resumed: bool, hello: &Hello, client: &str) -> (Option<Note>, Haste) {
    let opened = |clean| Note::SessionOpened {
        client: client.to_owned(),
        user: hello.user.name.to_string(),
        version: hello.connect.version.level(),
        expiry_s: hello.expiry_s,
        clean,
    };
    if is_resumed {
        (Some(opened(false)), Haste::Lazy)
    } else if hello.is_durable() {
        (Some(opened(true)), Haste::Now)
    } else {
        let ended = || Note::SessionEnded { client: client.to_owned(), why: "clean start".into() };
        (found.then(ended), Haste::Now)
    }
}

/// With what a session begins.
struct Start {
    filters: HashMap<String, Sub>,
    received_before: HashMap<u16, u32>,
    /// First and last of the records that it was to get and that are gone.
    lost: Option<(Pos, Pos)>,
    resumed: Resumed,
}

impl Start {
    /// A new session.
    fn new(committed: Pos) -> Start {
        Start { filters: HashMap::new(), received_before: HashMap::new(), lost: None, resumed: Resumed::new(committed) }
    }
}

/// A session goes on: with what the log has of it, and what this process still knows of its last connection.
/// `first` is the oldest record of the log.
fn resume(s: &Session, delivered: Option<Delivered>, first: Pos) -> Start {
    let sub = |s: &Subscription| Sub { options: s.options, id: s.id, since: s.since };
    // What retention took from it is over, and it is told.
    let lost = gone(s, first);
    let mut resumed = Resumed {
        beyond: s.beyond.clone(),
        releasing: s.releasing.iter().copied().collect(),
        loose_noted: s.loose.clone(),
        begun: s.begun.iter().map(|(pos, part, qos)| ((*pos, *part), *qos)).collect(),
        ..Resumed::new(lost.map_or(s.upto, |(_, last)| last.max(s.upto)))
    };
    match delivered {
        Some(d) => {
            resumed.given_upto = d.upto;
            resumed.earlier = d.earlier;
            resumed.releasing = d.releasing;
            resumed.begun = d.begun;
            resumed.before = d.before;
            resumed.loose = d.loose;
        }
        None => {
            resumed.given_upto = s.given;
            resumed.loose = s.loose.clone();
            // No more than this can have been under way when a process was killed.
            resumed.earlier = Earlier { upto: s.unsure, left: IN_FLIGHT_MAX.into() };
        }
    }
    Start {
        filters: s.filters.iter().map(|(f, s)| (f.clone(), sub(s))).collect(),
        received_before: s.held.iter().copied().collect(),
        lost,
        resumed,
    }
}
