//! The node itself, its tree and its links.

use super::input::query;
use super::{Ctx, Refusal, now, road};
use crate::brain::Brain;
use axum::extract::State as From;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use citybrain_hub::state::State;
use citybrain_shared::Address;
use citybrain_shared::config::Config;
use citybrain_shared::view::{self, LinkRole, TreeNode};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

pub async fn ready(From(ctx): From<Arc<Ctx>>) -> Response {
    let ready = (ctx.ready)();
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    ctx.answer_with(status, ready)
}

pub async fn status(From(ctx): From<Arc<Ctx>>) -> Response {
    let reader = ctx.hub.reader();
    let node = &ctx.config.node;
    // Not under the state's lock: they may look at the state themselves.
    let (ready, door, links, webhooks) = ((ctx.ready)(), (ctx.door)(), (ctx.links)(), ctx.webhooks());
    let status = ctx.hub.state(|state| view::Status {
        name: node.name.clone(),
        tier: node.address.tier(),
        code: node.code.clone(),
        labels: node.labels.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        pid: if ctx.offline.is_some() { 0 } else { std::process::id() },
        uptime_s: ctx.started.elapsed().as_secs(),
        incarnation: state.me.inc.to_string(),
        boots: state.me.boot.counter,
        data: node.data.display().to_string(),
        ready,
        log: view::Log {
            first_pos: reader.first(),
            last_pos: reader.last(),
            applied_pos: state.applied,
            history: state.me.epoch().log.to_string(),
        },
        counters: counters(state),
        door,
        links,
        descendants: descendants(state, &ctx.config),
        dead_letters_open: state.dead_letters.len() as u64,
        webhooks,
    });
    ctx.answer(status)
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Depth {
    /// Ask each node for its own word.
    deep: bool,
    within_ms: Option<u64>,
}

/// `GET /v1/tree`: what is known here; with `deep=true` each node says itself how it is.
pub async fn tree(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let depth: Depth = query(&uri)?;
    let links = (ctx.links)();
    let at_us = now().timestamp_micros();
    let mut nodes = ctx.hub.state(|state| tree_nodes(state, &ctx.config, &links, at_us));
    if let Some(me) = nodes.first_mut() {
        say(me, &own_health(&ctx));
    }
    if depth.deep {
        let below = nodes.iter().skip(1).map(|n| n.address.clone()).collect();
        let within = road::within(depth.within_ms)?;
        let (answers, missing) = road::many_views::<view::Health>(&ctx, below, "/v1/health", within).await;
        let answers: BTreeMap<Address, view::Health> =
            answers.into_iter().map(|(a, answer)| (a, answer.body)).collect();
        let missing: BTreeMap<Address, String> = missing.into_iter().map(|m| (m.node, m.detail)).collect();
        for node in &mut nodes {
            if let Some(health) = answers.get(&node.address) {
                say(node, health);
                node.last_heard_ms_ago = Some(0);
            } else if let Some(detail) = missing.get(&node.address) {
                (node.health, node.silent) = (Some(format!("no answer: {detail}")), true);
            }
        }
    }
    Ok(ctx.answer(view::Tree { nodes }))
}

fn say(node: &mut TreeNode, health: &view::Health) {
    let cut_off = health.parent_state.as_ref().filter(|s| *s != "up");
    node.behind = health.parent_state.is_some().then_some(health.behind);
    node.version.clone_from(&health.version);
    // Its parent's word would be the same, and nobody asked it.
    if let Some(state) = health.parent_state.as_ref().filter(|_| node.state == "known") {
        node.state.clone_from(state);
    }
    node.health = Some(match (health.ready, &health.broker_away, cut_off) {
        (false, ..) => format!("not ready: {}", health.reasons.join("; ")),
        (true, Some(why), _) => format!("its broker is not reached: {why}"),
        (true, None, Some(state)) => format!("cut off: its parent's link is {state}"),
        (true, None, None) => "well".into(),
    });
}

/// `GET /v1/health`: the node's condition in short, for whoever asks many.
pub async fn health(From(ctx): From<Arc<Ctx>>) -> Response {
    ctx.answer(own_health(&ctx))
}

fn own_health(ctx: &Ctx) -> view::Health {
    // Not under the state's lock: they may look at the state themselves.
    let (ready, door) = ((ctx.ready)(), (ctx.door)());
    let up = (ctx.links)().into_iter().find(|l| l.role == LinkRole::Up);
    ctx.hub.state(|state| view::Health {
        ready: ready.ready,
        reasons: ready.reasons,
        broker_away: door.lost().map(str::to_owned),
        uptime_s: ctx.started.elapsed().as_secs(),
        version: env!("CARGO_PKG_VERSION").into(),
        behind: up.as_ref().map_or(0, |l| l.behind().0),
        parent_state: up.map(|l| l.state),
        dead_letters_open: state.dead_letters.len() as u64,
        lost: state.counters.lost,
    })
}

pub fn counters(state: &State) -> view::Counters {
    let c = &state.counters;
    view::Counters {
        accepted: c.accepted,
        urgent: c.urgent,
        received_up: c.received_up,
        received_down: c.received_down,
        messages: c.messages,
        duplicates: c.duplicates,
        dead_letters: c.dead_letters,
        receipts: c.receipts,
        expired: c.expired,
        lost: c.lost,
    }
}

pub fn descendants(state: &State, config: &Config) -> u64 {
    state.registry.keys().filter(|a| **a != config.node.address).count() as u64
}

/// The node first, then everything below it that ever told of itself, by address. What the node
/// says of itself comes from its config, so that it is right before its first presence.
pub fn tree_nodes(state: &State, config: &Config, links: &[view::Link], at_us: i64) -> Vec<TreeNode> {
    let own = &config.node;
    let me = TreeNode {
        address: own.address.clone(),
        name: own.name.clone(),
        tier: own.address.tier(),
        code: own.code.clone(),
        labels: own.labels.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        state: "self".into(),
        last_heard_ms_ago: None,
        health: None,
        silent: false,
        behind: None,
        alarms: 0,
    };
    let mut nodes = vec![me];
    for (address, known) in state.registry.iter().filter(|(a, _)| **a != own.address) {
        let link = links.iter().find(|l| l.role == LinkRole::Down && l.peer == *address);
        // A child's link knows better when it was heard than the log does.
        let by_log = state.heard_us(address).map_or(0, |us| (at_us - us).max(0) as u64 / 1000);
        nodes.push(TreeNode {
            address: address.clone(),
            name: known.name.clone(),
            tier: known.tier,
            code: known.code.clone(),
            labels: known.labels.clone(),
            version: known.version.clone(),
            state: link.map_or("known", |l| l.state.as_str()).to_owned(),
            last_heard_ms_ago: Some(link.and_then(|l| l.last_heard_ms_ago).unwrap_or(by_log)),
            health: None,
            silent: false,
            behind: None,
            alarms: 0,
        });
    }
    let mut alarms: BTreeMap<&Address, u64> = BTreeMap::new();
    let raised = Brain::of(state).map(|brain| brain.rules.alarms.iter());
    for alarm in raised.into_iter().flatten().filter(|a| a.active) {
        *alarms.entry(&alarm.origin).or_default() += 1;
    }
    for node in &mut nodes {
        node.alarms = alarms.get(&node.address).copied().unwrap_or(0);
    }
    nodes
}

/// Nodes below that are not heard at present: none of the children's links that are up leads to them, or that child
/// says that it does not hear them.
pub fn unheard<'s>(state: &'s State, config: &'s Config, links: &'s [view::Link]) -> impl Iterator<Item = &'s Address> {
    let is_up = |l: &&view::Link| l.role == LinkRole::Down && l.state == "up";
    let leads = |l: &view::Link, a: &Address| l.peer.covers(a) && !l.unheard.iter().any(|u| u.node.covers(a));
    let heard = move |a: &Address| links.iter().filter(is_up).any(|l| leads(l, a));
    state.registry.keys().filter(move |a| **a != config.node.address && !heard(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_hub::state::Known;
    use citybrain_shared::Inc;
    use citybrain_shared::config::{Variables, parse};
    use citybrain_shared::view::LinkLane;

    #[test]
    fn a_tree_begins_with_the_node_and_takes_a_childs_state_from_its_link() {
        let text = "[node]\naddress = \"c\"\nname = \"城\"\ndata = \"d\"\n";
        let config = parse(text, &Variables::new()).config.unwrap();
        let mut state = State::default();
        for (i, address) in ["c", "c/a", "c/a/x", "c/b"].into_iter().enumerate() {
            let address = Address::parse(address).unwrap();
            let known = Known {
                ordinal: i as u32,
                name: "presence".into(),
                tier: address.tier(),
                code: None,
                labels: Default::default(),
                inc: Inc(1),
                version: "0".into(),
                last_heard_us: 5_000_000,
            };
            state.registry.insert(address, known);
        }
        let link = view::Link {
            role: LinkRole::Down,
            peer: Address::parse("c/a").unwrap(),
            state: "up".into(),
            why: None,
            code: None,
            last_heard_ms_ago: Some(7),
            down_ms: None,
            urgent: LinkLane::default(),
            routine: LinkLane::default(),
            lease: 1,
            received: 0,
            dropped: 0,
            resent_frames: 0,
            expired_records: 0,
            round_trip_us: None,
            unheard: Vec::new(),
            unheard_more: 0,
        };
        let links = [link];
        let silent: Vec<&str> = unheard(&state, &config, &links).map(Address::as_str).collect();
        assert_eq!(silent, ["c/b"], "what a child that is heard has below it is heard through it");
        let [link] = links;
        let below = view::Unheard { node: Address::parse("c/a/x").unwrap(), last_heard_ms_ago: None };
        let says = [view::Link { unheard: vec![below], ..link.clone() }];
        let silent: Vec<&str> = unheard(&state, &config, &says).map(Address::as_str).collect();
        assert_eq!(silent, ["c/a/x", "c/b"], "unless that child does not hear it");
        let away = [view::Link { state: "away".into(), ..link.clone() }];
        let silent: Vec<&str> = unheard(&state, &config, &away).map(Address::as_str).collect();
        assert_eq!(silent, ["c/a", "c/a/x", "c/b"]);
        let nodes = tree_nodes(&state, &config, &[link], 6_000_000);
        let short: Vec<(&str, &str, Option<u64>)> =
            nodes.iter().map(|n| (n.address.as_str(), n.state.as_str(), n.last_heard_ms_ago)).collect();
        assert_eq!(
            short,
            [("c", "self", None), ("c/a", "up", Some(7)), ("c/a/x", "known", Some(1000)), ("c/b", "known", Some(1000))]
        );
        assert_eq!(nodes[0].name, "城");
        assert_eq!(descendants(&state, &config), 3);
    }
}
