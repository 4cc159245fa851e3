//! When rules may fire, and when what they raised is over: quiet, hours, windows that empty.

use super::*;
use crate::brain::services::CATALOGUE;
use proptest::prelude::*;

#[test]
fn an_alarm_whose_condition_holds_when_it_has_been_quiet_long_enough_is_raised_then() {
    let rules = r#"
[[rule]]
name = "gas"
on = ["gas"]
when = "event.data > 10"
clear = "event.data < 5"
quiet = "6s"
then = [{ raise = { title = "${event.data}" } }, { emit = { type = "told", reach = "street" } }]
"#;
    let mut node = Node::new(rules);
    for level in [20, 1, 30] {
        node.hear("gas", "x", &json!(level));
    }
    assert!(!node.alarm("gas", "").unwrap().active);
    // Nothing more is heard; a kill in between changes nothing.
    node.write_rows();
    node.restart();
    node.wait(7 * S);
    let alarm = node.alarm("gas", "").unwrap();
    assert_eq!((alarm.active, alarm.raises, alarm.title.as_str()), (true, 2, "30"));
    assert_eq!(node.events("told").len(), 2);
    // Over before that, it stays quiet.
    for level in [1, 20, 1] {
        node.hear("gas", "x", &json!(level));
    }
    node.wait(60 * S);
    assert!(!node.alarm("gas", "").unwrap().active);
    assert_eq!(node.events("told").len(), 2);
    node.hear("gas", "x", &json!(50));
    assert!(node.alarm("gas", "").unwrap().active);
}

/// 1970-01-01 was a Thursday; the default calendar is 8 hours ahead of UTC.
const DAY: i64 = 86_400;
const MIDNIGHT: i64 = 4 * DAY - 8 * 3600;

/// At so many hours of that Monday.
fn monday(rules: &str, hour: i64) -> Node {
    let mut node = Node::new(rules);
    node.now = (MIDNIGHT + hour * 3600) * S;
    node
}

#[test]
fn what_holds_outside_a_rules_hours_is_raised_when_they_begin() {
    let rules = r#"
[[rule]]
name = "noise"
on = ["noise"]
when = "event.data > 55"
clear = "event.data < 50"
hours = ["mon-fri 06:00-12:00", "14:00-22:00"]
then = [{ raise = { title = "${event.data}" } }]
[[rule]]
name = "told"
on = ["noise"]
when = "event.data > 55"
hours = ["06:00-12:00", "14:00-22:00"]
then = [{ emit = { type = "loud", reach = "street" } }]
"#;
    let mut node = monday(rules, 5);
    node.hear("noise", "x", &json!(60));
    assert_eq!((node.alarm("noise", "").is_none(), node.events("loud").len()), (true, 0));
    node.write_rows();
    node.restart();
    node.wait(3599 * S);
    assert!(node.alarm("noise", "").is_none(), "not before six");
    node.wait(2 * S);
    assert!(node.alarm("noise", "").unwrap().active);
    assert_eq!(node.events("loud").len(), 0, "a message is for its moment");
    // At one in the afternoon: what is on is cleared at any time, and begins again at two.
    node.wait(7 * 3600 * S);
    node.hear("noise", "x", &json!(40));
    assert!(!node.alarm("noise", "").unwrap().active);
    node.hear("noise", "x", &json!(70));
    assert!(!node.alarm("noise", "").unwrap().active);
    node.wait(3600 * S);
    let alarm = node.alarm("noise", "").unwrap();
    assert_eq!((alarm.active, alarm.title.as_str()), (true, "70"));
    node.hear("noise", "x", &json!(71));
    assert_eq!(node.events("loud").len(), 1);
    // Over before they begin: nothing is told. Saturday has an afternoon only.
    node.now = (MIDNIGHT + 4 * DAY + 23 * 3600) * S;
    for level in [40, 60, 40] {
        node.hear("noise", "x", &json!(level));
    }
    node.wait(8 * 3600 * S);
    assert_eq!(node.alarm("noise", "").unwrap().raises, 2);
    node.hear("noise", "x", &json!(60));
    node.wait(6 * 3600 * S);
    assert!(!node.alarm("noise", "").unwrap().active);
    node.wait(3600 * S);
    assert_eq!(node.alarm("noise", "").unwrap().raises, 3);
}

