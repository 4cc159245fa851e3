//! What is for whoever keeps nodes running: stores, doctor, levels, config.

use super::table::{Cell, Color};
use super::{Screen, ago, clean, counted, grouped, print, right};
use citybrain_shared::config::{Map, Priority};
use citybrain_shared::view::{self, Answer, StoreState, Verdict};
use citybrain_shared::words::{bytes, span};
use std::collections::BTreeSet;
use std::io::{self, Write};

pub enum Ops {
    StoreStats(Answer<view::StoreStats>),
    StoreVerify(Answer<view::StoreVerify>),
    StoreChange(Answer<view::StoreChange>),
    DlqSettled(Answer<view::DlqSettled>),
    WebhookSkipped(Answer<view::WebhookSkipped>),
    LogLevel(Answer<view::LogLevel>),
    ConfigShown(Answer<view::ConfigShown>),
    ConfigDiff(Answer<view::ConfigDiff>),
    Doctor(Answer<view::Doctor>),
    /// From a bundle, with its age in milliseconds.
    Bundle(Answer<view::Doctor>, u64),
    Tokens(Answer<view::Tokens>),
    Users(Answer<view::Users>),
    Contexts(Answer<view::Contexts>),
    Enrolments(Answer<view::Enrolments>),
    Enrolled(Answer<view::Enrolled>),
    Retired(Answer<view::Retired>),
    LogReplayed(Answer<view::LogReplayed>),
    Presets(Answer<view::Presets>),
    Preset(Answer<view::PresetShown>),
    Tried(Answer<view::Tried>),
}

impl Screen {
    /// Shows it; the exit code that it means.
    pub(super) fn ops(&self, ops: Ops, out: &mut dyn Write) -> io::Result<u8> {
        match ops {
            Ops::StoreStats(a) => {
                let now = a.head.as_of;
                self.answer(&a, out, |v, s, out| stats(v, now, s, out))?;
                Ok(u8::from(!a.body.damage.is_empty()))
            }
            Ops::StoreVerify(a) => self.answer(&a, out, verify).map(|()| u8::from(!a.body.ok)),
            Ops::StoreChange(a) => self.answer(&a, out, change).map(|()| 0),
            Ops::DlqSettled(a) => {
                self.answer(&a, out, settled)?;
                let good = |l: &view::SettledLetter| {
                    ["committed", "duplicate", "delivered", "dropped"].contains(&l.outcome.as_str())
                };
                Ok(u8::from(!a.body.letters.iter().all(good)))
            }
            Ops::WebhookSkipped(a) => self.answer(&a, out, passed_over).map(|()| 0),
            Ops::LogLevel(a) => self.answer(&a, out, level).map(|()| 0),
            Ops::ConfigShown(a) => self.answer(&a, out, config).map(|()| 0),
            Ops::ConfigDiff(a) => self.answer(&a, out, diff).map(|()| u8::from(!a.body.differences.is_empty())),
            Ops::Tokens(a) => self.answer(&a, out, tokens).map(|()| u8::from(!a.body.unreadable.is_empty())),
            Ops::Users(a) => self.answer(&a, out, users).map(|()| u8::from(!a.body.unreadable.is_empty())),
            Ops::Contexts(a) => self.answer(&a, out, contexts).map(|()| 0),
            Ops::Enrolments(a) => self.answer(&a, out, enrolments).map(|()| 0),
            Ops::LogReplayed(a) => {
                self.answer(&a, out, |v, _, out| out.write_all(replayed(v).as_bytes()))?;
                Ok(u8::from(a.body.refused + a.body.withheld + a.body.damaged > 0))
            }
            Ops::Enrolled(a) => self.answer(&a, out, enrolled).map(|()| 0),
            Ops::Retired(a) => self.answer(&a, out, retired).map(|()| 0),
            Ops::Presets(a) => self.answer(&a, out, presets).map(|()| 0),
            Ops::Preset(a) => self.answer(&a, out, preset).map(|()| 0),
            Ops::Tried(a) => {
                let means_something = ["event", "announcement"].contains(&a.body.outcome.as_str());
                self.answer(&a, out, tried).map(|()| u8::from(!means_something))
            }
            Ops::Bundle(a, age_ms) => {
                let made = a.head.as_of;
                self.answer(&a, out, |v, s, out| {
                    doctor(v, s, out)?;
                    writeln!(
                        out,
                        "so it was {} ago, when the bundle was made: {}",
                        span(age_ms),
                        s.zone.with_year(made)
                    )
                })?;
                Ok(u8::from(!a.body.ok))
            }
            Ops::Doctor(a) => self.answer(&a, out, doctor).map(|()| u8::from(!a.body.ok)),
        }
    }
}

