//! Rules that are edited while something of them goes on, by a reload and by a restart.

use super::*;

/// What the city knows of this node: the records that climb so far, as a link carries them.
pub(super) fn city_of(node: &Node) -> Rules {
    let mut city = Rules::new(&parse("[node]\naddress = \"c\"\ndata = \"/x\"\n", &Variables::new()).config.unwrap());
    for (i, bytes) in node.log.iter().enumerate() {
        let (mut header, payload) = Header::decode(bytes).unwrap();
        if header.direction == Direction::Up && header.reach == Tier::City {
            header.origin = Some(Origin { address: "c/s", log: LogId(1), pos: Pos(i as u64 + 1) });
            city.apply(Pos(i as u64 + 1), &header, payload);
        }
    }
    city
}

/// Carries what the city asks down to the node that owns the alarm.
fn ask_at_the_city(node: &mut Node, id: &str, wish: Wish) {
    let (_, drafts) = city_of(node).ask(id, wish, "Li", node.now).unwrap();
    for draft in drafts {
        let (header, payload) = draft.parts();
        let header = Header { origin: Some(Origin { address: "c", log: LogId(2), pos: Pos(1) }), ..header };
        let draft = Draft::new(&header, payload).unwrap();
        node.commit(draft);
    }
    node.settle();
}

const TO_THE_STREET: &str = "reach = \"street\", title";

#[test]
fn an_alarm_whose_reach_is_lowered_while_it_is_active_ends_where_it_was_told() {
    let mut node = Node::new(SMOKE);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    let id = node.alarm("smoke", "f").unwrap().id.clone();
    assert!(city_of(&node).alarms.get(&id).unwrap().active);
    // Worse, it is told again; and then it ends.
    let lowered =
        SMOKE.replace("severity = \"critical\", title", "severity = \"${event.data.how}\", reach = \"street\", title");
    node.reload(&lowered);
    node.wait(S);
    node.hear("city.smoke.v1", "f", &json!({"on": true, "how": "major"}));
    assert_eq!(city_of(&node).alarms.get(&id).unwrap().severity, Severity::Major);
    node.wait(S);
    node.hear("city.smoke.v1", "f", &json!({"on": false}));
    assert!(!city_of(&node).alarms.get(&id).unwrap().active, "the city shows it for ever");
    // Raised anew it stays where the rule says now.
    node.wait(S);
    node.hear("city.smoke.v1", "f", &json!({"on": true, "how": "major"}));
    assert_eq!((node.alarm("smoke", "f").unwrap().raises, city_of(&node).alarms.get(&id).unwrap().raises), (2, 1));
}

#[test]
fn who_asks_about_an_alarm_that_stays_below_now_gets_an_answer_and_its_end() {
    let mut node = Node::new(SMOKE);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    node.hear("city.smoke.v1", "f", &json!({"on": false}));
    node.reload(&SMOKE.replace("title", TO_THE_STREET));
    node.wait(S);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    let id = node.alarm("smoke", "f").unwrap().id.clone();
    let known = city_of(&node).alarms.get(&id).unwrap().clone();
    assert_eq!((known.raises, known.active), (1, false), "the city knows of the first time only");
    node.wait(S);
    ask_at_the_city(&mut node, &id, Wish::Acknowledge);
    let answered = city_of(&node).alarms.get(&id).unwrap().clone();
    assert_eq!((answered.raises, answered.active, answered.acknowledged), (2, true, false));
    node.wait(S);
    ask_at_the_city(&mut node, &id, Wish::Acknowledge);
    assert!(city_of(&node).alarms.get(&id).unwrap().acknowledged);
    node.wait(S);
    node.hear("city.smoke.v1", "f", &json!({"on": false}));
    assert!(!city_of(&node).alarms.get(&id).unwrap().active, "what was shown there ends there");
}

#[test]
fn an_alarm_of_two_rules_is_told_as_far_as_the_one_that_reaches_further() {
    let rule = |name: &str, on: &str, reach: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\non = [\"{on}\"]\nclear = \"event.data == 0\"\nwhen = \"event.data > 0\"\n\
             then = [{{ raise = {{ alarm = \"storm\", title = \"wind\", reach = \"{reach}\" }} }}]\n"
        )
    };
    for (first, second) in [("street", "city"), ("city", "street")] {
        let mut node = Node::new(&(rule("a", "wind.a", first) + &rule("b", "wind.b", second)));
        for (kind, level) in [("wind.a", 1), ("wind.b", 1)] {
            node.hear(kind, "x", &json!(level));
            node.wait(S);
        }
        let alarm = node.alarm("storm", "").unwrap();
        assert_eq!(alarm.rule, "a", "it is still the alarm of whoever raised it");
        let id = alarm.id.clone();
        assert!(city_of(&node).alarms.get(&id).is_some_and(|a| a.active), "{first}, {second}");
        node.hear("wind.b", "x", &json!(0));
        assert!(node.alarm("storm", "").unwrap().active, "the other goes on");
        node.wait(S);
        node.hear("wind.a", "x", &json!(0));
        assert!(!node.alarm("storm", "").unwrap().active);
        assert!(!city_of(&node).alarms.get(&id).unwrap().active, "{first}, {second}");
    }
}

