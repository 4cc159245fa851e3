//! What a node does at its limits: a long backlog, a time budget that is over, an address claimed
//! twice, no place left at the door, a log that may not grow. And that a tree which is at none of them
//! has nothing to warn of.

use crate::harness::mqtt::{
    Client, connect_five_packet, connect_packet, event, packet, publish_all, publish_windowed, text,
};
use crate::harness::{Node, Record, Tree, add_user, wait_for};
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

const SOON: Duration = Duration::from_secs(20);

/// A figure of `/metrics`.
fn metric(node: &Node, name: &str) -> u64 {
    let page = node.get_text("/metrics").expect("the node answers");
    let value = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is a metric"))
}

/// The body of the answer to a CONNECT. `None`: the connection ended without one.
fn answer(port: u16, connect: &[u8]) -> (Client, Option<Vec<u8>>) {
    let mut client = Client::dial(port).expect("the port is open");
    // Who is turned away at once may hear of it while it writes.
    let sent = client.send(connect);
    let answer = sent.ok().and_then(|()| client.read(SOON)).map(|p| {
        assert_eq!(p.kind, 2, "a CONNACK");
        p.body
    });
    (client, answer)
}

/// CONNECT of a user by 3.1.1.
fn connect_as(client_id: &str, name: &str, password: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[4, 0xc2, 0, 0]);
    for part in [client_id, name, password] {
        text(&mut body, part);
    }
    packet(0x10, &body)
}

#[test]
fn where_no_place_is_left_the_door_closes_without_a_word_and_counts_it_until_somebody_leaves() {
    const PLACES: usize = 5;
    let mut tree = Tree::new(&["c"]);
    tree.edit("c", |t| t.replace("connections_max = 2000", &format!("connections_max = {PLACES}")));
    tree.start();
    let node = tree.node("c");
    let figures = || {
        ["citybrain_door_connections", "citybrain_door_connections_max", "citybrain_door_refused_total"]
            .map(|name| metric(node, name))
    };
    let mut inside: Vec<Client> =
        (0..PLACES).map(|i| Client::connect(node.mqtt, &format!("inside-{i}"), true)).collect();
    assert_eq!(figures(), [5, 5, 0]);
    for (n, connect) in [connect_packet("late", true), connect_five_packet("late", None)].iter().enumerate() {
        let (mut late, answer) = answer(node.mqtt, connect);
        assert_eq!(answer, None, "there is no word for it");
        assert!(late.is_closed(SOON));
        assert_eq!(figures(), [5, 5, n as u64 + 1]);
    }
    assert!(node.output().contains("Refused a connection: `connections_max` are open."), "the log says it");
    let door = node.get("/v1/status").expect("an answer")["door"].clone();
    assert_eq!((&door["connections"], &door["connections_max"], &door["refused"]), (&json!(5), &json!(5), &json!(2)));
    // Those who are there notice nothing.
    for (i, client) in inside.iter_mut().enumerate() {
        assert!(client.publish("in/x", event(&format!("inside-{i}"), false).as_bytes()));
    }
    drop(inside.pop());
    wait_for("its place is free", || (figures()[0] == 4).then_some(()));
    let mut next = Client::connect(node.mqtt, "next", true);
    assert!(next.publish("in/x", event("next", false).as_bytes()));
    assert_eq!(figures()[..2], [5, 5]);
}

