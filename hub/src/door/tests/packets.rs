//! Packets that are broken, late, in pieces or too large.

use super::*;

#[tokio::test]
async fn broken_packets_end_the_connection_with_the_right_reason() {
    let cases: &[(u8, &[u8], u8)] = &[
        (0x30, &[0, 3, b'a', b'/', b'#', 0], 0x81),
        (0x32, &[0, 1, b'a', 0, 0, 0], 0x81),
        (0x36, &[0, 1, b'a', 0, 1, 0], 0x81),
        (0x30, &[0, 1, 0, 0], 0x81),
        (0x30, &[0, 1, 0xff, 0], 0x81),
        (0x30, &[0, 0, 0], 0x82),
        (0x30, &[0, 0, 3, 0x23, 0, 1], 0x82),
        (0x30, &[0, 0, 3, 0x23, 0, 99], 0x94),
        (0x30, &[0, 1, b'a', 3, 0x23, 0, 0], 0x94),
        (0x81, &[0, 1], 0x81),
        (0x82, &[0, 1, 0], 0x82),
        (0x10, &[0, 4], 0x82),
        (0xf0, &[0], 0x82),
        (0x00, &[], 0x82),
        (0x0a, &[], 0x82),
        (0x20, &[0, 0], 0x82),
        (0x90, &[0, 1, 0], 0x82),
        (0xd0, &[], 0x82),
        (0x40, &[0, 1, 0xff], 0x82),
        (0x50, &[0, 1, 0, 2, 0x01, 0], 0x81),
        (0x62, &[0, 1, 0, 6, 0x1f, 0, 0, 0x1f, 0, 0], 0x82),
        (0x82, &[0, 1, 0, 0, 0, 0], 0x81),
        (0xa2, &[0, 1, 0, 0, 1, 0], 0x81),
        (0xc0, &[1], 0x81),
        (0x82, &[0, 1, 0, 0, 3, b'a', b'/', b'+', 0], 0),
        (0x82, &[0, 1, 0, 0, 2, b'a', b'+', 0], 0x81),
        (0x82, &[0, 1, 0, 0, 5, b'a', b'/', b'#', b'/', b'b', 0], 0x81),
        (0xa2, &[0, 1, 0, 0, 2, b'#', b'a'], 0x81),
        (0x82, &[0, 1, 2, 0x0b, 0x85, 0, 0, 1, b'a', 0], 0x81),
    ];
    let fake = Fake::new();
    let house = House::open(&fake).await;
    for (n, (first, body, want)) in cases.iter().enumerate() {
        let mut c = house.client(Version::V5, &format!("c{n}"), true).await;
        c.send(*first, body).await;
        if *want == 0 {
            assert_eq!(c.packet().await.unwrap().0, 0x90, "{first:x} {body:x?}");
            continue;
        }
        assert_eq!(c.is_closed().await, Some(*want), "{first:x} {body:x?}");
        let mut c = house.client(Version::V4, &format!("d{n}"), true).await;
        // 3.1.1 has no properties: to it the topic with a wildcard is in a whole message.
        let body = if n == 0 || *first == 0xc0 { body } else { &[][..] };
        c.send(*first, body).await;
        assert_eq!(c.is_closed().await, None, "3.1.1, {first:x}");
    }
    for length in [&[0x30, 0x85, 0][..], &[0x30, 0xff, 0xff, 0xff, 0xff, 1], &[0xc0, 0x80, 0]] {
        let mut c = house.client(Version::V5, "length", true).await;
        c.socket.write_all(length).await.unwrap();
        assert_eq!(c.is_closed().await, Some(0x81), "{length:x?}");
    }
    // 3.1.1 does not ask for the shortest.
    let mut c = house.client(Version::V4, "length", true).await;
    c.socket.write_all(&[0xc0, 0x80, 0]).await.unwrap();
    assert_eq!(c.packet().await.unwrap().0, 0xd0);
    assert!(fake.notes().iter().any(|n| matches!(n, Note::DeadLetter(d) if d.reason == "topic" && d.topic == "a/#")));
    assert!(house.door.counters().malformed.get() >= cases.len() as u64);
    house.close().await;
}

