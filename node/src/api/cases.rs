//! Cases: listed, shown, opened, brought, stepped.
//!
//! A step of a case that another node owns is sent there: the answer is then 202 and names that node;
//! what came of it is in the case's history, or among its `wishes` if it was refused.

use super::commit::{self, Late};
use super::guard::{Caller, Name};
use super::input::{Nothing, Path, Sent, limited, parse, query};
use super::once::{Made, Repeat};
use super::ops::Operator;
use super::{Ctx, NOT_YET_S, Refusal, etag, nodes, resident, supervision, with_next};
use crate::brain::Brain;
use crate::brain::cases::booking::OfService;
use crate::brain::cases::counts::OfCategory;
use crate::brain::cases::machine;
use crate::brain::cases::{self, Cases, Held, Opening, Told, intake, letter};
use crate::brain::form;
use axum::body::Bytes;
use axum::extract::State as From;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use chrono::{DateTime, Utc};
use citybrain_hub::operator;
use citybrain_hub::state::State;
use citybrain_shared::case::{self, Ask, Assist, Case, Kind, Place, Role, Status, Verb};
use citybrain_shared::config::cases::Category;
use citybrain_shared::config::closest;
use citybrain_shared::event::GOVERNANCE;
use citybrain_shared::record::Draft;
use citybrain_shared::view::{Failure, OfOthers};
use citybrain_shared::{Address, Lane, view, words};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

const CASES_DEFAULT: usize = 100;
const CASES_MAX: usize = 1000;
/// Cases that are looked at in one go: the state stays locked for a millisecond or two.
pub(super) const SLICE: usize = 2_000;
/// References to pictures of one case, and bytes of each.
pub(super) const MEDIA_MAX: usize = 10;
pub(super) const URL_MAX: usize = 2_000;
/// A reference in a case's history, characters: it travels with the case, and is never cut.
const EVIDENCE_CHARS_MAX: usize = 300;
/// Accounts in one import: one group of records, a few milliseconds of work.
const ACCOUNTS_MAX: usize = 256;

impl std::convert::From<cases::Refusal> for Refusal {
    fn from(r: cases::Refusal) -> Refusal {
        let status = match r.error {
            "moved-on" => StatusCode::PRECONDITION_FAILED,
            "not-found" => StatusCode::NOT_FOUND,
            "missing" | "bad-request" | "bad-limit" | "which-assist" | "foreign-node" => StatusCode::BAD_REQUEST,
            "full" | "not-yet" => StatusCode::SERVICE_UNAVAILABLE,
            machine::NOT_YOUR_ROLE | "handler" | "own-approval" | "not-the-caller" => StatusCode::FORBIDDEN,
            _ => StatusCode::CONFLICT,
        };
        // A client that is told 404, or that it is wrong, forgets what it asked for: this node may hear of it yet.
        let retry_after_s = if r.error == "not-yet" { NOT_YET_S } else { 0 };
        Refusal::new(status, r.error, r.detail, r.hint).after(retry_after_s)
    }
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// A status, `open`, or `all` (default).
    status: Option<String>,
    /// Code or name.
    category: Option<String>,
    kind: Option<Kind>,
    /// Cases that this node or one below it owns.
    owner: Option<Address>,
    /// Only those owned by exactly this node: what it has to do.
    mine: bool,
    overdue: bool,
    /// Closed once, and open again or closed again.
    reopened: bool,
    /// Open and suspended: its clock stands still, if it had not run out before.
    suspended: bool,
    /// Open, and somebody above its owner supervises it.
    escalated: bool,
    urgent: bool,
    /// Open cases of others to which a unit of exactly this node was summoned and has not reported yet.
    summoned: bool,
    /// The unit that handles it, or that was summoned to it and has not reported yet.
    unit: Option<String>,
    department: Option<String>,
    /// Code or name: those that ask for it, the earliest appointment first, with whom to call.
    service: Option<String>,
    /// Whose service, where several nodes have one of that code.
    of: Option<Address>,
    /// At most so many, 1 to 1000; default 100.
    limit: Option<NonZeroUsize>,
    /// Cases behind the one with this id.
    after: Option<String>,
}

