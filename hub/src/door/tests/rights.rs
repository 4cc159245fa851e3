//! Who may what, and how long a session waits.

use super::*;

fn login(name: &str, password: &str) -> Vec<u8> {
    let mut tail = Vec::new();
    put_text(name, &mut tail);
    put_text(password, &mut tail);
    tail
}

/// A users file, and access that reads it.
fn with_users(text: &str) -> (tempfile::TempDir, PathBuf, config::Access) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    std::fs::write(&path, text).unwrap();
    let access = config::Access { anonymous: false, users_file: Some(path.clone()), ..Default::default() };
    (dir, path, access)
}

#[tokio::test]
async fn a_role_s_filters_are_all_that_its_users_may_and_the_rest_is_refused_and_counted() {
    let hash = users::hash(b"pw").unwrap();
    let (_dir, _, access) = with_users(&format!("lamp:@sensor:{hash}\nnobody:{hash}\n"));
    let role = config::Role {
        name: "sensor".into(),
        publish: vec!["state/{user}/#".into()],
        subscribe: vec!["for/{user}".into(), "for/all/+".into()],
    };
    let fake = Fake::new();
    let house = House::with_roles(&fake, config::Broker::default(), access, &[role]).await;
    for (version, not_authorized) in [(Version::V4, 0x80), (Version::V5, 0x87)] {
        let (mut lamp, connack) = house.connect(version, "lamp", true, &login("lamp", "pw")).await;
        assert_eq!(connack[1], 0);
        for (id, topic, good) in [(1, "state/lamp/x", true), (2, "state/other", false), (3, "in/x", false)] {
            lamp.publish(topic, b"{}", 1, id, false).await;
            // 3.1.1 has no word for it: the client would send the same again for ever.
            let code = if good || version == Version::V4 { 0 } else { 0x87 };
            assert_eq!(lamp.acked(kind::PUBACK, id).await, code, "{topic}");
        }
        for (filter, code) in [
            ("for/lamp", 1),
            ("for/all/x", 1),
            ("for/all/+", 1),
            ("for/all/#", not_authorized),
            ("for/other", not_authorized),
            ("$share/g/for/other", not_authorized),
            ("$share/g/for/lamp", 1),
            ("#", not_authorized),
        ] {
            assert_eq!(lamp.subscribe(filter, 1).await, code, "{filter}");
        }
        // Without a role and without a word in config: nothing.
        let (mut nobody, _) = house.connect(version, "nobody", true, &login("nobody", "pw")).await;
        assert_eq!(nobody.subscribe("for/nobody", 0).await, not_authorized);
        nobody.publish("in/x", b"{}", 2, 9, false).await;
        assert_eq!(nobody.acked(kind::PUBREC, 9).await, if version == Version::V4 { 0 } else { 0x87 });
    }
    let c = &house.door.counters;
    assert_eq!((c.forbidden.get(), c.forbidden_subscriptions.get()), (6, 10));
    let said = fake.notes().into_iter().filter_map(|n| if let Note::DeadLetter(d) = n { Some(d.detail) } else { None });
    let named = ["lamp", "lamp", "nobody"].map(|name| format!("the user `{name}` may not publish on this topic"));
    assert_eq!(said.collect::<Vec<_>>(), [named.clone(), named].concat(), "each refused publish can be looked at");
    house.close().await;
}

