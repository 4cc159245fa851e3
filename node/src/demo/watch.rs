//! Watches a tree while it works: reads each node's records as they come, and knows who has what.

use super::account::Record;
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

/// One place, as its last look left it.
#[derive(Default)]
struct Seen {
    /// Watched events that it has.
    count: AtomicU64,
    /// Of those acknowledged at or below it before the look, how many it did not have.
    behind: AtomicU64,
}

pub struct Watch {
    places: Vec<Arc<Seen>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// `due[i]` counts what was acknowledged at or below the tree's place `i`.
    pub fn begin(apis: Vec<Api>, numbers: &Numbers, due: &Arc<Vec<AtomicU64>>) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let places: Vec<Arc<Seen>> = apis.iter().map(|_| Arc::default()).collect();
        for (place, (api, seen)) in apis.into_iter().zip(&places).enumerate() {
            let (numbers, due, seen, stop) = (numbers.clone(), due.clone(), seen.clone(), stop.clone());
            std::thread::spawn(move || watch_node(&api, &numbers, &due[place], &seen, &stop));
        }
        Watch { places, stop }
    }

    /// Watched events that the place has.
    pub fn count(&self, place: usize) -> u64 {
        self.places[place].count.load(Ordering::Relaxed)
    }

    /// Watched events that the tier has, and those that it should have and does not.
    pub fn of_tier(&self, tree: &Tree, tier: Tier) -> (u64, u64) {
        tree.of_tier(tier).fold((0, 0), |(count, behind), place| {
            (count + self.count(place), behind + self.places[place].behind.load(Ordering::Relaxed))
        })
    }
}

/// Its threads end after the request that they are at.
impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A node that does not answer (it was killed, say) is asked again; it goes on behind what was read.
fn watch_node(api: &Api, numbers: &Numbers, due: &AtomicU64, seen: &Seen, stop: &AtomicBool) {
    let mut has: HashSet<usize> = HashSet::new();
    let mut after = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = due.load(Ordering::Relaxed);
        let mut reached = after;
        let answer = api.records_page(after, |record: Record| {
            reached = record.pos;
            if let (Some(source), Some(id)) = (record.source, record.id)
                && let Some(number) = numbers.get(&(source, id))
            {
                has.insert(*number);
            }
        });
        after = answer.unwrap_or(reached);
        let count = has.len() as u64;
        seen.count.store(count, Ordering::Relaxed);
        seen.behind.store(due.saturating_sub(count), Ordering::Relaxed);
        std::thread::sleep(EVERY);
    }
}
