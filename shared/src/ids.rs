//! Small identities: positions, lanes, incarnations, boots and logs.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A record's place in one node's log, counted from 1 without gaps. 0 means "before the first".
///
/// Both lanes share the one sequence; a lane's cursor simply skips the other lane's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Pos(pub u64);

impl Pos {
    pub const ZERO: Pos = Pos(0);

    /// The next position. A log of 2^64 records cannot exist; a question for what is behind its end can,
    /// and finds nothing.
    pub fn next(self) -> Pos {
        Pos(self.0.saturating_add(1))
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Urgent goes first on every hop; within a lane order is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    Urgent = 0,
    Routine = 1,
}

impl Lane {
    /// In the order in which they are served.
    pub const ALL: [Lane; 2] = [Lane::Urgent, Lane::Routine];

    pub fn from_u8(n: u8) -> Option<Lane> {
        match n {
            0 => Some(Lane::Urgent),
            1 => Some(Lane::Routine),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Lane::Urgent => "urgent",
            Lane::Routine => "routine",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:08x}…)"), self.0 >> 96)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                u128::from_str_radix(s, 16).map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id128! {
    /// An incarnation: random, minted together with a data folder, gone with it.
    Inc
}
id128! {
    /// One continuous history of a node's log. A new one is minted whenever continuity cannot
    /// be proven (a folder restored from a backup), so that a sequence number that a peer has
    /// seen is never given to another record under the same name.
    LogId
}

/// One start of a node: durable before the first frame leaves. The counter orders the starts of
/// one data folder; the nonce tells apart two starts that claim the same number (a cloned disk).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Boot {
    pub counter: u64,
    pub nonce: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_json() {
        let id = LogId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, "\"0123456789abcdef0011223344556677\"");
        assert_eq!(serde_json::from_str::<LogId>(&text).unwrap(), id);
    }
}
