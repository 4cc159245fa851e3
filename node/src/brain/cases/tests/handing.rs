//! Hand-overs that nobody takes: called back, and called for.

use super::*;
use citybrain_shared::Tier;

const CASE: &str = "20261120-0";

/// A case of `c/s/a` that was sent to `to`, whose letter is still on its way.
fn sent_to(to: &str) -> World {
    let mut world = World::new();
    world.open("c/s/a", opening(CASE, "L"), Contact::default());
    assert!(world.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker), ""));
    world.settle();
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &Ask { to: Some(a(to)), ..by("w", Role::Worker) }, ""));
    world
}

fn held<'w>(world: &'w World, at: &str) -> &'w Held {
    world.places[at].cases.get(CASE).unwrap()
}

/// Opens the case of somebody who can be called.
fn open_with_contact(world: &mut World, at: &str, category: &str) {
    let contact = Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() };
    world.open(at, Opening { has_contact: true, ..opening(CASE, category) }, contact);
}

fn knows_whom_to_call(world: &World, at: &str) -> bool {
    world.places[at].cases.get(CASE).is_some_and(|h| h.contact.is_some())
}

fn owner(world: &World) -> Vec<&'static str> {
    NODES.into_iter().filter(|n| world.places[*n].cases.may_step(CASE)).collect()
}

fn recall(world: &mut World, at: &str) -> bool {
    let id = format!("r{at}{}", world.places[at].pos);
    world.ask(at, CASE, Verb::Recall, &by("w", Role::Worker), &id)
}

/// Everything under way to this node is lost, as with its disk.
fn lose(world: &mut World, to: &str) {
    world.lines.iter_mut().filter(|((_, there), _)| there == to).for_each(|(_, line)| line.clear());
}

#[test]
fn a_case_that_nobody_has_begun_comes_back_when_it_is_called_back() {
    let mut world = sent_to("c/s/b");
    assert_eq!(allowed(&held(&world, "c/s/a").case), [Verb::Recall]);
    assert!(recall(&mut world, "c/s/a"));
    assert_eq!(held(&world, "c/s/a").wishes.len(), 1);
    assert_eq!(owner(&world), [""; 0], "not before it is given back");
    world.settle();
    assert_eq!(owner(&world), ["c/s/a"]);
    let last: Vec<&str> = held(&world, "c").history.iter().rev().take(3).map(|e| e.step.as_str()).collect();
    assert_eq!(last, ["taken", "recalled", "taken"], "it was taken there, and given back");
    assert!(held(&world, "c/s/a").wishes.is_empty() && held(&world, "c/s/a").case.dispatched_by.is_empty());
    assert!(!recall(&mut world, "c/s/a"), "it is here");
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &by("w", Role::Worker), ""));
}

#[test]
fn that_somebody_is_forgotten_begins_no_work_and_the_case_comes_back_when_it_is_called_back() {
    let mut world = World::new();
    open_with_contact(&mut world, "c/s/a", "L");
    assert!(world.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    assert!(world.ask("c/s/a", CASE, Verb::Forget, &by("boss", Role::Supervisor), "f"));
    assert!(recall(&mut world, "c/s/a"));
    world.settle();
    assert_eq!((owner(&world), refusals(&world, "c/s/a")), (vec!["c/s/a"], Vec::new()));
    assert!(held(&world, "c/s/a").case.forgotten && NODES.iter().all(|n| !knows_whom_to_call(&world, n)));
}

#[test]
fn whoever_was_summoned_hears_how_the_case_goes_on() {
    let mut world = World::new();
    world.open("c/s/a", opening(CASE, "L"), Contact::default());
    assert!(world.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker), ""));
    let summons =
        Ask { unit: Some("消防".into()), to: Some(a("c/s/b")), limit: Some("2h".into()), ..by("w", Role::Worker) };
    assert!(world.ask("c/s/a", CASE, Verb::Assist, &summons, ""));
    world.settle();
    assert_eq!((calls(&world, "c/s/b"), held(&world, "c/s/b").case.assists.len()), (1, 1), "it is called");
    // It reports from where it is, and hears its rating and the end.
    assert!(world.ask("c/s/b", CASE, Verb::Report, &Ask { assist: Some("a1".into()), ..by("x", Role::Worker) }, "w1"));
    world.settle();
    let rating = Ask { assist: Some("a1".into()), rating: Some(5), ..by("w", Role::Worker) };
    assert!(world.ask("c/s/a", CASE, Verb::Rate, &rating, ""));
    assert!(world.ask("c/s/a", CASE, Verb::Withdraw, &by("boss", Role::Supervisor), ""));
    world.settle();
    let there = held(&world, "c/s/b");
    assert_eq!((there.case.status, there.case.assists[0].rating), (Status::Withdrawn, Some(5)));
    assert_eq!(world.places["c/s/b"].cases.open_ones().count(), 0);
}

