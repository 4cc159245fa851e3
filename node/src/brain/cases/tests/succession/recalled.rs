//! Orders in which a wish that goes after its case could stay without an answer, or be done twice.

use super::orders::{accepted, drain, wishes_sent};
use super::*;

const A: &str = "c/s/a";
const B: &str = "c/s/b";
const STREET: &str = "c/s";

/// It comes in there, and is decided.
fn comes(net: &mut Net, from: &str, to: &str) {
    drain(net, from, to);
    while net.due(to) {}
}

fn recall(net: &mut Net, at: &str) {
    assert!(net.ask(at, CASE, Verb::Recall, &by("boss", Role::Supervisor)), "{at}");
}

fn say(net: &mut Net, at: &str, text: &str) {
    let ask = Ask { text: Some(text.into()), ..by("w", Role::Worker) };
    assert!(net.ask(at, CASE, Verb::Comment, &ask), "{at}");
}

/// How many lines of that kind the city knows.
fn steps(net: &Net, step: &str) -> usize {
    net.held("c").history.iter().filter(|e| e.step == step).count()
}

fn nobody_waits(net: &Net) {
    for at in ["c", STREET, A, B] {
        assert!(net.held(at).wishes.is_empty(), "{at}: {:?}", net.held(at).wishes);
    }
}

#[test]
fn a_comment_said_again_is_the_same_though_an_older_one_has_gone_on_past_its_maker_meanwhile() {
    let mut net = accepted();
    for (from, to) in [(A, B), (B, A)] {
        assert!(net.give(from, to));
        net.settle();
    }
    say(&mut net, B, "还在漏");
    assert!(net.give(A, B));
    comes(&mut net, A, STREET);
    comes(&mut net, STREET, B);
    assert_eq!(net.owners(CASE), [B]);
    // What was said comes to its giver, who sends it after the case; by then that goes back.
    let (up, down) = ((B.to_owned(), STREET.to_owned()), (STREET.to_owned(), A.to_owned()));
    assert!(net.carry(&up, Lane::Routine) && net.carry(&down, Lane::Routine));
    while net.due(A) {}
    assert!(net.give(B, A));
    say(&mut net, B, "很急");
    comes(&mut net, A, STREET);
    comes(&mut net, STREET, B);
    say(&mut net, B, "很急");
    net.settle();
    let said: Vec<&str> = net.held("c").history.iter().map(|e| e.text.as_str()).collect();
    for text in ["还在漏", "很急"] {
        assert_eq!(said.iter().filter(|known| **known == text).count(), 1, "{said:?}");
    }
    nobody_waits(&net);
}

#[test]
fn a_comment_said_again_is_the_same_though_its_node_has_recalled_the_case_for_another_meanwhile() {
    let mut net = accepted();
    net.cut(B);
    assert!(net.give(A, B));
    net.settle();
    say(&mut net, A, "很急");
    recall(&mut net, "c");
    net.settle();
    say(&mut net, A, "很急");
    net.cut.clear();
    net.settle();
    assert_eq!((net.owners(CASE), steps(&net, Verb::Comment.done())), (vec![A], 1));
    nobody_waits(&net);
}

#[test]
fn what_turns_at_the_node_that_wished_it_goes_on_from_there_once() {
    let mut net = accepted();
    assert!(net.give(A, B));
    net.settle();
    assert!(net.give(B, A));
    comes(&mut net, B, STREET);
    recall(&mut net, STREET);
    comes(&mut net, STREET, A);
    drain(&mut net, A, STREET);
    // It was taken by then, and the wish goes after it, by way of whoever has it.
    comes(&mut net, STREET, B);
    for (from, to) in [(B, STREET), (STREET, A)] {
        drain(&mut net, from, to);
    }
    while net.due(A) {}
    drain(&mut net, A, STREET);
    net.settle();
    let wishes = &net.held(STREET).wishes;
    assert!(wishes.len() == 1 && wishes[0].refused.is_some(), "{wishes:?}");
    assert_eq!(wishes_sent(&net, STREET, A), 1);
}