#[tokio::test]
async fn a_session_that_is_resumed_keeps_only_what_its_user_may_still_have() {
    let fake = Fake::new();
    let may = |filters: &[&str]| config::Access {
        subscribe: Some(filters.iter().map(|f| (*f).to_owned()).collect()),
        ..Default::default()
    };
    let house = House::with(&fake, config::Broker::default(), may(&["a", "b/#", "c"])).await;
    let mut ann = house.client(Version::V5, "ann", false).await;
    for filter in ["a", "b/#", "$share/g/b/1", "c"] {
        assert_eq!(ann.subscribe(filter, 1).await, 1, "{filter}");
    }
    ann.leaves().await;
    house.close().await;
    let house = House::with(&fake, config::Broker::default(), may(&["a"])).await;
    let mut other = house.client(Version::V5, "other", true).await;
    for (id, topic) in [(1, "b/1"), (2, "c"), (3, "a")] {
        other.publish_acked(topic, topic.as_bytes(), id).await;
    }
    let mut ann = house.client(Version::V5, "ann", false).await;
    assert_eq!(ann.got_and_acked().await, "a");
    other.publish_acked("b/1", b"later", 4).await;
    ann.hears_nothing().await;
    assert_eq!(house.door.counters.forbidden_subscriptions.get(), 3);
    let session = fake.session("ann").unwrap();
    assert_eq!(session.filters.keys().collect::<Vec<_>>(), ["a"], "also for the next time");
    house.close().await;
}

#[tokio::test]
async fn a_will_on_a_topic_that_its_user_may_not_use_is_a_dead_letter() {
    let fake = Fake::new();
    let access = config::Access { publish: Some(vec!["in/#".into()]), ..Default::default() };
    let house = House::with(&fake, config::Broker::default(), access).await;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0x06, 0, 60];
    put_text("doomed", &mut body);
    put_text("other/x", &mut body);
    put_text("gone", &mut body);
    let mut client = house.dial(Version::V4).await;
    client.send(0x10, &body).await;
    assert_eq!(client.packet().await.unwrap().0, 0x20);
    drop(client);
    until("the will is refused", || fake.letters() == ["forbidden"]).await;
    assert_eq!(house.door.counters.forbidden.get(), 1);
    house.close().await;
}

#[tokio::test]
async fn who_is_taken_out_of_the_users_file_is_put_out_and_others_stay() {
    let hash = users::hash(b"pw").unwrap();
    let (_dir, path, access) = with_users(&format!("ann:{hash}\nbob:{hash}\ncid:{hash}\n"));
    let fake = Fake::new();
    let house = House::with(&fake, config::Broker::default(), access).await;
    let (mut ann, _) = house.connect(Version::V5, "ann", true, &login("ann", "pw")).await;
    let (mut bob, _) = house.connect(Version::V4, "bob", true, &login("bob", "pw")).await;
    let (mut cid, _) = house.connect(Version::V4, "cid", true, &login("cid", "pw")).await;
    std::fs::write(&path, format!("cid:{hash}\n")).unwrap();
    let (first, body) = ann.packet().await.expect("a DISCONNECT");
    assert_eq!((first, body[0]), (0xe0, 0x98), "administrative action");
    assert_eq!(bob.packet().await, None);
    cid.pings().await;
    let (_, connack) = house.connect(Version::V5, "ann", true, &login("ann", "pw")).await;
    assert_eq!(connack[1], 0x86);
    house.close().await;
}

#[tokio::test]
async fn enhanced_authentication_is_refused_in_the_protocol_s_own_words() {
    let house = House::open(&Fake::new()).await;
    let method: &[u8] = &[0x15, 0, 5, b'S', b'C', b'R', b'A', b'M'];
    let data: &[u8] = &[0x16, 0, 1, 7];
    for (properties, code) in [(method.to_vec(), 0x8c), ([method, data].concat(), 0x8c), (data.to_vec(), 0x82)] {
        let (mut client, connack) = house.connect_with("c", 2, &properties, &[]).await;
        assert_eq!(connack[1], code, "{properties:x?}");
        assert_eq!(client.packet().await, None);
    }
    // AUTH, of its three shapes, in a session that began without a method.
    for auth in [&[][..], &[0x18, 0], &[0x19, 8, 0x15, 0, 5, b'S', b'C', b'R', b'A', b'M']] {
        let mut client = house.client(Version::V5, "c", true).await;
        client.send(0xf0, auth).await;
        let (first, body) = client.packet().await.expect("a DISCONNECT");
        assert_eq!((first, body[0]), (0xe0, 0x82), "{auth:x?}");
        assert_eq!(client.packet().await, None);
    }
    let mut before = house.dial(Version::V5).await;
    before.send(0xf0, &[]).await;
    assert_eq!(before.packet().await, None, "the first packet is CONNECT or nothing");
    house.close().await;
}