#[test]
fn time_that_a_condition_has_held_and_silence_count_outside_hours() {
    let rules = r#"
[[rule]]
name = "rest"
on = ["t"]
by = "event.subject"
absent = "4s"
quiet = "15s"
then = [{ raise = { title = "rest" } }]
[[rule]]
name = "long"
on = ["t"]
when = "event.data > 1"
for = "30m"
hours = ["08:00-18:00"]
then = [{ emit = { type = "long", reach = "street" } }]
[[rule]]
name = "silent"
on = ["t"]
absent = "4h"
hours = ["08:00-18:00"]
then = [{ raise = { title = "nothing" } }]
"#;
    let mut node = monday(rules, 3);
    node.hear("t", "x", &json!(2));
    node.wait(5 * 3600 * S - S);
    assert_eq!((node.events("long").len(), node.alarm("silent", "").is_none()), (0, true));
    node.wait(2 * S);
    assert_eq!((node.events("long").len(), node.alarm("silent", "").unwrap().active), (1, true));
}

/// The city says when people work there; what is said of a node that is not above counts nothing.
fn told_by_the_city(node: &mut Node, of: &str, calendar: &Json) {
    let id = format!("c{}", node.log.len());
    let data = json!({"node": of, "calendar": calendar});
    let event = json!({"specversion": "1.0", "id": id, "source": "/c", "type": CATALOGUE, "data": data});
    let origin = Some(Origin { address: "c", log: LogId(1), pos: Pos(1) });
    let header = Header { direction: Direction::Down, origin, ..Header::local(Kind::Event, CATALOGUE) };
    node.commit(Draft::new(&header, event.to_string().as_bytes()).unwrap());
    node.settle();
}

const MORNINGS: &str = r#"
[[rule]]
name = "noise"
on = ["noise"]
when = "event.data > 55"
hours = ["workdays 08:00-12:00"]
then = [{ raise = { title = "loud" } }]
"#;

#[test]
fn what_waits_for_its_hours_is_planned_anew_when_a_node_above_has_another_calendar() {
    let mut node = monday(MORNINGS, 5);
    node.hear("noise", "x", &json!(60));
    told_by_the_city(&mut node, "c", &json!({"holidays": ["1970-01-05"]}));
    node.wait(4 * 3600 * S);
    assert!(node.alarm("noise", "").is_none(), "nobody works on that Monday");
    node.write_rows();
    node.restart();
    node.write_rows();
    node.wait(0);
    assert!(node.alarm("noise", "").is_none(), "and a start forgets nothing of it");
    told_by_the_city(&mut node, "c/t", &json!({"utc_offset": "+09:00"}));
    assert!(node.alarm("noise", "").is_none());
    // They do work, and it is nine there: as good as Monday's nine here.
    told_by_the_city(&mut node, "c", &json!({"utc_offset": "+09:00"}));
    assert!(node.alarm("noise", "").is_some_and(|a| a.active), "it waited for Tuesday");
    node.write_rows();
    assert_eq!(node.rows, node.folded_anew());
}

#[test]
fn a_nodes_own_calendar_comes_before_one_from_above() {
    let own = format!("[calendar]\nholidays = [\"1970-01-05\"]\n{MORNINGS}");
    let mut node = monday(&own, 9);
    node.hear("noise", "x", &json!(60));
    told_by_the_city(&mut node, "c", &json!({}));
    node.wait(2 * 3600 * S);
    assert!(node.alarm("noise", "").is_none());
    // Its file was edited while it was down.
    node.config = config(&own.replace("01-05", "01-06"));
    node.write_rows();
    node.restart();
    assert!(node.alarm("noise", "").is_some_and(|a| a.active), "what waits is planned by the file as it is now");
}

