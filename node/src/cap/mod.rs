//! The Common Alerting Protocol 1.2 (OASIS, CAP-v1.2): its messages, read and written. Pure.
//!
//! | module | what it owns |
//! |---|---|
//! | [`read`] | XML to a message, or what is wrong with it and where |
//! | [`mod@write`] | a message to XML |
//! | [`alarms`] | the messages that an alarm has come to |
//! | [`areas`] | which nodes a message's areas name |
//! | [`check`] | what is wrong with `[cap]` before a start |
//!
//! A message is a JSON object with the names of CAP's elements, in CAP's nesting: what may stand more
//! than once is an array, all else a string. One table, [`ALERT`], says which elements there are, in
//! which order, how often and of what kind; reading, checking and writing all follow it.
//!
//! Deliberately absent: CAP 1.0 and 1.1, other encodings than UTF-8, entities of a document type, and
//! the XML signature, which is passed over.

pub mod alarms;
pub mod areas;
pub mod check;
pub mod read;
pub mod write;

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use citybrain_shared::words::short;
use serde_json::{Map, Value};

pub const NAMESPACE: &str = "urn:oasis:names:tc:emergency:cap:1.2";
pub const CONTENT_TYPE: &str = "application/cap+xml";
/// Largest message, bytes: as JSON, and beside itself, it still fits into one event.
pub const BYTES_MAX: usize = 96 * 1024;
/// The geocode of a 12-digit division code of the statistics bureau.
pub const DIVISION: &str = "CN-STAT-12";
/// The geocode of a node's address.
pub const ADDRESS: &str = "citybrain-address";
/// The parameter that has an alarm's own severity.
pub const SEVERITY: &str = "citybrain-severity";

pub type Message = Map<String, Value>;

/// How often an element stands in its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Often {
    Once,
    AtMostOnce,
    AnyNumber,
    AtLeastOnce,
}

/// What an element holds.
#[derive(Clone, Copy, Debug)]
pub enum Holds {
    Text,
    /// Names a message or its sender: no space, no comma.
    Id,
    Time,
    /// `sender,identifier,sent`, with spaces between several.
    References,
    Word(&'static [&'static str]),
    /// `lat,lon lat,lon …`: at least four, the last is the first.
    Polygon,
    /// `lat,lon radius` in kilometres.
    Circle,
    /// Further elements.
    Parts(&'static [Element]),
}

#[derive(Clone, Copy, Debug)]
pub struct Element {
    pub name: &'static str,
    pub often: Often,
    pub holds: Holds,
}

const fn of(name: &'static str, often: Often, holds: Holds) -> Element {
    Element { name, often, holds }
}

use Holds::{Circle, Id, Parts, Polygon, References, Text, Time, Word};
use Often::{AnyNumber, AtLeastOnce, AtMostOnce, Once};

/// The elements of `alert`, in CAP's order.
pub const ALERT: &[Element] = &[
    of("identifier", Once, Id),
    of("sender", Once, Id),
    of("sent", Once, Time),
    of("status", Once, Word(&["Actual", "Exercise", "System", "Test", "Draft"])),
    of("msgType", Once, Word(&["Alert", "Update", "Cancel", "Ack", "Error"])),
    of("source", AtMostOnce, Text),
    of("scope", Once, Word(&["Public", "Restricted", "Private"])),
    of("restriction", AtMostOnce, Text),
    of("addresses", AtMostOnce, Text),
    of("code", AnyNumber, Text),
    of("note", AtMostOnce, Text),
    of("references", AtMostOnce, References),
    of("incidents", AtMostOnce, Text),
    of("info", AnyNumber, Parts(INFO)),
];

const INFO: &[Element] = &[
    of("language", AtMostOnce, Text),
    of("category", AtLeastOnce, Word(CATEGORIES)),
    of("event", Once, Text),
    of("responseType", AnyNumber, Word(RESPONSES)),
    of("urgency", Once, Word(URGENCIES)),
    of("severity", Once, Word(SEVERITIES)),
    of("certainty", Once, Word(CERTAINTIES)),
    of("audience", AtMostOnce, Text),
    of("eventCode", AnyNumber, Parts(PAIR)),
    of("effective", AtMostOnce, Time),
    of("onset", AtMostOnce, Time),
    of("expires", AtMostOnce, Time),
    of("senderName", AtMostOnce, Text),
    of("headline", AtMostOnce, Text),
    of("description", AtMostOnce, Text),
    of("instruction", AtMostOnce, Text),
    of("web", AtMostOnce, Text),
    of("contact", AtMostOnce, Text),
    of("parameter", AnyNumber, Parts(PAIR)),
    of("resource", AnyNumber, Parts(RESOURCE)),
    of("area", AnyNumber, Parts(AREA)),
];

pub const CATEGORIES: &[&str] =
    &["Geo", "Met", "Safety", "Security", "Rescue", "Fire", "Health", "Env", "Transport", "Infra", "CBRNE", "Other"];
pub const RESPONSES: &[&str] =
    &["Shelter", "Evacuate", "Prepare", "Execute", "Avoid", "Monitor", "Assess", "AllClear", "None"];
pub const URGENCIES: &[&str] = &["Immediate", "Expected", "Future", "Past", "Unknown"];
pub const SEVERITIES: &[&str] = &["Extreme", "Severe", "Moderate", "Minor", "Unknown"];
pub const CERTAINTIES: &[&str] = &["Observed", "Likely", "Possible", "Unlikely", "Unknown"];

const PAIR: &[Element] = &[of("valueName", Once, Text), of("value", Once, Text)];

