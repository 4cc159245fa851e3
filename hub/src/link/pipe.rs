//! What carries link messages: an MQTT client, used as a pipe only.
//!
//! A pipe may lose, repeat and reorder; the link's own acknowledgements make good for it. One pipe
//! is one connection: whoever holds it makes a new one after [`Event::Disconnected`], because a
//! client that reconnects by itself silently forgets what it had accepted.

use super::view::{Cause, Lost};
use crate::broker::{self, Broker};
use crate::door::LocalClient;
use crate::tls;
use bytes::Bytes;
use citybrain_shared::words::with_causes;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event as Mqtt, EventLoop, LastWill, Packet, QoS, StateError,
    SubscribeFilter, TlsError,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Messages and bytes that wait for the driver. Beyond it messages are dropped, as the network
/// might have done: the poll task must never wait for the driver, which may be waiting for it.
const INBOX_MESSAGES_MAX: usize = 1024;
const INBOX_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Requests that wait for the poll task. Two windows of frames each way, and acknowledgements.
const OUTBOX_MESSAGES_MAX: usize = 64;

/// An MQTT packet around a message: its topic (an address of at most 255 bytes) and header.
pub const PACKET_SLACK_BYTES: usize = 1024;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Connected, and subscribed to everything that was asked for.
    Connected,
    Message {
        topic: String,
        payload: Bytes,
    },
    /// So many messages were thrown away, because the driver was behind.
    Dropped(u64),
    /// The end of this pipe.
    Disconnected(Lost),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipe is closed")]
pub struct Closed;

/// One connection.
pub struct Pipe {
    pub outlet: Outlet,
    pub inlet: Inlet,
}

/// Publishes; cheap to clone.
#[derive(Clone)]
pub struct Outlet(OutletKind);

#[derive(Clone)]
enum OutletKind {
    Mqtt(AsyncClient),
    Local(mpsc::Sender<(String, Bytes, bool)>),
}

pub struct Inlet(InletKind);

enum InletKind {
    Mqtt {
        rx: mpsc::Receiver<Event>,
        queued_bytes: Arc<AtomicUsize>,
        dropped: Arc<AtomicU64>,
        task: tokio::task::AbortHandle,
    },
    Local {
        rx: mpsc::Receiver<(String, Bytes)>,
        is_new: bool,
    },
    /// There was nothing to dial with.
    Refused(Lost),
}

impl Pipe {
    /// One that ends at once, as a connection does that cannot be made.
    fn refused(why: String) -> Pipe {
        let (closed, _) = mpsc::channel(1);
        Pipe { outlet: Outlet(OutletKind::Local(closed)), inlet: Inlet(InletKind::Refused(Lost::because(why))) }
    }
}