#[test]
fn a_day_begins_at_midnight_where_the_nearest_node_above_has_its_calendar() {
    let rule = "[[rule]]\nname = \"daily\"\non = [\"n\"]\nwindow = { kind = \"tumbling\", within = \"1d\" }\nwhen = \"window.count >= 2\"\n\
                clear = \"window.count < 2\"\nthen = [{ raise = { title = \"two\" } }]\n";
    let mut node = monday(rule, 22);
    assert!(node.rules.view().rules[0].condition.starts_with("tumbling 1d; when"), "{:?}", node.rules.view());
    node.hear("n", "x", &json!({}));
    node.hear("n", "x", &json!({}));
    assert!(node.alarm("daily", "").unwrap().active);
    // Midnight is at eleven now.
    told_by_the_city(&mut node, "c", &json!({"utc_offset": "+09:00"}));
    node.wait(3599 * S);
    assert!(node.alarm("daily", "").unwrap().active);
    node.wait(2 * S);
    assert!(!node.alarm("daily", "").unwrap().active, "a new day has begun");
}

#[test]
fn rules_that_ask_for_the_hour_say_whose_calendar_they_go_by() {
    let of = |node: &Node| node.rules.view().calendar.map(|c| c.of.map_or_else(String::new, |of| of.to_string()));
    let mut node = Node::new(MORNINGS);
    assert_eq!(of(&node).as_deref(), Some(""));
    told_by_the_city(&mut node, "c", &json!({"holidays": ["1970-01-05"]}));
    assert_eq!(of(&node).as_deref(), Some("c"));
    assert!(node.rules.view().calendar.unwrap().words.contains("1 day off"));
    told_by_the_city(&mut node, "c", &Json::Null);
    assert_eq!(of(&node).as_deref(), Some(""));
    assert_eq!(of(&Node::new(&format!("[calendar]\n{MORNINGS}"))).as_deref(), Some("c/s"));
    assert_eq!(of(&Node::new(SMOKE)), None);
}

#[test]
fn hours_that_do_not_read_or_go_over_midnight_are_told_with_their_place() {
    for (hours, about) in [("22:00-06:00", "`22:00-24:00` and `00:00-06:00`"), ("night", "are no hours")] {
        let text = format!(
            "[node]\naddress = \"c/s\"\ndata = \"/nowhere\"\n[[rule]]\nname = \"r\"\non = [\"t\"]\nhours = [\"06:00-08:00\", \"{hours}\"]\nthen = [{{ raise = {{ title = \"x\" }} }}]\n"
        );
        let parsed = parse(&text, &Variables::new());
        let found = super::super::check::problems(&parsed.config.unwrap(), &parsed.places, &text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].message.contains(about), "{found:?}");
        assert_eq!(&text[found[0].span.clone().unwrap()], hours);
    }
}

/// Many events share a cell of a window, so what is planned by the cells is only nearly right: it is
/// looked at again when its time has come.
#[test]
fn an_alarm_over_a_crowded_window_is_over_when_the_window_says_so() {
    let rules = r#"
[[rule]]
name = "busy"
on = ["t"]
window = { within = "640s" }
when = "window.count >= 200"
clear = "window.count < 100"
then = [{ raise = { title = "busy" } }]
"#;
    let (mut early, mut looked_again) = (0, 0);
    for burst in 1..=9 {
        let mut node = Node::new(rules);
        let mut all = Vec::new();
        // Steady at first; the last of them all in one 64th, behind the plan that its first one made.
        for n in 0..400 {
            node.wait(if n < 300 { 2 * S } else { S * burst / 100 });
            node.hear("t", "x", &json!({}));
            all.push(node.now);
        }
        let counted = |at: i64| all.iter().filter(|t| **t > at - 640 * S).count();
        while counted(node.now - 60 * S) > 0 {
            let active = node.alarm("busy", "").unwrap().active;
            early += u64::from(!active && counted(node.now) >= 100);
            // Sixteen moments are looked at ahead.
            assert!(!active || counted(node.now - 50 * S) >= 100, "burst {burst}: it is over by now");
            node.wait(S);
        }
        looked_again += node.said().iter().filter(|(_, _, what)| what == "held").count();
    }
    assert_eq!(early, 0, "ended while the window still had a hundred");
    assert!(looked_again > 0, "a plan that was too early has been seen");
}

