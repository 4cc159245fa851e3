//! CEL: compiled once, run over an event. This file, [`arithmetic`] and [`cost`] alone name the crate.
//!
//! | variable | fields |
//! |---|---|
//! | `event` | the CloudEvents attributes as they are, `data`, and `origin` (the node where it began), `at_ms` (when it was committed here) |
//! | `node` | `address`, `name`, `tier`, `labels`: this node |
//! | `window` | `count`, `sum`, `min`, `max`, `avg`, `distinct`, `within_s`: only in a rule that has one |
//!
//! A field that an event lacks is an error of that evaluation, which then counts as "no"; `has()`
//! asks first.

use super::arithmetic;
use super::cost::{self, TooDear};
use super::window::Summary;
use crate::brain::cases::intake;
use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, Program, Value};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(arithmetic::env()));

/// Attributes that every event may have, for whoever mistypes one.
const EVENT_FIELDS: [&str; 16] = [
    "id",
    "source",
    "type",
    "subject",
    "time",
    "data",
    "origin",
    "at_ms",
    "priority",
    "reach",
    "governance",
    "target",
    "directive",
    "expirytime",
    "correlationid",
    "specversion",
];
/// More that some events have.
const MORE_FIELDS: [&str; 10] = [
    "datacontenttype",
    "dataschema",
    "data_base64",
    "causationid",
    "traceparent",
    "tracestate",
    "rulehops",
    "rulemoment",
    "sequence",
    "key",
];
pub const NODE_FIELDS: [&str; 4] = ["address", "name", "tier", "labels"];
const WINDOW_FIELDS: [&str; 7] = ["count", "sum", "min", "max", "avg", "distinct", "within_s"];
const FUNCTIONS: [&str; 22] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "bytes",
    "type",
    "dyn",
    "has",
    "optional.of",
    "optional.none",
    "orValue",
    "hasValue",
    "value",
    "optional.ofNonZeroValue",
    "or",
    "max",
];

/// Of a call for help (`event.data.phone`, `event.data.contact` …): what its data says is the case's alone,
/// but for what every copy of the case shows.
pub fn is_withheld(path: &str) -> bool {
    const OPEN: [&str; 4] = ["event.data.category", "event.data.kind", "event.data.channel", "event.data.sos"];
    path == "event" || (path.starts_with("event.data") && !OPEN.contains(&path))
}

/// What is wrong with an expression, and where in its text (bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub message: String,
    pub at: Range<usize>,
    pub help: String,
}

/// Which variables an expression may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    pub window: bool,
}

/// What an expression must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    Bool,
    Anything,
}

#[derive(Debug)]
pub struct Expression {
    pub text: String,
    /// As it is written.
    program: Program,
    /// As it is run.
    run: Box<IdedExpr>,
    pub uses_window: bool,
    /// Fields of the window that it reads: only they are made.
    window_fields: Vec<&'static str>,
    /// The JSON pointer that it amounts to, if it only names a place in the event.
    pub pointer: Option<String>,
}

