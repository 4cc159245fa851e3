//! HTTP: health, metrics, and the JSON API that the CLI asks.
//!
//! | path | what |
//! |---|---|
//! | `/livez`, `/readyz` | is the process alive; can the node do its work |
//! | `/metrics` | Prometheus text |
//! | `/v1/status`, `/v1/tree`, `/v1/links` | [`status`] |
//! | `/v1/events`, `/v1/events/{id}`, `/v1/records` | [`events`]: the log, read |
//! | `/v1/counts?by=…` | [`counts`]: who says how much |
//! | `/v1/dlq`, `/v1/dlq/{pos}` | [`letters`]: what was refused |
//! | `/v1/directives`, `/v1/directives/{id}` | [`directives`]: what was sent down, and who answered |
//! | POST `/v1/dlq/retry`, `/v1/dlq/drop` | [`settle`]: an operator's word on dead letters |
//! | `/v1/log-level` (also POST), `/v1/config`, `/v1/version`, `/v1/doctor`, `/v1/log-lines` | [`ops`] |
//! | `/v1/enrolments` (also POST) | [`enrol`]: children that wait for an operator's word |
//! | `/v1/at/ADDRESS?path=…`, `/v1/ask?selector=…&path=…`, `/v1/known` | [`road`]: any node below, through the links |
//! | `/v1/trace/{id}`, `/v1/hop/{id}` | [`trace`]: the way of an event through the tree |
//! | `/v1/why?address=…`, `/v1/symptoms` | [`why`]: why something does not move |
//! | `/v1/audit`, `/v1/ledger`, `/v1/explain` | [`audit`]: do the books add up |
//! | `/v1/held` | [`downward`]: and of what goes down |
//! | `/v1/alarms`, `/v1/alarms/{id}`, POST `/v1/alarms/{id}/ack`, `clear`, `shelve` | [`alarms`] |
//! | `/v1/alarms/{id}/cap`, `/v1/cap.atom`, POST `/v1/cap` | [`cap`]: alarms out and warnings in by CAP 1.2 |
//! | `/v1/rules`, POST `/v1/reload` | [`alarms`]: rules in force, and newer ones |
//! | `/v1/cases`, `/v1/cases/{id}`, POST `/v1/cases`, POST `/v1/cases/{id}/{step}`, POST `/v1/cases/import` | [`cases`] |
//! | `/v1/rates`, `/v1/case-stats`, `/v1/supervision` | [`supervision`] |
//! | `/v1/services`, `/v1/services/{code}`, POST `/v1/services/{code}/requests`, `/v1/scenes`, `/v1/scenes.geojson` | [`services`] |
//! | `/open311/v2/…` | [`open311`]: cases for the apps that speak it |
//! | POST `/v1/send`, POST `/v1/events` | [`intake`]: answers after the fsync |
//!
//! Answers are `citybrain_shared::view` values; an error is a [`Failure`] with a fitting status.
//! Who may ask is judged by [`guard`], where the config names a tokens file; without one the listener
//! is loopback.

pub mod alarms;
mod audit;
mod binding;
mod cap;
mod cases;
mod counts;
mod directives;
mod downward;
mod enrol;
mod events;
pub mod guard;
mod intake;
mod letters;
pub mod links;
pub mod listen;
pub mod metrics;
mod open311;
pub mod ops;
pub mod road;
mod services;
mod settle;
mod status;
mod supervision;
#[cfg(test)]
mod tests;
mod trace;
mod why;

pub(crate) use events::WITHHELD;
pub(crate) use open311::body::escape;

use crate::tokens::Tokens;
use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Query};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use citybrain_hub::Hub;
use citybrain_hub::link::Downlinks;
use citybrain_hub::note::DeadLetter;
use citybrain_shared::config::Config;
use citybrain_shared::limits;
use citybrain_shared::record::Draft;
use citybrain_shared::view::{self, Answer, Failure, View};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Makes a record of a CloudEvents JSON object, or says why not. The second argument is where it
/// came in: `http`, `api:send`.
pub type Accept = Arc<dyn Fn(&Bytes, &str) -> Result<Draft, DeadLetter> + Send + Sync>;

