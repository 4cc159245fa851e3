//! A node's hint, for whoever types commands.
//!
//! A node says what to send as HTTP has it: `"by":"NAME"` in the body, `?after=7` in the query, a header. A flag is
//! named as the member that it fills, so that one text serves both doors.

use citybrain_shared::view;
use serde_json::{Map, Value};

/// The text, with what belongs into a request between backticks told as flags.
pub fn as_flags(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let told = parts.map(|(i, part)| (i % 2 == 1).then(|| flags(part)).flatten().unwrap_or_else(|| part.to_owned()));
    told.collect::<Vec<_>>().join("`")
}

fn flags(part: &str) -> Option<String> {
    if let Some((name, value)) = part.split_once(": ") {
        return match name {
            view::HEADER_AT => Some(format!("--at {value}")),
            "authorization" => Some("--token-file FILE".to_owned()),
            _ => None,
        };
    }
    let members: Vec<String> = match part.strip_prefix('?') {
        Some(query) => query.split('&').map(of_pair).collect::<Option<_>>()?,
        None => {
            let members: Map<String, Value> = serde_json::from_str(&format!("{{{part}}}")).ok()?;
            members.iter().flat_map(|(name, value)| of_member(name, value)).collect()
        }
    };
    (!members.is_empty()).then(|| members.join(" "))
}

fn of_pair(pair: &str) -> Option<String> {
    let (name, value) = pair.split_once('=')?;
    Some(if value == "true" { flag(name) } else { format!("{} {}", flag(name), quoted(value)) })
}

fn of_member(name: &str, value: &Value) -> Vec<String> {
    let with = |value: &str| format!("{} {}", flag(name), quoted(value));
    match value {
        Value::Bool(true) => vec![flag(name)],
        Value::String(text) => vec![with(text)],
        Value::Array(all) => all.iter().flat_map(|one| of_member(name, one)).collect(),
        Value::Object(answers) => {
            answers.iter().map(|(key, is)| with(&format!("{key}={}", is.as_str().unwrap_or("…")))).collect()
        }
        other => vec![with(&other.to_string())],
    }
}

fn flag(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}

/// As a shell takes it.
fn quoted(value: &str) -> String {
    let is_plain = !value.contains(|c: char| c.is_whitespace() || "'\"()|&;<>$*?[]{}#~!\\`".contains(c));
    if is_plain { value.to_owned() } else { format!("'{}'", value.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_into_a_request_is_told_as_flags_and_all_else_stays() {
        for (said, told) in [
            (r#"`"by":"NAME"`"#, "`--by NAME`"),
            (r#"say so: `"even_with_cases":true`"#, "say so: `--even-with-cases`"),
            (r#"such as `"slot":"2026-11-23 09:30"`; also 10:00"#, "such as `--slot '2026-11-23 09:30'`; also 10:00"),
            (r#"`"evidence":["photo-after=URL"]`"#, "`--evidence photo-after=URL`"),
            (r#"`"form":{"floor":"a|b"}`"#, "`--form 'floor=a|b'`"),
            ("`?where=a>1&to=x&path=/v1/*`", "`--where 'a>1' --to x --path '/v1/*'`"),
            (r#"`"rating":4`, `"by":"NAME (resident)"`"#, "`--rating 4`, `--by 'NAME (resident)'`"),
            ("`?time_after=…`, or `?all=true&shelved=true`", "`--time-after …`, or `--all --shelved`"),
            ("`x-citybrain-at: c/s`", "`--at c/s`"),
            ("`authorization: Bearer TOKEN`", "`--token-file FILE`"),
            ("`citybrain why c/s` says it; `recall` too", "`citybrain why c/s` says it; `recall` too"),
            ("such as {\"by\":\"…\"}; did you mean `lamp`?", "such as {\"by\":\"…\"}; did you mean `lamp`?"),
            ("", ""),
        ] {
            assert_eq!(as_flags(said), told);
        }
    }
}
