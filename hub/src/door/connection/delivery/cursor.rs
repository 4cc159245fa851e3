//! How far a session has come: where it begins, what is noted of it, and the PUBRELs that wait for that.

use super::Delivery;
use crate::door::packet::reason;
use crate::door::route::{Router, Sub};
use crate::door::seats::Delivered;
use crate::door::share::{Group, is_shared};
use crate::engine::Haste;
use crate::note::Note;
use citybrain_shared::Pos;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::task::Context;

/// With nothing to acknowledge, the cursor is noted when it has moved this far: it costs a record,
/// and saves reading this many again after a kill.
const IDLE_NOTE_RECORDS: u64 = 4096;

/// Records up to `upto` may have been given by an earlier process, and at most `left` messages of
/// them not be marked as repetitions yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Earlier {
    pub upto: Pos,
    pub left: usize,
}

impl Earlier {
    pub(crate) const NOTHING: Earlier = Earlier { upto: Pos::ZERO, left: 0 };

    /// Up to here some may have been given; 0: none.
    pub(crate) fn unsure(&self) -> Pos {
        if self.left > 0 { self.upto } else { Pos::ZERO }
    }
}

/// Where a session begins.
pub(crate) struct Resumed {
    /// Everything up to here is settled, and besides it `beyond`.
    pub upto: Pos,
    pub beyond: Vec<Pos>,
    /// Records up to here were given before.
    pub given_upto: Pos,
    pub earlier: Earlier,
    /// QoS 2 messages that the client has received and not completed.
    pub releasing: HashSet<(Pos, u8)>,
    /// Messages given before a filter changed, with the QoS by which they go on: the client may have
    /// received them, and would keep an id of QoS 2 for ever if they did not.
    pub begun: HashMap<(Pos, u8), u8>,
    /// The unshared filters of when those records were given, if they have changed since: those that this
    /// connection has not come to are read by them, and go on as they began.
    pub before: Option<Before>,
    /// Ids of QoS 2 messages of no record, which are not sent again: the client must not take another
    /// for one of them.
    pub loose: Vec<u16>,
    /// Those of them that the log has.
    pub loose_noted: Vec<u16>,
}

/// Filters that have changed since, see [`Resumed`].
pub(crate) type Before = Arc<HashMap<String, Sub>>;

impl Resumed {
    /// Records up to here may have been given by an earlier connection.
    pub(crate) fn upto_given(&self) -> Pos {
        self.given_upto.max(self.earlier.unsure())
    }

    /// A new session.
    pub(crate) fn new(upto: Pos) -> Resumed {
        Resumed {
            upto,
            beyond: Vec::new(),
            given_upto: Pos::ZERO,
            earlier: Earlier::NOTHING,
            releasing: HashSet::new(),
            begun: HashMap::new(),
            before: None,
            loose: Vec::new(),
            loose_noted: Vec::new(),
        }
    }
}

/// How far a session has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(super) upto: Pos,
    pub(super) beyond: Vec<Pos>,
    pub(super) releasing: Vec<(Pos, u8)>,
    pub(super) begun: Vec<(Pos, u8, u8)>,
}

impl Cursor {
    pub(crate) fn note(self, client: String) -> Note {
        let Cursor { upto, beyond, releasing, begun } = self;
        Note::SessionAcked { client, upto, beyond, releasing, begun, apart: Vec::new() }
    }
}

/// What a PUBREL waits for: the fsync of what says that the client has the message. After PUBREL it hands
/// the message on, so that it must not come again, whatever ends the node.
pub(super) enum Until {
    /// A note that is to be made.
    Note,
    /// The note that is on its way.
    Noted,
    /// The group's note.
    Group(Arc<Group>),
    Nothing,
}

impl Delivery {
    /// PUBREC. The reason of the PUBREL to be sent now; `None`: it comes when it may.
    pub(crate) fn release(&mut self, id: u16, client: &Arc<str>, durable: bool) -> Option<u8> {
        let Some(flight) = self.flights.get_mut(&id) else { return Some(reason::ID_NOT_FOUND) };
        let is_known = std::mem::replace(&mut flight.releasing, true);
        // Its PUBREL is on its way: a client that asks again and again adds nothing.
        if is_known && self.pubrels.iter().any(|(i, _)| *i == id) {
            return None;
        }
        let until = match &flight.share {
            _ if is_known => Until::Nothing,
            Some(group) => {
                group.release(client, (flight.pos, flight.part));
                Until::Group(group.clone())
            }
            None if !durable || flight.pos == Pos::ZERO => Until::Nothing,
            None => {
                self.acked = true;
                Until::Note
            }
        };
        if matches!(until, Until::Nothing) && self.pubrels.is_empty() {
            return Some(reason::SUCCESS);
        }
        self.pubrels.push_back((id, until));
        None
    }

    pub(crate) fn releasing(&self) -> HashSet<(Pos, u8)> {
        let of_records = self.flights.values().filter(|f| f.releasing && f.pos > Pos::ZERO && f.share.is_none());
        of_records.map(|f| (f.pos, f.part)).chain(self.resumed.releasing.iter().copied()).collect()
    }

    /// PUBRELs that may be sent now.
    pub(super) fn poll_pubrels(&mut self, cx: &Context<'_>) {
        while let Some((id, until)) = self.pubrels.front() {
            let may = match (until, self.flights.get(id)) {
                (Until::Nothing, _) => true,
                (Until::Note | Until::Noted, _) => false,
                (Until::Group(group), Some(flight)) => group.poll_release((flight.pos, flight.part), cx),
                // It was completed by another way.
                (Until::Group(_), None) => true,
            };
            if !may {
                return;
            }
            self.orphans.push(*id);
            self.pubrels.pop_front();
        }
    }

