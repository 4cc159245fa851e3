//! Alarms that several conditions raise: by timers in one group, with others beside them, edited, passed on.

use super::lasting::{LEVELS, ROOM, behind, parent_of};
use super::*;
use citybrain_hub::engine;

/// Alarms of one name, and how they stand.
fn water(node: &Node) -> (bool, Severity, u32) {
    let alarm = node.alarm("water", "").unwrap();
    (alarm.active, alarm.severity, u32::try_from(alarm.raises).unwrap())
}

#[test]
fn two_levels_that_end_by_timers_at_one_moment_end_their_alarm_once() {
    let calm = LEVELS.replace("\nclear", "\ncalm = \"1m\"\nclear");
    let mut node = Node::new(&calm);
    node.hear("v", "x", &json!(70));
    node.wait(S);
    node.hear("v", "x", &json!(5));
    node.wait(61 * S);
    assert!(!water(&node).0, "{:?}", node.said());
    assert_eq!(node.events(alarms::CLEARED).len(), 1);
    node.hear("v", "x", &json!(70));
    assert_eq!(water(&node), (true, Severity::Critical, 2));
}

#[test]
fn keys_that_end_by_timers_at_one_moment_end_the_alarm_that_they_share() {
    let mut node = Node::new(&ROOM.replace("\nclear", "\ncalm = \"1m\"\nclear"));
    for on in [true, false] {
        for at in ["a", "b", "c"] {
            node.hear("s", at, &json!({"on": on, "room": "hall"}));
        }
        node.now += S;
    }
    // What came due while the node was down.
    node.now += 600 * S;
    node.restart();
    assert!(!node.alarm("smoke", "hall").unwrap().active, "{:?}", node.said());
    let told = [alarms::RAISED, alarms::CHANGED, alarms::CLEARED].map(|kind| node.events(kind).len());
    assert_eq!(told, [1, 1, 1], "it passes to the last of them, not from each to the next");
}

#[test]
fn of_two_levels_that_begin_by_timers_at_one_moment_the_worse_one_counts() {
    let (high, flood) = LEVELS.rsplit_once("[[rule]]").unwrap();
    for rules in [LEVELS.to_owned(), format!("[[rule]]{flood}{high}")] {
        let mut node = Node::new(&rules.replace("\nclear", "\nfor = \"5m\"\nclear"));
        node.hear("v", "x", &json!(70));
        node.wait(301 * S);
        assert_eq!(water(&node), (true, Severity::Critical, 1), "{:?}", node.said());
        assert_eq!(node.alarm("water", "").unwrap().title, "flood: 70");
        node.hear("v", "x", &json!(5));
        assert!(!water(&node).0);
    }
}

#[test]
fn a_level_that_ends_as_the_other_begins_leaves_the_alarm_to_it() {
    // One minute after 70 is heard, "flood" has held for a minute and "high" has been calm for one.
    let rules = r#"
[[rule]]
name = "flood"
on = ["v"]
when = "event.data > 50"
for = "1m"
clear = "event.data <= 50"
then = [{ raise = { alarm = "water", severity = "critical", title = "flood" } }]
[[rule]]
name = "high"
on = ["v"]
when = "event.data > 10 && event.data <= 50"
clear = "event.data > 50"
calm = "1m"
then = [{ raise = { alarm = "water", severity = "warning", title = "high" } }]
"#;
    let mut node = Node::new(rules);
    node.hear("v", "x", &json!(20));
    node.wait(S);
    node.hear("v", "x", &json!(70));
    node.wait(61 * S);
    assert_eq!(water(&node), (true, Severity::Critical, 1), "{:?}", node.said());
    assert!(node.events(alarms::CLEARED).is_empty());
    node.hear("v", "x", &json!(5));
    assert!(!water(&node).0);
}

#[test]
fn each_alarm_of_a_rule_counts_by_its_own_severity() {
    let rules = r#"
[[rule]]
name = "a"
on = ["a"]
when = "event.data > 0"
clear = "event.data == 0"
then = [
    { raise = { alarm = "x", severity = "critical", title = "x" } },
    { raise = { alarm = "y", severity = "minor", title = "y by a" } },
]
[[rule]]
name = "b"
on = ["b"]
when = "event.data > 0"
clear = "event.data == 0"
then = [{ raise = { alarm = "y", severity = "major", title = "y by b" } }]
"#;
    let mut node = Node::new(rules);
    let y = |node: &Node| node.alarm("y", "").map(|a| (a.active, a.severity, a.title.clone())).unwrap();
    node.hear("a", "x", &json!(1));
    node.hear("b", "x", &json!(1));
    assert_eq!(y(&node), (true, Severity::Major, "y by b".into()));
    node.write_rows();
    node.restart();
    node.hear("b", "x", &json!(0));
    assert_eq!(y(&node), (true, Severity::Minor, "y by a".into()));
    node.hear("a", "x", &json!(0));
    assert!(!y(&node).0 && !node.alarm("x", "").unwrap().active);
}

