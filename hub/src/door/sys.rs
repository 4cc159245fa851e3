//! `$SYS/broker/…`: how the front door does, as messages. Live QoS 0 and of no record: they are made
//! every [`PERIOD`] and for a new subscription, and are nowhere else.

use super::message::{Item, Message};
use super::route::{Sub, live_message};
use super::{Door, now_us};
use bytes::Bytes;
use citybrain_shared::topic;
use parking_lot::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(crate) const PREFIX: &str = "$SYS/";

pub(crate) const PERIOD: Duration = Duration::from_secs(10);

const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

#[derive(Debug)]
pub(crate) struct Sys {
    opened: Instant,
    load: Mutex<Load>,
}

/// Messages a minute, averaged with older ones counting exponentially less.
#[derive(Debug, Default)]
struct Load {
    received: u64,
    sent: u64,
    per_minute: [[f64; 3]; 2],
}

impl Load {
    fn count(&mut self, received: u64, sent: u64, passed: Duration) {
        let new = [received - self.received, sent - self.sent];
        (self.received, self.sent) = (received, sent);
        for (averages, new) in self.per_minute.iter_mut().zip(new) {
            let rate = new as f64 * 60.0 / passed.as_secs_f64();
            for (average, (_, span)) in averages.iter_mut().zip(SPANS) {
                *average += (rate - *average) * (1.0 - (-passed.as_secs_f64() / span).exp());
            }
        }
    }
}

impl Default for Sys {
    fn default() -> Sys {
        Sys { opened: Instant::now(), load: Mutex::default() }
    }
}

impl Sys {
    /// Topics and values as they are now.
    fn values(&self, door: &Door) -> Vec<(String, String)> {
        let c = &door.counters;
        let received = c.publishes_qos0.get() + c.publishes_qos1.get() + c.publishes_qos2.get();
        let mut values: Vec<(String, String)> = [
            ("version", concat!("citybrain ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("uptime", format!("{} seconds", self.opened.elapsed().as_secs())),
            ("clients/connected", door.seats.connected().to_string()),
            ("clients/sockets", c.connections.load(Ordering::Relaxed).to_string()),
            ("messages/received", received.to_string()),
            ("messages/sent", c.delivered.get().to_string()),
            ("messages/dropped", c.qos0_dropped.get().to_string()),
            ("bytes/received", c.bytes_in.get().to_string()),
            ("bytes/sent", c.bytes_out.get().to_string()),
        ]
        .map(|(name, value)| (format!("{PREFIX}broker/{name}"), value))
        .into();
        let load = self.load.lock();
        for (what, averages) in ["received", "sent"].iter().zip(load.per_minute) {
            for ((span, _), average) in SPANS.iter().zip(averages) {
                values.push((format!("{PREFIX}broker/load/messages/{what}/{span}"), format!("{average:.2}")));
            }
        }
        values
    }

    /// Tells all who subscribed; to be called every [`PERIOD`].
    pub(crate) fn tell(&self, door: &Door) {
        let c = &door.counters;
        let received = c.publishes_qos0.get() + c.publishes_qos1.get() + c.publishes_qos2.get();
        self.load.lock().count(received, c.delivered.get(), PERIOD);
        for (topic, value) in self.values(door) {
            door.router.live(message(&topic, value));
        }
    }

    /// What a new subscription gets at once, as it would of retained messages.
    pub(crate) fn now(&self, door: &Door, filter: &str, sub: &Sub) -> Vec<Item> {
        let all = self.values(door).into_iter().filter(|(topic, _)| topic::matches(filter, topic));
        all.map(|(topic, value)| Item::retained(message(&topic, value), sub)).collect()
    }
}

fn message(topic: &str, value: String) -> Message {
    live_message(topic, &[], Bytes::from(value), 0, true, now_us())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_follows_the_rate_and_the_short_one_follows_faster() {
        let mut load = Load::default();
        for n in 1..=60 {
            load.count(n * 100, 0, PERIOD);
        }
        let [minute, five, fifteen] = load.per_minute[0];
        assert!((minute - 600.0).abs() < 1.0, "{minute}");
        assert!(minute > five && five > fifteen && fifteen > 200.0, "{five} {fifteen}");
        assert_eq!(load.per_minute[1], [0.0; 3]);
    }
}
