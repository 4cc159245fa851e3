//! What a check finds in a file's rules.

use super::super::expression::{Expression, Scope, Wants};
use super::*;

#[test]
fn what_can_never_work_is_a_fault_and_what_was_perhaps_meant_otherwise_a_doubt() {
    let rule = |more: &str| {
        format!(
            "[node]\naddress = \"c/s\"\ndata = \"/x\"\n[[category]]\ncode = \"F1\"\nname = \"smoke\"\ndepartment = \"d\"\n\
             [[rule]]\nname = \"r\"\non = [\"t\"]\n{more}\n"
        )
    };
    let raise = "then = [{ raise = { title = \"x\" } }]";
    let read = |more: &str| {
        let text = rule(more);
        let parsed = parse(&text, &Variables::new());
        let config = parsed.config.unwrap();
        let found = super::super::check::problems(&config, &parsed.places, &text);
        let found: Vec<String> = found.into_iter().map(|p| p.message).collect();
        (found, super::super::check::doubts(&config, &parsed.places, Some(&["F1", "smoke"])))
    };
    for (more, about) in [
        ("window = { within = \"1m\" }\nwhen = \"window.avg > 3\"", "the window has none"),
        ("window = { within = \"1m\" }\nwhen = \"window.distinct > 3\"", "the window has none"),
        ("when = \"event.subject.matches('[a')\"", "`[a` is no pattern: unclosed character class"),
        ("when = \"event.subject.startsWith(3)\"", "a number where a string is needed"),
        ("when = \"-event.type > 3\"", "a string where a number is needed"),
    ] {
        let (found, _) = read(&format!("{more}\n{raise}"));
        assert!(found.len() == 1 && found[0].contains(about), "{more}: {found:?}");
    }
    for (more, meant) in [
        (format!("when = \"event.typ == 'x'\"\n{raise}"), "`event.typ`; did you mean `event.type`?"),
        (format!("when = \"event.at > 3\"\n{raise}"), "`event.at`; did you mean `event.at_ms`?"),
        ("then = [{ raise = { title = \"${event.subjec}\" } }]".into(), "did you mean `event.subject`?"),
        ("then = [{ raise = { title = \"x\", key = \"${event.subject}\" } }]".into(), "give `by` the same"),
        ("then = [{ case = { category = \"smok\", title = \"x\" } }]".into(), "did you mean `smoke`?"),
    ] {
        let (found, doubts) = read(&more);
        assert!(found.is_empty() && doubts.len() == 1 && doubts[0].contains(meant), "{more}: {found:?} {doubts:?}");
    }
    let chosen = "then = [{ raise = { severity = \"${event.data.v > 90 ? 'hig' : 'minor'}\", title = \"x\" } }]";
    assert_eq!(read(chosen).0, ["`hig` is no severity"]);
    for good in [
        "window = { within = \"1m\" }\nwhen = \"window.count > 3 && event.subject.matches('[a-c]+')\"",
        "when = \"-event.data.x > 3 && event.place == 'y' && event.traceparent != ''\"",
        "by = \"event.data['PM_US Post']\"",
    ] {
        assert_eq!(read(&format!("{good}\n{raise}")), (Vec::new(), Vec::new()), "{good}");
    }
    let named =
        "then = [{ case = { category = \"smoke\", title = \"x\" } }, { case = { category = \"F1\", title = \"x\" } }]";
    assert_eq!(read(named), (Vec::new(), Vec::new()));
}

#[test]
fn a_rule_that_its_own_alarm_keeps_back_is_refused() {
    let read = |more: &str, raise: &str| {
        let text = format!(
            "[node]\naddress = \"c/s/a/n\"\ndata = \"/x\"\n[[rule]]\nname = \"other\"\non = [\"t\"]\n\
             then = [{{ raise = {{ title = \"x\" }} }}]\n\
             [[rule]]\nname = \"r\"\non = [\"t\"]\n{more}\nthen = [{{ raise = {{ title = \"x\"{raise} }} }}]\n"
        );
        let parsed = parse(&text, &Variables::new());
        let found = super::super::check::problems(&parsed.config.unwrap(), &parsed.places, &text);
        let told = |p: citybrain_shared::config::Problem| (p.message, p.span.map(|span| text[span].to_owned()));
        found.into_iter().map(told).collect::<Vec<_>>()
    };
    let by = "by = \"event.subject\"\n";
    for (more, raise, alarm) in [
        ("unless_alarm = \"r\"".to_owned(), "", "r"),
        ("unless_alarm = \"r/*\"".to_owned(), "", "r"),
        (format!("{by}unless_alarm = \"r\""), "", "r"),
        ("unless_alarm = \"other\"".to_owned(), ", alarm = \"other\"", "other"),
    ] {
        let [(message, place)] = &read(&more, raise)[..] else { panic!("{more}: {:?}", read(&more, raise)) };
        assert_eq!(*message, format!("the rule itself raises the alarm `{alarm}`"));
        assert!(place.as_ref().is_some_and(|text| text.starts_with(&format!("\"{alarm}"))), "{place:?}");
    }
    for (more, raise) in [
        ("unless_alarm = \"other\"".to_owned(), ""),
        (format!("{by}unless_alarm = \"r/*\""), ""),
        ("unless_alarm = \"r/*\"".to_owned(), ", key = \"a\""),
    ] {
        assert_eq!(read(&more, raise), [], "{more}");
    }
}

