//! The nodes below, as they told of themselves, and those that are taken for gone.

use super::State;
use super::rows::Key;
use citybrain_shared::address::Tier;
use citybrain_shared::record::{Direction, Header};
use citybrain_shared::selector::Labels;
use citybrain_shared::{Address, Inc};
use serde::{Deserialize, Serialize};

/// Type of the event in which a node tells who it is.
pub const PRESENCE_TYPE: &str = "city.brain.node";
/// Type of the event in which a parent says that a child, with all below it, is gone for good.
pub const RETIRED_TYPE: &str = "city.brain.node.retired";
/// Type of the event in which it says that the child has come back all the same.
pub const RETURNED_TYPE: &str = "city.brain.node.returned";

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

/// A node that is taken for gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gone {
    /// It, or the one above it, that its parent took out of the tree: it is back together with that.
    pub with: Address,
    pub known: Known,
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

impl State {
    /// When something of that node, or of one below it that came by it, was committed last as far as is known here, µs
    /// since 1970: by this node's clock of a peer, else its presence by its own.
    pub fn heard_us(&self, node: &Address) -> Option<i64> {
        let by_link = self.peers.get(node).map(|p| p.heard_us);
        by_link.max(self.registry.get(node).map(|known| known.last_heard_us)).filter(|us| *us > 0)
    }

    pub(super) fn take_presence(&mut self, header: &Header<'_>, payload: &[u8]) {
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
                Some(gone) => {
                    self.dirty.insert(Key::Retired(data.address.clone()));
                    gone.known.ordinal
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
    pub(super) fn take_subtree(&mut self, header: &Header<'_>, payload: &[u8], is_gone: bool) {
        let Some(address) = subtree_of(self.address.as_ref(), header, payload) else { return };
        if is_gone {
            let gone: Vec<_> = self.registry.extract_if(.., |a, _| address.covers(a)).collect();
            for (node, known) in gone {
                self.dirty.extend(self.directives.excuse(known.ordinal).into_iter().map(Key::Directive));
                self.dirty.extend([Key::Known(node.clone()), Key::Retired(node.clone())]);
                self.retired.insert(node, Gone { with: address.clone(), known });
            }
        } else {
            let back: Vec<_> = self.retired.extract_if(.., |_, gone| gone.with == address).collect();
            for (node, Gone { known, .. }) in back {
                self.dirty.extend([Key::Known(node.clone()), Key::Retired(node.clone())]);
                self.registry.insert(node, known);
            }
        }
        if is_gone && header.origin.is_none() && self.peers.contains_key(&address) {
            self.peer(&address).retired = true;
        }
    }
}

/// Whom a [`RETIRED_TYPE`] or a [`RETURNED_TYPE`] at the node `me` is about, with all below it; `None`: whoever says
/// so is not its parent.
///
/// [`RETIRED_TYPE`]: super::RETIRED_TYPE
/// [`RETURNED_TYPE`]: super::RETURNED_TYPE
pub fn subtree_of(me: Option<&Address>, header: &Header<'_>, payload: &[u8]) -> Option<Address> {
    #[derive(Deserialize)]
    struct Event {
        data: Subtree,
    }
    let Event { data: Subtree { address } } = serde_json::from_slice(payload).ok()?;
    let by = match header.origin {
        Some(o) => Address::parse(o.address).ok(),
        None => me.cloned(),
    };
    (header.direction != Direction::Down && by.is_some() && by == address.parent()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::record::{Kind, Origin};
    use citybrain_shared::{LogId, Pos};

    #[test]
    fn a_node_that_is_back_leaves_those_below_it_out_that_were_taken_out_before() {
        let address = |text: &str| Address::parse(text).unwrap();
        let mut state = State { address: Some(address("c")), ..State::default() };
        for (i, node) in ["c", "c/s", "c/s/x", "c/s/y"].into_iter().enumerate() {
            let known = Known {
                ordinal: i as u32,
                name: String::new(),
                tier: address(node).tier(),
                code: None,
                labels: Labels::default(),
                inc: Inc(1),
                version: String::new(),
                last_heard_us: 0,
            };
            state.registry.insert(address(node), known);
        }
        let mut say = |by: &str, of: &str, is_gone: bool| {
            let origin = (by != "c").then_some(Origin { address: by, log: LogId(1), pos: Pos(1) });
            let kind = if is_gone { RETIRED_TYPE } else { RETURNED_TYPE };
            let header = Header { origin, direction: Direction::Up, ..Header::local(Kind::Event, kind) };
            let payload = serde_json::json!({ "data": Subtree { address: address(of) } }).to_string();
            state.take_subtree(&header, payload.as_bytes(), is_gone);
            state.registry.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(say("c/s", "c/s/x", true), ["c", "c/s", "c/s/y"]);
        assert_eq!(say("c", "c/s", true), ["c"]);
        assert_eq!(say("c", "c/s", false), ["c", "c/s", "c/s/y"], "nobody has brought `x` back");
        assert_eq!(say("c/s", "c/s/x", false), ["c", "c/s", "c/s/x", "c/s/y"]);
    }
}
