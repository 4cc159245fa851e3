//! Boxes that are dead or cut off: who comes, who works on, and who is forgotten all the same.

use super::*;
use citybrain_shared::case::RESPONSE;

const ID: &str = "20261120-0";

fn press(world: &mut World, at: &str) {
    let new = Opening { sos: true, button: Some("b".into()), has_contact: true, ..opening(ID, "") };
    let phone = Contact { phone: "139".into(), ..Contact::default() };
    let (_, drafts) = world.places[at].cases.open(new, phone, world.now);
    world.commit(at, drafts, None);
    world.settle();
}

/// Everything comes in and everything is done, but at this node.
pub(super) fn without(world: &mut World, dead: &str) {
    for _ in 0..300 {
        for n in NODES.iter().filter(|n| **n != dead) {
            world.due(n);
        }
        let line = world.lines.iter().find(|((_, to), q)| to != dead && !q.is_empty()).map(|(k, _)| k.clone());
        let Some(key) = line else { continue };
        let flying = world.lines.get_mut(&key).unwrap().remove(0);
        world.arrive(&key.1, flying);
    }
}

fn held<'w>(world: &'w World, at: &str) -> &'w Held {
    world.places[at].cases.get(ID).unwrap()
}

#[test]
fn whoever_comes_to_a_press_of_a_dead_box_is_known_above_and_nobody_else_is_called() {
    for (at, called) in [("c/s/a", ["c/s", "c"]), ("c/s", ["c/s/a", "c"])] {
        let mut world = World::new();
        press(&mut world, "c/s/a/n");
        assert!(world.ask(at, ID, Verb::Accept, &by("社区值班", Role::Worker), "w1"), "{at} has a copy");
        without(&mut world, "c/s/a/n");
        for seconds in [59, 31, 31, 3600] {
            world.now += seconds * 1_000_000;
            without(&mut world, "c/s/a/n");
        }
        for above in called {
            assert_eq!(calls(&world, above), 0, "accepted at {at}: {above}");
            let who = &held(&world, above).coming[0];
            assert_eq!((who.by.as_str(), who.node.as_str()), ("社区值班", at), "{above}");
            assert_eq!(world.places[above].cases.calls_for_help().unaccepted, 0);
            world.restart(above);
        }
        // It is back: its own timer is over, and the word of who comes is there at once.
        world.settle();
        for n in ["c/s/a/n", "c/s/a", "c/s", "c"] {
            assert_eq!((held(&world, n).case.status, held(&world, n).coming.len()), (Status::Accepted, 0), "{n}");
        }
        assert_eq!(held(&world, "c").case.accepted_by.as_deref(), Some("社区值班"));
        assert_eq!(owners_of(world.places.iter().map(|(n, p)| (n.as_str(), &p.cases)), ID), ["c/s/a/n"]);
    }
}

#[test]
fn a_resident_does_not_keep_a_press_from_climbing_and_a_box_that_speaks_again_is_watched_again() {
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    assert!(!world.ask("c/s/a", ID, Verb::Accept, &by("r", Role::Resident), "w0"));
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), "w1"));
    // The line down is cut; the box lives, nobody has come there, and it climbs.
    world.lines.clear();
    world.now += 30_000_000;
    while world.due("c/s/a/n") {}
    let up: Vec<Flying> = world.lines.values_mut().flat_map(std::mem::take).collect();
    up.into_iter().for_each(|flying| world.arrive("c/s/a", flying));
    while world.due("c/s/a") {}
    assert_eq!(calls(&world, "c/s/a"), 0, "it cannot have heard of it, and may say so yet");
    world.now += 30_000_000;
    while world.due("c/s/a") {}
    assert_eq!(calls(&world, "c/s/a"), 1, "it says nothing of whoever comes");
    world.restart("c/s/a");
    while world.due("c/s/a") {}
    assert_eq!(calls(&world, "c/s/a"), 1);
}

/// What the node's log has goes to its neighbour, and no answer comes.
pub(super) fn carry(world: &mut World, from: &str, to: &str) {
    let line = world.lines.get_mut(&(from.to_owned(), to.to_owned())).map(std::mem::take).unwrap_or_default();
    line.into_iter().for_each(|flying| world.arrive(to, flying));
    while world.due(to) {}
}

/// The box climbs that often while the word of whoever accepts it at `desk` waits at the community; then all that
/// it says comes up, before it hears anything.
fn climbs_unheard(world: &mut World, desk: &str, climbs: usize, only_as_seen: bool) {
    let seen = only_as_seen.then(|| held(world, desk).case.stamp()).into_iter().collect();
    let accept = Ask { seen, ..by("市值班", Role::Worker) };
    assert!(world.ask(desk, ID, Verb::Accept, &accept, "w1"));
    without(world, "c/s/a/n");
    for _ in 0..climbs {
        world.now += 30_000_000;
        while world.due("c/s/a/n") {}
    }
    for (from, to) in [("c/s/a/n", "c/s/a"), ("c/s/a", "c/s"), ("c/s", "c")] {
        carry(world, from, to);
    }
}

const ABOVE: [&str; 3] = ["c/s/a", "c/s", "c"];

#[test]
fn a_press_that_somebody_above_comes_to_calls_nobody_when_its_box_is_back() {
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    climbs_unheard(&mut world, "c", 3, false);
    for n in ABOVE {
        assert_eq!((calls(&world, n), held(&world, n).case.escalated_to.clone()), (0, Some(a("c"))), "{n}");
        world.restart(n);
    }
    world.settle();
    world.now += 3_600_000_000;
    world.settle();
    for n in ABOVE {
        assert_eq!((calls(&world, n), held(&world, n).case.accepted_by.as_deref()), (0, Some("市值班")), "{n}");
    }
}

#[test]
fn a_press_whose_box_refuses_whoever_was_to_come_calls_all_that_it_has_climbed_to() {
    for desk in ABOVE {
        let mut world = World::new();
        press(&mut world, "c/s/a/n");
        climbs_unheard(&mut world, desk, 3, true);
        world.settle();
        for n in ABOVE {
            assert_eq!((calls(&world, n), held(&world, n).coming.len()), (1, 0), "accepted at {desk}: {n}");
            world.restart(n);
        }
    }
}

#[test]
fn those_who_were_called_already_are_called_again_if_whoever_was_to_come_since_then_is_refused() {
    for only_as_seen in [true, false] {
        let mut world = World::new();
        press(&mut world, "c/s/a/n");
        world.now += 3_600_000_000;
        without(&mut world, "c/s/a/n");
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [1; 3], "it should have climbed");
        climbs_unheard(&mut world, "c", 3, only_as_seen);
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [1; 3], "its box has not answered him yet");
        world.settle();
        let refused = usize::from(only_as_seen);
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [1 + refused; 3], "refused: {only_as_seen}");
    }
}

#[test]
fn a_press_climbs_in_time_above_the_node_whose_people_were_to_come_and_are_refused() {
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    climbs_unheard(&mut world, "c/s/a", 1, true);
    world.settle();
    assert_eq!(ABOVE.map(|n| calls(&world, n)), [1, 0, 0]);
    assert_eq!(ABOVE.map(|n| held(&world, n).coming.len()), [0; 3], "those above were told, too");
    for called in [[1, 1, 0], [1, 1, 1]] {
        world.now += 30_000_000;
        world.settle();
        assert_eq!(ABOVE.map(|n| calls(&world, n)), called);
    }
}

#[test]
fn a_press_whose_box_is_back_calls_nobody_a_second_time_because_it_climbs_at_last() {
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    world.now += 3_600_000_000;
    without(&mut world, "c/s/a/n");
    assert_eq!(ABOVE.map(|n| calls(&world, n)), [1, 1, 1], "it should have climbed");
    for _ in 0..3 {
        world.settle();
        world.now += 30_000_000;
    }
    world.settle();
    assert_eq!(held(&world, "c").case.escalated_to, Some(a("c")));
    assert_eq!(ABOVE.map(|n| calls(&world, n)), [1, 1, 1]);
    // Nor because somebody has said something of it meanwhile.
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    world.now += 3_600_000_000;
    without(&mut world, "c/s/a/n");
    assert!(world.ask("c/s/a/n", ID, Verb::Comment, &by("w", Role::Worker), ""));
    world.settle();
    assert_eq!(held(&world, "c/s/a").case.escalated_to, Some(a("c/s/a")));
    assert_eq!(ABOVE.map(|n| calls(&world, n)), [1, 1, 1]);
    // Somebody who asks for them is no climb.
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    world.now += 3_600_000_000;
    without(&mut world, "c/s/a/n");
    assert!(world.ask("c/s/a/n", ID, Verb::Escalate, &by("w", Role::Worker), ""));
    without(&mut world, "c/s/a/n");
    assert_eq!(calls(&world, "c/s/a"), 2);
}

#[test]
fn a_box_that_was_off_listens_before_it_calls_for_what_it_has_missed() {
    for is_word_on_its_way in [true, false] {
        let mut world = World::new();
        press(&mut world, "c/s/a/n");
        assert!(world.ask("c", ID, Verb::Accept, &by("市值班", Role::Worker), "w1"));
        if !is_word_on_its_way {
            world.lines.clear();
        }
        world.now += 3_600_000_000;
        world.commit("c/s", vec![presence("c/s", 1)], None);
        while world.due("c/s") {}
        assert_eq!(calls(&world, "c/s"), 0, "it has heard nothing yet");
        carry(&mut world, "c", "c/s");
        world.now += 10_000_000;
        while world.due("c/s") {}
        assert_eq!(calls(&world, "c/s"), usize::from(!is_word_on_its_way));
    }
}

