//! How a `[[map]]` looks at a payload: what must be there, what becomes data, what templates say.

use super::discovery::template;
use citybrain_shared::config::{Format, Map};
use citybrain_shared::danger::{Danger, Told};
use citybrain_shared::words;
use serde_json::{Number, Value};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// What was published, read at most once, whatever number of entries look at it.
pub(super) struct Body<'a> {
    payload: &'a [u8],
    json: OnceCell<Result<Value, String>>,
    for_templates: OnceCell<minijinja::Value>,
    without_nulls: OnceCell<Option<minijinja::Value>>,
}

impl<'a> Body<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Body<'a> {
        Body { payload, json: OnceCell::new(), for_templates: OnceCell::new(), without_nulls: OnceCell::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// What it says, in the format of an entry.
    ///
    /// # Errors
    /// What it is not, and what it should be.
    pub(super) fn value(&self, format: Format) -> Result<Cow<'_, Value>, (&'static str, String)> {
        if format == Format::Text {
            let text = words::utf8(self.payload).map_err(|why| ("not-text", format!("UTF-8 text: {why}")))?.trim();
            return Ok(Cow::Owned(number_or_text(text)));
        }
        self.json().map(Cow::Borrowed).map_err(|why| ("not-json", format!("JSON: {why}")))
    }

    /// # Errors
    /// Why it is none.
    pub(super) fn json(&self) -> Result<&Value, &str> {
        let json = self.json.get_or_init(|| {
            let text = words::utf8(self.payload)?;
            serde_json::from_str(text).map_err(|e| e.to_string())
        });
        json.as_ref().map_err(String::as_str)
    }

    /// As templates see it: `value` is its text, `value_json` what that is as JSON.
    pub(super) fn for_templates(&self) -> &minijinja::Value {
        self.for_templates.get_or_init(|| self.seen(self.json().ok()))
    }

    /// The same without the members that are null; `None`: it has none.
    pub(super) fn without_nulls(&self) -> Option<&minijinja::Value> {
        let seen = || {
            let json = self.json().ok().filter(|json| template::has_null(json))?;
            Some(self.seen(Some(&template::without_nulls(json))))
        };
        self.without_nulls.get_or_init(seen).as_ref()
    }

    fn seen(&self, json: Option<&Value>) -> minijinja::Value {
        let text = words::utf8(self.payload).ok().map(|text| ("value", minijinja::Value::from(text)));
        let json = json.map(|json| ("value_json", template::given(json)));
        minijinja::Value::from_pairs(text.into_iter().chain(json))
    }

    /// Does it read in the format of an entry?
    pub(super) fn reads(&self, format: Format) -> bool {
        self.value(format).is_ok()
    }

    /// Is any of the dangers told by which the entry gives a type?
    pub(super) fn warns(&self, map: &Map) -> bool {
        if !map.is_told_by_dangers() {
            return true;
        }
        self.value(map.format).is_ok_and(|body| {
            let warned = Warned::of(&body, map);
            warned.unread.is_some() || warned.kind().is_some()
        })
    }

    /// Is there what the entry's `has` asks for? What does not read has nothing.
    pub(super) fn has(&self, map: &Map) -> bool {
        if map.has.is_empty() {
            return true;
        }
        let Ok(body) = self.value(map.format) else { return false };
        map.has.iter().all(|(pointer, values)| {
            each(&body, pointer).iter().any(|v| match values.as_slice() {
                [] => !v.is_null() && v.as_str() != Some(""),
                values => values.iter().any(|w| is_wanted(w, v)),
            })
        })
    }
}

/// What a message says of dangers, as an entry's `dangers` and its type look for them.
#[derive(Debug, Default)]
pub(super) struct Warned {
    told: BTreeMap<Danger, bool>,
    /// Where something stands that says neither, in words.
    pub unread: Option<String>,
}

impl Warned {
    pub(super) fn of(body: &Value, map: &Map) -> Warned {
        let mut warned = Warned::default();
        for (danger, pointer) in map.dangers.iter().flat_map(|(danger, all)| all.iter().map(|p| (*danger, p))) {
            for value in each(body, pointer) {
                warned.add(danger, &said(unwrapped(value, map), map), pointer);
            }
        }
        warned
    }

