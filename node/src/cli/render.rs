//! Prints what a command answers. A table for people, JSON for programs, from the same view.
//!
//! What came from outside (names, types, payloads) is stripped of control characters before it
//! reaches a terminal; JSON escapes them itself.

mod cases;
mod clock;
mod dead_letters;
mod directives;
mod events;
mod export;
mod inspect;
mod node;
mod ops;
mod rates;
mod rules;
mod services;
mod supervision;
mod table;
#[cfg(test)]
mod tests;

pub use clock::Zone;
pub use inspect::Many;
pub use ops::{Ops, replayed};

use super::{Fail, Lines};
use crate::config::Invalid;
use citybrain_shared::view::{self, Answer, Head, View};
use citybrain_shared::words::{clean, counted, grouped, span};
use miette::{GraphicalReportHandler, GraphicalTheme};
use std::io::{self, IsTerminal, Write};
use table::{Cell, Color, Table};

/// What a command has to show.
pub enum Output {
    Nothing,
    /// Everything was printed on the way; the process ends with this code.
    Code(u8),
    Text(String),
    Measured(Box<Measured>),
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
    /// What asks for one service.
    Bookings(Answer<view::Cases>),
    /// What this node's units were summoned to.
    Summoned(Answer<view::Cases>),
    Case(Box<Answer<view::CaseShown>>),
    /// All of them, with what else the last page says.
    CasesExport(Answer<view::Cases>),
    CaseStats(Answer<view::CaseStats>),
    Supervision(Box<Answer<view::Supervision>>),
    CasesBrought(Answer<view::CasesBrought>),
    Rates(Box<Answer<view::Rates>>, super::rates::Show),
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
    /// What was asked of another node and was not answered in the time given: 3.
    Unanswered(Box<Output>),
    /// What was asked for was refused: 1.
    Refused(Box<Output>),
}

