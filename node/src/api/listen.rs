//! Where clients of the API come in: by TCP, or by TLS with the same care for renewed files as at
//! the front door.
//!
//! **Bounds.** [`CONNECTIONS_MAX`] at a time; more wait in the kernel. Others than this machine have all but
//! [`OWN_PLACES`], and one address [`ADDRESS_CONNECTIONS_MAX`]; more of those are closed. A handshake, a request's head and an
//! answer that nobody takes are given up after a time, and a body that comes too slowly; so whoever says
//! nothing holds no place for long. A stream may be read as slowly as its client likes (a replay in real
//! time): those have a bound of their own ([`turns`](crate::turns)). Whoever is gone without a word is asked by
//! the kernel ([`ask_if_there`]).
//!
//! **Refused before it is read.** Many clients write a whole body before they read. Were the connection closed on what
//! is left of it, the kernel would reset it and the answer (405, 413) be lost on its way; so what comes is read and let
//! go until the client has its answer and closes: at most [`LEFT_BYTES_MAX`], and for `Patience::left`.

use super::intake::BATCH_BYTES_MAX;
use crate::files::API_CONNECTIONS_MAX as CONNECTIONS_MAX;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use citybrain_hub::door::crowd::network;
use citybrain_hub::tls;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustix::net::sockopt;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower_service::Service;

/// Kept for this machine itself: a command line, a watchdog that asks for health.
const OWN_PLACES: usize = 16;
/// From one address, or one IPv6 network: half of all. A proxy in front is one address; a stranger who opens
/// sockets and says nothing is one, too, and leaves the other half.
const ADDRESS_CONNECTIONS_MAX: usize = CONNECTIONS_MAX / 2;
/// A body has a second more for each of these: the slowest of lines is faster.
const BODY_BYTES_PER_S: u64 = 1024;
/// Of a body that nobody has read: sixteen times the largest batch. Who sends more does not look at answers.
const LEFT_BYTES_MAX: usize = 16 * BATCH_BYTES_MAX;
/// After the machine refused a connection (no file descriptor left): others may free some.
const PAUSE: Duration = Duration::from_millis(100);

/// After so long without a packet the kernel asks whether the other machine is still there, ...
const QUIET: Duration = Duration::from_secs(60);
/// ... again after each of these, ...
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// ... and after so many without an answer the connection is over: two minutes in all, which no restart of a
/// switch takes.
const ASKED_TIMES: u32 = 6;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    handshake: Duration,
    /// Until a request's head is there, after the connection or after the answer before it.
    head: Duration,
    /// For a body, beside what it has for its bytes.
    body: Duration,
    /// While it takes nothing of its answer.
    taken: Duration,
    /// For the rest of a body that was answered before it was read.
    left: Duration,
}

const PATIENCE: Patience = Patience {
    handshake: Duration::from_secs(10),
    head: Duration::from_secs(30),
    body: Duration::from_secs(30),
    taken: Duration::from_secs(30),
    left: Duration::from_secs(10),
};

/// Who asks: the other end of the connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The name in the certificate that it has shown.
    pub certified: Option<Arc<str>>,
}

/// Marks an answer that may take as long as its client likes.
#[derive(Clone, Copy, Debug)]
pub struct Streamed;

impl Streamed {
    pub fn is(response: &axum::response::Response) -> bool {
        response.extensions().get::<Streamed>().is_some()
    }
}

/// Serves until `stopped` says so, and then until what is under way is answered.
pub async fn serve(listener: TcpListener, tls: Option<tls::Server>, router: Router, stopped: watch::Receiver<bool>) {
    serve_with(PATIENCE, listener, tls, router, stopped).await;
}

