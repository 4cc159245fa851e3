//! Rules and alarms, for people.

use super::table::{Cell, Color};
use super::{Screen, clean, counted, grouped, print, right};
use chrono::{DateTime, Utc};
use citybrain_shared::config::rules::Severity;
use citybrain_shared::view::{self, Alarm, Firing, RuleState, RuleWaits};
use std::io::{self, Write};

pub fn alarms(v: &view::Alarms, now: DateTime<Utc>, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.alarms.is_empty() {
        let others = if v.active > 0 { format!("; {} are active in all", grouped(v.active)) } else { String::new() };
        writeln!(out, "no alarms that fit{others}")?;
        return lacking(v, out);
    }
    let has_cases = !v.cases.is_empty();
    let mut titles = vec!["ID", "SEVERITY", "STATE", "RAISED", "TIMES", "ORIGIN", "ALARM", "TITLE"];
    titles.extend(has_cases.then_some("CASES"));
    let mut table = s.table(&titles);
    for a in &v.alarms {
        let urgent = a.active && a.severity.is_urgent();
        let mut row = vec![
            Cell::new(&a.id),
            s.mark(
                a.severity.as_str(),
                urgent,
                if a.severity == Severity::Critical { Color::Red } else { Color::Yellow },
            ),
            s.mark(&state(a, now), a.active && !a.acknowledged, Color::Yellow),
            Cell::new(s.zone.short(a.raised_at)),
            right(grouped(a.raises)),
            Cell::new(a.origin.as_str()),
            Cell::new(clean(&a.named())),
            Cell::new(clean(&a.title)),
        ];
        if has_cases {
            let cases = v.cases.iter().filter(|c| c.alarm == a.id).map(|c| format!("{} {}", c.id, c.status));
            row.push(Cell::new(cases.collect::<Vec<_>>().join(", ")));
        }
        table.add_row(row);
    }
    print(&table, out)?;
    let shown = v.alarms.iter().filter(|a| a.active).count() as u64;
    let more = match &v.next {
        Some(next) => format!(" ({} shown; `--after {next}` shows more)", grouped(shown)),
        None if shown < v.active => format!(" ({} shown)", grouped(shown)),
        None => String::new(),
    };
    write!(out, "{} active{more}, {} of them not acknowledged", grouped(v.active), grouped(v.unacknowledged))?;
    let shelved = if v.shelved > 0 { format!(", {} shelved", grouped(v.shelved)) } else { String::new() };
    writeln!(out, "{shelved}")?;
    lacking(v, out)
}

/// What is not in the list, because nobody hears of it, or nobody has told it yet.
fn lacking(v: &view::Alarms, out: &mut dyn Write) -> io::Result<()> {
    const NAMED: usize = 5;
    super::supervision::awaits(v.awaits.as_ref(), "alarms", out)?;
    let all = v.unheard.len() as u64 + v.unheard_more;
    if all == 0 {
        return Ok(());
    }
    let mut names: Vec<&str> = v.unheard.iter().take(NAMED).map(|a| a.as_str()).collect();
    names.extend((all > NAMED as u64).then_some("…"));
    let is = if all == 1 { "is" } else { "are" };
    writeln!(out, "{} below {is} not heard, nor what is raised there: {}", counted(all, "node"), names.join(", "))
}

pub fn warnings(v: &view::CapWarnings, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.warnings.is_empty() {
        return writeln!(out, "no warning is in force");
    }
    let mut table = s.table(&["LEVEL", "EVENT", "SENT", "UNTIL", "MESSAGES", "HEADLINE", "ID"]);
    for w in &v.warnings {
        let color = if w.level == Severity::Critical { Color::Red } else { Color::Yellow };
        table.add_row(vec![
            s.mark(w.level.as_str(), w.level.is_urgent(), color),
            Cell::new(clean(&w.event)),
            Cell::new(s.zone.short(w.sent)),
            Cell::new(s.zone.short(w.expires)),
            right(grouped(w.messages.len() as u64)),
            Cell::new(clean(&w.headline)),
            Cell::new(clean(&w.about)),
        ]);
    }
    print(&table, out)
}

pub fn warning(v: &view::CapWarnings, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    for w in &v.warnings {
        writeln!(out, "{}  {} {}", clean(&w.about), w.level.as_str(), clean(&w.headline))?;
        writeln!(out, "event      {}", clean(&w.event))?;
        writeln!(out, "in force   from {} to {}", s.zone.whole(w.sent), s.zone.whole(w.expires))?;
        let nodes: Vec<&str> = w.nodes.iter().map(|n| n.as_str()).collect();
        writeln!(out, "told       {}", if nodes.is_empty() { "nobody below".into() } else { nodes.join(", ") })?;
        for message in &w.messages {
            writeln!(out, "message    {}", clean(message))?;
        }
    }
    Ok(())
}

