//! Events that open cases: `city.appeal`, `city.sos` and `city.sos.…` (a button's press, such as
//! `city.sos.pressed.v1`), and anything urgent whose data says `sos`.
//!
//! Names and telephone numbers are taken out here: the case does without, [`Contact`] keeps them.

use super::machine::Opening;
use crate::brain::form;
use crate::brain::rules::alarms;
use citybrain_shared::case::{self, APPEAL, Contact, Place};
use citybrain_shared::config::cases::Category;
use citybrain_shared::event::Envelope;
use citybrain_shared::record::{Header, Kind};
use citybrain_shared::{Lane, words};
use serde_json::Value;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// Is this an event that opens a case, where it entered?
pub fn opens(header: &Header<'_>, payload: &[u8]) -> bool {
    header.kind == Kind::Event && header.origin.is_none() && opens_case(header, payload)
}

/// May its data name a person whom to call? Events that open cases, wherever they are by now; contact
/// data; and letters, which hand it over.
pub fn may_name_persons(header: &Header<'_>, payload: &[u8]) -> bool {
    [super::letter::CONTACT, super::letter::LETTER].contains(&header.name) || opens_case(header, payload)
}

/// The same for those who have an event only as JSON: what is called like one that opens a case, or says
/// `sos` in its data, counts as one whatever its lane.
pub fn is_of_persons(event: &Value) -> bool {
    let kind = event["type"].as_str().unwrap_or_default();
    let is_call = case::is_call(kind) || kind.strip_prefix(APPEAL).is_some_and(|rest| rest.starts_with('.'));
    is_call || case::is_letter(kind) || !event["data"]["sos"].is_null()
}

fn opens_case(header: &Header<'_>, payload: &[u8]) -> bool {
    case::opens_case(header.name, header.lane == Lane::Urgent, payload)
}

/// What an event says of a new case, and who can be called. Its answers are not looked at yet:
/// [`answered`]. `is_call`: is such a category one of calls for help?
pub fn read(
    header: &Header<'_>,
    payload: &[u8],
    day: chrono::NaiveDate,
    is_call: &dyn Fn(&str) -> bool,
) -> Option<(Opening, Contact)> {
    let envelope = Envelope::parse(payload).ok()?;
    let event = envelope.id.clone()?.into_owned();
    let data = data(payload);
    let text = |name: &str| word(&data[name]).unwrap_or_default();
    let is_appeal = header.name == APPEAL;
    let contact = contact(&data, is_appeal);
    // Words alone are words, too: nothing that somebody says is lost.
    let said = [text("description"), text("text"), word(&data).unwrap_or_default()];
    let source = envelope.source.as_ref();
    let channel = text("channel");
    let title = if text("title").is_empty() && !is_appeal {
        envelope.subject.as_deref().unwrap_or_default().to_owned()
    } else {
        text("title")
    };
    let sos = !is_appeal || is_call(&text("category"));
    let opening = Opening {
        id: id(day, source, &event),
        event: Some(event),
        alarm: Some(text("alarm")).filter(|id| alarms::is_id(id)),
        button: sos.then(|| button(source, envelope.subject.as_deref().unwrap_or_default())),
        by: "event".into(),
        sos,
        kind: text("kind").parse().ok(),
        category: text("category"),
        title: if title.is_empty() && sos { SOS_TITLE.into() } else { title },
        description: said.into_iter().find(|said| !said.trim().is_empty()).unwrap_or_default(),
        place: place(&data),
        form: given(&data["form"]),
        media: Vec::new(),
        channel: if channel.is_empty() { "event".into() } else { words::beginning(&channel, 60).into() },
        governance: envelope.governance.as_deref().map(str::to_owned),
        has_contact: !contact.is_empty(),
        booking: None,
        bound_for: None,
        note: String::new(),
    };
    Some((opening, contact))
}

/// What an event says. A map may take for a text whatever a button sends, and so may the button: what is an object all
/// the same is read as one, so that a telephone number in it is nobody's description.
fn data(payload: &[u8]) -> Value {
    let data = super::letter::data::<Value>(payload).unwrap_or(Value::Null);
    data.as_str().and_then(object_in).unwrap_or(data)
}

