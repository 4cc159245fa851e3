//! `citybrain status`

use super::{At, Fail, Output};
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  citybrain status                                  the node here
  citybrain status --at chengdu/liucheng            one below it, through the links
  citybrain status --at 'chengdu/**@community'      all communities, one block each as they answer
  citybrain status --offline /var/lib/citybrain     a stopped one, from its folder")]
pub struct Status {
    #[command(flatten)]
    pub at: At,
}

impl Status {
    pub fn act(self) -> Result<Output, Fail> {
        self.at.ask("/v1/status", &[], Output::Status)
    }
}
