//! The connection to an outside broker: MQTT 3.1.1, a session that the broker keeps, QoS 1 both
//! ways, acknowledged by hand.

use crate::broker::{self, Broker};
use bytes::Bytes;
use citybrain_shared::words::with_causes;
use rumqttc::{AsyncClient, Event as Mqtt, EventLoop, Outgoing, Packet, QoS};
use std::collections::HashSet;
use std::time::Duration;
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

#[derive(Debug)]
pub(super) enum Event {
    /// Connected, and subscribed: by this connection, or by the one that began the session. Perhaps told twice.
    Connected,
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

/// One connection; it ends with its owner.
pub(super) struct Client {
    client: AsyncClient,
    events: mpsc::Receiver<Event>,
    task: tokio::task::AbortHandle,
}

impl Client {
    /// Dials. `id` names the session that the broker keeps between connections.
    ///
    /// # Errors
    /// Why the files cannot be used. Those that are being replaced are better the next time.
    pub(super) fn connect(
        broker: &Broker,
        id: &str,
        filters: Vec<String>,
        packet_bytes_max: usize,
    ) -> Result<Client, String> {
        let mut options = broker::options(broker, id.to_owned(), packet_bytes_max)?;
        options.set_clean_session(false);
        options.set_manual_acks(true);
        options.set_inflight(WINDOW as u16);
        let (client, event_loop) = broker::client(options, REQUESTS_MAX);
        let (tx, events) = mpsc::channel(INBOX_MAX);
        let task = tokio::spawn(poll(event_loop, client.clone(), filters, tx)).abort_handle();
        Ok(Client { client, events, task })
    }

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

/// When to subscribe, and which retained messages are news.
///
/// A SUBSCRIBE brings what the broker retains; with each connection that would come anew. So it is taken once, by the
/// connection that begins the broker's session. But what of it was not acknowledged then is left in that session, and
/// comes with the next connection, marked as retained as well. There we therefore subscribe, as our filters may be
/// others, when nothing is left: until then all is taken, from then on no retained message is.
enum Retained {
    /// The session was there: it may have something left.
    Left {
        unacknowledged: HashSet<u16>,
        /// With everything acknowledged the broker was asked for a sign, and nothing retained has come since.
        is_asked: bool,
    },
    /// The session is new: all is taken.
    New,
    /// It had everything: none is taken.
    Had,
}

impl Retained {
    fn of_session(is_known: bool) -> Retained {
        if is_known { Retained::Left { unacknowledged: HashSet::new(), is_asked: false } } else { Retained::New }
    }

    /// A retained message has come. True: it is to be taken.
    fn came(&mut self, id: u16) -> bool {
        if let Retained::Left { unacknowledged, is_asked } = self {
            *is_asked = false;
            // QoS 0 has no id, and nothing to acknowledge.
            unacknowledged.extend((id > 0).then_some(id));
        }
        !matches!(self, Retained::Had)
    }

    fn acknowledged(&mut self, id: u16) {
        if let Retained::Left { unacknowledged, .. } = self {
            unacknowledged.remove(&id);
        }
    }

    /// A PINGREQ was sent.
    fn asks(&mut self) {
        if let Retained::Left { unacknowledged, is_asked } = self {
            *is_asked = unacknowledged.is_empty();
        }
    }

