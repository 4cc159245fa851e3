//! What the protocol says to refuse, and how.

use super::*;
use crate::door::packet::reason;

/// A CONNECT of MQTT 5 with a clean start.
fn connect_v5(id: &str, keep_alive_s: u16, properties: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2];
    body.extend(keep_alive_s.to_be_bytes());
    body.push(properties.len() as u8);
    body.extend(properties);
    put_text(id, &mut body);
    body
}

#[tokio::test]
async fn a_malformed_connect_of_3_1_1_is_closed_without_a_word_and_one_of_5_with_a_reason() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let tails: [&[u8]; 4] = [&[], &[0, 3, 0xed, 0xa0, 0x80], &[0, 1, b'a', 0, 3, 0xed, 0xa0, 0x80], &[0, 1, b'a']];
    for (n, tail) in tails.iter().enumerate() {
        let flags = if n >= 2 { 0x82 } else { 2 };
        for version in [Version::V4, Version::V5] {
            let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version.level(), flags, 0, 60];
            if version == Version::V5 {
                body.push(0);
            }
            body.extend_from_slice(tail);
            let mut c = house.dial(version).await;
            c.send(0x10, &body).await;
            let answer = c.packet().await.map(|(first, body)| (first, body[..2].to_vec()));
            let expected = (version == Version::V5).then(|| (0x20, vec![0, reason::MALFORMED]));
            assert_eq!(answer, expected, "{version:?} {tail:x?}");
        }
    }
    house.close().await;
}

#[tokio::test]
async fn an_acknowledgement_of_another_qos_is_a_protocol_error() {
    let cases: [(u8, &[u8]); 5] = [
        (1, &[kind::PUBREC]),
        (1, &[kind::PUBCOMP]),
        (2, &[kind::PUBACK]),
        (2, &[kind::PUBCOMP]),
        (2, &[kind::PUBREC, kind::PUBACK]),
    ];
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for (n, (qos, acks)) in cases.iter().enumerate() {
        for version in [Version::V4, Version::V5] {
            let mut c = house.client(version, &format!("c{n}"), true).await;
            c.subscribe("x", *qos).await;
            c.publish("x", b"1", *qos, 1, false).await;
            let id = loop {
                let (first, body) = c.packet().await.unwrap();
                if first >> 4 == kind::PUBLISH {
                    break got(version, first, &body).id;
                }
            };
            for ack in *acks {
                c.ack(*ack, id).await;
            }
            let said = (version == Version::V5).then_some(reason::PROTOCOL_ERROR);
            assert_eq!(c.is_closed().await, said, "{qos} {acks:?}");
        }
    }
    house.close().await;
}

#[tokio::test]
async fn nothing_larger_than_the_client_takes_is_sent_not_even_connack_and_suback() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let takes = |n: u8| [0x27, 0, 0, 0, n];
    let mut c = house.dial(Version::V5).await;
    c.send(0x10, &connect_v5("tiny", 60, &takes(12))).await;
    assert_eq!(c.packet().await, None);

    let mut c = house.dial(Version::V5).await;
    c.send(0x10, &connect_v5("small", 60, &takes(30))).await;
    assert_eq!(c.packet().await.unwrap().0, 0x20);
    let mut body = vec![0, 9, 0];
    for _ in 0..30 {
        body.extend([0, 1, b'a', 0]);
    }
    c.send(0x82, &body).await;
    assert_eq!(c.is_closed().await, Some(reason::TOO_LARGE));
    house.close().await;
}

#[tokio::test]
async fn a_keep_alive_above_the_limit_is_shortened_and_mqtt_5_hears_of_it() {
    let fake = Fake::new();
    let broker = config::Broker { keep_alive_s_max: 60, ..Default::default() };
    let house = House::with(&fake, broker, config::Access::default()).await;
    for (asked, told) in [(0, true), (61, true), (60, false), (5, false)] {
        let mut c = house.dial(Version::V5).await;
        c.send(0x10, &connect_v5("c", asked, &[])).await;
        let (_, connack) = c.packet().await.unwrap();
        assert_eq!(connack.windows(3).any(|w| w == [0x13, 0, 60]), told, "{asked}: {connack:x?}");
    }
    house.close().await;
}

