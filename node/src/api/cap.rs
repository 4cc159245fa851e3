//! The Common Alerting Protocol 1.2: alarms out, as messages and as an Atom feed; messages in, as
//! events ([`crate::brain::warnings`]).

use super::input::{Path, Sent};
use super::intake::{offer, placed, refuse};
use super::{Ctx, Refusal, escape};
use crate::brain::Brain;
use crate::brain::cases::calendar::Calendar;
use crate::brain::warnings::Told;
use crate::cap::alarms::{Origin, Speaker, updated};
use crate::cap::{BYTES_MAX, CONTENT_TYPE, read, write};
use axum::extract::State as From;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{FixedOffset, Utc};
use citybrain_hub::note::DeadLetter;
use citybrain_hub::state::State;
use citybrain_shared::view::{self, Alarm};
use citybrain_shared::{Address, config::Config};
use std::sync::Arc;

/// Where messages of this door come from, in dead letters.
const VIA: &str = "http:cap";
/// Entries of the feed, the newest first.
const ENTRIES_MAX: usize = 1_000;

/// `GET /v1/alarms/{id}/cap`: the newest message that the alarm has come to.
pub async fn show(From(ctx): From<Arc<Ctx>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let speaker = Speaker { cap: &ctx.config.cap, offset: offset(&ctx.config) };
    let found = ctx.hub.state(|state| {
        let alarm = Brain::of(state)?.rules.alarms.get(&id)?;
        Some(speaker.message(alarm, &origin(&ctx.config, state, &alarm.origin)))
    });
    let message = found.ok_or_else(|| super::alarms::unknown(&id))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], write::write(&message)).into_response())
}

/// `GET /v1/cap.atom` (RFC 4287): active alarms of this node and of all below, by their newest message.
pub async fn atom(From(ctx): From<Arc<Ctx>>, headers: HeaderMap) -> Response {
    let mut active: Vec<Alarm> = ctx.hub.state(|state| {
        let all = Brain::of(state).map(|b| b.rules.alarms.iter().filter(|a| a.active).cloned().collect());
        all.unwrap_or_default()
    });
    active.sort_by_key(|a| (std::cmp::Reverse(updated(a)), a.id.clone()));
    active.truncate(ENTRIES_MAX);
    let scheme = if ctx.config.api.cert_file.is_some() { "https" } else { "http" };
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let base = format!("{scheme}://{}", host.unwrap_or_else(|| ctx.config.api.listen.to_string()));
    let node = &ctx.config.node;
    let name = if node.name.is_empty() { node.address.as_str() } else { &node.name };
    let newest = active.first().map_or_else(|| ctx.as_of(), updated);
    let domain = &ctx.config.cap.domain;
    let mut feed = Feed(String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\" xml:lang=\"zh-CN\">\n",
    ));
    feed.element("id", &format!("tag:{domain},2026:{}/cap", node.address));
    feed.element("title", &format!("{name}: CAP"));
    feed.element("updated", &view::rfc3339(newest));
    feed.link("self", "application/atom+xml", &format!("{base}/v1/cap.atom"));
    for alarm in &active {
        feed.0.push_str("<entry>\n");
        let at = updated(alarm);
        feed.element("id", &format!("tag:{domain},2026:{}/{}-{}", alarm.origin, alarm.id, at.timestamp_micros()));
        feed.element("title", &alarm.title);
        feed.element("updated", &view::rfc3339(at));
        feed.element("published", &view::rfc3339(alarm.raised_at));
        feed.0.push_str("<author>");
        feed.element("name", alarm.origin.as_str());
        feed.0.push_str("</author>\n");
        feed.link("alternate", CONTENT_TYPE, &format!("{base}/v1/alarms/{}/cap", alarm.id));
        feed.0.push_str("</entry>\n");
    }
    feed.0.push_str("</feed>\n");
    ([(header::CONTENT_TYPE, "application/atom+xml; charset=utf-8")], feed.0).into_response()
}

struct Feed(String);

impl Feed {
    fn element(&mut self, name: &str, text: &str) {
        self.0.push_str(&format!("<{name}>"));
        escape(text, &mut self.0);
        self.0.push_str(&format!("</{name}>\n"));
    }