impl Expression {
    /// # Errors
    /// Everything that can be known to be wrong without an event.
    pub fn compile(text: &str, scope: Scope, wants: Wants) -> Result<Expression, Vec<Fault>> {
        let program = ENV.compile(text).map_err(|e| {
            // The first one is the cause; those behind it are mostly its echoes.
            e.errors.iter().take(1).map(|e| syntax(text, e)).collect::<Vec<_>>()
        })?;
        let mut look = Look { text, program: &program, scope, faults: Vec::new(), window: false, bound: Vec::new() };
        let kind = look.kind(program.expression());
        if wants == Wants::Bool && !matches!(kind, Kind::Bool | Kind::Unknown) {
            let message = format!("it gives {}, not true or false", kind.name());
            look.faults.push(Fault { message, at: 0..text.len(), help: "compare it with something".into() });
        }
        let (uses_window, faults) = (look.window, look.faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut read = Vec::new();
        paths(program.expression(), &mut read);
        let reads = |field: &&str| read.contains(&format!("window.{field}")) || read.iter().any(|p| p == "window");
        let window_fields = WINDOW_FIELDS.into_iter().filter(reads).collect();
        let pointer = plain_path(program.expression()).filter(|p| p.starts_with("event."));
        let pointer = pointer.map(|p| p["event".len()..].replace('.', "/"));
        let run = Box::new(arithmetic::replaced(program.expression()));
        Ok(Expression { text: text.to_owned(), program, run, uses_window, window_fields, pointer })
    }

    /// Attributes of an event that it reads, and those which every event may have that are nearly the same.
    pub fn doubts(&self) -> Vec<(String, &'static str)> {
        let mut all = Vec::new();
        paths(self.program.expression(), &mut all);
        let read = all.iter().filter_map(|path| path.strip_prefix("event.")?.split('.').next());
        let unusual = read.filter(|a| !EVENT_FIELDS.contains(a) && !MORE_FIELDS.contains(a));
        let meant = |a: &str| {
            let goes_on = || EVENT_FIELDS.into_iter().find(|f| a.len() > 1 && f.starts_with(a));
            citybrain_shared::config::closest(a, EVENT_FIELDS.into_iter()).or_else(goes_on)
        };
        unusual.filter_map(|a| Some((a.to_owned(), meant(a)?))).collect()
    }

    /// The words that it can give, where they stand in it: `a` and `b` of `x ? 'a' : 'b'`.
    pub fn words(&self) -> Vec<&str> {
        fn of<'e>(e: &'e IdedExpr, all: &mut Vec<&'e str>) {
            match &e.expr {
                Expr::Literal(LiteralValue::String(word)) => all.push(word.inner()),
                Expr::Call(c) if c.func_name == "_?_:_" => c.args.iter().skip(1).for_each(|branch| of(branch, all)),
                _ => {}
            }
        }
        let mut all = Vec::new();
        of(self.program.expression(), &mut all);
        all
    }

    /// Does it ask how many different values the window has?
    pub fn uses_distinct(&self) -> bool {
        self.window_fields.contains(&"distinct")
    }

    /// Does it ask for something that is computed of the window's values?
    pub fn uses_numbers(&self) -> bool {
        self.window_fields.iter().any(|field| ["sum", "min", "max", "avg"].contains(field))
    }

    fn run(&self, facts: &Facts, window: Option<&Summary>, may_go_on: MayGoOn<'_>) -> Result<Value, String> {
        let window = window.filter(|_| self.uses_window).map(|w| self.boxed_window(w));
        let scene = Scene { facts, window, may_go_on };
        let mut context = Context::with_env(ENV.clone());
        context.set_variable_resolver(&scene);
        Value::resolve(&self.run, &context).map_err(|e| match e {
            ExecutionError::NoSuchKey(_) => format!("`{}`: {e}", self.text),
            // Others may have values of the event in them.
            _ if facts.is_of_persons => format!("`{}` cannot be evaluated on a call for help", self.text),
            _ => format!("`{}`: {e}", self.text),
        })
    }

    fn boxed_window(&self, s: &Summary) -> Box<dyn Val> {
        let whole = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let value = |field: &str| match field {
            "count" => Some(whole(s.count)),
            "distinct" => Some(whole(s.distinct)),
            "sum" => Some(Value::Float(s.sum)),
            "min" => s.least().map(Value::Float),
            "max" => s.most().map(Value::Float),
            "avg" => s.avg().map(Value::Float),
            _ => Some(Value::Int(s.within_us / 1_000_000)),
        };
        boxed(self.window_fields.iter().filter_map(|f| Some((*f, value(f)?))).collect::<HashMap<_, _>>().into())
    }

    /// # Errors
    /// A sentence: the event has no such field, or values do not go together.
    pub fn truth(&self, facts: &Facts, window: Option<&Summary>) -> Result<bool, String> {
        self.truth_while(facts, window, &|| true)
    }

    /// As [`Expression::truth`]. Once `may_go_on` says no, the event is gone for what is still to be
    /// evaluated, and the answer is of no use.
    ///
    /// # Errors
    /// As [`Expression::truth`].
    pub fn truth_while(&self, facts: &Facts, window: Option<&Summary>, may_go_on: MayGoOn<'_>) -> Result<bool, String> {
        match self.run(facts, window, may_go_on)? {
            Value::Bool(b) => Ok(b),
            other => Err(format!("`{}` gives a {}, not true or false", self.text, other.type_of())),
        }
    }

