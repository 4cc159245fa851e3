//! The session that a broker keeps for the node, over connections: with a broker that is played by hand.

use super::*;
use crate::broker::Servers;
use crate::door::packet::{self, Head, Version, kind, publish};
use crate::door::tests::fake::{Fake, Plain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);

/// A broker's end of a connection.
struct Played {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Played {
    /// The next connection on which somebody says something.
    async fn dialled(listener: &TcpListener) -> Played {
        loop {
            let socket = timeout(PATIENCE, listener.accept()).await.expect("somebody dials").unwrap().0;
            let mut played = Played { socket, input: Vec::new() };
            if played.socket.read_buf(&mut played.input).await.is_ok_and(|n| n > 0) {
                assert_eq!(played.gets().await.0, kind::CONNECT);
                return played;
            }
        }
    }

    /// And it is let in.
    async fn comes(listener: &TcpListener, is_known: bool) -> Played {
        let mut played = Played::dialled(listener).await;
        played.says(&[0x20, 2, u8::from(is_known), 0]).await;
        played
    }

    /// The next packet's kind and body, but for pings and what the node publishes.
    async fn gets(&mut self) -> (u8, Vec<u8>) {
        timeout(PATIENCE, self.next()).await.expect("a packet comes")
    }

    async fn next(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(head) = Head::parse(&self.input).unwrap().filter(|h| self.input.len() >= h.total_bytes()) {
                let packet: Vec<u8> = self.input.drain(..head.total_bytes()).collect();
                match packet[0] >> 4 {
                    kind::PINGREQ => self.says(&[0xd0, 0]).await,
                    kind::PUBLISH => {
                        let body = &packet[head.head_bytes..];
                        let id = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                        let answer = [0x40, 2, body[id], body[id + 1]];
                        self.says(&answer).await;
                    }
                    kind => return (kind, packet[head.head_bytes..].to_vec()),
                }
                continue;
            }
            assert!(self.socket.read_buf(&mut self.input).await.unwrap() > 0, "the client has gone");
        }
    }

    async fn says(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The node subscribes to these, and is granted each or not.
    async fn is_asked_for(&mut self, filters: &[(&str, bool)]) {
        let (kind, body) = self.gets().await;
        assert_eq!(kind, kind::SUBSCRIBE);
        let mut wanted = Vec::new();
        for (filter, _) in filters {
            wanted.extend([0, filter.len() as u8]);
            wanted.extend(filter.as_bytes());
            wanted.push(1);
        }
        assert_eq!(String::from_utf8_lossy(&body[2..]), String::from_utf8_lossy(&wanted));
        let mut answer = vec![0x90, 2 + filters.len() as u8, body[0], body[1]];
        answer.extend(filters.iter().map(|(_, is_granted)| if *is_granted { 1 } else { 0x80 }));
        self.says(&answer).await;
    }

    /// A message under this id, which is acknowledged: nothing else comes before.
    async fn is_rid_of(&mut self, id: u16, topic: &str, retain: bool) {
        self.publishes(id, topic, retain).await;
        assert_eq!(self.gets().await, (kind::PUBACK, id.to_be_bytes().to_vec()));
    }

    async fn publishes(&mut self, id: u16, topic: &str, retain: bool) {
        let (mut bytes, payload) = (Vec::new(), format!("{{\"n\":{id}}}"));
        let p = publish::Out { retain, ..packet::client::publish(id, topic, payload.as_bytes()) };
        p.put(Version::V4, &mut bytes);
        self.says(&bytes).await;
    }
}

/// A node behind a broker.
struct Behind {
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

impl Behind {
    /// `map`: a filter besides `in/#`.
    fn start(fake: &Fake, listener: &TcpListener, map: &str) -> Behind {
        let broker = Broker {
            servers: Servers::new([("127.0.0.1".to_owned(), listener.local_addr().unwrap().port())]),
            username: None,
            password_file: None,
            tls: None,
            keep_alive_s: 1,
            message_bytes_max: 1 << 20,
        };
        let config: Config =
            toml::from_str(&format!("[[map]]\nfilter = \"{map}\"\n[node]\naddress = \"c\"\ndata = \"d\"\n")).unwrap();
        let outside = Outside::new(fake.clone(), Arc::new(Plain), &config, broker);
        let (stop, stopped) = watch::channel(false);
        Behind { seen: outside.seen.clone(), task: tokio::spawn(outside.run(stopped)), _stop: stop }
    }

    /// Killed; the log as the next process finds it.
    async fn kill(self, fake: &Fake) -> Fake {
        self.task.abort();
        let _ = self.task.await;
        fake.crash(|all| all)
    }

    async fn is_connected(&self) {
        wait_for("it is connected", || self.seen.away.lock().is_none()).await;
    }

