//! Mappings and rules for devices from a shop, by name: data, in `config/presets/`.
//!
//! A preset's filters, and the levels `{1}`, `{2}`, … of its templates, are counted from its base.
//! [`expand`] makes plain `[[map]]` and `[[rule]]` entries of those that a file puts to use; nothing
//! behind this module knows of presets.

use super::rules::{Action, Rule};
use super::{Config, Map, Preset};
use crate::address::Tier;
use serde::Deserialize;
use std::borrow::Cow;

/// Name and text of every preset there is.
const ALL: [(&str, &str); 11] = [
    ("alink", include_str!("../../../config/presets/alink.toml")),
    ("chirpstack", include_str!("../../../config/presets/chirpstack.toml")),
    ("discovery", include_str!("../../../config/presets/discovery.toml")),
    ("esphome", include_str!("../../../config/presets/esphome.toml")),
    ("homeassistant", include_str!("../../../config/presets/homeassistant.toml")),
    ("huawei", include_str!("../../../config/presets/huawei.toml")),
    ("onenet", include_str!("../../../config/presets/onenet.toml")),
    ("shelly", include_str!("../../../config/presets/shelly.toml")),
    ("tasmota", include_str!("../../../config/presets/tasmota.toml")),
    ("thingsboard", include_str!("../../../config/presets/thingsboard.toml")),
    ("zigbee2mqtt", include_str!("../../../config/presets/zigbee2mqtt.toml")),
];

const RULES: &str = include_str!("../../../config/presets/rules.toml");

/// A preset as its file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Which devices, in a line.
    pub about: String,
    /// What to set at the devices, for people.
    pub setup: Vec<String>,
    /// Topic levels before those of its filters; empty: none.
    #[serde(default)]
    pub base: String,
    /// Names of the rules that it brings.
    pub rules: Vec<String>,
    pub map: Vec<Map>,
}

pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// The preset of this name, and `None` when there is none.
pub fn find(name: &str) -> Option<Definition> {
    let (_, text) = ALL.iter().find(|(n, _)| *n == name)?;
    Some(toml::from_str(text).expect("a test reads every preset"))
}

/// The rules that presets bring, each once, in the order of their file.
fn rules() -> Vec<Rule> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        rule: Vec<Rule>,
    }
    toml::from_str::<File>(RULES).expect("a test reads the rules").rule
}

impl Definition {
    /// Its mappings as a file would write them out, with their filters below `base`.
    pub fn maps(&self, base: Option<&str>) -> Vec<Map> {
        let base = base.unwrap_or(&self.base);
        let depth = if base.is_empty() { 0 } else { base.split('/').count() };
        let place = |map: &Map| {
            let mut map = map.clone();
            if depth > 0 {
                map.filter = format!("{base}/{}", map.filter);
            }
            for text in [&mut map.kind, &mut map.subject, &mut map.source, &mut map.target].into_iter().flatten() {
                *text = deeper(text, depth).into_owned();
            }
            let data = std::mem::take(&mut map.data);
            map.data = data.iter().map(|(k, v)| (deeper(k, depth).into(), deeper(v, depth).into())).collect();
            // Readings of a household are nobody's business elsewhere; alarms and cases climb.
            map.reach = map.reach.or(Some(Tier::Neighbourhood));
            map
        };
        self.map.iter().map(place).collect()
    }

    /// The rules that it brings, for a node of this tier.
    pub fn rules(&self, tier: Tier) -> Vec<Rule> {
        rules().into_iter().filter(|r| self.rules.contains(&r.name)).map(|r| at(r, tier)).collect()
    }
}

/// Puts what the presets stand for behind the file's own entries, which so come first: a rule of the
/// file's own that has the name of a preset's stands in its place. Unknown names are passed over.
pub(super) fn expand(wanted: &[Preset], tier: Tier, maps: &mut Vec<Map>, rules: &mut Vec<Rule>) {
    for preset in wanted {
        let Some(definition) = find(&preset.name) else { continue };
        let base = preset.base.as_deref().unwrap_or(&definition.base);
        // Who has it in two places may have devices of one name there.
        let is_one_of_several = wanted.iter().filter(|other| other.name == preset.name).count() > 1;
        let place = |mut map: Map| {
            map.reach = preset.reach.or(map.reach);
            if is_one_of_several && !base.is_empty() {
                match map.subject.as_mut() {
                    Some(subject) if !subject.starts_with('/') => *subject = format!("{base}/{subject}"),
                    _ => map.below = Some(base.to_owned()),
                }
            }
            map
        };
        maps.extend(definition.maps(Some(base)).into_iter().map(place));
        if preset.rules {
            let fresh = definition.rules(tier).into_iter().filter(|r| rules.iter().all(|own| own.name != r.name));
            let fresh: Vec<Rule> = fresh.collect();
            rules.extend(fresh);
        }
    }
}

