//! Alarms that outlast what began them: a disk, a rule, a node; and those that several conditions share.

use super::edits::city_of;
use super::*;
use citybrain_hub::engine;
use citybrain_shared::Lane;

/// What one node says, as it comes to another.
fn carry(from: &Node, kind: &str, origin: &'static str, to: &mut Node) -> usize {
    let words: Vec<Vec<u8>> =
        from.log.iter().filter(|bytes| Header::decode(bytes).unwrap().0.name == kind).cloned().collect();
    for bytes in &words {
        let (header, payload) = Header::decode(bytes).unwrap();
        let origin = Some(Origin { address: origin, log: LogId(2), pos: Pos(1) });
        to.commit(Draft::new(&Header { origin, ..header }, payload).unwrap());
    }
    to.settle();
    words.len()
}

/// The parent of `c/s`, with all that has climbed to it.
pub(super) fn parent_of(node: &Node) -> Node {
    let mut parent = Node::new("");
    parent.config = parse("[node]\naddress = \"c\"\ndata = \"/x\"\n", &Variables::new()).config.unwrap();
    parent.rules = Rules::new(&parent.config);
    parent.now = node.now;
    for bytes in &node.log {
        let (header, payload) = Header::decode(bytes).unwrap();
        if header.direction == Direction::Up && header.reach == Tier::City {
            let origin = Some(Origin { address: "c/s", log: LogId(1), pos: Pos(1) });
            parent.commit(Draft::new(&Header { origin, ..header }, payload).unwrap());
        }
    }
    parent
}

#[test]
fn a_box_that_lost_its_disk_does_with_an_alarm_what_is_asked_of_it() {
    let mut lost = Node::new(SMOKE);
    lost.hear("city.smoke.v1", "f", &json!({"on": true}));
    let before = lost.alarm("smoke", "f").unwrap().clone();
    for (wish, shelved, active) in [
        (Wish::Acknowledge, false, true),
        (Wish::Shelve { until_us: 9_000 * S }, true, true),
        (Wish::Clear, false, false),
    ] {
        let mut parent = parent_of(&lost);
        let (_, drafts) = parent.rules.ask(&before.id, wish.clone(), "Li", parent.now).unwrap();
        drafts.into_iter().for_each(|d| parent.commit(d));
        let mut anew = Node::new(SMOKE);
        anew.now = lost.now + S;
        assert_eq!(carry(&parent, alarms::ASK, "c", &mut anew), 1);
        let (here, above) = (anew.alarm("smoke", "f").unwrap(), city_of(&anew).alarms.get(&before.id).unwrap().clone());
        assert_eq!((here.active, here.shelved_until.is_some()), (active, shelved), "{wish:?}");
        assert_eq!(here.acknowledged_by.as_deref(), (wish == Wish::Acknowledge).then_some("Li"));
        assert_eq!((here.severity, &here.title, here.raised_at), (before.severity, &before.title, before.raised_at));
        assert_eq!((&above, above.rev > before.rev), (here, true));
    }
}

#[test]
fn what_a_new_box_has_raised_by_itself_is_not_what_somebody_saw_of_the_one_before() {
    let mut lost = Node::new(SMOKE);
    lost.hear("city.smoke.v1", "f", &json!({"on": true}));
    let before = lost.alarm("smoke", "f").unwrap().clone();
    for wish in [Wish::Acknowledge, Wish::Clear] {
        let mut parent = parent_of(&lost);
        let (_, drafts) = parent.rules.ask(&before.id, wish, "Li", parent.now).unwrap();
        drafts.into_iter().for_each(|d| parent.commit(d));
        let mut anew = Node::new(SMOKE);
        anew.now = lost.now + 60 * S;
        anew.hear("city.smoke.v1", "f", &json!({"on": true}));
        assert_eq!(carry(&parent, alarms::ASK, "c", &mut anew), 1);
        let here = anew.alarm("smoke", "f").unwrap();
        assert_eq!((here.active, here.acknowledged_by.as_ref()), (true, None), "{here:?}");
        assert!(here.raised_at > before.raised_at);
    }
}

