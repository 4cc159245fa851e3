//! Subscriptions by topic filter: what a topic matches is found without looking at the rest.

use std::collections::HashMap;

/// Values under (filter, key). The order of matches is unspecified.
#[derive(Debug)]
pub(crate) struct Trie<K, V> {
    nodes: Vec<Node<K, V>>,
    /// Indices of `nodes` that are empty and may be used again.
    free: Vec<usize>,
    len: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    /// Below a literal level; `+` has its own place, because it is asked for each topic.
    children: HashMap<Box<str>, usize>,
    plus: Option<usize>,
    /// Filters that end here, and those that end here with `/#`.
    here: Vec<(K, V)>,
    hash: Vec<(K, V)>,
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Node { children: HashMap::new(), plus: None, here: Vec::new(), hash: Vec::new() }
    }
}

impl<K, V> Node<K, V> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.plus.is_none() && self.here.is_empty() && self.hash.is_empty()
    }
}

const ROOT: usize = 0;

impl<K: Copy + Eq, V> Default for Trie<K, V> {
    fn default() -> Self {
        Trie { nodes: vec![Node::default()], free: Vec::new(), len: 0 }
    }
}

impl<K: Copy + Eq, V> Trie<K, V> {
    /// Values in it.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts `value` under a valid filter; what `key` had there before is returned.
    pub(crate) fn insert(&mut self, filter: &str, key: K, value: V) -> Option<V> {
        let (path, hash) = split(filter);
        let mut at = ROOT;
        for level in levels(path) {
            let next = if level == "+" { self.nodes[at].plus } else { self.nodes[at].children.get(level).copied() };
            at = next.unwrap_or_else(|| {
                let new = self.free.pop().unwrap_or_else(|| {
                    self.nodes.push(Node::default());
                    self.nodes.len() - 1
                });
                if level == "+" {
                    self.nodes[at].plus = Some(new);
                } else {
                    self.nodes[at].children.insert(level.into(), new);
                }
                new
            });
        }
        let list = if hash { &mut self.nodes[at].hash } else { &mut self.nodes[at].here };
        match list.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                list.push((key, value));
                self.len += 1;
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, filter: &str, key: K) -> Option<V> {
        let (path, hash) = split(filter);
        let mut way = Vec::new();
        let mut at = ROOT;
        for level in levels(path) {
            way.push((at, level));
            at = if level == "+" { self.nodes[at].plus? } else { *self.nodes[at].children.get(level)? };
        }
        let list = if hash { &mut self.nodes[at].hash } else { &mut self.nodes[at].here };
        let i = list.iter().position(|(k, _)| *k == key)?;
        let (_, value) = list.swap_remove(i);
        self.len -= 1;
        for (above, level) in way.into_iter().rev() {
            if !self.nodes[at].is_empty() {
                break;
            }
            if level == "+" {
                self.nodes[above].plus = None;
            } else {
                self.nodes[above].children.remove(level);
            }
            // Its maps may have grown large; the slot starts anew.
            self.nodes[at] = Node::default();
            self.free.push(at);
            at = above;
        }
        Some(value)
    }

    /// Calls `found` for each value whose filter matches the valid topic. How many nodes were looked at, which
    /// may be far more; see [`wild_levels`].
    pub(crate) fn matches<'a>(&'a self, topic: &str, mut found: impl FnMut(K, &'a V)) -> usize {
        self.walk(ROOT, Some(topic), topic.starts_with('$'), &mut found)
    }

    /// `rest` are the levels below `at`, `None` when the topic ends here. The depth of recursion is
    /// the depth of the filters that match, which the packet size bounds; see [`LEVELS_MAX`].
    fn walk<'a>(&'a self, at: usize, rest: Option<&str>, dollar: bool, found: &mut impl FnMut(K, &'a V)) -> usize {
        let node = &self.nodes[at];
        // A wildcard in the first level does not match `$…`.
        let wild = !(dollar && at == ROOT);
        if wild {
            node.hash.iter().for_each(|(k, v)| found(*k, v));
        }
        let Some(rest) = rest else {
            node.here.iter().for_each(|(k, v)| found(*k, v));
            return 1;
        };
        let (level, below) = match rest.split_once('/') {
            Some((level, below)) => (level, Some(below)),
            None => (rest, None),
        };
        let next = [node.children.get(level).copied(), node.plus.filter(|_| wild)];
        1 + next.into_iter().flatten().map(|next| self.walk(next, below, dollar, found)).sum::<usize>()
    }
}

