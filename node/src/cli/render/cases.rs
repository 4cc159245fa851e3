//! Cases and rates, for people; and as CSV.

use super::table::{Cell, Color};
use super::{Screen, clean, grouped, print};
use chrono::{DateTime, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{Case, Clock, Entry};
use citybrain_shared::{view, words};
use std::io::{self, Write};

pub fn cases(v: &view::Cases, me: &str, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.cases.is_empty() {
        return writeln!(
            out,
            "no cases that fit; {} are open, {} of them overdue",
            grouped(v.open),
            grouped(v.overdue)
        );
    }
    let mut table = s.table(&["CASE", "STANDS", "KIND", "CATEGORY", "OWNER", "DUE", "TITLE"]);
    for c in &v.cases {
        let (due, over) = due(c, s);
        table.add_row(vec![
            s.mark(&c.id, c.urgent, Color::Red),
            s.mark(&clean(&c.standing()), c.status.is_open(), Color::Yellow),
            Cell::new(c.kind),
            Cell::new(clean(named(c))),
            Cell::new(format!("{}{}", c.owner, as_heard(c, me))),
            s.mark(&due, over, Color::Red),
            Cell::new(clean(&c.title)),
        ]);
    }
    print(&table, out)?;
    let shown = v.cases.len() as u64;
    let more = match &v.next {
        Some(next) => format!(" (`--after {next}` shows more)"),
        None => String::new(),
    };
    writeln!(
        out,
        "{} of {} that fit{more}; {} are open, {} of them overdue",
        grouped(shown),
        grouped(v.fit),
        grouped(v.open),
        grouped(v.overdue)
    )
}

pub(super) fn named(c: &Case) -> &str {
    match (c.category_name.as_str(), c.category.as_str()) {
        ("", "") => "-",
        ("", code) => code,
        (name, _) => name,
    }
}

/// Those above the owner, and where the case was opened, hear of every step. Others that had it hear when it
/// is closed: until then it may have another owner.
fn as_heard(c: &Case, me: &str) -> &'static str {
    let is_sure = me.is_empty() || !c.status.is_open() || hears_all(me, &c.owner, &c.opened_at);
    if is_sure { "" } else { " (as last heard)" }
}

fn hears_all(me: &str, owner: &Address, opened_at: &Address) -> bool {
    Address::parse(me).is_ok_and(|me| me.covers(owner) || me == *opened_at)
}

fn due(c: &Case, s: &Screen) -> (String, bool) {
    match c.due() {
        Some((clock, at)) => {
            let missed = if clock.missed.is_some() { ", missed" } else { "" };
            (format!("{} {}{missed}", clock.name, s.zone.short(at)), clock.missed.is_some())
        }
        None => ("-".into(), false),
    }
}

pub fn case(v: &view::CaseShown, me: &str, now: DateTime<Utc>, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let c = &v.case;
    writeln!(out, "{}  {}{}  {}", c.id, c.standing(), if v.overdue { ", overdue" } else { "" }, clean(&c.title))?;
    what(v, s, out)?;
    places(v, out)?;
    reported(v, s, out)?;
    whose(v, me, s, out)?;
    handled(c, out)?;
    judged(c, out)?;
    assists(c, s, out)?;
    followed(c, out)?;
    for clock in &c.clocks {
        line(out, "clock", told(c, clock, s))?;
    }
    history(&v.history, s, out)?;
    under_way(v, s, out)?;
    wishes(&v.wishes, out)?;
    for other in &v.similar {
        line(out, "similar", similar(other, &c.owner, now))?;
    }
    if let Some(to) = &v.asked {
        line(out, "sent", format!("{to} owns it and was asked; its answer will stand here"))?;
    }
    let takes: Vec<&str> = v.allowed.iter().map(|verb| verb.as_str()).collect();
    line(out, "takes", if takes.is_empty() { "nothing until it has been taken".into() } else { takes.join(", ") })
}

fn line(out: &mut dyn Write, word: &str, text: String) -> io::Result<()> {
    writeln!(out, "{word:<12}{}", clean(&text))
}

