//! Open311 GeoReport v2: services and requests, for the apps and clients that speak it. A request is
//! a case; it is opened and stepped by what the command line uses, so each has one owner.
//!
//! | path below `/open311/v2/` | what |
//! |---|---|
//! | `discovery.F` | where everything is |
//! | `services.F`, `services/CODE.F` | the node's categories, without incidents, and what each asks |
//! | `requests.F`, `requests/ID.F`, POST `requests.F` | cases, without incidents and appointments |
//! | `tokens/TOKEN.F` | a request's id is known at once, so that its token is the id |
//! | `servicerequestupdates.F`, also POST | mySociety's extension: what became of requests, both ways |
//!
//! What is posted is a form, also as `multipart/form-data`. A picture in it is not kept, which the answer's
//! `service_notice` says; one elsewhere is referred to by `media_url`. A text is UTF-8, or what the content type says.
//!
//! `F` is `xml` or `json`; without it `Accept` says, and XML is the default. Names and telephone
//! numbers go in and never come out. Who may ask is said by the tokens file, if there is one: its
//! tokens are the `api_key`s (`Authorization: Bearer` is good too). Discovery and services are for
//! everybody, the rest of what is read also where `[open311] public` says so; who posts must have
//! the role `app` or `operator`.
//!
//! `jurisdiction_id` may name a node below. What is filed for it is opened here, in a category of this node, and
//! handed to that one in the same commit: what is acknowledged is owned, also while that node is away.
//!
//! Sources: wiki.open311.org/GeoReport_v2; github.com/mysociety/open311-adapter.

mod ask;
pub(super) mod body;
mod charset;
mod multipart;
mod said;
pub(super) mod told;

use super::cases::SLICE;
use super::once::{self, Made, Once, Repeat};
use super::supervision::awaited;
use super::{Ctx, NOT_YET_S, Refusal, cases, guard};
use crate::brain::Brain;
use crate::brain::cases::machine::{OPEN311, TEXT_MAX, described, kept};
use crate::brain::cases::{Cases, Held, Told, opened};
use crate::brain::form::{self, Fault};
use crate::tokens::{Holder, Role as TokenRole, Tokens};
use ask::{Filter, New, Parameters};
use axum::Router;
use axum::body::Body as RequestBody;
use axum::extract::{Path, State as From};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use body::{Body, Format};
use charset::Charset;
use chrono::{DateTime, Utc};
use citybrain_shared::case::{Ask, Case, Kind, Role, Verb};
use citybrain_shared::config::cases::Category;
use citybrain_shared::view::{self, CaseNew};
use citybrain_shared::{Address, words};
use said::Standing;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio_stream::StreamExt;
use told::{allowed, came, changed, definition, request, service, told, update, update_id, update_status};
use xxhash_rust::xxh3::xxh3_128;

/// When what discovery says last changed its shape.
const CHANGESET: &str = "2026-11-24T00:00:00Z";
/// A description of 4,000 characters, escaped, and room for the rest.
const FORM_BYTES_MAX: usize = 64 * 1024;
/// Of a form with pictures, which are read and let go.
const PICTURES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a reference to a picture in an update: it stands behind the text, and half of that is the text's.
const UPDATE_URL_MAX: usize = TEXT_MAX / 2;

/// What whoever sent a picture is told.
const NOT_KEPT: &str = "The picture was not kept: refer to one elsewhere by media_url.";

/// What is wrong, for one line of an error answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// As the HTTP status.
    code: u16,
    description: String,
    /// After so many seconds it may be asked again; 0: nothing is said of it.
    retry_after_s: u64,
}

fn wrong(code: u16, description: impl Into<String>) -> Wrong {
    Wrong { code, description: description.into(), retry_after_s: 0 }
}

/// A client that is told 404 forgets what it asked for: this node may hear of it yet.
fn not_yet(description: impl Into<String>) -> Wrong {
    Wrong { retry_after_s: NOT_YET_S, ..wrong(503, description) }
}