#[test]
fn whoever_was_summoned_and_has_not_reported_is_called_again_when_the_case_is_reopened() {
    let mut world = World::new();
    world.open("c/s/a", opening(CASE, "L"), Contact::default());
    for verb in [Verb::Accept, Verb::Dispatch] {
        assert!(world.ask("c/s/a", CASE, verb, &by("w", Role::Worker), ""));
    }
    let summons = |node: &str| Ask { unit: Some(node.into()), to: Some(a(node)), ..by("w", Role::Worker) };
    for node in ["c/s/b", "c/s/a/n", "c"] {
        assert!(world.ask("c/s/a", CASE, Verb::Assist, &summons(node), ""));
    }
    world.settle();
    assert!(world.ask("c/s/b", CASE, Verb::Report, &by("x", Role::Worker), "w1"));
    world.settle();
    for (verb, who, role) in [
        (Verb::Start, "h", Role::Worker),
        (Verb::Resolve, "h", Role::Worker),
        (Verb::Evaluate, "r", Role::Resident),
        (Verb::Close, "boss", Role::Supervisor),
    ] {
        assert!(world.ask("c/s/a", CASE, verb, &by(who, role), ""), "{verb}");
    }
    world.settle();
    let called = |world: &World| ["c/s/b", "c/s/a/n", "c", "c/s/a", "c/s"].map(|node| calls(world, node));
    assert_eq!(called(&world), [1, 1, 1, 0, 0]);
    assert!(world.ask("c/s/a", CASE, Verb::Reopen, &by("r", Role::Resident), ""));
    world.settle();
    assert_eq!(called(&world), [1, 2, 2, 0, 0], "who has reported has done what was asked");
}

#[test]
fn whoever_watches_from_above_calls_back_what_is_still_on_its_way() {
    let mut world = sent_to("c/s/b");
    // The step has climbed, the letter has not come down.
    while world.places["c"].cases.get(CASE).is_none_or(|h| h.case.handing_to.is_none()) {
        let (from, to) = if world.lines[&("c/s/a".to_owned(), "c/s".to_owned())].is_empty() {
            ("c/s", "c")
        } else {
            ("c/s/a", "c/s")
        };
        let flying = world.lines.get_mut(&(from.to_owned(), to.to_owned())).unwrap().remove(0);
        world.arrive(to, flying);
    }
    lose(&mut world, "c/s/b");
    assert!(recall(&mut world, "c"));
    assert_eq!(held(&world, "c").wishes.len(), 1);
    world.settle();
    assert_eq!(owner(&world), ["c/s/a"]);
    assert_eq!(held(&world, "c").history.last().unwrap().step, "came-back");
    assert!(held(&world, "c").history.last().unwrap().text.starts_with("called back by w"));
    assert!(held(&world, "c").wishes.is_empty(), "{:?}", held(&world, "c").wishes);
}

#[test]
fn a_letter_that_comes_behind_its_recall_is_not_taken() {
    let mut world = sent_to("c/s/b");
    let line = ("c/s/a".to_owned(), "c/s".to_owned());
    let late: Vec<Flying> = world.lines[&line].clone();
    world.lines.get_mut(&line).unwrap().clear();
    assert!(recall(&mut world, "c/s/a"));
    world.settle();
    assert_eq!(owner(&world), ["c/s/a"]);
    for flying in late {
        world.arrive("c/s", flying);
    }
    world.settle();
    world.restart("c/s/b");
    assert_eq!(owner(&world), ["c/s/a"]);
    // And another hand-over is one.
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    world.settle();
    assert_eq!(owner(&world), ["c/s/b"]);
}

#[test]
fn work_that_has_begun_is_not_taken_away() {
    let mut world = sent_to("c/s/b");
    let mut letters = world.lines[&("c/s/a".to_owned(), "c/s".to_owned())].clone();
    assert!(recall(&mut world, "c/s/a"));
    let line = world.lines.get_mut(&("c/s/a".to_owned(), "c/s".to_owned())).unwrap();
    let recall = line.pop().unwrap();
    world.settle();
    assert_eq!(held(&world, "c/s/a").wishes[0].refused, None, "that it was taken is no answer: it may come back");
    assert!(world.ask("c/s/b", CASE, Verb::Start, &by("h", Role::Worker), ""));
    letters.push(recall);
    letters.into_iter().for_each(|f| world.arrive("c/s", f));
    world.settle();
    assert_eq!((owner(&world), held(&world, "c").case.status), (vec!["c/s/b"], Status::Handling));
    assert_eq!(refusals(&world, "c/s/a"), [BEGUN]);
}

