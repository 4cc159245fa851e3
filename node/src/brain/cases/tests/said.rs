//! What residents say of a case that another node owns, by a program that waits for no answer.

use super::*;

const ID: &str = "20261120-0";

/// As Open311 asks, at the neighbourhood; its street owns the case.
fn says(world: &mut World, verb: Verb, text: &str, wish: &str) {
    let ask = Ask { text: Some(text.into()), ..by("open311:app", Role::Resident) };
    assert!(world.ask("c/s/a/n", ID, verb, &ask, wish), "{verb}");
}

fn opened() -> World {
    let mut world = World::new();
    world.open("c/s/a/n", opening(ID, "G"), Contact::default());
    world.settle();
    assert!(world.places["c/s/a"].cases.may_step(ID));
    world
}

/// What the line is that has this wish's id, at the node where it was said.
fn line<'w>(world: &'w World, wish: &str) -> (&'w str, &'w str) {
    let held = world.places["c/s/a/n"].cases.get(ID).unwrap();
    assert!(held.wishes.is_empty(), "{:?}", held.wishes);
    let line = held.history.iter().find(|e| e.wish.as_deref() == Some(wish)).unwrap();
    (line.step.as_str(), line.text.as_str())
}

/// From its acceptance to its end, at its owner.
fn close(world: &mut World) {
    for (verb, who) in [(Verb::Accept, "w"), (Verb::Dispatch, "w"), (Verb::Start, "h"), (Verb::Resolve, "h")] {
        assert!(world.ask("c/s/a", ID, verb, &by(who, Role::Worker), ""), "{verb}");
    }
    let said = Ask { solved: Some(Solved::Solved), ..by("boss", Role::Supervisor) };
    assert!(world.ask("c/s/a", ID, Verb::Evaluate, &said, ""));
    assert!(world.ask("c/s/a", ID, Verb::Close, &by("boss", Role::Supervisor), ""));
    world.settle();
}

#[test]
fn what_a_resident_says_stands_though_what_was_asked_with_it_cannot_be_done() {
    let mut world = opened();
    close(&mut world);
    // Too late for that, as the owner has it.
    world.now += 20 * 86_400_000_000;
    says(&mut world, Verb::Reopen, "又坏了", "w1");
    world.settle();
    assert_eq!(line(&world, "w1"), ("comment", "又坏了"));
    assert_eq!(world.places["c"].cases.get(ID).unwrap().case.status, Status::Closed);
    // Whoever asks by name, or by an app, waits for the answer, and is told that it was not done.
    for (n, (who, wish)) in [("王大妈", "w2"), ("app:citizens", "w3")].into_iter().enumerate() {
        let ask = Ask { text: Some("又坏了".into()), ..by(who, Role::Resident) };
        assert!(world.ask("c/s/a/n", ID, Verb::Reopen, &ask, wish));
        world.settle();
        let wishes = &world.places["c/s/a/n"].cases.get(ID).unwrap().wishes;
        assert_eq!((wishes.len(), wishes[n].id.as_str()), (n + 1, wish));
        assert!(wishes[n].refused.as_ref().unwrap().contains("could be reopened until"), "{wishes:?}");
    }
}

#[test]
fn until_when_a_case_may_be_reopened_is_its_owners_word_at_every_node() {
    let mut world = World::new();
    world.places.get_mut("c/s/a").unwrap().cases.settings.reopen_days = 0;
    world.open("c/s/a/n", opening(ID, "G"), Contact::default());
    world.settle();
    close(&mut world);
    world.now += 1_000_000;
    let now = view::time_of(world.now);
    for node in ["c", "c/s", "c/s/a", "c/s/a/n"] {
        let cases = &world.places[node].cases;
        let case = &cases.get(ID).unwrap().case;
        assert_eq!(case.status, Status::Closed, "{node}");
        assert!(!cases.book().allowed(case, now).contains(&Verb::Reopen), "{node}");
    }
}

