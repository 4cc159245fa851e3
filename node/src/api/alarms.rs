//! Alarms of the node and of all below it: listed, acknowledged, cleared, shelved.
//!
//! A change is decided on the state of its own commit; where the alarm's node is further down, what
//! is committed here is the word to it, and the answer says so in `asked`.

use super::ops::Operator;
use super::{Ctx, Refusal, now, query};
use crate::brain::Brain;
use crate::brain::rules::{AskError, Wish};
use axum::body::Bytes;
use axum::extract::{Path, State as From};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use citybrain_hub::Hub;
use citybrain_hub::engine;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::record::{Draft, Header, Kind, event_key};
use citybrain_shared::view::{self, Alarm};
use citybrain_shared::{Address, config::Config};
use parking_lot::Mutex;
use serde::Deserialize;
use std::sync::Arc;

const ALARMS_DEFAULT: usize = 200;
const ALARMS_MAX: usize = 5000;

#[derive(Debug, Default, Deserialize)]
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
    limit: Option<usize>,
}

pub async fn list(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let wanted: Wanted = query(&uri)?;
    let at = now();
    let body = ctx.hub.state(|state| {
        let Some(brain) = Brain::of(state) else {
            return view::Alarms { active: 0, unacknowledged: 0, alarms: Vec::new() };
        };
        let table = &brain.rules.alarms;
        let fits = |a: &&Alarm| {
            (!wanted.active.unwrap_or(true) || a.active)
                && wanted.severity.is_none_or(|s| a.severity <= s)
                && wanted.acknowledged.is_none_or(|acked| a.acknowledged == acked)
                && wanted.address.as_ref().is_none_or(|w| w.covers(&a.origin))
                && wanted.name.as_deref().is_none_or(|n| a.name == n)
                && (wanted.shelved || a.shelved_until.is_none_or(|until| until <= at))
        };
        let mut alarms: Vec<&Alarm> = table.iter().filter(fits).collect();
        alarms.sort_by_key(|a| (a.severity, std::cmp::Reverse(a.raised_at)));
        alarms.truncate(wanted.limit.unwrap_or(ALARMS_DEFAULT).min(ALARMS_MAX));
        let active = || table.iter().filter(|a| a.active);
        view::Alarms {
            active: active().count() as u64,
            unacknowledged: active().filter(|a| !a.acknowledged).count() as u64,
            alarms: alarms.into_iter().cloned().collect(),
        }
    });
    Ok(ctx.answer(body))
}

pub async fn show(From(ctx): From<Arc<Ctx>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let alarm = ctx.hub.state(|state| Brain::of(state).and_then(|b| b.rules.alarms.get(&id).cloned()));
    alarm.map(|alarm| ctx.answer(view::AlarmShown { alarm })).ok_or_else(|| unknown(&id))
}