const BEGUN: &str = "`20261120-0` was taken and has gone on: it is handling, and c/s/b has it";

fn refusals<'w>(world: &'w World, at: &str) -> Vec<&'w str> {
    held(world, at).wishes.iter().map(|w| w.refused.as_deref().unwrap_or("no answer")).collect()
}

#[test]
fn whoever_asks_from_above_for_a_case_that_was_begun_is_refused_and_so_is_its_giver() {
    let mut world = sent_to("c/s/b");
    deaf(&mut world, "c/s/b");
    assert!(recall(&mut world, "c"));
    // The hand-over has gone down meanwhile, and the wish comes after it.
    let late = world.places["c/s"].log.iter().filter(|(_, draft)| draft.header().target == "c/s/b");
    let late: Vec<Draft> = late.map(|(_, draft)| draft.clone()).collect();
    late.into_iter().for_each(|draft| world.arrive("c/s/b", Flying { origin: "c/s".into(), draft }));
    while world.due("c/s/b") {}
    assert!(world.ask("c/s/b", CASE, Verb::Start, &by("h", Role::Worker), ""));
    world.settle();
    assert_eq!((owner(&world), held(&world, "c").case.status), (vec!["c/s/b"], Status::Handling));
    assert_eq!((refusals(&world, "c"), refusals(&world, "c/s/a")), (vec![BEGUN], vec![BEGUN]));
}

#[test]
fn who_gave_it_and_who_is_above_both_are_called_once_when_nobody_takes_it() {
    let mut world = sent_to("c/s/b");
    let dead = |world: &mut World| {
        for _ in 0..50 {
            lose(world, "c/s/b");
            let line = world.lines.iter().find(|(_, q)| !q.is_empty()).map(|(k, _)| k.clone());
            if let Some(key) = line {
                let flying = world.lines.get_mut(&key).unwrap().remove(0);
                world.arrive(&key.1, flying);
            }
            for n in NODES {
                world.due(n);
            }
        }
    };
    dead(&mut world);
    assert_eq!((calls(&world, "c/s/a"), calls(&world, "c/s")), (0, 0));
    world.now += 3_600_000_000;
    dead(&mut world);
    for n in ["c/s/a", "c/s"] {
        assert_eq!(calls(&world, n), 1, "{n}");
        world.restart(n);
    }
    world.now += 36_000_000_000;
    dead(&mut world);
    assert_eq!((calls(&world, "c/s/a"), calls(&world, "c/s"), calls(&world, "c")), (1, 1, 0));
    assert_eq!(owner(&world), [""; 0], "a call makes nobody an owner");
}

#[test]
fn a_residents_name_goes_no_further_than_whom_to_call() {
    let mut world = World::new();
    let contact = Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() };
    let new = Opening { by: "王大妈".into(), has_contact: true, ..opening(CASE, "G") };
    world.open("c/s/a", new, contact);
    world.open("c/s/a", opening("20261120-1", "G"), Contact::default());
    // One without a name on record says it with her word; asked at home, and elsewhere.
    assert!(world.ask("c/s/a", "20261120-1", Verb::Comment, &by("李大爷", Role::Resident), "1"));
    world.settle();
    assert!(world.ask("c/s", CASE, Verb::Withdraw, &by("王大妈", Role::Resident), "2"));
    assert_eq!(held(&world, "c/s").wishes[0].by, "resident");
    world.settle();
    assert_eq!(held(&world, "c").case.status, Status::Withdrawn);
    assert_eq!(world.places["c/s/a"].cases.get("20261120-1").unwrap().contact.as_ref().unwrap().name, "李大爷");
    for (origin, draft) in &world.places["c"].log {
        let text = String::from_utf8_lossy(draft.parts().1).into_owned();
        assert!(!text.contains("王大妈") && !text.contains("李大爷") && !text.contains("139"), "{origin:?}: {text}");
    }
    // A worker is named: who handled it is no secret.
    assert!(world.ask("c/s/a", "20261120-1", Verb::Accept, &by("小张", Role::Worker), "3"));
    world.settle();
    assert_eq!(world.places["c"].cases.get("20261120-1").unwrap().history.last().unwrap().by, "小张");
}