    fn link(&mut self, rel: &str, kind: &str, href: &str) {
        self.0.push_str(&format!("<link rel=\"{rel}\" type=\"{kind}\" href=\""));
        // A host header is somebody's own text.
        escape(&href.replace('"', "%22"), &mut self.0);
        self.0.push_str("\"/>\n");
    }
}

/// `POST /v1/cap`: one message becomes one event, and a notice to those whom it concerns. 202 after the
/// fsync, 200 when it was known. What is refused is kept as a dead letter.
pub async fn take(From(ctx): From<Arc<Ctx>>, headers: HeaderMap, Sent(body): Sent) -> Result<Response, Refusal> {
    if body.len() > BYTES_MAX {
        return Err(too_large());
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or(CONTENT_TYPE);
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if ![CONTENT_TYPE, "application/xml", "text/xml"].contains(&kind.as_str()) {
        let detail = format!("content type `{given}` is not taken here");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", detail, CONTENT_TYPE));
    }
    let letter = |reason: &str, detail: String| DeadLetter::new(reason, detail, VIA, "", &body);
    let message = match read::read(&body) {
        Ok(message) => message,
        Err(wrong) => return Err(refuse(&ctx, letter("not-cap", wrong.to_string())).await),
    };
    let xml = String::from_utf8_lossy(&body);
    let (told, is_known) = ctx
        .hub
        .state(|state| {
            let brain = Brain::of(state)?;
            let told = brain.warnings.told(message, &xml, &known(&ctx.config, state));
            let is_known = brain.warnings.is_known(&told.root);
            Some((told, is_known))
        })
        .ok_or_else(super::cases::no_brain)?;
    let now = super::now();
    if told.expires <= now && matches!(told.msg_type.as_str(), "Alert" | "Update") {
        let detail = format!("it has expired at {}", view::rfc3339(told.expires));
        return Err(refuse(&ctx, letter("expired", detail)).await);
    }
    let drafts = ctx.hub.state(|state| Brain::of(state).map(|b| b.warnings.drafts(&told, now.timestamp_micros())));
    let drafts = match drafts.ok_or_else(super::cases::no_brain)? {
        Ok(drafts) => drafts,
        Err(e) => return Err(refuse(&ctx, letter("too-large", e)).await),
    };
    let first = offer(&ctx, drafts, &told.key).await?.first().copied();
    let Some(outcome) = first else { return Err(super::cases::no_brain()) };
    let (pos, duplicate) = placed(outcome);
    let status = if duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
    let note = remark(&told, is_known, now);
    let Told { root, key, nodes, .. } = told;
    let taken = view::CapTaken { id: key, about: root, pos, duplicate, notified: nodes, note };
    Ok(ctx.answer_with(status, taken))
}

/// What whoever sent it may not expect.
fn remark(told: &Told, is_known: bool, now: chrono::DateTime<Utc>) -> String {
    match told.msg_type.as_str() {
        "Ack" | "Error" => format!("an {} is kept, and nothing follows from it", told.msg_type),
        _ if told.status != "Actual" => {
            format!("its status is {}: it is kept, and nothing follows from it", told.status)
        }
        "Update" | "Cancel" if !is_known => "it refers to nothing that is in force here".into(),
        "Cancel" if told.expires <= now => "what it cancels has expired".into(),
        _ => String::new(),
    }
}

fn too_large() -> Refusal {
    let detail = format!("a message may have {BYTES_MAX} bytes");
    let hint = "leave resources out (`derefUri`), or send a reference to them (`uri`)";
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail, hint)
}

/// This node and those below, with their division codes.
fn known(config: &Config, state: &State) -> Vec<(Address, Option<String>)> {
    let own = (config.node.address.clone(), config.node.code.clone());
    let below = state.registry.iter().filter(|(a, _)| **a != config.node.address);
    std::iter::once(own).chain(below.map(|(a, k)| (a.clone(), k.code.clone()))).collect()
}

fn origin(config: &Config, state: &State, address: &Address) -> Origin {
    if *address == config.node.address {
        return Origin { name: config.node.name.clone(), code: config.node.code.clone() };
    }
    let known = state.registry.get(address);
    known.map(|k| Origin { name: k.name.clone(), code: k.code.clone() }).unwrap_or_default()
}

fn offset(config: &Config) -> FixedOffset {
    Calendar::new(&config.calendar).unwrap_or_default().offset()
}
