//! From a file's text to a [`Config`], with every problem that is in it, not only the first.
//!
//! serde stops at its first error. So: unknown keys are found by walking the parsed table against
//! the keys that each section's type knows; then each section is read by itself, what does not fit
//! is noted and taken out, and the section is read again until it fits.

use super::{Config, Variables, validate};
use serde::de::{self, DeserializeOwned};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// Something wrong in a config file, as data: whoever shows it has the file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub message: String,
    /// Bytes of the file's text.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    pub fn new(message: impl Into<String>, span: Option<Range<usize>>, help: impl Into<String>) -> Problem {
        let help = help.into();
        Problem { message: message.into(), span, help: (!help.is_empty()).then_some(help) }
    }

    /// Line and column of the problem in `text`, both from 1; the column counts characters.
    pub fn line_column(&self, text: &str) -> Option<(usize, usize)> {
        let before = text.get(..self.span.as_ref()?.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some((line, column))
    }
}

/// Where each key and its value stand in the text, by path: `broker.listen`, `map.0.filter`.
#[derive(Clone, Debug, Default)]
pub struct Places {
    by_path: BTreeMap<String, (Range<usize>, Range<usize>)>,
    /// As [`Reading::broken`].
    broken: BTreeSet<String>,
}

impl Places {
    /// The value's span; for a key that is not in the file the span of the section's head.
    pub fn value(&self, path: &str) -> Option<Range<usize>> {
        match self.by_path.get(path) {
            Some((_, value)) => Some(value.clone()),
            None => path.rsplit_once('.').and_then(|(section, _)| self.key(section)),
        }
    }

    pub fn key(&self, path: &str) -> Option<Range<usize>> {
        self.by_path.get(path).map(|(key, _)| key.clone())
    }