#[test]
fn a_wish_that_has_no_answer_yet_is_the_same_when_it_is_asked_for_again_until_something_else_was() {
    let mut world = opened();
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
    world.settle();
    let dispatch = |unit: &str| Ask { unit: Some(unit.into()), ..by("w", Role::Worker) };
    let asked = |world: &World, unit: &str| {
        let cases = &world.places["c/s/a/n"].cases;
        match cases.ask(ID, Verb::Dispatch, &dispatch(unit), "another", world.now) {
            Ok((_, Told::Sent { wish, .. }, _)) => wish,
            other => panic!("{other:?}"),
        }
    };
    assert!(world.ask("c/s/a/n", ID, Verb::Dispatch, &dispatch("u"), "w1"));
    assert_eq!([asked(&world, "u"), asked(&world, "v")], ["w1", "another"]);
    // To u, to v, and back to u.
    assert!(world.ask("c/s/a/n", ID, Verb::Dispatch, &dispatch("v"), "w2"));
    assert_eq!([asked(&world, "u"), asked(&world, "v")], ["another", "w2"]);
    assert!(world.ask("c/s/a/n", ID, Verb::Dispatch, &dispatch("v"), "w3"));
    world.settle();
    let held = world.places["c/s/a/n"].cases.get(ID).unwrap();
    assert_eq!(held.history.iter().filter(|e| e.step == "dispatched").count(), 2);
    assert_eq!([asked(&world, "u"), asked(&world, "v")], ["another", "another"], "answered, it is another");
}

#[test]
fn a_refusal_says_to_a_resident_what_he_may_do_and_to_others_where_to_look() {
    let mut world = opened();
    let refusal = |world: &World, verb: Verb, role: Role| {
        world.places["c/s/a"].cases.ask(ID, verb, &by("app:x", role), "", world.now).unwrap_err()
    };
    assert_eq!(refusal(&world, Verb::Evaluate, Role::Resident).hint, "it takes withdraw, comment");
    assert!(refusal(&world, Verb::Start, Role::Worker).hint.contains("accept, reject"));
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s/a", ID, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    let hint = refusal(&world, Verb::Start, Role::Worker).hint;
    assert!(hint.starts_with("at c/s: `citybrain why c/s/b` says"), "{hint}");
}

#[test]
fn what_a_resident_says_follows_a_case_that_changes_hands() {
    let mut world = opened();
    assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s/a", ID, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    says(&mut world, Verb::Comment, "在三号门", "w1");
    // At the node that gives it away, too.
    let ask = Ask { text: Some("也是".into()), ..by("open311:app", Role::Resident) };
    assert!(world.ask("c/s/a", ID, Verb::Comment, &ask, "w2"));
    says(&mut world, Verb::Withdraw, "不用了", "w3");
    world.settle();
    assert_eq!(line(&world, "w1"), ("comment", "在三号门"));
    assert_eq!(line(&world, "w2"), ("comment", "也是"));
    assert_eq!(line(&world, "w3"), ("withdrawn", "不用了"));
    let case = &world.places["c"].cases.get(ID).unwrap().case;
    assert_eq!((case.owner.as_str(), case.status), ("c/s/b", Status::Withdrawn));
}

/// A case of `c/s/a` by that contact, which is resolved.
fn resolved(contact: Contact) -> World {
    let mut world = World::new();
    let new = Opening { has_contact: !contact.is_empty(), by: "前台".into(), ..opening(ID, "L") };
    world.open("c/s/a", new, contact);
    for (verb, who) in [(Verb::Accept, "李队"), (Verb::Dispatch, "站长"), (Verb::Start, "h"), (Verb::Resolve, "h")]
    {
        assert!(world.ask("c/s/a", ID, verb, &by(who, Role::Worker), ""), "{verb}");
    }
    world.settle();
    world
}

