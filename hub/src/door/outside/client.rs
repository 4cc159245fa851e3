//! The connection to an outside broker: MQTT 3.1.1, a session that the broker keeps, QoS 1 both
//! ways, acknowledged by hand.

use crate::broker::{self, Broker};
use bytes::Bytes;
use citybrain_shared::words::with_causes;
use rumqttc::{AsyncClient, ConnectionError, Event as Mqtt, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use rumqttc::{SubscribeFilter, SubscribeReasonCode};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Messages of ours that the broker has not acknowledged. At 0.2 ms a round trip 300,000 a second.
pub(super) const WINDOW: usize = 64;

/// Messages of the broker's that the node has not taken; then nothing is read, until it has.
const INBOX_MAX: usize = 256;

/// A window of publishes, and an acknowledgement for each message that a broker may have under way (one
/// a packet id): while the window is full the library sends no acknowledgements either.
const REQUESTS_MAX: usize = WINDOW + u16::MAX as usize;

/// A connection that is gone has said so by then.
const END_WITHIN: Duration = Duration::from_secs(1);
/// A broker that is there takes a connection by then.
const DIAL_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) enum Event {
    /// Connected, first of all. False: the broker has a new session, with nothing in it.
    Began {
        is_known: bool,
    },
    /// In place of [`Event::Began`]: the broker certainly began no session.
    Refused(String),
    /// The answer to [`Client::subscribe`], filter by filter: granted or not.
    Subscribed(Vec<bool>),
    Message(Message),
    /// The oldest publish that has no packet id yet was sent under this one.
    Sent(u16),
    Acknowledged(u16),
    Ended(String),
}

/// A message of the broker's; to be acknowledged by [`Client::acknowledge`].
#[derive(Debug)]
pub(super) struct Message(rumqttc::Publish);

impl Message {
    pub(super) fn topic(&self) -> &str {
        &self.0.topic
    }

    pub(super) fn payload(&self) -> &Bytes {
        &self.0.payload
    }

    pub(super) fn qos(&self) -> u8 {
        self.0.qos as u8
    }

    pub(super) fn retain(&self) -> bool {
        self.0.retain
    }
}

/// The requests' queue has no room, or the connection is gone; its end is told by an event.
#[derive(Debug)]
pub(super) struct Busy;

/// Settled before anything is sent.
pub(super) struct Dial(MqttOptions);

impl Dial {
    /// `id` names the session that the broker keeps between connections.
    ///
    /// # Errors
    /// Why the files cannot be used. Those that are being replaced are better the next time.
    pub(super) fn new(broker: &Broker, id: &str, packet_bytes_max: usize) -> Result<Dial, String> {
        let mut options = broker::options(broker, id.to_owned(), packet_bytes_max)?;
        options.set_clean_session(false);
        options.set_manual_acks(true);
        options.set_inflight(WINDOW as u16);
        Ok(Dial(options))
    }

    /// Does anybody take connections there?
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn probe(&self) -> Result<(), String> {
        let dialled = tokio::time::timeout(DIAL_WITHIN, TcpStream::connect(self.0.broker_address())).await;
        dialled.map_err(|_| "nobody answers there".to_owned())?.map(drop).map_err(|e| with_causes(&e))
    }

    pub(super) fn connect(self) -> Client {
        let (client, event_loop) = broker::client(self.0, REQUESTS_MAX);
        let (tx, events) = mpsc::channel(INBOX_MAX);
        let task = tokio::spawn(poll(event_loop, tx)).abort_handle();
        Client { client, events, task }
    }
}

/// One connection; it ends with its owner.
pub(super) struct Client {
    client: AsyncClient,
    events: mpsc::Receiver<Event>,
    task: tokio::task::AbortHandle,
}

