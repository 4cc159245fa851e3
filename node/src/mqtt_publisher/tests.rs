use super::*;
use tokio::net::TcpListener;

pub(super) fn message(number: u64) -> Message {
    Message { number, topic: "in/t".into(), payload: Bytes::from(format!("{{\"id\":\"{number}\"}}")) }
}

/// Reads one packet as a broker would; `None` at the end of the stream.
async fn read_packet(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<(u8, Bytes)> {
    loop {
        if let Some(packet) = take_packet(buffer).unwrap() {
            return Some(packet);
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

#[tokio::test]
async fn nothing_is_lost_and_order_holds_when_the_broker_breaks_off_again_and_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = tokio::spawn(async move {
        let mut committed: Vec<String> = Vec::new();
        // Each connection takes 7 publishes more than the last and acknowledges all but three.
        for takes in (7..).step_by(7) {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = BytesMut::new();
            assert_eq!(read_packet(&mut stream, &mut buffer).await.unwrap().0, kind::CONNECT);
            stream.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
            for taken in 1..=takes {
                match read_packet(&mut stream, &mut buffer).await {
                    Some((kind::PUBLISH, body)) => {
                        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                        let payload = String::from_utf8(body[2 + topic + 3..].to_vec()).unwrap();
                        if !committed.contains(&payload) {
                            committed.push(payload);
                        }
                        if taken + 3 <= takes {
                            let ack = [0x40, 2, body[2 + topic], body[3 + topic]];
                            stream.write_all(&ack).await.unwrap();
                        }
                    }
                    Some((kind::DISCONNECT, _)) => return committed,
                    other => panic!("{other:?}"),
                }
            }
        }
        unreachable!("the range has no end")
    });
    let (tx, rx) = mpsc::channel(16);
    let (events_tx, mut events) = mpsc::channel(16);
    let options = Options {
        target: Target::local(port),
        tls: None,
        client_id: "t".into(),
        window: 20,
        give_up_after: Some(Duration::from_secs(10)),
    };
    let publisher = tokio::spawn(run(options, rx, events_tx));
    tokio::spawn(async move {
        for n in 0..100 {
            tx.send(message(n)).await.unwrap();
        }
    });
    let mut acknowledged = Vec::new();
    while let Some(event) = events.recv().await {
        if let Event::Acknowledged { number } = event {
            acknowledged.push(number);
        }
    }
    let totals = publisher.await.unwrap().unwrap();
    let committed = broker.await.unwrap();
    let want: Vec<String> = (0..100).map(|n| format!("{{\"id\":\"{n}\"}}")).collect();
    assert_eq!(committed, want);
    acknowledged.sort_unstable();
    assert_eq!(acknowledged, (0..100).collect::<Vec<_>>());
    assert!(totals.sent_again >= 3 && totals.connections > 2, "{totals:?}");
}

fn options(port: u16, give_up_after: Duration) -> Options {
    Options {
        target: Target::local(port),
        tls: None,
        client_id: "t".into(),
        window: 8,
        give_up_after: Some(give_up_after),
    }
}

/// Connections of a broker that answers CONNECT with `greeting`, and PUBLISH with what `answers` makes of its
/// packet id; nothing: it closes. Returned: the first bytes of the CONNECTs' levels, and how they went on.
fn broker(
    greeting: &'static [u8],
    mut answers: impl FnMut(usize, u16) -> Vec<u8> + Send + 'static,
) -> (u16, Arc<parking_lot::Mutex<Vec<u8>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let port = listener.local_addr().unwrap().port();
    let levels = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let known = levels.clone();
    tokio::spawn(async move {
        let mut publishes = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = BytesMut::new();
            let Some((kind::CONNECT, hello)) = read_packet(&mut stream, &mut buffer).await else { continue };
            known.lock().push(hello[6]);
            // One of 3.1.1 has no word for what came after it.
            let is_strange = greeting.len() == 4 && hello[6] == 5;
            let said = if is_strange { &[0x20, 2, 0, 1][..] } else { greeting };
            stream.write_all(said).await.unwrap();
            while let Some((kind::PUBLISH, body)) = read_packet(&mut stream, &mut buffer).await {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let answer = answers(publishes, u16::from_be_bytes([body[2 + topic], body[3 + topic]]));
                publishes += 1;
                if answer.is_empty() {
                    break;
                }
                stream.write_all(&answer).await.unwrap();
            }
        }
    });
    (port, levels)
}

/// Publishes so many, and says what became of them.
async fn publish(options: Options, many: u64) -> (Result<Totals, Error>, Vec<Event>) {
    let (tx, rx) = mpsc::channel(16);
    let (events_tx, mut events) = mpsc::channel(1024);
    for n in 0..many {
        tx.send(message(n)).await.unwrap();
    }
    drop(tx);
    let ended = timeout(Duration::from_secs(20), run(options, rx, events_tx)).await.expect("it ends");
    let mut all = Vec::new();
    while let Some(event) = events.recv().await {
        all.push(event);
    }
    (ended, all)
}

#[tokio::test]
async fn what_the_broker_refuses_is_told_and_what_it_cannot_take_now_goes_again() {
    let ack = |id: u16, more: &[u8]| {
        let [high, low] = id.to_be_bytes();
        [&[0x40, 2 + more.len() as u8, high, low], more].concat()
    };
    // The first is refused, the second comes too early, and is then taken.
    let (port, _) = broker(&[0x20, 3, 0, 0, 0], move |n, id| ack(id, [&[0x99][..], &[0x97, 0], &[]][n.min(2)]));
    let one_by_one = Options { window: 1, ..options(port, Duration::from_secs(10)) };
    let (ended, events) = publish(one_by_one, 2).await;
    let totals = ended.unwrap();
    assert_eq!((totals.acknowledged, totals.refused, totals.connections), (1, 1, 2), "{events:?}");
    assert!(matches!(&events[1], Event::Refused { number: 0, reason } if reason.contains("0x99")), "{events:?}");
    assert_eq!(events.last(), Some(&Event::Acknowledged { number: 1 }));
}

#[tokio::test]
async fn a_broker_of_3_1_1_is_spoken_to_in_3_1_1() {
    let (port, levels) = broker(&[0x20, 2, 0, 0], |_, id| [&[0x40, 2][..], &id.to_be_bytes()].concat());
    let (ended, _) = publish(options(port, Duration::from_secs(10)), 5).await;
    assert_eq!(ended.unwrap().acknowledged, 5);
    assert_eq!(*levels.lock(), [5, 4]);
}

#[tokio::test]
async fn what_is_larger_than_the_broker_takes_is_refused_and_the_rest_is_sent() {
    let small = &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 24];
    let (port, _) = broker(small, |_, id| [&[0x40, 2][..], &id.to_be_bytes()].concat());
    let (tx, rx) = mpsc::channel(4);
    let (events_tx, mut events) = mpsc::channel(16);
    let large = Message { payload: Bytes::from(vec![b'x'; 100]), ..message(1) };
    let little = |number| Message { payload: Bytes::from_static(b"{}"), ..message(number) };
    for message in [little(0), large, little(2)] {
        tx.send(message).await.unwrap();
    }
    drop(tx);
    let totals = run(options(port, Duration::from_secs(10)), rx, events_tx).await.unwrap();
    assert_eq!((totals.acknowledged, totals.refused, totals.connections), (2, 1, 1));
    let mut refused = None;
    while let Some(event) = events.recv().await {
        if let Event::Refused { number, reason } = event {
            refused = Some((number, reason));
        }
    }
    assert_eq!(refused, Some((1, "it has 100 bytes, and the broker takes packets of 24".into())));
}

#[tokio::test]
async fn a_broker_that_lets_us_in_and_closes_on_each_publish_is_given_up_and_not_asked_all_the_time() {
    let (port, levels) = broker(&[0x20, 3, 0, 0, 0], |_, _| Vec::new());
    let (ended, _) = publish(options(port, Duration::from_millis(600)), 3).await;
    assert!(matches!(ended.unwrap_err(), Error::Unreachable { unacknowledged: 3, .. }));
    // 20, 40, 80, 160, 320, 500 ms lie between them.
    assert!(levels.lock().len() <= 8, "{:?}", levels.lock());
}

#[tokio::test]
async fn a_broker_that_never_comes_ends_the_run_with_its_name() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (_tx, rx) = mpsc::channel(1);
    let (events, _) = mpsc::channel(1);
    let options = Options {
        target: Target::local(free),
        tls: None,
        client_id: "t".into(),
        window: 1,
        give_up_after: Some(Duration::from_millis(50)),
    };
    let error = run(options, rx, events).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { port, .. } if port == free), "{error}");
}
