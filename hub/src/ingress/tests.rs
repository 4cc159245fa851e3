use super::*;
use crate::door::Ingress as _;
use crate::door::packet::publish::Properties;
use crate::meta::Meta;
use chrono::SecondsFormat;
use serde_json::{Value, json};

mod presets;

fn ingress(extra: &str) -> Ingress {
    let text = format!("{extra}\n[node]\naddress = \"c/s\"\ndata = \"d\"\n");
    Ingress::new(&toml::from_str::<Config>(&text).unwrap())
}

#[test]
fn what_may_name_a_person_stays_where_it_enters_unless_its_type_is_named() {
    let plain = ingress("");
    let reach = |of: &Ingress, kind: &str| of.reach_of(kind, false, b"{}");
    for kind in ["city.appeal", "city.sos", "city.sos.pressed.v1"] {
        assert_eq!(reach(&plain, kind), Tier::Neighbourhood, "{kind}");
    }
    for kind in ["city.sosx", "city.appeal.heating.v1"] {
        assert_eq!(reach(&plain, kind), Tier::City, "{kind} opens no case");
    }
    let says = b"{\"data\":{\"sos\":true,\"phone\":\"1\"}}";
    assert_eq!(plain.reach_of("acme.button", true, says), Tier::Neighbourhood, "what it says counts");
    assert_eq!(plain.reach_of("acme.button", false, says), Tier::City, "only what is urgent opens one");
    let wide = ingress("[[reach]]\ntype = \"city.*\"\ntier = \"street\"\n");
    assert_eq!(reach(&wide, "city.sos.pressed.v1"), Tier::Neighbourhood);
    let named = ingress("[[reach]]\ntype = \"city.sos.pressed.v1\"\ntier = \"street\"\n");
    assert_eq!(reach(&named, "city.sos.pressed.v1"), Tier::Street);
}

#[test]
fn a_retained_message_below_in_can_be_taken_back() {
    let map = "[[map]]\nfilter = \"in/meter/#\"\nformat = \"text\"\ntype = \"acme.reading\"\n";
    for extra in ["", map] {
        let removal = Publish { retain: true, ..publish("in/meter/w", b"") };
        let taken = ingress(extra).take(&removal);
        let draft = taken.draft.expect("a record that removes it");
        let header = draft.header();
        assert_eq!((taken.reason, header.kind, header.topic, header.retain), (0, Kind::Message, "in/meter/w", true));
    }
}

#[test]
fn a_mapped_payload_is_kept_as_it_came_or_refused() {
    let map = "[[map]]\nfilter = \"in/meter/#\"\nformat = \"text\"\ntype = \"acme.reading\"\n";
    let large = vec![b'x'; 70_000];
    let take = |n: usize| ingress(map).take(&Publish { door: &[0; 4], ..publish("in/meter/w", &large[..n]) });
    assert_eq!((take(70_000).reason, take(60_000).reason), (reason::QUOTA, 0));
}

fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    Publish::plain("dev", topic, payload)
}

fn letter(t: &Taken) -> DeadLetter {
    match Note::parse(t.draft.as_ref().unwrap().payload()).unwrap() {
        Note::DeadLetter(d) => d,
        other => panic!("{other:?}"),
    }
}

const EVENT: &[u8] = br#"{"specversion":"1.0","id":"1","source":"a","type":"lamp.failed","data":{}}"#;

#[test]
fn a_cloudevent_is_kept_byte_for_byte() {
    let t = ingress("").take(&publish("in/lamp", EVENT));
    let d = t.draft.unwrap();
    assert_eq!(d.payload(), EVENT);
    let h = d.header();
    assert_eq!(
        (h.kind, h.direction, h.reach, h.name, h.topic),
        (Kind::Event, Direction::Up, Tier::City, "lamp.failed", "in/lamp")
    );
    assert_eq!(h.key, event_key("a", "1"));
}

