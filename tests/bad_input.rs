//! Rubbish at the front door: answered in the protocol's terms, kept with its reason, counted; and
//! nobody else is disturbed.

use crate::harness::mqtt::{
    Client, connect_five_packet, connect_packet, event, packet, puback, publish_five, publish_packet, text,
};
use crate::harness::{Node, Tree, add_user, wait_for};
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
        assert!(bad.is_closed(SOON), "{what} ends the connection");
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
    huge.send(&bytes).expect("all of it is read");
    // 3.1.1 has no word for it, and a closed connection would bring it again for ever.
    assert_eq!(huge.read(SOON).map(|p| (p.kind, p.body)), Some((4, vec![0, 1])), "it is acknowledged");
    assert!(letters(tree.node(leaf)).contains(&("too-large".into(), "in/huge".into())), "and kept as a dead letter");
    assert!(huge.publish("in/x", event("behind-huge", false).as_bytes()), "the connection goes on");
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

/// An MQTT 5 client of its own packets.
fn five(port: u16, id: &str, user: Option<(&str, &str)>) -> Client {
    let mut client = Client::dial(port).expect("the port is open");
    client.send(&connect_five_packet(id, user)).expect("CONNECT is sent");
    assert_eq!(client.read(SOON).map(|p| (p.kind, p.body[1])), Some((2, 0)), "{id} is let in");
    client
}