type Answer = Result<(&'static str, Body), Vec<Wrong>>;

/// Of all that this node knows: what concerns one node below it; `None`: everything.
struct Part(Option<Address>);

impl Part {
    /// Was it filed there, or is it there by now, or on its way there?
    fn has(&self, case: &Case) -> bool {
        let filed = case.filed_for.as_ref().unwrap_or(&case.opened_at);
        self.0.as_ref().is_none_or(|part| part.covers(filed) || part.covers(case.bound_for()))
    }
}

/// Who posts something.
struct Writer {
    name: String,
    /// One app among others.
    is_app: bool,
}

/// What is posted.
struct Posted {
    /// The form's, and those of the query.
    p: Parameters,
    /// How many files were with it.
    files: usize,
    part: Part,
    writer: Writer,
}

struct Desk {
    ctx: Arc<Ctx>,
    once: Arc<Once>,
    tokens: Option<Arc<Tokens>>,
}

pub fn router(ctx: Arc<Ctx>, once: Arc<Once>) -> Router {
    let tokens = ctx.operations.tokens.clone();
    // The address alone is one that people type.
    let router = Router::new().route("/open311/v2/{*path}", any(serve));
    let router = router.route("/open311/v2/", any(serve)).route("/open311/v2", any(serve));
    router.with_state(Arc::new(Desk { ctx, once, tokens }))
}

async fn serve(
    From(desk): From<Arc<Desk>>,
    path: Option<Path<String>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: RequestBody,
) -> Response {
    let path = path.map(|Path(path)| path).unwrap_or_default();
    let (path, format) = format_of(&path, &headers);
    let has_lists = matches!(path, "requests" | "servicerequestupdates");
    // Asked for before the list is made: what came meanwhile may be in it.
    let lacking = if method == Method::POST { None } else { lacking(&desk.ctx, path) };
    let answer = if method == Method::POST {
        // A task of its own goes on when the client goes away: whoever asks again meets it, or what it made.
        let path = path.to_owned();
        let posted = tokio::spawn(async move { desk.answer(&method, &path, &uri, &headers, body).await });
        posted.await.unwrap_or_else(|e| no(500, format!("the request broke off: {e}")))
    } else {
        desk.answer(&method, path, &uri, &headers, body).await
    };
    let retry_after_s = answer.as_ref().err().and_then(|all| all.first()).map_or(0, |w| w.retry_after_s);
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
    let mut response =
        (status, [(header::CONTENT_TYPE, format.content_type())], body.write(root, format)).into_response();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = if has_lists { "GET, HEAD, POST" } else { "GET, HEAD" };
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    let lacking = lacking.filter(|_| status == StatusCode::OK);
    if let Some(lacking) = lacking.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(view::HEADER_AWAITS, lacking);
    }
    if retry_after_s > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after_s.into());
    }
    response
}

