//! A node's TOML file, typed. Unknown keys are refused; every default loses no data.
//!
//! | module | what it does |
//! |---|---|
//! | here | what a file consists of, and its smaller sections |
//! | `broker` | the front door: listeners, rights |
//! | `maps` | how messages become events |
//! | [`parse()`] | text to [`Config`], with all problems and their places |
//! | [`presets`] | mappings and rules for devices from a shop, by name |
//! | [`Endpoint`], [`clash`], [`is_at`] | what addresses and ports mean |

mod broker;
pub mod cap;
pub mod cases;
mod endpoint;
mod maps;
mod parse;
pub mod presets;
pub mod rules;
pub mod services;
mod validate;

pub use broker::{Access, Broker, ClientName, Listener, Protocol, Role};
pub use endpoint::{Endpoint, clash, is_at};
pub use maps::{Format, Map, Preset, Priority, Reach};
pub use parse::{Parsed, Places, Problem, all_keys, closest, parse, rule_keys};

use crate::address::{Address, Tier};
use crate::selector::Labels;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub node: Node,
    #[serde(default)]
    pub broker: Broker,
    /// Further doors of the embedded broker.
    #[serde(default)]
    pub listener: Vec<Listener>,
    #[serde(default)]
    pub parent: Option<Parent>,
    #[serde(default)]
    pub link: Link,
    #[serde(default)]
    pub store: Store,
    #[serde(default)]
    pub api: Api,
    #[serde(default)]
    pub log: LogOutput,
    #[serde(default)]
    pub runtime: Runtime,
    #[serde(default)]
    pub access: Access,
    /// Rights that the users file gives by name.
    #[serde(default)]
    pub role: Vec<Role>,
    /// Mappings and rules for devices from a shop. What they stand for is behind the file's own
    /// entries in `map` and `rule`.
    #[serde(default)]
    pub preset: Vec<Preset>,
    /// How messages become events; the first whose filter matches wins.
    #[serde(default)]
    pub map: Vec<Map>,
    /// The highest tier that events of a type travel to; the first pattern that matches wins.
    #[serde(default)]
    pub reach: Vec<Reach>,
    /// Conditions over events, and what follows from them.
    #[serde(default)]
    pub rule: Vec<rules::Rule>,
    /// What cases are about.
    #[serde(default)]
    pub category: Vec<cases::Category>,
    #[serde(default)]
    /// Without one it is the nearest ancestor's that counts.
    pub calendar: Option<cases::Calendar>,
    #[serde(default)]
    pub cases: cases::Cases,
    /// What is offered to residents of this node and of all below it.
    #[serde(default)]
    pub service: Vec<services::Service>,
    /// What belongs together, on a map.
    #[serde(default)]
    pub scene: Vec<services::Scene>,
    #[serde(default)]
    pub cap: cap::Cap,
    #[serde(default)]
    pub open311: Open311,
    /// Platforms that are told of events.
    #[serde(default)]
    pub webhook: Vec<Webhook>,
    #[serde(default)]
    pub homeassistant: HomeAssistant,
    /// The file that this was read from, if it was one; not a key.
    #[serde(skip)]
    pub read_from: Option<ReadFrom>,
}

/// Where a config came from, so that it can be read again.
#[derive(Clone, Debug)]
pub struct ReadFrom {
    pub path: PathBuf,
    pub variables: Variables,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub address: Address,
    /// For people, in any script.
    #[serde(default)]
    pub name: String,
    /// Must agree with the depth of the address when given.
    #[serde(default)]
    pub tier: Option<Tier>,
    /// Division code; never identity.
    #[serde(default)]
    pub code: Option<String>,
    #[serde(default)]
    pub labels: Labels,
    /// Where the log and the state live. Relative to the config file's folder.
    pub data: PathBuf,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// `mqtt://host:port` or `mqtts://host:port`, the parent's broker.
    pub url: String,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// For `mqtts://`: PEM file of the certificates that sign the parent's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// This node's certificate there, and its key.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// First part of every link topic.
    pub root: String,
    /// zstd level 1 on frames: 3 to 5 times fewer bytes for about 0.4 µs CPU a record.
    pub compress: bool,
    /// Frames under way on one lane: those of this node, and those that it lets its peers have. Of the two
    /// ends of a link the smaller number counts.
    pub window_frames: usize,
    /// No acknowledgement for this long while frames are under way: go back and send again, ms.
    pub resend_after_ms: u64,
    /// MQTT keep-alive of the link, seconds; as often a peer hears that this node is there.
    pub keep_alive_s: u16,
    /// A child that comes for the first time, or with a new incarnation under a known address.
    pub enrol: Enrol,
    /// Largest link message, bytes.
    pub message_bytes_max: usize,
}

impl Link {
    /// What a peer is told that it may have under way.
    pub fn credit(&self) -> u16 {
        u16::try_from(self.window_frames).unwrap_or(u16::MAX)
    }
}

