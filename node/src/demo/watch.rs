//! Watches a tree while it works: reads each node's records as they come, and knows who has what.

use super::account::{Published, Record};
use super::api::Api;
use super::tree::Tree;
use citybrain_shared::Tier;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Between two looks at a node.
const EVERY: Duration = Duration::from_millis(300);

/// The events that are watched for: (source, id) to its number.
pub type Numbers = Arc<HashMap<(String, String), usize>>;

pub struct Watch {
    /// Of each place of the tree: watched events that it has.
    counts: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    pub fn begin(apis: Vec<Api>, numbers: &Numbers) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let counts: Vec<Arc<AtomicU64>> = apis.iter().map(|_| Arc::default()).collect();
        for (api, count) in apis.into_iter().zip(&counts) {
            let (numbers, count, stop) = (numbers.clone(), count.clone(), stop.clone());
            std::thread::spawn(move || watch_node(&api, &numbers, &count, &stop));
        }
        Watch { counts, stop }
    }

    /// Watched events that the place has.
    pub fn count(&self, place: usize) -> u64 {
        self.counts[place].load(Ordering::Relaxed)
    }

    /// Watched events that the tier has.
    pub fn of_tier(&self, tree: &Tree, tier: Tier) -> u64 {
        tree.of_tier(tier).map(|place| self.count(place)).sum()
    }

    /// Does every place have as many as were acknowledged at and below it?
    pub fn has_all(&self, tree: &Tree, published: &[Published]) -> bool {
        let mut due = vec![0u64; tree.places.len()];
        for event in published.iter().filter(|p| p.acknowledged) {
            for up in tree.upward(event.leaf) {
                due[up] += 1;
            }
        }
        due.iter().enumerate().all(|(place, due)| self.count(place) >= *due)
    }
}

/// Its threads end after the request that they are at.
impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A node that does not answer (it was killed, say) is asked again; it goes on behind what was read.
fn watch_node(api: &Api, numbers: &Numbers, count: &AtomicU64, stop: &AtomicBool) {
    let mut seen: HashSet<usize> = HashSet::new();
    let mut after = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut reached = after;
        let answer = api.records_page(after, |record: Record| {
            reached = record.pos;
            if let (Some(source), Some(id)) = (record.source, record.id)
                && let Some(number) = numbers.get(&(source, id))
                && seen.insert(*number)
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        after = answer.unwrap_or(reached);
        std::thread::sleep(EVERY);
    }
}