#[test]
fn a_box_that_lost_its_disk_learns_which_alarms_are_active_and_ends_them() {
    let mut lost = Node::new(SMOKE);
    for at in ["f", "g", "h"] {
        lost.hear("city.smoke.v1", at, &json!({"on": true}));
    }
    lost.wait(S);
    lost.hear("city.smoke.v1", "h", &json!({"on": false}));
    let mut parent = parent_of(&lost);
    let wanted = "city.brain.case.wanted";
    let ask = json!({"specversion": "1.0", "id": "w", "source": "/c/s", "type": wanted, "data": {}});
    let origin = Some(Origin { address: "c/s", log: LogId(3), pos: Pos(1) });
    let header = Header { direction: Direction::Up, origin, ..Header::local(Kind::Event, wanted) };
    parent.commit(Draft::new(&header, ask.to_string().as_bytes()).unwrap());
    parent.settle();
    let mut anew = Node::new(SMOKE);
    anew.now = lost.now + 60 * S;
    // One that it has heard of itself meanwhile is as it says.
    anew.hear("city.smoke.v1", "g", &json!({"on": true}));
    anew.now += S;
    anew.hear("city.smoke.v1", "g", &json!({"on": false}));
    assert_eq!(carry(&parent, alarms::KNOWN, "c", &mut anew), 3, "those that are active, and the newest");
    assert_eq!(anew.alarm("smoke", "f"), lost.alarm("smoke", "f"));
    assert!(["g", "h"].iter().all(|at| !anew.alarm("smoke", at).unwrap().active));
    anew.write_rows();
    anew.restart();
    // It goes on: that is no news. And it ends.
    anew.hear("city.smoke.v1", "f", &json!({"on": true}));
    assert_eq!((anew.fired("smoke"), anew.alarm("smoke", "f").unwrap().raises), (1, 1), "{:?}", anew.said());
    anew.now += S;
    anew.hear("city.smoke.v1", "f", &json!({"on": false}));
    let id = anew.alarm("smoke", "f").unwrap().id.clone();
    assert!(!city_of(&anew).alarms.get(&id).unwrap().active);
    anew.now += S;
    anew.hear("city.smoke.v1", "f", &json!({"on": true}));
    assert_eq!(anew.alarm("smoke", "f").unwrap().raises, 2);
}

#[test]
fn a_box_says_once_more_which_alarms_are_active_to_a_box_above_that_lost_its_disk() {
    let mut node = Node::new(SMOKE);
    for at in ["f", "g"] {
        node.hear("city.smoke.v1", at, &json!({"on": true}));
    }
    node.wait(S);
    node.hear("city.smoke.v1", "g", &json!({"on": false}));
    let before = node.alarm("smoke", "f").unwrap().clone();
    let answers = |node: &mut Node, lane: Lane, met: bool| {
        let present = "city.brain.case.present";
        let data = json!({"node": "c", "log": LogId(7), "n": 2, "met": met});
        let event = json!({"specversion": "1.0", "id": format!("{lane}.{met}"), "source": "/c/s", "type": present, "data": data});
        let header = Header { direction: Direction::Up, lane, ..Header::local(Kind::Event, present) };
        node.log.clear();
        node.commit(Draft::new(&header, event.to_string().as_bytes()).unwrap());
        node.settle();
        parent_of(node)
    };
    assert!(before.severity.is_urgent());
    // Nobody else was there, or it goes by the other lane.
    for (lane, met) in [(Lane::Urgent, false), (Lane::Routine, true)] {
        assert!(answers(&mut node, lane, met).rules.alarms.is_empty(), "{lane} {met}");
    }
    let parent = answers(&mut node, Lane::Urgent, true);
    let known: Vec<&Alarm> = parent.rules.alarms.iter().collect();
    assert_eq!(known, [&Alarm { rev: before.rev + 1, ..before }], "the one that is active, and as it was");
}

