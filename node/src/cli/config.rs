//! `citybrain config`: what a file or a running node's config amounts to.

use super::confirm::Yes;
use super::render::Ops;
use super::{At, Fail, Output, Set, Through, own};
use crate::api::ops::shown;
use crate::config;
use citybrain_shared::config::{Config as Parsed, Variables};
use citybrain_shared::view::{self, Answer, ConfigDifference};
use clap::Subcommand;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Config {
    /// What a running node's config, or a file's, says beside the defaults; passwords are left out
    Show {
        /// With every default
        #[arg(long)]
        effective: bool,
        /// A file instead of a running node
        #[arg(long, value_name = "FILE", conflicts_with_all = ["data_dir", "below", "offline"])]
        config: Option<PathBuf>,
        #[command(flatten)]
        set: Set,
        #[command(flatten)]
        at: At,
    },
    /// Put the rules, services, scenes, categories and calendar of a running node's config file in force, all or
    /// none; all else in it waits for a start
    Reload {
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        at: Through,
    },
    /// How a running node's config differs from a file's: what a restart would change; 1 if anything
    Diff {
        /// The node's config file
        file: PathBuf,
        #[command(flatten)]
        set: Set,
        #[command(flatten)]
        at: At,
    },
}

impl Config {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Config::Show { effective, config, set, at } => {
                let mut answer: Answer<view::ConfigShown> = match config {
                    Some(path) => {
                        let config = config::load(&path, &set.variables())?;
                        own(view::ConfigShown { effective: true, config: shown(&config), calendar: None })
                    }
                    None => at.node()?.get("/v1/config", &[])?,
                };
                if !effective {
                    answer.body.effective = false;
                    strip(&mut answer.body.config, &defaults());
                }
                Ok(Output::Ops(Ops::ConfigShown(answer)))
            }
            Config::Reload { yes, at } => reload(&at, &yes),
            Config::Diff { file, set, at } => {
                let parsed = config::load(&file, &set.variables())?;
                let running: Answer<view::ConfigShown> = at.node()?.get("/v1/config", &[])?;
                let differences = diff(&running.body.config, &shown(&parsed));
                Ok(Output::Ops(Ops::ConfigDiff(Answer::new(
                    &running.head.node,
                    running.head.as_of,
                    view::ConfigDiff { differences },
                ))))
            }
        }
    }
}

/// `config reload` and `rule reload`.
pub(super) fn reload(at: &Through, yes: &Yes) -> Result<Output, Fail> {
    let node = at.node()?;
    let place = node.place();
    yes.confirm(&format!(
        "The node at {place} reads its config file again and goes by its rules, services, scenes, categories and calendar \
         from now on. Who did it is recorded."
    ))?;
    node.post("/v1/reload", &serde_json::json!({})).map(Output::Reloaded)
}

/// A config in which only what has no default is set; its `node` counts as said.
fn defaults() -> Value {
    let parsed: Option<Parsed> =
        citybrain_shared::config::parse("[node]\naddress = \"x\"\ndata = \"x\"\n", &Variables::new()).config;
    let mut value = parsed.as_ref().map(shown).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("node");
    }
    value
}

/// Takes out what is as in `defaults`.
fn strip(value: &mut Value, defaults: &Value) {
    let Some(map) = value.as_object_mut() else { return };
    map.retain(|key, v| {
        let default = defaults.get(key).unwrap_or(&Value::Null);
        if v.is_object() {
            strip(v, default);
            return v.as_object().is_some_and(|m| !m.is_empty());
        }
        v != default && v.as_array().is_none_or(|a| !a.is_empty())
    });
}

fn diff(running: &Value, file: &Value) -> Vec<ConfigDifference> {
    let (mut a, mut b) = (BTreeMap::new(), BTreeMap::new());
    flatten("", running, &mut a);
    flatten("", file, &mut b);
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    keys.into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| ConfigDifference { key: key.clone(), running: a.get(key).cloned(), file: b.get(key).cloned() })
        .collect()
}

fn flatten(key: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    let under = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, v)| flatten(&under(name), v, out)),
        Value::Array(all) => all.iter().enumerate().for_each(|(i, v)| flatten(&under(&i.to_string()), v, out)),
        scalar => drop(out.insert(key.to_owned(), scalar.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(more: &str) -> Value {
        let text = format!("{more}\n[node]\naddress = \"c\"\ndata = \"d\"\n");
        shown(&citybrain_shared::config::parse(&text, &Variables::new()).config.unwrap())
    }

    #[test]
    fn without_its_defaults_a_config_says_what_its_file_says() {
        let mut v = value("[store]\nkeep_s = 7\n");
        assert_eq!(v["store"]["cache_bytes"], 4 * 1024 * 1024);
        strip(&mut v, &defaults());
        assert_eq!(v["store"], serde_json::json!({"keep_s": 7}));
        assert_eq!(v["node"]["address"], "c");
        assert!(v.get("broker").is_none() && v.get("map").is_none(), "{v}");
        assert!(toml::to_string(&value("")).unwrap().contains("[store]"));
    }

    #[test]
    fn a_difference_has_its_key_and_both_sides() {
        let map = "[[map]]\nfilter = \"a/#\"\nformat = \"json\"\ntype = \"t\"\n";
        let got = diff(&value("[store]\nkeep_s = 7\n"), &value(&format!("[store]\nkeep_s = 8\n{map}")));
        let keep = got.iter().find(|d| d.key == "store.keep_s").unwrap();
        assert_eq!((keep.running.as_deref(), keep.file.as_deref()), (Some("7"), Some("8")));
        assert!(got.iter().any(|d| d.key == "map.0.filter" && d.running.is_none()));
        assert_eq!(diff(&value(""), &value("")), []);
    }
}