#[test]
fn whom_to_call_goes_up_only_as_far_as_the_category_needs_it() {
    let mut world = World::new();
    let text = CATEGORIES.replace("name = \"路灯\"", "name = \"路灯\"\ncontact_reach = \"street\"");
    for n in NODES {
        let config = parse(&format!("[node]\naddress = \"{n}\"\ndata = \"d\"\n{text}"), &Variables::new()).config;
        world.places.get_mut(n).unwrap().cases = Cases::new(&config.unwrap());
    }
    let contact = Contact { phone: "139".into(), ..Contact::default() };
    world.open("c/s/a/n", opening(CASE, "L"), contact.clone());
    world.settle();
    let phone = |world: &World, at: &str| held(world, at).contact.as_ref().map(|c| c.phone.clone());
    for (at, knows) in [("c/s/a/n", true), ("c/s/a", true), ("c/s", true), ("c", false)] {
        assert_eq!(phone(&world, at).is_some(), knows, "{at}");
    }
    assert!(world.places["c"].log.iter().all(|(_, d)| !String::from_utf8_lossy(d.parts().1).contains("139")));
    // Nobody else has a word in it.
    let forged = Pen { me: &a("c/s/b"), now: view::time_of(START) };
    let data = serde_json::json!({"case": CASE, "contact": {"phone": "666"}});
    world.commit("c/s", vec![forged.contact(CASE, false, Tier::Street, data)], Some("c/s/b"));
    assert_eq!(phone(&world, "c/s").as_deref(), Some("139"));
    assert!(world.ask("c", CASE, Verb::Forget, &by("boss", Role::Supervisor), "f"));
    world.settle();
    assert!(NODES.iter().all(|n| world.places[*n].cases.get(CASE).is_none_or(|h| h.contact.is_none())));
}

#[test]
fn a_supervisor_urges_tier_by_tier_and_the_clock_below_runs_on() {
    let mut world = World::new();
    world.open("c/s/a/n", opening(CASE, "G"), Contact::default());
    world.settle();
    let due = held(&world, "c").case.clock("response").unwrap().due;
    let urge = |world: &mut World, n: u32| {
        let done = world.ask("c", CASE, Verb::Escalate, &by("督查", Role::Supervisor), &format!("u{n}"));
        world.settle();
        done
    };
    assert!(urge(&mut world, 1));
    assert_eq!((calls(&world, "c/s"), calls(&world, "c")), (1, 0));
    assert!(urge(&mut world, 2));
    assert_eq!((calls(&world, "c/s"), calls(&world, "c")), (1, 1));
    // At the top there is nobody to call, and whoever asked is told.
    assert!(urge(&mut world, 3));
    let city = held(&world, "c");
    assert!(city.wishes[0].refused.as_ref().unwrap().contains("at the top already"), "{:?}", city.wishes);
    assert_eq!((city.case.escalations, city.case.escalated_to.as_ref()), (2, Some(&a("c"))));
    assert_eq!(
        (city.case.clock("response").unwrap().due, owner(&world)),
        (due, vec!["c/s/a"]),
        "nothing else has changed"
    );
    assert_eq!(city.history.iter().filter(|e| e.by == "督查" && e.from == Some(a("c"))).count(), 2);
    // With the case itself: the tier above takes it, and no other.
    assert!(world.ask("c", CASE, Verb::Escalate, &Ask { hand_over: true, ..by("督查", Role::Supervisor) }, "u4"));
    world.settle();
    assert_eq!((owner(&world), held(&world, "c").case.escalated_to.as_ref()), (vec!["c/s"], Some(&a("c"))));
}

#[test]
fn a_case_sent_to_a_node_that_never_was_comes_back_with_the_reason() {
    let mut world = World { has_registry: true, ..World::new() };
    let case = world.open("c/s/a", opening("20261120-0", "G"), Contact::default());
    assert!(world.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker), "1"));
    let to = |node: &str| Ask { to: Some(a(node)), ..by("w", Role::Worker) };
    for (i, nowhere) in ["c/s/x", "c/t/x", "c/s/a/never"].iter().enumerate() {
        assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &to(nowhere), &format!("d{i}")), "{nowhere}");
        world.settle();
        let held = world.places["c/s/a"].cases.get(&case.id).unwrap();
        assert!(world.places["c/s/a"].cases.may_step(&case.id), "{nowhere}: {:?}", held.case.handing_to);
        let last = held.history.last().unwrap();
        assert_eq!((last.step.as_str(), last.to.as_deref()), ("came-back", Some(*nowhere)));
        assert!(last.text.ends_with(&format!("knows no node {nowhere}")), "{}", last.text);
        assert!(held.case.dispatched_by.is_empty());
    }
    // The letter again: it is not sent on now that there is such a node, because its owner steps.
    let again: Vec<Flying> = world.places["c/s"].crossed.iter().map(|(_, f)| f.clone()).collect();
    world.has_registry = false;
    for flying in again {
        world.arrive("c/s", flying);
    }
    world.settle();
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &to("c/s/b"), "good"));
    world.settle();
    assert!(world.places["c/s/b"].cases.may_step(&case.id));
}