#[test]
fn an_alarm_whose_end_was_never_said_ends_with_the_next_event() {
    let mut node = Node::new(SMOKE);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    node.now += S;
    node.only_hear("city.smoke.v1", "f", &json!({"on": false}));
    for counter in 1..=3 {
        let presence = json!({"id": format!("x-{counter}")}).to_string();
        node.commit(Draft::new(&Header::local(Kind::Presence, "city.brain.node"), presence.as_bytes()).unwrap());
    }
    assert_eq!((node.rules.view().dropped, node.rules.view().waiting), (1, 0));
    assert!(node.alarm("smoke", "f").unwrap().active);
    node.now += S;
    node.hear("city.smoke.v1", "f", &json!({"on": false}));
    assert!(!node.alarm("smoke", "f").unwrap().active, "{:?}", node.said());
}

#[test]
fn an_alarm_that_passes_to_another_key_ends_with_it_though_the_rule_was_edited() {
    for edited in [
        ROOM.replace("key = \"${event.data.room}\"", "key = \"${event.subject}\""),
        ROOM.replace("raise = { key", "raise = { alarm = \"fire\", key"),
    ] {
        let mut node = Node::new(ROOM);
        let hear = |node: &mut Node, at: &str, on: bool| {
            node.wait(S);
            node.hear("s", at, &json!({"on": on, "room": "hall"}));
        };
        hear(&mut node, "a", true);
        hear(&mut node, "b", true);
        hear(&mut node, "a", false);
        let alarm = node.alarm("smoke", "hall").unwrap();
        assert_eq!((alarm.active, alarm.rule_key.as_str(), alarm.changed_at.len()), (true, "b", 0));
        node.reload(&edited);
        hear(&mut node, "b", false);
        assert!(!node.alarm("smoke", "hall").unwrap().active);
        assert_eq!(node.events(alarms::CLEARED).len(), 1);
    }
}

#[test]
fn an_alarm_stays_with_a_rule_that_raised_it_before_it_was_edited() {
    let levels = LEVELS.replace("high: ${event.data}", "high");
    let mut node = Node::new(&levels);
    node.hear("v", "x", &json!(70));
    node.wait(S);
    // The lesser one raises another alarm from its next firing on: what it has raised goes on until it is over.
    node.reload(&levels.replacen("alarm = \"water\"", "alarm = \"other\"", 1));
    node.hear("v", "x", &json!(20));
    assert_eq!(water(&node), (true, Severity::Warning, 1));
    node.wait(S);
    node.hear("v", "x", &json!(5));
    assert!(!water(&node).0 && node.alarm("other", "").is_none());
}

#[test]
fn only_the_first_and_the_last_of_a_name_have_those_look_again_that_wait_for_any() {
    let mut node = Node::new(&behind("unless_alarm = \"gw/*\""));
    node.hear("gw", "1", &json!(0));
    for key in ["a", "b", "c"] {
        node.hear("dev", key, &json!(0));
    }
    let key_rows = |node: &mut Node| {
        let rows = node.rules.take_rows();
        rows.into_iter().filter(|(key, _)| key.starts_with(b"kdev")).count()
    };
    assert_eq!(key_rows(&mut node), 3);
    node.wait(S);
    node.hear("gw", "2", &json!(0));
    assert_eq!(key_rows(&mut node), 0);
    node.hear("gw", "1", &json!(1));
    assert_eq!(key_rows(&mut node), 0);
    assert!(node.alarm("dev", "a").is_none());
    node.wait(S);
    node.hear("gw", "2", &json!(1));
    assert_eq!(key_rows(&mut node), 3);
    assert!(node.alarm("dev", "a").unwrap().active);
}

#[test]
fn a_node_that_is_back_leaves_those_below_it_out_that_were_taken_out_before() {
    let mut node = Node::new(SMOKE);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    let mut parent = parent_of(&node);
    let [city, street, below] = ["c", "c/s", "c/s/x"].map(|a| Address::parse(a).unwrap());
    let id = id_of(&below, "smoke", "g");
    let theirs =
        Alarm { id: id.clone(), origin: below.clone(), key: "g".into(), ..node.alarm("smoke", "f").unwrap().clone() };
    parent.rules.alarms.fold(theirs);
    let mut say = |by: &Address, of: &Address, is_gone: bool| {
        parent.now += S;
        let origin = (by != &city).then_some(Origin { address: "c/s", log: LogId(1), pos: Pos(1) });
        let draft = engine::subtree(by, of, is_gone, &format!("{}", parent.now));
        let (header, payload) = draft.parts();
        parent.commit(Draft::new(&Header { origin, ..header }, payload).unwrap());
        let active = |id: &str| parent.rules.alarms.get(id).unwrap().active;
        (active(&node.alarm("smoke", "f").unwrap().id), active(&id))
    };
    assert_eq!(say(&street, &below, true), (true, false));
    assert_eq!(say(&city, &street, true), (false, false));
    assert_eq!(say(&city, &street, false), (true, false), "nobody has brought that one back");
    assert_eq!(say(&street, &below, false), (true, true));
}
