//! Publishes by MQTT at QoS 1 and keeps what is not acknowledged: by 5.0, whose acknowledgements say also that
//! a message is refused, and by 3.1.1 with a broker that says that it speaks only that.
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

mod wire;

use bytes::{Bytes, BytesMut};
use citybrain_hub::tls;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use wire::{Granted, Greeting, Hello, Verdict, Version, take_packet};

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
    /// It will not have it, now or later. By 3.1.1 nobody says so.
    Refused {
        number: u64,
        reason: String,
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
    /// Give up after this long without any connection, or without a word to what was sent; `None` tries for ever.
    pub give_up_after: Option<Duration>,
}

/// What a run added up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub acknowledged: u64,
    pub refused: u64,
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
    #[error("{host}:{port} takes nothing for {seconds} s, with {unacknowledged} messages unacknowledged: {reason}")]
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
/// Between two attempts, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

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
    let mut at = Course {
        window: Window::new(options.window),
        totals: Totals::default(),
        open: true,
        moved: Instant::now(),
        pause: PAUSE_MIN,
    };
    let mut version = Version::V5;
    loop {
        let reason = match connect(&options, version).await {
            Ok(connection) => {
                at.totals.connections += 1;
                let _ = events.send(Event::Connected).await;
                at.totals.sent_again += at.window.rewind();
                match session(connection, &mut at, &mut messages, &events).await {
                    Ok(()) => return Ok(at.totals),
                    Err(e) => e.to_string(),
                }
            }
            Err(Connect::Version) if version == Version::V5 => {
                version = Version::V4;
                continue;
            }
            Err(connect @ (Connect::Version | Connect::Refused(_))) => {
                let reason = match connect {
                    Connect::Refused(reason) => reason,
                    _ => "it speaks neither MQTT 5.0 nor 3.1.1".into(),
                };
                return Err(Error::Refused { host: options.target.host.clone(), port: options.target.port, reason });
            }
            Err(Connect::Again(reason)) => reason,
        };
        let _ = events.send(Event::Lost { reason: reason.clone() }).await;
        if options.give_up_after.is_some_and(|max| at.moved.elapsed() > max) {
            return Err(Error::Unreachable {
                host: options.target.host.clone(),
                port: options.target.port,
                seconds: at.moved.elapsed().as_secs(),
                unacknowledged: at.window.len(),
                reason,
            });
        }
        tokio::time::sleep(at.pause).await;
        at.pause = (at.pause * 2).min(PAUSE_MAX);
    }
}

/// What outlives a connection.
struct Course {
    window: Window,
    totals: Totals,
    /// There may be more to publish.
    open: bool,
    /// When something was last answered, or there was nothing to be answered. A broker that lets us in and takes
    /// nothing is no better than one that is away.
    moved: Instant,
    pause: Duration,
}

impl Course {
    /// Tells what became of the message of that packet id.
    async fn settle(&mut self, id: u16, refused: Option<String>, events: &mpsc::Sender<Event>) {
        let Some(number) = self.window.on_ack(id) else { return };
        (self.moved, self.pause) = (Instant::now(), PAUSE_MIN);
        let event = match refused {
            None => {
                self.totals.acknowledged += 1;
                Event::Acknowledged { number }
            }
            Some(reason) => {
                self.totals.refused += 1;
                Event::Refused { number, reason }
            }
        };
        // A caller that no longer listens still wants its messages delivered.
        let _ = events.send(event).await;
    }
}

enum Connect {
    /// It does not speak the version.
    Version,
    Refused(String),
    Again(String),
}

struct Connection {
    stream: Box<dyn Wire>,
    version: Version,
    granted: Granted,
    /// What came behind its greeting.
    input: BytesMut,
}

/// A connection, plain or by TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

