//! `citybrain events`

use super::{At, Fail, Output, position};
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_shared::{Address, view};
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  citybrain events --type 'city.air.*' --limit 5          the newest five of these types
  citybrain events --origin chengdu/liucheng/guanghua/x   what began at that neighbourhood
  citybrain events --time-after 15m --priority urgent     urgent ones of the last quarter of an hour
  citybrain events --where 'event.data.pm25 > 75'         what a condition in CEL holds for
  citybrain events --by source --time-after 5m            who has said most?
  citybrain events --follow                               as they are committed")]
pub struct Events {
    #[command(flatten)]
    pub fits: Fits,
    /// What came after this position, oldest first, instead of the newest
    #[arg(long, value_name = "POS", value_parser = position)]
    pub after: Option<u64>,
    /// At most this many [default: the newest 20; with --after all]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Count the newest instead of showing them: who says how much?
    #[arg(long, value_name = "WHAT", conflicts_with_all = ["after", "follow"])]
    pub by: Option<By>,
    /// Stay, and show events as they are committed, behind the newest 20 (`--limit 0`: behind none)
    #[arg(long, short)]
    pub follow: bool,
    #[command(flatten)]
    pub at: At,
}

/// Which events are meant.
#[derive(Clone, Debug, Args)]
pub struct Fits {
    /// Only this type; `city.air.*` for all that begin so
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Only this source; `/chengdu/*` for all that begin so
    #[arg(long)]
    pub source: Option<String>,
    /// Only what began at this node; `chengdu/liucheng/*` for all that begin so
    #[arg(long, value_name = "ADDRESS", value_parser = origin)]
    pub origin: Option<String>,
    /// Only this kind of governance: 党建, 自治, 德治, 法治
    #[arg(long)]
    pub governance: Option<Governance>,
    /// Only those for which this condition in CEL holds: `event.data.pm25 > 75`; one that lacks what it
    /// names does not fit
    #[arg(long = "where", value_name = "CEL", value_parser = condition)]
    pub condition: Option<String>,
    /// Only this priority
    #[arg(long)]
    pub priority: Option<Priority>,
    /// Committed here at this time or later: `2026-07-01T08:00:00Z`, or how long ago: `15m`
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub time_after: Option<Moment>,
    /// Committed here before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub time_before: Option<Moment>,
    /// Also the events in which nodes tell who they are
    #[arg(long)]
    pub presence: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum By {
    Source,
    Type,
    Origin,
    Priority,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Governance {
    Party,
    Autonomy,
    Virtue,
    Law,
}

/// A time, and how it was typed.
#[derive(Clone, Debug)]
pub struct Moment {
    typed: String,
    at: DateTime<Utc>,
}

#[allow(clippy::disallowed_methods, reason = "the person who asks means this clock")]
fn moment(text: &str) -> Result<Moment, String> {
    let at = match crate::ask::duration_ms(text) {
        Ok(ms) => Utc::now() - TimeDelta::milliseconds(ms.into()),
        Err(_) => DateTime::parse_from_rfc3339(text)
            .map_err(|_| "write 2026-07-01T08:00:00Z, or 15m for so long ago")?
            .to_utc(),
    };
    Ok(Moment { typed: text.to_owned(), at })
}

/// An address, or the beginning of one with `*` behind it.
fn origin(text: &str) -> Result<String, String> {
    let stem = text.strip_suffix('*').map(|stem| stem.trim_end_matches('/'));
    match stem {
        Some("") => Ok(text.to_owned()),
        _ => Address::parse(stem.unwrap_or(text)).map(|_| text.to_owned()).map_err(|e| e.to_string()),
    }
}

/// Said before anybody is asked.
fn condition(text: &str) -> Result<String, String> {
    match crate::api::filter::condition(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(fault) if fault.help.is_empty() => Err(fault.message),
        Err(fault) => Err(format!("{}; {}", fault.message, fault.help)),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Priority {
    Routine,
    Urgent,
}

const NEWEST_DEFAULT: usize = 20;

impl Events {
    pub fn act(self) -> Result<Output, Fail> {
        if self.follow && self.at.through.below.is_some() {
            let hint = "ask again with `--after POS`, or follow at the node itself with `--node URL`";
            return Err(Fail::usage("no stream stays open over the links", hint));
        }
        let is_behind_none = self.follow && self.after.is_none();
        if self.limit == Some(0) && !is_behind_none {
            let hint = "1 or more; with `--follow` and no `--after`, 0 shows what comes from now on";
            return Err(Fail::usage("`--limit 0` shows nothing", hint));
        }
        if let Some(by) = self.by {
            let word = by.to_possible_value().expect("none is hidden");
            let mut query = self.fits.query();
            query.push(("by", word.get_name().to_owned()));
            query.extend(self.limit.map(|n| ("limit", n.to_string())));
            return self.at.ask("/v1/counts", &query, Output::Counts);
        }
        let show = match self.follow {
            true => |lines| Output::Events { lines, follow: true },
            false => |lines| Output::Events { lines, follow: false },
        };
        self.at.stream("/v1/events", &self.query(), show)
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
        query.extend(self.fits.query());
        if self.follow {
            query.push(("follow", "true".into()));
        }
        query
    }
}

impl Fits {
    pub fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        query.extend(self.event_type.clone().map(|t| ("type", t)));
        query.extend(self.source.clone().map(|s| ("source", s)));
        query.extend(self.origin.clone().map(|o| ("origin", o)));
        query.extend(self.governance.map(|g| {
            let word = g.to_possible_value().expect("no kind is hidden");
            ("governance", word.get_name().to_owned())
        }));
        query.extend(self.condition.clone().map(|c| ("where", c)));
        let at = |moment: &Option<Moment>| moment.as_ref().map(|m| view::rfc3339(m.at));
        query.extend(at(&self.time_after).map(|t| ("time_after", t)));
        query.extend(at(&self.time_before).map(|t| ("time_before", t)));
        query.extend(self.priority.map(|p| {
            let word = match p {
                Priority::Routine => "routine",
                Priority::Urgent => "urgent",
            };
            ("priority", word.to_owned())
        }));
        if self.presence {
            query.push(("presence", "true".into()));
        }
        query
    }

    /// The same question when it is typed again: `15m` is another time then.
    pub fn typed(&self) -> Vec<(&'static str, String)> {
        let mut typed = self.query();
        for (name, text) in &mut typed {
            let moment = match *name {
                "time_after" => &self.time_after,
                "time_before" => &self.time_before,
                _ => &None,
            };
            text.clone_from(moment.as_ref().map_or(&text.clone(), |m| &m.typed));
        }
        typed
    }
}
