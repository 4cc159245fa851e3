//! What becomes of a publish and how far it goes: `[[preset]]`, `[[map]]` and `[[reach]]`.

use super::Judge;
use crate::config::parse::closest;
use crate::config::{Config, Format, Map, Preset, presets};
use crate::{Selector, Tier, event, topic};
use std::fmt::Display;

impl Judge<'_> {
    pub(super) fn presets(&mut self, config: &Config) {
        if self.broken.contains("preset") {
            return;
        }
        for (i, preset) in config.preset.iter().enumerate() {
            let at = |key: &str| format!("preset.{i}.{key}");
            let base = |p: &Preset| presets::find(&p.name).map(|d| p.base.clone().unwrap_or(d.base));
            if presets::find(&preset.name).is_none() {
                let help = match closest(&preset.name, presets::names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", presets::names().collect::<Vec<_>>().join(", ")),
                };
                self.bad(&at("name"), format!("`{}` is no preset", preset.name), help);
            } else if config.preset[..i].iter().any(|p| p.name == preset.name && base(p) == base(preset)) {
                let help = "once is enough; give another `base` where its devices publish in two places";
                self.bad(&at("name"), format!("`{}` is there already", preset.name), help);
            }
            if let Some(base) = &preset.base {
                let first = base.split('/').next().unwrap_or_default();
                if let Err(e) = topic::check_topic(base) {
                    self.bad(&at("base"), format!("`{base}` is no topic: {e}"), "such as `zigbee2mqtt`");
                } else if topic::is_link(&config.link.root, base) || topic::OURS.contains(&first) {
                    let message = "the node itself publishes there; nothing from outside is mapped";
                    self.bad(&at("base"), message, "such as `zigbee2mqtt`");
                }
            }
            self.reach_tier(&at("reach"), preset.reach, config);
        }
    }

    pub(super) fn maps(&mut self, config: &Config, own: usize) {
        if self.broken.contains("map") {
            return;
        }
        if config.broker.url.is_some() {
            let message = "only the embedded broker sees what devices announce, and what they say then";
            self.embedded_only(config, own, |m| m.format == Format::Discovery, message);
            let message =
                "an outside broker does not say which client a message is of: `{client}` would be one for all";
            self.embedded_only(config, own, names_client, message);
        }
        for (i, map) in config.map.iter().take(own).enumerate() {
            let at = |key: &str| format!("map.{i}.{key}");
            self.filter(&at("filter"), &map.filter);
            let first = map.filter.split('/').next().unwrap_or_default();
            if topic::is_link(&config.link.root, &map.filter) || topic::OURS.contains(&first) {
                let message = "the node itself publishes there; nothing from outside is mapped";
                self.bad(&at("filter"), message, "map a topic of devices, such as `in/#`");
            }
            let passes_on = |m: &Map| !m.has.is_empty() || m.is_told_by_dangers();
            let takes_all = |m: &Map| !passes_on(m) && topic::covers(&m.filter, &map.filter);
            if let Some(j) = config.map[..i].iter().position(takes_all) {
                let message = format!("never used: `{}` ({}) comes first", config.map[j].filter, ordinal(j));
                self.bad(&at("filter"), message, "the first filter that matches wins: put the narrower one first");
            }
            self.map_values(map, &at);
            self.reach_tier(&at("reach"), map.reach, config);
            if let Some(target) = map.target.as_deref().filter(|t| !t.contains('{')) {
                self.target(&at("target"), target, config);
            }
        }
    }

    /// `own`: how many maps are the file's; those behind are presets'.
    fn embedded_only(&mut self, config: &Config, own: usize, is: fn(&Map) -> bool, message: &str) {
        let Some(i) = config.map.iter().position(is) else { return };
        let at = if i < own { format!("map.{i}.filter") } else { "broker.url".to_owned() };
        self.bad(&at, message, "map such topics by hand, by what they or their payloads say, or take `broker.url` out");
    }

    fn map_values(&mut self, map: &Map, at: &dyn Fn(&str) -> String) {
        let pointers = map.has.keys().map(|p| ("has", p)).chain(map.dangers.values().flatten().map(|p| ("dangers", p)));
        for (key, pointer) in pointers.filter(|(_, p)| !is_pointer(p)) {
            let help = format!("write `/{}`", pointer.replace('.', "/"));
            self.bad(&at(key), format!("`{pointer}` is no JSON pointer"), help);
        }
        for (danger, _) in map.dangers.iter().filter(|(_, pointers)| pointers.is_empty()) {
            let message = format!("nothing says where the payload tells of {}", danger.name());
            self.bad(&at("dangers"), message, "name JSON pointers, such as `[\"/alarm\"]`, or leave it out");
        }
        if !map.has.is_empty() && map.format == Format::Cloudevents && !map.skip {
            let help = "set `format = \"json\"`, or leave this out";
            self.bad(&at("has"), "a CloudEvents object is taken as it is", help);
        }
        if map.skip {
            return;
        }
        if map.format == Format::Discovery {
            self.discovery(map, at);
            return;
        }
        if map.value.is_some() && !map.data.is_empty() {
            self.bad(&at("data"), "`value` and `data` both say what the data is", "leave one out");
        }
        for pointer in map.data.values().filter(|p| !is_pointer(p) && !p.contains('{')) {
            let help = format!("write `/{}`, or a topic level `{{2}}`", pointer.replace('.', "/"));
            self.bad(&at("data"), format!("`{pointer}` is no JSON pointer"), help);
        }
        for (key, given) in [
            ("dangers", !map.dangers.is_empty()),
            ("data", !map.data.is_empty()),
            ("inner", map.inner.is_some()),
            ("words", !map.words.is_empty()),
        ] {
            if given && map.format == Format::Cloudevents {
                let help = "set `format = \"json\"`, or leave this out";
                self.bad(&at(key), "a CloudEvents object is taken as it is", help);
            }
        }
        if map.format != Format::Cloudevents && map.kind.is_none() && map.dangers.is_empty() {
            self.bad(&at("type"), "a message that is no CloudEvents object needs a type", "add `type = \"…\"`");
        }
        for (key, value) in [("subject", &map.subject), ("time", &map.time), ("value", &map.value), ("id", &map.id)] {
            let Some(value) = value else { continue };
            let template = value.contains('{');
            match (key, map.format) {
                (_, Format::Cloudevents) => {
                    let help = "set `format = \"json\"`, or leave this out";
                    self.bad(&at(key), "a CloudEvents object is taken as it is", help);
                }
                ("subject", _) if template => {}
                (_, Format::Text) => {
                    self.bad(&at(key), "plain text has no members to point at", "leave it out, or `format = \"json\"`");
                }
                _ if !value.starts_with('/') && !value.is_empty() => {
                    let hint = if key == "subject" { ", or a topic level `{2}`" } else { "" };
                    let message = format!("`{value}` is no JSON pointer");
                    self.bad(&at(key), message, format!("write `/{}`{hint}", value.replace('.', "/")));
                }
                _ => {}
            }
        }
        for (key, value, is_good) in
            [("type", &map.kind, event::is_type as fn(&str) -> bool), ("source", &map.source, event::is_source)]
        {
            // What a template fills in is judged when it is: here a letter stands for it.
            let Some(value) = value.as_deref().filter(|v| !is_good(&filled(v))) else { continue };
            let help = match key {
                "type" => "1 to 255 bytes, without `+`, `#`, `/` and blanks, such as `city.air.reading.v1`",
                _ => "1 to 1,024 bytes, without blanks and `\"<>\\^`|`, such as `/air/{2}`",
            };
            self.bad(&at(key), format!("`{value}` can be no event's {key}: every message would be refused"), help);
        }
        let levels = (!map.filter.ends_with('#')).then(|| map.filter.split('/').count());
        for (key, value) in
            [("type", &map.kind), ("subject", &map.subject), ("source", &map.source), ("target", &map.target)]
        {
            let Some(value) = value else { continue };
            for level in value.split('{').skip(1).map(|s| s.split('}').next().unwrap_or_default()) {
                let number = level.strip_suffix("..").unwrap_or(level).parse::<usize>();
                let good = number.is_ok_and(|n| n >= 1 && levels.is_none_or(|max| n <= max));
                if !good && level != "client" {
                    let message = format!("`{{{level}}}` is no level of `{}`", map.filter);
                    self.bad(&at(key), message, "`{1}` is the topic's first level");
                }
            }
        }
    }

    /// What an announced device says has its type, its subject and its data from there.
    fn discovery(&mut self, map: &Map, at: &dyn Fn(&str) -> String) {
        if !map.filter.ends_with("+/+/config") {
            let help = "`homeassistant/+/+/config` and `homeassistant/+/+/+/config`, or `preset = \"discovery\"`";
            self.bad(&at("filter"), format!("`{}` is no place of announcements", map.filter), help);
        }
        for (key, given) in [
            ("dangers", !map.dangers.is_empty()),
            ("type", map.kind.is_some()),
            ("subject", map.subject.is_some()),
            ("time", map.time.is_some()),
            ("value", map.value.is_some()),
            ("data", !map.data.is_empty()),
            ("inner", map.inner.is_some()),
            ("words", !map.words.is_empty()),
            ("id", map.id.is_some()),
            ("source", map.source.is_some()),
            ("priority", map.priority.is_some()),
            ("target", map.target.is_some()),
            ("has", !map.has.is_empty()),
        ] {
            if given {
                let message = "what announced devices say has this from the announcement";
                self.bad(&at(key), message, "leave it out; `reach` is all that an announcement does not say");
            }
        }
    }

    pub(super) fn reaches(&mut self, config: &Config) {
        if self.broken.contains("reach") {
            return;
        }
        for (i, reach) in config.reach.iter().enumerate() {
            let path = format!("reach.{i}.type");
            let stem = reach.kind.strip_suffix('*').unwrap_or(&reach.kind);
            let is_stem = stem.is_empty() || event::is_type(stem);
            if reach.kind.is_empty() || stem.contains('*') || !is_stem {
                self.bad(&path, "a type, or the beginning of one with `*` at its end", "such as `city.air.*`");
            }
            let before = &config.reach[..i];
            if let Some(j) = before
                .iter()
                .position(|r| r.kind.strip_suffix('*').map_or(r.kind == reach.kind, |p| stem.starts_with(p)))
            {
                let message = format!("never used: `{}` ({}) comes first", before[j].kind, ordinal(j));
                self.bad(&path, message, "the first pattern that matches wins: put the narrower one first");
            }
            self.reach_tier(&format!("reach.{i}.tier"), Some(reach.tier), config);
        }
    }

    fn reach_tier(&mut self, path: &str, reach: Option<Tier>, config: &Config) {
        let own = config.node.address.tier();
        if let Some(reach) = reach
            && reach > own
            && !self.broken.contains("node.address")
        {
            let message = format!("{reach} is below this {own} node: events travel upward");
            self.bad(path, message, format!("write `{own}` to keep them here, or a tier above"));
        }
    }

    fn target(&mut self, path: &str, target: &str, config: &Config) {
        match Selector::parse(target) {
            Err(e) => self.bad(path, e.to_string(), ""),
            Ok(s) if !config.node.address.covers(&s.root) && !self.broken.contains("node.address") => {
                let message = format!("{} is not below this node", s.root);
                self.bad(path, message, format!("a node sends only to `{}` and below", config.node.address));
            }
            Ok(_) => {}
        }
    }
}

/// Whether something that it makes depends on who sent it.
fn names_client(map: &Map) -> bool {
    let texts = [&map.kind, &map.subject, &map.source, &map.target].into_iter().flatten();
    texts.chain(map.data.values()).any(|text| text.contains("{client}"))
}

/// A template with a letter in the place of each `{…}`.
fn filled(template: &str) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((_, after)) = behind.split_once('}') else { break };
        out.push_str(before);
        out.push('x');
        rest = after;
    }
    out + rest
}

fn is_pointer(text: &str) -> bool {
    text.is_empty() || text.starts_with('/')
}

fn ordinal(i: usize) -> impl Display {
    format!("entry {}", i + 1)
}