#[test]
fn a_call_that_waits_for_the_answer_of_the_box_waits_one_step_however_often_that_climbs() {
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), "w1"));
    world.lines.clear();
    for called in [0, 1] {
        world.now += 30_000_000;
        while world.due("c/s/a/n") {}
        carry(&mut world, "c/s/a/n", "c/s/a");
        assert_eq!(calls(&world, "c/s/a"), called);
    }
}

#[test]
fn everybody_who_hears_that_somebody_comes_hears_when_he_said_so() {
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    assert!(world.ask("c", ID, Verb::Accept, &by("市长", Role::Worker), "w1"));
    let said = view::time_of(world.now);
    for (from, to) in [("c", "c/s"), ("c/s", "c/s/a")] {
        world.now += 20_000_000;
        carry(&mut world, from, to);
        assert_eq!(held(&world, to).coming[0].at, said, "{to}");
    }
    assert_eq!(held(&world, "c").coming[0].at, said);
}

#[test]
fn whoever_was_to_come_to_a_press_of_a_dead_box_takes_it_back_and_all_above_are_called() {
    for (at, who, role, ends) in [
        ("c/s", "街长", Role::Worker, true),
        ("c/s", "别人", Role::Worker, false),
        ("c/s", "值班长", Role::Supervisor, true),
        ("c", "市长", Role::Supervisor, true),
        ("c/s/a", "社区长", Role::Supervisor, false),
    ] {
        let mut world = World::new();
        press(&mut world, "c/s/a/n");
        let now = |world: &mut World, at: &str, verb: Verb, ask: &Ask, wish: &str| {
            assert!(world.ask(at, ID, verb, ask, wish), "{verb} at {at}");
            without(world, "c/s/a/n");
            world.now += 3_600_000_000;
            without(world, "c/s/a/n");
        };
        now(&mut world, "c/s", Verb::Accept, &by("街长", Role::Worker), "w1");
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [0; 3]);
        now(&mut world, at, Verb::Escalate, &by(who, role), "w2");
        let (called, coming) = if ends { (1, 0) } else { (0, 1) };
        for n in ABOVE {
            assert_eq!((calls(&world, n), held(&world, n).coming.len()), (called, coming), "{who}: {n}");
            world.restart(n);
        }
        if ends {
            // He can after all, and then he cannot: those who were called are called anew.
            now(&mut world, "c/s", Verb::Accept, &by("街长", Role::Worker), "w3");
            assert_eq!(ABOVE.map(|n| (calls(&world, n), held(&world, n).coming.len())), [(1, 1); 3], "{who}");
            now(&mut world, at, Verb::Escalate, &by(who, role), "w4");
            assert_eq!(ABOVE.map(|n| (calls(&world, n), held(&world, n).coming.len())), [(2, 0); 3], "{who}");
        }
        world.settle();
        assert_eq!(held(&world, "c").case, held(&world, "c/s/a/n").case);
    }
}

#[test]
fn whoever_takes_it_back_that_he_comes_to_a_press_that_has_climbed_has_all_called_anew() {
    for climbs in 0..=3 {
        for (at, who, role) in [("c/s", "街长", Role::Worker), ("c", "市长", Role::Supervisor)] {
            let mut world = World::new();
            press(&mut world, "c/s/a/n");
            for _ in 0..climbs {
                world.now += 30_000_000;
                world.settle();
            }
            let before = ABOVE.map(|n| calls(&world, n));
            assert_eq!(before.iter().sum::<usize>(), climbs);
            // The box burns.
            assert!(world.ask("c/s", ID, Verb::Accept, &by("街长", Role::Worker), "w1"));
            without(&mut world, "c/s/a/n");
            assert!(world.ask(at, ID, Verb::Escalate, &by(who, role), "w2"));
            without(&mut world, "c/s/a/n");
            assert_eq!(ABOVE.map(|n| calls(&world, n)), before.map(|n| n + 1), "at once, climbs: {climbs}, by {who}");
            ABOVE.iter().for_each(|n| world.restart(n));
            for _ in 0..4 {
                world.now += 30_000_000;
                without(&mut world, "c/s/a/n");
            }
            assert_eq!(ABOVE.map(|n| calls(&world, n)), before.map(|n| n + 1), "once, climbs: {climbs}, by {who}");
        }
    }
}

#[test]
fn whoever_takes_it_back_is_not_who_has_accepted_it_when_the_box_is_back() {
    for climbs in [0, 1, 3] {
        // One after the other, or in one frame.
        for is_apart in [true, false] {
            let mut world = World::new();
            press(&mut world, "c/s/a/n");
            for _ in 0..climbs {
                world.now += 30_000_000;
                world.settle();
            }
            assert!(world.ask("c/s", ID, Verb::Accept, &by("街长", Role::Worker), "w1"));
            without(&mut world, "c/s/a/n");
            assert!(world.ask("c/s", ID, Verb::Escalate, &by("街长", Role::Worker), "w2"));
            without(&mut world, "c/s/a/n");
            if is_apart {
                let line = world.lines.get_mut(&("c/s/a".to_owned(), "c/s/a/n".to_owned())).unwrap();
                for flying in std::mem::take(line) {
                    world.arrive("c/s/a/n", flying);
                    while world.due("c/s/a/n") {}
                }
            }
            let before = ABOVE.map(|n| calls(&world, n));
            for _ in 0..4 {
                world.settle();
                world.now += 30_000_000;
            }
            let case = held(&world, "c").case.clone();
            assert_eq!((case.status, &case.accepted_by, &case.signed), (Status::Submitted, &None, &None));
            assert!(case.clocks.iter().all(|c| c.name != RESPONSE || c.stopped.is_none()), "{:?}", case.clocks);
            assert_eq!(case.escalated_to, Some(a("c")), "it climbs on");
            for (n, before) in ABOVE.iter().zip(before) {
                assert_eq!(held(&world, n).case, held(&world, "c/s/a/n").case, "{n}");
                assert_eq!(held(&world, n).wishes.iter().filter(|w| w.refused.is_none()).count(), 0, "{n}");
                let was_accepted = is_apart && climbs == 3;
                assert!(calls(&world, n) > before || !was_accepted, "{n} stood down: {climbs}");
            }
            // He can after all, and then it is his.
            assert!(world.ask("c/s", ID, Verb::Accept, &by("街长", Role::Worker), "w3"));
            world.settle();
            assert_eq!(held(&world, "c").case.accepted_by.as_deref(), Some("街长"));
            // Somebody else asks for more people, and he comes all the same.
            assert!(climbs == 3 || world.ask("c/s", ID, Verb::Escalate, &by("别人", Role::Worker), "w4"));
            world.settle();
            assert_eq!(held(&world, "c").case.status, Status::Accepted);
        }
    }
}

#[test]
fn of_two_who_come_one_takes_it_back_and_the_other_is_who_has_accepted_it() {
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    assert!(world.ask("c/s", ID, Verb::Accept, &by("街长", Role::Worker), "w1"));
    assert!(world.ask("c", ID, Verb::Accept, &by("市长", Role::Worker), "w2"));
    without(&mut world, "c/s/a/n");
    assert!(world.ask("c/s", ID, Verb::Escalate, &by("街长", Role::Worker), "w3"));
    without(&mut world, "c/s/a/n");
    assert_eq!(ABOVE.map(|n| calls(&world, n)), [0; 3], "one still comes");
    let line = world.lines.get_mut(&("c/s/a".to_owned(), "c/s/a/n".to_owned())).unwrap();
    let frame = std::mem::take(line).into_iter().map(|flying| flying.draft).collect();
    world.commit("c/s/a/n", frame, Some("c/s/a"));
    world.settle();
    assert_eq!(held(&world, "c").case.accepted_by.as_deref(), Some("市长"));
    assert!(held(&world, "c").wishes.is_empty(), "{:?}", held(&world, "c").wishes);
    let why = held(&world, "c/s").wishes[0].refused.clone().unwrap_or_default();
    assert!(why.contains("does not come"), "{why}");
}

#[test]
fn a_press_that_has_climbed_calls_those_who_know_it_anew_if_its_box_refuses_whoever_was_to_come() {
    for desk in ABOVE {
        let mut world = World::new();
        press(&mut world, "c/s/a/n");
        for _ in 0..2 {
            world.now += 30_000_000;
            world.settle();
        }
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [1, 1, 0]);
        climbs_unheard(&mut world, desk, 0, true);
        assert!(world.ask("c/s/a/n", ID, Verb::Comment, &by("w", Role::Worker), ""));
        world.settle();
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [2, 2, 0], "accepted at {desk}");
    }
}

#[test]
fn a_wish_that_may_be_lost_with_a_disk_on_its_way_is_refused_and_can_be_asked_for_again() {
    let mut world = World::new();
    world.has_registry = true;
    world.open("c/s/a/n", opening(ID, "L"), Contact::default());
    world.settle();
    assert!(world.ask("c/s", ID, Verb::Accept, &by("w", Role::Worker), "w1"));
    carry(&mut world, "c/s", "c/s/a");
    world.lines.clear();
    let refused = |world: &World| held(world, "c/s").wishes.iter().map(|w| w.refused.clone()).collect::<Vec<_>>();
    world.commit("c/s", vec![presence("c/s/a", 1)], Some("c/s/a"));
    world.settle();
    assert_eq!(refused(&world), [None], "it is the box that was there");
    world.commit("c/s", vec![presence("c/s/a", 2)], Some("c/s/a"));
    world.settle();
    let why = refused(&world)[0].clone().unwrap_or_default();
    assert!(why.starts_with("it has not come to c/s/a/n, and was not done"), "{why}");
    assert!(world.ask("c/s", ID, Verb::Accept, &by("w", Role::Worker), "w2"));
    world.settle();
    assert_eq!((held(&world, "c/s").case.status, held(&world, "c/s").wishes.len()), (Status::Accepted, 0));
}

