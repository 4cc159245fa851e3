//! What devices from a shop say, from their topics to the alarms that follow.

use super::*;
use citybrain_hub::ingress::Ingress;
use citybrain_shared::prefix::Named;

/// A node with these presets, and what stands at its door.
struct House {
    node: Node,
    ingress: Ingress,
}

impl House {
    fn new(presets: &str) -> House {
        // Presets stand before the first section.
        let text = format!("{presets}\n[node]\naddress = \"c/s\"\ndata = \"/nowhere\"\n");
        let parsed = parse(&text, &Variables::new());
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let config = parsed.config.unwrap();
        let mut node = Node::new("");
        node.rules = Rules::new(&config);
        let ingress = Ingress::new(&config);
        node.config = config;
        House { node, ingress }
    }

    fn says(&mut self, client: &str, topic: &str, payload: &str) {
        let draft = self.ingress.again(client, topic, payload.as_bytes()).expect("it is taken").expect("it is kept");
        self.node.commit(draft);
        self.node.settle();
    }

    fn announced(&self, topic: &str, payload: &str) {
        self.ingress.announces(&format!("homeassistant/{topic}/config"), payload.as_bytes());
    }

    fn active(&self) -> Vec<&Alarm> {
        self.node.rules.alarms.iter().filter(|a| a.active).collect()
    }

    fn names(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.active().iter().map(|a| a.name.as_str()).collect();
        all.sort_unstable();
        all
    }

    /// Rules that could not be evaluated.
    fn errors(&self) -> u64 {
        (0..).map_while(|at| self.node.rules.view_of(at)).map(|rule| rule.errors).sum()
    }
}

/// Two devices of one name: who sends, and where.
type Pair = [(&'static str, &'static str); 2];
/// Under which presets, which two, and how they say it.
type Case<'c> = (&'c str, Pair, &'c dyn Fn(bool) -> String);

