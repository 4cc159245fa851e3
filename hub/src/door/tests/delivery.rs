//! Who gets what, when it is subscribed, retained or asked for.

use super::*;

#[tokio::test]
async fn messages_reach_subscribers_of_both_versions() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V4, "p", true).await;
    for version in BOTH {
        let mut s = house.client(version, "s", true).await;
        assert_eq!(s.subscribe("in/+", 1).await, 1);
        assert_eq!(s.subscribe("events/#", 0).await, 0);
        p.publish_acked("in/a", b"{\"id\":\"1\"}", 1).await;
        let as_published = s.got().await;
        assert_eq!((as_published.qos, as_published.payload.as_str()), (1, "{\"id\":\"1\"}"));
        let event = s.got().await;
        assert_eq!((event.qos, event.topic.as_str()), (0, "events/t"));
        assert_eq!(event.payload, "{\"origin\":\"c\",\"id\":\"1\"}");
        p.publish("in/b", b"not json", 1, 2, false).await;
        p.acked(kind::PUBACK, 2).await;
        s.hears_nothing().await;
        s.leaves().await;
    }
    house.close().await;
}

#[tokio::test]
async fn qos0_is_live_and_overlapping_filters_deliver_once_with_the_highest_qos() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", true).await;
    s.subscribe("x/#", 0).await;
    s.subscribe("x/+", 2).await;
    s.subscribe("x/y", 1).await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.publish("x/y", b"0", 0, 0, false).await;
    assert_eq!(s.got().await.qos, 0);
    p.publish_acked("x/y", b"1", 1).await;
    assert_eq!(s.got().await.qos, 1);
    s.hears_nothing().await;
    assert!(fake.notes().is_empty());
    house.close().await;
}

#[tokio::test]
async fn retained_messages_come_with_the_subscription() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V5, "p", true).await;
    for n in 0..200 {
        p.publish(&format!("r/{n}"), b"old", 0, 0, true).await;
    }
    p.publish_acked("end", b"", 1).await;
    let mut s = house.client(Version::V5, "s", true).await;
    s.subscribe("r/#", 1).await;
    for _ in 0..200 {
        let got = s.got().await;
        assert!(got.retain && got.payload == "old" && got.qos == 0);
    }
    // Retain handling 2: none; 1: not again.
    s.subscribe("r/7", 0x20 | 1).await;
    s.subscribe("r/#", 0x10 | 1).await;
    s.hears_nothing().await;
    p.publish("r/7", b"new", 1, 2, true).await;
    assert_eq!(s.got_and_acked().await, "new");
    p.publish("r/7", b"", 1, 3, true).await;
    s.got_and_acked().await;
    let mut t = house.client(Version::V4, "t", true).await;
    t.subscribe("r/7", 1).await;
    t.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn what_a_client_retained_just_before_it_subscribes_comes_to_it_as_retained() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for (version, qos) in [(Version::V4, 0), (Version::V5, 1)] {
        let mut c = house.client(version, "c", true).await;
        fake.hold();
        c.publish("keep/x", b"1", qos, 1, true).await;
        let mut body = vec![0, 9];
        if version == Version::V5 {
            body.push(0);
        }
        put_text("keep/#", &mut body);
        body.push(0);
        c.send(0x82, &body).await;
        c.hears_nothing().await;
        fake.release();
        if qos == 1 {
            c.acked(kind::PUBACK, 1).await;
        }
        assert_eq!(c.packet().await.unwrap().0, 0x90);
        let got = c.got().await;
        assert_eq!((got.payload.as_str(), got.retain), ("1", true));
        c.hears_nothing().await;
        c.leaves().await;
    }
    house.close().await;
}

#[tokio::test]
async fn no_message_comes_before_its_subscription_and_none_behind_it_is_missed() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V4, "p", true).await;
    for round in 0..50u16 {
        p.publish_acked("x", b"before", 1).await;
        let mut s = house.client(Version::V4, &format!("s{round}"), round % 2 == 0).await;
        s.subscribe("x", 1).await;
        p.publish_acked("x", b"after", 2).await;
        assert_eq!(s.got_and_acked().await, "after");
    }
    house.close().await;
}

#[tokio::test]
async fn the_doors_own_figures_come_at_once_and_leave_no_record() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut c = house.client(version, "c", true).await;
        c.subscribe("$SYS/broker/clients/connected", 1).await;
        let got = c.got().await;
        assert_eq!((got.payload.as_str(), got.retain, got.qos), ("1", true, 0));
        // `#` is not for `$…`.
        c.subscribe("#", 1).await;
        house.door.sys.tell(&house.door);
        let got = c.got().await;
        assert_eq!((got.topic.as_str(), got.retain), ("$SYS/broker/clients/connected", false));
        c.hears_nothing().await;
        assert_eq!(fake.offers(), 0);
        house.close().await;
    }
}

