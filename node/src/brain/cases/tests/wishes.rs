//! What is asked for at one node and done at another: each wish once, and what its maker hears of it is true.

use super::apart::{carry, without};
use super::*;
use citybrain_hub::state::Peer;

const ID: &str = "20261120-0";

fn held<'w>(world: &'w World, at: &str) -> &'w Held {
    world.places[at].cases.get(ID).unwrap()
}

fn give(world: &mut World, from: &str, to: &str) {
    assert!(world.ask(from, ID, Verb::Dispatch, &Ask { to: Some(a(to)), ..by("w", Role::Worker) }, ""));
}

/// How often it was done, as that node knows.
fn done(world: &World, at: &str, verb: Verb) -> usize {
    held(world, at).history.iter().filter(|e| e.step == verb.done()).count()
}

/// What became of each wish of that node: `None` is no answer.
fn answers(world: &World, at: &str) -> Vec<Option<String>> {
    held(world, at).wishes.iter().map(|w| w.refused.clone()).collect()
}

/// Accepted at `c/s/a`, and `c/s/b` has taken it; the others have not heard of that.
fn taken_unheard() -> World {
    let mut world = World::new();
    world.open("c/s/a", opening(ID, "L"), Contact::default());
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
    give(&mut world, "c/s/a", "c/s/b");
    without(&mut world, "c/s/b");
    carry(&mut world, "c/s", "c/s/b");
    assert!(world.places["c/s/b"].cases.may_step(ID));
    world
}

#[test]
fn a_recall_that_is_asked_for_twice_is_refused_to_nobody_once_the_case_comes_home() {
    for others in [&["c", "c"][..], &["c/s/a", "c"], &["c", "c/s/a"], &["c/s", "c"]] {
        let mut world = taken_unheard();
        for (i, at) in others.iter().enumerate() {
            assert!(world.ask(at, ID, Verb::Recall, &by("boss", Role::Supervisor), &format!("r{i}")), "{at}");
        }
        for (from, to) in [("c", "c/s"), ("c/s", "c/s/a"), ("c/s/a", "c/s"), ("c/s", "c/s/b")] {
            carry(&mut world, from, to);
        }
        // All that it says goes the shortest way first.
        for (from, to) in [("c/s/b", "c/s"), ("c/s", "c")] {
            carry(&mut world, from, to);
        }
        world.settle();
        for at in NODES {
            let Some(held) = world.places[at].cases.get(ID) else { continue };
            assert_eq!((held.case.owner.as_str(), answers(&world, at)), ("c/s/a", Vec::new()), "{others:?}: {at}");
        }
    }
}

#[test]
fn a_recall_that_is_refused_says_so_though_its_owner_has_stepped_meanwhile() {
    let mut world = World::new();
    world.open("c/s/b", opening(ID, "L"), Contact::default());
    world.settle();
    assert!(world.ask("c/s/b", ID, Verb::Comment, &by("w", Role::Worker), ""));
    assert!(world.ask("c", ID, Verb::Recall, &by("boss", Role::Supervisor), "r"));
    world.settle();
    let answers = answers(&world, "c");
    assert_eq!((answers.len(), answers.iter().flatten().count()), (1, 1), "{answers:?}");
}

#[test]
fn a_wish_that_was_thought_lost_and_was_not_is_done_once_though_it_is_asked_for_again() {
    for verb in [Verb::Comment, Verb::Accept] {
        let mut world = World::new();
        world.has_registry = true;
        world.open("c/s/a/n", opening(ID, "L"), Contact::default());
        world.settle();
        assert!(world.ask("c/s", ID, verb, &by("w", Role::Worker), "w1"));
        // Asked while the box between was dead: it waits for the one that comes in its place.
        world.commit("c/s", vec![presence("c/s/a", 2)], Some("c/s/a"));
        let why = answers(&world, "c/s")[0].clone().unwrap_or_default();
        assert!(why.starts_with("c/s/a has lost its disk"), "{why}");
        assert!(world.ask("c/s", ID, verb, &by("w", Role::Worker), "w2"));
        world.settle();
        assert_eq!((done(&world, "c/s/a/n", verb), answers(&world, "c/s")), (1, Vec::new()), "{verb}");
    }
}

