//! What becomes of what is offered: known already or new, and all that follows from it in the same group.

use super::worker::Engine;
use super::{Error, Outcome, Settled, receipts};
use crate::log::{self, Reader};
use crate::meta::{self, Meta};
use crate::note::{DeadLetter, Note};
use crate::operator;
use crate::state::{RETIRED_TYPE, RETURNED_TYPE, State, class};
use citybrain_shared::record::{Direction, Draft, Header, Kind};
use citybrain_shared::selector::Selector;
use citybrain_shared::words::with_causes;
use citybrain_shared::{Pos, event, limits};

impl Engine {
    pub(super) fn settle_letter(
        &mut self,
        state: &mut State,
        letter: Pos,
        draft: Option<(Draft, Option<Pos>)>,
        mut extra: Vec<Draft>,
        now: i64,
    ) -> Settled {
        if !state.dead_letters.contains_key(&letter) {
            return Settled::NotOpen;
        }
        extra.insert(0, Note::DeadLetterClosed { pos: letter, retried: draft.is_some() }.draft());
        let Some((draft, known)) = draft else {
            self.append(state, extra, now);
            return Settled::Closed;
        };
        Settled::Taken(self.decide_offer(state, draft, known, extra, now))
    }

    /// Where an event that is offered is already.
    pub(super) fn known(&self, draft: &Draft) -> Result<Option<Pos>, Error> {
        let (header, payload) = draft.parts();
        if header.key == 0 { Ok(None) } else { self.find_same(header.key, payload) }
    }

    /// `known`: where the log has it. `extra` is recorded with it, in its group, also when it is a
    /// duplicate; of that also what it changes on its topic.
    pub(super) fn decide_offer(
        &mut self,
        state: &mut State,
        draft: Draft,
        known: Option<Pos>,
        mut extra: Vec<Draft>,
        now: i64,
    ) -> Outcome {
        let key = draft.header().key;
        if key != 0 {
            // Those of its own offer are not in the log yet.
            if let Some(pos) = known.or_else(|| self.fresh_keys.get(&key).copied()) {
                state.count_repeated();
                if let Some(message) = retained_again(state, &draft) {
                    extra.insert(0, message);
                }
                if !extra.is_empty() {
                    self.append(state, extra, now);
                }
                return Outcome::Duplicate(pos);
            }
            self.fresh_keys.insert(key, state.applied.next());
        }
        let mut group = vec![draft];
        self.follow(state, &mut group, now);
        group.extend(extra);
        Outcome::Committed(self.append(state, group, now))
    }

    /// Adds this node's receipts for drafts that are for itself, and what the policy makes of the
    /// drafts, and of what it makes of them.
    pub(super) fn follow(&self, state: &State, group: &mut Vec<Draft>, now: i64) {
        let mut from = 0;
        for depth in 0..=crate::policy::DEPTH_MAX {
            let mut next = Vec::new();
            for draft in &group[from..] {
                let (header, payload) = draft.parts();
                if header.direction == Direction::Down {
                    next.extend(self.receipt_for(&header, payload, header.ttl_ms));
                }
                next.extend(decided(state, now, &header, payload));
            }
            if next.is_empty() {
                return;
            }
            if depth == crate::policy::DEPTH_MAX {
                tracing::error!(drafts = next.len(), "Decisions go in a circle; the deepest were left out.");
                return;
            }
            from = group.len();
            group.append(&mut next);
        }
    }

    /// Where the event of this payload is, in the log or in the batch that is being decided.
    ///
    /// # Errors
    /// [`Error::Unwritable`] when the log cannot be read: then nobody knows whether the event is new.
    pub(super) fn find_same(&self, key: u64, payload: &[u8]) -> Result<Option<Pos>, Error> {
        if let Some(pos) = self.fresh_keys.get(&key) {
            // Two events of one batch whose 64-bit hashes meet by chance: 10^-13 for 1,000 events.
            return Ok(Some(*pos));
        }
        find_event(&self.log.reader(), key, payload)
            .map_err(|e| Error::Unwritable(format!("what is there already cannot be read: {}", with_causes(&e))))
    }

    /// A downward event that is for this node is answered in the commit that takes it.
    pub(super) fn receipt_for(&self, header: &Header<'_>, payload: &[u8], ttl_ms: u32) -> Option<Draft> {
        let selector = Selector::parse(header.target).ok()?;
        if !selector.matches(&self.me, &self.labels) {
            return None;
        }
        receipts::automatic(&self.me, header, payload, ttl_ms)
    }
}

