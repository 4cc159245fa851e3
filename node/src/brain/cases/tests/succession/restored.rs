//! Boxes of which a backup is put back: they know some of what they have said, and not all.

use super::*;
use crate::brain::cases::letter::Step;

const OTHER: &str = "20261120-1";

fn said(net: &Net, at: &str, id: &str) -> Vec<(u32, String, String)> {
    let held = net.places[at].cases.get(id).unwrap();
    held.history.iter().map(|e| (e.version, e.step.clone(), e.by.clone())).collect()
}

#[test]
fn a_restored_box_has_again_what_it_did_after_its_backup_and_goes_on_from_there() {
    let at = "c/s/a";
    let mut net = Net::new();
    net.open(at, CASE, "L");
    net.settle();
    let backup = net.backup(at);
    assert!(net.ask(at, CASE, Verb::Accept, &by("before", Role::Worker)));
    net.open(at, OTHER, "L");
    net.settle();
    net.cut(at);
    net.now += 1_000_000;
    net.restore(&backup);
    net.settle();
    // It has not heard whether others know of newer steps.
    let refused = net.places[at].cases.ask(CASE, Verb::Dispatch, &by("w", Role::Worker), "w", net.now).unwrap_err();
    assert!(refused.error == "not-yet" && refused.detail.contains("until the parent has said"), "{refused:?}");
    assert_eq!(net.places[at].cases.awaited().map(|w| (w.cases, w.knows_some, w.parent)), Some((1, true, true)));
    // What it does of new matters goes on.
    net.open(at, "20261120-2", "L");
    assert!(net.ask(at, "20261120-2", Verb::Accept, &by("w", Role::Worker)));
    net.restart(at);
    net.cut.clear();
    net.settle();
    assert_eq!(
        (net.held(at).case.status, net.held(at).case.accepted_by.as_deref()),
        (Status::Accepted, Some("before"))
    );
    let steps: Vec<String> = said(&net, at, CASE).into_iter().map(|(_, step, _)| step).collect();
    assert_eq!(steps, ["submitted", "accepted", "recovered"]);
    assert!(net.ask(at, CASE, Verb::Dispatch, &by("w", Role::Worker)));
    assert!(net.ask("c", OTHER, Verb::Accept, &by("desk", Role::Worker)));
    net.settle();
    for id in [CASE, OTHER, "20261120-2"] {
        assert_eq!(net.owners(id), [at], "{id}");
        for above in ["c/s", "c"] {
            let [there, here] = [above, at].map(|n| net.places[n].cases.get(id).unwrap());
            assert_eq!((&there.case, &there.history), (&here.case, &here.history), "{above}");
        }
    }
    assert_eq!(net.places[at].cases.awaited(), None);
}

/// A box that does not know that its backup was put back lets a press climb, under an order that it has used for this
/// before: the lines that the node above has of that order, and whether it is called for the second.
fn climbs_again(first: impl FnOnce(&mut Net)) -> (Vec<String>, Vec<String>) {
    let at = "c/s/a";
    let mut net = Net::new();
    net.press(at, CASE);
    net.settle();
    let backup = net.backup(at);
    first(&mut net);
    net.settle();
    let mut cases = node(at);
    backup.rows.iter().for_each(|(key, value)| cases.load_row(key, value).unwrap());
    net.places.get_mut(at).unwrap().cases = cases;
    net.start(at);
    climb(&mut net);
    let (above, now) = (&net.places["c/s"].cases, view::time_of(net.now));
    let why = |draft: &Draft| {
        let said: serde_json::Value = serde_json::from_slice(draft.parts().1).unwrap();
        said["data"]["why"].as_str().unwrap().to_owned()
    };
    let lines = said(&net, "c/s", CASE).into_iter().filter(|(n, ..)| *n == 2).map(|(_, step, _)| step);
    (lines.collect(), above.late_calls(now).iter().map(why).collect())
}

/// Until the box of the press lets it climb, which comes to the node above and no further.
fn climb(net: &mut Net) {
    let at = "c/s/a";
    while net.held(at).case.escalated_to.is_none() {
        net.now += 1_000_000;
        net.due(at);
    }
    while net.carry(&(at.to_owned(), "c/s".to_owned()), Lane::Urgent) {}
}

