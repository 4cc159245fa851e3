//! What was concluded and is still to be said, in the order of the log.
//!
//! It is part of the state: killed between a conclusion and its record, the conclusion is still there. What gives way
//! gives way oldest first, and is counted.

use super::asking::Ask;
use super::json;
use super::keys::Held;
use super::window::Summary;
use citybrain_hub::policy::Row;
use citybrain_shared::Pos;
use citybrain_shared::view::Alarm;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Conclusions that wait to be said before [`Queue::is_behind`] asks for time: some groups of them.
const BEHIND: usize = 1_000;
/// Conclusions that wait, and bytes of the events that they hold. One commit, of 4,096 records or
/// frames, may bring some ten thousands with many rules on one type; what is beyond is dropped, the
/// oldest first, and counted.
const WAITING_MAX: usize = 100_000;
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A conclusion that was not written down for this long, by the records' own time, while others were:
/// it comes from a replay under other rules than those that ran. So many records came since then, each a
/// second or more behind the one before: a disk that takes nothing for hours brings none.
const STALE_US: i64 = 600_000_000;
const STALE_RECORDS: u32 = 5;
/// Starts of the node that a conclusion may wait through.
const STARTS_MAX: u8 = 3;

#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Intent>,
    bytes: usize,
    dropped: u64,
    /// Records that came while what waits was late already, and when the last of them did.
    late: (u32, i64),
    dirty: bool,
}

impl Queue {
    pub fn push(&mut self, pos: Pos, at_us: i64, what: Conclusion) {
        let intent = Intent { pos, at_us, starts: 0, what };
        self.bytes += intent.bytes();
        self.waiting.push_back(intent);
        while self.waiting.len() > WAITING_MAX || self.bytes > WAITING_BYTES_MAX && self.waiting.len() > 1 {
            self.drop_first();
        }
        self.dirty = true;
    }

    /// What is said up to there, but for the last so many of that record, waits no longer.
    pub fn take_said(&mut self, upto: Pos, but: u32) -> Vec<Intent> {
        self.forget_late();
        let before = self.waiting.partition_point(|i| i.pos < upto);
        let of_last = self.waiting.range(before..).take_while(|i| i.pos == upto).count();
        let said = before + of_last.saturating_sub(but as usize);
        self.dirty |= said > 0;
        (0..said).filter_map(|_| self.take_first()).collect()
    }

