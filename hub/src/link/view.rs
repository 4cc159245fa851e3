//! What engineers see of a node's links.

use citybrain_shared::wire::Reason;
use citybrain_shared::{Address, Inc, Pos};
use parking_lot::RwLock;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The link to the parent.
    Up,
    /// A link to a child.
    Down,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Stage {
    /// No connection to the broker, or waiting to try again.
    #[default]
    Connecting,
    /// Connected; the hello is not answered yet.
    Hello,
    /// In session.
    Up,
    Refused {
        reason: Reason,
        detail: String,
    },
    /// Said bye, or its connection broke.
    Away,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LaneView {
    /// The peer has everything up to here on disk.
    pub acked_pos: Pos,
    pub sent_pos: Pos,
    /// The log was looked through for the peer up to here.
    pub looked_pos: Pos,
    pub in_flight_frames: usize,
    pub in_flight_records: u64,
    pub credit_frames: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkView {
    pub peer: Address,
    pub role: Role,
    #[serde(flatten)]
    pub stage: Stage,
    pub urgent: LaneView,
    pub routine: LaneView,
    /// Newest position that the link knows of.
    pub last_pos: Pos,
    /// Positions not looked at yet: no fewer than the records that are still to be sent.
    pub unsent_positions_max: u64,
    pub sent_records: u64,
    pub sent_bytes: u64,
    pub received_frames: u64,
    pub received_bytes: u64,
    pub resends: u64,
    pub expired_records: u64,
    /// Of an older connection or session.
    pub late_acks: u64,
    /// Messages that did not decode, or were not for this link.
    pub bad_messages: u64,
    pub rtt_ms: Option<f64>,
    /// By the time of the snapshot; `None` if never.
    pub last_heard_ms_ago: Option<u64>,
    pub reconnects: u64,
    /// Why the last session or connection ended.
    pub last_reason: Option<String>,
    /// A child that an operator has to let in, for as long as it is connected.
    pub asking: Option<Asking>,
}

/// Who wants to be enrolled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asking {
    pub inc: Inc,
    /// As it says of itself.
    pub name: String,
}

impl LinkView {
    pub fn new(peer: Address, role: Role) -> LinkView {
        LinkView {
            peer,
            role,
            stage: Stage::Connecting,
            urgent: LaneView::default(),
            routine: LaneView::default(),
            last_pos: Pos::ZERO,
            unsent_positions_max: 0,
            sent_records: 0,
            sent_bytes: 0,
            received_frames: 0,
            received_bytes: 0,
            resends: 0,
            expired_records: 0,
            late_acks: 0,
            bad_messages: 0,
            rtt_ms: None,
            last_heard_ms_ago: None,
            reconnects: 0,
            last_reason: None,
            asking: None,
        }
    }
}

/// All links of a node, by peer. Written by the drivers a few times a second, cheap to read.
#[derive(Clone, Debug, Default)]
pub struct Links(Arc<RwLock<Rows>>);

/// A link, and when its peer was heard.
type Rows = BTreeMap<Address, (LinkView, Option<std::time::Instant>)>;

impl Links {
    /// A snapshot; each row is at most a quarter of a second old while its driver runs.
    pub fn links(&self) -> Vec<LinkView> {
        let heard = |at: &std::time::Instant| at.elapsed().as_millis() as u64;
        let rows = self.0.read();
        rows.values().map(|(v, at)| LinkView { last_heard_ms_ago: at.as_ref().map(heard), ..v.clone() }).collect()
    }

    pub(super) fn set(&self, view: &LinkView, heard: Option<std::time::Instant>) {
        self.0.write().insert(view.peer.clone(), (view.clone(), heard));
    }
}
