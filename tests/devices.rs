//! Devices from a shop: one line in the file, and a press or smoke is an incident; Home Assistant hears
//! how the node is.

use crate::clients::mosquitto_is_there;
use crate::harness::mqtt::{Client, publish_packet};
use crate::harness::ran::run;
use crate::harness::{Node, Tree, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

fn tree(top: &str) -> Tree {
    let mut tree = Tree::with(&["c/s/m/n"], &HashMap::new(), top);
    tree.start();
    tree
}

fn says(node: &Node, topic: &str, payload: &str) {
    assert!(Client::connect(node.mqtt, "device", true).publish(topic, payload.as_bytes()), "{topic}");
}

fn retains(node: &Node, topic: &str, payload: &str) {
    let mut client = Client::connect(node.mqtt, "gateway", true);
    client.send(&publish_packet(topic, 1, true, false, 1, payload.as_bytes())).expect("it is sent");
    assert!(client.read(Duration::from_secs(10)).is_some(), "{topic} is acknowledged");
}

fn announced(node: &Node, topic: &str, payload: &Value) {
    retains(node, &format!("homeassistant/{topic}/config"), &payload.to_string());
}

fn cases(node: &Node) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let all = node.get("/v1/cases").unwrap_or_default();
    all["cases"].as_array().into_iter().flatten().map(|c| (text(&c["kind"]), text(&c["title"]))).collect()
}

