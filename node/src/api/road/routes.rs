//! Where the road begins: `/v1/at`, `/v1/ask`, a header on any path, and what is said of who does not answer.

use super::super::guard::{Caller, Judged};
use super::super::input::{Path, query};
use super::super::ops::Operator;
use super::super::table::{self, Row};
use super::super::{Ctx, Refusal, json, now, wrong_method};
use super::answering::{CHANGE_BYTES_MAX, call, changeable, from_above, pass};
use super::asking::{NODES_MAX, TOGETHER, ask_view, many, put};
use super::{PERSONS, Replied};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State as From};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use citybrain_hub::link::ask::AskError;
use citybrain_shared::view::{self, Answer, Failure, LinkRole};
use citybrain_shared::{Address, Selector, words};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const WITHIN_DEFAULT_MS: u64 = 2_000;
const WITHIN_MAX_MS: u64 = 10_000;
/// Extra time for asking those above a silent node what they last knew of it.
const KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// Puts the road before this node's own routes.
pub fn before(routes: Router, ctx: &Arc<Ctx>) -> Router {
    let road = Road { ctx: ctx.clone(), routes: routes.clone() };
    table::router(rows())
        .method_not_allowed_fallback(wrong_method)
        .fallback_service(routes)
        .layer(axum::middleware::from_fn_with_state(road.clone(), by_header))
        .with_state(road)
}

/// What the road itself answers.
pub fn rows() -> Vec<Row<Road>> {
    vec![
        table::read("/v1/at/{*address}", "What a node below answers to a path of its own", at)
            .query::<Where>()
            .gives_any("what that node answers"),
        table::read(
            "/v1/ask",
            "Ask many nodes below; a line each as they answer, and who is missing at the end",
            ask_many,
        )
        .query::<Whom>()
        .lines::<view::Reply>(),
    ]
}

#[derive(Clone)]
pub struct Road {
    ctx: Arc<Ctx>,
    routes: Router,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Where {
    /// What to ask it, from `/` on; default: its status.
    path: String,
    /// How long the way there and back may take, ms; 1 to 10000, default 2000.
    within_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Whom {
    /// Whom to ask, such as `chengdu/**@community`.
    selector: String,
    /// What to ask each, from `/` on.
    path: String,
    /// For all of them together, ms; 1 to 10000, default 2000.
    within_ms: Option<u64>,
}

/// `GET /v1/at/ADDRESS?path=/v1/status`
async fn at(
    From(road): From<Road>,
    judged: Judged,
    Path(address): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let wanted: Where = query(&uri)?;
    forward(&road, judged, &address, &wanted.path, within(wanted.within_ms)?).await
}

/// Any GET with [`view::HEADER_AT`], and the changes of `answering::CHANGES`.
async fn by_header(From(road): From<Road>, request: Request, next: Next) -> Response {
    let Some(address) = request.headers().get(view::HEADER_AT) else { return next.run(request).await };
    let address = address.to_str().unwrap_or_default().to_owned();
    let allowed = from_above(request.uri().path());
    elsewhere(&road, &address, request).await.unwrap_or_else(|refusal| {
        let mut response = refusal.into_response();
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            let allowed = HeaderValue::try_from(allowed).expect("methods are plain ASCII");
            response.headers_mut().insert(header::ALLOW, allowed);
        }
        response
    })
}

async fn elsewhere(road: &Road, address: &str, request: Request) -> Result<Response, Refusal> {
    let (path, within_ms) = without_deadline(request.uri());
    let within = within(within_ms)?;
    if request.method() == Method::GET {
        let judged = Judged::of(request.extensions());
        return forward(road, judged, address, &path, within).await;
    }
    changeable(request.method(), &path)?;
    let own = &road.ctx.config.node.address;
    let to = below(own, address)?;
    let (mut parts, body) = request.into_parts();
    let Ok(mut who) = Operator::from_request_parts(&mut parts, &()).await;
    let body = axum::body::to_bytes(body, CHANGE_BYTES_MAX).await.map_err(|_| {
        let detail = format!("a change through the links has at most {CHANGE_BYTES_MAX} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail, "change less at a time")
    })?;
    if to == *own {
        let mut request = Request::from_parts(parts, Body::from(body));
        request.extensions_mut().insert(who);
        return Ok(pass(road.routes.clone(), request).await);
    }
    who.from = format!("{}, by {own}", who.from);
    let who = serde_json::to_string(&who).expect("an operator has only string keys");
    let mut question = format!("POST {path}\n{who}\n").into_bytes();
    question.extend_from_slice(&body);
    match put(&road.ctx, &to, question.into(), within).await {
        Err(AskError::Late) => {
            let detail = format!("{to} did not answer in time: it may have done it all the same");
            let hint = format!("`citybrain events --type city.brain.operator --at {to}` says what was done there");
            Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "late", detail, hint))
        }
        told => answered(road, &to, told).await,
    }
}