#[test]
fn whoever_says_no_role_speaks_as_the_resident_only_if_he_is_the_one_to_call_or_a_stranger() {
    let named = || Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() };
    let cases = [
        (named(), "王大妈", "resident", true),
        (named(), "李队", "李队", false),
        (Contact::default(), "王大妈", "resident", true),
        (Contact::default(), "李队", "李队", false),
        (Contact::default(), "站长", "站长", false),
        (Contact::default(), "前台", "前台", false),
    ];
    for (contact, who, shown, is_residents) in cases {
        let mut world = resolved(contact.clone());
        let ask = Ask { role: None, solved: Some(Solved::Solved), ..by(who, Role::Worker) };
        assert!(world.ask("c/s/a", ID, Verb::Evaluate, &ask, ""), "{who}");
        world.settle();
        let held = world.places["c/s/a"].cases.get(ID).unwrap();
        let verdict = held.case.verdict.as_ref().unwrap();
        assert_eq!((verdict.by.as_str(), verdict.is_residents), (shown, is_residents), "{who} of {contact:?}");
        assert_eq!(held.history.last().unwrap().by, shown);
        assert_eq!(held.contact.clone().unwrap_or_default(), contact, "nobody else is to be called");
    }
}

#[test]
fn whoever_is_to_call_is_no_worker_by_a_comment_without_a_role_at_whatever_node() {
    for at in ["c/s/a", "c/s", "c"] {
        let named = Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() };
        let mut world = resolved(named);
        for (who, shown, role) in [("王 大妈", "resident", Role::Resident), ("小张", "小张", Role::Worker)] {
            let ask = Ask { role: None, text: Some("又没来".into()), ..by(who, Role::Worker) };
            assert!(world.ask(at, ID, Verb::Comment, &ask, who), "{at}");
            world.settle();
            for n in NODES {
                let Some(held) = world.places[n].cases.get(ID) else { continue };
                let line = held.history.last().unwrap();
                assert_eq!((line.by.as_str(), line.role), (shown, Some(role)), "asked at {at}: {n}");
                assert!(held.wishes.is_empty(), "{n}");
            }
        }
    }
}

/// A word of hers that says no role, and which of her words in turn: whether it was solved, whether she is content, or
/// that it is not over.
fn of_no_role(verb: Verb, n: usize) -> Ask {
    let evaluates = verb == Verb::Evaluate;
    let (solved, satisfied) = (Solved::Unsolved, Satisfied::Yes);
    let (solved, satisfied) = (Some(solved).filter(|_| n == 0), Some(satisfied).filter(|_| n > 0));
    let (solved, satisfied) = (solved.filter(|_| evaluates), satisfied.filter(|_| evaluates));
    Ask { role: None, solved, satisfied, ..by("王大妈", Role::Worker) }
}

/// What that node knows, or has written but for the letters, has no name in it.
fn knows_no(world: &World, n: &str, name: &str) {
    let place = &world.places[n];
    let held = serde_json::to_string(place.cases.get(ID).unwrap()).unwrap();
    assert!(!held.contains(name), "{n}: {held}");
    for (_, draft) in place.log.iter().filter(|(_, draft)| draft.header().name != letter::LETTER) {
        let text = String::from_utf8_lossy(draft.parts().1);
        assert!(!text.contains(name), "{n}: {text}");
    }
}

