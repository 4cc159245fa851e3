//! Cases as CSV.

use chrono::{DateTime, Utc};
use citybrain_shared::case::{Assist, Booking, CALL_BACK, Case};
use citybrain_shared::view;
use std::io::{self, Write};

/// What somebody has written, so that no spreadsheet takes it for a formula (OWASP, "CSV Injection").
fn as_text(written: &str) -> String {
    let is_formula = written.starts_with(['=', '+', '-', '@', '\t', '\r']);
    format!("{}{written}", if is_formula { "'" } else { "" })
}

/// Its name, and what stands in it.
type Column = (&'static str, fn(&Case) -> String);

/// The columns of a spreadsheet, and what stands in them. What somebody has written is [`as_text`].
const COLUMNS: [Column; 51] = [
    ("id", |c| c.id.clone()),
    ("kind", |c| c.kind.to_string()),
    ("status", |c| c.status.to_string()),
    ("closed_reason", |c| c.closed_reason.map(|r| r.to_string()).unwrap_or_default()),
    ("category", |c| as_text(&c.category)),
    ("category_name", |c| as_text(&c.category_name)),
    ("department", |c| as_text(&c.department)),
    ("governance", |c| as_text(c.governance.as_deref().unwrap_or_default())),
    ("channel", |c| as_text(&c.channel)),
    ("title", |c| as_text(&c.title)),
    ("owner", |c| c.owner.to_string()),
    ("unit", |c| as_text(c.unit_at_work().unwrap_or_default())),
    ("opened_at", |c| c.opened_at.to_string()),
    ("opened", |c| view::rfc3339(c.opened)),
    ("dispatched", |c| time(c.dispatched)),
    ("signed", |c| time(c.signed)),
    ("contacted", |c| time(c.contacted)),
    ("resolved", |c| time(c.outcome.as_ref().map(|o| o.at))),
    ("closed", |c| time(c.closed)),
    ("handler_says", |c| c.outcome.as_ref().map(|o| o.solved.to_string()).unwrap_or_default()),
    ("check", |c| {
        c.finding.as_ref().map(|f| if f.passed { "passed" } else { "failed" }.to_owned()).unwrap_or_default()
    }),
    ("resident_solved", |c| c.said_solved().map(|s| s.to_string()).unwrap_or_default()),
    ("resident_satisfied", |c| c.said_satisfied().map(|s| s.to_string()).unwrap_or_default()),
    ("response_due", |c| due_of(c, "response")),
    ("solution_due", |c| due_of(c, "solution")),
    ("late", |c| c.was_late().to_string()),
    ("returns", |c| c.returns.to_string()),
    ("reworks", |c| c.reworks.to_string()),
    ("reopened", |c| c.reopened.to_string()),
    ("merged_into", |c| c.merged_into.clone().unwrap_or_default()),
    ("lat", |c| number(c.place.as_ref().and_then(|p| p.lat))),
    ("lon", |c| number(c.place.as_ref().and_then(|p| p.lon))),
    ("place", |c| c.place.as_ref().map(|p| as_text(&p.text)).unwrap_or_default()),
    ("on_its_way_to", |c| c.handing_to.as_ref().map(ToString::to_string).unwrap_or_default()),
    ("urgent", |c| c.urgent.to_string()),
    ("description", |c| as_text(&c.description)),
    ("dispatch_due", |c| due_of(c, "dispatch")),
    ("suspended", |c| c.suspended.is_some().to_string()),
    ("extended", |c| c.extended.is_some().to_string()),
    ("excluded", |c| c.is_excluded().to_string()),
    ("escalations", |c| c.escalations.to_string()),
    ("service", |c| of_booking(c, |b| as_text(&b.service))),
    ("slot", |c| time(c.booking.as_ref().and_then(|b| b.at))),
    ("seats", |c| of_booking(c, |b| b.seats.to_string())),
    ("seat", |c| of_booking(c, |b| b.seat.to_string())),
    ("booking", |c| of_booking(c, |b| b.state.to_string())),
    ("summoned", |c| as_text(&of_assists(c, |a| a.unit.clone()))),
    ("summoned_reported", |c| of_assists(c, |a| a.reported.map_or("-".to_owned(), view::rfc3339))),
    ("summoned_rated", |c| of_assists(c, |a| a.rating.map_or("-".to_owned(), |rating| rating.to_string()))),
    ("call_back_due", |c| due_of(c, CALL_BACK)),
    ("evaluated", |c| time(c.verdicts().map(|v| v.at).max())),
];

/// What there is of each summons, in their order.
fn of_assists(case: &Case, of: impl Fn(&Assist) -> String) -> String {
    case.assists.iter().map(of).collect::<Vec<_>>().join("; ")
}

fn of_booking(case: &Case, of: impl FnOnce(&Booking) -> String) -> String {
    case.booking.as_ref().map(of).unwrap_or_default()
}

fn time(at: Option<DateTime<Utc>>) -> String {
    at.map(view::rfc3339).unwrap_or_default()
}

fn due_of(case: &Case, clock: &str) -> String {
    time(case.clock(clock).and_then(|c| c.due))
}

fn number(n: Option<f64>) -> String {
    n.map(|n| n.to_string()).unwrap_or_default()
}

/// One JSON object a line.
pub fn lines(cases: &[Case], out: &mut dyn Write) -> io::Result<()> {
    for case in cases {
        serde_json::to_writer(&mut *out, case)?;
        writeln!(out)?;
    }
    Ok(())
}

/// One line a case, for a spreadsheet.
pub fn csv(cases: &[Case], out: &mut dyn Write) -> io::Result<()> {
    // The library's own conversion forgets that it was a closed pipe.
    let io = |e: csv::Error| match e.into_kind() {
        csv::ErrorKind::Io(e) => e,
        other => io::Error::other(format!("{other:?}")),
    };
    // Without it a spreadsheet takes the text for one in the encoding of its country.
    out.write_all("\u{feff}".as_bytes())?;
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(COLUMNS.map(|(name, _)| name)).map_err(io)?;
    for case in cases {
        csv.write_record(COLUMNS.map(|(_, of)| of(case))).map_err(io)?;
    }
    csv.flush()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A case of `c/s/a`, with this beside what each has.
    pub fn with(more: serde_json::Value) -> Case {
        let mut case = serde_json::json!({
            "id": "20261120-0", "term": 1, "version": 1, "kind": "appeal", "status": "dispatched", "owner": "c/s/a",
            "opened_at": "c/s/a", "opened": "2026-11-20T02:00:00Z", "changed": "2026-11-20T02:00:00Z",
            "reach": "city", "category": "L", "channel": "cli", "title": "t", "clocks": [],
        });
        for (key, value) in more.as_object().unwrap() {
            case[key] = value.clone();
        }
        serde_json::from_value(case).unwrap()
    }

    pub fn clock(name: &str, more: serde_json::Value) -> serde_json::Value {
        let mut clock = serde_json::json!({
            "name": name, "limit": "2h", "started": "2026-11-20T02:00:00Z", "due": "2026-11-20T04:00:00Z",
        });
        for (key, value) in more.as_object().unwrap() {
            clock[key] = value.clone();
        }
        clock
    }

    #[test]
    fn a_csv_says_its_encoding_and_has_what_is_booked_and_where_a_case_is_on_its_way_to() {
        let booking = serde_json::json!({
            "node": "c/s/a", "service": "opera", "name": "川剧", "at": "2026-12-05T01:00:00Z", "seat": "volunteer",
            "seats": 2, "state": "booked",
        });
        let case = with(serde_json::json!({
            "handing_to": "c/s/b", "urgent": true, "description": "第一行\n第二行", "escalations": 2,
            "clocks": [clock("dispatch", serde_json::json!({})), clock("call_back", serde_json::json!({}))],
            "verdict": {"by": "resident", "is_residents": true, "at": "2026-11-20T05:00:00Z", "solved": "solved"},
            "other_verdict": {"by": "w", "at": "2026-11-20T04:30:00Z", "satisfied": "yes"},
            "booking": booking, "assists": [
                {"id": "a1", "unit": "=消防", "asked": "2026-11-20T02:00:00Z", "reason": "r"},
                {"id": "a2", "unit": "燃气", "asked": "2026-11-20T02:00:00Z", "reason": "r",
                    "reported": "2026-11-20T03:00:00Z", "rating": 4},
            ],
        }));
        let mut out = Vec::new();
        csv(&[case], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut csv = csv::Reader::from_reader(text.strip_prefix('\u{feff}').expect("the mark of UTF-8").as_bytes());
        let head = csv.headers().unwrap().clone();
        let row = csv.records().next().unwrap().unwrap();
        for (column, value) in [
            ("id", "20261120-0"),
            ("on_its_way_to", "c/s/b"),
            ("urgent", "true"),
            ("description", "第一行\n第二行"),
            ("dispatch_due", "2026-11-20T04:00:00.000Z"),
            ("suspended", "false"),
            ("escalations", "2"),
            ("service", "opera"),
            ("slot", "2026-12-05T01:00:00.000Z"),
            ("seats", "2"),
            ("seat", "volunteer"),
            ("booking", "booked"),
            ("summoned", "'=消防; 燃气"),
            ("summoned_reported", "-; 2026-11-20T03:00:00.000Z"),
            ("summoned_rated", "-; 4"),
            ("call_back_due", "2026-11-20T04:00:00.000Z"),
            ("evaluated", "2026-11-20T05:00:00.000Z"),
        ] {
            let i = head.iter().position(|name| name == column).expect(column);
            assert_eq!(&row[i], value, "{column}");
        }
    }

    #[test]
    fn no_text_of_a_csv_is_a_formula() {
        for (written, wanted) in
            [("=HYPERLINK(\"http://x\")", "'=HYPERLINK(\"http://x\")"), ("@a", "'@a"), ("7-301", "7-301")]
        {
            assert_eq!(as_text(written), wanted);
        }
    }
}
