//! Directives, and their receipts folded into counts.

use super::State;
use super::rows::Key;
use citybrain_shared::event::{self, Envelope};
use citybrain_shared::prefix::{self, Named};
use citybrain_shared::record::Header;
use citybrain_shared::selector::Selector;
use citybrain_shared::{Address, Pos, limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Type of the event that answers a directive.
pub const RECEIPT_TYPE: &str = "city.brain.receipt";

/// The body of a receipt's `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub node: Address,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a node says of a directive. A later word does not undo an earlier one: `done` follows
/// `delivered`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Committed at the node that it was for, in time.
    Delivered,
    Done,
    Failed,
    /// It came too late and was not executed.
    Expired,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Delivered => "delivered",
            Status::Done => "done",
            Status::Failed => "failed",
            Status::Expired => "expired",
        }
    }
}

/// A set of nodes, by their ordinal in the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nodes(Vec<u64>);

impl Nodes {
    pub fn insert(&mut self, ordinal: u32) -> bool {
        let (word, bit) = (ordinal as usize / 64, 1u64 << (ordinal % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    pub fn remove(&mut self, ordinal: u32) -> bool {
        let was = self.contains(ordinal);
        if was {
            self.0[ordinal as usize / 64] &= !(1u64 << (ordinal % 64));
        }
        was
    }

    pub fn contains(&self, ordinal: u32) -> bool {
        self.0.get(ordinal as usize / 64).is_some_and(|w| w & (1u64 << (ordinal % 64)) != 0)
    }

    pub fn len(&self) -> u64 {
        self.0.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Directive {
    pub pos: Pos,
    #[serde(rename = "type")]
    pub kind: String,
    pub origin: Address,
    pub target: String,
    pub is_command: bool,
    pub issued_us: i64,
    /// Nodes of this subtree that it is for, as far as they are known: those that the selector named
    /// when it was committed here, and whoever has answered since.
    pub expected: Nodes,
    pub delivered: Nodes,
    pub done: Nodes,
    pub failed: Nodes,
    pub expired: Nodes,
}

impl Directive {
    /// Takes a receipt; false if this node's word was known.
    pub fn take(&mut self, ordinal: u32, status: Status) -> bool {
        self.expected.insert(ordinal);
        match status {
            Status::Delivered => &mut self.delivered,
            Status::Done => &mut self.done,
            Status::Failed => &mut self.failed,
            Status::Expired => &mut self.expired,
        }
        .insert(ordinal)
    }

    /// How many were expected and have not been heard of.
    pub fn silent(&self) -> u64 {
        let heard = [&self.delivered, &self.done, &self.failed, &self.expired];
        let silent = self.expected.0.iter().enumerate().map(|(i, expected)| {
            let heard = heard.iter().fold(0, |all, set| all | set.0.get(i).copied().unwrap_or(0));
            u64::from((expected & !heard).count_ones())
        });
        silent.sum()
    }

    fn has_heard(&self, ordinal: u32) -> bool {
        [&self.delivered, &self.done, &self.failed, &self.expired].iter().any(|set| set.contains(ordinal))
    }

    /// Everybody expected has answered at least "delivered" or "expired".
    pub fn is_settled(&self) -> bool {
        let answered = |i: usize| {
            let word = |n: &Nodes| n.0.get(i).copied().unwrap_or(0);
            word(&self.delivered) | word(&self.expired) | word(&self.done) | word(&self.failed)
        };
        self.expected.0.iter().enumerate().all(|(i, want)| want & !answered(i) == 0)
    }
}

/// Directives by id, bounded: the oldest settled one gives way first, else the oldest.
#[derive(Clone, Debug, Default)]
pub struct Directives {
    by_id: BTreeMap<String, Directive>,
    by_age: BTreeMap<Pos, String>,
}

impl Directives {
    pub fn get(&self, id: &str) -> Option<&Directive> {
        self.by_id.get(id)
    }

    /// By the beginning of its id.
    pub fn named(&self, text: &str) -> Named<(&str, &Directive)> {
        let rest = self.by_id.range::<str, _>((Bound::Included(text), Bound::Unbounded));
        prefix::named(text, rest.map(|(id, d)| (id.as_str(), (id.as_str(), d))))
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut Directive> {
        self.by_id.get_mut(id)
    }

    /// Nobody waits for this node's answers any more. The ids of the directives that did.
    pub fn excuse(&mut self, ordinal: u32) -> Vec<String> {
        let excuse = |(id, d): (&String, &mut Directive)| {
            (!d.has_heard(ordinal) && d.expected.remove(ordinal)).then(|| id.clone())
        };
        self.by_id.iter_mut().filter_map(excuse).collect()
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &Directive)> {
        self.by_age.values().filter_map(|id| self.by_id.get(id).map(|d| (id.as_str(), d)))
    }

    /// Those committed before this position, newest first; without it all.
    pub fn before(&self, pos: Option<Pos>) -> impl Iterator<Item = (&str, &Directive)> {
        let ages = self.by_age.range(..pos.unwrap_or(Pos(u64::MAX)));
        ages.rev().filter_map(|(_, id)| self.by_id.get(id).map(|d| (id.as_str(), d)))
    }

    /// Adds one; returns the id that had to give way.
    pub fn insert(&mut self, id: String, directive: Directive, kept_max: usize) -> Option<String> {
        self.by_age.insert(directive.pos, id.clone());
        // Another source's, or one whose first was trimmed: receipts name the id alone, and count for
        // the newest.
        if let Some(before) = self.by_id.insert(id, directive) {
            self.by_age.remove(&before.pos);
        }
        if self.by_id.len() <= kept_max {
            return None;
        }
        // Looking at a few of the oldest is enough: what is settled settles in order of age.
        let settled = self.by_age.iter().take(64).find(|(_, id)| self.by_id.get(*id).is_none_or(Directive::is_settled));
        let pos = *settled.or_else(|| self.by_age.iter().next())?.0;
        let gone = self.by_age.remove(&pos)?;
        self.by_id.remove(&gone);
        Some(gone)
    }
}

impl State {
    pub(super) fn take_directive(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        let Ok(event) = Envelope::parse(payload) else { return };
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
            is_command: event.directive() == event::Directive::Command,
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

    pub(super) fn take_receipt(&mut self, header: &Header<'_>, payload: &[u8]) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directive(pos: u64) -> Directive {
        Directive {
            pos: Pos(pos),
            kind: "city.notice".into(),
            origin: Address::parse("c").unwrap(),
            target: "c/**".into(),
            is_command: false,
            issued_us: 0,
            expected: Nodes::default(),
            delivered: Nodes::default(),
            done: Nodes::default(),
            failed: Nodes::default(),
            expired: Nodes::default(),
        }
    }

    #[test]
    fn a_receipt_counts_once_and_all_of_them_settle() {
        let mut d = directive(1);
        d.expected.insert(0);
        d.expected.insert(70);
        assert!(!d.is_settled());
        assert!(d.take(0, Status::Delivered));
        assert!(!d.take(0, Status::Delivered));
        assert!(d.take(70, Status::Expired));
        assert!(d.is_settled());
        assert_eq!((d.delivered.len(), d.expected.len()), (1, 2));
        // One that was not known when the directive was committed.
        assert!(d.take(9, Status::Delivered));
        assert_eq!((d.delivered.len(), d.expected.len()), (2, 3));
    }

    #[test]
    fn an_id_that_comes_again_has_one_age() {
        let mut all = Directives::default();
        for pos in 1..=3 {
            assert_eq!(all.insert("same".into(), directive(pos), 2), None);
        }
        all.insert("other".into(), directive(4), 2);
        assert_eq!(all.iter().map(|(id, d)| (id, d.pos)).collect::<Vec<_>>(), [("same", Pos(3)), ("other", Pos(4))]);
        assert_eq!(all.insert("new".into(), directive(5), 2).as_deref(), Some("same"));
    }

    #[test]
    fn the_oldest_settled_directive_gives_way_first() {
        let mut all = Directives::default();
        let mut open = directive(1);
        open.expected.insert(3);
        all.insert("open".into(), open, 2);
        all.insert("settled".into(), directive(2), 2);
        assert_eq!(all.insert("new".into(), directive(3), 2).as_deref(), Some("settled"));
        assert_eq!(all.iter().map(|(id, _)| id).collect::<Vec<_>>(), ["open", "new"]);
    }
}
