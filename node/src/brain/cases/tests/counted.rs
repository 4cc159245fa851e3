//! Counts of cases, and cases that another system tells of.

use super::*;

#[test]
fn two_cases_become_one_and_are_counted_as_one() {
    let mut world = World::new();
    for id in ["20261120-0", "20261120-1"] {
        world.open("c/s/a", opening(id, "L"), Contact::default());
        world.ask("c/s/a", id, Verb::Accept, &by("w", Role::Worker), "");
        world.ask("c/s/a", id, Verb::Dispatch, &by("w", Role::Worker), "");
    }
    let into = Ask { into: Some("20261120-0".into()), ..by("w", Role::Worker) };
    assert!(world.ask("c/s/a", "20261120-1", Verb::Merge, &into, ""));
    assert!(!world.ask("c/s/a", "20261120-0", Verb::Merge, &Ask { into: Some("20261120-1".into()), ..into }, ""));
    world.settle();
    let (_, counts) = rates_of(&world.places["c"].cases, None);
    assert_eq!((counts.dispatched, counts.merged, counts.unanswered), (2, 1, 1));
    assert_eq!(world.places["c"].cases.get("20261120-0").unwrap().case.followers, ["20261120-1"]);
    let follower = &world.places["c"].cases.get("20261120-1").unwrap().case;
    assert!(!allowed(follower).contains(&Verb::Evaluate) && !allowed(follower).contains(&Verb::Reopen));
}

#[test]
fn what_a_node_has_handed_up_is_not_counted_as_its_own() {
    let mut world = World::new();
    world.open("c/s/a/n", opening("20261120-0", "G"), Contact::default());
    world.settle();
    world.now += 3 * 3_600_000_000;
    world.settle();
    let now = view::time_of(world.now);
    for (at, is_below) in [("c/s/a/n", false), ("c/s/a", true), ("c/s", true), ("c", true)] {
        let cases = &world.places[at].cases;
        let question = supervision::Question { scope: Scope::default(), again: 2, limit: 10, shown: false };
        let mut watching = supervision::Watching::new(question, now);
        cases.iter().for_each(|held| watching.add(cases, held));
        let watched = watching.ranked().told(cases).overdue_in_all;
        let open: u64 = cases.open_by_kind().iter().sum();
        assert_eq!([watched, cases.overdue(now), open], [u64::from(is_below); 3], "{at}");
        assert_eq!(cases.elsewhere(), (u64::from(!is_below), u64::from(!is_below)), "{at}");
        world.restart(at);
    }
}

#[test]
fn a_call_for_help_is_counted_where_its_case_is_and_above_and_is_known_to_whoever_gave_it() {
    let mut world = World::new();
    world.open("c/s/a", Opening { sos: true, ..opening("20261120-0", "") }, Contact::default());
    assert!(world.ask("c/s/a", "20261120-0", Verb::Accept, &by("w", Role::Worker), ""));
    let to = Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) };
    assert!(world.ask("c/s/a", "20261120-0", Verb::Dispatch, &to, ""));
    world.settle();
    for (at, is_below) in [("c/s/a", false), ("c/s/b", true), ("c/s", true), ("c", true)] {
        let cases = &world.places[at].cases;
        let open: u64 = cases.open_by_kind().iter().sum();
        assert_eq!([cases.calls_for_help().open, open], [u64::from(is_below); 2], "{at}");
        assert!(cases.help_is_wanted(), "{at} knows of it");
        world.restart(at);
    }
}

