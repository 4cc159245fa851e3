//! CONNECTs that are refused: the reason for each, in both versions, and who may come in all the same.

use super::*;

/// A CONNECT of MQTT 5 with a will on this topic, or of 3.1.1.
async fn leaves_will(house: &House, version: Version, topic: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version.level(), 0b110, 0, 60];
    body.extend(vec![0; usize::from(version == Version::V5)]);
    put_text("c", &mut body);
    body.extend(vec![0; usize::from(version == Version::V5)]);
    put_text(topic, &mut body);
    put_text("gone", &mut body);
    let mut c = house.dial(version).await;
    c.send(0x10, &body).await;
    c.packet().await.map_or(Vec::new(), |(first, body)| [&[first], &body[..2]].concat())
}

#[tokio::test]
async fn a_session_that_cannot_be_written_is_refused_and_none_is_there_afterwards() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    fake.break_disk(true);
    for (version, code) in [(Version::V5, 0x83), (Version::V4, 3)] {
        let (mut c, connack) = house.connect(version, "c", false, &[]).await;
        assert_eq!(connack[..2], [0, code]);
        assert_eq!(c.packet().await, None);
    }
    assert!(!fake.has_session("c"));
    // One that is to leave nothing behind needs no disk.
    house.client(Version::V4, "passing", true).await;
    fake.break_disk(false);
    let (_, connack) = house.connect(Version::V5, "c", false, &[]).await;
    assert_eq!(connack[..2], [0, 0]);
    house.close().await;
}

#[tokio::test]
async fn who_waits_for_his_place_while_the_node_stops_is_told_to_come_later() {
    for (version, code) in [(Version::V5, 0x88), (Version::V4, 3)] {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut before = house.client(Version::V5, "c", false).await;
        // The end of the first connection cannot be written, and the second waits for that.
        fake.hold();
        let mut c = house.dial(version).await;
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let body = [b"\0\x04MQTT", &[version.level(), 2, 0, 60][..], properties, b"\0\x01c"].concat();
        c.send(0x10, &body).await;
        assert_eq!(before.is_closed().await, Some(0x8e));
        let door = house.door.clone();
        let told = async {
            until("the node stops", || *door.stop.borrow()).await;
            fake.release();
            c.packet().await.expect("a CONNACK")
        };
        let (_, (first, connack)) = tokio::join!(house.close(), told);
        assert_eq!((first, &connack[..2]), (0x20, &[0, code][..]));
    }
}

#[tokio::test]
async fn a_will_on_a_topic_that_is_none_is_refused() {
    let house = House::open(&Fake::new()).await;
    for topic in ["a/#", "+/a", ""] {
        assert_eq!(leaves_will(&house, Version::V5, topic).await, [0x20, 0, 0x90], "{topic}");
        // 3.1.1 has no code for it.
        assert_eq!(leaves_will(&house, Version::V4, topic).await, [0u8; 0], "{topic}");
    }
    assert_eq!(leaves_will(&house, Version::V5, "a").await, [0x20, 0, 0]);
    house.close().await;
}

#[tokio::test]
async fn after_ten_wrong_passwords_none_from_that_address_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    std::fs::write(&path, format!("ann:{0}\nbob:{0}\n", users::hash(b"right").unwrap())).unwrap();
    let access = config::Access { anonymous: false, users_file: Some(path), ..Default::default() };
    let house = House::with(&Fake::new(), config::Broker::default(), access).await;
    let login = async |version, name: &str, password: &str| {
        let mut tail = Vec::new();
        put_text(name, &mut tail);
        put_text(password, &mut tail);
        house.connect(version, name, true, &tail).await.1[1]
    };
    assert_eq!(login(Version::V5, "ann", "right").await, 0);
    for _ in 0..10 {
        assert_eq!(login(Version::V5, "bob", "wrong").await, 0x86);
    }
    for password in ["wrong", "right"] {
        assert_eq!(login(Version::V5, "bob", password).await, 0x9f);
        assert_eq!(login(Version::V4, "bob", password).await, 3);
    }
    assert_eq!(login(Version::V4, "ann", "right").await, 0, "she has been in since the node started");
    house.close().await;
}

