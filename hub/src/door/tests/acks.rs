//! When a client is answered: after the commit, once, and in order.

use super::*;

#[tokio::test]
async fn an_acknowledgement_waits_for_the_commit_and_pings_do_not() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut c = house.client(version, "a", true).await;
        fake.hold();
        for id in 1..=5 {
            c.publish("x", b"1", 1, id, false).await;
        }
        c.send(0xc0, &[]).await;
        assert_eq!(c.packet().await.unwrap().0, 0xd0);
        c.hears_nothing().await;
        fake.release();
        for id in 1..=5 {
            assert_eq!(c.acked(kind::PUBACK, id).await, 0);
        }
        house.close().await;
    }
}

#[tokio::test]
async fn one_read_is_one_offer() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V4, "a", true).await;
    let mut out = Vec::new();
    for id in 1..=100u16 {
        publish::Out { qos: 1, id, ..super::out("x", b"1") }.put(Version::V4, &mut out);
    }
    c.socket.write_all(&out).await.unwrap();
    for id in 1..=100 {
        c.acked(kind::PUBACK, id).await;
    }
    assert!(fake.offers() <= 2, "{}", fake.offers());
    house.close().await;
}

#[tokio::test]
async fn a_failed_commit_is_a_reason_code_or_the_end_but_never_success() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut five = house.client(Version::V5, "five", true).await;
    let mut four = house.client(Version::V4, "four", true).await;
    fake.break_disk(true);
    five.publish("x", b"1", 1, 7, false).await;
    assert_eq!(five.acked(kind::PUBACK, 7).await, 0x83);
    four.publish("x", b"1", 1, 7, false).await;
    assert_eq!(four.packet().await, None);
    fake.break_disk(false);
    five.publish_acked("x", b"1", 7).await;
    house.close().await;
}

#[tokio::test]
async fn on_a_disk_without_room_an_exchange_is_completed_though_something_new_came_with_it() {
    for version in [Version::V4, Version::V5] {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut p = house.client(version, "p", false).await;
        p.publish("x", b"1", 2, 5, false).await;
        p.acked(kind::PUBREC, 5).await;
        fake.fill_disk(true);
        let mut both = Vec::new();
        put_ack(version, kind::PUBREL, 5, 0, &mut both);
        publish::Out { qos: 1, id: 6, ..super::out("x", b"2") }.put(version, &mut both);
        p.socket.write_all(&both).await.unwrap();
        assert_eq!(p.acked(kind::PUBCOMP, 5).await, 0);
        match version {
            Version::V4 => assert_eq!(p.packet().await, None),
            Version::V5 => assert_eq!(p.acked(kind::PUBACK, 6).await, 0x83),
        }
        house.close().await;
    }
}

#[tokio::test]
async fn a_cursor_that_cannot_be_noted_is_tried_again_with_the_next_acknowledgement_and_not_before() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V5, "s", false).await;
    s.subscribe("x", 1).await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.publish_acked("x", b"1", 1).await;
    fake.break_disk(true);
    let before = fake.offers();
    s.got_and_acked().await;
    until("the note is refused", || fake.offers() > before).await;
    // Each answer is a turn of its connection, in which it could have tried again.
    for _ in 0..20 {
        s.pings().await;
    }
    assert_eq!(fake.offers(), before + 1);
    fake.break_disk(false);
    p.publish_acked("x", b"2", 2).await;
    s.got_and_acked().await;
    let committed = fake.committed();
    until("the cursor is noted", || fake.session("s").unwrap().upto.next() == *committed.borrow()).await;
    house.close().await;
}