#[test]
fn a_case_never_follows_itself_and_what_is_short_for_an_id_here_is_no_other_one_there() {
    let mut world = World::new();
    let open = |world: &mut World, at: &str, id: &str| {
        world.open(at, opening(id, "L"), Contact::default());
    };
    open(&mut world, "c/s/a", "20261120-abc1");
    let into = |id: &str| Ask { into: Some(id.into()), ..by("w", Role::Worker) };
    for short in ["abc1", "abc", "20261120-a"] {
        assert!(!world.ask("c/s/a", "20261120-abc1", Verb::Merge, &into(short), ""), "{short}");
    }
    let case = &world.places["c/s/a"].cases.get("20261120-abc1").unwrap().case;
    assert_eq!((case.status, case.followers.len()), (Status::Submitted, 0));
    // `ab` is one at the city, which has not heard of the second one that begins so.
    open(&mut world, "c/s/a", "20261120-dddd");
    world.settle();
    open(&mut world, "c/s/a", "20261120-abc2");
    assert!(world.ask("c", "20261120-dddd", Verb::Merge, &into("abc"), "w1"));
    world.settle();
    assert!(world.places["c"].cases.find("abc").is_err(), "it is two by now");
    let case = &world.places["c"].cases.get("20261120-dddd").unwrap().case;
    assert_eq!(case.merged_into.as_deref(), Some("20261120-abc1"));
}

fn told(id: &str, status: Status, updated_h: i64, closed_h: Option<i64>) -> CaseAccount {
    let at = |h: i64| view::time_of(START + h * 3_600_000_000);
    CaseAccount {
        source: "/old".into(),
        id: id.into(),
        category: "bulky".into(),
        category_name: "Bulky Items".into(),
        title: String::new(),
        description: String::new(),
        department: "BOS".into(),
        channel: "Call".into(),
        governance: None,
        place: None,
        status,
        reason: None,
        opened: at(0),
        due: Some(at(48)),
        updated: at(updated_h),
        closed: closed_h.map(at),
        solved: None,
        satisfied: None,
    }
}

#[test]
fn what_another_system_tells_is_taken_once_and_in_its_own_time() {
    let mut world = World::new();
    let at = "c/s/a";
    let import = |world: &mut World, told: &[CaseAccount]| {
        let (became, drafts) = world.places[at].cases.import(told, "op", world.now);
        world.commit(at, drafts, None);
        world.settle();
        became
    };
    // Long after it was due there.
    world.now += 30 * 86_400_000_000;
    let life = [told("1", Status::Dispatched, 0, None), told("1", Status::Closed, 72, Some(72))];
    let became = import(&mut world, &life);
    assert_eq!((became.opened, became.changed, became.known), (1, 1, 0));
    let became = import(&mut world, &life);
    assert_eq!((became.opened, became.changed, became.known), (0, 0, 2));
    let held = world.places["c"].cases.iter().next().unwrap();
    assert_eq!((held.history.len(), held.case.took().unwrap().num_hours()), (2, 72));
    assert_eq!((held.case.escalations, held.case.title.as_str()), (0, "Bulky Items"));
    let total = |world: &World, at: &str| {
        let now = view::time_of(world.now);
        stats_of(&world.places[at].cases, GroupBy::All, now).1
    };
    assert_eq!((total(&world, "c").late, total(&world, "c").in_time), (1, 0));

    // That system finds that it came in two days before: the same case, in its right time.
    let earlier = |hours: i64| view::time_of(START + hours * 3_600_000_000);
    let mended = CaseAccount { opened: earlier(-48), ..told("1", Status::Closed, 96, Some(72)) };
    let again = CaseAccount { opened: earlier(-24), ..told("1", Status::Closed, 97, Some(72)) };
    let became = import(&mut world, &[mended, again]);
    assert_eq!((became.opened, became.changed), (0, 2));
    assert_eq!(world.places["c"].cases.iter().next().unwrap().case.took().unwrap().num_hours(), 96);
    let back = import(&mut world, &[told("1", Status::Closed, 98, Some(72))]);
    assert_eq!((back.changed, world.places["c"].cases.iter().count()), (1, 1));

    // One that is open and late was missed there: nobody is called here. Once it is dealt with here, it
    // is no longer that system's.
    let became = import(&mut world, &[told("2", Status::Dispatched, 0, None)]);
    assert_eq!((became.opened, total(&world, at).overdue), (1, 1));
    let id = world.places[at].cases.iter().find(|h| h.case.status.is_open()).unwrap().case.id.clone();
    assert!(world.ask(at, &id, Verb::Start, &by("h", Role::Worker), "w"));
    let became = import(&mut world, &[told("2", Status::Closed, 90, Some(90))]);
    assert_eq!(became.refused[0].error, "not-theirs");
    let became = import(&mut world, &[told("", Status::Closed, 90, None), told("3", Status::Closed, 1, None)]);
    assert_eq!((became.refused.len(), became.refused[1].error.as_str()), (2, "bad-account"));
    // What a clerk wrote as closed before it came in was closed as it came in.
    let became = import(&mut world, &[told("5", Status::Closed, 96, Some(-48))]);
    assert_eq!(became.opened, 1);
    let is_fifth = |held: &&Held| held.case.imported.as_ref().is_some_and(|told| told.id == "5");
    let case = world.places["c"].cases.iter().find(is_fifth).unwrap().case.clone();
    assert_eq!((case.closed, case.clock("solution").unwrap().stopped), (Some(earlier(0)), Some(earlier(0))));
    // No time that a calendar cannot go on from.
    for far in [chrono::DateTime::<chrono::Utc>::MAX_UTC, chrono::DateTime::<chrono::Utc>::MIN_UTC] {
        let opened = CaseAccount { opened: far, ..told("4", Status::Dispatched, 0, None) };
        let closed = CaseAccount { closed: Some(far), ..told("4", Status::Closed, 0, None) };
        let due = CaseAccount { due: Some(far), ..told("4", Status::Dispatched, 0, None) };
        let became = import(&mut world, &[opened, closed, due]);
        assert!(became.refused.iter().all(|r| r.error == "bad-account"), "{:?}", became.refused);
        assert_eq!(became.refused.len(), 3);
    }
}