    /// And what its event's data say of the danger that the type promises, where the entry does not look for it.
    pub(super) fn add_kept_to(&mut self, map: &Map, kind: &str, data: &Value) {
        if let Some(danger) = Danger::promised(kind).filter(|danger| !map.dangers.contains_key(danger)) {
            self.add_promised(danger, data, |value| said(value.clone(), map));
        }
    }

    /// What an event that came as such, of a type that promises this danger, says of it and of others.
    pub(super) fn as_sent(promised: Danger, data: &Value) -> Warned {
        let mut warned = Warned::default();
        for (danger, member) in Danger::OF_ALARMS.into_iter().filter_map(|danger| Some((danger, danger.member()?))) {
            if let Some(value) = data.get(member) {
                warned.add(danger, value, &format!("/data/{member}"));
            }
        }
        warned.add_promised(promised, data, Value::clone);
        warned
    }

    /// Do such data speak of any danger, be it that nothing is known of it?
    pub(super) fn is_named_in(data: &Value) -> bool {
        let Value::Object(all) = data else { return !data.is_null() };
        Danger::OF_ALARMS.into_iter().filter_map(Danger::member).any(|member| all.contains_key(member))
    }

    /// What stands where the event's type promises that it says whether there is this danger.
    fn add_promised(&mut self, danger: Danger, data: &Value, read: impl Fn(&Value) -> Value) {
        let Some(member) = danger.member() else { return };
        let (pointer, value) = match data {
            Value::Object(all) => (format!("/{member}"), all.get(member)),
            whole => (String::new(), Some(whole)),
        };
        let Some(value) = value else { return };
        self.add(danger, &read(value), &pointer);
        // An object may tell of something else. Of what is none, and of a number, the danger is all that is told.
        let is_told = self.told.contains_key(&danger) || data.is_object() && danger.told(value) == Told::Nothing;
        if !is_told {
            self.unread.get_or_insert_with(|| neither(danger, &pointer, value));
        }
    }

    fn add(&mut self, danger: Danger, value: &Value, pointer: &str) {
        match danger.told(value) {
            told @ (Told::Yes | Told::No) => *self.told.entry(danger).or_default() |= told == Told::Yes,
            Told::Unread => _ = self.unread.get_or_insert_with(|| neither(danger, pointer, value)),
            Told::Nothing | Told::Measured => {}
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.told.values().any(|is| *is)
    }

    /// Does the event's data say it in the words that rules look for?
    pub(super) fn stands_in(&self, data: &Value) -> bool {
        self.members().all(|(member, is)| data.get(member) == Some(&is.into()))
    }

    /// Members of an event's data.
    pub(super) fn members(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.told.iter().filter_map(|(danger, is)| Some((danger.member()?, *is)))
    }

    /// The type of the worst that is there, else of the worst that is told. That nobody calls is no event.
    pub(super) fn kind(&self) -> Option<&'static str> {
        let there = self.told.iter().find(|(_, is)| **is).map(|(danger, _)| *danger);
        let gone = || Danger::OF_ALARMS.into_iter().find(|danger| self.told.contains_key(danger));
        there.or_else(gone).map(Danger::kind)
    }

    /// Into the event's data, in the words that rules look for.
    pub(super) fn write(self, data: &mut Value) {
        let members = self.members().map(|(member, is)| (member.to_owned(), is.into()));
        match data {
            Value::Object(all) => all.extend(members),
            whole => {
                let members: serde_json::Map<_, _> = members.collect();
                if !members.is_empty() {
                    *whole = members.into();
                }
            }
        }
    }
}

fn neither(danger: Danger, pointer: &str, value: &Value) -> String {
    let value = value.to_string();
    let value = words::short(&value);
    let name = danger.name();
    let at = if pointer.is_empty() { "the payload".to_owned() } else { format!("what stands at `{pointer}`") };
    format!("{at} says neither that there is {name} nor that there is none: {value}")
}

/// What a text says: a number if it reads as one. An integer too long for a number without loss is a word.
pub(super) fn number_or_text(text: &str) -> Value {
    let is_integer = text.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit());
    let number = text.parse::<Number>().ok().filter(|n| !is_integer || is_exact(n));
    number.map_or_else(|| text.into(), Value::Number)
}

