//! A child's side of the books: what it holds that must climb, what of that waits, and what became of
//! numbers that its parent lacks.

use super::input::query;
use super::runs::{count, runs_of, without};
use super::{Ctx, Refusal, events};
use axum::extract::State as From;
use axum::http::Uri;
use axum::response::Response;
use citybrain_hub::log::{self, Reader};
use citybrain_hub::note::{DeadLetter, Note, reason};
use citybrain_hub::state::{self, Loss, State};
use citybrain_shared::record::{Direction, Header};
use citybrain_shared::view::{self, DownSums, Explained, LedgerRow, LinkAudit, Number, Run, Sums};
use citybrain_shared::{Address, Lane, LogId, Pos, Tier};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Origins on one page: with both classes that most have, about 150 bytes each.
const PAGE_ROWS: usize = 1_000;
/// Records looked through for what waits, about two seconds of reading.
const WAITING_RECORDS_MAX: u64 = 500_000;
/// Records looked through for numbers that nobody holds.
const EXPLAIN_RECORDS_MAX: u64 = 2_000_000;
pub(super) const EXPLAIN_NUMBERS_MAX: u64 = 1_000;

type Key = (Address, Vec<String>, u8);

/// Does this class climb to a parent of this tier?
pub(super) fn climbs(class: u8, parent: Tier) -> bool {
    usize::from(class % 4) < parent.depth()
}

pub(super) fn words(class: u8) -> (&'static str, Tier) {
    let lane = if class < 4 { Lane::Urgent } else { Lane::Routine };
    (lane.as_str(), Tier::from_depth(usize::from(class % 4) + 1).expect("a class has one of four tiers"))
}

