//! Rules and alarms over a log in memory: live, killed, restarted, replayed.

mod calls;
mod checked;
mod commands;
mod dependent;
mod edits;
mod floods;
mod lasting;
mod presets;
mod raisers;
mod rehearsed;
mod replayed;
mod times;
mod told;

use super::alarms::{self, Identity, Step, Told, id_of};
use super::expression::{self, Expression, Facts};
use super::said::{FIRED, Said};
use super::{Rules, Wish};
use crate::brain::in_force::LOADED;
use citybrain_hub::policy::Policy;
use citybrain_hub::state::State;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::config::{Config, Variables, parse};
use citybrain_shared::record::{Direction, Draft, Header, Kind, Origin};
use citybrain_shared::view::Alarm;
use citybrain_shared::{Address, LogId, Pos, Tier};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const S: i64 = 1_000_000;

fn config(rules: &str) -> Config {
    let text = format!("[node]\naddress = \"c/s\"\ndata = \"/nowhere\"\n{rules}");
    let parsed = parse(&text, &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    let config = parsed.config.unwrap();
    let found = super::check::problems(&config, &parsed.places, &text);
    assert!(found.is_empty(), "{found:?}");
    config
}

/// A node without a disk: its log, and rows as they were last written.
struct Node {
    config: Config,
    rules: Rules,
    state: State,
    log: Vec<Vec<u8>>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    rows_upto: usize,
    now: i64,
}

impl Node {
    fn new(rules: &str) -> Node {
        let config = config(rules);
        Node {
            rules: Rules::new(&config),
            config,
            state: State::default(),
            log: Vec::new(),
            rows: BTreeMap::new(),
            rows_upto: 0,
            now: 1_000 * S,
        }
    }

    fn commit(&mut self, mut draft: Draft) {
        draft.stamp(self.now, 0);
        self.log.push(draft.bytes().to_vec());
        let (header, payload) = draft.parts();
        self.rules.apply(Pos(self.log.len() as u64), &header, payload);
    }

    /// Commits an event and, unless the node is killed right there, what follows.
    fn hear(&mut self, kind: &str, subject: &str, data: &Json) {
        self.only_hear(kind, subject, data);
        self.settle();
    }

    fn only_hear(&mut self, kind: &str, subject: &str, data: &Json) {
        let id = format!("e{}", self.log.len());
        let event =
            json!({"specversion": "1.0", "id": id, "source": "/t", "type": kind, "subject": subject, "data": data});
        let header = Header { direction: Direction::Up, ..Header::local(Kind::Event, kind) };
        self.commit(Draft::new(&header, event.to_string().as_bytes()).unwrap());
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            if self.rules.next_due_us().is_none_or(|due| due > self.now) {
                return;
            }
            let drafts = self.rules.on_due(&self.state, self.now);
            assert!(!drafts.is_empty(), "something is due and nothing comes of it");
            drafts.into_iter().for_each(|d| self.commit(d));
        }
        panic!("it never comes to rest");
    }

    fn wait(&mut self, us: i64) {
        let end = self.now + us;
        while let Some(due) = self.rules.next_due_us().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.settle();
        }
        self.now = end;
    }

    fn write_rows(&mut self) {
        for (key, value) in self.rules.take_rows() {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
        self.rows_upto = self.log.len();
    }

    fn next_pos(&self) -> Pos {
        Pos(self.log.len() as u64 + 1)
    }

    /// What is left of it after a kill: the log, and rows that are a little older.
    fn restart(&mut self) {
        self.read_back();
        self.start();
    }

    fn read_back(&mut self) {
        self.rules = Rules::new(&self.config);
        for (key, value) in &self.rows {
            self.rules.load_row(key, value).unwrap();
        }
        for (i, bytes) in self.log.iter().enumerate().skip(self.rows_upto) {
            let (header, payload) = Header::decode(bytes).unwrap();
            self.rules.apply(Pos(i as u64 + 1), &header, payload);
        }
    }

    fn start(&mut self) {
        let presence = json!({"id": format!("x-{}", self.state.me.boot.counter)}).to_string();
        let presence = Draft::new(&Header::local(Kind::Presence, "city.brain.node"), presence.as_bytes()).unwrap();
        self.commit(presence);
        self.settle();
    }

    /// Puts other rules in force, as `rule reload` does.
    fn reload(&mut self, rules: &str) {
        self.config = config(rules);
        self.rules.adopt(Arc::new(self.config.clone()));
        self.commit(Draft::new(&Header::local(Kind::Event, LOADED), b"{}").unwrap());
        self.settle();
    }

    /// All rows of a node that folds this log from its beginning.
    fn folded_anew(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut anew = Rules::new(&self.config);
        for (i, bytes) in self.log.iter().enumerate() {
            let (header, payload) = Header::decode(bytes).unwrap();
            anew.apply(Pos(i as u64 + 1), &header, payload);
        }
        anew.take_rows().into_iter().filter_map(|(k, v)| Some((k, v?))).collect()
    }

    /// (rule, key, what) of everything that was said, in order.
    fn said(&self) -> Vec<(String, String, String)> {
        let fired = self.events(FIRED);
        let said = fired.into_iter().map(|e| serde_json::from_value::<Said>(e["data"].clone()).unwrap());
        said.flat_map(|s| s.fired).map(|f| (f.rule, f.key, f.what.word().to_owned())).collect()
    }

    fn events(&self, kind: &str) -> Vec<Json> {
        let all = self.log.iter().map(|b| Header::decode(b).unwrap());
        all.filter(|(h, _)| h.name == kind).map(|(_, p)| serde_json::from_slice(p).unwrap()).collect()
    }

    fn fired(&self, rule: &str) -> usize {
        self.said().iter().filter(|(r, _, what)| r == rule && what == "fired").count()
    }

    fn alarm(&self, name: &str, key: &str) -> Option<&Alarm> {
        self.rules.alarms.get(&id_of(&self.config.node.address, name, key))
    }
}

