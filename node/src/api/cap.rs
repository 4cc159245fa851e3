//! The Common Alerting Protocol 1.2: alarms out, as messages and as an Atom feed; messages in, as
//! events ([`crate::brain::warnings`]); what is in force, and a cancellation of it by this node.

use super::cases::look_by;
use super::input::{Path, Sent, parse};
use super::intake::{offer, placed, refuse};
use super::ops::{Operator, operator};
use super::{Ctx, Refusal, etag, events};
use crate::brain::Brain;
use crate::brain::cases;
use crate::brain::cases::calendar::Calendar;
use crate::brain::cases::letter::data;
use crate::brain::warnings::{Read, Told, source_of};
use crate::cap::alarms::{Origin, Speaker, Warned, updated};
use crate::cap::write::escape;
use crate::cap::{BYTES_MAX, CONTENT_TYPE, Message, read, write};
use axum::extract::State as From;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, FixedOffset, Utc};
use citybrain_hub::note::DeadLetter;
use citybrain_hub::state::State;
use citybrain_shared::config::Config;
use citybrain_shared::config::cap::Cap;
use citybrain_shared::record::{Header, event_key};
use citybrain_shared::view::{self, Alarm};
use citybrain_shared::{Address, Pos, words};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where messages of this door come from, in dead letters.
const VIA: &str = "http:cap";
/// Entries of the feed, the newest first.
const ENTRIES_MAX: usize = 1_000;
/// Unknown references, or codes, that an answer names.
const NAMES_TOLD: usize = 10;
/// The scope of what is for everybody.
const PUBLIC: &str = "Public";
/// Characters of why a warning is cancelled.
const NOTE_MAX: usize = 500;

/// `GET /v1/alarms/{id}/cap`: the newest message that the alarm has come to. One that was raised for a warning goes by
/// the messages of that: as another's they would be a second warning, and one of other areas.
pub async fn show(From(ctx): From<Arc<Ctx>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let alarm = super::alarms::known(&ctx, &id)?;
    let xml = match warning_of(&alarm) {
        Some((root, _)) => of_warning(&ctx, &alarm, root)?,
        None => write::write(&own(&ctx, &alarm, None)),
    };
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], xml).into_response())
}

/// The warning that an alarm was raised for, by its first message, and when that was sent.
fn warning_of(alarm: &Alarm) -> Option<(&str, DateTime<Utc>)> {
    crate::cap::sent_of(&alarm.rule_key).map(|sent| (alarm.rule_key.as_str(), sent))
}

/// The alarm in this node's own words.
fn own(ctx: &Ctx, alarm: &Alarm, of: Option<&Told>) -> Message {
    let speaker = Speaker { cap: &ctx.config.cap, offset: offset(ctx) };
    ctx.hub.state(|state| {
        let known = |node: &Address| origin(&ctx.config, state, node);
        let warned = of.map(|told| Warned {
            event: about(told, alarm).to_owned(),
            expires: told.expires,
            nodes: told.nodes.iter().map(|node| (node.clone(), known(node))).collect(),
        });
        speaker.message(alarm, &known(&alarm.origin), warned.as_ref())
    })
}

fn about<'t>(told: &'t Told, alarm: &'t Alarm) -> &'t str {
    if told.event.is_empty() { &alarm.name } else { &told.event }
}

/// The warning's newest message: as it came, or what the alarm and the node know of it where the log has it no more. What
/// its sender meant for some is not for everybody who may read here: of that, too, the node has words of its own, without
/// the sender's headline, and they are restricted; and its end, whoever says it, is the end of these.
fn of_warning(ctx: &Ctx, alarm: &Alarm, root: &str) -> Result<String, Refusal> {
    let newest = |state: &State| Brain::of(state)?.warnings.newest(root).map(|(told, at)| (told.clone(), at));
    let newest = ctx.hub.state(newest);
    let ends_own_words = match &newest {
        Some((told, _)) if told.msg_type == "Cancel" => is_withheld(ctx, told, root).map_err(|e| Refusal::log(&e))?,
        _ => false,
    };
    if !ends_own_words
        && let Some((told, at)) = &newest
        && let Some(xml) = as_it_came(ctx, told, *at).map_err(|e| Refusal::log(&e))?
    {
        return Ok(xml);
    }
    let is_said = |told: &Told| if ends_own_words { !alarm.active } else { alarm.active && told.msg_type != "Cancel" };
    match newest {
        Some((told, _)) if is_said(&told) => {
            let mut message = own(ctx, alarm, Some(&told));
            if told.scope != PUBLIC || ends_own_words {
                without_headline(&mut message);
                if is_public(&message) {
                    restrict(&mut message, Cap::default().restriction);
                }
            }
            Ok(write::write(&message))
        }
        _ => {
            let detail = format!("alarm {} was raised for the message {root}, which is not in force here", alarm.id);
            Err(Refusal::not_found(detail, "what became of it, messages of its own sender say"))
        }
    }
}

