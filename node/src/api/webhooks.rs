//! How far webhooks are, and an operator's word on one that stands.

use super::input::{Sent, parse};
use super::ops::Operator;
use super::{Ctx, Refusal};
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
    let Some(post) = ctx.operations.posts.iter().find(|p| p.name == name) else {
        return Err(Refusal::not_found(format!("config has no webhook `{name}`"), hint));
    };
    let act = record::draft(&ctx.config.node.address, &who.act("webhook skip", &format!("{name} at {pos}")));
    let refused = |why| Refusal::new(StatusCode::CONFLICT, "not-standing", format!("webhook {name}: {why}"), hint);
    post.skip(pos, act).await.map_err(refused)?;
    Ok(ctx.answer(view::WebhookSkipped { name, pos }))
}
