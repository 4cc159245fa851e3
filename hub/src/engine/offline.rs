//! A stopped node's folder, read-only: the same handle, on an engine that never runs.

use super::open::{Error, Facts, fold};
use super::{Hub, Queues, Shared, Work};
use crate::log;
use crate::policy;
use crate::state::State;
use crate::store;
use citybrain_shared::record::Header;
use citybrain_shared::words::with_causes;
use parking_lot::RwLock;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// What was found in the folder.
#[derive(Clone, Debug, Default)]
pub struct Offline {
    /// When its last record was committed, µs since 1970 by its clock; 0 if there is none.
    pub as_of_us: i64,
    pub facts: Facts,
    /// What is not as it should be, a sentence each.
    pub remarks: Vec<String>,
}

/// Opens the folder of a stopped node to look at it. Nothing is written there; whatever is offered
/// to the handle is refused.
///
/// # Errors
/// [`Error::InUse`] while a node runs on it; [`Error`] when it holds no log that reads.
pub fn open_offline(dir: &Path, cache_bytes: u64, policy: policy::Make) -> Result<(Hub, Offline), Error> {
    let log_dir = dir.join("log");
    if log::is_in_use(&log_dir)? {
        return Err(Error::InUse);
    }
    let (reader, found) = log::open_read_only(&log_dir)?;
    let damage = found.damage.iter();
    let mut facts = Facts {
        records: found.records,
        first: reader.first(),
        last: reader.last(),
        cut_bytes: found.cut_bytes,
        damages: damage.map(|d| format!("records {} to {} of the log do not read", d.first, d.last)).collect(),
        ..Facts::default()
    };
    let mut remarks = facts.damages.clone();
    let stored = match store::read(dir, cache_bytes) {
        Ok(opened) if opened.upto <= reader.last() => Some(opened),
        Ok(opened) => {
            let (first, last) = (reader.last().next(), opened.upto);
            facts.lost_end = Some((first, last));
            remarks.push(format!("the log has lost its end: the state knows of records {first} to {last}"));
            None
        }
        // After `store rebuild`, `restore` and `import`.
        Err(_) if !dir.join("state").exists() => {
            remarks.push("the state is not there yet: the next start makes it".to_owned());
            None
        }
        Err(e) => {
            let why = format!("the state does not read: {}", with_causes(&e));
            facts.rebuilt = Some(format!("{why}; a start makes it anew"));
            remarks.push(why);
            None
        }
    };
    let state = match stored {
        Some(opened) => fold(opened.rows, opened.upto, &reader, policy())?.state,
        // The log has it all, if it reaches back to its beginning.
        None => {
            remarks.push(format!("the state was folded from the log, which begins at {}", reader.first()));
            let mut state = State::with(policy());
            state.skip_to(citybrain_shared::Pos(reader.first().0.saturating_sub(1)));
            super::open::fold_onto(state, &reader)?.state
        }
    };
    let last = reader.get(reader.last()).ok().flatten();
    let as_of_us = last.and_then(|e| Header::decode(&e.bytes).ok().map(|(h, _)| h.committed_us)).unwrap_or(0);
    let shared = Arc::new(Shared {
        committed: Default::default(),
        state: RwLock::new(state),
        trouble: RwLock::new(None),
        house: Default::default(),
        work: Work::default(),
        history: Default::default(),
    });
    // Nobody listens at the other ends: offers are refused as by a node that is stopping.
    let (queues, _) = Queues::new();
    let (_, committed) = watch::channel(reader.last());
    Ok((Hub { queues, shared, reader, committed, jots: Arc::default() }, Offline { as_of_us, facts, remarks }))
}
