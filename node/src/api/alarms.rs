//! Alarms of the node and of all below it: listed, acknowledged, cleared, shelved.
//!
//! A change is decided on the state of its own commit; where the alarm's node is further down, what
//! is committed here is the word to it, and the answer says so in `asked`.

use super::commit::{self, Late};
use super::guard::{Caller, Name};
use super::input::{Path, Sent, limited, parse, query};
use super::once::{Made, Repeat};
use super::supervision::awaited;
use super::{Ctx, Refusal, etag, nodes, now, several, with_next};
use crate::brain::Brain;
use crate::brain::cases;
use crate::brain::rules::{AskError, Wish};
use axum::extract::State as From;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use citybrain_shared::case::Case;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::prefix::Named;
use citybrain_shared::view::{self, Alarm};
use citybrain_shared::{Address, Lane};
use serde::Deserialize;
use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::sync::Arc;

const ALARMS_DEFAULT: usize = 200;
const ALARMS_MAX: usize = 5000;
/// Cases that are named beside one alarm: it may have been raised, and opened one, a thousand times.
const CASES_SHOWN: usize = 5;
/// Alarms that are named where one is meant that is none.
const NEAR_SHOWN: usize = 3;
/// Nodes below that are named when they are not heard.
const UNHEARD_SHOWN: usize = 20;

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// This severity and worse.
    severity: Option<Severity>,
    /// `false`: also those that are over; default: only active ones.
    active: Option<bool>,
    acknowledged: Option<bool>,
    /// Only of this node and below.
    address: Option<Address>,
    name: Option<String>,
    /// Also those that are on the shelf.
    shelved: bool,
    /// At most so many, 1 to 5000; default 200.
    limit: Option<NonZeroUsize>,
    /// Only those behind this place in the order of the list: `next` of the page before.
    after: Option<String>,
}

/// An alarm's place in a list: worst first, then newest first. It is the same place when the alarm
/// that was there has gone or changed.
type Place<'a> = (Severity, Reverse<i64>, &'a str);

fn place(alarm: &Alarm) -> Place<'_> {
    (alarm.severity, Reverse(alarm.raised_at.timestamp_micros()), &alarm.id)
}

/// A place as text, `major.1764323423000000.7f3a…`, and back.
fn written((severity, Reverse(us), id): Place<'_>) -> String {
    format!("{}.{us}.{id}", severity.as_str())
}

fn read(text: &str) -> Result<Place<'_>, Refusal> {
    let mut words = text.splitn(3, '.');
    let place = (|| Some((Severity::parse(words.next()?)?, Reverse(words.next()?.parse().ok()?), words.next()?)))();
    place.ok_or_else(|| {
        Refusal::bad(
            "bad-query",
            format!("`{text}` is no place in the list"),
            "give `?after=NEXT`, with the `next` of the page before",
        )
    })
}

pub async fn list(From(ctx): From<Arc<Ctx>>, uri: Uri, headers: HeaderMap) -> Result<Response, Refusal> {
    let wanted: Wanted = query(&uri)?;
    let at = now();
    let behind = wanted.after.as_deref().map(read).transpose()?;
    let limit = limited(wanted.limit, ALARMS_DEFAULT, ALARMS_MAX)?;
    let links = (ctx.links)();
    let body = ctx.hub.state(|state| {
        let Some(brain) = Brain::of(state) else {
            let (alarms, cases) = (Vec::new(), Vec::new());
            let (unheard, unheard_more) = (Vec::new(), 0);
            let awaits = None;
            return view::Alarms {
                active: 0,
                unacknowledged: 0,
                shelved: 0,
                alarms,
                unheard,
                unheard_more,
                awaits,
                cases,
                next: None,
            };
        };
        // Alarms of nodes that are asked about only.
        let asked = |a: &&Address| wanted.address.as_ref().is_none_or(|w| w.covers(a));
        let mut silent = super::status::unheard(state, &ctx.config, &links).filter(asked).cloned();
        let unheard: Vec<Address> = silent.by_ref().take(UNHEARD_SHOWN).collect();
        let asked_whole = |l: &&view::Link| wanted.address.as_ref().is_none_or(|w| w.covers(&l.peer));
        let untold: u64 = links.iter().filter(asked_whole).map(|l| l.unheard_more).sum();
        let unheard_more = silent.count() as u64 + untold;
        let table = &brain.rules.alarms;
        let fits = |a: &&Alarm| {
            (!wanted.active.unwrap_or(true) || a.active)
                && wanted.severity.is_none_or(|s| a.severity <= s)
                && wanted.acknowledged.is_none_or(|acked| a.acknowledged == acked)
                && wanted.address.as_ref().is_none_or(|w| w.covers(&a.origin))
                && wanted.name.as_deref().is_none_or(|n| a.name == n)
                && behind.is_none_or(|behind| place(a) > behind)
                && (wanted.shelved || a.shelved_until.is_none_or(|until| until <= at))
        };
        let mut alarms: Vec<&Alarm> = table.iter().filter(fits).collect();
        alarms.sort_by(|a, b| place(a).cmp(&place(b)));
        let is_last = alarms.len() <= limit;
        alarms.truncate(limit);
        let active = || table.iter().filter(|a| a.active);
        view::Alarms {
            unheard,
            unheard_more,
            awaits: brain.cases.awaited(),
            active: active().count() as u64,
            unacknowledged: active().filter(|a| !a.acknowledged).count() as u64,
            shelved: active().filter(|a| a.shelved_until.is_some_and(|until| until > at)).count() as u64,
            next: alarms.last().filter(|_| !is_last).map(|a| written(place(a))),
            // No more than alarms: a page that is too long for a link is made shorter by its longest list.
            cases: alarms.iter().flat_map(|a| beside(brain, &a.id, 1)).collect(),
            alarms: alarms.into_iter().cloned().collect(),
        }
    });
    if let Some(address) = wanted.address.as_ref().filter(|_| body.alarms.is_empty()) {
        nodes::is_heard_of(&ctx, address).await?;
    }
    let next = body.next.clone();
    Ok(with_next(etag::answer(&ctx, &headers, body), &uri, next))
}

