//! `citybrain status`

use super::{At, Fail, Output};
use clap::Args;

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub at: At,
}

impl Status {
    pub fn act(self) -> Result<Output, Fail> {
        self.at.node()?.get("/v1/status", &[]).map(Output::Status)
    }
}
