//! One way to wait for the disk: whatever a request has the log take is answered after the fsync, or,
//! after [`COMMIT_WAIT`], with 504 and where to look whether it got there after all.

use super::once::Repeat;
use super::{Ctx, Refusal, cases};
use crate::brain::Brain;
use axum::http::StatusCode;
use citybrain_hub::engine::{self, Haste, Outcome, Ticket};
use citybrain_hub::note::Note;
use citybrain_shared::Lane;
use citybrain_shared::record::Draft;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a client waits for the disk. A healthy commit takes milliseconds.
pub(super) const COMMIT_WAIT: Duration = Duration::from_secs(10);

/// What is said when it takes longer.
#[derive(Clone, Copy)]
pub(super) struct Late<'a> {
    /// What is to be on disk: `it`, `the batch`.
    pub what: &'a str,
    /// How to find out whether it is.
    pub hint: &'a str,
}

impl Late<'_> {
    pub(super) fn refusal(self) -> Refusal {
        let detail = format!("{} was not on disk after {} s; it may still get there", self.what, COMMIT_WAIT.as_secs());
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, "deadline", detail, self.hint)
    }
}

/// What became of each, in order.
pub(super) async fn offered(ctx: &Ctx, drafts: Vec<Draft>, late: Late<'_>) -> Result<Vec<Outcome>, Refusal> {
    within(ctx.hub.offer(drafts), &Repeat::default(), late).await
}

/// As one group.
pub(super) async fn noted(ctx: &Ctx, notes: Vec<Note>, late: Late<'_>) -> Result<(), Refusal> {
    within(ctx.hub.note(notes, Haste::Now), &Repeat::default(), late).await
}

/// Decides at the engine's turn, on the state that all earlier commits have left.
pub(super) async fn decided<T: Send + 'static>(
    ctx: &Ctx,
    lane: Lane,
    repeat: &Repeat,
    late: Late<'_>,
    work: impl FnOnce(&Brain, i64) -> (Result<T, Refusal>, Vec<Draft>) + Send + 'static,
) -> Result<T, Refusal> {
    let told: Arc<Mutex<Option<Result<T, Refusal>>>> = Arc::default();
    let tell = told.clone();
    let decide: engine::Decide = Box::new(move |state, now_us| {
        let Some(brain) = Brain::of(state) else { return Vec::new() };
        let (answer, drafts) = work(brain, now_us);
        *tell.lock() = Some(answer);
        drafts
    });
    within(ctx.hub.decide(lane, decide), repeat, late).await?;
    let answer = told.lock().take();
    answer.unwrap_or_else(|| Err(cases::no_brain()))
}

/// Hands it to the engine, and waits for the fsync; both together have [`COMMIT_WAIT`].
pub(super) async fn within<T: Send + 'static>(
    handing: impl Future<Output = Result<Ticket<T>, engine::Error>>,
    repeat: &Repeat,
    late: Late<'_>,
) -> Result<T, Refusal> {
    let end = Instant::now() + COMMIT_WAIT;
    let ticket = timeout_at(end, handing).await.map_err(|_| late.refusal())??;
    let mut committed = Box::pin(engine::wait(ticket));
    if let Ok(done) = timeout_at(end, &mut committed).await {
        return Ok(done?);
    }
    // Whoever asks again is told that it is under way, until it is decided.
    if repeat.has_word() {
        let repeat = repeat.clone();
        tokio::spawn(async move { committed.await.map(|_| drop(repeat)) });
    }
    Err(late.refusal())
}
