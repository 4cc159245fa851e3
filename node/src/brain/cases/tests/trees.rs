//! Trees of nodes with everything that links may do to records: late, twice, out of order; nodes killed.

use super::*;
use proptest::strategy::ValueTree as _;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Records late, twice, out of order; nodes killed: never two owners; in the end one, and every
    /// node above it holds the same.
    #[test]
    fn a_case_has_one_owner_and_copies_converge(moves in moves()) {
        // Some that the city hears of when they go beyond their community.
        let mut world = World::new();
        play(&mut world, &moves, &["G", "N", "G", "N", "X"]);
        world.settle();
        for n in NODES {
            world.restart(n);
        }
        let cases_of = |n: &str| &world.places[n].cases;
        agree(&NODES, &cases_of)?;
        histories_agree(&NODES, &cases_of)?;
        for held in cases_of("c").iter() {
            let id = &held.case.id;
            let theirs = cases_of(held.case.owner.as_str()).get(id).unwrap();
            // Where it came in, its fate is known too.
            let entered = world.places[theirs.case.opened_at.as_str()].cases.get(id).unwrap();
            prop_assert_eq!(&entered.case, &theirs.case);
            prop_assert!(theirs.history.iter().all(|e| e.version <= theirs.case.version));
        }
        // Nothing waits for ever.
        for n in NODES {
            prop_assert!(world.places[n].cases.inbox.is_empty());
        }
    }

    /// At every tier: the whole is the sum of what the node owns and of what each child says.
    #[test]
    fn the_rates_of_the_parts_add_up(moves in moves()) {
        let mut world = World::new();
        play(&mut world, &moves, &["G", "L", "G", "L", "X"]);
        world.settle();
        rates_add_up(&NODES, &|n| &world.places[n].cases)?;
        for n in NODES {
            let cases = &world.places[n].cases;
            // However it is cut, the pieces are the whole; and each child says of itself what is said of it.
            let now = view::time_of(world.now);
            for by in [GroupBy::Child, GroupBy::District, GroupBy::Channel, GroupBy::Governance, GroupBy::Status] {
                let (rows, all) = stats_of(cases, by, now);
                let sum = rows.iter().map(counts).fold([0; 11], plus);
                prop_assert_eq!(sum, counts(&all), "{:?} at {}", by, n);
                for row in rows.iter().filter(|r| by == GroupBy::Child && r.key != n) {
                    let own = stats_of(&world.places[row.key.as_str()].cases, by, now).1;
                    prop_assert_eq!(counts(row), counts(&own), "{} of {}", &row.key, n);
                    prop_assert_eq!(row.took, own.took);
                }
            }
        }
    }
}

/// What the properties are about must come up in them.
#[test]
fn the_moves_bring_verdicts_and_ends_of_every_kind() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut sum = RateCounts::default();
    for _ in 0..100 {
        let mut world = World::new();
        play(&mut world, &moves().new_tree(&mut runner).unwrap().current(), &["G", "L", "G", "L", "X"]);
        world.settle();
        add(&mut sum, &rates_of(&world.places["c"].cases, None).1);
    }
    let said = [sum.solved, sum.partly_solved, sum.unsolved, sum.satisfied, sum.mostly_satisfied, sum.dissatisfied];
    let ends = [sum.closed, sum.reopened, sum.excluded, sum.withdrawn, sum.returned, sum.reworked];
    assert!(said.iter().chain(&ends).all(|n| *n > 3), "{sum:?}");
}

#[test]
fn a_wish_from_afar_is_done_or_refused_once_and_its_maker_learns_it() {
    let mut world = World::new();
    world.open("c/s/a/n", opening("20261120-0", "G"), Contact::default());
    world.settle();
    assert!(world.places["c/s/a"].cases.may_step("20261120-0"));
    // The resident withdraws where she is; before that, a worker there asks for what does not fit.
    world.ask("c/s/a/n", "20261120-0", Verb::Start, &by("w", Role::Worker), "w1");
    world.ask("c/s/a/n", "20261120-0", Verb::Withdraw, &by("r", Role::Resident), "w2");
    assert_eq!(world.places["c/s/a/n"].cases.get("20261120-0").unwrap().wishes.len(), 2);
    world.settle();
    let held = world.places["c/s/a/n"].cases.get("20261120-0").unwrap();
    assert_eq!(held.case.status, Status::Withdrawn);
    assert_eq!(held.wishes.len(), 1);
    assert!(held.wishes[0].refused.as_ref().unwrap().contains("it takes accept"), "{:?}", held.wishes);
}

