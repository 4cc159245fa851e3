//! The way of an event through the tree: who committed it when, where it waits and for what, and
//! what came of it.
//!
//! Each node tells of itself only ([`hop`]); the node asked puts it together ([`trace`]). Upwards a
//! node can ask nobody, but it knows what its parent acknowledged.

use super::guard::Caller;
use super::input::{Path, query};
use super::{Ctx, Refusal, directives, events, road};
use axum::extract::State as From;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use citybrain_hub::link::backlog::{self, Wait};
use citybrain_hub::link::frames::Audience;
use citybrain_hub::log::{self, Reader};
use citybrain_hub::note::{Note, reason};
use citybrain_shared::record::{Header, Kind};
use citybrain_shared::view::{self, Caused, LinkRole, Missing, Onward, TraceHop};
use citybrain_shared::{Address, Lane, Pos, Selector, Tier, words};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Children that one node tells of.
const DOWN_MAX: usize = 64;
/// Nodes that are asked about one downward event.
const NODES_MAX: usize = 256;
/// What an event caused stands in its own commit or soon after: so many records are looked through.
const CAUSED_WITHIN_RECORDS: u64 = 4096;
const CAUSED_MAX: usize = 32;
/// Open dead letters that are looked through for a record that was set aside.
const LETTERS_MAX: usize = 200;

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Which {
    source: Option<String>,
    within_ms: Option<u64>,
}

// ---- one node ----------------------------------------------------------------------------------

/// `GET /v1/hop/{id}`: what this node alone knows of the event.
pub async fn hop(From(ctx): From<Arc<Ctx>>, Path(id): Path<String>, uri: Uri) -> Result<Response, Refusal> {
    let which: Which = query(&uri)?;
    Ok(ctx.answer(look(&ctx, &id, which.source.as_deref()).await?))
}

async fn look(ctx: &Ctx, id: &str, source: Option<&str>) -> Result<view::Hop, Refusal> {
    let reader = ctx.hub.reader();
    let own = ctx.address().to_owned();
    let (wanted, of) = (id.to_owned(), source.map(str::to_owned));
    let found = ctx.turns.read(move || {
        let Some(event) =
            events::find(&reader, &wanted, of.as_deref(), &own, &Caller::Reader, &events::Forgotten::default())?
        else {
            return Ok(None);
        };
        let caused = caused(&reader, event.pos, &wanted, &own)?;
        Ok(Some((event, caused)))
    });
    let directive = ctx.hub.state(|s| s.directives.get(id).map(|d| directives::directive_view(s, id, d)));
    let Some((event, caused)) = found.await? else {
        return Ok(view::Hop { record: None, up: None, down: vec![], caused: vec![], directive });
    };
    let source = events::identity(event.event.get()).unwrap_or_default().1;
    let age_ms = (super::now() - event.committed_at).num_milliseconds().max(0) as u64;
    let event_type = type_of(event.event.get());
    let links = (ctx.links)();
    let up = links.iter().find(|l| l.role == LinkRole::Up && event.direction == "up" && event.reach <= l.peer.tier());
    let up = up.map(|l| onwards(ctx, &[l], &event)).and_then(|mut all| all.pop());
    let mut down = Vec::new();
    if event.direction == "down"
        && let Ok(selector) = Selector::parse(&event.target)
    {
        let meant = links.iter().filter(|l| l.role == LinkRole::Down && selector.may_reach(&l.peer));
        let mut meant: Vec<&view::Link> = meant.collect();
        meant.sort_by_key(|l| lane_of(l, &event).durable_at_peer_pos >= event.pos);
        meant.truncate(DOWN_MAX);
        down = onwards(ctx, &meant, &event);
    }
    let record = view::HopRecord {
        pos: event.pos,
        source,
        event_type,
        priority: event.priority,
        direction: event.direction,
        origin: event.origin,
        origin_pos: event.origin_pos,
        reach: event.reach,
        target: event.target,
        ttl_ms: event.ttl_ms,
        received_at: event.received_at,
        committed_us: event.committed_at.timestamp_micros(),
        age_ms,
    };
    Ok(view::Hop { record: Some(record), up, down, caused, directive })
}

fn lane_of<'a>(link: &'a view::Link, event: &view::Event) -> &'a view::LinkLane {
    if event.priority == "urgent" { &link.urgent } else { &link.routine }
}

