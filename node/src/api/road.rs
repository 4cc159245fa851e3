//! The road to any node below: a question goes down the links, the node's own router answers it.
//!
//! **Format** of a question: `GET PATH`, as text, with a second line [`PERSONS`] if whoever asks one
//! node may see whom to call; of one that changes something: `POST PATH`, a line
//! that says who asks ([`Operator`](super::ops::Operator) as JSON), the body. Of an answer: a JSON line ([`Head`]), then the body.
//!
//! **Bounds.** Nothing is stored. Only GET and the few changes of `answering::CHANGES`; no stream that follows;
//! no question that would travel further by itself. An answer fits into one link message: a longer stream is cut behind a whole
//! line, a longer list behind a whole item, and either says so. At most `asking::TOGETHER` questions of one
//! asker are under way; each has a deadline.

mod answering;
mod asking;
mod routes;

#[cfg(test)]
pub use answering::is_change;
pub use answering::{CHANGE_BYTES_MAX, call, handler};
pub use asking::{NODES_MAX, ask_view, many_views};
pub use routes::{Of, ahead_ms, before, below, known_of, rows, within};

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use citybrain_shared::view;
use serde::{Deserialize, Serialize};
use std::time::Duration;

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
