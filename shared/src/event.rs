//! An event: a CloudEvents 1.0 JSON object, read once, where it enters.
//!
//! [`Envelope::parse`] borrows from the bytes and leaves `data` unread: about a quarter of the cost
//! of a full parse. It is strict about what routes and identifies, so that every node above may
//! take the bytes for granted.
//!
//! Source: cloudevents/spec 1.0.2, `spec.md` and `formats/json-format.md`.

#[cfg(test)]
mod tests;

use crate::address::Tier;
use crate::limits;
use crate::selector::{self, Selector};
use crate::words;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("it is {bytes} bytes long; an event may have {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("it is not JSON: {0}")]
    NotJson(String),
    #[error("it is JSON but no CloudEvents object: {0}")]
    NotEvent(String),
    #[error("attribute `{0}` is missing or empty")]
    Missing(&'static str),
    #[error("attribute `{name}`: {reason}")]
    Attribute { name: String, reason: String },
}

impl Error {
    /// A stable word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::TooLarge { .. } => "too-large",
            Error::NotJson(_) => "not-json",
            Error::NotEvent(_) | Error::Missing(_) => "not-cloudevents",
            Error::Attribute { .. } => "bad-attribute",
        }
    }
}

/// How the types of what nodes themselves say begin.
pub const OWN: &str = "city.brain.";
/// What `citybrain trace --probe` sends through a door.
pub const PROBE: &str = "city.brain.probe";

/// A type that nodes believe because only a node can write it: rules', alarms', cases', services', who left the
/// tree, what operators did, warnings by CAP.
pub fn is_reserved(kind: &str) -> bool {
    kind != PROBE && (kind.starts_with(OWN) || kind.starts_with("city.cap."))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Routine,
    Urgent,
}

/// Does a downward event ask for an act or only inform?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    Command,
    Notice,
}

/// The attributes that identify and route. Those of the specification, and ours
/// (`target`, `priority`, `reach`, `governance`, `directive`, `expirytime`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// May be missing where it enters: then the node mints one.
    pub id: Option<Cow<'a, str>>,
    pub source: Cow<'a, str>,
    pub kind: Cow<'a, str>,
    pub subject: Option<Cow<'a, str>>,
    pub time: Option<Cow<'a, str>>,
    pub priority: Option<Cow<'a, str>>,
    pub reach: Option<Cow<'a, str>>,
    pub governance: Option<Cow<'a, str>>,
    pub target: Option<Cow<'a, str>>,
    pub directive: Option<Cow<'a, str>>,
    pub expirytime: Option<Cow<'a, str>>,
    pub correlationid: Option<Cow<'a, str>>,
    pub traceparent: Option<Cow<'a, str>>,
    /// The sender wrote an `origin`. It is ours to set, so the bytes must be written anew without it.
    pub has_origin: bool,
}

impl<'a> Envelope<'a> {
    /// Reads one CloudEvents JSON object. `id` may be missing (the caller decides); everything else
    /// that is returned is valid.
    ///
    /// # Errors
    /// [`Error`], in the sender's words: which attribute, and what is wrong with it.
    pub fn parse(json: &'a [u8]) -> Result<Envelope<'a>, Error> {
        if json.len() > limits::EVENT_BYTES_MAX {
            return Err(Error::TooLarge { bytes: json.len(), max: limits::EVENT_BYTES_MAX });
        }
        let mut de = serde_json::Deserializer::from_str(text(json)?);
        let raw = de.deserialize_map(RawVisitor).map_err(said)?;
        de.end().map_err(said)?;
        raw.check()
    }

    pub fn priority(&self) -> Priority {
        if self.priority.as_deref() == Some("urgent") { Priority::Urgent } else { Priority::Routine }
    }

    pub fn reach(&self) -> Option<Tier> {
        self.reach.as_deref().and_then(|t| t.parse().ok())
    }

    pub fn directive(&self) -> Directive {
        if self.directive.as_deref() == Some("command") { Directive::Command } else { Directive::Notice }
    }

    /// # Errors
    /// None after [`Envelope::parse`]; the type says that a selector is being read.
    pub fn target(&self) -> Option<Result<Selector, selector::Error>> {
        self.target.as_deref().map(Selector::parse)
    }
}

/// May this be an event's type? It becomes a topic, `events/TYPE`: at most
/// [`limits::TYPE_BYTES_MAX`] bytes, not empty, no `+`, `#`, `/`, space or control character.
pub fn is_type(text: &str) -> bool {
    let is_bad = |c: char| matches!(c, '+' | '#' | '/' | ' ') || is_forbidden(c);
    !text.is_empty() && text.len() <= limits::TYPE_BYTES_MAX && !text.contains(is_bad)
}

/// May this be an event's source? A URI-reference: at most 1,024 bytes, not empty.
pub fn is_source(text: &str) -> bool {
    !text.is_empty() && text.len() <= 1024 && !text.contains(NO_URI) && !text.contains(is_forbidden)
}

/// A URI that stands by itself (RFC 3986): a scheme, and something behind it.
fn is_absolute_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    is_scheme && !rest.is_empty() && !text.contains(NO_URI)
}