/// Figures of a bench: for programs, and as rows for people, of which the first column says what it is.
#[derive(Debug)]
pub struct Measured {
    pub json: serde_json::Value,
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub json: bool,
    pub color: bool,
    pub color_stderr: bool,
    /// Columns of the terminal that stdout is.
    pub width: Option<usize>,
    /// Of the times it shows.
    pub zone: Zone,
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
            zone: if io::stdout().is_terminal() { Zone::machine() } else { Zone::utc() },
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
            Output::Measured(m) => self.measured(&m, out)?,
            Output::Version(a) => self.answer(&a, out, node::version)?,
            Output::Check(a, _) => {
                self.answer(&a, out, |v, s, out| node::check(v, s, out))?;
                return Ok(if a.body.ok { 0 } else { 2 });
            }
            Output::Status(a) => {
                self.answer(&a, out, |v, s, out| node::status(&a.head, v, s, out))?;
                return Ok(u8::from(!a.body.ready.ready));
            }
            Output::Tree(a) => {
                self.answer(&a, out, inspect::tree)?;
                return Ok(inspect::tree_code(&a.body));
            }
            Output::Links(a) => self.answer(&a, out, node::links)?,
            Output::Events { lines, follow } => self.events(lines, follow, out)?,
            Output::Cases(a) => {
                self.of_below(&a, (&a.body.away, &a.body.awaits), out, |v, s, out| {
                    cases::cases(v, &a.head.node, a.head.as_of, s, out)
                })?;
            }
            Output::Bookings(a) => self.of_below(&a, (&a.body.away, &a.body.awaits), out, cases::bookings)?,
            Output::Summoned(a) => {
                self.of_below(&a, (&a.body.away, &a.body.awaits), out, |v, s, out| {
                    cases::summoned(v, &a.head.node, a.head.as_of, s, out)
                })?;
            }
            Output::Case(a) => self.answer(&a, out, |v, s, out| cases::case(v, &a.head.node, a.head.as_of, s, out))?,
            Output::CasesExport(a) => {
                match self.json {
                    true => export::lines(&a.body.cases, out)?,
                    false => export::csv(&a.body.cases, out)?,
                }
                // What reads the cases reads no sentence.
                supervision::awaits(a.body.awaits.as_ref(), "cases", &mut io::stderr())?;
                supervision::away(&a.body.away, a.head.offline, self, &mut io::stderr())?;
            }
            Output::CaseStats(a) => self.of_below(&a, (&a.body.away, &a.body.awaits), out, supervision::stats)?,
            Output::Supervision(a) => {
                self.of_below(&a, (&a.body.away, &a.body.awaits), out, supervision::supervision)?
            }
            Output::CasesBrought(a) => {
                self.answer(&a, out, |v, _, out| cases::brought(v, out))?;
                return Ok(u8::from(a.body.refused > 0));
            }
            Output::Rates(a, show) => {
                self.of_below(&a, (&a.body.away, &a.body.awaits), out, |v, s, out| rates::rates(v, show, s, out))?
            }
            Output::Services(a) => {
                self.awaiting(&a, (&a.body.awaits, view::Services::FROM_ABOVE), out, services::services)?
            }
            Output::Service(a) => self.answer(&a, out, |v, _, out| services::service(v, out))?,
            Output::Scenes(a) => {
                self.awaiting(&a, (&a.body.awaits, view::Scenes::FROM_ABOVE), out, services::scenes)?
            }
            Output::Counts(a) => self.answer(&a, out, inspect::counts)?,
            Output::Shown(a) => self.answer(&a, out, events::shown)?,
            Output::Sent(a) => self.answer(&a, out, directives::sent)?,
            Output::Directives(a) => self.answer(&a, out, directives::directives)?,
            Output::Directive(a) => self.answer(&a, out, directives::directive)?,
            Output::DeadLetters(a) => self.answer(&a, out, dead_letters::list)?,
            Output::DeadLetter(a) => self.answer(&a, out, dead_letters::one)?,
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
            Output::Alarms(a) => self.answer(&a, out, |v, s, out| rules::alarms(v, a.head.as_of, s, out))?,
            Output::Alarm(a) => self.answer(&a, out, |v, s, out| rules::alarm(v, a.head.as_of, s, out))?,
            Output::CapWarnings(a) => self.awaiting(&a, (&a.body.awaits, "warnings"), out, rules::warnings)?,
            Output::CapShown(a) => self.answer(&a, out, rules::warning)?,
            Output::CapTaken(a) => self.answer(&a, out, rules::cap_taken)?,
            Output::Rules(a) => self.answer(&a, out, rules::rules)?,
            Output::RulesTested(a) => {
                self.answer(&a, out, rules::rules_tested)?;
                // Nothing could be read: that is no test.
                return Ok(u8::from(a.body.events == 0 && !a.body.unread.is_empty()));
            }
            Output::Reloaded(a) => self.answer(&a, out, rules::reloaded)?,
            Output::Unanswered(output) => return self.write(*output, out).map(|_| 3),
            Output::Refused(output) => return self.write(*output, out).map(|_| 1),
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
        if answer.head.node.is_empty() { Ok(()) } else { footer(&answer.head, self, out) }
    }

    /// What lacks something that others know ends with whose word that waits for.
    fn awaiting<T: View>(
        &self,
        answer: &Answer<T>,
        (awaits, what): (&Option<view::Awaited>, &str),
        out: &mut dyn Write,
        table: impl Fn(&T, &Screen, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.answer(answer, out, |v, s, out| {
            table(v, s, out)?;
            supervision::awaits(awaits.as_ref(), what, out)
        })
    }

    /// What is told of nodes below too ends with what of them it lacks.
    fn of_below<T: View>(
        &self,
        answer: &Answer<T>,
        (away, awaits): (&[view::Away], &Option<view::Awaited>),
        out: &mut dyn Write,
        table: impl Fn(&T, &Screen, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.answer(answer, out, |v, s, out| {
            table(v, s, out)?;
            supervision::awaits(awaits.as_ref(), "cases", out)?;
            supervision::away(away, answer.head.offline, s, out)
        })
    }

    fn measured(&self, m: &Measured, out: &mut dyn Write) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, &m.json)?;
            return writeln!(out);
        }
        let mut table = self.table(&m.head);
        for row in &m.rows {
            let cell = |(i, text): (usize, &String)| if i == 0 { Cell::new(clean(text)) } else { right(clean(text)) };
            table.add_row(row.iter().enumerate().map(cell));
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

enum Stop {
    Io(io::Error),
    Fail(Fail),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Stop {
        Stop::Io(e)
    }
}

/// Whose record it was, and how old.
fn footer(head: &Head, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if let Some(cut) = &head.cut {
        let (kept, of, list) = (grouped(cut.kept), grouped(cut.of), clean(&cut.list));
        writeln!(out, "cut: {kept} of {of} {list} came over the links; ask the node itself for all")?;
    }
    let Head { node, as_of, .. } = head;
    if head.offline {
        return writeln!(out, "{node}, offline, from its folder, as of {}", s.zone.with_year(*as_of));
    }
    writeln!(out, "{node}, its own record, as of {}", s.zone.time(*as_of))
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

fn ago(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".into(), |ms| format!("{} ago", span(ms)))
}