#[test]
fn a_device_that_speaks_ends_an_absence_of_which_the_box_knows_from_before_only() {
    let mut lost = Node::new(OFFLINE);
    lost.hear("city.lamp", "l", &json!({}));
    lost.wait(700 * S);
    let known = lost.alarm("offline", "l").unwrap().clone();
    let mut anew = Node::new(
        OFFLINE
            .split_once("[[rule]]\nname = \"offline\"")
            .map(|(_, rule)| format!("[[rule]]\nname = \"offline\"{rule}"))
            .unwrap()
            .as_str(),
    );
    anew.now = lost.now;
    anew.rules.alarms.fold(known);
    anew.hear("city.lamp", "l", &json!({}));
    assert!(!anew.alarm("offline", "l").unwrap().active);
}

#[test]
fn a_rule_that_is_back_ends_what_it_had_raised() {
    let rule = "[[rule]]\nname = \"ww\"\non = [\"n\"]\nwindow = { within = \"10m\", value = \"event.data\" }\nwhen = \"window.sum > 9\"\nclear = \"window.sum <= 5\"\ncalm = \"1m\"\nthen = [{ raise = { title = \"x\" } }]\n";
    let mut node = Node::new(rule);
    node.hear("n", "x", &json!(10));
    node.reload("");
    node.write_rows();
    assert_eq!(node.rules.left().count(), 1);
    node.reload(rule);
    assert_eq!(node.rules.left().count(), 0);
    node.wait(S);
    node.hear("n", "x", &json!(1));
    assert!(node.alarm("ww", "").unwrap().active, "it must be calm for a minute");
    node.wait(61 * S);
    assert!(!node.alarm("ww", "").unwrap().active);
}

#[test]
fn the_alarms_of_a_node_that_was_taken_out_of_the_tree_are_over_until_it_is_back() {
    let mut node = Node::new(SMOKE);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    let mut parent = parent_of(&node);
    let id = node.alarm("smoke", "f").unwrap().id.clone();
    let [parent_is, node_is] = ["c", "c/s"].map(|a| Address::parse(a).unwrap());
    let say = |parent: &mut Node, is_gone: bool| {
        parent.now += S;
        parent.commit(engine::subtree(&parent_is, &node_is, is_gone, &format!("{}", parent.now)));
        let alarm = parent.rules.alarms.get(&id).unwrap();
        (alarm.active, alarm.cleared_by.clone(), alarm.cleared_at.is_some())
    };
    assert_eq!(say(&mut parent, true), (false, Some(Alarm::RETIRED.into()), true));
    assert_eq!(say(&mut parent, false), (true, None, false));
    // A word that was on its way changes nothing, also after a start; nor does what it raised by then.
    say(&mut parent, true);
    node.wait(S);
    node.hear("city.smoke.v1", "g", &json!({"on": true}));
    parent.write_rows();
    parent.restart();
    assert_eq!(carry(&node, alarms::RAISED, "c/s", &mut parent), 2);
    assert!(parent.rules.alarms.iter().all(|a| !a.active) && parent.rules.alarms.len() == 2);
    node.wait(60 * S);
    node.hear("city.smoke.v1", "f", &json!({"on": false}));
    let cleared = |node: &Node, parent: &mut Node| carry(node, alarms::CLEARED, "c/s", parent);
    assert_eq!(cleared(&node, &mut parent), 1);
    assert_eq!(say(&mut parent, false), (false, Some("rule:smoke".into()), true));
}

const GATEWAY: &str = r#"
[[rule]]
name = "gw"
on = ["gw"]
by = "event.subject"
when = "event.data == 0"
clear = "event.data == 1"
then = [{ raise = { title = "gateway" } }]
"#;

/// A rule for devices behind it.
pub(super) fn behind(more: &str) -> String {
    format!(
        "{GATEWAY}[[rule]]\nname = \"dev\"\non = [\"dev\"]\nby = \"event.subject\"\nwhen = \"event.data == 0\"\nclear = \"event.data == 1\"\n{more}\nthen = [{{ raise = {{ title = \"dev\" }} }}]\n"
    )
}