pub fn cap_taken(v: &view::CapTaken, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let word = if v.duplicate { "known already" } else { "taken" };
    writeln!(out, "{word}: {} at position {}", clean(&v.id), v.pos)?;
    let nodes: Vec<&str> = v.notified.iter().map(|n| n.as_str()).collect();
    writeln!(out, "told: {}", if nodes.is_empty() { "nobody below".into() } else { nodes.join(", ") })?;
    if !v.note.is_empty() {
        writeln!(out, "note: {}", clean(&v.note))?;
    }
    Ok(())
}

/// Two words: does it hold, and has anybody seen it.
fn state(a: &Alarm, now: DateTime<Utc>) -> String {
    let held = if a.active { "active" } else { "cleared" };
    let seen = match (&a.asked, a.acknowledged) {
        (Some(asked), _) => format!(", {} asked", clean(&asked.action)),
        (None, true) => ", acked".into(),
        (None, false) => String::new(),
    };
    let shelf = if a.shelved_until.is_some_and(|until| until > now) { ", shelved" } else { "" };
    format!("{held}{seen}{shelf}")
}

pub fn alarm(v: &view::AlarmShown, now: DateTime<Utc>, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let a = &v.alarm;
    writeln!(out, "{}  {} {}  {}", a.id, a.severity.as_str(), state(a, now), clean(&a.title))?;
    writeln!(out, "alarm      {} of {}, seen up to the {}", clean(&a.named()), a.origin, a.reach)?;
    let key = if a.rule_key.is_empty() { String::new() } else { format!(", of {}", clean(&a.rule_key)) };
    writeln!(out, "rule       {}{key}", clean(&a.rule))?;
    let times = if a.raises == 1 { "once".into() } else { format!("{} times", grouped(a.raises)) };
    writeln!(out, "raised     {}, {times} since {}", s.zone.whole(a.raised_at), s.zone.whole(a.first_raised_at))?;
    let line = |out: &mut dyn Write, word: &str, at: Option<_>, by: &Option<String>| match at {
        Some(at) => writeln!(out, "{word}{} by {}", s.zone.whole(at), clean(by.as_deref().unwrap_or("?"))),
        None => Ok(()),
    };
    // What has got worse since nobody has seen.
    line(out, "acked      ", a.acknowledged_at.filter(|_| a.acknowledged), &a.acknowledged_by)?;
    line(out, "cleared    ", a.cleared_at, &a.cleared_by)?;
    // One that is over says nothing of now.
    line(out, "shelved to ", a.shelved_until.filter(|until| *until > now), &a.shelved_by)?;
    if v.left {
        writeln!(out, "stays      no rule ends it any more; `citybrain alarm clear {}`", a.id)?;
    }
    for c in &v.cases {
        writeln!(out, "case       {} {}, of {}, opened {}", c.id, c.status, c.owner, s.zone.short(c.opened))?;
    }
    if let Some(awaits) = &v.awaits {
        writeln!(out, "waits      this may be old: {}", clean(&awaits.whole("alarms")))?;
    }
    if let Some(view::AlarmAnswer { asked, refused: Some(why) }) = &a.answer {
        let (action, by, at) = (clean(&asked.action), clean(&asked.by), s.zone.whole(asked.at));
        writeln!(out, "not done   {action} by {by} at {at}: {}", clean(why))?;
    }
    match &a.asked {
        Some(asked) => writeln!(
            out,
            "asked      {} by {} at {}; {} has not answered yet",
            clean(&asked.action),
            clean(&asked.by),
            s.zone.whole(asked.at),
            a.origin
        ),
        None => Ok(()),
    }
}

pub fn rules(v: &view::Rules, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.rules.is_empty() {
        return writeln!(out, "this node has no rules; `[[rule]]` in its config makes one");
    }
    rule_rows(&v.rules, s, out)?;
    if let Some(calendar) = &v.calendar {
        writeln!(out, "hours and days go by {}: {}", whose(calendar), clean(&calendar.words))?;
    }
    if v.waiting + v.dropped > 0 {
        writeln!(out, "{} conclusions wait to be written, {} were dropped", grouped(v.waiting), grouped(v.dropped))?;
    }
    Ok(())
}

/// The `[calendar]` that is in force at a node.
pub fn whose(calendar: &view::CalendarShown) -> String {
    match &calendar.of {
        Some(of) => format!("the `[calendar]` of {of}"),
        None => "no `[calendar]`, neither here nor above".to_owned(),
    }
}

fn rule_rows(rules: &[RuleState], s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&["RULE", "ON", "CONDITION", "THEN", "KEYS", "ON NOW", "MATCHED", "FIRED", "ERRORS"]);
    for r in rules {
        let mut row = vec![
            Cell::new(clean(&r.name)),
            Cell::new(clean(&r.on.join(" "))),
            Cell::new(clean(&r.condition)),
            Cell::new(clean(&r.then.join(", "))),
        ];
        row.extend([r.keys, r.on_keys, r.matched, r.fired, r.errors].map(|n| right(grouped(n))));
        table.add_row(row);
    }
    print(&table, out)?;
    for r in rules {
        if let Some(error) = &r.last_error {
            writeln!(out, "{}: the last error: {}", clean(&r.name), clean(error))?;
        }
        if r.keys_given_way > 0 {
            writeln!(out, "{}: {} keys gave way to newer ones", clean(&r.name), grouped(r.keys_given_way))?;
        }
    }
    Ok(())
}