/// How it stands with the event at each of these links.
fn onwards(ctx: &Ctx, links: &[&view::Link], event: &view::Event) -> Vec<Onward> {
    let lane = if event.priority == "urgent" { Lane::Urgent } else { Lane::Routine };
    let audiences: Vec<Audience> = links
        .iter()
        .map(|l| match l.role {
            LinkRole::Up => Audience::Up(l.peer.clone()),
            LinkRole::Down => Audience::Down(l.peer.clone()),
        })
        .collect();
    let wait = |(link, audience)| {
        let acked = lane_of(link, event).durable_at_peer_pos;
        Wait { audience, lane, acked, looked: acked, upto: Pos(event.pos.0.saturating_sub(1)) }
    };
    let waits: Vec<Wait<'_>> = links.iter().copied().zip(&audiences).map(wait).collect();
    let ahead = backlog::count(&ctx.hub.reader(), &waits);
    let rows = links.iter().zip(&waits).zip(ahead);
    rows.map(|((link, wait), ahead)| {
        let acknowledged = wait.acked >= event.pos;
        Onward {
            peer: link.peer.clone(),
            acknowledged,
            parked: if acknowledged { parked(ctx, &link.peer, event.pos) } else { None },
            state: link.state.clone(),
            why: link.why.clone(),
            last_heard_ms_ago: link.last_heard_ms_ago,
            ahead: ahead.unsent,
            ahead_at_most: ahead.at_most,
        }
    })
    .collect()
}

/// Why a record was set aside on its way to a peer, if a dead letter says so.
fn parked(ctx: &Ctx, peer: &Address, pos: Pos) -> Option<String> {
    let reader = ctx.hub.reader();
    let places: Vec<Pos> = ctx.hub.state(|s| {
        let fits = s.dead_letters.iter().rev().filter(|(at, why)| **at > pos && *why == reason::TOO_LARGE_FOR_LINK);
        fits.map(|(at, _)| *at).take(LETTERS_MAX).collect()
    });
    let via = format!("link:{peer}");
    places.into_iter().find_map(|at| {
        let entry = reader.get(at).ok()??;
        let (_, payload) = Header::decode(&entry.bytes).ok()?;
        let Ok(Note::DeadLetter(letter)) = Note::parse(payload) else { return None };
        (letter.via == via && letter.of == Some(pos)).then_some(letter.detail)
    })
}

fn type_of(json: &str) -> String {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow, rename = "type")]
        event_type: Cow<'a, str>,
    }
    serde_json::from_str::<Event<'_>>(json).map(|e| e.event_type.into_owned()).unwrap_or_default()
}

/// Events behind `pos` that name the id as what they answer or follow from.
fn caused(reader: &Reader, pos: Pos, id: &str, own: &str) -> Result<Vec<Caused>, log::Error> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(borrow, default)]
        correlationid: Cow<'a, str>,
        #[serde(borrow, default)]
        causationid: Cow<'a, str>,
    }
    let Ok(node) = Address::parse(own) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    let upto = Pos(pos.0 + CAUSED_WITHIN_RECORDS).min(reader.last());
    reader.each(pos, upto, |entry| {
        let Ok((header, payload)) = Header::decode(&entry.bytes) else { return };
        // Receipts are counted in the directive; only what began here follows from what is here.
        if !header.kind.is_event()
            || header.kind == Kind::Receipt
            || header.origin.is_some()
            || found.len() == CAUSED_MAX
        {
            return;
        }
        let Ok(event) = serde_json::from_slice::<Event<'_>>(payload) else { return };
        if event.correlationid == id || event.causationid == id {
            found.push(Caused {
                node: node.clone(),
                pos: entry.pos,
                kind: header.kind.as_str().into(),
                event_type: header.name.into(),
                id: event.id.into_owned(),
            });
        }
    })?;
    Ok(found)
}

// ---- the tree ----------------------------------------------------------------------------------

