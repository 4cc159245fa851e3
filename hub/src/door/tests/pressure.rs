//! How much is taken from a client, and given to one, before it must wait.

use super::*;

#[tokio::test]
async fn of_qos_1_no_more_is_taken_than_may_be_under_way_and_the_rest_waits_in_the_socket() {
    for version in BOTH {
        let fake = Fake::new();
        let broker = config::Broker { receive_maximum: 2, ..Default::default() };
        let house = House::with(&fake, broker, config::Access::default()).await;
        let mut c = house.client(version, "c", true).await;
        fake.hold();
        for id in 1..=10 {
            c.publish("x", id.to_string().as_bytes(), 1, id, false).await;
        }
        let taken = &house.door.counters().publishes_qos1;
        until("two are taken", || taken.get() == 2).await;
        c.hears_nothing().await;
        assert_eq!((taken.get(), fake.last()), (2, Pos::ZERO));
        fake.release();
        for id in 1..=10 {
            assert_eq!(c.acked(kind::PUBACK, id).await, 0);
        }
        assert_eq!((taken.get(), fake.last()), (10, Pos(10)));
        house.close().await;
    }
}

#[tokio::test]
async fn no_more_is_read_than_may_wait_for_room_and_the_rest_waits_in_the_socket() {
    for (bytes, sent, may_wait) in [(10, 1100, 1024), (100 * 1024, 16, 11)] {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut c = house.client(Version::V4, "c", true).await;
        fake.fill_queue();
        let payload = format!("{{{}}}", " ".repeat(bytes));
        let mut all = Vec::new();
        (0..sent).for_each(|_| publish::Out { qos: 0, ..out("in/a", payload.as_bytes()) }.put(c.version, &mut all));
        let taken = &house.door.counters().publishes_qos0;
        let sending = async {
            c.socket.write_all(&all).await.unwrap();
            c.hears_nothing().await;
        };
        let reading = until("as many are taken as may wait", || taken.get() == may_wait);
        tokio::join!(sending, reading);
        assert_eq!((taken.get(), fake.last()), (may_wait, Pos::ZERO));
        fake.release();
        until("all are kept", || fake.events() == sent).await;
        house.close().await;
    }
}

#[tokio::test]
async fn what_is_urgent_and_has_no_answer_is_not_read_without_end_behind_what_waits() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V4, "c", true).await;
    fake.fill_queue();
    let mut all = Vec::new();
    publish::Out { qos: 0, ..out("in/a", b"{}") }.put(c.version, &mut all);
    c.socket.write_all(&all).await.unwrap();
    let (taken, mut sent) = (&house.door.counters().publishes_qos0, 1);
    until("the first waits", || taken.get() == 1).await;
    // Each in a read of its own.
    while sent < 1500 {
        all.clear();
        publish::Out { qos: 0, ..out("in/sos/a", b"{}") }.put(c.version, &mut all);
        c.socket.write_all(&all).await.unwrap();
        sent += 1;
        if sent <= 1024 {
            until("it is taken", || taken.get() == sent).await;
        }
    }
    c.hears_nothing().await;
    assert_eq!((taken.get(), fake.published("in/sos/a").len()), (1024, 1023));
    fake.release();
    until("all are kept", || fake.events() == 1500).await;
    house.close().await;
}

#[tokio::test]
async fn who_sends_more_bytes_than_he_may_is_read_later_and_loses_nothing() {
    let fake = Fake::new();
    let broker = config::Broker { client_bytes_per_s_max: 10_000, ..Default::default() };
    let house = House::with(&fake, broker, config::Access::default()).await;
    let mut fast = house.client(Version::V4, "fast", true).await;
    let mut other = house.client(Version::V4, "other", true).await;
    let start = std::time::Instant::now();
    // A second's bytes may come at once; what is above them must be paid for before more is read.
    fast.publish_acked("x", &[b'x'; 13_500], 1).await;
    fast.publish("x", b"1", 1, 2, false).await;
    other.publish_acked("x", b"1", 1).await;
    let before = fake.last();
    assert_eq!(fast.acked(kind::PUBACK, 2).await, 0);
    assert!(start.elapsed() >= Duration::from_millis(350), "{:?}", start.elapsed());
    assert_eq!((before, fake.last()), (Pos(2), Pos(3)), "the other one has not waited");
    assert!(house.door.counters().slowed.get() > 0);
    house.close().await;
}