    pub fn contains(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    /// Is it there, but its value could not be read? That is a problem already, and that it is missing is none.
    pub fn is_broken(&self, path: &str) -> bool {
        self.broken.contains(path)
    }
}

/// A path when that entry of the list is not there: of those behind it one less, of the entry itself none.
fn without_entry(path: &str, list: &str, entry: usize) -> Option<String> {
    let Some(behind) = path.strip_prefix(list).and_then(|rest| rest.strip_prefix('.')) else {
        return Some(path.to_owned());
    };
    let (number, rest) = behind.split_at(behind.find('.').unwrap_or(behind.len()));
    match number.parse::<usize>() {
        Ok(n) if n == entry => None,
        Ok(n) if n > entry => Some(format!("{list}.{}{rest}", n - 1)),
        _ => Some(path.to_owned()),
    }
}

/// What a text holds.
#[derive(Debug)]
pub struct Parsed {
    /// There unless a required value is missing or unreadable. Only without problems may a node
    /// start from it; with some it still tells a tree check who this node is.
    pub config: Option<Config>,
    /// In the order of the text.
    pub problems: Vec<Problem>,
    pub places: Places,
}

/// Reads a config file's text.
///
/// `${NAME}` in any string value is replaced from `variables` first. All problems are reported,
/// except that a file that is no TOML has only its syntax errors.
pub fn parse(text: &str, variables: &Variables) -> Parsed {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut reading =
        Reading { text, variables, problems: Vec::new(), places: Places::default(), broken: BTreeSet::new() };
    if !errors.is_empty() {
        let problem = |e: &toml::de::Error| {
            let is_twice = e.message() == "duplicate key";
            let help = if is_twice { "it stands further up already: write it once" } else { "" };
            Problem::new(sentence(e.message()), e.span(), help)
        };
        let problems = errors.iter().map(problem).collect();
        return Parsed { config: None, problems, places: reading.places };
    }
    let mut root = root.into_inner();
    reading.walk(&mut root, "");
    reading.unknown_keys(&mut root, "", fields_of::<Config>());

    let node = match root.remove("node") {
        Some(value) => reading.section(value, "node"),
        None => {
            let help = "add `[node]` with at least `address = \"…\"` and `data = \"…\"`";
            reading.problems.push(Problem::new("the file has no `[node]`", None, help));
            None
        }
    };
    let broker: super::Broker = reading.optional(&mut root, "broker").unwrap_or_default();
    let listener: Vec<super::Listener> = reading.list(&mut root, "listener");
    let parent = reading.optional(&mut root, "parent");
    let link = reading.optional(&mut root, "link").unwrap_or_default();
    let store = reading.optional(&mut root, "store").unwrap_or_default();
    let api = reading.optional(&mut root, "api").unwrap_or_default();
    let log = reading.optional(&mut root, "log").unwrap_or_default();
    let runtime = reading.optional(&mut root, "runtime").unwrap_or_default();
    let mut access: super::Access = reading.optional(&mut root, "access").unwrap_or_default();
    let mut role: Vec<super::Role> = reading.list(&mut root, "role");
    reading.preset_names(&mut root);
    let preset: Vec<super::Preset> = reading.list(&mut root, "preset");
    let mut map: Vec<super::Map> = reading.list(&mut root, "map");
    let reach = reading.list(&mut root, "reach");
    let mut rule: Vec<super::rules::Rule> = reading.list(&mut root, "rule");
    let category = reading.list(&mut root, "category");
    let calendar: Option<super::cases::Calendar> = reading.optional(&mut root, "calendar");
    let cases = reading.optional(&mut root, "cases").unwrap_or_default();
    let service = reading.list(&mut root, "service");
    let scene = reading.list(&mut root, "scene");
    let cap = reading.optional(&mut root, "cap").unwrap_or_default();
    let open311 = reading.optional(&mut root, "open311").unwrap_or_default();
    let webhook = reading.list(&mut root, "webhook");
    let homeassistant = reading.optional(&mut root, "homeassistant").unwrap_or_default();
    let read_from = None;
    let own_maps = map.len();
    let tier = node.as_ref().map_or(crate::Tier::City, |n: &super::Node| n.address.tier());
    super::presets::expand(&preset, tier, &mut map, &mut rule);
    if !reading.places.contains("access.anonymous") {
        let doors = std::iter::once(broker.listen).chain(listener.iter().map(|l| l.listen));
        access.anonymous = doors.clone().all(|d| d.ip().is_loopback());
    }
    let unless_given = access.unless_given();
    access.subscribe.get_or_insert_with(|| unless_given.clone());
    // Who may publish everything may also publish what a preset listens to.
    let dollar = super::presets::dollar_filters(&map[own_maps..]);
    let publish = access.publish.get_or_insert(unless_given);
    for list in role.iter_mut().map(|r| &mut r.publish).chain([publish]).filter(|l| l.iter().any(|f| f == "#")) {
        let missing: Vec<String> = dollar.iter().filter(|d| !list.contains(d)).cloned().collect();
        list.extend(missing);
    }
    let config = node.map(|node| Config {
        node,
        broker,
        listener,
        parent,
        link,
        store,
        api,
        log,
        runtime,
        access,
        role,
        preset,
        map,
        reach,
        rule,
        category,
        calendar,
        cases,
        service,
        scene,
        cap,
        open311,
        webhook,
        homeassistant,
        read_from,
    });

    let Reading { mut problems, mut places, broken, .. } = reading;
    if let Some(config) = &config {
        problems.extend(validate::validate(config, own_maps, &places, &broken));
    }
    problems.sort_by_key(|p| p.span.as_ref().map_or(0, |s| s.start));
    let lacks = |path: &str| broken.contains(path);
    let whole = !lacks("node.address") && !lacks("node.data") && !lacks("parent.url");
    places.broken = broken;
    Parsed { config: config.filter(|_| whole), problems, places }
}

struct Reading<'t> {
    text: &'t str,
    variables: &'t Variables,
    problems: Vec<Problem>,
    places: Places,
    /// Paths whose value could not be read; what stands in for them must not be judged.
    broken: BTreeSet<String>,
}

impl<'t> Reading<'t> {
    fn push(&mut self, message: impl Into<String>, span: Range<usize>, help: impl Into<String>) {
        self.problems.push(Problem::new(message, Some(span), help));
    }

    /// Notes where everything stands, and fills in the variables.
    fn walk(&mut self, table: &mut DeTable<'t>, above: &str) {
        for (key, value) in table.iter_mut() {
            let path = join(above, key.get_ref());
            self.places.by_path.insert(path.clone(), (key.span(), value.span()));
            self.walk_value(value, &path);
        }
    }

