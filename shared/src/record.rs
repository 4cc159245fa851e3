//! A record: how an event lies in a node's log.
//!
//! **Format** (little-endian; lengths in bytes):
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 1 | kind |
//! | 1 | 1 | flags: bit 0 urgent, bits 1–2 direction, bit 3 own (no origin fields), bit 4 retain, bits 5–6 QoS of the publish, bit 7 had before |
//! | 2 | 1 | reach: the highest tier it travels to (1 city … 4 neighbourhood) |
//! | 3 | 1 | length of the origin's address, 0 if own |
//! | 4 | 8 | received: µs since 1970 by the origin's clock |
//! | 12 | 8 | committed here: µs since 1970 by this node's clock |
//! | 20 | 8 | key: xxh3 of `source`, 0x00, `id`; 0 if it has none |
//! | 28 | 4 | ttl: ms that it may still spend before it expires, counted from "committed here"; 0 never |
//! | 32 | 2 | length of the name |
//! | 34 | 2 | length of the topic |
//! | 36 | 2 | length of the target |
//! | 38 | 2 | length of the door's bytes |
//! | 40 | 8 | seq: counts the origin's upward records of one history, lane and reach from 1, without gaps; 0 for others |
//! | 48 | 24 | only if not own: origin's log id (16), origin's position (8) |
//! | | | origin's address, name, topic, target, door's bytes, payload |
//!
//! `seq` is what duplicates are told by: every node that receives records of a reach receives all of
//! them, so a set of intervals per (origin, log, lane, reach) is one interval, and a late record
//! fills exactly its hole. Positions would not do: records that stay below leave holes for ever.
//!
//! The payload is the event's JSON **as it was received**; no hop parses it.

use crate::address::Tier;
use crate::ids::{Lane, LogId, Pos};
use xxhash_rust::xxh3::Xxh3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A CloudEvents JSON object.
    Event = 1,
    /// A plain MQTT message that no mapping made an event of; stays on this node.
    Message = 2,
    /// A node's own bookkeeping (hub's `note`); stays on this node.
    Note = 3,
    /// An event in which a node tells who it is; folded into the registry of every ancestor.
    Presence = 4,
    /// An event that answers a directive; folded into its counts at every tier.
    Receipt = 5,
}

impl Kind {
    fn from_u8(n: u8) -> Option<Kind> {
        [Kind::Event, Kind::Message, Kind::Note, Kind::Presence, Kind::Receipt].into_iter().find(|k| *k as u8 == n)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Event => "event",
            Kind::Message => "message",
            Kind::Note => "note",
            Kind::Presence => "presence",
            Kind::Receipt => "receipt",
        }
    }

    /// True for the kinds that carry a CloudEvents object.
    pub fn is_event(self) -> bool {
        matches!(self, Kind::Event | Kind::Presence | Kind::Receipt)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    Local = 0,
    Up = 1,
    Down = 2,
}

/// Where a record was first committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    pub address: &'a str,
    pub log: LogId,
    pub pos: Pos,
}

/// What is left of a time budget that is over. Not 0, which would be "for ever": a late directive
/// still goes to whom it names, so that it is answered "not executed".
pub const TTL_OVER_MS: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub kind: Kind,
    pub lane: Lane,
    pub direction: Direction,
    pub reach: Tier,
    /// µs since 1970 by the origin's clock.
    pub received_us: i64,
    /// µs since 1970 by the clock of the node whose log this is.
    pub committed_us: i64,
    /// [`event_key`], 0 if it has none.
    pub key: u64,
    /// 0: never expires; [`TTL_OVER_MS`]: its time is over.
    pub ttl_ms: u32,
    /// See the module's text; set by [`Draft::stamp`] where the record begins.
    pub seq: u64,
    /// `None`: this node; its position is the log position itself.
    pub origin: Option<Origin<'a>>,
    /// Event type; for a message the empty string.
    pub name: &'a str,
    /// The MQTT topic it came by at its own node, else empty. Does not travel.
    pub topic: &'a str,
    /// The selector of a downward event, else empty.
    pub target: &'a str,
    /// The publisher asked the front door to retain it. Does not travel.
    pub retain: bool,
    /// QoS of the publish (0 to 2). Does not travel.
    pub qos: u8,
    /// It came from a neighbour that had sent it to this address before and knows that it was acknowledged: by a box whose
    /// disk was lost, or by this one, of which a backup was put back.
    pub had_before: bool,
    /// What only the front door reads: the publisher's client id and MQTT 5 properties. Does not travel.
    pub door: &'a [u8],
}

