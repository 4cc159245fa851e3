//! What whoever supervises asks: rates, counts, and what needs a look.

use super::cases::SLICE;
use super::guard::Caller;
use super::input::{limited, query};
use super::{Ctx, Refusal};
use crate::brain::Brain;
use crate::brain::cases::counts::{self, District, OfCategory, Scope};
use crate::brain::cases::rates;
use crate::brain::cases::supervision::{Question, Watching};
use crate::brain::cases::{Cases, Held};
use axum::extract::State as From;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use citybrain_shared::Address;
use citybrain_shared::selector::{DISTRICT, Labels, POPULATION};
use citybrain_shared::view::{self, Away, GroupBy, LinkRole, RatePeriod};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::iter::successors;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

/// Rows of one answer, some megabytes. What is cut off would be missing in silence.
const ROWS_MAX: usize = 10_000;
const LIST_DEFAULT: usize = 20;
const LIST_MAX: usize = 200;
/// Reports of one place, or of one person, that are worth a look.
const AGAIN_DEFAULT: u64 = 3;

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Rated {
    by: GroupBy,
    period: RatePeriod,
    of: Option<String>,
    under: Option<Address>,
    category: Option<String>,
    /// With the period before and a year before.
    compare: bool,
}

impl Default for Rated {
    fn default() -> Self {
        let (under, category) = (None, None);
        Rated { by: GroupBy::Node, period: RatePeriod::All, of: None, under, category, compare: false }
    }
}

