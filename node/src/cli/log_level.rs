//! `citybrain log-level`

use super::confirm::Yes;
use super::render::Ops;
use super::{At, Fail, Output, Through};
use citybrain_shared::view;
use clap::Args;

#[derive(Debug, Args)]
pub struct LogLevel {
    /// What to log from now on, until the node stops: `debug`, `citybrain_hub::link=trace,info`; without it the present one is shown
    pub level: Option<String>,
    #[command(flatten)]
    pub yes: Yes,
    #[command(flatten)]
    pub at: Through,
}

impl LogLevel {
    pub fn act(self) -> Result<Output, Fail> {
        match self.level {
            None => At::from(self.at).ask("/v1/log-level", &[], |a| Output::Ops(Ops::LogLevel(a))),
            Some(level) => {
                let node = self.at.node()?;
                self.yes.confirm(&format!(
                    "The node at {} logs at `{level}` until it stops. Nothing in its config changes. Who did it is recorded.",
                    node.place()
                ))?;
                let wanted = view::LogLevel { level, before: None };
                node.post("/v1/log-level", &wanted).map(|a| Output::Ops(Ops::LogLevel(a)))
            }
        }
    }
}
