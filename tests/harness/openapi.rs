//! Answers compared with `docs/openapi.json`: every status that comes must be there, and every body
//! be what its schema says, without a key that the schema does not know.

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

const ROOT: &str = "http://node/openapi.json";
/// Lines of a stream that are looked at; the others are as these are.
const LINES_MAX: usize = 100;

pub struct Document {
    pub json: Value,
    schemas: Schemas,
    /// Method, path, status (of a request 0), content type.
    places: BTreeMap<(String, String, u16, String), SchemaIndex>,
}

/// The document in the sources, which is the one that a node serves.
pub fn document() -> &'static Document {
    static DOCUMENT: OnceLock<Document> = OnceLock::new();
    DOCUMENT.get_or_init(|| Document::read(include_str!("../../docs/openapi.json")))
}

impl Document {
    fn read(text: &str) -> Document {
        let json: Value = serde_json::from_str(text).expect("the document is JSON");
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.set_default_draft(Draft::V2020_12);
        compiler.enable_format_assertions();
        // Each schema of an answer under a number, beside what they refer to.
        let mut keys = Vec::new();
        let mut answers = Map::new();
        for (path, methods) in json["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                    answers.insert(keys.len().to_string(), content["schema"].clone());
                    keys.push((method.to_uppercase(), path.clone(), 0, kind.clone()));
                }
                for (status, response) in operation["responses"].as_object().expect("responses") {
                    let response = resolved(&json, response);
                    for (kind, content) in response["content"].as_object().into_iter().flatten() {
                        let schema = &content["schema"];
                        let line = schema.get("x-line").unwrap_or(schema);
                        answers.insert(keys.len().to_string(), line.clone());
                        let status = status.parse().expect("a status is a number");
                        keys.push((method.to_uppercase(), path.clone(), status, kind.clone()));
                    }
                }
            }
        }
        let root = json!({"$defs": answers, "components": {"schemas": closed(&json["components"]["schemas"])}});
        compiler.add_resource(ROOT, root).expect("the schemas are a resource");
        let compile = |at: usize| {
            compiler
                .compile(&format!("{ROOT}#/$defs/{at}"), &mut schemas)
                .unwrap_or_else(|e| panic!("{:?}: {e:#}", keys[at]))
        };
        let indexes: Vec<SchemaIndex> = (0..keys.len()).map(compile).collect();
        let places = keys.into_iter().zip(indexes).collect();
        Document { json, schemas, places }
    }

    /// The path as the document has it.
    pub fn template(&self, method: &str, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap_or_default();
        let paths = self.json["paths"].as_object().expect("paths");
        let fits = |template: &&String| {
            paths[*template].get(method.to_lowercase()).is_some()
                && match template.strip_suffix("{address}") {
                    Some(stem) => path.starts_with(stem),
                    None => {
                        let (words, parts): (Vec<&str>, Vec<&str>) =
                            (template.split('/').collect(), path.split('/').collect());
                        words.len() == parts.len()
                            && words.iter().zip(&parts).all(|(w, p)| w == p || w.starts_with('{'))
                    }
                }
        };
        paths.keys().filter(fits).min_by_key(|t| t.matches('{').count()).map(String::as_str)
    }

    /// Examples of what may be sent: method, path, content type, name, and the body. Each is what its schema says.
    pub fn examples(&self) -> Vec<(String, String, String, String, Value)> {
        let mut all = Vec::new();
        let requests = self.places.iter().filter(|((_, _, status, _), _)| *status == 0);
        for ((method, path, _, kind), index) in requests {
            let content = &self.json["paths"][path][method.to_lowercase()]["requestBody"]["content"][kind];
            for (name, example) in content["examples"].as_object().into_iter().flatten() {
                let value = example["value"].clone();
                if let Err(error) = self.schemas.validate(&value, *index) {
                    panic!("{method} {path}: the example `{name}` is not what the document says: {error:#}\n{value:#}");
                }
                all.push((method.clone(), path.clone(), kind.clone(), name.clone(), value));
            }
        }
        all
    }

    /// # Panics
    /// When the answer is not what the document says.
    pub fn check(&self, method: &str, path: &str, status: u16, content_type: &str, body: &str) {
        let Some(template) = self.template(method, path) else {
            assert!(
                path.starts_with("/open311/") || [404, 405, 401, 403].contains(&status),
                "{method} {path} is not in the document"
            );
            return;
        };
        if status == 304 {
            let is_told = self.json["paths"][template]["get"]["responses"].get("304").is_some();
            return assert!(is_told && body.is_empty(), "{method} {path}: 304, and the document knows none: {body}");
        }
        let kind = content_type.split(';').next().unwrap_or_default();
        let place = |kind: &str| self.places.get(&(method.to_owned(), template.to_owned(), status, kind.to_owned()));
        let Some(index) = place(kind).or_else(|| place("*/*")) else {
            panic!("{method} {path}: {status} as {kind} is not in the document: {body}");
        };
        let values: Vec<Value> = match kind {
            "application/x-ndjson" => {
                body.lines().take(LINES_MAX).map(|l| serde_json::from_str(l).expect("a line is JSON")).collect()
            }
            _ if kind.ends_with("json") => {
                vec![serde_json::from_str(body).unwrap_or_else(|e| panic!("{method} {path}: {e}: {body}"))]
            }
            _ => vec![body.into()],
        };
        for value in values {
            if let Err(error) = self.schemas.validate(&value, *index) {
                panic!("{method} {path}: {status} is not what the document says: {error:#}\n{value:#}");
            }
        }
    }
}

fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(at) => document.pointer(at.trim_start_matches('#')).unwrap_or_else(|| panic!("{at} is not there")),
        None => value,
    }
}

/// The schemas, so that an object has only the keys that they tell of. Readers must pass over keys
/// that they do not know, so the document itself does not say so.
fn closed(schemas: &Value) -> Value {
    let mut schemas = schemas.as_object().expect("schemas").clone();
    let parts: BTreeSet<String> = schemas
        .values()
        .filter_map(|s| s["allOf"].as_array())
        .flatten()
        .filter_map(|s| s["$ref"].as_str()?.rsplit('/').next().map(str::to_owned))
        .collect();
    for (name, schema) in &mut schemas {
        let Value::Object(schema) = schema else { continue };
        if schema.contains_key("properties") && !schema.contains_key("additionalProperties") && !parts.contains(name) {
            schema.insert("unevaluatedProperties".into(), false.into());
        }
    }
    schemas.into()
}
