//! Who belongs to the tree: children that an operator has to let in (`link.enrol = "manual"`), and those
//! that he takes out of it.

use super::commit::{self, Late};
use super::input::{Sent, parse};
use super::ops::{Operator, operator};
use super::{Ctx, Refusal};
use crate::brain::Brain;
use axum::extract::State as From;
use axum::http::StatusCode;
use axum::response::Response;
use citybrain_hub::engine;
use citybrain_hub::note::Note;
use citybrain_shared::case::Case;
use citybrain_shared::config::Enrol;
use citybrain_shared::view::{self, EnrolledChild};
use citybrain_shared::{Address, Inc, words};
use std::sync::Arc;
use std::time::Duration;

/// Children in one request: all of the largest plan.
const CHILDREN_MAX: usize = 5_000;

/// `GET /v1/enrolments`: who is connected and not let in.
pub async fn list(From(ctx): From<Arc<Ctx>>) -> Response {
    let asking = (ctx.operations.links)().into_iter().filter_map(|l| Some((l.peer, l.asking?)));
    let waiting = ctx.hub.state(|s| {
        let row = |(address, asking): (_, citybrain_hub::link::view::Asking)| {
            let peer = s.peers.get(&address);
            let before = peer.and_then(|p| p.party).map(|p| p.inc.to_string());
            let is_refused = peer.and_then(|p| p.enrolled) == Some((asking.inc, false));
            view::Waiting { address, name: asking.name, incarnation: asking.inc.to_string(), before, is_refused }
        };
        asking.map(row).collect()
    });
    let is_manual = ctx.config.link.enrol == Enrol::Manual;
    ctx.answer(view::Enrolments { is_manual, waiting })
}

/// `POST /v1/enrolments` `{"admit":true,"children":[{"address":"c/s","incarnation":"…"}]}`
pub async fn decide(From(ctx): From<Arc<Ctx>>, who: Operator, Sent(body): Sent) -> Result<Response, Refusal> {
    let hint = "{\"admit\":true,\"children\":[{\"address\":\"c/s\",\"incarnation\":\"…\"}]}; GET lists who waits";
    let wanted: view::Enrol = parse(&body, hint)?;
    if wanted.children.is_empty() || wanted.children.len() > CHILDREN_MAX {
        let detail = format!("{} children are named; 1 to {CHILDREN_MAX} can be", wanted.children.len());
        return Err(Refusal::bad("bad-request", detail, hint));
    }
    let own = &ctx.config.node.address;
    let mut notes = Vec::new();
    for EnrolledChild { address, incarnation } in &wanted.children {
        if !address.is_child_of(own) {
            let hint =
                address.parent().map_or_else(String::new, |p| format!("its parent is {p}: `x-citybrain-at: {p}`"));
            return Err(Refusal::bad("not-a-child", format!("{address} is no child of {own}"), hint));
        }
        let inc: Inc = incarnation.parse().map_err(|_| {
            let detail = format!("`{incarnation}` is no incarnation");
            Refusal::bad("bad-incarnation", detail, "32 hexadecimal digits, as `citybrain enrol list --json` has it")
        })?;
        notes.push(Note::Enrolled { child: address.clone(), inc, is_admitted: wanted.admit });
    }
    let what = if wanted.admit { "enrol approve" } else { "enrol refuse" };
    let named = |c: &EnrolledChild| format!("{} ({})", c.address, c.incarnation);
    let detail = wanted.children.iter().map(named).collect::<Vec<_>>().join(", ");
    operator(&ctx, &who, what, &detail).await?;
    let late = Late { what: "your word", hint: "`citybrain enrol list` shows who still waits" };
    commit::noted(&ctx, notes, late).await?;
    Ok(ctx.answer(view::Enrolled { is_admitted: wanted.admit, children: wanted.children }))
}

/// How long the links' driver may take to say whether a child has a session.
const FORGET_WITHIN: Duration = Duration::from_secs(2);

/// `POST /v1/enrolments/retire` `{"address":"c/s"}`
pub async fn retire(From(ctx): From<Arc<Ctx>>, who: Operator, Sent(body): Sent) -> Result<Response, Refusal> {
    let view::Retire { address, even_with_cases } = parse(&body, "{\"address\":\"c/s\"}: a child of this node")?;
    let own = &ctx.config.node.address;
    if !address.is_child_of(own) {
        let hint = address.parent().map_or_else(String::new, |p| format!("its parent is {p}: `x-citybrain-at: {p}`"));
        return Err(Refusal::bad("not-a-child", format!("{address} is no child of {own}"), hint));
    }
    let (nodes, is_known, open_cases, active_alarms) = ctx.hub.state(|s| {
        let nodes: Vec<Address> = s.registry.keys().filter(|a| address.covers(a)).cloned().collect();
        let is_theirs = |c: &Case| address.covers(&c.owner) || address.covers(c.bound_for());
        let owns = |b: &Brain| b.cases.open_ones().filter(|held| is_theirs(&held.case)).count();
        let is_known = !nodes.is_empty() || s.peers.get(&address).is_some_and(|p| !p.retired);
        let alarms = |b: &Brain| b.rules.alarms.iter().filter(|a| a.active && address.covers(&a.origin)).count();
        (nodes, is_known, Brain::of(s).map_or(0, owns) as u64, Brain::of(s).map_or(0, alarms) as u64)
    });
    if !is_known {
        let hint = "`citybrain tree` shows who is in it";
        return Err(Refusal::not_found(format!("{address} is not in the tree of {own}"), hint));
    }
    if open_cases > 0 && !even_with_cases {
        let detail = format!(
            "at or below {address} are the owners of {}, or it is on its way there: nobody could step it any more",
            words::counted(open_cases, "open case")
        );
        let hint = r#"start a box under its address, which is given them back, and dispatch them; or say so: `"even_with_cases":true`"#;
        return Err(Refusal::new(StatusCode::CONFLICT, "owns-cases", detail, hint));
    }
    let Some(links) = &ctx.downlinks else {
        return Err(Refusal::not_found(format!("{own} has no children"), "ask its parent"));
    };
    match tokio::time::timeout(FORGET_WITHIN, links.forget(&address)).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            let detail = format!("{address} is connected");
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "connected",
                detail,
                "stop it first: it would be back at once",
            ));
        }
        Ok(Err(error)) => {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string(), "try again"));
        }
        Err(_) => {
            let detail = "the links do not answer: is the broker away?";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail, "try again when it is back"));
        }
    }
    operator(&ctx, &who, "enrol retire", address.as_str()).await?;
    let word = engine::subtree(own, &address, true, &uuid::Uuid::now_v7().to_string());
    let late = Late { what: "your word", hint: "`citybrain tree` shows whether it did" };
    commit::offered(&ctx, vec![word], late).await?;
    Ok(ctx.answer(view::Retired { address, nodes, open_cases, active_alarms }))
}