/// The same by a reload, and by a file that was edited while the node was down.
fn edited(before: &str, after: &str, prepare: impl Fn(&mut Node)) -> [Node; 2] {
    [false, true].map(|by_restart| {
        let mut node = Node::new(before);
        prepare(&mut node);
        node.write_rows();
        if by_restart {
            node.config = config(after);
            node.restart();
        } else {
            node.reload(after);
        }
        node
    })
}

#[test]
fn an_absence_that_is_made_shorter_or_longer_counts_from_the_last_event() {
    let rule = |absent: &str| {
        format!(
            "[[rule]]\nname = \"silent\"\non = [\"t\"]\nabsent = \"{absent}\"\nthen = [{{ raise = {{ title = \"x\" }} }}]\n"
        )
    };
    let heard = |node: &mut Node| {
        node.hear("t", "a", &json!(1));
        node.wait(240 * S);
        node.hear("other", "a", &json!(1));
    };
    for mut node in edited(&rule("1h"), &rule("5m"), heard) {
        // A start gives devices a minute to come back.
        node.wait(121 * S);
        assert_eq!(node.fired("silent"), 1);
    }
    for mut node in edited(&rule("5m"), &rule("1h"), heard) {
        node.wait(3_300 * S);
        assert_eq!(node.fired("silent"), 0);
        node.wait(121 * S);
        assert_eq!(node.fired("silent"), 1);
    }
    // A moment that is past already is due at once; a node that was down may have missed something meanwhile.
    let [mut node, _] = edited(&rule("1h"), &rule("2m"), heard);
    assert_eq!(node.fired("silent"), 1);
    node.restart();
    assert_eq!(node.fired("silent"), 1);
}

#[test]
fn a_duration_that_is_edited_counts_from_when_the_condition_began() {
    let rule = |more: &str| {
        format!(
            "[[rule]]\nname = \"high\"\non = [\"t\"]\n{more}\nclear = \"event.data < 2\"\n\
             then = [{{ raise = {{ title = \"x\" }} }}]\n"
        )
    };
    let long = rule("when = \"event.data > 3\"\nfor = \"1h\"");
    let heard = |node: &mut Node| {
        for _ in 0..4 {
            node.hear("t", "a", &json!(4));
            node.wait(60 * S);
        }
    };
    for mut node in edited(&long, &rule("when = \"event.data > 3\"\nfor = \"5m\""), heard) {
        node.wait(59 * S);
        assert_eq!(node.fired("high"), 0);
        node.wait(2 * S);
        assert_eq!(node.fired("high"), 1);
    }
    for node in edited(&long, &rule("when = \"event.data > 3\""), heard) {
        assert_eq!(node.fired("high"), 1, "without `for` it is so at once");
    }
    for mut node in edited(&long, &rule("when = \"event.data > 5\"\nfor = \"5m\""), heard) {
        node.wait(7_200 * S);
        assert_eq!(node.fired("high"), 0, "what held is not enough any more");
    }
    // Nothing has changed: nothing is planned anew.
    for mut node in edited(&long, &long, heard) {
        node.wait(3_359 * S);
        assert_eq!(node.fired("high"), 0);
        node.wait(2 * S);
        assert_eq!(node.fired("high"), 1);
    }
}

#[test]
fn a_calm_and_a_window_that_are_edited_end_what_is_on_as_they_say_now() {
    let water = |calm: &str| WATER.replace("for = \"5m\"\n", "").replace("calm = \"1m\"", calm);
    let ending = |node: &mut Node| {
        node.hear("city.water", "g", &json!(3.5));
        node.wait(60 * S);
        node.hear("city.water", "g", &json!(2.0));
        node.wait(120 * S);
        assert!(node.alarm("water", "g").unwrap().active);
    };
    for mut node in edited(&water("calm = \"1h\""), &water("calm = \"3m\""), ending) {
        node.wait(59 * S);
        assert!(node.alarm("water", "g").unwrap().active);
        node.wait(2 * S);
        assert!(!node.alarm("water", "g").unwrap().active);
    }
    let busy = |within: &str| {
        format!(
            "[[rule]]\nname = \"busy\"\non = [\"t\"]\nwindow = {{ within = \"{within}\" }}\nwhen = \"window.count >= 3\"\n\
             clear = \"window.count < 3\"\nthen = [{{ raise = {{ title = \"x\" }} }}]\n"
        )
    };
    let crowded = |node: &mut Node| {
        (0..3).for_each(|_| node.hear("t", "a", &json!(1)));
        node.wait(240 * S);
    };
    for mut node in edited(&busy("1h"), &busy("5m"), crowded) {
        node.wait(59 * S);
        assert!(node.alarm("busy", "").unwrap().active);
        node.wait(2 * S);
        assert!(!node.alarm("busy", "").unwrap().active);
    }
}

