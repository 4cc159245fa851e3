//! Much at once, large events, words that come late, and clocks that were wrong.

use super::*;

#[test]
fn conclusions_with_long_reasons_are_each_spoken_once_in_groups_that_fit_an_event() {
    let rule = "[[rule]]\nname = \"fire\"\non = [\"talk\"]\nwhen = 'event.data.text.contains(\"火\")'\n\
                then = [{ emit = { type = \"heard.${event.data.kind}\" } }]\n";
    let mut node = Node::new(rule);
    for i in 0..300 {
        let text = format!("{}{i}", "楼道里有火".repeat(80));
        node.only_hear("talk", "x", &json!({"text": text, "kind": "长".repeat(2_000)}));
    }
    node.settle();
    assert_eq!(node.fired("fire"), 300);
    let says: Vec<usize> =
        node.log.iter().filter(|bytes| Header::decode(bytes).unwrap().0.name == FIRED).map(Vec::len).collect();
    assert!(says.len() > 1 && says.iter().all(|bytes| *bytes < 256 * 1024), "{says:?}");
}

#[test]
fn an_event_whose_id_is_as_long_as_an_event_may_be_is_spoken_of_once() {
    let rule = "[[rule]]\nname = \"r\"\non = [\"a\"]\nthen = [{ emit = { type = \"b\" } }]\n";
    let mut node = Node::new(rule);
    let event = json!({"specversion": "1.0", "id": "i".repeat(250_000), "source": "/t", "type": "a"});
    let header = Header { direction: Direction::Up, ..Header::local(Kind::Event, "a") };
    node.commit(Draft::new(&header, event.to_string().as_bytes()).unwrap());
    node.settle();
    assert_eq!((node.fired("r"), node.events("b").len()), (1, 1));
}

#[test]
fn a_burst_asks_for_time_before_anything_it_concluded_is_dropped() {
    let rule = "[[rule]]\nname = \"r\"\non = [\"a\"]\nthen = [{ emit = { type = \"b\" } }]\n";
    let mut node = Node::new(rule);
    assert!(!node.rules.is_behind());
    for _ in 0..12_000 {
        node.only_hear("a", "x", &json!({}));
    }
    assert!(node.rules.is_behind());
    node.settle();
    assert!(!node.rules.is_behind());
    assert_eq!((node.fired("r"), node.rules.view().dropped), (12_000, 0));
}

/// A word from above, as it was asked of this alarm.
fn word(alarm: &Alarm, action: &str) -> Draft {
    let event = json!({"specversion": "1.0", "id": "w", "source": "/c", "type": alarms::ASK, "data": {
        "action": action, "by": "Wang", "at": alarm.raised_at, "known": alarm, "tier": "city",
    }});
    let header =
        Header { direction: Direction::Down, target: alarm.origin.as_str(), ..Header::local(Kind::Event, alarms::ASK) };
    Draft::new(&header, event.to_string().as_bytes()).unwrap()
}

#[test]
fn a_late_word_does_not_end_an_alarm_that_nobody_has_seen() {
    let rule = "[[rule]]\nname = \"water\"\non = [\"level\"]\nwhen = \"event.data >= 1\"\nclear = \"event.data == 0\"\n\
                then = [{ raise = { severity = \"${event.data >= 2 ? 'critical' : 'minor'}\", title = \"water\" } }]\n";
    let mut node = Node::new(rule);
    let hear = |node: &mut Node, level: u8| {
        node.now += S;
        node.hear("level", "x", &json!(level));
    };
    hear(&mut node, 1);
    let seen = node.alarm("water", "").unwrap().clone();
    hear(&mut node, 2);
    node.commit(word(&seen, "ack"));
    node.settle();
    assert!(!node.alarm("water", "").unwrap().acknowledged, "it is worse than what was seen");

    let seen = node.alarm("water", "").unwrap().clone();
    hear(&mut node, 0);
    hear(&mut node, 2);
    for action in ["ack", "clear"] {
        let before = node.alarm("water", "").unwrap().rev;
        node.commit(word(&seen, action));
        node.settle();
        let now = node.alarm("water", "").unwrap();
        assert!(now.active && !now.acknowledged && now.raises == 2, "{action}");
        assert!(now.rev > before, "whoever asked hears how it stands");
    }
    let seen = node.alarm("water", "").unwrap().clone();
    node.commit(word(&seen, "ack"));
    node.settle();
    assert!(node.alarm("water", "").unwrap().acknowledged);
}