/// The same where it must be calm for a while: by the window's emptying alone, and where a lone event comes behind
/// the moment that was planned.
#[test]
fn an_alarm_over_a_crowded_window_is_over_only_when_it_was_calm_for_long_enough() {
    let rules = r#"
[[rule]]
name = "busy"
on = ["t"]
window = { within = "640s" }
when = "window.count >= 200"
clear = "window.count < 100"
calm = "30s"
then = [{ raise = { title = "busy" } }]
"#;
    let calm = 30 * S;
    let lone = [None, Some(4), Some(8), Some(12), Some(16), Some(20), Some(24)];
    for (burst, lone) in (0..48).step_by(3).flat_map(|burst| lone.map(|lone| (burst, lone))) {
        let mut node = Node::new(rules);
        let mut all = Vec::new();
        // Steady at first; the last few in one 64th, behind the plan that its first one made.
        for n in 0..301 + burst {
            node.wait(if n < 300 { 2 * S } else { S / 20 });
            node.hear("t", "x", &json!({}));
            all.push(node.now);
        }
        assert!(node.alarm("busy", "").unwrap().active);
        let mut busy = node.now;
        let counted = |all: &[i64], at: i64| all.iter().filter(|t| (at - 640 * S + 1..=at).contains(*t)).count();
        for second in 1.. {
            node.wait(S);
            // All but a hundred are out of the window by then.
            if lone.is_some_and(|behind| second == 442 + 2 * burst + behind) {
                node.hear("t", "x", &json!({}));
                all.push(node.now);
            }
            if counted(&all, node.now) >= 100 {
                busy = node.now;
            }
            let calm_for = node.now - busy;
            if !node.alarm("busy", "").unwrap().active {
                assert!(calm_for >= calm, "{burst} {lone:?}: calm for {} s only", calm_for / S);
                break;
            }
            // Sixteen moments are looked at ahead, of more than a hundred cells.
            assert!(calm_for <= calm + 100 * S, "{burst} {lone:?}: it is over by now");
        }
    }
}

#[test]
fn an_alarm_over_a_crowded_window_ends_though_nobody_looks_when_it_is_time() {
    for calm in ["", "calm = \"30s\""] {
        let rules = format!(
            "[[rule]]\nname = \"busy\"\non = [\"t\"]\nwindow = {{ within = \"640s\" }}\nwhen = \"window.count >= 200\"\n\
             clear = \"window.count < 100\"\n{calm}\nthen = [{{ raise = {{ title = \"busy\" }} }}]\n"
        );
        // All in one cell, behind the plan that its first one made; and then the node stands still.
        for burst_ms in [1, 5, 20] {
            let mut node = Node::new(&rules);
            for _ in 0..250 {
                node.wait(burst_ms * 1000);
                node.hear("t", "x", &json!({}));
            }
            assert!(node.alarm("busy", "").unwrap().active);
            node.now += 3_600 * S;
            node.settle();
            assert!(!node.alarm("busy", "").unwrap().active, "{burst_ms} ms, {calm}");
        }
    }
}

#[test]
fn what_holds_over_a_crowded_window_for_long_enough_is_told_in_time() {
    let rules = r#"
[[rule]]
name = "busy"
on = ["t"]
window = { within = "640s" }
when = "window.count >= 100"
for = "30m"
then = [{ raise = { title = "busy" } }]
"#;
    for step_ms in [2_000, 3_000, 4_000, 5_000, 5_500, 6_000, 6_200] {
        let mut node = Node::new(rules);
        let (mut since, mut all) = (None, Vec::new());
        for _ in 0..900 {
            node.wait(step_ms * 1000);
            let inside = all.iter().filter(|t| **t > node.now - 640 * S).count() + 1;
            node.hear("t", "x", &json!({}));
            all.push(node.now);
            if inside >= 100 {
                since.get_or_insert(node.now);
            }
            let raised = node.alarm("busy", "").is_some();
            match since {
                Some(since) if node.now >= since + 1_800 * S + 2 * step_ms * 1000 => {
                    assert!(raised, "every {step_ms} ms");
                    break;
                }
                Some(since) => assert!(!raised || node.now >= since + 1_800 * S),
                None => assert!(!raised),
            }
        }
        assert!(since.is_some());
    }
}

