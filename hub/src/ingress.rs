//! What came in at a door, made an event, a plain message or a dead letter.
//!
//! Devices rarely speak CloudEvents, so config's `[[map]]` tables say how a topic's messages become
//! events. Whatever fails on the way is kept as a dead letter with its reason; nothing is dropped
//! in silence, and nothing here can fail for another client.

mod discovery;
mod mapping;
#[cfg(test)]
mod presets;

use crate::door::packet::reason;
use crate::door::{Publish, Taken};
use crate::note::{DeadLetter, Note};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use chrono::{DateTime, SecondsFormat, Utc};
use citybrain_shared::address::Tier;
use citybrain_shared::case;
use citybrain_shared::config::{Config, Format, Map, Priority as ConfigPriority};
use citybrain_shared::event::{self, Envelope};
use citybrain_shared::record::{Direction, Draft, Header, Kind, event_key};
use citybrain_shared::selector::Selector;
use citybrain_shared::{Address, Lane, topic};
use discovery::{Announced, Said};
use mapping::{Body, data_of, is_exact, said, scalar_text, template};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::{PoisonError, RwLock};

/// Why something is refused.
#[derive(Debug)]
pub struct Refusal {
    /// Stable, for programs.
    pub reason: &'static str,
    pub detail: String,
    pub code: u8,
}

impl Refusal {
    fn new(reason: &'static str, detail: impl Into<String>, code: u8) -> Refusal {
        Refusal { reason, detail: detail.into(), code }
    }
}

impl From<event::Error> for Refusal {
    fn from(e: event::Error) -> Refusal {
        Refusal::new(e.reason(), e.to_string(), reason::PAYLOAD_FORMAT)
    }
}

/// An announcement of a device, for people.
#[derive(Debug)]
pub struct Announces {
    /// A line for each part that makes events.
    pub parts: Vec<String>,
    /// And for each that does not: why.
    pub left_out: Vec<String>,
}

/// What a mapping adds to the events that it makes or takes.
#[derive(Clone, Copy, Debug, Default)]
struct Defaults<'a> {
    urgent: bool,
    reach: Option<Tier>,
    target: Option<&'a str>,
}

/// Types of events that a node believes because nobody else can write them: its rules', alarms',
/// cases' and services', who left the tree, warnings by CAP, and what operators did.
const RESERVED: [&str; 7] = [
    "city.brain.alarm.",
    "city.brain.case.",
    "city.brain.node.",
    "city.brain.rule.",
    "city.brain.service.",
    "city.cap.",
    crate::operator::TYPE,
];

/// The rules of one node, from its config.
#[derive(Debug)]
pub struct Ingress {
    me: Address,
    maps: Vec<Map>,
    /// Where devices announce themselves.
    announcing: Vec<Map>,
    announced: RwLock<Announced>,
    reach: Vec<(String, Tier)>,
}

impl Ingress {
    pub fn new(config: &Config) -> Ingress {
        let reach = config.reach.iter().map(|r| (r.kind.clone(), r.tier)).collect();
        let (announcing, maps) = config.map.iter().cloned().partition(|m| m.format == Format::Discovery && !m.skip);
        let announced = RwLock::default();
        Ingress { me: config.node.address.clone(), maps, announcing, announced, reach }
    }

    /// Takes a retained message of an earlier start as what it may be: a device's announcement.
    pub fn recall(&self, topic: &str, payload: &[u8]) {
        self.announcement(topic, payload);
    }

    /// An announcement is remembered, and stays a plain message. `None`: it is none.
    fn announcement(&self, topic: &str, payload: &[u8]) -> Option<Result<discovery::Read, String>> {
        let map = self.announcing.iter().find(|m| topic::matches(&m.filter, topic))?;
        let mut announced = self.announced.write().unwrap_or_else(PoisonError::into_inner);
        let read = announced.tell(&map.filter, topic, payload, map.reach);
        drop(announced);
        match &read {
            Err(why) => tracing::info!(topic, why, "An announcement of a device is not understood."),
            Ok(Some(read)) => {
                for why in &read.left_out {
                    tracing::info!(topic, why, "A part of an announced device makes no event.");
                }
            }
            Ok(None) => {}
        }
        Some(read.map(Option::unwrap_or_default))
    }