#[test]
fn a_wish_whose_letter_or_answer_was_lost_is_asked_for_again_and_done_once() {
    for verb in [Verb::Comment, Verb::Start] {
        for lost in [("c/s", "c/s/a"), ("c/s", "c/s/b")] {
            let mut world = World::new();
            world.open("c/s/b", opening(ID, "L"), Contact::default());
            assert!(world.ask("c/s/b", ID, Verb::Accept, &by("w", Role::Worker), ""));
            assert!(world.ask("c/s/b", ID, Verb::Dispatch, &Ask { to: Some(a("c/s/a")), ..by("w", Role::Worker) }, ""));
            world.settle();
            let ask = by("h", Role::Worker);
            assert!(world.ask("c/s/b", ID, verb, &ask, "w1"));
            for (from, to) in [("c/s/b", "c/s"), ("c/s", "c/s/a"), ("c/s/a", "c/s"), ("c/s", "c/s/b")] {
                if (from, to) == lost {
                    world.lines.clear();
                }
                carry(&mut world, from, to);
            }
            assert_eq!(held(&world, "c/s/b").wishes.len(), 1, "{verb}: {lost:?}");
            assert!(world.ask("c/s/b", ID, verb, &ask, "w2"));
            world.settle();
            let done = held(&world, "c/s/a").history.iter().filter(|e| e.step == verb.done()).count();
            assert_eq!((done, held(&world, "c/s/b").wishes.len()), (1, 0), "{verb}: {lost:?}");
        }
    }
}

#[test]
fn a_missed_limit_leaves_the_work_where_it_is_until_the_tier_above_takes_it() {
    let mut world = World::new();
    for place in world.places.values_mut() {
        place.cases.settings.missed = citybrain_shared::config::cases::Missed::HandOver;
    }
    let (_, drafts) = world.places["c/s/a"].cases.open(opening(ID, "G"), Contact::default(), START);
    world.commit("c/s/a", drafts, None);
    world.settle();
    world.now += 3 * 3_600_000_000;
    without(&mut world, "c/s");
    let case = &held(&world, "c/s/a").case;
    assert_eq!((case.offered_to.as_ref(), &case.handing_to), (Some(&a("c/s")), &None));
    assert!(case.standing().contains("offered to c/s") && case.clock("response").unwrap().missed.is_some());
    // The street is dead: here they go on.
    for (verb, who) in [(Verb::Accept, "w"), (Verb::Dispatch, "w"), (Verb::Start, "h")] {
        assert!(world.ask("c/s/a", ID, verb, &by(who, Role::Worker), ""), "{verb}");
    }
    world.settle();
    let case = &held(&world, "c").case;
    assert_eq!((&case.owner, case.status, &case.offered_to), (&a("c/s"), Status::Handling, &None));
    assert_eq!(case.escalations, 1);
    assert_eq!(calls(&world, "c/s"), 1);
}

#[test]
fn a_case_that_is_handed_up_is_worked_on_until_the_tier_above_takes_it() {
    for is_resolved in [true, false] {
        let mut world = offered();
        let case = &held(&world, "c/s/a").case;
        assert_eq!(case.standing(), "handling (offered to c/s, escalated)");
        if is_resolved {
            assert!(world.ask("c/s/a", ID, Verb::Resolve, &by("h", Role::Worker), ""));
        }
        world.settle();
        world.restart("c/s");
        world.settle();
        let case = &held(&world, "c").case;
        let is_taken = |e: &&Entry| e.step == "taken";
        assert_eq!(held(&world, "c").history.iter().filter(is_taken).count(), usize::from(!is_resolved));
        let (owner, status) = if is_resolved { ("c/s/a", Status::Resolved) } else { ("c/s", Status::Handling) };
        assert_eq!((&case.owner, case.status, &case.offered_to), (&a(owner), status, &None));
        assert_eq!((case.escalations, calls(&world, "c/s"), calls(&world, "c")), (1, usize::from(!is_resolved), 0));
        // What a node does by itself is no worker's doing.
        let by_timer = |e: &&Entry| e.by == machine::TIMER;
        assert!(held(&world, "c").history.iter().filter(by_timer).all(|e| e.role.is_none()));
    }
}

/// A case of `c/s/a` that is being worked on there and is offered to the street, which has not heard of that yet.
fn offered() -> World {
    let mut world = World::new();
    world.open("c/s/a", opening(ID, "G"), Contact::default());
    for (verb, who) in [(Verb::Accept, "w"), (Verb::Dispatch, "w"), (Verb::Start, "h")] {
        assert!(world.ask("c/s/a", ID, verb, &by(who, Role::Worker), ""), "{verb}");
    }
    world.settle();
    assert!(world.ask("c/s/a", ID, Verb::Escalate, &Ask { hand_over: true, ..by("h", Role::Worker) }, ""));
    world
}

#[test]
fn an_offer_that_is_taken_back_leaves_the_case_where_it_is_and_calls_nobody() {
    let mut world = offered();
    let case = |world: &World| held(world, "c/s/a").case.clone();
    assert!(allowed(&case(&world)).contains(&Verb::Recall));
    assert!(world.ask("c/s/a", ID, Verb::Recall, &by("w", Role::Worker), ""));
    assert_eq!((case(&world).offered_to, case(&world).handing_to), (None, None));
    let line = held(&world, "c/s/a").history.last().unwrap();
    assert_eq!((line.step.as_str(), line.to.as_deref()), ("recalled", Some("the offer to c/s")));
    assert!(!world.ask("c/s/a", ID, Verb::Recall, &by("w", Role::Worker), ""), "once");
    world.settle();
    world.restart("c/s");
    world.settle();
    assert_eq!((&held(&world, "c").case.owner, held(&world, "c").case.status), (&a("c/s/a"), Status::Handling));
    assert_eq!((calls(&world, "c/s"), calls(&world, "c")), (0, 0));
    // Offered again it is taken.
    assert!(world.ask("c/s/a", ID, Verb::Escalate, &Ask { hand_over: true, ..by("h", Role::Worker) }, ""));
    world.settle();
    assert_eq!((&held(&world, "c").case.owner, calls(&world, "c/s")), (&a("c/s"), 1));
}

#[test]
fn an_offer_is_taken_back_from_above_too_and_whoever_asks_is_told_whether_it_was() {
    for is_taken in [false, true] {
        let mut world = offered();
        // The city knows of the offer before the street does.
        let step = world.lines[&("c/s/a".to_owned(), "c/s".to_owned())].last().unwrap().draft.clone();
        world.arrive("c", Flying { origin: "c/s/a".into(), draft: step });
        assert!(world.ask("c", ID, Verb::Recall, &by("市", Role::Supervisor), "r1"));
        let recall = std::mem::take(world.lines.get_mut(&("c".to_owned(), "c/s".to_owned())).unwrap());
        if is_taken {
            world.settle();
        } else {
            // What else the owner says ends no wish.
            assert!(world.ask("c/s/a", ID, Verb::Comment, &by("w", Role::Worker), ""));
            let comment = world.lines[&("c/s/a".to_owned(), "c/s".to_owned())].last().unwrap().draft.clone();
            world.arrive("c", Flying { origin: "c/s/a".into(), draft: comment });
            assert_eq!(held(&world, "c").wishes.len(), 1);
        }
        recall.into_iter().for_each(|flying| world.arrive("c/s", flying));
        world.settle();
        let answers: Vec<_> = held(&world, "c").wishes.iter().map(|w| w.refused.is_some()).collect();
        let (owner, wanted) = if is_taken { ("c/s", vec![true]) } else { ("c/s/a", Vec::new()) };
        assert!(world.places[owner].cases.may_step(ID), "{owner}");
        assert_eq!((answers, &held(&world, "c").case.offered_to), (wanted, &None));
    }
}

#[test]
fn an_offer_of_what_is_dealt_with_by_the_time_that_it_is_heard_of_calls_nobody() {
    for (ends, called) in [(Some(Verb::Resolve), 0), (None, 1)] {
        let mut world = offered();
        if let Some(verb) = ends {
            assert!(world.ask("c/s/a", ID, verb, &by("h", Role::Worker), ""));
        }
        world.settle();
        assert_eq!((calls(&world, "c/s"), calls(&world, "c")), (called, 0), "{ends:?}");
    }
}

#[test]
fn whoever_offers_a_case_and_does_not_answer_is_waited_for_no_longer_than_a_moment() {
    for (urgent, called) in [(false, 0), (true, 1)] {
        let mut world = World::new();
        world.open("c/s/a", Opening { sos: urgent, ..opening(ID, "G") }, Contact::default());
        world.settle();
        assert!(world.ask("c/s/a", ID, Verb::Escalate, &Ask { hand_over: true, ..by("h", Role::Worker) }, ""));
        // Its box is dead from then on.
        without(&mut world, "c/s/a");
        assert_eq!(calls(&world, "c/s"), called);
        world.restart("c/s");
        world.now += LISTENS_US - 1;
        without(&mut world, "c/s/a");
        assert_eq!(calls(&world, "c/s"), called);
        world.now += 1;
        without(&mut world, "c/s/a");
        assert_eq!(calls(&world, "c/s"), 1);
    }
}

