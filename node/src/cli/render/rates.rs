//! Rates, and what they are made of.

use super::supervision::gone;
use super::table::Cell;
use super::{Screen, clean, grouped, print, right};
use crate::cli::rates::Show;
use citybrain_shared::view::{self, PeriodRates, RateRow, RateWeights};
use std::io::{self, Write};

/// A row's period, the one before it and the one of a year before.
fn parts(r: &RateRow) -> [Option<&PeriodRates>; 3] {
    [Some(&r.now), r.before.as_ref(), r.year_before.as_ref()]
}

/// Does its score lack a rate?
fn is_part(r: &PeriodRates) -> bool {
    [r.response, r.solution, r.satisfaction].iter().any(Option::is_none)
}

/// How many of what a table shows.
fn base(show: Show, r: &PeriodRates) -> u64 {
    match show {
        Show::Rates => r.counts.dispatched,
        Show::Closing => r.counts.due,
        Show::Appeals => r.counts.appeals.max(r.counts.dispatched),
    }
}

fn of(rate: Option<f64>, n: String, of: u64) -> Cell {
    right(match rate {
        Some(rate) => format!("{:.1} % ({n}/{})", rate * 100.0, grouped(of)),
        None => "-".into(),
    })
}

fn head(show: Show) -> &'static [&'static str] {
    match show {
        Show::Rates => {
            &["CASES", "LEFT OUT", "RESPONSE", "SOLUTION", "SATISFACTION", "SCORE", "OVERDUE", "RETURNED", "REOPENED"]
        }
        Show::Closing => &["DUE", "CLOSED", "IN TIME"],
        Show::Appeals => &["CASES", "APPEALS", "PEOPLE", "PER 10,000", "WELL DISPATCHED"],
    }
}

fn cells(show: Show, v: &view::Rates, r: &PeriodRates, people: Option<u64>) -> Vec<Cell> {
    let c = &r.counts;
    match show {
        Show::Rates => {
            let solved = match c.partly_solved {
                0 => grouped(c.solved),
                partly => format!("{}+{}p", grouped(c.solved), grouped(partly)),
            };
            let satisfied = c.satisfied + if v.weights.mostly_is_satisfied { c.mostly_satisfied } else { 0 };
            vec![
                right(grouped(c.dispatched)),
                right(grouped(c.excluded + c.withdrawn + c.rejected + c.merged)),
                of(r.response, grouped(c.response_kept), c.response_of),
                of(r.solution, solved, c.solved + c.partly_solved + c.unsolved),
                of(r.satisfaction, grouped(satisfied), c.satisfied + c.mostly_satisfied + c.dissatisfied),
                right(r.score.map_or("-".into(), |s| format!("{s:.1}{}", if is_part(r) { "*" } else { "" }))),
                right(grouped(c.overdue)),
                right(grouped(c.returned)),
                right(grouped(c.reopened)),
            ]
        }
        Show::Closing => vec![
            right(grouped(c.due)),
            of(r.closing, grouped(c.due_closed), c.due),
            of(r.closing_in_time, grouped(c.due_closed_in_time), c.due),
        ],
        Show::Appeals => vec![
            right(grouped(c.dispatched)),
            right(grouped(c.appeals)),
            right(people.map_or("-".into(), grouped)),
            right(people.map_or("-".into(), |n| format!("{:.2}", c.appeals as f64 / n as f64 * 10_000.0))),
            of(r.accurate_dispatch, grouped(c.dispatched.saturating_sub(c.returned)), c.dispatched),
        ],
    }
}

/// How it has changed since then: numbers in per cent, rates in points.
fn change(show: Show, now: &PeriodRates, then: &PeriodRates) -> String {
    let (n, before) = (base(show, now), base(show, then));
    let mut said = Vec::new();
    if before > 0 {
        said.push(format!("{:+.1} %", (n as f64 / before as f64 - 1.0) * 100.0));
    }
    let points = match show {
        Show::Rates => now.score.zip(then.score),
        Show::Closing => now.closing.zip(then.closing).map(|(a, b)| (a * 100.0, b * 100.0)),
        Show::Appeals => now.accurate_dispatch.zip(then.accurate_dispatch).map(|(a, b)| (a * 100.0, b * 100.0)),
    };
    said.extend(points.map(|(a, b)| format!("{:+.1} points", a - b)));
    if said.is_empty() { "-".into() } else { said.join(", ") }
}

/// By what a row stands where it does, the greater the better; `None`: there is nothing to rank it by.
fn standing(show: Show, r: &RateRow) -> Option<[i64; 2]> {
    // To as many digits as are shown; what is not known stands below all that is.
    let tenths = |rate: Option<f64>| rate.map_or(-1, |rate| (rate * 1_000.0).round() as i64);
    let now = &r.now;
    match show {
        // Without a verdict of any resident the response alone is the score.
        Show::Rates => {
            let is_judged = now.solution.is_some() && now.satisfaction.is_some();
            now.score.map(|score| [is_judged.into(), (score * 100.0).round() as i64])
        }
        Show::Closing => now.closing_in_time.map(|_| [now.closing_in_time, now.closing].map(tenths)),
        Show::Appeals => {
            let few = r.appeals_per_10000.map(|n| -((n * 100.0).round() as i64));
            let is_known = few.is_some() || now.accurate_dispatch.is_some();
            is_known.then(|| [few.unwrap_or(i64::MIN), tenths(now.accurate_dispatch)])
        }
    }
}

