//! What the front door counts. Plain numbers that only grow, but for `connections`.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub struct Counters {
            /// Open sockets.
            pub connections: AtomicU64,
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Names and values, for metrics.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![
                    ("connections", self.connections.load(Ordering::Relaxed)),
                    $((stringify!($name), self.$name.get()),)*
                ]
            }
        }
    };
}

counters! {
    /// CONNECTs that were accepted.
    connects,
    /// Sockets and CONNECTs that were turned away.
    refused,
    /// Sockets whose TLS or WebSocket handshake failed; they are turned away as well.
    handshakes_failed,
    /// CONNECTs refused for who it is: a wrong user or password, too many of them, none where one is
    /// needed, or a certificate of nobody. They are turned away as well.
    logins_failed,
    publishes_qos0,
    publishes_qos1,
    publishes_qos2,
    /// Publishes on link topics.
    link_publishes,
    /// Publishes that the client may not make.
    forbidden,
    /// Filters that the client may not subscribe to.
    forbidden_subscriptions,
    /// Repeated publishes whose first is still being committed or not released.
    repeats,
    /// Messages written to subscribers.
    delivered,
    /// Among them those given a second time.
    redelivered,
    /// QoS 0 messages that a slow subscriber did not get.
    qos0_dropped,
    /// Messages that a subscriber did not get because they are larger than it accepts.
    too_large_for_client,
    expired,
    /// Connections ended for a packet that breaks the protocol.
    malformed,
    /// Publishes larger than the packet limit.
    oversized,
    /// Connections ended because nothing came within 1.5 times their keep-alive.
    keep_alive_timeouts,
    taken_over,
    /// Times that a client was not read for a while because it sent faster than it may.
    slowed,
    /// QoS 2 messages that went to nobody: the session of the group's member that was given them ended
    /// before they were complete.
    abandoned,
    /// Sessions that fell back to reading the log because they were slow.
    fell_behind,
    /// Records that a session should have got and that the log no longer had.
    unreadable,
    wills,
    bytes_in,
    bytes_out,
}
