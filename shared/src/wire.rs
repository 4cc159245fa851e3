//! How records cross a link: every message that two nodes exchange.
//!
//! **Envelope**: `CB`, version (1 byte), kind (1), CRC32C of
//! version, kind and all that follows (4, little-endian),
//! then header fields until the end marker, then the body. A header field is a tag (2 bytes), a
//! length (2) and a value; a tag with the bit 0x8000 is *critical*: a receiver that does not know
//! it must not act on the message. Unknown fields without it are skipped. The end marker is tag 0.
//!
//! Frames and acknowledgements are binary throughout; all others carry one JSON object as their body
//! (unknown members are ignored).

use crate::address::{Address, Tier};
use crate::ids::{Boot, Inc, Lane, LogId, Pos};
use crate::limits;
use crate::record::{self, Direction, Header, Kind, Origin, Reader};
use serde::{Deserialize, Serialize};

/// The version that this build writes, and the oldest that it reads.
pub const VERSION: u8 = 1;
pub const VERSION_MIN: u8 = 1;

/// Bytes that a compressed frame may unpack to. What is larger travels as it is.
pub const UNPACKED_BYTES_MAX: usize = limits::FRAME_BYTES_MAX + 2 * limits::EVENT_BYTES_MAX;

const CRITICAL: u16 = 0x8000;
const FIELD_CORE: u16 = CRITICAL | 1;
const FIELD_ORIGINS: u16 = CRITICAL | 2;
/// The body is zstd; the value is its size before compression (u32).
const FIELD_ZSTD: u16 = CRITICAL | 3;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("not a citybrain message")]
    Foreign,
    #[error("version {0} is not spoken here (this build speaks {VERSION_MIN} to {VERSION})")]
    Version(u8),
    #[error("message kind {0} is not known")]
    Kind(u8),
    #[error("the message's checksum does not hold: it was damaged on the way")]
    Checksum,
    #[error("the message needs header field {0:#06x}, which this build does not know; upgrade this node")]
    Critical(u16),
    #[error("the message lacks header field {0:#06x}")]
    Lacks(u16),
    #[error("the message's JSON does not fit: {0}")]
    Json(String),
    #[error("the message does not decode: {0}")]
    Record(#[from] record::Error),
    #[error("the frame's range ({from}, {to}] is not one")]
    Range { from: Pos, to: Pos },
    #[error("the frame claims {records} records; at most {max} fit")]
    Crowded { records: u32, max: usize },
    #[error("the frame's body is compressed to more than {max} bytes")]
    Bomb { max: usize },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    Hello(Hello),
    Welcome(Welcome),
    Refuse(Refuse),
    Frame(Frame<'a>),
    Ack(Ack),
    /// The sender ends its session on purpose.
    Bye(Party),
    /// The sender is there, and may have nothing else to say.
    Alive(Party),
}

/// Who speaks: in every message, so that late ones of an older connection are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Party {
    pub inc: Inc,
    pub boot: Boot,
}

/// What a receiver holds of a sender's lane, or a sender knows that a receiver holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub log: LogId,
    /// Everything up to and including this position is durable at the receiver.
    pub upto: Pos,
    /// The sender's chain hash at `upto`; 0 at position 0.
    pub chain: u64,
}

/// A continuous history and where in the sender's log it begins (the first position under it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    pub log: LogId,
    pub first: Pos,
}

/// A start and the first position that it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootMark {
    pub boot: Boot,
    pub first: Pos,
}