fn what(v: &view::CaseShown, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let c = &v.case;
    let of = if c.department.is_empty() { String::new() } else { format!(", {}", c.department) };
    line(out, "what", format!("{} {}{of}, by {}", c.kind, named(c), c.channel))?;
    let w = &v.words;
    let step = if w.step > 0 { format!(", step {} of 7", w.step) } else { String::new() };
    line(out, "elsewhere", format!("{}{step}; 12345: {}; Open311: {}, {}", w.urban, w.hotline, w.open311, w.update))?;
    if !c.description.is_empty() {
        line(out, "described", c.description.clone())?;
    }
    if let Some(i) = &c.imported {
        let here = if c.version > i.version { "; dealt with here since then" } else { "" };
        line(out, "from", format!("{} of {}, as of {}{here}", i.id, i.source, s.zone.whole(i.updated)))?;
    }
    Ok(())
}

/// Where it was reported, and where it is now.
fn places(v: &view::CaseShown, out: &mut dyn Write) -> io::Result<()> {
    let c = &v.case;
    let now_at = v.moved_to.as_ref().or(c.place_again.as_ref());
    for (word, place) in [("where", c.place.as_ref()), ("now at", now_at)] {
        let Some(p) = place else { continue };
        let heard = if word == "now at" && v.moved_to.is_some() { "; its owner has not answered yet" } else { "" };
        let at = match (p.lat, p.lon) {
            (Some(lat), Some(lon)) => format!(" ({lat}, {lon})"),
            _ => String::new(),
        };
        line(out, word, format!("{}{heard}", format!("{}{at}", p.text).trim()))?;
    }
    Ok(())
}

/// What else came with it.
fn reported(v: &view::CaseShown, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let c = &v.case;
    if let Some(id) = &c.alarm {
        line(out, "alarm", v.alarm.as_ref().map_or(format!("{id}, which is not known here"), |a| alarm(a, s)))?;
    }
    if !c.form.is_empty() {
        let form: Vec<String> = c.form.iter().map(|(name, answer)| format!("{name}: {answer}")).collect();
        line(out, "answers", form.join("; "))?;
    }
    if !c.media.is_empty() {
        line(out, "media", c.media.join(" "))?;
    }
    Ok(())
}

/// Who has it, whose service it asks for, and whom to call.
fn whose(v: &view::CaseShown, me: &str, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let c = &v.case;
    let unit = if c.unit.is_empty() { String::new() } else { format!(", {}", c.unit) };
    let heard = as_heard(c, me);
    line(out, "owner", format!("{}{heard}{unit}; opened at {} {}", c.owner, c.opened_at, s.zone.short(c.opened)))?;
    if let Some(b) = &c.booking {
        let at = b.at.map_or(String::new(), |at| format!(", {}", s.zone.short(at)));
        let seats = if b.seats > 1 { format!(", {} seats", b.seats) } else { String::new() };
        let helps = if b.seat == citybrain_shared::case::Seat::Volunteer { ", as a volunteer" } else { "" };
        let form: Vec<String> = b.form.iter().map(|(name, answer)| format!("{name}: {answer}")).collect();
        let form = if form.is_empty() { String::new() } else { format!(" [{}]", form.join("; ")) };
        line(out, "service", format!("{} of {}{at}{seats}{helps}: {}{form}", b.name, b.node, b.state))?;
    }
    if let Some(contact) = &v.contact {
        let more = contact.more.iter().map(|(name, answer)| format!("{name}: {answer}"));
        let words = [contact.name.clone(), contact.phone.clone(), contact.address.clone()].into_iter().chain(more);
        let words: Vec<String> = words.filter(|w| !w.is_empty()).collect();
        line(out, "to call", words.join(", "))?;
    }
    Ok(())
}

