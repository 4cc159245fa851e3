//! Cases that the one above has told a new box of, while others who may know more of them are silent.

use super::*;

const AT: &str = "c/s/a";
/// A box that never had the case.
const SILENT: &str = "c/s/a/k";

/// That box is off, and another begins in place of the one above it.
fn replaced(mut net: Net) -> Net {
    net.settle();
    net.cut(SILENT);
    net.replace(AT, 0);
    net.settle();
    net
}

fn recovered(net: &Net) -> Vec<usize> {
    net.held(AT).history.iter().filter(|e| e.step == step::RECOVERED).map(|e| e.calls.len()).collect()
}

#[test]
fn a_press_at_a_new_box_is_shown_and_called_there_once_though_a_box_below_is_off() {
    let mut net = Net::new();
    net.press(AT, CASE);
    let mut net = replaced(net);
    assert_eq!(net.places[AT].called.len(), 1);
    net.restart(AT);
    net.settle();
    assert_eq!(net.places[AT].called.len(), 1, "once");
    let cases = &net.places[AT].cases;
    assert_eq!((cases.open.len(), cases.calls.unaccepted, cases.awaited().map(|a| a.cases)), (1, 1, Some(1)));
    assert!(cases.is_unproven(CASE) && cases.case_awaits(net.held(AT)).is_some());
    let takes = [Verb::Accept, Verb::Withdraw, Verb::Comment, Verb::Forget];
    assert_eq!(cases.allowed(net.held(AT), None, view::time_of(net.now)), takes);
    let refused = cases.ask(CASE, Verb::Reject, &by("w", Role::Worker), "w", net.now).unwrap_err();
    assert_eq!(refused.error, "not-yet");
    // Nobody steps it, and those above are called as its box says nothing.
    assert!(net.owners(CASE).is_empty());
    assert!(net.ask(AT, CASE, Verb::Accept, &by("街长", Role::Worker)));
    net.settle();
    assert_eq!(net.held(AT).case.status, Status::Submitted);
    net.cut.clear();
    net.settle();
    assert_eq!((net.owners(CASE), net.held("c").case.accepted_by.as_deref()), (vec![AT], Some("街长")));
    assert_eq!((net.places[AT].called.len(), recovered(&net)), (1, vec![0]), "whoever was called is not called again");
    assert_eq!(net.held(AT).history, net.held("c").history);
}

#[test]
fn a_press_to_which_somebody_comes_calls_nobody_at_a_new_box_until_he_takes_that_back() {
    let mut net = Net::new();
    net.press(AT, CASE);
    net.settle();
    net.cut(AT);
    assert!(net.ask("c", CASE, Verb::Accept, &by("街长", Role::Worker)));
    net.cut.clear();
    net.cut(SILENT);
    net.replace(AT, 0);
    net.settle();
    assert_eq!((net.places[AT].called.len(), net.held(AT).who_comes().count()), (0, 1));
    assert!(net.ask("c", CASE, Verb::Escalate, &by("街长", Role::Worker)));
    net.settle();
    assert_eq!(net.places[AT].called.len(), 1);
    net.cut.clear();
    net.settle();
    assert_eq!(net.owners(CASE), [AT]);
}

