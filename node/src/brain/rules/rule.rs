//! Rules as they run: compiled, and found by an event's type.

use super::alarms;
use super::drafts::cut;
use super::expression::{Expression, Facts, Fault, NodeFacts, Scope, Wants, is_withheld, short_number};
use super::raisers::Raised;
use super::template::{JsonTemplate, Template};
use super::window::{Span, Summary};
use crate::brain::cases::calendar::Calendar;
use crate::brain::services::hours::{self, Hours};
use chrono::DateTime;
use citybrain_shared::config::cases::Calendar as Days;
use citybrain_shared::config::rules::{self as config, Severity, WindowKind};
use citybrain_shared::config::{Config, Priority};
use citybrain_shared::view::CalendarShown;
use citybrain_shared::{Address, Tier};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Types whose rules are remembered; what a stranger invents beyond that is looked up again.
const TYPES_REMEMBERED: usize = 1024;
/// Bytes of what a rule keeps apart: names and topics are mostly shorter.
const KEY_BYTES_MAX: usize = 256;

/// All rules of a node.
pub struct Set {
    pub rules: Vec<Rule>,
    pub node: Arc<NodeFacts>,
    /// Attributes that rules read and that are nearly those that every event has: rule, read, perhaps meant.
    pub doubts: Vec<(String, String, &'static str)>,
    /// Some rule waits for nothing to come.
    pub has_absences: bool,
    /// The calendar by which `hours` and days go; `None`: no rule asks for either.
    pub calendar: Option<CalendarShown>,
    by_name: HashMap<String, u32>,
    /// Names of alarms that some rule clears.
    pub cleared: HashSet<String>,
    /// Names of alarms on which some rule depends.
    watched: HashSet<String>,
    exact: HashMap<String, Vec<u32>>,
    prefixes: Vec<(String, u32)>,
    /// Answers for types seen before.
    found: HashMap<String, Arc<[u32]>>,
}

pub struct Rule {
    pub name: String,
    /// Of all that its text says, and of the calendar if it goes by one: another one where either was edited.
    pub text: u64,
    /// Of the types that it hears and of its `by`.
    pub hears: u64,
    /// Of the rules that meet an event, and of the timers of one moment, those with a smaller one are first.
    pub turn: u32,
    pub on: Vec<String>,
    pub only: Option<Expression>,
    by: By,
    pub window: Option<Window>,
    pub when: Option<Expression>,
    pub hold_us: Option<i64>,
    pub absent_us: Option<i64>,
    pub clear: Option<Expression>,
    pub calm_us: i64,
    pub quiet_us: i64,
    /// When it may fire, local time; none at all: always.
    hours: Vec<Hours>,
    calendar: Arc<Calendar>,
    pub unless: Option<Dependency>,
    pub whilst: Option<Dependency>,
    pub then: Vec<Action>,
    pub node: Arc<NodeFacts>,
}

enum By {
    Nothing,
    /// A JSON pointer, and as it was written.
    Pointer(String, String),
    Cel(Expression),
}

pub struct Window {
    pub span: Span,
    pub value: Option<Expression>,
    /// Of what it counts: the text of its value.
    pub counts: u64,
    /// Some expression asks how many different values there were.
    pub distinct: bool,
    /// Some expression asks for what is computed of the values: they must be numbers.
    pub numbers: bool,
}

/// Calendars of nodes above, as their catalogues say.
pub type Above = BTreeMap<Address, Days>;

/// The calendar that holds at a node: its own, else that of the nearest node above that has one, else what is usual.
struct Holding {
    of: Option<Address>,
    days: Days,
    calendar: Arc<Calendar>,
}

impl Holding {
    fn new(config: &Config, above: &Above) -> Holding {
        let own = config.calendar.iter().map(|days| (&config.node.address, days));
        // Deeper nodes sort behind those that they begin with. One that does not read is told where it stands.
        let nearest = own
            .chain(above.iter().rev())
            .find_map(|(of, days)| Some((Some(of.clone()), days.clone(), Calendar::new(days).ok()?)));
        let (of, days, calendar) = nearest.unwrap_or_default();
        Holding { of, days, calendar: Arc::new(calendar) }
    }