#[test]
fn above_the_neighbourhood_a_rule_that_hears_nothing_but_calls_is_doubted() {
    let doubts = |address: &str, on: &str| {
        let text = format!(
            "[node]\naddress = \"{address}\"\ndata = \"/x\"\n[[rule]]\nname = \"r\"\non = [{on}]\n\
             then = [{{ raise = {{ title = \"x\" }} }}]\n"
        );
        let parsed = parse(&text, &Variables::new());
        super::super::check::doubts(&parsed.config.unwrap(), &parsed.places, None).len()
    };
    for calls in ["\"city.appeal*\"", "\"city.appeal\", \"city.sos.*\"", "\"city.sos*\"", "\"city.sos.pressed.v1\""] {
        assert_eq!((doubts("c/s", calls), doubts("c/s/m/n", calls)), (1, 0), "{calls}");
    }
    for others in ["\"city.*\"", "\"city.appeals\"", "\"city.appeal\", \"city.brain.case.submitted\"", "\"city.s*\""] {
        assert_eq!(doubts("c/s", others), 0, "{others}");
    }
}

#[test]
fn a_rule_of_the_file_that_opens_cases_of_a_category_that_nobody_has_is_named() {
    let text = "preset = [\"zigbee2mqtt\"]\n[node]\naddress = \"c/s\"\ndata = \"/x\"\n[[rule]]\nname = \"r\"\non = [\"t\"]\n\
                then = [{ case = { category = \"none\", title = \"x\" } }]\n\
                [[category]]\ncode = \"F1\"\nname = \"fire\"\ndepartment = \"d\"\n";
    let named = |text: &str| {
        let config = parse(text, &Variables::new()).config.unwrap();
        Rules::new(&config).nameless(&config.category)
    };
    assert_eq!(named(text), ["rule r: nobody here or above has a category `none`: its cases get no limits"]);
    for known in ["F1", "fire", "${event.data.category}"] {
        assert_eq!(named(&text.replace("none", known)), Vec::<String>::new(), "{known}");
    }
}

#[test]
fn of_a_window_or_an_action_that_does_not_read_it_is_not_said_that_there_is_none() {
    let read = |more: &str| {
        let text = format!("[node]\naddress = \"c/s\"\ndata = \"/x\"\n[[rule]]\nname = \"r\"\non = [\"t\"]\n{more}");
        let parsed = parse(&text, &Variables::new());
        let found = super::super::check::problems(&parsed.config.unwrap(), &parsed.places, &text);
        let messages = parsed.problems.into_iter().chain(found).map(|p| p.message);
        messages.collect::<Vec<_>>()
    };
    let raise = "then = [{ raise = { title = \"${window.sum}\" } }]";
    for (window, about) in [
        ("window = { kind = \"sliding\" }", "has no `within`"),
        ("window = { within = \"1x\", value = \"event.data\" }", "1x"),
        ("window = 5", "window"),
    ] {
        let conditions = "when = \"window.sum > 3.0\"\nclear = \"window.count < 2\"";
        let found = read(&format!("{window}\n{conditions}\n{raise}"));
        assert!(found.len() == 1 && found[0].contains(about), "{window}: {found:?}");
        // What is wrong beside it is said all the same.
        assert_eq!(read(&format!("{window}\nwhen = \"window.som > 3.0\"\n{raise}")).len(), 2, "{window}");
    }
    assert_eq!(read(&format!("when = \"window.sum > 3.0\"\n{raise}")).len(), 2, "there is none");
    assert_eq!(read("then = [{ rise = 1 }]").len(), 1);
    assert_eq!(read("then = []"), ["nothing follows from it"]);
}