/// The rows that a table shows, the best of each period first, with their ranks; those that stand alike share one.
fn ranked<'v>(show: Show, rows: &'v [RateRow]) -> Vec<(String, &'v RateRow)> {
    // Where it is known how many live there, no appeal is a figure, too.
    let is_figure = |r: &RateRow| show == Show::Appeals && r.appeals_per_10000.is_some();
    let is_shown = |r: &&RateRow| is_figure(r) || parts(r).into_iter().flatten().any(|part| base(show, part) > 0);
    let mut rows: Vec<&'v RateRow> = rows.iter().filter(is_shown).collect();
    rows.sort_by(|a, b| a.now.period.cmp(&b.now.period).then(standing(show, b).cmp(&standing(show, a))));
    let (mut ranked, mut rank, mut first): (Vec<(String, &'v RateRow)>, _, _) = (Vec::new(), 0, 0);
    for (i, r) in rows.into_iter().enumerate() {
        let before = ranked.last().map(|(_, before)| *before).filter(|before| before.now.period == r.now.period);
        if before.is_none() {
            first = i;
        }
        if before.is_none_or(|before| standing(show, before) != standing(show, r)) {
            rank = i - first + 1;
        }
        ranked.push((standing(show, r).map_or("-".into(), |_| rank.to_string()), r));
    }
    ranked
}

/// How a score is made of the rates: divided by the weights, so that all that is best is 100.
fn weighed(w: &RateWeights) -> String {
    let sum = format!("{}·response + {}·solution + {}·satisfaction", w.response, w.solution, w.satisfaction);
    // Three weights that are written in decimals make one by a rounding.
    let all = ((w.response + w.solution + w.satisfaction) * 1e6).round() / 1e6;
    if all == 1.0 { sum } else { format!("({sum}) / {all}") }
}

pub fn rates(v: &view::Rates, show: Show, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    gone(v.gone.as_ref(), s, out)?;
    let mut rows = ranked(show, &v.rows);
    let whole = ranked(show, std::slice::from_ref(&v.total)).pop().filter(|_| !rows.is_empty());
    rows.extend(whole.map(|(_, whole)| (String::new(), whole)));
    if rows.is_empty() {
        let none = match show {
            Show::Closing => "no limit of a case that fits has passed yet",
            _ => "no case that fits was dispatched yet",
        };
        return writeln!(out, "{none}");
    }
    let compares = rows.iter().any(|(_, r)| r.before.is_some() || r.year_before.is_some());
    let more: &[&str] = if compares { &["SINCE THEN"] } else { &[] };
    let mut table = s.table(&[&["PERIOD", "#", "KEY"], head(show), more].concat());
    for (rank, r) in rows {
        for (i, part) in parts(r).into_iter().enumerate() {
            let Some(part) = part else { continue };
            let (rank, key) = if i == 0 { (rank.clone(), clean(&r.key)) } else { Default::default() };
            let mut row = vec![Cell::new(&part.period), right(rank), Cell::new(key)];
            row.extend(cells(show, v, part, r.people));
            if compares {
                row.push(Cell::new(if i == 0 { String::new() } else { change(show, &r.now, part) }));
            }
            table.add_row(row);
        }
    }
    print(&table, out)?;
    let (w, t) = (&v.weights, &v.total.now.counts);
    let is_marked = |r: &PeriodRates| r.score.is_some() && is_part(r);
    let all = v.rows.iter().chain([&v.total]);
    if show == Show::Rates && all.flat_map(parts).flatten().any(is_marked) {
        writeln!(
            out,
            "* of fewer than three rates: one that is not known (-) weighs nothing; a score without verdicts stands below those that have some"
        )?;
    }
    match show {
        Show::Rates => writeln!(
            out,
            "score = {}, partly solved counts {}, mostly satisfied {}; left out of what was dispatched: {} excluded, {} withdrawn, {} rejected, {} merged; {} without an answer of the resident in their present round, {} of them asked in vain; {} without a limit for the response; counted in the response, and not kept so far: {} whose limit still runs",
            weighed(w),
            w.partly_solved,
            u8::from(w.mostly_is_satisfied),
            t.excluded,
            t.withdrawn,
            t.rejected,
            t.merged,
            t.unanswered,
            t.asked_in_vain,
            t.response_without_limit,
            t.response_open
        ),
        Show::Closing => writeln!(
            out,
            "due: the limit for the solution fell in the period and has passed; in time: closed before it; not those left out of rates; ranked by in time, then by closed"
        ),
        Show::Appeals => writeln!(
            out,
            "of what was first dispatched in the period; well dispatched: sent back by nobody; people: the label `population` of a child, or of all; ranked by per 10,000, the fewest first, then by well dispatched"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_told_as_it_is_made() {
        let weighed = |response: f64, solution: f64, satisfaction: f64| {
            let weights = RateWeights::of(&Default::default());
            weighed(&RateWeights { response, solution, satisfaction, ..weights })
        };
        assert_eq!(weighed(0.2, 0.4, 0.4), "0.2·response + 0.4·solution + 0.4·satisfaction");
        assert_eq!(weighed(0.1, 0.2, 0.7), "0.1·response + 0.2·solution + 0.7·satisfaction");
        assert_eq!(weighed(0.5, 0.4, 0.4), "(0.5·response + 0.4·solution + 0.4·satisfaction) / 1.3");
    }
}
