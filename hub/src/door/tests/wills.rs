//! Wills that outlive the node.

use super::*;
use std::task::{Context, Waker};

/// A client with a session of 100 s whose will is its own name on `will/NAME`, QoS 1, retained.
async fn doomed(house: &House, id: &str, delay_s: u8) -> Client {
    let mut will = vec![5, 0x18, 0, 0, 0, delay_s];
    put_text(&format!("will/{id}"), &mut will);
    put_text(id, &mut will);
    house.connect_with(id, 0x2c, &[0x11, 0, 0, 0, 100], &will).await.0
}

/// What is retained below `will/`, and so was published; with the client ids of the wills still kept.
fn said(fake: &Fake) -> (Vec<String>, Vec<String>) {
    let mut all = (Vec::new(), Vec::new());
    fake.state(&mut |s| {
        let topics = s.retained.keys().filter_map(|t| t.strip_prefix("will/"));
        let mut kept: Vec<_> = s.sessions.wills().keys().cloned().collect();
        kept.sort();
        all = (topics.map(str::to_owned).collect(), kept);
    });
    all
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[tokio::test]
async fn the_wills_of_those_whom_a_kill_cut_off_are_published_before_anybody_comes_back() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut watcher = house.client(Version::V4, "watcher", false).await;
    watcher.subscribe("will/#", 1).await;
    doomed(&house, "polite", 0).await.leaves().await;
    drop(doomed(&house, "gone", 0).await);
    assert_eq!(watcher.got_and_acked().await, "gone");
    let _here = doomed(&house, "here", 0).await;
    let _patient = doomed(&house, "patient", 50).await;
    assert_eq!(said(&fake), (names(&["gone"]), names(&["here", "patient"])));
    house.kill().await;

    let fake = fake.crash(|n| n);
    let house = House::open(&fake).await;
    // It was there before the first client.
    let back = doomed(&house, "here", 0).await;
    assert_eq!(said(&fake), (names(&["gone", "here"]), names(&["here", "patient"])));
    let (mut watcher, connack) = house.connect(Version::V4, "watcher", false, &[]).await;
    assert_eq!(connack[0], 1, "its session");
    let got = watcher.got().await;
    assert_eq!((got.payload.as_str(), got.qos), ("here", 1));
    // Who is back within the delay has not died.
    let (patient, _) = house.connect(Version::V5, "patient", false, &[]).await;
    assert_eq!(said(&fake), (names(&["gone", "here"]), names(&["here"])));
    back.leaves().await;
    until("its will is forgotten", || said(&fake).1.is_empty()).await;
    drop((patient, watcher));
    house.close().await;

    let house = House::open(&fake.crash(|n| n)).await;
    assert_eq!(said(&fake), (names(&["gone", "here"]), names(&[])), "nothing is said twice");
    house.close().await;
}

#[tokio::test]
async fn a_will_that_waits_when_the_node_ends_waits_no_longer_for_it() {
    for kill in [true, false] {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        drop(doomed(&house, "soon", 50).await);
        until("it is away", || fake.session("soon").is_some_and(|s| !s.connected)).await;
        let _late = doomed(&house, "late", 50).await;
        if kill {
            house.kill().await
        } else {
            house.close().await
        }
        let fake = fake.crash(|n| n);
        assert_eq!(said(&fake).0, names(&[]));
        fake.left_earlier("soon", Duration::from_secs(60));
        let house = House::open(&fake).await;
        drop(house.client(Version::V4, "somebody", true).await);
        assert_eq!(said(&fake), (names(&["soon"]), names(&["late"])));
        house.close().await;
    }
}

#[tokio::test]
async fn a_will_without_a_delay_is_published_by_the_next_start_also_after_one_in_order() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let _here = doomed(&house, "here", 0).await;
    house.close().await;
    assert_eq!(said(&fake), (names(&[]), names(&["here"])));
    let fake = fake.crash(|n| n);
    let house = House::open(&fake).await;
    drop(house.client(Version::V4, "somebody", true).await);
    assert_eq!(said(&fake), (names(&["here"]), names(&[])));
    house.close().await;
}