#[test]
fn an_account_that_says_it_was_in_time_takes_back_that_it_was_late() {
    let mut world = World::new();
    let import = |world: &mut World, told: &CaseAccount| {
        let (_, drafts) = world.places["c/s/a"].cases.import(std::slice::from_ref(told), "op", world.now);
        world.commit("c/s/a", drafts, None);
        world.settle();
    };
    import(&mut world, &told("1", Status::Dispatched, 0, None));
    // Its limit passes; at night it is told that it was closed an hour before.
    world.now += 60 * 3_600_000_000;
    world.settle();
    let late = |world: &World| world.places["c"].cases.iter().next().unwrap().case.was_late();
    assert!(late(&world));
    import(&mut world, &told("1", Status::Closed, 47, Some(47)));
    assert!(!late(&world));
    import(&mut world, &told("1", Status::Closed, 50, Some(49)));
    assert!(late(&world));
}

#[test]
fn a_key_is_the_same_one_behind_midnight() {
    let mut world = World::new();
    let now = world.now;
    let id = world.places["c/s"].cases.keyed("/c/s/cases", "k", view::time_of(now)).unwrap_err();
    let (_, drafts) = world.places["c/s"].cases.open(opening(&id, "L"), Contact::default(), now);
    world.commit("c/s", drafts, None);
    let keyed = |us: i64| world.places["c/s"].cases.keyed("/c/s/cases", "k", view::time_of(us));
    assert_eq!(keyed(now + 20 * 3_600_000_000), Ok(id.clone()));
    assert!(keyed(now + 48 * 3_600_000_000).is_err());
}

#[test]
fn the_same_report_again_is_a_hot_spot_and_the_same_number_a_repeat_caller() {
    let mut world = World::new();
    let spot = |lat: f64| citybrain_shared::case::Place { text: "三号门".into(), lat: Some(lat), lon: Some(103.83) };
    for (i, (lat, phone)) in
        [(30.6901, "139 0000"), (30.6903, "1390000"), (30.6905, "138"), (30.75, "1390000")].iter().enumerate()
    {
        let new = Opening { place: Some(spot(*lat)), has_contact: true, ..opening(&format!("20261120-{i}"), "L") };
        let contact = Contact { name: "王大妈".into(), phone: (*phone).into(), ..Contact::default() };
        world.open("c/s/a/n", new, contact);
    }
    world.settle();
    let watched = |at: &str, shown: bool| {
        let cases = &world.places[at].cases;
        let question = supervision::Question { scope: Scope::default(), again: 2, limit: 10, shown };
        let mut watching = supervision::Watching::new(question, view::time_of(world.now));
        cases.iter().for_each(|held| watching.add(cases, held));
        watching.ranked().told(cases)
    };
    let spots = watched("c", true).hot_spots;
    assert_eq!((spots[0].lat, spots[0].ids.len(), spots[0].open), (Some(30.6903), 3, 3));
    assert_eq!((spots.len(), spots[0].cases, spots[0].category_name.as_str()), (1, 3, "路灯"));
    let callers = |at: &str, shown: bool| watched(at, shown).repeat_callers;
    assert_eq!(callers("c/s/a/n", true)[0].contact.as_ref().unwrap().name, "王大妈");
    assert_eq!((callers("c/s/a/n", false)[0].cases, &callers("c/s/a/n", false)[0].contact), (3, &None));
    assert!(callers("c", true).is_empty(), "the city keeps no numbers");
}

