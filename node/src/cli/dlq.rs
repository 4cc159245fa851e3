//! `citybrain dlq`

use super::confirm::Yes;
use super::render::Ops;
use super::{At, Fail, Output, Through, position};
use citybrain_shared::{Pos, view};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// The newest that are open
    List {
        /// Only this reason, such as `not-json`
        #[arg(long)]
        reason: Option<String>,
        /// At most this many, 1 to 1000
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        at: At,
    },
    /// One, with what was sent
    Show {
        /// Its position
        #[arg(value_parser = position)]
        pos: u64,
        #[command(flatten)]
        at: At,
    },
    /// Try again what was sent, on its topic, now that the config or the sender is right
    Retry {
        /// Positions, from `dlq list`
        #[arg(required = true, value_name = "POS", value_parser = position)]
        positions: Vec<u64>,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        at: Through,
    },
    /// Close them: they were looked at, and nothing is to be done
    Drop {
        /// Positions, from `dlq list`
        #[arg(required = true, value_name = "POS", value_parser = position)]
        positions: Vec<u64>,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        at: Through,
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
            Dlq::Retry { positions, yes, at } => {
                let will = "is tried again: what was published goes through ingress on its topic and, if it is taken, becomes \
                            an event; what a webhook's receiver did not take is sent there again";
                settle(&positions, "/v1/dlq/retry", &yes, &at, will)
            }
            Dlq::Drop { positions, yes, at } => {
                let will = "is closed without being taken; it stays in the log until retention takes it";
                settle(&positions, "/v1/dlq/drop", &yes, &at, will)
            }
        }
    }
}

fn settle(positions: &[u64], path: &str, yes: &Yes, at: &Through, will: &str) -> Result<Output, Fail> {
    let node = at.node()?;
    let list: Vec<String> = positions.iter().map(u64::to_string).collect();
    let (list, place) = (list.join(", "), node.place());
    yes.confirm(&format!("Dead letter {list} at {place} {will}. Who did it is recorded."))?;
    let positions = positions.iter().copied().map(Pos).collect();
    node.post(path, &view::DlqSettle { positions }).map(|a| Output::Ops(Ops::DlqSettled(a)))
}
