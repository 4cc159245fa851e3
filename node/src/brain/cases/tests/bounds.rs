//! How large a case may grow, how many there may be, and what they are found by.

use super::*;
use citybrain_shared::case::Place as Where;
use citybrain_shared::limits::EVENT_BYTES_MAX;
use serde_json::json;

const CASE: &str = "20261120-k7m2q9x4ab";

/// Texts as long as they come in: JSON doubles some of them, or makes six bytes of each character.
fn long() -> [String; 4] {
    ["垃", "😀", "\"", "\u{1}"].map(|c| c.repeat(20_000))
}

fn says(text: &str) -> Ask {
    Ask { text: Some(text.into()), ..by("w", Role::Worker) }
}

#[test]
fn the_longest_case_with_the_longest_history_comes_where_it_is_sent() {
    let mut world = World::new();
    let wordy = Opening { description: long()[1].clone(), title: long()[0].clone(), ..opening(CASE, "L") };
    let contact = Contact { name: long()[0].clone(), phone: long()[3].clone(), ..Contact::default() };
    world.open("c/s/a", wordy, contact);
    assert!(world.ask("c/s/a", CASE, Verb::Accept, &says("t"), ""));
    let mut summoned = 0;
    for i in 0..130 {
        let text = &long()[i % 4];
        assert!(world.ask("c/s/a", CASE, Verb::Comment, &says(text), "") || text.starts_with('\u{1}'));
        let summons = Ask { unit: Some(text.clone()), ..says(text) };
        summoned += usize::from(world.ask("c/s/a", CASE, Verb::Assist, &summons, ""));
    }
    assert!((5..64).contains(&summoned), "{summoned} summons of so many words");
    let refused = world.places["c/s/a"].cases.ask(CASE, Verb::Assist, &says(&long()[0]), "", world.now);
    assert_eq!(refused.unwrap_err().error, "missing", "the unit");
    let summons = Ask { unit: Some("u".into()), ..says(&long()[0]) };
    let refused = world.places["c/s/a"].cases.ask(CASE, Verb::Assist, &summons, "", world.now);
    assert_eq!(refused.unwrap_err().error, "too-large");
    // What only moves it on is never refused for its size.
    assert!(world.ask("c/s/a", CASE, Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..says("t") }, ""));
    world.settle();
    let there = world.places["c/s/b"].cases.get(CASE).unwrap();
    assert_eq!(there.case.owner, a("c/s/b"));
    assert!(there.history.len() > 5 && there.contact.as_ref().unwrap().name.chars().count() == 200);
    for verb in [Verb::Start, Verb::Resolve] {
        assert!(world.ask("c/s/b", CASE, verb, &says("t"), ""), "{verb}");
    }
    assert!(world.ask("c/s/b", CASE, Verb::Evaluate, &by("r", Role::Resident), ""));
    assert!(world.ask("c/s/b", CASE, Verb::Close, &by("boss", Role::Supervisor), ""));
    world.settle();
    let held = world.places["c"].cases.get(CASE).unwrap();
    assert_eq!(held.case.status, Status::Closed);
    assert!(held.history.iter().all(|e| e.text.len() <= 6_000));
}

fn heard(cases: &mut Cases, kind: &str, id: &str, data: serde_json::Value) -> Vec<Draft> {
    let event = json!({"specversion": "1.0", "id": id, "source": "/t", "type": kind, "subject": "b", "data": data});
    let header = Header::local(citybrain_shared::record::Kind::Event, kind);
    let draft = Draft::new(&header, event.to_string().as_bytes()).unwrap();
    let drafts = with_origin(&draft, None, |h, p| cases.decide(&State::default(), START, h, p));
    for draft in &drafts {
        with_origin(draft, None, |h, p| cases.apply(Pos(1), h, p));
    }
    drafts
}

#[test]
fn what_somebody_publishes_makes_no_case_of_its_own_size() {
    let mut cases = node("c/s/a");
    let word = "x".repeat(20_000);
    let data = json!({
        "category": word, "title": "", "description": word, "channel": word, "location": {"text": word},
        "contact": {"name": word, "phone": word}, "form": {"a": word},
    });
    heard(&mut cases, "city.appeal", &"i".repeat(1_024), data);
    let held = cases.iter().next().unwrap();
    assert_eq!((held.case.category.len(), held.case.title.len()), (60, 60));
    let bytes = serde_json::to_vec(held).unwrap().len();
    assert!(bytes < 8_000, "{bytes} bytes");
    // It is the same category when it is pressed again.
    for id in ["2", "3"] {
        heard(&mut cases, "city.sos", id, json!({"category": word}));
    }
    assert_eq!(cases.iter().filter(|h| h.case.urgent).count(), 1);
}