#[test]
fn a_list_that_is_cut_says_how_many_there_are() {
    let mut world = World::new();
    for i in 0..6 {
        let place = citybrain_shared::case::Place { text: format!("{}号门", i / 2), ..Default::default() };
        let new = Opening { place: Some(place), has_contact: true, ..opening(&format!("20261120-{i}"), "L") };
        let contact = Contact { phone: format!("1390000000{}", i / 2), ..Contact::default() };
        world.open("c/s/a", new, contact);
    }
    let cases = &world.places["c/s/a"].cases;
    let question = supervision::Question { scope: Scope::default(), again: 2, limit: 2, shown: true };
    let mut watching = supervision::Watching::new(question, view::time_of(world.now));
    cases.iter().for_each(|held| watching.add(cases, held));
    let told = watching.ranked().told(cases);
    assert_eq!((told.hot_spots.len(), told.hot_spots_in_all), (2, 3));
    assert_eq!((told.repeat_callers.len(), told.repeat_callers_in_all), (2, 3));
}

#[test]
fn whoever_supervises_sees_who_comes_to_a_press_that_is_overdue() {
    let mut world = World::new();
    world.open("c/s/a", Opening { sos: true, ..opening("20261120-0", "G") }, Contact::default());
    world.settle();
    // Its own box has not heard of him yet.
    assert!(world.ask("c/s", "20261120-0", Verb::Accept, &by("街长", Role::Worker), "w1"));
    let cases = &world.places["c/s"].cases;
    let question = supervision::Question { scope: Scope::default(), again: 2, limit: 10, shown: false };
    let mut watching = supervision::Watching::new(question, view::time_of(START + 3 * 3_600_000_000));
    cases.iter().for_each(|held| watching.add(cases, held));
    let told = watching.ranked().told(cases);
    assert_eq!(told.overdue_in_all, 1);
    assert_eq!(told.coming["20261120-0"].iter().map(|c| c.by.as_str()).collect::<Vec<_>>(), ["街长"]);
}

#[test]
fn what_its_category_leaves_out_of_the_rates_is_in_no_hot_spot() {
    for (category, spots) in [("L", 1), ("X", 0)] {
        let mut world = World::new();
        let place = citybrain_shared::case::Place { text: "三号门".into(), lat: Some(30.69), lon: Some(103.83) };
        for i in 0..3 {
            let new = Opening { place: Some(place.clone()), ..opening(&format!("20261120-{i}"), category) };
            world.open("c/s/a", new, Contact::default());
        }
        let cases = &world.places["c/s/a"].cases;
        let question = supervision::Question { scope: Scope::default(), again: 2, limit: 10, shown: true };
        let mut watching = supervision::Watching::new(question, view::time_of(world.now));
        cases.iter().for_each(|held| watching.add(cases, held));
        assert_eq!(watching.ranked().told(cases).hot_spots.len(), spots, "{category}");
    }
}

