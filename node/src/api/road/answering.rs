//! A question from above, and this node's own routes as they answer it.

use super::super::guard::{Caller, Judged};
use super::super::ops::Operator;
use super::super::{Ctx, Refusal, nothing_at, table};
use super::{Head, PERSONS};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use citybrain_hub::link::ask::{ANSWER_BYTES_MAX, Handler};
use citybrain_shared::view::{self};
use serde_json::Value;
use std::sync::Arc;
use tokio_stream::StreamExt;
use tower_service::Service;

/// What may be changed from above. A node trusts those above it, which send it commands anyway.
const CHANGES: [&str; 8] = [
    "/v1/log-level",
    "/v1/dlq/retry",
    "/v1/dlq/drop",
    "/v1/webhooks/skip",
    "/v1/reload",
    "/v1/enrolments",
    "/v1/enrolments/retire",
    "/v1/cases/import",
];
/// Body of a change, bytes: a thousand positions of dead letters fit, or forty cases of another system.
pub const CHANGE_BYTES_MAX: usize = 32 * 1024;
/// Room in a link message for its topic and the answer's head.
const HEAD_BYTES: usize = 1024;
/// A list that changes meanwhile may not fit a second time.
const SHORTER_PAGES_MAX: usize = 4;

/// An answer as it goes through a link.
struct Encoded {
    bytes: Bytes,
    /// Items left of a list that was cut.
    kept: Option<u64>,
}

/// Answers questions from above by this node's own routes.
pub fn handler(ctx: &Ctx, routes: Router) -> Handler {
    let bytes_max = ANSWER_BYTES_MAX.min(ctx.config.link.message_bytes_max).saturating_sub(HEAD_BYTES);
    Arc::new(move |question| {
        let routes = routes.clone();
        Box::pin(async move { reply(routes, &question, bytes_max).await })
    })
}

pub(super) async fn reply(routes: Router, question: &[u8], bytes_max: usize) -> Bytes {
    let request = match requested(question) {
        Ok(request) => request,
        Err(refusal) => return encode(refusal.into_response(), bytes_max).await.bytes,
    };
    let paged =
        Some(request.uri().clone()).filter(|uri| request.method() == Method::GET && table::is_paged(uri.path()));
    let judged = Judged::of(request.extensions());
    let mut encoded = encode(pass(routes.clone(), request).await, bytes_max).await;
    // `next` of a page is behind the whole of it: one that was cut is asked for again, as long as it fits.
    for _ in 0..SHORTER_PAGES_MAX {
        let (Some(uri), Some(kept)) = (&paged, encoded.kept) else { break };
        let Some(uri) = with_limit(uri, kept) else { break };
        encoded = encode(call(routes.clone(), uri, judged.clone()).await, bytes_max).await;
    }
    encoded.bytes
}

/// The same page with at most so many items.
fn with_limit(uri: &Uri, limit: u64) -> Option<Uri> {
    let given = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(given.filter(|(name, _)| name != "limit"));
    query.append_pair("limit", &limit.to_string());
    format!("{}?{}", uri.path(), query.finish()).parse().ok()
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
        if form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .any(|(key, is)| key == "follow" && is == "true")
        {
            let hint = "ask again with `?after=POS`, or ask the node itself";
            return Err(Refusal::bad("follow", "no stream stays open over the links", hint));
        }
        let mut request = get_of(uri);
        request.extensions_mut().insert(Caller::Above { sees_persons });
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
pub(super) fn changeable(method: &Method, path: &str) -> Result<(), Refusal> {
    let path = path.split('?').next().unwrap_or_default();
    if method == Method::POST && CHANGES.contains(&path) {
        return Ok(());
    }
    let there = table::methods_at(path);
    if there.is_empty() {
        return Err(nothing_at(path));
    }
    let (detail, hint) = if there.contains(method) {
        let hint = format!("do it at the node itself; from above go {}", CHANGES.join(", "));
        (format!("`{method} {path}` does not go through the links"), hint)
    } else {
        let hint = match from_above(path).as_str() {
            "" => "nothing of it goes through the links: ask the node itself".to_owned(),
            some => format!("through the links it takes {some}"),
        };
        (format!("{path} does not take {method}"), hint)
    };
    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "not-from-above", detail, hint))
}

/// What may be asked from above at a path.
pub(super) fn from_above(path: &str) -> String {
    let all = table::methods_at(path);
    let goes = all.iter().filter(|method| **method == Method::GET || CHANGES.contains(&path));
    goes.map(Method::as_str).collect::<Vec<_>>().join(", ")
}

fn get_of(uri: Uri) -> Request {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    request
}

/// Asks routes as a socket would.
pub async fn call(routes: Router, uri: Uri, judged: Judged) -> Response {
    let mut request = get_of(uri);
    judged.mark(request.extensions_mut());
    pass(routes, request).await
}

