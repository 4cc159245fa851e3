//! Retained messages whose time is over: forgotten by a note.
//!
//! **Constraints**: the note names what it removes, topic and record, so that the fold needs no clock; a
//! message that came meanwhile stays. A clock that has just been set removes nothing.
//! **Operation**: the door looks at some of them every second, in the order of their topics.

use super::meta::Meta;
use crate::note::Note;
use crate::state::Retained;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

/// Looked at under one look into the state: less than a millisecond.
const LOOKED_AT: usize = 4096;

/// For so long the clock has gone evenly before it is believed. Whoever sets it wrong mends it by then.
const STEADY: Duration = Duration::from_secs(600);

/// Between two looks, by the clock against the time that has passed: more is a jump, µs.
const JUMP_US: i64 = 2_000_000;

/// Where the next look begins.
#[derive(Debug, Default)]
pub struct Expired {
    after: Option<String>,
    /// When it was looked last, by both clocks.
    last: Option<(Instant, i64)>,
    steady_since: Option<Instant>,
}

impl Expired {
    /// What of the next topics is over at `now_us`, µs since 1970; `now` goes evenly.
    pub fn next(&mut self, all: &BTreeMap<String, Retained>, now: Instant, now_us: i64) -> Option<Note> {
        let went_evenly = self.last.replace((now, now_us)).is_some_and(|(then, then_us)| {
            let passed = i64::try_from(now.duration_since(then).as_micros()).unwrap_or(i64::MAX);
            (now_us - then_us).abs_diff(passed) <= JUMP_US.unsigned_abs()
        });
        if !went_evenly {
            self.steady_since = Some(now);
        }
        if self.steady_since.is_none_or(|since| now.duration_since(since) < STEADY) {
            return None;
        }
        let from = self.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut topics = Vec::new();
        for (n, (topic, r)) in all.range((from, Bound::Unbounded)).enumerate() {
            if is_over(r, now_us) {
                topics.push((topic.clone(), r.pos));
            }
            if n + 1 == LOOKED_AT {
                self.after = Some(topic.clone());
                break;
            }
        }
        (!topics.is_empty()).then_some(Note::RetainedExpired { topics })
    }
}

fn is_over(r: &Retained, now_us: i64) -> bool {
    let expiry_s = Meta::decode(&r.door).expiry_s;
    expiry_s.is_some_and(|s| r.committed_us.saturating_add(i64::from(s) * 1_000_000) <= now_us)
}

#[cfg(test)]
mod tests {
    use super::super::meta;
    use super::super::packet::publish::Properties;
    use super::*;
    use crate::state::State;
    use bytes::Bytes;
    use citybrain_shared::Pos;

    fn kept(pos: u64, expiry_s: Option<u32>) -> Retained {
        let mut door = Vec::new();
        assert!(meta::put("p", &Properties { expiry_s, ..Properties::default() }, &mut door));
        Retained { pos: Pos(pos), qos: 1, payload: Bytes::from_static(b"1"), door: door.into(), committed_us: 0 }
    }

    #[test]
    fn what_is_over_is_forgotten_by_a_clock_that_goes_evenly_and_no_other() {
        let mut state = State::default();
        for n in 0..10_000u64 {
            state.keep_retained(&format!("t/{n:05}"), kept(n, [None, Some(5), Some(3600)][n as usize % 3]));
        }
        let mut expired = Expired::default();
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let us = |s: i64| s * 1_000_000;
        assert_eq!(expired.next(&state.retained, at(0), us(10)), None, "just started");
        assert_eq!(expired.next(&state.retained, at(601), us(5000)), None, "it was set");
        assert_eq!(expired.next(&state.retained, at(602), us(11)), None, "and mended");
        assert_eq!(expired.next(&state.retained, at(1201), us(610)), None, "not long enough");
        // One of them comes anew before the note is written.
        let mut forgotten = 0;
        for n in 0..4 {
            let Some(note) = expired.next(&state.retained, at(1203 + n), us(612 + n as i64)) else { continue };
            let Note::RetainedExpired { topics } = &note else { panic!("{note:?}") };
            forgotten += topics.len();
            if n == 0 {
                state.keep_retained("t/00001", kept(20_000, Some(5)));
            }
            let draft = note.draft();
            let (header, payload) = draft.parts();
            state.apply(state.applied.next(), &header, payload);
        }
        assert_eq!(forgotten, 3333 + 1, "the new one is looked at by the second round");
        assert_eq!(state.retained.len(), 10_000 - 3333);
    }
}