pub async fn list(
    From(ctx): From<Arc<Ctx>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let wanted: Wanted = query(&uri)?;
    let limit = limited(wanted.limit, CASES_DEFAULT, CASES_MAX)?;
    let status = wanted.status.as_deref().filter(|s| !["open", "all"].contains(s));
    let status: Option<Status> = status.map(str::parse).transpose().map_err(|e| bad_word(e, &wanted))?;
    let now = ctx.as_of();
    let me = ctx.config.node.address.clone();
    let is_units = |a: &Assist| wanted.unit.as_ref().is_none_or(|unit| a.unit == *unit);
    let is_mine = |a: &Assist| a.node.as_ref() == Some(&me);
    let is_summoned = |c: &Case| c.owner != me && c.status.is_open() && awaits(c).any(|a| is_mine(a) && is_units(a));
    let category = wanted.category.clone().map(|word| of_category(&ctx, word)).transpose()?;
    if wanted.of.is_some() && wanted.service.is_none() {
        return Err(Refusal::bad("bad-query", "`of` says whose service, and none is named", "add `?service=CODE`"));
    }
    let service = wanted.service.as_deref().map(|word| service_named(&ctx, word, wanted.of.as_ref())).transpose()?;
    // `c`: how it stands though its owner, who `says` otherwise, may not have heard of it yet.
    let fits = |c: &Case, says: Status| {
        status.is_none_or(|s| c.status == s || says == s)
            && (wanted.status.as_deref() != Some("open") || c.status.is_open())
            && category.as_ref().is_none_or(|category| category.holds(c))
            && wanted.kind.is_none_or(|k| k == c.kind)
            && wanted.owner.as_ref().is_none_or(|o| o.covers(&c.owner))
            && (!wanted.mine || c.owner == me)
            && (!wanted.overdue || (c.status.is_open() && c.concerns(&me) && c.is_overdue(now)))
            && (!wanted.reopened || c.reopened > 0)
            && (!wanted.suspended || c.suspended.is_some())
            && (!wanted.escalated || (c.status.is_open() && c.is_watched()))
            && (!wanted.urgent || c.urgent)
            && (!wanted.summoned || is_summoned(c))
            && wanted.unit.as_ref().is_none_or(|unit| c.unit_at_work() == Some(unit) || awaits(c).any(is_units))
            && wanted.department.as_ref().is_none_or(|department| c.department == *department)
    };
    // The node whose service of that code it asks for, if that is not the one that is meant.
    let of_another = |c: &Case| {
        let booking = c.booking.as_ref().zip(service.as_ref());
        booking.filter(|(booking, service)| !service.holds(booking)).map(|(booking, _)| booking.node.clone())
    };
    let place = |c: &Case| if service.is_some() { cases::booked(c) } else { cases::opened(c) };
    let is_before = |c: &Case, after: &(i64, String)| match service.is_some() {
        true => place(c) <= *after,
        false => place(c) >= *after,
    };
    let (all, mut open, mut overdue, (all_elsewhere, mut open_elsewhere)) =
        look(&ctx, |cases| (cases.count() as u64, cases.open_of_below(), cases.overdue(now), cases.elsewhere()))?;
    let stands_beside = wanted.suspended || wanted.escalated;
    let only_open = stands_beside
        || wanted.overdue
        || wanted.summoned
        || status.map_or(wanted.status.as_deref() == Some("open"), Status::is_open);
    // What there is for an app is only found by looking at all.
    let sees_all = !matches!(caller, Caller::App(_));
    if !sees_all {
        (open, overdue, open_elsewhere) = (0, 0, 0);
    }
    let is_any = sees_all && wanted.is_any();
    let (mut page, mut fit, mut fit_elsewhere, mut more): (Vec<Case>, u64, u64, bool) = (Vec::new(), 0, 0, false);
    let after = wanted.after.as_ref().map(|id| place_of(&ctx, &caller, id, place)).transpose()?;
    let (mut contacts, mut coming) = (BTreeMap::new(), BTreeMap::new());
    let (mut not_coming, mut not_over) = (BTreeMap::new(), BTreeMap::new());
    let mut of_others: Option<OfOthers> = None;
    let mut seen_last = after.clone().filter(|_| is_any);
    loop {
        let last = look(&ctx, |cases| {
            let (mut seen, mut last) = (0, None);
            let then = seen_last.take();
            let behind: Box<dyn Iterator<Item = &Held>> = match &service {
                Some(service) => Box::new(cases.asking_for(&service.code, then)),
                None => Box::new(cases.before(then, only_open)),
            };
            for held in behind.take(SLICE) {
                (seen, last) = (seen + 1, Some(&held.case));
                if !caller.sees(held, &me) {
                    continue;
                }
                // What an app is not shown is not asked for either.
                let case = if sees_all { Cow::Borrowed(&held.case) } else { Cow::Owned(resident::case(held)) };
                let known = held.known(&case);
                if !sees_all && known.status.is_open() {
                    open += 1;
                    overdue += u64::from(known.is_overdue(now));
                }
                if !fits(&known, case.status) {
                    continue;
                }
                if let Some(node) = of_another(&case) {
                    of_others.get_or_insert(OfOthers { cases: 0, such_as: node }).cases += 1;
                    continue;
                }
                fit += 1;
                fit_elsewhere += u64::from(sees_all && !me.covers(&case.owner));
                if after.as_ref().is_some_and(|after| is_before(&case, after)) {
                    continue;
                }
                if page.len() < limit {
                    let contact = held.contact.clone().filter(|_| service.is_some() && caller.sees_persons());
                    contacts.extend(contact.map(|contact| (case.id.clone(), contact)));
                    if held.who_comes().next().is_some() {
                        let who = held.who_comes().cloned();
                        let who =
                            if sees_all { who.collect() } else { who.map(resident::who_comes).collect::<Vec<_>>() };
                        coming.insert(case.id.clone(), who);
                    }
                    for (said, all) in [(held.not_coming(), &mut not_coming), (held.not_over(), &mut not_over)] {
                        let said = said.cloned().map(|said| if sees_all { said } else { resident::denied(said) });
                        all.extend(said.map(|said| (case.id.clone(), said)));
                    }
                    page.push(case.into_owned());
                } else {
                    more = true;
                    if is_any {
                        return None;
                    }
                }
            }
            last.filter(|_| seen == SLICE).map(place)
        })?;
        let Some(last) = last else { break };
        seen_last = Some(last);
        tokio::task::yield_now().await;
    }
    if is_any {
        (fit, fit_elsewhere) = (all, all_elsewhere);
    }
    if let Some(category) = wanted.category.as_deref().filter(|_| fit == 0) {
        is_heard_of(&ctx, &caller, category).await?;
    }
    // An app is told nothing of the nodes.
    if let Some(owner) = wanted.owner.as_ref().filter(|_| fit == 0 && sees_all) {
        nodes::is_heard_of(&ctx, owner).await?;
    }
    let next = page.last().filter(|_| more).map(|c| c.id.clone());
    let away = if sees_all { supervision::away(&ctx, wanted.owner.as_ref()) } else { Vec::new() };
    let awaits = supervision::awaited(&ctx).map(|a| if sees_all { a } else { a.without_nodes() });
    let next_page = next.clone();
    let of = service.as_ref().and_then(OfService::node).cloned();
    let body = view::Cases {
        cases: page,
        fit,
        fit_elsewhere,
        open,
        overdue,
        open_elsewhere,
        contacts,
        coming,
        not_coming,
        not_over,
        // Who says whose it is knows that there are others.
        of_others: of_others.filter(|_| of.is_some() && wanted.of.is_none()),
        of,
        away,
        awaits,
        next: next_page,
    };
    let response = etag::answer(&ctx, &headers, body);
    Ok(with_next(response, &uri, next))
}

