//! Who comes in, where and by what: `[broker]`, `[[listener]]`, `[parent]`, `[api]`, `[access]` and `[[role]]`.

use super::Judge;
use crate::Tier;
use crate::config::endpoint::{Endpoint, clash, is_at, is_origin};
use crate::config::{Config, Problem, Role, TOKEN_ROLES};

impl Judge<'_> {
    pub(super) fn broker(&mut self, config: &Config) {
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

    pub(super) fn listeners(&mut self, config: &Config) {
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

    pub(super) fn api(&mut self, config: &Config) {
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

    pub(super) fn parent(&mut self, config: &Config) {
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

    pub(super) fn access(&mut self, config: &Config) {
        let access = &config.access;
        let certified = config.listener.iter().any(|l| l.client_ca_file.is_some());
        if !access.anonymous && access.users_file.is_none() && config.broker.url.is_none() && !certified {
            let doors = config.listener.iter().enumerate().map(|(i, l)| (format!("listener.{i}.listen"), l.listen));
            let mut doors = std::iter::once(("broker.listen".to_owned(), config.broker.listen)).chain(doors);
            match doors.find(|(_, listen)| !listen.ip().is_loopback()) {
                Some((path, listen)) if !self.places.contains("access.anonymous") => {
                    let help = "in `[access]` write `anonymous = false` and a `users_file` (`citybrain user add` \
                                makes one); or `anonymous = true`, if whoever reaches it may publish and read everything";
                    self.bad(
                        &path,
                        format!("{listen} is not on loopback, and no `[access]` says who may come in"),
                        help,
                    );
                }
                _ => {
                    let help = "give `users_file`, a listener with `client_ca_file`, or `anonymous = true`";
                    self.bad("access.anonymous", "nobody could connect", help);
                }
            }
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