#[tokio::test]
async fn a_client_that_takes_aliases_gets_short_frames() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c =
        Client { socket: TcpStream::connect(house.at).await.unwrap(), input: BytesMut::new(), version: Version::V5 };
    c.send(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x03\x22\0\x01\0\x01c").await;
    c.packet().await.unwrap();
    c.subscribe("long/#", 0).await;
    let mut p = house.client(Version::V4, "p", true).await;
    let mut heard = Vec::new();
    for (id, topic) in (1..).zip(["long/topic", "long/topic", "long/other", "long/topic"]) {
        p.publish_acked(topic, b"1", id).await;
        let (_, body) = c.packet().await.unwrap();
        let m = parse_publish(Version::V5, 0, &body);
        heard.push((m.topic.to_owned(), m.properties.alias));
    }
    let one = |t: &str| (t.to_owned(), Some(1));
    assert_eq!(heard, [one("long/topic"), one(""), one("long/other"), one("long/topic")]);
    // With QoS 1, too, but not with QoS 2.
    c.subscribe("long/#", 2).await;
    for (qos, want) in [(1, ("", Some(1))), (2, ("long/topic", None))] {
        p.publish("long/topic", b"1", qos, 9, false).await;
        p.acked(if qos == 1 { kind::PUBACK } else { kind::PUBREC }, 9).await;
        let (first, body) = c.packet().await.unwrap();
        let m = parse_publish(Version::V5, first & 15, &body);
        assert_eq!((m.qos, m.topic, m.properties.alias), (qos, want.0, want.1));
    }
    house.close().await;
}

