//! Who this node is, and what its parent and its children hold of it and it of them.

use super::State;
use super::rows::Key;
use super::slot;
use citybrain_shared::limits;
use citybrain_shared::wire::{BootMark, Cursor, Epoch, Party};
use citybrain_shared::{Address, Boot, Inc, Lane, LogId, Pos};
use serde::{Deserialize, Serialize};

/// Histories of one log whose names are kept. One is normal; each restored backup adds one or two.
pub(super) const EPOCHS_KEPT: usize = 64;

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
    /// The furthest that any box under its address has had of us, by lane. Only grows: an old hello of a box
    /// that is gone lowers `peer_has`, and so does a box that was restored.
    pub furthest: [Pos; 2],
    /// What that was when the incarnation of `peer_has` began.
    pub began: [Pos; 2],
    pub received: u64,
    pub dropped: u64,
    /// When something of it was committed here last, µs since 1970 by this node's clock; 0: never.
    pub heard_us: i64,
    /// An operator's last word on an incarnation of it, and whether that may come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled: Option<(Inc, bool)>,
    /// An operator has said that it will not come back, and it has not since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
}

impl Peer {
    /// Notes that `party` spoke for it; a new incarnation starts from nothing.
    pub(super) fn meet(&mut self, party: Party) {
        match self.party {
            Some(old) if old.inc != party.inc => {
                self.former.push(old.inc);
                let extra = self.former.len().saturating_sub(limits::BOOTS_KEPT);
                self.former.drain(..extra);
                self.boots.clear();
                self.has = [None, None];
            }
            _ => {}
        }
        self.party = Some(party);
        if party.boot != Boot::default() && !self.boots.contains(&party.boot) {
            self.boots.push(party.boot);
            let extra = self.boots.len().saturating_sub(limits::BOOTS_KEPT);
            self.boots.drain(..extra);
        }
    }

    /// Notes what `inc` has of us. Within a session it only grows. A session with a peer restored from a
    /// backup begins lower, and what it lost has to be kept for it.
    pub(crate) fn note_has(&mut self, inc: Inc, lane: Lane, cursor: Cursor) {
        if self.peer_has_inc != Some(inc) {
            self.peer_has = [None; 2];
            self.peer_has_inc = Some(inc);
            self.began = self.furthest;
        }
        self.peer_has[slot(lane)] = Some(cursor);
        let furthest = &mut self.furthest[slot(lane)];
        *furthest = cursor.upto.max(*furthest);
    }

    /// Where `inc` begins if it holds nothing of us: behind all that the boxes before it have had.
    pub(crate) fn begin_of(&self, inc: Inc, lane: Lane) -> Pos {
        let has_begun = self.peer_has_inc == Some(inc);
        if has_begun { self.began[slot(lane)] } else { self.furthest[slot(lane)] }
    }
}

impl State {
    pub(super) fn peer(&mut self, address: &Address) -> &mut Peer {
        self.dirty.insert(Key::Peer(address.clone()));
        self.peers.entry(address.clone()).or_default()
    }
}
