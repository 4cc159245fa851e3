//! Packet ids of QoS 2 messages of no record: retained ones that a subscription brings.
//!
//! Nothing else tells what was sent under such an id, and the client keeps it until its PUBREL: another
//! message under it would be taken for a repetition, and be lost. So the log has an id before its PUBLISH goes
//! out, and the next connection releases it, whatever ended this one. Records never have these ids.

use super::Delivery;
use crate::door::message::Item;
use crate::door::window::LOOSE_IDS;
use crate::engine::Haste;
use citybrain_shared::Pos;

#[derive(Debug, Default)]
pub(super) struct Loose {
    /// As the log has them: all that are under way, and some that may be used.
    noted: Vec<u16>,
    /// The note that is on its way.
    noting: Option<Vec<u16>>,
    /// A message waits for the log to have its id.
    waits: bool,
    /// The last note could not be written. Tried again when the connection is idle: while the disk is full, at once
    /// would be a busy loop.
    failed: bool,
}

impl Loose {
    pub(super) fn new(noted: Vec<u16>) -> Loose {
        Loose { noted, ..Loose::default() }
    }
}

fn is_loose(item: &Item) -> bool {
    item.qos == 2 && item.message.pos == Pos::ZERO
}

impl Delivery {
    /// Those under way.
    pub(super) fn loose_ids(&self) -> Vec<u16> {
        let loose = self.flights.iter().filter(|(_, f)| f.qos == 2 && f.pos == Pos::ZERO);
        let mut ids: Vec<u16> = loose.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// An id for the next. `None`: it must wait, for the log or for one that is completed.
    pub(super) fn take_loose_id(&mut self, durable: bool) -> Option<u16> {
        let is_free = |id: &u16| !self.flights.contains_key(id);
        let noted = self.loose.noted.iter().copied().find(is_free).filter(|_| durable);
        // Where the disk takes no note, all that is behind this message does not wait for it: a kill just then may
        // leave that one id open at the client.
        let any = || LOOSE_IDS.into_iter().find(is_free).filter(|_| !durable || self.loose.failed);
        let id = noted.or_else(any);
        self.loose.waits = id.is_none();
        id
    }

    pub(crate) fn waits_for_id(&self) -> bool {
        self.loose.waits
    }

    /// What is to be noted, if anything, and when it must be on disk; `idle`: also what is over.
    pub(crate) fn loose_to_note(&mut self, idle: bool) -> Option<(Vec<u16>, Haste)> {
        let Loose { noting: None, waits, failed, .. } = self.loose else { return None };
        let asks = waits && (idle || !failed);
        if !asks && !idle {
            return None;
        }
        let mut ids = self.loose_ids();
        if asks {
            let wanted = self.ready.iter().filter(|i| is_loose(i)).count();
            let room = self.in_flight_max.saturating_sub(self.flights.len());
            ids.extend(LOOSE_IDS.filter(|id| !self.flights.contains_key(id)).take(wanted.min(room)));
            ids.sort_unstable();
        }
        if ids == self.loose.noted {
            return None;
        }
        // What the note takes back may be used no more.
        self.loose.noted.retain(|id| ids.contains(id));
        self.loose.noting = Some(ids.clone());
        Some((ids, if asks { Haste::Now } else { Haste::Lazy }))
    }

    /// The note is written, or could not be.
    pub(crate) fn loose_were_noted(&mut self, written: bool) {
        self.loose.failed = !written;
        if let Some(ids) = self.loose.noting.take().filter(|_| written) {
            self.loose.noted = ids;
        }
    }

    /// At the connection's end: what the next one releases, where the log may have another word.
    pub(crate) fn loose_at_end(&self) -> Option<Vec<u16>> {
        let ids = self.loose_ids();
        (self.loose.noting.is_some() || ids != self.loose.noted).then_some(ids)
    }
}
