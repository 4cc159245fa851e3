//! How two nodes agree on a session: who speaks, what each side holds, and why one is refused.

use crate::address::Address;
use crate::ids::{Boot, Inc, LogId, Pos};
use crate::view::Unheard;
use serde::{Deserialize, Serialize};

/// Who speaks: in every message, so that late ones of an older connection are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Party {
    pub inc: Inc,
    pub boot: Boot,
}

/// A sign of life. A child says with it whom below it it does not hear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alive {
    pub from: Party,
    /// The topmost of them, as many as fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<Unheard>,
    /// How many more there are.
    #[serde(default)]
    pub unheard_more: u64,
}

impl Alive {
    /// Of a node that tells nothing else.
    pub fn of(from: Party) -> Alive {
        Alive { from, unheard: Vec::new(), unheard_more: 0 }
    }
}

/// What a receiver holds of a sender's lane, or a sender knows that a receiver holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub log: LogId,
    /// Everything up to and including this position is durable at the receiver.
    pub upto: Pos,
    /// The sender's chain hash at `upto`; 0 at position 0.
    pub chain: u64,
}

/// A continuous history and where in the sender's log it begins (the first position under it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    pub log: LogId,
    pub first: Pos,
}

/// A start and the first position that it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootMark {
    pub boot: Boot,
    pub first: Pos,
}

/// A child asks its parent for a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub from: Party,
    pub address: Address,
    pub name: String,
    pub version_min: u8,
    pub version_max: u8,
    /// Largest message that the child accepts, bytes.
    pub message_bytes_max: u32,
    /// In session it says at least so often that it is there, ms.
    pub alive_every_ms: u64,
    /// The child's current history.
    pub epoch: Epoch,
    /// The child's oldest retained and its newest durable position.
    pub first: Pos,
    pub last: Pos,
    /// Its latest starts, oldest first.
    pub boots: Vec<BootMark>,
    /// The parent that acknowledged last, and what it acknowledged, by lane (urgent, routine).
    pub peer: Option<Inc>,
    pub peer_has: [Option<Cursor>; 2],
    /// What the child holds of this parent's downward lanes (urgent, routine).
    pub has: [Option<Cursor>; 2],
    /// Starts of the parent that the child has seen, newest last.
    pub peer_boots: Vec<Boot>,
    /// Counts the hellos of one start; the answer names it, so that an answer to an older hello
    /// (a retained one, most often) is told apart.
    #[serde(default)]
    pub id: u64,
    /// All histories of the child's log, oldest first; the last is `epoch`.
    #[serde(default)]
    pub epochs: Vec<Epoch>,
    /// The child's chain hash at positions that the parent asked for; `None` where it is trimmed.
    #[serde(default)]
    pub proofs: Vec<(Pos, Option<u64>)>,
    /// `epoch` was minted because the parent's refusal named this history.
    #[serde(default)]
    pub minted_for: Option<LogId>,
    /// Address of the parent in `peer`: another one than the receiver's if the child has moved.
    #[serde(default)]
    pub peer_address: Option<Address>,
}

/// The parent grants a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub from: Party,
    /// The hello's boot that is answered.
    pub to: Boot,
    pub address: Address,
    pub version: u8,
    pub message_bytes_max: u32,
    /// As in [`Hello`], of the parent.
    pub alive_every_ms: u64,
    /// Fencing number: grows with each grant for this child address.
    pub lease: u64,
    pub epoch: Epoch,
    pub first: Pos,
    pub last: Pos,
    /// What the parent holds of the child's lanes (urgent, routine): the child sends from there.
    pub has: [Cursor; 2],
    /// Frames that the child may have under way on each lane.
    pub credit: u16,
    /// [`Hello::id`] of the hello that is answered.
    #[serde(default)]
    pub answers: u64,
    /// Where the parent starts on its downward lanes (urgent, routine): the child sets its cursors
    /// there.
    #[serde(default)]
    pub sends: [Option<Cursor>; 2],
    /// The parent's latest starts, oldest first.
    #[serde(default)]
    pub boots: Vec<BootMark>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refuse {
    pub from: Party,
    pub to: Boot,
    pub reason: Reason,
    /// One sentence for people.
    pub detail: String,
    /// For `past` and `forked`: starts of the refused node that the refuser has seen.
    #[serde(default)]
    pub boots: Vec<Boot>,
    /// [`Hello::id`] of the hello that is answered; 0 if a frame is.
    #[serde(default)]
    pub answers: u64,
    /// For `prove`: positions of the refused node's log whose chain hash the next hello must give.
    #[serde(default)]
    pub prove: Vec<Pos>,
    /// For `past` and `forked`: what the refuser holds of the refused node (urgent, routine).
    #[serde(default)]
    pub held: [Option<Cursor>; 2],
}

impl Refuse {
    /// A refusal of a frame; the caller sets what a refused hello needs besides.
    pub fn new(from: Party, to: Boot, reason: Reason, detail: impl Into<String>) -> Refuse {
        Refuse {
            from,
            to,
            reason,
            detail: detail.into(),
            boots: Vec::new(),
            answers: 0,
            prove: Vec::new(),
            held: [None; 2],
        }
    }
}

/// Why a session is refused. The names are shown by `links` and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The refuser holds positions that the other has not written yet: it was restored from a backup.
    Past,
    /// Same history and position, other content: a cloned disk or a restored backup that went on.
    Forked,
    /// Another node holds this address and is alive.
    Duplicate,
    /// The boot that speaks is older than one already seen.
    Stale,
    /// A new incarnation under a known address, and config demands that an operator approves it.
    Unenrolled,
    /// No version that both speak.
    Version,
    /// The address is no child of the refuser.
    WrongParent,
    /// The session is unknown here (restart): say hello again.
    Unknown,
    /// The refuser cannot write at the moment.
    Unavailable,
    /// Not a refusal yet: say hello again, with the chain hashes that are asked for.
    Prove,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Past => "past",
            Reason::Forked => "forked",
            Reason::Duplicate => "duplicate",
            Reason::Stale => "stale",
            Reason::Unenrolled => "unenrolled",
            Reason::Version => "version",
            Reason::WrongParent => "wrong-parent",
            Reason::Unknown => "unknown",
            Reason::Unavailable => "unavailable",
            Reason::Prove => "prove",
        }
    }
}
