//! What came in at a door, made an event, a plain message or a dead letter.
//!
//! Devices rarely speak CloudEvents, so config's `[[map]]` tables say how a topic's messages become
//! events. Whatever fails on the way is kept as a dead letter with its reason; nothing is dropped
//! in silence, and nothing here can fail for another client.
//!
//! What is no UTF-8 is neither JSON nor text: an event is refused, unless it is urgent or opens a case. That, and
//! whatever a device says in a format of its own, is taken with what does not read marked in it.

mod discovery;
mod hearing;
mod making;
mod mapping;
#[cfg(test)]
mod tests;

pub use making::structured;

use crate::door::packet::reason;
use crate::door::{Publish, Taken};
use crate::engine::{self, Offered};
use crate::log::Reader;
use crate::note::reason::UNREAD_ALARM;
use crate::note::{DeadLetter, Note};
use crate::state::Retained;
use chrono::{DateTime, Utc};
use citybrain_shared::address::Tier;
use citybrain_shared::case;
use citybrain_shared::config::{Config, Format, Map, Priority as ConfigPriority};
use citybrain_shared::danger::Danger;
use citybrain_shared::event::{self, Envelope};
use citybrain_shared::record::{Direction, Draft, Header, Kind, event_key};
use citybrain_shared::selector::Selector;
use citybrain_shared::{Address, Lane, topic, words};
use discovery::Announced;
use making::binary_mode;
use mapping::Body;
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

    fn unreadable(reason: &'static str, detail: String) -> Refusal {
        Refusal::new(reason, detail, reason::PAYLOAD_FORMAT)
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

/// What is made of a publish.
#[derive(Default)]
struct Made {
    /// `None`: it only goes to those who are there.
    draft: Option<Draft>,
    /// What else is in it, that may warn or call for help and that nobody here can read.
    unheard: Option<Refusal>,
}

impl From<Option<Draft>> for Made {
    fn from(draft: Option<Draft>) -> Made {
        Made { draft, unheard: None }
    }
}

/// What a mapping adds to the events that it makes or takes.
#[derive(Clone, Copy, Debug, Default)]
struct Defaults<'a> {
    urgent: bool,
    reach: Option<Tier>,
    target: Option<&'a str>,
}

/// The rules of one node, from its config.
pub struct Ingress {
    me: Address,
    maps: Vec<Map>,
    /// Where devices announce themselves.
    announcing: Vec<Map>,
    announced: RwLock<Announced>,
    reach: Vec<(String, Tier)>,
    /// What was taken before, to know it again.
    taken: Option<Reader>,
}

impl Ingress {
    /// As it is without a log: nothing was taken before.
    pub fn new(config: &Config) -> Ingress {
        let reach = config.reach.iter().map(|r| (r.kind.clone(), r.tier)).collect();
        let (announcing, maps) = config.map.iter().cloned().partition(|m| m.format == Format::Discovery && !m.skip);
        let announced = RwLock::default();
        Ingress { me: config.node.address.clone(), maps, announcing, announced, reach, taken: None }
    }

    /// Behind this log.
    pub fn before(self, log: Reader) -> Ingress {
        Ingress { taken: Some(log), ..self }
    }

    /// The map by which devices announce themselves on this topic.
    fn announced_by(&self, topic: &str) -> Option<&Map> {
        self.announcing.iter().find(|m| topic::matches(&m.filter, topic))
    }

    /// An announcement is remembered, and stays a plain message; one that does not read is refused, and what was
    /// announced before it holds. `None`: it is none; in it: it is nothing new.
    fn announcement(&self, topic: &str, payload: &[u8]) -> Option<Result<Option<discovery::Read>, Refusal>> {
        let map = self.announced_by(topic)?;
        let text = words::utf8(payload).is_err().then(|| words::readable(payload));
        let payload = text.as_ref().map_or(payload, |text| text.as_bytes());
        let mut announced = self.announced.write().unwrap_or_else(PoisonError::into_inner);
        let read = announced.tell(&map.filter, topic, payload, map.reach);
        drop(announced);
        for why in read.iter().flatten().flat_map(|read| &read.left_out) {
            tracing::info!(topic, why, "A part of an announced device makes no event.");
        }
        let bad =
            |why| Refusal::new("bad-announcement", format!("it announces nothing: {why}"), reason::PAYLOAD_FORMAT);
        Some(read.map_err(bad))
    }

