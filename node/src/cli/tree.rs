//! `citybrain tree`

use super::{At, Fail, Output};
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  citybrain tree           what this node knows: children by their links, others by what they told
  citybrain tree --deep    each node asked: who is well, who is behind, who does not answer")]
pub struct Tree {
    /// Ask every node for its own word on its health and what it has not got up yet
    #[arg(long)]
    pub deep: bool,
    #[command(flatten)]
    pub at: At,
}

impl Tree {
    pub fn act(self) -> Result<Output, Fail> {
        let mut query = Vec::new();
        if self.deep {
            query.push(("deep", "true".to_owned()));
            query.extend(super::ask::own_within(&self.at));
        }
        self.at.ask("/v1/tree", &query, Output::Tree)
    }
}
