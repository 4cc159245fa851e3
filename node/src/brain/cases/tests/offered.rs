//! What is offered otherwise than it was booked, where the case is at another node by now.

use super::*;

const CASE: &str = "20261120-0";
/// Who offers it.
const AT: &str = "c/s";
const FIRST: &str = "2026-12-05 09:00";
const MOVED: &str = "2026-12-06 09:00";

fn offer(world: &mut World, starts: &str, place: &str) {
    let (config, word) = offering(AT, world.now, starts, place);
    world.now += 1;
    world.places.get_mut(AT).unwrap().cases.adopt(&config);
    world.commit(AT, vec![word], None);
}

/// The service is taken out.
fn offer_nothing(world: &mut World) {
    let (mut config, _) = offering(AT, world.now, FIRST, "");
    config.service.clear();
    let word = Services::new(&config).on_due(&State::default(), world.now).remove(0);
    world.places.get_mut(AT).unwrap().cases.adopt(&config);
    world.commit(AT, vec![word], None);
}

/// Booked, and given to a node below.
fn booked_and_given() -> World {
    let mut world = World::new();
    offer(&mut world, FIRST, "");
    world.open(AT, Opening { booking: Some(haircut(AT)), ..opening(CASE, "S") }, Contact::default());
    assert!(world.ask(AT, CASE, Verb::Accept, &by("w", Role::Worker), ""));
    give(&mut world, AT, "c/s/a");
    world.settle();
    assert!(world.places["c/s/a"].cases.may_step(CASE));
    assert!(told(&world, "c/s/a").is_empty());
    world
}

fn give(world: &mut World, from: &str, to: &str) {
    assert!(world.ask(from, CASE, Verb::Dispatch, &Ask { to: Some(a(to)), ..by("w", Role::Worker) }, ""));
}

fn held<'w>(world: &'w World, at: &str) -> &'w Held {
    world.places[at].cases.get(CASE).unwrap()
}

fn booking(world: &World, at: &str) -> Booking {
    held(world, at).case.booking.clone().unwrap()
}

/// The lines that say that something of it is offered otherwise: who wrote it, which step, and what it says.
fn told(world: &World, at: &str) -> Vec<(String, String, String)> {
    let lines = held(world, at).history.iter().filter(|e| e.by == "booking" && e.version > 2);
    lines.map(|e| (e.node.to_string(), e.step.clone(), e.text.clone())).collect()
}

fn steps(world: &World, at: &str) -> Vec<String> {
    told(world, at).into_iter().map(|(_, step, _)| step).collect()
}

/// Those above whoever has the case say the same of it, and the node that offers it counts one seat, at that time.
fn all_agree(world: &World, at: Option<&str>) {
    let owner = NODES.into_iter().find(|n| world.places[*n].cases.may_step(CASE)).unwrap();
    let case = &held(world, owner).case;
    for node in ["c", AT] {
        assert_eq!(&held(world, node).case, case, "{node}");
    }
    let given: Vec<_> = world.places[AT].cases.given.iter().filter(|(_, n)| **n > 0).collect();
    assert_eq!(given.len(), 1, "{given:?}");
    if let Some(at) = at {
        assert_eq!(given[0].0.1, Some(at.parse().unwrap()));
    }
    assert_eq!(world.places[AT].cases.to_rebook, BTreeSet::new());
}

#[test]
fn who_has_a_case_that_booked_what_another_node_moves_is_told_once() {
    let mut world = booked_and_given();
    offer(&mut world, MOVED, "\nplace = { text = \"2栋\" }");
    world.settle();
    let text = "it was to be at 2026-12-05 09:00; it is at 2栋 now, not at no place";
    assert_eq!(told(&world, "c/s/a"), [("c/s/a".into(), "rescheduled".into(), text.into())]);
    assert_eq!(held(&world, "c/s/a").history.last().unwrap().to.as_deref(), Some(MOVED));
    all_agree(&world, Some("2026-12-06T01:00:00Z"));
    let calls = |world: &World, at: &str| {
        world.places[at].log.iter().filter(|(o, d)| o.is_none() && d.header().name == letter::CALL).count()
    };
    assert_eq!((calls(&world, "c/s/a"), calls(&world, AT)), (1, 0), "whoever has the case says so to him");
    // A step of the owner, or the same word again, leads to nothing more.
    assert!(world.ask("c/s/a", CASE, Verb::Start, &by("w", Role::Worker), ""));
    offer(&mut world, MOVED, "\nplace = { text = \"2栋\" }");
    world.settle();
    assert_eq!(told(&world, "c/s/a").len(), 1);

    // Taken out, and offered again: the responders of whoever has the case are called, once for each.
    offer_nothing(&mut world);
    world.settle();
    assert_eq!(booking(&world, "c/s/a").state, Booked::Cancelled);
    assert_eq!(told(&world, "c").last().unwrap().2, "c/s no longer offers it");
    assert_eq!((calls(&world, "c/s/a"), calls(&world, AT)), (2, 0));
    offer(&mut world, MOVED, "\nplace = { text = \"2栋\" }");
    world.settle();
    assert_eq!(steps(&world, "c/s/a"), ["rescheduled", "cancelled", "booked"]);
    assert_eq!((calls(&world, "c/s/a"), calls(&world, AT)), (3, 0));
    all_agree(&world, Some("2026-12-06T01:00:00Z"));
}