#[test]
fn a_call_under_an_order_that_was_used_before_is_a_call_all_the_same() {
    let comment = |net: &mut Net| assert!(net.ask("c/s/a", CASE, Verb::Comment, &by("w", Role::Worker)));
    let [commented, escalated] = [Verb::Comment, Verb::Escalate].map(|verb| verb.done().to_owned());
    assert_eq!(climbs_again(comment), (vec![commented, escalated.clone()], vec![escalated.clone()]));
    assert_eq!(climbs_again(climb), (vec![escalated.clone(), escalated], vec![]), "it was called for the first");
}

#[test]
fn what_nobody_has_stepped_since_the_backup_is_as_it_was_and_says_nothing_of_it() {
    let mut net = Net::new();
    net.open("c/s/a", CASE, "L");
    net.settle();
    let (backup, before) = (net.backup("c/s/a"), net.held("c/s/a").clone());
    net.restore(&backup);
    assert!(!net.places["c/s/a"].cases.may_step(CASE));
    net.settle();
    assert_eq!(net.held("c/s/a"), &before);
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
}

#[test]
fn somebody_who_comes_to_a_press_of_a_restored_box_is_heard_and_accepted_once_it_knows_how_it_stands() {
    let at = "c/s/a";
    let mut net = Net::new();
    net.press(at, CASE);
    net.settle();
    let backup = net.backup(at);
    net.cut(at);
    net.restore(&backup);
    assert!(net.ask(at, CASE, Verb::Accept, &by("街长", Role::Worker)));
    net.settle();
    assert_eq!((net.held(at).case.status, net.held(at).who_comes().count()), (Status::Submitted, 1));
    net.cut.clear();
    net.settle();
    net.comes(at, "typed at the box itself");
}

#[test]
fn an_appointment_that_was_given_after_the_backup_is_not_given_again() {
    let at = "c/s/a";
    let mut net = Net::new();
    let book = |net: &mut Net, id: &str| {
        let new = Opening { booking: Some(haircut(at)), ..opening(id, "S") };
        let (case, drafts) = net.places[at].cases.open(new, Contact::default(), net.now);
        net.commit(at, drafts, None);
        case.booking.unwrap().state
    };
    let (config, word) = offering(at, net.now, "2026-12-05 09:00", "");
    net.commit(at, vec![word], None);
    let backup = net.backup(at);
    assert_eq!(book(&mut net, CASE), Booked::Booked);
    net.settle();
    net.cut(at);
    net.restore(&backup);
    net.places.get_mut(at).unwrap().cases.adopt(&config);
    for id in [OTHER, "20261120-2"] {
        assert_eq!(book(&mut net, id), Booked::Asked, "whose the seat is nobody here knows yet");
    }
    net.settle();
    net.cut.clear();
    net.settle();
    for n in [at, "c/s", "c"] {
        let state = |id| net.places[n].cases.get(id).unwrap().case.booking.as_ref().unwrap().state;
        assert_eq!([CASE, OTHER, "20261120-2"].map(state), [Booked::Booked, Booked::Refused, Booked::Refused], "{n}");
    }
}

#[test]
fn two_who_asked_while_nobody_knew_of_the_seats_do_not_both_get_the_last() {
    let at = "c/s/a";
    let mut net = Net::new();
    let (_, word) = offering(at, net.now, "2026-12-05 09:00", "");
    net.commit(at, vec![word], None);
    let backup = net.backup(at);
    net.cut(at);
    net.restore(&backup);
    for id in [CASE, OTHER] {
        let new = Opening { booking: Some(haircut(at)), ..opening(id, "S") };
        let (_, drafts) = net.places[at].cases.open(new, Contact::default(), net.now);
        net.commit(at, drafts, None);
    }
    net.cut.clear();
    net.settle();
    let state = |id| net.places["c"].cases.get(id).unwrap().case.booking.as_ref().unwrap().state;
    assert_eq!([CASE, OTHER].map(state), [Booked::Booked, Booked::Refused]);
}