#[tokio::test]
async fn above_connections_max_a_socket_is_closed_without_a_word_until_one_is_free() {
    let fake = Fake::new();
    let broker = config::Broker { connections_max: 2, ..Default::default() };
    let house = House::with(&fake, broker, config::Access::default()).await;
    let a = house.client(Version::V5, "a", true).await;
    // Who has not said who he is has a place, too.
    let _stranger = house.dial(Version::V5).await;
    until("both are there", || house.door.counters.connections.load(Ordering::Relaxed) == 2).await;
    let mut c = house.dial(Version::V5).await;
    assert_eq!(c.packet().await, None);
    assert_eq!(house.door.counters().refused.get(), 1);
    a.leaves().await;
    until("its place is free", || house.door.counters.connections.load(Ordering::Relaxed) == 1).await;
    house.client(Version::V4, "c", true).await;
    house.close().await;
}

/// A client of MQTT 5 with a session of 100 s that takes one message at a time.
async fn one_at_a_time(house: &House, id: &str) -> (Client, Vec<u8>) {
    house.connect_with(id, 0, &[0x11, 0, 0, 0, 100, 0x21, 0, 1], &[]).await
}

/// [MQTT-3.3.4-9]
#[tokio::test]
async fn a_message_of_qos_2_is_under_way_until_its_pubcomp_also_over_a_reconnect() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let (mut c, _) = one_at_a_time(&house, "c").await;
    c.subscribe("x", 2).await;
    let mut p = house.client(Version::V4, "p", true).await;
    for id in 1..=4u16 {
        p.publish("x", id.to_string().as_bytes(), 2, id, false).await;
        p.acked(kind::PUBREC, id).await;
    }
    let first = c.got().await;
    assert_eq!((&*first.payload, first.qos), ("1", 2));
    // What the door sends for a PUBREC comes before the answer to the ping behind it.
    c.ack(kind::PUBREC, first.id).await;
    assert_eq!(c.acked(kind::PUBREL, first.id).await, 0);
    c.pings().await;
    c.ack(kind::PUBCOMP, first.id).await;
    let second = c.got().await;
    assert_eq!(second.payload, "2");
    c.pings().await;
    c.ack(kind::PUBREC, second.id).await;
    assert_eq!(c.acked(kind::PUBREL, second.id).await, 0);
    drop(c);
    // In the same process, and in the next.
    let (mut c, connack) = one_at_a_time(&house, "c").await;
    assert_eq!(connack[..2], [1, 0]);
    assert_eq!(c.acked(kind::PUBREL, second.id).await, 0);
    c.pings().await;
    drop(c);
    house.kill().await;
    let house = House::open(&fake.crash(|n| n)).await;
    let (mut c, _) = one_at_a_time(&house, "c").await;
    assert_eq!(c.acked(kind::PUBREL, second.id).await, 0);
    c.pings().await;
    c.ack(kind::PUBCOMP, second.id).await;
    let third = c.got().await;
    assert_eq!((&*third.payload, third.dup), ("3", true), "it may have been under way when the process was killed");
    c.pings().await;
    // A message that is refused is done with.
    let mut refusal = Vec::new();
    put_ack(Version::V5, kind::PUBREC, third.id, 0x83, &mut refusal);
    c.socket.write_all(&refusal).await.unwrap();
    assert_eq!(c.got().await.payload, "4");
    house.close().await;
}
