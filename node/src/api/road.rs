//! The road to any node below: a question goes down the links, the node's own router answers it.
//!
//! **Format** of a question: `GET PATH`, as text, with a second line [`PERSONS`] if whoever asks one
//! node may see whom to call; of one that changes something: `POST PATH`, a line
//! that says who asks ([`Operator`] as JSON), the body. Of an answer: a JSON line ([`Head`]), then the body.
//!
//! **Bounds.** Nothing is stored. Only GET and the few changes of [`CHANGES`]; no stream that follows;
//! no question that would travel further by itself. An answer fits into one link message: a longer stream is cut behind a whole
//! line, a longer list behind a whole item, and either says so. At most [`TOGETHER`] questions of one
//! asker are under way; each has a deadline.

use super::guard::Caller;
use super::input::{Path, query};
use super::ops::Operator;
use super::table::{self, Row};
use super::{Ctx, Refusal, json};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State as From};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use citybrain_hub::link::ask::{ANSWER_BYTES_MAX, AskError, Handler};
use citybrain_shared::view::{self, Answer, Failure, LinkRole, Missing, View};
use citybrain_shared::{Address, Selector};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tower_service::Service;

const WITHIN_DEFAULT_MS: u64 = 2_000;
const WITHIN_MAX_MS: u64 = 10_000;
/// Extra time for asking those above a silent node what they last knew of it.
const KNOWN_WITHIN: Duration = Duration::from_millis(500);
/// Questions of one asker that are under way at a time: a quarter of what a node lets wait.
const TOGETHER: usize = 16;
/// Nodes that one question asks. A larger subtree is asked part by part.
pub const NODES_MAX: usize = 1_000;
/// What may be changed from above. A node trusts those above it, which send it commands anyway.
const CHANGES: [&str; 6] =
    ["/v1/log-level", "/v1/dlq/retry", "/v1/dlq/drop", "/v1/reload", "/v1/enrolments", "/v1/cases/import"];
/// Body of a change, bytes: a thousand positions of dead letters fit, or forty cases of another system.
pub const CHANGE_BYTES_MAX: usize = 32 * 1024;
/// Room in a link message for its topic and the answer's head.
const HEAD_BYTES: usize = 1024;
/// How long a place is waited for when this node has too many questions under way.
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// The second line of a question whose asker may see names and telephone numbers.
const PERSONS: &str = "persons";

/// The first line of an answer.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Head {
    status: u16,
    content_type: String,
    /// The headers of a stream ([`view::HEADER_AS_OF`], …), those that are there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    /// A stream was longer than an answer may be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

/// What a node answered.
pub struct Replied {
    pub status: u16,
    pub content_type: String,
    pub headers: Vec<(String, String)>,
    pub cut: bool,
    pub body: Bytes,
    pub took: Duration,
}

impl Replied {
    fn is_stream(&self) -> bool {
        self.content_type.starts_with("application/x-ndjson")
    }

    fn parse(bytes: &Bytes, took: Duration) -> Option<Replied> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
        let Head { status, content_type, headers, cut } = head;
        Some(Replied { status, content_type, headers, cut, body: bytes.slice(end + 1..), took })
    }
}

impl IntoResponse for Replied {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut response = (status, Body::from(self.body)).into_response();
        let headers = response.headers_mut();
        let mut set = |name: &str, value: &str| {
            if let (Ok(name), Ok(value)) = (name.parse::<header::HeaderName>(), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        };
        set("content-type", &self.content_type);
        self.headers.iter().for_each(|(name, value)| set(name, value));
        set(view::HEADER_TOOK_MS, &self.took.as_millis().to_string());
        if self.cut {
            set(view::HEADER_CUT, "true");
        }
        response
    }
}

// ---- answering ---------------------------------------------------------------------------------

/// Answers questions from above by this node's own routes.
pub fn handler(ctx: &Ctx, routes: Router) -> Handler {
    let bytes_max = ANSWER_BYTES_MAX.min(ctx.config.link.message_bytes_max).saturating_sub(HEAD_BYTES);
    Arc::new(move |question| {
        let routes = routes.clone();
        Box::pin(async move { reply(routes, &question, bytes_max).await })
    })
}

