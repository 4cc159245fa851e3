//! Events that a publish is made into: of a device's own format by a `[[map]]`, of what it had announced, and of
//! CloudEvents' binary mode.

use super::discovery::Said;
use super::mapping::{Body, Warned, data_of, is_exact, said, scalar_text, template};
use super::{Defaults, Ingress, Refusal};
use crate::door::Publish;
use crate::door::packet::reason;
use crate::note::reason::UNREAD_ALARM;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use chrono::{DateTime, SecondsFormat, Utc};
use citybrain_shared::case;
use citybrain_shared::config::{Map, Priority};
use citybrain_shared::danger::Danger;
use citybrain_shared::event::{self, Envelope, is_attribute_name, is_attribute_value};
use citybrain_shared::limits;
use citybrain_shared::record::Draft;
use citybrain_shared::{battery, words};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

impl Ingress {
    /// A device's own format, by a `[[map]]`.
    pub(super) fn mapped(
        &self,
        p: &Publish<'_>,
        body: &Body<'_>,
        map: &Map,
        defaults: Defaults<'_>,
    ) -> Result<Draft, Refusal> {
        let bad = |reason, detail: String| Refusal::new(reason, detail, reason::PAYLOAD_FORMAT);
        let levels: Vec<&str> = p.topic.split('/').collect();
        let fill = |text| template(text, &levels, p.client);
        let named = map.kind.as_deref().map(fill);
        let is_call = named.as_deref().is_some_and(case::is_sos);
        // Where its topic alone says that somebody calls, nothing else must be read of it.
        let is_certain = map.has.is_empty() && is_call;
        let body = match body.value(map.format) {
            Ok(body) => body,
            Err((reason, wanted)) => match words::utf8(p.payload) {
                Ok("") if is_certain => Cow::Owned(Value::Null),
                Ok(text) if is_certain => Cow::Owned(text.into()),
                _ => return Err(bad(reason, format!("the map for `{}` expects {wanted}", map.filter))),
            },
        };
        let mut warned = Warned::of(&body, map);
        let kind = named.or_else(|| warned.kind().map(Cow::from)).unwrap_or("city.reading".into());
        let told = match &map.value {
            None if map.data.is_empty() => Ok(said(body.clone().into_owned(), map)),
            None => data_of(&body, map, &fill).ok_or_else(|| {
                let wanted = map.data.values().map(String::as_str).collect::<Vec<_>>().join("`, `");
                format!("the payload has nothing at `{wanted}`, the map's `data`")
            }),
            Some(pointer) => body
                .pointer(pointer)
                .map(|value| said(value.clone(), map))
                .ok_or_else(|| format!("the payload has nothing at `{pointer}`, the map's `value`")),
        };
        let mut data = match told {
            Err(_) if is_certain => body.clone().into_owned(),
            told => told.map_err(|why| bad("no-value", why))?,
        };
        if map.kind.is_some() {
            warned.add_kept_to(map, &kind, &data);
        }
        let is_there = warned.is_there();
        // A danger that nobody can read is no calm. Beside one that is there, or a call for help, it waits for nothing.
        if let Some(why) = warned.unread.take().filter(|_| !is_there && !is_call) {
            return Err(bad(UNREAD_ALARM, format!("{why}; a map's `words` say what others mean")));
        }
        warned.write(&mut data);
        if let Value::Object(all) = &mut data {
            battery::read(all);
        }
        let defaults = Defaults { urgent: defaults.urgent || is_there, ..defaults };
        let source = match &map.source {
            // A level of a topic may have what no source has.
            Some(s) => Some(fill(s)).filter(|s| event::is_source(s)).unwrap_or_else(|| percent_encode(&fill(s)).into()),
            None => percent_encode(&format!("/{}/{}", self.me, p.topic)).into(),
        };
        let is_heard = case::is_sos(&kind) || self.alarms(map, &kind);
        let id = match map.id.as_ref().and_then(|pointer| Some((pointer, body.pointer(pointer)?))) {
            None | Some((_, Value::Null)) => None,
            Some((_, Value::String(s))) if is_id(s) => Some(s.clone()),
            Some((_, Value::Number(n))) if is_exact(n) => Some(n.to_string()),
            // What is urgent is rather heard twice than never.
            Some(_) if is_heard => None,
            Some((pointer, Value::Number(n))) => return Err(bad("no-id", lossy(pointer, "id", n))),
            Some((pointer, v)) => {
                let v = v.to_string();
                let v = words::short(&v);
                return Err(bad("no-id", format!("what stands at `{pointer}`, the map's `id`, is no id: {v}")));
            }
        };
        let id = id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let mut json = serde_json::Map::new();
        let mut put = |k: &str, v: Cow<'_, str>| json.insert(k.to_owned(), Value::String(v.into_owned()));
        put("specversion", "1.0".into());
        put("id", id.into());
        put("source", source);
        put("type", kind);
        if let Some(subject) = subject_of(map, &body, &fill, p.topic, is_heard)? {
            put("subject", subject);
        }
        if let Some(pointer) = &map.time
            && let Some(value) = body.pointer(pointer).filter(|value| !value.is_null())
        {
            match time_of(value) {
                Some(time) => put("time", time.into()),
                // A clock that is not set holds no alarm up: its time is when it came.
                None if is_heard => None,
                None => {
                    let detail = format!("what stands at `{pointer}`, the map's `time`, is no time: {value}");
                    return Err(bad("bad-time", detail));
                }
            };
        }
        json.insert("data".into(), data);
        let json = serde_json::to_vec(&json).map_err(|e| bad("not-json", e.to_string()))?;
        self.event(&json, Some(p), defaults)
    }