#[test]
fn what_another_alarm_held_back_is_raised_when_that_ends_and_it_still_holds() {
    for (more, after) in [("", 0), ("for = \"2s\"", 2), ("quiet = \"2s\"", 0)] {
        for first in ["gw", "dev"].into_iter().filter(|first| *first == "gw" || after > 0) {
            let mut node = Node::new(&behind(&format!("unless_alarm = \"gw/*\"\n{more}")));
            let second = if first == "gw" { "dev" } else { "gw" };
            node.hear(first, "d", &json!(0));
            node.wait(S);
            node.hear(second, "d", &json!(0));
            node.hear("dev", "well", &json!(0));
            node.hear("dev", "well", &json!(1));
            node.wait(60 * S);
            assert!(node.alarm("dev", "d").is_none(), "{first} {more}");
            node.write_rows();
            node.restart();
            node.hear("gw", "d", &json!(1));
            if after > 0 {
                node.wait(after * S - 1);
                assert!(node.alarm("dev", "d").is_none(), "{first} {more}: it counts since the other has ended");
            }
            node.wait(1);
            assert_eq!(node.alarm("dev", "d").map(|a| (a.active, a.raises)), Some((true, 1)), "{first} {more}");
            assert!(node.alarm("dev", "well").is_none());
            node.hear("dev", "d", &json!(1));
            assert!(!node.alarm("dev", "d").unwrap().active);
        }
    }
}

#[test]
fn what_has_held_long_enough_too_soon_behind_the_last_time_is_raised_when_it_may_be() {
    let mut node = Node::new(&behind("for = \"2s\"\nquiet = \"10s\""));
    node.hear("dev", "d", &json!(0));
    node.wait(3 * S);
    node.hear("dev", "d", &json!(1));
    node.hear("dev", "d", &json!(0));
    node.wait(9 * S - 1);
    assert_eq!(node.alarm("dev", "d").unwrap().raises, 1);
    node.wait(1);
    assert_eq!(node.alarm("dev", "d").map(|a| (a.active, a.raises)), Some((true, 2)));
}

#[test]
fn what_holds_is_raised_as_soon_as_the_alarm_begins_that_it_waits_for() {
    let mut node = Node::new(&behind("while_alarm = \"gw\""));
    node.hear("dev", "a", &json!(0));
    node.hear("dev", "b", &json!(0));
    node.hear("gw", "a", &json!(0));
    assert!(node.alarm("dev", "a").unwrap().active && node.alarm("dev", "b").is_none());
    // An edit of the rule in between loses nothing.
    node.reload(&behind("while_alarm = \"gw\"\nquiet = \"1s\""));
    node.hear("gw", "b", &json!(0));
    assert!(node.alarm("dev", "b").unwrap().active);
}

#[test]
fn an_absence_that_another_alarm_held_back_is_told_when_that_lets_it_be() {
    for (more, before, after) in [("unless_alarm = \"gw/*\"", 0, 1), ("while_alarm = \"gw/*\"", 1, 0)] {
        let silent = format!(
            "{GATEWAY}[[rule]]\nname = \"dev\"\non = [\"dev\"]\nby = \"event.subject\"\nabsent = \"1h\"\n{more}\nthen = [{{ raise = {{ title = \"dev\" }} }}]\n"
        );
        let mut node = Node::new(&silent);
        node.hear("gw", "d", &json!(before));
        node.hear("dev", "d", &json!(0));
        node.wait(3_700 * S);
        node.hear("dev", "late", &json!(0));
        node.wait(S);
        assert!(node.alarm("dev", "d").is_none(), "{more}");
        node.hear("gw", "d", &json!(after));
        assert!(node.alarm("dev", "d").is_some_and(|a| a.active), "{more}");
        assert!(node.alarm("dev", "late").is_none(), "{more}: that one has not been silent for long enough");
        node.wait(3_600 * S);
        assert!(node.alarm("dev", "late").is_some_and(|a| a.active), "{more}");
    }
}

/// Two levels of one alarm.
pub(super) const LEVELS: &str = r#"
[[rule]]
name = "high"
on = ["v"]
when = "event.data > 10"
clear = "event.data <= 10"
then = [{ raise = { alarm = "water", severity = "warning", title = "high: ${event.data}" } }]
[[rule]]
name = "flood"
on = ["v"]
when = "event.data > 50"
clear = "event.data <= 50"
then = [{ raise = { alarm = "water", severity = "critical", title = "flood: ${event.data}" } }]
"#;

