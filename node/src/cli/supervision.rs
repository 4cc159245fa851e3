//! `citybrain supervision`, `citybrain case stats`

use super::rates::{by, word};
use super::{At, Fail, Output};
use citybrain_shared::Address;
use citybrain_shared::view::GroupBy;
use clap::Args;
use std::num::NonZeroUsize;

/// Which cases.
#[derive(Debug, Args)]
pub struct Scope {
    /// Only cases owned by this node or one below it
    #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
    pub under: Option<Address>,
    /// Code or name
    #[arg(long)]
    pub category: Option<String>,
    /// Only cases opened in the last so many days
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub days: Option<u32>,
}

impl Scope {
    fn query(self) -> Vec<(&'static str, String)> {
        let mut query: Vec<(&str, String)> = self.under.map(|u| ("under", u.to_string())).into_iter().collect();
        query.extend(self.category.map(|c| ("category", c)));
        query.extend(self.days.map(|d| ("days", d.to_string())));
        query
    }
}

#[derive(Debug, Args)]
pub struct Supervision {
    #[command(flatten)]
    pub scope: Scope,
    /// Entries of each list, 1 to 200
    #[arg(long, value_name = "N", default_value = "20")]
    pub limit: NonZeroUsize,
    /// Reports of one place, or of one person, from which on it is told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..))]
    pub again: u64,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Stats {
    /// A row for each …
    #[arg(long, default_value = "status", value_parser = by())]
    pub by: GroupBy,
    #[command(flatten)]
    pub scope: Scope,
    #[command(flatten)]
    pub at: At,
}

impl Supervision {
    pub fn act(self) -> Result<Output, Fail> {
        let mut query = self.scope.query();
        query.extend([("limit", self.limit.to_string()), ("again", self.again.to_string())]);
        self.at.ask("/v1/supervision", &query, |a| Output::Supervision(Box::new(a)))
    }
}

impl Stats {
    pub fn act(self) -> Result<Output, Fail> {
        let mut query = self.scope.query();
        query.push(("by", word(self.by)));
        self.at.ask("/v1/case-stats", &query, Output::CaseStats)
    }
}