pub(super) async fn pass(mut routes: Router, request: Request) -> Response {
    match routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn encode(response: Response, bytes_max: usize) -> Encoded {
    let (parts, body) = response.into_parts();
    let content_type = text(&parts.headers, "content-type");
    let is_stream = content_type.starts_with("application/x-ndjson");
    // A list is read whole before it is cut; the node's own lists have bounds of their own.
    let read_max = if is_stream { bytes_max } else { 64 * bytes_max };
    let (body, is_over) = read(body, read_max).await;
    let mut head = Head { status: parts.status.as_u16(), content_type, ..Head::default() };
    for name in [view::HEADER_NODE, view::HEADER_AS_OF, view::HEADER_AFTER, view::HEADER_HISTORY] {
        let value = text(&parts.headers, name);
        if !value.is_empty() {
            head.headers.push((name.into(), value));
        }
    }
    let mut kept = None;
    let body = if is_stream && is_over {
        head.cut = true;
        let whole = body.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        body[..whole].to_vec()
    } else if body.len() > bytes_max || is_over {
        match cut(&body, bytes_max) {
            Some((less, left)) => {
                kept = Some(left);
                less
            }
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
    Encoded { bytes: out.into(), kept }
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

/// A view with its longest list cut so that it fits, and marked, and the items left of it; `None` if that
/// does not help.
fn cut(json: &[u8], bytes_max: usize) -> Option<(Vec<u8>, u64)> {
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
    if kept == 0 {
        return None;
    }
    list.truncate(kept);
    let note = view::Cut { list: name, kept: kept as u64, of };
    view.insert("cut".into(), serde_json::to_value(note).ok()?);
    Some((serde_json::to_vec(&view).ok()?, kept as u64))
}

#[cfg(test)]
mod tests {
    use super::super::Replied;
    use super::*;
    use axum::http::header;
    use axum::routing::get;
    use std::time::Duration;

    #[test]
    fn a_long_list_is_cut_behind_a_whole_item_and_says_so() {
        let items: Vec<Value> = (0..1000).map(|i| serde_json::json!({"address": format!("c/n{i}")})).collect();
        let long = serde_json::to_vec(&serde_json::json!({"schema": "x/1", "few": [1, 2], "nodes": items})).unwrap();
        let short: Value = serde_json::from_slice(&cut(&long, 4096).unwrap().0).unwrap();
        assert!(serde_json::to_vec(&short).unwrap().len() <= 4096);
        let kept = short["nodes"].as_array().unwrap().len();
        assert!(kept > 100, "{kept}");
        assert_eq!(short["cut"], serde_json::json!({"list": "nodes", "kept": kept, "of": 1000}));
        assert_eq!(short["few"].as_array().unwrap().len(), 2);
        assert!(cut(b"{\"text\":\"long\"}", 4).is_none());
    }

    #[tokio::test]
    async fn a_page_that_does_not_fit_comes_shorter_and_its_rest_behind_it() {
        use axum::extract::Query;
        use std::collections::HashMap;
        // A hundred items of 100 bytes, paged as the node's own lists are.
        let page = async |Query(asked): Query<HashMap<String, usize>>| {
            let (after, limit) = (asked.get("after").copied().unwrap_or(0), asked.get("limit").copied().unwrap_or(50));
            let items: Vec<Value> =
                (after + 1..=100).take(limit).map(|i| serde_json::json!({"id": i, "text": "x".repeat(80)})).collect();
            let last = items.last().and_then(|i| i["id"].as_u64()).filter(|last| *last < 100);
            axum::Json(serde_json::json!({"schema": "x/1", "cases": items, "next": last}))
        };
        let routes = Router::new().route("/v1/cases", get(page));
        let (mut after, mut ids, mut pages) = (0, Vec::new(), 0);
        loop {
            let question = format!("GET /v1/cases?limit=90&after={after}");
            let answer = reply(routes.clone(), question.as_bytes(), 2_000).await;
            let view: Value = serde_json::from_slice(&Replied::parse(&answer, Duration::ZERO).unwrap().body).unwrap();
            assert!(view.get("cut").is_none(), "{view}");
            ids.extend(view["cases"].as_array().unwrap().iter().map(|i| i["id"].as_u64().unwrap()));
            pages += 1;
            match view["next"].as_u64() {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(ids, (1..=100).collect::<Vec<u64>>(), "nothing is left out between the pages");
        assert!(pages > 4, "{pages}");
        let large = Router::new()
            .route("/v1/cases", get(async || axum::Json(serde_json::json!({"cases": ["x".repeat(3_000)]}))));
        let answer = reply(large, b"GET /v1/cases", 2_000).await;
        assert_eq!(Replied::parse(&answer, Duration::ZERO).unwrap().status, 413, "an empty page would be the end");
    }

    #[test]
    fn a_question_shows_persons_only_where_its_second_line_says_so() {
        let caller = |question: &str| {
            let request = requested(question.as_bytes()).ok()?;
            Some(request.extensions().get::<Caller>().cloned().unwrap_or_default())
        };
        assert_eq!(caller("GET /v1/cases/1"), Some(Caller::Above { sees_persons: false }));
        assert!(caller("GET /v1/cases/1\npersons").unwrap().sees_persons());
        assert_eq!(caller("GET /v1/cases/1\nother"), None);
        // It is a line of its own: no path can hold one.
        assert_eq!(caller("GET /v1/cases/1%0Apersons"), Some(Caller::Above { sees_persons: false }));
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
        assert_eq!(
            asked(&format!("POST /v1/cases\n{who}\n{{}}")).await.status,
            405,
            "only what may be changed from above"
        );
        assert_eq!(asked("POST /v1/reload\nsomebody\n").await.status, 400);
        assert_eq!(asked("GET /v1/long?follow=true").await.status, 400);
        assert_eq!(asked("GET /v1/long?follow=%74rue").await.status, 400);
    }
}
