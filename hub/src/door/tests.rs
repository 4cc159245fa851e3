//! The door over real sockets, with an engine in memory behind it.

use super::core::Core as _;
use super::fake::{Fake, Plain};
use super::packet::{Ack, Head, Version, kind, publish, put_ack};
use super::*;
use crate::note::Note;
use bytes::{Buf, Bytes, BytesMut};
use citybrain_shared::Pos;
use citybrain_shared::record::{Header, Kind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

mod groups;
mod model;
mod refusals;
mod retained;
mod rights;
mod wills;

const PATIENCE: Duration = Duration::from_secs(5);

/// A door that serves until it is dropped.
struct House {
    door: Arc<Door>,
    at: SocketAddr,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

fn node() -> config::Node {
    config::Node {
        address: citybrain_shared::Address::parse("c").unwrap(),
        name: String::new(),
        tier: None,
        code: None,
        labels: Default::default(),
        data: PathBuf::new(),
    }
}

impl House {
    async fn open(fake: &Fake) -> House {
        House::with(fake, config::Broker::default(), config::Access::default()).await
    }

    async fn with(fake: &Fake, broker: config::Broker, access: config::Access) -> House {
        House::with_roles(fake, broker, access, &[]).await
    }

    async fn with_roles(fake: &Fake, broker: config::Broker, access: config::Access, roles: &[config::Role]) -> House {
        let link = config::Link::default();
        let door = Door::new(Arc::new(fake.clone()), Arc::new(Plain), &node(), &broker, (&access, roles), &link);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, shutdown) = watch::channel(false);
        let serving = tokio::spawn(serve(vec![Entrance::plain(listener)], door.clone(), shutdown));
        House { door, at, stop, serving }
    }

    /// As a kill does: no connection ends in order.
    async fn kill(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }

    async fn close(self) {
        self.stop.send_replace(true);
        self.serving.await.unwrap();
    }

    async fn client(&self, version: Version, id: &str, clean: bool) -> Client {
        let (client, connack) = self.connect(version, id, clean, &[]).await;
        assert_eq!(connack[1], 0, "{connack:x?}");
        client
    }

    async fn dial(&self, version: Version) -> Client {
        let socket = TcpStream::connect(self.at).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket, input: BytesMut::new(), version }
    }

    /// `tail`: what comes behind the client id. The CONNACK's body is returned.
    async fn connect(&self, version: Version, id: &str, clean: bool, tail: &[u8]) -> (Client, Vec<u8>) {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version.level()];
        let user = if tail.is_empty() { 0 } else { 0xc0 };
        body.extend([user | if clean { 2 } else { 0 }, 0, 60]);
        if version == Version::V5 {
            // Session expiry 100 s, unless clean.
            let expiry: &[u8] = if clean { &[0] } else { &[5, 0x11, 0, 0, 0, 100] };
            body.extend_from_slice(expiry);
        }
        put_text(id, &mut body);
        body.extend_from_slice(tail);
        let mut client = self.dial(version).await;
        client.send(0x10, &body).await;
        let (first, connack) = client.packet().await.unwrap();
        assert_eq!(first, 0x20);
        (client, connack)
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

struct Client {
    socket: TcpStream,
    input: BytesMut,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    topic: String,
    payload: String,
    qos: u8,
    dup: bool,
    retain: bool,
    id: u16,
}

impl Client {
    async fn send(&mut self, first: u8, body: &[u8]) {
        let mut out = vec![first];
        let mut n = body.len();
        loop {
            let low = (n & 0x7f) as u8;
            n >>= 7;
            out.push(low | if n > 0 { 0x80 } else { 0 });
            if n == 0 {
                break;
            }
        }
        out.extend_from_slice(body);
        self.socket.write_all(&out).await.unwrap();
    }

    /// `None`: the connection is closed.
    async fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(head) = Head::parse(&self.input).unwrap_or_else(|_| panic!("{:x?}", &self.input[..]))
                && self.input.len() >= head.total_bytes()
            {
                let first = self.input[0];
                self.input.advance(head.head_bytes);
                return Some((first, self.input.split_to(head.body_bytes).to_vec()));
            }
            match timeout(PATIENCE, self.socket.read_buf(&mut self.input)).await.expect("a packet should come") {
                Ok(n) if n > 0 => {}
                _ => return None,
            }
        }
    }

    /// Nothing comes for a while.
    async fn hears_nothing(&mut self) {
        let silence = Duration::from_millis(80);
        if let Ok(p) = timeout(silence, self.packet()).await {
            panic!("{p:x?}");
        }
    }

    async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, id: u16, retain: bool) {
        let mut out = Vec::new();
        let p = publish::Out {
            dup: false,
            qos,
            retain,
            topic,
            alias: None,
            id,
            forwarded: &[],
            content_type: None,
            expiry_s: None,
            subscription_ids: &[],
            payload: [payload, &[], &[]],
        };
        p.put(self.version, &mut out);
        self.socket.write_all(&out).await.unwrap();
    }

    async fn ack(&mut self, kind: u8, id: u16) {
        let mut out = Vec::new();
        put_ack(self.version, kind, id, 0, &mut out);
        self.socket.write_all(&out).await.unwrap();
    }

    /// The next packet is this acknowledgement.
    async fn acked(&mut self, kind: u8, id: u16) -> u8 {
        let (first, body) = self.packet().await.expect("an acknowledgement");
        let ack = Ack::parse(self.version, first >> 4, &body).unwrap();
        assert_eq!((first >> 4, ack.id), (kind, id));
        ack.reason
    }

    async fn publish_acked(&mut self, topic: &str, payload: &[u8], id: u16) {
        self.publish(topic, payload, 1, id, false).await;
        self.acked(kind::PUBACK, id).await;
    }

    async fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        let mut body = vec![0, 9];
        if self.version == Version::V5 {
            body.push(0);
        }
        put_text(filter, &mut body);
        body.push(options);
        self.send(0x82, &body).await;
        let (first, body) = self.packet().await.expect("a SUBACK");
        assert_eq!((first, &body[..2]), (0x90, &[0, 9][..]));
        *body.last().unwrap()
    }

    async fn got(&mut self) -> Got {
        let (first, body) = self.packet().await.expect("a message");
        assert_eq!(first >> 4, kind::PUBLISH, "{first:x} {body:x?}");
        got(self.version, first, &body)
    }

    async fn got_and_acked(&mut self) -> String {
        let got = self.got().await;
        assert_eq!(got.qos, 1);
        self.ack(kind::PUBACK, got.id).await;
        got.payload
    }

    /// Reads until the connection ends; the last DISCONNECT's reason.
    async fn is_closed(&mut self) -> Option<u8> {
        let mut reason = None;
        while let Some((first, body)) = self.packet().await {
            if first == 0xe0 {
                reason = body.first().copied();
            }
        }
        reason
    }

    async fn leaves(mut self) {
        self.send(0xe0, &[]).await;
        self.is_closed().await;
    }
}