#[test]
fn conclusions_outlast_a_disk_that_took_nothing_for_an_hour() {
    let rules = "[[rule]]\nname = \"smoke\"\non = [\"smoke\"]\nby = \"event.subject\"\nthen = [{ raise = { title = \"smoke\" } }]\n";
    let mut node = Node::new(rules);
    node.only_hear("smoke", "kitchen", &json!({}));
    node.now += 3_600 * S;
    // The next event is folded before anything that waits is said.
    node.only_hear("smoke", "cellar", &json!({}));
    node.settle();
    assert!(node.alarm("smoke", "kitchen").unwrap().active && node.alarm("smoke", "cellar").unwrap().active);
}

const HELD: &str = r#"
[[rule]]
name = "hold"
on = ["t"]
by = "event.subject"
when = "event.data > 10"
for = "2s"
clear = "event.data < 5"
then = [{ raise = { title = "held" } }, { emit = { type = "held" } }]
"#;

#[test]
fn what_has_held_for_long_enough_fires_though_the_event_that_ends_it_is_read_before_the_moment_is_looked_at() {
    let mut node = Node::new(HELD);
    node.hear("t", "x", &json!(20));
    node.now += 3 * S;
    node.only_hear("t", "x", &json!(1));
    node.now += S;
    node.settle();
    let said = said_when(&node);
    let of = |what: &str, s: i64| ("hold".to_owned(), "x".to_owned(), what.to_owned(), (1_000 + s) * S);
    assert_eq!(said, [of("fired", 2), of("over", 3)]);
    assert_eq!(["held", alarms::RAISED, alarms::CLEARED].map(|kind| node.events(kind).len()), [1, 1, 1]);
}

#[test]
fn what_another_alarm_lets_fire_fires_as_of_the_moment_at_which_that_begins_however_late_it_is_looked_at() {
    let dep = r#"
[[rule]]
name = "dep"
on = ["t"]
by = "event.subject"
when = "event.data > 12"
clear = "event.data < 5"
while_alarm = "hold"
then = [{ raise = { severity = "critical", title = "dep" } }, { emit = { type = "told" } }]
"#;
    let all = |node: &mut Node| {
        node.settle();
        let said = node.events(FIRED).into_iter().map(|e| serde_json::from_value::<Said>(e["data"].clone()).unwrap());
        said.flat_map(|s| s.fired).map(|f| (f.rule, f.what.word(), f.at_us / S - 1_000)).collect::<Vec<_>>()
    };
    let of = |rule: &str, what, s| (rule.to_owned(), what, s);
    let expected = [of("hold", "fired", 2), of("dep", "fired", 2), of("hold", "over", 3), of("dep", "over", 3)];
    for rules in [format!("{HELD}{dep}"), format!("{dep}{HELD}")] {
        let (mut node, mut late) = (Node::new(&rules), Node::new(&rules));
        node.hear("t", "x", &json!(20));
        node.wait(3 * S);
        node.hear("t", "x", &json!(1));
        late.hear("t", "x", &json!(20));
        late.now += 3 * S;
        late.only_hear("t", "x", &json!(1));
        late.now += S;
        assert_eq!(all(&mut node), expected);
        assert_eq!(all(&mut late), expected);
        for kind in ["held", "told"] {
            assert_eq!(late.events(kind).len(), 1, "{kind}");
        }
        let tested = super::rehearsed::rehearsed(&late).fired;
        let tested: Vec<_> = tested.iter().map(|f| (&*f.rule, &*f.what, f.at.timestamp_micros() / S - 1_000)).collect();
        assert_eq!(tested, expected.each_ref().map(|(rule, what, s)| (&**rule, *what, *s)));
        // Folded anew, it is the same.
        late.write_rows();
        assert_eq!(late.rows, late.folded_anew());
    }
}