/// What this node holds that must climb, by origin, histories and class; and up to where the parent
/// has acknowledged, by lane.
fn books(state: &State, own: &Address, parent: &Address) -> (BTreeMap<Key, Vec<Run>>, [Pos; 2]) {
    let mut rows: BTreeMap<Key, Vec<Run>> = BTreeMap::new();
    let mut logs: Vec<String> = state.me.epochs.iter().map(|e| e.log.to_string()).collect();
    logs.sort();
    logs.dedup();
    for (class, issued) in (0u8..).zip(state.me.seqs) {
        if issued > 0 && climbs(class, parent.tier()) {
            rows.insert((own.clone(), logs.clone(), class), vec![(1, issued)]);
        }
    }
    for (origin, log, class, runs) in state.held() {
        if climbs(class, parent.tier()) {
            rows.insert((origin.clone(), vec![log.to_string()], class), runs.as_slice().to_vec());
        }
    }
    let acked = state.peers.get(parent).map_or([None, None], |p| p.peer_has).map(|c| c.map_or(Pos::ZERO, |c| c.upto));
    (rows, acked)
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Page {
    after: Option<String>,
}

/// `GET /v1/ledger?after=…`
pub async fn page(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let page: Page = query(&uri)?;
    let own = ctx.config.node.address.clone();
    let Some(parent) = own.parent().filter(|_| ctx.config.parent.is_some() || ctx.offline.is_some()) else {
        let hint = format!("`citybrain audit` at {own} looks at all below it");
        return Err(Refusal::bad("no-parent", format!("{own} has no parent to which anything must climb"), hint));
    };
    let (rows, acked, applied) = ctx.hub.state(|s| {
        let (rows, acked) = books(s, &own, &parent);
        (rows, acked, s.applied)
    });
    let mut rows: Vec<(Key, Vec<Run>)> = match page.after {
        None => rows.into_iter().collect(),
        Some(after) => rows.into_iter().skip_while(|(key, _)| name(key) != after).skip(1).collect(),
    };
    let next = (rows.len() > PAGE_ROWS).then(|| name(&rows[PAGE_ROWS - 1].0));
    rows.truncate(PAGE_ROWS);
    // The state is ahead of the disk by the commit that is under way; wait for it to be readable.
    let reader = ctx.hub.reader();
    let mut committed = ctx.hub.committed();
    let _ = tokio::time::timeout(Duration::from_secs(1), committed.wait_for(|upto| *upto >= applied)).await;
    let own_logs = rows.iter().find(|(k, _)| k.0 == own).map(|(k, _)| k.1.clone()).unwrap_or_default();
    let (waiting, is_waiting_complete) =
        ctx.turns.read(move || waiting(&reader, acked, &own, &own_logs, parent.tier())).await?;
    let rows = rows.into_iter().map(|((origin, logs, class), held)| {
        let key = (origin, logs, class);
        let waiting = waiting.get(&key).map_or_else(Vec::new, runs_of);
        let (origin, logs, class) = key;
        LedgerRow { origin, logs, class, held, waiting }
    });
    Ok(ctx.answer(view::Ledger { rows: rows.collect(), next, is_waiting_complete }))
}

fn name(key: &Key) -> String {
    format!("{} {} {}", key.0, key.1.first().map_or("", String::as_str), key.2)
}

/// What this node itself knows of its link up: what the parent has acknowledged, and what waits.
/// `None` where it has no parent.
pub(super) async fn own_link(ctx: &Ctx) -> Result<Option<LinkAudit>, Refusal> {
    let own = ctx.config.node.address.clone();
    let Some(parent) = own.parent().filter(|_| ctx.config.parent.is_some() || ctx.offline.is_some()) else {
        return Ok(None);
    };
    let (rows, acked, losses, letters) = ctx.hub.state(|s| {
        let (rows, acked) = books(s, &own, &parent);
        (rows, acked, losses_of(s, &parent), letters_too_large(s))
    });
    let reader = ctx.hub.reader();
    let (child, above) = (own.clone(), parent.clone());
    let own_logs = rows.keys().find(|k| k.0 == own).map(|k| k.1.clone()).unwrap_or_default();
    let now_us = super::now().timestamp_micros();
    let counted = ctx.turns.read(move || {
        let (found, is_complete) = waiting(&reader, acked, &child, &own_logs, above.tier())?;
        let parked = parked(&reader, &letters, &above)?;
        let mut sums = Sums::default();
        for (key, held) in rows {
            let waits = found.get(&key).map_or_else(Vec::new, runs_of);
            // What stands between those that wait: it came another way, or something became of it.
            let from = waits.first().map_or(u64::MAX, |r| r.0);
            let among: Vec<Run> = held.iter().filter(|r| r.1 >= from).map(|r| (r.0.max(from), r.1)).collect();
            let (origin, logs, class) = key;
            let log = logs.first().and_then(|l| l.parse::<LogId>().ok());
            let between = without(&among, &waits);
            let what =
                Wanted { origin: log.filter(|_| origin != child).map(|log| (origin, log)), class, runs: between };
            sums.accepted += count(&held);
            sums.waiting += count(&waits);
            if count(&what.runs) <= EXPLAIN_NUMBERS_MAX && !what.runs.is_empty() {
                for n in fates(&reader, &what, &losses, &parked, acked, now_us)? {
                    match n.fate.as_str() {
                        "lost" => sums.lost += 1,
                        "expired" => sums.expired += 1,
                        "absent" => sums.missing += 1,
                        _ => {}
                    }
                }
            }
        }
        sums.parked = parked.len() as u64;
        let told = sums.waiting + sums.parked + sums.lost + sums.expired + sums.missing;
        sums.above = sums.accepted.saturating_sub(told);
        Ok((sums, is_complete))
    });
    let (sums, is_complete) = counted.await?;
    let more = if is_complete { "" } else { "; more waits than was counted" };
    let note = format!("by its own books, as its parent has acknowledged{more}; an audit above compares both");
    Ok(Some(LinkAudit {
        child: own,
        parent,
        sums,
        down: DownSums::default(),
        down_missing: Vec::new(),
        gaps: Vec::new(),
        note: Some(note),
    }))
}

fn losses_of(s: &State, parent: &Address) -> Vec<Loss> {
    s.losses.iter().filter(|l| l.peer.as_ref().is_none_or(|p| p == parent)).cloned().collect()
}

pub(super) fn letters_too_large(s: &State) -> Vec<Pos> {
    s.dead_letters.iter().filter(|(_, why)| **why == reason::TOO_LARGE_FOR_LINK).map(|(pos, _)| *pos).collect()
}

/// Every record behind what the parent has acknowledged that is to climb there; false if there are
/// more than are looked through.
fn waiting(
    reader: &Reader,
    acked: [Pos; 2],
    own: &Address,
    own_logs: &[String],
    parent: Tier,
) -> Result<(BTreeMap<Key, BTreeSet<u64>>, bool), log::Error> {
    let mut found: BTreeMap<Key, BTreeSet<u64>> = BTreeMap::new();
    let from = acked[0].min(acked[1]).max(Pos(reader.first().0.saturating_sub(1)));
    let upto = Pos(from.0 + WAITING_RECORDS_MAX).min(reader.last());
    reader.walk(from, upto, |entry| {
        let Ok((h, _)) = Header::decode(&entry.bytes) else { return true };
        let class = state::class(h.lane, h.reach);
        if h.direction != Direction::Up || entry.pos <= acked[h.lane as usize] || !climbs(class, parent) {
            return true;
        }
        let key = match h.origin {
            None => Some((own.clone(), own_logs.to_vec(), class)),
            Some(o) => Address::parse(o.address).ok().map(|a| (a, vec![o.log.to_string()], class)),
        };
        if let Some(key) = key {
            found.entry(key).or_default().insert(h.seq);
        }
        true
    })?;
    Ok((found, upto == reader.last()))
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Asked {
    origin: String,
    /// Empty for this node's own.
    #[serde(default)]
    log: String,
    class: u8,
    /// `4-6,9-9`
    numbers: String,
}

/// `GET /v1/explain?origin=…&class=…&numbers=…`: what became of numbers that the parent lacks.
pub async fn explain(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let asked: Asked = query(&uri)?;
    let own = ctx.config.node.address.clone();
    let bad = |what: &str| Refusal::bad("bad-query", format!("`{what}` does not read"), "such as `numbers=4-6,9-9`");
    let runs: Option<Vec<Run>> = asked
        .numbers
        .split(',')
        .map(|r| {
            let (lo, hi) = r.split_once('-')?;
            Some((lo.parse().ok()?, hi.parse().ok()?))
        })
        .collect();
    let runs = runs.filter(|r| r.iter().all(|(lo, hi)| lo <= hi) && count(r) <= EXPLAIN_NUMBERS_MAX);
    let runs = runs.ok_or_else(|| bad(&asked.numbers))?;
    if asked.class > 7 {
        return Err(bad("class"));
    }
    let origin = Address::parse(&asked.origin).map_err(|_| bad(&asked.origin))?;
    let Some(parent) = own.parent() else { return Err(bad("origin")) };
    let log = if origin == own { None } else { Some(asked.log.parse::<LogId>().map_err(|_| bad(&asked.log))?) };
    let what = Wanted { origin: log.map(|log| (origin, log)), class: asked.class, runs };
    let reader = ctx.hub.reader();
    let (losses, letters, acked) = ctx.hub.state(|s| {
        (losses_of(s, &parent), letters_too_large(s), s.peers.get(&parent).map_or([None, None], |p| p.peer_has))
    });
    let acked = acked.map(|c| c.map_or(Pos::ZERO, |c| c.upto));
    let now_us = super::now().timestamp_micros();
    let numbers = ctx.turns.read(move || {
        let parked = parked(&reader, &letters, &parent)?;
        fates(&reader, &what, &losses, &parked, acked, now_us)
    });
    Ok(ctx.answer(Explained { numbers: numbers.await? }))
}

struct Wanted {
    /// `None`: this node itself.
    origin: Option<(Address, LogId)>,
    class: u8,
    runs: Vec<Run>,
}

/// Positions that were set aside for the parent, as the dead letters say.
pub(super) fn parked(reader: &Reader, letters: &[Pos], parent: &Address) -> Result<BTreeSet<u64>, log::Error> {
    Ok(letters_of(reader, letters, parent)?.into_iter().filter_map(|l| l.of.map(|pos| pos.0)).collect())
}

/// Of the dead letters at these positions those that are about the link with `peer`.
pub(super) fn letters_of(reader: &Reader, letters: &[Pos], peer: &Address) -> Result<Vec<DeadLetter>, log::Error> {
    let via = format!("link:{peer}");
    let mut found = Vec::new();
    for pos in letters {
        let Some(entry) = reader.get(*pos)? else { continue };
        let Ok((_, payload)) = Header::decode(&entry.bytes) else { continue };
        if let Ok(Note::DeadLetter(letter)) = Note::parse(payload)
            && letter.via == via
        {
            found.push(letter);
        }
    }
    Ok(found)
}

fn fates(
    reader: &Reader,
    what: &Wanted,
    losses: &[Loss],
    parked: &BTreeSet<u64>,
    acked: [Pos; 2],
    now_us: i64,
) -> Result<Vec<Number>, log::Error> {
    #[derive(Default)]
    struct Place {
        /// Of the neighbours that are in the log.
        below: Option<Pos>,
        above: Option<Pos>,
        found: Option<Number>,
    }
    let numbers = || what.runs.iter().flat_map(|(lo, hi)| *lo..=*hi);
    let mut places: BTreeMap<u64, Place> = numbers().map(|n| (n, Place::default())).collect();
    let first = Pos(reader.first().0.saturating_sub(1));
    let upto = Pos(first.0 + EXPLAIN_RECORDS_MAX).min(reader.last());
    let lane = if what.class < 4 { Lane::Urgent } else { Lane::Routine };
    reader.walk(first, upto, |entry| {
        let Ok((h, payload)) = Header::decode(&entry.bytes) else { return true };
        let is_of = match (&what.origin, h.origin) {
            (None, None) => true,
            (Some((address, log)), Some(o)) => o.address == address.as_str() && o.log == *log,
            _ => false,
        };
        if !is_of || h.direction != Direction::Up || state::class(h.lane, h.reach) != what.class {
            return true;
        }
        if let Some((_, place)) = places.range_mut(..h.seq).next_back() {
            place.above.get_or_insert(entry.pos);
        }
        if let Some((_, place)) = places.range_mut(h.seq + 1..).next() {
            place.below = Some(entry.pos);
        }
        if let Some(place) = places.get_mut(&h.seq) {
            let is_over = h.ttl_ms != 0 && now_us - h.committed_us > i64::from(h.ttl_ms) * 1000;
            let lost =
                losses.iter().any(|l| l.lane.is_none_or(|l| l == lane) && entry.pos > l.after && entry.pos <= l.upto);
            let fate = match () {
                () if entry.pos > acked[lane as usize] => "waiting",
                () if parked.contains(&entry.pos.0) => "parked",
                () if lost => "lost",
                () if is_over => "expired",
                () => "sent",
            };
            let id = events::identity(&String::from_utf8_lossy(payload)).unwrap_or_default().0;
            place.found = Some(Number { seq: h.seq, fate: fate.into(), pos: Some(entry.pos), id });
        }
        true
    })?;
    // Not in the log: a recorded loss between its neighbours explains it, nothing else does.
    let fate = |(seq, place): (u64, Place)| {
        let (after, before) = (place.below.unwrap_or(Pos::ZERO), place.above.unwrap_or(Pos(u64::MAX)));
        let lost = losses.iter().any(|l| l.upto > after && l.after.next() < before && l.lane.is_none_or(|l| l == lane));
        let fate = if lost { "lost" } else { "absent" };
        place.found.unwrap_or_else(|| Number { seq, fate: fate.into(), pos: None, id: String::new() })
    };
    Ok(places.into_iter().map(fate).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_climbs_as_far_as_its_reach() {
        let class = |reach| state::class(Lane::Routine, reach);
        assert!(climbs(class(Tier::City), Tier::City) && climbs(class(Tier::City), Tier::Community));
        assert!(!climbs(class(Tier::Street), Tier::City) && climbs(class(Tier::Street), Tier::Street));
        assert!(!climbs(class(Tier::Neighbourhood), Tier::Community));
        assert_eq!(words(class(Tier::Street)), ("routine", Tier::Street));
        assert_eq!(words(state::class(Lane::Urgent, Tier::City)), ("urgent", Tier::City));
    }
}
