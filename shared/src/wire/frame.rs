//! Records under way: frames, and what acknowledges them.

use super::{Error, FIELD_CORE, FIELD_ORIGINS, FIELD_ZSTD, Party, open, put_end, put_field, put_party, seal};
use crate::address::Tier;
use crate::ids::{Boot, Lane, LogId, Pos};
use crate::limits;
use crate::record::{self, Direction, Header, Kind, Origin, Reader};
use std::borrow::Cow;

/// The part of a frame that the protocol decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    pub from: Party,
    /// The lease that the parent granted; in frames of the parent too.
    pub lease: u64,
    pub log: LogId,
    pub lane: Lane,
    /// The frame covers the sender's positions in (`after`, `upto`]; those it does not carry are
    /// not for this receiver or belong to the other lane.
    pub after: Pos,
    pub upto: Pos,
    /// The sender's chain hash at `after` and at `upto`.
    pub after_chain: u64,
    pub upto_chain: u64,
    pub records: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Frame<'a> {
    pub head: FrameHead,
    pub(super) origins: Vec<(&'a str, LogId)>,
    pub(super) body: Cow<'a, [u8]>,
}

/// Cumulative, after the receiver's fsync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub from: Party,
    /// The frame sender's boot: an acknowledgement for another boot is late.
    pub to: Boot,
    pub lease: u64,
    pub log: LogId,
    pub lane: Lane,
    pub upto: Pos,
    /// Frames that the sender may have under way on this lane from now on.
    pub credit: u16,
    /// The receiver saw a later frame first: go back to `upto` at once.
    pub gap: bool,
}

/// One record as a frame carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried<'a> {
    pub kind: Kind,
    pub lane: Lane,
    pub direction: Direction,
    pub reach: Tier,
    pub received_us: i64,
    pub key: u64,
    /// What is left of its time at the moment of sending, as in [`Header::ttl_ms`].
    pub ttl_ms: u32,
    pub seq: u64,
    pub origin: Origin<'a>,
    /// As in [`Header::had_before`]: its sender knows.
    pub had_before: bool,
    pub name: &'a str,
    pub target: &'a str,
    pub payload: &'a [u8],
}

impl<'a> Carried<'a> {
    /// As the receiver writes it to its own log.
    pub fn header(&self, committed_us: i64) -> Header<'a> {
        Header {
            kind: self.kind,
            lane: self.lane,
            direction: self.direction,
            reach: self.reach,
            received_us: self.received_us,
            committed_us,
            key: self.key,
            ttl_ms: self.ttl_ms,
            seq: self.seq,
            origin: Some(self.origin),
            name: self.name,
            topic: "",
            target: self.target,
            retain: false,
            qos: 1,
            had_before: self.had_before,
            door: &[],
        }
    }
}

/// Collects records into one frame. Pure; reused from frame to frame without allocating.
#[derive(Default)]
pub struct FrameBuilder {
    origins: Vec<(String, LogId)>,
    body: Vec<u8>,
    records: u32,
}

impl FrameBuilder {
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub fn records(&self) -> usize {
        self.records as usize
    }

    /// No further record fits: [`limits::FRAME_RECORDS_MAX`] or [`limits::FRAME_BYTES_MAX`].
    pub fn is_full(&self) -> bool {
        self.records() >= limits::FRAME_RECORDS_MAX || self.body.len() >= limits::FRAME_BYTES_MAX
    }

    /// Adds a record of the sender's log; `own` is the origin of records that begin there. Its [`Header::had_before`] is
    /// what the sender says of the receiver.
    pub fn push(&mut self, header: &Header<'_>, own: Origin<'_>, ttl_ms: u32, payload: &[u8]) {
        let origin = header.origin.unwrap_or(own);
        let index = match self.origins.iter().rposition(|(a, l)| *l == origin.log && a == origin.address) {
            Some(i) => i,
            None => {
                self.origins.push((origin.address.to_owned(), origin.log));
                self.origins.len() - 1
            }
        };
        let b = &mut self.body;
        b.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        b.push(header.kind as u8);
        b.push(header.flags(false) & (7 | record::HAD_BEFORE)); // retain and QoS do not travel
        b.push(header.reach as u8);
        b.push(0);
        b.extend_from_slice(&header.received_us.to_le_bytes());
        b.extend_from_slice(&header.key.to_le_bytes());
        b.extend_from_slice(&ttl_ms.to_le_bytes());
        b.extend_from_slice(&header.seq.to_le_bytes());
        b.extend_from_slice(&(index as u16).to_le_bytes());
        b.extend_from_slice(&origin.pos.0.to_le_bytes());
        b.extend_from_slice(&(header.name.len() as u16).to_le_bytes());
        b.extend_from_slice(&(header.target.len() as u16).to_le_bytes());
        b.extend_from_slice(header.name.as_bytes());
        b.extend_from_slice(header.target.as_bytes());
        b.extend_from_slice(payload);
        self.records += 1;
    }

