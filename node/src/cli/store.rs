//! `citybrain store`: a stopped node's data folder.

use super::{Fail, Output};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Store {
    /// Read every record and check it
    Verify { dir: PathBuf },
    /// How much there is, and how old
    Stats { dir: PathBuf },
}

impl Store {
    pub fn act(self) -> Result<Output, Fail> {
        let (Store::Verify { dir } | Store::Stats { dir }) = self;
        if !dir.is_dir() {
            return Err(Fail::no(
                "not-found",
                format!("`{}` is no folder", dir.display()),
                "give the `data` folder of a node's config",
            ));
        }
        Err(Fail::no(
            "not-built",
            "this build cannot read a stopped node's store yet",
            "`citybrain status --data-dir DIR` asks a running one",
        ))
    }
}