/// What the API answers from. The closures look at what other tasks own; they must not wait.
pub struct Ctx {
    pub hub: Hub,
    pub config: Config,
    pub links: Arc<dyn Fn() -> Vec<view::Link> + Send + Sync>,
    pub door: Arc<dyn Fn() -> view::Door + Send + Sync>,
    pub ready: Arc<dyn Fn() -> view::Ready + Send + Sync>,
    pub accept: Accept,
    pub operations: ops::Sources,
    /// The way to the nodes below; `None` where there can be none.
    pub downlinks: Option<Downlinks>,
    /// For a stopped node's folder: when its last record was committed.
    pub offline: Option<DateTime<Utc>>,
    /// When the process began its work.
    pub started: Instant,
    /// True once the node is stopping: streams that follow end then.
    pub stop: watch::Receiver<bool>,
}

impl Ctx {
    fn address(&self) -> &str {
        self.config.node.address.as_str()
    }

    /// When what is answered now was true.
    fn as_of(&self) -> DateTime<Utc> {
        self.offline.unwrap_or_else(now)
    }

    fn answer<T: View>(&self, body: T) -> Response {
        self.answer_with(StatusCode::OK, body)
    }

    fn answer_with<T: View>(&self, status: StatusCode, body: T) -> Response {
        let mut answer = Answer::new(self.address(), self.as_of(), body);
        answer.head.offline = self.offline.is_some();
        json(status, &answer)
    }
}

/// All that is served: the node's own routes, and the road to those below. With `tokens`, only to
/// those whom they name.
pub fn router(ctx: Arc<Ctx>, tokens: Option<Arc<Tokens>>) -> Router {
    let all = road::before(routes(ctx.clone()), &ctx);
    // It has its own way of saying who asks.
    let open311 = open311::router(ctx, tokens.clone());
    let all = match tokens {
        None => all.layer(axum::Extension(guard::Caller::Operator)),
        Some(tokens) => all.layer(axum::middleware::from_fn_with_state(tokens, guard::guard)),
    };
    open311.fallback_service(all)
}

/// What the node answers itself, to a client as to a question from above.
pub fn routes(ctx: Arc<Ctx>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(metrics::text))
        .route("/v1/status", get(status::status))
        .route("/v1/tree", get(status::tree))
        .route("/v1/links", get(links::links))
        .route("/v1/events", get(events::list))
        .route("/v1/events", axum::routing::post(intake::event).layer(DefaultBodyLimit::max(intake::BATCH_BYTES_MAX)))
        .route("/v1/events/{id}", get(events::show))
        .route("/v1/records", get(events::records))
        .route("/v1/counts", get(counts::counts))
        .route("/v1/dlq", get(letters::list))
        .route("/v1/dlq/{pos}", get(letters::show))
        .route("/v1/dlq/retry", axum::routing::post(settle::retry))
        .route("/v1/dlq/drop", axum::routing::post(settle::drop_letters))
        .route("/v1/log-level", get(ops::log_level).post(ops::set_log_level))
        .route("/v1/log-lines", get(ops::log_lines))
        .route("/v1/config", get(ops::config))
        .route("/v1/version", get(ops::version))
        .route("/v1/enrolments", get(enrol::list).post(enrol::decide))
        .route("/v1/doctor", get(ops::doctor))
        .route("/v1/directives", get(directives::list))
        .route("/v1/directives/{id}", get(directives::show))
        .route("/v1/health", get(status::health))
        .route("/v1/known", get(road::known_of))
        .route("/v1/hop/{id}", get(trace::hop))
        .route("/v1/trace/{id}", get(trace::trace))
        .route("/v1/symptoms", get(why::symptoms))
        .route("/v1/why", get(why::why))
        .route("/v1/ledger", get(audit::ledger))
        .route("/v1/explain", get(audit::explain))
        .route("/v1/audit", get(audit::audit))
        .route("/v1/held", get(downward::held))
        .route("/v1/alarms", get(alarms::list))
        .route("/v1/alarms/{id}", get(alarms::show))
        .route("/v1/alarms/{id}/cap", get(cap::show))
        .route("/v1/cap.atom", get(cap::atom))
        .route("/v1/cap", axum::routing::post(cap::take))
        .route("/v1/alarms/{id}/{action}", axum::routing::post(alarms::change))
        .route("/v1/rules", get(alarms::rules))
        .route("/v1/reload", axum::routing::post(alarms::reload))
        .route("/v1/cases", get(cases::list).post(cases::open))
        .route("/v1/cases/import", axum::routing::post(cases::import))
        .route("/v1/cases/{id}", get(cases::show))
        .route("/v1/cases/{id}/{step}", axum::routing::post(cases::step))
        .route("/v1/case-stats", get(supervision::counted))
        .route("/v1/rates", get(supervision::rated))
        .route("/v1/supervision", get(supervision::watched))
        .route("/v1/services", get(services::list))
        .route("/v1/services/{code}", get(services::show))
        .route("/v1/services/{code}/requests", axum::routing::post(services::request))
        .route("/v1/scenes", get(services::scenes))
        .route("/v1/scenes.geojson", get(services::geojson))
        .route("/v1/send", axum::routing::post(intake::send))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        // An event, and room for the request around it.
        .layer(DefaultBodyLimit::max(limits::EVENT_BYTES_MAX + 16 * 1024))
        .with_state(ctx)
}

