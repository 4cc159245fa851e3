//! Starts a node and runs it until it is told to stop: the only place that wires and spawns.

use citybrain_shared::config::Config;

/// Runs a node.
///
/// # Errors
/// When it cannot start, or can no longer keep its promises.
pub fn run(_config: Config) -> miette::Result<()> {
    Err(miette::miette!("running a node is not wired yet"))
}
