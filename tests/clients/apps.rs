//! What makers of apps do: share events among several programs, ask another one and wait for its
//! answer, and hear of a device that is really gone.

use super::foreign::{Foreign, Library, Message};
use super::is_there;
use crate::harness::Tree;
use crate::harness::mqtt::{event, publish_all};
use std::process::{Command, Stdio};

fn ids(client: &mut Foreign) -> Vec<String> {
    let id = |m: &Message| {
        let event: serde_json::Value = serde_json::from_str(&m.payload).expect("an event is JSON");
        event["id"].as_str().expect("an id").to_owned()
    };
    client.heard().messages.iter().map(id).filter(|id| id.starts_with("shared")).collect()
}

#[test]
fn programs_of_two_libraries_share_the_events_of_a_wildcard_and_who_leaves_is_stood_in_for() {
    let (Some(paho), Some(mqtt_js)) = (Library::paho_python(), Library::mqtt_js()) else { return };
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let port = tree.node("c").mqtt;
    let mut one = paho.connect(port, "5", "one", true, &[]);
    let mut two = mqtt_js.connect(port, "4", "two", true, &[]);
    let mut all = paho.connect(port, "4", "all", true, &[]);
    for (client, filter) in
        [(&mut one, "$share/desk/events/#"), (&mut two, "$share/desk/events/#"), (&mut all, "events/+")]
    {
        assert_eq!(client.subscribe(1, filter), 1, "{filter}");
    }
    let first = publish_all("c", port, "shared-a", 300, false);
    let end = first.last().expect("some were sent").id.clone();
    all.wait("all has come", |heard| heard.messages.iter().any(|m| m.payload.contains(&end)));
    let mut both = Vec::new();
    for (client, name) in [(&mut one, "one"), (&mut two, "two")] {
        // Both take some: neither can take them all before it has acknowledged what it was given.
        client.wait("it has its part", |heard| heard.messages.iter().any(|m| m.payload.contains("shared-a")));
        assert!(!ids(client).is_empty(), "{name}");
    }
    let wanted: Vec<String> = first.into_iter().map(|s| s.id).collect();
    crate::harness::wait_for("the two have all of them", || {
        both = [ids(&mut one), ids(&mut two)].concat();
        (both.len() >= wanted.len()).then_some(())
    });
    for part in [ids(&mut one), ids(&mut two), ids(&mut all)] {
        assert!(part.is_sorted(), "in order: {part:?}");
    }
    both.sort();
    assert_eq!(both, wanted, "each event to one of the two");
    assert_eq!(ids(&mut all), wanted, "a subscription of its own has every one");

    two.leave();
    let more: Vec<String> = publish_all("c", port, "shared-b", 100, false).into_iter().map(|s| s.id).collect();
    let end = more.last().expect("some were sent").clone();
    one.wait("the rest has come", |heard| heard.messages.iter().any(|m| m.payload.contains(&end)));
    let came: Vec<String> = ids(&mut one).into_iter().filter(|id| id.starts_with("shared-b")).collect();
    assert_eq!(came, more, "who is left has them all");
}

#[test]
fn a_request_finds_its_answer_by_correlation_data_also_when_its_node_is_killed_before_it_is_read() {
    let there = ["-c", "import paho.mqtt; assert paho.mqtt.__version__ >= '2'"];
    if !is_there("python3", &there, "pip install paho-mqtt") {
        return;
    }
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let port = tree.node("c").mqtt.to_string();
    let script = super::foreign::script("exchanges.py");
    let run = |part: &str| {
        let mut command = Command::new("python3");
        command.arg(&script).args([&port, part]).stdout(Stdio::piped());
        let out = command.spawn().expect("python3 starts").wait_with_output().expect("it ends");
        String::from_utf8(out.stdout).expect("it prints UTF-8")
    };
    // The session of who answers is there, he is not; nor is the node for a while.
    assert_eq!(run("subscribe"), "subscribed\n");
    assert_eq!(run("ask"), "asked 20\n");
    tree.kill9("c");
    tree.start_node("c");
    tree.wait_ready();
    assert_eq!(run("answer"), "answered 20\n");
    assert_eq!(run("read"), "20 answers, each to its question\n");
}

#[test]
fn a_will_with_a_delay_comes_for_a_device_that_stays_away_and_not_for_one_that_is_back_in_time() {
    let Some(paho) = Library::paho_python() else { return };
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let port = tree.node("c").mqtt;
    let mut watch = paho.connect(port, "5", "watch", false, &[]);
    assert_eq!(watch.subscribe(1, "state/+"), 1);
    let mut back = paho.connect(port, "5", "back", true, &["state/back", "back is gone", "2"]);
    let away = paho.connect(port, "5", "away", true, &["state/away", "away is gone", "2"]);
    back.drop_line();
    away.kill();
    back.wait("it is back", |heard| heard.connected.len() == 2);
    assert_eq!(back.heard().connected, ["0", "1"], "its session is there");
    // This one was left later: by now the other's would have come.
    watch.wait("the will has come", |heard| heard.has("away is gone"));
    assert_eq!(watch.heard().messages.len(), 1, "{:?}", watch.heard());
    back.publish(1, false, "in/x", &event("back", false));
    // It had one all the time.
    back.kill();
    watch.wait("its will has come, too", |heard| heard.has("back is gone"));
    let records = tree.node("c").records();
    assert_eq!(records.iter().filter(|r| r.id == "back").count(), 1);
}