    fn walk_value(&mut self, value: &mut Spanned<DeValue<'t>>, path: &str) {
        let span = value.span();
        match value.get_mut() {
            DeValue::Table(t) => self.walk(t, path),
            DeValue::Array(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    let path = format!("{path}.{i}");
                    let span = item.span();
                    self.places.by_path.insert(path.clone(), (span.clone(), span));
                    self.walk_value(item, &path);
                }
            }
            // In a rule `${…}` is an expression, filled in when the rule fires.
            DeValue::String(s) if s.contains("${") && !path.starts_with("rule.") => match self.substitute(s, span) {
                Some(filled) => *s = Cow::Owned(filled),
                None => {
                    self.broken.insert(path.to_owned());
                }
            },
            _ => {}
        }
    }

    /// The text with its variables filled in; `None`, and a problem each, when one is not known.
    fn substitute(&mut self, text: &str, span: Range<usize>) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        let mut good = true;
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let Some(len) = rest[at..].find('}') else {
                self.push("`${` without `}`", span, "write `${NAME}`");
                return None;
            };
            let name = &rest[at + 2..at + len];
            match self.variables.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    good = false;
                    let literal = &rest[at..=at + len];
                    let place = match self.text[span.clone()].find(literal) {
                        Some(i) => span.start + i..span.start + i + literal.len(),
                        None => span.clone(),
                    };
                    let mut help = format!("give it with `--set {name}=VALUE`");
                    if let Some(near) = closest(name, self.variables.keys().map(String::as_str)) {
                        help = format!("did you mean `${{{near}}}`? else {help}");
                    }
                    self.push(format!("variable `{name}` is not set"), place, help);
                }
            }
            rest = &rest[at + len + 1..];
        }
        out.push_str(rest);
        good.then_some(out)
    }

    fn unknown_keys(&mut self, table: &mut DeTable<'t>, section: &str, known: &'static [&'static str]) {
        let unknown: Vec<(String, Range<usize>)> = table
            .iter()
            .filter(|(key, _)| !known.contains(&key.get_ref().as_ref()))
            .map(|(key, _)| (key.get_ref().to_string(), key.span()))
            .collect();
        for (key, span) in unknown {
            table.remove(key.as_str());
            let place = if section.is_empty() { String::new() } else { format!(" in `[{section}]`") };
            let help = match closest(&key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => match home_of(&key) {
                    Some(home) => format!("`{key}` belongs in `[{home}]`"),
                    None if key == "preset" => {
                        "`preset = …` stands at the file's top, before the first `[section]`".into()
                    }
                    None => format!("known here: {}", known.join(", ")),
                },
            };
            self.push(format!("unknown key `{key}`{place}"), span, help);
        }
    }

    /// Names of presets, alone or in a list, become entries.
    fn preset_names(&mut self, root: &mut DeTable<'t>) {
        let Some(value) = root.get_mut("preset") else { return };
        let span = value.span();
        let entry = |name: Spanned<DeValue<'t>>| {
            let span = name.span();
            let table = DeTable::from_iter([(Spanned::new(span.clone(), Cow::Borrowed("name")), name)]);
            Spanned::new(span, DeValue::Table(table))
        };
        if let DeValue::String(name) = value.get_ref() {
            let name = Spanned::new(span.clone(), DeValue::String(name.clone()));
            self.places.by_path.insert("preset.0".into(), (span.clone(), span));
            *value.get_mut() = DeValue::Array([entry(name)].into_iter().collect());
        } else if let DeValue::Array(items) = value.get_mut() {
            for item in items.iter_mut().filter(|i| matches!(i.get_ref(), DeValue::String(_))) {
                *item = entry(item.clone());
            }
        }
    }

    fn optional<T: DeserializeOwned>(&mut self, root: &mut DeTable<'t>, name: &str) -> Option<T> {
        let value = root.remove(name)?;
        self.section(value, name)
    }

    fn list<T: DeserializeOwned>(&mut self, root: &mut DeTable<'t>, name: &str) -> Vec<T> {
        let Some(value) = root.remove(name) else { return Vec::new() };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(items) => {
                let mut all = Vec::new();
                for item in items {
                    match self.section(item, &format!("{name}.{}", all.len())) {
                        Some(entry) => all.push(entry),
                        None => self.leave_out(name, all.len()),
                    }
                }
                all
            }
            _ => {
                self.push(format!("`{name}` is a list"), span, format!("write `[[{name}]]` above its keys"));
                Vec::new()
            }
        }
    }

    /// An entry could not be read: what is judged later counts without it.
    fn leave_out(&mut self, list: &str, entry: usize) {
        let moved = |path: String| without_entry(&path, list, entry);
        let places = std::mem::take(&mut self.places.by_path);
        self.places.by_path = places.into_iter().filter_map(|(path, at)| Some((moved(path)?, at))).collect();
        self.broken = std::mem::take(&mut self.broken).into_iter().filter_map(moved).collect();
    }

    /// One section, read again and again without what does not fit. `None` when it is no section
    /// at all, which is then a problem.
    fn section<T: DeserializeOwned>(&mut self, mut value: Spanned<DeValue<'t>>, path: &str) -> Option<T> {
        let name = path.split('.').next().unwrap_or(path).to_owned();
        let head = self.places.key(path).unwrap_or(value.span());
        match value.get_mut() {
            DeValue::Table(table) => self.unknown_keys(table, &name, fields_of::<T>()),
            _ => {
                self.push(format!("`{name}` is a section"), head, format!("write `[{name}]` above its keys"));
                return None;
            }
        }
        // Each round takes one key out or puts one in, so a section cannot need more.
        for _ in 0..2 * fields_of::<T>().len() + 1 {
            let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
                Ok(section) => return Some(section),
                Err(e) => e,
            };
            let DeValue::Table(table) = value.get_mut() else { return None };
            let at = error.span().map(|s| s.start);
            let culprit = at.and_then(|at| {
                table.iter().find_map(|(k, v)| {
                    let inner = innermost(k, v, at)?;
                    Some((k.get_ref().to_string(), inner.to_owned()))
                })
            });
            if let (Some(key), None) = (missing_field(error.message()), &culprit) {
                let key_path = join(path, &key);
                if self.broken.insert(key_path) {
                    self.push(format!("`[{name}]` has no `{key}`"), head.clone(), format!("add `{key} = …`"));
                }
                let stand_in = stand_in(&key)?;
                let spanned = |text| Spanned::new(head.clone(), Cow::Borrowed(text));
                let key: &'static str = fields_of::<T>().iter().find(|f| **f == key)?;
                table.insert(spanned(key), Spanned::new(head.clone(), DeValue::String(Cow::Borrowed(stand_in))));
                continue;
            }
            let Some((key, inner)) = culprit else {
                self.push(sentence(error.message()), error.span().unwrap_or(head), "");
                return None;
            };
            let span = error.span().unwrap_or(head.clone());
            if self.broken.insert(join(path, &key)) {
                let (message, help) = match missing_field(error.message()) {
                    Some(lacking) => {
                        (format!("`{inner}` has no `{lacking}`"), format!("write `{lacking} = …` into it"))
                    }
                    None => {
                        let written = self.text.get(span.clone()).unwrap_or_default();
                        unread(&inner, written, &sentence(error.message()))
                    }
                };
                self.push(message, span, help);
            }
            table.remove(key.as_str());
        }
        None
    }
}