/// Each text in a text is shorter than the one around it.
fn object_in(text: &str) -> Option<Value> {
    match serde_json::from_str(text).ok()? {
        Value::String(inner) => object_in(&inner),
        object @ Value::Object(_) => Some(object),
        _ => None,
    }
}

/// Sorts the answers by what the category asks. What is none, or was not given, keeps nobody from
/// opening the case: it is a note of its history, and somebody can ask.
pub fn answered(opening: &mut Opening, contact: &mut Contact, category: Option<&Category>) {
    let given = std::mem::take(&mut opening.form);
    // A call for help is asked nothing.
    let Some(category) = category.filter(|_| !opening.sos) else { return };
    let (answers, faults) = form::sorted(&category.name, &category.form, &given);
    opening.form = answers.open;
    contact.more.extend(answers.personal);
    opening.has_contact = !contact.is_empty();
    opening.note = form::lacking(&category.form, &faults);
}

/// `20261123-k7m2q9x4ab`: the day, and fifty bits of what the case came from: two of a day's 10,000
/// are the same once in twenty million days.
pub fn id(day: chrono::NaiveDate, source: &str, event: &str) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut hash = xxh3_128(format!("{source}\0{event}").as_bytes());
    let mut text = day.format("%Y%m%d-").to_string();
    for _ in 0..10 {
        text.push(char::from(LETTERS[(hash % 32) as usize]));
        hash /= 32;
    }
    text
}

/// What was pressed, by its event's source and subject: 128 bits of them, hexadecimal, and whether
/// there was a subject. A subject names the device; without one the source may stand for many.
pub fn button(source: &str, subject: &str) -> String {
    let hash = xxh3_128(format!("{source}\0{subject}").as_bytes());
    format!("{}{hash:032x}", if subject.is_empty() { SOURCE_ONLY } else { "" })
}

/// What a call for help is called that says nothing of itself.
pub const SOS_TITLE: &str = "SOS";

/// How a [`button`] without a subject begins.
const SOURCE_ONLY: &str = "source:";

/// Does a [`button`] name a device? Behind a source alone may be many people.
pub fn names_device(button: &str) -> bool {
    !button.starts_with(SOURCE_ONLY)
}

/// Answers to its category's form, as they came: texts, numbers, and several choices as a list of texts.
fn given(form: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(n) => n.to_string(),
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        _ => String::new(),
    };
    form.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// A name at the top of the data is a device's, where no resident speaks. Who is said in one word is a number.
pub fn contact(data: &Value, is_appeal: bool) -> Contact {
    let at = |name: &str| {
        let of = |who: &Value| words_of(&who[name]).or_else(|| words_of(who).filter(|_| name == "phone"));
        let nested = of(&data["contact"]).or_else(|| of(&data["reporter"]));
        let flat = if is_appeal || name == "phone" { words_of(&data[name]) } else { None };
        words::beginning(&nested.or(flat).unwrap_or_default(), 200).into()
    };
    Contact { name: at("name"), phone: at("phone"), address: at("address"), ..Contact::default() }
}

