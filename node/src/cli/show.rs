//! `citybrain show`

use super::ask::segment;
use super::{At, Fail, Output};
use clap::Args;

#[derive(Debug, Args)]
pub struct Show {
    /// The event's id
    pub id: String,
    /// Its source: finds it however old it is
    #[arg(long)]
    pub source: Option<String>,
    #[command(flatten)]
    pub at: At,
}

impl Show {
    pub fn act(self) -> Result<Output, Fail> {
        let query: Vec<(&str, String)> = self.source.map(|s| ("source", s)).into_iter().collect();
        self.at.node()?.get(&format!("/v1/events/{}", segment(&self.id)), &query).map(Output::Shown)
    }
}
