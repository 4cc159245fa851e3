//! `citybrain top`

use super::{At, Fail, Output};
use crate::top::{self, picture::Answers};
use citybrain_shared::view;
use clap::Args;
use std::io::IsTerminal;

#[derive(Debug, Args)]
pub struct Top {
    #[command(flatten)]
    pub at: At,
}

/// More than a tall screen shows.
const TAIL: usize = 60;
/// As many as are shown beside all else.
const ALARMS: usize = 3;

impl Top {
    pub fn act(self) -> Result<Output, Fail> {
        if !std::io::stdout().is_terminal() {
            return Err(Fail::usage(
                "`top` needs a terminal",
                "`citybrain status --json` and `citybrain links --json` are for programs",
            ));
        }
        let node = self.at.node()?;
        // Whoever cannot be reached at all is told so, and not on a screen of its own.
        node.get::<view::Version>("/v1/version", &[])?;
        let ask = move || -> Result<Answers, Fail> {
            let status = node.get::<view::Status>("/v1/status", &[])?;
            let tree = node.get::<view::Tree>("/v1/tree", &[])?;
            let alarms = node.get::<view::Alarms>("/v1/alarms", &[("limit", ALARMS.to_string())])?.body;
            let lines = node.lines("/v1/events", &[("last", TAIL.to_string())])?;
            let tail = lines.filter_map(|l| serde_json::from_str(&l.ok()?).ok()).collect();
            Ok(Answers { node: status.head.node, status: status.body, tree: tree.body.nodes, alarms, tail })
        };
        top::run(move || ask().map_err(|f| f.failure.detail))
            .map_err(|e| Fail::no("terminal", format!("the terminal cannot be used: {e}"), "`citybrain status`"))?;
        Ok(Output::Nothing)
    }
}