#[test]
fn mqtt5_hears_the_reason_of_a_refusal_and_stays_connected() {
    let mut tree = Tree::new(&["c/s"]);
    tree.start();
    let mut c = five(tree.node("c/s").mqtt, "five", None);
    let big = format!(r#"{{"specversion":"1.0","id":"b","source":"/x","type":"t","data":"{}"}}"#, "x".repeat(300_000));
    let foreign = r#"{"specversion":"1.0","id":"8","source":"/x","type":"t","target":"c/**"}"#;
    let good = event("good", false);
    for (topic, payload, properties, want) in [
        ("in/x", good.as_bytes(), &[][..], 0x00),
        ("in/x", b"rubbish", &[], 0x99),
        ("in/x", b"{}", &[], 0x99),
        ("in/x", big.as_bytes(), &[], 0x99),
        ("in/x", foreign.as_bytes(), &[], 0x87),
        ("events/x", good.as_bytes(), &[], 0x87),
        ("cmd/x", good.as_bytes(), &[], 0x87),
        ("$SYS/x", good.as_bytes(), &[], 0x87),
        // Said to be UTF-8, and is not.
        ("in/x", b"\xff\xfe", &[1, 1], 0x99),
    ] {
        c.send(&publish_five(topic.as_bytes(), 7, properties, payload)).expect("PUBLISH is sent");
        assert_eq!(puback(&mut c, topic), want, "{topic} {:?}", &payload[..payload.len().min(80)]);
    }
    let kept = letters(tree.node("c/s"));
    assert_eq!(kept.len(), 8, "{kept:?}");
    for topic in ["events/x", "cmd/x", "$SYS/x"] {
        assert!(kept.contains(&("forbidden".into(), topic.into())), "{topic}: {kept:?}");
    }
    is_well(&tree, "c/s", "after");
    let ids: Vec<String> = tree
        .node("c")
        .records()
        .into_iter()
        .filter(|r| !r.event_type.starts_with("city.brain."))
        .map(|r| r.id)
        .collect();
    assert_eq!(ids, ["good", "after"], "nothing else became an event");
}

#[test]
fn numbers_at_the_end_of_their_type_are_answered_like_any_other() {
    let mut tree = Tree::new(&["c/s"]);
    tree.start();
    let node = tree.node("c/s");
    const MAX: u64 = u64::MAX;
    for path in [
        format!("/v1/events?after={MAX}"),
        format!("/v1/records?after={MAX}"),
        format!("/v1/events?limit={MAX}&last={MAX}"),
        format!("/v1/dlq?after={MAX}&limit={MAX}"),
        format!("/v1/dlq/{MAX}"),
        format!("/v1/directives?limit={MAX}"),
        format!("/v1/cases?limit={MAX}"),
        format!("/v1/alarms?limit={MAX}"),
        format!("/v1/counts?by=source&limit={MAX}"),
        format!("/v1/explain?origin=c/s&class=4&numbers=0-{MAX},0-{MAX}"),
        format!("/v1/trace/x?within_ms={MAX}"),
        format!("/v1/supervision?limit={MAX}&again={MAX}&days={}", u32::MAX),
    ] {
        let status = node.asker().get(&path).status;
        assert!([200, 400, 404, 410].contains(&status), "{path}: {status}");
        // A log that ends before it is no log without news.
        assert_eq!(status == 410, path.contains("after=") && !path.contains("dlq"), "{path}");
    }
    assert!(!node.output().contains("panicked"), "{}", node.output());
}

#[test]
fn mqtt5_hears_why_its_connection_ends() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let port = tree.node("c").mqtt;
    let good = event("x", false);
    let plain = |topic: &[u8], id| publish_five(topic, id, &[], good.as_bytes());
    let mut second = Vec::new();
    text(&mut second, "MQTT");
    second.extend_from_slice(&[5, 2, 0, 0, 0]);
    text(&mut second, "again");
    let cases: Vec<(&str, Vec<u8>, &[u8])> = vec![
        ("a second CONNECT", packet(0x10, &second), &[0x82]),
        ("a wildcard", plain(b"in/+/x", 1), &[0x81]),
        ("U+0000", plain(b"in/a\0b", 1), &[0x81]),
        ("a topic that is not UTF-8", plain(b"in/\xff", 1), &[0x81]),
        ("packet id 0", plain(b"in/x", 0), &[0x81, 0x82]),
        ("an alias that was never set", publish_five(b"", 1, &[0x23, 0, 9], b"x"), &[0x82]),
        ("a property twice", publish_five(b"in/x", 1, &[1, 1, 1, 1], b"x"), &[0x82]),
        ("an alias above the maximum", publish_five(b"in/x", 1, &[0x23, 1, 0], b"x"), &[0x94]),
        ("type 0", packet(0x00, &[]), &[0x82]),
        ("a packet for clients", packet(0x20, &[0, 0]), &[0x82]),
        ("five megabytes", publish_five(b"in/huge", 1, &[], &vec![b'x'; 5_000_000]), &[0x95]),
    ];
    for (what, bytes, want) in cases {
        let mut bad = five(port, "bad", None);
        // It reads on for a moment behind its last word, so that none of this is reset before it is heard.
        bad.send(&bytes).unwrap_or_else(|e| panic!("{what} is sent: {e}"));
        let said = bad.read(SOON).unwrap_or_else(|| panic!("a DISCONNECT after {what}"));
        assert_eq!(said.kind, 14, "{what}");
        assert!(want.contains(&said.body[0]), "{what}: {:#x}", said.body[0]);
        assert!(bad.is_closed(SOON), "{what}");
    }
    let mut level = Client::dial(port).expect("the port is open");
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[6, 2, 0, 0]);
    text(&mut body, "six");
    level.send(&packet(0x10, &body)).expect("CONNECT is sent");
    let refused = level.read(SOON).expect("a CONNACK");
    assert_eq!((refused.kind, refused.body), (2, vec![0, 1]), "unacceptable protocol version");

    // They are committed behind the last word.
    for (reason, topic) in [("topic", "in/+/x"), ("too-large", "in/huge")] {
        wait_for(&format!("{topic} is kept as {reason}"), || {
            letters(tree.node("c")).contains(&(reason.into(), topic.into())).then_some(())
        });
    }
    assert!(tree.node("c").records().iter().all(|r| r.id != "x"));
    is_well(&tree, "c", "after");
}

