//! Sessions that outlive connections: what comes back, what is given again, what is gone.

use super::*;
use std::collections::BTreeSet;

#[tokio::test]
async fn a_durable_session_gets_what_it_missed_once_and_in_order() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut s = house.client(version, "s", false).await;
        s.subscribe("x", 1).await;
        let mut p = house.client(version, "p", true).await;
        p.publish_acked("x", b"1", 1).await;
        assert_eq!(s.got_and_acked().await, "1");
        s.leaves().await;
        p.publish_acked("x", b"2", 2).await;
        p.publish_acked("y", b"-", 3).await;
        p.publish_acked("x", b"3", 4).await;
        let (mut s, connack) = house.connect(version, "s", false, &[]).await;
        assert_eq!(connack[..2], [1, 0]);
        let two = s.got().await;
        assert_eq!((two.payload.as_str(), two.dup), ("2", false));
        let three = s.got().await;
        assert_eq!(three.payload, "3");
        // Acknowledged out of order, and gone.
        s.ack(kind::PUBACK, three.id).await;
        until("the acknowledgement is noted", || fake.session("s").unwrap().beyond.len() == 1).await;
        drop(s);
        let (mut s, _) = house.connect(version, "s", false, &[]).await;
        assert_eq!(s.got().await, Got { dup: true, ..two.clone() });
        s.hears_nothing().await;
        // Another process over the same log.
        house.close().await;
        let house = House::open(&fake).await;
        let (mut s, connack) = house.connect(version, "s", false, &[]).await;
        assert_eq!(connack[..2], [1, 0]);
        assert_eq!(s.got().await, Got { dup: true, ..two });
        // Subscribing again does not move the cursor.
        assert_eq!(s.subscribe("x", 1).await, 1);
        let mut p = house.client(version, "p", true).await;
        p.publish_acked("x", b"4", 1).await;
        assert_eq!(s.got_and_acked().await, "4");
        house.close().await;
    }
}

#[tokio::test]
async fn a_clean_start_forgets_and_another_user_inherits_nothing() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", false).await;
    s.subscribe("x", 1).await;
    s.leaves().await;
    let mut p = house.client(Version::V4, "p", true).await;
    p.publish_acked("x", b"1", 1).await;
    let mut as_bob = Vec::new();
    put_text("bob", &mut as_bob);
    put_text("", &mut as_bob);
    let (mut s, connack) = house.connect(Version::V4, "s", false, &as_bob).await;
    assert_eq!(connack, [0, 0]);
    s.hears_nothing().await;
    drop(s);
    let (_s, connack) = house.connect(Version::V4, "s", true, &as_bob).await;
    assert_eq!(connack, [0, 0]);
    assert!(fake.session("s").is_none());
    house.close().await;
}

#[tokio::test]
async fn a_slow_subscriber_reads_on_in_the_log_and_misses_nothing() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V5, "s", true).await;
    s.subscribe("x/#", 1).await;
    let mut n = 0;
    let total = 6000;
    let message = |n: u32| {
        let text = n.to_string();
        let header = Header { topic: "x/y", ..Header::local(Kind::Message, "") };
        Draft::new(&header, text.as_bytes()).unwrap()
    };
    // More than its inbox and its window hold, while it reads nothing.
    while n < total {
        fake.commit((n..n + 500).map(message).collect());
        n += 500;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for want in 0..total {
        assert_eq!(s.got_and_acked().await, want.to_string());
    }
    assert!(house.door.counters().fell_behind.get() > 0);
    until("it has caught up", || house.door.sessions().iter().all(|v| !v.behind)).await;
    fake.commit(vec![message(total)]);
    assert_eq!(s.got_and_acked().await, total.to_string());
    assert_eq!(house.door.counters().qos0_dropped.get(), 0);
    house.close().await;
}