/// May this be an attribute's name?
pub fn is_attribute_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// What stands in no URI.
const NO_URI: [char; 10] = [' ', '"', '<', '>', '\\', '^', '`', '{', '|', '}'];

/// What an event is told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    pub kind: Cow<'a, str>,
    pub source: Cow<'a, str>,
    pub id: Cow<'a, str>,
}

/// Type, source and id of an event that came in at some door already, or that a node made itself:
/// that the bytes are one JSON object with these three and without `origin` is checked, the other
/// attributes are not.
///
/// # Errors
/// [`Error::NotJson`], [`Error::NotEvent`], [`Error::Missing`].
pub fn identity(json: &[u8]) -> Result<Identity<'_>, Error> {
    struct IdentityVisitor;
    impl<'de> Visitor<'de> for IdentityVisitor {
        type Value = [Option<Cow<'de, str>>; 3];
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = [None, None, None];
            while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
                let place = match key.as_ref() {
                    "type" => 0,
                    "source" => 1,
                    "id" => 2,
                    // Each node that offers the event says it, in front: of two, readers take the last.
                    "origin" => return Err(de::Error::custom("`origin` is no member that an event brings")),
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                };
                let Text(value) = map.next_value()?;
                if all[place].replace(value).is_some() {
                    return Err(de::Error::custom(format_args!("`{key}` stands twice")));
                }
            }
            Ok(all)
        }
    }
    let mut de = serde_json::Deserializer::from_str(text(json)?);
    let [kind, source, id] = de.deserialize_map(IdentityVisitor).map_err(said)?.map(|v| v.filter(|t| !t.is_empty()));
    de.end().map_err(said)?;
    Ok(Identity {
        kind: kind.ok_or(Error::Missing("type"))?,
        source: source.ok_or(Error::Missing("source"))?,
        id: id.ok_or(Error::Missing("id"))?,
    })
}

/// Writes the object anew: without the members named in `drop`, with `set` in front.
/// Everything else keeps its bytes and its order.
///
/// # Errors
/// When `json` is no JSON object.
pub fn rewrite(json: &[u8], set: &[(&str, &str)], drop: &[&str]) -> Result<Vec<u8>, Error> {
    struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);
    struct MembersVisitor;
    impl<'de> Visitor<'de> for MembersVisitor {
        type Value = Members<'de>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
                all.push((key, map.next_value::<&'de RawValue>()?));
            }
            Ok(Members(all))
        }
    }
    let mut de = serde_json::Deserializer::from_str(text(json)?);
    let members = de.deserialize_map(MembersVisitor).map_err(said)?;
    de.end().map_err(said)?;
    let quoted = |s: &str| serde_json::to_string(s).expect("a string always serialises");
    let mut out = Vec::with_capacity(json.len() + 64);
    let mut put = |key: &str, value: &str| {
        out.push(if out.is_empty() { b'{' } else { b',' });
        out.extend_from_slice(quoted(key).as_bytes());
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    };
    for (key, value) in set {
        put(key, &quoted(value));
    }
    for (key, value) in &members.0 {
        if !drop.contains(&key.as_ref()) && !set.iter().any(|(k, _)| k == key) {
            put(key, value.get());
        }
    }
    if out.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(out)
}

/// Where a first member goes into a JSON object, and whether others follow it; `None`: it is none.
pub fn first_member(json: &[u8]) -> Option<(usize, bool)> {
    let at = json.iter().position(|b| *b == b'{')? + 1;
    Some((at, !json[at..].trim_ascii_start().starts_with(b"}")))
}

/// The event as it is offered to readers: with its true origin as the first member. `json` must be
/// an event's bytes.
pub fn with_origin(json: &[u8], origin: &str) -> Vec<u8> {
    let Some((at, more)) = first_member(json) else { return json.to_vec() };
    let comma = if more { "," } else { "" };
    // An address needs no escapes.
    [format!("{{\"origin\":\"{origin}\"{comma}").as_bytes(), &json[at..]].concat()
}

/// JSON is UTF-8, also where nobody here reads it: a value that is skipped is handed on as it is.
fn text(json: &[u8]) -> Result<&str, Error> {
    words::utf8(json).map_err(Error::NotJson)
}

