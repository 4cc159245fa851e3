//! What whoever supervises looks at: how many there are of what, how long they took, what is overdue,
//! what came back, who calls again and again, and where.
//!
//! As in [`super::rates`] a case counts once, at the node that owns it: the parts below a node, and its
//! own, add up to the whole.

use super::{Cases, Held};
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{Case, Status};
use citybrain_shared::view::{Caller, GroupBy, HotSpot, StatsRow, Took};
use std::collections::BTreeMap;

/// Cells of about 200 m: what is nearer is one spot.
const CELL_DEGREES: f64 = 0.002;
/// Ids of one row that are told.
const IDS_MAX: usize = 10;

/// Which district a node is of, if its config or that of one above it says so.
pub type District<'a> = &'a dyn Fn(&Address) -> Option<String>;

/// Which cases are looked at.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only those owned by this node or below it.
    pub under: Option<Address>,
    /// Code or name.
    pub category: Option<String>,
    /// Only those opened at or after.
    pub since: Option<DateTime<Utc>>,
}

impl Scope {
    fn holds(&self, me: &Address, case: &Case) -> bool {
        // What was handed to a node above or beside is counted there.
        me.covers(&case.owner)
            && self.under.as_ref().is_none_or(|u| u.covers(&case.owner))
            && self.category.as_ref().is_none_or(|c| *c == case.category || *c == case.category_name)
            && self.since.is_none_or(|since| case.opened >= since)
    }
}

/// What a case is counted under.
pub fn key_of(case: &Case, by: GroupBy, me: &Address, district: District<'_>) -> String {
    let some = |s: &str| if s.is_empty() { "-".to_owned() } else { s.to_owned() };
    match by {
        GroupBy::Node => case.owner.to_string(),
        GroupBy::Child => me.child_towards(&case.owner).unwrap_or_else(|| me.clone()).to_string(),
        GroupBy::District => some(&district(&case.owner).unwrap_or_default()),
        GroupBy::Category => some(&case.category),
        GroupBy::Department => some(&case.department),
        GroupBy::Governance => some(case.governance.as_deref().unwrap_or_default()),
        GroupBy::Channel => some(&case.channel),
        GroupBy::Kind => case.kind.to_string(),
        GroupBy::Status => case.status.to_string(),
        GroupBy::All => "all".into(),
    }
}

impl Cases {
    fn within<'a>(&'a self, scope: &Scope) -> impl Iterator<Item = &'a Held> {
        self.held.values().filter(|h| scope.holds(&self.me, &h.case))
    }

    /// Open cases over a limit, the longest first.
    pub fn overdue(&self, scope: &Scope, now: DateTime<Utc>) -> Vec<&Case> {
        let over =
            |c: &Case| c.clocks.iter().filter(|k| k.stopped.is_none() && k.name != "climb").filter_map(|k| k.due).min();
        let open = self.open_ones().map(|h| &h.case);
        let mut all: Vec<_> = open.filter(|c| scope.holds(&self.me, c) && c.is_overdue(now)).collect();
        all.sort_by_key(|c| (over(c), c.id.clone()));
        all
    }

    /// Cases that were closed and came back, the latest first.
    pub fn reopened(&self, scope: &Scope) -> Vec<&Case> {
        let mut all: Vec<_> = self.within(scope).map(|h| &h.case).filter(|c| c.reopened > 0).collect();
        all.sort_by_key(|c| std::cmp::Reverse((c.changed, c.id.clone())));
        all
    }

    /// Places where the same is reported at least `min` times, the worst first. Cases that were merged
    /// into another are the same report, and a spot's worth all the more.
    pub fn hot_spots(&self, scope: &Scope, min: u64) -> Vec<HotSpot> {
        let mut spots: BTreeMap<(String, Cell), Vec<&Case>> = BTreeMap::new();
        for case in self.within(scope).map(|h| &h.case) {
            let gone = matches!(case.status, Status::Withdrawn | Status::Rejected);
            if let Some(cell) = cell_of(case).filter(|_| !gone && case.excluded.is_none()) {
                spots.entry((case.category.clone(), cell)).or_default().push(case);
            }
        }
        let mut all: Vec<HotSpot> = spots.into_values().filter(|c| c.len() as u64 >= min).map(spot).collect();
        all.sort_by(|a, b| b.cases.cmp(&a.cases).then_with(|| b.newest.cmp(&a.newest)).then_with(|| a.ids.cmp(&b.ids)));
        all
    }

    /// People who called at least `min` times, the busiest first, by the telephone number that this
    /// node keeps; `shown`: with their names.
    pub fn repeat_callers(&self, scope: &Scope, min: u64, shown: bool) -> Vec<Caller> {
        let mut calls: BTreeMap<String, Vec<&Held>> = BTreeMap::new();
        for held in self.within(scope) {
            let Some(contact) = &held.contact else { continue };
            let number: String = contact.phone.chars().filter(char::is_ascii_digit).collect();
            if !number.is_empty() {
                calls.entry(number).or_default().push(held);
            }
        }
        let mut all: Vec<Caller> =
            calls.into_values().filter(|c| c.len() as u64 >= min).map(|c| caller(&c, shown)).collect();
        all.sort_by(|a, b| b.cases.cmp(&a.cases).then_with(|| a.ids.cmp(&b.ids)));
        all
    }
}

