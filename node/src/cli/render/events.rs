//! Events as they come, and one of them whole.

use super::{Cell, Color, Fail, Lines, Screen, Stop, clean, footer, grouped, inspect, print, right};
use citybrain_shared::view::{self, Head};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::{self, Write};

/// Rows of one table; more come in further tables without a head.
const ROWS_TOGETHER: usize = 1000;

impl Screen {
    pub(super) fn events(&self, lines: Lines, follow: bool, out: &mut dyn Write) -> Result<(), Stop> {
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
        Ok(footer(&Head { schema: String::new(), node, as_of, offline, cut: None }, self, out)?)
    }

    fn event_rows(&self, events: &mut Vec<view::Event>, first: bool, out: &mut dyn Write) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let head = ["POS", "COMMITTED", "PRIORITY", "TYPE", "ORIGIN", "SUBJECT", "DATA"];
        // Rows that are printed apart must still stand under each other.
        // A time of another zone ends in `+08`.
        let floors = if self.zone.is_utc() { &[10, 15, 8, 28, 24, 14, 49] } else { &[10, 17, 8, 28, 24, 14, 49] };
        let mut table = self.table(&head).one_of_many(first, floors);
        for e in events.drain(..) {
            let event: Attributes<'_> = serde_json::from_str(e.event.get()).unwrap_or_default();
            let data = event.data.map(RawValue::get).unwrap_or_default();
            let urgent = e.priority == "urgent";
            table.add_row(vec![
                right(grouped(e.pos.0)),
                Cell::new(self.zone.short(e.committed_at)),
                self.mark(&e.priority, urgent, Color::Red),
                Cell::new(clean(&event.kind)),
                Cell::new(clean(&e.origin)),
                Cell::new(clean(event.subject.as_deref().unwrap_or("-"))),
                // A pretty-printed event is still one line.
                Cell::new(clean(&data.split_whitespace().collect::<Vec<_>>().join(" "))),
            ]);
        }
        print(&table, out)
    }
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
pub(super) fn damaged(line: &str) -> Option<view::Damaged> {
    #[derive(serde::Deserialize)]
    struct Line {
        damaged: view::Damaged,
    }
    line.starts_with("{\"damaged\"").then(|| serde_json::from_str::<Line>(line).ok())?.map(|l| l.damaged)
}

pub(super) fn shown(v: &view::Shown, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
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
        s.zone.whole(r.received_at),
        grouped(r.origin_pos.0)
    )?;
    writeln!(out, "committed here {}, position {}", s.zone.whole(r.committed_at), grouped(r.pos.0))
}
