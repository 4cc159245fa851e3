//! What a publisher says of a message, as each kind of subscriber hears it, and what is answered to
//! packets about ids that nobody knows. Read byte by byte, not by the door's own reader.

use super::*;

/// A PUBLISH of MQTT 5 as it was on the wire.
#[derive(Debug)]
struct Seen {
    qos: u8,
    retain: bool,
    topic: String,
    /// Identifier and value, in their order.
    properties: Vec<(u8, Vec<u8>)>,
    payload: Vec<u8>,
}

impl Seen {
    fn all(&self, id: u8) -> Vec<&[u8]> {
        self.properties.iter().filter(|(i, _)| *i == id).map(|(_, v)| &v[..]).collect()
    }

    /// Seconds that it has left.
    fn expiry_s(&self) -> Option<u32> {
        let one = self.all(0x02).first()?.first_chunk().copied();
        one.map(u32::from_be_bytes)
    }

    /// All but the expiry, which counts down, and the subscriber's own identifiers.
    fn forwarded(&self) -> Vec<(u8, Vec<u8>)> {
        let mut all: Vec<_> = self.properties.iter().filter(|(i, _)| ![0x02, 0x0b].contains(i)).cloned().collect();
        // The order counts among user properties alone.
        all.sort_by_key(|(i, _)| *i);
        all
    }
}

impl Client {
    async fn seen(&mut self) -> Seen {
        let (first, body) = self.packet().await.expect("a message");
        assert_eq!(first >> 4, kind::PUBLISH, "{first:x} {body:x?}");
        let mut rest = &body[..];
        let topic = String::from_utf8(text(&mut rest).to_vec()).unwrap();
        let qos = first >> 1 & 3;
        let id = if qos > 0 { u16::from_be_bytes(take(&mut rest)) } else { 0 };
        let properties = properties(&mut rest);
        if qos == 1 {
            self.ack(kind::PUBACK, id).await;
        }
        Seen { qos, retain: first & 1 == 1, topic, properties, payload: rest.to_vec() }
    }

    /// A PUBLISH with these properties; of QoS 1 unless `id` is 0.
    async fn say(&mut self, topic: &str, retain: bool, id: u16, properties: &[u8], payload: &[u8]) {
        let mut body = Vec::new();
        put_text(topic, &mut body);
        if id > 0 {
            body.extend(id.to_be_bytes());
        }
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
        body.extend_from_slice(payload);
        self.send(0x30 | u8::from(id > 0) << 1 | u8::from(retain), &body).await;
    }

    async fn said(&mut self, topic: &str, retain: bool, id: u16, properties: &[u8], payload: &[u8]) {
        self.say(topic, retain, id, properties, payload).await;
        assert_eq!(self.acked(kind::PUBACK, id).await, 0);
    }

    /// SUBSCRIBE with an identifier.
    async fn subscribe_as(&mut self, number: u8, filter: &str, options: u8) {
        let mut body = vec![0, 9, 2, 0x0b, number];
        put_text(filter, &mut body);
        body.push(options);
        self.send(0x82, &body).await;
        assert_eq!(self.packet().await.unwrap().0, 0x90);
    }
}

/// All that goes on to subscribers: format, content type, response topic, correlation data, two user
/// properties of one name; and an expiry of 100 s.
fn said_of_it() -> Vec<u8> {
    let mut p = vec![0x01, 1, 0x02, 0, 0, 0, 100];
    for (id, value) in [(0x03, "text/plain"), (0x08, "answers/7"), (0x09, "\u{1}\u{2}")] {
        p.push(id);
        put_text(value, &mut p);
    }
    for value in ["second", "first"] {
        p.push(0x26);
        put_text("way", &mut p);
        put_text(value, &mut p);
    }
    p
}

