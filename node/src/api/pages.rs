//! Web pages of other origins that may read what the node answers (Fetch standard, "CORS protocol"): those that
//! `[api] origins` names, where there are tokens; Open311 is for every page.
//!
//! A browser asks before it sends a request with a token (a preflight, OPTIONS without one), so that is
//! answered before the [guard](super::guard). Nothing is ever allowed with credentials: a page brings a token
//! that it was given, and a browser's certificate stays out ([`super::origin`]).

use axum::extract::{Request, State as From};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use citybrain_shared::view;
use std::sync::Arc;

/// A browser asks again after so long, seconds.
const MAX_AGE_S: u64 = 600;
/// What a page may send beside what every page may. `*` does not stand for `authorization`.
const SENT: &str = "authorization, content-type, idempotency-key, if-match, if-none-match";

/// Before the guard.
pub async fn pages(From(origins): From<Arc<[String]>>, request: Request, next: Next) -> Response {
    let Some(welcome) = welcome(&origins, request.method(), request.uri().path(), request.headers()) else {
        return next.run(request).await;
    };
    let is_preflight = request.method() == Method::OPTIONS;
    let sent = may_send(request.headers());
    let mut response = match is_preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    let told = response.headers_mut();
    if is_preflight {
        told.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
        if let Ok(sent) = HeaderValue::try_from(sent) {
            told.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, sent);
        }
        told.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S.into());
    } else {
        let mut seen = String::from("etag, link, retry-after");
        let of_streams = [view::HEADER_AFTER, view::HEADER_CUT, view::HEADER_TOOK_MS];
        let of_all = [view::HEADER_NODE, view::HEADER_AS_OF, view::HEADER_HISTORY, view::HEADER_AWAITS];
        for name in of_all.into_iter().chain(of_streams) {
            seen = format!("{seen}, {name}");
        }
        if let Ok(seen) = HeaderValue::try_from(seen) {
            told.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, seen);
        }
    }
    told.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, welcome);
    // A cache must not give one page the answer to another.
    told.append(header::VARY, HeaderValue::from_static("origin"));
    response
}

/// Of what a page asks to send, what it may: an event in binary mode has headers of any name that begins so.
fn may_send(headers: &HeaderMap) -> String {
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let is_attribute = |name: &&str| {
        name.strip_prefix("ce-").is_some_and(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
    };
    let of_event = asked.split(',').map(str::trim).filter(is_attribute);
    of_event.fold(format!("{SENT}, {}", view::HEADER_AT), |all, name| format!("{all}, {name}"))
}

/// Whom the answer is for; `None`: no page of another origin asks, or one that may not.
fn welcome(origins: &[String], method: &Method, path: &str, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let method = match (method, asked) {
        (&Method::OPTIONS, Some(asked)) => asked.as_bytes(),
        (&Method::OPTIONS, None) => return None,
        (method, _) => method.as_str().as_bytes(),
    };
    if origins.iter().any(|known| known.as_bytes() == origin.as_bytes()) {
        return Some(origin.clone());
    }
    // Whoever may read it without a key may do so from anywhere; what needs a key, a page must bring one for. A form
    // needs no preflight: a page that could not see that its request was taken would file it again.
    let is_taken = matches!(method, b"GET" | b"HEAD" | b"POST");
    (is_taken && path.starts_with("/open311/v2/")).then(|| HeaderValue::from_static("*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_known_origins_are_welcome_and_open311_is_for_all() {
        let origins = ["https://desk.example".to_owned()];
        let of = |method: &str, path: &str, headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            let said = welcome(&origins, &method.parse().unwrap(), path, &map)?;
            Some(said.to_str().unwrap().to_owned())
        };
        let (desk, evil) = (("origin", "https://desk.example"), ("origin", "https://evil.example"));
        let asks = |method| ("access-control-request-method", method);
        assert_eq!(of("GET", "/v1/status", &[desk]).as_deref(), Some("https://desk.example"));
        assert_eq!(of("OPTIONS", "/v1/cases", &[desk, asks("POST")]).as_deref(), Some("https://desk.example"));
        assert_eq!(of("OPTIONS", "/v1/cases", &[desk]), None, "that is no preflight");
        assert_eq!(of("GET", "/v1/status", &[]), None);
        for (method, path) in [("GET", "/v1/status"), ("POST", "/v1/cases"), ("DELETE", "/open311/v2/requests.json")] {
            assert_eq!(of(method, path, &[evil]), None, "{path}");
        }
        assert_eq!(of("GET", "/open311/v2/services.json", &[evil]).as_deref(), Some("*"));
        assert_eq!(of("OPTIONS", "/open311/v2/services.json", &[evil, asks("GET")]).as_deref(), Some("*"));
        assert_eq!(of("POST", "/open311/v2/requests.json", &[evil]).as_deref(), Some("*"));
        assert_eq!(of("OPTIONS", "/open311/v2/requests.json", &[evil, asks("POST")]).as_deref(), Some("*"));
        assert_eq!(of("OPTIONS", "/open311/v2/requests.json", &[evil, asks("PUT")]), None);
    }
}
