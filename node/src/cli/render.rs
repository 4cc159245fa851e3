//! Prints: the only file that does. A table for people, JSON for programs, from the same view.
//!
//! What came from outside (names, types, payloads) is stripped of control characters before it
//! reaches a terminal; JSON escapes them itself.

mod cases;
mod inspect;
mod ops;
mod rules;
mod services;
mod supervision;
mod table;

pub use inspect::Many;
pub use ops::{Ops, replayed};

use super::{Fail, Lines};
use crate::config::Invalid;
use citybrain_shared::view::{self, Answer, Head, LinkRole, View, span};
use miette::{GraphicalReportHandler, GraphicalTheme};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use table::{Cell, Color, Table};

/// What a command has to show.
pub enum Output {
    Nothing,
    /// Everything was printed on the way; the process ends with this code.
    Code(u8),
    Text(String),
    Version(Answer<view::Version>),
    Check(Answer<view::Check>, Vec<Invalid>),
    Status(Answer<view::Status>),
    Tree(Answer<view::Tree>),
    Links(Answer<view::Links>),
    Events {
        lines: Lines,
        follow: bool,
    },
    Shown(Answer<view::Shown>),
    Counts(Answer<view::Counts>),
    Cases(Answer<view::Cases>),
    Case(Box<Answer<view::CaseShown>>),
    CasesExport(Vec<citybrain_shared::case::Case>),
    CaseStats(Answer<view::CaseStats>),
    Supervision(Box<Answer<view::Supervision>>),
    CasesBrought(Answer<view::CasesBrought>),
    Rates(Answer<view::Rates>),
    Services(Answer<view::Services>),
    Service(Box<Answer<view::ServiceShown>>),
    Scenes(Answer<view::Scenes>),
    Sent(Answer<view::Sent>),
    Directives(Answer<view::Directives>),
    Directive(Answer<view::Directive>),
    DeadLetters(Answer<view::DeadLetters>),
    DeadLetter(Answer<view::DeadLetter>),
    /// For whoever keeps nodes running.
    Ops(Ops),
    Trace(Answer<view::Trace>),
    Why(Answer<view::Why>),
    Audit(Answer<view::Audit>),
    Many(Many),
    Alarms(Answer<view::Alarms>),
    Alarm(Answer<view::AlarmShown>),
    CapWarnings(Answer<view::CapWarnings>),
    CapShown(Answer<view::CapWarnings>),
    CapTaken(Answer<view::CapTaken>),
    Rules(Answer<view::Rules>),
    RulesTested(Answer<view::RulesTested>),
    Reloaded(Answer<view::Reloaded>),
}

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub json: bool,
    pub color: bool,
    pub color_stderr: bool,
    /// Columns of the terminal that stdout is.
    pub width: Option<usize>,
}

impl Screen {
    pub fn of_this_process(json: bool) -> Screen {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Screen {
            json,
            color: !plain && !json && io::stdout().is_terminal(),
            color_stderr: !plain && io::stderr().is_terminal(),
            width: columns(),
        }
    }

    /// Shows it on stdout; the exit code that it means.
    ///
    /// # Errors
    /// When a stream broke off. A reader that went away is no error.
    pub fn show(&self, output: Output) -> Result<u8, Fail> {
        Ok(self.show_if_read(output)?.unwrap_or(0))
    }