const SMOKE: &str = r#"
[[rule]]
name = "smoke"
on = ["city.smoke.*"]
by = "event.subject"
when = "event.data.on == true"
clear = "event.data.on == false"
[[rule.then]]
raise = { severity = "critical", title = "Smoke at ${event.subject}" }
"#;

#[test]
fn a_repeated_event_raises_one_alarm_and_a_later_one_the_same_again() {
    let mut node = Node::new(SMOKE);
    for on in [true, true, true, false, false, true] {
        node.hear("city.smoke.v1", "flat-3", &json!({"on": on}));
        node.wait(S);
    }
    let types: Vec<usize> = [alarms::RAISED, alarms::CLEARED].iter().map(|t| node.events(t).len()).collect();
    assert_eq!(types, [2, 1]);
    let alarm = node.alarm("smoke", "flat-3").unwrap();
    assert_eq!((alarm.raises, alarm.active, alarm.title.as_str()), (2, true, "Smoke at flat-3"));
    assert!(alarm.first_raised_at < alarm.raised_at);
}

#[test]
fn events_of_one_frame_are_counted_one_by_one() {
    let rule = "[[rule]]\nname = \"noise\"\non = [\"city.noise\"]\nwindow = { within = \"1h\" }\nwhen = \"window.count >= 10\"\nthen = [{ raise = { title = \"${window.count}\" } }]\n";
    let mut node = Node::new(rule);
    (0..12).for_each(|_| node.only_hear("city.noise", "x", &json!({})));
    node.settle();
    assert_eq!((node.fired("noise"), node.alarm("noise", "").unwrap().title.as_str()), (1, "12"));
    assert_eq!(node.events(alarms::CHANGED).len(), 2, "what it is called goes on with the count");
}

#[test]
fn an_event_that_no_rule_names_leaves_no_trace() {
    let mut node = Node::new(SMOKE);
    node.hear("city.air.v1", "x", &json!({"on": true}));
    assert!(node.rules.take_rows().is_empty());
    assert_eq!(node.log.len(), 1);
}

