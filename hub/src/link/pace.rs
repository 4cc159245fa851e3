//! How much may be under way on a link: what its line carries in half a second, and what the way there
//! and back holds.
//!
//! **Why.** All of a link goes through one TCP stream, so that what is urgent waits for what was written
//! before it; and a frame that a slow line does not carry before somebody loses patience is sent again
//! from its beginning, for ever. A fast line does not notice: it holds all that the windows may have.
//!
//! **Operation.** Each acknowledgement measures a rate: what was acknowledged between the sending of its
//! frame and now. The best one of late counts; it fades, so that a line that became slower is believed.
//! A session begins small, and smaller than the last one if that came to nothing.

use super::sender::Ms;
use citybrain_shared::limits::{FRAME_BYTES_MAX, WINDOW_FRAMES};

/// What waits before an urgent record, as time.
const QUEUE_MS: f64 = 500.0;

/// Under way at first, and at least, on each lane; bytes. The first is two seconds of a line of 16 kB/s.
const START_BYTES: usize = 32 * 1024;
const MIN_BYTES: usize = 4 * 1024;
const MAX_BYTES: usize = WINDOW_FRAMES * FRAME_BYTES_MAX;

/// No line is taken for slower than this when a frame is waited for, bytes a ms: little traffic measures
/// little.
const SLOW: f64 = 8.0;

/// The best rate loses this part of itself with each measurement.
const FADING: f64 = 0.1;

#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// Bytes acknowledged so far.
    delivered: u64,
    /// Bytes a ms; `None`: nothing was measured in this session.
    rate: Option<f64>,
    /// Shortest way there and back, ms.
    way_ms: f64,
    start: usize,
}

/// What is remembered with a frame under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    sent_at: Ms,
    delivered: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { delivered: 0, rate: None, way_ms: f64::MAX, start: START_BYTES }
    }
}

impl Pace {
    /// A session begins.
    pub(crate) fn begin(&mut self) {
        self.start = if self.rate.is_some() { START_BYTES } else { self.start };
        (self.rate, self.way_ms) = (None, f64::MAX);
    }

    /// A session ended, or a timer ran out: if nothing has come through, it was too much.
    pub(crate) fn ran_out(&mut self) {
        match &mut self.rate {
            Some(rate) => *rate /= 2.0,
            None => self.start = (self.start / 2).max(MIN_BYTES),
        }
    }

    pub(crate) fn mark(&self, now: Ms) -> Mark {
        Mark { sent_at: now, delivered: self.delivered }
    }

    /// So many bytes were acknowledged.
    pub(crate) fn delivered(&mut self, bytes: usize) {
        self.delivered += bytes as u64;
    }

    /// A frame that was sent once was acknowledged.
    pub(crate) fn measure(&mut self, now: Ms, mark: Mark) {
        let ms = now.saturating_sub(mark.sent_at).max(1) as f64;
        let rate = (self.delivered - mark.delivered) as f64 / ms;
        self.way_ms = self.way_ms.min(ms);
        self.rate = Some(self.rate.map_or(rate, |best| rate.max(best * (1.0 - FADING))));
    }

    /// Bytes that may be under way on a lane.
    pub(crate) fn window(&self) -> usize {
        match self.rate {
            Some(rate) => ((rate * (self.way_ms + QUEUE_MS)) as usize).clamp(MIN_BYTES, MAX_BYTES),
            None => self.start,
        }
    }

    /// So long may so many bytes be under way before they are taken for lost, ms. One event may be far
    /// more than the window; sent again, it would only queue behind itself.
    pub(crate) fn patience_ms(&self, bytes: usize) -> Ms {
        match self.rate {
            Some(rate) => (2.0 * bytes as f64 / rate.max(SLOW)) as Ms,
            None => (bytes.saturating_sub(self.start) as f64 / SLOW) as Ms,
        }
    }

    /// Bytes after which a frame is full: several make a window, so that acknowledgements come often.
    pub(crate) fn frame(&self) -> usize {
        (self.window() / 4).clamp(MIN_BYTES, FRAME_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A line of so many bytes a ms, and a way of so many ms; frames are sent whenever there is room.
    /// The longest time that a byte spent in the line once the first seconds were over, ms, and the rate.
    fn run(line: f64, way: Ms, seconds: u64) -> (f64, f64) {
        let mut pace = Pace::default();
        let (mut free_at, mut flying) = (0.0f64, std::collections::VecDeque::<(Ms, usize, Mark)>::new());
        let (mut under_way, mut longest, mut carried) = (0usize, 0.0f64, 0usize);
        let settled = 1000 * seconds / 2;
        for now in 0..1000 * seconds {
            while flying.front().is_some_and(|(at, ..)| *at <= now) {
                let (_, bytes, mark) = flying.pop_front().unwrap();
                under_way -= bytes;
                pace.delivered(bytes);
                pace.measure(now, mark);
                carried += if now >= settled { bytes } else { 0 };
            }
            while under_way < pace.window() {
                let bytes = pace.frame();
                free_at = free_at.max(now as f64) + bytes as f64 / line;
                if now >= settled {
                    longest = longest.max(free_at - now as f64);
                }
                flying.push_back((free_at as Ms + way, bytes, pace.mark(now)));
                under_way += bytes;
            }
        }
        (longest, carried as f64 / (1000 * seconds - settled) as f64)
    }

    #[test]
    fn a_fast_line_holds_all_that_the_windows_may_have() {
        let (mut pace, now) = (Pace::default(), 5);
        pace.begin();
        let mark = pace.mark(now);
        pace.delivered(pace.frame());
        pace.measure(now + 1, mark);
        assert_eq!((pace.window(), pace.frame()), (MAX_BYTES, FRAME_BYTES_MAX));
    }

    #[test]
    fn a_session_that_came_to_nothing_is_followed_by_a_smaller_one() {
        let mut pace = Pace::default();
        for want in [32, 16, 8, 4, 4] {
            pace.begin();
            assert_eq!(pace.window(), want * 1024);
            pace.ran_out();
        }
        let mark = pace.mark(0);
        pace.delivered(4096);
        pace.measure(500, mark);
        pace.begin();
        assert_eq!(pace.window(), 32 * 1024);
    }

    proptest! {
        /// From a modem's 2 kB/s to 10 MB/s, over ways of up to a second (a memory card's fsync).
        #[test]
        fn any_line_is_used_and_no_queue_grows_long(line in 2.0f64..10_000.0, way in 1u64..1000) {
            let (longest, rate) = run(line, way, 60);
            let bound = MAX_BYTES as f64 / way as f64;
            prop_assert!(rate > 0.7 * line.min(bound), "carried {} of {} B/ms", rate, line);
            // Half a second, what a frame's size rounds up, and a second of a way as long as that.
            let rounding = 2.0 * MIN_BYTES as f64 / line;
            prop_assert!(longest <= 2.0 * (QUEUE_MS + way as f64) + rounding, "{} ms in a line of {} B/ms", longest, line);
        }
    }
}