#[test]
fn whoever_waits_for_a_case_to_be_taken_is_told_where_to_look() {
    for (to, hint) in [
        ("c/s/b", "at c/s: `citybrain why c/s/b` says what holds it up; `recall` asks for it back"),
        ("c/s/a/n", "at c/s/a: `citybrain why c/s/a/n` says what holds it up; `recall` asks for it back"),
        ("c/s", "here: `citybrain links` says whether the tier above is heard; `recall` asks for it back"),
        ("c", "here: `citybrain links` says whether the tier above is heard; `recall` asks for it back"),
    ] {
        let world = sent_to(to);
        let cases = &world.places["c/s/a"].cases;
        let refusal = cases.ask(CASE, Verb::Start, &by("w", Role::Worker), "", world.now).err().unwrap();
        assert_eq!((refusal.error, refusal.hint.as_str()), ("on-its-way", hint), "{to}");
    }
}

#[test]
fn a_summons_to_a_node_that_never_was_is_told_to_the_owner() {
    let mut world = World { has_registry: true, ..World::new() };
    world.open("c/s/a", opening(CASE, "L"), Contact::default());
    assert!(world.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker), ""));
    for there in ["c/s/b", "c/t/x", "c/s/y"] {
        assert!(world.ask("c/s/a", CASE, Verb::Assist, &Ask { to: Some(a(there)), ..by("w", Role::Worker) }, ""));
        world.settle();
    }
    let told = |world: &World, at: &str| -> Vec<(String, String)> {
        let lines = held(world, at).history.iter().filter(|e| e.step == "comment");
        lines.map(|e| (e.by.clone(), e.text.clone())).collect()
    };
    let says = |top: &str, there: &str| (top.to_owned(), format!("{top} knows no node {there}, which was summoned"));
    for at in ["c/s/a", "c/s", "c"] {
        assert_eq!(told(&world, at), [says("c", "c/t/x"), says("c/s", "c/s/y")], "{at}: of each once");
    }
    // Where the owner itself is above it, whoever asks from elsewhere is refused.
    let wish = Ask { to: Some(a("c/s/a/never")), ..by("w", Role::Worker) };
    assert!(world.ask("c/s/b", CASE, Verb::Assist, &wish, "w1"));
    world.settle();
    let refused = held(&world, "c/s/b").wishes[0].refused.clone().unwrap();
    assert!(refused.starts_with("c/s/a knows no node c/s/a/never"), "{refused}");
    assert_eq!(held(&world, "c/s/a").case.assists.len(), 3);
}

#[test]
fn what_is_called_back_already_is_not_called_back_twice() {
    for at in ["c/s/a", "c"] {
        let mut world = sent_to("c/s/b");
        // The step is known, and the letter is not there yet.
        while at == "c" && held(&world, at).case.handing_to.is_none() {
            let mut lines = world.lines.iter_mut().filter(|((_, to), q)| to != "c/s/b" && !q.is_empty());
            let (to, flying) = lines.next().map(|((_, to), q)| (to.clone(), q.remove(0))).unwrap();
            world.arrive(&to, flying);
        }
        lose(&mut world, "c/s/b");
        assert!(recall(&mut world, at));
        // In other words, and again.
        let why = Ask { text: Some("还是要".into()), ..by("w", Role::Worker) };
        assert!(world.ask(at, CASE, Verb::Recall, &why, "another"));
        assert_eq!(held(&world, at).wishes.len(), 1, "{at}");
        world.settle();
        let is_back = |e: &&Entry| ["came-back", "recalled"].contains(&e.step.as_str());
        let back = held(&world, "c").history.iter().filter(is_back).count();
        assert_eq!((back, held(&world, at).wishes.len()), (1, 0), "{at}: {:?}", held(&world, "c").history);
    }
}