    /// Forgets what was put in.
    pub fn clear(&mut self) {
        self.body.clear();
        self.origins.clear();
        self.records = 0;
    }

    /// The finished message; the builder is empty again. `compress` gets the body and returns a
    /// smaller one, or `None` to send it as it is (zstd lives in `hub`, which may do such work).
    pub fn finish(&mut self, mut head: FrameHead, compress: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
        head.records = self.records;
        let packed = compress(&self.body);
        let body = packed.as_deref().unwrap_or(&self.body);
        let mut out = open(4, 256 + body.len());
        let mut core = Vec::with_capacity(CORE_BYTES);
        put_party(&mut core, head.from);
        core.extend_from_slice(&head.lease.to_le_bytes());
        core.extend_from_slice(&head.log.0.to_le_bytes());
        core.push(head.lane as u8);
        for n in [head.after.0, head.upto.0, head.after_chain, head.upto_chain] {
            core.extend_from_slice(&n.to_le_bytes());
        }
        core.extend_from_slice(&head.records.to_le_bytes());
        put_field(&mut out, FIELD_CORE, &core);
        // One field an origin: at most 256 records bring at most 256 of them.
        for (address, log) in &self.origins {
            let mut v = Vec::with_capacity(16 + address.len());
            v.extend_from_slice(&log.0.to_le_bytes());
            v.extend_from_slice(address.as_bytes());
            put_field(&mut out, FIELD_ORIGINS, &v);
        }
        if packed.is_some() {
            put_field(&mut out, FIELD_ZSTD, &(self.body.len() as u32).to_le_bytes());
        }
        put_end(&mut out);
        out.extend_from_slice(body);
        self.origins.clear();
        self.body.clear();
        self.records = 0;
        seal(out)
    }
}

pub(super) const CORE_BYTES: usize = 32 + 8 + 16 + 1 + 32 + 4;

impl<'a> Frame<'a> {
    /// The records, in order.
    ///
    /// Each item is `Err` where a record does not decode; the next ones may still be good as long
    /// as the lengths hold. [`FrameHead::records`] says how many there must be.
    pub fn records(&'a self) -> impl Iterator<Item = Result<Carried<'a>, Error>> + 'a {
        let mut r = Reader::new(&self.body);
        let mut left = self.head.records;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let one = self.take(&mut r);
            if matches!(one, Err(Error::Record(record::Error::Short { .. }))) {
                left = 0; // nothing after a cut can be trusted
            }
            Some(one)
        })
    }

    fn take(&'a self, r: &mut Reader<'a>) -> Result<Carried<'a>, Error> {
        let payload_len = u32::from_le_bytes(r.array()?) as usize;
        let [kind, flags, reach, _] = r.array()?;
        let received_us = i64::from_le_bytes(r.array()?);
        let key = u64::from_le_bytes(r.array()?);
        let ttl_ms = u32::from_le_bytes(r.array()?);
        let seq = u64::from_le_bytes(r.array()?);
        let index = u16::from_le_bytes(r.array()?);
        let pos = Pos(u64::from_le_bytes(r.array()?));
        let name_len = u16::from_le_bytes(r.array()?) as usize;
        let target_len = u16::from_le_bytes(r.array()?) as usize;
        let (name, target) = (r.bytes(name_len)?, r.bytes(target_len)?);
        let payload = r.bytes(payload_len)?;
        let text = |field, b| std::str::from_utf8(b).map_err(|_| record::Error::Utf8(field));
        let (kind, lane, direction, reach) = record::flags_of(kind, flags, reach)?;
        let (address, log) =
            *self.origins.get(index as usize).ok_or(record::Error::Field { field: "origin", value: index.into() })?;
        Ok(Carried {
            kind,
            lane,
            direction,
            reach,
            received_us,
            key,
            ttl_ms,
            seq,
            origin: Origin { address, log, pos },
            had_before: flags & record::HAD_BEFORE != 0,
            name: text("name", name)?,
            target: text("target", target)?,
            payload,
        })
    }
}
