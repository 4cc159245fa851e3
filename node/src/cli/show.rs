//! `citybrain show`

use super::{At, Fail, Output};
use citybrain_shared::view;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  citybrain show 01990f7e-… --at chengdu/liucheng    the record of it that this street holds")]
pub struct Show {
    /// The event's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
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
        self.at.ask(&format!("/v1/events/{}", view::segment(&self.id)), &query, Output::Shown)
    }
}
