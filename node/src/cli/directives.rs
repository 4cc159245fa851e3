//! `citybrain directives`

use super::{At, Fail, Output, position};
use citybrain_shared::view;
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

#[derive(Debug, Subcommand)]
pub enum Directives {
    /// The newest, with their counts
    List {
        /// At most this many, 1 to 1000
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Only those from before this position in the log
        #[arg(long, value_name = "POS", value_parser = position)]
        after: Option<u64>,
        #[command(flatten)]
        at: At,
    },
    /// One, with the nodes that have not answered
    Show {
        /// The directive's id, or enough of it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        #[command(flatten)]
        at: At,
    },
}

impl Directives {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Directives::List { limit, after, at } => {
                let mut query = vec![("limit", limit.to_string())];
                query.extend(after.map(|pos| ("after", pos.to_string())));
                at.ask("/v1/directives", &query, Output::Directives)
            }
            Directives::Show { id, at } => {
                at.ask(&format!("/v1/directives/{}", view::segment(&id)), &[], Output::Directive)
            }
        }
    }
}
