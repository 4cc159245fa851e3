//! The engine: the one writer of the log and the one owner of the state.

use crate::log::Reader;
use crate::note::Note;
use crate::state::State;
use bytes::Bytes;
use citybrain_shared::record::Draft;
use citybrain_shared::wire::{Ack, Refuse};
use citybrain_shared::{Address, Pos};
use tokio::sync::{oneshot, watch};

/// What became of one offered record, after the fsync that covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed(Pos),
    /// An event with this source and id is in the log already, at this position.
    Duplicate(Pos),
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the node is stopping")]
    Stopping,
    /// Disk full, read-only or failing. Nothing of the offer is kept.
    #[error("the node cannot write its log: {0}")]
    Unwritable(String),
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// To be sent back: committed, duplicate or gap, it always says what is durable here.
    Ack(Ack),
    /// The session is not (or no longer) good.
    Refuse(Refuse),
    /// Damaged, or of an older connection: counted, to be dropped in silence.
    Ignore,
}

/// Completes after the fsync; in the order of the offers.
pub type Ticket<T> = oneshot::Receiver<Result<T, Error>>;

/// When a note must be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Commit it (fsync) before the ticket completes.
    Now,
    /// Write it soon, with whatever is committed next; the ticket completes once it is written,
    /// which survives a kill but not a power cut.
    Lazy,
}

/// A cheap handle on the engine. Cloned into every door and link.
#[derive(Clone)]
pub struct Hub {}

impl Hub {
    /// Offers records, each decided and committed on its own, in this order. Waits while the
    /// engine's queue is full: that is the back-pressure.
    ///
    /// # Errors
    /// [`Error::Stopping`]; the ticket may still answer [`Error::Unwritable`].
    pub async fn offer(&self, drafts: Vec<Draft>) -> Result<Ticket<Vec<Outcome>>, Error> {
        unimplemented!()
    }

    /// As [`Hub::offer`], for bookkeeping; the notes of one call are one group.
    pub async fn note(&self, notes: Vec<Note>, haste: Haste) -> Result<Ticket<()>, Error> {
        unimplemented!()
    }

    /// Hands in a frame (a whole wire message) of a peer: a child, or the parent.
    pub async fn receive(&self, peer: Address, message: Bytes) -> Result<Ticket<Received>, Error> {
        unimplemented!()
    }

    /// Reads the log, as far as it is durable. Clone it into each task that reads.
    pub fn reader(&self) -> Reader {
        unimplemented!()
    }

    /// The newest durable position; changes after each commit.
    pub fn committed(&self) -> watch::Receiver<Pos> {
        unimplemented!()
    }

    /// Looks at the state as of the newest commit. Keep `look` short: the engine waits meanwhile.
    pub fn state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        unimplemented!()
    }
}
