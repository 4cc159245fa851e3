//! `citybrain audit`

use super::{At, Fail, Output};
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  citybrain audit                          does every link below this node account for every event?
  citybrain audit --at chengdu/liucheng    the same from that street down
Exit code 1 if anything is missing, 3 if a node could not be asked.")]
pub struct Audit {
    #[command(flatten)]
    pub at: At,
}

/// Books take longer to compare than a node takes to answer.
const WITHIN_DEFAULT_MS: u64 = 10_000;

impl Audit {
    pub fn act(self) -> Result<Output, Fail> {
        let mut at = self.at;
        at.through.within.get_or_insert(WITHIN_DEFAULT_MS);
        at.ask("/v1/audit", &super::asking::own_within(&at), Output::Audit)
    }
}
