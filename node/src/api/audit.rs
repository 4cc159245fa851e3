//! Do the books add up? Of what a child holds that must climb, all is held by its parent, or waits,
//! or was parked, expired or recorded as lost.
//!
//! An origin numbers its upward records by class (lane and reach) without gaps, so both ends of a
//! link can say what they hold in a few runs of numbers. The child speaks first ([`ledger`], page by
//! page) and the parent looks at its own books after that: what was acknowledged by then is there.
//! What is in neither is asked after one by one ([`explain`]).
//!
//! What goes down is compared by [`downward`]; who has acted on it is for receipts
//! (`citybrain directives`).
//!
//! **Limits.** A node that was restored from a backup reuses numbers of the history that it lost; a
//! number counts as held if the parent has it under any history of that node.

use super::input::query;
use super::{Ctx, Refusal, downward, events, road};
use axum::extract::State as From;
use axum::http::Uri;
use axum::response::Response;
use citybrain_hub::log::{self, Reader};
use citybrain_hub::note::{DeadLetter, Note};
use citybrain_hub::state::{self, Loss, State};
use citybrain_shared::record::{Direction, Header};
use citybrain_shared::view::{
    self, Audit, DownSums, Explained, Gap, LedgerRow, LinkAudit, LinkRole, Missing, Number, Run, Sums,
};
use citybrain_shared::{Address, Lane, LogId, Pos, Tier};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Origins on one page: with both classes that most have, about 150 bytes each.
const PAGE_ROWS: usize = 1_000;
/// Records looked through for what waits, about two seconds of reading.
const WAITING_RECORDS_MAX: u64 = 500_000;
/// Records looked through for numbers that nobody holds.
const EXPLAIN_RECORDS_MAX: u64 = 2_000_000;
const EXPLAIN_NUMBERS_MAX: u64 = 1_000;
const GAPS_MAX: usize = 100;
const IDS_MAX: usize = 10;
/// For a page or an explanation of one child.
const PAGE_WITHIN: Duration = Duration::from_secs(5);

// ---- runs of numbers ---------------------------------------------------------------------------

/// `a` without `b`; both ascending and disjoint.
fn without(a: &[Run], b: &[Run]) -> Vec<Run> {
    let mut out = Vec::new();
    for &(first, hi) in a {
        let mut lo = first;
        for &(from, to) in b.iter().filter(|r| r.1 >= first && r.0 <= hi) {
            if from > lo {
                out.push((lo, from - 1));
            }
            lo = lo.max(to.saturating_add(1));
        }
        if lo <= hi {
            out.push((lo, hi));
        }
    }
    out
}

fn count(runs: &[Run]) -> u64 {
    runs.iter().fold(0, |n: u64, (lo, hi)| n.saturating_add(hi - lo).saturating_add(1))
}

/// Runs from numbers in any order.
fn runs_of(numbers: &BTreeSet<u64>) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::new();
    for &n in numbers {
        match out.last_mut() {
            Some(last) if last.1 + 1 == n => last.1 = n,
            _ => out.push((n, n)),
        }
    }
    out
}

/// Runs of several sets as one set.
fn union(mut all: Vec<Run>) -> Vec<Run> {
    all.sort_unstable();
    let mut out: Vec<Run> = Vec::new();
    for (lo, hi) in all {
        match out.last_mut() {
            Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
            _ => out.push((lo, hi)),
        }
    }
    out
}

// ---- the child's side --------------------------------------------------------------------------

type Key = (Address, Vec<String>, u8);

/// Does this class climb to a parent of this tier?
fn climbs(class: u8, parent: Tier) -> bool {
    usize::from(class % 4) < parent.depth()
}