fn parse_publish(version: Version, flags: u8, body: &[u8]) -> publish::In<'_> {
    publish::In::parse(version, flags, body).unwrap()
}

fn got(version: Version, first: u8, body: &[u8]) -> Got {
    let p = parse_publish(version, first & 15, body);
    Got {
        topic: p.topic.to_owned(),
        payload: String::from_utf8(p.payload.to_vec()).unwrap(),
        qos: p.qos,
        dup: p.dup,
        retain: p.retain,
        id: p.id,
    }
}

async fn until(what: &str, mut yes: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !yes() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const BOTH: [Version; 2] = [Version::V4, Version::V5];

#[tokio::test]
async fn an_acknowledgement_waits_for_the_commit_and_pings_do_not() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut c = house.client(version, "a", true).await;
        fake.hold();
        for id in 1..=5 {
            c.publish("x", b"1", 1, id, false).await;
        }
        c.send(0xc0, &[]).await;
        assert_eq!(c.packet().await.unwrap().0, 0xd0);
        c.hears_nothing().await;
        fake.release();
        for id in 1..=5 {
            assert_eq!(c.acked(kind::PUBACK, id).await, 0);
        }
        house.close().await;
    }
}

#[tokio::test]
async fn one_read_is_one_offer() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V4, "a", true).await;
    let mut out = Vec::new();
    for id in 1..=100u16 {
        let p = publish::Out {
            dup: false,
            qos: 1,
            retain: false,
            topic: "x",
            alias: None,
            id,
            forwarded: &[],
            content_type: None,
            expiry_s: None,
            subscription_ids: &[],
            payload: [b"1", &[], &[]],
        };
        p.put(Version::V4, &mut out);
    }
    c.socket.write_all(&out).await.unwrap();
    for id in 1..=100 {
        c.acked(kind::PUBACK, id).await;
    }
    assert!(fake.offers() <= 2, "{}", fake.offers());
    house.close().await;
}

#[tokio::test]
async fn a_failed_commit_is_a_reason_code_or_the_end_but_never_success() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut five = house.client(Version::V5, "five", true).await;
    let mut four = house.client(Version::V4, "four", true).await;
    fake.break_disk(true);
    five.publish("x", b"1", 1, 7, false).await;
    assert_eq!(five.acked(kind::PUBACK, 7).await, 0x83);
    four.publish("x", b"1", 1, 7, false).await;
    assert_eq!(four.packet().await, None);
    fake.break_disk(false);
    five.publish_acked("x", b"1", 7).await;
    house.close().await;
}

#[tokio::test]
async fn a_cursor_that_cannot_be_noted_is_tried_again_with_the_next_acknowledgement_and_not_before() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V5, "s", false).await;
    s.subscribe("x", 1).await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.publish_acked("x", b"1", 1).await;
    fake.break_disk(true);
    s.got_and_acked().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(fake.offers() < 10, "{}", fake.offers());
    fake.break_disk(false);
    p.publish_acked("x", b"2", 2).await;
    s.got_and_acked().await;
    let committed = fake.committed();
    until("the cursor is noted", || fake.session("s").unwrap().upto.next() == *committed.borrow()).await;
    house.close().await;
}

#[tokio::test]
async fn messages_reach_subscribers_of_both_versions() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V4, "p", true).await;
    for version in BOTH {
        let mut s = house.client(version, "s", true).await;
        assert_eq!(s.subscribe("in/+", 1).await, 1);
        assert_eq!(s.subscribe("events/#", 0).await, 0);
        p.publish_acked("in/a", b"{\"id\":\"1\"}", 1).await;
        let as_published = s.got().await;
        assert_eq!((as_published.qos, as_published.payload.as_str()), (1, "{\"id\":\"1\"}"));
        let event = s.got().await;
        assert_eq!((event.qos, event.topic.as_str()), (0, "events/t"));
        assert_eq!(event.payload, "{\"origin\":\"c\",\"id\":\"1\"}");
        p.publish("in/b", b"not json", 1, 2, false).await;
        p.acked(kind::PUBACK, 2).await;
        s.hears_nothing().await;
        s.leaves().await;
    }
    house.close().await;
}

#[tokio::test]
async fn qos0_is_live_and_overlapping_filters_deliver_once_with_the_highest_qos() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", true).await;
    s.subscribe("x/#", 0).await;
    s.subscribe("x/+", 2).await;
    s.subscribe("x/y", 1).await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.publish("x/y", b"0", 0, 0, false).await;
    assert_eq!(s.got().await.qos, 0);
    p.publish_acked("x/y", b"1", 1).await;
    assert_eq!(s.got().await.qos, 1);
    s.hears_nothing().await;
    assert!(fake.notes().is_empty());
    house.close().await;
}

#[tokio::test]
async fn a_durable_session_gets_what_it_missed_once_and_in_order() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut s = house.client(version, "s", false).await;
        s.subscribe("x", 1).await;
        let mut p = house.client(version, "p", true).await;
        p.publish_acked("x", b"1", 1).await;
        assert_eq!(s.got_and_acked().await, "1");
        s.leaves().await;
        p.publish_acked("x", b"2", 2).await;
        p.publish_acked("y", b"-", 3).await;
        p.publish_acked("x", b"3", 4).await;
        let (mut s, connack) = house.connect(version, "s", false, &[]).await;
        assert_eq!(connack[..2], [1, 0]);
        let two = s.got().await;
        assert_eq!((two.payload.as_str(), two.dup), ("2", false));
        let three = s.got().await;
        assert_eq!(three.payload, "3");
        // Acknowledged out of order, and gone.
        s.ack(kind::PUBACK, three.id).await;
        until("the acknowledgement is noted", || fake.session("s").unwrap().beyond.len() == 1).await;
        drop(s);
        let (mut s, _) = house.connect(version, "s", false, &[]).await;
        assert_eq!(s.got().await, Got { dup: true, ..two.clone() });
        s.hears_nothing().await;
        // Another process over the same log.
        house.close().await;
        let house = House::open(&fake).await;
        let (mut s, connack) = house.connect(version, "s", false, &[]).await;
        assert_eq!(connack[..2], [1, 0]);
        assert_eq!(s.got().await, Got { dup: true, ..two });
        // Subscribing again does not move the cursor.
        assert_eq!(s.subscribe("x", 1).await, 1);
        let mut p = house.client(version, "p", true).await;
        p.publish_acked("x", b"4", 1).await;
        assert_eq!(s.got_and_acked().await, "4");
        house.close().await;
    }
}