/// The innermost key, from this one on, at that place of the text. What `[[a.b]]` holds stands behind it, and not
/// within it.
fn innermost<'k>(key: &'k Spanned<Cow<'_, str>>, value: &'k Spanned<DeValue<'_>>, at: usize) -> Option<&'k str> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => table.iter().find_map(|(k, v)| innermost(k, v, at)),
        DeValue::Array(items) => items.iter().find_map(|item| innermost(key, item, at).filter(|k| *k != key.get_ref())),
        _ => None,
    };
    let is_here = || key.span().contains(&at) || value.span().contains(&at) || in_entries(value, at);
    inner.or_else(|| is_here().then(|| key.get_ref().as_ref()))
}

/// Is it within one of the entries of a list?
fn in_entries(value: &Spanned<DeValue<'_>>, at: usize) -> bool {
    matches!(value.get_ref(), DeValue::Array(items) if items.iter().any(|item| item.span().contains(&at)))
}

fn join(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

/// toml's messages may have several lines; the first says it.
fn sentence(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().to_owned()
}

fn missing_field(message: &str) -> Option<String> {
    Some(message.strip_prefix("missing field `")?.split('`').next()?.to_owned())
}

/// A value that lets the rest of a section be read when a required key is not there.
fn stand_in(key: &str) -> Option<&'static str> {
    Some(match key {
        "address" => "x",
        "data" => ".",
        "url" => "mqtt://x:1",
        "listen" => "127.0.0.1:0",
        "protocol" => "mqtt",
        "name" => "x",
        "filter" => "#",
        "type" => "x",
        "tier" => "city",
        "code" => "x",
        _ => return None,
    })
}