pub async fn show(From(ctx): From<Arc<Ctx>>, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Refusal> {
    Ok(etag::answer(&ctx, &headers, shown(&ctx, known(&ctx, &id)?)))
}

fn shown(ctx: &Ctx, alarm: Alarm) -> view::AlarmShown {
    // A folder alone does not say which rules are in force.
    let is_left = |brain: &Brain| ctx.offline.is_none() && brain.rules.is_left(&alarm);
    let of = |brain: &Brain| (beside(brain, &alarm.id, CASES_SHOWN), is_left(brain));
    let (cases, left) = ctx.hub.state(|state| Brain::of(state).map(of)).unwrap_or_default();
    view::AlarmShown { left, cases, alarm, awaits: awaited(ctx) }
}

/// The newest cases that were opened beside it.
fn beside(brain: &Brain, alarm: &str, most: usize) -> Vec<view::AlarmCase> {
    let told = |case: &Case| view::AlarmCase {
        alarm: alarm.to_owned(),
        id: case.id.clone(),
        status: case.status,
        owner: case.owner.clone(),
        opened: case.opened,
    };
    brain.cases.beside(alarm).take(most).map(told).collect()
}

/// Acknowledges or shelves it.
pub async fn change(
    From(ctx): From<Arc<Ctx>>,
    caller: Caller,
    token: Name,
    repeat: Repeat,
    Path((id, action)): Path<(String, String)>,
    Sent(body): Sent,
) -> Result<Response, Refusal> {
    let wanted = asked_for(&body, &caller, &token)?;
    let shelf_us = i64::try_from(wanted.for_s.unwrap_or(3600).min(400 * 86_400)).unwrap_or(0) * 1_000_000;
    match action.as_str() {
        "ack" => make(&ctx, repeat, &id, wanted.by, |_| Wish::Acknowledge).await,
        "shelve" => {
            make(&ctx, repeat, &id, wanted.by, move |now_us| Wish::Shelve { until_us: now_us + shelf_us }).await
        }
        _ => Err(Refusal::not_found("an alarm takes ack, clear and shelve", "POST /v1/alarms/ID/ack")),
    }
}

/// Ends it, whatever its rule says.
pub async fn clear(
    From(ctx): From<Arc<Ctx>>,
    caller: Caller,
    token: Name,
    repeat: Repeat,
    Path(id): Path<String>,
    Sent(body): Sent,
) -> Result<Response, Refusal> {
    let wanted = asked_for(&body, &caller, &token)?;
    make(&ctx, repeat, &id, wanted.by, |_| Wish::Clear).await
}

/// What is asked for, and in whose name.
fn asked_for(body: &Bytes, caller: &Caller, token: &Name) -> Result<view::AlarmAction, Refusal> {
    let wanted: view::AlarmAction = parse(body, "{\"by\":\"Li\"}")?;
    if wanted.by.len() > 200 {
        return Err(Refusal::bad("bad-request", "`by` is longer than 200 bytes", "a name is enough"));
    }
    let said = caller.acts_as(wanted.by)?;
    // Nothing is done in nobody's name: a token has one, if nobody says another.
    let by = [said.trim(), token.as_str()].into_iter().find(|by| !by.is_empty()).map(str::to_owned);
    let by = by.ok_or_else(|| Refusal::bad("missing", "`by` is missing: who does it", r#"`"by":"NAME"`"#))?;
    Ok(view::AlarmAction { by, ..wanted })
}

async fn make(
    ctx: &Ctx,
    repeat: Repeat,
    id: &str,
    by: String,
    wish: impl FnOnce(i64) -> Wish + Send + 'static,
) -> Result<Response, Refusal> {
    if let Some(made) = repeat.made(ctx)? {
        return Ok(changed(ctx, known(ctx, &made.about)?));
    }
    // What it names now: another may begin so later.
    let alarm = known(ctx, id)?;
    let (id, lane) = (alarm.id, if alarm.severity.is_urgent() { Lane::Urgent } else { Lane::Routine });
    let (word, asked) = (repeat.clone(), id.clone());
    let hint = format!("`citybrain alarm show {id}` shows whether it did");
    let late = Late { what: "it", hint: &hint };
    let made = commit::decided(ctx, lane, &repeat, late, move |brain, now_us| {
        match brain.rules.ask(&asked, wish(now_us), &by, now_us) {
            Ok((alarm, mut drafts)) => {
                drafts.extend(word.mark(&Made::known(alarm.id.clone())));
                (Ok(alarm), drafts)
            }
            Err(e) => (Err(not_made(&asked, &e, brain.cases.awaited())), Vec::new()),
        }
    });
    Ok(changed(ctx, made.await?))
}

fn not_made(id: &str, error: &AskError, awaits: Option<view::Awaited>) -> Refusal {
    match error {
        AskError::Unknown(_) => unknown(id, awaits, &[]),
        AskError::Nothing { .. } => {
            let hint = format!("`citybrain alarm show {id}` shows it");
            Refusal::new(StatusCode::CONFLICT, "nothing-to-do", error.to_string(), hint)
        }
    }
}

/// 202: its owner was asked.
fn changed(ctx: &Ctx, alarm: Alarm) -> Response {
    let status = if alarm.asked.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    ctx.answer_with(status, shown(ctx, alarm))
}

/// By the beginning of its id, or as the list calls it.
pub(super) fn known(ctx: &Ctx, id: &str) -> Result<Alarm, Refusal> {
    let found = ctx.hub.state(|state| {
        Ok(match Brain::of(state).map(|b| b.rules.alarms.named(id)) {
            Some(Named::One(alarm)) => Some(alarm.clone()),
            Some(Named::Several(a, b)) if a.id.starts_with(id) => return Err(several(id, &a.id, &b.id)),
            Some(Named::Several(a, b)) => return Err(of_several_nodes(id, a, b)),
            Some(Named::Nothing) | None => None,
        })
    })?;
    found.ok_or_else(|| unknown(id, awaited(ctx), &near(ctx, id)))
}

/// Some alarms whose names begin with these words, as one types them.
fn near(ctx: &Ctx, text: &str) -> Vec<String> {
    let shown = |a: &Alarm| format!("'{}' of {} ({})", a.named(), a.origin, a.id);
    let of = |brain: &Brain| brain.rules.alarms.beginning(text).take(NEAR_SHOWN).map(shown).collect();
    ctx.hub.state(|state| Brain::of(state).map(of)).unwrap_or_default()
}

fn of_several_nodes(text: &str, a: &Alarm, b: &Alarm) -> Refusal {
    let detail = format!("`{text}` fits more than one, such as {} of {} and {} of {}", a.id, a.origin, b.id, b.origin);
    Refusal::new(StatusCode::NOT_FOUND, "ambiguous", detail, "name it by its id")
}

/// `awaits`: whose word on alarms of this node is not here yet. `near`: those that may have been meant.
fn unknown(id: &str, awaits: Option<view::Awaited>, near: &[String]) -> Refusal {
    let detail = format!("no alarm `{id}` is known here");
    if let Some(awaits) = awaits {
        let detail = format!("{detail}, as far as is known: {}", awaits.whole("alarms"));
        return cases::Refusal::new("not-yet", detail, awaits.hint()).into();
    }
    if !near.is_empty() {
        return Refusal::not_found(detail, format!("those whose names begin so: {}", near.join(", ")));
    }
    Refusal::not_found(
        detail,
        "`citybrain alarm list --all --shelved` shows all that are; one that stays at a node below is changed there: \
         ask that node itself, `citybrain … --node URL`",
    )
}

pub async fn rules(From(ctx): From<Arc<Ctx>>) -> Result<Response, Refusal> {
    let hint = "`citybrain check FILE` reads the rules of a file; `citybrain rule list` asks a node that runs";
    super::ops::runs(&ctx, "a node's folder does not hold its config, and so none of its rules", hint)?;
    let none = view::Rules { rules: Vec::new(), calendar: None, waiting: 0, dropped: 0 };
    let mut all = ctx.hub.state(|state| Brain::of(state).map(|b| b.rules.view_of_none())).unwrap_or(none);
    // One by one: each may have ten thousand keys to count, and commits wait for whoever reads.
    while let Some(rule) = ctx.hub.state(|state| Brain::of(state)?.rules.view_of(all.rules.len())) {
        all.rules.push(rule);
        tokio::task::yield_now().await;
    }
    Ok(ctx.answer(all))
}