/// What these presets bring to a node of this tier whose file has nothing of its own.
pub fn brought(wanted: &[Preset], tier: Tier) -> (Vec<Map>, Vec<Rule>) {
    let (mut maps, mut rules) = (Vec::new(), Vec::new());
    expand(wanted, tier, &mut maps, &mut rules);
    (maps, rules)
}

/// Is it a rule that a preset brings to a node of this tier, word for word?
pub fn brings(rule: &Rule, tier: Tier) -> bool {
    rules().into_iter().any(|brought| at(brought, tier) == *rule)
}

/// No alarm is seen lower than it is raised.
fn at(mut rule: Rule, tier: Tier) -> Rule {
    for action in &mut rule.then {
        if let Action::Raise(raise) = action {
            raise.reach = raise.reach.min(tier);
        }
    }
    rule
}

/// Filters of topics that begin with `$`, which `#` does not cover, each once: `$oc/#`.
pub(super) fn dollar_filters(maps: &[Map]) -> Vec<String> {
    let first = |m: &Map| Some(format!("{}/#", m.filter.split('/').next()?));
    let mut all: Vec<String> = maps.iter().filter(|m| m.filter.starts_with('$')).filter_map(first).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What keeps messages or alarms from a preset of the file, a sentence each: the file's own entries that
/// come before it, its rules that do less than those in whose place they stand, and topics that nobody may
/// publish to.
pub fn unseen(config: &Config) -> Vec<String> {
    let wanted = || config.preset.iter().filter_map(|p| Some((p, find(&p.name)?.maps(p.base.as_deref()))));
    let own = config.map.len().saturating_sub(wanted().map(|(_, maps)| maps.len()).sum());
    let mut told = Vec::new();
    let all: Vec<_> = wanted().collect();
    for (i, (later, maps)) in all.iter().enumerate() {
        // A filter that ends in `#` covers more than its devices send.
        let listens = |m: &&Map| !m.skip && !m.filter.ends_with('#');
        // The same one twice is said where it stands.
        for (first, earlier) in all[..i].iter().filter(|(first, _)| first.name != later.name) {
            let takes = |m: &&Map| !m.skip && maps.iter().filter(listens).any(|of| takes_from(&m.filter, &of.filter));
            if let Some(taken) = earlier.iter().find(takes) {
                told.push(format!(
                    "`{}` of preset `{}` takes messages before preset `{}`, whose events then do not come; \
                     name `{1}` behind `{2}` if that is not meant",
                    taken.filter, first.name, later.name
                ));
            }
        }
    }
    told.extend(replaced(config));
    for (preset, maps) in all {
        // Who names a whole topic, or skips, has decided so.
        let wide = |m: &Map| !m.skip && m.filter.contains(['+', '#']);
        for (i, first) in config.map[..own].iter().enumerate().filter(|(_, m)| wide(m)) {
            if maps.iter().any(|m| !m.skip && takes_from(&first.filter, &m.filter)) {
                told.push(format!(
                    "`{}` (`[[map]]`, entry {}) takes messages before preset `{}`, whose alarms then do not come; \
                     give it `has` or another filter if that is not meant",
                    first.filter,
                    i + 1,
                    preset.name
                ));
            }
        }
        let lists = || config.role.iter().map(|r| &r.publish).chain(&config.access.publish).flatten();
        for filter in dollar_filters(&maps).iter().filter(|_| config.broker.url.is_none()) {
            let stem = filter.trim_end_matches('#');
            if !lists().any(|allowed| allowed.starts_with(stem)) {
                told.push(format!(
                    "nobody may publish what preset `{}` listens to: name `{filter}` in a `publish` of `[access]` or of a role",
                    preset.name
                ));
            }
        }
    }
    told
}

/// Rules of the file that stand in the place of a preset's, and look at less or keep devices apart otherwise.
fn replaced(config: &Config) -> Vec<String> {
    let tier = config.node.address.tier();
    let brought = config.preset.iter().filter(|p| p.rules).filter_map(|p| Some((p, find(&p.name)?.rules(tier))));
    let mut told: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    for (preset, rule) in brought.flat_map(|(preset, rules)| rules.into_iter().map(move |rule| (preset, rule))) {
        let Some(own) = config.rule.iter().find(|own| own.name == rule.name) else { continue };
        if seen.contains(&rule.name) {
            continue;
        }
        seen.push(rule.name.clone());
        let unheard: Vec<&str> =
            rule.on.iter().filter(|kind| !own.on.iter().any(|on| covers(on, kind))).map(String::as_str).collect();
        let less = match unheard.as_slice() {
            [] if own.by == rule.by => continue,
            [] => format!("and keeps apart by `{}`, not by `{}`", by(own), by(&rule)),
            unheard => format!("and does not look at `{}`", unheard.join("`, `")),
        };
        told.push(format!(
            "the rule `{0}` of the file stands in the place of that of preset `{1}`, {less}; give it another name, or \
             what `citybrain preset show {1}` shows, if that is not meant",
            rule.name, preset.name
        ));
    }
    told
}

fn by(rule: &Rule) -> &str {
    rule.by.as_deref().unwrap_or_default()
}

/// Does a type, or what types begin with and `*`, stand for all that another stands for?
fn covers(on: &str, kind: &str) -> bool {
    on.strip_suffix('*').map_or(on == kind, |stem| kind.starts_with(stem))
}

/// Are there topics that both filters match? Where one has a word in the first level and the other a
/// wildcard, the word was chosen: `in/#` takes nothing from `+/status`.
fn takes_from(own: &str, preset: &str) -> bool {
    let (mut a, mut b) = (own.split('/'), preset.split('/'));
    match (a.next(), b.next()) {
        (Some("#" | "+"), Some(first)) if first.starts_with('$') => return false,
        (Some("#"), _) => return true,
        (Some("+"), Some(_)) => {}
        (Some(word), Some(first)) if word == first => {}
        _ => return false,
    }
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(x), Some(y)) if x == y || x == "+" || y == "+" => {}
            _ => return false,
        }
    }
}

