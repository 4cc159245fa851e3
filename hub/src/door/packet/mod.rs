//! MQTT 3.1.1 and 5.0 packets: bytes in, plain structs out, and back.
//!
//! | module | formats it owns |
//! |---|---|
//! | here | the fixed header, and the acknowledgements of publishes |
//! | [`publish`] | PUBLISH and its properties, read and written by hand: the hot path allocates nothing |
//! | [`control`] | CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT |
//! | [`answer`] | the answers to them, and refusals, with their reasons |
//! | [`client`] | the same from the other side, for our own clients |
//!
//! All by hand: a broker must look closer than a codec for both sides does (packet id 0, reserved bits,
//! filter syntax, U+0000, properties that do not belong to their packet, and each with its own reason).

pub mod answer;
pub mod client;
pub mod control;
pub mod publish;

/// The protocol of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1
    V4,
    /// 5.0
    V5,
}

impl Version {
    pub fn level(self) -> u8 {
        match self {
            Version::V4 => 4,
            Version::V5 => 5,
        }
    }
}

/// Reason codes of MQTT 5 (section 2.4), as far as this broker says them, or a client of ours looks at them.
pub mod reason {
    pub const SUCCESS: u8 = 0x00;
    pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub const UNSPECIFIED: u8 = 0x80;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const IMPLEMENTATION: u8 = 0x83;
    pub const UNSUPPORTED_VERSION: u8 = 0x84;
    pub const CLIENT_ID: u8 = 0x85;
    pub const BAD_USER_OR_PASSWORD: u8 = 0x86;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const UNAVAILABLE: u8 = 0x88;
    pub const BUSY: u8 = 0x89;
    pub const BANNED: u8 = 0x8a;
    pub const SHUTTING_DOWN: u8 = 0x8b;
    pub const BAD_AUTH_METHOD: u8 = 0x8c;
    pub const KEEP_ALIVE: u8 = 0x8d;
    pub const TAKEN_OVER: u8 = 0x8e;
    pub const FILTER_INVALID: u8 = 0x8f;
    pub const TOPIC_INVALID: u8 = 0x90;
    pub const ID_NOT_FOUND: u8 = 0x92;
    pub const RECEIVE_MAXIMUM: u8 = 0x93;
    pub const ALIAS_INVALID: u8 = 0x94;
    pub const TOO_LARGE: u8 = 0x95;
    pub const QUOTA: u8 = 0x97;
    pub const ADMINISTRATIVE: u8 = 0x98;
    pub const PAYLOAD_FORMAT: u8 = 0x99;
    pub const USE_ANOTHER_SERVER: u8 = 0x9c;
    pub const SERVER_MOVED: u8 = 0x9d;
    pub const CONNECTION_RATE: u8 = 0x9f;

    /// A refusal in words, for whoever reads the client's log.
    pub fn text(reason: u8) -> &'static str {
        match reason {
            IMPLEMENTATION => "the node cannot take it at the moment, its disk may be full: send it again later",
            NOT_AUTHORIZED => "this user has no right to that topic: its role in the node's config says what it may",
            BUSY => "the node is busy",
            SHUTTING_DOWN => "the node is stopping; the session is kept",
            KEEP_ALIVE => "nothing was heard for one and a half times the keep-alive",
            TAKEN_OVER => "another connection came with the same client id",
            FILTER_INVALID => "the topic filter is not one, or not one for a shared subscription",
            TOPIC_INVALID => "the topic is not one that can be published to",
            ID_NOT_FOUND => "nothing is under way with this packet id",
            TOO_LARGE => "it is larger than the node takes: CONNACK says how much that is",
            QUOTA => "a limit of the node's [broker] is reached",
            ADMINISTRATIVE => "the user's account has changed, or an operator has ended the connection",
            PAYLOAD_FORMAT => "the payload is not what the topic takes: `citybrain dlq list` at the node says why",
            UNSPECIFIED => "refused: `citybrain dlq list` at the node says why",
            _ => "",
        }
    }
}

/// What a client did wrong: the connection ends with this reason (3.1.1: it just ends).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (reason {reason:#04x})")]
pub struct Fault {
    pub reason: u8,
    pub what: &'static str,
}

impl Fault {
    pub const fn malformed(what: &'static str) -> Fault {
        Fault { reason: reason::MALFORMED, what }
    }

