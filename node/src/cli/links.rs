//! `citybrain links`

use super::{At, Fail, Output};
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  citybrain links --at chengdu/liucheng    what waits on the links of that street?")]
pub struct Links {
    #[command(flatten)]
    pub at: At,
}

impl Links {
    pub fn act(self) -> Result<Output, Fail> {
        self.at.ask("/v1/links", &[], Output::Links)
    }
}