#[test]
fn what_a_clock_a_year_ahead_left_behind_holds_nothing_up() {
    let rules = "[[rule]]\nname = \"three\"\non = [\"n\"]\nwindow = { within = \"10m\" }\nwhen = \"window.count >= 3\"\n\
                 clear = \"window.count < 3\"\nthen = [{ raise = { title = \"three\" } }]\n\
                 [[rule]]\nname = \"gone\"\non = [\"n\"]\nby = \"event.subject\"\nabsent = \"5m\"\nthen = [{ raise = { title = \"gone\" } }]\n\
                 [[rule]]\nname = \"once\"\non = [\"n\"]\nquiet = \"10m\"\nthen = [{ emit = { type = \"once\" } }]\n";
    let mut node = Node::new(rules);
    node.state.me.boot.counter = 1;
    node.restart();
    let (right, ahead) = (node.now, 365 * 86_400 * S);
    node.now += ahead;
    node.hear("n", "a", &json!({}));
    node.hear("n", "b", &json!({}));
    node.now = right + S;
    node.hear("n", "a", &json!({}));
    assert!(node.alarm("three", "").is_some_and(|a| a.active), "the two that came a moment ago count");
    assert_eq!(node.events("once").len(), 1, "that was a moment ago, too");
    node.write_rows();
    node.restart();
    node.write_rows();
    assert_eq!(node.rows, node.folded_anew());
    node.wait(6 * 60 * S);
    assert!(node.alarm("gone", "b").is_some_and(|a| a.active), "nothing came of b for five minutes");
    node.wait(5 * 60 * S);
    assert!(!node.alarm("three", "").unwrap().active, "the window has emptied");
    node.hear("n", "a", &json!({}));
    assert_eq!(node.events("once").len(), 2);
}

#[test]
fn of_a_large_event_everything_is_known_at_once_and_all_but_its_picture_later() {
    let rule = "[[rule]]\nname = \"camera\"\non = [\"cam\"]\nwhen = \"event.data.smoke\"\nclear = \"!event.data.smoke\"\nby = \"event.subject\"\n\
                then = [{ raise = { key = \"${event.data.room}\", title = \"smoke in ${event.data.room}, ${event.data.picture.size()}\" } }]\n";
    let mut node = Node::new(rule);
    let picture = "p".repeat(60_000);
    node.hear("cam", "x", &json!({"smoke": true, "room": "3-1", "picture": picture}));
    assert_eq!(node.alarm("camera", "3-1").unwrap().title, "smoke in 3-1, 60000");
    let kept = node.rules.memories.keys(0)["x"].held.as_ref().unwrap().event.len();
    assert!(kept < 8 * 1024, "{kept}");
    node.hear("cam", "x", &json!({"smoke": false}));
    assert!(!node.alarm("camera", "3-1").unwrap().active, "its key is known though the event that ends it lacks it");
}

#[test]
fn an_alarm_of_an_event_that_was_too_large_to_keep_ends_with_what_raised_it() {
    let rule = "[[rule]]\nname = \"camera\"\non = [\"cam\"]\nwhen = \"event.data.smoke\"\nclear = \"!event.data.smoke\"\nby = \"event.subject\"\n\
                then = [{ raise = { key = \"${event.data.room}\", title = \"smoke\" } }]\n";
    let mut node = Node::new(rule);
    let mut data: serde_json::Map<String, Json> =
        (0..1_000).map(|i| (format!("reading-{i}"), json!("a dozen words that say something of it"))).collect();
    data.extend([("smoke".into(), true.into()), ("room".into(), "3-1".into())]);
    node.hear("cam", "x", &data.into());
    assert!(!node.rules.memories.keys(0)["x"].held.as_ref().unwrap().event.contains("3-1"), "it was too large");
    node.hear("cam", "y", &json!({"smoke": true, "room": "3-2"}));
    node.write_rows();
    node.restart();
    node.hear("cam", "x", &json!({"smoke": false}));
    assert!(!node.alarm("camera", "3-1").unwrap().active);
    assert!(node.alarm("camera", "3-2").unwrap().active, "another's is another's");
}

#[test]
fn a_day_begins_at_midnight_where_the_node_is() {
    let rule = "[[rule]]\nname = \"daily\"\non = [\"n\"]\nwindow = { kind = \"tumbling\", within = \"1d\" }\nwhen = \"window.count == 2\"\n\
                then = [{ emit = { type = \"two\" } }]\n";
    let mut node = Node::new(rule);
    // 23:50 in China is ten to four in the afternoon, UTC.
    node.now = (15 * 60 + 50) * 60 * S;
    node.hear("n", "x", &json!({}));
    node.wait(20 * 60 * S);
    node.hear("n", "x", &json!({}));
    assert_eq!(node.events("two").len(), 0, "yesterday's is over");
    node.wait(8 * 3600 * S);
    node.hear("n", "x", &json!({}));
    assert_eq!(node.events("two").len(), 1);
}