const RESOURCE: &[Element] = &[
    of("resourceDesc", Once, Text),
    of("mimeType", Once, Text),
    of("size", AtMostOnce, Text),
    of("uri", AtMostOnce, Text),
    of("derefUri", AtMostOnce, Text),
    of("digest", AtMostOnce, Text),
];

const AREA: &[Element] = &[
    of("areaDesc", Once, Text),
    of("polygon", AnyNumber, Polygon),
    of("circle", AnyNumber, Circle),
    of("geocode", AnyNumber, Parts(PAIR)),
    of("altitude", AtMostOnce, Text),
    of("ceiling", AtMostOnce, Text),
];

/// CAP's own form of a time: to the second, with an offset; UTC is `-00:00`, a `Z` is none.
pub fn time(at: DateTime<Utc>, offset: FixedOffset) -> String {
    let text = at.with_timezone(&offset).to_rfc3339_opts(SecondsFormat::Secs, false);
    if offset.local_minus_utc() == 0 { text.replace("+00:00", "-00:00") } else { text }
}

/// # Errors
/// In words, how to write one.
pub fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    let is_long_enough = text.len() == "2026-07-01T08:00:00+08:00".len();
    match DateTime::parse_from_rfc3339(text) {
        Ok(at) if is_long_enough => Ok(at.with_timezone(&Utc)),
        _ => Err(format!(
            "`{}` is no time of CAP: write 2026-07-01T08:00:00+08:00, with an offset, no `Z`, no fraction",
            short(text)
        )),
    }
}

/// What names a message for good, whatever offset its time was written with: `sender,identifier,sent`.
pub fn key(sender: &str, identifier: &str, sent: DateTime<Utc>) -> String {
    format!("{sender},{identifier},{}", sent.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// When the message of this [`key`] was sent; `None`: it is no key.
pub fn sent_of(text: &str) -> Option<DateTime<Utc>> {
    let mut parts = text.splitn(3, ',');
    let (sender, identifier, sent) = (parts.next()?, parts.next()?, parts.next()?);
    let at = DateTime::parse_from_rfc3339(sent).ok()?.with_timezone(&Utc);
    (!sender.is_empty() && !identifier.is_empty() && key(sender, identifier, at) == text).then_some(at)
}

/// The [`key`] of a name as it was written, with whatever offset; what is no such name stays as it is.
pub fn key_of(name: &str) -> String {
    match references(name).ok().as_deref() {
        Some([key]) => key.clone(),
        _ => name.to_owned(),
    }
}

/// The [`key`]s of `references`, in their order.
///
/// # Errors
/// In words: which part is none.
pub fn references(text: &str) -> Result<Vec<String>, String> {
    let one = |part: &str| {
        let mut parts = part.split(',');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(sender), Some(identifier), Some(sent), None) if !sender.is_empty() && !identifier.is_empty() => {
                Ok(key(sender, identifier, moment(sent)?))
            }
            _ => Err(format!("`{}` is no reference: write sender,identifier,sent", short(part))),
        }
    };
    text.split_whitespace().map(one).collect()
}

/// The text of an element that stands once, or nothing.
pub fn text<'m>(message: &'m Map<String, Value>, name: &str) -> &'m str {
    message.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The parts of this name: `info`, `area`, `geocode`.
pub fn parts<'m>(message: &'m Map<String, Value>, name: &str) -> impl Iterator<Item = &'m Map<String, Value>> {
    message.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

/// Values of `parameter` or `geocode` by this name.
pub fn values<'m>(within: &'m Map<String, Value>, list: &str, name: &str) -> impl Iterator<Item = &'m str> {
    parts(within, list).filter(move |pair| text(pair, "valueName") == name).map(|pair| text(pair, "value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_an_offset_and_never_a_z() {
        let at: DateTime<Utc> = "2026-07-01T00:00:00.9Z".parse().unwrap();
        let at_offset = |s| time(at, FixedOffset::east_opt(s).unwrap());
        assert_eq!(at_offset(8 * 3600), "2026-07-01T08:00:00+08:00");
        assert_eq!(at_offset(0), "2026-07-01T00:00:00-00:00");
        for good in ["2026-07-01T08:00:00+08:00", "2026-07-01T00:00:00-00:00", "2026-06-30T19:00:00-05:00"] {
            assert_eq!(moment(good).unwrap().to_rfc3339(), "2026-07-01T00:00:00+00:00", "{good}");
        }
        for bad in
            ["2026-07-01T08:00:00Z", "2026-07-01T08:00:00.5+08:00", "2026-07-01", "", "2026-13-01T08:00:00+08:00"]
        {
            assert!(moment(bad).unwrap_err().contains("with an offset"), "{bad}");
        }
    }

    #[test]
    fn a_message_has_one_key_whatever_offset_it_was_written_with() {
        let all = references("a@b,1,2026-07-01T08:00:00+08:00 a@b,1,2026-07-01T00:00:00-00:00").unwrap();
        assert_eq!(all, ["a@b,1,2026-07-01T00:00:00Z", "a@b,1,2026-07-01T00:00:00Z"]);
        for bad in ["a,1", "a,1,2026-07-01T08:00:00+08:00,x", ",1,2026-07-01T08:00:00+08:00", "a,1,now"] {
            assert!(references(bad).is_err(), "{bad}");
        }
        assert_eq!(sent_of(&all[0]).unwrap().to_rfc3339(), "2026-07-01T00:00:00+00:00");
        for other in ["厨房", "a@b,1,2026-07-01T08:00:00+08:00", "a@b,1", ",1,2026-07-01T00:00:00Z"] {
            assert_eq!(sent_of(other), None, "{other}");
        }
    }
}