/// Where the log has an event with this key and, indeed, this payload's source and id. Where that record is
/// damaged the key alone says so: two events share one by chance of 2^-64.
///
/// # Errors
/// The log does not read.
pub fn find_event(reader: &Reader, key: u64, payload: &[u8]) -> Result<Option<Pos>, log::Error> {
    let Some(pos) = reader.find(key)? else { return Ok(None) };
    let entry = match reader.get(pos) {
        Ok(Some(entry)) => entry,
        Ok(None) => return Ok(None), // trimmed meanwhile
        Err(log::Error::Damaged { .. }) => return Ok(Some(pos)),
        Err(e) => return Err(e),
    };
    let same = Header::decode(&entry.bytes).is_ok_and(|(_, known)| {
        let (a, b) = (event::identity(known), event::identity(payload));
        matches!((a, b), (Ok(a), Ok(b)) if (&a.source, &a.id) == (&b.source, &b.id))
    });
    Ok(same.then_some(pos))
}

/// An event that is known, published as one to be retained: the plain message that its topic then keeps, and its
/// subscribers get ([MQTT-3.3.1-5]). `None` where the topic keeps just that already, as after an acknowledgement
/// that was lost; a message that expires is kept for longer by each time that it is said.
fn retained_again(state: &State, draft: &Draft) -> Option<Draft> {
    let (header, payload) = draft.parts();
    if !header.retain {
        return None;
    }
    let said = Meta::decode(header.door);
    let payload = said.payload.unwrap_or(payload);
    let is_kept = state.retained.get(header.topic).is_some_and(|r| {
        let kept = Meta::decode(&r.door);
        let is_same = kept.payload.unwrap_or(&r.payload) == payload && kept.forwarded == said.forwarded;
        is_same && r.qos == header.qos && kept.expiry_s.or(said.expiry_s).is_none()
    });
    if is_kept {
        return None;
    }
    let door = meta::without_payload(header.door);
    let (topic, qos) = (header.topic, header.qos);
    let message = Header { topic, qos, retain: true, door: &door, ..Header::local(Kind::Message, "") };
    // What its event's header had room for.
    Draft::new(&message, payload).ok()
}

/// What makes room: the event that a child is gone for good, and holds the log no more; what an operator
/// does about it, which is recorded first; and a note of who has what, which the door offers in its order
/// between publishes. Nobody outside can send one.
pub(super) fn lets_log_go(draft: &Draft) -> bool {
    let header = draft.header();
    if header.kind == Kind::Note {
        return Note::parse(draft.payload()).is_ok_and(|note| note.lets_go());
    }
    header.origin.is_none() && [RETIRED_TYPE, RETURNED_TYPE, operator::TYPE].contains(&header.name)
}

/// What the policy makes of a record.
pub(super) fn decided(state: &State, now: i64, header: &Header<'_>, payload: &[u8]) -> Vec<Draft> {
    let mut drafts = state.policy.decide(state, now, header, payload);
    drafts.iter_mut().for_each(park_if_unfit);
    drafts
}

/// A rule makes types and texts of whatever came in. A type that is no topic would end the connections of
/// those who get it, and what is larger than a record has no place in the log.
pub(super) fn park_if_unfit(draft: &mut Draft) {
    let (header, payload) = draft.parts();
    let (reason, detail) = if draft.bytes().len() > limits::RECORD_BYTES_MAX {
        (
            "too-large",
            format!(
                "a rule made a record of {} bytes; the log takes {}",
                draft.bytes().len(),
                limits::RECORD_BYTES_MAX
            ),
        )
    } else if header.kind.is_event() && !event::is_type(header.name) {
        (
            "bad-attribute",
            "a rule made an event whose type is none: at most 255 bytes and none of `+`, `#`, `/` and space".into(),
        )
    } else {
        return;
    };
    *draft = Note::DeadLetter(DeadLetter::new(reason, detail, "policy", "", payload)).draft();
}

/// Sets the times, and counts the upward records that begin here.
pub(super) fn stamp(state: &State, drafts: &mut [Draft], now: i64) {
    let mut seqs = state.me.seqs;
    for draft in drafts {
        let header = draft.header();
        let mut seq = 0;
        if header.origin.is_none() && header.direction == Direction::Up {
            let place = &mut seqs[class(header.lane, header.reach) as usize];
            *place += 1;
            seq = *place;
        }
        draft.stamp(now, seq);
    }
}
