//! Writes `docs/openapi.json` from the table of routes and the types of what goes in and comes out.
//!
//! Only tests are built with this; the node serves the file. `CITYBRAIN_WRITE_SCHEMAS=1 cargo test
//! -p citybrain --lib describe` writes it anew when a route or an answer was changed on purpose.

use super::road;
use super::table::{Said, said};
use axum::http::Method;
use citybrain_shared::case::Verb;
use citybrain_shared::view::{self, View};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const REFS: &str = "#/components/schemas/";

type Write = fn(&mut SchemaGenerator) -> Schema;

/// The types of a row.
#[derive(Clone, Default)]
pub struct Types {
    query: Vec<Write>,
    takes: Option<Write>,
    pub takes_events: bool,
    /// Content type of what is no JSON, and what it is.
    pub takes_as: Option<(&'static str, &'static str)>,
    /// Status, name of the view's schema, and the view.
    gives: Vec<(u16, &'static str, Write)>,
    lines: Option<Write>,
    /// Content type of what is no view, and what it is.
    gives_as: Option<(&'static str, &'static str)>,
    pub is_tagged: bool,
    pub is_stepped: bool,
    pub or: Vec<u16>,
}

impl Types {
    pub fn query<Q: JsonSchema>(&mut self) {
        self.query.push(SchemaGenerator::subschema_for::<Q>);
    }

    pub fn takes<B: JsonSchema>(&mut self) {
        self.takes = Some(SchemaGenerator::subschema_for::<B>);
    }

    pub fn gives<V: View + JsonSchema>(&mut self, status: u16) {
        self.gives.push((status, V::SCHEMA, SchemaGenerator::subschema_for::<V>));
    }

    pub fn lines<L: JsonSchema>(&mut self) {
        self.lines = Some(SchemaGenerator::subschema_for::<L>);
    }

