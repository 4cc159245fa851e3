//! `citybrain events`

use super::{At, Fail, Output};
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct Events {
    /// Only this type; `city.air.*` for all that begin so
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Only this source; `/chengdu/*` for all that begin so
    #[arg(long)]
    pub source: Option<String>,
    #[arg(long)]
    pub priority: Option<Priority>,
    /// What came after this position, oldest first, instead of the newest
    #[arg(long, value_name = "POS")]
    pub after: Option<u64>,
    /// At most this many [default: the newest 20; with --after all]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Stay, and show events as they are committed
    #[arg(long, short)]
    pub follow: bool,
    /// Also the events in which nodes tell who they are
    #[arg(long)]
    pub presence: bool,
    #[command(flatten)]
    pub at: At,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Priority {
    Routine,
    Urgent,
}

const NEWEST_DEFAULT: usize = 20;

impl Events {
    pub fn act(self) -> Result<Output, Fail> {
        let lines = self.at.node()?.lines("/v1/events", &self.query())?;
        Ok(Output::Events { lines, follow: self.follow })
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        match self.after {
            Some(after) => {
                query.push(("after", after.to_string()));
                query.extend(self.limit.map(|n| ("limit", n.to_string())));
            }
            None => query.push(("last", self.limit.unwrap_or(NEWEST_DEFAULT).to_string())),
        }
        query.extend(self.event_type.clone().map(|t| ("type", t)));
        query.extend(self.source.clone().map(|s| ("source", s)));
        query.extend(self.priority.map(|p| {
            let word = match p {
                Priority::Routine => "routine",
                Priority::Urgent => "urgent",
            };
            ("priority", word.to_owned())
        }));
        for (name, on) in [("follow", self.follow), ("presence", self.presence)] {
            if on {
                query.push((name, "true".into()));
            }
        }
        query
    }
}