#[test]
fn an_alarm_of_two_levels_is_as_bad_as_the_worse_one_and_ends_with_the_last() {
    let mut node = Node::new(LEVELS);
    let hear = |node: &mut Node, level: i64| {
        node.wait(S);
        node.hear("v", "x", &json!(level));
        let alarm = node.alarm("water", "").unwrap();
        (alarm.active, alarm.severity, alarm.title.clone())
    };
    assert_eq!(hear(&mut node, 20), (true, Severity::Warning, "high: 20".into()));
    assert_eq!(hear(&mut node, 60), (true, Severity::Critical, "flood: 60".into()));
    let before = node.events(alarms::CHANGED).len();
    assert_eq!(hear(&mut node, 61), (true, Severity::Critical, "flood: 61".into()));
    assert_eq!(node.events(alarms::CHANGED).len(), before + 1, "it does not change to and fro");
    assert_eq!(hear(&mut node, 30), (true, Severity::Warning, "high: 30".into()));
    node.write_rows();
    node.restart();
    assert!(!hear(&mut node, 5).0);
    assert_eq!(node.alarm("water", "").unwrap().raises, 1);
    // By one event, both.
    assert!(hear(&mut node, 70).0);
    assert!(!hear(&mut node, 5).0);
}

pub(super) const ROOM: &str = r#"
[[rule]]
name = "smoke"
on = ["s"]
by = "event.subject"
when = "event.data.on"
clear = "!event.data.on"
then = [{ raise = { key = "${event.data.room}", title = "smoke in ${event.data.room}" } }]
"#;

#[test]
fn an_alarm_that_two_detectors_share_is_over_when_both_are() {
    let mut node = Node::new(ROOM);
    let hear = |node: &mut Node, at: &str, on: bool| {
        node.wait(S);
        node.hear("s", at, &json!({"on": on, "room": "hall"}));
        node.alarm("smoke", "hall").unwrap().active
    };
    assert!(hear(&mut node, "a", true) && hear(&mut node, "b", true));
    assert!(hear(&mut node, "a", false), "the other still smells it");
    node.write_rows();
    node.restart();
    assert!(!hear(&mut node, "b", false));
    assert_eq!((node.events(alarms::RAISED).len(), node.events(alarms::CLEARED).len()), (1, 1));
    // Ended by a person, either may begin it again.
    for again in ["a", "b"] {
        assert!(hear(&mut node, "a", true) && hear(&mut node, "b", true));
        let id = node.alarm("smoke", "hall").unwrap().id.clone();
        node.wait(S);
        let (_, drafts) = node.rules.ask(&id, Wish::Clear, "Li", node.now).unwrap();
        drafts.into_iter().for_each(|d| node.commit(d));
        assert!(hear(&mut node, again, true), "{again}");
    }
}

#[test]
fn what_ends_and_begins_again_before_anything_is_said_stays_an_alarm_that_ends() {
    for rules in [SMOKE, ROOM] {
        let kind = if rules == SMOKE { "city.smoke.v1" } else { "s" };
        let mut node = Node::new(rules);
        node.hear(kind, "f", &json!({"on": true, "room": "f"}));
        node.wait(S);
        node.only_hear(kind, "f", &json!({"on": false, "room": "f"}));
        node.only_hear(kind, "f", &json!({"on": true, "room": "f"}));
        node.settle();
        assert_eq!(node.alarm("smoke", "f").map(|a| (a.active, a.raises)), Some((true, 2)));
        node.wait(S);
        node.hear(kind, "f", &json!({"on": false, "room": "f"}));
        assert!(!node.alarm("smoke", "f").unwrap().active);
    }
}

