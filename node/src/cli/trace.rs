//! `citybrain trace`

use super::{At, Direct, Fail, Output, Through};
use citybrain_shared::view::{self, Answer};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::json;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  citybrain trace 01990f7e-… --node http://city:8080   where is it, and how long did each hop take?
  citybrain trace 01990f7e-… --at chengdu/liucheng     the same, as that street sees it
  citybrain trace --probe --above http://city:8080     send a marked urgent event here and time its way")]
pub struct Trace {
    /// The event's id
    #[arg(required_unless_present = "probe", value_parser = NonEmptyStringValueParser::new())]
    pub id: Option<String>,
    /// Its source: finds it however old it is
    #[arg(long)]
    pub source: Option<String>,
    /// Send an urgent `city.brain.probe` at the node asked, and follow it
    #[arg(long, conflicts_with_all = ["id", "below", "offline"])]
    pub probe: bool,
    /// With --probe: a node above, which can ask everybody on the way: a context's name, or a URL that is asked with the same --token-file, --ca and --cert
    #[arg(long, value_name = "CONTEXT|URL", requires = "probe")]
    pub above: Option<String>,
    #[command(flatten)]
    pub at: At,
}

const PROBE_EVERY: Duration = Duration::from_millis(20);
const PROBE_WAIT: Duration = Duration::from_secs(10);

impl Trace {
    pub fn act(self) -> Result<Output, Fail> {
        match &self.id {
            Some(id) if !self.probe => {
                let query = query(self.source.as_deref(), &self.at);
                self.at.ask(&format!("/v1/trace/{}", view::segment(id)), &query, Output::Trace)
            }
            _ => self.probe(),
        }
    }

    /// A context has a token and certificates of its own; a URL is asked with those that were given here.
    fn above(&self, above: &str) -> Through {
        let Through { within, direct, .. } = &self.at.through;
        let direct = if above.contains("://") {
            Direct { node: Some(above.to_owned()), context: None, data_dir: None, ..direct.clone() }
        } else {
            Direct { context: Some(above.to_owned()), ..Direct::default() }
        };
        Through { direct, below: None, within: *within }
    }

    /// Sends the probe and asks for its way until it has come as far as can be seen.
    fn probe(&self) -> Result<Output, Fail> {
        let node = self.at.node()?;
        let started = Instant::now();
        let id = uuid::Uuid::now_v7().to_string();
        let health: Answer<view::Health> = node.get("/v1/health", &[])?;
        let source = format!("/{}/probe", health.head.node);
        let event = json!({
            "specversion": "1.0", "id": id, "source": source, "type": citybrain_shared::event::PROBE,
            "priority": "urgent", "reach": "city", "data": {"from": health.head.node},
        });
        let _: Answer<view::Accepted> = node.post("/v1/events", &event)?;
        let above = self.above.as_deref().map(|above| self.above(above).node()).transpose()?;
        let asked = above.as_ref().unwrap_or(&node);
        loop {
            let query = [("source", source.clone())];
            let seen: Result<Answer<view::Trace>, Fail> = asked.get(&format!("/v1/trace/{id}"), &query);
            let is_late = started.elapsed() > PROBE_WAIT;
            match seen {
                Ok(answer)
                    if is_late || ["arrived", "passed-on", "missing"].contains(&answer.body.outcome.as_str()) =>
                {
                    return Ok(Output::Trace(answer));
                }
                Err(fail) if is_late || fail.code != 1 => return Err(fail),
                _ => std::thread::sleep(PROBE_EVERY),
            }
        }
    }
}

fn query(source: Option<&str>, at: &At) -> Vec<(&'static str, String)> {
    let mut query: Vec<_> = source.map(|s| ("source", s.to_owned())).into_iter().collect();
    query.extend(super::asking::own_within(at));
    query
}
