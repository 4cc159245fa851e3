use super::*;
use proptest::prelude::*;

const GOOD: &str = r#"{"specversion":"1.0","id":"1","source":"/lamp/7","type":"lamp.failed","data":{"id":"not this"}}"#;

fn fault(json: &str) -> String {
    Envelope::parse(json.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_plain_event_is_read_without_copying() {
    let e = Envelope::parse(GOOD.as_bytes()).unwrap();
    assert_eq!((e.id.as_deref(), e.source.as_ref(), e.kind.as_ref()), (Some("1"), "/lamp/7", "lamp.failed"));
    assert!(matches!(e.source, Cow::Borrowed(_)));
    assert_eq!(e.priority(), Priority::Routine);
}

#[test]
fn routing_attributes_are_read_and_checked() {
    let json = r#"{"specversion":"1.0","id":"1","source":"a","type":"t","priority":"urgent","reach":"street",
        "target":"chengdu/**@neighbourhood","directive":"command","seq":5,"flag":true,"note":null}"#;
    let e = Envelope::parse(json.as_bytes()).unwrap();
    assert_eq!((e.priority(), e.reach(), e.directive()), (Priority::Urgent, Some(Tier::Street), Directive::Command));
    assert_eq!(e.target().unwrap().unwrap().to_string(), "chengdu/**@neighbourhood");
}

#[test]
fn a_bad_event_is_told_which_attribute_and_why() {
    let with = |more: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"a","type":"t",{more}}}"#);
    for (json, want) in [
        ("{".to_owned(), "it is not JSON"),
        ("[]".to_owned(), "no CloudEvents object"),
        (r#""text""#.to_owned(), "no CloudEvents object"),
        ("{}".to_owned(), "`specversion` is missing"),
        (r#"{"specversion":"0.3","id":"1","source":"a","type":"t"}"#.to_owned(), "`0.3` is not spoken here"),
        (r#"{"specversion":"1.0","id":"1","type":"t"}"#.to_owned(), "`source` is missing"),
        (r#"{"specversion":"1.0","id":1,"source":"a","type":"t"}"#.to_owned(), "`id`: must be a string"),
        (r#"{"specversion":"1.0","id":"","source":"a","type":"t"}"#.to_owned(), "`id`: may not be empty"),
        (with(r#""type":"again""#), "`type`: stands twice"),
        (with(r#""Bad":"x""#), "only a-z and 0-9"),
        (with(r#""x":{"y":1}"#), "put structure into `data`"),
        (with(r#""x":3000000000"#), "does not fit 32 bits"),
        (with(r#""time":"yesterday""#), "not an RFC 3339 time"),
        (with(r#""dataschema":"foo""#), "`dataschema`: must be an absolute URI"),
        (with(r#""dataschema":"/schemas/lamp.json""#), "must be an absolute URI"),
        (with(r#""dataschema":"https://host/a b""#), "must be an absolute URI"),
        (with(r#""priority":"high""#), "not one of routine, urgent"),
        (with(r#""target":"**""#), "is not a selector"),
        (with(r#""subject":"a\u0000b""#), "control character"),
        (with(r#""data":1,"data_base64":"AA==""#), "only one of them"),
        (format!("{GOOD} x"), "it is not JSON"),
    ] {
        let got = fault(&json);
        assert!(got.contains(want), "{json}\n  said: {got}\n  want: {want}");
    }
    let big = format!("{{\"data\":\"{}\"}}", "x".repeat(limits::EVENT_BYTES_MAX));
    assert!(fault(&big).contains("bytes long"));
}

#[test]
fn a_schema_is_named_by_any_absolute_uri() {
    for uri in ["https://host/lamp.json#/definitions/7", "urn:example:lamp", "mqtt+tls:x"] {
        let event = format!(r#"{{"specversion":"1.0","id":"1","source":"a","type":"t","dataschema":"{uri}"}}"#);
        assert!(Envelope::parse(event.as_bytes()).is_ok(), "{uri}");
    }
}

#[test]
fn bytes_are_base64() {
    let with =
        |value: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":{value}}}"#);
    for good in [r#""/wABAg==""#, r#""AAEC""#, r#""""#, r#""AAE=""#] {
        assert!(Envelope::parse(with(good).as_bytes()).is_ok(), "{good}");
    }
    for bad in ["5", r#""%%""#, r#""AAE""#, r#""A===""#, r#""AA-_""#, "null", "{}"] {
        assert!(fault(&with(bad)).contains("`data_base64`: must be a string of base64"), "{bad}");
    }
}

#[test]
fn attributes_of_one_s_own_are_bounded_so_that_no_event_is_long_to_read() {
    let with = |n: usize| {
        let more: String = (0..n).map(|i| format!(",\"a{i}\":1")).collect();
        format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t"{more}}}"#)
    };
    assert!(Envelope::parse(with(limits::EXTENSIONS_MAX).as_bytes()).is_ok());
    let told = fault(&with(limits::EXTENSIONS_MAX + 1));
    assert!(told.contains("`a64`: is one too many: 64 "), "{told}");
    assert!(fault(&with(20_000)).contains("`a64`: is one too many"));
    let twice = with(limits::EXTENSIONS_MAX).replace("\"a63\"", "\"a62\"");
    assert!(fault(&twice).contains("stands twice"));
}

#[test]
fn a_rewritten_event_keeps_the_bytes_of_all_other_members() {
    let out = rewrite(br#"{"a": 1.50, "origin":"lie","b":{"x" : [1]}}"#, &[("id", "n\"ew")], &["origin"]).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"id":"n\"ew","a":1.50,"b":{"x" : [1]}}"#);
    assert_eq!(rewrite(b"{}", &[], &[]).unwrap(), b"{}");
}

#[test]
fn readers_see_the_true_origin_first() {
    let out = with_origin(format!("  {GOOD}").as_bytes(), "c/s");
    let v: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((v["origin"].as_str(), v["id"].as_str()), (Some("c/s"), Some("1")));
    assert_eq!(with_origin(b" {\"id\":\"1\"}", "c/s"), b"{\"origin\":\"c/s\",\"id\":\"1\"}");
    assert_eq!(with_origin(b"{ }", "c"), b"{\"origin\":\"c\" }");
}

#[test]
fn an_event_is_told_by_type_source_and_id_whatever_else_it_says() {
    let e = identity(GOOD.as_bytes()).unwrap();
    assert_eq!((e.id.as_ref(), e.source.as_ref(), e.kind.as_ref()), ("1", "/lamp/7", "lamp.failed"));
    let odd = r#"{"id":"1","source":"/x","type":"t","subject":"\u0001","data":{"id":7}}"#;
    assert!(Envelope::parse(odd.as_bytes()).is_err());
    assert_eq!(identity(odd.as_bytes()).unwrap().id, "1");
    for bad in [
        "",
        "[]",
        "7",
        "{}",
        r#"{"id":"1","source":"/x"}"#,
        r#"{"id":"","source":"/x","type":"t"}"#,
        r#"{"id":7,"source":"/x","type":"t"}"#,
        r#"{"id":"1","source":"/x","type":"t","id":"2"}"#,
        r#"{"id":"1","source":"/x","type":"t"} more"#,
        r#"{"id":"1","source":"/x","type":"t","data":{}"#,
    ] {
        assert!(identity(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_type_is_one_level_of_a_topic() {
    assert!(is_type("lamp.failed") && is_type("路灯") && is_type(&"x".repeat(255)));
    for bad in ["", "a/b", "#", "a+", "a b", "a\0", "a\n", &"x".repeat(256)] {
        assert!(!is_type(bad), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Envelope::parse(&bytes);
    }

    #[test]
    fn any_json_like_text_is_read_or_refused(text in r#"[{}\[\]",:a-z0-9\\u .]{0,80}"#) {
        let _ = Envelope::parse(text.as_bytes());
    }
}