#[tokio::test]
async fn what_is_under_way_stays_within_the_clients_receive_maximum() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 3, 0x21, 0, 2];
    put_text("s", &mut body);
    let mut s =
        Client { socket: TcpStream::connect(house.at).await.unwrap(), input: BytesMut::new(), version: Version::V5 };
    s.send(0x10, &body).await;
    s.packet().await.unwrap();
    s.subscribe("x", 1).await;
    let mut p = house.client(Version::V4, "p", true).await;
    for id in 1..=5 {
        p.publish_acked("x", b"m", id).await;
    }
    let first = s.got().await;
    s.got().await;
    s.hears_nothing().await;
    s.ack(kind::PUBACK, first.id).await;
    s.got().await;
    s.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn qos2_is_once_both_ways() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut s = house.client(version, "s", false).await;
        s.subscribe("x", 2).await;
        let mut p = house.client(version, "p", false).await;
        fake.hold();
        p.publish("x", b"1", 2, 5, false).await;
        p.publish("x", b"1", 2, 5, false).await;
        p.hears_nothing().await;
        fake.release();
        p.acked(kind::PUBREC, 5).await;
        p.publish("x", b"1", 2, 5, false).await;
        p.acked(kind::PUBREC, 5).await;
        // A new connection does not know less.
        drop(p);
        let (mut p, _) = house.connect(version, "p", false, &[]).await;
        p.publish("x", b"1", 2, 5, false).await;
        p.acked(kind::PUBREC, 5).await;
        p.ack(kind::PUBREL, 5).await;
        p.acked(kind::PUBCOMP, 5).await;
        assert!(fake.session("p").unwrap().held.is_empty());

        let got = s.got().await;
        assert_eq!(got.qos, 2);
        s.ack(kind::PUBREC, got.id).await;
        s.acked(kind::PUBREL, got.id).await;
        drop(s);
        let (mut s, _) = house.connect(version, "s", false, &[]).await;
        s.acked(kind::PUBREL, got.id).await;
        // Nor does another process over the same log.
        house.close().await;
        let house = House::open(&fake).await;
        let (mut s, _) = house.connect(version, "s", false, &[]).await;
        s.acked(kind::PUBREL, got.id).await;
        s.ack(kind::PUBCOMP, got.id).await;
        s.hears_nothing().await;
        s.leaves().await;
        let (mut s, _) = house.connect(version, "s", false, &[]).await;
        s.hears_nothing().await;
        house.close().await;
    }
}

/// A device that kept its ids in memory alone, and lost power before it could release one: it counts from the
/// beginning, and what it says next under that id is no repetition.
#[tokio::test]
async fn another_message_under_an_id_that_was_never_released_is_kept() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut s = house.client(version, "s", false).await;
        s.subscribe("x", 1).await;
        let mut p = house.client(version, "p", false).await;
        p.publish("x", b"1", 2, 5, false).await;
        p.acked(kind::PUBREC, 5).await;
        drop(p);
        let (mut p, _) = house.connect(version, "p", false, &[]).await;
        p.publish("x", b"2", 2, 5, false).await;
        p.acked(kind::PUBREC, 5).await;
        drop((p, s));
        house.close().await;
        let house = House::open(&fake).await;
        let (mut p, _) = house.connect(version, "p", false, &[]).await;
        // The second is known as well as the first was. A third's first sending has broken off.
        p.publish("x", b"2", 2, 5, false).await;
        p.acked(kind::PUBREC, 5).await;
        p.put(publish::Out { qos: 2, id: 5, dup: true, ..out("x", b"3") }).await;
        p.acked(kind::PUBREC, 5).await;
        p.ack(kind::PUBREL, 5).await;
        p.acked(kind::PUBCOMP, 5).await;
        p.publish("x", b"4", 2, 5, false).await;
        p.acked(kind::PUBREC, 5).await;
        p.ack(kind::PUBREL, 5).await;
        p.acked(kind::PUBCOMP, 5).await;
        assert!(fake.session("p").unwrap().held.is_empty());
        let (mut s, _) = house.connect(version, "s", false, &[]).await;
        for wanted in ["1", "2", "3", "4"] {
            let got = s.got().await;
            assert_eq!(got.payload, wanted, "MQTT {version:?}");
            s.ack(kind::PUBACK, got.id).await;
        }
        s.hears_nothing().await;
        house.close().await;
    }
}

/// A client whose session lasts, and a message of QoS 2 that it has got and not answered.
async fn given_qos2(house: &House, version: Version) -> (Client, Got) {
    let mut s = house.client(version, "s", false).await;
    s.subscribe("x", 2).await;
    let mut p = house.client(Version::V4, "p", true).await;
    p.publish("x", b"1", 2, 5, false).await;
    p.acked(kind::PUBREC, 5).await;
    let got = s.got().await;
    (s, got)
}

#[tokio::test]
async fn a_release_waits_until_the_log_knows_that_the_client_has_the_message() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let (mut s, got) = given_qos2(&house, Version::V4).await;
    fake.hold();
    s.ack(kind::PUBREC, got.id).await;
    s.hears_nothing().await;
    fake.release();
    s.acked(kind::PUBREL, got.id).await;
    assert_eq!(fake.session("s").unwrap().releasing.len(), 1);
    s.ack(kind::PUBCOMP, got.id).await;
    until("the cursor is noted", || fake.session("s").unwrap().releasing.is_empty()).await;
    house.close().await;
}