#[tokio::test]
async fn a_user_gets_as_many_places_as_he_may_and_others_are_not_asked() {
    let broker = config::Broker { user_connections_max: 1, ..Default::default() };
    let house = House::with(&Fake::new(), broker, config::Access::default()).await;
    let come = async |version, id: &str, name: &str| {
        let mut tail = Vec::new();
        put_text(name, &mut tail);
        put_text("", &mut tail);
        let (client, connack) = house.connect(version, id, true, &tail).await;
        (client, connack[1])
    };
    let (ann, code) = come(Version::V5, "a", "ann").await;
    assert_eq!(code, 0);
    for (version, code) in [(Version::V5, 0x97), (Version::V4, 3)] {
        assert_eq!(come(version, "b", "ann").await.1, code);
    }
    let (_bob, code) = come(Version::V5, "c", "bob").await;
    assert_eq!(code, 0);
    // Who gives no name is no user.
    let _nobody = [house.client(Version::V5, "d", true).await, house.client(Version::V5, "e", true).await];
    ann.leaves().await;
    until("her place is free", || house.door.seats.connected() == 3).await;
    assert_eq!(come(Version::V4, "b", "ann").await.1, 0);
    house.close().await;
}

#[tokio::test]
async fn a_client_id_that_the_node_cannot_keep_is_refused() {
    let house = House::open(&Fake::new()).await;
    for id in ["x".repeat(513), "$webhook/desk".into(), "$share/g/x".into()] {
        for (version, code) in [(Version::V5, 0x85), (Version::V4, 2)] {
            let (mut c, connack) = house.connect(version, &id, true, &[]).await;
            assert_eq!(connack[..2], [0, code], "{id}");
            assert_eq!(c.packet().await, None);
        }
    }
    for version in BOTH {
        house.client(version, &"x".repeat(512), true).await;
    }
    house.close().await;
}

#[tokio::test]
async fn two_who_come_at_once_without_a_name_are_given_two() {
    let house = House::open(&Fake::new()).await;
    let one = || house.connect_with("", 0b10, &[0x11, 0, 0, 0, 100], &[]);
    let (a, b, c) = tokio::join!(one(), one(), one());
    let name = |connack: &[u8]| {
        let all = properties(&mut &connack[2..]);
        all.into_iter().find(|(i, _)| *i == 0x12).expect("an assigned client identifier").1
    };
    let names = [name(&a.1), name(&b.1), name(&c.1)];
    assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
    assert_eq!(house.door.seats.connected(), 3);
    // By that name it comes back to its session.
    drop(a);
    let name = String::from_utf8(names[0].clone()).unwrap();
    let (_, connack) = house.connect_with(&name, 0, &[0x11, 0, 0, 0, 100], &[]).await;
    assert_eq!(connack[..2], [1, 0]);
    house.close().await;
}

/// [MQTT-3.1.2-29]
#[tokio::test]
async fn who_wants_no_problem_information_gets_codes_alone() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for wants in [true, false] {
        let (mut c, _) = house.connect_with("c", 0b10, &[0x11, 0, 0, 0, 100, 0x17, u8::from(wants)], &[]).await;
        c.subscribe("kept", 0).await;
        let mut broken = vec![0, 1, 0];
        put_text("$share/g", &mut broken);
        broken.push(0);
        c.send(0x82, &broken).await;
        let suback = c.packet().await.unwrap();
        c.publish("in/x", b"no object", 2, 2, false).await;
        let pubrec = c.packet().await.unwrap();
        fake.break_disk(true);
        let mut kept = vec![0, 3, 0];
        put_text("kept", &mut kept);
        c.send(0xa2, &kept).await;
        let unsuback = c.packet().await.unwrap();
        fake.break_disk(false);
        if wants {
            assert_eq!((suback.0, pubrec.0, unsuback.0), (0x90, 0x50, 0xb0));
            for (body, at) in [(&suback.1, 2), (&pubrec.1, 3), (&unsuback.1, 2)] {
                assert!(!reason_string(body, at).expect("a reason").is_empty());
            }
        } else {
            assert_eq!(suback, (0x90, vec![0, 1, 0, 0x8f]));
            assert_eq!(pubrec, (0x50, vec![0, 2, 0x99]));
            assert_eq!(unsuback, (0xb0, vec![0, 3, 0, 0x83]));
        }
    }
    house.close().await;
}