/// It is killed, and starts with this config.
fn start_with(world: &mut World, at: &str, config: &Config) {
    let rows = {
        let mut anew = Cases::new(config);
        anew.me = a(at);
        for (i, (origin, draft)) in world.places[at].log.iter().enumerate() {
            with_origin(draft, origin.as_deref(), |h, p| anew.apply(Pos(i as u64 + 1), h, p));
        }
        anew.take_rows()
    };
    let mut anew = Cases::new(config);
    anew.me = a(at);
    for (key, value) in rows {
        value.iter().for_each(|value| anew.load_row(&key, value).unwrap());
    }
    world.places.get_mut(at).unwrap().cases = anew;
    let start = Header::local(citybrain_shared::record::Kind::Presence, "city.brain.node");
    world.commit(at, vec![Draft::new(&start, b"{}").unwrap()], None);
}

#[test]
fn a_kill_of_who_offers_or_of_who_has_the_case_tells_it_once() {
    let mut world = booked_and_given();
    offer(&mut world, MOVED, "");
    // The letter is in the log, and lies on the line.
    assert!(world.due(AT));
    let config = offering(AT, world.now, MOVED, "").0;
    let restart = |world: &mut World, at: &str| start_with(world, at, &config);
    restart(&mut world, AT);
    assert!(!world.due(AT), "it was told by letter, and is not told again");
    let key = (AT.to_owned(), "c/s/a".to_owned());
    while let Some(flying) = world.lines.get_mut(&key).and_then(|line| (!line.is_empty()).then(|| line.remove(0))) {
        world.arrive("c/s/a", flying);
    }
    restart(&mut world, "c/s/a");
    world.settle();
    restart(&mut world, AT);
    world.settle();
    assert_eq!(steps(&world, "c/s/a"), ["rescheduled"]);
    all_agree(&world, Some("2026-12-06T01:00:00Z"));
}

#[test]
fn the_word_goes_after_a_case_that_is_given_on_or_comes_back_meanwhile() {
    for to in ["c/s/b", "c/s/a/n", AT, "c"] {
        let mut world = booked_and_given();
        offer(&mut world, MOVED, "");
        assert!(world.due(AT));
        // Whoever has it, cut off until then, gives it away before the letter comes.
        give(&mut world, "c/s/a", to);
        world.settle();
        assert!(world.places[to].cases.may_step(CASE), "{to}");
        assert_eq!(steps(&world, "c"), ["rescheduled"], "{to}");
        all_agree(&world, Some("2026-12-06T01:00:00Z"));
    }
}

#[test]
fn what_is_moved_while_the_case_is_on_its_way_is_told_to_whoever_takes_it() {
    let mut world = World::new();
    offer(&mut world, FIRST, "");
    world.open(AT, Opening { booking: Some(haircut(AT)), ..opening(CASE, "S") }, Contact::default());
    assert!(world.ask(AT, CASE, Verb::Accept, &by("w", Role::Worker), ""));
    give(&mut world, AT, "c/s/a");
    offer(&mut world, MOVED, "");
    assert!(!world.due(AT), "nobody steps it now");
    world.settle();
    assert_eq!(told(&world, "c").iter().map(|(node, ..)| node.as_str()).collect::<Vec<_>>(), ["c/s/a"]);
    all_agree(&world, Some("2026-12-06T01:00:00Z"));
}

