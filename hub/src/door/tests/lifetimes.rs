//! How long what a client leaves behind lasts: its silence, its session, its will's delay.

use super::*;

/// Of MQTT 5: a session of so long, and a will of QoS 1 on `w` with its own name and this delay.
async fn dying(house: &House, id: &str, expiry_s: u8, delay_s: u16) -> Client {
    let [high, low] = delay_s.to_be_bytes();
    let mut tail = vec![5, 0x18, 0, 0, high, low];
    put_text("w", &mut tail);
    put_text(id, &mut tail);
    let (client, connack) = house.connect_with(id, 0b1100, &[0x11, 0, 0, 0, expiry_s], &tail).await;
    assert_eq!(connack[1], 0);
    client
}

async fn heir(house: &House) -> Client {
    let mut heir = house.client(Version::V5, "heir", true).await;
    heir.subscribe("w", 1).await;
    heir
}

#[tokio::test]
async fn a_keep_alive_that_was_shortened_is_the_one_that_counts() {
    let broker = config::Broker { keep_alive_s_max: 1, ..Default::default() };
    let house = House::with(&Fake::new(), broker, config::Access::default()).await;
    let silent = async |id: &str, keep_alive_s: u16, version: Version| {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version.level(), 2];
        body.extend(keep_alive_s.to_be_bytes());
        body.extend(vec![0; usize::from(version == Version::V5)]);
        put_text(id, &mut body);
        let mut c = house.dial(version).await;
        c.send(0x10, &body).await;
        assert_eq!(c.packet().await.unwrap().1[1], 0);
        (c, std::time::Instant::now())
    };
    // Who has asked for none, or for a longer one; and one to whom nothing can be said of it.
    let (mut none, _) = silent("none", 0, Version::V5).await;
    let (mut long, start) = silent("long", 600, Version::V5).await;
    let (mut old, _) = silent("old", 600, Version::V4).await;
    assert_eq!(tokio::join!(none.is_closed(), long.is_closed()), (Some(0x8d), Some(0x8d)));
    assert!(start.elapsed() >= Duration::from_millis(1400), "{:?}", start.elapsed());
    old.pings().await;
    house.close().await;
}

#[tokio::test]
async fn a_session_s_expiry_above_the_limit_is_shortened_and_that_is_what_counts() {
    let broker = || config::Broker { session_expiry_s_max: 50, ..Default::default() };
    for by_goodbye in [false, true] {
        let fake = Fake::new();
        let house = House::with(&fake, broker(), config::Access::default()).await;
        let told = |connack: &[u8]| {
            let all = properties(&mut &connack[2..]);
            all.into_iter().find(|(i, _)| *i == 0x11).map(|(_, v)| v)
        };
        let (_, connack) = house.connect_with("other", 0b10, &[0x11, 0, 0, 0, 50], &[]).await;
        assert_eq!(told(&connack), None, "it is as was asked");
        let asked = if by_goodbye { [0x11, 0, 0, 0, 20] } else { [0x11, 0xff, 0xff, 0xff, 0xff] };
        let (mut c, connack) = house.connect_with("c", 0b10, &asked, &[]).await;
        assert_eq!(told(&connack), (!by_goodbye).then(|| vec![0, 0, 0, 50]));
        let goodbye: &[u8] = if by_goodbye { &[0, 5, 0x11, 0, 0, 0, 200] } else { &[] };
        c.send(0xe0, goodbye).await;
        c.is_closed().await;
        house.close().await;
        assert_eq!(fake.expiry_s("c"), 50);
        for (earlier_s, is_there) in [(40, 1), (51, 0)] {
            let fake = fake.crash(|n| n);
            fake.left_earlier("c", Duration::from_secs(earlier_s));
            let house = House::with(&fake, broker(), config::Access::default()).await;
            // The limit may be raised meanwhile: it counts what was granted.
            until("what is over has ended", || fake.has_session("c") == (is_there == 1)).await;
            let (c, connack) = house.connect_with("c", 0, &[0x11, 0, 0, 0, 50], &[]).await;
            assert_eq!(connack[..2], [is_there, 0], "{earlier_s} s later");
            c.leaves().await;
            house.close().await;
        }
    }
}

