//! What the log adds up to.

use citybrain_shared::wire::{BootMark, Cursor, Epoch, Party};
use citybrain_shared::{Address, Boot, Inc, Lane, Pos};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// A fold over the log: `apply` alone changes it, with no clock and no config.
#[derive(Debug, Default)]
pub struct State {
    pub applied: Pos,
    pub me: Me,
    /// Peers by address: children and the parent, also former ones.
    pub peers: BTreeMap<Address, Peer>,
    /// Durable MQTT sessions by client id.
    pub sessions: HashMap<String, Session>,
    /// Retained messages by topic.
    pub retained: BTreeMap<String, Retained>,
}

/// This node's identity.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Me {
    pub inc: Inc,
    pub boot: Boot,
    /// Latest starts, oldest first, at most [`citybrain_shared::limits::BOOTS_KEPT`].
    pub boots: Vec<BootMark>,
    /// All histories of this log, oldest first; never empty once the node has started.
    pub epochs: Vec<Epoch>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Peer {
    /// Who spoke last.
    pub party: Option<Party>,
    /// Starts of the present incarnation that were seen, oldest first.
    pub boots: Vec<Boot>,
    /// Incarnations before this one.
    pub former: Vec<Inc>,
    /// The newest lease granted (children).
    pub lease: u64,
    /// What we hold of it, by lane.
    pub has: [Option<Cursor>; 2],
    /// What it holds of us, by lane, and which incarnation said so.
    pub peer_has: [Option<Cursor>; 2],
    pub peer_has_inc: Option<Inc>,
    pub received: u64,
    pub dropped: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Session {
    pub user: String,
    /// MQTT protocol level: 4 or 5.
    pub version: u8,
    pub expiry_s: u32,
    pub connected: bool,
    pub filters: BTreeMap<String, Subscription>,
    /// Everything up to here is settled for this session.
    pub upto: Pos,
    /// Settled beyond `upto`.
    pub beyond: Vec<Pos>,
    /// QoS 2 publishes received from it and not yet released.
    pub held: Vec<u16>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subscription {
    pub options: u8,
    pub id: Option<u32>,
    /// Only records after this position.
    pub since: Pos,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retained {
    pub pos: Pos,
    pub qos: u8,
    pub payload: bytes::Bytes,
    /// The door's own bytes of the publish.
    pub door: bytes::Bytes,
    pub committed_us: i64,
}

/// Which lane's slot in a pair.
pub fn slot(lane: Lane) -> usize {
    lane as usize
}