#[test]
fn what_was_dealt_with_before_the_tier_above_has_heard_of_it_stays() {
    let mut world = World::new();
    for place in world.places.values_mut() {
        place.cases.settings.missed = citybrain_shared::config::cases::Missed::HandOver;
    }
    let (_, drafts) = world.places["c/s/a"].cases.open(opening(ID, "G"), Contact::default(), START);
    world.commit("c/s/a", drafts, None);
    world.now += 3 * 3_600_000_000;
    without(&mut world, "c/s");
    for (verb, who) in [(Verb::Accept, "w"), (Verb::Dispatch, "w"), (Verb::Start, "h"), (Verb::Resolve, "h")] {
        assert!(world.ask("c/s/a", ID, verb, &by(who, Role::Worker), ""), "{verb}");
    }
    world.settle();
    let at_street = held(&world, "c/s");
    assert_eq!((&at_street.case.owner, at_street.case.status), (&a("c/s/a"), Status::Resolved));
    assert!(at_street.wishes.is_empty(), "what a node does by itself is nobody's wish");
}

#[test]
fn a_person_is_forgotten_at_once_where_he_is_known_also_while_the_case_is_on_its_way() {
    for back in [false, true] {
        let mut world = World::new();
        world.has_registry = true;
        let new = Opening { has_contact: true, ..opening(ID, "L") };
        let phone = Contact { phone: "139".into(), ..Contact::default() };
        let (_, drafts) = world.places["c/s/a"].cases.open(new, phone, START);
        world.commit("c/s/a", drafts, None);
        assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
        assert!(world.ask("c/s/a", ID, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
        without(&mut world, "c/s/b");
        assert!(held(&world, "c/s/a").contact.is_some());
        assert!(!world.ask("c/s/a", ID, Verb::Forget, &by("w", Role::Worker), "f0"), "not for a worker");
        assert!(world.ask("c/s/a", ID, Verb::Forget, &by("boss", Role::Supervisor), "f"));
        assert!(held(&world, "c/s/a").contact.is_none() && held(&world, "c/s/a").is_forgotten());
        world.restart("c/s/a");
        if back {
            // It comes back from a box that has never been: nobody there was asked.
            let lines = std::mem::take(&mut world.lines);
            drop(lines);
            let why = Ask { text: Some("wrong".into()), ..by("w", Role::Worker) };
            assert!(world.ask("c/s/a", ID, Verb::Recall, &why, "r"));
        }
        world.settle();
        for n in NODES {
            let Some(held) = world.places[n].cases.get(ID) else { continue };
            // Who has never had it hears nothing of it, and has nothing.
            let never = back && n == "c/s/b";
            assert!(held.contact.is_none() && held.to_forget.is_none() && (held.case.forgotten || never), "{n} {back}");
            assert!(held.wishes.iter().all(|w| w.verb != Verb::Forget));
        }
    }
}

#[test]
fn records_about_a_person_who_is_forgotten_are_known_and_others_are_not() {
    let mut world = World::new();
    let event = |id: &str, phone: &str| {
        let event = serde_json::json!({"specversion": "1.0", "id": id, "source": "/btn", "subject": "7", "type": "city.sos.pressed.v1",
            "data": {"phone": phone}});
        let header = Header {
            lane: Lane::Urgent,
            ..Header::local(citybrain_shared::record::Kind::Event, "city.sos.pressed.v1")
        };
        Draft::new(&header, event.to_string().as_bytes()).unwrap()
    };
    let hear = |world: &mut World, id: &str, phone: &str| {
        let mut draft = event(id, phone);
        draft.stamp(world.now, 0);
        world.commit("c/s/a/n", vec![draft.clone()], None);
        world.settle();
        world.now += 1_000_000;
        draft
    };
    let first = hear(&mut world, "1", "139");
    let again = hear(&mut world, "2", "138");
    let id = world.places["c/s/a/n"].cases.iter().next().unwrap().case.id.clone();
    let is = |world: &World, draft: &Draft| {
        with_origin(draft, None, |h, p| {
            let h = Header { received_us: START, ..*h };
            world.places["c/s/a/n"].cases.is_forgotten(&h, p)
        })
    };
    assert!(!is(&world, &first));
    assert!(world.ask("c/s/a/n", &id, Verb::Withdraw, &by("boss", Role::Supervisor), ""));
    assert!(world.ask("c/s/a/n", &id, Verb::Forget, &by("boss", Role::Supervisor), ""));
    world.settle();
    assert!(is(&world, &first) && is(&world, &again), "the press, and the one after it");
    for (origin, draft) in &world.places["c/s/a/n"].log {
        let names = [letter::LETTER, letter::CONTACT].contains(&draft.header().name);
        assert!(
            !names || with_origin(draft, origin.as_deref(), |h, p| world.places["c/s/a/n"].cases.is_forgotten(h, p))
        );
    }
    // The same button, later: another matter, and somebody else perhaps.
    world.now += 3_600_000_000;
    let later = hear(&mut world, "3", "137");
    let later_came = world.now;
    let is_later = with_origin(&later, None, |h, p| {
        world.places["c/s/a/n"].cases.is_forgotten(&Header { received_us: later_came, ..*h }, p)
    });
    assert!(!is_later);
}

/// A box that was cut off for hours: all that it has to say comes in one frame, at each node on the way.
fn comes_back_at_once(world: &mut World, is_killed: bool) {
    for (from, to) in [("c/s/a/n", "c/s/a"), ("c/s/a", "c/s"), ("c/s", "c")] {
        let line = world.lines.get_mut(&(from.to_owned(), to.to_owned())).map(std::mem::take).unwrap_or_default();
        let (theirs, own): (Vec<Flying>, Vec<Flying>) = line.into_iter().partition(|f| f.origin == "c/s/a/n");
        world.commit(to, theirs.into_iter().map(|f| f.draft).collect(), Some("c/s/a/n"));
        if is_killed {
            world.restart(to);
        }
        own.into_iter().for_each(|flying| world.arrive(to, flying));
    }
    world.settle();
}

#[test]
fn a_box_that_comes_back_calls_nobody_for_what_is_over_and_everybody_for_what_is_not() {
    for is_killed in [false, true] {
        for (steps, called) in [
            (&[][..], 1),
            (&[(Verb::Accept, "w")][..], 0),
            (&[(Verb::Accept, "w"), (Verb::Reject, "w")][..], 0),
            // Whoever asked for the one above wants it to hear of that, whatever was done since.
            (&[(Verb::Accept, "w"), (Verb::Escalate, "x"), (Verb::Dispatch, "w"), (Verb::Start, "h")][..], 1),
        ] {
            let mut world = World::new();
            let new = Opening { sos: true, ..opening(ID, "") };
            let (_, drafts) = world.places["c/s/a/n"].cases.open(new, Contact::default(), world.now);
            world.commit("c/s/a/n", drafts, None);
            let urged = steps.iter().any(|(verb, _)| *verb == Verb::Escalate);
            let climbs = if urged { 1 } else { 3 };
            for _ in 0..climbs {
                world.now += 30_000_000;
                while world.due("c/s/a/n") {}
            }
            assert_eq!(held(&world, "c/s/a/n").case.escalations, climbs);
            for (verb, who) in steps {
                assert!(world.ask("c/s/a/n", ID, *verb, &by(who, Role::Worker), ""), "{verb}");
            }
            world.now += 4 * 3_600_000_000;
            comes_back_at_once(&mut world, is_killed);
            let expected = if urged { [0, called, 0] } else { [called; 3] };
            assert_eq!(["c/s/a", "c/s", "c"].map(|n| calls(&world, n)), expected, "{steps:?}, killed: {is_killed}");
            assert_eq!(held(&world, "c").case, held(&world, "c/s/a/n").case);
        }
    }
}

#[test]
fn a_person_is_forgotten_by_nobody_without_a_name_and_such_a_wish_does_not_come_up_for_ever() {
    let mut world = World::new();
    let new = Opening { has_contact: true, ..opening(ID, "L") };
    world.open("c/s/a", new, Contact { phone: "139".into(), ..Contact::default() });
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s/a", ID, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    let no_name = by("\u{1}", Role::Supervisor);
    let refused = world.places["c/s/a"].cases.ask(ID, Verb::Forget, &no_name, "f", world.now).unwrap_err();
    assert_eq!(refused.error, "missing");
    // One that is in the log all the same, from before this was asked.
    let pen = Pen { me: &a("c/s/a"), now: view::time_of(world.now) };
    let data = serde_json::json!({"case": ID, "by": "\u{1}"});
    world.commit("c/s/a", vec![pen.local(letter::FORGET, "f", ID, data)], None);
    assert!(held(&world, "c/s/a").is_forgotten());
    let why = by("w", Role::Worker);
    assert!(world.ask("c/s/a", ID, Verb::Recall, &why, "r"));
    world.settle();
    assert_eq!((held(&world, "c/s/a").case.forgotten, held(&world, "c").case.forgotten), (true, true));
    assert_eq!(held(&world, "c").history.last().unwrap().by, "supervisor");
    assert!(!world.due("c/s/a"));
}

/// The press and who has accepted it are the same at all who know it, and so often each of these was called.
fn stands(world: &World, status: Status, called: [usize; 4], told: &str) {
    let all = ["c/s/a/n", "c/s/a", "c/s", "c"];
    for n in all {
        assert_eq!((held(world, n).case.status, held(world, n).coming.len()), (status, 0), "{told}: {n}");
        assert_eq!(held(world, n).case.accepted_by.is_some(), status == Status::Accepted, "{told}: {n}");
    }
    assert_eq!(all.map(|n| calls(world, n)), called, "{told}");
}

#[test]
fn whoever_has_accepted_a_press_and_cannot_come_has_those_called_anew_who_know_it_and_it_climbs_on() {
    let hand_over = |who, role| Ask { hand_over: true, ..by(who, role) };
    for (desk, at, ask, ends) in [
        ("c/s/a/n", "c/s/a/n", by("王队", Role::Worker), true),
        ("c/s/a", "c/s/a", by("王队", Role::Worker), true),
        ("c", "c", by("王 队", Role::Worker), true),
        // At another node than where he has accepted it.
        ("c/s/a/n", "c", by("王队", Role::Worker), true),
        ("c/s", "c/s/a/n", by("王队", Role::Supervisor), true),
        ("c/s/a/n", "c/s/a/n", by("值班长", Role::Supervisor), true),
        ("c/s/a", "c", by("值班长", Role::Supervisor), true),
        // Those are no word of his, nor of anybody who may say it for him.
        ("c/s", "c/s/a", by("值班长", Role::Supervisor), false),
        ("c/s/a", "c/s/a", by("别人", Role::Worker), false),
        ("c/s/a", "c/s/a", hand_over("王队", Role::Worker), false),
    ] {
        let told = format!("accepted at {desk}, {} at {at}", ask.by);
        let mut world = World::new();
        press(&mut world, "c/s/a/n");
        assert!(world.ask(desk, ID, Verb::Accept, &by("王队", Role::Worker), "w1"));
        world.settle();
        stands(&world, Status::Accepted, [1, 0, 0, 0], &told);
        assert!(world.ask(at, ID, Verb::Escalate, &ask, "w2"), "{told}");
        world.settle();
        if !ends {
            assert_eq!(held(&world, "c").case.accepted_by.as_deref(), Some("王队"), "{told}");
            continue;
        }
        stands(&world, Status::Submitted, [2, 1, 0, 0], &told);
        let case = &held(&world, "c").case;
        assert!([CLIMB, RESPONSE].iter().all(|name| case.clock(name).is_none_or(Clock::runs)), "{:?}", case.clocks);
        for called in [[2, 1, 1, 0], [2, 1, 1, 1], [2, 1, 1, 1]] {
            world.now += 30_000_000;
            world.settle();
            stands(&world, Status::Submitted, called, &told);
        }
        assert!(world.ask("c", ID, Verb::Accept, &by("赵队", Role::Worker), "w3"), "{told}");
        world.settle();
        assert_eq!(held(&world, "c/s/a/n").case.accepted_by.as_deref(), Some("赵队"), "{told}");
    }
}

#[test]
fn whoever_has_accepted_a_press_that_has_climbed_and_cannot_come_has_all_below_called_anew_too() {
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    for _ in 0..2 {
        world.now += 30_000_000;
        world.settle();
    }
    assert!(world.ask("c/s", ID, Verb::Accept, &by("街长", Role::Worker), "w1"));
    world.settle();
    stands(&world, Status::Accepted, [1, 1, 1, 0], "accepted");
    assert!(world.ask("c/s", ID, Verb::Escalate, &by("街长", Role::Worker), "w2"));
    world.settle();
    stands(&world, Status::Submitted, [2, 2, 2, 1], "he cannot come");
    ABOVE.iter().for_each(|n| world.restart(n));
    world.now += 3_600_000_000;
    world.settle();
    stands(&world, Status::Submitted, [2, 2, 2, 1], "once");
}

/// The box has answered whoever accepts the press at that desk, and is dead from then on.
fn accepted_and_dead(desk: &str, climbs: usize) -> World {
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    for _ in 0..climbs {
        world.now += 30_000_000;
        world.settle();
    }
    assert!(world.ask(desk, ID, Verb::Accept, &by("王队", Role::Worker), "w1"));
    world.settle();
    assert_eq!(held(&world, "c").case.accepted_by.as_deref(), Some("王队"));
    world
}

#[test]
fn whoever_has_accepted_a_press_whose_box_is_dead_and_cannot_come_has_all_above_called_once() {
    for (desk, at, who, role, ends) in [
        ("c/s/a", "c/s/a", "王队", Role::Worker, true),
        ("c/s", "c/s", "王队", Role::Worker, true),
        ("c", "c/s/a", "王队", Role::Worker, true),
        ("c/s/a", "c", "王队", Role::Worker, true),
        ("c/s/a/n", "c/s", "王队", Role::Worker, true),
        ("c/s/a/n", "c", "市长", Role::Supervisor, true),
        ("c/s", "c/s/a", "社区长", Role::Supervisor, false),
        ("c/s", "c/s", "别人", Role::Worker, false),
    ] {
        for climbs in [0, 2, 3] {
            let told = format!("accepted at {desk}, {who} at {at}, climbs: {climbs}");
            let mut world = accepted_and_dead(desk, climbs);
            let before = ABOVE.map(|n| calls(&world, n));
            world.now += 3_600_000_000;
            without(&mut world, "c/s/a/n");
            assert_eq!(ABOVE.map(|n| calls(&world, n)), before, "{told}");
            assert!(world.ask(at, ID, Verb::Escalate, &by(who, role), "w2"), "{told}");
            without(&mut world, "c/s/a/n");
            assert_eq!(ABOVE.map(|n| calls(&world, n)), before, "a box that lives has a moment to answer: {told}");
            ABOVE.iter().for_each(|n| world.restart(n));
            world.now += LISTENS_US;
            without(&mut world, "c/s/a/n");
            let called = before.map(|n| n + usize::from(ends));
            assert_eq!(ABOVE.map(|n| calls(&world, n)), called, "{told}");
            assert_eq!(world.places["c"].cases.calls_for_help().unaccepted, u64::from(ends), "{told}");
            ABOVE.iter().for_each(|n| world.restart(n));
            world.now += 3_600_000_000;
            without(&mut world, "c/s/a/n");
            assert_eq!(ABOVE.map(|n| calls(&world, n)), called, "once: {told}");
            // The box is back.
            for _ in 0..4 {
                world.settle();
                world.now += 30_000_000;
            }
            let case = &held(&world, "c").case;
            assert_eq!(case.status, if ends { Status::Submitted } else { Status::Accepted }, "{told}");
            for n in ABOVE {
                assert_eq!(held(&world, n).case, held(&world, "c/s/a/n").case, "{told}: {n}");
            }
            if ends {
                assert_eq!(ABOVE.map(|n| calls(&world, n)), called, "nobody a second time: {told}");
                assert!(world.ask("c", ID, Verb::Accept, &by("赵队", Role::Worker), "w3"), "{told}");
                world.settle();
                assert_eq!(held(&world, "c/s/a/n").case.accepted_by.as_deref(), Some("赵队"), "{told}");
            }
        }
    }
}

#[test]
fn whoever_asks_above_is_told_that_the_one_who_has_accepted_a_press_does_not_come_until_its_box_says_so() {
    for (at, who, role) in [("c/s", "王队", Role::Worker), ("c", "市长", Role::Supervisor)] {
        let mut world = World::new();
        world.open("c/s/a/n", Opening { sos: true, ..opening(ID, "G") }, Contact::default());
        world.settle();
        assert!(world.ask("c/s", ID, Verb::Accept, &by("王队", Role::Worker), "w1"));
        world.settle();
        for n in ABOVE {
            let held = held(&world, n);
            assert_eq!((held.not_coming(), held.as_known().status), (None, Status::Accepted), "{n}");
        }
        world.now += 60_000_000;
        let said_us = world.now;
        assert!(world.ask(at, ID, Verb::Escalate, &by(who, role), "w2"));
        without(&mut world, "c/s/a/n");
        let said = Denial { by: who.into(), node: a(at), at: view::time_of(said_us), wish: "w2".into() };
        for n in ABOVE {
            world.restart(n);
            let held = held(&world, n);
            assert_eq!((held.not_coming(), held.case.status), (Some(&said), Status::Accepted), "{n}");
            let known = held.as_known();
            let (clock, due) = known.due().unwrap();
            assert_eq!((known.status, clock.name.as_str()), (Status::Submitted, RESPONSE), "{n}");
            let after = due + chrono::TimeDelta::seconds(1);
            assert_eq!([due, after].map(|at| world.places[n].cases.overdue(at)), [0, 1], "{n}");
            let takes = |verb| world.places[n].cases.allowed(held, None, due).contains(&verb);
            assert!(takes(Verb::Accept) && !takes(Verb::Return), "{n}");
            let question = supervision::Question { scope: Scope::default(), again: 2, limit: 2, shown: true };
            let mut watching = supervision::Watching::new(question, after);
            watching.add(&world.places[n].cases, held);
            let told = watching.ranked().told(&world.places[n].cases);
            assert_eq!((told.overdue_in_all, told.not_coming.get(ID)), (1, Some(&said)), "{n}");
        }
        // The box is back.
        world.settle();
        for n in ABOVE {
            let held = held(&world, n);
            assert_eq!((held.not_coming(), held.case.status), (None, Status::Submitted), "{n}");
        }
    }
}

#[test]
fn whoever_comes_in_place_of_one_who_cannot_is_known_above_though_the_box_is_dead() {
    let mut world = accepted_and_dead("c/s", 0);
    assert!(world.ask("c/s", ID, Verb::Escalate, &by("王队", Role::Worker), "w2"));
    without(&mut world, "c/s/a/n");
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("赵队", Role::Worker), "w3"));
    without(&mut world, "c/s/a/n");
    world.now += 3_600_000_000;
    without(&mut world, "c/s/a/n");
    for n in ABOVE {
        let who: Vec<_> = held(&world, n).coming.iter().map(|c| c.by.as_str()).collect();
        assert_eq!((calls(&world, n), who), (0, vec!["赵队"]), "{n}");
    }
    assert!(world.ask("c/s/a", ID, Verb::Escalate, &by("赵队", Role::Worker), "w4"));
    without(&mut world, "c/s/a/n");
    world.now += LISTENS_US;
    without(&mut world, "c/s/a/n");
    assert_eq!(ABOVE.map(|n| calls(&world, n)), [1; 3], "he cannot, either");
}

