//! Texts with `${CEL}` in them, and JSON whose strings are such texts.

use super::expression::{Expression, Facts, Fault, Scope, Wants};
use super::window::Summary;
use serde_json::Value as Json;

#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Cel(Expression),
}

impl Part {
    fn expression(&self) -> Option<&Expression> {
        match self {
            Part::Cel(cel) => Some(cel),
            Part::Text(_) => None,
        }
    }
}

impl Template {
    /// # Errors
    /// Faults with their places in `text`.
    pub fn compile(text: &str, scope: Scope) -> Result<Template, Vec<Fault>> {
        let mut parts = Vec::new();
        let mut faults = Vec::new();
        let mut from = 0;
        while let Some(at) = text[from..].find("${").map(|i| from + i) {
            if at > from {
                parts.push(Part::Text(text[from..at].to_owned()));
            }
            let Some(end) = closing(&text[at + 2..]).map(|i| at + 2 + i) else {
                faults.push(Fault {
                    message: "`${` without `}`".into(),
                    at: at..text.len(),
                    help: "write `${event.subject}`".into(),
                });
                return Err(faults);
            };
            match Expression::compile(&text[at + 2..end], scope, Wants::Anything) {
                Ok(cel) => parts.push(Part::Cel(cel)),
                Err(found) => {
                    faults.extend(found.into_iter().map(|f| Fault { at: f.at.start + at + 2..f.at.end + at + 2, ..f }))
                }
            }
            from = end + 1;
        }
        if from < text.len() {
            parts.push(Part::Text(text[from..].to_owned()));
        }
        if faults.is_empty() { Ok(Template { parts }) } else { Err(faults) }
    }

    pub fn expressions(&self) -> Vec<&Expression> {
        self.parts.iter().filter_map(Part::expression).collect()
    }

    /// What cannot be filled in becomes `?`, and counts as an error of the rule: an alarm with a hole in its
    /// title is better than none.
    pub fn text(&self, facts: &Facts, window: Option<&Summary>) -> String {
        let part = |p: &Part| match p {
            Part::Text(t) => t.clone(),
            Part::Cel(cel) => cel.text(facts, window).unwrap_or_else(|why| {
                facts.lacks(why);
                "?".into()
            }),
        };
        self.parts.iter().map(part).collect()
    }

    /// The text, if all of it can be filled in.
    pub fn whole(&self, facts: &Facts, window: Option<&Summary>) -> Option<String> {
        let part = |p: &Part| match p {
            Part::Text(t) => Some(t.clone()),
            Part::Cel(cel) => cel.text(facts, window).ok(),
        };
        self.parts.iter().map(part).collect()
    }

    /// A text that is one expression keeps that expression's type.
    fn json(&self, facts: &Facts, window: Option<&Summary>) -> Json {
        match &self.parts[..] {
            [Part::Cel(cel)] => cel.json(facts, window).unwrap_or_else(|why| {
                facts.lacks(why);
                Json::Null
            }),
            _ => self.text(facts, window).into(),
        }
    }

    /// The texts that it can give, as far as they stand in it: itself, or the words of the one expression that it is.
    pub fn known(&self) -> Vec<&str> {
        match &self.parts[..] {
            [Part::Cel(cel)] => cel.words(),
            _ => self.constant().into_iter().collect(),
        }
    }

    /// The text, if it needs nothing filled in.
    pub fn constant(&self) -> Option<&str> {
        match &self.parts[..] {
            [] => Some(""),
            [Part::Text(t)] => Some(t),
            _ => None,
        }
    }
}

/// Where the `}` of an expression stands: braces and strings inside it are skipped.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(i),
            (None, '}') => depth -= 1,
            _ => {}
        }
    }
    None
}

#[derive(Debug)]
pub enum JsonTemplate {
    Constant(Json),
    Text(Template),
    Array(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

impl JsonTemplate {
    /// # Errors
    /// Faults, each with the path of its string below this value (`.level`, `.0`).
    pub fn compile(json: &Json, scope: Scope) -> Result<JsonTemplate, Vec<(String, Fault)>> {
        let mut faults = Vec::new();
        let made = JsonTemplate::make(json, scope, "", &mut faults);
        if faults.is_empty() { Ok(made) } else { Err(faults) }
    }

    fn make(json: &Json, scope: Scope, path: &str, faults: &mut Vec<(String, Fault)>) -> JsonTemplate {
        match json {
            Json::String(s) if s.contains("${") => match Template::compile(s, scope) {
                Ok(t) => JsonTemplate::Text(t),
                Err(found) => {
                    faults.extend(found.into_iter().map(|f| (path.to_owned(), f)));
                    JsonTemplate::Constant(Json::Null)
                }
            },
            Json::Array(all) => {
                let each = |(i, v)| JsonTemplate::make(v, scope, &format!("{path}.{i}"), faults);
                JsonTemplate::Array(all.iter().enumerate().map(each).collect())
            }
            Json::Object(all) => JsonTemplate::Object(
                all.iter()
                    .map(|(k, v)| (k.clone(), JsonTemplate::make(v, scope, &format!("{path}.{k}"), faults)))
                    .collect(),
            ),
            other => JsonTemplate::Constant(other.clone()),
        }
    }

    pub fn expressions(&self) -> Vec<&Expression> {
        match self {
            JsonTemplate::Constant(_) => Vec::new(),
            JsonTemplate::Text(t) => t.expressions(),
            JsonTemplate::Array(all) => all.iter().flat_map(JsonTemplate::expressions).collect(),
            JsonTemplate::Object(all) => all.iter().flat_map(|(_, t)| t.expressions()).collect(),
        }
    }

    pub fn fill(&self, facts: &Facts, window: Option<&Summary>) -> Json {
        match self {
            JsonTemplate::Constant(json) => json.clone(),
            JsonTemplate::Text(t) => t.json(facts, window),
            JsonTemplate::Array(all) => all.iter().map(|t| t.fill(facts, window)).collect(),
            JsonTemplate::Object(all) => {
                Json::Object(all.iter().map(|(k, t)| (k.clone(), t.fill(facts, window))).collect())
            }
        }
    }
}
