//! Rules that other alarms keep from firing, or let fire: by one event, by several of one commit, by timers.

use super::super::said::Outcome;
use super::rehearsed::rehearsed;
use super::*;
use proptest::prelude::*;

fn rule(name: &str, more: &str, then: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\non = [\"t\"]\nby = \"event.subject\"\n{more}\nthen = [{then}]\n")
}

/// That it has fired is told by a notice, too.
fn told(name: &str) -> String {
    format!("{{ notice = {{ type = \"told.{name}\", subject = \"${{event.subject}}\" }} }}")
}

fn raises(name: &str, more: &str) -> String {
    rule(name, more, &format!("{{ raise = {{ title = \"{name}\" }} }}, {}", told(name)))
}

fn fire() -> String {
    raises("fire", "when = \"event.data > 60\"\nclear = \"event.data <= 60\"")
}

fn is_active(node: &Node, name: &str) -> bool {
    node.alarm(name, "k").is_some_and(|alarm| alarm.active)
}

/// As it was said, and by `rule test`.
fn said_and_tested(node: &Node) -> [Vec<(String, String, String)>; 2] {
    let tested = rehearsed(node).fired.into_iter().map(|f| (f.rule, f.key, f.what));
    [node.said(), tested.collect()]
}

#[test]
fn what_an_alarm_keeps_from_firing_does_not_fire_by_the_event_that_begins_it() {
    let warm = raises("warm", "when = \"event.data > 30\"\nclear = \"event.data <= 30\"\nunless_alarm = \"fire\"");
    for rules in [[fire(), warm.clone()], [warm, fire()]] {
        let mut node = Node::new(&rules.concat());
        node.hear("t", "k", &json!(80));
        assert!(is_active(&node, "fire") && !is_active(&node, "warm"), "{:?}", node.said());
        assert!(node.events("told.warm").is_empty());
        node.wait(S);
        node.write_rows();
        node.restart();
        node.hear("t", "k", &json!(40));
        assert!(!is_active(&node, "fire") && is_active(&node, "warm"), "{:?}", node.said());
        node.wait(S);
        node.hear("t", "k", &json!(20));
        assert!(!is_active(&node, "warm"));
        let [said, tested] = said_and_tested(&node);
        assert_eq!((node.events("told.warm").len(), &said), (1, &tested));
    }
}

#[test]
fn of_rules_that_exclude_each_other_the_first_in_the_file_wins() {
    let of = |name: &str, other: &str| {
        raises(name, &format!("when = \"event.data > 0\"\nclear = \"event.data == 0\"\nunless_alarm = \"{other}\""))
    };
    let third = raises("third", "when = \"event.data > 0\"\nclear = \"event.data == 0\"\nunless_alarm = \"one\"");
    for (rules, first) in [
        ([third.clone(), of("one", "two"), of("two", "one")], "one"),
        ([third, of("two", "one"), of("one", "two")], "two"),
    ] {
        let mut node = Node::new(&rules.concat());
        node.hear("t", "k", &json!(1));
        let stand = ["one", "two", "third"].map(|name| is_active(&node, name));
        // The third is outside of that circle, and asks how it has ended.
        assert_eq!(stand, [first == "one", first == "two", first == "two"], "{:?}", node.said());
        let [said, tested] = said_and_tested(&node);
        assert_eq!(said, tested);
    }
}

#[test]
fn what_an_alarm_lets_fire_fires_by_the_event_that_begins_it() {
    let siren = rule("siren", "when = \"event.data > 60\"\nwhile_alarm = \"fire\"", &told("siren"));
    let quiet = rule("well", "when = \"event.data < 99\"\nunless_alarm = \"fire\"", &told("well"));
    let mut node = Node::new(&[siren, quiet, fire()].concat());
    let mut hear = |value: i64| {
        node.wait(S);
        node.hear("t", "k", &json!(value));
        ["told.siren", "told.well"].map(|kind| node.events(kind).len())
    };
    assert_eq!(hear(80), [1, 0]);
    assert_eq!(hear(81), [2, 0]);
    assert_eq!(hear(50), [2, 1], "nor is lost what comes with the end of the alarm");
}

#[test]
fn a_timer_fires_only_if_no_other_of_that_moment_begins_the_alarm_that_keeps_it() {
    let of = |name: &str, more: &str| {
        raises(name, &format!("when = \"event.data > 0\"\nfor = \"1m\"\nclear = \"event.data == 0\"\n{more}"))
    };
    let mut node = Node::new(&[of("late", "unless_alarm = \"fire\""), of("fire", "")].concat());
    node.hear("t", "k", &json!(1));
    node.wait(61 * S);
    assert!(is_active(&node, "fire") && !is_active(&node, "late"), "{:?}", node.said());
    assert_eq!(node.fired("late"), 0);
}

