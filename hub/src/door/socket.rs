//! What a client is connected by: a plain socket, or one with TLS, WebSocket or both around it.

use bytes::{BufMut, BytesMut};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// For the last answers, for the peer to take our last word, and again for it to close as well.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Plain TCP is known by name, so that it costs no detour and no memory.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Wrapped(Box<dyn Duplex>),
}

/// Who is at the other end, as far as the socket says it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub ip: IpAddr,
    /// The name in a verified client certificate.
    pub certified: Option<Arc<str>>,
}

impl Socket {
    /// Reads at most `want` bytes to the end of `input`; 0: the peer has closed. While there is
    /// nothing to be read an empty `input` holds no memory.
    pub(crate) fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        want: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(socket) => {
                ready!(socket.poll_read_ready(cx))?;
                read_some(socket, cx, input, want)
            }
            Socket::Wrapped(socket) => read_some(socket, cx, input, want),
        }
    }

    /// Writes the last that is to be written, and closes our half.
    pub(crate) async fn say_last(&mut self, words: &[u8]) {
        let said = async { self.write_all(words).await.and(self.shutdown().await) };
        let _ = timeout(FAREWELL, said).await;
    }

    /// Until the peer closes as well, for a moment, what it still sends is read and thrown away. A
    /// socket that is dropped with something unread is reset: the peer's next write fails, and who then
    /// reads no more has not heard why.
    pub(crate) async fn linger(&mut self, mut stop: watch::Receiver<bool>) {
        let mut thrown_away = vec![0; 4096];
        let closes = async { while self.read(&mut thrown_away).await.is_ok_and(|n| n > 0) {} };
        tokio::select! {
            _ = timeout(FAREWELL, closes) => {}
            _ = stop.wait_for(|s| *s) => {}
        }
    }

    /// Writes some of `output`. What is around a plain socket may hold it back until it is flushed.
    pub(crate) fn poll_output(&mut self, cx: &mut Context<'_>, output: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(socket) => loop {
                ready!(socket.poll_write_ready(cx))?;
                match socket.try_write(output) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    done => return Poll::Ready(done),
                }
            },
            Socket::Wrapped(socket) => Pin::new(socket).poll_write(cx, output),
        }
    }
}

/// A read that brings less than `want` tells tokio that there is no more for now, which `try_read` does not:
/// that would be asked again in vain.
fn read_some<S: AsyncRead + Unpin>(
    socket: &mut S,
    cx: &mut Context<'_>,
    input: &mut BytesMut,
    want: usize,
) -> Poll<io::Result<usize>> {
    input.reserve(want);
    // It keeps nothing between polls, so it may be made anew for each.
    let read = pin!(socket.read_buf(&mut (&mut *input).limit(want))).poll(cx);
    if read.is_pending() && input.is_empty() {
        *input = BytesMut::new();
    }
    read
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Wrapped(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_output(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(_) => Poll::Ready(Ok(())),
            Socket::Wrapped(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Wrapped(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