#[test]
fn a_flood_of_conclusions_leaves_room_for_timers_and_a_beginning_is_said_before_its_end() {
    let rules = "[[rule]]\nname = \"flood\"\non = [\"a\"]\nwhen = 'event.data.text != \"\"'\n\
                 then = [{ emit = { type = \"b\", data = { text = \"${event.data.text}\" } } }]\n\
                 [[rule]]\nname = \"gone\"\non = [\"n\"]\nby = \"event.subject\"\nabsent = \"1m\"\nthen = [{ raise = { title = \"gone\" } }]\n\
                 [[rule]]\nname = \"calm\"\non = [\"level\"]\nwindow = { within = \"1m\" }\nwhen = \"window.count >= 1\"\n\
                 clear = \"window.count < 1\"\nthen = [{ raise = { title = \"calm\" } }]\n";
    let mut node = Node::new(rules);
    node.hear("n", "x", &json!({}));
    node.now += 61 * S;
    let long = "楼道里有火".repeat(2_000);
    let flood = |node: &mut Node| (0..300).for_each(|_| node.only_hear("a", "x", &json!({"text": long})));
    flood(&mut node);
    node.only_hear("level", "x", &json!({}));
    // The window of `calm` has emptied before its beginning was said.
    node.now += 61 * S;
    for _ in 0..3 {
        flood(&mut node);
        let drafts = node.rules.on_due(&node.state, node.now);
        drafts.into_iter().for_each(|d| node.commit(d));
    }
    assert!(node.alarm("gone", "x").is_some_and(|a| a.active), "it waits behind nobody's flood");
    assert!(node.alarm("calm", "").is_none());
    node.settle();
    let calm: Vec<String> =
        node.said().into_iter().filter(|(rule, ..)| rule == "calm").map(|(.., what)| what).collect();
    assert_eq!(calm, ["fired", "over"]);
    assert!(!node.alarm("calm", "").unwrap().active);
}

const LEVEL: &str = r#"
[[rule]]
name = "level"
on = ["water"]
by = "event.subject"
when = "event.data > 3.0"
clear = "event.data < 2.0"
then = [{ raise = { title = "${event.data} m" } }]
"#;

#[test]
fn the_title_of_an_alarm_catches_up_with_the_last_reading() {
    for restarts in [false, true] {
        let mut node = Node::new(LEVEL);
        for tenths in 31..40 {
            node.hear("water", "r", &json!(f64::from(tenths) / 10.0));
        }
        // It says neither that it goes on nor that it ends.
        node.hear("water", "r", &json!(2.5));
        assert_ne!(node.alarm("level", "r").unwrap().title, "3.9 m", "not each reading is told at once");
        if restarts {
            node.write_rows();
            node.restart();
        }
        node.wait(61 * S);
        assert_eq!(node.alarm("level", "r").unwrap().title, "3.9 m", "{:?}", node.said());
        assert_eq!(node.said().last().unwrap().2, "changed");
        assert_eq!(node.rules.next_due_us(), None, "and nothing is told again and again");
        let before = node.events(alarms::CHANGED).len();
        node.wait(600 * S);
        assert_eq!(node.events(alarms::CHANGED).len(), before);
        node.hear("water", "r", &json!(1.0));
        assert!(!node.alarm("level", "r").unwrap().active);
    }
}

#[test]
fn a_title_that_was_held_back_is_not_told_of_what_is_over_or_called_so_again() {
    let told = |last: &[f64]| {
        let mut node = Node::new(LEVEL);
        for tenths in 31..40 {
            node.hear("water", "r", &json!(f64::from(tenths) / 10.0));
        }
        last.iter().for_each(|level| node.hear("water", "r", &json!(level)));
        let before = node.log.len();
        node.wait(600 * S);
        (node.log.len() - before, node)
    };
    let (more, node) = told(&[1.0]);
    assert_eq!((more, node.alarm("level", "r").unwrap().active), (0, false));
    // As it was told last.
    let (_, node) = told(&[]);
    let shown = node.events(alarms::CHANGED).iter().rev().nth(1).unwrap()["data"]["title"].clone();
    let level: f64 = shown.as_str().unwrap().trim_end_matches(" m").parse().unwrap();
    assert_eq!(told(&[level]).0, 0);
}

#[test]
fn where_the_oldest_of_a_flood_are_dropped_each_of_the_others_gets_its_own_answer() {
    let siren = "[[rule]]\nname = \"siren\"\non = [\"t\"]\nby = \"event.subject\"\nwhile_alarm = \"smoke\"\n\
                 then = [{ emit = { type = \"siren.${event.subject}\" } }]\n";
    let mut node = Node::new(&[SMOKE, siren].concat());
    node.hear("city.smoke.v1", "b", &json!({"on": true}));
    node.now += S;
    let large = "x".repeat(250_000);
    let subject = |n: usize| if n.is_multiple_of(3) { "b" } else { "a" };
    for n in 0..302 {
        node.only_hear("t", subject(n), &json!(large));
    }
    let dropped = node.rules.view().dropped as usize;
    assert!(!dropped.is_multiple_of(3), "{dropped}: an answer for each place in the queue would do as well");
    node.settle();
    let of_b = (dropped..302).filter(|n| subject(*n) == "b").count();
    assert_eq!((node.events("siren.a").len(), node.events("siren.b").len()), (0, of_b));
    let fired_us = |key: &str| node.rules.memories.keys(1)[key].fired_us;
    assert_eq!((fired_us("a"), fired_us("b")), (None, Some(node.now)));
    node.write_rows();
    assert_eq!(node.rows, node.folded_anew());
}