#[tokio::test]
async fn a_session_that_slept_through_20000_messages_gets_all_of_them_in_order() {
    const MESSAGES: usize = 20_000;
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut sleeper = house.client(Version::V4, "sleeper", false).await;
    sleeper.subscribe("x", 1).await;
    sleeper.leaves().await;
    let message = |n: usize| {
        let header = Header { topic: "x", qos: 1, ..Header::local(Kind::Message, "") };
        citybrain_shared::record::Draft::new(&header, n.to_string().as_bytes()).unwrap()
    };
    fake.commit((0..MESSAGES).map(message).collect());
    let mut sleeper = house.client(Version::V4, "sleeper", false).await;
    let view = || house.door.sessions().into_iter().find(|s| s.client == "sleeper").expect("it is there");
    // As many as may be under way; behind them it has read on, but no further than it must.
    until("it waits for an acknowledgement", || view().in_flight == 1024 && view().queued > 0).await;
    let mut most = view().queued;
    for n in 0..MESSAGES {
        assert_eq!(sleeper.got_and_acked().await, n.to_string());
        if n % 50 == 0 {
            most = most.max(view().queued);
        }
    }
    // It reads 64 records at a time.
    assert!(most <= 128, "{most} have waited in memory");
    sleeper.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn a_second_connection_takes_over() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut first = house.client(Version::V5, "same", false).await;
    first.subscribe("x", 1).await;
    let (mut second, connack) = house.connect(Version::V5, "same", false, &[]).await;
    assert_eq!(connack[..2], [1, 0]);
    assert_eq!(first.is_closed().await, Some(0x8e));
    let mut p = house.client(Version::V4, "p", true).await;
    p.publish_acked("x", b"1", 1).await;
    assert_eq!(second.got_and_acked().await, "1");
    house.close().await;
}

#[tokio::test]
async fn of_two_connections_that_wait_for_a_sessions_place_the_newer_gets_it() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut first = house.client(Version::V5, "s", false).await;
        fake.hold();
        let connect = [0, 4, b'M', b'Q', b'T', b'T', version.level(), 0, 0, 60];
        let mut body = connect.to_vec();
        if version == Version::V5 {
            body.extend([5, 0x11, 0, 0, 0, 100]);
        }
        put_text("s", &mut body);
        let mut second = house.dial(version).await;
        second.send(0x10, &body).await;
        // The first is told of it, and its session's end waits for the disk.
        assert_eq!(first.is_closed().await, Some(0x8e));
        let mut third = house.dial(version).await;
        third.send(0x10, &body).await;
        third.hears_nothing().await;
        fake.release();
        assert_eq!(second.packet().await, None);
        assert_eq!(third.packet().await.expect("a CONNACK").1[..2], [1, 0]);
        third.publish_acked("x", b"1", 7).await;
        house.close().await;
    }
}

#[tokio::test]
async fn a_connection_whose_engine_is_gone_still_leaves_its_session_in_order() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V5, "s", false).await;
    s.subscribe("x", 1).await;
    fake.stop();
    s.publish("x", b"1", 1, 7, false).await;
    assert_eq!(s.is_closed().await, Some(0x8b));
    until("the session is parked", || house.door.seats.unpark("s").is_some()).await;
}

#[tokio::test]
async fn a_message_given_again_says_so_however_short_the_connection_between() {
    for restarts in [false, true] {
        let fake = Fake::new();
        let mut house = House::open(&fake).await;
        let mut s = house.client(Version::V4, "s", false).await;
        s.subscribe("x", 1).await;
        let mut p = house.client(Version::V4, "p", true).await;
        for id in 1..=3 {
            p.publish_acked("x", b"1", id).await;
        }
        for _ in 0..3 {
            assert!(!s.got().await.dup);
        }
        s.leaves().await;
        if restarts {
            house.close().await;
            house = House::open(&fake).await;
        }
        // One message fits into its socket's end of the line; it leaves before the others come.
        let (mut short, connack) = house.connect_with("s", 0, &[0x11, 0, 0, 0, 100, 0x21, 0, 1], &[]).await;
        assert_eq!(connack[..2], [1, 0]);
        assert!(short.got().await.dup);
        short.leaves().await;
        let mut last = house.client(Version::V4, "s", false).await;
        for _ in 0..3 {
            assert!(last.got().await.dup, "restarts: {restarts}");
        }
        house.close().await;
    }
}