#[test]
fn a_press_is_known_again_whatever_of_its_words_was_kept() {
    let mut cases = node("c/s/a");
    for id in ["1", "2"] {
        let said = json!({
            "title": " door\u{1} 3 ", "description": format!("{}\n", "垃".repeat(3_000)),
            "location": {"text": " gate\t"}, "contact": {"name": " 王 ", "phone": "139 "},
        });
        let event = json!({"specversion": "1.0", "id": id, "source": "/t", "type": "city.sos", "data": said});
        let header = Header::local(citybrain_shared::record::Kind::Event, "city.sos");
        let draft = Draft::new(&header, event.to_string().as_bytes()).unwrap();
        for draft in with_origin(&draft, None, |h, p| cases.decide(&State::default(), START, h, p)) {
            with_origin(&draft, None, |h, p| cases.apply(Pos(1), h, p));
        }
    }
    assert_eq!(cases.count(), 1);
    assert_eq!(cases.iter().next().unwrap().history.len(), 2);
}

#[test]
fn closed_cases_that_gave_way_are_told_with_how_far_they_went() {
    let mut cases = node("c");
    assert_eq!(cases.gone(), None);
    for day in [0, 3, 5] {
        let at = START + day * 86_400_000_000;
        let (mut case, _) = cases.open(opening(&format!("20261120-{day}"), "L"), Contact::default(), at);
        (case.status, case.closed) = (Status::Withdrawn, Some(view::time_of(at)));
        cases.fold(&case, &[]);
    }
    cases.make_room(1);
    let upto = view::time_of(START + 3 * 86_400_000_000);
    assert_eq!(cases.gone(), Some(view::CasesGone { cases: 2, upto }));
    let mut again = node("c");
    for (key, value) in cases.take_rows() {
        value.into_iter().for_each(|value| again.load_row(&key, &value).unwrap());
    }
    assert_eq!((again.count(), again.gone()), (1, cases.gone()));
}

#[test]
fn a_node_full_of_open_cases_opens_calls_for_help_only_and_says_so() {
    let mut cases = node("c/s/a");
    cases.open.extend((0..CASES_MAX).map(|i| format!("20261120-{i}")));
    let told = heard(&mut cases, "city.appeal", "1", json!({"category": "L", "contact": {"phone": "139"}}));
    let (header, payload) = told[0].parts();
    assert_eq!((told.len(), header.kind), (1, citybrain_shared::record::Kind::Note));
    let text = String::from_utf8_lossy(payload);
    assert!(text.contains("\"full\"") && text.contains("200000 open cases") && !text.contains("139"), "{text}");
    assert_eq!(cases.count(), 0);
    heard(&mut cases, "city.sos", "2", json!({}));
    assert_eq!(cases.count(), 1);
    assert_eq!(cases.has_room(false).unwrap_err().error, "full");
}

#[test]
fn a_case_is_found_by_the_begin_of_its_id_or_of_what_stands_behind_the_day() {
    let mut cases = node("c/s/a");
    for id in ["20261119-abcdef2222", "20261120-abcdefgh22", "20261120-xyz2222222", "20261121-2026112022"] {
        let (_, drafts) = cases.open(opening(id, "L"), Contact::default(), START);
        drafts.iter().for_each(|d| with_origin(d, None, |h, p| cases.apply(Pos(1), h, p)));
    }
    let found = |text: &str| cases.find(text).map(|h| h.case.id.as_str()).map_err(|r| r.error);
    assert_eq!(found("20261120-abcdefgh22"), Ok("20261120-abcdefgh22"));
    assert_eq!((found("20261119"), found("xy")), (Ok("20261119-abcdef2222"), Ok("20261120-xyz2222222")));
    assert_eq!((found("abcdefg"), found("abc")), (Ok("20261120-abcdefgh22"), Err("ambiguous")));
    // As a day it is two, and behind the day of another it is a third.
    assert_eq!((found("20261120"), found("2026112022")), (Err("ambiguous"), Ok("20261121-2026112022")));
    assert_eq!(
        (found(""), found("nothing"), found("abcdefgh22x")),
        (Err("not-found"), Err("not-found"), Err("not-found"))
    );
}