/// `{2}` and `{2..}` of a template, `depth` levels further down.
fn deeper(text: &str, depth: usize) -> Cow<'_, str> {
    if depth == 0 || !text.contains('{') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 4);
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        out.push_str(before);
        out.push('{');
        let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        match behind[..digits].parse::<usize>() {
            Ok(n) => out.push_str(&(n + depth).to_string()),
            Err(_) => out.push_str(&behind[..digits]),
        }
        rest = &behind[digits..];
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::super::{Variables, all_keys, parse};
    use super::*;

    fn file(top: &str, more: &str) -> String {
        format!("{top}\n[node]\naddress = \"c/s/m/n\"\ndata = \"d\"\n{more}\n")
    }

    fn problems(text: &str) -> Vec<String> {
        parse(text, &Variables::new()).problems.iter().map(|p| p.message.clone()).collect()
    }

    #[test]
    fn every_preset_reads_and_its_mappings_stand_the_judgement_of_a_file_that_writes_them_out() {
        for name in names() {
            let definition = find(name).unwrap();
            assert!(!definition.about.is_empty() && !definition.setup.is_empty() && !definition.map.is_empty());
            assert!(definition.rules.iter().all(|r| rules().iter().any(|known| known.name == *r)), "{name}");
            let maps = definition.maps(None);
            #[derive(serde::Serialize)]
            struct Written {
                map: Vec<serde_json::Value>,
            }
            let spelled = |map: &Map| {
                let mut json = serde_json::to_value(map).unwrap();
                json.as_object_mut().unwrap().retain(|_, v| !v.is_null());
                json
            };
            let written = Written { map: maps.iter().map(spelled).collect() };
            let text = file("", &toml::to_string(&written).unwrap());
            assert_eq!(problems(&text), Vec::<String>::new(), "{name}");
        }
        assert!(all_keys().iter().any(|(section, _)| *section == "preset"));
    }

    #[test]
    fn a_name_at_the_top_is_enough_and_sections_say_more() {
        for top in ["preset = \"zigbee2mqtt\"", "preset = [\"zigbee2mqtt\"]", "[[preset]]\nname = \"zigbee2mqtt\""] {
            let parsed = parse(&file(top, ""), &Variables::new());
            assert!(parsed.problems.is_empty(), "{top}: {:?}", parsed.problems);
            let config = parsed.config.unwrap();
            assert_eq!(config.map[0].filter, "zigbee2mqtt/bridge/state");
            assert!(config.rule.iter().any(|r| r.name == "smoke"));
            assert!(config.map.iter().all(|m| m.reach == Some(Tier::Neighbourhood)));
        }
        let top = "[[preset]]\nname = \"zigbee2mqtt\"\nbase = \"site/z2m\"\nreach = \"street\"\nrules = false";
        let config = parse(&file(top, ""), &Variables::new()).config.unwrap();
        let sos = config.map.iter().find(|m| m.filter == "site/z2m/sos/#").unwrap();
        assert_eq!((sos.subject.as_deref(), sos.reach), (Some("{3..}"), Some(Tier::Street)));
        assert!(config.rule.is_empty());
    }

    #[test]
    fn the_file_s_own_entries_come_first_and_its_own_rule_stands_for_a_preset_s() {
        let own = "[[map]]\nfilter = \"zigbee2mqtt/door\"\nformat = \"json\"\ntype = \"my.door\"\n\
                   [[rule]]\nname = \"smoke\"\non = [\"x\"]\n[[rule.then]]\nclear = {}\n";
        let config = parse(&file("preset = \"zigbee2mqtt\"", own), &Variables::new()).config.unwrap();
        assert_eq!(config.map[0].filter, "zigbee2mqtt/door");
        let smoke: Vec<_> = config.rule.iter().filter(|r| r.name == "smoke").collect();
        assert!(smoke.len() == 1 && smoke[0].on == ["x"]);
    }

    #[test]
    fn what_is_wrong_with_a_preset_has_its_place_and_a_help() {
        let text = file("preset = [\"zigbee2mqt\", \"tasmota\", \"tasmota\"]", "");
        let parsed = parse(&text, &Variables::new());
        let shown: Vec<String> = parsed
            .problems
            .iter()
            .map(|p| format!("{:?} {} ({})", p.line_column(&text), p.message, p.help.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(
            shown,
            [
                "Some((1, 11)) `zigbee2mqt` is no preset (did you mean `zigbee2mqtt`?)",
                "Some((1, 36)) `tasmota` is there already (once is enough; give another `base` where its devices publish in two places)",
            ]
        );
        let found = problems(&file("[[preset]]\nname = \"tasmota\"\nbase = \"a/+\"", ""));
        assert_eq!(found, ["`a/+` is no topic: a topic to publish to may not contain `+` or `#`"]);
        let late = "[node]\naddress = \"c\"\ndata = \"d\"\npreset = \"tasmota\"\n";
        let help = parse(late, &Variables::new()).problems[0].help.clone().unwrap();
        assert!(help.contains("before the first"), "{help}");
        assert_eq!(problems(&file("preset = 3", "")), ["`preset` is a list"]);
    }

    #[test]
    fn topics_that_begin_with_a_dollar_are_opened_where_everybody_may_publish() {
        let config = parse(&file("preset = [\"huawei\", \"onenet\"]", ""), &Variables::new()).config.unwrap();
        assert_eq!(config.access.publish.unwrap(), ["#", "$oc/#", "$sys/#"]);
        let closed = "[access]\nanonymous = false\nusers_file = \"u\"\n";
        let config = parse(&file("preset = \"huawei\"", closed), &Variables::new()).config.unwrap();
        assert_eq!(config.access.publish.unwrap(), [""; 0]);
    }

    #[test]
    fn who_may_publish_everything_may_publish_what_a_preset_listens_to() {
        let given = "[access]\npublish = [\"#\"]\n[[role]]\nname = \"all\"\npublish = [\"#\"]\n\
                     [[role]]\nname = \"few\"\npublish = [\"in/#\"]\n";
        let config = parse(&file("preset = \"huawei\"", given), &Variables::new()).config.unwrap();
        let roles: Vec<&[String]> = config.role.iter().map(|r| r.publish.as_slice()).collect();
        assert_eq!(config.access.publish.clone().unwrap(), ["#", "$oc/#"]);
        assert_eq!(roles, [["#".to_owned(), "$oc/#".into()].as_slice(), &["in/#".into()]]);
        assert_eq!(unseen(&config), [""; 0]);
    }

    #[test]
    fn what_a_preset_does_not_get_to_see_is_told() {
        let told = |top: &str, more: &str| unseen(&parse(&file(top, more), &Variables::new()).config.unwrap());
        let own = |filter: &str, more: &str| {
            format!("[[map]]\nfilter = \"{filter}\"\nformat = \"json\"\ntype = \"my.door\"\n{more}")
        };
        for filter in ["zigbee2mqtt/+", "zigbee2mqtt/#", "+/kitchen", "#", "zigbee2mqtt/hall/+"] {
            let found = told("preset = \"zigbee2mqtt\"", &own(filter, ""));
            assert!(found.len() == 1 && found[0].contains("entry 1) takes messages before"), "{filter}: {found:?}");
        }
        for filter in ["zigbee2mqtt/door", "acme/+", "in/#", "other/#"] {
            assert_eq!(told("preset = \"zigbee2mqtt\"", &own(filter, "")), [""; 0], "{filter}");
        }
        assert_eq!(told("preset = \"zigbee2mqtt\"", &own("zigbee2mqtt/+", "skip = true\n")), [""; 0]);
        assert_eq!(told("preset = [\"esphome\", \"shelly\"]", &own("in/#", "")), [""; 0]);
        let found = told("preset = [\"esphome\", \"homeassistant\"]", "");
        assert!(found.len() == 1 && found[0].contains("name `esphome` behind `homeassistant`"), "{found:?}");
        assert_eq!(told("preset = [\"homeassistant\", \"esphome\"]", ""), [""; 0]);
        assert_eq!(told("preset = [\"zigbee2mqtt\", \"zigbee2mqtt\"]", ""), [""; 0]);
        assert_eq!(told("preset = [\"zigbee2mqtt\", \"tasmota\", \"shelly\", \"esphome\"]", ""), [""; 0]);
        assert_eq!(told("preset = \"huawei\"", &own("#", "")), [""; 0], "a wildcard covers no `$`");
        let closed = "[access]\npublish = [\"in/#\"]\n";
        let found = told("preset = \"huawei\"", closed);
        assert!(found.len() == 1 && found[0].contains("name `$oc/#` in"), "{found:?}");
        let open = "[access]\npublish = [\"in/#\", \"$oc/devices/#\"]\n";
        assert_eq!(told("preset = \"huawei\"", open), [""; 0]);
    }

    #[test]
    fn a_rule_of_the_file_that_does_less_than_the_preset_s_in_whose_place_it_stands_is_told() {
        let told = |on: &str, by: &str| {
            let own = format!("[[rule]]\nname = \"smoke\"\non = {on}\nby = \"{by}\"\n[[rule.then]]\nraise = {{}}\n");
            let parsed = parse(&file("preset = [\"zigbee2mqtt\", \"tasmota\"]", &own), &Variables::new());
            unseen(&parsed.config.unwrap())
        };
        let (all, apart) = ("[\"city.*\"]", "event.subject + ' ' + event.source");
        assert_eq!(told(all, apart), [""; 0]);
        let found = told(all, "event.subject");
        assert!(found.len() == 1 && found[0].contains("keeps apart by `event.subject`, not by"), "{found:?}");
        let found = told("[\"city.smoke.*\"]", apart);
        assert!(found.len() == 1 && found[0].contains("does not look at `city.gas.reading`, "), "{found:?}");
        assert!(
            found[0].starts_with("the rule `smoke` of the file stands in the place of that of preset `zigbee2mqtt`")
        );
    }

    #[test]
    fn the_examples_leave_every_preset_its_messages_and_alarms() {
        for text in [
            include_str!("../../../config/city.toml"),
            include_str!("../../../config/street.toml"),
            include_str!("../../../config/community.toml"),
            include_str!("../../../config/neighbourhood.toml"),
        ] {
            for name in names() {
                let config = parse(&format!("preset = \"{name}\"\n{text}"), &Variables::new()).config.unwrap();
                assert_eq!(unseen(&config), [""; 0], "{name} in {}", config.node.address);
            }
        }
    }

    #[test]
    fn a_rule_s_alarm_reaches_no_lower_than_its_node() {
        let city = find("zigbee2mqtt").unwrap().rules(Tier::City);
        let reaches = city.iter().flat_map(|r| &r.then).filter_map(|a| match a {
            Action::Raise(raise) => Some(raise.reach),
            _ => None,
        });
        assert!(reaches.into_iter().all(|reach| reach == Tier::City));
    }
}