/// The path and query without `within_ms`, which is for the asker.
fn without_deadline(uri: &Uri) -> (String, Option<u64>) {
    let mut within_ms = None;
    let rest = uri.query().unwrap_or_default().split('&').filter(|pair| match pair.strip_prefix("within_ms=") {
        Some(ms) => {
            within_ms = Some(ms.parse().unwrap_or(0));
            false
        }
        None => !pair.is_empty(),
    });
    let rest = rest.collect::<Vec<_>>().join("&");
    let path = if rest.is_empty() { uri.path().to_owned() } else { format!("{}?{rest}", uri.path()) };
    (path, within_ms)
}

/// The deadline asked for.
pub fn within(ms: Option<u64>) -> Result<Duration, Refusal> {
    match ms.unwrap_or(WITHIN_DEFAULT_MS) {
        ms @ 1..=WITHIN_MAX_MS => Ok(Duration::from_millis(ms)),
        _ => Err(Refusal::bad("bad-query", format!("`within_ms` is 1 to {WITHIN_MAX_MS}"), "leave it out for 2 s")),
    }
}

async fn forward(
    road: &Road,
    judged: Judged,
    address: &str,
    path: &str,
    within: Duration,
) -> Result<Response, Refusal> {
    let own = &road.ctx.config.node.address;
    let to = below(own, address)?;
    let path = if path.is_empty() { "/v1/status" } else { path };
    let uri = path_of(path)?;
    if to == *own {
        return Ok(call(road.routes.clone(), uri, judged).await);
    }
    let mut question = format!("GET {path}");
    if judged.caller().sees_persons() {
        question = format!("{question}\n{PERSONS}");
    }
    let told = put(&road.ctx, &to, question.into(), within).await;
    let told = told.map(|replied| for_caller(replied, judged.caller(), own));
    answered(road, &to, told).await
}

/// A case takes of whoever asks what he may ask for: who he is only this node knows.
fn for_caller(replied: Replied, caller: &Caller, me: &Address) -> Replied {
    if *caller == Caller::Operator {
        return replied;
    }
    let Ok(mut shown) = Answer::<view::CaseShown>::parse(&replied.body) else { return replied };
    let view::CaseShown { case, history, allowed, .. } = &mut shown.body;
    allowed.retain(|verb| caller.may_ask(case, history, me, *verb));
    Replied { body: line(&shown), ..replied }
}

/// A path that may be asked for. One with a line feed in it would be a question with a second line.
fn path_of(path: &str) -> Result<Uri, Refusal> {
    let uri = path.parse().ok().filter(|_| path.starts_with('/'));
    uri.ok_or_else(|| Refusal::bad("bad-path", format!("`{path}` is no path"), "such as `/v1/status`"))
}

/// What a node below told, or what is known of it while it tells nothing.
async fn answered(road: &Road, to: &Address, told: Result<Replied, AskError>) -> Result<Response, Refusal> {
    match told {
        Ok(replied) => Ok(replied.into_response()),
        Err(AskError::Busy) => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            AskError::Busy.to_string(),
            "try again in a moment",
        )),
        Err(AskError::TooLarge) => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            AskError::TooLarge.to_string(),
            "ask for less",
        )),
        Err(error) => Ok(unanswered(&road.ctx, to, &error).await),
    }
}

