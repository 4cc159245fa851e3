//! The shape of JSON answers: which keys there are, and of which types. Kept in files that a change
//! of an answer has to change, too (`tests/schemas`).
//!
//! A line a key, as `links[].why?: string`: `?` where it may be left out, `null or integer` where
//! several types are possible. With `CITYBRAIN_WRITE_SCHEMAS=1` the files are written anew; a key
//! that was optional before and was not met stays as it is.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Keys by their path. `""` is the answer itself.
pub type Lines = BTreeMap<String, Line>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub is_optional: bool,
    pub types: BTreeSet<String>,
}

/// What was seen of one schema's answers.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    lines: Lines,
    /// How many objects were met at a path, and how often each of their keys.
    objects: BTreeMap<String, u64>,
    met: BTreeMap<String, u64>,
}

impl Seen {
    /// Takes an answer in. What lies at a path in `open` is anybody's: payloads, labels, configs.
    pub fn take(&mut self, answer: &Value, open: &[&str]) {
        self.look("", answer, open);
    }

    fn look(&mut self, path: &str, value: &Value, open: &[&str]) {
        let is_open = open.contains(&path) && !value.is_null();
        let kind = if is_open { "anything" } else { kind_of(value) };
        self.lines.entry(path.to_owned()).or_default().types.insert(kind.to_owned());
        match value {
            _ if is_open => {}
            Value::Object(map) => {
                *self.objects.entry(path.to_owned()).or_default() += 1;
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    *self.met.entry(path.clone()).or_default() += 1;
                    self.look(&path, value, open);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.look(&format!("{path}[]"), item, open)),
            _ => {}
        }
    }

    /// As lines of a file.
    pub fn lines(&self) -> Lines {
        let mut lines = self.lines.clone();
        for (path, line) in &mut lines {
            line.is_optional = self.met.get(path).is_some_and(|n| *n < self.objects[parent(path)]);
        }
        lines
    }

    /// What differs from a file's lines, a sentence each.
    pub fn differences(&self, golden: &Lines) -> Vec<String> {
        let mut found = Vec::new();
        for (path, line) in self.lines() {
            match golden.get(&path) {
                None => found.push(format!("+ {}   is new", write(&path, &line))),
                Some(known) if !line.types.is_subset(&known.types) => {
                    found.push(format!("~ {}   was {}", write(&path, &line), joined(&known.types)));
                }
                Some(known) if line.is_optional && !known.is_optional => {
                    found.push(format!("~ {}   was always there", write(&path, &line)));
                }
                Some(_) => {}
            }
        }
        for (path, known) in golden {
            // What is in a list that was empty, or in an object that was left out, says nothing.
            let is_due = !known.is_optional && self.objects.contains_key(parent(path));
            if is_due && !path.ends_with("[]") && !self.lines.contains_key(path) {
                found.push(format!("- {}   is gone", write(path, known)));
            }
        }
        found
    }

    /// What a file should hold after this: all that was seen, and what `before` knew that this run
    /// could not have met.
    pub fn renewed(&self, before: &Lines) -> Lines {
        let mut lines = self.lines();
        for (path, known) in before {
            let is_possible = known.is_optional || path.ends_with("[]") || !self.objects.contains_key(parent(path));
            match lines.get_mut(path) {
                Some(line) => {
                    line.is_optional |= known.is_optional;
                    line.types.extend(known.types.iter().cloned());
                }
                None if is_possible => drop(lines.insert(path.clone(), known.clone())),
                None => {}
            }
        }
        lines
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(text) if chrono::DateTime::parse_from_rfc3339(text).is_ok() => "time",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

fn joined(types: &BTreeSet<String>) -> String {
    types.iter().map(String::as_str).collect::<Vec<_>>().join(" or ")
}

fn write(path: &str, line: &Line) -> String {
    format!("{path}{}: {}", if line.is_optional { "?" } else { "" }, joined(&line.types))
}

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/schemas")
}

/// `citybrain.status/1` is kept in `status-1.txt`.
pub fn file(schema: &str) -> PathBuf {
    folder().join(format!("{}.txt", schema.trim_start_matches("citybrain.").replace('/', "-")))
}

/// The lines of a file; none if there is no file.
pub fn read(schema: &str) -> Lines {
    let text = std::fs::read_to_string(file(schema)).unwrap_or_default();
    let line = |line: &str| {
        let (path, types) = line.split_once(": ").unwrap_or_else(|| panic!("{schema}: `{line}` does not read"));
        let (path, is_optional) = path.strip_suffix('?').map_or((path, false), |path| (path, true));
        let types = types.split(" or ").map(str::to_owned).collect();
        (path.to_owned(), Line { is_optional, types })
    };
    text.lines().filter(|l| !l.starts_with('#')).map(line).collect()
}

/// Compares with the files, or writes them.
///
/// # Panics
/// With every difference, when there is one.
pub fn settle(all: &BTreeMap<String, Seen>) {
    let is_written = std::env::var_os("CITYBRAIN_WRITE_SCHEMAS").is_some();
    let mut wrong = String::new();
    for (schema, seen) in all {
        let golden = read(schema);
        if is_written {
            let lines = seen.renewed(&golden);
            let text: String = lines.iter().map(|(path, line)| write(path, line) + "\n").collect();
            let head = format!("# {schema}\n");
            std::fs::create_dir_all(folder()).expect("the folder is made");
            std::fs::write(file(schema), head + &text).expect("the file is written");
        } else {
            for difference in seen.differences(&golden) {
                wrong.push_str(&format!("{schema}  {difference}\n"));
            }
        }
    }
    let next = "is it meant? a key that goes or changes its meaning takes a new number; CITYBRAIN_WRITE_SCHEMAS=1 \
                writes the files anew";
    assert!(wrong.is_empty(), "answers differ from tests/schemas:\n{wrong}{next}");
}

#[test]
fn a_key_that_is_new_gone_or_of_another_type_is_told_and_an_empty_list_says_nothing() {
    let mut seen = Seen::default();
    seen.take(&serde_json::json!({"a": 1, "list": [{"x": "2026-01-01T00:00:00Z"}, {"x": null, "y": 1.5}]}), &[]);
    let mut golden = seen.lines();
    assert_eq!(seen.differences(&golden), Vec::<String>::new());
    assert_eq!(golden["list[].y"], Line { is_optional: true, types: ["number".to_owned()].into() });
    let mut other = Seen::default();
    other.take(&serde_json::json!({"a": "text", "b": true, "list": []}), &[]);
    assert_eq!(other.differences(&golden), ["~ a: string   was integer", "+ b: boolean   is new"]);
    golden.insert("gone".into(), Line { is_optional: false, types: ["list".to_owned()].into() });
    assert_eq!(seen.differences(&golden), ["- gone: list   is gone"]);
    // Renewed: what could not be met stays, what should have been met goes.
    let renewed = other.renewed(&golden);
    assert!(renewed.contains_key("list[].y") && !renewed.contains_key("gone"));
    let mut open = Seen::default();
    open.take(&serde_json::json!({"data": {"any": 1}}), &["data"]);
    assert_eq!(open.lines().keys().collect::<Vec<_>>(), ["", "data"]);
}