    pub fn gives_as(&mut self, content_type: &'static str, what: &'static str) {
        self.gives_as = Some((content_type, what));
    }
}

/// What each status means wherever it comes; its body is a [`view::Failure`].
const FAILURES: [(u16, &str, &str); 15] = [
    (400, "BadRequest", "It does not read, or asks for what cannot be; an event is kept as a dead letter."),
    (401, "Unauthorized", "No token was given, or one that the node does not know."),
    (
        403,
        "Forbidden",
        "The token's role does not allow it, or the rules of a case do not; or a web page of another origin asks.",
    ),
    (404, "NotFound", "There is no such thing at this node."),
    (405, "NotFromAbove", "With `x-citybrain-at`: this is done at the node itself."),
    (409, "Conflict", "It cannot be done as things stand; or a request with the same idempotency key is under way."),
    (410, "Gone", "The log is trimmed beyond the position asked for, or ends before it."),
    (413, "TooLarge", "The body is too large; or the answer is, for the links."),
    (415, "UnknownType", "The content type is none of CloudEvents' HTTP binding."),
    (500, "Broken", "The log does not read, or a bug."),
    (
        503,
        "Unavailable",
        "The node stops, cannot write, or has too many questions or streams under way; or (`not-yet`) it is in place of \
         a lost box, and has not heard from the others what they know of that.",
    ),
    (504, "Late", "Not on disk in time, or a node below did not answer."),
    (412, "PreconditionFailed", "It has changed since."),
    (429, "TooMany", "The token has asked more often than its minute allows."),
    (
        422,
        "OtherRequest",
        "The idempotency key was used for another request; or the answer would be too long, or take too long.",
    ),
];

/// The document, as text.
fn document() -> String {
    let settings = || SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut told = settings().for_serialize().into_generator();
    let mut asked = settings().for_deserialize().into_generator();
    told.subschema_for::<view::Head>();
    told.subschema_for::<view::Failure>();
    told.subschema_for::<view::Unanswered>();
    told.subschema_for::<view::Damaged>();
    told.subschema_for::<view::Asked>();

    let mut answers: BTreeMap<String, Value> = BTreeMap::new();
    let mut operations: Vec<(&Said, Value)> = Vec::new();
    for said in said() {
        let mut operation = operation(said);
        if let Some(takes) = said.types.takes {
            operation["requestBody"] =
                json!({"content": {"application/json": {"schema": input(&takes(&mut asked).to_value())}}});
        }
        // One that takes no body has none to show.
        if let Some(body) = operation.get_mut("requestBody").filter(|_| said.method == Method::POST) {
            super::examples::put(said.path, body);
        }
        for query in &said.types.query {
            operation["x-query"].as_array_mut().unwrap().push(input(&query(&mut asked).to_value()));
        }
        let mut responses = Map::new();
        for (status, name, write) in &said.types.gives {
            let view = write(&mut told).to_value();
            let answer = format!("{}Answer", name_of(&view));
            let about = json!({"allOf": [{"$ref": format!("{REFS}Head")}, view],
                "properties": {"schema": {"type": "string", "enum": [name]}}});
            let one = json!({"$ref": format!("{REFS}{answer}")});
            answers.insert(answer, about);
            let place = responses
                .entry(status.to_string())
                .or_insert_with(|| response(*status, "application/json", Value::Null));
            let schema = &mut place["content"]["application/json"]["schema"];
            *schema = match schema.take() {
                Value::Null => one,
                Value::Object(mut more) if more.contains_key("anyOf") => {
                    more["anyOf"].as_array_mut().unwrap().push(one);
                    more.into()
                }
                first => json!({"anyOf": [first, one]}),
            };
        }
        if let Some(write) = said.types.lines {
            let line = write(&mut told).to_value();
            let mut more = vec![
                line,
                json!({"type": "object", "required": ["damaged"],
                "properties": {"damaged": {"$ref": format!("{REFS}Damaged")}}}),
            ];
            if said.path == "/v1/ask" {
                let about = json!({"allOf": [{"$ref": format!("{REFS}Head")}, {"$ref": format!("{REFS}Asked")}],
                    "properties": {"schema": {"type": "string", "enum": [view::Asked::SCHEMA]}}});
                answers.insert("AskedAnswer".into(), about);
                more[1] = json!({"$ref": format!("{REFS}AskedAnswer")});
            }
            let schema = json!({"type": "string", "description": "Lines; each is what `x-line` says.",
                "x-line": {"anyOf": more}});
            responses.insert("200".into(), response(200, "application/x-ndjson", schema));
        }
        if let Some((content_type, what)) = said.types.gives_as {
            let schema = match content_type {
                "*/*" => json!({}),
                json if json.ends_with("json") => json!({"type": "object"}),
                _ => json!({"type": "string"}),
            };
            let mut response = response(200, content_type, schema);
            response["description"] = what.into();
            responses.insert("200".into(), response);
        }
        if said.is_paged {
            responses["200"]["headers"] = json!({"Link": {"schema": {"type": "string"},
                "description": "`rel=\"next\"`: the next page, if there is one (RFC 8288)."}});
        }
        if said.types.is_tagged {
            responses["200"]["headers"]["ETag"] = json!({"schema": {"type": "string"}});
            responses.insert(
                "304".into(),
                json!({"description": "It is as `If-None-Match` has it.",
                "headers": {"ETag": {"schema": {"type": "string"}}}}),
            );
        }
        for status in failures(said) {
            let name = FAILURES.iter().find(|(s, ..)| *s == status).map(|(_, name, _)| *name);
            let name = name.unwrap_or_else(|| panic!("{status} of {} is no failure", said.path));
            responses
                .entry(status.to_string())
                .or_insert_with(|| json!({"$ref": format!("#/components/responses/{name}")}));
        }
        operation["responses"] = responses.into();
        operations.push((said, operation));
    }

    let mut schemas = told.take_definitions(true);
    schemas.values_mut().for_each(tidy_told);
    let mut taken = asked.take_definitions(true);
    let names = input_names(&schemas, &taken);
    for schema in taken.values_mut() {
        *schema = input(schema);
        rename(schema, &names);
    }
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for (said, mut operation) in operations {
        rename(&mut operation, &names);
        let queries = operation.as_object_mut().unwrap().remove("x-query").unwrap();
        for query in queries.as_array().unwrap() {
            // Written out as parameters, and no schema of its own.
            let name = name_of(query);
            let known = taken.iter().find(|(old, _)| names.get(*old).unwrap_or(old) == name);
            let (_, schema) = known.unwrap_or_else(|| panic!("the query of {} has no schema {name}", said.path));
            operation["parameters"].as_array_mut().unwrap().extend(parameters(schema));
        }
        let path = said.path.replace("{*", "{");
        paths.entry(path).or_default().insert(said.method.as_str().to_lowercase(), operation);
    }
    let used = used(&json!([paths, answers, schemas]));
    for (name, schema) in taken {
        schemas.insert(names.get(&name).cloned().unwrap_or(name), schema);
    }
    schemas.extend(answers);
    schemas.insert("CloudEvent".into(), cloud_event());
    let mut document = json!({
        "openapi": "3.1.0",
        "info": about(),
        "servers": [{"url": "/", "description": "The node that serves this document"}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": reachable(schemas, used),
            "responses": responses(),
            "parameters": {"At": {
                "name": view::HEADER_AT, "in": "header", "required": false, "schema": {"type": "string"},
                "description": "The node at or below this one that is to answer instead, through the links.",
            }},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer",
                "description": "A token of `citybrain token add`, where the node's config has `[api] tokens_file`."}},
        },
    });
    tidy_texts(&mut document);
    each(&mut document, &mut |object| {
        whole_enum(object);
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            properties.values_mut().filter(|p| **p == json!(true)).for_each(|p| *p = json!({}));
        }
    });
    let mut text = Vec::new();
    let mut writer =
        serde_json::Serializer::with_formatter(&mut text, serde_json::ser::PrettyFormatter::with_indent(b" "));
    document.serialize(&mut writer).unwrap();
    text.push(b'\n');
    String::from_utf8(text).unwrap()
}

