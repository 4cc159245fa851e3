//! `citybrain rule`

use super::confirm::Yes;
use super::{At, Fail, Output, Set, own};
use crate::brain::rules::rehearse::rehearse;
use crate::config;
use clap::Subcommand;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

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
        /// CloudEvents, one JSON object a line, each with its `time`; `-` is standard input
        #[arg(long, value_name = "FILE")]
        events: PathBuf,
        #[command(flatten)]
        set: Set,
    },
    /// Read the config file again and put its rules in force; windows and alarms stay
    Reload {
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        at: At,
    },
}

impl Rule {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Rule::List { at } => at.ask("/v1/rules", &[], Output::Rules),
            Rule::Reload { yes, at } => super::config::reload(&at, &yes),
            Rule::Test { file, events, set } => {
                let config = config::load(&file, &set.variables())?;
                let input: Box<dyn BufRead> = if events.as_os_str() == "-" {
                    Box::new(std::io::stdin().lock())
                } else {
                    let wrong = |e: std::io::Error| {
                        Fail::usage(format!("cannot read `{}`: {e}", events.display()), "one CloudEvents object a line")
                    };
                    Box::new(BufReader::new(std::fs::File::open(&events).map_err(wrong)?))
                };
                // A line that is no text ends nothing: it is one that does not read.
                let lines = input.split(b'\n').map_while(Result::ok).map(|l| String::from_utf8_lossy(&l).into_owned());
                Ok(Output::RulesTested(own(rehearse(&config, lines))))
            }
        }
    }
}
