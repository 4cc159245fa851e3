//! What of the log may go.
//!
//! A segment goes when all of it is older than the older snapshot, acknowledged by the parent and
//! by every child that has had a session and was not retired since, read by every sleeping session, and either older than
//! `keep_s` or over `log_bytes_max`. Only `log_bytes_hard_max` takes more, and then says so. So that
//! snapshots do not hold it up, there is one for each quarter of `log_bytes_max`, too, and on a disk
//! without room one for each segment that could go.

use super::upkeep::Space;
use super::worker::Engine;
use crate::log::Segment;
use crate::note::Note;
use crate::state::State;
use crate::store::Store;
use citybrain_shared::words::with_causes;
use citybrain_shared::{Address, Lane, Pos, topic};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The oldest position that somebody still needs, and who.
pub fn needed(state: &State, parent: Option<&Address>) -> (Pos, String) {
    let mut floor = (state.applied.next(), "nobody".to_owned());
    let mut need = |pos: Pos, who: &dyn Fn() -> String| {
        if pos < floor.0 {
            floor = (pos, who());
        }
    };
    for (address, peer) in &state.peers {
        // A folder that has moved still knows who was below its former address.
        let is_child =
            peer.lease > 0 && !peer.retired && state.address.as_ref().is_none_or(|me| address.is_child_of(me));
        if Some(address) != parent && !is_child {
            continue;
        }
        for lane in Lane::ALL {
            let upto = peer.peer_has[crate::state::slot(lane)].map_or(Pos::ZERO, |c| c.upto);
            need(upto.next(), &|| format!("{address} ({lane})"));
        }
    }
    if let Some(parent) = parent
        && !state.peers.contains_key(parent)
    {
        need(Pos(1), &|| format!("{parent}, which has not been reached yet"));
    }
    for (client, session) in state.sessions.iter() {
        // For a shared filter the group's own session speaks.
        if session.filters.keys().any(|f| !f.starts_with(topic::SHARE)) {
            need(session.needs_from(), &|| format!("the session of `{client}`"));
        }
    }
    floor
}

impl Engine {
    /// The oldest position that somebody still needs, and who.
    pub(super) fn needed(&self) -> (Pos, String) {
        needed(&self.shared.state.read(), self.parent.as_ref())
    }

    /// Bytes of the log in segments that began after this position.
    pub(super) fn log_since(&self, pos: Pos) -> u64 {
        self.log.segments().iter().filter(|s| s.first > pos).map(|s| s.bytes).sum()
    }

    pub(super) fn retain(&mut self) {
        // While the store is lent nobody knows which of its snapshots are there.
        if self.broken_since.is_some() || self.lent.is_some() {
            return;
        }
        let (needed, who) = self.needed();
        let short = self.space != Space::Enough;
        if short {
            self.snapshot_to_trim(needed);
        }
        let floor = self.trim_floor().next().min(needed);
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros() as i64;
        let keep_us = i64::try_from(self.config.keep_s).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let mut total = self.log.bytes();
        let mut keep_from = Pos::ZERO;
        for s in self.log.segments() {
            let old = now_us.saturating_sub(s.newest_us) > keep_us;
            // A disk smaller than the config believes: what nobody needs goes before nothing is taken.
            let must = total > self.config.log_bytes_max || short;
            if s.last >= floor || !(old || must) {
                break;
            }
            total = total.saturating_sub(s.bytes);
            keep_from = s.last.next();
        }
        let hard = self.config.log_bytes_hard_max;
        if hard > 0 && total > hard {
            self.retain_hard(total - hard, needed, &who, keep_from);
        } else if keep_from > Pos::ZERO {
            self.trim(keep_from);
        }
    }

    /// How far snapshots let the log go: up to the older of two. On a disk without room the newest, read
    /// back, must do: where nothing is taken there may never be a second.
    fn trim_floor(&mut self) -> Pos {
        let short = self.space != Space::Enough;
        self.store.as_mut().map_or(Pos::ZERO, |s| if short { s.checked_floor() } else { s.trim_floor() })
    }

    /// Has a snapshot made if nothing but that holds a segment.
    fn snapshot_to_trim(&mut self, needed: Pos) {
        let newest = self.store.as_ref().map_or(Pos::ZERO, Store::newest_snapshot);
        let lets_go = |s: &Segment| s.sealed && s.last > newest && s.last < needed && s.last <= self.stored;
        self.is_snapshot_due |= self.log.segments().iter().any(lets_go);
    }

    fn trim(&mut self, keep_from: Pos) {
        match self.log.trim(keep_from) {
            Ok(Some((first, last))) => tracing::info!(first = first.0, upto = last.0, "Old segments were removed."),
            Ok(None) => {}
            Err(e) => tracing::error!(error = %with_causes(&e), "Old segments could not be removed."),
        }
    }

    /// Takes what somebody needs, because the disk's owner said so; recorded before it goes.
    fn retain_hard(&mut self, over: u64, needed: Pos, who: &str, mut keep_from: Pos) {
        // Never past the snapshots: the state could not be rebuilt.
        let floor = self.trim_floor().next();
        let mut freed = 0;
        let first = self.log.reader().first();
        for s in self.log.segments() {
            if freed >= over || s.last >= floor {
                break;
            }
            freed += s.bytes;
            keep_from = keep_from.max(s.last.next());
        }
        if keep_from > needed {
            let note = Note::Lost {
                peer: None,
                lane: None,
                // What went before was told then.
                after: Pos(needed.max(first).0.saturating_sub(1)),
                upto: Pos(keep_from.0 - 1),
                reason: format!("log_bytes_hard_max was reached; {who} had not read them"),
            };
            tracing::error!(
                after = needed.0,
                upto = keep_from.0,
                "Records that are still needed are removed: the log is at its hard limit."
            );
            if self.record(note).is_err() {
                return;
            }
        }
        if keep_from > Pos::ZERO {
            self.trim(keep_from);
        }
    }
}
