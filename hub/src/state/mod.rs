//! What the log adds up to.
//!
//! [`State::apply`] is the only way to change it, and knows no clock and no config: the same log
//! gives the same state, live or at a start; but for one count ([`State::count_repeated`]). It lives
//! in memory; rows that changed are handed to the store now and then ([`rows`]), always behind the
//! log's fsync, and what the store has not seen is applied again at the next start.
//!
//! | module | what it owns |
//! |---|---|
//! | [`rows`] | the state as rows of the store, and back |
//! | [`sessions`] | MQTT sessions and last wills |
//! | [`peers`] | who this node is, and what its peers hold of it and it of them |
//! | [`registry`] | the nodes below, as they told of themselves |
//! | [`directives`] | what was sent down, and who answered |
//! | [`runs`] | numbers seen, as runs without gaps |

mod directives;
mod peers;
mod registry;
pub(crate) mod rows;
mod runs;
mod sessions;

pub use directives::{Directive, Directives, Nodes, RECEIPT_TYPE, Receipt, Status};
pub use peers::{Me, Peer};
pub use registry::{Gone, Known, PRESENCE_TYPE, Presence, RETIRED_TYPE, RETURNED_TYPE, Subtree, subtree_of};
pub use runs::Runs;
pub use sessions::{FILTER_BYTES, OUTSIDE, Session, Sessions, Subscription, WEBHOOK, filter_cost, is_own_session};

use crate::note::Note;
use crate::policy::{self, Policy};
use bytes::Bytes;
use citybrain_shared::address::Tier;
use citybrain_shared::limits;
use citybrain_shared::record::{Direction, Header, Kind};
use citybrain_shared::wire::{BootMark, Epoch, Party};
use citybrain_shared::{Address, Boot, Lane, LogId, Pos};
use peers::EPOCHS_KEPT;
use rows::Key;
use serde::{Deserialize, Serialize};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Losses that are remembered one by one, about 200 bytes each; `counters.lost` has all of them.
const LOSSES_KEPT: usize = 1000;

/// Open dead letters that are known, about 100 bytes each, and as many as anybody looks through. With one more
/// the oldest is no longer open; what it held stays in the log.
const DEAD_LETTERS_OPEN_MAX: usize = 10_000;

pub struct State {
    /// The newest record that is in here.
    pub applied: Pos,
    pub me: Me,
    /// This node's address and labels, as its last presence said.
    pub address: Option<Address>,
    /// Peers by address: children and the parent, also former ones.
    pub peers: BTreeMap<Address, Peer>,
    /// Durable MQTT sessions by client id, and last wills.
    pub sessions: Sessions,
    /// Retained messages by topic.
    pub retained: BTreeMap<String, Retained>,
    /// What they keep in memory, nearly.
    pub retained_bytes: usize,
    /// This node and every node below it that has told of itself.
    pub registry: BTreeMap<Address, Known>,
    /// Those that were in it and are taken for gone.
    pub retired: BTreeMap<Address, Gone>,
    pub directives: Directives,
    pub counters: Counters,
    /// Open dead letters by position, with their reason.
    pub dead_letters: BTreeMap<Pos, String>,
    /// Ranges that are lost for good, newest last.
    pub losses: Vec<Loss>,
    /// The node's own mind: rules, alarms, cases. Folded like everything else.
    pub policy: Box<dyn Policy>,
    streams: HashMap<(Address, LogId), Stream>,
    /// How many of them each node has.
    histories: HashMap<Address, usize>,
    /// When the newest record was committed, by the clock of then; µs since 1970.
    last_us: i64,
    /// The origin looked at last: records of one origin mostly stand together.
    last_origin: Option<Address>,
    dirty: HashSet<Key>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retained {
    pub pos: Pos,
    pub qos: u8,
    pub payload: Bytes,
    /// The door's own bytes of the publish.
    pub door: Bytes,
    pub committed_us: i64,
    /// What it became later, by [`Note::RetainedHeard`].
    pub heard: Option<u64>,
}

impl Retained {
    /// Bytes that it keeps in memory with its topic, nearly.
    pub fn bytes(&self, topic: &str) -> usize {
        Retained::cost(topic, self.payload.len() + self.door.len())
    }

