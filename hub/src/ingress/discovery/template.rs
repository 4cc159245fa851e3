//! How an announced part leads to what it says: the payload itself, a path into it, or a Jinja template.
//!
//! Most templates lead to a value (`{{ value_json.a.b | float }}`), and are followed as the path that they are. Others
//! compute one, by minijinja, out of `value` and `value_json`: in their makers' way, but for two things. What is not
//! there says nothing, and never that all is well. And a template is a stranger's program: its length, what it does and
//! what it says are bounded. The engine's fuel bounds texts, but not lists of lists nor what is computed of constants as
//! a template is read; so [`is_tame`] lets none make a list or loop, and those that are given cannot be multiplied.

use super::super::mapping::{Body, number_or_text};
use citybrain_shared::config::Format;
use citybrain_shared::words;
use minijinja::value::{Enumerator, Object, ObjectRepr, Rest};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, filters, tests as told};
use serde_json::Value;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Characters of a template: a long one of a firmware has some 300.
const CHARS_MAX: usize = 1_000;
/// What a template may do: a step, or 64 bytes made or looked at, is one. A long one takes some 100, a payload of
/// 64 KiB that it looks through 1,000; all of it are a few tenths of a millisecond.
const FUEL: u64 = 3_000;
/// Bytes of what a template says: a word, a number, a short object.
const SAID_BYTES_MAX: usize = 4_096;
/// Parts of a value's path.
pub(super) const PATH_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Way {
    /// The payload as text.
    Whole,
    Path(Vec<String>),
    Computed(Box<Template>),
}

/// What stands where a way leads.
#[derive(Debug)]
pub(super) struct Word {
    pub value: Value,
    /// As it is spelled.
    pub text: String,
    /// `false`: the template asked for something that is not there, and went on without it.
    pub is_certain: bool,
}

impl Way {
    /// The way of a template; an empty one leads to the payload.
    ///
    /// # Errors
    /// What cannot be followed.
    pub(super) fn of(template: &str) -> Result<Way, String> {
        if let Some(way) = plain(template.trim()) {
            return Ok(way);
        }
        let why = |why| format!("`{}` cannot be followed: {why}", words::short(template));
        Template::new(template).map(|template| Way::Computed(Box::new(template))).map_err(why)
    }

    /// Is it lost on a payload that is no JSON?
    pub(super) fn wants_json(&self) -> bool {
        match self {
            Way::Whole => false,
            Way::Path(_) => true,
            Way::Computed(template) => template.wants_json,
        }
    }

    /// Characters of its template, if it is one that computes.
    pub(super) fn chars(&self) -> usize {
        if let Way::Computed(template) = self { template.text.chars().count() } else { 0 }
    }

    /// What stands there; `None`: nothing.
    ///
    /// # Errors
    /// Why the template says nothing of this payload.
    pub(super) fn look<'v>(&self, body: &'v Body<'_>) -> Result<Option<Word>, String> {
        let value = match self {
            Way::Whole => body.value(Format::Text).ok().map(|value| value.into_owned()),
            Way::Path(path) => {
                let step = |v: &'v Value, step: &String| match v {
                    Value::Array(all) => all.get(step.parse::<usize>().ok()?),
                    other => other.get(step),
                };
                body.json().ok().and_then(|json| path.iter().try_fold(json, step)).cloned()
            }
            Way::Computed(template) => return template.render(body),
        };
        Ok(value.and_then(|value| Word::of(value, true)))
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Whole => Ok(()),
            Way::Path(path) => write!(f, " at /{}", path.join("/")),
            Way::Computed(template) => write!(f, " by `{}`", words::short(&template.text)),
        }
    }
}

impl Word {
    fn of(value: Value, is_certain: bool) -> Option<Word> {
        let text = super::spelled(&value);
        let is_nothing = value.is_null() || ["", "unavailable", "unknown", "None"].contains(&text.as_str());
        (!is_nothing).then_some(Word { value, text, is_certain })
    }
}

/// A template that computes.
#[derive(Clone)]
pub(super) struct Template {
    text: String,
    wants_json: bool,
    /// It has this one template, by the name of [`NAME`].
    engine: Environment<'static>,
}