#[test]
fn whoever_is_to_call_is_the_resident_by_whatever_he_asks_for_without_a_role_at_whatever_node() {
    for verb in [Verb::Evaluate, Verb::Withdraw, Verb::Reopen] {
        // The one above both, the one where he reported it, and its owner.
        for at in ["c", "c/s", "c/s/a/n", "c/s/a"] {
            let told = format!("{verb} at {at}");
            let contact = Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() };
            let mut world = World::new();
            world.open("c/s/a/n", Opening { has_contact: true, ..opening(ID, "G") }, contact);
            world.settle();
            assert!(world.places["c/s/a"].cases.may_step(ID) && world.places["c/s/a/n"].cases.get(ID).is_some());
            if verb != Verb::Withdraw {
                let until = until_closed("李队");
                let until = until.iter().take(if verb == Verb::Reopen { 5 } else { 3 });
                for (verb, ask) in [(Verb::Accept, by("李队", Role::Worker))].iter().chain(until) {
                    assert!(world.ask("c/s/a", ID, *verb, ask, ""), "{verb}");
                }
                world.settle();
            }
            let before = world.places["c"].cases.get(ID).unwrap().history.len();
            let times = if verb == Verb::Evaluate { 2 } else { 1 };
            for n in 0..times {
                assert!(world.ask(at, ID, verb, &of_no_role(verb, n), &format!("w{n}")), "{told}");
                world.settle();
            }
            for n in ["c", "c/s", "c/s/a", "c/s/a/n"] {
                let held = world.places[n].cases.get(ID).unwrap();
                let said = &held.history[before..];
                let lines: Vec<_> = said.iter().map(|e| (e.step.as_str(), e.by.as_str(), e.role)).collect();
                assert_eq!(lines, vec![(verb.done(), "resident", Some(Role::Resident)); times], "{told}: {n}");
                assert!(held.wishes.is_empty(), "{told}: {n}");
                if verb == Verb::Evaluate {
                    let said = held.case.verdict.as_ref().map(|v| (v.is_residents, v.solved, v.satisfied));
                    assert_eq!(said, Some((true, Some(Solved::Unsolved), Some(Satisfied::Yes))), "{told}: {n}");
                    assert_eq!(held.case.other_verdict, None, "{told}: {n}");
                }
                if n != "c/s/a" {
                    assert_eq!(held.contact, None, "{told}: {n}");
                }
            }
            ["c", "c/s"].iter().for_each(|n| knows_no(&world, n, "王大妈"));
        }
    }
}

#[test]
fn who_is_not_the_one_to_call_speaks_for_the_supervision_without_a_role_at_whatever_node() {
    for at in ["c/s/a", "c/s", "c"] {
        let mut world = resolved(Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() });
        let ask = Ask { role: None, solved: Some(Solved::Solved), ..by("站长", Role::Worker) };
        assert!(world.ask(at, ID, Verb::Evaluate, &ask, "w1"));
        world.settle();
        let line = world.places[at].cases.get(ID).unwrap().history.last().unwrap();
        assert_eq!((line.by.as_str(), line.role), ("站长", Some(Role::Supervisor)), "{at}");
    }
}

#[test]
fn what_is_said_without_a_role_follows_its_case_and_is_done_once_however_often_it_is_asked_for() {
    for verb in [Verb::Withdraw, Verb::Comment] {
        let mut world = World::new();
        let contact = Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() };
        world.open("c/s/a", Opening { has_contact: true, ..opening(ID, "L") }, contact);
        assert!(world.ask("c/s/a", ID, Verb::Accept, &by("w", Role::Worker), ""));
        world.settle();
        let give = |world: &mut World, from: &str, to: &str| {
            assert!(world.ask(from, ID, Verb::Dispatch, &Ask { to: Some(a(to)), ..by("w", Role::Worker) }, ""));
        };
        give(&mut world, "c/s/a", "c/s/b");
        world.settle();
        // It is said where the case was, which comes home meanwhile.
        let ask = of_no_role(verb, 0);
        assert!(world.ask("c/s/a", ID, verb, &ask, "w1"));
        assert!(world.ask("c/s/a", ID, verb, &ask, "w2"));
        give(&mut world, "c/s/b", "c/s/a");
        for (from, to) in [("c/s/b", "c/s"), ("c/s", "c/s/a")] {
            apart::carry(&mut world, from, to);
        }
        assert!(world.places["c/s/a"].cases.may_step(ID), "{verb}");
        assert!(world.ask("c/s/a", ID, verb, &ask, "w3"), "{verb}");
        world.settle();
        // Whoever had it is told that it is over, and of no comment.
        let told = if verb == Verb::Withdraw { 4 } else { 3 };
        for n in ["c", "c/s", "c/s/a", "c/s/b"].into_iter().take(told) {
            let held = world.places[n].cases.get(ID).unwrap();
            let said: Vec<_> = held.history.iter().filter(|e| e.step == verb.done()).map(|e| e.by.as_str()).collect();
            assert_eq!((said, held.wishes.len()), (vec!["resident"], 0), "{verb}: {n}");
        }
    }
}