    /// Is it what begins or ends an alarm? Of a type that is urgent by one map, what another makes is its end, and must be
    /// heard as the beginning is.
    fn alarms(&self, map: &Map, kind: &str) -> bool {
        let says_so = !map.dangers.is_empty() || Danger::promised(kind).is_some();
        says_so || self.maps.iter().any(|m| m.priority == Some(Priority::Urgent) && m.kind == map.kind)
    }

    /// What a device said on this topic as it had announced, as an event; `p`: just now.
    pub(super) fn reading(&self, topic: &str, said: Said, p: Option<&Publish<'_>>) -> Result<Draft, Refusal> {
        let json = serde_json::json!({
            "specversion": "1.0",
            "id": uuid::Uuid::now_v7().to_string(),
            "source": percent_encode(&format!("/{}/{}", self.me, topic)),
            "type": said.kind,
            "subject": said.subject,
            "data": said.data,
        });
        let defaults = Defaults { urgent: said.urgent, reach: said.reach, target: None };
        self.event(json.to_string().as_bytes(), p, defaults)
    }
}

/// An event whose type promises to say whether there is a danger, with its sender's word for that as rules look for it.
/// `None`: that stands in it already, or it promises nothing.
///
/// # Errors
/// Where nobody can read what it says; not where something in it is there, or somebody calls.
pub(super) fn as_promised(e: &Envelope<'_>, json: &[u8], defaults: Defaults<'_>) -> Result<Option<Vec<u8>>, Refusal> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let Some(danger) = Danger::promised(&e.kind) else { return Ok(None) };
    let raw = serde_json::from_slice::<Event<'_>>(json).ok().and_then(|event| event.data);
    let data = raw.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok()).unwrap_or_default();
    let mut warned = Warned::as_sent(danger, &data);
    if !Warned::is_named_in(&data) {
        warned.unread = Some(format!("it says nothing of {}", danger.name()));
    }
    let is_urgent = defaults.urgent || e.priority() == event::Priority::Urgent;
    let is_heard = || warned.is_there() || case::opens_case(&e.kind, is_urgent, json);
    if let Some(why) = warned.unread.as_ref().filter(|_| !is_heard()) {
        let why = format!("{why}; an event of type `{}` says `true` or `false` of it in its data", e.kind);
        return Err(Refusal::new(UNREAD_ALARM, why, reason::PAYLOAD_FORMAT));
    }
    let Some(raw) = raw else { return Ok(None) };
    if warned.stands_in(&data) {
        return Ok(None);
    }
    // As they stand: a number may have more digits than any of ours.
    let mut members: BTreeMap<Cow<'_, str>, Box<RawValue>> = serde_json::from_str(raw.get()).unwrap_or_default();
    for (member, is) in warned.members() {
        members.insert(member.into(), RawValue::from_string(is.to_string()).expect("`true` and `false` are JSON"));
    }
    let written =
        serde_json::to_vec(&members).map_err(|e| Refusal::new("not-json", e.to_string(), reason::PAYLOAD_FORMAT))?;
    // What was a bare word, of whatever content type, is a JSON object now.
    let changed: &[&str] = if data.is_object() { &["data"] } else { &["data", "datacontenttype"] };
    let mut event = event::rewrite(json, &[], changed)?;
    event.pop();
    event.extend_from_slice(b",\"data\":");
    event.extend_from_slice(&written);
    event.push(b'}');
    Ok(Some(event))
}

