//! HTTP: health, metrics, and the JSON API that the CLI asks.
//!
//! [`table`] has a row for every route: its path, who may ask, what goes in and comes out. The router,
//! [`guard`] and `docs/openapi.json` are made from it. What answers:
//!
//! | module | what |
//! |---|---|
//! | [`status`], [`links`], [`metrics`], [`ops`] | the node itself |
//! | [`events`], [`counts`] | its log, read |
//! | [`intake`], [`binding`] | events and directives that come in; answered after the fsync |
//! | [`dead_letters`], [`settle`] | what was refused, and an operator's word on it |
//! | [`directives`] | what was sent down, and who answered |
//! | [`alarms`], [`cases`], [`services`], [`supervision`] | what the brain knows |
//! | [`resident`], [`outward`] | what of a case the app that brought it is shown; what its webhook is sent |
//! | [`trace`], [`why`], [`audit`], [`downward`] | where an event is, why something does not move, do the books add up |
//! | [`cap`] | alarms out and warnings in by CAP 1.2 |
//! | [`enrol`] | children that wait for an operator's word |
//! | [`road`] | any node below, through the links |
//! | [`open311`] | cases for the apps that speak it |
//! | [`filter`], [`nodes`] | which events are asked for; which nodes are known here |
//! | [`ledger`], [`runs`] | what a child holds that must climb, as runs of numbers |
//! | [`input`], [`guard`], [`origin`], [`listen`] | how requests are read, who and whose pages may pass, where they come in |
//! | [`asyncapi`], `describe` (in tests) | the MQTT topics and the routes, described |
//! | [`commit`], [`once`], [`etag`] | the wait for the disk, what was asked before, what is known already |
//!
//! Answers are `citybrain_shared::view` values; an error is a [`Failure`] with a fitting status.
//! Who may ask is judged by [`guard`], where the config names a tokens file; without one the listener
//! is loopback, and [`origin`] keeps other people's web pages out.

pub mod alarms;
mod asyncapi;
mod audit;
mod binding;
mod cap;
mod cases;
mod commit;
mod counts;
mod dead_letters;
#[cfg(test)]
mod describe;
mod directives;
mod downward;
mod enrol;
mod etag;
mod events;
#[cfg(test)]
mod examples;
pub mod filter;
pub mod guard;
mod input;
mod intake;
mod ledger;
pub mod links;
pub mod listen;
pub mod metrics;
mod nodes;
mod once;
mod open311;
pub mod ops;
mod origin;
pub mod outward;
mod pages;
pub mod reload;
mod resident;
pub mod road;
mod runs;
mod services;
mod settle;
mod status;
mod supervision;
mod table;
#[cfg(test)]
mod tests;
mod trace;
mod webhooks;
mod why;

pub(crate) use events::{FORGOTTEN, WITHHELD};

use crate::ctx::Ctx;
use crate::turns;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use citybrain_shared::limits;
use citybrain_shared::view::{Answer, Failure, View};
use citybrain_shared::words::with_causes;
use std::sync::Arc;

impl Ctx {
    fn address(&self) -> &str {
        self.config.node.address.as_str()
    }