#[test]
fn a_wish_for_an_old_sight_of_a_case_is_refused_by_whoever_owns_it() {
    let mut world = World::new();
    world.open("c/s/a/n", opening("20261120-0", "G"), Contact::default());
    world.settle();
    let seen = |world: &World, at: &str| world.places[at].cases.get("20261120-0").unwrap().case.stamp();
    let old = seen(&world, "c/s/a/n");
    assert_eq!(old, seen(&world, "c/s/a"), "both have seen the same");
    let accept = |stamp: &str| Ask { seen: vec![stamp.to_owned()], ..by("w", Role::Worker) };
    // While the wish is on its way the owner steps.
    assert!(world.ask("c/s/a/n", "20261120-0", Verb::Accept, &accept(&old), "w1"));
    assert!(world.ask("c/s/a", "20261120-0", Verb::Comment, &by("o", Role::Worker), ""));
    assert!(!world.ask("c/s/a", "20261120-0", Verb::Accept, &accept(&old), ""), "nor by the owner itself");
    world.settle();
    let held = world.places["c/s/a/n"].cases.get("20261120-0").unwrap();
    assert_eq!(held.case.status, Status::Submitted);
    assert!(held.wishes[0].refused.as_ref().unwrap().contains("has moved on"), "{:?}", held.wishes);
    assert!(!world.ask("c/s/a/n", "20261120-0", Verb::Accept, &accept(&old), "w2"), "this copy knows by now");
    let new = seen(&world, "c/s/a/n");
    assert!(world.ask("c/s/a/n", "20261120-0", Verb::Accept, &accept(&new), "w3"));
    world.settle();
    assert_eq!(world.places["c/s/a"].cases.get("20261120-0").unwrap().case.status, Status::Accepted);
}

#[test]
fn a_node_restored_from_yesterday_learns_that_the_case_is_gone() {
    let mut world = World::new();
    world.open("c/s/a", opening("20261120-0", "L"), Contact::default());
    world.settle();
    let backup = world.places["c/s/a"].log.clone();
    world.ask("c/s/a", "20261120-0", Verb::Accept, &by("w", Role::Worker), "");
    let to = Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) };
    world.ask("c/s/a", "20261120-0", Verb::Dispatch, &to, "");
    world.settle();
    world.restore("c/s/a", backup);
    // It believes that the case is its own until its first word reaches one who knows better.
    assert!(world.ask("c/s/a", "20261120-0", Verb::Accept, &by("w", Role::Worker), ""));
    world.settle();
    assert!(!world.places["c/s/a"].cases.may_step("20261120-0"));
    assert!(world.places["c/s/b"].cases.may_step("20261120-0"));
    assert_eq!(world.places["c"].cases.get("20261120-0").unwrap().case.owner, a("c/s/b"));
}

#[test]
fn what_a_restored_node_gives_away_that_is_not_its_own_any_more_goes_no_further() {
    let mut world = World::new();
    world.open("c/s/a", opening("20261120-0", "L"), Contact::default());
    world.ask("c/s/a", "20261120-0", Verb::Accept, &by("w", Role::Worker), "");
    world.settle();
    let backup = world.places["c/s/a"].log.clone();
    let to = |node: &str| Ask { to: Some(a(node)), ..by("w", Role::Worker) };
    world.ask("c/s/a", "20261120-0", Verb::Dispatch, &to("c/s/b"), "");
    world.settle();
    world.ask("c/s/b", "20261120-0", Verb::Start, &by("h", Role::Worker), "");
    world.settle();
    world.restore("c/s/a", backup);
    assert!(world.ask("c/s/a", "20261120-0", Verb::Dispatch, &to("c/s"), ""));
    world.settle();
    let owners: Vec<&str> = NODES.into_iter().filter(|n| world.places[*n].cases.may_step("20261120-0")).collect();
    assert_eq!(owners, ["c/s/b"]);
}