    fn take_first(&mut self) -> Option<Intent> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.bytes();
        Some(first)
    }

    fn drop_first(&mut self) {
        self.dropped += u64::from(self.take_first().is_some());
        self.dirty = true;
    }

    /// The node has started again. What several starts did not get rid of is not going to be said: it comes from a
    /// replay under other rules.
    pub fn start(&mut self) {
        let before = self.waiting.len();
        self.waiting.iter_mut().for_each(|i| i.starts += 1);
        self.waiting.retain(|i| i.starts < STARTS_MAX);
        self.bytes = self.waiting.iter().map(Intent::bytes).sum();
        self.dropped += (before - self.waiting.len()) as u64;
        self.dirty |= before > 0;
    }

    /// All that came before that position is a backup's: what it is to lead to may be done.
    pub fn begin_anew(&mut self, first: Pos) {
        let before = self.waiting.iter_mut().filter(|intent| intent.pos < first);
        before.flat_map(|intent| intent.what.held_mut()).for_each(|held| held.had_before = true);
        self.dirty = true;
    }

    /// A record has come that rules hear.
    pub fn forget_stale(&mut self, now_us: i64) {
        let is_late = |i: &Intent| i.at_us < now_us - STALE_US;
        if !self.waiting.front().is_some_and(is_late) || now_us < self.late.1 + 1_000_000 {
            return;
        }
        self.late = (self.late.0 + 1, now_us);
        while self.late.0 > STALE_RECORDS && self.waiting.front().is_some_and(is_late) {
            self.drop_first();
        }
    }

    /// Something was said, or the clock was set back: nothing is late by what came before.
    pub fn forget_late(&mut self) {
        self.late = (0, 0);
    }

    /// What that record led to of a rule and key, if it is still to be said.
    pub fn find(&self, pos: Pos, of: (&str, &str)) -> Option<&Conclusion> {
        let first = self.waiting.partition_point(|intent| intent.pos < pos);
        let of_that = self.waiting.range(first..).take_while(|intent| intent.pos == pos);
        of_that.map(|intent| &intent.what).find(|what| what.of() == Some(of))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Intent> {
        self.waiting.iter()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Should those who bring more wait?
    pub fn is_behind(&self) -> bool {
        self.waiting.len() > BEHIND
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// If it has changed since the last call.
    pub fn take_row(&mut self) -> Option<Row> {
        let is_dirty = std::mem::take(&mut self.dirty);
        is_dirty.then(|| (b"w".to_vec(), Some(json(&(self.dropped, &self.waiting)))))
    }

    pub fn load(&mut self, row: &[u8]) -> serde_json::Result<()> {
        (self.dropped, self.waiting) = serde_json::from_slice(row)?;
        self.bytes = self.waiting.iter().map(Intent::bytes).sum();
        Ok(())
    }
}

/// A conclusion that is still to be written down and acted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// The record that it follows from.
    pub pos: Pos,
    pub at_us: i64,
    /// Starts of the node since.
    #[serde(default)]
    pub starts: u8,
    pub what: Conclusion,
}

impl Intent {
    /// Bytes that it keeps in memory, nearly.
    pub fn bytes(&self) -> usize {
        256 + match &self.what {
            Conclusion::Fire { held, .. } | Conclusion::Change { held, .. } => held.event.len(),
            Conclusion::Over { held, over, .. } => held.event.len() + over.event.len(),
            Conclusion::Meet(meet) => meet.held.event.len(),
            Conclusion::Ask(ask) => 256 + ask.asked.by.len() + 2 * ask.known.key.len() + ask.known.title.len(),
            Conclusion::GoOn(alarm) | Conclusion::Return(alarm) => 256 + alarm.title.len(),
            Conclusion::HandOn(id) | Conclusion::Repeat(id) => id.len(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conclusion {
    Fire {
        rule: String,
        key: String,
        held: Held,
        window: Option<Summary>,
    },
    /// The severity is another one now.
    Change {
        rule: String,
        key: String,
        held: Held,
        window: Option<Summary>,
    },
    /// `held` is the event that it was raised by, `over` the one that ended it.
    Over {
        rule: String,
        key: String,
        held: Held,
        over: Held,
        window: Option<Summary>,
    },
    Meet(Meet),
    Ask(Ask),
    /// The alarm goes to its node, which has lost it, as it was known here when that node asked: its own words may be
    /// folded in by the time that this is said.
    Return(Box<Alarm>),
    /// The alarm of that id is of a rule that is not there any more, and another raises it.
    HandOn(String),
    /// An alarm that others have raised here is raised by one more, of whom the parent has told; or it was over there.
    GoOn(Box<Alarm>),
    /// The alarm of that id is told once more as it is: a node above may have lost its disk.
    Repeat(String),
}

impl Conclusion {
    /// The event that it speaks of.
    fn held_mut(&mut self) -> Option<&mut Held> {
        match self {
            Conclusion::Fire { held, .. }
            | Conclusion::Change { held, .. }
            | Conclusion::Over { held, .. }
            | Conclusion::Meet(Meet { held, .. }) => Some(held),
            Conclusion::Ask(_)
            | Conclusion::Return(_)
            | Conclusion::HandOn(_)
            | Conclusion::GoOn(_)
            | Conclusion::Repeat(_) => None,
        }
    }

    /// The rule and the key that it is of.
    pub fn of(&self) -> Option<(&str, &str)> {
        match self {
            Conclusion::Fire { rule, key, .. }
            | Conclusion::Change { rule, key, .. }
            | Conclusion::Over { rule, key, .. }
            | Conclusion::Meet(Meet { rule, key, .. }) => Some((rule, key)),
            Conclusion::Ask(_)
            | Conclusion::Return(_)
            | Conclusion::HandOn(_)
            | Conclusion::GoOn(_)
            | Conclusion::Repeat(_) => None,
        }
    }
}

/// An event that is met when all before it is said: one that would have a rule fire which depends on an alarm, as only
/// then is it known whether that is active; and one behind a moment that was planned for its key and has passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meet {
    pub rule: String,
    pub key: String,
    pub held: Held,
    /// `None`: what is before it has a say in that, so it is counted when it is met.
    pub counted: Option<Counted>,
}

/// What an event has found when it was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// With the event in it.
    pub window: Option<Summary>,
    /// The window has a cell more than before it.
    pub grew: bool,
    /// Before this event the condition was over already, since a moment at which its calm began.
    pub faded: bool,
}
