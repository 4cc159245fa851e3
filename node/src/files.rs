//! How many files the process may have open, and for whom.

use citybrain_shared::config::Config;

/// Connections of the API at a time, handshakes among them: many desks and dashboards, and each is an open file.
pub const API_CONNECTIONS_MAX: usize = 256;
/// Files that a node opens beside its door's connections: those of the API, and as many again for log,
/// state, links and webhooks. Without one left, the log could not be read.
pub const FILES_LEFT: u64 = 2 * API_CONNECTIONS_MAX as u64;

/// Raises the limit of open files to what the system allows, and has the door take no more connections
/// than leave [`FILES_LEFT`].
pub fn leave(config: &mut Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = if raised.is_ok() { limit.maximum } else { limit.current }.unwrap_or(u64::MAX);
    let most = usize::try_from(files.saturating_sub(FILES_LEFT).max(1)).unwrap_or(usize::MAX);
    if config.broker.connections_max > most {
        let (wanted, granted) = (config.broker.connections_max, most);
        tracing::warn!(
            wanted,
            granted,
            files,
            "The system allows fewer open files than `broker.connections_max` needs; raise LimitNOFILE in the unit."
        );
        config.broker.connections_max = most;
    }
}