#[test]
fn a_wish_that_the_lost_disk_never_had_is_not_said_to_be_lost_with_it() {
    let mut world = World { has_registry: true, ..World::new() };
    world.open("c/s/a/n", opening(ID, "L"), Contact::default());
    world.settle();
    let before = world.places["c/s"].pos;
    for (i, verb) in [Verb::Comment, Verb::Accept].into_iter().enumerate() {
        assert!(world.ask("c/s", ID, verb, &by("w", Role::Worker), &format!("w{i}")));
    }
    world.restart("c/s");
    let street = &world.places["c/s"];
    let refused = |had: u64| {
        let mut state = world.state("c/s");
        state.peers.insert(a("c/s/a"), Peer { furthest: [Pos(had); 2], ..Peer::default() });
        let group = group_of(&street.cases, &state, world.now, vec![presence("c/s/a", 2)], Some("c/s/a"));
        group.iter().filter(|(_, draft)| draft.header().name == letter::LETTER).count()
    };
    assert_eq!((refused(before), refused(before + 1), refused(street.pos)), (0, 1, 2));
}

#[test]
fn a_wish_that_is_asked_for_again_where_its_case_has_come_meanwhile_is_done_once() {
    let mut world = World::new();
    world.open("c/s/a", opening(ID, "L"), Contact::default());
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
    give(&mut world, "c/s/a", "c/s/b");
    world.settle();
    let ask = by("w", Role::Worker);
    assert!(world.ask("c/s/a", ID, Verb::Comment, &ask, "w1"));
    // It waits at the street while the case comes home.
    give(&mut world, "c/s/b", "c/s/a");
    for (from, to) in [("c/s/b", "c/s"), ("c/s", "c/s/a")] {
        carry(&mut world, from, to);
    }
    assert!(world.places["c/s/a"].cases.may_step(ID));
    assert_eq!(answers(&world, "c/s/a"), [None]);
    assert!(world.ask("c/s/a", ID, Verb::Comment, &ask, "w2"));
    assert_eq!(answers(&world, "c/s/a"), [], "it is a line by now");
    world.settle();
    assert_eq!((done(&world, "c/s/a", Verb::Comment), answers(&world, "c/s/a")), (1, Vec::new()));
    world.restart("c/s/a");
    // Said once more, it is said once more.
    assert!(world.ask("c/s/a", ID, Verb::Comment, &ask, "w3"));
    assert_eq!(done(&world, "c/s/a", Verb::Comment), 2);
}

#[test]
fn the_refusal_of_the_first_time_is_no_answer_to_the_second() {
    let mut world = World::new();
    world.open("c/s/b", opening(ID, "L"), Contact::default());
    world.settle();
    let ask = |world: &World| Ask { seen: vec![held(world, "c").case.stamp()], ..by("w", Role::Worker) };
    // The owner has moved on, and the one who asks learns it before he hears that he is refused.
    let old = ask(&world);
    assert!(world.ask("c/s/b", ID, Verb::Comment, &by("x", Role::Worker), ""));
    assert!(world.ask("c", ID, Verb::Accept, &old, "w1"));
    for (from, to) in [("c/s/b", "c/s"), ("c/s", "c")] {
        carry(&mut world, from, to);
    }
    let new = ask(&world);
    assert!(world.ask("c", ID, Verb::Accept, &new, "w2"));
    let first = world.lines.get_mut(&("c".to_owned(), "c/s".to_owned())).unwrap();
    let second = first.split_off(1);
    for (from, to) in [("c", "c/s"), ("c/s", "c/s/b"), ("c/s/b", "c/s"), ("c/s", "c")] {
        carry(&mut world, from, to);
    }
    assert_eq!(answers(&world, "c"), [None], "the second is on its way");
    world.lines.insert(("c".to_owned(), "c/s".to_owned()), second);
    world.settle();
    assert_eq!((done(&world, "c", Verb::Accept), answers(&world, "c")), (1, Vec::new()));
}
