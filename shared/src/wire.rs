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
//!
//! | module | what it says |
//! |---|---|
//! | here | the envelope: any message to bytes and back |
//! | `session` | hello, welcome, refusal: how two nodes agree on a session |
//! | `frame` | records under way, and what acknowledges them |

mod frame;
mod session;
#[cfg(test)]
mod tests;

pub use frame::{Ack, Carried, Frame, FrameBuilder, FrameHead};
pub use session::{Alive, BootMark, Cursor, Epoch, Hello, Party, Reason, Refuse, Welcome};

use crate::ids::{Boot, Inc, Lane, LogId, Pos};
use crate::limits;
use crate::record::{self, Reader};
use serde::Serialize;

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

#[allow(clippy::large_enum_variant, reason = "one at a time, taken apart where it is decoded")]
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// [`FrameBuilder::finish`] makes its bytes.
    Frame(Frame<'a>),
    Word(Word),
}

/// What two nodes say to each other about a session and its frames.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    Hello(Hello),
    Welcome(Welcome),
    Refuse(Refuse),
    Ack(Ack),
    /// The sender ends its session on purpose.
    Bye(Party),
    /// The sender is there, and may have nothing else to say.
    Alive(Alive),
}

impl Word {
    pub fn encode(&self) -> Vec<u8> {
        fn json(kind: u8, body: &impl Serialize) -> Vec<u8> {
            let mut out = open(kind, 512);
            put_end(&mut out);
            serde_json::to_writer(&mut out, body)
                .expect("these types have only string keys, and a Vec takes every write");
            seal(out)
        }
        match self {
            Word::Hello(m) => json(1, m),
            Word::Welcome(m) => json(2, m),
            Word::Refuse(m) => json(3, m),
            Word::Ack(a) => {
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
            Word::Bye(p) => json(6, p),
            Word::Alive(p) => json(7, p),
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
        1 => Message::Word(Word::Hello(serde_json::from_slice(r.rest).map_err(json_error)?)),
        2 => Message::Word(Word::Welcome(serde_json::from_slice(r.rest).map_err(json_error)?)),
        3 => Message::Word(Word::Refuse(serde_json::from_slice(r.rest).map_err(json_error)?)),
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
            Message::Word(Word::Ack(Ack { from, to, lease, log, lane, upto, credit, gap: gap != 0 }))
        }
        6 => Message::Word(Word::Bye(serde_json::from_slice(r.rest).map_err(json_error)?)),
        7 => Message::Word(Word::Alive(serde_json::from_slice(r.rest).map_err(json_error)?)),
        k => return Err(Error::Kind(k)),
    })
}

/// The lane of a frame, without checking or unpacking it; `None`: it is none that reads.
pub fn lane_of(message: &[u8]) -> Option<Lane> {
    let [b'C', b'B', _, 4, rest @ ..] = message else { return None };
    let mut r = Reader::new(rest);
    r.bytes(4).ok()?; // the checksum
    loop {
        let tag = u16::from_le_bytes(r.array().ok()?);
        if tag == 0 {
            return None;
        }
        let len = u16::from_le_bytes(r.array().ok()?).into();
        let mut value = Reader::new(r.bytes(len).ok()?);
        if tag == FIELD_CORE {
            take_party(&mut value).ok()?;
            value.bytes(8 + 16).ok()?; // lease and log
            return take_lane(&mut value).ok();
        }
    }
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
