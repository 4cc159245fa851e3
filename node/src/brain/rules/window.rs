//! What was seen lately, for one rule and one key, in bounded memory.
//!
//! A window is a row of cells, oldest first. Up to [`EXACT`] events have a cell each, so that a rule
//! which counts to ten counts exactly. Beyond that, events in the same 64th of the window share a
//! cell and leave together, with the last of them: the count is then too high by at most what came
//! in one 64th. Time is the records' own; where it steps back, it stands still.

use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};

/// Events that have a cell of their own. Rules that count people's reports stay far below it.
pub const EXACT: usize = 64;
/// Parts of a window in which events share a cell once there are more.
const PARTS: i64 = 64;
/// Different values that are told apart; a rule that asks for more has a threshold below it.
pub const DISTINCT_MAX: usize = 1024;

/// Which events a window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Of the last so many µs.
    Sliding { within: i64 },
    /// Of the current one of periods that follow each other, each of so many µs; where the clocks on the
    /// walls are `offset` µs ahead of UTC, so that a day begins at midnight there.
    Tumbling { within: i64, offset: i64 },
}

impl Span {
    pub fn within(self) -> i64 {
        let (Span::Sliding { within } | Span::Tumbling { within, .. }) = self;
        within
    }

    /// From when on it holds nothing of what came until `now`.
    pub fn forgets(self, now: i64) -> i64 {
        match self {
            Span::Sliding { within } => now + within,
            Span::Tumbling { within, .. } => self.begins(now) + within,
        }
    }

    /// The first moment that counts. At `t + within` an event of `t` counts no more.
    fn begins(self, now: i64) -> i64 {
        match self {
            Span::Sliding { within } => now - within + 1,
            Span::Tumbling { within, offset } => now - (now + offset).rem_euclid(within),
        }
    }
}

/// What the cells add up to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub distinct: u64,
    pub within_us: i64,
}

impl Summary {
    /// None of an empty window, as [`Summary::least`] and [`Summary::most`] are: where nothing was measured, no
    /// condition may find that all is well.
    pub fn avg(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    pub fn least(&self) -> Option<f64> {
        (self.count > 0).then_some(self.min)
    }

    pub fn most(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    cells: VecDeque<Cell>,
    /// Hash of a value, and when it was last seen.
    distinct: HashMap<u64, i64>,
}

#[derive(Clone, Debug, PartialEq)]
struct Cell {
    /// Of the newest event in it.
    at: i64,
    n: u64,
    sum: f64,
    min: f64,
    max: f64,
}

/// An event as a window sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    pub at: i64,
    pub value: f64,
    /// For `distinct`, if it is asked for.
    pub hash: Option<u64>,
}

impl Window {
    /// True when it has a cell of its own: what is planned by the cells is to be planned anew. Where it
    /// shares one, a plan is off by what comes in one 64th of the window at most.
    pub fn add(&mut self, span: Span, seen: Seen) -> bool {
        let at = self.cells.back().map_or(seen.at, |c| c.at.max(seen.at));
        self.trim(span, at);
        let part = (span.within() / PARTS).max(1);
        let shares = |c: &&mut Cell| c.at.div_euclid(part) == at.div_euclid(part);
        let crowded = self.cells.len() >= EXACT;
        let shared = self.cells.back_mut().filter(|_| crowded).filter(shares);
        let grew = shared.is_none();
        match shared {
            Some(c) => {
                (c.at, c.n, c.sum) = (at, c.n + 1, added(c.sum, seen.value));
                (c.min, c.max) = (c.min.min(seen.value), c.max.max(seen.value));
            }
            None => self.cells.push_back(Cell::of(at, seen.value)),
        }
        if let Some(hash) = seen.hash {
            if self.distinct.len() >= DISTINCT_MAX && !self.distinct.contains_key(&hash) {
                let oldest = self.distinct.iter().min_by_key(|(h, at)| (**at, **h)).map(|(h, _)| *h);
                self.distinct.remove(&oldest.unwrap_or_default());
            }
            self.distinct.insert(hash, at);
        }
        grew
    }