#[tokio::test]
async fn what_a_publisher_says_of_a_message_reaches_every_kind_of_subscriber() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut sleeper = house.client(Version::V5, "sleeper", false).await;
    sleeper.subscribe("x", 1).await;
    sleeper.leaves().await;
    let mut live = house.client(Version::V5, "live", true).await;
    live.subscribe("x", 1).await;
    let mut member = house.client(Version::V5, "member", true).await;
    member.subscribe("$share/g/x", 1).await;
    let mut publisher = house.client(Version::V5, "publisher", true).await;
    let said = said_of_it();
    publisher.said("x", true, 1, &said, b"m").await;
    let want = {
        let counted = [&[said.len() as u8], &said[..]].concat();
        let mut all = properties(&mut &counted[..]);
        all.retain(|(i, _)| *i != 0x02);
        all.sort_by_key(|(i, _)| *i);
        all
    };
    assert_eq!(want.len(), 6);
    let house = {
        let seen = [("live", live.seen().await), ("a member", member.seen().await)];
        house.kill().await;
        // From here on by the log alone.
        let house = House::open(&fake.crash(|n| n)).await;
        let mut sleeper = house.client(Version::V5, "sleeper", false).await;
        let mut new = house.client(Version::V5, "new", true).await;
        new.subscribe("x", 1).await;
        let later = [("the one who slept", sleeper.seen().await), ("a new one", new.seen().await)];
        for (who, seen) in seen.iter().chain(&later) {
            assert_eq!(seen.forwarded(), want, "{who}");
            assert!((95..=100).contains(&seen.expiry_s().unwrap()), "{who}: {seen:?}");
            assert_eq!((&seen.payload[..], &seen.topic[..], seen.qos), (&b"m"[..], "x", 1), "{who}");
            assert_eq!(seen.retain, *who == "a new one");
        }
        house
    };
    // QoS 0 that is not retained is in no log.
    let mut live = house.client(Version::V5, "live", true).await;
    live.subscribe("y", 0).await;
    let mut publisher = house.client(Version::V5, "publisher", true).await;
    publisher.say("y", false, 0, &said, b"m").await;
    let seen = live.seen().await;
    assert_eq!((seen.forwarded(), seen.qos), (want, 0));
    house.close().await;
}

#[tokio::test]
async fn a_will_s_properties_go_with_it() {
    let house = House::open(&Fake::new()).await;
    let mut heir = house.client(Version::V5, "heir", true).await;
    heir.subscribe("w", 1).await;
    let said = said_of_it();
    let mut tail = vec![said.len() as u8];
    tail.extend_from_slice(&said);
    put_text("w", &mut tail);
    put_text("gone", &mut tail);
    // A will of QoS 1, and a clean start.
    let (mut client, connack) = house.connect_with("dying", 0b1110, &[], &tail).await;
    assert_eq!(connack[1], 0);
    // It says so itself: with its will.
    client.send(0xe0, &[0x04]).await;
    let seen = heir.seen().await;
    assert_eq!((&seen.payload[..], seen.forwarded().len()), (&b"gone"[..], 6));
    assert!(seen.expiry_s().is_some());
    house.close().await;
}

#[tokio::test]
async fn a_message_names_all_subscriptions_that_it_matched_and_comes_once() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.said("a/kept", true, 1, &[], b"0").await;
    let numbers = |seen: &Seen| {
        let mut all: Vec<u8> = seen.all(0x0b).iter().map(|v| v[0]).collect();
        all.sort_unstable();
        (String::from_utf8(seen.payload.clone()).unwrap(), all)
    };
    let mut c = house.client(Version::V5, "c", false).await;
    c.subscribe_as(5, "a/+", 1).await;
    assert_eq!(numbers(&c.seen().await), ("0".into(), vec![5]), "retained: of this SUBSCRIBE alone");
    // Retain handling 2: nothing of what is retained.
    c.subscribe_as(7, "a/#", 0x20 | 1).await;
    c.subscribe("a/b", 0x20).await;
    p.said("a/b", false, 2, &[], b"1").await;
    assert_eq!(numbers(&c.seen().await), ("1".into(), vec![5, 7]), "the third has no number");
    c.subscribe_as(9, "a/+", 0x20 | 1).await;
    p.said("a/b", false, 3, &[], b"2").await;
    assert_eq!(numbers(&c.seen().await), ("2".into(), vec![7, 9]), "the newer number of the same filter");
    c.leaves().await;
    p.said("a/b", false, 4, &[], b"3").await;
    house.kill().await;
    let house = House::open(&fake.crash(|n| n)).await;
    let mut c = house.client(Version::V5, "c", false).await;
    assert_eq!(numbers(&c.seen().await), ("3".into(), vec![7, 9]), "also of a session that slept");
    c.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn no_local_is_for_a_client_s_own_messages_alone() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut other = house.client(Version::V5, "other", true).await;
    let mut c = house.client(Version::V5, "c", false).await;
    c.subscribe("x", 4 | 1).await;
    c.publish_acked("x", b"own", 1).await;
    other.publish_acked("x", b"other's", 1).await;
    assert_eq!(c.got_and_acked().await, "other's");
    // QoS 0 goes another way, and what waits for one who is away a third one.
    c.publish("x", b"own", 0, 0, false).await;
    other.publish("x", b"other's", 0, 0, false).await;
    assert_eq!(c.got().await.payload, "other's");
    c.publish_acked("x", b"own", 2).await;
    c.leaves().await;
    other.publish_acked("x", b"later", 2).await;
    let mut c = house.client(Version::V5, "c", false).await;
    assert_eq!(c.got_and_acked().await, "later");
    c.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn what_has_expired_is_for_nobody_who_comes_later() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut sleeper = house.client(Version::V5, "sleeper", false).await;
    sleeper.subscribe("x", 1).await;
    sleeper.leaves().await;
    let mut p = house.client(Version::V5, "p", true).await;
    p.said("x", true, 1, &[0x02, 0, 0, 0, 1], b"short").await;
    p.said("x", false, 2, &[], b"long").await;
    let began = std::time::Instant::now();
    until("its second is over", || began.elapsed() > Duration::from_millis(1001)).await;
    let mut sleeper = house.client(Version::V5, "sleeper", false).await;
    assert_eq!(sleeper.got_and_acked().await, "long");
    sleeper.hears_nothing().await;
    let mut new = house.client(Version::V5, "new", true).await;
    new.subscribe("x", 1).await;
    new.hears_nothing().await;
    assert!(house.door.counters().expired.get() > 0);
    house.close().await;
}

