//! What the engine asks of a frame that a link has brought. Pure.
//!
//! | file | what it owns |
//! |---|---|
//! | [`judge`] | does a frame continue what is held, and what is said to it? |
//! | [`admit`] | may a record of it come from this peer, and is it one? |
//! | [`pack`] | frames' bodies by zstd |

pub mod admit;
pub(crate) mod judge;
pub mod pack;

pub use judge::Received;