    /// Drops what is over at `now`.
    fn trim(&mut self, span: Span, now: i64) {
        let from = span.begins(now);
        while self.cells.front().is_some_and(|c| c.at < from) {
            self.cells.pop_front();
        }
        self.distinct.retain(|_, at| *at >= from);
    }

    /// As of `now`.
    pub fn summary(&self, span: Span, now: i64) -> Summary {
        let now = self.cells.back().map_or(now, |c| c.at.max(now));
        let from = span.begins(now);
        let mut s = Summary { within_us: span.within(), ..Summary::default() };
        for c in self.cells.iter().filter(|c| c.at >= from) {
            if s.count == 0 {
                (s.min, s.max) = (c.min, c.max);
            }
            s.count += c.n;
            s.sum = added(s.sum, c.sum);
            (s.min, s.max) = (s.min.min(c.min), s.max.max(c.max));
        }
        s.distinct = self.distinct.values().filter(|at| **at >= from).count() as u64;
        s
    }

    /// Takes all of it back by so much.
    pub fn shift(&mut self, by: i64) {
        self.cells.iter_mut().for_each(|c| c.at -= by);
        self.distinct.values_mut().for_each(|at| *at -= by);
    }

    /// Moments after `now` at which it changes if nothing more comes: when cells leave it, at most
    /// `max` of them, evenly chosen, the last always.
    pub fn changes(&self, span: Span, now: i64, max: usize) -> Vec<i64> {
        let from = span.begins(now);
        let all: Vec<i64> = match span {
            Span::Tumbling { within, .. } => vec![from + within],
            Span::Sliding { within } => self.cells.iter().filter(|c| c.at >= from).map(|c| c.at + within).collect(),
        };
        let step = all.len().div_ceil(max).max(1);
        // From the end, so that the last one, when the window is empty, is always among them.
        let mut some: Vec<i64> = all.iter().rev().step_by(step).copied().collect();
        some.reverse();
        some.dedup();
        some
    }

    /// Small, for it is written twice a second while events come: a flag whether there are values at
    /// all; cells as steps of time, numbers of events and, where there are values, one for a single
    /// event or sum, min and max; then the different values.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let valued = self.cells.iter().any(|c| c.sum != 0.0 || c.min != 0.0 || c.max != 0.0);
        out.push(u8::from(valued));
        varint(self.cells.len() as u64, out);
        let mut before = 0;
        for c in &self.cells {
            varint((c.at - before) as u64, out);
            varint(c.n, out);
            before = c.at;
            let numbers = if c.n == 1 { &[c.sum][..] } else { &[c.sum, c.min, c.max] };
            numbers.iter().filter(|_| valued).for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        }
        let mut distinct: Vec<(&u64, &i64)> = self.distinct.iter().collect();
        distinct.sort_unstable();
        varint(distinct.len() as u64, out);
        for (hash, at) in distinct {
            out.extend_from_slice(&hash.to_le_bytes());
            out.extend_from_slice(&at.to_le_bytes());
        }
    }

    /// What [`Window::encode`] wrote; `None` when it is something else.
    pub fn decode(mut bytes: &[u8]) -> Option<Window> {
        let from = &mut bytes;
        let valued = take::<1>(from)?[0] != 0;
        let mut window = Window::default();
        let mut at = 0i64;
        for _ in 0..read_varint(from)? {
            at = at.wrapping_add(read_varint(from)? as i64);
            let n = read_varint(from)?;
            let mut number = || if valued { take::<8>(from).map(f64::from_le_bytes) } else { Some(0.0) };
            let sum = number()?;
            let (min, max) = if n == 1 { (sum, sum) } else { (number()?, number()?) };
            window.cells.push_back(Cell { at, n, sum, min, max });
        }
        for _ in 0..read_varint(from)? {
            let hash = u64::from_le_bytes(take::<8>(from)?);
            window.distinct.insert(hash, i64::from_le_bytes(take::<8>(from)?));
        }
        from.is_empty().then_some(window)
    }

    #[cfg(test)]
    pub fn cells(&self) -> usize {
        self.cells.len()
    }
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read_varint(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let b = take::<1>(from)?[0];
        n |= u64::from(b & 0x7f) << shift;
        if b < 0x80 {
            return Some(n);
        }
    }
    None
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*head)
}

