//! Do the books of what goes down add up? Of every directive that a node holds and that is for a
//! child or for somebody below it, the child holds it, or it waits, or was parked, refused or recorded
//! as lost.
//!
//! What goes down is a different choice of records for every child, so they are told by their key
//! (`source` and `id`), in the index of the child's log. The parent looks at its own log first: what
//! the child had acknowledged by then must be there ([`compare`]); the child says which it does not
//! hold ([`held`]).
//!
//! **Limits.** Only what both still keep can be compared: what the parent committed before the oldest
//! record of the child (a new box, or one whose retention is shorter) is counted as `not_kept`. The
//! newest [`RECORDS_MAX`] records of the parent are looked through.

use super::input::query;
use super::{Ctx, Refusal, events, ledger, road};
use axum::extract::State as From;
use axum::http::Uri;
use axum::response::Response;
use citybrain_hub::link::frames::Audience;
use citybrain_hub::log::{self, Reader};
use citybrain_hub::note::DeadLetter;
use citybrain_hub::state::Loss;
use citybrain_shared::record::{Header, event_key};
use citybrain_shared::view::{DownMissing, DownSums, Held, Missing};
use citybrain_shared::{Address, Lane, Pos};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Records of a log that are looked through, about half a second of reading.
const RECORDS_MAX: u64 = 200_000;
/// Keys in one question: 17 KB of text.
const KEYS_MAX: usize = 1_000;
const MISSING_LISTED: usize = 100;

/// A directive for a child.
struct Sent {
    pos: Pos,
    lane: Lane,
    key: u64,
    committed_us: i64,
}

/// Every directive in the newest part of the log, by the children that it is for; false if there is
/// more than was looked through.
pub(super) struct Books(BTreeMap<Address, Vec<Sent>>, bool);

impl Books {
    /// # Errors
    /// When the log does not read.
    pub(super) async fn open(ctx: &Ctx, children: &BTreeSet<Address>) -> Result<Books, Refusal> {
        let (reader, children) = (ctx.hub.reader(), children.clone());
        Ok(ctx.turns.read(move || read(&reader, children)).await?)
    }
}

fn read(reader: &Reader, children: BTreeSet<Address>) -> Result<Books, log::Error> {
    let last = reader.last();
    let oldest = reader.first().0.saturating_sub(1);
    let after = oldest.max(last.0.saturating_sub(RECORDS_MAX));
    let mut sent: BTreeMap<Address, Vec<Sent>> = BTreeMap::new();
    let audiences: Vec<Audience> = children.into_iter().map(Audience::Down).collect();
    reader.each(Pos(after), last, |entry| {
        let Ok((h, _)) = Header::decode(&entry.bytes) else { return };
        for audience in audiences.iter().filter(|a| a.wants(&h)) {
            let one = Sent { pos: entry.pos, lane: h.lane, key: h.key, committed_us: h.committed_us };
            sent.entry(audience.peer().clone()).or_default().push(one);
        }
    })?;
    Ok(Books(sent, after == oldest))
}

