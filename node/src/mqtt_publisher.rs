//! Publishes by MQTT 3.1.1 at QoS 1 and keeps what is not acknowledged.
//!
//! **Constraints.** A message leaves this module's memory only when its PUBACK came. After any break
//! of the connection everything unacknowledged is sent again, in the first order and byte for byte:
//! the event keeps its id, so that the receiver knows it again. At most [`Options::window`] messages
//! are under way; beyond that the caller's channel fills, which is the back-pressure.
//!
//! **Why not a client library.** Libraries clear or reorder their own queue when the broker has lost
//! the session. Here the queue is ours, each connection is a clean session, and four packet types
//! are all that it takes.
//!
//! **Operation.** [`run`] owns one connection at a time. It ends when the channel of messages is
//! closed and all is acknowledged, or with an [`Error`] that retrying does not cure.

use bytes::{Buf, Bytes, BytesMut};
use citybrain_hub::tls;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// One publish. `number` is the caller's own and comes back with the acknowledgement.
#[derive(Clone, Debug)]
pub struct Message {
    pub number: u64,
    pub topic: Arc<str>,
    pub payload: Bytes,
}

/// What happens on the way, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connected,
    /// The connection is gone, or could not be made; it is tried again.
    Lost {
        reason: String,
    },
    /// The node has the message on disk.
    Acknowledged {
        number: u64,
    },
}

#[derive(Clone, Debug)]
pub struct Options {
    pub target: Target,
    /// For a target at `mqtts://`, and only there.
    pub tls: Option<tls::Client>,
    pub client_id: String,
    /// Messages under way, 1 to 32,768.
    pub window: usize,
    /// Give up after this long without any connection; `None` tries for ever.
    pub give_up_after: Option<Duration>,
}

/// What a run added up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub acknowledged: u64,
    /// Publishes written more than once, because a connection broke before their acknowledgement.
    pub sent_again: u64,
    pub connections: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{url}` is not an MQTT address: {reason}; write mqtt://[USER[:PASSWORD]@]HOST[:PORT], or mqtts://")]
    Target { url: String, reason: &'static str },
    #[error("{host}:{port} refuses the connection: {reason}")]
    Refused { host: String, port: u16, reason: String },
    #[error("no connection to {host}:{port} for {seconds} s, with {unacknowledged} messages unacknowledged: {reason}")]
    Unreachable { host: String, port: u16, seconds: u64, unacknowledged: usize, reason: String },
}

/// Where to publish, from a URL such as `mqtt://127.0.0.1:1883`.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub is_tls: bool,
    pub host: String,
    pub port: u16,
    pub username: Option<String>,
    password: Option<String>,
}

impl Target {
    pub fn local(port: u16) -> Target {
        Target { is_tls: false, host: "127.0.0.1".into(), port, username: None, password: None }
    }