/// What an answer lacks that is not known here yet, in words: a list, or a request that may have gone on.
fn lacking(ctx: &Ctx, path: &str) -> Option<String> {
    match path.split('/').next().unwrap_or_default() {
        "requests" | "servicerequestupdates" => Some(awaited(ctx)?.lacking("cases")),
        "services" => Some(cases::look(ctx, Cases::awaited_from_above).ok()??.lacking(cases::FROM_ABOVE)),
        _ => None,
    }
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
    async fn answer(&self, method: &Method, path: &str, uri: &Uri, headers: &HeaderMap, body: RequestBody) -> Answer {
        let query = Parameters::parse(uri.query().unwrap_or_default().as_bytes(), Charset::UTF8)?;
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
                if category.form.is_empty() {
                    return no(404, format!("service_code {} has no definition: its metadata is false", category.code));
                }
                Ok(("service_definition", definition(&category)))
            }
            (false, ["requests"]) => {
                let part = self.reader(&query, headers)?;
                self.list(&query, &part).await
            }
            (false, ["requests", id]) => {
                let part = self.reader(&query, headers)?;
                let extended = query.get("extensions") == Some("true");
                let found = self.look(id, &part, |_, held| request(held, extended))?;
                Ok(("service_requests", Body::List("request", vec![found])))
            }
            (false, ["tokens", token]) => {
                let part = self.reader(&query, headers)?;
                let id = self.look(token, &part, |_, held| held.case.id.clone())?;
                let pair = vec![("service_request_id", Body::text(id.clone())), ("token", Body::text(id))];
                Ok(("service_requests", Body::List("request", vec![Body::Object(pair)])))
            }
            (false, ["servicerequestupdates"]) => {
                let part = self.reader(&query, headers)?;
                self.updates(&query, &part).await
            }
            (true, ["requests"]) => {
                let Posted { p, files, part, writer } = self.posted(query, headers, body).await?;
                self.file(p, part, &writer.name, headers, files).await
            }
            (true, ["servicerequestupdates"]) => {
                let Posted { p, files, part, writer } = self.posted(query, headers, body).await?;
                if files > 0 {
                    return no(400, "a file is not taken: refer to it by media_url");
                }
                self.update(&p, &part, &writer.name, writer.is_app).await
            }
            (true, _) => no(405, format!("nothing can be posted to /open311/v2/{path}; requests can")),
            (false, _) => no(404, format!("there is nothing at /open311/v2/{path}: see /open311/v2/discovery.xml")),
        }
    }

    // ---- who and where ---------------------------------------------------------------------

    /// Which part of the city is meant: this node with all below it, or one of those.
    fn jurisdiction(&self, p: &Parameters) -> Result<Part, Vec<Wrong>> {
        let node = &self.ctx.config.node;
        let is = |id: &str, a: &Address, code: Option<&str>| a.as_str() == id || code == Some(id);
        match p.get("jurisdiction_id") {
            Some(id) if !is(id, &node.address, node.code.as_deref()) => {
                let below = self.ctx.hub.state(|s| {
                    let mut known = s.registry.iter().filter(|(a, _)| node.address.covers(a));
                    known.find(|(a, known)| is(id, a, known.code.as_deref())).map(|(a, _)| a.clone())
                });
                let detail = || format!("jurisdiction_id {id} was not found: this is {}, with all below", node.address);
                below.map(|below| Part(Some(below))).ok_or_else(|| vec![wrong(404, detail())])
            }
            _ => Ok(Part(None)),
        }
    }

    fn holder(&self, p: &Parameters, headers: &HeaderMap) -> Option<Holder> {
        let tokens = self.tokens.as_ref()?;
        p.get("api_key").or_else(|| super::guard::bearer(headers)).and_then(|token| tokens.holder(token))
    }

    fn reader(&self, p: &Parameters, headers: &HeaderMap) -> Result<Part, Vec<Wrong>> {
        match self.holder(p, headers) {
            Some(holder) => self.admit(&holder)?,
            None if self.tokens.is_some() && !self.ctx.config.open311.public => {
                let is_given = p.get("api_key").is_some() || super::guard::bearer(headers).is_some();
                let wrong = if is_given { "Invalid api_key" } else { "api_key was not provided" };
                return no(403, format!("{wrong}: this node shows requests only to those whom it knows"));
            }
            None => {}
        }
        self.jurisdiction(p)
    }

    /// Counts a request of his.
    fn admit(&self, holder: &Holder) -> Result<(), Vec<Wrong>> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let Err(wait) = tokens.admit(holder, Instant::now()) else { return Ok(()) };
        tokens.count_refused(holder);
        let retry_after_s = guard::retry_after_s(wait);
        let description = format!("{} asks too often: again in {retry_after_s} s", holder.name);
        Err(vec![Wrong { code: 429, description, retry_after_s }])
    }

    /// Whoever names himself beside the form is judged before that is read: it may be large.
    async fn posted(&self, query: Parameters, headers: &HeaderMap, body: RequestBody) -> Result<Posted, Vec<Wrong>> {
        let is_named = query.get("api_key").is_some() || self.holder(&query, headers).is_some();
        let named = if is_named { Some(self.writer(&query, headers)?) } else { None };
        let (form, files) = form_of(headers, body).await?;
        let p = form.and(query);
        let writer = match named {
            Some(writer) => writer,
            None => self.writer(&p, headers)?,
        };
        let part = self.jurisdiction(&p)?;
        Ok(Posted { p, files, part, writer })
    }

    fn writer(&self, p: &Parameters, headers: &HeaderMap) -> Result<Writer, Vec<Wrong>> {
        match (&self.tokens, self.holder(p, headers)) {
            (None, _) => Ok(Writer { name: "anybody".to_owned(), is_app: false }),
            (Some(_), Some(h)) if matches!(h.role, TokenRole::App | TokenRole::Operator) => {
                self.admit(&h)?;
                Ok(Writer { name: h.name, is_app: h.role == TokenRole::App })
            }
            (Some(_), Some(h)) => no(403, format!("the api_key of {} may only read", h.name)),
            (Some(_), None) if p.get("api_key").is_none() => no(403, "api_key was not provided"),
            (Some(_), None) => no(403, "Invalid api_key"),
        }
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
        found.ok_or_else(|| match cases::look(&self.ctx, Cases::awaited_from_above).unwrap_or_default() {
            // It may be one of those above.
            Some(_) => vec![not_yet(format!("service_code {code} is not known here yet: ask again later"))],
            None if cases::is_call(&self.ctx, code) => {
                let way = "POST /v1/cases with \"sos\":true";
                vec![wrong(404, format!("service_code {code} is a call for help, which goes another way: {way}"))]
            }
            None => vec![wrong(404, format!("service_code {code} was not found"))],
        })
    }

    fn look<T>(&self, id: &str, part: &Part, look: impl FnOnce(&Cases, &Held) -> T) -> Result<T, Vec<Wrong>> {
        let is_shown = |held: &&Held| held.case.is_public() && part.has(&held.case);
        let found = cases::look(&self.ctx, |all| match all.get(id).filter(is_shown) {
            Some(held) => Ok(look(all, held)),
            // It may be one that the box had which stood here before.
            None if all.get(id).is_none() && !all.knows_all() => Err(unknown_yet(id)),
            None => Err(wrong(404, format!("service_request_id {id} was not found"))),
        });
        found.map_err(refused)?.map_err(|wrong| vec![wrong])
    }

    /// Newest first.
    async fn list(&self, p: &Parameters, part: &Part) -> Answer {
        let extended = p.get("extensions") == Some("true");
        // They override all else, however that is written.
        if let Some(ids) = ask::ids(p).map_err(|w| vec![w])? {
            let found = cases::look(&self.ctx, |all| {
                let is_shown = |h: &&Held| h.case.is_public() && part.has(&h.case);
                let missing = ids.iter().find(|id| all.get(id).is_none()).filter(|_| !all.knows_all());
                let known = ids.iter().filter_map(|id| all.get(id)).filter(is_shown);
                missing.map_or_else(|| Ok(known.map(|h| request(h, extended)).collect()), |id| Err(unknown_yet(id)))
            });
            let found = found.map_err(refused)?.map_err(|wrong| vec![wrong])?;
            return Ok(("service_requests", Body::List("request", found)));
        }
        let f = Filter::parse(p, self.ctx.as_of()).map_err(|w| vec![w])?;
        let within = |at: DateTime<Utc>, (from, to): (DateTime<Utc>, DateTime<Utc>)| from <= at && at <= to;
        let fits = |held: &Held| {
            let c = &held.case;
            c.is_public()
                && part.has(c)
                && f.codes.as_ref().is_none_or(|codes| codes.contains(&c.category))
                && (if c.status.is_open() { f.open } else { f.closed })
                && (within(c.opened, f.requested) || within(came(held), f.requested))
                && within(changed(held), f.updated)
        };
        let mut page = Vec::new();
        let _turn = self.ctx.turns.sweep().await.map_err(|e| refused(e.into()))?;
        let mut skip = f.skip;
        let mut before = None;
        while page.len() < f.page {
            let last = cases::look(&self.ctx, |all| {
                let (mut seen, mut last) = (0, None);
                for held in all.before(before.take(), !f.closed).take(SLICE) {
                    (seen, last) = (seen + 1, Some(&held.case));
                    match fits(held) {
                        true if skip > 0 => skip -= 1,
                        true if page.len() < f.page => page.push(request(held, extended)),
                        _ => {}
                    }
                }
                last.filter(|_| seen == SLICE).map(opened)
            });
            before = last.map_err(refused)?;
            if before.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(("service_requests", Body::List("request", page)))
    }

    /// Oldest first: whoever polls goes on from the last one's time, or with the next page. What was done while a
    /// link was down is told with the time at which it came, or he would never see it.
    async fn updates(&self, p: &Parameters, part: &Part) -> Answer {
        let date = |name| p.date(name).map_err(|w| vec![w]);
        let ends = (("start_date", date("start_date")?), ("end_date", date("end_date")?));
        let (from, to) = ask::span(ends.0, ends.1, self.ctx.as_of()).map_err(|w| vec![w])?;
        let (skip, size) = p.page().map_err(|w| vec![w])?;
        let _turn = self.ctx.turns.sweep().await.map_err(|e| refused(e.into()))?;
        // A case that changes meanwhile comes again at the end; each of its updates is one all the same.
        let mut found: BTreeSet<(DateTime<Utc>, String, u32, u32)> = BTreeSet::new();
        let mut behind = (from.timestamp_micros(), String::new());
        loop {
            let last = cases::look(&self.ctx, |all| {
                let (mut seen, mut last) = (0, None);
                for (at, held) in all.changed_behind(behind.clone()).take(SLICE) {
                    (seen, last) = (seen + 1, Some(at));
                    let steps = told(held).filter(|(_, at)| from <= *at && *at <= to);
                    let is_told = held.case.is_public() && part.has(&held.case);
                    for (e, at) in steps.filter(|(e, _)| is_told && update_status(&held.history, e).is_some()) {
                        // Most are behind the page: they cost no more than a look.
                        if found.len() >= skip + size && found.last().is_some_and(|(last, ..)| *last < at) {
                            continue;
                        }
                        found.insert((at, held.case.id.clone(), e.term, e.version));
                        if found.len() > skip + size {
                            found.pop_last();
                        }
                    }
                }
                last.filter(|_| seen == SLICE).cloned()
            });
            match last.map_err(refused)? {
                Some(last) => behind = last,
                None => break,
            }
            tokio::task::yield_now().await;
        }
        let page = cases::look(&self.ctx, |all| {
            let shown = |(at, id, term, version): &(DateTime<Utc>, String, u32, u32)| {
                let Held { case, history, .. } = all.get(id)?;
                let entry = history.iter().find(|e| (e.term, e.version) == (*term, *version))?;
                Some(update(case, entry, *at, update_status(history, entry)?))
            };
            found.iter().skip(skip).filter_map(shown).collect()
        });
        Ok(("service_request_updates", Body::List("request_update", page.map_err(refused)?)))
    }

    // ---- writing ---------------------------------------------------------------------------

    async fn file(&self, p: Parameters, part: Part, holder: &str, headers: &HeaderMap, files: usize) -> Answer {
        let new = New::parse(&p)?;
        let category = self.service(&new.service_code)?;
        let named = |f: Fault| wrong(400, format!("attribute[{}]: {}; {}", f.name, f.detail, allowed(&category, &f)));
        form::answers(&category.name, &category.form, &new.attributes)
            .map_err(|faults| faults.into_iter().map(named).collect::<Vec<_>>())?;
        let first = new.description.lines().next().unwrap_or_default();
        let case = CaseNew {
            category: category.code.clone(),
            title: if first.is_empty() { category.name.clone() } else { words::beginning(first, 60).into() },
            description: new.description.clone(),
            place: Some(new.place),
            channel: "open311".into(),
            form: new.attributes,
            media: new.media,
            contact: new.contact,
            by: format!("{OPEN311}{holder}"),
            ..CaseNew::default()
        };
        let once = if headers.contains_key(once::HEADER) {
            let word = once::word_of(headers).map_err(refused)?;
            let request = format!("{:032x}", xxh3_128(format!("{files} {}", p.written()).as_bytes()));
            self.once.take(format!("open311 {holder} {word}"), request, (once::KEY, &word)).map_err(refused)?
        } else {
            Repeat::default()
        };
        let made = match once.made(&self.ctx).map_err(refused)? {
            Some(made) => made,
            None => cases::open_new(&self.ctx, case, part.0, &once).await.map_err(refused)?,
        };
        let mut notice = Vec::new();
        if let Some(chars) = shortened(&new.description) {
            notice.push(format!("Of the description the first {chars} characters are kept."));
        }
        if files > 0 {
            notice.push(NOT_KEPT.to_owned());
        }
        if new.address_id_unkept {
            notice.push("The address_id was not kept: the address_string is.".to_owned());
        }
        let told = vec![
            ("service_request_id", Body::text(made.about)),
            ("service_notice", Body::text(notice.join(" "))),
            ("account_id", Body::Null),
        ];
        Ok(("service_requests", Body::List("request", vec![Body::Object(told)])))
    }

    async fn update(&self, p: &Parameters, part: &Part, holder: &str, is_app: bool) -> Answer {
        let Some(id) = p.get("service_request_id") else { return no(400, "service_request_id was not provided") };
        let text = p.get("description").unwrap_or_default();
        if text.chars().count() > ask::DESCRIPTION_MAX {
            return no(400, format!("description is longer than {} characters", ask::DESCRIPTION_MAX));
        }
        let media = p.get("media_url").unwrap_or_default();
        if !media.is_empty() && !ask::is_url(media) {
            return no(400, "media_url is no http or https URL");
        }
        if media.len() > UPDATE_URL_MAX {
            return no(400, format!("media_url is longer than {UPDATE_URL_MAX} bytes"));
        }
        // It is told with this node's own time; what is none was meant to be one.
        p.date("updated_datetime").map_err(|w| vec![w])?;
        let given = p.get("update_id").filter(|word| !word.is_empty());
        if given.is_none() && text.is_empty() && media.is_empty() && p.get("status").is_none() {
            return no(400, "nothing is said: description, status or media_url");
        }
        let word = p.get("status").unwrap_or("UNCHANGED").to_ascii_uppercase();
        // Everybody may say something; the resident's word is for whoever brought it.
        let own = format!("{OPEN311}{holder}");
        let (his, now) = (is_app.then_some(holder), self.ctx.as_of());
        let standing = self.look(id, part, |all, held| Standing::of(all, held, his, now))?;
        let Some((verb, solved)) = said::says(&word, standing) else {
            return no(400, format!("status {word} is not known: one of {}", said::known()));
        };
        if verb != Verb::Comment && !standing.is_his {
            let detail = format!("{id} was not filed with this api_key: OPEN and UNCHANGED say something about it");
            return no(403, detail);
        }
        let said = if text.is_empty() { word.to_lowercase() } else { text.to_owned() };
        // A line of its own, which is how it is told again.
        let said = if media.is_empty() { said } else { format!("{}\n{media}", kept(&said, media.chars().count() + 1)) };
        let ask = Ask { by: own, role: Some(Role::Resident), text: Some(said), solved, ..Ask::default() };
        // Sent again under the sender's own id it is the same update, whatever it says.
        let name = given.map(|word| format!("{:032x}", xxh3_128(format!("{holder}\0{id}\0{word}").as_bytes())));
        let once = match (&name, given) {
            (Some(name), Some(word)) => {
                self.once.take(name.clone(), String::new(), ("update_id", word)).map_err(refused)?
            }
            _ => Repeat::default(),
        };
        let made = match once.made(&self.ctx).map_err(refused)? {
            Some(made) => made,
            None => {
                let lane = cases::lane_of(&self.ctx, id);
                let (id, is_named) = (id.to_owned(), name.is_some());
                let wish = name.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
                let step = move |brain: &Brain, now_us| {
                    let asks = if is_named { Cases::ask_named } else { Cases::ask };
                    let (case, told, drafts) = asks(&brain.cases, &id, verb, &ask, &wish, now_us)?;
                    let (about, asked) = match told {
                        Told::Done { term, version } if !is_named => (update_id(&case, term, version), None),
                        Told::Done { .. } => (wish, None),
                        Told::Sent { to, wish } => (wish, Some(to)),
                    };
                    Ok((Made { about, is_new: false, asked }, drafts))
                };
                cases::make(&self.ctx, lane, &once, step).await.map_err(refused)?
            }
        };
        let update_id = made.about;
        let told = Body::Object(vec![("update_id", Body::text(update_id))]);
        Ok(("service_request_updates", Body::List("request_update", vec![told])))
    }
}