    /// What an announcement would be taken for. `None`: nothing of this node's config reads it as one.
    ///
    /// # Errors
    /// Why it is none.
    pub fn announces(&self, topic: &str, payload: &[u8]) -> Option<Result<Announces, String>> {
        let read = self.announcement(topic, payload)?;
        Some(
            read.map(|r| Announces {
                parts: r.parts.iter().map(discovery::Part::shown).collect(),
                left_out: r.left_out,
            }),
        )
    }

    fn try_take(&self, p: &Publish<'_>) -> Result<Option<Draft>, Refusal> {
        let body = Body::new(p.payload);
        // Nothing at all, retained, is MQTT's way to take a retained message back.
        let is_removal = p.retain && p.payload.is_empty();
        if !self.announcing.is_empty() && self.announcement(p.topic, p.payload).is_some() {
            return if p.qos == 0 && !p.retain { Ok(None) } else { self.message(p).map(Some) };
        }
        let fits = |m: &&Map| topic::matches(&m.filter, p.topic) && !is_removal && body.has(m);
        if let Some(map) = self.maps.iter().find(fits) {
            if map.skip {
                return if p.qos == 0 && !p.retain { Ok(None) } else { self.message(p).map(Some) };
            }
            let defaults = Defaults {
                urgent: map.priority == Some(ConfigPriority::Urgent),
                reach: map.reach,
                target: map.target.as_deref(),
            };
            return match map.format {
                Format::Cloudevents => self.cloudevent(p, defaults),
                Format::Json | Format::Text => self.mapped(p, &body, map, defaults),
                Format::Discovery => unreachable!("`new` keeps these apart"),
            }
            .map(Some);
        }
        if !self.announcing.is_empty() {
            let announced = self.announced.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(said) = announced.said(p.topic, &body) {
                return self.reading(p, said).map(Some);
            }
        }
        match p.topic.split('/').next().unwrap_or_default() {
            "in" if is_removal => self.message(p).map(Some),
            "in" => self.cloudevent(p, Defaults::default()).map(Some).map_err(|r| match r.reason {
                "not-json" | "not-cloudevents" => Refusal {
                    detail: format!(
                        "{}; no [[map]] of this node's config has a filter for this topic, so a CloudEvents object was expected",
                        r.detail
                    ),
                    reason: if r.reason == "not-json" { "unmapped" } else { r.reason },
                    ..r
                },
                _ => r,
            }),
            first if topic::OURS.contains(&first) => Err(Refusal::new(
                "forbidden",
                "the node itself publishes below `events/`, `cmd/` and `brain/`; publish on `in/…`",
                reason::TOPIC_INVALID,
            )),
            _ if p.qos == 0 && !p.retain => Ok(None),
            _ => self.message(p).map(Some),
        }
    }

    /// A plain message: kept for whoever subscribed, and no event.
    fn message(&self, p: &Publish<'_>) -> Result<Draft, Refusal> {
        let header =
            Header { topic: p.topic, retain: p.retain, qos: p.qos, door: p.door, ..Header::local(Kind::Message, "") };
        Draft::new(&header, p.payload).map_err(|e| Refusal::new("too-large", e.to_string(), reason::TOPIC_INVALID))
    }

    /// MQTT 5 binary mode where the user properties say so, else structured JSON.
    fn cloudevent(&self, p: &Publish<'_>, defaults: Defaults<'_>) -> Result<Draft, Refusal> {
        let structured = p.content_type.is_some_and(|t| t.starts_with("application/cloudevents"));
        if !structured && p.user_properties.iter().any(|(k, _)| k == "specversion") {
            let json = binary_mode(p)?;
            return self.event(&json, Some(p), defaults);
        }
        self.event(p.payload, Some(p), defaults)
    }

    /// An event from any door: a whole CloudEvents JSON object.
    ///
    /// # Errors
    /// [`Refusal`] with the reason in the sender's words.
    pub fn accept(&self, json: &[u8]) -> Result<Draft, Refusal> {
        self.event(json, None, Defaults::default())
    }

    /// What was refused once, on its topic again and in the name of the client that had sent it; `None`: a
    /// plain message that nobody would keep.
    ///
    /// # Errors
    /// As [`Ingress::accept`].
    pub fn again(&self, client: &str, topic: &str, payload: &[u8]) -> Result<Option<Draft>, Refusal> {
        self.try_take(&Publish {
            client,
            user: "",
            topic,
            qos: 1,
            retain: false,
            payload,
            content_type: None,
            user_properties: Default::default(),
            expiry_s: None,
            door: &[],
        })
    }

