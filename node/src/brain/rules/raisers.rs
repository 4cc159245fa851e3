//! Which rules raise an alarm, worst first: while there is one, the alarm is active.

use citybrain_shared::config::rules::Severity;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

/// One of the alarms that a rule raises for a key: [`alarms::hash`](super::alarms::hash) of it, and how bad it is.
pub type Raised = (u64, Severity);

/// A rule that is on for a key, and how bad it says that the alarm is. The greatest is the worst, and of those the last
/// in the order in which timers come: if all end at one moment, not each of them hands the alarm on to the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Raiser {
    pub severity: Reverse<Severity>,
    /// Its index in the set.
    pub rule: u32,
    pub key: String,
}

/// By the alarm that they raise.
#[derive(Debug, Default)]
pub struct Raisers(HashMap<u64, BTreeSet<Raiser>>);

impl Raisers {
    /// Those of an alarm, the worst first.
    pub fn of(&self, alarm: u64) -> impl Iterator<Item = &Raiser> {
        self.0.get(&alarm).into_iter().flat_map(|all| all.iter().rev())
    }

    pub fn has(&self, alarm: u64, raiser: &Raiser) -> bool {
        self.0.get(&alarm).is_some_and(|all| all.contains(raiser))
    }

    pub fn add(&mut self, rule: u32, key: &str, raised: &[Raised]) {
        for (alarm, severity) in raised {
            let raiser = Raiser { severity: Reverse(*severity), rule, key: key.to_owned() };
            self.0.entry(*alarm).or_default().insert(raiser);
        }
    }

    pub fn remove(&mut self, rule: u32, key: &str, raised: &[Raised]) {
        for (alarm, severity) in raised {
            let Some(all) = self.0.get_mut(alarm) else { continue };
            all.remove(&Raiser { severity: Reverse(*severity), rule, key: key.to_owned() });
            if all.is_empty() {
                self.0.remove(alarm);
            }
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