const NAME: &str = "template";
/// What a template is given.
const GIVEN: [&str; 2] = ["value", "value_json"];

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::empty();
    engine.set_fuel(Some(FUEL));
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.add_filter("abs", filters::abs);
    engine.add_filter("bool", filters::bool);
    engine.add_filter("capitalize", filters::capitalize);
    engine.add_filter("d", filters::default);
    engine.add_filter("default", filters::default);
    engine.add_filter("first", filters::first);
    engine.add_filter("float", filters::float);
    engine.add_filter("int", filters::int);
    engine.add_filter("lower", filters::lower);
    engine.add_filter("replace", filters::replace);
    engine.add_filter("round", filters::round);
    engine.add_filter("string", filters::string);
    engine.add_filter("title", filters::title);
    engine.add_filter("trim", filters::trim);
    engine.add_filter("upper", filters::upper);
    engine.add_test("boolean", told::is_boolean);
    engine.add_test("defined", told::is_defined);
    engine.add_test("none", told::is_none);
    engine.add_test("number", told::is_number);
    engine.add_test("string", told::is_string);
    engine.add_test("undefined", told::is_undefined);
    // Of Home Assistant's own words those that announcements of devices have.
    engine.add_filter("is_defined", |value: &minijinja::Value| value.clone());
    engine.add_filter("iif", iif);
    engine.add_function("iif", iif);
    engine.add_filter("bitwise_and", |a: i64, b: i64| a & b);
    engine.set_unknown_method_callback(method);
    engine
});

/// A list that was given: without a length, so that the engine multiplies it with nothing.
#[derive(Debug)]
struct Items(Vec<minijinja::Value>);

impl Object for Items {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        let at = key.as_i64()?;
        let at = if at < 0 { at.checked_add(i64::try_from(self.0.len()).ok()?)? } else { at };
        self.0.get(usize::try_from(at).ok()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        !self.0.is_empty()
    }
}

/// JSON as a template sees it.
pub(in crate::ingress) fn given(json: &Value) -> minijinja::Value {
    match json {
        Value::Null => ().into(),
        Value::Bool(is) => (*is).into(),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            (None, None) => n.as_f64().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(all) => minijinja::Value::from_object(Items(all.iter().map(given).collect())),
        Value::Object(all) => minijinja::Value::from_pairs(all.iter().map(|(key, value)| (key.as_str(), given(value)))),
    }
}

/// Is any member null? (An item of a list has its place, and stays.)
pub(in crate::ingress) fn has_null(json: &Value) -> bool {
    match json {
        Value::Array(all) => all.iter().any(has_null),
        Value::Object(all) => all.values().any(|value| value.is_null() || has_null(value)),
        _ => false,
    }
}

pub(in crate::ingress) fn without_nulls(json: &Value) -> Value {
    match json {
        Value::Array(all) => all.iter().map(without_nulls).collect(),
        Value::Object(all) => {
            let there = all.iter().filter(|(_, value)| !value.is_null());
            there.map(|(key, value)| (key.clone(), without_nulls(value))).collect()
        }
        other => other.clone(),
    }
}

/// What a condition means in Home Assistant: yes, no, or nothing.
fn iif(state: &State<'_, '_>, is: &minijinja::Value, then: Rest<minijinja::Value>) -> Result<minijinja::Value, Error> {
    if is.is_undefined() && state.undefined_behavior() == UndefinedBehavior::Strict {
        return Err(ErrorKind::UndefinedError.into());
    }
    let or = |at: usize, is: bool| then.get(at).cloned().unwrap_or_else(|| is.into());
    Ok(match is {
        is if is.is_true() => or(0, true),
        is if is.is_none() && then.len() > 2 => or(2, false),
        _ => or(1, false),
    })
}

const METHODS: [&str; 8] = ["get", "lower", "upper", "strip", "split", "replace", "startswith", "endswith"];