    /// # Errors
    /// As [`Expression::truth`].
    pub fn json(&self, facts: &Facts, window: Option<&Summary>) -> Result<Json, String> {
        let value = self.run(facts, window, &|| true)?;
        value.json().map_err(|_| format!("`{}` gives something that JSON cannot hold", self.text))
    }

    /// # Errors
    /// As [`Expression::truth`].
    pub fn text(&self, facts: &Facts, window: Option<&Summary>) -> Result<String, String> {
        Ok(shown(&self.run(facts, window, &|| true)?))
    }

    /// # Errors
    /// It is too dear to be run for others.
    pub fn judge_cost(&self) -> Result<(), TooDear> {
        cost::judge(self.program.expression())
    }

    /// Does it read of a call for help what is shown to nobody?
    pub fn reads_withheld(&self) -> bool {
        let mut all = Vec::new();
        paths(self.program.expression(), &mut all);
        all.iter().any(|path| is_withheld(path))
    }

    /// The paths into the variables that it reads, such as `event.data.level`: to show why.
    pub fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        paths(self.program.expression(), &mut all);
        all.sort();
        all.dedup();
        all.retain(|p| ["event.", "node.", "window."].iter().any(|v| p.starts_with(v)));
        all
    }
}

/// Text for people: whole numbers without a fraction, strings without quotes.
fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => s.to_string(),
        Value::Float(f) => short_number(*f),
        other => other.json().map_or_else(|_| "?".into(), |j| j.to_string()),
    }
}

pub fn short_number(f: f64) -> String {
    // Sums of decimal fractions are off in the last places, which nobody wants to read.
    let text = format!("{:.6}", f);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An event and this node, as variables.
pub struct Facts {
    event: Box<dyn Val>,
    node: Arc<NodeFacts>,
    pub json: Json,
    /// Its data may name a person whom to call: it is shown to nobody.
    pub is_of_persons: bool,
    /// The first thing that a template wanted of it and that it has not.
    lacking: OnceLock<String>,
}

/// This node, as a variable; made once.
pub struct NodeFacts {
    value: Box<dyn Val>,
    json: Json,
}

impl NodeFacts {
    pub fn new(node: &citybrain_shared::config::Node) -> NodeFacts {
        let json = serde_json::json!({
            "address": node.address, "name": node.name, "tier": node.address.tier(), "labels": node.labels,
        });
        NodeFacts { value: boxed(value_of(&json)), json }
    }
}

impl Facts {
    /// `None` when the payload is no JSON object.
    pub fn new(payload: &[u8], origin: &str, at_us: i64, node: &Arc<NodeFacts>) -> Option<Facts> {
        let mut json: Json = serde_json::from_slice(payload).ok()?;
        let object = json.as_object_mut()?;
        object.insert("origin".into(), origin.into());
        object.insert("at_ms".into(), (at_us / 1000).into());
        let is_of_persons = intake::is_of_persons(&json);
        let event = boxed(value_of(&json));
        Some(Facts { event, node: node.clone(), json, is_of_persons, lacking: OnceLock::new() })
    }

    /// Something could not be filled in.
    pub fn lacks(&self, why: impl Into<String>) {
        self.lacking.get_or_init(|| why.into());
    }

    /// What could not be filled in, the first of it.
    pub fn lacking(&self) -> Option<&str> {
        self.lacking.get().map(String::as_str)
    }

    /// What there is at `node.PATH`, dots between its parts.
    pub fn of_node(&self, path: &str) -> Option<&Json> {
        self.node.json.pointer(&format!("/{}", path.replace('.', "/")))
    }
}

fn boxed(value: Value) -> Box<dyn Val> {
    value.try_into().expect("maps, lists and scalars are values")
}

fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => s.as_str().into(),
        Json::Array(all) => Value::List(Arc::new(all.iter().map(value_of).collect())),
        Json::Object(all) => all.iter().map(|(k, v)| (k.clone(), value_of(v))).collect::<HashMap<_, _>>().into(),
    }
}

/// Asked at each look at the event.
pub type MayGoOn<'a> = &'a (dyn Fn() -> bool + Send + Sync);

