//! The hub keeps records and moves them.
//!
//! | module | what it owns |
//! |---|---|
//! | [`log`] | the truth: append-only segment files, one writer, many readers |
//! | [`store`] | sled, and snapshots of what is in it (the only folder that names sled) |
//! | [`state`] | what the log adds up to: a fold, kept in memory, written behind to the store |
//! | [`note`] | the node's own bookkeeping, as records of the log |
//! | [`policy`] | where the node's own mind is plugged in |
//! | [`operator`] | what people did to a node, as events of its log |
//! | [`backup`] | copies of a data folder, and putting them back |
//! | [`portable`] | a log as one text file, and back |
//! | [`protocol`] | pure: what the engine asks of a frame that a link has brought |
//! | [`engine`] | the one writer: takes offers and frames, commits them in groups, then tells everybody |
//! | [`ingress`] | what came in at a door, made an event or a dead letter |
//! | [`files`] | one error for files and folders, and how a file is put there whole |
//! | [`stamp`] | by what a file is known to have changed |
//! | [`tls`] | TLS for the door and for links: certificates and keys from files |
//! | `meta` | what the door keeps in a record's header |
//! | [`broker`] | how another broker is reached: what every client of one has in common |
//! | [`door`] | MQTT 3.1.1 and 5.0 over the log |
//! | [`link`] | child and parent: a pure protocol machine, and the driver that does its I/O |
//!
//! Deliberately absent: rules, tier policy, HTTP, the CLI. It knows the attributes that route; what it reads of
//! an event's `data` all the same is listed in ARCHITECTURE.md, "Deliberately absent".

#![warn(unreachable_pub)]

pub mod backup;
pub mod broker;
pub mod door;
pub mod engine;
pub mod files;
pub mod ingress;
pub mod link;
pub mod log;
pub(crate) mod meta;
pub mod note;
pub mod operator;
pub mod policy;
pub mod portable;
pub mod protocol;
pub mod stamp;
pub mod state;
pub mod store;
pub mod tls;

pub use engine::Hub;