fn about() -> Value {
    json!({
        "title": "citybrain",
        "version": env!("CARGO_PKG_VERSION"),
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        "description": "The HTTP API of a node. Every answer but a stream has a head: `schema` (a name and a number \
            that grows when a key changes its meaning or goes), `node` (whose record it is), `as_of`. Keys may be added \
            without that. An error is a `Failure` with a stable word. Query parameters that a path below `/v1/` \
            does not know are refused. `x-role` is the role that a token must have at least. Open311 GeoReport \
            v2 lies below `/open311/v2/` and describes itself there; `/asyncapi.json` describes the MQTT topics.",
    })
}

fn operation(said: &Said) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    for name in said.path.split('/').filter_map(|w| w.strip_prefix('{')).map(|w| w.trim_matches(['*', '}'])) {
        let (schema, about) = match name {
            "step" => {
                let verbs: Vec<&str> = Verb::ALL.iter().map(|v| v.as_str()).collect();
                (json!({"type": "string", "enum": verbs}), "What is to be done with it.")
            }
            "action" => (json!({"type": "string", "enum": ["ack", "clear", "shelve"]}), "What is to be done with it."),
            "pos" => (json!({"type": "integer", "format": "uint64", "minimum": 0}), "Its position in the log."),
            "address" => (json!({"type": "string"}), "The node's address; each `/` in it as it is, or as `%2F`."),
            "code" => (json!({"type": "string"}), "The service's code."),
            _ if said.path.contains("cases") => (
                json!({"type": "string"}),
                "The case's id, or so much of it that no other case is meant; an app names it whole.",
            ),
            _ => (json!({"type": "string"}), "Its id."),
        };
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema, "description": about}));
    }
    let is_v1 = said.path.starts_with("/v1/");
    if is_v1 && (said.method == Method::GET || road::is_change(said.path)) {
        parameters.push(json!({"$ref": "#/components/parameters/At"}));
    }
    let mut header = |name: &str, about: &str| {
        parameters.push(json!({"name": name, "in": "header", "required": false, "schema": {"type": "string"}, "description": about}));
    };
    if said.types.is_tagged {
        header("If-None-Match", "Entity tags of answers that the asker has.");
    }
    if said.types.is_stepped {
        header(
            "If-Match",
            "The case's `ETag` as it was seen: if it has moved on when it is to be stepped, nothing is done.",
        );
    }
    if said.method == Method::POST {
        header(
            "Idempotency-Key",
            "One word of the asker's own, such as a UUID in quotes: asked again with the same one \
            within a day, the change is made once and the answer is the same.",
        );
    }
    let words = said.path.split(['/', '.', '-']).map(|w| w.trim_matches(['{', '*', '}']));
    let name: String = words.filter(|w| !["", "v1"].contains(w)).map(|w| format!("_{w}")).collect();
    let mut operation = json!({
        "operationId": format!("{}{name}", said.method.as_str().to_lowercase()),
        "summary": said.about,
        "tags": [if is_v1 { said.path.split('/').nth(2).unwrap_or_default() } else { "node" }],
        "parameters": parameters,
        "x-query": [],
    });
    match said.needs {
        Some(role) => {
            operation["x-role"] = role.as_str().into();
            if let Some(also) = said.also {
                operation["x-role-also"] = also.as_str().into();
            }
        }
        None => operation["security"] = json!([]),
    }
    if let Some((content_type, what)) = said.types.takes_as {
        operation["requestBody"] = json!({"required": true, "description": what,
            "content": {content_type: {"schema": {"type": "string"}}}});
    }
    if said.types.takes_events {
        let event = json!({"schema": {"$ref": format!("{REFS}CloudEvent")}});
        operation["requestBody"] = json!({"required": true, "content": {
            "application/cloudevents+json": event,
            "application/cloudevents-batch+json":
                {"schema": {"type": "array", "maxItems": super::binding::BATCH_EVENTS_MAX, "items": {"$ref": format!("{REFS}CloudEvent")}}},
            "application/json": event,
        }, "description": "Or in binary mode: attributes as `ce-` headers, the body is the data."});
    }
    operation
}

