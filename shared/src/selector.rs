//! Whom a downward message is for.
//!
//! `ADDRESS` names one node; `ADDRESS/**` that node and all below it; either may be narrowed by
//! `@tier` and by labels: `chengdu/**@street[district=温江区]`.

use crate::address::{Address, Tier};
use std::collections::BTreeMap;
use std::fmt;

pub type Labels = BTreeMap<String, String>;

/// The label that says how many people live at a node and below it.
pub const POPULATION: &str = "population";
/// The label that says which district (区) a node, and all below it, is of.
pub const DISTRICT: &str = "district";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a selector: {reason}; write ADDRESS or ADDRESS/**, then optionally @tier and [label=value,…]")]
pub struct Error {
    pub text: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    pub root: Address,
    /// True with `/**`: the root and everything below it.
    pub deep: bool,
    pub tier: Option<Tier>,
    pub labels: Vec<(String, String)>,
}

impl Selector {
    /// # Errors
    /// When the text is not a selector; the reason says which part.
    pub fn parse(text: &str) -> Result<Selector, Error> {
        let fail = |reason: String| Error { text: text.to_owned(), reason };
        let (rest, labels) = match text.split_once('[') {
            None => (text, Vec::new()),
            Some((rest, tail)) => {
                let inner = tail.strip_suffix(']').ok_or_else(|| fail("`[` without `]` at the end".into()))?;
                let mut labels = Vec::new();
                for pair in inner.split(',') {
                    match pair.split_once('=') {
                        Some((k, v)) if !k.trim().is_empty() && !v.trim().is_empty() => {
                            labels.push((k.trim().to_owned(), v.trim().to_owned()));
                        }
                        _ => return Err(fail(format!("`{pair}` is not label=value"))),
                    }
                }
                (rest, labels)
            }
        };
        let (path, tier) = match rest.split_once('@') {
            None => (rest, None),
            Some((path, tier)) => (path, Some(tier.parse::<Tier>().map_err(|e| fail(e.to_string()))?)),
        };
        let (path, deep) = match path.strip_suffix("/**") {
            Some(p) => (p, true),
            None => (path, false),
        };
        let root = Address::parse(path).map_err(|_| fail(format!("`{path}` is not an address")))?;
        if let Some(tier) = tier.filter(|t| t.depth() < root.depth() || (!deep && *t != root.tier())) {
            let below = if !deep && tier > root.tier() { "; `ADDRESS/**@tier` means those below" } else { "" };
            return Err(fail(format!("nobody is meant: `{root}` is a {}, no {tier}{below}", root.tier())));
        }
        Ok(Selector { root, deep, tier, labels })
    }

    /// Is the node with this address and these labels meant?
    pub fn matches(&self, node: &Address, labels: &Labels) -> bool {
        (if self.deep { self.root.covers(node) } else { self.root == *node })
            && self.tier.is_none_or(|t| node.tier() == t)
            && self.labels.iter().all(|(k, v)| labels.get(k) == Some(v))
    }

    /// May anything at or below `child` be meant? Labels are not asked: they are known only below,
    /// so a message may reach a subtree in which nobody turns out to be meant, never the reverse.
    pub fn may_reach(&self, child: &Address) -> bool {
        let path =
            if self.deep { self.root.covers(child) || child.covers(&self.root) } else { child.covers(&self.root) };
        path && self.tier.is_none_or(|t| t.depth() >= child.depth())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root)?;
        if self.deep {
            f.write_str("/**")?;
        }
        if let Some(t) = self.tier {
            write!(f, "@{t}")?;
        }
        if !self.labels.is_empty() {
            let pairs: Vec<String> = self.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            write!(f, "[{}]", pairs.join(","))?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Selector {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        Selector::parse(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn a(s: &str) -> Address {
        Address::parse(s).unwrap()
    }

    #[test]
    fn selectors_print_as_they_were_written() {
        for s in [
            "chengdu",
            "chengdu/**",
            "chengdu/**@neighbourhood",
            "chengdu/**@street[district=温江区]",
            "c/s/m[a=1,b=2]",
        ] {
            assert_eq!(Selector::parse(s).unwrap().to_string(), s);
        }
        for bad in [
            "",
            "**",
            "chengdu/*",
            "chengdu@moon",
            "chengdu[",
            "chengdu[x]",
            "chengdu[=1]",
            "c/**/d",
            "c@street",
            "c/s/**@city",
        ] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_narrows_and_a_tier_narrows() {
        let s = Selector::parse("c/**@street[district=温江区]").unwrap();
        let labels = Labels::from([("district".into(), "温江区".into())]);
        assert!(s.matches(&a("c/s"), &labels));
        assert!(!s.matches(&a("c/s"), &Labels::new()));
        assert!(!s.matches(&a("c/s/m"), &labels));
        assert!(!s.may_reach(&a("c/s/m")));
    }

    proptest! {
        /// A message is never kept from a subtree in which somebody is meant.
        #[test]
        fn whoever_is_meant_is_reached_through_every_ancestor(
            root in "[ab](/[ab]){0,3}", node in "[ab](/[ab]){0,3}", deep: bool, tier in 0usize..5,
        ) {
            let s = Selector { root: a(&root), deep, tier: Tier::from_depth(tier), labels: vec![] };
            let node = a(&node);
            if s.matches(&node, &Labels::new()) {
                let mut at = Some(node);
                while let Some(n) = at {
                    prop_assert!(s.may_reach(&n), "{s} stops above {n}");
                    at = n.parent();
                }
            }
        }
    }
}