impl Cell {
    fn of(at: i64, value: f64) -> Cell {
        Cell { at, n: 1, sum: value, min: value, max: value }
    }
}

/// What is too much for a number is the largest one: JSON has no infinity, and rows must read back.
fn added(sum: f64, value: f64) -> f64 {
    (sum + value).clamp(f64::MIN, f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// While there are few, both kinds say exactly what a list of all events says.
        #[test]
        fn few_events_are_counted_exactly(steps in prop::collection::vec((0i64..50, -5i32..5), 1..EXACT), within in 1i64..300, tumbling: bool, offset in -400i64..400) {
            let span = if tumbling { Span::Tumbling { within, offset } } else { Span::Sliding { within } };
            let mut window = Window::default();
            let mut all: Vec<(i64, f64)> = Vec::new();
            let mut now = 1000;
            for (wait, value) in steps {
                now += wait;
                let value = f64::from(value);
                window.add(span, Seen { at: now, value, hash: Some(value.to_bits()) });
                all.push((now, value));
                let mut bytes = Vec::new();
                window.encode(&mut bytes);
                prop_assert!(Window::decode(&bytes).is_some_and(|read| read == window));
                for later in [now, now + within / 2, now + within] {
                    let from = if tumbling { later - (later + offset).rem_euclid(within) } else { later - within + 1 };
                    let inside: Vec<f64> = all.iter().filter(|(at, _)| *at >= from).map(|(_, v)| *v).collect();
                    let s = window.summary(span, later);
                    prop_assert_eq!(s.count, inside.len() as u64);
                    prop_assert!((s.sum - inside.iter().sum::<f64>()).abs() < 1e-9);
                    if !inside.is_empty() {
                        prop_assert_eq!(s.min, inside.iter().copied().fold(f64::MAX, f64::min));
                        prop_assert_eq!(s.max, inside.iter().copied().fold(f64::MIN, f64::max));
                    }
                    let different: std::collections::HashSet<u64> = inside.iter().map(|v| v.to_bits()).collect();
                    prop_assert_eq!(s.distinct, different.len() as u64);
                }
            }
        }

        /// With many, the memory is bounded and the count at most one part too high.
        #[test]
        fn many_events_are_counted_to_a_64th(waits in prop::collection::vec(0i64..30, 500..3000)) {
            let within = 6400;
            let mut window = Window::default();
            let (mut now, mut all) = (0, Vec::new());
            for wait in waits {
                now += wait;
                window.add(Span::Sliding { within }, Seen { at: now, value: 1.0, hash: None });
                all.push(now);
            }
            let naive = |from: i64| all.iter().filter(|at| **at >= from).count() as u64;
            let count = window.summary(Span::Sliding { within }, now).count;
            prop_assert!(count >= naive(now - within + 1));
            prop_assert!(count <= naive(now - within + 1 - within / 64));
            prop_assert!(window.cells() <= EXACT + 66, "{} cells", window.cells());
            let mut bytes = Vec::new();
            window.encode(&mut bytes);
            prop_assert!(Window::decode(&bytes).is_some_and(|read| read == window));
            prop_assert!(Window::decode(&bytes[1..]).is_none_or(|read| read != window));
        }
    }

    #[test]
    fn a_sum_that_is_too_much_stays_a_number() {
        let mut window = Window::default();
        for at in 0..200 {
            window.add(Span::Sliding { within: 6400 }, Seen { at, value: f64::MAX, hash: None });
        }
        let summary = window.summary(Span::Sliding { within: 6400 }, 200);
        assert_eq!(summary.sum, f64::MAX);
        let row = serde_json::to_vec(&summary).unwrap();
        assert_eq!(serde_json::from_slice::<Summary>(&row).unwrap(), summary);
    }

    #[test]
    fn a_clock_that_steps_back_makes_time_stand_still() {
        let mut window = Window::default();
        for at in [100, 40, 101] {
            window.add(Span::Sliding { within: 50 }, Seen { at, value: 1.0, hash: None });
        }
        assert_eq!(window.summary(Span::Sliding { within: 50 }, 60).count, 3);
        assert_eq!(window.changes(Span::Sliding { within: 50 }, 101, 8), [150, 151]);
    }
}