impl Default for Link {
    fn default() -> Self {
        Link {
            root: "citybrain/v1".into(),
            compress: false,
            window_frames: crate::limits::WINDOW_FRAMES,
            resend_after_ms: 2_000,
            keep_alive_s: 10,
            enrol: Enrol::Auto,
            message_bytes_max: 1024 * 1024,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Enrol {
    /// It is accepted, and the change recorded.
    Auto,
    /// It waits until an operator lets it in: `citybrain enrol approve`.
    Manual,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// A segment file is closed at this size, bytes.
    pub segment_bytes: u64,
    /// Keep records at least this long after every link and session has them, seconds.
    pub keep_s: u64,
    /// The log's files together; beyond it the oldest segments go that nobody needs, bytes.
    pub log_bytes_max: u64,
    /// Beyond this even needed segments go, recorded as lost; 0 never, bytes.
    pub log_bytes_hard_max: u64,
    /// Snapshot after this many records.
    pub snapshot_records: u64,
    /// sled's cache, bytes.
    pub cache_bytes: u64,
    /// Stop accepting when less than this is free on the disk, bytes.
    pub free_bytes_min: u64,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            segment_bytes: 64 * 1024 * 1024,
            keep_s: 24 * 3600,
            log_bytes_max: 8 * 1024 * 1024 * 1024,
            log_bytes_hard_max: 0,
            snapshot_records: 1_000_000,
            cache_bytes: 4 * 1024 * 1024,
            free_bytes_min: 64 * 1024 * 1024,
        }
    }
}

/// HTTP: the node's API, health and metrics.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    pub listen: SocketAddr,
    /// `NAME ROLE SHA-256` a line. Without it everybody who reaches the listener may do everything,
    /// so it must then be a loopback address.
    pub tokens_file: Option<PathBuf>,
    /// With both it speaks HTTPS alone: PEM files, the certificate first, then those that sign it.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// PEM file of the certificates that sign clients': then who shows one, and no token, is the holder
    /// of the token of that name.
    pub client_ca_file: Option<PathBuf>,
    /// PEM file of the revocation lists of those who sign clients': who is on one does not come in,
    /// nor whose signer has none.
    pub client_crl_file: Option<PathBuf>,
    /// What in a certificate is the name.
    pub client_name: ClientName,
    /// Web pages, as `https://HOST[:PORT]`, whose scripts may ask with a token, beside the node's own.
    pub origins: Vec<String>,
    /// Of one token; more are answered 429. 0: no bound.
    pub requests_per_minute: u32,
    /// By role, where it is another one: `{ app = 600, operator = 0 }`.
    pub requests_per_minute_of: BTreeMap<String, u32>,
}

/// Roles of tokens, the least first.
pub const TOKEN_ROLES: [&str; 6] = ["app", "gateway", "reader", "worker", "supervisor", "operator"];

impl Default for Api {
    fn default() -> Self {
        Api {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tokens_file: None,
            cert_file: None,
            key_file: None,
            client_ca_file: None,
            client_crl_file: None,
            client_name: ClientName::default(),
            origins: Vec::new(),
            // 100 a second: a dashboard and a platform's feed fit, and a script gone wild does not hold up
            // the node's engine.
            requests_per_minute: 6_000,
            requests_per_minute_of: BTreeMap::new(),
        }
    }
}

/// Where events are POSTed to, as CloudEvents.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `a-z`, `0-9`, `-`; unique. Its cursor is kept under this name.
    pub name: String,
    /// `http://HOST[:PORT]/PATH` or `https://…`
    pub url: String,
    /// For `https`: PEM file of the certificates that sign the receiver's. Default: whom this machine
    /// trusts.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Types of events, or what they begin with. Default: all.
    #[serde(default)]
    pub types: Vec<String>,
    /// What sources begin with. Default: all.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Name of a token of `api.tokens_file`: it is sent what this token may read by the API, and nothing else.
    /// Default: all that fits.
    #[serde(default)]
    pub token: Option<String>,
    /// Its first line is the key of the signature, at least 16 bytes; after `whsec_` base64. Without
    /// it nothing is signed.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// Nothing is sent before the receiver has agreed: CloudEvents' OPTIONS request.
    #[serde(default)]
    pub handshake: bool,
    /// Who asks then: a host's name. Default: this machine's.
    #[serde(default)]
    pub origin: Option<String>,
}

/// What Open311's discovery says of this node, and who may read by it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Open311 {
    /// Whom to ask, for people.
    pub contact: String,
    /// How to get an `api_key`, for people.
    pub key_service: String,
    /// Where clients reach it, without a slash at its end: `https://city.example/open311/v2`.
    /// Default: the host that they ask, without TLS.
    pub url: Option<String>,
    /// It is no place for real requests.
    pub test: bool,
    /// Everybody who reaches the API may read requests, also where it has a tokens file. What
    /// residents wrote is shown; their names and telephone numbers never are.
    pub public: bool,
}

/// Tells a Home Assistant at this node's broker how the node is, by its MQTT discovery.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HomeAssistant {
    pub discovery: bool,
    /// Its discovery prefix.
    pub prefix: String,
}

impl Default for HomeAssistant {
    fn default() -> Self {
        HomeAssistant { discovery: false, prefix: "homeassistant".into() }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogOutput {
    pub format: LogFormat,
    /// As in `RUST_LOG`: `info`, `citybrain_hub=debug,info`.
    pub level: String,
}

impl Default for LogOutput {
    fn default() -> Self {
        LogOutput { format: LogFormat::Text, level: "info".into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// Threads for connections and links; the engine has one of its own. 1 is best on small boxes.
    pub threads: usize,
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime { threads: 1 }
    }
}

/// Variables that a config file may use as `${NAME}` in any string value, given from outside
/// (`--set NAME=VALUE`): ports and folders of a tree of nodes started from one file a tier.
pub type Variables = BTreeMap<String, String>;