#[test]
fn an_event_that_waits_behind_a_silence_when_the_node_is_killed_counts_from_the_start_on() {
    let rule = r#"
[[rule]]
name = "gone"
on = ["t"]
by = "event.subject"
absent = "7s"
then = [{ raise = { title = "gone" } }, { emit = { type = "told" } }]
"#;
    let said = |node: &Node| said_when(node).into_iter().map(|s| (s.2, s.3 / S - 1_000)).collect::<Vec<_>>();
    let of = |what: &str, s| (what.to_owned(), s);
    let mut node = Node::new(rule);
    node.hear("t", "x", &json!(1));
    node.now += 8 * S;
    node.only_hear("t", "x", &json!(1));
    node.write_rows();
    node.now += 60 * S;
    node.restart();
    assert_eq!(said(&node), [of("fired", 7), of("over", 8)]);
    node.wait(7 * S - 1);
    assert_eq!(said(&node).len(), 2, "what could not come is not missed");
    node.wait(S);
    assert_eq!(said(&node), [of("fired", 7), of("over", 8), of("fired", 75)]);
    assert_eq!(node.events("told").len(), 2);
    node.write_rows();
    assert_eq!(node.rows, node.folded_anew());
}

#[test]
fn a_silence_that_is_held_back_is_looked_at_once_however_late_that_is() {
    let rules = r#"
[[rule]]
name = "high"
on = ["s"]
when = "event.data > 10"
clear = "event.data < 5"
then = [{ raise = { title = "high" } }]
[[rule]]
name = "gone"
on = ["t"]
by = "event.subject"
absent = "10s"
unless_alarm = "high/*"
then = [{ raise = { title = "gone" } }]
[[rule]]
name = "off"
on = ["t"]
by = "event.subject"
when = "event.data > 10"
absent = "10s"
then = [{ raise = { title = "off" } }]
"#;
    let mut node = Node::new(rules);
    node.hear("s", "h", &json!(20));
    node.hear("t", "x", &json!(1));
    // A clock that was far behind is set right, or the node stood still.
    node.now += 3 * 86_400 * S;
    node.settle();
    let said = said_when(&node);
    assert_eq!(
        said.iter().map(|(rule, _, what, _)| (&**rule, &**what)).collect::<Vec<_>>(),
        [("gone", "held"), ("high", "fired"), ("off", "held")]
    );
    assert!(node.rules.next_due_us().is_some_and(|due| due > node.now && due <= node.now + 10 * S));
    // It is told as soon as nothing holds it back.
    node.hear("s", "h", &json!(1));
    node.settle();
    assert!(said_when(&node).iter().any(|(rule, _, what, _)| rule == "gone" && what == "fired"));
}

#[test]
fn a_silence_in_a_rules_quiet_time_is_told_as_of_when_that_was_over_however_late_it_is_looked_at() {
    let rule = r#"
[[rule]]
name = "gone"
on = ["t"]
by = "event.subject"
absent = "4s"
quiet = "15s"
then = [{ raise = { title = "gone" } }]
"#;
    let mut node = Node::new(rule);
    node.hear("t", "x", &json!(1));
    node.now += 4 * S;
    node.settle();
    node.now += 2 * S;
    node.hear("t", "x", &json!(1));
    node.now += 60 * S;
    node.settle();
    let fired: Vec<i64> = said_when(&node).iter().filter(|(_, _, what, _)| what == "fired").map(|s| s.3 / S).collect();
    // Quiet until 19, and looked at each four seconds since 10.
    assert_eq!(fired, [1_004, 1_022]);
}

/// Rule, key, what and when of all that was said, by rule and key.
fn said_when(node: &Node) -> Vec<(String, String, String, i64)> {
    let said = node.events(FIRED).into_iter().map(|e| serde_json::from_value::<Said>(e["data"].clone()).unwrap());
    let said = said.flat_map(|s| s.fired).map(|f| (f.rule, f.key, f.what.word().to_owned(), f.at_us));
    by_rule_and_key(said.collect())
}

fn by_rule_and_key(mut said: Vec<(String, String, String, i64)>) -> Vec<(String, String, String, i64)> {
    said.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    said
}

/// A silence that is held back is looked at again and again, by a node that is late once for all of these.
fn without_looks(mut said: Vec<(String, String, String, i64)>) -> Vec<(String, String, String, i64)> {
    said.retain(|(rule, _, what, _)| what != "held" || !["gone", "off"].contains(&&**rule));
    said
}