    pub const fn protocol(what: &'static str) -> Fault {
        Fault { reason: reason::PROTOCOL_ERROR, what }
    }
}

/// Packet types, the upper half of the first byte.
pub mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const PINGREQ: u8 = 12;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;

    /// All others are a server's, or nobody's.
    pub fn is_clients(kind: u8) -> bool {
        !matches!(kind, 0 | 2 | 9 | 11 | 13)
    }
}

/// Identifiers of MQTT 5 properties (section 2.2.2.2), as far as they are read or written here.
mod property {
    pub(super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(super) const EXPIRY: u8 = 0x02;
    pub(super) const CONTENT_TYPE: u8 = 0x03;
    pub(super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(super) const CORRELATION: u8 = 0x09;
    pub(super) const SUBSCRIPTION: u8 = 0x0b;
    pub(super) const SESSION_EXPIRY: u8 = 0x11;
    pub(super) const ASSIGNED_CLIENT: u8 = 0x12;
    pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(super) const AUTH_METHOD: u8 = 0x15;
    pub(super) const AUTH_DATA: u8 = 0x16;
    pub(super) const REQUEST_PROBLEM: u8 = 0x17;
    pub(super) const WILL_DELAY: u8 = 0x18;
    pub(super) const REQUEST_RESPONSE: u8 = 0x19;
    pub(super) const RESPONSE_INFORMATION: u8 = 0x1a;
    pub(super) const SERVER_REFERENCE: u8 = 0x1c;
    pub(super) const REASON_STRING: u8 = 0x1f;
    pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(super) const ALIAS_MAXIMUM: u8 = 0x22;
    pub(super) const ALIAS: u8 = 0x23;
    pub(super) const MAXIMUM_QOS: u8 = 0x24;
    pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(super) const USER: u8 = 0x26;
    pub(super) const PACKET_MAXIMUM: u8 = 0x27;
    pub(super) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(super) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub(super) const SHARED_AVAILABLE: u8 = 0x2a;
}

/// A property that may be there once.
#[derive(Clone, Copy, Debug)]
struct Property<'a> {
    id: u8,
    /// 0 where it is none.
    number: u32,
    /// As on the wire.
    raw: &'a [u8],
}

/// Reads a list of properties with its length, of any packet but PUBLISH. User properties may be there
/// any number of times, those of `once` once; `take` gets all of them, in order.
///
/// # Errors
/// Any other property, and whatever is not of its type.
fn properties<'a>(f: &mut Fields<'a>, once: &[u8], mut take: impl FnMut(Property<'a>)) -> Result<(), Fault> {
    let n = f.varint()? as usize;
    let mut list = Fields { rest: f.take(n)? };
    let mut seen = 0u64;
    while !list.rest.is_empty() {
        let before = list.rest;
        let id = list.u8()?;
        if id != property::USER && !once.contains(&id) {
            return Err(Fault::malformed("a property that its packet cannot have"));
        }
        let mut number = 0;
        match id {
            property::PAYLOAD_FORMAT
            | property::REQUEST_PROBLEM
            | property::REQUEST_RESPONSE
            | property::MAXIMUM_QOS
            | property::RETAIN_AVAILABLE
            | property::WILDCARD_AVAILABLE
            | property::SUBSCRIPTION_IDS_AVAILABLE
            | property::SHARED_AVAILABLE => {
                number = list.u8()?.into();
                if number > 1 {
                    return Err(Fault::protocol("a property that is neither 0 nor 1"));
                }
            }
            property::RECEIVE_MAXIMUM | property::ALIAS_MAXIMUM | property::SERVER_KEEP_ALIVE => {
                number = list.u16()?.into()
            }
            property::EXPIRY | property::SESSION_EXPIRY | property::WILL_DELAY | property::PACKET_MAXIMUM => {
                number = list.u32()?;
            }
            property::SUBSCRIPTION => number = list.varint()?,
            property::CORRELATION | property::AUTH_DATA => drop(list.binary()?),
            property::USER => {
                list.text()?;
                list.text()?;
            }
            _ => drop(list.text()?),
        }
        let bit = if id == property::USER { 0 } else { 1 << id };
        if seen & bit != 0 {
            return Err(Fault::protocol("a property is given twice"));
        }
        seen |= bit;
        take(Property { id, number, raw: &before[..before.len() - list.rest.len()] });
    }
    Ok(())
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A fixed header: what follows it is `body_bytes` long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: u8,
    pub flags: u8,
    pub head_bytes: usize,
    pub body_bytes: usize,
}

impl Head {
    /// `None`: more bytes are needed.
    ///
    /// # Errors
    /// A remaining length of more than four bytes, or flags that the packet type does not allow.
    pub fn parse(bytes: &[u8]) -> Result<Option<Head>, Fault> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let (kind, flags) = (first >> 4, first & 15);
        let want = match kind {
            kind::PUBLISH => flags,
            kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 2,
            _ => 0,
        };
        if flags != want {
            return Err(Fault::malformed("reserved bits of the fixed header are set"));
        }
        Ok(varint(rest)?.map(|(body, len)| Head { kind, flags, head_bytes: 1 + len, body_bytes: body as usize }))
    }