/// Python's methods, which templates call as in Home Assistant.
fn method(
    state: &mut State<'_, '_>,
    of: &minijinja::Value,
    name: &str,
    args: &[minijinja::Value],
) -> Result<minijinja::Value, Error> {
    let of_text = of.as_str();
    match (name, of_text, args) {
        _ if of.is_undefined() && METHODS.contains(&name) => Err(ErrorKind::UndefinedError.into()),
        // Python has `None` for what is not there; here it is nothing.
        ("get", None, [key]) => of.get_item(key),
        ("get", None, [key, or]) => of.get_item(key).map(|v| if v.is_undefined() { or.clone() } else { v }),
        ("lower", Some(text), []) => Ok(text.to_lowercase().into()),
        ("upper", Some(text), []) => Ok(text.to_uppercase().into()),
        ("strip", Some(text), []) => Ok(text.trim().into()),
        ("startswith", Some(text), [start]) => Ok(start.as_str().is_some_and(|start| text.starts_with(start)).into()),
        ("endswith", Some(text), [end]) => Ok(end.as_str().is_some_and(|end| text.ends_with(end)).into()),
        ("replace", Some(_), [_, _]) => {
            let with: Vec<_> = std::iter::once(of).chain(args).cloned().collect();
            state.apply_filter(name, &with)
        }
        ("split", Some(text), [at]) if at.as_str().is_some_and(|at| !at.is_empty()) => {
            let parts = text.split(at.as_str().unwrap_or_default()).map(Into::into);
            Ok(minijinja::Value::from_object(Items(parts.collect())))
        }
        ("split", Some(text), []) => {
            Ok(minijinja::Value::from_object(Items(text.split_whitespace().map(Into::into).collect())))
        }
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

/// Is it made of values and conditions alone? It makes no list but the constants behind an `in`, and no other variable.
fn is_tame(template: &str) -> Result<(), String> {
    let mut rest = template;
    while let Some(at) = rest.find("{") {
        let (open, inner) = rest[at..].split_at(rest[at..].chars().take(2).map(char::len_utf8).sum());
        rest = match open {
            "{{" => tame_until("}}", inner)?,
            "{%" => {
                let statement = inner.trim_start_matches(['-', '+']).trim_start();
                let word = statement.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                if !["if", "elif", "else", "endif"].contains(&word) {
                    return Err(format!("`{}` is none of `if`, `elif`, `else` and `endif`", words::short(word)));
                }
                tame_until("%}", inner)?
            }
            "{#" => inner.split_once("#}").ok_or("a comment has no end")?.1,
            _ => &rest[at + 1..],
        };
    }
    Ok(())
}

/// What comes behind a tag that ends so.
fn tame_until<'t>(end: &str, tag: &'t str) -> Result<&'t str, String> {
    // Of each open bracket: is it of a call?
    let mut open: Vec<bool> = Vec::new();
    let mut rest = tag;
    // What was before: a word, or a mark.
    let mut before = "";
    loop {
        rest = rest.trim_start();
        if let (true, Some(behind)) = (open.is_empty(), rest.strip_prefix(end)) {
            return Ok(behind);
        }
        let first = rest.chars().next().ok_or("a tag has no end")?;
        let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
        let is_value = is_value(before);
        let len = match first {
            '\'' | '"' => quoted(rest)?,
            '(' => {
                open.push(is_value);
                1
            }
            ')' | ']' => {
                open.pop();
                1
            }
            ',' if open.last() == Some(&true) => 1,
            '[' if is_value => {
                open.push(false);
                1
            }
            '[' if before == "in" => constants(rest)?,
            '[' | ',' | '{' | '}' | ':' => return Err(format!("`{first}` makes a list, or a part of one")),
            c if is_of_word(c) => rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        (before, rest) = rest.split_at(len);
    }
}

/// May what stands behind it be its arguments, or lead into it?
fn is_value(before: &str) -> bool {
    const KEYWORDS: [&str; 10] = ["in", "not", "and", "or", "is", "if", "elif", "else", "endif", ""];
    let ends = before.ends_with(|c: char| c.is_alphanumeric() || ['_', ')', ']', '\'', '"'].contains(&c));
    ends && !KEYWORDS.contains(&before)
}

/// How long a text in quotes is, with them.
fn quoted(text: &str) -> Result<usize, String> {
    let mark = text.chars().next();
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if Some(c) == mark => return Ok(at + 1),
            _ => {}
        }
    }
    Err("a text has no end".to_owned())
}

/// How long a list of constants is, of which nothing else is made.
fn constants(list: &str) -> Result<usize, String> {
    let mut at = 1;
    loop {
        let rest = &list[at..];
        at += match rest.chars().next().ok_or("a list has no end")? {
            '\'' | '"' => quoted(rest)?,
            ']' => break,
            c if c.is_alphanumeric() || ['_', '.', '-', ',', ' '].contains(&c) => c.len_utf8(),
            c => return Err(format!("`{c}` is no constant")),
        };
    }
    let behind = list[at + 1..].trim_start();
    let is_last = ["}}", "%}", "-}}", "-%}", "+}}", "+%}"].iter().any(|end| behind.starts_with(end));
    match behind.chars().next() {
        Some(c) if !is_last && "*+-/%~[.|(".contains(c) => Err(format!("`{c}` makes more of a list")),
        _ => Ok(at + 1),
    }
}

impl Template {
    fn new(text: &str) -> Result<Template, String> {
        if text.chars().count() > CHARS_MAX {
            return Err(format!("a template has at most {CHARS_MAX} characters"));
        }
        is_tame(text)?;
        let mut engine = ENGINE.clone();
        engine.add_template_owned(NAME, text.to_owned()).map_err(|e| said(&e))?;
        let asked = engine.get_template(NAME).map_err(|e| said(&e))?.undeclared_variables(false);
        let is_known =
            |name: &&String| GIVEN.contains(&name.as_str()) || engine.globals().any(|(known, _)| known == *name);
        if let Some(unknown) = asked.iter().find(|name| !is_known(name)) {
            return Err(format!("nothing here is called `{unknown}`"));
        }
        let wants_json = asked.contains("value_json") && !asked.contains("value");
        let template = Template { text: text.to_owned(), wants_json, engine };
        // Words that nobody here knows are known by trying. What is said of an empty payload does not count.
        let empty = Body::new(b"{}");
        match template.tried(UndefinedBehavior::Chainable, empty.for_templates()) {
            Err(e) if is_unknown(&e) => Err(said(&e)),
            _ => Ok(template),
        }
    }