/// A child asks its parent for a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub from: Party,
    pub address: Address,
    pub name: String,
    pub version_min: u8,
    pub version_max: u8,
    /// Largest message that the child accepts, bytes.
    pub message_bytes_max: u32,
    /// The child's current history.
    pub epoch: Epoch,
    /// The child's oldest retained and its newest durable position.
    pub first: Pos,
    pub last: Pos,
    /// Its latest starts, oldest first.
    pub boots: Vec<BootMark>,
    /// The parent that acknowledged last, and what it acknowledged, by lane (urgent, routine).
    pub peer: Option<Inc>,
    pub peer_has: [Option<Cursor>; 2],
    /// What the child holds of this parent's downward lanes (urgent, routine).
    pub has: [Option<Cursor>; 2],
    /// Starts of the parent that the child has seen, newest last.
    pub peer_boots: Vec<Boot>,
    /// Counts the hellos of one start; the answer names it, so that an answer to an older hello
    /// (a retained one, most often) is told apart.
    #[serde(default)]
    pub id: u64,
    /// All histories of the child's log, oldest first; the last is `epoch`.
    #[serde(default)]
    pub epochs: Vec<Epoch>,
    /// The child's chain hash at positions that the parent asked for; `None` where it is trimmed.
    #[serde(default)]
    pub proofs: Vec<(Pos, Option<u64>)>,
    /// `epoch` was minted because the parent's refusal named this history.
    #[serde(default)]
    pub minted_for: Option<LogId>,
    /// Address of the parent in `peer`: another one than the receiver's if the child has moved.
    #[serde(default)]
    pub peer_address: Option<Address>,
}

/// The parent grants a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub from: Party,
    /// The hello's boot that is answered.
    pub to: Boot,
    pub address: Address,
    pub version: u8,
    pub message_bytes_max: u32,
    /// Fencing number: grows with each grant for this child address.
    pub lease: u64,
    pub epoch: Epoch,
    pub first: Pos,
    pub last: Pos,
    /// What the parent holds of the child's lanes (urgent, routine): the child sends from there.
    pub has: [Cursor; 2],
    /// Frames that the child may have under way on each lane.
    pub credit: u16,
    /// [`Hello::id`] of the hello that is answered.
    #[serde(default)]
    pub answers: u64,
    /// Where the parent starts on its downward lanes (urgent, routine): the child sets its cursors
    /// there.
    #[serde(default)]
    pub sends: [Option<Cursor>; 2],
    /// The parent's latest starts, oldest first.
    #[serde(default)]
    pub boots: Vec<BootMark>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refuse {
    pub from: Party,
    pub to: Boot,
    pub reason: Reason,
    /// One sentence for people.
    pub detail: String,
    /// For `past` and `forked`: starts of the refused node that the refuser has seen.
    #[serde(default)]
    pub boots: Vec<Boot>,
    /// [`Hello::id`] of the hello that is answered; 0 if a frame is.
    #[serde(default)]
    pub answers: u64,
    /// For `prove`: positions of the refused node's log whose chain hash the next hello must give.
    #[serde(default)]
    pub prove: Vec<Pos>,
    /// For `past` and `forked`: what the refuser holds of the refused node (urgent, routine).
    #[serde(default)]
    pub held: [Option<Cursor>; 2],
}

impl Refuse {
    /// A refusal of a frame; the caller sets what a refused hello needs besides.
    pub fn new(from: Party, to: Boot, reason: Reason, detail: impl Into<String>) -> Refuse {
        Refuse {
            from,
            to,
            reason,
            detail: detail.into(),
            boots: Vec::new(),
            answers: 0,
            prove: Vec::new(),
            held: [None; 2],
        }
    }
}

/// Why a session is refused. The names are shown by `links` and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The refuser holds positions that the other has not written yet: it was restored from a backup.
    Past,
    /// Same history and position, other content: a cloned disk or a restored backup that went on.
    Forked,
    /// Another node holds this address and is alive.
    Duplicate,
    /// The boot that speaks is older than one already seen.
    Stale,
    /// A new incarnation under a known address, and config demands that an operator approves it.
    Unenrolled,
    /// No version that both speak.
    Version,
    /// The address is no child of the refuser.
    WrongParent,
    /// The session is unknown here (restart): say hello again.
    Unknown,
    /// The refuser cannot write at the moment.
    Unavailable,
    /// Not a refusal yet: say hello again, with the chain hashes that are asked for.
    Prove,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Past => "past",
            Reason::Forked => "forked",
            Reason::Duplicate => "duplicate",
            Reason::Stale => "stale",
            Reason::Unenrolled => "unenrolled",
            Reason::Version => "version",
            Reason::WrongParent => "wrong-parent",
            Reason::Unknown => "unknown",
            Reason::Unavailable => "unavailable",
            Reason::Prove => "prove",
        }
    }
}

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
    origins: Vec<(&'a str, LogId)>,
    body: std::borrow::Cow<'a, [u8]>,
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

    /// Adds a record of the sender's log; `own` is the origin of records that begin there.
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
        b.push(header.flags(false) & 7); // retain and QoS do not travel
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

const CORE_BYTES: usize = 32 + 8 + 16 + 1 + 32 + 4;

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
            name: text("name", name)?,
            target: text("target", target)?,
            payload,
        })
    }
}