#[test]
fn faults_are_found_with_their_places() {
    let text = r#"[node]
address = "c/s"
data = "/x"
[[rule]]
name = "a"
on = ["t"]
by = "evnt.subject"
when = "event.data.x > 3 && windows.count > 2"
then = [{ raise = { severity = "bad", title = "${event.data.} x" } }]
[[rule]]
name = "a"
on = ["u"]
when = "'x' > 3"
unless_alarm = "a"
then = [{ emit = { type = "w" } }, { clear = { alarm = "b" } }]
[[rule]]
name = "c"
on = ["w*"]
when = "size(event.subject)"
then = [{ emit = { type = "u" } }, { notice = { target = "other/**", type = "city.cap.message" } }]
[[rule]]
name = "d"
on = ["x"]
clear = "true"
absent = "1m"
then = [{ case = { kind = "sos", category = "s", title = "t" } }, { case = { kind = "sos", category = "s", title = "u" } }]
"#;
    let parsed = parse(text, &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    let mut found: Vec<String> = super::super::check::problems(&parsed.config.unwrap(), &parsed.places, text)
        .iter()
        .map(|p| {
            let (line, column) = p.line_column(text).unwrap();
            format!("{line}:{column} {} ({})", p.message, p.help.clone().unwrap_or_default())
        })
        .collect();
    found.sort();
    let expected = [
        "11:8 rule 1 has this name already (windows are kept under it: give each its own)",
        "13:13 a string is compared with a number (both sides must be of one kind)",
        "15:56 no rule of this node raises an alarm `b` (raised here: a)",
        "19:9 it gives a number, not true or false (compare it with something)",
        "20:58 other is not below this node (a node sends only to `c/s` and below)",
        "7:7 unknown variable `evnt` (did you mean `event`?)",
        "8:29 unknown variable `windows` (did you mean `window`?)",
        "24:9 an absence is over when something comes (leave `clear` out)",
        "9:32 `bad` is no severity (use one of critical, major, minor, warning, indeterminate)",
    ];
    for e in expected {
        assert!(found.iter().any(|f| f == e), "lacks {e}\n{}", found.join("\n"));
    }
    for (line, message) in [("20:", "the node itself writes these types"), ("26:", "two incidents of one category")] {
        assert!(found.iter().any(|f| f.starts_with(line) && f.contains(message)), "{}", found.join("\n"));
    }
    assert!(found.iter().any(|f| f.contains("a circle: a → c → a")), "{}", found.join("\n"));
    assert!(found.iter().any(|f| f.starts_with("9:") && f.contains("not CEL")), "{}", found.join("\n"));
}

#[test]
fn a_name_that_cel_does_not_read_is_told_with_the_way_to_write_it() {
    for (when, name) in [
        ("event.data.温度 > 3", Some("温度")),
        ("event.data.PM温 > 3", Some("PM温")),
        ("event.data.x > 温", None),
        ("event.data.x = 3", None),
    ] {
        let fault = Expression::compile(when, Scope { window: false }, Wants::Bool).unwrap_err().remove(0);
        assert_eq!(fault.help.contains("brackets"), name.is_some(), "{when}: {fault:?}");
        if let Some(name) = name {
            let written = when.replace(&format!(".{name}"), &format!("['{name}']"));
            assert!(fault.help.contains(&format!("['{name}']")), "{fault:?}");
            assert!(Expression::compile(&written, Scope { window: false }, Wants::Bool).is_ok(), "{written}");
        }
    }
}

#[test]
fn a_battery_is_told_of_whatever_event_it_comes_with() {
    let text = "preset = [\"zigbee2mqtt\"]\n[node]\naddress = \"c/s\"\ndata = \"/nowhere\"\n";
    for kind in ["city.button.pressed.v1", "city.sos.pressed.v1", "city.device.event.v1", "city.sensor.reading.v1"] {
        let mut node = Node::new("");
        node.config = parse(text, &Variables::new()).config.unwrap();
        node.rules = Rules::new(&node.config);
        node.hear(kind, "hall", &json!({"action": "single", "battery": 3}));
        assert!(node.alarm("battery-low", "hall /t").is_some_and(|a| a.active), "{kind}");
        node.hear(kind, "hall", &json!({"action": "single"}));
        assert!(node.alarm("battery-low", "hall /t").unwrap().active, "{kind}: it has said nothing of it");
        node.wait(S);
        node.hear(kind, "hall", &json!({"battery": 90}));
        assert!(!node.alarm("battery-low", "hall /t").unwrap().active, "{kind}");
    }
}
