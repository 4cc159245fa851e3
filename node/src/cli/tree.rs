//! `citybrain tree`

use super::{At, Fail, Output};
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  citybrain tree            each node asked: who is well, who is behind, who does not answer
  citybrain tree --known    nobody asked: children by their links, others by what they told at their start")]
pub struct Tree {
    /// Only what this node knows by itself; nobody else is asked
    #[arg(long)]
    pub known: bool,
    #[command(flatten)]
    pub at: At,
}

impl Tree {
    pub fn act(self) -> Result<Output, Fail> {
        let mut query = Vec::new();
        if !self.known && self.at.offline.is_none() {
            query.push(("deep", "true".to_owned()));
            query.extend(super::asking::own_within(&self.at));
        }
        self.at.ask("/v1/tree", &query, Output::Tree)
    }
}