#[test]
fn what_is_forgotten_is_forgotten_by_everybody_who_had_it() {
    let mut world = World::new();
    open_with_contact(&mut world, "c/s/a/n", "L");
    world.settle();
    let mut at = "c/s/a/n";
    for (i, to) in ["c/s/a", "c/s/b"].iter().enumerate() {
        if i == 0 {
            assert!(world.ask(at, CASE, Verb::Accept, &by("w", Role::Worker), "acc"));
        }
        let ask = Ask { to: Some(a(to)), ..by("w", Role::Worker) };
        assert!(world.ask(at, CASE, Verb::Dispatch, &ask, &format!("d{i}")));
        if i == 1 {
            deaf(&mut world, at);
        }
        world.settle();
        at = to;
    }
    let keeps = ["c/s/a", "c/s/b"];
    assert!(
        NODES.iter().all(|n| knows_whom_to_call(&world, n) == keeps.contains(n)),
        "one has not heard that it was taken"
    );
    // Asked for at the city, which holds a copy only.
    assert!(world.ask("c", CASE, Verb::Forget, &by("boss", Role::Supervisor), "f"));
    world.settle();
    for n in NODES {
        assert!(world.places[n].cases.get(CASE).unwrap().case.forgotten, "{n} has not heard of it");
        assert!(!knows_whom_to_call(&world, n), "{n} still knows whom to call");
        world.restart(n);
        assert!(!knows_whom_to_call(&world, n), "{n} knows it again after a restart");
    }
    assert!(world.places["c/s/b"].cases.get(CASE).unwrap().history.len() >= 6, "the history is whole");
    assert!(!world.ask("c/s/b", CASE, Verb::Forget, &by("boss", Role::Supervisor), "f2"), "once is enough");
}

#[test]
fn what_is_forgotten_is_forgotten_also_where_only_one_node_knows_that_it_was() {
    let mut world = World::new();
    open_with_contact(&mut world, "c/s/a", "N");
    let to = |node: &str| Ask { to: Some(a(node)), ..by("w", Role::Worker) };
    assert!(world.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &to("c/s/a/n"), ""));
    world.settle();
    assert!(world.ask("c/s/a/n", CASE, Verb::Return, &by("h", Role::Worker), ""));
    deaf(&mut world, "c/s/a/n");
    world.settle();
    // Nobody above the community has seen any of this.
    assert!(world.places["c/s"].cases.get(CASE).is_none());
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &to("c/s/b"), ""));
    world.settle();
    // The one that had it in between has never heard that it was taken.
    assert!(
        knows_whom_to_call(&world, "c/s/b")
            && knows_whom_to_call(&world, "c/s/a/n")
            && !knows_whom_to_call(&world, "c/s/a")
    );
    assert!(world.ask("c/s/b", CASE, Verb::Forget, &by("boss", Role::Supervisor), ""));
    world.settle();
    assert!(NODES.iter().all(|n| !knows_whom_to_call(&world, n)));
    for n in ["c/s/a/n", "c/s/a", "c/s", "c/s/b"] {
        assert!(world.places[n].cases.get(CASE).unwrap().case.forgotten, "{n}");
    }
}

/// Everything that is under way comes in, but nothing to this node.
fn deaf(world: &mut World, at: &str) {
    for _ in 0..300 {
        lose(world, at);
        for n in NODES {
            world.due(n);
        }
        let line = world.lines.iter().find(|((_, to), q)| to != at && !q.is_empty()).map(|(k, _)| k.clone());
        if let Some(key) = line {
            let flying = world.lines.get_mut(&key).unwrap().remove(0);
            world.arrive(&key.1, flying);
        }
    }
    lose(world, at);
}

/// Nodes whose contacts travel, or not.
fn travelling(world: &mut World, at: &str, travels: bool) {
    world.places.get_mut(at).unwrap().cases.settings.contact_travels = travels;
}

/// A case with somebody to call that was accepted there.
fn with_phone(world: &mut World, at: &str, category: &str) {
    open_with_contact(world, at, category);
    assert!(world.ask(at, CASE, Verb::Accept, &by("w", Role::Worker), ""));
    world.settle();
}

fn knowing(world: &World) -> Vec<&'static str> {
    NODES.into_iter().filter(|n| knows_whom_to_call(world, n)).collect()
}

#[test]
fn whom_to_call_is_kept_where_it_was_said_if_it_does_not_travel() {
    let mut world = World::new();
    travelling(&mut world, "c/s/a", false);
    with_phone(&mut world, "c/s/a", "L");
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    world.settle();
    assert_eq!((owner(&world), knowing(&world)), (vec!["c/s/b"], vec!["c/s/a"]));
    assert!(world.ask("c/s/b", CASE, Verb::Return, &by("h", Role::Worker), ""));
    world.settle();
    assert_eq!((owner(&world), knowing(&world)), (vec!["c/s/a"], vec!["c/s/a"]));
}

