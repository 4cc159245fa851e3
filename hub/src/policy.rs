//! Where a node's own mind is plugged in: rules, alarms, cases, services. The hub calls it and
//! knows nothing of what it decides.

use crate::state::State;
use citybrain_shared::record::{Draft, Header};
use citybrain_shared::{LogId, Pos};
use std::any::Any;
use std::sync::Arc;

/// A row of the policy's part of the store: key and value, `None` removes it.
pub type Row = (Vec<u8>, Option<Vec<u8>>);

/// Pure: no clock, no random source, no I/O. Time comes in as an argument or as a record's commit
/// time; whatever else must be the same in a replay comes in as a record.
pub trait Policy: Any + Send + Sync {
    /// What follows from a record, asked once, live, before its group is committed. The drafts join
    /// the group, in order, and are asked about in turn (to a depth of [`DEPTH_MAX`]).
    fn decide(&self, state: &State, now_us: i64, header: &Header<'_>, payload: &[u8]) -> Vec<Draft>;

    /// When [`Policy::on_due`] is to be called next, µs since 1970; `None`: nothing waits.
    fn next_due_us(&self) -> Option<i64>;

    /// What follows from time having passed. One group. Called again at once while it gives anything
    /// and [`Policy::next_due_us`] is not in the future.
    fn on_due(&self, state: &State, now_us: i64) -> Vec<Draft>;

    /// Does so much wait to be said that [`Policy::on_due`] must go on before more records come?
    fn is_behind(&self) -> bool {
        false
    }

    /// Folds a record in; called for every record that is no note, in order, each once, live and in
    /// a replay. The only way to change.
    fn apply(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]);

    /// The node's log has a new history, of that name: the first of a folder, or another, because what is known
    /// here may be older than what the node has said. It begins at that position; what came before may be a backup's.
    /// Part of the fold, as a record is.
    fn begin_history(&mut self, _: LogId, _first: Pos, _now_us: i64) {}

    /// Rows that changed since the last call.
    fn take_rows(&mut self) -> Vec<Row>;

    /// Takes a row back that [`Policy::take_rows`] gave, at a start.
    ///
    /// # Errors
    /// A sentence when the row does not read; the state is then folded anew from the log.
    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String>;

    /// Is that a record which nobody is to be shown any more? No topic retains it again.
    fn is_withheld(&self, _: &Header<'_>, _: &[u8]) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any;
}

/// A decision may cause a decision; deeper than this is a circle in the rules.
pub const DEPTH_MAX: usize = 4;

/// Makes an empty policy: at a start, and when the state is read back after a failure.
pub type Make = Arc<dyn Fn() -> Box<dyn Policy> + Send + Sync>;

/// A node without a mind of its own.
#[derive(Debug, Default)]
pub struct None;

impl Policy for None {
    fn decide(&self, _: &State, _: i64, _: &Header<'_>, _: &[u8]) -> Vec<Draft> {
        Vec::new()
    }
    fn next_due_us(&self) -> Option<i64> {
        Option::None
    }
    fn on_due(&self, _: &State, _: i64) -> Vec<Draft> {
        Vec::new()
    }
    fn apply(&mut self, _: Pos, _: &Header<'_>, _: &[u8]) {}
    fn take_rows(&mut self) -> Vec<Row> {
        Vec::new()
    }
    fn load_row(&mut self, _: &[u8], _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// [`None`], as [`Make`].
pub fn none() -> Make {
    Arc::new(|| Box::new(None))
}