#[tokio::test]
async fn what_came_while_a_client_was_away_is_a_first_time_also_after_a_restart() {
    let mut fake = Fake::new();
    for killed in [false, true] {
        let house = House::open(&fake).await;
        let mut s = house.client(Version::V4, "s", false).await;
        s.subscribe("x", 1).await;
        s.leaves().await;
        let mut p = house.client(Version::V4, "p", true).await;
        p.publish_acked("x", b"1", 1).await;
        if killed {
            fake = fake.crash(|held| held);
            house.kill().await;
        } else {
            house.close().await;
        }
        let house = House::open(&fake).await;
        let mut s = house.client(Version::V4, "s", false).await;
        let got = s.got().await;
        assert!(!got.dup, "killed: {killed}");
        s.ack(kind::PUBACK, got.id).await;
        // Nobody knows how much of this was on the wire when the node was killed.
        p = house.client(Version::V4, "p", true).await;
        p.publish_acked("x", b"2", 1).await;
        fake = fake.crash(|held| held);
        house.kill().await;
        let house = House::open(&fake).await;
        let mut s = house.client(Version::V4, "s", false).await;
        let got = s.got().await;
        assert!(got.dup && got.payload == "2", "{got:?}");
        s.ack(kind::PUBACK, got.id).await;
        s.leaves().await;
        house.close().await;
    }
}

#[tokio::test]
async fn a_qos2_message_that_was_received_is_released_though_its_filter_has_gone() {
    for n in 0..8 {
        let (restarts, lowered, known) = (n & 1 > 0, n & 2 > 0, n & 4 > 0);
        let fake = Fake::new();
        let mut house = House::open(&fake).await;
        let mut s = house.client(Version::V4, "s", false).await;
        s.subscribe("x", 2).await;
        s.publish("x", b"1", 2, 1, false).await;
        s.acked(kind::PUBREC, 1).await;
        let got = s.got().await;
        // Else the client has it, and the node does not know.
        if known {
            s.ack(kind::PUBREC, got.id).await;
            s.acked(kind::PUBREL, got.id).await;
        }
        if lowered {
            s.subscribe("x", 1).await;
        } else {
            s.unsubscribe("x").await;
        }
        s.leaves().await;
        if restarts {
            house.close().await;
            house = House::open(&fake).await;
        }
        let mut s = house.client(Version::V4, "s", false).await;
        if !known {
            assert_eq!(s.got().await, Got { dup: true, ..got.clone() });
            s.ack(kind::PUBREC, got.id).await;
        }
        s.acked(kind::PUBREL, got.id).await;
        s.ack(kind::PUBCOMP, got.id).await;
        s.pings().await;
        s.leaves().await;
        let mut s = house.client(Version::V4, "s", false).await;
        s.hears_nothing().await;
        house.close().await;
    }
}

#[tokio::test]
async fn a_message_committed_just_before_its_subscription_is_completed_after_a_kill() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", false).await;
    let mut p = house.client(Version::V4, "p", true).await;
    fake.hold();
    p.publish("x", b"1", 2, 1, false).await;
    until("the publish is offered", || fake.offers() == 2).await;
    let mut body = vec![0, 9];
    put_text("x", &mut body);
    body.push(2);
    s.send(0x82, &body).await;
    until("the subscription is offered", || fake.offers() == 3).await;
    fake.release();
    // The message and the answer to the subscription, in whichever order.
    let mut got = None;
    for _ in 0..2 {
        let (first, body) = s.packet().await.expect("a packet");
        if first != 0x90 {
            got = Some(self::got(Version::V4, first, &body));
        }
    }
    let got = got.expect("the message");
    let fake = fake.crash(|_| 0);
    house.kill().await;
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", false).await;
    assert_eq!(s.got().await, Got { dup: true, ..got });
    house.close().await;
}