impl Client {
    /// Cancel-safe.
    pub(super) async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap_or_else(|| Event::Ended("the connection was closed".into()))
    }

    /// What has come already.
    pub(super) fn event_now(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// After [`Busy`]: why the connection ended, if it did. Its end stands behind what came before it.
    pub(super) async fn why_busy(&mut self) -> String {
        let end = async {
            loop {
                if let Event::Ended(why) = self.event().await {
                    return why;
                }
            }
        };
        let full = "more waits for the broker than the connection takes";
        tokio::time::timeout(END_WITHIN, end).await.unwrap_or_else(|_| full.into())
    }

    /// At QoS 1. Its packet id is told by [`Event::Sent`], in the order of these calls.
    ///
    /// # Errors
    /// [`Busy`]: it was not taken.
    pub(super) fn publish(&self, topic: String, payload: Vec<u8>) -> Result<(), Busy> {
        self.client.try_publish(topic, QoS::AtLeastOnce, false, payload).map_err(|_| Busy)
    }

    /// # Errors
    /// [`Busy`]: it was not asked for.
    pub(super) fn subscribe(&self, filters: impl IntoIterator<Item = String>) -> Result<(), Busy> {
        let filters = filters.into_iter().map(|f| SubscribeFilter::new(f, QoS::AtLeastOnce));
        self.client.try_subscribe_many(filters).map_err(|_| Busy)
    }

    /// # Errors
    /// [`Busy`]: it was not asked for.
    pub(super) fn unsubscribe(&self, filter: String) -> Result<(), Busy> {
        self.client.try_unsubscribe(filter).map_err(|_| Busy)
    }

    /// # Errors
    /// [`Busy`]: the broker will send it again, but only on another connection.
    pub(super) fn acknowledge(&self, message: &Message) -> Result<(), Busy> {
        self.client.try_ack(&message.0).map_err(|_| Busy)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Awaits the connection and room in the inbox; nothing that waits for this task in turn. While the
/// node takes nothing no ping is sent either, so a broker may end the connection, and keeps what
/// was not acknowledged.
async fn poll(mut events: EventLoop, tx: mpsc::Sender<Event>) {
    loop {
        let event = match events.poll().await {
            Ok(Mqtt::Incoming(Packet::ConnAck(ack))) => {
                let keep_alive = events.mqtt_options.keep_alive();
                broker::be_patient(&mut events, keep_alive);
                Event::Began { is_known: ack.session_present }
            }
            Ok(Mqtt::Incoming(Packet::SubAck(ack))) => {
                Event::Subscribed(ack.return_codes.iter().map(|c| *c != SubscribeReasonCode::Failure).collect())
            }
            Ok(Mqtt::Incoming(Packet::Publish(p))) => Event::Message(Message(p)),
            Ok(Mqtt::Incoming(Packet::PubAck(ack))) => Event::Acknowledged(ack.pkid),
            Ok(Mqtt::Incoming(Packet::Disconnect)) => Event::Ended("the broker ended the connection".into()),
            Ok(Mqtt::Outgoing(Outgoing::Publish(id))) => Event::Sent(id),
            Ok(_) => continue,
            // Before CONNECT was sent, and in answer to it.
            Err(e @ (ConnectionError::Tls(_) | ConnectionError::ConnectionRefused(_))) => {
                Event::Refused(with_causes(&e))
            }
            Err(e) => Event::Ended(with_causes(&e)),
        };
        let is_end = matches!(event, Event::Ended(_) | Event::Refused(_));
        if tx.send(event).await.is_err() || is_end {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Servers;
    use crate::tls::ClientFiles;

    #[test]
    fn tls_files_that_are_gone_end_the_attempt_with_their_name() {
        let broker = Broker {
            servers: Servers::new([("127.0.0.1".to_owned(), 1)]),
            username: None,
            password_file: None,
            tls: Some(ClientFiles { ca: "/nowhere/ca.pem".into(), pair: None }),
            keep_alive_s: 5,
            message_bytes_max: 1 << 20,
        };
        let Err(why) = Dial::new(&broker, "c-door", 1 << 20) else { panic!("it dials") };
        assert!(why.contains("/nowhere/ca.pem"), "{why}");
    }
}
