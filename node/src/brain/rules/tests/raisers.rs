//! Alarms that several conditions raise: by timers in one group, with others beside them, edited, passed on.

use super::lasting::{LEVELS, ROOM, TOWER, behind, carry, parent_of, want};
use super::*;
use citybrain_hub::engine;
use proptest::prelude::*;

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
    let flood = r#"
[[rule]]
name = "flood"
on = ["v"]
when = "event.data > 50"
for = "1m"
clear = "event.data <= 50"
then = [{ raise = { alarm = "water", severity = "critical", title = "flood" } }]
"#;
    let high = r#"
[[rule]]
name = "high"
on = ["v"]
when = "event.data > 10 && event.data <= 50"
clear = "event.data > 50"
calm = "1m"
then = [{ raise = { alarm = "water", severity = "warning", title = "high" } }]
"#;
    for rules in [[flood, high], [high, flood]] {
        let mut node = Node::new(&rules.concat());
        node.hear("v", "x", &json!(20));
        node.wait(S);
        node.hear("v", "x", &json!(70));
        node.wait(61 * S);
        assert_eq!(water(&node), (true, Severity::Critical, 1), "{:?}", node.said());
        assert!(node.events(alarms::CLEARED).is_empty());
        node.hear("v", "x", &json!(5));
        assert!(!water(&node).0);
    }
}

/// One that ends by a timer, and one that begins by a timer and ends as its window empties.
const BY_TIMERS: &str = r#"
[[rule]]
name = "ends"
on = ["a"]
when = "event.data == 1"
clear = "event.data == 0"
calm = "1m"
then = [{ raise = { alarm = "water", severity = "minor", title = "ends" } }]
[[rule]]
name = "begins"
on = ["b"]
window = { within = "10m" }
when = "window.count >= 2"
for = "2m"
clear = "window.count < 1"
then = [{ raise = { alarm = "water", severity = "minor", title = "begins" } }]
"#;

#[test]
fn what_begins_behind_the_end_of_the_alarm_raises_it_again_and_ends_it() {
    let mut node = Node::new(BY_TIMERS);
    node.hear("a", "x", &json!(1));
    node.wait(S);
    node.hear("a", "x", &json!(0));
    (0..2).for_each(|_| node.hear("b", "x", &json!(0)));
    // Both come due while nobody asks.
    node.now += 180 * S;
    node.settle();
    assert_eq!(water(&node), (true, Severity::Minor, 2), "{:?}", node.said());
    node.wait(600 * S);
    assert!(!water(&node).0, "{:?}", node.said());
}

