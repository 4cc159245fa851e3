//! The language of citybrain, spoken by every other crate.
//!
//! | module | what it says |
//! |---|---|
//! | [`address`] | who: a node's place in the tree, and its tier |
//! | [`selector`] | whom a downward message is for |
//! | [`event`] | what: a CloudEvents 1.0 object, parsed once, where it enters |
//! | [`record`] | how an event lies in a log: a small header and the event's own bytes |
//! | [`wire`] | how records cross a link: frames, hellos, acknowledgements |
//! | [`topic`] | MQTT topics and filters: rules, matching, and the names of ours |
//! | [`case`] | a matter that somebody must deal with: its facts, clocks and steps |
//! | [`config`] | a node's TOML file, typed |
//! | [`battery`] | how a device's battery is, and the words in which it says so |
//! | [`danger`] | what devices warn of, and the words in which they do |
//! | [`prefix`] | which id is meant by its beginning, as people write them |
//! | [`ids`] | positions, lanes, incarnations, boots and logs, each a type of its own |
//! | [`limits`] | bounds that several parts share, each with its unit and its reason |
//! | [`view`] | answers: what the API and the CLI show |
//! | [`words`] | numbers, lengths of time, sizes, texts from outside and errors, as people are shown them |
//!
//! Deliberately absent: I/O, async, clocks and random sources. Whoever needs "now" passes it in.

pub mod address;
pub mod battery;
pub mod case;
pub mod config;
pub mod danger;
pub mod event;
pub mod ids;
pub mod limits;
pub mod prefix;
pub mod record;
#[cfg(feature = "schema")]
mod schema;
pub mod selector;
pub mod topic;
pub mod view;
pub mod wire;
pub mod words;

pub use address::{Address, Tier};
pub use ids::{Boot, Inc, Lane, LogId, Pos};
pub use selector::Selector;
