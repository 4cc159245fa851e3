//! Open311 GeoReport v2: services and requests, for the apps and clients that speak it. A request is
//! a case; it is opened and stepped by what the command line uses, so each has one owner.
//!
//! | path below `/open311/v2/` | what |
//! |---|---|
//! | `discovery.F` | where everything is |
//! | `services.F`, `services/CODE.F` | the node's categories, without incidents |
//! | `requests.F`, `requests/ID.F`, POST `requests.F` | cases, without incidents and appointments |
//! | `tokens/TOKEN.F` | a request's id is known at once, so that its token is the id |
//! | `servicerequestupdates.F`, also POST | mySociety's extension: what became of requests, both ways |
//!
//! `F` is `xml` or `json`; without it `Accept` says, and XML is the default. Names and telephone
//! numbers go in and never come out. Who may ask is said by the tokens file, if there is one: its
//! tokens are the `api_key`s (`Authorization: Bearer` is good too). Discovery and services are for
//! everybody, the rest of what is read also where `[open311] public` says so; who posts must have
//! the role `app` or `operator`.
//!
//! Sources: wiki.open311.org/GeoReport_v2; github.com/mysociety/open311-adapter.

mod ask;
mod body;

use super::{Ctx, Refusal, cases};
use crate::brain::cases::{Cases, Held};
use crate::tokens::{Holder, Role as TokenRole, Tokens};
use ask::{Filter, New, Parameters, w3c};
use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State as From};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use body::{Body, Format};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use citybrain_shared::case::{Ask, Case, ClosedReason, Entry, Kind, Role, Solved, Status, Verb};
use citybrain_shared::config::cases::Category;
use citybrain_shared::view::CaseNew;
use std::sync::Arc;

/// When what discovery says last changed its shape.
const CHANGESET: &str = "2026-11-24T00:00:00Z";
/// A description of 4,000 characters, escaped, and room for the rest.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// What is wrong, for one line of an error answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// As the HTTP status.
    code: u16,
    description: String,
}

fn wrong(code: u16, description: impl Into<String>) -> Wrong {
    Wrong { code, description: description.into() }
}

type Answer = Result<(&'static str, Body), Vec<Wrong>>;

struct Desk {
    ctx: Arc<Ctx>,
    tokens: Option<Arc<Tokens>>,
}

pub fn router(ctx: Arc<Ctx>, tokens: Option<Arc<Tokens>>) -> Router {
    Router::new()
        .route("/open311/v2/{*path}", any(serve))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .with_state(Arc::new(Desk { ctx, tokens }))
}

async fn serve(
    From(desk): From<Arc<Desk>>,
    Path(path): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (path, format) = format_of(&path, &headers);
    let answer = desk.answer(&method, path, &uri, &headers, body).await;
    let (status, root, body) = match answer {
        Ok((root, body)) => (StatusCode::OK, root, body),
        Err(all) => {
            let first = all.first().map_or(500, |w| w.code);
            let status = StatusCode::from_u16(first).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let error = |w: Wrong| {
                Body::Object(vec![("code", Body::Count(w.code.into())), ("description", Body::Text(w.description))])
            };
            (status, "errors", Body::List("error", all.into_iter().map(error).collect()))
        }
    };
    (status, [(header::CONTENT_TYPE, format.content_type())], body.write(root, format)).into_response()
}

/// The path without its format, and the format.
fn format_of<'p>(path: &'p str, headers: &HeaderMap) -> (&'p str, Format) {
    if let Some(path) = path.strip_suffix(".json") {
        return (path, Format::Json);
    }
    if let Some(path) = path.strip_suffix(".xml") {
        return (path, Format::Xml);
    }
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let place = |what: &str| accept.find(what).unwrap_or(usize::MAX);
    let json = place("application/json") < place("text/xml").min(place("application/xml"));
    (path, if json { Format::Json } else { Format::Xml })
}