/// Statuses of errors that a route may answer.
fn failures(said: &Said) -> BTreeSet<u16> {
    let mut all: BTreeSet<u16> = said.types.or.iter().copied().collect();
    // What is open to everybody is so at this node: with `x-citybrain-at` it takes a token.
    all.insert(401);
    if said.needs.is_some() {
        all.extend([403, 429]);
    }
    if said.method == Method::POST {
        all.extend([409, 422]);
        if !road::is_change(said.path) {
            all.insert(405);
        }
    }
    if said.types.is_stepped {
        all.insert(412);
    }
    if said.path.starts_with("/v1/") {
        all.extend([400, 413, 500, 503, 504]);
    }
    all
}

fn response(status: u16, content_type: &str, schema: Value) -> Value {
    let about = match status {
        200 => "Done, or as it is.",
        201 => "It is new, and on disk.",
        202 => "On disk; what comes of it comes later.",
        _ => "No.",
    };
    json!({"description": about, "content": {content_type: {"schema": schema}}})
}

fn responses() -> Value {
    let one = |(status, name, about): (u16, &str, &str)| {
        let schema = if status == 504 { "Unanswered" } else { "Failure" };
        let mut one = json!({"description": about,
            "content": {"application/json": {"schema": {"$ref": format!("{REFS}{schema}")}}}});
        if status == 429 {
            one["headers"] = json!({"Retry-After": {"schema": {"type": "integer", "minimum": 1},
                "description": "Seconds until there is room."}});
        }
        if status == 503 {
            one["headers"] = json!({"Retry-After": {"schema": {"type": "integer", "minimum": 1},
                "description": "Seconds until it may be asked again, where that is known."}});
        }
        if status == 401 {
            one["headers"] = json!({"WWW-Authenticate": {"schema": {"const": "Bearer"}}});
        }
        (name.to_owned(), one)
    };
    FAILURES.into_iter().map(one).collect::<Map<_, _>>().into()
}

/// CloudEvents 1.0.2 in JSON, with the attributes that citybrain reads.
fn cloud_event() -> Value {
    let text = |about: &str| json!({"type": "string", "minLength": 1, "description": about});
    json!({
        "type": "object",
        "description": "A CloudEvent. Attributes of its own are allowed: lower-case letters and digits.",
        "required": ["specversion", "source", "type"],
        "additionalProperties": true,
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text("With `source` it names the event: sent twice, it is there once. Without one it gets one."),
            "source": text("Who says so."),
            "type": text("What happened, such as `city.lamp.failed`."),
            "subject": {"type": "string"},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"type": "string"},
            "dataschema": {"type": "string"},
            "data": {"description": "Anything."},
            "data_base64": {"type": "string", "contentEncoding": "base64"},
            "priority": {"enum": ["urgent", "routine"], "description": "Urgent overtakes everything on every hop."},
            "reach": {"enum": ["city", "street", "community", "neighbourhood"],
                "description": "The highest tier that it climbs to."},
            "governance": {"enum": ["party", "autonomy", "virtue", "law"]},
        },
    })
}

