//! AsyncAPI 3.0: the MQTT topics of this very node, with its own mappings and listeners.
//!
//! Operations are the node's: it receives what devices publish, and sends what apps subscribe to. A
//! topic filter stands in `x-filter`; in an address its `+` and `#` are parameters. Links between
//! nodes (`citybrain/…`) are not for others, and not here.

use super::{Ctx, json};
use axum::extract::State as From;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use citybrain_shared::config::{Config, Format, Listener, Map, Protocol};
use citybrain_shared::limits;
use serde_json::{Map as Object, Value, json};
use std::sync::Arc;

/// `GET /asyncapi.json`
pub async fn document(From(ctx): From<Arc<Ctx>>, headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default();
    json(StatusCode::OK, &describe(&ctx.config, name_of(host)))
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// `seen_as` is what whoever asks calls the node's machine.
fn describe(config: &Config, seen_as: &str) -> Value {
    let mut topics = Topics::default();
    let types: Vec<&str> = config.map.iter().filter_map(|m| m.kind.as_deref()).collect();
    let slashes = config.broker.url.is_some() && config.broker.dots_as_slashes;
    topics.add("in", "in/#", Way::Receive, "cloudEvent", "A CloudEvents object, on any topic below `in/`.");
    for (i, map) in config.map.iter().enumerate().filter(|(_, m)| !m.skip) {
        topics.mapped(i, map);
    }
    let about = if slashes {
        "Events as they are committed, on the type's topic; dots of the type are levels at this broker."
    } else {
        "Events as they are committed, each on its type's topic: `events/city.lamp.failed`."
    };
    topics.add("events", "events/#", Way::Send, "committedEvent", about);
    topics.add(
        "cmd",
        "cmd/#",
        Way::Send,
        "committedEvent",
        "Commands and notices for this node, on their type's topic.",
    );
    if config.broker.url.is_none() {
        let about = "How the front door does: a number or a word, every 10 s and for a new subscriber; QoS 0.";
        topics.add("sys", "$SYS/broker/#", Way::Send, "word", about);
        let about = "On every other topic the node is an ordinary broker: what is published goes to whoever subscribes, \
                     retained if it says so, and becomes no event unless a mapping names its topic.";
        topics.add("ordinary", "#", Way::Receive, "anything", about);
        topics.also("ordinary", Way::Send, "anything", "What others have published.");
    }
    if config.homeassistant.discovery && config.broker.url.is_none() {
        let filter = format!("{}/#", config.homeassistant.prefix);
        topics.add(
            "discovery",
            &filter,
            Way::Send,
            "anything",
            "What Home Assistant should make of the node; retained.",
        );
        topics.add("state", "brain/#", Way::Send, "anything", "How the node is, for Home Assistant; retained.");
    }
    if let Some(events) = topics.channels.get_mut("events") {
        events["parameters"]["rest"]["examples"] = types.iter().copied().filter(|t| !t.contains('{')).collect();
    }
    let needs_login = !config.access.anonymous && config.broker.url.is_none();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": format!("citybrain, {}", config.node.address),
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0"},
            "description": format!("MQTT topics of {} (MQTT 3.1.1 and 5.0). What is published with QoS 1 is on disk before \
                it is acknowledged. What is malformed, forbidden or unmapped becomes a dead letter. `/openapi.json` \
                describes the HTTP API.", config.node.name),
        },
        "defaultContentType": "application/json",
        "servers": servers(config, seen_as, needs_login),
        "channels": topics.channels,
        "operations": topics.operations,
        "components": {
            "messages": messages(),
            "schemas": {"cloudEvent": cloud_event(), "committedEvent": committed_event()},
            "securitySchemes": {
                "password": {"type": "userPassword", "description": "A user of the node's `users_file`."},
                "certificate": {"type": "X509", "description": "A client certificate; the user that it names."},
            },
        },
    })
}

// ---- servers -----------------------------------------------------------------------------------