/// Rules that do something beside, at a node that has a parent or none.
fn doing(parent: &str) -> Node {
    let rules = r#"
[[rule]]
name = "valve"
on = ["leak"]
by = "event.subject"
when = "event.data > 5"
clear = "event.data < 2"
then = [
  { raise = { title = "leak" } }, { emit = { type = "leaked", reach = "street" } },
  { case = { category = "leak", title = "x" } }, { notice = { target = "c/s/**", type = "shut" } },
]
[[rule]]
name = "silent"
on = ["leak"]
by = "event.subject"
absent = "1h"
then = [{ raise = { title = "silent" } }, { emit = { type = "fell-silent", reach = "street" } }]
"#;
    Node::new(&format!("{parent}{rules}"))
}

const PARENT: &str = "[parent]\nurl = \"mqtt://c:1883\"\n";

/// An event from below, which the box that was here before had, or not.
fn hear_again(node: &mut Node, subject: &str, data: &Json, had_before: bool) {
    let id = format!("b{}", node.log.len());
    let event =
        json!({"specversion": "1.0", "id": id, "source": "/d", "type": "leak", "subject": subject, "data": data});
    let origin = Some(Origin { address: "c/s/a", log: LogId(1), pos: Pos(1) });
    let header = Header { direction: Direction::Up, origin, had_before, ..Header::local(Kind::Event, "leak") };
    node.commit(Draft::new(&header, event.to_string().as_bytes()).unwrap());
    node.settle();
}

fn done(node: &Node) -> [usize; 4] {
    ["leaked", "city.appeal", "shut", "fell-silent"].map(|kind| node.events(kind).len())
}

#[test]
fn a_new_box_does_nothing_again_that_the_one_before_had_done() {
    for (parent, raised) in [(PARENT, 0), ("", 1)] {
        let mut node = doing(parent);
        hear_again(&mut node, "a", &json!(9), true);
        hear_again(&mut node, "b", &json!(9), true);
        hear_again(&mut node, "b", &json!(1), true);
        assert_eq!(done(&node), [0; 4], "{:?}", node.said());
        // Where nobody above knows what was active, it is found anew.
        let active = node.rules.alarms.iter().filter(|a| a.active).count();
        assert_eq!(active, raised, "{parent}");
        node.write_rows();
        node.restart();
        // What comes then is news.
        hear_again(&mut node, "b", &json!(9), false);
        assert_eq!(done(&node), [1, 1, 1, 0]);
        assert!(node.alarm("valve", "b").unwrap().active);
        hear_again(&mut node, "a", &json!(1), false);
        assert!(node.alarm("valve", "a").is_none_or(|a| !a.active));
    }
}

#[test]
fn a_new_box_misses_whoever_has_fallen_silent_with_the_one_before() {
    let mut node = doing(PARENT);
    hear_again(&mut node, "a", &json!(1), true);
    hear_again(&mut node, "b", &json!(1), true);
    node.wait(1_800 * S);
    hear_again(&mut node, "b", &json!(1), false);
    node.wait(1_800 * S);
    assert!(node.alarm("silent", "a").is_some_and(|a| a.active));
    assert!(node.alarm("silent", "b").is_none());
    assert_eq!(done(&node), [0; 4], "whatever it did then, the box before may have done");
    // What it said before is no sign of life.
    hear_again(&mut node, "a", &json!(1), true);
    assert!(node.alarm("silent", "a").unwrap().active);
    hear_again(&mut node, "a", &json!(1), false);
    assert!(!node.alarm("silent", "a").unwrap().active);
    node.wait(3_600 * S);
    assert_eq!(done(&node), [0, 0, 0, 2]);
}

/// One rule raises what another ends; both do something beside.
fn ended_by_another(parent: &str, reach: &str) -> Node {
    let rules = r#"
[[rule]]
name = "hot"
on = ["leak"]
by = "event.subject"
when = "event.data == 9"
then = [{ raise = { title = "hot", reach = "REACH" } }, { emit = { type = "leaked", reach = "street" } }]
[[rule]]
name = "cool"
on = ["leak"]
by = "event.subject"
when = "event.data == 1"
then = [{ clear = { alarm = "hot" } }, { notice = { target = "c/s/**", type = "shut" } }]
"#;
    Node::new(&format!("{parent}{}", rules.replace("REACH", reach)))
}