/// What is wrong with a value, and what to write: serde and toml say it in the words of a program. `written` is what
/// stands there.
fn unread(key: &str, written: &str, said: &str) -> (String, String) {
    let words: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
    let named = ["unknown variant", "unknown field"].iter().any(|head| said.starts_with(head));
    let typed = ["invalid type: ", "invalid value: "].iter().find_map(|head| said.strip_prefix(head));
    let typed = typed.and_then(|typed| typed.rsplit_once(", expected "));
    let (what, help) = match (words.split_first(), typed) {
        (Some((wrong, known)), _) if named => match closest(wrong, known.iter().copied()) {
            Some(near) => (said.to_owned(), format!("did you mean `{near}`?")),
            None => (said.to_owned(), format!("use one of {}", known.join(", "))),
        },
        (_, Some((is, wanted))) => (value(is, written), kind(wanted)),
        _ if said.starts_with("wanted exactly 1 element") => match said.ends_with("found 0 elements") {
            true => ("an entry says nothing".to_owned(), "write what it does into it".to_owned()),
            false => ("an entry says several things".to_owned(), "write an entry for each".to_owned()),
        },
        _ if said == "wanted string or table" => ("is no word".to_owned(), "write one in quotes".to_owned()),
        _ => (said.to_owned(), String::new()),
    };
    let help = match key {
        "listen" => "write `IP:PORT`, such as `127.0.0.1:1883`; `0.0.0.0:1883` listens on all networks".to_owned(),
        _ => help,
    };
    (format!("`{key}`: {what}"), help)
}

/// A value, as somebody who writes TOML calls it: serde has `integer `7`` and `string "x"`.
fn value(said: &str, written: &str) -> String {
    let is = match said {
        "sequence" => "a list".to_owned(),
        // So toml hands over a time without quotes.
        "map" if written.starts_with(|c: char| c.is_ascii_digit()) => "a time without quotes".to_owned(),
        "map" => "a table".to_owned(),
        _ => match said.strip_prefix("string ") {
            Some(text) => format!("the text {text}"),
            None => said.split('`').nth(1).map_or_else(|| said.to_owned(), |plain| format!("`{plain}`")),
        },
    };
    format!("is {is}")
}

/// What to write instead.
fn kind(wanted: &str) -> String {
    let is_number = |first: char| wanted.strip_prefix(first).is_some_and(|bits| bits.parse::<u8>().is_ok());
    let kind = match wanted {
        "a boolean" => "`true` or `false`, without quotes",
        "a string" => "a text in quotes",
        "a sequence" => "a list, in `[` and `]`; of tables, each under its own `[[…]]`",
        "a map" => "a table of names and values, in `{` and `}` or under `[…]`",
        "usize" | "a nonzero usize" => "a whole number, without quotes or unit",
        _ if is_number('u') || is_number('i') || wanted.starts_with("a nonzero ") => {
            "a whole number, without quotes or unit"
        }
        _ if is_number('f') => "a number, without quotes or unit",
        _ if wanted.starts_with("struct ") => "a table of names and values, in `{` and `}` or under `[…]`",
        _ => return String::new(),
    };
    format!("write {kind}")
}

/// The section in which a key is known that stands in the wrong one.
fn home_of(key: &str) -> Option<&'static str> {
    all_keys().into_iter().find(|(section, keys)| !section.is_empty() && keys.contains(&key)).map(|(s, _)| s)
}

