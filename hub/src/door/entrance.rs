//! Listeners: plain TCP, TLS, WebSocket, and both of the latter.

use super::Door;
use super::connection;
use super::socket::{Peer, Socket};
use super::websocket::WebSocket;
use crate::tls;
use citybrain_shared::config;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// TLS and WebSocket handshakes together.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// What one WebSocket message may hold beside the largest packet: clients may put several in one.
const MESSAGE_SLACK_BYTES: usize = 64 * 1024;

/// Without a file descriptor left the next try fails, too: not so often that it costs a core, often enough for whoever
/// waits.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Where clients come in.
pub struct Entrance {
    listener: TcpListener,
    wrap: Option<Arc<Wrap>>,
}

/// What is around a plain socket.
#[derive(Debug)]
struct Wrap {
    tls: Option<tls::Server>,
    /// `Some`: WebSocket, with the pages that may connect.
    web: Option<Vec<String>>,
}

impl Entrance {
    pub fn plain(listener: TcpListener) -> Entrance {
        Entrance { listener, wrap: None }
    }

    /// As config says.
    ///
    /// # Errors
    /// When the TLS files are of no use.
    pub fn new(listener: TcpListener, config: &config::Listener) -> Result<Entrance, tls::Error> {
        let tls = tls::ServerFiles::of(config).map(tls::Server::open).transpose()?;
        let web = config.protocol.is_web().then(|| config.origins.clone());
        let is_plain = tls.is_none() && web.is_none();
        Ok(Entrance { listener, wrap: (!is_plain).then(|| Arc::new(Wrap { tls, web })) })
    }

    /// Takes connections until `shutdown` turns true or its sender is gone. Returned: those that
    /// are still open.
    pub(super) async fn serve(self, door: Arc<Door>, mut shutdown: watch::Receiver<bool>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                a = self.listener.accept() => a,
                _ = shutdown.wait_for(|s| *s) => return tasks,
                // Finished connections are taken out, or the set would grow.
                Some(_) = tasks.join_next() => continue,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors: existing connections go on, new ones wait.
                    tracing::warn!(%error, "Cannot accept a connection.");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                    continue;
                }
            };
            let open = door.counters.connections.fetch_add(1, Ordering::Relaxed);
            if open >= door.broker.connections_max as u64 {
                door.counters.connections.fetch_sub(1, Ordering::Relaxed);
                door.counters.refused.add(1);
                tracing::warn!(%peer, connections = open, "Refused a connection: `connections_max` are open.");
                continue;
            }
            // Acknowledgements are small and somebody waits for each.
            let _ = socket.set_nodelay(true);
            let peer = Peer { ip: peer.ip(), certified: None };
            let (door, wrap) = (door.clone(), self.wrap.clone());
            tasks.spawn(async move {
                match door.crowd.wait(peer.ip, &door.broker) {
                    Err(limit) => {
                        tracing::debug!(peer = %peer.ip, limit, "Turned a connection away: too many that have not said who they are.");
                        door.counters.refused.add(1);
                    }
                    Ok(waiting) => match wrap {
                        None => connection::run(&door, Socket::Tcp(socket), peer, waiting).await,
                        // Boxed, so that a plain connection's task is no larger for it.
                        Some(wrap) => match Box::pin(wrap.enter(&door, socket, peer)).await {
                            Some((socket, peer)) => connection::run(&door, socket, peer, waiting).await,
                            None => door.counters.refused.add(1),
                        },
                    },
                }
                door.counters.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

impl Wrap {
    /// The handshakes. `None`: they failed, or took too long.
    async fn enter(&self, door: &Door, socket: TcpStream, peer: Peer) -> Option<(Socket, Peer)> {
        let ip = peer.ip;
        let mut stop = door.stop.subscribe();
        let entered = tokio::select! {
            entered = tokio::time::timeout(HANDSHAKE_WITHIN, self.shake_hands(door, socket, peer)) => entered,
            _ = stop.wait_for(|s| *s) => return None,
        };
        let error = match entered {
            Ok(Ok(entered)) => return Some(entered),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        door.counters.handshakes_failed.add(1);
        match &self.tls {
            Some(tls) => tls.tell_failed(ip, &error),
            None => tracing::debug!(peer = %ip, %error, "A WebSocket handshake failed."),
        }
        None
    }

    async fn shake_hands(&self, door: &Door, socket: TcpStream, mut peer: Peer) -> io::Result<(Socket, Peer)> {
        let message_bytes_max = door.broker.packet_bytes_max + MESSAGE_SLACK_BYTES;
        let socket: Socket = match (&self.tls, &self.web) {
            (None, None) => Socket::Tcp(socket),
            (None, Some(origins)) => {
                let web = WebSocket::accept(socket, message_bytes_max, origins).await.map_err(io::Error::other)?;
                Socket::Wrapped(Box::new(web))
            }
            (Some(tls), web) => {
                let (stream, name) = tls.accept(socket).await?;
                peer.certified = name;
                match web {
                    None => Socket::Wrapped(Box::new(stream)),
                    Some(origins) => {
                        let web = WebSocket::accept(stream, message_bytes_max, origins);
                        Socket::Wrapped(Box::new(web.await.map_err(io::Error::other)?))
                    }
                }
            }
        };
        Ok((socket, peer))
    }
}