impl Desk {
    async fn answer(
        &self,
        method: &Method,
        path: &str,
        uri: &Uri,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Answer {
        let query = Parameters::parse(uri.query().unwrap_or_default().as_bytes());
        let parts: Vec<&str> = path.split('/').collect();
        let is_post = match *method {
            Method::GET | Method::HEAD => false,
            Method::POST => true,
            _ => return no(405, format!("{method} is not known here: GET, or POST for requests")),
        };
        match (is_post, parts.as_slice()) {
            (false, ["discovery"]) => Ok(("discovery", self.discovery(headers))),
            (false, ["services"]) => {
                self.jurisdiction(&query)?;
                Ok(("services", Body::List("service", self.services().iter().map(service).collect())))
            }
            (false, ["services", code]) => {
                self.jurisdiction(&query)?;
                let category = self.service(code)?;
                no(404, format!("service_code {} has no definition: its metadata is false", category.code))
            }
            (false, ["requests"]) => {
                self.reader(&query, headers)?;
                self.list(&query)
            }
            (false, ["requests", id]) => {
                self.reader(&query, headers)?;
                let found = self.look(id, |held| request(&held.case))?;
                Ok(("service_requests", Body::List("request", vec![found])))
            }
            (false, ["tokens", token]) => {
                self.reader(&query, headers)?;
                let id = self.look(token, |held| held.case.id.clone())?;
                let pair = vec![("service_request_id", Body::text(id.clone())), ("token", Body::text(id))];
                Ok(("service_requests", Body::List("request", vec![Body::Object(pair)])))
            }
            (false, ["servicerequestupdates"]) => {
                self.reader(&query, headers)?;
                self.updates(&query)
            }
            (true, ["requests"]) => {
                let (p, holder) = self.writer(query, headers, body)?;
                self.file(&p, &holder, headers).await
            }
            (true, ["servicerequestupdates"]) => {
                let (p, holder) = self.writer(query, headers, body)?;
                self.update(&p, &holder).await
            }
            (true, _) => no(405, format!("nothing can be posted to {path}; requests can")),
            (false, _) => no(404, format!("there is nothing at {path}: see discovery")),
        }
    }

    // ---- who and where ---------------------------------------------------------------------

    /// The node is one jurisdiction: its address, or its division code. It may be left out.
    fn jurisdiction(&self, p: &Parameters) -> Result<(), Vec<Wrong>> {
        let node = &self.ctx.config.node;
        match p.get("jurisdiction_id") {
            Some(id) if id != node.address.as_str() && node.code.as_deref() != Some(id) => {
                no(404, format!("jurisdiction_id {id} was not found; this is {}", node.address))
            }
            _ => Ok(()),
        }
    }

    fn holder(&self, p: &Parameters, headers: &HeaderMap) -> Option<Holder> {
        let tokens = self.tokens.as_ref()?;
        p.get("api_key").or_else(|| super::guard::bearer(headers)).and_then(|token| tokens.holder(token))
    }

    fn reader(&self, p: &Parameters, headers: &HeaderMap) -> Result<(), Vec<Wrong>> {
        if self.tokens.is_some() && !self.ctx.config.open311.public && self.holder(p, headers).is_none() {
            return no(403, "Invalid api_key: this node shows requests only to those whom it knows");
        }
        self.jurisdiction(p)
    }

    /// All parameters, and who posts them.
    fn writer(
        &self,
        query: Parameters,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<(Parameters, String), Vec<Wrong>> {
        let body = body.map_err(|e| match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => vec![wrong(413, format!("a form may have {FORM_BYTES_MAX} bytes"))],
            _ => vec![wrong(400, e.body_text())],
        })?;
        let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = given.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return no(
                400,
                format!("content type `{kind}` is not taken: post an application/x-www-form-urlencoded form"),
            );
        }
        let p = Parameters::parse(&body).and(query);
        let name = match (&self.tokens, self.holder(&p, headers)) {
            (None, _) => "anybody".to_owned(),
            (Some(_), Some(h)) if matches!(h.role, TokenRole::App | TokenRole::Operator) => h.name,
            (Some(_), Some(h)) => return no(403, format!("the api_key of {} may only read", h.name)),
            (Some(_), None) if p.get("api_key").is_none() => return no(403, "api_key was not provided"),
            (Some(_), None) => return no(403, "Invalid api_key"),
        };
        self.jurisdiction(&p)?;
        Ok((p, name))
    }