#[tokio::test]
async fn a_clean_start_forgets_and_another_user_inherits_nothing() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", false).await;
    s.subscribe("x", 1).await;
    s.leaves().await;
    let mut p = house.client(Version::V4, "p", true).await;
    p.publish_acked("x", b"1", 1).await;
    let mut as_bob = Vec::new();
    put_text("bob", &mut as_bob);
    put_text("", &mut as_bob);
    let (mut s, connack) = house.connect(Version::V4, "s", false, &as_bob).await;
    assert_eq!(connack, [0, 0]);
    s.hears_nothing().await;
    drop(s);
    let (_s, connack) = house.connect(Version::V4, "s", true, &as_bob).await;
    assert_eq!(connack, [0, 0]);
    assert!(fake.session("s").is_none());
    house.close().await;
}

#[tokio::test]
async fn a_slow_subscriber_reads_on_in_the_log_and_misses_nothing() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V5, "s", true).await;
    s.subscribe("x/#", 1).await;
    let mut n = 0;
    let total = 6000;
    let message = |n: u32| {
        let text = n.to_string();
        let header = Header { topic: "x/y", ..Header::local(Kind::Message, "") };
        Draft::new(&header, text.as_bytes()).unwrap()
    };
    // More than its inbox and its window hold, while it reads nothing.
    while n < total {
        fake.commit((n..n + 500).map(message).collect());
        n += 500;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for want in 0..total {
        assert_eq!(s.got_and_acked().await, want.to_string());
    }
    assert!(house.door.counters().fell_behind.get() > 0);
    until("it has caught up", || house.door.sessions().iter().all(|v| !v.behind)).await;
    fake.commit(vec![message(total)]);
    assert_eq!(s.got_and_acked().await, total.to_string());
    assert_eq!(house.door.counters().qos0_dropped.get(), 0);
    house.close().await;
}

#[tokio::test]
async fn a_session_that_slept_through_20000_messages_gets_all_of_them_in_order() {
    const MESSAGES: usize = 20_000;
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut sleeper = house.client(Version::V4, "sleeper", false).await;
    sleeper.subscribe("x", 1).await;
    sleeper.leaves().await;
    let message = |n: usize| {
        let header = Header { topic: "x", qos: 1, ..Header::local(Kind::Message, "") };
        citybrain_shared::record::Draft::new(&header, n.to_string().as_bytes()).unwrap()
    };
    fake.commit((0..MESSAGES).map(message).collect());
    let mut sleeper = house.client(Version::V4, "sleeper", false).await;
    let queued = || house.door.sessions().iter().find(|s| s.client == "sleeper").map_or(0, |s| s.queued);
    for n in 0..MESSAGES {
        assert_eq!(sleeper.got_and_acked().await, n.to_string());
        if n % 500 == 0 {
            assert!(queued() <= 1024, "{} wait in memory", queued());
        }
    }
    sleeper.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn what_is_under_way_stays_within_the_clients_receive_maximum() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 3, 0x21, 0, 2];
    put_text("s", &mut body);
    let mut s =
        Client { socket: TcpStream::connect(house.at).await.unwrap(), input: BytesMut::new(), version: Version::V5 };
    s.send(0x10, &body).await;
    s.packet().await.unwrap();
    s.subscribe("x", 1).await;
    let mut p = house.client(Version::V4, "p", true).await;
    for id in 1..=5 {
        p.publish_acked("x", b"m", id).await;
    }
    let first = s.got().await;
    s.got().await;
    s.hears_nothing().await;
    s.ack(kind::PUBACK, first.id).await;
    s.got().await;
    s.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn qos2_is_once_both_ways() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut s = house.client(version, "s", false).await;
        s.subscribe("x", 2).await;
        let mut p = house.client(version, "p", false).await;
        fake.hold();
        p.publish("x", b"1", 2, 5, false).await;
        p.publish("x", b"1", 2, 5, false).await;
        p.hears_nothing().await;
        fake.release();
        p.acked(kind::PUBREC, 5).await;
        p.publish("x", b"1", 2, 5, false).await;
        p.acked(kind::PUBREC, 5).await;
        // A new connection does not know less.
        drop(p);
        let (mut p, _) = house.connect(version, "p", false, &[]).await;
        p.publish("x", b"1", 2, 5, false).await;
        p.acked(kind::PUBREC, 5).await;
        p.ack(kind::PUBREL, 5).await;
        p.acked(kind::PUBCOMP, 5).await;
        assert!(fake.session("p").unwrap().held.is_empty());

        let got = s.got().await;
        assert_eq!(got.qos, 2);
        s.ack(kind::PUBREC, got.id).await;
        s.acked(kind::PUBREL, got.id).await;
        drop(s);
        let (mut s, _) = house.connect(version, "s", false, &[]).await;
        s.acked(kind::PUBREL, got.id).await;
        // Nor does another process over the same log.
        house.close().await;
        let house = House::open(&fake).await;
        let (mut s, _) = house.connect(version, "s", false, &[]).await;
        s.acked(kind::PUBREL, got.id).await;
        s.ack(kind::PUBCOMP, got.id).await;
        s.hears_nothing().await;
        s.leaves().await;
        let (mut s, _) = house.connect(version, "s", false, &[]).await;
        s.hears_nothing().await;
        house.close().await;
    }
}

#[tokio::test]
async fn a_release_waits_until_the_log_knows_that_the_client_has_the_message() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", false).await;
    s.subscribe("x", 2).await;
    let mut p = house.client(Version::V4, "p", true).await;
    p.publish("x", b"1", 2, 5, false).await;
    p.acked(kind::PUBREC, 5).await;
    let got = s.got().await;
    fake.hold();
    s.ack(kind::PUBREC, got.id).await;
    s.hears_nothing().await;
    fake.release();
    s.acked(kind::PUBREL, got.id).await;
    assert_eq!(fake.session("s").unwrap().releasing.len(), 1);
    s.ack(kind::PUBCOMP, got.id).await;
    until("the cursor is noted", || fake.session("s").unwrap().releasing.is_empty()).await;
    house.close().await;
}

