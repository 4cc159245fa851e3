//! What types cannot say about a config: values that do not go together, or make no sense.
//!
//! | module | which sections it judges |
//! |---|---|
//! | `doors` | `[broker]`, `[[listener]]`, `[parent]`, `[api]`, `[access]`, `[[role]]` |
//! | `maps` | `[[preset]]`, `[[map]]`, `[[reach]]` |
//! | here | the others, and what all sections are judged by |

mod doors;
mod maps;
#[cfg(test)]
mod tests;

use super::endpoint::{is_host, is_place};
use super::parse::{Places, Problem};
use super::{Config, Role};
use crate::{limits, topic};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Judges what was read. The first `own_maps` entries of `map` are the file's own. `broken` are the
/// paths for which something stands in; they are left alone.
pub(super) fn validate(config: &Config, own_maps: usize, places: &Places, broken: &BTreeSet<String>) -> Vec<Problem> {
    let mut v = Judge { places, broken, problems: Vec::new() };
    v.node(config);
    v.broker(config);
    v.listeners(config);
    v.parent(config);
    v.link(config);
    v.numbers(config);
    v.api(config);
    v.access(config);
    v.presets(config);
    v.maps(config, own_maps);
    v.reaches(config);
    v.webhooks(config);
    v.home_assistant(config);
    v.problems
}

