//! What every client library must be able to do here: each QoS both ways, retained messages, wills,
//! and durable sessions over kill -9 of the node.

use super::foreign::{Foreign, Library, Message};
use crate::harness::mqtt::event;
use crate::harness::{Node, Tree, written_bytes};
use std::collections::HashSet;

/// Messages of a stream, under way at once, and kills of the node while it runs.
const MESSAGES: usize = 450;
const WINDOW: usize = 40;
const KILLS: usize = 3;

#[test]
fn paho_s_python_client_finds_every_flow_and_loses_nothing_over_kills() {
    every_flow(Library::paho_python());
}

#[test]
fn mqtt_js_finds_every_flow_and_loses_nothing_over_kills() {
    every_flow(Library::mqtt_js());
}

#[test]
fn paho_s_cpp_client_finds_every_flow_and_loses_nothing_over_kills() {
    let dir = tempfile::tempdir().expect("a folder");
    every_flow(Library::paho_cpp(dir.path()));
}

#[test]
fn paho_s_go_client_finds_every_flow_and_loses_nothing_over_kills() {
    let dir = tempfile::tempdir().expect("a folder");
    every_flow(Library::paho_go(dir.path()));
}

fn every_flow(library: Option<Library>) {
    let Some(library) = library else { return };
    std::thread::scope(|scope| {
        for version in library.versions {
            let library = &library;
            scope.spawn(move || {
                let mut tree = Tree::new(&["c"]);
                tree.start();
                let port = tree.node("c").mqtt;
                each_qos_both_ways(library, port, version);
                retained_messages_and_a_will(library, port, version);
                a_stream_over_kills(library, &mut tree, version);
            });
        }
    });
}

fn each_qos_both_ways(library: &Library, port: u16, version: &str) {
    let mut subscriber = library.connect(port, version, "subscriber", false, &[]);
    let mut publisher = library.connect(port, version, "publisher", false, &[]);
    for granted in 0..3 {
        assert_eq!(subscriber.subscribe(granted, &format!("chat/{granted}/+")), granted, "MQTT {version}");
    }
    assert_eq!(subscriber.subscribe(2, "events/city.test"), 2);
    let mut wanted = Vec::new();
    for given in 0..3 {
        for granted in 0..3 {
            let (topic, payload) = (format!("chat/{granted}/{given}"), format!("hello  {given}, 你好"));
            publisher.publish(given, false, &topic, &payload);
            wanted.push(Message { qos: given.min(granted), retain: false, dup: false, topic, payload });
        }
        publisher.publish(given, false, "in/x", &event(&format!("given-{given}"), false));
    }
    subscriber.wait("all has come", |heard| heard.messages.len() == wanted.len() + 3);
    let (events, plain): (Vec<_>, Vec<_>) =
        subscriber.heard().messages.clone().into_iter().partition(|m| m.topic == "events/city.test");
    // Of QoS 0 nothing promises an order.
    let sorted = |mut all: Vec<Message>| {
        all.sort_by(|a, b| a.topic.cmp(&b.topic));
        all
    };
    assert_eq!(sorted(plain), sorted(wanted), "MQTT {version}");
    // An event is in the log whatever it came with, and goes on with QoS 1 at least.
    let events: Vec<_> = events.into_iter().map(|m| (id_of(&m), m.qos)).collect();
    assert_eq!(events, [("given-0".into(), 1), ("given-1".into(), 1), ("given-2".into(), 2)], "MQTT {version}");
    subscriber.leave();
    publisher.leave();
}

