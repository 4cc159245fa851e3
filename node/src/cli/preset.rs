//! `citybrain preset`: devices from a shop.

use super::render::Ops;
use super::{Fail, Output, Set, own};
use crate::config;
use citybrain_hub::ingress::Ingress;
use citybrain_shared::config::{Config, Variables, closest, presets};
use citybrain_shared::record::{Direction, Kind};
use citybrain_shared::{Lane, view};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Preset {
    /// The presets there are
    List,
    /// What to set at the devices, and what becomes of their messages
    Show {
        /// Such as `zigbee2mqtt`
        name: String,
    },
    /// What a node would make of a message, without a node; 1 if no event
    Try {
        /// The topic that the device publishes on
        topic: String,
        /// What it publishes
        payload: String,
        /// Presets that are in use, as often as needed; default: all
        #[arg(long, value_name = "NAME", conflicts_with = "config")]
        preset: Vec<String>,
        /// The node's own file instead, with all its mappings
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        set: Set,
    },
}

impl Preset {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Preset::List => {
                let all = presets::names().map(|name| Ok(known(name, &find(name)?))).collect::<Result<_, Fail>>()?;
                Ok(Output::Ops(Ops::Presets(own(view::Presets { presets: all }))))
            }
            Preset::Show { name } => {
                let definition = find(&name)?;
                let preset = known(&name, &definition);
                let map = definition.maps(None);
                let shown = view::PresetShown { preset, setup: definition.setup, map };
                Ok(Output::Ops(Ops::Preset(own(shown))))
            }
            Preset::Try { topic, payload, preset, config, set } => {
                let is_any = config.is_none() && preset.is_empty();
                let config = match config {
                    Some(path) => config::load(&path, &set.variables())?,
                    None => with(&preset)?,
                };
                let mut tried = tried(&config, &topic, payload.as_bytes());
                if is_any && tried.outcome == "event" {
                    tried.why = whose(&topic, payload.as_bytes())?;
                }
                Ok(Output::Ops(Ops::Tried(own(tried))))
            }
        }
    }
}

fn find(name: &str) -> Result<presets::Definition, Fail> {
    presets::find(name).ok_or_else(|| {
        let hint = match closest(name, presets::names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`citybrain preset list` shows all".to_owned(),
        };
        Fail::no("not-found", format!("there is no preset `{name}`"), hint)
    })
}

fn known(name: &str, d: &presets::Definition) -> view::PresetKnown {
    view::PresetKnown { name: name.into(), base: d.base.clone(), about: d.about.clone(), rules: d.rules.clone() }
}

/// A neighbourhood with these presets and nothing else.
fn with(names: &[String]) -> Result<Config, Fail> {
    let names: Vec<&str> =
        if names.is_empty() { presets::names().collect() } else { names.iter().map(String::as_str).collect() };
    for name in &names {
        find(name)?;
    }
    let text = format!("preset = {names:?}\n[node]\naddress = \"c/s/m/n\"\ndata = \".\"\n");
    let parsed = citybrain_shared::config::parse(&text, &Variables::new());
    Ok(parsed.config.expect("it has an address and a data folder"))
}

/// Which presets would make an event of it, where that is not one alone: what a node has decides.
fn whose(topic: &str, payload: &[u8]) -> Result<Option<String>, Fail> {
    let mut all = Vec::new();
    for name in presets::names() {
        let made = tried(&with(&[name.to_owned()])?, topic, payload);
        all.extend((made.outcome == "event").then_some(name));
    }
    let (Some(first), true) = (all.first(), all.len() > 1) else { return Ok(None) };
    let others = all[1..].join("`, `");
    Ok(Some(format!(
        "so says preset `{first}`; `{others}` takes it, too: `--preset NAME` or `--config FILE` says what a node has"
    )))
}

fn tried(config: &Config, topic: &str, payload: &[u8]) -> view::Tried {
    let none =
        |outcome: &str, why| view::Tried { outcome: outcome.into(), why, event: None, urgent: false, reach: None };
    let ingress = Ingress::new(config);
    match ingress.announces(topic, payload) {
        None => {}
        Some(Err(refusal)) => return none("refused", Some(format!("{}: {}", refusal.reason, refusal.detail))),
        Some(Ok(announces)) => {
            let outcome = if announces.parts.is_empty() { "message" } else { "announcement" };
            let left_out = announces.left_out.into_iter().map(|why| format!("left out: {why}"));
            let lines: Vec<String> = announces.parts.into_iter().chain(left_out).collect();
            return none(outcome, (!lines.is_empty()).then(|| lines.join("\n")));
        }
    }
    let draft = match ingress.again("client", topic, payload) {
        Err(refusal) => return none("refused", Some(format!("{}: {}", refusal.reason, refusal.detail))),
        Ok(draft) => draft,
    };
    match draft {
        Some(draft) if draft.header().kind == Kind::Event => {
            let header = draft.header();
            view::Tried {
                outcome: "event".into(),
                why: None,
                event: serde_json::from_slice(draft.payload()).ok(),
                urgent: header.lane == Lane::Urgent,
                reach: (header.direction == Direction::Up).then_some(header.reach),
            }
        }
        _ => none("message", None),
    }
}