    fn event(&self, json: &[u8], p: Option<&Publish<'_>>, defaults: Defaults<'_>) -> Result<Draft, Refusal> {
        let envelope = Envelope::parse(json)?;
        if envelope.id.is_some() && !envelope.has_origin {
            return self.finish(&envelope, json, p, defaults);
        }
        // Without an id it gets one; an `origin` is the node's to say, never the sender's.
        let minted = uuid::Uuid::now_v7().to_string();
        let set: &[(&str, &str)] = if envelope.id.is_none() { &[("id", &minted)] } else { &[] };
        let anew = event::rewrite(json, set, &["origin"])?;
        let envelope = Envelope::parse(&anew)?;
        self.finish(&envelope, &anew, p, defaults)
    }

    fn finish(
        &self,
        e: &Envelope<'_>,
        json: &[u8],
        p: Option<&Publish<'_>>,
        defaults: Defaults<'_>,
    ) -> Result<Draft, Refusal> {
        let target = e.target.as_deref().or(defaults.target);
        let mut header = Header::local(Kind::Event, &e.kind);
        if e.kind == crate::state::RECEIPT_TYPE {
            header.kind = Kind::Receipt;
            self.check_receipt(e, json)?;
        } else if e.kind == crate::state::PRESENCE_TYPE {
            return Err(Refusal::new("forbidden", "only a node itself tells of its presence", reason::NOT_AUTHORIZED));
        } else if RESERVED.iter().any(|prefix| e.kind.starts_with(prefix)) {
            let detail = format!("only a node itself writes events of type `{}`", e.kind);
            return Err(Refusal::new("forbidden", detail, reason::NOT_AUTHORIZED));
        }
        header.key = event_key(&e.source, e.id.as_deref().unwrap_or_default());
        if defaults.urgent || e.priority() == event::Priority::Urgent {
            header.lane = Lane::Urgent;
        }
        match target {
            Some(text) => {
                let selector = Selector::parse(text)
                    .map_err(|e| Refusal::new("bad-attribute", e.to_string(), reason::PAYLOAD_FORMAT))?;
                if !self.me.covers(&selector.root) {
                    let detail = format!(
                        "target `{text}` is not below {}; send it at a node above both, or at {} itself",
                        self.me, selector.root
                    );
                    return Err(Refusal::new("foreign-target", detail, reason::NOT_AUTHORIZED));
                }
                header.direction = Direction::Down;
                header.target = text;
            }
            None => {
                let reach = e
                    .reach()
                    .or(defaults.reach)
                    .unwrap_or_else(|| self.reach_of(&e.kind, header.lane == Lane::Urgent, json));
                if reach < self.me.tier() {
                    header.direction = Direction::Up;
                    header.reach = reach;
                }
            }
        }
        if let Some(expiry) = e.expirytime.as_deref().and_then(|t| DateTime::parse_from_rfc3339(t).ok()) {
            let left = expiry.timestamp_millis() - Utc::now().timestamp_millis();
            if left <= 0 {
                return Err(Refusal::new("expired", "its expirytime is over", reason::PAYLOAD_FORMAT));
            }
            // More than 49 days ahead it is no bound on the way, rather than one that comes too soon.
            header.ttl_ms = u32::try_from(left).unwrap_or(0);
        }
        // Subscribers of the topic get what was published, not what was made of it.
        let as_published;
        if let Some(p) = p {
            (header.topic, header.retain, header.qos, header.door) = (p.topic, p.retain, p.qos, p.door);
            if json.as_ptr() != p.payload.as_ptr() && !p.door.is_empty() {
                let what = "a payload of which a map makes an event, with its MQTT 5 properties, may have 64 KiB";
                as_published = p.door_with_payload().ok_or_else(|| Refusal::new("too-large", what, reason::QUOTA))?;
                header.door = &as_published;
            }
        }
        Draft::new(&header, json).map_err(|e| Refusal::new("too-large", e.to_string(), reason::PAYLOAD_FORMAT))
    }

