//! Response, solution and satisfaction 响应率, 解决率, 满意率: counted, never estimated.
//!
//! A case counts once: at the node that owns it, in the period of its first dispatch. Merged, withdrawn,
//! rejected or excluded, it counts as that and in no rate of the work on it. What residents have said counts
//! by rounds: a case that is reopened begins another, and his last word of each counts; where somebody else
//! notes otherwise after a resident has spoken, both count. So no step that one person can make alone takes a
//! verdict out of the rates: that needs an exclusion, which is counted, too. A category that is excluded says so in
//! the terms that go with each case of it, so that every node counts the same.
//! Closing 结案率 alone goes by another period: that in which the limit for the solution fell. A clock that is
//! begun anew (returned, reworked, reopened), extended or suspended takes no limit that has passed out of its
//! period, and what was missed stays missed.
//! The counts of a node are the sum of those of the nodes below it and of its own.

use super::Cases;
use super::counts::{District, OfCategory, key_of};
use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{Case, Clock, Kind, RESPONSE, SOLUTION, Status};
use citybrain_shared::config::cases::Cases as Settings;
use citybrain_shared::view::{GroupBy, PeriodRates, RateCounts, RatePeriod, RateRow};
use std::collections::{BTreeMap, BTreeSet};

/// What a question about rates asks for.
#[derive(Clone, Debug)]
pub struct Question {
    pub by: GroupBy,
    pub period: RatePeriod,
    /// `2026-11-23`, `2026-11`, `2026`: only what was first dispatched then ([`span_of`]).
    pub of: Option<String>,
    /// Only cases owned by this node or below it.
    pub under: Option<Address>,
    pub category: Option<OfCategory>,
    /// With the period before, and a year before.
    pub compare: bool,
}

/// Counts of a period, of the one before it, and of a year before it, each with its name.
type Three = [Option<(String, RateCounts)>; 3];

/// Rates being counted, case by case.
pub struct Counting {
    question: Question,
    rows: BTreeMap<(String, String), RateCounts>,
}

impl Counting {
    pub fn new(question: Question) -> Counting {
        Counting { question, rows: BTreeMap::new() }
    }

    pub fn add(&mut self, cases: &Cases, case: &Case, district: District<'_>, now: DateTime<Utc>) {
        let q = &self.question;
        let under = q.under.as_ref().unwrap_or(&cases.me);
        // What was handed to a node above or beside is counted there.
        if !cases.me.covers(&case.owner) || !under.covers(&case.owner) {
            return;
        }
        if q.category.as_ref().is_some_and(|c| !c.holds(case)) {
            return;
        }
        let parts = [(case.dispatched, count(case, now)), (due(case, now), closing(case))];
        for (at, counts) in parts {
            let q = &self.question;
            let Some(day) = at.map(|at| cases.calendar.day(at)) else { continue };
            let is_asked = || q.of.as_ref().is_none_or(|of| day.to_string().starts_with(of.as_str()));
            if q.compare || is_asked() {
                let key = (period_of(day, q.period), key_of(case, q.by, &cases.me, district));
                add(self.rows.entry(key).or_default(), &counts);
            }
        }
    }