pub async fn rated(From(ctx): From<Arc<Ctx>>, caller: Caller, uri: Uri) -> Result<Response, Refusal> {
    let Rated { by, mut period, of, under, category, compare } = query(&uri)?;
    let category = are_known(&ctx, &caller, under.as_ref(), category).await?;
    if let Some(of) = &of {
        let Some(named) = rates::span_of(of) else {
            let hint = "such as `2026-11-23`, `2026-11` or `2026`";
            return Err(Refusal::bad("bad-query", format!("`{of}` is no day, month or year"), hint));
        };
        if period == RatePeriod::All {
            period = named;
        }
        if period > named {
            let detail = format!("`{of}` is a part of such a period, and a row would tell of all of it");
            return Err(Refusal::bad("bad-query", detail, format!("a shorter `period`, or none: then `{of}` is one")));
        }
    }
    if compare && period == RatePeriod::All {
        let hint = "`?of=2026-11`, or `?period=month`";
        return Err(Refusal::bad("bad-query", "of all time there is no period before", hint));
    }
    let now = ctx.as_of();
    let me = &ctx.config.node.address;
    let whole = under.clone().unwrap_or_else(|| me.clone());
    let mut counting = rates::Counting::new(rates::Question { by, period, of, under, category, compare });
    sweep(&ctx, |cases, held, district| counting.add(cases, &held.case, district, now)).await?;
    let (s, gone) = look(&ctx, |cases, _| (cases.settings.clone(), cases.gone()))?;
    let people = people(&ctx);
    let of = |key: &str| match by {
        _ if key == "all" => people.get(&whole).copied(),
        // A row of the node itself, and each by its owner, is of a part of those who live there.
        GroupBy::Child => {
            let child = Address::parse(key).ok().filter(|child| child != me);
            child.and_then(|child| people.get(if child.covers(&whole) { &whole } else { &child }).copied())
        }
        _ => None,
    };
    // A child from which nobody has come is the best of its period, and not none.
    let children = if by == GroupBy::Child && whole == *me { children_of(me, &people) } else { Vec::new() };
    let (mut rows, total) = counting.done(&s, &children, &of);
    few_enough(rows.len())?;
    // Without a verdict of any resident the response alone is the score: it stands below those that have one.
    let is_judged = |r: &view::RateRow| r.now.solution.is_some() && r.now.satisfaction.is_some();
    let rank = |r: &view::RateRow| std::cmp::Reverse((is_judged(r), r.now.score.map(|s| (s * 100.0).round() as i64)));
    rows.sort_by(|a, b| (&a.now.period, rank(a), &a.key).cmp(&(&b.now.period, rank(b), &b.key)));
    let weights = view::RateWeights::of(&s);
    let away = away(&ctx, Some(&whole));
    let awaits = awaited(&ctx);
    Ok(ctx.answer(view::Rates { by, period, rows, total, weights, gone, away, awaits, at: now }))
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Counted {
    by: GroupBy,
    under: Option<Address>,
    category: Option<String>,
    /// Opened in the last so many days, 1 or more.
    days: Option<NonZeroU32>,
}

impl Default for Counted {
    fn default() -> Self {
        Counted { by: GroupBy::Status, under: None, category: None, days: None }
    }
}

/// `GET /v1/case-stats`: how many there are of each, and how long they took.
pub async fn counted(From(ctx): From<Arc<Ctx>>, caller: Caller, uri: Uri) -> Result<Response, Refusal> {
    let Counted { by, under, category, days } = query(&uri)?;
    let category = are_known(&ctx, &caller, under.as_ref(), category).await?;
    let now = ctx.as_of();
    let away = away(&ctx, under.as_ref());
    let scope = Scope { under, category, since: since(&ctx, days) };
    let mut counting = counts::Counting::new(by, scope);
    sweep(&ctx, |cases, held, district| counting.add(cases, &held.as_known(), district, now)).await?;
    let (mut rows, total) = counting.done();
    few_enough(rows.len())?;
    rows.sort_by(|a, b| b.cases.cmp(&a.cases).then_with(|| a.key.cmp(&b.key)));
    let gone = look(&ctx, |cases, _| cases.gone())?;
    let awaits = awaited(&ctx);
    Ok(ctx.answer(view::CaseStats { by, rows, total, gone, away, awaits, at: now }))
}

/// The category that is meant.
///
/// # Errors
/// Nobody here knows such a category, or such a node below: an answer of nothing would be taken for one.
async fn are_known(
    ctx: &Ctx,
    caller: &Caller,
    under: Option<&Address>,
    category: Option<String>,
) -> Result<Option<OfCategory>, Refusal> {
    if let Some(category) = &category {
        super::cases::is_heard_of(ctx, caller, category).await?;
    }
    if let Some(under) = under {
        super::nodes::is_below(ctx, under).await?;
    }
    category.map(|word| super::cases::of_category(ctx, word)).transpose()
}

/// # Errors
/// The parts would not all be there.
fn few_enough(rows: usize) -> Result<(), Refusal> {
    if rows <= ROWS_MAX {
        return Ok(());
    }
    let detail = format!("that makes {rows} rows, and one answer has {ROWS_MAX} at most");
    let hint = "narrow it: `?under=NODE` or `?category=…`; of rates also a longer `period`, or one row by `?of=…`";
    Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many-rows", detail, hint))
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Watched {
    under: Option<Address>,
    category: Option<String>,
    /// Opened in the last so many days, 1 or more.
    days: Option<NonZeroU32>,
    /// Entries of each list, 1 to 200; without it 20.
    limit: Option<NonZeroUsize>,
    /// Reports of one place, or of one person, from which on it is told, 2 or more; without it 3.
    again: Option<u64>,
}

/// `GET /v1/supervision`: overdue, suspended, reopened, hot spots, repeat callers.
pub async fn watched(From(ctx): From<Arc<Ctx>>, caller: Caller, uri: Uri) -> Result<Response, Refusal> {
    let Watched { under, category, days, limit, again } = query(&uri)?;
    let again = again.unwrap_or(AGAIN_DEFAULT);
    if again < 2 {
        return Err(Refusal::bad("bad-query", format!("{again} is no report of the same again"), "`again=2` or more"));
    }
    let category = are_known(&ctx, &caller, under.as_ref(), category).await?;
    let now = ctx.as_of();
    let away = away(&ctx, under.as_ref());
    let scope = Scope { under, category, since: since(&ctx, days) };
    let question =
        Question { scope, again, limit: limited(limit, LIST_DEFAULT, LIST_MAX)?, shown: caller.sees_persons() };
    let mut watching = Watching::new(question, now);
    sweep(&ctx, |cases, held, _| watching.add(cases, held)).await?;
    // A hundred thousand places are sorted for longer than a runtime's thread may be held.
    let ranked = ctx.turns.count(move || watching.ranked()).await?;
    let told = look(&ctx, |cases, _| ranked.told(cases))?;
    Ok(ctx.answer(view::Supervision { away, ..told }))
}

/// More days than the calendar has are no bound.
fn since(ctx: &Ctx, days: Option<NonZeroU32>) -> Option<DateTime<Utc>> {
    ctx.as_of().checked_sub_signed(TimeDelta::days(days?.get().into()))
}

/// Shows every case once, some at a time: the state is free in between, and so is the runtime's thread.
/// What changes meanwhile is counted as it was or as it is, and a case once.
pub(super) async fn sweep(ctx: &Ctx, mut each: impl FnMut(&Cases, &Held, District<'_>)) -> Result<(), Refusal> {
    let _turn = ctx.turns.sweep().await?;
    let mut after: Option<String> = None;
    loop {
        let last = look(ctx, |cases, district| {
            let (mut seen, mut last) = (0, None);
            for held in cases.behind(after.as_deref()).take(SLICE) {
                (seen, last) = (seen + 1, Some(&held.case.id));
                each(cases, held, district);
            }
            last.filter(|_| seen == SLICE).cloned()
        })?;
        match last {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
        tokio::task::yield_now().await;
    }
}

/// The topmost nodes that are not heard, above or below the node that is asked about. A folder's answer says for itself
/// of when it is. To the second, so that the same answer twice is the same.
pub(super) fn away(ctx: &Ctx, under: Option<&Address>) -> Vec<Away> {
    if ctx.offline.is_some() {
        return Vec::new();
    }
    let (me, links) = (&ctx.config.node.address, (ctx.links)());
    let is_asked = |top: &Address| under.is_none_or(|under| under.covers(top) || top.covers(under));
    let now = super::now();
    ctx.hub.state(|state| {
        let mut away: BTreeMap<Address, DateTime<Utc>> = BTreeMap::new();
        for node in super::status::unheard(state, &ctx.config, &links) {
            let Some(child) = me.child_towards(node) else { continue };
            let link = links.iter().find(|l| l.role == LinkRole::Down && l.peer == child);
            // Of one farther down its parent says it.
            let said = link.filter(|l| l.state == "up").and_then(|l| l.unheard.iter().find(|u| u.node.covers(node)));
            let (top, ago) = match said {
                Some(said) => (said.node.clone(), said.last_heard_ms_ago),
                None => (child, link.and_then(|l| l.last_heard_ms_ago)),
            };
            if !is_asked(&top) {
                continue;
            }
            let by_link = ago.and_then(|ms| TimeDelta::try_milliseconds(ms as i64));
            let by_log = state.heard_us(&top).max(state.heard_us(node)).map(view::time_of);
            let heard = by_link.map(|ago| now - ago).max(by_log).unwrap_or_default();
            let last = away.entry(top).or_insert(heard);
            *last = heard.max(*last);
        }
        away.into_iter().map(|(node, last_heard)| Away { node, last_heard: last_heard.trunc_subsecs(0) }).collect()
    })
}

/// What of this node's own part is not known here yet.
pub(super) fn awaited(ctx: &Ctx) -> Option<view::Awaited> {
    ctx.hub.state(|state| Brain::of(state)?.cases.awaited())
}

/// How many live where, as this node and those below it say; where one does not, as all its children do.
fn people(ctx: &Ctx) -> HashMap<Address, u64> {
    let own = (&ctx.config.node.address, &ctx.config.node.labels);
    ctx.hub.state(|state| {
        let known = state.registry.iter().map(|(address, known)| (address, &known.labels));
        let said = |labels: &Labels| labels.get(POPULATION)?.parse().ok();
        people_of(known.chain([own]).map(|(address, labels)| (address.clone(), said(labels))).collect())
    })
}

/// The children of which it is known how many live there.
fn children_of(me: &Address, people: &HashMap<Address, u64>) -> Vec<String> {
    people.keys().filter(|node| node.is_child_of(me)).map(Address::to_string).collect()
}

fn people_of(mut said: BTreeMap<Address, Option<u64>>) -> HashMap<Address, u64> {
    // A node in between need not have told of itself.
    let between: Vec<Address> = said.keys().flat_map(|node| successors(node.parent(), Address::parent)).collect();
    for node in between {
        said.entry(node).or_default();
    }
    let mut known = HashMap::new();
    let mut of_children: HashMap<Address, Option<u64>> = HashMap::new();
    // A node sorts before those below it.
    for (node, own) in said.into_iter().rev() {
        let people: Option<u64> = own.or_else(|| of_children.get(&node).copied().flatten());
        if let Some(parent) = node.parent() {
            let sum = of_children.entry(parent).or_insert(Some(0));
            *sum = sum.zip(people).map(|(sum, n)| sum + n);
        }
        known.extend(people.map(|n| (node, n)));
    }
    known
}

/// Looks at the cases, with what is known of the nodes' districts.
fn look<T>(ctx: &Ctx, look: impl FnOnce(&Cases, District<'_>) -> T) -> Result<T, Refusal> {
    let own = &ctx.config.node;
    ctx.hub
        .state(|state| {
            let brain = Brain::of(state)?;
            let district = |of: &Address| {
                successors(Some(of.clone()), Address::parent).find_map(|node| {
                    let below = || state.registry.get(&node).and_then(|known| known.labels.get(DISTRICT));
                    let said = match node == own.address {
                        true => own.labels.get(DISTRICT),
                        false => below().or_else(|| brain.services.district_of(&node)),
                    };
                    said.cloned()
                })
            };
            Some(look(&brain.cases, &district))
        })
        .ok_or_else(super::cases::no_brain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_do_not_all_fit_are_no_answer() {
        assert!(few_enough(ROWS_MAX).is_ok());
        let refused = few_enough(18_000).unwrap_err();
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.failure.detail.contains("18000 rows"), "{}", refused.failure.detail);
    }
}