    /// # Errors
    /// [`Error::Target`] when the text is no `mqtt://` or `mqtts://` URL.
    pub fn parse(url: &str) -> Result<Target, Error> {
        // The URL may hold a password: an error shows only what follows it.
        let shown = url.rsplit_once('@').map_or(url, |(_, place)| place);
        let fail = |reason| Error::Target { url: shown.to_owned(), reason };
        let (is_tls, rest) = match (url.strip_prefix("mqtt://"), url.strip_prefix("mqtts://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(fail("it begins neither with mqtt:// nor with mqtts://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| fail("its port is not a number up to 65535"))?)
            }
            _ => (place, if is_tls { 8883 } else { 1883 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains('/') {
            return Err(fail("it names no host"));
        }
        let (username, password) = match user.map(|u| u.split_once(':').unwrap_or((u, ""))) {
            Some((user, "")) => (Some(user.to_owned()), None),
            Some((user, password)) => (Some(user.to_owned()), Some(password.to_owned())),
            None => (None, None),
        };
        Ok(Target { is_tls, host: host.to_owned(), port, username, password })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mqtt{}://{}:{}", if self.is_tls { "s" } else { "" }, self.host, self.port)
    }
}

/// Without the password.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// How long one connect or one write may take before the connection counts as broken.
const IO_MAX: Duration = Duration::from_secs(5);
/// A ping goes out after this long without a word from the broker; after three times as long the
/// connection counts as half-open.
const QUIET_MAX: Duration = Duration::from_secs(4);
const KEEP_ALIVE_S: u16 = 30;
/// Bytes gathered for one write.
const WRITE_BYTES: usize = 64 * 1024;
/// The largest packet a broker may send us, bytes: we subscribe to nothing.
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// Publishes what comes through `messages`, in order; tells `events` what happens.
///
/// # Errors
/// [`Error::Refused`] for credentials or certificates that are not accepted, [`Error::Unreachable`] after
/// [`Options::give_up_after`].
pub async fn run(
    options: Options,
    mut messages: mpsc::Receiver<Message>,
    events: mpsc::Sender<Event>,
) -> Result<Totals, Error> {
    let mut window = Window::new(options.window);
    let mut totals = Totals::default();
    let mut open = true;
    let mut down_since = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        let reason = match connect(&options).await {
            Ok(stream) => {
                totals.connections += 1;
                let _ = events.send(Event::Connected).await;
                totals.sent_again += window.rewind();
                match session(stream, &mut window, &mut messages, &mut open, &events, &mut totals).await {
                    Ok(()) => return Ok(totals),
                    Err(e) => {
                        down_since = Instant::now();
                        pause = Duration::from_millis(20);
                        e.to_string()
                    }
                }
            }
            Err(Connect::Refused(reason)) => {
                return Err(Error::Refused { host: options.target.host.clone(), port: options.target.port, reason });
            }
            Err(Connect::Again(reason)) => reason,
        };
        let _ = events.send(Event::Lost { reason: reason.clone() }).await;
        if options.give_up_after.is_some_and(|max| down_since.elapsed() > max) {
            return Err(Error::Unreachable {
                host: options.target.host.clone(),
                port: options.target.port,
                seconds: down_since.elapsed().as_secs(),
                unacknowledged: window.len(),
                reason,
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

enum Connect {
    Refused(String),
    Again(String),
}

/// A connection, plain or by TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

async fn connect(options: &Options) -> Result<Box<dyn Wire>, Connect> {
    let target = &options.target;
    let attempt = async {
        let socket = TcpStream::connect((target.host.as_str(), target.port)).await?;
        // Small packets must not wait for the acknowledgement of those before them.
        socket.set_nodelay(true)?;
        let mut stream: Box<dyn Wire> = match &options.tls {
            Some(tls) => Box::new(tls.connect(&target.host, socket).await?),
            None => Box::new(socket),
        };
        let mut packet = Vec::new();
        encode_connect(&mut packet, &options.client_id, target.username.as_deref(), target.password.as_deref());
        stream.write_all(&packet).await?;
        stream.flush().await?;
        let mut answer = [0u8; 4];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>((stream, answer))
    };
    let (stream, answer) = match timeout(IO_MAX, attempt).await {
        Err(_) => return Err(Connect::Again(format!("no answer within {} s", IO_MAX.as_secs()))),
        Ok(Err(e)) if tls::is_final(&e) => return Err(Connect::Refused(e.to_string())),
        Ok(Err(e)) => return Err(Connect::Again(e.to_string())),
        Ok(Ok(done)) => done,
    };
    match answer {
        [0x20, 2, _, 0] => Ok(stream),
        [0x20, 2, _, 1] => Err(Connect::Refused("it does not speak MQTT 3.1.1".into())),
        [0x20, 2, _, 2] => Err(Connect::Refused("it does not like the client id".into())),
        [0x20, 2, _, 4] => Err(Connect::Refused("wrong user name or password".into())),
        [0x20, 2, _, 5] => Err(Connect::Refused("not authorised".into())),
        [0x20, 2, _, code] => Err(Connect::Again(format!("it is not available (code {code})"))),
        _ => Err(Connect::Again("its answer is not MQTT".into())),
    }
}

/// One connection. `Ok` when all is published and acknowledged.
async fn session(
    stream: Box<dyn Wire>,
    window: &mut Window,
    messages: &mut mpsc::Receiver<Message>,
    open: &mut bool,
    events: &mpsc::Sender<Event>,
    totals: &mut Totals,
) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut input = BytesMut::with_capacity(4096);
    let mut output = Vec::with_capacity(WRITE_BYTES);
    let mut heard = Instant::now();
    let mut pinged = Instant::now();
    let mut tick = tokio::time::interval(QUIET_MAX / 4);
    loop {
        output.clear();
        while output.len() < WRITE_BYTES
            && let Some((packet_id, message)) = window.poll_send()
        {
            encode_publish(&mut output, packet_id, &message.topic, &message.payload);
        }
        let more_to_write = output.len() >= WRITE_BYTES;
        if !output.is_empty() {
            write(&mut to, &output).await?;
        }
        if !*open && window.is_empty() {
            return write(&mut to, &[0xE0, 0]).await;
        }
        tokio::select! {
            n = from.read_buf(&mut input) => {
                if n? == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection"));
                }
                heard = Instant::now();
                while let Some((head, body)) = take_packet(&mut input)? {
                    if head >> 4 == 4 && body.len() >= 2
                        && let Some(number) = window.on_ack(u16::from_be_bytes([body[0], body[1]]))
                    {
                        totals.acknowledged += 1;
                        // A caller that no longer listens still wants its messages delivered.
                        let _ = events.send(Event::Acknowledged { number }).await;
                    }
                }
            }
            message = messages.recv(), if *open && window.has_room() => match message {
                None => *open = false,
                Some(first) => {
                    window.push(first);
                    while window.has_room() && let Ok(next) = messages.try_recv() {
                        window.push(next);
                    }
                }
            },
            _ = tick.tick() => {
                if heard.elapsed() > QUIET_MAX * 3 {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the broker no longer answers"));
                }
                if heard.elapsed() > QUIET_MAX && pinged.elapsed() > QUIET_MAX {
                    pinged = Instant::now();
                    write(&mut to, &[0xC0, 0]).await?;
                }
            }
            () = std::future::ready(()), if more_to_write => {}
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let written = async {
        to.write_all(bytes).await?;
        // TLS may still hold a part of it.
        to.flush().await
    };
    match timeout(IO_MAX, written).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the broker takes no more bytes")),
    }
}

/// The messages under way: pure, without I/O or clock.
struct Window {
    /// Oldest first. The first `sent` of them were written to this connection.
    messages: VecDeque<(u16, Message)>,
    sent: usize,
    size: usize,
    last_id: u16,
}

impl Window {
    fn new(size: usize) -> Window {
        // Half of all packet ids, so that an id is never given to a second message under way.
        Window { messages: VecDeque::new(), sent: 0, size: size.clamp(1, 32_768), last_id: 0 }
    }

    fn len(&self) -> usize {
        self.messages.len()
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn has_room(&self) -> bool {
        self.messages.len() < self.size
    }

    fn push(&mut self, message: Message) {
        self.last_id = match self.last_id {
            u16::MAX => 1,
            id => id + 1,
        };
        self.messages.push_back((self.last_id, message));
    }

    /// The next message to write, oldest first.
    fn poll_send(&mut self) -> Option<(u16, &Message)> {
        let (id, message) = self.messages.get(self.sent)?;
        self.sent += 1;
        Some((*id, message))
    }

    /// The number of the message that `id` acknowledges; `None` if there is none under way.
    fn on_ack(&mut self, id: u16) -> Option<u64> {
        let at = self.messages.iter().take(self.sent).position(|(other, _)| *other == id)?;
        self.sent -= 1;
        self.messages.remove(at).map(|(_, message)| message.number)
    }

    /// A new connection knows nothing of what was written to the last one. How many go again.
    fn rewind(&mut self) -> u64 {
        std::mem::take(&mut self.sent) as u64
    }
}

fn encode_connect(out: &mut Vec<u8>, client_id: &str, username: Option<&str>, password: Option<&str>) {
    let mut flags = 0x02; // clean session: what is unacknowledged is kept here
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.push(4);
    if username.is_some() {
        flags |= 0x80;
    }
    if password.is_some() {
        flags |= 0x40;
    }
    body.push(flags);
    body.extend_from_slice(&KEEP_ALIVE_S.to_be_bytes());
    text(&mut body, client_id);
    for field in [username, password].into_iter().flatten() {
        text(&mut body, field);
    }
    out.push(0x10);
    length(out, body.len());
    out.extend_from_slice(&body);
}

fn encode_publish(out: &mut Vec<u8>, packet_id: u16, topic: &str, payload: &[u8]) {
    out.push(0x32); // PUBLISH, QoS 1
    length(out, 2 + topic.len() + 2 + payload.len());
    text(out, topic);
    out.extend_from_slice(&packet_id.to_be_bytes());
    out.extend_from_slice(payload);
}

fn text(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn length(out: &mut Vec<u8>, mut n: usize) {
    loop {
        let byte = (n % 128) as u8;
        n /= 128;
        out.push(if n > 0 { byte | 0x80 } else { byte });
        if n == 0 {
            return;
        }
    }
}

/// The first whole packet in `input`: its first byte and its body.
fn take_packet(input: &mut BytesMut) -> io::Result<Option<(u8, Bytes)>> {
    let (mut n, mut used) = (0usize, 1);
    loop {
        let Some(byte) = input.get(used) else { return Ok(None) };
        n |= usize::from(byte & 0x7F) << (7 * (used - 1));
        used += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if used > 4 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the broker sent no MQTT packet"));
        }
    }
    if n > PACKET_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the broker sent a packet over 64 KiB"));
    }
    if input.len() < used + n {
        return Ok(None);
    }
    let head = input[0];
    input.advance(used);
    Ok(Some((head, input.split_to(n).freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn message(number: u64) -> Message {
        Message { number, topic: "in/t".into(), payload: Bytes::from(format!("{{\"id\":\"{number}\"}}")) }
    }

    #[test]
    fn a_url_names_host_port_and_user() {
        let t = Target::parse("mqtt://ann:se@cret@broker.example:1884").unwrap();
        assert_eq!((t.host.as_str(), t.port, t.username.as_deref()), ("broker.example", 1884, Some("ann")));
        assert_eq!(t.password.as_deref(), Some("se@cret"));
        assert_eq!(Target::parse("mqtt://[::1]:99").unwrap().host, "::1");
        assert_eq!(Target::parse("mqtt://[::1]").unwrap().port, 1883);
        assert_eq!(Target::parse("mqtt://h").unwrap().to_string(), "mqtt://h:1883");
        assert_eq!(Target::parse("mqtts://h").unwrap().to_string(), "mqtts://h:8883");
        for bad in ["http://h", "mqtt://", "mqtt://h:x", "mqtt://u:secret@h:99999"] {
            let error = Target::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_new_connection_sends_everything_unacknowledged_again_in_the_first_order() {
        let mut w = Window::new(10);
        for n in 1..=5 {
            w.push(message(n));
        }
        let sent: Vec<u16> = std::iter::from_fn(|| w.poll_send().map(|(id, _)| id)).take(4).collect();
        assert_eq!(w.on_ack(sent[1]), Some(2));
        assert_eq!(w.on_ack(sent[0]), Some(1));
        assert_eq!(w.on_ack(sent[0]), None, "an acknowledgement counts once");
        assert_eq!(w.rewind(), 2);
        let again: Vec<u64> = std::iter::from_fn(|| w.poll_send().map(|(_, m)| m.number)).collect();
        assert_eq!(again, [3, 4, 5]);
    }

    #[test]
    fn an_acknowledgement_for_a_message_never_written_is_ignored() {
        let mut w = Window::new(10);
        w.push(message(1));
        assert_eq!(w.on_ack(1), None);
    }

    #[test]
    fn packet_ids_wrap_around_without_zero() {
        let mut w = Window::new(1);
        w.last_id = u16::MAX - 1;
        let ids: Vec<u16> = (0..3)
            .map(|n| {
                w.push(message(n));
                let id = w.poll_send().unwrap().0;
                w.on_ack(id);
                id
            })
            .collect();
        assert_eq!(ids, [u16::MAX, 1, 2]);
    }

    #[test]
    fn packets_are_cut_out_of_the_stream_wherever_it_is_split() {
        let mut stream = BytesMut::new();
        let whole = [0x40, 2, 0, 7, 0xD0, 0];
        for (i, byte) in whole.iter().enumerate() {
            stream.extend_from_slice(&[*byte]);
            match (i, take_packet(&mut stream).unwrap()) {
                (3, Some((0x40, body))) => assert_eq!(&body[..], [0, 7]),
                (5, Some((0xD0, body))) => assert!(body.is_empty()),
                (3 | 5, other) => panic!("{other:?}"),
                (_, none) => assert!(none.is_none()),
            }
        }
        stream.extend_from_slice(&[0x40, 0xFF, 0xFF, 0xFF, 0xFF, 1]);
        assert!(take_packet(&mut stream).is_err());
    }

    /// Reads one packet as a broker would; `None` at the end of the stream.
    async fn read_packet(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<(u8, Bytes)> {
        loop {
            if let Some(packet) = take_packet(buffer).unwrap() {
                return Some(packet);
            }
            if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_lost_and_order_holds_when_the_broker_breaks_off_again_and_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = tokio::spawn(async move {
            let mut committed: Vec<String> = Vec::new();
            // Each connection takes 7 publishes more than the last and acknowledges all but three.
            for takes in (7..).step_by(7) {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = BytesMut::new();
                assert_eq!(read_packet(&mut stream, &mut buffer).await.unwrap().0, 0x10);
                stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
                for taken in 1..=takes {
                    match read_packet(&mut stream, &mut buffer).await {
                        Some((0x32, body)) => {
                            let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                            let payload = String::from_utf8(body[2 + topic + 2..].to_vec()).unwrap();
                            if !committed.contains(&payload) {
                                committed.push(payload);
                            }
                            if taken + 3 <= takes {
                                let ack = [0x40, 2, body[2 + topic], body[3 + topic]];
                                stream.write_all(&ack).await.unwrap();
                            }
                        }
                        Some((0xE0, _)) => return committed,
                        other => panic!("{other:?}"),
                    }
                }
            }
            unreachable!("the range has no end")
        });
        let (tx, rx) = mpsc::channel(16);
        let (events_tx, mut events) = mpsc::channel(16);
        let options = Options {
            target: Target::local(port),
            tls: None,
            client_id: "t".into(),
            window: 20,
            give_up_after: Some(Duration::from_secs(10)),
        };
        let publisher = tokio::spawn(run(options, rx, events_tx));
        tokio::spawn(async move {
            for n in 0..100 {
                tx.send(message(n)).await.unwrap();
            }
        });
        let mut acknowledged = Vec::new();
        while let Some(event) = events.recv().await {
            if let Event::Acknowledged { number } = event {
                acknowledged.push(number);
            }
        }
        let totals = publisher.await.unwrap().unwrap();
        let committed = broker.await.unwrap();
        let want: Vec<String> = (0..100).map(|n| format!("{{\"id\":\"{n}\"}}")).collect();
        assert_eq!(committed, want);
        acknowledged.sort_unstable();
        assert_eq!(acknowledged, (0..100).collect::<Vec<_>>());
        assert!(totals.sent_again >= 3 && totals.connections > 2, "{totals:?}");
    }

    #[tokio::test]
    async fn a_broker_that_never_comes_ends_the_run_with_its_name() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (_tx, rx) = mpsc::channel(1);
        let (events, _) = mpsc::channel(1);
        let options = Options {
            target: Target::local(free),
            tls: None,
            client_id: "t".into(),
            window: 1,
            give_up_after: Some(Duration::from_millis(50)),
        };
        let error = run(options, rx, events).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { port, .. } if port == free), "{error}");
    }
}
