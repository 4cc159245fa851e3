//! A node decides and answers.
//!
//! | module | what it owns |
//! |---|---|
//! | [`run`] | the only place that wires and spawns |
//! | [`ctx`], [`turns`] | what a node is asked by, and what those who ask may hold at a time |
//! | [`codes`], [`files`] | why a node ended; how many files it may open |
//! | [`config`] | config files from disk, and drawing what is wrong in them |
//! | [`brain`] | rules, alarms, cases: what the node decides by itself |
//! | [`cap`] | messages of the Common Alerting Protocol, read and written |
//! | [`certificates`] | which certificates a config names, and until when they are good |
//! | [`check`] | all that a start would find wrong, without starting |
//! | [`announce`] | Home Assistant hears how the node is |
//! | [`api`] | HTTP: health, metrics, the JSON API |
//! | [`ask`] | the API's client |
//! | [`https`] | whom a client of HTTPS trusts |
//! | [`logging`] | the process's log output: its level, its last lines |
//! | [`doctor`] | what is wrong with a node or its host, and what to do |
//! | [`tokens`] | who may ask a node over HTTP |
//! | [`demo`] | a whole city of real processes, broken and counted |
//! | [`bring`] | cases of another system, brought into a tree |
//! | [`replay`] | plays a file of rows into a running node |
//! | [`mqtt_publisher`] | a sender that keeps what is not acknowledged |
//! | [`webhook`] | events POSTed to another platform |
//! | [`replace`] | a file of ours changed in one step |
//! | `program_pages` | memory of the program's text that is given back |
//! | [`cli`] | the command line: one file a noun, one that prints |
//!
//! Deliberately absent: how records are kept and moved (that is the hub's), and any second road to
//! an answer: the CLI asks the API, and both speak in `citybrain_shared::view`.

pub mod announce;
pub mod api;
pub mod ask;
pub mod brain;
pub mod bring;
pub mod cap;
pub mod certificates;
pub mod check;
pub mod cli;
pub mod codes;
pub mod config;
pub mod ctx;
pub mod demo;
pub mod doctor;
pub mod files;
pub mod https;
pub mod logging;
pub mod mqtt_publisher;
mod program_pages;
pub mod replace;
pub mod replay;
pub mod run;
pub mod tokens;
pub mod turns;
pub mod webhook;