/// `GET /v1/trace/{id}`
pub async fn trace(From(ctx): From<Arc<Ctx>>, Path(id): Path<String>, uri: Uri) -> Result<Response, Refusal> {
    let which: Which = query(&uri)?;
    let within = road::within(which.within_ms)?;
    let own = ctx.config.node.address.clone();
    let mut source = which.source.clone();
    let mut looked = BTreeMap::from([(own.clone(), look(&ctx, &id, source.as_deref()).await?)]);
    let mut silent: BTreeMap<Address, Missing> = BTreeMap::new();
    if looked[&own].record.is_none() {
        // It may be on its way here, or be none of this node's business.
        let below: Vec<Address> = ctx.hub.state(|s| s.registry.keys().filter(|a| **a != own).cloned().collect());
        ask(&ctx, below, &id, source.as_deref(), within, &mut looked, &mut silent).await;
    }
    let Some((_, record)) = looked.iter().find_map(|(a, h)| h.record.clone().map(|r| (a.clone(), r))) else {
        return Err(not_found(&ctx, &id, source.is_some(), looked.len(), &silent));
    };
    source.get_or_insert(record.source.clone());
    let (path, unasked) = path(&ctx, &record);
    let rest = path.iter().filter(|a| own.covers(a) && !looked.contains_key(*a) && !silent.contains_key(*a));
    let rest: Vec<Address> = rest.cloned().collect();
    ask(&ctx, rest, &id, source.as_deref(), within, &mut looked, &mut silent).await;
    let way = if record.direction == "down" {
        descent(&path, unasked, &looked, &silent)
    } else {
        climb(&path, &looked, &silent, record.reach)
    };
    let on_path = |m: &Missing| path.contains(&m.node);
    let directive = looked
        .get(&own)
        .and_then(|h| h.directive.clone())
        .or_else(|| looked.values().find_map(|h| h.directive.clone()));
    Ok(ctx.answer(view::Trace {
        id,
        source: record.source,
        event_type: record.event_type,
        priority: record.priority,
        direction: record.direction,
        origin: record.origin,
        reach: record.reach,
        target: record.target,
        outcome: way.outcome.into(),
        sentence: way.sentence,
        hops: way.hops,
        caused: looked.values().flat_map(|h| h.caused.clone()).collect(),
        directive,
        missing: silent.into_values().filter(on_path).collect(),
    }))
}

async fn ask(
    ctx: &Arc<Ctx>,
    nodes: Vec<Address>,
    id: &str,
    source: Option<&str>,
    within: std::time::Duration,
    looked: &mut BTreeMap<Address, view::Hop>,
    silent: &mut BTreeMap<Address, Missing>,
) {
    if nodes.is_empty() {
        return;
    }
    let by_source = source.map_or_else(String::new, |s| format!("?source={}", view::segment(s)));
    let question = format!("/v1/hop/{}{by_source}", view::segment(id));
    let (answers, missing) = road::many_views::<view::Hop>(ctx, nodes, &question, within).await;
    looked.extend(answers.into_iter().map(|(node, answer)| (node, answer.body)));
    silent.extend(missing.into_iter().map(|m| (m.node.clone(), m)));
}

fn not_found(ctx: &Ctx, id: &str, by_source: bool, looked: usize, silent: &BTreeMap<Address, Missing>) -> Refusal {
    let names: Vec<String> = silent.values().take(5).map(|m| format!("{} ({})", m.node, m.detail)).collect();
    let more = silent.len().saturating_sub(names.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let unasked = if names.is_empty() { String::new() } else { format!("; not asked: {}{more}", names.join(", ")) };
    let how = if by_source { "no event" } else { "no recent event" };
    let hint = match (silent.values().next(), by_source) {
        (Some(m), _) => format!("it may be at a node that did not answer: `citybrain why {}`", m.node),
        (None, false) => "`?source=SOURCE` finds older ones too".into(),
        (None, true) => format!("`citybrain events --at {}/** --source …` shows what there is", ctx.address()),
    };
    let detail =
        format!("{how} `{id}` at {} from {} down{unasked}", words::counted(looked as u64, "node"), ctx.address());
    // Who did not answer may have it: this is no "no".
    if silent.is_empty() {
        Refusal::not_found(detail, hint)
    } else {
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, "late", detail, hint)
    }
}

