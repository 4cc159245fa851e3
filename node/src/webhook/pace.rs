//! How often a receiver may be asked, by both lanes together.

use citybrain_shared::Lane;
use std::time::{Duration, Instant};

/// Gives out turns, `gap` from one to the next.
#[derive(Debug, Default)]
pub(super) struct Pace {
    gap: Duration,
    /// From then on there is one; at once before the first.
    next: Option<Instant>,
    /// The turn that something urgent waits for.
    kept: Option<Instant>,
}

impl Pace {
    pub(super) fn new(gap: Duration) -> Pace {
        Pace { gap, ..Pace::default() }
    }

    /// Takes a turn, unless there is none yet, or something urgent waits for it.
    ///
    /// # Errors
    /// When to ask again.
    pub(super) fn take(&mut self, lane: Lane, now: Instant) -> Result<(), Instant> {
        if let Some(next) = self.next {
            let is_kept = lane == Lane::Routine && self.kept == Some(next);
            let mine = if is_kept { next + self.gap } else { next };
            if mine > now {
                self.kept = if lane == Lane::Urgent { Some(next) } else { self.kept };
                return Err(mine);
            }
        }
        self.next = Some(now + self.gap);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(60);

    #[test]
    fn both_lanes_together_have_a_turn_each_gap_and_what_is_urgent_has_the_next_one() {
        let (mut pace, began) = (Pace::new(GAP), Instant::now());
        let at = |gaps: u32| began + gaps * GAP;
        assert_eq!(pace.take(Lane::Routine, at(0)), Ok(()));
        assert_eq!(pace.take(Lane::Routine, at(0)), Err(at(1)));
        assert_eq!(pace.take(Lane::Urgent, at(0)), Err(at(1)));
        assert_eq!(pace.take(Lane::Routine, at(1)), Err(at(2)), "it is kept for the urgent one");
        assert_eq!(pace.take(Lane::Urgent, at(1)), Ok(()));
        assert_eq!(pace.take(Lane::Urgent, at(1)), Err(at(2)));
        // What waited is passed over by an operator: its turn is lost, and no more.
        assert_eq!(pace.take(Lane::Routine, at(3)), Ok(()));
        assert_eq!(pace.take(Lane::Routine, at(4)), Ok(()));
    }

    #[test]
    fn without_a_gap_it_is_always_everybody_s_turn() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for lane in [Lane::Routine, Lane::Urgent, Lane::Routine] {
            assert_eq!(pace.take(lane, now), Ok(()));
        }
    }
}