/// What the indexes answer, found by looking at every case.
fn by_looking(cases: &Cases, of: &Case, now: DateTime<Utc>) -> (Vec<String>, u64, bool) {
    let near = |other: &Case| match (&of.place, &other.place) {
        (Some(a), Some(b)) => match (a.lat, a.lon, b.lat, b.lon) {
            (Some(a1), Some(a2), Some(b1), Some(b2)) => (a1 - b1).abs() < 0.002 && (a2 - b2).abs() < 0.002,
            _ => !a.text.is_empty() && a.text == b.text && of.opened_at == other.opened_at,
        },
        _ => false,
    };
    let open = || cases.iter().map(|h| &h.case).filter(|c| c.status.is_open());
    let is_like = |c: &&Case| {
        c.id != of.id && c.category == of.category && (c.opened - of.opened).num_days().abs() <= 7 && near(c)
    };
    let similar = open().filter(is_like).take(10).map(|c| c.id.clone()).collect();
    (similar, open().filter(|c| c.is_overdue(now)).count() as u64, open().any(|c| c.urgent))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn near_ones_and_overdue_ones_are_found_without_looking_at_all(
        all in prop::collection::vec((0i64..12, -4i32..5, -4i32..5, 0u8..4, 0u8..4), 1..60)
    ) {
        let mut cases = node("c/s/a");
        let day_us = 86_400_000_000;
        for (i, (day, x, y, what, step)) in all.iter().enumerate() {
            let now = START + day * day_us;
            let id = intake::id(cases.calendar().day(view::time_of(now)), "/t", &i.to_string());
            let text = if what % 2 == 0 { "gate".into() } else { String::new() };
            let degrees = |n: &i32| (*what < 3).then(|| f64::from(*n) * 0.0007);
            let place = Some(Where { text, lat: degrees(x), lon: degrees(y) });
            let sos = *what == 1;
            let opening = Opening { place, sos, ..opening(&id, if *what == 2 { "G" } else { "L" }) };
            let (_, mut drafts) = cases.open(opening, Contact::default(), now);
            for _ in 0..2 {
                drafts.iter().for_each(|d| with_origin(d, None, |h, p| cases.apply(Pos(1), h, p)));
                let (verb, ask) = match step {
                    0 => break,
                    1 => (Verb::Withdraw, by("r", Role::Resident)),
                    _ => (Verb::Accept, by("w", Role::Worker)),
                };
                drafts = cases.ask(&id, verb, &ask, "", now).map(|(_, _, drafts)| drafts).unwrap_or_default();
            }
        }
        for day in [0, 3, 20] {
            let now = view::time_of(START + day * day_us);
            for held in cases.iter() {
                let similar: Vec<String> = cases.similar(&held.case).iter().map(|c| c.id.clone()).collect();
                let found = (similar, cases.overdue(now), cases.help_is_wanted());
                prop_assert_eq!(found, by_looking(&cases, &held.case, now));
            }
        }
    }
}

#[test]
fn what_a_lost_box_gets_back_fits_into_a_letter() {
    let lines = |texts: &[String]| {
        let entry = |(i, text): (usize, &String)| Entry {
            term: 1,
            version: i as u32,
            step: "comment".into(),
            at: view::time_of(START),
            node: a("c"),
            from: None,
            place: None,
            wish: None,
            by: "w".into(),
            role: None,
            text: text.clone(),
            to: None,
            clocks: Vec::new(),
            calls: Vec::new(),
            evidence: Vec::new(),
        };
        texts.iter().enumerate().map(entry).collect::<Vec<_>>()
    };
    // A hostile node's lines may be of any length: one that is too long ends what travels.
    let mut texts = vec!["x".repeat(2_000); 300];
    for sent in [letter::sent(&lines(&texts)), letter::returned(&lines(&texts))] {
        assert!(!sent.is_empty() && sent.last().unwrap().version == 299);
        assert!(letter::bytes_of(&sent) < EVENT_BYTES_MAX / 2 + 1_000);
    }
    texts.push("x".repeat(EVENT_BYTES_MAX));
    assert!(letter::sent(&lines(&texts)).is_empty());
    assert_eq!(letter::sent(&lines(&texts[..3])).len(), 3);
}