#[tokio::test]
async fn a_will_whose_user_is_gone_after_the_restart_is_a_dead_letter() {
    let hash = users::hash(b"pw").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    std::fs::write(&path, format!("ann:{hash}\n")).unwrap();
    let access = config::Access {
        anonymous: false,
        users_file: Some(path.clone()),
        publish: Some(vec!["will/#".into()]),
        ..Default::default()
    };
    let fake = Fake::new();
    let house = House::with(&fake, config::Broker::default(), access.clone()).await;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0xc6, 0, 60];
    for text in ["a", "will/a", "gone", "ann", "pw"] {
        put_text(text, &mut body);
    }
    let mut client = house.dial(Version::V4).await;
    client.send(0x10, &body).await;
    assert_eq!(client.packet().await, Some((0x20, vec![0, 0])));
    house.kill().await;

    std::fs::write(&path, "").unwrap();
    let fake = fake.crash(|n| n);
    let house = House::with(&fake, config::Broker::default(), access).await;
    until("the will is refused", || fake.letters() == ["forbidden"]).await;
    until("and forgotten", || said(&fake).1.is_empty()).await;
    house.close().await;
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut s = house.client(Version::V4, "s", true).await;
    s.subscribe("will/#", 1).await;
    for (goodbye, want) in [(true, None), (false, Some("gone"))] {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0x0e, 0, 60];
        put_text("w", &mut body);
        put_text("will/w", &mut body);
        put_text("gone", &mut body);
        let mut w = Client {
            socket: TcpStream::connect(house.at).await.unwrap(),
            input: BytesMut::new(),
            version: Version::V4,
        };
        w.send(0x10, &body).await;
        w.packet().await.unwrap();
        if goodbye {
            w.leaves().await
        } else {
            drop(w)
        }
        match want {
            Some(text) => assert_eq!(s.got_and_acked().await, text),
            None => s.hears_nothing().await,
        }
    }
    house.close().await;
}

#[tokio::test]
async fn a_will_is_refused_where_its_clients_publish_would_be() {
    let broker = config::Broker { retained_bytes_max: 100, ..Default::default() };
    let fake = Fake::new();
    let house = House::with(&fake, broker, config::Access::default()).await;
    let dies_with = async |topic: &str, payload: &[u8], properties: &[u8]| {
        let mut will = vec![properties.len() as u8];
        will.extend_from_slice(properties);
        put_text(topic, &mut will);
        will.extend((payload.len() as u16).to_be_bytes());
        will.extend_from_slice(payload);
        let (c, connack) = house.connect_with("c", 0x2e, &[], &will).await;
        assert_eq!(connack[1], 0);
        let letters = fake.letters().len();
        drop(c);
        until("the will is a dead letter", || fake.letters().len() > letters).await;
        fake.letters().pop().unwrap()
    };
    assert_eq!(dies_with("w", &[b'x'; 200], &[]).await, "retained");
    assert_eq!(dies_with(&["a"; 200].join("/"), b"x", &[]).await, "topic");
    assert_eq!(dies_with("w", &[0xff], &[1, 1]).await, "payload-format");
    house.close().await;
}