/// The service that is offered here under that word, the nearest, or what cases here ask for under it.
fn service_named(ctx: &Ctx, word: &str, of: Option<&Address>) -> Result<OfService, Refusal> {
    let found = look_by(ctx, |brain| match brain.services.find(word, of) {
        Ok((node, service)) => Ok(OfService::offered(node, service)),
        Err(unknown) => brain.cases.asked_for(word, of).ok_or_else(|| not_yet(brain, unknown)),
    })?;
    Ok(found?)
}

/// A service that is not known here may be offered above, or asked for by a case that others know.
fn not_yet(brain: &Brain, unknown: cases::Refusal) -> cases::Refusal {
    match brain.cases.awaited().filter(|_| unknown.error == "not-found") {
        Some(awaits) => {
            let detail = format!("{}, as far as is known: {}", unknown.detail, awaits.whole("cases"));
            cases::Refusal::new("not-yet", detail, awaits.hint())
        }
        None => unknown,
    }
}

/// The summons of a case to which nobody has answered yet.
fn awaits(case: &Case) -> impl Iterator<Item = &Assist> {
    case.assists.iter().filter(|a| a.reported.is_none())
}

/// What a list of categories lacks while the parent is awaited, in words.
pub(super) const FROM_ABOVE: &str = "categories from above";

/// By whatever it is called here, or was when a case was opened.
pub(super) fn of_category(ctx: &Ctx, word: String) -> Result<OfCategory, Refusal> {
    Ok(OfCategory::new(word, &look(ctx, Cases::categories)?))
}