// ---- schemas -----------------------------------------------------------------------------------

/// A schema of what goes in; its references are told apart from those of what comes out.
fn input(schema: &Value) -> Value {
    let text = schema.to_string().replace(REFS, &format!("{REFS}<"));
    serde_json::from_str(&text).unwrap()
}

fn name_of(reference: &Value) -> &str {
    let at = reference["$ref"].as_str().unwrap_or_else(|| panic!("no reference: {reference}"));
    at.strip_prefix(REFS).unwrap().trim_start_matches('<')
}

/// What schemas of what goes in are called: as they are, unless what comes out has another of that
/// name (there a key is always there that may be left out here).
fn input_names(told: &Map<String, Value>, asked: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut other: BTreeSet<&String> =
        asked.keys().filter(|name| told.get(*name).is_some_and(|t| *t != asked[*name])).collect();
    loop {
        let refers = |schema: &Value| used(schema).iter().any(|name| other.contains(name));
        let more: Vec<&String> =
            asked.keys().filter(|n| !other.contains(n) && told.contains_key(*n) && refers(&asked[*n])).collect();
        if more.is_empty() {
            break;
        }
        other.extend(more);
    }
    other.into_iter().map(|name| (name.clone(), format!("{name}Given"))).collect()
}

/// Gives references of what goes in the names that they have at last. Those of what comes out have no `<`.
fn rename(schema: &mut Value, names: &BTreeMap<String, String>) {
    each(schema, &mut |object| {
        let Some(Value::String(at)) = object.get_mut("$ref") else { return };
        let Some(name) = at.strip_prefix(&format!("{REFS}<")) else { return };
        *at = format!("{REFS}{}", names.get(name).map_or(name, String::as_str));
    });
}

/// Names that are referred to.
fn used(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    each(&mut value.clone(), &mut |object| {
        if let Some(name) = object.get("$ref").and_then(|at| at.as_str()?.strip_prefix(REFS)) {
            found.insert(name.trim_start_matches('<').to_owned());
        }
    });
    found
}

/// Those that somebody refers to, from these on.
fn reachable(mut all: Map<String, Value>, mut wanted: BTreeSet<String>) -> Map<String, Value> {
    wanted.extend(["Failure".to_owned(), "Unanswered".to_owned(), "CloudEvent".to_owned()]);
    let mut kept = Map::new();
    while let Some(name) = wanted.pop_first() {
        if let Some(schema) = all.remove(&name) {
            wanted.extend(used(&schema));
            kept.insert(name, schema);
        }
    }
    kept
}

fn each(value: &mut Value, look: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            look(object);
            object.values_mut().for_each(|v| each(v, look));
        }
        Value::Array(all) => all.iter_mut().for_each(|v| each(v, look)),
        _ => {}
    }
}

/// What may be left out of an answer is left out, and never null.
fn tidy_told(schema: &mut Value) {
    each(schema, &mut |object| {
        let required: BTreeSet<String> = match object.get("required") {
            Some(Value::Array(all)) => all.iter().filter_map(|v| Some(v.as_str()?.to_owned())).collect(),
            _ => BTreeSet::new(),
        };
        let Some(Value::Object(properties)) = object.get_mut("properties") else { return };
        properties.values_mut().filter_map(Value::as_object_mut).for_each(|p| drop(p.remove("default")));
        properties.iter_mut().filter(|(name, _)| !required.contains(*name)).for_each(|(_, p)| not_null(p));
    });
}

fn not_null(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    object.remove("default");
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(some)) = object.get_mut("anyOf") {
        some.retain(|s| s["type"] != "null");
        if let [Value::Object(only)] = some.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
}