pub async fn change(
    From(ctx): From<Arc<Ctx>>,
    Path((id, action)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let wanted: view::AlarmAction = match body.is_empty() {
        true => view::AlarmAction::default(),
        false => serde_json::from_slice(&body).map_err(|e| {
            Refusal::bad("bad-request", format!("the body does not read: {e}"), "such as {\"by\":\"Li\"}")
        })?,
    };
    if wanted.by.len() > 200 {
        return Err(Refusal::bad("bad-request", "`by` is longer than 200 bytes", "a name is enough"));
    }
    let by = if wanted.by.is_empty() { "api".to_owned() } else { wanted.by };
    let for_s = wanted.for_s;
    let wish = move |now_us: i64| match action.as_str() {
        "ack" => Some(Wish::Acknowledge),
        "clear" => Some(Wish::Clear),
        "shelve" => {
            let us = i64::try_from(for_s.unwrap_or(3600).min(400 * 86_400)).unwrap_or(0) * 1_000_000;
            Some(Wish::Shelve { until_us: now_us + us })
        }
        _ => None,
    };
    if wish(0).is_none() {
        return Err(Refusal::not_found("an alarm takes ack, clear and shelve", "POST /v1/alarms/ID/ack"));
    }
    let told: Arc<Mutex<Option<Result<Alarm, AskError>>>> = Arc::default();
    let (tell, asked) = (told.clone(), id.clone());
    let ticket = ctx
        .hub
        .decide(Box::new(move |state, now_us| {
            let (Some(brain), Some(wish)) = (Brain::of(state), wish(now_us)) else { return Vec::new() };
            let (answer, drafts) = match brain.rules.ask(&asked, wish, &by, now_us) {
                Ok((alarm, drafts)) => (Ok(alarm), drafts),
                Err(e) => (Err(e), Vec::new()),
            };
            *tell.lock() = Some(answer);
            drafts
        }))
        .await?;
    engine::wait(ticket).await?;
    let answer = told.lock().take();
    match answer {
        Some(Ok(alarm)) => {
            let status = if alarm.asked.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
            Ok(ctx.answer_with(status, view::AlarmShown { alarm }))
        }
        Some(Err(AskError::Unknown(_))) | None => Err(unknown(&id)),
        Some(Err(e @ AskError::Nothing { .. })) => {
            let hint = format!("`citybrain alarm show {id}` shows it");
            Err(Refusal::new(StatusCode::CONFLICT, "nothing-to-do", e.to_string(), hint))
        }
    }
}

pub(super) fn unknown(id: &str) -> Refusal {
    Refusal::not_found(format!("no alarm `{id}` is known here"), "`citybrain alarm list --all` shows all that are")
}

pub async fn rules(From(ctx): From<Arc<Ctx>>) -> Response {
    let none = view::Rules { rules: Vec::new(), waiting: 0, dropped: 0 };
    ctx.answer(ctx.hub.state(|state| Brain::of(state).map(|b| b.rules.view())).unwrap_or(none))
}

pub async fn reload(From(ctx): From<Arc<Ctx>>, who: Operator) -> Result<Response, Refusal> {
    let reloaded = reload_rules(&ctx.hub, &ctx.config).await.map_err(|why| {
        let hint = "the running rules stay; `citybrain check FILE` draws what is wrong";
        Refusal::new(StatusCode::CONFLICT, "not-reloaded", why, hint)
    })?;
    let detail = format!("{} rules in force; new: {:?}, gone: {:?}", reloaded.rules, reloaded.added, reloaded.removed);
    super::ops::operator(&ctx, &who, "reload", &detail).await?;
    Ok(ctx.answer(reloaded))
}

/// Type of the record that says which rules are in force from here on.
const LOADED: &str = "city.brain.rule.loaded";

/// Reads the config file again and puts its rules in force; all else in it waits for a start.
///
/// # Errors
/// A sentence; the running rules then stay.
pub async fn reload_rules(hub: &Hub, running: &Config) -> Result<view::Reloaded, String> {
    let from = running.read_from.as_ref().ok_or("this node was not started from a file")?;
    let fresh = crate::config::load(&from.path, &from.variables).map_err(|e| e.to_string())?;
    if fresh.node.address != running.node.address {
        return Err(format!("{} is the file of {} now", from.path.display(), fresh.node.address));
    }
    let names = |c: &Config| c.rule.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    let before: Vec<String> = hub
        .state(|s| Brain::of(s).map(|b| b.rules.view().rules.into_iter().map(|r| r.name).collect()))
        .ok_or("this node has no rules")?;
    let after = names(&fresh);
    let slot = hub.state(|s| Brain::of(s).map(|b| b.rules.slot())).ok_or("this node has no rules")?;
    slot.put(Config { rule: fresh.rule, ..running.clone() });
    // A record is what makes the fold take them over, at a place in the log that can be seen.
    let me = running.node.address.to_string();
    let data = after.clone();
    let decide: engine::Decide = Box::new(move |_, now_us| {
        let (source, id) = (format!("/{me}"), format!("loaded-{now_us:x}"));
        let event = serde_json::json!({
            "specversion": "1.0", "id": id, "source": source, "type": LOADED,
            "time": view::rfc3339(view::time_of(now_us)), "data": {"rules": data},
        });
        let header = Header { key: event_key(&source, &id), ..Header::local(Kind::Event, LOADED) };
        Draft::new(&header, event.to_string().as_bytes()).into_iter().collect()
    });
    let ticket = hub.decide(decide).await.map_err(|e| e.to_string())?;
    engine::wait(ticket).await.map_err(|e| e.to_string())?;
    Ok(view::Reloaded {
        rules: after.len() as u64,
        added: after.iter().filter(|n| !before.contains(n)).cloned().collect(),
        removed: before.into_iter().filter(|n| !after.contains(n)).collect(),
    })
}