struct Scene<'a> {
    facts: &'a Facts,
    window: Option<Box<dyn Val>>,
    may_go_on: MayGoOn<'a>,
}

impl VariableResolver for Scene<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match variable {
            "event" => (self.may_go_on)().then(|| CowVal::Borrowed(self.facts.event.as_ref())),
            "node" => Some(CowVal::Borrowed(self.facts.node.value.as_ref())),
            "window" => self.window.as_deref().map(CowVal::Borrowed),
            _ => None,
        }
    }
}

// ---- what can be known without an event --------------------------------------------------------

fn syntax(text: &str, error: &cel::ParseError) -> Fault {
    let (line, column) = error.pos;
    let before: usize = text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0)).map(str::len).sum();
    let rest = &text[before.min(text.len())..];
    let skip = usize::try_from(column - 1).unwrap_or(0);
    let start = before + rest.char_indices().nth(skip).map_or(rest.len(), |(i, _)| i);
    if error.msg.contains("argument to has()") {
        let message = "`has()` takes a field with a dot before it".to_owned();
        let help = "of a name that is no word: `'PM_US Post' in event.data && event.data['PM_US Post'] != null`".into();
        return Fault { message, at: 0..text.len(), help };
    }
    // The parser's own words list every token that it would have liked.
    let said = error.msg.lines().next().unwrap_or_default();
    let said = said.split(" expecting ").next().unwrap_or(said).trim();
    let message = said.strip_prefix("Syntax error: ").unwrap_or(said).to_owned();
    let at = if start < text.len() { start..text.len() } else { 0..text.len() };
    let help = match name_at(text, at.start) {
        Some(name) => format!("a name that is not of a to z, A to Z, 0 to 9 and _ goes in brackets: `['{name}']`"),
        None if text[at.clone()].starts_with("= ") => "did you mean `==`?".into(),
        None => "such as `event.data.level > 3.0`".into(),
    };
    Fault { message: format!("not CEL: {message}"), at, help }
}

/// The name behind a dot, if some letter in it, which stands there, is none of CEL's.
fn name_at(text: &str, at: usize) -> Option<&str> {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let from = text[..at].rfind(|c| !is_of_name(c)).filter(|dot| text[*dot..].starts_with('.'))? + 1;
    let name = text[from..].split(|c| !is_of_name(c)).next()?;
    (!name.is_ascii()).then_some(name)
}

/// What is known of a value's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Number,
    Text,
    List,
    Map,
    Null,
    Unknown,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Number => "a number",
            Kind::Text => "a string",
            Kind::List => "a list",
            Kind::Map => "a map",
            Kind::Null => "null",
            Kind::Unknown => "something",
        }
    }
}

struct Look<'a> {
    text: &'a str,
    program: &'a Program,
    scope: Scope,
    faults: Vec<Fault>,
    window: bool,
    /// Names bound by `all`, `exists`, `map` and the like.
    bound: Vec<String>,
}

