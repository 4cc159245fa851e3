//! What one client may cost the node and the others.

use super::super::route::{Next, Sub};
use super::*;
use crate::note::Note;
use crate::state::FILTER_BYTES;

/// So many publishes of QoS 0 in one write.
fn burst(n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..n {
        let number = i.to_string();
        super::out("x", number.as_bytes()).put(Version::V4, &mut out);
    }
    out
}

#[tokio::test]
async fn a_burst_of_qos_0_reaches_a_subscriber_that_reads() {
    let house = House::open(&Fake::new()).await;
    let mut reader = house.client(Version::V4, "reader", true).await;
    reader.subscribe("x", 0).await;
    let mut sender = house.client(Version::V4, "sender", true).await;
    sender.socket.write_all(&burst(20_000)).await.unwrap();
    for i in 0..20_000 {
        assert_eq!(reader.got().await.payload, i.to_string());
    }
    assert_eq!(house.door.counters.qos0_dropped.get(), 0);
    house.close().await;
}

#[tokio::test]
async fn a_long_topic_under_an_alias_is_offered_in_bounded_batches() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "c", true).await;
    let topic = "t".repeat(60_000);
    let mut out = Vec::new();
    for i in 0..200 {
        let topic = if i == 0 { &topic } else { "" };
        publish::Out { retain: true, alias: Some(1), ..super::out(topic, b"1") }.put(Version::V5, &mut out);
    }
    c.socket.write_all(&out).await.unwrap();
    until("all are committed", || fake.last() == Pos(200)).await;
    // 12 MB, 1 MiB at a time.
    assert!(fake.offers() >= 200 * 60_000 / (1024 * 1024 + 60_000), "{}", fake.offers());
    house.close().await;
}

#[tokio::test]
async fn the_same_filter_a_thousand_times_asks_for_its_retained_messages_so_often_as_filters_may_be_there() {
    let broker = config::Broker { client_subscriptions_max: 10, ..Default::default() };
    let house = House::with(&Fake::new(), broker, config::Access::default()).await;
    let mut c = house.client(Version::V4, "c", true).await;
    let mut body = vec![0, 9];
    for _ in 0..1000 {
        put_text("a", &mut body);
        body.push(0);
    }
    c.send(0x82, &body).await;
    let (first, codes) = c.packet().await.unwrap();
    assert_eq!(first, 0x90);
    assert_eq!(codes[2..].iter().filter(|c| **c == 0).count(), 10);
    assert_eq!(codes[2..].iter().filter(|c| **c == 0x80).count(), 990);
    house.close().await;
}

#[tokio::test]
async fn a_deep_filter_counts_as_several() {
    let broker = config::Broker { client_subscriptions_max: 10, ..Default::default() };
    let house = House::with(&Fake::new(), broker, config::Access::default()).await;
    let mut c = house.client(Version::V5, "c", true).await;
    assert_eq!(c.subscribe(&["a"; 60].join("/"), 0).await, 0);
    assert_eq!(c.subscribe(&["b"; 60].join("/"), 0).await, 0x97);
    assert_eq!(c.subscribe("b", 0).await, 0);
    house.close().await;
}

#[tokio::test]
async fn all_sessions_together_have_so_much_room_for_filters() {
    let broker = config::Broker { sessions_bytes_max: 10 * FILTER_BYTES, ..Default::default() };
    let house = House::with(&Fake::new(), broker, config::Access::default()).await;
    let mut lasting = house.client(Version::V5, "lasting", false).await;
    let mut passing = house.client(Version::V5, "passing", true).await;
    for n in 0..4 {
        assert_eq!(lasting.subscribe(&format!("l/{n}"), 1).await, 1, "in the log and in the routes");
    }
    for n in 0..2 {
        assert_eq!(passing.subscribe(&format!("p/{n}"), 0).await, 0, "in the routes alone");
    }
    assert_eq!(passing.subscribe("p/2", 0).await, 0x97);
    assert_eq!(passing.subscribe("p/1", 1).await, 1, "one that it has may change");
    // What waits for its client is in the log only, and who is gone for good needs nothing.
    drop(lasting);
    until("it is gone", || house.door.router.filter_bytes() == 2 * FILTER_BYTES).await;
    for n in 2..6 {
        assert_eq!(passing.subscribe(&format!("p/{n}"), 0).await, 0);
    }
    assert_eq!(passing.subscribe("p/6", 0).await, 0x97);
    house.client(Version::V5, "lasting", true).await;
    until("the other has room", || house.door.room_of_sessions() == 4 * FILTER_BYTES).await;
    house.close().await;
}