#[test]
fn a_wish_that_a_restored_box_has_lost_is_refused_above_and_one_that_lay_before_it_is_done() {
    for is_lost in [true, false] {
        let mut net = Net::new();
        net.open("c/s/a", CASE, "L");
        net.settle();
        // It has lost something before, too, and does not know whether this was in it.
        net.begin_history("c/s/a");
        net.settle();
        let line = ("c/s".to_owned(), "c/s/a".to_owned());
        net.cut.insert(line.clone());
        assert!(net.ask("c", CASE, Verb::Accept, &by("desk", Role::Worker)));
        net.settle();
        if is_lost {
            net.lines.get_mut(&line).unwrap().waits.clear();
        }
        let data = serde_json::json!({"node": "c/s/a", "log": LogId(99), "n": 0, "knows_some": true});
        let (me, more) = (a("c/s/a"), serde_json::json!({}));
        let pen = Pen { me: &me, now: view::time_of(net.now) };
        let way = (Direction::Up, Tier::City);
        let draft = pen.event(&format!("{PREFIX}wanted"), "w", "c/s/a", Lane::Routine, way, "", more, data);
        net.commit("c", vec![draft.clone()], Some(&Carried { n: 1 << 60, origin: "c/s/a".into(), draft }));
        assert_eq!(net.held("c").wishes[0].refused, None, "nobody knows yet");
        net.cut.clear();
        net.settle();
        let refused: Vec<_> = net.held("c").wishes.iter().filter_map(|w| w.refused.as_deref()).collect();
        let accepted = net.held("c").case.status == Status::Accepted;
        assert_eq!((refused.len(), accepted), (usize::from(is_lost), !is_lost), "{refused:?}");
        assert!(refused.iter().all(|why| why.starts_with("c/s/a has lost some of what it knew")), "{refused:?}");
    }
}

/// A step of that node as it goes up.
fn step_of(case: &Case, by: &str) -> (Case, Entry) {
    let mut entry: Entry = serde_json::from_value(serde_json::json!({
        "term": case.term, "version": case.version, "step": "commented", "at": case.changed, "node": case.owner, "by": by,
    }))
    .unwrap();
    entry.text = by.into();
    (case.clone(), entry)
}

proptest! {
    /// A box that did not know of its loss has stepped again under orders that it had used: whatever comes first,
    /// and however often, every copy is the same, and has all lines.
    #[test]
    fn of_two_steps_under_one_order_every_copy_takes_the_same_and_keeps_both_lines(
        steps in prop::collection::vec((1u32..3, 1u32..4, 0i64..3, 0usize..3), 1..12),
        order in prop::collection::vec(any::<prop::sample::Index>(), 24..40),
    ) {
        let (first, _) = node("c/s/a").open(opening(CASE, "L"), Contact::default(), START);
        let steps: Vec<(Case, Entry)> = steps.iter().map(|(term, version, at, by)| {
            let mut case = first.clone();
            (case.term, case.version, case.changed) = (*term, *version, view::time_of(START + at));
            case.title = format!("{by}");
            step_of(&case, &format!("p{by}"))
        }).collect();
        let told = |order: &mut dyn Iterator<Item = usize>| {
            let mut copy = node("c");
            for (pos, i) in order.enumerate() {
                let (case, entry) = &steps[i];
                let stepped = Step { case: case.clone(), entry: entry.clone(), history: Vec::new(), answers: None };
                let stepped = serde_json::json!({"data": stepped}).to_string();
                let origin = Some(Origin { address: "c/s/a", log: LogId(1), pos: Pos(1) });
                let name = format!("{PREFIX}commented");
                let header = Header { origin, direction: Direction::Up, ..Header::local(citybrain_shared::record::Kind::Event, &name) };
                copy.apply(Pos(pos as u64 + 1), &header, stepped.as_bytes());
            }
            let held = copy.get(CASE).unwrap();
            (held.case.clone(), held.history.clone())
        };
        let in_order = told(&mut (0..steps.len()));
        let mixed: Vec<usize> = order.iter().map(|i| i.index(steps.len())).chain((0..steps.len()).rev()).collect();
        prop_assert_eq!(&in_order, &told(&mut mixed.into_iter()));
        let lines: BTreeSet<_> = steps.iter().map(|(c, e)| (c.order(), c.changed, e.by.clone())).collect();
        prop_assert_eq!(in_order.1.len(), lines.len());
    }
}