#[tokio::test]
async fn retained_messages_come_with_the_subscription() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V5, "p", true).await;
    for n in 0..200 {
        p.publish(&format!("r/{n}"), b"old", 0, 0, true).await;
    }
    p.publish_acked("end", b"", 1).await;
    let mut s = house.client(Version::V5, "s", true).await;
    s.subscribe("r/#", 1).await;
    for _ in 0..200 {
        let got = s.got().await;
        assert!(got.retain && got.payload == "old" && got.qos == 0);
    }
    // Retain handling 2: none; 1: not again.
    s.subscribe("r/7", 0x20 | 1).await;
    s.subscribe("r/#", 0x10 | 1).await;
    s.hears_nothing().await;
    p.publish("r/7", b"new", 1, 2, true).await;
    assert_eq!(s.got_and_acked().await, "new");
    p.publish("r/7", b"", 1, 3, true).await;
    s.got_and_acked().await;
    let mut t = house.client(Version::V4, "t", true).await;
    t.subscribe("r/7", 1).await;
    t.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn what_a_client_retained_just_before_it_subscribes_comes_to_it_as_retained() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for (version, qos) in [(Version::V4, 0), (Version::V5, 1)] {
        let mut c = house.client(version, "c", true).await;
        fake.hold();
        c.publish("keep/x", b"1", qos, 1, true).await;
        let mut body = vec![0, 9];
        if version == Version::V5 {
            body.push(0);
        }
        put_text("keep/#", &mut body);
        body.push(0);
        c.send(0x82, &body).await;
        c.hears_nothing().await;
        fake.release();
        if qos == 1 {
            c.acked(kind::PUBACK, 1).await;
        }
        assert_eq!(c.packet().await.unwrap().0, 0x90);
        let got = c.got().await;
        assert_eq!((got.payload.as_str(), got.retain), ("1", true));
        c.hears_nothing().await;
        c.leaves().await;
    }
    house.close().await;
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", true).await;
    s.subscribe("will/#", 1).await;
    for (goodbye, want) in [(true, None), (false, Some("gone"))] {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0x0e, 0, 60];
        put_text("w", &mut body);
        put_text("will/w", &mut body);
        put_text("gone", &mut body);
        let mut w = Client {
            socket: TcpStream::connect(house.at).await.unwrap(),
            input: BytesMut::new(),
            version: Version::V4,
        };
        w.send(0x10, &body).await;
        w.packet().await.unwrap();
        if goodbye {
            w.leaves().await
        } else {
            drop(w)
        }
        match want {
            Some(text) => assert_eq!(s.got_and_acked().await, text),
            None => s.hears_nothing().await,
        }
    }
    house.close().await;
}

#[tokio::test]
async fn a_second_connection_takes_over() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut first = house.client(Version::V5, "same", false).await;
    first.subscribe("x", 1).await;
    let (mut second, connack) = house.connect(Version::V5, "same", false, &[]).await;
    assert_eq!(connack[..2], [1, 0]);
    assert_eq!(first.is_closed().await, Some(0x8e));
    let mut p = house.client(Version::V4, "p", true).await;
    p.publish_acked("x", b"1", 1).await;
    assert_eq!(second.got_and_acked().await, "1");
    house.close().await;
}

#[tokio::test]
async fn broken_packets_end_the_connection_with_the_right_reason() {
    let cases: &[(u8, &[u8], u8)] = &[
        (0x30, &[0, 3, b'a', b'/', b'#', 0], 0x81),
        (0x32, &[0, 1, b'a', 0, 0, 0], 0x81),
        (0x36, &[0, 1, b'a', 0, 1, 0], 0x81),
        (0x30, &[0, 1, 0, 0], 0x81),
        (0x30, &[0, 1, 0xff, 0], 0x81),
        (0x30, &[0, 0, 0], 0x82),
        (0x30, &[0, 0, 3, 0x23, 0, 1], 0x82),
        (0x30, &[0, 0, 3, 0x23, 0, 99], 0x94),
        (0x30, &[0, 1, b'a', 3, 0x23, 0, 0], 0x94),
        (0x81, &[0, 1], 0x81),
        (0x82, &[0, 1, 0], 0x82),
        (0x10, &[0, 4], 0x82),
        (0xf0, &[0], 0x82),
        (0x00, &[], 0x82),
        (0x0a, &[], 0x82),
        (0x20, &[0, 0], 0x82),
        (0x90, &[0, 1, 0], 0x82),
        (0xd0, &[], 0x82),
        (0x40, &[0, 1, 0xff], 0x82),
        (0x50, &[0, 1, 0, 2, 0x01, 0], 0x81),
        (0x62, &[0, 1, 0, 6, 0x1f, 0, 0, 0x1f, 0, 0], 0x82),
        (0x82, &[0, 1, 0, 0, 0, 0], 0x81),
        (0xa2, &[0, 1, 0, 0, 1, 0], 0x81),
        (0xc0, &[1], 0x81),
    ];
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for (n, (first, body, want)) in cases.iter().enumerate() {
        let mut c = house.client(Version::V5, &format!("c{n}"), true).await;
        c.send(*first, body).await;
        assert_eq!(c.is_closed().await, Some(*want), "{first:x} {body:x?}");
        let mut c = house.client(Version::V4, &format!("d{n}"), true).await;
        c.send(*first, if body.contains(&b'#') { body } else { &[] }).await;
    }
    assert!(fake.notes().iter().any(|n| matches!(n, Note::DeadLetter(d) if d.reason == "topic" && d.topic == "a/#")));
    assert!(house.door.counters().malformed.get() >= cases.len() as u64);
    house.close().await;
}

#[tokio::test]
async fn first_packets_that_are_no_connect_are_turned_away() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x30, 3, 0, 1, b'a'], &[0x10, 0xff, 0xff, 0xff, 0x7f], &[0x10, 2, 0, 0]]
    {
        let mut socket = TcpStream::connect(house.at).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("closed");
        assert_eq!(rest, [0u8; 0]);
    }
    let mut socket = TcpStream::connect(house.at).await.unwrap();
    socket.write_all(b"\x10\x0e\0\x06MQIsdp\x03\x02\0\0\0\0").await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("closed").unwrap();
    assert_eq!(rest, [0x20, 2, 0, 1]);
    house.close().await;
}

#[tokio::test]
async fn a_packet_in_single_bytes_is_a_packet() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V4, "c", true).await;
    for b in [0x32, 6, 0, 1, b'a', 0, 3, b'x'] {
        c.socket.write_all(&[b]).await.unwrap();
        c.socket.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    c.acked(kind::PUBACK, 3).await;
    house.close().await;
}