#[test]
fn whoever_comes_in_place_of_one_who_cannot_has_nobody_above_called_again_when_the_box_is_back_unless_it_refuses_him() {
    for at in ABOVE {
        for is_refused in [false, true] {
            let told = format!("at {at}, refused: {is_refused}");
            let mut world = accepted_and_dead("c/s", 0);
            let seen = is_refused.then(|| held(&world, at).case.stamp()).into_iter().collect();
            assert!(world.ask("c/s", ID, Verb::Escalate, &by("王队", Role::Worker), "w2"), "{told}");
            without(&mut world, "c/s/a/n");
            world.now += LISTENS_US;
            without(&mut world, "c/s/a/n");
            assert_eq!(ABOVE.map(|n| calls(&world, n)), [1; 3], "{told}");
            assert!(world.ask(at, ID, Verb::Accept, &Ask { seen, ..by("赵队", Role::Worker) }, "w3"), "{told}");
            without(&mut world, "c/s/a/n");
            ABOVE.iter().for_each(|n| world.restart(n));
            world.settle();
            assert_eq!(ABOVE.map(|n| calls(&world, n)), [1 + usize::from(is_refused); 3], "{told}");
            let by = held(&world, "c").case.accepted_by.as_deref();
            assert_eq!(by, (!is_refused).then_some("赵队"), "{told}");
        }
    }
}