#[tokio::test]
async fn a_session_is_told_what_retention_took_from_it_and_goes_on_behind_it() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "sleeper", false).await;
    c.subscribe("x", 1).await;
    drop(c);
    until("it is away", || !fake.session("sleeper").unwrap().connected).await;
    let mut p = house.client(Version::V4, "p", true).await;
    for id in 1..=10 {
        p.publish_acked("x", id.to_string().as_bytes(), id).await;
    }
    let last = fake.last().0 - 4;
    fake.trim(Pos(last));
    let (mut c, connack) = house.connect(Version::V5, "sleeper", false, &[]).await;
    assert_eq!(connack[..2], [1, 0], "the session is there");
    let why = reason_string(&connack, 2).expect("it says so");
    assert!(why.contains(&format!("to {last} are gone")), "{why}");
    for n in 7..=10 {
        assert_eq!(c.got_and_acked().await, n.to_string());
    }
    c.hears_nothing().await;
    assert!(house.door.counters.unreadable.get() > 0);
    c.leaves().await;
    let (_c, connack) = house.connect(Version::V5, "sleeper", false, &[]).await;
    assert_eq!(reason_string(&connack, 2), None, "it is told once");
    house.close().await;
}

#[tokio::test]
async fn a_session_that_reads_too_slowly_for_retention_is_ended_with_the_reason() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "slow", false).await;
    c.subscribe("x", 1).await;
    let mut p = house.client(Version::V4, "p", true).await;
    let payload = vec![b'x'; 60_000];
    // It reads nothing, so that it falls behind its inbox and what is to come is in the log alone.
    for id in 1..=400 {
        p.publish_acked("x", &payload, id).await;
    }
    until("it fell behind", || house.door.counters.fell_behind.get() > 0).await;
    fake.trim(fake.last());
    let why = loop {
        let (first, body) = c.packet().await.expect("a DISCONNECT before the end");
        match first {
            0xe0 => break (body[0], reason_string(&body, 1).unwrap()),
            _ => {
                let got = got(Version::V5, first, &body);
                c.ack(kind::PUBACK, got.id).await;
            }
        }
    };
    assert_eq!(why.0, 0x97);
    assert!(why.1.contains("are gone"), "{why:?}");
    house.close().await;
}

#[tokio::test]
async fn a_session_that_was_resumed_for_no_time_cannot_be_made_to_last_by_its_goodbye() {
    let house = House::open(&Fake::new()).await;
    house.client(Version::V5, "c", false).await.leaves().await;
    // Clean start 0, no expiry: it resumes, and ends with the connection.
    let mut c = house.dial(Version::V5).await;
    c.send(0x10, b"\0\x04MQTT\x05\0\0\x3c\0\0\x01c").await;
    let (_, connack) = c.packet().await.unwrap();
    assert_eq!(connack[..2], [1, 0]);
    c.send(0xe0, &[0, 5, 0x11, 0, 0, 0, 100]).await;
    assert_eq!(c.is_closed().await, Some(0x82));
    house.close().await;
}

#[tokio::test]
async fn a_session_whose_time_is_over_is_not_resumed_while_its_end_is_being_written() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "c", false).await;
    c.subscribe("x", 1).await;
    c.leaves().await;
    until("it has left", || house.door.seats.connected() == 0).await;
    // As the housekeeping does when the time is over.
    assert!(house.door.seats.unpark("c").is_some());
    let (_, connack) = house.connect(Version::V5, "c", false, &[]).await;
    assert_eq!(connack[..2], [0, 0]);
    assert!(fake.session("c").unwrap().filters.is_empty());
    house.close().await;
}

#[tokio::test]
async fn what_was_begun_is_completed_though_it_has_expired_since() {
    let house = House::open(&Fake::new()).await;
    let mut c = house.client(Version::V5, "c", false).await;
    c.subscribe("x", 2).await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.put(publish::Out { qos: 2, id: 1, expiry_s: Some(1), ..out("x", b"1") }).await;
    let expires_us = now_us() + 1_000_000;
    p.acked(kind::PUBREC, 1).await;
    let first = c.got().await;
    drop(c);
    until("it has expired", || now_us() > expires_us).await;
    let (mut c, _) = house.connect(Version::V5, "c", false, &[]).await;
    assert_eq!(c.got().await, Got { dup: true, ..first });
    house.close().await;
}

