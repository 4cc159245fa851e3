//! `citybrain cap`

use super::confirm::Yes;
use super::{At, Direct, Fail, Output};
use crate::cap::{BYTES_MAX, CONTENT_TYPE};
use citybrain_shared::view;
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use std::io::Read;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Cap {
    /// Warnings that came in by CAP and are in force, worst first
    List {
        #[command(flatten)]
        at: At,
    },
    /// One of them, with its messages and the nodes that were told
    Show {
        /// Its id, or enough of it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        #[command(flatten)]
        at: At,
    },
    /// Send a message of CAP 1.2: an alert, an update, a cancellation
    Send {
        /// The XML; `-` reads it from stdin
        file: PathBuf,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        at: Direct,
    },
    /// It is over before its time, by this node's word, here and below; nodes above go on with what they have
    Cancel {
        /// Its id, or enough of it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        /// Why, for those who were told
        #[arg(long, default_value = "", hide_default_value = true)]
        note: String,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        at: Direct,
    },
    /// The message that an alarm of this tree has come to, as XML
    Alarm {
        /// As `alarm list` shows it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        #[command(flatten)]
        at: At,
    },
}

impl Cap {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Cap::List { at } => at.ask("/v1/cap", &[], Output::CapWarnings),
            Cap::Show { id, at } => {
                let mut answer = at.node()?.get::<view::CapWarnings>("/v1/cap", &[])?;
                let key = crate::cap::key_of(id.trim());
                answer.body.warnings.retain(|w| w.messages.iter().any(|m| m.contains(&key)));
                if answer.body.warnings.is_empty() {
                    let (error, detail, hint) = answer.body.none_is(&id);
                    return Err(Fail::no(error, detail, hint));
                }
                Ok(Output::CapShown(answer))
            }
            Cap::Send { file, yes, at } => {
                let xml = read(&file)?;
                let node = at.node()?;
                yes.confirm(&format!(
                    "{} takes the message in `{}`: whoever it says it is for is warned. Who sent it is recorded.",
                    node.place(),
                    file.display()
                ))?;
                node.post_as("/v1/cap", CONTENT_TYPE, &xml).map(Output::CapTaken)
            }
            Cap::Cancel { id, note, yes, at } => {
                let node = at.node()?;
                let place = node.place();
                yes.confirm(&format!(
                    "{place} cancels the warning `{id}` there and at all below who have it. Who did it is recorded."
                ))?;
                node.post("/v1/cap/cancel", &view::CapCancel { about: id, note }).map(Output::CapTaken)
            }
            Cap::Alarm { id, at } => {
                let xml = at.node()?.raw(&format!("/v1/alarms/{}/cap", view::segment(&id)))?;
                Ok(Output::Text(String::from_utf8_lossy(&xml).into_owned()))
            }
        }
    }
}

/// A message is small; of what is none the node says why.
fn read(file: &std::path::Path) -> Result<Vec<u8>, Fail> {
    let mut xml = Vec::new();
    let most = BYTES_MAX as u64 + 1;
    let done = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(most).read_to_end(&mut xml)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(most).read_to_end(&mut xml))
    };
    done.map_err(|e| Fail::usage(format!("cannot read `{}`: {e}", file.display()), "a file of CAP 1.2, or `-`"))?;
    Ok(xml)
}
