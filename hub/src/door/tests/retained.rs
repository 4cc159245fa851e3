//! Retained messages against a model: they are set, replaced and taken away, by each QoS, while
//! clients subscribe by every retain handling and the node is killed in between.
//!
//! **Must**: a new subscription brings of each topic that it matches the newest message, with the
//! retain flag, at most once and of the QoS that both sides allow; an old one by its retain handling.
//! What is published meanwhile comes without the flag, or with it where the subscription says so. **Must
//! not**: whoever comes back to its session, over a kill too, gets another message under the packet id of one
//! that it was not told to release.

use super::stage::{Rng, seeds};
use super::*;
use std::collections::{BTreeMap, BTreeSet};

const TOPICS: [&str; 5] = ["r", "r/a", "r/a/b", "r/b", "q"];
const FILTERS: [&str; 8] = ["r", "r/#", "r/+", "r/a/#", "+/a", "r/+/b", "q", "none"];
const STEPS: usize = 60;
const RUNS: u64 = 40;

/// Payload and QoS.
type Kept = BTreeMap<&'static str, (String, u8)>;

/// A client with its filters.
struct Reader {
    wire: Client,
    filters: BTreeMap<&'static str, u8>,
    /// Ids of QoS 2 messages that it has and that were not released.
    open: BTreeSet<u16>,
    /// Topic and payload of what came with QoS 0: a kill may bring it again, by the QoS of then.
    lightly: BTreeSet<(String, String)>,
    /// An earlier process has given it messages: some may be given or released again.
    is_back: bool,
}

impl Reader {
    async fn come(house: &House, version: Version, lasts: bool) -> Reader {
        let wire = house.client(version, "reader", !lasts).await;
        Reader { wire, filters: BTreeMap::new(), open: BTreeSet::new(), lightly: BTreeSet::new(), is_back: false }
    }

    /// To a session that lasts.
    async fn come_back(&mut self, house: &House, at: &str) {
        let (wire, connack) = house.connect(self.wire.version, "reader", false, &[]).await;
        assert_eq!(connack[..2], [1, 0]);
        (self.wire, self.is_back) = (wire, true);
        let is_live = |v: &SessionView| v.client == "reader" && !v.behind && v.queued == 0;
        until("it has read on", || house.door.sessions().iter().any(is_live)).await;
        self.wire.send(0xc0, &[]).await;
        loop {
            let (first, body) = self.packet(at).await;
            if first == 0xd0 {
                return;
            }
            let got = got(self.wire.version, first, &body);
            assert!(got.dup || got.qos == 0, "{at}: {got:?}");
            assert!(self.lightly.contains(&(got.topic, got.payload)), "{at}: {first:x} {body:x?}");
            self.took(first, &body, at).await;
        }
    }

    /// The next packet that is neither a PUBREL nor a repetition; those are answered.
    async fn packet(&mut self, at: &str) -> (u8, Vec<u8>) {
        loop {
            let (first, body) = self.wire.packet().await.unwrap_or_else(|| panic!("{at}: the connection ended"));
            if first >> 4 == kind::PUBLISH && self.is_back {
                let got = got(self.wire.version, first, &body);
                if got.dup && got.qos == 2 && self.open.contains(&got.id) {
                    self.wire.ack(kind::PUBREC, got.id).await;
                    continue;
                }
            }
            if first >> 4 != kind::PUBREL {
                return (first, body);
            }
            let ack = Ack::parse(self.wire.version, kind::PUBREL, &body).unwrap();
            let was_open = self.open.remove(&ack.id);
            assert!((was_open || self.is_back) && ack.reason == 0, "{at}: {ack:?}, of {:?}", self.open);
            self.wire.ack(kind::PUBCOMP, ack.id).await;
        }
    }

    /// The next message, acknowledged.
    async fn message(&mut self, at: &str) -> Got {
        let (first, body) = self.packet(at).await;
        self.took(first, &body, at).await
    }

    async fn took(&mut self, first: u8, body: &[u8], at: &str) -> Got {
        assert_eq!(first >> 4, kind::PUBLISH, "{at}: {first:x} {body:x?}");
        let got = got(self.wire.version, first, body);
        match got.qos {
            0 => drop(self.lightly.insert((got.topic.clone(), got.payload.clone()))),
            1 => self.wire.ack(kind::PUBACK, got.id).await,
            _ => {
                assert!(self.open.insert(got.id), "{at}: {got:?} has the id of one that is not released");
                self.wire.ack(kind::PUBREC, got.id).await;
            }
        }
        got
    }
}