    /// Rows by period and key, and their sum. `known`: keys that have a row in each period that has one, for none of
    /// whose people has come with anything. `people`: how many live under a key; of the sum, under `all`.
    pub fn done(
        self,
        settings: &Settings,
        known: &[String],
        people: &dyn Fn(&str) -> Option<u64>,
    ) -> (Vec<RateRow>, RateRow) {
        let Counting { question: q, rows: counted } = self;
        let is_asked = |period: &String| q.of.as_ref().is_none_or(|of| period.starts_with(of.as_str()));
        let periods: BTreeSet<&String> = counted.keys().map(|(period, _)| period).filter(|p| is_asked(p)).collect();
        let mut rows: BTreeMap<(&String, &String), Three> = BTreeMap::new();
        // A key that had something then and has nothing now is a row, too: so the parts of then make its whole.
        let named = q.of.as_ref().filter(|of| span_of(of) == Some(q.period));
        let shown: BTreeSet<&String> = periods.into_iter().chain(named).collect();
        for period in shown {
            for (i, then) in three(period, q.compare).into_iter().enumerate() {
                let Some(then) = then else { continue };
                let from = (then.clone(), String::new());
                for ((_, key), counts) in counted.range(from..).take_while(|((p, _), _)| *p == then) {
                    rows.entry((period, key)).or_default()[i] = Some((then.clone(), counts.clone()));
                }
            }
        }
        let told: BTreeSet<&String> = rows.keys().map(|(period, _)| *period).collect();
        for (period, key) in told.into_iter().flat_map(|period| known.iter().map(move |key| (period, key))) {
            rows.entry((period, key)).or_default();
        }
        let mut total = Three::default();
        let mut done = Vec::new();
        for ((period, key), mut of) in rows {
            for (part, then) in of.iter_mut().zip(three(period, q.compare)) {
                if part.is_none() {
                    *part = then.map(|then| (then, RateCounts::default()));
                }
            }
            for (sum, part) in total.iter_mut().zip(&of) {
                if let Some((then, counts)) = part {
                    add(&mut sum.get_or_insert((then.clone(), RateCounts::default())).1, counts);
                }
            }
            done.push(row(period.clone(), key.clone(), of, settings, people(key)));
        }
        // Of several periods the sum has no one before it.
        if named.is_none() {
            (total[1], total[2]) = (None, None);
        }
        (done, row(String::new(), "all".into(), total, settings, people("all")))
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

fn period_of(day: NaiveDate, period: RatePeriod) -> String {
    match period {
        RatePeriod::Day => day.to_string(),
        RatePeriod::Month => format!("{:04}-{:02}", day.year(), day.month()),
        RatePeriod::Year => format!("{:04}", day.year()),
        RatePeriod::All => "all".into(),
    }
}

/// The period, and where they are asked for the one before it and that of a year before.
fn three(period: &str, compare: bool) -> [Option<String>; 3] {
    let asked = |of: fn(&str) -> Option<String>| if compare { of(period) } else { None };
    [Some(period.to_owned()), asked(before), asked(year_before)]
}

/// The period of that kind which was before this one.
fn before(period: &str) -> Option<String> {
    shifted(period, |first, kind| match kind {
        RatePeriod::Day => first.pred_opt(),
        RatePeriod::Month => first.checked_sub_months(Months::new(1)),
        RatePeriod::Year | RatePeriod::All => first.checked_sub_months(Months::new(12)),
    })
}

/// The same period of the year before: none of a leap day, nor of a year, whose one it is already.
fn year_before(period: &str) -> Option<String> {
    shifted(period, |first, kind| match kind {
        RatePeriod::Year => None,
        _ => first.with_year(first.year() - 1),
    })
}

fn shifted(period: &str, to: impl Fn(NaiveDate, RatePeriod) -> Option<NaiveDate>) -> Option<String> {
    let kind = span_of(period)?;
    let first = format!("{period}{}", &"0000-01-01"[period.len()..]).parse().ok()?;
    Some(period_of(to(first, kind)?, kind))
}

/// What counts a case that is in no rate.
fn left_out(case: &Case) -> Option<fn(&mut RateCounts) -> &mut u64> {
    let counted: fn(&mut RateCounts) -> &mut u64 = match case.status {
        _ if case.is_excluded() => |c| &mut c.excluded,
        Status::Withdrawn => |c| &mut c.withdrawn,
        Status::Rejected => |c| &mut c.rejected,
        _ if case.is_merged() => |c| &mut c.merged,
        _ => return None,
    };
    Some(counted)
}

/// When the limit for its solution has passed, of a case that counts.
fn due(case: &Case, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let due = case.clock(SOLUTION).and_then(Clock::counted_due).filter(|due| *due <= now)?;
    left_out(case).is_none().then_some(due)
}

/// What a case whose limit has passed adds to the period of that limit.
fn closing(case: &Case) -> RateCounts {
    let due = case.clock(SOLUTION).and_then(Clock::counted_due);
    let closed = case.closed.filter(|_| case.status == Status::Closed);
    let in_time = closed.zip(due).is_some_and(|(closed, due)| closed <= due);
    RateCounts {
        due: 1,
        due_closed: closed.is_some().into(),
        due_closed_in_time: in_time.into(),
        ..RateCounts::default()
    }
}

/// What one case adds.
pub fn count(case: &Case, now: DateTime<Utc>) -> RateCounts {
    let mut c = RateCounts { dispatched: 1, ..RateCounts::default() };
    c.returned = u64::from(case.returns > 0);
    c.reworked = u64::from(case.reworks > 0);
    c.reopened = u64::from(case.reopened > 0);
    c.appeals = u64::from(case.kind == Kind::Appeal);
    if !case.is_excluded() {
        let said = case.judged();
        (c.solved, c.partly_solved, c.unsolved) = (said.solved.into(), said.partly_solved.into(), said.unsolved.into());
        (c.satisfied, c.mostly_satisfied, c.dissatisfied) =
            (said.satisfied.into(), said.mostly_satisfied.into(), said.dissatisfied.into());
    }
    if let Some(counted) = left_out(case) {
        *counted(&mut c) = 1;
        return c;
    }
    // Asked, but without an answer, is as if never asked.
    c.unanswered = u64::from(case.said_solved().is_none());
    c.asked_in_vain = u64::from(case.said_solved().is_none() && case.verdicts().next().is_some());
    c.closed = u64::from(!case.status.is_open());
    c.overdue = u64::from(case.clock(SOLUTION).is_some_and(|c| c.missed_before || c.is_over(now)));
    match case.clock(RESPONSE) {
        None => c.response_without_limit = 1,
        Some(clock) => {
            c.response_of = 1;
            // By its first limit: a word after it was reopened is none in time, nor does it matter how the next call
            // for help is answered.
            let (answered, due) = (case.first_responded(), clock.counted_due());
            let is_over = due.is_some_and(|due| now > due);
            c.response_kept = u64::from(answered.zip(due).is_some_and(|(answered, due)| answered <= due));
            c.response_open = u64::from(clock.stopped.is_none() && answered.is_none() && !is_over);
        }
    }
    c
}

pub fn add(sum: &mut RateCounts, c: &RateCounts) {
    let pairs = sum.fields_mut().into_iter().zip(c.fields());
    pairs.for_each(|(sum, n)| *sum += n);
}

fn ratio(n: f64, of: u64) -> Option<f64> {
    (of > 0).then(|| (n / of as f64 * 1e6).round() / 1e6)
}

/// `of`: the period's counts, those of the one before, and of a year before.
fn row(period: String, key: String, of: Three, settings: &Settings, people: Option<u64>) -> RateRow {
    let [now, before, year_before] = of.map(|part| part.map(|(period, counts)| then(period, counts, settings)));
    let now = now.unwrap_or_else(|| then(String::new(), RateCounts::default(), settings));
    let people = people.filter(|n| *n > 0);
    let appeals_per_10000 = people.map(|n| (now.counts.appeals as f64 / n as f64 * 1e6).round() / 100.0);
    RateRow { key, now: PeriodRates { period, ..now }, appeals_per_10000, people, before, year_before }
}

fn then(period: String, counts: RateCounts, settings: &Settings) -> PeriodRates {
    let c = &counts;
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
    let closing = ratio(c.due_closed as f64, c.due);
    let closing_in_time = ratio(c.due_closed_in_time as f64, c.due);
    let accurate_dispatch = ratio(c.dispatched.saturating_sub(c.returned) as f64, c.dispatched);
    PeriodRates { period, counts, response, solution, satisfaction, score, closing, closing_in_time, accurate_dispatch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_divided_by_those_that_count_and_weighed_as_the_config_says() {
        let settings = Settings {
            weight_response: 0.2,
            weight_solution: 0.5,
            weight_satisfaction: 0.3,
            partly_solved: 0.5,
            mostly_is_satisfied: true,
            ..Settings::default()
        };
        let counts = RateCounts {
            dispatched: 20,
            returned: 4,
            response_of: 4,
            response_kept: 3,
            response_without_limit: 9,
            solved: 6,
            partly_solved: 2,
            unsolved: 2,
            unanswered: 5,
            satisfied: 5,
            mostly_satisfied: 2,
            dissatisfied: 3,
            due: 8,
            due_closed: 6,
            due_closed_in_time: 5,
            ..RateCounts::default()
        };
        let of = |counts: &RateCounts, settings: &Settings| {
            let row = then(String::new(), counts.clone(), settings);
            (row.response, row.solution, row.satisfaction, row.score)
        };
        assert_eq!(of(&counts, &settings), (Some(0.75), Some(0.7), Some(0.7), Some(71.0)));
        let strict = Settings { mostly_is_satisfied: false, partly_solved: 0.0, ..settings.clone() };
        assert_eq!(of(&counts, &strict), (Some(0.75), Some(0.6), Some(0.5), Some(60.0)));
        // What nobody could have kept, or said, weighs nothing.
        let unlimited = RateCounts { response_of: 0, response_kept: 0, ..counts.clone() };
        assert_eq!(of(&unlimited, &settings), (None, Some(0.7), Some(0.7), Some(70.0)));
        assert_eq!(of(&RateCounts::default(), &settings), (None, None, None, None));
        let row = then(String::new(), counts, &settings);
        assert_eq!((row.closing, row.closing_in_time, row.accurate_dispatch), (Some(0.75), Some(0.625), Some(0.8)));
    }
}