#[tokio::test]
async fn an_address_gets_as_many_places_as_it_may_and_whoever_takes_its_own_over_needs_none() {
    let fake = Fake::new();
    let broker = config::Broker { address_connections_max: 2, ..Default::default() };
    let house = House::with(&fake, broker, config::Access::default()).await;
    let _a = house.client(Version::V5, "a", true).await;
    let mut b = house.client(Version::V4, "b", true).await;
    for (version, code) in [(Version::V5, reason::QUOTA), (Version::V4, 3)] {
        let (mut c, connack) = house.connect(version, "c", true, &[]).await;
        assert_eq!(connack[1], code);
        assert_eq!(c.packet().await, None);
    }
    let (again, connack) = house.connect(Version::V5, "b", true, &[]).await;
    assert_eq!(connack[1], 0);
    assert_eq!(b.packet().await, None);
    again.leaves().await;
    until("its place is free", || house.door.counters.connections.load(Ordering::Relaxed) == 1).await;
    let (_, connack) = house.connect(Version::V5, "d", true, &[]).await;
    assert_eq!(connack[1], 0);
    house.close().await;
}

#[tokio::test]
async fn more_qos2_than_the_receive_maximum_ends_an_mqtt_5_connection() {
    let fake = Fake::new();
    let broker = config::Broker { receive_maximum: 2, ..Default::default() };
    let house = House::with(&fake, broker, config::Access::default()).await;
    let mut c = house.client(Version::V5, "c", true).await;
    for id in 1..=2 {
        c.publish("x", b"1", 2, id, false).await;
        assert_eq!(c.acked(kind::PUBREC, id).await, 0);
    }
    c.ack(kind::PUBREL, 1).await;
    assert_eq!(c.acked(kind::PUBCOMP, 1).await, 0);
    c.publish("x", b"1", 2, 3, false).await;
    assert_eq!(c.acked(kind::PUBREC, 3).await, 0, "one place was free again");
    c.publish("x", b"1", 2, 4, false).await;
    assert_eq!(c.is_closed().await, Some(reason::RECEIVE_MAXIMUM));
    house.close().await;
}

#[tokio::test]
async fn refusals_say_why_to_those_who_want_to_know() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    // Who comes without a name and asks for enhanced authentication.
    let mut c = house.dial(Version::V5).await;
    c.send(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x04\x15\0\x01x\0\x01c").await;
    let (_, connack) = c.packet().await.unwrap();
    assert_eq!(connack[1], 0x8c);
    assert!(reason_string(&connack, 2).unwrap().contains("enhanced authentication"));
    let mut c = house.client(Version::V5, "c", true).await;
    c.publish("in/x", b"no object", 1, 1, false).await;
    let (first, body) = c.packet().await.unwrap();
    assert_eq!((first, body[2]), (0x40, 0x99));
    assert!(reason_string(&body, 3).unwrap().contains("dlq list"));
    // A client that wants no problem information gets the code alone.
    let mut c = house.dial(Version::V5).await;
    c.send(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x02\x17\0\0\x01d").await;
    c.packet().await.unwrap();
    c.publish("in/x", b"no object", 1, 1, false).await;
    assert_eq!(c.packet().await.unwrap(), (0x40, vec![0, 1, 0x99]));
    house.close().await;
}

#[tokio::test]
async fn what_is_said_to_be_text_and_is_none_is_refused_unless_it_is_urgent() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "c", true).await;
    for (topic, acked) in [("in/x", reason::PAYLOAD_FORMAT), ("in/sos/7", 0)] {
        let mut body = Vec::new();
        put_text(topic, &mut body);
        // Packet id 1, and the payload format indicator.
        body.extend_from_slice(b"\0\x01\x02\x01\x01{\xff}");
        c.send(0x32, &body).await;
        assert_eq!(c.acked(kind::PUBACK, 1).await, acked, "{topic}");
    }
    assert_eq!(fake.letters(), ["payload-format"]);
    house.close().await;
}

#[tokio::test]
async fn the_reason_reaches_a_client_that_goes_on_sending() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    // As one does that has not read yet: its writes must not fail, or it may never read.
    let goes_on = async |c: &mut Client| {
        c.socket.readable().await.unwrap();
        for _ in 0..10 {
            c.socket.write_all(&[0; 10_000]).await.unwrap();
        }
    };
    let mut c = house.client(Version::V5, "c", true).await;
    c.send(0x10, &[]).await;
    goes_on(&mut c).await;
    assert_eq!(c.is_closed().await, Some(reason::PROTOCOL_ERROR));
    // A session that the server cannot keep: 3.1.1, without a client id and without a clean start.
    let mut c = house.dial(Version::V4).await;
    c.send(0x10, b"\0\x04MQTT\x04\0\0\x3c\0\0").await;
    goes_on(&mut c).await;
    assert_eq!(c.packet().await, Some((0x20, vec![0, 2])));
    house.close().await;
}