    pub fn cost(topic: &str, payload_bytes: usize) -> usize {
        topic.len() + payload_bytes + 200
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    pub pos: Pos,
    pub peer: Option<Address>,
    pub lane: Option<Lane>,
    pub after: Pos,
    pub upto: Pos,
    pub reason: String,
}

/// Totals since the data folder was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Events that began at this node.
    pub accepted: u64,
    /// Of them and of those received, the urgent ones.
    pub urgent: u64,
    /// Events received from children.
    pub received_up: u64,
    /// Events received from the parent.
    pub received_down: u64,
    /// Plain MQTT messages kept.
    pub messages: u64,
    /// Records received again and dropped.
    pub duplicates: u64,
    pub dead_letters: u64,
    pub receipts: u64,
    /// Down events for this node that came too late.
    pub expired: u64,
    /// Positions recorded as lost.
    pub lost: u64,
    /// Times that an interval set gave up its lowest hole: it had more than
    /// [`limits::RUNS_PER_STREAM_MAX`] of them. Records whose time was over on their way leave such holes.
    pub runs_joined: u64,
}

/// What was seen of one origin's history, by class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Stream(BTreeMap<u8, Runs>);

/// Lane and reach in one small number, 0 to 7.
pub fn class(lane: Lane, reach: Tier) -> u8 {
    lane as u8 * 4 + (reach.depth() as u8 - 1)
}

/// Which lane's place in a pair.
pub(crate) fn slot(lane: Lane) -> usize {
    lane as usize
}

impl Default for State {
    fn default() -> State {
        State::with(Box::new(policy::None))
    }
}

impl State {
    /// An empty state with this policy.
    pub fn with(policy: Box<dyn Policy>) -> State {
        State {
            applied: Pos::ZERO,
            me: Me::default(),
            address: None,
            peers: BTreeMap::new(),
            sessions: Sessions::default(),
            retained: BTreeMap::new(),
            retained_bytes: 0,
            registry: BTreeMap::new(),
            retired: BTreeMap::new(),
            directives: Directives::default(),
            counters: Counters::default(),
            dead_letters: BTreeMap::new(),
            losses: Vec::new(),
            policy,
            streams: HashMap::new(),
            histories: HashMap::new(),
            last_us: 0,
            last_origin: None,
            dirty: HashSet::new(),
        }
    }

    /// The policy, if it is of this type.
    pub fn policy_as<P: Policy>(&self) -> Option<&P> {
        self.policy.as_any().downcast_ref()
    }

    /// Was this upward record of another node seen before?
    pub fn has_seen(&self, address: &Address, log: LogId, lane: Lane, reach: Tier, seq: u64) -> bool {
        let stream = self.streams.get(&(address.clone(), log));
        stream.and_then(|s| s.0.get(&class(lane, reach))).is_some_and(|runs| runs.contains(seq))
    }

    /// Is anything of this origin and history kept?
    pub fn knows_origin(&self, address: &Address, log: LogId) -> bool {
        self.streams.contains_key(&(address.clone(), log))
    }

    /// How many histories of this very node are kept.
    pub fn histories_of(&self, address: &Address) -> usize {
        self.histories.get(address).copied().unwrap_or(0)
    }

    /// How many histories of nodes at or below this address are kept. Looks at all nodes.
    pub fn origins_below(&self, address: &Address) -> usize {
        self.histories.iter().filter(|(origin, _)| address.covers(origin)).map(|(_, n)| n).sum()
    }

