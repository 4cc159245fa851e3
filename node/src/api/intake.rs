//! Events that come in by HTTP. The answer comes after the fsync.

use super::binding::{self, Carried};
use super::commit::{self, Late};
use super::input::{Sent, parse};
use super::once::Repeat;
use super::ops::Operator;
use super::{Ctx, Refusal, events, now};
use axum::extract::{FromRequestParts, State as From};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_hub::engine::Outcome;
use citybrain_hub::note::{DeadLetter, Note};
use citybrain_hub::operator;
use citybrain_shared::event::{self, Envelope};
use citybrain_shared::record::Draft;
use citybrain_shared::words::counted;
use citybrain_shared::{Address, Lane, Pos, Selector, view};
use serde_json::{Map, Value};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// Where events of this door come from, in dead letters.
const VIA: &str = "http";

/// Body of a batch: as large as half a commit.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Why a door refuses a request that it lets through for the call for help in it: of a batch only what is urgent is
/// taken. What is one such call is taken as it is.
#[derive(Clone, Debug, Default)]
pub struct Urgent(Option<Arc<Refusal>>);

impl Urgent {
    pub fn only(refusal: Refusal) -> Urgent {
        Urgent(Some(Arc::new(refusal)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Urgent {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Urgent, Self::Rejection> {
        Ok(parts.extensions.get::<Urgent>().cloned().unwrap_or_default())
    }
}

/// `POST /v1/send`: makes a directive of the request and commits it. 202: receipts come later.
pub async fn send(
    From(ctx): From<Arc<Ctx>>,
    who: Operator,
    repeat: Repeat,
    Sent(body): Sent,
) -> Result<Response, Refusal> {
    let request: view::Send = parse(&body, "{\"target\":\"ADDRESS/**\",\"type\":\"city.notice\",\"data\":{}}")?;
    let target = target(&request.target, &ctx.config.node.address)?;
    let begun = repeat.made(&ctx)?;
    let id = begun.as_ref().map_or_else(fresh, |begun| begun.about.clone());
    let source = format!("/{}", ctx.address());
    let event = cloud_event(&request, &target, &id, &source, now())?;
    let draft = (ctx.accept)(&event, "api:send").map_err(|letter| Refusal::bad(&letter.reason, letter.detail, ""))?;
    if begun.is_none() {
        // Who sent it is on disk before it goes anywhere, and under which word.
        let kind = request.directive.as_deref().unwrap_or("notice");
        let detail = format!("{kind} `{}` to {target}, id {id}", request.event_type);
        let act = operator::draft(&ctx.config.node.address, &who.act("send", &detail));
        repeat.begin(&ctx, draft.header().lane, &id, vec![act]).await?;
    }
    let (pos, _) = commit(&ctx, draft, &id).await?;
    let sent = view::Sent { id, source, pos, target: target.to_string(), event_type: request.event_type };
    Ok(ctx.answer_with(StatusCode::ACCEPTED, sent))
}

/// `POST /v1/events`: CloudEvents in structured, binary or batch mode ([`binding`]). A refused one is
/// kept as a dead letter, as from any other door. Of a batch all are taken, or none.
pub async fn event(
    From(ctx): From<Arc<Ctx>>,
    repeat: Repeat,
    urgent: Urgent,
    headers: HeaderMap,
    Sent(body): Sent,
) -> Result<Response, Refusal> {
    match binding::read(&headers, &body) {
        Ok(Carried::One(event)) => one(&ctx, &repeat, event).await,
        Ok(Carried::Batch(events)) => batch(&ctx, &repeat, urgent, events).await,
        Err(binding::Wrong::Unknown(given)) => {
            let detail = format!("content type `{given}` is not taken here");
            let hint = "send one event as `application/cloudevents+json`, several as \
                        `application/cloudevents-batch+json`, or one with `ce-` headers and any content type";
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", detail, hint))
        }
        Err(binding::Wrong::Bad(word, detail)) => {
            Err(refuse(&ctx, DeadLetter::new(word, detail, VIA, "", &body)).await)
        }
    }
}

async fn one(ctx: &Ctx, repeat: &Repeat, event: Bytes) -> Result<Response, Refusal> {
    let (events, begun) = with_ids(ctx, repeat, vec![event])?;
    let [event] = events.as_slice() else { return Err(none_answered()) };
    let draft = match (ctx.accept)(event, VIA) {
        Ok(draft) => draft,
        Err(letter) => return Err(refuse(ctx, letter).await),
    };
    if let Some(ids) = begun {
        repeat.begin(ctx, draft.header().lane, &ids, Vec::new()).await?;
    }
    let (id, source) = identity(&draft);
    let (pos, duplicate) = commit(ctx, draft, &id).await?;
    let status = if duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(ctx.answer_with(status, view::Accepted { id, source, pos, duplicate }))
}

fn fresh() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// An event that comes without an id is given one when it is taken. Where the request may come again, it
/// must be the same then: all are made of one that is noted under the request's word. That is given back
/// where it is new, and is still to be noted.
fn with_ids(ctx: &Ctx, repeat: &Repeat, mut events: Vec<Bytes>) -> Result<(Vec<Bytes>, Option<String>), Refusal> {
    let lacks = |event: &Bytes| Envelope::parse(event).is_ok_and(|e| e.id.is_none());
    if !repeat.has_word() || !events.iter().any(lacks) {
        return Ok((events, None));
    }
    let begun = repeat.made(ctx)?;
    let is_new = begun.is_none();
    let ids = begun.map_or_else(fresh, |begun| begun.about);
    for (i, event) in events.iter_mut().enumerate().filter(|(_, event)| lacks(event)) {
        let id = uuid::Uuid::from_u128(xxh3_128(format!("{ids} {i}").as_bytes())).to_string();
        if let Ok(anew) = event::rewrite(event, &[("id", &id)], &[]) {
            *event = anew.into();
        }
    }
    Ok((events, is_new.then_some(ids)))
}

async fn batch(ctx: &Ctx, repeat: &Repeat, Urgent(only): Urgent, events: Vec<Bytes>) -> Result<Response, Refusal> {
    let (events, begun) = with_ids(ctx, repeat, events)?;
    let (mut drafts, mut refused) = (Vec::with_capacity(events.len()), only.map(|door| (*door).clone()));
    for (i, event) in events.iter().enumerate() {
        match (ctx.accept)(event, VIA) {
            Ok(draft) => drafts.push(draft),
            // Once one is refused the batch is: the first says why.
            Err(letter) if refused.is_none() => {
                let mut refusal = refuse(ctx, letter).await;
                refusal.failure.detail = format!("event {} of the batch: {}", i + 1, refusal.failure.detail);
                refused = Some(refusal);
            }
            Err(_) => {}
        }
    }
    if refused.is_some() {
        // What is beside it keeps no call for help away.
        drafts.retain(|draft| draft.header().lane == Lane::Urgent);
    }
    if let Some(ids) = begun.filter(|_| refused.is_none() || !drafts.is_empty()) {
        // As they are offered.
        let is_urgent = drafts.iter().all(|d| d.header().lane == Lane::Urgent);
        let lane = if is_urgent { Lane::Urgent } else { Lane::Routine };
        repeat.begin(ctx, lane, &ids, Vec::new()).await?;
    }
    if let Some(refusal) = refused {
        return Err(refused_batch(ctx, drafts, refusal).await?);
    }
    let named: Vec<(String, String)> = drafts.iter().map(identity).collect();
    let outcomes = if drafts.is_empty() { Vec::new() } else { offer(ctx, drafts, "the batch").await? };
    let accepted = |((id, source), outcome): ((String, String), Outcome)| {
        let (pos, duplicate) = placed(outcome);
        view::Accepted { id, source, pos, duplicate }
    };
    let events: Vec<view::Accepted> = named.into_iter().zip(outcomes).map(accepted).collect();
    let status = if events.iter().all(|e| e.duplicate) { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(ctx.answer_with(status, view::AcceptedBatch { events }))
}

/// How a batch is refused, once what is `urgent` of it is taken.
///
/// # Errors
/// What is urgent cannot be taken.
async fn refused_batch(ctx: &Ctx, urgent: Vec<Draft>, mut refusal: Refusal) -> Result<Refusal, Refusal> {
    let taken = match urgent.len() {
        0 => "none of the batch was taken".to_owned(),
        some => format!("what is urgent of the batch was taken ({}), and nothing else", counted(some as u64, "event")),
    };
    if !urgent.is_empty() {
        offer(ctx, urgent, "what is urgent of the batch").await?;
    }
    refusal.failure.hint = format!("{taken}; {}", refusal.failure.hint);
    Ok(refusal)
}

fn identity(draft: &Draft) -> (String, String) {
    events::identity(&String::from_utf8_lossy(draft.payload())).unwrap_or_default()
}

/// Keeps what is refused, and says so only if it did: a disk without room has none for it. Whether it is written
/// does not change the answer: the event is refused.
pub(super) async fn refuse(ctx: &Ctx, letter: DeadLetter) -> Refusal {
    let status = if letter.reason == "too-large" { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
    let (word, detail) = (letter.reason.clone(), letter.detail.clone());
    // Offered, as what comes in by MQTT is: what is decided would be taken without room, too.
    let hint = match offer(ctx, vec![Note::DeadLetter(letter).draft()], "the dead letter").await {
        Ok(_) => "it is kept: `citybrain dlq list` shows it",
        Err(_) => "it is not kept: the node could not write it down",
    };
    Refusal::new(status, &word, detail, hint)
}

/// The position, and whether the event was there before.
async fn commit(ctx: &Ctx, draft: Draft, id: &str) -> Result<(Pos, bool), Refusal> {
    match offer(ctx, vec![draft], id).await?.first() {
        Some(outcome) => Ok(placed(*outcome)),
        None => Err(none_answered()),
    }
}

fn none_answered() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", "one record was offered, none answered", "")
}

pub(super) fn placed(outcome: Outcome) -> (Pos, bool) {
    match outcome {
        Outcome::Committed(pos) => (pos, false),
        Outcome::Duplicate(pos) => (pos, true),
    }
}

/// What became of each, in order, after the fsync.
pub(super) async fn offer(ctx: &Ctx, drafts: Vec<Draft>, what: &str) -> Result<Vec<Outcome>, Refusal> {
    let late = Late {
        what: &format!("`{what}`"),
        hint: "`citybrain show ID` says whether it did; send it again: what has an `id`, or comes with an \
               `Idempotency-Key`, is taken once",
    };
    commit::offered(ctx, drafts, late).await
}

fn target(text: &str, own: &Address) -> Result<Selector, Refusal> {
    let example = format!("`{own}`, `{own}/**`, `{own}/**@neighbourhood`");
    let selector =
        Selector::parse(text).map_err(|e| Refusal::bad("bad-target", e.to_string(), format!("such as {example}")))?;
    if own.covers(&selector.root) {
        return Ok(selector);
    }
    let detail = format!("`{text}` is not below {own}: a node sends only to itself and to what is below it");
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "not-below",
        detail,
        format!("send it at the node {}, or to {example}", selector.root),
    ))
}

/// The directive as CloudEvents JSON.
fn cloud_event(
    request: &view::Send,
    target: &Selector,
    id: &str,
    source: &str,
    now: DateTime<Utc>,
) -> Result<Bytes, Refusal> {
    let one_of = |name: &str, given: &Option<String>, known: [&str; 2]| match given {
        Some(word) if !known.contains(&word.as_str()) => Err(Refusal::bad(
            "bad-request",
            format!("`{word}` is no {name}"),
            format!("use {} or {}", known[0], known[1]),
        )),
        _ => Ok(()),
    };
    one_of("priority", &request.priority, ["routine", "urgent"])?;
    one_of("directive", &request.directive, ["notice", "command"])?;
    if request.event_type.is_empty() {
        return Err(Refusal::bad("bad-request", "`type` is empty", "such as `city.notice`"));
    }
    if request.ttl_ms == Some(0) {
        return Err(Refusal::bad(
            "bad-request",
            "`ttl_ms` is 0: it would be over at once",
            "leave it out for no limit",
        ));
    }
    let mut event = Map::new();
    let mut set = |name: &str, value: Value| event.insert(name.to_owned(), value);
    set("specversion", "1.0".into());
    set("id", id.into());
    set("source", source.into());
    set("type", request.event_type.clone().into());
    set("time", view::rfc3339(now).into());
    set("target", target.to_string().into());
    set("directive", request.directive.as_deref().unwrap_or("notice").into());
    if let Some(priority) = &request.priority {
        set("priority", priority.clone().into());
    }
    if let Some(ttl_ms) = request.ttl_ms {
        set("expirytime", view::rfc3339(now + TimeDelta::milliseconds(ttl_ms.into())).into());
    }
    if let Some(data) = &request.data {
        set("datacontenttype", "application/json".into());
        set("data", data.clone());
    }
    Ok(serde_json::to_vec(&event).expect("a JSON value always serialises").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::event::{Directive, Envelope, Priority};

    fn own() -> Address {
        Address::parse("c/s").unwrap()
    }

    #[test]
    fn a_target_outside_the_own_subtree_is_refused_with_the_way_out() {
        for good in ["c/s", "c/s/**", "c/s/m@community", "c/s/**[a=b]"] {
            assert!(target(good, &own()).is_ok(), "{good}");
        }
        let refusal = target("c/**", &own()).unwrap_err();
        assert_eq!((refusal.status, refusal.failure.error.as_str()), (StatusCode::FORBIDDEN, "not-below"));
        assert!(refusal.failure.hint.starts_with("send it at the node c, or to `c/s`"), "{}", refusal.failure.hint);
        assert_eq!(target("c/*", &own()).unwrap_err().failure.error, "bad-target");
    }

    #[test]
    fn a_request_becomes_a_valid_event() {
        let request = view::Send {
            target: "c/s/**@community".into(),
            event_type: "city.valve.close".into(),
            data: Some(serde_json::json!({"valve": "温-7"})),
            priority: Some("urgent".into()),
            directive: Some("command".into()),
            ttl_ms: Some(60_000),
        };
        let selector = target(&request.target, &own()).unwrap();
        let json = cloud_event(&request, &selector, "1", "/c/s", view::time_of(0)).unwrap();
        let event = Envelope::parse(&json).unwrap();
        assert_eq!(event.priority(), Priority::Urgent);
        assert_eq!(event.directive(), Directive::Command);
        assert_eq!(event.target.as_deref(), Some("c/s/**@community"));
        assert_eq!(event.expirytime.as_deref(), Some("1970-01-01T00:01:00.000Z"));
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        let selector = target("c/s", &own()).unwrap();
        let refused = |request: view::Send| {
            let request = view::Send { target: "c/s".into(), ..request };
            cloud_event(&request, &selector, "1", "/c/s", view::time_of(0)).unwrap_err().failure.detail
        };
        let typed = || view::Send { event_type: "t".into(), ..Default::default() };
        assert_eq!(refused(view::Send::default()), "`type` is empty");
        assert_eq!(refused(view::Send { priority: Some("high".into()), ..typed() }), "`high` is no priority");
        assert_eq!(refused(view::Send { directive: Some("order".into()), ..typed() }), "`order` is no directive");
        assert_eq!(refused(view::Send { ttl_ms: Some(0), ..typed() }), "`ttl_ms` is 0: it would be over at once");
    }
}