/// The nodes on the event's way, in its order, as far as they lie at or below this node; and how many more
/// there are.
fn path(ctx: &Ctx, record: &view::HopRecord) -> (Vec<Address>, usize) {
    let own = &ctx.config.node.address;
    let Ok(origin) = Address::parse(&record.origin) else { return (vec![own.clone()], 0) };
    if record.direction != "down" {
        let mut path = Vec::new();
        let mut at = Some(origin);
        while let Some(node) = at.filter(|a| own.covers(a)) {
            at = node.parent();
            path.push(node);
        }
        return (path, 0);
    }
    let Ok(selector) = Selector::parse(&record.target) else { return (vec![own.clone()], 0) };
    ctx.hub.state(|s| {
        let on_way = |a: &&Address| selector.may_reach(a) && (origin.covers(a) || **a == *own);
        let path: Vec<Address> = s.registry.keys().filter(on_way).take(NODES_MAX).cloned().collect();
        let all = if path.len() < NODES_MAX { path.len() } else { s.registry.keys().filter(on_way).count() };
        let unasked = all - path.len();
        (path, unasked)
    })
}

struct Way {
    hops: Vec<TraceHop>,
    outcome: &'static str,
    sentence: String,
}

fn row(node: &Address, state: &str) -> TraceHop {
    TraceHop {
        node: node.clone(),
        state: state.into(),
        pos: None,
        committed_at: None,
        since_previous_us: None,
        detail: None,
    }
}

fn committed(node: &Address, record: &view::HopRecord, before: Option<i64>) -> TraceHop {
    TraceHop {
        pos: Some(record.pos),
        committed_at: Some(view::time_of(record.committed_us)),
        since_previous_us: before.map(|us| record.committed_us - us),
        ..row(node, "committed")
    }
}

fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// What stands between a node that has the event and the next one that does not.
fn between(from: &Address, record: &view::HopRecord, onward: &Onward) -> (&'static str, String) {
    let to = &onward.peer;
    if let Some(why) = &onward.parked {
        return ("parked", format!("parked at {from}: {why}"));
    }
    if !onward.acknowledged {
        let reason = match (onward.state.as_str(), &onward.why) {
            ("up", _) => "the link is up, and it is not acknowledged yet".to_owned(),
            (state, Some(why)) => format!("the link is {state}: {why}"),
            (state, None) => format!("the link is {state}"),
        };
        let most = if onward.ahead_at_most { "at most " } else { "" };
        let behind = match onward.ahead {
            0 => String::new(),
            1 => ", behind one record".into(),
            n => format!(", behind {most}{n} records"),
        };
        return ("waiting", format!("waiting at {from} for {to} since {}: {reason}{behind}", span(record.age_ms)));
    }
    if record.ttl_ms.is_some() {
        return ("expired", format!("it is not at {to}: its time ran out on the way, or it was lost"));
    }
    ("missing", format!("{to} acknowledged it to {from} and does not have it: `citybrain audit` looks for more"))
}