#[test]
fn an_event_without_the_field_says_neither_yes_nor_no() {
    let mut node = Node::new(SMOKE);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    node.hear("city.smoke.v1", "f", &json!({"battery": 7}));
    assert!(node.alarm("smoke", "f").unwrap().active);
    let seen = &node.rules.view().rules[0];
    assert_eq!((seen.errors, seen.matched), (1, 2));
    assert!(seen.last_error.as_deref().unwrap().contains("No such key"), "{seen:?}");
}

const WATER: &str = r#"
[[rule]]
name = "water"
on = ["city.water"]
by = "event.subject"
when = "event.data > 3.0"
for = "5m"
clear = "event.data < 2.5"
calm = "1m"
[[rule.then]]
raise = { severity = "${event.data > 4.0 ? 'critical' : 'major'}", title = "${event.data} m" }
"#;

#[test]
fn a_duration_must_be_unbroken_and_the_end_too() {
    let mut node = Node::new(WATER);
    let level = |node: &mut Node, minutes: i64, metres: f64| {
        node.wait(minutes * 60 * S);
        node.hear("city.water", "g", &json!(metres));
    };
    level(&mut node, 0, 3.2);
    level(&mut node, 4, 2.9);
    level(&mut node, 1, 3.1);
    node.wait(299 * S);
    assert_eq!(node.fired("water"), 0);
    node.wait(2 * S);
    assert_eq!(node.fired("water"), 1);
    assert_eq!(node.alarm("water", "g").unwrap().severity, Severity::Major);
    level(&mut node, 1, 4.1);
    assert_eq!(node.alarm("water", "g").unwrap().severity, Severity::Critical);
    // Over for less than a minute is not over.
    level(&mut node, 1, 2.4);
    node.wait(50 * S);
    level(&mut node, 0, 2.8);
    node.wait(600 * S);
    assert!(node.alarm("water", "g").unwrap().active);
    level(&mut node, 1, 2.4);
    node.wait(61 * S);
    assert!(!node.alarm("water", "g").unwrap().active);
    assert_eq!(node.events(alarms::RAISED).len(), 1);
}

#[test]
fn a_window_that_empties_while_a_rule_waits_breaks_the_duration() {
    let rule = "[[rule]]\nname = \"busy\"\non = [\"city.door\"]\nwindow = { within = \"1m\" }\nwhen = \"window.count >= 3\"\nfor = \"5m\"\nclear = \"window.count < 3\"\nthen = [{ raise = { title = \"busy\" } }]\n";
    let mut node = Node::new(rule);
    let burst = |node: &mut Node| (0..3).for_each(|_| node.hear("city.door", "d", &json!({})));
    // Busy for a minute, once and again: never for five.
    for _ in 0..4 {
        burst(&mut node);
        node.wait(120 * S);
    }
    assert_eq!(node.fired("busy"), 0, "{:?}", node.said());
    assert_eq!(node.rules.next_due_us(), None, "and nothing is asked again and again");
    for _ in 0..20 {
        burst(&mut node);
        node.wait(20 * S);
    }
    assert_eq!(node.fired("busy"), 1, "{:?}", node.said());
    assert!(node.said().iter().any(|(_, _, what)| what == "lapsed"));
    node.wait(120 * S);
    assert!(!node.alarm("busy", "").unwrap().active);
}

#[test]
fn a_type_made_of_an_event_is_none_of_the_nodes_own() {
    let rule = r#"
[[rule]]
name = "pass"
on = ["door.*"]
[[rule.then]]
emit = { type = "${event.data.as}" }
[[rule.then]]
notice = { target = "c/s/**", type = "${event.data.as}" }
"#;
    let mut node = Node::new(rule);
    for kind in ["city.cap.message", "city.brain.case.call", "city.brain.service.catalogue", ""] {
        node.hear("door.open", "d", &json!({"as": kind}));
        assert!(node.events(kind).is_empty(), "{kind}");
    }
    node.hear("door.open", "d", &json!({"as": "door.opened"}));
    assert_eq!(node.events("door.opened").len(), 2);
}