struct Judge<'a> {
    places: &'a Places,
    broken: &'a BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Judge<'_> {
    /// A problem with the value at `path`, unless that value is known to be unreadable.
    fn bad(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        if !self.broken.contains(path) {
            self.problems.push(Problem::new(message, self.places.value(path), help));
        }
    }

    fn node(&mut self, config: &Config) {
        let node = &config.node;
        if let Some(tier) = node.tier
            && tier != node.address.tier()
            && !self.broken.contains("node.address")
        {
            let (depth, own) = (node.address.depth(), node.address.tier());
            self.bad(
                "node.tier",
                format!("`{tier}` does not fit the address: {} of depth {depth} is a {own}", node.address),
                format!("write `tier = \"{own}\"` or leave it out; or give an address of depth {}", tier.depth()),
            );
        }
        // It goes into the event in which the node tells who it is, whose bound each node above keeps.
        let told = serde_json::to_string(&(&node.name, &node.code, &node.labels)).map_or(usize::MAX, |json| json.len());
        if told > limits::PRESENCE_BYTES_MAX / 2 {
            let max = limits::PRESENCE_BYTES_MAX / 2;
            let message = format!("name, code and labels have {told} bytes as JSON; at most {max} fit");
            self.bad("node.labels", message, "shorten them");
        }
        let people = node.labels.get(crate::selector::POPULATION);
        if let Some(people) = people.filter(|n| !n.parse::<u64>().is_ok_and(|n| n > 0)) {
            let message = format!("`{people}` is no number of people");
            self.bad("node.labels.population", message, "say how many live here and below: `population = \"12000\"`");
        }
        for label in node.labels.keys().filter(|l| l.is_empty() || l.contains(['=', ',', '[', ']'])) {
            let path = format!("node.labels.{label}");
            self.bad(&path, format!("no selector can name the label `{label}`"), "leave out `=`, `,`, `[` and `]`");
        }
        let unnamed = |v: &&String| v.is_empty() || v.contains([',', ']']) || v.trim() != v.as_str();
        for (label, value) in node.labels.iter().filter(|(_, v)| unnamed(v)) {
            let help = "leave out `,`, `]` and blanks at its ends; not empty";
            self.bad(&format!("node.labels.{label}"), format!("no selector can name the value `{value}`"), help);
        }
    }

    fn link(&mut self, config: &Config) {
        let root = &config.link.root;
        if let Err(e) = topic::check_topic(root) {
            self.bad("link.root", format!("`{root}` is no topic: {e}"), "the default is `citybrain/v1`");
        } else if root.starts_with('$') || root.split('/').any(str::is_empty) {
            self.bad("link.root", "it may not begin with `$` or have an empty level", "the default is `citybrain/v1`");
        } else if let first = root.split('/').next().unwrap_or_default()
            && (first == "in" || topic::OURS.contains(&first))
        {
            self.bad("link.root", "devices and apps use these topics", "the default is `citybrain/v1`");
        }
    }

    fn numbers(&mut self, config: &Config) {
        const KIB: u64 = 1024;
        const MIB: u64 = 1024 * KIB;
        let (b, l, s) = (&config.broker, &config.link, &config.store);
        let link_min = (limits::EVENT_BYTES_MAX + 64 * 1024) as u64;
        self.range("broker.connections_max", b.connections_max as u64, 1..=1_000_000, "");
        self.range("broker.receive_maximum", b.receive_maximum.into(), 1..=65_535, "");
        // What comes in must fit into one record of the log, beside its header.
        let packet_max = limits::RECORD_BYTES_MAX as u64 - MIB;
        self.range(
            "broker.packet_bytes_max",
            b.packet_bytes_max as u64,
            link_min..=packet_max,
            "the largest event must fit into a packet with its topic, and a packet into one record of the log",
        );
        let help = "a SUBSCRIBE beyond it is refused; the default is 200000";
        self.range("broker.client_subscriptions_max", b.client_subscriptions_max as u64, 1..=u64::MAX, help);
        self.range("link.window_frames", l.window_frames as u64, 1..=1024, "");
        self.range("link.resend_after_ms", l.resend_after_ms, 50..=600_000, "milliseconds; the default is 2000");
        self.range(
            "link.keep_alive_s",
            l.keep_alive_s.into(),
            1..=3600,
            "seconds; without it a dead line is not noticed",
        );
        self.range(
            "link.message_bytes_max",
            l.message_bytes_max as u64,
            link_min..=packet_max,
            "the largest event must fit into a frame",
        );
        self.range("store.segment_bytes", s.segment_bytes, 64 * KIB..=4096 * MIB, "bytes; the default is 67108864");
        let log_min = s.segment_bytes.saturating_mul(2);
        self.range(
            "store.log_bytes_max",
            s.log_bytes_max,
            log_min..=u64::MAX,
            "at least two segments (`segment_bytes`)",
        );
        if s.log_bytes_hard_max != 0 {
            let help = "at least `log_bytes_max`; 0 means that nothing needed is ever dropped";
            self.range("store.log_bytes_hard_max", s.log_bytes_hard_max, s.log_bytes_max..=u64::MAX, help);
        }
        self.range("store.snapshot_records", s.snapshot_records, 1000..=u64::MAX, "the default is 1000000");
        self.range("store.cache_bytes", s.cache_bytes, 256 * KIB..=64 * 1024 * MIB, "bytes; the default is 4194304");
        self.range(
            "store.free_bytes_min",
            s.free_bytes_min,
            MIB..=u64::MAX,
            "bytes; a full disk must be noticed before it is full",
        );
        self.range("runtime.threads", config.runtime.threads as u64, 1..=256, "1 is best on small boxes");
    }

    fn range(&mut self, path: &str, value: u64, good: RangeInclusive<u64>, help: &str) {
        if good.contains(&value) {
            return;
        }
        let bound = if value < *good.start() { ("least", good.start()) } else { ("most", good.end()) };
        self.bad(path, format!("{value} is out of bounds: at {} {}", bound.0, bound.1), help);
    }

    fn webhooks(&mut self, config: &Config) {
        for (i, hook) in config.webhook.iter().enumerate() {
            let at = |key: &str| format!("webhook.{i}.{key}");
            if !Role::is_name(&hook.name) || hook.name.len() > 60 {
                self.bad(&at("name"), format!("`{}` is no name", hook.name), "1 to 60 of `a-z`, `0-9`, `-`");
            } else if config.webhook[..i].iter().any(|h| h.name == hook.name) {
                let help = "each has a cursor under its own name";
                self.bad(&at("name"), format!("`{}` is another webhook's name", hook.name), help);
            }
            if hook.token.is_some() && config.api.tokens_file.is_none() {
                let help = "name the file of tokens in `[api]`, or take `token` out";
                self.bad(&at("token"), "there is no `api.tokens_file` in which it could be", help);
            }
            let tls = hook.url.strip_prefix("https://");
            let rest = tls.or_else(|| hook.url.strip_prefix("http://"));
            let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
            let is_odd = |c: char| !c.is_ascii_graphic() || "<>\"`".contains(c);
            if !host.is_some_and(is_place) || hook.url.contains(is_odd) {
                let help = "write `https://HOST/PATH` or `http://HOST:PORT/PATH`; a name that is not ASCII as `xn--…`";
                self.bad(&at("url"), format!("`{}` is no place to POST to", hook.url), help);
            } else if let Some(origin) = hook.origin.as_ref().filter(|o| !is_host(o)) {
                self.bad(&at("origin"), format!("`{origin}` is no host's name"), "such as `brain.chengdu.example`");
            } else if hook.origin.is_some() && !hook.handshake {
                self.bad(&at("origin"), "nobody is told it", "`handshake = true` asks the receiver");
            } else if tls.is_none() && hook.ca_file.is_some() {
                self.bad(&at("ca_file"), "there is no TLS here", "an `https://` URL has it");
            }
        }
    }

    fn home_assistant(&mut self, config: &Config) {
        let prefix = &config.homeassistant.prefix;
        if let Err(e) = topic::check_topic(prefix) {
            self.bad("homeassistant.prefix", format!("`{prefix}` is no topic: {e}"), "the default is `homeassistant`");
        } else if let first = prefix.split('/').next().unwrap_or_default()
            && (topic::is_link(&config.link.root, prefix)
                || prefix.starts_with('$')
                || first == "in"
                || topic::OURS.contains(&first))
        {
            let message = "the node's own topics are there already";
            self.bad("homeassistant.prefix", message, "the default is `homeassistant`");
        }
        if config.homeassistant.discovery && config.broker.url.is_some() {
            let help = "leave it out, or take `broker.url` out";
            self.bad("homeassistant.discovery", "only the embedded broker tells Home Assistant of the node", help);
        }
    }

    fn filter(&mut self, path: &str, filter: &str) {
        if let Err(e) = topic::check_filter(filter) {
            self.bad(path, format!("`{filter}` is no topic filter: {e}"), "such as `in/air/+` or `in/#`");
        } else if filter.starts_with(topic::SHARE) {
            let help = "leave `$share/NAME/` out: who may use the filter may also share it";
            self.bad(path, format!("no topic matches `{filter}`: it is how a client subscribes"), help);
        }
    }
}