    pub fn total_bytes(&self) -> usize {
        self.head_bytes + self.body_bytes
    }

    /// Its length has no more bytes than it takes. MQTT 5 asks for that; 3.1.1 does not, and small devices
    /// leave room for the length of what they have not put together yet.
    pub fn is_shortest(&self) -> bool {
        self.head_bytes == 1 + varint_bytes(self.body_bytes)
    }
}

/// A variable byte integer and its length; `None`: more bytes are needed.
fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Fault> {
    let mut value = 0u32;
    for (i, b) in bytes.iter().take(4).enumerate() {
        value |= u32::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() >= 4 { Err(Fault::malformed("a length of more than four bytes")) } else { Ok(None) }
}

/// Writes a variable byte integer; `value` must be at most 268,435,455.
fn put_varint(mut value: u32, out: &mut Vec<u8>) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn varint_bytes(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Takes fields off the front of a packet's body.
struct Fields<'a> {
    rest: &'a [u8],
}

const SHORT: Fault = Fault::malformed("the packet is shorter than its fields");
/// [MQTT-1.5.5-1]
pub const LONG: Fault = Fault::malformed("a length with more bytes than it takes");

impl<'a> Fields<'a> {
    fn u8(&mut self) -> Result<u8, Fault> {
        let (&b, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(b)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        let (b, rest) = self.rest.split_first_chunk::<2>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*b))
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        let (b, rest) = self.rest.split_first_chunk::<4>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*b))
    }

    fn varint(&mut self) -> Result<u32, Fault> {
        let (value, len) = varint(self.rest)?.ok_or(SHORT)?;
        if len > varint_bytes(value as usize) {
            return Err(LONG);
        }
        self.rest = &self.rest[len..];
        Ok(value)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(SHORT)?;
        self.rest = rest;
        Ok(head)
    }

    /// Nothing may be left.
    fn end(&self) -> Result<(), Fault> {
        if self.rest.is_empty() { Ok(()) } else { Err(Fault::malformed("bytes behind the last field")) }
    }

    fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let n = self.u16()? as usize;
        self.take(n)
    }

    fn text(&mut self) -> Result<&'a str, Fault> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Fault::malformed("a text is not UTF-8"))?;
        if text.contains('\0') { Err(Fault::malformed("a text contains U+0000")) } else { Ok(text) }
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub id: u16,
    pub reason: u8,
}

impl Ack {
    /// # Errors
    /// When the body is too short or too long, the id 0, or the reason none that `kind` has.
    pub fn parse(version: Version, kind: u8, body: &[u8]) -> Result<Ack, Fault> {
        let mut f = Fields { rest: body };
        let id = f.u16()?;
        if id == 0 {
            return Err(Fault::malformed("packet id 0"));
        }
        if f.rest.is_empty() {
            return Ok(Ack { id, reason: reason::SUCCESS });
        }
        if version == Version::V4 {
            return Err(Fault::malformed("bytes behind the packet id"));
        }
        let reason = f.u8()?;
        if !f.rest.is_empty() {
            properties(&mut f, &[property::REASON_STRING], |_| {})?;
            f.end()?;
        }
        let is_known = match kind {
            kind::PUBACK | kind::PUBREC => {
                matches!(reason, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            _ => matches!(reason, reason::SUCCESS | reason::ID_NOT_FOUND),
        };
        if is_known {
            Ok(Ack { id, reason })
        } else {
            Err(Fault::protocol("a reason code that the packet cannot have"))
        }
    }
}

/// Writes PUBACK, PUBREC, PUBREL or PUBCOMP. The reason is left out where it is success or where
/// the protocol has none.
pub fn put_ack(version: Version, kind: u8, id: u16, reason: u8, out: &mut Vec<u8>) {
    let first = kind << 4 | if kind == kind::PUBREL { 2 } else { 0 };
    let [high, low] = id.to_be_bytes();
    if version == Version::V4 || reason == reason::SUCCESS {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason]);
    }
}