#[test]
fn what_a_clear_of_another_rule_had_ended_is_not_raised_for_good_where_nobody_above_knows_it() {
    for (parent, reach) in [("", "city"), (PARENT, "street")] {
        let mut node = ended_by_another(parent, reach);
        for (subject, data) in [("a", 9), ("b", 9), ("a", 1)] {
            hear_again(&mut node, subject, &json!(data), true);
        }
        assert!(!node.alarm("hot", "a").unwrap().active, "{reach}");
        assert!(node.alarm("hot", "b").unwrap().active, "{reach}");
        assert_eq!(done(&node), [0; 4], "{:?}", node.said());
    }
}

#[test]
fn what_had_been_ended_before_ends_nothing_that_the_parent_knows_to_be_active() {
    let mut node = ended_by_another(PARENT, "city");
    hear_again(&mut node, "a", &json!(9), false);
    hear_again(&mut node, "a", &json!(1), true);
    assert!(node.alarm("hot", "a").unwrap().active);
    hear_again(&mut node, "a", &json!(1), false);
    assert!(!node.alarm("hot", "a").unwrap().active);
}

/// Asks the parent as a box with an empty disk does.
fn want(parent: &mut Node) {
    let wanted = "city.brain.case.wanted";
    let ask = json!({"specversion": "1.0", "id": "w", "source": "/c/s", "type": wanted, "data": {}});
    let origin = Some(Origin { address: "c/s", log: LogId(3), pos: Pos(1) });
    let header = Header { direction: Direction::Up, origin, ..Header::local(Kind::Event, wanted) };
    parent.commit(Draft::new(&header, ask.to_string().as_bytes()).unwrap());
    parent.settle();
}

/// What the parent has by then of what the box says.
fn climb(node: &Node, parent: &mut Node, from: usize) {
    for bytes in &node.log[from..] {
        let (header, payload) = Header::decode(bytes).unwrap();
        if header.direction == Direction::Up && header.reach == Tier::City {
            let origin = Some(Origin { address: "c/s", log: LogId(4), pos: Pos(1) });
            parent.commit(Draft::new(&Header { origin, ..header }, payload).unwrap());
        }
    }
    parent.settle();
}

#[test]
fn what_a_new_box_with_a_clock_behind_raises_is_seen_above() {
    for before in [true, false] {
        let mut lost = Node::new(SMOKE);
        lost.now = 10_000 * S;
        for on in [true, false] {
            lost.hear("city.smoke.v1", "f", &json!({"on": on}));
            lost.wait(S);
        }
        let id = lost.alarm("smoke", "f").unwrap().id.clone();
        let mut parent = parent_of(&lost);
        want(&mut parent);
        let mut anew = Node::new(SMOKE);
        anew.now = lost.now - 3_600 * S;
        for answered in [false, true] {
            if answered {
                carry(&parent, alarms::KNOWN, "c", &mut anew);
            }
            if answered != before {
                anew.hear("city.smoke.v1", "f", &json!({"on": true}));
            }
        }
        climb(&anew, &mut parent, 0);
        assert!(parent.rules.alarms.get(&id).unwrap().active, "{before}");
        // Also after a start, with the right clock or a wrong one.
        anew.write_rows();
        anew.restart();
        let from = anew.log.len();
        for on in [false, true] {
            anew.hear("city.smoke.v1", "f", &json!({"on": on}));
            climb(&anew, &mut parent, from);
            assert_eq!(parent.rules.alarms.get(&id).unwrap().active, on, "{before}");
        }
    }
}

/// One alarm of a building, as bad as each detector says.
const TOWER: &str = r#"
[[rule]]
name = "bld"
on = ["s"]
by = "event.subject"
when = "event.data > 5"
clear = "event.data < 2"
then = [{ raise = { key = "TOWER", severity = "${event.data > 50 ? 'critical' : 'minor'}", title = "${event.subject} ${event.data}" } }]
"#;

