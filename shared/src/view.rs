//! Answers: what the API sends and the CLI shows. One type each, written and read here, so that
//! both speak of the same thing.
//!
//! Every answer but a stream comes in an [`Answer`]: which schema, whose record, as of when. Times
//! are RFC 3339 in UTC; every number has its unit in its key, and a count has none. A stream is one
//! object a line, without a head; HTTP headers carry it ([`HEADER_NODE`], [`HEADER_AS_OF`]).
//!
//! | module | answers about |
//! |---|---|
//! | `node` | a node, its place in the tree, its links |
//! | `events`, `dead_letters`, `directives` | what lies in its log |
//! | `alarms` | alarms, rules, and warnings that came in by CAP |
//! | `cases`, `accounts`, `supervision`, `services` | cases and their rates; cases of other systems; what whoever supervises counts; what is offered |
//! | `inspect` | a tree: who answers for whom, the way of an event, why something does not move, whether the books add up |
//! | `ops` | stores, config, enrolment, health: for whoever keeps nodes running |

/// Says under which schema each view stands.
macro_rules! views {
    ($($view:ty = $schema:literal),* $(,)?) => {
        $(impl $crate::view::View for $view { const SCHEMA: &'static str = $schema; })*
    };
}

mod accounts;
mod alarms;
mod cases;
mod dead_letters;
mod directives;
mod events;
mod inspect;
mod node;
mod ops;
mod services;
mod supervision;

pub use accounts::*;
pub use alarms::*;
pub use cases::*;
pub use dead_letters::*;
pub use directives::*;
pub use events::*;
pub use inspect::*;
pub use node::*;
pub use ops::*;
pub use services::*;
pub use supervision::*;

use crate::Address;
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Response header: the address of the node whose record a stream is.
pub const HEADER_NODE: &str = "citybrain-node";
/// Response header: positions up to this one were not looked at.
pub const HEADER_AFTER: &str = "citybrain-after";
/// Response header: which history of the node's log it is of; positions of another one mean nothing in it.
pub const HEADER_HISTORY: &str = "citybrain-history";
/// Response header: some may be missing in the list, and why.
pub const HEADER_AWAITS: &str = "citybrain-awaits";
/// Response header: when the stream began, RFC 3339.
pub const HEADER_AS_OF: &str = "citybrain-as-of";

/// A view that stands under a name: `citybrain.links/1`. The number grows when a key changes its
/// meaning or goes; new keys may come without that.
pub trait View: Serialize + DeserializeOwned {
    const SCHEMA: &'static str;
}

views! { Version = "citybrain.version/1" }

/// An answer with its head; in JSON the body's keys stand beside the head's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer<T> {
    #[serde(flatten)]
    pub head: Head,
    #[serde(flatten)]
    pub body: T,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Head {
    pub schema: String,
    /// Whose record this is; empty for what no node said (`check`, `version`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    pub as_of: DateTime<Utc>,
    /// Read from a stopped node's folder; `as_of` is its last commit then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offline: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

impl<T: View> Answer<T> {
    pub fn new(node: &str, as_of: DateTime<Utc>, body: T) -> Answer<T> {
        // Milliseconds are enough, and nine digits only look exact.
        let as_of = as_of.trunc_subsecs(3);
        let head = Head { schema: T::SCHEMA.to_owned(), node: node.to_owned(), as_of, offline: false, cut: None };
        Answer { head, body }
    }

    /// Reads an answer, of this view's schema only.
    ///
    /// # Errors
    /// When the JSON does not fit, or is another schema's: the other side is another version.
    pub fn parse(json: &[u8]) -> Result<Answer<T>, serde_json::Error> {
        let head: Head = serde_json::from_slice(json)?;
        if head.schema != T::SCHEMA {
            let message = format!("schema `{}` where `{}` was expected", head.schema, T::SCHEMA);
            return Err(serde::de::Error::custom(message));
        }
        // Twice over the bytes, because serde cannot flatten raw JSON.
        Ok(Answer { head, body: serde_json::from_slice(json)? })
    }
}

/// A time as the records keep it, µs since 1970; `None` becomes 1970 for a number that is no time.
pub fn time_of(us: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(us).unwrap_or_default()
}

/// RFC 3339 with milliseconds, as in every answer.
pub fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Why something was refused. The body of every HTTP error, and `--json` errors on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Failure {
    /// Stable, for programs: `not-found`, `bad-target`, …
    pub error: String,
    /// For people.
    pub detail: String,
    /// What to do next; may be empty.
    #[serde(default)]
    pub hint: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    pub version: String,
    /// Link protocol versions that this build speaks.
    pub link_version_min: u8,
    pub link_version_max: u8,
}

/// `DATA/api.json`: how to reach the node that runs on this data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiFile {
    pub url: String,
    pub pid: u32,
    pub address: Address,
    /// Opens the API while the node runs, for whoever may read its folder; only with a tokens file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pos, Tier};
    use serde_json::value::RawValue;

    #[test]
    fn an_answer_reads_back_and_another_schema_is_refused() {
        let raw = RawValue::from_string("{\"id\":\"1\",\"n\":1.10}".into()).unwrap();
        let record = Event {
            pos: Pos(7),
            kind: "event".into(),
            priority: "routine".into(),
            direction: "up".into(),
            origin: "c/s".into(),
            origin_pos: Pos(3),
            received_at: time_of(1_000_000),
            committed_at: time_of(2_000_000),
            reach: Tier::City,
            target: String::new(),
            topic: String::new(),
            ttl_ms: None,
            event: raw,
        };
        let answer = Answer::new("c", time_of(3_000_000), Shown { record });
        let json = serde_json::to_vec(&answer).unwrap();
        assert!(std::str::from_utf8(&json).unwrap().contains("{\"id\":\"1\",\"n\":1.10}"));
        assert_eq!(Answer::<Shown>::parse(&json).unwrap(), answer);
        let error = Answer::<Version>::parse(&json).unwrap_err().to_string();
        assert_eq!(error, "schema `citybrain.event/1` where `citybrain.version/1` was expected");
    }
}
