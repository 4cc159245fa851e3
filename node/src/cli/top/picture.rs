//! What is known of a node at one moment. Rates come from two answers; time is an argument.

use crate::cli::render::Zone;
use citybrain_shared::view::{Alarms, Event, Status, TreeNode};
use std::time::Duration;

/// Rates kept for the little curve.
const HISTORY_MAX: usize = 120;

/// One round of questions.
#[derive(Clone, Debug)]
pub struct Answers {
    pub node: String,
    pub status: Status,
    pub tree: Vec<TreeNode>,
    /// The worst ones, and how many there are.
    pub alarms: Alarms,
    /// The newest events, oldest first.
    pub tail: Vec<Event>,
}

/// Events a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    pub accepted: f64,
    pub from_below: f64,
    pub from_above: f64,
    pub delivered: f64,
    pub refused: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Picture {
    pub answers: Option<Answers>,
    pub rates: Rates,
    /// Events a second, all together, newest last.
    pub history: Vec<u64>,
    /// When the node last answered, and now; both since the screen began.
    pub answered_at: Duration,
    pub now: Duration,
    /// Why it does not answer.
    pub trouble: Option<String>,
    pub paused: bool,
    /// First row of the tree that is shown.
    pub scroll: usize,
    /// Of the times it shows.
    pub zone: Zone,
}

impl Picture {
    /// Takes what a round of questions brought at `at`.
    pub fn take(&mut self, at: Duration, answer: Result<Answers, String>) {
        if self.paused {
            return;
        }
        let new = match answer {
            Ok(new) => new,
            Err(why) => {
                self.trouble = Some(why);
                return;
            }
        };
        if let Some(old) = &self.answers
            && at > self.answered_at
            // After a restart the door's counters begin again.
            && old.status.boots == new.status.boots
        {
            let s = (at - self.answered_at).as_secs_f64();
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / s;
            let (a, b) = (&new.status, &old.status);
            self.rates = Rates {
                accepted: rate(a.counters.accepted, b.counters.accepted),
                from_below: rate(a.counters.received_up, b.counters.received_up),
                from_above: rate(a.counters.received_down, b.counters.received_down),
                delivered: rate(a.door.delivered, b.door.delivered),
                refused: rate(a.counters.dead_letters, b.counters.dead_letters),
            };
            let all = self.rates.accepted + self.rates.from_below + self.rates.from_above;
            self.history.push(all.round() as u64);
            let extra = self.history.len().saturating_sub(HISTORY_MAX);
            self.history.drain(..extra);
        }
        (self.answers, self.answered_at, self.trouble) = (Some(new), at, None);
    }
}