#[test]
fn no_border_of_the_grid_cuts_a_hot_spot_in_pieces() {
    let mut world = World::new();
    let corner = [(30.69999, 103.83999), (30.70001, 103.83999), (30.69999, 103.84001), (30.70001, 103.84001)];
    // A row of reports, 300 m from each other, is no spot.
    let row = (0..4).map(|i| (30.70001 + 0.0027 * f64::from(i), 103.9));
    for (i, (lat, lon)) in corner.into_iter().chain(row).enumerate() {
        let place = citybrain_shared::case::Place { text: String::new(), lat: Some(lat), lon: Some(lon) };
        world.open(
            "c/s/a",
            Opening { place: Some(place), ..opening(&format!("20261120-{i}"), "L") },
            Contact::default(),
        );
    }
    let cases = &world.places["c/s/a"].cases;
    let question = supervision::Question { scope: Scope::default(), again: 2, limit: 10, shown: true };
    let mut watching = supervision::Watching::new(question, view::time_of(world.now));
    cases.iter().for_each(|held| watching.add(cases, held));
    let spots: Vec<_> = watching.ranked().told(cases).hot_spots.into_iter().map(|s| (s.cases, s.open, s.ids)).collect();
    let newest = [3, 2, 1, 0].map(|i| format!("20261120-{i}")).to_vec();
    assert_eq!(spots, [(4, 4, newest)]);
}

#[test]
fn the_rates_of_a_month_are_those_of_its_days() {
    for (text, named) in [("2026-11-20", "Day"), ("2026-11", "Month"), ("2026", "Year")] {
        assert_eq!(rates::span_of(text).map(|p| format!("{p:?}")).as_deref(), Some(named), "{text}");
    }
    for none in ["2026-13", "2026-11-31", "26-11-20", "2026-1", "+026", "2026/11", "all", ""] {
        assert!(rates::span_of(none).is_none(), "{none}");
    }
    let mut world = World::new();
    for (i, days) in [0, 2, 40].into_iter().enumerate() {
        let id = format!("20261120-{i}");
        world.open("c/s/a", opening(&id, "L"), Contact::default());
        world.now = START + days * 86_400_000_000;
        world.ask("c/s/a", &id, Verb::Accept, &by("w", Role::Worker), "");
        world.ask("c/s/a", &id, Verb::Dispatch, &by("w", Role::Worker), "");
    }
    let rated = |period, of: &str| {
        let (by, of) = (GroupBy::All, Some(of.into()));
        let question = Question { by, period, of, under: None, category: None, compare: false };
        let (rows, total) = rated(&world.places["c/s/a"].cases, question);
        let rows = rows.into_iter().filter(|r| r.now.counts.dispatched > 0);
        (rows.map(|r| r.now.period).collect::<Vec<_>>(), total.now.counts.dispatched)
    };
    assert_eq!(rated(RatePeriod::Month, "2026-11"), (vec!["2026-11".into()], 2));
    assert_eq!(rated(RatePeriod::Day, "2026-11"), (vec!["2026-11-20".into(), "2026-11-22".into()], 2));
    assert_eq!(rated(RatePeriod::Year, "2026"), (vec!["2026".into()], 3));
}