fn tokens(v: &view::Tokens, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.tokens.is_empty() {
        writeln!(out, "no tokens: nobody is let in but by `--data-dir`")?;
    } else {
        let mut table = s.table(&["NAME", "ROLE", "CREATED"]);
        for t in &v.tokens {
            let created = t.created.as_deref().unwrap_or("-");
            table.add_row(vec![Cell::new(clean(&t.name)), Cell::new(clean(&t.role)), Cell::new(clean(created))]);
        }
        print(&table, out)?;
    }
    v.unreadable.iter().try_for_each(|line| writeln!(out, "{}: it opens nothing", clean(line)))
}

fn users(v: &view::Users, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.users.is_empty() {
        writeln!(out, "no users: `citybrain user add NAME --file FILE` makes one")?;
    } else {
        let mut table = s.table(&["NAME", "NODE", "ROLES", "BY"]);
        for u in &v.users {
            let node = u.child.as_ref().map_or("-", |a| a.as_str());
            let roles = if u.roles.is_empty() { "-".to_owned() } else { u.roles.join(", ") };
            table.add_row([clean(&u.name), node.to_owned(), clean(&roles), u.by.clone()].map(Cell::new));
        }
        print(&table, out)?;
    }
    v.unreadable.iter().try_for_each(|line| writeln!(out, "{}", clean(line)))
}

fn enrolments(v: &view::Enrolments, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.waiting.is_empty() {
        let why = if v.is_manual {
            ""
        } else {
            ": link.enrol is \"auto\" here, and everybody with the right account is let in"
        };
        return writeln!(out, "nobody waits{why}");
    }
    let mut table = s.table(&["CHILD", "NAME", "INCARNATION", "BEFORE", "WORD"]);
    for w in &v.waiting {
        let short = |inc: &str| inc.get(..8).unwrap_or(inc).to_owned();
        let before = w.before.as_deref().map_or_else(|| "first time".into(), short);
        table.add_row(vec![
            Cell::new(clean(w.address.as_str())),
            Cell::new(clean(&w.name)),
            Cell::new(clean(&short(&w.incarnation))),
            Cell::new(clean(&before)),
            s.mark(if w.is_refused { "refused" } else { "none yet" }, true, Color::Yellow),
        ]);
    }
    print(&table, out)?;
    writeln!(out, "`citybrain enrol approve CHILD` lets one in, `citybrain enrol refuse CHILD` says no")
}

/// In lines, for whichever stream has room.
pub fn replayed(v: &view::LogReplayed) -> String {
    let mut text = format!(
        "{} events sent to {} and acknowledged, up to position {}, in {:.1} s\n",
        grouped(v.acknowledged),
        clean(&v.to),
        grouped(v.upto_pos.0),
        v.wall_ms as f64 / 1e3
    );
    for (count, what) in [
        (
            v.withheld,
            "events were not sent: this token may not see whom they name (a worker's, supervisor's or operator's may)",
        ),
        (
            v.private,
            "events were not sent: people say in them who they are (`--type TYPE` with exactly their type sends them), \
             or nodes speak of cases with each other",
        ),
        (v.refused, "events were refused"),
        (v.damaged, "records of the log are lost: `citybrain store verify DIR` says where"),
    ] {
        if count > 0 {
            text.push_str(&format!("{} {what}\n", grouped(count)));
        }
    }
    let refused = v.first_refused.iter().map(|r| format!("  position {}: {}\n", grouped(r.pos.0), clean(&r.reason)));
    text.extend(refused);
    text
}

fn enrolled(v: &view::Enrolled, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let word = if v.is_admitted { "is let in when it asks again, within seconds" } else { "stays outside" };
    v.children.iter().try_for_each(|c| {
        let short = c.incarnation.get(..8).unwrap_or(&c.incarnation);
        writeln!(out, "{} (incarnation {}) {word}", clean(c.address.as_str()), clean(short))
    })
}

fn retired(v: &view::Retired, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let below = v.nodes.iter().filter(|n| **n != v.address).count();
    let with = if below == 0 { String::new() } else { format!(", with {below} below it,") };
    writeln!(out, "{}{with} is out of the tree; what was kept for it may go", clean(v.address.as_str()))?;
    if v.open_cases > 0 {
        writeln!(out, "owned there, and stepped by nobody now: {}", counted(v.open_cases, "open case"))?;
    }
    if v.active_alarms > 0 {
        writeln!(out, "active there, and over until it is back: {}", counted(v.active_alarms, "alarm"))?;
    }
    Ok(())
}