#[test]
fn an_sos_button_and_a_smoke_alarm_from_a_shop_are_incidents_by_one_line_of_config() {
    let tree = tree("preset = \"zigbee2mqtt\"");
    let low = tree.node("c/s/m/n");
    says(low, "zigbee2mqtt/sos/7-301", r#"{"action":"single","battery":97,"linkquality":120}"#);
    says(low, "zigbee2mqtt/kitchen", r#"{"smoke":true,"battery":100}"#);
    says(low, "zigbee2mqtt/lamp", r#"{"state":"ON"}"#);
    let both = [("incident", "sos/7-301"), ("incident", "Smoke at kitchen")];
    for at in ["c/s/m/n", "c"] {
        wait_for(&format!("both are at {at}"), || {
            let there = cases(tree.node(at));
            both.iter().all(|(k, t)| there.iter().any(|(kind, title)| kind == k && title == t)).then_some(())
        });
        let alarms = tree.node(at).get("/v1/alarms").unwrap_or_default();
        assert_eq!(alarms["alarms"][0]["title"], "Smoke at kitchen", "{at}: {alarms}");
        assert_eq!(alarms["active"], 1);
    }
    // One device that tells of smoke and carbon monoxide, of which one is there.
    says(low, "zigbee2mqtt/boiler", r#"{"smoke":false,"carbon_monoxide":true}"#);
    wait_for("it is at the city", || {
        cases(tree.node("c"))
            .iter()
            .any(|(kind, title)| kind == "incident" && title == "Carbon monoxide at boiler")
            .then_some(())
    });
    // What is no incident stays in the house: above there are the case and the alarm, not the devices.
    let above = tree.node("c").records();
    assert!(above.iter().all(|r| !r.event_type.ends_with(".reading.v1")), "{above:?}");
    says(low, "zigbee2mqtt/kitchen", r#"{"smoke":false,"battery":100}"#);
    // Held down for 30 s of calm; the press and the two devices that warned became one case each.
    assert_eq!(cases(low).len(), 3);
}

#[test]
fn a_device_that_announces_itself_needs_no_mapping_also_after_a_kill() {
    let mut tree = tree("preset = \"discovery\"");
    let announced = |tree: &Tree, topic: &str, payload: Value| announced(tree.node("c/s/m/n"), topic, &payload);
    let device = json!({"ids": ["k1"], "name": "Kitchen"});
    announced(
        &tree,
        "binary_sensor/k1/smoke",
        json!({"dev_cla": "smoke", "stat_t": "alarms/k1", "val_tpl": "{{ value_json.smoke }}", "dev": device}),
    );
    announced(&tree, "event/b1/press", json!({"name": "SOS", "stat_t": "buttons/b1", "dev": {"name": "7-301"}}));
    tree.kill9("c/s/m/n");
    tree.start_node("c/s/m/n");
    let low = tree.node("c/s/m/n");
    says(low, "alarms/k1", r#"{"smoke":"ON"}"#);
    says(low, "buttons/b1", r#"{"event_type":"press"}"#);
    let both = [("incident", "7-301"), ("incident", "Smoke at Kitchen")];
    wait_for("both are at the city", || {
        let there = cases(tree.node("c"));
        both.iter().all(|(k, t)| there.iter().any(|(kind, title)| kind == k && title == t)).then_some(())
    });
    // Whoever subscribed gets what was published, and the announcement is there for Home Assistant.
    assert_eq!(tree.node("c").get("/v1/alarms").unwrap_or_default()["alarms"][0]["title"], "Smoke at Kitchen");
    assert!(low.get("/v1/dlq").unwrap_or_default()["dead_letters"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn what_a_topic_retained_before_a_device_announced_itself_there_is_heard_once() {
    let mut tree = tree("");
    let smoke = |name: &str| json!({"dev_cla": "smoke", "stat_t": format!("gw/{name}"), "dev": {"name": name}});
    let heard = |tree: &Tree| {
        let types: Vec<String> = tree.node("c/s/m/n").records().into_iter().map(|r| r.event_type).collect();
        let of = |kind: &str| types.iter().filter(|t| *t == kind).count();
        (of("city.device.state.v1"), of("city.smoke.reading.v1"))
    };
    let are = |tree: &Tree, what: &str, wanted: (usize, usize)| {
        wait_for(what, || (heard(tree) == wanted).then_some(()));
    };
    // Nobody reads announcements yet.
    let low = tree.node("c/s/m/n");
    retains(low, "gw/attic", "ON");
    retains(low, "gw/attic/there", "offline");
    let mut attic = smoke("attic");
    attic["avty_t"] = json!("gw/attic/there");
    announced(low, "binary_sensor/attic/smoke", &attic);
    tree.stop_node("c/s/m/n");
    tree.edit("c/s/m/n", |text| format!("preset = \"discovery\"\n{text}"));
    tree.start_node("c/s/m/n");
    are(&tree, "what was there before the preset is heard", (1, 1));
    let low = tree.node("c/s/m/n");
    retains(low, "gw/cellar", "ON");
    announced(low, "binary_sensor/cellar/smoke", &smoke("cellar"));
    are(&tree, "what was there before the announcement is heard", (1, 2));
    let alarms = low.get("/v1/alarms").unwrap_or_default();
    assert_eq!(alarms["active"], 2, "{alarms}");
    // As gateways do at each start of theirs; and a start of the node.
    announced(low, "binary_sensor/cellar/smoke", &smoke("cellar"));
    tree.kill9("c/s/m/n");
    tree.start_node("c/s/m/n");
    let low = tree.node("c/s/m/n");
    retains(low, "gw/hall", "OFF");
    announced(low, "binary_sensor/hall/smoke", &smoke("hall"));
    are(&tree, "one more is heard, and none again", (1, 3));
}

#[test]
fn a_word_of_a_danger_that_nobody_reads_is_named_wherever_somebody_looks() {
    let tree = tree("preset = [\"zigbee2mqtt\", \"discovery\"]");
    let low = tree.node("c/s/m/n");
    let url = low.url();
    run(&["why", "--node", &url]).says(0, &["all is well"]);
    says(low, "zigbee2mqtt/kitchen", r#"{"smoke":"maybe"}"#);
    says(low, "homeassistant/binary_sensor/k/config", r#"{"dev_cla":"smoke","#);
    let unread = "c/s/m/n could not read 1 word of devices that warn or call for help";
    let refused = "c/s/m/n has refused 1 input, as `bad-announcement`";
    let why = run(&["why", "--node", &url]);
    why.says(0, &["unread-alarm", unread, "dlq list --reason unread-alarm", refused]);
    assert!(!why.out.contains("all is well"), "{}", why.out);
    let doctor = run(&["doctor", "--node", &url]);
    assert!(doctor.out.contains("2 open: refused, and nobody has looked"), "{}", doctor.out);
    let listed = run(&["dlq", "list", "--node", &url]);
    listed
        .says(0, &["unread-alarm", "zigbee2mqtt/kitchen", "bad-announcement", "homeassistant/binary_sensor/k/config"]);
    assert_eq!(cases(low), []);
}

#[test]
fn what_becomes_of_a_message_can_be_tried_without_a_node() {
    let topic = "homeassistant/sensor/t1/config";
    let good = r#"{"stat_t":"t/1","val_tpl":"{{ value_json.t }}","unit_of_meas":"°C","dev_cla":"temperature","dev":{"name":"Hall"}}"#;
    run(&["preset", "try", topic, good]).says(0, &["an announcement", "Hall: `t/1` at /t is `temperature` in °C"]);
    let odd = r#"{"stat_t":"t/1","val_tpl":"{{ states('a') }}"}"#;
    run(&["preset", "try", topic, odd]).says(1, &["left out: t1: `{{ states('a') }}` cannot be followed"]);
    run(&["preset", "try", topic, "x"]).says(1, &["it announces nothing: it is not JSON"]);
    let press = ["preset", "try", "zigbee2mqtt/sos/7-301", r#"{"action":"single"}"#];
    run(&press).says(0, &["event city.sos.pressed.v1, subject sos/7-301, urgent; stays at its node"]);
    run(&["preset", "try", "zigbee2mqtt/bridge/info", "x"]).says(1, &["a plain message"]);
    run(&["preset", "try", "zigbee2mqtt/x", "x"]).says(1, &["refused, not-json"]);
    run(&["preset", "try", "t", "x", "--preset", "zigbee2mqt"]).says(1, &["did you mean `zigbee2mqtt`?"]);
    let listed = run(&["preset", "list", "--json"]).json();
    assert_eq!(listed["presets"].as_array().map(Vec::len), Some(11), "{listed}");
    run(&["preset", "show", "zigbee2mqtt"]).says(0, &["zigbee2mqtt/sos/#", "city.smoke.reading.v1", "smoke, gas"]);
    run(&["preset", "show", "shely"]).says(1, &["did you mean `shelly`?"]);
}

/// All retained messages below `filter`, as Mosquitto's own client gets them.
fn retained(node: &Node, filter: &str) -> HashMap<String, String> {
    let port = node.mqtt.to_string();
    let args = ["-p", &port, "-V", "mqttv311", "-q", "1", "-t", filter, "--retained-only", "-W", "1", "-v"];
    let done = Command::new("mosquitto_sub").args(args).output().expect("mosquitto_sub starts");
    let text = String::from_utf8(done.stdout).expect("UTF-8");
    text.lines().filter_map(|l| l.split_once(' ')).map(|(t, p)| (t.to_owned(), p.to_owned())).collect()
}

#[test]
fn home_assistant_hears_how_the_node_is_and_its_button_calls_for_help() {
    if !mosquitto_is_there() {
        return;
    }
    let mut tree = tree("preset = \"zigbee2mqtt\"\n[homeassistant]\ndiscovery = true\n");
    let node = tree.node("c/s/m/n");
    let all = wait_for("all is announced", || {
        let all = retained(node, "homeassistant/#");
        (all.len() == 8).then_some(all)
    });
    let config = |object: &str| -> Value {
        let (_, text) = all.iter().find(|(t, _)| t.ends_with(&format!("/{object}/config"))).expect(object);
        serde_json::from_str(text).expect("JSON")
    };
    let state_topic = config("help_wanted")["state_topic"].as_str().unwrap().to_owned();
    let state =
        |node: &Node| -> Option<Value> { serde_json::from_str(retained(node, &state_topic).get(&state_topic)?).ok() };
    let calm = wait_for("its state is there", || state(node).filter(|s| s["parent"] == "ON"));
    assert_eq!((&calm["problem"], &calm["help_wanted"], &calm["alarms"]), (&json!("OFF"), &json!("OFF"), &json!(0)));
    // The button, as Home Assistant presses it.
    let button = config("sos");
    let (topic, press) = (button["command_topic"].as_str().unwrap(), button["payload_press"].as_str().unwrap());
    let port = node.mqtt.to_string();
    let done = Command::new("mosquitto_pub").args(["-p", &port, "-q", "1", "-t", topic, "-m", press]).status();
    assert!(done.expect("mosquitto_pub starts").success());
    says(node, "zigbee2mqtt/kitchen", r#"{"smoke":true}"#);
    wait_for("both are shown", || {
        state(node).filter(|s| s["help_wanted"] == "ON" && s["critical_alarms"] == 1 && s["cases"] == 2)
    });
    let all = node.get("/v1/cases?urgent=true").expect("cases");
    let pressed = all["cases"].as_array().expect("a list").iter().find(|c| c["category"] == "sos").expect("the press");
    let name = config("sos")["device"]["name"].clone();
    assert_eq!(
        (&pressed["place"]["text"], &pressed["title"]),
        (&name, &json!(format!("Home Assistant, {}", name.as_str().expect("a text"))))
    );
    // Another node has the press by now: it is no case of this one, and help is wanted all the same.
    let id = pressed["id"].as_str().expect("an id");
    for (step, ask) in [("accept", json!({"by": "li"})), ("dispatch", json!({"by": "li", "to": "c/s/m"}))] {
        let (status, answer) = node.post(&format!("/v1/cases/{id}/{step}"), &ask);
        assert!(status < 300, "{answer}");
    }
    wait_for("it is counted no more", || state(node).filter(|s| s["help_wanted"] == "ON" && s["cases"] == 1));
    // Nobody else speaks there.
    let taken = Client::connect(node.mqtt, "liar", true).publish(&state_topic, b"{}");
    assert!(taken, "a 3.1.1 client hears no refusal");
    wait_for("the state stands, the lie is a dead letter", || {
        state(node).filter(|s| s["help_wanted"] == "ON" && s["dead_letters"] == 1)
    });
    // Switched off, all of it is taken back.
    tree.stop_node("c/s/m/n");
    tree.edit("c/s/m/n", |text| text.replace("discovery = true", "discovery = false"));
    tree.start_node("c/s/m/n");
    tree.wait_ready();
    let node = tree.node("c/s/m/n");
    wait_for("nothing is announced any more", || {
        (retained(node, "homeassistant/#").is_empty() && retained(node, "brain/#").is_empty()).then_some(())
    });
}