async fn connect(options: &Options, version: Version) -> Result<Connection, Connect> {
    let target = &options.target;
    let attempt = async {
        let socket = TcpStream::connect((target.host.as_str(), target.port)).await?;
        // Small packets must not wait for the acknowledgement of those before them.
        socket.set_nodelay(true)?;
        let mut stream: Box<dyn Wire> = match &options.tls {
            Some(tls) => Box::new(tls.connect(&target.host, socket).await?),
            None => Box::new(socket),
        };
        let hello = Hello {
            version,
            client_id: &options.client_id,
            keep_alive_s: KEEP_ALIVE_S,
            username: target.username.as_deref(),
            password: target.password.as_deref(),
        };
        let mut packet = Vec::new();
        hello.encode(&mut packet);
        stream.write_all(&packet).await?;
        stream.flush().await?;
        let mut input = BytesMut::with_capacity(4096);
        loop {
            if let Some((head, body)) = take_packet(&mut input)? {
                return Ok::<_, io::Error>((stream, wire::greeting(version, head, &body), input));
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Err(closed());
            }
        }
    };
    match timeout(IO_MAX, attempt).await {
        Err(_) => Err(Connect::Again(format!("no answer within {} s", IO_MAX.as_secs()))),
        Ok(Err(e)) if tls::is_final(&e) => Err(Connect::Refused(e.to_string())),
        Ok(Err(e)) => Err(Connect::Again(e.to_string())),
        Ok(Ok((stream, Greeting::Welcome(granted), input))) => Ok(Connection { stream, version, granted, input }),
        Ok(Ok((_, Greeting::Version, _))) => Err(Connect::Version),
        Ok(Ok((_, Greeting::Refused(why), _))) => Err(Connect::Refused(why)),
        Ok(Ok((_, Greeting::Again(why), _))) => Err(Connect::Again(why)),
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection")
}

/// One connection. `Ok` when all is published and answered.
async fn session(
    connection: Connection,
    at: &mut Course,
    messages: &mut mpsc::Receiver<Message>,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let Connection { stream, version, granted, mut input } = connection;
    let (mut from, mut to) = tokio::io::split(stream);
    let mut output = Vec::with_capacity(WRITE_BYTES);
    let mut heard = Instant::now();
    let mut pinged = Instant::now();
    let mut tick = tokio::time::interval(QUIET_MAX / 4);
    loop {
        output.clear();
        let mut too_large = None;
        while output.len() < WRITE_BYTES
            && too_large.is_none()
            && at.window.sent < granted.under_way
            && let Some((packet_id, message)) = at.window.poll_send()
        {
            // To send it all the same would end the connection, again and again.
            if wire::publish_bytes(version, &message.topic, &message.payload) > granted.packet_bytes {
                too_large = Some((packet_id, message.payload.len()));
            } else {
                wire::publish(&mut output, version, packet_id, &message.topic, &message.payload);
            }
        }
        let more_to_write = output.len() >= WRITE_BYTES || too_large.is_some();
        if !output.is_empty() {
            write(&mut to, &output).await?;
        }
        if let Some((id, bytes)) = too_large {
            let most = granted.packet_bytes;
            let why = format!("it has {bytes} bytes, and the broker takes packets of {most}");
            at.settle(id, Some(why), events).await;
        }
        if at.window.is_empty() {
            at.moved = Instant::now();
            if !at.open {
                return write(&mut to, &[0xE0, 0]).await;
            }
        }
        tokio::select! {
            n = from.read_buf(&mut input) => {
                if n? == 0 {
                    return Err(closed());
                }
                heard = Instant::now();
                while let Some((head, body)) = take_packet(&mut input)? {
                    match head >> 4 {
                        4 => match wire::puback(version, &body) {
                            Some((id, Verdict::Taken)) => at.settle(id, None, events).await,
                            Some((id, Verdict::Refused(why))) => at.settle(id, Some(why), events).await,
                            // With a new connection it goes again in its order, after a pause.
                            Some((_, Verdict::Again(why))) => return Err(io::Error::other(why)),
                            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "the broker sent no MQTT packet")),
                        },
                        14 => return Err(io::Error::other(wire::farewell(&body))),
                        _ => {}
                    }
                }
            }
            message = messages.recv(), if at.open && at.window.has_room() => match message {
                None => at.open = false,
                Some(first) => {
                    if at.window.is_empty() {
                        at.moved = Instant::now();
                    }
                    at.window.push(first);
                    while at.window.has_room() && let Ok(next) = messages.try_recv() {
                        at.window.push(next);
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
                stream.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
                for taken in 1..=takes {
                    match read_packet(&mut stream, &mut buffer).await {
                        Some((0x32, body)) => {
                            let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                            let payload = String::from_utf8(body[2 + topic + 3..].to_vec()).unwrap();
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

    fn options(port: u16, give_up_after: Duration) -> Options {
        Options {
            target: Target::local(port),
            tls: None,
            client_id: "t".into(),
            window: 8,
            give_up_after: Some(give_up_after),
        }
    }

    /// Connections of a broker that answers CONNECT with `greeting`, and PUBLISH with what `answers` makes of its
    /// packet id; nothing: it closes. Returned: the first bytes of the CONNECTs' levels, and how they went on.
    fn broker(
        greeting: &'static [u8],
        mut answers: impl FnMut(usize, u16) -> Vec<u8> + Send + 'static,
    ) -> (u16, Arc<parking_lot::Mutex<Vec<u8>>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        let levels = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let known = levels.clone();
        tokio::spawn(async move {
            let mut publishes = 0;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = BytesMut::new();
                let Some((0x10, hello)) = read_packet(&mut stream, &mut buffer).await else { continue };
                known.lock().push(hello[6]);
                // One of 3.1.1 has no word for what came after it.
                let is_strange = greeting.len() == 4 && hello[6] == 5;
                let said = if is_strange { &[0x20, 2, 0, 1][..] } else { greeting };
                stream.write_all(said).await.unwrap();
                while let Some((0x32, body)) = read_packet(&mut stream, &mut buffer).await {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let answer = answers(publishes, u16::from_be_bytes([body[2 + topic], body[3 + topic]]));
                    publishes += 1;
                    if answer.is_empty() {
                        break;
                    }
                    stream.write_all(&answer).await.unwrap();
                }
            }
        });
        (port, levels)
    }

    /// Publishes so many, and says what became of them.
    async fn publish(options: Options, many: u64) -> (Result<Totals, Error>, Vec<Event>) {
        let (tx, rx) = mpsc::channel(16);
        let (events_tx, mut events) = mpsc::channel(1024);
        for n in 0..many {
            tx.send(message(n)).await.unwrap();
        }
        drop(tx);
        let ended = timeout(Duration::from_secs(20), run(options, rx, events_tx)).await.expect("it ends");
        let mut all = Vec::new();
        while let Some(event) = events.recv().await {
            all.push(event);
        }
        (ended, all)
    }

    #[tokio::test]
    async fn what_the_broker_refuses_is_told_and_what_it_cannot_take_now_goes_again() {
        let ack = |id: u16, more: &[u8]| {
            let [high, low] = id.to_be_bytes();
            [&[0x40, 2 + more.len() as u8, high, low], more].concat()
        };
        // The first is refused, the second comes too early, and is then taken.
        let (port, _) = broker(&[0x20, 3, 0, 0, 0], move |n, id| ack(id, [&[0x99][..], &[0x97, 0], &[]][n.min(2)]));
        let one_by_one = Options { window: 1, ..options(port, Duration::from_secs(10)) };
        let (ended, events) = publish(one_by_one, 2).await;
        let totals = ended.unwrap();
        assert_eq!((totals.acknowledged, totals.refused, totals.connections), (1, 1, 2), "{events:?}");
        assert!(matches!(&events[1], Event::Refused { number: 0, reason } if reason.contains("0x99")), "{events:?}");
        assert_eq!(events.last(), Some(&Event::Acknowledged { number: 1 }));
    }

    #[tokio::test]
    async fn a_broker_of_3_1_1_is_spoken_to_in_3_1_1() {
        let (port, levels) = broker(&[0x20, 2, 0, 0], |_, id| [&[0x40, 2][..], &id.to_be_bytes()].concat());
        let (ended, _) = publish(options(port, Duration::from_secs(10)), 5).await;
        assert_eq!(ended.unwrap().acknowledged, 5);
        assert_eq!(*levels.lock(), [5, 4]);
    }

    #[tokio::test]
    async fn what_is_larger_than_the_broker_takes_is_refused_and_the_rest_is_sent() {
        let small = &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 24];
        let (port, _) = broker(small, |_, id| [&[0x40, 2][..], &id.to_be_bytes()].concat());
        let (tx, rx) = mpsc::channel(4);
        let (events_tx, mut events) = mpsc::channel(16);
        let large = Message { payload: Bytes::from(vec![b'x'; 100]), ..message(1) };
        let little = |number| Message { payload: Bytes::from_static(b"{}"), ..message(number) };
        for message in [little(0), large, little(2)] {
            tx.send(message).await.unwrap();
        }
        drop(tx);
        let totals = run(options(port, Duration::from_secs(10)), rx, events_tx).await.unwrap();
        assert_eq!((totals.acknowledged, totals.refused, totals.connections), (2, 1, 1));
        let mut refused = None;
        while let Some(event) = events.recv().await {
            if let Event::Refused { number, reason } = event {
                refused = Some((number, reason));
            }
        }
        assert_eq!(refused, Some((1, "it has 100 bytes, and the broker takes packets of 24".into())));
    }

    #[tokio::test]
    async fn a_broker_that_lets_us_in_and_closes_on_each_publish_is_given_up_and_not_asked_all_the_time() {
        let (port, levels) = broker(&[0x20, 3, 0, 0, 0], |_, _| Vec::new());
        let (ended, _) = publish(options(port, Duration::from_millis(600)), 3).await;
        assert!(matches!(ended.unwrap_err(), Error::Unreachable { unacknowledged: 3, .. }));
        // 20, 40, 80, 160, 320, 500 ms lie between them.
        assert!(levels.lock().len() <= 8, "{:?}", levels.lock());
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