#[tokio::test]
async fn a_retained_message_of_qos_2_that_was_begun_does_not_keep_its_id_for_ever() {
    let house = House::open(&Fake::new()).await;
    let mut p = house.client(Version::V4, "p", true).await;
    p.publish("x", b"kept", 2, 1, true).await;
    p.acked(kind::PUBREC, 1).await;
    let mut c = house.client(Version::V4, "c", false).await;
    c.subscribe("x", 2).await;
    let got = c.got().await;
    assert_eq!((got.qos, got.retain), (2, true));
    drop(c);
    let (mut c, _) = house.connect(Version::V4, "c", false, &[]).await;
    let (first, body) = c.packet().await.unwrap();
    assert_eq!((first, &body[..]), (0x62, &got.id.to_be_bytes()[..]));
    c.ack(kind::PUBCOMP, got.id).await;
    house.close().await;
}

#[tokio::test]
async fn a_retained_message_does_not_come_under_the_id_of_an_exchange_that_is_not_completed() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut publisher = house.client(Version::V4, "p", true).await;
    let mut c = house.client(Version::V4, "c", false).await;
    c.subscribe("a", 2).await;
    for n in 0..120u16 {
        publisher.publish_acked("other", b"1", n + 1).await;
    }
    publisher.publish("a", b"exchange", 2, 1, false).await;
    publisher.acked(kind::PUBREC, 1).await;
    let begun = c.got().await;
    c.ack(kind::PUBREC, begun.id).await;
    c.acked(kind::PUBREL, begun.id).await;
    drop(c);
    // So many that their ids come as far as that one.
    for n in 0..u32::from(begun.id) + 1 {
        publisher.publish(&format!("r/{n}"), b"r", 2, 2, true).await;
        publisher.acked(kind::PUBREC, 2).await;
        publisher.ack(kind::PUBREL, 2).await;
        publisher.acked(kind::PUBCOMP, 2).await;
    }
    let mut c = house.dial(Version::V4).await;
    c.socket.write_all(b"\x10\x0d\0\x04MQTT\x04\0\0\x3c\0\x01c\x82\x08\0\x09\0\x03r/#\x02").await.unwrap();
    let mut is_open = true;
    let mut retained = 0;
    while retained <= begun.id {
        let (first, body) = c.packet().await.unwrap();
        match first >> 4 {
            kind::PUBREL => {
                let id = Ack::parse(Version::V4, first >> 4, &body).unwrap().id;
                is_open &= id != begun.id;
                c.ack(kind::PUBCOMP, id).await;
            }
            kind::PUBLISH => {
                let got = got(Version::V4, first, &body);
                assert!(!is_open || got.id != begun.id, "the client would take it for one that it has: {got:?}");
                retained += 1;
                c.ack(kind::PUBREC, got.id).await;
            }
            _ => {}
        }
    }
    house.close().await;
}

/// [MQTT-3.10.4-3], [MQTT-4.4.0-1].
#[tokio::test]
async fn a_qos1_message_under_way_is_sent_again_though_its_filter_has_gone_or_changed() {
    for n in 0..12 {
        let (restarts, asked, was_read) = (n & 1 > 0, [None, Some(0), Some(2)][n / 2 % 3], n < 6);
        let fake = Fake::new();
        let mut house = House::open(&fake).await;
        // The second message waits for the first's acknowledgement.
        let (mut s, connack) = house.connect_with("s", 0, &[0x11, 0, 0, 0, 100, 0x21, 0, 1], &[]).await;
        assert_eq!(connack[1], 0);
        s.subscribe("x", 1).await;
        let mut p = house.client(Version::V4, "p", true).await;
        for id in 1..=2u16 {
            p.publish("x", id.to_string().as_bytes(), 2, id, false).await;
            p.acked(kind::PUBREC, id).await;
        }
        let mut got = s.got().await;
        match asked {
            Some(qos) => assert_eq!(s.subscribe("x", qos).await, qos),
            None => s.unsubscribe("x").await,
        }
        if was_read {
            // What was to come by the old filter may still do so, and is then completed like the first.
            s.ack(kind::PUBACK, got.id).await;
            got = s.got().await;
        }
        assert_eq!((got.qos, got.dup), (1, false));
        s.leaves().await;
        if restarts {
            house.close().await;
            house = House::open(&fake).await;
        }
        let mut s = house.client(Version::V4, "s", false).await;
        assert_eq!(s.got().await, Got { dup: true, ..got.clone() }, "{n}");
        s.ack(kind::PUBACK, got.id).await;
        s.leaves().await;
        let mut s = house.client(Version::V4, "s", false).await;
        if asked != Some(2) || was_read {
            s.hears_nothing().await;
        }
        house.close().await;
    }
}