    /// What of the announcement that holds on this topic may warn or call for help, and cannot be followed.
    fn lost(&self, topic: &str) -> Option<Refusal> {
        let announced = self.announced.read().unwrap_or_else(PoisonError::into_inner);
        let why = announced.lost(topic)?;
        Some(Refusal::new("bad-announcement", format!("not all of it is heard: {why}"), reason::PAYLOAD_FORMAT))
    }

    /// What an announcement would be taken for. `None`: nothing of this node's config reads it as one.
    ///
    /// # Errors
    /// Why it is none.
    pub fn announces(&self, topic: &str, payload: &[u8]) -> Option<Result<Announces, Refusal>> {
        let read = self.announcement(topic, payload)?;
        Some(read.map(Option::unwrap_or_default).map(|r| Announces {
            parts: r.parts.iter().filter(|part| !part.is_lost()).map(discovery::Part::shown).collect(),
            left_out: r.left_out,
        }))
    }

    fn try_take(&self, p: &Publish<'_>) -> Result<Made, Refusal> {
        if p.retain {
            self.replaced(p.topic);
        }
        match self.announcement(p.topic, p.payload) {
            Some(Ok(read)) => Ok(Made { draft: self.plain(p)?, unheard: read.and_then(|_| self.lost(p.topic)) }),
            Some(Err(refusal)) => Err(refusal),
            None => self.draft_of(p),
        }
    }

    /// What is made of a publish that announces nothing. What a device says in a format of its own is read as a text,
    /// whatever its encoding: the end of an alarm must be heard as its beginning is. Of events that come as such only
    /// what is urgent or opens a case is: whoever sends another hears of the refusal.
    fn draft_of(&self, p: &Publish<'_>) -> Result<Made, Refusal> {
        let as_sent = self.made_of(p);
        if words::utf8(p.payload).is_ok() || must_be_heard(&as_sent) || !self.is_read(p.topic) {
            return as_sent;
        }
        let text = words::readable(p.payload);
        let marked = Publish { payload: text.as_bytes(), ..*p };
        let mended = self.made_of(&marked);
        if must_be_heard(&mended) || self.is_own_format(&marked) { mended } else { as_sent }
    }

    /// Does anything here look into what comes on this topic? Else it is bytes, as pictures are.
    fn is_read(&self, topic: &str) -> bool {
        let is_mapped = || self.maps.iter().any(|m| !m.skip && topic::matches(&m.filter, topic));
        let is_announced = || self.announced.read().unwrap_or_else(PoisonError::into_inner).is_told_on(topic);
        topic.split('/').next() == Some("in") || is_mapped() || is_announced()
    }

    /// Is it what a `[[map]]` makes an event of, or what was announced?
    fn is_own_format(&self, p: &Publish<'_>) -> bool {
        let body = Body::new(p.payload);
        match self.map_of(p, &body) {
            Some(map) => !map.skip && map.format != Format::Cloudevents,
            None => {
                let announced = self.announced.read().unwrap_or_else(PoisonError::into_inner);
                announced.heard(p.topic, &body).said.is_some()
            }
        }
    }

    /// The first map that fits.
    fn map_of(&self, p: &Publish<'_>, body: &Body<'_>) -> Option<&Map> {
        if is_removal(p) {
            return None;
        }
        // What does not read tells of no danger; it is refused where one is looked for rather than passed over, or taken
        // for a reading by an entry for whatever else there is.
        let mut unread: Option<&Map> = None;
        for map in self.maps.iter().filter(|m| topic::matches(&m.filter, p.topic)) {
            if body.has(map) && body.warns(map) {
                return unread.filter(|before| is_for_the_rest(map, before)).or(Some(map));
            }
            if map.has.is_empty() && map.is_told_by_dangers() && !body.reads(map.format) {
                unread = unread.or(Some(map));
            }
        }
        unread
    }

