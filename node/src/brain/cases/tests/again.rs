//! A button that is pressed again while its case is with others, or on its way to them.

use super::*;

const ID: &str = "1";

fn at(text: &str) -> citybrain_shared::case::Place {
    citybrain_shared::case::Place { text: text.into(), ..Default::default() }
}

/// The button at `c/s/b` is pressed there, and somebody says that number.
fn press(world: &mut World, id: &str, place: &str, phone: &str) {
    press_at(world, "c/s/b", id, place, phone);
}

fn press_at(world: &mut World, node: &str, id: &str, place: &str, phone: &str) {
    press_from(world, node, id, at(place), phone);
}

fn press_from(world: &mut World, node: &str, id: &str, place: citybrain_shared::case::Place, phone: &str) {
    press_of(world, node, Opening { id: id.into(), place: Some(place), ..Opening::default() }, phone);
}

fn press_of(world: &mut World, node: &str, said: Opening, phone: &str) {
    let new = Opening { button: Some("b".into()), by: "event".into(), sos: true, ..said };
    let phone = Contact { phone: phone.into(), ..Contact::default() };
    let cases = &world.places[node].cases;
    let drafts = match cases.pressed_again(&new, &phone, world.now) {
        Some((_, drafts)) => drafts,
        None => cases.open(Opening { has_contact: !phone.is_empty(), ..new }, phone, world.now).1,
    };
    world.commit(node, drafts, None);
}

