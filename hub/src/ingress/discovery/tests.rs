//! Announcements as firmware and gateways write them, and what their messages become.

use super::*;
use crate::door::{Ingress as _, Publish};
use crate::engine::Offered;
use crate::ingress::Ingress;
use crate::meta;
use crate::note::Note;
use crate::state::Retained;
use citybrain_shared::config::{Variables, parse};
use citybrain_shared::record::{Draft, Kind};
use citybrain_shared::{Lane, Pos};

fn node() -> Ingress {
    let text = "preset = [\"esphome\", \"discovery\"]\n[node]\naddress = \"c/s/m/n\"\ndata = \"d\"\n";
    let parsed = parse(text, &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    Ingress::new(&parsed.config.unwrap())
}

/// `TYPE SUBJECT DATA`, and `!` in front of what is urgent; `-` for what is no event.
fn says(node: &Ingress, topic: &str, payload: &str) -> String {
    let retain = topic.ends_with("/config");
    let publish = Publish { retain, ..Publish::plain("gateway", topic, payload.as_bytes()) };
    let draft = node.take(&publish).draft.expect("a record");
    let header = draft.header();
    if header.kind == Kind::Message {
        assert_eq!(draft.payload(), payload.as_bytes(), "{topic} is kept as it came");
        return "-".into();
    }
    shown(&draft)
}

fn shown(draft: &Draft) -> String {
    let header = draft.header();
    if let Some(reason) = refused(draft) {
        return format!("? {reason}");
    }
    let v: Value = serde_json::from_slice(draft.payload()).unwrap();
    let urgent = if header.lane == Lane::Urgent { "!" } else { "" };
    format!("{urgent}{} {} {}", header.name, v["subject"].as_str().unwrap_or("-"), v["data"])
}

/// Why it is a dead letter, if it is one.
fn refused(draft: &Draft) -> Option<String> {
    if draft.header().kind != Kind::Note {
        return None;
    }
    let Note::DeadLetter(letter) = Note::parse(draft.payload()).unwrap() else { panic!("no other note") };
    Some(letter.reason)
}

/// As a topic retains what became no event when it came.
fn kept(pos: u64, payload: &str) -> Retained {
    let mut door = Vec::new();
    assert!(meta::put("gateway", None, |_| {}, &mut door));
    let payload = payload.to_owned().into();
    Retained { pos: Pos(pos), qos: 1, payload, door: door.into(), committed_us: 0, heard: None }
}

/// What is heard of what these topics retain, a second after the last announcement.
fn heard(node: &Ingress, retained: &mut BTreeMap<String, Retained>) -> Vec<String> {
    node.unheard();
    let topics = node.unheard();
    let mut all = Vec::new();
    for topic in &topics {
        let Some(kept) = retained.get_mut(topic) else { continue };
        for Offered { draft, with } in node.hear(topic, kept) {
            assert_eq!((draft.header().topic, draft.header().retain), ("", false), "it is published no second time");
            all.push(shown(&draft));
            if let Some(with) = with {
                let Note::RetainedHeard { topic: of, pos, said } = Note::parse(with.payload()).unwrap() else {
                    panic!()
                };
                assert_eq!((&of, pos), (topic, kept.pos));
                kept.heard = Some(said);
            }
        }
    }
    node.have_heard(&topics);
    assert_eq!(node.unheard(), [""; 0]);
    all
}

fn all(node: &Ingress, samples: &[(&str, &str, &str)]) {
    for (topic, payload, want) in samples {
        assert_eq!(says(node, topic, payload), *want, "{topic} {payload}");
    }
}

/// What is left out of it, and why.
fn left_out(component: &str, announcement: &str) -> Vec<String> {
    let topic = format!("homeassistant/{component}/x/config");
    read("homeassistant/+/+/config", &topic, announcement.as_bytes(), None).unwrap().left_out
}

#[test]
fn what_a_topic_retained_before_an_announcement_is_heard_once_by_all_parts_together() {
    let node = node();
    let mut retained = BTreeMap::from([
        ("vend/k".to_owned(), kept(1, r#"{"smoke":"ON","t":21}"#)),
        ("vend/k/there".to_owned(), kept(2, "offline")),
        ("vend/odd".to_owned(), kept(3, "perhaps")),
    ]);
    let part = |more: &str| format!(r#"{{"stat_t":"vend/k","avty_t":"vend/k/there","dev":{{"name":"K"}},{more}}}"#);
    let smoke = part(r#""dev_cla":"smoke","val_tpl":"{{ value_json.smoke }}""#);
    let warm = part(r#""dev_cla":"temperature","val_tpl":"{{ value_json.t }}""#);
    let announce = |topic: &str, payload: &str| {
        assert_eq!(says(&node, &format!("homeassistant/{topic}/config"), payload), "-");
    };
    announce("binary_sensor/k", &smoke);
    assert_eq!(node.unheard(), [""; 0], "others of its device may follow");
    announce("sensor/k", &warm);
    announce("binary_sensor/odd", r#"{"dev_cla":"smoke","stat_t":"vend/odd"}"#);
    assert_eq!(
        heard(&node, &mut retained),
        [
            r#"!city.smoke.reading.v1 K {"smoke":true,"temperature":21}"#,
            r#"city.device.state.v1 K {"online":false}"#,
            "? unread-alarm"
        ]
    );
    // As gateways announce at each start of theirs, some by taking it back first; and a start of the node.
    announce("binary_sensor/k", &smoke);
    assert_eq!(heard(&node, &mut retained), [""; 0]);
    announce("binary_sensor/k", "");
    announce("binary_sensor/k", &smoke);
    assert_eq!(heard(&node, &mut retained), [""; 0]);
    retained.extend([("homeassistant/binary_sensor/k/config".to_owned(), kept(4, &smoke))]);
    let restarted = super::tests::node();
    restarted.recall(&retained);
    assert_eq!(heard(&restarted, &mut retained), [""; 0]);
    // What says more by a new part is told.
    announce("sensor/b", &part(r#""dev_cla":"battery","val_tpl":"{{ value_json.t }}""#));
    assert_eq!(
        heard(&node, &mut retained),
        [r#"!city.smoke.reading.v1 K {"battery":21,"smoke":true,"temperature":21}"#]
    );
}

#[test]
fn what_came_while_its_device_was_known_is_not_heard_again() {
    let node = node();
    let config = "homeassistant/binary_sensor/k/config";
    let smoke = r#"{"dev_cla":"smoke","stat_t":"vend/k"}"#;
    says(&node, config, smoke);
    let mut came = Retained { pos: Pos(2), ..kept(1, "ON") };
    let publish = Publish { retain: true, door: &came.door, ..Publish::plain("gateway", "vend/k", b"ON") };
    let draft = node.take(&publish).draft.unwrap();
    came = Retained {
        payload: draft.payload().to_vec().into(),
        door: draft.header().door.to_vec().into(),
        ..came.clone()
    };
    let mut retained = BTreeMap::from([("vend/k".to_owned(), came), (config.to_owned(), kept(1, smoke))]);
    assert_eq!(heard(&node, &mut retained), [""; 0], "right behind its announcement");
    let restarted = super::tests::node();
    restarted.recall(&retained);
    assert_eq!(heard(&restarted, &mut retained), [""; 0]);
    says(&node, config, r#"{"dev_cla":"smoke","stat_t":"vend/k","name":"Smoke"}"#);
    assert_eq!(heard(&node, &mut retained), [r#"!city.smoke.reading.v1 Smoke {"smoke":true}"#], "of another name");
    says(&node, config, smoke);
    retained.insert("vend/k".to_owned(), kept(5, "OFF"));
    assert_eq!(heard(&node, &mut retained), [r#"city.smoke.reading.v1 k {"smoke":false}"#]);
}

#[test]
fn a_part_that_names_no_device_is_called_by_its_own_name() {
    let node = node();
    let gas = |name: &str| format!(r#"{{{name}"dev_cla":"gas","stat_t":"alarms/k","pl_on":"1","pl_off":"0"}}"#);
    for (name, called) in [(r#""name":"Kitchen","#, "Kitchen"), (r#""name":null,"#, "k"), ("", "k")] {
        let announced = says(&node, "homeassistant/binary_sensor/k/config", &gas(name));
        assert_eq!(announced, "-");
        assert_eq!(says(&node, "alarms/k", "1"), format!("!city.gas.reading.v1 {called} {{\"gas\":true}}"));
    }
}

#[test]
fn a_smoke_alarm_that_announces_itself_needs_no_mapping() {
    let smoke = r#"{"name":null,"dev_cla":"smoke","~":"alarms/k1","stat_t":"~/state","val_tpl":"{{ value_json.smoke }}",
        "pl_on":true,"pl_off":false,"avty":[{"t":"~/lwt"}],"uniq_id":"k1_smoke","dev":{"ids":["k1"],"name":"Kitchen"}}"#;
    let battery = r#"{"dev_cla":"battery","unit_of_meas":"%","stat_t":"alarms/k1/state","val_tpl":"{{ value_json['battery'] | int }}",
        "uniq_id":"k1_bat","dev":{"ids":["k1"],"name":"Kitchen"}}"#;
    let node = node();
    all(
        &node,
        &[
            ("alarms/k1/state", r#"{"smoke":true}"#, "-"),
            ("homeassistant/binary_sensor/k1/smoke/config", smoke, "-"),
            ("homeassistant/sensor/k1/battery/config", battery, "-"),
            (
                "alarms/k1/state",
                r#"{"smoke":true,"battery":97}"#,
                r#"!city.smoke.reading.v1 Kitchen {"battery":97,"smoke":true,"units":{"battery":"%"}}"#,
            ),
            ("alarms/k1/state", r#"{"smoke":false}"#, r#"city.smoke.reading.v1 Kitchen {"smoke":false}"#),
            // No value at all says nothing; neither of its words is no calm.
            ("alarms/k1/state", r#"{"smoke":null}"#, "-"),
            (
                "alarms/k1/state",
                r#"{"smoke":"test","battery":97}"#,
                r#"city.sensor.reading.v1 Kitchen {"battery":97,"units":{"battery":"%"}}"#,
            ),
            ("alarms/k1/state", r#"{"smoke":"test"}"#, "? unread-alarm"),
            ("alarms/k1/lwt", "offline", r#"city.device.state.v1 Kitchen {"online":false}"#),
            ("alarms/k1/lwt", "online", r#"city.device.state.v1 Kitchen {"online":true}"#),
            // Taken back, a part after the other.
            ("homeassistant/binary_sensor/k1/smoke/config", "", "-"),
            ("alarms/k1/lwt", "online", "-"),
            (
                "alarms/k1/state",
                r#"{"smoke":true,"battery":12}"#,
                r#"city.sensor.reading.v1 Kitchen {"battery":12,"units":{"battery":"%"}}"#,
            ),
            ("homeassistant/sensor/k1/battery/config", "", "-"),
            ("alarms/k1/state", r#"{"battery":12}"#, "-"),
        ],
    );
}

#[test]
fn what_is_only_asked_whether_it_is_urgent_announces_nothing() {
    let node = node();
    let config = "homeassistant/binary_sensor/k1/smoke/config";
    let smoke = r#"{"dev_cla":"smoke","stat_t":"alarms/k1","pl_on":"on","pl_off":"off","uniq_id":"k1","dev":{"ids":["k1"],"name":"Kitchen"}}"#;
    let publish = |topic, payload: &'static str| Publish::plain("k1", topic, payload.as_bytes());
    assert!(!node.is_urgent(&publish(config, smoke)));
    all(&node, &[("alarms/k1", "on", "-"), (config, smoke, "-")]);
    assert!(node.is_urgent(&publish("alarms/k1", "on")));
    // Nor does it take an announcement back.
    assert!(!node.is_urgent(&publish(config, "")));
    assert!(says(&node, "alarms/k1", "on").starts_with("!city.smoke"));
}

#[test]
fn one_message_of_a_device_with_many_parts_is_one_event() {
    let whole = r#"{"dev":{"ids":"air-1","name":"Hall"},"o":{"name":"fw"},"stat_t":"air/1","cmps":{
        "t":{"p":"sensor","dev_cla":"temperature","unit_of_meas":"°C","val_tpl":"{{ value_json.t }}"},
        "t2":{"p":"sensor","dev_cla":"temperature","unit_of_meas":"°C","val_tpl":"{{ value_json.probes[1].t }}"},
        "co":{"p":"binary_sensor","dev_cla":"carbon_monoxide","val_tpl":"{{ value_json.co }}"},
        "led":{"p":"light","cmd_t":"air/1/set"},
        "old":{"p":"sensor"}}}"#;
    let node = node();
    all(
        &node,
        &[
            ("homeassistant/device/air-1/config", whole, "-"),
            (
                "air/1",
                r#"{"t":"21.5","probes":[{"t":1},{"t":19}],"co":"OFF"}"#,
                r#"city.gas.reading.v1 Hall {"carbon_monoxide":false,"t2":19,"temperature":21.5,"units":{"t2":"°C","temperature":"°C"}}"#,
            ),
            ("air/1", r#"{"co":"ON"}"#, r#"!city.gas.reading.v1 Hall {"carbon_monoxide":true}"#),
            ("air/1/set", "ON", "-"),
        ],
    );
}

#[test]
fn a_press_is_a_call_for_help_where_its_name_says_so() {
    let event = |name: &str| {
        format!(r#"{{"dev_cla":"button","event_types":["press"],"stat_t":"btn/{name}","dev":{{"name":"{name}"}}}}"#)
    };
    let trigger = r#"{"atype":"trigger","t":"zb/pendant/action","type":"action","stype":"emergency","pl":"emergency","dev":{"name":"pendant"}}"#;
    let cord = r#"{"name":"SOS","stat_t":"bath/cord","dev":{"name":"Bath"}}"#;
    let tamper = r#"{"name":"Tamper","dev_cla":"tamper","stat_t":"btn/tamper","dev":{"name":"sos-7"}}"#;
    let node = node();
    all(
        &node,
        &[
            ("homeassistant/event/a/config", &event("sos-7"), "-"),
            ("homeassistant/event/b/config", &event("door"), "-"),
            ("homeassistant/device_automation/pendant/action_emergency/config", trigger, "-"),
            ("homeassistant/binary_sensor/cord/config", cord, "-"),
            ("homeassistant/binary_sensor/tamper/config", tamper, "-"),
            ("btn/sos-7", r#"{"event_type":"press"}"#, r#"!city.sos.pressed.v1 sos-7 {"event":"press"}"#),
            ("btn/door", r#"{"event_type":"press"}"#, r#"city.button.pressed.v1 door {"event":"press"}"#),
            ("zb/pendant/action", "emergency", r#"!city.sos.pressed.v1 pendant {"event":"emergency"}"#),
            ("zb/pendant/action", "single", "-"),
            ("bath/cord", "ON", r#"!city.sos.pressed.v1 Bath {"cord":true}"#),
            ("bath/cord", "OFF", r#"city.sensor.reading.v1 Bath {"cord":false}"#),
            ("btn/tamper", "ON", r#"city.sensor.reading.v1 sos-7 {"tamper":true}"#),
        ],
    );
}

#[test]
fn one_zone_of_a_panel_is_enough_for_its_alarm() {
    let panel = |class: &str| {
        format!(
            r#"{{"dev":{{"ids":["fp"],"name":"Panel"}},"stat_t":"vend/{class}","cmps":{{
            "z1":{{"p":"binary_sensor","dev_cla":"{class}","val_tpl":"{{{{ value_json.z1 }}}}"}},
            "z2":{{"p":"binary_sensor","dev_cla":"{class}","val_tpl":"{{{{ value_json.z2 }}}}"}}}}}}"#
        )
    };
    let node = node();
    for (class, key, kind) in [
        ("smoke", "smoke", "smoke"),
        ("gas", "gas", "gas"),
        ("carbon_monoxide", "carbon_monoxide", "gas"),
        ("moisture", "water_leak", "leak"),
    ] {
        assert_eq!(says(&node, &format!("homeassistant/device/{class}/config"), &panel(class)), "-");
        for (z1, z2) in [(false, true), (true, false), (true, true), (false, false)] {
            let word = |on: bool| if on { "ON" } else { "OFF" };
            let payload = format!(r#"{{"z1":"{}","z2":"{}"}}"#, word(z1), word(z2));
            let is = z1 || z2;
            let mut data = serde_json::json!({"z1": z1, "z2": z2});
            data[key] = is.into();
            let want = format!("{}city.{kind}.reading.v1 Panel {data}", if is { "!" } else { "" });
            assert_eq!(says(&node, &format!("vend/{class}"), &payload), want, "{class} {payload}");
        }
    }
}

/// A panel with smoke zones `z1`, `z2` and `z3` on `vend/fp`.
const PANEL: &str = r#"{"dev":{"ids":["fp"],"name":"Panel"},"stat_t":"vend/fp","cmps":{
    "z1":{"p":"binary_sensor","dev_cla":"smoke","val_tpl":"{{ value_json.z1 }}"},
    "z2":{"p":"binary_sensor","dev_cla":"smoke","val_tpl":"{{ value_json.z2 }}"},
    "z3":{"p":"binary_sensor","dev_cla":"smoke","val_tpl":"{{ value_json.z3 }}"},
    "b":{"p":"sensor","dev_cla":"battery","val_tpl":"{{ value_json.b }}"}}}"#;

#[test]
fn where_only_some_zones_of_a_panel_speak_it_is_their_word_alone() {
    let node = node();
    all(
        &node,
        &[
            ("homeassistant/device/fp/config", PANEL, "-"),
            ("vend/fp", r#"{"z2":"ON"}"#, r#"!city.smoke.reading.v1 Panel z2 {"smoke":true,"z2":true}"#),
            ("vend/fp", r#"{"z1":"OFF"}"#, r#"city.smoke.reading.v1 Panel z1 {"smoke":false,"z1":false}"#),
            ("vend/fp", r#"{"z2":"OFF"}"#, r#"city.smoke.reading.v1 Panel z2 {"smoke":false,"z2":false}"#),
            (
                "vend/fp",
                r#"{"z3":"OFF","z1":"ON"}"#,
                r#"!city.smoke.reading.v1 Panel z1 z3 {"smoke":true,"z1":true,"z3":false}"#,
            ),
            // Nor has a message without any of them a word for one.
            ("vend/fp", r#"{"b":3}"#, r#"city.sensor.reading.v1 Panel {"battery":3}"#),
        ],
    );
}

#[test]
fn gas_that_is_gone_is_no_word_of_carbon_monoxide() {
    let both = r#"{"dev":{"name":"Kitchen"},"stat_t":"vend/k","cmps":{
        "g":{"p":"binary_sensor","dev_cla":"gas","val_tpl":"{{ value_json.gas }}"},
        "c":{"p":"binary_sensor","dev_cla":"carbon_monoxide","val_tpl":"{{ value_json.co }}"}}}"#;
    let node = node();
    all(
        &node,
        &[
            ("homeassistant/device/k/config", both, "-"),
            ("vend/k", r#"{"co":"ON"}"#, r#"!city.gas.reading.v1 Kitchen {"carbon_monoxide":true}"#),
            ("vend/k", r#"{"gas":"OFF"}"#, r#"city.gas.reading.v1 Kitchen {"gas":false}"#),
            (
                "vend/k",
                r#"{"gas":"OFF","co":"ON"}"#,
                r#"!city.gas.reading.v1 Kitchen {"carbon_monoxide":true,"gas":false}"#,
            ),
        ],
    );
}

#[test]
fn zones_that_are_called_the_same_go_by_their_announcements() {
    let zone = |n: u8| {
        format!(
            r#"{{"dev_cla":"smoke","stat_t":"vend/p","val_tpl":"{{{{ value_json.z{n} }}}}","dev":{{"name":"Panel"}}}}"#
        )
    };
    let node = node();
    for n in [1, 2] {
        assert_eq!(says(&node, &format!("homeassistant/binary_sensor/z{n}/smoke/config"), &zone(n)), "-");
    }
    let [one, two] = [r#"{"z1":"OFF"}"#, r#"{"z2":"OFF"}"#].map(|payload| says(&node, "vend/p", payload));
    assert_eq!(one, r#"city.smoke.reading.v1 Panel homeassistant/binary_sensor/z1/smoke/smoke {"smoke":false}"#);
    assert_ne!(one, two);
}

#[test]
fn what_any_device_of_a_topic_says_is_in_its_message_s_event() {
    let part = |kind: &str, name: &str, key: &str| {
        format!(
            r#"{{{kind}"name":"{name}","stat_t":"vend/gs","val_tpl":"{{{{ value_json.{key} }}}}","dev":{{"name":"{name}"}}}}"#
        )
    };
    let smoke = r#""dev_cla":"smoke","#;
    let node = node();
    all(
        &node,
        &[
            ("homeassistant/binary_sensor/a/config", &part("", "SOS A", "a"), "-"),
            ("homeassistant/binary_sensor/b/config", &part("", "SOS B", "b"), "-"),
            ("homeassistant/binary_sensor/c/config", &part(smoke, "Room C", "c"), "-"),
            ("homeassistant/binary_sensor/d/config", &part(smoke, "Room D", "d"), "-"),
            (
                "vend/gs",
                r#"{"a":"OFF","b":"ON"}"#,
                r#"!city.sos.pressed.v1 SOS B {"SOS A":{"a":false},"SOS B":{"b":true}}"#,
            ),
            (
                "vend/gs",
                r#"{"a":"ON","b":"ON"}"#,
                r#"!city.sos.pressed.v1 SOS A, SOS B {"SOS A":{"a":true},"SOS B":{"b":true}}"#,
            ),
            ("vend/gs", r#"{"b":"OFF"}"#, r#"city.sensor.reading.v1 SOS B {"b":false}"#),
            (
                "vend/gs",
                r#"{"c":"OFF","d":"ON","a":"OFF"}"#,
                r#"!city.smoke.reading.v1 Room C, Room D {"Room C":{"smoke":false},"Room D":{"smoke":true},"SOS A":{"a":false},"smoke":true}"#,
            ),
            (
                "vend/gs",
                r#"{"c":"OFF","d":"OFF"}"#,
                r#"city.smoke.reading.v1 Room C, Room D {"Room C":{"smoke":false},"Room D":{"smoke":false},"smoke":false}"#,
            ),
            ("vend/gs", r#"{"d":"ON"}"#, r#"!city.smoke.reading.v1 Room D {"smoke":true}"#),
        ],
    );
}

#[test]
fn what_does_not_read_where_all_look_into_json_is_a_dead_letter() {
    let node = node();
    let tell = |name: &str, topic: &str, template: &str| {
        let part = format!(r#"{{"name":"{name}","state_topic":"{topic}"{template}}}"#);
        says(&node, &format!("homeassistant/binary_sensor/{name}/config"), &part);
    };
    tell("a", "gs", r#","value_template":"{{ value_json.a }}""#);
    tell("b", "gs", r#","value_template":"{{ value_json.b }}""#);
    tell("c", "gt", r#","value_template":"{{ value_json.c }}""#);
    tell("d", "gt", "");
    assert_eq!(says(&node, "gs", r#"{"a":"OFF","b":"ON""#), "? not-json");
    // A word may be meant, or nothing.
    assert_eq!(says(&node, "gt", "{"), "-");
    assert_eq!(says(&node, "gs", ""), "-");
}

#[test]
fn a_device_is_known_though_its_name_is_no_utf8() {
    let node = node();
    let told = b"{\"name\":\"SOS\",\"state_topic\":\"gbk\",\"device\":{\"name\":\"SOS \xb1\xb1\"}}";
    node.take(&Publish { retain: true, ..Publish::plain("gateway", "homeassistant/binary_sensor/s/config", told) });
    assert_eq!(says(&node, "gbk", "ON"), "!city.sos.pressed.v1 SOS \u{fffd}B1\u{fffd}B1 {\"s\":true}");
}

#[test]
fn a_device_that_warns_is_heard_in_other_words_than_those_that_it_announced_or_refused() {
    let node = node();
    let part = |name: &str, more: &str| format!(r#"{{"name":"{name}","stat_t":"vend/{name}"{more}}}"#);
    let announcement = |name: &str| format!("homeassistant/binary_sensor/{name}/config");
    for (name, more) in [
        ("k", r#","dev_cla":"smoke""#),
        ("sos", ""),
        ("turned", r#","dev_cla":"smoke","pl_on":"OFF","pl_off":"ON""#),
        ("door", r#","dev_cla":"door""#),
    ] {
        assert_eq!(says(&node, &announcement(name), &part(name, more)), "-");
    }
    for word in ["ON", "on", "true", "TRUE", "1", "alarm"] {
        assert_eq!(says(&node, "vend/k", word), r#"!city.smoke.reading.v1 k {"smoke":true}"#, "{word}");
        assert_eq!(says(&node, "vend/sos", word), r#"!city.sos.pressed.v1 sos {"sos":true}"#, "{word}");
    }
    for word in ["OFF", "off", "False", "0", "normal"] {
        assert_eq!(says(&node, "vend/k", word), r#"city.smoke.reading.v1 k {"smoke":false}"#, "{word}");
        assert_eq!(says(&node, "vend/sos", word), r#"city.sensor.reading.v1 sos {"sos":false}"#, "{word}");
    }
    for word in ["maybe", "2", "[true]"] {
        assert_eq!(says(&node, "vend/k", word), "? unread-alarm", "{word}");
        assert_eq!(says(&node, "vend/sos", word), "? unread-alarm", "{word}");
    }
    // Who turns words round means none but those two.
    assert_eq!(says(&node, "vend/turned", "off"), r#"!city.smoke.reading.v1 turned {"smoke":true}"#);
    assert_eq!(says(&node, "vend/turned", "1"), "? unread-alarm");
    for nothing in ["unavailable", "unknown", ""] {
        assert_eq!(says(&node, "vend/k", nothing), "-");
    }
    assert_eq!(says(&node, "vend/door", "maybe"), "-", "nobody is in danger");
}

#[test]
fn one_zone_is_heard_alone_though_another_s_word_does_not_read_and_that_is_told_beside_it() {
    let node = node();
    all(
        &node,
        &[
            ("homeassistant/device/fp/config", PANEL, "-"),
            ("vend/fp", r#"{"z1":"ON","z2":"maybe"}"#, r#"!city.smoke.reading.v1 Panel z1 {"smoke":true,"z1":true}"#),
            (
                "vend/fp",
                r#"{"z1":"OFF","z2":"maybe","b":3}"#,
                r#"city.smoke.reading.v1 Panel z1 {"battery":3,"smoke":false,"z1":false}"#,
            ),
        ],
    );
    for z1 in ["ON", "OFF"] {
        let told = beside(&node, "vend/fp", &format!(r#"{{"z1":"{z1}","z2":"maybe"}}"#));
        assert!(told.starts_with("unread-alarm: Panel: `vend/fp` at /z2 is `smoke` says neither"), "{told}");
    }
}

#[test]
fn an_announcement_that_does_not_read_is_a_dead_letter_and_takes_nothing_back() {
    let node = node();
    let config = "homeassistant/binary_sensor/k/config";
    let smoke = r#"{"dev_cla":"smoke","stat_t":"vend/k","name":"K"}"#;
    assert_eq!(says(&node, config, smoke), "-");
    for cut in [&smoke[..20], "[]", "hello"] {
        assert_eq!(says(&node, config, cut), "? bad-announcement", "{cut}");
        assert_eq!(says(&node, "vend/k", "ON"), r#"!city.smoke.reading.v1 K {"smoke":true}"#);
    }
    // It is taken back by nothing at all.
    assert_eq!(says(&node, config, ""), "-");
    assert_eq!(says(&node, "vend/k", "ON"), "-");
}

/// Reason and words of the dead letter beside what is kept of a message; empty: there is none.
fn beside(node: &Ingress, topic: &str, payload: &str) -> String {
    let publish =
        Publish { retain: topic.ends_with("/config"), ..Publish::plain("gateway", topic, payload.as_bytes()) };
    let Some(letter) = node.take(&publish).beside else { return String::new() };
    let Note::DeadLetter(letter) = Note::parse(letter.payload()).unwrap() else { panic!("no other note") };
    assert_eq!((letter.topic.as_str(), letter.payload.as_str()), (topic, payload));
    format!("{}: {}", letter.reason, letter.detail)
}

#[test]
fn what_a_template_computes_is_heard_as_what_it_leads_to() {
    let node = node();
    let tell = |component: &str, name: &str, more: &str, template: &str| {
        let part = serde_json::json!({ "name": name, "stat_t": format!("vend/{name}"), "val_tpl": template });
        let Value::Object(mut part) = part else { unreachable!() };
        part.extend(serde_json::from_str::<Map<String, Value>>(more).unwrap());
        let topic = format!("homeassistant/{component}/{name}/config");
        assert_eq!(says(&node, &topic, &Value::Object(part).to_string()), "-");
    };
    let smoke = r#"{"dev_cla":"smoke"}"#;
    tell(
        "binary_sensor",
        "a",
        r#"{"dev_cla":"smoke","pl_on":"alarm","pl_off":"normal"}"#,
        "{{ value_json.alarm | lower }}",
    );
    tell("binary_sensor", "b", smoke, "{{ 'ON' if value_json.x else 'OFF' }}");
    tell("binary_sensor", "c", r#"{"dev_cla":"gas"}"#, "{% if value_json.p > 3 %}ON{% else %}OFF{% endif %}");
    tell("binary_sensor", "d", smoke, "{{ 'ON' if value_json.a or value_json.b else 'OFF' }}");
    tell("binary_sensor", "e", r#"{"dev_cla":"door","pl_on":"True","pl_off":"False"}"#, "{{ value_json.x == 'open' }}");
    tell("sensor", "f", r#"{"dev_cla":"temperature"}"#, "{{ (value | float / 10) | round(1) }}");
    tell("sensor", "action", r#"{"dev":{"name":"Bed"}}"#, "{{ value_json.keys | first }}");
    tell("event", "h", r#"{"evt_typ":["sos"]}"#, r#"{"event_type": "{{ value_json.action | lower }}"}"#);
    all(
        &node,
        &[
            ("vend/a", r#"{"alarm":"ALARM"}"#, r#"!city.smoke.reading.v1 a {"smoke":true}"#),
            ("vend/a", r#"{"alarm":"Normal"}"#, r#"city.smoke.reading.v1 a {"smoke":false}"#),
            ("vend/a", r#"{"alarm":"burning"}"#, "? unread-alarm"),
            ("vend/a", r#"{"alarm":null}"#, "-"),
            ("vend/a", "hello", "? not-json"),
            ("vend/b", r#"{"x":1}"#, r#"!city.smoke.reading.v1 b {"smoke":true}"#),
            ("vend/b", r#"{"x":0}"#, r#"city.smoke.reading.v1 b {"smoke":false}"#),
            // Nothing of it ends no alarm.
            ("vend/b", r#"{"t":21}"#, "-"),
            ("vend/c", r#"{"p":3.5}"#, r#"!city.gas.reading.v1 c {"gas":true}"#),
            ("vend/d", r#"{"b":true}"#, r#"!city.smoke.reading.v1 d {"smoke":true}"#),
            ("vend/d", r#"{"b":false}"#, "-"),
            ("vend/d", r#"{"a":false,"b":false}"#, r#"city.smoke.reading.v1 d {"smoke":false}"#),
            ("vend/e", r#"{"x":"open"}"#, r#"city.sensor.reading.v1 e {"door":true}"#),
            ("vend/f", "215", r#"city.sensor.reading.v1 f {"temperature":21.5}"#),
            ("vend/action", r#"{"keys":["sos"]}"#, r#"!city.sos.pressed.v1 Bed {"event":"sos"}"#),
            ("vend/h", r#"{"action":"SOS"}"#, r#"!city.sos.pressed.v1 h {"event":"sos"}"#),
        ],
    );
}

/// One that only Home Assistant can follow.
const LOST: &str = r#""val_tpl":"{{ states(value_json.s) }}""#;

#[test]
fn what_warns_by_a_template_that_cannot_be_followed_is_told_at_once_and_where_nothing_else_is_read() {
    let node = node();
    let part = |name: &str, more: &str| format!(r#"{{"name":"{name}","stat_t":"vend/j",{more}}}"#);
    let tell = |name: &str, more: &str| {
        let topic = format!("homeassistant/binary_sensor/{name}/config");
        // What it was stays, beside a dead letter.
        assert_eq!(says(&node, &topic, &part(name, more)), "-");
    };
    tell("door", LOST);
    assert_eq!(says(&node, "vend/j", r#"{"s":3}"#), "-", "no danger");
    let smoke = part("k", &format!(r#""dev_cla":"smoke",{LOST}"#));
    let k = "homeassistant/binary_sensor/k/config";
    assert_eq!(
        beside(&node, k, &smoke),
        "bad-announcement: not all of it is heard: k: `vend/j` is `smoke`: `{{ states(value_json.s) }}` cannot be \
         followed: nothing here is called `states`"
    );
    assert_eq!(beside(&node, k, &smoke), "", "it is told once");
    assert_eq!(node.again("gateway", k, smoke.as_bytes()).unwrap_err().reason, "bad-announcement");
    let restarted = super::tests::node();
    restarted.recall(&BTreeMap::from([(k.to_owned(), kept(1, &smoke))]));
    assert_eq!(beside(&restarted, k, &smoke), "", "also after a restart");
    assert_eq!(says(&node, "vend/j", r#"{"s":3}"#), "? unread-alarm");
    assert_eq!(says(&node, "vend/j", ""), "-");
    tell("warm", r#""val_tpl":"{{ value_json.t }}","dev_cla":"heat""#);
    assert_eq!(says(&node, "vend/j", r#"{"t":"ON"}"#), r#"city.sensor.reading.v1 warm {"heat":true}"#);
    let announced = node.announces("homeassistant/binary_sensor/k2/config", smoke.as_bytes());
    let announced = announced.expect("an announcement").expect("it reads");
    assert!(announced.parts.is_empty() && announced.left_out.len() == 1, "{announced:?}");
}

#[test]
fn what_a_template_cannot_say_of_a_message_is_told_beside_what_others_read_in_it() {
    let node = node();
    let part = |name: &str, more: &str| format!(r#"{{"stat_t":"vend/j",{more},"dev":{{"name":"{name}"}}}}"#);
    let computed = r#""dev_cla":"smoke","val_tpl":"{{ 'ON' if value_json.s | float > 3 else 'OFF' }}""#;
    says(&node, "homeassistant/binary_sensor/k/config", &part("Hall", computed));
    assert_eq!(says(&node, "vend/j", r#"{"s":"x"}"#), "? unread-alarm");
    says(&node, "homeassistant/sensor/t/config", &part("Hall", r#""val_tpl":"{{ value_json.t }}""#));
    let (both, bad) = (r#"{"s":4,"t":21}"#, r#"{"s":"x","t":21}"#);
    assert_eq!(says(&node, "vend/j", both), r#"!city.smoke.reading.v1 Hall {"smoke":true,"t":21}"#);
    assert_eq!(beside(&node, "vend/j", both), "");
    assert_eq!(says(&node, "vend/j", bad), r#"city.sensor.reading.v1 Hall {"t":21}"#);
    let told = beside(&node, "vend/j", bad);
    assert!(told.starts_with("unread-alarm: Hall: `vend/j` by `{{ 'ON' if value_json.s | float > 3"), "{told}");
    assert!(told.contains("invalid float literal"), "{told}");
    assert_eq!(node.again("gateway", "vend/j", bad.as_bytes()).unwrap_err().reason, "unread-alarm");
}

#[test]
fn a_node_has_room_for_so_many_templates() {
    let mut all = Announced::default();
    let template = format!("{{{{ value ~ '{}' }}}}", "x".repeat(900));
    let tell = |all: &mut Announced, i: usize| {
        let part = serde_json::json!({"stat_t": format!("t/{i}"), "dev_cla": "smoke", "val_tpl": template}).to_string();
        all.tell("h/+/+/config", &format!("h/binary_sensor/d{i}/config"), part.as_bytes(), None).unwrap().unwrap()
    };
    let lost = (0..150).filter(|i| tell(&mut all, *i).parts.iter().all(Part::is_lost)).count();
    assert!((35..50).contains(&lost), "{lost}");
    assert!(all.lost("h/binary_sensor/d149/config").unwrap().contains("100000 characters of templates"));
    for i in 0..150 {
        all.tell("h/+/+/config", &format!("h/binary_sensor/d{i}/config"), b"", None).unwrap();
    }
    assert_eq!((all.count, all.chars), (0, 0));
}

#[test]
fn how_a_button_for_help_is_itself_is_no_call() {
    let node = node();
    for (class, key) in [("battery", "battery_low"), ("tamper", "tamper"), ("connectivity", "online")] {
        let object = format!("sos_7_{class}");
        let part = format!(r#"{{"dev_cla":"{class}","stat_t":"vend/{class}","name":"SOS button {class}"}}"#);
        assert_eq!(says(&node, &format!("homeassistant/binary_sensor/{object}/config"), &part), "-");
        let said = says(&node, &format!("vend/{class}"), "ON");
        assert!(!said.starts_with('!') && said.contains(&format!("{{\"{key}\":true")), "{said}");
        let template = r#","val_tpl":"{{ 'ON' if value_json.b < 5 else 'OFF' }}""#;
        let computed = part.replace(r#","name""#, &format!(r#"{template},"name""#));
        assert_eq!(says(&node, &format!("homeassistant/binary_sensor/{object}/config"), &computed), "-");
        let said = says(&node, &format!("vend/{class}"), r#"{"b":3}"#);
        assert!(!said.starts_with('!') && said.contains(&format!("{{\"{key}\":true")), "{said}");
    }
    for class in ["", "safety", "problem"] {
        let part = format!(r#"{{"dev_cla":"{class}","stat_t":"vend/call","name":"SOS"}}"#);
        assert_eq!(says(&node, "homeassistant/binary_sensor/call/config", &part), "-");
        assert!(says(&node, "vend/call", "ON").starts_with("!city.sos.pressed.v1 "), "{class}");
    }
}

#[test]
fn a_press_that_may_call_by_a_template_that_cannot_be_followed_is_a_dead_letter() {
    for (component, name, more, want) in [
        ("sensor", "action", r#""dev":{"name":"SOS 7"}"#, "? unread-alarm"),
        ("sensor", "action", r#""dev":{"name":"Lamp"}"#, "-"),
        ("device_automation", "t", r#""type":"emergency""#, "? unread-alarm"),
        ("device_automation", "t", r#""type":"single","dev":{"name":"SOS 7"}"#, "? unread-alarm"),
        ("device_automation", "t", r#""type":"single""#, "-"),
        ("event", "e", r#""evt_typ":["single","emergency"]"#, "? unread-alarm"),
        ("event", "e", r#""evt_typ":["single"],"dev":{"name":"SOS 7"}"#, "? unread-alarm"),
        ("event", "e", r#""evt_typ":["single"]"#, "-"),
    ] {
        let node = node();
        let part = format!(r#"{{"stat_t":"vend/b","topic":"vend/b",{LOST},{more}}}"#);
        assert_eq!(says(&node, &format!("homeassistant/{component}/b/{name}/config"), &part), "-");
        assert_eq!(says(&node, "vend/b", r#"{"keys":["emergency"]}"#), want, "{component} {more}");
        if component == "event" {
            let made = says(&node, "vend/b", r#"{"event_type":"single"}"#);
            assert!(made.contains(".pressed.v1 "), "an `event_type` is a press all the same: {made}");
        }
    }
}

#[test]
fn of_devices_that_share_a_topic_the_worst_battery_is_told_beside_them() {
    let node = node();
    let part = |component: &str, name: &str, key: &str| {
        let topic = format!("homeassistant/{component}/{key}/config");
        let part = format!(
            r#"{{"dev_cla":"battery","stat_t":"vend/gs","val_tpl":"{{{{ value_json.{key} }}}}","dev":{{"name":"{name}"}}}}"#
        );
        assert_eq!(says(&node, &topic, &part), "-");
    };
    part("sensor", "SOS A", "ba");
    part("sensor", "SOS B", "bb");
    part("binary_sensor", "SOS C", "lc");
    all(
        &node,
        &[
            (
                "vend/gs",
                r#"{"ba":50,"bb":3}"#,
                r#"city.sensor.reading.v1 SOS A, SOS B {"SOS A":{"battery":50},"SOS B":{"battery":3},"battery":3,"battery_of":"SOS B"}"#,
            ),
            (
                "vend/gs",
                r#"{"ba":50,"lc":"ON"}"#,
                r#"city.sensor.reading.v1 SOS C, SOS A {"SOS A":{"battery":50},"SOS C":{"battery_low":true},"battery":50,"battery_low":true,"battery_of":"SOS C"}"#,
            ),
            ("vend/gs", r#"{"ba":3}"#, r#"city.sensor.reading.v1 SOS A {"battery":3}"#),
        ],
    );
    // Whose name the event does not have has no alarm there.
    let smoke = r#"{"dev_cla":"smoke","stat_t":"vend/gs","val_tpl":"{{ value_json.s }}","dev":{"name":"Room"}}"#;
    assert_eq!(says(&node, "homeassistant/binary_sensor/s/config", smoke), "-");
    assert_eq!(
        says(&node, "vend/gs", r#"{"ba":3,"s":"OFF"}"#),
        r#"city.smoke.reading.v1 Room {"Room":{"smoke":false},"SOS A":{"battery":3},"smoke":false}"#
    );
}

#[test]
fn a_sensor_that_is_called_smoke_hides_no_alarm() {
    let node = node();
    let whole = r#"{"dev":{"name":"Hall"},"stat_t":"hall/1","cmps":{
        "smoke":{"p":"sensor","val_tpl":"{{ value_json.ppm }}"},
        "smoke_alarm":{"p":"binary_sensor","dev_cla":"smoke","val_tpl":"{{ value_json.alarm }}"}}}"#;
    all(
        &node,
        &[
            ("homeassistant/device/hall/config", whole, "-"),
            ("hall/1", r#"{"ppm":1,"alarm":"OFF"}"#, r#"city.smoke.reading.v1 Hall {"smoke":false,"smoke_value":1}"#),
            ("hall/1", r#"{"ppm":1,"alarm":"ON"}"#, r#"!city.smoke.reading.v1 Hall {"smoke":true,"smoke_value":1}"#),
        ],
    );
}

#[test]
fn of_what_a_button_s_topic_says_only_its_events_are_presses() {
    let whole = r#"{"dev":{"ids":["b9"],"name":"SOS 9-901"},"stat_t":"vend/b9","cmps":{
        "battery":{"p":"sensor","dev_cla":"battery","val_tpl":"{{ value_json.battery }}"},
        "action":{"p":"event","event_types":["single","double"]}}}"#;
    let told = |name: &str, more: &str| format!(r#"{{{more}"stat_t":"vend/{name}","dev":{{"name":"sos-{name}"}}}}"#);
    let node = node();
    all(
        &node,
        &[
            ("homeassistant/device/b9/config", whole, "-"),
            ("vend/b9", r#"{"battery":97,"linkquality":120}"#, r#"city.sensor.reading.v1 SOS 9-901 {"battery":97}"#),
            ("vend/b9", r#"{"event_type":"zzz"}"#, "-"),
            ("vend/b9", r#"{"event_type":7}"#, "-"),
            ("vend/b9", r#"{"linkquality":120}"#, "-"),
            ("vend/b9", "online", "-"),
            ("vend/b9", r#"{"event_type":"double"}"#, r#"!city.sos.pressed.v1 SOS 9-901 {"event":"double"}"#),
            (
                "vend/b9",
                r#"{"event_type":"single","battery":97}"#,
                r#"!city.sos.pressed.v1 SOS 9-901 {"battery":97,"event":"single"}"#,
            ),
            // A word of the list can be nothing else.
            ("vend/b9", "single", r#"!city.sos.pressed.v1 SOS 9-901 {"event":"single"}"#),
            // Without a list, and where a template leads to it.
            ("homeassistant/event/any/config", &told("any", ""), "-"),
            ("vend/any", r#"{"event_type":"x"}"#, r#"!city.sos.pressed.v1 sos-any {"event":"x"}"#),
            ("vend/any", "x", "-"),
            (
                "homeassistant/event/led/config",
                &told("led", r#""event_types":["single"],"val_tpl":"{{ value_json.action }}","#),
                "-",
            ),
            ("vend/led", r#"{"action":"single"}"#, r#"!city.sos.pressed.v1 sos-led {"event":"single"}"#),
            ("vend/led", r#"{"action":{"event_type":"single"}}"#, r#"!city.sos.pressed.v1 sos-led {"event":"single"}"#),
            ("vend/led", r#"{"action":"","battery":3}"#, "-"),
            ("vend/led", r#"{"event_type":"single"}"#, r#"!city.sos.pressed.v1 sos-led {"event":"single"}"#),
            // As gateways told of presses before there were events: a state.
            ("homeassistant/sensor/old/action/config", &told("old", ""), "-"),
            ("vend/old", "single", r#"!city.sos.pressed.v1 sos-old {"event":"single"}"#),
            ("vend/old", r#"{"battery":97}"#, "-"),
        ],
    );
}

#[test]
fn a_template_of_presses_that_cannot_be_followed_is_told_and_leaves_those_that_need_none() {
    let press =
        r#"{"stat_t":"vend/b","val_tpl":"{{ {'event_type': value_json.action} | tojson }}","dev":{"name":"sos"}}"#;
    let why = left_out("event", press);
    assert!(why.len() == 1 && why[0].contains("cannot be followed: "), "{why:?}");
    assert!(why[0].ends_with("only an `event_type` in its payload is a press"), "{why:?}");
    all(
        &node(),
        &[
            ("homeassistant/event/b/config", press, "-"),
            ("vend/b", r#"{"event_type":"x"}"#, r#"!city.sos.pressed.v1 sos {"event":"x"}"#),
            ("vend/b", r#"{"action":"x"}"#, "? unread-alarm"),
        ],
    );
}

#[test]
fn a_bridge_that_many_devices_name_is_no_one_of_them() {
    let node = node();
    let of = |name: &str| {
        format!(
            r#"{{"stat_t":"zb/{name}","avty_t":"zb/bridge/state","avty_tpl":"{{{{ value_json.state }}}}","dev":{{"name":"{name}"}}}}"#
        )
    };
    all(
        &node,
        &[
            ("homeassistant/sensor/a/config", &of("a"), "-"),
            ("zb/bridge/state", r#"{"state":"offline"}"#, r#"city.device.state.v1 a {"online":false}"#),
            ("homeassistant/sensor/b/config", &of("b"), "-"),
            ("zb/bridge/state", r#"{"state":"offline"}"#, r#"city.device.state.v1 zb/bridge {"online":false}"#),
            ("zb/b", "17", r#"city.sensor.reading.v1 b {"b":17}"#),
        ],
    );
}

#[test]
fn the_mappings_of_a_file_come_first_and_a_nodes_own_word_is_no_device() {
    let node = node();
    let ours = r#"{"stat_t":"brain/c/s/state","dev":{"name":"us"}}"#;
    let esp = r#"{"stat_t":"porch/sensor/lux/state","dev":{"name":"Porch of ours"}}"#;
    all(
        &node,
        &[
            ("homeassistant/sensor/citybrain_c_s/alarms/config", ours, "-"),
            ("homeassistant/sensor/porch/lux/config", esp, "-"),
            ("porch/sensor/lux/state", "3.5", r#"city.sensor.reading.v1 porch {"lux":3.5}"#),
        ],
    );
}

#[test]
fn what_cannot_be_followed_is_left_out_with_its_reason() {
    for (component, announcement, want) in [
        (
            "sensor",
            r#"{"stat_t":"a","val_tpl":"{{ states('x') }}"}"#,
            "x: `{{ states('x') }}` cannot be followed: nothing here is called `states`",
        ),
        ("sensor", r#"{"stat_t":"a","val_tpl":"{% if value %}1"}"#, "x: `{% if value %}1` cannot be followed: "),
        ("sensor", r#"{"stat_t":"a","val_tpl":"{{ value_json. }}"}"#, "x: `{{ value_json. }}`"),
        ("sensor", r#"{"name":"none"}"#, "x: it has no `state_topic`"),
        ("sensor", r#"{"stat_t":"a/#"}"#, "x: `a/#` is no topic"),
        ("sensor", r#"{"stat_t":"events/lamp"}"#, "x: `events/lamp` is no topic of devices"),
        ("binary_sensor", r#"{"stat_t":"in/lamp"}"#, "x: `in/lamp` is no topic of devices"),
        ("sensor", r#"{"stat_t":"$SYS/x"}"#, "x: `$SYS/x` is no topic of devices"),
        ("sensor", r#"{"stat_t":"a","avty":{"t":""}}"#, "x, availability: `` is no topic"),
    ] {
        let why = left_out(component, announcement);
        assert!(why.len() == 1 && why[0].starts_with(want), "{announcement}: {why:?}");
    }
    assert_eq!(left_out("light", r#"{"stat_t":"a"}"#), [""; 0], "no reading, and no mistake");
    for payload in ["hello", "[1]", "\"x\""] {
        assert!(read("h/+/+/config", "h/sensor/x/config", payload.as_bytes(), None).is_err());
    }
}

#[test]
fn what_is_announced_again_costs_nothing_and_there_is_room_for_so_many() {
    let mut all = Announced::default();
    let filter = "h/+/+/config";
    let parts: Map<String, Value> = (0..PARTS_OF_ONE_MAX + 50)
        .map(|i| (format!("p{i:03}"), serde_json::json!({"p": "sensor", "stat_t": format!("t/{i}")})))
        .collect();
    let payload = serde_json::json!({ "cmps": parts }).to_string();
    for i in 0..60 {
        let topic = format!("h/device/d{i}/config");
        let read = all.tell(filter, &topic, payload.as_bytes(), None).unwrap().unwrap();
        assert!(read.left_out.iter().any(|why| why.contains("200 parts")), "{:?}", read.left_out);
        assert!(all.tell(filter, &topic, payload.as_bytes(), None).unwrap().is_none(), "nothing new");
    }
    assert_eq!(all.count, PARTS_MAX);
    for i in 0..60 {
        all.tell(filter, &format!("h/device/d{i}/config"), b"", None).unwrap();
    }
    assert!(all.count == 0 && all.parts.is_empty() && all.told.is_empty());
}

#[test]
fn any_bytes_are_read_or_refused() {
    let seed = r#"{"~":"a","name":"n","dev_cla":"smoke","stat_t":"~/s","val_tpl":"{{ value_json.a['b'][0] | int }}","avty":[{"t":"x"}],"dev":{"ids":["i"]},"cmps":{"a":{"p":"sensor","stat_t":"q"}}}"#;
    let mut state = 0x9e37_79b9_u64;
    for _ in 0..20_000 {
        let mut bytes = seed.as_bytes().to_vec();
        for _ in 0..4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % bytes.len();
            match state >> 61 {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, (state >> 20) as u8),
                _ => bytes[at] = b"{}[]\".'|~/#+a0 "[(state >> 40) as usize % 15],
            }
        }
        let mut all = Announced::default();
        let _ = all.tell("h/+/+/config", "h/sensor/x/config", &bytes, None);
        for topic in all.parts.keys() {
            let _ = all.heard(topic, &Body::new(&bytes));
        }
    }
}