/// Its client has said that it ends with its connection, and the kill has ended that.
#[tokio::test]
async fn a_session_that_was_resumed_for_no_time_is_not_there_after_a_kill() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V5, "c", false).await;
    c.subscribe("x", 1).await;
    c.leaves().await;
    let (_c, connack) = house.connect_with("c", 0, &[], &[]).await;
    assert_eq!(connack[..2], [1, 0]);
    house.kill().await;
    let house = House::open(&fake.crash(|n| n)).await;
    let (_c, connack) = house.connect(Version::V5, "c", false, &[]).await;
    assert_eq!(connack[..2], [0, 0]);
    assert!(fake.session("c").unwrap().filters.is_empty());
    house.close().await;
}

#[tokio::test]
async fn a_will_s_delay_ends_with_its_session_whoever_ends_it() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut heir = heir(&house).await;
    let waits = async |id: &str| until("it has left", || fake.session(id).is_some_and(|s| !s.connected)).await;
    // Its own goodbye leaves no session.
    let mut c = dying(&house, "own", 100, 1000).await;
    c.send(0xe0, &[0x04, 5, 0x11, 0, 0, 0, 0]).await;
    assert_eq!(heir.got_and_acked().await, "own");
    // Another user's session is another session.
    drop(dying(&house, "another", 100, 1000).await);
    waits("another").await;
    heir.pings().await;
    let mut as_bob = Vec::new();
    put_text("bob", &mut as_bob);
    put_text("", &mut as_bob);
    let (_bob, connack) = house.connect(Version::V4, "another", false, &as_bob).await;
    assert_eq!(connack, [0, 0]);
    assert_eq!(heir.got_and_acked().await, "another");
    // Who comes back to his session has not died.
    drop(dying(&house, "back", 100, 1000).await);
    waits("back").await;
    let (back, connack) = house.connect(Version::V5, "back", false, &[]).await;
    assert_eq!(connack[..2], [1, 0]);
    drop(back);
    waits("back").await;
    let (_back, connack) = house.connect(Version::V5, "back", true, &[]).await;
    assert_eq!(connack[..2], [0, 0]);
    heir.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn a_will_whose_delay_runs_out_is_said_while_its_session_goes_on() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut heir = heir(&house).await;
    let c = dying(&house, "late", 100, 1).await;
    let start = std::time::Instant::now();
    drop(c);
    assert_eq!(heir.got_and_acked().await, "late");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    let (_, connack) = house.connect(Version::V5, "late", false, &[]).await;
    assert_eq!(connack[..2], [1, 0]);
    heir.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn a_will_waits_no_longer_than_its_session_lasts() {
    let house = House::open(&Fake::new()).await;
    let mut heir = heir(&house).await;
    drop(dying(&house, "brief", 1, 1000).await);
    assert_eq!(heir.got_and_acked().await, "brief");
    house.close().await;
}

/// 3.14.2.2.2: what counts is what it had asked for.
#[tokio::test]
async fn who_has_asked_for_a_session_may_ask_again_at_its_end_though_it_was_granted_none() {
    let broker = config::Broker { session_expiry_s_max: 0, ..Default::default() };
    let house = House::with(&Fake::new(), broker, config::Access::default()).await;
    let mut heir = heir(&house).await;
    let mut polite = dying(&house, "polite", 100, 0).await;
    polite.send(0xe0, &[0, 5, 0x11, 0, 0, 0, 100]).await;
    assert_eq!(polite.is_closed().await, None);
    let mut rude = dying(&house, "rude", 0, 0).await;
    rude.send(0xe0, &[0, 5, 0x11, 0, 0, 0, 100]).await;
    assert_eq!(rude.is_closed().await, Some(0x82));
    assert_eq!(heir.got_and_acked().await, "rude");
    heir.hears_nothing().await;
    house.close().await;
}
