//! What a client is told: CONNACK, SUBACK, UNSUBACK, DISCONNECT and refused publishes, and why.
//!
//! A reason string (MQTT 5, property 0x1F) is for people who read a client's log. It is left out where
//! the packet would then be larger than the client takes, and, but for CONNACK and DISCONNECT, where
//! the client has said that it wants none (Request Problem Information 0). 3.1.1 has no room for it.

use super::control::Connect;
use super::{Version, kind, property, put_text, put_varint, reason, varint_bytes};
use citybrain_shared::Pos;

/// Of a reason string or a user property's half, bytes. All of ours are far shorter.
const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// A CONNACK of MQTT 5 without any property.
const REFUSAL_BYTES: usize = 5;

/// How one client may be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tongue {
    pub version: Version,
    /// Largest packet that the client takes, bytes.
    packet_bytes_max: usize,
    /// Request Problem Information.
    problems: bool,
}

impl Tongue {
    pub fn of(connect: &Connect) -> Tongue {
        Tongue { version: connect.version, packet_bytes_max: connect.packet_bytes_max, problems: connect.problems }
    }

    /// Of a client whose CONNECT did not read.
    pub fn unknown(version: Version) -> Tongue {
        Tongue { version, packet_bytes_max: usize::MAX, problems: true }
    }

    /// Writes `first`, the fixed fields, the properties `own` and those that say why, and what comes
    /// last: the whole packet of MQTT 5.
    fn put(self, first: u8, fixed: &[u8], own: Vec<u8>, why: &Why<'_>, last: &[u8], out: &mut Vec<u8>) {
        let rest = |properties: usize| fixed.len() + varint_bytes(properties) + properties + last.len();
        let mut properties = own;
        let plain = properties.len();
        why.put(&mut properties);
        let bytes = rest(properties.len());
        if 1 + varint_bytes(bytes) + bytes > self.packet_bytes_max {
            properties.truncate(plain);
        }
        out.push(first);
        put_varint(rest(properties.len()) as u32, out);
        out.extend_from_slice(fixed);
        put_varint(properties.len() as u32, out);
        out.extend_from_slice(&properties);
        out.extend_from_slice(last);
    }

    /// Writes PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub fn put_ack(self, kind: u8, id: u16, reason: u8, out: &mut Vec<u8>) {
        // These say it all by themselves. A client of Eclipse Paho's interoperability tests, which publish
        // below `$`, reads no acknowledgement with properties.
        let is_plain = matches!(reason, reason::NOT_AUTHORIZED | reason::TOPIC_INVALID);
        if is_plain || reason < reason::UNSPECIFIED || self.version == Version::V4 || !self.problems {
            return super::put_ack(self.version, kind, id, reason, out);
        }
        let [high, low] = id.to_be_bytes();
        let first = kind << 4 | if kind == kind::PUBREL { 2 } else { 0 };
        self.put(first, &[high, low, reason], Vec::new(), &Why::text(reason::text(reason)), &[], out);
    }

    /// Writes SUBACK (`first` 0x90) or UNSUBACK (0xb0), with the reason of the first code that refuses.
    pub fn put_suback(self, first: u8, id: u16, codes: &[u8], out: &mut Vec<u8>) {
        let [high, low] = id.to_be_bytes();
        if self.version == Version::V4 {
            let codes = if first == 0xb0 { &[] } else { codes };
            out.push(first);
            put_varint((2 + codes.len()) as u32, out);
            out.extend_from_slice(&[high, low]);
            out.extend(codes.iter().map(|c| if *c > 2 { 0x80 } else { *c }));
            return;
        }
        let refusal = codes.iter().find(|c| self.problems && **c >= reason::UNSPECIFIED);
        let why = refusal.map_or(Why::default(), |c| Why::text(reason::text(*c)));
        self.put(first, &[high, low], Vec::new(), &why, codes, out);
    }

    /// Writes DISCONNECT; 3.1.1 has none from a server.
    pub fn put_disconnect(self, reason: u8, why: &str, out: &mut Vec<u8>) {
        if self.version == Version::V5 {
            self.put(0xe0, &[reason], Vec::new(), &Why::text(why), &[], out);
        }
    }

    /// Writes a CONNACK that refuses, with the code that the version has for the reason; nothing for a client
    /// that takes no packet so small.
    pub fn put_refusal(self, reason: u8, why: &str, out: &mut Vec<u8>) {
        match self.version {
            Version::V5 if self.packet_bytes_max < REFUSAL_BYTES => {}
            Version::V5 => self.put(0x20, &[0, reason], Vec::new(), &Why::text(why), &[], out),
            Version::V4 => {
                let code = match reason {
                    reason::UNSUPPORTED_VERSION => 1,
                    reason::CLIENT_ID => 2,
                    reason::BAD_USER_OR_PASSWORD => 4,
                    reason::NOT_AUTHORIZED => 5,
                    reason::CONNECTION_RATE
                    | reason::BUSY
                    | reason::UNAVAILABLE
                    | reason::QUOTA
                    | reason::UNSPECIFIED
                    | reason::IMPLEMENTATION => 3,
                    // For a malformed CONNECT 3.1.1 has no code: the connection just ends.
                    _ => return,
                };
                out.extend_from_slice(&[0x20, 2, 0, code]);
            }
        }
    }

    /// Writes a CONNACK that accepts.
    pub fn put_connack(self, granted: &Granted<'_>, out: &mut Vec<u8>) {
        let present = u8::from(granted.session_present);
        if self.version == Version::V4 {
            out.extend_from_slice(&[0x20, 2, present, 0]);
            return;
        }
        let why = granted.lost.map_or(Why::default(), |(first, last)| Why {
            text: lost_text(first, last).into(),
            property: Some((LOST, format!("{first}-{last}"))),
        });
        self.put(0x20, &[present, reason::SUCCESS], granted.properties(), &why, &[], out);
    }
}

