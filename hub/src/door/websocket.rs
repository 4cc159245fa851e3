//! MQTT in the binary messages of a WebSocket (MQTT 5, section 6): where a message begins means
//! nothing, and nothing but binary ones may come. What goes out is one packet a message all the same:
//! the Paho C client (seen with 1.3.14) looks at the second packet of a message only when something
//! else comes.

use super::packet::Head;
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

/// Packets go to the socket together, up to so many bytes, or when they are flushed.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// The library reads into a buffer of its own; small, since most clients are idle.
const READ_BUFFER_BYTES: usize = 4096;

pub(crate) struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// Of the message that came last.
    rest: Bytes,
    /// Bytes of a packet that began in an earlier write, and are still to come.
    packet_left: usize,
}

impl<S: Duplex> WebSocket<S> {
    /// The handshake, with the subprotocol `mqtt`.
    ///
    /// `message_bytes_max`: the largest message that is taken. `origins`: the web pages whose
    /// scripts may connect, beside those that came from the same host; `*` is all.
    ///
    /// # Errors
    /// What the client did wrong; it has been told.
    pub(crate) async fn accept(socket: S, message_bytes_max: usize, origins: &[String]) -> Result<WebSocket<S>, Error> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
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
        Ok(WebSocket { inner, rest: Bytes::new(), packet_left: 0 })
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
        ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(broken)?;
        let packet = match self.packet_left {
            // Less than a head does not come from us; it would go as it is.
            0 => Head::parse(buf).ok().flatten().map_or(buf.len(), |h| h.total_bytes()),
            left => left,
        };
        let sent = packet.min(buf.len());
        let message = Message::Binary(Bytes::copy_from_slice(&buf[..sent]));
        Pin::new(&mut self.inner).start_send(message).map_err(broken)?;
        self.packet_left = packet - sent;
        Poll::Ready(Ok(sent))
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

    #[tokio::test]
    async fn packets_that_are_written_together_go_as_messages_of_their_own() {
        use futures_util::StreamExt;
        use tokio::io::AsyncWriteExt;
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;

        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let mut request = "ws://node/".into_client_request().unwrap();
        request.headers_mut().insert(PROTOCOL, HeaderValue::from_static("mqtt"));
        let (server, client) =
            tokio::join!(WebSocket::accept(ours, 1 << 20, &[]), tokio_tungstenite::client_async(request, theirs));
        let (mut server, (mut client, _)) = (server.unwrap(), client.unwrap());
        let puback = [0x40, 2, 0, 1];
        let pingresp = [0xd0, 0];
        // 300 bytes in two writes: its second piece is no packet of its own.
        let mut publish = vec![0x30, 0xa9, 2];
        publish.resize(300, 7);
        server.write_all(&[&puback[..], &pingresp, &publish[..100]].concat()).await.unwrap();
        server.write_all(&[&publish[100..], &pingresp].concat()).await.unwrap();
        server.flush().await.unwrap();
        for expected in [&puback[..], &pingresp, &publish[..100], &publish[100..], &pingresp] {
            assert_eq!(client.next().await.unwrap().unwrap().into_data(), expected);
        }
    }
}