#[test]
fn one_user_and_one_address_have_as_many_places_as_config_says_and_hear_that_there_are_no_more() {
    let access = "[access]\nanonymous = false\nusers_file = \"users\"\n";
    let mut tree = Tree::with(&["c"], &Default::default(), access);
    let users = tree.dir().join("users");
    for name in ["ann", "bob", "eve"] {
        add_user(&users, name, "pw", None);
    }
    let limits = "connections_max = 2000\nuser_connections_max = 2\naddress_connections_max = 5\n";
    tree.edit("c", |t| t.replace("connections_max = 2000\n", limits));
    tree.start();
    let node = tree.node("c");
    let refused = || metric(node, "citybrain_door_refused_total");
    let five = |id: &str, name| answer(node.mqtt, &connect_five_packet(id, Some((name, "pw"))));
    let code = |answer: Option<Vec<u8>>| answer.map(|body| body[1]);
    let mut inside = Vec::new();
    for (id, name) in [("a-1", "ann"), ("a-2", "ann"), ("b-1", "bob")] {
        let (client, answer) = five(id, name);
        assert_eq!(code(answer), Some(0), "{id}");
        inside.push((id, client));
    }
    let (mut third, said) = five("a-3", "ann");
    assert_eq!(code(said.clone()), Some(0x97), "quota exceeded");
    let said = String::from_utf8_lossy(&said.expect("it is there")).into_owned();
    assert!(said.contains("user_connections_max"), "{said:?} names the limit");
    assert!(third.is_closed(SOON));
    let (mut old, said) = answer(node.mqtt, &connect_as("a-4", "ann", "pw"));
    assert_eq!(said, Some(vec![0, 3]), "3.1.1: the server is unavailable");
    assert!(old.is_closed(SOON));
    drop((third, old));
    wait_for("both are counted", || (refused() == 2).then_some(()));
    // Who takes its own session over needs no further place.
    let (again, said) = five("a-2", "ann");
    assert_eq!(code(said), Some(0));
    inside.push(("a-2", again));
    let is_told = inside[1].1.read(SOON).expect("a DISCONNECT");
    assert_eq!((is_told.kind, is_told.body[0]), (14, 0x8e), "session taken over");
    drop(inside.remove(1));
    // The address has five: two of ann, one of bob, two more.
    for (id, name) in [("b-2", "bob"), ("e-1", "eve")] {
        let (client, said) = five(id, name);
        assert_eq!(code(said), Some(0), "{id}");
        inside.push((id, client));
    }
    let (late, said) = five("e-2", "eve");
    drop(late);
    assert_eq!(code(said.clone()), Some(0x97));
    let said = String::from_utf8_lossy(&said.expect("it is there")).into_owned();
    assert!(said.contains("address_connections_max"), "{said:?} names the limit");
    wait_for("it is counted", || (refused() == 3).then_some(()));
    // Who leaves makes room.
    inside.retain(|(id, _)| *id != "a-1");
    let (_client, said) = wait_for("there is room for one more of ann", || {
        Some(five("a-5", "ann")).filter(|(_, said)| code(said.clone()) == Some(0))
    });
    assert_eq!(said.expect("it is there")[0], 0, "a new session");
}

/// CONNECT of MQTT 5 that goes on with the session of before, and keeps it for an hour.
fn connect_lasting(client_id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[5, 0, 0, 0, 5, 0x11, 0, 0, 0x0e, 0x10]);
    text(&mut body, client_id);
    packet(0x10, &body)
}

/// The text behind this user property's name.
fn user_property(connack: &[u8], name: &str) -> Option<String> {
    let at = connack.windows(name.len()).position(|w| w == name.as_bytes())? + name.len();
    let len = u16::from_be_bytes([connack[at], connack[at + 1]]) as usize;
    String::from_utf8(connack[at + 2..at + 2 + len].to_vec()).ok()
}

/// Ids of the test's events that come until this one, in whichever version.
fn ids_until(client: &mut Client, last: &str) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.last().is_none_or(|id| id != last) {
        let message = client.next_message(SOON).unwrap_or_else(|| panic!("{last} comes behind {:?}", ids.last()));
        // Behind the properties that 5.0 has.
        let at = message.payload.iter().position(|b| *b == b'{').expect("an event");
        let event: Value = serde_json::from_slice(&message.payload[at..]).expect("an event");
        if event["type"] == "city.test" {
            ids.push(event["id"].as_str().expect("an id").to_owned());
        }
    }
    ids
}