#[tokio::test]
async fn a_will_that_is_late_does_not_come_behind_what_its_client_says_when_it_is_back() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    // Its housekeeping has had its first turn then.
    house.client(Version::V4, "first", true).await.leaves().await;
    fake.hold();
    let id = |n: usize| format!("c{n}");
    const CLIENTS: usize = WILLS_AT_ONCE + 50;
    for n in 0..CLIENTS {
        let will = Will {
            topic: format!("will/{}", id(n)),
            payload: b"gone".to_vec(),
            qos: 1,
            retain: true,
            delay_s: 0,
            properties: Vec::new(),
        };
        house.door.put_will(id(n).into(), Duration::ZERO, house.door.access.formerly(""), will);
    }
    let door = house.door.clone();
    let dying = tokio::spawn(async move { door.publish_all_wills_due().await });
    until("the first of them are offered", || fake.offers() > 0).await;
    let back = (0..CLIENTS).map(|n| {
        let at = house.at;
        tokio::spawn(async move {
            let mut c =
                Client { socket: TcpStream::connect(at).await.unwrap(), input: BytesMut::new(), version: Version::V4 };
            let mut body = b"\0\x04MQTT\x04\x02\0\x3c".to_vec();
            put_text(&id(n), &mut body);
            c.send(0x10, &body).await;
            c.packet().await.unwrap();
            c.publish(&format!("will/{}", id(n)), b"here", 1, 1, true).await;
            c.acked(kind::PUBACK, 1).await;
        })
    });
    let back: Vec<_> = back.collect();
    // Those whose will is not on its way take it along, the others wait: each as far as it comes, once it has
    // its place.
    until("all have come", || house.door.seats.connected() == CLIENTS).await;
    fake.release();
    for client in back {
        client.await.unwrap();
    }
    dying.await.unwrap();
    let mut gone = 0;
    fake.state(&mut |s| gone = s.retained.values().filter(|r| r.payload != "here").count());
    assert_eq!(gone, 0);
    house.close().await;
}

#[tokio::test]
async fn a_session_whose_end_cannot_be_written_is_ended_when_it_can() {
    for is_back in [false, true] {
        let fake = Fake::new();
        let house = House::open(&fake).await;
        let mut c = house.client(Version::V5, "c", false).await;
        c.subscribe("x", 1).await;
        // It asks for no time at all.
        c.send(0xe0, &[0, 5, 0x11, 0, 0, 0, 1]).await;
        c.is_closed().await;
        until("it has left", || house.door.seats.connected() == 0).await;
        fake.break_disk(true);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        house.door.end_expired_sessions().await;
        assert!(fake.has_session("c"));
        fake.break_disk(false);
        if !is_back {
            until("it is ended", || !fake.has_session("c")).await;
            house.close().await;
            continue;
        }
        // Whoever comes meanwhile gets a new one, and keeps it.
        fake.hold();
        let door = house.door.clone();
        let ending = tokio::spawn(async move { door.end_expired_sessions().await });
        let back = async {
            let (mut c, connack) = house.connect(Version::V5, "c", false, &[]).await;
            assert_eq!(connack[..2], [0, 0]);
            assert_eq!(c.subscribe("y", 1).await, 1);
        };
        let release = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            fake.release();
        };
        tokio::join!(back, release);
        ending.await.unwrap();
        assert_eq!(fake.session("c").unwrap().filters.keys().collect::<Vec<_>>(), ["y"]);
        house.close().await;
    }
}

#[tokio::test]
async fn a_will_that_cannot_be_committed_is_said_once_it_can() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let back = doomed(&house, "back", 1).await;
    let (now, late) = (doomed(&house, "now", 0).await, doomed(&house, "late", 1).await);
    fake.break_disk(true);
    let offers = fake.offers();
    drop((now, late, back));
    until("all were tried", || {
        fake.offers() > offers + 2 && house.door.counters.connections.load(Ordering::Relaxed) == 0
    })
    .await;
    // Of one that is back and not let in, too.
    let (mut refused, connack) = house.connect(Version::V5, "back", false, &[]).await;
    assert_ne!(connack[1], 0);
    refused.is_closed().await;
    assert_eq!(said(&fake), (names(&[]), names(&["back", "late", "now"])));
    fake.break_disk(false);
    until("they are said", || said(&fake) == (names(&["back", "late", "now"]), names(&[]))).await;
    assert_eq!(house.door.counters.wills.get(), 3);
    house.close().await;
}

#[tokio::test]
async fn of_the_wills_that_are_due_at_once_those_that_are_urgent_wait_for_no_other() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let _meter = doomed(&house, "meter", 0).await;
    let mut will = vec![0];
    put_text("in/sos/cut", &mut will);
    put_text("{}", &mut will);
    let (_button, _) = house.connect_with("button", 0x0e, &[], &will).await;
    house.kill().await;
    let fake = fake.crash(|n| n);
    fake.fill_queue();
    let house = House::open(&fake).await;
    until("the urgent one is said", || fake.published("in/sos/cut").len() == 1).await;
    assert_eq!(said(&fake), (names(&[]), names(&["meter"])));
    fake.release();
    until("both are", || said(&fake) == (names(&["meter"]), names(&[]))).await;
    assert_eq!(fake.published("in/sos/cut").len(), 1);
    house.close().await;
}