#[test]
fn what_is_said_to_be_of_the_category_of_calls_is_a_call_for_help() {
    let mut cases = node("c/s/a");
    for id in ["1", "2"] {
        heard(&mut cases, "city.appeal", id, json!({"category": "sos", "phone": 13_900_000_000_u64}));
    }
    assert_eq!(cases.calls_for_help().open, 1, "it is one button");
    let held = cases.iter().next().unwrap();
    assert_eq!((held.case.kind, held.contact.as_ref().unwrap().phone.as_str()), (Kind::Incident, "13900000000"));
    // By the name that it has here, too.
    let text = "[node]\naddress = \"c\"\ndata = \"d\"\n[[category]]\ncode = \"sos\"\nname = \"一键求助\"\n";
    let named = Cases::new(&parse(text, &Variables::new()).config.unwrap());
    assert!(named.is_call("一键求助") && named.is_call("sos") && !named.is_call("路灯"));
}

#[test]
fn a_press_of_a_category_that_nobody_knows_has_the_limits_of_calls_for_help() {
    let text = "[node]\naddress = \"c\"\ndata = \"d\"\n[[category]]\ncode = \"sos\"\nname = \"一键求助\"\nresponse = \"5m\"\n\
        [[category]]\ncode = \"fire\"\nname = \"火情\"\n";
    let cases = Cases::new(&parse(text, &Variables::new()).config.unwrap());
    let press = |category: &str| {
        let (case, _) = cases.open(Opening { sos: true, ..opening("1", category) }, Contact::default(), START);
        (case.category.clone(), case.clock("response").is_some())
    };
    for category in ["", "sos", "一键求助", "nope"] {
        assert_eq!(press(category), ("sos".to_owned(), true), "{category}");
    }
    assert_eq!(press("火情"), ("fire".to_owned(), false), "what is known has its own");
    let mut heard_of = Cases::new(&parse(text, &Variables::new()).config.unwrap());
    heard(&mut heard_of, "city.sos", "1", json!({"category": "nope"}));
    let told = &heard_of.iter().next().unwrap().history[0];
    assert_eq!(told.text, "`nope` is no category that is known here");
    let unknown = opening("1", "nope");
    assert_eq!(cases.open(unknown, Contact::default(), START).0.category, "nope", "what is no call stays as it was");
}

#[test]
fn a_category_that_nobody_here_knows_is_said_to_give_no_limits() {
    let said = |cases: &Cases, category: &str| {
        let new = Opening { note: "so".into(), ..opening("1", category) };
        let (_, drafts) = cases.open(new, Contact::default(), START);
        let step: serde_json::Value = letter::data(drafts[0].parts().1).unwrap();
        step["entry"]["text"].as_str().unwrap_or_default().to_owned()
    };
    let none = Cases::new(&parse("[node]\naddress = \"c\"\ndata = \"d\"\n", &Variables::new()).config.unwrap());
    for cases in [node("c/s/a"), none] {
        assert_eq!(said(&cases, "xyz"), "`xyz` is no category that is known here: no limits", "{}", cases.me);
        assert_eq!(said(&cases, ""), "so", "none was named");
    }
    assert_eq!(said(&node("c/s/a"), "L"), "so");
}

#[test]
fn an_appeal_that_is_words_alone_is_called_by_the_first_of_them() {
    let mut cases = node("c/s/a");
    let long = "路".repeat(100);
    for (i, (data, title)) in [
        (json!("只有字"), "只有字"),
        (json!("\n 路灯不亮 \n三天了"), "路灯不亮"),
        (json!({"text": long}), &long[..60 * '路'.len_utf8()]),
        (json!({"text": "不亮", "category": "L"}), "路灯"),
        (json!({"text": "不亮", "title": "灯"}), "灯"),
    ]
    .into_iter()
    .enumerate()
    {
        heard(&mut cases, "city.appeal", &i.to_string(), data);
        let mut found = cases.iter().map(|held| held.case.title.as_str());
        assert!(found.any(|found| found == title), "{i}: {title}");
    }
    assert_eq!(cases.count(), 5);
}
