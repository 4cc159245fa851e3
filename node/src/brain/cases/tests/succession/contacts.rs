//! Whom to call: at the owner, with those above whom the category names, and nowhere else.

use super::*;

/// The nodes that can call whoever it is about.
fn who_can_call<'n>(net: &Net, id: &str) -> Vec<&'n str> {
    let has_phone = |n: &&str| {
        let contact = net.places[*n].cases.get(id).and_then(|held| held.contact.as_ref());
        contact.is_some_and(|contact| !contact.phone.is_empty())
    };
    TREE.into_iter().filter(has_phone).collect()
}

/// When all is quiet: whoever has a number is the owner, or is named by the category; or keeps what has not come to
/// the owner, and is not said to be lost.
pub fn belong(net: &Net) -> Result<(), TestCaseError> {
    for held in net.places["c"].cases.iter() {
        let (id, case) = (&held.case.id, &held.case);
        let owner = case.owner.as_str();
        let can_call = who_can_call(net, id);
        let reach = case.terms.as_ref().and_then(|terms| terms.contact_reach);
        let is_named = |n: &str| a(n).covers(&case.owner) && reach.is_some_and(|reach| reach <= a(n).tier());
        let others: Vec<&&str> = can_call.iter().filter(|n| **n != owner && !is_named(n)).collect();
        let told = format!("{can_call:?} of {case:#?}");
        if case.forgotten {
            prop_assert!(can_call.is_empty(), "forgotten: {}", told);
            continue;
        }
        prop_assert_eq!(can_call.contains(&owner), case.contact_came, "{}", told);
        prop_assert!(case.contact_lost.is_none() || can_call.is_empty(), "said to be lost: {}", told);
        let may_keep = !case.contact_came && case.contact_lost.is_none();
        prop_assert!(others.is_empty() || may_keep, "{:?}: {}", others, told);
    }
    Ok(())
}

/// The number is where the case is, and nobody says that it is lost.
fn has_come(net: &Net, told: &str) {
    let owners = net.owners(CASE);
    assert_eq!(who_can_call(net, CASE), owners, "{told}");
    for n in TREE {
        let Some(held) = net.places[n].cases.get(CASE) else { continue };
        assert_eq!((held.case.contact_came, &held.case.contact_lost), (true, &None), "{told}: {n}");
    }
    belong(net).unwrap();
}

#[test]
fn whom_to_call_comes_with_a_case_to_a_box_that_has_lost_what_it_knew_while_that_was_on_its_way() {
    let at = "c/s/a/n";
    // Taken by the box as it was, or still on its way to it; the box restored, or another; and from there on.
    for (was_taken, is_restored) in [(true, true), (false, true), (false, false)] {
        let told = format!("taken: {was_taken}, restored: {is_restored}");
        let mut net = Net::new();
        let backup = net.backup(at);
        net.open_with_phone("c", CASE, "L");
        if !was_taken {
            net.cut(at);
        }
        assert!(net.ask("c", CASE, Verb::Accept, &by("w", Role::Worker)) && net.give("c", at));
        net.settle();
        net.now += 1_000_000;
        match is_restored {
            true => net.restore(&backup),
            false => net.replace(at, 0),
        }
        net.cut.clear();
        net.settle();
        assert_eq!(net.owners(CASE), [at], "{told}");
        has_come(&net, &told);
        assert!(net.give(at, "c/s/b"), "{told}");
        net.settle();
        assert_eq!(net.owners(CASE), ["c/s/b"], "{told}");
        has_come(&net, &told);
    }
}

#[test]
fn whom_to_call_comes_with_a_case_that_a_new_box_on_its_way_sends_on() {
    for knows_above in [true, false] {
        let (from, to) = ("c/s/a/n", "c/s/b");
        let mut net = Net::new();
        net.open_with_phone(from, CASE, "L");
        assert!(net.ask(from, CASE, Verb::Accept, &by("w", Role::Worker)));
        net.settle();
        net.cut(to);
        if !knows_above {
            net.cut("c/s");
        }
        assert!(net.give(from, to));
        net.settle();
        // It has turned there, and the number was sent with it; nobody below has got it.
        net.replace("c/s", 0);
        net.cut.remove(&("c".to_owned(), "c/s".to_owned()));
        net.cut.remove(&("c/s".to_owned(), "c".to_owned()));
        net.settle();
        net.cut.clear();
        net.settle();
        assert_eq!(net.owners(CASE), [to], "known above: {knows_above}");
        has_come(&net, &format!("known above: {knows_above}"));
    }
}

#[test]
fn whom_to_call_stays_with_nobody_on_a_way_up_that_the_case_has_left() {
    let mut net = Net::new();
    net.open_with_phone("c/s/a/n", CASE, "R");
    net.settle();
    assert_eq!(who_can_call(&net, CASE), ["c/s", "c/s/a", "c/s/a/n"]);
    assert!(net.ask("c/s/a/n", CASE, Verb::Accept, &by("w", Role::Worker)) && net.give("c/s/a/n", "c/s/b"));
    net.settle();
    assert_eq!(who_can_call(&net, CASE), ["c/s", "c/s/b"]);
    assert!(net.give("c/s/b", "c"));
    net.settle();
    assert_eq!(who_can_call(&net, CASE), ["c"]);
}

#[test]
fn whom_to_call_comes_back_to_a_box_that_lost_it_from_those_above_who_know() {
    let at = "c/s/a/n";
    for is_restored in [false, true] {
        let mut net = Net::new();
        let backup = net.backup(at);
        net.open_with_phone(at, CASE, "R");
        net.settle();
        net.now += 1_000_000;
        match is_restored {
            true => net.restore(&backup),
            false => net.replace(at, 0),
        }
        net.settle();
        assert_eq!(who_can_call(&net, CASE), ["c/s", "c/s/a", "c/s/a/n"], "restored: {is_restored}");
        let case = &net.places["c"].cases.get(CASE).unwrap().case;
        assert_eq!((case.contact_came, &case.contact_lost), (true, &None));
        assert!(net.ask(at, CASE, Verb::Accept, &by("w", Role::Worker)) && net.give(at, "c/s/b"));
        net.settle();
        assert_eq!(who_can_call(&net, CASE), ["c/s", "c/s/b"], "restored: {is_restored}");
        belong(&net).unwrap();
    }
}

#[test]
fn who_is_forgotten_while_his_case_is_on_its_way_to_a_box_that_burns_is_forgotten_there_too() {
    let (at, to) = ("c/s/a/n", "c/s/b");
    for from in ["c/s", "c"] {
        let mut net = Net::new();
        net.open_with_phone(at, CASE, "L");
        assert!(net.ask(at, CASE, Verb::Accept, &by("w", Role::Worker)));
        net.settle();
        net.cut(to);
        assert!(net.give(at, to));
        net.settle();
        assert!(net.ask(from, CASE, Verb::Forget, &by("boss", Role::Supervisor)));
        net.settle();
        net.replace(to, 0);
        net.cut.clear();
        net.settle();
        assert_eq!(net.owners(CASE), [to]);
        assert!(who_can_call(&net, CASE).is_empty());
        let held = net.places[from].cases.get(CASE).unwrap();
        assert!(held.case.forgotten && held.wishes.is_empty(), "{from}: {held:#?}");
    }
}
