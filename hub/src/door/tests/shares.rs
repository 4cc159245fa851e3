//! Shared subscriptions, each behaviour by itself; [`super::groups`] has the model.

use super::*;

#[tokio::test]
async fn a_group_gets_each_message_once_and_its_members_take_turns() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut p = house.client(Version::V5, "p", true).await;
        p.publish("x", b"kept", 1, 1, true).await;
        p.acked(kind::PUBACK, 1).await;
        let mut a = house.client(version, "a", true).await;
        let mut b = house.client(version, "b", true).await;
        assert_eq!(a.subscribe("$share/g/x", 2).await, 2);
        assert_eq!(b.subscribe("$share/g/x", 1).await, 1);
        // What is retained is for nobody in particular.
        a.hears_nothing().await;
        for id in 1..=10u16 {
            p.publish_acked("x", id.to_string().as_bytes(), id).await;
        }
        let mut got = Vec::new();
        for _ in 0..5 {
            got.push(a.got_and_acked().await.parse::<u16>().unwrap());
            got.push(b.got().await.payload.parse().unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, (1..=10).collect::<Vec<_>>());
        // It goes without having acknowledged: the other gets its share, and what comes then.
        b.leaves().await;
        p.publish_acked("x", b"11", 11).await;
        for _ in 0..6 {
            assert_eq!(got.iter().filter(|g| **g == 11).count(), 0);
            got.push(a.got_and_acked().await.parse().unwrap());
        }
        a.hears_nothing().await;
        // Nobody durable was in it: nothing of it is in the log.
        assert!(fake.notes().is_empty());
        house.close().await;
    }
}

#[tokio::test]
async fn a_durable_members_share_waits_for_it_until_its_session_ends() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut a = house.client(version, "a", false).await;
        a.subscribe("$share/g/x", 1).await;
        let mut p = house.client(version, "p", true).await;
        for id in 1..=3u16 {
            p.publish_acked("x", id.to_string().as_bytes(), id).await;
        }
        let one = a.got().await;
        assert_eq!((one.payload.as_str(), one.dup), ("1", false));
        assert_eq!(a.got_and_acked().await, "2");
        assert_eq!(a.got().await.payload, "3");
        until("2 is noted", || fake.session("$share/g/x").is_some_and(|s| s.beyond.len() == 1)).await;
        drop(a);
        until("it is gone", || house.door.counters.connections.load(Ordering::Relaxed) == 1).await;
        // Another comes: what the first has not acknowledged is still the first's.
        let mut b = house.client(version, "b", true).await;
        b.subscribe("$share/g/x", 1).await;
        p.publish_acked("x", b"4", 4).await;
        assert_eq!(b.got_and_acked().await, "4");
        let (mut a, _) = house.connect(version, "a", false, &[]).await;
        assert_eq!(a.got().await, Got { dup: true, ..one });
        assert_eq!(a.got().await.payload, "3");
        drop(a);
        // Its session is over: now it is the other's.
        let a = house.client(version, "a", true).await;
        assert_eq!((b.got_and_acked().await, b.got_and_acked().await), ("1".into(), "3".into()));
        until("the group is no longer kept", || fake.session("$share/g/x").is_none()).await;
        drop((a, b));
        house.close().await;
    }
}

#[tokio::test]
async fn a_durable_group_goes_on_from_its_cursor_in_the_next_process() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut a = house.client(Version::V5, "a", false).await;
    a.subscribe("$share/g/x", 1).await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.publish_acked("x", b"1", 1).await;
    assert_eq!(a.got_and_acked().await, "1");
    a.leaves().await;
    for id in 2..=300u16 {
        p.publish_acked("x", id.to_string().as_bytes(), id).await;
    }
    house.close().await;
    let house = House::open(&fake).await;
    let mut b = house.client(Version::V5, "b", true).await;
    b.subscribe("$share/g/x", 1).await;
    for id in 2..=300u16 {
        assert_eq!(b.got_and_acked().await, id.to_string());
    }
    b.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn no_local_with_a_group_and_a_groups_name_as_an_id_are_refused() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "c", true).await;
    let mut body = vec![0, 9, 0];
    put_text("$share/g/x", &mut body);
    body.push(1 | 4);
    c.send(0x82, &body).await;
    assert_eq!(c.is_closed().await, Some(0x82));
    let (_, connack) = house.connect(Version::V5, "$share/g/x", true, &[]).await;
    assert_eq!(connack[1], 0x85);
    house.close().await;
}

