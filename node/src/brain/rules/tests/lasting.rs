//! Alarms that outlast what began them: a disk, a rule, a node; and those that several conditions share.

use super::edits::city_of;
use super::*;
use citybrain_hub::engine;
use citybrain_shared::Lane;

/// What one node says, as it comes to another.
pub(super) fn carry(from: &Node, kind: &str, origin: &'static str, to: &mut Node) -> usize {
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
    node.hear("n", "x", &json!(1));
    node.wait(660 * S - 1);
    assert!(node.alarm("ww", "").unwrap().active, "the window must be whole again, and it calm for a minute");
    node.wait(1);
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
pub(super) fn want(parent: &mut Node) {
    only_want(parent, NEW_BOX, 0);
    parent.settle();
}

/// The history of the box that comes in place of another.
const NEW_BOX: LogId = LogId(4);

/// `alarms`: the newest revision that the box knows of its own alarms.
fn only_want(parent: &mut Node, log: LogId, alarms: i64) {
    let wanted = "city.brain.case.wanted";
    let data = json!({"node": "c/s", "log": log, "n": 0, "alarms": alarms});
    let ask = json!({"specversion": "1.0", "id": "w", "source": "/c/s", "type": wanted, "data": data});
    let origin = Some(Origin { address: "c/s", log, pos: Pos(1) });
    let header = Header { direction: Direction::Up, origin, ..Header::local(Kind::Event, wanted) };
    parent.commit(Draft::new(&header, ask.to_string().as_bytes()).unwrap());
}

/// What the parent has by then of what the box says.
fn climb(node: &Node, parent: &mut Node, from: usize) {
    only_climb(node, parent, from);
    parent.settle();
}

/// In one frame.
fn only_climb(node: &Node, parent: &mut Node, from: usize) {
    for bytes in &node.log[from..] {
        let (header, payload) = Header::decode(bytes).unwrap();
        if header.direction == Direction::Up && header.reach == Tier::City {
            let origin = Some(Origin { address: "c/s", log: NEW_BOX, pos: Pos(1) });
            parent.commit(Draft::new(&Header { origin, ..header }, payload).unwrap());
        }
    }
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
pub(super) const TOWER: &str = r#"
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
fn what_people_did_with_an_alarm_stands_though_another_device_was_heard_before_a_new_box_knew_of_it() {
    use Severity::{Critical, Minor};
    // The other one says less and may be over by then, as much, or worse.
    for (level, heard, is_seen, severity, title) in [
        (60, vec![20], true, Critical, "d2 60"),
        (60, vec![20, 1], true, Critical, "d2 60"),
        (60, vec![70], true, Critical, "d1 70"),
        (20, vec![70], false, Critical, "d1 70"),
        (20, vec![70, 1], true, Minor, "d2 20"),
    ] {
        let mut lost = Node::new(TOWER);
        lost.hear("s", "d2", &json!(level));
        for wish in [Wish::Acknowledge, Wish::Shelve { until_us: 9_000 * S }] {
            lost.wait(S);
            let id = lost.alarm("bld", "TOWER").unwrap().id.clone();
            let (_, drafts) = lost.rules.ask(&id, wish, "Li", lost.now).unwrap();
            drafts.into_iter().for_each(|d| lost.commit(d));
            lost.settle();
        }
        let before = lost.alarm("bld", "TOWER").unwrap().clone();
        let mut parent = parent_of(&lost);
        want(&mut parent);
        let mut anew = Node::new(TOWER);
        anew.now = lost.now + 60 * S;
        for said in &heard {
            anew.hear("s", "d1", &json!(said));
            anew.wait(S);
        }
        assert_eq!(carry(&parent, alarms::KNOWN, "c", &mut anew), 1);
        let here = anew.alarm("bld", "TOWER").unwrap();
        let how = format!("{level} {heard:?}: {here:?}");
        assert_eq!((here.active, here.severity, here.title.as_str()), (true, severity, title), "{how}");
        assert_eq!((here.acknowledged, here.shelved_until.is_some()), (is_seen, is_seen), "{how}");
        assert_eq!(here.acknowledged_by.as_deref(), is_seen.then_some("Li"), "{how}");
        let since = |a: &Alarm| (a.raised_at, a.first_raised_at, a.raises);
        assert_eq!(since(here), since(&before), "{how}");
        assert!(here.changed_at.first().is_some_and(|at| *at > here.raised_at), "{how}");
        assert_eq!(city_of(&anew).alarms.iter().next(), Some(here), "the same at every tier");
    }
}

#[test]
fn a_parent_gives_back_what_it_knew_before_the_first_word_of_a_new_box() {
    // What the new box says comes before its question, as urgent words do, or behind it; in one frame, or each alone;
    // and the parent is killed in between, or not.
    for (level, asks_first) in [(20, true), (20, false), (70, true), (70, false)] {
        for (in_one_frame, over, killed) in
            [(true, false, false), (false, false, false), (true, true, false), (false, true, true)]
        {
            let what = (level, asks_first, in_one_frame, over, killed);
            let mut lost = Node::new(TOWER);
            lost.hear("s", "d2", &json!(60));
            let mut parent = parent_of(&lost);
            let mut anew = Node::new(TOWER);
            anew.now = lost.now + 60 * S;
            parent.now = anew.now;
            anew.hear("s", "d1", &json!(level));
            if over {
                anew.wait(S);
                anew.hear("s", "d1", &json!(1));
            }
            let settle = |parent: &mut Node| {
                if !in_one_frame {
                    parent.settle();
                }
                if killed {
                    parent.write_rows();
                    parent.restart();
                }
            };
            if asks_first {
                only_want(&mut parent, NEW_BOX, 0);
                settle(&mut parent);
            }
            only_climb(&anew, &mut parent, 0);
            settle(&mut parent);
            if !asks_first {
                only_want(&mut parent, NEW_BOX, 0);
            }
            parent.settle();
            let known: Vec<_> = parent.events(alarms::KNOWN).iter().map(|e| e["data"]["title"].clone()).collect();
            assert_eq!(known, ["d2 60"], "{what:?}");
            let from = anew.log.len();
            anew.wait(S);
            carry(&parent, alarms::KNOWN, "c", &mut anew);
            climb(&anew, &mut parent, from);
            let id = anew.alarm("bld", "TOWER").unwrap().id.clone();
            let above = |parent: &Node| {
                let alarm = parent.rules.alarms.get(&id).unwrap();
                (alarm.active, alarm.severity)
            };
            assert_eq!(above(&parent), (true, Severity::Critical), "{what:?}");
            for (at, is_active) in [("d1", true), ("d2", false)] {
                anew.wait(S);
                let from = anew.log.len();
                anew.hear("s", at, &json!(1));
                climb(&anew, &mut parent, from);
                assert_eq!(above(&parent).0, is_active, "{at} {what:?}");
            }
        }
    }
}

#[test]
fn a_box_that_stays_the_same_is_given_nothing_back() {
    let mut node = Node::new(TOWER);
    node.hear("s", "d2", &json!(60));
    let mut parent = parent_of(&node);
    let from = node.log.len();
    node.wait(S);
    node.hear("s", "d2", &json!(1));
    for bytes in &node.log[from..] {
        let (header, payload) = Header::decode(bytes).unwrap();
        let origin = Some(Origin { address: "c/s", log: LogId(1), pos: Pos(9) });
        parent.commit(Draft::new(&Header { origin, ..header }, payload).unwrap());
    }
    parent.settle();
    assert!(parent.events(alarms::KNOWN).is_empty());
    assert!(!parent.rules.alarms.iter().next().unwrap().active);
}

#[test]
fn an_alarm_that_ends_by_its_windows_emptying_ends_so_whatever_was_forgotten_of_it() {
    for (kind, calm) in [("sliding", 0), ("sliding", 60), ("tumbling", 0)] {
        let rule = format!(
            "[[rule]]\nname = \"busy\"\non = [\"door\"]\nby = \"event.subject\"\n\
             window = {{ within = \"5m\", kind = \"{kind}\" }}\nwhen = \"window.count >= 3\"\n\
             clear = \"window.count < 1\"\ncalm = \"{calm}s\"\nthen = [{{ raise = {{ title = \"busy\" }} }}]\n"
        );
        let rule = if calm == 0 { rule.replace("calm = \"0s\"\n", "") } else { rule };
        let burst = |node: &mut Node, at: &str| (0..3).for_each(|_| node.hear("door", at, &json!({})));
        // The rule was out of the file for a moment.
        let mut node = Node::new(&rule);
        burst(&mut node, "a");
        node.reload("");
        node.wait(S);
        node.reload(&rule);
        // The disk was lost; and then it goes on for a while.
        let mut parent = parent_of(&node);
        want(&mut parent);
        let mut anew = Node::new(&rule);
        anew.now = node.now;
        assert_eq!(carry(&parent, alarms::KNOWN, "c", &mut anew), 1);
        anew.write_rows();
        anew.restart();
        let mut busy = Node::new(&rule);
        busy.now = node.now;
        carry(&parent, alarms::KNOWN, "c", &mut busy);
        busy.wait(200 * S);
        busy.hear("door", "a", &json!({}));
        for node in [&mut node, &mut anew] {
            node.wait((299 + calm) * S);
            let is_active = node.alarm("busy", "a").unwrap().active;
            assert!(is_active || kind == "tumbling", "{kind} {calm}");
            node.wait(2 * S);
            assert!(!node.alarm("busy", "a").unwrap().active, "{kind} {calm}: {:?}", node.said());
        }
        if kind == "sliding" {
            busy.wait((299 + calm) * S);
            assert!(busy.alarm("busy", "a").unwrap().active, "{kind} {calm}: somebody has come since");
        }
        busy.wait(301 * S);
        assert!(!busy.alarm("busy", "a").unwrap().active, "{kind} {calm}");
    }
}

const NOISE: &str = r#"
[[rule]]
name = "noise"
on = ["n"]
window = { within = "1h", value = "event.data" }
when = "window.sum >= 10"
clear = "window.sum < 5"
then = [{ raise = { title = "${window.sum}" } }]
"#;

#[test]
fn a_window_that_began_anew_under_an_alarm_ends_it_when_it_is_whole_again() {
    let hear = |node: &mut Node, n: usize| (0..n).for_each(|_| node.hear("n", "x", &json!(1)));
    let is_active = |node: &Node| node.alarm("noise", "").unwrap().active;
    let mut lost = Node::new(NOISE);
    hear(&mut lost, 11);
    for how in
        ["known", "heard before it was known", "out of the file", "out of the file and edited", "counts otherwise"]
    {
        for goes_on in [false, true] {
            let mut node = Node::new(NOISE);
            if how.contains("known") {
                let mut parent = parent_of(&lost);
                want(&mut parent);
                node.now = lost.now;
                hear(&mut node, usize::from(how != "known"));
                assert_eq!(carry(&parent, alarms::KNOWN, "c", &mut node), 1);
            } else {
                hear(&mut node, 11);
                if how.starts_with("out") {
                    node.reload("");
                    node.reload(NOISE);
                }
                match how {
                    "out of the file and edited" => node.reload(&NOISE.replace("< 5", "< 6")),
                    "counts otherwise" => node.reload(&NOISE.replace("\"event.data\"", "\"event.data * 1\"")),
                    _ => {}
                }
            }
            node.write_rows();
            node.restart();
            node.wait(S);
            hear(&mut node, if goes_on { 6 } else { 1 });
            assert!(is_active(&node), "{how}: {:?}", node.said());
            node.write_rows();
            node.restart();
            node.wait(3_599 * S - 1);
            assert!(is_active(&node), "{how}: {:?}", node.said());
            node.wait(1);
            assert_eq!(is_active(&node), goes_on, "{how}: {:?}", node.said());
            node.wait(S);
            assert!(!is_active(&node), "{how}: {:?}", node.said());
        }
    }
}

#[test]
fn the_window_of_a_backup_lacks_what_came_since() {
    let mut node = Node::new(NOISE);
    (0..11).for_each(|_| node.hear("n", "x", &json!(1)));
    let backup = backup_of(&mut node);
    let mut node = restored(&node, backup);
    node.wait(3_000 * S);
    node.hear("n", "x", &json!(1));
    node.wait(3_600 * S - 1);
    assert!(node.alarm("noise", "").unwrap().active, "{:?}", node.said());
    node.wait(1);
    assert!(!node.alarm("noise", "").unwrap().active, "{:?}", node.said());
}

type Backup = (BTreeMap<Vec<u8>, Vec<u8>>, Vec<Vec<u8>>);

fn backup_of(node: &mut Node) -> Backup {
    node.write_rows();
    (node.rows.clone(), node.log.clone())
}

/// The same node, with what the backup has.
fn restored(lost: &Node, (rows, log): Backup) -> Node {
    let mut node = Node::new("");
    (node.config, node.now) = (lost.config.clone(), lost.now + S);
    (node.rows, node.rows_upto, node.log) = (rows, log.len(), log);
    node.read_back();
    node.rules.begin_history(NEW_BOX, node.next_pos(), node.now);
    node.start();
    node
}

/// What waits for a time, a count or another alarm, and what waits to be said: each does something beside its alarm.
const WAITING: &str = r#"
[[rule]]
name = "gw"
on = ["gw"]
when = "event.data == 0"
clear = "event.data == 1"
then = [{ raise = { title = "gateway" } }]
[[rule]]
name = "long"
on = ["long"]
by = "event.subject"
when = "event.data > 5"
for = "4s"
clear = "event.data < 2"
then = [{ raise = { title = "x" } }, { emit = { type = "did", reach = "street" } }]
[[rule]]
name = "behind"
on = ["behind"]
when = "event.data > 5"
while_alarm = "gw"
clear = "event.data < 2"
then = [{ raise = { title = "x" } }, { emit = { type = "did", reach = "street" } }]
[[rule]]
name = "seldom"
on = ["seldom"]
when = "event.data > 5"
clear = "event.data < 2"
quiet = "10s"
then = [{ raise = { title = "x" } }, { emit = { type = "did", reach = "street" } }]
[[rule]]
name = "many"
on = ["many"]
window = { within = "1h" }
when = "window.count >= 3"
then = [{ raise = { title = "x" } }, { emit = { type = "did", reach = "street" } }]
[[rule]]
name = "silent"
on = ["beat"]
absent = "4s"
then = [{ raise = { title = "x" } }, { emit = { type = "did", reach = "street" } }]
"#;

#[test]
fn what_waits_in_a_backup_may_have_come_or_ended_since_and_begins_anew() {
    let mut node = Node::new(WAITING);
    for level in [9, 1] {
        node.hear("seldom", "x", &json!(level));
    }
    for (kind, at) in [("long", "x"), ("long", "y"), ("behind", "x"), ("seldom", "x"), ("many", "x"), ("many", "x")] {
        node.hear(kind, at, &json!(9));
    }
    node.hear("beat", "x", &json!(0));
    let backup = backup_of(&mut node);
    let mut node = restored(&node, backup);
    let before = node.events("did").len();
    node.write_rows();
    node.restart();
    node.hear("gw", "x", &json!(0));
    node.hear("many", "x", &json!(9));
    node.wait(60 * S);
    let active = |node: &Node| -> Vec<String> {
        node.rules.alarms.iter().filter(|a| a.active).map(|a| format!("{}/{}", a.name, a.key)).collect()
    };
    let mut raised = active(&node);
    raised.sort();
    assert_eq!(raised, ["gw/", "silent/"], "{:?}", node.said());
    assert_eq!(node.events("did").len(), before, "who is silent is told by an alarm alone");
    // What comes now is news.
    for (kind, at) in [("long", "x"), ("behind", "x"), ("seldom", "x"), ("many", "x"), ("many", "x")] {
        node.hear(kind, at, &json!(9));
    }
    node.wait(4 * S - 1);
    assert_eq!(node.events("did").len(), before + 3);
    node.wait(1);
    assert_eq!(node.events("did").len(), before + 4);
    assert!(node.alarm("long", "y").is_none());
}

#[test]
fn what_waits_to_be_said_in_a_backup_is_raised_and_nothing_else_is_done_of_it() {
    let mut node = doing(PARENT);
    let event = json!({"specversion": "1.0", "id": "b", "source": "/d", "type": "leak", "subject": "a", "data": 9});
    let header = Header { direction: Direction::Up, ..Header::local(Kind::Event, "leak") };
    node.commit(Draft::new(&header, event.to_string().as_bytes()).unwrap());
    let backup = backup_of(&mut node);
    let mut node = restored(&node, backup);
    assert!(node.alarm("valve", "a").unwrap().active);
    assert_eq!(done(&node), [0; 4]);
    hear_again(&mut node, "a", &json!(1), false);
    hear_again(&mut node, "a", &json!(9), false);
    assert_eq!(done(&node), [1, 1, 1, 0]);
}

/// Over when it was calm for a minute.
fn calm_smoke() -> String {
    let told = "severity = \"critical\", reach = \"city\",";
    SMOKE.replace("when =", "calm = \"1m\"\nwhen =").replace("severity = \"critical\",", told)
}

#[test]
fn what_was_about_to_end_in_a_backup_ends_when_it_was_calm_from_the_start_on() {
    for goes_on in [false, true] {
        let mut node = Node::new(&calm_smoke());
        node.hear("city.smoke.v1", "f", &json!({"on": true}));
        node.hear("city.smoke.v1", "f", &json!({"on": false}));
        let backup = backup_of(&mut node);
        node.wait(50 * S);
        let mut node = restored(&node, backup);
        node.write_rows();
        node.restart();
        node.wait(59 * S);
        assert!(node.alarm("smoke", "f").unwrap().active, "what was said since the backup is not known");
        if goes_on {
            node.hear("city.smoke.v1", "f", &json!({"on": true}));
        }
        node.wait(S);
        assert_eq!(node.alarm("smoke", "f").unwrap().active, goes_on);
        node.wait(600 * S);
        assert_eq!(node.alarm("smoke", "f").unwrap().active, goes_on);
    }
}

#[test]
fn what_was_about_to_end_in_a_backup_is_as_its_parent_knows_it() {
    for (is_raised_again, waits) in [(false, 10), (false, 100), (true, 10), (true, 100)] {
        let mut node = Node::new(&calm_smoke());
        node.hear("city.smoke.v1", "f", &json!({"on": true}));
        node.hear("city.smoke.v1", "f", &json!({"on": false}));
        let backup = backup_of(&mut node);
        if is_raised_again {
            node.wait(61 * S);
            node.hear("city.smoke.v1", "f", &json!({"on": true}));
        }
        node.wait(S);
        let id = node.alarm("smoke", "f").unwrap().id.clone();
        let (_, drafts) = node.rules.ask(&id, Wish::Acknowledge, "Li", node.now).unwrap();
        drafts.into_iter().for_each(|d| node.commit(d));
        node.settle();
        let mut parent = parent_of(&node);
        let mut node = restored(&node, backup);
        node.wait(waits * S);
        parent.now = node.now;
        only_want(&mut parent, NEW_BOX, node.rules.newest_before());
        parent.settle();
        assert_eq!(carry(&parent, alarms::KNOWN, "c", &mut node), 1);
        let alarm = node.alarm("smoke", "f").unwrap();
        assert!(alarm.acknowledged, "{alarm:?}");
        assert_eq!(alarm.active, is_raised_again || waits < 60, "raised again {is_raised_again}, after {waits} s");
        node.wait(60 * S);
        assert_eq!(node.alarm("smoke", "f").unwrap().active, is_raised_again, "after {waits} s");
        node.hear("city.smoke.v1", "f", &json!({"on": false}));
        node.wait(60 * S);
        assert!(!node.alarm("smoke", "f").unwrap().active);
    }
}

#[test]
fn what_people_did_with_the_alarm_of_who_is_silent_stands_though_a_restored_box_has_missed_him_before_it_heard() {
    let rules = "[[rule]]\nname = \"gone\"\non = [\"t\"]\nby = \"event.subject\"\nabsent = \"4s\"\n\
                 then = [{ raise = { title = \"${event.subject}\", reach = \"city\" } }]\n";
    for waits in [1, 10] {
        let mut node = Node::new(rules);
        node.hear("t", "before", &json!(0));
        node.wait(5 * S);
        for at in ["acked", "back", "never"] {
            node.hear("t", at, &json!(0));
        }
        let backup = backup_of(&mut node);
        node.wait(5 * S);
        let id = node.alarm("gone", "acked").unwrap().id.clone();
        let (_, drafts) = node.rules.ask(&id, Wish::Acknowledge, "Li", node.now).unwrap();
        drafts.into_iter().for_each(|d| node.commit(d));
        node.settle();
        node.wait(S);
        node.hear("t", "back", &json!(0));
        let mut parent = parent_of(&node);
        let raised_at = node.alarm("gone", "acked").unwrap().raised_at;
        let mut node = restored(&node, backup);
        node.wait(waits * S);
        assert_eq!(node.alarm("gone", "never").is_some(), waits > 4, "each has the time to come back");
        parent.now = node.now;
        only_want(&mut parent, NEW_BOX, node.rules.newest_before());
        parent.settle();
        carry(&parent, alarms::KNOWN, "c", &mut node);
        let acked = node.alarm("gone", "acked").unwrap();
        assert!(acked.active && acked.acknowledged, "{acked:?}");
        assert_eq!(acked.raised_at, raised_at);
        let is_active = |node: &Node, at: &str| node.alarm("gone", at).is_some_and(|alarm| alarm.active);
        assert!(!is_active(&node, "back"), "{waits}");
        node.hear("t", "acked", &json!(0));
        assert!(!is_active(&node, "acked"), "{waits}");
        node.wait(4 * S);
        assert!(is_active(&node, "acked") && is_active(&node, "never"), "{waits}");
    }
}

#[test]
fn what_has_come_since_a_backup_was_put_back_waits_on_when_the_parent_knows_more() {
    let mut node = Node::new(WAITING);
    node.hear("long", "x", &json!(9));
    let first = node.next_pos();
    node.hear("long", "y", &json!(9));
    node.rules.begin_history(NEW_BOX, first, node.now);
    node.wait(4 * S);
    assert!(node.alarm("long", "x").is_none() && node.alarm("long", "y").is_some());
}

#[test]
fn what_a_restored_box_had_said_since_its_backup_is_as_it_had_said_it() {
    for asks_first in [true, false] {
        let mut node = Node::new(TOWER);
        let level = |node: &mut Node, at: &str, level: i64| {
            node.wait(S);
            node.hear("worse", at, &json!(level));
        };
        let rules = TOWER.replace("[\"s\"]", "[\"worse\"]").replace("TOWER", "${event.subject}");
        node.reload(&rules);
        for at in ["worse", "ends", "stays"] {
            level(&mut node, at, 20);
        }
        let backup = backup_of(&mut node);
        level(&mut node, "worse", 60);
        level(&mut node, "ends", 1);
        level(&mut node, "begins", 20);
        level(&mut node, "short", 20);
        level(&mut node, "short", 1);
        let mut parent = parent_of(&node);
        let lost = node;
        let mut node = restored(&lost, backup);
        let newest = node.rules.newest_before();
        let from = node.log.len();
        // What it says itself meanwhile is newer.
        level(&mut node, "stays", 70);
        parent.now = node.now;
        if asks_first {
            only_want(&mut parent, NEW_BOX, newest);
        }
        only_climb(&node, &mut parent, from);
        if !asks_first {
            only_want(&mut parent, NEW_BOX, newest);
        }
        parent.settle();
        node.wait(S);
        let said = node.log.len();
        assert_eq!(carry(&parent, alarms::KNOWN, "c", &mut node), 4, "only what is newer than the backup");
        climb(&node, &mut parent, said);
        for at in ["worse", "ends", "begins", "short"] {
            assert_eq!(node.alarm("bld", at), lost.alarm("bld", at), "{at}");
        }
        assert_eq!(node.alarm("bld", "stays").unwrap().severity, Severity::Critical);
        let all = |rules: &Rules| rules.alarms.iter().cloned().collect::<Vec<_>>();
        assert_eq!(all(&node.rules), all(&parent.rules), "the box and its parent show the same");
        // Each goes on from there, and ends.
        node.write_rows();
        node.restart();
        for at in ["worse", "begins", "stays"] {
            level(&mut node, at, 1);
            assert!(!node.alarm("bld", at).unwrap().active, "{at}");
        }
        level(&mut node, "ends", 20);
        assert_eq!(node.alarm("bld", "ends").map(|a| (a.active, a.raises)), Some((true, 2)));
    }
}

/// Alarms that several share, each as bad as they say.
const SHARED: &str = r#"
[[rule]]
name = "bld"
on = ["s"]
by = "event.subject"
when = "event.data.v > 5"
clear = "event.data.v < 2"
then = [{ raise = { key = "${event.data.b}", severity = "${event.data.v > 50 ? 'critical' : 'minor'}", title = "${event.subject} ${event.data.v}" } }]
"#;

#[test]
fn what_a_restored_box_or_a_person_says_of_an_alarm_is_no_word_of_whoever_was_not_heard_since() {
    use Severity::{Critical, Minor};
    let mut node = Node::new(SHARED);
    let hear = |node: &mut Node, at: &str, alarm: &str, level: i64| {
        node.wait(S);
        node.hear("s", at, &json!({"v": level, "b": alarm}));
    };
    for alarm in ["seen", "over", "ended", "shared", "passed", "left", "again"] {
        hear(&mut node, alarm, alarm, 20);
    }
    hear(&mut node, "falls", "falls", 60);
    let backup = backup_of(&mut node);
    for alarm in ["seen", "ended", "shared", "passed"] {
        hear(&mut node, alarm, alarm, 60);
    }
    for alarm in ["over", "left", "again"] {
        hear(&mut node, alarm, alarm, 1);
    }
    hear(&mut node, "falls", "falls", 20);
    let mut parent = parent_of(&node);
    let mut node = restored(&node, backup);
    let newest = node.rules.newest_before();
    let from = node.log.len();
    let ask = |node: &mut Node, alarm: &str, wish: Wish| {
        let id = node.alarm("bld", alarm).unwrap().id.clone();
        let (_, drafts) = node.rules.ask(&id, wish, "Li", node.now).unwrap();
        drafts.into_iter().for_each(|d| node.commit(d));
        node.settle();
    };
    // A person sees what the backup has; others of an alarm are heard, or its own says once more what it said.
    for alarm in ["seen", "over"] {
        ask(&mut node, alarm, Wish::Acknowledge);
    }
    ask(&mut node, "ended", Wish::Clear);
    hear(&mut node, "other", "shared", 21);
    for level in [21, 1] {
        hear(&mut node, "another", "passed", level);
    }
    hear(&mut node, "third", "left", 60);
    hear(&mut node, "again", "again", 20);
    hear(&mut node, "falls", "falls", 60);
    parent.now = node.now;
    only_climb(&node, &mut parent, from);
    only_want(&mut parent, NEW_BOX, newest);
    parent.settle();
    node.wait(S);
    let said = node.log.len();
    carry(&parent, alarms::KNOWN, "c", &mut node);
    climb(&node, &mut parent, said);
    for (alarm, is_active, severity, title) in [
        ("seen", true, Critical, "seen 60"),
        ("over", false, Minor, "over 20"),
        ("ended", true, Critical, "ended 60"),
        ("shared", true, Critical, "shared 60"),
        ("passed", true, Critical, "passed 60"),
        ("left", true, Critical, "third 60"),
        ("again", true, Minor, "again 20"),
        ("falls", true, Critical, "falls 60"),
    ] {
        let a = node.alarm("bld", alarm).unwrap();
        assert_eq!((a.active, a.severity, a.title.as_str()), (is_active, severity, title), "{alarm}");
        assert!(!a.active || !a.acknowledged, "{alarm}: worse than what was seen");
    }
    let all = |rules: &Rules| rules.alarms.iter().cloned().collect::<Vec<_>>();
    assert_eq!(all(&node.rules), all(&parent.rules), "the box and its parent show the same");
    // Each ends with the last who raises it.
    node.write_rows();
    node.restart();
    hear(&mut node, "other", "shared", 1);
    assert_eq!(node.alarm("bld", "shared").map(|a| (a.active, a.severity)), Some((true, Critical)));
    for (at, alarm) in [
        ("seen", "seen"),
        ("ended", "ended"),
        ("shared", "shared"),
        ("passed", "passed"),
        ("third", "left"),
        ("again", "again"),
        ("falls", "falls"),
    ] {
        hear(&mut node, at, alarm, 1);
        assert!(!node.alarm("bld", alarm).unwrap().active, "{alarm}");
    }
}

#[test]
fn an_acknowledgement_of_a_restored_alarm_stays_where_it_was_no_worse() {
    let mut node = Node::new(TOWER);
    node.hear("s", "d1", &json!(20));
    let backup = backup_of(&mut node);
    node.wait(S);
    node.hear("s", "d1", &json!(1));
    node.hear("s", "d2", &json!(20));
    let mut parent = parent_of(&node);
    let mut node = restored(&node, backup);
    let id = node.alarm("bld", "TOWER").unwrap().id.clone();
    let (_, drafts) = node.rules.ask(&id, Wish::Acknowledge, "Li", node.now).unwrap();
    drafts.into_iter().for_each(|d| node.commit(d));
    node.settle();
    only_want(&mut parent, NEW_BOX, node.rules.newest_before());
    parent.settle();
    assert_eq!(carry(&parent, alarms::KNOWN, "c", &mut node), 1);
    let here = node.alarm("bld", "TOWER").unwrap();
    assert!(here.active && here.acknowledged, "{here:?}");
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

#[test]
fn an_alarm_that_is_over_when_it_is_to_be_shelved_is_not_and_whoever_asked_hears_it() {
    let mut node = Node::new(SMOKE);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    let mut parent = parent_of(&node);
    let id = node.alarm("smoke", "f").unwrap().id.clone();
    let (_, drafts) = parent.rules.ask(&id, Wish::Shelve { until_us: 9_000 * S }, "Li", parent.now).unwrap();
    drafts.into_iter().for_each(|d| parent.commit(d));
    node.wait(60 * S);
    node.hear("city.smoke.v1", "f", &json!({"on": false}));
    assert_eq!(carry(&parent, alarms::ASK, "c", &mut node), 1);
    carry(&node, alarms::CHANGED, "c/s", &mut parent);
    let alarm = parent.rules.alarms.get(&id).unwrap();
    assert_eq!((alarm.shelved_until, alarm.refused("shelve", "Li")), (None, Some("it was over by then")));
}

#[test]
fn whoever_asks_for_a_change_hears_that_it_was_not_made_and_why() {
    for (wish, word) in [(Wish::Acknowledge, "ack"), (Wish::Clear, "clear")] {
        let mut node = Node::new(SMOKE);
        node.hear("city.smoke.v1", "f", &json!({"on": true}));
        let mut parent = parent_of(&node);
        let id = node.alarm("smoke", "f").unwrap().id.clone();
        let (_, drafts) = parent.rules.ask(&id, wish, "Li", parent.now).unwrap();
        drafts.into_iter().for_each(|d| parent.commit(d));
        // Over, and begun anew, while the word is on its way: he has not seen that fire.
        for on in [false, true] {
            node.wait(60 * S);
            node.hear("city.smoke.v1", "f", &json!({"on": on}));
            carry(&node, if on { alarms::RAISED } else { alarms::CLEARED }, "c/s", &mut parent);
            assert!(parent.rules.alarms.get(&id).unwrap().asked.is_some(), "{word}: that is no answer to him");
        }
        assert_eq!(carry(&parent, alarms::ASK, "c", &mut node), 1);
        carry(&node, alarms::CHANGED, "c/s", &mut parent);
        for at in [&node, &parent] {
            let alarm = at.rules.alarms.get(&id).unwrap();
            assert_eq!((alarm.active, alarm.acknowledged, &alarm.asked), (true, false, &None), "{word}");
            let why = alarm.refused(word, "Li").unwrap_or_else(|| panic!("{word}: {:?}", alarm.answer));
            assert!(why.starts_with("it was raised anew meanwhile, at "), "{why}");
        }
        // Asked for again, of what he sees now.
        let wish = if word == "ack" { Wish::Acknowledge } else { Wish::Clear };
        parent.now = node.now + S;
        let (asked, drafts) = parent.rules.ask(&id, wish, "Li", parent.now).unwrap();
        assert_eq!((asked.refused(word, "Li"), asked.asked.is_some()), (None, true));
        drafts.into_iter().for_each(|d| parent.commit(d));
        assert_eq!(carry(&parent, alarms::ASK, "c", &mut node), 2);
        for kind in [alarms::ACKNOWLEDGED, alarms::CLEARED, alarms::CHANGED] {
            carry(&node, kind, "c/s", &mut parent);
        }
        for at in [&node, &parent] {
            let alarm = at.rules.alarms.get(&id).unwrap();
            assert_eq!((alarm.active, alarm.acknowledged), (word == "ack", word == "ack"));
            assert_eq!((alarm.refused(word, "Li"), &alarm.asked), (None, &None), "{:?}", alarm.answer);
        }
    }
}