/// The case of that button is with this node, and everybody has heard of it.
fn pressed_and_dispatched_to(to: &str) -> World {
    let mut world = World::new();
    press(&mut world, ID, "A楼", "139");
    assert!(world.ask("c/s/b", ID, Verb::Accept, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s/b", ID, Verb::Dispatch, &Ask { to: Some(a(to)), ..by("w", Role::Worker) }, ""));
    world.settle();
    assert!(world.places[to].cases.may_step(ID));
    world
}

/// Everything comes in and everything is done, but at these.
fn without(world: &mut World, dead: &[&str]) {
    loop {
        let busy = NODES.iter().filter(|n| !dead.contains(n)).any(|n| world.due(n));
        let open = |(_, to): &(String, String)| !dead.contains(&to.as_str());
        let line = world.lines.iter().find(|(line, q)| open(line) && !q.is_empty()).map(|(line, _)| line.clone());
        let Some(line) = line else {
            if busy {
                continue;
            }
            return;
        };
        let flying = world.lines.get_mut(&line).unwrap().remove(0);
        world.arrive(&line.1, flying);
    }
}

fn give(world: &mut World, from: &str, to: &str) {
    assert!(world.ask(from, ID, Verb::Dispatch, &Ask { to: Some(a(to)), ..by("w", Role::Worker) }, ""));
}

/// Why responders were called at a node, and where to.
fn calls(world: &World, node: &str) -> Vec<(String, String)> {
    let calls = world.places[node].log.iter().filter(|(_, d)| d.header().name == letter::CALL);
    let calls = calls.map(|(_, d)| letter::data::<serde_json::Value>(d.parts().1).unwrap());
    let word = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    calls.map(|call| (word(&call["why"]), word(&call["place"]["text"]))).collect()
}

fn of(why: &str, place: &str) -> (String, String) {
    (why.into(), place.into())
}

/// Every copy has the words, and is told where it is now; whoever owns it has both numbers.
fn all_know(world: &World, owner: &str) {
    for node in ["c", "c/s", "c/s/b", owner] {
        let held = world.places[node].cases.get(ID).unwrap();
        let lines = held.history.iter().filter(|e| e.text.starts_with("pressed again at B楼")).count();
        assert_eq!(lines, 1, "{node}: {:#?}", held.history);
        assert_eq!(held.case.place_again, Some(at("B楼")), "{node}");
        assert_eq!((&held.moved_to, held.wishes.len()), (&None, 0), "{node}");
    }
    let contact = world.places[owner].cases.get(ID).unwrap().contact.clone().unwrap();
    assert_eq!((contact.phone.as_str(), contact.more.len()), ("139", 1));
    assert!(contact.more.values().any(|number| number == "138"));
}

#[test]
fn a_further_press_goes_on_to_the_node_that_its_owner_has_given_the_case_to() {
    let mut world = pressed_and_dispatched_to("c/s/a");
    // The one it goes to is off, and where the button is they have not heard that it is on its way.
    give(&mut world, "c/s/a", "c/s/a/n");
    without(&mut world, &["c/s/b", "c/s/a/n"]);
    press(&mut world, "2", "B楼", "138");
    assert_eq!(calls(&world, "c/s/b").last(), Some(&of("again", "B楼")), "those who know the place, at once");
    without(&mut world, &["c/s/b", "c/s/a/n"]);
    for node in NODES {
        world.restart(node);
    }
    // Its giver still looks after it, and knows where to go.
    world.now += 30_000_000;
    without(&mut world, &["c/s/b", "c/s/a/n"]);
    assert_eq!(calls(&world, "c/s/a").last(), Some(&of("on-its-way", "B楼")));
    world.settle();
    all_know(&world, "c/s/a/n");
    assert_eq!(calls(&world, "c/s/b").iter().filter(|call| call.0 == "again").count(), 1, "of one press once");
}

#[test]
fn whoever_was_called_for_a_case_on_its_way_is_called_anew_where_the_press_is_from_elsewhere() {
    let mut world = pressed_and_dispatched_to("c/s/b");
    give(&mut world, "c/s/b", "c/s/a/n");
    let dead = ["c/s/a/n"];
    without(&mut world, &dead);
    world.now += 30_000_000;
    without(&mut world, &dead);
    let before = ["c/s", "c/s/b"].map(|n| calls(&world, n).len());
    assert_eq!(calls(&world, "c/s").last(), Some(&of("on-its-way", "A楼")), "where the letter turns");
    for id in ["2", "3"] {
        press(&mut world, id, "B楼", "138");
        without(&mut world, &dead);
    }
    assert_eq!(calls(&world, "c/s").last(), Some(&of("on-its-way", "B楼")));
    assert_eq!(calls(&world, "c/s/b").last(), Some(&of("again", "B楼")));
    assert_eq!(["c/s", "c/s/b"].map(|n| calls(&world, n).len()), before.map(|n| n + 1), "once each");
    world.settle();
    let held = world.places["c"].cases.get(ID).unwrap();
    assert_eq!((held.case.owner.as_str(), &held.case.place_again), ("c/s/a/n", &Some(at("B楼"))));
}

#[test]
fn a_further_press_follows_a_case_that_comes_back_from_where_it_was_to_go() {
    let mut world = pressed_and_dispatched_to("c/s/b");
    give(&mut world, "c/s/b", "c/s/a/n");
    // The case itself is still on the line when it is called back.
    without(&mut world, &["c/s/a/n"]);
    let hand_over = std::mem::take(world.lines.get_mut(&("c/s/a".to_owned(), "c/s/a/n".to_owned())).unwrap());
    assert!(world.ask("c/s/b", ID, Verb::Recall, &by("w", Role::Worker), "r"));
    press(&mut world, "2", "B楼", "138");
    world.settle();
    hand_over.into_iter().for_each(|flying| world.arrive("c/s/a/n", flying));
    world.settle();
    assert!(world.places["c/s/b"].cases.may_step(ID));
    all_know(&world, "c/s/b");
}

#[test]
fn a_further_press_that_comes_before_the_case_itself_waits_for_it_at_its_giver() {
    let mut world = pressed_and_dispatched_to("c/s/a");
    give(&mut world, "c/s/a", "c/s");
    // The step is heard of, and the line breaks before the letter behind it.
    let line = world.lines.get_mut(&("c/s/a".to_owned(), "c/s".to_owned())).unwrap();
    let letter = line.iter().position(|f| f.draft.header().name == letter::LETTER).unwrap();
    let behind = line.split_off(letter);
    without(&mut world, &[]);
    press(&mut world, "2", "B楼", "138");
    without(&mut world, &["c/s/a"]);
    let up = world.lines.entry(("c/s/a".to_owned(), "c/s".to_owned())).or_default();
    *up = [behind, std::mem::take(up)].concat();
    world.settle();
    all_know(&world, "c/s");
}

#[test]
fn those_who_said_that_they_come_hear_of_another_place_wherever_the_case_has_gone() {
    let mut world = World::new();
    press(&mut world, ID, "A楼", "139");
    // The street takes it over, says that it comes, and gives it on.
    let hand_over = Ask { hand_over: true, ..by("w", Role::Worker) };
    assert!(world.ask("c/s/b", ID, Verb::Escalate, &hand_over, ""));
    world.settle();
    assert!(world.ask("c/s", ID, Verb::Accept, &by("x", Role::Worker), ""));
    give(&mut world, "c/s", "c/s/a");
    world.settle();
    press(&mut world, "2", "B楼", "138");
    world.settle();
    for node in ["c/s/b", "c/s", "c/s/a"] {
        let again = calls(&world, node).into_iter().filter(|call| *call == of("again", "B楼")).count();
        assert_eq!(again, 1, "{node}: {:?}", calls(&world, node));
    }
    all_know(&world, "c/s/a");
}

#[test]
fn a_clock_that_is_set_back_in_small_steps_leaves_nothing_ahead_of_it() {
    let mut world = World::new();
    world.open("c/s/a", opening("20261120-0", "L"), Contact::default());
    world.open("c/s/a", opening("20261120-1", "L"), Contact::default());
    world.settle();
    for i in 0..4 {
        world.now -= 9_000_000;
        assert!(world.ask("c/s/a", "20261120-1", Verb::Comment, &by("w", Role::Worker), &format!("w{i}")));
        world.settle();
        // What is held has come at a time that is not ahead of the clock by more than a few seconds.
        let heard = world.places["c/s/a"].cases.get("20261120-0").unwrap().heard_us;
        assert!(heard - world.now <= AHEAD_US, "{}", heard - world.now);
    }
    world.restart("c/s/a");
}

#[test]
fn a_further_press_comes_back_with_a_case_that_was_given_to_a_node_that_never_was() {
    let mut world = pressed_and_dispatched_to("c/s/b");
    world.has_registry = true;
    give(&mut world, "c/s/b", "c/s/x");
    press(&mut world, "2", "B楼", "138");
    world.settle();
    assert!(world.places["c/s/b"].cases.may_step(ID));
    all_know(&world, "c/s/b");
}

#[test]
fn a_further_press_that_comes_where_nobody_has_heard_of_the_case_yet_comes_again_behind_it() {
    let mut world = World::new();
    press_at(&mut world, "c/s/a", ID, "A楼", "139");
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
    give(&mut world, "c/s/a", "c/s/a/n");
    world.settle();
    give(&mut world, "c/s/a/n", "c/s/b");
    let line = world.lines.get_mut(&("c/s/a/n".to_owned(), "c/s/a".to_owned())).unwrap();
    let letter = line.iter().position(|f| f.draft.header().name == letter::LETTER).unwrap();
    let behind = line.split_off(letter);
    without(&mut world, &[]);
    press_at(&mut world, "c/s/a", "2", "B楼", "138");
    without(&mut world, &["c/s/a/n"]);
    assert!(world.places["c/s/b"].cases.get(ID).is_none());
    world.lines.entry(("c/s/a/n".to_owned(), "c/s/a".to_owned())).or_default().extend(behind);
    world.settle();
    all_know(&world, "c/s/b");
    assert!(world.places["c/s/a"].cases.get(ID).unwrap().wishes.is_empty());
}

#[test]
fn a_button_that_wanders_while_the_owner_is_dead_calls_a_few_times_and_not_at_each_press() {
    let mut world = pressed_and_dispatched_to("c/s/b");
    give(&mut world, "c/s/b", "c/s/a/n");
    let dead = ["c/s/a/n"];
    without(&mut world, &dead);
    world.now += 30_000_000;
    without(&mut world, &dead);
    let before = ["c/s", "c/s/b"].map(|n| calls(&world, n).len());
    let letters = |world: &World| {
        let own = world.places["c/s/b"]
            .log
            .iter()
            .filter(|(origin, d)| origin.is_none() && d.header().name == letter::LETTER);
        own.count()
    };
    let sent = letters(&world);
    // A metre further each time.
    for i in 0..500 {
        let place = citybrain_shared::case::Place { lat: Some(30.0 + f64::from(i) * 1e-5), lon: Some(104.0), ..at("") };
        press_from(&mut world, "c/s/b", &format!("m{i}"), place, "139");
        without(&mut world, &dead);
    }
    let anew = ["c/s", "c/s/b"].map(|n| calls(&world, n).len());
    let anew = [anew[0] - before[0], anew[1] - before[1]];
    assert!(anew.iter().all(|n| (2..=10).contains(n)), "where it was ten metres before is no news: {anew:?}");
    assert!((1..=100).contains(&(letters(&world) - sent)), "{}", letters(&world) - sent);
    for node in NODES {
        world.restart(node);
    }
}

#[test]
fn whoever_was_called_often_enough_is_called_anew_once_the_owner_has_answered() {
    let mut world = pressed_and_dispatched_to("c/s/b");
    give(&mut world, "c/s/b", "c/s/a/n");
    let dead = ["c/s/a/n"];
    without(&mut world, &dead);
    let before = calls(&world, "c/s/b").len();
    for i in 0..20 {
        press(&mut world, &format!("m{i}"), &format!("{i}楼"), "139");
        without(&mut world, &dead);
    }
    let known = calls(&world, "c/s/b").len();
    assert!((2..=10).contains(&(known - before)), "{}", known - before);
    world.settle();
    press(&mut world, "z", "C楼", "139");
    assert_eq!(calls(&world, "c/s/b").len(), known + 1);
    world.settle();
    let held = world.places["c/s/a/n"].cases.get(ID).unwrap();
    assert_eq!(held.case.place_again, Some(at("C楼")), "each press has come to the owner");
    assert_eq!(held.history.iter().filter(|e| e.text.starts_with(AGAIN)).count(), 21);
}

#[test]
fn a_press_where_nobody_has_heard_that_help_has_gone_is_an_incident_of_its_own() {
    let mut world = pressed_and_dispatched_to("c/s/a");
    for verb in [Verb::Start, Verb::Resolve] {
        assert!(world.ask("c/s/a", ID, verb, &by("w", Role::Worker), ""));
    }
    let (cut, place) = (["c/s/b"], at("A楼"));
    without(&mut world, &cut);
    let before = calls(&world, "c/s/b").len();
    press(&mut world, "2", "A楼", "138");
    assert_eq!(calls(&world, "c/s/b")[before..], [of("again", "A楼")], "those who are near, at once");
    press(&mut world, "3", "A楼", "138");
    assert_eq!(calls(&world, "c/s/b").len(), before + 1, "and once");
    without(&mut world, &cut);
    world.restart("c/s/b");
    world.settle();
    let held = |at: &str, id: &str| world.places[at].cases.get(id);
    for at in ["c", "c/s", "c/s/b"] {
        let new = held(at, "2").unwrap();
        assert_eq!(
            (new.case.owner.as_str(), new.case.urgent, new.case.place.clone()),
            ("c/s/b", true, Some(place.clone()))
        );
        let again = new.history.iter().filter(|e| e.text.starts_with(AGAIN)).count();
        assert_eq!((again, held(at, "3").is_none()), (1, true), "the second press is of the same incident, at {at}");
        assert_eq!(held(at, ID).unwrap().history.last().unwrap().step, "resolved");
    }
    assert_eq!(held("c/s/b", "2").unwrap().contact.as_ref().unwrap().phone, "138");
    assert_eq!(calls(&world, "c/s/b").iter().filter(|call| call.0 == "submitted").count(), 2);
    // The refusal comes again: it is known.
    let again: Vec<Flying> = world.places["c/s/b"].crossed.iter().map(|(_, f)| f.clone()).collect();
    for flying in again {
        world.arrive("c/s/b", flying);
    }
    world.settle();
    assert_eq!(world.places["c/s/b"].cases.count(), 2);
}

/// The button at `c/s/b`, of a category that has a limit for the response.
fn press_in_time(world: &mut World, id: &str, phone: &str) {
    let (place, category) = (Some(at("A楼")), "G".to_owned());
    press_of(world, "c/s/b", Opening { id: id.into(), place, category, ..Opening::default() }, phone);
}

/// Whether the response's clock stands at that node, and whether the response is there.
fn response(world: &World, node: &str) -> (bool, bool) {
    let case = &world.places[node].cases.get(ID).unwrap().case;
    (case.clock(citybrain_shared::case::RESPONSE).unwrap().stopped.is_some(), case.responded().is_some())
}

#[test]
fn whoever_says_a_number_only_when_he_presses_again_is_to_be_called() {
    let mut world = World::new();
    press_in_time(&mut world, ID, "");
    // However often it was pressed without one.
    (2..40).for_each(|i| press_in_time(&mut world, &i.to_string(), ""));
    press_in_time(&mut world, "40", "139");
    assert!(world.ask("c/s/b", ID, Verb::Accept, &by("w", Role::Worker), ""));
    world.settle();
    for node in ["c", "c/s", "c/s/b"] {
        let case = &world.places[node].cases.get(ID).unwrap().case;
        assert_eq!((case.has_contact, case.contact_came), (true, true), "{node}");
        assert_eq!(response(&world, node), (false, false), "{node}: nobody has called");
    }
    assert!(world.ask("c/s/b", ID, Verb::Contact, &by("w", Role::Worker), ""));
    assert_eq!(response(&world, "c/s/b"), (true, true));
}

#[test]
fn whoever_presses_again_and_says_no_number_is_the_resident_if_he_is_the_one_to_call() {
    for to in [None, Some("c/s")] {
        let mut world = World::new();
        let said = |id: &str, by: &str| Opening {
            id: id.into(),
            place: Some(at("A楼")),
            button: Some("b".into()),
            by: by.into(),
            sos: true,
            ..Opening::default()
        };
        let contact = Contact { name: "老蒋".into(), phone: "139".into(), ..Contact::default() };
        world.open("c/s/b", Opening { has_contact: true, ..said(ID, "老蒋") }, contact);
        if let Some(to) = to {
            assert!(world.ask("c/s/b", ID, Verb::Accept, &by("w", Role::Worker), ""));
            assert!(world.ask("c/s/b", ID, Verb::Dispatch, &Ask { to: Some(a(to)), ..by("w", Role::Worker) }, ""));
        }
        world.settle();
        for (id, who, shown, role) in [("2", "老 蒋", "resident", Role::Resident), ("3", "邻居", "邻居", Role::Worker)]
        {
            let drafts =
                world.places["c/s/b"].cases.pressed_again(&said(id, who), &Contact::default(), world.now).unwrap().1;
            world.commit("c/s/b", drafts, None);
            world.settle();
            for n in ["c", "c/s", "c/s/b"] {
                let held = world.places[n].cases.get(ID).unwrap();
                let line = held.history.last().unwrap();
                assert!(line.text.starts_with("pressed again"), "{to:?}: {n}: {line:?}");
                assert_eq!((line.by.as_str(), line.role), (shown, Some(role)), "{to:?}: {n}");
                let known = serde_json::to_string(&(&held.case, &held.history, &held.wishes)).unwrap();
                assert!(!known.contains('蒋'), "{to:?}: {n}: {known}");
            }
        }
    }
}

#[test]
fn a_number_that_comes_after_the_response_takes_nothing_of_it_back() {
    let mut world = World::new();
    press_in_time(&mut world, ID, "");
    assert!(world.ask("c/s/b", ID, Verb::Accept, &by("w", Role::Worker), ""));
    press_in_time(&mut world, "2", "139");
    assert_eq!(response(&world, "c/s/b"), (true, true));
    assert_eq!(world.places["c/s/b"].cases.get(ID).unwrap().contact.as_ref().unwrap().phone, "139");
}

#[test]
fn a_number_said_where_the_case_no_longer_is_is_to_be_called_by_its_owner() {
    for travels in [true, false] {
        let mut world = World::new();
        press_in_time(&mut world, ID, "");
        world.settle();
        // Before anybody has responded it is at another node.
        world.places.get_mut("c/s/b").unwrap().cases.settings.contact_travels = travels;
        assert!(world.ask("c/s/b", ID, Verb::Escalate, &Ask { hand_over: true, ..by("w", Role::Worker) }, ""));
        world.settle();
        assert!(world.places["c/s"].cases.may_step(ID));
        press_in_time(&mut world, "2", "139");
        world.settle();
        assert!(world.ask("c/s", ID, Verb::Accept, &by("w", Role::Worker), ""));
        world.settle();
        for node in ["c", "c/s", "c/s/b"] {
            let held = world.places[node].cases.get(ID).unwrap();
            assert_eq!((held.case.has_contact, held.case.contact_came), (true, travels), "{node}");
            assert_eq!(response(&world, node), (false, false), "{node}: nobody has called");
            let keeps = node == if travels { "c/s" } else { "c/s/b" };
            assert_eq!(held.contact.is_some(), keeps, "{node}, travels: {travels}");
        }
    }
}

#[test]
fn where_somebody_calls_from_is_known_where_it_was_said_though_the_word_was_lost_with_a_disk() {
    let mut world = World { has_registry: true, ..pressed_and_dispatched_to("c/s/a") };
    let elsewhere = Ask { place: Some(at("B楼")), ..by("w", Role::Worker) };
    assert!(world.ask("c/s", ID, Verb::Comment, &elsewhere, "w1"));
    world.lines.clear();
    world.commit("c/s", vec![presence("c/s/a", 2)], Some("c/s/a"));
    world.settle();
    let held = world.places["c/s"].cases.get(ID).unwrap();
    assert_eq!((&held.wishes, held.place_now()), (&vec![], Some(&at("B楼"))), "it is said again");
    assert_eq!(world.places["c/s/a"].cases.get(ID).unwrap().case.place_again, Some(at("B楼")));
}