#[tokio::test]
async fn a_message_that_fits_without_a_new_alias_is_sent_without_one() {
    let house = House::open(&Fake::new()).await;
    let mut p = house.client(Version::V4, "p", true).await;
    // Flags, length, topic, id, no properties, payload.
    for payload in 1..=8 {
        let bytes = 2 + 2 + 10 + 2 + 1 + payload;
        let mut c = house.dial(Version::V5).await;
        // At most 20 bytes, one alias.
        c.send(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x08\x27\0\0\0\x14\x22\0\x01\0\x01c").await;
        c.packet().await.unwrap();
        c.subscribe("long/topic", 1).await;
        p.publish_acked("long/topic", &vec![b'x'; payload], 1).await;
        if bytes <= 20 {
            let (first, body) = c.packet().await.unwrap();
            let m = parse_publish(Version::V5, first & 15, &body);
            assert_eq!((m.topic, m.payload.len(), m.properties.alias.is_some()), ("long/topic", payload, bytes <= 17));
        } else {
            c.hears_nothing().await;
        }
        c.leaves().await;
    }
    house.close().await;
}

/// [MQTT-3.10.4-3], [MQTT-4.4.0-1]: the client has them, and waits for their end.
#[tokio::test]
async fn what_earlier_connections_gave_goes_on_as_it_began_though_its_filter_changes_before_its_turn() {
    for n in 0..6 {
        let (restarts, asked) = (n % 2 > 0, [None, Some(0), Some(1)][n / 2]);
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let (s, given) = given_three(&house).await;
        drop(s);
        let house = if restarts {
            house.kill().await;
            House::open(&fake.crash(|n| n)).await
        } else {
            house
        };
        // One at a time, so that it has not come to the others when the filter changes.
        let come = async || house.connect_with("s", 0, &[0x11, 0, 0, 0, 100, 0x21, 0, 1], &[]).await.0;
        let mut s = come().await;
        let again = |got: &Got| Got { dup: true, ..got.clone() };
        assert_eq!(s.got().await, again(&given[0]));
        match asked {
            Some(qos) => assert_eq!(s.subscribe("x", qos).await, qos),
            None => s.unsubscribe("x").await,
        }
        for (n, got) in given.iter().enumerate() {
            if n == 1 {
                // Nor does it matter that the client falls once more.
                drop(s);
                s = come().await;
            }
            if n > 0 {
                assert_eq!(s.got().await, again(got), "{asked:?}");
            }
            s.ack(kind::PUBREC, got.id).await;
            assert_eq!(s.acked(kind::PUBREL, got.id).await, 0);
            s.ack(kind::PUBCOMP, got.id).await;
        }
        // What comes by the filter as it is now, if there is one.
        let mut p = house.client(Version::V4, "p", true).await;
        p.publish("x", b"4", 2, 4, false).await;
        p.acked(kind::PUBREC, 4).await;
        match asked {
            Some(qos) => {
                let got = s.got().await;
                assert_eq!((&*got.payload, got.qos), ("4", qos));
            }
            None => s.hears_nothing().await,
        }
        house.close().await;
    }
}

/// [MQTT-3.1.2-25]: it is as if it had been completed, and the client has its id again.
#[tokio::test]
async fn a_qos_2_message_that_is_too_large_for_the_next_connection_is_released() {
    for restarts in [false, true] {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut c = house.client(Version::V5, "c", false).await;
        c.subscribe("x", 2).await;
        let mut p = house.client(Version::V5, "p", true).await;
        for (id, payload) in [(1, &[b'l'; 200][..]), (2, b"small")] {
            p.publish("x", payload, 2, id, false).await;
            p.acked(kind::PUBREC, id).await;
        }
        let large = c.got().await;
        c.got().await;
        drop(c);
        let (fake, house) = if restarts {
            house.kill().await;
            let fake = fake.crash(|n| n);
            (fake.clone(), House::open(&fake).await)
        } else {
            (fake, house)
        };
        // It takes 100 bytes.
        let come =
            async |house: &House| house.connect_with("c", 0, &[0x11, 0, 0, 0, 100, 0x27, 0, 0, 0, 100], &[]).await.0;
        let mut c = come(&house).await;
        let mut is_released = false;
        let small = loop {
            let (first, body) = c.packet().await.unwrap();
            match first >> 4 {
                kind::PUBREL => is_released |= Ack::parse(Version::V5, kind::PUBREL, &body).unwrap().id == large.id,
                _ => break got(Version::V5, first, &body),
            }
        };
        assert_eq!((&*small.payload, small.dup), ("small", true));
        if !is_released {
            assert_eq!(c.acked(kind::PUBREL, large.id).await, 0);
        }
        // From now on it is released, by whatever connection: it has been handed on.
        house.kill().await;
        let house = House::open(&fake.crash(|n| n)).await;
        let mut c = house.client(Version::V5, "c", false).await;
        assert_eq!(c.acked(kind::PUBREL, large.id).await, 0);
        c.ack(kind::PUBCOMP, large.id).await;
        assert_eq!(c.got().await.payload, "small");
        house.close().await;
    }
}

#[tokio::test]
async fn what_came_with_qos_0_to_a_session_that_lasts_does_not_come_again_after_a_kill() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut s = house.client(version, "s", false).await;
        s.subscribe("x", 0).await;
        let mut p = house.client(version, "p", true).await;
        for payload in ["1", "2"] {
            p.publish_acked("x", payload.as_bytes(), 1).await;
            assert_eq!(s.got().await.payload, payload);
        }
        house.kill().await;
        let house = House::open(&fake.crash(|n| n)).await;
        let mut s = house.client(version, "s", false).await;
        let mut p = house.client(version, "p", true).await;
        p.publish_acked("x", b"3", 1).await;
        assert_eq!(s.got().await.payload, "3", "MQTT {version:?}");
        s.hears_nothing().await;
        house.close().await;
    }
}

/// The filter is replaced twice, and what was given before goes on by the first.
#[tokio::test]
async fn what_was_given_before_goes_on_as_it_began_though_one_packet_changes_its_filter_twice() {
    let house = House::open(&Fake::new()).await;
    let (s, given) = given_three(&house).await;
    drop(s);
    // One at a time: it has not come to the third when the filter changes.
    let (mut s, _) = house.connect_with("s", 0, &[0x11, 0, 0, 0, 100, 0x21, 0, 1], &[]).await;
    assert_eq!(s.got().await.id, given[0].id);
    let mut body = vec![0, 9, 0];
    for qos in [1, 0] {
        put_text("x", &mut body);
        body.push(qos);
    }
    s.send(0x82, &body).await;
    assert_eq!(s.packet().await.unwrap().0, 0x90);
    for (n, got) in given.iter().enumerate() {
        if n > 0 {
            assert_eq!(s.got().await, Got { dup: true, ..got.clone() });
        }
        s.ack(kind::PUBREC, got.id).await;
        s.acked(kind::PUBREL, got.id).await;
        s.ack(kind::PUBCOMP, got.id).await;
    }
    house.close().await;
}