#[test]
fn an_event_is_met_behind_the_timers_that_were_over_when_it_came() {
    let fire = raises("fire", "when = \"event.data > 0\"\nfor = \"1m\"\nclear = \"event.data == 0\"");
    let warm = raises("warm", "when = \"event.data == 2\"\nclear = \"event.data == 0\"\nunless_alarm = \"fire\"");
    let mut node = Node::new(&[fire, warm].concat());
    node.hear("t", "k", &json!(1));
    node.now += 90 * S;
    node.hear("t", "k", &json!(2));
    assert_eq!((node.fired("fire"), node.fired("warm")), (1, 0), "{:?}", node.said());
}

/// They depend on each other by events, by timers, in circles; each is of the events' subject.
fn all() -> Vec<String> {
    let hold = |more: &str| format!("when = \"event.data >= 2\"\nfor = \"30s\"\nclear = \"event.data < 1\"\n{more}");
    let all = "when = \"event.data >= 1\"\nclear = \"event.data < 1\"";
    vec![
        raises("fire", "when = \"event.data >= 3\"\nclear = \"event.data < 3\""),
        raises("warm", "when = \"event.data >= 2\"\nclear = \"event.data < 2\"\nunless_alarm = \"fire\""),
        rule("well", "when = \"event.data >= 1\"\nunless_alarm = \"fire/*\"", &told("well")),
        rule("siren", "when = \"event.data >= 3\"\nwhile_alarm = \"fire\"", &told("siren")),
        raises("late", &hold("calm = \"30s\"")),
        raises("dry", &hold("unless_alarm = \"late\"")),
        raises("one", &format!("{all}\nunless_alarm = \"two\"")),
        raises("two", &format!("{all}\nunless_alarm = \"one\"")),
        raises("gone", "absent = \"1m\"\nunless_alarm = \"late/*\""),
    ]
}

const UNLESS: [(&str, &str, bool); 6] = [
    ("warm", "fire", false),
    ("well", "fire", true),
    ("dry", "late", false),
    ("one", "two", false),
    ("two", "one", false),
    ("gone", "late", true),
];