fn contexts(v: &view::Contexts, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.contexts.is_empty() {
        return writeln!(out, "no contexts: `citybrain context add NAME URL` makes one");
    }
    let mut table = s.table(&["", "NAME", "URL", "TOKEN", "CA", "CERTIFICATE"]);
    for c in &v.contexts {
        let token = c.token_file.as_deref().unwrap_or("-");
        let mark = if c.used { "*" } else { "" };
        table.add_row(vec![
            Cell::new(mark),
            Cell::new(clean(&c.name)),
            Cell::new(clean(&c.url)),
            Cell::new(clean(token)),
            Cell::new(clean(c.ca_file.as_deref().unwrap_or("-"))),
            Cell::new(clean(c.cert_file.as_deref().unwrap_or("-"))),
        ]);
    }
    print(&table, out)
}

fn presets(v: &view::Presets, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&["NAME", "BASE", "RULES", "DEVICES"]);
    for p in &v.presets {
        let base = if p.base.is_empty() { "-" } else { &p.base };
        let rules = if p.rules.is_empty() { "-".to_owned() } else { p.rules.join(", ") };
        table.add_row([&p.name, base, &rules, &p.about].map(|text| Cell::new(clean(text))));
    }
    print(&table, out)
}

fn preset(v: &view::PresetShown, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", clean(&v.preset.about))?;
    writeln!(out, "\nIn the node's file, before its first section: preset = \"{}\"\n", clean(&v.preset.name))?;
    for line in &v.setup {
        writeln!(out, "- {}", clean(line))?;
    }
    writeln!(out)?;
    let mut table = s.table(&["TOPIC", "WITH", "EVENT", "SUBJECT", ""]);
    for map in &v.map {
        let with = |(pointer, values): (&String, &Vec<serde_json::Value>)| match values.as_slice() {
            [] => pointer.clone(),
            values => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                format!("{pointer} = {}", values.join(" | ")).trim_start_matches(" = ").to_owned()
            }
        };
        let dangers: Vec<&str> = map.dangers.values().flatten().map(String::as_str).collect();
        let warns = map.is_told_by_dangers().then(|| dangers.join(" or "));
        let with: Vec<String> = map.has.iter().map(with).chain(warns).collect();
        let kind = if map.skip { "-".to_owned() } else { map.kinds().join(", ") };
        let subject = map.subject.as_deref().unwrap_or_default();
        let cells = [&map.filter, &with.join(", "), &kind, subject, urgency(map)];
        table.add_row(cells.map(|text| Cell::new(clean(text))));
    }
    print(&table, out)?;
    if !v.preset.rules.is_empty() {
        writeln!(out, "\nRules that it brings: {}", clean(&v.preset.rules.join(", ")))?;
    }
    Ok(())
}

fn urgency(map: &Map) -> &'static str {
    match map.priority {
        Some(Priority::Urgent) => "urgent",
        _ if map.warns() => "urgent while it is there",
        _ => "",
    }
}

fn tried(v: &view::Tried, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    match (v.outcome.as_str(), &v.event) {
        ("event", Some(event)) => {
            let text = |name: &str| clean(event[name].as_str().unwrap_or("-"));
            let lane = if v.urgent { ", urgent" } else { "" };
            let far = v.reach.map_or("stays at its node".to_owned(), |tier| format!("travels to the {tier}"));
            writeln!(out, "event {}, subject {}{lane}; {far}", text("type"), text("subject"))?;
            writeln!(out, "{}", clean(&event["data"].to_string()))?;
            v.why.as_ref().map_or(Ok(()), |why| writeln!(out, "{}", clean(why)))
        }
        ("refused", _) => writeln!(out, "refused, {}", clean(v.why.as_deref().unwrap_or("-"))),
        ("announcement", _) => {
            writeln!(out, "an announcement; what the device says there becomes events")?;
            v.why.iter().flat_map(|why| why.lines()).try_for_each(|line| writeln!(out, "{}", clean(line)))
        }
        (_, _) if v.why.is_some() => {
            writeln!(out, "a plain message")?;
            v.why.iter().flat_map(|why| why.lines()).try_for_each(|line| writeln!(out, "{}", clean(line)))
        }
        _ => writeln!(out, "a plain message: no mapping makes an event of it"),
    }
}