#[tokio::test]
async fn a_publish_and_a_goodbye_in_one_packet_are_both_heard() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V4, "c", true).await;
    c.socket.write_all(b"\x30\x08\0\x04in/a{}\xe0\0").await.unwrap();
    assert_eq!(c.is_closed().await, None);
    until("the event is committed", || fake.offers() == 1).await;
    house.close().await;
}

#[tokio::test]
async fn a_client_that_floods_is_slowed_down_and_goes_on() {
    let fake = Fake::new();
    let broker = config::Broker { client_publishes_per_s_max: 2_000, ..Default::default() };
    let house = House::with(&fake, broker, config::Access::default()).await;
    let mut c = house.client(Version::V5, "c", true).await;
    // All of it lies in the socket at once: taking a batch lasts longer than its last publish has to wait.
    let mut all = Vec::new();
    for _ in 0..3_000 {
        all.extend_from_slice(&[0x30, 5, 0, 1, b'x', 0, b'1']);
    }
    c.socket.write_all(&all).await.unwrap();
    c.publish("x", b"1", 1, 1, false).await;
    assert_eq!(c.acked(kind::PUBACK, 1).await, 0);
    assert!(house.door.counters.slowed.get() > 0);
    drop(c);
    until("its end is seen", || house.door.counters.connections.load(std::sync::atomic::Ordering::Relaxed) == 0).await;
    house.close().await;
}

#[tokio::test]
async fn a_client_that_is_too_fast_waits_and_loses_nothing() {
    let fake = Fake::new();
    let broker = config::Broker { client_publishes_per_s_max: 100, client_subscriptions_max: 2, ..Default::default() };
    let house = House::with(&fake, broker, config::Access::default()).await;
    let mut c = house.client(Version::V5, "c", true).await;
    let start = std::time::Instant::now();
    for id in 1..=150u16 {
        c.publish("x", b"1", 1, id, false).await;
    }
    for id in 1..=150 {
        assert_eq!(c.acked(kind::PUBACK, id).await, 0);
    }
    // 100 at once, the other 50 at 100 a second.
    assert!(start.elapsed() > Duration::from_millis(400), "{:?}", start.elapsed());
    assert!(house.door.counters.slowed.get() > 0);
    for (filter, code) in [("a", 0), ("b", 0), ("c", 0x97), ("a", 0)] {
        assert_eq!(c.subscribe(filter, 0).await, code, "{filter}");
    }
    house.close().await;
}

#[tokio::test]
async fn who_has_closed_its_half_still_hears_its_answers() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for version in BOTH {
        fake.hold();
        let mut c = house.dial(version).await;
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let connect = [b"\0\x04MQTT", &[version.level(), 2, 0, 60][..], properties, b"\0\x01c"].concat();
        c.send(0x10, &connect).await;
        c.publish("x", b"1", 1, 1, false).await;
        c.publish("x", b"2", 2, 2, false).await;
        c.socket.shutdown().await.unwrap();
        assert_eq!(c.packet().await.unwrap().0, 0x20);
        fake.release();
        c.acked(kind::PUBACK, 1).await;
        c.acked(kind::PUBREC, 2).await;
        assert_eq!(c.packet().await, None);
    }
    house.close().await;
}

#[tokio::test]
async fn no_qos2_message_is_handed_on_by_a_note_that_a_power_cut_could_take() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let (mut s, got) = given_qos2(&house, Version::V5).await;
    fake.hold_syncs();
    s.ack(kind::PUBREC, got.id).await;
    s.hears_nothing().await;
    fake.release();
    s.acked(kind::PUBREL, got.id).await;
    s.ack(kind::PUBCOMP, got.id).await;
    // A group's member is to be told of a message only when the log knows whose it is.
    s.subscribe("$share/g/y", 2).await;
    let message = Header { topic: "y", qos: 2, ..Header::local(Kind::Message, "") };
    let message = citybrain_shared::record::Draft::new(&message, b"2").unwrap();
    fake.hold_syncs();
    fake.commit(vec![message]);
    s.hears_nothing().await;
    fake.release();
    let got = s.got().await;
    assert_eq!((got.qos, got.payload.as_str()), (2, "2"));
    // Nor does the next connection release it before the log knows that this one has it.
    fake.hold_syncs();
    s.ack(kind::PUBREC, got.id).await;
    s.send(0xe0, &[]).await;
    let connect = async {
        let (mut s, _) = house.connect(Version::V5, "s", false, &[]).await;
        s.acked(kind::PUBREL, got.id).await;
    };
    let release = async {
        tokio::time::sleep(Duration::from_millis(80)).await;
        assert!(!fake.session("$share/g/y").unwrap().apart.iter().any(|a| a.releasing));
        assert_eq!(house.door.counters.connects.get(), 2, "its session waits for the note");
        fake.release();
    };
    tokio::join!(connect, release);
    house.close().await;
}

