//! Counts of cases, and what needs a look, for people.

use super::cases::{Beside, named};
use super::table::{Cell, Color};
use super::{Screen, clean, counted, grouped, print, right, span};
use citybrain_shared::case::Case;
use citybrain_shared::view;
use std::io::{self, Write};

/// Before counts that lack some.
pub fn gone(gone: Option<&view::CasesGone>, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let Some(view::CasesGone { cases, upto }) = gone else { return Ok(()) };
    let upto = s.zone.day(*upto);
    let closed = counted(*cases, "closed case");
    writeln!(out, "not counted any more, as newer ones took their place: {closed}, opened or dispatched up to {upto}")
}

/// Below what may be old, of nodes below.
pub fn away(away: &[view::Away], offline: bool, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    const NAMED: usize = 5;
    if offline {
        return writeln!(out, "what nodes below had not told by then is not in it");
    }
    for view::Away { node, last_heard } in away.iter().take(NAMED) {
        writeln!(out, "without what {node} has done since {}: it is away", s.zone.short(*last_heard))?;
    }
    match away.len().saturating_sub(NAMED) {
        0 => Ok(()),
        more => writeln!(out, "nor what {} more have done that are away, too", grouped(more as u64)),
    }
}

/// Below what lacks what others know of this node's own.
pub fn awaits(awaited: Option<&view::Awaited>, what: &str, out: &mut dyn Write) -> io::Result<()> {
    awaited.map_or(Ok(()), |a| writeln!(out, "{}", clean(&a.lacking(what))))
}

pub fn stats(v: &view::CaseStats, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    gone(v.gone.as_ref(), s, out)?;
    let head = [
        "KEY",
        "CASES",
        "OPEN",
        "CLOSED",
        "REJECTED",
        "WITHDRAWN",
        "OVERDUE",
        "IN TIME",
        "LATE",
        "REOPENED",
        "TOOK P50",
        "P90",
        "P99",
        "LONGEST",
    ];
    let mut table = s.table(&head);
    // By `all` the one row is the total.
    for r in v.rows.iter().filter(|_| v.by != view::GroupBy::All).chain(std::iter::once(&v.total)) {
        let mut row = vec![Cell::new(clean(&r.key))];
        let counts = [r.cases, r.open, r.closed, r.rejected, r.withdrawn, r.overdue, r.in_time, r.late, r.reopened];
        row.extend(counts.map(|n| right(grouped(n))));
        let took = r.took.map(|t| [t.p50_s, t.p90_s, t.p99_s, t.max_s].map(|s| seconds(s.unsigned_abs())));
        row.extend(took.unwrap_or_else(|| ["-"; 4].map(str::to_owned)).map(right));
        table.add_row(row);
    }
    print(&table, out)?;
    writeln!(
        out,
        "{} of {} had a limit for the solution; took: from opening to closing, of those closed",
        grouped(v.total.with_limit),
        grouped(v.total.cases)
    )
}

/// As [`span`]; of whole seconds no tenths are known.
fn seconds(s: u64) -> String {
    if s < 10 { format!("{s} s") } else { span(s * 1000) }
}