#[test]
fn what_a_person_ends_while_a_firing_waits_is_raised_again_and_ends() {
    let rules = BY_TIMERS.replace("for = \"2m\"\n", "");
    for is_from_above in [false, true] {
        let mut node = Node::new(&rules);
        node.hear("a", "x", &json!(1));
        node.hear("b", "x", &json!(0));
        node.wait(S);
        let id = node.alarm("water", "").unwrap().id.clone();
        if is_from_above {
            let above = parent_of(&node);
            let (_, drafts) = above.rules.ask(&id, Wish::Clear, "Li", above.now).unwrap();
            for draft in drafts {
                let (header, payload) = draft.parts();
                let origin = Some(Origin { address: "c", log: LogId(2), pos: Pos(1) });
                node.commit(Draft::new(&Header { origin, ..header }, payload).unwrap());
            }
            node.only_hear("b", "x", &json!(0));
        } else {
            node.only_hear("b", "x", &json!(0));
            let (_, drafts) = node.rules.ask(&id, Wish::Clear, "Li", node.now).unwrap();
            drafts.into_iter().for_each(|d| node.commit(d));
        }
        node.settle();
        assert_eq!(water(&node), (true, Severity::Minor, 2), "{:?}", node.said());
        node.wait(601 * S);
        assert!(!water(&node).0, "{:?}", node.said());
    }
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
    assert_eq!(node.alarm("water", "").unwrap().title, "water", "what the worse one said is over");
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

#[test]
fn an_alarm_passes_to_another_rule_that_raises_it_when_its_own_is_taken_out() {
    let (high, _) = LEVELS.rsplit_once("[[rule]]").unwrap();
    for is_stopped in [false, true] {
        let mut node = Node::new(LEVELS);
        node.hear("v", "x", &json!(70));
        assert_eq!(water(&node).1, Severity::Critical);
        node.wait(S);
        if is_stopped {
            node.write_rows();
            node.config = config(high);
            node.restart();
        } else {
            node.reload(high);
        }
        let alarm = node.alarm("water", "").unwrap();
        assert_eq!(
            (alarm.severity, alarm.rule.as_str(), alarm.title.as_str()),
            (Severity::Warning, "high", "high: 70")
        );
        node.hear("v", "x", &json!(5));
        assert!(!water(&node).0);
    }
}

#[test]
fn what_raised_an_alarm_before_the_disk_was_lost_keeps_it_whatever_another_says() {
    let room = ROOM.replace("raise = { key", "raise = { severity = \"${event.data.how}\", key");
    let hear = |node: &mut Node, at: &str, on: bool, how: &str| {
        node.wait(S);
        node.hear("s", at, &json!({"on": on, "room": "hall", "how": how}));
        node.alarm("smoke", "hall").map(|a| (a.active, a.severity)).unwrap()
    };
    let mut lost = Node::new(&room);
    let fire = hear(&mut lost, "d2", true, "critical");
    let known = lost.alarm("smoke", "hall").unwrap().clone();
    for is_told_by_the_parent in [true, false] {
        let mut node = Node::new(&room);
        node.now = lost.now;
        if is_told_by_the_parent {
            let event = json!({"specversion": "1.0", "id": "k", "source": "/c", "type": alarms::KNOWN, "data": known});
            let origin = Some(Origin { address: "c", log: LogId(2), pos: Pos(1) });
            let header = Header {
                direction: Direction::Down,
                origin,
                target: "c/s",
                ..Header::local(Kind::Event, alarms::KNOWN)
            };
            node.commit(Draft::new(&header, event.to_string().as_bytes()).unwrap());
        } else {
            // Its rule was taken out, and is back.
            hear(&mut node, "d2", true, "critical");
            node.reload("");
            node.reload(&room);
        }
        assert_eq!(hear(&mut node, "d1", true, "minor"), fire);
        assert_eq!(hear(&mut node, "d1", false, "minor"), fire, "the other still burns");
        assert_eq!(hear(&mut node, "d2", false, "critical"), (false, Severity::Critical));
    }
}

#[test]
fn an_alarm_is_called_as_whoever_has_it_said_before_the_disk_was_lost_or_the_rule_was_away() {
    let hear = |node: &mut Node, at: &str, level: i64| {
        node.wait(S);
        node.hear("s", at, &json!(level));
        let alarm = node.alarm("bld", "TOWER").unwrap();
        (alarm.active, alarm.severity, alarm.title.clone(), alarm.rule_key.clone())
    };
    for is_lost in [true, false] {
        let mut node = Node::new(TOWER);
        let before = hear(&mut node, "d4", 20);
        if is_lost {
            let mut parent = parent_of(&node);
            want(&mut parent);
            node = Node::new(TOWER);
            node.now = parent.now;
            carry(&parent, alarms::KNOWN, "c", &mut node);
        } else {
            node.reload("");
            node.reload(TOWER);
        }
        assert_eq!(hear(&mut node, "d1", 60).2, "d1 60");
        node.write_rows();
        node.restart();
        assert_eq!(hear(&mut node, "d1", 1), before);
        // What says neither is no word of it; what meets the condition is.
        hear(&mut node, "d1", 60);
        hear(&mut node, "d4", 3);
        assert_eq!(hear(&mut node, "d1", 1), before);
        hear(&mut node, "d1", 60);
        hear(&mut node, "d4", 21);
        assert_eq!(hear(&mut node, "d1", 1).2, "d4 21");
        assert!(!hear(&mut node, "d4", 1).0);
    }
}

#[test]
fn a_title_that_was_held_back_is_not_told_over_a_newer_word_of_another() {
    let mut node = Node::new(TOWER);
    let title = |node: &Node| node.alarm("bld", "TOWER").unwrap().title.clone();
    for level in 20..28 {
        node.hear("s", "d1", &json!(level));
    }
    assert_eq!(title(&node), "d1 25");
    node.wait(S);
    node.hear("s", "d2", &json!(30));
    assert_eq!(title(&node), "d2 30");
    node.wait(120 * S);
    assert_eq!(title(&node), "d2 30", "{:?}", node.said());
    node.hear("s", "d2", &json!(1));
    assert_eq!(title(&node), "d1 27");
    node.hear("s", "d1", &json!(1));
    assert!(!node.alarm("bld", "TOWER").unwrap().active);
}

#[test]
fn an_alarm_is_as_its_rule_says_by_now_with_the_next_event_that_meets_the_condition() {
    let rule = "[[rule]]\nname = \"a\"\non = [\"v\"]\nwhen = \"event.data > 1\"\nclear = \"event.data <= 1\"\nthen = [{ raise = { alarm = \"water\", severity = \"minor\", title = \"high\", reach = \"street\" } }]\n";
    for edited in [
        rule.replace("minor", "critical"),
        rule.replace("\"street\"", "\"city\""),
        rule.replace("\"high\"", "\"flood\""),
    ] {
        let mut node = Node::new(rule);
        let mut fresh = Node::new(&edited);
        node.hear("v", "x", &json!(2));
        node.wait(S);
        node.reload(&edited);
        node.hear("v", "x", &json!(2));
        fresh.hear("v", "x", &json!(2));
        let is =
            |node: &Node| node.alarm("water", "").map(|a| (a.severity, a.reach, a.title.clone(), a.raises)).unwrap();
        assert_eq!(is(&node), is(&fresh));
        let told = node.events(alarms::CHANGED).len();
        node.hear("v", "x", &json!(3));
        assert_eq!((told, node.events(alarms::CHANGED).len()), (1, 1), "once");
    }
}

/// Four that raise one alarm: by an event, after a while, until it is calm, until a window is empty.
const SHARED: [&str; 4] = [
    r#"
[[rule]]
name = "plain"
on = ["t"]
by = "event.subject"
when = "event.data >= 2"
clear = "event.data < 2"
then = [{ raise = { alarm = "x", key = "all", severity = "minor", title = "plain ${event.data}" } }]
"#,
    r#"
[[rule]]
name = "late"
on = ["t"]
by = "event.subject"
when = "event.data >= 3"
for = "30s"
clear = "event.data < 1"
calm = "30s"
then = [{ raise = { alarm = "x", key = "all", severity = "critical", title = "late" } }]
"#,
    r#"
[[rule]]
name = "calm"
on = ["t"]
when = "event.data == 1"
clear = "event.data != 1"
calm = "30s"
then = [{ raise = { alarm = "x", key = "all", severity = "${event.subject == 'k0' ? 'major' : 'minor'}", title = "calm" } }]
"#,
    r#"
[[rule]]
name = "full"
on = ["t"]
window = { within = "1m" }
when = "window.count >= 3"
for = "30s"
clear = "window.count < 2"
then = [{ raise = { alarm = "x", key = "all", severity = "major", title = "full" } }]
"#,
];

/// What may happen to those who raise it.
#[derive(Clone, Debug)]
enum Act {
    /// In one commit.
    Events(Vec<(u8, u8)>),
    Wait(i64),
    /// Nobody asks for what is due meanwhile.
    Sleep(i64),
    /// A person ends it, before what the event leads to is said.
    ClearedAfter(u8, u8),
    Restart,
    Reload(Vec<usize>),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let event = || (0u8..2, 0u8..4);
    let seconds = || prop::sample::select(vec![1, 15, 30, 60, 90]);
    let act = prop_oneof![
        6 => prop::collection::vec(event(), 1..4).prop_map(Act::Events),
        3 => seconds().prop_map(Act::Wait),
        2 => seconds().prop_map(Act::Sleep),
        2 => event().prop_map(|(key, value)| Act::ClearedAfter(key, value)),
        1 => Just(Act::Restart),
        1 => order().prop_map(Act::Reload),
    ];
    prop::collection::vec(act, 0..30)
}

/// Some of the rules, in any order.
fn order() -> impl Strategy<Value = Vec<usize>> {
    (Just(vec![0, 1, 2, 3]).prop_shuffle(), 2usize..5).prop_map(|(all, n)| all[..n].to_vec())
}

fn shared(order: &[usize]) -> String {
    order.iter().map(|i| SHARED[*i]).collect()
}

/// Those that are on, with how bad they say that it is.
fn on(node: &Node) -> Vec<(String, String, Severity)> {
    let memories = &node.rules.memories;
    let rules = (0..).zip(&node.rules.set.rules);
    let keys = rules.flat_map(|(i, rule)| memories.keys(i).iter().map(move |(key, state)| (rule, key, state)));
    let is_on = keys.filter(|(_, _, state)| state.on);
    is_on.map(|(rule, key, state)| (rule.name.clone(), key.clone(), state.raised[0].1)).collect()
}

fn act(node: &mut Node, act: &Act) {
    let hear = |node: &mut Node, (key, value): (u8, u8)| node.only_hear("t", &format!("k{key}"), &json!(value));
    match act {
        Act::Events(events) => events.iter().for_each(|event| hear(node, *event)),
        Act::Wait(s) => node.wait(s * S),
        Act::Sleep(s) => node.now += s * S,
        Act::ClearedAfter(key, value) => {
            hear(node, (*key, *value));
            let id = id_of(&node.config.node.address, "x", "all");
            if let Ok((_, drafts)) = node.rules.ask(&id, Wish::Clear, "Li", node.now) {
                drafts.into_iter().for_each(|d| node.commit(d));
            }
        }
        Act::Restart => node.restart(),
        Act::Reload(order) => {
            node.reload(&shared(order));
            node.write_rows();
        }
    }
    node.settle();
    node.now += 1;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whenever all is said, the alarm is active while one is on that raises it, is as bad as the worst of those, and
    /// is of one of them; and it ends.
    #[test]
    fn an_alarm_is_active_while_one_is_on_that_raises_it(order in order(), acts in acts()) {
        let mut node = Node::new(&shared(&order));
        for step in &acts {
            act(&mut node, step);
            let on = on(&node);
            let alarm = node.alarm("x", "all").filter(|a| a.active);
            let Some(alarm) = alarm else {
                prop_assert!(on.is_empty(), "{step:?}: {on:?} and no alarm");
                continue;
            };
            if on.is_empty() {
                prop_assert!(node.rules.is_left(alarm), "{step:?}: nobody ends {alarm:?}");
                continue;
            }
            prop_assert_eq!(Some(alarm.severity), on.iter().map(|(_, _, s)| *s).min(), "{:?}: {:?}", step, on);
            let holder = (alarm.rule.clone(), alarm.rule_key.clone(), alarm.severity);
            prop_assert!(on.contains(&holder), "{step:?}: {holder:?} is none of {on:?}");
        }
        act(&mut node, &Act::Reload(vec![0, 1, 2, 3]));
        for key in 0..2 {
            act(&mut node, &Act::Events(vec![(key, 0)]));
        }
        node.wait(200 * S);
        prop_assert!(node.alarm("x", "all").is_none_or(|a| !a.active), "{:?}", on(&node));
    }
}

#[test]
fn a_rule_raises_each_alarm_that_its_key_names() {
    let each = r#"
[[rule]]
name = "smoke"
on = ["s"]
when = "event.data"
clear = "!event.data"
then = [{ raise = { severity = "critical", title = "TITLE", key = "${event.subject}" } }]
[[rule]]
name = "other"
on = ["o"]
when = "event.data"
clear = "!event.data"
then = [{ raise = { alarm = "smoke", severity = "minor", title = "o", key = "d0" } }]
"#;
    for title in ["smoke", "smoke at ${event.subject}"] {
        let mut node = Node::new(&each.replace("TITLE", title));
        for i in (0..12).chain(0..12) {
            node.hear("s", &format!("d{i}"), &json!(true));
        }
        let active = node.rules.alarms.iter().filter(|a| a.active).count();
        assert_eq!((active, node.events(alarms::RAISED).len()), (12, 12), "{title}");
        node.write_rows();
        node.restart();
        // A lesser word on one of them that comes and goes ends nothing.
        for on in [true, false] {
            node.wait(S);
            node.hear("o", "x", &json!(on));
            let alarm = node.alarm("smoke", "d0").unwrap();
            assert_eq!((alarm.active, alarm.severity), (true, Severity::Critical), "{title} {on}");
        }
        node.wait(S);
        node.hear("s", "d3", &json!(false));
        assert_eq!(node.rules.alarms.iter().filter(|a| a.active).count(), 0, "{title}");
    }
}

#[test]
fn what_is_moved_is_an_alarm_at_each_place_until_it_is_over() {
    let moved = ROOM.replace("title = \"smoke in ${event.data.room}\"", "title = \"cart\"");
    let mut node = Node::new(&moved);
    for room in ["A", "B"] {
        node.hear("s", "cart", &json!({"on": true, "room": room}));
        node.wait(S);
    }
    // An edit that calls them as before changes nothing in that.
    node.reload(&moved.replace("\nwhen", "\nquiet = \"1s\"\nwhen"));
    node.hear("s", "cart", &json!({"on": true, "room": "C"}));
    for room in ["A", "B", "C"] {
        assert!(node.alarm("smoke", room).unwrap().active, "{room}");
    }
    node.wait(S);
    node.hear("s", "cart", &json!({"on": false, "room": "D"}));
    assert_eq!(node.rules.alarms.iter().filter(|a| a.active).count(), 0);
    assert_eq!(node.rules.alarms.len(), 3);
}
