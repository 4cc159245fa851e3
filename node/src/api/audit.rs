//! Do the books add up? Of what a child holds that must climb, all is held by its parent, or waits,
//! or was parked, expired or recorded as lost.
//!
//! An origin numbers its upward records by class (lane and reach) without gaps, so both ends of a
//! link can say what they hold in a few runs of numbers. The child speaks first ([`ledger::page`], page
//! by page) and the parent looks at its own books after that: what was acknowledged by then is there.
//! What is in neither is asked after one by one ([`ledger::explain`]). Of its own link up a node has
//! its own books alone ([`ledger::own_link`]), for it asks nobody above.
//!
//! What goes down is compared by [`downward`]; who has acted on it is for receipts
//! (`citybrain directives`).
//!
//! **Limits.** A node that was restored from a backup reuses numbers of the history that it lost; a
//! number counts as held if the parent has it under any history of that node.

use super::input::query;
use super::ledger::{self, EXPLAIN_NUMBERS_MAX, words};
use super::runs::{count, runs_of, union, without};
use super::{Ctx, Refusal, downward, road};
use axum::extract::State as From;
use axum::http::Uri;
use axum::response::Response;
use citybrain_shared::view::{
    self, Audit, DownSums, Explained, Gap, LedgerRow, LinkAudit, LinkRole, Missing, Run, Sums,
};
use citybrain_shared::{Address, LogId, Tier};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const GAPS_MAX: usize = 100;
const IDS_MAX: usize = 10;
/// For a page or an explanation of one child.
const PAGE_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Depth {
    within_ms: Option<u64>,
    /// Without the node's own link up: who asks looks at that one himself, from its other end.
    below_only: bool,
}

/// `GET /v1/audit`: the link up, as far as this node knows it, and every link from here down.
pub async fn audit(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let depth: Depth = query(&uri)?;
    let end = Instant::now() + road::within(depth.within_ms)?;
    let own = ctx.config.node.address.clone();
    let linked = (ctx.links)().into_iter().filter(|l| l.role == LinkRole::Down).map(|l| l.peer);
    let known = ctx.hub.state(|s| s.registry.keys().filter(|a| a.is_child_of(&own)).cloned().collect::<Vec<_>>());
    let children: BTreeSet<Address> = linked.chain(known).collect();
    let mut audit = Audit::default();
    if !depth.below_only
        && let Some(link) = ledger::own_link(&ctx).await?
    {
        audit.totals += link.sums;
        audit.links.push(link);
    }
    // Their own children first: all of them at once, each with less time than is left here.
    let left = end.saturating_duration_since(Instant::now()).mul_f32(0.6);
    let parents: Vec<Address> = children.iter().filter(|c| c.tier() != Tier::Neighbourhood).cloned().collect();
    let question = format!("/v1/audit?below_only=true&within_ms={}", left.as_millis().max(1));
    let (below, silent) = road::many_views::<Audit>(&ctx, parents, &question, left).await;
    for (_, answer) in below {
        audit.totals += answer.body.totals;
        audit.down += answer.body.down;
        audit.links.extend(answer.body.links);
        audit.unasked.extend(answer.body.unasked);
    }
    let books = downward::Books::open(&ctx, &children).await?;
    // Who let this time pass would only take what is left of it from the others.
    let (late, children): (Vec<Address>, Vec<Address>) =
        children.into_iter().partition(|c| silent.iter().any(|m| m.node == *c && m.why == "late"));
    audit.unasked.extend(silent.into_iter().filter(|m| late.contains(&m.node)));
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
}
