//! What a run has added up to, and how it is shown.

use citybrain_shared::words::{counted, grouped};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::time::Instant;

/// What a run added up to.
#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub file: String,
    pub mapping: String,
    pub target: String,
    /// Row after which this run began.
    pub after_row: u64,
    pub rows: u64,
    pub acknowledged: u64,
    pub skipped: BTreeMap<String, u64>,
    pub first_skipped: Vec<Skipped>,
    /// Everything up to this row is settled.
    pub upto_row: u64,
    pub finished: bool,
    pub wall_s: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    pub row: u64,
    pub line: u64,
    pub reason: String,
}

/// Skipped rows listed one by one; the others are counted.
pub const SKIPPED_LISTED: usize = 20;
impl Report {
    /// Of a run that begins behind that row.
    pub fn new(file: String, mapping: String, target: String, after_row: u64) -> Report {
        Report {
            schema: "citybrain.replay/1",
            file,
            mapping,
            target,
            after_row,
            rows: 0,
            acknowledged: 0,
            skipped: BTreeMap::new(),
            first_skipped: Vec::new(),
            upto_row: after_row,
            finished: false,
            wall_s: 0.0,
        }
    }

    /// One row that became no event, or that the node would not have; a few words that stay the same count it.
    pub fn skip(&mut self, label: &str, skipped: Skipped) {
        *self.skipped.entry(label.to_owned()).or_default() += 1;
        if self.first_skipped.len() < SKIPPED_LISTED {
            self.first_skipped.push(skipped);
        }
    }

    fn skipped_in_all(&self) -> u64 {
        self.skipped.values().sum()
    }

    /// On stdout, for people or as one line of JSON.
    pub fn print(&self, json: bool) {
        let mut out = std::io::stdout().lock();
        // A closed pipe is no failure of the replay.
        if json {
            let _ = writeln!(out, "{}", serde_json::to_string(self).expect("a report has only text keys"));
            return;
        }
        let skipped = self.skipped_in_all();
        let end = if self.finished { ", the end of the file" } else { "" };
        let _ = writeln!(
            out,
            "{}: {} acknowledged, {} skipped; all up to row {}{end}; {:.1} s",
            counted(self.rows, "row"),
            grouped(self.acknowledged),
            grouped(skipped),
            grouped(self.upto_row),
            self.wall_s
        );
        for (label, n) in &self.skipped {
            let _ = writeln!(out, "  {} {label}", grouped(*n));
        }
        for s in &self.first_skipped {
            let _ = writeln!(out, "  line {}: {}", s.line, s.reason);
        }
        if skipped > self.first_skipped.len() as u64 {
            let _ = writeln!(out, "  and {} more", grouped(skipped - self.first_skipped.len() as u64));
        }
    }
}

/// One line on stderr: redrawn on a terminal, a new one every five seconds elsewhere.
pub struct Progress {
    is_terminal: bool,
    shown: Option<Instant>,
    before: (Instant, u64),
}

impl Progress {
    pub fn new() -> Progress {
        Progress { is_terminal: std::io::stderr().is_terminal(), shown: None, before: (Instant::now(), 0) }
    }

    pub fn show(&mut self, report: &Report, under_way: usize, trouble: Option<&str>) {
        let every = Duration::from_millis(if self.is_terminal { 500 } else { 5000 });
        let (at, before) = self.before;
        if at.elapsed() < every {
            return;
        }
        let rate = (report.acknowledged - before) as f64 / at.elapsed().as_secs_f64();
        self.before = (Instant::now(), report.acknowledged);
        self.shown = Some(Instant::now());
        let line = format!(
            "row {}  acknowledged {}  under way {under_way}  skipped {}  {rate:.0}/s{}",
            grouped(report.after_row + report.rows),
            grouped(report.acknowledged),
            grouped(report.skipped_in_all()),
            trouble.map(|t| format!("  no connection: {t}")).unwrap_or_default()
        );
        if self.is_terminal { eprint!("\r\x1b[2K{line}") } else { eprintln!("{line}") }
    }

    pub fn end(&self) {
        if self.is_terminal && self.shown.is_some() {
            eprintln!();
        }
    }
}
