//! The tree of nodes: from a table of places, or from where a file's rows belong.

use crate::replay::mapping::Area;
use citybrain_shared::{Address, Tier};
use std::collections::BTreeMap;

/// Fewer would be no tree: a city, two streets, two communities in each, two neighbourhoods in each.
pub const NODES_MIN: usize = 15;
/// Each is a process of its own.
pub const NODES_MAX: usize = 64;
/// A street with its two communities and their two neighbourhoods each.
pub const NODES_PER_STREET: usize = 7;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub address: Address,
    pub name: String,
    /// Statistical code, or empty.
    pub code: String,
    /// In [`Tree::places`].
    pub parent: Option<usize>,
    /// Events that enter at or below it.
    pub events: u64,
    /// How many areas of the file it stands for; 0 in a tree that is not from a file.
    pub areas: usize,
    /// Of its events, those whose row does not say where at this level they belong.
    pub holes: u64,
}

/// Parents stand before their children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    pub places: Vec<Place>,
}

impl Tree {
    pub fn new(city: &str, name: &str, code: &str) -> Tree {
        let address = Address::parse(city).expect("the caller's city is a segment");
        let city = Place { address, name: name.into(), code: code.into(), parent: None, events: 0, areas: 0, holes: 0 };
        Tree { places: vec![city] }
    }

    /// Adds a child of the place at `parent` and says where it stands. `segment` must be an address segment.
    pub fn add(&mut self, parent: usize, segment: &str, name: &str, code: &str) -> usize {
        let address = Address::parse(&format!("{}/{segment}", self.places[parent].address))
            .expect("a segment below a place that is no neighbourhood");
        let (name, code) = (name.to_owned(), code.to_owned());
        self.places.push(Place { address, name, code, parent: Some(parent), events: 0, areas: 0, holes: 0 });
        self.places.len() - 1
    }

    /// The place itself and those above it, up to the city.
    pub fn upward(&self, place: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(place), |at| self.places[*at].parent)
    }

    pub fn of_tier(&self, tier: Tier) -> impl Iterator<Item = usize> + '_ {
        (0..self.places.len()).filter(move |i| self.places[*i].address.tier() == tier)
    }

    pub fn find(&self, address: &str) -> Option<usize> {
        self.places.iter().position(|p| p.address.as_str() == address)
    }

    /// Counts an event that enters at `place`, there and above.
    pub fn count(&mut self, place: usize) {
        let path: Vec<usize> = self.upward(place).collect();
        for at in path {
            self.places[at].events += 1;
        }
    }
}

/// The words of one level: what such an area is called, and the segment of the node for the rest.
#[derive(Clone, Debug)]
pub struct Words {
    pub word: String,
    pub rest: String,
}

/// Street, community, neighbourhood of a row; `None` is a hole.
pub type Path = [Option<Area>; 3];

/// Builds a tree of at most `nodes_max` nodes in which each of `rows` has a place, and says which.
///
/// At each level the areas with the most rows get nodes of their own; all others, and the rows that
/// do not say where they belong, go to one node for the rest.
pub fn from_rows(city: &Area, words: &[Words; 3], rows: &[Path], nodes_max: usize) -> (Tree, Vec<usize>) {
    let streets = (nodes_max.saturating_sub(1) / NODES_PER_STREET).max(1);
    let mut tree = Tree::new(&city.segment, &city.name, "");
    let mut leaves = vec![0; rows.len()];
    let all: Vec<usize> = (0..rows.len()).collect();
    place(&mut tree, 0, 0, &all, &[streets, 2, 2], words, rows, &mut leaves);
    for leaf in &leaves {
        tree.count(*leaf);
    }
    (tree, leaves)
}

