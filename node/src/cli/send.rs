//! `citybrain send`

use super::confirm::Yes;
use super::{Direct, Fail, Output};
use crate::ask::{duration_ms, selector};
use citybrain_shared::view;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct Send {
    /// Whom it is for: `ADDRESS`, `ADDRESS/**`, with `@tier` and `[label=value]`
    #[arg(long, value_name = "SELECTOR", value_parser = selector)]
    pub target: String,
    /// The event's type [default: city.notice, or city.command with --directive command]
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// The event's data
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    /// Past any backlog, on every hop
    #[arg(long)]
    pub urgent: bool,
    /// A command asks for an act and gets receipts; a notice only informs
    #[arg(long, default_value = "notice")]
    pub directive: Directive,
    /// Not to be executed after this long: `500ms`, `60s`, `5m`, `2h`
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    pub ttl: Option<u32>,
    #[command(flatten)]
    pub yes: Yes,
    #[command(flatten)]
    pub at: Direct,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Directive {
    Command,
    Notice,
}

impl Send {
    pub fn act(self) -> Result<Output, Fail> {
        let request = self.request()?;
        let node = self.at.node()?;
        let word = request.directive.as_deref().unwrap_or("notice");
        self.yes.confirm(&format!(
            "A {word} `{}` goes from {} to {}. It cannot be called back. Who did it is recorded.",
            request.event_type,
            node.place(),
            request.target
        ))?;
        let sent = node.post::<view::Sent>("/v1/send", &request)?;
        let path = format!("/v1/directives/{}", view::segment(&sent.body.id));
        // It waits for whoever comes; a mistyped address does, too.
        if node.get::<view::Directive>(&path, &[]).is_ok_and(|d| d.body.expected == 0) {
            eprintln!("nobody is meant by `{}` yet: `citybrain tree` shows who is there", request.target);
        }
        Ok(Output::Sent(sent))
    }

    pub(super) fn request(&self) -> Result<view::Send, Fail> {
        let wrong = |e: serde_json::Error| {
            Fail::usage(format!("`--data` is not JSON: {e}"), "quote it for the shell: --data '{\"level\": 3}'")
        };
        let data = self.data.as_deref().map(serde_json::from_str).transpose().map_err(wrong)?;
        let word = match self.directive {
            Directive::Command => "command",
            Directive::Notice => "notice",
        };
        Ok(view::Send {
            target: self.target.clone(),
            event_type: self.event_type.clone().unwrap_or_else(|| format!("city.{word}")),
            data,
            priority: self.urgent.then(|| "urgent".into()),
            directive: Some(word.into()),
            ttl_ms: self.ttl,
        })
    }
}