impl<'a> Header<'a> {
    /// A routine event that begins and stays here; the caller sets what differs.
    pub fn local(kind: Kind, name: &'a str) -> Header<'a> {
        Header {
            kind,
            lane: Lane::Routine,
            direction: Direction::Local,
            reach: Tier::Neighbourhood,
            received_us: 0,
            committed_us: 0,
            key: 0,
            ttl_ms: 0,
            seq: 0,
            origin: None,
            name,
            topic: "",
            target: "",
            retain: false,
            qos: 1,
            had_before: false,
            door: &[],
        }
    }
}

/// The lane of an encoded record, without decoding it. `bytes` must be a record.
pub fn lane_of(bytes: &[u8]) -> Lane {
    if bytes[1] & 1 != 0 { Lane::Urgent } else { Lane::Routine }
}

/// The key of an encoded record, without decoding it; 0 if it has none. `bytes` must be a record.
pub fn key_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[20..28].try_into().expect("eight bytes"))
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a record of {len} bytes is cut short")]
    Short { len: usize },
    #[error("a record's field `{field}` holds {value}, which means nothing")]
    Field { field: &'static str, value: u64 },
    #[error("a record's field `{0}` is not UTF-8")]
    Utf8(&'static str),
    #[error("a record's field `{field}` is {len} bytes long; at most {max} fit")]
    Long { field: &'static str, len: usize, max: usize },
}

const FIXED: usize = 48;
const ORIGIN: usize = 24;

impl<'a> Header<'a> {
    /// Appends the record to `out`.
    ///
    /// # Errors
    /// [`Error::Long`] when a text field does not fit its length field; `out` is then unchanged.
    pub fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let address = self.origin.map_or("", |o| o.address);
        fits("origin", address.len(), u8::MAX as usize)?;
        for (field, text) in [("name", self.name), ("topic", self.topic), ("target", self.target)] {
            fits(field, text.len(), u16::MAX as usize)?;
        }
        fits("door", self.door.len(), u16::MAX as usize)?;
        out.reserve(
            FIXED
                + ORIGIN
                + address.len()
                + self.name.len()
                + self.topic.len()
                + self.target.len()
                + self.door.len()
                + payload.len(),
        );
        out.push(self.kind as u8);
        out.push(self.flags(self.origin.is_none()));
        out.push(self.reach as u8);
        out.push(address.len() as u8);
        out.extend_from_slice(&self.received_us.to_le_bytes());
        out.extend_from_slice(&self.committed_us.to_le_bytes());
        out.extend_from_slice(&self.key.to_le_bytes());
        out.extend_from_slice(&self.ttl_ms.to_le_bytes());
        for len in [self.name.len(), self.topic.len(), self.target.len(), self.door.len()] {
            out.extend_from_slice(&(len as u16).to_le_bytes());
        }
        out.extend_from_slice(&self.seq.to_le_bytes());
        if let Some(o) = self.origin {
            out.extend_from_slice(&o.log.0.to_le_bytes());
            out.extend_from_slice(&o.pos.0.to_le_bytes());
            out.extend_from_slice(o.address.as_bytes());
        }
        for text in [self.name, self.topic, self.target] {
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(self.door);
        out.extend_from_slice(payload);
        Ok(())
    }

    /// The header and the payload of a record.
    ///
    /// # Errors
    /// When the bytes are not a record. Bytes from a log whose checksum held are one.
    pub fn decode(bytes: &'a [u8]) -> Result<(Header<'a>, &'a [u8]), Error> {
        let mut r = Reader { rest: bytes, len: bytes.len() };
        let [kind, flags, reach, address_len] = r.array()?;
        let received_us = i64::from_le_bytes(r.array()?);
        let committed_us = i64::from_le_bytes(r.array()?);
        let key = u64::from_le_bytes(r.array()?);
        let ttl_ms = u32::from_le_bytes(r.array()?);
        let name_len = u16::from_le_bytes(r.array()?) as usize;
        let topic_len = u16::from_le_bytes(r.array()?) as usize;
        let target_len = u16::from_le_bytes(r.array()?) as usize;
        let door_len = u16::from_le_bytes(r.array()?) as usize;
        let seq = u64::from_le_bytes(r.array()?);
        let (retain, qos, had_before) = (flags & RETAIN != 0, (flags >> 5) & 3, flags & HAD_BEFORE != 0);
        let (kind, lane, direction, reach) = flags_of(kind, flags, reach)?;
        let origin = if flags & OWN != 0 {
            None
        } else {
            let log = LogId(u128::from_le_bytes(r.array()?));
            let pos = Pos(u64::from_le_bytes(r.array()?));
            Some(Origin { address: r.text("origin", address_len as usize)?, log, pos })
        };
        let name = r.text("name", name_len)?;
        let topic = r.text("topic", topic_len)?;
        let target = r.text("target", target_len)?;
        let door = r.bytes(door_len)?;
        let header = Header {
            kind,
            lane,
            direction,
            reach,
            received_us,
            committed_us,
            key,
            ttl_ms,
            seq,
            origin,
            name,
            topic,
            target,
            retain,
            qos,
            had_before,
            door,
        };
        Ok((header, r.rest))
    }

    pub(crate) fn flags(&self, own: bool) -> u8 {
        u8::from(self.lane == Lane::Urgent)
            | (self.direction as u8) << 1
            | if own { OWN } else { 0 }
            | if self.retain { RETAIN } else { 0 }
            | (self.qos & 3) << 5
            | if self.had_before { HAD_BEFORE } else { 0 }
    }
}

const OWN: u8 = 8;
const RETAIN: u8 = 16;
pub(crate) const HAD_BEFORE: u8 = 128;

pub(crate) fn flags_of(kind: u8, flags: u8, reach: u8) -> Result<(Kind, Lane, Direction, Tier), Error> {
    let kind = Kind::from_u8(kind).ok_or(Error::Field { field: "kind", value: kind.into() })?;
    let lane = if flags & 1 != 0 { Lane::Urgent } else { Lane::Routine };
    let direction = match (flags >> 1) & 3 {
        0 => Direction::Local,
        1 => Direction::Up,
        2 => Direction::Down,
        n => {
            return Err(Error::Field { field: "direction", value: n.into() });
        }
    };
    let reach = Tier::from_depth(reach.into()).ok_or(Error::Field { field: "reach", value: reach.into() })?;
    Ok((kind, lane, direction, reach))
}

fn fits(field: &'static str, len: usize, max: usize) -> Result<(), Error> {
    if len > max { Err(Error::Long { field, len, max }) } else { Ok(()) }
}

/// A record that has no position yet: already in its log form, so that the engine only stamps and
/// copies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    bytes: Vec<u8>,
}

impl Draft {
    /// The times in `header` do not matter: [`Draft::stamp`] sets both.
    ///
    /// # Errors
    /// As [`Header::encode`].
    pub fn new(header: &Header<'_>, payload: &[u8]) -> Result<Draft, Error> {
        let mut bytes = Vec::new();
        header.encode(payload, &mut bytes)?;
        Ok(Draft { bytes })
    }

    /// Sets the commit time, and, of a record that begins here, the received time and the seq.
    pub fn stamp(&mut self, now_us: i64, seq: u64) {
        let now = now_us.to_le_bytes();
        if self.bytes[1] & OWN != 0 {
            self.bytes[4..12].copy_from_slice(&now);
            self.bytes[40..48].copy_from_slice(&seq.to_le_bytes());
        }
        self.bytes[12..20].copy_from_slice(&now);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn parts(&self) -> (Header<'_>, &[u8]) {
        Header::decode(&self.bytes).expect("a draft holds what `encode` wrote")
    }

    pub fn header(&self) -> Header<'_> {
        self.parts().0
    }

    pub fn payload(&self) -> &[u8] {
        self.parts().1
    }
}

/// The key by which a repeated event is found: xxh3-64 of `source`, 0x00, `id`; never 0.
pub fn event_key(source: &str, id: &str) -> u64 {
    let mut h = Xxh3::new();
    h.update(source.as_bytes());
    h.update(&[0]);
    h.update(id.as_bytes());
    h.digest().max(1)
}

/// Takes fields off the front of a byte slice.
pub(crate) struct Reader<'a> {
    pub rest: &'a [u8],
    pub len: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, len: bytes.len() }
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::Short { len: self.len })?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Error::Short { len: self.len })?;
        self.rest = rest;
        Ok(head)
    }

    pub fn text(&mut self, field: &'static str, n: usize) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes(n)?).map_err(|_| Error::Utf8(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header<'a>(name: &'a str, topic: &'a str, target: &'a str, origin: Option<Origin<'a>>) -> Header<'a> {
        Header {
            kind: Kind::Event,
            lane: Lane::Urgent,
            direction: Direction::Down,
            reach: Tier::Street,
            received_us: -5,
            committed_us: 1_700_000_000_000_000,
            key: 42,
            ttl_ms: 7,
            seq: 77,
            origin,
            name,
            topic,
            target,
            retain: true,
            qos: 2,
            had_before: true,
            door: b"\x01\x00",
        }
    }

    #[test]
    fn a_stamp_sets_the_received_time_only_where_the_record_begins() {
        let mut own = Draft::new(&header("t", "", "", None), b"{}").unwrap();
        own.stamp(9, 4);
        assert_eq!((own.header().received_us, own.header().committed_us, own.header().seq), (9, 9, 4));
        let from = Origin { address: "a/b", log: LogId(1), pos: Pos(3) };
        let mut relayed = Draft::new(&header("t", "", "", Some(from)), b"{}").unwrap();
        relayed.stamp(9, 4);
        assert_eq!((relayed.header().received_us, relayed.header().committed_us, relayed.header().seq), (-5, 9, 77));
        assert_eq!(relayed.header().origin, Some(from));
        assert_eq!(relayed.payload(), b"{}");
    }

    #[test]
    fn a_name_too_long_is_refused_and_writes_nothing() {
        let long = "x".repeat(65_536);
        let mut out = Vec::new();
        assert!(matches!(header(&long, "", "", None).encode(b"", &mut out), Err(Error::Long { field: "name", .. })));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(name in ".{0,40}", topic in ".{0,40}", target in ".{0,40}",
            payload in prop::collection::vec(any::<u8>(), 0..200), address in "[a-z]{0,20}", log: u128, pos: u64, own: bool) {
            let origin = (!own).then_some(Origin { address: &address, log: LogId(log), pos: Pos(pos) });
            let h = header(&name, &topic, &target, origin);
            let mut out = Vec::new();
            h.encode(&payload, &mut out).unwrap();
            prop_assert_eq!(Header::decode(&out).unwrap(), (h, payload.as_slice()));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::decode(&bytes);
        }
    }
}
