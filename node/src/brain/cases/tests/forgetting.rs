//! Of whom a record is, and what goes with him when he is forgotten.

use super::*;
use citybrain_hub::note::Note;
use citybrain_hub::state::Retained;

const BUTTON: (&str, &str) = ("/btn", "7");
const APP: (&str, &str) = ("/app", "");
const PRESSED: &str = "city.sos.pressed.v1";

/// As a node takes it from a device or an app, at that moment.
fn event(now: i64, (source, subject): (&str, &str), kind: &str, id: &str, phone: &str) -> Draft {
    let mut event = serde_json::json!({"specversion": "1.0", "id": id, "source": source, "type": kind, "data": {}});
    if !subject.is_empty() {
        event["subject"] = subject.into();
    }
    if !phone.is_empty() {
        event["data"]["phone"] = phone.into();
    }
    let header = Header { lane: Lane::Urgent, ..Header::local(citybrain_shared::record::Kind::Event, kind) };
    let mut draft = Draft::new(&header, event.to_string().as_bytes()).unwrap();
    draft.stamp(now, 0);
    draft
}

fn comes(world: &mut World, from: (&str, &str), kind: &str, id: &str, phone: &str) -> Draft {
    let draft = event(world.now, from, kind, id, phone);
    world.commit("c/s/a/n", vec![draft.clone()], None);
    world.settle();
    world.now += 1_000_000;
    draft
}

fn boss() -> Ask {
    by("boss", Role::Supervisor)
}

/// The case that an event has opened.
fn opened_by(source: &str, event: &str) -> String {
    intake::id(Cases::calendar(&node("c")).day(view::time_of(START)), source, event)
}

fn is_forgotten(world: &World, draft: &Draft) -> bool {
    with_origin(draft, None, |h, p| world.places["c/s/a/n"].cases.is_forgotten(h, p))
}

fn cases(world: &World) -> usize {
    world.places["c/s/a/n"].cases.count()
}

#[test]
fn with_one_who_speaks_by_an_app_that_names_nobody_its_others_are_not_forgotten() {
    let mut world = World::new();
    let press = comes(&mut world, APP, PRESSED, "1", "131");
    let other = comes(&mut world, APP, PRESSED, "2", "132");
    let appeal = comes(&mut world, APP, "city.appeal", "3", "133");
    let again = comes(&mut world, APP, PRESSED, "4", "131");
    let other_again = comes(&mut world, APP, PRESSED, "5", "132");
    assert_eq!(cases(&world), 3);
    assert!(world.ask("c/s/a/n", &opened_by("/app", "1"), Verb::Forget, &boss(), ""));
    world.settle();
    let of = |world: &World| [&press, &again, &other, &appeal, &other_again].map(|draft| is_forgotten(world, draft));
    assert_eq!(of(&world), [true, true, false, false, false]);
    assert!(world.ask("c/s/a/n", &opened_by("/app", "1"), Verb::Comment, &boss(), ""));
    assert_eq!(of(&world), [true, true, false, false, false]);
}

#[test]
fn whoever_presses_a_button_behind_one_who_is_forgotten_is_not_forgotten_with_him() {
    let mut world = World::new();
    let first = comes(&mut world, BUTTON, PRESSED, "1", "131");
    let with_him = comes(&mut world, BUTTON, PRESSED, "2", "132");
    assert!(world.ask("c/s/a/n", &opened_by("/btn", "1"), Verb::Forget, &boss(), ""));
    world.settle();
    world.now += 1_000_000;
    let nobody = comes(&mut world, BUTTON, PRESSED, "3", "");
    let later = comes(&mut world, BUTTON, PRESSED, "4", "134");
    let later_again = comes(&mut world, BUTTON, PRESSED, "5", "135");
    assert_eq!(cases(&world), 2);
    for _ in 0..2 {
        let of = [&first, &with_him, &nobody, &later, &later_again].map(|draft| is_forgotten(&world, draft));
        assert_eq!(of, [true, true, false, false, false]);
        // Any step of the first case, long after the second was opened.
        assert!(world.ask("c/s/a/n", &opened_by("/btn", "1"), Verb::Comment, &boss(), ""));
        world.settle();
        world.restart("c/s/a/n");
    }
    // Also where the second case has given way to newer ones.
    let second = opened_by("/btn", "4");
    assert!(world.ask("c/s/a/n", &second, Verb::Withdraw, &boss(), ""));
    world.settle();
    let place = world.places.get_mut("c/s/a/n").unwrap();
    place.cases.make_room(1);
    assert!(place.cases.get(&second).is_none());
    assert!(!is_forgotten(&world, &later) && !is_forgotten(&world, &later_again) && is_forgotten(&world, &with_him));
}

/// What `at` retains, each on a topic of its own.
fn retaining(world: &World, at: &str, all: &[&Draft]) -> State {
    let mut state = world.state(at);
    for (n, draft) in (1..).zip(all) {
        let (header, payload) = draft.parts();
        let (payload, committed_us) = (bytes::Bytes::copy_from_slice(payload), header.committed_us);
        let kept = Retained { pos: Pos(n), qos: 1, payload, door: bytes::Bytes::new(), committed_us, heard: None };
        state.retained.insert(format!("in/{n}"), kept);
    }
    state
}

/// What of that is removed by records that are committed there.
fn removed(world: &World, at: &str, state: &State, drafts: Vec<Draft>, origin: Option<&str>) -> Vec<(String, Pos)> {
    let group = group_of(&world.places[at].cases, state, world.now, drafts, origin);
    let notes = group.iter().filter_map(|(_, draft)| match Note::parse(draft.payload()) {
        Ok(Note::RetainedExpired { topics }) => Some(topics),
        _ => None,
    });
    notes.flatten().collect()
}