    /// A receipt from outside speaks for this node only.
    fn check_receipt(&self, e: &Envelope<'_>, json: &[u8]) -> Result<(), Refusal> {
        #[derive(serde::Deserialize)]
        struct Body {
            data: crate::state::Receipt,
        }
        let bad = |detail: String| Refusal::new("bad-receipt", detail, reason::PAYLOAD_FORMAT);
        if e.correlationid.is_none() {
            return Err(bad("a receipt needs `correlationid`: the id of the directive that it answers".into()));
        }
        let body: Body = serde_json::from_slice(json).map_err(|e| {
            bad(format!("a receipt's data is {{\"node\":ADDRESS,\"status\":\"done\"|\"failed\"}}: {e}"))
        })?;
        if body.data.node != self.me {
            return Err(bad(format!("a receipt at {} cannot speak for {}", self.me, body.data.node)));
        }
        Ok(())
    }

    /// How far an event goes that does not say so itself. In one that opens a case people say who and
    /// where they are: it stays where it enters, unless config names exactly its type; what climbs is
    /// the case.
    fn reach_of(&self, kind: &str, is_urgent: bool, json: &[u8]) -> Tier {
        if case::opens_case(kind, is_urgent, json) {
            let exact = self.reach.iter().find(|(pattern, _)| pattern == kind);
            return exact.map_or(Tier::Neighbourhood, |(_, tier)| *tier);
        }
        let hit = self.reach.iter().find(|(pattern, _)| match pattern.strip_suffix('*') {
            Some(prefix) => kind.starts_with(prefix),
            None => pattern == kind,
        });
        hit.map_or(Tier::City, |(_, tier)| *tier)
    }

    /// A device's own format, by a `[[map]]`.
    fn mapped(&self, p: &Publish<'_>, body: &Body<'_>, map: &Map, defaults: Defaults<'_>) -> Result<Draft, Refusal> {
        let bad = |reason, detail: String| Refusal::new(reason, detail, reason::PAYLOAD_FORMAT);
        let body = body
            .value(map.format)
            .map_err(|(reason, wanted)| bad(reason, format!("the map for `{}` expects {wanted}", map.filter)))?;
        let levels: Vec<&str> = p.topic.split('/').collect();
        let fill = |text| template(text, &levels, p.client);
        let data = match &map.value {
            None if map.data.is_empty() => said(body.clone().into_owned(), map),
            None => data_of(&body, map, &fill).ok_or_else(|| {
                let wanted = map.data.values().map(String::as_str).collect::<Vec<_>>().join("`, `");
                bad("no-value", format!("the payload has nothing at `{wanted}`, the map's `data`"))
            })?,
            Some(pointer) => {
                let value = body.pointer(pointer).cloned().ok_or_else(|| {
                    bad("no-value", format!("the payload has nothing at `{pointer}`, the map's `value`"))
                })?;
                said(value, map)
            }
        };
        let kind = fill(map.kind.as_deref().unwrap_or("city.reading"));
        let source = match &map.source {
            Some(s) => fill(s),
            None => percent_encode(&format!("/{}/{}", self.me, p.topic)).into(),
        };
        let id = match &map.id {
            None => uuid::Uuid::now_v7().to_string(),
            Some(pointer) => match body.pointer(pointer) {
                Some(Value::String(s)) if !s.is_empty() => s.clone(),
                Some(Value::Number(n)) if is_exact(n) => n.to_string(),
                Some(Value::Number(n)) => return Err(bad("no-id", lossy(pointer, "id", n))),
                _ => return Err(bad("no-id", format!("the payload has no id at `{pointer}`, the map's `id`"))),
            },
        };
        let mut json = serde_json::Map::new();
        let mut put = |k: &str, v: Cow<'_, str>| json.insert(k.to_owned(), Value::String(v.into_owned()));
        put("specversion", "1.0".into());
        put("id", id.into());
        put("source", source);
        put("type", kind);
        match map.subject.as_deref() {
            Some(pointer) if pointer.starts_with('/') => {
                let found = body.pointer(pointer);
                // Rounded, two devices would be one.
                if let Some(n) = found.and_then(Value::as_number).filter(|n| !is_exact(n)) {
                    return Err(bad("bad-attribute", lossy(pointer, "subject", n)));
                }
                if let Some(text) = found.and_then(scalar_text) {
                    put("subject", text.into());
                }
            }
            Some(text) => match fill(text) {
                // A CloudEvents subject may be absent, not empty.
                subject if subject.is_empty() => {}
                subject => drop(put("subject", subject)),
            },
            None => {}
        }
        if let Some(pointer) = &map.time
            && let Some(value) = body.pointer(pointer)
        {
            let time = time_of(value).ok_or_else(|| {
                bad("bad-time", format!("what stands at `{pointer}`, the map's `time`, is no time: {value}"))
            })?;
            put("time", time.into());
        }
        json.insert("data".into(), data);
        let json = serde_json::to_vec(&json).map_err(|e| bad("not-json", e.to_string()))?;
        self.event(&json, Some(p), defaults)
    }
}

