//! In which words devices say how their battery is, and what stands in an event for them.

use crate::danger::{self, Told};
use serde_json::{Map, Value};

/// Per cent.
pub const LEVEL: &str = "battery";
/// Whether it is low.
pub const LOW: &str = "battery_low";

/// Beside the words for yes and no, in whatever case.
const IS_LOW: [&str; 5] = ["low", "critical", "empty", "weak", "replace"];
const IS_NOT: [&str; 4] = ["full", "good", "high", "medium"];
/// Where one that is an object has its per cent.
const LEVELS: [&str; 4] = ["percent", "percentage", "level", "value"];

/// Writes what an event's data say of a battery as rules look for it: per cent as a number, whether it is low as
/// `true` or `false`. What does not read stays as it is.
pub fn read(data: &mut Map<String, Value>) {
    if let Some(is_low) = data.get(LOW).and_then(low) {
        data.insert(LOW.to_owned(), is_low.into());
    }
    let Some(told) = data.get(LEVEL).filter(|told| !told.is_number()) else { return };
    match (level(told), low(told)) {
        (Some(level), _) => _ = data.insert(LEVEL.to_owned(), level),
        (None, Some(is_low)) => _ = data.entry(LOW).or_insert(is_low.into()),
        (None, None) => {}
    }
}

/// As a number, of several the lowest.
fn level(told: &Value) -> Option<Value> {
    match told {
        Value::Number(_) => Some(told.clone()),
        Value::String(text) => {
            let number = text.trim().trim_end_matches('%').trim_end().parse::<serde_json::Number>();
            number.ok().map(Value::Number)
        }
        Value::Array(all) => {
            let levels = all.iter().filter_map(level);
            levels.min_by(|a, b| a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(std::cmp::Ordering::Equal))
        }
        Value::Object(all) => LEVELS.iter().find_map(|name| all.get(*name).and_then(level)),
        Value::Null | Value::Bool(_) => None,
    }
}

fn low(told: &Value) -> Option<bool> {
    let is = |words: &[&str]| told.as_str().is_some_and(|t| words.iter().any(|w| t.trim().eq_ignore_ascii_case(w)));
    match danger::told(told) {
        Told::Yes => Some(true),
        Told::No => Some(false),
        _ if is(&IS_LOW) => Some(true),
        _ if is(&IS_NOT) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_battery_is_read_in_the_words_of_the_field() {
        for (told, want) in [
            (json!({"battery_low": "LOW"}), json!({"battery_low": true})),
            (json!({"battery_low": "True"}), json!({"battery_low": true})),
            (json!({"battery_low": "yes"}), json!({"battery_low": true})),
            (json!({"battery_low": 1}), json!({"battery_low": true})),
            (json!({"battery_low": "normal"}), json!({"battery_low": false})),
            (json!({"battery_low": "maybe"}), json!({"battery_low": "maybe"})),
            (json!({"battery": 3}), json!({"battery": 3})),
            (json!({"battery": 1}), json!({"battery": 1})),
            (json!({"battery": "15"}), json!({"battery": 15})),
            (json!({"battery": "0"}), json!({"battery": 0})),
            (json!({"battery": " 7.5 % "}), json!({"battery": 7.5})),
            (json!({"battery": "low"}), json!({"battery": "low", "battery_low": true})),
            (json!({"battery": "Good"}), json!({"battery": "Good", "battery_low": false})),
            (json!({"battery": "low", "battery_low": false}), json!({"battery": "low", "battery_low": false})),
            // As Home Assistant means it.
            (json!({"battery": true}), json!({"battery": true, "battery_low": true})),
            (json!({"battery": {"V": 3.1, "percent": 12}}), json!({"battery": 12})),
            (json!({"battery": [80, "9%", {"level": 40}]}), json!({"battery": 9})),
            (json!({"battery": {"V": 3.1}}), json!({"battery": {"V": 3.1}})),
            (json!({"battery": null}), json!({"battery": null})),
            (json!({"t": 1}), json!({"t": 1})),
        ] {
            let mut data = told.as_object().unwrap().clone();
            read(&mut data);
            assert_eq!(Value::Object(data), want, "{told}");
        }
    }
}