#[tokio::test]
async fn five_megabytes_are_refused_without_being_kept() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let big = vec![b'x'; 5_000_000];
    let mut four = house.client(Version::V4, "four", true).await;
    four.publish("big/x", &big, 1, 3, false).await;
    four.acked(kind::PUBACK, 3).await;
    four.publish_acked("x", b"after", 4).await;
    let mut five = house.client(Version::V5, "five", true).await;
    let (mut read, mut write) = five.socket.into_split();
    let writing = tokio::spawn(async move {
        let mut out = Vec::new();
        out.extend_from_slice(&[0x32, 0xc0, 0x96, 0xb1, 2, 0, 1, b'x', 0, 1, 0]);
        let _ = write.write_all(&out).await;
        let _ = write.write_all(&big).await;
    });
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, read.read_to_end(&mut answer)).await;
    let said = || answer[0] == 0xe0 && answer[2] == 0x95;
    assert!(answer.is_empty() || said(), "{answer:x?}");
    let _ = writing.await;
    five = house.client(Version::V5, "again", true).await;
    five.publish_acked("x", b"1", 1).await;
    let letters: Vec<_> = fake
        .notes()
        .into_iter()
        .filter_map(|n| if let Note::DeadLetter(d) = n { Some((d.topic, d.payload_bytes)) } else { None })
        .collect();
    assert_eq!(letters[0], ("big/x".into(), 5_000_000));
    assert_eq!(letters[1].0, "x");
    house.close().await;
}

#[tokio::test]
async fn rights_are_kept_and_refusals_are_on_the_dead_letter_list() {
    let fake = Fake::new();
    let access = config::Access {
        publish: Some(vec!["in/{user}/#".into()]),
        subscribe: Some(vec!["out/#".into()]),
        ..Default::default()
    };
    let house = House::with(&fake, config::Broker::default(), access).await;
    let mut tail = Vec::new();
    put_text("ann", &mut tail);
    put_text("", &mut tail);
    let (mut c, _) = house.connect(Version::V5, "c", true, &tail).await;
    c.publish("in/ann/x", b"{}", 1, 1, false).await;
    assert_eq!(c.acked(kind::PUBACK, 1).await, 0);
    c.publish("in/bob/x", b"{}", 1, 2, false).await;
    assert_eq!(c.acked(kind::PUBACK, 2).await, 0x87);
    assert_eq!(c.subscribe("#", 1).await, 0x87);
    assert_eq!(c.subscribe("out/+", 1).await, 1);
    assert_eq!(c.subscribe("out/a#", 1).await, 0x8f);
    assert_eq!(c.subscribe("$share/g/out/a", 1).await, 1);
    assert_eq!(c.subscribe("$share/g/in/a", 1).await, 0x87);
    assert!(fake.notes().iter().any(|n| matches!(n, Note::DeadLetter(d) if d.reason == "forbidden")));
    house.close().await;
}

#[tokio::test]
async fn link_traffic_goes_to_the_driver_and_to_nobody_else() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut spy = house.client(Version::V4, "spy", true).await;
    spy.subscribe("#", 0).await;
    spy.subscribe("citybrain/+/up/#", 0).await;
    assert_eq!(spy.subscribe("citybrain/v1/up/#", 0).await, 0x80);
    let mut child = house.client(Version::V4, "child", true).await;
    assert_eq!(child.subscribe("citybrain/v1/upack/c/s", 1).await, 0);
    child.publish("citybrain/v1/hello/c/s", b"hi", 1, 1, true).await;
    child.acked(kind::PUBACK, 1).await;
    // The driver comes later and sees the retained hello.
    let mut driver = house.door.local();
    let m = driver.recv().await.unwrap();
    assert_eq!((m.topic.as_str(), &m.payload[..], m.closed), ("citybrain/v1/hello/c/s", &b"hi"[..], false));
    child.publish("citybrain/v1/up/c/s", &vec![b'f'; 900_000], 1, 2, false).await;
    assert_eq!(driver.recv().await.unwrap().payload.len(), 900_000);
    child.acked(kind::PUBACK, 2).await;
    driver.publish("citybrain/v1/upack/c/s", Bytes::from_static(b"ok"), false);
    assert_eq!(child.got().await.payload, "ok");
    child.publish("citybrain/v1/up/NOBODY", b"f", 1, 3, false).await;
    child.acked(kind::PUBACK, 3).await;
    drop(child);
    let m = driver.recv().await.unwrap();
    assert!(m.closed && m.client == "child", "{m:?}");
    spy.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn a_full_driver_holds_back_its_child_and_nobody_else() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut driver = house.door.local();
    let mut child = house.client(Version::V4, "child", true).await;
    for id in 1..=100u16 {
        child.publish("citybrain/v1/up/c/s", &id.to_be_bytes(), 1, id, false).await;
    }
    let mut other = house.client(Version::V4, "other", true).await;
    other.publish_acked("x", b"1", 1).await;
    for id in 1..=100u16 {
        assert_eq!(&driver.recv().await.unwrap().payload[..], id.to_be_bytes());
    }
    for id in 1..=100 {
        child.acked(kind::PUBACK, id).await;
    }
    house.close().await;
}

#[tokio::test]
async fn a_publish_and_a_goodbye_in_one_packet_are_both_heard() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V4, "c", true).await;
    c.socket.write_all(b"\x30\x08\0\x04in/a{}\xe0\0").await.unwrap();
    assert_eq!(c.is_closed().await, None);
    until("the event is committed", || fake.offers() == 1).await;
    house.close().await;
}

#[tokio::test]
async fn a_silent_client_is_ended_after_its_keep_alive() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 1, 0];
    put_text("s", &mut body);
    let mut c =
        Client { socket: TcpStream::connect(house.at).await.unwrap(), input: BytesMut::new(), version: Version::V5 };
    c.send(0x10, &body).await;
    c.packet().await.unwrap();
    let start = std::time::Instant::now();
    assert_eq!(c.is_closed().await, Some(0x8d));
    assert!(start.elapsed() > Duration::from_millis(1400));
    house.close().await;
}

#[tokio::test]
async fn no_message_comes_before_its_subscription_and_none_behind_it_is_missed() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V4, "p", true).await;
    for round in 0..50u16 {
        p.publish_acked("x", b"before", 1).await;
        let mut s = house.client(Version::V4, &format!("s{round}"), round % 2 == 0).await;
        s.subscribe("x", 1).await;
        p.publish_acked("x", b"after", 2).await;
        assert_eq!(s.got_and_acked().await, "after");
    }
    house.close().await;
}