    // ---- reading ---------------------------------------------------------------------------

    fn discovery(&self, headers: &HeaderMap) -> Body {
        let settings = &self.ctx.config.open311;
        let url = settings.url.clone().unwrap_or_else(|| {
            let host = headers.get(header::HOST).and_then(|v| v.to_str().ok());
            let scheme = if self.ctx.config.api.cert_file.is_some() { "https" } else { "http" };
            format!(
                "{scheme}://{}/open311/v2",
                host.map_or_else(|| self.ctx.config.api.listen.to_string(), str::to_owned)
            )
        });
        let formats =
            [Format::Xml, Format::Json].map(|f| Body::text(f.content_type().split(';').next().unwrap_or_default()));
        let endpoint = Body::Object(vec![
            ("specification", Body::text("http://wiki.open311.org/GeoReport_v2")),
            ("url", Body::text(url)),
            ("changeset", Body::text(CHANGESET)),
            ("type", Body::text(if settings.test { "test" } else { "production" })),
            ("formats", Body::List("format", formats.to_vec())),
        ]);
        Body::Object(vec![
            ("changeset", Body::text(CHANGESET)),
            ("contact", Body::text(settings.contact.clone())),
            ("key_service", Body::text(settings.key_service.clone())),
            ("endpoints", Body::List("endpoint", vec![endpoint])),
        ])
    }

    /// Categories of the node, its own and those of the nodes above it.
    fn services(&self) -> Vec<Category> {
        let all = cases::look(&self.ctx, Cases::categories).unwrap_or_default();
        all.iter().filter(|c| c.kind != Kind::Incident).cloned().collect()
    }

    fn service(&self, code: &str) -> Result<Category, Vec<Wrong>> {
        let found = self.services().into_iter().find(|c| c.code == code);
        found.ok_or_else(|| vec![wrong(404, format!("service_code {code} was not found"))])
    }

    fn look<T>(&self, id: &str, look: impl FnOnce(&Held) -> T) -> Result<T, Vec<Wrong>> {
        let found = cases::look(&self.ctx, |all| all.get(id).filter(|held| is_public(&held.case)).map(look));
        found.map_err(refused)?.ok_or_else(|| vec![wrong(404, format!("service_request_id {id} was not found"))])
    }

    /// Newest first.
    fn list(&self, p: &Parameters) -> Answer {
        let f = Filter::parse(p, self.ctx.as_of()).map_err(|w| vec![w])?;
        let within = |at: DateTime<Utc>, (from, to): (DateTime<Utc>, DateTime<Utc>)| from <= at && at <= to;
        let fits = |c: &Case| {
            is_public(c)
                && f.codes.as_ref().is_none_or(|codes| codes.contains(&c.category))
                && (if c.status.is_open() { f.open } else { f.closed })
                && within(c.opened, f.requested)
                && within(updated(c), f.updated)
        };
        let page = cases::look(&self.ctx, |all| match &f.ids {
            // Ids override all else.
            Some(ids) => {
                ids.iter().filter_map(|id| all.get(id)).map(|h| &h.case).filter(|c| is_public(c)).map(request).collect()
            }
            None => {
                all.iter().rev().map(|h| &h.case).filter(|c| fits(c)).skip(f.skip).take(f.page).map(request).collect()
            }
        });
        Ok(("service_requests", Body::List("request", page.map_err(refused)?)))
    }

    /// Oldest first, at most a page's worth: whoever polls goes on from the last one's time.
    fn updates(&self, p: &Parameters) -> Answer {
        let date = |name| p.date(name).map_err(|w| vec![w]);
        let ends = (("start_date", date("start_date")?), ("end_date", date("end_date")?));
        let (from, to) = ask::span(ends.0, ends.1, self.ctx.as_of()).map_err(|w| vec![w])?;
        let found = cases::look(&self.ctx, |all| {
            let mut found: Vec<(DateTime<Utc>, Body)> = Vec::new();
            for held in all.changed_since(from).filter(|h| is_public(&h.case)) {
                for entry in held.history.iter().filter(|e| from <= e.at && e.at <= to) {
                    if let Some(status) = update_status(&held.case, entry) {
                        found.push((entry.at, update(&held.case, entry, status)));
                    }
                }
            }
            found.sort_by_key(|(at, _)| *at);
            found.truncate(ask::PAGE_MAX);
            found.into_iter().map(|(_, body)| body).collect()
        });
        Ok(("service_request_updates", Body::List("request_update", found.map_err(refused)?)))
    }

