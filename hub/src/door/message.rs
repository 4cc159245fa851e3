//! A message as subscribers get it: made of a record, or live.

use super::connection::Alias;
use super::packet::Version;
use super::packet::publish::Out;
use super::route::Sub;
use super::share::Group;
use crate::log::Entry;
use crate::meta::Meta;
use crate::state::Retained;
use bytes::Bytes;
use citybrain_shared::record::{Direction, Header, TTL_OVER_MS};
use citybrain_shared::selector::Labels;
use citybrain_shared::{Address, Pos, Selector, event};
use citybrain_shared::{case, config};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The messages that one record may give, in the order in which they are delivered.
pub(crate) mod part {
    /// On the topic by which it came in here, with the payload as published.
    pub(crate) const AS_PUBLISHED: u8 = 0;
    /// On `events/TYPE`.
    pub(crate) const EVENT: u8 = 1;
    /// On `cmd/TYPE`, when this node is meant and it is not too late.
    pub(crate) const COMMAND: u8 = 2;
}

/// Who this node is: what selectors and `origin` are held against.
#[derive(Debug)]
pub(crate) struct Me {
    address: Address,
    labels: Labels,
    /// `"origin":"ADDRESS"`
    origin: Bytes,
}

impl Me {
    pub(crate) fn new(node: &config::Node) -> Me {
        Me { origin: origin_member(node.address.as_str()), address: node.address.clone(), labels: node.labels.clone() }
    }

    fn is_meant(&self, target: &str) -> bool {
        Selector::parse(target).is_ok_and(|s| s.matches(&self.address, &self.labels))
    }
}

fn origin_member(address: &str) -> Bytes {
    // An address needs no escaping.
    Bytes::from(format!("\"origin\":\"{address}\""))
}

/// Shared by all its subscribers; its byte fields are slices of the record.
#[derive(Debug)]
pub(crate) struct Message {
    /// [`Pos::ZERO`]: live, of no record.
    pub pos: Pos,
    pub part: u8,
    pub qos: u8,
    /// As the publisher set it.
    pub retain: bool,
    topic: Bytes,
    /// Client id of the publisher; for no-local.
    pub publisher: Bytes,
    forwarded: Bytes,
    is_event: bool,
    payload: Bytes,
    /// What is inserted into the payload, and where.
    splice: Option<(usize, Splice)>,
    /// µs since 1970.
    expires_us: Option<i64>,
    expiry_was_asked: bool,
    /// That it keeps in memory, nearly.
    bytes: usize,
    /// Where they are counted, while it waits for somebody.
    counted: Option<Waiting>,
}

/// Bytes of messages that wait for somebody, each counted once however many wait for it, and of their
/// places in inboxes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Some(counted) = &self.counted {
            counted.sub(self.bytes);
        }
    }
}

#[derive(Debug)]
struct Splice {
    member: Bytes,
    comma: bool,
}

/// Calls `found` with the number and the topic of each message that the record gives.
/// `topic` is scratch.
pub(crate) fn parts<'a>(me: &Me, header: &Header<'a>, topic: &mut String, mut found: impl FnMut(u8, &str)) {
    if !header.topic.is_empty() {
        found(part::AS_PUBLISHED, header.topic);
    }
    if header.kind.is_event() && !case::is_letter(header.name) {
        let mut offer = |n, prefix| {
            topic.clear();
            write!(topic, "{prefix}/{}", header.name).expect("a string takes all");
            found(n, topic);
        };
        offer(part::EVENT, "events");
        let is_late = header.ttl_ms == TTL_OVER_MS;
        // What was carried out before a backup was put back is not carried out again.
        let is_done = is_late || header.had_before;
        if header.direction == Direction::Down && !is_done && me.is_meant(header.target) {
            offer(part::COMMAND, "cmd");
        }
    }
}

