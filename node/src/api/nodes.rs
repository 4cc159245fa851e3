//! Which nodes are known here: a slip in a name must not pass for an answer of nothing.

use super::supervision::sweep;
use super::{Ctx, Refusal};
use crate::brain::Brain;
use crate::brain::cases::machine::common;
use citybrain_shared::Address;
use citybrain_shared::config::closest;

/// For what is counted of a node and all below it.
///
/// # Errors
/// This node knows a part of it at most, or nothing.
pub(super) async fn is_below(ctx: &Ctx, under: &Address) -> Result<(), Refusal> {
    let me = &ctx.config.node.address;
    if under == me {
        return Ok(());
    }
    if under.covers(me) {
        let detail = format!("{me} knows only its own part of `{under}`, which is above it");
        return Err(Refusal::bad("bad-query", detail, format!("ask {under} itself")));
    }
    // What was handed there is known here, and is a part of its cases.
    if !me.covers(under) {
        let above = common(me, under).map_or(String::new(), |above| format!(", or {above}"));
        let detail = format!("{me} knows no more than a part of `{under}`, which is not below it");
        return Err(Refusal::bad("bad-query", detail, format!("ask {under} itself{above}")));
    }
    is_heard_of(ctx, under).await
}

/// For a list of what is known here, wherever it is from.
///
/// # Errors
/// Nobody here has heard of it, nor of one below it.
pub(super) async fn is_heard_of(ctx: &Ctx, node: &Address) -> Result<(), Refusal> {
    // A node in between need not have told of itself for those below it to be there.
    if node.covers(&ctx.config.node.address) || is_told_of(ctx, node) {
        return Ok(());
    }
    if has_cases(ctx, node).await? { Ok(()) } else { Err(unknown(ctx, "bad-query", node)) }
}

/// For whom is to take a case: a node below that never was would not, and nobody could step it again.
///
/// # Errors
/// There is no such node below.
pub(super) fn is_somebody(ctx: &Ctx, to: &Address) -> Result<(), Refusal> {
    let me = &ctx.config.node.address;
    if to == me || !me.covers(to) || ctx.hub.state(|s| s.registry.contains_key(to)) {
        return Ok(());
    }
    Err(unknown(ctx, "unknown-node", to))
}

/// Is it, or one below it, in the tree, or was it taken out of it, or is an alarm of it known?
fn is_told_of(ctx: &Ctx, node: &Address) -> bool {
    ctx.hub.state(|state| {
        let alarms = Brain::of(state).into_iter().flat_map(|b| b.rules.alarms.iter()).map(|a| &a.origin);
        state.registry.keys().chain(state.retired.keys()).chain(alarms).any(|known| node.covers(known))
    })
}

/// Are there cases of it, or below it? It may be gone, or have been counted for by another system.
async fn has_cases(ctx: &Ctx, node: &Address) -> Result<bool, Refusal> {
    let mut found = false;
    sweep(ctx, |_, held, _| found |= node.covers(&held.case.owner)).await?;
    Ok(found)
}

fn unknown(ctx: &Ctx, error: &'static str, node: &Address) -> Refusal {
    let known: Vec<Address> = ctx.hub.state(|state| state.registry.keys().cloned().collect());
    let hint = match closest(node.as_str(), known.iter().map(Address::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`citybrain tree` shows which there are".to_owned(),
    };
    Refusal::bad(error, format!("{} knows no node `{node}`", ctx.config.node.address), hint)
}