fn retained_messages_and_a_will(library: &Library, port: u16, version: &str) {
    let mut publisher = library.connect(port, version, "publisher", false, &[]);
    let newcomer = |id: &str, last: &str| {
        let mut newcomer = library.connect(port, version, id, false, &[]);
        assert_eq!(newcomer.subscribe(2, "state/#"), 2);
        newcomer.wait("the retained one is there", |heard| heard.has(last));
        newcomer
    };
    let short = |client: &mut Foreign| -> Vec<(u8, bool, String)> {
        client.heard().messages.iter().map(|m| (m.qos, m.retain, format!("{} {}", m.topic, m.payload))).collect()
    };
    for qos in 0..3 {
        publisher.publish(qos, true, &format!("state/{qos}"), &format!("on {qos}"));
    }
    // QoS 0 is acknowledged by nobody: another flow of the same line stands behind it.
    let mut first = newcomer("first", "on 2");
    first.wait("all are there", |heard| heard.messages.len() == 3);
    let mut all = short(&mut first);
    all.sort();
    let wanted = [(0, true, "state/0 on 0"), (1, true, "state/1 on 1"), (2, true, "state/2 on 2")];
    assert_eq!(all, wanted.map(|(qos, retain, text)| (qos, retain, text.to_owned())), "MQTT {version}");
    // An empty one takes it away for those who come later; who is there sees it as a message like others.
    for qos in 0..3 {
        publisher.publish(1, true, &format!("state/{qos}"), "");
    }
    publisher.publish(2, false, "state/now", "live");
    first.wait("the live one has come", |heard| heard.has("live"));
    assert_eq!(short(&mut first)[6..], [(2, false, "state/now live".to_owned())], "MQTT {version}");
    first.leave();

    let doomed = library.connect(port, version, "doomed", false, &["state/doomed", "gone"]);
    publisher.publish(1, true, "state/lamp", "on");
    let mut second = newcomer("second", "on");
    doomed.kill();
    second.wait("the will has come", |heard| heard.has("gone"));
    let wanted = [(1, true, "state/lamp on".to_owned()), (1, false, "state/doomed gone".to_owned())];
    assert_eq!(short(&mut second), wanted, "MQTT {version}");
    // Who leaves in good order has none.
    let polite = library.connect(port, version, "polite", false, &["state/polite", "gone"]);
    polite.leave();
    publisher.publish(1, false, "state/end", "end");
    second.wait("the end has come", |heard| heard.has("end"));
    assert_eq!(second.heard().messages.len(), 3, "MQTT {version}: {:?}", second.heard());
    let mut third = newcomer("third", "gone");
    third.wait("both are there", |heard| heard.messages.len() == 2);
    assert!(third.heard().messages.iter().all(|m| m.retain && m.qos == 1), "a will is retained as it asks");
    for topic in ["state/lamp", "state/doomed"] {
        publisher.publish(1, true, topic, "");
    }
    for client in [publisher, second, third] {
        client.leave();
    }
}

/// One of three kinds: an event of QoS 2, a message of QoS 2, a message of QoS 1.
fn publish_one(publisher: &mut Foreign, i: usize) {
    match i % 3 {
        0 => publisher.publish_later(2, false, "in/x", &event(&format!("event-{i:06}"), false)),
        1 => publisher.publish_later(2, false, "chat/two", &format!("two-{i:06}")),
        _ => publisher.publish_later(1, false, "chat/one", &format!("one-{i:06}")),
    }
}

fn a_stream_over_kills(library: &Library, tree: &mut Tree, version: &str) {
    let port = tree.node("c").mqtt;
    let mut app = library.connect(port, version, "app", true, &[]);
    for filter in ["events/city.test", "chat/+"] {
        assert_eq!(app.subscribe(2, filter), 2);
    }
    let mut publisher = library.connect(port, version, "device", true, &[]);
    let (mut sent, mut killed) = (0, 0);
    while publisher.heard().published < MESSAGES {
        let published = publisher.heard().published;
        if killed < KILLS && published > MESSAGES * (killed + 1) / (KILLS + 1) {
            if !library.is_whole {
                publisher.wait("nothing of it is under way", |heard| heard.published == sent);
            }
            tree.kill9("c");
            tree.start_node("c");
            killed += 1;
            if !library.is_whole {
                let before = publisher.heard().connected.len();
                publisher.wait("it is connected again", |heard| heard.connected.len() > before);
            }
        }
        while sent < MESSAGES && sent < published + WINDOW {
            publish_one(&mut publisher, sent);
            sent += 1;
        }
        let now = publisher.heard().published.max(published);
        publisher.wait("more of it is acknowledged", |heard| heard.published > now || heard.published == MESSAGES);
    }
    assert_eq!(killed, KILLS);
    publisher.publish(2, false, "chat/two", "two-end");
    app.wait("the end has come", |heard| heard.has("two-end"));
    // The end has a QoS of its own, and those of QoS 1 are handed on earlier; so nothing is behind it.
    each_came_once(&mut app, tree.node("c"), library, MESSAGES, version);

    // Both are away at the same time.
    app.leave();
    for i in MESSAGES..MESSAGES + 60 {
        publish_one(&mut publisher, i);
    }
    publisher.wait("all is acknowledged", |heard| heard.published == MESSAGES + 61);
    tree.kill9("c");
    tree.start_node("c");
    tree.wait_ready();
    let mut app = library.connect(port, version, "app", true, &[]);
    assert!(["1", "-"].contains(&app.heard().connected[0].as_str()), "MQTT {version}: its session is there");
    let mut publisher = library.connect(port, version, "another", false, &[]);
    publisher.publish(2, false, "chat/two", "two-last");
    app.wait("the end has come", |heard| heard.has("two-last"));
    let mut came: Vec<String> = app.heard().messages.iter().map(id_of).collect();
    if !library.is_whole {
        // It may have left before it had answered this one.
        came.retain(|id| id != "two-end");
    }
    let order: Vec<&String> = came.iter().filter(|id| !id.starts_with("one")).collect();
    assert_eq!(came.len(), 61, "MQTT {version}: each once, also of QoS 1: {came:?}");
    assert!(order.is_sorted_by_key(|id| &id[id.len() - 6..]), "MQTT {version}: {order:?}");
}

