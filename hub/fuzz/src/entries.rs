//! What is fuzzed: everything that takes bytes from outside before anybody is trusted. Each entry
//! takes any bytes, must not panic, and asserts what must hold of whatever was accepted.
//!
//! Used by the fuzz targets beside it and by `hub/tests/fuzz.rs`.

use citybrain_hub::door::packet::control::{Connect, Disconnect, Subscribe, Unsubscribe};
use citybrain_hub::door::packet::publish::{In, Out, Properties};
use citybrain_hub::door::packet::{Ack, Head, Version, kind, put_ack, reason};
use citybrain_hub::door::{Ingress as _, Publish};
use citybrain_hub::ingress::Ingress;
use citybrain_hub::note::Note;
use citybrain_hub::protocol::admit::admit;
use citybrain_hub::protocol::pack::unpack;
use citybrain_shared::config::Config;
use citybrain_shared::event::{self, Envelope};
use citybrain_shared::record::{Header, Kind, event_key};
use citybrain_shared::wire::{self, Carried, Message};
use citybrain_shared::{Address, topic};
use std::sync::LazyLock;

/// A stream of packets as a client's connection reads it. The first byte says the version: even
/// 3.1.1, odd 5.0.
pub fn packets(data: &[u8]) {
    let Some((&version, mut rest)) = data.split_first() else { return };
    let version = if version % 2 == 0 { Version::V4 } else { Version::V5 };
    while let Ok(Some(head)) = Head::parse(rest) {
        assert!(head.head_bytes >= 2 && head.head_bytes <= 5);
        let Some(body) = rest.get(head.head_bytes..head.total_bytes()) else { return };
        packet(version, &head, body);
        rest = &rest[head.total_bytes()..];
    }
}

fn packet(version: Version, head: &Head, body: &[u8]) {
    match head.kind {
        kind::CONNECT => {
            if let Ok(c) = Connect::parse(body) {
                assert!(c.receive_maximum > 0 && c.packet_bytes_max > 0);
                assert!(!c.client.contains('\0'));
                if let Some(will) = c.will {
                    assert!(will.qos < 3);
                    Properties::parse(&will.properties).expect("a will's properties were checked");
                }
            }
        }
        kind::PUBLISH => {
            if let Ok(p) = In::parse(version, head.flags, body) {
                publish(version, &p);
            }
        }
        kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP => {
            if let Ok(ack) = Ack::parse(version, head.kind, body) {
                let mut out = Vec::new();
                put_ack(version, head.kind, ack.id, ack.reason, &mut out);
                let again = Head::parse(&out).expect("our own packet").expect("a whole one");
                assert_eq!(again.total_bytes(), out.len());
                assert_eq!(Ack::parse(version, head.kind, &out[again.head_bytes..]), Ok(ack));
            }
        }
        kind::SUBSCRIBE => {
            if let Ok(s) = Subscribe::parse(version, body) {
                assert!(s.id > 0 && !s.entries.is_empty() && s.subscription_id != Some(0));
                for (_, options) in s.entries {
                    assert!(options & 3 < 3 && options >> 4 & 3 < 3 && options >> 6 == 0, "{options:#x}");
                }
            }
        }
        kind::UNSUBSCRIBE => {
            if let Ok(u) = Unsubscribe::parse(version, body) {
                assert!(u.id > 0 && !u.filters.is_empty());
            }
        }
        kind::DISCONNECT => drop(Disconnect::parse(body)),
        _ => {}
    }
}

/// What came in goes out again as the same message.
fn publish(version: Version, p: &In<'_>) {
    let mut forwarded = Vec::new();
    p.properties.put_forwarded(&mut forwarded);
    let out = Out {
        dup: p.dup,
        qos: p.qos,
        retain: p.retain,
        topic: p.topic,
        alias: p.properties.alias,
        id: p.id,
        forwarded: &forwarded,
        // Part of what is forwarded.
        content_type: None,
        expiry_s: p.properties.expiry_s,
        subscription_ids: &[],
        payload: [p.payload, &[], &[]],
    };
    let mut bytes = Vec::new();
    out.put(version, &mut bytes);
    assert_eq!(out.packet_bytes(version), bytes.len());
    let head = Head::parse(&bytes).expect("our own packet").expect("a whole one");
    let again = In::parse(version, head.flags, &bytes[head.head_bytes..]).expect("our own packet");
    assert!(again.properties.user().iter().eq(p.properties.user().iter()));
    // Alias and expiry are put to another place.
    let plain = |p: &In<'_>| format!("{:?}", In { properties: Properties { raw: &[], ..p.properties }, ..*p });
    assert_eq!(plain(&again), plain(p));
}