#[test]
fn of_what_is_moved_again_and_again_before_anybody_hears_of_it_the_last_word_counts() {
    for last in [FIRST, MOVED, "2026-12-07 09:00"] {
        let mut world = booked_and_given();
        for starts in [MOVED, "2026-12-08 09:00", FIRST, MOVED, last] {
            offer(&mut world, starts, "");
            world.due(AT);
        }
        world.settle();
        let at = booking(&world, "c/s/a").at.unwrap();
        let wanted = format!("{}T01:00:00+00:00", &last[..10]);
        let told = told(&world, "c/s/a");
        assert_eq!(at.to_rfc3339(), wanted, "{told:?}");
        // Each line says truly how it was before it.
        let lines = held(&world, "c/s/a").history.iter().filter(|e| e.step == "rescheduled");
        let mut before = FIRST.to_owned();
        for line in lines {
            assert_eq!(line.text, format!("it was to be at {before}"));
            before = line.to.clone().unwrap();
        }
        assert_eq!(before, last);
        all_agree(&world, None);
    }
}

#[test]
fn nobody_but_the_node_that_offers_it_says_that_it_is_offered_otherwise() {
    let mut world = booked_and_given();
    offer(&mut world, MOVED, "");
    let word = world.places[AT].cases.offer_letter(held(&world, AT), view::time_of(world.now)).unwrap();
    let (_, payload) = word.parts();
    let mut forged: Letter = letter::data(payload).unwrap();
    forged.from = a("c/s/b");
    let forged = Pen { me: &a("c/s/b"), now: view::time_of(world.now) }.letter(&forged).unwrap();
    world.arrive(AT, Flying { origin: "c/s/b".into(), draft: forged });
    let (config, first) = offering(AT, world.now, FIRST, "");
    world.places.get_mut(AT).unwrap().cases.adopt(&config);
    world.commit(AT, vec![first], None);
    world.settle();
    assert_eq!(booking(&world, "c/s/a").at, haircut(AT).at);
    assert!(told(&world, "c/s/a").is_empty());
}

/// An appointment, at other hours than those that it was booked for.
fn offer_at_other_hours(world: &mut World, place: &str) {
    let (mut config, _) = offering(AT, world.now, FIRST, &format!("\nplace = {{ text = \"{place}\" }}"));
    (config.service[0].starts, config.service[0].hours) = (None, vec!["mon-sun 14:00-17:00".into()]);
    let word = Services::new(&config).on_due(&State::default(), world.now).remove(0);
    world.now += 1;
    world.places.get_mut(AT).unwrap().cases.adopt(&config);
    world.commit(AT, vec![word], None);
    world.settle();
}

#[test]
fn what_is_cancelled_stays_so_without_another_word_wherever_it_would_be() {
    let mut world = booked_and_given();
    let calls =
        |world: &World| world.places["c/s/a"].log.iter().filter(|(_, d)| d.header().name == letter::CALL).count();
    let before = calls(&world);
    for place in ["1栋", "2栋"] {
        offer_at_other_hours(&mut world, place);
        assert_eq!((steps(&world, "c/s/a"), calls(&world)), (vec!["cancelled".to_owned()], before + 1), "{place}");
    }
    assert_eq!(world.places[AT].cases.to_rebook, BTreeSet::new());
    offer(&mut world, FIRST, "\nplace = { text = \"3栋\" }");
    world.settle();
    assert_eq!(steps(&world, "c/s/a"), ["cancelled", "booked"]);
}

#[test]
fn a_start_with_another_file_tells_in_one_line_what_it_offers_once_its_catalogue_says_so() {
    let place = "\nplace = { text = \"2栋\" }";
    for (is_taken_out, wanted) in [(false, vec!["rescheduled"]), (true, vec!["cancelled", "booked"])] {
        let mut world = booked_and_given();
        if is_taken_out {
            offer_nothing(&mut world);
            world.settle();
        }
        let (config, word) = offering(AT, world.now + 1, MOVED, place);
        start_with(&mut world, AT, &config);
        assert!(!world.due(AT), "it has not said yet what it offers");
        world.now += 1;
        world.commit(AT, vec![word], None);
        world.settle();
        assert_eq!(steps(&world, "c/s/a"), wanted);
        let now = booking(&world, "c/s/a");
        assert_eq!((now.at, now.place.unwrap().text.as_str()), (Some("2026-12-06T01:00:00Z".parse().unwrap()), "2栋"));
        all_agree(&world, Some("2026-12-06T01:00:00Z"));
    }
}