async fn reply(routes: Router, question: &[u8], bytes_max: usize) -> Bytes {
    let response = match requested(question) {
        Ok(request) => pass(routes, request).await,
        Err(refusal) => refusal.into_response(),
    };
    encode(response, bytes_max).await
}

/// A question as a request to this node's routes.
fn requested(question: &[u8]) -> Result<Request, Refusal> {
    let unknown = || {
        let hint = "the asker may be of a newer version";
        Refusal::bad("bad-question", "the question is not one that this node knows", hint)
    };
    let text = std::str::from_utf8(question).map_err(|_| unknown())?;
    if let Some(rest) = text.strip_prefix("GET ") {
        let (path, sees_persons) = match rest.split_once('\n') {
            Some((path, PERSONS)) => (path, true),
            Some(_) => return Err(unknown()),
            None => (rest, false),
        };
        let uri: Uri = path.parse().map_err(|_| unknown())?;
        if uri.query().is_some_and(|q| q.split('&').any(|p| p == "follow=true")) {
            let hint = "ask again with --after, or ask the node itself";
            return Err(Refusal::bad("follow", "no stream stays open over the links", hint));
        }
        let mut request = get_of(uri);
        if sees_persons {
            request.extensions_mut().insert(Caller::Worker(String::new()));
        }
        return Ok(request);
    }
    let (path, rest) = text.strip_prefix("POST ").and_then(|t| t.split_once('\n')).ok_or_else(unknown)?;
    let (who, body) = rest.split_once('\n').ok_or_else(unknown)?;
    let who: Operator = serde_json::from_str(who).map_err(|_| unknown())?;
    changeable(&Method::POST, path)?;
    let mut request = Request::new(Body::from(body.to_owned()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().map_err(|_| unknown())?;
    request.extensions_mut().insert(who);
    Ok(request)
}

#[cfg(test)]
pub fn is_change(path: &str) -> bool {
    CHANGES.contains(&path)
}

/// Whether it may be changed from above.
fn changeable(method: &Method, path: &str) -> Result<(), Refusal> {
    if method == Method::POST && CHANGES.contains(&path) {
        return Ok(());
    }
    let path = path.split('?').next().unwrap_or_default();
    let detail = format!("`{method} {path}` does not go through the links");
    let hint = format!("do it at the node itself; from above go {}", CHANGES.join(", "));
    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "not-from-above", detail, hint))
}

fn get_of(uri: Uri) -> Request {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    request
}

/// Asks routes as a socket would.
pub async fn call(routes: Router, uri: Uri, caller: Caller) -> Response {
    let mut request = get_of(uri);
    request.extensions_mut().insert(caller);
    pass(routes, request).await
}

async fn pass(mut routes: Router, request: Request) -> Response {
    match routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn encode(response: Response, bytes_max: usize) -> Bytes {
    let (parts, body) = response.into_parts();
    let content_type = text(&parts.headers, "content-type");
    let is_stream = content_type.starts_with("application/x-ndjson");
    // A list is read whole before it is cut; the node's own lists have bounds of their own.
    let read_max = if is_stream { bytes_max } else { 64 * bytes_max };
    let (body, is_over) = read(body, read_max).await;
    let mut head = Head { status: parts.status.as_u16(), content_type, ..Head::default() };
    for name in [view::HEADER_NODE, view::HEADER_AS_OF, view::HEADER_AFTER] {
        let value = text(&parts.headers, name);
        if !value.is_empty() {
            head.headers.push((name.into(), value));
        }
    }
    let body = if is_stream && is_over {
        head.cut = true;
        let whole = body.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        body[..whole].to_vec()
    } else if body.len() > bytes_max || is_over {
        match cut(&body, bytes_max) {
            Some(less) => less,
            None => {
                let detail = format!("the answer is larger than {bytes_max} bytes, the most that comes over the links");
                let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail, "ask the node itself");
                head.status = refusal.status.as_u16();
                serde_json::to_vec(&refusal.failure).expect("a failure has only string keys")
            }
        }
    } else {
        body
    };
    let mut out = serde_json::to_vec(&head).expect("a head has only string keys");
    out.push(b'\n');
    out.extend_from_slice(&body);
    out.into()
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

/// The body up to a bound, and whether there was more.
async fn read(body: Body, bytes_max: usize) -> (Vec<u8>, bool) {
    let mut chunks = body.into_data_stream();
    let mut out = Vec::new();
    // A stream that breaks off ends here too: what came whole is passed on, marked as cut.
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { return (out, true) };
        out.extend_from_slice(&chunk);
        if out.len() > bytes_max {
            out.truncate(bytes_max);
            return (out, true);
        }
    }
    (out, false)
}

