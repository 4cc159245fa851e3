//! `citybrain webhook`

use super::confirm::Yes;
use super::render::Ops;
use super::{Fail, Output, Through, position};
use citybrain_shared::{Pos, view};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Webhook {
    /// Pass over the event that a receiver does not take: it becomes a dead letter, and the next one's turn comes
    Skip {
        /// Its name in the config
        name: String,
        /// Where it stands, from `status`
        #[arg(value_parser = position)]
        pos: u64,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        at: Through,
    },
}

impl Webhook {
    pub fn act(self) -> Result<Output, Fail> {
        let Webhook::Skip { name, pos, yes, at } = self;
        let node = at.node()?;
        yes.confirm(&format!(
            "The event at {pos} of {} is not sent to the receiver of webhook {name}; it becomes a dead letter. Who did \
             it is recorded.",
            node.place()
        ))?;
        node.post("/v1/webhooks/skip", &view::WebhookSkip { name, pos: Pos(pos) })
            .map(|a| Output::Ops(Ops::WebhookSkipped(a)))
    }
}
