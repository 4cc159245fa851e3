//! Rules and calls for help: the incidents that they open, and what they show of whoever calls.

use super::*;
use crate::brain::cases::{Cases, Held};

/// A node with rules and cases: each group is decided before any of it is folded in, as the engine does.
struct Both {
    node: Node,
    cases: Cases,
    groups: usize,
}

impl Both {
    fn new(rules: &str) -> Both {
        let node = Node::new(rules);
        Both { cases: Cases::new(&node.config), node, groups: 0 }
    }

    fn settle(&mut self) {
        while self.node.rules.next_due_us().is_some_and(|due| due <= self.node.now) {
            let mut group = self.node.rules.on_due(&self.node.state, self.node.now);
            assert!(!group.is_empty(), "something is due and nothing comes of it");
            let decide = |d: &Draft| {
                let (header, payload) = d.parts();
                self.cases.decide(&self.node.state, self.node.now, &header, payload)
            };
            let more: Vec<Draft> = group.iter().flat_map(decide).collect();
            group.extend(more);
            for draft in group {
                let (header, payload) = draft.parts();
                self.cases.apply(Pos(self.node.log.len() as u64 + 1), &header, payload);
                self.node.commit(draft);
            }
            self.groups += 1;
            self.node.now += 1;
            assert!(self.groups < 100, "it never comes to rest");
        }
    }

    fn incidents(&self) -> Vec<&Held> {
        self.cases.iter().collect()
    }
}

const FALL: &str = r#"
[[rule]]
name = "fall"
on = ["city.fall"]
by = "event.subject"
[[rule.then]]
case = { kind = "sos", category = "sos", title = "${event.subject} has fallen" }
"#;

#[test]
fn falls_of_one_person_in_one_frame_are_one_incident() {
    let mut both = Both::new(FALL);
    for person in ["flat-3", "flat-3", "flat-5", "flat-3"] {
        both.node.only_hear("city.fall", person, &json!({}));
    }
    both.settle();
    let buttons: Vec<&str> = both.incidents().iter().map(|h| h.case.title.as_str()).collect();
    assert_eq!(buttons.len(), 2, "{buttons:?}");
    let lines: usize = both.incidents().iter().map(|h| h.history.len()).sum();
    assert_eq!(lines, 4, "a repetition is a line of its incident");
    assert_eq!(both.node.fired("fall"), 4);
}

#[test]
fn two_rules_that_call_for_the_same_open_one_incident_and_both_are_spoken_once() {
    let mut both = Both::new(&format!("{FALL}{}", FALL.replace("name = \"fall\"", "name = \"fall-too\"")));
    both.node.only_hear("city.fall", "flat-3", &json!({}));
    // Killed between the two: the second is still to be spoken, and the first is not spoken again.
    let group = both.node.rules.on_due(&both.node.state, both.node.now);
    let calls = group.iter().filter(|d| d.header().name == "city.sos").count();
    assert_eq!(calls, 1, "one call for help in a group");
    for draft in group {
        let (header, payload) = draft.parts();
        let more = both.cases.decide(&both.node.state, both.node.now, &header, payload);
        both.node.commit(draft);
        for draft in more {
            let (header, payload) = draft.parts();
            both.cases.apply(Pos(both.node.log.len() as u64 + 1), &header, payload);
            both.node.commit(draft);
        }
    }
    both.node.now += 1;
    both.node.restart();
    both.settle();
    both.node.restart();
    assert_eq!((both.node.fired("fall"), both.node.fired("fall-too")), (1, 1));
    assert_eq!(both.node.events("city.sos").len(), 2);
}

#[test]
fn timers_that_call_for_the_same_open_one_incident() {
    let silent = |name: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\non = [\"city.pulse\"]\nby = \"event.subject\"\nabsent = \"1m\"\nthen = [{{ case = {{ kind = \"sos\", category = \"sos\", title = \"silent\" }} }}]\n"
        )
    };
    let mut both = Both::new(&format!("{}{}", silent("a"), silent("b")));
    both.node.hear("city.pulse", "flat-3", &json!({}));
    both.node.now += 61 * S;
    both.settle();
    assert_eq!((both.node.fired("a"), both.node.fired("b")), (1, 1));
    assert_eq!(both.incidents().len(), 1);
}