    /// How far the clocks on the walls are ahead of UTC.
    fn offset_us(&self) -> i64 {
        i64::from(self.calendar.offset().local_minus_utc()) * 1_000_000
    }
}

/// `NAME` or `NAME/*`.
pub struct Dependency {
    pub alarm: String,
    pub any_key: bool,
}

impl std::fmt::Display for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.alarm, if self.any_key { "/*" } else { "" })
    }
}

pub enum Action {
    Raise {
        alarm: String,
        key: Option<Template>,
        severity: Template,
        title: Template,
        reach: Tier,
    },
    Clear {
        alarm: String,
        key: Option<Template>,
    },
    Emit {
        kind: Template,
        subject: Option<Template>,
        urgent: bool,
        reach: Tier,
        data: JsonTemplate,
    },
    Case {
        kind: String,
        category: Template,
        title: Template,
        data: Vec<(String, JsonTemplate)>,
    },
    Send {
        command: bool,
        target: Template,
        subject: Option<Template>,
        kind: Template,
        ttl_ms: u32,
        urgent: bool,
        data: JsonTemplate,
    },
}

/// A key that is too long is its beginning and a number that stands for the whole: nobody's alarm is missing
/// because of a long name.
fn short_key(mut key: String) -> String {
    if key.len() > KEY_BYTES_MAX {
        let number = format!("#{:016x}", xxh3_64(key.as_bytes()));
        key.truncate(key.floor_char_boundary(KEY_BYTES_MAX - number.len()));
        key.push_str(&number);
    }
    key
}

impl Rule {
    /// What it keeps apart. Of the data of a call for help a number that stands for it: keys are shown to
    /// many, and climb with alarms.
    ///
    /// # Errors
    /// When the expression cannot be evaluated on this event.
    pub fn key(&self, facts: &Facts) -> Result<String, String> {
        let hides = match &self.by {
            _ if !facts.is_of_persons => false,
            By::Nothing => false,
            By::Pointer(p, _) => is_withheld(&format!("event{}", p.replace('/', "."))),
            By::Cel(cel) => cel.reads_withheld(),
        };
        let key = short_key(self.plain_key(facts)?);
        Ok(if hides { format!("#{:016x}", xxh3_64(format!("{}\0{key}", self.name).as_bytes())) } else { key })
    }

    fn plain_key(&self, facts: &Facts) -> Result<String, String> {
        match &self.by {
            By::Nothing => Ok(String::new()),
            By::Pointer(p, _) => match facts.json.pointer(p) {
                Some(Json::String(s)) => Ok(s.clone()),
                // The same key whether it comes as `20` or as `20.0`.
                Some(Json::Number(n)) if n.is_f64() => Ok(short_number(n.as_f64().unwrap_or(f64::NAN))),
                Some(other) => Ok(other.to_string()),
                None => Err(format!("there is nothing at `{p}`")),
            },
            By::Cel(cel) => cel.text(facts, None),
        }
    }

    pub fn raises(&self) -> bool {
        self.then.iter().any(|a| matches!(a, Action::Raise { .. }))
    }

    /// Fires once and then stays "on" until it is over.
    pub fn latches(&self) -> bool {
        self.raises() || self.hold_us.is_some() || self.absent_us.is_some() || self.clear.is_some()
    }

    /// Do other alarms have a say in whether it fires?
    pub fn depends(&self) -> bool {
        self.dependencies().next().is_some()
    }

    pub fn dependencies(&self) -> impl Iterator<Item = &Dependency> {
        [&self.unless, &self.whilst].into_iter().flatten()
    }

    /// Names of the alarms that it raises or clears.
    fn moves(&self) -> impl Iterator<Item = &str> {
        self.then.iter().filter_map(|action| match action {
            Action::Raise { alarm, .. } | Action::Clear { alarm, .. } => Some(alarm.as_str()),
            _ => None,
        })
    }

