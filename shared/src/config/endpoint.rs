//! What addresses mean: a broker's URL, the ports that listeners want, hosts and origins.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

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
pub(super) fn is_place(text: &str) -> bool {
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
pub(super) fn is_origin(text: &str) -> bool {
    let bad = |c: char| c == '/' || c == '*' || c.is_ascii_uppercase() || c.is_whitespace() || c.is_control();
    text.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty() && !host.contains(bad))
}

/// A name as in the DNS.
pub(super) fn is_host(text: &str) -> bool {
    let is_label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn ports_clash_only_on_a_common_address() {
        let at = |s: &str| s.parse::<SocketAddr>().unwrap();
        assert!(clash(at("0.0.0.0:5"), at("127.0.0.1:5")));
        assert!(!clash(at("127.0.0.2:5"), at("127.0.0.1:5")));
        assert!(!clash(at("127.0.0.1:0"), at("127.0.0.1:0")));
        assert!(!clash(at("0.0.0.0:5"), at("[::1]:5")));
        assert!(clash(at("[::]:5"), at("127.0.0.1:5")) && clash(at("[::]:5"), at("0.0.0.0:5")));
    }
}
