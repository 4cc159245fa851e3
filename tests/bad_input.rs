//! Rubbish at the front door: answered in the protocol's terms, kept with its reason, counted; and
//! nobody else is disturbed.

use crate::harness::mqtt::{Client, connect_packet, event, packet, publish_packet, text};
use crate::harness::{Node, Tree, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn letters(node: &Node) -> Vec<(String, String)> {
    let all = node.get("/v1/dlq?limit=1000").expect("the node answers");
    let all = all["dead_letters"].as_array().expect("a list").clone();
    let text = |v: &Value, k: &str| v[k].as_str().unwrap_or_default().to_owned();
    all.iter().map(|l| (text(l, "reason"), text(l, "topic"))).collect()
}

/// The tree is well: an event published now is at the city, once.
fn is_well(tree: &Tree, leaf: &str, id: &str) {
    let mut good = Client::connect(tree.node(leaf).mqtt, &format!("good-{id}"), true);
    assert!(good.publish("in/good", event(id, false).as_bytes()), "a good event is acknowledged");
    wait_for(&format!("{id} is at the city"), || {
        (tree.node("c").records().iter().filter(|r| r.id == id).count() == 1).then_some(())
    });
}

#[test]
fn whatever_cannot_be_an_event_is_acknowledged_kept_and_told_apart() {
    let leaf = "c/s/m/n";
    let mut tree = Tree::new(&[leaf]);
    tree.start();
    let node = tree.node(leaf);
    let big = format!(r#"{{"specversion":"1.0","id":"b","source":"/x","type":"t","data":"{}"}}"#, "x".repeat(300_000));
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("unmapped", "in/a1", b"{\"broken\":".to_vec()),
        ("unmapped", "in/a2", b"hello".to_vec()),
        ("unmapped", "in/a3", vec![0xff, 0xfe, 0x00]),
        ("unmapped", "in/a4", Vec::new()),
        ("not-cloudevents", "in/a5", b"{}".to_vec()),
        ("not-cloudevents", "in/a6", b"[1,2]".to_vec()),
        ("bad-attribute", "in/a7", br#"{"specversion":"1.0","id":7,"source":"/x","type":"t"}"#.to_vec()),
        ("bad-attribute", "in/a8", br#"{"specversion":"2.0","id":"7","source":"/x","type":"t"}"#.to_vec()),
        (
            "bad-attribute",
            "in/a9",
            br#"{"specversion":"1.0","id":"7","source":"/x","type":"t","priority":"now"}"#.to_vec(),
        ),
        (
            "foreign-target",
            "in/a10",
            br#"{"specversion":"1.0","id":"8","source":"/x","type":"t","target":"c/**"}"#.to_vec(),
        ),
        ("forbidden", "in/a11", br#"{"specversion":"1.0","id":"9","source":"/x","type":"city.brain.node"}"#.to_vec()),
        ("too-large", "in/a12", big.into_bytes()),
    ];
    let mut device = Client::connect(node.mqtt, "rubbish", true);
    for (_, topic, payload) in &cases {
        assert!(device.publish(topic, payload), "3.1.1 has no reason code: {topic} is acknowledged");
    }
    let kept = letters(node);
    for (reason, topic, _) in &cases {
        assert!(kept.contains(&((*reason).to_owned(), (*topic).to_owned())), "{topic} is kept as {reason}: {kept:?}");
    }
    let metrics = node.get_text("/metrics").expect("metrics");
    let counted = metrics.lines().find(|l| l.starts_with("citybrain_dead_letters_total")).unwrap_or_default();
    assert!(counted.ends_with(&format!(" {}", kept.len())), "{counted} {}", kept.len());
    is_well(&tree, leaf, "after");
    assert!(tree.node("c").records().iter().all(|r| !["7", "8", "9", "b"].contains(&r.id.as_str())));
}

#[test]
fn packets_that_no_client_may_send_end_their_connection_and_no_other() {
    let leaf = "c";
    let mut tree = Tree::new(&[leaf]);
    tree.start();
    let port = tree.node(leaf).mqtt;
    let mut bystander = Client::connect(port, "bystander", true);
    let raw_topic = |bytes: &[u8]| {
        let mut body = (bytes.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(bytes);
        body.extend_from_slice(&[0, 1]);
        packet(0x32, &body)
    };
    let good = event("x", false);
    let after_connect: Vec<(&str, Vec<u8>)> = vec![
        ("U+0000 in a topic", raw_topic(b"in/a\0b")),
        ("a topic that is not UTF-8", raw_topic(b"in/\xff\xff")),
        ("a wildcard in a topic", publish_packet("in/+/x", 1, false, false, 1, good.as_bytes())),
        ("an empty topic", publish_packet("", 1, false, false, 1, good.as_bytes())),
        ("packet id 0", publish_packet("in/x", 1, false, false, 0, good.as_bytes())),
        ("QoS 3", publish_packet("in/x", 3, false, false, 1, good.as_bytes())),
        ("a second CONNECT", connect_packet("again", true)),
        ("a packet for clients", packet(0x20, &[0, 0])),
        ("type 0", packet(0x00, &[])),
        ("type 15 in 3.1.1", packet(0xf0, &[])),
        ("a length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("a filter with # in the middle", {
            let mut body = vec![0, 9];
            text(&mut body, "a/#/b");
            body.push(0);
            packet(0x82, &body)
        }),
        ("a SUBSCRIBE without a filter", packet(0x82, &[0, 9])),
    ];
    for (what, bytes) in &after_connect {
        let mut bad = Client::connect(port, "bad", true);
        bad.send(bytes).expect("it is sent");
        if what.contains("# in the middle") {
            // A SUBACK with a failure code is an answer too.
            let answer = bad.read(SOON);
            assert!(answer.is_none_or(|p| p.kind == 9 && p.body.last() == Some(&0x80)), "{what}");
        } else {
            assert!(bad.is_closed(SOON), "{what} ends the connection");
        }
        assert!(bystander.publish("in/x", event(&format!("beside {what}"), false).as_bytes()), "{what}");
    }
    let before_connect: Vec<(&str, Vec<u8>)> = vec![
        ("not MQTT", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a PUBLISH first", publish_packet("in/x", 1, false, false, 1, good.as_bytes())),
        ("level 6", {
            let mut body = Vec::new();
            text(&mut body, "MQTT");
            body.extend_from_slice(&[6, 2, 0, 0]);
            text(&mut body, "c");
            packet(0x10, &body)
        }),
        ("MQTT 3.1", {
            let mut body = Vec::new();
            text(&mut body, "MQIsdp");
            body.extend_from_slice(&[3, 2, 0, 0]);
            text(&mut body, "c");
            packet(0x10, &body)
        }),
        ("a CONNECT of 200 MB", vec![0x10, 0xff, 0xff, 0xff, 0x5f]),
    ];
    for (what, bytes) in &before_connect {
        let mut bad = Client::dial(port).expect("the port is open");
        bad.send(bytes).expect("it is sent");
        assert!(bad.is_closed(SOON), "{what} is turned away");
        assert!(bystander.publish("in/x", event(&format!("beside {what}"), false).as_bytes()), "{what}");
    }
    let records = tree.node(leaf).records();
    let beside = records.iter().filter(|r| r.id.starts_with("beside")).count();
    assert_eq!(beside, after_connect.len() + before_connect.len());
    assert!(records.iter().all(|r| r.id != "x"), "nothing of a bad packet is an event");
}

#[test]
fn half_a_packet_and_five_megabytes_hold_up_nobody() {
    let leaf = "c/s";
    let mut tree = Tree::new(&[leaf]);
    tree.start();
    let port = tree.node(leaf).mqtt;
    let mut slow = Client::connect(port, "slow", true);
    let whole = publish_packet("in/x", 1, false, false, 1, event("half", false).as_bytes());
    slow.send(&whole[..whole.len() / 2]).expect("half is sent");
    let mut silent = Client::dial(port).expect("the port is open");
    silent.send(&connect_packet("silent", true)[..5]).expect("a part is sent");
    is_well(&tree, leaf, "beside-half");
    slow.send(&whole[whole.len() / 2..]).expect("the rest is sent");
    assert_eq!(slow.read(SOON).map(|p| p.kind), Some(4), "a slow packet is a packet");

    let mut huge = Client::connect(port, "huge", true);
    let bytes = publish_packet("in/huge", 1, false, false, 1, &vec![b'x'; 5_000_000]);
    // The node may close before all of it is sent; either way it is kept as a dead letter.
    let _ = huge.send(&bytes);
    wait_for("the 5 MB are a dead letter", || {
        letters(tree.node(leaf)).contains(&("too-large".into(), "in/huge".into())).then_some(())
    });
    is_well(&tree, leaf, "after-huge");
}

#[test]
fn rubbish_on_a_link_is_dropped_and_the_link_goes_on() {
    let leaf = "c/s/m";
    let mut tree = Tree::new(&[leaf]);
    tree.start();
    let port = tree.node("c").mqtt;
    let mut stranger = Client::connect(port, "stranger", true);
    for verb in ["up", "hello", "downack", "answer"] {
        for payload in [b"".as_slice(), b"rubbish", b"CB\x01\x04\0\0\0\0", b"CB\xff\x01\0\0\0\0", &[0xff; 3000]] {
            for child in ["c/s", "c/unknown", "c/s/m", "BAD", "c/s/x/y/z"] {
                stranger
                    .send(&publish_packet(&format!("citybrain/v1/{verb}/{child}"), 0, false, false, 0, payload))
                    .expect("it is sent");
            }
        }
    }
    is_well(&tree, leaf, "after-rubbish");
    tree.wait_linked();
    assert!(letters(tree.node("c")).iter().all(|(reason, _)| reason != "poison"));
}

#[test]
fn mqtt5_hears_the_reason_of_a_refusal() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let mut c = Client::dial(tree.node("c").mqtt).expect("the port is open");
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[5, 2, 0, 0, 0]); // clean start, no keep-alive, no properties
    text(&mut body, "five");
    c.send(&packet(0x10, &body)).expect("CONNECT is sent");
    assert_eq!(c.read(SOON).map(|p| (p.kind, p.body[1])), Some((2, 0)));
    for (topic, payload, want) in [
        ("in/x", event("good", false), 0x00),
        ("in/x", "rubbish".to_owned(), 0x99),
        ("events/x", event("bad", false), 0x87),
    ] {
        let mut body = Vec::new();
        text(&mut body, topic);
        body.extend_from_slice(&[0, 7, 0]);
        body.extend_from_slice(payload.as_bytes());
        c.send(&packet(0x32, &body)).expect("PUBLISH is sent");
        let ack = c.read(SOON).expect("a PUBACK");
        let got = ack.body.get(2).copied().unwrap_or(0);
        assert_eq!((ack.kind, got & 0x80), (4, want & 0x80), "{topic}");
        assert!(got == want || topic != "in/x", "{topic}: {got:#x}");
    }
}

#[test]
fn the_api_says_what_is_wrong_with_a_body() {
    let mut tree = Tree::new(&["c/s"]);
    tree.start();
    let node = tree.node("c/s");
    for body in [
        json!({}),
        json!({"target": "c/s/**"}),
        json!({"target": "nowhere", "type": "t", "data": {}}),
        json!({"target": "c/s/**@moon", "type": "t", "data": {}}),
        json!({"target": "c/s/**", "type": "bad type+#", "data": {}}),
        json!([1]),
    ] {
        let (status, answer) = node.post("/v1/send", &body);
        assert!((400..500).contains(&status), "{body}: {status} {answer}");
        assert!(answer["detail"].as_str().is_some_and(|d| !d.is_empty()), "{body}: {answer}");
    }
    let (status, answer) = node.post("/v1/events", &json!({"no": "event"}));
    assert!((400..500).contains(&status), "{status} {answer}");
    is_well(&tree, "c/s", "after-bodies");
}