/// A view with its longest list cut so that it fits, and marked; `None` if that does not help.
fn cut(json: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let Ok(Value::Object(mut view)) = serde_json::from_slice(json) else { return None };
    let size = |v: &Value| serde_json::to_vec(v).map_or(0, |b| b.len());
    let lists = view.iter().filter(|(_, v)| v.is_array());
    let (name, before) = lists.map(|(k, v)| (k.clone(), size(v))).max_by_key(|(_, size)| *size)?;
    let mut left = (bytes_max + before).checked_sub(json.len() + 128)?;
    let Value::Array(list) = view.get_mut(&name)? else { return None };
    let of = list.len() as u64;
    let fits = |item: &Value| {
        let bytes = size(item) + 1;
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    };
    let kept = list.iter().map(fits).take_while(|fits| *fits).count();
    list.truncate(kept);
    let note = view::Cut { list: name, kept: kept as u64, of };
    view.insert("cut".into(), serde_json::to_value(note).ok()?);
    serde_json::to_vec(&view).ok()
}

// ---- asking ------------------------------------------------------------------------------------

/// Asks a node below, or (in process) this one.
///
/// # Errors
/// [`AskError`].
pub async fn ask(ctx: &Ctx, to: &Address, path: &str, within: Duration) -> Result<Replied, AskError> {
    put(ctx, to, format!("GET {path}").into(), within).await
}