    fn tried(&self, missing: UndefinedBehavior, given: &minijinja::Value) -> Result<String, Error> {
        let render = |engine: &Environment<'_>| engine.get_template(NAME)?.render(given.clone());
        if missing == self.engine.undefined_behavior() {
            return render(&self.engine);
        }
        let mut other = self.engine.clone();
        other.set_undefined_behavior(missing);
        render(&other)
    }

    /// A null is nothing, too, whatever a condition or a sum makes of it.
    fn asks_for_a_null(&self, body: &Body<'_>) -> bool {
        let without = body.without_nulls().map(|given| self.tried(UndefinedBehavior::Strict, given));
        without.is_some_and(|text| text.is_err_and(|e| e.kind() == ErrorKind::UndefinedError))
    }

    fn render(&self, body: &Body<'_>) -> Result<Option<Word>, String> {
        let given = body.for_templates();
        let (text, is_certain) = match self.tried(UndefinedBehavior::Strict, given) {
            // As where it is a yes if any of several is: what is not there is no yes.
            Err(e) if e.kind() == ErrorKind::UndefinedError => {
                (self.tried(UndefinedBehavior::SemiStrict, given), false)
            }
            text => (text, !self.asks_for_a_null(body)),
        };
        let text = match text {
            Err(e) if e.kind() == ErrorKind::UndefinedError => return Ok(None),
            text => text.map_err(|e| said(&e))?,
        };
        if text.len() > SAID_BYTES_MAX {
            return Err(format!("it says more than {SAID_BYTES_MAX} bytes"));
        }
        // A null, whatever became of it on the way.
        let text = Some(text.trim()).filter(|text| !text.eq_ignore_ascii_case("none"));
        Ok(text.and_then(|text| Word::of(read(text), is_certain)))
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// What a template wrote: yes and no as Python and we write them, an object, a number, else a text.
fn read(text: &str) -> Value {
    match text {
        "true" | "True" => true.into(),
        "false" | "False" => false.into(),
        _ if text.starts_with(['{', '[']) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        _ => number_or_text(text),
    }
}

fn is_unknown(e: &Error) -> bool {
    use ErrorKind::{UnknownFilter, UnknownFunction, UnknownMethod, UnknownTest};
    matches!(e.kind(), UnknownFilter | UnknownFunction | UnknownMethod | UnknownTest)
}

fn said(e: &Error) -> String {
    e.detail().map_or_else(|| e.kind().to_string(), str::to_owned)
}

/// Where a template leads that does no more than that: `{{ value_json.a['b'][0] | float }}`. `None`: it does more.
fn plain(template: &str) -> Option<Way> {
    if template.is_empty() {
        return Some(Way::Whole);
    }
    let inner = template.strip_prefix("{{").and_then(|t| t.strip_suffix("}}"))?;
    let mut pieces = inner.trim_matches('-').split('|').map(str::trim);
    let value = pieces.next().unwrap_or_default();
    // None of these makes another value of one that is there.
    const HARMLESS: [&str; 7] = ["float", "int", "round", "default", "is_defined", "string", "trim"];
    if !pieces.all(|f| HARMLESS.contains(&f.split('(').next().unwrap_or_default().trim())) {
        return None;
    }
    if value == "value" {
        return Some(Way::Whole);
    }
    let mut rest = value.strip_prefix("value_json")?;
    let mut path = Vec::new();
    while !rest.is_empty() {
        let (step, after) = if let Some(named) = rest.strip_prefix('.') {
            let end = named.find(['.', '[']).unwrap_or(named.len());
            let (step, after) = named.split_at(end);
            (Some(step).filter(|s| s.chars().all(|c| c.is_alphanumeric() || c == '_')), after)
        } else {
            let (key, after) = rest.strip_prefix('[').and_then(|t| t.split_once(']'))?;
            let quoted = |q: char| key.strip_prefix(q).and_then(|k| k.strip_suffix(q));
            let number = Some(key).filter(|k| k.chars().all(|c| c.is_ascii_digit()));
            (quoted('\'').or_else(|| quoted('"')).or(number), after)
        };
        path.push(step.filter(|s| !s.is_empty())?.to_owned());
        rest = after;
    }
    (path.len() <= PATH_MAX).then_some(Way::Path(path))
}

#[cfg(test)]
mod tests;
