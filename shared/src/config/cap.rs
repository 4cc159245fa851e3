//! `[cap]`: alarms as messages of the Common Alerting Protocol, and what becomes of messages that come in.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cap {
    /// Behind the `@` of a sender, before it the alarm's node: unique in the world with a domain of
    /// one's own, and the same at every node when it is set alike.
    pub domain: String,
    /// What goes out says that it is a test.
    pub test: bool,
    /// To whom what goes out is restricted, in words; empty: it is public.
    pub restriction: String,
    /// Of a message that comes in: who below is told.
    pub notify: Notify,
    /// What alarms of a name are about; the first that fits counts.
    pub alarm: Vec<CapAlarm>,
}

impl Default for Cap {
    fn default() -> Self {
        Cap {
            domain: "citybrain".into(),
            test: false,
            restriction: "official use".into(),
            notify: Notify::Areas,
            alarm: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Notify {
    /// The nodes that its areas name, each with all below it.
    Areas,
    /// This node and all below it, whatever its areas are.
    Subtree,
    Nobody,
}

/// CAP's words for alarms of a name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CapAlarm {
    /// An alarm's name, or a prefix with `*` at its end.
    pub name: String,
    /// CAP's category. Default `Safety`.
    #[serde(default)]
    pub category: Option<String>,
    /// For people: 火灾. Default: the alarm's name.
    #[serde(default)]
    pub event: Option<String>,
    /// Default: `Immediate` for critical and major, `Expected` for minor and warning, else `Unknown`.
    #[serde(default)]
    pub urgency: Option<String>,
    /// Default: critical `Extreme`, major `Severe`, minor `Moderate`, warning `Minor`, else `Unknown`.
    #[serde(default)]
    pub severity: Option<String>,
    /// Default `Observed`.
    #[serde(default)]
    pub certainty: Option<String>,
    /// CAP's response types. Default: none.
    #[serde(default)]
    pub response: Vec<String>,
    /// What people should do, in words. Default: nothing is said.
    #[serde(default)]
    pub instruction: Option<String>,
}

impl CapAlarm {
    pub fn fits(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.name == name,
        }
    }
}