pub fn supervision(v: &view::Supervision, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    gone(v.gone.as_ref(), s, out)?;
    let title = |out: &mut dyn Write, word: &str, shown: usize, of: u64| {
        writeln!(
            out,
            "{word}: {}{}",
            grouped(of),
            if (shown as u64) < of { format!(", the first {shown}") } else { String::new() }
        )
    };
    title(out, "overdue", v.overdue.len(), v.overdue_in_all)?;
    list(&v.overdue, v, s, out)?;
    title(out, "suspended", v.suspended.len(), v.suspended_in_all)?;
    suspended(v, s, out)?;
    title(out, "reopened", v.reopened.len(), v.reopened_in_all)?;
    list(&v.reopened, v, s, out)?;
    title(out, "hot spots", v.hot_spots.len(), v.hot_spots_in_all)?;
    if !v.hot_spots.is_empty() {
        let mut table = s.table(&["CASES", "OPEN", "NEWEST", "CATEGORY", "PLACE", "NODE", "LAT", "LON"]);
        for h in &v.hot_spots {
            let degrees = |d: Option<f64>| d.map_or("-".into(), |d| format!("{d:.5}"));
            let name = if h.category_name.is_empty() { &h.category } else { &h.category_name };
            table.add_row(vec![
                right(grouped(h.cases)),
                right(grouped(h.open)),
                Cell::new(s.zone.day(h.newest)),
                Cell::new(clean(name)),
                Cell::new(clean(&h.place)),
                Cell::new(h.node.as_ref().map_or("-", |node| node.as_str())),
                right(degrees(h.lat)),
                right(degrees(h.lon)),
            ]);
        }
        print(&table, out)?;
    }
    title(out, "repeat callers", v.repeat_callers.len(), v.repeat_callers_in_all)?;
    if !v.repeat_callers.is_empty() {
        let mut table = s.table(&["CASES", "OPEN", "NEWEST", "WHO", "CASE"]);
        for c in &v.repeat_callers {
            let who = c.contact.as_ref().map_or("withheld".into(), |k| format!("{} {}", k.name, k.phone));
            let newest = c.ids.first().cloned().unwrap_or_default();
            table.add_row(vec![
                right(grouped(c.cases)),
                right(grouped(c.open)),
                Cell::new(s.zone.day(c.newest)),
                Cell::new(clean(who.trim())),
                Cell::new(newest),
            ]);
        }
        print(&table, out)?;
    }
    Ok(())
}

fn suspended(v: &view::Supervision, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.suspended.is_empty() {
        return Ok(());
    }
    let beside = Beside::from(v);
    let mut table = s.table(&["CASE", "STANDS", "CATEGORY", "OWNER", "SINCE", "REASON", "TITLE"]);
    for c in &v.suspended {
        let (since, why) = c.suspended.as_ref().map_or(("-".into(), "-"), |a| (s.zone.short(a.at), a.reason.as_str()));
        table.add_row(vec![
            s.mark(&c.id, c.urgent, Color::Red),
            Cell::new(beside.stands(c)),
            Cell::new(clean(named(c))),
            Cell::new(c.owner.as_str()),
            Cell::new(since),
            Cell::new(clean(why)),
            Cell::new(clean(&c.title)),
        ]);
    }
    print(&table, out)
}

fn list(cases: &[Case], v: &view::Supervision, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if cases.is_empty() {
        return Ok(());
    }
    let beside = Beside::from(v);
    let mut table = s.table(&["CASE", "STANDS", "CATEGORY", "OWNER", "LIMIT", "OVER BY", "TITLE"]);
    for c in cases {
        let known = beside.known(c);
        let due = known.due().filter(|(_, at)| *at < v.at);
        let (limit, over) = due.map_or(("-".into(), "-".into()), |(k, at)| {
            (k.name.clone(), span((v.at - at).num_milliseconds().unsigned_abs()))
        });
        table.add_row(vec![
            s.mark(&c.id, c.urgent, Color::Red),
            Cell::new(beside.stands(c)),
            Cell::new(clean(named(c))),
            Cell::new(c.owner.as_str()),
            Cell::new(limit),
            right(over),
            Cell::new(clean(&c.title)),
        ]);
    }
    print(&table, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::clock::Zone;

    #[test]
    fn of_a_list_that_is_cut_it_is_said_how_many_there_are() {
        let spot = serde_json::json!({
            "category": "L", "place": "三号门", "cases": 4, "open": 3, "newest": "2026-11-20T02:00:00Z", "ids": [],
        });
        let caller = serde_json::json!({"cases": 3, "open": 1, "newest": "2026-11-20T02:00:00Z", "ids": []});
        let view = serde_json::json!({
            "overdue": [], "overdue_in_all": 0, "reopened": [], "reopened_in_all": 0, "hot_spots": [spot, spot],
            "hot_spots_in_all": 3, "repeat_callers": [caller], "repeat_callers_in_all": 1, "at": "2026-11-20T12:00:00Z",
        });
        let screen = Screen { json: false, color: false, color_stderr: false, width: None, zone: Zone::utc_in(2026) };
        let mut out = Vec::new();
        supervision(&serde_json::from_value(view).unwrap(), &screen, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("hot spots: 3, the first 2\n") && out.contains("repeat callers: 1\n"), "{out}");
    }

    #[test]
    fn a_time_of_whole_seconds_has_no_tenths() {
        assert_eq!([0, 9, 10, 3600].map(seconds), ["0 s", "9 s", "10 s", "1 h 0 m"]);
    }
}