/// What came of it, by those who worked on it.
fn handled(c: &Case, out: &mut dyn Write) -> io::Result<()> {
    let to_show = c.terms.as_ref().map(|t| t.evidence.join(", ")).filter(|names| !names.is_empty());
    if let Some(names) = to_show.filter(|_| c.status.is_open() && c.outcome.is_none()) {
        line(out, "to show", format!("{names}, when it is solved"))?;
    }
    if let Some(o) = &c.outcome {
        let shown = if o.evidence.is_empty() { String::new() } else { format!(" [{}]", o.evidence.join(" ")) };
        line(out, "handler", format!("{} ({}): {}{shown}", o.solved, o.by, o.text))?;
    }
    if let Some(f) = &c.finding {
        line(out, "verifier", format!("{} ({}): {}", if f.passed { "passed" } else { "failed" }, f.by, f.text))?;
    }
    Ok(())
}

/// What residents say of it, in this round and in those before.
fn judged(c: &Case, out: &mut dyn Write) -> io::Result<()> {
    for w in c.verdicts() {
        let word = |w: Option<&str>| w.unwrap_or("no answer").to_owned();
        let (solved, satisfied) = (word(w.solved.map(|s| s.as_str())), word(w.satisfied.map(|s| s.as_str())));
        let by = if w.by == "resident" { String::new() } else { format!(" ({})", w.by) };
        let text = if w.text.is_empty() { String::new() } else { format!(": {}", w.text) };
        let who = if w.is_residents { "resident" } else { "noted" };
        line(out, who, format!("solved: {solved}, satisfied: {satisfied}{by}{text}"))?;
    }
    let j = &c.judged_before;
    let said = [
        ("solved", j.solved),
        ("partly solved", j.partly_solved),
        ("unsolved", j.unsolved),
        ("satisfied", j.satisfied),
        ("mostly satisfied", j.mostly_satisfied),
        ("not satisfied", j.dissatisfied),
    ];
    let said: Vec<String> = said.iter().filter(|(_, n)| *n > 0).map(|(word, n)| format!("{word} {n}")).collect();
    if !said.is_empty() {
        line(out, "before", format!("{}: what was said in rounds that are over, and stays counted", said.join(", ")))?;
    }
    Ok(())
}

/// Who was asked to help.
fn assists(c: &Case, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    for a in &c.assists {
        let done = a
            .reported
            .map_or("has not reported".to_owned(), |at| format!("reported {}: {}", s.zone.short(at), a.result));
        let rated = a.rating.map_or(String::new(), |r| format!("; rated {r} of 5"));
        let node = a.node.as_ref().map(ToString::to_string).filter(|node| *node != a.unit);
        let node = node.map_or(String::new(), |node| format!(" ({node})"));
        line(out, "assist", format!("{} {}{node}: {}; {done}{rated}", a.id, a.unit, a.reason))?;
    }
    Ok(())
}

/// The case that it follows, and those that follow it.
fn followed(c: &Case, out: &mut dyn Write) -> io::Result<()> {
    if let Some(main) = &c.merged_into {
        let ended = c.leader_ended.map(|e| e.reason.map_or(e.status.to_string(), |reason| reason.to_string()));
        line(
            out,
            "follows",
            format!("{main}{}", ended.map_or(String::new(), |how| format!(", which is over: {how}"))),
        )?;
    }
    if !c.followers.is_empty() {
        line(out, "followers", c.followers.join(", "))?;
    }
    Ok(())
}

/// What its owner has not answered.
fn under_way(v: &view::CaseShown, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    for who in &v.coming {
        let text = format!(
            "{} of {}, since {}; the press's own box has not answered yet",
            who.by,
            who.node,
            s.zone.short(who.at)
        );
        line(out, "coming", text)?;
    }
    if v.forgotten_here {
        line(out, "forgotten", "here, at once; its owner was asked to".into())?;
    }
    Ok(())
}

