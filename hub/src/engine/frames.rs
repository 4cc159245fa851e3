//! What becomes of a peer's frame: judged, its records admitted one by one, and committed with the
//! new cursor in one group.

use super::Error;
use super::deciding::{decided, stamp};
use super::worker::Engine;
use crate::note::{DeadLetter, Note, reason};
use crate::protocol::Received;
use crate::protocol::admit::admit;
use crate::protocol::judge::{self, Verdict};
use crate::protocol::pack::unpack;
use crate::state::{State, class};
use bytes::Bytes;
use citybrain_shared::limits::{HISTORIES_PER_NODE_MAX, ORIGINS_PER_CHILD_MAX};
use citybrain_shared::record::{Direction, Draft, Header};
use citybrain_shared::wire::{self, Carried, Frame, Message, Party};
use citybrain_shared::{Address, Pos, event};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// Records of a frame that is being taken, to tell those that stand in it twice.
#[derive(Default)]
struct Here<'a> {
    /// Upward ones: address and history of the origin, class, seq. The address too: a data folder
    /// that was copied has one history at two addresses.
    numbers: HashSet<(&'a str, u128, u8, u64)>,
    /// Origins that are new with this frame.
    origins: HashSet<(&'a str, u128)>,
    /// Downward ones, by key, with the position that they get.
    keys: HashMap<u64, Pos>,
}

impl Engine {
    /// # Errors
    /// [`Error::Unwritable`] when the log does not say whether a record is there already; nothing of
    /// the frame is taken then, and the peer sends it again.
    pub(super) fn decide_frame(
        &mut self,
        state: &mut State,
        peer: &Address,
        message: &Bytes,
        now: i64,
    ) -> Result<Received, Error> {
        let frame = match wire::decode(message, unpack) {
            Ok(Message::Frame(frame)) => frame,
            Ok(_) => return Ok(self.ignore(peer, "it is no frame")),
            Err(e) => return Ok(self.ignore(peer, &e.to_string())),
        };
        let me = Party { inc: state.me.inc, boot: state.me.boot };
        let verdict = match state.peers.get(peer) {
            None => Verdict::UnknownSession,
            // It says hello then, and the tree hears that it is back.
            Some(known) if known.retired => Verdict::UnknownSession,
            Some(known) => judge::judge(known, judge::granted(known), &frame.head),
        };
        if verdict == Verdict::Take {
            self.take_frame(state, peer, &frame, now)?;
        }
        let unknown = Default::default();
        let known = state.peers.get(peer).unwrap_or(&unknown);
        let answer = judge::answer(verdict, known, me, self.credit, &frame.head);
        if answer == Received::Ignore {
            self.shared.work.frames_ignored.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    }

    fn ignore(&self, peer: &Address, why: &str) -> Received {
        self.shared.work.frames_ignored.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(peer = %peer, error = why, "A frame was dropped.");
        Received::Ignore
    }

    /// The frame's records, its cursor and what follows from them: one group.
    fn take_frame(&mut self, state: &mut State, peer: &Address, frame: &Frame<'_>, now: i64) -> Result<(), Error> {
        let is_parent = self.parent.as_ref() == Some(peer);
        let mut group: Vec<Vec<u8>> = Vec::with_capacity(frame.head.records as usize);
        let mut extra: Vec<Draft> = Vec::new();
        let (mut dropped, mut taken) = (0u32, 0u32);
        let mut here = Here::default();
        let mut origin: Option<Address> = None;
        // Origins below this child, counted when a new one comes.
        let mut known: Option<usize> = None;
        for (i, record) in frame.records().enumerate() {
            let record = match record {
                Ok(r) => r,
                Err(e) => {
                    // Its frame's checksum held, so sending it again would bring the same: parked at once.
                    let detail = format!(
                        "record {i} of the frame ({}, {}] does not read: {e}",
                        frame.head.after, frame.head.upto
                    );
                    extra.push(
                        Note::DeadLetter(DeadLetter::new(reason::POISON, detail, format!("link:{peer}"), "", &[]))
                            .draft(),
                    );
                    continue;
                }
            };
            // Records of one origin mostly stand together.
            if origin.as_ref().is_none_or(|o| o.as_str() != record.origin.address) {
                origin = Address::parse(record.origin.address).ok();
            }
            if let Err(refusal) = admit(peer, is_parent, origin.as_ref(), &record) {
                let name = if event::is_type(record.name) { record.name } else { "" };
                let (reason, detail) = (refusal.reason, refusal.detail);
                let letter = DeadLetter::new(reason, detail, format!("link:{peer}"), name, record.payload);
                extra.push(Note::DeadLetter(letter).draft());
                continue;
            }
            if !has_room(state, peer, origin.as_ref(), &record, &mut known, &mut here) {
                let detail = format!(
                    "more than {HISTORIES_PER_NODE_MAX} histories of a node, or {ORIGINS_PER_CHILD_MAX} below {peer}, are not kept apart"
                );
                let letter =
                    DeadLetter::new(reason::POISON, detail, format!("link:{peer}"), record.name, record.payload);
                extra.push(Note::DeadLetter(letter).draft());
                continue;
            }
            if self.is_repeated(state, origin.as_ref(), &record, &here)? {
                dropped += 1;
                continue;
            }
            let header = record.header(now);
            let mut bytes = Vec::new();
            header
                .encode(record.payload, &mut bytes)
                .expect("its origin is an address, of 255 bytes at most, and its other texts came with 16-bit lengths");
            taken += 1;
            match record.direction {
                Direction::Down => {
                    here.keys.insert(record.key, Pos(state.applied.0 + 1 + group.len() as u64));
                    extra.extend(self.receipt_for(&header, record.payload, record.ttl_ms));
                }
                _ => drop(here.numbers.insert(number(&record))),
            }
            group.push(bytes);
        }
        let note = Note::Received {
            peer: peer.clone(),
            from: frame.head.from,
            lane: frame.head.lane,
            cursor: judge::taken(&frame.head),
            records: taken,
            dropped,
        };
        let mut made = Vec::new();
        for bytes in &group {
            let (header, payload) = Header::decode(bytes).expect("encoded a few lines above");
            made.extend(decided(state, now, &header, payload));
        }
        self.follow(state, &mut made, now);
        extra.extend(made);
        extra.insert(0, note.draft());
        stamp(state, &mut extra, now);
        self.fresh_keys.extend(here.keys);
        // Records first, so that a reader of the group meets them before what was decided from them.
        self.append_group(state, group.iter().map(Vec::as_slice).chain(extra.iter().map(Draft::bytes)));
        Ok(())
    }

    fn is_repeated(
        &self,
        state: &State,
        origin: Option<&Address>,
        r: &Carried<'_>,
        here: &Here<'_>,
    ) -> Result<bool, Error> {
        match (r.direction, origin) {
            (Direction::Down, _) => Ok(here.keys.contains_key(&r.key) || self.find_same(r.key, r.payload)?.is_some()),
            (_, Some(origin)) => {
                Ok(state.has_seen(origin, r.origin.log, r.lane, r.reach, r.seq) || here.numbers.contains(&number(r)))
            }
            (_, None) => Ok(false),
        }
    }
}

/// May another origin of this child be kept? Each costs memory for good, here and above.
fn has_room<'a>(
    state: &State,
    peer: &Address,
    origin: Option<&Address>,
    r: &Carried<'a>,
    known: &mut Option<usize>,
    here: &mut Here<'a>,
) -> bool {
    let new = (r.origin.address, r.origin.log.0);
    let Some(origin) = origin.filter(|_| r.direction == Direction::Up && !here.origins.contains(&new)) else {
        return true;
    };
    if state.knows_origin(origin, r.origin.log) {
        return true;
    }
    let of_node = state.histories_of(origin) + here.origins.iter().filter(|(a, _)| *a == r.origin.address).count();
    if of_node >= HISTORIES_PER_NODE_MAX {
        return false;
    }
    let is_room = *known.get_or_insert_with(|| state.origins_below(peer)) + here.origins.len() < ORIGINS_PER_CHILD_MAX;
    is_room && here.origins.insert(new)
}

fn number<'a>(r: &Carried<'a>) -> (&'a str, u128, u8, u64) {
    (r.origin.address, r.origin.log.0, class(r.lane, r.reach), r.seq)
}