#[test]
fn nothing_for_long_enough_is_an_event_too() {
    let rule = "[[rule]]\nname = \"silent\"\non = [\"t\"]\nby = \"/subject\"\nabsent = \"10m\"\nthen = [{ raise = { title = \"${event.subject}\" } }]\n";
    let mut node = Node::new(rule);
    node.hear("t", "a", &json!(1));
    node.wait(300 * S);
    node.hear("t", "b", &json!(1));
    node.wait(301 * S);
    assert_eq!(node.said(), [("silent".into(), "a".into(), "fired".into())]);
    node.wait(7200 * S);
    assert_eq!(node.fired("silent"), 2, "said once each, not again and again");
    node.hear("t", "a", &json!(1));
    assert!(!node.alarm("silent", "a").unwrap().active && node.alarm("silent", "b").unwrap().active);
    node.wait(601 * S);
    assert_eq!(node.alarm("silent", "a").unwrap().raises, 2);
}

const OFFLINE: &str = r#"
[[rule]]
name = "here"
on = ["city.lamp"]
by = "event.subject"
then = [{ clear = { alarm = "offline" } }]
[[rule]]
name = "offline"
on = ["city.lamp"]
by = "event.subject"
absent = "10m"
then = [{ raise = { title = "silent" } }]
"#;

#[test]
fn an_alarm_that_somebody_else_has_cleared_is_raised_by_the_next_absence() {
    let mut node = Node::new(OFFLINE);
    node.hear("city.lamp", "l", &json!({}));
    node.wait(700 * S);
    assert!(node.alarm("offline", "l").unwrap().active);
    // One word, which another rule hears first; then it is dead.
    node.hear("city.lamp", "l", &json!({}));
    assert!(!node.alarm("offline", "l").unwrap().active);
    node.write_rows();
    node.restart();
    node.wait(1_400 * S);
    assert_eq!(node.fired("offline"), 2, "{:?}", node.said());
    assert_eq!(node.rules.next_due_us(), None);
}

#[test]
fn a_timer_of_which_nothing_is_known_is_spoken_once() {
    let mut node = Node::new(OFFLINE);
    node.hear("city.lamp", "l", &json!({}));
    node.rules.memories.change(1, "l", |state| state.held = None).unwrap();
    node.wait(1_400 * S);
    assert_eq!((node.fired("offline"), node.rules.next_due_us()), (0, None));
    node.hear("city.lamp", "l", &json!({}));
    node.wait(700 * S);
    assert_eq!(node.fired("offline"), 1);
}

#[test]
fn a_value_that_is_no_number_is_an_error_where_a_rule_computes_with_it() {
    let rule = |name: &str, when: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\non = [\"t\"]\nwindow = {{ within = \"1h\", value = \"event.data\" }}\n\
             when = \"{when}\"\nthen = [{{ emit = {{ type = \"e.{name}\", reach = \"street\" }} }}]\n"
        )
    };
    let titled = "[[rule]]\nname = \"titled\"\non = [\"t\"]\nwindow = { within = \"1h\", value = \"event.data\" }\n\
                  then = [{ emit = { type = \"e.titled\", reach = \"street\", data = { mean = \"${window.avg}\" } } }]\n";
    let mut node = Node::new(
        &[
            rule("low", "window.min < 2.0"),
            rule("many", "window.count >= 5"),
            rule("different", "window.distinct >= 5"),
            titled.into(),
        ]
        .concat(),
    );
    for value in [json!(40), json!("41"), Json::Null, json!("nan"), json!(true)] {
        node.hear("t", "x", &value);
    }
    let seen = node.rules.view().rules;
    let counts: Vec<(&str, u64, u64)> = seen.iter().map(|r| (r.name.as_str(), r.errors, r.fired)).collect();
    assert_eq!(counts, [("low", 4, 0), ("many", 0, 1), ("different", 0, 1), ("titled", 4, 1)]);
    assert!(seen[0].last_error.as_deref().unwrap().contains("no number"), "{:?}", seen[0].last_error);
    assert_eq!(node.events("e.titled")[0]["data"]["mean"], 40.0);
}