#[tokio::test]
async fn a_group_gets_each_message_once_and_its_members_take_turns() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut p = house.client(Version::V5, "p", true).await;
        p.publish("x", b"kept", 1, 1, true).await;
        p.acked(kind::PUBACK, 1).await;
        let mut a = house.client(version, "a", true).await;
        let mut b = house.client(version, "b", true).await;
        assert_eq!(a.subscribe("$share/g/x", 2).await, 1);
        assert_eq!(b.subscribe("$share/g/x", 1).await, 1);
        // What is retained is for nobody in particular.
        a.hears_nothing().await;
        for id in 1..=10u16 {
            p.publish_acked("x", id.to_string().as_bytes(), id).await;
        }
        let mut got = Vec::new();
        for _ in 0..5 {
            got.push(a.got_and_acked().await.parse::<u16>().unwrap());
            got.push(b.got().await.payload.parse().unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, (1..=10).collect::<Vec<_>>());
        // It goes without having acknowledged: the other gets its share, and what comes then.
        b.leaves().await;
        p.publish_acked("x", b"11", 11).await;
        for _ in 0..6 {
            assert_eq!(got.iter().filter(|g| **g == 11).count(), 0);
            got.push(a.got_and_acked().await.parse().unwrap());
        }
        a.hears_nothing().await;
        // Nobody durable was in it: nothing of it is in the log.
        assert!(fake.notes().is_empty());
        house.close().await;
    }
}

#[tokio::test]
async fn a_durable_members_share_waits_for_it_until_its_session_ends() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut a = house.client(version, "a", false).await;
        a.subscribe("$share/g/x", 1).await;
        let mut p = house.client(version, "p", true).await;
        for id in 1..=3u16 {
            p.publish_acked("x", id.to_string().as_bytes(), id).await;
        }
        let one = a.got().await;
        assert_eq!((one.payload.as_str(), one.dup), ("1", false));
        assert_eq!(a.got_and_acked().await, "2");
        assert_eq!(a.got().await.payload, "3");
        until("2 is noted", || fake.session("$share/g/x").is_some_and(|s| s.beyond.len() == 1)).await;
        drop(a);
        until("it is gone", || house.door.counters.connections.load(Ordering::Relaxed) == 1).await;
        // Another comes: what the first has not acknowledged is still the first's.
        let mut b = house.client(version, "b", true).await;
        b.subscribe("$share/g/x", 1).await;
        p.publish_acked("x", b"4", 4).await;
        assert_eq!(b.got_and_acked().await, "4");
        let (mut a, _) = house.connect(version, "a", false, &[]).await;
        assert_eq!(a.got().await, Got { dup: true, ..one });
        assert_eq!(a.got().await.payload, "3");
        drop(a);
        // Its session is over: now it is the other's.
        let a = house.client(version, "a", true).await;
        assert_eq!((b.got_and_acked().await, b.got_and_acked().await), ("1".into(), "3".into()));
        until("the group is no longer kept", || fake.session("$share/g/x").is_none()).await;
        drop((a, b));
        house.close().await;
    }
}

#[tokio::test]
async fn a_durable_group_goes_on_from_its_cursor_in_the_next_process() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut a = house.client(Version::V5, "a", false).await;
    a.subscribe("$share/g/x", 1).await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.publish_acked("x", b"1", 1).await;
    assert_eq!(a.got_and_acked().await, "1");
    a.leaves().await;
    for id in 2..=300u16 {
        p.publish_acked("x", id.to_string().as_bytes(), id).await;
    }
    house.close().await;
    let house = House::open(&fake).await;
    let mut b = house.client(Version::V5, "b", true).await;
    b.subscribe("$share/g/x", 1).await;
    for id in 2..=300u16 {
        assert_eq!(b.got_and_acked().await, id.to_string());
    }
    b.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn no_local_with_a_group_and_a_groups_name_as_an_id_are_refused() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "c", true).await;
    let mut body = vec![0, 9, 0];
    put_text("$share/g/x", &mut body);
    body.push(1 | 4);
    c.send(0x82, &body).await;
    assert_eq!(c.is_closed().await, Some(0x82));
    let (_, connack) = house.connect(Version::V5, "$share/g/x", true, &[]).await;
    assert_eq!(connack[1], 0x85);
    house.close().await;
}

#[tokio::test]
async fn the_doors_own_figures_come_at_once_and_leave_no_record() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut c = house.client(version, "c", true).await;
        c.subscribe("$SYS/broker/clients/connected", 1).await;
        let got = c.got().await;
        assert_eq!((got.payload.as_str(), got.retain, got.qos), ("1", true, 0));
        // `#` is not for `$…`.
        c.subscribe("#", 1).await;
        house.door.sys.tell(&house.door);
        let got = c.got().await;
        assert_eq!((got.topic.as_str(), got.retain), ("$SYS/broker/clients/connected", false));
        c.hears_nothing().await;
        assert_eq!(fake.offers(), 0);
        house.close().await;
    }
}

#[tokio::test]
async fn a_client_that_takes_aliases_gets_short_frames() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c =
        Client { socket: TcpStream::connect(house.at).await.unwrap(), input: BytesMut::new(), version: Version::V5 };
    c.send(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x03\x22\0\x01\0\x01c").await;
    c.packet().await.unwrap();
    c.subscribe("long/#", 0).await;
    let mut p = house.client(Version::V4, "p", true).await;
    let mut heard = Vec::new();
    for (id, topic) in (1..).zip(["long/topic", "long/topic", "long/other", "long/topic"]) {
        p.publish_acked(topic, b"1", id).await;
        let (_, body) = c.packet().await.unwrap();
        let m = parse_publish(Version::V5, 0, &body);
        heard.push((m.topic.to_owned(), m.properties.alias));
    }
    let one = |t: &str| (t.to_owned(), Some(1));
    assert_eq!(heard, [one("long/topic"), one(""), one("long/other"), one("long/topic")]);
    // Whatever the QoS.
    c.subscribe("long/#", 2).await;
    p.publish("long/topic", b"1", 2, 9, false).await;
    p.acked(kind::PUBREC, 9).await;
    let (first, body) = c.packet().await.unwrap();
    let m = parse_publish(Version::V5, first & 15, &body);
    assert_eq!((m.qos, m.topic, m.properties.alias), (2, "", Some(1)));
    house.close().await;
}

