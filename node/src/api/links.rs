//! The links as an engineer sees them: what their drivers tell, the state, and what waits in the log.

use super::Ctx;
use axum::extract::State as From;
use axum::response::Response;
use chrono::Utc;
use citybrain_hub::Hub;
use citybrain_hub::link::backlog::{self, Backlog, Wait};
use citybrain_hub::link::frames::Audience;
use citybrain_hub::link::view::{LaneView, LinkView, Role, Stage};
use citybrain_hub::state::Peer;
use citybrain_shared::wire::Cursor;
use citybrain_shared::{Lane, Pos, view};
use std::sync::Arc;

pub async fn links(From(ctx): From<Arc<Ctx>>) -> Response {
    ctx.answer(view::Links { links: (ctx.links)() })
}

/// Rows of `citybrain links`, in the order of `links`.
pub fn views(links: &[LinkView], hub: &Hub) -> Vec<view::Link> {
    let reader = hub.reader();
    let peers: Vec<Peer> =
        hub.state(|s| links.iter().map(|l| s.peers.get(&l.peer).cloned().unwrap_or_default()).collect());
    let audiences: Vec<Audience> = links
        .iter()
        .map(|l| match l.role {
            Role::Up => Audience::Up(l.peer.clone()),
            Role::Down => Audience::Down(l.peer.clone()),
        })
        .collect();
    let waits: Vec<Wait<'_>> = links
        .iter()
        .zip(&peers)
        .zip(&audiences)
        .flat_map(|((link, peer), audience)| {
            // Cut off, a link hears nothing of the log's growth.
            let upto = if link.stage == Stage::Up { link.last_pos } else { reader.last() };
            [(Lane::Urgent, &link.urgent), (Lane::Routine, &link.routine)].map(|(lane, seen)| {
                let has = peer.peer_has[lane as usize];
                wait(link, audience, lane, seen, upto_of(has), upto)
            })
        })
        .collect();
    let found = backlog::count(&reader, &waits);
    let now_us = Utc::now().timestamp_micros();
    let rows = links.iter().zip(&peers).zip(waits.chunks_exact(2).zip(found.chunks_exact(2)));
    rows.map(|((link, peer), (waits, found))| row(link, peer, waits, found, now_us)).collect()
}

fn upto_of(cursor: Option<Cursor>) -> Pos {
    cursor.map_or(Pos::ZERO, |c| c.upto)
}

fn wait<'a>(link: &LinkView, audience: &'a Audience, lane: Lane, seen: &LaneView, had: Pos, upto: Pos) -> Wait<'a> {
    // Without a session the machine knows nothing; what the peer had last is in the state.
    if link.stage == Stage::Up {
        Wait { audience, lane, acked: seen.acked_pos, looked: seen.looked_pos, upto }
    } else {
        let acked = seen.acked_pos.max(had);
        Wait { audience, lane, acked, looked: acked, upto }
    }
}

fn row(link: &LinkView, peer: &Peer, waits: &[Wait<'_>], found: &[Backlog], now_us: i64) -> view::Link {
    let lost = |state| {
        let lost = link.last_reason.as_ref();
        (state, lost.map(|l| l.text.clone()), lost.and_then(|l| l.cause.word()))
    };
    let (state, why, code) = match &link.stage {
        Stage::Connecting => lost("connecting"),
        Stage::Hello => lost("hello"),
        Stage::Up => ("up", link.refused_another.clone(), link.refused_another.as_ref().map(|_| "refused-another")),
        Stage::Refused { reason, detail } => {
            ("refused", Some(format!("{}: {detail}", reason.as_str())), Some(reason.as_str()))
        }
        Stage::Away => lost("away"),
    };
    let lane = |slot: usize, seen: &LaneView| lane(&found[slot], waits[slot].acked, peer, slot, seen, now_us);
    view::Link {
        role: match link.role {
            Role::Up => view::LinkRole::Up,
            Role::Down => view::LinkRole::Down,
        },
        peer: link.peer.clone(),
        state: state.into(),
        why,
        code: code.map(Into::into),
        last_heard_ms_ago: link.last_heard_ms_ago,
        down_ms: link.down_ms,
        urgent: lane(0, &link.urgent),
        routine: lane(1, &link.routine),
        lease: peer.lease,
        received: peer.received,
        dropped: peer.dropped,
        resent_frames: link.resends,
        expired_records: link.expired_records,
        round_trip_us: link.rtt_ms.map(|ms| (ms * 1000.0) as u64),
        unheard: link.unheard.clone(),
        unheard_more: link.unheard_more,
    }
}

fn lane(b: &Backlog, acked: Pos, peer: &Peer, slot: usize, seen: &LaneView, now_us: i64) -> view::LinkLane {
    view::LinkLane {
        durable_at_peer_pos: acked,
        durable_here_pos: upto_of(peer.has[slot]),
        credit_frames: seen.credit_frames,
        ..waiting(b, now_us)
    }
}

/// What waits, and nothing else.
pub fn waiting(b: &Backlog, now_us: i64) -> view::LinkLane {
    view::LinkLane {
        unsent: b.unsent,
        in_flight: b.in_flight,
        bytes: b.bytes,
        oldest_ms: b.oldest_us.map(|us| u64::try_from((now_us - us) / 1000).unwrap_or(0)),
        at_most: b.at_most,
        ..view::LinkLane::default()
    }
}