#[tokio::test]
async fn who_is_taken_over_and_does_not_hear_it_keeps_nobody_waiting() {
    let house = House::open(&Fake::new()).await;
    let deaf = house.client(Version::V5, "c", true).await;
    let start = std::time::Instant::now();
    house.client(Version::V5, "c", true).await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    drop(deaf);
    let start = std::time::Instant::now();
    house.close().await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_an_earlier_connection_left_open_is_not_of_this_ones_receive_maximum() {
    let broker = config::Broker { receive_maximum: 2, ..Default::default() };
    let house = House::with(&Fake::new(), broker, config::Access::default()).await;
    let mut c = house.client(Version::V5, "c", false).await;
    for id in [1, 2] {
        c.publish("x", b"1", 2, id, false).await;
        assert_eq!(c.acked(kind::PUBREC, id).await, 0);
    }
    drop(c);
    let mut c = house.client(Version::V5, "c", false).await;
    for id in [3, 4] {
        c.publish("x", b"1", 2, id, false).await;
        assert_eq!(c.acked(kind::PUBREC, id).await, 0);
    }
    // A repetition of an earlier one is nothing new.
    c.publish("x", b"1", 2, 1, false).await;
    assert_eq!(c.acked(kind::PUBREC, 1).await, 0);
    for id in [1, 2] {
        c.ack(kind::PUBREL, id).await;
        assert_eq!(c.acked(kind::PUBCOMP, id).await, 0);
    }
    c.publish("x", b"1", 2, 5, false).await;
    assert_eq!(c.is_closed().await, Some(reason::RECEIVE_MAXIMUM));
    house.close().await;
}

#[tokio::test]
async fn a_connect_above_64_kib_is_refused_as_too_large() {
    let house = House::open(&Fake::new()).await;
    for version in BOTH {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version.level(), 6, 0, 60];
        if version == Version::V5 {
            body.push(0);
        }
        put_text("c", &mut body);
        if version == Version::V5 {
            body.push(0);
        }
        put_text(&"t".repeat(600), &mut body);
        put_text(&"x".repeat(65_000), &mut body);
        let mut c = house.dial(version).await;
        c.send(0x10, &body).await;
        let answer = c.packet().await.map(|(first, body)| (first, body[..2].to_vec()));
        assert_eq!(answer, (version == Version::V5).then(|| (0x20, vec![0, reason::TOO_LARGE])));
    }
    house.close().await;
}

/// [MQTT-3.3.4-10]
#[tokio::test]
async fn a_session_that_comes_back_and_takes_less_at_once_is_told_what_to_release() {
    let house = House::open(&Fake::new()).await;
    let (mut s, given) = given_three(&house).await;
    for got in &given[1..] {
        s.ack(kind::PUBREC, got.id).await;
        s.acked(kind::PUBREL, got.id).await;
    }
    drop(s);
    // The first one takes all the room that there is.
    let (mut s, _) = house.connect_with("s", 0, &[0x11, 0, 0, 0, 100, 0x21, 0, 1], &[]).await;
    assert_eq!(s.got().await.id, given[0].id);
    for got in &given[1..] {
        s.acked(kind::PUBREL, got.id).await;
    }
    house.close().await;
}

/// [MQTT-3.1.2-24]
#[tokio::test]
async fn a_refusal_that_is_larger_than_the_client_takes_is_not_sent() {
    let broker = config::Broker { session_expiry_s_max: 10, ..Default::default() };
    let house = House::with(&Fake::new(), broker, config::Access::default()).await;
    for n in 1..=5u8 {
        let mut c = house.dial(Version::V5).await;
        // Enhanced authentication, which is refused.
        c.send(0x10, &connect_v5("c", 60, &[0x27, 0, 0, 0, n, 0x15, 0, 1, b'x'])).await;
        let told = c.packet().await;
        assert_eq!(told, (n == 5).then(|| (0x20, vec![0, 0x8c, 0])), "{n} bytes");
    }
    house.close().await;
}