async fn serve_with(
    patience: Patience,
    listener: TcpListener,
    tls: Option<tls::Server>,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let guests = Arc::new(Guests::default());
    let tls = tls.map(Arc::new);
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            Some(_) = connections.join_next() => continue,
            () = ending(&mut stopped) => break,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "A connection to the API could not be accepted.");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(guest) = guests.enter(address.ip()) else {
            tracing::debug!(peer = %address, "A connection to the API was closed: others than this machine have too many.");
            continue;
        };
        if let Err(error) = ask_if_there(&socket) {
            tracing::debug!(peer = %address, %error, "Who is gone from the API without a word will not be noticed.");
        }
        let (tls, router, stopped) = (tls.clone(), router.clone(), stopped.clone());
        connections.spawn(async move {
            let _places = (place, guest);
            connection(patience, socket, address, tls, router, stopped).await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Connections of others than this machine, by address.
#[derive(Debug, Default)]
struct Guests(Mutex<HashMap<IpAddr, usize>>);

/// Given back when dropped; `None`: this machine's own is not counted.
#[derive(Debug)]
struct Guest(Option<(Arc<Guests>, IpAddr)>);

#[derive(Debug)]
struct Full;

impl Guests {
    /// # Errors
    /// All others together, or this address, have as many as they may.
    fn enter(self: &Arc<Guests>, ip: IpAddr) -> Result<Guest, Full> {
        if ip.to_canonical().is_loopback() {
            return Ok(Guest(None));
        }
        let ip = network(ip);
        let mut counts = self.0.lock();
        let of_address = counts.get(&ip).copied().unwrap_or_default();
        if of_address >= ADDRESS_CONNECTIONS_MAX || counts.values().sum::<usize>() >= CONNECTIONS_MAX - OWN_PLACES {
            return Err(Full);
        }
        counts.insert(ip, of_address + 1);
        Ok(Guest(Some((self.clone(), ip))))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some((guests, ip)) = &self.0 else { return };
        let mut counts = guests.0.lock();
        if let Some(count) = counts.get_mut(ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(ip);
            }
        }
    }
}

/// A machine that has lost its power or its line sends no end of the connection, and a stream that has
/// nothing to say would keep its place for ever. Where something is under way the kernel's own retries end it
/// (`tcp_retries2`, a quarter of an hour). Not `TCP_USER_TIMEOUT`: it would also cut whoever only reads
/// slowly, and acknowledges that his window is full.
fn ask_if_there(socket: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_keepidle(socket, QUIET)?;
    sockopt::set_tcp_keepintvl(socket, ASKED_EVERY)?;
    sockopt::set_tcp_keepcnt(socket, ASKED_TIMES)?;
    Ok(sockopt::set_socket_keepalive(socket, true)?)
}

async fn ending(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopping| *stopping).await;
}

async fn connection(
    patience: Patience,
    socket: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<tls::Server>>,
    router: Router,
    stopped: watch::Receiver<bool>,
) {
    let Some(tls) = tls else {
        return requests(patience, socket, Peer { address, certified: None }, router, stopped).await;
    };
    match tokio::time::timeout(patience.handshake, tls.accept(socket)).await {
        Ok(Ok((socket, certified))) => requests(patience, socket, Peer { address, certified }, router, stopped).await,
        Ok(Err(error)) => tls.tell_failed(address.ip(), &error),
        Err(_) => tracing::debug!(peer = %address, "A TLS handshake with the API took too long."),
    }
}