/// The user property of a CONNACK that tells first and last position of what a session lost.
pub const LOST: &str = "citybrain-lost";

/// Why a session does not get the records from `first` to `last`.
pub fn lost_text(first: Pos, last: Pos) -> String {
    format!("records {first} to {last} are gone: the node's log had no room for them before this session had read them")
}

/// A reason string and a user property.
#[derive(Default)]
struct Why<'a> {
    text: std::borrow::Cow<'a, str>,
    property: Option<(&'a str, String)>,
}

impl<'a> Why<'a> {
    fn text(text: &'a str) -> Why<'a> {
        Why { text: text.into(), property: None }
    }

    fn put(&self, out: &mut Vec<u8>) {
        if !self.text.is_empty() && self.text.len() <= TEXT_BYTES_MAX {
            out.push(property::REASON_STRING);
            put_text(&self.text, out);
        }
        if let Some((name, value)) = &self.property {
            out.push(property::USER);
            put_text(name, out);
            put_text(value, out);
        }
    }
}

/// What CONNACK tells an MQTT 5 client beside the reason.
#[derive(Clone, Debug, Default)]
pub struct Granted<'a> {
    pub session_present: bool,
    /// Only when it differs from what was asked.
    pub expiry_s: Option<u32>,
    pub receive_maximum: u16,
    pub packet_bytes_max: u32,
    pub assigned_client: Option<&'a str>,
    pub topic_alias_maximum: u16,
    pub keep_alive_s: Option<u16>,
    /// First and last of the records that the session had not read and cannot get any more.
    pub lost: Option<(Pos, Pos)>,
}

impl Granted<'_> {
    fn properties(&self) -> Vec<u8> {
        let mut p = Vec::new();
        if let Some(s) = self.expiry_s {
            p.push(0x11);
            p.extend_from_slice(&s.to_be_bytes());
        }
        p.push(0x21);
        p.extend_from_slice(&self.receive_maximum.to_be_bytes());
        p.push(0x27);
        p.extend_from_slice(&self.packet_bytes_max.to_be_bytes());
        if let Some(id) = self.assigned_client {
            p.push(0x12);
            put_text(id, &mut p);
        }
        p.push(0x22);
        p.extend_from_slice(&self.topic_alias_maximum.to_be_bytes());
        if let Some(s) = self.keep_alive_s {
            p.push(0x13);
            p.extend_from_slice(&s.to_be_bytes());
        }
        p
    }
}

/// Bytes of a SUBACK or UNSUBACK of MQTT 5 with that many codes, and nothing more.
pub fn suback_bytes(codes: usize) -> usize {
    1 + varint_bytes(3 + codes) + 3 + codes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tongue(packet_bytes_max: usize, problems: bool) -> Tongue {
        Tongue { version: Version::V5, packet_bytes_max, problems }
    }

    fn ack(tongue: Tongue) -> Vec<u8> {
        let mut out = Vec::new();
        tongue.put_ack(kind::PUBACK, 7, reason::QUOTA, &mut out);
        out
    }

    #[test]
    fn a_refusal_says_why_where_the_client_takes_it() {
        let text = reason::text(reason::QUOTA);
        let whole = ack(Tongue::unknown(Version::V5));
        assert_eq!(whole[..5], [0x40, whole.len() as u8 - 2, 0, 7, 0x97]);
        assert_eq!(whole[5..8], [text.len() as u8 + 3, 0x1f, 0]);
        assert_eq!(&whole[9..], text.as_bytes());
        assert_eq!(ack(tongue(whole.len(), true)), whole);
        assert_eq!(ack(tongue(whole.len() - 1, true)), [0x40, 4, 0, 7, 0x97, 0]);
        assert_eq!(ack(tongue(usize::MAX, false)), [0x40, 3, 0, 7, 0x97]);
        assert_eq!(ack(Tongue::unknown(Version::V4)), [0x40, 2, 0, 7]);
        let mut out = Vec::new();
        Tongue::unknown(Version::V5).put_ack(kind::PUBREC, 7, reason::NOT_AUTHORIZED, &mut out);
        assert_eq!(out, [0x50, 3, 0, 7, 0x87], "what needs no words");
    }

    #[test]
    fn a_suback_says_why_the_first_refused_filter_is() {
        let mut out = Vec::new();
        Tongue::unknown(Version::V5).put_suback(0x90, 1, &[1, reason::FILTER_INVALID, reason::QUOTA], &mut out);
        let text = reason::text(reason::FILTER_INVALID);
        assert!(out.windows(text.len()).any(|w| w == text.as_bytes()));
        assert_eq!(out[out.len() - 3..], [1, 0x8f, 0x97]);
        let mut out = Vec::new();
        Tongue::unknown(Version::V5).put_suback(0x90, 1, &[1, 0], &mut out);
        assert_eq!(out, [0x90, 5, 0, 1, 0, 1, 0]);
        assert_eq!(out.len(), suback_bytes(2));
    }

    #[test]
    fn a_disconnect_tells_also_those_who_want_no_problem_information() {
        let mut out = Vec::new();
        tongue(usize::MAX, false).put_disconnect(reason::TAKEN_OVER, "x", &mut out);
        assert_eq!(out, [0xe0, 6, 0x8e, 4, 0x1f, 0, 1, b'x']);
    }
}