#[tokio::test]
async fn a_slow_member_stops_its_group_by_the_groups_messages_and_not_by_what_else_the_log_gets() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut slow = house.client(Version::V5, "slow", true).await;
    slow.subscribe("$share/g/x", 1).await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.publish_acked("x", b"1", 1).await;
    let held = slow.got().await;
    let mut other = house.client(Version::V5, "other", true).await;
    other.subscribe("$share/g/x", 1).await;
    let unrelated = Header { topic: "y", qos: 1, ..Header::local(Kind::Message, "") };
    let unrelated = citybrain_shared::record::Draft::new(&unrelated, b"0").unwrap();
    fake.commit(vec![unrelated; 5000]);
    for id in 2..=5u16 {
        p.publish_acked("x", id.to_string().as_bytes(), id).await;
    }
    let mut got = vec![other.got_and_acked().await, other.got_and_acked().await];
    got.extend([slow.got_and_acked().await, slow.got_and_acked().await]);
    got.sort_unstable();
    assert_eq!(got, ["2", "3", "4", "5"]);
    slow.ack(kind::PUBACK, held.id).await;
    house.close().await;
}

#[tokio::test]
async fn what_a_client_was_to_get_and_never_did_comes_as_new() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for filters in [&["x", "y"][..], &["$share/g/x", "$share/g/y"], &["x", "$share/g/y"]] {
        let (mut a, connack) = house.connect_with("a", 0, &[0x11, 0, 0, 0, 100, 0x21, 0, 1], &[]).await;
        assert_eq!(connack[1], 0);
        for filter in filters {
            a.subscribe(filter, 1).await;
        }
        let mut p = house.client(Version::V5, "p", true).await;
        p.publish_acked("x", b"1", 1).await;
        p.publish_acked("y", b"2", 2).await;
        // With a receive maximum of 1 the other waits for its turn.
        let first = a.got().await;
        a.leaves().await;
        let (mut a, _) = house.connect(Version::V5, "a", false, &[]).await;
        for _ in 0..2 {
            let got = a.got().await;
            assert_eq!(got.dup, got.payload == first.payload, "{filters:?}: {got:?}");
            a.ack(kind::PUBACK, got.id).await;
        }
        a.hears_nothing().await;
        drop(a);
        house.client(Version::V5, "a", true).await.leaves().await;
    }
    house.close().await;
}

#[tokio::test]
async fn a_group_sets_no_more_apart_than_a_record_of_the_log_can_name() {
    const APART_MAX: usize = 4096;
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut members = Vec::new();
    // Each may have 32 at a time.
    for n in 0..=APART_MAX / 32 {
        let mut m = house.client(Version::V4, &format!("m{n}"), true).await;
        assert_eq!(m.subscribe("$share/g/x", 2).await, 2);
        members.push(m);
    }
    let mut other = house.client(Version::V4, "other", true).await;
    other.subscribe("y", 0).await;
    let in_flight = || house.door.sessions().iter().map(|s| s.in_flight).sum::<usize>();
    let of = |topic, qos| Draft::new(&Header { topic, qos, ..Header::local(Kind::Message, "") }, b"1").unwrap();
    fake.commit(vec![of("x", 2); APART_MAX + 100]);
    until("they have what they may have", || in_flight() >= APART_MAX).await;
    fake.commit(vec![of("y", 0)]);
    assert_eq!(other.got().await.topic, "y");
    assert_eq!(in_flight(), APART_MAX);
    // What one had goes to nobody, and the others get what comes then.
    drop(members.pop());
    until("the others have theirs", || in_flight() == members.len() * 32).await;
    drop(members);
    house.close().await;
}

#[tokio::test]
async fn a_worker_that_comes_back_gets_its_groups_messages_in_the_order_of_the_log() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut w = house.client(Version::V4, "w", false).await;
    w.subscribe("y", 1).await;
    w.subscribe("$share/g/x", 1).await;
    let of = |topic, payload: &str| {
        let header = Header { topic, qos: 1, ..Header::local(Kind::Message, "") };
        Draft::new(&header, payload.as_bytes()).unwrap()
    };
    // All that may be under way to it is of the other filter.
    const IN_FLIGHT_MAX: usize = 1024;
    fake.commit(vec![of("y", "y"); IN_FLIGHT_MAX]);
    for _ in 0..IN_FLIGHT_MAX {
        assert_eq!(w.got().await.payload, "y");
    }
    fake.commit((1..=4).map(|n| of("x", &n.to_string())).collect());
    w.hears_nothing().await;
    drop(w);
    let (mut w, _) = house.connect(Version::V4, "w", false, &[]).await;
    let mut got = Vec::new();
    for _ in 0..IN_FLIGHT_MAX + 4 {
        let payload = w.got_and_acked().await;
        if payload != "y" {
            got.push(payload);
        }
    }
    assert_eq!(got, ["1", "2", "3", "4"]);
    house.close().await;
}