/// How many characters a case keeps of one that has more; what is no text in it does not count.
fn shortened(description: &str) -> Option<usize> {
    let chars = |text: &str| text.chars().filter(|c| !c.is_control()).count();
    let kept = chars(&described(description));
    (kept < chars(description)).then_some(kept)
}

/// The form, and how many files were with it.
async fn form_of(headers: &HeaderMap, body: RequestBody) -> Result<(Parameters, usize), Vec<Wrong>> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let too_large = |most: usize| no(413, format!("a form may have {most} bytes"));
    let bad = |why: String| vec![wrong(400, why)];
    if let Some(mut form) = multipart::Form::of(given) {
        let mut read = 0;
        let mut body = body.into_data_stream();
        while let Some(part) = body.next().await {
            let part = part.map_err(|e| bad(format!("the form broke off: {e}")))?;
            read += part.len();
            if read > PICTURES_BYTES_MAX {
                return too_large(PICTURES_BYTES_MAX);
            }
            form.push(&part).map_err(bad)?;
        }
        let (fields, files) = form.done().map_err(bad)?;
        return Ok((Parameters::of(fields.into_iter())?, files));
    }
    let kind = given.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let detail = format!(
            "content type `{kind}` is not taken: post a form, application/x-www-form-urlencoded or multipart/form-data"
        );
        return no(400, detail);
    }
    match axum::body::to_bytes(body, FORM_BYTES_MAX).await {
        Ok(body) => Ok((Parameters::parse(&body, Charset::of(given).unwrap_or(Charset::UTF8))?, 0)),
        Err(_) => too_large(FORM_BYTES_MAX),
    }
}

