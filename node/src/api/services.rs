//! Services and activities: listed, shown with what is free, requested; scenes, also as GeoJSON.

use super::cases::{answer_made, look_by, make, on_earth};
use super::guard::{Caller, Name};
use super::input::{Path, Sent, parse, query};
use super::once::{self, Made, Repeat};
use super::{Ctx, Refusal, etag};
use crate::brain::Brain;
use crate::brain::cases::{self, machine, names_reporter};
use crate::brain::services::request;
use axum::extract::State as From;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use citybrain_shared::case::Role;
use citybrain_shared::config::services::Service;
use citybrain_shared::{Address, Lane, view};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// A part of the code, the name, the description, the provider or the place.
    search: Option<String>,
    /// Whose.
    of: Option<Address>,
    /// Only activities.
    activities: bool,
    /// Activities that are over, too.
    past: bool,
}

pub async fn list(From(ctx): From<Arc<Ctx>>, uri: Uri, headers: HeaderMap) -> Result<Response, Refusal> {
    let wanted: Wanted = query(&uri)?;
    if let Some(of) = &wanted.of {
        is_known(&ctx.config.node.address, of)?;
    }
    let word = wanted.search.unwrap_or_default().to_lowercase();
    let now = ctx.as_of();
    let (services, awaits) = look_by(&ctx, |brain| {
        let is_over = |node: &Address, s: &Service| request::is_over(s, &brain.services.calendar_of(node), now);
        let fits = |(node, s): &(&Address, &Service)| {
            let place = s.place.as_ref().map(|place| &place.text);
            let mut texts = [&s.code, &s.name, &s.description, &s.provider].into_iter().chain(place);
            wanted.of.as_ref().is_none_or(|of| of == *node)
                && (!wanted.activities || s.starts.is_some())
                && (wanted.past || s.starts.is_none() || !is_over(node, s))
                && texts.any(|t| t.to_lowercase().contains(&word))
        };
        let offer = |(node, s): (&Address, &Service)| view::Offer { node: node.clone(), service: s.clone() };
        (brain.services.services().filter(fits).map(offer).collect(), from_above(brain))
    })?;
    Ok(etag::answer(&ctx, &headers, view::Services { services, awaits }))
}

/// Why some of what those above offer may be missing here.
fn from_above(brain: &Brain) -> Option<view::Awaited> {
    brain.cases.awaited_from_above()
}

/// A service that nobody is known to offer may be one of those.
fn not_yet(brain: &Brain, of: Option<&Address>, unknown: cases::Refusal) -> cases::Refusal {
    let may_be_above = of != Some(&brain.in_force().node.address);
    match from_above(brain).filter(|_| may_be_above && unknown.error == "not-found") {
        Some(awaits) => {
            let detail =
                format!("{}, as far as is known: {}", unknown.detail, awaits.whole(view::Services::FROM_ABOVE));
            cases::Refusal::new("not-yet", detail, awaits.hint())
        }
        None => unknown,
    }
}

