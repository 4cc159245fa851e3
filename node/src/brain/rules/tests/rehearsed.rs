//! Rules over what a node has recorded, as `rule test` runs them: they say what they said then.

use super::super::rehearse::rehearse;
use super::*;
use citybrain_shared::view::{RulesTested, rfc3339, time_of};

/// Lines of `citybrain events --json`.
fn recorded(node: &Node) -> Vec<String> {
    let line = |bytes: &Vec<u8>| {
        let (header, payload) = Header::decode(bytes).unwrap();
        let event: Json = serde_json::from_slice(payload).unwrap();
        let origin = header.origin.map_or("c/s", |o| o.address);
        json!({"committed_at": rfc3339(time_of(header.committed_us)), "origin": origin, "event": event}).to_string()
    };
    node.log.iter().map(line).collect()
}

pub(super) fn rehearsed(node: &Node) -> RulesTested {
    rehearse(&node.config, (1..).zip(recorded(node).into_iter().map(Ok)))
}

/// A record of a node below.
fn hear_from(node: &mut Node, address: &'static str, kind: &str, data: &Json) {
    let id = format!("b{}", node.log.len());
    let event = json!({"specversion": "1.0", "id": id, "source": format!("/{address}"), "type": kind, "data": data});
    let origin = Some(Origin { address, log: LogId(1), pos: Pos(1) });
    let header = Header { direction: Direction::Up, origin, ..Header::local(Kind::Event, kind) };
    node.commit(Draft::new(&header, event.to_string().as_bytes()).unwrap());
    node.settle();
}

const CHAIN: &str = r#"
[[rule]]
name = "door"
on = ["door"]
by = "event.subject"
when = "event.data > 3"
clear = "event.data < 2"
then = [{ raise = { title = "open" } }, { emit = { type = "opened", reach = "street" } }, { case = { category = "door", title = "x" } }]
[[rule]]
name = "often"
on = ["opened", "city.brain.alarm.raised", "city.appeal"]
window = { within = "1h" }
when = "window.count > 2"
then = [{ emit = { type = "often", reach = "street", data = "${window.count}" } }]
"#;

#[test]
fn recorded_events_make_rules_say_what_they_said_when_they_were_recorded() {
    let mut node = Node::new(CHAIN);
    for level in [4, 5, 1, 4] {
        node.hear("door", "d", &json!(level));
        node.wait(60 * S);
    }
    let id = node.alarm("door", "d").unwrap().id.clone();
    let (_, drafts) = node.rules.ask(&id, Wish::Clear, "Li", node.now).unwrap();
    drafts.into_iter().for_each(|d| node.commit(d));
    node.settle();
    // What Li has ended is raised again.
    node.wait(60 * S);
    node.hear("door", "d", &json!(4));
    // An alarm from below counts; it is no word of this node's rules.
    let alarm = json!({"id": "x", "name": "y"});
    hear_from(&mut node, "c/s/m", alarms::RAISED, &alarm);
    let live = node.rules.view().rules;
    let tested = rehearsed(&node);
    let counts = |rules: &[citybrain_shared::view::RuleState]| {
        rules.iter().map(|r| (r.name.clone(), r.matched, r.fired, r.errors)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&tested.rules), counts(&live));
    assert_eq!(live[0].fired, 3);
    let said: Vec<_> = tested.fired.iter().map(|f| (f.rule.clone(), f.key.clone(), f.what.clone())).collect();
    assert_eq!(said, node.said());
    // Five of the door and its end by Li; the alarm from below.
    assert_eq!((tested.events, tested.left_out), (7, node.log.len() as u64 - 7));
}

#[test]
fn a_test_says_what_still_waits_when_its_events_are_over() {
    let rules = format!(
        "{WATER}{OFFLINE}[[rule]]\nname = \"by\"\non = [\"city.water\"]\nwhen = \"event.data > 3.0\"\n\
         while_alarm = \"water/*\"\nthen = [{{ raise = {{ title = \"x\" }} }}]\n"
    );
    let mut node = Node::new(&rules);
    node.hear("city.lamp", "l", &json!({}));
    node.hear("city.water", "g", &json!(3.5));
    let tested = rehearsed(&node);
    let waits: Vec<_> = tested.waiting.iter().map(|w| (w.rule.as_str(), w.key.as_str(), w.what.as_str())).collect();
    assert_eq!(waits, [("water", "g", "held"), ("offline", "l", "absent"), ("by", "", "alarm")]);
    let until = |i: usize| tested.waiting[i].until.map(|at| at.timestamp_micros() - node.now);
    assert_eq!([until(0), until(1), until(2)], [Some(300 * S), Some(600 * S), None]);
    assert_eq!(tested.waiting_more, 0);
    // Nor is what must be calm for a while over.
    node.wait(301 * S);
    node.hear("city.water", "g", &json!(2.4));
    assert!(rehearsed(&node).waiting.iter().any(|w| (w.rule.as_str(), w.what.as_str()) == ("water", "over")));
}

#[test]
fn a_test_tells_how_bad_an_alarm_is_and_what_could_not_be_filled_in() {
    let rule = WATER.replace("for = \"5m\"\n", "").replace("${event.data} m", "${event.data} at ${event.data.place}");
    let mut node = Node::new(&rule);
    node.hear("city.water", "g", &json!(3.5));
    node.hear("city.water", "g", &json!(4.5));
    let fired = rehearsed(&node).fired;
    let told: Vec<_> = fired.iter().map(|f| (f.what.as_str(), f.severity, f.error.is_some())).collect();
    assert_eq!(told, [("fired", Some(Severity::Major), true), ("changed", Some(Severity::Critical), true)]);
}

#[test]
fn a_rehearsal_ends_where_the_record_does_though_that_is_what_the_rules_said_themselves() {
    let mut node = Node::new(
        "[[rule]]\nname = \"abs\"\non = [\"v\"]\nabsent = \"3s\"\nthen = [{ raise = { title = \"silent\" } }]\n",
    );
    node.hear("v", "x", &json!(1));
    node.wait(3 * S);
    assert_eq!(node.fired("abs"), 1);
    let tested = rehearsed(&node);
    assert_eq!(tested.fired.len(), 1);
    assert!(tested.waiting.is_empty(), "{:?}", tested.waiting);
}
