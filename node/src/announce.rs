//! Home Assistant's MQTT discovery: the node tells how it is, and a Home Assistant at its broker shows
//! it without a line of its own.
//!
//! Retained messages, records of the log like any: what Home Assistant should make of it on
//! `PREFIX/COMPONENT/citybrain_ADDRESS/OBJECT/config`, and the state on `brain/ADDRESS/state`, written
//! when it has changed, at most every [`PERIOD`]. There is no availability topic: a Home Assistant that
//! has lost the broker has lost the node. Where discovery is switched off again, what was announced is
//! taken back.

use crate::brain::Brain;
use crate::ctx::Ctx;
use citybrain_hub::engine;
use citybrain_hub::note::reason::UNREAD_ALARM;
use citybrain_shared::config::Config;
use citybrain_shared::record::{Draft, Header, Kind};
use citybrain_shared::view::{self, LinkRole};
use citybrain_shared::{Address, topic};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two looks at the node. A press must be seen soon; each change is a record.
const PERIOD: Duration = Duration::from_secs(1);

/// Tells of the node until it stops; where config does not ask for it, only takes back what was told.
pub async fn run(ctx: Arc<Ctx>, mut stop: watch::Receiver<bool>) {
    let config = &ctx.config;
    let mut wanted = if config.homeassistant.discovery { entities(config) } else { BTreeMap::new() };
    if config.broker.url.is_some() {
        return;
    }
    let state = topic::state(&config.node.address);
    take_back(&ctx, &mut wanted, &state);
    let mut every = tokio::time::interval(PERIOD);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stop.wait_for(|s| *s) => return,
        }
        if config.homeassistant.discovery {
            wanted.insert(state.clone(), condition(&ctx).to_string());
        }
        // The log has what was told last, also by an earlier start.
        let told = |topic: &str| ctx.hub.state(|s| s.retained.get(topic).map(|r| r.payload.clone()));
        let news: Vec<Draft> = wanted
            .iter()
            .filter(|(topic, text)| told(topic).map_or(!text.is_empty(), |told| told != text.as_bytes()))
            .filter_map(|(topic, text)| message(topic, text))
            .collect();
        if !news.is_empty() {
            // A node that cannot write says so elsewhere; the next look tries again.
            let told = async { engine::wait(ctx.hub.offer(news).await?).await };
            if told.await.is_err() {
                continue;
            }
        }
        if !config.homeassistant.discovery {
            return;
        }
    }
}

/// Adds the removal of what an earlier start told and this one does not.
fn take_back(ctx: &Ctx, wanted: &mut BTreeMap<String, String>, state: &str) {
    let node = format!("/{}/", node_id(&ctx.config.node.address));
    let is_told = |topic: &str| topic == state || (topic.contains(&node) && topic.ends_with("/config"));
    let gone: Vec<String> = ctx.hub.state(|s| s.retained.keys().filter(|t| is_told(t)).cloned().collect());
    for topic in gone {
        wanted.entry(topic).or_default();
    }
}

fn message(topic: &str, text: &str) -> Option<Draft> {
    let header = Header { topic, retain: true, qos: 1, ..Header::local(Kind::Message, "") };
    Draft::new(&header, text.as_bytes()).ok()
}

/// `citybrain_CITY_STREET`; no segment has `_`, so no two nodes share one.
fn node_id(address: &Address) -> String {
    format!("citybrain_{}", address.as_str().replace('/', "_"))
}

/// Topics and payloads of what Home Assistant should show.
fn entities(config: &Config) -> BTreeMap<String, String> {
    let node = &config.node;
    let id = node_id(&node.address);
    let name = if node.name.is_empty() { node.address.as_str() } else { &node.name };
    let device = json!({
        "identifiers": [id], "name": name, "manufacturer": "citybrain",
        "model": node.address.tier().to_string(), "sw_version": env!("CARGO_PKG_VERSION"),
    });
    let mut all = BTreeMap::new();
    let mut put = |component: &str, object: &str, name: &str, more: Value| {
        let mut entity = json!({
            "name": name, "unique_id": format!("{id}_{object}"), "object_id": format!("{id}_{object}"), "device": device,
        });
        if component != "button" {
            entity["state_topic"] = topic::state(&node.address).into();
            entity["value_template"] = format!("{{{{ value_json.{object} }}}}").into();
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            entity[key] = value.clone();
        }
        let topic = format!("{}/{component}/{id}/{object}/config", config.homeassistant.prefix);
        all.insert(topic, entity.to_string());
    };
    put(
        "binary_sensor",
        "problem",
        "Problem",
        json!({
            "device_class": "problem", "entity_category": "diagnostic", "json_attributes_topic": topic::state(&node.address),
            "json_attributes_template": "{{ {'reasons': value_json.reasons} | tojson }}",
        }),
    );
    put("binary_sensor", "help_wanted", "Help wanted", json!({"device_class": "safety"}));
    put("sensor", "alarms", "Open alarms", json!({"icon": "mdi:alarm-light", "state_class": "measurement"}));
    put(
        "sensor",
        "critical_alarms",
        "Critical alarms",
        json!({"icon": "mdi:fire-alert", "state_class": "measurement"}),
    );
    put("sensor", "cases", "Open cases", json!({"icon": "mdi:clipboard-list", "state_class": "measurement"}));
    put(
        "sensor",
        "dead_letters",
        "Refused messages",
        json!({"icon": "mdi:email-alert", "entity_category": "diagnostic"}),
    );
    if config.parent.is_some() {
        let more = json!({"device_class": "connectivity", "entity_category": "diagnostic"});
        put("binary_sensor", "parent", "Node above", more);
    }
    if takes_cloudevents(config) {
        let press = json!({
            "specversion": "1.0", "type": "city.sos.pressed.v1", "source": format!("/{}/homeassistant", node.address),
            "subject": "homeassistant", "priority": "urgent",
            // The press has no other place than the box that it is at.
            "data": {"title": format!("Home Assistant, {name}"), "location": name},
        });
        let more = json!({"command_topic": SOS, "payload_press": press.to_string(), "qos": 1, "icon": "mdi:lifebuoy"});
        put("button", "sos", "Call for help", more);
    }
    all
}

