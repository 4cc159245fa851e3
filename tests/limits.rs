//! What a node does at its limits: a long backlog, a time budget that is over, an address claimed
//! twice. And that a tree which is at none of them has nothing to warn of.

use crate::harness::mqtt::{Client, event, publish_all, publish_windowed};
use crate::harness::{Node, Record, Tree, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LEAF: &str = "c/s/m/n";

fn counter(node: &Node, name: &str) -> Option<u64> {
    node.get("/v1/status")?["counters"][name].as_u64()
}

fn is_receipt(r: &Record) -> bool {
    r.kind == "receipt"
}

/// How many of the routine events lie behind the last urgent one in the node's log.
fn overtaken(node: &Node, urgent: &str, routine: &str) -> usize {
    let records = node.records();
    let last =
        records.iter().rposition(|r| r.id.starts_with(urgent) && !is_receipt(r)).expect("the urgent ones are there");
    records[last..].iter().filter(|r| r.id.starts_with(routine) && !is_receipt(r)).count()
}

#[test]
fn urgent_events_overtake_a_backlog_of_a_hundred_thousand_on_every_hop() {
    const ROUTINE: usize = 100_000;
    let mut tree = Tree::new(&[LEAF]);
    tree.start();
    // The backlog lies at the community: the neighbourhood has handed it on.
    tree.stop_node("c/s");
    let door = tree.node(LEAF).mqtt;
    let routine = publish_windowed(LEAF, door, "routine", ROUTINE, false, 4000);
    publish_all(LEAF, door, "early", 10, true);
    let urgent_so_far = |node: &Node| counter(node, "urgent").unwrap_or(0);
    wait_for("the community has all", || {
        (counter(tree.node("c/s/m"), "received_up")? > ROUTINE as u64 + 10).then_some(())
    });
    let before = urgent_so_far(tree.node("c"));
    tree.start_node("c/s");
    wait_for("the early ones are at the city", || (urgent_so_far(tree.node("c")) >= before + 10).then_some(()));
    // The flood is now on its way over two hops, and this one has to pass it on both.
    publish_all(LEAF, door, "late", 1, true);
    wait_for("the city has all", || (counter(tree.node("c"), "received_up")? > ROUTINE as u64 + 11).then_some(()));
    for (address, urgent, at_least) in
        [("c/s", "early", ROUTINE / 2), ("c", "early", ROUTINE / 2), ("c/s", "late", 1), ("c", "late", 1)]
    {
        let n = overtaken(tree.node(address), urgent, "routine");
        assert!(n >= at_least, "at {address} the {urgent} ones overtook only {n} of {ROUTINE}");
    }
    tree.wait_all_up(&routine);
}

#[test]
fn an_urgent_command_overtakes_a_backlog_of_notices_on_its_way_down() {
    const NOTICES: usize = 5_000;
    let mut tree = Tree::new(&[LEAF]);
    tree.start();
    tree.wait_all_known();
    tree.stop_node("c/s");
    let mut desk = Client::connect(tree.node("c").mqtt, "desk", true);
    let notices: Vec<String> = (0..NOTICES)
        .map(|i| {
            format!(
                r#"{{"specversion":"1.0","id":"notice-{i:05}","source":"/desk","type":"city.notice","target":"{LEAF}","directive":"notice"}}"#
            )
        })
        .collect();
    for notice in &notices {
        desk.publish_later("in/desk", notice.as_bytes());
    }
    desk.wait_acknowledged();
    let (status, sent) = tree.node("c").post(
        "/v1/send",
        &json!({"target": LEAF, "type": "city.valve.close", "directive": "command", "priority": "urgent"}),
    );
    assert_eq!(status, 202, "{sent}");
    let command = sent["id"].as_str().expect("an id").to_owned();
    tree.start_node("c/s");
    wait_for("the neighbourhood has all", || {
        (counter(tree.node(LEAF), "received_down")? > NOTICES as u64).then_some(())
    });
    for address in ["c/s", "c/s/m", LEAF] {
        let n = overtaken(tree.node(address), &command, "notice");
        assert!(n > NOTICES / 2, "at {address} the command overtook only {n} of {NOTICES}");
        let notices = tree.node(address).records().into_iter().filter(|r| r.id.starts_with("notice") && !is_receipt(r));
        let ids: Vec<String> = notices.map(|r| r.id).collect();
        assert_eq!(ids.len(), NOTICES, "{address}");
        assert!(ids.is_sorted(), "{address} has them in order");
    }
}

#[test]
fn a_command_whose_time_is_over_is_answered_expired_and_never_executed() {
    let community = "c/s/m";
    // Cut above the street, the time runs out at the city; cut below it, at the street.
    for cut in ["c/s", community] {
        let mut tree = Tree::new(&[community]);
        tree.start();
        tree.wait_all_known();
        let mut valve = Client::connect(tree.node(community).mqtt, "valve", false);
        valve.subscribe("cmd/#", 1);
        tree.stop_node(cut);
        let send = |body: Value| {
            let (status, sent) = tree.node("c").post("/v1/send", &body);
            assert_eq!(status, 202, "{sent}");
            sent["id"].as_str().expect("an id").to_owned()
        };
        let asked = Instant::now();
        let late =
            send(json!({"target": community, "type": "city.valve.close", "directive": "command", "ttl_ms": 200}));
        let timely = send(json!({"target": community, "type": "city.valve.open", "directive": "command"}));
        wait_for("the time is over", || (asked.elapsed() > Duration::from_millis(250)).then_some(()));
        tree.start_node(cut);
        tree.wait_ready();
        let counts = |id: &str| {
            let d = tree.node("c").get(&format!("/v1/directives/{id}"))?;
            Some((d["delivered"].as_u64()?, d["expired"].as_u64()?, d["silent"].as_u64()?))
        };
        wait_for("the timely one is answered", || (counts(&timely)? == (1, 0, 0)).then_some(()));
        wait_for("the late one is answered `expired`", || (counts(&late)? == (0, 1, 0)).then_some(()));
        assert_eq!(counter(tree.node(community), "expired"), Some(1), "cut at {cut}");
        if cut == community {
            valve = Client::connect(tree.node(community).mqtt, "valve", false);
        }
        // What the node itself is told after a start comes on `cmd/…`, too.
        let first = std::iter::from_fn(|| valve.next_message(Duration::from_secs(20)))
            .find(|m| !m.topic.starts_with("cmd/city.brain."))
            .expect("the timely command");
        assert_eq!(first.topic, "cmd/city.valve.open", "cut at {cut}: the late one is not executed");
    }
}

fn up_link(node: &Node) -> Option<(String, String)> {
    let links = node.get("/v1/links")?;
    let up = links["links"].as_array()?.iter().find(|l| l["role"] == "up")?.clone();
    Some((up["state"].as_str()?.to_owned(), up["why"].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn of_two_nodes_with_one_address_the_one_that_is_there_keeps_it_until_it_leaves() {
    let mut tree = Tree::new(&["c/s"]);
    tree.start();
    let twin = tree.lay_twin("c/s", None);
    tree.start_node(&twin);
    let why = wait_for("the second is refused", || {
        up_link(tree.node(&twin)).filter(|(state, _)| state == "refused").map(|(_, why)| why)
    });
    assert!(why.starts_with("duplicate") && why.contains("another data folder"), "{why}");
    let mut sent = publish_all("c/s", tree.node("c/s").mqtt, "first", 100, false);
    let waiting = publish_all(&twin, tree.node(&twin).mqtt, "second", 100, false);
    tree.wait_all_up(&sent);
    assert_eq!(up_link(tree.node("c/s")).map(|(state, _)| state).as_deref(), Some("up"));
    let at_city = |prefix: &str| tree.node("c").records().iter().filter(|r| r.id.starts_with(prefix)).count();
    assert_eq!(at_city("second"), 0, "nothing of a refused node comes in");
    // It leaves, and the other is let in; what it had taken meanwhile is not lost.
    tree.stop_node("c/s");
    wait_for("the second is let in", || up_link(tree.node(&twin)).filter(|(state, _)| state == "up"));
    sent.extend(waiting);
    wait_for("all is at the city", || {
        let all = tree.node("c").records();
        (all.iter().filter(|r| r.id.starts_with("first") || r.id.starts_with("second")).count() == sent.len())
            .then_some(())
    });
}

#[test]
fn a_copied_data_folder_is_told_from_the_one_that_it_was_copied_from() {
    let mut tree = Tree::new(&["c/s"]);
    tree.start();
    let sent = publish_all("c/s", tree.node("c/s").mqtt, "before", 50, false);
    tree.wait_all_up(&sent);
    tree.stop_node("c/s");
    let data = tree.node("c/s").data.clone();
    let twin = tree.lay_twin("c/s", Some(&data));
    tree.start_node("c/s");
    tree.wait_ready();
    tree.wait_linked();
    tree.start_node(&twin);
    let why = wait_for("the copy is refused", || {
        up_link(tree.node(&twin)).filter(|(state, _)| state == "refused").map(|(_, why)| why)
    });
    assert!(why.starts_with("duplicate") && why.contains("a copy of this data folder"), "{why}");
    let more = publish_all("c/s", tree.node("c/s").mqtt, "after", 50, false);
    tree.wait_all_up(&[sent, more].concat());
}

#[test]
fn a_healthy_tree_has_nothing_to_warn_of() {
    let leaves = ["c/s/m/n1", "c/s/m/n2"];
    let mut tree = Tree::new(&leaves);
    tree.start();
    tree.wait_all_known();
    let mut sent = Vec::new();
    for (i, leaf) in leaves.iter().enumerate() {
        sent.extend(publish_all(leaf, tree.node(leaf).mqtt, &format!("e{i}"), 500, i == 1));
    }
    let (_, notice) = tree.node("c").post("/v1/send", &json!({"target": "c/**", "type": "city.notice"}));
    let id = notice["id"].as_str().expect("an id").to_owned();
    wait_for("all have answered", || {
        (tree.node("c").get(&format!("/v1/directives/{id}"))?["delivered"] == tree.nodes.len()).then_some(())
    });
    // A planned restart is part of a healthy life.
    for address in ["c/s/m/n1", "c/s", "c"] {
        tree.stop_node(address);
        tree.start_node(address);
        tree.wait_ready();
    }
    tree.wait_linked();
    let mut device = Client::connect(tree.node("c/s/m/n1").mqtt, "device", true);
    assert!(device.publish("in/x", event("last", false).as_bytes()));
    sent.push(crate::harness::Sent { at: "c/s/m/n1".into(), id: "last".into(), urgent: false });
    tree.wait_all_up(&sent);
    let all: Vec<String> = tree.nodes.keys().cloned().collect();
    for address in all.iter().rev() {
        tree.stop_node(address);
    }
    for node in tree.nodes.values() {
        let output = node.output();
        let loud: Vec<&str> = output.lines().filter(|l| l.contains(" WARN ") || l.contains(" ERROR ")).collect();
        assert!(output.contains(" INFO "), "{} speaks in the format that is looked at", node.address);
        assert_eq!(loud, [""; 0], "{}", node.address);
    }
}
