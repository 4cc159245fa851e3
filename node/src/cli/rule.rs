//! `citybrain rule`

use super::confirm::Yes;
use super::{At, Fail, Output, Set, Through, own};
use crate::brain::rules::rehearse::rehearse;
use crate::{config, replay};
use citybrain_shared::config::Config;
use citybrain_shared::words::with_causes;
use clap::Subcommand;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub enum Rule {
    /// The rules in force, and what they have done
    List {
        #[command(flatten)]
        at: At,
    },
    /// What a file's rules make of recorded events, and why; nothing is sent
    Test {
        /// The node's TOML file
        file: PathBuf,
        /// What `citybrain events --json` prints: its events come at the moments when the node had them, and what
        /// its own rules had made is left out. Or CloudEvents, one JSON object a line, each with its `time`. `-` is
        /// standard input. Or rows that a mapping makes events of, as for `citybrain replay`: CSV, with a known
        /// header or --mapping. When the node was down is in none of these: to `absent` that was silence, while the
        /// node itself does not count it. Nor is when its clock was set back: `for`, `absent`, `calm` and windows go
        /// by the times as they stand, while the node waited anew
        #[arg(long, value_name = "FILE")]
        events: PathBuf,
        /// How rows become events
        #[arg(long, value_name = "TOML")]
        mapping: Option<PathBuf>,
        #[command(flatten)]
        set: Set,
    },
    /// The same as `config reload`: of rules windows and alarms stay, and what waits is planned anew where one was
    /// edited
    Reload {
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        at: Through,
    },
}

impl Rule {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Rule::List { at } => at.ask("/v1/rules", &[], Output::Rules),
            Rule::Reload { yes, at } => super::config::reload(&at, &yes),
            Rule::Test { file, events, mapping, set } => {
                let config = config::load(&file, &set.variables())?;
                let is_csv = events.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
                if is_csv || mapping.is_some() {
                    return rows(&config, &events, mapping.as_deref());
                }
                let unreadable = |e: std::io::Error| {
                    Fail::usage(format!("cannot read `{}`: {e}", events.display()), "one CloudEvents object a line")
                };
                let input: Box<dyn BufRead> = if events.as_os_str() == "-" {
                    Box::new(std::io::stdin().lock())
                } else {
                    Box::new(BufReader::new(std::fs::File::open(&events).map_err(unreadable)?))
                };
                // A line that is no text ends nothing: it is one that does not read.
                let mut broken = None;
                let lines = input.split(b'\n').map_while(|line| line.map_err(|e| broken = Some(e)).ok());
                let lines = lines.map(|l| String::from_utf8_lossy(&l).into_owned());
                let tested = rehearse(&config, (1..).zip(lines).map(|(n, line)| (n, Ok(line))));
                match broken {
                    Some(e) => Err(unreadable(e)),
                    None => Ok(Output::RulesTested(own(tested))),
                }
            }
        }
    }
}

/// Rules over the events that a mapping makes of rows.
fn rows(config: &Config, file: &Path, mapping: Option<&Path>) -> Result<Output, Fail> {
    let (mut rows, mapping) = replay::open(file, mapping, None).map_err(|report| {
        let hint = report.help().map_or_else(String::new, |h| h.to_string());
        Fail::usage(with_causes(report.as_ref()), hint)
    })?;
    let mut broken = None;
    let lines = std::iter::from_fn(|| match rows.next_row() {
        Ok(row) => row,
        Err(e) => {
            broken = Some(with_causes(&e));
            None
        }
    });
    let lines = lines.map(|row| match row {
        Err(bad) => (bad.line, Err(bad.reason)),
        Ok(row) => {
            let (line, event) = (row.line, replay::event_of(mapping.as_ref(), &row));
            (line, event.map(|(_, json)| String::from_utf8_lossy(&json).into_owned()).map_err(|(_, why)| why))
        }
    });
    let tested = rehearse(config, lines);
    match broken {
        Some(why) => Err(Fail::usage(format!("`{}` does not read to its end: {why}", file.display()), "")),
        None => Ok(Output::RulesTested(own(tested))),
    }
}
