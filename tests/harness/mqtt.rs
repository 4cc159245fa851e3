//! A small MQTT 3.1.1 client of the tests' own, so that what it proves does not rest on the code it
//! tests. It blocks; a read has a deadline.

use super::{PATIENCE, Sent, wait_for};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What a client speaks over; a read gives up after a while ([`ErrorKind::WouldBlock`]).
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

pub struct Client {
    socket: Box<dyn Stream>,
    inbox: Vec<u8>,
    next_id: u16,
    /// Publishes of [`Client::publish_later`] that are not acknowledged yet.
    flying: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub kind: u8,
    pub flags: u8,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    pub id: Option<u16>,
    pub payload: Vec<u8>,
}

pub fn text(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(&(s.len() as u16).to_be_bytes());
    out.extend_from_slice(s.as_bytes());
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut n = body.len();
    loop {
        let b = (n % 128) as u8;
        n /= 128;
        out.push(if n > 0 { b | 0x80 } else { b });
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

pub fn connect_packet(client_id: &str, clean: bool) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[4, if clean { 2 } else { 0 }, 0, 0]);
    text(&mut body, client_id);
    packet(0x10, &body)
}

/// CONNECT of MQTT 5: a clean start and no properties.
pub fn connect_five_packet(client_id: &str, user: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[5, if user.is_some() { 0xc2 } else { 2 }, 0, 0, 0]);
    text(&mut body, client_id);
    if let Some((name, password)) = user {
        text(&mut body, name);
        text(&mut body, password);
    }
    packet(0x10, &body)
}

/// PUBLISH of MQTT 5, QoS 1.
pub fn publish_five(topic: &[u8], id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(topic);
    body.extend_from_slice(&id.to_be_bytes());
    body.push(properties.len() as u8);
    body.extend_from_slice(properties);
    body.extend_from_slice(payload);
    packet(0x32, &body)
}

/// The reason code of the PUBACK of packet 7.
pub fn puback(client: &mut Client, what: &str) -> u8 {
    let ack = client.read(PATIENCE).unwrap_or_else(|| panic!("a PUBACK for {what}"));
    assert_eq!((ack.kind, &ack.body[..2]), (4, &[0, 7][..]), "{what}");
    ack.body.get(2).copied().unwrap_or(0)
}

pub fn publish_packet(topic: &str, qos: u8, retain: bool, dup: bool, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if qos > 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(0x30 | u8::from(dup) << 3 | qos << 1 | u8::from(retain), &body)
}

impl Client {
    pub fn dial(port: u16) -> Option<Client> {
        let socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
        socket.set_nodelay(true).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
        Some(Client::over(socket))
    }

    /// Over a connection of another kind.
    pub fn over(socket: impl Stream + 'static) -> Client {
        Client { socket: Box::new(socket), inbox: Vec::new(), next_id: 0, flying: 0 }
    }

    /// Connects, waiting for the node if it is not there yet.
    pub fn connect(port: u16, client_id: &str, clean: bool) -> Client {
        wait_for(&format!("port {port} accepts `{client_id}`"), || {
            let mut c = Client::dial(port)?;
            c.send(&connect_packet(client_id, clean)).ok()?;
            let ack = c.read(Duration::from_secs(5))?;
            (ack.kind == 2 && ack.body.get(1) == Some(&0)).then_some(c)
        })
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes)?;
        self.socket.flush()
    }

    /// The next packet; `None` when the connection is gone or the time is over.
    pub fn read(&mut self, patience: Duration) -> Option<Packet> {
        let end = Instant::now() + patience;
        let mut chunk = [0u8; 65536];
        loop {
            if let Some((p, len)) = parse(&self.inbox) {
                self.inbox.drain(..len);
                return Some(p);
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.inbox.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() > end {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
    }

    /// True when the other side closes the connection in time.
    pub fn is_closed(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut chunk = [0u8; 4096];
        while Instant::now() < end {
            match self.socket.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return true,
            }
        }
        false
    }

    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        self.next_id += 1;
        let mut body = self.next_id.to_be_bytes().to_vec();
        text(&mut body, filter);
        body.push(qos);
        self.send(&packet(0x82, &body)).expect("subscribe is sent");
        let ack = self.read(PATIENCE).expect("a SUBACK");
        assert_eq!((ack.kind, ack.body[2]), (9, qos), "subscribe to {filter}");
    }

    /// The next message, acknowledged if it asks for it.
    pub fn next_message(&mut self, patience: Duration) -> Option<Publish> {
        loop {
            let p = self.read(patience)?;
            if p.kind != 3 {
                continue;
            }
            let m = publish(&p);
            if let (1, Some(id)) = (m.qos, m.id) {
                self.send(&packet(0x40, &id.to_be_bytes())).ok()?;
            }
            return Some(m);
        }
    }

    /// Publishes at QoS 1 without waiting, but for room when many are under way.
    pub fn publish_later(&mut self, topic: &str, payload: &[u8]) {
        self.next_id = self.next_id % 65_535 + 1;
        self.send(&publish_packet(topic, 1, false, false, self.next_id, payload)).expect("it is sent");
        self.flying += 1;
        if self.flying >= 500 {
            self.wait_acknowledged();
        }
    }

    /// Waits until all that [`Client::publish_later`] sent is acknowledged.
    pub fn wait_acknowledged(&mut self) {
        while self.flying > 0 {
            let p = self.read(PATIENCE).expect("an acknowledgement");
            self.flying -= usize::from(p.kind == 4);
        }
    }

    /// Publishes at QoS 1 and waits for the PUBACK; false when the connection broke first.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> bool {
        self.next_id = self.next_id % 65_535 + 1;
        let id = self.next_id;
        if self.send(&publish_packet(topic, 1, false, false, id, payload)).is_err() {
            return false;
        }
        while let Some(p) = self.read(PATIENCE) {
            if p.kind == 4 && p.body[..2] == id.to_be_bytes() {
                return true;
            }
        }
        false
    }
}

