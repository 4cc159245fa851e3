//! How long a node was up, as its records tell: silence counts while it was, and not while it was down.
//!
//! A record shows that the node was up when it was committed. Where no other comes while something is missed, the
//! node writes one itself: [`FIRST_US`] after a start, and then whenever it was up for twice as long as is shown. So
//! at least half of each life counts, however it ends, and a year of quiet brings some twenty records.

use serde::{Deserialize, Serialize};

/// Between a start and the first record that shows it up: a box that lives no longer hears nothing.
const FIRST_US: i64 = 10_000_000;
/// The newest record's time is known to this, so that not every record makes a row to write.
const STEP_MAX_US: i64 = 60_000_000;
/// What is allowed for devices to come back when a node has started.
const BACK_US: i64 = 60_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uptime {
    /// The counter of the start that was last told of.
    pub started: u64,
    /// The newest record's time, nearly.
    pub latest_us: i64,
    /// When that start was told of.
    #[serde(default)]
    since_us: i64,
}

impl Uptime {
    /// When the newest start was told of.
    pub fn since_us(&self) -> i64 {
        self.since_us
    }

    fn shown_us(&self) -> i64 {
        (self.latest_us - self.since_us).max(0)
    }

    /// A record was committed. True: it shows more than is known.
    pub fn note(&mut self, now_us: i64) -> bool {
        let step = self.shown_us().clamp(FIRST_US, STEP_MAX_US);
        let is_news = now_us >= self.latest_us.saturating_add(step);
        if is_news {
            self.latest_us = now_us;
        }
        is_news
    }

    /// When a record is to show that the node is up, if none does before.
    pub fn next_us(&self) -> i64 {
        self.latest_us.saturating_add(self.shown_us().max(FIRST_US))
    }

    /// The node has started again. Gives how much later what is missed is due, µs: by the time that it was not shown
    /// to be up, and a minute for devices to come back; but of what was shown half counts, or a box that restarts
    /// all the time would miss nobody.
    pub fn start(&mut self, counter: u64, now_us: i64) -> i64 {
        let down = (now_us - self.latest_us).max(0);
        let back = BACK_US.min(self.shown_us() / 2);
        *self = Uptime { started: counter, latest_us: now_us, since_us: now_us };
        down + back
    }

    /// The clock was ahead, and is right again.
    pub fn set_back(&mut self, now_us: i64) {
        (self.latest_us, self.since_us) = (now_us, self.since_us.min(now_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: i64 = 1_000_000;

    #[test]
    fn an_idle_year_brings_few_records() {
        let mut up = Uptime::default();
        up.start(1, 1_000 * S);
        let (mut n, end) = (0, 365 * 86_400 * S);
        while up.next_us() < end {
            assert!(up.note(up.next_us()), "what is written shows more, or it would be written again at once");
            n += 1;
        }
        assert!((15..30).contains(&n), "{n}");
    }

    proptest! {
        /// Lives as short or long as they may be, with times between them, and records that come or do not.
        #[test]
        fn of_each_life_a_quarter_counts_and_of_no_pause_anything(
            lives in prop::collection::vec((0i64..4_000, 0i64..4_000, prop::collection::vec(0i64..4_000, 0..5)), 1..40),
        ) {
            let (mut up, mut now) = (Uptime::default(), 0);
            up.start(0, now);
            // What is due is put off by `off` in all, while the node was up for `was_up`.
            let (mut off, mut was_up, mut short) = (0, 0, 0);
            for (counter, (life, pause, heard)) in (1..).zip(lives) {
                let end = now + life * S;
                let mut heard: Vec<i64> = heard.into_iter().map(|at| now + at * S).filter(|at| *at < end).collect();
                heard.sort_unstable();
                let mut heard = heard.into_iter().peekable();
                while let Some(at) = heard.peek().map_or(Some(up.next_us()), |at| Some((*at).min(up.next_us()))) {
                    if at > end {
                        break;
                    }
                    up.note(at);
                    heard.next_if_eq(&at);
                }
                (was_up, short) = (was_up + life * S, short + if life * S < FIRST_US { life * S } else { 0 });
                now = end + pause * S;
                off += up.start(counter, now);
            }
            let counted = now - off;
            prop_assert!(counted <= was_up, "a pause counts as silence: {counted} of {was_up}");
            prop_assert!(counted >= (was_up - short) / 4, "{counted} of {was_up}, {short} of it in lives too short");
        }
    }
}
