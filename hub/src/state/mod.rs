//! What the log adds up to.
//!
//! [`State::apply`] is the only way to change it, and knows no clock and no config: the same log
//! gives the same state, live or at a start; but for one count ([`State::count_repeated`]). It lives in memory; rows that changed are handed to
//! the store now and then ([`rows`]), always behind the log's fsync, and what the store has not seen
//! is applied again at the next start.
//!
//! | module | what it owns |
//! |---|---|
//! | [`rows`] | the state as rows of the store, and back |
//! | [`sessions`] | MQTT sessions and last wills |
//! | [`directives`] | what was sent down, and who answered |
//! | [`runs`] | numbers seen, as runs without gaps |

mod directives;
pub mod rows;
mod runs;
mod sessions;

pub use directives::{Directive, Directives, Nodes, Status};
pub use runs::Runs;
pub use sessions::{FILTER_BYTES, OUTSIDE, Session, Sessions, Subscription, WEBHOOK, filter_cost, is_own_session};

use crate::note::Note;
use crate::policy::{self, Policy};
use bytes::Bytes;
use citybrain_shared::address::Tier;
use citybrain_shared::limits;
use citybrain_shared::record::{Direction, Header, Kind};
use citybrain_shared::selector::{Labels, Selector};
use citybrain_shared::wire::{BootMark, Cursor, Epoch, Party};
use citybrain_shared::{Address, Boot, Inc, Lane, LogId, Pos};
use rows::Key;
use serde::{Deserialize, Serialize};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Type of the event in which a node tells who it is.
pub const PRESENCE_TYPE: &str = "city.brain.node";
/// Type of the event in which a parent says that a child, with all below it, is gone for good.
pub const RETIRED_TYPE: &str = "city.brain.node.retired";
/// Type of the event in which it says that the child has come back all the same.
pub const RETURNED_TYPE: &str = "city.brain.node.returned";
/// Type of the event that answers a directive.
pub const RECEIPT_TYPE: &str = "city.brain.receipt";

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
    pub retired: BTreeMap<Address, Known>,
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

/// Histories of one log whose names are kept. One is normal; each restored backup adds one or two.
const EPOCHS_KEPT: usize = 64;

/// This node's identity.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Me {
    pub inc: Inc,
    pub boot: Boot,
    /// Latest starts, oldest first, at most [`limits::BOOTS_KEPT`].
    pub boots: Vec<BootMark>,
    /// All histories of this log, oldest first; never empty once the node has started.
    pub epochs: Vec<Epoch>,
    /// Last seq given, by lane and reach (`class`).
    pub seqs: [u64; 8],
}

impl Me {
    /// The history that a position of this log belongs to.
    pub fn log_at(&self, pos: Pos) -> LogId {
        self.epochs.iter().rev().find(|e| e.first <= pos).or(self.epochs.first()).map_or(LogId(0), |e| e.log)
    }