    async fn is_away_because(&self, why: &str) {
        wait_for(why, || self.seen.away.lock().as_ref().is_some_and(|away| away.why.contains(why))).await;
    }
}

async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        tokio::task::yield_now().await;
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn what_a_broker_retains_is_taken_once_over_any_number_of_connections_and_starts() {
    let (fake, listener) = (Fake::new(), listener().await);
    let node = Behind::start(&fake, &listener, "z/#");
    let mut broker = Played::comes(&listener, false).await;
    broker.is_asked_for(&[("in/#", true), ("z/#", true)]).await;
    broker.is_rid_of(1, "in/a", true).await;
    broker.publishes(2, "in/a", true).await;
    wait_for("it is taken", || fake.published("in/a").len() == 2).await;
    // The acknowledgement of the second is lost, and a third was not sent yet.
    drop(broker);
    let mut broker = Played::comes(&listener, true).await;
    broker.is_rid_of(3, "in/a", true).await;
    drop(broker);
    let fake = node.kill(&fake).await;
    let node = Behind::start(&fake, &listener, "z/#");
    let mut broker = Played::comes(&listener, true).await;
    node.is_connected().await;
    for id in 4..20 {
        broker.is_rid_of(id, "in/a", id < 10).await;
    }
    assert_eq!(fake.published("in/a").len(), 19);
}

#[tokio::test]
async fn what_a_broker_refuses_is_asked_for_again_at_once_and_what_it_then_brings_is_taken() {
    let (fake, listener) = (Fake::new(), listener().await);
    let node = Behind::start(&fake, &listener, "z/#");
    let mut broker = Played::comes(&listener, false).await;
    broker.is_asked_for(&[("in/#", true), ("z/#", false)]).await;
    node.is_away_because("refuses the subscription to `z/#`").await;
    let mut broker = Played::comes(&listener, true).await;
    broker.is_asked_for(&[("z/#", true)]).await;
    node.is_connected().await;
    broker.is_rid_of(1, "z/a", true).await;
    assert_eq!(fake.published("z/a").len(), 1);
}

#[tokio::test]
async fn a_filter_that_the_file_has_now_is_subscribed_to_at_once_and_one_that_it_had_is_not_any_more() {
    let (fake, listener) = (Fake::new(), listener().await);
    let node = Behind::start(&fake, &listener, "y/#");
    let mut broker = Played::comes(&listener, false).await;
    broker.is_asked_for(&[("in/#", true), ("y/#", true)]).await;
    node.is_connected().await;
    let fake = node.kill(&fake).await;
    let node = Behind::start(&fake, &listener, "z/#");
    let mut broker = Played::comes(&listener, true).await;
    broker.is_asked_for(&[("z/#", true)]).await;
    let (kind, body) = broker.gets().await;
    assert_eq!((kind, &body[2..]), (kind::UNSUBSCRIBE, &b"\0\x03y/#"[..]));
    node.is_connected().await;
}

#[tokio::test]
async fn a_session_that_may_have_begun_unseen_is_subscribed_to_anew() {
    let (fake, listener) = (Fake::new(), listener().await);
    let node = Behind::start(&fake, &listener, "z/#");
    let all = [("in/#", true), ("z/#", true)];
    Played::comes(&listener, false).await.is_asked_for(&all).await;
    // The broker has lost the session, and what it says of that does not arrive; nor does it at the next process.
    drop(Played::dialled(&listener).await);
    let mut broker = Played::comes(&listener, true).await;
    broker.is_asked_for(&all).await;
    node.is_connected().await;
    drop(broker);
    let broker = Played::dialled(&listener).await;
    let fake = node.kill(&fake).await;
    drop(broker);
    let _node = Behind::start(&fake, &listener, "z/#");
    Played::comes(&listener, true).await.is_asked_for(&all).await;
}

#[tokio::test]
async fn a_broker_that_lets_nobody_in_or_is_away_has_what_it_had() {
    let (fake, at) = (Fake::new(), listener().await);
    let node = Behind::start(&fake, &at, "z/#");
    let mut broker = Played::comes(&at, false).await;
    broker.is_asked_for(&[("in/#", true), ("z/#", true)]).await;
    node.is_connected().await;
    drop(broker);
    // The wrong password.
    Played::dialled(&at).await.says(&[0x20, 2, 0, 5]).await;
    let address = at.local_addr().unwrap();
    drop(at);
    node.is_away_because("refused (os error").await;
    let fake = node.kill(&fake).await;
    let at = TcpListener::bind(address).await.unwrap();
    let _node = Behind::start(&fake, &at, "z/#");
    let mut broker = Played::comes(&at, true).await;
    broker.is_rid_of(1, "in/a", true).await;
}

#[tokio::test]
async fn another_broker_has_nothing_yet() {
    let (fake, one, other) = (Fake::new(), listener().await, listener().await);
    let all = [("in/#", true), ("z/#", true)];
    let node = Behind::start(&fake, &one, "z/#");
    let mut broker = Played::comes(&one, false).await;
    broker.is_asked_for(&all).await;
    node.is_connected().await;
    let fake = node.kill(&fake).await;
    let _node = Behind::start(&fake, &other, "z/#");
    Played::comes(&other, true).await.is_asked_for(&all).await;
}
