//! `citybrain top`: a live screen of a node and its tree.
//!
//! | module | what it owns |
//! |---|---|
//! | `picture` | what is known: two answers of the node make rates; pure |
//! | `draw` | a picture onto a screen of any size; pure |
//! | `screen` | the terminal and its keys |

mod draw;
mod picture;
mod screen;

use super::{At, Fail, Output};
use citybrain_shared::{Address, view};
use clap::Args;
use picture::Answers;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub struct Top {
    #[command(flatten)]
    pub at: At,
}

/// More than a tall screen shows.
const TAIL: usize = 60;
/// As many as are shown beside all else.
const ALARMS: usize = 3;
/// All nodes below say so often how they are, and have so long for it: the rest of the screen waits.
const ASK_ALL_EVERY: Duration = Duration::from_secs(5);
const ASK_ALL_WITHIN_MS: u64 = 500;

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
        let mut said = Said::default();
        let mut ask = move || -> Result<Answers, Fail> {
            let status = node.get::<view::Status>("/v1/status", &[])?;
            let deep = [("deep", "true".to_owned()), ("within_ms", ASK_ALL_WITHIN_MS.to_string())];
            let is_due = said.at.is_none_or(|at| at.elapsed() >= ASK_ALL_EVERY);
            let mut tree = node.get::<view::Tree>("/v1/tree", if is_due { &deep } else { &[] })?;
            if is_due {
                said.learn(&tree.body.nodes)
            } else {
                said.tell(&mut tree.body.nodes)
            }
            let alarms = node.get::<view::Alarms>("/v1/alarms", &[("limit", ALARMS.to_string())])?.body;
            let lines = node.lines("/v1/events", &[("last", TAIL.to_string())])?;
            let tail = lines.filter_map(|l| serde_json::from_str(&l.ok()?).ok()).collect();
            Ok(Answers { node: status.head.node, status: status.body, tree: tree.body.nodes, alarms, tail })
        };
        screen::run(move || ask().map_err(|f| f.failure.detail))
            .map_err(|e| Fail::no("terminal", format!("the terminal cannot be used: {e}"), "`citybrain status`"))?;
        Ok(Output::Nothing)
    }
}

/// What the nodes below said of themselves when they were asked last.
#[derive(Default)]
struct Said {
    at: Option<Instant>,
    nodes: BTreeMap<Address, view::TreeNode>,
}

impl Said {
    fn learn(&mut self, nodes: &[view::TreeNode]) {
        self.at = Some(Instant::now());
        self.nodes = nodes.iter().skip(1).map(|n| (n.address.clone(), n.clone())).collect();
    }

    /// A link that has changed since then is newer than what was said.
    fn tell(&self, nodes: &mut [view::TreeNode]) {
        for node in nodes.iter_mut().skip(1) {
            let Some(said) = self.nodes.get(&node.address).filter(|s| ["known", &s.state].contains(&&*node.state))
            else {
                continue;
            };
            (node.state, node.health, node.behind) = (said.state.clone(), said.health.clone(), said.behind);
        }
    }
}
