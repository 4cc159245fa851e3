//! What follows from a message: its event, the notices to those whom it concerns, and what a box that lost its disk
//! is told again.

use super::held::{Cancelled, all_within};
use super::read::{Below, Read, Words};
use super::{ANSWER, MESSAGE, NOTICE, TEST, Told, Warnings};
use citybrain_shared::record::{Direction, Draft, Header, Kind, event_key};
use citybrain_shared::{Address, Lane, Tier, limits, view};
use serde_json::json;

impl Warnings {
    /// The event of a message, and what is sent down of it; the same of each further warning.
    ///
    /// # Errors
    /// It does not fit into an event.
    pub fn drafts(&self, read: &Read, now_us: i64) -> Result<Vec<Draft>, String> {
        let mut drafts = self.drafts_of(&read.told, read, &read.told.key, now_us)?;
        for root in &read.also {
            // As it came it stands in the first.
            let told = Told { root: root.clone(), xml: String::new(), ..read.told.clone() };
            drafts.extend(self.drafts_of(&told, read, &format!("{}.also.{root}", told.key), now_us)?);
        }
        Ok(drafts)
    }

    fn drafts_of(&self, told: &Told, read: &Read, id: &str, now_us: i64) -> Result<Vec<Draft>, String> {
        let is_late = told.msg_type == "Cancel" && self.held.is_overtaken(told);
        let kind = match (told.msg_type.as_str(), told.status.as_str()) {
            ("Ack" | "Error", _) => ANSWER,
            (_, "Actual") if is_late => ANSWER,
            (_, "Actual") => MESSAGE,
            _ => TEST,
        };
        let source = source_of(told);
        let way = if self.me.tier() == Tier::City { Direction::Local } else { Direction::Up };
        let first = Event { kind, id, source: &source, way, target: "", told, now_us }.draft()?;
        let mut drafts = vec![first];
        let mut below = Told { xml: String::new(), ..told.clone() };
        for Below { node, deep, words } in read.below.iter().filter(|_| !is_late) {
            let Words { level, event, headline } = words.clone();
            (below.level, below.event, below.headline) = (level, event, headline);
            drafts.push(self.notice(&format!("{id}.for.{node}"), &reaching(node, *deep), &below, now_us)?);
        }
        Ok(drafts)
    }

    fn notice(&self, id: &str, target: &str, told: &Told, now_us: i64) -> Result<Draft, String> {
        let source = format!("/{}", self.me);
        Event { kind: NOTICE, id, source: &source, way: Direction::Down, target, told, now_us }.draft()
    }

    /// To a child whose disk is empty or older than what it knew: what is in force there, and what is cancelled, for
    /// it and for those whom it may not have told yet.
    pub(super) fn told_again(&self, child: &Address, now_us: i64) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for warning in self.held.in_force().filter(|w| w.told.expires.timestamp_micros() > now_us) {
            let nodes = all_within(child, &warning.told.nodes);
            let mut targets: Vec<(&Address, bool)> = nodes.iter().map(|node| (node, true)).collect();
            // What comes up is held by all on its way.
            if !nodes.contains(child) && warning.holders.keys().any(|node| child.covers(node)) {
                targets.push((child, false));
            }
            for (node, deep) in targets {
                // As it was known there before: who has it beside, only those above know.
                let concerns = |holder: &&Address| holder.covers(node) || node.covers(holder);
                let came_in: Vec<Address> = warning.holders.keys().filter(concerns).cloned().collect();
                if came_in.is_empty() {
                    // Whoever had told it of that has cancelled it.
                    continue;
                }
                let told = Told { came_in, ..warning.told.clone() };
                let id = format!("{}.again.{now_us:x}.for.{node}", told.key);
                drafts.extend(self.notice(&id, &reaching(node, deep), &told, now_us));
            }
        }
        // Last: what others have still is over for those who have cancelled it.
        let cancelled = self.held.cancelled().filter(|c| c.told.expires.timestamp_micros() > now_us);
        for Cancelled { told, of, .. } in cancelled {
            for node in all_within(child, of) {
                let id = format!("{}.again.{now_us:x}.for.{node}.{}", told.key, told.root);
                let told = Told { came_in: vec![node.clone()], ..told.clone() };
                drafts.extend(self.notice(&id, &reaching(&node, true), &told, now_us));
            }
        }
        drafts
    }
}

/// The node, with all below it or alone.
fn reaching(node: &Address, deep: bool) -> String {
    if deep { format!("{node}/**") } else { node.to_string() }
}

/// CloudEvents' `source` of a message: its sender, wherever it came in.
pub fn source_of(told: &Told) -> String {
    let sender = told.key.split(',').next().unwrap_or_default();
    let mut source = String::from("cap:");
    for byte in sender.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'@' | b':' | b'/' | b'.' | b'-' | b'_' => {
                source.push(byte.into())
            }
            _ => source.push_str(&format!("%{byte:02X}")),
        }
    }
    source
}

pub(super) struct Event<'a> {
    pub kind: &'a str,
    pub id: &'a str,
    pub source: &'a str,
    pub way: Direction,
    pub target: &'a str,
    pub told: &'a Told,
    pub now_us: i64,
}

impl Event<'_> {
    pub fn draft(self) -> Result<Draft, String> {
        let Event { kind, id, source, way, target, told, now_us } = self;
        let mut event = json!({
            "specversion": "1.0", "id": id, "source": source, "type": kind, "subject": told.root,
            "time": view::rfc3339(told.sent), "datacontenttype": "application/json", "data": told,
        });
        let lane = if told.urgent { Lane::Urgent } else { Lane::Routine };
        if told.urgent {
            event["priority"] = "urgent".into();
        }
        let mut header = Header { lane, direction: way, target, ..Header::local(Kind::Event, kind) };
        header.key = event_key(source, id);
        match way {
            Direction::Up => header.reach = Tier::City,
            Direction::Down => {
                event["target"] = target.into();
                event["directive"] = "notice".into();
                event["expirytime"] = view::rfc3339(told.expires).into();
                let left_ms = (told.expires.timestamp_micros() - now_us) / 1_000;
                header.ttl_ms = u32::try_from(left_ms.max(1)).unwrap_or(u32::MAX);
            }
            Direction::Local => {}
        }
        let event = event.to_string();
        if event.len() > limits::EVENT_BYTES_MAX {
            return Err(format!("as an event it has {} bytes, and {} fit", event.len(), limits::EVENT_BYTES_MAX));
        }
        Draft::new(&header, event.as_bytes()).map_err(|e| e.to_string())
    }
}
