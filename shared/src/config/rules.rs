//! `[[rule]]`: conditions over events and what follows from them. Expressions are CEL, kept as text
//! here; whoever runs them compiles them.

use crate::address::Tier;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique on this node. Windows and alarms are kept under it: a new name starts from nothing.
    pub name: String,
    /// Event types, each exact or with `*` at its end.
    pub on: Vec<String>,
    /// CEL over `event` and `node`: which events count at all. Default: all.
    #[serde(default)]
    pub only: Option<String>,
    /// What is counted apart: CEL, or a JSON pointer into the event. Default: everything together.
    #[serde(default)]
    pub by: Option<String>,
    #[serde(default)]
    pub window: Option<Window>,
    /// CEL over `event`, `node` and `window`: the condition. Default: true.
    #[serde(default)]
    pub when: Option<String>,
    /// The condition must hold for this long.
    #[serde(default, rename = "for")]
    pub hold: Option<Duration>,
    /// Instead of an event: nothing for this long since the last one, time apart when the node was down.
    #[serde(default)]
    pub absent: Option<Duration>,
    /// CEL: when the condition is over. Default: until somebody clears the alarm.
    #[serde(default)]
    pub clear: Option<String>,
    /// It must be over for this long: holds a flapping alarm down.
    #[serde(default)]
    pub calm: Option<Duration>,
    /// At least this long between two firings for the same `by`.
    #[serde(default)]
    pub quiet: Option<Duration>,
    /// Local hours in which it may fire, `mon-fri 09:00-17:00`, `workdays 08:00-12:00` or `06:00-22:00`
    /// each; what holds outside of them fires when they begin. Default: always.
    #[serde(default)]
    pub hours: Vec<String>,
    /// Not while this alarm is active: `NAME` for the same `by`, `NAME/*` for any.
    #[serde(default)]
    pub unless_alarm: Option<String>,
    /// Only while this alarm is active.
    #[serde(default)]
    pub while_alarm: Option<String>,
    #[serde(default)]
    pub then: Vec<Action>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    #[serde(default)]
    pub kind: WindowKind,
    pub within: Duration,
    /// CEL: the value whose sum, min, max, avg and distinct are wanted; of all but the last it must be a number.
    #[serde(default)]
    pub value: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowKind {
    /// The last `within`, at any moment.
    #[default]
    Sliding,
    /// From one multiple of `within` since 1970 to the next.
    Tumbling,
}

/// Texts in an action are templates: `${CEL}` is filled in.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Action {
    Raise(Raise),
    Clear(Clear),
    Emit(Emit),
    Case(Case),
    Command(Directive),
    Notice(Directive),
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Raise {
    /// Default: the rule's name.
    #[serde(default)]
    pub alarm: Option<String>,
    /// Which alarm of that name; default: the rule's `by`.
    #[serde(default)]
    pub key: Option<String>,
    /// A [`Severity`], or a template that gives one.
    #[serde(default = "major")]
    pub severity: String,
    pub title: String,
    /// The highest tier that sees it.
    #[serde(default = "city")]
    pub reach: Tier,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Clear {
    #[serde(default)]
    pub alarm: Option<String>,
    #[serde(default)]
    pub key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Emit {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub subject: Option<String>,
    #[serde(default)]
    pub priority: Option<super::Priority>,
    #[serde(default = "city")]
    pub reach: Tier,
    #[serde(default)]
    pub data: serde_json::Value,
}

/// A matter for somebody: becomes an event that the node's cases are opened from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub category: String,
    /// `appeal`, `service`, `incident`, or `sos` (urgent, climbs by itself).
    #[serde(default = "incident")]
    pub kind: String,
    pub title: String,
    #[serde(default)]
    pub data: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Directive {
    /// A selector at or below this node; default: this node and all below.
    #[serde(default)]
    pub target: Option<String>,
    /// The device that it is for: the event's `subject`.
    #[serde(default)]
    pub subject: Option<String>,
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Not to be executed after this long.
    #[serde(default)]
    pub ttl: Option<Duration>,
    #[serde(default)]
    pub priority: Option<super::Priority>,
    #[serde(default)]
    pub data: serde_json::Value,
}

fn major() -> String {
    "major".into()
}

fn incident() -> String {
    "incident".into()
}

fn city() -> Tier {
    Tier::City
}

/// How bad an alarm is, worst first. The two worst travel on the urgent lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "AlarmSeverity"))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Critical,
    Major,
    Minor,
    Warning,
    Indeterminate,
}

impl Action {
    /// The category of the case that it opens, unless an expression gives it.
    pub fn opens(&self) -> Option<&str> {
        match self {
            Action::Case(x) if !x.category.contains("${") => Some(&x.category),
            _ => None,
        }
    }
}

impl Rule {
    /// Does it ask for the hour or the day, which a calendar tells?
    pub fn goes_by_calendar(&self) -> bool {
        !self.hours.is_empty() || self.window.as_ref().is_some_and(|w| w.kind == WindowKind::Tumbling)
    }
}

impl Severity {
    pub const ALL: [Severity; 5] =
        [Severity::Critical, Severity::Major, Severity::Minor, Severity::Warning, Severity::Indeterminate];

    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Major => "major",
            Severity::Minor => "minor",
            Severity::Warning => "warning",
            Severity::Indeterminate => "indeterminate",
        }
    }

    pub fn parse(text: &str) -> Option<Severity> {
        Severity::ALL.into_iter().find(|s| s.as_str() == text)
    }

    pub fn is_urgent(self) -> bool {
        self <= Severity::Major
    }
}

/// A length of time: a whole number and `ms`, `s`, `m`, `h` or `d`. At most 400 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    us: i64,
}

impl Duration {
    /// One that was read and checked before, to be shown.
    pub fn of_us(us: i64) -> Duration {
        Duration { us }
    }

    pub fn us(self) -> i64 {
        self.us
    }

    /// # Errors
    /// A sentence that says how to write one.
    pub fn parse(text: &str) -> Result<Duration, String> {
        let wrong =
            || format!("`{text}` is no length of time: write a whole number and ms, s, m, h or d, such as `5m`");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return Err(wrong()),
        };
        let us = number.parse::<i64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)?;
        if us == 0 || us > 400 * 86_400_000_000 {
            return Err(format!("`{text}` is out of bounds: more than nothing and at most 400d"));
        }
        Ok(Duration { us })
    }
}

impl Serialize for Duration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
        match units.into_iter().find(|(n, _)| self.us % n == 0) {
            Some((n, unit)) => write!(f, "{}{unit}", self.us / n),
            None => write!(f, "{}us", self.us),
        }
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Duration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as \"5m\"")
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Duration, E> {
                Duration::parse(s).map_err(E::custom)
            }
        }
        d.deserialize_str(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_a_unit_and_a_bound() {
        for (text, us) in [("1ms", 1_000), ("5m", 300_000_000), ("2h", 7_200_000_000), ("400d", 34_560_000_000_000)] {
            let d = Duration::parse(text).unwrap();
            assert_eq!((d.us(), d.to_string().as_str()), (us, text));
        }
        for bad in ["", "5", "m", "0s", "401d", "-1s", "1.5h", "5 m", "99999999999999999999s"] {
            assert!(Duration::parse(bad).is_err(), "{bad}");
        }
    }
}