    fn stream(&mut self, key: (Address, LogId)) -> &mut Stream {
        match self.streams.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                *self.histories.entry(new.key().0.clone()).or_default() += 1;
                new.insert(Stream::default())
            }
        }
    }

    /// What is held of other nodes' upward records: origin, history, class, and the numbers as runs.
    /// In no order.
    pub fn held(&self) -> impl Iterator<Item = (&Address, LogId, u8, &Runs)> {
        self.streams
            .iter()
            .flat_map(|((origin, log), s)| s.0.iter().map(move |(class, runs)| (origin, *log, *class, runs)))
    }

    /// As [`State::held`], for one stream.
    pub fn held_of(&self, origin: &Address, log: LogId, class: u8) -> Option<&Runs> {
        self.streams.get(&(origin.clone(), log)).and_then(|s| s.0.get(&class))
    }

    /// Folds in the record at `pos`. Records must come in order, each once.
    ///
    /// # Panics
    /// When `pos` is not the one after [`State::applied`]: a bug of the caller.
    pub fn apply(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        assert_eq!(pos, self.applied.next(), "records are applied in order, each once");
        self.applied = pos;
        let before_us = std::mem::replace(&mut self.last_us, header.committed_us);
        if header.kind == Kind::Note {
            // What a node believes of itself it has from itself alone.
            if header.origin.is_some() {
                tracing::error!(pos = pos.0, "A note of another node is skipped.");
                return;
            }
            match Note::parse(payload) {
                Ok(note) => self.apply_note(pos, header.committed_us, before_us, note),
                // A note of a newer build, after a downgrade: skipped, as the store's version check demands anyway.
                Err(error) => tracing::warn!(pos = pos.0, %error, "A note does not read and is skipped."),
            }
            return;
        }
        self.count(header);
        if header.retain {
            self.retain(pos, header, payload);
        }
        match (header.origin, header.direction) {
            (None, Direction::Up) => {
                self.me.seqs[class(header.lane, header.reach) as usize] = header.seq;
                self.dirty.insert(Key::Me);
            }
            (Some(origin), Direction::Up) => {
                if let Some(address) = self.intern(origin.address) {
                    let key = (address, origin.log);
                    let runs = self.stream(key.clone());
                    let (_, joined) = runs.0.entry(class(header.lane, header.reach)).or_default().insert(header.seq);
                    self.counters.runs_joined += u64::from(joined);
                    self.dirty.insert(Key::Stream(key.0, key.1));
                }
            }
            _ => {}
        }
        match header.kind {
            Kind::Presence => self.take_presence(header, payload),
            Kind::Receipt => self.take_receipt(header, payload),
            Kind::Event if header.name == RETIRED_TYPE => self.take_subtree(header, payload, true),
            Kind::Event if header.name == RETURNED_TYPE => self.take_subtree(header, payload, false),
            _ => {}
        }
        if header.direction == Direction::Down {
            self.take_directive(pos, header, payload);
        }
        self.policy.apply(pos, header, payload);
    }

    /// An event was offered again. Nothing of that is in the log, so a start counts what was stored.
    pub fn count_repeated(&mut self) {
        self.counters.duplicates += 1;
        self.dirty.insert(Key::Counters);
    }

    /// Goes on behind `pos`: the records up to there cannot be read any more.
    pub fn skip_to(&mut self, pos: Pos) {
        self.applied = self.applied.max(pos);
    }

    fn intern(&mut self, address: &str) -> Option<Address> {
        if self.last_origin.as_ref().is_none_or(|a| a.as_str() != address) {
            self.last_origin = Address::parse(address).ok();
        }
        self.last_origin.clone()
    }

    fn count(&mut self, header: &Header<'_>) {
        let c = &mut self.counters;
        match (header.kind, header.origin, header.direction) {
            (Kind::Message, ..) => c.messages += 1,
            (_, None, _) => c.accepted += 1,
            (_, Some(_), Direction::Down) => c.received_down += 1,
            (_, Some(_), _) => c.received_up += 1,
        }
        c.receipts += u64::from(header.kind == Kind::Receipt);
        c.urgent += u64::from(header.lane == Lane::Urgent);
        self.dirty.insert(Key::Counters);
    }

    fn retain(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        self.dirty.insert(Key::Retained(header.topic.to_owned()));
        if payload.is_empty() {
            self.forget_retained(header.topic);
            return;
        }
        let kept = Retained {
            pos,
            qos: header.qos,
            payload: Bytes::copy_from_slice(payload),
            door: Bytes::copy_from_slice(header.door),
            committed_us: header.committed_us,
            heard: None,
        };
        self.keep_retained(header.topic, kept);
    }

    pub(crate) fn keep_retained(&mut self, topic: &str, kept: Retained) {
        self.forget_retained(topic);
        self.retained_bytes += kept.bytes(topic);
        self.retained.insert(topic.to_owned(), kept);
    }

    pub(crate) fn forget_retained(&mut self, topic: &str) {
        if let Some(old) = self.retained.remove(topic) {
            self.retained_bytes -= old.bytes(topic);
        }
    }

    /// `before_us`: when the record before it was committed.
    fn apply_note(&mut self, pos: Pos, committed_us: i64, before_us: i64, note: Note) {
        match note {
            Note::Booted { inc, boot } => {
                self.me.inc = inc;
                self.me.boot = boot;
                self.me.boots.push(BootMark { boot, first: pos });
                let extra = self.me.boots.len().saturating_sub(limits::BOOTS_KEPT);
                self.me.boots.drain(..extra);
                // Whoever was connected is not any more. A clock that has not been set yet is behind the log.
                let committed_us = committed_us.max(before_us);
                self.sessions.nobody_is_there(pos, committed_us, &mut self.dirty);
                self.dirty.insert(Key::Me);
            }
            Note::Epoch { log, first, .. } => {
                // One that begins earlier than those before it hides them; peers may still hold
                // cursors in them, so their names are kept.
                self.me.epochs.push(Epoch { log, first });
                let extra = self.me.epochs.len().saturating_sub(EPOCHS_KEPT);
                self.me.epochs.drain(..extra);
                self.dirty.insert(Key::Me);
                self.policy.begin_history(log, first, committed_us.max(before_us));
            }
            Note::Received { peer, from, lane, cursor, records, dropped } => {
                self.counters.duplicates += u64::from(dropped);
                self.dirty.insert(Key::Counters);
                let p = self.peer(&peer);
                p.has[slot(lane)] = Some(cursor);
                p.received += u64::from(records);
                p.dropped += u64::from(dropped);
                p.heard_us = committed_us;
                p.meet(from);
            }
            Note::PeerHas { peer, inc, lane, cursor } => {
                let p = self.peer(&peer);
                p.heard_us = committed_us;
                p.note_has(inc, lane, cursor);
            }
            Note::Granted { child, party, lease } => {
                let p = self.peer(&child);
                p.heard_us = committed_us;
                p.meet(party);
                p.retired = false;
                // A grantor's own only grows, unless its disk is an older or an empty one: then it counts from
                // there, and its frames of before are of another start.
                p.lease = lease;
            }
            Note::Enrolled { child, inc, is_admitted } => self.peer(&child).enrolled = Some((inc, is_admitted)),
            Note::CursorSet { peer, inc, lane, cursor, .. } => {
                let p = self.peer(&peer);
                if p.party.is_some_and(|old| old.inc != inc) {
                    p.meet(Party { inc, boot: Boot::default() });
                }
                p.has[slot(lane)] = Some(cursor);
            }
            Note::Lost { peer, lane, after, upto, reason } => {
                self.counters.lost += upto.0.saturating_sub(after.0);
                self.losses.push(Loss { pos, peer, lane, after, upto, reason });
                let extra = self.losses.len().saturating_sub(LOSSES_KEPT);
                self.losses.drain(..extra);
                self.dirty.insert(Key::Losses);
                self.dirty.insert(Key::Counters);
            }
            Note::DeadLetter(letter) => {
                self.counters.dead_letters += 1;
                self.dead_letters.insert(pos, letter.reason);
                if self.dead_letters.len() > DEAD_LETTERS_OPEN_MAX {
                    self.dead_letters.pop_first();
                }
                self.dirty.insert(Key::DeadLetters);
                self.dirty.insert(Key::Counters);
            }
            Note::DeadLetterClosed { pos, .. } => {
                self.dead_letters.remove(&pos);
                self.dirty.insert(Key::DeadLetters);
            }
            Note::RetainedExpired { topics } => {
                for (topic, pos) in topics {
                    if self.retained.get(&topic).is_some_and(|r| r.pos == pos) {
                        self.forget_retained(&topic);
                        self.dirty.insert(Key::Retained(topic));
                    }
                }
            }
            Note::RetainedHeard { topic, pos, said } => {
                if let Some(kept) = self.retained.get_mut(&topic).filter(|r| r.pos == pos) {
                    kept.heard = Some(said);
                    self.dirty.insert(Key::Retained(topic));
                }
            }
            // Found by their keys, in the log alone.
            Note::Made { .. } | Note::Answered { .. } => {}
            of_a_session => self.sessions.apply(pos, committed_us, of_a_session, &mut self.dirty),
        }
    }
}
