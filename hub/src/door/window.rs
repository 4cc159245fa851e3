//! The cursor of one session: what it has been given, and what of that is settled.
//!
//! A record is settled when every message made of it is acknowledged, or when there was none.
//! The cursor is the newest position up to which all is settled, and the settled ones beyond it.

use citybrain_shared::Pos;
use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;

#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Everything up to here was looked at: given to the client, or nothing for it.
    seen: Pos,
    /// Given and, from the front on, not all settled; by position.
    open: VecDeque<Open>,
    /// Settled in an earlier life of the session, and not looked at again yet.
    earlier: BTreeSet<Pos>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    pos: Pos,
    /// Messages of this record that the client still holds.
    left: u8,
}

impl Window {
    /// Goes on from a cursor.
    pub(crate) fn resume(upto: Pos, beyond: impl IntoIterator<Item = Pos>) -> Window {
        let earlier = beyond.into_iter().filter(|p| *p > upto).collect();
        Window { seen: upto, open: VecDeque::new(), earlier }
    }

    pub(crate) fn seen(&self) -> Pos {
        self.seen
    }

    /// Everything up to `pos` was looked at. Going back is not possible, and no error.
    pub(crate) fn see(&mut self, pos: Pos) {
        self.seen = self.seen.max(pos);
    }

    /// A message of the record at `pos` goes to the client. Positions never decrease.
    pub(crate) fn give(&mut self, pos: Pos) {
        self.see(pos);
        match self.open.back_mut() {
            Some(last) if last.pos == pos => last.left += 1,
            _ => self.open.push_back(Open { pos, left: 1 }),
        }
    }

    /// Was the record at `pos` settled in an earlier life of the session? Then it is not to be given
    /// again. Asked of each record before it is given; positions never decrease.
    pub(crate) fn was_settled(&mut self, pos: Pos) -> bool {
        let was = self.earlier.remove(&pos);
        if was {
            self.see(pos);
            if !self.open.is_empty() {
                self.open.push_back(Open { pos, left: 0 });
            }
        }
        was
    }

    /// One message of the record at `pos` is acknowledged.
    pub(crate) fn settle(&mut self, pos: Pos) {
        if let Ok(i) = self.open.binary_search_by_key(&pos, |o| o.pos) {
            self.open[i].left = self.open[i].left.saturating_sub(1);
        }
        while self.open.front().is_some_and(|o| o.left == 0) {
            self.open.pop_front();
        }
    }

    /// Records that were given, from the oldest one that is not settled.
    pub(crate) fn under_way(&self) -> usize {
        self.open.len()
    }

    /// Everything up to here is settled.
    pub(crate) fn upto(&self) -> Pos {
        self.open.front().map_or(self.seen, |o| Pos(o.pos.0 - 1))
    }

    /// Settled beyond [`Window::upto`], as far as it matters: positions with nothing for this client
    /// are left out.
    pub(crate) fn beyond(&self) -> Vec<Pos> {
        let settled = self.open.iter().filter(|o| o.left == 0).map(|o| o.pos);
        // Those of an earlier life lie behind all that was looked at since.
        settled.chain(self.earlier.range(self.upto().next()..).copied()).collect()
    }
}

/// The packet ids of messages of records, from 1 on. An odd number, so that near positions share none.
pub(crate) const RECORD_IDS: u16 = 65_471;

/// Those of QoS 2 messages of no record: as many as are fetched at once.
pub(crate) const LOOSE_IDS: RangeInclusive<u16> = RECORD_IDS + 1..=u16::MAX;

/// The packet id of a message of a record: part 0 to 3 of the record at `pos`.
///
/// Made of the position, so that a message is delivered again under the id that it had, even by
/// another process after a kill, and no id needs to be stored. Two messages may have the same id;
/// the later waits until the earlier is acknowledged, which is 16,367 positions apart or more.
pub(crate) fn packet_id(pos: Pos, part: u8) -> u16 {
    let ids = u64::from(RECORD_IDS);
    let n = (pos.0 % ids) * 4 + u64::from(part);
    (n % ids) as u16 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn a_record_with_two_messages_is_settled_by_the_second_acknowledgement() {
        let mut w = Window::resume(Pos(4), []);
        w.give(Pos(6));
        w.give(Pos(6));
        w.give(Pos(9));
        w.see(Pos(20));
        assert_eq!(w.upto(), Pos(5));
        w.settle(Pos(6));
        w.settle(Pos(9));
        assert_eq!((w.upto(), w.beyond()), (Pos(5), vec![Pos(9)]));
        w.settle(Pos(6));
        assert_eq!((w.upto(), w.beyond()), (Pos(20), vec![]));
    }

    proptest! {
        #[test]
        fn ids_are_legal_and_near_positions_never_share_one(pos in 0u64.., d in 0u64..16_367, a in 0u8..4, b in 0u8..4) {
            let near = Pos(pos.saturating_add(d));
            prop_assert!((1..=RECORD_IDS).contains(&packet_id(Pos(pos), a)));
            prop_assert_eq!(packet_id(Pos(pos), a) == packet_id(near, b), (near, b) == (Pos(pos), a));
        }

        /// Whatever the order of acknowledgements and wherever the session breaks off: after a
        /// resume from the cursor exactly the unsettled records come again, in order.
        #[test]
        fn a_resume_redelivers_exactly_what_was_not_settled(
            parts in proptest::collection::vec(0u8..3, 1..60), acks in proptest::collection::vec(any::<u16>(), 0..90),
            way in 0usize..60,
        ) {
            let mut w = Window::resume(Pos::ZERO, []);
            let mut open: Vec<Pos> = Vec::new();
            let mut left: BTreeMap<Pos, u8> = BTreeMap::new();
            for (i, n) in parts.iter().enumerate() {
                let pos = Pos(i as u64 + 1);
                w.see(pos);
                for _ in 0..*n {
                    w.give(pos);
                    open.push(pos);
                    *left.entry(pos).or_default() += 1;
                }
            }
            for a in acks {
                if open.is_empty() { break; }
                let pos = open.swap_remove(a as usize % open.len());
                w.settle(pos);
                *left.get_mut(&pos).unwrap() -= 1;
            }
            let want: Vec<Pos> = left.iter().filter(|(_, n)| **n > 0).map(|(p, _)| *p).collect();
            let (upto, beyond) = (w.upto(), w.beyond().into_iter().collect::<BTreeSet<_>>());
            let again: Vec<Pos> = left.keys().copied().filter(|p| *p > upto && !beyond.contains(p)).collect();
            prop_assert_eq!(&again, &want);
            // The same holds once more for a session that resumes, comes a part of the way, gets no
            // acknowledgement and breaks off.
            let mut second = Window::resume(upto, beyond);
            for pos in left.keys().filter(|p| **p > upto).take(way) {
                if !second.was_settled(*pos) { second.give(*pos) }
            }
            let (upto, beyond) = (second.upto(), second.beyond());
            let again: Vec<Pos> = left.keys().copied().filter(|p| *p > upto && !beyond.contains(p)).collect();
            prop_assert_eq!(again, want);
        }
    }
}
