//! `citybrain dlq`

use super::{At, Fail, Output};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// The newest that are open
    List {
        /// Only this reason, such as `not-json`
        #[arg(long)]
        reason: Option<String>,
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        at: At,
    },
    /// One, with what was sent
    Show {
        /// Its position
        pos: u64,
        #[command(flatten)]
        at: At,
    },
}

impl Dlq {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Dlq::List { reason, limit, at } => {
                let mut query = vec![("limit", limit.to_string())];
                query.extend(reason.map(|r| ("reason", r)));
                at.ask("/v1/dlq", &query, Output::DeadLetters)
            }
            Dlq::Show { pos, at } => at.ask(&format!("/v1/dlq/{pos}"), &[], Output::DeadLetter),
        }
    }
}
