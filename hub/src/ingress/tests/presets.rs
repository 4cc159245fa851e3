//! What devices from a shop send, as their makers' documentation has it, and what becomes of it.

use crate::door::Ingress as _;
use crate::ingress::*;
use citybrain_shared::config::{Variables, parse};
use serde_json::Value;

fn node(presets: &str) -> Ingress {
    configured(&format!("preset = {presets}"))
}

fn configured(more: &str) -> Ingress {
    let text = format!("{more}\n[node]\naddress = \"c/s/m/n\"\ndata = \"d\"\n");
    let parsed = parse(&text, &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    Ingress::new(&parsed.config.unwrap())
}

fn publish<'a>(topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish { user: "A1_TEST_TOKEN", qos: 0, ..Publish::plain("meter-7", topic, payload.as_bytes()) }
}

/// `TYPE SUBJECT DATA`, and `!` in front of what is urgent; `-` for what is no event.
fn made(node: &Ingress, topic: &str, payload: &str) -> String {
    let taken = node.take(&publish(topic, payload));
    let Some(draft) = taken.draft else { return "-".into() };
    let header = draft.header();
    match header.kind {
        Kind::Event => {
            let v: Value = serde_json::from_slice(draft.payload()).unwrap();
            let urgent = if header.lane == Lane::Urgent { "!" } else { "" };
            assert_eq!(header.direction, Direction::Local, "what a household's devices say stays: {topic}");
            format!("{urgent}{} {} {}", header.name, v["subject"].as_str().unwrap_or("-"), v["data"])
        }
        Kind::Message => "-".into(),
        _ => match Note::parse(draft.payload()).unwrap() {
            Note::DeadLetter(letter) => format!("? {}", letter.reason),
            other => panic!("{other:?}"),
        },
    }
}

fn all(presets: &str, samples: &[(&str, &str, &str)]) {
    let node = node(presets);
    for (topic, payload, want) in samples {
        assert_eq!(made(&node, topic, payload), *want, "{topic} {payload}");
    }
}

