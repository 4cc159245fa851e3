//! How far webhooks are, and an operator's word on one that stands.

use super::commit::COMMIT_WAIT;
use super::input::{Sent, parse};
use super::ops::Operator;
use super::{Ctx, Refusal};
use crate::webhook::NotSkipped;
use axum::extract::State as From;
use axum::http::StatusCode;
use axum::response::Response;
use citybrain_hub::operator as record;
use citybrain_shared::view;
use std::sync::Arc;

impl Ctx {
    pub(crate) fn webhooks(&self) -> Vec<view::Webhook> {
        let last = self.hub.reader().last();
        self.operations.webhooks.iter().map(|w| w.view(last)).collect()
    }
}

/// `POST /v1/webhooks/skip`: what its receiver does not take becomes a dead letter, and the next one's turn comes.
pub async fn skip(From(ctx): From<Arc<Ctx>>, who: Operator, Sent(body): Sent) -> Result<Response, Refusal> {
    let view::WebhookSkip { name, pos } = parse(&body, "{\"name\":\"app\",\"pos\":7}")?;
    let hint = "`citybrain status` says which webhooks stand, and where";
    let Some(hook) = ctx.operations.webhooks.iter().find(|w| w.name() == name) else {
        return Err(Refusal::not_found(format!("config has no webhook `{name}`"), hint));
    };
    let act = who.act("webhook skip", &format!("{name} at {pos}"));
    let draft = record::draft(&ctx.config.node.address, &act);
    let refusal = |status, word, why: &str| Refusal::new(status, word, format!("webhook {name}: {why}"), hint);
    let late = format!(
        "{pos} was not passed over within {} s: its receiver is still being asked, or the disk is slow",
        COMMIT_WAIT.as_secs()
    );
    let done = tokio::time::timeout(COMMIT_WAIT, hook.skip(pos, act.who, draft)).await;
    done.map_err(|_| refusal(StatusCode::GATEWAY_TIMEOUT, "deadline", &late))?.map_err(|error| match error {
        NotSkipped::Moving(why) => refusal(StatusCode::CONFLICT, "not-standing", &why),
        NotSkipped::Log(error) => error.into(),
    })?;
    Ok(ctx.answer(view::WebhookSkipped { name, pos }))
}