/// Levels of a topic or filter that the front door accepts: bounds the recursion.
pub(crate) const LEVELS_MAX: usize = 128;

/// Levels of a filter from its first `+` on. All paths of filters that a topic can take beside its own, by which the
/// first levels of all filters without a `+` go, are made of these: so their number bounds the work of a match.
pub(crate) fn wild_levels(filter: &str) -> usize {
    filter.split('/').skip_while(|level| *level != "+").count()
}

/// The filter without its final `#`, and whether it had one.
fn split(filter: &str) -> (Option<&str>, bool) {
    if filter == "#" {
        return (None, true);
    }
    match filter.strip_suffix("/#") {
        Some(path) => (Some(path), true),
        None => (Some(filter), false),
    }
}

fn levels(path: Option<&str>) -> impl Iterator<Item = &str> {
    path.into_iter().flat_map(|p| p.split('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::topic;
    use proptest::prelude::*;

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$s")].prop_map(str::to_owned)
    }

    fn filter() -> impl Strategy<Value = String> {
        let part = prop_oneof![4 => level(), 2 => Just("+".to_owned())];
        (proptest::collection::vec(part, 0..4), any::<bool>()).prop_map(|(mut parts, hash)| {
            if hash || parts.is_empty() {
                parts.push("#".into());
            }
            parts.join("/")
        })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(String, u8),
        Remove(String, u8),
        Match(String),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (filter(), 0u8..3).prop_map(|(f, k)| Step::Insert(f, k)),
            (filter(), 0u8..3).prop_map(|(f, k)| Step::Remove(f, k)),
            proptest::collection::vec(level(), 1..4).prop_map(|l| Step::Match(l.join("/"))),
        ]
    }

    proptest! {
        #[test]
        fn a_match_looks_at_no_more_than_the_topics_own_levels_and_the_wild_ones(
            filters in proptest::collection::vec(filter(), 0..60), topic in proptest::collection::vec(level(), 1..5),
        ) {
            let mut trie = Trie::default();
            for filter in filters.iter().filter(|f| topic::check_filter(f).is_ok()) {
                trie.insert(filter, 0, ());
            }
            let looked_at = trie.matches(&topic.join("/"), |_, ()| {});
            prop_assert!(looked_at <= 1 + topic.len() + filters.iter().map(|f| wild_levels(f)).sum::<usize>());
        }

        #[test]
        fn a_trie_matches_as_each_filter_alone(steps in proptest::collection::vec(step(), 1..60)) {
            let mut trie = Trie::default();
            let mut model: Vec<(String, u8, usize)> = Vec::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(f, k) if topic::check_filter(&f).is_ok() => {
                        let old = model.iter_mut().find(|(g, j, _)| (g, *j) == (&f, k));
                        let want = old.as_ref().map(|o| o.2);
                        match old {
                            Some(o) => o.2 = n,
                            None => model.push((f.clone(), k, n)),
                        }
                        prop_assert_eq!(trie.insert(&f, k, n), want);
                    }
                    Step::Insert(..) => {}
                    Step::Remove(f, k) => {
                        let at = model.iter().position(|(g, j, _)| (g, *j) == (&f, k));
                        prop_assert_eq!(trie.remove(&f, k), at.map(|i| model.swap_remove(i).2));
                    }
                    Step::Match(t) if topic::check_topic(&t).is_ok() => {
                        let mut got = Vec::new();
                        trie.matches(&t, |k, v| got.push((k, *v)));
                        got.sort_unstable();
                        let mut want: Vec<_> =
                            model.iter().filter(|(f, ..)| topic::matches(f, &t)).map(|(_, k, v)| (*k, *v)).collect();
                        want.sort_unstable();
                        prop_assert_eq!(got, want, "{}", t);
                    }
                    Step::Match(_) => {}
                }
                prop_assert_eq!(trie.len(), model.len());
            }
            for (f, k, _) in model {
                trie.remove(&f, k);
            }
            prop_assert_eq!(trie.free.len() + 1, trie.nodes.len(), "an emptied trie keeps no node in use");
        }
    }
}