/// The alarm beside a case, as it is now.
fn alarm(a: &view::Alarm, s: &Screen) -> String {
    let stands = match (a.cleared_at.filter(|_| !a.active), a.acknowledged_by.as_ref().filter(|_| a.acknowledged)) {
        (Some(at), _) => {
            format!("cleared {} by {}", s.zone.short(at), a.cleared_by.as_deref().unwrap_or("?"))
        }
        (None, Some(by)) => format!("active since {}, acked by {by}", s.zone.short(a.raised_at)),
        (None, None) => format!("active since {}, not acked", s.zone.short(a.raised_at)),
    };
    format!("{} {} {stands}: {}", a.id, a.severity.as_str(), a.title)
}

/// What whoever decides on a merger wants to know of the other one.
fn similar(other: &view::SimilarCase, owner: &Address, now: DateTime<Utc>) -> String {
    let away = other.distance_m.map_or("at the same place".to_owned(), |m| format!("{} m away", grouped(m)));
    let age = words::span((now - other.opened).num_milliseconds().unsigned_abs());
    let of = if other.owner == *owner { String::new() } else { format!(", of {}", other.owner) };
    format!("{} {}, {away}, opened {age} ago{of}: {}, {}", other.id, other.status, other.category, other.title)
}

/// Refusals that are shown, the newest, and characters of each: all of them are in `--json`.
const REFUSALS_SHOWN: usize = 3;
const REFUSAL_CHARS: usize = 120;

/// What this node has asked for: what has no answer yet, and why the newest others were refused.
fn wishes(all: &[view::CaseWish], out: &mut dyn Write) -> io::Result<()> {
    let refusals = all.iter().filter(|w| w.refused.is_some()).count();
    let mut older = refusals.saturating_sub(REFUSALS_SHOWN);
    if older > 0 {
        writeln!(out, "{:<12}{older} more that were refused before (`--json` has them)", "asked")?;
    }
    for w in all {
        let answer = match &w.refused {
            None => "no answer yet".to_owned(),
            Some(_) if older > 0 => {
                older -= 1;
                continue;
            }
            Some(why) => match why.char_indices().nth(REFUSAL_CHARS) {
                Some((cut, _)) => format!("refused: {}…", &why[..cut]),
                None => format!("refused: {why}"),
            },
        };
        writeln!(out, "{:<12}{}", "asked", clean(&format!("{} by {} of {}: {answer}", w.verb, w.by, w.to)))?;
    }
    Ok(())
}

fn told(case: &Case, c: &Clock, s: &Screen) -> String {
    let state = match (c.stopped, c.due, c.missed) {
        (Some(at), _, _) if c.name == "response" && case.responded().is_none() => {
            format!("stopped {}, without a response", s.zone.short(at))
        }
        (Some(at), Some(due), _) => {
            format!("stopped {}, {}", s.zone.short(at), if at <= due { "in time" } else { "too late" })
        }
        (Some(at), None, _) => format!("stopped {}", s.zone.short(at)),
        (None, None, _) => "paused".into(),
        (None, Some(_), Some(at)) => format!("missed, seen {}", s.zone.short(at)),
        (None, Some(_), None) => "runs".into(),
    };
    let due = c.due.map_or(String::new(), |d| format!(", due {}", s.zone.short(d)));
    format!("{} {} from {}{due}: {state}", c.name, c.limit, s.zone.short(c.started))
}

/// What was said, and whole what shows it: a place on the web that was cut leads nowhere.
fn said(what: &str, shows: &str) -> String {
    match (what, shows) {
        (what, "") => what.to_owned(),
        ("", shows) => format!("[{shows}]"),
        (what, shows) => format!("{what} [{shows}]"),
    }
}

fn history(entries: &[Entry], s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&["STEP", "WHEN", "WHERE", "WHO", "WHAT", "CLOCKS"]);
    for e in entries {
        let beside = e.role.filter(|r| r.as_str() != e.by);
        let who = beside.map_or(e.by.clone(), |r| format!("{} ({r})", e.by));
        let from = e.from.as_ref().map_or(String::new(), |f| format!(", from {f}"));
        let what = [e.to.clone().unwrap_or_default(), e.text.clone()];
        let shows = e.evidence.join(" ");
        let what: Vec<&str> = what.iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
        table.add_row(vec![
            Cell::new(format!("{:>2} {}", e.version, e.step)),
            Cell::new(s.zone.short(e.at)),
            Cell::new(format!("{}{from}", e.node)),
            Cell::new(clean(&who)),
            Cell::new(clean(&said(&what.join(": "), &shows))),
            Cell::new(clean(&e.clocks.join("; "))),
        ]);
    }
    print(&table, out)
}