pub fn put_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_waits_for_its_bytes_and_refuses_a_fifth() {
        assert_eq!(Head::parse(&[]), Ok(None));
        assert_eq!(Head::parse(&[0x30]), Ok(None));
        assert_eq!(Head::parse(&[0x30, 0xff, 0xff, 0xff]), Ok(None));
        assert!(Head::parse(&[0x30, 0xff, 0xff, 0xff, 0xff]).is_err());
        let head = Head::parse(&[0x30, 0x80, 0x01]).unwrap().unwrap();
        assert_eq!((head.total_bytes(), head.body_bytes), (131, 128));
    }

    #[test]
    fn reserved_flags_are_refused() {
        for first in [0x11, 0x80, 0x60, 0xa3, 0xc1, 0xe8] {
            assert!(Head::parse(&[first, 0]).is_err(), "{first:#x}");
        }
    }

    #[test]
    fn packet_id_zero_is_refused() {
        assert!(Ack::parse(Version::V5, kind::PUBACK, &[0, 0]).is_err());
        assert!(Ack::parse(Version::V4, kind::PUBACK, &[0]).is_err());
        assert_eq!(Ack::parse(Version::V5, kind::PUBACK, &[0, 1, 0x10, 0]).unwrap(), Ack { id: 1, reason: 0x10 });
    }

    #[test]
    fn an_acknowledgement_has_its_own_reasons_and_properties_and_no_others() {
        let parse = |kind, tail: &[u8]| Ack::parse(Version::V5, kind, &[&[0, 1], tail].concat()).map_err(|f| f.reason);
        assert_eq!(parse(kind::PUBREL, &[0x92]), Ok(Ack { id: 1, reason: 0x92 }));
        assert_eq!(parse(kind::PUBREL, &[0x10]), Err(reason::PROTOCOL_ERROR));
        assert_eq!(parse(kind::PUBACK, &[0xff]), Err(reason::PROTOCOL_ERROR));
        let (text, user) = ([0x1f, 0, 1, b'x'], [0x26, 0, 1, b'k', 0, 1, b'v']);
        let with = |lists: &[&[u8]]| {
            let list = lists.concat();
            parse(kind::PUBACK, &[&[0, list.len() as u8][..], &list].concat())
        };
        assert!(with(&[&user, &text, &user]).is_ok());
        assert_eq!(with(&[&text, &text]), Err(reason::PROTOCOL_ERROR));
        assert_eq!(with(&[&[0x01, 0]]), Err(reason::MALFORMED), "a payload format");
        assert_eq!(with(&[&[0x7f]]), Err(reason::MALFORMED));
        assert_eq!(with(&[&text[..3]]), Err(reason::MALFORMED), "cut short");
    }

    proptest! {
        #[test]
        fn a_length_reads_back(value in 0u32..=268_435_455) {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            prop_assert_eq!(out.len(), varint_bytes(value as usize));
            prop_assert_eq!(varint(&out).unwrap(), Some((value, out.len())));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Head::parse(&bytes);
            for v in [Version::V4, Version::V5] {
                for kind in [kind::PUBACK, kind::PUBREL] {
                    let _ = Ack::parse(v, kind, &bytes);
                }
                let _ = publish::In::parse(v, bytes.first().copied().unwrap_or(0) & 15, &bytes);
                let _ = control::Subscribe::parse(v, &bytes);
                let _ = control::Unsubscribe::parse(v, &bytes);
                let _ = client::puback(v, &bytes);
                let _ = control::Disconnect::parse(&bytes);
            }
            let _ = control::Connect::parse(&bytes);
            let _ = client::Connack::parse(&bytes);
            let _ = client::disconnect(&bytes);
        }
    }
}