#[test]
fn a_device_that_is_dead_is_missed_by_a_box_that_restarts_more_often_than_it_waits() {
    let rule = "[[rule]]\nname = \"silent\"\non = [\"t\"]\nby = \"event.subject\"\nabsent = \"2h\"\nthen = [{ raise = { title = \"x\" } }]\n";
    let mut node = Node::new(rule);
    node.hear("t", "dead", &json!(1));
    for _ in 0..3 {
        // An hour up, while another device goes on, and a minute down.
        for _ in 0..12 {
            node.hear("other", "alive", &json!(1));
            node.wait(300 * S);
        }
        node.write_rows();
        node.now += 60 * S;
        node.restart();
    }
    assert_eq!(node.said(), [("silent".into(), "dead".into(), "fired".into())]);
}

/// How many lives of so many seconds, with pauses between them, until it misses a device that is dead.
fn lives_until_missed(life: i64, pause: i64) -> Option<i64> {
    let rule = "[[rule]]\nname = \"silent\"\non = [\"t\"]\nby = \"event.subject\"\nabsent = \"10m\"\nthen = [{ raise = { title = \"x\" } }]\n";
    let mut node = Node::new(rule);
    node.restart();
    node.hear("t", "dead", &json!(1));
    (1..1_000).find(|n| {
        node.wait(life * S);
        if n % 2 == 0 {
            node.write_rows();
        }
        let is_missed = node.fired("silent") == 1;
        node.now += pause * S;
        node.restart();
        is_missed
    })
}

#[test]
fn a_device_that_is_dead_is_missed_by_an_idle_box_that_lives_for_less_than_a_minute_at_a_time() {
    for (life, pause) in [(50, 1), (50, 3_600), (20, 30), (130, 130), (599, 86_400), (10, 1)] {
        let lives = lives_until_missed(life, pause).unwrap_or(i64::MAX);
        // What was up for less than ten minutes may have missed nothing yet; a quarter of each life counts.
        assert!(lives.saturating_mul(life) >= 600, "{life} s up, {pause} s down: after {lives} already");
        assert!(lives.saturating_mul(life) <= 4 * 600 + life, "{life} s up, {pause} s down: after {lives} only");
    }
    assert_eq!(lives_until_missed(9, 60), None, "a box that lives no longer hears nothing");
}

#[test]
fn an_alarm_whose_rule_raises_another_or_none_now_ends_with_its_rule() {
    for then in ["raise = { alarm = \"fire\", title = \"x\" }", "emit = { type = \"e\", reach = \"street\" }"] {
        let mut node = Node::new(SMOKE);
        node.hear("city.smoke.v1", "f", &json!({"on": true}));
        let (rule, _) = SMOKE.split_once("[[rule.then]]").unwrap();
        node.reload(&format!("{rule}\nthen = [{{ {then} }}]\n"));
        node.hear("city.smoke.v1", "f", &json!({"on": false}));
        assert!(!node.alarm("smoke", "f").unwrap().active, "{then}");
    }
}

#[test]
fn a_reload_knows_of_alarms_that_no_rule_ends_any_more() {
    let mut node = Node::new(&(SMOKE.to_owned() + WATER));
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    let left = |node: &Node| node.rules.left().map(|a| format!("{}/{}", a.name, a.key)).collect::<Vec<_>>();
    assert_eq!(left(&node), [""; 0]);
    node.reload(SMOKE);
    assert_eq!(left(&node), [""; 0], "its own rule ends it, and the other has raised nothing");
    node.reload(WATER);
    assert_eq!(left(&node), ["smoke/f"]);
    let ends = "[[rule]]\nname = \"end\"\non = [\"all.clear\"]\nby = \"event.subject\"\nthen = [{ clear = { alarm = \"smoke\" } }]\n";
    // `check` refuses to clear what no rule raises.
    node.reload(
        &(ends.to_owned()
            + &SMOKE
                .replace("on = [\"city.smoke.*\"]", "on = [\"other\"]")
                .replace("name = \"smoke\"", "name = \"anew\"")
                .replace("raise = {", "raise = { alarm = \"smoke\",")),
    );
    assert_eq!(left(&node), [""; 0], "another rule ends it by its name");
    node.hear("all.clear", "f", &json!({}));
    assert!(!node.alarm("smoke", "f").unwrap().active);
}