impl Message<'_> {
    /// The bytes of any message but a frame (which [`FrameBuilder::finish`] makes).
    ///
    /// # Panics
    /// On [`Message::Frame`].
    pub fn encode(&self) -> Vec<u8> {
        fn json(kind: u8, body: &impl Serialize) -> Vec<u8> {
            let mut out = open(kind, 512);
            put_end(&mut out);
            serde_json::to_writer(&mut out, body)
                .expect("these types have only string keys, and a Vec takes every write");
            seal(out)
        }
        match self {
            Message::Hello(m) => json(1, m),
            Message::Welcome(m) => json(2, m),
            Message::Refuse(m) => json(3, m),
            Message::Frame(_) => panic!("frames are made by FrameBuilder"),
            Message::Ack(a) => {
                let mut core = Vec::with_capacity(96);
                put_party(&mut core, a.from);
                core.extend_from_slice(&a.to.counter.to_le_bytes());
                core.extend_from_slice(&a.to.nonce.to_le_bytes());
                core.extend_from_slice(&a.lease.to_le_bytes());
                core.extend_from_slice(&a.log.0.to_le_bytes());
                core.push(a.lane as u8);
                core.extend_from_slice(&a.upto.0.to_le_bytes());
                core.extend_from_slice(&a.credit.to_le_bytes());
                core.push(u8::from(a.gap));
                let mut out = open(5, 128);
                put_field(&mut out, FIELD_CORE, &core);
                put_end(&mut out);
                seal(out)
            }
            Message::Bye(p) => json(6, p),
            Message::Alive(p) => json(7, p),
        }
    }
}