/// Was the warning's first message kept from those who read here? They had the node's own words, and know no other
/// message that an end could refer to.
fn is_withheld(ctx: &Ctx, told: &Told, root: &str) -> Result<bool, citybrain_hub::log::Error> {
    let first = Told { key: root.to_owned(), ..told.clone() };
    let Some(pos) = ctx.hub.reader().find(event_key(&source_of(&first), root))? else { return Ok(false) };
    let first = written(ctx, &first, pos)?;
    Ok(first.is_some_and(|(_, message)| !may_go_on(&message, &ctx.config.cap)))
}

fn restrict(message: &mut Message, to: String) {
    message.insert("scope".into(), "Restricted".into());
    message.insert("restriction".into(), to.into());
}

/// The sender has put into it what only some are to know.
fn without_headline(message: &mut Message) {
    let infos = message.get_mut("info").and_then(serde_json::Value::as_array_mut);
    infos.into_iter().flatten().filter_map(|info| info.as_object_mut()).for_each(|info| drop(info.remove("headline")));
}

/// The message, if it is at hand and may go on as it came.
fn as_it_came(ctx: &Ctx, told: &Told, at: Option<Pos>) -> Result<Option<String>, citybrain_hub::log::Error> {
    let written = at.map(|pos| written(ctx, told, pos)).transpose()?.flatten();
    Ok(written.filter(|(_, message)| may_go_on(message, &ctx.config.cap)).map(|(xml, _)| xml))
}

fn may_go_on(message: &Message, cap: &Cap) -> bool {
    is_public(message) || is_for_ours(message, cap)
}

fn is_public(message: &Message) -> bool {
    message.get("scope").is_some_and(|scope| scope == PUBLIC)
}

/// Is it meant for those for whom this node's own messages are, as its own cancellations are?
fn is_for_ours(message: &Message, cap: &Cap) -> bool {
    let says = |name: &str, text: &str| message.get(name).is_some_and(|said| said == text);
    says("scope", "Restricted") && says("restriction", &cap.restriction)
}

/// A message in the log, to the byte if it is there as it came; and what it says.
fn written(ctx: &Ctx, told: &Told, pos: Pos) -> Result<Option<(String, Message)>, citybrain_hub::log::Error> {
    let Some(entry) = ctx.hub.reader().get(pos)? else { return Ok(None) };
    let kept = Header::decode(&entry.bytes).ok().and_then(|(_, payload)| data::<Told>(payload));
    let kept = kept.filter(|kept| kept.key == told.key);
    Ok(kept.and_then(|Told { xml, message, .. }| match message {
        _ if !xml.is_empty() => read::read(xml.as_bytes()).ok().map(|message| (xml, message)),
        serde_json::Value::Object(message) => Some((write::write(&message), message)),
        _ => None,
    }))
}

/// What the feed says of a message.
struct Current {
    /// Of the message, behind the node's domain.
    tag: String,
    updated: DateTime<Utc>,
    published: DateTime<Utc>,
    author: String,
    title: String,
    /// The alarm by which it is asked for.
    alarm: String,
    /// Of a warning that its sender meant for some.
    discreet: Option<Discreet>,
}

/// What is said of it if it does not go on as it came.
struct Discreet {
    told: Told,
    at: Option<Pos>,
    author: String,
    title: String,
}

impl Current {
    /// As its message is: what does not go on as it came has neither the sender's title nor his name.
    fn discreet(self, ctx: &Ctx) -> Current {
        match self.discreet {
            Some(Discreet { told, at, author, title }) if !matches!(as_it_came(ctx, &told, at), Ok(Some(_))) => {
                Current { author, title, discreet: None, ..self }
            }
            _ => Current { discreet: None, ..self },
        }
    }
}

