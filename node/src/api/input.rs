//! What a request brings, read: its query, its path's variables, its body. Whatever does not read is
//! refused as everything else is, with a [`view::Failure`](citybrain_shared::view::Failure).

use super::{Refusal, intake};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use citybrain_shared::limits;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::num::NonZeroUsize;

/// The query string, typed.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    let wrong = |e: axum::extract::rejection::QueryRejection| {
        let text = e.body_text();
        let hint = match text.contains("invalid digit") {
            true => "times and counts are whole numbers",
            false => "`GET /openapi.json` says what each question takes; the commands' `--help` does, too",
        };
        Refusal::bad("bad-query", text, hint)
    };
    Query::try_from_uri(uri).map(|Query(q)| q).map_err(wrong)
}

/// What a request has that says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// How much of a list is wanted: as many as it may have at most, and more is refused, so that nobody takes what is there
/// for all of it.
pub(super) fn limited(limit: Option<NonZeroUsize>, default: usize, max: usize) -> Result<usize, Refusal> {
    match limit.map_or(default, NonZeroUsize::get) {
        limit if limit <= max => Ok(limit),
        limit => Err(Refusal::bad("bad-query", format!("`limit` is {limit}"), format!("1 to {max}"))),
    }
}

/// A change's body, typed; an empty one is `{}`. `such_as` is what one looks like.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes, such_as: &str) -> Result<T, Refusal> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|e| Refusal::bad("bad-request", format!("not a request: {e}"), format!("such as {such_as}")))
}

/// What stands for the variables of a path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Refusal> {
        let wrong = |e: axum::extract::rejection::PathRejection| {
            Refusal::bad("bad-path", e.body_text(), "escaped UTF-8; a position is a whole number")
        };
        let axum::extract::Path(value) =
            axum::extract::Path::<T>::from_request_parts(parts, state).await.map_err(wrong)?;
        Ok(Path(value))
    }
}

/// The body, whole.
pub struct Sent(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Sent, Refusal> {
        Bytes::from_request(request, state).await.map(Sent).map_err(|e| match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            status => Refusal::new(status, "bad-request", e.body_text(), "send it again"),
        })
    }
}

pub(super) fn too_large() -> Refusal {
    let (event, batch) = (limits::EVENT_BYTES_MAX, intake::BATCH_BYTES_MAX);
    let detail = format!("an event may have {event} bytes, and a request {batch}");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail, "send a reference to what is larger")
}