    // ---- writing ---------------------------------------------------------------------------

    async fn file(&self, p: &Parameters, holder: &str, headers: &HeaderMap) -> Answer {
        let new = New::parse(p)?;
        let category = self.service(&new.service_code)?;
        let first = new.description.lines().next().unwrap_or_default();
        let key = headers.get("idempotency-key").and_then(|v| v.to_str().ok());
        let case = CaseNew {
            category: category.code.clone(),
            title: if first.is_empty() { category.name.clone() } else { first.chars().take(60).collect() },
            description: new.description.clone(),
            place: Some(new.place),
            channel: "open311".into(),
            contact: new.contact,
            by: format!("open311:{holder}"),
            key: key.map(|key| format!("open311:{holder}:{key}")),
            ..CaseNew::default()
        };
        let (id, _) = cases::open_new(&self.ctx, case).await.map_err(refused)?;
        let told =
            vec![("service_request_id", Body::text(id)), ("service_notice", Body::Null), ("account_id", Body::Null)];
        Ok(("service_requests", Body::List("request", vec![Body::Object(told)])))
    }

    async fn update(&self, p: &Parameters, holder: &str) -> Answer {
        let Some(id) = p.get("service_request_id") else { return no(400, "service_request_id was not provided") };
        let text = p.get("description").unwrap_or_default();
        if text.chars().count() > ask::DESCRIPTION_MAX {
            return no(400, format!("description is longer than {} characters", ask::DESCRIPTION_MAX));
        }
        let status = self.look(id, |held| held.case.status)?;
        let word = p.get("status").unwrap_or("UNCHANGED").to_ascii_uppercase();
        let verb = match word.as_str() {
            "OPEN" | "REOPEN" if !status.is_open() => Verb::Reopen,
            "OPEN" | "UNCHANGED" => Verb::Comment,
            "CANCELLED" => Verb::Withdraw,
            "FIXED" if matches!(status, Status::Resolved | Status::Closed) => Verb::Evaluate,
            "FIXED" => Verb::Comment,
            other => {
                return no(
                    400,
                    format!("status {other} is not a resident's to set: OPEN, REOPEN, FIXED, CANCELLED or UNCHANGED"),
                );
            }
        };
        let said = if text.is_empty() { word.to_lowercase() } else { text.to_owned() };
        let ask = Ask {
            by: format!("open311:{holder}"),
            role: Some(Role::Resident),
            text: Some(said),
            solved: (verb == Verb::Evaluate).then_some(Solved::Solved),
            ..Ask::default()
        };
        let (_, told) = cases::wish(&self.ctx, id.to_owned(), verb, ask).await.map_err(refused)?;
        let update_id = match told {
            crate::brain::cases::Told::Sent { wish, .. } => wish,
            crate::brain::cases::Told::Done => {
                self.look(id, |held| update_id(&held.case.id, held.case.term, held.case.version))?
            }
        };
        let told = Body::Object(vec![("update_id", Body::text(update_id))]);
        Ok(("service_request_updates", Body::List("request_update", vec![told])))
    }
}

fn no<T>(code: u16, description: impl Into<String>) -> Result<T, Vec<Wrong>> {
    Err(vec![wrong(code, description)])
}

/// The node's own refusals, in the specification's words: 404 for what is not there, 503 and 504 for
/// a node that cannot, 400 for all else.
fn refused(r: Refusal) -> Vec<Wrong> {
    let code = match r.status.as_u16() {
        code @ (403 | 404 | 500..) => code,
        _ => 400,
    };
    let parts = [r.failure.detail, r.failure.hint];
    vec![wrong(code, parts.into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join("; "))]
}