#[test]
fn zigbee2mqtt() {
    all(
        "\"zigbee2mqtt\"",
        &[
            (
                "zigbee2mqtt/sos/7-301",
                r#"{"action":"single","battery":97}"#,
                r#"!city.sos.pressed.v1 sos/7-301 {"action":"single","battery":97}"#,
            ),
            // What some buttons send behind each press, and on their own, is no press.
            ("zigbee2mqtt/sos/7-301", r#"{"action":""}"#, r#"city.sensor.reading.v1 sos/7-301 {"action":""}"#),
            (
                "zigbee2mqtt/sos/7-301",
                r#"{"action":null,"battery":96}"#,
                r#"city.sensor.reading.v1 sos/7-301 {"action":null,"battery":96}"#,
            ),
            (
                "zigbee2mqtt/pendant",
                r#"{"action":"emergency"}"#,
                r#"!city.sos.pressed.v1 pendant {"action":"emergency"}"#,
            ),
            ("zigbee2mqtt/pendant", r#"{"action":"SOS"}"#, r#"!city.sos.pressed.v1 pendant {"action":"SOS"}"#),
            // Whose battery is how, in numbers and words.
            (
                "zigbee2mqtt/door",
                r#"{"battery":"7 %","battery_low":"LOW"}"#,
                r#"city.sensor.reading.v1 door {"battery":7,"battery_low":true}"#,
            ),
            ("zigbee2mqtt/cord", r#"{"sos":true}"#, r#"!city.sos.pressed.v1 cord {"sos":true}"#),
            ("zigbee2mqtt/switch", r#"{"action":"double"}"#, r#"city.button.pressed.v1 switch {"action":"double"}"#),
            (
                "zigbee2mqtt/kitchen",
                r#"{"battery":100,"battery_low":false,"linkquality":120,"smoke":true}"#,
                r#"!city.smoke.reading.v1 kitchen {"battery":100,"battery_low":false,"linkquality":120,"smoke":true}"#,
            ),
            ("zigbee2mqtt/kitchen", r#"{"smoke":false}"#, r#"city.smoke.reading.v1 kitchen {"smoke":false}"#),
            ("zigbee2mqtt/stove", r#"{"gas":true}"#, r#"!city.gas.reading.v1 stove {"gas":true}"#),
            (
                "zigbee2mqtt/stove",
                r#"{"carbon_monoxide":false,"co":3}"#,
                r#"city.gas.reading.v1 stove {"carbon_monoxide":false,"co":3}"#,
            ),
            // An alarm for both.
            (
                "zigbee2mqtt/boiler",
                r#"{"smoke":false,"carbon_monoxide":true}"#,
                r#"!city.gas.reading.v1 boiler {"carbon_monoxide":true,"smoke":false}"#,
            ),
            (
                "zigbee2mqtt/boiler",
                r#"{"smoke":false,"gas":false}"#,
                r#"city.smoke.reading.v1 boiler {"gas":false,"smoke":false}"#,
            ),
            ("zigbee2mqtt/bath", r#"{"water_leak":true}"#, r#"!city.leak.reading.v1 bath {"water_leak":true}"#),
            (
                "zigbee2mqtt/hall/north/air",
                r#"{"temperature":21.5,"humidity":40}"#,
                r#"city.sensor.reading.v1 hall/north/air {"humidity":40,"temperature":21.5}"#,
            ),
            // Before version 2.
            ("zigbee2mqtt/bridge/state", r#"{"state":"offline"}"#, r#"city.device.state.v1 bridge {"online":false}"#),
            ("zigbee2mqtt/bridge/state", "online", r#"city.device.state.v1 bridge {"online":true}"#),
            ("zigbee2mqtt/kitchen/availability", "offline", r#"city.device.state.v1 kitchen {"online":false}"#),
            ("zigbee2mqtt/sos/7-301/availability", "online", r#"city.device.state.v1 sos/7-301 {"online":true}"#),
            (
                "zigbee2mqtt/kitchen/availability",
                r#"{"state":"offline"}"#,
                r#"city.device.state.v1 kitchen {"online":false}"#,
            ),
            (
                "zigbee2mqtt/sos/7-301/availability",
                r#"{"state":"online"}"#,
                r#"city.device.state.v1 sos/7-301 {"online":true}"#,
            ),
            (
                "zigbee2mqtt/hall/north/air/availability",
                r#"{"state":"offline"}"#,
                r#"city.device.state.v1 hall/north/air {"online":false}"#,
            ),
            // With its Home Assistant integration each action comes once more, as a word.
            ("zigbee2mqtt/switch/action", "single", "-"),
            ("zigbee2mqtt/sos/7-301/action", "single", "-"),
            ("zigbee2mqtt/hall/north/switch/action", "single", "-"),
            (
                "zigbee2mqtt/sos/action",
                r#"{"action":"single"}"#,
                r#"!city.sos.pressed.v1 sos/action {"action":"single"}"#,
            ),
            ("zigbee2mqtt/hall/north/lamp/set", r#"{"state":"ON"}"#, "-"),
            ("zigbee2mqtt/bridge/devices", "[]", "-"),
            ("zigbee2mqtt/lamp/set", r#"{"state":"ON"}"#, "-"),
            ("zigbee2mqtt/lamp/set/brightness", "7", "-"),
            ("zigbee2mqtt/lamp", "no json", "? not-json"),
            ("other/lamp", "{}", "-"),
        ],
    );
}

#[test]
fn a_retained_message_that_is_taken_back_is_no_reading_and_no_dead_letter() {
    let node = node("\"zigbee2mqtt\"");
    let taken = node.take(&Publish { retain: true, ..publish("zigbee2mqtt/kitchen", "") });
    assert_eq!(taken.draft.unwrap().header().kind, Kind::Message);
}

#[test]
fn tasmota_and_esphome() {
    all(
        "[\"tasmota\", \"esphome\"]",
        &[
            ("tele/lamp/LWT", "Online", r#"city.device.state.v1 lamp {"online":true}"#),
            ("tele/sos/7/LWT", "Offline", r#"city.device.state.v1 sos/7 {"online":false}"#),
            (
                "tele/garden/SENSOR",
                r#"{"Time":"2026-11-24T10:00:00","AM2301":{"Temperature":24.6,"Humidity":58.2}}"#,
                r#"city.sensor.reading.v1 garden {"AM2301":{"Humidity":58.2,"Temperature":24.6},"Time":"2026-11-24T10:00:00"}"#,
            ),
            (
                "stat/sos/7/RESULT",
                r#"{"Button1":{"Action":"SINGLE"}}"#,
                r#"!city.sos.pressed.v1 sos/7 {"Button1":{"Action":"SINGLE"}}"#,
            ),
            (
                "stat/smoke/7/RESULT",
                r#"{"Switch1":{"Action":"ON"}}"#,
                r#"!city.smoke.reading.v1 smoke/7 {"smoke":true}"#,
            ),
            (
                "stat/smoke/7/RESULT",
                r#"{"Switch1":{"Action":"OFF"}}"#,
                r#"city.smoke.reading.v1 smoke/7 {"smoke":false}"#,
            ),
            (
                "stat/sos/7/RESULT",
                r#"{"Button2":{"Action":"SINGLE"}}"#,
                r#"!city.sos.pressed.v1 sos/7 {"Button2":{"Action":"SINGLE"}}"#,
            ),
            // Released.
            ("stat/sos/7/RESULT", r#"{"Button1":{"Action":"CLEAR"}}"#, "-"),
            (
                "tele/smoke/7/SENSOR",
                r#"{"Switch1":"ON"}"#,
                r#"!city.smoke.reading.v1 smoke/7 {"Switch1":"ON","smoke":true}"#,
            ),
            ("stat/lamp/RESULT", r#"{"POWER":"ON"}"#, "-"),
            ("cmnd/lamp/POWER", "ON", "-"),
            (
                "livingroom/sensor/temperature/state",
                "21.5",
                r#"city.sensor.reading.v1 livingroom {"temperature":21.5}"#,
            ),
            ("door/binary_sensor/front/state", "OFF", r#"city.sensor.reading.v1 door {"front":false}"#),
            ("kitchen/binary_sensor/smoke/state", "ON", r#"!city.smoke.reading.v1 kitchen {"smoke":true}"#),
            (
                "kitchen/binary_sensor/carbon_monoxide/state",
                "ON",
                r#"!city.gas.reading.v1 kitchen {"carbon_monoxide":true}"#,
            ),
            ("kitchen/binary_sensor/co/state", "OFF", r#"city.gas.reading.v1 kitchen {"carbon_monoxide":false}"#),
            ("kitchen/binary_sensor/smoke/state", "OFF", r#"city.smoke.reading.v1 kitchen {"smoke":false}"#),
            ("bed/binary_sensor/sos/state", "ON", r#"!city.sos.pressed.v1 bed {"sos":true}"#),
            ("bed/binary_sensor/sos/state", "OFF", r#"city.sensor.reading.v1 bed {"sos":false}"#),
            ("kitchen/status", "offline", r#"city.device.state.v1 kitchen {"online":false}"#),
            ("kitchen/status", "whatever", "-"),
            ("homeassistant/status", "online", "-"),
        ],
    );
}

#[test]
fn shelly() {
    all(
        "\"shelly\"",
        &[
            (
                "shellyplussmoke-80646fd1ce44/online",
                "true",
                r#"city.device.state.v1 shellyplussmoke-80646fd1ce44 {"online":true}"#,
            ),
            (
                "shellyplussmoke-80646fd1ce44/events/rpc",
                r#"{"src":"shellyplussmoke-80646fd1ce44","dst":"x/events","method":"NotifyStatus","params":{"ts":1700000000.5,"smoke:0":{"id":0,"alarm":true,"mute":false}}}"#,
                r#"!city.smoke.reading.v1 shellyplussmoke-80646fd1ce44 {"alarm":true,"id":0,"mute":false,"smoke":true}"#,
            ),
            (
                "shellyplus1/events/rpc",
                r#"{"src":"shellyplus1","dst":"x/events","method":"NotifyStatus","params":{"ts":1700000000.5,"switch:0":{"id":0,"output":true}}}"#,
                r#"city.sensor.reading.v1 shellyplus1 {"switch:0":{"id":0,"output":true},"ts":1700000000.5}"#,
            ),
            (
                "shellyplussmoke/events/rpc",
                r#"{"method":"NotifyStatus","params":{"ts":1.5,"devicepower:0":{"id":0,"battery":{"V":2.4,"percent":8}}}}"#,
                r#"city.sensor.reading.v1 shellyplussmoke {"battery":8,"devicepower:0":{"battery":{"V":2.4,"percent":8},"id":0},"ts":1.5}"#,
            ),
            (
                "house/f/events/rpc",
                r#"{"method":"NotifyFullStatus","params":{"flood:0":{"alarm":false},"devicepower:0":{"battery":{"percent":8}}}}"#,
                r#"city.leak.reading.v1 house/f {"alarm":false,"battery":8,"water_leak":false}"#,
            ),
            (
                "sos/7-301/events/rpc",
                r#"{"src":"s","dst":"x","method":"NotifyEvent","params":{"ts":1700000000.5,"events":[{"component":"input:0","id":0,"event":"single_push","ts":1700000000.5}]}}"#,
                r#"!city.sos.pressed.v1 sos/7-301 {"events":[{"component":"input:0","event":"single_push","id":0,"ts":1700000000.5}],"ts":1700000000.5}"#,
            ),
            ("sos/7-301/events/rpc", r#"{"method":"NotifyEvent","params":{"events":[{"event":"btn_down"}]}}"#, "-"),
            (
                "shellyplus1/events/rpc",
                r#"{"method":"NotifyEvent","params":{"events":[{"event":"config_changed"}]}}"#,
                "-",
            ),
        ],
    );
}

#[test]
fn chirpstack() {
    let up = |tags: &str, object: &str| {
        format!(
            r#"{{"deduplicationId":"3ac7e3c4-4401-4b8d-9386-a5c902f9202d","time":"2022-07-18T09:34:15.775023242+00:00","deviceInfo":{{"deviceName":"smoke-7","devEui":"0101010101010101","tags":{tags}}},"fPort":1,"data":"qg=="{object}}}"#
        )
    };
    let topic = "application/17c82e96-be03-4f38-aef3-f83d48582d97/device/0101010101010101/event/up";
    let status = "application/1/device/01/event/status";
    let told = |battery: &str| {
        format!(
            r#"{{"deduplicationId":"s1","deviceInfo":{{"deviceName":"smoke-7","devEui":"01"}},"margin":10,{battery}}}"#
        )
    };
    all(
        "\"chirpstack\"",
        &[
            (
                topic,
                &up("{}", r#","object":{"smoke":1,"battery":88}"#),
                r#"!city.smoke.reading.v1 smoke-7 {"battery":88,"devEui":"0101010101010101","smoke":true}"#,
            ),
            (
                topic,
                &up("{}", r#","object":{"smoke":"normal"}"#),
                r#"city.smoke.reading.v1 smoke-7 {"devEui":"0101010101010101","smoke":false}"#,
            ),
            (
                topic,
                &up(r#"{"use":"sos"}"#, r#","object":{"press":"short"}"#),
                r#"!city.sos.pressed.v1 smoke-7 {"devEui":"0101010101010101","press":"short"}"#,
            ),
            // A button's sign of life is no press.
            (
                topic,
                &up(r#"{"use":"sos"}"#, r#","object":{"battery":3}"#),
                r#"city.sensor.reading.v1 smoke-7 {"battery":3,"devEui":"0101010101010101"}"#,
            ),
            (
                topic,
                &up(r#"{"use":"sos"}"#, r#","object":{"press":false}"#),
                r#"city.sensor.reading.v1 smoke-7 {"devEui":"0101010101010101","press":false}"#,
            ),
            (
                topic,
                &up(r#"{"use":"sos"}"#, r#","object":{"button":0,"press":"none"}"#),
                r#"city.sensor.reading.v1 smoke-7 {"button":0,"devEui":"0101010101010101","press":"none"}"#,
            ),
            (
                topic,
                &up(r#"{"use":"sos"}"#, r#","object":{"button":1,"press":false}"#),
                r#"!city.sos.pressed.v1 smoke-7 {"button":1,"devEui":"0101010101010101","press":false}"#,
            ),
            (
                topic,
                &up(r#"{"use":"sos"}"#, r#","object":{"button":0,"press":"long"}"#),
                r#"!city.sos.pressed.v1 smoke-7 {"button":0,"devEui":"0101010101010101","press":"long"}"#,
            ),
            (
                topic,
                &up(r#"{"use":"sos"}"#, r#","object":{"press":false,"sos":true}"#),
                r#"!city.sos.pressed.v1 smoke-7 {"devEui":"0101010101010101","press":false,"sos":true}"#,
            ),
            (
                topic,
                &up("{}", ""),
                r#"city.sensor.reading.v1 smoke-7 {"data":"qg==","devEui":"0101010101010101","fPort":1}"#,
            ),
            ("application/1/device/2/event/join", "{}", "-"),
            (
                status,
                &told(r#""externalPowerSource":false,"batteryLevelUnavailable":false,"batteryLevel":7.5"#),
                r#"city.sensor.reading.v1 smoke-7 {"battery":7.5,"devEui":"01","margin":10}"#,
            ),
            (
                status,
                &told(r#""externalPowerSource":true,"batteryLevel":0"#),
                r#"city.sensor.reading.v1 smoke-7 {"devEui":"01","margin":10}"#,
            ),
            (
                status,
                &told(r#""batteryLevelUnavailable":true,"batteryLevel":0"#),
                r#"city.sensor.reading.v1 smoke-7 {"devEui":"01","margin":10}"#,
            ),
        ],
    );
    let one = up("{}", r#","object":{"smoke":1}"#);
    let draft = node("\"chirpstack\"").take(&publish(topic, &one)).draft.unwrap();
    let v: Value = serde_json::from_slice(draft.payload()).unwrap();
    assert_eq!(v["id"], "3ac7e3c4-4401-4b8d-9386-a5c902f9202d", "a gateway's repetition is known");
    assert_eq!(v["time"], "2022-07-18T09:34:15.775023242Z");
}

#[test]
fn devices_made_for_a_maker_s_cloud() {
    all(
        "[\"thingsboard\", \"alink\", \"huawei\", \"onenet\"]",
        &[
            // Its user name is its secret: only the client id says who it is.
            (
                "v1/devices/me/telemetry",
                r#"{"temperature":42.2}"#,
                r#"city.sensor.reading.v1 meter-7 {"temperature":42.2}"#,
            ),
            (
                "v1/devices/me/telemetry",
                r#"{"ts":1451649600512,"values":{"smoke":true}}"#,
                r#"!city.smoke.reading.v1 meter-7 {"smoke":true}"#,
            ),
            (
                "v1/devices/me/telemetry",
                r#"{"smoke":"true","gas":"false","t":20}"#,
                r#"!city.smoke.reading.v1 meter-7 {"gas":false,"smoke":true,"t":20}"#,
            ),
            ("v1/devices/me/telemetry", r#"{"gas":"0"}"#, r#"city.gas.reading.v1 meter-7 {"gas":false}"#),
            (
                "v1/devices/me/telemetry",
                r#"[{"ts":1451649600512,"values":{"water_leak":"1"}}]"#,
                r#"!city.leak.reading.v1 meter-7 {"water_leak":true}"#,
            ),
            ("v1/devices/me/telemetry", r#"{"sos":"true"}"#, r#"!city.sos.pressed.v1 meter-7 {"sos":true}"#),
            // A density, or whatever else: no danger by itself.
            ("v1/devices/me/telemetry", r#"{"smoke":0.3}"#, r#"city.sensor.reading.v1 meter-7 {"smoke":0.3}"#),
            ("v1/devices/me/telemetry", r#"[{"a":1},{"b":2}]"#, r#"city.sensor.reading.v1 meter-7 [{"a":1},{"b":2}]"#),
            (
                "/sys/a1Pk/dev7/thing/event/property/post",
                r#"{"id":"123","version":"1.0","params":{"Temp":{"value":25.1,"time":1524448722000},"Power":"on"},"method":"thing.event.property.post"}"#,
                r#"city.sensor.reading.v1 a1Pk/dev7 {"Power":"on","Temp":25.1}"#,
            ),
            (
                "/sys/a1Pk/dev7/thing/event/property/post",
                r#"{"id":"124","params":{"SmokeSensorState":1}}"#,
                r#"!city.smoke.reading.v1 a1Pk/dev7 {"SmokeSensorState":1,"smoke":true}"#,
            ),
            (
                "/sys/a1Pk/dev7/thing/event/property/post",
                r#"{"id":"125","params":{"SmokeSensorState":{"value":0,"time":1}}}"#,
                r#"city.smoke.reading.v1 a1Pk/dev7 {"SmokeSensorState":0,"smoke":false}"#,
            ),
            (
                "/sys/a1Pk/dev7/thing/event/TiltAlarm/post",
                r#"{"id":"9","params":{"value":{"angle":30},"time":1}}"#,
                r#"city.device.event.v1 a1Pk/dev7 {"event":"TiltAlarm","time":1,"value":{"angle":30}}"#,
            ),
            (
                "/sys/a1Pk/dev7/thing/event/SOS/post",
                r#"{"id":"9","params":{"value":{},"time":1}}"#,
                r#"!city.sos.pressed.v1 a1Pk/dev7 {"time":1,"value":{}}"#,
            ),
            (
                "/sys/a1Pk/dev7/thing/event/SmokeAlarm/post",
                r#"{"id":"9","params":{"value":{},"time":1}}"#,
                r#"!city.smoke.reading.v1 a1Pk/dev7 {"smoke":true,"time":1,"value":{}}"#,
            ),
            (
                "/sys/a1Pk/dev7/thing/event/AlarmEvent/post",
                r#"{"id":"9","params":{"value":{"GasSensorState":1},"time":1}}"#,
                r#"!city.gas.reading.v1 a1Pk/dev7 {"event":"AlarmEvent","gas":true,"time":1,"value":{"GasSensorState":1}}"#,
            ),
            (
                "/sys/a1Pk/dev7/thing/event/property/post",
                r#"{"params":{"BatteryPercentage":{"value":8,"time":1}}}"#,
                r#"city.sensor.reading.v1 a1Pk/dev7 {"BatteryPercentage":8,"battery":8}"#,
            ),
            (
                "$oc/devices/dev7/sys/properties/report",
                r#"{"services":[{"service_id":"air","properties":{"pm25":12},"event_time":"20151212T121212Z"},{"service_id":"fire","properties":{"smoke":true}}]}"#,
                r#"!city.smoke.reading.v1 dev7 {"pm25":12,"smoke":true}"#,
            ),
            (
                "$sys/pid/dev7/thing/property/post",
                r#"{"id":"1","version":"1.0","params":{"humidity":{"value":60,"time":1524448722123}}}"#,
                r#"city.sensor.reading.v1 pid/dev7 {"humidity":60}"#,
            ),
        ],
    );
    let node = node("\"alink\"");
    let twice = || {
        let p = publish("/sys/a1Pk/dev7/thing/event/property/post", r#"{"id":"1","params":{"a":1}}"#);
        node.take(&p).draft.unwrap().header().key
    };
    assert_ne!(twice(), twice(), "its `id` begins again with each start of the device, so it is no event's id");
}

#[test]
fn home_assistant_s_states() {
    all(
        "\"homeassistant\"",
        &[
            (
                "ha/binary_sensor/front_door/state",
                "on",
                r#"city.sensor.reading.v1 binary_sensor.front_door {"state":true}"#,
            ),
            ("ha/sensor/hall/state", "21.5", r#"city.sensor.reading.v1 sensor.hall {"state":21.5}"#),
            ("ha/sensor/hall/state", "unavailable", r#"city.device.event.v1 sensor.hall {"state":"unavailable"}"#),
            ("ha/sensor/hall/friendly_name", "\"Hall\"", "-"),
        ],
    );
}

#[test]
fn an_alarm_is_told_beside_what_is_none_in_whatever_order() {
    const KINDS: [(&str, &str); 3] =
        [("smoke", "city.smoke.reading.v1"), ("gas", "city.gas.reading.v1"), ("water_leak", "city.leak.reading.v1")];
    let alink = |what: &str| match what {
        "smoke" => "SmokeSensorState",
        "gas" => "GasSensorState",
        _ => "WaterSensorState",
    };
    type Say = Box<dyn Fn(&str, &str) -> String>;
    let plain = |form: &'static str| -> Say {
        Box::new(move |no, yes| form.replace('@', &format!(r#"{{"{no}":false,"{yes}":true}}"#)))
    };
    let telemetry = "v1/devices/me/telemetry";
    let post = "/sys/p/d/thing/event/property/post";
    let forms: [(&str, &str, Say); 10] = [
        ("zigbee2mqtt", "zigbee2mqtt/k", plain("@")),
        ("chirpstack", "application/1/device/2/event/up", plain(r#"{"deduplicationId":"1","object":@}"#)),
        ("thingsboard", telemetry, plain("@")),
        ("thingsboard", telemetry, plain(r#"{"ts":1451649600512,"values":@}"#)),
        ("thingsboard", telemetry, plain("[@]")),
        ("thingsboard", telemetry, plain(r#"[{"ts":1451649600512,"values":@}]"#)),
        ("alink", post, Box::new(move |no, yes| format!(r#"{{"params":{{"{}":0,"{}":1}}}}"#, alink(no), alink(yes)))),
        (
            "alink",
            post,
            Box::new(move |no, yes| {
                let (no, yes) = (alink(no), alink(yes));
                format!(r#"{{"params":{{"{no}":{{"value":0,"time":1}},"{yes}":{{"value":1,"time":1}}}}}}"#)
            }),
        ),
        ("huawei", "$oc/devices/d/sys/properties/report", plain(r#"{"services":[{"service_id":"a","properties":@}]}"#)),
        (
            "huawei",
            "$oc/devices/d/sys/properties/report",
            Box::new(|no, yes| {
                format!(r#"{{"services":[{{"properties":{{"{no}":0,"{yes}":0}}}},{{"properties":{{"{yes}":1}}}}]}}"#)
            }),
        ),
    ];
    for (preset, topic, say) in &forms {
        let node = node(&format!("\"{preset}\""));
        for (yes, kind) in KINDS {
            for (no, _) in KINDS.into_iter().filter(|(no, _)| *no != yes) {
                let payload = say(no, yes);
                let made = made(&node, topic, &payload);
                assert!(made.starts_with(&format!("!{kind} ")), "{preset} {payload}: {made}");
                assert!(made.contains(&format!("\"{yes}\":true")), "{preset} {payload}: {made}");
            }
        }
    }
}

#[test]
fn a_shelly_s_prefix_may_have_two_levels_and_one_of_an_sos_button_s() {
    let says = |what: &str, alarm: bool| {
        format!(r#"{{"method":"NotifyStatus","params":{{"ts":1700000000.5,"{what}:0":{{"id":0,"alarm":{alarm}}}}}}}"#)
    };
    all(
        "\"shelly\"",
        &[
            (
                "flat/kitchen/events/rpc",
                &says("smoke", true),
                r#"!city.smoke.reading.v1 flat/kitchen {"alarm":true,"id":0,"smoke":true}"#,
            ),
            (
                "sos/7-301/events/rpc",
                &says("flood", true),
                r#"!city.leak.reading.v1 sos/7-301 {"alarm":true,"id":0,"water_leak":true}"#,
            ),
            (
                "sos/7-301/events/rpc",
                &says("smoke", false),
                r#"city.smoke.reading.v1 sos/7-301 {"alarm":false,"id":0,"smoke":false}"#,
            ),
            ("flat/kitchen/events/rpc", "no json", "? not-json"),
            ("sos/7-301/events/rpc", r#"{"method":"NotifyEv"#, "? not-json"),
        ],
    );
}

#[test]
fn a_clock_that_is_not_set_holds_no_alarm_up() {
    let shelly = |ts: &str, alarm: bool| {
        format!(r#"{{"method":"NotifyStatus","params":{{"ts":{ts},"smoke:0":{{"id":0,"alarm":{alarm}}}}}}}"#)
    };
    let up = |time: &str, smoke: bool| {
        format!(
            r#"{{"deduplicationId":"1","time":{time},"deviceInfo":{{"deviceName":"s"}},"object":{{"smoke":{smoke}}}}}"#
        )
    };
    let told = |ts: &str, smoke: bool| format!(r#"{{"ts":{ts},"values":{{"smoke":{smoke}}}}}"#);
    type Say<'a> = (&'a str, &'a str, &'a dyn Fn(&str, bool) -> String);
    let all: [Say<'_>; 3] = [
        ("shelly", "s/events/rpc", &shelly),
        ("chirpstack", "application/1/device/2/event/up", &up),
        ("thingsboard", "v1/devices/me/telemetry", &told),
    ];
    for (preset, topic, say) in all {
        let node = node(&format!("\"{preset}\""));
        let times = ["null", "\"x\"", "{}", "[1]"];
        for (time, smoke) in times.into_iter().flat_map(|time| [(time, true), (time, false)]) {
            let payload = say(time, smoke);
            let draft = node.take(&publish(topic, &payload)).draft.unwrap();
            assert_eq!(draft.header().name, "city.smoke.reading.v1", "{preset} {payload}");
            let v: Value = serde_json::from_slice(draft.payload()).unwrap();
            assert!(v["data"]["smoke"] == smoke && v.get("time").is_none(), "{preset}: {v}");
        }
    }
    // What is none can be sent again.
    let warm = r#"{"ts":"x","values":{"temperature":21}}"#;
    assert_eq!(made(&node("\"thingsboard\""), "v1/devices/me/telemetry", warm), "? bad-time");
}

#[test]
fn a_device_whose_name_or_id_does_not_read_is_heard_under_its_topic() {
    let up = |id: &str, name: &str, object: &str| {
        format!(r#"{{"deduplicationId":{id},"deviceInfo":{{"devEui":"d01"{name}}},"object":{{{object}}}}}"#)
    };
    let node = node("\"chirpstack\"");
    let topic = "application/1/device/d01/event/up";
    let long = format!("\"{}\"", "x".repeat(1_025));
    let alarm = |smoke: &str| format!(r#"city.smoke.reading.v1 {topic} {{"devEui":"d01","smoke":{smoke}}}"#);
    for name in
        ["", r#","deviceName":null"#, r#","deviceName":"a\nb""#, r#","deviceName":123456789012345678901234567890"#]
    {
        assert_eq!(made(&node, topic, &up("\"1\"", name, "\"smoke\":true")), format!("!{}", alarm("true")), "{name}");
        assert_eq!(made(&node, topic, &up("\"1\"", name, "\"smoke\":false")), alarm("false"), "{name}");
    }
    for id in [&long, "\"a\\u0007\"", "\"\"", "{}", "123456789012345678901234567890"] {
        for smoke in ["true", "false"] {
            let payload = up(id, "", &format!("\"smoke\":{smoke}"));
            assert!(made(&node, topic, &payload).ends_with(&alarm(smoke)), "{payload}");
        }
        assert_eq!(made(&node, topic, &up(id, "", "\"temperature\":21")), "? no-id", "{id}");
    }
    let press =
        r#"{"deduplicationId":"1","deviceInfo":{"deviceName":"a\nb","tags":{"use":"sos"}},"object":{"button":1}}"#;
    assert!(made(&node, topic, press).starts_with(&format!("!city.sos.pressed.v1 {topic} ")));
}

#[test]
fn a_call_for_help_that_its_topic_tells_is_heard_whatever_its_body_is() {
    let pressed = "/sys/pk/dn/thing/event/sos/post";
    all(
        "\"alink\"",
        &[
            (pressed, r#"{"id":"1","version":"1.0"}"#, r#"!city.sos.pressed.v1 pk/dn {"id":"1","version":"1.0"}"#),
            (pressed, r#"{"id":"1","#, r#"!city.sos.pressed.v1 pk/dn "{\"id\":\"1\",""#),
            (pressed, "", "!city.sos.pressed.v1 pk/dn null"),
            ("/sys/pk/dn/thing/event/property/post", r#"{"id":"1","#, "? not-json"),
        ],
    );
}

/// How devices of a preset say a word of a danger.
struct Form {
    preset: &'static str,
    topic: String,
    danger: &'static str,
    /// `@` stands for the word, as JSON.
    payload: String,
}

const DANGERS: [(&str, &str); 5] = [
    ("sos", "city.sos.pressed.v1"),
    ("smoke", "city.smoke.reading.v1"),
    ("gas", "city.gas.reading.v1"),
    ("carbon_monoxide", "city.gas.reading.v1"),
    ("water_leak", "city.leak.reading.v1"),
];

/// All there are, of every preset.
fn forms() -> Vec<Form> {
    let mut all = Vec::new();
    let mut add = |preset, topic: &str, danger, payload: String| {
        all.push(Form { preset, topic: topic.to_owned(), danger, payload });
    };
    for (danger, _) in DANGERS {
        let member = format!(r#"{{"{danger}":@}}"#);
        let of = |form: &str| form.replace('$', &member);
        add("zigbee2mqtt", "zigbee2mqtt/k", danger, of("$"));
        let up = r#"{"deduplicationId":"1","deviceInfo":{"deviceName":"s"},"object":$}"#;
        add("chirpstack", "application/1/device/2/event/up", danger, of(up));
        let button = r#"{"deviceInfo":{"deviceName":"s","tags":{"use":"sos"}},"object":$}"#;
        add("chirpstack", "application/1/device/2/event/up", danger, of(button));
        for form in ["$", r#"{"ts":1451649600512,"values":$}"#, "[$]", r#"[{"values":$}]"#] {
            add("thingsboard", "v1/devices/me/telemetry", danger, of(form));
        }
        add("huawei", "$oc/devices/d/sys/properties/report", danger, of(r#"{"services":[{"properties":$}]}"#));
        let plain = format!(r#"{{"params":{{"{danger}":{{"value":@,"time":1}}}}}}"#);
        add("onenet", "$sys/p/d/thing/property/post", danger, plain);
        add("esphome", &format!("kitchen/binary_sensor/{danger}/state"), danger, "@".into());
    }
    for (danger, property) in [("smoke", "Smoke"), ("gas", "Gas"), ("water_leak", "Water")] {
        for value in ["@", r#"{"value":@,"time":1}"#] {
            let payload = format!(r#"{{"params":{{"{property}SensorState":{value}}}}}"#);
            add("alink", "/sys/p/d/thing/event/property/post", danger, payload);
        }
    }
    for (danger, component) in [("smoke", "smoke:0"), ("water_leak", "flood:0")] {
        for topic in ["s/events/rpc", "flat/s/events/rpc"] {
            let payload = format!(r#"{{"method":"NotifyStatus","params":{{"{component}":{{"alarm":@}}}}}}"#);
            add("shelly", topic, danger, payload);
        }
    }
    add("tasmota", "stat/smoke/7/RESULT", "smoke", r#"{"Switch1":{"Action":@}}"#.into());
    add("tasmota", "tele/smoke/7/SENSOR", "smoke", r#"{"Switch1":@}"#.into());
    all
}

/// What is made of a word, said in this form.
fn said(node: &Ingress, form: &Form, word: &str) -> String {
    // A plain text is no JSON.
    let word = if form.preset == "esphome" { word.trim_matches('"') } else { word };
    made(node, &form.topic, &form.payload.replace('@', word))
}

#[test]
fn whether_there_is_a_danger_is_heard_in_whatever_words_or_refused_never_taken_for_a_reading() {
    const YES: [&str; 11] =
        ["true", "1", "1.0", "\"true\"", "\"True\"", "\"TRUE\"", "\"1\"", "\"on\"", "\"On\"", "\"ON\"", "\"alarm\""];
    const NO: [&str; 10] =
        ["false", "0", "\"false\"", "\"False\"", "\"FALSE\"", "\"0\"", "\"off\"", "\"Off\"", "\"OFF\"", "\"normal\""];
    const UNREAD: [&str; 5] = ["\"maybe\"", "\"TOGGLE\"", "[true]", "{\"a\":true}", "\"报警\""];
    for form in forms() {
        let node = node(&format!("\"{}\"", form.preset));
        let (_, kind) = DANGERS.into_iter().find(|(danger, _)| *danger == form.danger).unwrap();
        let at = |word: &str| format!("{} {} {} {word}", form.preset, form.topic, form.payload);
        for word in YES {
            let made = said(&node, &form, word);
            let is_told = made.starts_with(&format!("!{kind} ")) && made.contains(&format!("\"{}\":true", form.danger));
            assert!(is_told, "{}: {made}", at(word));
        }
        for word in NO {
            let made = said(&node, &form, word);
            let ends = made.starts_with(&format!("{kind} ")) && made.contains(&format!("\"{}\":false", form.danger));
            // That nobody calls is nothing.
            let is_calm = form.danger == "sos" && !made.starts_with(['!', '?']);
            assert!(ends || is_calm, "{}: {made}", at(word));
        }
        // What is pressed is, by whatever word.
        let is_pressed = form.danger == "sos" && form.payload.contains(r#""use":"sos""#);
        for word in UNREAD.into_iter().filter(|_| is_pressed) {
            assert!(said(&node, &form, word).starts_with("!city.sos.pressed.v1 "), "{}", at(word));
        }
        for word in UNREAD.into_iter().filter(|_| !is_pressed) {
            assert_eq!(said(&node, &form, word), "? unread-alarm", "{}", at(word));
        }
        for word in ["null", "\"\""].into_iter().filter(|_| form.preset != "esphome") {
            let made = said(&node, &form, word);
            assert!(!made.starts_with('!'), "nothing is told: {}: {made}", at(word));
        }
    }
}

#[test]
fn every_preset_that_makes_alarms_is_tried_with_every_word() {
    let all = forms();
    for name in citybrain_shared::config::presets::names() {
        let definition = citybrain_shared::config::presets::find(name).unwrap();
        // What announces itself has tests of its own.
        for rule in definition.rules.iter().filter(|_| name != "discovery") {
            let danger = rule.replace('-', "_");
            let is_tried = all.iter().any(|form| form.preset == name && form.danger == danger);
            assert!(is_tried || !DANGERS.iter().any(|(known, _)| *known == danger), "{name}: {rule}");
        }
    }
}

#[test]
fn a_number_that_says_how_much_there_is_is_a_reading() {
    for (preset, topic, payload) in [
        ("zigbee2mqtt", "zigbee2mqtt/k", r#"{"smoke":0.3}"#),
        ("chirpstack", "application/1/device/2/event/up", r#"{"deviceInfo":{"deviceName":"s"},"object":{"gas":312}}"#),
        ("thingsboard", "v1/devices/me/telemetry", r#"{"gas":"1.4"}"#),
    ] {
        let made = made(&node(&format!("\"{preset}\"")), topic, payload);
        assert!(made.starts_with("city.sensor.reading.v1 "), "{preset}: {made}");
    }
}

#[test]
fn what_is_there_is_heard_though_another_word_beside_it_does_not_read() {
    let node = node("\"thingsboard\"");
    let topic = "v1/devices/me/telemetry";
    let there = made(&node, topic, r#"{"smoke":true,"gas":"maybe"}"#);
    assert_eq!(there, r#"!city.smoke.reading.v1 meter-7 {"gas":"maybe","smoke":true}"#);
    // Calm is believed only of what reads as a whole.
    assert_eq!(made(&node, topic, r#"{"smoke":false,"gas":"maybe"}"#), "? unread-alarm");
}

#[test]
fn a_button_of_chirpstack_s_is_pressed_by_any_word_but_a_no_and_hides_no_danger() {
    let node = node("\"chirpstack\"");
    let up = |object: &str| {
        let payload = format!(r#"{{"deviceInfo":{{"deviceName":"s","tags":{{"use":"sos"}}}},"object":{object}}}"#);
        made(&node, "application/1/device/2/event/up", &payload)
    };
    for pressed in [
        r#"{"sos":2}"#,
        r#"{"sos":"double"}"#,
        r#"{"press":"short"}"#,
        r#"{"button":2}"#,
        r#"{"button":"ON","press":"none"}"#,
    ] {
        assert!(up(pressed).starts_with("!city.sos.pressed.v1 s "), "{pressed}");
    }
    for no in [r#"{"press":"False"}"#, r#"{"button":"off","press":"none"}"#, r#"{"press":""}"#] {
        assert!(up(no).starts_with("city.sensor.reading.v1 s "), "{no}");
    }
    assert_eq!(up(r#"{"press":false,"smoke":"ON"}"#), r#"!city.smoke.reading.v1 s {"press":false,"smoke":true}"#);
    assert_eq!(up(r#"{"press":false,"smoke":"maybe"}"#), "? unread-alarm");
}

#[test]
fn whatever_a_smoke_detector_of_the_example_says_is_an_alarm_its_end_or_a_dead_letter() {
    let example = include_str!("../../../../config/neighbourhood.toml");
    let node = Ingress::new(&parse(example, &Variables::new()).config.unwrap());
    let made = |payload: &str| {
        let draft = node.take(&publish("in/smoke/k", payload)).draft.unwrap();
        let data = |draft: &Draft| serde_json::from_slice::<Value>(draft.payload()).unwrap()["data"]["smoke"].clone();
        match draft.header().kind {
            Kind::Event => format!("{} {} {}", draft.header().name, draft.header().lane == Lane::Urgent, data(&draft)),
            Kind::Note => "a dead letter".into(),
            kind => panic!("{kind:?}"),
        }
    };
    for alarm in [r#"{"smoke":true}"#, r#"{"smoke":"ON","n":7}"#, r#"{"smoke":1}"#, "true", "1", "\"alarm\""] {
        assert_eq!(made(alarm), "city.smoke.reading.v1 true true", "{alarm}");
    }
    for end in [r#"{"smoke":false}"#, r#"{"smoke":"off"}"#, "0"] {
        assert_eq!(made(end), "city.smoke.reading.v1 true false", "{end}");
    }
    for neither in ["{\"smo", "", "ALARM", "[]", "null", "0.3", "\"maybe\"", r#"{"smoke":"maybe"}"#, r#"{"smoke":2}"#] {
        assert_eq!(made(neither), "a dead letter", "{neither}");
    }
}

#[test]
fn what_a_map_of_one_s_own_cannot_read_of_a_danger_is_refused_and_its_words_are_known() {
    let map = "[[map]]\nfilter = \"acme/+/up\"\nformat = \"json\"\ndangers = { smoke = [\"/alarm/smoke\"] }\n\
               subject = \"{2}\"\nwords = { YES = true, NO = false }\n";
    let node = configured(map);
    let up = |payload: &str| {
        let draft = node.take(&Publish::plain("k", "acme/k/up", payload.as_bytes())).draft.unwrap();
        match draft.header().kind {
            Kind::Event => format!(
                "{:?} {}",
                draft.header().lane,
                serde_json::from_slice::<Value>(draft.payload()).unwrap()["data"]["smoke"]
            ),
            Kind::Message => "-".into(),
            _ => match Note::parse(draft.payload()).unwrap() {
                Note::DeadLetter(letter) => format!("? {}: {}", letter.reason, letter.detail),
                other => panic!("{other:?}"),
            },
        }
    };
    assert_eq!(up(r#"{"alarm":{"smoke":"YES"}}"#), "Urgent true");
    assert_eq!(up(r#"{"alarm":{"smoke":"NO"}}"#), "Routine false");
    let unread = up(r#"{"alarm":{"smoke":"MAYBE"}}"#);
    assert!(unread.starts_with("? unread-alarm: what stands at `/alarm/smoke` says neither"), "{unread}");
    assert!(up(r#"{"alarm":{"#).starts_with("? not-json"));
    assert_eq!(up(r#"{"temperature":21}"#), "-", "it says nothing of a danger");
}

#[test]
fn where_one_preset_is_there_twice_its_devices_are_called_by_their_base_too() {
    let at = |name: &str, base: &str| format!("[[preset]]\nname = \"{name}\"\nbase = \"{base}\"\n");
    let press = r#"{"action":"single"}"#;
    let one = configured(&at("zigbee2mqtt", "z2m/a"));
    assert_eq!(made(&one, "z2m/a/sos/1", press), r#"!city.sos.pressed.v1 sos/1 {"action":"single"}"#);
    let two = configured(&(at("zigbee2mqtt", "z2m/a") + &at("zigbee2mqtt", "b") + &at("shelly", "c")));
    assert_eq!(made(&two, "z2m/a/sos/1", press), r#"!city.sos.pressed.v1 z2m/a/sos/1 {"action":"single"}"#);
    assert_eq!(made(&two, "b/sos/1", press), r#"!city.sos.pressed.v1 b/sos/1 {"action":"single"}"#);
    assert_eq!(made(&two, "b/k/availability", "online"), r#"city.device.state.v1 b/k {"online":true}"#);
    assert_eq!(made(&two, "c/k/online", "true"), r#"city.device.state.v1 k {"online":true}"#);
}

#[test]
fn a_press_tells_of_dangers_in_the_words_of_their_alarms() {
    let telemetry = "v1/devices/me/telemetry";
    all(
        "[\"thingsboard\", \"chirpstack\", \"huawei\", \"onenet\"]",
        &[
            (telemetry, r#"{"sos":"1","gas":"true"}"#, r#"!city.sos.pressed.v1 meter-7 {"gas":true,"sos":true}"#),
            (
                telemetry,
                r#"{"ts":1451649600512,"values":{"sos":true,"smoke":"1"}}"#,
                r#"!city.sos.pressed.v1 meter-7 {"smoke":true,"sos":true}"#,
            ),
            (telemetry, r#"[{"sos":1},{"smoke":"1"}]"#, r#"!city.sos.pressed.v1 meter-7 {"smoke":true,"sos":true}"#),
            (
                telemetry,
                r#"[{"values":{"sos":1,"water_leak":"0"}}]"#,
                r#"!city.sos.pressed.v1 meter-7 {"sos":true,"water_leak":false}"#,
            ),
            (
                "application/1/device/2/event/up",
                r#"{"deduplicationId":"1","deviceInfo":{"deviceName":"s","devEui":"2"},"object":{"sos":1,"smoke":"alarm"}}"#,
                r#"!city.sos.pressed.v1 s {"devEui":"2","smoke":true,"sos":true}"#,
            ),
            (
                "application/1/device/2/event/up",
                r#"{"deduplicationId":"1","deviceInfo":{"deviceName":"s","devEui":"2","tags":{"use":"sos"}},"object":{"press":"long","water_leak":"leak"}}"#,
                r#"!city.sos.pressed.v1 s {"devEui":"2","press":"long","water_leak":true}"#,
            ),
            (
                "$oc/devices/d/sys/properties/report",
                r#"{"services":[{"properties":{"sos":1}},{"properties":{"smoke":1}}]}"#,
                r#"!city.sos.pressed.v1 d {"smoke":true,"sos":true}"#,
            ),
            (
                "$sys/p/d/thing/property/post",
                r#"{"params":{"sos":{"value":true},"smoke":{"value":1}}}"#,
                r#"!city.sos.pressed.v1 p/d {"smoke":true,"sos":true}"#,
            ),
        ],
    );
}