#[test]
fn closing_goes_by_the_period_of_the_limit_and_comparison_by_the_periods_before() {
    let mut world = World::new();
    let day = 86_400_000_000;
    // Friday; one working day: due on Monday the 23rd, the other two in December.
    for (i, at) in [0, 10, 11].into_iter().enumerate() {
        let id = format!("20261120-{i}");
        world.now = START + at * day;
        let (_, drafts) = world.places["c/s/a"].cases.open(opening(&id, "L"), Contact::default(), world.now);
        world.commit("c/s/a", drafts, None);
        for (verb, who) in [(Verb::Accept, "w"), (Verb::Dispatch, "w"), (Verb::Start, "h"), (Verb::Resolve, "h")] {
            assert!(world.ask("c/s/a", &id, verb, &by(who, Role::Worker), ""), "{verb}");
        }
        if i < 2 {
            world.now += i64::from(i == 1) * 20 * day;
            let said = Ask { solved: Some(Solved::Solved), ..by("boss", Role::Supervisor) };
            assert!(world.ask("c/s/a", &id, Verb::Evaluate, &said, ""));
            assert!(world.ask("c/s/a", &id, Verb::Close, &by("boss", Role::Supervisor), ""));
        }
    }
    let of = |period, of: &str| {
        let (by, of) = (GroupBy::All, Some(of.into()));
        rated(&world.places["c/s/a"].cases, Question { by, period, of, under: None, category: None, compare: true })
    };
    let (rows, total) = of(RatePeriod::Month, "2026-11");
    assert_eq!((rows.len(), total.now.counts.dispatched, total.now.counts.appeals), (1, 2, 2));
    assert_eq!((total.now.counts.due, total.now.closing, total.now.closing_in_time), (1, Some(1.0), Some(1.0)));
    assert_eq!((total.appeals_per_10000, total.now.accurate_dispatch), (Some(1.0), Some(1.0)));
    let (rows, total) = of(RatePeriod::Month, "2026-12");
    assert_eq!((total.now.counts.dispatched, total.now.counts.due, total.now.counts.due_closed), (1, 2, 1));
    assert_eq!((total.now.closing, total.now.closing_in_time), (Some(0.5), Some(0.0)));
    let before = rows[0].before.as_ref().unwrap();
    assert_eq!((before.period.as_str(), before.counts.dispatched, before.closing), ("2026-11", 2, Some(1.0)));
    assert_eq!(rows[0].year_before.as_ref().map(|y| (y.period.as_str(), y.counts.dispatched)), Some(("2025-12", 0)));
    assert_eq!(total.before.as_ref().map(|b| &b.counts), Some(&before.counts));
    // Then there was something, now there is nothing: it is a row all the same.
    let (rows, total) = of(RatePeriod::Month, "2027-11");
    assert_eq!((rows.len(), rows[0].now.counts.dispatched), (1, 0));
    assert_eq!(total.year_before.unwrap().counts.dispatched, 2);
    // A leap day has none a year before it, and days of a month have each their own day before.
    let (rows, total) = of(RatePeriod::Day, "2026-12");
    assert!(total.before.is_none() && rows.iter().all(|r| r.before.is_some() && r.year_before.is_some()));
    assert!(of(RatePeriod::Day, "2028-02-29").1.year_before.is_none());
}

#[test]
fn closing_rates_are_those_that_a_city_has_published() {
    // Tianmen, December 2016: 972 due, 911 closed, 737 of them in time.
    let cases = node("c");
    let mut counting = rates::Counting::new(Question {
        by: GroupBy::All,
        period: RatePeriod::All,
        of: None,
        under: None,
        category: None,
        compare: false,
    });
    let opened = cases.book().open(opening("1", "L"), view::time_of(START)).case;
    let at = |h: i64| view::time_of(START + h * 3_600_000_000);
    for i in 0..972 {
        let mut case = opened.clone();
        case.clocks = vec![citybrain_shared::case::Clock {
            name: "solution".into(),
            limit: "1wd".into(),
            started: at(0),
            due: Some(at(24)),
            left_us: None,
            stopped: None,
            missed: None,
            due_before: None,
            missed_before: false,
        }];
        if i < 911 {
            (case.status, case.closed) = (Status::Closed, Some(if i < 737 { at(24) } else { at(25) }));
        }
        counting.add(&cases, &case, &|_| None, at(100));
    }
    // Not those that are not due yet, nor those that count in no rate.
    let mut case = opened;
    case.status = Status::Withdrawn;
    counting.add(&cases, &case, &|_| None, at(100));
    let total = counting.done(&cases.settings, &[], &|_| None).1;
    assert_eq!(
        (total.now.counts.due, total.now.closing, total.now.closing_in_time),
        (972, Some(0.937243), Some(0.75823))
    );
}

/// The month that a case is due in, whether it was closed in time, and whether it was ever overdue.
fn closing_of(world: &World, month: &str) -> (u64, u64, u64) {
    let (by, period, of) = (GroupBy::All, RatePeriod::Month, Some(month.to_owned()));
    let question = Question { by, period, of, under: None, category: None, compare: false };
    let counts = rated(&world.places["c/s/a"].cases, question).1.now.counts;
    (counts.due, counts.due_closed_in_time, counts.overdue)
}

