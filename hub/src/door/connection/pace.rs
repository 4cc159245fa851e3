//! How fast one client may send. Who is faster is not refused but read later.

use std::time::Duration;
use tokio::time::Instant;

/// What a client may do at once after a silence, in seconds of its rate.
const BURST: Duration = Duration::from_secs(1);

/// A rate; 0: no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    per_s: u64,
    /// When all that was taken would have been due at the rate.
    due: Instant,
}

impl Pace {
    pub(super) fn new(per_s: u64, now: Instant) -> Pace {
        Pace { per_s, due: now }
    }

    pub(super) fn take(&mut self, n: u64, now: Instant) {
        if self.per_s > 0 {
            self.due = self.due.max(now) + Duration::from_secs_f64(n as f64 / self.per_s as f64);
        }
    }

    /// Nothing more may be taken before this; `None`: now.
    pub(super) fn wait_until(&self, now: Instant) -> Option<Instant> {
        let at = self.due.checked_sub(BURST)?;
        (self.per_s > 0 && at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_free_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        for _ in 0..10 {
            assert_eq!(pace.wait_until(start), None);
            pace.take(1, start);
        }
        pace.take(1, start);
        let at = pace.wait_until(start).unwrap();
        assert_eq!(at - start, Duration::from_millis(100));
        assert_eq!(pace.wait_until(at), None);
        let mut free = Pace::new(0, start);
        free.take(u64::MAX, start);
        assert_eq!(free.wait_until(start), None);
    }
}