#[test]
fn a_child_s_link_topics_are_closed_to_all_others() {
    let access = "[access]\nanonymous = false\nusers_file = \"users\"\npublish = [\"in/#\"]\n";
    let mut tree = Tree::with(&["c"], &Default::default(), access);
    let users = tree.dir().join("users");
    add_user(&users, "dev", "pw", None);
    add_user(&users, "street", "pw", Some("c/s"));
    tree.start();
    let node = tree.node("c");
    for (user, topic) in [
        ("dev", "citybrain/v1/up/c/s"),
        ("dev", "citybrain/v1/hello/c/s"),
        ("dev", "citybrain/v1/upack/c/s"),
        ("street", "citybrain/v1/up/c/other"),
        ("street", "citybrain/v1/down/c/s"),
    ] {
        let mut c = five(node.mqtt, user, Some((user, "pw")));
        c.send(&publish_five(topic.as_bytes(), 7, &[], b"x")).expect("PUBLISH is sent");
        assert_eq!(puback(&mut c, topic), 0x87, "{user} on {topic}");
        assert!(letters(node).contains(&("forbidden".into(), topic.into())), "{user} on {topic}");
    }
    // Its own are open to it, whatever it says there.
    let mut street = five(node.mqtt, "street", Some(("street", "pw")));
    street.send(&publish_five(b"citybrain/v1/up/c/s", 7, &[], b"rubbish")).expect("PUBLISH is sent");
    assert!(puback(&mut street, "its own") < 0x80);
    let metrics = node.get_text("/metrics").expect("metrics");
    let forbidden = metrics.lines().find(|l| l.starts_with("citybrain_door_forbidden_total ")).unwrap_or_default();
    assert_eq!(forbidden, "citybrain_door_forbidden_total 5");
    let mut device = five(node.mqtt, "dev", Some(("dev", "pw")));
    device.send(&publish_five(b"in/x", 7, &[], event("good", false).as_bytes())).expect("PUBLISH is sent");
    assert_eq!(puback(&mut device, "a good event"), 0);
    let mut stranger = Client::dial(node.mqtt).expect("the port is open");
    stranger.send(&connect_packet("stranger", true)).expect("CONNECT is sent");
    assert_eq!(stranger.read(SOON).map(|p| p.body), Some(vec![0, 5]), "not authorized");
}

#[test]
fn noise_of_all_kinds_stops_nobody() {
    let leaf = "c/s";
    let mut tree = Tree::new(&[leaf]);
    tree.start();
    let port = tree.node(leaf).mqtt;
    let mut bystander = Client::connect(port, "bystander", true);
    // A fixed sequence (xorshift), so that a failure comes again.
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    for round in 0..200 {
        let mut noise: Vec<u8> = (0..next() % 300).map(|_| next() as u8).collect();
        let mut bad = if round % 2 == 0 {
            Client::dial(port).expect("the port is open")
        } else {
            // Behind a good CONNECT, as a known packet with a body of noise.
            let kind = [0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x82, 0xa2, 0xe0][next() as usize % 9];
            noise = packet(kind, &noise);
            Client::connect(port, "noise", true)
        };
        let _ = bad.send(&noise);
        if round % 20 == 0 {
            assert!(bystander.publish("in/x", event(&format!("beside-{round}"), false).as_bytes()), "{round}");
        }
    }
    is_well(&tree, leaf, "after-noise");
    let beside = tree.node("c").records().iter().filter(|r| r.id.starts_with("beside")).count();
    assert_eq!(beside, 10);
    assert!(!tree.node(leaf).output().contains("panicked"), "{}", tree.node(leaf).output());
}