#[test]
fn a_call_for_help_that_is_reopened_calls_its_owner_and_climbs_until_somebody_accepts_it() {
    for urgent in [true, false] {
        let mut world = World::new();
        let new = Opening { sos: urgent, ..opening(ID, "") };
        let (_, drafts) = world.places["c/s/a/n"].cases.open(new, Contact::default(), world.now);
        world.commit("c/s/a/n", drafts, None);
        let solved = |who, role| Ask { solved: Some(Solved::Solved), ..by(who, role) };
        for (verb, ask) in [
            (Verb::Accept, by("w", Role::Worker)),
            (Verb::Dispatch, by("w", Role::Worker)),
            (Verb::Start, by("w", Role::Worker)),
            (Verb::Resolve, by("w", Role::Worker)),
            (Verb::Evaluate, solved("r", Role::Resident)),
            (Verb::Close, by("boss", Role::Supervisor)),
        ] {
            assert!(world.ask("c/s/a/n", ID, verb, &ask, ""), "{verb}");
        }
        world.settle();
        let before = calls(&world, "c/s/a/n");
        assert!(world.ask("c/s/a/n", ID, Verb::Reopen, &by("r", Role::Resident), ""));
        world.settle();
        if !urgent {
            assert_eq!((held(&world, "c").case.status, calls(&world, "c/s/a/n")), (Status::Accepted, before));
            continue;
        }
        for called in [[2, 0, 0, 0], [2, 1, 0, 0], [2, 1, 1, 0], [2, 1, 1, 1], [2, 1, 1, 1]] {
            stands(&world, Status::Submitted, called, "reopened");
            world.now += 30_000_000;
            world.settle();
        }
        assert!(world.ask("c", ID, Verb::Accept, &by("市长", Role::Worker), "w1"));
        world.settle();
        stands(&world, Status::Accepted, [2, 1, 1, 1], "accepted anew");
        assert!(held(&world, "c").case.clocks.iter().all(|c| c.name != CLIMB || !c.runs()));
    }
}

#[test]
fn a_call_for_help_that_comes_back_calls_whoever_has_it_again() {
    let mut world = World::new();
    world.has_registry = true;
    press(&mut world, "c/s/a");
    let sends = |world: &mut World, to: &str| {
        assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
        assert!(world.ask("c/s/a", ID, Verb::Dispatch, &Ask { to: Some(a(to)), ..by("w", Role::Worker) }, ""));
        world.settle();
    };
    let stands = |world: &World, status: Status, called: [usize; 3], told: &str| {
        let case = &held(world, "c/s/a").case;
        assert_eq!((case.owner.as_str(), case.handing_to.as_ref(), case.status), ("c/s/a", None, status), "{told}");
        assert_eq!(case.accepted_by.is_some(), status == Status::Accepted, "{told}");
        assert_eq!(["c/s/a", "c/s", "c"].map(|n| calls(world, n)), called, "{told}");
        assert_eq!(calls(world, "c/s/b"), 0, "{told}");
    };
    // Nobody hears the first call: it climbs, whoever has accepted it before.
    let climbs = |world: &mut World, [own, street, city]: [usize; 3], told: &str| {
        stands(world, Status::Submitted, [own, street, city], told);
        world.restart("c/s/a");
        for called in [[own, street + 1, city], [own, street + 1, city + 1], [own, street + 1, city + 1]] {
            world.now += 30_000_000;
            world.settle();
            stands(world, Status::Submitted, called, told);
        }
    };
    stands(&world, Status::Submitted, [1, 0, 0], "pressed");
    sends(&mut world, "c/s/b");
    assert!(world.ask("c/s/b", ID, Verb::Return, &by("x", Role::Worker), ""));
    world.settle();
    climbs(&mut world, [2, 0, 0], "returned by another node");
    sends(&mut world, "c/s/a");
    assert!(world.ask("c/s/a", ID, Verb::Return, &by("x", Role::Worker), ""));
    world.settle();
    climbs(&mut world, [3, 1, 1], "returned by a unit of its own");
    sends(&mut world, "c/s/z");
    climbs(&mut world, [4, 2, 2], "from a node that never was");
    // Whoever asks for it back knows that he has it.
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s/a", ID, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    assert!(world.ask("c/s/a", ID, Verb::Recall, &by("w", Role::Worker), "r"));
    world.settle();
    world.now += 3_600_000_000;
    world.settle();
    stands(&world, Status::Accepted, [4, 3, 3], "asked for");
}

/// A press that was accepted at that desk, and closed; its box is dead from then on.
fn closed_and_dead(desk: &str) -> World {
    let mut world = accepted_and_dead(desk, 0);
    for (verb, ask) in until_closed("王队") {
        assert!(world.ask("c/s/a/n", ID, verb, &ask, ""), "{verb}");
    }
    world.settle();
    world
}

#[test]
fn a_press_that_is_reopened_above_while_its_box_is_dead_calls_all_above_once_and_goes_on_when_the_box_is_back() {
    for (at, who, role, calls_all) in [
        ("c/s/a", "王大妈", Role::Resident, true),
        ("c", "王大妈", Role::Resident, true),
        ("c/s", "街长", Role::Supervisor, true),
        ("c/s", "街长", Role::Worker, false),
    ] {
        for is_accepted in [false, true] {
            let told = format!("by {role} at {at}, accepted: {is_accepted}");
            let mut world = closed_and_dead("c/s");
            assert!(world.ask(at, ID, Verb::Reopen, &by(who, role), "w2"), "{told}");
            without(&mut world, "c/s/a/n");
            assert_eq!(ABOVE.map(|n| calls(&world, n)), [0; 3], "a box that lives has a moment to answer: {told}");
            for n in ABOVE {
                let known = serde_json::to_string(held(&world, n)).expect("it is a row");
                assert!(!known.contains("王大妈"), "a resident's name is not for those above: {n}: {known}");
            }
            ABOVE.iter().for_each(|n| world.restart(n));
            world.now += LISTENS_US;
            without(&mut world, "c/s/a/n");
            let called = [usize::from(calls_all); 3];
            assert_eq!(ABOVE.map(|n| calls(&world, n)), called, "{told}");
            if is_accepted && calls_all {
                assert!(world.ask("c/s", ID, Verb::Accept, &by("赵队", Role::Worker), "w3"), "{told}");
            }
            world.now += 3_600_000_000;
            without(&mut world, "c/s/a/n");
            ABOVE.iter().for_each(|n| world.restart(n));
            assert_eq!(ABOVE.map(|n| calls(&world, n)), called, "once: {told}");
            for _ in 0..4 {
                world.settle();
                world.now += 30_000_000;
            }
            let case = &held(&world, "c").case;
            let status = match (calls_all, is_accepted) {
                (false, _) => Status::Closed,
                (true, false) => Status::Submitted,
                (true, true) => Status::Accepted,
            };
            assert_eq!((case.status, case.reopened), (status, u32::from(calls_all)), "{told}");
            for n in ABOVE {
                assert_eq!(held(&world, n).case, held(&world, "c/s/a/n").case, "{told}: {n}");
            }
            assert_eq!(ABOVE.map(|n| calls(&world, n)), called, "nobody a second time: {told}");
        }
    }
}

#[test]
fn a_press_that_is_reopened_above_calls_its_owner_alone_while_that_lives() {
    let mut world = closed_and_dead("c/s");
    let before = calls(&world, "c/s/a/n");
    assert!(world.ask("c", ID, Verb::Reopen, &by("r", Role::Resident), "w2"));
    world.settle();
    world.now += LISTENS_US;
    world.settle();
    stands(&world, Status::Submitted, [before + 1, 0, 0, 0], "reopened");
    world.now += 30_000_000;
    world.settle();
    stands(&world, Status::Submitted, [before + 1, 1, 0, 0], "it climbs");
}