#[test]
fn whoever_has_had_a_case_hears_how_it_ended_wherever_it_went() {
    let mut world = World::new();
    world.open("c/s/a/n", opening("20261120-0", "G"), Contact::default());
    world.settle();
    assert!(world.places["c/s/a"].cases.may_step("20261120-0"), "its category is a community's");
    let up = Ask { hand_over: true, ..by("w", Role::Worker) };
    assert!(world.ask("c/s/a", "20261120-0", Verb::Escalate, &up, ""));
    world.settle();
    let to = Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) };
    assert!(world.ask("c/s", "20261120-0", Verb::Accept, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s", "20261120-0", Verb::Dispatch, &to, ""));
    world.settle();
    assert!(world.ask("c/s/b", "20261120-0", Verb::Withdraw, &by("boss", Role::Supervisor), ""));
    world.settle();
    for at in NODES {
        let case = &world.places[at].cases.get("20261120-0").unwrap().case;
        assert_eq!(case.status, Status::Withdrawn, "{at}");
    }
}

#[test]
fn a_press_climbs_until_somebody_accepts_and_a_clock_fires_once() {
    let mut world = World::new();
    let new = Opening { sos: true, ..opening("20261120-0", "") };
    world.open("c/s/a/n", new, Contact::default());
    world.settle();
    assert_eq!((calls(&world, "c/s/a/n"), calls(&world, "c/s/a")), (1, 0));
    world.now += 30_000_000;
    world.settle();
    assert_eq!((calls(&world, "c/s/a"), calls(&world, "c/s")), (1, 0));
    world.now += 30_000_000;
    world.settle();
    assert_eq!((calls(&world, "c/s/a"), calls(&world, "c/s"), calls(&world, "c")), (1, 1, 0));
    world.ask("c/s", "20261120-0", Verb::Accept, &by("w", Role::Worker), "w1");
    world.settle();
    world.now += 3600 * 1_000_000;
    world.settle();
    assert_eq!(calls(&world, "c"), 0);
    let case = &world.places["c"].cases.get("20261120-0").unwrap().case;
    assert_eq!(
        (case.status, case.kind, case.escalations, &case.owner),
        (Status::Accepted, Kind::Incident, 2, &a("c/s/a/n"))
    );
    assert!(!case.was_late() && case.clock("climb").unwrap().stopped.is_some(), "its category sets no limit");
}

#[test]
fn a_press_whose_box_is_gone_calls_those_above_one_step_later() {
    let mut world = World::new();
    let new = Opening { sos: true, ..opening("20261120-0", "") };
    world.open("c/s/a/n", new, Contact::default());
    world.settle();
    let why = |world: &World, at: &str| -> Vec<String> {
        let calls = world.places[at].log.iter().filter(|(_, d)| d.header().name == letter::CALL);
        calls.map(|(_, d)| letter::data::<serde_json::Value>(d.parts().1).unwrap()["why"].to_string()).collect()
    };
    // From here on nothing is heard of it.
    for (seconds, called) in [(59, [0, 0, 0]), (1, [1, 0, 0]), (30, [1, 1, 0]), (30, [1, 1, 1]), (3600, [1, 1, 1])] {
        world.now += seconds * 1_000_000;
        for at in ["c/s/a", "c/s", "c"] {
            while world.due(at) {}
        }
        assert_eq!(["c/s/a", "c/s", "c"].map(|at| why(&world, at).len()), called, "after {seconds} s more");
    }
    assert_eq!(why(&world, "c"), ["\"unanswered\""]);
    world.restart("c");
    assert!(!world.due("c"), "once");
}

/// How often responders were called at these.
fn calls_at<const N: usize>(world: &World, nodes: [&str; N]) -> [usize; N] {
    nodes.map(|at| calls(world, at))
}

#[test]
fn a_box_whose_clock_is_wrong_calls_those_above_neither_early_nor_late() {
    for ahead_s in [-1_795_140_000, -150, 3_600] {
        let mut world = World::new();
        world.ahead.insert("c/s/a/n", ahead_s * 1_000_000);
        let new = Opening { sos: true, ..opening("20261120-0", "") };
        let (_, drafts) = world.places["c/s/a/n"].cases.open(new, Contact::default(), world.now_at("c/s/a/n"));
        world.commit("c/s/a/n", drafts, None);
        world.settle();
        let above = ["c/s/a", "c/s", "c"];
        assert_eq!(calls_at(&world, above), [0, 0, 0], "nobody has waited yet, {ahead_s} s ahead");
        // From here on nothing is heard of it.
        for (seconds, called) in [(59, [0, 0, 0]), (1, [1, 0, 0]), (30, [1, 1, 0]), (30, [1, 1, 1])] {
            world.now += seconds * 1_000_000;
            above.iter().for_each(|at| while world.due(at) {});
            assert_eq!(calls_at(&world, above), called, "after {seconds} s more, {ahead_s} s ahead");
        }
    }
}

#[test]
fn a_press_climbs_in_time_though_the_clock_was_ahead_when_it_came() {
    let mut world = World::new();
    world.ahead.insert("c/s/a/n", 3_600_000_000);
    let new = Opening { sos: true, ..opening("20261120-0", "") };
    let (_, drafts) = world.places["c/s/a/n"].cases.open(new, Contact::default(), world.now_at("c/s/a/n"));
    world.commit("c/s/a/n", drafts, None);
    world.settle();
    // It is set right, and something else is written.
    world.ahead.clear();
    let (_, drafts) = world.places["c/s/a/n"].cases.open(opening("20261120-1", "L"), Contact::default(), world.now);
    world.commit("c/s/a/n", drafts, None);
    world.settle();
    assert_eq!(calls_at(&world, ["c/s/a", "c/s"]), [0, 0]);
    world.restart("c/s/a/n");
    world.now += 30_000_000;
    world.settle();
    assert_eq!(calls_at(&world, ["c/s/a", "c/s"]), [1, 0]);
    world.now += 30_000_000;
    world.settle();
    assert_eq!(calls_at(&world, ["c/s/a", "c/s"]), [1, 1]);
}

#[test]
fn lines_are_told_in_their_order_and_not_ahead_of_the_clock_though_that_of_their_node_was() {
    let mut world = World::new();
    world.ahead.insert("c/s/a/n", 3_600_000_000);
    let (_, drafts) = world.places["c/s/a/n"].cases.open(
        Opening { sos: true, ..opening("1", "") },
        Contact::default(),
        world.now_at("c/s/a/n"),
    );
    world.commit("c/s/a/n", drafts, None);
    world.settle();
    let clerk = by("L", Role::Worker);
    assert!(world.ask("c/s/a/n", "1", Verb::Accept, &clerk, "accept"));
    world.settle();
    // Set right.
    world.ahead.clear();
    world.now += 20_000_000;
    assert!(world.ask("c/s/a/n", "1", Verb::Dispatch, &clerk, "dispatch"));
    world.settle();
    for at in ["c/s/a/n", "c"] {
        let held = world.places[at].cases.get("1").unwrap();
        let told: Vec<i64> = held.told().map(|(_, at_us)| at_us).collect();
        assert_eq!((told.len(), told.is_sorted()), (3, true), "at {at}: {told:?}");
        assert_eq!(held.told_us(), told[2], "at {at}");
        assert!(told[2] <= world.now, "at {at}: {} s ahead", (told[2] - world.now) / 1_000_000);
    }
}

/// Presses what is named so at `c/s/a/n`: the case, and whether it is new.
fn press(world: &mut World, id: &str, button: &str, more: Opening, contact: &Contact) -> (String, bool) {
    let new = Opening { id: id.into(), button: Some(button.into()), sos: true, by: "event".into(), ..more };
    let cases = &world.places["c/s/a/n"].cases;
    let (case, fresh, drafts) = match cases.pressed_again(&new, contact, world.now) {
        Some((case, drafts)) => (case, false, drafts),
        None => {
            let (case, drafts) = cases.open(new, contact.clone(), world.now);
            (case.id, true, drafts)
        }
    };
    world.commit("c/s/a/n", drafts, None);
    world.settle();
    (case, fresh)
}

#[test]
fn a_button_pressed_again_is_the_same_incident_wherever_that_is_until_it_is_over() {
    let mut world = World::new();
    let (none, plain) = (Contact::default(), Opening::default);
    let phone = Contact { phone: "139".into(), ..Contact::default() };
    let lines = |world: &World, at: &str| {
        world.places[at].cases.get("1").unwrap().history.iter().filter(|e| e.text.starts_with(AGAIN)).count()
    };
    assert_eq!(press(&mut world, "1", "b", plain(), &none), ("1".into(), true));
    let said = Opening { description: "fire".into(), ..plain() };
    assert_eq!(press(&mut world, "2", "b", said, &phone), ("1".into(), false));
    let held = world.places["c/s/a/n"].cases.get("1").unwrap();
    assert_eq!(
        (held.history.last().unwrap().text.as_str(), held.contact.as_ref()),
        ("pressed again: fire", Some(&phone))
    );
    assert_eq!((lines(&world, "c/s/a/n"), lines(&world, "c")), (1, 1), "those above hear of it");
    // Another button, and another category of the same one, are other matters.
    assert!(press(&mut world, "3", "x", plain(), &none).1);
    assert!(press(&mut world, "4", "b", Opening { category: "L".into(), ..plain() }, &none).1);
    // Somebody else's by now, and over a restart.
    world.ask("c/s/a/n", "1", Verb::Accept, &by("w", Role::Worker), "");
    world.ask("c/s/a/n", "1", Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, "");
    world.settle();
    world.restart("c/s/a/n");
    assert_eq!(press(&mut world, "5", "b", plain(), &none), ("1".into(), false));
    assert_eq!((lines(&world, "c/s/b"), lines(&world, "c/s/a/n")), (2, 2));
    // One that is stuck does not push out what people did.
    for i in 0..PRESSES_MAX {
        assert_eq!(press(&mut world, &format!("s{i}"), "b", plain(), &none), ("1".into(), false));
    }
    assert_eq!(lines(&world, "c/s/b"), PRESSES_MAX);
    // Help was there, and has gone: whoever presses now calls for it again.
    world.ask("c/s/b", "1", Verb::Start, &by("w", Role::Worker), "");
    world.ask("c/s/b", "1", Verb::Resolve, &by("w", Role::Worker), "");
    world.settle();
    assert_eq!(press(&mut world, "6", "b", plain(), &none), ("6".into(), true));
}

#[test]
fn a_further_press_from_another_place_calls_those_who_come_there() {
    let mut world = World::new();
    let at = |text: &str, said: &str| Opening {
        place: Some(citybrain_shared::case::Place { text: text.into(), ..Default::default() }),
        description: said.into(),
        ..Opening::default()
    };
    let none = Contact::default();
    let calls = |world: &World, at: &str| -> Vec<serde_json::Value> {
        let calls = world.places[at].log.iter().filter(|(_, d)| d.header().name == letter::CALL);
        calls.map(|(_, d)| letter::data::<serde_json::Value>(d.parts().1).unwrap()).collect()
    };
    assert!(press(&mut world, "1", "b", at("A楼", ""), &none).1);
    assert!(world.ask("c/s/a", "1", Verb::Accept, &by("w", Role::Worker), "w1"));
    world.settle();
    assert!(!press(&mut world, "2", "b", at("B楼", "我在B楼"), &none).1);
    let held = world.places["c"].cases.get("1").unwrap();
    let line = held.history.last().unwrap();
    assert_eq!(
        (line.text.as_str(), line.place.as_ref().unwrap().text.as_str()),
        ("pressed again at B楼: 我在B楼", "B楼")
    );
    assert_eq!(held.case.place_again.as_ref().unwrap().text, "B楼");
    for node in ["c/s/a/n", "c/s/a"] {
        let last = calls(&world, node).pop().unwrap();
        assert_eq!((last["why"].as_str(), last["place"]["text"].as_str()), (Some("again"), Some("B楼")), "{node}");
    }
    let before = calls(&world, "c/s/a/n").len();
    assert!(calls(&world, "c").is_empty());
    // The same place again is a line, and no call.
    assert!(!press(&mut world, "3", "b", at("B楼", ""), &none).1);
    assert_eq!(calls(&world, "c/s/a/n").len(), before);
    assert!(!press(&mut world, "4", "b", at("A楼", ""), &none).1, "back again is news");
    assert_eq!(calls(&world, "c/s/a/n").len(), before + 1);
}

#[test]
fn another_number_of_a_further_press_is_kept_beside_the_first() {
    let mut world = World::new();
    let phone = |phone: &str| Contact { phone: phone.into(), ..Contact::default() };
    let contact = |world: &World| world.places["c/s/a/n"].cases.get("1").unwrap().contact.clone().unwrap();
    press(&mut world, "1", "b", Opening::default(), &phone("139"));
    for (i, number) in ["139", "138", "138", ""].into_iter().enumerate() {
        world.now += 1_000_000;
        assert!(!press(&mut world, &format!("p{i}"), "b", Opening::default(), &phone(number)).1);
    }
    let kept = contact(&world);
    assert_eq!((kept.phone.as_str(), kept.more.values().map(String::as_str).collect::<Vec<_>>()), ("139", vec!["138"]));
    for i in 0..20 {
        world.now += 1_000_000;
        press(&mut world, &format!("q{i}"), "b", Opening::default(), &phone(&format!("1{i}")));
    }
    assert_eq!(contact(&world).more.len(), 8);
}

#[test]
fn behind_a_source_without_a_subject_another_place_or_number_is_another_matter() {
    let mut world = World::new();
    let (b, none) = (intake::button("/app", ""), Contact::default());
    let at = |text: &str| Opening {
        place: Some(citybrain_shared::case::Place { text: text.into(), ..Default::default() }),
        ..Opening::default()
    };
    let phone = Contact { phone: "139".into(), ..Contact::default() };
    assert!(press(&mut world, "1", &b, at("7栋301"), &none).1);
    assert_eq!(press(&mut world, "2", &b, at("7栋301"), &none), ("1".into(), false));
    assert!(press(&mut world, "3", &b, at("9栋502"), &none).1);
    assert!(press(&mut world, "4", &b, at("7栋301"), &phone).1);
    // Also while somebody else has the case, and with it the number.
    world.ask("c/s/a/n", "4", Verb::Accept, &by("w", Role::Worker), "");
    world.ask("c/s/a/n", "4", Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, "");
    world.settle();
    assert!(world.places["c/s/a/n"].cases.get("4").unwrap().contact.is_none(), "it went with the case");
    let another = Contact { phone: "138".into(), ..Contact::default() };
    assert!(press(&mut world, "5", &b, at("7栋301"), &another).1);
    assert_eq!(world.places["c/s/a/n"].cases.get("5").unwrap().contact, Some(another));
    assert_ne!(intake::button("/app", "a"), intake::button("/app", "b"));
}

#[test]
fn two_nodes_want_the_last_seat_and_one_of_them_gets_it() {
    let mut world = World::new();
    let wants = ["c/s/a/n", "c/s", "c/s/b", "c"];
    for (i, at) in wants.iter().enumerate() {
        let new = Opening { booking: Some(haircut("c/s/a")), ..opening(&format!("20261120-{i}"), "") };
        world.open(at, new, Contact::default());
    }
    // All four are in the inbox before the first is decided.
    while let Some(key) = world.lines.iter().find(|(_, q)| !q.is_empty()).map(|(k, _)| k.clone()) {
        let flying = world.lines.get_mut(&key).unwrap().remove(0);
        world.arrive(&key.1, flying);
    }
    world.settle();
    world.restart("c/s/a");
    let states = |at: &str| -> Vec<Booked> {
        world.places[at].cases.iter().filter_map(|h| Some(h.case.booking.as_ref()?.state)).collect()
    };
    assert_eq!(states("c/s/a").iter().filter(|s| **s == Booked::Booked).count(), 1, "{:?}", states("c/s/a"));
    assert_eq!(states("c/s/a").iter().filter(|s| **s == Booked::Refused).count(), 3);
    // Each of those who asked has its answer.
    for (i, at) in wants.iter().enumerate() {
        let case = &world.places[*at].cases.get(&format!("20261120-{i}")).unwrap().case;
        assert_eq!(case, &world.places["c/s/a"].cases.get(&case.id).unwrap().case);
    }
}

#[test]
fn nobody_speaks_for_another_node() {
    let mut world = World::new();
    let (_, drafts) = world.places["c/s/a"].cases.open(opening("20261120-0", "L"), Contact::default(), START);
    let forged = drafts[0].clone();
    assert!(forged.header().name.starts_with(PREFIX));
    // The same bytes, but they come from `b`.
    world.arrive("c/s", Flying { origin: "c/s/b".into(), draft: forged.clone() });
    assert_eq!(world.places["c/s"].cases.iter().count(), 0);
    world.arrive("c/s", Flying { origin: "c/s/a".into(), draft: forged });
    assert_eq!(world.places["c/s"].cases.iter().count(), 1);
}

#[test]
fn categories_of_the_nodes_above_count_where_nothing_nearer_does() {
    let mut below = node("c/s/a");
    let say = |at: &mut Cases, from: &str, categories: &str| {
        let text = format!("[node]\naddress = \"{from}\"\ndata = \"d\"\n{categories}");
        let config = parse(&text, &Variables::new()).config.unwrap();
        let data = serde_json::json!({"node": from, "categories": config.category});
        let pen = Pen { me: &a(from), now: view::time_of(START) };
        let way = (Direction::Down, citybrain_shared::Tier::Neighbourhood);
        let draft = pen.event(
            crate::brain::services::CATALOGUE,
            "1",
            from,
            citybrain_shared::Lane::Routine,
            way,
            &format!("{from}/**"),
            serde_json::json!({}),
            data,
        );
        with_origin(&draft, Some(from), |h, p| at.apply(Pos(1), h, p));
    };
    say(
        &mut below,
        "c",
        "[[category]]\ncode = \"G\"\nname = \"别的\"\n[[category]]\ncode = \"W\"\nname = \"水\"\nsolution = \"2h\"\n",
    );
    say(&mut below, "c/s", "[[category]]\ncode = \"W2\"\nname = \"水\"\n");
    let known: Vec<(String, String)> = below.categories().iter().map(|c| (c.code.clone(), c.name.clone())).collect();
    let known: Vec<(&str, &str)> = known.iter().map(|(c, n)| (c.as_str(), n.as_str())).collect();
    assert_eq!(
        known,
        [("G", "垃圾"), ("L", "路灯"), ("N", "噪音"), ("R", "井盖"), ("X", "演练"), ("W2", "水")],
        "the nearest meaning of a word is the one"
    );
    let mut again = node("c/s/a");
    for (key, value) in below.take_rows() {
        again.load_row(&key, &value.unwrap()).unwrap();
    }
    assert_eq!(again.categories(), below.categories());
}

#[test]
fn after_the_person_is_forgotten_a_press_with_a_number_is_another_incident() {
    let mut world = World::new();
    let phone = |phone: &str| Contact { phone: phone.into(), ..Contact::default() };
    press(&mut world, "1", "b", Opening { has_contact: true, ..Opening::default() }, &phone("139"));
    assert!(world.ask("c/s/a/n", "1", Verb::Forget, &by("boss", Role::Supervisor), ""));
    world.settle();
    assert_eq!(press(&mut world, "2", "b", Opening::default(), &Contact::default()), ("1".into(), false));
    assert_eq!(press(&mut world, "3", "b", Opening::default(), &phone("138")), ("3".into(), true));
    assert_eq!(world.places["c/s/a/n"].cases.get("3").unwrap().contact, Some(phone("138")));
    assert_eq!(press(&mut world, "4", "b", Opening::default(), &phone("138")), ("3".into(), false));
}

#[test]
fn a_resident_who_presses_again_is_no_name_in_the_history() {
    let mut world = World::new();
    let own = Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() };
    for (id, by) in [("1", "event"), ("2", "王大妈"), ("3", " 王大妈")] {
        let new = Opening { id: id.into(), button: Some("b".into()), sos: true, by: by.into(), ..Opening::default() };
        let cases = &world.places["c/s/a/n"].cases;
        let drafts = match cases.pressed_again(&new, &own, world.now) {
            Some((_, drafts)) => drafts,
            None => cases.open(Opening { has_contact: true, ..new }, own.clone(), world.now).1,
        };
        world.commit("c/s/a/n", drafts, None);
        world.settle();
    }
    for at in ["c/s/a/n", "c"] {
        let said: Vec<(&str, Option<Role>)> =
            world.places[at].cases.get("1").unwrap().history.iter().skip(1).map(|e| (e.by.as_str(), e.role)).collect();
        assert_eq!(said, [("resident", Some(Role::Resident)); 2], "{at}");
    }
}

