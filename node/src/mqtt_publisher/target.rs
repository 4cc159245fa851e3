//! Where to publish, as a URL says it.

use super::Error;
use citybrain_hub::door::packet::client::TEXT_BYTES_MAX;
use std::fmt;

/// Where to publish, from a URL such as `mqtt://127.0.0.1:1883`.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub is_tls: bool,
    pub host: String,
    pub port: u16,
    pub username: Option<String>,
    pub(super) password: Option<String>,
}

impl Target {
    pub fn local(port: u16) -> Target {
        Target { is_tls: false, host: "127.0.0.1".into(), port, username: None, password: None }
    }

    /// # Errors
    /// [`Error::Target`] when the text is no `mqtt://` or `mqtts://` URL.
    pub fn parse(url: &str) -> Result<Target, Error> {
        // The URL may hold a password: an error shows only what follows it.
        let shown = url.rsplit_once('@').map_or(url, |(_, place)| place);
        let fail = |reason| Error::Target { url: shown.to_owned(), reason };
        let (is_tls, rest) = match (url.strip_prefix("mqtt://"), url.strip_prefix("mqtts://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(fail("it begins neither with mqtt:// nor with mqtts://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| fail("its port is not a number up to 65535"))?)
            }
            _ => (place, if is_tls { 8883 } else { 1883 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains('/') {
            return Err(fail("it names no host"));
        }
        if user.is_some_and(|user| user.len() > TEXT_BYTES_MAX) {
            return Err(fail("its user and password are longer than MQTT carries"));
        }
        let (username, password) = match user.map(|u| u.split_once(':').unwrap_or((u, ""))) {
            Some((user, "")) => (Some(user.to_owned()), None),
            Some((user, password)) => (Some(user.to_owned()), Some(password.to_owned())),
            None => (None, None),
        };
        Ok(Target { is_tls, host: host.to_owned(), port, username, password })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mqtt{}://{}:{}", if self.is_tls { "s" } else { "" }, self.host, self.port)
    }
}

/// Without the password.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_user() {
        let t = Target::parse("mqtt://ann:se@cret@broker.example:1884").unwrap();
        assert_eq!((t.host.as_str(), t.port, t.username.as_deref()), ("broker.example", 1884, Some("ann")));
        assert_eq!(t.password.as_deref(), Some("se@cret"));
        assert_eq!(Target::parse("mqtt://[::1]:99").unwrap().host, "::1");
        assert_eq!(Target::parse("mqtt://[::1]").unwrap().port, 1883);
        assert_eq!(Target::parse("mqtt://h").unwrap().to_string(), "mqtt://h:1883");
        assert_eq!(Target::parse("mqtts://h").unwrap().to_string(), "mqtts://h:8883");
        let long = format!("mqtt://{}@h", "温".repeat(22_000));
        assert!(Target::parse(&long).is_err(), "66,000 bytes");
        for bad in ["http://h", "mqtt://", "mqtt://h:x", "mqtt://u:secret@h:99999"] {
            let error = Target::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
