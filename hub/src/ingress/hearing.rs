//! What a topic retained before a device announced itself there: heard as if it came right behind the announcement.
//!
//! **Constraints**: once. A message that became an event as it came says so itself (its record has the payload as
//! published); what was heard later is noted in the group of what it became ([`Note::RetainedHeard`]). Both know what
//! was said: the same is not said again, whatever is announced anew.
//! **Operation**: gateways announce the parts of one topic one after another. A topic is heard when a second has
//! gone by since, so that all of them hear it together; what comes on it retained meanwhile takes its place.

use super::mapping::Body;
use super::{Ingress, Refusal, discovery, letter};
use crate::door::Publish;
use crate::engine::Offered;
use crate::meta::Meta;
use crate::note::Note;
use crate::state::Retained;
use citybrain_shared::words;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use xxhash_rust::xxh3::xxh3_64;

/// Topics that are heard at a time.
const TOPICS_AT_ONCE: usize = 256;

impl Ingress {
    /// Takes what is retained at a start: announcements hold again, and what nobody has heard yet is to be heard.
    pub fn recall(&self, retained: &BTreeMap<String, Retained>) {
        for (topic, kept) in retained {
            self.announcement(topic, &kept.payload);
        }
        let is_new = |topic: &str| retained.get(topic).is_some_and(|kept| said_before(kept).is_none());
        self.announced.write().unwrap_or_else(PoisonError::into_inner).unheard.retain(|topic, _| is_new(topic));
    }

    /// What came retained is the topic's now, and is heard as it comes.
    pub(super) fn replaced(&self, topic: &str) {
        let is_awaited = self.announced.read().unwrap_or_else(PoisonError::into_inner).unheard.contains_key(topic);
        if is_awaited {
            self.announced.write().unwrap_or_else(PoisonError::into_inner).unheard.remove(topic);
        }
    }

    pub(super) fn due(&self) -> Vec<String> {
        let mut announced = self.announced.write().unwrap_or_else(PoisonError::into_inner);
        let due = announced.unheard.iter().filter(|(_, is_due)| **is_due).map(|(topic, _)| topic.clone());
        let due = due.take(TOPICS_AT_ONCE).collect();
        announced.unheard.values_mut().for_each(|is_due| *is_due = true);
        due
    }

    pub(super) fn have_been_heard(&self, topics: &[String]) {
        let mut announced = self.announced.write().unwrap_or_else(PoisonError::into_inner);
        for topic in topics {
            // Not one that was announced anew meanwhile.
            if announced.unheard.get(topic) == Some(&true) {
                announced.unheard.remove(topic);
            }
        }
    }

    pub(super) fn heard_of(&self, topic: &str, kept: &Retained) -> Vec<Offered> {
        let meta = Meta::decode(&kept.door);
        let payload = meta.payload.unwrap_or(&kept.payload);
        let text = words::utf8(payload).is_err().then(|| words::readable(payload));
        let payload = text.as_ref().map_or(payload, |text| text.as_bytes());
        let client = String::from_utf8_lossy(meta.client);
        let p = Publish::plain(&client, topic, payload);
        let body = Body::new(payload);
        if self.map_of(&p, &body).is_some() {
            return Vec::new();
        }
        let announced = self.announced.read().unwrap_or_else(PoisonError::into_inner);
        let discovery::Heard { said, unread } = announced.heard(topic, &body);
        drop(announced);
        let event = said.map(|said| self.reading(topic, said, None));
        let unread = unread.map(|(reason, why)| Err(Refusal::unreadable(reason, why)));
        let drafts = event.into_iter().chain(unread).map(|made| made.unwrap_or_else(|refusal| letter(refusal, &p)));
        let mut all: Vec<Offered> = drafts.map(Offered::from).collect();
        if let Some(first) = all.first_mut() {
            let said = print_of(first.draft.payload());
            if said_before(kept) == Some(said) {
                return Vec::new();
            }
            first.with = Some(Note::RetainedHeard { topic: topic.to_owned(), pos: kept.pos, said }.draft());
        }
        all
    }
}

/// What a retained message has become already.
fn said_before(kept: &Retained) -> Option<u64> {
    let as_it_came = || Meta::decode(&kept.door).payload.map(|_| print_of(&kept.payload));
    kept.heard.or_else(as_it_came)
}

/// What an event says, whatever its id; or a dead letter.
fn print_of(json: &[u8]) -> u64 {
    let mut said: Map<String, Value> = serde_json::from_slice(json).unwrap_or_default();
    said.remove("id");
    xxh3_64(Value::from(said).to_string().as_bytes())
}
