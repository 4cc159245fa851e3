//! What goes down, for all children at once.

use crate::log::{Error as LogError, Reader};
use citybrain_shared::limits::FRAME_RECORDS_MAX;
use citybrain_shared::record::{Direction, Header};
use citybrain_shared::{Address, Lane, Pos, Selector};
use std::collections::VecDeque;

/// Reads that one look at the log makes at most, so that the driver comes back to its other work in between.
const READS_MAX: usize = 16;

/// The downward records of the newest part of the log, so that many children need not each look
/// through all that goes up. One for all children; filled by one reader.
#[derive(Debug, Default)]
pub struct Downward {
    /// Covers the positions in (`after`, `upto`].
    after: Pos,
    upto: Pos,
    items: VecDeque<(Pos, Lane, Selector)>,
}

/// Index entries kept, about 200 bytes each. A child that is further behind reads the log itself.
const ITEMS_MAX: usize = 16 * 1024;

/// Children hear of the log's growth at such steps even if nothing is for them, so that their
/// cursors follow.
const STEP_POSITIONS: u64 = super::sender::COVER_RECORDS_MIN;

impl Downward {
    pub fn new(last: Pos) -> Downward {
        Downward { after: last, upto: last, items: VecDeque::new() }
    }

    /// Looks through what was committed since. False if there is more to look through.
    ///
    /// # Errors
    /// When the log cannot be read there; nothing is skipped.
    pub fn fill(&mut self, reader: &Reader) -> Result<bool, LogError> {
        for _ in 0..READS_MAX {
            let entries = match reader.read(self.upto, None, 1024, 1024 * 1024) {
                Ok(entries) => entries,
                // Nobody can be sent what is not there; the children's own reading records it.
                Err(LogError::Damaged { upto, .. }) if upto > self.upto => {
                    self.upto = upto;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let Some(last) = entries.last().map(|e| e.pos) else { return Ok(true) };
            for e in &entries {
                let Ok((h, _)) = Header::decode(&e.bytes) else { continue };
                if h.direction == Direction::Down
                    && h.kind.is_event()
                    && let Ok(selector) = Selector::parse(h.target)
                {
                    self.items.push_back((e.pos, h.lane, selector));
                }
            }
            self.upto = last;
            while self.items.len() > ITEMS_MAX {
                self.after = self.items.pop_front().map_or(self.after, |(pos, ..)| pos);
            }
        }
        Ok(false)
    }

    /// The log was looked through up to here.
    pub(super) fn upto(&self) -> Pos {
        self.upto
    }

    /// How far a child has to look.
    pub fn goal(&self) -> Pos {
        let newest = self.items.back().map_or(Pos::ZERO, |(pos, ..)| *pos);
        newest.max(Pos(self.upto.0 / STEP_POSITIONS * STEP_POSITIONS))
    }

    /// Positions after `looked` that are for `child`, oldest first; `None` if this does not
    /// go back so far, or no further: a lane that reads the log itself may be ahead of it, and the
    /// other one must get there, too.
    pub(super) fn for_child(&self, child: &Address, lane: Lane, looked: Pos) -> Option<impl Iterator<Item = Pos>> {
        (looked >= self.after && looked < self.upto).then(|| {
            let from = self.items.partition_point(|(pos, ..)| *pos <= looked);
            let due = self.items.iter().skip(from).filter(move |(_, l, s)| *l == lane && s.may_reach(child));
            due.map(|(pos, ..)| *pos).take(FRAME_RECORDS_MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a(s: &str) -> Address {
        Address::parse(s).unwrap()
    }

    #[test]
    fn a_childs_records_are_found_and_it_is_said_where_they_cannot_be() {
        let mut downward = Downward::new(Pos(10));
        for (pos, target) in [(12, "c/s"), (13, "c/t"), (20, "c/**")] {
            downward.items.push_back((Pos(pos), Lane::Routine, Selector::parse(target).unwrap()));
        }
        downward.upto = Pos(25);
        let due = |looked| downward.for_child(&a("c/s"), Lane::Routine, Pos(looked)).map(|i| i.collect::<Vec<_>>());
        assert_eq!(due(10), Some(vec![Pos(12), Pos(20)]));
        assert_eq!(due(12), Some(vec![Pos(20)]));
        assert_eq!(due(9), None);
        assert_eq!((due(24), due(25)), (Some(Vec::new()), None), "what is beyond it only the log knows");
        assert_eq!(downward.goal(), Pos(20));
    }
}