/// All requests of one connection.
async fn requests<S>(patience: Patience, socket: S, peer: Peer, router: Router, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let may_wait = Arc::new(AtomicBool::new(false));
    let is_left = Arc::new(AtomicBool::new(false));
    let socket =
        Taken { socket, patience, may_wait: may_wait.clone(), stalled: None, is_left: is_left.clone(), left: None };
    let address = peer.address;
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        is_left.store(false, Ordering::Relaxed);
        let is_left = is_left.clone();
        let within = patience.body;
        let mut request =
            request.map(|body| Body::new(Brought { body, within, bytes: 0, began: None, timer: None, is_left }));
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let may_wait = may_wait.clone();
        async move {
            let response: Response<Body> = router.call(request).await?;
            may_wait.store(Streamed::is(&response), Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .serve_connection(TokioIo::new(socket), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = ending(&mut stopped) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %address, %error, "A connection to the API broke off.");
    }
}

/// A request's body, which must come on.
struct Brought {
    body: Incoming,
    within: Duration,
    bytes: u64,
    began: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Said when it goes: not all of it was read.
    is_left: Arc<AtomicBool>,
}

impl Drop for Brought {
    fn drop(&mut self) {
        self.is_left.store(!self.body.is_end_stream(), Ordering::Relaxed);
    }
}

impl HttpBody for Brought {
    type Data = bytes::Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Self::Error>>> {
        let began = *self.began.get_or_insert_with(Instant::now);
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = began + self.within + Duration::from_secs(self.bytes / BODY_BYTES_PER_S);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).map(|()| Some(Err("the body comes too slowly".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket whose client must take what it is sent, unless that is a stream. It closes when the client has had time to
/// do so, where not all was read that it sends.
struct Taken<S> {
    socket: S,
    patience: Patience,
    may_wait: Arc<AtomicBool>,
    stalled: Option<Pin<Box<Sleep>>>,
    is_left: Arc<AtomicBool>,
    left: Option<Left>,
}

/// What a client still sends though it is answered.
struct Left {
    bytes: usize,
    timer: Pin<Box<Sleep>>,
}

impl Left {
    /// Reads and lets go, until it ends or is too much.
    fn poll<S: AsyncRead + Unpin>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = [0; 8 * 1024];
        while self.bytes < LEFT_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut room);
            match Pin::new(&mut *socket).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.bytes += buf.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.timer.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}

impl<S> Taken<S> {
    fn judge<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() || self.may_wait.load(Ordering::Relaxed) {
            self.stalled = None;
            return wrote;
        }
        let within = self.patience.taken;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(within)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.judge(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.judge(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wrote = Pin::new(&mut self.socket).poll_flush(cx);
        self.judge(cx, wrote)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.left.is_none() {
            let wrote = Pin::new(&mut this.socket).poll_shutdown(cx);
            ready!(this.judge(cx, wrote))?;
        }
        if !this.is_left.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let within = this.patience.left;
        let left = this.left.get_or_insert_with(|| Left { bytes: 0, timer: Box::pin(sleep(within)) });
        left.poll(&mut this.socket, cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use axum::routing::{get, post};
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;

    const SHORT: Duration = Duration::from_millis(300);
    /// More than the kernel keeps for a client that does not read.
    const LARGE: usize = 64 * 1024 * 1024;

    struct Served {
        address: SocketAddr,
        /// Closed: who waits goes on.
        go: Arc<Semaphore>,
        _runtime: tokio::runtime::Runtime,
        _stop: watch::Sender<bool>,
    }

    fn served() -> Served {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, stopped) = watch::channel(false);
        let streamed = || async {
            let mut response = vec![b'x'; LARGE].into_response();
            response.extensions_mut().insert(Streamed);
            response
        };
        let go = Arc::new(Semaphore::new(0));
        let waits = go.clone();
        let router = Router::new()
            .route("/wait", get(|| async move { waits.acquire().await.is_err().to_string() }))
            .route("/short", get(|| async { "yes" }))
            .route("/large", get(|| async { vec![b'x'; LARGE] }))
            .route("/stream", get(streamed))
            .route("/refused", post(|| async { axum::http::StatusCode::PAYLOAD_TOO_LARGE }))
            .route("/length", post(|body: bytes::Bytes| async move { body.len().to_string() }));
        let patience =
            Patience { handshake: SHORT, head: SHORT, body: SHORT, taken: SHORT, left: Duration::from_secs(20) };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve_with(patience, listener, None, router, stopped));
        Served { address, go, _runtime: runtime, _stop: stop }
    }

    impl Served {
        fn client(&self, sends: &str) -> Client {
            let mut client = Client::connect(self.address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.write_all(sends.as_bytes()).unwrap();
            client
        }
    }

    /// All that comes until the other side closes.
    fn rest(mut client: &Client) -> Vec<u8> {
        let mut all = Vec::new();
        match client.read_to_end(&mut all) {
            // What it had not read of ours makes a reset of its end.
            Err(e) if e.kind() != io::ErrorKind::ConnectionReset => panic!("it does not end: {e}"),
            _ => all,
        }
    }

    #[test]
    fn who_says_nothing_or_half_a_head_or_half_a_body_is_let_go() {
        let served = served();
        for half in ["", "GET /short HT", "GET /short HTTP/1.1\r\nhost: x\r\n"] {
            rest(&served.client(half));
        }
        let said = rest(&served.client("GET /short HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert!(said.starts_with(b"HTTP/1.1 200"), "answered, and let go when nothing more came");
        let said = rest(&served.client("POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc"));
        assert!(said.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&said));
    }

    #[test]
    fn who_writes_a_whole_body_before_it_reads_has_its_answer_though_nobody_has_read_that() {
        let served = served();
        let refused = |bytes: usize| {
            let head = format!("POST /refused HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n");
            let mut client = served.client(&head);
            let wrote = client.write_all(&vec![b'x'; bytes]);
            (wrote, rest(&client))
        };
        let (wrote, said) = refused(LEFT_BYTES_MAX - 1024 * 1024);
        wrote.unwrap();
        assert!(said.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&said));
        assert!(refused(LARGE).0.is_err(), "there is a bound");
    }

    #[test]
    fn one_address_has_half_of_the_places_all_others_leave_some_and_this_machine_is_not_counted() {
        let guests = Arc::new(Guests::default());
        let enter = |ip: &str| guests.enter(ip.parse().unwrap());
        let stranger: Vec<Guest> = (0..ADDRESS_CONNECTIONS_MAX).map(|_| enter("10.0.0.1").unwrap()).collect();
        assert!(enter("10.0.0.1").is_err() && enter("::ffff:10.0.0.1").is_err());
        let rest = CONNECTIONS_MAX - OWN_PLACES - ADDRESS_CONNECTIONS_MAX;
        let others: Vec<Guest> = (0..rest).map(|n| enter(&format!("10.0.1.{n}")).unwrap()).collect();
        assert!(enter("10.0.2.1").is_err(), "what is left is this machine's");
        let own: Vec<Guest> = (0..CONNECTIONS_MAX).map(|_| enter("127.0.0.1").unwrap()).collect();
        drop((stranger, others, own));
        assert!(guests.0.lock().is_empty());
        let _network: Vec<Guest> =
            (0..ADDRESS_CONNECTIONS_MAX).map(|n| enter(&format!("2001:db8::{n:x}")).unwrap()).collect();
        assert!(enter("2001:db8::ffff").is_err() && enter("2001:db8:0:1::1").is_ok(), "one network");
    }

    #[tokio::test]
    async fn the_kernel_asks_whether_a_quiet_client_is_still_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        ask_if_there(&socket).unwrap();
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), QUIET);
        assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap(), ASKED_EVERY);
        assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), ASKED_TIMES);
        assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), 0, "a full window is no absence");
    }

    #[test]
    fn an_answer_must_be_taken_and_a_stream_may_wait() {
        let served = served();
        let large = served.client("GET /large HTTP/1.1\r\nhost: x\r\n\r\n");
        let stream = served.client("GET /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        // Not for luck: however long it is, one must be cut by then and the other not.
        std::thread::sleep(SHORT * 4);
        assert!(rest(&large).len() < LARGE);
        assert!(rest(&stream).len() > LARGE);
    }

    #[test]
    fn there_are_so_many_connections_and_the_next_waits_for_a_place() {
        let served = served();
        let waiting: Vec<Client> =
            (0..CONNECTIONS_MAX).map(|_| served.client("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")).collect();
        let mut next = served.client("GET /short HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        next.set_read_timeout(Some(SHORT)).unwrap();
        assert!(next.read(&mut [0; 1]).is_err(), "nobody has looked at it");
        next.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        served.go.close();
        assert!(rest(&next).ends_with(b"yes"));
        drop(waiting);
    }
}