#[tokio::test]
async fn a_client_that_is_too_fast_waits_and_loses_nothing() {
    let fake = Fake::new();
    let broker = config::Broker { client_publishes_per_s_max: 100, client_subscriptions_max: 2, ..Default::default() };
    let house = House::with(&fake, broker, config::Access::default()).await;
    let mut c = house.client(Version::V5, "c", true).await;
    let start = std::time::Instant::now();
    for id in 1..=150u16 {
        c.publish("x", b"1", 1, id, false).await;
    }
    for id in 1..=150 {
        assert_eq!(c.acked(kind::PUBACK, id).await, 0);
    }
    // 100 at once, the other 50 at 100 a second.
    assert!(start.elapsed() > Duration::from_millis(400), "{:?}", start.elapsed());
    assert!(house.door.counters.slowed.get() > 0);
    for (filter, code) in [("a", 0), ("b", 0), ("c", 0x97), ("a", 0)] {
        assert_eq!(c.subscribe(filter, 0).await, code, "{filter}");
    }
    house.close().await;
}

#[tokio::test]
async fn only_the_right_password_comes_in_and_wrong_ones_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    std::fs::write(&path, format!("ann:{}\n", users::hash(b"right").unwrap())).unwrap();
    let access = config::Access { anonymous: false, users_file: Some(path), ..Default::default() };
    let fake = Fake::new();
    let house = House::with(&fake, config::Broker::default(), access).await;
    for (version, password, code) in
        [(Version::V4, "wrong", 4), (Version::V5, "wrong", 0x86), (Version::V4, "right", 0), (Version::V5, "right", 0)]
    {
        let mut tail = Vec::new();
        put_text("ann", &mut tail);
        put_text(password, &mut tail);
        let (_, connack) = house.connect(version, "c", true, &tail).await;
        assert_eq!(connack[1], code);
    }
    let (_, connack) = house.connect(Version::V5, "c", true, &[]).await;
    assert_eq!(connack[1], 0x87);
    assert_eq!(house.door.counters.logins_failed.get(), 3);
    house.close().await;
}

#[tokio::test]
async fn of_two_connections_that_wait_for_a_sessions_place_the_newer_gets_it() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut first = house.client(Version::V5, "s", false).await;
        fake.hold();
        let connect = [0, 4, b'M', b'Q', b'T', b'T', version.level(), 0, 0, 60];
        let mut body = connect.to_vec();
        if version == Version::V5 {
            body.extend([5, 0x11, 0, 0, 0, 100]);
        }
        put_text("s", &mut body);
        let mut second = house.dial(version).await;
        second.send(0x10, &body).await;
        // The first is told of it, and its session's end waits for the disk.
        assert_eq!(first.is_closed().await, Some(0x8e));
        let mut third = house.dial(version).await;
        third.send(0x10, &body).await;
        third.hears_nothing().await;
        fake.release();
        assert_eq!(second.packet().await, None);
        assert_eq!(third.packet().await.expect("a CONNACK").1[..2], [1, 0]);
        third.publish_acked("x", b"1", 7).await;
        house.close().await;
    }
}

#[tokio::test]
async fn a_connection_whose_engine_is_gone_still_leaves_its_session_in_order() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V5, "s", false).await;
    s.subscribe("x", 1).await;
    fake.stop();
    s.publish("x", b"1", 1, 7, false).await;
    assert_eq!(s.is_closed().await, Some(0x8b));
    until("the session is parked", || house.door.seats.unpark("s").is_some()).await;
}

#[tokio::test]
async fn a_message_given_again_says_so_however_short_the_connection_between() {
    for restarts in [false, true] {
        let fake = Fake::new();
        let mut house = House::open(&fake).await;
        let mut s = house.client(Version::V4, "s", false).await;
        s.subscribe("x", 1).await;
        let mut p = house.client(Version::V4, "p", true).await;
        for id in 1..=3 {
            p.publish_acked("x", b"1", id).await;
        }
        for _ in 0..3 {
            assert!(!s.got().await.dup);
        }
        s.leaves().await;
        if restarts {
            house.close().await;
            house = House::open(&fake).await;
        }
        // One message fits into its socket's end of the line; it leaves before the others come.
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 0, 0, 60, 8, 0x11, 0, 0, 0, 100, 0x21, 0, 1];
        put_text("s", &mut body);
        let mut short = house.dial(Version::V5).await;
        short.send(0x10, &body).await;
        assert_eq!(short.packet().await.expect("a CONNACK").1[..2], [1, 0]);
        assert!(short.got().await.dup);
        short.leaves().await;
        let mut last = house.client(Version::V4, "s", false).await;
        for _ in 0..3 {
            assert!(last.got().await.dup, "restarts: {restarts}");
        }
        house.close().await;
    }
}

#[tokio::test]
async fn what_came_while_a_client_was_away_is_a_first_time_also_after_a_restart() {
    let mut fake = Fake::new();
    for killed in [false, true] {
        let house = House::open(&fake).await;
        let mut s = house.client(Version::V4, "s", false).await;
        s.subscribe("x", 1).await;
        s.leaves().await;
        let mut p = house.client(Version::V4, "p", true).await;
        p.publish_acked("x", b"1", 1).await;
        if killed {
            fake = fake.crash(|held| held);
            house.kill().await;
        } else {
            house.close().await;
        }
        let house = House::open(&fake).await;
        let mut s = house.client(Version::V4, "s", false).await;
        let got = s.got().await;
        assert!(!got.dup, "killed: {killed}");
        s.ack(kind::PUBACK, got.id).await;
        // Nobody knows how much of this was on the wire when the node was killed.
        p = house.client(Version::V4, "p", true).await;
        p.publish_acked("x", b"2", 1).await;
        fake = fake.crash(|held| held);
        house.kill().await;
        let house = House::open(&fake).await;
        let mut s = house.client(Version::V4, "s", false).await;
        let got = s.got().await;
        assert!(got.dup && got.payload == "2", "{got:?}");
        s.ack(kind::PUBACK, got.id).await;
        s.leaves().await;
        house.close().await;
    }
}

