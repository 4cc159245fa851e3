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
//!
//! | module | what it owns |
//! |---|---|
//! | here | one connection after another |
//! | `target` | where to publish, from a URL |
//! | `window` | the messages under way: pure |
//! | `wire` | the packets' bytes, by 5.0 and 3.1.1: pure |

mod target;
#[cfg(test)]
mod tests;
mod window;
mod wire;

pub use target::Target;

use bytes::{Bytes, BytesMut};
use citybrain_hub::door::packet::client::{self, Hello};
use citybrain_hub::door::packet::{Version, kind};
use citybrain_hub::tls;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use window::Window;
use wire::{Granted, Greeting, Verdict, take_packet};

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
            // What is unacknowledged is kept here.
            clean: true,
            keep_alive_s: KEEP_ALIVE_S,
            username: target.username.as_deref(),
            password: target.password.as_deref(),
        };
        let mut packet = Vec::new();
        hello.put(&mut packet);
        stream.write_all(&packet).await?;
        stream.flush().await?;
        let mut input = BytesMut::with_capacity(4096);
        loop {
            if let Some((packet, body)) = take_packet(&mut input)? {
                return Ok::<_, io::Error>((stream, wire::greeting(version, packet, &body), input));
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
            let packet = client::publish(packet_id, &message.topic, &message.payload);
            if packet.packet_bytes(version) > granted.packet_bytes {
                too_large = Some((packet_id, message.payload.len()));
            } else {
                packet.put(version, &mut output);
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
                output.clear();
                client::put_goodbye(&mut output);
                return write(&mut to, &output).await;
            }
        }
        tokio::select! {
            n = from.read_buf(&mut input) => {
                if n? == 0 {
                    return Err(closed());
                }
                heard = Instant::now();
                while let Some((packet, body)) = take_packet(&mut input)? {
                    match packet {
                        kind::PUBACK => match wire::puback(version, &body) {
                            Ok((id, Verdict::Taken)) => at.settle(id, None, events).await,
                            Ok((id, Verdict::Refused(why))) => at.settle(id, Some(why), events).await,
                            // With a new connection it goes again in its order, after a pause.
                            Ok((_, Verdict::Again(why))) => return Err(io::Error::other(why)),
                            Err(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "the broker sent no MQTT packet")),
                        },
                        kind::DISCONNECT => return Err(io::Error::other(wire::farewell(&body))),
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
                    output.clear();
                    client::put_ping(&mut output);
                    write(&mut to, &output).await?;
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