fn stats(v: &view::StoreStats, now: chrono::DateTime<chrono::Utc>, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&[]);
    let mut row = |key: &str, value: String| {
        table.add_row(vec![s.bold(key), Cell::new(clean(&value))]);
    };
    let when = |at: Option<chrono::DateTime<chrono::Utc>>| match at {
        Some(at) => {
            let ms = u64::try_from((now - at).num_milliseconds()).ok();
            format!("{} ({})", s.zone.with_year(at), ago(ms))
        }
        None => "-".into(),
    };
    row("folder", v.dir.clone());
    row("records", grouped(v.records));
    row("first", format!("position {}, {}", grouped(v.first_pos.0), when(v.first_at)));
    row("last", format!("position {}, {}", grouped(v.last_pos.0), when(v.last_at)));
    row("log", format!("{}, {}", counted(v.segments, "segment"), bytes(v.log_bytes)));
    if v.torn_bytes > 0 {
        row("torn", torn(v.torn_bytes));
    }
    let state = match (v.state_rows, v.state_upto_pos) {
        (Some(rows), Some(upto)) => {
            format!("{} rows up to position {}, {}", grouped(rows), grouped(upto.0), bytes(v.state_bytes))
        }
        _ if v.in_use => format!("{}; a node is running on it, so its rows were not read", bytes(v.state_bytes)),
        _ if v.state_bytes == 0 => "not there yet: the next start makes it".into(),
        _ => "does not read: `citybrain store verify DIR` says why".into(),
    };
    row("state", state);
    if v.snapshots.is_empty() {
        row("snapshots", "none yet: the state is in the log alone".into());
    }
    for one in &v.snapshots {
        row("snapshot", format!("position {}, {}, {}", grouped(one.pos.0), bytes(one.bytes), when(Some(one.at))));
    }
    print(&table, out)?;
    damages(&v.damage, out)
}

/// From the file alone the two cannot be told apart.
fn torn(bytes: u64) -> String {
    format!("{} bytes of an unfinished write, or a damaged last commit; the next start cuts them off", grouped(bytes))
}

fn damages(all: &[view::StoreDamage], out: &mut dyn Write) -> io::Result<()> {
    all.iter().try_for_each(|d| {
        writeln!(
            out,
            "damaged: records {} to {}, at byte {} of {}",
            grouped(d.first_pos.0),
            grouped(d.last_pos.0),
            grouped(d.offset_bytes),
            d.segment
        )
    })
}

fn verify(v: &view::StoreVerify, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&[]);
    let mut row = |key: &str, value: String, bad: bool| {
        table.add_row(vec![s.bold(key), s.mark(&value, bad, Color::Red)]);
    };
    let lost: u64 = v.damage.iter().map(|d| d.last_pos.0 + 1 - d.first_pos.0).sum();
    let log = match lost {
        0 => format!("{} in {}, every one good", counted(v.records, "record"), counted(v.segments, "segment")),
        n => format!("{} cannot be read; the others are good", counted(n, "record")),
    };
    row("log", log, lost > 0);
    if v.torn_bytes > 0 {
        row("torn", torn(v.torn_bytes), false);
    }
    row("state", state(&v.state), !v.state.is_good());
    for one in &v.snapshots {
        let verdict = match (&one.damage, one.rows) {
            (Some(why), _) => format!("damaged: {}", clean(why)),
            (None, rows) => format!("{}, good", counted(rows.unwrap_or(0), "row")),
        };
        row("snapshot", format!("position {}: {verdict}", grouped(one.pos.0)), !one.is_good());
    }
    print(&table, out)?;
    damages(&v.damage, out)?;
    if v.ok {
        return writeln!(out, "{} is good", v.dir);
    }
    writeln!(out, "{} is damaged", v.dir)?;
    if let StoreState::Ahead { .. } = v.state {
        writeln!(
            out,
            "what it lost had been acknowledged; what had climbed is above; a backup: `citybrain store restore BACKUP {}`",
            v.dir
        )
    } else if lost > 0 {
        writeln!(out, "a start reads past it and says so; a backup: `citybrain store restore BACKUP {}`", v.dir)
    } else {
        writeln!(out, "a start repairs it from snapshot and log; by hand: `citybrain store rebuild {}`", v.dir)
    }
}