/// What a message is called: an event by its id, another by its payload.
fn id_of(message: &Message) -> String {
    let event: Option<serde_json::Value> = serde_json::from_str(&message.payload).ok();
    event.map_or_else(|| message.payload.clone(), |event| event["id"].as_str().expect("an id").to_owned())
}

/// The messages whose payload begins so and goes on with six digits, as the log has them.
fn logged(node: &Node, begin: &str) -> Vec<String> {
    let folder = std::fs::read_dir(node.data.join("log")).expect("the log's folder is read");
    let mut segments: Vec<_> = folder.map(|e| e.expect("an entry").path()).collect();
    segments.retain(|path| path.extension().is_some_and(|e| e == "log"));
    segments.sort();
    let mut all = Vec::new();
    for segment in segments {
        let mut bytes = std::fs::read(&segment).expect("a segment is read");
        bytes.truncate(written_bytes(&segment));
        let whole = |w: &&[u8]| w.starts_with(begin.as_bytes()) && w[begin.len()..].iter().all(u8::is_ascii_digit);
        all.extend(bytes.windows(begin.len() + 6).filter(whole).map(|w| String::from_utf8_lossy(w).into_owned()));
    }
    all
}

/// Of the first `n` messages of the stream: none is missing, at the subscriber and in the log; those of
/// QoS 2 are there once; and they come as the log has them.
fn each_came_once(app: &mut Foreign, node: &Node, library: &Library, n: usize, version: &str) {
    let records = node.records();
    let events: Vec<String> = records.iter().filter(|r| r.id.starts_with("event-")).map(|r| r.id.clone()).collect();
    for (begin, rest, log) in
        [("event-", 0, events), ("two-", 1, logged(node, "two-")), ("one-", 2, logged(node, "one-"))]
    {
        let wanted = |i: &usize| i % 3 == rest;
        let wanted: Vec<String> = (0..n).filter(wanted).map(|i| format!("{begin}{i:06}")).collect();
        let all = app.heard().messages.iter();
        let mine = all.filter(|m| id_of(m).starts_with(begin) && id_of(m) != "two-end");
        let mut came: Vec<String> = Vec::new();
        let mut again: Vec<&Message> = Vec::new();
        for m in mine {
            assert_eq!(m.qos, if begin == "one-" { 1 } else { 2 }, "MQTT {version}: {m:?}");
            let id = id_of(m);
            if came.contains(&id) { again.push(m) } else { came.push(id) }
        }
        let first = |all: &[String]| {
            let mut seen = HashSet::new();
            all.iter().filter(|id| seen.insert((*id).clone())).cloned().collect::<Vec<_>>()
        };
        assert_eq!(came, first(&log), "MQTT {version}: they come as the log has them");
        let mut sorted = came.clone();
        sorted.sort();
        assert_eq!(sorted, wanted, "MQTT {version}: none is missing");
        if begin != "one-" {
            assert_eq!(log, came, "MQTT {version}: in the log once each");
            // Who cannot tell a message that comes once more is at least told that it may be one.
            let again: Vec<_> = again.iter().filter(|m| library.is_whole || !m.dup).collect();
            assert!(again.is_empty(), "MQTT {version}: once each: {again:?}");
        }
    }
}