/// Reads a message. `decompress` gets a zstd body and the size that it must have.
///
/// # Errors
/// [`Error`]; nothing of a message that fails is to be acted on.
pub fn decode<'a>(
    bytes: &'a [u8],
    decompress: impl FnOnce(&[u8], usize) -> Option<Vec<u8>>,
) -> Result<Message<'a>, Error> {
    let (version, kind, rest) = match bytes {
        [b'C', b'B', version, kind, rest @ ..] => (*version, *kind, rest),
        _ => return Err(Error::Foreign),
    };
    if !(VERSION_MIN..=VERSION).contains(&version) {
        return Err(Error::Version(version));
    }
    let mut r = Reader::new(rest);
    let crc = u32::from_le_bytes(r.array()?);
    if crc32c::crc32c_append(crc32c::crc32c(&bytes[2..4]), r.rest) != crc {
        return Err(Error::Checksum);
    }
    let (mut core, mut origins, mut plain_len) = (None, Vec::new(), None);
    loop {
        let tag = u16::from_le_bytes(r.array()?);
        if tag == 0 {
            break;
        }
        let len = u16::from_le_bytes(r.array()?) as usize;
        let value = r.bytes(len)?;
        match tag {
            FIELD_CORE => core = Some(value),
            FIELD_ORIGINS => {
                let mut v = Reader::new(value);
                let log = LogId(u128::from_le_bytes(v.array()?));
                let n = v.rest.len();
                origins.push((v.text("origin", n)?, log));
            }
            FIELD_ZSTD => plain_len = Some(u32::from_le_bytes(Reader::new(value).array()?) as usize),
            t if t & CRITICAL != 0 => return Err(Error::Critical(t)),
            _ => {}
        }
    }
    let json_error = |e: serde_json::Error| Error::Json(e.to_string());
    Ok(match kind {
        1 => Message::Hello(serde_json::from_slice(r.rest).map_err(json_error)?),
        2 => Message::Welcome(serde_json::from_slice(r.rest).map_err(json_error)?),
        3 => Message::Refuse(serde_json::from_slice(r.rest).map_err(json_error)?),
        4 => {
            let mut c = Reader::new(core.ok_or(Error::Lacks(FIELD_CORE))?);
            let from = take_party(&mut c)?;
            let lease = u64::from_le_bytes(c.array()?);
            let log = LogId(u128::from_le_bytes(c.array()?));
            let lane = take_lane(&mut c)?;
            let [after, upto, after_chain, upto_chain] =
                [c.array()?, c.array()?, c.array()?, c.array()?].map(u64::from_le_bytes);
            let records = u32::from_le_bytes(c.array()?);
            let (after, upto) = (Pos(after), Pos(upto));
            if upto < after {
                return Err(Error::Range { from: after, to: upto });
            }
            if records as usize > limits::FRAME_RECORDS_MAX {
                return Err(Error::Crowded { records, max: limits::FRAME_RECORDS_MAX });
            }
            let body = match plain_len {
                None => r.rest.into(),
                Some(n) => {
                    let max = UNPACKED_BYTES_MAX;
                    let plain = (n <= max).then(|| decompress(r.rest, n)).flatten();
                    plain.filter(|p| p.len() == n).ok_or(Error::Bomb { max })?.into()
                }
            };
            let head = FrameHead { from, lease, log, lane, after, upto, after_chain, upto_chain, records };
            Message::Frame(Frame { head, origins, body })
        }
        5 => {
            let mut c = Reader::new(core.ok_or(Error::Lacks(FIELD_CORE))?);
            let from = take_party(&mut c)?;
            let to = take_boot(&mut c)?;
            let lease = u64::from_le_bytes(c.array()?);
            let log = LogId(u128::from_le_bytes(c.array()?));
            let lane = take_lane(&mut c)?;
            let upto = Pos(u64::from_le_bytes(c.array()?));
            let credit = u16::from_le_bytes(c.array()?);
            let [gap] = c.array()?;
            Message::Ack(Ack { from, to, lease, log, lane, upto, credit, gap: gap != 0 })
        }
        6 => Message::Bye(serde_json::from_slice(r.rest).map_err(json_error)?),
        7 => Message::Alive(serde_json::from_slice(r.rest).map_err(json_error)?),
        k => return Err(Error::Kind(k)),
    })
}

fn open(kind: u8, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    out.extend_from_slice(&[b'C', b'B', VERSION, kind, 0, 0, 0, 0]);
    out
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[2..4]), &out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

fn put_field(out: &mut Vec<u8>, tag: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("every field is a few dozen bytes or one address");
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(value);
}

fn put_end(out: &mut Vec<u8>) {
    out.extend_from_slice(&0u16.to_le_bytes());
}

fn put_party(out: &mut Vec<u8>, p: Party) {
    out.extend_from_slice(&p.inc.0.to_le_bytes());
    out.extend_from_slice(&p.boot.counter.to_le_bytes());
    out.extend_from_slice(&p.boot.nonce.to_le_bytes());
}

fn take_party(r: &mut Reader<'_>) -> Result<Party, Error> {
    Ok(Party { inc: Inc(u128::from_le_bytes(r.array()?)), boot: take_boot(r)? })
}

fn take_boot(r: &mut Reader<'_>) -> Result<Boot, Error> {
    Ok(Boot { counter: u64::from_le_bytes(r.array()?), nonce: u64::from_le_bytes(r.array()?) })
}