    fn made_of(&self, p: &Publish<'_>) -> Result<Made, Refusal> {
        let body = Body::new(p.payload);
        if let Some(map) = self.map_of(p, &body) {
            let made = self.made_by(map, p, &body);
            let is_unread = |made: &Result<Made, Refusal>| made.as_ref().is_err_and(|r| r.reason == UNREAD_ALARM);
            // A danger, or a call, that any other reads for certain goes before a word that this one cannot read.
            let others = || self.maps.iter().filter(|m| !m.skip && topic::matches(&m.filter, p.topic) && body.has(m));
            let heard = || others().map(|other| self.made_by(other, p, &body)).find(must_be_heard);
            return if is_unread(&made) { heard().unwrap_or(made) } else { made };
        }
        if !self.announcing.is_empty() {
            let announced = self.announced.read().unwrap_or_else(PoisonError::into_inner);
            let discovery::Heard { said, unread } = announced.heard(p.topic, &body);
            let unheard = unread.map(|(reason, why)| Refusal::unreadable(reason, why));
            // What another part of it has said is heard all the same.
            match (said, unheard) {
                (Some(said), unheard) => {
                    return Ok(Made { draft: Some(self.reading(p.topic, said, Some(p))?), unheard });
                }
                (None, Some(refusal)) => return Err(refusal),
                (None, None) => {}
            }
        }
        let draft = match p.topic.split('/').next().unwrap_or_default() {
            "in" if is_removal(p) => self.message(p).map(Some),
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
            _ => self.plain(p),
        };
        draft.map(Made::from)
    }

    fn made_by(&self, map: &Map, p: &Publish<'_>, body: &Body<'_>) -> Result<Made, Refusal> {
        if map.skip {
            return self.plain(p).map(Made::from);
        }
        let defaults = Defaults {
            urgent: map.priority == Some(ConfigPriority::Urgent),
            reach: map.reach,
            target: map.target.as_deref(),
        };
        let draft = match map.format {
            Format::Cloudevents => self.cloudevent(p, defaults),
            Format::Json | Format::Text => self.mapped(p, body, map, defaults),
            Format::Discovery => unreachable!("`new` keeps these apart"),
        };
        draft.map(|draft| Some(draft).into())
    }

