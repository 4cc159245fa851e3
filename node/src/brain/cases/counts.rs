//! What whoever supervises counts: how many there are of what, and how long they took.
//!
//! As in [`super::rates`] a case counts once, at the node that owns it: the parts below a node, and its
//! own, add up to the whole.

use super::Cases;
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{Case, SOLUTION, Status};
use citybrain_shared::config::cases::Category;
use citybrain_shared::view::{GroupBy, StatsRow, Took};
use std::collections::BTreeMap;

/// Which district a node is of, if its config or that of one above it says so.
pub type District<'a> = &'a dyn Fn(&Address) -> Option<String>;

/// Which cases are looked at.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only those owned by this node or below it.
    pub under: Option<Address>,
    pub category: Option<OfCategory>,
    /// Only those opened at or after.
    pub since: Option<DateTime<Utc>>,
}

impl Scope {
    pub(super) fn holds(&self, me: &Address, case: &Case) -> bool {
        // What was handed to a node above or beside is counted there.
        me.covers(&case.owner)
            && self.under.as_ref().is_none_or(|u| u.covers(&case.owner))
            && self.category.as_ref().is_none_or(|c| c.holds(case))
            && self.since.is_none_or(|since| case.opened >= since)
    }
}

/// Cases of one category, which is asked for by its code, by its name, or by the name that it had when a case was opened.
#[derive(Clone, Debug)]
pub struct OfCategory {
    word: String,
    /// Of those in force that are called so: cases from before they were have another name.
    codes: Vec<String>,
}

impl OfCategory {
    pub fn new(word: String, known: &[Category]) -> OfCategory {
        let codes = known.iter().filter(|c| c.name == word).map(|c| c.code.clone()).collect();
        OfCategory { word, codes }
    }

    pub fn holds(&self, case: &Case) -> bool {
        [&case.category, &case.category_name].contains(&&self.word) || self.codes.contains(&case.category)
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
        GroupBy::Unit => some(&case.unit),
        GroupBy::Governance => some(case.governance.as_deref().unwrap_or_default()),
        GroupBy::Channel => some(&case.channel),
        GroupBy::Kind => case.kind.to_string(),
        GroupBy::Status => case.status.to_string(),
        GroupBy::All => "all".into(),
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
        if let Some(clock) = case.clock(SOLUTION).filter(|c| c.counted_due().is_some()) {
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