/// How many there are of each, and how long they took, counted case by case.
pub struct Counting {
    by: GroupBy,
    scope: Scope,
    groups: BTreeMap<String, Pile>,
    all: Pile,
}

impl Counting {
    pub fn new(by: GroupBy, scope: Scope) -> Counting {
        Counting { by, scope, groups: BTreeMap::new(), all: Pile::default() }
    }

    pub fn add(&mut self, cases: &Cases, case: &Case, district: District<'_>, now: DateTime<Utc>) {
        if self.scope.holds(&cases.me, case) {
            self.groups.entry(key_of(case, self.by, &cases.me, district)).or_default().add(case, now);
            self.all.add(case, now);
        }
    }

    /// By key, and of all.
    pub fn done(self) -> (Vec<StatsRow>, StatsRow) {
        (self.groups.into_iter().map(|(key, pile)| pile.row(key)).collect(), self.all.row("all".into()))
    }
}

/// A square of the map, or words that say where, at one node.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    At(i64, i64),
    Words(Address, String),
}

fn cell_of(case: &Case) -> Option<Cell> {
    let place = case.place.as_ref()?;
    if let (Some(lat), Some(lon)) = (place.lat, place.lon) {
        let cell = |degrees: f64| (degrees / CELL_DEGREES).floor() as i64;
        return Some(Cell::At(cell(lat), cell(lon)));
    }
    let words = place.text.trim();
    (!words.is_empty()).then(|| Cell::Words(case.opened_at.clone(), words.to_owned()))
}

fn spot(mut cases: Vec<&Case>) -> HotSpot {
    cases.sort_by_key(|c| std::cmp::Reverse((c.opened, c.id.clone())));
    let newest = cases[0];
    let place = newest.place.clone().unwrap_or_default();
    // In the middle of them all, as it is no secret where a lamp is broken.
    let mean = |of: fn(&citybrain_shared::case::Place) -> Option<f64>| {
        let all: Vec<f64> = cases.iter().filter_map(|c| of(c.place.as_ref()?)).collect();
        (!all.is_empty()).then(|| (all.iter().sum::<f64>() / all.len() as f64 * 1e5).round() / 1e5)
    };
    HotSpot {
        category: newest.category.clone(),
        category_name: newest.category_name.clone(),
        place: place.text,
        lat: mean(|p| p.lat),
        lon: mean(|p| p.lon),
        cases: cases.len() as u64,
        open: cases.iter().filter(|c| c.status.is_open()).count() as u64,
        newest: newest.opened,
        ids: cases.iter().take(IDS_MAX).map(|c| c.id.clone()).collect(),
    }
}

fn caller(calls: &[&Held], shown: bool) -> Caller {
    let mut calls = calls.to_vec();
    calls.sort_by_key(|h| std::cmp::Reverse((h.case.opened, h.case.id.clone())));
    Caller {
        contact: calls[0].contact.clone().filter(|_| shown),
        cases: calls.len() as u64,
        open: calls.iter().filter(|h| h.case.status.is_open()).count() as u64,
        newest: calls[0].case.opened,
        ids: calls.iter().take(IDS_MAX).map(|h| h.case.id.clone()).collect(),
    }
}

/// Cases of one key, being counted.
#[derive(Default)]
struct Pile {
    row: StatsRow,
    took: Vec<TimeDelta>,
}

impl Pile {
    fn add(&mut self, case: &Case, now: DateTime<Utc>) {
        let r = &mut self.row;
        r.cases += 1;
        r.reopened += u64::from(case.reopened > 0);
        r.returned += u64::from(case.returns > 0);
        match case.status {
            Status::Closed => r.closed += 1,
            Status::Rejected => r.rejected += 1,
            Status::Withdrawn => r.withdrawn += 1,
            _ => r.open += 1,
        }
        r.overdue += u64::from(case.status.is_open() && case.is_overdue(now));
        if let Some(clock) = case.clock("solution").filter(|c| c.due.is_some()) {
            r.with_limit += 1;
            r.in_time += u64::from(clock.is_kept());
            r.late += u64::from(clock.stopped.is_some() && !clock.is_kept());
        }
        if case.status == Status::Closed {
            self.took.extend(case.took());
        }
    }

    fn row(mut self, key: String) -> StatsRow {
        self.took.sort_unstable();
        let seconds = |t: &TimeDelta| t.num_seconds();
        // Nearest rank: a time that some case really took.
        let at = |share: f64| {
            let rank = (share * self.took.len() as f64).ceil() as usize;
            self.took.get(rank.saturating_sub(1)).map(seconds)
        };
        let took = || {
            Some(Took {
                p50_s: at(0.5)?,
                p90_s: at(0.9)?,
                p99_s: at(0.99)?,
                max_s: at(1.0)?,
                sum_s: self.took.iter().map(seconds).sum(),
            })
        };
        StatsRow { took: took(), key, ..self.row }
    }
}
