//! The front door: what it listens on, and who may do what there.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The front door: embedded unless `url` names an outside broker.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Broker {
    pub listen: SocketAddr,
    /// `mqtt://host:port` or `mqtts://host:port`: use that broker instead of the embedded one:
    /// devices, apps and child nodes are its clients.
    pub url: Option<String>,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// On the outside broker `events/city.test` is `events/city/test`: RabbitMQ's MQTT, and NATS before
    /// 2.10, know no dot within a topic's level.
    pub dots_as_slashes: bool,
    /// For `mqtts://`: PEM file of the certificates that sign the outside broker's.
    pub ca_file: Option<PathBuf>,
    /// This node's certificate there, and its key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub connections_max: usize,
    /// Connections from one address (IPv6: from one /64 network), and of one user; 0: no limit.
    pub address_connections_max: usize,
    pub user_connections_max: usize,
    /// Longest keep-alive of an MQTT 5 client, seconds, also for one that wants none; 0: as it asks.
    pub keep_alive_s_max: u16,
    /// Unacknowledged QoS 1/2 publishes of one client.
    pub receive_maximum: u16,
    pub packet_bytes_max: usize,
    /// Sessions of absent clients live at most this long, seconds.
    pub session_expiry_s_max: u32,
    /// A client that publishes more than this a second is read slower; 0: no limit.
    pub client_publishes_per_s_max: u64,
    /// The same for bytes.
    pub client_bytes_per_s_max: u64,
    /// Filters of one session, of 8 levels and 256 bytes; larger ones count as several.
    pub client_subscriptions_max: usize,
    /// What filters and last wills of all sessions may keep in memory, bytes: a usual filter counts as
    /// 1,000 for a session that lasts, and as 1,000 more while its client is connected; a will twice. 0: no
    /// limit.
    pub sessions_bytes_max: usize,
    /// Bytes of messages of QoS 0 that wait for clients which read too slowly. Beyond it each client has
    /// 64 KiB of its own. 0: no limit.
    pub waiting_bytes_max: usize,
    /// Bytes of retained messages with their topics, and 200 for each; 0: no limit. All are in memory.
    pub retained_bytes_max: usize,
}

impl Default for Broker {
    fn default() -> Self {
        Broker {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            url: None,
            username: None,
            password_file: None,
            dots_as_slashes: false,
            ca_file: None,
            cert_file: None,
            key_file: None,
            connections_max: 10_000,
            address_connections_max: 0,
            user_connections_max: 0,
            keep_alive_s_max: 0,
            receive_maximum: 1024,
            packet_bytes_max: crate::limits::PACKET_BYTES_MAX,
            session_expiry_s_max: 7 * 24 * 3600,
            client_publishes_per_s_max: 0,
            client_bytes_per_s_max: 0,
            client_subscriptions_max: 200_000,
            sessions_bytes_max: 512 * 1024 * 1024,
            waiting_bytes_max: 64 * 1024 * 1024,
            retained_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// A door of the embedded broker beside `broker.listen`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub listen: SocketAddr,
    pub protocol: Protocol,
    /// `mqtts`, `wss`: PEM file with this node's certificate first, then those that sign it.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// PEM file of the certificates that sign clients': then who shows one is the user that it names.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// PEM file of the revocation lists of those who sign clients': who is on one does not come in,
    /// nor whose signer has none.
    #[serde(default)]
    pub client_crl_file: Option<PathBuf>,
    /// Without a certificate nobody comes in; else with a password, or as `anonymous` says.
    #[serde(default)]
    pub client_required: bool,
    /// What in a certificate is the user's name.
    #[serde(default)]
    pub client_name: ClientName,
    /// `ws`, `wss`: `https://HOST` of the web pages whose scripts may connect, beside those of this
    /// same host and port; `*`: all.
    #[serde(default)]
    pub origins: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Mqtt,
    Mqtts,
    Ws,
    Wss,
}

impl Protocol {
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Mqtts | Protocol::Wss)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Mqtt => "mqtt",
            Protocol::Mqtts => "mqtts",
            Protocol::Ws => "ws",
            Protocol::Wss => "wss",
        }
    }

    pub fn is_web(self) -> bool {
        matches!(self, Protocol::Ws | Protocol::Wss)
    }
}

/// The part of a certificate that names its user; of several of a kind the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientName {
    #[default]
    CommonName,
    /// These are subject alternative names.
    Dns,
    Email,
    Uri,
}

/// Who may connect. Without users and with `anonymous = true` everybody on the listeners' networks.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// Default: true while all listeners are on loopback, else false.
    pub anonymous: bool,
    /// `user:HASH` a line, `user:ADDRESS:HASH` for a child node's account, `user:@ROLE,ROLE:HASH`.
    pub users_file: Option<PathBuf>,
    /// Filters that those without a role may publish to; `{user}` stands for the user's name.
    /// Default: all while `anonymous`, else none.
    pub publish: Option<Vec<String>>,
    /// What they may subscribe to, likewise.
    pub subscribe: Option<Vec<String>>,
}

impl Access {
    /// What holds where `publish` or `subscribe` is not given.
    pub fn unless_given(&self) -> Vec<String> {
        if self.anonymous { vec!["#".into()] } else { Vec::new() }
    }
}

impl Default for Access {
    fn default() -> Self {
        Access { anonymous: true, users_file: None, publish: None, subscribe: None }
    }
}

/// What its users may do beside the link topics of a child node; what no filter allows is refused.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// `a-z`, `0-9`, `-`.
    pub name: String,
    /// Topic filters; `{user}` stands for the user's name.
    #[serde(default)]
    pub publish: Vec<String>,
    #[serde(default)]
    pub subscribe: Vec<String>,
}

impl Role {
    pub fn is_name(text: &str) -> bool {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }
}