    /// The present history.
    pub fn epoch(&self) -> Epoch {
        self.epochs.last().copied().unwrap_or(Epoch { log: LogId(0), first: Pos(1) })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Who spoke last.
    pub party: Option<Party>,
    /// Starts of the present incarnation that were seen, oldest first.
    pub boots: Vec<Boot>,
    /// Incarnations before this one.
    pub former: Vec<Inc>,
    /// The newest lease agreed on.
    pub lease: u64,
    /// What we hold of it, by lane.
    pub has: [Option<Cursor>; 2],
    /// What it holds of us, by lane, and which incarnation said so.
    pub peer_has: [Option<Cursor>; 2],
    pub peer_has_inc: Option<Inc>,
    pub received: u64,
    pub dropped: u64,
    /// An operator's last word on an incarnation of it, and whether that may come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled: Option<(Inc, bool)>,
    /// An operator has said that it will not come back, and it has not since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retained {
    pub pos: Pos,
    pub qos: u8,
    pub payload: Bytes,
    /// The door's own bytes of the publish.
    pub door: Bytes,
    pub committed_us: i64,
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
pub struct Known {
    /// Stable number of this node in sets.
    pub ordinal: u32,
    pub name: String,
    pub tier: Tier,
    pub code: Option<String>,
    pub labels: Labels,
    pub inc: Inc,
    pub version: String,
    /// When its presence was committed at itself, µs since 1970 by its clock.
    pub last_heard_us: i64,
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
    /// Times that an interval set gave up a hole.
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
pub fn slot(lane: Lane) -> usize {
    lane as usize
}

/// The body of a receipt's `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub node: Address,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The body of a presence's `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    pub address: Address,
    pub name: String,
    #[serde(default)]
    pub code: Option<String>,
    #[serde(default)]
    pub labels: Labels,
    pub inc: Inc,
    pub version: String,
}

/// The body of a retirement's `data`, and of a return's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subtree {
    /// It, and all below it.
    pub address: Address,
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

    fn take_presence(&mut self, header: &Header<'_>, payload: &[u8]) {
        #[derive(Deserialize)]
        struct Event {
            data: Presence,
        }
        let Ok(Event { data }) = serde_json::from_slice(payload) else { return };
        match header.origin {
            // The header's origin is what the links vouch for.
            Some(o) if o.address != data.address.as_str() => return,
            Some(_) => {}
            None => self.address = Some(data.address.clone()),
        }
        let ordinal = match self.registry.get(&data.address) {
            Some(known) => known.ordinal,
            None => match self.retired.remove(&data.address) {
                Some(known) => {
                    self.dirty.insert(Key::Retired(data.address.clone()));
                    known.ordinal
                }
                None => (self.registry.len() + self.retired.len()) as u32,
            },
        };
        let known = Known {
            ordinal,
            name: data.name,
            tier: data.address.tier(),
            code: data.code,
            labels: data.labels,
            inc: data.inc,
            version: data.version,
            last_heard_us: header.received_us,
        };
        self.dirty.insert(Key::Known(data.address.clone()));
        self.dirty.insert(Key::Me);
        self.registry.insert(data.address, known);
    }

    /// A node's word that a child of it is gone for good, with all below it, or is back.
    fn take_subtree(&mut self, header: &Header<'_>, payload: &[u8], is_gone: bool) {
        #[derive(Deserialize)]
        struct Event {
            data: Subtree,
        }
        let Ok(Event { data: Subtree { address } }) = serde_json::from_slice(payload) else { return };
        if header.direction == Direction::Down {
            return;
        }
        let by = match header.origin {
            Some(o) => Address::parse(o.address).ok(),
            None => self.address.clone(),
        };
        if by.is_none() || by != address.parent() {
            return;
        }
        let (from, to) =
            if is_gone { (&mut self.registry, &mut self.retired) } else { (&mut self.retired, &mut self.registry) };
        let moved: Vec<(Address, Known)> = from.extract_if(.., |a, _| address.covers(a)).collect();
        for (address, known) in moved {
            if is_gone {
                self.dirty.extend(self.directives.excuse(known.ordinal).into_iter().map(Key::Directive));
            }
            self.dirty.extend([Key::Known(address.clone()), Key::Retired(address.clone())]);
            to.insert(address, known);
        }
        if is_gone && header.origin.is_none() && self.peers.contains_key(&address) {
            self.peer(&address).retired = true;
        }
    }

    fn take_directive(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        let Ok(event) = citybrain_shared::event::Envelope::parse(payload) else { return };
        let (Some(id), Ok(selector)) = (event.id.clone(), Selector::parse(header.target)) else { return };
        let origin = match header.origin {
            Some(o) => Address::parse(o.address).ok(),
            None => self.address.clone(),
        };
        let Some(origin) = origin else { return };
        let mut expected = Nodes::default();
        for (address, known) in &self.registry {
            if selector.matches(address, &known.labels) {
                expected.insert(known.ordinal);
            }
        }
        let directive = Directive {
            pos,
            kind: header.name.to_owned(),
            origin,
            target: header.target.to_owned(),
            is_command: event.directive() == citybrain_shared::event::Directive::Command,
            issued_us: header.received_us,
            expected,
            delivered: Nodes::default(),
            done: Nodes::default(),
            failed: Nodes::default(),
            expired: Nodes::default(),
        };
        let gone = self.directives.insert(id.clone().into_owned(), directive, limits::DIRECTIVES_KEPT);
        self.dirty.insert(Key::Directive(id.into_owned()));
        self.dirty.extend(gone.map(Key::Directive));
    }

    fn take_receipt(&mut self, header: &Header<'_>, payload: &[u8]) {
        #[derive(Deserialize)]
        struct Event {
            correlationid: String,
            data: Receipt,
        }
        let Ok(event) = serde_json::from_slice::<Event>(payload) else { return };
        // A node answers for itself. The door sees to it for those that begin here.
        if header.origin.is_some_and(|o| o.address != event.data.node.as_str()) {
            return;
        }
        let Some(known) = self.registry.get(&event.data.node) else { return };
        let ordinal = known.ordinal;
        if let Some(d) = self.directives.get_mut(&event.correlationid) {
            d.take(ordinal, event.data.status);
            self.dirty.insert(Key::Directive(event.correlationid));
        }
        if event.data.status == Status::Expired && self.address.as_ref() == Some(&event.data.node) {
            self.counters.expired += 1;
        }
    }

    fn peer(&mut self, address: &Address) -> &mut Peer {
        self.dirty.insert(Key::Peer(address.clone()));
        self.peers.entry(address.clone()).or_default()
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
            }
            Note::Received { peer, from, lane, cursor, records, dropped } => {
                self.counters.duplicates += u64::from(dropped);
                self.dirty.insert(Key::Counters);
                let p = self.peer(&peer);
                p.has[slot(lane)] = Some(cursor);
                p.received += u64::from(records);
                p.dropped += u64::from(dropped);
                meet(p, from);
            }
            Note::PeerHas { peer, inc, lane, cursor } => {
                let p = self.peer(&peer);
                if p.peer_has_inc != Some(inc) {
                    p.peer_has = [None, None];
                    p.peer_has_inc = Some(inc);
                }
                // Within a session it only grows. A session with a peer restored from a backup
                // begins lower, and what it lost has to be kept for it.
                p.peer_has[slot(lane)] = Some(cursor);
            }
            Note::Granted { child, party, lease } => {
                let p = self.peer(&child);
                meet(p, party);
                p.retired = false;
                p.lease = p.lease.max(lease);
            }
            Note::Enrolled { child, inc, is_admitted } => self.peer(&child).enrolled = Some((inc, is_admitted)),
            Note::CursorSet { peer, inc, lane, cursor, .. } => {
                let p = self.peer(&peer);
                if p.party.is_some_and(|old| old.inc != inc) {
                    meet(p, Party { inc, boot: Boot::default() });
                }
                p.has[slot(lane)] = Some(cursor);
            }
            Note::Lost { peer, lane, after, upto, reason } => {
                self.counters.lost += upto.0.saturating_sub(after.0);
                self.losses.push(Loss { pos, peer, lane, after, upto, reason });
                let extra = self.losses.len().saturating_sub(1000);
                self.losses.drain(..extra);
                self.dirty.insert(Key::Losses);
                self.dirty.insert(Key::Counters);
            }
            Note::DeadLetter(letter) => {
                self.counters.dead_letters += 1;
                self.dead_letters.insert(pos, letter.reason);
                if self.dead_letters.len() > 10_000 {
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
            // Found by their keys, in the log alone.
            Note::Made { .. } | Note::Answered { .. } => {}
            of_a_session => self.sessions.apply(pos, committed_us, of_a_session, &mut self.dirty),
        }
    }
}

/// Notes that `party` spoke for a peer; a new incarnation starts from nothing.
fn meet(peer: &mut Peer, party: Party) {
    match peer.party {
        Some(old) if old.inc != party.inc => {
            peer.former.push(old.inc);
            let extra = peer.former.len().saturating_sub(limits::BOOTS_KEPT);
            peer.former.drain(..extra);
            peer.boots.clear();
            peer.has = [None, None];
        }
        _ => {}
    }
    peer.party = Some(party);
    if party.boot != Boot::default() && !peer.boots.contains(&party.boot) {
        peer.boots.push(party.boot);
        let extra = peer.boots.len().saturating_sub(limits::BOOTS_KEPT);
        peer.boots.drain(..extra);
    }
}
