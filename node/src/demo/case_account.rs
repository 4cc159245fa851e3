//! The account of the cases: is each the same at every node above its owner? Pure.

use super::tree::Tree;
use citybrain_shared::Tier;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A case as one node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub owner: String,
    /// What orders the accounts of one case.
    pub term: u64,
    pub version: u64,
    pub is_open: bool,
    pub is_incident: bool,
}

/// What a node has, by id.
pub type Copies = BTreeMap<String, Copy>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CaseAccount {
    pub cases: u64,
    pub incidents: u64,
    pub open: u64,
    /// Cases that some node above their owner does not have, and those that no node has any more.
    pub missing: u64,
    /// Cases that some node above their owner has otherwise than the owner.
    pub different: u64,
    /// Cases that no node, or more than one, calls its own.
    pub owners_wrong: u64,
    /// How many of them some node of a tier has, by the tier's name.
    pub at_tier: BTreeMap<&'static str, u64>,
}

impl CaseAccount {
    pub fn is_good(&self) -> bool {
        [self.missing, self.different, self.owners_wrong] == [0; 3]
    }

    pub fn wrong_in_words(&self) -> String {
        let CaseAccount { missing, different, owners_wrong, .. } = self;
        format!(
            "{missing} missing at a node, {different} otherwise than at their owner, {owners_wrong} without one owner"
        )
    }
}

/// What must be there, by the nodes' own word when it was told to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Ids of cases.
    pub opened: BTreeSet<String>,
    /// How many there must be beside these.
    pub brought: u64,
}

/// `held[i]` is what the tree's place `i` has.
pub fn account(tree: &Tree, held: &[Copies], expected: &Expected) -> CaseAccount {
    let mut out = CaseAccount::default();
    let mut owners: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, copies) in held.iter().enumerate() {
        for (id, copy) in copies {
            let own = owners.entry(id).or_default();
            if copy.owner == tree.places[place].address.as_str() {
                own.push(place);
            }
        }
    }
    for tier in Tier::ALL {
        let known: BTreeSet<&String> = tree.of_tier(tier).flat_map(|place| held[place].keys()).collect();
        out.at_tier.insert(tier.as_str(), known.len() as u64);
    }
    let found = expected.opened.iter().filter(|id| owners.contains_key(id.as_str())).count();
    let gone = expected.opened.len() - found;
    out.missing = gone as u64 + expected.brought.saturating_sub((owners.len() - found) as u64);
    for (id, own) in owners {
        out.cases += 1;
        let [owner] = own.as_slice() else {
            out.owners_wrong += 1;
            continue;
        };
        let copy = &held[*owner][id];
        out.incidents += u64::from(copy.is_incident);
        out.open += u64::from(copy.is_open);
        let above: Vec<Option<&Copy>> = tree.upward(*owner).map(|up| held[up].get(id)).collect();
        out.missing += u64::from(above.iter().any(Option::is_none));
        out.different += u64::from(above.iter().flatten().any(|c| *c != copy));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::chengdu;

    fn whole() -> (Tree, Vec<Copies>) {
        let tree = chengdu::tree(15);
        let mut held = vec![Copies::new(); tree.places.len()];
        for leaf in tree.of_tier(Tier::Neighbourhood) {
            let owner = tree.places[leaf].address.to_string();
            for up in tree.upward(leaf) {
                let copy = Copy { owner: owner.clone(), term: 1, version: 3, is_open: true, is_incident: true };
                held[up].insert(format!("case of {owner}"), copy);
            }
        }
        (tree, held)
    }

    #[test]
    fn a_whole_tree_has_a_good_account() {
        let (tree, held) = whole();
        let a = account(&tree, &held, &Expected::default());
        assert!(a.is_good(), "{a:?}");
        assert_eq!((a.cases, a.open, a.incidents), (8, 8, 8));
        assert!(Tier::ALL.iter().all(|tier| a.at_tier[tier.as_str()] == 8), "{a:?}");
    }

    #[test]
    fn a_copy_that_is_lacking_or_older_above_or_owned_twice_is_found() {
        let (tree, mut held) = whole();
        let id = held[0].keys().next().unwrap().clone();
        held[0].remove(&id);
        assert_eq!(account(&tree, &held, &Expected::default()).missing, 1);
        let (_, mut held) = whole();
        held[0].get_mut(&id).unwrap().version = 2;
        assert_eq!(account(&tree, &held, &Expected::default()).different, 1);
        let (_, mut held) = whole();
        held[0].get_mut(&id).unwrap().owner = tree.places[0].address.to_string();
        assert_eq!(account(&tree, &held, &Expected::default()).owners_wrong, 1);
    }
    #[test]
    fn a_case_that_no_node_has_any_more_is_missing() {
        let (tree, held) = whole();
        let known = || held[0].keys().cloned();
        let missing = |opened: BTreeSet<String>, brought| account(&tree, &held, &Expected { opened, brought }).missing;
        assert_eq!(missing(known().take(3).collect(), 5), 0);
        assert_eq!(missing(known().take(3).chain(["gone".into()]).collect(), 5), 1);
        assert_eq!(missing(known().take(3).collect(), 7), 2);
    }
}
