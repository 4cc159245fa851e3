//! `citybrain run`

use super::{Fail, Output, Set};
use crate::config;
use citybrain_shared::words::with_causes;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Run {
    /// The node's TOML file; examples: `config/` of the source, /usr/share/doc/citybrain/examples of the package
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    #[command(flatten)]
    pub set: Set,
}

impl Run {
    pub fn act(self) -> Result<Output, Fail> {
        let config = config::load(&self.config, &self.set.variables())?;
        match crate::run::run(config) {
            Ok(()) => Ok(Output::Nothing),
            Err(report) => Err(Fail::from_report(&report, &self.config)),
        }
    }
}

impl Fail {
    /// A start that failed, with the whole chain of causes.
    fn from_report(report: &miette::Report, config: &std::path::Path) -> Fail {
        let hint = match report.help() {
            Some(help) => help.to_string(),
            None => format!("`citybrain doctor --config {}` looks at all that a start needs", config.display()),
        };
        let detail = with_causes(report.as_ref());
        match report.code().map(|code| code.to_string()).as_deref() {
            Some(crate::codes::BUSY) => {
                let hint = "stop the one that has it, or wait for its end: this may be tried again as it is";
                Fail::new(super::TRY_AGAIN, "busy", detail, hint)
            }
            Some(crate::codes::UNUSABLE) => Fail::new(2, "config", detail, hint),
            _ => Fail::no("start", detail, hint),
        }
    }
}