fn said(e: serde_json::Error) -> Error {
    if e.is_data() { Error::NotEvent(e.to_string()) } else { Error::NotJson(e.to_string()) }
}

/// A string that borrows where the JSON has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> de::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, s: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(s)))
            }
            fn visit_str<E>(self, s: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(s.to_owned())))
            }
        }
        d.deserialize_str(V)
    }
}

/// An attribute's value: a string, or something else that the specification allows or not.
enum Value<'a> {
    Text(Cow<'a, str>),
    Null,
    Scalar,
    Integer(i128),
    Compound,
}

impl<'de> de::Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Value<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attribute's value")
            }
            fn visit_borrowed_str<E>(self, s: &'de str) -> Result<Value<'de>, E> {
                Ok(Value::Text(Cow::Borrowed(s)))
            }
            fn visit_str<E>(self, s: &str) -> Result<Value<'de>, E> {
                Ok(Value::Text(Cow::Owned(s.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Value<'de>, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
                Ok(Value::Scalar)
            }
            fn visit_i64<E>(self, n: i64) -> Result<Value<'de>, E> {
                Ok(Value::Integer(n.into()))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Value<'de>, E> {
                Ok(Value::Integer(n.into()))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
                Ok(Value::Compound)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut a: A) -> Result<Value<'de>, A::Error> {
                while a.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Compound)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut a: A) -> Result<Value<'de>, A::Error> {
                while a.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Compound)
            }
        }
        d.deserialize_any(V)
    }
}

#[derive(Default)]
struct Raw<'a> {
    envelope: Envelope<'a>,
    specversion: Option<Cow<'a, str>>,
    datacontenttype: Option<Cow<'a, str>>,
    dataschema: Option<Cow<'a, str>>,
    data: bool,
    data_base64: bool,
    has_source: bool,
    has_kind: bool,
    wrong: Option<Error>,
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
        let mut raw = Raw::default();
        // Names beyond the known ones are few, by their bound; a list finds a repeated one.
        let mut others: Vec<Cow<'de, str>> = Vec::new();
        let mut seen = 0u32;
        while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
            let e = &mut raw.envelope;
            let (bit, place) = match key.as_ref() {
                "data" | "data_base64" => {
                    let twice = if key == "data" { &mut raw.data } else { &mut raw.data_base64 };
                    if std::mem::replace(twice, true) {
                        raw.wrong.get_or_insert_with(|| attribute(&key, "stands twice"));
                    }
                    if key == "data" {
                        map.next_value::<IgnoredAny>()?;
                    } else if !matches!(map.next_value::<Value<'de>>()?, Value::Text(t) if is_base64(&t)) {
                        raw.wrong.get_or_insert_with(|| attribute(&key, "must be a string of base64"));
                    }
                    continue;
                }
                "id" => (0, Some(&mut e.id)),
                "source" => (1, None),
                "type" => (2, None),
                "specversion" => (3, Some(&mut raw.specversion)),
                "datacontenttype" => (4, Some(&mut raw.datacontenttype)),
                "dataschema" => (5, Some(&mut raw.dataschema)),
                "subject" => (6, Some(&mut e.subject)),
                "time" => (7, Some(&mut e.time)),
                "priority" => (8, Some(&mut e.priority)),
                "reach" => (9, Some(&mut e.reach)),
                "governance" => (10, Some(&mut e.governance)),
                "target" => (11, Some(&mut e.target)),
                "directive" => (12, Some(&mut e.directive)),
                "expirytime" => (13, Some(&mut e.expirytime)),
                "correlationid" => (14, Some(&mut e.correlationid)),
                "traceparent" => (15, Some(&mut e.traceparent)),
                _ => {
                    let value = map.next_value::<Value<'de>>()?;
                    if key == "origin" {
                        e.has_origin = true;
                    }
                    if others.len() == limits::EXTENSIONS_MAX {
                        raw.wrong.get_or_insert_with(|| attribute(&key, TOO_MANY));
                    } else {
                        if let Some(why) = extension_fault(&key, &value, &others) {
                            raw.wrong.get_or_insert_with(|| attribute(&key, why));
                        }
                        others.push(key);
                    }
                    continue;
                }
            };
            let value = map.next_value::<Value<'de>>()?;
            if seen & (1 << bit) != 0 {
                raw.wrong.get_or_insert_with(|| attribute(&key, "stands twice"));
            }
            seen |= 1 << bit;
            match value {
                Value::Null => {}
                Value::Text(t) if t.is_empty() => {
                    raw.wrong.get_or_insert_with(|| attribute(&key, "may not be empty"));
                }
                Value::Text(t) if t.chars().any(is_forbidden) => {
                    raw.wrong.get_or_insert_with(|| attribute(&key, "contains a control character or a noncharacter"));
                }
                Value::Text(t) => match (bit, place) {
                    (1, _) => (raw.envelope.source, raw.has_source) = (t, true),
                    (2, _) => (raw.envelope.kind, raw.has_kind) = (t, true),
                    (_, Some(place)) => *place = Some(t),
                    _ => unreachable!("only source and type have no place of their own"),
                },
                _ => {
                    raw.wrong.get_or_insert_with(|| attribute(&key, "must be a string"));
                }
            }
        }
        Ok(raw)
    }
}

