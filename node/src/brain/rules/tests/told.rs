//! What is told of an alarm, by whom, and when again.

use super::*;
use citybrain_shared::prefix::Named;

#[test]
fn a_word_about_an_alarm_counts_only_from_its_owner() {
    let who = Identity { owner: Address::parse("c/s/m").unwrap(), name: "x".into(), key: String::new() };
    let raise = Step::Raise(Told {
        severity: Severity::Major,
        title: "t".into(),
        reach: Tier::City,
        rule: "x".into(),
        rule_key: String::new(),
        place: None,
    });
    let (alarm, kind) = alarms::step(None, &who, raise, 5).unwrap();
    let mut rules = Rules::new(&config(""));
    let endless = Alarm { title: "t".repeat(20_000), ..alarm.clone() };
    for (from, alarm, known) in [("c/s/other", &alarm, 0), ("c/s/m", &endless, 0), ("c/s/m", &alarm, 1)] {
        let payload = json!({"data": alarm}).to_string();
        let origin = Some(Origin { address: from, log: LogId(1), pos: Pos(1) });
        rules.apply(Pos(1), &Header { origin, ..Header::local(Kind::Event, kind) }, payload.as_bytes());
        assert_eq!(rules.alarms.len(), known, "{from}");
    }
}

fn raise(severity: Severity) -> Step {
    Step::Raise(Told {
        severity,
        title: "t".into(),
        reach: Tier::City,
        rule: "x".into(),
        rule_key: String::new(),
        place: None,
    })
}

#[test]
fn worse_than_what_was_acknowledged_is_news_again() {
    let who = Identity { owner: Address::parse("c").unwrap(), name: "x".into(), key: String::new() };
    let (a, _) = alarms::step(None, &who, raise(Severity::Minor), 5).unwrap();
    let (a, _) = alarms::step(Some(&a), &who, Step::Acknowledge { by: "Li".into() }, 6).unwrap();
    let (less, _) = alarms::step(Some(&a), &who, raise(Severity::Warning), 7).unwrap();
    let (worse, kind) = alarms::step(Some(&a), &who, raise(Severity::Critical), 7).unwrap();
    assert_eq!((less.acknowledged, worse.acknowledged, kind), (true, false, alarms::CHANGED));
    assert!(worse.rev > a.rev);
}

#[test]
fn an_alarm_that_is_worse_than_when_it_was_shelved_comes_off_the_shelf() {
    let who = Identity { owner: Address::parse("c").unwrap(), name: "x".into(), key: String::new() };
    let (a, _) = alarms::step(None, &who, raise(Severity::Minor), 5).unwrap();
    let (shelved, _) = alarms::step(Some(&a), &who, Step::Shelve { by: "Li".into(), until_us: 1_000 * S }, 6).unwrap();
    let is_shelved = |a: &Alarm| a.shelved_until.is_some() && a.shelved_by.is_some();
    let then = |a: &Alarm, severity| alarms::step(Some(a), &who, raise(severity), 7).unwrap().0;
    assert!(!is_shelved(&then(&shelved, Severity::Critical)));
    // Flapping is what alarms are shelved for.
    let less = then(&shelved, Severity::Warning);
    assert!(is_shelved(&less) && is_shelved(&then(&less, Severity::Minor)));
    let (over, _) = alarms::step(Some(&shelved), &who, Step::Clear { by: "rule:x".into() }, 8).unwrap();
    assert!(is_shelved(&then(&over, Severity::Minor)) && !is_shelved(&then(&over, Severity::Major)));
}

#[test]
fn an_alarm_that_has_ended_is_taken_off_the_shelf_and_not_put_onto_it() {
    let mut node = Node::new(SMOKE);
    node.hear("city.smoke.v1", "f", &json!({"on": true}));
    let id = node.alarm("smoke", "f").unwrap().id.clone();
    let ask = |node: &mut Node, wish: Wish| {
        let (_, drafts) = node.rules.ask(&id, wish, "Li", node.now).map_err(|e| e.to_string())?;
        drafts.into_iter().for_each(|d| node.commit(d));
        Ok::<_, String>(node.alarm("smoke", "f").unwrap().shelved_until.is_some())
    };
    let later = Wish::Shelve { until_us: 9_000 * S };
    assert_eq!(ask(&mut node, later.clone()), Ok(true));
    node.hear("city.smoke.v1", "f", &json!({"on": false}));
    assert_eq!(ask(&mut node, later), Err(format!("alarm `{id}` is cleared already")));
    assert_eq!(ask(&mut node, Wish::Shelve { until_us: 0 }), Ok(false));
    assert_eq!(ask(&mut node, Wish::Shelve { until_us: 0 }), Err(format!("alarm `{id}` is off the shelf already")));
}