/// Every section with its keys, as the types know them; the file's own level is `""`.
pub fn all_keys() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("", fields_of::<Config>()),
        ("node", fields_of::<super::Node>()),
        ("broker", fields_of::<super::Broker>()),
        ("listener", fields_of::<super::Listener>()),
        ("parent", fields_of::<super::Parent>()),
        ("link", fields_of::<super::Link>()),
        ("store", fields_of::<super::Store>()),
        ("api", fields_of::<super::Api>()),
        ("log", fields_of::<super::LogOutput>()),
        ("runtime", fields_of::<super::Runtime>()),
        ("access", fields_of::<super::Access>()),
        ("role", fields_of::<super::Role>()),
        ("preset", fields_of::<super::Preset>()),
        ("map", fields_of::<super::Map>()),
        ("reach", fields_of::<super::Reach>()),
        ("rule", fields_of::<super::rules::Rule>()),
        ("category", fields_of::<super::cases::Category>()),
        ("calendar", fields_of::<super::cases::Calendar>()),
        ("cases", fields_of::<super::cases::Cases>()),
        ("service", fields_of::<super::services::Service>()),
        ("scene", fields_of::<super::services::Scene>()),
        ("cap", fields_of::<super::cap::Cap>()),
        ("open311", fields_of::<super::Open311>()),
        ("webhook", fields_of::<super::Webhook>()),
        ("homeassistant", fields_of::<super::HomeAssistant>()),
    ]
}

/// What a rule is made of: its window and every action, with their keys.
pub fn rule_keys() -> Vec<(&'static str, &'static [&'static str])> {
    use super::rules::{Case, Clear, Directive, Emit, Raise, Window};
    vec![
        ("window", fields_of::<Window>()),
        ("raise", fields_of::<Raise>()),
        ("clear", fields_of::<Clear>()),
        ("emit", fields_of::<Emit>()),
        ("case", fields_of::<Case>()),
        ("command", fields_of::<Directive>()),
        ("notice", fields_of::<Directive>()),
    ]
}

/// The candidate that was probably meant: the nearest, if a third of it or less is different; or else the
/// nearest that only goes on.
pub fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let all: Vec<(usize, &str)> = candidates.map(|c| (distance(word, c), c)).collect();
    let nearest = |fits: &dyn Fn(&str) -> bool| all.iter().filter(|(_, c)| fits(c)).min_by_key(|(d, _)| *d);
    // `listn` for `listen`.
    let near = nearest(&|_| true)?;
    let longest = word.chars().count().max(near.1.chars().count());
    if near.0 * 3 <= longest {
        return Some(near.1);
    }
    // `resend_after` for `resend_after_ms`, `zigbee` for `zigbee2mqtt`.
    let goes_on = nearest(&|c| c.starts_with(word) && word.len() >= 4)?;
    Some(goes_on.1)
}

/// How many letters must be put in, taken out, changed, or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// The keys that a struct's derived `Deserialize` knows. serde hands them to the deserializer, so
/// no second list has to be kept in step.
fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields = Fields(&[]);
    let _ = T::deserialize(&mut fields);
    fields.0
}

struct Fields(&'static [&'static str]);

impl<'de> de::Deserializer<'de> for &mut Fields {
    type Error = de::value::Error;

    fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("only structs have fields"))
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        with(text, &Variables::new())
    }

    #[test]
    fn what_was_meant_is_the_nearest_or_what_only_goes_on() {
        let names = ["alink", "tasmota", "zigbee2mqtt", "resend_after_ms", "listen"];
        let meant = |word: &str| closest(word, names.into_iter());
        assert_eq!(meant("listn"), Some("listen"));
        assert_eq!(meant("resend_after"), Some("resend_after_ms"));
        assert_eq!(meant("zigbee"), Some("zigbee2mqtt"));
        assert_eq!((meant("zig"), meant("knx")), (None, None));
    }

    /// Each problem as `LINE:COLUMN message (help)`.
    fn with(text: &str, variables: &Variables) -> Vec<String> {
        let show = |p: &Problem| {
            let at = p.line_column(text).map_or("-".into(), |(l, c)| format!("{l}:{c}"));
            let help = p.help.as_ref().map_or(String::new(), |h| format!(" ({h})"));
            format!("{at} {}{help}", p.message)
        };
        parse(text, variables).problems.iter().map(show).collect()
    }

    const GOOD: &str =
        "[node]\naddress = \"chengdu/liucheng\"\ndata = \"./data\"\n[parent]\nurl = \"mqtt://127.0.0.1:2883\"\n";

    #[test]
    fn what_lacks_within_an_entry_is_told_at_its_place_and_nothing_behind_it_moves() {
        let text = r#"[node]
address = "c"
data = "d"
[[rule]]
name = "first"
on = ["t"]
then = [{ raise = { severity = "major" } }]
[[rule]]
on = ["t"]
[[rule.then]]
raise = { severity = "major" }
[[service]]
code = "b"
name = "Y"
form = [{ label = "x" }]
[[scene]]
[[webhook]]
name = "first"
[[webhook]]
name = "Second"
url = "http://h"
"#;
        assert_eq!(
            problems(text),
            [
                "7:19 `raise` has no `title` (write `title = …` into it)",
                "8:1 `[rule]` has no `name` (add `name = …`)",
                "11:9 `raise` has no `title` (write `title = …` into it)",
                "15:9 `form` has no `name` (write `name = …` into it)",
                "16:1 `[scene]` has no `code` (add `code = …`)",
                "17:1 `[webhook]` has no `url` (add `url = …`)",
                "20:8 `Second` is no name (1 to 60 of `a-z`, `0-9`, `-`)",
            ]
        );
    }

    #[test]
    fn a_small_file_is_enough() {
        assert_eq!(problems(GOOD), Vec::<String>::new());
        let config = parse(GOOD, &Variables::new()).config.unwrap();
        assert_eq!(config.node.address.as_str(), "chengdu/liucheng");
        assert_eq!(config.broker.listen.port(), 1883);
    }

    #[test]
    fn all_problems_are_told_at_once_each_with_its_place() {
        let text = r#"
[node]
adress = "chengdu"
address = "chengdu/LIU"
tier = "streat"

[broker]
listen = "localhost:1883"
connections_max = "many"
resend_after_ms = 5

[link]
resend_after = 500
enrol = "manul"

[colour]
x = 1
"#;
        assert_eq!(
            problems(text),
            [
                "2:2 `[node]` has no `data` (add `data = …`)",
                "3:1 unknown key `adress` in `[node]` (did you mean `address`?)",
                "4:11 `address`: `chengdu/LIU` is not an address: it needs 1 to 4 segments separated by `/`, each of a-z, 0-9 and `-`, at most 63 long, not starting with `-`",
                "5:8 `tier`: unknown variant `streat`, expected one of `city`, `street`, `community`, `neighbourhood` (did you mean `street`?)",
                "8:10 `listen`: invalid socket address syntax (write `IP:PORT`, such as `127.0.0.1:1883`; `0.0.0.0:1883` listens on all networks)",
                "9:19 `connections_max`: is the text \"many\" (write a whole number, without quotes or unit)",
                "10:1 unknown key `resend_after_ms` in `[broker]` (`resend_after_ms` belongs in `[link]`)",
                "13:1 unknown key `resend_after` in `[link]` (did you mean `resend_after_ms`?)",
                "14:9 `enrol`: unknown variant `manul`, expected `auto` or `manual` (did you mean `manual`?)",
                "16:2 unknown key `colour` (known here: node, broker, listener, parent, link, store, api, log, runtime, access, role, preset, map, reach, rule, category, calendar, cases, service, scene, cap, open311, webhook, homeassistant)",
            ]
        );
    }

    #[test]
    fn a_value_of_another_kind_is_told_in_words_of_whoever_wrote_it() {
        let told = |more: &str| {
            let text = format!("[node]\naddress = \"c\"\ndata = \"d\"\n{more}");
            problems(&text).join("; ")
        };
        let rule = "[[rule]]\nname = \"a\"\non = [\"t\"]\n";
        let table = "write a table of names and values, in `{` and `}` or under `[…]`";
        let list = "write a list, in `[` and `]`; of tables, each under its own `[[…]]`";
        for (more, said) in [
            ("labels = 3", format!("4:10 `labels`: is `3` ({table})")),
            ("labels = {a = {b = 1}}", "4:15 `a`: is a table (write a text in quotes)".to_owned()),
            ("[access]\npublish = \"x\"", format!("5:11 `publish`: is the text \"x\" ({list})")),
            ("[access]\nanonymous = \"yes\"", "5:13 `anonymous`: is the text \"yes\" (write `true` or `false`, without quotes)".into()),
            ("[log]\nlevel = [\"info\"]", "5:9 `level`: is a list (write a text in quotes)".into()),
            ("[log]\nformat = 1", "5:10 `format`: is no word (write one in quotes)".into()),
            ("[broker]\nconnections_max = -1", "5:19 `connections_max`: is `-1` (write a whole number, without quotes or unit)".into()),
            ("[store]\nkeep_s = {}", "5:10 `keep_s`: is a table (write a whole number, without quotes or unit)".into()),
            ("[api]\nlisten = 8080", "5:10 `listen`: is `8080` (write `IP:PORT`, such as `127.0.0.1:1883`; `0.0.0.0:1883` listens on all networks)".into()),
            ("[[service]]\ncode = \"a\"\nname = \"b\"\nstarts = 2026-01-01T00:00:00Z", "7:10 `starts`: is a time without quotes (write a text in quotes)".into()),
            ("[node]", "4:2 duplicate key (it stands further up already: write it once)".into()),
        ] {
            assert_eq!(told(more), said, "{more}");
        }
        for (then, said) in [
            ("then = \"x\"", format!("`then`: is the text \"x\" ({list})")),
            ("[[rule.then]]", "`then`: an entry says nothing (write what it does into it)".to_owned()),
            ("[[rule.then]]\nclear = 1", format!("`clear`: is `1` ({table})")),
            ("[[rule.then]]\nraise = {title = \"x\"}\nclear = {}", "`then`: an entry says several things (write an entry for each)".into()),
            ("[[rule.then]]\nraise = {title = \"x\", titel = \"y\"}", "`titel`: unknown field `titel`, expected one of `alarm`, `key`, `severity`, `title`, `reach` (did you mean `title`?)".into()),
        ] {
            let told = told(&format!("{rule}{then}"));
            assert!(told.contains(&said), "{told}\n{said}");
        }
    }

    #[test]
    fn a_word_deep_in_a_list_that_is_not_known_hides_nothing_else() {
        let rule = |then: &str| {
            format!("[node]\naddress = \"c\"\ndata = \"d\"\n[[rule]]\nname = \"a\"\non = [\"t\"]\nquiet = 3\n{then}\n")
        };
        let raise = "raise = { title = \"x\", reach = \"stret\" }";
        for then in [format!("[[rule.then]]\n{raise}"), format!("then = [{{ {raise} }}]")] {
            let parsed = parse(&rule(&then), &Variables::new());
            let told: Vec<String> = parsed
                .problems
                .iter()
                .map(|p| format!("{} ({})", p.message, p.help.clone().unwrap_or_default()))
                .collect();
            assert!(
                told.iter()
                    .any(|t| t.starts_with("`reach`: unknown variant `stret`")
                        && t.ends_with("(did you mean `street`?)")),
                "{told:?}"
            );
            assert!(told.iter().any(|t| t.starts_with("`quiet`")), "{told:?}");
            assert_eq!(parsed.config.unwrap().rule.len(), 1, "the rule is there to be judged further");
        }
    }

    #[test]
    fn syntax_errors_are_all_told_and_nothing_else_is_guessed() {
        let found = problems("[node]\naddress = \ndata = \nnonsense = 1\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("2:") && found[1].starts_with("3:"), "{found:?}");
    }

    #[test]
    fn variables_are_filled_in_and_an_unknown_one_is_pointed_at() {
        let text = "[node]\naddress = \"chengdu\"\ndata = \"${ROOT}/city\"\n[broker]\nlisten = \"127.0.0.1:${PROT}\"\n";
        let variables = Variables::from([("ROOT".into(), "/d".into()), ("PORT".into(), "7".into())]);
        assert_eq!(
            with(text, &variables)[0],
            "5:21 variable `PROT` is not set (did you mean `${PORT}`? else give it with `--set PROT=VALUE`)"
        );
        let good = text.replace("PROT", "PORT");
        let config = parse(&good, &variables).config.unwrap();
        assert_eq!((config.node.data.to_str().unwrap(), config.broker.listen.port()), ("/d/city", 7));
    }

    #[test]
    fn a_file_without_a_node_says_so() {
        assert_eq!(
            problems("[api]\n"),
            ["- the file has no `[node]` (add `[node]` with at least `address = \"…\"` and `data = \"…\"`)"]
        );
        assert_eq!(problems("node = 3\n"), ["1:1 `node` is a section (write `[node]` above its keys)"]);
    }

    #[test]
    fn the_types_name_their_own_keys() {
        for (section, keys) in all_keys() {
            assert!(!keys.is_empty(), "[{section}]");
        }
        let sections: Vec<&str> = all_keys().iter().skip(1).map(|(s, _)| *s).collect();
        assert_eq!(fields_of::<Config>(), sections);
    }
}