/// The box has answered: what was said of the press does not count at anybody, and nobody is called for it.
fn stands_after_all(world: &mut World, at: &str, status: Status, told: &str) {
    for n in NODES {
        let Some(held) = world.places[n].cases.get(ID) else { continue };
        assert!(held.disowned.is_none(), "{told}: {n}: {:?}", held.disowned);
        assert_eq!(held.as_known().status, status, "{told}: {n}");
    }
    world.now += LISTENS_US;
    let before = ABOVE.map(|n| calls(world, n));
    without(world, "c/s/a/n");
    assert_eq!(ABOVE.map(|n| calls(world, n)), before, "nobody is called for it: {told}: {at}");
}

#[test]
fn a_word_that_somebody_does_not_come_or_that_it_is_not_over_counts_nowhere_once_its_owner_has_refused_it() {
    // Beside the box, too, whose word goes up to where it is heard and its answer down past there.
    for at in ["c/s/a", "c/s", "c", "c/s/b"] {
        for (is_closed, verb, who) in [(false, Verb::Escalate, "王队"), (true, Verb::Reopen, "r")] {
            let told = format!("{verb} at {at}");
            let mut world = if is_closed { closed_and_dead("c/s") } else { accepted_and_dead("c/s", 0) };
            if at == "c/s/b" {
                let case = held(&world, "c").case.clone();
                let history = held(&world, "c").history.clone();
                world.places.get_mut(at).unwrap().cases.fold(&case, &history);
            }
            let role = if is_closed { Role::Resident } else { Role::Worker };
            // Somebody has said something at the box meanwhile, and it is not as he has seen it.
            let seen = vec![held(&world, at).case.stamp()];
            assert!(world.ask("c/s/a/n", ID, Verb::Comment, &by("w", Role::Worker), ""), "{told}");
            assert!(world.ask(at, ID, verb, &Ask { seen, ..by(who, role) }, "w2"), "{told}");
            without(&mut world, "c/s/a/n");
            assert!(held(&world, "c").disowned.is_some(), "{told}");
            ABOVE.iter().for_each(|n| world.restart(n));
            world.settle();
            let why = held(&world, at).wishes.iter().find_map(|w| w.refused.clone()).unwrap_or_default();
            assert!(why.contains("seen"), "{told}: {why}");
            stands_after_all(&mut world, at, if is_closed { Status::Closed } else { Status::Accepted }, &told);
            // A second word is heard as the first one was.
            assert!(world.ask(at, ID, verb, &by(who, role), "w3"), "{told}");
            without(&mut world, "c/s/a/n");
            for n in ABOVE {
                assert_eq!(held(&world, n).as_known().status, Status::Submitted, "{told}: {n}");
            }
            world.settle();
            assert_eq!(held(&world, "c").case.status, Status::Submitted, "{told}");
        }
    }
}

#[test]
fn a_word_that_an_owner_above_refuses_counts_nowhere_either() {
    let mut world = World::new();
    press(&mut world, "c/s");
    let (case, history) = (held(&world, "c/s").case.clone(), held(&world, "c/s").history.clone());
    world.places.get_mut("c/s/a").unwrap().cases.fold(&case, &history);
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("王队", Role::Worker), "w1"));
    world.settle();
    let seen = vec![held(&world, "c/s/a").case.stamp()];
    assert!(world.ask("c/s", ID, Verb::Comment, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s/a", ID, Verb::Escalate, &Ask { seen, ..by("王队", Role::Worker) }, "w2"));
    carry(&mut world, "c/s/a", "c/s");
    carry(&mut world, "c/s", "c");
    assert!(held(&world, "c").disowned.is_some(), "those above heard it first");
    world.settle();
    for n in ["c/s/a", "c/s", "c"] {
        let held = held(&world, n);
        assert_eq!((&held.disowned, held.case.status), (&None, Status::Accepted), "{n}");
    }
}

#[test]
fn a_press_that_was_reopened_by_a_word_that_its_box_only_notes_is_over_as_the_box_says() {
    let mut world = closed_and_dead("c/s");
    let late = by("open311:app", Role::Resident);
    assert!(world.ask("c/s", ID, Verb::Reopen, &late, "w2"));
    without(&mut world, "c/s/a/n");
    assert_eq!(held(&world, "c").as_known().status, Status::Submitted);
    // By the box's own clock it is too late.
    world.now += 400 * 86_400_000_000;
    world.settle();
    for n in ABOVE {
        let held = held(&world, n);
        assert_eq!(held.history.last().unwrap().step, Verb::Comment.done(), "{n}");
        assert_eq!((&held.disowned, held.as_known().status), (&None, Status::Closed), "{n}");
    }
}

#[test]
fn that_somebody_takes_back_that_he_comes_is_not_understood_where_it_does_not_say_who() {
    let mut world = World::new();
    press(&mut world, "c/s/a/n");
    assert!(world.ask("c/s", ID, Verb::Accept, &by("街长", Role::Worker), "w1"));
    without(&mut world, "c/s/a/n");
    let coming = held(&world, "c").coming[0].clone();
    let (street, now) = (a("c/s"), view::time_of(world.now));
    let said = Denial { by: "街长".into(), node: street.clone(), at: now, wish: "w2".into() };
    for (said, comes) in [(None, 1), (Some(said), 0)] {
        let data = serde_json::json!({
            "case": ID, "coming": coming, "refused": true, "taken_back": true, "said": said,
        });
        let pen = Pen { me: &street, now };
        let way = (Direction::Up, Tier::City);
        let id = format!("e{comes}");
        let word = pen.event(letter::COMING, &id, ID, Lane::Urgent, way, "", serde_json::json!({}), data);
        world.commit("c", vec![word], Some("c/s"));
        assert_eq!(held(&world, "c").coming.len(), comes);
    }
}

#[test]
fn a_clock_that_was_ahead_when_it_was_said_that_nobody_comes_holds_up_no_call() {
    for is_closed in [false, true] {
        let mut world = if is_closed { closed_and_dead("c/s") } else { accepted_and_dead("c/s", 0) };
        world.now += 3_600_000_000;
        let (verb, who, role) = match is_closed {
            true => (Verb::Reopen, "r", Role::Resident),
            false => (Verb::Escalate, "王队", Role::Worker),
        };
        assert!(world.ask("c/s/a", ID, verb, &by(who, role), "w2"));
        without(&mut world, "c/s/a/n");
        world.now -= 3_600_000_000;
        // Whatever comes next says that it is right again.
        world.open("c/s/a", opening("20261120-1", "L"), Contact::default());
        without(&mut world, "c/s/a/n");
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [0; 3], "closed: {is_closed}");
        world.now += LISTENS_US;
        without(&mut world, "c/s/a/n");
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [1; 3], "closed: {is_closed}");
    }
}

#[test]
fn whoever_asks_for_more_help_by_hand_is_heard_at_once_though_somebody_comes_in_place_of_one_who_could_not() {
    let mut world = accepted_and_dead("c/s", 0);
    assert!(world.ask("c/s", ID, Verb::Escalate, &by("王队", Role::Worker), "w2"));
    world.settle();
    assert_eq!(held(&world, "c/s").case.status, Status::Submitted, "its box has answered that");
    assert!(world.ask("c", ID, Verb::Accept, &by("赵队", Role::Worker), "w3"));
    carry(&mut world, "c", "c/s");
    let before = calls(&world, "c/s");
    // The box has not heard of him yet.
    assert!(world.ask("c/s/a/n", ID, Verb::Escalate, &by("值班长", Role::Supervisor), ""));
    carry(&mut world, "c/s/a/n", "c/s/a");
    carry(&mut world, "c/s/a", "c/s");
    assert!(held(&world, "c/s").history.last().unwrap().calls.contains(&a("c/s")), "it is called");
    assert_eq!(calls(&world, "c/s"), before + 1);
}

#[test]
fn a_limit_that_has_passed_calls_whoever_is_next_also_if_he_was_called_because_the_press_had_not_climbed() {
    let mut world = World::new();
    world.open("c/s/a/n", Opening { sos: true, ..opening(ID, "G") }, Contact::default());
    world.settle();
    for _ in 0..3 {
        world.now += 3_600_000_000;
        without(&mut world, "c/s/a/n");
    }
    assert_eq!(ABOVE.map(|n| calls(&world, n)), [1; 3], "unanswered");
    // Back, it climbs, which is nothing new to anybody; and it says that the limit of the response has passed.
    world.settle();
    assert_eq!(ABOVE.map(|n| calls(&world, n)), [1, 2, 1]);
    let missed = held(&world, "c").history.last().unwrap();
    assert_eq!((missed.text.as_str(), &missed.calls), ("the response limit has passed", &vec![a("c/s")]));
    ABOVE.iter().for_each(|n| world.restart(n));
    world.now += 30_000_000;
    world.settle();
    assert_eq!(ABOVE.map(|n| calls(&world, n)), [1, 2, 1], "it climbs on");
}