    /// As [`Screen::show`]; `None` when nobody reads any more.
    ///
    /// # Errors
    /// As [`Screen::show`].
    pub fn show_if_read(&self, output: Output) -> Result<Option<u8>, Fail> {
        if let Output::Check(_, invalid) = &output
            && !self.json
        {
            self.draw(invalid);
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        let code = self.write(output, &mut out);
        match code.and_then(|code| out.flush().map(|()| code).map_err(Stop::Io)) {
            Ok(code) => Ok(Some(code)),
            Err(Stop::Io(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(None),
            Err(Stop::Io(e)) => Err(Fail::no("output", format!("cannot write the answer: {e}"), "is the disk full?")),
            Err(Stop::Fail(fail)) => {
                // What came before it broke off is still worth seeing.
                let _ = out.flush();
                Err(fail)
            }
        }
    }

    /// Says on stderr why there is no answer.
    pub fn fail(&self, fail: &Fail) {
        if let Some(known) = &fail.known {
            let mut out = io::stdout().lock();
            // Whoever closed stdout does not want it.
            let _ = if self.json {
                writeln!(out, "{}", serde_json::to_string(known).unwrap_or_default())
            } else {
                inspect::known(known, self, &mut out)
            };
        }
        let mut err = io::stderr().lock();
        // There is nobody left to tell when stderr is gone too.
        let _ = if self.json {
            writeln!(err, "{}", serde_json::to_string(&fail.failure).unwrap_or_default())
        } else {
            drop(err);
            self.draw(&fail.invalid);
            err = io::stderr().lock();
            let (red, off) = if self.color_stderr { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
            let hint = &fail.failure.hint;
            let hint = if hint.is_empty() { String::new() } else { format!("hint: {}\n", clean(hint)) };
            write!(err, "{red}error:{off} {}\n{hint}", clean(&fail.failure.detail))
        };
    }

    fn draw(&self, invalid: &[Invalid]) {
        let text: String = invalid.iter().map(|i| drawn(i, self.color_stderr)).collect();
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn write(&self, output: Output, out: &mut dyn Write) -> Result<u8, Stop> {
        match output {
            Output::Nothing => {}
            Output::Code(code) => return Ok(code),
            Output::Text(text) => out.write_all(text.as_bytes())?,
            Output::Version(a) => self.answer(&a, out, |v, _, out| {
                writeln!(
                    out,
                    "citybrain {} (link protocol {} to {})",
                    v.version, v.link_version_min, v.link_version_max
                )
            })?,
            Output::Check(a, _) => {
                self.answer(&a, out, |v, s, out| check(v, s, out))?;
                return Ok(if a.body.ok { 0 } else { 2 });
            }
            Output::Status(a) => {
                self.answer(&a, out, |v, s, out| status(&a.head, v, s, out))?;
                return Ok(u8::from(!a.body.ready.ready));
            }
            Output::Tree(a) => {
                self.answer(&a, out, inspect::tree)?;
                return Ok(inspect::tree_code(&a.body));
            }
            Output::Links(a) => self.answer(&a, out, links)?,
            Output::Events { lines, follow } => self.events(lines, follow, out)?,
            Output::Cases(a) => self.answer(&a, out, cases::cases)?,
            Output::Case(a) => self.answer(&a, out, cases::case)?,
            Output::CasesExport(all) if self.json => {
                for case in &all {
                    serde_json::to_writer(&mut *out, case).map_err(io::Error::from)?;
                    writeln!(out)?;
                }
            }
            Output::CasesExport(all) => cases::csv(&all, out)?,
            Output::CaseStats(a) => self.answer(&a, out, supervision::stats)?,
            Output::Supervision(a) => self.answer(&a, out, supervision::supervision)?,
            Output::CasesBrought(a) => {
                self.answer(&a, out, |v, _, out| cases::brought(v, out))?;
                return Ok(u8::from(a.body.refused > 0));
            }
            Output::Rates(a) => self.answer(&a, out, cases::rates)?,
            Output::Services(a) => self.answer(&a, out, services::services)?,
            Output::Service(a) => self.answer(&a, out, |v, _, out| services::service(v, out))?,
            Output::Scenes(a) => self.answer(&a, out, services::scenes)?,
            Output::Counts(a) => self.answer(&a, out, inspect::counts)?,
            Output::Shown(a) => self.answer(&a, out, shown)?,
            Output::Sent(a) => self.answer(&a, out, sent)?,
            Output::Directives(a) => self.answer(&a, out, directives)?,
            Output::Directive(a) => self.answer(&a, out, directive)?,
            Output::DeadLetters(a) => self.answer(&a, out, dead_letters)?,
            Output::DeadLetter(a) => self.answer(&a, out, dead_letter)?,
            Output::Ops(ops) => return Ok(self.ops(ops, out)?),
            Output::Trace(a) => {
                self.answer(&a, out, inspect::trace)?;
                return Ok(inspect::trace_code(&a.body));
            }
            Output::Why(a) => {
                self.answer(&a, out, inspect::why)?;
                return Ok(u8::from(!a.body.moves));
            }
            Output::Audit(a) => {
                self.answer(&a, out, inspect::audit)?;
                return Ok(inspect::audit_code(&a.body));
            }
            Output::Many(many) => return self.many(many, out),
            Output::Alarms(a) => self.answer(&a, out, rules::alarms)?,
            Output::Alarm(a) => self.answer(&a, out, rules::alarm)?,
            Output::CapWarnings(a) => self.answer(&a, out, rules::warnings)?,
            Output::CapShown(a) => self.answer(&a, out, rules::warning)?,
            Output::CapTaken(a) => self.answer(&a, out, rules::cap_taken)?,
            Output::Rules(a) => self.answer(&a, out, rules::rules)?,
            Output::RulesTested(a) => self.answer(&a, out, rules::rules_tested)?,
            Output::Reloaded(a) => self.answer(&a, out, rules::reloaded)?,
        }
        Ok(0)
    }

    /// The one place that chooses between JSON and a table, and says whose record it was.
    fn answer<T: View>(
        &self,
        answer: &Answer<T>,
        out: &mut dyn Write,
        table: impl Fn(&T, &Screen, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, answer)?;
            return writeln!(out);
        }
        table(&answer.body, self, out)?;
        if answer.head.node.is_empty() { Ok(()) } else { footer(&answer.head, out) }
    }

    fn events(&self, lines: Lines, follow: bool, out: &mut dyn Write) -> Result<(), Stop> {
        let (node, as_of, after) = (lines.node.clone(), lines.as_of, lines.after);
        let (is_cut, offline) = (lines.cut, lines.offline);
        let mut shown = 0u64;
        let mut rows = Vec::new();
        for line in lines {
            // What came whole is shown before the break is told.
            let line = match line {
                Ok(line) => line,
                Err(fail) => {
                    self.event_rows(&mut rows, shown == 0, out)?;
                    return Err(Stop::Fail(fail));
                }
            };
            if self.json {
                writeln!(out, "{line}")?;
            } else if let Some(view::Damaged { after, upto }) = damaged(&line) {
                self.event_rows(&mut rows, shown == 0, out)?;
                eprintln!("warning: the log is damaged: records {} to {upto} cannot be read", after.next());
            } else {
                let event = serde_json::from_str(&line).map_err(|e| {
                    Stop::Fail(Fail::no(
                        "foreign",
                        format!("an event does not read: {e}"),
                        "`--json` shows it as it came",
                    ))
                })?;
                rows.push(event);
                if follow || rows.len() == ROWS_TOGETHER {
                    self.event_rows(&mut rows, shown == 0, out)?;
                    shown += 1;
                }
            }
            if follow {
                out.flush()?;
            }
        }
        if self.json {
            return Ok(());
        }
        let none = rows.is_empty() && shown == 0;
        self.event_rows(&mut rows, shown == 0, out)?;
        if none {
            let since = if after > 0 { format!(" after position {}", grouped(after)) } else { String::new() };
            writeln!(out, "no events yet{since} that fit")?;
        }
        inspect::cut_note(is_cut, out)?;
        Ok(footer(&Head { schema: String::new(), node, as_of, offline, cut: None }, out)?)
    }

    fn event_rows(&self, events: &mut Vec<view::Event>, first: bool, out: &mut dyn Write) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let head = ["POS", "COMMITTED", "PRIORITY", "TYPE", "ORIGIN", "SUBJECT", "DATA"];
        // Rows that are printed apart must still stand under each other.
        let mut table = self.table(&head).one_of_many(first, &[10, 15, 8, 28, 24, 14, 49]);
        for e in events.drain(..) {
            let event: Attributes<'_> = serde_json::from_str(e.event.get()).unwrap_or_default();
            let data = event.data.map(RawValue::get).unwrap_or_default();
            let urgent = e.priority == "urgent";
            table.add_row(vec![
                right(grouped(e.pos.0)),
                Cell::new(e.committed_at.format("%m-%d %H:%M:%SZ")),
                self.mark(&e.priority, urgent, Color::Red),
                Cell::new(clean(&event.kind)),
                Cell::new(clean(&e.origin)),
                Cell::new(clean(event.subject.as_deref().unwrap_or("-"))),
                // A pretty-printed event is still one line.
                Cell::new(cut(&clean(&data.split_whitespace().collect::<Vec<_>>().join(" ")), 48)),
            ]);
        }
        print(&table, out)
    }

    fn table(&self, head: &[&str]) -> Table {
        Table::new(head.iter().map(|h| self.bold(h)).collect(), self.width)
    }

    fn bold(&self, text: &str) -> Cell {
        if self.color { Cell::new(text).bold() } else { Cell::new(text) }
    }

    fn mark(&self, text: &str, marked: bool, color: Color) -> Cell {
        let cell = Cell::new(clean(text));
        if self.color && marked { cell.fg(color) } else { cell }
    }

    fn state(&self, state: &str) -> Cell {
        let good = ["up", "self", "ok", "ready"].contains(&state);
        let color = if good { Color::Green } else { Color::Yellow };
        self.mark(state, state != "known", color)
    }
}

/// Rows of one table; more come in further tables without a head.
const ROWS_TOGETHER: usize = 1000;

enum Stop {
    Io(io::Error),
    Fail(Fail),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Stop {
        Stop::Io(e)
    }
}

// ---- views -------------------------------------------------------------------------------------

fn check(v: &view::Check, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&["FILE", "ADDRESS", "BROKER", "API", "PARENT", "RESULT"]);
    for f in &v.files {
        let result = match f.problems.len() {
            0 => s.state("ok"),
            1 => s.mark("1 problem", true, Color::Red),
            n => s.mark(&format!("{n} problems"), true, Color::Red),
        };
        let address = f.address.as_ref().map_or("-", |a| a.as_str());
        table.add_row(vec![
            Cell::new(&f.path),
            Cell::new(address),
            Cell::new(or_dash(&f.broker)),
            Cell::new(or_dash(&f.api)),
            Cell::new(or_dash(&f.parent)),
            result,
        ]);
    }
    print(&table, out)?;
    v.checked.iter().try_for_each(|c| writeln!(out, "checked: {c}"))?;
    v.notes.iter().try_for_each(|n| writeln!(out, "note: {n}"))
}

fn status(head: &Head, v: &view::Status, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let name = if v.name.is_empty() { String::new() } else { format!(" {}", clean(&v.name)) };
    let ready = if v.ready.ready { "ready" } else { "not ready" };
    let mut table = s.table(&[]);
    let mut row = |key: &str, value: Cell| {
        table.add_row(vec![s.bold(key), value]);
    };
    row("node", Cell::new(format!("{}{name} ({})", head.node, v.tier)));
    let why =
        if v.ready.reasons.is_empty() { String::new() } else { format!(": {}", clean(&v.ready.reasons.join("; "))) };
    row("state", s.mark(&format!("{ready}{why}"), true, if v.ready.ready { Color::Green } else { Color::Red }));
    let short: String = v.incarnation.chars().take(8).collect();
    let process = match v.pid {
        0 => format!("none, the node is stopped; its latest start was number {} of incarnation {short}", v.boots),
        pid => {
            let (version, up) = (&v.version, span(v.uptime_s * 1000));
            format!("citybrain {version}, pid {pid}, up {up}, start {} of incarnation {short}", v.boots)
        }
    };
    row("process", Cell::new(process));
    row("data", Cell::new(clean(&v.data)));
    row("log", Cell::new(format!("positions {} to {}", grouped(v.log.first_pos.0), grouped(v.log.last_pos.0))));
    let c = &v.counters;
    row(
        "events",
        Cell::new(format!(
            "{} began here, {} from below, {} from above; {} urgent",
            grouped(c.accepted),
            grouped(c.received_up),
            grouped(c.received_down),
            grouped(c.urgent)
        )),
    );
    row("repeated", Cell::new(format!("{} records came again and were dropped", grouped(c.duplicates))));
    if c.lost > 0 {
        row("lost", s.mark(&format!("{} records", grouped(c.lost)), true, Color::Red));
    }
    let d = &v.door;
    let door = match d.connections_max {
        // Of a stopped node.
        0 => format!("{}, {} sessions", clean(&d.kind), grouped(d.sessions)),
        max => format!(
            "{} {}: {} of {} connections, {} sessions",
            clean(&d.kind),
            clean(&d.address),
            grouped(d.connections),
            grouped(max),
            grouped(d.sessions)
        ),
    };
    row("door", Cell::new(door));
    row("links", Cell::new(links_in_short(&v.links)));
    row("below", Cell::new(format!("{} nodes have told of themselves", grouped(v.descendants))));
    let look = if v.dead_letters_open > 0 { " (`citybrain dlq list`)" } else { "" };
    row("refused", Cell::new(format!("{} dead letters open{look}", grouped(v.dead_letters_open))));
    print(&table, out)
}

fn links_in_short(links: &[view::Link]) -> String {
    let up = match links.iter().find(|l| l.role == LinkRole::Up) {
        Some(l) => format!("to {}: {}", l.peer, clean(&l.state)),
        None => "no parent".into(),
    };
    let (well, all) = links
        .iter()
        .filter(|l| l.role == LinkRole::Down)
        .fold((0, 0), |(well, all), l| (well + u64::from(l.state == "up"), all + 1));
    format!("{up}; {} of {} children up", grouped(well), grouped(all))
}

fn links(v: &view::Links, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.links.is_empty() {
        return writeln!(out, "no links: no parent is configured, and no child has come yet");
    }
    let mut table = s.table(&[
        "LINK",
        "PEER",
        "STATE",
        "UNSENT",
        "IN FLIGHT",
        "BYTES",
        "OLDEST",
        "CREDIT",
        "ROUND TRIP",
        "LAST HEARD",
    ]);
    for l in &v.links {
        let (way, peer) = match l.role {
            LinkRole::Up => ("up", l.peer.to_string()),
            LinkRole::Down => ("down", format!("…/{}", l.peer.leaf())),
        };
        let (all, at_most) = (l.urgent.unsent + l.routine.unsent, if l.behind().1 { "≤ " } else { "" });
        let unsent = match l.urgent.unsent {
            0 => format!("{at_most}{}", grouped(all)),
            urgent => format!("{at_most}{} ({} urgent)", grouped(all), grouped(urgent)),
        };
        let waiting = l.behind().0 > 0;
        let size = match l.urgent.bytes + l.routine.bytes {
            n if waiting && l.behind().1 => format!("> {}", ops::bytes(n)),
            n if waiting => ops::bytes(n),
            _ => "-".into(),
        };
        let oldest = l.urgent.oldest_ms.max(l.routine.oldest_ms).map_or("-".into(), span);
        // The frames that the peer takes at once; of the lane that waits, if one does.
        let busy = if l.urgent.unsent > 0 { &l.urgent } else { &l.routine };
        let credit = if l.state == "up" { busy.credit_frames.to_string() } else { "-".into() };
        let round_trip = l.round_trip_us.map_or("-".into(), |us| format!("{:.1} ms", us as f64 / 1000.0));
        table.add_row(vec![
            Cell::new(way),
            Cell::new(peer),
            s.state(&l.state),
            right(unsent),
            right(grouped(l.urgent.in_flight + l.routine.in_flight)),
            right(size),
            right(oldest),
            right(credit),
            right(round_trip),
            Cell::new(ago(l.last_heard_ms_ago)),
        ]);
    }
    print(&table, out)?;
    for l in &v.links {
        let down = l.down_ms.map(|ms| format!("{} for {}", l.state, span(ms)));
        let told: Vec<_> = l.why.as_ref().map(|w| clean(w)).into_iter().chain(down).collect();
        if !told.is_empty() {
            writeln!(out, "{}: {}", l.peer, told.join("; "))?;
        }
    }
    Ok(())
}

/// What the tables show of an event's own attributes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Attributes<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A hole in a stream of events.
fn damaged(line: &str) -> Option<view::Damaged> {
    #[derive(serde::Deserialize)]
    struct Line {
        damaged: view::Damaged,
    }
    line.starts_with("{\"damaged\"").then(|| serde_json::from_str::<Line>(line).ok())?.map(|l| l.damaged)
}

fn shown(v: &view::Shown, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let r = &v.record;
    writeln!(out, "{}", clean(r.event.get()))?;
    writeln!(out, "{} {}, {}, reach {}", r.priority, r.kind, r.direction, r.reach)?;
    if !r.target.is_empty() {
        writeln!(out, "for {}", clean(&r.target))?;
    }
    if !r.topic.is_empty() {
        writeln!(out, "came on topic {}", clean(&r.topic))?;
    }
    writeln!(
        out,
        "began at {} {}, position {}",
        clean(&r.origin),
        view::rfc3339(r.received_at),
        grouped(r.origin_pos.0)
    )?;
    writeln!(out, "committed here {}, position {}", view::rfc3339(r.committed_at), grouped(r.pos.0))
}

fn sent(v: &view::Sent, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{} for {}: on disk at position {}", clean(&v.event_type), v.target, grouped(v.pos.0))?;
    writeln!(out, "`citybrain directives show {}` says who answered", v.id)
}

fn directives(v: &view::Directives, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.directives.is_empty() {
        return writeln!(out, "nothing was sent down through this node yet");
    }
    let mut table =
        s.table(&["ISSUED", "ID", "TYPE", "TARGET", "EXPECTED", "DELIVERED", "DONE", "FAILED", "EXPIRED", "SILENT"]);
    for d in &v.directives {
        let mut row = vec![
            Cell::new(d.issued_at.format("%m-%d %H:%M:%SZ")),
            Cell::new(clean(&d.id)),
            Cell::new(clean(&d.event_type)),
            Cell::new(clean(&d.target)),
        ];
        row.extend([d.expected, d.delivered, d.done, d.failed, d.expired, d.silent].map(|n| right(grouped(n))));
        table.add_row(row);
    }
    print(&table, out)?;
    v.next.map_or(Ok(()), |next| writeln!(out, "`--after {next}` shows older ones"))
}

fn directive(v: &view::Directive, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{} {} for {}", v.directive, clean(&v.event_type), clean(&v.target))?;
    writeln!(out, "issued by {} {}, position {} here", clean(&v.origin), view::rfc3339(v.issued_at), grouped(v.pos.0))?;
    writeln!(
        out,
        "{} nodes expected: {} delivered, {} done, {} failed, {} expired, {} silent",
        grouped(v.expected),
        grouped(v.delivered),
        grouped(v.done),
        grouped(v.failed),
        grouped(v.expired),
        grouped(v.silent)
    )?;
    v.silent_nodes.iter().try_for_each(|n| writeln!(out, "silent: {n}"))?;
    let more = v.silent.saturating_sub(v.silent_nodes.len() as u64);
    if more > 0 { writeln!(out, "silent: {} more", grouped(more)) } else { Ok(()) }
}

fn dead_letters(v: &view::DeadLetters, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.dead_letters.is_empty() {
        return match v.open {
            0 => writeln!(out, "no dead letters: nothing was refused"),
            n => writeln!(out, "none that fit, of {} open ones", grouped(n)),
        };
    }
    let mut table = s.table(&["POS", "AT", "REASON", "VIA", "TOPIC", "BYTES", "DETAIL"]);
    for l in &v.dead_letters {
        table.add_row(vec![
            right(grouped(l.pos.0)),
            Cell::new(l.at.format("%m-%d %H:%M:%SZ")),
            s.mark(&l.reason, true, Color::Yellow),
            Cell::new(clean(&l.via)),
            Cell::new(cut(&clean(&l.topic), 32)),
            right(grouped(l.payload_bytes)),
            Cell::new(cut(&clean(&l.detail), 64)),
        ]);
    }
    print(&table, out)?;
    let shown = v.dead_letters.len() as u64;
    if v.open > shown { writeln!(out, "{} of {} open ones", grouped(shown), grouped(v.open)) } else { Ok(()) }
}

fn dead_letter(v: &view::DeadLetter, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {}", clean(&v.reason), clean(&v.detail))?;
    writeln!(out, "came {} by {} on topic {}", view::rfc3339(v.at), clean(&v.via), or_dash(&clean(&v.topic)))?;
    let kept = if v.payload_is_hex { v.payload.len() / 2 } else { v.payload.len() };
    let part = if (kept as u64) < v.payload_bytes {
        format!(", the first {} kept", grouped(kept as u64))
    } else {
        String::new()
    };
    let how = if v.payload_is_hex { ", in hexadecimal" } else { "" };
    writeln!(out, "{} bytes{part}{how}:", grouped(v.payload_bytes))?;
    writeln!(out, "{}", clean(&v.payload))
}

// ---- words -------------------------------------------------------------------------------------

/// Whose record it was, and how old.
fn footer(head: &Head, out: &mut dyn Write) -> io::Result<()> {
    if let Some(cut) = &head.cut {
        let (kept, of, list) = (grouped(cut.kept), grouped(cut.of), clean(&cut.list));
        writeln!(out, "cut: {kept} of {of} {list} came over the links; ask the node itself for all")?;
    }
    let Head { node, as_of, .. } = head;
    if head.offline {
        return writeln!(out, "{node}, offline, from its folder, as of {}", as_of.format("%Y-%m-%d %H:%M:%SZ"));
    }
    writeln!(out, "{node}, its own record, as of {}", as_of.format("%H:%M:%SZ"))
}

fn print(table: &Table, out: &mut dyn Write) -> io::Result<()> {
    table.print(out)
}

/// `None` where stdout is no terminal, or one that does not say how wide it is.
fn columns() -> Option<usize> {
    let out = io::stdout();
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    Some(usize::from(size.ws_col)).filter(|n| *n > 0)
}

/// A config file's problems, each with its snippet.
pub fn drawn(invalid: &Invalid, color: bool) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_context_lines(1).with_links(false);
    let mut text = String::new();
    for problem in invalid.problems() {
        // Writing to a string cannot fail.
        let _ = handler.render_report(&mut text, problem);
    }
    text
}

fn right(text: String) -> Cell {
    Cell::new(text).right()
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Without control characters, so that no payload can steer a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The first columns of it, and `…` for the rest.
fn cut(text: &str, columns_max: usize) -> String {
    table::cut(text, columns_max + 1)
}

/// 1,204,881
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn ago(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".into(), |ms| format!("{} ago", span(ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::view::{LinkLane, TreeNode, time_of};
    use citybrain_shared::{Address, Pos};

    const PLAIN: Screen = Screen { json: false, color: false, color_stderr: false, width: None };
    const JSON: Screen = Screen { json: true, ..PLAIN };

    fn text(screen: Screen, output: Output) -> (String, u8) {
        let mut out = Vec::new();
        let code = match screen.write(output, &mut out) {
            Ok(code) => code,
            Err(Stop::Fail(fail)) => fail.code,
            Err(Stop::Io(e)) => panic!("{e}"),
        };
        (String::from_utf8(out).unwrap(), code)
    }

    fn a(s: &str) -> Address {
        Address::parse(s).unwrap()
    }

    fn answer<T: View>(body: T) -> Answer<T> {
        Answer::new("chengdu/liucheng", time_of(1_782_902_467_000_000), body)
    }

    fn link(role: LinkRole, peer: &str, state: &str, unsent: u64, heard: Option<u64>) -> view::Link {
        view::Link {
            role,
            peer: a(peer),
            state: state.into(),
            why: (state != "up").then(|| "the broker refused the connection".into()),
            last_heard_ms_ago: heard,
            down_ms: None,
            urgent: LinkLane::default(),
            routine: LinkLane {
                unsent,
                in_flight: 3,
                bytes: 1_204_881,
                oldest_ms: Some(61_000),
                at_most: unsent > 1_000,
                durable_at_peer_pos: Pos(1_204_881),
                credit_frames: 8,
                ..LinkLane::default()
            },
            lease: 1,
            received: 0,
            dropped: 0,
            resent_frames: 0,
            round_trip_us: (state == "up").then_some(410),
        }
    }

    fn two_links() -> view::Links {
        let links = vec![
            link(LinkRole::Up, "chengdu", "up", 0, Some(400)),
            link(LinkRole::Down, "chengdu/liucheng/guanghua", "waiting", 4210, Some(432_000)),
        ];
        view::Links { links }
    }

    #[test]
    fn links_stand_in_a_table_that_says_whose_it_is() {
        let want = "\
LINK  PEER        STATE    UNSENT   IN FLIGHT  BYTES     OLDEST   CREDIT  ROUND TRIP  LAST HEARD
up    chengdu     up             0          3    1.2 MB  1 m 1 s       8      0.4 ms  0.4 s ago
down  …/guanghua  waiting  ≤ 4,210          3  > 1.2 MB  1 m 1 s       -           -  7 m 12 s ago
chengdu/liucheng/guanghua: the broker refused the connection
chengdu/liucheng, its own record, as of 10:41:07Z
";
        assert_eq!(text(PLAIN, Output::Links(answer(two_links()))).0, want);
    }

    #[test]
    fn json_is_one_object_with_its_schema_in_front() {
        let links = view::Links { links: vec![link(LinkRole::Up, "chengdu", "up", 0, Some(400))] };
        let want = "{\"schema\":\"citybrain.links/1\",\"node\":\"chengdu/liucheng\",\"as_of\":\"2026-07-01T10:41:07Z\",\
            \"links\":[{\"role\":\"up\",\"peer\":\"chengdu\",\"state\":\"up\",\"last_heard_ms_ago\":400,\
            \"urgent\":{\"unsent\":0,\"in_flight\":0,\"bytes\":0,\"at_most\":false,\"durable_at_peer_pos\":0,\"durable_here_pos\":0,\"credit_frames\":0},\
            \"routine\":{\"unsent\":0,\"in_flight\":3,\"bytes\":1204881,\"oldest_ms\":61000,\"at_most\":false,\"durable_at_peer_pos\":1204881,\"durable_here_pos\":0,\"credit_frames\":8},\
            \"lease\":1,\"received\":0,\"dropped\":0,\"resent_frames\":0,\"round_trip_us\":410}]}\n";
        assert_eq!(text(JSON, Output::Links(answer(links))).0, want);
    }

    #[test]
    fn names_in_any_script_keep_the_columns_straight() {
        let node = |address: &str, name: &str, state: &str, heard| TreeNode {
            address: a(address),
            name: name.into(),
            tier: a(address).tier(),
            code: None,
            labels: Default::default(),
            version: "0.1.0".into(),
            state: state.into(),
            last_heard_ms_ago: heard,
            health: (state == "self").then(|| "well".into()),
            behind: (state == "self").then_some(4210),
            alarms: u64::from(state == "up"),
        };
        let mut nodes = vec![
            node("chengdu/liucheng", "柳城街道", "self", None),
            node("chengdu/liucheng/guanghua", "光华", "up", Some(1200)),
            node("chengdu/liucheng/guanghua/x", "Ten Li", "known", Some(100_000_000)),
        ];
        let want = "\
NODE              NAME      TIER           LINK   ALARMS  LAST HEARD
chengdu/liucheng  柳城街道  street         self        0  -
  guanghua        光华      community      up          1  1.2 s ago
    x             Ten Li    neighbourhood  known       0  told 1 d 3 h ago
nobody was asked: `known` is who told of itself at its start
chengdu/liucheng, its own record, as of 10:41:07Z
";
        assert_eq!(text(PLAIN, Output::Tree(answer(view::Tree { nodes: nodes.clone() }))).0, want);
        // Each asked, and one that is of another version.
        (nodes[1].health, nodes[1].behind) = (Some("well".into()), Some(3));
        nodes[2].version = "0.2.0".into();
        nodes[2].health = Some("no answer: no session".into());
        let want = "\
NODE              NAME      LINK   ALARMS  BEHIND  HEALTH     VERSION
chengdu/liucheng  柳城街道  self        0   4,210  well       0.1.0
  guanghua        光华      up          1       3  well       0.1.0
    x             Ten Li    known       0       -  no answer  0.2.0
chengdu/liucheng/guanghua/x: no answer: no session; it told of itself 1 d 3 h ago, at its start
chengdu/liucheng, its own record, as of 10:41:07Z
";
        assert_eq!(text(PLAIN, Output::Tree(answer(view::Tree { nodes }))).0, want);
    }

    #[test]
    fn nothing_to_show_is_said() {
        let (links, _) = text(PLAIN, Output::Links(answer(view::Links { links: vec![] })));
        assert!(links.starts_with("no links: "), "{links}");
        let (events, code) = text(PLAIN, Output::Events { lines: Lines::of("c", ""), follow: false });
        assert!(events.starts_with("no events yet that fit\n"), "{events}");
        assert_eq!(code, 0);
        let none = view::DeadLetters { open: 0, dead_letters: vec![] };
        assert!(text(PLAIN, Output::DeadLetters(answer(none))).0.starts_with("no dead letters"));
    }

    const EVENT: &str = "{\"pos\":7,\"kind\":\"event\",\"priority\":\"urgent\",\"direction\":\"up\",\"origin\":\"c/s\",\"origin_pos\":3,\"received_at\":\"2026-07-01T10:41:06Z\",\"committed_at\":\"2026-07-01T10:41:07Z\",\"reach\":\"city\",\"event\":{\"type\":\"city.sos\",\"subject\":\"\\u001b[2J7栋\",\"data\":{\"n\":1.10}}}\n";

    #[test]
    fn an_event_cannot_steer_the_terminal() {
        let (got, _) = text(PLAIN, Output::Events { lines: Lines::of("c", EVENT), follow: false });
        assert!(!got.contains('\u{1b}'), "{got}");
        let row = got.lines().nth(1).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["7", "07-01", "10:41:07Z", "urgent", "city.sos", "c/s", "\u{fffd}[2J7栋", "{\"n\":1.10}"]);
    }

    #[test]
    fn json_events_pass_as_they_came() {
        let (got, _) = text(JSON, Output::Events { lines: Lines::of("c", EVENT), follow: true });
        assert_eq!(got, EVENT);
    }

    #[test]
    fn a_bad_check_is_code_2() {
        let bad = view::Check { ok: false, files: vec![], checked: vec![], notes: vec![] };
        assert_eq!(text(PLAIN, Output::Check(super::super::own(bad), vec![])).1, 2);
    }

    #[test]
    fn a_node_that_is_not_ready_says_why_and_is_code_1() {
        let status = view::Status {
            name: "柳城街道".into(),
            tier: citybrain_shared::Tier::Street,
            code: None,
            labels: Default::default(),
            version: "0.1.0".into(),
            pid: 7,
            uptime_s: 3900,
            incarnation: "0123456789abcdef".into(),
            boots: 3,
            data: "/d".into(),
            ready: view::Ready { ready: false, reasons: vec!["the disk is full".into()] },
            log: view::Log { first_pos: Pos(1), last_pos: Pos(1_234_567), ..Default::default() },
            counters: view::Counters { accepted: 1_000, lost: 2, ..Default::default() },
            door: view::Door {
                kind: "embedded".into(),
                address: "127.0.0.1:1884".into(),
                connections: 12,
                connections_max: 10_000,
                ..Default::default()
            },
            links: two_links().links,
            descendants: 4,
            dead_letters_open: 1,
        };
        let want = "\
node      chengdu/liucheng 柳城街道 (street)
state     not ready: the disk is full
process   citybrain 0.1.0, pid 7, up 1 h 5 m, start 3 of incarnation 01234567
data      /d
log       positions 1 to 1,234,567
events    1,000 began here, 0 from below, 0 from above; 0 urgent
repeated  0 records came again and were dropped
lost      2 records
door      embedded 127.0.0.1:1884: 12 of 10,000 connections, 0 sessions
links     to chengdu: up; 0 of 1 children up
below     4 nodes have told of themselves
refused   1 dead letters open (`citybrain dlq list`)
chengdu/liucheng, its own record, as of 10:41:07Z
";
        assert_eq!(text(PLAIN, Output::Status(answer(status))), (want.to_owned(), 1));
    }

    #[test]
    fn a_config_problem_is_drawn_in_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("street.toml");
        std::fs::write(&path, "[node]\naddress = \"c\"\ndata = \"d\"\n[link]\nresend_after = 500\n").unwrap();
        let invalid = crate::config::load(&path, &Default::default()).unwrap_err();
        let got = drawn(&invalid, false).replace(&format!("{}/", dir.path().display()), "");
        let want = "  × unknown key `resend_after` in `[link]`
   ╭─[street.toml:5:1]
 4 │ [link]
 5 │ resend_after = 500
   · ──────┬─────
   ·       ╰── here
   ╰────
  help: did you mean `resend_after_ms`?
";
        assert_eq!(got, want);
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (ms, want) in
            [(0, "0.0 s"), (9_950, "9.9 s"), (59_999, "59 s"), (3_599_000, "59 m 59 s"), (90_000_000, "1 d 1 h")]
        {
            assert_eq!(span(ms), want);
        }
        assert_eq!((grouped(0), grouped(999), grouped(1_000)), ("0".into(), "999".into(), "1,000".into()));
    }
}
