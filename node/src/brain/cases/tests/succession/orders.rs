//! Orders in which a lost disk could give a case two owners, or none, or call somebody twice.

use super::*;
use crate::brain::cases::letters::Posted;

/// A case of `c/s/a` that is accepted there, and known above.
pub(super) fn accepted() -> Net {
    let mut net = Net::new();
    net.open("c/s/a", CASE, "L");
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    net.settle();
    net
}

#[test]
fn what_a_lost_disks_node_owned_is_worked_to_its_close_by_the_box_in_its_place() {
    let mut net = accepted();
    net.replace("c/s/a", 0);
    assert!(net.places["c/s/a"].cases.find(CASE).is_err());
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    let steps: Vec<&str> = net.held("c/s/a").history.iter().map(|e| e.step.as_str()).collect();
    assert_eq!(steps, ["submitted", "accepted", "recovered"], "its history is whole");
    assert!(net.give("c/s/a", "c/s/a"), "dispatched there");
    for (verb, ask) in [
        (Verb::Start, by("h", Role::Worker)),
        (Verb::Resolve, by("h", Role::Worker)),
        (Verb::Evaluate, by("r", Role::Resident)),
        (Verb::Close, by("boss", Role::Supervisor)),
    ] {
        assert!(net.ask("c/s/a", CASE, verb, &ask), "{verb}");
    }
    net.settle();
    assert_eq!(net.held("c").case, net.held("c/s/a").case);
    assert_eq!((net.held("c").case.status, net.held("c").history.len()), (Status::Closed, 8));
    let whole = rates_of(&net.places["c"].cases, None).1;
    assert_eq!((whole.dispatched, &whole), (1, &rates_of(&net.places["c/s/a"].cases, None).1));
}

#[test]
fn an_old_hand_over_that_comes_again_to_another_box_is_not_taken() {
    let mut net = accepted();
    assert!(net.give("c/s/a", "c/s/b"));
    net.settle();
    assert!(net.give("c/s/b", "c/s/a"));
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    // Everything that was ever sent to `b` comes again.
    net.replace("c/s/b", usize::MAX);
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    assert_eq!(net.held("c/s/b").case, net.held("c/s/a").case, "it knows what became of it");
    assert_eq!(net.held("c/s/a").case.term, 3);
}

#[test]
fn what_children_send_again_to_another_box_is_not_taken_again() {
    let mut net = Net::new();
    // Its category is the community's: handed up at once.
    net.open("c/s/a/n", CASE, "G");
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    assert!(net.ask("c/s/a", CASE, Verb::Reject, &by("w", Role::Worker)));
    assert!(net.ask("c/s/a/n", CASE, Verb::Comment, &by("n", Role::Worker)));
    net.settle();
    let lines = net.held("c").history.len();
    net.replace("c/s/a", 0);
    net.settle();
    assert_eq!((net.owners(CASE), net.held("c").case.status), (vec!["c/s/a"], Status::Rejected));
    assert_eq!(net.held("c").history.len(), lines + 1, "recovered, and nothing a second time");
}

