//! `citybrain directives`

use super::ask::segment;
use super::{At, Fail, Output};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Directives {
    /// The newest, with their counts
    List {
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        at: At,
    },
    /// One, with the nodes that have not answered
    Show {
        id: String,
        #[command(flatten)]
        at: At,
    },
}

impl Directives {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Directives::List { limit, at } => {
                at.ask("/v1/directives", &[("limit", limit.to_string())], Output::Directives)
            }
            Directives::Show { id, at } => at.ask(&format!("/v1/directives/{}", segment(&id)), &[], Output::Directive),
        }
    }
}