impl Message {
    /// One of the messages of a record; `header` and `payload` must be decoded from `entry`.
    pub(crate) fn of_record(
        me: &Me,
        entry: &Entry,
        header: &Header<'_>,
        payload: &[u8],
        n: u8,
        topic: &str,
    ) -> Message {
        let slice = |part: &[u8]| if part.is_empty() { Bytes::new() } else { entry.bytes.slice_ref(part) };
        let meta = Meta::decode(header.door);
        let is_event = n != part::AS_PUBLISHED;
        let ttl_us = match (header.ttl_ms, meta.expiry_s) {
            (0, None) => None,
            (0, Some(s)) => Some(i64::from(s) * 1_000_000),
            (ms, None) => Some(i64::from(ms) * 1000),
            (ms, Some(s)) => Some((i64::from(ms) * 1000).min(i64::from(s) * 1_000_000)),
        };
        let splice = if is_event {
            event::first_member(payload).map(|(at, comma)| {
                let member = header.origin.map_or_else(|| me.origin.clone(), |o| origin_member(o.address));
                (at, Splice { member, comma })
            })
        } else {
            None
        };
        Message {
            pos: entry.pos,
            part: n,
            // An event is committed, whatever it came by.
            qos: if is_event { header.qos.max(1) } else { header.qos },
            retain: header.retain && !is_event,
            topic: if is_event { Bytes::copy_from_slice(topic.as_bytes()) } else { slice(header.topic.as_bytes()) },
            publisher: slice(meta.client),
            forwarded: if is_event { Bytes::new() } else { slice(meta.forwarded) },
            is_event,
            payload: slice(if is_event { payload } else { meta.payload.unwrap_or(payload) }),
            splice,
            expires_us: ttl_us.map(|t| header.committed_us.saturating_add(t)),
            expiry_was_asked: meta.expiry_s.is_some() && !is_event,
            bytes: entry.bytes.len() + size_of::<Message>(),
            counted: None,
        }
    }

    /// One that is in no log. `meta` as in [`Meta`], of the publisher.
    pub(crate) fn live(topic: &str, meta: &Meta<'_>, payload: Bytes, qos: u8, retain: bool, now_us: i64) -> Message {
        let payload_bytes = payload.len();
        Message {
            pos: Pos::ZERO,
            part: 0,
            qos,
            retain,
            topic: Bytes::copy_from_slice(topic.as_bytes()),
            publisher: Bytes::copy_from_slice(meta.client),
            forwarded: Bytes::copy_from_slice(meta.forwarded),
            is_event: false,
            payload,
            splice: None,
            expires_us: meta.expiry_s.map(|s| now_us.saturating_add(i64::from(s) * 1_000_000)),
            expiry_was_asked: meta.expiry_s.is_some(),
            bytes: topic.len() + meta.client.len() + meta.forwarded.len() + payload_bytes + size_of::<Message>(),
            counted: None,
        }
    }

    /// As it waits on its topic for new subscribers.
    pub(crate) fn retained(topic: &str, r: &Retained) -> Message {
        let meta = Meta::decode(&r.door);
        let slice = |part: &[u8]| if part.is_empty() { Bytes::new() } else { r.door.slice_ref(part) };
        Message {
            pos: Pos::ZERO,
            part: 0,
            qos: r.qos,
            retain: true,
            topic: Bytes::copy_from_slice(topic.as_bytes()),
            publisher: slice(meta.client),
            forwarded: slice(meta.forwarded),
            is_event: false,
            payload: meta.payload.map_or_else(|| r.payload.clone(), slice),
            splice: None,
            expires_us: meta.expiry_s.map(|s| r.committed_us.saturating_add(i64::from(s) * 1_000_000)),
            expiry_was_asked: meta.expiry_s.is_some(),
            bytes: topic.len() + r.payload.len() + r.door.len() + size_of::<Message>(),
            counted: None,
        }
    }

    /// To be shared by all for whom it waits.
    pub(crate) fn shared(mut self, waiting: &Waiting) -> Arc<Message> {
        waiting.add(self.bytes);
        self.counted = Some(waiting.clone());
        Arc::new(self)
    }

    pub(crate) fn topic_bytes(&self) -> &Bytes {
        &self.topic
    }

    pub(crate) fn topic(&self) -> &str {
        std::str::from_utf8(&self.topic).unwrap_or_default()
    }

