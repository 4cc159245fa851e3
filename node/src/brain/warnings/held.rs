//! What is in force at this node and what was cancelled, folded from the words that count for it.

use super::{CHAINS_MAX, KEYS_MAX, TARGETS_MAX, Told, WARNINGS_MAX};
use crate::cap::areas;
use chrono::{DateTime, Utc};
use citybrain_hub::policy::Row;
use citybrain_shared::{Address, Pos};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Warning {
    pub told: Told,
    /// Messages of the chain, oldest first.
    pub keys: Vec<String>,
    pub holders: Holders,
    /// The record with the whole message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Pos>,
}

/// The nodes at which a warning came in (this one, those above that have told of it, those below), and when the
/// message was sent that is in force there.
pub(super) type Holders = BTreeMap<Address, DateTime<Utc>>;

/// What a message does to what is known of its warning.
pub(super) enum Outcome {
    /// It is in force now.
    Holds(Holders),
    /// It is cancelled for all that have it, and stays so.
    Ends,
    /// It has expired.
    Lapses,
    /// What is in force goes on; more may be known of who has it.
    GoesOn(Option<Holders>),
}

/// A warning that was cancelled, by this node or by those below it that had it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cancelled {
    /// The newest cancellation; until it expires somebody may believe what it cancels.
    pub told: Told,
    /// Messages of the chain.
    keys: Vec<String>,
    /// For whom, each with all below it: others may have the warning still.
    pub of: Vec<Address>,
    /// The record with the whole message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Pos>,
}

impl Cancelled {
    fn is_of(&self, node: &Address) -> bool {
        self.of.iter().any(|of| of.covers(node))
    }
}

/// A row: what is cancelled at some may be in force at others.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warning: Option<Warning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cancelled: Option<Cancelled>,
}

pub(super) struct Held {
    me: Address,
    /// In force, by the first message.
    table: BTreeMap<String, Warning>,
    /// µs since 1970, and which.
    ends: BTreeSet<(i64, String)>,
    /// By the first message.
    cancelled: BTreeMap<String, Cancelled>,
    dirty: BTreeSet<String>,
}

impl Held {
    pub fn new(me: Address) -> Held {
        Held { me, table: BTreeMap::new(), ends: BTreeSet::new(), cancelled: BTreeMap::new(), dirty: BTreeSet::new() }
    }

    /// What is in force, by the first message of each.
    pub fn in_force(&self) -> impl Iterator<Item = &Warning> {
        self.table.values()
    }

    pub fn get(&self, root: &str) -> Option<&Warning> {
        self.table.get(root)
    }

    /// The newest message of the warning, whether it is in force or cancelled, and the record with the whole of it.
    pub fn newest(&self, root: &str) -> Option<(&Told, Option<Pos>)> {
        let in_force = self.table.get(root).map(|w| (&w.told, w.written));
        in_force.or_else(|| self.cancelled.get(root).map(|c| (&c.told, c.written)))
    }

    pub fn cancelled(&self) -> impl Iterator<Item = &Cancelled> {
        self.cancelled.values()
    }

    /// The warnings in force that have come to these messages, [`CHAINS_MAX`] at most, and the messages that none has
    /// come to.
    pub fn referred(&self, keys: &[String]) -> (Vec<&Warning>, Vec<String>) {
        let mut held: Vec<&Warning> = Vec::new();
        let mut unknown = Vec::new();
        for key in keys {
            match self.table.values().find(|w| w.keys.contains(key)) {
                None => unknown.push(key.clone()),
                Some(w) if held.iter().all(|known| known.told.root != w.told.root) => held.push(w),
                Some(_) => {}
            }
        }
        held.truncate(CHAINS_MAX);
        (held, unknown)
    }

    /// The warning that was cancelled and has come to any of these messages, by its first.
    pub fn cancelled_of(&self, keys: &[String]) -> Option<&String> {
        self.cancelled.iter().find(|(_, c)| keys.iter().any(|key| c.keys.contains(key))).map(|(root, _)| root)
    }

    /// With all below this node?
    pub fn was_cancelled(&self, key: &String) -> bool {
        self.cancelled.values().any(|c| c.is_of(&self.me) && c.keys.contains(key))
    }

    /// When the cancellation was sent that is newer than this message of the warning, as it comes from that node.
    pub fn cancelled_at(&self, by: &Address, told: &Told) -> Option<DateTime<Utc>> {
        let cancelled = self.cancelled.get(&told.root).filter(|c| c.is_of(by));
        cancelled.map(|c| c.told.sent).filter(|at| told.sent <= *at)
    }

    /// Is what is in force of the warning newer than this message of it?
    pub fn is_overtaken(&self, told: &Told) -> bool {
        self.table.get(&told.root).is_some_and(|known| known.told.sent > told.sent)
    }

    pub fn next_end_us(&self) -> Option<i64> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// What has expired by then, first what did so first.
    pub fn expired(&self, now_us: i64) -> impl Iterator<Item = &Told> {
        let over = self.ends.iter().take_while(move |(at, _)| *at <= now_us);
        over.filter_map(|(_, root)| Some(&self.table.get(root)?.told))
    }