#[test]
fn whoever_gave_a_number_has_it_again_with_the_case_that_is_returned() {
    let mut world = World::new();
    travelling(&mut world, "c/s/b", false);
    with_phone(&mut world, "c/s/a", "L");
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    world.settle();
    assert_eq!(knowing(&world), ["c/s/b"]);
    assert!(world.ask("c/s/b", CASE, Verb::Return, &by("h", Role::Worker), ""));
    world.settle();
    assert_eq!((owner(&world), knowing(&world)), (vec!["c/s/a"], vec!["c/s/a"]));
}

#[test]
fn a_hand_over_that_comes_behind_its_recall_leaves_no_number_behind() {
    let mut world = World::new();
    with_phone(&mut world, "c/s/a", "L");
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    let line = ("c/s/a".to_owned(), "c/s".to_owned());
    let late: Vec<Flying> = std::mem::take(world.lines.get_mut(&line).unwrap());
    assert!(recall(&mut world, "c/s/a"));
    world.settle();
    for flying in late {
        world.arrive("c/s", flying);
    }
    world.settle();
    assert_eq!((owner(&world), knowing(&world)), (vec!["c/s/a"], vec!["c/s/a"]));
}

#[test]
fn a_number_that_a_later_press_brings_goes_to_whoever_has_the_case() {
    let mut world = World::new();
    let press = |world: &mut World, id: &str, contact: &Contact| {
        let new =
            Opening { id: id.into(), button: Some("b".into()), sos: true, by: "event".into(), ..Opening::default() };
        let cases = &world.places["c/s/a"].cases;
        let drafts = match cases.pressed_again(&new, contact, world.now) {
            Some((_, drafts)) => drafts,
            None => cases.open(new, contact.clone(), world.now).1,
        };
        world.commit("c/s/a", drafts, None);
        world.settle();
    };
    press(&mut world, CASE, &Contact::default());
    assert!(world.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    world.settle();
    press(&mut world, "20261120-1", &Contact { phone: "139".into(), ..Contact::default() });
    assert_eq!((owner(&world), knowing(&world)), (vec!["c/s/b"], vec!["c/s/b"]));
    for (_, draft) in &world.places["c"].log {
        assert!(!String::from_utf8_lossy(draft.parts().1).contains("139"));
    }
}

#[test]
fn whom_to_call_stays_with_a_giver_only_until_the_case_was_taken() {
    let mut world = World::new();
    open_with_contact(&mut world, "c/s/a", "G");
    assert!(world.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker), ""));
    world.settle();
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    assert!(knows_whom_to_call(&world, "c/s/a"), "it is still on its way");
    world.settle();
    assert!(knows_whom_to_call(&world, "c/s/b") && !knows_whom_to_call(&world, "c/s/a"));
    world.restart("c/s/a");
    assert!(!knows_whom_to_call(&world, "c/s/a"));
    assert!(world.ask(
        "c/s/b",
        CASE,
        Verb::Return,
        &Ask { text: Some("not ours".into()), ..by("h", Role::Worker) },
        ""
    ));
    world.settle();
    assert!(knows_whom_to_call(&world, "c/s/a") && !knows_whom_to_call(&world, "c/s/b"));
}

#[test]
fn what_people_say_of_a_case_that_was_taken_keeps_nobody_from_calling_it_back() {
    let mut world = sent_to("c/s/b");
    // Its giver has not heard that it was taken.
    let line = ("c/s".to_owned(), "c/s/a".to_owned());
    while world.lines.iter().any(|(l, q)| *l != line && !q.is_empty()) || NODES.iter().any(|n| world.due(n)) {
        let key = world.lines.iter().find(|(l, q)| **l != line && !q.is_empty()).map(|(l, _)| l.clone());
        let Some(key) = key else { continue };
        let flying = world.lines.get_mut(&key).unwrap().remove(0);
        world.arrive(&key.1, flying);
    }
    assert_eq!(owner(&world), ["c/s/b"]);
    assert!(world.ask("c/s/b", CASE, Verb::Comment, &by("r", Role::Resident), ""));
    assert!(recall(&mut world, "c/s/a"));
    world.settle();
    assert_eq!((owner(&world), held(&world, "c/s/a").case.dispatched_by.len()), (vec!["c/s/a"], 0));
}