/// A text, or a number as one: a telephone's, or a door's.
pub fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// A word, or all that are in a list.
fn words_of(value: &Value) -> Option<String> {
    let Value::Array(all) = value else { return word(value) };
    let all: Vec<String> = all.iter().filter_map(word).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Where it is, in whatever shape it says so.
pub fn place(data: &Value) -> Option<Place> {
    let location = if data["location"].is_null() { &data["place"] } else { &data["location"] };
    let degrees = |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    let number = |names: [&str; 2]| names.iter().find_map(|n| degrees(&location[*n]).or_else(|| degrees(&data[*n])));
    let text = word(location).or_else(|| word(&location["text"])).or_else(|| word(&location["address"]));
    // A device that knows no better says 0/0, half of it, or something beyond the poles; the words count then.
    let says = |at: &(f64, f64)| case::is_on_earth(at.0, at.1) && *at != (0.0, 0.0);
    let at = number(["lat", "latitude"]).zip(number(["lon", "long"])).filter(says);
    let place = Place {
        text: words::beginning(&text.unwrap_or_default(), 300).into(),
        lat: at.map(|at| at.0),
        lon: at.map(|at| at.1),
    };
    (place != Place::default()).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(kind: &str, data: &Value) -> (Opening, Contact) {
        let event = json!({"specversion": "1.0", "id": "1", "source": "/app", "type": kind, "data": data}).to_string();
        let header = Header::local(Kind::Event, kind);
        read(&header, event.as_bytes(), chrono::NaiveDate::MIN, &|category| category == "sos").unwrap()
    }

    #[test]
    fn numbers_are_taken_for_the_texts_that_they_stand_for() {
        let (pressed, contact) = of("city.sos", &json!({"phone": 13_900_000_000_u64, "place": "9栋"}));
        assert_eq!((contact.phone.as_str(), pressed.place.unwrap().text.as_str()), ("13900000000", "9栋"));
        let (pressed, contact) = of("city.sos", &json!({"contact": {"phone": 110}, "location": {"text": 9}}));
        assert_eq!((contact.phone.as_str(), pressed.place.unwrap().text.as_str()), ("110", "9"));
        for contact in [json!("139"), json!(139), json!(["139"]), json!({"phone": ["139"]})] {
            let (pressed, told) = of("city.sos", &json!({"contact": contact}));
            assert_eq!((told.phone.as_str(), pressed.has_contact), ("139", true), "{contact}");
        }
        assert_eq!(of("city.sos", &json!({"phone": ["139", 138]})).1.phone, "139, 138");
        let at = of("city.sos", &json!({"location": {"lat": "30.7", "lon": "103.8"}})).0.place.unwrap();
        assert_eq!((at.lat, at.lon), (Some(30.7), Some(103.8)));
    }

    #[test]
    fn numbers_are_words_of_a_press_too() {
        let said = json!({"title": 71, "description": 301, "channel": 2, "category": 7, "location": 7301});
        let (pressed, _) = of("city.sos", &said);
        let told = [&pressed.title, &pressed.description, &pressed.channel, &pressed.category];
        assert_eq!(told, ["71", "301", "2", "7"]);
        assert_eq!(of("city.sos", &json!({"text": 120})).0.description, "120");
        assert_eq!(of("city.sos", &json!(120)).0.description, "120");
    }

    #[test]
    fn an_object_that_comes_as_a_text_is_read_as_what_it_is() {
        let text = r#"{"location":"8栋101","phone":"13911112222"}"#;
        let twice = json!(text).to_string();
        let thrice = json!(twice).to_string();
        for (kind, text) in [("city.sos.pressed.v1", text), (APPEAL, text), (APPEAL, &twice), (APPEAL, &thrice)] {
            let (opening, contact) = of(kind, &json!(text));
            assert_eq!((opening.description.as_str(), opening.place.unwrap().text.as_str()), ("", "8栋101"), "{text}");
            assert!(opening.has_contact && contact.phone == "13911112222", "{text}");
        }
        for words in ["{老人摔倒}", "[1]", "120", "\"救命\""] {
            assert_eq!(of("city.sos", &json!(words)).0.description, words);
        }
    }

    #[test]
    fn an_appeal_of_the_category_of_calls_is_one() {
        let (call, contact) = of(APPEAL, &json!({"category": "sos", "name": "王女士"}));
        assert!(call.sos && call.button.is_some() && call.title == SOS_TITLE && contact.name == "王女士");
        assert!(!of(APPEAL, &json!({"category": "L"})).0.sos);
    }

    #[test]
    fn what_a_resident_says_and_who_says_it_is_taken_wherever_it_stands() {
        for data in [json!("太吵"), json!({"text": "太吵"}), json!({"description": "太吵", "text": "x"})] {
            assert_eq!(of(APPEAL, &data).0.description, "太吵", "{data}");
        }
        let flat = json!({"name": "王女士", "phone": "139", "address": "7栋301"});
        let wanted =
            Contact { name: "王女士".into(), phone: "139".into(), address: "7栋301".into(), ..Contact::default() };
        assert_eq!(of(APPEAL, &flat).1, wanted);
        assert_eq!(of(APPEAL, &json!({"contact": flat, "name": "another"})).1, wanted);
        let pressed = of("city.sos.pressed.v1", &flat);
        assert_eq!(pressed.1, Contact { phone: "139".into(), ..Contact::default() }, "a button has a name, too");
    }
}