/// Is it a category of this node, of what a rule of it opens, or of any case here? A list that is empty because of a
/// slip says so.
pub(super) async fn is_heard_of(ctx: &Ctx, caller: &Caller, category: &str) -> Result<(), Refusal> {
    let me = &ctx.config.node.address;
    let look_up =
        |brain: &Brain| (brain.cases.categories(), brain.in_force(), brain.cases.awaited_from_above().is_none());
    let (known, rules, is_told) = look_by(ctx, look_up)?;
    // What the parent knows it has not said yet: the list says that some may be missing.
    let is_known = !is_told || known.iter().any(|c| c.code == category || c.name == category);
    if is_known || rules.rule.iter().flat_map(|rule| &rule.then).any(|action| action.opens() == Some(category)) {
        return Ok(());
    }
    let mut before = None;
    loop {
        let (is_there, last) = look(ctx, |cases| {
            let slice = || cases.before(before.clone(), false).take(SLICE);
            let is_of = |c: &Case| c.category == category || c.category_name == category;
            let is_there = slice().any(|held| is_of(&held.case) && caller.sees(held, me));
            (is_there, slice().nth(SLICE - 1).map(|held| cases::opened(&held.case)))
        })?;
        match last {
            _ if is_there => return Ok(()),
            Some(last) => before = Some(last),
            None => break,
        }
        tokio::task::yield_now().await;
    }
    let detail = format!("`{category}` is no category of this node or its rules, nor of any case here");
    Err(Refusal::bad("bad-query", detail, near_or_all(category, &known)))
}

/// What was meant by a category that is none, or which there are.
fn near_or_all(category: &str, known: &[Category]) -> String {
    let names = known.iter().flat_map(|c| [c.code.as_str(), c.name.as_str()]);
    match closest(category, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "no category is known here".to_owned(),
        None => format!("known here: {}", known.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")),
    }
}

/// Where in the list that case is.
fn place_of(
    ctx: &Ctx,
    caller: &Caller,
    id: &str,
    place: impl Fn(&Case) -> (i64, String),
) -> Result<(i64, String), Refusal> {
    let me = &ctx.config.node.address;
    let seen = |held: &&Held| caller.sees(held, me);
    let found = look(ctx, |cases| cases.get(id).filter(seen).map(|held| place(&held.case)))?;
    found.ok_or_else(|| {
        let detail = format!("`after={id}` names no case of this node");
        Refusal::bad("bad-query", detail, "give `?after=NEXT`, with the `next` of the page before, or begin anew")
    })
}

impl Wanted {
    /// Does every case fit?
    fn is_any(&self) -> bool {
        let Wanted {
            status,
            category,
            kind,
            owner,
            mine,
            overdue,
            reopened,
            suspended,
            escalated,
            urgent,
            summoned,
            unit,
            department,
            service,
            of: _,
            limit: _,
            after: _,
        } = self;
        status.as_deref().is_none_or(|s| s == "all")
            && [category, unit, department, service].iter().all(|text| text.is_none())
            && kind.is_none()
            && owner.is_none()
            && !(*mine || *overdue || *reopened || *suspended || *escalated || *urgent || *summoned)
    }
}

pub async fn show(
    From(ctx): From<Arc<Ctx>>,
    caller: Caller,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Nothing {} = query(&uri)?;
    let (shown, tag) = shown(&ctx, &caller, &id, None)?;
    Ok(if etag::is_known(&headers, &tag) { etag::unchanged(tag) } else { etag::tagged(ctx.answer(shown), tag) })
}

/// The case that is meant. An app names one of its own, and whole: what else there is must not show in a refusal.
fn find<'c>(cases: &'c Cases, caller: &Caller, me: &Address, id: &str) -> Result<&'c Held, cases::Refusal> {
    let Caller::App(_) = caller else { return cases.find(id) };
    let own = cases.get(id).filter(|held| caller.sees(held, me));
    own.ok_or_else(|| {
        let detail = format!("this token has brought no case `{id}` to {me}");
        cases::Refusal::new("not-found", detail, "`citybrain case list` shows those that it brought")
    })
}

fn of_held(
    brain: &Brain,
    held: &Held,
    (caller, me): (&Caller, &Address),
    asked: Option<Address>,
    now: DateTime<Utc>,
) -> view::CaseShown {
    let wish = |w: &cases::Wish| view::CaseWish {
        id: w.id.clone(),
        verb: w.verb,
        by: w.by.clone(),
        to: w.to.clone(),
        refused: w.refused.clone(),
    };
    let role = matches!(caller, Caller::App(_)).then_some(Role::Resident);
    let known = held.as_known();
    view::CaseShown {
        case: Case { followers: brain.cases.followers(&held.case), ..held.case.clone() },
        history: held.history.clone(),
        overdue: known.concerns(me) && known.is_overdue(now),
        due: view::Due::of(&known),
        words: known.words(),
        allowed: brain.cases.allowed(held, role, now),
        unproven: brain.cases.is_unproven(&held.case.id),
        awaits: brain.cases.case_awaits(held),
        asked,
        wishes: held.wishes.iter().map(wish).collect(),
        coming: held.who_comes().cloned().collect(),
        not_coming: held.not_coming().cloned(),
        not_over: held.not_over().cloned(),
        moved_to: held.moved_to.clone(),
        forgotten_here: held.to_forget.is_some(),
        contact: held.contact.clone().filter(|_| caller.sees_persons()),
        contact_withheld: held.contact.is_some() && !caller.sees_persons(),
        similar: brain.cases.similar(&held.case).into_iter().map(|other| similar(&held.case, other)).collect(),
        alarm: held.case.alarm.as_deref().and_then(|id| brain.rules.alarms.get(id)).cloned(),
    }
}