fn servers(config: &Config, seen_as: &str, needs_login: bool) -> Value {
    let mut servers = Object::new();
    if let Some(url) = &config.broker.url {
        let (scheme, hosts) = url.split_once("://").unwrap_or(("mqtt", url));
        for (i, host) in hosts.split(',').enumerate() {
            // What opens it is the node's.
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host).trim_end_matches('/');
            let protocol = if scheme == "mqtts" { "secure-mqtt" } else { "mqtt" };
            let about = "An outside broker; what it allows is its own.";
            servers.insert(format!("outside{i}"), json!({"host": host, "protocol": protocol, "description": about}));
        }
        return servers.into();
    }
    let mut add = |name: String, listen: std::net::SocketAddr, protocol: Protocol, tls: Option<&Listener>| {
        let host = match listen.ip().is_unspecified() && !seen_as.is_empty() {
            true => format!("{seen_as}:{}", listen.port()),
            false => listen.to_string(),
        };
        let protocol = match protocol {
            Protocol::Mqtt => "mqtt",
            Protocol::Mqtts => "secure-mqtt",
            Protocol::Ws => "ws",
            Protocol::Wss => "wss",
        };
        let mut server = json!({"host": host, "protocol": protocol, "description": "MQTT 3.1.1 and 5.0"});
        if protocol.starts_with('w') {
            server["description"] = "MQTT 3.1.1 and 5.0 over WebSocket, subprotocol `mqtt`".into();
        }
        let by = |name: &str| json!({"$ref": format!("#/components/securitySchemes/{name}")});
        let mut security = Vec::new();
        if tls.is_some_and(|t| t.client_ca_file.is_some()) {
            security.push(by("certificate"));
        }
        if needs_login && !tls.is_some_and(|t| t.client_required) {
            security.push(by("password"));
        }
        if !security.is_empty() {
            server["security"] = security.into();
        }
        servers.insert(name, server);
    };
    add("main".into(), config.broker.listen, Protocol::Mqtt, None);
    for (i, listener) in config.listener.iter().enumerate() {
        add(format!("listener{i}"), listener.listen, listener.protocol, Some(listener));
    }
    servers.into()
}

// ---- topics ------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
enum Way {
    Send,
    Receive,
}

#[derive(Default)]
struct Topics {
    channels: Object<String, Value>,
    operations: Object<String, Value>,
}

impl Topics {
    fn add(&mut self, name: &str, filter: &str, way: Way, message: &str, about: &str) {
        let (address, parameters) = address_of(filter);
        let mut channel = json!({
            "address": address,
            "description": about,
            "messages": {message: {"$ref": format!("#/components/messages/{message}")}},
            "x-filter": filter,
        });
        if !parameters.is_empty() {
            channel["parameters"] = parameters.into();
        }
        self.channels.insert(name.to_owned(), channel);
        self.also(name, way, message, about);
    }

    /// Another operation on a channel.
    fn also(&mut self, name: &str, way: Way, message: &str, about: &str) {
        let action = match way {
            Way::Send => "send",
            Way::Receive => "receive",
        };
        let operation = json!({
            "action": action,
            "channel": {"$ref": format!("#/channels/{name}")},
            "summary": about,
            "messages": [{"$ref": format!("#/channels/{name}/messages/{message}")}],
            "bindings": {"mqtt": {"qos": if name == "sys" { 0 } else { 1 }}},
        });
        self.operations.insert(format!("{action}_{name}"), operation);
    }

    /// A mapping's topics.
    fn mapped(&mut self, i: usize, map: &Map) {
        let message = match map.format {
            Format::Cloudevents => "cloudEvent",
            Format::Json | Format::Discovery => "anyJson",
            Format::Text => "word",
        };
        let becomes = match map.kinds().as_slice() {
            [] => "an event".to_owned(),
            kinds => format!("an event of type `{}`", kinds.join("` or `")),
        };
        if map.format == Format::Discovery {
            let about = "A device's announcement: what it says on the topics that it names becomes events.";
            self.add(&format!("map{i}"), &map.filter, Way::Receive, message, about);
            return;
        }
        let mut about = format!("Each message becomes {becomes}");
        if !map.has.is_empty() {
            let has: Vec<&str> = map.has.keys().map(String::as_str).collect();
            about.push_str(&format!(", if it has {}", has.join(", ")));
        }
        if map.is_told_by_dangers() {
            let dangers: Vec<&str> = map.dangers.values().flatten().map(String::as_str).collect();
            about.push_str(&format!(", if it tells of a danger at {}", dangers.join(", ")));
        }
        about.push('.');
        self.add(&format!("map{i}"), &map.filter, Way::Receive, message, &about);
    }
}