#[test]
fn where_the_log_has_a_hard_limit_a_sleeping_session_gets_what_is_left_and_hears_what_is_not() {
    let store = "[store]\nsegment_bytes = 65536\nlog_bytes_max = 131072\nlog_bytes_hard_max = 262144\nkeep_s = 0\n\
        snapshot_records = 1000\nfree_bytes_min = 2000000\n";
    let mut tree = Tree::with_store(&["c"], store);
    tree.start();
    let node = tree.node("c");
    let mut old = Client::connect(node.mqtt, "old", false);
    old.subscribe("events/city.test", 1);
    let (mut five, said) = answer(node.mqtt, &connect_lasting("five"));
    assert_eq!(said.map(|body| (body[0], body[1])), Some((0, 0)), "a new session");
    let mut subscribe = vec![0, 1, 0];
    text(&mut subscribe, "events/city.test");
    subscribe.push(1);
    five.send(&packet(0x82, &subscribe)).expect("it is sent");
    assert_eq!(five.read(SOON).map(|p| p.body), Some(vec![0, 1, 0, 1]), "it is granted");
    // What it has acknowledged is not among what it loses.
    let first = publish_all("c", node.mqtt, "first", 10, false);
    assert_eq!(ids_until(&mut five, &first[9].id).len(), 10);
    assert_eq!(ids_until(&mut old, &first[9].id).len(), 10);
    drop((old, five));
    wait_for("both are away", || (metric(node, "citybrain_door_connections") == 0).then_some(()));
    let place = |key: &str| node.get("/v1/status").expect("an answer")["log"][key].as_u64().expect("a number");
    let before = place("last_pos");

    let mut sent = Vec::new();
    wait_for("the log's beginning is gone", || {
        let round = sent.len() / 500;
        sent.extend(publish_windowed("c", node.mqtt, &format!("away{round:04}"), 500, false, 200));
        (place("first_pos") > before + 10).then_some(())
    });
    // It may go on being trimmed until nothing is written any more.
    let newest = sent.last().expect("some were sent").id.clone();
    let (mut five, said) = answer(node.mqtt, &connect_lasting("five"));
    let said = said.expect("a CONNACK");
    assert_eq!(said[..2], [1, 0], "its session is there");
    let lost = user_property(&said, "citybrain-lost").expect("it is told");
    let (from, to) = lost.split_once('-').expect("first and last");
    let (from, to): (u64, u64) = (from.parse().expect("a position"), to.parse().expect("a position"));
    let text = format!("records {from} to {to} are gone");
    assert!(String::from_utf8_lossy(&said).contains(&text), "the reason string is for people: {text}");
    assert!(from <= before + 1 && from + 10 > before, "it begins behind what was acknowledged: {lost} {before}");
    assert_eq!(to + 1, place("first_pos"), "it ends where the log begins");
    assert_eq!(metric(node, "citybrain_door_unreadable_total"), to + 1 - from);
    assert!(node.output().contains("Records are gone that a session had not read."), "the log says it");
    let came = ids_until(&mut five, &newest);
    let all: Vec<&str> = sent.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(came, all[all.len() - came.len()..], "what is left comes, whole and in order");
    let kept = node.records().iter().filter(|r| r.event_type == "city.test" && r.pos > to).count();
    assert!(came.len() >= kept && kept > 0, "{} of {kept}", came.len());
    drop(five);
    wait_for("it is away", || (metric(node, "citybrain_door_connections") == 0).then_some(()));

    // 3.1.1 has no word for it.
    let (mut old, said) = answer(node.mqtt, &connect_packet("old", false));
    assert_eq!(said, Some(vec![1, 0]));
    assert_eq!(ids_until(&mut old, &newest), came);
    assert_eq!(metric(node, "citybrain_door_unreadable_total"), 2 * (to + 1 - from));
    // It is told once.
    let (_five, said) = answer(node.mqtt, &connect_lasting("five"));
    assert_eq!(said.as_ref().map(|body| body[..2].to_vec()), Some(vec![1, 0]));
    assert_eq!(user_property(&said.expect("a CONNACK"), "citybrain-lost"), None);
}