#[test]
fn a_return_that_was_called_back_goes_to_the_same_node_when_it_is_made_again() {
    let mut world = sent_to("c/s/b");
    world.settle();
    let back = ("c/s/b".to_owned(), "c/s".to_owned());
    assert!(world.ask("c/s/b", CASE, Verb::Return, &by("h", Role::Worker), ""));
    // Called back before it has come.
    let late = std::mem::take(world.lines.get_mut(&back).unwrap());
    assert!(recall(&mut world, "c/s/b"));
    world.settle();
    late.into_iter().for_each(|flying| world.arrive("c/s", flying));
    world.settle();
    assert_eq!((owner(&world), &held(&world, "c/s/b").case.dispatched_by), (vec!["c/s/b"], &vec![a("c/s/a")]));
    assert!(world.ask("c/s/b", CASE, Verb::Dispatch, &by("w", Role::Worker), ""));
    assert!(world.ask("c/s/b", CASE, Verb::Return, &by("h", Role::Worker), ""));
    world.settle();
    assert_eq!((owner(&world), held(&world, "c/s/a").case.dispatched_by.len()), (vec!["c/s/a"], 0));
}

/// Where a letter with a telephone number lies in the log and is of a case that the node never had.
fn passing(world: &World) -> Vec<&'static str> {
    let is_passing = |cases: &Cases, (origin, draft): &(Option<String>, Draft)| {
        with_origin(draft, origin.as_deref(), |h, p| {
            String::from_utf8_lossy(p).contains("\"phone\":\"139\"") && cases.is_passing(h, p)
        })
    };
    let lies = |n: &&str| world.places[*n].log.iter().any(|record| is_passing(&world.places[*n].cases, record));
    NODES.into_iter().filter(lies).collect()
}

fn reading(world: &World) -> Vec<&'static str> {
    let has = |(_, draft): &(Option<String>, Draft)| {
        let (header, payload) = draft.parts();
        header.name == letter::LETTER && String::from_utf8_lossy(payload).contains("\"phone\":\"139\"")
    };
    NODES.into_iter().filter(|n| world.places[*n].log.iter().any(has)).collect()
}

#[test]
fn a_letter_that_passes_through_is_known_as_one_where_the_case_never_was() {
    let mut world = World::new();
    open_with_contact(&mut world, "c/s/a/n", "L");
    assert!(world.ask("c/s/a/n", CASE, Verb::Accept, &by("w", Role::Worker), ""));
    let to_b = Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) };
    assert!(world.ask("c/s/a/n", CASE, Verb::Dispatch, &to_b, ""));
    world.settle();
    assert_eq!(owner(&world), ["c/s/b"]);
    assert_eq!(reading(&world), ["c/s", "c/s/a", "c/s/b", "c/s/a/n"]);
    assert_eq!(passing(&world), ["c/s", "c/s/a"], "giver and taker have it; those between do not");
}

#[test]
fn a_resident_who_wants_a_case_called_back_is_told_that_he_may_not() {
    let mut world = sent_to("c/s/b");
    let refused = world.places["c/s/a"].cases.ask(CASE, Verb::Recall, &by("王大妈", Role::Resident), "r", START);
    assert_eq!(refused.unwrap_err().error, "not-your-role");
    world.settle();
    assert_eq!(owner(&world), ["c/s/b"]);
}

#[test]
fn what_comes_back_from_a_unit_that_never_had_it_waits_for_its_dispatch_again() {
    let to = |node: &str| Ask { to: Some(a(node)), unit: Some("环卫所".into()), ..by("w", Role::Worker) };
    for is_recalled in [false, true] {
        let mut world = World { has_registry: true, ..World::new() };
        world.open("c/s/a", opening(CASE, "G"), Contact::default());
        assert!(world.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker), "1"));
        assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &to(if is_recalled { "c/s/b" } else { "c/s/x" }), "2"));
        if is_recalled {
            assert!(recall(&mut world, "c/s/a"));
        }
        world.settle();
        assert_eq!(owner(&world), ["c/s/a"]);
        let case = &held(&world, "c/s/a").case;
        assert_eq!((case.status, case.unit.as_str(), case.returns), (Status::Accepted, "", 0), "{is_recalled}");
        let (dispatch, solution) = (case.clock("dispatch").unwrap(), case.clock("solution").unwrap());
        assert!(dispatch.runs() && solution.stopped.is_some() && solution.due.is_none(), "{:?}", case.clocks);
        assert!(allowed(case).contains(&Verb::Dispatch));
    }
}