/// [MQTT-4.3.3-4], [MQTT-4.4.0-1]: whatever ended the node, the client has its id again, and is not given
/// another message under it before.
#[tokio::test]
async fn a_retained_message_of_qos_2_that_was_begun_is_released_by_another_process() {
    for (version, is_killed) in [(Version::V4, true), (Version::V5, true), (Version::V5, false)] {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut p = house.client(Version::V4, "p", true).await;
        for topic in ["b/1", "b/2"] {
            p.publish(topic, b"kept", 2, 1, true).await;
            p.acked(kind::PUBREC, 1).await;
            p.ack(kind::PUBREL, 1).await;
            p.acked(kind::PUBCOMP, 1).await;
        }
        let mut c = house.client(version, "c", false).await;
        c.subscribe("b/#", 2).await;
        let (one, two) = (c.got().await, c.got().await);
        assert_eq!((one.qos, two.qos), (2, 2));
        // One is received, the other is complete.
        c.ack(kind::PUBREC, one.id).await;
        c.acked(kind::PUBREL, one.id).await;
        c.ack(kind::PUBREC, two.id).await;
        c.acked(kind::PUBREL, two.id).await;
        c.ack(kind::PUBCOMP, two.id).await;
        c.pings().await;
        let fake = if is_killed {
            house.kill().await;
            fake.crash(|n| n)
        } else {
            drop(c);
            house.close().await;
            fake
        };
        let house = House::open(&fake).await;
        let (mut c, connack) = house.connect(version, "c", false, &[]).await;
        assert_eq!(connack[..2], [1, 0]);
        let mut p = house.client(Version::V4, "p", true).await;
        p.publish("a", b"kept", 2, 1, true).await;
        p.acked(kind::PUBREC, 1).await;
        // What was complete may be released once more after a kill, and after an end in order is not.
        let mut released = BTreeSet::from([c.acked_any(kind::PUBREL).await]);
        if is_killed {
            released.insert(c.acked_any(kind::PUBREL).await);
        }
        assert!(released.contains(&one.id), "{released:?}");
        // Until it says so, it may take a message under such an id for the one of before.
        c.subscribe("a", 2).await;
        let got = c.got().await;
        assert_eq!((&*got.topic, got.dup), ("a", false));
        assert!(!released.contains(&got.id), "{released:?} {got:?}");
        for id in &released {
            c.ack(kind::PUBCOMP, *id).await;
        }
        c.ack(kind::PUBREC, got.id).await;
        c.acked(kind::PUBREL, got.id).await;
        c.ack(kind::PUBCOMP, got.id).await;
        c.leaves().await;
        until("nothing is open any more", || fake.session("c").unwrap().loose.is_empty()).await;
        house.close().await;
    }
}

#[tokio::test]
async fn a_retained_message_of_qos_2_waits_until_the_log_has_its_id() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V4, "p", true).await;
    for n in 0..100u16 {
        p.publish(&format!("r/{n}"), b"kept", 2, 1, true).await;
        p.acked(kind::PUBREC, 1).await;
        p.ack(kind::PUBREL, 1).await;
        p.acked(kind::PUBCOMP, 1).await;
    }
    let mut c = house.client(Version::V4, "c", false).await;
    assert_eq!(c.subscribe("none", 2).await, 2);
    c.subscribe("r/#", 2).await;
    // As many as there are such ids, and the others as these are completed.
    let (mut all, mut released) = (BTreeSet::new(), 0);
    while released < 100 {
        let (first, body) = c.packet().await.unwrap();
        if first >> 4 == kind::PUBREL {
            released += 1;
            c.ack(kind::PUBCOMP, Ack::parse(Version::V4, kind::PUBREL, &body).unwrap().id).await;
            continue;
        }
        let got = got(Version::V4, first, &body);
        let noted = fake.session("c").unwrap().loose;
        assert!(noted.contains(&got.id), "{got:?}, and {noted:?}");
        assert!(all.insert(got.topic));
        c.ack(kind::PUBREC, got.id).await;
    }
    c.hears_nothing().await;
    house.close().await;
}
