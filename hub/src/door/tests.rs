//! The door over real sockets, with an engine in memory behind it.

use super::core::Core as _;
use super::packet::{Ack, Head, Version, kind, publish, put_ack};
use super::*;
use crate::note::Note;
use bytes::{Buf, Bytes, BytesMut};
use citybrain_shared::Pos;
use citybrain_shared::record::{Header, Kind};
use fake::{Fake, Plain};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

mod acks;
mod bounds;
mod delivery;
mod encoding;
mod exchanges;
pub(super) mod fake;
mod groups;
mod lifetimes;
mod links;
mod model;
mod packets;
mod passing;
mod pressure;
mod refusals;
mod retained;
mod rights;
mod sessions;
mod shares;
mod stage;
mod turned_away;
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

    /// By MQTT 5; `flags`, the properties (below 128 bytes) and what follows the client id are the caller's.
    async fn connect_with(&self, id: &str, flags: u8, properties: &[u8], tail: &[u8]) -> (Client, Vec<u8>) {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 60, properties.len() as u8];
        body.extend_from_slice(properties);
        put_text(id, &mut body);
        body.extend_from_slice(tail);
        let mut client = self.dial(Version::V5).await;
        client.send(0x10, &body).await;
        let (first, connack) = client.packet().await.unwrap();
        assert_eq!(first, 0x20);
        (client, connack)
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
        assert!(self.send_whole(first, body).await);
    }

    /// False: the connection ended before all was written.
    async fn send_whole(&mut self, first: u8, body: &[u8]) -> bool {
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
        self.socket.write_all(&out).await.is_ok()
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

    /// A packet that is here already.
    fn at_hand(&mut self) -> Option<(u8, Vec<u8>)> {
        while self.socket.try_read_buf(&mut self.input).is_ok_and(|n| n > 0) {}
        let head = Head::parse(&self.input).expect("the door writes whole packets")?;
        (self.input.len() >= head.total_bytes()).then(|| {
            let first = self.input[0];
            self.input.advance(head.head_bytes);
            (first, self.input.split_to(head.body_bytes).to_vec())
        })
    }

    /// Nothing comes for a while.
    async fn hears_nothing(&mut self) {
        let silence = Duration::from_millis(80);
        if let Ok(p) = timeout(silence, self.packet()).await {
            panic!("{p:x?}");
        }
    }

    async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, id: u16, retain: bool) {
        self.put(publish::Out { qos, retain, id, ..out(topic, payload) }).await;
    }

    async fn put(&mut self, p: publish::Out<'_>) {
        let mut out = Vec::new();
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

    /// The next packet is such an acknowledgement; its id.
    async fn acked_any(&mut self, kind: u8) -> u16 {
        let (first, body) = self.packet().await.expect("an acknowledgement");
        assert_eq!(first >> 4, kind, "{body:x?}");
        Ack::parse(self.version, kind, &body).unwrap().id
    }

    async fn publish_acked(&mut self, topic: &str, payload: &[u8], id: u16) {
        self.publish(topic, payload, 1, id, false).await;
        self.acked(kind::PUBACK, id).await;
    }

    async fn unsubscribe(&mut self, filter: &str) {
        let mut body = vec![0, 9];
        if self.version == Version::V5 {
            body.push(0);
        }
        put_text(filter, &mut body);
        self.send(0xa2, &body).await;
        assert_eq!(self.packet().await.expect("an UNSUBACK").0, 0xb0);
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

    async fn pings(&mut self) {
        self.send(0xc0, &[]).await;
        assert_eq!(self.packet().await, Some((0xd0, Vec::new())));
    }

    async fn leaves(mut self) {
        self.send(0xe0, &[]).await;
        self.is_closed().await;
    }
}

/// A PUBLISH of QoS 0 with nothing besides.
fn out<'a>(topic: &'a str, payload: &'a [u8]) -> publish::Out<'a> {
    publish::Out {
        dup: false,
        qos: 0,
        retain: false,
        topic,
        alias: None,
        id: 0,
        forwarded: &[],
        content_type: None,
        expiry_s: None,
        subscription_ids: &[],
        payload: [payload, &[], &[]],
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

/// Takes a length before it, and so many bytes.
fn text<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let n = usize::from(u16::from_be_bytes(take(rest)));
    let (text, after) = rest.split_at(n);
    *rest = after;
    text
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, after) = rest.split_first_chunk().unwrap();
    *rest = after;
    *head
}

/// The properties of MQTT 5 with their length, by identifier, in their order. Read by hand, not by the door's
/// own reader.
fn properties(rest: &mut &[u8]) -> Vec<(u8, Vec<u8>)> {
    let [low] = take(rest);
    let high = if low < 128 { 0 } else { take::<1>(rest)[0] };
    assert!(high < 128, "below 16 KiB all lengths have two bytes");
    let (mut some, after) = rest.split_at(usize::from(low & 0x7f) + usize::from(high) * 128);
    *rest = after;
    let mut found = Vec::new();
    while !some.is_empty() {
        let [id] = take(&mut some);
        let value = match id {
            0x01 | 0x0b | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => take::<1>(&mut some).to_vec(),
            0x13 | 0x21 | 0x22 | 0x23 => take::<2>(&mut some).to_vec(),
            0x02 | 0x11 | 0x27 => take::<4>(&mut some).to_vec(),
            0x26 => [text(&mut some), b"=", text(&mut some)].concat(),
            _ => text(&mut some).to_vec(),
        };
        found.push((id, value));
    }
    found
}

/// The reason string among the properties, which begin at `at`.
fn reason_string(body: &[u8], at: usize) -> Option<String> {
    let all = properties(&mut body.get(at..).filter(|rest| !rest.is_empty())?);
    let (_, text) = all.into_iter().find(|(id, _)| *id == 0x1f)?;
    Some(String::from_utf8(text).unwrap())
}

/// A session of MQTT 5 that lasts, and three messages of QoS 2 on `x` that it has got, one behind the other, and
/// not answered.
async fn given_three(house: &House) -> (Client, Vec<Got>) {
    let mut s = house.client(Version::V5, "s", false).await;
    s.subscribe("x", 2).await;
    let mut p = house.client(Version::V4, "p", true).await;
    let mut given = Vec::new();
    for id in 1..=3u16 {
        p.publish("x", id.to_string().as_bytes(), 2, id, false).await;
        p.acked(kind::PUBREC, id).await;
        given.push(s.got().await);
    }
    (s, given)
}

const BOTH: [Version; 2] = [Version::V4, Version::V5];
