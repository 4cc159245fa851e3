//! `citybrain why`

use super::{At, Fail, Output};
use citybrain_shared::Address;
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  citybrain why chengdu/liucheng/guanghua   why does this community not report?
  citybrain why                             what is wrong with the node here?
  citybrain why chengdu/liucheng --json     for programs: `code` is stable")]
pub struct Why {
    /// The node in question: the one asked, or one below it
    #[arg(value_parser = Address::parse)]
    pub address: Option<Address>,
    #[command(flatten)]
    pub at: At,
}

impl Why {
    pub fn act(self) -> Result<Output, Fail> {
        let mut query: Vec<_> = self.address.map(|a| ("address", a.to_string())).into_iter().collect();
        query.extend(super::asking::own_within(&self.at));
        self.at.ask("/v1/why", &query, Output::Why)
    }
}
