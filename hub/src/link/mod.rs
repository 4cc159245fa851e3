//! Child and parent: a pure protocol machine, and the drivers that do its I/O.
//!
//! **Promises.** Every record that is for the peer arrives there, once, in order within its lane,
//! whatever the network, the broker between them, or a crash of either side does; and a restored
//! backup of either side is noticed before it can do harm. What cannot be kept is recorded: a range
//! as `lost`, a record that is too large as a dead letter. One whose time was over before it could be sent is
//! only counted ([`view::LinkView::expired_records`], since the start): whoever made it said that nobody needs it then.
//!
//! **How.** A sender covers its log's positions lane by lane with frames, each beginning where the
//! one before ended; a receiver takes only the frame that begins at its cursor and commits records
//! and cursor in one group; acknowledgements are cumulative, end to end, and after the fsync. The
//! cursor carries the sender's chain hash, so "the same position" means "the same history".
//!
//! | file | what it owns |
//! |---|---|
//! | [`handshake`] | pure: how a session begins, and what each node must first do to its own log |
//! | [`sender`] | pure: windows, acknowledgements, going back, timers |
//! | [`pace`] | pure: how many bytes a line carries, and how many may be under way on it |
//! | [`frames`] | which records are for a peer, and how they become a frame |
//! | [`downward`] | what goes down, for all children at once |
//! | [`outbound`] | the sending half of a live link |
//! | [`uplink`] | the driver towards the parent |
//! | [`downlinks`] | the driver towards all children |
//! | [`driver`] | what both drivers share |
//! | [`pipe`] | the MQTT client, as a pipe only |
//! | [`unheard`] | who below is not heard, as each node tells its parent; never stored |
//! | [`ask`] | questions down the tree, answers up; never stored |
//! | [`view`] | what engineers see |
//! | [`backlog`] | what waits for whom, counted in the log |
//!
//! Deliberately absent: the receiving half. The engine is the receiver, because taking a frame is
//! part of its commit; what it asks of a frame is in [`crate::protocol`].
//!
//! **Known limit.** A node that is restored from backups several times in a row, to before the new
//! histories that it minted in between, and that meets peers that know different ones of them, may
//! send a record twice under two names. One restore of each side at any time is proven by simulation
//! (`tests/simulation.rs`).

pub mod ask;
pub mod backlog;
pub mod downlinks;
pub(crate) mod downward;
pub(crate) mod driver;
pub mod frames;
pub(crate) mod handshake;
pub(crate) mod outbound;
pub(crate) mod pace;
pub mod pipe;
pub(crate) mod sender;
#[cfg(test)]
mod tests;
pub(crate) mod unheard;
pub(crate) mod uplink;
pub mod view;

pub use downlinks::Downlinks;
pub use driver::Context;
pub use uplink::Uplink;
pub use view::Links;