#[tokio::test]
async fn a_last_will_needs_room_as_well() {
    let broker = config::Broker { sessions_bytes_max: 1000, ..Default::default() };
    let fake = Fake::new();
    let house = House::with(&fake, broker, config::Access::default()).await;
    let dying = async |id: &str, payload: usize| {
        let mut will = vec![0];
        put_text("gone", &mut will);
        put_text(&"x".repeat(payload), &mut will);
        let (client, connack) = house.connect_with(id, 0b110, &[], &will).await;
        (client, connack[1])
    };
    let mut there = Vec::new();
    // (id, bytes of the payload, the answer): a will takes the place of the one before.
    for (id, payload, reason) in [("a", 300, 0), ("b", 300, 0x97), ("a", 400, 0), ("b", 40, 0), ("c", 100, 0x97)] {
        let (client, answer) = dying(id, payload).await;
        assert_eq!(answer, reason, "{id} {payload}");
        there.push(client);
    }
    there.pop();
    there.pop().unwrap().send(0xe0, &[]).await;
    until("its will is over", || core::look(&fake, |s| s.sessions.wills().len()) == 1).await;
    let (_client, answer) = dying("c", 60).await;
    assert_eq!(answer, 0);
    house.close().await;
}

#[test]
fn who_reads_has_room_of_its_own_where_others_have_taken_all() {
    let counters = Arc::new(counters::Counters::default());
    let me = Arc::new(message::tests::me());
    let core = Fake::new();
    let router = route::Router::new(me, counters.clone(), "$cb", 1024 * 1024, Pos::ZERO);
    let mut sub = Sub { options: 0, id: None, since: Pos::ZERO };
    let mut join = |name: &str| {
        let (key, inbox) = router.join(&name.into());
        router.subscribe(key, &core, std::iter::once((name, &mut sub)));
        router.go_live(&inbox, Pos::ZERO);
        (key, inbox)
    };
    let (deaf, deaf_inbox) = join("deaf");
    let (_, hearing) = join("hearing");
    let say = |topic: &str| {
        let payload = Bytes::from(vec![0; 16 * 1024]);
        router.live(route::live_message(topic, &[], payload, 0, false, 0));
        counters.qos0_dropped.get()
    };
    let mut n = 0;
    while say("deaf") == 0 {
        n += 1;
    }
    assert!((60..=64).contains(&n), "1 MiB in all, long before 4 MiB of its own: {n}");
    for _ in 0..4 {
        assert_eq!(say("hearing"), 1, "64 KiB of its own");
    }
    assert_eq!(say("hearing"), 2);
    assert_eq!(hearing.queued(), 4);
    // Who is gone holds nothing.
    router.unsubscribe(deaf, std::iter::once("deaf"));
    router.leave(deaf);
    drop(deaf_inbox);
    for _ in 0..8 {
        assert_eq!(say("hearing"), 2);
    }
}

#[tokio::test]
async fn groups_are_bounded_and_take_no_place_of_a_client() {
    let broker = config::Broker { connections_max: 4, ..Default::default() };
    let house = House::with(&Fake::new(), broker, config::Access::default()).await;
    let mut c = house.client(Version::V5, "c", false).await;
    for n in 0..256 {
        assert_eq!(c.subscribe(&format!("$share/g{n}/x"), 1).await, 1);
    }
    assert_eq!(c.subscribe("$share/one-more/x", 1).await, 0x97);
    assert_eq!(c.subscribe("$share/g0/x", 0).await, 0, "one that it has");
    house.client(Version::V5, "other", false).await;
    house.close().await;
}