    /// The first moment from `at` on, both µs since 1970, that lies in its hours; `None`: within a year none
    /// does.
    pub fn next_open_us(&self, at: i64) -> Option<i64> {
        if self.hours.is_empty() {
            return Some(at);
        }
        let from = DateTime::from_timestamp_micros(at)?;
        hours::next_open(&self.hours, from, &self.calendar).map(|at| at.timestamp_micros())
    }

    /// The alarms that it raises on these facts for this key, in its order.
    pub fn raised(&self, key: &str, facts: &Facts, window: Option<&Summary>) -> Vec<Raised> {
        let of = |action: &Action| match action {
            Action::Raise { alarm, key: own, severity: s, .. } => {
                let key = alarm_key(own.as_ref(), key, facts, window);
                Some((alarms::hash(alarm, &key), severity(s, facts, window)))
            }
            _ => None,
        };
        self.then.iter().filter_map(of).collect()
    }

    /// What its alarms are called on these facts, as a hash; `None`: always the same, or not to be told from them.
    pub fn titles(&self, facts: &Facts, window: Option<&Summary>) -> Option<u64> {
        let titles = self.then.iter().filter_map(|a| match a {
            Action::Raise { title, .. } => Some(title),
            _ => None,
        });
        if titles.clone().all(|title| title.constant().is_some()) {
            return None;
        }
        let titles: Vec<String> = titles.map(|title| title.whole(facts, window)).collect::<Option<_>>()?;
        Some(xxh3_64(titles.join("\0").as_bytes()))
    }

    /// True when the severity may change while an alarm is active.
    pub fn severity_varies(&self) -> bool {
        self.then.iter().any(|a| matches!(a, Action::Raise { severity, .. } if severity.constant().is_none()))
    }

    /// True when it may raise another alarm, or a worse one, while one is active.
    pub fn raised_varies(&self) -> bool {
        let key_varies = |a: &Action| match a {
            Action::Raise { key, .. } => key.as_ref().is_some_and(|key| key.constant().is_none()),
            _ => false,
        };
        self.severity_varies() || self.then.iter().any(key_varies)
    }

    /// What it waits for, for people.
    pub fn in_words(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.only.as_ref().map(|e| format!("only {}", e.text)));
        match &self.by {
            By::Nothing => {}
            By::Pointer(_, text) => words.push(format!("by {text}")),
            By::Cel(e) => words.push(format!("by {}", e.text)),
        }
        let span = config::Duration::of_us;
        words.extend(self.window.as_ref().map(|w| match w.span {
            Span::Sliding { within } => format!("within {}", span(within)),
            Span::Tumbling { within, .. } => format!("tumbling {}", span(within)),
        }));
        words.extend(self.when.as_ref().map(|e| format!("when {}", e.text)));
        words.extend(self.hold_us.map(|us| format!("for {}", span(us))));
        words.extend(self.absent_us.map(|us| format!("nothing for {}", span(us))));
        words.extend(self.clear.as_ref().map(|e| format!("clear {}", e.text)));
        words.extend((self.calm_us > 0).then(|| format!("calm {}", span(self.calm_us))));
        words.extend((self.quiet_us > 0).then(|| format!("quiet {}", span(self.quiet_us))));
        words.extend((!self.hours.is_empty()).then(|| format!("in {}", hours::in_words(&self.hours))));
        words.extend(self.whilst.as_ref().map(|d| format!("while alarm {d}")));
        words.extend(self.unless.as_ref().map(|d| format!("unless alarm {d}")));
        words.join("; ")
    }

    /// What its expressions read, with the values that they found; of a call for help without its data.
    pub fn why(&self, facts: &Facts, window: Option<&Summary>) -> BTreeMap<String, Json> {
        let cels = [self.only.as_ref(), self.when.as_ref(), self.clear.as_ref()].into_iter().flatten();
        let value = self.window.as_ref().and_then(|w| w.value.as_ref());
        let mut why = BTreeMap::new();
        for path in cels.chain(value).flat_map(Expression::paths) {
            let found = match path.split_once('.') {
                Some(("event", _)) if facts.is_of_persons && is_withheld(&path) => Some("withheld".into()),
                Some(("event", rest)) => facts.json.pointer(&format!("/{}", rest.replace('.', "/"))).cloned(),
                Some(("node", rest)) => facts.of_node(rest).cloned(),
                Some(("window", field)) => window.and_then(|w| field_of(w, field)),
                _ => None,
            };
            why.insert(path, found.unwrap_or(Json::Null));
        }
        why
    }
}