fn state(of: &StoreState) -> String {
    match of {
        StoreState::Unread => "not read: a node is running on it".into(),
        StoreState::Missing => "not there: the next start makes it from snapshot and log".into(),
        StoreState::Good { rows, upto_pos } => {
            format!("{}, good, up to position {}", counted(*rows, "row"), grouped(upto_pos.0))
        }
        StoreState::Ahead { rows, upto_pos, lost_from_pos } => format!(
            "{}, good, but up to {upto}: the log has lost records {} to {upto}",
            counted(*rows, "row"),
            grouped(lost_from_pos.0),
            upto = grouped(upto_pos.0),
        ),
        StoreState::Empty => "damaged: it is empty, although the log is not".into(),
        StoreState::Damaged { why } => format!("damaged: {}", clean(why)),
    }
}

fn change(v: &view::StoreChange, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {}", v.dir, v.done)?;
    writeln!(out, "positions {} to {}, {}", grouped(v.first_pos.0), grouped(v.last_pos.0), bytes(v.bytes))?;
    v.notes.iter().try_for_each(|n| writeln!(out, "note: {n}"))
}

fn settled(v: &view::DlqSettled, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&["POS", "OUTCOME", "NOW AT", "DETAIL"]);
    for l in &v.letters {
        let good = ["committed", "duplicate", "delivered", "dropped"].contains(&l.outcome.as_str());
        table.add_row(vec![
            right(grouped(l.pos.0)),
            s.mark(&l.outcome, true, if good { Color::Green } else { Color::Yellow }),
            right(l.now_at_pos.map_or_else(|| "-".into(), |p| grouped(p.0))),
            Cell::new(clean(&l.detail)),
        ]);
    }
    print(&table, out)?;
    writeln!(out, "{} still open", grouped(v.open))
}

fn passed_over(v: &view::WebhookSkipped, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "webhook {} goes on behind {}; what stood there is a dead letter (`citybrain dlq list`)",
        v.name, v.pos
    )
}

fn level(v: &view::LogLevel, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    match &v.before {
        Some(before) => writeln!(out, "{} (before: {before}), until the node stops", v.level),
        None => writeln!(out, "{}", v.level),
    }
}

fn config(v: &view::ConfigShown, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let text = toml::to_string(&v.config).unwrap_or_else(|_| v.config.to_string());
    write!(out, "{text}")?;
    if let Some(calendar) = &v.calendar {
        writeln!(out, "# working time goes by {}: {}", super::rules::whose(calendar), clean(&calendar.words))?;
    }
    if v.effective { Ok(()) } else { writeln!(out, "# everything else is as by default: `--effective` shows it, too") }
}

/// Parts of a config file that are put in force without a start.
const RELOADED: [&str; 5] = ["rule", "service", "scene", "category", "calendar"];

fn diff(v: &view::ConfigDiff, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.differences.is_empty() {
        return writeln!(out, "no difference: a restart changes nothing");
    }
    let mut table = s.table(&["KEY", "RUNNING", "FILE"]);
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    for d in &v.differences {
        table.add_row(vec![
            Cell::new(clean(&d.key)),
            Cell::new(clean(&or(&d.running))),
            Cell::new(clean(&or(&d.file))),
        ]);
    }
    print(&table, out)?;
    let parts: BTreeSet<&str> = v.differences.iter().filter_map(|d| d.key.split('.').next()).collect();
    let at_once: Vec<&str> = parts.into_iter().filter(|part| RELOADED.contains(part)).collect();
    match at_once.as_slice() {
        [] => writeln!(out, "a restart takes what the file says"),
        parts => writeln!(
            out,
            "a restart takes what the file says; of {} `citybrain config reload` does, too",
            parts.join(", ")
        ),
    }
}

fn doctor(v: &view::Doctor, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&["CHECK", "", "FOUND"]);
    let mut count = [0u64; 4];
    for c in &v.checks {
        let (word, color) = match c.severity {
            Verdict::Ok => ("ok", Color::Green),
            Verdict::Note => ("note", Color::Blue),
            Verdict::Warn => ("warn", Color::Yellow),
            Verdict::Bad => ("BAD", Color::Red),
        };
        count[c.severity as usize] += 1;
        table.add_row(vec![Cell::new(&c.id), s.mark(word, true, color), Cell::new(clean(&c.found))]);
        if !c.remedy.is_empty() {
            table.add_row(vec![Cell::new(""), Cell::new(""), Cell::new(format!("→ {}", clean(&c.remedy)))]);
        }
    }
    print(&table, out)?;
    writeln!(out, "{} bad, {} to look at, {} noted, {} well", count[3], count[2], count[1], count[0])
}