    pub fn outcome(&self, by: &Address, told: &Told) -> Outcome {
        let is_below = is_below(&self.me, by);
        let is_word_of_it = !matches!(told.msg_type.as_str(), "Cancel" | "Expired");
        if is_word_of_it && self.cancelled_at(by, told).is_some() {
            return Outcome::GoesOn(None);
        }
        let Some(known) = self.table.get(&told.root) else {
            return match told.msg_type.as_str() {
                "Cancel" if !is_below || !told.came_in.is_empty() => Outcome::Ends,
                "Cancel" | "Expired" => Outcome::GoesOn(None),
                _ => Outcome::Holds(moved_on(&self.me, &Holders::new(), by, told)),
            };
        };
        match told.msg_type.as_str() {
            "Expired" => Outcome::Lapses,
            "Cancel" if is_below => {
                let others = known.holders.iter().filter(|(node, _)| !by.covers(node));
                let others: Holders = others.map(|(node, sent)| (node.clone(), *sent)).collect();
                if others.is_empty() { Outcome::Ends } else { Outcome::GoesOn(Some(others)) }
            }
            "Cancel" if self.is_overtaken(told) => Outcome::GoesOn(None),
            "Cancel" => Outcome::Ends,
            _ => {
                let is_behind = |(node, sent): (&Address, &DateTime<Utc>)| !by.covers(node) && *sent < told.sent;
                let is_newer = told.sent > known.told.sent;
                let waits = is_below && is_newer && known.holders.iter().any(is_behind);
                // Of one message the worst word counts: areas of several levels are told each their own.
                let is_milder = told.key == known.told.key && told.level > known.told.level;
                let holders = moved_on(&self.me, &known.holders, by, told);
                let goes_on = waits || is_milder || self.is_overtaken(told);
                if goes_on { Outcome::GoesOn(Some(holders)) } else { Outcome::Holds(holders) }
            }
        }
    }

    /// The word of that node is in the log, at `pos`.
    pub fn take(&mut self, by: &Address, told: Told, pos: Pos) {
        let written = (!told.message.is_null()).then_some(pos);
        let outcome = self.outcome(by, &told);
        if matches!(outcome, Outcome::Ends | Outcome::Holds(_) | Outcome::GoesOn(Some(_))) {
            match told.msg_type.as_str() {
                "Cancel" => self.cancel(by, &told, written),
                _ => self.uncancel(by, &told.root),
            }
        }
        match outcome {
            Outcome::GoesOn(None) => {}
            Outcome::GoesOn(Some(holders)) => self.note(&told.root, told.nodes, holders),
            Outcome::Ends | Outcome::Lapses => self.remove(&told.root),
            Outcome::Holds(holders) => self.put(told, by, holders, written),
        }
    }

    fn note(&mut self, root: &str, nodes: Vec<Address>, holders: Holders) {
        if let Some(known) = self.table.get_mut(root) {
            known.holders = holders;
            known.told.nodes = joined(&self.me, &known.told.nodes, nodes);
            self.dirty.insert(root.to_owned());
        }
    }

    fn put(&mut self, told: Told, by: &Address, holders: Holders, written: Option<Pos>) {
        // Told again without the message, it is still where it was.
        let same = self.table.get(&told.root).filter(|known| known.told.key == told.key);
        let written = written.or_else(|| same.and_then(|known| known.written));
        let told = Told { message: Value::Null, xml: String::new(), came_in: Vec::new(), ..told };
        let known = self.table.get(&told.root).filter(|_| *by != self.me);
        let nodes = known.map(|w| joined(&self.me, &w.told.nodes, told.nodes.clone()));
        let told = Told { nodes: nodes.unwrap_or(told.nodes), ..told };
        let mut keys = self.table.get(&told.root).map(|w| w.keys.clone()).unwrap_or_default();
        if !keys.contains(&told.key) {
            keys.push(told.key.clone());
        }
        let root = told.root.clone();
        bound(&mut keys, &root);
        self.remove(&root);
        self.ends.insert((told.expires.timestamp_micros(), root.clone()));
        self.table.insert(root, Warning { told, keys, holders, written });
        if self.table.len() > WARNINGS_MAX
            && let Some((_, first)) = self.ends.first().cloned()
        {
            self.remove(&first);
        }
    }