/// # Errors
/// What that node offers is not known here: an answer of nothing would be taken for all of it.
fn is_known(me: &Address, of: &Address) -> Result<(), Refusal> {
    if of.covers(me) {
        return Ok(());
    }
    let detail = format!("{me} knows what it offers itself and what those above it do, and `{of}` is none of them");
    Err(Refusal::bad("bad-query", detail, format!("ask {of} itself; `citybrain tree` shows which nodes there are")))
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Whose {
    of: Option<Address>,
}

pub async fn show(
    From(ctx): From<Arc<Ctx>>,
    Path(code): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Whose { of } = query(&uri)?;
    let now = ctx.as_of();
    let shown = look_by(&ctx, |brain| {
        let found = brain.services.find(&code, of.as_ref());
        let (node, service) = found.map_err(|unknown| not_yet(brain, of.as_ref(), unknown))?;
        let own = *node == ctx.config.node.address;
        let awaits = brain.cases.awaited().filter(|_| own);
        let free = (own && awaits.is_none()).then(|| brain.cases.free(service, now));
        Ok::<_, crate::brain::cases::Refusal>(view::ServiceShown {
            offer: view::Offer { node: node.clone(), service: service.clone() },
            free,
            awaits,
        })
    })??;
    Ok(etag::answer(&ctx, &headers, shown))
}

/// `POST /v1/services/{code}/requests`: a case of the node that offers it. 201 after the fsync; 200 when
/// the same `key` has opened it before.
pub async fn request(
    From(ctx): From<Arc<Ctx>>,
    caller: Caller,
    name: Name,
    repeat: Repeat,
    Path(code): Path<String>,
    Sent(body): Sent,
) -> Result<Response, Refusal> {
    let mut wanted: view::ServiceRequest = parse(&body, "{\"by\":\"…\",\"slot\":\"2026-11-28 10:00\"}")?;
    wanted.by = caller.acts_as(wanted.by)?;
    if let Some(place) = &wanted.place {
        on_earth(place)?;
    }
    let source = format!("/{}/services", ctx.address());
    let key = wanted.key.clone().map(|key| name.own(key)).unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    if let Some(made) = repeat.made(&ctx)? {
        return answer_made(&ctx, &caller, made);
    }
    let caller_speaks_for_others = caller == Caller::Operator;
    let repeated = (wanted.clone(), code.clone());
    let made = make(&ctx, Lane::Routine, &repeat, move |brain, now_us| {
        let now = view::time_of(now_us);
        let id = match brain.cases.keyed(&source, &key, now) {
            Ok(known) => return Ok((Made::known(known), Vec::new())),
            Err(new) => new,
        };
        let offered = brain.services.offered(&code, wanted.of.as_ref());
        let offered = offered.map_err(|unknown| not_yet(brain, wanted.of.as_ref(), unknown))?;
        let free = |at| brain.cases.may_be_free(&offered, at);
        let (mut opening, mut contact) = request::opening(&offered, &wanted, id, free, now)?;
        // Nobody's token: whoever asks for a service is who gets it, and his name is kept with the number alone.
        if caller_speaks_for_others {
            names_reporter(&opening.by, Some(Role::Resident), &mut contact);
            opening.has_contact = !contact.is_empty();
            opening.by = machine::RESIDENT.into();
        }
        brain.cases.has_room(opening.sos)?;
        let (case, drafts) = brain.cases.open(opening, contact, now_us);
        Ok((Made { about: case.id, is_new: true, asked: None }, drafts))
    })
    .await?;
    if !made.is_new {
        is_repeated(&ctx, &repeated, &made.about)?;
    }
    answer_made(&ctx, &caller, made)
}

/// # Errors
/// The key has opened that case for another request.
fn is_repeated(ctx: &Ctx, (wanted, code): &(view::ServiceRequest, String), case: &str) -> Result<(), Refusal> {
    let is_it = look_by(ctx, |brain| {
        let held = brain.cases.get(case)?;
        let node = held.case.booking.as_ref().map_or(&held.case.owner, |b| &b.node);
        Some(request::has_asked_for(wanted, code, held, &brain.services.calendar_of(node)))
    })?;
    if is_it == Some(true) {
        Ok(())
    } else {
        Err(once::used_otherwise((once::KEY, wanted.key.as_deref().unwrap_or_default())))
    }
}

fn all(ctx: &Ctx) -> Result<view::Scenes, Refusal> {
    look_by(ctx, |brain| {
        let shown = brain.services.scenes().map(|(node, s)| view::SceneShown { node: node.clone(), scene: s.clone() });
        view::Scenes { scenes: shown.collect(), awaits: from_above(brain) }
    })
}

pub async fn scenes(From(ctx): From<Arc<Ctx>>, headers: HeaderMap) -> Result<Response, Refusal> {
    Ok(etag::answer(&ctx, &headers, all(&ctx)?))
}

/// One feature a scene, for any map: RFC 7946.
pub async fn geojson(From(ctx): From<Arc<Ctx>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let scenes = all(&ctx)?;
    let tag = etag::tag("", &scenes);
    if etag::is_known(&headers, &tag) {
        return Ok(etag::unchanged(tag));
    }
    let feature = |s: view::SceneShown| {
        json!({
            "type": "Feature", "id": format!("{}/{}", s.node, s.scene.code), "geometry": s.scene.geometry,
            "properties": {
                "node": s.node, "code": s.scene.code, "name": s.scene.name, "theme": s.scene.theme,
                "description": s.scene.description, "governance": s.scene.governance,
                "services": s.scene.services, "rules": s.scene.rules, "devices": s.scene.devices,
            },
        })
    };
    let features: Vec<_> = scenes.scenes.into_iter().map(feature).collect();
    let mut all = json!({"type": "FeatureCollection", "features": features});
    // A foreign member, as RFC 7946 allows.
    if let Some(awaits) = scenes.awaits {
        all["awaits"] = json!(awaits);
    }
    Ok(etag::tagged(([(header::CONTENT_TYPE, "application/geo+json")], all.to_string()).into_response(), tag))
}
