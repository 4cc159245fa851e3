//! A question to a node below, or to many.

use super::super::Ctx;
use super::Replied;
use super::answering::reply;
use bytes::Bytes;
use citybrain_hub::link::ask::{ANSWER_BYTES_MAX, AskError};
use citybrain_shared::Address;
use citybrain_shared::view::{Answer, Failure, Missing, View};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Questions of one asker that are under way at a time: a quarter of what a node lets wait.
pub(super) const TOGETHER: usize = 16;
/// Nodes that one question asks. A larger subtree is asked part by part.
pub const NODES_MAX: usize = 1_000;
/// How long a place is waited for when this node has too many questions under way.
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// Asks a node below, or (in process) this one.
///
/// # Errors
/// [`AskError`].
pub async fn ask(ctx: &Ctx, to: &Address, path: &str, within: Duration) -> Result<Replied, AskError> {
    put(ctx, to, format!("GET {path}").into(), within).await
}

/// Puts a question in its [format](self).
pub(super) async fn put(ctx: &Ctx, to: &Address, question: Bytes, within: Duration) -> Result<Replied, AskError> {
    let Some(downlinks) = &ctx.downlinks else {
        return Err(if ctx.offline.is_some() { AskError::Stopped } else { AskError::NotBelow(to.clone()) });
    };
    let started = Instant::now();
    loop {
        let left = within.saturating_sub(started.elapsed());
        match downlinks.ask(to, question.clone(), left).await {
            Ok(bytes) => {
                let took = started.elapsed();
                let foreign = || AskError::Below(format!("{to} answers in another language: it is of another version"));
                return Replied::parse(&bytes, took).ok_or_else(foreign);
            }
            Err(AskError::Busy) if started.elapsed() + BUSY_WAIT < within => tokio::time::sleep(BUSY_WAIT).await,
            Err(e) => return Err(e),
        }
    }
}

/// As [`ask`], for a view; also how long the way took.
///
/// # Errors
/// Who did not answer, and why.
pub async fn ask_view<T: View>(
    ctx: &Ctx,
    to: &Address,
    path: &str,
    within: Duration,
) -> Result<(Answer<T>, Duration), Missing> {
    let replied = ask(ctx, to, path, within).await.map_err(|e| missing(to, &e))?;
    view_of(to, &replied).map(|answer| (answer, replied.took))
}

fn view_of<T: View>(from: &Address, replied: &Replied) -> Result<Answer<T>, Missing> {
    Answer::parse(&replied.body).map_err(|e| {
        let detail = serde_json::from_slice::<Failure>(&replied.body).map_or_else(|_| e.to_string(), |f| f.detail);
        Missing { node: from.clone(), why: "refused".into(), detail }
    })
}

/// Asks many nodes, some at a time; answers come as they come, this node's own among them. All of
/// it within one deadline.
pub(super) fn many(
    ctx: &Arc<Ctx>,
    nodes: Vec<Address>,
    path: &str,
    within: Duration,
) -> mpsc::Receiver<(Address, Result<Replied, Missing>)> {
    let (tx, rx) = mpsc::channel(TOGETHER);
    let (ctx, path) = (ctx.clone(), Arc::<str>::from(path));
    let end = Instant::now() + within;
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(TOGETHER));
        for node in nodes {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            if tx.is_closed() {
                return;
            }
            let (ctx, path, tx) = (ctx.clone(), path.clone(), tx.clone());
            tokio::spawn(async move {
                let _place = place;
                let left = end.saturating_duration_since(Instant::now());
                let replied = ask_any(&ctx, &node, &path, left).await.map_err(|e| missing(&node, &e));
                let _ = tx.send((node, replied)).await; // the asker has heard enough
            });
        }
    });
    rx
}

/// As [`ask`], but this node too.
async fn ask_any(ctx: &Arc<Ctx>, node: &Address, path: &str, within: Duration) -> Result<Replied, AskError> {
    if *node != ctx.config.node.address {
        return ask(ctx, node, path, within).await;
    }
    let started = Instant::now();
    let question = format!("GET {path}");
    let own = reply(super::super::routes(ctx.clone()), question.as_bytes(), ANSWER_BYTES_MAX);
    let bytes = tokio::time::timeout(within, own).await.map_err(|_| AskError::Late)?;
    Replied::parse(&bytes, started.elapsed()).ok_or(AskError::Stopping)
}

/// As [`many`], for views, all of them.
pub async fn many_views<T: View>(
    ctx: &Arc<Ctx>,
    nodes: Vec<Address>,
    path: &str,
    within: Duration,
) -> (Vec<(Address, Answer<T>)>, Vec<Missing>) {
    let mut replies = many(ctx, nodes, path, within);
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    while let Some((node, replied)) = replies.recv().await {
        match replied.and_then(|r| view_of(&node, &r)) {
            Ok(answer) => answers.push((node, answer)),
            Err(missing) => silent.push(missing),
        }
    }
    answers.sort_by(|a, b| a.0.cmp(&b.0));
    silent.sort_by(|a, b| a.node.cmp(&b.node));
    (answers, silent)
}

fn missing(node: &Address, error: &AskError) -> Missing {
    let why = match error {
        AskError::NotBelow(_) => "not-below",
        AskError::Busy => "busy",
        AskError::TooLarge => "too-large",
        AskError::Late => "late",
        AskError::Away(_) | AskError::Below(_) => "away",
        AskError::Stopping => "stopping",
        AskError::Stopped => "stopped",
    };
    Missing { node: node.clone(), why: why.into(), detail: error.to_string() }
}