/// Messages that are current, newest first: of a warning that several nodes have raised an alarm for, one.
fn current(brain: &Brain, domain: &str) -> Vec<Current> {
    let mut warnings = BTreeSet::new();
    let told = |alarm: &Alarm| {
        let (title, id) = (alarm.title.clone(), alarm.id.clone());
        let Some((root, published)) = warning_of(alarm) else {
            let (updated, author) = (updated(alarm), alarm.origin.to_string());
            let tag = format!("tag:{domain},2026:{author}/{id}-{}", updated.timestamp_micros());
            return Some(Current {
                tag,
                updated,
                published: alarm.raised_at,
                author,
                title,
                alarm: id,
                discreet: None,
            });
        };
        let (told, at) = brain.warnings.newest(root).filter(|(told, _)| told.msg_type != "Cancel")?;
        warnings.insert(root.to_owned()).then_some(())?;
        let tag = format!("tag:{domain},2026:cap/{:016x}", event_key(&source_of(told), &told.key));
        let author = told.key.split(',').next().unwrap_or_default().to_owned();
        let discreet = (told.scope != PUBLIC).then(|| Discreet {
            told: told.clone(),
            at,
            author: alarm.origin.to_string(),
            title: about(told, alarm).to_owned(),
        });
        Some(Current { tag, updated: told.sent, published, author, title, alarm: id, discreet })
    };
    let mut all: Vec<Current> = brain.rules.alarms.iter().filter(|a| a.active).filter_map(told).collect();
    all.sort_by(|a, b| (b.updated, &a.alarm).cmp(&(a.updated, &b.alarm)));
    all.truncate(ENTRIES_MAX);
    all
}

/// `GET /v1/cap.atom` (RFC 4287): active alarms of this node and of all below, by their newest message.
pub async fn atom(From(ctx): From<Arc<Ctx>>, headers: HeaderMap) -> Response {
    let domain = &ctx.config.cap.domain;
    let (active, awaits) =
        ctx.hub.state(|state| Brain::of(state).map(|b| (current(b, domain), b.cases.awaited())).unwrap_or_default());
    let active: Vec<Current> = active.into_iter().map(|current| current.discreet(&ctx)).collect();
    let scheme = if ctx.config.api.cert_file.is_some() { "https" } else { "http" };
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let base = format!("{scheme}://{}", host.unwrap_or_else(|| ctx.config.api.listen.to_string()));
    let node = &ctx.config.node;
    let name = if node.name.is_empty() { node.address.as_str() } else { &node.name };
    let newest = active.first().map_or_else(|| ctx.as_of(), |current| current.updated);
    let mut feed = Feed(String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\" xml:lang=\"zh-CN\">\n",
    ));
    feed.element("id", &format!("tag:{domain},2026:{}/cap", node.address));
    feed.element("title", &format!("{name}: CAP"));
    feed.element("updated", &view::rfc3339(newest));
    feed.link("self", "application/atom+xml", &format!("{base}/v1/cap.atom"));
    // An answer of nothing would hold back what is raised here meanwhile.
    if let Some(awaits) = awaits {
        feed.0.push_str("<subtitle xml:lang=\"en\">");
        escape(&awaits.lacking("alarms"), &mut feed.0);
        feed.0.push_str("</subtitle>\n");
    }
    for Current { tag, updated, published, author, title, alarm, .. } in &active {
        feed.0.push_str("<entry>\n");
        feed.element("id", tag);
        feed.element("title", title);
        feed.element("updated", &view::rfc3339(*updated));
        feed.element("published", &view::rfc3339(*published));
        feed.0.push_str("<author>");
        feed.element("name", author);
        feed.0.push_str("</author>\n");
        feed.link("alternate", CONTENT_TYPE, &format!("{base}/v1/alarms/{alarm}/cap"));
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
    take_read(&ctx, message, &body).await
}

/// `GET /v1/cap`: what is in force here, worst first.
pub async fn list(From(ctx): From<Arc<Ctx>>, headers: HeaderMap) -> Result<Response, Refusal> {
    Ok(etag::answer(&ctx, &headers, in_force(&ctx)?))
}