/// [MQTT-4.8.2-6]
#[tokio::test]
async fn a_message_that_a_member_refuses_goes_to_nobody_else() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut a = house.client(Version::V5, "a", false).await;
    a.subscribe("$share/g/x", 2).await;
    let mut p = house.client(Version::V5, "p", true).await;
    for (id, qos) in [(1, 1), (2, 2)] {
        p.publish("x", b"unwelcome", qos, id, false).await;
        p.acked(if qos == 1 { kind::PUBACK } else { kind::PUBREC }, id).await;
        let got = a.got().await;
        assert_eq!(got.qos, qos);
        let mut refusal = Vec::new();
        put_ack(Version::V5, if qos == 1 { kind::PUBACK } else { kind::PUBREC }, got.id, 0x83, &mut refusal);
        a.socket.write_all(&refusal).await.unwrap();
    }
    a.pings().await;
    let mut b = house.client(Version::V4, "b", false).await;
    b.subscribe("$share/g/x", 2).await;
    // Nor when its session ends, nor in the next process.
    a.leaves().await;
    house.client(Version::V5, "a", true).await.leaves().await;
    b.hears_nothing().await;
    house.kill().await;
    let house = House::open(&fake.crash(|n| n)).await;
    let mut b = house.client(Version::V4, "b", false).await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.publish_acked("x", b"next", 3).await;
    assert_eq!(b.got_and_acked().await, "next");
    house.close().await;
}

#[tokio::test]
async fn a_group_s_message_names_the_member_s_own_subscription() {
    let house = House::open(&Fake::new()).await;
    let mut members = Vec::new();
    for number in [3, 4] {
        let mut c = house.client(Version::V5, &format!("c{number}"), true).await;
        let mut body = vec![0, 9, 2, 0x0b, number];
        put_text("$share/g/x", &mut body);
        body.push(0);
        c.send(0x82, &body).await;
        assert_eq!(c.packet().await.unwrap().0, 0x90);
        members.push((number, c));
    }
    let mut p = house.client(Version::V5, "p", true).await;
    for id in 1..=2 {
        p.publish_acked("x", b"m", id).await;
    }
    for (number, c) in &mut members {
        let (_, body) = c.packet().await.expect("its share");
        let mut rest = &body[..];
        text(&mut rest);
        assert_eq!(properties(&mut rest), [(0x0b, vec![*number])]);
    }
    house.close().await;
}

/// [MQTT-2.2.1-4]: two records that lie 65,471 apart have the same id.
#[tokio::test]
async fn a_group_s_message_does_not_come_under_the_id_of_one_of_an_earlier_connection_that_is_not_released() {
    use crate::door::window::packet_id;
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V4, "c", false).await;
    c.subscribe("a", 2).await;
    c.subscribe("$share/g/w", 2).await;
    let mut p = house.client(Version::V4, "p", true).await;
    // Each of the large ones is a turn of the connection, so that the last comes some turns later.
    let large = "x".repeat(70_000);
    let mut begun = Vec::new();
    for id in 1..=9 {
        p.publish("a", if id < 9 { large.as_bytes() } else { b"open" }, 2, id, false).await;
        p.acked(kind::PUBREC, id).await;
        begun.push(c.got().await);
    }
    let open = begun.last().expect("the last").clone();
    drop(c);
    until("it has left", || fake.session("c").is_some_and(|s| !s.connected)).await;
    // What is committed last lies at `upto`.
    let commit = |upto: u64, topic: &'static str, qos: u8| {
        let record = |topic: &'static str| {
            let header = Header { topic, qos, ..Header::local(Kind::Message, "") };
            citybrain_shared::record::Draft::new(&header, topic.as_bytes()).unwrap()
        };
        fake.commit((fake.last().0 + 1..upto).map(|_| record("other")).chain([record(topic)]).collect());
    };
    // A member reads on with the group, and leaves before the record comes that has the same id.
    let mut b = house.client(Version::V4, "b", true).await;
    b.subscribe("$share/g/w", 2).await;
    let same = (fake.last().0 + 1..).find(|n| packet_id(Pos(*n), 0) == open.id).expect("within 65,535");
    commit(same - 100, "w", 1);
    assert_eq!(b.got_and_acked().await, "w");
    b.leaves().await;
    until("it has left", || house.door.seats.connected() == 1).await;
    commit(same, "w", 2);
    let mut c = house.client(Version::V4, "c", false).await;
    for earlier in begun {
        assert_eq!(c.got().await, Got { dup: true, ..earlier });
    }
    c.hears_nothing().await;
    c.ack(kind::PUBREC, open.id).await;
    assert_eq!(c.acked(kind::PUBREL, open.id).await, 0);
    c.ack(kind::PUBCOMP, open.id).await;
    let of_group = c.got().await;
    assert_eq!((&*of_group.payload, of_group.id, of_group.dup), ("w", open.id, false));
    house.close().await;
}