#[test]
fn of_two_devices_with_one_name_each_ends_its_own_alarm() {
    let rm = |id: &str| {
        format!(r#"{{"dev_cla":"smoke","stat_t":"vend/{id}","dev":{{"ids":["{id}"],"name":"Smoke detector"}}}}"#)
    };
    let box_of_two = r#"{"dev":{"ids":["lk"],"name":"Leak box"},"cmps":{
        "lk1":{"p":"binary_sensor","dev_cla":"moisture","stat_t":"vend/lk/1"},
        "lk2":{"p":"binary_sensor","dev_cla":"moisture","stat_t":"vend/lk/2"}}}"#;
    let up = |smoke: bool| {
        let id = uuid::Uuid::now_v7();
        format!(r#"{{"deduplicationId":"{id}","deviceInfo":{{"deviceName":"smoke-1"}},"object":{{"smoke":{smoke}}}}}"#)
    };
    let smoke = |on: bool| format!(r#"{{"smoke":{on}}}"#);
    let word = |on: bool| if on { "ON" } else { "OFF" }.to_owned();
    let bases =
        "[[preset]]\nname = \"zigbee2mqtt\"\nbase = \"z2m/a\"\n[[preset]]\nname = \"zigbee2mqtt\"\nbase = \"z2m/b\"\n";
    let cases: [Case<'_>; 6] = [
        (bases, [("g", "z2m/a/kitchen"), ("g", "z2m/b/kitchen")], &smoke),
        (
            "preset = \"chirpstack\"",
            [("g", "application/1/device/0101/event/up"), ("g", "application/2/device/0202/event/up")],
            &up,
        ),
        ("preset = \"discovery\"", [("g", "vend/rm_a"), ("g", "vend/rm_b")], &word),
        ("preset = \"discovery\"", [("g", "vend/lk/1"), ("g", "vend/lk/2")], &word),
        // Of two makers, and those whom only their client's name tells apart.
        (
            "preset = [\"tasmota\", \"discovery\", \"esphome\"]",
            [("g", "kitchen/binary_sensor/smoke/state"), ("g", "vend/kitchen")],
            &word,
        ),
        ("preset = \"thingsboard\"", [("a", "v1/devices/me/telemetry"), ("b", "v1/devices/me/telemetry")], &smoke),
    ];
    for (presets, [(client, burning), (other, calm)], say) in cases {
        let mut house = House::new(presets);
        house.announced("binary_sensor/rm_a/smoke", &rm("rm_a"));
        house.announced("binary_sensor/rm_b/smoke", &rm("rm_b"));
        house.announced("binary_sensor/k/smoke", &rm("kitchen").replace("Smoke detector", "kitchen"));
        house.announced("device/lk", box_of_two);
        house.says(client, burning, &say(true));
        house.says(other, calm, &say(false));
        house.node.wait(31 * S);
        assert_eq!(house.active().len(), 1, "it burns at {burning}: {:?}", house.node.said());
        house.says(other, calm, &say(true));
        assert_eq!(house.active().len(), 2, "{calm} has its own");
        house.says(client, burning, &say(false));
        house.node.wait(31 * S);
        let left: Vec<_> = house.active().iter().map(|a| a.key.clone()).collect();
        assert!(left.len() == 1 && left[0].contains(calm), "{left:?}");
        house.says(other, calm, &say(false));
        house.node.wait(31 * S);
        assert_eq!(house.active().len(), 0, "{presets}");
        assert_eq!(house.errors(), 0, "{presets}");
    }
}

#[test]
fn of_two_zones_of_a_panel_and_of_two_devices_of_a_topic_none_ends_the_other_s_alarm() {
    let panel = r#"{"dev":{"ids":["fp"],"name":"Panel"},"stat_t":"vend/fp","cmps":{
        "z1":{"p":"binary_sensor","dev_cla":"smoke","val_tpl":"{{ value_json.z1 }}"},
        "z2":{"p":"binary_sensor","dev_cla":"smoke","val_tpl":"{{ value_json.z2 }}"}}}"#;
    let room = |n: u8| {
        format!(
            r#"{{"dev_cla":"smoke","stat_t":"vend/fp","val_tpl":"{{{{ value_json.z{n} }}}}","dev":{{"name":"Room {n}"}}}}"#
        )
    };
    let panel_house = House::new("preset = \"discovery\"");
    panel_house.announced("device/fp", panel);
    let rooms = House::new("preset = \"discovery\"");
    rooms.announced("binary_sensor/z1", &room(1));
    rooms.announced("binary_sensor/z2", &room(2));
    for mut house in [panel_house, rooms] {
        let mut after = |payload: &str| {
            house.says("g", "vend/fp", payload);
            house.node.wait(31 * S);
            house.active().len()
        };
        // Who sends what has changed.
        assert_eq!(after(r#"{"z2":"ON"}"#), 1);
        assert_eq!(after(r#"{"z1":"OFF"}"#), 1, "it still burns in the other");
        assert_eq!(after(r#"{"z1":"ON"}"#), 2);
        assert_eq!(after(r#"{"z2":"OFF"}"#), 1);
        assert_eq!(after(r#"{"z1":"OFF"}"#), 0);
        // Who always sends all.
        assert_eq!(after(r#"{"z1":"OFF","z2":"ON"}"#), 1);
        assert_eq!(after(r#"{"z1":"ON","z2":"OFF"}"#), 1);
        assert_eq!(after(r#"{"z1":"OFF","z2":"OFF"}"#), 0);
        assert_eq!(house.errors(), 0);
    }
}

#[test]
fn an_alarm_is_meant_without_its_source_too_if_it_is_the_only_one() {
    let mut house = House::new("preset = \"zigbee2mqtt\"");
    house.says("g", "zigbee2mqtt/hall", r#"{"smoke":true}"#);
    house.says("g", "zigbee2mqtt/hall 2", r#"{"smoke":true}"#);
    let alarms = &house.node.rules.alarms;
    for (text, key) in
        [("smoke/hall", "hall /"), ("smoke/hall 2", "hall 2 /"), ("smoke/hall /c/s/zigbee2mqtt/hall", "hall /")]
    {
        let Named::One(alarm) = alarms.named(text) else { panic!("`{text}` is one") };
        assert!(alarm.key.starts_with(key), "{text}: {}", alarm.key);
    }
    for text in ["smoke/", "smoke/ha", "smoke/hall 3", "gas/hall"] {
        assert!(matches!(alarms.named(text), Named::Nothing), "{text}");
    }
}

#[test]
fn a_device_that_is_gone_or_whose_battery_is_low_is_not_back_by_one_of_its_name() {
    let bases =
        "[[preset]]\nname = \"zigbee2mqtt\"\nbase = \"z2m/a\"\n[[preset]]\nname = \"zigbee2mqtt\"\nbase = \"b\"\n";
    let mut house = House::new(bases);
    house.says("g", "z2m/a/k/availability", "offline");
    house.says("g", "b/k/availability", "online");
    house.says("g", "z2m/a/k", r#"{"battery":3}"#);
    house.says("g", "b/k", r#"{"battery":90}"#);
    house.node.wait(301 * S);
    assert_eq!(house.names(), ["battery-low", "device-offline"]);
    let titles: Vec<&str> = house.active().iter().map(|a| a.title.as_str()).collect();
    assert!(titles.iter().all(|title| title.contains("z2m/a/k")), "people see which: {titles:?}");
    house.says("g", "z2m/a/k/availability", "online");
    house.says("g", "z2m/a/k", r#"{"battery":90}"#);
    assert_eq!(house.names(), [""; 0]);
}

#[test]
fn a_battery_is_low_in_the_words_of_the_field_and_one_that_nobody_can_read_is_not_judged() {
    let mut house = House::new("preset = \"zigbee2mqtt\"");
    let mut now = |payload: &str| {
        house.says("g", "zigbee2mqtt/k", payload);
        house.names().len()
    };
    for low in ["1", "true", "\"ON\"", "\"LOW\"", "\"True\"", "\"yes\""] {
        let told = |low: &str| format!(r#"{{"smoke":false,"battery_low":{low}}}"#);
        assert_eq!((now(&told(low)), now(&told("0"))), (1, 0), "{low}");
    }
    for (low, fine) in
        [("3", "90"), ("\"3 %\"", "\"90\""), ("\"low\"", "\"good\""), ("true", "false"), ("{\"percent\":3}", "[90,80]")]
    {
        let told = |battery: &str| format!(r#"{{"smoke":false,"battery":{battery}}}"#);
        assert_eq!((now(&told(low)), now(&told(fine))), (1, 0), "{low}");
    }
    assert_eq!(now(r#"{"smoke":false,"battery":3}"#), 1);
    for nothing in ["\"3.1 V\"", "null", "{\"V\":3}", "[]", "[true]"] {
        assert_eq!(now(&format!(r#"{{"smoke":false,"battery":{nothing}}}"#)), 1, "nobody says that it is better");
    }
    for data in [json!({"battery": true}), json!({"battery": [3]}), json!({"battery": {"a": 1}, "battery_low": []})] {
        house.node.hear("city.sensor.reading.v1", "x", &data);
    }
    assert!(house.node.rules.failing(0).is_empty());
    assert_eq!(house.errors(), 0);
}

#[test]
fn a_press_and_a_danger_in_one_message_are_a_press_and_an_alarm() {
    let panel = r#"{"dev":{"ids":["p2"],"name":"Panel 2"},"stat_t":"vend/p2","cmps":{
        "gas":{"p":"binary_sensor","dev_cla":"gas","val_tpl":"{{ value_json.gas }}"},
        "sos":{"p":"binary_sensor","name":"SOS","val_tpl":"{{ value_json.sos }}"}}}"#;
    let mut house = House::new("preset = [\"zigbee2mqtt\", \"discovery\", \"thingsboard\"]");
    house.announced("device/p2", panel);
    let pressed = |house: &House| house.node.events("city.sos.pressed.v1").len();
    house.says("g", "vend/p2", r#"{"gas":"ON","sos":"ON"}"#);
    assert_eq!((pressed(&house), house.names()), (1, vec!["gas"]));
    house.says("g", "zigbee2mqtt/sos/1", r#"{"action":"single","smoke":true,"water_leak":true,"battery":3}"#);
    assert_eq!((pressed(&house), house.names()), (2, vec!["battery-low", "gas", "smoke", "water-leak"]));
    house.says("g", "vend/p2", r#"{"gas":"OFF","sos":"OFF"}"#);
    house.says("g", "zigbee2mqtt/sos/1", r#"{"smoke":false,"water_leak":false,"battery":93}"#);
    house.node.wait(31 * S);
    assert_eq!(house.names(), [""; 0]);
    house.says("g", "v1/devices/me/telemetry", r#"{"sos":"1","smoke":"true"}"#);
    assert_eq!(house.names(), ["smoke"]);
    assert_eq!(house.errors(), 0);
}

#[test]
fn a_press_that_says_nothing_of_dangers_or_nothing_at_all_is_no_mistake_of_a_rule() {
    let mut house = House::new("preset = [\"esphome\", \"zigbee2mqtt\"]");
    house.says("g", "bed/binary_sensor/sos/state", "ON");
    for data in [json!(null), json!(7), json!(["a"]), json!({"action": "single"})] {
        house.node.hear("city.sos.pressed.v1", "x", &data);
    }
    let event = json!({"specversion": "1.0", "id": "1", "source": "/t", "type": "city.sos.pressed.v1", "subject": "x"});
    let header = Header { direction: Direction::Up, ..Header::local(Kind::Event, "city.sos.pressed.v1") };
    house.node.commit(Draft::new(&header, event.to_string().as_bytes()).unwrap());
    house.node.settle();
    assert_eq!((house.names(), house.errors()), (vec![], 0));
}

#[test]
fn smoke_of_a_device_that_does_not_say_its_name_is_an_alarm_until_it_says_that_it_is_over() {
    let mut house = House::new("preset = \"chirpstack\"");
    let topic = "application/1/device/d01/event/up";
    for (smoke, active) in [(true, 1), (false, 0)] {
        let payload =
            json!({"deduplicationId": smoke.to_string(), "deviceInfo": {"devEui": "d01"}, "object": {"smoke": smoke}});
        house.says("g", topic, &payload.to_string());
        house.node.wait(31 * S);
        assert_eq!((house.active().len(), house.errors()), (active, 0));
    }
}

#[test]
fn a_danger_begins_and_ends_by_the_words_of_the_device_and_a_word_that_nobody_reads_ends_none() {
    let up = |object: &str| format!(r#"{{"deviceInfo":{{"deviceName":"s"}},"object":{object}}}"#);
    let plain = str::to_owned;
    let smoke = |word: &str| format!(r#"{{"smoke":"{word}"}}"#);
    type Say<'a> = &'a dyn Fn(&str) -> String;
    let all: [(&str, &str, Say<'_>); 9] = [
        ("zigbee2mqtt", "zigbee2mqtt/k", &smoke),
        ("chirpstack", "application/1/device/2/event/up", &|word| up(&smoke(word))),
        ("thingsboard", "v1/devices/me/telemetry", &smoke),
        ("huawei", "$oc/devices/d/sys/properties/report", &|word| {
            format!(r#"{{"services":[{{"properties":{}}}]}}"#, smoke(word))
        }),
        ("onenet", "$sys/p/d/thing/property/post", &|word| format!(r#"{{"params":{{"smoke":{{"value":"{word}"}}}}}}"#)),
        ("alink", "/sys/p/d/thing/event/property/post", &|word| {
            format!(r#"{{"params":{{"SmokeSensorState":"{word}"}}}}"#)
        }),
        ("esphome", "kitchen/binary_sensor/smoke/state", &plain),
        ("tasmota", "stat/smoke/7/RESULT", &|word| format!(r#"{{"Switch1":{{"Action":"{word}"}}}}"#)),
        ("discovery", "vend/k", &plain),
    ];
    for (preset, topic, say) in all {
        let mut house = House::new(&format!("preset = \"{preset}\""));
        house.announced("binary_sensor/k/smoke", r#"{"dev_cla":"smoke","stat_t":"vend/k","name":"K"}"#);
        for (word, active) in [("on", 1), ("False", 0), ("TRUE", 1)] {
            house.says("g", topic, &say(word));
            house.node.wait(31 * S);
            assert_eq!(house.active().len(), active, "{preset} {word}");
        }
        let refusal = house.ingress.again("g", topic, say("maybe").as_bytes()).expect_err("a dead letter");
        assert_eq!(refusal.reason, "unread-alarm", "{preset}");
        assert_eq!((house.active().len(), house.errors()), (1, 0), "{preset}: it burns");
    }
}

#[test]
fn a_danger_that_is_told_beside_another_in_no_word_of_an_end_goes_on() {
    for word in ["\"maybe\"", "null", "0.3", "\"\"", "[false]"] {
        let mut house = House::new("preset = \"thingsboard\"");
        let say = |house: &mut House, payload: &str| {
            house.says("g", "v1/devices/me/telemetry", payload);
            house.node.wait(31 * S);
        };
        say(&mut house, r#"{"gas":true,"water_leak":true,"smoke":true}"#);
        for beside in [
            format!(r#"{{"sos":true,"gas":{word},"water_leak":{word},"smoke":{word}}}"#),
            format!(r#"{{"smoke":true,"gas":{word}}}"#),
        ] {
            say(&mut house, &beside);
            assert_eq!(house.names(), ["gas", "smoke", "water-leak"], "{beside}");
        }
        say(&mut house, r#"{"gas":false,"water_leak":0,"smoke":"OFF"}"#);
        assert_eq!((house.names(), house.errors()), (vec![], 0), "{word}");
    }
}

#[test]
fn gas_and_carbon_monoxide_are_two_alarms_and_each_is_over_by_its_own_word_alone() {
    let mut house = House::new("preset = \"zigbee2mqtt\"");
    let mut after = |payload: &str| {
        house.says("g", "zigbee2mqtt/stove", payload);
        house.node.wait(31 * S);
        house.names().join(" ")
    };
    assert_eq!(after(r#"{"carbon_monoxide":true}"#), "carbon-monoxide");
    assert_eq!(after(r#"{"gas":false}"#), "carbon-monoxide", "that is no word of it");
    assert_eq!(after(r#"{"gas":true,"carbon_monoxide":true}"#), "carbon-monoxide gas");
    assert_eq!(after(r#"{"gas":null,"carbon_monoxide":false}"#), "gas");
    assert_eq!(after(r#"{"gas":"OFF"}"#), "");
    assert_eq!(house.errors(), 0);
}

#[test]
fn every_type_that_promises_a_danger_is_heard_by_the_rules() {
    for (stem, member, alarm) in [
        ("city.smoke.reading", "smoke", "smoke"),
        ("city.gas.reading", "gas", "gas"),
        ("city.gas.reading", "carbon_monoxide", "carbon-monoxide"),
        ("city.leak.reading", "water_leak", "water-leak"),
    ] {
        for version in ["", ".v1", ".v2"] {
            let kind = format!("{stem}{version}");
            assert!(citybrain_shared::danger::Danger::promised(&kind).is_some(), "{kind}");
            let mut house = House::new("preset = \"zigbee2mqtt\"");
            house.node.hear(&kind, "x", &json!({ member: true, "battery": 3 }));
            assert_eq!(
                house.names(),
                if alarm < "battery-low" { [alarm, "battery-low"] } else { ["battery-low", alarm] },
                "{kind}"
            );
        }
    }
}

#[test]
fn what_an_alink_device_begins_by_an_event_it_ends_by_a_property() {
    let mut house = House::new("preset = \"alink\"");
    house.says("g", "/sys/p/d/thing/event/SmokeAlarm/post", r#"{"params":{"value":{},"time":1}}"#);
    assert_eq!(house.names(), ["smoke"]);
    house.says("g", "/sys/p/d/thing/event/property/post", r#"{"params":{"SmokeSensorState":0}}"#);
    house.node.wait(31 * S);
    assert_eq!((house.names(), house.errors()), (vec![], 0));
}

#[test]
fn what_a_tasmota_says_in_two_places_is_one_alarm_and_either_ends_it() {
    for name in ["7", "a b"] {
        let mut house = House::new("preset = \"tasmota\"");
        let (stat, tele) = (format!("stat/smoke/{name}/RESULT"), format!("tele/smoke/{name}/SENSOR"));
        house.says("g", &stat, r#"{"Switch1":{"Action":"ON"}}"#);
        house.says("g", &tele, r#"{"Switch1":"ON"}"#);
        assert_eq!(house.active().len(), 1, "{:?}", house.node.said());
        house.says("g", &tele, r#"{"Switch1":"OFF"}"#);
        house.node.wait(31 * S);
        assert_eq!((house.active().len(), house.errors()), (0, 0), "{name}");
    }
}

#[test]
fn of_devices_that_share_a_topic_the_one_whose_battery_is_low_is_named() {
    let mut house = House::new("preset = \"discovery\"");
    for (name, key) in [("SOS A", "ba"), ("SOS B", "bb")] {
        let part = format!(
            r#"{{"dev_cla":"battery","stat_t":"vend/gs","val_tpl":"{{{{ value_json.{key} }}}}","dev":{{"name":"{name}"}}}}"#
        );
        house.announced(&format!("sensor/{key}"), &part);
    }
    house.says("g", "vend/gs", r#"{"ba":50,"bb":3}"#);
    let titles: Vec<&str> = house.active().iter().map(|a| a.title.as_str()).collect();
    assert_eq!(titles, ["Battery of SOS B is low"]);
    house.says("g", "vend/gs", r#"{"ba":50,"bb":100}"#);
    assert_eq!((house.active().len(), house.errors()), (0, 0));
}

#[test]
fn a_long_name_keeps_nobody_s_alarm_away() {
    let mut house = House::new("preset = \"zigbee2mqtt\"");
    let long = |end: &str| format!("zigbee2mqtt/{}{end}", "三号楼二单元厨房".repeat(8));
    for topic in [long("1"), long("2")] {
        house.says("g", &topic, r#"{"smoke":true}"#);
    }
    assert_eq!(house.active().len(), 2, "{:?}", house.node.said());
    assert!(house.active().iter().all(|a| a.key.starts_with("三号楼") && a.key.len() <= 256));
    house.says("g", &long("1"), r#"{"smoke":false}"#);
    house.node.wait(31 * S);
    assert_eq!((house.active().len(), house.errors()), (1, 0));
}

#[test]
fn of_a_device_that_two_say_is_gone_each_alarm_says_who() {
    let mut house = House::new("preset = \"discovery\"");
    let device = r#""dev":{"ids":["d1"],"name":"Dev1"},"avty_t":"d1/av""#;
    house.announced("binary_sensor/d1/conn", &format!(r#"{{"dev_cla":"connectivity","stat_t":"d1/conn",{device}}}"#));
    house.announced("sensor/d1/temp", &format!(r#"{{"dev_cla":"temperature","stat_t":"d1/temp",{device}}}"#));
    house.says("g", "d1/av", "offline");
    house.says("g", "d1/conn", "OFF");
    house.node.wait(301 * S);
    let titles = |house: &House| {
        let mut all: Vec<String> = house.active().iter().map(|a| a.title.clone()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(titles(&house), ["Dev1 is offline", "Dev1 is offline (conn)"]);
    house.says("g", "d1/av", "online");
    assert_eq!(titles(&house), ["Dev1 is offline (conn)"]);
    assert_eq!(house.errors(), 0);
}

#[test]
fn devices_of_a_preset_that_is_there_twice_are_called_by_its_base_wherever_their_name_comes_from() {
    let twice = |name: &str| {
        format!(
            "[[preset]]\nname = \"{name}\"\nbase = \"house-1\"\n[[preset]]\nname = \"{name}\"\nbase = \"house-2\"\n"
        )
    };
    let mut house = House::new(&twice("chirpstack"));
    let up = |id: u8| {
        format!(r#"{{"deduplicationId":"{id}","deviceInfo":{{"deviceName":"hall"}},"object":{{"smoke":true}}}}"#)
    };
    for (id, base) in [(1, "house-1"), (2, "house-2")] {
        house.says("g", &format!("{base}/application/1/device/{id}/event/up"), &up(id));
    }
    let mut titles: Vec<&str> = house.active().iter().map(|a| a.title.as_str()).collect();
    titles.sort_unstable();
    assert_eq!(titles, ["Smoke at house-1/hall", "Smoke at house-2/hall"]);
}