/// Whom it is about. Rules tell alarms apart by it: a device that does not say its name where the map looks for it
/// has that of its topic, and so has one that is urgent and says what can be none.
fn subject_of<'a>(
    map: &'a Map,
    body: &Value,
    fill: &dyn Fn(&'a str) -> Cow<'a, str>,
    topic: &'a str,
    is_heard: bool,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(text) = map.subject.as_deref() else { return Ok(None) };
    if !text.starts_with('/') {
        // A CloudEvents subject may be absent, not empty.
        return Ok(Some(fill(text)).filter(|subject| !subject.is_empty()));
    }
    let bad = |detail| Refusal::new("bad-attribute", detail, reason::PAYLOAD_FORMAT);
    let named = match body.pointer(text) {
        // Rounded, two devices would be one.
        Some(Value::Number(n)) if !is_exact(n) => Err(bad(lossy(text, "subject", n))),
        found => match found.and_then(scalar_text) {
            Some(name) if !is_attribute_value(&name) => {
                let detail = "has a control character or a noncharacter, which no attribute may have";
                Err(bad(format!("what stands at `{text}`, the map's `subject`, {detail}")))
            }
            name => Ok(name.map(|name| match &map.below {
                Some(base) => Cow::Owned(format!("{base}/{name}")),
                None => name.into(),
            })),
        },
    };
    match named {
        Err(refusal) if !is_heard => Err(refusal),
        Ok(Some(name)) => Ok(Some(name)),
        Ok(None) | Err(_) if is_attribute_value(topic) => Ok(Some(topic.into())),
        Ok(None) | Err(_) => Ok(Some(percent_encode(topic).into())),
    }
}

fn is_id(text: &str) -> bool {
    is_attribute_value(text) && text.len() <= limits::ID_BYTES_MAX
}

fn lossy(pointer: &str, key: &str, n: &serde_json::Number) -> String {
    format!(
        "what stands at `{pointer}`, the map's `{key}`, has more digits than a number keeps ({n}): send it as a string"
    )
}

/// RFC 3339, or seconds or milliseconds since 1970 (told apart by size: 10^11 s is the year 5138).
fn time_of(v: &Value) -> Option<String> {
    match v {
        Value::String(s) => {
            DateTime::parse_from_rfc3339(s).ok().map(|t| t.to_rfc3339_opts(SecondsFormat::AutoSi, true))
        }
        Value::Number(n) => {
            let n = n.as_f64()?;
            let ms = if n.abs() < 1e11 { n * 1000.0 } else { n };
            DateTime::<Utc>::from_timestamp_millis(ms as i64).map(|t| t.to_rfc3339_opts(SecondsFormat::Millis, true))
        }
        _ => None,
    }
}

fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => out.push(b as char),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// CloudEvents' MQTT 5 binding, binary mode: attributes are user properties without a prefix, the
/// payload is the data and its content type the data's. Bridges and libraries add properties of their own: what can be
/// no attribute by its name is none.
pub(super) fn binary_mode(p: &Publish<'_>) -> Result<Vec<u8>, Refusal> {
    let mut attributes = BTreeMap::new();
    for (name, value) in p.user_properties.iter().filter(|(name, _)| is_attribute_name(name) && *name != "data") {
        if attributes.insert(name, value).is_some() {
            let detail = format!("the user property `{}` is there twice", words::short(name));
            return Err(Refusal::new("bad-attribute", detail, reason::PAYLOAD_FORMAT));
        }
    }
    structured(attributes.into_iter(), p.content_type, p.payload)
}

/// An event whose attributes came beside its data, as one CloudEvents JSON object.
///
/// # Errors
/// When the content type says JSON and the data is none.
pub fn structured<'a>(
    attributes: impl Iterator<Item = (&'a str, &'a str)>,
    content_type: Option<&str>,
    payload: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let mut json = serde_json::Map::new();
    for (k, v) in attributes {
        json.insert(k.to_owned(), v.into());
    }
    if let Some(t) = content_type {
        json.insert("datacontenttype".into(), t.into());
    }
    let content = json.get("datacontenttype").and_then(Value::as_str).unwrap_or("application/json");
    let subtype = content.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let bad = |detail: String| Refusal::new("not-json", detail, reason::PAYLOAD_FORMAT);
    if payload.is_empty() {
    } else if subtype.ends_with("/json") || subtype.ends_with("+json") {
        // As it stands: a number may have more digits than any of ours.
        let text = words::utf8(payload).map_err(|why| bad(format!("the data is not JSON: {why}")))?;
        let data: &RawValue = serde_json::from_str(text).map_err(|e| bad(format!("the data is not JSON: {e}")))?;
        json.remove("data");
        let mut event = serde_json::to_vec(&json).map_err(|e| bad(e.to_string()))?;
        event.pop();
        event.extend_from_slice(if json.is_empty() { b"\"data\":" } else { b",\"data\":" });
        event.extend_from_slice(data.get().as_bytes());
        event.push(b'}');
        return Ok(event);
    } else if let Ok(text) = std::str::from_utf8(payload) {
        json.insert("data".into(), text.into());
    } else {
        json.insert("data_base64".into(), BASE64_STANDARD.encode(payload).into());
    }
    serde_json::to_vec(&json).map_err(|e| bad(e.to_string()))
}