fn in_force(ctx: &Ctx) -> Result<view::CapWarnings, Refusal> {
    let shown = |(told, keys): (&Told, &[String])| view::CapWarning {
        about: told.root.clone(),
        level: told.level,
        event: told.event.clone(),
        headline: told.headline.clone(),
        sent: told.sent,
        expires: told.expires,
        nodes: told.nodes.clone(),
        messages: keys.to_vec(),
    };
    let (mut warnings, awaits): (Vec<view::CapWarning>, _) =
        look_by(ctx, |brain| (brain.warnings.in_force().map(shown).collect(), brain.cases.awaited()))?;
    warnings.sort_by(|a, b| (a.level, &a.about).cmp(&(b.level, &b.about)));
    Ok(view::CapWarnings { warnings, awaits })
}

/// `POST /v1/cap/cancel`: a cancellation by this node, of a warning that is in force. It goes to those
/// who were told of the warning. Who did it is recorded.
pub async fn cancel(From(ctx): From<Arc<Ctx>>, who: Operator, Sent(body): Sent) -> Result<Response, Refusal> {
    let wanted: view::CapCancel = parse(&body, "{\"about\":\"sender,identifier,sent\",\"note\":\"…\"}")?;
    let all = in_force(&ctx)?;
    let about = crate::cap::key_of(wanted.about.trim());
    let mut fits = all.warnings.iter().filter(|w| !about.is_empty() && w.messages.iter().any(|m| m.contains(&about)));
    let hint = "`citybrain cap list` shows those in force";
    let warning = match (fits.next(), fits.next()) {
        (Some(one), None) => one,
        (None, _) => {
            let (error, detail, hint) = all.none_is(&wanted.about);
            return Err(cases::Refusal::new(error, detail, hint).into());
        }
        _ => return Err(Refusal::bad("ambiguous", format!("`{}` may be several warnings", wanted.about), hint)),
    };
    let now = super::now();
    let (offset, cap, me) = (offset(&ctx), &ctx.config.cap, ctx.address());
    let reference = |key: &String| {
        let (name, sent) = key.rsplit_once(',')?;
        Some(format!("{name},{}", crate::cap::time(sent.parse().ok()?, offset)))
    };
    let mut message = Message::new();
    let mut set = |name: &str, text: String| message.insert(name.to_owned(), text.into());
    set("identifier", format!("cancel-{}", now.timestamp_micros()));
    set("sender", format!("{me}@{}", cap.domain));
    set("sent", crate::cap::time(now, offset));
    set("status", "Actual".into());
    set("msgType", "Cancel".into());
    set("scope", PUBLIC.into());
    if !wanted.note.trim().is_empty() {
        set("note", words::beginning(wanted.note.trim(), NOTE_MAX).into());
    }
    set("references", warning.messages.iter().filter_map(reference).collect::<Vec<_>>().join(" "));
    let scope = |state: &State| Some(Brain::of(state)?.warnings.newest(&warning.about)?.0.scope.clone());
    let is_for_all = ctx.hub.state(scope).is_some_and(|scope| scope == PUBLIC);
    // The end of what is for some is for them, too.
    match cap.restriction.as_str() {
        "" if is_for_all => {}
        "" => restrict(&mut message, Cap::default().restriction),
        to => restrict(&mut message, to.to_owned()),
    }
    operator(&ctx, &who, "cap cancel", &warning.about).await?;
    let xml = write::write(&message);
    take_read(&ctx, message, &Bytes::from(xml)).await
}