#[test]
fn a_limit_that_was_missed_stays_missed_in_its_month_whoever_begins_the_clock_anew() {
    let day = 86_400_000_000;
    let id = "20261120-0";
    let step = |world: &mut World, verb: Verb| {
        let (who, role) = match verb {
            Verb::Accept | Verb::Dispatch | Verb::Return => ("w", Role::Worker),
            Verb::Evaluate | Verb::Close | Verb::Reopen => ("boss", Role::Supervisor),
            _ => ("h", Role::Worker),
        };
        assert!(world.ask("c/s/a", id, verb, &by(who, role), ""), "{verb}");
        world.settle();
    };
    let to_the_end = [Verb::Dispatch, Verb::Start, Verb::Resolve, Verb::Evaluate, Verb::Close];
    // One worker sends it back to himself; one supervisor reopens what was closed late.
    for again in [&[Verb::Return][..], &[Verb::Resolve, Verb::Evaluate, Verb::Close, Verb::Reopen]] {
        let mut world = World::new();
        world.open("c/s/a", opening(id, "L"), Contact::default());
        [Verb::Accept, Verb::Dispatch, Verb::Start].into_iter().for_each(|verb| step(&mut world, verb));
        world.now += 8 * day;
        world.settle();
        again.iter().for_each(|verb| step(&mut world, *verb));
        world.now += 4 * day;
        to_the_end.into_iter().for_each(|verb| step(&mut world, verb));
        assert_eq!(closing_of(&world, "2026-11"), (1, 0, 1), "{again:?}");
        assert_eq!(closing_of(&world, "2026-12"), (0, 0, 0), "{again:?}");
        let stats = stats_of(&world.places["c"].cases, GroupBy::All, view::time_of(world.now)).1;
        assert_eq!((stats.in_time, stats.late), (0, 1), "{again:?}");
        world.restart("c/s/a");
    }
    // What was sent back in time has a new limit, and nothing was missed.
    let mut world = World::new();
    world.open("c/s/a", opening(id, "L"), Contact::default());
    [Verb::Accept, Verb::Dispatch, Verb::Return].into_iter().for_each(|verb| step(&mut world, verb));
    world.now += 12 * day;
    to_the_end.into_iter().for_each(|verb| step(&mut world, verb));
    assert_eq!((closing_of(&world, "2026-11"), closing_of(&world, "2026-12")), ((0, 0, 0), (1, 1, 0)));
}

#[test]
fn a_response_that_was_missed_is_not_kept_by_merging_the_case_and_taking_that_back() {
    let mut world = World::new();
    for id in ["p", "q"] {
        world.open("c/s/a", opening(id, "G"), Contact::default());
    }
    let step = |world: &mut World, id: &str, verb: Verb, ask: Ask| {
        assert!(world.ask("c/s/a", id, verb, &ask, ""), "{verb}");
        world.settle();
    };
    step(&mut world, "q", Verb::Accept, by("w", Role::Worker));
    world.now += 3 * 3_600_000_000;
    world.settle();
    step(&mut world, "q", Verb::Merge, Ask { into: Some("p".into()), ..by("w", Role::Worker) });
    step(&mut world, "p", Verb::Reject, by("w", Role::Worker));
    for verb in [Verb::Dispatch, Verb::Start] {
        step(&mut world, "q", verb, by("w", Role::Worker));
    }
    let case = &world.places["c"].cases.get("q").unwrap().case;
    assert!(case.responded() <= case.clock("response").unwrap().due, "by the new limit it is in time");
    let counts = count(case, view::time_of(world.now));
    assert_eq!((counts.response_of, counts.response_kept, counts.response_open), (1, 0, 0));
}