#[test]
fn who_says_without_a_role_that_a_press_is_not_over_is_named_to_nobody_before_its_box_knows_him() {
    for at in ABOVE {
        let mut world = World::new();
        let contact = Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() };
        let new = Opening { sos: true, has_contact: true, ..opening(ID, "G") };
        world.open("c/s/a/n", new, contact);
        for (verb, ask) in [(Verb::Accept, by("王队", Role::Worker))].into_iter().chain(until_closed("王队")) {
            assert!(world.ask("c/s/a/n", ID, verb, &Ask { contacted: true, ..ask }, ""), "{verb}");
        }
        world.settle();
        let ask = Ask { role: None, ..by("王大妈", Role::Worker) };
        assert!(world.ask(at, ID, Verb::Reopen, &ask, "w2"), "{at}");
        without(&mut world, "c/s/a/n");
        for n in ABOVE {
            assert_eq!(held(&world, n).not_over().map(|said| said.by.as_str()), Some("resident"), "{at}: {n}");
            for (_, draft) in world.places[n].log.iter().filter(|(_, draft)| draft.header().name != letter::LETTER) {
                let text = String::from_utf8_lossy(draft.parts().1);
                assert!(!text.contains("王大妈"), "{at}: {n}: {text}");
            }
        }
        world.now += LISTENS_US;
        without(&mut world, "c/s/a/n");
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [1; 3], "{at}");
        world.settle();
        for n in ABOVE.into_iter().chain(["c/s/a/n"]) {
            let line = held(&world, n).history.iter().rfind(|e| e.step == Verb::Reopen.done()).unwrap();
            assert_eq!((line.by.as_str(), line.role), ("resident", Some(Role::Resident)), "{at}: {n}");
            assert_eq!((held(&world, n).not_over(), held(&world, n).wishes.len()), (None, 0), "{at}: {n}");
        }
    }
}

#[test]
fn whoever_asks_above_is_told_that_a_press_is_not_over_until_its_box_has_opened_it_again() {
    for (at, who, role, says) in
        [("c/s", "王大妈", Role::Resident, "resident"), ("c", "市长", Role::Supervisor, "市长")]
    {
        let mut world = closed_and_dead("c/s");
        for n in ABOVE {
            let held = held(&world, n);
            assert_eq!((held.not_over(), held.as_known().status), (None, Status::Closed), "{n}");
            assert_eq!(world.places[n].cases.open_of_below(), 0, "{n}");
        }
        let said_us = world.now;
        assert!(world.ask(at, ID, Verb::Reopen, &by(who, role), "w2"));
        without(&mut world, "c/s/a/n");
        let said = Denial { by: says.into(), node: a(at), at: view::time_of(said_us), wish: "w2".into() };
        for n in ABOVE {
            world.restart(n);
            let held = held(&world, n);
            assert_eq!(
                (held.not_over(), held.not_coming(), held.case.status),
                (Some(&said), None, Status::Closed),
                "{n}"
            );
            let cases = &world.places[n].cases;
            let known = held.as_known();
            assert_eq!((known.status, known.words().hotline.as_str()), (Status::Submitted, "受理"), "{n}");
            assert_eq!((known.reopened, known.closed, known.due()), (1, None, None), "{n}");
            assert_eq!((cases.open_of_below(), cases.calls_for_help().unaccepted), (1, 1), "{n}");
            assert!(cases.before(None, true).any(|held| held.case.id == ID), "{n}");
            let takes = |verb| cases.allowed(held, None, view::time_of(world.now)).contains(&verb);
            assert!(takes(Verb::Accept) && !takes(Verb::Evaluate), "{n}");
            let question = supervision::Question { scope: Scope::default(), again: 2, limit: 2, shown: true };
            let mut watching = supervision::Watching::new(question, view::time_of(world.now));
            watching.add(cases, held);
            let told = watching.ranked().told(cases);
            assert_eq!((told.reopened_in_all, told.not_over.get(ID)), (1, Some(&said)), "{n}");
        }
        // The box is back.
        world.settle();
        for n in ABOVE {
            let held = held(&world, n);
            assert_eq!((held.not_over(), held.case.status), (None, Status::Submitted), "{n}");
        }
    }
}

#[test]
fn whoever_takes_back_what_its_box_never_heard_is_told_so_though_the_press_is_at_the_top() {
    for climbs in [1, 3] {
        for desk in ["c", "c/s"] {
            let told = format!("at {desk}, climbs: {climbs}");
            let mut world = World::new();
            press(&mut world, "c/s/a/n");
            for _ in 0..climbs {
                world.now += 30_000_000;
                world.settle();
            }
            assert!(world.ask(desk, ID, Verb::Accept, &by("王队", Role::Worker), "w1"), "{told}");
            let cannot = Ask { text: Some("车坏了".into()), ..by("王队", Role::Worker) };
            assert!(world.ask(desk, ID, Verb::Escalate, &cannot, "w2"), "{told}");
            without(&mut world, "c/s/a/n");
            // The box is back, and hears both at once.
            let line = world.lines.get_mut(&("c/s/a".to_owned(), "c/s/a/n".to_owned())).unwrap();
            let frame = std::mem::take(line).into_iter().map(|flying| flying.draft).collect();
            world.commit("c/s/a/n", frame, Some("c/s/a"));
            world.settle();
            let held = held(&world, desk);
            let refused: Vec<_> = held.wishes.iter().map(|w| (w.id.as_str(), w.refused.as_deref())).collect();
            let says = "王队 has said since that he does not come";
            assert_eq!(refused, [("w1", Some(says))], "{told}");
            let line = held.history.iter().find(|e| e.wish.as_deref() == Some("w2")).unwrap();
            assert!(line.text.contains("车坏了") && line.by == "王队", "{told}: {line:?}");
            assert_eq!(held.case.status, Status::Submitted, "{told}");
        }
    }
}

#[test]
fn of_two_who_say_that_somebody_does_not_come_the_second_counts_if_the_first_is_refused() {
    for (is_closed, verb) in [(false, Verb::Escalate), (true, Verb::Reopen)] {
        let mut world = if is_closed { closed_and_dead("c/s") } else { accepted_and_dead("c/s", 0) };
        // The first goes by what he has seen, which the box has gone on from meanwhile.
        let seen = vec![held(&world, "c/s").case.stamp()];
        assert!(world.ask("c/s/a/n", ID, Verb::Comment, &by("w", Role::Worker), ""), "{verb}");
        assert!(world.ask("c/s", ID, verb, &Ask { seen, ..by("站长", Role::Supervisor) }, "w2"), "{verb}");
        without(&mut world, "c/s/a/n");
        world.now += LISTENS_US;
        without(&mut world, "c/s/a/n");
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [1; 3], "{verb}");
        assert!(world.ask("c", ID, verb, &by("市长", Role::Supervisor), "w3"), "{verb}");
        without(&mut world, "c/s/a/n");
        world.now += LISTENS_US;
        without(&mut world, "c/s/a/n");
        assert_eq!(ABOVE.map(|n| calls(&world, n)), [1; 3], "one matter: {verb}");
        let who = |world: &World, n| {
            let held = held(world, n);
            held.not_coming().or(held.not_over()).map(|said| said.by.clone())
        };
        for n in ABOVE {
            assert_eq!(who(&world, n).as_deref(), Some("站长"), "{verb}: {n}");
            world.places.get_mut(n).unwrap().cases.stands_after_all(ID, &a("c/s"), "w2");
            assert_eq!(who(&world, n).as_deref(), Some("市长"), "{verb}: {n}");
        }
        world.settle();
        for n in ABOVE {
            let held = held(&world, n);
            assert_eq!((held.case.status, who(&world, n)), (Status::Submitted, None), "{verb}: {n}");
            assert!(held.history.iter().any(|e| e.by == "市长"), "{verb}: {n}");
        }
        let refused = |n: &str| held(&world, n).wishes.iter().filter(|w| w.refused.is_some()).count();
        assert_eq!((refused("c/s"), refused("c")), (1, 0), "{verb}");
    }
}

#[test]
fn whoever_says_again_what_its_box_has_done_by_then_is_written_down_and_takes_nobody_back_who_comes_since() {
    for (is_closed, verb) in [(false, Verb::Escalate), (true, Verb::Reopen)] {
        for is_accepted in [false, true] {
            let told = format!("{verb}, accepted: {is_accepted}");
            let mut world = if is_closed { closed_and_dead("c/s") } else { accepted_and_dead("c/s", 0) };
            assert!(world.ask("c/s", ID, verb, &by("站长", Role::Supervisor), "w2"), "{told}");
            without(&mut world, "c/s/a/n");
            // He has not heard of what comes next when he says so.
            let second = Ask { text: Some("联系不上".into()), ..by("市长", Role::Supervisor) };
            assert!(world.ask("c", ID, verb, &second, "w3"), "{told}");
            let down = world.lines.remove(&("c".to_owned(), "c/s".to_owned())).unwrap_or_default();
            world.settle();
            assert_eq!(held(&world, "c/s/a/n").case.status, Status::Submitted, "{told}");
            if is_accepted {
                assert!(world.ask("c/s/a/n", ID, Verb::Accept, &by("赵队", Role::Worker), ""), "{told}");
            }
            world.settle();
            let before = ABOVE.map(|n| calls(&world, n));
            let (escalations, reopened) = (held(&world, "c").case.escalations, held(&world, "c").case.reopened);
            world.lines.insert(("c".to_owned(), "c/s".to_owned()), down);
            world.settle();
            for n in ABOVE {
                let held = held(&world, n);
                let stands = if is_accepted { Status::Accepted } else { Status::Submitted };
                assert_eq!(held.case.status, stands, "{told}: {n}");
                assert_eq!((held.case.escalations, held.case.reopened), (escalations, reopened), "{told}: {n}");
                let line = held.history.iter().find(|e| e.wish.as_deref() == Some("w3"));
                let is_noted = line.is_some_and(|e| e.step == Verb::Comment.done() && e.text.contains("联系不上"));
                assert!(is_noted, "{told}: {n}: {line:?}");
            }
            assert_eq!(ABOVE.map(|n| calls(&world, n)), before, "{told}");
        }
    }
}