#[test]
fn a_message_that_a_rule_may_not_send_is_counted_as_an_error() {
    for then in [
        "command = { target = \"${event.subject}\", type = \"x\" }",
        "notice = { type = \"${event.data}\" }",
        "emit = { type = \"${event.data}\", reach = \"street\" }",
    ] {
        let mut node = Node::new(&format!("[[rule]]\nname = \"r\"\non = [\"t\"]\nthen = [{{ {then} }}]\n"));
        node.hear("t", "elsewhere/**", &json!("city.brain.alarm.raised"));
        let seen = &node.rules.view().rules[0];
        assert_eq!((seen.fired, seen.errors), (1, 1), "{then}");
        assert!(seen.last_error.is_some());
    }
}

#[test]
fn a_rule_that_waits_for_nothing_any_more_has_no_timer() {
    let mut node = Node::new(OFFLINE);
    node.hear("city.lamp", "l", &json!({}));
    node.write_rows();
    node.config = config(&OFFLINE.replace("absent = \"10m\"", "when = \"event.data.volt < 3\""));
    node.rules.adopt(Arc::new(node.config.clone()));
    node.hear("city.lamp", "l", &json!({}));
    assert_eq!(node.rules.next_due_us(), None);
    node.restart();
    node.wait(1_400 * S);
    assert_eq!((node.fired("offline"), node.rules.next_due_us()), (0, None));
}

#[test]
fn what_could_not_come_while_the_node_was_down_is_not_absent() {
    let rule = "[[rule]]\nname = \"silent\"\non = [\"t\"]\nby = \"/subject\"\nabsent = \"10m\"\nthen = [{ raise = { title = \"x\" } }]\n";
    let mut node = Node::new(rule);
    node.hear("t", "a", &json!(1));
    node.write_rows();
    // An hour passes without it.
    node.now += 3600 * S;
    node.restart();
    node.wait(599 * S);
    assert_eq!(node.fired("silent"), 0);
    node.wait(2 * S);
    assert_eq!(node.fired("silent"), 1);
}

#[test]
fn a_rule_on_a_wide_pattern_does_not_speak_of_its_own_words() {
    let rule =
        "[[rule]]\nname = \"all\"\non = [\"city.*\"]\nthen = [{ emit = { type = \"b\", reach = \"street\" } }]\n";
    let mut node = Node::new(rule);
    node.hear("city.x", "x", &json!({}));
    assert_eq!(node.log.len(), 3, "the event, what was said of it, what was emitted");
}

#[test]
fn a_window_that_empties_ends_what_it_began_without_an_event() {
    let rule = "[[rule]]\nname = \"noise\"\non = [\"n\"]\nwindow = { within = \"10m\" }\nwhen = \"window.count >= 3\"\nclear = \"window.count < 2\"\nthen = [{ raise = { title = \"x\" } }]\n";
    let mut node = Node::new(rule);
    for _ in 0..3 {
        node.hear("n", "x", &json!({}));
        node.wait(60 * S);
    }
    assert!(node.alarm("noise", "").unwrap().active);
    // The first leaves the window 10 minutes after it came, the second a minute later.
    node.wait(8 * 60 * S - 1);
    assert!(node.alarm("noise", "").unwrap().active);
    node.wait(2);
    assert!(!node.alarm("noise", "").unwrap().active);
}

