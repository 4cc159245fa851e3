//! CloudEvents' HTTP protocol binding, read: which mode a request is in, and the events in it as
//! JSON objects.
//!
//! The mode is told by the content type: `application/cloudevents-batch+json`,
//! `application/cloudevents+json`, or else binary, if there is a `ce-` header. A plain
//! `application/json` without one is taken for a structured event too.
//!
//! Source: cloudevents/spec 1.0.2, `bindings/http-protocol-binding.md`.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use citybrain_hub::ingress;
use citybrain_shared::{case, words};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Events of one batch: a commit of about 10 ms.
pub const BATCH_EVENTS_MAX: usize = 1_000;

/// How a request carries its events.
#[derive(Debug, PartialEq)]
pub enum Carried {
    One(Bytes),
    Batch(Vec<Bytes>),
}

/// Why a request carries none.
#[derive(Debug, PartialEq)]
pub enum Wrong {
    /// The content type is none of the binding's.
    Unknown(String),
    /// Stable word, and what is wrong.
    Bad(&'static str, String),
}

/// # Errors
/// When the mode is unknown, or what is there does not read in its mode. Whether an object is a
/// good event is not looked at.
pub fn read(headers: &HeaderMap, body: &Bytes) -> Result<Carried, Wrong> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // What must be heard is, whatever a device takes for an encoding.
    let heard = |event: Bytes| case::mended(&event).map_or(event, Bytes::from);
    let is_binary = headers.keys().any(|name| name.as_str().starts_with("ce-"));
    match kind.as_str() {
        // A prefix of the next one, so it is looked at first.
        "application/cloudevents-batch+json" => Ok(Carried::Batch(batch(body)?.into_iter().map(heard).collect())),
        "application/cloudevents+json" => Ok(Carried::One(heard(body.clone()))),
        _ if kind.starts_with("application/cloudevents") => Err(Wrong::Unknown(given.to_owned())),
        _ if is_binary => binary(headers, body).map(Carried::One),
        "application/json" => Ok(Carried::One(heard(body.clone()))),
        _ => Err(Wrong::Unknown(given.to_owned())),
    }
}

fn batch(body: &Bytes) -> Result<Vec<Bytes>, Wrong> {
    // Where the events of a batch lie does not depend on what is no UTF-8 within them; whether that is taken is judged
    // of each of them.
    let text = in_place(body);
    let all: Vec<&RawValue> =
        serde_json::from_str(&text).map_err(|e| Wrong::Bad("not-json", format!("a batch is a JSON array: {e}")))?;
    if all.len() > BATCH_EVENTS_MAX {
        let detail = format!("a batch may have {BATCH_EVENTS_MAX} events, and this one has {}", all.len());
        return Err(Wrong::Bad("too-many", detail));
    }
    let lies = |one: &RawValue| {
        let from = one.get().as_ptr() as usize - text.as_ptr() as usize;
        body.slice(from..from + one.get().len())
    };
    Ok(all.into_iter().map(lies).collect())
}

/// The bytes as a text of the same length.
fn in_place(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let chunks = bytes.utf8_chunks();
    chunks.flat_map(|c| [c.valid().to_owned(), "?".repeat(c.invalid().len())]).collect::<String>().into()
}

fn binary(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, Wrong> {
    let as_sent = composed(headers, body, |bytes| words::utf8(&bytes).map(str::to_owned));
    as_sent.map(Bytes::from).or_else(|wrong| {
        let mended = composed(headers, words::readable(body).as_bytes(), |bytes| Ok(words::readable(&bytes)));
        mended.ok().filter(|event| case::must_be_heard(event)).map(Bytes::from).ok_or(wrong)
    })
}

/// The event of these headers and this body. `text` reads a header's value.
fn composed(
    headers: &HeaderMap,
    body: &[u8],
    text: impl Fn(Vec<u8>) -> Result<String, String>,
) -> Result<Vec<u8>, Wrong> {
    let bad = |detail: String| Wrong::Bad("bad-attribute", detail);
    let mut attributes: Vec<(String, String)> = Vec::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        if matches!(name, "datacontenttype" | "data" | "data_base64") {
            return Err(bad(format!("there is no header `ce-{name}`: the body is the data, Content-Type its type")));
        }
        if attributes.iter().any(|(known, _)| known == name) {
            return Err(bad(format!("the header `ce-{name}` is there twice")));
        }
        let text = text(decode(value.as_bytes())).map_err(|why| bad(format!("the header `ce-{name}`: {why}")))?;
        attributes.push((name.to_owned(), text));
    }
    let content_type = headers.get(header::CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()));
    let attributes = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    ingress::structured(attributes, content_type.as_deref(), body).map_err(|r| Wrong::Bad(r.reason, r.detail))
}

