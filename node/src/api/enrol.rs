//! Children that an operator has to let in (`link.enrol = "manual"`), and the operator's word on them.

use super::input::{Sent, parse};
use super::ops::{Operator, operator};
use super::{Ctx, Refusal};
use axum::extract::State as From;
use axum::response::Response;
use citybrain_hub::engine::{self, Haste};
use citybrain_hub::note::Note;
use citybrain_shared::Inc;
use citybrain_shared::config::Enrol;
use citybrain_shared::view::{self, EnrolledChild};
use std::sync::Arc;

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
            let hint = address.parent().map_or_else(String::new, |p| format!("its parent is {p}: `--at {p}`"));
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
    engine::wait(ctx.hub.note(notes, Haste::Now).await?).await?;
    Ok(ctx.answer(view::Enrolled { is_admitted: wanted.admit, children: wanted.children }))
}