#[test]
fn quiet_and_dependencies_hold_back() {
    let rules = r#"
[[rule]]
name = "power"
on = ["power"]
when = "event.data == 0"
clear = "event.data == 1"
then = [{ raise = { title = "no power" } }]
[[rule]]
name = "lamp"
on = ["lamp"]
unless_alarm = "power"
quiet = "10m"
then = [{ emit = { type = "lamp.out", reach = "street", data = { at = "${event.subject}", n = "${1 + 1}" } } }]
"#;
    let mut node = Node::new(rules);
    node.hear("lamp", "1", &json!({}));
    node.hear("lamp", "2", &json!({}));
    assert_eq!(node.events("lamp.out")[0]["data"], json!({"at": "1", "n": 2}));
    assert_eq!(node.events("lamp.out").len(), 1);
    node.hear("power", "x", &json!(0));
    node.wait(601 * S);
    node.hear("lamp", "3", &json!({}));
    assert_eq!(node.events("lamp.out").len(), 1, "there is no power");
    node.hear("power", "x", &json!(1));
    node.hear("lamp", "4", &json!({}));
    assert_eq!(node.events("lamp.out").len(), 2);
}

#[test]
fn what_a_template_cannot_fill_in_is_counted_as_an_error() {
    let rules = r#"
[[rule]]
name = "holes"
on = ["t"]
when = "node.address != ''"
then = [
    { raise = { severity = "${event.data.how}", title = "${event.data.title}" } },
    { emit = { type = "u", reach = "street", data = { n = "${event.data.n}" } } },
]
"#;
    let mut node = Node::new(rules);
    let errors = |node: &Node| {
        let rule = &node.rules.view().rules[0];
        (rule.errors, rule.last_error.clone().unwrap_or_default())
    };
    node.hear("t", "x", &json!({"how": "major", "title": "t", "n": 1}));
    assert_eq!(errors(&node).0, 0);
    node.hear("t", "x", &json!({"how": "major", "title": "t"}));
    assert_eq!(errors(&node).0, 0, "it is on already: nothing is done");
    let fired = node.events(FIRED);
    assert_eq!(fired[0]["data"]["fired"][0]["why"]["node.address"], "c/s");
    for (data, about) in [
        (json!({"how": "purple", "title": "t", "n": 1}), "`purple` is no severity"),
        (json!({"how": "major", "n": 1}), "title"),
        (json!({"how": "major", "title": "t"}), "event.data.n"),
    ] {
        let mut node = Node::new(rules);
        node.hear("t", "x", &data);
        let (count, last) = errors(&node);
        assert!(count == 1 && last.contains(about), "{count} {last}");
        let alarm = node.alarm("holes", "").unwrap();
        assert!(alarm.active && alarm.severity == Severity::Major, "an alarm with a hole is better than none");
        let failing = node.rules.failing(0);
        assert!(failing[0].starts_with("rule holes has failed 1 time, the last: ") && failing[0].contains(about));
        assert!(node.rules.failing(i64::MAX).is_empty(), "nothing since then");
    }
}

#[test]
fn a_circle_that_a_template_hides_comes_to_an_end() {
    let rule = "[[rule]]\nname = \"echo\"\non = [\"a.*\"]\nthen = [{ emit = { type = \"${event.type}\", reach = \"street\" } }]\n";
    let mut node = Node::new(rule);
    node.hear("a.b", "x", &json!({}));
    assert_eq!(node.events("a.b").len(), 5);
    assert!(node.rules.view().rules[0].last_error.as_deref().unwrap().contains("caused each other"));
}

#[test]
fn an_alarm_about_alarms_says_which_and_sets_off_no_circle() {
    let rules = format!(
        "{SMOKE}[[rule]]\nname = \"storm\"\non = [\"city.brain.alarm.raised\"]\nonly = \"event.data.name != 'storm'\"\n\
         window = {{ within = \"1h\", value = \"event.data.key\" }}\nwhen = \"window.count >= 2\"\n\
         then = [{{ raise = {{ severity = \"major\", title = \"${{window.count}} alarms, ${{window.distinct}} places\" }} }}]\n"
    );
    let mut node = Node::new(&rules);
    for at in ["f", "g", "h"] {
        node.hear("city.smoke.v1", at, &json!({"on": true}));
    }
    // The number of places stands in the title alone, and is counted all the same.
    assert_eq!(node.alarm("storm", "").unwrap().title, "3 alarms, 3 places");
    assert_eq!(node.alarm("storm", "").unwrap().raises, 1);
}

