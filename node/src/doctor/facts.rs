//! What can be known of a node and its host: plain data. A number that could not be had is `None`.

use chrono::{DateTime, NaiveDate, Utc};
use citybrain_shared::Pos;
use citybrain_shared::config::Config;
use citybrain_shared::view;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    pub version: String,
    pub config: Configured,
    pub host: Host,
    /// A node that runs, from inside it.
    pub node: Option<Node>,
    /// All there is, is the folder of a stopped node: nothing is known of its config.
    pub is_folder: bool,
    /// A node that does not, from its folder.
    pub stopped: Option<Stopped>,
}

/// What of the config the checks look at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Configured {
    /// What `check` finds wrong in the file. Of a node that runs, where: its facts go into a bundle, and what stands
    /// there may be a secret.
    pub problems: Vec<String>,
    /// Of a node that runs: the file that it was started from, and the parts of it that are not as it goes by.
    pub file: Option<String>,
    pub differs: Vec<String>,
    pub connections_max: u64,
    /// An outside broker's URL.
    pub broker_url: Option<String>,
    pub broker_listen: String,
    pub broker_open: bool,
    pub anonymous: bool,
    pub api_listen: String,
    pub api_open: bool,
    /// A tokens file says who may ask.
    pub api_tokens: bool,
    pub api_tls: bool,
    pub has_parent: bool,
    pub free_bytes_min: u64,
    pub log_bytes_max: u64,
    pub snapshot_records: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    pub data: String,
    /// Why nothing can be written there.
    pub unwritable: Option<String>,
    /// Permission bits of the folder.
    pub data_mode: Option<u32>,
    /// `ext4`, `tmpfs`, `overlay`, …
    pub filesystem: Option<String>,
    pub free_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
    pub free_inodes: Option<u64>,
    pub total_inodes: Option<u64>,
    /// Time of an append and an fsync, each, sorted.
    pub fsync_us: Vec<u64>,
    pub fsync_error: Option<String>,
    pub files_max: Option<u64>,
    pub memory_total_bytes: Option<u64>,
    pub memory_available_bytes: Option<u64>,
    /// Of this process.
    pub memory_resident_bytes: Option<u64>,
    pub now: Option<DateTime<Utc>>,
    /// The program file's time.
    pub program_at: Option<DateTime<Utc>>,
    /// What the kernel was told by whoever keeps its clock.
    pub clock_synchronised: Option<bool>,
    /// Ports of a node that does not run, and why each cannot be used.
    pub ports: Vec<(String, Option<String>)>,
    /// Those that this node shows to others.
    pub certificates: Vec<Certificate>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// Its key in the config.
    pub key: String,
    pub from: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
    /// A revocation list; it counts beyond its end, too.
    pub is_list: bool,
    /// Why it cannot be read.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    pub address: String,
    pub uptime_s: u64,
    pub ready: bool,
    pub reasons: Vec<String>,
    pub connections: u64,
    /// Why the outside broker that it uses is not reached.
    pub broker_away: Option<String>,
    pub links: Vec<Link>,
    /// Direct children and their versions.
    pub children: Vec<(String, String)>,
    /// Accounts whose last login was refused within ten minutes, with how often and from where.
    pub refused_logins: Vec<String>,
    pub webhooks: Vec<view::Webhook>,
    /// By what working time is counted, and whose `[calendar]` that is.
    pub calendar: String,
    pub calendar_of: Option<String>,
    /// From where on nobody has said which days are off, if of those before it somebody has.
    pub days_unknown_from: Option<NaiveDate>,
    /// The latest day on which something here is due in working time; today at least.
    pub working_until: Option<NaiveDate>,
    pub dead_letters_open: u64,
    /// Active alarms of this node that no rule in force ends, and how many more.
    pub alarms_left: Vec<view::AlarmLeft>,
    pub alarms_left_more: u64,
    /// Whose word it waits for, in place of a box that lost what it knew.
    pub awaits: Option<view::Awaited>,
    /// What its own rules, services and scenes name and nobody has, a sentence each.
    pub nameless: Vec<String>,
    /// Its rules that failed within a day, a sentence each.
    pub failing: Vec<String>,
    /// Activities that are booked and still to come, and past by the file, a sentence each.
    pub past: Vec<String>,
    pub lost: u64,
    pub last_pos: Pos,
    pub snapshot_pos: Pos,
    pub log_bytes: u64,
    pub log_segments: u64,
    pub state_bytes: u64,
    pub needed_pos: Pos,
    pub needed_by: String,
    /// At the start.
    pub torn_bytes: u64,
    pub damages: Vec<String>,
    /// First and last of the durable records that are gone from the log's end.
    pub lost_end: Option<(Pos, Pos)>,
    pub rebuilt: Option<String>,
    #[serde(default)]
    pub is_restored: bool,
    pub commits: u64,
    pub commits_over_100_ms: u64,
    pub newest_record_us: i64,
    pub ahead: Option<Ahead>,
}

/// An origin whose clock is ahead of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ahead {
    pub origin: String,
    pub by_us: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// To the parent.
    pub up: bool,
    pub peer: String,
    pub state: String,
    pub why: Option<String>,
    pub heard_ms_ago: Option<u64>,
    pub unsent: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stopped {
    /// A node runs on the folder after all.
    pub in_use: bool,
    pub records: u64,
    pub torn_bytes: u64,
    pub damages: Vec<String>,
    pub newest_record_us: i64,
    /// Why the log does not open.
    pub trouble: Option<String>,
}

impl Facts {
    /// With what the config says, and nothing else yet.
    pub fn of(config: &Config) -> Facts {
        Facts {
            version: env!("CARGO_PKG_VERSION").into(),
            config: Configured {
                problems: Vec::new(),
                file: None,
                differs: Vec::new(),
                connections_max: config.broker.connections_max as u64,
                broker_url: config.broker.url.clone(),
                broker_listen: config.broker.listen.to_string(),
                broker_open: config.broker.url.is_none()
                    && std::iter::once(config.broker.listen)
                        .chain(config.listener.iter().filter(|l| !l.client_required).map(|l| l.listen))
                        .any(|at| !at.ip().is_loopback()),
                anonymous: config.access.anonymous,
                api_listen: config.api.listen.to_string(),
                api_open: !config.api.listen.ip().is_loopback(),
                api_tokens: config.api.tokens_file.is_some(),
                api_tls: config.api.cert_file.is_some(),
                has_parent: config.parent.is_some(),
                free_bytes_min: config.store.free_bytes_min,
                log_bytes_max: config.store.log_bytes_max,
                snapshot_records: config.store.snapshot_records,
            },
            ..Facts::default()
        }
    }
}