#[test]
fn a_resident_whose_role_was_said_is_whom_to_call() {
    let mut world = resolved(Contact::default());
    assert!(world.ask("c/s/a", ID, Verb::Evaluate, &by("王大妈", Role::Resident), ""));
    world.settle();
    assert_eq!(world.places["c/s/a"].cases.get(ID).unwrap().contact.as_ref().unwrap().name, "王大妈");
}

/// A comment under a name that whoever makes it has for it.
fn named(world: &mut World, at: &str, text: &str, name: &str) -> Told {
    let ask = Ask { text: Some(text.into()), ..by("open311:app", Role::Resident) };
    let (_, told, drafts) = world.places[at].cases.ask_named(ID, Verb::Comment, &ask, name, world.now).unwrap();
    world.commit(at, drafts, None);
    told
}

/// The names of all comments, as that node has them.
fn names<'w>(world: &'w World, at: &str) -> Vec<Option<&'w str>> {
    let history = &world.places[at].cases.get(ID).unwrap().history;
    history.iter().filter(|e| e.step == "comment").map(|e| e.wish.as_deref()).collect()
}

#[test]
fn what_is_said_twice_under_one_name_stands_once_at_whatever_node_and_however_late_it_is_said_again() {
    let mut world = opened();
    // Below, and at its owner before that has heard of it.
    let sent = named(&mut world, "c/s/a/n", "在三号门", "s1");
    assert!(matches!(&sent, Told::Sent { to, .. } if to.as_str() == "c/s/a"), "{sent:?}");
    assert_eq!(named(&mut world, "c/s/a/n", "在三号门", "s1"), sent, "while it is on its way");
    let done = named(&mut world, "c/s/a", "在三号门", "s1");
    world.settle();
    assert_eq!(names(&world, "c/s/a"), [Some("s1")]);
    assert_eq!(names(&world, "c/s/a/n"), [Some("s1")], "by the name that was told");
    for at in ["c/s/a", "c/s/a/n"] {
        world.now += 90_000_000_000;
        assert_eq!(named(&mut world, at, "在三号门", "s1"), done, "{at}");
    }
    world.settle();
    assert_eq!(names(&world, "c"), [Some("s1")]);
    assert!(world.places["c/s/a/n"].cases.get(ID).unwrap().wishes.is_empty());
}

#[test]
fn what_others_say_in_the_same_words_under_names_of_their_own_stands_while_the_owner_cannot_answer() {
    let mut world = opened();
    for name in ["plus-1", "plus-2"] {
        named(&mut world, "c/s/a/n", "+1", name);
    }
    world.settle();
    assert_eq!(names(&world, "c/s/a"), [Some("plus-1"), Some("plus-2")]);
}

#[test]
fn that_nobody_was_reached_is_no_residents_word() {
    let mut world = opened();
    let worker = |world: &mut World, verb: Verb| assert!(world.ask("c/s/a", ID, verb, &by("w", Role::Worker), ""));
    [Verb::Accept, Verb::Dispatch, Verb::Start, Verb::Resolve].into_iter().for_each(|verb| worker(&mut world, verb));
    // Nobody is the one to call, and the case knows this name for nothing else.
    let vain = Ask { role: None, text: Some("打不通".into()), ..by("站", Role::Supervisor) };
    assert!(world.ask("c/s/a", ID, Verb::Evaluate, &vain, ""));
    let verdict = |world: &World| world.places["c/s/a"].cases.get(ID).unwrap().case.verdict.clone().unwrap();
    let said = verdict(&world);
    assert_eq!((said.by.as_str(), said.is_residents, said.text.as_str()), ("站", false, "打不通"));
    let word = Ask { role: None, solved: Some(Solved::Solved), text: None, ..by("王大妈", Role::Resident) };
    assert!(world.ask("c/s/a", ID, Verb::Evaluate, &word, ""));
    assert!(verdict(&world).is_residents);
}
