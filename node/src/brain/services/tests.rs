//! Catalogues on their way down, and seats that are given once.

use super::*;
use crate::brain::cases::booking::OfService;
use crate::brain::cases::{Cases, Held, Opening};
use chrono::{DateTime, Datelike as _, Utc};
use citybrain_shared::case::{Booked, Booking, Contact, Role, Status, Verb};
use citybrain_shared::config::{Variables, parse};
use citybrain_shared::record::Origin;
use citybrain_shared::{LogId, Selector};

const OFFERS: &str = r#"
[[service]]
code = "haircut"
name = "理发"
hours = ["mon-fri 09:00-10:00"]
slot = "30m"
capacity = 1
form = [{ name = "floor", required = true, choices = ["1", "2"] }, { name = "illness", personal = true }]
[[service]]
code = "sports-day"
name = "运动会"
starts = "2026-12-05 09:00"
ends = "2026-12-05 12:00"
places = 5
volunteers = 1
"#;

fn config(address: &str, text: &str) -> Config {
    let parsed = parse(&format!("[node]\naddress = \"{address}\"\ndata = \"d\"\n{text}"), &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    parsed.config.unwrap()
}

fn now() -> DateTime<Utc> {
    "2026-11-20T02:00:00Z".parse().unwrap() // Friday, 10:00 in Chengdu
}

/// Gives a draft of `from` to another node's part.
fn carry(to: &mut Services, from: &str, draft: &Draft) -> Vec<Draft> {
    let (header, payload) = draft.parts();
    let origin = Origin { address: from, log: LogId(1), pos: Pos(1) };
    let header = Header { origin: Some(origin), ..header };
    let more = to.decide(&State::default(), now().timestamp_micros(), &header, payload);
    to.apply(Pos(1), &header, payload);
    more
}

fn keep(at: &mut Services, draft: &Draft) {
    let (header, payload) = draft.parts();
    at.apply(Pos(1), &header, payload);
}

#[test]
fn a_new_node_asks_and_inherits_what_is_offered_above_it() {
    let mut city = Services::new(&config("c", "[[service]]\ncode = \"a\"\nname = \"of the city\"\n"));
    let mut street = Services::new(&config("c/s", "[[service]]\ncode = \"a\"\nname = \"of the street\"\n"));
    let mut leaf = Services::new(&config("c/s/m", ""));
    let us = now().timestamp_micros();
    let sent = city.on_due(&State::default(), us);
    sent.iter().for_each(|d| keep(&mut city, d));
    assert_eq!(city.next_due_us(), None, "said once is enough");
    carry(&mut street, "c", &sent[0]);
    // The leaf is installed later, when nothing of this is on its way any more.
    let asked = leaf.on_due(&State::default(), us);
    assert_eq!(asked.len(), 1, "it has nothing to offer, and asks");
    keep(&mut leaf, &asked[0]);
    assert_eq!(leaf.next_due_us(), None);
    let answers = carry(&mut street, "c/s/m", &asked[0]);
    assert_eq!(answers.len(), 2);
    for answer in &answers {
        assert!(Selector::parse(answer.header().target).unwrap().root.as_str() == "c/s/m");
        carry(&mut leaf, "c/s", answer);
    }
    // The nearest goes first; another's is named.
    assert_eq!(leaf.find("a", None).unwrap().1.name, "of the street");
    assert_eq!(leaf.find("a", Some(&Address::parse("c").unwrap())).unwrap().1.name, "of the city");
    assert_eq!(leaf.find("b", None).unwrap_err().error, "not-found");
    let mut again = Services::new(&config("c/s/m", ""));
    for (key, value) in leaf.take_rows() {
        again.load_row(&key, &value.unwrap()).unwrap();
    }
    assert_eq!(again.services().count(), 2);
    assert_eq!(again.next_due_us(), None);
}

#[test]
fn a_catalogue_is_sent_once_whatever_its_numbers_are() {
    // A number of seventeen digits, and one for which JSON has no word.
    let place = "lat = nan, lon = 111.93098693131631";
    let scene = "[[scene]]\ncode = \"x\"\nname = \"x\"\ngeometry = { type = \"Point\", coordinates = [111.93098693131631, 30.123456789012345] }\n";
    let mut city = Services::new(&config(
        "c",
        &format!("[[service]]\ncode = \"a\"\nname = \"a\"\nplace = {{ {place} }}\n{scene}"),
    ));
    let sent = city.on_due(&State::default(), now().timestamp_micros());
    keep(&mut city, &sent[0]);
    assert_eq!(city.next_due_us(), None, "once is enough");
    let mut again = Services::new(&config(
        "c",
        &format!("[[service]]\ncode = \"a\"\nname = \"a\"\nplace = {{ {place} }}\n{scene}"),
    ));
    for (key, value) in city.take_rows() {
        again.load_row(&key, &value.unwrap()).unwrap();
    }
    assert_eq!(again.next_due_us(), None, "and once over a restart");
}

#[test]
fn a_changed_catalogue_is_sent_again_and_nobody_speaks_for_a_node_that_is_not_above() {
    let mut city = Services::new(&config("c", OFFERS));
    let sent = city.on_due(&State::default(), now().timestamp_micros());
    keep(&mut city, &sent[0]);
    let rows = city.take_rows();
    let mut changed = Services::new(&config("c", "[[service]]\ncode = \"new\"\nname = \"new\"\n"));
    for (key, value) in &rows {
        changed.load_row(key, value.as_ref().unwrap()).unwrap();
    }
    assert_eq!(changed.next_due_us(), Some(0));
    let mut beside = Services::new(&config("d/s", ""));
    carry(&mut beside, "c", &sent[0]);
    assert_eq!(beside.services().count(), 0);
}

/// What a request becomes at a node that knows these services.
fn opening(
    services: &Services,
    cases: &Cases,
    word: &str,
    id: &str,
    wanted: &view::ServiceRequest,
) -> Result<(Opening, Contact), Refusal> {
    let offered = services.offered(word, wanted.of.as_ref())?;
    let wanted = view::ServiceRequest { by: "王大妈".into(), ..wanted.clone() };
    request::opening(&offered, &wanted, id.to_owned(), |at| cases.may_be_free(&offered, at), now())
}

/// Opens a request at the node that offers it.
fn request(cases: &mut Cases, word: &str, id: &str, wanted: &view::ServiceRequest) -> Result<Held, Refusal> {
    let services = Services::new(&config("c/s/m", OFFERS));
    let (opening, contact) = opening(&services, cases, word, id, wanted)?;
    let (_, drafts) = cases.open(opening, contact, now().timestamp_micros());
    for (i, draft) in drafts.iter().enumerate() {
        let (header, payload) = draft.parts();
        cases.apply(Pos(i as u64 + 1), &header, payload);
    }
    Ok(cases.get(id).unwrap().clone())
}

fn slot(text: &str) -> view::ServiceRequest {
    let form = [("floor".to_owned(), "1".to_owned()), ("illness".to_owned(), "糖尿病".to_owned())];
    view::ServiceRequest { slot: Some(text.into()), form: form.into(), ..Default::default() }
}

#[test]
fn an_appointment_is_given_once_and_free_again_when_it_is_given_back() {
    let mut cases = Cases::new(&config("c/s/m", OFFERS));
    let at = slot("2026-11-23 09:00");
    let first = request(&mut cases, "haircut", "20261120-0", &at).unwrap();
    assert_eq!(first.case.booking.as_ref().unwrap().state, Booked::Booked);
    let second = request(&mut cases, "理发", "20261120-1", &at).unwrap();
    assert_eq!((second.case.status, second.case.booking.unwrap().state), (Status::Rejected, Booked::Refused));
    let why = &second.history.last().unwrap().text;
    assert!(why.contains("0 of 1 are left; free is 2026-11-23 09:30"), "{why}");
    let ask = citybrain_shared::case::Ask {
        by: "王大妈".into(),
        role: Some(citybrain_shared::case::Role::Resident),
        ..Default::default()
    };
    let (_, _, drafts) = cases.ask("20261120-0", Verb::Withdraw, &ask, "", now().timestamp_micros()).unwrap();
    let (header, payload) = drafts[0].parts();
    cases.apply(Pos(9), &header, payload);
    let third = request(&mut cases, "haircut", "20261120-2", &at).unwrap();
    assert_eq!(third.case.booking.unwrap().state, Booked::Booked);
}

#[test]
fn the_times_of_a_service_are_those_of_the_node_that_offers_it() {
    // Chengdu's holidays are the city's; the community below has a day off of its own, and other clocks.
    let workdays = OFFERS.replace("mon-fri 09:00", "workdays 09:00");
    let mut city = Services::new(&config("c", &format!("{workdays}[calendar]\nholidays = [\"2026-11-24\"]\n")));
    let own = "[calendar]\nutc_offset = \"+09:00\"\nholidays = [\"2026-11-23\"]\n";
    let mut below = Services::new(&config("c/s/m", own));
    let cases = Cases::new(&config("c/s/m", own));
    let sent = city.on_due(&State::default(), now().timestamp_micros());
    carry(&mut below, "c", &sent[0]);
    sent.iter().for_each(|draft| keep(&mut city, draft));
    let ask = |word: &str, wanted: &view::ServiceRequest| opening(&below, &cases, word, "20261120-0", wanted);
    let begins = |word, wanted: &_| ask(word, wanted).unwrap().0.booking.unwrap().at.unwrap().to_rfc3339();
    assert_eq!(begins("haircut", &slot("2026-11-23 09:00")), "2026-11-23T01:00:00+00:00");
    assert_eq!(begins("sports-day", &view::ServiceRequest::default()), "2026-12-05T01:00:00+00:00");
    let off = ask("haircut", &slot("2026-11-24 09:00")).unwrap_err();
    assert_eq!((off.error, off.hint.contains("2026-11-23 09:00")), ("no-slot", true), "{}", off.hint);
    // A node without a calendar goes by the nearest above it.
    let street = Services::new(&config("c/s", OFFERS));
    let sent = street.on_due(&State::default(), now().timestamp_micros());
    carry(&mut below, "c/s", &sent[0]);
    let [street, community] = ["c/s", "c/s/m"].map(|node| below.calendar_of(&Address::parse(node).unwrap()));
    let day = |day: &str| day.parse::<chrono::NaiveDate>().unwrap();
    assert_eq!((street.works(day("2026-11-23")), street.works(day("2026-11-24"))), (true, false));
    assert_eq!((community.works(day("2026-11-23")), community.works(day("2026-11-24"))), (false, true));
}

#[test]
fn what_another_node_offers_is_asked_for_unless_it_is_past_by_the_clock_of_the_node_that_is_asked() {
    let street = Services::new(&config("c/s/m", OFFERS));
    let sent = street.on_due(&State::default(), now().timestamp_micros());
    let mut below = Services::new(&config("c/s/m/n", ""));
    carry(&mut below, "c/s/m", &sent[0]);
    for clock in ["1970-01-01T00:00:10Z", "2026-11-24T00:00:00Z", "2028-01-01T00:00:00Z"] {
        let clock = clock.parse().unwrap();
        let ask = |services: &Services, word: &str, wanted: view::ServiceRequest| {
            let offered = services.offered(word, None)?;
            let wanted = view::ServiceRequest { by: "王大妈".into(), ..wanted };
            request::opening(&offered, &wanted, "20261120-0".into(), |_| true, clock).map(|(opening, _)| opening)
        };
        let past = clock > "2026-11-23T01:00:00Z".parse::<DateTime<Utc>>().unwrap();
        match ask(&below, "haircut", slot("2026-11-23 09:00")) {
            Ok(given) if !past => {
                assert_eq!(given.booking.unwrap().at.unwrap().to_rfc3339(), "2026-11-23T01:00:00+00:00", "{clock}");
            }
            Err(refusal) if past => {
                assert_eq!(refusal.error, "too-late", "{clock}");
                assert!(refusal.detail.starts_with("2026-11-23 09:00 is past"), "{}", refusal.detail);
            }
            other => panic!("{clock}: {other:?}"),
        }
        let sports_day = ask(&below, "sports-day", view::ServiceRequest::default());
        assert_eq!(sports_day.map_err(|r| r.error).err(), (clock.year() == 2028).then_some("too-late"), "{clock}");
        let own = ask(&street, "haircut", slot("2026-11-23 09:00")).unwrap_err();
        let why = if past { ("too-late", "is past") } else { ("no-slot", "is beyond the 14 days ahead") };
        assert!(own.error == why.0 && own.detail.contains(why.1), "its own: {clock}: {}", own.detail);
        // That nothing begins at midnight it knows, and which times are ahead it does not.
        let never = ask(&below, "haircut", slot("2026-11-23 00:00")).unwrap_err();
        assert!(
            never.error == (if past { "too-late" } else { "no-slot" })
                && !never.hint.contains("1970")
                && !never.hint.contains("2028"),
            "{}",
            never.hint
        );
    }
}

#[test]
fn a_time_that_is_just_past_is_for_the_node_that_offers_it_to_judge() {
    let street = Services::new(&config("c/s/m", OFFERS));
    let mut below = Services::new(&config("c/s/m/n", ""));
    carry(&mut below, "c/s/m", &street.on_due(&State::default(), now().timestamp_micros())[0]);
    for (clock, is_taken) in [("2026-11-23T01:59:59Z", true), ("2026-11-23T02:00:00Z", false)] {
        let offered = below.offered("haircut", None).unwrap();
        let wanted = view::ServiceRequest { by: "王大妈".into(), ..slot("2026-11-23 09:00") };
        let given = request::opening(&offered, &wanted, "20261120-0".into(), |_| true, clock.parse().unwrap());
        assert_eq!(given.is_ok(), is_taken, "{clock}: {given:?}");
    }
}

#[test]
fn what_is_proposed_instead_is_free_where_that_is_known() {
    let mut cases = Cases::new(&config("c/s/m", OFFERS));
    request(&mut cases, "haircut", "20261120-0", &slot("2026-11-23 09:00")).unwrap();
    let none = view::ServiceRequest { slot: None, ..slot("") };
    let hint = request(&mut cases, "haircut", "20261120-1", &none).unwrap_err().hint;
    assert!(hint.starts_with(r#"such as `"slot":"2026-11-23 09:30"`"#), "{hint}");
}

#[test]
fn what_asks_for_a_service_is_listed_by_when_it_is_for() {
    let mut cases = Cases::new(&config("c/s/m", OFFERS));
    for (id, at) in
        [("20261120-0", "2026-11-24 09:00"), ("20261120-1", "2026-11-23 09:30"), ("20261120-2", "2026-11-23 09:00")]
    {
        request(&mut cases, "haircut", id, &slot(at)).unwrap();
    }
    request(&mut cases, "sports-day", "20261120-3", &view::ServiceRequest::default()).unwrap();
    let ids = |then| cases.asking_for("haircut", then).map(|held| held.case.id.as_str()).collect::<Vec<_>>();
    assert_eq!(ids(None), ["20261120-2", "20261120-1", "20261120-0"]);
    let second = crate::brain::cases::booked(&cases.get("20261120-1").unwrap().case);
    assert_eq!(ids(Some(second)), ["20261120-0"]);
}

#[test]
fn what_asks_for_a_service_is_found_by_code_or_name_and_told_from_another_nodes_of_that_code() {
    let mut cases = Cases::new(&config("c/s/m", OFFERS));
    let first = request(&mut cases, "haircut", "20261120-0", &slot("2026-11-23 09:00")).unwrap();
    let booking = first.case.booking.unwrap();
    let beside = Booking { node: "c/s".parse().unwrap(), name: "街道理发".into(), ..booking.clone() };
    let [community, street] = ["c/s/m", "c/s"].map(|node| Address::parse(node).unwrap());
    let holds = |of: OfService| (of.holds(&booking), of.holds(&beside));
    let service = &config("c/s/m", OFFERS).service[0];
    assert_eq!(holds(OfService::offered(&community, service)), (true, false));
    assert_eq!(holds(OfService::offered(&street, service)), (false, true));
    // Where it is not offered the cases know it.
    assert_eq!(cases.asked_for("haircut", None).map(holds), Some((true, true)));
    assert_eq!(cases.asked_for("理发", None).map(holds), Some((true, false)));
    assert_eq!(cases.asked_for("haircut", Some(&community)).map(holds), Some((true, false)));
    assert!(cases.asked_for("haircut", Some(&street)).is_none() && cases.asked_for("perm", None).is_none());
}

#[test]
fn a_category_or_a_service_that_is_named_and_nobody_has_is_said() {
    let offer = "[[service]]\ncode = \"repair\"\nname = \"r\"\ncategory = \"C1\"\n";
    let scene = "[[scene]]\ncode = \"home\"\nname = \"h\"\nservices = [\"repair\", \"meals\"]\n";
    let mut services = Services::new(&config("c/s/m", &format!("{offer}{scene}")));
    let known = config("c", "[[category]]\ncode = \"C1\"\nname = \"c\"\n").category;
    let meals = "scene home: nobody here or above offers a service `meals`";
    let said = "service repair: nobody here or above has a category `C1`: its requests get no limits";
    assert_eq!(services.nameless(&[]), [said, meals]);
    assert_eq!(services.nameless(&known), [meals]);
    let street = Services::new(&config("c/s", "[[service]]\ncode = \"meals\"\nname = \"m\"\ncategory = \"C2\"\n"));
    let sent = street.on_due(&State::default(), now().timestamp_micros());
    carry(&mut services, "c/s", &sent[0]);
    assert_eq!(services.nameless(&known), Vec::<String>::new(), "and what those above name is theirs to say");
}

#[test]
fn a_request_that_could_not_be_given_says_what_could() {
    let mut cases = Cases::new(&config("c/s/m", OFFERS));
    let mut error =
        |word: &str, wanted: view::ServiceRequest| request(&mut cases, word, "20261120-0", &wanted).unwrap_err();
    let none = view::ServiceRequest { slot: None, ..slot("") };
    assert!(error("haircut", none).hint.contains("2026-11-23 09:00"));
    assert_eq!(error("haircut", slot("2026-11-22 09:00")).error, "no-slot");
    assert_eq!(error("haircut", slot("2026-11-23 09:10")).error, "no-slot");
    assert_eq!(error("haircut", view::ServiceRequest { form: [].into(), ..slot("2026-11-23 09:00") }).error, "missing");
    let third_floor = [("floor".to_owned(), "3".to_owned())].into();
    assert_eq!(
        error("haircut", view::ServiceRequest { form: third_floor, ..slot("2026-11-23 09:00") }).error,
        "bad-request"
    );
    let services = Services::new(&config("c/s/m", &OFFERS.replace("places = 5", "places = 0")));
    let none = Cases::new(&config("c/s/m", ""));
    let helps = opening(&services, &none, "sports-day", "20261120-1", &view::ServiceRequest::default()).unwrap_err();
    assert_eq!((helps.error, helps.hint.as_str()), ("bad-request", r#"`"volunteer":true`"#));
    assert!(error("hair-cut", slot("")).hint.contains("did you mean `haircut`?"));
    let of_street = view::ServiceRequest { of: Some("c/s".parse().unwrap()), ..slot("") };
    let elsewhere = error("haircut", of_street);
    assert_eq!((elsewhere.error, elsewhere.hint.as_str()), ("not-found", "it is offered by c/s/m"));
    assert_eq!(
        error("haircut", view::ServiceRequest { volunteer: true, ..slot("2026-11-23 09:00") }).error,
        "bad-request"
    );
}

#[test]
fn an_activity_counts_its_seats_and_its_volunteers_apart() {
    let mut cases = Cases::new(&config("c/s/m", OFFERS));
    let seats = |n: u32, volunteer: bool| view::ServiceRequest { seats: Some(n), volunteer, ..Default::default() };
    let mut state =
        |id: &str, n, v| request(&mut cases, "sports-day", id, &seats(n, v)).unwrap().case.booking.unwrap().state;
    assert_eq!(state("20261120-0", 3, false), Booked::Booked);
    assert_eq!(state("20261120-1", 3, false), Booked::Refused);
    assert_eq!(state("20261120-2", 2, false), Booked::Booked);
    assert_eq!(state("20261120-3", 1, true), Booked::Booked);
    assert_eq!(state("20261120-4", 1, true), Booked::Refused);
    let service = config("c/s/m", OFFERS).service.remove(1);
    let free = cases.free(&service, now());
    assert_eq!((free.places, free.volunteers), (Some(0), Some(0)));
}

/// The node starts again with this config, at that time, with all that it knew: `rows`, and `cases`.
fn restart(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, cases: &mut Cases, text: &str, now: DateTime<Utc>) {
    rows.extend(cases.take_rows().into_iter().map(|(key, value)| (key, value.unwrap())));
    let config = config("c/s/m", text);
    *cases = Cases::new(&config);
    rows.iter().for_each(|(key, value)| cases.load_row(key, value).unwrap());
    let presence = Draft::new(&Header::local(Kind::Presence, "city.brain.node"), b"{}").unwrap();
    for mut draft in
        Services::new(&config).on_due(&State::default(), now.timestamp_micros()).into_iter().chain([presence])
    {
        draft.stamp(now.timestamp_micros(), 0);
        let (header, payload) = draft.parts();
        cases.apply(Pos(1), &header, payload);
    }
}

#[test]
fn an_appointment_meets_none_that_was_given_before_its_length_was_changed() {
    let (mut rows, mut cases) = (BTreeMap::new(), Cases::new(&config("c/s/m", OFFERS)));
    let first = request(&mut cases, "haircut", "20261120-0", &slot("2026-11-23 09:00")).unwrap();
    assert_eq!(first.case.booking.unwrap().state, Booked::Booked);
    let shorter = OFFERS.replace("slot = \"30m\"", "slot = \"20m\"");
    restart(&mut rows, &mut cases, &shorter, now());
    let free: Vec<(String, u32)> =
        cases.free(&config("c/s/m", &shorter).service[0], now()).slots.into_iter().map(|s| (s.local, s.free)).collect();
    let monday: Vec<(&str, u32)> =
        free.iter().filter(|(at, _)| at.starts_with("2026-11-23")).map(|(at, n)| (&at[11..], *n)).collect();
    assert_eq!(monday, [("09:00", 0), ("09:20", 0), ("09:40", 1)]);
}

#[test]
fn an_activity_that_is_moved_keeps_the_seats_that_it_has_given() {
    let at = |day: &str| OFFERS.replace("2026-12-05", day);
    let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let seats = |n: u32| view::ServiceRequest { seats: Some(n), ..Default::default() };
    let places = |cases: &Cases, text: &str| cases.free(&config("c/s/m", text).service.remove(1), now()).places;
    let (mut rows, mut cases) = (BTreeMap::new(), Cases::new(&config("c/s/m", OFFERS)));
    restart(&mut rows, &mut cases, OFFERS, now());
    let old = request(&mut cases, "sports-day", "20261120-0", &seats(3)).unwrap();
    assert_eq!(places(&cases, OFFERS), Some(2));
    // Rain: twice.
    for day in ["2026-12-12", "2026-12-19"] {
        restart(&mut rows, &mut cases, &at(day), now());
        assert_eq!(places(&cases, &at(day)), Some(2));
    }
    // One who asks by an old catalogue is told, and takes no seat.
    assert_eq!(old.case.booking.unwrap().state, Booked::Booked);
    let late = request(&mut cases, "sports-day", "20261120-1", &seats(1)).unwrap();
    assert_eq!(late.history.last().unwrap().text, "it is at 2026-12-19 09:00 now: ask again");
    assert_eq!(places(&cases, &at("2026-12-19")), Some(2));
    // The day on which it was first to be is past, it itself is not: moved once more.
    restart(&mut rows, &mut cases, &at("2026-12-20"), time("2026-12-19T03:59:00Z"));
    assert_eq!(places(&cases, &at("2026-12-20")), Some(2));
    // Over, and offered again: the next one has seats of its own.
    restart(&mut rows, &mut cases, &at("2027-12-04"), time("2026-12-20T04:00:00Z"));
    assert_eq!(places(&cases, &at("2027-12-04")), Some(5));
}

/// What is due is done, and what of it are steps of cases: case and step.
fn due_steps(cases: &mut Cases, now: DateTime<Utc>) -> Vec<(String, String)> {
    let mut steps = Vec::new();
    for _ in 0..10 {
        if cases.next_due_us().is_none_or(|due| due > now.timestamp_micros()) {
            return steps;
        }
        for mut draft in cases.on_due(&State::default(), now.timestamp_micros()) {
            draft.stamp(now.timestamp_micros(), 0);
            let (header, payload) = draft.parts();
            let step = header.name.strip_prefix(crate::brain::cases::letter::PREFIX).unwrap_or_default().to_owned();
            steps.push((
                data::<serde_json::Value>(payload).unwrap()["case"]["id"].as_str().unwrap_or("").to_owned(),
                step,
            ));
            cases.apply(Pos(1), &header, payload);
        }
    }
    panic!("it never settles: {steps:?}");
}

#[test]
fn whoever_has_a_seat_of_an_activity_that_is_moved_is_told_once_and_its_case_has_the_new_time() {
    let at = |day: &str| OFFERS.replace("2026-12-05", day);
    let moment = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let (mut rows, mut cases) = (BTreeMap::new(), Cases::new(&config("c/s/m", OFFERS)));
    restart(&mut rows, &mut cases, OFFERS, now());
    let ask = |cases: &mut Cases, word: &str, id: &str, wanted: &view::ServiceRequest| {
        request(cases, word, id, wanted).unwrap();
    };
    ask(&mut cases, "sports-day", "20261120-0", &view::ServiceRequest::default());
    ask(&mut cases, "sports-day", "20261120-1", &view::ServiceRequest { volunteer: true, ..Default::default() });
    ask(&mut cases, "sports-day", "20261120-2", &view::ServiceRequest::default());
    ask(&mut cases, "haircut", "20261120-3", &slot("2026-11-23 09:00"));
    // One has given the seat back.
    let withdraw = citybrain_shared::case::Ask {
        by: "r".into(),
        role: Some(citybrain_shared::case::Role::Resident),
        ..Default::default()
    };
    let (_, _, drafts) = cases.ask("20261120-2", Verb::Withdraw, &withdraw, "w", now().timestamp_micros()).unwrap();
    drafts.iter().for_each(|d| {
        let (h, p) = d.parts();
        cases.apply(Pos(1), &h, p)
    });
    assert_eq!(due_steps(&mut cases, now()), []);

    restart(&mut rows, &mut cases, &at("2026-12-06"), now());
    // A start before it was told changes nothing.
    restart(&mut rows, &mut cases, &at("2026-12-06"), now());
    let told = |id: &str| (id.to_owned(), "rescheduled".to_owned());
    assert_eq!(due_steps(&mut cases, now()), [told("20261120-0"), told("20261120-1")]);
    let held = cases.get("20261120-0").unwrap();
    let (booking, line) = (held.case.booking.clone().unwrap(), held.history.last().unwrap());
    assert_eq!(
        (booking.at, booking.until),
        (Some(moment("2026-12-06T01:00:00Z")), Some(moment("2026-12-06T04:00:00Z")))
    );
    assert_eq!(
        (line.to.as_deref(), line.text.as_str()),
        (Some("2026-12-06 09:00"), "it was to be at 2026-12-05 09:00")
    );
    // The same seats, and nothing more to say.
    let service = config("c/s/m", &at("2026-12-06")).service.remove(1);
    assert_eq!((cases.free(&service, now()).places, cases.free(&service, now()).volunteers), (Some(4), Some(0)));
    restart(&mut rows, &mut cases, &at("2026-12-06"), now());
    assert_eq!(due_steps(&mut cases, now()), []);
    // And back again.
    restart(&mut rows, &mut cases, OFFERS, now());
    assert_eq!(due_steps(&mut cases, now()), [told("20261120-0"), told("20261120-1")]);
    assert_eq!(
        cases.get("20261120-1").unwrap().case.booking.as_ref().unwrap().at,
        Some(moment("2026-12-05T01:00:00Z"))
    );
}

#[test]
fn an_activity_is_not_moved_to_a_time_that_is_past_and_is_to_the_one_that_was_meant() {
    let at = |day: &str| OFFERS.replace("2026-12-05", day);
    let places = |cases: &Cases, text: &str| cases.free(&config("c/s/m", text).service[1], now()).places;
    let rescheduled = || vec![("20261120-0".to_owned(), "rescheduled".to_owned())];
    let (mut rows, mut cases) = (BTreeMap::new(), Cases::new(&config("c/s/m", OFFERS)));
    restart(&mut rows, &mut cases, OFFERS, now());
    let three = view::ServiceRequest { seats: Some(3), ..Default::default() };
    request(&mut cases, "sports-day", "20261120-0", &three).unwrap();
    restart(&mut rows, &mut cases, &at("2025-12-05"), now());
    assert_eq!(due_steps(&mut cases, now()), [], "a slip is nobody's news");
    restart(&mut rows, &mut cases, &at("2026-12-06"), now());
    assert_eq!(due_steps(&mut cases, now()), rescheduled());
    assert_eq!(places(&cases, &at("2026-12-06")), Some(2));
    // One that goes on and is ended is over: the next has seats of its own.
    let going = "2026-12-06T02:00:00Z".parse().unwrap();
    let ended = at("2026-12-06").replace("2026-12-06 12:00", "2026-12-06 09:30");
    restart(&mut rows, &mut cases, &ended, going);
    restart(&mut rows, &mut cases, &at("2026-12-19"), going);
    assert_eq!(places(&cases, &at("2026-12-19")), Some(5));
}

#[test]
fn what_is_booked_of_a_service_that_becomes_an_activity_or_the_other_way_round_is_cancelled() {
    let (mut rows, mut cases) = (BTreeMap::new(), Cases::new(&config("c/s/m", OFFERS)));
    restart(&mut rows, &mut cases, OFFERS, now());
    request(&mut cases, "haircut", "20261120-0", &slot("2026-11-23 09:00")).unwrap();
    let helps = view::ServiceRequest { volunteer: true, ..Default::default() };
    request(&mut cases, "sports-day", "20261120-1", &helps).unwrap();
    let cancelled = |id: &str| (id.to_owned(), "cancelled".to_owned());
    // Its hours lie around the time at which it was to be.
    let without_time = "hours = [\"09:00-12:00\"]";
    let activity = "starts = \"2026-12-05 09:00\"\nends = \"2026-12-05 12:00\"\nplaces = 5\nvolunteers = 1";
    let appointments = "hours = [\"mon-fri 09:00-10:00\"]\nslot = \"30m\"\ncapacity = 1";
    let turned = OFFERS.replace(activity, without_time).replace(appointments, "starts = \"2026-12-09 09:00\"");
    restart(&mut rows, &mut cases, &turned, now());
    assert_eq!(due_steps(&mut cases, now()), [cancelled("20261120-0"), cancelled("20261120-1")]);
    let (_, text, calls, _) = said_last(&cases, "20261120-0");
    assert_eq!((text.as_str(), calls), ("there is no appointment at 2026-11-23 09:00 any more", 1));
    restart(&mut rows, &mut cases, OFFERS, now());
    let booked = |id: &str| (id.to_owned(), "booked".to_owned());
    assert_eq!(due_steps(&mut cases, now()), [booked("20261120-0"), booked("20261120-1")]);
}

#[test]
fn an_appointment_behind_five_hundred_that_are_given_is_free() {
    let minutes =
        "[[service]]\ncode = \"vac\"\nname = \"v\"\nhours = [\"09:00-17:00\"]\nslot = \"1m\"\nahead_days = 3\n";
    let mut cases = Cases::new(&config("c/s/m", minutes));
    let services = Services::new(&config("c/s/m", minutes));
    let service = &config("c/s/m", minutes).service[0];
    let all = cases.free(service, now());
    assert_eq!((all.slots.len(), all.more), (500, true));
    let book = |cases: &mut Cases, id: &str, slot: &str| {
        let wanted = view::ServiceRequest { slot: Some(slot.into()), ..Default::default() };
        let (opening, contact) = opening(&services, cases, "vac", id, &wanted).unwrap();
        let (_, drafts) = cases.open(opening, contact, now().timestamp_micros());
        for draft in &drafts {
            let (header, payload) = draft.parts();
            cases.apply(Pos(1), &header, payload);
        }
    };
    for (i, one) in all.slots.iter().enumerate() {
        book(&mut cases, &format!("20261120-{i}"), &one.local);
    }
    let left = cases.free(service, now());
    assert_eq!(left.slots.iter().filter(|s| s.free > 0).count(), 500);
    assert_eq!((left.slots[499].free, left.slots[500].free, left.more), (0, 1, true));
    let named = &left.slots[500].local;
    let none = opening(&services, &cases, "vac", "20261120-x", &view::ServiceRequest::default()).unwrap_err();
    assert!(none.hint.contains(named), "{}", none.hint);
    book(&mut cases, "20261120-y", &all.slots[0].local);
    let refused = said_last(&cases, "20261120-y");
    assert!(refused.3.state == Booked::Refused && refused.1.contains(named), "{}", refused.1);
}

/// A step of a case that this node can make.
fn step(cases: &mut Cases, id: &str, verb: Verb, role: Role) {
    let ask = citybrain_shared::case::Ask {
        by: role.as_str().into(),
        role: Some(role),
        text: Some("x".into()),
        passed: Some(true),
        ..Default::default()
    };
    let (_, _, drafts) = cases.ask(id, verb, &ask, "w", now().timestamp_micros()).unwrap();
    for draft in &drafts {
        let (header, payload) = draft.parts();
        cases.apply(Pos(1), &header, payload);
    }
}

/// What was said last of a booking: the step, what it says, whom it calls; and the booking.
fn said_last(cases: &Cases, id: &str) -> (String, String, usize, Booking) {
    let held = cases.get(id).unwrap();
    let line = held.history.last().unwrap();
    (line.step.clone(), line.text.clone(), line.calls.len(), held.case.booking.clone().unwrap())
}

#[test]
fn an_activity_that_ends_otherwise_or_is_elsewhere_is_told_to_a_case_that_is_over_too() {
    let (mut rows, mut cases) = (BTreeMap::new(), Cases::new(&config("c/s/m", OFFERS)));
    restart(&mut rows, &mut cases, OFFERS, now());
    request(&mut cases, "sports-day", "20261120-0", &view::ServiceRequest::default()).unwrap();
    for verb in [Verb::Accept, Verb::Dispatch, Verb::Start, Verb::Resolve] {
        step(&mut cases, "20261120-0", verb, Role::Worker);
    }
    for verb in [Verb::Verify, Verb::Close] {
        step(&mut cases, "20261120-0", verb, Role::Supervisor);
    }
    let closed = cases.get("20261120-0").unwrap().case.clone();
    assert!(!closed.status.is_open());
    let longer = OFFERS.replace("2026-12-05 12:00", "2026-12-05 13:00");
    let told = || vec![("20261120-0".to_owned(), "rescheduled".to_owned())];
    restart(&mut rows, &mut cases, &longer, now());
    assert_eq!(due_steps(&mut cases, now()), told());
    let (_, text, calls, booking) = said_last(&cases, "20261120-0");
    assert_eq!((text.as_str(), calls), ("it ends at 2026-12-05 13:00 now, not at 2026-12-05 12:00", 1));
    assert_eq!(booking.until, Some("2026-12-05T05:00:00Z".parse().unwrap()));
    let elsewhere = longer.replace("places = 5", "places = 5\nplace = { text = \"体育馆\" }");
    restart(&mut rows, &mut cases, &elsewhere, now());
    assert_eq!(due_steps(&mut cases, now()), told());
    let (_, text, calls, _) = said_last(&cases, "20261120-0");
    assert_eq!((text.as_str(), calls), ("it is at 体育馆 now, not at no place", 1));
    let case = cases.get("20261120-0").unwrap().case.clone();
    assert_eq!((case.place.unwrap().text.as_str(), case.status, case.closed), ("体育馆", closed.status, closed.closed));
    // Once it has been, nothing of it changes any more, though it ended while the node was off.
    restart(&mut rows, &mut cases, OFFERS, "2026-12-06T00:00:00Z".parse().unwrap());
    assert_eq!(due_steps(&mut cases, "2026-12-06T00:00:00Z".parse().unwrap()), []);
}

#[test]
fn what_is_booked_and_no_longer_offered_is_told_keeps_its_seat_and_calls_whoever_must_say_so() {
    let (mut rows, mut cases) = (BTreeMap::new(), Cases::new(&config("c/s/m", OFFERS)));
    restart(&mut rows, &mut cases, OFFERS, now());
    request(&mut cases, "haircut", "20261120-0", &slot("2026-11-23 09:30")).unwrap();
    request(&mut cases, "sports-day", "20261120-1", &view::ServiceRequest::default()).unwrap();
    let told = |id: &str, step: &str| (id.to_owned(), step.to_owned());
    // A shorter appointment is still within the hours; one that ends when they close is not.
    restart(&mut rows, &mut cases, &OFFERS.replace("slot = \"30m\"", "slot = \"20m\""), now());
    assert_eq!(due_steps(&mut cases, now()), []);
    restart(&mut rows, &mut cases, &OFFERS.replace("09:00-10:00", "09:00-09:30"), now());
    assert_eq!(due_steps(&mut cases, now()), [told("20261120-0", "cancelled")]);
    let (_, text, calls, booking) = said_last(&cases, "20261120-0");
    assert_eq!((text.as_str(), calls), ("there is no appointment at 2026-11-23 09:30 any more", 1));
    assert_eq!(booking.state, Booked::Cancelled);
    restart(&mut rows, &mut cases, OFFERS, now());
    assert_eq!(due_steps(&mut cases, now()), [told("20261120-0", "booked")]);
    assert_eq!(said_last(&cases, "20261120-0").2, 1, "he was told to stay away, and may come after all");
    // A day off that comes from above is one, too.
    restart(&mut rows, &mut cases, &OFFERS.replace("mon-fri 09:00", "workdays 09:00"), now());
    tell(&mut cases, "c", "[calendar]\nholidays = [\"2026-11-23\"]\n");
    assert_eq!(due_steps(&mut cases, now()), [told("20261120-0", "cancelled")]);
    tell(&mut cases, "c", "");
    assert_eq!(due_steps(&mut cases, now()), [told("20261120-0", "booked")]);
    // Nothing is offered any more: nothing is given to anybody else, and it comes back with its seats.
    restart(&mut rows, &mut cases, "", now());
    assert_eq!(due_steps(&mut cases, now()), [told("20261120-0", "cancelled"), told("20261120-1", "cancelled")]);
    assert_eq!(said_last(&cases, "20261120-1").1, "c/s/m no longer offers it");
    restart(&mut rows, &mut cases, OFFERS, now());
    assert_eq!(due_steps(&mut cases, now()), [told("20261120-0", "booked"), told("20261120-1", "booked")]);
    assert_eq!(said_last(&cases, "20261120-1").1, "it is offered again");
    assert_eq!(cases.free(&config("c/s/m", OFFERS).service[1], now()).places, Some(4));
}

#[test]
fn a_seat_of_a_case_that_is_withdrawn_or_rejected_says_that_it_was_given_back() {
    let mut cases = Cases::new(&config("c/s/m", OFFERS));
    for id in ["20261120-0", "20261120-1", "20261120-2"] {
        request(&mut cases, "sports-day", id, &view::ServiceRequest::default()).unwrap();
    }
    step(&mut cases, "20261120-0", Verb::Withdraw, Role::Resident);
    step(&mut cases, "20261120-1", Verb::Reject, Role::Worker);
    for id in ["20261120-0", "20261120-1"] {
        assert_eq!(cases.get(id).unwrap().case.booking.as_ref().unwrap().state, Booked::GivenBack, "{id}");
    }
    assert_eq!(cases.free(&config("c/s/m", OFFERS).service[1], now()).places, Some(4));
}

#[test]
fn an_activity_is_over_when_it_has_ended() {
    let services = config("c/s/m", OFFERS).service;
    let calendar = crate::brain::cases::calendar::Calendar::default();
    let over =
        |at: &str| services.iter().map(|s| request::is_over(s, &calendar, at.parse().unwrap())).collect::<Vec<_>>();
    assert_eq!(over("2026-12-05T03:59:00Z"), [false, false]);
    assert_eq!(over("2026-12-05T04:00:00Z"), [false, true]);
}

#[test]
fn what_is_personal_in_a_form_stays_with_the_contact() {
    let mut cases = Cases::new(&config("c/s/m", OFFERS));
    let held = request(&mut cases, "haircut", "20261120-0", &slot("2026-11-23 09:00")).unwrap();
    assert_eq!(held.contact.unwrap().more["illness"], "糖尿病");
    assert!(!serde_json::to_string(&held.case).unwrap().contains("糖尿病"));
    assert_eq!(held.case.booking.unwrap().form["floor"], "1");
}

/// A node's cases hear of the catalogue that this text makes at a node above.
fn tell(cases: &mut Cases, from: &str, text: &str) {
    let own = Services::new(&config(from, text)).own;
    let sender = Services::new(&config(from, ""));
    let sent = sender.sent(&own, &format!("{from}/**"), "k", now().timestamp_micros());
    let (header, payload) = sent.parts();
    let origin = Origin { address: from, log: LogId(1), pos: Pos(1) };
    cases.apply(Pos(1), &Header { origin: Some(origin), ..header }, payload);
}

#[test]
fn a_request_has_the_limits_of_a_category_that_the_node_inherits() {
    let offer = "[[service]]\ncode = \"repair\"\nname = \"r\"\ncategory = \"C1\"\n";
    let mut cases = Cases::new(&config("c/s/m", offer));
    tell(&mut cases, "c", "[[category]]\ncode = \"C1\"\nname = \"c\"\nresponse = \"2h\"\n");
    let services = Services::new(&config("c/s/m", offer));
    let (opening, _) = opening(&services, &cases, "repair", "20261120-0", &view::ServiceRequest::default()).unwrap();
    let (case, _) = cases.open(opening, Contact::default(), now().timestamp_micros());
    assert_eq!((case.category_name.as_str(), case.clock("response").is_some()), ("c", true));
}

/// When a working day is over that begins on Wednesday 2026-09-30 at 16:00 in Chengdu.
fn due(cases: &Cases) -> String {
    let at = "2026-09-30T08:00:00Z".parse().unwrap();
    cases.calendar().shown(cases.calendar().due(at, citybrain_shared::config::cases::Limit::parse("1wd").unwrap()))
}

#[test]
fn working_time_goes_by_the_nearest_calendar_above_where_a_node_has_none() {
    let national_day = "[calendar]\nholidays = [\"2026-10-01..2026-10-07\"]\n";
    let made_up = "[calendar]\nholidays = [\"2026-10-01..2026-10-07\"]\nmakeup_days = [\"2026-10-04\"]\n";
    let of = |cases: &Cases| cases.calendar_shown().of.map(|of| of.to_string());
    let mut cases = Cases::new(&config("c/s/m", OFFERS));
    assert_eq!((due(&cases).as_str(), of(&cases)), ("2026-10-01 16:00", None));

    tell(&mut cases, "c", national_day);
    assert_eq!((due(&cases).as_str(), of(&cases).as_deref()), ("2026-10-08 16:00", Some("c")));
    tell(&mut cases, "c/s", made_up);
    assert_eq!((due(&cases).as_str(), of(&cases).as_deref()), ("2026-10-04 16:00", Some("c/s")), "the nearest");
    tell(&mut cases, "c/x", "[calendar]\nutc_offset = \"+00:00\"\n");
    assert_eq!(of(&cases).as_deref(), Some("c/s"), "not of one that is not above");

    // A start finds it as it was.
    let mut rows = BTreeMap::new();
    restart(&mut rows, &mut cases, OFFERS, now());
    assert_eq!((due(&cases).as_str(), of(&cases).as_deref()), ("2026-10-04 16:00", Some("c/s")));

    tell(&mut cases, "c/s", "");
    assert_eq!((due(&cases).as_str(), of(&cases).as_deref()), ("2026-10-08 16:00", Some("c")), "taken back");
    let mut own = Cases::new(&config("c/s/m", "[calendar]\n"));
    tell(&mut own, "c", national_day);
    assert_eq!((due(&own).as_str(), of(&own).as_deref()), ("2026-10-01 16:00", Some("c/s/m")), "its own comes first");
}

#[test]
fn a_clock_that_is_set_keeps_its_moment_when_the_calendar_changes() {
    let litter = "[[category]]\ncode = \"L\"\nname = \"l\"\nresponse = \"1wd\"\n";
    let mut cases = Cases::new(&config("c/s/m", litter));
    let open = |cases: &mut Cases, id: &str| {
        let opening = Opening { id: id.into(), by: "w".into(), category: "L".into(), ..Opening::default() };
        let (case, drafts) = cases.open(opening, Contact::default(), now().timestamp_micros());
        for draft in &drafts {
            let (header, payload) = draft.parts();
            cases.apply(Pos(1), &header, payload);
        }
        case.clock("response").unwrap().due.unwrap()
    };
    let monday: DateTime<Utc> = "2026-11-23T02:00:00Z".parse().unwrap();
    assert_eq!(open(&mut cases, "20261120-0"), monday);
    tell(&mut cases, "c", "[calendar]\nholidays = [\"2026-11-23\"]\n");
    assert_eq!(cases.get("20261120-0").unwrap().case.clock("response").unwrap().due, Some(monday));
    assert_eq!(open(&mut cases, "20261120-1"), monday + chrono::TimeDelta::days(1));
}

#[test]
fn a_calendar_is_news_and_goes_down_without_the_file_that_it_was_read_from() {
    let mut calendar = config("c", "[calendar]\nholidays = [\"2026-10-01\"]\n");
    if let Some(calendar) = &mut calendar.calendar {
        calendar.days_file = Some("days.csv".into());
    }
    let services = Services::new(&calendar);
    let sent = services.on_due(&State::default(), now().timestamp_micros());
    let sent = sent.iter().find(|d| d.header().name == CATALOGUE).unwrap();
    let sent = data::<Catalogue>(sent.parts().1).unwrap().calendar.unwrap();
    assert_eq!((sent.holidays, sent.days_file), (vec!["2026-10-01".to_owned()], None));
}

#[test]
fn a_service_that_is_called_as_a_category_has_nothing_of_it() {
    let category = "[[category]]\ncode = \"haircut\"\nname = \"理发\"\nresponse = \"30m\"\nsolution = \"2h\"\n";
    let mut cases = Cases::new(&config("c/s/m", &format!("{category}{OFFERS}")));
    let case = request(&mut cases, "haircut", "20261120-0", &slot("2026-11-23 09:00")).unwrap().case;
    assert_eq!((case.category.as_str(), case.category_name.as_str(), case.clocks.len()), ("haircut", "", 0));
    assert_eq!(case.terms, Some(citybrain_shared::case::Terms::default()), "whoever takes it asks for nothing either");
}

#[test]
fn a_request_that_is_repeated_after_its_activity_was_moved_is_known_and_another_is_not() {
    let (mut rows, mut cases) = (BTreeMap::new(), Cases::new(&config("c/s/m", OFFERS)));
    restart(&mut rows, &mut cases, OFFERS, now());
    let wanted = view::ServiceRequest { slot: Some("2026-12-05 09:00".into()), ..Default::default() };
    request(&mut cases, "运动会", "20261120-0", &wanted).unwrap();
    let is_it = |cases: &Cases, wanted: &view::ServiceRequest| {
        request::has_asked_for(wanted, "运动会", cases.get("20261120-0").unwrap(), &Days::default())
    };
    assert!(is_it(&cases, &wanted));
    let others = [
        view::ServiceRequest { volunteer: true, ..wanted.clone() },
        view::ServiceRequest { seats: Some(2), ..wanted.clone() },
        view::ServiceRequest { slot: Some("2026-12-06 09:00".into()), ..wanted.clone() },
    ];
    assert!(others.iter().all(|other| !is_it(&cases, other)));
    let moved = OFFERS.replace("2026-12-05", "2026-12-12").replace("运动会", "运动日");
    restart(&mut rows, &mut cases, &moved, now());
    assert_eq!(due_steps(&mut cases, now()), [("20261120-0".to_owned(), "rescheduled".to_owned())]);
    assert!(is_it(&cases, &wanted));
    assert!(!is_it(&cases, &others[0]));
    let held = cases.get("20261120-0").unwrap();
    assert!(!request::has_asked_for(&wanted, "haircut", held, &Days::default()), "another service was never asked for");
}

#[test]
fn an_activity_that_was_said_before_the_calendar_above_came_is_moved_with_its_bookings() {
    let places = OFFERS.replace("places = 5", "places = 1");
    let (mut rows, mut cases) = (BTreeMap::new(), Cases::new(&config("c/s/m", &places)));
    restart(&mut rows, &mut cases, &places, now());
    request(&mut cases, "sports-day", "20261120-0", &view::ServiceRequest::default()).unwrap();
    let booked = |cases: &Cases, id: &str| cases.get(id).unwrap().case.booking.clone().unwrap();
    let rescheduled = || vec![("20261120-0".to_owned(), "rescheduled".to_owned())];
    tell(&mut cases, "c", "[calendar]\nutc_offset = \"+06:00\"\n");
    assert_eq!(due_steps(&mut cases, now()), rescheduled(), "09:00 is at another moment there");
    assert_eq!(booked(&cases, "20261120-0").at, Some("2026-12-05T03:00:00Z".parse().unwrap()));
    let moved = places.replace("2026-12-05 09:00", "2026-12-05 10:00");
    restart(&mut rows, &mut cases, &moved, now());
    assert_eq!(due_steps(&mut cases, now()), rescheduled());
    let first = booked(&cases, "20261120-0");
    let span = ["2026-12-05T04:00:00Z", "2026-12-05T06:00:00Z"].map(|at| Some(at.parse::<DateTime<Utc>>().unwrap()));
    assert_eq!([first.at, first.until], span);
    let free = cases.free(&config("c/s/m", &moved).service[1], now());
    assert_eq!(free.places, Some(0), "its seat is given once");
}

#[test]
fn of_hours_or_a_beginning_that_does_not_read_it_is_not_said_that_there_is_none() {
    let read = |more: &str| {
        let text = format!("[node]\naddress = \"c\"\ndata = \"d\"\n[[service]]\ncode = \"a\"\nname = \"a\"\n{more}\n");
        let parsed = parse(&text, &Variables::new());
        let found = super::check::problems(&parsed.config.unwrap(), &parsed.places);
        parsed.problems.into_iter().chain(found).map(|p| p.message).collect::<Vec<_>>()
    };
    for (broken, of) in [
        ("hours = \"09:00-11:00\"\nslot = \"30m\"", "hours"),
        ("starts = 5\nends = \"2026-12-05 12:00\"\nplaces = 5\nvolunteers = 1", "starts"),
    ] {
        let found = read(broken);
        assert!(found.len() == 1 && found[0].contains(of), "{found:?}");
    }
    assert_eq!(read("slot = \"30m\""), ["appointments need `hours` to lie in"]);
    assert_eq!(read("hours = []\nslot = \"30m\""), ["appointments need `hours` to lie in"]);
    assert_eq!(read("ends = \"2026-12-05 12:00\"\nplaces = 5").len(), 2);
}