/// What came of a file of another system's cases.
pub fn brought(v: &view::CasesBrought, out: &mut dyn Write) -> io::Result<()> {
    let skipped: u64 = v.skipped.values().sum();
    writeln!(
        out,
        "{} rows: {} cases, {} skipped; nodes that got some: {}; {:.1} s",
        grouped(v.rows),
        grouped(v.cases),
        grouped(skipped),
        v.nodes.len(),
        v.wall_s
    )?;
    writeln!(
        out,
        "accounts told: {}; new cases {}, changed {}, nothing new {}, refused {}",
        grouped(v.accounts),
        grouped(v.opened),
        grouped(v.changed),
        grouped(v.known),
        grouped(v.refused)
    )?;
    for (label, n) in &v.skipped {
        writeln!(out, "  skipped: {} {}", grouped(*n), clean(label))?;
    }
    for s in &v.first_skipped {
        writeln!(out, "    line {}: {}", s.line, clean(&s.reason))?;
    }
    for r in &v.first_refused {
        writeln!(out, "  refused: {}: {}", clean(&r.id), clean(&r.detail))?;
    }
    for (node, n) in &v.nodes {
        writeln!(out, "{:>9}  {node}", grouped(*n))?;
    }
    Ok(())
}

/// What somebody has written, so that no spreadsheet takes it for a formula (OWASP, "CSV Injection").
fn as_text(written: &str) -> String {
    let is_formula = written.starts_with(['=', '+', '-', '@', '\t', '\r']);
    format!("{}{written}", if is_formula { "'" } else { "" })
}

/// Its name, and what stands in it.
type Column = (&'static str, fn(&Case) -> String);

/// The columns of a spreadsheet, and what stands in them. What somebody has written is [`as_text`].
const COLUMNS: [Column; 33] = [
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
    ("unit", |c| as_text(&c.unit)),
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
];

fn time(at: Option<DateTime<Utc>>) -> String {
    at.map(view::rfc3339).unwrap_or_default()
}

fn due_of(case: &Case, clock: &str) -> String {
    time(case.clock(clock).and_then(|c| c.due))
}

fn number(n: Option<f64>) -> String {
    n.map(|n| n.to_string()).unwrap_or_default()
}

/// One line a case, for a spreadsheet.
pub fn csv(cases: &[Case], out: &mut dyn Write) -> io::Result<()> {
    // The library's own conversion forgets that it was a closed pipe.
    let io = |e: csv::Error| match e.into_kind() {
        csv::ErrorKind::Io(e) => e,
        other => io::Error::other(format!("{other:?}")),
    };
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(COLUMNS.map(|(name, _)| name)).map_err(io)?;
    for case in cases {
        csv.write_record(COLUMNS.map(|(_, of)| of(case))).map_err(io)?;
    }
    csv.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_csv_is_a_formula() {
        for (written, wanted) in
            [("=HYPERLINK(\"http://x\")", "'=HYPERLINK(\"http://x\")"), ("@a", "'@a"), ("7-301", "7-301")]
        {
            assert_eq!(as_text(written), wanted);
        }
    }

    #[test]
    fn the_owner_of_a_case_is_hearsay_where_its_steps_are_not_told() {
        let [owner, opened_at] = ["c/t/n", "c/s"].map(|a| Address::parse(a).unwrap());
        for (me, want) in [("c", true), ("c/t", true), ("c/t/n", true), ("c/s", true), ("c/t/m", false)] {
            assert_eq!(hears_all(me, &owner, &opened_at), want, "{me}");
        }
    }
}