#[tokio::test]
async fn who_neither_reads_nor_speaks_is_ended_after_its_keep_alive() {
    let house = House::open(&Fake::new()).await;
    let mut deaf = house.dial(Version::V4).await;
    deaf.send(0x10, b"\0\x04MQTT\x04\x02\0\x01\0\x01d").await;
    assert_eq!(deaf.packet().await.unwrap().0, 0x20);
    deaf.subscribe("x", 0).await;
    let mut sender = house.client(Version::V4, "sender", true).await;
    // More than any socket's buffers take.
    let large = vec![b'x'; 400_000];
    while house.door.counters.keep_alive_timeouts.get() == 0 {
        sender.publish("x", &large, 0, 0, false).await;
    }
    house.close().await;
}

#[tokio::test]
async fn retained_messages_have_a_bound_and_may_be_replaced_and_removed_at_it() {
    let fake = Fake::new();
    let broker = config::Broker { retained_bytes_max: 1000, ..Default::default() };
    let house = House::with(&fake, broker, config::Access::default()).await;
    let mut c = house.client(Version::V5, "c", true).await;
    let long = [b'x'; 600];
    let mut publish = async |id: u16, topic: &str, payload: &[u8]| {
        c.publish(topic, payload, 1, id, true).await;
        c.acked(kind::PUBACK, id).await
    };
    assert_eq!(publish(1, "a", &long).await, 0);
    assert_eq!(publish(2, "b", &long).await, 0x97);
    assert_eq!(fake.letters(), ["retained"]);
    assert_eq!(publish(3, "a", &long).await, 0, "it is replaced");
    assert_eq!(publish(4, "a", &[b'x'; 1200]).await, 0x97, "what takes its place has the same bound");
    assert_eq!(publish(5, "a", b"").await, 0, "it is removed");
    assert_eq!(publish(6, "b", &long).await, 0, "there is room now");
    house.close().await;
}

#[tokio::test]
async fn one_message_that_is_never_acknowledged_does_not_let_the_cursor_s_notes_grow_for_ever() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V4, "c", false).await;
    c.subscribe("x", 1).await;
    let mut p = house.client(Version::V4, "p", true).await;
    let sending = async {
        for n in 0..6000u32 {
            p.publish_acked("x", n.to_string().as_bytes(), 1).await;
        }
    };
    let reading = async {
        let stuck = c.got().await;
        let mut got = 0;
        while let Ok(Some((_, body))) = timeout(Duration::from_millis(400), c.packet()).await {
            c.ack(kind::PUBACK, parse_publish(Version::V4, 2, &body).id).await;
            got += 1;
        }
        assert!((4096..5500).contains(&got), "{got}");
        c.ack(kind::PUBACK, stuck.id).await;
        for _ in got..5999 {
            c.got_and_acked().await;
        }
    };
    tokio::join!(sending, reading);
    house.close().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_read_for_a_while_costs_subscribers_nothing() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V4, "c", false).await;
    c.subscribe("x", 1).await;
    let mut p = house.client(Version::V4, "p", true).await;
    fake.break_reads(true);
    p.publish_acked("x", b"1", 1).await;
    c.hears_nothing().await;
    fake.break_reads(false);
    assert_eq!(c.got_and_acked().await, "1");
    assert_eq!(house.door.counters.unreadable.get(), 0);
    house.close().await;
}

#[tokio::test]
async fn a_refused_link_publish_of_qos_2_leaves_its_id_free() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "c", true).await;
    c.publish("citybrain/v1/down/c/s", b"f", 2, 1, false).await;
    assert_eq!(c.acked(kind::PUBREC, 1).await, 0x87);
    c.publish("x", b"kept", 2, 1, false).await;
    assert_eq!(c.acked(kind::PUBREC, 1).await, 0);
    let kept = |n: &Note| matches!(n, Note::DeadLetter(_));
    assert_eq!((fake.last(), fake.notes().iter().filter(|n| kept(n)).count()), (Pos(2), 1));
    house.close().await;
}

#[tokio::test]
async fn the_packet_size_that_connack_announces_is_the_one_that_holds() {
    let house = House::open(&Fake::new()).await;
    let (mut c, connack) = house.connect(Version::V5, "c", true, &[]).await;
    let at = connack.windows(2).position(|w| w[0] == 0x27 && w[1] == 0).expect("a maximum packet size");
    let max = u32::from_be_bytes(connack[at + 1..at + 5].try_into().unwrap());
    assert_eq!(max as usize, config::Broker::default().packet_bytes_max);
    // 4 bytes of head, and in the body topic, id and the length of no properties: 6.
    let largest = vec![b'x'; max as usize - 10];
    c.publish_acked("x", &largest, 1).await;
    c.publish("x", &[&largest[..], b"x"].concat(), 1, 2, false).await;
    // The message alone is refused, as [`refusals`] has it, or the connection ends with 0x95.
    let (first, body) = c.packet().await.unwrap();
    assert!(
        (first, body.last()) == (0x40, Some(&0x95)) || (first, body.first()) == (0xe0, Some(&0x95)),
        "{first:x} {body:x?}"
    );
    house.close().await;
}