#[test]
fn a_case_on_its_way_to_a_lost_disk_comes_to_the_box_in_its_place() {
    // From above both, so that the parent sees it pass and nothing else.
    let mut net = Net::new();
    net.open("c", CASE, "L");
    assert!(net.ask("c", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c", "c/s/a"));
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    let mut net = Net::new();
    net.open("c", CASE, "L");
    assert!(net.ask("c", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c", "c/s/a"));
    // It is in the lost disk's log, and its answer nowhere.
    for key in [("c", "c/s"), ("c/s", "c/s/a")] {
        while net.carry(&(key.0.to_owned(), key.1.to_owned()), Lane::Routine) {}
    }
    net.replace("c/s/a", 0);
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    assert_eq!(net.held("c").history.last().unwrap().step, "recovered");
}

#[test]
fn what_the_lost_node_gave_to_one_below_unseen_from_above_stays_there() {
    let mut net = accepted();
    // Cut from above, it gives the case to its neighbourhood, which takes it; then its disk is lost.
    net.cut("c/s/a");
    assert!(net.give("c/s/a", "c/s/a/n"));
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a/n"]);
    net.cut.clear();
    ["c/s/a/n", "c/s/a/k"].into_iter().for_each(|n| net.cut(n));
    net.replace("c/s/a", 0);
    net.settle();
    // Not before everybody below has spoken.
    assert_eq!(net.owners(CASE), ["c/s/a/n"]);
    let awaited = net.places["c/s/a"].cases.awaited().unwrap();
    assert_eq!((awaited.cases, awaited.parent, awaited.nodes.len()), (1, false, 2));
    assert!(net.places["c/s/a"].cases.is_unproven(CASE), "it is shown as those above know it");
    let refused = net.places["c/s/a"].cases.ask(CASE, Verb::Start, &by("w", Role::Worker), "w", net.now).unwrap_err();
    assert_eq!(refused.error, "not-yet");
    net.cut.clear();
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a/n"]);
    assert_eq!(net.places["c/s/a"].cases.awaited(), None);
    for n in ["c/s/a", "c/s", "c"] {
        assert_eq!(net.held(n).case.owner, a("c/s/a/n"), "{n}");
    }
}

#[test]
fn a_first_box_takes_what_its_children_wrote_before_it_has_heard_from_above() {
    let mut net = Net::empty();
    ["c/s/a", "c/s/a/n"].iter().for_each(|n| net.begin(n));
    net.cut("c/s/a");
    net.open("c/s/a/n", CASE, "G");
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
}

#[test]
fn new_work_of_another_box_does_not_wait_for_what_was_before() {
    let mut net = accepted();
    net.cut("c/s/a/k");
    net.replace("c/s/a", 0);
    net.settle();
    assert!(net.places["c/s/a"].cases.awaited().is_some(), "one below has nothing to say");
    // Its own, one from below, and one from above.
    net.open("c/s/a", "20261120-1", "L");
    net.open("c/s/a/n", "20261120-2", "G");
    net.open("c", "20261120-3", "L");
    assert!(net.ask("c", "20261120-3", Verb::Accept, &by("w", Role::Worker)));
    let to = Ask { to: Some(a("c/s/a")), ..by("w", Role::Worker) };
    assert!(net.ask("c", "20261120-3", Verb::Dispatch, &to));
    net.settle();
    for id in ["20261120-1", "20261120-2", "20261120-3"] {
        assert_eq!(net.owners(id), ["c/s/a"], "{id}");
    }
    assert_eq!(net.owners(CASE), [""; 0]);
}

/// Everything that this line has, in both lanes.
pub(super) fn drain(net: &mut Net, from: &str, to: &str) {
    let key = (from.to_owned(), to.to_owned());
    while net.carry(&key, Lane::Urgent) || net.carry(&key, Lane::Routine) {}
}

#[test]
fn a_hand_over_that_came_back_is_not_sent_on_by_another_box_where_it_turns() {
    let mut net = Net::empty();
    ["c", "c/s", "c/s/a"].iter().for_each(|n| net.begin(n));
    net.settle();
    net.open("c/s/a", CASE, "L");
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c/s/a", "c/s/b"));
    net.settle();
    assert_eq!(net.held("c/s/a").history.last().unwrap().step, "came-back");
    // The letter comes again, to a box that has not sent it back; later there is such a node.
    net.replace("c/s", 0);
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    net.begin("c/s/b");
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    assert!(net.give("c/s/a", "c/s/b"));
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/b"]);
}

#[test]
fn a_word_that_a_hand_over_came_back_counts_before_the_roll_is_answered() {
    let mut net = Net::empty();
    ["c", "c/s", "c/s/a"].iter().for_each(|n| net.begin(n));
    net.settle();
    net.open("c/s/a", CASE, "L");
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c/s/a", "c/s/b"));
    drain(&mut net, "c/s/a", "c/s");
    net.due("c/s");
    drain(&mut net, "c/s", "c/s/a");
    assert_eq!(net.owners(CASE), [""; 0], "it has come, and is not decided yet");
    net.replace("c/s", 0);
    // The new box calls, and hears the answer, before the giver has dealt with that word.
    for _ in 0..4 {
        net.due("c/s");
        drain(&mut net, "c/s", "c");
        net.due("c");
        drain(&mut net, "c", "c/s");
        drain(&mut net, "c/s", "c/s/a");
        drain(&mut net, "c/s/a", "c/s");
    }
    net.begin("c/s/b");
    net.settle();
    assert_eq!(net.owners(CASE).len(), 1);
}

fn calls(net: &Net, at: &str) -> usize {
    net.places[at].called.len()
}

#[test]
fn a_box_in_place_of_another_calls_nobody_for_what_was_called_for_before() {
    for (urgent, again) in [(true, 0), (false, 0), (true, 9), (false, 9)] {
        let mut net = Net::new();
        let new = Opening { sos: urgent, ..opening(CASE, "L") };
        let (_, drafts) = net.places["c/s/a/n"].cases.open(new, Contact::default(), net.now);
        net.commit("c/s/a/n", drafts, None);
        net.settle();
        assert!(net.ask("c/s/a/n", CASE, Verb::Escalate, &by("w", Role::Worker)));
        assert!(net.ask("c/s/a/n", CASE, Verb::Escalate, &by("w", Role::Worker)));
        net.settle();
        assert_eq!((calls(&net, "c/s/a"), calls(&net, "c/s")), (1, 1));
        for (n, below) in [("c/s", "c/s/a"), ("c/s/a", "c/s/a/n"), ("c/s", "c/s/a")] {
            net.replace(n, again);
            // Those below are the first to speak.
            drain(&mut net, below, n);
            net.settle();
            assert_eq!(calls(&net, n), 0, "{n}");
        }
        // What is new is called for.
        assert!(net.ask("c/s/a/n", CASE, Verb::Escalate, &by("w", Role::Worker)));
        net.settle();
        assert_eq!(calls(&net, "c"), 1);
    }
}

#[test]
fn a_box_in_place_of_another_calls_for_what_that_one_may_not_have_heard_of() {
    let mut net = Net::new();
    net.open("c/s/a", CASE, "L");
    net.settle();
    net.cut("c/s/a");
    assert!(net.ask("c/s/a", CASE, Verb::Escalate, &by("w", Role::Worker)));
    net.settle();
    net.replace("c/s", 0);
    net.cut.clear();
    net.settle();
    assert_eq!(calls(&net, "c/s"), 1);
    net.restart("c/s");
    net.settle();
    assert_eq!(calls(&net, "c/s"), 1);
}

#[test]
fn a_box_in_place_of_another_calls_nobody_for_what_is_over_or_has_been_accepted() {
    for last in [Verb::Reject, Verb::Accept] {
        let mut net = Net::new();
        net.open("c/s/a", CASE, "L");
        net.settle();
        net.cut("c/s/a");
        assert!(net.ask("c/s/a", CASE, Verb::Escalate, &by("w", Role::Worker)));
        assert!(net.ask("c/s/a", CASE, last, &by("w", Role::Worker)));
        net.settle();
        net.replace("c/s", 0);
        net.cut.clear();
        drain(&mut net, "c/s/a", "c/s");
        net.settle();
        assert_eq!(calls(&net, "c/s"), 0, "{last}");
    }
}

#[test]
fn a_call_for_help_does_not_wait_for_a_city_that_cannot_be_reached() {
    let mut net = Net::new();
    ["c/s", "c/s/a/n"].into_iter().for_each(|n| net.cut(n));
    let new = Opening { sos: true, ..opening(CASE, "L") };
    let (_, drafts) = net.places["c/s/a"].cases.open(new, Contact::default(), net.now);
    net.replace("c/s", 0);
    net.commit("c/s/a", drafts, None);
    assert!(net.ask("c/s/a", CASE, Verb::Escalate, &by("w", Role::Worker)));
    drain(&mut net, "c/s/a", "c/s");
    net.settle();
    assert_eq!(calls(&net, "c/s"), 1);
    assert!(net.places["c/s"].cases.awaited().is_some());
}

#[test]
fn what_a_box_wrote_that_is_lost_is_not_believed_of_the_one_in_its_place() {
    let mut net = Net::new();
    net.cut("c/s/a");
    // Handed up at once, taken, and given to another below, of which nobody above hears.
    net.open("c/s/a/k", CASE, "G");
    net.settle();
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c/s/a", "c/s/a/n"));
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a/n"]);
    // Both ends of the letter are lost. It has come again by then, and its new sender knows of no other box.
    net.cut("c/s/a/n");
    net.replace("c/s/a", 0);
    drain(&mut net, "c/s/a/k", "c/s/a");
    net.replace("c/s/a/k", 0);
    net.cut.retain(|(from, to)| from == "c/s/a/n" || to == "c/s/a/n");
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a/n"]);
    net.cut.clear();
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a/n"]);
}

#[test]
fn a_hand_over_that_was_called_back_is_not_taken_by_another_box_to_which_it_comes_again() {
    for again in 0..8 {
        let mut net = Net::new();
        net.open("c/s", CASE, "L");
        assert!(net.ask("c/s", CASE, Verb::Accept, &by("w", Role::Worker)));
        assert!(net.give("c/s", "c/s/a/n"));
        // The letter is lost on its way, and called back before the box there in between sends it again.
        drain(&mut net, "c/s", "c/s/a");
        net.replace("c/s/a", 0);
        net.cut("c/s/a/k");
        net.settle();
        assert!(net.ask("c/s", CASE, Verb::Recall, &by("w", Role::Worker)));
        net.settle();
        assert_eq!(net.owners(CASE), ["c/s"]);
        net.cut.clear();
        net.settle();
        net.replace("c/s/a/n", again);
        net.settle();
        assert_eq!(net.owners(CASE), ["c/s"], "{again}");
    }
}

#[test]
fn what_a_lost_disks_node_did_while_it_was_cut_off_is_known_from_below() {
    for last in [Verb::Comment, Verb::Withdraw] {
        let mut net = Net::new();
        // Many of them, so that they come in parts.
        let ids: Vec<String> = (0..40).map(|i| format!("20261120-{i:02}")).collect();
        ids.iter().for_each(|id| net.open("c/s/a/k", id, "G"));
        net.settle();
        net.cut("c/s/a");
        for id in &ids {
            assert!(net.ask("c/s/a", id, Verb::Accept, &by("w", Role::Worker)));
            assert!(net.ask("c/s/a", id, last, &by("boss", Role::Supervisor)));
        }
        net.settle();
        net.replace("c/s/a", 0);
        net.cut.clear();
        net.settle();
        for id in &ids {
            assert_eq!(net.owners(id), ["c/s/a"]);
            let held = net.places["c/s/a"].cases.get(id).unwrap();
            let is = if last == Verb::Comment { Status::Accepted } else { Status::Withdrawn };
            assert_eq!((held.case.status, held.history.last().unwrap().step.as_str()), (is, "recovered"));
            for n in ["c", "c/s", "c/s/a/k"] {
                assert_eq!(net.places[n].cases.get(id).unwrap().case, held.case, "{n}");
            }
        }
    }
}

#[test]
fn two_neighbours_that_are_lost_at_once_agree_with_what_one_below_has_seen() {
    let mut net = Net::new();
    net.open("c/s/a/k", CASE, "G");
    net.settle();
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    net.settle();
    // Up and down between the two, of which only the one below hears.
    net.cut("c/s/a");
    for (from, to) in [("c/s/a", "c/s/a/n"), ("c/s/a/n", "c/s/a"), ("c/s/a", "c/s/a/n")] {
        assert!(net.give(from, to));
        net.settle();
        assert_eq!(net.owners(CASE), [to]);
    }
    let seen = net.held("c/s/a/k").case.order();
    net.replace("c/s/a", 0);
    net.replace("c/s/a/n", 0);
    net.cut.clear();
    net.settle();
    let owner = net.owners(CASE)[0].to_owned();
    assert!(net.held(&owner).case.order() > seen, "{owner}");
    for n in TREE.into_iter().filter(|n| *n != "c/s/b") {
        assert_eq!(net.held(n).case, net.held(&owner).case, "{n}");
    }
}

#[test]
fn a_case_that_came_back_unseen_from_above_is_known_from_the_box_in_place_of_its_giver() {
    // Before the giver's new box has called, or when it has heard all.
    for is_settled in [false, true] {
        let mut net = accepted();
        assert!(net.give("c/s/a", "c/s/a/n"));
        net.settle();
        net.cut("c/s/a");
        assert!(net.give("c/s/a/n", "c/s/a"));
        net.settle();
        assert_eq!((net.owners(CASE), net.held("c").case.owner.as_str()), (vec!["c/s/a"], "c/s/a/n"));
        let taken = net.held("c/s/a").case.order();
        // What became of the hand-over comes again, and nothing else of it is left.
        net.replace("c/s/a/n", 1);
        drain(&mut net, "c/s/a", "c/s/a/n");
        if is_settled {
            net.settle();
        }
        assert_eq!((net.held("c/s/a/n").case.order(), net.held("c/s/a/n").case.owner.as_str()), (taken, "c/s/a"));
        net.replace("c/s/a", 0);
        net.cut.clear();
        net.settle();
        assert_eq!(net.owners(CASE), ["c/s/a"]);
        let case = net.held("c/s/a").case.clone();
        assert_eq!(case.order(), (taken.0 + 2, taken.1 + 1), "in a term that the lost box cannot have used");
        let steps: Vec<&str> = net.held("c/s/a").history.iter().map(|e| e.step.as_str()).collect();
        assert_eq!(steps, ["submitted", "accepted", "dispatched", "taken", "dispatched", "taken", "recovered"]);
        for n in ["c", "c/s", "c/s/a/n"] {
            assert_eq!(net.held(n).case, case, "{n}");
        }
        net.restart("c/s/a");
        net.settle();
        assert_eq!(net.owners(CASE), ["c/s/a"]);
    }
}

#[test]
fn nobody_below_says_how_a_case_stands_that_never_came_to_him() {
    let mut net = accepted();
    net.cut("c/s/a");
    net.replace("c/s/a", 0);
    net.settle();
    let log = net.places["c/s/a"].log;
    let mut case = net.held("c/s").case.clone();
    (case.term, case.status) = (99, Status::Withdrawn);
    // It says of itself that it had it; nobody else does.
    let mut history = net.held("c/s").history.clone();
    history.iter_mut().for_each(|line| (line.node, line.term) = (a("c/s/a/n"), 98));
    let body = letter::Body::Returned { log, case, history, coming: Vec::new(), sent_back: None, contact: None };
    let letter = Letter {
        id: "f".into(),
        from: a("c/s/a/n"),
        via: None,
        to: a("c/s/a"),
        urgent: false,
        at: None,
        again: 0,
        takes_back: Vec::new(),
        body,
    };
    let draft = Pen { me: &a("c/s/a/n"), now: view::time_of(net.now) }.letter(&letter).unwrap();
    net.commit("c/s/a", vec![draft.clone()], Some(&Carried { n: 1 << 60, origin: "c/s/a/n".into(), draft }));
    assert_eq!(net.places["c/s/a"].cases.waiting.len(), 1, "it is judged when everybody has spoken");
    net.cut.clear();
    net.settle();
    let held = net.held("c/s/a");
    assert_eq!((held.case.status, held.case.term, held.history.len()), (Status::Accepted, 3, 3));
}

/// A case on its way to a box that was replaced meanwhile and waits there for the word of one below.
fn waiting_for_one_below() -> Net {
    let mut net = Net::new();
    net.open("c/s/b", CASE, "L");
    assert!(net.ask("c/s/b", CASE, Verb::Accept, &by("w", Role::Worker)));
    net.settle();
    net.cut("c/s/a");
    assert!(net.give("c/s/b", "c/s/a"));
    net.settle();
    net.replace("c/s/a", 0);
    net.cut.clear();
    net.cut("c/s/a/n");
    net.settle();
    assert!(!net.places["c/s/a"].cases.waiting.is_empty());
    net
}

pub(super) fn wishes_sent(net: &Net, from: &str, to: &str) -> usize {
    let sent = net.lines[&(from.to_owned(), to.to_owned())].sent.iter();
    sent.filter(|r| String::from_utf8_lossy(r.draft.parts().1).contains("\"letter\":\"ask\"")).count()
}

#[test]
fn what_residents_want_of_a_case_that_waits_for_the_word_of_those_below_is_done_once_it_is_there() {
    let mut net = waiting_for_one_below();
    let said = |text: &str| Ask { text: Some(text.into()), ..by("r", Role::Resident) };
    assert!(net.ask("c/s/b", CASE, Verb::Comment, &said("还在漏")));
    assert!(net.ask("c", CASE, Verb::Comment, &said("很急")));
    net.settle();
    assert_eq!(wishes_sent(&net, "c/s", "c/s/b"), 0, "they are not sent to and fro");
    net.restart("c/s/a");
    net.settle();
    assert!(net.held("c/s/b").wishes.iter().all(|w| w.refused.is_none()));
    net.cut.clear();
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    for at in ["c", "c/s/a", "c/s/b"] {
        let held = net.held(at);
        let words: Vec<&str> = held.history.iter().map(|e| e.text.as_str()).filter(|t| !t.is_empty()).collect();
        assert!(words.contains(&"还在漏") && words.contains(&"很急"), "{at}: {words:?}");
        assert!(held.wishes.is_empty(), "{at}: {:?}", held.wishes);
    }
}

#[test]
fn what_others_want_of_a_case_that_waits_for_the_word_of_those_below_is_refused_at_once() {
    let mut net = waiting_for_one_below();
    assert!(net.ask("c", CASE, Verb::Escalate, &by("w", Role::Worker)));
    net.settle();
    let wishes = &net.held("c").wishes;
    let why = wishes.iter().find_map(|w| w.refused.as_deref()).unwrap_or_default();
    assert!(why.contains("is on its way to c/s/a and has not been taken yet"), "{wishes:?}");
    assert_eq!((wishes_sent(&net, "c/s", "c/s/a"), wishes_sent(&net, "c/s", "c/s/b")), (1, 0));
    net.cut.clear();
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
}

#[test]
fn what_residents_wanted_of_a_lost_box_is_done_by_the_one_in_its_place_and_once() {
    let said = |text: &str| Ask { text: Some(text.into()), ..by("r", Role::Resident) };
    let texts = |net: &Net, text: &str| net.held("c").history.iter().filter(|e| e.text == text).count();
    let mut net = accepted();
    assert!(net.ask("c", CASE, Verb::Comment, &said("还在漏")));
    net.settle();
    assert_eq!(texts(&net, "还在漏"), 1);
    // The second is in the lost disk's log, and its answer nowhere.
    assert!(net.ask("c", CASE, Verb::Comment, &said("很急")));
    for key in [("c", "c/s"), ("c/s", "c/s/a")] {
        while net.carry(&(key.0.to_owned(), key.1.to_owned()), Lane::Routine) {}
    }
    net.replace("c/s/a", usize::MAX);
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    assert_eq!((texts(&net, "还在漏"), texts(&net, "很急")), (1, 1));
    assert!(net.held("c").wishes.is_empty(), "{:?}", net.held("c").wishes);
}

#[test]
fn a_step_that_was_refused_long_ago_is_not_done_when_its_owners_box_is_replaced() {
    let mut net = Net::new();
    net.open("c/s/a/n", CASE, "G");
    net.settle();
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c/s/a", "c/s/a"));
    assert!(net.ask("c/s/a", CASE, Verb::Start, &by("h", Role::Worker)));
    net.settle();
    // Too early, and so refused.
    assert!(net.ask("c/s/a/n", CASE, Verb::Reopen, &by("r", Role::Resident)));
    net.settle();
    for (verb, ask) in [
        (Verb::Resolve, by("h", Role::Worker)),
        (Verb::Evaluate, by("r", Role::Resident)),
        (Verb::Close, by("boss", Role::Supervisor)),
    ] {
        assert!(net.ask("c/s/a", CASE, verb, &ask), "{verb}");
    }
    net.settle();
    net.replace("c/s/a", 0);
    net.settle();
    assert_eq!((net.held("c").case.status, net.held("c").case.reopened), (Status::Closed, 0));
}

#[test]
fn a_wish_is_done_as_soon_as_its_case_is_taken_whatever_else_a_new_box_waits_for() {
    let said = Ask { text: Some("还在漏".into()), ..by("r", Role::Resident) };
    let was_heard = |net: &Net| net.held("c/s/a").history.iter().filter(|e| e.text == "还在漏").count();
    // A first box, whose child is believed at once.
    let mut net = Net::empty();
    ["c/s/a", "c/s/a/n"].iter().for_each(|n| net.begin(n));
    net.cut("c/s/a");
    net.open("c/s/a/n", CASE, "G");
    net.due("c/s/a/n");
    assert!(net.held("c/s/a/n").case.handing_to.is_some());
    assert!(net.ask("c/s/a/n", CASE, Verb::Comment, &said));
    net.settle();
    assert_eq!((net.owners(CASE), was_heard(&net)), (vec!["c/s/a"], 1));
    // Another box, to which a new case comes behind what is said of it.
    let mut net = Net::new();
    net.cut("c/s/a/k");
    net.replace("c/s/a", 0);
    net.settle();
    net.open("c/s/b", CASE, "L");
    assert!(net.ask("c/s/b", CASE, Verb::Accept, &by("w", Role::Worker)));
    net.settle();
    assert!(net.give("c/s/b", "c/s/a"));
    let line = ("c/s/b".to_owned(), "c/s".to_owned());
    let waits = &mut net.lines.get_mut(&line).unwrap().waits;
    let behind = waits.split_off(waits.iter().position(|r| r.draft.header().name == letter::LETTER).unwrap());
    net.settle();
    assert!(net.ask("c/s", CASE, Verb::Comment, &said));
    net.settle();
    net.lines.get_mut(&line).unwrap().waits.extend(behind);
    net.settle();
    assert_eq!((net.owners(CASE), was_heard(&net)), (vec!["c/s/a"], 1));
    assert!(net.places["c/s/a"].cases.awaited().is_some(), "one below has nothing to say yet");
}

#[test]
fn what_is_said_of_a_case_that_waits_where_its_way_turns_goes_behind_it() {
    let mut net = accepted();
    net.cut("c/s");
    assert!(net.give("c/s/a", "c/s/b"));
    net.cut("c/s/a");
    net.settle();
    net.replace("c/s", 0);
    net.cut.clear();
    net.cut("c/s/a/k");
    net.settle();
    let waits = |net: &Net| net.places["c/s"].cases.waiting.values().any(|l| l.to == a("c/s/b"));
    assert!(waits(&net), "the hand-over");
    assert!(net.ask("c/s/a", CASE, Verb::Comment, &Ask { text: Some("很急".into()), ..by("r", Role::Resident) }));
    net.settle();
    net.cut.clear();
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/b"]);
    for at in ["c", "c/s", "c/s/a", "c/s/b"] {
        let held = net.held(at);
        assert_eq!(held.history.iter().filter(|e| e.text == "很急").count(), 1, "{at}");
        assert!(held.wishes.is_empty(), "{at}: {:?}", held.wishes);
    }
}

#[test]
fn that_somebody_comes_is_not_refused_because_a_box_waits_for_those_below() {
    let mut net = waiting_for_one_below();
    assert!(net.ask("c", CASE, Verb::Accept, &by("值班", Role::Worker)));
    net.settle();
    assert!(net.held("c").wishes.iter().all(|w| w.refused.is_none()));
    net.cut.clear();
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    // Taken, it has been accepted already, which is what he hears then.
    assert!(net.held("c").wishes.iter().all(|w| w.refused.is_some()));
}

#[test]
fn nobody_waits_for_the_word_of_a_node_that_is_gone_for_good() {
    let retired = |at: &str, gone: &str| citybrain_hub::engine::subtree(&a(at), &a(gone), true, "gone");
    let mut net = accepted();
    // The one above knows those below from the one above it.
    net.replace("c/s", 0);
    net.settle();
    net.cut("c/s/a/n");
    net.replace("c/s/a", 0);
    net.settle();
    assert_eq!(net.places["c/s/a"].cases.awaited().map(|w| w.nodes), Some(vec![a("c/s/a/n")]));
    net.commit("c/s/a", vec![retired("c/s/a", "c/s/a/n")], None);
    net.settle();
    assert_eq!((net.owners(CASE), net.places["c/s/a"].cases.awaited()), (vec!["c/s/a"], None));
    // And what the one above was once told of it is no reason to wait for it a second time.
    net.places.get_mut("c/s").unwrap().heard.remove("c/s/a/n");
    net.replace("c/s/a", 0);
    net.settle();
    assert_eq!(net.places["c/s/a"].cases.awaited(), None);
}

#[test]
fn what_is_urgent_is_decided_before_all_else_that_a_new_box_has_to_decide() {
    let mut cases = node("c/s");
    let posted = |n: u64| {
        let body = Body::SentBack { case: format!("{n}"), term: 1, version: 1, why: String::new() };
        let (from, to) = (a("c/s/a"), a("c/s"));
        let letter = Letter {
            id: n.to_string(),
            from,
            via: None,
            to,
            urgent: n == 150,
            at: None,
            again: 0,
            takes_back: Vec::new(),
            body,
        };
        Posted { letter, log: None, is_new: true }
    };
    (0..200).for_each(|n| cases.inbox.insert(n, posted(n)));
    let order: Vec<&str> = cases.in_turn().map(|(letter, _)| letter.id.as_str()).take(3).collect();
    assert_eq!(order, ["150", "0", "1"]);
}

#[test]
fn what_turns_at_a_new_box_goes_on_though_it_came_together_with_what_frees_it() {
    // A first box: what its child has given another one waits until the child has answered the roll.
    let mut net = Net::empty();
    net.begin("c/s/a");
    net.open("c/s/a", CASE, "L");
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c/s/a", "c/s/b"));
    ["c", "c/s", "c/s/b"].iter().for_each(|n| net.begin(n));
    net.cut("c/s");
    let line = ("c/s/a".to_owned(), "c/s".to_owned());
    net.cut.insert(line.clone());
    net.settle();
    assert!(net.ask("c/s/a", CASE, Verb::Comment, &Ask { text: Some("很急".into()), ..by("r", Role::Resident) }));
    let mut first = std::mem::take(&mut net.lines.get_mut(&line).unwrap().waits);
    let answer = first.iter().position(|r| r.draft.header().name.ends_with("present")).unwrap();
    let second = first.split_off(answer);
    for frame in [first, second] {
        let drafts = frame.iter().map(|record| record.draft.clone()).collect();
        net.commit("c/s", drafts, frame.first());
    }
    net.cut.clear();
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/b"]);
    for at in ["c/s", "c/s/a", "c/s/b"] {
        assert_eq!(net.held(at).history.iter().filter(|e| e.text == "很急").count(), 1, "{at}");
    }
    assert!(net.held("c/s/a").wishes.is_empty(), "{:?}", net.held("c/s/a").wishes);
}

#[test]
fn a_merger_on_its_way_goes_on_when_its_giver_s_box_is_replaced() {
    let mut net = accepted();
    let other = "20261120-1";
    net.open("c/s/b", other, "L");
    net.settle();
    let into = Ask { into: Some(CASE.into()), ..by("w", Role::Worker) };
    net.cut("c/s/a");
    assert!(net.ask("c", other, Verb::Merge, &into));
    net.settle();
    net.replace("c/s/b", 0);
    net.settle();
    net.cut.clear();
    net.settle();
    let merged = &net.places["c"].cases.get(other).unwrap().case;
    assert_eq!(
        (merged.status, merged.merged_into.as_deref(), &merged.owner),
        (Status::Closed, Some(CASE), &a("c/s/a"))
    );
    assert_eq!(net.held("c").case.followers, [other]);
}