    /// When what is answered now was true.
    pub(crate) fn as_of(&self) -> DateTime<Utc> {
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

/// All that is served: the node's own routes, and the road to those below. Where there are tokens, only
/// to those whom they name.
pub fn router(ctx: Arc<Ctx>) -> Router {
    let tokens = ctx.operations.tokens.clone();
    let is_guarded = tokens.is_some();
    let once = once::Once::new(ctx.clone());
    let all = road::before(routes(ctx.clone()), &ctx);
    let all = all.layer(axum::middleware::from_fn_with_state(once.clone(), once::once));
    // It has its own way of saying who asks.
    let origins: Arc<[String]> = ctx.config.api.origins.clone().into();
    let open311 = open311::router(ctx.clone(), once);
    let all = match tokens {
        None => all.layer(axum::Extension(guard::Caller::Operator)),
        Some(tokens) => {
            let is_call = Arc::new(move |category: &str| cases::is_call(&ctx, category));
            all.layer(axum::middleware::from_fn_with_state(guard::Judge { tokens, is_call }, guard::guard))
        }
    };
    let all = open311.fallback_service(all);
    if is_guarded {
        return all.layer(axum::middleware::from_fn_with_state(origins, pages::pages));
    }
    all.layer(axum::middleware::from_fn_with_state(origin::machine(), origin::own_pages))
}

/// What the node answers itself, to a client as to a question from above.
pub fn routes(ctx: Arc<Ctx>) -> Router {
    table::router(table::rows())
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        // An event, and room for the request around it.
        .layer(DefaultBodyLimit::max(limits::EVENT_BYTES_MAX + 16 * 1024))
        .with_state(ctx)
}

async fn nothing_here(uri: Uri) -> Refusal {
    nothing_at(uri.path())
}

fn nothing_at(path: &str) -> Refusal {
    Refusal::not_found(format!("there is nothing at {path}"), "GET /openapi.json names every path")
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let mut allowed = table::methods_at(uri.path());
    // The router gives it wherever there is GET.
    if allowed.contains(&Method::GET) {
        allowed.push(Method::HEAD);
    }
    let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let detail = format!("{} does not take {method}", uri.path());
    let hint = format!("it takes {allowed}; GET /openapi.json says what each does");
    let mut response = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail, hint).into_response();
    if let Ok(value) = HeaderValue::try_from(allowed) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
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

/// A list's page, with `Link: <…>; rel="next"` (RFC 8288) where there is another one.
fn with_next(mut response: Response, uri: &Uri, next: Option<impl ToString>) -> Response {
    let Some(next) = next else { return response };
    let mut query = form_urlencoded::Serializer::new(String::new());
    let given = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    query.extend_pairs(given.filter(|(name, _)| name != "after"));
    query.append_pair("after", &next.to_string());
    if let Ok(link) = HeaderValue::try_from(format!("<{}?{}>; rel=\"next\"", uri.path(), query.finish())) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// Why a request is not answered as asked.
#[derive(Clone, Debug)]
pub struct Refusal {
    status: StatusCode,
    failure: Failure,
    /// After so many seconds it may be asked again; 0: nothing is said of it.
    retry_after_s: u64,
}

/// After so long whoever asked for what is not known yet asks again, seconds: a box in place of a lost one mostly knows
/// all by then.
const NOT_YET_S: u64 = 10;

impl Refusal {
    fn new(status: StatusCode, error: &str, detail: impl Into<String>, hint: impl Into<String>) -> Refusal {
        let failure = Failure { error: error.into(), detail: detail.into(), hint: hint.into() };
        Refusal { status, failure, retry_after_s: 0 }
    }

    fn after(self, retry_after_s: u64) -> Refusal {
        Refusal { retry_after_s, ..self }
    }

    fn bad(error: &str, detail: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error, detail, hint)
    }

    fn not_found(detail: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "not-found", detail, hint)
    }

    fn log(error: &citybrain_hub::log::Error) -> Refusal {
        let hint = "`citybrain store verify DIR` says what is damaged; the rest stays readable";
        let detail = format!("the log does not read: {}", with_causes(error));
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "log", detail, hint)
    }
}

/// The beginning of an id that fits more than one.
fn several(text: &str, a: &str, b: &str) -> Refusal {
    let detail = format!("`{text}` fits more than one, such as {a} and {b}");
    Refusal::new(StatusCode::NOT_FOUND, "ambiguous", detail, "write more of it")
}

impl From<turns::Error> for Refusal {
    fn from(error: turns::Error) -> Refusal {
        match error {
            turns::Error::Busy(_) => {
                let hint = "ask again in a moment, and for less at a time";
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string(), hint)
            }
            turns::Error::Panicked => {
                let hint = "the node's log says more";
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", error.to_string(), hint)
            }
            turns::Error::Log(e) => Refusal::log(&e),
        }
    }
}

impl From<citybrain_hub::engine::Error> for Refusal {
    fn from(error: citybrain_hub::engine::Error) -> Refusal {
        let word = match error {
            citybrain_hub::engine::Error::Stopping => "stopping",
            citybrain_hub::engine::Error::Unwritable(_) => "unwritable",
            citybrain_hub::engine::Error::TooLarge(_) => {
                let hint = "nothing of it is kept; send less at a time";
                return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", error.to_string(), hint);
            }
        };
        let hint = "nothing of it is kept; send it again later, `citybrain status` says when the node is ready";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, word, error.to_string(), hint)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.failure);
        if self.retry_after_s > 0 {
            response.headers_mut().insert(header::RETRY_AFTER, self.retry_after_s.into());
        }
        response
    }
}
