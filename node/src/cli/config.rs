//! `citybrain config`: what a file or a running node's config amounts to.

use super::confirm::Yes;
use super::render::Ops;
use super::{At, Fail, Output, Set, Through, own};
use crate::api::ops::shown;
use crate::config;
use citybrain_shared::Address;
use citybrain_shared::config::{Config as Parsed, Preset, Variables, presets};
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

/// A config in which only what has no default is set.
fn bare() -> Option<Parsed> {
    citybrain_shared::config::parse("[node]\naddress = \"x\"\ndata = \"x\"\n", &Variables::new()).config
}

/// That one, as it is shown; its `node` counts as said.
fn defaults() -> Value {
    let mut value = bare().as_ref().map(shown).unwrap_or_default();
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

/// What tells the entries of a list apart, for the lists whose entries have such a thing.
const NAMED: [(&str, &str); 10] = [
    ("category", "code"),
    ("listener", "listen"),
    ("map", "filter"),
    ("preset", "name"),
    ("reach", "type"),
    ("role", "name"),
    ("rule", "name"),
    ("scene", "code"),
    ("service", "code"),
    ("webhook", "name"),
];

fn diff(running: &Value, file: &Value) -> Vec<ConfigDifference> {
    let (mut running, mut file) = (without_presets(running), without_presets(file));
    let (mut a, mut b) = (BTreeMap::new(), BTreeMap::new());
    for (list, name) in NAMED {
        let take = |of: &mut Value| of.as_object_mut().and_then(|m| m.remove(list)).unwrap_or_default();
        compare(list, name, (entries(take(&mut running)), entries(take(&mut file))), (&mut a, &mut b));
    }
    flatten("", &running, &mut a);
    flatten("", &file, &mut b);
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    keys.into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| ConfigDifference { key: key.clone(), running: a.get(key).cloned(), file: b.get(key).cloned() })
        .collect()
}

fn entries(list: Value) -> Vec<Value> {
    if let Value::Array(all) = list { all } else { Vec::new() }
}

/// Two lists by what their entries name, so that one more in front makes no other of those behind it. What is the
/// same on both sides is left out, unless its order is another one.
fn compare(
    list: &str,
    name: &str,
    (running, file): (Vec<Value>, Vec<Value>),
    (a, b): (&mut BTreeMap<String, String>, &mut BTreeMap<String, String>),
) {
    let (same, running) = parted(running, &file);
    let (same_there, file) = parted(file, &same);
    if same != same_there {
        let names = |of: &[Value]| of.iter().map(|entry| spelled(&entry[name])).collect::<Vec<_>>().join(", ");
        let whole = |of: &[Value]| Value::from(of).to_string();
        // Several may have one name.
        let told = |of: &[Value]| if names(&same) == names(&same_there) { whole(of) } else { names(of) };
        a.insert(format!("{list} (order)"), told(&same));
        b.insert(format!("{list} (order)"), told(&same_there));
    }
    let (running, file) = (named(list, name, running), named(list, name, file));
    for (these, others, out) in [(&running, &file, a), (&file, &running, b)] {
        for (key, entry) in these {
            // One that only one side has is told in a line.
            if others.contains_key(key) {
                flatten(key, entry, out);
            } else {
                out.insert(key.clone(), entry.to_string());
            }
        }
    }
}

/// Those of `all` that `others` has too, each as often as it is there, and the rest.
fn parted(all: Vec<Value>, others: &[Value]) -> (Vec<Value>, Vec<Value>) {
    let mut left: Vec<&Value> = others.iter().collect();
    all.into_iter().partition(|entry| {
        let found = left.iter().position(|other| *other == entry);
        found.map(|at| left.remove(at)).is_some()
    })
}

/// By `LIST.NAME`; the second of one name by `LIST.NAME (2)`.
fn named(list: &str, name: &str, all: Vec<Value>) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for entry in all {
        let key = format!("{list}.{}", spelled(&entry[name]));
        let next = (2..).map(|n| format!("{key} ({n})"));
        let free = std::iter::once(key.clone()).chain(next).find(|key| !found.contains_key(key));
        found.extend(free.map(|key| (key, entry)));
    }
    found
}

fn spelled(name: &Value) -> String {
    name.as_str().map_or_else(|| name.to_string(), str::to_owned)
}

/// Without what its presets bring: `preset` says it.
fn without_presets(config: &Value) -> Value {
    let mut rest = config.clone();
    let wanted: Option<Vec<Preset>> = serde_json::from_value(config["preset"].clone()).ok();
    let address = config["node"]["address"].as_str().and_then(|address| Address::parse(address).ok());
    let (Some(wanted), Some(address)) = (wanted, address) else { return rest };
    let (map, rule) = presets::brought(&wanted, address.tier());
    let brought = bare().map(|bare| shown(&Parsed { map, rule, ..bare })).unwrap_or_default();
    let of = |list: &str| brought[list].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(Value::Array(maps)) = rest.get_mut("map")
        && maps.ends_with(of("map"))
    {
        maps.truncate(maps.len() - of("map").len());
    }
    if let Some(Value::Array(rules)) = rest.get_mut("rule") {
        rules.retain(|rule| !of("rule").contains(rule));
    }
    rest
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
        assert!(got.iter().any(|d| d.key == "map.a/#" && d.running.is_none()));
        assert_eq!(diff(&value(""), &value("")), []);
    }

    #[test]
    fn entries_are_compared_by_what_they_name_and_those_of_presets_by_the_preset() {
        let keys = |running: &str, file: &str| {
            diff(&value(running), &value(file)).into_iter().map(|d| d.key).collect::<Vec<_>>()
        };
        let map = |filter: &str, kind: &str| {
            format!("[[map]]\nfilter = \"{filter}\"\nformat = \"json\"\ntype = \"{kind}\"\n")
        };
        let [one, two, three] = [map("a", "t"), map("b", "t"), map("b", "u")];
        let presets = |names: &str, more: &str| value(&format!("preset = [{names}]\n{more}"));
        let changed = diff(&presets("\"thingsboard\"", ""), &presets("\"tasmota\"", ""));
        assert_eq!(
            changed.iter().map(|d| d.key.as_str()).collect::<Vec<_>>(),
            ["preset.tasmota", "preset.thingsboard"]
        );
        let fronted = diff(&presets("\"tasmota\"", &two), &presets("\"tasmota\"", &format!("{one}{two}")));
        assert_eq!(fronted.len(), 1, "{fronted:?}");
        assert_eq!((fronted[0].key.as_str(), &fronted[0].running), ("map.a", &None));
        assert_eq!(keys(&two, &three), ["map.b.type"]);
        assert_eq!(keys(&format!("{two}{three}"), &format!("{one}{three}{two}")), ["map (order)", "map.a"]);
        assert_eq!(keys(&format!("{one}{two}"), &format!("{two}{one}")), ["map (order)"]);
        assert_eq!(keys(&two, &format!("{two}{two}")), ["map.b"]);
    }
}
