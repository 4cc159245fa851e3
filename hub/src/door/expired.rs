//! Retained messages whose time is over: forgotten by a note.
//!
//! **Constraints**: the note names what it removes, topic and record, so that the fold needs no clock; a
//! message that came meanwhile stays. A clock that has just been set removes nothing.
//! **Operation**: the door looks at some of them every second, in the order of their topics.

use crate::meta::Meta;
use crate::note::Note;
use crate::state::Retained;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

/// Looked at under one look into the state: less than a millisecond.
const LOOKED_AT: usize = 4096;

/// Bytes of topics in one note, nearly. As JSON they are six times as much at worst, and a record of the
/// log has an end.
const NOTE_BYTES: usize = 1024 * 1024;

/// For so long the clock has gone evenly before it is believed. Whoever sets it wrong mends it by then.
const STEADY: Duration = Duration::from_secs(600);

/// Between two looks, by the clock against the time that has passed: more is a jump, µs.
const JUMP_US: i64 = 2_000_000;

/// Where the next look begins.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    after: Option<String>,
    /// When it was looked last, by both clocks.
    last: Option<(Instant, i64)>,
    steady_since: Option<Instant>,
}

impl Expired {
    /// Is the clock to be believed? `now` goes evenly, `now_us` is what it says, µs since 1970. Ask each second.
    pub(crate) fn is_time(&mut self, now: Instant, now_us: i64) -> bool {
        let went_evenly = self.last.replace((now, now_us)).is_some_and(|(then, then_us)| {
            let passed = i64::try_from(now.duration_since(then).as_micros()).unwrap_or(i64::MAX);
            (now_us - then_us).abs_diff(passed) <= JUMP_US.unsigned_abs()
        });
        if !went_evenly {
            self.steady_since = Some(now);
        }
        self.steady_since.is_some_and(|since| now.duration_since(since) >= STEADY)
    }

    /// What of the next topics is over at `now_us`, µs since 1970.
    pub(crate) fn next(&mut self, all: &BTreeMap<String, Retained>, now_us: i64) -> Option<Note> {
        let from = self.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut topics, mut bytes) = (Vec::new(), 0);
        for (n, (topic, r)) in all.range((from, Bound::Unbounded)).enumerate() {
            if is_over(r, now_us) {
                topics.push((topic.clone(), r.pos));
                bytes += topic.len();
            }
            if n + 1 == LOOKED_AT || bytes >= NOTE_BYTES {
                self.after = Some(topic.clone());
                break;
            }
        }
        (!topics.is_empty()).then_some(Note::RetainedExpired { topics })
    }
}

/// Is its time over?
pub(super) fn is_over(r: &Retained, now_us: i64) -> bool {
    let expiry_s = Meta::decode(&r.door).expiry_s;
    expiry_s.is_some_and(|s| r.committed_us.saturating_add(i64::from(s) * 1_000_000) <= now_us)
}

#[cfg(test)]
mod tests {
    use super::super::packet::publish::Properties;
    use super::*;
    use crate::meta;
    use crate::state::State;
    use bytes::Bytes;
    use citybrain_shared::Pos;
    use citybrain_shared::limits::RECORD_BYTES_MAX;

    fn kept(pos: u64, expiry_s: Option<u32>) -> Retained {
        let mut door = Vec::new();
        assert!(meta::put("p", expiry_s, |out| Properties::default().put_forwarded(out), &mut door));
        Retained {
            pos: Pos(pos),
            qos: 1,
            payload: Bytes::from_static(b"1"),
            door: door.into(),
            committed_us: 0,
            heard: None,
        }
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
        assert!(!expired.is_time(at(0), us(10)), "just started");
        assert!(!expired.is_time(at(601), us(5000)), "it was set");
        assert!(!expired.is_time(at(602), us(11)), "and mended");
        assert!(!expired.is_time(at(1201), us(610)), "not long enough");
        // One of them comes anew before the note is written.
        let mut forgotten = 0;
        for n in 0..4 {
            assert!(expired.is_time(at(1203 + n), us(612 + n as i64)));
            let Some(note) = expired.next(&state.retained, us(612 + n as i64)) else { continue };
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

    #[test]
    fn what_is_over_on_the_longest_topics_fits_into_the_log() {
        let mut state = State::default();
        for n in 0..400u64 {
            // As JSON each of these takes six bytes.
            let topic = format!("{n:03}{}", "\u{1}".repeat(65_500));
            state.keep_retained(&topic, kept(n, Some(1)));
        }
        let mut expired = Expired::default();
        let mut rounds = 0;
        while !state.retained.is_empty() {
            let draft = expired.next(&state.retained, 5_000_000).unwrap().draft();
            assert!(draft.bytes().len() <= RECORD_BYTES_MAX, "{} bytes", draft.bytes().len());
            let (header, payload) = draft.parts();
            state.apply(state.applied.next(), &header, payload);
            rounds += 1;
        }
        assert_eq!(rounds, 24, "seventeen at a time");
    }
}