/// What tells whether the other is about the same.
fn similar(case: &Case, other: &Case) -> view::SimilarCase {
    let category = if other.category_name.is_empty() { &other.category } else { &other.category_name };
    view::SimilarCase {
        id: other.id.clone(),
        title: other.title.clone(),
        category: category.clone(),
        status: other.status,
        owner: other.owner.clone(),
        opened: other.opened,
        distance_m: case.place.as_ref().zip(other.place.as_ref()).and_then(|(a, b)| a.metres_to(b)),
    }
}

/// `POST /v1/cases`. 201 after the fsync; 200 when the same `key` has opened it before, or
/// when it is a call for help from a place that has an open incident already: it is recorded on that.
pub async fn open(
    From(ctx): From<Arc<Ctx>>,
    caller: Caller,
    name: Name,
    repeat: Repeat,
    Sent(body): Sent,
) -> Result<Response, Refusal> {
    let read = parse(&body, "{\"category\":\"路灯\",\"title\":\"…\",\"by\":\"…\"}");
    let mut new: view::CaseNew = read.or_else(|refusal| as_press(&ctx, &body).ok_or(refusal))?;
    new.by = caller.acts_as(new.by)?;
    // A worker's token has his name, and an app's that of no person.
    if caller == Caller::Operator {
        cases::names_reporter(&new.by, new.role, &mut new.contact);
    }
    new.key = new.key.map(|key| name.own(key));
    let made = match repeat.made(&ctx)? {
        Some(made) => made,
        None => open_new(&ctx, new, None, &repeat).await?,
    };
    answer_made(&ctx, &caller, made)
}

/// Is a category of that name or code one of calls for help here?
pub(super) fn is_call(ctx: &Ctx, category: &str) -> bool {
    look(ctx, |cases| cases.is_call(category)).unwrap_or(false)
}

/// A call for help that is written otherwise than it should be: what can be read of it.
fn as_press(ctx: &Ctx, body: &Bytes) -> Option<view::CaseNew> {
    let said: Value = serde_json::from_str(&words::readable(body)).ok()?;
    let text = |name: &str| intake::word(&said[name]).unwrap_or_default();
    let is_call = case::says_sos(&said["sos"]) || look(ctx, |cases| cases.is_call(&text("category"))).ok()?;
    is_call.then(|| view::CaseNew {
        category: text("category"),
        title: text("title"),
        description: text("description"),
        place: intake::place(&said),
        sos: true,
        channel: text("channel"),
        contact: intake::contact(&said, false),
        by: text("by"),
        key: intake::word(&said["key"]),
        ..view::CaseNew::default()
    })
}

/// Of a call for help nothing that is wrong beside it keeps it away: what cannot be is left out.
fn without_faults(new: view::CaseNew) -> view::CaseNew {
    let is_there = new.place.as_ref().is_none_or(Place::is_one);
    let place = new.place.map(|place| if is_there { place } else { Place { lat: None, lon: None, ..place } });
    let media = new.media.into_iter().filter(|url| is_on_the_web(url)).take(MEDIA_MAX).collect();
    let by = if new.by.trim().is_empty() { "api".to_owned() } else { new.by };
    let governance = new.governance.filter(|word| GOVERNANCE.contains(&word.as_str()));
    view::CaseNew { place, media, by, governance, ..new }
}

/// Rates have a row for each.
fn is_governance(word: &str) -> Result<(), Refusal> {
    if GOVERNANCE.contains(&word) {
        return Ok(());
    }
    let hint = match closest(word, GOVERNANCE.into_iter()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", GOVERNANCE.join(", ")),
    };
    Err(Refusal::bad("bad-governance", format!("`{word}` is no kind of governance"), hint))
}

pub(super) fn on_earth(place: &Place) -> Result<(), Refusal> {
    if place.is_one() {
        return Ok(());
    }
    let detail = "`lat` is -90 to 90 and `lon` -180 to 180 degrees, both or neither";
    Err(Refusal::bad("bad-place", detail, "such as 30.698 and 103.8368"))
}

/// What a call for help from there is known again by: its words, or degrees to some ten metres.
fn spot(place: &Place) -> String {
    match (place.text.trim(), place.lat, place.lon) {
        ("", Some(lat), Some(lon)) => format!("{lat:.4}, {lon:.4}"),
        (text, ..) => text.to_owned(),
    }
}

/// Something that a browser may be led to: no `javascript:`, and nothing that splits into two.
fn is_on_the_web(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty())
        && url.len() <= URL_MAX
        && !url.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// `NAME=REFERENCE`, or a reference alone. One that has a scheme is an http or https URL; any other is a