impl Look<'_> {
    fn fault(&mut self, word: &str, id: u64, message: String, help: String) {
        // The node's offset counts characters; the word near it is the better mark.
        let hint = self.program.source_info().offset_for(id).map_or(0, |(start, _)| start as usize);
        let hint = self.text.char_indices().nth(hint.saturating_sub(1)).map_or(0, |(i, _)| i);
        let found = self.text[hint..].find(word).map(|i| hint + i).or_else(|| self.text.find(word));
        let at = found.map_or(0..self.text.len(), |i| i..i + word.len());
        self.faults.push(Fault { message, at, help });
    }

    fn kind(&mut self, e: &IdedExpr) -> Kind {
        match &e.expr {
            Expr::Literal(l) => match l {
                LiteralValue::Boolean(_) => Kind::Bool,
                LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => Kind::Number,
                LiteralValue::String(_) => Kind::Text,
                LiteralValue::Null => Kind::Null,
                LiteralValue::Bytes(_) => Kind::Unknown,
            },
            Expr::Ident(name) => {
                self.variable(name, e.id);
                if ["event", "node", "window"].contains(&name.as_str()) { Kind::Map } else { Kind::Unknown }
            }
            Expr::Select(s) => {
                self.kind(&s.operand);
                let Expr::Ident(root) = &s.operand.expr else { return Kind::Unknown };
                let kind = self.field(root, &s.field, e.id);
                if s.test { Kind::Bool } else { kind }
            }
            Expr::Call(c) => {
                let target = c.target.as_deref().map(|t| self.kind(t));
                let args: Vec<Kind> = c.args.iter().map(|a| self.kind(a)).collect();
                if c.func_name == "matches"
                    && let Some(Expr::Literal(LiteralValue::String(pattern))) = c.args.last().map(|a| &a.expr)
                {
                    self.pattern(pattern.inner(), e.id);
                }
                self.call(&c.func_name, target, &args, e.id)
            }
            Expr::List(l) => {
                for e in &l.elements {
                    self.kind(e);
                }
                Kind::List
            }
            Expr::Map(m) => {
                for entry in &m.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.kind(&entry.key);
                        self.kind(&entry.value);
                    }
                }
                Kind::Map
            }
            Expr::Comprehension(c) => {
                self.kind(&c.iter_range);
                let before = self.bound.len();
                self.bound.extend([c.iter_var.clone(), c.accu_var.clone()]);
                self.bound.extend(c.iter_var2.clone());
                for part in [&c.accu_init, &c.loop_cond, &c.loop_step] {
                    self.kind(part);
                }
                let kind = self.kind(&c.result);
                self.bound.truncate(before);
                kind
            }
            Expr::Struct(_) | Expr::Unspecified => Kind::Unknown,
        }
    }

    fn variable(&mut self, name: &str, id: u64) {
        let known = ["event", "node", "window"];
        if self.bound.iter().any(|b| b == name) || known[..2].contains(&name) || is_type(name) {
            return;
        }
        if name == "window" {
            self.window = true;
            if !self.scope.window {
                let help = "give the rule `window = { within = \"10m\" }`; `only` and `by` are asked before it".into();
                self.fault(name, id, "there is no window here".into(), help);
            }
            return;
        }
        let near = citybrain_shared::config::closest(name, known.into_iter());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if EVENT_FIELDS.contains(&name) => format!("did you mean `event.{name}`?"),
            None => "known here: event, node, window; an event's own fields stand under `event.data`".into(),
        };
        self.fault(name, id, format!("unknown variable `{name}`"), help);
    }

    fn field(&mut self, root: &str, field: &str, id: u64) -> Kind {
        if self.bound.iter().any(|b| b == root) {
            return Kind::Unknown;
        }
        let known: &[&str] = match root {
            "node" => &NODE_FIELDS,
            "window" => &WINDOW_FIELDS,
            // An event may have attributes of its own.
            "event" => return if EVENT_FIELDS[..5].contains(&field) { Kind::Text } else { Kind::Unknown },
            _ => return Kind::Unknown,
        };
        if !known.contains(&field) {
            let help = match citybrain_shared::config::closest(field, known.iter().copied()) {
                Some(near) => format!("did you mean `{root}.{near}`?"),
                None => format!("known: {}", known.join(", ")),
            };
            self.fault(field, id, format!("`{root}` has no `{field}`"), help);
        }
        match (root, field) {
            ("node", "labels") => Kind::Map,
            ("node", _) => Kind::Text,
            _ => Kind::Number,
        }
    }

    fn pattern(&mut self, pattern: &str, id: u64) {
        if let Err(e) = regex::Regex::new(pattern) {
            let why = e.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            self.fault(pattern, id, format!("`{pattern}` is no pattern: {why}"), "a regular expression".into());
        }
    }

    fn call(&mut self, name: &str, target: Option<Kind>, args: &[Kind], id: u64) -> Kind {
        let clash = |a: Kind, b: Kind| a != b && ![a, b].contains(&Kind::Unknown) && ![a, b].contains(&Kind::Null);
        let word = name.trim_matches(['_', '@']);
        match (name, args) {
            ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => {
                if clash(*a, *b) {
                    let message = format!("{} is compared with {}", a.name(), b.name());
                    self.fault(word, id, message, "both sides must be of one kind".into());
                }
                Kind::Bool
            }
            ("_&&_" | "_||_" | "!_", _) => {
                if let Some(other) = args.iter().find(|k| !matches!(k, Kind::Bool | Kind::Unknown)) {
                    let message = format!("{} where true or false is needed", other.name());
                    self.fault(word, id, message, "compare it with something".into());
                }
                Kind::Bool
            }
            ("_-_" | "_*_" | "_/_" | "_%_", [a, b]) => {
                if let Some(other) = [a, b].into_iter().find(|k| !matches!(k, Kind::Number | Kind::Unknown)) {
                    self.fault(word, id, format!("{} where a number is needed", other.name()), String::new());
                }
                Kind::Number
            }
            ("-_", _) => {
                if let Some(other) = args.iter().find(|k| !matches!(k, Kind::Number | Kind::Unknown)) {
                    self.fault(word, id, format!("{} where a number is needed", other.name()), String::new());
                }
                Kind::Number
            }
            ("startsWith" | "endsWith" | "matches", _) => {
                let is_other = |k: &&Kind| !matches!(k, Kind::Text | Kind::Unknown);
                if let Some(other) = target.iter().chain(args).find(is_other) {
                    let help = "`string(…)` makes a string of a number".into();
                    self.fault(name, id, format!("{} where a string is needed", other.name()), help);
                }
                Kind::Bool
            }
            ("_+_", [a, b]) => {
                if clash(*a, *b) {
                    let help = "`string(…)` makes a string of a number".into();
                    self.fault(word, id, format!("{} and {} cannot be added", a.name(), b.name()), help);
                }
                if *a == Kind::Unknown { *b } else { *a }
            }
            ("_?_:_", [_, a, b]) => {
                if a == b {
                    *a
                } else {
                    Kind::Unknown
                }
            }
            ("@in" | "_in_" | "in" | "contains", _) => Kind::Bool,
            ("size" | "int" | "uint" | "double", _) => Kind::Number,
            ("string", _) => Kind::Text,
            _ => {
                let is_word = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '.' || c == '_');
                let is_operator = name.starts_with(['_', '@', '!', '-']);
                if is_word
                    && !is_operator
                    && !FUNCTIONS.contains(&name)
                    && target.is_none_or(|t| t != Kind::Unknown || !name.is_empty())
                {
                    let help = match citybrain_shared::config::closest(name, FUNCTIONS.into_iter()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "known: size, contains, startsWith, endsWith, matches, int, double, string, has, all, exists, filter, map".into(),
                    };
                    self.fault(name, id, format!("unknown function `{name}`"), help);
                }
                Kind::Unknown
            }
        }
    }
}