/// A header's value: quotes off, if it is a quoted string, then percent-decoded, once. A `%` that
/// begins no code stands for itself.
fn decode(value: &[u8]) -> Vec<u8> {
    let value = value.trim_ascii();
    let unquoted: Vec<u8> = match value {
        [b'"', inner @ .., b'"'] => {
            let mut bytes = inner.iter();
            std::iter::from_fn(|| match bytes.next()? {
                b'\\' => bytes.next().copied(),
                b => Some(*b),
            })
            .collect()
        }
        plain => plain.to_vec(),
    };
    let digit = |at: usize| unquoted.get(at).and_then(|b| char::from(*b).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(unquoted.len()), 0);
    while let Some(b) = unquoted.get(at) {
        match (b, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8); // two hexadecimal digits fit
                at += 3;
            }
            _ => {
                out.push(*b);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(*name, axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn one(all: &[(&'static str, &str)], body: &'static [u8]) -> Result<Value, Wrong> {
        match read(&headers(all), &Bytes::from_static(body))? {
            Carried::One(json) => Ok(serde_json::from_slice(&json).unwrap()),
            Carried::Batch(_) => panic!("no batch"),
        }
    }

    const NAMED: [(&str, &str); 4] = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/chengdu/erxianqiao"),
        ("ce-type", "city.brain.smoke.v1"),
    ];

    #[test]
    fn binary_mode_takes_headers_as_attributes_and_the_body_as_data() {
        let with = |more: &[(&'static str, &'static str)]| [NAMED.as_slice(), more].concat();
        let subject = ("ce-subject", "%E4%BA%8C%E4%BB%99%E6%A1%A5");
        let read = one(&with(&[subject, ("content-type", "application/json")]), b"{\"smoke\":true}").unwrap();
        let wanted = json!({"specversion": "1.0", "id": "1", "source": "/chengdu/erxianqiao", "type": "city.brain.smoke.v1",
            "subject": "二仙桥", "datacontenttype": "application/json", "data": {"smoke": true}});
        assert_eq!(read, wanted);
        let body = Bytes::from_static(b" {\"n\":18446744073709551617.10} ");
        let Ok(Carried::One(long)) = super::read(&headers(&with(&[("content-type", "Application/JSON")])), &body)
        else {
            panic!("it is an event");
        };
        let long = std::str::from_utf8(&long).unwrap();
        assert!(long.ends_with(",\"data\":{\"n\":18446744073709551617.10}}"), "each digit as it came: {long}");
        let text = one(&with(&[("content-type", "text/plain; charset=utf-8")]), "温".as_bytes()).unwrap();
        assert_eq!((&text["data"], &text["datacontenttype"]), (&json!("温"), &json!("text/plain; charset=utf-8")));
        let bytes = one(&with(&[("content-type", "image/png")]), b"\xff\xfe").unwrap();
        assert_eq!(bytes["data_base64"], "//4=");
        assert!(one(&NAMED, b"").unwrap().get("data").is_none());
        assert!(matches!(one(&with(&[("content-type", "application/json")]), b"{"), Err(Wrong::Bad("not-json", _))));
        assert!(matches!(
            one(&with(&[("ce-datacontenttype", "text/plain")]), b""),
            Err(Wrong::Bad("bad-attribute", _))
        ));
        assert!(matches!(one(&with(&[("ce-id", "2")]), b""), Err(Wrong::Bad("bad-attribute", _))));
        assert!(matches!(one(&with(&[("ce-subject", "%C0%A0")]), b""), Err(Wrong::Bad("bad-attribute", _))));
    }

    #[test]
    fn what_is_no_utf8_is_refused_with_its_place_but_a_call_for_help_is_read() {
        let json = ("content-type", "application/json");
        let named = |kind: &'static str| {
            let [version, id, source, _] = NAMED;
            [version, id, source, ("ce-type", kind), json, ("ce-subject", "%c8%cb")]
        };
        let refused = |all: &[(&'static str, &str)]| match one(all, b"{\"title\":\"\xb1\xb1\"}") {
            Err(Wrong::Bad(word, detail)) => (word, detail),
            taken => panic!("{taken:?}"),
        };
        let no_data = ("not-json", "the data is not JSON: byte 11 (0xB1) is no UTF-8".to_owned());
        assert_eq!(refused(&[NAMED.as_slice(), &[json]].concat()), no_data);
        let no_header = ("bad-attribute", "the header `ce-subject`: byte 1 (0xC8) is no UTF-8".to_owned());
        assert_eq!(refused(&named("city.door")), no_header);
        let press = one(&named("city.sos"), b"{\"title\":\"\xb1\xb1\"}").unwrap();
        assert_eq!(
            (&press["subject"], &press["data"]["title"]),
            (&json!("\u{fffd}C8\u{fffd}CB"), &json!("\u{fffd}B1\u{fffd}B1"))
        );
        // Each event of a batch is judged by itself, as it came.
        let batch = read(
            &headers(&[("content-type", "application/cloudevents-batch+json")]),
            &Bytes::from_static(b" [ {\"a\":\"\xb1\"}, {\"b\":\"\xe6\xb8\xa9\"}]"),
        );
        let wanted = [b"{\"a\":\"\xb1\"}".as_slice(), "{\"b\":\"温\"}".as_bytes()];
        assert_eq!(batch, Ok(Carried::Batch(wanted.map(Bytes::from_static).to_vec())));
    }

    #[test]
    fn header_values_are_unquoted_and_decoded_once() {
        for (given, wanted) in [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("\"a \\\"b\\\" %22\"", "a \"b\" \""),
            ("%2541", "%41"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            (" plain ", "plain"),
        ] {
            assert_eq!(decode(given.as_bytes()), wanted.as_bytes(), "{given}");
        }
        assert_eq!(decode(b"%ff"), [0xff]);
    }

    #[test]
    fn the_content_type_tells_the_mode() {
        let kind = |kind| [("content-type", kind)];
        let batch = read(
            &headers(&kind("application/cloudevents-batch+json; charset=utf-8")),
            &Bytes::from_static(b" [ {\"a\":1}, {} ]"),
        );
        assert_eq!(batch, Ok(Carried::Batch(vec![Bytes::from_static(b"{\"a\":1}"), Bytes::from_static(b"{}")])));
        let empty = read(&headers(&kind("application/cloudevents-batch+json")), &Bytes::from_static(b"[]"));
        assert_eq!(empty, Ok(Carried::Batch(vec![])));
        assert!(matches!(one(&kind("application/cloudevents-batch+json"), b"{}"), Err(Wrong::Bad("not-json", _))));
        assert_eq!(one(&kind("Application/CloudEvents+JSON"), b"{\"id\":\"1\"}").unwrap()["id"], "1");
        assert_eq!(one(&kind("application/json"), b"{}").unwrap(), json!({}));
        // Structured mode has all in the body, whatever else is in the headers.
        let both = [NAMED.as_slice(), &kind("application/cloudevents+json")].concat();
        assert_eq!(one(&both, b"{\"id\":\"2\"}").unwrap(), json!({"id": "2"}));
        for unknown in ["application/cloudevents+xml", "application/cloudevents-batch+avro", "text/plain", ""] {
            assert_eq!(one(&kind(unknown), b"x"), Err(Wrong::Unknown(unknown.into())));
        }
    }
}