    /// Its answer has come: behind what the acknowledgements before it have let go. True: nothing is left.
    fn is_answered(&mut self) -> bool {
        let is_over = matches!(self, Retained::Left { is_asked: true, .. });
        if is_over {
            *self = Retained::Had;
        }
        is_over
    }
}

/// Awaits the connection and room in the inbox; nothing that waits for this task in turn. While the
/// node takes nothing no ping is sent either, so a broker may end the connection, and keeps what
/// was not acknowledged.
async fn poll(mut events: EventLoop, client: AsyncClient, filters: Vec<String>, tx: mpsc::Sender<Event>) {
    let mut retained = Retained::New;
    let subscribe = || {
        let filters = filters.iter().map(|f| rumqttc::SubscribeFilter::new(f.clone(), QoS::AtLeastOnce));
        client.try_subscribe_many(filters).err().map(|_| Event::Ended("cannot subscribe".into()))
    };
    loop {
        let event = match events.poll().await {
            Ok(Mqtt::Incoming(Packet::ConnAck(ack))) => {
                let keep_alive = events.mqtt_options.keep_alive();
                broker::be_patient(&mut events, keep_alive);
                retained = Retained::of_session(ack.session_present);
                if ack.session_present { Some(Event::Connected) } else { subscribe() }
            }
            Ok(Mqtt::Incoming(Packet::SubAck(ack))) => {
                if ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure) {
                    Some(Event::Ended("the broker refuses the subscription: check the account's rights".into()))
                } else {
                    Some(Event::Connected)
                }
            }
            Ok(Mqtt::Incoming(Packet::Publish(p))) if p.retain && !retained.came(p.pkid) => {
                let full = || Event::Ended("more waits for the broker than the connection takes".into());
                client.try_ack(&p).err().map(|_| full())
            }
            Ok(Mqtt::Incoming(Packet::Publish(p))) => Some(Event::Message(Message(p))),
            Ok(Mqtt::Incoming(Packet::PubAck(ack))) => Some(Event::Acknowledged(ack.pkid)),
            Ok(Mqtt::Incoming(Packet::PingResp)) if retained.is_answered() => subscribe(),
            Ok(Mqtt::Incoming(Packet::Disconnect)) => Some(Event::Ended("the broker ended the connection".into())),
            Ok(Mqtt::Outgoing(Outgoing::Publish(id))) => Some(Event::Sent(id)),
            Ok(Mqtt::Outgoing(Outgoing::PubAck(id))) => {
                retained.acknowledged(id);
                None
            }
            Ok(Mqtt::Outgoing(Outgoing::PingReq)) => {
                retained.asks();
                None
            }
            Ok(_) => None,
            Err(e) => Some(Event::Ended(with_causes(&e))),
        };
        let Some(event) = event else { continue };
        let is_end = matches!(event, Event::Ended(_));
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

    use crate::door::packet::{Head, Version, kind, publish};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// A broker that is played by hand.
    struct Played {
        socket: TcpStream,
        input: Vec<u8>,
    }

    impl Played {
        /// With the client that has come to it.
        async fn of(is_known: bool) -> (Played, Client) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let broker = Broker {
                servers: Servers::new([("127.0.0.1".to_owned(), listener.local_addr().unwrap().port())]),
                username: None,
                password_file: None,
                tls: None,
                keep_alive_s: 1,
                message_bytes_max: 1 << 20,
            };
            let client = Client::connect(&broker, "c-door", vec!["in/#".into()], 1 << 20).unwrap();
            let mut played = Played { socket: listener.accept().await.unwrap().0, input: Vec::new() };
            assert_eq!(played.gets().await.0, kind::CONNECT);
            played.says(&[0x20, 2, u8::from(is_known), 0]).await;
            (played, client)
        }

        /// The next packet's kind and body.
        async fn gets(&mut self) -> (u8, Vec<u8>) {
            loop {
                if let Some(head) = Head::parse(&self.input).unwrap().filter(|h| self.input.len() >= h.total_bytes()) {
                    let packet: Vec<u8> = self.input.drain(..head.total_bytes()).collect();
                    return (packet[0] >> 4, packet[head.head_bytes..].to_vec());
                }
                assert!(self.socket.read_buf(&mut self.input).await.unwrap() > 0, "the client has gone");
            }
        }

        async fn gets_ack_of(&mut self, id: u16) {
            assert_eq!(self.gets().await, (kind::PUBACK, id.to_be_bytes().to_vec()));
        }

        async fn says(&mut self, bytes: &[u8]) {
            self.socket.write_all(bytes).await.unwrap();
        }

        async fn publishes(&mut self, id: u16, retain: bool, dup: bool) {
            let (mut bytes, payload) = (Vec::new(), id.to_string());
            let p = publish::Out {
                dup,
                qos: 1,
                retain,
                topic: "in/a",
                alias: None,
                id,
                forwarded: &[],
                content_type: None,
                expiry_s: None,
                subscription_ids: &[],
                payload: [payload.as_bytes(), &[], &[]],
            };
            p.put(Version::V4, &mut bytes);
            self.says(&bytes).await;
        }

        /// The client asks for a sign of life, and gets it.
        async fn is_asked(&mut self) {
            assert_eq!(self.gets().await.0, kind::PINGREQ);
            self.says(&[0xd0, 0]).await;
        }

        async fn is_subscribed(&mut self) {
            let (kind, body) = self.gets().await;
            assert_eq!(kind, kind::SUBSCRIBE);
            self.says(&[0x90, 3, body[0], body[1], 1]).await;
        }
    }

    async fn message(client: &mut Client, id: u16) -> Message {
        match client.event().await {
            Event::Message(message) if message.payload() == id.to_string().as_bytes() => message,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_a_broker_retains_is_taken_by_the_connection_that_begins_the_session() {
        let (mut broker, mut client) = Played::of(false).await;
        broker.is_subscribed().await;
        assert!(matches!(client.event().await, Event::Connected));
        broker.publishes(1, true, false).await;
        let first = message(&mut client, 1).await;
        client.acknowledge(&first).unwrap();
        broker.gets_ack_of(1).await;
    }

    #[tokio::test]
    async fn what_it_retained_and_an_earlier_connection_did_not_acknowledge_is_taken_and_not_what_comes_anew() {
        let (mut broker, mut client) = Played::of(true).await;
        assert!(matches!(client.event().await, Event::Connected));
        for (id, dup) in [(1, true), (2, false)] {
            broker.publishes(id, true, dup).await;
        }
        let (first, second) = (message(&mut client, 1).await, message(&mut client, 2).await);
        client.acknowledge(&first).unwrap();
        broker.gets_ack_of(1).await;
        broker.is_asked().await;
        client.acknowledge(&second).unwrap();
        broker.gets_ack_of(2).await;
        // For which there was no room before.
        broker.publishes(3, true, false).await;
        let third = message(&mut client, 3).await;
        client.acknowledge(&third).unwrap();
        broker.gets_ack_of(3).await;
        broker.is_asked().await;
        broker.is_subscribed().await;
        assert!(matches!(client.event().await, Event::Connected));
        broker.publishes(4, true, false).await;
        broker.gets_ack_of(4).await;
        broker.publishes(5, false, false).await;
        message(&mut client, 5).await;
    }

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
        let Err(why) = Client::connect(&broker, "c-door", vec!["in/#".into()], 1 << 20) else { panic!("it dialled") };
        assert!(why.contains("/nowhere/ca.pem"), "{why}");
    }
}