/// A SUBSCRIBE (or UNSUBSCRIBE) of so many filters.
fn filters(first: u8, version: Version, n: usize) -> (u8, Vec<u8>) {
    let mut body = vec![0, 9];
    if version == Version::V5 {
        body.push(0);
    }
    for i in 0..n {
        put_text(&format!("f/{i}"), &mut body);
        if first == 0x82 {
            body.push(1);
        }
    }
    (first, body)
}

#[tokio::test]
async fn many_filters_in_one_packet_are_taken_some_at_a_time() {
    for version in BOTH {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut c = house.client(version, "c", false).await;
        let offers = fake.offers();
        let (first, body) = filters(0x82, version, 3000);
        c.send(first, &body).await;
        c.send(0xc0, &[]).await;
        // What came behind it is not forgotten, and may be answered when only the last note is waited for.
        let mut heard = [c.packet().await.unwrap(), c.packet().await.unwrap()];
        heard.sort();
        let [(0x90, codes), (0xd0, _)] = heard else { panic!("{heard:?}") };
        assert_eq!(codes.len(), 3000 + body_start(version));
        assert!(codes[body_start(version)..].iter().all(|c| *c == 1));
        assert!(fake.offers() - offers >= 6, "{}", fake.offers() - offers);
        assert_eq!(fake.session("c").unwrap().filters.len(), 3000);
        let mut p = house.client(version, "p", true).await;
        p.publish_acked("f/2999", b"1", 1).await;
        assert_eq!(c.got_and_acked().await, "1");
        // Who says nothing more hears all the same.
        let (first, body) = filters(0xa2, version, 3000);
        c.send(first, &body).await;
        c.socket.shutdown().await.unwrap();
        assert_eq!(c.packet().await.unwrap().0, 0xb0);
        until("it has gone", || house.door.counters.connections.load(Ordering::Relaxed) == 1).await;
        assert_eq!(fake.session("c").unwrap().filters.len(), 0);
        house.close().await;
    }
}

/// Where the codes of a SUBACK begin.
fn body_start(version: Version) -> usize {
    if version == Version::V5 { 3 } else { 2 }
}

