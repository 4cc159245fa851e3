//! `citybrain alarm`

use super::asking::Wait;
use super::{At, Direct, Fail, Output};
use citybrain_shared::config::rules::Severity;
use citybrain_shared::{Address, view};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Alarm {
    /// Those that are active, worst first
    ///
    /// Nodes below that are not heard are named below the list: what is raised there is missing here. Of one farther
    /// down its parent says so, within some seconds a tier.
    List(List),
    /// One, with all that is known of it
    Show {
        /// The alarm's id, or enough of it, or its name as the list shows it, in quotes if it has a blank:
        /// 'smoke/hall /CITY/STREET/zigbee2mqtt/hall', or without the source behind it: smoke/hall
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        #[command(flatten)]
        at: At,
    },
    /// Somebody has seen it
    Ack(Act),
    /// It is over, whatever its rule says
    Clear(Act),
    /// Out of sight for a while
    Shelve {
        #[command(flatten)]
        act: Act,
        /// For how long: `30m`, `8h`, `2d`; `0` takes it off the shelf
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = seconds)]
        for_s: u64,
    },
}

#[derive(Debug, Args)]
pub struct List {
    /// This severity and worse
    #[arg(long, value_parser = severity)]
    pub severity: Option<Severity>,
    /// Also those that are over
    #[arg(long)]
    pub all: bool,
    /// Only those that nobody has acknowledged
    #[arg(long)]
    pub unacknowledged: bool,
    /// Only of this node and below
    #[arg(long, value_parser = Address::parse)]
    pub address: Option<Address>,
    /// Only those of this name
    #[arg(long)]
    pub name: Option<String>,
    /// Also those that are on the shelf
    #[arg(long)]
    pub shelved: bool,
    /// At most this many, 1 to 5000
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub limit: usize,
    /// Goes on behind the page that named this as its next
    #[arg(long, value_name = "PLACE")]
    pub after: Option<String>,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Act {
    /// The alarm's id, or enough of it, or its name as the list shows it, in quotes if it has a blank:
    /// 'smoke/hall /CITY/STREET/zigbee2mqtt/hall', or without the source behind it: smoke/hall
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Who does it [default: the user of this shell]
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    pub by: String,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub at: Direct,
}

impl Alarm {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Alarm::List(l) => {
                let mut query = vec![("limit", l.limit.to_string()), ("active", (!l.all).to_string())];
                query.extend(l.severity.map(|s| ("severity", s.as_str().to_owned())));
                query.extend(l.unacknowledged.then(|| ("acknowledged", "false".to_owned())));
                query.extend(l.address.map(|a| ("address", a.to_string())));
                query.extend(l.name.map(|n| ("name", n)));
                query.extend(l.after.map(|a| ("after", a)));
                query.push(("shelved", l.shelved.to_string()));
                l.at.ask("/v1/alarms", &query, Output::Alarms)
            }
            Alarm::Show { id, at } => {
                at.node()?.get(&format!("/v1/alarms/{}", view::segment(&id)), &[]).map(Output::Alarm)
            }
            Alarm::Ack(act) => act.post("ack", None),
            Alarm::Clear(act) => act.post("clear", None),
            Alarm::Shelve { act, for_s } => act.post("shelve", Some(for_s)),
        }
    }
}

impl Act {
    fn post(self, action: &str, for_s: Option<u64>) -> Result<Output, Fail> {
        let body = view::AlarmAction { by: self.by, for_s };
        let node = self.at.node()?;
        let answer =
            node.post::<view::AlarmShown>(&format!("/v1/alarms/{}/{action}", view::segment(&self.id)), &body)?;
        let path = format!("/v1/alarms/{}", view::segment(&answer.body.alarm.id));
        let answer = node.until(&path, answer, self.wait.time(), |shown| shown.alarm.asked.is_some())?;
        let alarm = &answer.body.alarm;
        let (is_open, is_refused) = (alarm.asked.is_some(), alarm.refused(action, &body.by).is_some());
        let shown = self.wait.shown(Output::Alarm(answer), is_open);
        Ok(if is_refused { Output::Refused(Box::new(shown)) } else { shown })
    }
}

fn severity(text: &str) -> Result<Severity, String> {
    let known = || format!("use one of {}", Severity::ALL.map(Severity::as_str).join(", "));
    Severity::parse(text).ok_or_else(known)
}

fn seconds(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    citybrain_shared::config::rules::Duration::parse(text).map(|d| d.us() as u64 / 1_000_000)
}
