//! Cases that were merged into others, and what becomes of them.

use super::*;

const AT: &str = "c/s/a";

fn open(world: &mut World, ids: &[&str], category: &str) {
    for id in ids {
        let (_, drafts) = world.places[AT].cases.open(opening(id, category), Contact::default(), START);
        world.commit(AT, drafts, None);
        assert!(world.ask(AT, id, Verb::Accept, &by("w", Role::Worker), ""));
    }
    world.settle();
}

fn merge(world: &mut World, id: &str, into: &str) {
    assert!(world.ask(AT, id, Verb::Merge, &Ask { into: Some(into.into()), ..by("w", Role::Worker) }, ""), "{id}");
    world.settle();
}

fn case<'w>(world: &'w World, at: &str, id: &str) -> &'w Held {
    world.places[at].cases.get(id).unwrap()
}

fn last<'w>(world: &'w World, at: &str, id: &str) -> (&'w str, &'w str) {
    let entry = case(world, at, id).history.last().unwrap();
    (entry.step.as_str(), entry.text.as_str())
}

#[test]
fn followers_of_a_case_that_nobody_deals_with_are_work_again() {
    let end = |verb: Verb| match verb {
        Verb::Withdraw => by("r", Role::Resident),
        _ => by("boss", Role::Supervisor),
    };
    for verb in [Verb::Withdraw, Verb::Reject] {
        let mut world = World::new();
        open(&mut world, &["p", "q", "r"], "L");
        merge(&mut world, "q", "p");
        merge(&mut world, "p", "r");
        assert!(world.ask(AT, "r", verb, &end(verb), ""));
        world.settle();
        let p = &case(&world, "c", "p").case;
        assert_eq!((p.status, &p.merged_into, p.closed, p.reopened), (Status::Accepted, &None, None, 0));
        assert!(allowed(p).contains(&Verb::Dispatch));
        let (step, text) = last(&world, "c", "p");
        assert!(step == "unmerged" && text.starts_with("r, which it followed, is "), "{text}");
        assert_eq!(owners_of(world.places.iter().map(|(n, p)| (n.as_str(), &p.cases)), "p"), [AT]);
        let followers = |id: &str| world.places["c"].cases.followers(&case(&world, "c", id).case);
        assert_eq!((followers("r"), followers("p")), (vec![], vec!["q".to_owned()]));
        // What follows it follows it still, until it ends itself.
        let q = &case(&world, "c", "q").case;
        assert_eq!((q.status, q.merged_into.as_deref()), (Status::Closed, Some("p")));
        assert!(world.ask(AT, "p", verb, &end(verb), ""));
        world.settle();
        assert_eq!(case(&world, "c", "q").case.status, Status::Accepted);
        world.restart(AT);
        assert!(!world.due(AT), "once");
    }
}