fn take_lane(r: &mut Reader<'_>) -> Result<Lane, Error> {
    let [n] = r.array()?;
    Ok(Lane::from_u8(n).ok_or(record::Error::Field { field: "lane", value: n.into() })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn party() -> Party {
        Party { inc: Inc(7), boot: Boot { counter: 3, nonce: 99 } }
    }

    fn head() -> FrameHead {
        FrameHead {
            from: party(),
            lease: 4,
            log: LogId(11),
            lane: Lane::Routine,
            after: Pos(10),
            upto: Pos(20),
            after_chain: 1,
            upto_chain: 2,
            records: 0,
        }
    }

    fn frame(payloads: &[&[u8]]) -> Vec<u8> {
        let mut b = FrameBuilder::default();
        for (i, p) in payloads.iter().enumerate() {
            let h = Header {
                kind: Kind::Event,
                lane: Lane::Routine,
                direction: Direction::Up,
                reach: Tier::City,
                received_us: 5,
                committed_us: 6,
                key: 9,
                ttl_ms: 0,
                origin: (i % 2 == 1).then_some(Origin { address: "c/s/m/n", log: LogId(1), pos: Pos(i as u64) }),
                name: "lamp.failed",
                topic: "in/not/carried",
                target: "",
                ..Header::local(Kind::Event, "")
            };
            b.push(&h, Origin { address: "c/s", log: LogId(2), pos: Pos(100 + i as u64) }, 0, p);
        }
        b.finish(head(), |_| None)
    }

    fn no(_: &[u8], _: usize) -> Option<Vec<u8>> {
        None
    }

    #[test]
    fn a_frame_carries_records_with_their_origins() {
        let bytes = frame(&[b"one", b"two", b"three"]);
        let Message::Frame(f) = decode(&bytes, no).unwrap() else { panic!("not a frame") };
        assert_eq!(f.head, FrameHead { records: 3, ..head() });
        let got: Vec<_> = f.records().map(|r| r.unwrap()).collect();
        assert_eq!(got.iter().map(|r| r.payload).collect::<Vec<_>>(), [b"one".as_slice(), b"two", b"three"]);
        assert_eq!(got[0].origin, Origin { address: "c/s", log: LogId(2), pos: Pos(100) });
        assert_eq!(got[1].origin, Origin { address: "c/s/m/n", log: LogId(1), pos: Pos(1) });
        assert_eq!(got[2].header(8).topic, "");
    }

    #[test]
    fn acks_byes_and_signs_of_life_survive_the_wire() {
        let ack = Message::Ack(Ack {
            from: party(),
            to: Boot { counter: 1, nonce: 2 },
            lease: 3,
            log: LogId(5),
            lane: Lane::Urgent,
            upto: Pos(77),
            credit: 8,
            gap: true,
        });
        assert_eq!(decode(&ack.encode(), no).unwrap(), ack);
        for message in [Message::Bye(party()), Message::Alive(party())] {
            assert_eq!(decode(&message.encode(), no).unwrap(), message);
        }
    }

    #[test]
    fn an_unknown_field_is_skipped_unless_it_is_critical() {
        for (tag, want) in [(0x0077u16, None), (0x8077, Some(Error::Critical(0x8077)))] {
            let plain = Message::Bye(party()).encode();
            let mut out = plain[..8].to_vec();
            put_field(&mut out, tag, b"new");
            out.extend_from_slice(&plain[8..]);
            assert_eq!(decode(&seal(out), no).err(), want);
        }
    }

    #[test]
    fn a_frame_that_claims_a_huge_body_is_refused_before_it_is_unpacked() {
        let mut b = FrameBuilder::default();
        let mut bytes = b.finish(head(), |_| Some(vec![1, 2, 3]));
        let at = bytes.windows(2).position(|w| w == FIELD_ZSTD.to_le_bytes()).unwrap();
        bytes[at + 4..at + 8].copy_from_slice(&u32::MAX.to_le_bytes());
        let bytes = seal(bytes);
        assert!(matches!(decode(&bytes, |_, _| panic!("must not be called")), Err(Error::Bomb { .. })));
    }

    #[test]
    fn a_frame_that_claims_more_records_than_one_may_have_is_refused() {
        let mut bytes = frame(&[b"one"]);
        let at = 8 + 4 + CORE_BYTES - 4; // envelope, tag and length, the last of the core
        assert_eq!(bytes[at..at + 4], 1u32.to_le_bytes());
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let max = limits::FRAME_RECORDS_MAX;
        assert_eq!(decode(&seal(bytes), no).err(), Some(Error::Crowded { records: u32::MAX, max }));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(bit in 0usize..64 * 8) {
            let mut bytes = frame(&[b"some payload that is long enough"]);
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes, no).is_err());
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..8) {
            let mut out = open(kind, 0);
            out.extend_from_slice(&bytes);
            if let Ok(Message::Frame(f)) = decode(&seal(out), no) {
                f.records().for_each(drop);
            }
        }
    }
}
