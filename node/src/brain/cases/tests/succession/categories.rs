//! What is opened at a new box before its parent has been heard, about what those above know.

use super::*;

const AT: &str = "c/s/a/n";
const OTHER: &str = "20261120-1";

/// A new box that knows no category itself, and what the city says of its own; its parent is not heard.
fn alone(categories: &str) -> (Net, Draft) {
    let mut net = Net::new();
    net.cut(AT);
    net.replace(AT, 0);
    let text = format!("[node]\naddress = \"{AT}\"\ndata = \"d\"\n[parent]\nurl = \"mqtt://p\"\n");
    net.places.get_mut(AT).unwrap().cases = Cases::new(&parse(&text, &Variables::new()).config.unwrap());
    net.begin_history(AT);
    net.start(AT);
    net.settle();
    let city = parse(&format!("[node]\naddress = \"c\"\ndata = \"d\"\n{categories}"), &Variables::new());
    assert!(city.problems.is_empty(), "{:?}", city.problems);
    let word = Services::new(&city.config.unwrap()).on_due(&State::default(), net.now).remove(0);
    (net, word)
}

/// The parent is heard after so many seconds.
fn heard(net: &mut Net, word: Draft, after_s: i64) {
    net.now += after_s * 1_000_000;
    net.cut.clear();
    heard_so_far(net, word);
}

/// As far as no line is cut.
fn heard_so_far(net: &mut Net, word: Draft) {
    net.commit("c", vec![word], None);
    net.settle();
}

const LAMP: &str = r#"
[[category]]
code = "lamp"
name = "路灯"
department = "市政"
response = "40s"
dispatch = "1h"
solution = "2h"
call_back = "3h"
contact_reach = "city"
[[category]]
code = "sos"
name = "求助"
kind = "incident"
response = "5m"
"#;

fn lines(held: &Held) -> Vec<(&str, &str)> {
    held.history.iter().map(|e| (e.step.as_str(), e.text.as_str())).collect()
}

fn runs(held: &Held, clock: &str) -> Option<i64> {
    let clock = held.case.clock(clock).filter(|c| c.runs())?;
    Some((clock.due? - held.case.opened).num_seconds())
}

#[test]
fn what_is_opened_before_the_parent_is_heard_is_due_from_its_opening_once_its_category_is_known() {
    for named in ["lamp", "路灯"] {
        let (mut net, word) = alone(LAMP);
        net.open_with_phone(AT, CASE, named);
        let not_yet = format!("`{named}` is not known here yet: the parent is still to be heard");
        assert_eq!(lines(net.held(AT)), [("submitted", not_yet.as_str())]);
        heard(&mut net, word, 10);
        for n in [AT, "c/s/a", "c/s", "c"] {
            let held = net.held(n);
            let case = &held.case;
            let about = (case.category.as_str(), case.category_name.as_str(), case.department.as_str());
            assert_eq!(about, ("lamp", "路灯", "市政"), "{n}");
            assert_eq!(lines(held)[1..], [("categorised", "its category is known here by now: 路灯")], "{n}");
            assert_eq!((runs(held, "response"), case.category_awaited), (Some(40), false), "{n}");
            assert!(held.contact.is_some(), "{n} is to know whom to call");
        }
        net.now += 40_000_000;
        net.settle();
        assert!(net.held("c").case.clock("response").unwrap().missed.is_some());
    }
}

#[test]
fn a_press_before_the_parent_is_heard_has_its_limit_too() {
    for named in ["", "求助", "nobody's"] {
        let (mut net, word) = alone(LAMP);
        let new = Opening { sos: true, ..opening(OTHER, named) };
        let (_, drafts) = net.places[AT].cases.open(new, Contact::default(), net.now);
        net.commit(AT, drafts, None);
        heard(&mut net, word, 10);
        let held = net.places[AT].cases.get(OTHER).unwrap();
        assert_eq!((held.case.category.as_str(), runs(held, "response")), ("sos", Some(300)), "{named}");
        assert_eq!(net.places[AT].called.len(), 1, "for the press itself");
    }
}

#[test]
fn what_a_box_says_of_a_press_s_category_calls_nobody_anew_who_was_called_as_it_was_silent() {
    let up = (AT.to_owned(), "c/s/a".to_owned());
    let (mut net, word) = alone(LAMP);
    net.press(AT, CASE);
    net.cut.remove(&up);
    net.settle();
    // From then on it hears, and is not heard.
    net.cut = BTreeSet::from([up]);
    heard_so_far(&mut net, word);
    for _ in 0..2 {
        net.now += 31_000_000;
        net.settle();
    }
    assert_eq!(net.places["c/s/a"].called.len(), 1, "its box is silent");
    net.cut.clear();
    net.settle();
    let steps: Vec<&str> = net.held("c/s/a").history.iter().map(|e| e.step.as_str()).collect();
    assert_eq!(steps[..3], ["submitted", "categorised", "escalated"]);
    assert_eq!(net.places["c/s/a"].called.len(), 1);
}