    /// Keeps that it is cancelled at that node and below; what is in force at others is not touched.
    fn cancel(&mut self, by: &Address, told: &Told, written: Option<Pos>) {
        let known = self.table.get(&told.root);
        let mut keys = known.map(|w| w.keys.clone()).unwrap_or_default();
        let believed = known.map(|w| w.told.expires);
        let earlier = self.cancelled.remove(&told.root);
        keys.extend(earlier.iter().flat_map(|c| c.keys.iter().cloned()).chain([told.root.clone(), told.key.clone()]));
        keys.sort_by(|a, b| (sent_at(a), a).cmp(&(sent_at(b), b)));
        keys.dedup();
        bound(&mut keys, &told.root);
        // One from above is for all of this node.
        let of = within(&self.me, by).into_iter().collect();
        let of = joined(&self.me, earlier.as_ref().map_or(&[], |c| &c.of), of);
        let expires = [believed, earlier.as_ref().map(|c| c.told.expires)].into_iter().flatten();
        let expires = expires.fold(told.expires, DateTime::max);
        let told = Told { message: Value::Null, xml: String::new(), came_in: Vec::new(), ..told.clone() };
        // Told again without the message, it is still where it was.
        let is_kept = |c: &Cancelled| c.told.sent > told.sent || (c.told.key == told.key && written.is_none());
        let (newest, written) = match earlier.filter(is_kept) {
            Some(earlier) => (earlier.told, earlier.written),
            None => (told, written),
        };
        let root = newest.root.clone();
        self.dirty.insert(root.clone());
        self.cancelled.insert(root, Cancelled { told: Told { expires, ..newest }, keys, of, written });
        if self.cancelled.len() > WARNINGS_MAX
            && let Some(first) = self.cancelled.iter().min_by_key(|(_, c)| c.told.expires).map(|(root, _)| root.clone())
        {
            self.cancelled.remove(&first);
            self.dirty.insert(first);
        }
    }

    /// A newer message of that node, for it and all below it.
    fn uncancel(&mut self, by: &Address, root: &str) {
        let Some(cancelled) = self.cancelled.get_mut(root) else { return };
        cancelled.of.retain(|of| !of.covers(by) && !by.covers(of));
        if cancelled.of.is_empty() {
            self.cancelled.remove(root);
        }
        self.dirty.insert(root.to_owned());
    }

    fn remove(&mut self, root: &str) {
        self.dirty.insert(root.to_owned());
        if let Some(old) = self.table.remove(root) {
            self.ends.remove(&(old.told.expires.timestamp_micros(), root.to_owned()));
        }
    }

    pub fn take_rows(&mut self) -> Vec<Row> {
        let row = |root: String| {
            let (warning, cancelled) = (self.table.get(&root).cloned(), self.cancelled.get(&root).cloned());
            let kept = (warning.is_some() || cancelled.is_some()).then_some(Kept { warning, cancelled });
            (root.into_bytes(), kept.map(|k| serde_json::to_vec(&k).expect("rows have string keys only")))
        };
        std::mem::take(&mut self.dirty).into_iter().map(row).collect()
    }

    pub fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let Kept { warning, cancelled } = serde_json::from_slice(value).map_err(|e| e.to_string())?;
        let root = String::from_utf8_lossy(key).into_owned();
        if let Some(warning) = warning {
            self.ends.insert((warning.told.expires.timestamp_micros(), root.clone()));
            self.table.insert(root.clone(), warning);
        }
        self.cancelled.extend(cancelled.map(|cancelled| (root, cancelled)));
        Ok(())
    }
}

pub(super) fn is_below(me: &Address, node: &Address) -> bool {
    me != node && me.covers(node)
}

/// What of these nodes, each with all below it, is at or below this one.
pub(super) fn all_within(me: &Address, nodes: &[Address]) -> Vec<Address> {
    let mut nodes = nodes.iter().filter_map(|node| within(me, node)).collect();
    areas::topmost(&mut nodes);
    nodes
}

/// What of the node, and all below it, is at or below this one.
pub(super) fn within(me: &Address, node: &Address) -> Option<Address> {
    if node.covers(me) { Some(me.clone()) } else { Some(node.clone()).filter(|node| me.covers(node)) }
}

/// These nodes and those, each with all below it; of too many, all.
fn joined(me: &Address, known: &[Address], more: Vec<Address>) -> Vec<Address> {
    let mut nodes = [known, &more].concat();
    areas::topmost(&mut nodes);
    if nodes.len() > TARGETS_MAX { vec![me.clone()] } else { nodes }
}

/// With the word of this node, which all below it have heard, or of those for whom it speaks.
fn moved_on(me: &Address, holders: &Holders, by: &Address, told: &Told) -> Holders {
    let (mut holders, sent) = (holders.clone(), told.sent);
    let theirs = if told.came_in.is_empty() { std::slice::from_ref(by) } else { &told.came_in };
    for node in theirs {
        holders.entry(node.clone()).or_insert(sent);
    }
    for (_, known) in holders.iter_mut().filter(|(node, _)| by.covers(node)) {
        *known = sent.max(*known);
    }
    // So many have it that it is this node's.
    if holders.len() > TARGETS_MAX { Holders::from([(me.clone(), sent)]) } else { holders }
}

/// The message that was sent first.
pub(super) fn first(keys: &[String]) -> Option<&String> {
    keys.iter().min_by_key(|key| sent_at(key))
}

/// The time of a message, which sorts as text.
fn sent_at(key: &str) -> Option<&str> {
    key.rsplit(',').next()
}

/// Of a chain too long, what is referred to is kept: its root, and the newest of its messages, which come last.
pub(super) fn bound(keys: &mut Vec<String>, root: &str) {
    let mut over = keys.len().saturating_sub(KEYS_MAX);
    keys.retain(|key| {
        let goes = over > 0 && key != root;
        over -= usize::from(goes);
        !goes
    });
}