fn no<T>(code: u16, description: impl Into<String>) -> Result<T, Vec<Wrong>> {
    Err(vec![wrong(code, description)])
}

/// Nothing is said of it before this node has heard from the others.
fn unknown_yet(id: &str) -> Wrong {
    not_yet(format!("service_request_id {id} is not known here yet: ask again later"))
}

/// The node's own refusals, in the specification's words: 404 for what is not there, 503 and 504 for
/// a node that cannot, 409 and 422 for a word that is taken, 400 for all else.
fn refused(r: Refusal) -> Vec<Wrong> {
    let error = r.failure.error.as_str();
    let (status, is_not_yet) = (r.status.as_u16(), error == "not-yet");
    let keeps = [once::UNDER_WAY, once::KEY_USED].contains(&error);
    let parts = [r.failure.detail, r.failure.hint];
    let text = parts.into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join("; ");
    vec![match status {
        _ if is_not_yet => not_yet(text),
        code @ (403 | 404 | 500..) => wrong(code, text),
        code if keeps => wrong(code, text),
        _ => wrong(400, text),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brain::cases::Opening;
    use citybrain_shared::case::Contact;
    use citybrain_shared::config::{Variables, parse};

    fn a(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    /// A lamp that the city is told of for that node below it.
    fn filed_for(to: &str, tier: &str) -> Case {
        let text =
            format!("[node]\naddress = \"c\"\ndata = \"d\"\n[[category]]\ncode = \"LAMP\"\nname = \"路灯\"\n{tier}");
        let cases = Cases::new(&parse(&text, &Variables::new()).config.unwrap());
        let opening = Opening { id: "1".into(), category: "LAMP".into(), bound_for: Some(a(to)), ..Opening::default() };
        cases.open(opening, Contact::default(), 1_795_140_000_000_000).0
    }

    #[test]
    fn a_request_belongs_to_the_part_that_it_was_filed_for_wherever_it_has_gone_since() {
        let mut case = filed_for("c/s/a", "");
        assert_eq!(case.bound_for(), &a("c/s/a"));
        // That node has taken it, and passed it on.
        (case.owner, case.handing_to) = (a("c/t"), None);
        let has = |part: &str| Part(Some(a(part))).has(&case);
        assert!(has("c/s/a") && has("c/s") && has("c/t"));
        assert!(!has("c/s/b"));
    }

    #[test]
    fn a_request_for_a_node_below_goes_to_the_tier_that_handles_its_category() {
        for (tier, handles) in [("street", "c/s"), ("community", "c/s/a")] {
            let case = filed_for("c/s/a/n", &format!("tier = \"{tier}\"\n"));
            assert_eq!(case.bound_for(), &a(handles), "{tier}");
            assert!(Part(Some(a("c/s/a/n"))).has(&case), "who filed it finds it there");
        }
        assert_eq!(filed_for("c/s", "tier = \"neighbourhood\"\n").bound_for(), &a("c/s"));
    }
}