impl Ingress {
    /// What a device said as it had announced, as an event.
    fn reading(&self, p: &Publish<'_>, said: Said) -> Result<Draft, Refusal> {
        let json = serde_json::json!({
            "specversion": "1.0",
            "id": uuid::Uuid::now_v7().to_string(),
            "source": percent_encode(&format!("/{}/{}", self.me, p.topic)),
            "type": said.kind,
            "subject": said.subject,
            "data": said.data,
        });
        let defaults = Defaults { urgent: said.urgent, reach: said.reach, target: None };
        self.event(json.to_string().as_bytes(), Some(p), defaults)
    }
}

impl crate::door::Ingress for Ingress {
    /// Makes of a publish what the log keeps. Always answers; a refusal is a dead letter.
    fn take(&self, p: &Publish<'_>) -> Taken {
        match self.try_take(p) {
            Ok(draft) => Taken { draft, reason: reason::SUCCESS },
            Err(refusal) => {
                let via = format!("mqtt:{}", p.client);
                let letter = DeadLetter::new(refusal.reason, refusal.detail, via, p.topic, p.payload);
                Taken { draft: Some(Note::DeadLetter(letter).draft()), reason: refusal.code }
            }
        }
    }
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
/// payload is the data and its content type the data's.
fn binary_mode(p: &Publish<'_>) -> Result<Vec<u8>, Refusal> {
    structured(p.user_properties.iter(), p.content_type, p.payload)
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
        let data: &RawValue = serde_json::from_slice(payload).map_err(|e| bad(format!("the data is not JSON: {e}")))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::Ingress as _;
    use crate::door::packet::publish::Properties;

    fn ingress(extra: &str) -> Ingress {
        let text = format!("{extra}\n[node]\naddress = \"c/s\"\ndata = \"d\"\n");
        Ingress::new(&toml::from_str::<Config>(&text).unwrap())
    }

    #[test]
    fn what_may_name_a_person_stays_where_it_enters_unless_its_type_is_named() {
        let plain = ingress("");
        let reach = |of: &Ingress, kind: &str| of.reach_of(kind, false, b"{}");
        for kind in ["city.appeal", "city.sos", "city.sos.pressed.v1"] {
            assert_eq!(reach(&plain, kind), Tier::Neighbourhood, "{kind}");
        }
        for kind in ["city.sosx", "city.appeal.heating.v1"] {
            assert_eq!(reach(&plain, kind), Tier::City, "{kind} opens no case");
        }
        let says = b"{\"data\":{\"sos\":true,\"phone\":\"1\"}}";
        assert_eq!(plain.reach_of("acme.button", true, says), Tier::Neighbourhood, "what it says counts");
        assert_eq!(plain.reach_of("acme.button", false, says), Tier::City, "only what is urgent opens one");
        let wide = ingress("[[reach]]\ntype = \"city.*\"\ntier = \"street\"\n");
        assert_eq!(reach(&wide, "city.sos.pressed.v1"), Tier::Neighbourhood);
        let named = ingress("[[reach]]\ntype = \"city.sos.pressed.v1\"\ntier = \"street\"\n");
        assert_eq!(reach(&named, "city.sos.pressed.v1"), Tier::Street);
    }

    #[test]
    fn a_retained_message_below_in_can_be_taken_back() {
        let map = "[[map]]\nfilter = \"in/meter/#\"\nformat = \"text\"\ntype = \"acme.reading\"\n";
        for extra in ["", map] {
            let removal = Publish { retain: true, ..publish("in/meter/w", b"") };
            let taken = ingress(extra).take(&removal);
            let draft = taken.draft.expect("a record that removes it");
            let header = draft.header();
            assert_eq!(
                (taken.reason, header.kind, header.topic, header.retain),
                (0, Kind::Message, "in/meter/w", true)
            );
        }
    }

    #[test]
    fn a_mapped_payload_is_kept_as_it_came_or_refused() {
        let map = "[[map]]\nfilter = \"in/meter/#\"\nformat = \"text\"\ntype = \"acme.reading\"\n";
        let large = vec![b'x'; 70_000];
        let take = |n: usize| ingress(map).take(&Publish { door: &[0; 4], ..publish("in/meter/w", &large[..n]) });
        assert_eq!((take(70_000).reason, take(60_000).reason), (reason::QUOTA, 0));
    }

    fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            client: "dev",
            user: "",
            topic,
            qos: 1,
            retain: false,
            payload,
            content_type: None,
            user_properties: Default::default(),
            expiry_s: None,
            door: &[],
        }
    }

    fn letter(t: &Taken) -> DeadLetter {
        match Note::parse(t.draft.as_ref().unwrap().payload()).unwrap() {
            Note::DeadLetter(d) => d,
            other => panic!("{other:?}"),
        }
    }

    const EVENT: &[u8] = br#"{"specversion":"1.0","id":"1","source":"a","type":"lamp.failed","data":{}}"#;

    #[test]
    fn a_cloudevent_is_kept_byte_for_byte() {
        let t = ingress("").take(&publish("in/lamp", EVENT));
        let d = t.draft.unwrap();
        assert_eq!(d.payload(), EVENT);
        let h = d.header();
        assert_eq!(
            (h.kind, h.direction, h.reach, h.name, h.topic),
            (Kind::Event, Direction::Up, Tier::City, "lamp.failed", "in/lamp")
        );
        assert_eq!(h.key, event_key("a", "1"));
    }

    #[test]
    fn an_event_without_id_gets_one_and_a_false_origin_goes() {
        let json = br#"{"specversion":"1.0","source":"a","type":"t","origin":"city/of/lies"}"#;
        let d = ingress("").take(&publish("in/x", json)).draft.unwrap();
        let v: Value = serde_json::from_slice(d.payload()).unwrap();
        assert!(v["id"].as_str().unwrap().len() == 36 && v.get("origin").is_none());
    }

    #[test]
    fn rubbish_becomes_a_dead_letter_with_its_reason() {
        let i = ingress("[[map]]\nfilter = \"in/json\"\nformat = \"json\"\nvalue = \"/a\"\n");
        for (topic, payload, reason, code) in [
            ("in/x", b"hello".as_slice(), "unmapped", reason::PAYLOAD_FORMAT),
            ("in/x", b"{}", "not-cloudevents", reason::PAYLOAD_FORMAT),
            ("in/x", b"\xff\xfe", "unmapped", reason::PAYLOAD_FORMAT),
            ("in/json", b"{", "not-json", reason::PAYLOAD_FORMAT),
            ("in/json", b"{\"b\":1}", "no-value", reason::PAYLOAD_FORMAT),
            ("events/x", EVENT, "forbidden", reason::TOPIC_INVALID),
        ] {
            let t = i.take(&publish(topic, payload));
            assert_eq!((letter(&t).reason.as_str(), t.reason), (reason, code), "{topic} {payload:?}");
        }
    }

    #[test]
    fn a_device_s_own_format_becomes_an_event() {
        let i = ingress(
            "[[map]]\nfilter = \"zigbee2mqtt/+\"\nformat = \"json\"\ntype = \"city.sensor.{1}\"\nsubject = \"{2}\"\ntime = \"/ts\"\nid = \"/n\"\n\
             [[map]]\nfilter = \"meter/#\"\nformat = \"text\"\npriority = \"urgent\"\nreach = \"street\"\n",
        );
        let d = i.take(&publish("zigbee2mqtt/door", br#"{"contact":false,"ts":1700000000,"n":7}"#)).draft.unwrap();
        let v: Value = serde_json::from_slice(d.payload()).unwrap();
        assert_eq!(v["type"], "city.sensor.zigbee2mqtt");
        assert_eq!(v["subject"], "door");
        assert_eq!(v["time"], "2023-11-14T22:13:20.000Z");
        assert_eq!(v["id"], "7");
        assert_eq!(v["source"], "/c/s/zigbee2mqtt/door");
        assert_eq!(v["data"]["contact"], false);
        let d = i.take(&publish("meter/1", b" 21.5 ")).draft.unwrap();
        let v: Value = serde_json::from_slice(d.payload()).unwrap();
        assert_eq!(v["data"], 21.5);
        // This node is a street: an event that reaches the street stays.
        assert_eq!((d.header().lane, d.header().direction), (Lane::Urgent, Direction::Local));
    }

    #[test]
    fn a_number_that_would_lose_digits_names_nothing() {
        let node = ingress(
            "[[map]]\nfilter = \"a\"\nformat = \"json\"\ntype = \"t\"\nid = \"/n\"\n\
             [[map]]\nfilter = \"b\"\nformat = \"json\"\ntype = \"t\"\nsubject = \"/n\"\n\
             [[map]]\nfilter = \"c\"\nformat = \"text\"\ntype = \"t\"\n",
        );
        let long = br#"{"n":89860012345678901234}"#;
        for (topic, reason) in [("a", "no-id"), ("b", "bad-attribute")] {
            let told = letter(&node.take(&publish(topic, long)));
            assert_eq!(told.reason, reason);
            assert!(told.detail.contains("send it as a string"), "{}", told.detail);
        }
        let made = |topic, payload: &[u8]| -> Value {
            serde_json::from_slice(node.take(&publish(topic, payload)).draft.unwrap().payload()).unwrap()
        };
        assert_eq!(made("a", br#"{"n":18446744073709551615}"#)["id"], "18446744073709551615");
        assert_eq!(made("b", br#"{"n":"89860012345678901234"}"#)["subject"], "89860012345678901234");
        assert_eq!(made("c", b"89860012345678901234")["data"], "89860012345678901234");
        assert_eq!(made("c", b"21.50")["data"], 21.5);
        assert_eq!(made("c", b"-7")["data"], -7);
    }

    #[test]
    fn mqtt5_binary_mode_becomes_structured() {
        // User properties as on the wire: 0x26, then two strings.
        let mut raw = Vec::new();
        for pair in [("specversion", "1.0"), ("id", "1"), ("source", "/x"), ("type", "t"), ("subject", "二仙桥")] {
            raw.push(0x26);
            for text in [pair.0, pair.1] {
                raw.extend_from_slice(&(text.len() as u16).to_be_bytes());
                raw.extend_from_slice(text.as_bytes());
            }
        }
        let props = Properties::parse(&raw).unwrap().user();
        let p = Publish {
            content_type: Some("application/json"),
            user_properties: props,
            ..publish("in/x", b"{\"smoke\":true}")
        };
        let d = ingress("").take(&p).draft.unwrap();
        let v: Value = serde_json::from_slice(d.payload()).unwrap();
        assert_eq!((v["subject"].as_str(), v["data"]["smoke"].as_bool()), (Some("二仙桥"), Some(true)));
        let p =
            Publish { content_type: Some("image/png"), user_properties: props, ..publish("in/x", b"\xff\x00\x01\x02") };
        let v: Value = serde_json::from_slice(ingress("").take(&p).draft.unwrap().payload()).unwrap();
        assert_eq!(v["data_base64"], "/wABAg==");
    }

    #[test]
    fn a_directive_goes_only_below_its_node() {
        let with =
            |target: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"a","type":"t","target":"{target}"}}"#);
        let t = ingress("").take(&publish("in/x", with("c/s/**@neighbourhood").as_bytes()));
        assert_eq!(t.draft.unwrap().header().direction, Direction::Down);
        let t = ingress("").take(&publish("in/x", with("c/**").as_bytes()));
        assert_eq!((letter(&t).reason.as_str(), t.reason), ("foreign-target", reason::NOT_AUTHORIZED));
    }

    #[test]
    fn an_expiry_beyond_what_the_log_counts_comes_not_too_soon() {
        let ttl = |days: i64| {
            let at = (Utc::now() + chrono::TimeDelta::days(days)).to_rfc3339_opts(SecondsFormat::Millis, true);
            let json = format!(r#"{{"specversion":"1.0","id":"1","source":"a","type":"t","expirytime":"{at}"}}"#);
            ingress("").take(&publish("in/x", json.as_bytes())).draft.unwrap().header().ttl_ms
        };
        assert!((1..=86_400_000).contains(&ttl(1)));
        assert_eq!(ttl(60), 0, "it does not expire on its way");
    }

    #[test]
    fn plain_messages_stay_messages() {
        let t = ingress("").take(&publish("chat/room", b"hi"));
        assert_eq!(t.draft.unwrap().header().kind, Kind::Message);
        let t = ingress("").take(&Publish { qos: 0, ..publish("chat/room", b"hi") });
        assert!(t.draft.is_none() && t.reason == 0);
    }
}
