//! Bodies of the main requests, as the document shows them. A test of the whole tree sends each to a node that
//! takes it.
//!
//! Only tests are built with this; the node serves the document that they write.

use serde_json::{Map, Value, json};

const EVENT: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const JSON: &str = "application/json";

/// Path (all are POSTed to), content type, name, and the body; text as it is, all else JSON.
pub const ALL: &[(&str, &str, &str, &str)] = &[
    (
        "/v1/events",
        EVENT,
        "a smoke alarm",
        r#"{"specversion": "1.0", "id": "7f3a", "source": "/xishan/smoke-3", "type": "city.smoke", "subject": "厨房3",
            "time": "2026-11-29T05:30:16Z", "priority": "urgent", "reach": "city", "data": {"smoke": true}}"#,
    ),
    (
        "/v1/events",
        BATCH,
        "two readings",
        r#"[{"specversion": "1.0", "id": "1", "source": "/meter/12", "type": "city.water.reading", "data": 21.5},
            {"specversion": "1.0", "id": "2", "source": "/meter/12", "type": "city.water.reading", "data": 21.7}]"#,
    ),
    (
        "/v1/send",
        JSON,
        "a notice to all below",
        r#"{"target": "c/**", "type": "city.notice", "data": {"text": "停水通知"}}"#,
    ),
    (
        "/v1/send",
        JSON,
        "a command that is over in a minute",
        r#"{"target": "c/**@community", "type": "city.valve.close", "directive": "command", "priority": "urgent",
            "ttl_ms": 60000, "data": {"valve": "7"}}"#,
    ),
    (
        "/v1/cases",
        JSON,
        "a report",
        r#"{"category": "SJ0102", "title": "三号门堆了垃圾", "by": "前台", "channel": "hotline", "key": "12345-20261129-7",
            "place": {"text": "三号门", "lat": 30.698, "lon": 103.8368}, "form": {"amount": "一车"},
            "media": ["https://photos.example/1.jpg"], "contact": {"name": "王女士", "phone": "13900000000"}}"#,
    ),
    (
        "/v1/cases",
        JSON,
        "a call for help",
        r#"{"sos": true, "category": "sos", "title": "老人摔倒", "by": "门卫", "place": {"text": "7栋301"}}"#,
    ),
    ("/v1/cases/{id}/{step}", JSON, "accept", r#"{"by": "小张"}"#),
    ("/v1/cases/{id}/{step}", JSON, "dispatch", r#"{"by": "小张", "unit": "环卫所"}"#),
    ("/v1/cases/{id}/{step}", JSON, "start", r#"{"by": "李师傅", "contacted": true}"#),
    (
        "/v1/cases/{id}/{step}",
        JSON,
        "resolve",
        r#"{"by": "李师傅", "text": "已清运", "evidence": ["photo-after=https://photos.example/2.jpg"]}"#,
    ),
    (
        "/v1/cases/{id}/{step}",
        JSON,
        "evaluate",
        r#"{"by": "王女士", "role": "resident", "solved": "solved", "satisfied": "yes"}"#,
    ),
    (
        "/v1/services/{code}/requests",
        JSON,
        "a seat",
        r#"{"seats": 2, "by": "前台", "contact": {"name": "王女士", "phone": "13900000000"}, "key": "app-881"}"#,
    ),
    ("/v1/alarms/{id}/{action}", JSON, "ack", r#"{"by": "值班长"}"#),
    ("/v1/alarms/{id}/{action}", JSON, "shelve", r#"{"by": "值班长", "for_s": 3600}"#),
    ("/v1/alarms/{id}/clear", JSON, "by a supervisor", r#"{"by": "站长"}"#),
    ("/v1/dlq/drop", JSON, "two dead letters", r#"{"positions": [1207, 1208]}"#),
    ("/v1/webhooks/skip", JSON, "one that its receiver does not take", r#"{"name": "hotline", "pos": 88103}"#),
    ("/v1/log-level", JSON, "more of the links", r#"{"level": "citybrain_hub::link=debug,info"}"#),
    (
        "/v1/cap",
        crate::cap::CONTENT_TYPE,
        "a storm",
        r#"<?xml version="1.0" encoding="UTF-8"?>
<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">
  <identifier>storm-7</identifier><sender>eoc@met.example</sender><sent>2026-11-29T08:00:00+08:00</sent>
  <status>Actual</status><msgType>Alert</msgType><scope>Public</scope>
  <info>
    <category>Met</category><event>暴雨</event>
    <urgency>Immediate</urgency><severity>Severe</severity><certainty>Likely</certainty>
    <expires>2100-01-01T08:00:00+08:00</expires><headline>暴雨红色预警</headline>
    <area><areaDesc>柳城街道</areaDesc></area>
  </info>
</alert>
"#,
    ),
];

/// Puts them beside the schemas of a path's `requestBody`.
pub fn put(path: &str, request: &mut Value) {
    for (_, content_type, name, body) in ALL.iter().filter(|(of, ..)| *of == path) {
        let value = if content_type.ends_with("json") {
            serde_json::from_str(body).unwrap_or_else(|e| panic!("{path}, {name}: {e}"))
        } else {
            Value::from(*body)
        };
        let content = request["content"].get_mut(*content_type);
        let content = content.unwrap_or_else(|| panic!("{path} takes no {content_type}"));
        let all = content.as_object_mut().unwrap().entry("examples").or_insert_with(|| Map::new().into());
        all[*name] = json!({"value": value});
    }
}