fn is_type(name: &str) -> bool {
    ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"].contains(&name)
        || name.starts_with('@')
        || name.starts_with("__")
}

/// `event.data.level`, if it is nothing but that.
fn plain_path(e: &IdedExpr) -> Option<String> {
    match &e.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(s) if !s.test && !s.field.contains(['.', '/', '~']) => {
            Some(format!("{}.{}", plain_path(&s.operand)?, s.field))
        }
        _ => None,
    }
}

fn paths(e: &IdedExpr, all: &mut Vec<String>) {
    fn path(e: &IdedExpr) -> Option<String> {
        match &e.expr {
            Expr::Ident(name) => Some(name.clone()),
            Expr::Select(s) => Some(format!("{}.{}", path(&s.operand)?, s.field)),
            // `event.data['PM_US Post']`: a field with a name that is no word.
            Expr::Call(c) if c.func_name == "_[_]" => match c.args.as_slice() {
                [of, IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. }]
                    if !name.inner().contains(['.', '/', '~']) =>
                {
                    Some(format!("{}.{}", path(of)?, name.inner()))
                }
                _ => None,
            },
            _ => None,
        }
    }
    if let Some(path) = path(e) {
        all.push(path);
        return;
    }
    match &e.expr {
        Expr::Select(s) => paths(&s.operand, all),
        Expr::Call(c) => c.target.as_deref().into_iter().chain(&c.args).for_each(|a| paths(a, all)),
        Expr::List(l) => l.elements.iter().for_each(|e| paths(e, all)),
        Expr::Map(m) => {
            for entry in &m.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    paths(&entry.key, all);
                    paths(&entry.value, all);
                }
            }
        }
        Expr::Comprehension(c) => {
            let parts = [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result];
            parts.into_iter().for_each(|part| paths(part, all));
        }
        _ => {}
    }
}
