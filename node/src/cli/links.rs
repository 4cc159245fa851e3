//! `citybrain links`

use super::{At, Fail, Output};
use clap::Args;

#[derive(Debug, Args)]
pub struct Links {
    #[command(flatten)]
    pub at: At,
}

impl Links {
    pub fn act(self) -> Result<Output, Fail> {
        self.at.node()?.get("/v1/links", &[]).map(Output::Links)
    }
}