    /// No event; `None`: it only goes to those who are there.
    fn plain(&self, p: &Publish<'_>) -> Result<Option<Draft>, Refusal> {
        if p.qos == 0 && !p.retain { Ok(None) } else { self.message(p).map(Some) }
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
            return self.sent(&json, Some(p), defaults);
        }
        self.sent(p.payload, Some(p), defaults)
    }

    /// An event from any door: a whole CloudEvents JSON object.
    ///
    /// # Errors
    /// [`Refusal`] with the reason in the sender's words.
    pub fn accept(&self, json: &[u8]) -> Result<Draft, Refusal> {
        let mended = case::mended(json);
        let json = mended.as_ref().map_or(json, |text| text.as_bytes());
        self.sent(json, None, Defaults::default())
    }

    /// What was refused once, on its topic again and in the name of the client that had sent it; `None`: a
    /// plain message that nobody would keep.
    ///
    /// # Errors
    /// As [`Ingress::accept`].
    pub fn again(&self, client: &str, topic: &str, payload: &[u8]) -> Result<Option<Draft>, Refusal> {
        let made = self.try_take(&Publish::plain(client, topic, payload))?;
        made.unheard.or_else(|| self.lost(topic)).map_or(Ok(made.draft), Err)
    }

    /// An event that came as such: its bytes are the sender's, but for what its type promises to say of a danger.
    fn sent(&self, json: &[u8], p: Option<&Publish<'_>>, defaults: Defaults<'_>) -> Result<Draft, Refusal> {
        let envelope = Envelope::parse(json)?;
        match making::as_promised(&envelope, json, defaults)? {
            Some(json) => self.event(&json, p, defaults),
            None => self.entered(&envelope, json, p, defaults),
        }
    }

    fn event(&self, json: &[u8], p: Option<&Publish<'_>>, defaults: Defaults<'_>) -> Result<Draft, Refusal> {
        self.entered(&Envelope::parse(json)?, json, p, defaults)
    }

    fn entered(
        &self,
        envelope: &Envelope<'_>,
        json: &[u8],
        p: Option<&Publish<'_>>,
        defaults: Defaults<'_>,
    ) -> Result<Draft, Refusal> {
        let has_id = envelope.id.is_some() && !p.is_some_and(|p| p.is_will);
        if has_id && !envelope.has_origin {
            return self.finish(envelope, json, p, defaults);
        }
        // Without an id it gets one; an `origin` is the node's to say, never the sender's.
        let minted = uuid::Uuid::now_v7().to_string();
        let set: &[(&str, &str)] = if has_id { &[] } else { &[("id", &minted)] };
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
        } else if event::is_reserved(&e.kind) {
            let detail = format!("only a node itself writes events of type `{}`", e.kind);
            return Err(Refusal::new("forbidden", detail, reason::NOT_AUTHORIZED));
        }
        header.key = event_key(&e.source, e.id.as_deref().unwrap_or_default());
        if defaults.urgent || e.priority() == event::Priority::Urgent || case::is_sos(&e.kind) {
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
            if left <= 0 && !self.may_be_taken(&header, json) {
                return Err(Refusal::new("expired", "its expirytime is over", reason::PAYLOAD_FORMAT));
            }
            // More than 49 days ahead it is no bound on the way, rather than one that comes too soon.
            header.ttl_ms = u32::try_from(left.max(1)).unwrap_or(0);
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

    /// May the log have it? Whoever sends it again because no answer came is then told of that, and not that it is too
    /// late: the engine looks for it again, and takes nothing where the log does not read.
    fn may_be_taken(&self, header: &Header<'_>, json: &[u8]) -> bool {
        let find = |log| engine::find_event(log, header.key, json).map_or(true, |known| known.is_some());
        self.taken.as_ref().is_some_and(find)
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
}

/// Does an entry take readings of all that one before it has left?
fn is_for_the_rest(map: &Map, before: &Map) -> bool {
    let tells = |kind: &str| case::is_sos(kind) || Danger::promised(kind).is_some();
    !map.skip && topic::covers(&map.filter, &before.filter) && !map.kinds().into_iter().any(tells)
}

/// Nothing at all, retained, is MQTT's way to take a retained message back.
fn is_removal(p: &Publish<'_>) -> bool {
    p.retain && p.payload.is_empty()
}

fn letter(refusal: Refusal, p: &Publish<'_>) -> Draft {
    let via = format!("mqtt:{}", p.client);
    Note::DeadLetter(DeadLetter::new(refusal.reason, refusal.detail, via, p.topic, p.payload)).draft()
}

fn must_be_heard(made: &Result<Made, Refusal>) -> bool {
    let Ok(Made { draft: Some(draft), .. }) = made else { return false };
    let (header, payload) = draft.parts();
    header.lane == Lane::Urgent || header.kind == Kind::Event && case::opens_case(header.name, false, payload)
}

impl crate::door::Ingress for Ingress {
    /// Makes of a publish what the log keeps. Always answers; a refusal is a dead letter.
    fn take(&self, p: &Publish<'_>) -> Taken {
        match self.try_take(p) {
            Ok(made) => {
                let beside = made.unheard.map(|refusal| letter(refusal, p));
                Taken { draft: made.draft, beside, reason: reason::SUCCESS }
            }
            Err(refusal) => {
                let reason = refusal.code;
                Taken { draft: Some(letter(refusal, p)), beside: None, reason }
            }
        }
    }

    fn is_urgent(&self, p: &Publish<'_>) -> bool {
        self.announced_by(p.topic).is_none()
            && matches!(self.draft_of(p), Ok(Made { draft: Some(draft), .. }) if draft.header().lane == Lane::Urgent)
    }

    fn unheard(&self) -> Vec<String> {
        self.due()
    }

    fn hear(&self, topic: &str, kept: &Retained) -> Vec<Offered> {
        self.heard_of(topic, kept)
    }

    fn have_heard(&self, topics: &[String]) {
        self.have_been_heard(topics);
    }
}