#[tokio::test]
async fn a_qos2_message_that_was_received_is_released_though_its_filter_has_gone() {
    for n in 0..8 {
        let (restarts, lowered, known) = (n & 1 > 0, n & 2 > 0, n & 4 > 0);
        let fake = Fake::new();
        let mut house = House::open(&fake).await;
        let mut s = house.client(Version::V4, "s", false).await;
        s.subscribe("x", 2).await;
        s.publish("x", b"1", 2, 1, false).await;
        s.acked(kind::PUBREC, 1).await;
        let got = s.got().await;
        // Else the client has it, and the node does not know.
        if known {
            s.ack(kind::PUBREC, got.id).await;
            s.acked(kind::PUBREL, got.id).await;
        }
        if lowered {
            s.subscribe("x", 1).await;
        } else {
            let mut body = vec![0, 9];
            put_text("x", &mut body);
            s.send(0xa2, &body).await;
            assert_eq!(s.packet().await.expect("an UNSUBACK").0, 0xb0);
        }
        s.leaves().await;
        if restarts {
            house.close().await;
            house = House::open(&fake).await;
        }
        let mut s = house.client(Version::V4, "s", false).await;
        if !known {
            assert_eq!(s.got().await, Got { dup: true, ..got.clone() });
            s.ack(kind::PUBREC, got.id).await;
        }
        s.acked(kind::PUBREL, got.id).await;
        s.ack(kind::PUBCOMP, got.id).await;
        s.send(0xc0, &[]).await;
        assert_eq!(s.packet().await.expect("a PINGRESP").0, 0xd0);
        s.leaves().await;
        let mut s = house.client(Version::V4, "s", false).await;
        s.hears_nothing().await;
        house.close().await;
    }
}

#[tokio::test]
async fn a_message_committed_just_before_its_subscription_is_completed_after_a_kill() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", false).await;
    let mut p = house.client(Version::V4, "p", true).await;
    fake.hold();
    p.publish("x", b"1", 2, 1, false).await;
    until("the publish is offered", || fake.offers() == 2).await;
    let mut body = vec![0, 9];
    put_text("x", &mut body);
    body.push(2);
    s.send(0x82, &body).await;
    until("the subscription is offered", || fake.offers() == 3).await;
    fake.release();
    // The message and the answer to the subscription, in whichever order.
    let mut got = None;
    for _ in 0..2 {
        let (first, body) = s.packet().await.expect("a packet");
        if first != 0x90 {
            got = Some(self::got(Version::V4, first, &body));
        }
    }
    let got = got.expect("the message");
    let fake = fake.crash(|_| 0);
    house.kill().await;
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", false).await;
    assert_eq!(s.got().await, Got { dup: true, ..got });
    house.close().await;
}

/// The reason string of a CONNACK or DISCONNECT of MQTT 5; the properties begin at `at`.
fn reason_string(body: &[u8], at: usize) -> Option<String> {
    let (low, high) = (usize::from(*body.get(at)?), usize::from(*body.get(at + 1)?));
    let properties = if low < 128 { &body[at + 1..][..low] } else { &body[at + 2..][..low - 128 + high * 128] };
    let (mut p, mut found) = (properties, None);
    while let Some((id, rest)) = p.split_first() {
        let text = |at: usize| usize::from(u16::from_be_bytes([rest[at], rest[at + 1]]));
        let len = match id {
            0x1f => {
                found = Some(String::from_utf8(rest[2..2 + text(0)].to_vec()).unwrap());
                2 + text(0)
            }
            0x12 => 2 + text(0),
            0x26 => 4 + text(0) + text(2 + text(0)),
            0x11 | 0x27 => 4,
            0x13 | 0x21 | 0x22 => 2,
            _ => panic!("{id:x}"),
        };
        p = &rest[len..];
    }
    found
}

#[tokio::test]
async fn a_session_is_told_what_retention_took_from_it_and_goes_on_behind_it() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "sleeper", false).await;
    c.subscribe("x", 1).await;
    drop(c);
    until("it is away", || !fake.session("sleeper").unwrap().connected).await;
    let mut p = house.client(Version::V4, "p", true).await;
    for id in 1..=10 {
        p.publish_acked("x", id.to_string().as_bytes(), id).await;
    }
    let last = fake.last().0 - 4;
    fake.trim(Pos(last));
    let (mut c, connack) = house.connect(Version::V5, "sleeper", false, &[]).await;
    assert_eq!(connack[..2], [1, 0], "the session is there");
    let why = reason_string(&connack, 2).expect("it says so");
    assert!(why.contains(&format!("to {last} are gone")), "{why}");
    for n in 7..=10 {
        assert_eq!(c.got_and_acked().await, n.to_string());
    }
    c.hears_nothing().await;
    assert!(house.door.counters.unreadable.get() > 0);
    c.leaves().await;
    let (_c, connack) = house.connect(Version::V5, "sleeper", false, &[]).await;
    assert_eq!(reason_string(&connack, 2), None, "it is told once");
    house.close().await;
}

#[tokio::test]
async fn a_session_that_reads_too_slowly_for_retention_is_ended_with_the_reason() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "slow", false).await;
    c.subscribe("x", 1).await;
    let mut p = house.client(Version::V4, "p", true).await;
    let payload = vec![b'x'; 60_000];
    // It reads nothing, so that it falls behind its inbox and what is to come is in the log alone.
    for id in 1..=400 {
        p.publish_acked("x", &payload, id).await;
    }
    until("it fell behind", || house.door.counters.fell_behind.get() > 0).await;
    fake.trim(fake.last());
    let why = loop {
        let (first, body) = c.packet().await.expect("a DISCONNECT before the end");
        match first {
            0xe0 => break (body[0], reason_string(&body, 1).unwrap()),
            _ => {
                let got = got(Version::V5, first, &body);
                c.ack(kind::PUBACK, got.id).await;
            }
        }
    };
    assert_eq!(why.0, 0x97);
    assert!(why.1.contains("are gone"), "{why:?}");
    house.close().await;
}

#[tokio::test]
async fn refusals_say_why_to_those_who_want_to_know() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    // Who comes without a name and asks for enhanced authentication.
    let mut c = house.dial(Version::V5).await;
    c.send(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x04\x15\0\x01x\0\x01c").await;
    let (_, connack) = c.packet().await.unwrap();
    assert_eq!(connack[1], 0x8c);
    assert!(reason_string(&connack, 2).unwrap().contains("enhanced authentication"));
    let mut c = house.client(Version::V5, "c", true).await;
    c.publish("in/x", b"no object", 1, 1, false).await;
    let (first, body) = c.packet().await.unwrap();
    assert_eq!((first, body[2]), (0x40, 0x99));
    assert!(reason_string(&body, 3).unwrap().contains("dlq list"));
    // A client that wants no problem information gets the code alone.
    let mut c = house.dial(Version::V5).await;
    c.send(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x02\x17\0\0\x01d").await;
    c.packet().await.unwrap();
    c.publish("in/x", b"no object", 1, 1, false).await;
    assert_eq!(c.packet().await.unwrap(), (0x40, vec![0, 1, 0x99]));
    house.close().await;
}
