//! Texts, lengths and levels: what is taken as it is, and what is not taken.

use super::*;

#[tokio::test]
async fn a_length_of_five_bytes_inside_a_packet_is_malformed() {
    let five = [0x80, 0x80, 0x80, 0x80, 1];
    let with = |before: &[u8], after: &[u8]| [before, &five, after].concat();
    let cases = [
        ("PUBLISH", 0x30, with(&[0, 1, b'a'], b"m")),
        ("SUBSCRIBE", 0x82, with(&[0, 1], &[0, 1, b'a', 0])),
        ("a subscription's identifier", 0x82, with(&[0, 1, 6, 0x0b], &[0, 1, b'a', 0])),
        ("UNSUBSCRIBE", 0xa2, with(&[0, 1], &[0, 1, b'a'])),
        ("PUBACK", 0x40, with(&[0, 1, 0], &[])),
        ("PUBREL", 0x62, with(&[0, 1, 0], &[])),
        ("DISCONNECT", 0xe0, with(&[0], &[])),
    ];
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for (what, first, body) in cases {
        let mut c = house.client(Version::V5, "c", true).await;
        c.send(first, &body).await;
        assert_eq!(c.is_closed().await, Some(0x81), "{what}");
    }
    let mut c = house.dial(Version::V5).await;
    c.send(0x10, &with(b"\0\x04MQTT\x05\x02\0\x3c", b"\0\x01c")).await;
    let (first, connack) = c.packet().await.unwrap();
    assert_eq!((first, connack[1]), (0x20, 0x81));
    assert_eq!(fake.last(), Pos::ZERO);
    house.close().await;
}

/// [MQTT-1.5.5-1]
#[tokio::test]
async fn a_connect_of_5_whose_length_is_not_the_shortest_is_malformed_and_one_of_3_1_1_is_taken() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for (version, code) in [(Version::V5, 0x81), (Version::V4, 0)] {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version.level(), 2, 0, 60];
        body.extend(vec![0; usize::from(version == Version::V5)]);
        put_text("c", &mut body);
        let mut c = house.dial(version).await;
        let long = [&[0x10, body.len() as u8 | 0x80, 0], &body[..]].concat();
        c.socket.write_all(&long).await.unwrap();
        let (first, connack) = c.packet().await.unwrap();
        assert_eq!((first, connack[1]), (0x20, code), "{version:?}");
    }
    house.close().await;
}

/// [MQTT-2.2.1-3]
#[tokio::test]
async fn a_packet_that_needs_an_id_has_one() {
    let house = House::open(&Fake::new()).await;
    for version in BOTH {
        let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        for (first, rest) in [(0x82, &b"\0\x01a\0"[..]), (0xa2, b"\0\x01a")] {
            let mut c = house.client(version, "c", true).await;
            c.send(first, &[&[0, 0], none, rest].concat()).await;
            assert_eq!(c.is_closed().await, (version == Version::V5).then_some(0x82), "{first:x}");
        }
    }
    house.close().await;
}

/// [MQTT-1.5.4-3], 3.1.1 [MQTT-1.5.3-3]
#[tokio::test]
async fn a_byte_order_mark_is_a_character_like_any() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let marked = "\u{feff}x";
    for version in BOTH {
        let mut with = house.client(version, "with", false).await;
        with.subscribe(marked, 1).await;
        let mut without = house.client(version, "without", true).await;
        without.subscribe("x", 1).await;
        let mut p = house.client(version, "p", true).await;
        p.publish_acked(marked, marked.as_bytes(), 1).await;
        let got = with.got().await;
        assert_eq!((&*got.topic, &*got.payload), (marked, marked));
        without.pings().await;
        // From the log, under the same id of its own that the session has.
        drop(with);
        let mut with = house.client(version, "with", false).await;
        assert_eq!(with.got().await.topic, marked);
        let (_, connack) = house.connect(version, "\u{feff}with", false, &[]).await;
        assert_eq!(connack[..2], [0, 0], "another id is another session");
        with.pings().await;
        house.client(version, "with", true).await.leaves().await;
        house.client(version, "\u{feff}with", true).await.leaves().await;
    }
    house.close().await;
}

