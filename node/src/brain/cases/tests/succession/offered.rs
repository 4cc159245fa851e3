//! What is offered otherwise while the box that has the case is lost.

use super::*;

#[test]
fn the_word_that_something_is_offered_otherwise_waits_for_the_case_at_a_replaced_box() {
    for again in [0, 100] {
        let mut net = Net::new();
        let offer = |net: &mut Net, starts: &str| {
            let (config, word) = offering("c/s", net.now, starts, "");
            net.places.get_mut("c/s").unwrap().cases.adopt(&config);
            net.commit("c/s", vec![word], None);
            net.now += 1_000_000;
        };
        offer(&mut net, "2026-12-05 09:00");
        let new = Opening { booking: Some(haircut("c/s")), ..opening(CASE, "S") };
        let (_, drafts) = net.places["c/s"].cases.open(new, Contact::default(), net.now);
        net.commit("c/s", drafts, None);
        assert!(net.ask("c/s", CASE, Verb::Accept, &by("w", Role::Worker)));
        assert!(net.ask("c/s", CASE, Verb::Dispatch, &Ask { to: Some(a("c/s/a")), ..by("w", Role::Worker) }));
        net.settle();
        assert!(net.places["c/s/a"].cases.may_step(CASE));
        net.cut.insert(("c/s".into(), "c/s/a".into()));
        offer(&mut net, "2026-12-06 09:00");
        net.settle();
        net.replace("c/s/a", again);
        net.cut.clear();
        net.settle();
        let held = net.places["c/s/a"].cases.get(CASE).unwrap();
        assert!(net.places["c/s/a"].cases.may_step(CASE), "{:?}", held.case);
        assert_eq!(held.case.booking.as_ref().unwrap().at.unwrap().to_rfc3339(), "2026-12-06T01:00:00+00:00");
        assert_eq!(held.history.iter().filter(|e| e.step == "rescheduled").count(), 1, "{:?}", held.history);
        assert_eq!(net.places["c/s"].cases.get(CASE).unwrap().case, held.case);
    }
}

#[test]
fn an_activity_that_is_moved_while_its_box_is_lost_keeps_the_seats_that_it_has_given() {
    let at = "c/s/a";
    // An empty disk, of which the parent's last words come again or do not; and a backup from before a move.
    for lost in [Some(0), Some(100), None] {
        let mut net = Net::new();
        let offer = |net: &mut Net, starts: &str| {
            let (config, word) = offering(at, net.now, starts, "");
            net.places.get_mut(at).unwrap().cases.adopt(&config);
            net.commit(at, vec![word], None);
            net.now += 1_000_000;
            config.service[0].clone()
        };
        offer(&mut net, "2026-12-05 09:00");
        let new = Opening { booking: Some(haircut(at)), ..opening(CASE, "S") };
        let (_, drafts) = net.places[at].cases.open(new, Contact::default(), net.now);
        net.commit(at, drafts, None);
        net.settle();
        let backup = net.backup(at);
        offer(&mut net, "2026-12-06 09:00");
        net.settle();
        match lost {
            Some(again) => net.replace(at, again),
            None => net.restore(&backup),
        }
        let service = offer(&mut net, "2026-12-07 09:00");
        net.settle();
        let held = net.places[at].cases.get(CASE).unwrap();
        let told: Vec<&str> = held.history.iter().map(|e| e.step.as_str()).filter(|s| *s != "recovered").collect();
        assert_eq!(told, ["submitted", "booked", "rescheduled", "rescheduled"], "{lost:?}: {:?}", held.history);
        let booking = held.case.booking.as_ref().unwrap();
        assert_eq!(
            (booking.state, booking.at.unwrap().to_rfc3339().as_str()),
            (Booked::Booked, "2026-12-07T01:00:00+00:00")
        );
        let left = net.places[at].cases.free(&service, view::time_of(net.now)).places;
        assert_eq!(left, service.places.map(|n| n - 1), "{lost:?}: {service:?}");
        net.restart(at);
        assert_eq!(net.places[at].cases.free(&service, view::time_of(net.now)).places, left);
    }
}