fn field_of(w: &Summary, field: &str) -> Option<Json> {
    Some(match field {
        "count" => w.count.into(),
        "distinct" => w.distinct.into(),
        "sum" => w.sum.into(),
        "min" => w.least().into(),
        "max" => w.most().into(),
        "avg" => w.avg().into(),
        "within_s" => (w.within_us / 1_000_000).into(),
        _ => return None,
    })
}

impl Action {
    pub fn in_words(&self) -> String {
        match self {
            Action::Raise { alarm, .. } => format!("raise {alarm}"),
            Action::Clear { alarm, .. } => format!("clear {alarm}"),
            Action::Emit { kind, .. } => format!("emit {}", kind.constant().unwrap_or("…")),
            Action::Case { category, .. } => format!("case {}", category.constant().unwrap_or("…")),
            Action::Send { command: true, kind, .. } => format!("command {}", kind.constant().unwrap_or("…")),
            Action::Send { kind, .. } => format!("notice {}", kind.constant().unwrap_or("…")),
        }
    }
}

/// The key of an alarm: its own, or that of whoever raises it.
pub fn alarm_key(own: Option<&Template>, key: &str, facts: &Facts, window: Option<&Summary>) -> String {
    own.map_or_else(|| key.to_owned(), |own| cut(own.text(facts, window)))
}

/// A severity that a template gives; a word that is none is `major`, as where none is given.
pub fn severity(template: &Template, facts: &Facts, window: Option<&Summary>) -> Severity {
    let word = template.text(facts, window);
    Severity::parse(&word).unwrap_or_else(|| {
        let word = if facts.is_of_persons { "what it gives".into() } else { format!("`{word}`") };
        facts.lacks(format!("{word} is no severity"));
        Severity::Major
    })
}

impl Set {
    pub fn empty(config: &Config) -> Set {
        Set {
            rules: Vec::new(),
            node: Arc::new(NodeFacts::new(&config.node)),
            doubts: Vec::new(),
            has_absences: false,
            calendar: None,
            by_name: HashMap::new(),
            cleared: HashSet::new(),
            watched: HashSet::new(),
            exact: HashMap::new(),
            prefixes: Vec::new(),
            found: HashMap::new(),
        }
    }

    /// Compiles what can be compiled; a rule with a fault is left out. Faults come with the path of
    /// their value in the config, such as `rule.3.when`.
    pub fn compile(config: &Config, above: &Above) -> (Set, Vec<(String, Fault)>) {
        let mut set = Set::empty(config);
        let mut all = Vec::new();
        let holding = Holding::new(config, above);
        if config.rule.iter().any(config::Rule::goes_by_calendar) {
            set.calendar = Some(CalendarShown { of: holding.of.clone(), words: holding.calendar.words() });
        }
        for (i, rule) in config.rule.iter().enumerate() {
            let (node, holding) = (set.node.clone(), &holding);
            let mut compiler =
                Compiler { faults: Vec::new(), node, holding, distinct: false, numbers: false, doubts: Vec::new() };
            let compiled = compiler.rule(rule, config);
            set.doubts.extend(compiler.doubts.drain(..).map(|(read, meant)| (rule.name.clone(), read, meant)));
            if let (Some(compiled), true) = (compiled, compiler.faults.is_empty()) {
                set.add(compiled);
            }
            all.extend(compiler.faults.into_iter().map(|(path, fault)| (format!("rule.{i}.{path}"), fault)));
        }
        set.give_turns();
        (set, all)
    }