#[test]
fn what_topics_retain_of_whoever_is_forgotten_goes_with_him() {
    let mut world = World::new();
    let first = comes(&mut world, BUTTON, PRESSED, "1", "131");
    let again = comes(&mut world, BUTTON, PRESSED, "2", "131");
    let other = comes(&mut world, APP, PRESSED, "3", "133");
    let state = retaining(&world, "c/s/a/n", &[&first, &other, &again]);
    let id = opened_by("/btn", "1");
    let his = [("in/1".to_owned(), Pos(1)), ("in/3".to_owned(), Pos(3))];
    let asked = |world: &World, verb| {
        let (_, _, drafts) = world.places["c/s/a/n"].cases.ask(&id, verb, &boss(), "f", world.now).unwrap();
        removed(world, "c/s/a/n", &state, drafts, None)
    };
    assert_eq!(asked(&world, Verb::Comment), []);
    assert_eq!(asked(&world, Verb::Forget), his);
    // Where another node has the case by now: by the word of this one, and by that of the one that has it.
    for (verb, ask) in
        [(Verb::Accept, by("w", Role::Worker)), (Verb::Dispatch, Ask { to: Some(a("c/s/a")), ..by("w", Role::Worker) })]
    {
        assert!(world.ask("c/s/a/n", &id, verb, &ask, ""));
        world.settle();
    }
    assert_eq!(world.places["c/s/a"].cases.get(&id).unwrap().case.owner, a("c/s/a"));
    assert_eq!(asked(&world, Verb::Forget), his);
    let (_, _, step) = world.places["c/s/a"].cases.ask(&id, Verb::Forget, &boss(), "f", world.now).unwrap();
    world.commit("c/s/a", step, None);
    let told = world.lines[&("c/s/a".to_owned(), "c/s/a/n".to_owned())].last().unwrap().clone();
    assert_eq!(removed(&world, "c/s/a/n", &state, vec![told.draft], Some(&told.origin)), his);
}

#[test]
fn a_wish_that_somebody_be_forgotten_makes_all_forget_him_whom_it_passes() {
    let text = CATEGORIES.replace("name = \"路灯\"", "name = \"路灯\"\ncontact_reach = \"street\"");
    for asked_at in ["c", "c/s/b"] {
        let mut world = World::new();
        for n in NODES {
            let config = parse(&format!("[node]\naddress = \"{n}\"\ndata = \"d\"\n{text}"), &Variables::new()).config;
            world.places.get_mut(n).unwrap().cases = Cases::new(&config.unwrap());
        }
        let id = "20261120-1";
        let contact = Contact { phone: "139".into(), ..Contact::default() };
        let case = world.open("c/s/a", Opening { has_contact: true, ..opening(id, "L") }, contact);
        world.settle();
        // The one beside hears of it: it is summoned.
        let summon = Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) };
        assert!(world.ask("c/s/a", id, Verb::Accept, &by("w", Role::Worker), ""));
        assert!(world.ask("c/s/a", id, Verb::Assist, &summon, ""));
        world.settle();
        let at_street = |world: &World| world.places["c/s"].cases.get(&case.id).unwrap().clone();
        assert!(at_street(&world).contact.is_some());
        assert!(world.ask(asked_at, id, Verb::Comment, &boss(), "1"));
        apart::without(&mut world, "c/s/a");
        assert!(at_street(&world).contact.is_some(), "another wish is none of that kind");
        assert!(world.ask(asked_at, id, Verb::Forget, &boss(), "2"));
        apart::without(&mut world, "c/s/a");
        assert!(at_street(&world).contact.is_none() && at_street(&world).is_forgotten(), "asked at {asked_at}");
        world.restart("c/s");
        world.settle();
        for n in NODES {
            let Some(held) = world.places[n].cases.get(id) else { continue };
            assert!(held.contact.is_none() && held.case.forgotten && held.to_forget.is_none(), "{n}");
        }
    }
}

#[test]
fn whoever_gives_a_case_away_forgets_too_when_its_taker_is_dead() {
    for asked_at in ["c", "c/s", "c/s/b"] {
        let mut world = World::new();
        let id = "20261120-1";
        let contact = Contact { phone: "139".into(), ..Contact::default() };
        world.open("c/s/a", Opening { has_contact: true, ..opening(id, "L") }, contact);
        world.settle();
        let to = Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) };
        assert!(world.ask("c/s/a", id, Verb::Accept, &by("w", Role::Worker), ""));
        if asked_at == "c/s/b" {
            // One that comes back: its taker knows it.
            assert!(world.ask("c/s/a", id, Verb::Dispatch, &to, ""));
            world.settle();
            assert!(world.ask("c/s/b", id, Verb::Return, &by("w", Role::Worker), ""));
            world.settle();
        }
        assert!(world.ask("c/s/a", id, Verb::Dispatch, &to, ""));
        apart::without(&mut world, "c/s/b");
        assert!(world.ask(asked_at, id, Verb::Forget, &boss(), "f"));
        if asked_at != "c/s/b" {
            apart::without(&mut world, "c/s/b");
            let giver = world.places["c/s/a"].cases.get(id).unwrap();
            assert!(giver.contact.is_none() && giver.is_forgotten(), "asked at {asked_at}");
            world.restart("c/s/a");
        }
        world.settle();
        for n in NODES {
            let Some(held) = world.places[n].cases.get(id) else { continue };
            assert!(held.contact.is_none() && held.case.forgotten && held.to_forget.is_none(), "{asked_at}: {n}");
            assert!(held.wishes.is_empty(), "{asked_at}: {n}: {:?}", held.wishes);
            let lines = held.history.iter().filter(|e| e.step == Verb::Forget.done()).count();
            assert_eq!(lines, 1, "{asked_at}: {n}");
        }
    }
}