#[test]
fn the_word_of_another_device_ends_nothing_that_a_new_box_has_yet_to_hear_of() {
    // The other one is heard before the parent answers: it begins, or begins and ends.
    for heard in [vec![20], vec![20, 1]] {
        let mut lost = Node::new(TOWER);
        lost.hear("s", "d2", &json!(60));
        let mut parent = parent_of(&lost);
        want(&mut parent);
        let mut anew = Node::new(TOWER);
        anew.now = lost.now + 60 * S;
        for level in &heard {
            anew.hear("s", "d1", &json!(level));
            anew.wait(S);
        }
        carry(&parent, alarms::KNOWN, "c", &mut anew);
        let here = |node: &Node| {
            let alarm = node.alarm("bld", "TOWER").unwrap();
            (alarm.active, alarm.severity, alarm.title.clone())
        };
        assert_eq!(here(&anew), (true, Severity::Critical, "d2 60".into()), "{heard:?}");
        assert_eq!(Some(city_of(&anew).alarms.iter().next().unwrap()), anew.alarm("bld", "TOWER"));
        anew.wait(S);
        anew.hear("s", "d1", &json!(1));
        assert_eq!(here(&anew), (true, Severity::Critical, "d2 60".into()), "{heard:?}");
        anew.wait(S);
        anew.hear("s", "d2", &json!(1));
        assert!(!here(&anew).0, "{heard:?}");
    }
}

#[test]
fn what_was_over_before_a_new_box_heard_of_it_ends_when_it_does() {
    for (more, waits) in [("", 0), ("calm = \"1m\"\n", 60)] {
        let rules = SMOKE.replace("when =", &format!("{more}when ="));
        let mut lost = Node::new(&rules);
        for at in ["f", "g"] {
            lost.hear("city.smoke.v1", at, &json!({"on": true}));
        }
        let mut parent = parent_of(&lost);
        want(&mut parent);
        let mut anew = Node::new(&rules);
        anew.now = lost.now + 60 * S;
        anew.hear("city.smoke.v1", "f", &json!({"on": false}));
        anew.hear("city.smoke.v1", "g", &json!({"on": null}));
        anew.write_rows();
        anew.restart();
        assert_eq!(carry(&parent, alarms::KNOWN, "c", &mut anew), 2);
        if waits > 0 {
            anew.wait(waits * S - 1);
            assert!(anew.alarm("smoke", "f").unwrap().active);
            anew.wait(1);
        }
        assert!(!anew.alarm("smoke", "f").unwrap().active, "{more}: {:?}", anew.said());
        assert_eq!(anew.alarm("smoke", "f").unwrap().cleared_by.as_deref(), Some("rule:smoke"));
        assert!(anew.alarm("smoke", "g").unwrap().active, "{more}: what says neither ends nothing");
        let id = anew.alarm("smoke", "f").unwrap().id.clone();
        assert!(!city_of(&anew).alarms.get(&id).unwrap().active);
        anew.wait(S);
        anew.hear("city.smoke.v1", "f", &json!({"on": true}));
        assert_eq!(anew.alarm("smoke", "f").map(|a| (a.active, a.raises)), Some((true, 2)), "{more}");
    }
}

#[test]
fn a_new_box_whose_clock_is_behind_says_once_more_what_it_has_said_itself_and_nothing_of_what_is_known_above() {
    let mut lost = Node::new(SMOKE);
    for flat in 0..8 {
        lost.hear("city.smoke.v1", &format!("f{flat}"), &json!({"on": true}));
        lost.wait(S);
    }
    let mut parent = parent_of(&lost);
    want(&mut parent);
    let mut anew = Node::new(SMOKE);
    anew.now = S;
    anew.hear("city.smoke.v1", "own", &json!({"on": true}));
    assert_eq!(carry(&parent, alarms::KNOWN, "c", &mut anew), 8);
    let told: Vec<Json> = anew.events(alarms::CHANGED).into_iter().map(|e| e["subject"].clone()).collect();
    assert_eq!(told, ["own"]);
    let rev = |node: &Node, at: &str| node.alarm("smoke", at).unwrap().rev;
    assert!(rev(&anew, "own") > rev(&lost, "f7"));
    assert!((0..8).map(|n| format!("f{n}")).all(|flat| rev(&anew, &flat) == rev(&lost, &flat)));
}