/// An address that may be asked from here.
pub fn below(own: &Address, address: &str) -> Result<Address, Refusal> {
    let to = Address::parse(address.trim_matches('/'))
        .map_err(|e| Refusal::bad("bad-address", e.to_string(), format!("such as `{own}`")))?;
    if own.covers(&to) {
        return Ok(to);
    }
    let hint = match to.parent() {
        _ if to.segments().next() != own.segments().next() => {
            format!("an address is whole, from the city on: such as `{own}`")
        }
        Some(parent) => {
            format!("ask it at a node above it, such as {parent}, or ask it itself, `citybrain … --node URL`")
        }
        None => "nobody is above it: ask it itself, `citybrain … --node URL`".to_owned(),
    };
    Err(Refusal::bad("not-below", format!("{to} is not below {own}: only a node above can ask it"), hint))
}

/// 504, with what the nearest node above it last knew of it.
async fn unanswered(ctx: &Ctx, to: &Address, error: &AskError) -> Response {
    let known = last_known(ctx, to).await;
    let told = known.as_ref().map_or_else(String::new, |k| format!(". {}", sentence(k)));
    let is_known = known.as_ref().is_none_or(|k| k.body.is_registered || k.body.link.is_some());
    let failure = Failure {
        error: if is_known { "unreachable" } else { "unknown-node" }.into(),
        detail: format!("{to} did not answer: {error}{told}"),
        hint: format!("`citybrain why {to}` says what is in the way"),
    };
    let known = known.and_then(|k| serde_json::to_value(k).ok());
    json(StatusCode::GATEWAY_TIMEOUT, &view::Unanswered { failure, known })
}

/// The word of the nearest node above `to` that answers; of this one at last.
async fn last_known(ctx: &Ctx, to: &Address) -> Option<Answer<view::Known>> {
    let own = &ctx.config.node.address;
    let mut teller = to.parent()?;
    while teller != *own {
        if let Ok((answer, _)) = ask_view(ctx, &teller, &format!("/v1/known?address={to}"), KNOWN_WITHIN).await {
            return Some(answer);
        }
        teller = teller.parent()?;
    }
    Some(Answer::new(own.as_str(), now(), known(ctx, to)))
}