/// A message of a link. Its checksum is made right first: nothing behind it would be reached else.
pub fn frames(data: &[u8]) {
    let _ = wire::decode(data, unpack);
    let mut bytes = data.to_vec();
    if bytes.len() >= 8 {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[2..4]), &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    match wire::decode(&bytes, unpack) {
        Ok(Message::Frame(frame)) => {
            for carried in frame.records().flatten() {
                admitted(&carried);
                let mut record = Vec::new();
                if carried.header(7).encode(carried.payload, &mut record).is_ok() {
                    let (header, payload) = Header::decode(&record).expect("our own record");
                    assert_eq!((header.name, header.seq, payload), (carried.name, carried.seq, carried.payload));
                }
            }
        }
        Ok(Message::Word(word)) => {
            let again = word.encode();
            assert_eq!(wire::decode(&again, unpack), Ok(Message::Word(word)));
        }
        Err(_) => {}
    }
    let _ = Header::decode(data);
}

/// What a link lets in is an event that subscribers can be given, whoever sent it.
fn admitted(carried: &Carried<'_>) {
    let origin = Address::parse(carried.origin.address).ok();
    let peer = origin.clone().unwrap_or_else(|| Address::parse("c/s").expect("an address"));
    for is_parent in [false, true] {
        if admit(&peer, is_parent, origin.as_ref(), carried).is_ok() {
            assert!(carried.kind.is_event() && origin.is_some());
            assert_eq!(topic::check_topic(&format!("events/{}", carried.name)), Ok(()));
            let told = event::identity(carried.payload).expect("it is told by it");
            assert_eq!(carried.key, event_key(&told.source, &told.id));
        }
    }
}

const TOPICS: [&str; 8] =
    ["in/cam/1", "zigbee2mqtt/door", "number/t1", "text/t1", "ce/1", "plain/message", "events/a", "in"];
const CONTENT_TYPES: [Option<&str>; 4] =
    [None, Some("application/json"), Some("application/cloudevents+json"), Some("text/plain")];

static NODE: LazyLock<Ingress> = LazyLock::new(|| {
    let config: Config = toml::from_str(
        r#"
        [node]
        address = "c/s"
        data = "d"
        [[map]]
        filter = "zigbee2mqtt/+"
        format = "json"
        subject = "{2}"
        [[map]]
        filter = "number/+"
        format = "json"
        value = "/a"
        [[map]]
        filter = "text/+"
        format = "text"
        [[map]]
        filter = "ce/+"
        format = "cloudevents"
        priority = "urgent"
        "#,
    )
    .expect("a good config");
    Ingress::new(&config)
});

/// A publish. The first byte says topic, QoS and content type, the second how many bytes behind it
/// are MQTT 5 properties; the rest is the payload.
pub fn ingress(data: &[u8]) {
    let [how, properties_bytes, rest @ ..] = data else { return };
    let (raw, payload) = rest.split_at(usize::from(*properties_bytes).min(rest.len()));
    let properties = Properties::parse(raw).unwrap_or_default();
    let publish = Publish {
        qos: how >> 3 & 1,
        retain: how >> 4 & 1 == 1,
        content_type: CONTENT_TYPES[usize::from(how >> 5 & 3)],
        user_properties: properties.user(),
        expiry_s: properties.expiry_s,
        ..Publish::plain("fuzz", TOPICS[usize::from(how & 7)], payload)
    };
    let taken = NODE.take(&publish);
    let Some(draft) = taken.draft else {
        assert!(publish.qos == 0, "a QoS 1 publish is kept, as what it is or as a dead letter");
        return;
    };
    let (header, payload) = Header::decode(draft.bytes()).expect("our own record");
    match header.kind {
        Kind::Note => {
            assert!(matches!(Note::parse(payload), Ok(Note::DeadLetter(_))));
            assert!(taken.reason >= reason::UNSPECIFIED);
        }
        Kind::Message => assert_eq!(payload, publish.payload),
        _ => {
            let event = Envelope::parse(payload).expect("an event that was taken is one");
            let id = event.id.as_deref().expect("an event that was taken has an id");
            assert!(!event.has_origin);
            assert_eq!(header.key, event_key(&event.source, id));
        }
    }
}