#[test]
fn what_a_person_cleared_may_be_raised_again() {
    let mut node = Node::new(SMOKE);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    let id = node.alarm("smoke", "f").unwrap().id.clone();
    node.wait(S);
    let (after, drafts) = node.rules.ask(&id, Wish::Clear, "Li", node.now).unwrap();
    assert!(!after.active && after.asked.is_none());
    drafts.into_iter().for_each(|d| node.commit(d));
    assert_eq!(node.alarm("smoke", "f").unwrap().cleared_by.as_deref(), Some("Li"));
    assert!(node.rules.ask(&id, Wish::Clear, "Li", node.now).is_err());
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    assert_eq!(node.alarm("smoke", "f").unwrap().raises, 2);
}

#[test]
fn a_kill_between_an_event_and_what_follows_loses_nothing_and_repeats_nothing() {
    let mut node = Node::new(SMOKE);
    node.only_hear("city.smoke.v1", "f", &json!({"on": true}));
    node.restart();
    assert_eq!(node.fired("smoke"), 1);
    node.write_rows();
    node.restart();
    node.restart();
    assert_eq!((node.fired("smoke"), node.events(alarms::RAISED).len()), (1, 1));
}

#[test]
fn what_was_never_spoken_under_other_rules_is_not_spoken_later() {
    let mut node = Node::new(SMOKE);
    // As if the rule had been written only now, and everything is folded anew.
    let smoke = std::mem::replace(&mut node.config, config(""));
    node.rules = Rules::new(&node.config);
    node.hear("city.smoke.v1", "old", &json!({"on": true}));
    for _ in 0..20 {
        node.wait(60 * S);
        node.hear("city.smoke.v1", "old", &json!({"on": false}));
    }
    node.config = smoke;
    node.rows_upto = 0;
    node.restart();
    assert_eq!(node.events(alarms::RAISED).len(), 0);
}

#[test]
fn what_gave_way_before_a_reload_is_not_back_at_the_next_start() {
    let mut node = Node::new(SMOKE);
    for i in 0..super::memory::KEYS_MAX {
        node.only_hear("city.smoke.v1", &format!("k{i}"), &json!({"on": false}));
        node.now += 1;
    }
    node.write_rows();
    node.hear("city.smoke.v1", "one more", &json!({"on": false}));
    node.rules.adopt(Arc::new(node.config.clone()));
    node.hear("city.smoke.v1", "and another", &json!({"on": false}));
    node.write_rows();
    let keys = node.rules.memories.keys(0).len();
    node.restart();
    assert_eq!(node.rules.memories.keys(0).len(), keys);
}

#[test]
fn too_many_keys_give_way_oldest_first_and_are_counted() {
    let mut node = Node::new(SMOKE);
    for i in 0..super::memory::KEYS_MAX + 10 {
        node.only_hear("city.smoke.v1", &format!("k{i}"), &json!({"on": i == 0}));
    }
    let seen = &node.rules.view().rules[0];
    assert!(seen.keys <= super::memory::KEYS_MAX as u64);
    assert_eq!((seen.keys_given_way, seen.on_keys), (625, 1));
}

#[test]
fn why_a_rule_fired_shows_the_one_field_that_it_reads_by_a_name_that_is_no_word() {
    let mut node = Node::new(
        "[[rule]]\nname = \"foul\"\non = [\"air\"]\nwhen = \"event.data['PM_US Post'] > 150\"\nthen = [{ raise = { title = \"x\" } }]\n",
    );
    node.hear("air", "x", &json!({"PM_US Post": 167, "TEMP": 5}));
    let said = &node.events(FIRED)[0]["data"]["fired"][0];
    assert_eq!(said["why"], json!({"event.data.PM_US Post": 167}));
}