#[test]
fn followers_hear_how_their_leader_ended_wherever_it_went_and_that_it_is_open_again() {
    let mut world = World::new();
    open(&mut world, &["p", "q", "r"], "L");
    merge(&mut world, "q", "p");
    assert!(world.ask(AT, "p", Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    world.settle();
    assert!(world.ask("c/s/b", "p", Verb::Start, &by("h", Role::Worker), ""));
    let done = Ask { text: Some("已修好".into()), ..by("h", Role::Worker) };
    assert!(world.ask("c/s/b", "p", Verb::Resolve, &done, ""));
    assert!(world.ask(
        "c/s/b",
        "p",
        Verb::Evaluate,
        &Ask { solved: Some(Solved::Solved), ..by("r", Role::Resident) },
        ""
    ));
    assert!(world.ask("c/s/b", "p", Verb::Close, &by("boss", Role::Supervisor), ""));
    world.settle();
    assert_eq!(last(&world, "c", "q"), ("followed", "p, which it follows, is closed (solved): 已修好"));
    assert_eq!(case(&world, "c", "q").history.last().unwrap().to.as_deref(), Some("solved"));
    assert!(world.ask("c/s/b", "p", Verb::Reopen, &by("r", Role::Resident), ""));
    world.settle();
    assert_eq!(last(&world, "c", "q"), ("followed", "p, which it follows, is open again"));
    // Found to be nobody's business at the second look.
    assert!(world.ask("c/s/b", "p", Verb::Reject, &by("boss", Role::Supervisor), ""));
    world.settle();
    assert_eq!((last(&world, "c", "q").0, case(&world, "c", "q").case.status), ("unmerged", Status::Accepted));
    let lines = case(&world, AT, "q").history.len();
    for n in NODES {
        world.restart(n);
    }
    world.settle();
    assert_eq!(case(&world, AT, "q").history.len(), lines);
}

#[test]
fn a_call_for_help_that_followed_a_false_alarm_calls_again() {
    for is_accepted in [false, true] {
        let mut world = World::new();
        for id in ["p", "q"] {
            let new = Opening { sos: true, ..opening(id, "") };
            let (_, drafts) = world.places[AT].cases.open(new, Contact::default(), START);
            world.commit(AT, drafts, None);
        }
        world.settle();
        // Whoever was to come to it is sent home when it is merged.
        assert!(!is_accepted || world.ask(AT, "q", Verb::Accept, &by("w", Role::Worker), ""));
        merge(&mut world, "q", "p");
        assert_eq!(world.places["c"].cases.calls_for_help().unaccepted, 1);
        let before = calls(&world, AT);
        assert!(world.ask(AT, "p", Verb::Withdraw, &by("r", Role::Resident), ""));
        world.settle();
        let q = &case(&world, "c", "q").case;
        assert_eq!((q.status, &q.accepted_by, calls(&world, AT)), (Status::Submitted, &None, before + 1));
        world.now += 30_000_000;
        world.settle();
        assert_eq!((calls(&world, "c/s"), case(&world, "c", "q").case.escalations), (1, 1), "it climbs");
    }
}

#[test]
fn what_became_of_somebodys_emergency_is_told_to_none_of_its_public_followers() {
    // Each follower may be seen by anybody up to the city.
    for (private, word) in [("incident", false), ("below", false), ("", true)] {
        let mut world = World::new();
        open(&mut world, &["q"], "L");
        let leads = Opening { sos: private == "incident", ..opening("p", if private == "below" { "N" } else { "L" }) };
        world.open(AT, leads, Contact::default());
        assert!(world.ask(AT, "p", Verb::Accept, &by("w", Role::Worker), ""));
        merge(&mut world, "q", "p");
        assert!(world.ask(AT, "p", Verb::Dispatch, &by("w", Role::Worker), ""));
        assert!(world.ask(AT, "p", Verb::Start, &by("h", Role::Worker), ""));
        let done = Ask { text: Some("7栋301老人已送医".into()), ..by("h", Role::Worker) };
        assert!(world.ask(AT, "p", Verb::Resolve, &done, ""));
        assert!(world.ask(AT, "p", Verb::Evaluate, &by("r", Role::Resident), ""));
        assert!(world.ask(AT, "p", Verb::Close, &by("boss", Role::Supervisor), ""));
        world.settle();
        let (step, text) = last(&world, AT, "q");
        assert_eq!((step, text.contains("已送医")), ("followed", word), "{private}: {text}");
        assert!(text.starts_with("p, which it follows, is closed (solved)"), "{text}");
    }
}

#[test]
fn a_case_that_is_itself_merged_is_not_said_to_be_like_its_leader() {
    let mut world = World::new();
    let place = citybrain_shared::case::Place { text: "三号门".into(), ..Default::default() };
    for id in ["20261120-p", "20261120-q"] {
        world.open(AT, Opening { place: Some(place.clone()), ..opening(id, "L") }, Contact::default());
        assert!(world.ask(AT, id, Verb::Accept, &by("w", Role::Worker), ""));
    }
    let similar = |world: &World, id: &str| world.places[AT].cases.similar(&case(world, AT, id).case).len();
    assert_eq!((similar(&world, "20261120-p"), similar(&world, "20261120-q")), (1, 1));
    merge(&mut world, "20261120-q", "20261120-p");
    assert_eq!((similar(&world, "20261120-p"), similar(&world, "20261120-q")), (0, 0));
}

#[test]
fn an_appointment_is_like_no_other_case_and_follows_none() {
    let mut world = World::new();
    let place = citybrain_shared::case::Place { text: "理发店".into(), ..Default::default() };
    for (id, booking) in
        [("20261120-p", Some(haircut("c/s"))), ("20261120-q", Some(haircut("c/s"))), ("20261120-r", None)]
    {
        let new = Opening { place: Some(place.clone()), booking, ..opening(id, "L") };
        world.open("c/s", new, Contact::default());
        world.settle();
    }
    let held = |id: &str| case(&world, "c/s", id);
    for id in ["20261120-p", "20261120-r"] {
        assert_eq!(world.places["c/s"].cases.similar(&held(id).case).len(), 0, "{id}");
    }
    assert!(!allowed(&held("20261120-p").case).contains(&Verb::Merge));
    for (id, into, is_taken) in [("20261120-p", "20261120-r", false), ("20261120-r", "20261120-p", true)] {
        let ask = Ask { into: Some(into.into()), ..by("w", Role::Worker) };
        assert_eq!(world.ask("c/s", id, Verb::Merge, &ask, ""), is_taken, "{id}");
    }
    assert_eq!(case(&world, "c/s", "20261120-p").case.booking.as_ref().unwrap().state, Booked::Booked);
}

#[test]
fn a_duplicate_of_another_node_s_case_goes_there_and_follows_it() {
    let mut world = World::new();
    open(&mut world, &["p"], "L");
    let (_, drafts) = world.places["c/s/b"].cases.open(opening("q", "L"), Contact::default(), START);
    world.commit("c/s/b", drafts, None);
    world.settle();
    // Where nobody has heard of the other, it is said who has.
    let into = |id: &str| Ask { into: Some(id.into()), ..by("w", Role::Worker) };
    let refused = world.places["c/s/b"].cases.ask("q", Verb::Merge, &into("p"), "w0", START).unwrap_err();
    assert_eq!(refused.detail, "c/s/b knows no case `p`");
    assert_eq!(refused.hint, "look at its id again; if it is right, a node above may know it: ask at c/s");
    assert!(world.ask("c", "q", Verb::Merge, &into("p"), "w1"));
    world.settle();
    for n in ["c", "c/s", AT, "c/s/b"] {
        let q = &case(&world, n, "q").case;
        assert_eq!((q.status, q.merged_into.as_deref(), &q.merging), (Status::Closed, Some("p"), &None), "{n}");
        assert_eq!((&q.owner, &q.dispatched, q.followers.len()), (&a(AT), &None, 0), "{n}");
    }
    let steps: Vec<&str> = case(&world, "c", "q").history.iter().map(|e| e.step.as_str()).collect();
    assert_eq!(steps, ["submitted", "merging", "taken", "merged"]);
    assert_eq!(case(&world, "c", "p").case.followers, ["q"]);
    assert!(case(&world, "c", "q").wishes.is_empty());
    // It hears how the other ends, as any that follows.
    assert!(world.ask(AT, "p", Verb::Reject, &by("boss", Role::Supervisor), ""));
    world.settle();
    assert_eq!((last(&world, "c/s/b", "q").0, case(&world, "c/s/b", "q").case.status), ("unmerged", Status::Submitted));
}

#[test]
fn a_case_that_nobody_knows_is_looked_for_at_no_node_below_the_one_that_was_asked() {
    let mut world = World::new();
    open(&mut world, &["p"], "L");
    let into = |id: &str| Ask { into: Some(id.into()), ..by("w", Role::Worker) };
    assert!(world.ask("c", "p", Verb::Merge, &into("nope"), "w1"));
    world.settle();
    let wishes = &case(&world, "c", "p").wishes;
    let refused = wishes.last().and_then(|w| w.refused.clone()).expect("the owner's word");
    assert!(refused.contains(&format!("{AT} knows no case `nope`, nor does c")), "{refused}");
    assert!(refused.contains("look at its id again") && !refused.contains("ask at"), "{refused}");
    for empty in ["", " "] {
        let refused = world.places[AT].cases.ask("p", Verb::Merge, &into(empty), "w2", START).unwrap_err();
        assert_eq!(refused.error, "missing", "{empty:?}");
    }
}

#[test]
fn a_duplicate_goes_home_if_what_it_was_to_follow_is_over_or_gone_when_it_comes() {
    let into = |id: &str| Ask { into: Some(id.into()), ..by("w", Role::Worker) };
    // Over.
    let mut world = World::new();
    open(&mut world, &["p"], "L");
    let (_, drafts) = world.places["c/s/b"].cases.open(opening("q", "L"), Contact::default(), START);
    world.commit("c/s/b", drafts, None);
    world.settle();
    assert!(world.ask("c", "q", Verb::Merge, &into("p"), "w1"));
    assert!(world.ask(AT, "p", Verb::Withdraw, &by("r", Role::Resident), ""));
    world.settle();
    let q = &case(&world, "c", "q").case;
    assert_eq!((q.status, &q.owner, &q.merging), (Status::Submitted, &a("c/s/b"), &None));
    let told = case(&world, "c", "q").history.iter().find(|e| e.step == "not-merged").map(|e| e.text.as_str());
    assert_eq!(told, Some("`p` is withdrawn"));
    // Each into the other at once: they pass each other on the way, and each is where it was.
    let mut world = World::new();
    open(&mut world, &["p"], "L");
    let (_, drafts) = world.places["c/s/b"].cases.open(opening("q", "L"), Contact::default(), START);
    world.commit("c/s/b", drafts, None);
    world.settle();
    assert!(world.ask("c", "q", Verb::Merge, &into("p"), "w1"));
    assert!(world.ask("c", "p", Verb::Merge, &into("q"), "w2"));
    world.settle();
    for (id, at) in [("p", AT), ("q", "c/s/b")] {
        let held = &case(&world, "c", id).case;
        assert_eq!((held.status.is_open(), &held.owner, &held.merged_into), (true, &a(at), &None), "{id}");
    }
}

#[test]
fn a_merger_with_what_nobody_here_knows_is_refused_wherever_it_is_said_to_be() {
    let mut world = World::new();
    open(&mut world, &["p"], "L");
    for to in ["othercity/x", "c/s/b"] {
        let ask = Ask { into: Some("no-such".into()), to: Some(a(to)), ..by("w", Role::Worker) };
        let refused = world.places[AT].cases.ask("p", Verb::Merge, &ask, "w1", START).unwrap_err();
        assert_eq!((refused.error, refused.detail.as_str()), ("no-merge", "c/s/a knows no case `no-such`"));
    }
    assert_eq!(case(&world, AT, "p").case.handing_to, None);
}

#[test]
fn a_dispatched_case_that_comes_home_from_a_merger_can_still_be_returned() {
    let mut world = World::new();
    open(&mut world, &["p", "q"], "L");
    assert!(world.ask(AT, "q", Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, ""));
    world.settle();
    let into = Ask { into: Some("p".into()), ..by("w", Role::Worker) };
    assert!(world.ask("c", "q", Verb::Merge, &into, "w1"));
    assert!(world.ask(AT, "p", Verb::Withdraw, &by("r", Role::Resident), ""));
    world.settle();
    assert_eq!(case(&world, "c", "q").case.owner, a("c/s/b"));
    assert!(world.ask("c/s/b", "q", Verb::Return, &Ask { text: Some("不归我们".into()), ..by("w", Role::Worker) }, ""));
    world.settle();
    assert_eq!(case(&world, "c", "q").case.owner, a(AT));
}

#[test]
fn what_is_said_with_a_merger_is_kept_though_the_other_case_is_elsewhere() {
    let mut world = World::new();
    open(&mut world, &["p"], "L");
    let (_, drafts) = world.places["c/s/b"].cases.open(opening("q", "L"), Contact::default(), START);
    world.commit("c/s/b", drafts, None);
    world.settle();
    let why = Ask { into: Some("p".into()), text: Some("同一盏灯".into()), ..by("w", Role::Worker) };
    assert!(world.ask("c", "q", Verb::Merge, &why, "w1"));
    world.settle();
    let merging = case(&world, AT, "q").history.iter().find(|e| e.step == "merging");
    assert_eq!(merging.map(|e| e.text.as_str()), Some("to be merged into p there: 同一盏灯"));
}
