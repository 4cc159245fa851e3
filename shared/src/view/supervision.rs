//! Counts of cases, and what whoever supervises looks at.

use super::{Awaited, Away, CasesGone};
use crate::Address;
use crate::case::{Case, Coming, Contact, Denial};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

views! {
    CaseStats = "citybrain.case-stats/1",
    Supervision = "citybrain.supervision/1",
}

/// What rows are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// Who owns the case.
    Node,
    /// The node directly below the one that is asked, with all below that.
    Child,
    /// The label `district` of the owner, or of the nearest node above it that has one.
    District,
    Category,
    Department,
    /// Who was sent last.
    Unit,
    Governance,
    Channel,
    Kind,
    Status,
    All,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CaseStats {
    pub by: GroupBy,
    /// Most cases first.
    pub rows: Vec<StatsRow>,
    pub total: StatsRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<CasesGone>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<Away>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
    pub at: DateTime<Utc>,
}

/// Counts add up over the rows; times do not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatsRow {
    pub key: String,
    pub cases: u64,
    pub open: u64,
    pub closed: u64,
    pub rejected: u64,
    pub withdrawn: u64,
    /// Open, and over a limit.
    pub overdue: u64,
    /// With a limit for the solution; of them, those solved in time, and those solved too late.
    pub with_limit: u64,
    pub in_time: u64,
    pub late: u64,
    pub returned: u64,
    pub reopened: u64,
    /// From opening to closing, of those closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Took>,
}

/// Seconds; each percentile is a time that some case took (nearest rank).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Took {
    pub p50_s: i64,
    pub p90_s: i64,
    pub p99_s: i64,
    pub max_s: i64,
    pub sum_s: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Supervision {
    /// Open and over a limit, the longest first.
    pub overdue: Vec<Case>,
    pub overdue_in_all: u64,
    /// Their clocks stand still, but those that had run out before; the longest first.
    #[serde(default)]
    pub suspended: Vec<Case>,
    #[serde(default)]
    pub suspended_in_all: u64,
    /// Closed, and open again or closed again, the latest first.
    pub reopened: Vec<Case>,
    pub reopened_in_all: u64,
    /// Most cases first.
    pub hot_spots: Vec<HotSpot>,
    #[serde(default)]
    pub hot_spots_in_all: u64,
    /// Only of those whose number the node itself keeps; most cases first.
    pub repeat_callers: Vec<Caller>,
    #[serde(default)]
    pub repeat_callers_in_all: u64,
    /// Who comes to a press in these lists whose owner has not answered yet, by case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub coming: BTreeMap<String, Vec<Coming>>,
    /// That whoever has accepted a press in these lists does not come, whose owner has not answered that yet, by case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_coming: BTreeMap<String, Denial>,
    /// That a press in these lists is not over, whose owner has not opened it again yet, by case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_over: BTreeMap<String, Denial>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<CasesGone>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<Away>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
    pub at: DateTime<Utc>,
}

/// One category, reported again and again within a few hundred metres, or at one place by its words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HotSpot {
    pub category: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// The lowest node at which, or below which, all of it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lat: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lon: Option<f64>,
    pub cases: u64,
    pub open: u64,
    pub newest: DateTime<Utc>,
    /// The newest ten.
    pub ids: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "RepeatCaller"))]
pub struct Caller {
    /// Only for workers, supervisors and operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    pub cases: u64,
    pub open: u64,
    pub newest: DateTime<Utc>,
    /// The newest ten.
    pub ids: Vec<String>,
}