/// Puts a question in its [format](self).
async fn put(ctx: &Ctx, to: &Address, question: Bytes, within: Duration) -> Result<Replied, AskError> {
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
pub fn many(
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
    let own = reply(super::routes(ctx.clone()), question.as_bytes(), ANSWER_BYTES_MAX);
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

// ---- routes ------------------------------------------------------------------------------------

/// Puts the road before this node's own routes.
pub fn before(routes: Router, ctx: &Arc<Ctx>) -> Router {
    let road = Road { ctx: ctx.clone(), routes: routes.clone() };
    table::router(rows())
        .method_not_allowed_fallback(super::wrong_method)
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
    caller: Caller,
    Path(address): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let wanted: Where = query(&uri)?;
    forward(&road, caller, &address, &wanted.path, within(wanted.within_ms)?).await
}

/// Any GET with [`view::HEADER_AT`], and the changes of [`CHANGES`].
async fn by_header(From(road): From<Road>, request: Request, next: Next) -> Response {
    let Some(address) = request.headers().get(view::HEADER_AT) else { return next.run(request).await };
    let address = address.to_str().unwrap_or_default().to_owned();
    elsewhere(&road, &address, request).await.unwrap_or_else(|refusal| {
        let mut response = refusal.into_response();
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        response
    })
}

async fn elsewhere(road: &Road, address: &str, request: Request) -> Result<Response, Refusal> {
    let (path, within_ms) = without_deadline(request.uri());
    let within = within(within_ms)?;
    if request.method() == Method::GET {
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        return forward(road, caller, address, &path, within).await;
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
    caller: Caller,
    address: &str,
    path: &str,
    within: Duration,
) -> Result<Response, Refusal> {
    let own = &road.ctx.config.node.address;
    let to = below(own, address)?;
    let path = if path.is_empty() { "/v1/status" } else { path };
    let uri: Uri = path
        .parse()
        .ok()
        .filter(|_| path.starts_with('/'))
        .ok_or_else(|| Refusal::bad("bad-path", format!("`{path}` is no path"), "such as `/v1/status`"))?;
    if to == *own {
        return Ok(call(road.routes.clone(), uri, caller).await);
    }
    let mut question = format!("GET {path}");
    if caller.sees_persons() {
        question = format!("{question}\n{PERSONS}");
    }
    let told = put(&road.ctx, &to, question.into(), within).await;
    answered(road, &to, told).await
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
        Some(parent) => format!("ask it at a node above it, such as {parent}, or ask it itself: `--node URL`"),
        None => "nobody is above it: ask it itself, with `--node URL`".to_owned(),
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
    Some(Answer::new(own.as_str(), super::now(), known(ctx, to)))
}

/// What is known of a node, in one sentence.
pub fn sentence(known: &Answer<view::Known>) -> String {
    let (by, k) = (&known.head.node, &known.body);
    let ago = |ms: u64| format!("{} ago", view::span(ms));
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
    let now_us = super::now().timestamp_micros();
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
async fn ask_many(From(road): From<Road>, uri: Uri) -> Result<Response, Refusal> {
    let wanted: Whom = query(&uri)?;
    let within = within(wanted.within_ms)?;
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
    let asker = own.to_string();
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
                    if tx.send(Ok(line(&reply_of(node, replied)))).await.is_err() {
                        return;
                    }
                }
                Err(missing) => asked.missing.push(missing),
            }
        }
        asked.missing.sort_by(|a, b| a.node.cmp(&b.node));
        let _ = tx.send(Ok(line(&Answer::new(&asker, super::now(), asked)))).await; // the client is gone
    });
    let head = Response::builder()
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .header(view::HEADER_NODE, own.as_str())
        .header(view::HEADER_AS_OF, view::rfc3339(super::now()));
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
    use axum::routing::get;

    #[test]
    fn a_long_list_is_cut_behind_a_whole_item_and_says_so() {
        let items: Vec<Value> = (0..1000).map(|i| serde_json::json!({"address": format!("c/n{i}")})).collect();
        let long = serde_json::to_vec(&serde_json::json!({"schema": "x/1", "few": [1, 2], "nodes": items})).unwrap();
        let short: Value = serde_json::from_slice(&cut(&long, 4096).unwrap()).unwrap();
        assert!(serde_json::to_vec(&short).unwrap().len() <= 4096);
        let kept = short["nodes"].as_array().unwrap().len();
        assert!(kept > 100, "{kept}");
        assert_eq!(short["cut"], serde_json::json!({"list": "nodes", "kept": kept, "of": 1000}));
        assert_eq!(short["few"].as_array().unwrap().len(), 2);
        assert!(cut(b"{\"text\":\"long\"}", 4).is_none());
    }

    #[test]
    fn a_question_shows_persons_only_where_its_second_line_says_so() {
        let caller = |question: &str| {
            let request = requested(question.as_bytes()).ok()?;
            Some(request.extensions().get::<Caller>().cloned().unwrap_or_default())
        };
        assert_eq!(caller("GET /v1/cases/1"), Some(Caller::Reader));
        assert!(caller("GET /v1/cases/1\npersons").unwrap().sees_persons());
        assert_eq!(caller("GET /v1/cases/1\nother"), None);
        // It is a line of its own: no path can hold one.
        assert_eq!(caller("GET /v1/cases/1%0Apersons"), Some(Caller::Reader));
    }

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
    }

    #[tokio::test]
    async fn a_question_is_answered_by_the_routes_and_a_long_stream_ends_behind_a_whole_line() {
        let routes = Router::new().route("/v1/x", get(|| async { "hello" })).route(
            "/v1/long",
            get(|| async { ([(header::CONTENT_TYPE, "application/x-ndjson")], "{\"n\":1}\n".repeat(1000)) }),
        );
        let asked =
            async |q: &str| Replied::parse(&reply(routes.clone(), q.as_bytes(), 1003).await, Duration::ZERO).unwrap();
        let x = asked("GET /v1/x").await;
        assert_eq!((x.status, &x.body[..], x.cut), (200, &b"hello"[..], false));
        let long = asked("GET /v1/long").await;
        assert_eq!((long.body.len(), long.cut), (1000, true));
        assert_eq!(asked("GET /v1/none").await.status, 404);
        assert_eq!(asked("POST /v1/x").await.status, 400);
        let who = serde_json::to_string(&Operator::default()).unwrap();
        assert_eq!(asked(&format!("POST /v1/x\n{who}\n{{}}")).await.status, 405, "only what may be changed from above");
        assert_eq!(asked("POST /v1/reload\nsomebody\n").await.status, 400);
        assert_eq!(asked("GET /v1/long?follow=true").await.status, 400);
    }
}