#[tokio::test]
async fn after_a_restart_a_session_expires_by_when_its_client_left() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for id in ["long-gone", "just-gone"] {
        drop(house.client(Version::V5, id, false).await);
    }
    until("all have left", || house.door.seats.connected() == 0).await;
    house.close().await;
    // They asked for 100 s.
    fake.left_earlier("long-gone", Duration::from_secs(101));
    fake.left_earlier("just-gone", Duration::from_secs(50));
    let house = House::open(&fake).await;
    until("the one is forgotten", || !fake.has_session("long-gone")).await;
    assert!(fake.has_session("just-gone"));
    house.close().await;
}

#[tokio::test]
async fn a_session_s_expiry_that_is_changed_by_disconnect_outlives_a_restart() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut client = house.client(Version::V5, "c", false).await;
    // DISCONNECT with a session expiry of 1,000,000 s; the bound is a week.
    client.send(0xe0, &[0, 5, 0x11, 0, 0x0f, 0x42, 0x40]).await;
    until("it has left", || house.door.seats.connected() == 0).await;
    assert_eq!(fake.expiry_s("c"), 7 * 24 * 3600);
    house.close().await;
}

#[tokio::test]
async fn rights_are_kept_and_refusals_are_on_the_dead_letter_list() {
    let fake = Fake::new();
    let access = config::Access {
        publish: Some(vec!["in/{user}/#".into()]),
        subscribe: Some(vec!["out/#".into()]),
        ..Default::default()
    };
    let house = House::with(&fake, config::Broker::default(), access).await;
    let mut tail = Vec::new();
    put_text("ann", &mut tail);
    put_text("", &mut tail);
    let (mut c, _) = house.connect(Version::V5, "c", true, &tail).await;
    c.publish("in/ann/x", b"{}", 1, 1, false).await;
    assert_eq!(c.acked(kind::PUBACK, 1).await, 0);
    c.publish("in/bob/x", b"{}", 1, 2, false).await;
    assert_eq!(c.acked(kind::PUBACK, 2).await, 0x87);
    assert_eq!(c.subscribe("#", 1).await, 0x87);
    assert_eq!(c.subscribe("out/+", 1).await, 1);
    assert_eq!(c.subscribe("$share/g", 1).await, 0x8f);
    assert_eq!(c.subscribe("$share/g/out/a", 1).await, 1);
    assert_eq!(c.subscribe("$share/g/in/a", 1).await, 0x87);
    assert!(fake.notes().iter().any(|n| matches!(n, Note::DeadLetter(d) if d.reason == "forbidden")));
    house.close().await;
}

#[tokio::test]
async fn only_the_right_password_comes_in_and_wrong_ones_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    std::fs::write(&path, format!("ann:{}\n", users::hash(b"right").unwrap())).unwrap();
    let access = config::Access { anonymous: false, users_file: Some(path), ..Default::default() };
    let fake = Fake::new();
    let house = House::with(&fake, config::Broker::default(), access).await;
    for (version, password, code) in
        [(Version::V4, "wrong", 4), (Version::V5, "wrong", 0x86), (Version::V4, "right", 0), (Version::V5, "right", 0)]
    {
        let mut tail = Vec::new();
        put_text("ann", &mut tail);
        put_text(password, &mut tail);
        let (_, connack) = house.connect(version, "c", true, &tail).await;
        assert_eq!(connack[1], code);
    }
    let (_, connack) = house.connect(Version::V5, "c", true, &[]).await;
    assert_eq!(connack[1], 0x87);
    assert_eq!(house.door.counters.logins_failed.get(), 3);
    house.close().await;
}