/// What became of the directives for a child.
///
/// # Errors
/// The child does not answer.
pub(super) async fn compare(
    ctx: &Ctx,
    books: &Books,
    child: &Address,
    within: Duration,
) -> Result<(DownSums, Vec<DownMissing>, Option<String>), Missing> {
    let note = (!books.1).then(|| format!("of what goes down only the newest {RECORDS_MAX} records were looked at"));
    let none = Vec::new();
    let all = books.0.get(child).unwrap_or(&none);
    let mut sums = DownSums { sent: all.len() as u64, ..DownSums::default() };
    if all.is_empty() {
        return Ok((sums, Vec::new(), note));
    }
    let (acked, losses, letters) = ctx.hub.state(|s| {
        let acked = s.peers.get(child).map_or([None, None], |p| p.peer_has).map(|c| c.map_or(Pos::ZERO, |c| c.upto));
        let of = |l: &&Loss| l.peer.as_ref().is_none_or(|p| p == child);
        (acked, s.losses.iter().filter(of).cloned().collect::<Vec<Loss>>(), ledger::letters_too_large(s))
    });
    let (waiting, given): (Vec<&Sent>, Vec<&Sent>) = all.iter().partition(|s| s.pos > acked[s.lane as usize]);
    sums.waiting = waiting.len() as u64;
    let mut absent: Vec<&Sent> = Vec::new();
    for page in given.chunks(KEYS_MAX) {
        let keys = page.iter().map(|s| format!("{:016x}", s.key)).collect::<Vec<_>>().join(",");
        let (answer, _) = road::ask_view::<Held>(ctx, child, &format!("/v1/held?keys={keys}"), within).await?;
        let (not_held, refused) = (numbers(&answer.body.absent), numbers(&answer.body.refused));
        for sent in page {
            match () {
                () if refused.contains(&sent.key) => sums.refused += 1,
                () if !not_held.contains(&sent.key) => sums.held += 1,
                () if sent.committed_us < answer.body.oldest_us => sums.not_kept += 1,
                () => absent.push(sent),
            }
        }
    }
    let reader = ctx.hub.reader();
    let via = child.clone();
    let parked = ctx.turns.read(move || ledger::parked(&reader, &letters, &via)).await.unwrap_or_default();
    let mut missing = Vec::new();
    for sent in absent {
        let is_lost =
            |l: &Loss| l.lane.is_none_or(|lane| lane == sent.lane) && sent.pos > l.after && sent.pos <= l.upto;
        if parked.contains(&sent.pos.0) {
            sums.parked += 1;
        } else if losses.iter().any(is_lost) {
            sums.lost += 1;
        } else {
            sums.missing += 1;
            if missing.len() < MISSING_LISTED {
                missing.push(named(&ctx.hub.reader(), sent.pos));
            }
        }
    }
    Ok((sums, missing, note))
}

fn numbers(keys: &[String]) -> BTreeSet<u64> {
    keys.iter().filter_map(|k| u64::from_str_radix(k, 16).ok()).collect()
}

/// One that nobody accounts for, by what people call it.
fn named(reader: &Reader, pos: Pos) -> DownMissing {
    let mut missing = DownMissing { pos, id: String::new(), event_type: String::new(), target: String::new() };
    if let Ok(Some(entry)) = reader.get(pos)
        && let Ok((h, payload)) = Header::decode(&entry.bytes)
    {
        missing.id = events::identity(&String::from_utf8_lossy(payload)).unwrap_or_default().0;
        (missing.event_type, missing.target) = (h.name.to_owned(), h.target.to_owned());
    }
    missing
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Keys {
    keys: String,
}

/// `GET /v1/held?keys=…`: which of these this node does not hold, and which it has refused.
pub async fn held(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let asked: Keys = query(&uri)?;
    let hint = "16 hexadecimal digits each, with commas, at most 1000";
    let keys: Option<Vec<u64>> = asked.keys.split(',').map(|k| u64::from_str_radix(k, 16).ok()).collect();
    let keys = keys
        .filter(|k| k.len() <= KEYS_MAX)
        .ok_or_else(|| Refusal::bad("bad-query", "the keys do not read".to_owned(), hint))?;
    let parent = ctx.config.node.address.parent();
    let letters: Vec<Pos> = ctx.hub.state(|s| s.dead_letters.keys().copied().collect());
    let reader = ctx.hub.reader();
    let found = ctx.turns.read(move || {
        let mut absent = Vec::new();
        for key in keys {
            if reader.find(key)?.is_none() {
                absent.push(key);
            }
        }
        let refused = match (&parent, absent.is_empty()) {
            (Some(parent), false) => refused(&reader, &letters, parent)?,
            _ => BTreeSet::new(),
        };
        let oldest_us = match reader.get(reader.first())? {
            Some(entry) => Header::decode(&entry.bytes).map_or(0, |(h, _)| h.committed_us),
            None => 0,
        };
        Ok((absent, refused, oldest_us))
    });
    let (absent, refused, oldest_us) = found.await?;
    let hex = |keys: Vec<u64>| keys.into_iter().map(|k| format!("{k:016x}")).collect();
    let refused = absent.iter().copied().filter(|k| refused.contains(k)).collect();
    Ok(ctx.answer(Held { absent: hex(absent), refused: hex(refused), oldest_us }))
}

/// Keys of what came from the parent and lies among the dead letters.
fn refused(reader: &Reader, letters: &[Pos], parent: &Address) -> Result<BTreeSet<u64>, log::Error> {
    let key = |l: DeadLetter| events::identity(&l.payload).map(|(id, source)| event_key(&source, &id));
    Ok(ledger::letters_of(reader, letters, parent)?.into_iter().filter_map(key).collect())
}