#[tokio::test]
async fn first_packets_that_are_no_connect_are_turned_away() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let large = b"\x10\xff\xff\xff\x7f\0\x04MQTT\x04";
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x30, 3, 0, 1, b'a'], large, &[0x10, 2, 0, 0]] {
        let mut socket = TcpStream::connect(house.at).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("closed");
        assert_eq!(rest, [0u8; 0]);
    }
    let mut socket = TcpStream::connect(house.at).await.unwrap();
    socket.write_all(b"\x10\x0e\0\x06MQIsdp\x03\x02\0\0\0\0").await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("closed").unwrap();
    assert_eq!(rest, [0x20, 2, 0, 1]);
    house.close().await;
}

#[tokio::test]
async fn a_packet_in_single_bytes_is_a_packet() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut c = house.client(Version::V4, "c", true).await;
    for b in [0x32, 6, 0, 1, b'a', 0, 3, b'x'] {
        c.socket.write_all(&[b]).await.unwrap();
        c.socket.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    c.acked(kind::PUBACK, 3).await;
    house.close().await;
}

#[tokio::test]
async fn five_megabytes_are_refused_without_being_kept() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let big = vec![b'x'; 5_000_000];
    let mut four = house.client(Version::V4, "four", true).await;
    four.publish("big/x", &big, 1, 3, false).await;
    four.acked(kind::PUBACK, 3).await;
    four.publish_acked("x", b"after", 4).await;
    let mut five = house.client(Version::V5, "five", true).await;
    let (mut read, mut write) = five.socket.into_split();
    let writing = tokio::spawn(async move {
        let mut out = Vec::new();
        out.extend_from_slice(&[0x32, 0xc0, 0x96, 0xb1, 2, 0, 1, b'x', 0, 1, 0]);
        let _ = write.write_all(&out).await;
        let _ = write.write_all(&big).await;
    });
    let mut answer = Vec::new();
    timeout(PATIENCE, read.read_to_end(&mut answer)).await.expect("closed").unwrap();
    assert_eq!((answer[0], answer[2]), (0xe0, 0x95), "{answer:x?}");
    let _ = writing.await;
    five = house.client(Version::V5, "again", true).await;
    five.publish_acked("x", b"1", 1).await;
    let letters: Vec<_> = fake
        .notes()
        .into_iter()
        .filter_map(|n| if let Note::DeadLetter(d) = n { Some((d.topic, d.payload_bytes)) } else { None })
        .collect();
    assert_eq!(letters[0], ("big/x".into(), 5_000_000));
    assert_eq!(letters[1].0, "x");
    house.close().await;
}

/// [MQTT-4.8.0-1]: as a smaller one does. It is a dead letter all the same.
#[tokio::test]
async fn what_is_too_large_and_malformed_ends_a_connection_of_3_1_1() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let named = |topic: &[u8]| [&(topic.len() as u16).to_be_bytes(), topic].concat();
    let cases = [
        ("QoS 3", 0x36, [named(b"x"), vec![0, 1]].concat()),
        ("packet id 0", 0x32, [named(b"x"), vec![0, 0]].concat()),
        ("a topic that is no UTF-8", 0x30, named(b"\xff")),
        ("a topic with U+0000", 0x30, named(b"a\0")),
        ("a topic with a wildcard", 0x32, [named(b"a/#"), vec![0, 1]].concat()),
        ("no topic", 0x32, [named(b""), vec![0, 1]].concat()),
    ];
    for (n, (what, first, start)) in cases.into_iter().enumerate() {
        let mut c = house.client(Version::V4, "c", true).await;
        let whole = [start, vec![b'x'; 2_000_000]].concat();
        let sent = c.send_whole(first, &whole).await;
        assert!(sent, "{what}: it is read to its end");
        assert_eq!(c.is_closed().await, None, "{what}");
        until(what, || fake.letters().len() == n + 1).await;
    }
    assert_eq!(fake.letters(), ["too-large"; 6]);
    assert_eq!(house.door.counters().malformed.get(), 6);
    house.close().await;
}

#[tokio::test]
async fn a_silent_client_is_ended_after_its_keep_alive() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 1, 0];
    put_text("s", &mut body);
    let mut c =
        Client { socket: TcpStream::connect(house.at).await.unwrap(), input: BytesMut::new(), version: Version::V5 };
    c.send(0x10, &body).await;
    c.packet().await.unwrap();
    let start = std::time::Instant::now();
    assert_eq!(c.is_closed().await, Some(0x8d));
    assert!(start.elapsed() > Duration::from_millis(1400));
    house.close().await;
}
