//! `citybrain check`

use super::{Fail, Output, Set, own};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Check {
    /// Config files; given together they are checked as one tree on one machine
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub set: Set,
}

impl Check {
    pub fn act(self) -> Result<Output, Fail> {
        let checked = crate::check::check(&self.files, &self.set.variables());
        Ok(Output::Check(own(checked.view()), checked.invalid()))
    }
}
