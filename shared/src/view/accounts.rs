//! Cases that another system ran, or runs: what it says of them, and what a node makes of that.

use crate::Address;
use crate::case::{ClosedReason, Place, Satisfied, Solved, Status};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

views! {
    CasesImported = "citybrain.cases-imported/1",
    CasesBrought = "citybrain.cases-brought/1",
}

/// What another system says of one of its cases, as it stood at `updated`. Its times are its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CaseAccount {
    /// Names that system, as events' `source` do: `/us/los-angeles/myla311`. 1 to 200 characters.
    pub source: String,
    /// Its own number of the case. 1 to 200 characters.
    pub id: String,
    /// A code; if the node's config knows it, what is left empty here is as there.
    pub category: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub department: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub channel: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ClosedReason>,
    pub opened: DateTime<Utc>,
    /// By when it had to be solved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// When that system last changed it: of two accounts of a case the later one counts.
    pub updated: DateTime<Utc>,
    /// Of one that is over, and of no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<DateTime<Utc>>,
    /// What the resident said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solved: Option<Solved>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub satisfied: Option<Satisfied>,
}

/// Body of `POST /v1/cases/import`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CaseImport {
    pub cases: Vec<CaseAccount>,
}

/// What became of each account, in numbers; those that were not taken, one by one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CasesImported {
    /// New cases.
    pub opened: u64,
    /// Cases that now stand as the account says.
    pub changed: u64,
    /// As new as what is known, or older: nothing was to do. Also what a node took in an earlier
    /// attempt, and had no time to say so.
    pub known: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<AccountRefused>,
}

/// What came of a file of cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CasesBrought {
    pub file: String,
    pub rows: u64,
    /// Rows that are cases of the nodes asked.
    pub cases: u64,
    /// A case is told of as often as something happened to it.
    pub accounts: u64,
    pub opened: u64,
    pub changed: u64,
    pub known: u64,
    /// Accounts that a node refused: how many, and the first of them.
    pub refused: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_refused: Vec<AccountRefused>,
    /// Cases that were closed, or changed, before they were opened, as the file says: told as of then.
    #[serde(default)]
    pub too_early: u64,
    /// Rows that are none, by reason, and the first of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_skipped: Vec<SkippedRow>,
    /// Cases by the node that they were brought to.
    pub nodes: BTreeMap<Address, u64>,
    pub wall_s: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkippedRow {
    pub line: u64,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AccountRefused {
    pub id: String,
    /// Stable, for programs.
    pub error: String,
    pub detail: String,
}