#[tokio::test]
async fn a_power_cut_keeps_a_qos2_publish_with_its_id_or_neither() {
    for topic in ["x", "in/x"] {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut p = house.client(Version::V4, "p", false).await;
        fake.hold();
        p.publish(topic, b"{}", 2, 5, false).await;
        until("the publish is offered", || fake.offers() == 2).await;
        let fake = fake.crash(|_| 1);
        house.kill().await;
        let house = House::open(&fake).await;
        let (mut p, _) = house.connect(Version::V4, "p", false, &[]).await;
        p.publish(topic, b"{}", 2, 5, false).await;
        p.acked(kind::PUBREC, 5).await;
        let mut messages = 0;
        for entry in fake.read(Pos::ZERO, 100, usize::MAX).unwrap() {
            messages += usize::from(Header::decode(&entry.bytes).unwrap().0.topic == topic);
        }
        assert_eq!(messages, 1);
        house.close().await;
    }
}

/// [MQTT-4.6.0-4].
#[tokio::test]
async fn a_release_that_waits_for_its_note_is_not_overtaken() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V4, "p", true).await;
    p.publish("kept", b"r", 2, 1, true).await;
    p.acked(kind::PUBREC, 1).await;
    let mut s = house.client(Version::V5, "s", false).await;
    s.subscribe("x", 2).await;
    s.subscribe("$share/g/y", 2).await;
    s.subscribe("kept", 2).await;
    let kept = s.got().await;
    for topic in ["x", "y"] {
        p.publish(topic, b"1", 2, 2, false).await;
        p.acked(kind::PUBREC, 2).await;
        p.ack(kind::PUBREL, 2).await;
        p.acked(kind::PUBCOMP, 2).await;
    }
    let (one, two) = (s.got().await, s.got().await);
    fake.hold_syncs();
    for got in [&two, &one, &kept] {
        s.ack(kind::PUBREC, got.id).await;
    }
    s.hears_nothing().await;
    fake.release();
    for got in [two, one, kept] {
        s.acked(kind::PUBREL, got.id).await;
        s.ack(kind::PUBCOMP, got.id).await;
    }
    house.close().await;
}

#[tokio::test]
async fn however_often_a_client_says_that_it_has_a_message_it_is_told_once_to_release_it() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut app = house.client(version, "app", false).await;
        app.subscribe("x", 2).await;
        let message = Draft::new(&Header { topic: "x", qos: 2, ..Header::local(Kind::Message, "") }, b"1").unwrap();
        fake.commit(vec![message]);
        let got = app.got().await;
        // The note that it has it is under way for long.
        fake.hold();
        for _ in 0..2000 {
            app.ack(kind::PUBREC, got.id).await;
        }
        app.hears_nothing().await;
        fake.release();
        app.acked(kind::PUBREL, got.id).await;
        app.hears_nothing().await;
        app.ack(kind::PUBCOMP, got.id).await;
        until("it is complete", || house.door.sessions()[0].in_flight == 0).await;
        house.close().await;
    }
}

#[tokio::test]
async fn what_is_urgent_is_offered_without_the_notes_and_dead_letters_that_came_with_it() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V4, "p", false).await;
    let publish = |topic: &str, payload: &[u8], qos, id| {
        let mut bytes = Vec::new();
        publish::Out { qos, id, ..super::out(topic, payload) }.put(Version::V4, &mut bytes);
        bytes
    };
    p.socket.write_all(&publish("in/a", b"{}", 2, 1)).await.unwrap();
    p.acked(kind::PUBREC, 1).await;
    let before = fake.offers();
    // A press, the release of another message, a press that is a dead letter, and one that is none.
    let release = [0x62, 2, 0, 1];
    let all = [
        publish("in/sos/b", b"{}", 2, 2),
        release.to_vec(),
        publish("in/sos/c", b"no object", 2, 3),
        publish("in/sos/d", b"{}", 1, 4),
    ];
    p.socket.write_all(&all.concat()).await.unwrap();
    assert_eq!(p.acked(kind::PUBREC, 2).await, 0);
    p.acked(kind::PUBCOMP, 1).await;
    p.acked(kind::PUBREC, 3).await;
    p.acked(kind::PUBACK, 4).await;
    assert_eq!(fake.offers() - before, 3);
    let held = |id| fake.notes().iter().filter(|n| matches!(n, Note::Qos2Held { id: of, .. } if *of == id)).count();
    assert_eq!([held(1), held(2), held(3)], [1; 3]);
    house.close().await;
}