#[derive(Clone, Debug)]
enum Act {
    /// In one commit.
    Events(Vec<(u8, u8)>),
    /// The node is killed behind that commit.
    KilledAfter(Vec<(u8, u8)>),
    Wait(i64),
    /// Nobody asks for what is due meanwhile.
    Sleep(i64),
    /// A person ends one that is active, before what the events lead to is said.
    ClearedAfter(Vec<(u8, u8)>, &'static str),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let events = || prop::collection::vec((0u8..2, 0u8..4), 1..5);
    let seconds = || prop::sample::select(vec![1, 15, 30, 60, 90]);
    let names = prop::sample::select(vec!["fire", "warm", "late", "one"]);
    let act = prop_oneof![
        6 => events().prop_map(Act::Events),
        1 => events().prop_map(Act::KilledAfter),
        2 => seconds().prop_map(Act::Wait),
        2 => seconds().prop_map(Act::Sleep),
        1 => (events(), names).prop_map(|(events, name)| Act::ClearedAfter(events, name)),
    ];
    prop::collection::vec(act, 0..20)
}

fn act(node: &mut Node, act: &Act) {
    let hear = |node: &mut Node, events: &[(u8, u8)]| {
        events.iter().for_each(|(key, value)| node.only_hear("t", &format!("k{key}"), &json!(value)));
    };
    match act {
        Act::Events(events) => hear(node, events),
        Act::KilledAfter(events) => {
            hear(node, events);
            node.restart();
        }
        Act::Wait(s) => node.wait(s * S),
        Act::Sleep(s) => node.now += s * S,
        Act::ClearedAfter(events, name) => {
            hear(node, events);
            for key in ["k0", "k1"] {
                let id = id_of(&node.config.node.address, name, key);
                if let Ok((_, drafts)) = node.rules.ask(&id, Wish::Clear, "Li", node.now) {
                    drafts.into_iter().for_each(|d| node.commit(d));
                }
            }
        }
    }
    node.settle();
    node.now += 1;
}

/// Everything in the order of the log: whenever a rule's alarm begins or its notice goes out, is the alarm active that
/// keeps it from that?
fn is_said_in_spite(node: &Node) -> Option<String> {
    let mut active = std::collections::BTreeSet::new();
    let keeps = |active: &std::collections::BTreeSet<(String, String)>, name: &str, key: &str| {
        let of = UNLESS.iter().filter(|(rule, _, _)| *rule == name);
        of.clone().any(|(_, alarm, any)| active.iter().any(|(n, k)| n == alarm && (*any || k == key)))
    };
    for bytes in &node.log {
        let (header, payload) = Header::decode(bytes).unwrap();
        let event: Json = serde_json::from_slice(payload).unwrap();
        let of = |pointer: &str| event.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned();
        if let Some(rule) = header.name.strip_prefix("told.")
            && keeps(&active, rule, &of("/subject"))
        {
            return Some(format!("{event}"));
        }
        if !header.name.starts_with("city.brain.alarm.") {
            continue;
        }
        let who = (of("/data/name"), of("/data/key"));
        if header.name == alarms::RAISED && keeps(&active, &who.0, &who.1) {
            return Some(format!("{event}"));
        }
        match header.name == alarms::CLEARED {
            true => active.remove(&who),
            false => active.insert(who),
        };
    }
    None
}

/// Two of which one keeps the other from firing, and which have fired by one event, or at one moment.
fn fired_at_once(node: &Node) -> Option<String> {
    let fired = node.events(FIRED);
    let said = fired.into_iter().flat_map(|e| serde_json::from_value::<Said>(e["data"].clone()).unwrap().fired);
    let said: Vec<_> = said.filter(|f| f.what == Outcome::Fired).collect();
    let excludes = |rule: &str, other: &str| UNLESS.iter().any(|(r, alarm, _)| *r == rule && *alarm == other);
    let of_one = said.iter().flat_map(|a| said.iter().map(move |b| (a, b)));
    let both = of_one.filter(|(a, b)| a.key == b.key && (&a.event, a.at_us) == (&b.event, b.at_us));
    both.filter(|(a, b)| excludes(&a.rule, &b.rule)).map(|(a, b)| format!("{} and {}", a.rule, b.rule)).next()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_says_nothing_while_the_alarm_is_active_that_keeps_it(
        rules in Just(all()).prop_shuffle(), acts in acts()
    ) {
        let mut node = Node::new(&rules.concat());
        let (mut last, mut well, mut siren) = (BTreeMap::new(), 0, 0);
        let mut is_cleared = false;
        for step in &acts {
            act(&mut node, step);
            if let Act::Events(events) | Act::KilledAfter(events) | Act::ClearedAfter(events, _) = step {
                for (key, value) in events {
                    last.insert(format!("k{key}"), *value);
                    well += usize::from(*value >= 1 && last.values().all(|v| *v < 3));
                    siren += usize::from(*value >= 3);
                }
            }
            is_cleared |= matches!(step, Act::ClearedAfter(..));
            prop_assert_eq!(is_said_in_spite(&node), None, "{:?}", step);
            prop_assert_eq!(fired_at_once(&node), None, "{:?}", step);
            // Nor is anything lost: each event counts, and what is wanted comes when it may.
            if !is_cleared {
                let told = ["told.well", "told.siren"].map(|kind| node.events(kind).len());
                prop_assert_eq!(told, [well, siren], "{:?}: {:?}", step, node.said());
                for (key, value) in &last {
                    let is = |name: &str| node.alarm(name, key).is_some_and(|alarm| alarm.active);
                    prop_assert_eq!(is("fire"), *value >= 3);
                    prop_assert_eq!(is("warm") || is("fire"), *value >= 2, "{:?} {}: {:?}", step, key, node.said());
                    prop_assert_eq!(is("one") || is("two"), *value >= 1, "{:?} {}: {:?}", step, key, node.said());
                }
            }
        }
        for key in ["k0", "k1"] {
            node.hear("t", key, &json!(0));
        }
        node.wait(100 * S);
        prop_assert!(node.rules.alarms.iter().all(|a| !a.active || a.name == "gone"), "{:?}", node.said());
        node.write_rows();
        prop_assert_eq!(&node.rows, &node.folded_anew());
    }

    #[test]
    fn a_test_of_what_was_recorded_says_what_was_said_of_alarms_that_keep_others(
        rules in Just(all()).prop_shuffle(), events in prop::collection::vec((0i64..50, 0u8..2, 0u8..4), 0..30)
    ) {
        let mut node = Node::new(&rules.concat());
        for (s, key, value) in events {
            // A record shows its time to the millisecond.
            node.wait(s * S + 1_000);
            node.hear("t", &format!("k{key}"), &json!(value));
        }
        let [said, tested] = said_and_tested(&node);
        prop_assert_eq!(said, tested);
    }
}
