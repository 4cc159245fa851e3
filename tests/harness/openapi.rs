//! Questions and answers compared with `docs/openapi.json`: every status that comes must be there, and every
//! body be what its schema says, without a key that the schema does not know; and what a node takes, its query
//! and its body, must be what the document says may be asked.

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
    /// Method, path, name of what stands in the query.
    queries: BTreeMap<(String, String, String), SchemaIndex>,
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
        let (mut keys, mut asked) = (Vec::new(), Vec::new());
        let (mut answers, mut parameters) = (Map::new(), Map::new());
        for (path, methods) in json["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods").iter().filter(|(m, _)| *m != "parameters")
            {
                for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                    answers.insert(keys.len().to_string(), content["schema"].clone());
                    keys.push((method.to_uppercase(), path.clone(), 0, kind.clone()));
                }
                let of_both = [&methods["parameters"], &operation["parameters"]];
                for parameter in of_both.into_iter().filter_map(Value::as_array).flatten() {
                    let parameter = resolved(&json, parameter);
                    if parameter["in"] == "query" {
                        let name = parameter["name"].as_str().expect("it has a name").to_owned();
                        parameters.insert(asked.len().to_string(), parameter["schema"].clone());
                        asked.push((method.to_uppercase(), path.clone(), name));
                    }
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
        let root = json!({"$defs": answers, "asked": parameters, "components": {"schemas": closed(&json["components"]["schemas"])}});
        compiler.add_resource(ROOT, root).expect("the schemas are a resource");
        let mut compile = |at: String| {
            compiler.compile(&format!("{ROOT}#/{at}"), &mut schemas).unwrap_or_else(|e| panic!("{at}: {e:#}"))
        };
        let indexes: Vec<SchemaIndex> = (0..keys.len()).map(|i| compile(format!("$defs/{i}"))).collect();
        let places = keys.into_iter().zip(indexes).collect();
        let indexes: Vec<SchemaIndex> = (0..asked.len()).map(|i| compile(format!("asked/{i}"))).collect();
        let queries = asked.into_iter().zip(indexes).collect();
        Document { json, schemas, places, queries }
    }

    /// The path as the document has it; as in a router, the plainest one that fits, whatever its methods.
    pub fn template(&self, method: &str, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap_or_default();
        let paths = self.json["paths"].as_object().expect("paths");
        let fits = |template: &&String| {
            if let Some(stem) = template.strip_suffix("{address}") {
                return path.starts_with(stem);
            }
            let (words, parts): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
            words.len() == parts.len() && words.iter().zip(&parts).all(|(w, p)| w == p || w.starts_with('{'))
        };
        let template = paths.keys().filter(fits).min_by_key(|t| t.matches('{').count())?;
        paths[template].get(method.to_lowercase()).map(|_| template.as_str())
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

    /// What a node has taken: everything in the query, and the body.
    ///
    /// # Panics
    /// When the document does not say that it may be asked so.
    pub fn check_asked(&self, method: &str, uri: &str, content_type: &str, body: &str) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let Some(template) = self.template(method, path) else { return };
        for (name, text) in form_urlencoded::parse(query.as_bytes()) {
            let Some(index) = self.queries.get(&(method.to_owned(), template.to_owned(), name.to_string())) else {
                panic!("{method} {uri} was taken, and the document knows no `{name}`");
            };
            // A number or a yes, as the query writes it, or a text.
            let read = serde_json::from_str::<Value>(&text).ok().filter(|v| !v.is_object() && !v.is_array());
            let fits = |value: &Value| self.schemas.validate(value, *index).is_ok();
            let text = Value::String(text.into_owned());
            assert!(
                read.is_some_and(|v| fits(&v)) || fits(&text),
                "{method} {uri}: `{name}` is not as the document says"
            );
        }
        let kind = content_type.split(';').next().filter(|kind| !kind.is_empty()).unwrap_or("application/json");
        let place = |kind: &str| self.places.get(&(method.to_owned(), template.to_owned(), 0, kind.to_owned()));
        // Who says nothing says nothing wrong.
        let has_body = !self.json["paths"][template][method.to_lowercase()]["requestBody"].is_null();
        if body.is_empty() || (body == "{}" && !has_body) {
            return;
        }
        // JSON is read as what it is, whatever a client calls it.
        let Some(index) = place(kind).or_else(|| place("*/*")).or_else(|| place("application/json")) else {
            panic!("{method} {path} took a body as `{kind}`, and the document knows none");
        };
        let value = serde_json::from_str(body).unwrap_or_else(|_| body.into());
        if let Err(error) = self.schemas.validate(&value, *index) {
            panic!("{method} {path} was taken, and is not what the document says: {error:#}\n{value:#}");
        }
    }

    /// # Panics
    /// When the answer is not what the document says.
    pub fn check(&self, method: &str, path: &str, status: u16, content_type: &str, body: &str) {
        let Some(template) = self.template(method, path) else {
            // What a browser asks before a page's request is no route's.
            assert!(
                method == "OPTIONS" || path.starts_with("/open311/") || [404, 405, 401, 403].contains(&status),
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
