//! What types cannot say about a config: values that do not go together, or make no sense.

use super::TOKEN_ROLES;
use super::parse::{Places, Problem, closest};
use super::{Config, Format, Map, Preset, Role, presets};
use crate::limits;
use crate::{Selector, Tier, event, topic};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
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

    fn broker(&mut self, config: &Config) {
        let broker = &config.broker;
        if let Some(url) = &broker.url {
            let tls = [broker.ca_file.is_some(), broker.cert_file.is_some(), broker.key_file.is_some()];
            self.url("broker", url, tls);
        } else {
            for (path, given) in [
                ("broker.username", broker.username.is_some()),
                ("broker.password_file", broker.password_file.is_some()),
                ("broker.dots_as_slashes", broker.dots_as_slashes),
                ("broker.ca_file", broker.ca_file.is_some()),
                ("broker.cert_file", broker.cert_file.is_some()),
                ("broker.key_file", broker.key_file.is_some()),
            ] {
                if given {
                    self.bad(path, "only an outside broker needs this", "give `url` too, or leave this out");
                }
            }
            if clash(broker.listen, config.api.listen) && !self.broken.contains("broker.listen") {
                let message = format!("`{}` is the broker's already", config.api.listen);
                self.bad("api.listen", message, "give the API and the broker different ports");
            }
        }
        if broker.url.is_some() && broker.password_file.is_some() && broker.username.is_none() {
            self.bad("broker.password_file", "a password without a user name", "add `username`");
        }
    }

    fn listeners(&mut self, config: &Config) {
        if self.broken.contains("listener") {
            return;
        }
        for (i, l) in config.listener.iter().enumerate() {
            let at = |key: &str| format!("listener.{i}.{key}");
            if config.broker.url.is_some() {
                let help = "take it out, or take `broker.url` out";
                self.bad(&at("listen"), "an outside broker has its own listeners", help);
            }
            let before = config.listener[..i].iter().map(|b| ("another `[[listener]]`", b.listen));
            let others = [("`broker.listen`", config.broker.listen), ("`api.listen`", config.api.listen)];
            let is_read = !self.broken.contains(&at("listen"));
            if let Some((whose, _)) = others.into_iter().chain(before).find(|(_, o)| is_read && clash(*o, l.listen)) {
                self.bad(&at("listen"), format!("`{}` is {whose} already", l.listen), "give each a port of its own");
            }
            if self.broken.contains(&at("protocol")) {
                continue;
            }
            let (tls, web) = (l.protocol.is_tls(), l.protocol.is_web());
            for (key, given) in [("cert_file", l.cert_file.is_some()), ("key_file", l.key_file.is_some())] {
                if tls && !given {
                    self.bad(&at(key), format!("TLS needs `{key}`"), format!("add `{key} = \"…\"`, a PEM file"));
                }
            }
            for (key, given) in [
                ("cert_file", l.cert_file.is_some()),
                ("key_file", l.key_file.is_some()),
                ("client_ca_file", l.client_ca_file.is_some()),
            ] {
                if !tls && given {
                    self.bad(&at(key), "there is no TLS here", "`protocol = \"mqtts\"` or `\"wss\"` has it");
                }
            }
            if l.client_required && l.client_ca_file.is_none() {
                let help = "add `client_ca_file`, the certificates that sign clients'";
                self.bad(&at("client_required"), "no client's certificate could be verified", help);
            }
            if l.client_crl_file.is_some() && l.client_ca_file.is_none() {
                let help = "add `client_ca_file`, the certificates that sign clients' and the list";
                self.bad(&at("client_crl_file"), "no client shows a certificate here that could be revoked", help);
            }
            if !web && !l.origins.is_empty() {
                self.bad(&at("origins"), "there is no WebSocket here", "`protocol = \"ws\"` or `\"wss\"` has it");
            }
            for (j, origin) in l.origins.iter().enumerate() {
                if origin != "*" && !is_origin(origin) {
                    let help = "write `https://HOST` or `https://HOST:PORT`, or `*`";
                    self.bad(&at(&format!("origins.{j}")), format!("`{origin}` is no web origin"), help);
                }
            }
        }
    }

    fn api(&mut self, config: &Config) {
        let api = &config.api;
        if api.tokens_file.is_none() && !api.listen.ip().is_loopback() && !self.broken.contains("api.tokens_file") {
            let message = format!("`{}` is open to the network, and nobody is asked who he is", api.listen);
            let help = "give `tokens_file` (`citybrain token add NAME --role reader --file FILE` makes one), or \
                        listen on 127.0.0.1";
            self.bad("api.listen", message, help);
        }
        for (key, other, lacks) in [
            ("cert_file", "key_file", api.cert_file.is_some() && api.key_file.is_none()),
            ("key_file", "cert_file", api.key_file.is_some() && api.cert_file.is_none()),
        ] {
            if lacks {
                let help = format!("add `{other} = \"…\"`, a PEM file");
                self.bad(&format!("api.{key}"), format!("HTTPS needs `{other}`, too"), help);
            }
        }
        let certified = api.client_ca_file.is_some();
        if certified && (api.cert_file.is_none() || api.tokens_file.is_none()) {
            let help = "add `cert_file`, `key_file` and `tokens_file`: the certificate's name is that of a token";
            self.bad("api.client_ca_file", "nobody shows a certificate without HTTPS, or is anybody by it", help);
        }
        if api.client_crl_file.is_some() && !certified {
            let help = "add `client_ca_file`, the certificates that sign clients' and the list";
            self.bad("api.client_crl_file", "no client shows a certificate here that could be revoked", help);
        }
        for (i, origin) in api.origins.iter().enumerate().filter(|(_, o)| !is_origin(o)) {
            let help = "write `https://HOST` or `https://HOST:PORT`, in small letters, of each page";
            self.bad(&format!("api.origins.{i}"), format!("`{origin}` is no web origin"), help);
        }
        if !api.origins.is_empty() && api.tokens_file.is_none() {
            let help = "give `tokens_file`: a page of another origin brings a token of it";
            self.bad("api.origins", "without tokens no page of another origin may ask", help);
        }
        for role in api.requests_per_minute_of.keys().filter(|r| !TOKEN_ROLES.contains(&r.as_str())) {
            let help = format!("roles of tokens are {}", TOKEN_ROLES.join(", "));
            self.bad(&format!("api.requests_per_minute_of.{role}"), format!("`{role}` is no role of a token"), help);
        }
    }

    fn parent(&mut self, config: &Config) {
        let Some(parent) = &config.parent else { return };
        let whole = !self.broken.contains("node.address");
        if config.node.address.tier() == Tier::City && whole {
            let message = format!("{} is a city: it has no parent", config.node.address);
            if let Some(span) = self.places.key("parent") {
                let help = "take `[parent]` out, or give an address below a city";
                self.problems.push(Problem::new(message, Some(span), help));
            }
        }
        let tls = [parent.ca_file.is_some(), parent.cert_file.is_some(), parent.key_file.is_some()];
        self.url("parent", &parent.url, tls);
        if parent.password_file.is_some() && parent.username.is_none() {
            self.bad("parent.password_file", "a password without a user name", "add `username`");
        }
        let own = config.broker.url.is_none() && !self.broken.contains("broker.listen");
        let mut doors = std::iter::once(config.broker.listen).chain(config.listener.iter().map(|l| l.listen));
        if own
            && Endpoint::parse_all(&parent.url)
                .is_ok_and(|all| doors.any(|d| all.iter().any(|e| is_at(d, &e.host, e.port))))
        {
            self.bad("parent.url", "this is the node's own broker", "write the parent's `broker.listen`");
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

    fn access(&mut self, config: &Config) {
        let access = &config.access;
        let certified = config.listener.iter().any(|l| l.client_ca_file.is_some());
        if !access.anonymous && access.users_file.is_none() && config.broker.url.is_none() && !certified {
            let help = "give `users_file`, a listener with `client_ca_file`, or `anonymous = true`";
            self.bad("access.anonymous", "nobody could connect", help);
        }
        let (publish, subscribe) = (access.publish.as_deref(), access.subscribe.as_deref());
        self.rights("access", publish.unwrap_or_default(), subscribe.unwrap_or_default());
        if self.broken.contains("role") {
            return;
        }
        for (i, role) in config.role.iter().enumerate() {
            let at = format!("role.{i}.name");
            if !Role::is_name(&role.name) {
                self.bad(&at, format!("`{}` is no name of a role", role.name), "use a-z, 0-9 and `-`");
            }
            if config.role[..i].iter().any(|r| r.name == role.name) {
                self.bad(&at, format!("there is a role `{}` already", role.name), "put their filters together");
            }
            self.rights(&format!("role.{i}"), &role.publish, &role.subscribe);
        }
    }

    fn rights(&mut self, section: &str, publish: &[String], subscribe: &[String]) {
        for (list, filters) in [("publish", publish), ("subscribe", subscribe)] {
            for (i, filter) in filters.iter().enumerate() {
                let path = format!("{section}.{list}.{i}");
                self.filter(&path, &filter.replace("{user}", "u"));
                if filter.replace("{user}", "").contains(['{', '}']) {
                    self.bad(&path, "only `{user}` can be filled in here", "");
                }
            }
        }
    }

    fn webhooks(&mut self, config: &Config) {
        if self.broken.contains("webhook") {
            return;
        }
        for (i, hook) in config.webhook.iter().enumerate() {
            let at = |key: &str| format!("webhook.{i}.{key}");
            if !Role::is_name(&hook.name) || hook.name.len() > 60 {
                self.bad(&at("name"), format!("`{}` is no name", hook.name), "1 to 60 of `a-z`, `0-9`, `-`");
            } else if config.webhook[..i].iter().any(|h| h.name == hook.name) {
                let help = "each has a cursor under its own name";
                self.bad(&at("name"), format!("`{}` is another webhook's name", hook.name), help);
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

    fn presets(&mut self, config: &Config) {
        if self.broken.contains("preset") {
            return;
        }
        for (i, preset) in config.preset.iter().enumerate() {
            let at = |key: &str| format!("preset.{i}.{key}");
            let base = |p: &Preset| presets::find(&p.name).map(|d| p.base.clone().unwrap_or(d.base));
            if presets::find(&preset.name).is_none() {
                let help = match closest(&preset.name, presets::names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", presets::names().collect::<Vec<_>>().join(", ")),
                };
                self.bad(&at("name"), format!("`{}` is no preset", preset.name), help);
            } else if config.preset[..i].iter().any(|p| p.name == preset.name && base(p) == base(preset)) {
                let help = "once is enough; give another `base` where its devices publish in two places";
                self.bad(&at("name"), format!("`{}` is there already", preset.name), help);
            }
            if let Some(base) = &preset.base {
                let first = base.split('/').next().unwrap_or_default();
                if let Err(e) = topic::check_topic(base) {
                    self.bad(&at("base"), format!("`{base}` is no topic: {e}"), "such as `zigbee2mqtt`");
                } else if topic::is_link(&config.link.root, base) || topic::OURS.contains(&first) {
                    let message = "the node itself publishes there; nothing from outside is mapped";
                    self.bad(&at("base"), message, "such as `zigbee2mqtt`");
                }
            }
            self.reach_tier(&at("reach"), preset.reach, config);
        }
    }

    fn maps(&mut self, config: &Config, own: usize) {
        if self.broken.contains("map") {
            return;
        }
        if let Some(i) = config.map.iter().position(|m| m.format == Format::Discovery)
            && config.broker.url.is_some()
        {
            let at = if i < own { format!("map.{i}.format") } else { "broker.url".to_owned() };
            let message = "only the embedded broker sees what devices announce, and what they say then";
            self.bad(&at, message, "map their topics by hand, or take `broker.url` out");
        }
        for (i, map) in config.map.iter().take(own).enumerate() {
            let at = |key: &str| format!("map.{i}.{key}");
            self.filter(&at("filter"), &map.filter);
            let first = map.filter.split('/').next().unwrap_or_default();
            if topic::is_link(&config.link.root, &map.filter) || topic::OURS.contains(&first) {
                let message = "the node itself publishes there; nothing from outside is mapped";
                self.bad(&at("filter"), message, "map a topic of devices, such as `in/#`");
            }
            let takes_all = |m: &Map| m.has.is_empty() && covers(&m.filter, &map.filter);
            if let Some(j) = config.map[..i].iter().position(takes_all) {
                let message = format!("never used: `{}` ({}) comes first", config.map[j].filter, ordinal(j));
                self.bad(&at("filter"), message, "the first filter that matches wins: put the narrower one first");
            }
            self.map_values(map, &at);
            self.reach_tier(&at("reach"), map.reach, config);
            if let Some(target) = map.target.as_deref().filter(|t| !t.contains('{')) {
                self.target(&at("target"), target, config);
            }
        }
    }

    fn map_values(&mut self, map: &Map, at: &dyn Fn(&str) -> String) {
        for pointer in map.has.keys().filter(|p| !is_pointer(p)) {
            let help = format!("write `/{}`", pointer.replace('.', "/"));
            self.bad(&at("has"), format!("`{pointer}` is no JSON pointer"), help);
        }
        if !map.has.is_empty() && map.format == Format::Cloudevents && !map.skip {
            let help = "set `format = \"json\"`, or leave this out";
            self.bad(&at("has"), "a CloudEvents object is taken as it is", help);
        }
        if map.skip {
            return;
        }
        if map.format == Format::Discovery {
            self.discovery(map, at);
            return;
        }
        if map.value.is_some() && !map.data.is_empty() {
            self.bad(&at("data"), "`value` and `data` both say what the data is", "leave one out");
        }
        for pointer in map.data.values().filter(|p| !is_pointer(p) && !p.contains('{')) {
            let help = format!("write `/{}`, or a topic level `{{2}}`", pointer.replace('.', "/"));
            self.bad(&at("data"), format!("`{pointer}` is no JSON pointer"), help);
        }
        for (key, given) in
            [("data", !map.data.is_empty()), ("inner", map.inner.is_some()), ("words", !map.words.is_empty())]
        {
            if given && map.format == Format::Cloudevents {
                let help = "set `format = \"json\"`, or leave this out";
                self.bad(&at(key), "a CloudEvents object is taken as it is", help);
            }
        }
        if map.format != Format::Cloudevents && map.kind.is_none() {
            self.bad(&at("type"), "a message that is no CloudEvents object needs a type", "add `type = \"…\"`");
        }
        for (key, value) in [("subject", &map.subject), ("time", &map.time), ("value", &map.value), ("id", &map.id)] {
            let Some(value) = value else { continue };
            let template = value.contains('{');
            match (key, map.format) {
                (_, Format::Cloudevents) => {
                    let help = "set `format = \"json\"`, or leave this out";
                    self.bad(&at(key), "a CloudEvents object is taken as it is", help);
                }
                ("subject", _) if template => {}
                (_, Format::Text) => {
                    self.bad(&at(key), "plain text has no members to point at", "leave it out, or `format = \"json\"`");
                }
                _ if !value.starts_with('/') && !value.is_empty() => {
                    let hint = if key == "subject" { ", or a topic level `{2}`" } else { "" };
                    let message = format!("`{value}` is no JSON pointer");
                    self.bad(&at(key), message, format!("write `/{}`{hint}", value.replace('.', "/")));
                }
                _ => {}
            }
        }
        for (key, value, is_good) in
            [("type", &map.kind, event::is_type as fn(&str) -> bool), ("source", &map.source, event::is_source)]
        {
            // What a template fills in is judged when it is: here a letter stands for it.
            let Some(value) = value.as_deref().filter(|v| !is_good(&filled(v))) else { continue };
            let help = match key {
                "type" => "1 to 255 bytes, without `+`, `#`, `/` and blanks, such as `city.air.reading.v1`",
                _ => "1 to 1,024 bytes, without blanks and `\"<>\\^`|`, such as `/air/{2}`",
            };
            self.bad(&at(key), format!("`{value}` can be no event's {key}: every message would be refused"), help);
        }
        let levels = (!map.filter.ends_with('#')).then(|| map.filter.split('/').count());
        for (key, value) in
            [("type", &map.kind), ("subject", &map.subject), ("source", &map.source), ("target", &map.target)]
        {
            let Some(value) = value else { continue };
            for level in value.split('{').skip(1).map(|s| s.split('}').next().unwrap_or_default()) {
                let number = level.strip_suffix("..").unwrap_or(level).parse::<usize>();
                let good = number.is_ok_and(|n| n >= 1 && levels.is_none_or(|max| n <= max));
                if !good && level != "client" {
                    let message = format!("`{{{level}}}` is no level of `{}`", map.filter);
                    self.bad(&at(key), message, "`{1}` is the topic's first level");
                }
            }
        }
    }

    /// What an announced device says has its type, its subject and its data from there.
    fn discovery(&mut self, map: &Map, at: &dyn Fn(&str) -> String) {
        if !map.filter.ends_with("+/+/config") {
            let help = "`homeassistant/+/+/config` and `homeassistant/+/+/+/config`, or `preset = \"discovery\"`";
            self.bad(&at("filter"), format!("`{}` is no place of announcements", map.filter), help);
        }
        for (key, given) in [
            ("type", map.kind.is_some()),
            ("subject", map.subject.is_some()),
            ("time", map.time.is_some()),
            ("value", map.value.is_some()),
            ("data", !map.data.is_empty()),
            ("inner", map.inner.is_some()),
            ("words", !map.words.is_empty()),
            ("id", map.id.is_some()),
            ("source", map.source.is_some()),
            ("priority", map.priority.is_some()),
            ("target", map.target.is_some()),
            ("has", !map.has.is_empty()),
        ] {
            if given {
                let message = "what announced devices say has this from the announcement";
                self.bad(&at(key), message, "leave it out; `reach` is all that an announcement does not say");
            }
        }
    }

    fn reaches(&mut self, config: &Config) {
        if self.broken.contains("reach") {
            return;
        }
        for (i, reach) in config.reach.iter().enumerate() {
            let path = format!("reach.{i}.type");
            let stem = reach.kind.strip_suffix('*').unwrap_or(&reach.kind);
            let is_stem = stem.is_empty() || event::is_type(stem);
            if reach.kind.is_empty() || stem.contains('*') || !is_stem {
                self.bad(&path, "a type, or the beginning of one with `*` at its end", "such as `city.air.*`");
            }
            let before = &config.reach[..i];
            if let Some(j) = before
                .iter()
                .position(|r| r.kind.strip_suffix('*').map_or(r.kind == reach.kind, |p| stem.starts_with(p)))
            {
                let message = format!("never used: `{}` ({}) comes first", before[j].kind, ordinal(j));
                self.bad(&path, message, "the first pattern that matches wins: put the narrower one first");
            }
            self.reach_tier(&format!("reach.{i}.tier"), Some(reach.tier), config);
        }
    }

    fn reach_tier(&mut self, path: &str, reach: Option<Tier>, config: &Config) {
        let own = config.node.address.tier();
        if let Some(reach) = reach
            && reach > own
            && !self.broken.contains("node.address")
        {
            let message = format!("{reach} is below this {own} node: events travel upward");
            self.bad(path, message, format!("write `{own}` to keep them here, or a tier above"));
        }
    }

    fn target(&mut self, path: &str, target: &str, config: &Config) {
        match Selector::parse(target) {
            Err(e) => self.bad(path, e.to_string(), ""),
            Ok(s) if !config.node.address.covers(&s.root) && !self.broken.contains("node.address") => {
                let message = format!("{} is not below this node", s.root);
                self.bad(path, message, format!("a node sends only to `{}` and below", config.node.address));
            }
            Ok(_) => {}
        }
    }

    fn filter(&mut self, path: &str, filter: &str) {
        if let Err(e) = topic::check_filter(filter) {
            self.bad(path, format!("`{filter}` is no topic filter: {e}"), "such as `in/air/+` or `in/#`");
        } else if filter.starts_with("$share/") {
            let help = "leave `$share/NAME/` out: who may use the filter may also share it";
            self.bad(path, format!("no topic matches `{filter}`: it is how a client subscribes"), help);
        }
    }

    /// `tls`: are `ca_file`, `cert_file` and `key_file` there?
    fn url(&mut self, section: &str, url: &str, [ca, cert, key]: [bool; 3]) {
        let at = |key: &str| format!("{section}.{key}");
        let endpoints = match Endpoint::parse_all(url) {
            Ok(endpoints) => endpoints,
            Err(why) => {
                let help = "write `mqtt://HOST:PORT` or `mqtts://HOST:PORT`; the servers of one cluster with commas between them";
                return self.bad(&at("url"), format!("`{url}` {why}"), help);
            }
        };
        if endpoints.iter().any(|e| e.is_tls) && !ca {
            let help = "add `ca_file`, such as /etc/ssl/certs/ca-certificates.crt for a public one";
            self.bad(&at("url"), "TLS needs to know whom to trust", help);
        }
        for (name, given, other) in [("cert_file", cert, key), ("key_file", key, cert)] {
            if given && !other {
                self.bad(&at(name), "a certificate and its key come together", "give `cert_file` and `key_file`");
            }
        }
        for (name, given) in [("ca_file", ca), ("cert_file", cert), ("key_file", key)] {
            if given && !endpoints.iter().any(|e| e.is_tls) {
                self.bad(&at(name), "there is no TLS on this link", "write `mqtts://` in `url`");
            }
        }
    }
}

/// A template with a letter in the place of each `{…}`.
fn filled(template: &str) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((_, after)) = behind.split_once('}') else { break };
        out.push_str(before);
        out.push('x');
        rest = after;
    }
    out + rest
}

fn is_pointer(text: &str) -> bool {
    text.is_empty() || text.starts_with('/')
}

fn ordinal(i: usize) -> impl Display {
    format!("entry {}", i + 1)
}

/// Does the filter match everything that `other` matches? Used only to find entries without use:
/// "no" where it is not plain.
fn covers(filter: &str, other: &str) -> bool {
    filter == other || (!other.contains(['#', '+']) && topic::matches(filter, other)) || {
        let stem = filter.strip_suffix('#');
        stem.is_some_and(|stem| !stem.contains('+') && other.starts_with(stem) && !other.starts_with('$'))
    }
}

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub is_tls: bool,
}

impl Endpoint {
    /// Of `mqtt://HOST[:PORT]`, port 1883 unless given, or `mqtts://HOST[:PORT]`, 8883. IPv6 in
    /// brackets.
    ///
    /// # Errors
    /// Why it is not one, to stand after the URL.
    pub fn parse(url: &str) -> Result<Endpoint, String> {
        match url.split_once("://") {
            Some(("mqtt", rest)) => host_port(rest, 1883).map(|(host, port)| Endpoint { host, port, is_tls: false }),
            Some(("mqtts", rest)) => host_port(rest, 8883).map(|(host, port)| Endpoint { host, port, is_tls: true }),
            Some((scheme, _)) => {
                Err(format!("begins with `{scheme}://`, and only `mqtt://` and `mqtts://` are spoken"))
            }
            None => Err("is no `mqtt://` address".into()),
        }
    }
}

impl Endpoint {
    /// The servers of one broker: one URL, or those of a cluster with commas between them.
    ///
    /// # Errors
    /// Why one of them is none; also when some are `mqtts://` and some are not.
    pub fn parse_all(urls: &str) -> Result<Vec<Endpoint>, String> {
        let all = urls.split(',').map(|url| Endpoint::parse(url.trim())).collect::<Result<Vec<_>, _>>()?;
        match all.iter().any(|e| e.is_tls != all[0].is_tls) {
            true => Err("is partly `mqtt://` and partly `mqtts://`".into()),
            false => Ok(all),
        }
    }
}

fn host_port(rest: &str, default: u16) -> Result<(String, u16), String> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '@', '?', '#']) || rest.contains(char::is_whitespace) {
        return Err("has more than a host and a port (a user goes into `username`)".into());
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let port = port.parse::<u16>().ok().filter(|p| *p != 0);
            (host, port.ok_or("has no port from 1 to 65535")?)
        }
        _ => (rest, default),
    };
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_whole = match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => !host.contains([':', '[', ']']),
    };
    if !is_whole {
        return Err("has an IPv6 address that is none, or not in brackets: `[::1]:1883`".into());
    }
    match bracketed.unwrap_or(host) {
        "" => Err("has no host".into()),
        host => Ok((host.to_owned(), port)),
    }
}