#[test]
fn no_extension_nor_suspension_that_comes_too_late_takes_a_miss_out_of_anything_that_counts() {
    let (day, id) = (86_400_000_000, "20261120-0");
    let waits = Ask { approved_by: Some("chief".into()), ..by("boss", Role::Supervisor) };
    let ask_of = |verb: Verb| match verb {
        Verb::Suspend => waits.clone(),
        Verb::Extend => Ask { limit: Some("30d".into()), ..waits.clone() },
        Verb::Evaluate | Verb::Close => by("boss", Role::Supervisor),
        _ => by("h", Role::Worker),
    };
    let step = |world: &mut World, verb: Verb| {
        assert!(world.ask("c/s/a", id, verb, &ask_of(verb), ""), "{verb}");
        world.settle();
    };
    for late in [&[Verb::Extend][..], &[Verb::Suspend], &[Verb::Suspend, Verb::Resume], &[Verb::Extend, Verb::Suspend]]
    {
        let mut world = World::new();
        world.open("c/s/a", opening(id, "L"), Contact::default());
        [Verb::Accept, Verb::Dispatch, Verb::Start].into_iter().for_each(|verb| step(&mut world, verb));
        let due = world.places["c/s/a"].cases.get(id).unwrap().case.clock("solution").unwrap().due;
        world.now += 8 * day;
        world.settle();
        let called = |world: &World| world.places["c"].cases.get(id).unwrap().case.escalations;
        assert_eq!((closing_of(&world, "2026-11"), called(&world)), ((1, 0, 1), 1), "{late:?}");
        for verb in late {
            step(&mut world, *verb);
            // Some of it in December.
            world.now += 4 * day;
            world.settle();
            let case = &world.places["c"].cases.get(id).unwrap().case;
            assert_eq!(case.clock("solution").unwrap().counted_due(), due, "{verb} of {late:?}");
            assert!(case.was_late() && case.escalations == 1, "{verb} of {late:?}: {case:?}");
            assert_eq!(closing_of(&world, "2026-11"), (1, 0, 1), "{verb} of {late:?}");
            assert_eq!(closing_of(&world, "2026-12"), (0, 0, 0), "{verb} of {late:?}");
        }
        if late.ends_with(&[Verb::Suspend]) {
            step(&mut world, Verb::Resume);
        }
        [Verb::Resolve, Verb::Evaluate, Verb::Close].into_iter().for_each(|verb| step(&mut world, verb));
        assert_eq!(closing_of(&world, "2026-11"), (1, 0, 1), "{late:?}");
        let stats = stats_of(&world.places["c"].cases, GroupBy::All, view::time_of(world.now)).1;
        assert_eq!((stats.with_limit, stats.in_time, stats.late), (1, 0, 1), "{late:?}");
        rates_add_up(&NODES, &|n| &world.places[n].cases).unwrap();
        world.restart("c/s/a");
    }
}

#[test]
fn what_is_suspended_when_its_limit_has_passed_stays_overdue_and_over_since_then() {
    let (hour, id) = (3_600_000_000, "20261120-0");
    let mut world = World::new();
    world.open("c/s/a", opening(id, "L"), Contact::default());
    let waits = Ask { approved_by: Some("chief".into()), ..by("boss", Role::Supervisor) };
    for (verb, ask) in [(Verb::Accept, by("w", Role::Worker)), (Verb::Dispatch, by("w", Role::Worker))] {
        assert!(world.ask("c/s/a", id, verb, &ask, ""));
    }
    let due = world.places["c/s/a"].cases.get(id).unwrap().case.due().unwrap().1;
    world.now = due.timestamp_micros() + 2 * hour;
    // Nobody has seen yet that it is missed: whoever is called for it is called once.
    assert!(world.ask("c/s/a", id, Verb::Suspend, &waits, ""));
    world.settle();
    for resumed in [false, true] {
        if resumed {
            world.now += hour;
            assert!(world.ask("c/s/a", id, Verb::Resume, &by("w", Role::Worker), ""));
            world.settle();
        }
        let cases = &world.places["c"].cases;
        let case = &cases.get(id).unwrap().case;
        assert_eq!((case.due().map(|(_, at)| at), case.escalations), (Some(due), 1));
        let question = supervision::Question { scope: Scope::default(), again: 2, limit: 10, shown: false };
        let mut watching = supervision::Watching::new(question, view::time_of(world.now));
        cases.iter().for_each(|held| watching.add(cases, held));
        let told = watching.ranked().told(cases);
        assert_eq!((told.overdue_in_all, told.suspended_in_all), (1, u64::from(!resumed)));
    }
}
