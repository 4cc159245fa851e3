//! Trees of real processes.

use crate::harness::mqtt::{Client, event, publish_all};
use crate::harness::{Tree, wait_for};
use serde_json::json;
use std::time::Duration;

const LEAVES: [&str; 4] = ["c/s1/m1/n1", "c/s1/m1/n2", "c/s1/m2/n1", "c/s2/m1/n1"];

#[test]
fn events_climb_once_and_in_order_to_every_ancestor() {
    let mut tree = Tree::new(&LEAVES);
    tree.start();
    let mut sent = Vec::new();
    for (i, leaf) in LEAVES.iter().enumerate() {
        sent.extend(publish_all(leaf, tree.node(leaf).mqtt, &format!("e{i}"), 200, false));
    }
    tree.wait_all_up(&sent);
    let city = tree.node("c").records();
    assert!(city.iter().filter(|r| r.event_type == "city.test").all(|r| LEAVES.contains(&r.origin.as_str())));
}

#[test]
fn an_event_stays_below_its_reach() {
    let mut tree = Tree::new(&["c/s/m/n"]);
    tree.start();
    let mut device = Client::connect(tree.node("c/s/m/n").mqtt, "device", true);
    for (id, reach) in [("far", "city"), ("near", "street"), ("home", "neighbourhood")] {
        let e = format!(r#"{{"specversion":"1.0","id":"{id}","source":"/x","type":"city.test","reach":"{reach}"}}"#);
        assert!(device.publish("in/x", e.as_bytes()));
    }
    let ids = |address: &str| -> Vec<String> {
        let all = tree.node(address).records().into_iter();
        all.filter(|r| r.event_type == "city.test").map(|r| r.id).collect()
    };
    wait_for("the city has the far event", || ids("c").contains(&"far".to_owned()).then_some(()));
    wait_for("the street has both", || (ids("c/s").len() == 2).then_some(()));
    assert_eq!(ids("c"), ["far"]);
    assert_eq!(ids("c/s/m/n"), ["far", "near", "home"]);
}

#[test]
fn a_notice_reaches_whom_its_selector_names_and_receipts_are_counted_at_every_tier() {
    let mut tree = Tree::new(&LEAVES);
    tree.start();
    tree.wait_all_known();
    let (status, answer) = tree.node("c").post(
        "/v1/send",
        &json!({"target": "c/**@neighbourhood", "type": "city.notice", "data": {"text": "停水通知"}, "directive": "notice"}),
    );
    assert_eq!(status, 202, "{answer}");
    let id = answer["id"].as_str().expect("an id").to_owned();
    for (address, expected) in [("c", 4), ("c/s1", 3), ("c/s1/m1", 2), ("c/s1/m1/n1", 1)] {
        wait_for(&format!("{address} has counted {expected} receipts"), || {
            let d = tree.node(address).get(&format!("/v1/directives/{id}"))?;
            (d["delivered"] == expected && d["expected"] == expected).then_some(())
        });
    }
    for leaf in LEAVES {
        let copies = tree.node(leaf).records().iter().filter(|r| r.id == id).count();
        assert_eq!(copies, 1, "{leaf}");
    }
    let (status, answer) =
        tree.node("c/s1").post("/v1/send", &json!({"target": "c/**", "type": "city.notice", "data": {}}));
    assert!((400..500).contains(&status), "a street cannot command the city: {status} {answer}");
}

#[test]
fn every_tier_may_be_killed_in_mid_stream() {
    for victim in ["c/s1/m1/n1", "c/s1/m1", "c/s1", "c"] {
        let mut tree = Tree::new(&["c/s1/m1/n1"]);
        tree.start();
        let port = tree.node("c/s1/m1/n1").mqtt;
        let device = std::thread::spawn(move || publish_all("c/s1/m1/n1", port, "k", 4000, false));
        wait_for("the stream runs", || (tree.node("c/s1/m1/n1").records().len() > 300).then_some(()));
        tree.kill9(victim);
        tree.start_node(victim);
        let sent = device.join().expect("the device is done");
        tree.wait_all_up(&sent);
    }
}

#[test]
fn all_nodes_may_be_killed_at_once_twice() {
    let mut tree = Tree::new(&LEAVES);
    tree.start();
    let devices: Vec<_> = LEAVES
        .iter()
        .enumerate()
        .map(|(i, leaf)| {
            let (leaf, port) = (leaf.to_string(), tree.node(leaf).mqtt);
            std::thread::spawn(move || publish_all(&leaf, port, &format!("a{i}"), 2000, i == 3))
        })
        .collect();
    for _ in 0..2 {
        wait_for("the stream runs", || (tree.node("c").records().len() > 300).then_some(()));
        let all: Vec<String> = tree.nodes.keys().cloned().collect();
        for address in &all {
            tree.kill9(address);
        }
        for address in &all {
            tree.start_node(address);
        }
    }
    let sent: Vec<_> = devices.into_iter().flat_map(|d| d.join().expect("the device is done")).collect();
    tree.wait_all_up(&sent);
}

#[test]
fn a_node_that_is_cut_off_works_on_and_catches_up_urgent_first() {
    let leaf = "c/s/m/n";
    let mut tree = Tree::new(&[leaf]);
    tree.start();
    tree.stop_node("c/s");
    let mut sent = publish_all(leaf, tree.node(leaf).mqtt, "backlog", 5000, false);
    sent.extend(publish_all(leaf, tree.node(leaf).mqtt, "urgent", 10, true));
    assert!(tree.node(leaf).get("/v1/status").is_some(), "it answers while it is cut off");
    tree.start_node("c/s");
    tree.wait_all_up(&sent);
    let city = tree.node("c").records();
    let last_urgent = city.iter().rposition(|r| r.id.starts_with("urgent")).expect("they are there");
    let routine_before = city[..last_urgent].iter().filter(|r| r.id.starts_with("backlog")).count();
    // One window of routine frames may be under way on each of the three hops before they are met.
    assert!(routine_before < 5000 / 2, "{routine_before} routine events came before the last urgent one");
}

#[test]
fn a_stopped_node_ends_within_seconds_and_a_subscriber_loses_nothing() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let port = tree.node("c").mqtt;
    let mut app = Client::connect(port, "app", false);
    app.subscribe("events/#", 1);
    let mut device = Client::connect(port, "device", true);
    assert!(device.publish("in/x", event("before", false).as_bytes()));
    let first = app.next_message(Duration::from_secs(10)).expect("the first event");
    assert_eq!(first.topic, "events/city.test");
    let body: serde_json::Value = serde_json::from_slice(&first.payload).expect("JSON");
    assert_eq!((body["origin"].as_str(), body["id"].as_str()), (Some("c"), Some("before")));
    drop(app);
    assert!(device.publish("in/x", event("while away", false).as_bytes()));
    tree.stop_node("c");
    tree.start_node("c");
    tree.wait_ready();
    let mut app = Client::connect(port, "app", false);
    let missed = app.next_message(Duration::from_secs(10)).expect("what it missed");
    let body: serde_json::Value = serde_json::from_slice(&missed.payload).expect("JSON");
    assert_eq!(body["id"], "while away");
}
