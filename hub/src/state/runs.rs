//! Which numbers of a sequence were seen, as disjoint runs in order.

use citybrain_shared::limits::RUNS_PER_STREAM_MAX;
use serde::{Deserialize, Serialize};

/// A set of `u64` that is nearly always one run from 1 up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Runs(Vec<(u64, u64)>);

impl Runs {
    pub fn contains(&self, n: u64) -> bool {
        // The newest run answers nearly every question.
        if let Some(&(lo, hi)) = self.0.last()
            && n >= lo
        {
            return n <= hi;
        }
        let after = self.0.partition_point(|&(lo, _)| lo <= n);
        after > 0 && n <= self.0[after - 1].1
    }

    /// Adds `n`; false if it was there. Keeps at most [`RUNS_PER_STREAM_MAX`] runs: beyond that the
    /// two lowest are joined, which gives up on the numbers between them; `true` in the second
    /// place says so.
    pub fn insert(&mut self, n: u64) -> (bool, bool) {
        if let Some(last) = self.0.last_mut()
            && n == last.1.wrapping_add(1)
        {
            last.1 = n;
            return (true, false);
        }
        let after = self.0.partition_point(|&(lo, _)| lo <= n);
        if after > 0 && n <= self.0[after - 1].1 {
            return (false, false);
        }
        let joins_below = after > 0 && self.0[after - 1].1 + 1 == n;
        let joins_above = after < self.0.len() && n + 1 == self.0[after].0;
        match (joins_below, joins_above) {
            (true, true) => {
                self.0[after - 1].1 = self.0[after].1;
                self.0.remove(after);
            }
            (true, false) => self.0[after - 1].1 = n,
            (false, true) => self.0[after].0 = n,
            (false, false) => self.0.insert(after, (n, n)),
        }
        let over = self.0.len() > RUNS_PER_STREAM_MAX;
        if over {
            let (lo, _) = self.0.remove(0);
            self.0[0].0 = lo;
        }
        (true, over)
    }

    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Numbers between the lowest and the highest that are missing.
    pub fn holes(&self) -> u64 {
        self.0.windows(2).map(|w| w[1].0 - w[0].1 - 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_in_order_are_one_run() {
        let mut r = Runs::default();
        for n in 1..1000 {
            assert_eq!(r.insert(n), (true, false));
        }
        assert_eq!(r.as_slice(), [(1, 999)]);
        assert_eq!(r.insert(500), (false, false));
    }

    #[test]
    fn too_many_runs_give_up_the_lowest_hole_and_say_so() {
        let mut r = Runs::default();
        let mut gave_up = 0;
        for n in 0..=RUNS_PER_STREAM_MAX as u64 {
            gave_up += u32::from(r.insert(n * 10).1);
        }
        assert_eq!(gave_up, 1);
        assert_eq!(r.as_slice()[0], (0, 10));
    }

    proptest! {
        #[test]
        fn runs_are_a_set(numbers in prop::collection::vec(0u64..200, 0..300)) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for n in numbers {
                prop_assert_eq!(runs.contains(n), set.contains(&n));
                prop_assert_eq!(runs.insert(n).0, set.insert(n));
            }
            for n in 0..200 {
                prop_assert_eq!(runs.contains(n), set.contains(&n));
            }
            for w in runs.as_slice().windows(2) {
                prop_assert!(w[0].1 + 1 < w[1].0, "runs touch: {:?}", runs);
            }
        }
    }
}