/// Is it surely the number that was written? An integer beyond 64 bits is kept as the nearest of few.
pub(super) fn is_exact(n: &Number) -> bool {
    const INTEGERS_UP_TO: f64 = 9_007_199_254_740_992.0; // 2^53
    !n.is_f64() || n.as_f64().is_some_and(|f| f.abs() < INTEGERS_UP_TO)
}

/// 1 and 1.0 are one number.
fn is_wanted(wanted: &Value, found: &Value) -> bool {
    wanted == found || matches!((wanted.as_f64(), found.as_f64()), (Some(a), Some(b)) if a == b)
}

/// What a JSON pointer leads to; a segment `*` is every element of an array, or every member's value.
fn each<'v>(body: &'v Value, pointer: &str) -> Vec<&'v Value> {
    let Some((before, behind)) = pointer.split_once("/*") else { return body.pointer(pointer).into_iter().collect() };
    let inner: Vec<&Value> = match body.pointer(before) {
        Some(Value::Array(all)) => all.iter().collect(),
        Some(Value::Object(all)) => all.values().collect(),
        _ => Vec::new(),
    };
    inner.into_iter().flat_map(|v| each(v, behind)).collect()
}

/// The members that a map's `data` names; `None` if there is none of them.
pub(super) fn data_of<'t>(body: &Value, map: &'t Map, fill: &dyn Fn(&'t str) -> Cow<'t, str>) -> Option<Value> {
    let mut data = serde_json::Map::new();
    // `*` sorts before letters and digits, so a named member stands in the place of one of these.
    for (name, pointer) in &map.data {
        if name == "*" {
            let all = each(body, pointer).into_iter().filter_map(Value::as_object).flatten();
            data.extend(all.map(|(k, v)| (k.clone(), unwrapped(v, map))));
        } else if pointer.contains('{') && !pointer.starts_with('/') {
            data.insert(fill(name).into_owned(), fill(pointer).into());
        } else if let Some(value) = told(body, pointer, map) {
            data.insert(fill(name).into_owned(), said(unwrapped(value, map), map));
        }
    }
    (!data.is_empty()).then_some(Value::Object(data))
}

/// What stands in the map's `inner`, if it has that; else itself.
fn unwrapped(value: &Value, map: &Map) -> Value {
    map.inner.as_ref().and_then(|inner| value.get(inner)).unwrap_or(value).clone()
}

/// What a pointer leads to: of several what the entry's `has` asked for there, else the first.
fn told<'v>(body: &'v Value, pointer: &str, map: &Map) -> Option<&'v Value> {
    let all = each(body, pointer);
    let wanted = map.has.get(pointer).map_or(&[][..], Vec::as_slice);
    all.iter().find(|v| wanted.iter().any(|w| is_wanted(w, v))).or(all.first()).copied()
}

/// What the map's `words` say that a word or number stands for; else itself.
pub(super) fn said(value: Value, map: &Map) -> Value {
    if map.words.is_empty() {
        return value;
    }
    scalar_text(&value).and_then(|text| map.words.get(&text).cloned()).unwrap_or(value)
}

/// `{1}`, `{2}`, … are the topic's levels, `{2..}` those from the second on, `{client}` who sent it.
pub(super) fn template<'a>(text: &'a str, levels: &[&str], client: &str) -> Cow<'a, str> {
    if !text.contains('{') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, after)) = behind.split_once('}') else {
            out.push('{');
            rest = behind;
            continue;
        };
        let number = |text: &str| text.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        match (name, name.strip_suffix("..").and_then(number), number(name)) {
            ("client", ..) => out.push_str(client),
            (_, Some(from), _) if from < levels.len() => out.push_str(&levels[from..].join("/")),
            (_, _, Some(at)) if at < levels.len() => out.push_str(levels[at]),
            // As it was: a level that this topic does not have.
            _ => out.extend(["{", name, "}"]),
        }
        rest = after;
    }
    out.push_str(rest);
    out.into()
}

pub(super) fn scalar_text(v: &Value) -> Option<String> {
    match v {
        Value::String(s) if !s.is_empty() => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}