/// A filter as an address: what its wildcards stand for has a name.
fn address_of(filter: &str) -> (String, Object<String, Value>) {
    let mut parameters = Object::new();
    let levels: Vec<String> = filter
        .split('/')
        .enumerate()
        .map(|(i, level)| {
            let (name, about) = match level {
                "+" => (format!("level{}", i + 1), "One level of the topic."),
                "#" => ("rest".to_owned(), "All further levels of the topic."),
                word => return word.to_owned(),
            };
            parameters.insert(name.clone(), json!({"description": about}));
            format!("{{{name}}}")
        })
        .collect();
    (levels.join("/"), parameters)
}

fn messages() -> Value {
    let of = |content_type: &str, title: &str, payload: Value| json!({"name": title, "title": title, "contentType": content_type, "payload": payload});
    let schema = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    json!({
        "cloudEvent": of("application/cloudevents+json", "A CloudEvents object", schema("cloudEvent")),
        "committedEvent": of("application/cloudevents+json", "An event as it was committed", schema("committedEvent")),
        "anyJson": of("application/json", "Any JSON value", json!({})),
        "word": of("text/plain", "A number, a word, a line", json!({"type": "string"})),
        "anything": of("application/octet-stream", "Anything", json!({})),
    })
}

/// As it is taken; what is in `event::Envelope` says more.
fn cloud_event() -> Value {
    let text = |about: &str| json!({"type": "string", "minLength": 1, "description": about});
    json!({
        "type": "object",
        "description": format!("CloudEvents 1.0 in structured mode, at most {} bytes.", limits::EVENT_BYTES_MAX),
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text("With `source` it names the event: sent twice, it is there once."),
            "source": text("Who says so."),
            "type": text("What happened, such as `city.lamp.failed`."),
            "time": {"type": "string", "format": "date-time"},
            "subject": {"type": "string"},
            "priority": {"type": "string", "enum": ["urgent", "routine"]},
            "reach": {"type": "string", "enum": ["city", "street", "community", "neighbourhood"]},
            "data": {"description": "Anything."},
        },
    })
}

