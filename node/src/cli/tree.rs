//! `citybrain tree`

use super::{At, Fail, Output};
use clap::Args;

#[derive(Debug, Args)]
pub struct Tree {
    #[command(flatten)]
    pub at: At,
}

impl Tree {
    pub fn act(self) -> Result<Output, Fail> {
        self.at.node()?.get("/v1/tree", &[]).map(Output::Tree)
    }
}