/// name that means something to whoever gave it. Whoever shows it splits at the first `=`, so that what stands
/// behind that is judged whatever the name is; a URL's own is none.
fn is_evidence(text: &str) -> bool {
    let is_url = text.starts_with("https://") || text.starts_with("http://");
    let named = text.split_once('=').filter(|_| !is_url).map(|(_, reference)| reference);
    text.chars().count() <= EVIDENCE_CHARS_MAX && [Some(text), named].into_iter().flatten().all(is_reference)
}

fn is_reference(text: &str) -> bool {
    let scheme = text.trim().split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_on_the_web(text) || (!is_scheme && !text.contains(char::is_control))
}

fn are_evidence(evidence: &[String]) -> Result<(), Refusal> {
    match evidence.iter().find(|e| !is_evidence(e)) {
        None => Ok(()),
        Some(bad) => {
            let shown = words::short(bad);
            let detail = format!(
                "`{shown}` is neither an http or https URL nor a name, of at most {EVIDENCE_CHARS_MAX} characters"
            );
            Err(Refusal::bad("bad-media", detail, "such as photo-after=https://photos.example/1.jpg, or 档案7"))
        }
    }
}

fn on_the_web(media: &[String]) -> Result<(), Refusal> {
    if media.len() <= MEDIA_MAX && media.iter().all(|url| is_on_the_web(url)) {
        return Ok(());
    }
    let detail = format!("`media` is at most {MEDIA_MAX} http or https URLs of at most {URL_MAX} bytes");
    Err(Refusal::bad("bad-media", detail, "such as https://photos.example/1.jpg"))
}