    /// A rule that depends on an alarm comes behind those that raise or clear it, and behind those that these depend
    /// on. So its turn is how many these are, itself with them: of rules that depend on each other they are the same,
    /// and the first in the file is first.
    fn give_turns(&mut self) {
        let mut movers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, rule) in self.rules.iter().enumerate() {
            rule.moves().for_each(|name| movers.entry(name).or_default().push(i));
        }
        let turn = |i: usize| {
            let (mut before, mut names, mut next) = (HashSet::from([i]), HashSet::new(), vec![i]);
            while let Some(i) = next.pop() {
                for name in self.rules[i].dependencies().map(|d| d.alarm.as_str()).filter(|name| names.insert(*name)) {
                    next.extend(movers.get(name).into_iter().flatten().filter(|i| before.insert(**i)));
                }
            }
            before.len() as u32
        };
        let turns: Vec<u32> = (0..self.rules.len()).map(turn).collect();
        self.rules.iter_mut().zip(turns).for_each(|(rule, turn)| rule.turn = turn);
    }

    fn add(&mut self, rule: Rule) {
        let index = self.rules.len() as u32;
        self.has_absences |= rule.absent_us.is_some();
        for pattern in &rule.on {
            match pattern.strip_suffix('*') {
                Some(prefix) => self.prefixes.push((prefix.to_owned(), index)),
                None => self.exact.entry(pattern.clone()).or_default().push(index),
            }
        }
        self.watched.extend(rule.dependencies().map(|d| d.alarm.clone()));
        for action in &rule.then {
            if let Action::Clear { alarm, .. } = action {
                self.cleared.insert(alarm.clone());
            }
        }
        self.by_name.entry(rule.name.clone()).or_insert(index);
        self.rules.push(rule);
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Does some rule depend on alarms of that name?
    pub fn is_watched(&self, alarm: &str) -> bool {
        self.watched.contains(alarm)
    }

    /// Does some rule depend on what this one says?
    pub fn sways(&self, rule: &Rule) -> bool {
        rule.moves().any(|alarm| self.is_watched(alarm))
    }

    pub fn index_of(&self, rule: &str) -> Option<u32> {
        self.by_name.get(rule).copied()
    }

    /// The rules that an event of this type concerns, in the order in which they meet it.
    pub fn on(&mut self, kind: &str) -> Option<Arc<[u32]>> {
        if let Some(found) = self.found.get(kind) {
            return (!found.is_empty()).then(|| found.clone());
        }
        let mut all: Vec<u32> = self.exact.get(kind).cloned().unwrap_or_default();
        all.extend(self.prefixes.iter().filter(|(p, _)| kind.starts_with(p.as_str())).map(|(_, i)| *i));
        all.sort_unstable_by_key(|i| (self.rules[*i as usize].turn, *i));
        all.dedup();
        if self.found.len() >= TYPES_REMEMBERED {
            self.found.clear();
        }
        let all: Arc<[u32]> = all.into();
        self.found.insert(kind.to_owned(), all.clone());
        (!all.is_empty()).then_some(all)
    }
}

struct Compiler<'a> {
    node: Arc<NodeFacts>,
    holding: &'a Holding,
    faults: Vec<(String, Fault)>,
    /// Something that the rule says asks how many different values its window has, or what they add up to.
    distinct: bool,
    numbers: bool,
    /// As [`Set::doubts`].
    doubts: Vec<(String, &'static str)>,
}

