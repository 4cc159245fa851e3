//! What is asked for at one node and done at another: each wish once, and what its maker hears of it is true.

use super::apart::{carry, without};
use super::*;

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

/// What that box writes of itself when it begins another history: it has lost its disk, or some of what it knew.
fn begins_anew(world: &World, at: &str, knows_some: bool) -> Vec<Draft> {
    let me = a(at);
    let data = serde_json::json!({"node": at, "log": citybrain_shared::LogId(9), "n": 0, "knows_some": knows_some});
    let pen = Pen { me: &me, now: view::time_of(world.now) };
    let (name, way) = (format!("{PREFIX}wanted"), (Direction::Up, Tier::City));
    let wanted = pen.event(&name, "wanted", at, Lane::Routine, way, "", serde_json::json!({}), data);
    vec![presence(at, 2), wanted]
}

/// Has the node ever been told that a wish of its was lost?
fn was_told_of_a_loss(world: &World, at: &str) -> bool {
    let is_lost = |(_, draft): &(Option<String>, Draft)| {
        let letter = letter::data::<Letter>(draft.parts().1).map(|letter| letter.body);
        matches!(letter, Some(Body::Refused { error, .. }) if error == letter::LOST)
    };
    world.places[at].log.iter().any(is_lost)
}

#[test]
fn a_wish_that_waits_for_the_box_in_place_of_another_is_not_said_to_be_lost_with_that() {
    // Its disk was empty and has a second history since it met its child; or it was restored.
    for knows_some in [false, true] {
        for verb in [Verb::Comment, Verb::Accept] {
            let mut world = World { has_registry: true, ..World::new() };
            world.open("c/s/a/n", opening(ID, "L"), Contact::default());
            world.settle();
            assert!(world.ask("c/s", ID, verb, &by("w", Role::Worker), "w1"));
            world.commit("c/s", begins_anew(&world, "c/s/a", knows_some), Some("c/s/a"));
            assert_eq!(answers(&world, "c/s"), [None], "{verb}");
            world.settle();
            assert_eq!((done(&world, "c/s/a/n", verb), answers(&world, "c/s")), (1, Vec::new()), "{verb}");
            assert!(!was_told_of_a_loss(&world, "c/s"), "{verb}, knows some: {knows_some}");
        }
    }
}

#[test]
fn a_wish_that_was_lost_with_a_disk_is_said_to_be_and_done_once_when_it_is_asked_for_again() {
    for verb in [Verb::Comment, Verb::Accept] {
        let mut world = World { has_registry: true, ..World::new() };
        world.open("c/s/a/n", opening(ID, "L"), Contact::default());
        world.settle();
        assert!(world.ask("c", ID, verb, &by("w", Role::Worker), "w1"));
        carry(&mut world, "c", "c/s");
        carry(&mut world, "c/s", "c/s/a");
        world.lines.clear();
        world.commit("c", begins_anew(&world, "c/s/a", false), Some("c/s/a"));
        world.settle();
        // A comment is sent again by itself; whoever has lost nothing knows that another step was not done.
        if verb == Verb::Accept {
            let why = answers(&world, "c")[0].clone().unwrap_or_default();
            assert!(why.starts_with("it has not come to c/s/a/n, and was not done"), "{why}");
            assert!(world.ask("c", ID, verb, &by("w", Role::Worker), "w2"));
            world.settle();
        }
        assert_eq!((done(&world, "c/s/a/n", verb), answers(&world, "c")), (1, Vec::new()), "{verb}");
    }
}

#[test]
fn what_has_become_of_a_wish_is_told_by_whoever_has_the_case_by_now() {
    let mut world = World { has_registry: true, ..World::new() };
    world.open("c/s/a", opening(ID, "L"), Contact::default());
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
    world.settle();
    // What is said goes after the case; the box that has sent it on loses its disk, and the case is on its way back.
    assert!(world.ask("c", ID, Verb::Comment, &by("w", Role::Worker), "w1"));
    give(&mut world, "c/s/a", "c/s/b");
    without(&mut world, "c/s/a");
    carry(&mut world, "c", "c/s");
    carry(&mut world, "c/s", "c/s/a");
    world.commit("c", begins_anew(&world, "c/s/a", false), Some("c/s/a"));
    world.settle();
    assert_eq!((done(&world, "c/s/b", Verb::Comment), answers(&world, "c")), (1, Vec::new()));
    assert!(!was_told_of_a_loss(&world, "c"));
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

#[test]
fn a_wish_that_was_refused_stays_told_though_somebody_else_asks_for_the_same_and_each_has_its_name() {
    let mut world = World::new();
    world.open("c/s/a", opening(ID, "L"), Contact::default());
    world.settle();
    let mut close = |who: &str, wish: &str| {
        assert!(world.ask("c", ID, Verb::Close, &by(who, Role::Supervisor), wish));
        world.settle();
        let told = |w: &Wish| (w.id.clone(), w.by.clone(), w.refused.is_some());
        held(&world, "c").wishes.iter().map(told).collect::<Vec<_>>()
    };
    let refused = |id: &str, by: &str| (id.to_owned(), by.to_owned(), true);
    assert_eq!(close("甲", "w1"), [refused("w1", "甲")]);
    assert_eq!(close("乙", "w2"), [refused("w1", "甲"), refused("w2", "乙")]);
    // The same asked for again by the same: the answer to come is the one that counts.
    assert_eq!(close("甲", "w3"), [refused("w2", "乙"), refused("w3", "甲")]);
}