fn committed_event() -> Value {
    json!({
        "description": "The event's own bytes, with the node where it began as the first member.",
        "allOf": [
            {"$ref": "#/components/schemas/cloudEvent"},
            {"type": "object", "properties": {"origin": {"type": "string", "description": "Address of that node."}}},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::config::parse;
    use std::collections::BTreeSet;

    fn of(text: &str) -> Value {
        let text = format!("{text}\n[node]\naddress = \"c/s/m/n\"\ndata = \"d\"\n");
        let parsed = parse(&text, &Default::default());
        describe(&parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.problems)), "box.example")
    }

    fn each<'v>(value: &'v Value, look: &mut impl FnMut(&'v Object<String, Value>)) {
        match value {
            Value::Object(object) => {
                look(object);
                object.values().for_each(|v| each(v, look));
            }
            Value::Array(all) => all.iter().for_each(|v| each(v, look)),
            _ => {}
        }
    }

    /// What the specification asks of a document, as far as this one can break it.
    fn is_sound(document: &Value) {
        let known = ["asyncapi", "info", "defaultContentType", "servers", "channels", "operations", "components"];
        assert!(document.as_object().unwrap().keys().all(|k| known.contains(&k.as_str())));
        each(document, &mut |object| {
            if let Some(Value::String(at)) = object.get("$ref") {
                assert!(document.pointer(at.trim_start_matches('#')).is_some(), "{at} is not there");
                assert_eq!(object.len(), 1, "a reference stands alone");
            }
        });
        for (name, server) in document["servers"].as_object().unwrap() {
            let protocol = server["protocol"].as_str().unwrap();
            assert!(["mqtt", "secure-mqtt", "ws", "wss"].contains(&protocol), "{name}");
            let host = server["host"].as_str().unwrap();
            assert!(host.contains(':') && !host.contains('/') && !host.contains('@'), "{host}");
        }
        for (name, channel) in document["channels"].as_object().unwrap() {
            let address = channel["address"].as_str().unwrap();
            let named: BTreeSet<&str> = address.split(['{', '}']).skip(1).step_by(2).collect();
            let told: BTreeSet<&str> =
                channel["parameters"].as_object().into_iter().flatten().map(|(k, _)| k.as_str()).collect();
            assert_eq!(named, told, "{name}: each parameter of the address is told of, and no other");
            assert!(!address.contains(['+', '#']), "{address}");
        }
        let used: BTreeSet<&str> = document["operations"]
            .as_object()
            .unwrap()
            .values()
            .map(|o| {
                assert!(["send", "receive"].contains(&o["action"].as_str().unwrap()));
                let channel = o["channel"]["$ref"].as_str().unwrap();
                for message in o["messages"].as_array().unwrap() {
                    assert!(message["$ref"].as_str().unwrap().starts_with(&format!("{channel}/messages/")));
                }
                channel.rsplit('/').next().unwrap()
            })
            .collect();
        let all: BTreeSet<&str> = document["channels"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(used, all, "every channel has an operation");
    }

    #[test]
    fn a_node_tells_of_its_own_mappings_and_doors() {
        let document = of(r#"
preset = "zigbee2mqtt"
[broker]
listen = "0.0.0.0:1886"
[access]
anonymous = false
[[map]]
filter = "in/meter/+"
format = "text"
type = "neighbourhood.meter.v1"
[homeassistant]
discovery = true
"#);
        is_sound(&document);
        assert_eq!(document["servers"]["main"]["host"], "box.example:1886");
        assert_eq!(document["servers"]["main"]["security"][0]["$ref"], "#/components/securitySchemes/password");
        let channels = document["channels"].as_object().unwrap();
        let meter = channels.values().find(|c| c["x-filter"] == "in/meter/+").unwrap();
        assert_eq!(meter["address"], "in/meter/{level3}");
        assert!(meter["messages"]["word"].is_object(), "{meter}");
        assert!(meter["description"].as_str().unwrap().contains("neighbourhood.meter.v1"));
        assert!(channels.values().any(|c| c["x-filter"].as_str().unwrap().starts_with("zigbee2mqtt/")));
        assert!(channels.contains_key("discovery") && channels.contains_key("ordinary"));
        assert_eq!(document["operations"]["send_sys"]["bindings"]["mqtt"]["qos"], 0);
        assert_eq!(document["channels"]["sys"]["address"], "$SYS/broker/{rest}");
    }

    #[test]
    fn behind_an_outside_broker_only_what_the_node_says_and_hears_there_is_told() {
        let document = of("[broker]\nurl = \"mqtts://me:pw@a.example:8883,b.example:8883\"\n");
        is_sound(&document);
        let hosts: Vec<&str> =
            document["servers"].as_object().unwrap().values().map(|s| s["host"].as_str().unwrap()).collect();
        assert_eq!(hosts, ["a.example:8883", "b.example:8883"]);
        assert_eq!(document["servers"]["outside0"]["protocol"], "secure-mqtt");
        assert_eq!(document["channels"].as_object().unwrap().keys().collect::<Vec<_>>(), ["cmd", "events", "in"]);
        assert!(!document.to_string().contains("pw"));
    }

    #[test]
    fn a_host_is_told_without_its_port() {
        for (host, name) in [("box:8080", "box"), ("box", "box"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")] {
            assert_eq!(name_of(host), name);
        }
    }
}
