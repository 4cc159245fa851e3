//! Retained messages that a new subscription brings, some at a time.

use super::Delivery;
use crate::door::core::look_ahead;
use crate::door::message::{Item, Message};
use crate::door::route::Sub;
use crate::door::{Door, now_us, route, sys};
use crate::state::Retained;
use crate::state::filter_cost as cost;
use citybrain_shared::{Pos, topic};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

/// Retained messages fetched, and topics looked at, under one look into the state.
pub(super) const RETAINED_AT_ONCE: usize = 64;
const RETAINED_LOOKED_AT: usize = 1024;

/// Retained messages that a new subscription still gets.
pub(crate) struct RetainedScan {
    filter: String,
    sub: Sub,
    /// Topics up to here are done.
    after: Option<String>,
    /// What came later is delivered as it comes.
    upto: Pos,
}

impl RetainedScan {
    pub(crate) fn new(filter: &str, sub: Sub, upto: Pos) -> RetainedScan {
        RetainedScan { filter: filter.to_owned(), sub, after: None, upto }
    }

    /// True: that was all.
    fn collect(&mut self, all: &BTreeMap<String, Retained>, ready: &mut VecDeque<Item>) -> bool {
        let mut take = |topic: &str, r: &Retained| {
            if r.pos <= self.upto {
                ready.push_back(Item::retained(Message::retained(topic, r), &self.sub));
            }
        };
        let Some(wild) = self.filter.find(['+', '#']) else {
            if let Some(r) = all.get(&self.filter) {
                take(&self.filter, r);
            }
            return true;
        };
        // `a/#` matches `a` too.
        let prefix = self.filter[..wild].trim_end_matches('/');
        let from = match &self.after {
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(prefix),
        };
        let (mut taken, mut last) = (0, None);
        let range = all.range::<str, _>((from, Bound::Unbounded));
        for (n, (topic, r)) in range.take_while(|(t, _)| t.starts_with(prefix)).enumerate() {
            if n == RETAINED_LOOKED_AT || taken == RETAINED_AT_ONCE {
                self.after = last;
                return false;
            }
            if topic::matches(&self.filter, topic) {
                taken += 1;
                take(topic, r);
            }
            last = Some(topic.clone());
        }
        true
    }
}

impl Delivery {
    /// Of one filter the newest subscription counts alone.
    pub(crate) fn send_retained(&mut self, scans: Vec<RetainedScan>) {
        let newest: HashMap<String, usize> = scans.iter().enumerate().map(|(n, s)| (s.filter.clone(), n)).collect();
        self.retained.retain(|s| !newest.contains_key(&s.filter));
        self.retained.extend(scans.into_iter().enumerate().filter(|(n, s)| newest[&s.filter] == *n).map(|(_, s)| s));
        self.retained_cost = self.retained.iter().map(|s| cost(&s.filter)).sum();
    }

    /// Its subscription is another now: what it still brings comes by that.
    pub(super) fn change_retained(&mut self, filter: &str, sub: Sub) {
        self.retained.iter_mut().filter(|s| s.filter == filter).for_each(|s| s.sub = sub);
    }

    /// Its subscription is over, and brings no more than is fetched already.
    pub(crate) fn drop_retained(&mut self, filter: &str) {
        self.retained.retain(|s| s.filter != filter);
        self.retained_cost = self.retained.iter().map(|s| cost(&s.filter)).sum();
    }

    /// Fetches some retained messages; false: none are asked for.
    pub(super) fn next_retained(&mut self, door: &Door) -> bool {
        let Some(scan) = self.retained.front_mut() else { return false };
        let ready = &mut self.ready;
        let done = if topic::is_link(&door.link.root, &scan.filter) {
            if let Some(payload) = door.links.retained(&scan.filter) {
                let message = route::live_message(&scan.filter, &[], payload, 0, true, now_us());
                ready.push_back(Item::retained(message, &scan.sub));
            }
            true
        } else if scan.filter.starts_with(sys::PREFIX) {
            ready.extend(door.sys.now(door, &scan.filter, &scan.sub));
            true
        } else {
            // What is being committed is newer than what this scan looks for, and comes by the log.
            look_ahead(&*door.core, |state| scan.collect(&state.retained, ready))
        };
        if done && let Some(scan) = self.retained.pop_front() {
            self.retained_cost -= cost(&scan.filter);
        }
        true
    }

    /// The same of those whose retained messages are still to be fetched.
    pub(crate) fn retained_cost(&self) -> usize {
        self.retained_cost
    }
}
