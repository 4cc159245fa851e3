//! What is wrong with rules before they run: expressions, names, dependencies, circles.

use super::expression::Scope;
use super::rule::{Above, Dependency, Set, dependency};
use super::template::Template;
use citybrain_shared::case;
use citybrain_shared::config::rules::{Action, Duration, Rule, Severity, Window, WindowKind};
use citybrain_shared::config::{Config, Places, Problem, closest};
use citybrain_shared::event::is_reserved;
use citybrain_shared::{Selector, Tier};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

/// Every problem with the rules of a file, with its place in the file's text.
pub fn problems(config: &Config, places: &Places, text: &str) -> Vec<Problem> {
    let mut look = Look { config, places, text, found: Vec::new() };
    for (path, fault) in Set::compile(&with_windows(config, places), &Above::new()).1 {
        let span = look.place(&path, &fault.at);
        look.found.push(Problem::new(fault.message, span, fault.help));
    }
    for (i, rule) in config.rule.iter().enumerate() {
        look.rule(i, rule);
    }
    look.circles();
    look.found
}

/// What the file's own rules may have meant otherwise, a sentence each: attributes that an event may have and that
/// are nearly those that every event has; alarms that are told apart where their conditions are not; calls of people
/// below, which do not climb; categories that none of `known` is, if those are told.
pub fn doubts(config: &Config, places: &Places, known: Option<&[&str]>) -> Vec<String> {
    let (set, _) = Set::compile(config, &Above::new());
    let mut told: Vec<String> = set
        .doubts
        .into_iter()
        .map(|(rule, read, meant)| format!("rule `{rule}` reads `event.{read}`; did you mean `event.{meant}`?"))
        .collect();
    for (_, rule) in config.rule.iter().enumerate().filter(|(i, _)| places.contains(&format!("rule.{i}"))) {
        let keyed = |action: &Action| matches!(action, Action::Raise(x) if x.key.as_ref().is_some_and(|key| key.contains("${")));
        if rule.by.is_none() && rule.then.iter().any(keyed) {
            told.push(format!(
                "rule `{}` tells its alarms apart by `key` and has no `by`: what ends one of them ends all; give `by` the same",
                rule.name
            ));
        }
        if config.node.address.tier() < Tier::Neighbourhood
            && !rule.on.is_empty()
            && rule.on.iter().all(|on| hears_calls(on))
        {
            told.push(format!(
                "rule `{}` hears calls of people, which stay at the node where they enter; of those below it hears \
                 `city.brain.case.submitted`",
                rule.name
            ));
        }
        let Some(known) = known else { continue };
        for category in rule.then.iter().filter_map(Action::opens).filter(|c| !known.contains(c)) {
            let near = closest(category, known.iter().copied());
            let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            told.push(format!(
                "rule `{}` opens cases of `{category}`, which no `[[category]]` here is{near}",
                rule.name
            ));
        }
    }
    told
}

/// Does this pattern of `on` fit nothing but what people call with?
fn hears_calls(on: &str) -> bool {
    let stem = on.trim_end_matches(['*', '.']);
    case::is_call(stem) || stem.strip_prefix(case::APPEAL).is_some_and(|rest| rest.starts_with('.'))
}

/// A window that does not read is said already: what else is wrong is looked for as if there were one.
fn with_windows<'a>(config: &'a Config, places: &Places) -> Cow<'a, Config> {
    let mut config = Cow::Borrowed(config);
    for i in 0..config.rule.len() {
        if places.is_broken(&format!("rule.{i}.window")) {
            let within = Duration::of_us(60_000_000);
            let some = Window { kind: WindowKind::default(), within, value: Some("0".into()) };
            config.to_mut().rule[i].window = Some(some);
        }
    }
    config
}

struct Look<'a> {
    config: &'a Config,
    places: &'a Places,
    text: &'a str,
    found: Vec<Problem>,
}

