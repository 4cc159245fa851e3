//! The records of one group, as rules write them.

use super::expression::Facts;
use super::fold::HOPS;
use super::said::FIRED;
use citybrain_shared::record::{Direction, Draft, Header, Kind, event_key};
use citybrain_shared::{Address, Lane, limits, view};
use serde_json::{Map, Value as Json, json};

/// Characters of a title or a shown value: enough for people, whatever an event holds.
pub const TEXT_MAX: usize = 300;

/// A CloudEvents object.
pub type Event = Map<String, Json>;

pub struct Drafts<'a> {
    me: &'a Address,
    now: i64,
    all: Vec<Draft>,
}

/// A word downward: what differs of it.
pub struct Directive<'a> {
    pub kind: &'a str,
    /// `command` or `notice`.
    pub word: &'a str,
    pub target: &'a str,
    pub subject: Option<String>,
    pub ttl_ms: u32,
    pub urgent: bool,
}

impl<'a> Drafts<'a> {
    pub fn new(me: &'a Address, now: i64) -> Drafts<'a> {
        Drafts { me, now, all: Vec::new() }
    }

    pub fn into_all(self) -> Vec<Draft> {
        self.all
    }

    pub fn bytes(&self) -> usize {
        self.all.iter().map(|d| d.bytes().len()).sum()
    }

    /// Unique on this node: a group is written in well over a microsecond.
    pub fn id(&self, what: &str) -> String {
        format!("{what}-{:x}-{}", self.now, self.all.len())
    }

    pub fn event(&self, kind: &str, id: &str, data: Json, hops: u64) -> Event {
        let event = json!({
            "specversion": "1.0", "id": id, "source": format!("/{}", self.me), "type": kind,
            "time": view::rfc3339(view::time_of(self.now)), "datacontenttype": "application/json", "data": data,
        });
        let Json::Object(mut event) = event else { return Map::new() };
        if hops > 0 {
            event.insert(HOPS.into(), hops.into());
        }
        event
    }

    /// A template that made a type of 64 KiB: nothing can be done with it, and nothing is written.
    pub fn push(&mut self, header: Header<'_>, event: &Event) {
        self.all.extend(draft(header, event));
    }

    pub fn push_down(&mut self, directive: Directive<'_>, data: Json, hops: u64) {
        let Directive { kind, word, target, subject, ttl_ms, urgent } = directive;
        let mut event = self.event(kind, &self.id(word), data, hops);
        if let Some(subject) = subject {
            event.insert("subject".into(), subject.into());
        }
        event.insert("target".into(), target.into());
        event.insert("directive".into(), word.into());
        prioritise(&mut event, urgent);
        if ttl_ms > 0 {
            let until = view::time_of(self.now + i64::from(ttl_ms) * 1000);
            event.insert("expirytime".into(), view::rfc3339(until).into());
        }
        let header = Header { lane: lane(urgent), direction: Direction::Down, target, ttl_ms, ..header(kind) };
        self.push(header, &event);
    }
}

/// Of an event that stays here; the caller sets what differs.
pub fn header(kind: &str) -> Header<'_> {
    Header::local(Kind::Event, kind)
}

pub fn draft(header: Header<'_>, event: &Event) -> Option<Draft> {
    let (id, source) = (event["id"].as_str().unwrap_or_default(), event["source"].as_str().unwrap_or_default());
    let mut payload = serde_json::to_vec(event).expect("a JSON value always serialises");
    if payload.len() > limits::EVENT_BYTES_MAX && header.name != FIRED {
        // Larger than an event may be: a template took a whole event in, and added to it.
        let small = event.iter().filter(|(name, _)| *name != "data").map(|(n, v)| (n.clone(), v.clone()));
        payload = serde_json::to_vec(&small.collect::<Event>()).expect("a JSON value always serialises");
    }
    Draft::new(&Header { key: event_key(source, id), ..header }, &payload).ok()
}

pub fn prioritise(event: &mut Event, urgent: bool) {
    if urgent {
        event.insert("priority".into(), "urgent".into());
    }
}

/// What it follows from.
pub fn link(event: &mut Event, facts: &Facts) {
    for (name, from) in [("causationid", "id"), ("correlationid", "correlationid"), ("traceparent", "traceparent")] {
        if let Some(value) = facts.json.get(from).filter(|v| v.is_string()) {
            event.insert(name.into(), value.clone());
        }
    }
}

pub fn lane(urgent: bool) -> Lane {
    if urgent { Lane::Urgent } else { Lane::Routine }
}

pub fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((i, _)) => format!("{}…", &text[..i]),
        None => text,
    }
}