#[tokio::test]
async fn an_alias_is_its_connection_s_and_may_be_set_anew() {
    let house = House::open(&Fake::new()).await;
    let mut c = house.client(Version::V5, "c", true).await;
    c.subscribe("#", 1).await;
    let mut p = house.client(Version::V5, "p", false).await;
    for (id, topic) in [(1, "a"), (2, ""), (3, "b"), (4, "")] {
        p.said(topic, false, id, &[0x23, 0, 32], b"").await;
    }
    for want in ["a", "a", "b", "b"] {
        assert_eq!(c.seen().await.topic, want);
    }
    // The highest that CONNACK offers is 32.
    p.say("a", false, 5, &[0x23, 0, 33], b"").await;
    assert_eq!(p.is_closed().await, Some(0x94));
    let mut p = house.client(Version::V5, "p", false).await;
    p.say("", false, 6, &[0x23, 0, 32], b"").await;
    assert_eq!(p.is_closed().await, Some(0x82));
    c.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn ids_and_filters_that_nobody_knows_are_named() {
    let house = House::open(&Fake::new()).await;
    for version in BOTH {
        let mut c = house.client(version, "c", true).await;
        let unknown = if version == Version::V5 { 0x92 } else { 0 };
        c.ack(kind::PUBREL, 77).await;
        assert_eq!(c.acked(kind::PUBCOMP, 77).await, unknown);
        c.ack(kind::PUBREC, 78).await;
        assert_eq!(c.acked(kind::PUBREL, 78).await, unknown);
        c.subscribe("known", 0).await;
        let mut body = vec![0, 5];
        if version == Version::V5 {
            body.push(0);
        }
        put_text("known", &mut body);
        put_text("unknown", &mut body);
        c.send(0xa2, &body).await;
        let want: &[u8] = if version == Version::V5 { &[0, 5, 0, 0, 0x11] } else { &[0, 5] };
        assert_eq!(c.packet().await.unwrap(), (0xb0, want.to_vec()));
    }
    // To a session that comes back it is no error: it has what it repeats behind it.
    house.client(Version::V5, "back", false).await.leaves().await;
    let mut c = house.client(Version::V5, "back", false).await;
    c.ack(kind::PUBREL, 77).await;
    assert_eq!(c.acked(kind::PUBCOMP, 77).await, 0);
    house.close().await;
}

#[tokio::test]
async fn a_message_that_its_subscriber_refuses_is_done_with() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "c", false).await;
    c.subscribe("x", 2).await;
    let mut p = house.client(Version::V5, "p", true).await;
    for (id, qos) in [(1, 1), (2, 2)] {
        p.publish("x", b"unwelcome", qos, id, false).await;
        p.acked(if qos == 1 { kind::PUBACK } else { kind::PUBREC }, id).await;
        let got = c.got().await;
        assert_eq!(got.qos, qos);
        let mut out = Vec::new();
        put_ack(Version::V5, if qos == 1 { kind::PUBACK } else { kind::PUBREC }, got.id, 0x80, &mut out);
        c.socket.write_all(&out).await.unwrap();
    }
    p.publish_acked("x", b"next", 3).await;
    assert_eq!(c.got_and_acked().await, "next");
    c.leaves().await;
    let mut c = house.client(Version::V5, "c", false).await;
    c.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn a_qos_2_message_whose_commit_fails_may_come_again_under_its_id() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut p = house.client(version, "p", false).await;
        fake.break_disk(true);
        p.publish("x", b"1", 2, 7, false).await;
        let mut p = if version == Version::V5 {
            assert_eq!(p.acked(kind::PUBREC, 7).await, 0x83);
            p
        } else {
            p.is_closed().await;
            fake.break_disk(false);
            house.client(version, "p", false).await
        };
        fake.break_disk(false);
        let before = fake.last();
        p.publish("x", b"1", 2, 7, false).await;
        assert_eq!(p.acked(kind::PUBREC, 7).await, 0);
        assert!(fake.last() > before, "it is a first time");
        p.ack(kind::PUBREL, 7).await;
        assert_eq!(p.acked(kind::PUBCOMP, 7).await, 0);
        house.close().await;
    }
}