/// An urgent will, as the note of a client that was cut off.
fn alarm() -> Will {
    let (topic, payload) = ("in/sos/cut".to_owned(), b"{}".to_vec());
    Will { topic, payload, qos: 1, retain: false, delay_s: 0, properties: Vec::new() }
}

#[tokio::test]
async fn an_urgent_will_waits_for_no_other_however_many_are_due() {
    const EACH: usize = 20;
    let fake = Fake::new();
    let house = House::open(&fake).await;
    fake.fill_queue();
    let put = |id: String, will: Will| {
        house.door.put_will(id.into(), Duration::ZERO, house.door.access.formerly(""), will);
    };
    for n in 0..10 * WILLS_AT_ONCE {
        put(format!("meter{n}"), Will { topic: format!("will/{n}"), retain: true, ..alarm() });
    }
    (0..EACH).for_each(|n| put(format!("button{n}"), alarm()));
    until("all that are urgent are said", || fake.published("in/sos/cut").len() == EACH).await;
    assert_eq!(said(&fake).0.len(), 0);
    // Those that are due while others wait, too.
    put("late".into(), alarm());
    until("it is said", || fake.published("in/sos/cut").len() == EACH + 1).await;
    fake.release();
    until("all are", || said(&fake).0.len() == 10 * WILLS_AT_ONCE).await;
    house.close().await;
}

/// Is something of the client's that was due not in the log yet?
fn is_on_its_way(house: &House, client: &str) -> bool {
    let ended = std::pin::pin!(house.door.seats.nothing_ends(client));
    ended.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[tokio::test]
async fn an_urgent_will_waits_for_no_room_with_one_that_is_refused() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    // What was due at its start is over then.
    house.client(Version::V4, "first", true).await.leaves().await;
    fake.fill_queue();
    let put = |id: &str, will: Will| {
        house.door.put_will(id.into(), Duration::ZERO, house.door.access.formerly(""), will);
    };
    let refused = || Will { topic: "cut".into(), payload: b"{\xff}".to_vec(), properties: vec![1, 1], ..alarm() };
    put("meter", Will { topic: "will/meter".into(), retain: true, ..alarm() });
    until("it waits for room", || is_on_its_way(&house, "meter")).await;
    put("refused", refused());
    // As it is left where it would have been taken then.
    let user = house.door.access.formerly("");
    house.door.seats.put_will("late".into(), Duration::ZERO, LeftWill { user, will: refused(), lane: Lane::Urgent });
    for n in 1..=3 {
        put(&format!("button{n}"), alarm());
        until("it is said", || fake.published("in/sos/cut").len() == n).await;
    }
    assert_eq!((fake.letters(), said(&fake).0), (names(&[]), names(&[])));
    fake.release();
    until("the others are", || fake.letters().len() == 2 && said(&fake).0 == names(&["meter"])).await;
    assert_eq!(fake.letters(), ["payload-format", "payload-format"]);
    house.close().await;
}

#[tokio::test]
async fn an_urgent_will_waits_for_no_room_with_what_its_client_published() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut will = vec![0];
    put_text("in/sos/cut", &mut will);
    put_text("{}", &mut will);
    let (mut button, _) = house.connect_with("button", 0x0e, &[], &will).await;
    fake.fill_queue();
    button.publish("in/a", b"{}", 1, 1, false).await;
    until("it is taken", || house.door.counters().publishes_qos1.get() == 1).await;
    drop(button);
    until("the will is said", || fake.published("in/sos/cut").len() == 1).await;
    assert_eq!(fake.published("in/a").len(), 0);
    fake.release();
    until("what it published is kept", || fake.published("in/a").len() == 1).await;
    house.close().await;
    assert_eq!(fake.published("in/sos/cut").len(), 1);
}
