//! Who may pass: the door before every route, where the config names a tokens file.
//!
//! Health checks pass without a token. A reader may read; an app has only Open311, which asks for itself; whatever changes something needs an
//! operator. A question to a node below is judged here, where it comes in: the nodes of a tree
//! trust those above them.

use super::Refusal;
use crate::tokens::{Holder, Role, Tokens};
use axum::extract::{Request, State as From};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Lets a request pass with its [`Holder`] among its extensions, or answers 401 or 403.
pub async fn guard(From(tokens): From<Arc<Tokens>>, mut request: Request, next: Next) -> Response {
    let Some(needed) = needed(request.method(), request.uri().path()) else { return next.run(request).await };
    let Some(token) = bearer(request.headers()) else {
        return unknown("this node answers only those whom it knows, and no token was given");
    };
    let Some(holder) = tokens.holder(token) else {
        return unknown("this node does not know that token: it is of another node, or was removed");
    };
    if holder.role < needed {
        let Holder { name, role } = holder;
        let detail = format!("the token `{name}` is of a {role}, and only an {needed} may do this");
        let hint = "an operator's token: `citybrain token add FILE NAME --role operator` on the node's machine";
        return Refusal::new(StatusCode::FORBIDDEN, "forbidden", detail, hint).into_response();
    }
    request.extensions_mut().insert(holder);
    next.run(request).await
}

/// What a request needs; `None`: nothing.
fn needed(method: &Method, path: &str) -> Option<Role> {
    match (method, path) {
        (_, "/livez" | "/readyz") => None,
        (&Method::GET | &Method::HEAD, _) => Some(Role::Reader),
        _ => Some(Role::Operator),
    }
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn unknown(detail: &str) -> Response {
    let hint = "`--token-file FILE`, or `citybrain context add NAME URL --token-file FILE`; on the node's own \
                machine `--data-dir DIR`";
    let mut response = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", detail, hint).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_needs_nothing_reading_a_reader_and_all_else_an_operator() {
        assert_eq!(needed(&Method::GET, "/livez"), None);
        assert_eq!(needed(&Method::GET, "/readyz"), None);
        assert_eq!(needed(&Method::GET, "/metrics"), Some(Role::Reader));
        assert_eq!(needed(&Method::HEAD, "/v1/status"), Some(Role::Reader));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            assert_eq!(needed(&method, "/v1/events"), Some(Role::Operator));
        }
    }

    #[test]
    fn a_token_comes_as_bearer_and_nothing_else() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(with("Basic abc"), None);
        assert_eq!(with("Bearer"), None);
    }
}