/// Opens a case after the fsync.
pub(super) async fn open_new(
    ctx: &Ctx,
    new: view::CaseNew,
    bound_for: Option<Address>,
    repeat: &Repeat,
) -> Result<Made, Refusal> {
    let look_up =
        |cases: &Cases| (cases.categories(), new.sos || cases.is_call(&new.category), cases.awaited_from_above());
    let (known, is_call, awaits) = look(ctx, look_up)?;
    let new = if is_call { without_faults(view::CaseNew { sos: true, ..new }) } else { new };
    let named = |c: &&Category| c.code == new.category || c.name == new.category;
    if !known.is_empty() && !new.sos && known.iter().find(named).is_none() {
        let hint = near_or_all(&new.category, &known);
        return Err(match (new.category.trim(), awaits) {
            ("", _) => Refusal::bad("bad-category", "`category` is missing: what it is about", hint),
            (other, None) => Refusal::bad("bad-category", format!("`{other}` is no category of this node"), hint),
            (other, Some(awaits)) => {
                let whole = awaits.whole(FROM_ABOVE);
                let detail = format!("`{other}` is no category of this node, as far as is known: {whole}");
                cases::Refusal::new("not-yet", detail, awaits.hint()).into()
            }
        });
    }
    if let Some(place) = &new.place {
        on_earth(place)?;
    }
    on_the_web(&new.media)?;
    new.governance.as_deref().map_or(Ok(()), is_governance)?;
    let mut contact = new.contact.clone();
    let answers = match known.iter().find(named) {
        _ if new.sos => form::Answers::default(),
        Some(c) => form::answers(&c.name, &c.form, &new.form).map_err(cases::Refusal::of_form)?,
        None => form::answers(&new.category, &[], &new.form).map_err(cases::Refusal::of_form)?,
    };
    contact.more.extend(answers.personal);
    let has_contact = !contact.is_empty();
    if new.by.trim().is_empty() {
        return Err(Refusal::bad("missing", "`by` is missing: who opens it", r#"`"by":"NAME"`"#));
    }
    let source = format!("/{}/cases", ctx.address());
    let key = new.key.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let place = new.place.as_ref().map(spot).unwrap_or_default();
    // Who presses through an app is shown what it brought: it joins no press of somebody else's.
    let pressed = if new.by.starts_with(machine::APP) { format!("{source} {}", new.by) } else { source.clone() };
    let button = (new.sos && !place.is_empty()).then(|| intake::button(&pressed, &place));
    let channel = if new.channel.is_empty() { "api".into() } else { new.channel.clone() };
    let lane = letter::lane(new.sos);
    let opening = move |id| Opening {
        id,
        event: None,
        alarm: None,
        button: button.clone(),
        by: new.by.clone(),
        sos: new.sos,
        kind: new.kind,
        category: new.category.clone(),
        title: new.title.clone(),
        description: new.description.clone(),
        place: new.place.clone(),
        form: answers.open.clone(),
        media: new.media.clone(),
        channel: channel.clone(),
        governance: new.governance.clone(),
        has_contact,
        booking: None,
        bound_for: bound_for.clone(),
        note: String::new(),
    };
    make(ctx, lane, repeat, move |brain, now_us| {
        let cases = &brain.cases;
        let opening = match cases.keyed(&source, &key, view::time_of(now_us)) {
            Ok(known) => return Ok((Made::known(known), Vec::new())),
            Err(new) => opening(new),
        };
        if let Some((id, drafts)) = cases.pressed_again(&opening, &contact, now_us) {
            return Ok((Made::known(id), drafts));
        }
        cases.has_room(opening.sos)?;
        let (case, drafts) = cases.open(opening, contact, now_us);
        Ok((Made { about: case.id, is_new: true, asked: None }, drafts))
    })
    .await
}

/// `POST /v1/cases/import`: cases that another system ran. Who did it is recorded.
pub async fn import(From(ctx): From<Arc<Ctx>>, who: Operator, Sent(body): Sent) -> Result<Response, Refusal> {
    let wanted: view::CaseImport = parse(&body, "{\"cases\":[{\"source\":\"/old\",\"id\":\"1\",…}]}")?;
    if wanted.cases.len() > ACCOUNTS_MAX {
        let detail = format!("{} cases are given; at most {ACCOUNTS_MAX} go together", wanted.cases.len());
        return Err(Refusal::bad("bad-request", detail, "send them in parts; what was sent twice is taken once"));
    }
    let is_odd = |told: &view::CaseAccount| told.governance.as_deref().is_some_and(|word| is_governance(word).is_err());
    let (odd, cases): (Vec<_>, Vec<_>) = wanted.cases.into_iter().partition(is_odd);
    let me = ctx.config.node.address.clone();
    let became = commit::decided(&ctx, Lane::Routine, &Repeat::default(), LATE, move |brain, now_us| {
        let (mut became, mut drafts) = brain.cases.import(&cases, &who.who, now_us);
        became.refused.extend(odd.iter().filter_map(of_no_governance));
        if !drafts.is_empty() {
            let detail = format!("{} cases opened, {} changed", became.opened, became.changed);
            drafts.push(operator::draft(&me, &who.act("case import", &detail)));
        }
        (Ok(became), drafts)
    })
    .await?;
    Ok(ctx.answer(became))
}

fn of_no_governance(told: &view::CaseAccount) -> Option<view::AccountRefused> {
    let Failure { error, detail, hint } = is_governance(told.governance.as_deref()?).err()?.failure;
    Some(view::AccountRefused { id: told.id.clone(), error, detail: format!("{detail}; {hint}") })
}

/// `POST /v1/cases/{id}/{step}`
pub async fn step(
    From(ctx): From<Arc<Ctx>>,
    caller: Caller,
    repeat: Repeat,
    Path((id, step)): Path<(String, String)>,
    headers: HeaderMap,
    Sent(body): Sent,
) -> Result<Response, Refusal> {
    let mut ask: Ask = parse(&body, "{\"by\":\"…\",\"role\":\"worker\",\"text\":\"…\"}")?;
    let verb: Verb = step.parse().map_err(|_| no_step(&step))?;
    if verb == Verb::Forget {
        caller.is_operator()?;
        ask.role = ask.role.or(Some(Role::Supervisor));
    }
    ask.seen.extend(etag::seen(&headers)?);
    // Before anything is said of it.
    if let Caller::App(_) = caller {
        look(&ctx, |cases| find(cases, &caller, &ctx.config.node.address, &id).map(|_| ()))??;
    }
    let ask = caller.asks(verb, ask)?;
    let made = match repeat.made(&ctx)? {
        Some(made) => made,
        None => {
            let wished = wish(&ctx, id, verb, ask, uuid::Uuid::now_v7().to_string(), &repeat).await;
            wished.map_err(|refusal| caller.told(refusal))?
        }
    };
    answer_made(&ctx, &caller, made)
}

fn no_step(step: &str) -> Refusal {
    let hint = match closest(step, Verb::ALL.iter().map(|verb| verb.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", Verb::ALL.iter().map(|verb| verb.as_str()).collect::<Vec<_>>().join(", ")),
    };
    Refusal::not_found(format!("`{step}` is no step of a case"), hint)
}

/// Steps a case, or asks its owner to; the letter's id is `wish` then.
pub(super) async fn wish(
    ctx: &Ctx,
    id: String,
    verb: Verb,
    ask: Ask,
    wish: String,
    repeat: &Repeat,
) -> Result<Made, Refusal> {
    if let Some(to) = &ask.to {
        nodes::is_somebody(ctx, to)?;
    }
    are_evidence(&ask.evidence)?;
    if let Some(place) = &ask.place {
        on_earth(place)?;
    }
    let asks = if repeat.has_word() { Cases::ask_named } else { Cases::ask };
    make(ctx, lane_of(ctx, &id), repeat, move |brain, now_us| {
        let (about, told, drafts) = asks(&brain.cases, &id, verb, &ask, &wish, now_us)?;
        let asked = match told {
            Told::Done { .. } => None,
            Told::Sent { to, .. } => Some(to),
        };
        Ok((Made { about, is_new: false, asked }, drafts))
    })
    .await
}

/// A case as it stands now, as this caller may see it, and its tag; `asked`: who was asked to step it.
fn shown(
    ctx: &Ctx,
    caller: &Caller,
    id: &str,
    asked: Option<Address>,
) -> Result<(view::CaseShown, HeaderValue), Refusal> {
    let now = ctx.as_of();
    let me = &ctx.config.node.address;
    let shown = look_by(ctx, |brain| {
        let held = find(&brain.cases, caller, me, id)?;
        let mut shown = of_held(brain, held, (caller, me), asked, now);
        shown.allowed.retain(|verb| caller.may_ask(&held.case, &held.history, me, *verb));
        Ok::<_, cases::Refusal>(if let Caller::App(_) = caller { resident::shown(held, shown, now) } else { shown })
    })??;
    let tag = etag::tag(&format!("{}-", shown.case.stamp()), &shown);
    Ok((shown, tag))
}

/// The case that was made or stepped: 201 if it is new, 202 if its owner was asked.
pub(super) fn answer_made(ctx: &Ctx, caller: &Caller, made: Made) -> Result<Response, Refusal> {
    let status = match made {
        Made { asked: Some(_), .. } => StatusCode::ACCEPTED,
        Made { is_new: true, .. } => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let (shown, tag) = shown(ctx, caller, &made.about, made.asked)?;
    Ok(etag::tagged(ctx.answer_with(status, shown), tag))
}

fn bad_word(e: String, wanted: &Wanted) -> Refusal {
    match wanted.status.as_deref() {
        // These stand beside a status.
        Some(beside @ ("suspended" | "escalated" | "overdue" | "reopened")) => {
            Refusal::bad("bad-query", e, format!("`?{beside}=true` lists those"))
        }
        _ => Refusal::bad("bad-query", e, "or `open`, or `all`"),
    }
}

pub(super) fn no_brain() -> Refusal {
    Refusal::not_found("this node keeps no cases", "")
}

pub(super) fn look<T>(ctx: &Ctx, look: impl FnOnce(&Cases) -> T) -> Result<T, Refusal> {
    look_by(ctx, |brain| look(&brain.cases))
}

pub(super) fn look_by<T>(ctx: &Ctx, look: impl FnOnce(&Brain) -> T) -> Result<T, Refusal> {
    ctx.hub.state(|state| Brain::of(state).map(look)).ok_or_else(no_brain)
}

/// The lane of what concerns this case: a call for help does not wait behind a backlog.
pub(super) fn lane_of(ctx: &Ctx, id: &str) -> Lane {
    let is_urgent = |state: &State| Some(Brain::of(state)?.cases.find(id).ok()?.case.urgent);
    letter::lane(ctx.hub.state_ahead(is_urgent).unwrap_or(false))
}

const LATE: Late<'static> = Late { what: "it", hint: "`citybrain case show` says whether it did" };

/// Decides at the engine's turn, and waits for the fsync; marks what is made with the request's word.
pub(super) async fn make(
    ctx: &Ctx,
    lane: Lane,
    repeat: &Repeat,
    work: impl FnOnce(&Brain, i64) -> Result<(Made, Vec<Draft>), cases::Refusal> + Send + 'static,
) -> Result<Made, Refusal> {
    let word = repeat.clone();
    commit::decided(ctx, lane, repeat, LATE, move |brain, now_us| match work(brain, now_us) {
        Ok((made, mut drafts)) => {
            drafts.extend(word.mark(&made));
            (Ok(made), drafts)
        }
        Err(refusal) => (Err(refusal.into()), Vec::new()),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_a_name_or_a_place_on_the_web() {
        for good in [
            "photo-after=https://p.example/1.jpg?a=b",
            "https://p.example/1.jpg?a=b",
            "photo-after=IMG_7",
            "档案 7",
            "照片 12:30",
        ] {
            assert!(is_evidence(good), "{good}");
        }
        for bad in [
            "javascript:alert(1)",
            " JavaScript:alert(1)",
            "photo=javascript:alert(1)",
            "a/b=javascript:alert(1)",
            "/= javascript:alert(1)",
            "=javascript:alert(1)",
            "a:b=javascript:alert(1)",
            "photo=https://p.example/a b",
            "a\nb",
            "file:///x",
            "http://",
            "photo=https://",
        ] {
            assert!(!is_evidence(bad), "{bad}");
        }
    }
}
