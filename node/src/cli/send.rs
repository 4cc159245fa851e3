//! `citybrain send`

use super::ask::{segment, selector};
use super::confirm::Yes;
use super::{Direct, Fail, Output};
use citybrain_shared::config::rules::Duration;
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
        let path = format!("/v1/directives/{}", segment(&sent.body.id));
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

/// A length of time, as milliseconds that a message has room for.
pub(super) fn duration_ms(text: &str) -> Result<u32, String> {
    u32::try_from(Duration::parse(text)?.us() / 1000).map_err(|_| "it must be at most 1193h".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_no_longer_than_a_message_has_room_for() {
        assert_eq!(duration_ms("500ms"), Ok(500));
        assert_eq!(duration_ms("1193h"), Ok(1193 * 3_600_000));
        for bad in ["", "0s", "1194h", "50d"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
    }
}
