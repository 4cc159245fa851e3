//! Sets of numbers as ascending, disjoint runs `(first, last)`.

use citybrain_shared::view::Run;
use std::collections::BTreeSet;

/// `a` without `b`; both ascending and disjoint.
pub(super) fn without(a: &[Run], b: &[Run]) -> Vec<Run> {
    let mut out = Vec::new();
    for &(first, hi) in a {
        let mut lo = first;
        for &(from, to) in b.iter().filter(|r| r.1 >= first && r.0 <= hi) {
            if from > lo {
                out.push((lo, from - 1));
            }
            lo = lo.max(to.saturating_add(1));
        }
        if lo <= hi {
            out.push((lo, hi));
        }
    }
    out
}

pub(super) fn count(runs: &[Run]) -> u64 {
    runs.iter().fold(0, |n: u64, (lo, hi)| n.saturating_add(hi - lo).saturating_add(1))
}

/// Runs from numbers in any order.
pub(super) fn runs_of(numbers: &BTreeSet<u64>) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::new();
    for &n in numbers {
        match out.last_mut() {
            Some(last) if last.1 + 1 == n => last.1 = n,
            _ => out.push((n, n)),
        }
    }
    out
}

/// Runs of several sets as one set.
pub(super) fn union(mut all: Vec<Run>) -> Vec<Run> {
    all.sort_unstable();
    let mut out: Vec<Run> = Vec::new();
    for (lo, hi) in all {
        match out.last_mut() {
            Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
            _ => out.push((lo, hi)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_sets(a in prop::collection::btree_set(0u64..60, 0..40), b in prop::collection::btree_set(0u64..60, 0..40)) {
            let left: BTreeSet<u64> = a.difference(&b).copied().collect();
            prop_assert_eq!(without(&runs_of(&a), &runs_of(&b)), runs_of(&left));
            let both: BTreeSet<u64> = a.union(&b).copied().collect();
            prop_assert_eq!(union(runs_of(&a).into_iter().chain(runs_of(&b)).collect()), runs_of(&both));
            prop_assert_eq!(count(&runs_of(&a)), a.len() as u64);
        }
    }
}