/// All that waits for a moment.
const LATE: &str = r#"
[[rule]]
name = "hold"
on = ["t"]
by = "event.subject"
when = "event.data > 2"
for = "3s"
clear = "event.data < 2"
calm = "2s"
then = [{ raise = { title = "${event.data}" } }]
[[rule]]
name = "quiet"
on = ["t"]
by = "event.subject"
when = "event.data > 2"
clear = "event.data < 2"
quiet = "20s"
then = [{ raise = { title = "quiet" } }]
[[rule]]
name = "often"
on = ["t"]
window = { within = "10s" }
when = "window.count >= 3"
clear = "window.count < 2"
calm = "2s"
then = [{ raise = { title = "${window.count}" } }]
[[rule]]
name = "long"
on = ["t"]
by = "event.subject"
window = { within = "10s", value = "event.data" }
when = "window.sum > 5"
for = "4s"
clear = "window.sum < 3"
then = [{ raise = { title = "long" } }]
[[rule]]
name = "gone"
on = ["t"]
by = "event.subject"
absent = "7s"
then = [{ raise = { title = "gone" } }]
[[rule]]
name = "once"
on = ["t"]
by = "event.subject"
when = "event.data > 2"
for = "3s"
then = [{ emit = { type = "told" } }]
"#;

/// All that other alarms decide: by events and by moments, one by another, and of those that are silent.
const WATCHED: &str = r#"
[[rule]]
name = "power"
on = ["t"]
by = "event.subject"
when = "event.data > 2"
for = "2s"
clear = "event.data < 2"
then = [{ raise = { title = "power" } }]
[[rule]]
name = "fast"
on = ["u"]
by = "event.subject"
when = "event.data > 2"
clear = "event.data < 2"
calm = "1s"
then = [{ raise = { title = "fast" } }]
[[rule]]
name = "dep"
on = ["t"]
by = "event.subject"
when = "event.data > 1"
clear = "event.data < 1"
while_alarm = "power"
then = [{ raise = { title = "dep" } }, { emit = { type = "told" } }]
[[rule]]
name = "chain"
on = ["t", "u"]
by = "event.subject"
when = "event.data > 1"
clear = "event.data < 1"
while_alarm = "dep"
unless_alarm = "fast"
then = [{ raise = { title = "chain" } }]
[[rule]]
name = "held"
on = ["u"]
by = "event.subject"
when = "event.data > 0"
for = "1s"
clear = "event.data < 1"
calm = "2s"
unless_alarm = "dep/*"
then = [{ raise = { title = "held" } }]
[[rule]]
name = "quiet"
on = ["t"]
by = "event.subject"
when = "event.data > 0"
clear = "event.data < 1"
quiet = "9s"
unless_alarm = "power"
then = [{ raise = { title = "quiet" } }]
[[rule]]
name = "siren"
on = ["t", "u"]
by = "event.subject"
when = "event.data > 2"
while_alarm = "dep/*"
unless_alarm = "gone"
then = [{ emit = { type = "told" } }]
[[rule]]
name = "often"
on = ["u"]
window = { within = "10s" }
when = "window.count >= 2"
clear = "window.count < 1"
while_alarm = "power/*"
then = [{ raise = { title = "often" } }]
[[rule]]
name = "gone"
on = ["t"]
by = "event.subject"
absent = "5s"
unless_alarm = "power/*"
then = [{ raise = { title = "gone" } }]
[[rule]]
name = "off"
on = ["u"]
by = "event.subject"
absent = "4s"
while_alarm = "gone"
then = [{ raise = { title = "off" } }]
[[rule]]
name = "one"
on = ["t"]
by = "event.subject"
when = "event.data > 1"
clear = "event.data < 1"
unless_alarm = "two"
while_alarm = "gone/*"
then = [{ raise = { title = "one" } }]
[[rule]]
name = "two"
on = ["t", "u"]
by = "event.subject"
when = "event.data > 1"
clear = "event.data < 1"
unless_alarm = "one"
then = [{ raise = { title = "two" } }]
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_node_that_is_late_says_what_one_says_that_is_not(
        rules in prop::sample::select(vec![LATE, WATCHED]),
        events in prop::collection::vec((0i64..9, any::<bool>(), 0u8..2, 0u8..5, any::<bool>()), 1..40)
    ) {
        let (mut node, mut late) = (Node::new(rules), Node::new(rules));
        for (s, is_other, key, value, is_asked) in events {
            let (kind, key) = (if is_other { "u" } else { "t" }, format!("k{key}"));
            node.wait(s * S);
            node.hear(kind, &key, &json!(value));
            late.now += s * S / 2;
            if is_asked {
                late.settle();
            }
            late.now += s * S / 2;
            late.only_hear(kind, &key, &json!(value));
        }
        node.wait(60 * S);
        late.now += 60 * S;
        late.settle();
        prop_assert_eq!(without_looks(said_when(&node)), without_looks(said_when(&late)));
        for kind in [alarms::RAISED, alarms::CLEARED, "told"] {
            prop_assert_eq!(node.events(kind).len(), late.events(kind).len(), "{}", kind);
        }
        late.only_hear("end", "", &json!(0));
        let tested = super::rehearsed::rehearsed(&late).fired.into_iter();
        let tested = tested.map(|f| (f.rule, f.key, f.what, f.at.timestamp_micros())).collect();
        prop_assert_eq!(without_looks(said_when(&late)), without_looks(by_rule_and_key(tested)));
        late.write_rows();
        prop_assert_eq!(&late.rows, &late.folded_anew());
    }
}