/// Somebody's emergency, or appointment, is nobody else's business.
fn is_public(case: &Case) -> bool {
    case.kind != Kind::Incident && case.booking.is_none()
}

fn updated(case: &Case) -> DateTime<Utc> {
    case.closed.filter(|_| !case.status.is_open()).unwrap_or(case.changed)
}

fn service(c: &Category) -> Body {
    Body::Object(vec![
        ("service_code", Body::text(c.code.clone())),
        ("service_name", Body::text(c.name.clone())),
        ("description", Body::Null),
        ("metadata", Body::Bool(false)),
        ("type", Body::text("realtime")),
        ("keywords", Body::Null),
        ("group", Body::text(c.department.clone())),
    ])
}

fn request(c: &Case) -> Body {
    let place = c.place.clone().unwrap_or_default();
    let notes = match (&c.outcome, c.closed_reason) {
        (Some(o), _) if !o.text.is_empty() => o.text.clone(),
        (_, Some(reason)) => reason.to_string(),
        _ => String::new(),
    };
    let agency = [&c.unit, &c.department].into_iter().find(|t| !t.is_empty()).cloned().unwrap_or_default();
    let name = if c.category_name.is_empty() { &c.category } else { &c.category_name };
    let expected = c.clock("solution").and_then(|clock| clock.due).map(w3c).unwrap_or_default();
    Body::Object(vec![
        ("service_request_id", Body::text(c.id.clone())),
        ("status", Body::text(if c.status.is_open() { "open" } else { "closed" })),
        ("status_notes", Body::text(notes)),
        ("service_name", Body::text(name.clone())),
        ("service_code", Body::text(c.category.clone())),
        ("description", Body::text(c.description.clone())),
        ("agency_responsible", Body::text(agency)),
        ("service_notice", Body::Null),
        ("requested_datetime", Body::text(w3c(c.opened))),
        ("updated_datetime", Body::text(w3c(updated(c)))),
        ("expected_datetime", Body::text(expected)),
        ("address", Body::text(place.text)),
        ("address_id", Body::Null),
        ("zipcode", Body::Null),
        ("lat", Body::number(place.lat)),
        ("long", Body::number(place.lon)),
        ("media_url", Body::Null),
    ])
}

fn update_id(case: &str, term: u32, version: u32) -> String {
    format!("{case}.{term}.{version}")
}

fn update(case: &Case, e: &Entry, status: &str) -> Body {
    // What is said among those who handle it stays among them.
    let is_answer = matches!(e.step.as_str(), "resolved" | "rejected" | "closed");
    let text = if is_answer || e.role == Some(Role::Resident) { e.text.clone() } else { String::new() };
    Body::Object(vec![
        ("update_id", Body::text(update_id(&case.id, e.term, e.version))),
        ("service_request_id", Body::text(case.id.clone())),
        ("status", Body::text(status)),
        ("updated_datetime", Body::text(w3c(e.at))),
        ("description", Body::text(text)),
        ("media_url", Body::Null),
    ])
}

/// mySociety's word for a step; `None`: it is no news to a resident.
fn update_status(case: &Case, e: &Entry) -> Option<&'static str> {
    Some(match e.step.as_str() {
        "accepted" => "investigating",
        "rejected" => "not_councils_responsibility",
        "dispatched" | "started" | "resumed" => "in_progress",
        "suspended" => "planned",
        "returned" => "for_triage",
        "escalated" => "internal_referral",
        "resolved" => "fixed",
        "reopened" => "reopen",
        "withdrawn" => "cancelled",
        "merged" => "duplicate",
        "closed" => match case.closed_reason {
            Some(ClosedReason::Solved) => "fixed",
            Some(ClosedReason::Duplicate) => "duplicate",
            Some(ClosedReason::NotOurs) => "not_councils_responsibility",
            Some(ClosedReason::Withdrawn) => "cancelled",
            Some(ClosedReason::Unsolved | ClosedReason::Refused) => "no_further_action",
            // It was reopened since.
            None => "closed",
        },
        "comment" if e.role == Some(Role::Resident) => "unchanged",
        _ => return None,
    })
}