/// What follows from a message that reads; `body` is as it came.
async fn take_read(ctx: &Ctx, message: Message, body: &Bytes) -> Result<Response, Refusal> {
    let letter = |reason: &str, detail: String| DeadLetter::new(reason, detail, VIA, "", body);
    let xml = String::from_utf8_lossy(body);
    let (read, is_known, cancelled, is_late) = ctx
        .hub
        .state(|state| {
            let brain = Brain::of(state)?;
            let read = brain.warnings.read(message, &xml, &known(&ctx.config, state));
            let (is_known, cancelled) =
                (brain.warnings.is_known(&read.told.root), brain.warnings.cancelled(&read.told));
            let is_late = read.told.msg_type == "Cancel" && brain.warnings.is_overtaken(&read.told);
            Some((read, is_known, cancelled, is_late))
        })
        .ok_or_else(super::cases::no_brain)?;
    let told = &read.told;
    let now = super::now();
    let is_new = matches!(told.msg_type.as_str(), "Alert" | "Update");
    let expired = is_new && told.expires <= now;
    let cancelled = cancelled.filter(|_| is_new && told.urgent);
    if expired || cancelled.is_some() {
        // A gateway reads its feed again and again: what was taken once is no fault of anybody.
        if let Some(pos) = taken(ctx, told)? {
            let Told { root, key, .. } = read.told;
            let note = String::new();
            let known = view::CapTaken { id: key, about: root, pos, duplicate: true, notified: Vec::new(), note };
            return Ok(ctx.answer(known));
        }
    }
    if expired {
        let detail = format!("it has expired at {}", view::rfc3339(told.expires));
        return Err(refuse(ctx, letter("expired", detail)).await);
    }
    if let Some(at) = cancelled {
        let detail = format!("it was cancelled by a message of {}, and is older", view::rfc3339(at));
        return Err(refuse(ctx, letter("cancelled", detail)).await);
    }
    let drafts = ctx.hub.state(|state| Brain::of(state).map(|b| b.warnings.drafts(&read, now.timestamp_micros())));
    let drafts = match drafts.ok_or_else(super::cases::no_brain)? {
        Ok(drafts) => drafts,
        Err(e) => return Err(refuse(ctx, letter("too-large", e)).await),
    };
    let first = offer(ctx, drafts, &told.key).await?.first().copied();
    let Some(outcome) = first else { return Err(super::cases::no_brain()) };
    let (pos, duplicate) = placed(outcome);
    let status = if duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
    let note = match is_late {
        true => "an update that was sent after it is in force: it is kept, and that goes on".into(),
        false => remarks(&read, is_known, now),
    };
    let Told { root, key, .. } = read.told;
    let mut nodes: Vec<Address> = read.below.into_iter().filter(|_| !is_late).map(|below| below.node).collect();
    nodes.sort();
    let taken = view::CapTaken { id: key, about: root, pos, duplicate, notified: nodes, note };
    Ok(ctx.answer_with(status, taken))
}

/// Where its event is, if it was taken before.
fn taken(ctx: &Ctx, told: &Told) -> Result<Option<Pos>, Refusal> {
    let (reader, source) = (ctx.hub.reader(), source_of(told));
    let read = || {
        let Some(pos) = reader.find(event_key(&source, &told.key))? else { return Ok(None) };
        Ok(reader.get(pos)?.map(|entry| (pos, entry)))
    };
    let found = read().map_err(|e| Refusal::log(&e))?;
    Ok(found.and_then(|(pos, entry)| {
        let (_, payload) = Header::decode(&entry.bytes).ok()?;
        let (id, of) = events::identity(&String::from_utf8_lossy(payload))?;
        (id == told.key && of == source).then_some(pos)
    }))
}

/// What whoever sent it may not expect.
fn remarks(read: &Read, is_known: bool, now: chrono::DateTime<chrono::Utc>) -> String {
    let nobody = (!read.nobodys.is_empty()).then(|| {
        let codes = some(&read.nobodys);
        let way = "`code` in a node's `[node]` gives it one, `[cap] notify = \"subtree\"` tells all";
        format!("no node here has the code {codes}: nobody below is told; {way}")
    });
    let all = [remark(read, is_known, now), nobody.unwrap_or_default()];
    all.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The first of many.
fn some(all: &[String]) -> String {
    let named: Vec<&str> = all.iter().take(NAMES_TOLD).map(|name| words::short(name)).collect();
    let more = all.len() - named.len();
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{}{more}", named.join(" "))
}

fn remark(read: &Read, is_known: bool, now: chrono::DateTime<chrono::Utc>) -> String {
    let told = &read.told;
    let goes_on = read.above.as_ref().map(|node| format!("it came from {node}, and goes on there"));
    match told.msg_type.as_str() {
        "Ack" | "Error" => format!("an {} is kept, and nothing follows from it", told.msg_type),
        _ if told.status != "Actual" => {
            format!("its status is {}: it is kept, and nothing follows from it", told.status)
        }
        "Update" | "Cancel" if !is_known => "it refers to nothing that is in force here".into(),
        "Cancel" if told.expires <= now => "what it cancels has expired".into(),
        "Update" | "Cancel" if !read.unknown.is_empty() => {
            format!("not in force here, of what it refers to: {}", some(&read.unknown))
        }
        _ => goes_on.unwrap_or_default(),
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

/// Of the calendar in force.
fn offset(ctx: &Ctx) -> FixedOffset {
    let brains = |state: &State| Brain::of(state).map(|brain| brain.cases.calendar().offset());
    ctx.hub.state(brains).unwrap_or_else(|| Calendar::default().offset())
}
