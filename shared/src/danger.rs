//! What devices warn of, and the words in which they do.
//!
//! An event of a type that [`Danger::promised`] names says of its danger `true` or `false` and nothing else: rules,
//! ours and others', look for these two.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Danger {
    /// What is pressed: whatever it is called, unless it is a no, it is a call for help.
    Press,
    /// Whether somebody calls for help.
    Sos,
    Smoke,
    Gas,
    /// Another way to be poisoned than [`Danger::Gas`], of events of the same type: each ends by its own word.
    CarbonMonoxide,
    WaterLeak,
}

/// What stands where a device says whether there is a danger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Yes,
    No,
    /// Null, or an empty text.
    Nothing,
    /// A number that is neither 0 nor 1: how much there is, not whether.
    Measured,
    /// Something that nobody here can read.
    Unread,
}

/// As makers, their gateways and those who write codecs have them, in whatever case.
const YES: [&str; 11] =
    ["true", "on", "yes", "alarm", "alert", "detected", "triggered", "active", "leak", "leaking", "wet"];
const NO: [&str; 11] = ["false", "off", "no", "none", "normal", "ok", "clear", "cleared", "idle", "inactive", "dry"];

impl Danger {
    /// Those that are there or not, the worst first.
    pub const OF_ALARMS: [Danger; 4] = [Danger::Smoke, Danger::Gas, Danger::CarbonMonoxide, Danger::WaterLeak];

    /// The type of the event that tells of it.
    pub fn kind(self) -> &'static str {
        match self {
            Danger::Press | Danger::Sos => "city.sos.pressed.v1",
            Danger::Smoke => "city.smoke.reading.v1",
            Danger::Gas | Danger::CarbonMonoxide => "city.gas.reading.v1",
            Danger::WaterLeak => "city.leak.reading.v1",
        }
    }

    /// Its member in an event's data. What was pressed stays as the device calls it.
    pub fn member(self) -> Option<&'static str> {
        match self {
            Danger::Press => None,
            Danger::Sos => Some("sos"),
            Danger::Smoke => Some("smoke"),
            Danger::Gas => Some("gas"),
            Danger::CarbonMonoxide => Some("carbon_monoxide"),
            Danger::WaterLeak => Some("water_leak"),
        }
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Danger::Press => "a press",
            Danger::Sos => "a call for help",
            Danger::Smoke => "smoke",
            Danger::Gas => "gas",
            Danger::CarbonMonoxide => "carbon monoxide",
            Danger::WaterLeak => "a leak",
        }
    }

    /// Of which danger events of this type say whether it is there.
    pub fn promised(kind: &str) -> Option<Danger> {
        let is_of = |danger: &Danger| {
            let stem = danger.kind().trim_end_matches(".v1");
            kind.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        Danger::OF_ALARMS.into_iter().find(is_of)
    }

    /// What is told of it by this.
    pub fn told(self, value: &Value) -> Told {
        match (self, told(value)) {
            (Danger::Press, Told::Measured | Told::Unread) => Told::Yes,
            // Of a call there is no more and no less.
            (Danger::Sos, Told::Measured) => Told::Unread,
            (_, told) => told,
        }
    }
}

/// Whether it says that there is something.
pub fn told(value: &Value) -> Told {
    match value {
        Value::Null => Told::Nothing,
        Value::Bool(is) => of(*is),
        Value::Number(n) => n.as_f64().map_or(Told::Measured, number),
        Value::String(text) => word(text.trim()),
        Value::Array(_) | Value::Object(_) => Told::Unread,
    }
}

fn of(is: bool) -> Told {
    if is { Told::Yes } else { Told::No }
}

fn number(n: f64) -> Told {
    match n {
        1.0 => Told::Yes,
        0.0 => Told::No,
        n if n.is_finite() => Told::Measured,
        _ => Told::Unread,
    }
}

fn word(text: &str) -> Told {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match text {
        "" => Told::Nothing,
        _ if is(&YES) => Told::Yes,
        _ if is(&NO) => Told::No,
        _ => text.parse().map_or(Told::Unread, number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yes_and_no_are_read_however_devices_write_them() {
        for yes in [
            json!(true),
            json!(1),
            json!(1.0),
            json!("ON"),
            json!("on"),
            json!("TRUE"),
            json!("1"),
            json!("1.0"),
            json!("01"),
            json!("Alarm"),
        ] {
            assert_eq!(told(&yes), Told::Yes, "{yes}");
        }
        for no in [
            json!(false),
            json!(0),
            json!("OFF"),
            json!("Off"),
            json!("False"),
            json!("0"),
            json!("0.0"),
            json!("normal"),
        ] {
            assert_eq!(told(&no), Told::No, "{no}");
        }
        for nothing in [json!(null), json!(""), json!(" ")] {
            assert_eq!(told(&nothing), Told::Nothing, "{nothing}");
        }
        for measured in [json!(0.3), json!(2), json!("21.5"), json!(-1)] {
            assert_eq!(told(&measured), Told::Measured, "{measured}");
        }
        for unread in [json!("maybe"), json!([true]), json!({"value": true}), json!("onn"), json!("nan"), json!("-inf")]
        {
            assert_eq!(told(&unread), Told::Unread, "{unread}");
        }
    }

    #[test]
    fn whatever_is_pressed_calls_unless_it_is_a_no() {
        for (word, is) in
            [(json!("long"), Told::Yes), (json!(3), Told::Yes), (json!("none"), Told::No), (json!(""), Told::Nothing)]
        {
            assert_eq!(Danger::Press.told(&word), is, "{word}");
        }
    }

    #[test]
    fn a_number_at_a_call_says_neither_that_somebody_calls_nor_that_nobody_does() {
        for (value, told) in [(json!(2), Told::Unread), (json!("3"), Told::Unread), (json!(1), Told::Yes)] {
            assert_eq!(Danger::Sos.told(&value), told, "{value}");
        }
        assert_eq!(Danger::Gas.told(&json!(2)), Told::Measured);
    }

    #[test]
    fn a_type_promises_its_danger_in_each_of_its_versions() {
        for (kind, promised) in [
            ("city.smoke.reading.v1", Some(Danger::Smoke)),
            ("city.gas.reading", Some(Danger::Gas)),
            ("city.leak.reading.v2", Some(Danger::WaterLeak)),
            ("city.smoke.readings", None),
            ("city.sos.pressed.v1", None),
            ("city.sensor.reading.v1", None),
        ] {
            assert_eq!(Danger::promised(kind), promised, "{kind}");
        }
    }
}