impl Outlet {
    /// Waits while the connection is busy. At QoS 0: the link acknowledges by itself. What is
    /// retained goes at QoS 1, since nothing repeats it.
    ///
    /// # Errors
    /// [`Closed`] when the connection is gone.
    pub async fn publish(&self, topic: String, payload: impl Into<Bytes>, retain: bool) -> Result<(), Closed> {
        let payload = payload.into();
        match &self.0 {
            OutletKind::Mqtt(client) => {
                let qos = if retain { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                client.publish_bytes(topic, qos, retain, payload).await.map_err(|_| Closed)
            }
            OutletKind::Local(tx) => tx.send((topic, payload, retain)).await.map_err(|_| Closed),
        }
    }
}

impl Inlet {
    /// The next event; after `Disconnected` only that. Cancel-safe.
    pub async fn recv(&mut self) -> Event {
        let closed = || Event::Disconnected(Lost::because("the connection was closed"));
        match &mut self.0 {
            InletKind::Mqtt { rx, queued_bytes, dropped, .. } => {
                match dropped.swap(0, Ordering::Relaxed) {
                    0 => {}
                    n => return Event::Dropped(n),
                }
                let event = rx.recv().await.unwrap_or_else(closed);
                if let Event::Message { payload, .. } = &event {
                    queued_bytes.fetch_sub(payload.len(), Ordering::Relaxed);
                }
                event
            }
            InletKind::Local { is_new, .. } if *is_new => {
                *is_new = false;
                Event::Connected
            }
            InletKind::Local { rx, .. } => {
                rx.recv().await.map_or_else(closed, |(topic, payload)| Event::Message { topic, payload })
            }
            InletKind::Refused(why) => Event::Disconnected(why.clone()),
        }
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        if let InletKind::Mqtt { task, .. } = &self.0 {
            task.abort();
        }
    }
}

/// The embedded front door's own client: what is published goes into `tx` (topic, payload,
/// retain), what was subscribed to comes out of `rx`. The door closes both to end it.
pub struct LocalPipe {
    pub tx: mpsc::Sender<(String, Bytes, bool)>,
    pub rx: mpsc::Receiver<(String, Bytes)>,
}

impl From<LocalPipe> for Pipe {
    fn from(local: LocalPipe) -> Pipe {
        Pipe {
            outlet: Outlet(OutletKind::Local(local.tx)),
            inlet: Inlet(InletKind::Local { rx: local.rx, is_new: true }),
        }
    }
}

/// The parent's pipe to its own embedded front door. Ends when either half of it is dropped.
pub fn local(mut client: LocalClient) -> Pipe {
    let (tx, mut out) = mpsc::channel::<(String, Bytes, bool)>(OUTBOX_MESSAGES_MAX);
    let (inbox, rx) = mpsc::channel(OUTBOX_MESSAGES_MAX);
    tokio::spawn(async move {
        loop {
            // While the inbox is full the children's connections are held back; what this node says
            // to them still leaves.
            let is_room = inbox.capacity() > 0;
            tokio::select! {
                biased;
                message = out.recv() => match message {
                    Some((topic, payload, retain)) => client.publish(&topic, payload, retain),
                    None => return,
                },
                message = client.recv(), if is_room => {
                    let Some(message) = message else { return };
                    // The end of a connection shows in the will that the child left.
                    if !message.closed && inbox.try_send((message.topic, message.payload)).is_err() {
                        return;
                    }
                }
                place = inbox.reserve(), if !is_room => if place.is_err() { return },
            }
        }
    });
    LocalPipe { tx, rx }.into()
}

/// Opens one connection with a clean session. The poll task is spawned here and ends with it.
///
/// `will`: topic and payload that the broker publishes, retained, when the connection breaks.
pub fn connect(broker: &Broker, client_id: String, will: Option<(String, Vec<u8>)>, filters: Vec<String>) -> Pipe {
    let mut options = match broker::options(broker, client_id, broker.message_bytes_max + PACKET_SLACK_BYTES) {
        Ok(options) => options,
        Err(why) => return Pipe::refused(why),
    };
    options.set_clean_session(true);
    if let Some((topic, payload)) = will {
        options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, true));
    }
    let (client, events) = broker::client(options, OUTBOX_MESSAGES_MAX);
    let (tx, rx) = mpsc::channel(INBOX_MESSAGES_MAX);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::new(AtomicU64::new(0));
    let poll = poll(events, client.clone(), filters, tx, queued_bytes.clone(), dropped.clone());
    let task = tokio::spawn(poll).abort_handle();
    Pipe { outlet: Outlet(OutletKind::Mqtt(client)), inlet: Inlet(InletKind::Mqtt { rx, queued_bytes, dropped, task }) }
}

fn lost(error: &ConnectionError) -> Lost {
    let cause = match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => Cause::Login,
        ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable) => Cause::Unavailable,
        ConnectionError::Tls(TlsError::Io(e))
        | ConnectionError::Io(e)
        | ConnectionError::MqttState(StateError::Io(e))
            if tls::is_final(e) =>
        {
            Cause::Certificate
        }
        _ => Cause::Other,
    };
    Lost { cause, text: with_causes(error) }
}

/// Awaits nothing but the connection.
async fn poll(
    mut events: EventLoop,
    client: AsyncClient,
    filters: Vec<String>,
    tx: mpsc::Sender<Event>,
    queued_bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
) {
    let why: Lost = loop {
        match events.poll().await {
            Ok(Mqtt::Incoming(Packet::ConnAck(_))) => {
                let keep_alive = events.mqtt_options.keep_alive();
                broker::be_patient(&mut events, keep_alive);
                let filters = filters.iter().map(|f| SubscribeFilter::new(f.clone(), QoS::AtMostOnce));
                if client.try_subscribe_many(filters).is_err() {
                    break Lost::because("cannot subscribe");
                }
            }
            Ok(Mqtt::Incoming(Packet::SubAck(ack))) => {
                if ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure) {
                    break Lost::because("the broker refuses the subscription: check the account's rights");
                }
                if tx.try_send(Event::Connected).is_err() {
                    break Lost::because("the driver is gone");
                }
            }
            Ok(Mqtt::Incoming(Packet::Publish(p))) => {
                let len = p.payload.len();
                let is_room = queued_bytes.load(Ordering::Relaxed) + len <= INBOX_BYTES_MAX;
                // Counted before it can be taken out, or the count would wrap below zero.
                queued_bytes.fetch_add(len, Ordering::Relaxed);
                if !is_room || tx.try_send(Event::Message { topic: p.topic, payload: p.payload }).is_err() {
                    queued_bytes.fetch_sub(len, Ordering::Relaxed);
                    dropped.fetch_add(1, Ordering::Relaxed);
                    if tx.is_closed() {
                        return;
                    }
                }
            }
            Ok(Mqtt::Incoming(Packet::Disconnect)) => break Lost::because("the broker ended the connection"),
            Ok(_) => {}
            Err(e) => break lost(&e),
        }
    };
    // If the inbox is full the end of the channel says the same.
    let _ = tx.try_send(Event::Disconnected(why));
}
