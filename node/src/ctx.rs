//! What the node answers from: whoever tells of it, by HTTP, by MQTT or to `doctor`, has this.

use crate::tokens::Tokens;
use crate::turns::Turns;
use crate::webhook;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use citybrain_hub::Hub;
use citybrain_hub::door::users::RefusedLogin;
use citybrain_hub::engine::Facts;
use citybrain_hub::link::Downlinks;
use citybrain_hub::link::view::LinkView;
use citybrain_hub::note::DeadLetter;
use citybrain_shared::config::Config;
use citybrain_shared::record::Draft;
use citybrain_shared::view;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Makes a record of a CloudEvents JSON object, or says why not. The second argument is where it
/// came in: `http`, `api:send`.
pub type Accept = Arc<dyn Fn(&Bytes, &str) -> Result<Draft, DeadLetter> + Send + Sync>;

/// A node, to be asked. The closures look at what other tasks own; they must not wait.
pub struct Ctx {
    pub hub: Hub,
    pub config: Config,
    pub links: Arc<dyn Fn() -> Vec<view::Link> + Send + Sync>,
    pub door: Arc<dyn Fn() -> view::Door + Send + Sync>,
    pub ready: Arc<dyn Fn() -> view::Ready + Send + Sync>,
    pub accept: Accept,
    pub operations: Sources,
    /// The way to the nodes below; `None` where there can be none.
    pub downlinks: Option<Downlinks>,
    /// For a stopped node's folder: when its last record was committed.
    pub offline: Option<DateTime<Utc>>,
    /// When the process began its work.
    pub started: Instant,
    /// What those who ask may hold at a time.
    pub turns: Turns,
    /// True once the node is stopping: streams that follow end then.
    pub stop: watch::Receiver<bool>,
}

/// Takes what was refused once again, from its client and on its topic; without a topic as from HTTP. `None`: a plain
/// message that nobody would keep.
pub type Again = Arc<dyn Fn(&str, &str, &Bytes) -> Result<Option<Draft>, (String, String)> + Send + Sync>;

/// What only whoever keeps the node running asks for.
#[derive(Clone)]
pub struct Sources {
    /// What the start found.
    pub found: Facts,
    /// The front door's counters by name; empty with an outside broker.
    pub door: Arc<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>,
    /// Accounts of the front door whose last login was refused lately.
    pub refused_logins: Arc<dyn Fn() -> Vec<RefusedLogin> + Send + Sync>,
    pub links: Arc<dyn Fn() -> Vec<LinkView> + Send + Sync>,
    pub webhooks: Arc<[Arc<webhook::Hook>]>,
    pub again: Again,
    /// Who may ask, where the config says so.
    pub tokens: Option<Arc<Tokens>>,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources {
            found: Facts::default(),
            door: Arc::new(Vec::new),
            refused_logins: Arc::new(Vec::new),
            links: Arc::new(Vec::new),
            webhooks: Arc::default(),
            again: Arc::new(|_, _, _| Ok(None)),
            tokens: None,
        }
    }
}