#[expect(clippy::too_many_arguments, reason = "a recursion over three levels; all but the first four stay the same")]
fn place(
    tree: &mut Tree,
    parent: usize,
    level: usize,
    members: &[usize],
    wide: &[usize; 3],
    words: &[Words; 3],
    rows: &[Path],
    leaves: &mut [usize],
) {
    if level == 3 {
        for row in members {
            leaves[*row] = parent;
        }
        return;
    }
    let mut groups: BTreeMap<&str, (&Area, Vec<usize>)> = BTreeMap::new();
    let mut rest: Vec<usize> = Vec::new();
    for &row in members {
        match &rows[row][level] {
            Some(area) => groups.entry(&area.segment).or_insert_with(|| (area, Vec::new())).1.push(row),
            None => rest.push(row),
        }
    }
    let holes = rest.len() as u64;
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|(area, rows)| (std::cmp::Reverse(rows.len()), &area.segment));
    let own = match groups.len() + usize::from(holes > 0) {
        n if n <= wide[level] => groups.len(),
        _ => wide[level] - 1,
    };
    let folded = groups.split_off(own);
    for (area, members) in &groups {
        let at = tree.add(parent, &area.segment, &area.name, "");
        tree.places[at].areas = 1;
        place(tree, at, level + 1, members, wide, words, rows, leaves);
    }
    if folded.is_empty() && rest.is_empty() {
        return;
    }
    let Words { word, rest: segment } = &words[level];
    let mut segment = segment.clone();
    // An area that happens to be called like the node for the rest keeps its name.
    while groups.iter().any(|(area, _)| area.segment == segment) {
        segment.truncate(61);
        segment.push_str("-2");
    }
    let name = match (folded.as_slice(), holes) {
        ([], _) => format!("no {word} given"),
        ([(one, _)], 0) => one.name.clone(),
        (many, 0) => format!("{} other: {word}", many.len()),
        (many, _) => format!("{} other or none: {word}", many.len()),
    };
    if let ([(one, _)], 0) = (folded.as_slice(), holes) {
        segment.clone_from(&one.segment);
    }
    let at = tree.add(parent, &segment, &name, "");
    tree.places[at].areas = folded.len();
    tree.places[at].holes = holes;
    rest.extend(folded.iter().flat_map(|(_, members)| members));
    rest.sort_unstable();
    place(tree, at, level + 1, &rest, wide, words, rows, leaves);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words() -> [Words; 3] {
        ["area", "council", "zip"].map(|w| Words { word: w.into(), rest: format!("other-{w}s") })
    }

    fn area(segment: &str) -> Option<Area> {
        (!segment.is_empty()).then(|| Area { segment: segment.into(), name: segment.to_uppercase() })
    }

    fn city() -> Area {
        area("town").unwrap()
    }

    fn addresses(tree: &Tree) -> Vec<&str> {
        tree.places.iter().map(|p| p.address.as_str()).collect()
    }

    #[test]
    fn the_largest_areas_get_nodes_and_the_others_share_one() {
        let rows: Vec<Path> = [("a", 3), ("b", 5), ("c", 1), ("d", 1)]
            .iter()
            .flat_map(|(s, n)| std::iter::repeat_n([area(s), area("m"), area("n")], *n))
            .collect();
        let (tree, leaves) = from_rows(&city(), &words(), &rows, 15);
        assert_eq!(
            addresses(&tree),
            [
                "town",
                "town/b",
                "town/b/m",
                "town/b/m/n",
                "town/other-areas",
                "town/other-areas/m",
                "town/other-areas/m/n"
            ]
        );
        let other = &tree.places[tree.find("town/other-areas").unwrap()];
        assert_eq!((other.events, other.areas, other.holes), (5, 3, 0));
        assert_eq!(leaves[0], tree.find("town/other-areas/m/n").unwrap());
    }

    #[test]
    fn a_hole_goes_to_the_rest_of_its_level_and_is_counted_there() {
        let rows: Vec<Path> = vec![[area("a"), area("m"), area("n")], [area("a"), None, area("n")], [None, None, None]];
        let (tree, leaves) = from_rows(&city(), &words(), &rows, 15);
        assert_eq!(tree.places[leaves[1]].address.as_str(), "town/a/other-councils/n");
        assert_eq!(tree.places[leaves[2]].address.as_str(), "town/other-areas/other-councils/other-zips");
        assert_eq!(tree.places[tree.find("town/other-areas").unwrap()].holes, 1);
        assert_eq!(tree.places[0].events, 3);
    }

    #[test]
    fn an_area_called_like_the_rest_is_not_mixed_up_with_it() {
        let rows: Vec<Path> = vec![[area("other-areas"), area("m"), area("n")], [None, None, None]];
        let (tree, leaves) = from_rows(&city(), &words(), &rows, 15);
        assert_ne!(leaves[0], leaves[1]);
        assert!(tree.find("town/other-areas-2").is_some());
    }

    proptest! {
        #[test]
        fn every_row_has_a_neighbourhood_and_the_tree_stays_within_its_bound(
            rows in prop::collection::vec(("[a-e]?", "[a-e]?", "[a-e]?"), 1..200), nodes_max in NODES_MIN..NODES_MAX,
        ) {
            let rows: Vec<Path> = rows.iter().map(|(s, c, n)| [area(s), area(c), area(n)]).collect();
            let (tree, leaves) = from_rows(&city(), &words(), &rows, nodes_max);
            prop_assert!(tree.places.len() <= nodes_max);
            prop_assert!(leaves.iter().all(|l| tree.places[*l].address.tier() == Tier::Neighbourhood));
            prop_assert_eq!(tree.places[0].events, rows.len() as u64);
            let mut seen = addresses(&tree);
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), tree.places.len());
            for (i, p) in tree.places.iter().enumerate() {
                prop_assert!(p.parent.is_none_or(|up| up < i && p.address.is_child_of(&tree.places[up].address)));
            }
        }
    }
}