#[test]
fn what_a_further_press_is_called_is_kept_where_it_says_more() {
    let mut world = World::new();
    let none = Contact::default();
    let says = |title: &str, description: &str| Opening {
        title: title.into(),
        description: description.into(),
        ..Opening::default()
    };
    press(&mut world, "1", "b", says("SOS", ""), &none);
    for (id, says, line) in [
        ("2", says("SOS", ""), "pressed again"),
        ("3", says("老人摔倒", "在厨房"), "pressed again: 老人摔倒: 在厨房"),
        ("4", says("着火了", ""), "pressed again: 着火了"),
    ] {
        assert_eq!(press(&mut world, id, "b", says, &none), ("1".into(), false));
        assert_eq!(world.places["c"].cases.get("1").unwrap().history.last().unwrap().text, line);
    }
}

#[test]
fn whoever_hears_of_a_case_only_when_it_goes_beyond_its_reach_sees_what_was_before() {
    let beyond = || Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) };
    let no_further = || Ask { to: None, ..beyond() };
    for (further, heard_at) in [
        (&[(Verb::Assist, beyond())][..], &["c/s", "c/s/b"][..]),
        (&[(Verb::Dispatch, beyond())], &["c/s", "c/s/b"]),
        (
            &[(Verb::Escalate, no_further()), (Verb::Escalate, no_further()), (Verb::Escalate, no_further())],
            &["c/s", "c"],
        ),
    ] {
        let mut world = World::new();
        let contact = Contact { phone: "139".into(), ..Contact::default() };
        world.open("c/s/a/n", Opening { has_contact: true, ..opening("20261120-0", "N") }, contact);
        for verb in [Verb::Comment, Verb::Accept, Verb::Contact] {
            assert!(world.ask("c/s/a/n", "20261120-0", verb, &by("w", Role::Worker), ""), "{verb}");
        }
        world.settle();
        assert!(world.places["c/s"].cases.get("20261120-0").is_none(), "it stays in its community");
        for (verb, ask) in further {
            assert!(world.ask("c/s/a/n", "20261120-0", *verb, ask, ""), "{verb}");
            world.settle();
        }
        let whole = world.places["c/s/a"].cases.get("20261120-0").unwrap();
        for at in heard_at {
            let held = world.places[*at].cases.get("20261120-0").unwrap();
            assert_eq!(held.history, whole.history, "at {at} after {:?}", further[0].0);
            assert!(held.contact.is_none() || held.case.owner == a(at), "whom to call stays where it was");
        }
        histories_agree(&NODES, &|n| &world.places[n].cases).unwrap();
    }
}