fn parameters(schema: &Value) -> Vec<Value> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let one = |(name, property): (&String, &Value)| {
        let mut schema = property.clone();
        not_null(&mut schema);
        let about = schema.as_object_mut().and_then(|s| s.remove("description"));
        let mut one =
            json!({"name": name, "in": "query", "required": required.contains(&json!(name)), "schema": schema});
        if let Some(about) = about {
            one["description"] = about;
        }
        one
    };
    schema["properties"].as_object().into_iter().flatten().map(one).collect()
}

/// Words of which each has a schema of its own become one list of words: generators of clients make an enum of it,
/// and of a list of constants a type that takes the first one only.
fn whole_enum(object: &mut Map<String, Value>) {
    let words = |one: &Value| match (&one["const"], &one["enum"]) {
        (Value::String(word), _) => Some(vec![word.clone()]),
        (_, Value::Array(all)) => all.iter().map(|w| Some(w.as_str()?.to_owned())).collect(),
        _ => None,
    };
    let Some((key, all)) = ["oneOf", "anyOf"].into_iter().find_map(|key| Some((key, object.get(key)?.as_array()?)))
    else {
        return;
    };
    let Some(known) = all.iter().map(words).collect::<Option<Vec<_>>>() else { return };
    let told = all.iter().zip(&known).filter_map(|(one, words)| {
        Some(format!("`{}`: {}", words.join("`, `"), one["description"].as_str()?.trim_end_matches('.')))
    });
    let told = told.collect::<Vec<_>>().join("; ");
    let first = object.get("description").and_then(Value::as_str).unwrap_or_default();
    let about = format!("{first} {told}").trim().to_owned();
    let known = known.concat();
    object.remove(key);
    object.insert("type".into(), "string".into());
    object.insert("enum".into(), known.into());
    if !about.is_empty() {
        object.insert("description".into(), about.into());
    }
}

/// Docstrings are Rust's: links and line breaks in them are not for other readers.
fn tidy_texts(document: &mut Value) {
    each(document, &mut |object| {
        if let Some(Value::String(text)) = object.get_mut("description") {
            *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
        }
    });
}

// ---- tests -------------------------------------------------------------------------------------

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json")
}

#[test]
fn the_document_that_is_served_is_what_the_table_says() {
    let text = document();
    if std::env::var_os("CITYBRAIN_WRITE_SCHEMAS").is_some() {
        std::fs::write(file(), &text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(file()).unwrap();
    let differs = text.lines().zip(kept.lines()).enumerate().find(|(_, (a, b))| a != b);
    let next = "CITYBRAIN_WRITE_SCHEMAS=1 writes it anew";
    assert_eq!(differs, None, "docs/openapi.json differs from what the table of routes says; {next}");
    assert_eq!(text.len(), kept.len(), "docs/openapi.json is longer or shorter than it should be; {next}");
}

#[test]
fn generators_of_clients_understand_it() {
    let mut document: Value = serde_json::from_str(&document()).unwrap();
    each(&mut document, &mut |object| {
        let about = Value::from(object.clone());
        let all_words = |all: &Value| all.as_array().is_some_and(|all| all.iter().all(|one| one["const"].is_string()));
        assert!(!all_words(&about["oneOf"]) && !all_words(&about["anyOf"]), "one list of words: {about}");
        let properties = about["properties"].as_object().into_iter().flatten();
        assert!(properties.into_iter().all(|(_, p)| !p.is_boolean()), "an empty schema says the same: {about}");
        let has_const = about["properties"].as_object().is_some_and(|all| all.values().any(|p| !p["const"].is_null()));
        assert!(!(has_const && about["allOf"].is_array()), "a list of one word merges with what it is: {about}");
    });
}

#[test]
fn every_route_of_the_router_is_in_the_document_and_nothing_else_is() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let told: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |m| (m.to_uppercase(), path.clone())))
        .collect();
    let routed: BTreeSet<(String, String)> =
        said().iter().map(|s| (s.method.to_string(), s.path.replace("{*", "{"))).collect();
    assert_eq!(told, routed);
    assert_eq!(routed.len(), said().len(), "no route is there twice");
}