#[test]
fn http_answers_each_wrong_body_in_its_own_terms_and_keeps_what_was_no_event() {
    let mut tree = Tree::new(&["c/s"]);
    tree.start();
    let node = tree.node("c/s");
    let cloud = "application/cloudevents+json";
    let huge = vec![b'x'; 5_000_000];
    let big = format!(r#"{{"specversion":"1.0","id":"b","source":"/x","type":"t","data":"{}"}}"#, "x".repeat(262_144));
    let foreign = r#"{"specversion":"1.0","id":"8","source":"/x","type":"t","target":"c/**"}"#;
    let good = event("good", false);
    for (path, kind, body, status, error) in [
        ("/v1/events", cloud, good.as_bytes(), 202, ""),
        ("/v1/events", cloud, b"{broken".as_slice(), 400, "not-json"),
        ("/v1/events", cloud, b"", 400, "not-json"),
        ("/v1/events", cloud, b"\xff\xfe", 400, "not-json"),
        ("/v1/events", cloud, b"{}", 400, "not-cloudevents"),
        ("/v1/events", cloud, b"[]", 400, "not-cloudevents"),
        ("/v1/events", cloud, foreign.as_bytes(), 400, "foreign-target"),
        ("/v1/events", cloud, big.as_bytes(), 413, "too-large"),
        ("/v1/events", "text/plain", good.as_bytes(), 415, "content-type"),
        ("/v1/events", cloud, &huge, 413, "too-large"),
        ("/v1/send", "application/json", b"{broken", 400, "bad-request"),
        ("/v1/send", "application/json", b"", 400, "bad-request"),
        ("/v1/send", "application/json", &huge, 413, "too-large"),
        ("/v1/nothing", "application/json", b"{}", 404, "not-found"),
        ("/v1/status", "application/json", b"{}", 405, "method"),
    ] {
        let what = format!("{path} {kind} {:?}", String::from_utf8_lossy(&body[..body.len().min(60)]));
        let Some(told) = node.asker().tried("POST", path, &[("content-type", kind)], body) else {
            // The node answers 413 and hangs up while the body is still being sent.
            assert!(body.len() > 1_000_000, "{what}");
            continue;
        };
        let (answer, text) = (told.json(), &told.text);
        assert_eq!(told.status, status, "{what}: {text}");
        if !error.is_empty() {
            assert_eq!(answer["error"], error, "{what}: {text}");
            assert!(answer["detail"].as_str().is_some_and(|d| !d.is_empty()), "{what}: {text}");
        }
    }
    // Where the answer says that it is kept, it is.
    let all = node.get("/v1/dlq").expect("an answer")["dead_letters"].as_array().expect("a list").clone();
    assert_eq!(all.iter().filter(|l| l["via"] == "http").count(), 7);
    for (method, path, allowed) in [
        ("GET", "/v1/dlq/retry", "POST"),
        ("GET", "/v1/cases/import", "POST"),
        ("POST", "/v1/alarms/7/cap", "GET, HEAD"),
        ("PUT", "/v1/cases/7", "GET, HEAD"),
    ] {
        let told = node.asker().ask(method, path, &[], "");
        assert_eq!((told.status, told.header("allow")), (405, allowed), "{method} {path}");
    }
    // What is asked of a node below is allowed as it is from above.
    for (method, path, allowed, said) in [
        ("POST", "/v1/cases", "GET", "do it at the node itself"),
        ("PUT", "/v1/cases", "GET", "through the links it takes GET"),
        ("PUT", "/v1/log-level", "GET, POST", "through the links it takes GET, POST"),
        ("DELETE", "/v1/send", "", "nothing of it goes through the links"),
    ] {
        let told = node.asker().ask(method, path, &[("x-citybrain-at", "c/s")], "");
        assert_eq!((told.status, told.header("allow")), (405, allowed), "{method} {path}: {}", told.text);
        assert!(told.text.contains(said), "{method} {path}: {}", told.text);
    }
    let nowhere = node.asker().ask("POST", "/v1/nowhere", &[("x-citybrain-at", "c/s")], "");
    assert_eq!((nowhere.status, nowhere.json()["error"].as_str()), (404, Some("not-found")), "{}", nowhere.text);
    is_well(&tree, "c/s", "after-http");
    assert_eq!(tree.node("c").records().iter().filter(|r| r.id == "good").count(), 1);
}

#[test]
fn an_event_that_was_taken_is_known_when_it_is_sent_again_too_late_and_another_is_refused() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let node = tree.node("c");
    let event = |id: &str, expirytime: &str| json!({"specversion": "1.0", "id": id, "source": "/x", "type": "t", "expirytime": expirytime});
    let (future, past) = ("2100-01-01T00:00:00Z", "2001-01-01T00:00:00Z");
    let (status, taken) = node.post("/v1/events", &event("1", future));
    assert_eq!(status, 202, "{taken}");
    let (status, again) = node.post("/v1/events", &event("1", past));
    assert_eq!((status, &again["duplicate"], &again["pos"]), (200, &json!(true), &taken["pos"]), "{again}");
    assert_eq!(letters(node), []);
    let (status, late) = node.post("/v1/events", &event("2", past));
    assert_eq!((status, &late["error"]), (400, &json!("expired")), "{late}");
    assert_eq!(letters(node).len(), 1);
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
