//! What of the config file is in force, and how a newer file takes its place while the node runs.
//!
//! A config that is [`offered`](Slot::offer) is taken over with the record that says so, at one place in the log;
//! what comes of that record's commit is told by [`confirm`](Slot::confirm) or [`withdraw`](Slot::withdraw). A
//! state that is read back anew, because a commit failed, begins with what was confirmed.

use citybrain_shared::config::Config;
use citybrain_shared::record::Header;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Type of the record from which on another config is in force.
pub const LOADED: &str = "city.brain.loaded";

/// One for all states of a node's life.
pub struct Slot {
    /// Number of the config in force: a look at it costs no lock.
    version: AtomicU64,
    configs: parking_lot::Mutex<Configs>,
}

/// A config and its number.
pub type Numbered = (u64, Arc<Config>);

struct Configs {
    in_force: Arc<Config>,
    /// With the key of the record that puts it in force.
    offered: Option<(u64, Numbered)>,
    /// How many numbers there have been, the first not counted.
    numbered: u64,
}

impl Slot {
    pub fn new(config: &Config) -> Arc<Slot> {
        let configs = Configs { in_force: Arc::new(config.clone()), offered: None, numbered: 0 };
        Arc::new(Slot { version: AtomicU64::new(0), configs: parking_lot::Mutex::new(configs) })
    }

    /// Lays down a config, to be taken over with the [`LOADED`] record of this key.
    pub fn offer(&self, key: u64, config: Arc<Config>) {
        let mut configs = self.configs.lock();
        configs.numbered += 1;
        configs.offered = Some((key, (configs.numbered, config)));
    }

    /// The record is on disk.
    pub fn confirm(&self) {
        let mut configs = self.configs.lock();
        if let Some((_, (number, config))) = configs.offered.take() {
            configs.in_force = config;
            self.version.store(number, Ordering::Release);
        }
    }

    /// The record is not on disk, as far as is known. Should it be there all the same, what was in force takes
    /// its place again.
    pub fn withdraw(&self) {
        let mut configs = self.configs.lock();
        configs.offered = None;
        configs.numbered += 1;
        self.version.store(configs.numbered, Ordering::Release);
    }

    pub fn in_force(&self) -> Numbered {
        let configs = self.configs.lock();
        (self.version.load(Ordering::Acquire), configs.in_force.clone())
    }

    /// What this record puts in force.
    pub fn offered(&self, header: &Header<'_>) -> Option<Numbered> {
        if header.name != LOADED {
            return None;
        }
        let configs = self.configs.lock();
        configs.offered.as_ref().filter(|(key, _)| *key == header.key).map(|(_, offered)| offered.clone())
    }

    /// What counts from this record on, if that is another than the one of this number.
    pub fn newer(&self, header: &Header<'_>, number: u64) -> Option<Numbered> {
        let is_behind = || self.version.load(Ordering::Relaxed) > number;
        self.offered(header).or_else(|| is_behind().then(|| self.in_force()))
    }
}
