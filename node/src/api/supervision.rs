//! What whoever supervises asks: rates, counts, and what needs a look.

use super::guard::Caller;
use super::{Ctx, Refusal, query};
use crate::brain::Brain;
use crate::brain::cases::Cases;
use crate::brain::cases::rates::Question;
use crate::brain::cases::supervision::{District, Scope};
use axum::extract::State as From;
use axum::http::Uri;
use axum::response::Response;
use chrono::TimeDelta;
use citybrain_shared::Address;
use citybrain_shared::case::Case;
use citybrain_shared::view::{self, GroupBy, RatePeriod};
use serde::Deserialize;
use std::sync::Arc;

const ROWS_MAX: usize = 10_000;
/// The label that says which district (区) a node is of.
const DISTRICT: &str = "district";
const LIST_DEFAULT: usize = 20;
const LIST_MAX: usize = 200;
/// Reports of one place, or of one person, that are worth a look.
const AGAIN_DEFAULT: u64 = 3;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rated {
    by: GroupBy,
    period: RatePeriod,
    of: Option<String>,
    under: Option<Address>,
    category: Option<String>,
}

impl Default for Rated {
    fn default() -> Self {
        Rated { by: GroupBy::Node, period: RatePeriod::All, of: None, under: None, category: None }
    }
}

pub async fn rates(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let Rated { by, period, of, under, category } = query(&uri)?;
    let now = ctx.as_of();
    let question = Question { by, period, of, under, category };
    let (mut rows, total, s) = look(&ctx, |cases, district| {
        let (rows, total) = cases.rates(&question, district, now);
        (rows, total, cases.settings.clone())
    })?;
    let rank = |r: &view::RateRow| std::cmp::Reverse(r.score.map(|s| (s * 100.0).round() as i64));
    rows.sort_by(|a, b| (&a.period, rank(a), &a.key).cmp(&(&b.period, rank(b), &b.key)));
    rows.truncate(ROWS_MAX);
    let weights = view::RateWeights {
        response: s.weight_response,
        solution: s.weight_solution,
        satisfaction: s.weight_satisfaction,
        partly_solved: s.partly_solved,
        mostly_is_satisfied: s.mostly_is_satisfied,
    };
    Ok(ctx.answer(view::Rates { by, period, rows, total, weights, at: now }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counted {
    by: GroupBy,
    under: Option<Address>,
    category: Option<String>,
    /// Opened in the last so many days.
    days: Option<u32>,
}

impl Default for Counted {
    fn default() -> Self {
        Counted { by: GroupBy::Status, under: None, category: None, days: None }
    }
}

/// `GET /v1/case-stats`: how many there are of each, and how long they took.
pub async fn stats(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let Counted { by, under, category, days } = query(&uri)?;
    let now = ctx.as_of();
    let scope = Scope { under, category, since: since(&ctx, days) };
    let (mut rows, total) = look(&ctx, |cases, district| cases.stats(by, &scope, district, now))?;
    rows.sort_by(|a, b| b.cases.cmp(&a.cases).then_with(|| a.key.cmp(&b.key)));
    rows.truncate(ROWS_MAX);
    Ok(ctx.answer(view::CaseStats { by, rows, total, at: now }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watched {
    under: Option<Address>,
    category: Option<String>,
    days: Option<u32>,
    /// Entries of each list.
    limit: Option<usize>,
    /// Reports of one place, or of one person, from which on it is told.
    again: Option<u64>,
}

/// `GET /v1/supervision`: overdue, reopened, hot spots, repeat callers.
pub async fn supervision(From(ctx): From<Arc<Ctx>>, caller: Caller, uri: Uri) -> Result<Response, Refusal> {
    let Watched { under, category, days, limit, again } = query(&uri)?;
    let now = ctx.as_of();
    let scope = Scope { under, category, since: since(&ctx, days) };
    let limit = limit.unwrap_or(LIST_DEFAULT).clamp(1, LIST_MAX);
    let again = again.unwrap_or(AGAIN_DEFAULT).max(2);
    let few = |all: Vec<&Case>| all.into_iter().take(limit).cloned().collect();
    let shown = caller.sees_persons();
    let answer = look(&ctx, |cases, _| {
        let (overdue, reopened) = (cases.overdue(&scope, now), cases.reopened(&scope));
        let (mut hot_spots, mut repeat_callers) =
            (cases.hot_spots(&scope, again), cases.repeat_callers(&scope, again, shown));
        hot_spots.truncate(limit);
        repeat_callers.truncate(limit);
        let (overdue_in_all, reopened_in_all) = (overdue.len() as u64, reopened.len() as u64);
        let (overdue, reopened) = (few(overdue), few(reopened));
        view::Supervision { overdue, overdue_in_all, reopened, reopened_in_all, hot_spots, repeat_callers, at: now }
    })?;
    Ok(ctx.answer(answer))
}

fn since(ctx: &Ctx, days: Option<u32>) -> Option<chrono::DateTime<chrono::Utc>> {
    Some(ctx.as_of() - TimeDelta::days(days?.into()))
}

/// Looks at the cases, with what is known of the nodes' districts.
fn look<T>(ctx: &Ctx, look: impl FnOnce(&Cases, District<'_>) -> T) -> Result<T, Refusal> {
    let own = &ctx.config.node;
    ctx.hub
        .state(|state| {
            let district = |of: &Address| {
                let mut at = Some(of.clone());
                while let Some(node) = at {
                    let labels = match state.registry.get(&node) {
                        _ if node == own.address => Some(&own.labels),
                        known => known.map(|k| &k.labels),
                    };
                    if let Some(district) = labels.and_then(|l| l.get(DISTRICT)) {
                        return Some(district.clone());
                    }
                    at = node.parent();
                }
                None
            };
            Brain::of(state).map(|brain| look(&brain.cases, &district))
        })
        .ok_or_else(super::cases::no_brain)
}