/// The way of an upward event; `path` begins at its origin.
fn climb(
    path: &[Address],
    looked: &BTreeMap<Address, view::Hop>,
    silent: &BTreeMap<Address, Missing>,
    reach: Tier,
) -> Way {
    let mut hops: Vec<TraceHop> = Vec::new();
    let mut verdict: Option<(&'static str, String)> = None;
    let mut below: Option<(&Address, &view::Hop, &view::HopRecord)> = None;
    let mut first_us = None;
    for node in path.iter().filter(|a| a.tier() >= reach) {
        let hop = looked.get(node);
        match (hop, hop.and_then(|h| h.record.as_ref())) {
            (Some(hop), Some(record)) => {
                hops.push(committed(node, record, below.map(|(_, _, r)| r.committed_us)));
                first_us.get_or_insert(record.committed_us);
                below = Some((node, hop, record));
            }
            (Some(_), None) => {
                let found = below.and_then(|(at, h, r)| h.up.as_ref().map(|up| between(at, r, up)));
                let (state, detail) = found.clone().map_or(("absent", None), |(state, why)| (state, Some(why)));
                hops.push(TraceHop { detail, ..row(node, state) });
                verdict = verdict.or(found);
                below = None;
            }
            (None, _) => {
                let detail = silent.get(node).map(|m| m.detail.clone());
                // What it has can still be told by what its neighbour below was promised.
                let known = below.and_then(|(at, h, r)| h.up.as_ref().map(|up| (up.acknowledged, between(at, r, up))));
                match known {
                    Some((false, waits)) => {
                        hops.push(TraceHop { detail: Some(waits.1.clone()), ..row(node, waits.0) });
                        verdict = verdict.or(Some(waits));
                    }
                    Some((true, _)) => hops.push(TraceHop { detail, ..row(node, "acknowledged") }),
                    None => hops.push(TraceHop { detail, ..row(node, "unknown") }),
                }
                below = None;
            }
        }
    }
    // One step further than can be asked: what the parent promised.
    let mut beyond = None;
    if let Some((at, hop, record)) = below
        && let Some(up) = &hop.up
        && path.last() == Some(at)
    {
        if up.acknowledged && up.parked.is_none() {
            hops.push(row(&up.peer, "acknowledged"));
            beyond = Some(up.peer.clone());
        } else {
            let (state, why) = between(at, record, up);
            hops.push(TraceHop { detail: Some(why.clone()), ..row(&up.peer, state) });
            verdict = verdict.or(Some((state, why)));
        }
    }
    // A commit above proves that everything below it was passed.
    let top = hops.iter().rposition(|h| h.state == "committed");
    let is_there = top.is_some_and(|i| hops[i].node.tier() == reach);
    let (outcome, sentence) = match verdict {
        Some(found) if !is_there => found,
        _ => match (top.filter(|_| is_there), beyond) {
            (Some(i), _) => {
                let took =
                    hops[i].committed_at.map(|t| t.timestamp_micros()).zip(first_us).map(|(t, f)| (t - f) / 1000);
                let took = match took {
                    Some(ms) if ms >= 0 && i > 0 => {
                        format!(", {} after it was committed at {}", span(ms as u64), hops[0].node)
                    }
                    Some(ms) if ms < 0 => format!("; the clocks of {} and {} differ", hops[0].node, hops[i].node),
                    _ => String::new(),
                };
                ("arrived", format!("it is at {}, as high as it goes{took}", hops[i].node))
            }
            (None, Some(peer)) if peer.tier() == reach => {
                ("arrived", format!("{peer}, as high as it goes, has it on disk"))
            }
            (None, Some(peer)) => {
                ("passed-on", format!("{peer} has it on disk; ask there, or above, for the rest of its way"))
            }
            (None, None) => ("unknown", "it has not come this far, and not everybody on its way could be asked".into()),
        },
    };
    Way { hops, outcome, sentence }
}

/// The way of a downward event; `path` holds parents before their children, and `unasked` more are not
/// in it.
fn descent(
    path: &[Address],
    unasked: usize,
    looked: &BTreeMap<Address, view::Hop>,
    silent: &BTreeMap<Address, Missing>,
) -> Way {
    let mut hops = Vec::new();
    let mut stuck: Vec<(&'static str, String)> = Vec::new();
    let record_at = |node: &Address| looked.get(node).and_then(|h| h.record.as_ref());
    for node in path {
        let parent = node.parent().filter(|p| path.contains(p));
        let above = parent.as_ref().and_then(record_at);
        if let Some(record) = record_at(node) {
            hops.push(committed(node, record, above.map(|r| r.committed_us)));
            continue;
        }
        let onward = parent.as_ref().and_then(|p| looked.get(p)?.down.iter().find(|o| o.peer == *node));
        let found = match (parent.as_ref().zip(above), onward) {
            (Some((parent, record)), Some(onward)) if looked.contains_key(node) || !onward.acknowledged => {
                Some(between(parent, record, onward))
            }
            (Some(_), Some(_)) => {
                Some(("acknowledged", silent.get(node).map_or_else(String::new, |m| m.detail.clone())))
            }
            _ => silent.get(node).map(|m| ("unknown", m.detail.clone())),
        };
        let (state, detail) = found.clone().map_or(("absent", None), |(state, why)| (state, Some(why)));
        hops.push(TraceHop { detail, ..row(node, state) });
        stuck.extend(found.filter(|(state, _)| !["unknown", "acknowledged"].contains(state)));
    }
    let there = hops.iter().filter(|h| h.state == "committed").count();
    let (outcome, sentence) = match stuck.iter().find(|(s, _)| *s == "missing").or(stuck.first()) {
        Some((state, why)) => (*state, format!("at {there} of {} nodes; {why}", hops.len())),
        None if there == hops.len() && unasked > 0 => (
            "unknown",
            format!("it is at all {there} nodes that were asked; {unasked} more are on its way and were not asked"),
        ),
        None if there == hops.len() => ("arrived", format!("it is at all {there} nodes on its way")),
        None => ("unknown", format!("at {there} of {} nodes; of the others nothing is known for certain", hops.len())),
    };
    Way { hops, outcome, sentence }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a(s: &str) -> Address {
        Address::parse(s).unwrap()
    }

    fn at(pos: u64, committed_us: i64, up: Option<(&str, bool)>) -> view::Hop {
        let record = view::HopRecord {
            pos: Pos(pos),
            source: "/x".into(),
            event_type: "t".into(),
            priority: "routine".into(),
            direction: "up".into(),
            origin: "c/s/m".into(),
            origin_pos: Pos(1),
            reach: Tier::City,
            target: String::new(),
            ttl_ms: None,
            received_at: view::time_of(0),
            committed_us,
            age_ms: 3_000,
        };
        let up = up.map(|(peer, acknowledged)| Onward {
            peer: a(peer),
            acknowledged,
            parked: None,
            state: if acknowledged { "up" } else { "connecting" }.into(),
            why: (!acknowledged).then(|| "connection refused".into()),
            last_heard_ms_ago: None,
            ahead: 0,
            ahead_at_most: false,
        });
        view::Hop { record: Some(record), up, down: vec![], caused: vec![], directive: None }
    }

    const NOT_THERE: view::Hop = view::Hop { record: None, up: None, down: vec![], caused: vec![], directive: None };

    fn way(nodes: Vec<(&str, view::Hop)>, own: &str) -> Way {
        let path: Vec<Address> = ["c/s/m", "c/s", "c"].map(a).into_iter().filter(|n| a(own).covers(n)).collect();
        let looked = nodes.into_iter().map(|(n, h)| (a(n), h)).collect();
        climb(&path, &looked, &BTreeMap::new(), Tier::City)
    }

    #[test]
    fn an_event_that_came_all_the_way_says_how_long_each_hop_took() {
        let seen = way(
            vec![
                ("c/s/m", at(5, 1_000, Some(("c/s", true)))),
                ("c/s", at(9, 4_000, Some(("c", true)))),
                ("c", at(7, 9_000, None)),
            ],
            "c",
        );
        let took: Vec<Option<i64>> = seen.hops.iter().map(|h| h.since_previous_us).collect();
        assert_eq!((seen.outcome, took), ("arrived", vec![None, Some(3_000), Some(5_000)]));
        assert_eq!(seen.sentence, "it is at c, as high as it goes, 8 ms after it was committed at c/s/m");
    }

    #[test]
    fn an_event_that_waits_names_where_and_for_whom() {
        let seen = way(vec![("c/s/m", at(5, 1_000, Some(("c/s", false)))), ("c/s", NOT_THERE), ("c", NOT_THERE)], "c");
        assert_eq!(seen.outcome, "waiting");
        assert_eq!(seen.sentence, "waiting at c/s/m for c/s since 3.0 s: the link is connecting: connection refused");
        let states: Vec<&str> = seen.hops.iter().map(|h| h.state.as_str()).collect();
        assert_eq!(states, ["committed", "waiting", "absent"]);
        // The same, asked at the node itself, which can ask nobody above.
        let seen = way(vec![("c/s/m", at(5, 1_000, Some(("c/s", false))))], "c/s/m");
        assert_eq!((seen.outcome, seen.hops.len()), ("waiting", 2));
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_missing() {
        let seen = way(vec![("c/s/m", at(5, 1_000, Some(("c/s", true)))), ("c/s", NOT_THERE), ("c", NOT_THERE)], "c");
        assert_eq!(seen.outcome, "missing");
        let seen = way(vec![("c/s/m", at(5, 1_000, Some(("c/s", true))))], "c/s/m");
        assert_eq!((seen.outcome, seen.hops[1].state.as_str()), ("passed-on", "acknowledged"));
    }

    #[test]
    fn clocks_that_differ_are_not_taken_for_a_time() {
        let seen = way(
            vec![
                ("c/s/m", at(5, 9_000_000, Some(("c/s", true)))),
                ("c/s", at(9, 1_000, Some(("c", true)))),
                ("c", at(7, 2_000, None)),
            ],
            "c",
        );
        assert_eq!(seen.sentence, "it is at c, as high as it goes; the clocks of c/s/m and c differ");
    }
}