async fn nothing_here(uri: Uri) -> Refusal {
    Refusal::not_found(
        format!("there is nothing at {}", uri.path()),
        "the paths begin with /v1/: status, tree, links, events, trace/ID, why, audit",
    )
}

async fn wrong_method(uri: Uri) -> Refusal {
    let detail = format!("{} does not take this method", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail, "use GET, or POST for /v1/send and /v1/events")
}

#[allow(clippy::disallowed_methods, reason = "an answer says when it was given; nothing is decided from it")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Response {
    let mut text = serde_json::to_vec(body).expect("views have string keys only");
    text.push(b'\n');
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The query string, typed.
fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    let wrong = |e: axum::extract::rejection::QueryRejection| {
        Refusal::bad("bad-query", e.body_text(), "times and counts are whole numbers")
    };
    Query::try_from_uri(uri).map(|Query(q)| q).map_err(wrong)
}

/// A change's body, typed; `hint` is what one looks like.
fn body<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, hint: &str) -> Result<T, Refusal> {
    let body = body.map_err(|e| Refusal::bad("bad-request", e.body_text(), hint))?;
    serde_json::from_slice(&body).map_err(|e| Refusal::bad("bad-request", format!("not a request: {e}"), hint))
}

/// Why a request is not answered as asked.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    failure: Failure,
}

impl Refusal {
    fn new(status: StatusCode, error: &str, detail: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal { status, failure: Failure { error: error.into(), detail: detail.into(), hint: hint.into() } }
    }

    fn bad(error: &str, detail: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error, detail, hint)
    }

    fn not_found(detail: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "not-found", detail, hint)
    }

    fn log(error: &citybrain_hub::log::Error) -> Refusal {
        let hint = "`citybrain store verify DIR` says what is damaged; the rest stays readable";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "log", format!("the log does not read: {error}"), hint)
    }
}

impl From<citybrain_hub::engine::Error> for Refusal {
    fn from(error: citybrain_hub::engine::Error) -> Refusal {
        let word = match error {
            citybrain_hub::engine::Error::Stopping => "stopping",
            _ => "unwritable",
        };
        let hint = "nothing of it is kept; send it again later, `citybrain status` says when the node is ready";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, word, error.to_string(), hint)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.status, &self.failure)
    }
}