#[test]
fn an_urgent_event_that_a_rule_emits_says_that_it_is_urgent() {
    for (priority, said) in [("", Json::Null), ("priority = \"urgent\", ", json!("urgent"))] {
        let mut node = Node::new(&format!(
            "[[rule]]\nname = \"r\"\non = [\"a\"]\nthen = [{{ emit = {{ {priority}type = \"b\" }} }}]\n"
        ));
        node.hear("a", "x", &json!({}));
        assert_eq!(node.events("b")[0]["priority"], said);
        let mut headers = node.log.iter().map(|bytes| Header::decode(bytes).unwrap().0);
        let lane = headers.find(|header| header.name == "b").unwrap().lane;
        assert_eq!(lane == citybrain_shared::Lane::Urgent, !said.is_null());
    }
}

#[test]
fn a_number_is_reckoned_with_alike_whether_it_has_a_fraction_or_not() {
    let facts = |data: Json| {
        let node = Node::new("");
        let event = json!({"id": "e", "type": "t", "data": data}).to_string();
        Facts::new(event.as_bytes(), "c/s", 0, &node.rules.set.node).unwrap()
    };
    let scope = expression::Scope { window: false };
    let value = |text: &str, data: Json| {
        let cel = Expression::compile(text, scope, expression::Wants::Anything).unwrap();
        cel.text(&facts(data), None)
    };
    let is = |text: &str, data: Json, wanted: &str| assert_eq!(value(text, data).as_deref(), Ok(wanted), "{text}");
    for (v, twice, fahrenheit, third) in [(json!(20), "40", "68", "6.666667"), (json!(20.0), "40", "68", "6.666667")] {
        let data = json!({"v": v, "all": [v, v]});
        for (text, wanted) in [
            ("event.data.v * 2.0", twice),
            ("2.0 * event.data.v", twice),
            ("event.data.v + event.data.v", twice),
            ("event.data.v * 9 / 5 + 32", fahrenheit),
            ("event.data.v / 3", third),
            ("event.data['v'] / 3", third),
            ("event.data.all.map(x, x / 3)[0]", third),
            ("event.data.v / 3 > 6.5", "true"),
            ("40 / event.data.v", "2"),
            ("event.data.v - 0.5", "19.5"),
            ("(event.data.v > 5 ? event.data.v : 0) / 3", third),
            ("event.data.v % 3.0", "2"),
            ("event.data.v % 3", "2"),
            ("-event.data.v", "-20"),
            ("event.data.v == 20 && event.data.v == 20.0", "true"),
            ("event.data.v in [20]", "true"),
        ] {
            is(text, data.clone(), wanted);
        }
    }
    is("event.data.v * 9 / 5 + 32", json!({"v": 20.5}), "68.9");
    // Nor does a fraction of nothing make another key, or another value of a window.
    let rule = "[[rule]]\nname = \"r\"\non = [\"a\"]\nby = \"BY\"\nwindow = { within = \"1h\", value = \"event.data.v\" }\n\
                then = [{ emit = { type = \"b\", data = { n = \"${window.distinct}\" } } }]\n";
    for by in ["/data/v", "event.data.v"] {
        let mut node = Node::new(&rule.replace("BY", by));
        for v in [json!(20), json!(20.0)] {
            node.hear("a", "x", &json!({"v": v}));
        }
        assert_eq!(node.rules.view().rules[0].keys, 1, "{by}");
        assert!(node.events("b").iter().all(|e| e["data"]["n"] == 1), "{by}");
    }
    // What is a whole number by its own words goes on as CEL has it.
    is("7 / 2", json!({}), "3");
    is("int(event.data.v) / 3", json!({"v": 20.5}), "6");
    is("size(event.data.all) / 2", json!({"all": [1, 2, 3]}), "1");
    is("event.data.a + event.data.b", json!({"a": "x", "b": "y"}), "xy");
    is("event.data.a + [2]", json!({"a": [1]}), "[1,2]");
    is("9007199254740993 + event.data.v", json!({"v": 2}), "9007199254740995");
    for text in ["event.data.v * 2.0", "event.data.v / 3", "event.data.v + 1.5"] {
        assert!(value(text, json!({"v": "20"})).is_err(), "{text}");
    }
    assert!(value("event.data.v / 0", json!({"v": 1})).is_err(), "nothing is divided by nothing");
}