#[test]
fn an_event_of_a_type_that_promises_a_danger_says_true_or_false_or_is_refused_at_each_door() {
    let node = ingress("[[map]]\nfilter = \"acme/#\"\n");
    let of = |kind: &str, more: &str, data: &str| {
        format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"{kind}"{more},"data":{data}}}"#)
    };
    let said = |draft: &Draft| serde_json::from_slice::<Value>(draft.payload()).unwrap()["data"].to_string();
    let by_mqtt = |p: Publish<'_>| {
        let taken = node.take(&p);
        let draft = taken.draft.as_ref().unwrap();
        if draft.header().kind == Kind::Event {
            return said(draft);
        }
        assert_eq!(taken.reason, reason::PAYLOAD_FORMAT);
        letter(&taken).reason
    };
    let everywhere = |kind: &str, data: &str| {
        let event = of(kind, "", data);
        let raw = user_properties(&[("specversion", "1.0"), ("id", "1"), ("source", "/a"), ("type", kind)]);
        let binary = Publish {
            user_properties: Properties::parse(&raw).unwrap().user(),
            content_type: Some("application/json"),
            ..publish("in/k", data.as_bytes())
        };
        let posted = node.accept(event.as_bytes()).map_or_else(|r| r.reason.to_owned(), |draft| said(&draft));
        let all =
            [by_mqtt(publish("in/k", event.as_bytes())), by_mqtt(publish("acme/k", event.as_bytes())), by_mqtt(binary)];
        assert!(all.iter().all(|one| *one == posted), "{kind} {data}: {all:?} and {posted}");
        posted
    };
    for (kind, data, want) in [
        ("city.smoke.reading.v1", r#"{"smoke":"ON"}"#, r#"{"smoke":true}"#),
        ("city.smoke.reading", r#"{"smoke":0,"t":21}"#, r#"{"smoke":false,"t":21}"#),
        ("city.leak.reading.v1", r#"{"water_leak":"dry"}"#, r#"{"water_leak":false}"#),
        ("city.gas.reading.v1", "1", r#"{"gas":true}"#),
        ("city.gas.reading.v1", r#"{"carbon_monoxide":"alarm"}"#, r#"{"carbon_monoxide":true}"#),
        ("city.smoke.reading.v1", r#"{"smoke":"maybe"}"#, "unread-alarm"),
        ("city.smoke.reading.v1", r#"{"smoke":[true]}"#, "unread-alarm"),
        ("city.smoke.reading.v1", r#"{"smoke":0.3}"#, "unread-alarm"),
        ("city.smoke.reading.v1", "\"maybe\"", "unread-alarm"),
        ("city.smoke.reading.v1", r#"{"smoke":false,"gas":"maybe"}"#, "unread-alarm"),
        ("city.smoke.reading.v1", r#"{"smoke":"maybe","gas":true}"#, r#"{"gas":true,"smoke":"maybe"}"#),
        ("city.smoke.reading.v1", r#"{"smoke":""}"#, r#"{"smoke":""}"#),
        ("city.gas.reading.v1", r#"{"gas":0,"carbon_monoxide":1}"#, r#"{"carbon_monoxide":true,"gas":false}"#),
        // Of something else, an event is of another type.
        ("city.smoke.reading.v1", r#"{"state":"ON"}"#, "unread-alarm"),
        ("city.smoke.reading.v1", "null", "unread-alarm"),
        ("city.smoke.reading.v1", r#"{"gas":false}"#, r#"{"gas":false}"#),
        ("city.smoke.readings", r#"{"smoke":"ON"}"#, r#"{"smoke":"ON"}"#),
    ] {
        assert_eq!(everywhere(kind, data), want, "{kind} {data}");
    }
    let calls = of("city.smoke.reading.v1", r#","priority":"urgent""#, r#"{"smoke":"maybe","sos":true}"#);
    assert_eq!(
        by_mqtt(publish("in/k", calls.as_bytes())),
        r#"{"smoke":"maybe","sos":true}"#,
        "a call waits for nothing"
    );
    for bare in [r#","data_base64":"eyJzbW9rZSI6dHJ1ZX0=""#, ""] {
        let event = format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"city.smoke.reading.v1"{bare}}}"#);
        let refused = node.accept(event.as_bytes()).unwrap_err();
        assert_eq!(refused.reason, "unread-alarm", "{bare}");
        assert!(refused.detail.starts_with("it says nothing of smoke; "), "{}", refused.detail);
    }
}

#[test]
fn a_danger_that_one_entry_reads_for_certain_goes_before_a_word_that_an_earlier_one_cannot_read() {
    let entry = |more: &str| format!("[[map]]\nfilter = \"dev/+\"\nformat = \"json\"\n{more}\n");
    let first = entry("dangers = { smoke = [\"/smoke\"] }\nwords = { burning = true }");
    let says = |later: &str, payload: &str| {
        let taken = ingress(&format!("{first}{later}")).take(&publish("dev/k", payload.as_bytes()));
        let draft = taken.draft.as_ref().unwrap();
        if draft.header().kind == Kind::Note { letter(&taken).reason } else { draft.header().name.to_owned() }
    };
    let gas = entry("dangers = { smoke = [\"/smoke\"], gas = [\"/gas\"] }");
    let press = entry("has = { \"/action\" = [] }\ntype = \"city.sos.pressed.v1\"");
    let rest = entry("type = \"acme.reading\"");
    for (later, payload, want) in [
        (&gas, r#"{"smoke":"maybe","gas":true}"#, "city.gas.reading.v1"),
        (&gas, r#"{"smoke":"maybe","gas":false}"#, "unread-alarm"),
        (&press, r#"{"smoke":"maybe","action":"single"}"#, "city.sos.pressed.v1"),
        (&rest, r#"{"smoke":"maybe"}"#, "unread-alarm"),
        (&gas, r#"{"smoke":"burning","gas":true}"#, "city.smoke.reading.v1"),
    ] {
        assert_eq!(says(later, payload), want, "{payload}");
    }
}

#[test]
fn a_danger_that_is_told_in_a_word_leaves_what_else_the_event_says_as_it_was() {
    let json = br#"{"specversion":"1.0","id":"1","source":"a","type":"city.gas.reading.v1","datacontenttype":"application/senml+json","data":{"n":123456789012345678901,"gas":"ON"},"x":"1"}"#;
    let node = ingress("");
    let draft = node.accept(json).unwrap();
    let text = std::str::from_utf8(draft.payload()).unwrap();
    assert!(
        text.contains("123456789012345678901")
            && text.contains(r#""gas":true"#)
            && text.contains(r#""x":"1""#)
            && text.contains("senml"),
        "{text}"
    );
    let told = br#"{"specversion":"1.0","id":"1","source":"a","type":"city.gas.reading.v1","data":{"gas":true}}"#;
    assert_eq!(node.accept(told).unwrap().payload(), told, "byte for byte");
}

#[test]
fn what_does_not_read_where_a_danger_is_looked_for_is_no_reading_of_a_later_entry_for_the_rest() {
    let dangers = "[[map]]\nfilter = \"dev/+\"\nformat = \"json\"\ndangers = { smoke = [\"/smoke\"] }\n";
    let text = |filter: &str, more: &str| format!("[[map]]\nfilter = \"{filter}\"\nformat = \"text\"\n{more}\n");
    let reading = "type = \"acme.reading\"";
    let says = |later: &str, payload: &str| {
        let taken = ingress(&format!("{dangers}{later}")).take(&publish("dev/k", payload.as_bytes()));
        let draft = taken.draft.as_ref().unwrap();
        if draft.header().kind == Kind::Note { letter(&taken).reason } else { draft.header().name.to_owned() }
    };
    for filter in ["dev/+", "dev/#", "#"] {
        assert_eq!(says(&text(filter, reading), "{\"smo"), "not-json", "{filter}");
        assert_eq!(says(&text(filter, reading), "{\"t\":1}"), "acme.reading", "{filter}");
    }
    for (later, want) in [
        (text("dev/k", reading), "acme.reading"),
        (text("dev/+", "type = \"city.sos.pressed.v1\""), "city.sos.pressed.v1"),
        (text("dev/+", "skip = true"), ""),
    ] {
        assert_eq!(says(&later, "hello"), want, "{later}");
    }
}

#[test]
fn an_event_without_id_gets_one_and_a_false_origin_goes() {
    let json = br#"{"specversion":"1.0","source":"a","type":"t","origin":"city/of/lies"}"#;
    let d = ingress("").take(&publish("in/x", json)).draft.unwrap();
    let v: Value = serde_json::from_slice(d.payload()).unwrap();
    assert!(v["id"].as_str().unwrap().len() == 36 && v.get("origin").is_none());
}

#[test]
fn rubbish_becomes_a_dead_letter_with_its_reason() {
    let i = ingress("[[map]]\nfilter = \"in/json\"\nformat = \"json\"\nvalue = \"/a\"\n");
    for (topic, payload, reason, code) in [
        ("in/x", b"hello".as_slice(), "unmapped", reason::PAYLOAD_FORMAT),
        ("in/x", b"{}", "not-cloudevents", reason::PAYLOAD_FORMAT),
        ("in/x", b"\xff\xfe", "unmapped", reason::PAYLOAD_FORMAT),
        ("in/json", b"{", "not-json", reason::PAYLOAD_FORMAT),
        ("in/json", b"{\"b\":1}", "no-value", reason::PAYLOAD_FORMAT),
        ("events/x", EVENT, "forbidden", reason::TOPIC_INVALID),
    ] {
        let t = i.take(&publish(topic, payload));
        assert_eq!((letter(&t).reason.as_str(), t.reason), (reason, code), "{topic} {payload:?}");
    }
}

#[test]
fn a_device_s_own_format_becomes_an_event() {
    let i = ingress(
        "[[map]]\nfilter = \"zigbee2mqtt/+\"\nformat = \"json\"\ntype = \"city.sensor.{1}\"\nsubject = \"{2}\"\ntime = \"/ts\"\nid = \"/n\"\n\
             [[map]]\nfilter = \"meter/#\"\nformat = \"text\"\npriority = \"urgent\"\nreach = \"street\"\n",
    );
    let d = i.take(&publish("zigbee2mqtt/door", br#"{"contact":false,"ts":1700000000,"n":7}"#)).draft.unwrap();
    let v: Value = serde_json::from_slice(d.payload()).unwrap();
    assert_eq!(v["type"], "city.sensor.zigbee2mqtt");
    assert_eq!(v["subject"], "door");
    assert_eq!(v["time"], "2023-11-14T22:13:20.000Z");
    assert_eq!(v["id"], "7");
    assert_eq!(v["source"], "/c/s/zigbee2mqtt/door");
    assert_eq!(v["data"]["contact"], false);
    let d = i.take(&publish("meter/1", b" 21.5 ")).draft.unwrap();
    let v: Value = serde_json::from_slice(d.payload()).unwrap();
    assert_eq!(v["data"], 21.5);
    // This node is a street: an event that reaches the street stays.
    assert_eq!((d.header().lane, d.header().direction), (Lane::Urgent, Direction::Local));
}

#[test]
fn what_begins_as_a_node_s_own_words_is_taken_from_nobody_but_a_probe() {
    let i = ingress("");
    for (kind, wanted) in [
        ("city.brain.case.letter", reason::NOT_AUTHORIZED),
        ("city.brain.of-tomorrow", reason::NOT_AUTHORIZED),
        ("city.cap.alert", reason::NOT_AUTHORIZED),
        ("city.brain.probe", reason::SUCCESS),
        ("city.brainy", reason::SUCCESS),
    ] {
        let event = format!(r#"{{"specversion":"1.0","id":"1","source":"/b","type":"{kind}"}}"#);
        assert_eq!(i.take(&publish("in/x", event.as_bytes())).reason, wanted, "{kind}");
    }
}

#[test]
fn a_call_for_help_is_urgent_whatever_it_says() {
    let i = ingress("");
    let lane = |kind: &str, more: &str| {
        let event = format!(r#"{{"specversion":"1.0","id":"1","source":"/b","type":"{kind}"{more}}}"#);
        i.take(&publish("in/x", event.as_bytes())).draft.unwrap().header().lane
    };
    for kind in ["city.sos", "city.sos.pressed.v1"] {
        assert_eq!(lane(kind, ""), Lane::Urgent);
        assert_eq!(lane(kind, r#","priority":"routine""#), Lane::Urgent);
    }
    for kind in ["city.appeal", "city.sosage", "city.test"] {
        assert_eq!(lane(kind, ""), Lane::Routine);
    }
}

#[test]
fn a_number_that_would_lose_digits_names_nothing() {
    let node = ingress(
        "[[map]]\nfilter = \"a\"\nformat = \"json\"\ntype = \"t\"\nid = \"/n\"\n\
             [[map]]\nfilter = \"b\"\nformat = \"json\"\ntype = \"t\"\nsubject = \"/n\"\n\
             [[map]]\nfilter = \"c\"\nformat = \"text\"\ntype = \"t\"\n",
    );
    let long = br#"{"n":89860012345678901234}"#;
    for (topic, reason) in [("a", "no-id"), ("b", "bad-attribute")] {
        let told = letter(&node.take(&publish(topic, long)));
        assert_eq!(told.reason, reason);
        assert!(told.detail.contains("send it as a string"), "{}", told.detail);
    }
    let made = |topic, payload: &[u8]| -> Value {
        serde_json::from_slice(node.take(&publish(topic, payload)).draft.unwrap().payload()).unwrap()
    };
    assert_eq!(made("a", br#"{"n":18446744073709551615}"#)["id"], "18446744073709551615");
    assert_eq!(made("b", br#"{"n":"89860012345678901234"}"#)["subject"], "89860012345678901234");
    assert_eq!(made("c", b"89860012345678901234")["data"], "89860012345678901234");
    assert_eq!(made("c", b"21.50")["data"], 21.5);
    assert_eq!(made("c", b"-7")["data"], -7);
}

const NAMED: &[(&str, &str)] = &[("specversion", "1.0"), ("id", "1"), ("source", "/x"), ("type", "t")];

/// As on the wire: 0x26, then two strings.
fn user_properties(all: &[(&str, &str)]) -> Vec<u8> {
    let mut raw = Vec::new();
    for (name, value) in all {
        raw.push(0x26);
        for text in [name, value] {
            raw.extend_from_slice(&(text.len() as u16).to_be_bytes());
            raw.extend_from_slice(text.as_bytes());
        }
    }
    raw
}

#[test]
fn in_mqtt5_binary_mode_an_attribute_stands_once_and_what_can_be_none_is_passed_over() {
    let take = |more: &[(&str, &str)]| {
        let raw = user_properties(&[NAMED, more].concat());
        let user_properties = Properties::parse(&raw).unwrap().user();
        let taken = ingress("").take(&Publish { user_properties, ..publish("in/x", b"{\"smoke\":true}") });
        let draft = taken.draft.unwrap();
        (draft.header().kind, String::from_utf8(draft.payload().to_vec()).unwrap(), taken.reason)
    };
    let (kind, event, _) =
        take(&[("MyApp", "1"), ("trace-id", "2"), ("data_base64", "AA=="), ("data", "x"), ("", "y")]);
    assert_eq!(kind, Kind::Event);
    let event: Value = serde_json::from_str(&event).unwrap();
    let wanted = json!({"specversion": "1.0", "id": "1", "source": "/x", "type": "t", "data": {"smoke": true}});
    assert_eq!(event, wanted);
    for name in ["id", "own"] {
        let (kind, letter, code) = take(&[(name, "2"), (name, "3")]);
        assert_eq!((kind, code), (Kind::Note, reason::PAYLOAD_FORMAT));
        assert!(letter.contains("bad-attribute") && letter.contains(&format!("`{name}` is there twice")), "{letter}");
    }
}

#[test]
fn mqtt5_binary_mode_becomes_structured() {
    let raw = user_properties(&[NAMED, &[("subject", "二仙桥")]].concat());
    let props = Properties::parse(&raw).unwrap().user();
    let p = Publish {
        content_type: Some("application/json"),
        user_properties: props,
        ..publish("in/x", b"{\"smoke\":true}")
    };
    let d = ingress("").take(&p).draft.unwrap();
    let v: Value = serde_json::from_slice(d.payload()).unwrap();
    assert_eq!((v["subject"].as_str(), v["data"]["smoke"].as_bool()), (Some("二仙桥"), Some(true)));
    let p = Publish { content_type: Some("image/png"), user_properties: props, ..publish("in/x", b"\xff\x00\x01\x02") };
    let v: Value = serde_json::from_slice(ingress("").take(&p).draft.unwrap().payload()).unwrap();
    assert_eq!(v["data_base64"], "/wABAg==");
}

#[test]
fn the_event_of_a_will_is_a_new_one_whatever_id_it_says() {
    let map = "[[map]]\nfilter = \"in/m\"\nformat = \"json\"\nid = \"/seq\"\ntype = \"t\"\n";
    let cloud = r#"{"specversion":"1.0","id":"off","source":"/d","type":"t"}"#;
    for (topic, payload, id) in [("in/d", cloud, "off"), ("in/m", r#"{"seq":7}"#, "7")] {
        let of = |is_will: bool| {
            let p = Publish { is_will, door: &[0; 5], ..publish(topic, payload.as_bytes()) };
            let draft = ingress(map).take(&p).draft.unwrap();
            let event: Value = serde_json::from_slice(draft.payload()).unwrap();
            let said = Meta::decode(draft.header().door).payload.map(<[u8]>::to_vec);
            (event["id"].as_str().unwrap().to_owned(), draft.header().key, said)
        };
        assert_eq!(of(false).0, id);
        let (one, two) = (of(true), of(true));
        assert!(one.0 != id && one.0 != two.0 && one.1 != two.1, "{one:?} {two:?}");
        assert_eq!(one.2.as_deref(), Some(payload.as_bytes()), "on its topic it is as it was given");
    }
}

#[test]
fn a_directive_goes_only_below_its_node() {
    let with =
        |target: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"a","type":"t","target":"{target}"}}"#);
    let t = ingress("").take(&publish("in/x", with("c/s/**@neighbourhood").as_bytes()));
    assert_eq!(t.draft.unwrap().header().direction, Direction::Down);
    let t = ingress("").take(&publish("in/x", with("c/**").as_bytes()));
    assert_eq!((letter(&t).reason.as_str(), t.reason), ("foreign-target", reason::NOT_AUTHORIZED));
}

#[test]
fn an_expiry_beyond_what_the_log_counts_comes_not_too_soon() {
    let ttl = |days: i64| {
        let at = (Utc::now() + chrono::TimeDelta::days(days)).to_rfc3339_opts(SecondsFormat::Millis, true);
        let json = format!(r#"{{"specversion":"1.0","id":"1","source":"a","type":"t","expirytime":"{at}"}}"#);
        ingress("").take(&publish("in/x", json.as_bytes())).draft.unwrap().header().ttl_ms
    };
    assert!((1..=86_400_000).contains(&ttl(1)));
    assert_eq!(ttl(60), 0, "it does not expire on its way");
}

#[test]
fn plain_messages_stay_messages() {
    let t = ingress("").take(&publish("chat/room", b"hi"));
    assert_eq!(t.draft.unwrap().header().kind, Kind::Message);
    let t = ingress("").take(&Publish { qos: 0, ..publish("chat/room", b"hi") });
    assert!(t.draft.is_none() && t.reason == 0);
}

#[test]
fn an_event_that_is_no_utf8_is_refused_wherever_it_stands_with_its_place() {
    let node = ingress("");
    let event =
        |rest: &[u8]| [b"{\"specversion\":\"1.0\",\"source\":\"a\",\"type\":\"t\"".as_slice(), rest, b"}"].concat();
    let good = node.accept(&event(",\"id\":\"1\",\"data\":\"温\"".as_bytes())).unwrap();
    assert_eq!(good.header().name, "t");
    for rest in [b",\"data\":\"\xb1\"".as_slice(), b",\"data\":{\"\xb1\":1},\"id\":\"1\"", b",\"own\":\"\xb1\""] {
        let event = event(rest);
        let at = event.iter().position(|b| *b == 0xb1).unwrap() + 1;
        let refusal = node.accept(&event).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.detail),
            ("not-json", format!("it is not JSON: byte {at} (0xB1) is no UTF-8"))
        );
        let said = letter(&node.take(&publish("in/ce", &event)));
        assert!(said.detail.contains(&format!("byte {at} (0xB1)")), "{}", said.detail);
    }
}

#[test]
fn what_a_device_says_in_a_format_of_its_own_is_read_though_it_is_no_utf8() {
    let maps = "[[map]]\nfilter = \"in/t/#\"\nformat = \"text\"\ntype = \"t\"\n\
                [[map]]\nfilter = \"in/j/#\"\nformat = \"json\"\nhas = { \"/smoke\" = [false] }\ntype = \"j\"\n";
    let node = ingress(maps);
    for (topic, payload, want) in [
        ("in/t/1", b"\"\xff\"".as_slice(), json!("\"\u{fffd}FF\"")),
        ("in/j/1", b"{\"smoke\":false,\"who\":\"\xcd\xf5\"}", json!({"smoke": false, "who": "\u{fffd}CD\u{fffd}F5"})),
    ] {
        let taken = node.take(&publish(topic, payload)).draft.unwrap();
        assert_eq!((taken.header().kind, taken.header().lane), (Kind::Event, Lane::Routine), "{topic}");
        assert_eq!(serde_json::from_slice::<Value>(taken.payload()).unwrap()["data"], want);
    }
    // What nothing reads stays what it is.
    for (topic, reason) in [("in/j/1", "unmapped"), ("in/x", "unmapped")] {
        assert_eq!(letter(&node.take(&publish(topic, b"\"\xff\""))).reason, reason, "{topic}");
    }
    let plain = node.take(&publish("cam/1", b"\xff\xd8")).draft.unwrap();
    assert_eq!((plain.header().kind, plain.payload()), (Kind::Message, b"\xff\xd8".as_slice()));
}

#[test]
fn what_has_no_id_where_its_map_has_one_gets_one() {
    let map = |filter: &str, more: &str| {
        format!("[[map]]\nfilter = \"{filter}\"\nformat = \"json\"\ntype = \"t\"\nid = \"/n\"\n{more}\n")
    };
    let node = ingress(
        &(map("r", "")
            + &map("u", "priority = \"urgent\"").replace("\"t\"", "\"alarm\"")
            + &map("e", "").replace("\"t\"", "\"alarm\"")
            + &map("s", "").replace("\"t\"", "\"city.sos\"")),
    );
    let id = |topic: &str, payload: &str| -> Value {
        let taken = node.take(&publish(topic, payload.as_bytes())).draft.unwrap();
        assert_eq!(taken.header().kind, Kind::Event, "{topic} {payload}");
        serde_json::from_slice::<Value>(taken.payload()).unwrap()["id"].clone()
    };
    for payload in ["{}", r#"{"n":null}"#] {
        for topic in ["r", "u", "s"] {
            assert_ne!(id(topic, payload), id(topic, payload), "each has its own");
        }
    }
    // What stands there and can be none keeps nothing away that is urgent.
    for payload in [r#"{"n":""}"#, r#"{"n":{}}"#, r#"{"n":89860012345678901234}"#] {
        assert_eq!(letter(&node.take(&publish("r", payload.as_bytes()))).reason, "no-id", "{payload}");
        for topic in ["u", "s", "e"] {
            assert!(id(topic, payload).is_string(), "also what may be the end of an alarm");
        }
    }
    assert_eq!(id("u", r#"{"n":7}"#), "7");
}

#[test]
fn an_urgent_message_that_says_nothing_of_what_its_map_looks_for_is_no_event_unless_somebody_calls() {
    let map = |filter: &str, kind: &str| {
        format!("[[map]]\nfilter = \"{filter}\"\nformat = \"json\"\ntype = \"{kind}\"\npriority = \"urgent\"\n")
    };
    let node = ingress(&(map("weather", "city.weather.warning") + &map("help", "city.sos.pressed.v1")));
    for payload in [&b"{\"level\":"[..], b""] {
        assert_eq!(letter(&node.take(&publish("weather", payload))).reason, "not-json");
        assert_eq!(node.take(&publish("help", payload)).draft.unwrap().header().lane, Lane::Urgent);
    }
}

#[test]
fn what_is_urgent_and_no_utf8_is_read_all_the_same_by_whichever_way_it_comes() {
    let maps = "[[map]]\nfilter = \"in/sos/+\"\nformat = \"text\"\ntype = \"city.sos.pressed.v1\"\nsubject = \"{3}\"\n\
                [[map]]\nfilter = \"z/+\"\nformat = \"json\"\nhas = { \"/action\" = [\"sos\"] }\ntype = \"city.sos\"\n\
                [[map]]\nfilter = \"u/+\"\nformat = \"json\"\npriority = \"urgent\"\n";
    let node = ingress(maps);
    let event = |kind: &str, rest: &[u8]| {
        [format!("{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"a\",\"type\":\"{kind}\",").as_bytes(), rest, b"}"]
            .concat()
    };
    let sos = event("city.sos", b"\"data\":{\"title\":\"\xb1\xb1\"}");
    let says_so = event("acme", b"\"priority\":\"urgent\",\"data\":{\"sos\":1,\"title\":\"\xb1\xb1\"}");
    let title = serde_json::json!("\u{fffd}B1\u{fffd}B1");
    let data_of = |draft: &Draft| {
        assert_eq!(draft.header().lane, Lane::Urgent);
        serde_json::from_str::<Value>(std::str::from_utf8(draft.payload()).unwrap()).unwrap()["data"].clone()
    };
    let smoke = event("city.smoke", b"\"priority\":\"urgent\",\"data\":{\"smoke\":1,\"title\":\"\xb1\xb1\"}");
    let pressed = b"{\"sos\":true,\"title\":\"\xb1\xb1\"}".as_slice();
    let burns = b"{\"smoke\":true,\"title\":\"\xb1\xb1\"}".as_slice();
    for (topic, payload) in
        [("in/ce", sos.as_slice()), ("in/ce", &says_so), ("in/ce", &smoke), ("u/1", pressed), ("u/2", burns)]
    {
        let publish = publish(topic, payload);
        assert!(node.is_urgent(&publish), "it waits behind nothing that is not");
        let taken = node.take(&publish);
        assert_eq!((taken.reason, &data_of(&taken.draft.unwrap())["title"]), (0, &title), "{topic}");
    }
    assert_eq!(data_of(&node.accept(&sos).unwrap())["title"], title);
    assert_eq!(data_of(&node.take(&publish("in/sos/7", b"\x01\xff\xfe")).draft.unwrap()), "\u{1}\u{fffd}FF\u{fffd}FE");
    let pressed = data_of(&node.take(&publish("z/b", b"{\"action\":\"sos\",\"x\":\"\xc8\xcb\"}")).draft.unwrap());
    assert_eq!(pressed["action"], "sos");
    // What a call for help says as bytes stays what it is.
    let properties = user_properties(&[("specversion", "1.0"), ("source", "a"), ("type", "city.sos"), ("id", "2")]);
    let binary = |content_type| Publish {
        content_type: Some(content_type),
        user_properties: Properties::parse(&properties).unwrap().user(),
        ..publish("in/b", b"{\"title\":\"\xb1\xb1\"}")
    };
    assert_eq!(data_of(&node.take(&binary("application/json")).draft.unwrap())["title"], title);
    let picture = node.take(&binary("image/png")).draft.unwrap();
    assert!(String::from_utf8_lossy(picture.payload()).contains("data_base64"));
}