#[test]
fn a_recall_is_done_when_its_case_was_back_meanwhile_whatever_its_giver_has_done_with_it_then() {
    let mut net = accepted();
    assert!(net.give(A, B));
    comes(&mut net, A, STREET);
    comes(&mut net, STREET, B);
    drain(&mut net, STREET, "c");
    recall(&mut net, "c");
    for (from, to) in [("c", STREET), (STREET, A), (A, STREET)] {
        comes(&mut net, from, to);
    }
    // While the giver's letter is on its way it comes back by itself, and is given once more.
    assert!(net.give(B, A));
    comes(&mut net, B, STREET);
    comes(&mut net, STREET, A);
    assert!(net.give(A, B));
    comes(&mut net, A, STREET);
    comes(&mut net, STREET, B);
    net.settle();
    assert_eq!((net.owners(CASE), steps(&net, Verb::Recall.done())), (vec![B], 0));
    nobody_waits(&net);
    let sent = net.lines[&(B.to_owned(), STREET.to_owned())].sent.iter();
    let refusals = sent.filter(|r| String::from_utf8_lossy(r.draft.parts().1).contains("\"letter\":\"refused\""));
    assert_eq!(refusals.count(), 0, "what was back has not gone on");
}

#[test]
fn a_recall_that_was_asked_for_again_is_done_once() {
    let mut net = accepted();
    net.cut(B);
    assert!(net.give(A, B));
    net.settle();
    recall(&mut net, "c");
    net.settle();
    // Asked for again it is on its way, while the first has brought the case back.
    net.cut.clear();
    net.cut(STREET);
    recall(&mut net, "c");
    net.settle();
    assert_eq!(net.owners(CASE), [A]);
    net.cut(B);
    assert!(net.give(A, B));
    net.settle();
    net.cut.clear();
    net.cut(B);
    net.settle();
    net.cut.clear();
    net.settle();
    assert_eq!((net.owners(CASE), steps(&net, Verb::Recall.done())), (vec![B], 1));
    nobody_waits(&net);
}

#[test]
fn what_was_sent_back_is_not_taken_by_a_new_box_that_hears_of_it_before_its_giver_does() {
    let mut net = accepted();
    assert!(net.give(A, B));
    net.settle();
    assert!(net.give(B, A));
    // The letter waits where it turns, for the word from above, and is called back meanwhile.
    net.cut(STREET);
    net.replace(STREET, 0);
    net.settle();
    net.cut.insert((STREET.to_owned(), B.to_owned()));
    recall(&mut net, B);
    net.settle();
    assert_eq!((net.owners(CASE), net.held(STREET).sent_back), (vec![""; 0], Some(net.held(B).case.order())));
    net.replace(A, 0);
    net.cut.remove(&(STREET.to_owned(), "c".to_owned()));
    net.cut.remove(&("c".to_owned(), STREET.to_owned()));
    net.settle();
    assert!(net.places[A].cases.is_settled());
    net.cut.clear();
    net.settle();
    assert_eq!(net.owners(CASE), [B]);
}

#[test]
fn a_case_is_recalled_from_a_box_that_was_replaced_before_it_had_the_letter_and_nobody_hears_otherwise() {
    let to = "c/s/a/n";
    for at in ["c", STREET, A] {
        let mut net = Net::new();
        net.open(at, CASE, "L");
        assert!(net.ask(at, CASE, Verb::Accept, &by("w", Role::Worker)));
        net.settle();
        let line = (A.to_owned(), to.to_owned());
        net.cut.insert(line.clone());
        assert!(net.give(at, to));
        recall(&mut net, at);
        net.settle();
        net.replace(to, 0);
        net.cut.clear();
        // One record at a time, so that nothing that is refused for a moment is missed.
        while let Some(key) = net.lines.iter().find(|(_, l)| !l.waits.is_empty()).map(|(key, _)| key.clone()) {
            let _ = net.carry(&key, Lane::Urgent) || net.carry(&key, Lane::Routine);
            while TREE.into_iter().any(|n| net.due(n)) {}
            assert!(net.held(at).wishes.iter().all(|w| w.refused.is_none()), "{at}: {:?}", net.held(at).wishes);
        }
        assert_eq!((net.owners(CASE), net.held(at).wishes.len()), (vec![at], 0), "{:?}", net.held(at).history);
    }
}