/// What is known of a node, in one sentence.
pub fn sentence(known: &Answer<view::Known>) -> String {
    let (by, k) = (&known.head.node, &known.body);
    let ago = |ms: u64| format!("{} ago", words::span(ms));
    match &k.link {
        Some(link) => {
            let since = link.since_in_words();
            let why = link.why.as_ref().map_or_else(String::new, |w| format!(" ({w})"));
            if link.peer == k.address {
                return format!("{by}, its parent: the link is {}{why} {since}", link.state);
            }
            let told = k
                .presence_ms_ago
                .map_or_else(|| "never told of itself".into(), |ms| format!("last told of itself {}", ago(ms)));
            let (at, state) = (&link.peer, &link.state);
            format!("{by}, above it: the link to {at}, on the way, is {state}{why} {since}; {} {told}", k.address)
        }
        None if k.is_registered => {
            let told = k.presence_ms_ago.map_or_else(|| "at a time unknown".into(), ago);
            format!("{by} has no session with it; it last told of itself {told}")
        }
        None => format!("{by} has never heard of it"),
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Of {
    address: String,
}

/// `GET /v1/known?address=…`: what this node last knew of another.
pub async fn known_of(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let of: Of = query(&uri)?;
    let to = below(&ctx.config.node.address, &of.address)?;
    Ok(ctx.answer(known(&ctx, &to)))
}

fn known(ctx: &Ctx, to: &Address) -> view::Known {
    let towards = ctx.config.node.address.child_towards(to);
    let link = (ctx.links)().into_iter().find(|l| l.role == LinkRole::Down && Some(&l.peer) == towards.as_ref());
    let now_us = now().timestamp_micros();
    ctx.hub.state(|s| {
        let row = s.registry.get(to);
        view::Known {
            address: to.clone(),
            is_registered: row.is_some(),
            name: row.map(|k| k.name.clone()).unwrap_or_default(),
            version: row.map(|k| k.version.clone()).unwrap_or_default(),
            presence_ms_ago: row.map(|k| (now_us - k.last_heard_us).max(0) as u64 / 1000),
            link,
        }
    })
}

/// `GET /v1/ask?selector=…&path=…`: a line a node, as they come; at the end, who is missing.
async fn ask_many(From(road): From<Road>, judged: Judged, uri: Uri) -> Result<Response, Refusal> {
    let wanted: Whom = query(&uri)?;
    let within = within(wanted.within_ms)?;
    path_of(&wanted.path)?;
    let ctx = road.ctx;
    let own = &ctx.config.node.address;
    let selector = Selector::parse(&wanted.selector)
        .map_err(|e| Refusal::bad("bad-selector", e.to_string(), format!("such as `{own}/**@community`")))?;
    let mut nodes: Vec<Address> = ctx.hub.state(|s| {
        let meant = s.registry.iter().filter(|(a, known)| selector.matches(a, &known.labels) && own.covers(a));
        meant.map(|(a, _)| a.clone()).collect()
    });
    let not_asked = nodes.len().saturating_sub(NODES_MAX) as u64;
    nodes.truncate(NODES_MAX);
    let (tx, rx) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(TOGETHER);
    let mut replies = many(&ctx, nodes.clone(), &wanted.path, within);
    let (me, asker) = (own.clone(), own.to_string());
    tokio::spawn(async move {
        let mut asked = view::Asked {
            selector: selector.to_string(),
            asked: nodes.len() as u64,
            answered: 0,
            missing: Vec::new(),
            not_asked,
        };
        while let Some((node, replied)) = replies.recv().await {
            match replied {
                Ok(replied) => {
                    asked.answered += 1;
                    let replied = for_caller(replied, judged.caller(), &me);
                    if tx.send(Ok(line(&reply_of(node, replied)))).await.is_err() {
                        return;
                    }
                }
                Err(missing) => asked.missing.push(missing),
            }
        }
        asked.missing.sort_by(|a, b| a.node.cmp(&b.node));
        let _ = tx.send(Ok(line(&Answer::new(&asker, now(), asked)))).await; // the client is gone
    });
    let head = Response::builder()
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .header(view::HEADER_NODE, own.as_str())
        .header(view::HEADER_AS_OF, view::rfc3339(now()));
    Ok(head.body(Body::from_stream(ReceiverStream::new(rx))).expect("its headers are plain ASCII"))
}

fn reply_of(node: Address, replied: Replied) -> view::Reply {
    let text = String::from_utf8_lossy(&replied.body).into_owned();
    let is_stream = replied.is_stream();
    let (json, text) = match serde_json::value::RawValue::from_string(text.trim().to_owned()) {
        Ok(json) if !is_stream => (Some(json), None),
        _ => (None, Some(text)),
    };
    let took_ms = replied.took.as_millis() as u64;
    view::Reply { node, took_ms, status: replied.status, cut: replied.cut, json, text }
}

fn line(of: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(of).expect("views have string keys only");
    text.push(b'\n');
    text.into()
}

/// How far a node's clock is ahead of this one's, if the answer was given in the middle of its way.
pub fn ahead_ms(answered: DateTime<Utc>, here: DateTime<Utc>, took: Duration) -> i64 {
    (answered - here).num_milliseconds() + took.as_millis() as i64 / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_taken_out_of_the_question() {
        let uri: Uri = "/v1/events?last=3&within_ms=900&type=a%2Fb".parse().unwrap();
        assert_eq!(without_deadline(&uri), ("/v1/events?last=3&type=a%2Fb".into(), Some(900)));
        assert_eq!(without_deadline(&"/v1/status".parse().unwrap()), ("/v1/status".into(), None));
        assert_eq!(within(None).unwrap(), Duration::from_millis(2000));
        assert!(within(Some(0)).is_err() && within(Some(10_001)).is_err());
    }

    #[test]
    fn only_what_is_below_can_be_asked() {
        let own = Address::parse("c/s").unwrap();
        assert_eq!(below(&own, "c/s/m").unwrap().as_str(), "c/s/m");
        assert_eq!(below(&own, "c").unwrap_err().failure.error, "not-below");
        assert_eq!(below(&own, "c/S").unwrap_err().failure.error, "bad-address");
        assert!(below(&own, "s").unwrap_err().failure.hint.contains("whole, from the city on: such as `c/s`"));
        assert!(below(&own, "c").unwrap_err().failure.hint.contains("nobody is above it"));
    }
}