pub fn rules_tested(v: &view::RulesTested, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if !v.fired.is_empty() {
        let mut table = s.table(&["TIME", "RULE", "KEY", "WHAT", "SEVERITY", "BECAUSE", "DONE"]);
        for f in &v.fired {
            table.add_row(vec![
                Cell::new(s.zone.whole(f.at)),
                Cell::new(clean(&f.rule)),
                Cell::new(clean(&f.key)),
                s.mark(&f.what, f.what == "fired", Color::Yellow),
                Cell::new(f.severity.map_or("-", Severity::as_str)),
                Cell::new(clean(&because(f))),
                Cell::new(clean(&done(f))),
            ]);
        }
        print(&table, out)?;
        writeln!(out)?;
    }
    rule_rows(&v.rules, s, out)?;
    if let Some(calendar) = &v.calendar {
        let whose = match &calendar.of {
            Some(_) => "the file's `[calendar]`",
            None => "what is usual (the file has no `[calendar]`; at the node, one from above would count)",
        };
        writeln!(out, "hours and days went by {whose}: {}", clean(&calendar.words))?;
    }
    // What changed and what was over stand in lines of their own.
    let fired = v.fired.iter().filter(|f| f.what == "fired").count() as u64;
    writeln!(out, "{}, {}", counted(v.events, "event"), counted(fired, "firing"))?;
    if v.left_out > 0 {
        writeln!(out, "left out, {} that the node's own rules had made", counted(v.left_out, "event"))?;
    }
    v.waiting.iter().try_for_each(|w| writeln!(out, "{}", still_waits(w, s)))?;
    if v.waiting_more > 0 {
        writeln!(out, "still waiting at the end, and {} more", grouped(v.waiting_more))?;
    }
    v.unread.iter().try_for_each(|u| writeln!(out, "left out, {}", clean(u)))?;
    match v.unread_more {
        0 => Ok(()),
        more => writeln!(out, "left out, and {} more", counted(more, "line")),
    }
}

fn still_waits(w: &RuleWaits, s: &Screen) -> String {
    let of = if w.key.is_empty() { w.rule.clone() } else { format!("{}, {}", w.rule, w.key) };
    let until = w.until.map(|at| s.zone.whole(at).to_string()).unwrap_or_default();
    let what = match w.what.as_str() {
        "held" => format!("fires at {until} if its condition holds on"),
        "absent" => format!("fires at {until} if nothing comes"),
        "over" => format!("is over at {until} if it stays so"),
        _ => "its condition holds, and another alarm keeps it from firing".into(),
    };
    format!("still waiting at the end: {}: {what}", clean(&of))
}

fn because(f: &Firing) -> String {
    let mut words: Vec<String> = f.why.iter().map(|(path, value)| format!("{path} = {value}")).collect();
    if f.event.is_empty() {
        words.push("time went by".into());
    }
    words.join(", ")
}

fn done(f: &Firing) -> String {
    let error = f.error.as_ref().map(|why| format!("error: {why}"));
    f.done.iter().cloned().chain(error).collect::<Vec<_>>().join("; ")
}

pub fn reloaded(v: &view::Reloaded, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let count = |p: &view::ReloadedPart| match (p.part.as_str(), p.in_force) {
        ("category", n) if n != 1 => format!("{} categories", grouped(n)),
        (part, n) => counted(n, &clean(part)),
    };
    writeln!(out, "{} in force", v.parts.iter().map(count).collect::<Vec<_>>().join(", "))?;
    for part in &v.parts {
        for (word, names) in [("added", &part.added), ("changed", &part.changed), ("removed", &part.removed)] {
            names.iter().try_for_each(|name| writeln!(out, "{word:<8} {} {}", clean(&part.part), clean(name)))?;
        }
    }
    if v.calendar_changed {
        writeln!(out, "changed  calendar")?;
    }
    if !v.waits.is_empty() {
        writeln!(
            out,
            "changed in the file and not in force until a start: {} (`citybrain config diff FILE`)",
            v.waits.join(", ")
        )?;
    }
    v.doubts.iter().try_for_each(|doubt| writeln!(out, "note     {}", clean(doubt)))?;
    for a in &v.left {
        let name = a.named();
        writeln!(
            out,
            "alarm    {} {} stays: no rule ends it any more; `citybrain alarm clear {0}`",
            a.id,
            clean(&name)
        )?;
    }
    match v.left_more {
        0 => Ok(()),
        more => writeln!(out, "and {} more, which `citybrain alarm list` shows", counted(more, "alarm")),
    }
}