fn words(class: u8) -> (&'static str, Tier) {
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
pub async fn ledger(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
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
        events::blocking(move || waiting(&reader, acked, &own, &own_logs, parent.tier())).await?;
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
        let losses: Vec<Loss> =
            s.losses.iter().filter(|l| l.peer.as_ref().is_none_or(|p| *p == parent)).cloned().collect();
        let letters: Vec<Pos> =
            s.dead_letters.iter().filter(|(_, r)| *r == "too-large-for-link").map(|(pos, _)| *pos).collect();
        (losses, letters, s.peers.get(&parent).map_or([None, None], |p| p.peer_has))
    });
    let acked = acked.map(|c| c.map_or(Pos::ZERO, |c| c.upto));
    let now_us = super::now().timestamp_micros();
    let numbers = events::blocking(move || {
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
    let position = |l: DeadLetter| l.detail.strip_prefix("record ")?.split(' ').next()?.parse().ok();
    Ok(letters_of(reader, letters, parent)?.into_iter().filter_map(position).collect())
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

// ---- the parent's side -------------------------------------------------------------------------

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Depth {
    within_ms: Option<u64>,
}

/// `GET /v1/audit`: every link from here down.
pub async fn audit(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let depth: Depth = query(&uri)?;
    let end = Instant::now() + road::within(depth.within_ms)?;
    let own = ctx.config.node.address.clone();
    let linked = (ctx.links)().into_iter().filter(|l| l.role == LinkRole::Down).map(|l| l.peer);
    let known = ctx.hub.state(|s| s.registry.keys().filter(|a| a.is_child_of(&own)).cloned().collect::<Vec<_>>());
    let children: BTreeSet<Address> = linked.chain(known).collect();
    let mut audit = Audit::default();
    // Their own children first: all of them at once, each with less time than is left here.
    let left = end.saturating_duration_since(Instant::now()).mul_f32(0.6);
    let parents: Vec<Address> =
        children.iter().filter(|c| c.tier() != Tier::Neighbourhood).take(road::NODES_MAX).cloned().collect();
    let question = format!("/v1/audit?within_ms={}", left.as_millis().max(1));
    let (below, _) = road::many_views::<Audit>(&ctx, parents, &question, left).await;
    for (_, answer) in below {
        audit.totals += answer.body.totals;
        audit.down += answer.body.down;
        audit.links.extend(answer.body.links);
        audit.unasked.extend(answer.body.unasked);
    }
    let books = downward::Books::open(&ctx, &children).await?;
    for child in children {
        let left = end.saturating_duration_since(Instant::now()).min(PAGE_WITHIN);
        match both(&ctx, &books, &child, left).await {
            Ok(link) => {
                audit.totals += link.sums;
                audit.down += link.down;
                audit.links.push(link);
            }
            Err(silent) => audit.unasked.push(silent),
        }
    }
    audit.adds_up = audit.totals.missing + audit.down.missing == 0;
    audit.links.sort_by_key(|l| (std::cmp::Reverse(l.sums.missing + l.down.missing), l.child.clone()));
    Ok(ctx.answer(audit))
}

/// What climbs and what goes down.
async fn both(ctx: &Ctx, books: &downward::Books, child: &Address, within: Duration) -> Result<LinkAudit, Missing> {
    let mut link = compare(ctx, child, within).await?;
    let (sums, missing, note) = downward::compare(ctx, books, child, within).await?;
    (link.down, link.down_missing) = (sums, missing);
    link.note = link.note.or(note);
    Ok(link)
}

/// Page by page: the child's books against this node's.
async fn compare(ctx: &Ctx, child: &Address, within: Duration) -> Result<LinkAudit, Missing> {
    let own = ctx.config.node.address.clone();
    let mut link = LinkAudit {
        child: child.clone(),
        parent: own,
        sums: Sums::default(),
        gaps: Vec::new(),
        down: DownSums::default(),
        down_missing: Vec::new(),
        note: None,
    };
    let mut after: Option<String> = None;
    loop {
        let page = after.as_ref().map_or_else(String::new, |a| format!("?after={}", view::segment(a)));
        let (answer, _) = road::ask_view::<view::Ledger>(ctx, child, &format!("/v1/ledger{page}"), within).await?;
        if let Some(cut) = &answer.head.cut {
            link.note = Some(format!("only {} of {} origins of a page came over the link", cut.kept, cut.of));
        }
        if !answer.body.is_waiting_complete {
            link.note = Some("more waits than was counted: what seems missing may still be on its way".into());
        }
        for row in answer.body.rows {
            let (sums, unheld) = weigh(&row, &above(ctx, &row));
            link.sums += sums;
            if !unheld.is_empty() {
                account(ctx, &mut link, &row, unheld, within).await?;
            }
        }
        after = answer.body.next;
        if after.is_none() {
            return Ok(link);
        }
    }
}

/// What this node holds of a row, looked at after the child spoke.
fn above(ctx: &Ctx, row: &LedgerRow) -> Vec<Run> {
    let logs = row.logs.iter().filter_map(|l| l.parse::<LogId>().ok());
    ctx.hub.state(|s| {
        union(
            logs.filter_map(|log| s.held_of(&row.origin, log, row.class)).flat_map(|r| r.as_slice().to_vec()).collect(),
        )
    })
}

/// Held above, waiting, and what is neither.
fn weigh(row: &LedgerRow, above: &[Run]) -> (Sums, Vec<Run>) {
    let not_above = without(&row.held, above);
    let unheld = without(&not_above, &row.waiting);
    let accepted = count(&row.held);
    let sums = Sums {
        accepted,
        above: accepted - count(&not_above),
        waiting: count(&not_above) - count(&unheld),
        ..Sums::default()
    };
    (sums, unheld)
}

/// Asks the child what became of numbers that are neither here nor waiting.
async fn account(
    ctx: &Ctx,
    link: &mut LinkAudit,
    row: &LedgerRow,
    unheld: Vec<Run>,
    within: Duration,
) -> Result<(), Missing> {
    let mut asked: Vec<Run> = Vec::new();
    let mut room = EXPLAIN_NUMBERS_MAX;
    for (lo, hi) in &unheld {
        if room == 0 || asked.len() == 100 {
            break;
        }
        let hi = (*hi).min(lo + room - 1);
        room -= hi - lo + 1;
        asked.push((*lo, hi));
    }
    let numbers = asked.iter().map(|(lo, hi)| format!("{lo}-{hi}")).collect::<Vec<_>>().join(",");
    let log = if row.origin == link.child { "" } else { row.logs.first().map_or("", String::as_str) };
    let path = format!("/v1/explain?origin={}&log={log}&class={}&numbers={numbers}", row.origin, row.class);
    let (answer, _) = road::ask_view::<Explained>(ctx, &link.child, &path, within).await?;
    let mut unexplained: BTreeMap<u64, String> = BTreeMap::new();
    for n in answer.body.numbers {
        match n.fate.as_str() {
            "waiting" => link.sums.waiting += 1,
            "parked" => link.sums.parked += 1,
            "expired" => link.sums.expired += 1,
            "lost" => link.sums.lost += 1,
            _ => drop(unexplained.insert(n.seq, n.id)),
        }
    }
    let beyond = without(&unheld, &asked);
    let mut gaps = runs_of(&unexplained.keys().copied().collect());
    link.sums.missing += count(&gaps) + count(&beyond);
    gaps.extend(beyond);
    let (priority, reach) = words(row.class);
    for (first, last) in gaps {
        if link.gaps.len() == GAPS_MAX {
            break;
        }
        let ids = unexplained.range(first..=last).map(|(_, id)| id.clone()).filter(|id| !id.is_empty());
        let ids = ids.take(IDS_MAX).collect();
        link.gaps.push(Gap { origin: row.origin.clone(), priority: priority.into(), reach, first, last, ids });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_neither_above_nor_waiting_is_unheld() {
        let origin = Address::parse("c/s").unwrap();
        let row = LedgerRow { origin, logs: vec![], class: 4, held: vec![(1, 100)], waiting: vec![(96, 100)] };
        let (sums, unheld) = weigh(&row, &[(1, 40), (43, 97)]);
        assert_eq!((sums.accepted, sums.above, sums.waiting), (100, 95, 3));
        assert_eq!(unheld, [(41, 42)]);
        let (sums, unheld) = weigh(&row, &[(1, 100)]);
        assert_eq!((sums.above, sums.waiting, unheld.len()), (100, 0, 0));
    }

    #[test]
    fn a_class_climbs_as_far_as_its_reach() {
        let class = |reach| state::class(Lane::Routine, reach);
        assert!(climbs(class(Tier::City), Tier::City) && climbs(class(Tier::City), Tier::Community));
        assert!(!climbs(class(Tier::Street), Tier::City) && climbs(class(Tier::Street), Tier::Street));
        assert!(!climbs(class(Tier::Neighbourhood), Tier::Community));
        assert_eq!(words(class(Tier::Street)), ("routine", Tier::Street));
        assert_eq!(words(state::class(Lane::Urgent, Tier::City)), ("urgent", Tier::City));
    }

    proptest! {
        #[test]
        fn runs_are_sets(a in prop::collection::btree_set(0u64..60, 0..40), b in prop::collection::btree_set(0u64..60, 0..40)) {
            let left: BTreeSet<u64> = a.difference(&b).copied().collect();
            prop_assert_eq!(without(&runs_of(&a), &runs_of(&b)), runs_of(&left));
            let both: BTreeSet<u64> = a.union(&b).copied().collect();
            prop_assert_eq!(union(runs_of(&a).into_iter().chain(runs_of(&b)).collect()), runs_of(&both));
            prop_assert_eq!(count(&runs_of(&a)), a.len() as u64);
        }
    }
}