pub fn publish(p: &Packet) -> Publish {
    let n = u16::from_be_bytes([p.body[0], p.body[1]]) as usize;
    let topic = String::from_utf8(p.body[2..2 + n].to_vec()).expect("a topic is UTF-8");
    let qos = (p.flags >> 1) & 3;
    let rest = &p.body[2 + n..];
    let (id, payload) = if qos > 0 { (Some(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]) } else { (None, rest) };
    Publish { topic, qos, dup: p.flags & 8 != 0, retain: p.flags & 1 != 0, id, payload: payload.to_vec() }
}

fn parse(buf: &[u8]) -> Option<(Packet, usize)> {
    let first = *buf.first()?;
    let (mut len, mut shift, mut i) = (0usize, 0, 1);
    loop {
        let b = *buf.get(i)?;
        len |= ((b & 0x7f) as usize) << shift;
        i += 1;
        if b & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    let body = buf.get(i..i + len)?.to_vec();
    Some((Packet { kind: first >> 4, flags: first & 15, body }, i + len))
}

pub fn event(id: &str, urgent: bool) -> String {
    let priority = if urgent { r#","priority":"urgent""# } else { "" };
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/test","type":"city.test"{priority},"data":{{"note":"街灯不亮"}}}}"#
    )
}

/// A careful device: sends `n` events with a window, sends again whatever was not acknowledged when
/// the connection breaks, and returns once all are acknowledged.
pub fn publish_all(at: &str, port: u16, prefix: &str, n: usize, urgent: bool) -> Vec<Sent> {
    publish_windowed(at, port, prefix, n, urgent, 50)
}

/// As [`publish_all`], with at most `window` events under way.
pub fn publish_windowed(at: &str, port: u16, prefix: &str, n: usize, urgent: bool, window: usize) -> Vec<Sent> {
    let sent: Vec<Sent> = (0..n).map(|i| Sent { at: at.to_owned(), id: format!("{prefix}-{i:06}"), urgent }).collect();
    let mut acked = 0;
    let end = Instant::now() + PATIENCE;
    while acked < n {
        assert!(Instant::now() < end, "{at} did not acknowledge {} of {n} events in time", n - acked);
        let mut client = Client::connect(port, &format!("pub-{prefix}"), true);
        let mut flying: VecDeque<u16> = VecDeque::new();
        let mut next = acked;
        'link: while acked < n {
            while next < n && flying.len() < window {
                let id = (next % 65_535) as u16 + 1;
                let bytes = publish_packet("in/test", 1, false, false, id, event(&sent[next].id, urgent).as_bytes());
                if client.send(&bytes).is_err() {
                    break 'link;
                }
                flying.push_back(id);
                next += 1;
            }
            match client.read(Duration::from_secs(10)) {
                Some(p) if p.kind == 4 => {
                    let id = u16::from_be_bytes([p.body[0], p.body[1]]);
                    assert_eq!(Some(id), flying.pop_front(), "acknowledgements come in order");
                    acked += 1;
                }
                Some(_) => {}
                None => break 'link,
            }
        }
    }
    sent
}
