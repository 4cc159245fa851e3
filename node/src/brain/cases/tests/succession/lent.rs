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
    assert_eq!(cases.allowed(net.held(AT), None, view::time_of(net.now)), [Verb::Accept, Verb::Comment, Verb::Forget]);
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