/// Would both want the same port? Port 0 is given out by the system and clashes with nothing.
pub fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.port() != 0 && (hears(a.ip(), b.ip()) || hears(b.ip(), a.ip()))
}

/// Does who listens at `listen` get what comes for `ip`? `0.0.0.0` is all of IPv4, `[::]` also IPv6.
fn hears(listen: IpAddr, ip: IpAddr) -> bool {
    listen == ip || (listen.is_unspecified() && (listen.is_ipv6() || ip.is_ipv4()))
}

/// Is `host:port` surely this listener, seen from the same machine?
pub fn is_at(listen: SocketAddr, host: &str, port: u16) -> bool {
    if listen.port() != port || port == 0 {
        return false;
    }
    let loopback = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    match host.parse::<IpAddr>() {
        Ok(ip) => ip == listen.ip() || (ip.is_loopback() && hears(listen.ip(), ip)),
        Err(_) => host == "localhost" && loopback(listen.ip()),
    }
}

/// A host's name or address, perhaps with a port.
fn is_place(text: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    if let Some((six, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_address = six.parse::<std::net::Ipv6Addr>().is_ok();
        return is_address && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    match text.split_once(':') {
        Some((host, port)) => is_host(host) && is_port(port),
        None => is_host(text),
    }
}

/// A web page's origin, as a browser sends it.
fn is_origin(text: &str) -> bool {
    let bad = |c: char| c == '/' || c == '*' || c.is_ascii_uppercase() || c.is_whitespace() || c.is_control();
    text.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty() && !host.contains(bad))
}

/// A name as in the DNS.
fn is_host(text: &str) -> bool {
    let is_label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::super::{Variables, parse};
    use super::*;

    fn problems(rest: &str) -> Vec<String> {
        let text = format!("[node]\naddress = \"chengdu/liucheng\"\ndata = \"d\"\n{rest}");
        let show = |p: Problem| format!("{}{}", p.message, p.help.map_or(String::new(), |h| format!(" ({h})")));
        parse(&text, &Variables::new()).problems.into_iter().map(show).collect()
    }

    #[test]
    fn a_webhook_s_url_is_one_that_can_be_asked() {
        let of = |url: &str| problems(&format!("[[webhook]]\nname = \"w\"\nurl = \"{url}\"\n"));
        for good in ["https://app.example/hook?a=b", "http://127.0.0.1:8080/x", "http://[::1]:1/", "https://h"] {
            assert!(of(good).is_empty(), "{good}: {:?}", of(good));
        }
        for bad in [
            "https://host:99999/",
            "http://h:x/",
            "https://h:0/",
            "https://应用.example/",
            "http://[::1/",
            "http://h/<x>",
        ] {
            assert!(of(bad).iter().any(|p| p.contains("no place to POST to")), "{bad}: {:?}", of(bad));
        }
    }

    #[test]
    fn a_tier_that_does_not_fit_the_address_is_refused() {
        assert_eq!(
            problems("tier = \"city\""),
            [
                "`city` does not fit the address: chengdu/liucheng of depth 2 is a street (write `tier = \"street\"` or leave it out; or give an address of depth 1)"
            ]
        );
    }

    const NO_IPV6: &str = "has an IPv6 address that is none, or not in brackets: `[::1]:1883`";

    #[test]
    fn urls_say_what_is_wrong_with_them() {
        for (url, want) in [
            ("mqtt://h", Ok(("h", 1883, false))),
            ("mqtt://h:7/", Ok(("h", 7, false))),
            ("mqtt://[::1]:7", Ok(("::1", 7, false))),
            ("mqtt://[::1]", Ok(("::1", 1883, false))),
            ("mqtts://h", Ok(("h", 8883, true))),
            ("mqtts://h:7", Ok(("h", 7, true))),
            ("ws://h:7", Err("begins with `ws://`, and only `mqtt://` and `mqtts://` are spoken")),
            ("h:7", Err("is no `mqtt://` address")),
            ("mqtt://:7", Err("has no host")),
            ("mqtt://::1", Err(NO_IPV6)),
            ("mqtt://[::1", Err(NO_IPV6)),
            ("mqtt://[h]:7", Err(NO_IPV6)),
            ("mqtt://h:0", Err("has no port from 1 to 65535")),
            ("mqtt://u@h", Err("has more than a host and a port (a user goes into `username`)")),
        ] {
            let want = want.map(|(h, port, is_tls)| Endpoint { host: h.to_owned(), port, is_tls });
            assert_eq!(Endpoint::parse(url), want.map_err(str::to_owned), "{url}");
        }
    }

    #[test]
    fn the_servers_of_a_cluster_stand_in_one_url_with_commas() {
        let all = Endpoint::parse_all("mqtt://a:1, mqtt://b").unwrap();
        assert_eq!(all.iter().map(|e| (e.host.as_str(), e.port)).collect::<Vec<_>>(), [("a", 1), ("b", 1883)]);
        assert_eq!(Endpoint::parse_all("mqtt://a,mqtts://b"), Err("is partly `mqtt://` and partly `mqtts://`".into()));
        assert_eq!(Endpoint::parse_all("mqtt://a,"), Err("is no `mqtt://` address".into()));
    }

    #[test]
    fn a_listener_that_cannot_be_is_refused() {
        let found = problems(
            r#"
[[listener]]
listen = "127.0.0.1:1883"
protocol = "mqtts"
cert_file = "c"
client_required = true
[[listener]]
listen = "127.0.0.1:8880"
protocol = "ws"
key_file = "k"
client_crl_file = "r"
origins = ["app.example"]
[[listener]]
listen = "0.0.0.0:8880"
protocol = "mqtt"
origins = ["*"]
"#,
        );
        assert_eq!(
            found,
            [
                "TLS needs `key_file` (add `key_file = \"…\"`, a PEM file)",
                "`127.0.0.1:1883` is `broker.listen` already (give each a port of its own)",
                "no client's certificate could be verified (add `client_ca_file`, the certificates that sign clients')",
                "there is no TLS here (`protocol = \"mqtts\"` or `\"wss\"` has it)",
                "no client shows a certificate here that could be revoked (add `client_ca_file`, the certificates that sign clients' and the list)",
                "`app.example` is no web origin (write `https://HOST` or `https://HOST:PORT`, or `*`)",
                "`0.0.0.0:8880` is another `[[listener]]` already (give each a port of its own)",
                "there is no WebSocket here (`protocol = \"ws\"` or `\"wss\"` has it)",
            ]
        );
    }

    #[test]
    fn tls_on_a_link_has_all_that_it_needs_or_nothing() {
        let with = |more: &str| problems(&format!("[parent]\n{more}"));
        assert_eq!(with("url = \"mqtts://h\"\nca_file = \"ca\"\ncert_file = \"c\"\nkey_file = \"k\""), [""; 0]);
        assert_eq!(
            with("url = \"mqtts://h\"\nkey_file = \"k\""),
            [
                "TLS needs to know whom to trust (add `ca_file`, such as /etc/ssl/certs/ca-certificates.crt for a public one)",
                "a certificate and its key come together (give `cert_file` and `key_file`)",
            ]
        );
        assert_eq!(
            with("url = \"mqtt://h\"\nca_file = \"ca\""),
            ["there is no TLS on this link (write `mqtts://` in `url`)"]
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let found = problems(
            r##"
[broker]
listen = "0.0.0.0:2000"
username = "x"
receive_maximum = 0
[api]
listen = "127.0.0.1:2000"
[parent]
url = "mqtt://127.0.0.1:2000"
[link]
root = "in/x"
[store]
segment_bytes = 1000000
log_bytes_max = 1500000
log_bytes_hard_max = 5
[access]
anonymous = false
publish = ["in/{user}/#", "a#"]
[[map]]
filter = "in/air/#"
format = "json"
[[map]]
filter = "in/air/one"
type = "t.{9}"
format = "text"
value = "/v"
[[map]]
filter = "in/x/+"
format = "json"
type = "t.{4}"
value = "a.b"
reach = "neighbourhood"
target = "chengdu"
[[reach]]
type = "a.*"
tier = "city"
[[reach]]
type = "a.b"
tier = "community"
"##,
        );
        assert_eq!(
            found,
            [
                "only an outside broker needs this (give `url` too, or leave this out)",
                "0 is out of bounds: at least 1",
                "`127.0.0.1:2000` is the broker's already (give the API and the broker different ports)",
                "this is the node's own broker (write the parent's `broker.listen`)",
                "devices and apps use these topics (the default is `citybrain/v1`)",
                "1500000 is out of bounds: at least 2000000 (at least two segments (`segment_bytes`))",
                "5 is out of bounds: at least 1500000 (at least `log_bytes_max`; 0 means that nothing needed is ever dropped)",
                "nobody could connect (give `users_file`, a listener with `client_ca_file`, or `anonymous = true`)",
                "`a#` is no topic filter: `#` must be the last level and stand alone (such as `in/air/+` or `in/#`)",
                "a message that is no CloudEvents object needs a type (add `type = \"…\"`)",
                "never used: `in/air/#` (entry 1) comes first (the first filter that matches wins: put the narrower one first)",
                "`{9}` is no level of `in/air/one` (`{1}` is the topic's first level)",
                "plain text has no members to point at (leave it out, or `format = \"json\"`)",
                "the node itself publishes there; nothing from outside is mapped (map a topic of devices, such as `in/#`)",
                "`{4}` is no level of `in/x/+` (`{1}` is the topic's first level)",
                "`a.b` is no JSON pointer (write `/a/b`)",
                "neighbourhood is below this street node: events travel upward (write `street` to keep them here, or a tier above)",
                "chengdu is not below this node (a node sends only to `chengdu/liucheng` and below)",
                "never used: `a.*` (entry 1) comes first (the first pattern that matches wins: put the narrower one first)",
                "community is below this street node: events travel upward (write `street` to keep them here, or a tier above)",
            ]
        );
    }

    #[test]
    fn what_comes_in_fits_into_one_record_of_the_log() {
        let max = limits::RECORD_BYTES_MAX;
        let with = |bytes: usize| {
            problems(&format!("[broker]\npacket_bytes_max = {bytes}\n[link]\nmessage_bytes_max = {bytes}\n"))
        };
        assert_eq!(with(max - 1024 * 1024), Vec::<String>::new());
        for bytes in [max - 1024 * 1024 + 1, 200 * 1024 * 1024] {
            let found = with(bytes);
            assert!(found.len() == 2 && found.iter().all(|f| f.contains("at most 15728640")), "{found:?}");
        }
    }

    #[test]
    fn what_would_be_refused_message_by_message_or_never_fit_is_refused_at_once() {
        let first = |rest: &str| problems(rest).first().cloned().unwrap_or_default();
        let map = |key: &str, value: &str| {
            let kind = if key == "type" { "" } else { "type = \"t\"\n" };
            first(&format!("[[map]]\nfilter = \"a/+\"\nformat = \"json\"\n{kind}{key} = \"{value}\"\n"))
        };
        let long = "a".repeat(256);
        for bad in ["a b", "a/b", "", "a#.{1}", &long] {
            assert!(map("type", bad).contains("can be no event's type"), "{bad}: {}", map("type", bad));
        }
        assert!(map("source", "has space").contains("can be no event's source"));
        for (key, good) in [("type", "a.{2}"), ("source", "/a/{1}/{2}"), ("source", "urn:x")] {
            assert_eq!(map(key, good), "", "{key} {good}");
        }
        for (config, said) in [
            ("[broker]\nclient_subscriptions_max = 0\n", "0 is out of bounds: at least 1"),
            ("[broker]\npacket_bytes_max = 262144\n", "262144 is out of bounds: at least 327680"),
            ("[access]\npublish = [\"$share/g/in/#\"]\n", "no topic matches `$share/g/in/#`"),
            ("[[map]]\nfilter = \"$share/x/in/#\"\nskip = true\n", "no topic matches `$share/x/in/#`"),
            ("[homeassistant]\nprefix = \"in\"\n", "the node's own topics"),
            ("[homeassistant]\nprefix = \"events/x\"\n", "the node's own topics"),
            ("[[reach]]\ntype = \"a b\"\ntier = \"city\"\n", "a type, or the beginning of one"),
            ("[node.labels]\nkind = \"a,b\"\n", "no selector can name the value `a,b`"),
            ("[node.labels]\npopulation = \"many\"\n", "`many` is no number of people"),
            ("[node.labels]\nkind = \" a\"\n", "no selector can name the value ` a`"),
        ] {
            assert!(first(config).contains(said), "{config}: {}", first(config));
        }
        let code = format!("code = \"{}\"\n", "1".repeat(5_000));
        assert!(first(&code).contains("name, code and labels have 50"), "{}", first(&code));
        let quotes = format!("name = '{}'\n", "\"".repeat(2_000));
        assert!(first(&quotes).contains("at most 2048 fit"), "{}", first(&quotes));
        assert_eq!(first("[[reach]]\ntype = \"a.*\"\ntier = \"city\"\n"), "");
    }

    #[test]
    fn a_city_has_no_parent() {
        let text = "[node]\naddress = \"c\"\ndata = \"d\"\n[parent]\nurl = \"mqtt://h:1\"\n";
        let found = parse(text, &Variables::new()).problems;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message, "c is a city: it has no parent");
        assert_eq!(found[0].line_column(text), Some((4, 2)));
    }

    #[test]
    fn ports_clash_only_on_a_common_address() {
        let at = |s: &str| s.parse::<SocketAddr>().unwrap();
        assert!(clash(at("0.0.0.0:5"), at("127.0.0.1:5")));
        assert!(!clash(at("127.0.0.2:5"), at("127.0.0.1:5")));
        assert!(!clash(at("127.0.0.1:0"), at("127.0.0.1:0")));
        assert!(!clash(at("0.0.0.0:5"), at("[::1]:5")));
        assert!(clash(at("[::]:5"), at("127.0.0.1:5")) && clash(at("[::]:5"), at("0.0.0.0:5")));
    }

    #[test]
    fn pages_of_other_origins_are_named_as_browsers_do_and_need_tokens() {
        let found =
            problems("[api]\norigins = [\"https://desk.example\", \"desk.example\", \"https://Desk/\", \"*\"]\n");
        assert_eq!(found.len(), 4, "{found:?}");
        for said in ["`desk.example` is no web origin", "`https://Desk/` is no", "`*` is no", "without tokens no page"]
        {
            assert!(found.iter().any(|f| f.starts_with(said)), "{said}: {found:?}");
        }
        assert!(problems("[api]\ntokens_file = \"t\"\norigins = [\"http://[::1]:3000\"]\n").is_empty());
    }
}