    /// Bytes that it keeps in memory, nearly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn has_expired(&self, now_us: i64) -> bool {
        self.expires_us.is_some_and(|at| at <= now_us)
    }

    /// The payload as a subscriber gets it.
    pub(crate) fn whole_payload(&self) -> Vec<u8> {
        match &self.splice {
            None => self.payload.to_vec(),
            Some((at, s)) => {
                let comma: &[u8] = if s.comma { b"," } else { b"" };
                [&self.payload[..*at], &s.member[..], comma, &self.payload[*at..]].concat()
            }
        }
    }

    /// Appends it as a packet, unless it is larger than `packet_bytes_max`: then false.
    pub(crate) fn put(
        &self,
        version: Version,
        give: &Give<'_>,
        now_us: i64,
        packet_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let member;
        let payload = match &self.splice {
            None => [&self.payload[..], &[], &[]],
            Some((at, s)) => {
                member = if s.comma { [&s.member[..], b","].concat() } else { s.member.to_vec() };
                [&self.payload[..*at], &member[..], &self.payload[*at..]]
            }
        };
        let out_packet = Out {
            dup: give.dup,
            qos: give.qos,
            retain: give.retain,
            topic: if give.alias.is_some_and(|a| a.known) { "" } else { self.topic() },
            alias: give.alias.map(|a| a.alias),
            id: give.id,
            forwarded: &self.forwarded,
            content_type: self.is_event.then_some("application/cloudevents+json"),
            expiry_s: self
                .expires_us
                .filter(|_| self.expiry_was_asked)
                // Of the time that it waited only whole seconds are taken off.
                .map(|at| u32::try_from((at - now_us + 999_999) / 1_000_000).unwrap_or(0)),
            subscription_ids: give.subscription_ids,
            payload,
        };
        if out_packet.packet_bytes(version) > packet_bytes_max {
            return false;
        }
        out_packet.put(version, out);
        true
    }
}

/// How one subscriber gets a message.
pub(crate) struct Give<'a> {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub id: u16,
    /// MQTT 5, and only if the client takes them.
    pub alias: Option<Alias>,
    pub subscription_ids: &'a [u32],
}

/// A message on its way to one subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub message: Arc<Message>,
    /// The lower of the publisher's and the subscription's.
    pub qos: u8,
    pub retain: bool,
    pub subscription_ids: Vec<u32>,
    /// It is this group's, and only lent to the subscriber.
    pub share: Option<Arc<Group>>,
    /// The same subscriber had it before (groups only; sessions know by their cursor).
    pub again: bool,
}

impl Item {
    /// Bytes that it keeps in memory, nearly.
    pub(crate) fn bytes(&self) -> usize {
        self.message.bytes() + self.subscription_ids.len() * size_of::<u32>()
    }