impl Look<'_> {
    fn bad(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        let span = self.nearest(path);
        self.found.push(Problem::new(message, span, help));
    }

    /// The value's place, or that of what it stands in.
    fn nearest(&self, path: &str) -> Option<Range<usize>> {
        let mut path = path;
        loop {
            if self.places.contains(path) {
                return self.places.value(path);
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    /// Where the bytes `at` of the string at `path` stand in the file.
    fn place(&self, path: &str, at: &Range<usize>) -> Option<Range<usize>> {
        let span = self.nearest(path)?;
        let raw = self.text.get(span.clone())?;
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|q| raw.starts_with(q)).unwrap_or("");
        // Behind an escape the bytes of the value are not those of the file any more.
        if quote.is_empty() || (quote.starts_with('"') && raw.contains('\\')) {
            return Some(span);
        }
        let newline = usize::from(quote.len() == 3 && raw[quote.len()..].starts_with('\n'));
        let start = span.start + quote.len() + newline;
        let (from, to) = (start + at.start, start + at.end);
        (to <= span.end && self.text.is_char_boundary(from) && self.text.is_char_boundary(to))
            .then_some(from..to)
            .or(Some(span))
    }

    fn rule(&mut self, i: usize, rule: &Rule) {
        let at = |key: &str| format!("rule.{i}.{key}");
        if rule.name.is_empty() || rule.name.contains(['/', '\0', ' ']) {
            self.bad(&at("name"), format!("`{}` is no name for a rule", rule.name), "such as `water-high`");
        }
        if let Some(j) = self.config.rule[..i].iter().position(|r| r.name == rule.name) {
            self.bad(
                &at("name"),
                format!("rule {} has this name already", j + 1),
                "windows are kept under it: give each its own",
            );
        }
        if rule.on.is_empty() {
            self.bad(&at("on"), "no event would ever concern it", "such as `on = [\"city.smoke.*\"]`");
        }
        for (n, pattern) in rule.on.iter().enumerate() {
            let stem = pattern.strip_suffix('*').unwrap_or(pattern);
            if pattern.is_empty() || stem.contains('*') {
                let help = "a type, or the beginning of one with `*` at its end";
                self.bad(&at(&format!("on.{n}")), format!("`{pattern}` is no pattern"), help);
            }
        }
        // One that does not read is said already.
        if rule.then.is_empty() && !self.places.is_broken(&at("then")) {
            self.bad(
                &at("then"),
                "nothing follows from it",
                "add `[[rule.then]]` with raise, clear, emit, case, command or notice",
            );
        }
        if rule.hold.is_some() && rule.absent.is_some() {
            self.bad(
                &at("absent"),
                "a condition that holds and nothing that comes exclude each other",
                "make two rules of it",
            );
        }
        if rule.absent.is_some() && rule.clear.is_some() {
            self.bad(&at("clear"), "an absence is over when something comes", "leave `clear` out");
        }
        if rule.calm.is_some() && rule.clear.is_none() {
            self.bad(&at("calm"), "without `clear` nothing ends by itself", "add `clear = \"…\"`");
        }
        if let (Some(quiet), Some(window)) = (rule.quiet, &rule.window)
            && quiet > Duration::parse("400d").unwrap_or(quiet)
        {
            self.bad(&at("quiet"), "longer than anything lasts", window.within.to_string());
        }
        let calls = rule.then.iter().filter_map(|a| match a {
            Action::Case(x) if x.kind == "sos" => Some(&x.category),
            _ => None,
        });
        let calls: Vec<&String> = calls.collect();
        if (1..calls.len()).any(|n| calls[..n].contains(&calls[n])) {
            let help = "one incident for one button: leave the second `case` out, or give it another category";
            self.bad(&at("then"), "it would open two incidents of one category", help);
        }
        self.dependency(&at("unless_alarm"), rule.unless_alarm.as_deref());
        self.dependency(&at("while_alarm"), rule.while_alarm.as_deref());
        self.held_by_itself(&at("unless_alarm"), rule);
        for (n, action) in rule.then.iter().enumerate() {
            self.action(&at(&format!("then.{n}")), rule, action);
        }
    }

    /// Names of alarms that rules of this node raise.
    fn alarms(&self) -> BTreeSet<&str> {
        let raised = |r: &'_ Rule| {
            r.then
                .iter()
                .filter_map(|a| match a {
                    Action::Raise(x) => Some(x.alarm.clone().unwrap_or_else(|| r.name.clone())),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
        let names: BTreeSet<String> = self.config.rule.iter().flat_map(raised).collect();
        // Given back as parts of the config, which outlives this.
        self.config
            .rule
            .iter()
            .flat_map(|r| {
                let own = r.then.iter().filter_map(|a| match a {
                    Action::Raise(x) => x.alarm.as_deref(),
                    _ => None,
                });
                own.chain([r.name.as_str()])
            })
            .filter(|n| names.contains(*n))
            .collect()
    }

    fn dependency(&mut self, path: &str, name: Option<&str>) {
        let Some(name) = name.map(|n| n.strip_suffix("/*").unwrap_or(n)) else { return };
        // Above the lowest tier an alarm may also come from below.
        if self.config.node.address.tier() == Tier::Neighbourhood {
            self.alarm(path, name);
        }
    }

    /// What keeps a rule back must be another's.
    fn held_by_itself(&mut self, path: &str, rule: &Rule) {
        let Some(Dependency { alarm: name, any_key }) = rule.unless_alarm.as_deref().map(dependency) else { return };
        // Of several that it tells apart, one may keep back the others.
        let is_the_same = |key: Option<&String>| key.is_none() && (!any_key || rule.by.is_none());
        let is_own = |action: &Action| match action {
            Action::Raise(x) => *x.alarm.as_ref().unwrap_or(&rule.name) == name && is_the_same(x.key.as_ref()),
            _ => false,
        };
        if rule.then.iter().any(is_own) {
            let help = "an alarm that is active is not raised again: leave `unless_alarm` out, or name another alarm";
            self.bad(path, format!("the rule itself raises the alarm `{name}`"), help);
        }
    }

    fn alarm(&mut self, path: &str, name: &str) {
        let known = self.alarms();
        // An action that does not read may raise it.
        let unread = |i: usize| self.places.is_broken(&format!("rule.{i}.then"));
        if known.contains(name) || (0..self.config.rule.len()).any(unread) {
            return;
        }
        let help = match closest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "no rule here raises an alarm".into(),
            None => format!("raised here: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        self.bad(path, format!("no rule of this node raises an alarm `{name}`"), help);
    }

    fn action(&mut self, at: &str, rule: &Rule, action: &Action) {
        let tier = self.config.node.address.tier();
        let above =
            |reach: Tier| (reach > tier).then(|| format!("{reach} is below this {tier} node: events travel upward"));
        match action {
            Action::Raise(x) => {
                self.severity(&format!("{at}.raise.severity"), rule, &x.severity);
                if let Some(why) = above(x.reach) {
                    self.bad(
                        &format!("{at}.raise.reach"),
                        why,
                        format!("write `{tier}` to keep it here, or a tier above"),
                    );
                }
            }
            Action::Clear(x) => {
                let name = x.alarm.clone().unwrap_or_else(|| rule.name.clone());
                self.alarm(&format!("{at}.clear.alarm"), &name);
            }
            Action::Emit(x) => {
                if is_reserved(&x.kind) {
                    let help = "give it a type of your own";
                    self.bad(&format!("{at}.emit.type"), "the node itself writes these types", help);
                }
                if let Some(why) = above(x.reach) {
                    self.bad(
                        &format!("{at}.emit.reach"),
                        why,
                        format!("write `{tier}` to keep it here, or a tier above"),
                    );
                }
            }
            Action::Case(x) => {
                let known = ["appeal", "service", "incident", "sos"];
                if !known.contains(&x.kind.as_str()) {
                    self.bad(
                        &format!("{at}.case.kind"),
                        format!("`{}` is no kind of case", x.kind),
                        format!("use one of {}", known.join(", ")),
                    );
                }
            }
            Action::Command(x) | Action::Notice(x) => {
                let verb = if matches!(action, Action::Command(_)) { "command" } else { "notice" };
                if x.kind.as_deref().is_some_and(is_reserved) {
                    let help = "give it a type of your own";
                    self.bad(&format!("{at}.{verb}.type"), "the node itself writes these types", help);
                }
                let Some(target) = x.target.as_deref().filter(|t| !t.contains("${")) else { return };
                let path = format!("{at}.{verb}.target");
                match Selector::parse(target) {
                    Err(e) => self.bad(&path, e.to_string(), ""),
                    Ok(s) if !self.config.node.address.covers(&s.root) => {
                        let help = format!("a node sends only to `{}` and below", self.config.node.address);
                        self.bad(&path, format!("{} is not below this node", s.root), help);
                    }
                    Ok(_) => {}
                }
            }
        }
    }

    /// One that cannot be read is said already.
    fn severity(&mut self, path: &str, rule: &Rule, text: &str) {
        let Ok(template) = Template::compile(text, Scope { window: rule.window.is_some() }) else { return };
        for word in template.known().into_iter().filter(|word| Severity::parse(word).is_none()) {
            let known = Severity::ALL.map(Severity::as_str);
            let help = match closest(word, known.into_iter()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("use one of {}", known.join(", ")),
            };
            self.bad(path, format!("`{word}` is no severity"), help);
        }
    }

    /// Rules whose emitted events set each other off. Found by type alone: a condition may still
    /// break the circle, but then the type should say so. Alarms are all of the same types, so there
    /// `only` is believed.
    fn circles(&mut self) {
        let rules = &self.config.rule;
        let sets_off = |from: &Rule, to: &Rule| {
            from.then.iter().any(|a| {
                if matches!(a, Action::Raise(_) | Action::Clear(_)) && to.only.is_some() {
                    return false;
                }
                let kind = match a {
                    Action::Emit(x) => x.kind.as_str(),
                    Action::Case(x) if x.kind == "sos" => case::SOS,
                    Action::Case(_) => case::APPEAL,
                    Action::Raise(_) => super::alarms::RAISED,
                    Action::Clear(_) => super::alarms::CLEARED,
                    Action::Command(x) => x.kind.as_deref().unwrap_or("city.command"),
                    Action::Notice(x) => x.kind.as_deref().unwrap_or("city.notice"),
                };
                to.on.iter().any(|p| p.strip_suffix('*').map_or(p == kind, |stem| kind.starts_with(stem)))
            })
        };
        for start in 0..rules.len() {
            let mut seen = BTreeSet::new();
            let mut way = vec![(start, vec![start])];
            while let Some((at, path)) = way.pop() {
                for next in (0..rules.len()).filter(|n| sets_off(&rules[at], &rules[*n])) {
                    // Each circle once: at its first rule.
                    if next == start && path.iter().all(|p| *p >= start) {
                        let names: Vec<&str> = path.iter().chain([&start]).map(|i| rules[*i].name.as_str()).collect();
                        let message = format!("a circle: {}", names.join(" → "));
                        self.bad(
                            &format!("rule.{start}.then"),
                            message,
                            "emit another type, or narrow `on`; of alarms, say `only` which",
                        );
                        way.clear();
                        break;
                    }
                    if seen.insert(next) {
                        way.push((next, [path.as_slice(), &[next]].concat()));
                    }
                }
            }
        }
    }
}