#[test]
fn what_timers_wrote_is_told_apart_by_its_id() {
    let rule = "[[rule]]\nname = \"silent\"\non = [\"city.pulse\"]\nby = \"event.subject\"\nabsent = \"1m\"\nthen = [{ raise = { title = \"silent\" } }]\n";
    let mut node = Node::new(rule);
    for person in ["a", "b", "c"] {
        node.hear("city.pulse", person, &json!({}));
        node.wait(S);
    }
    node.wait(120 * S);
    let mut ids: Vec<String> = node.events(FIRED).iter().map(|e| e["id"].to_string()).collect();
    assert_eq!(ids.len(), 3);
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[test]
fn why_a_rule_fired_shows_nothing_of_whoever_called() {
    let rule = r#"
[[rule]]
name = "called"
on = ["city.*"]
by = "event.data.phone"
only = "has(event.data.contact) || event.data['name'] == 'x'"
when = "event.data.phone != '' && event.data.category == 'noise' && event.subject != ''"
then = [{ raise = { title = "somebody calls" } }]
"#;
    let mut node = Node::new(rule);
    let told = json!({
        "phone": "13900000000", "category": "noise", "contact": {"name": "王大妈", "phone": "13900000000"},
        "sos": true,
    });
    for kind in ["city.appeal", "city.sos.pressed", "city.appeal.wish", "city.button"] {
        node.hear(kind, "s", &told);
        node.wait(S);
    }
    let all: String = [FIRED, alarms::RAISED].iter().flat_map(|k| node.events(k)).map(|e| e.to_string()).collect();
    assert!(!all.contains("139") && !all.contains("王大妈"), "{all}");
    let why = node.events(FIRED)[0]["data"]["fired"][0]["why"].clone();
    assert_eq!((&why["event.data.category"], &why["event.data.phone"]), (&json!("noise"), &json!("withheld")), "{why}");
    // One caller is one key, and another is another.
    assert_eq!(node.events(alarms::RAISED).len(), 1);
    node.hear("city.appeal", "s", &json!({"phone": "13911111111", "category": "noise", "contact": {}}));
    assert_eq!(node.events(alarms::RAISED).len(), 2);
    // What only looks like it, is shown.
    node.hear("city.meter", "s", &json!({"phone": "none", "category": "noise", "contact": {}}));
    assert!(node.events(FIRED).iter().any(|e| e["data"]["fired"][0]["key"] == "none"));
}

#[test]
fn what_cannot_be_evaluated_is_told_without_what_was_read_and_in_few_words() {
    let rule = "[[rule]]\nname = \"odd\"\non = [\"city.*\"]\nonly = \"event.data.phone\"\nthen = [{ raise = { title = \"x\" } }]\n";
    for when in ["event.data.phone", "event.data.phone < 3", "event.data.phone + 1 > 3"] {
        let mut node = Node::new(&rule.replace("event.data.phone", when));
        node.hear("city.appeal", "s", &json!({"phone": "13900000000"}));
        let seen = node.rules.view().rules.remove(0);
        let error = seen.last_error.unwrap();
        assert!(!error.contains("139"), "{error}");
        node.hear("city.meter", "s", &json!({"phone": "9".repeat(100_000)}));
        let error = node.rules.view().rules.remove(0).last_error.unwrap();
        assert!(error.len() < 2_000, "{} bytes", error.len());
    }
}

#[test]
fn calls_of_many_people_stand_in_one_group() {
    let mut both = Both::new(FALL);
    (0..100).for_each(|i| both.node.only_hear("city.fall", &format!("flat-{i}"), &json!({})));
    both.settle();
    assert_eq!((both.incidents().len(), both.groups), (100, 1));
}

#[test]
fn an_alarm_that_flaps_is_one_incident_while_that_is_open() {
    let rule = "[[rule]]\nname = \"wet\"\non = [\"leak\"]\nby = \"event.subject\"\nwhen = \"event.data > 1\"\nclear = \"event.data <= 1\"\n\
                then = [{ raise = { title = \"wet\" } }, { case = { category = \"leak\", title = \"${event.data} l\" } }]\n";
    let mut both = Both::new(rule);
    for round in 0..5 {
        for (cellar, level) in [("a", 2 + round), ("a", 1), ("b", 2)] {
            both.node.now += S;
            both.node.only_hear("leak", cellar, &json!(level));
            both.settle();
        }
    }
    assert_eq!(both.node.alarm("wet", "a").unwrap().raises, 5);
    let incidents = both.incidents();
    assert_eq!(incidents.len(), 2, "one for each cellar");
    let of_a = incidents.iter().find(|h| h.history.len() > 1).unwrap();
    let lines: Vec<&str> = of_a.history.iter().skip(1).map(|e| e.text.as_str()).collect();
    assert_eq!(lines, ["raised again: 3 l", "raised again: 4 l", "raised again: 5 l", "raised again: 6 l"]);
}
