//! MQTT in the binary messages of a WebSocket (MQTT 5, section 6): where a message begins means
//! nothing, and nothing but binary ones may come.

use super::socket::Duplex;
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

const PROTOCOL: &str = "Sec-WebSocket-Protocol";

/// Bytes in one WebSocket message that we send.
const SENT_BYTES_MAX: usize = 64 * 1024;

/// The library reads into a buffer of its own; small, since most clients are idle.
const READ_BUFFER_BYTES: usize = 4096;

pub struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// Of the message that came last.
    rest: Bytes,
}

impl<S: Duplex> WebSocket<S> {
    /// The handshake, with the subprotocol `mqtt`.
    ///
    /// `message_bytes_max`: the largest message that is taken. `origins`: the web pages whose
    /// scripts may connect, beside those that came from the same host; `*` is all.
    ///
    /// # Errors
    /// What the client did wrong; it has been told.
    pub async fn accept(socket: S, message_bytes_max: usize, origins: &[String]) -> Result<WebSocket<S>, Error> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        #[allow(clippy::result_large_err, reason = "the library's own type")]
        let judge = |request: &Request, mut response: Response| {
            let refuse = |status, why: &str| {
                let mut refusal = ErrorResponse::new(Some(why.to_owned()));
                *refusal.status_mut() = status;
                Err(refusal)
            };
            if !offers_mqtt(request.headers()) {
                return refuse(StatusCode::BAD_REQUEST, "the WebSocket subprotocol here is `mqtt`\n");
            }
            // A browser lets any page's script connect to any host, with nothing but this to tell.
            if !is_welcome(request.headers(), origins) {
                return refuse(StatusCode::FORBIDDEN, "this page's origin is not among the listener's `origins`\n");
            }
            response.headers_mut().insert(PROTOCOL, HeaderValue::from_static("mqtt"));
            Ok(response)
        };
        let inner = tokio_tungstenite::accept_hdr_async_with_config(socket, judge, Some(config)).await?;
        Ok(WebSocket { inner, rest: Bytes::new() })
    }
}

fn offers_mqtt(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    offered.flat_map(|v| v.split(',')).any(|p| p.trim() == "mqtt")
}

fn is_welcome(headers: &HeaderMap, origins: &[String]) -> bool {
    let Some(origin) = headers.get("Origin") else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get("Host").and_then(|h| h.to_str().ok());
    let of_same_host = origin.split_once("://").is_some_and(|(_, at)| Some(at) == host);
    of_same_host || origins.iter().any(|o| o == "*" || o == origin)
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(e) => e,
        e => io::Error::other(e),
    }
}

impl<S: Duplex> AsyncRead for WebSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text message")));
                }
                // The library answers a ping by itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed)) | None => return Poll::Ready(Ok(())),
                Some(Err(e)) => return Poll::Ready(Err(broken(e))),
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: Duplex> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let buf = &buf[..buf.len().min(SENT_BYTES_MAX)];
        ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(broken)?;
        Pin::new(&mut self.inner).start_send(Message::Binary(Bytes::copy_from_slice(buf))).map_err(broken)?;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_same_host_or_named_in_config_may_connect() {
        let headers = |origin: Option<&str>| {
            let mut h = HeaderMap::new();
            h.insert("Host", HeaderValue::from_static("node:8083"));
            if let Some(origin) = origin {
                h.insert("Origin", HeaderValue::from_str(origin).unwrap());
            }
            h
        };
        let app = ["https://app.example".to_owned()];
        for (origin, good) in [
            (None, true),
            (Some("http://node:8083"), true),
            (Some("http://node:80"), false),
            (Some("https://app.example"), true),
            (Some("https://app.example.evil"), false),
            (Some("null"), false),
        ] {
            assert_eq!(is_welcome(&headers(origin), &app), good, "{origin:?}");
        }
        assert!(is_welcome(&headers(Some("https://evil")), &["*".to_owned()]));
    }
}