    fn awaits_note(&self) -> bool {
        self.pubrels.iter().any(|(_, until)| matches!(until, Until::Note))
    }

    fn begun(&self) -> HashMap<(Pos, u8), u8> {
        let flights = self.flights.values().filter(|f| f.begun && !f.releasing).map(|f| ((f.pos, f.part), f.qos));
        flights.chain(self.resumed.begun.iter().map(|(at, qos)| (*at, *qos))).collect()
    }

    /// A filter of QoS 1 or 2 changes or goes: what was given keeps its QoS, by the next connection too.
    /// The cursor that says so; `None`: nothing is under way.
    pub(crate) fn begin(&mut self) -> Option<Cursor> {
        for f in self.flights.values_mut().filter(|f| f.pos > Pos::ZERO && f.share.is_none()) {
            f.begun = true;
        }
        let cursor = self.cursor();
        (!cursor.begun.is_empty()).then_some(cursor)
    }

    /// Filters have changed: what was found by the old ones, and not yet written, goes on as well.
    pub(crate) fn filters_have_changed(&mut self) {
        self.begun_upto = self.feed.window.seen().max(self.feed.inbox.newest());
        if self.resumed.before.is_some() {
            self.begun_upto = self.begun_upto.max(self.resumed.upto_given());
        }
    }

    /// What [`Delivery::keep_filters`] has kept.
    pub(crate) fn kept_filters(&mut self) -> &mut Option<Before> {
        &mut self.resumed.before
    }

    /// Filters change, of which `changed` tells what those were that have changed already: what earlier
    /// connections gave, and this one has not come to, goes on by the old ones.
    pub(crate) fn keep_filters(&mut self, changed: &[(String, Option<Sub>)]) {
        if self.resumed.before.is_some() || self.feed.window.seen() >= self.resumed.upto_given() {
            return;
        }
        let mut before = self.filters.clone();
        // One that has changed twice was first what the first of its entries says.
        for (filter, old) in changed.iter().rev() {
            match old {
                Some(old) => drop(before.insert(filter.clone(), *old)),
                None => drop(before.remove(filter)),
            }
        }
        before.retain(|f, _| !is_shared(f));
        self.resumed.before = Some(before.into());
        self.own = None;
    }

    fn cursor(&self) -> Cursor {
        let mut releasing: Vec<_> = self.releasing().into_iter().collect();
        releasing.sort_unstable();
        let mut begun: Vec<_> = self.begun().into_iter().map(|((pos, part), qos)| (pos, part, qos)).collect();
        begun.sort_unstable();
        Cursor { upto: self.feed.window.upto(), beyond: self.feed.window.beyond(), releasing, begun }
    }

    /// What the session's next connection must know. A connection may end before it has come as far
    /// as those before it.
    pub(crate) fn delivered(&self) -> Delivered {
        Delivered {
            upto: self.given.max(self.resumed.given_upto),
            earlier: self.resumed.earlier,
            releasing: self.releasing(),
            begun: self.begun(),
            before: self.resumed.before.clone(),
            loose: self.loose_ids(),
        }
    }

    /// How far the client has acknowledged, or was given something with QoS 0, where it has come farther since this
    /// was asked last.
    pub(crate) fn take_jot(&mut self) -> Option<Pos> {
        let upto = self.feed.window.upto();
        let is_over = std::mem::take(&mut self.given_lightly) || self.acked;
        let is_new = is_over && upto > self.jotted;
        is_new.then(|| {
            self.jotted = upto;
            upto
        })
    }

    /// Is there something to note, and nothing on its way? `idle`: also what moved without the
    /// client's doing.
    pub(crate) fn may_note(&mut self, router: &Router, idle: bool) -> bool {
        if self.noting {
            return false;
        }
        if idle && self.ready.is_empty() {
            if let Some(upto) = router.looked_upto(&self.feed.inbox) {
                self.feed.window.see(upto);
            }
            let moved = self.feed.window.upto().0 >= self.noted.upto.0 + IDLE_NOTE_RECORDS;
            return self.acked || moved || self.awaits_note();
        }
        self.acked
    }

    /// The cursor, if it is not what was noted last.
    pub(crate) fn cursor_to_note(&mut self) -> Option<Cursor> {
        let cursor = self.cursor();
        self.acked = false;
        if cursor == self.noted && !self.awaits_note() {
            return None;
        }
        self.noting = true;
        self.change_pubrels(|until| matches!(until, Until::Note).then_some(Until::Noted));
        self.noted = cursor.clone();
        Some(cursor)
    }

    /// When the note that is on its way must be on disk.
    pub(crate) fn note_haste(&self) -> Haste {
        let waits = self.pubrels.iter().any(|(_, until)| matches!(until, Until::Noted));
        if waits { Haste::Now } else { Haste::Lazy }
    }

    /// The note is written, or could not be.
    pub(crate) fn cursor_was_noted(&mut self, written: bool) {
        self.noting = false;
        if !written {
            // The next note, whenever there is reason for one, says it again. Not at once: while the
            // disk is full that would be a busy loop.
            self.noted = Cursor::default();
        }
        let next = || if written { Until::Nothing } else { Until::Note };
        self.change_pubrels(|until| matches!(until, Until::Noted).then(next));
    }

    fn change_pubrels(&mut self, change: impl Fn(&Until) -> Option<Until>) {
        for (_, until) in &mut self.pubrels {
            if let Some(new) = change(until) {
                *until = new;
            }
        }
    }
}