/// [MQTT-1.5.4-1], 3.1.1 [MQTT-1.5.3-1]
#[tokio::test]
async fn half_a_character_of_utf_16_is_no_text() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    // U+D800 and U+DFFF, as UTF-8 would have them.
    for half in [[0xed, 0xa0, 0x80], [0xed, 0xbf, 0xbf]] {
        let text = [&[0, 3][..], &half].concat();
        for version in BOTH {
            let mut c = house.client(version, "c", true).await;
            c.send(0x30, &[&text[..], &[0], b"m"].concat()).await;
            assert_eq!(c.is_closed().await, (version == Version::V5).then_some(0x81), "a topic, {version:?}");
        }
        let value = [&[0, 1, b'k'][..], &text].concat();
        for (what, id, value) in
            [("content type", 3, &text), ("response topic", 8, &text), ("user property", 0x26, &value)]
        {
            let mut c = house.client(Version::V5, "c", true).await;
            let body = [&[0, 1, b'a', 1 + value.len() as u8, id], &value[..], b"m"].concat();
            c.send(0x30, &body).await;
            assert_eq!(c.is_closed().await, Some(0x81), "{what}");
        }
        // In a payload and in correlation data it is bytes like any.
        let mut c = house.client(Version::V5, "c", true).await;
        c.send(0x32, &[&[0, 1, b'a', 0, 1, 6, 9], &text[..], &half].concat()).await;
        assert_eq!(c.acked(kind::PUBACK, 1).await, 0);
    }
    assert_eq!(fake.last(), Pos(2));
    house.close().await;
}

#[tokio::test]
async fn a_topic_and_a_filter_have_128_levels_at_most() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let (deep, too_deep) = (vec!["l"; 128].join("/"), vec!["l"; 129].join("/"));
    for version in BOTH {
        let is_5 = version == Version::V5;
        let mut c = house.client(version, "c", true).await;
        assert_eq!(c.subscribe(&deep, 1).await, 1);
        for filter in [too_deep.clone(), format!("$share/g/{too_deep}"), format!("{too_deep}/#")] {
            assert_eq!(c.subscribe(&filter, 1).await, if is_5 { 0x8f } else { 0x80 }, "{filter}");
        }
        let before = fake.letters().len();
        let code = if is_5 { 0x90 } else { 0 };
        c.publish(&too_deep, b"m", 1, 1, false).await;
        assert_eq!(c.acked(kind::PUBACK, 1).await, code);
        c.publish(&too_deep, b"m", 2, 2, false).await;
        assert_eq!(c.acked(kind::PUBREC, 2).await, code);
        c.publish(&too_deep, b"m", 0, 0, true).await;
        c.publish(&deep, b"m", 1, 3, false).await;
        // Its own message and its acknowledgement, in whichever order.
        let (first, second) = (c.packet().await.unwrap(), c.packet().await.unwrap());
        let mut kinds = [first.0 >> 4, second.0 >> 4];
        kinds.sort_unstable();
        assert_eq!(kinds, [kind::PUBLISH, kind::PUBACK]);
        assert_eq!(fake.letters()[before..], ["topic", "topic", "topic"]);
    }
    house.close().await;
}

#[tokio::test]
async fn a_message_of_a_web_socket_holds_a_packet_and_64_kib_and_a_larger_one_ends_the_connection() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

    let fake = Fake::new();
    let broker = config::Broker { packet_bytes_max: 4096, ..Default::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let web: config::Listener = toml::from_str("listen = \"127.0.0.1:0\"\nprotocol = \"ws\"").unwrap();
    let house = House::with(&fake, broker, config::Access::default()).await;
    let (stop, shutdown) = watch::channel(false);
    let entrance = Entrance::new(listener, &web).unwrap();
    let serving = tokio::spawn(serve(vec![entrance], house.door.clone(), shutdown));
    let come = async || {
        let mut request = format!("ws://{at}/mqtt").into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
        let socket = TcpStream::connect(at).await.unwrap();
        let (mut ws, _) = tokio_tungstenite::client_async(request, socket).await.unwrap();
        ws.send(Message::binary(&b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01w"[..])).await.unwrap();
        assert_eq!(ws.next().await.unwrap().unwrap().into_data()[..], [0x20, 2, 0, 0]);
        ws
    };
    // Many small packets fill one message.
    let one = [0x30, 4, 0, 1, b'x', b'm'];
    let full = |bytes: usize| one.repeat(bytes / one.len());
    let mut ws = come().await;
    let largest = full(4096 + 64 * 1024);
    let n = largest.len() / one.len();
    ws.send(Message::binary([&largest[..], &[0xc0, 0]].concat())).await.unwrap();
    assert_eq!(ws.next().await.unwrap().unwrap().into_data()[..], [0xd0, 0]);
    assert_eq!(house.door.counters().publishes_qos0.get(), n as u64);
    ws.send(Message::binary(full(4096 + 64 * 1024 + 60))).await.unwrap();
    let end = timeout(PATIENCE, ws.next()).await.expect("it ends");
    assert!(!matches!(end, Some(Ok(Message::Binary(_)))), "{end:?}");
    assert_eq!(house.door.counters().publishes_qos0.get(), n as u64, "nothing of it is taken");
    drop(ws);
    // The next connection is served as the first was.
    come().await;
    stop.send_replace(true);
    serving.await.unwrap();
    house.close().await;
}