    /// A retained message for a new subscription.
    pub(crate) fn retained(message: Message, sub: &Sub) -> Item {
        let qos = sub.qos().min(message.qos);
        let subscription_ids = sub.id.into_iter().collect();
        Item { message: Arc::new(message), qos, retain: true, subscription_ids, share: None, again: false }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::packet::{Head, publish};
    use super::*;
    use citybrain_shared::LogId;
    use citybrain_shared::record::{Draft, Kind, Origin};

    pub(crate) fn me() -> Me {
        Me { address: Address::parse("c/s").unwrap(), labels: Labels::new(), origin: origin_member("c/s") }
    }

    fn entry(header: &Header<'_>, payload: &[u8]) -> Entry {
        let draft = Draft::new(header, payload).unwrap();
        Entry { pos: Pos(7), chain: 0, bytes: Bytes::copy_from_slice(draft.bytes()) }
    }

    fn all(entry: &Entry) -> Vec<(u8, String, String)> {
        let (header, payload) = Header::decode(&entry.bytes).unwrap();
        let mut got = Vec::new();
        parts(&me(), &header, &mut String::new(), |n, topic| {
            let m = Message::of_record(&me(), entry, &header, payload, n, topic);
            let mut out = Vec::new();
            let give = Give { dup: false, qos: 0, retain: false, id: 0, alias: None, subscription_ids: &[] };
            assert!(m.put(Version::V4, &give, 0, usize::MAX, &mut out));
            let head = Head::parse(&out).unwrap().unwrap();
            let back = publish::In::parse(Version::V4, head.flags, &out[head.head_bytes..]).unwrap();
            assert_eq!(back.topic, topic);
            got.push((n, topic.to_owned(), String::from_utf8(back.payload.to_vec()).unwrap()));
        });
        got
    }

    #[test]
    fn what_nodes_say_to_each_other_of_cases_is_for_no_subscriber() {
        for (name, count) in [("city.brain.case.contact", 0), ("city.brain.case.told", 0), ("city.brain.case.call", 2)]
        {
            let header = Header { direction: Direction::Down, target: "c/s", ..Header::local(Kind::Event, name) };
            assert_eq!(all(&entry(&header, b"{\"id\":\"1\"}")).len(), count, "{name}");
        }
    }

    #[test]
    fn an_event_is_given_as_published_and_with_its_origin() {
        let header = Header { topic: "in/x", ..Header::local(Kind::Event, "lamp.failed") };
        assert_eq!(
            all(&entry(&header, br#" {"id":"1"}"#)),
            [
                (0, "in/x".into(), r#" {"id":"1"}"#.into()),
                (1, "events/lamp.failed".into(), r#" {"origin":"c/s","id":"1"}"#.into()),
            ]
        );
    }

    #[test]
    fn a_relayed_event_names_its_own_origin_and_an_empty_object_gets_no_comma() {
        let origin = Some(Origin { address: "c/s/m", log: LogId(1), pos: Pos(1) });
        let header = Header { origin, ..Header::local(Kind::Event, "t") };
        assert_eq!(all(&entry(&header, b"{ }")), [(1, "events/t".into(), r#"{"origin":"c/s/m" }"#.into())]);
    }

    #[test]
    fn a_downward_event_is_a_command_only_for_whom_it_means() {
        let header = |target| Header { direction: Direction::Down, target, ..Header::local(Kind::Event, "t") };
        assert_eq!(all(&entry(&header("c/s"), b"{}")).len(), 2);
        assert_eq!(all(&entry(&header("c/**"), b"{}")).len(), 2);
        assert_eq!(all(&entry(&header("c/x"), b"{}")).len(), 1);
        let late = Header { ttl_ms: TTL_OVER_MS, ..header("c/s") };
        assert_eq!(all(&entry(&late, b"{}")).len(), 1, "it was answered \"not executed\"");
        let again = Header { had_before: true, ..header("c/s") };
        assert_eq!(all(&entry(&again, b"{}")).len(), 1, "it was carried out before a backup was put back");
    }

    #[test]
    fn a_note_is_given_to_nobody() {
        assert_eq!(all(&entry(&Header::local(Kind::Note, ""), b"{}")), []);
    }

    #[test]
    fn an_expired_message_is_known_as_such() {
        let header = Header { ttl_ms: 5, ..Header::local(Kind::Event, "t") };
        let e = entry(&header, b"{}");
        let (header, payload) = Header::decode(&e.bytes).unwrap();
        let m = Message::of_record(&me(), &e, &header, payload, part::EVENT, "events/t");
        assert!(!m.has_expired(4_999));
        assert!(m.has_expired(5_000));
    }

    #[test]
    fn only_whole_seconds_of_waiting_are_taken_off_an_expiry() {
        let meta = Meta { expiry_s: Some(2), ..Meta::default() };
        let m = Message::live("t", &meta, Bytes::new(), 0, false, 0);
        for (waited_us, left_s) in [(0, 2), (1, 2), (999_999, 2), (1_000_000, 1), (1_999_999, 1)] {
            let mut out = Vec::new();
            let give = Give { dup: false, qos: 0, retain: false, id: 0, alias: None, subscription_ids: &[] };
            assert!(m.put(Version::V5, &give, waited_us, usize::MAX, &mut out));
            let head = Head::parse(&out).unwrap().unwrap();
            let back = publish::In::parse(Version::V5, head.flags, &out[head.head_bytes..]).unwrap();
            assert_eq!(back.properties.expiry_s, Some(left_s), "after {waited_us} µs");
        }
    }
}