#[tokio::test]
async fn filters_that_could_not_be_noted_are_as_they_were() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "c", false).await;
    assert_eq!(c.subscribe("x", 0).await, 0);
    fake.break_disk(true);
    assert_eq!(c.subscribe("x", 1).await, 0x83);
    assert_eq!(c.subscribe("y", 1).await, 0x83);
    let mut body = vec![0, 9, 0];
    put_text("x", &mut body);
    c.send(0xa2, &body).await;
    assert_eq!(c.packet().await.unwrap().1.last(), Some(&0x83));
    let (first, body) = filters(0x82, Version::V5, 1100);
    c.send(first, &body).await;
    let (_, codes) = c.packet().await.unwrap();
    assert!(codes[codes.len() - 1100..].iter().all(|c| *c == 0x83));
    fake.break_disk(false);
    let mut p = house.client(Version::V4, "p", true).await;
    for topic in ["f/1099", "y", "x"] {
        p.publish_acked(topic, topic.as_bytes(), 1).await;
    }
    let got = c.got().await;
    assert_eq!((got.payload.as_str(), got.qos), ("x", 0));
    c.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn a_turn_of_a_publisher_is_over_when_it_has_made_many_deliveries() {
    let house = House::open(&Fake::new()).await;
    let mut readers = Vec::new();
    for n in 0..60 {
        let mut reader = house.client(Version::V4, &format!("reader{n}"), true).await;
        reader.subscribe("x", 0).await;
        readers.push(reader);
    }
    let mut sender = house.client(Version::V4, "sender", true).await;
    let sending = async {
        sender.socket.write_all(&burst(3000)).await.unwrap();
    };
    let mut most = 0;
    let reading = async {
        let mut got = 0;
        while got < 60 * 3000 {
            let views = house.door.sessions();
            most = views.iter().map(|v| v.queued).max().unwrap_or(0).max(most);
            for reader in &mut readers {
                while reader.at_hand().is_some() {
                    got += 1;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(sending, timeout(PATIENCE * 4, reading)).1.expect("all come");
    // 4,096 over 60 readers are 69 a turn.
    assert!(most > 0 && most < 256, "{most}");
    house.close().await;
}

#[tokio::test]
async fn a_message_that_waits_does_not_keep_the_commit_in_which_it_came() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let (key, inbox) = house.door.router.join(&"slow".into());
    let mut sub = Sub { options: 1, id: None, since: Sub::FROM_NOW };
    house.door.router.subscribe(key, &fake, [("x", &mut sub)].into_iter());
    assert!(house.door.router.go_live(&inbox, fake.last()));
    let message = Header { topic: "x", qos: 1, ..Header::local(Kind::Message, "") };
    fake.commit(vec![citybrain_shared::record::Draft::new(&message, b"1").unwrap()]);
    until("it is routed", || inbox.queued() == 1).await;
    let mut ready = std::collections::VecDeque::new();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert_eq!(inbox.poll(&mut cx, &mut ready), Next::Item);
    let of_commit = fake.read(Pos::ZERO, 1, usize::MAX).unwrap()[0].bytes.as_ptr_range();
    assert!(!of_commit.contains(&ready[0].message.topic_bytes().as_ptr()));
    house.close().await;
}

/// As many as are fetched at once.
const FETCHED: usize = 64;

/// More than the buffers of a connection hold, at 4 KiB each.
const RETAINED: usize = 4000;

/// A client that has asked for so many retained messages and has read ten.
async fn in_the_midst(house: &House, clean: bool) -> Client {
    let mut p = house.client(Version::V4, "p", true).await;
    for n in 0..RETAINED {
        p.publish(&format!("r/{n}"), &[b'x'; 4096], 0, 0, true).await;
    }
    p.publish_acked("end", b"", 1).await;
    let mut c = house.client(Version::V5, "c", clean).await;
    let mut body = vec![0, 9, 2, 0x0b, 1];
    put_text("r/#", &mut body);
    body.push(0);
    c.send(0x82, &body).await;
    assert_eq!(c.packet().await.unwrap().0, 0x90);
    for _ in 0..10 {
        assert_eq!(c.packet().await.unwrap().0 >> 4, kind::PUBLISH);
    }
    c
}

/// [MQTT-3.10.4-2]
#[tokio::test]
async fn who_unsubscribes_gets_no_more_of_the_retained_messages_that_it_had_asked_for() {
    let house = House::open(&Fake::new()).await;
    let mut c = in_the_midst(&house, true).await;
    let mut body = vec![0, 9, 0];
    put_text("r/#", &mut body);
    c.send(0xa2, &body).await;
    while c.packet().await.unwrap().0 != 0xb0 {}
    c.send(0xc0, &[]).await;
    let mut behind = 0;
    while c.packet().await.unwrap().0 != 0xd0 {
        behind += 1;
    }
    assert!(behind <= FETCHED, "{behind}");
    c.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn who_cannot_unsubscribe_gets_the_rest_of_the_retained_messages() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = in_the_midst(&house, false).await;
    fake.break_disk(true);
    let mut body = vec![0, 9, 0];
    put_text("r/#", &mut body);
    c.send(0xa2, &body).await;
    let mut came = 10;
    let refused = loop {
        match c.packet().await.unwrap() {
            (0xb0, body) => break body,
            _ => came += 1,
        }
    };
    assert_eq!(refused.last(), Some(&reason::IMPLEMENTATION), "it stands");
    fake.break_disk(false);
    while came < RETAINED {
        assert_eq!(c.packet().await.unwrap().0 >> 4, kind::PUBLISH);
        came += 1;
    }
    c.hears_nothing().await;
    house.close().await;
}

/// [MQTT-3.8.4-3]: the subscription is replaced, and what it brings comes once, by the new one.
#[tokio::test]
async fn a_subscription_that_is_replaced_brings_its_retained_messages_no_further() {
    for handling in [0u8, 2] {
        let house = House::open(&Fake::new()).await;
        let mut c = in_the_midst(&house, true).await;
        let mut body = vec![0, 9, 2, 0x0b, 2];
        put_text("r/#", &mut body);
        body.push(handling << 4);
        c.send(0x82, &body).await;
        let mut by_old = 10;
        while c.packet().await.map(|(first, body)| (first, parsed_id(first, &body))) != Some((0x90, None)) {
            by_old += 1;
        }
        c.send(0xc0, &[]).await;
        let mut by_new = 0;
        loop {
            let (first, body) = c.packet().await.unwrap();
            match parsed_id(first, &body) {
                Some(1) => by_old += 1,
                Some(_) => by_new += 1,
                None => break,
            }
        }
        // Behind the answer to the ping.
        while by_new + if handling == 0 { 0 } else { by_old } < RETAINED {
            let (first, body) = c.packet().await.unwrap();
            match parsed_id(first, &body) {
                Some(1) => by_old += 1,
                id => by_new += usize::from(id.is_some()),
            }
        }
        assert!(by_old < RETAINED, "{by_old} and {by_new}");
        c.hears_nothing().await;
        house.close().await;
    }
}

/// The subscription's identifier of a PUBLISH of MQTT 5 and QoS 0.
fn parsed_id(first: u8, mut body: &[u8]) -> Option<u8> {
    if first >> 4 != kind::PUBLISH {
        return None;
    }
    text(&mut body);
    let [bytes, id, number] = take(&mut body);
    assert_eq!((bytes, id), (2, 0x0b), "its identifier alone");
    Some(number)
}

/// All filters of so many levels of `a` and `+` each, with `z` behind them.
fn doubling(levels: u32) -> impl Iterator<Item = String> {
    let level = |ways: u32, n: u32| if ways >> n & 1 == 0 { "a/" } else { "+/" };
    (0..1 << levels).map(move |ways| (0..levels).map(|n| level(ways, n)).chain(["z"]).collect())
}

#[test]
fn what_matches_nothing_counts_by_the_filters_that_were_looked_at() {
    let (counters, me) = (Arc::default(), Arc::new(message::tests::me()));
    let router = route::Router::new(me, counters, "$cb", 0, Pos::ZERO);
    let (key, _inbox) = router.join(&"c".into());
    let mut sub = Sub { options: 0, id: None, since: Pos::ZERO };
    for filter in doubling(12) {
        router.subscribe(key, &Fake::new(), std::iter::once((&*filter, &mut sub)));
    }
    let cost = |topic: &str| router.live(route::live_message(topic, &[], Bytes::new(), 0, false, 0));
    assert_eq!(cost(&("a/".repeat(12) + "y")), ((1 << 13) - 1) / 16, "of 2 at each level");
    assert_eq!(cost(&("a/".repeat(12) + "z")), 1 << 12);
    assert_eq!(cost("b/y"), 0);
}

#[tokio::test]
async fn filters_of_one_client_have_so_many_levels_behind_a_plus_as_a_message_may_cost() {
    let house = House::open(&Fake::new()).await;
    let mut c = house.client(Version::V5, "c", false).await;
    let wild = |n: usize| format!("+/{n}{}", "/a".repeat(126));
    let mut body = vec![0, 9, 0];
    let max = route::WILD_LEVELS_MAX / 128;
    for n in 0..=max {
        put_text(&wild(n), &mut body);
        body.push(0);
    }
    c.send(0x82, &body).await;
    let codes = c.packet().await.expect("a SUBACK").1;
    let codes = &codes[codes.len() - max - 1..];
    assert!(codes[..max].iter().all(|code| *code == 0) && codes[max] == 0x97, "{codes:x?}");
    assert_eq!(c.subscribe("a/b/c", 0).await, 0, "one without");
    assert_eq!(c.subscribe(&wild(0), 1).await, 1, "one that it has");
    c.unsubscribe(&wild(0)).await;
    assert_eq!(c.subscribe("a/+/c", 0).await, 0);
    // What it has counts when it comes back.
    drop(c);
    let mut c = house.client(Version::V5, "c", false).await;
    assert_eq!(c.subscribe(&wild(0), 0).await, 0x97);
    house.close().await;
}