#[test]
fn a_clock_that_is_set_back_a_little_brings_no_absence_forward() {
    let rule = "[[rule]]\nname = \"silent\"\non = [\"t\"]\nabsent = \"20m\"\nthen = [{ raise = { title = \"x\" } }]\n";
    let mut node = Node::new(rule);
    node.hear("t", "a", &json!(1));
    node.wait(400 * S);
    node.hear("other", "a", &json!(1));
    node.write_rows();
    node.now -= 200 * S;
    node.restart();
    node.wait(900 * S);
    assert_eq!(node.fired("silent"), 0);
}

#[test]
fn a_rule_that_is_back_with_other_words_tells_an_alarm_of_before_as_it_has_it_now() {
    let first = SMOKE.replace(
        "severity = \"critical\", title = \"Smoke at ${event.subject}\"",
        "severity = \"minor\", reach = \"street\", title = \"Smoke\"",
    );
    let worse = SMOKE.replace("title = \"Smoke at ${event.subject}\"", "title = \"Smoke\"");
    let mut node = Node::new(&first);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    node.reload("");
    node.wait(S);
    node.reload(&worse);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    let alarm = node.alarm("smoke", "f").unwrap();
    assert_eq!((alarm.severity, alarm.reach, alarm.raises), (Severity::Critical, Tier::City, 1));
    let said = node.events(alarms::CHANGED).len();
    node.wait(S);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    assert_eq!(node.events(alarms::CHANGED).len(), said, "that is said once");
}

#[test]
fn an_alarm_whose_rule_hears_others_now_or_tells_them_apart_otherwise_is_named() {
    let others = [("by = \"event.subject\"", "by = \"event.data.room\""), ("city.smoke.*", "city.other.*")];
    for (was, is) in others {
        let mut node = Node::new(SMOKE);
        node.hear("city.smoke.v1", "f", &json!({"on": true}));
        let left = |node: &Node| node.rules.left().map(|a| format!("{}/{}", a.name, a.key)).collect::<Vec<_>>();
        assert!(left(&node).is_empty());
        node.reload(&SMOKE.replace(was, is));
        assert_eq!(left(&node), ["smoke/f"], "{is}");
        node.write_rows();
        node.restart();
        assert_eq!(left(&node), ["smoke/f"], "{is}");
        node.reload(SMOKE);
        assert!(left(&node).is_empty(), "{is}");
        // What is edited besides leaves it where it is.
        node.reload(&SMOKE.replace("data.on == true", "data.on"));
        assert!(left(&node).is_empty());
        node.wait(S);
        node.hear("city.smoke.v1", "f", &json!({"on": false}));
        assert!(!node.alarm("smoke", "f").unwrap().active);
    }
}

#[test]
fn a_window_whose_value_is_edited_holds_no_numbers_of_the_one_before() {
    let average = |of: &str, within: &str| {
        format!(
            "[[rule]]\nname = \"avg\"\non = [\"air\"]\nwindow = {{ within = \"{within}\"{of} }}\n\
             when = \"{}window.count > 100\"\nthen = [{{ raise = {{ title = \"x\" }} }}]\n",
            if of.is_empty() { "" } else { "window.avg > 100.0 || " }
        )
    };
    let (coarse, fine) = (", value = \"event.data.pm10\"", ", value = \"event.data.pm25\"");
    for (before, after, kept) in [(coarse, fine, false), ("", coarse, false), (coarse, "", true), (fine, fine, true)] {
        let prepare = |node: &mut Node| {
            (0..3).for_each(|_| node.hear("air", "y", &json!({"pm10": 90, "pm25": 20})));
        };
        for mut node in edited(&average(before, "1h"), &average(after, "2h"), prepare) {
            node.hear("air", "y", &json!({"pm10": 90, "pm25": 20}));
            let state = node.rules.memories.get(0, "").unwrap();
            let seen = state.summary(&node.rules.set.rules[0], node.now).unwrap();
            assert_eq!(seen.count, if kept { 4 } else { 1 }, "{before} {after}");
            if after == fine {
                assert_eq!((seen.min, seen.max), (20.0, 20.0));
            }
            assert!(node.alarm("avg", "").is_none());
        }
    }
}