fn attribute(name: &str, reason: impl Into<String>) -> Error {
    Error::Attribute { name: words::short(name).into(), reason: reason.into() }
}

/// May an attribute be this text? Not empty, no control characters and no noncharacters.
pub fn is_attribute_value(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(is_forbidden)
}

/// CloudEvents: no U+0000–001F, U+007F–009F, noncharacters (lone surrogates are no `char`).
fn is_forbidden(c: char) -> bool {
    let n = c as u32;
    n < 0x20 || (0x7f..0xa0).contains(&n) || (0xfdd0..=0xfdef).contains(&n) || n & 0xfffe == 0xfffe
}

/// The standard alphabet, padded (RFC 4648, section 4).
fn is_base64(text: &str) -> bool {
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    text.len().is_multiple_of(4) && digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

const TOO_MANY: &str = "is one too many: 64 of one's own may stand beside CloudEvents'; put further ones into `data`";

fn extension_fault(name: &str, value: &Value<'_>, others: &[Cow<'_, str>]) -> Option<&'static str> {
    if !is_attribute_name(name) {
        return Some("an attribute's name has only a-z and 0-9");
    }
    if others.iter().any(|o| o == name) {
        return Some("stands twice");
    }
    match value {
        Value::Compound => Some("must be a string, a boolean or a 32-bit integer; put structure into `data`"),
        Value::Integer(n) if i32::try_from(*n).is_err() => Some("does not fit 32 bits; write it as a string"),
        Value::Text(t) if t.chars().any(is_forbidden) => Some("contains a control character or a noncharacter"),
        _ => None,
    }
}

impl<'a> Raw<'a> {
    fn check(self) -> Result<Envelope<'a>, Error> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let e = self.envelope;
        match self.specversion.as_deref() {
            Some("1.0") => {}
            Some(v) => {
                return Err(attribute("specversion", format!("`{}` is not spoken here, only `1.0`", words::short(v))));
            }
            None => return Err(Error::Missing("specversion")),
        }
        if !self.has_kind {
            return Err(Error::Missing("type"));
        }
        if !self.has_source {
            return Err(Error::Missing("source"));
        }
        if e.source.contains(NO_URI) {
            return Err(attribute("source", "is not a URI-reference: percent-encode such characters"));
        }
        if self.dataschema.is_some_and(|uri| !is_absolute_uri(&uri)) {
            return Err(attribute("dataschema", "must be an absolute URI, such as https://host/schema.json"));
        }
        if !is_type(&e.kind) {
            return Err(attribute("type", "must have at most 255 bytes and none of `+`, `#`, `/` and space"));
        }
        let is_long = |text: &str| text.len() > limits::ID_BYTES_MAX;
        if is_long(&e.source) || e.id.as_deref().is_some_and(is_long) {
            return Err(attribute("id", "`id` and `source` may have at most 1,024 bytes each"));
        }
        if self.data && self.data_base64 {
            return Err(attribute("data", "stands beside `data_base64`; only one of them may"));
        }
        for (name, value) in [("time", &e.time), ("expirytime", &e.expirytime)] {
            if let Some(t) = value
                && chrono::DateTime::parse_from_rfc3339(t).is_err()
            {
                return Err(attribute(name, format!("`{}` is not an RFC 3339 time", words::short(t))));
            }
        }
        one_of("priority", &e.priority, &["routine", "urgent"])?;
        one_of("reach", &e.reach, &["city", "street", "community", "neighbourhood"])?;
        one_of("governance", &e.governance, &GOVERNANCE)?;
        one_of("directive", &e.directive, &["command", "notice"])?;
        if let Some(Err(wrong)) = e.target() {
            return Err(attribute("target", wrong.to_string()));
        }
        Ok(e)
    }
}

/// What something may be governed by.
pub const GOVERNANCE: [&str; 4] = ["party", "autonomy", "virtue", "law"];

fn one_of(name: &str, value: &Option<Cow<'_, str>>, allowed: &[&str]) -> Result<(), Error> {
    match value {
        Some(v) if !allowed.contains(&v.as_ref()) => {
            Err(attribute(name, format!("`{}` is not one of {}", words::short(v), allowed.join(", "))))
        }
        _ => Ok(()),
    }
}