#[test]
fn a_press_that_a_box_below_has_by_now_is_not_the_new_boxs() {
    let mut net = Net::new();
    net.press(AT, CASE);
    net.settle();
    let up = (AT.to_owned(), "c/s".to_owned());
    net.cut.insert(up.clone());
    assert!(net.ask(AT, CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give(AT, SILENT));
    net.settle();
    assert_eq!(net.owners(CASE), [SILENT]);
    let mut net = replaced(net);
    net.cut.remove(&up);
    net.settle();
    assert!(net.held(AT).lent && net.held(AT).case.owner == a(AT), "as those above know it");
    assert_eq!(net.places[AT].called.len(), 1, "nobody there knows that somebody has it");
    net.cut.clear();
    net.settle();
    assert_eq!((net.owners(CASE), net.places[AT].called.len()), (vec![SILENT], 1));
    assert!(!net.held(AT).lent);
}

#[test]
fn another_case_is_shown_and_takes_no_follower_until_all_are_heard() {
    let mut net = Net::new();
    net.open(AT, CASE, "L");
    let mut net = replaced(net);
    assert!(net.held(AT).unproven && net.places[AT].called.is_empty());
    net.open(AT, "20261120-1", "L");
    let merge = Ask { into: Some(CASE.into()), ..by("w", Role::Worker) };
    let cases = &net.places[AT].cases;
    assert_eq!(cases.ask("20261120-1", Verb::Merge, &merge, "w", net.now).unwrap_err().error, "not-yet");
    net.cut.clear();
    net.settle();
    assert!(net.ask(AT, "20261120-1", Verb::Merge, &merge));
}

#[test]
fn what_comes_to_be_merged_into_a_case_that_may_have_gone_on_goes_back() {
    let (below, other) = ("c/s/a/n", "20261120-1");
    let mut net = Net::new();
    net.open(below, CASE, "L");
    assert!(net.ask(below, CASE, Verb::Accept, &by("w", Role::Worker)) && net.give(below, AT));
    let mut net = replaced(net);
    let before = net.held(AT).clone();
    assert!(before.lent);
    net.open(below, other, "L");
    assert!(net.ask(below, other, Verb::Merge, &Ask { into: Some(CASE.into()), ..by("w", Role::Worker) }));
    net.settle();
    assert_eq!(net.owners(other), [below]);
    assert_eq!((&net.held(AT).case, net.held(AT).unproven), (&before.case, true));
}

#[test]
fn a_restored_box_shows_what_was_pressed_since_and_calls_for_it() {
    let mut net = Net::new();
    let backup = net.backup(AT);
    net.press(AT, CASE);
    net.settle();
    net.cut(SILENT);
    net.restore(&backup);
    net.settle();
    assert_eq!((net.places[AT].called.len(), net.held(AT).lent), (1, true));
    net.cut.clear();
    net.settle();
    assert_eq!((net.places[AT].called.len(), recovered(&net), net.owners(CASE)), (1, vec![0], vec![AT]));
}

const ABOVE_IT: [&str; 2] = ["c/s", "c"];

/// A press of that box which somebody there has accepted; closed, if it says so.
fn accepted(is_closed: bool) -> Net {
    let mut net = Net::new();
    net.press(AT, CASE);
    assert!(net.ask(AT, CASE, Verb::Accept, &by("街长", Role::Worker)));
    for (verb, ask) in until_closed("王队") {
        assert!(!is_closed || net.ask(AT, CASE, verb, &ask), "{verb}");
    }
    net
}

#[test]
fn a_new_box_calls_for_a_press_that_was_answered_as_soon_as_that_is_taken_back_at_whatever_node() {
    for (is_closed, verb) in [(false, Verb::Escalate), (true, Verb::Reopen)] {
        for desk in ["c", "c/s", AT] {
            let told = format!("{verb} at {desk}");
            let mut net = replaced(accepted(is_closed));
            assert_eq!((net.places[AT].called.len(), net.held(AT).lent), (0, true), "{told}");
            let takes = |net: &Net| net.places[AT].cases.allowed(net.held(AT), None, view::time_of(net.now));
            assert!(takes(&net).contains(&verb), "{told}");
            assert!(net.ask(desk, CASE, verb, &by("站长", Role::Supervisor)), "{told}");
            net.settle();
            for n in ABOVE_IT.into_iter().chain([AT]) {
                let held = net.held(n);
                assert!(held.is_unanswered() && held.as_known().status == Status::Submitted, "{told}: {n}");
            }
            net.restart(AT);
            net.settle();
            assert_eq!(net.places[AT].called.len(), 1, "{told}");
            // Whoever comes instead is known there, too.
            assert!(net.ask("c/s", CASE, Verb::Accept, &by("赵队", Role::Worker)), "{told}");
            net.settle();
            assert_eq!(net.held(AT).who_comes().count(), 1, "{told}");
            net.cut.clear();
            net.settle();
            for n in ABOVE_IT.into_iter().chain([AT]) {
                let held = net.held(n);
                assert_eq!(held.case.accepted_by.as_deref(), Some("赵队"), "{told}: {n}: {:?}", held.history);
                assert!(!held.is_unanswered() && held.history == net.held(AT).history, "{told}: {n}");
            }
        }
    }
}

#[test]
fn a_restored_box_is_told_that_nobody_comes_to_what_it_has_had_all_the_time() {
    let mut net = accepted(false);
    net.settle();
    let backup = net.backup(AT);
    let before = net.places[AT].called.len();
    net.cut(SILENT);
    net.restore(&backup);
    net.settle();
    assert!(net.held(AT).unproven && !net.held(AT).lent);
    assert!(net.ask("c", CASE, Verb::Escalate, &by("站长", Role::Supervisor)));
    net.settle();
    assert_eq!((net.held(AT).not_coming().is_some(), net.places[AT].called.len()), (true, before + 1));
    assert!(net.ask(AT, CASE, Verb::Accept, &by("陈队", Role::Worker)));
    net.settle();
    assert_eq!(net.held("c").who_comes().map(|c| c.by.as_str()).collect::<Vec<_>>(), ["陈队"]);
    net.cut.clear();
    net.settle();
    assert_eq!(net.held("c").case.accepted_by.as_deref(), Some("陈队"));
    assert_eq!(net.places[AT].called.len(), before + 1, "once for one word");
}

#[test]
fn a_new_box_that_has_called_for_a_word_while_it_waited_calls_nobody_again_as_it_does_it() {
    for (is_closed, verb) in [(false, Verb::Escalate), (true, Verb::Reopen)] {
        let mut net = replaced(accepted(is_closed));
        assert!(net.ask("c/s", CASE, verb, &by("站长", Role::Supervisor)), "{verb}");
        net.settle();
        net.now += LISTENS_US;
        net.settle();
        let called = |net: &Net| [AT, "c/s", "c"].map(|n| net.places[n].called.len());
        assert_eq!(called(&net), [1; 3], "{verb}");
        net.cut.clear();
        net.settle();
        assert_eq!((net.owners(CASE), net.held("c").case.status), (vec![AT], Status::Submitted), "{verb}");
        assert_eq!(called(&net), [1; 3], "{verb}");
        let done = net.held(AT).history.iter().rfind(|e| e.step == verb.done()).unwrap();
        assert!(!done.calls.contains(&a(AT)), "{verb}: {done:?}");
        // Another word does.
        assert!(net.ask(AT, CASE, Verb::Accept, &by("赵队", Role::Worker)), "{verb}");
        assert!(net.ask(AT, CASE, Verb::Escalate, &by("赵队", Role::Worker)), "{verb}");
        net.settle();
        assert_eq!(net.places[AT].called.len(), 2, "{verb}");
    }
}

#[test]
fn whoever_says_at_a_new_box_what_somebody_has_said_before_him_is_heard_and_nobody_is_called_again() {
    for (is_closed, verb) in [(false, Verb::Escalate), (true, Verb::Reopen)] {
        let mut net = replaced(accepted(is_closed));
        assert!(net.ask("c/s", CASE, verb, &by("站长", Role::Supervisor)), "{verb}");
        net.settle();
        assert!(net.ask(AT, CASE, verb, &by("班长", Role::Supervisor)), "{verb}");
        net.settle();
        assert_eq!(net.places[AT].called.len(), 1, "{verb}");
        net.restart(AT);
        net.cut.clear();
        net.settle();
        for n in [AT, "c/s", "c"] {
            let held = net.held(n);
            assert_eq!((held.case.status, held.wishes.len()), (Status::Submitted, 0), "{verb}: {n}: {held:?}");
            assert!(held.history.iter().any(|e| e.by == "班长"), "{verb}: {n}: {:?}", held.history);
        }
        assert_eq!(net.places[AT].called.len(), 1, "{verb}");
    }
}

#[test]
fn whoever_comes_to_a_press_of_a_new_box_takes_that_back_there_or_a_supervisor_does() {
    for (by_whom, role) in [("王", Role::Worker), ("站长", Role::Supervisor)] {
        let mut net = Net::new();
        net.press(AT, CASE);
        let mut net = replaced(net);
        assert!(net.ask(AT, CASE, Verb::Accept, &by("王", Role::Worker)));
        net.settle();
        let comes = |net: &Net| [AT, "c/s", "c"].map(|n| net.held(n).who_comes().count());
        assert_eq!((comes(&net), net.places[AT].called.len()), ([1; 3], 1), "{by_whom}");
        let refused = net.places[AT].cases.ask(CASE, Verb::Escalate, &by("李", Role::Worker), "x", net.now);
        assert_eq!(refused.unwrap_err().error, "not-yet", "he takes nobody's word back");
        assert!(net.ask(AT, CASE, Verb::Escalate, &by(by_whom, role)), "{by_whom}");
        net.settle();
        assert_eq!((comes(&net), net.places[AT].called.len()), ([0; 3], 2), "{by_whom}");
        net.cut.clear();
        net.settle();
        assert_eq!((net.owners(CASE), net.held("c").case.status), (vec![AT], Status::Submitted), "{by_whom}");
    }
}

#[test]
fn whoever_has_said_that_he_does_not_come_is_not_accepted_because_that_comes_twice() {
    let mut net = Net::new();
    net.press(AT, CASE);
    let mut net = replaced(net);
    assert!(net.ask(AT, CASE, Verb::Accept, &by("王", Role::Worker)));
    net.settle();
    assert!(net.ask("c/s", CASE, Verb::Escalate, &by("站长", Role::Supervisor)));
    net.settle();
    // Another history of its log: what was asked for there may be lost, and is sent once more.
    let as_it_is = net.backup(AT);
    net.restore(&as_it_is);
    net.settle();
    net.cut.clear();
    net.settle();
    for n in [AT, "c/s", "c"] {
        let held = net.held(n);
        assert_eq!((held.case.status, held.who_comes().count()), (Status::Submitted, 0), "{n}: {:?}", held.history);
    }
}