#[test]
fn an_alarm_that_is_called_otherwise_is_told_and_one_that_counts_in_its_title_once_a_minute() {
    let rule = "[[rule]]\nname = \"water\"\non = [\"level\"]\nwhen = \"event.data.cm >= 1\"\n\
                then = [{ raise = { severity = \"major\", title = \"${event.data.cm} cm at ${event.data.gate}\" } }]\n";
    let mut node = Node::new(rule);
    let title = |node: &Node| node.alarm("water", "").unwrap().title.clone();
    let told = |node: &Node| node.events(alarms::CHANGED).len();
    let hear = |node: &mut Node, cm: usize| {
        node.now += S;
        node.hear("level", "x", &json!({"cm": cm, "gate": "east"}));
    };
    hear(&mut node, 1);
    hear(&mut node, 1);
    assert_eq!((title(&node).as_str(), told(&node)), ("1 cm at east", 0));
    hear(&mut node, 2);
    assert_eq!((title(&node).as_str(), told(&node)), ("2 cm at east", 1));
    node.hear("level", "x", &json!({"cm": 3}));
    assert_eq!((title(&node).as_str(), told(&node)), ("2 cm at east", 1), "what lacks a field says nothing");
    node.write_rows();
    node.restart();
    (3..=40).for_each(|cm| hear(&mut node, cm));
    assert_eq!((title(&node).as_str(), told(&node)), ("6 cm at east", 5));
    node.now += 60 * S;
    hear(&mut node, 41);
    assert_eq!((title(&node).as_str(), told(&node)), ("40 cm at east", 6), "what was to be told before it");
    hear(&mut node, 42);
    assert_eq!(told(&node), 6);
}

#[test]
fn a_severity_that_flaps_keeps_back_no_title_for_long() {
    let rule = "[[rule]]\nname = \"water\"\non = [\"level\"]\nwhen = \"event.data.cm >= 1\"\n\
                then = [{ raise = { severity = \"${event.data.s}\", title = \"${event.data.cm} cm\" } }]\n";
    let mut node = Node::new(rule);
    let hear = |node: &mut Node, s: &str, cm: usize| {
        node.now += S;
        node.hear("level", "x", &json!({"cm": cm, "s": s}));
    };
    for n in 0..100 {
        hear(&mut node, if n % 2 == 0 { "major" } else { "minor" }, n + 1);
    }
    node.now += 300 * S;
    hear(&mut node, "minor", 777);
    assert_eq!(node.alarm("water", "").unwrap().title, "777 cm");
}

#[test]
fn an_alarm_that_time_has_raised_is_told_again_only_when_it_is_called_otherwise() {
    let rule = "[[rule]]\nname = \"water\"\non = [\"level\"]\nwhen = \"event.data >= 1\"\nfor = \"5s\"\n\
                then = [{ raise = { severity = \"major\", title = \"${event.data} cm\" } }]\n";
    let mut node = Node::new(rule);
    node.hear("level", "x", &json!(1));
    node.wait(6 * S);
    node.hear("level", "x", &json!(1));
    let whats = |node: &Node| node.said().into_iter().map(|(_, _, what)| what).collect::<Vec<_>>();
    assert_eq!(whats(&node), ["fired"]);
    node.hear("level", "x", &json!(2));
    assert_eq!(
        (whats(&node), node.alarm("water", "").unwrap().title.as_str()),
        (vec!["fired".into(), "changed".into()], "2 cm")
    );
}

#[test]
fn an_alarm_is_found_by_what_a_list_calls_it_if_that_is_one_alone() {
    let mut node = Node::new(SMOKE);
    for flat in ["flat-3", "flat-30"] {
        node.hear("city.smoke.v1", flat, &json!({"on": true}));
    }
    let own = node.alarm("smoke", "flat-3").unwrap().clone();
    let found = |node: &Node, text: &str| match node.rules.alarms.named(text) {
        Named::One(alarm) => Some(alarm.id.clone()),
        Named::Nothing => None,
        Named::Several(a, b) => Some(format!("{} {}", a.origin, b.origin)),
    };
    assert_eq!(found(&node, "smoke/flat-3"), Some(own.id.clone()));
    assert_eq!(found(&node, &own.id[..8]), Some(own.id.clone()));
    for text in ["smoke", "smoke/", "smoke/flat", "smoke/flat-31", "flat-3", ""] {
        assert_eq!(found(&node, text), None, "{text}");
    }
    let origin = Address::parse("c/s/k").unwrap();
    let below = Alarm { id: id_of(&origin, "smoke", "flat-3"), origin, ..own.clone() };
    node.rules.alarms.fold(below.clone());
    let two = found(&node, "smoke/flat-3").unwrap();
    assert!(["c/s c/s/k", "c/s/k c/s"].contains(&two.as_str()), "{two}");
    // Of one that is over and one that is not the second is meant.
    node.rules.alarms.fold(Alarm { active: false, rev: below.rev + 1, ..below });
    assert_eq!(found(&node, "smoke/flat-3"), Some(own.id));
}
