//! How another broker is reached: what every client of one has in common.

use crate::tls::ClientFiles;
use citybrain_shared::words::with_causes;
use rumqttc::{AsyncClient, EventLoop, MqttOptions, NetworkOptions, TlsConfiguration, Transport};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The servers of one broker, of which each new connection takes the next: whoever lost the one that
/// was killed is at another at once.
#[derive(Clone, Debug)]
pub struct Servers {
    all: Arc<[(String, u16)]>,
    turn: Arc<AtomicUsize>,
}

impl Servers {
    /// Hosts and ports; at least one.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(all: impl IntoIterator<Item = (String, u16)>) -> Servers {
        let all: Arc<[_]> = all.into_iter().collect();
        assert!(!all.is_empty(), "a broker has a server");
        Servers { all, turn: Arc::default() }
    }

    fn next(&self) -> (String, u16) {
        self.all[self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len()].clone()
    }
}

impl std::fmt::Display for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (host, port)) in self.all.iter().enumerate() {
            write!(f, "{}{host}:{port}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// How to reach a broker.
#[derive(Clone, Debug)]
pub struct Broker {
    pub servers: Servers,
    pub username: Option<String>,
    /// Read for each connection, so that a corrected one counts.
    pub password_file: Option<PathBuf>,
    /// Read for each connection.
    pub tls: Option<ClientFiles>,
    pub keep_alive_s: u16,
    /// Largest link message, bytes.
    pub message_bytes_max: usize,
}

/// The password in its file, without the line's end.
///
/// # Errors
/// Why it cannot be read.
pub fn password_in(path: &Path) -> Result<String, String> {
    let text =
        std::fs::read_to_string(path).map_err(|e| format!("cannot read the password in {}: {e}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// What every connection to a broker has in common.
///
/// # Errors
/// Why the files of TLS or of the password cannot be used.
pub(crate) fn options(broker: &Broker, client_id: String, packet_bytes_max: usize) -> Result<MqttOptions, String> {
    let (host, port) = broker.servers.next();
    let mut options = MqttOptions::new(client_id, host, port);
    options.set_keep_alive(Duration::from_secs(broker.keep_alive_s.max(1).into()));
    options.set_max_packet_size(packet_bytes_max, packet_bytes_max);
    if let Some(user) = &broker.username {
        let password = broker.password_file.as_deref().map(password_in).transpose()?;
        options.set_credentials(user.clone(), password.unwrap_or_default());
    }
    if let Some(files) = &broker.tls {
        let config = files.config().map_err(|e| with_causes(&e))?;
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
    }
    Ok(options)
}

/// The client of one connection, and what must be polled for it to go on.
pub(crate) fn client(options: MqttOptions, requests_max: usize) -> (AsyncClient, EventLoop) {
    let (client, mut events) = AsyncClient::new(options, requests_max);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    (client, events)
}

/// A connection that stands may take as long over one packet as it may be silent. (rumqttc has one time
/// for this and for dialling, where less is better: a try that hangs keeps the next one waiting.)
pub(crate) fn be_patient(events: &mut EventLoop, keep_alive: Duration) {
    let mut network = events.network_options();
    if network.connection_timeout() < keep_alive.as_secs() {
        network.set_connection_timeout(keep_alive.as_secs());
        events.set_network_options(network);
    }
}