/// Somebody would act on an all-clear: a dead sensor, a cut line and a node that was down must not give one.
#[test]
fn an_alarm_of_measured_values_does_not_end_because_nothing_is_measured() {
    for (field, kind) in [("avg", "sliding"), ("min", "sliding"), ("max", "sliding"), ("avg", "tumbling")] {
        let rules = format!(
            r#"
[[rule]]
name = "air"
on = ["air"]
by = "event.subject"
window = {{ kind = "{kind}", within = "60s", value = "event.data" }}
when = "window.count >= 2 && window.{field} > 100"
clear = "window.{field} < 75"
then = [{{ raise = {{ title = "${{window.{field}}}" }} }}]
"#
        );
        for calm in ["", "calm = \"10s\"\n"] {
            let mut node = Node::new(&rules.replace("then = ", &format!("{calm}then = ")));
            node.hear("air", "a", &json!(200));
            node.hear("air", "a", &json!(210));
            assert!(node.alarm("air", "a").unwrap().active);
            node.wait(600 * S);
            node.write_rows();
            node.restart();
            node.wait(600 * S);
            assert!(node.alarm("air", "a").unwrap().active, "{field} {kind} {calm}: ended by silence");
            node.hear("air", "a", &json!(20));
            node.wait(11 * S);
            assert!(!node.alarm("air", "a").unwrap().active, "{field} {kind} {calm}: it is over by what was measured");
        }
    }
}

#[test]
fn where_the_file_says_so_silence_ends_it() {
    let rules = r#"
[[rule]]
name = "air"
on = ["air"]
window = { within = "60s", value = "event.data" }
when = "window.avg > 100"
clear = "window.count == 0 || window.avg < 75"
then = [{ raise = { title = "air" } }]
"#;
    let mut node = Node::new(rules);
    node.hear("air", "", &json!(200));
    assert!(node.alarm("air", "").unwrap().active);
    node.wait(61 * S);
    assert!(!node.alarm("air", "").unwrap().active);
}

#[test]
fn what_must_hold_for_a_while_does_not_hold_of_a_window_that_has_emptied_meanwhile() {
    let rules = r#"
[[rule]]
name = "air"
on = ["air"]
window = { within = "60s", value = "event.data" }
when = "window.min > 100"
for = "5m"
then = [{ raise = { title = "air" } }]
"#;
    let mut node = Node::new(rules);
    node.hear("air", "", &json!(200));
    node.wait(600 * S);
    assert!(node.alarm("air", "").is_none(), "one reading is not five minutes");
    for _ in 0..12 {
        node.hear("air", "", &json!(200));
        node.wait(30 * S);
    }
    assert!(node.alarm("air", "").unwrap().active);
}
