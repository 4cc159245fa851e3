//! Whether a record of a frame may come from its peer, and is one that a node can keep. Pure; the
//! engine asks it for each record, before anything of it is appended.
//!
//! A frame's checksum only says that it came as it was sent. What is sent may be wrong: a child that
//! is broken, or hostile. What is let in here climbs to the city and goes out to subscribers of all
//! tiers, so it must be what a node's own door would have taken: an event, under its own type and its
//! own key, of a node that may speak on this link. The rest is parked, and the lane goes on.

use crate::note::reason;
use citybrain_shared::limits::PRESENCE_BYTES_MAX;
use citybrain_shared::record::{Direction, Kind, event_key};
use citybrain_shared::wire::Carried;
use citybrain_shared::words::short;
use citybrain_shared::{Address, event};

/// 9999-12-31T23:59:59Z in µs since 1970: RFC 3339 writes no later time.
const RECEIVED_US_MAX: i64 = 253_402_300_799_000_000;

/// Why a record is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the dead letter: `foreign` or `poison`.
    pub reason: &'static str,
    pub detail: String,
}

/// May `peer` send this record? `origin`: its origin's address, if it is one.
///
/// # Errors
/// [`Refusal`]: `foreign` when it is not this peer's to send, `poison` when no node may keep it.
pub fn admit(peer: &Address, is_parent: bool, origin: Option<&Address>, r: &Carried<'_>) -> Result<(), Refusal> {
    may_send(peer, is_parent, origin, r).map_err(|detail| Refusal { reason: reason::FOREIGN, detail })?;
    is_sound(r).map_err(|detail| Refusal { reason: reason::POISON, detail })
}

fn may_send(peer: &Address, is_parent: bool, origin: Option<&Address>, r: &Carried<'_>) -> Result<(), String> {
    if !r.kind.is_event() {
        // Notes most of all: they are what a node believes of itself.
        return Err(format!("a {} does not cross a link", r.kind.as_str()));
    }
    let Some(origin) = origin else {
        return Err(format!("its origin `{}` is no address", short(r.origin.address)));
    };
    match (r.direction, is_parent) {
        (Direction::Up, false) if !peer.covers(origin) => {
            Err(format!("it claims to begin at {origin}, which is not below {peer}"))
        }
        (Direction::Up, false) | (Direction::Down, true) => Ok(()),
        _ => Err(format!("a record of this direction does not come from {peer}")),
    }
}

fn is_sound(r: &Carried<'_>) -> Result<(), String> {
    if !event::is_type(r.name) {
        return Err(format!("`{}` is no event type", short(r.name)));
    }
    if r.direction == Direction::Up && !(1..u64::MAX).contains(&r.seq) {
        return Err(format!("{} is no sequence number", r.seq));
    }
    if !(0..=RECEIVED_US_MAX).contains(&r.received_us) {
        return Err(format!("it was received {} µs after 1970, which is no time", r.received_us));
    }
    if r.kind == Kind::Presence && r.payload.len() > PRESENCE_BYTES_MAX {
        return Err(format!("a presence of {} bytes: at most {PRESENCE_BYTES_MAX} are kept", r.payload.len()));
    }
    let event = event::identity(r.payload).map_err(|e| format!("its payload is no event: {e}"))?;
    if event.kind != r.name {
        return Err(format!("it goes as `{}` and its event is of type `{}`", r.name, short(&event.kind)));
    }
    if r.key != event_key(&event.source, &event.id) {
        return Err("its key is not that of its event's source and id".into());
    }
    Ok(())
}