#[tokio::test]
async fn who_gives_no_name_is_given_one_of_his_own() {
    let house = House::open(&Fake::new()).await;
    let mut given = Vec::new();
    for _ in 0..2 {
        let (client, connack) = house.connect_with("", 0b10, &[], &[]).await;
        assert_eq!(connack[1], 0);
        let all = properties(&mut &connack[2..]);
        let (_, name) = all.iter().find(|(i, _)| *i == 0x12).expect("an assigned client identifier");
        given.push((String::from_utf8(name.clone()).unwrap(), client));
    }
    assert!(!given[0].0.is_empty() && given[0].0 != given[1].0);
    let (_, connack) = house.connect_with("named", 0b10, &[], &[]).await;
    assert!(properties(&mut &connack[2..]).iter().all(|(i, _)| *i != 0x12));
    house.client(Version::V4, "", true).await;
    house.close().await;
}

#[tokio::test]
async fn an_orderly_stop_is_told() {
    let house = House::open(&Fake::new()).await;
    let mut c = house.client(Version::V5, "c", true).await;
    let (_, reason) = tokio::join!(house.close(), c.is_closed());
    assert_eq!(reason, Some(0x8b));
}

#[tokio::test]
async fn nothing_counts_that_comes_behind_a_refused_connect() {
    let fake = Fake::new();
    let access = config::Access { anonymous: false, ..Default::default() };
    let house = House::with(&fake, config::Broker::default(), access).await;
    let mut c = house.dial(Version::V5).await;
    let mut connect = vec![0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 1, b'c'];
    connect.extend([0x32, 7, 0, 1, b'x', 0, 1, 0, b'm']);
    c.socket.write_all(&connect).await.unwrap();
    let (first, body) = c.packet().await.unwrap();
    assert_eq!((first, body[1]), (0x20, 0x87));
    assert_eq!(c.packet().await, None);
    assert_eq!(fake.last(), Pos::ZERO);
    house.close().await;
}

#[tokio::test]
async fn a_will_waits_no_longer_than_its_session() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut heir = house.client(Version::V5, "heir", true).await;
    heir.subscribe("w", 1).await;
    let dying = |id: &'static str, expiry_s: u8| {
        // A delay of 1000 s.
        let mut tail = vec![5, 0x18, 0, 0, 3, 0xe8];
        put_text("w", &mut tail);
        put_text(id, &mut tail);
        let house = &house;
        async move { house.connect_with(id, 0b1110, &[0x11, 0, 0, 0, expiry_s], &tail).await.0 }
    };
    // Its session ends with its connection.
    drop(dying("at once", 0).await);
    assert_eq!(heir.got_and_acked().await, "at once");
    let patient = dying("patient", 100).await;
    drop(patient);
    until("it has left", || fake.session("patient").is_some_and(|s| !s.connected)).await;
    heir.hears_nothing().await;
    // A clean start ends the session, and the will's delay with it.
    let (_new, connack) = house.connect_with("patient", 0b10, &[], &[]).await;
    assert_eq!(connack[..2], [0, 0]);
    assert_eq!(heir.got_and_acked().await, "patient");
    house.close().await;
}

#[tokio::test]
async fn each_group_and_each_filter_beside_it_has_a_copy_of_its_own() {
    let house = House::open(&Fake::new()).await;
    let mut a = house.client(Version::V5, "a", true).await;
    for filter in ["$share/g/x", "$share/h/x", "x"] {
        a.subscribe(filter, 1).await;
    }
    let mut p = house.client(Version::V5, "p", true).await;
    p.publish_acked("x", b"m", 1).await;
    for _ in 0..3 {
        assert_eq!(a.got_and_acked().await, "m");
    }
    a.hears_nothing().await;
    house.close().await;
}
