//! How many connections an address and a user have.

use citybrain_shared::config;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

#[derive(Debug, Default)]
pub struct Crowd {
    counts: Mutex<HashMap<Who, usize>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    /// Sockets that have not said who they are.
    Stranger(IpAddr),
    Address(IpAddr),
    User(Box<str>),
}

/// One connection's place among those of its address and its user; given back when dropped.
#[derive(Debug)]
pub struct Place<'a> {
    crowd: &'a Crowd,
    held: Vec<Who>,
}

impl Crowd {
    /// Takes a place. Only what has a limit is counted; whoever is anonymous has no user's limit.
    ///
    /// # Errors
    /// The key of the limit that is reached.
    pub fn enter(&self, ip: IpAddr, user: &str, limits: &config::Broker) -> Result<Place<'_>, &'static str> {
        let by_address = (Who::Address(network(ip)), limits.address_connections_max, "address_connections_max");
        let by_user = (Who::User(user.into()), limits.user_connections_max, "user_connections_max");
        self.take([Some(by_address), (!user.is_empty()).then_some(by_user)].into_iter().flatten())
    }

    /// Takes a place before anything is known but the address; apart from those of [`Crowd::enter`], so
    /// that whoever takes its own session over is not in its own way.
    ///
    /// # Errors
    /// As [`Crowd::enter`].
    pub fn wait(&self, ip: IpAddr, limits: &config::Broker) -> Result<Place<'_>, &'static str> {
        let limit = (Who::Stranger(network(ip)), limits.address_connections_max, "address_connections_max");
        self.take([limit].into_iter())
    }

    fn take(&self, limits: impl Iterator<Item = (Who, usize, &'static str)>) -> Result<Place<'_>, &'static str> {
        let mut place = Place { crowd: self, held: Vec::new() };
        for (who, max, key) in limits {
            if max == 0 {
                continue;
            }
            let mut counts = self.counts.lock();
            let count = counts.entry(who.clone()).or_default();
            if *count >= max {
                return Err(key);
            }
            *count += 1;
            place.held.push(who);
        }
        Ok(place)
    }
}

/// IPv6 hosts choose their last 64 bits as they like, so those are no address of their own.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts.lock();
        for who in &self.held {
            if let Some(count) = counts.get_mut(who) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(who);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_address_and_by_user_and_given_back() {
        let crowd = Crowd::default();
        let limits = config::Broker { address_connections_max: 2, user_connections_max: 1, ..Default::default() };
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let ann = crowd.enter(ip("10.0.0.1"), "ann", &limits).unwrap();
        assert_eq!(crowd.enter(ip("10.0.0.2"), "ann", &limits).unwrap_err(), "user_connections_max");
        let nobody = crowd.enter(ip("::ffff:10.0.0.1"), "", &limits).unwrap();
        assert_eq!(crowd.enter(ip("10.0.0.1"), "", &limits).unwrap_err(), "address_connections_max");
        let strangers = [ip("10.0.0.1"), ip("10.0.0.1")].map(|ip| crowd.wait(ip, &limits).unwrap());
        assert_eq!(crowd.wait(ip("10.0.0.1"), &limits).unwrap_err(), "address_connections_max");
        drop((ann, nobody, strangers));
        assert!(crowd.counts.lock().is_empty(), "a refusal holds nothing either");
        let _one = crowd.enter(ip("2001:db8::1"), "", &limits).unwrap();
        let _two = crowd.enter(ip("2001:db8::2"), "", &limits).unwrap();
        assert!(crowd.enter(ip("2001:db8::3"), "", &limits).is_err(), "one network");
        assert!(crowd.enter(ip("2001:db8:0:1::1"), "", &limits).is_ok(), "another");
    }
}
