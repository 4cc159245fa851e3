//! `citybrain log-level`

use super::confirm::Yes;
use super::render::Ops;
use super::{At, Fail, Output};
use citybrain_shared::view;
use clap::Args;

#[derive(Debug, Args)]
pub struct LogLevel {
    /// What to log from now on, until the node stops: `debug`, `citybrain_hub::link=trace,info`; without it the present one is shown
    pub level: Option<String>,
    #[command(flatten)]
    pub yes: Yes,
    #[command(flatten)]
    pub at: At,
}

impl LogLevel {
    pub fn act(self) -> Result<Output, Fail> {
        let node = self.at.node()?;
        let answer = match self.level {
            None => node.get("/v1/log-level", &[])?,
            Some(level) => {
                self.yes.confirm(&format!(
                    "The node logs at `{level}` until it stops. Nothing in its config changes. Who did it is recorded."
                ))?;
                node.post("/v1/log-level", &view::LogLevel { level, before: None })?
            }
        };
        Ok(Output::Ops(Ops::LogLevel(answer)))
    }
}