const SOS: &str = "in/homeassistant/sos";

/// Is what the button sends taken as it is?
fn takes_cloudevents(config: &Config) -> bool {
    let map = config.map.iter().find(|m| topic::matches(&m.filter, SOS));
    map.is_none_or(|m| m.format == citybrain_shared::config::Format::Cloudevents && !m.skip)
}

/// How the node is now, in the words of `value_template` above.
fn condition(ctx: &Ctx) -> Value {
    let ready = (ctx.ready)();
    let parent = (ctx.links)().into_iter().find(|l| l.role == LinkRole::Up);
    let on = |is: bool| if is { "ON" } else { "OFF" };
    let (alarms, critical, cases, help, letters, unread) = ctx.hub.state(|state| {
        let brain = Brain::of(state);
        let alarms = || brain.into_iter().flat_map(|b| b.rules.alarms.iter()).filter(|a| a.active);
        let critical = alarms().filter(|a| a.severity == citybrain_shared::config::rules::Severity::Critical).count();
        let (cases, help) = brain.map_or((0, false), |b| (b.cases.open_of_below(), b.cases.help_is_wanted()));
        let unread = state.dead_letters.values().any(|reason| reason == UNREAD_ALARM);
        (alarms().count(), critical, cases, help, state.dead_letters.len(), unread)
    });
    // A device warns in words that nobody can read: it may be a fire.
    let reasons: Vec<String> = ready.reasons.into_iter().chain(unread.then(|| UNREAD_ALARM.to_owned())).collect();
    json!({
        "problem": on(!reasons.is_empty()),
        "reasons": reasons,
        "help_wanted": on(help),
        "alarms": alarms,
        "critical_alarms": critical,
        "cases": cases,
        "dead_letters": letters,
        "parent": parent.as_ref().map(|l: &view::Link| on(l.state == "up")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::config::{Variables, parse};

    fn config(more: &str) -> Config {
        let text = format!("{more}\n[node]\naddress = \"c/s-1\"\nname = \"街\"\ndata = \"d\"\n");
        parse(&text, &Variables::new()).config.unwrap()
    }

    #[test]
    fn what_is_announced_has_what_home_assistant_demands() {
        let all = entities(&config("[parent]\nurl = \"mqtt://127.0.0.1:1999\"\n"));
        assert_eq!(all.len(), 8);
        let mut ids = std::collections::BTreeSet::new();
        for (topic, text) in &all {
            let levels: Vec<&str> = topic.split('/').collect();
            assert_eq!((levels[0], levels[2], levels[4]), ("homeassistant", "citybrain_c_s-1", "config"), "{topic}");
            let fits = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
            assert!(levels[2..4].iter().all(|id| id.chars().all(fits)), "{topic}");
            let v: Value = serde_json::from_str(text).unwrap();
            assert!(ids.insert(v["unique_id"].to_string()), "{topic}");
            assert_eq!(v["device"]["name"], "街");
            if levels[1] == "button" {
                let press: Value = serde_json::from_str(v["payload_press"].as_str().unwrap()).unwrap();
                assert_eq!((&v["command_topic"], &press["type"]), (&json!(SOS), &json!("city.sos.pressed.v1")));
                assert_eq!(press["data"]["location"], "街");
            } else {
                assert_eq!(v["state_topic"], "brain/c/s-1/state");
            }
        }
    }

    #[test]
    fn a_button_that_would_not_be_understood_is_not_shown() {
        let has = |config: &Config| entities(config).keys().any(|t| t.contains("/button/"));
        assert!(has(&config("")) && has(&config("[[map]]\nfilter = \"in/#\"\n")));
        assert!(!has(&config("[[map]]\nfilter = \"in/#\"\nformat = \"json\"\ntype = \"t\"\n")));
    }
}