async fn run(seed: u64) {
    let mut rng = Rng(seed);
    let mut fake = Fake::new();
    let mut house = House::open(&fake).await;
    let mut kept = Kept::new();
    let mut writer = house.client(Version::V5, "writer", true).await;
    let lasts = rng.below(2) == 0;
    let mut c = Reader::come(&house, Version::V5, lasts).await;
    for step in 0..STEPS {
        let at = format!("seed {seed}, step {step}");
        let mut is_killed = false;
        match rng.below(10) {
            0 => is_killed = true,
            1..6 => {
                let (topic, qos) = (TOPICS[rng.below(TOPICS.len())], rng.below(3) as u8);
                let payload = if rng.below(4) == 0 { String::new() } else { format!("{step}") };
                writer.publish(topic, payload.as_bytes(), qos, 7, true).await;
                match qos {
                    0 => {
                        // Taken before the ping behind it, and in the log as soon as anything later is.
                        writer.publish("fence", b"", 1, 8, false).await;
                        assert_eq!(writer.acked(kind::PUBACK, 8).await, 0);
                    }
                    1 => assert_eq!(writer.acked(kind::PUBACK, 7).await, 0),
                    _ => {
                        writer.acked(kind::PUBREC, 7).await;
                        writer.ack(kind::PUBREL, 7).await;
                        writer.acked(kind::PUBCOMP, 7).await;
                    }
                }
                // All that match make one message, of the best QoS; its flag stays if one says so.
                let matching: Vec<u8> =
                    c.filters.iter().filter(|(f, _)| topic::matches(f, topic)).map(|(_, options)| *options).collect();
                if let Some(best) = matching.iter().map(|o| o & 3).max() {
                    let got = c.message(&at).await;
                    assert_eq!((&*got.topic, &*got.payload, got.qos), (topic, &*payload, best.min(qos)), "{at}");
                    let flags: BTreeSet<bool> = matching.iter().map(|o| o & 8 != 0).collect();
                    assert!(flags.contains(&got.retain), "{at}: {got:?}, {:?}", c.filters);
                }
                if payload.is_empty() {
                    kept.remove(topic);
                } else {
                    kept.insert(topic, (payload, qos));
                }
            }
            6..9 => {
                let filter = FILTERS[rng.below(FILTERS.len())];
                let (qos, handling, as_published) = (rng.below(3) as u8, rng.below(3) as u8, rng.below(2) as u8);
                let options = match c.wire.version {
                    Version::V4 => qos,
                    Version::V5 => qos | as_published << 3 | handling << 4,
                };
                let is_new = c.filters.insert(filter, options).is_none();
                assert_eq!(c.wire.subscribe(filter, options).await, qos, "{at}");
                let brings = match options >> 4 {
                    0 => true,
                    1 => is_new,
                    _ => false,
                };
                let mut expected: Kept = if brings { kept.clone() } else { Kept::new() };
                expected.retain(|topic, _| topic::matches(filter, topic));
                let mut brought = BTreeMap::new();
                for _ in 0..expected.len() {
                    let got = c.message(&at).await;
                    assert!(got.retain && !got.dup, "{at}: {got:?}");
                    assert_eq!(brought.insert(got.topic, (got.payload, got.qos)), None, "{at}: twice");
                }
                let expected: BTreeMap<String, (String, u8)> =
                    expected.into_iter().map(|(t, (p, q))| (t.to_owned(), (p, q.min(qos)))).collect();
                assert_eq!(brought, expected, "{at}");
                // Before the client is told to release what it has.
                is_killed = rng.below(4) == 0;
            }
            _ => {
                if let Some(filter) = c.filters.keys().next().copied() {
                    let mut body = vec![0, 9];
                    if c.wire.version == Version::V5 {
                        body.push(0);
                    }
                    put_text(filter, &mut body);
                    c.wire.send(0xa2, &body).await;
                    assert_eq!(c.packet(&at).await.0, 0xb0, "{at}");
                    c.filters.remove(filter);
                }
            }
        }
        if is_killed {
            fake = fake.crash(|held| held);
            house.kill().await;
            house = House::open(&fake).await;
            writer = house.client(BOTH[rng.below(2)], "writer", true).await;
            if lasts {
                c.come_back(&house, &at).await;
            } else {
                c = Reader::come(&house, BOTH[rng.below(2)], false).await;
            }
        }
        // Nothing else has come, and all is released.
        loop {
            c.wire.send(0xc0, &[]).await;
            let (first, body) = c.packet(&at).await;
            assert_eq!(first, 0xd0, "{at}: {body:x?}");
            if c.open.is_empty() {
                break;
            }
        }
    }
    house.kill().await;
}

#[tokio::test]
async fn retained_messages_are_what_the_model_says_whoever_asks_and_whenever() {
    for seed in seeds(RUNS) {
        run(seed).await;
    }
}