impl Compiler<'_> {
    fn rule(&mut self, r: &config::Rule, config: &Config) -> Option<Rule> {
        let before = Scope { window: false };
        let scope = Scope { window: r.window.is_some() };
        let cel = |c: &mut Compiler, path: &str, text: &Option<String>, scope, wants| {
            text.as_deref().and_then(|t| c.cel(path, t, scope, wants))
        };
        let only = cel(self, "only", &r.only, before, Wants::Bool);
        let when = cel(self, "when", &r.when, scope, Wants::Bool);
        let clear = cel(self, "clear", &r.clear, scope, Wants::Bool);
        let by = match r.by.as_deref() {
            None => Some(By::Nothing),
            Some(pointer) if pointer.starts_with('/') => Some(By::Pointer(pointer.to_owned(), pointer.to_owned())),
            Some(text) => self.cel("by", text, before, Wants::Anything).map(|cel| match cel.pointer.clone() {
                Some(pointer) => By::Pointer(pointer, cel.text),
                None => By::Cel(cel),
            }),
        };
        let then: Vec<Option<Action>> =
            r.then.iter().enumerate().map(|(i, a)| self.action(a, &format!("then.{i}"), scope, r, config)).collect();
        if (self.distinct || self.numbers) && r.window.as_ref().is_some_and(|w| w.value.is_none()) {
            let message = "it computes with values, and the window has none".into();
            let help = "add `value = \"event.data\"`, or whatever stands for the number; `window.count` needs none";
            self.faults.push(("window".into(), Fault { message, at: 0..0, help: help.into() }));
        }
        let window = r.window.as_ref().map(|w| {
            let span = match w.kind {
                WindowKind::Sliding => Span::Sliding { within: w.within.us() },
                WindowKind::Tumbling => Span::Tumbling { within: w.within.us(), offset: self.holding.offset_us() },
            };
            let value = cel(self, "window.value", &w.value, before, Wants::Anything);
            let counts = value.as_ref().map_or(0, |value: &Expression| xxh3_64(value.text.as_bytes()));
            Window { span, value, counts, distinct: self.distinct, numbers: self.numbers }
        });
        let hours = self.hours(&r.hours);
        let days = r.goes_by_calendar().then_some(&self.holding.days);
        Some(Rule {
            name: r.name.clone(),
            text: xxh3_64(&serde_json::to_vec(&(r, days)).expect("they have string keys only")),
            hears: xxh3_64(&serde_json::to_vec(&(&r.on, &r.by)).expect("they are texts")),
            turn: 0,
            on: r.on.clone(),
            only,
            by: by?,
            window,
            when,
            hold_us: r.hold.map(|d| d.us()),
            absent_us: r.absent.map(|d| d.us()),
            clear,
            calm_us: r.calm.map_or(0, |d| d.us()),
            quiet_us: r.quiet.map_or(0, |d| d.us()),
            hours: hours?,
            calendar: self.holding.calendar.clone(),
            unless: r.unless_alarm.as_deref().map(dependency),
            whilst: r.while_alarm.as_deref().map(dependency),
            then: then.into_iter().collect::<Option<_>>()?,
            node: self.node.clone(),
        })
    }

    fn hours(&mut self, texts: &[String]) -> Option<Vec<Hours>> {
        let mut all = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            match Hours::parse(text) {
                Ok(hours) => all.push(hours),
                Err(message) => {
                    let fault = Fault { message, at: 0..text.len(), help: String::new() };
                    self.faults.push((format!("hours.{n}"), fault));
                }
            }
        }
        (all.len() == texts.len()).then_some(all)
    }

    fn cel(&mut self, path: &str, text: &str, scope: Scope, wants: Wants) -> Option<Expression> {
        let faults = match Expression::compile(text, scope, wants) {
            Ok(cel) => {
                self.asks([&cel]);
                return Some(cel);
            }
            Err(faults) => faults,
        };
        self.faults.extend(faults.into_iter().map(|f| (path.to_owned(), f)));
        None
    }

    fn asks<'e>(&mut self, of_the_window: impl IntoIterator<Item = &'e Expression>) {
        for e in of_the_window {
            self.distinct |= e.uses_distinct();
            self.numbers |= e.uses_numbers();
            let fresh = e.doubts().into_iter().filter(|doubt| !self.doubts.contains(doubt));
            let fresh: Vec<_> = fresh.collect();
            self.doubts.extend(fresh);
        }
    }

    fn template(&mut self, path: String, text: &str, scope: Scope) -> Option<Template> {
        match Template::compile(text, scope) {
            Ok(t) => {
                self.asks(t.expressions());
                Some(t)
            }
            Err(faults) => {
                self.faults.extend(faults.into_iter().map(|f| (path.clone(), f)));
                None
            }
        }
    }

    fn json(&mut self, path: &str, json: &Json, scope: Scope) -> Option<JsonTemplate> {
        match JsonTemplate::compile(json, scope) {
            Ok(t) => {
                self.asks(t.expressions());
                Some(t)
            }
            Err(faults) => {
                self.faults.extend(faults.into_iter().map(|(below, f)| (format!("{path}{below}"), f)));
                None
            }
        }
    }

    fn action(
        &mut self,
        a: &config::Action,
        at: &str,
        scope: Scope,
        r: &config::Rule,
        config: &Config,
    ) -> Option<Action> {
        let opt = |c: &mut Compiler, verb: &str, name: &str, text: &Option<String>| match text {
            None => Some(None),
            Some(t) => c.template(format!("{at}.{verb}.{name}"), t, scope).map(Some),
        };
        Some(match a {
            config::Action::Raise(x) => Action::Raise {
                alarm: x.alarm.clone().unwrap_or_else(|| r.name.clone()),
                key: opt(self, "raise", "key", &x.key)?,
                severity: self.template(format!("{at}.raise.severity"), &x.severity, scope)?,
                title: self.template(format!("{at}.raise.title"), &x.title, scope)?,
                reach: x.reach,
            },
            config::Action::Clear(x) => Action::Clear {
                alarm: x.alarm.clone().unwrap_or_else(|| r.name.clone()),
                key: opt(self, "clear", "key", &x.key)?,
            },
            config::Action::Emit(x) => Action::Emit {
                kind: self.template(format!("{at}.emit.type"), &x.kind, scope)?,
                subject: opt(self, "emit", "subject", &x.subject)?,
                urgent: x.priority == Some(Priority::Urgent),
                reach: x.reach,
                data: self.json(&format!("{at}.emit.data"), &x.data, scope)?,
            },
            config::Action::Case(x) => {
                let data = x.data.iter().map(|(name, value)| {
                    Some((name.clone(), self.json(&format!("{at}.case.data.{name}"), value, scope)?))
                });
                let data = data.collect::<Option<Vec<_>>>();
                Action::Case {
                    kind: x.kind.clone(),
                    category: self.template(format!("{at}.case.category"), &x.category, scope)?,
                    title: self.template(format!("{at}.case.title"), &x.title, scope)?,
                    data: data?,
                }
            }
            config::Action::Command(x) => self.send(x, &format!("{at}.command"), scope, true, config)?,
            config::Action::Notice(x) => self.send(x, &format!("{at}.notice"), scope, false, config)?,
        })
    }

    fn send(
        &mut self,
        x: &config::Directive,
        at: &str,
        scope: Scope,
        command: bool,
        config: &Config,
    ) -> Option<Action> {
        let all = format!("{}/**", config.node.address);
        let kind = x.kind.as_deref().unwrap_or(if command { "city.command" } else { "city.notice" });
        Some(Action::Send {
            command,
            target: self.template(format!("{at}.target"), x.target.as_deref().unwrap_or(&all), scope)?,
            subject: match &x.subject {
                None => None,
                Some(subject) => Some(self.template(format!("{at}.subject"), subject, scope)?),
            },
            kind: self.template(format!("{at}.type"), kind, scope)?,
            ttl_ms: x.ttl.map_or(0, |d| u32::try_from(d.us() / 1000).unwrap_or(u32::MAX)),
            urgent: x.priority == Some(Priority::Urgent),
            data: self.json(&format!("{at}.data"), &x.data, scope)?,
        })
    }
}

/// Of what `unless_alarm` and `while_alarm` say.
pub fn dependency(text: &str) -> Dependency {
    match text.strip_suffix("/*") {
        Some(alarm) => Dependency { alarm: alarm.to_owned(), any_key: true },
        None => Dependency { alarm: text.to_owned(), any_key: false },
    }
}