#[tokio::test]
async fn what_is_urgent_among_other_publishes_is_offered_by_itself_and_acknowledged_in_its_place() {
    for (topics, offers) in [(["in/a", "in/sos/b", "in/c"], 3), (["in/sos/a", "in/sos/b", "in/sos/c"], 1)] {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut p = house.client(Version::V4, "p", true).await;
        let mut all = Vec::new();
        for (topic, id) in topics.iter().zip(1u8..) {
            all.extend([0x32, 2 + topic.len() as u8 + 4, 0, topic.len() as u8]);
            all.extend_from_slice(topic.as_bytes());
            all.extend([0, id, b'{', b'}']);
        }
        let before = fake.offers();
        p.socket.write_all(&all).await.unwrap();
        for id in 1..=3 {
            p.acked(kind::PUBACK, id).await;
        }
        assert_eq!(fake.offers() - before, offers);
        house.close().await;
    }
}

#[tokio::test]
async fn what_is_urgent_comes_past_what_waits_for_room_and_is_acknowledged_behind_it() {
    for (version, clean) in [(Version::V4, true), (Version::V5, false)] {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut gateway = house.client(version, "gateway", clean).await;
        let mut both = Vec::new();
        for (topic, id) in [("in/a", 1), ("in/sos/b", 2)] {
            publish::Out { qos: 1, id, ..out(topic, b"{}") }.put(version, &mut both);
        }
        fake.fill_queue();
        gateway.socket.write_all(&both).await.unwrap();
        until("the first press is kept", || fake.published("in/sos/b").len() == 1).await;
        gateway.publish("in/sos/c", b"{}", 2, 3, false).await;
        gateway.publish("in/d", b"{}", 0, 0, false).await;
        gateway.publish("in/sos/e", b"{}", 1, 4, false).await;
        until("the last press is kept", || fake.published("in/sos/e").len() == 1).await;
        // Its answers come in the order of its publishes, whose first is not on disk.
        gateway.pings().await;
        assert_eq!((fake.events(), fake.published("in/sos/c").len()), (3, 1));
        fake.release();
        for (kind, id) in [(kind::PUBACK, 1), (kind::PUBACK, 2), (kind::PUBREC, 3), (kind::PUBACK, 4)] {
            assert_eq!(gateway.acked(kind, id).await, 0);
        }
        assert_eq!(fake.events(), 5);
        house.close().await;
    }
}

#[tokio::test]
async fn what_waits_for_room_when_its_client_goes_is_kept_all_the_same() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V4, "p", true).await;
    fake.fill_queue();
    for id in 1..=3 {
        p.publish("in/a", id.to_string().as_bytes(), 1, id, false).await;
    }
    p.pings().await;
    drop(p);
    fake.release();
    until("they are kept", || fake.letters().len() == 3).await;
    house.close().await;
}

/// The engine takes what is urgent and what is not by turns: nothing says that an urgent publish is in the
/// log when the notes behind it are.
#[tokio::test]
async fn who_takes_a_session_over_knows_the_ids_of_what_was_still_being_committed() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut first = house.client(Version::V5, "c", false).await;
    fake.hold_urgent();
    let offers = fake.offers();
    first.publish("in/sos/x", b"{}", 2, 7, false).await;
    until("it is offered", || fake.offers() > offers).await;
    let mut second = house.dial(Version::V5).await;
    let mut body = b"\0\x04MQTT\x05\0\0\x3c\x05\x11\0\0\0\x64".to_vec();
    put_text("c", &mut body);
    second.send(0x10, &body).await;
    assert_eq!(first.is_closed().await, Some(0x8e));
    second.hears_nothing().await;
    fake.release();
    let (first, connack) = second.packet().await.unwrap();
    assert_eq!((first, &connack[..2]), (0x20, &[1, 0][..]));
    second.put(publish::Out { qos: 2, id: 7, dup: true, ..out("in/sos/x", b"{}") }).await;
    second.acked(kind::PUBREC, 7).await;
    second.ack(kind::PUBREL, 7).await;
    second.acked(kind::PUBCOMP, 7).await;
    assert_eq!(fake.events(), 1);
    house.close().await;
}
