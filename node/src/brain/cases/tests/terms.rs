//! What a case's category asks goes with the case, also to nodes that know no such category.

use super::*;

const CASE: &str = "20261120-0";

const LITTER: &str = r#"
[[category]]
code = "litter"
name = "暴露垃圾"
dispatch = "1h"
solution = "4wh"
evidence = ["photo-after"]
contact_reach = "street"
"#;

/// The same code, and something else: where a case has terms it does not count.
const OTHER: &str = r#"
[[category]]
code = "litter"
name = "litter"
dispatch = "9h"
solution = "9h"
evidence = ["invoice"]
"#;

fn with(address: &str, categories: &str) -> Cases {
    let text = format!("[node]\naddress = \"{address}\"\ndata = \"d\"\n{categories}");
    let parsed = parse(&text, &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    Cases::new(&parsed.config.unwrap())
}

/// `c/s/a` knows litter, `c/s/b` knows what `theirs` says; no other node has any category.
fn world(theirs: &str) -> World {
    let mut world = World::new();
    for (at, place) in &mut world.places {
        place.cases = match at.as_str() {
            "c/s/a" => with(at, LITTER),
            "c/s/b" => with(at, theirs),
            _ => with(at, ""),
        };
    }
    world
}

fn case<'w>(world: &'w World, at: &str) -> &'w Case {
    &world.places[at].cases.get(CASE).unwrap().case
}

fn step(world: &mut World, at: &str, verb: Verb, ask: Ask) {
    let id = format!("{at}{}", world.places[at].pos);
    world.now += 1_000_000;
    assert!(world.ask(at, CASE, verb, &ask, &id), "{verb} at {at}: {}", case(world, at).standing());
    world.settle();
}

/// Opened at `c/s/a`, with somebody to call, and with `c/s/b` now.
fn sent(theirs: &str) -> World {
    let mut world = world(theirs);
    let contact = Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() };
    world.open("c/s/a", Opening { has_contact: true, ..opening(CASE, "litter") }, contact);
    step(&mut world, "c/s/a", Verb::Accept, by("w", Role::Worker));
    step(&mut world, "c/s/a", Verb::Dispatch, Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) });
    assert_eq!(case(&world, "c/s/b").owner, a("c/s/b"));
    world
}

fn runs(case: &Case, clock: &str) -> Option<String> {
    case.clock(clock).filter(|c| c.runs()).map(|c| c.limit.clone())
}

fn refused(world: &World, at: &str, verb: Verb, ask: &Ask) -> (&'static str, String) {
    let refusal = world.places[at].cases.ask(CASE, verb, ask, "x", world.now).unwrap_err();
    (refusal.error, refusal.detail)
}

#[test]
fn a_node_that_does_not_know_the_category_asks_for_what_must_be_shown_and_sets_its_clocks() {
    for theirs in ["", OTHER] {
        let mut world = sent(theirs);
        step(&mut world, "c/s/b", Verb::Start, by("w", Role::Worker));
        let (error, detail) = refused(&world, "c/s/b", Verb::Resolve, &by("w", Role::Worker));
        assert_eq!((error, detail.contains("must show photo-after")), ("no-evidence", true), "{detail}");
        let evidence = vec!["photo-after=https://x.example/1.jpg".to_owned()];
        step(&mut world, "c/s/b", Verb::Resolve, Ask { evidence, ..by("w", Role::Worker) });
        assert_eq!(runs(case(&world, "c/s/b"), "solution"), None);
        step(&mut world, "c/s/b", Verb::Verify, Ask { passed: Some(false), ..by("s", Role::Supervisor) });
        assert_eq!(runs(case(&world, "c/s/b"), "solution").as_deref(), Some("4wh"), "rework has the case's limit");
        step(&mut world, "c/s/b", Verb::Return, by("w", Role::Worker));
        for at in ["c/s/a", "c"] {
            assert_eq!(case(&world, at).owner, a("c/s/a"));
            assert_eq!(runs(case(&world, at), "dispatch").as_deref(), Some("1h"), "a return has the case's limit");
        }
    }
}

#[test]
fn whom_to_call_goes_as_far_up_as_the_case_says_and_not_as_a_node_on_the_way_would() {
    let world = sent("");
    let knows = |at: &str| world.places[at].cases.get(CASE).is_some_and(|h| h.contact.is_some());
    assert_eq!(["c/s/b", "c/s", "c"].map(knows), [true, true, false]);
}

#[test]
fn what_nobody_knew_where_it_was_opened_is_fixed_by_whoever_takes_it_and_does() {
    let mut world = world(OTHER);
    // The city knows nothing of litter; b means something by it.
    world.open("c", opening(CASE, "litter"), Contact::default());
    assert_eq!(case(&world, "c").terms, None);
    step(&mut world, "c", Verb::Accept, by("w", Role::Worker));
    step(&mut world, "c", Verb::Dispatch, Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) });
    let terms = |world: &World| case(world, "c").terms.clone().unwrap();
    assert_eq!(terms(&world).evidence, ["invoice"]);
    step(&mut world, "c/s/b", Verb::Return, by("w", Role::Worker));
    assert_eq!(runs(case(&world, "c"), "dispatch").as_deref(), Some("9h"), "from then on everywhere");
    assert_eq!(terms(&world).evidence, ["invoice"]);
}

#[test]
fn a_catalogue_that_says_something_else_later_changes_no_case_that_is_open() {
    let mut world = sent("");
    // The node starts again with another file, on the rows that it had.
    let rows = world.places.get_mut("c/s/b").unwrap().cases.take_rows();
    let mut anew = with("c/s/b", OTHER);
    for (key, value) in rows.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        anew.load_row(key, value).unwrap();
    }
    world.places.get_mut("c/s/b").unwrap().cases = anew;
    step(&mut world, "c/s/b", Verb::Start, by("w", Role::Worker));
    let invoice = Ask { evidence: vec!["invoice=https://x.example/1".into()], ..by("w", Role::Worker) };
    assert_eq!(refused(&world, "c/s/b", Verb::Resolve, &invoice).0, "no-evidence");
}

#[test]
fn what_its_category_leaves_out_of_the_rates_is_excluded_at_every_tier_whoever_has_the_case() {
    let mut world = world(OTHER);
    world.places.get_mut("c/s/a").unwrap().cases = with("c/s/a", &format!("{LITTER}counted = false\n"));
    world.open("c/s/a", opening(CASE, "litter"), Contact::default());
    step(&mut world, "c/s/a", Verb::Accept, by("w", Role::Worker));
    step(&mut world, "c/s/a", Verb::Dispatch, Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) });
    let evidence = vec!["photo-after=https://x.example/1.jpg".to_owned()];
    step(&mut world, "c/s/b", Verb::Start, by("w", Role::Worker));
    step(&mut world, "c/s/b", Verb::Resolve, Ask { evidence, ..by("w", Role::Worker) });
    let word = Ask { solved: Some(Solved::Unsolved), satisfied: Some(Satisfied::No), ..by("r", Role::Resident) };
    step(&mut world, "c/s/b", Verb::Evaluate, word);
    for at in ["c/s/b", "c/s", "c"] {
        let (_, c) = rates_of(&world.places[at].cases, None);
        assert_eq!((c.dispatched, c.excluded, c.unsolved, c.dissatisfied, c.due), (1, 1, 0, 0, 0), "{at}");
    }
    assert_eq!(refused(&world, "c/s/b", Verb::Exclude, &by("w", Role::Worker)).0, "not-now");
}
