//! A node's address is its path in the tree; its depth is its tier.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The four layers, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// 城市大脑
    City = 1,
    /// 街道中脑
    Street = 2,
    /// 社区小脑
    Community = 3,
    /// 小区微脑
    Neighbourhood = 4,
}

impl Tier {
    pub const ALL: [Tier; 4] = [Tier::City, Tier::Street, Tier::Community, Tier::Neighbourhood];

    /// 1 (city) to 4 (neighbourhood).
    pub fn from_depth(depth: usize) -> Option<Tier> {
        depth.checked_sub(1).and_then(|i| Tier::ALL.get(i).copied())
    }

    pub fn depth(self) -> usize {
        self as usize
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Tier::City => "city",
            Tier::Street => "street",
            Tier::Community => "community",
            Tier::Neighbourhood => "neighbourhood",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Tier {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        Tier::ALL.into_iter().find(|t| t.as_str() == s).ok_or_else(|| Error::Tier(s.to_owned()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "`{0}` is not an address: it needs 1 to 4 segments separated by `/`, each of a-z, 0-9 and `-`, at most 63 long, not starting with `-`"
    )]
    Address(String),
    #[error("`{0}` is not a tier: use city, street, community or neighbourhood")]
    Tier(String),
}

/// 1 to 4 segments, such as `chengdu/liucheng/guanghua/shili`; each matches
/// `[a-z0-9][a-z0-9-]{0,62}`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<str>);

impl Address {
    /// # Errors
    /// [`Error::Address`] when the text is not an address.
    pub fn parse(text: &str) -> Result<Address, Error> {
        if is_valid(text) { Ok(Address(text.into())) } else { Err(Error::Address(text.to_owned())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// 1 to 4.
    pub fn depth(&self) -> usize {
        self.0.bytes().filter(|b| *b == b'/').count() + 1
    }

    pub fn tier(&self) -> Tier {
        Tier::from_depth(self.depth()).expect("a parsed address has 1 to 4 segments")
    }

    /// The last segment.
    pub fn leaf(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    pub fn parent(&self) -> Option<Address> {
        self.0.rsplit_once('/').map(|(up, _)| Address(up.into()))
    }

    /// True for the address itself and for everything below it.
    pub fn covers(&self, other: &Address) -> bool {
        covers(&self.0, &other.0)
    }

    pub fn is_child_of(&self, parent: &Address) -> bool {
        self.0.rsplit_once('/').is_some_and(|(up, _)| up == parent.as_str())
    }

    /// The direct child of `self` on the way to `below`.
    pub fn child_towards(&self, below: &Address) -> Option<Address> {
        if self == below || !self.covers(below) {
            return None;
        }
        let rest = &below.0[self.0.len() + 1..];
        let len = rest.find('/').unwrap_or(rest.len());
        Some(Address(below.0[..self.0.len() + 1 + len].into()))
    }
}

fn covers(above: &str, below: &str) -> bool {
    below.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_valid(text: &str) -> bool {
    let segment = |s: &str| {
        (1..=63).contains(&s.len())
            && !s.starts_with('-')
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.split('/').count() <= 4 && text.split('/').all(segment)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

impl std::str::FromStr for Address {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        Address::parse(s)
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Address::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a(s: &str) -> Address {
        Address::parse(s).unwrap()
    }

    #[test]
    fn an_address_has_one_to_four_clean_segments() {
        for good in ["c", "chengdu", "chengdu/liucheng/guanghua/shili-guanghua", "0/1/2/3"] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", "/", "a/", "/a", "a//b", "A", "a_b", "-a", "a/b/c/d/e", "城", "a b", "a\0", &long] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn kinship_follows_segments_and_not_letters() {
        let city = a("chengdu");
        assert!(city.covers(&a("chengdu/liucheng")));
        assert!(city.covers(&city));
        assert!(!city.covers(&a("chengdu2/liucheng")));
        assert!(a("chengdu/liucheng").is_child_of(&city));
        assert!(!a("chengdu/liucheng/x").is_child_of(&city));
        assert_eq!(city.child_towards(&a("chengdu/liucheng/x")), Some(a("chengdu/liucheng")));
        assert_eq!(city.child_towards(&city), None);
        assert_eq!(a("c/s/m").tier(), Tier::Community);
        assert_eq!(a("c/s/m").parent(), Some(a("c/s")));
        assert_eq!(a("c").parent(), None);
    }
}