#[test]
fn what_was_answered_before_its_category_was_known_has_no_limit_of_that_and_what_follows_has() {
    let (mut net, word) = alone(LAMP);
    net.open_with_phone(AT, CASE, "lamp");
    assert!(net.ask(AT, CASE, Verb::Accept, &by("w", Role::Worker)));
    net.open(AT, OTHER, "lamp");
    assert!(net.ask(AT, OTHER, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.ask(AT, CASE, Verb::Dispatch, &by("w", Role::Worker)));
    assert!(net.ask(AT, CASE, Verb::Start, &Ask { contacted: true, ..by("w", Role::Worker) }));
    net.open(AT, "20261120-2", "路灯");
    assert!(net.ask(AT, "20261120-2", Verb::Withdraw, &by("w", Role::Supervisor)));
    heard(&mut net, word, 10);
    assert_eq!((net.held(AT).case.clock("response"), runs(net.held(AT), "solution")), (None, Some(7200)));
    let accepted = net.places[AT].cases.get(OTHER).unwrap();
    assert_eq!((runs(accepted, "response"), runs(accepted, "dispatch")), (Some(40), Some(3610)), "nobody has begun");
    let over = net.places[AT].cases.get("20261120-2").unwrap();
    assert_eq!((over.case.category_name.as_str(), over.case.clocks.len()), ("路灯", 0), "nothing of it is due");
    let (rows, _) = stats_of(&net.places["c"].cases, GroupBy::Category, view::time_of(net.now));
    assert_eq!(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["lamp"]);
}

#[test]
fn a_category_that_nobody_knows_is_said_to_be_none_once_the_parent_is_heard() {
    let (mut net, word) = alone(LAMP);
    net.open(AT, CASE, "lmap");
    heard(&mut net, word, 10);
    let held = net.held(AT);
    assert_eq!(lines(held)[1..], [("categorised", "`lmap` is no category that is known here: no limits")]);
    assert!(held.case.terms.is_none() && !held.case.category_awaited && held.case.clocks.is_empty());
    // Its parent is heard by now.
    net.open(AT, "20261120-2", "lmap");
    let held = net.places[AT].cases.get("20261120-2").unwrap();
    assert_eq!(lines(held), [("submitted", "`lmap` is no category that is known here: no limits")]);
}

#[test]
fn what_a_higher_tier_handles_goes_up_once_that_is_known_unless_somebody_has_begun() {
    let city = format!("{LAMP}[[category]]\ncode = \"bridge\"\nname = \"桥\"\ntier = \"city\"\n");
    let (mut net, word) = alone(&city);
    net.open_with_phone(AT, CASE, "bridge");
    net.open(AT, "20261120-2", "bridge");
    assert!(net.ask(AT, "20261120-2", Verb::Accept, &by("w", Role::Worker)));
    heard(&mut net, word, 10);
    assert_eq!((net.owners(CASE), net.owners("20261120-2")), (vec!["c"], vec![AT]));
    assert!(net.held("c").contact.is_some(), "whom to call goes with it");
}

#[test]
fn a_call_for_help_that_is_known_as_one_too_late_calls_at_once() {
    let (mut net, word) = alone(LAMP);
    net.open(AT, CASE, "求助");
    assert!(!net.held(AT).case.urgent && net.places[AT].called.is_empty());
    heard(&mut net, word, 10);
    assert_eq!((net.held(AT).case.kind, net.places[AT].called.len()), (Kind::Incident, 1));
}

#[test]
fn a_second_press_is_the_same_matter_whether_its_category_was_known_at_the_first() {
    let (mut net, word) = alone(LAMP);
    let new = |id: &str| Opening { sos: true, button: Some("b".into()), ..opening(id, "求助") };
    let (_, drafts) = net.places[AT].cases.open(new(OTHER), Contact::default(), net.now);
    net.commit(AT, drafts, None);
    // Between the word of what it is and the line that says so.
    let word = Carried { n: 0, origin: "c 1".into(), draft: word };
    net.commit(AT, vec![word.draft.clone()], Some(&word));
    assert!(net.places[AT].cases.get(OTHER).unwrap().case.category_awaited);
    let again = net.places[AT].cases.pressed_again(&new("20261120-2"), &Contact::default(), net.now);
    assert_eq!(again.map(|(id, _)| id).as_deref(), Some(OTHER));
}

#[test]
fn what_is_suspended_or_resolved_as_its_category_becomes_known_has_its_limit_behind_that() {
    let (mut net, word) = alone(LAMP);
    let worker = || by("w", Role::Worker);
    for id in [CASE, OTHER] {
        net.open_with_phone(AT, id, "lamp");
        assert!(net.ask(AT, id, Verb::Accept, &worker()));
        assert!(net.ask(AT, id, Verb::Dispatch, &worker()));
    }
    let waits = Ask { text: Some("等件".into()), approved_by: Some("站长".into()), ..worker() };
    assert!(net.ask(AT, CASE, Verb::Suspend, &waits));
    assert!(net.ask(AT, OTHER, Verb::Start, &Ask { contacted: true, ..worker() }));
    let done = Ask { text: Some("修好".into()), evidence: vec!["photo:1".into()], ..worker() };
    assert!(net.ask(AT, OTHER, Verb::Resolve, &done));
    heard(&mut net, word, 10);
    let clock = net.held(AT).case.clock("solution").cloned().expect("it has one");
    assert!(clock.due.is_none() && clock.left_us == Some(7_190_000_000), "it stands: {clock:?}");
    net.now += 60_000_000;
    assert!(net.ask(AT, CASE, Verb::Resume, &worker()));
    assert_eq!(runs(net.held(AT), "solution"), Some(7_260), "the minute does not count");
    let resolved = net.places[AT].cases.get(OTHER).unwrap();
    assert_eq!((runs(resolved, "call_back"), runs(resolved, "solution")), (Some(3 * 3600 + 10), None));
}
