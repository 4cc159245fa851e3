//! Where clients of the API come in: by TCP, or by TLS with the same care for renewed files as at
//! the front door.

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use citybrain_hub::tls;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// A handshake that takes longer is given up.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Handshakes under way at a time; more wait in the kernel.
const HANDSHAKES_MAX: usize = 64;
/// After the machine refused a connection (no file descriptor left): others may free some.
const PAUSE: Duration = Duration::from_millis(100);

/// Who asks: the other end of the connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The name in the certificate that it has shown.
    pub certified: Option<Arc<str>>,
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Peer {
        Peer { address: *stream.remote_addr(), certified: None }
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Peer {
        stream.remote_addr().clone()
    }
}

type Shaken = (tls::Stream<TcpStream>, Peer);

/// Gives connections once their handshake is done; nobody waits for another's.
pub struct TlsListener {
    address: SocketAddr,
    shaken: mpsc::Receiver<Shaken>,
    task: JoinHandle<()>,
}

impl TlsListener {
    /// # Errors
    /// When the socket has no address.
    pub fn new(listener: TcpListener, server: tls::Server) -> io::Result<TlsListener> {
        let address = listener.local_addr()?;
        let (tx, shaken) = mpsc::channel(HANDSHAKES_MAX);
        let task = tokio::spawn(accept(listener, Arc::new(server), tx));
        Ok(TlsListener { address, shaken, task })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: Arc<tls::Server>, shaken: mpsc::Sender<Shaken>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "A connection to the API could not be accepted.");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (server, shaken) = (server.clone(), shaken.clone());
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(HANDSHAKE_WITHIN, server.accept(socket)).await {
                // The API may have ended meanwhile.
                Ok(Ok((stream, certified))) => {
                    drop(shaken.send((stream, Peer { address: peer, certified })).await);
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "A TLS handshake with the API failed."),
                Err(_) => tracing::debug!(%peer, "A TLS handshake with the API took too long."),
            }
        });
    }
}

impl Listener for TlsListener {
    type Io = tls::Stream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> Shaken {
        match self.shaken.recv().await {
            Some(shaken) => shaken,
            // Its task is gone, and with it the socket: nobody comes any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: self.address, certified: None })
    }
}
