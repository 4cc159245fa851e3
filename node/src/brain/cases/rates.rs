//! Response, solution and satisfaction 响应率, 解决率, 满意率: counted, never estimated.
//!
//! A case counts once: at the node that owns it, in the period of its first dispatch. Merged, withdrawn,
//! rejected or excluded, it counts as that and in no rate of the work on it. What residents have said counts
//! by rounds: a case that is reopened begins another, and the last verdict of each counts. So no step that one
//! person can make alone takes a verdict out of the rates: that needs an exclusion, which is counted, too.
//! The counts of a node are the sum of those of the nodes below it and of its own.

use super::Cases;
use super::calendar::Calendar;
use super::counts::{District, key_of};
use chrono::{DateTime, Datelike, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{Case, Status};
use citybrain_shared::config::cases::Cases as Settings;
use citybrain_shared::view::{GroupBy, RateCounts, RatePeriod, RateRow};
use std::collections::BTreeMap;

/// What a question about rates asks for.
#[derive(Clone, Debug)]
pub struct Question {
    pub by: GroupBy,
    pub period: RatePeriod,
    /// `2026-11-23`, `2026-11`, `2026`: only what was first dispatched then ([`span_of`]).
    pub of: Option<String>,
    /// Only cases owned by this node or below it.
    pub under: Option<Address>,
    pub category: Option<String>,
}

/// Rates being counted, case by case.
pub struct Counting {
    question: Question,
    rows: BTreeMap<(String, String), RateCounts>,
    total: RateCounts,
}

impl Counting {
    pub fn new(question: Question) -> Counting {
        Counting { question, rows: BTreeMap::new(), total: RateCounts::default() }
    }

    pub fn add(&mut self, cases: &Cases, case: &Case, district: District<'_>, now: DateTime<Utc>) {
        let q = &self.question;
        let under = q.under.as_ref().unwrap_or(&cases.me);
        // What was handed to a node above or beside is counted there.
        if !cases.me.covers(&case.owner) || !under.covers(&case.owner) {
            return;
        }
        if q.category.as_ref().is_some_and(|c| *c != case.category && *c != case.category_name) {
            return;
        }
        let Some(period) = period_of(case, q.period, &cases.calendar) else { return };
        let day = || period_of(case, RatePeriod::Day, &cases.calendar).unwrap_or_default();
        if q.of.as_ref().is_some_and(|of| !day().starts_with(of.as_str())) {
            return;
        }
        let counts = count(case, now);
        add(&mut self.total, &counts);
        add(self.rows.entry((period, key_of(case, q.by, &cases.me, district))).or_default(), &counts);
    }

    /// Rows by period and key, and their sum.
    pub fn done(self, settings: &Settings) -> (Vec<RateRow>, RateRow) {
        let row = |((period, key), counts)| row(period, key, counts, settings);
        (self.rows.into_iter().map(row).collect(), self::row(String::new(), "all".into(), self.total, settings))
    }
}

/// What `2026-11-23`, `2026-11` or `2026` names; `None`: no such time.
pub fn span_of(text: &str) -> Option<RatePeriod> {
    let (period, day) = match text.len() {
        4 => (RatePeriod::Year, format!("{text}-01-01")),
        7 => (RatePeriod::Month, format!("{text}-01")),
        10 => (RatePeriod::Day, text.to_owned()),
        _ => return None,
    };
    let is_written = |(i, b): (usize, u8)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() };
    let reads = day.bytes().enumerate().all(is_written) && day.parse::<chrono::NaiveDate>().is_ok();
    reads.then_some(period)
}

fn period_of(case: &Case, period: RatePeriod, calendar: &Calendar) -> Option<String> {
    let day = calendar.day(case.dispatched?);
    Some(match period {
        RatePeriod::Day => day.to_string(),
        RatePeriod::Month => format!("{:04}-{:02}", day.year(), day.month()),
        RatePeriod::Year => format!("{:04}", day.year()),
        RatePeriod::All => "all".into(),
    })
}

/// What one case adds.
pub fn count(case: &Case, now: DateTime<Utc>) -> RateCounts {
    let mut c = RateCounts { dispatched: 1, ..RateCounts::default() };
    c.returned = u64::from(case.returns > 0);
    c.reworked = u64::from(case.reworks > 0);
    c.reopened = u64::from(case.reopened > 0);
    let left_out = match case.status {
        _ if case.excluded.is_some() => Some(&mut c.excluded),
        Status::Withdrawn => Some(&mut c.withdrawn),
        Status::Rejected => Some(&mut c.rejected),
        _ if case.is_merged() => Some(&mut c.merged),
        _ => None,
    };
    let is_left_out = left_out.is_some();
    left_out.into_iter().for_each(|n| *n = 1);
    if case.excluded.is_none() {
        let mut said = case.judged_before;
        case.verdict.iter().for_each(|verdict| said.add(verdict));
        (c.solved, c.partly_solved, c.unsolved) = (said.solved.into(), said.partly_solved.into(), said.unsolved.into());
        (c.satisfied, c.mostly_satisfied, c.dissatisfied) =
            (said.satisfied.into(), said.mostly_satisfied.into(), said.dissatisfied.into());
    }
    if is_left_out {
        return c;
    }
    // Asked, but without an answer, is as if never asked.
    c.unanswered = u64::from(case.verdict.as_ref().is_none_or(|v| v.solved.is_none()));
    c.closed = u64::from(!case.status.is_open());
    c.overdue = u64::from(case.clocks.iter().any(|c| c.name == "solution" && c.is_over(now)));
    match case.clock("response") {
        None => c.response_without_limit = 1,
        Some(clock) => {
            c.response_of = 1;
            // A word after it was reopened is none in time.
            let in_time = case.responded().zip(clock.due).is_some_and(|(answered, due)| answered <= due);
            c.response_kept = u64::from(in_time);
            c.response_open = u64::from(clock.stopped.is_none() && !clock.is_over(now));
        }
    }
    c
}

pub fn add(sum: &mut RateCounts, c: &RateCounts) {
    let pairs = sum.fields_mut().into_iter().zip(c.fields());
    pairs.for_each(|(sum, n)| *sum += n);
}

fn row(period: String, key: String, counts: RateCounts, settings: &Settings) -> RateRow {
    let c = &counts;
    let ratio = |n: f64, of: u64| (of > 0).then(|| (n / of as f64 * 10_000.0).round() / 10_000.0);
    let mostly = if settings.mostly_is_satisfied { c.mostly_satisfied } else { 0 };
    let response = ratio(c.response_kept as f64, c.response_of);
    let solution = ratio(
        c.solved as f64 + settings.partly_solved * c.partly_solved as f64,
        c.solved + c.partly_solved + c.unsolved,
    );
    let satisfaction = ratio((c.satisfied + mostly) as f64, c.satisfied + c.mostly_satisfied + c.dissatisfied);
    // A rate that cannot be told yet weighs nothing.
    let parts = [
        (response, settings.weight_response),
        (solution, settings.weight_solution),
        (satisfaction, settings.weight_satisfaction),
    ];
    let known = || parts.iter().filter_map(|(rate, weight)| rate.map(|r| (r, weight)));
    let weight: f64 = known().map(|(_, w)| w).sum();
    let score = (weight > 0.0).then(|| {
        let sum: f64 = known().map(|(r, w)| r * w).sum();
        (sum / weight * 10_000.0).round() / 100.0
    });
    RateRow { period, key, counts, response, solution, satisfaction, score }
}
