//! MQTT's packets as far as a publisher needs them, in version 5.0 and in 3.1.1, whose acknowledgements
//! cannot say that a message is refused. Pure, without I/O.
//!
//! Sources: docs.oasis-open.org/mqtt/mqtt/v5.0 (sections 2.2.2, 3.1 to 3.4, 3.14) and v3.1.1.

use bytes::{Buf, Bytes, BytesMut};
use citybrain_hub::door::packet::reason;
use std::io;

/// The largest packet a broker may send us, bytes: we subscribe to nothing.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V4 = 4,
    V5 = 5,
}

/// What a broker takes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Messages that it has not acknowledged.
    pub under_way: usize,
    /// Bytes of a packet.
    pub packet_bytes: usize,
}

/// The answer to a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    Welcome(Granted),
    /// It does not speak this version.
    Version,
    /// Asking again changes nothing.
    Refused(String),
    Again(String),
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Taken,
    /// Not now or later.
    Refused(String),
    /// Not now.
    Again(String),
}

pub struct Hello<'a> {
    pub version: Version,
    pub client_id: &'a str,
    pub keep_alive_s: u16,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
}

impl Hello<'_> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = 0x02; // a clean session: what is unacknowledged is kept by the client
        let mut body = Vec::new();
        text(&mut body, "MQTT");
        body.push(self.version as u8);
        if self.username.is_some() {
            flags |= 0x80;
        }
        if self.password.is_some() {
            flags |= 0x40;
        }
        body.push(flags);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        if self.version == Version::V5 {
            body.push(0); // no properties: the session ends with the connection
        }
        text(&mut body, self.client_id);
        for field in [self.username, self.password].into_iter().flatten() {
            text(&mut body, field);
        }
        out.push(0x10);
        length(out, body.len());
        out.extend_from_slice(&body);
    }
}

/// A PUBLISH of QoS 1.
pub fn publish(out: &mut Vec<u8>, version: Version, packet_id: u16, topic: &str, payload: &[u8]) {
    out.push(0x32);
    length(out, publish_rest(version, topic, payload));
    text(out, topic);
    out.extend_from_slice(&packet_id.to_be_bytes());
    if version == Version::V5 {
        out.push(0); // no properties
    }
    out.extend_from_slice(payload);
}

/// Bytes of that packet, and up to three more.
pub fn publish_bytes(version: Version, topic: &str, payload: &[u8]) -> usize {
    5 + publish_rest(version, topic, payload)
}

fn publish_rest(version: Version, topic: &str, payload: &[u8]) -> usize {
    2 + topic.len() + 2 + usize::from(version == Version::V5) + payload.len()
}

/// Reads a CONNACK. A broker of 3.1.1 answers a CONNECT of 5.0 in its own words.
pub fn greeting(version: Version, head: u8, body: &[u8]) -> Greeting {
    let (0x20, [_, code, rest @ ..]) = (head, body) else { return Greeting::Again("its answer is not MQTT".into()) };
    let no = |why: &str| Greeting::Refused(why.to_owned());
    if version == Version::V4 || rest.is_empty() {
        return match code {
            0 if version == Version::V4 => {
                Greeting::Welcome(Granted { under_way: usize::from(u16::MAX), packet_bytes: usize::MAX })
            }
            // Or it has not looked at the level.
            0 | 1 => Greeting::Version,
            2 => no("it does not like the client id"),
            4 => no("wrong user name or password"),
            5 => no("not authorised"),
            code => Greeting::Again(format!("it is not available (code {code})")),
        };
    }
    let Some(said) = Properties::read(rest) else { return Greeting::Again("its answer is not MQTT".into()) };
    match *code {
        0 => Greeting::Welcome(Granted {
            under_way: said.receive_maximum.map_or(usize::from(u16::MAX), usize::from).max(1),
            packet_bytes: said.packet_bytes_max.map_or(usize::MAX, |n| n as usize),
        }),
        reason::UNSUPPORTED_VERSION => Greeting::Version,
        reason::CLIENT_ID => no("it does not like the client id"),
        reason::BAD_USER_OR_PASSWORD => no("wrong user name or password"),
        reason::NOT_AUTHORIZED => no("not authorised"),
        BANNED => no("this client is banned"),
        USE_ANOTHER | MOVED => no("it says that another server is meant"),
        code => Greeting::Again(words(code, said.reason)),
    }
}

const BANNED: u8 = 0x8a;
const USE_ANOTHER: u8 = 0x9c;
const MOVED: u8 = 0x9d;

/// Reads a PUBACK: its packet id, and what it says. `None`: it is malformed.
pub fn puback(version: Version, body: &[u8]) -> Option<(u16, Verdict)> {
    let (id, rest) = (u16::from_be_bytes([*body.first()?, *body.get(1)?]), &body[2..]);
    let code = match (version, rest.first()) {
        (Version::V5, Some(code)) => *code,
        _ => return Some((id, Verdict::Taken)),
    };
    let said = if rest.len() > 1 { Properties::read(&rest[1..])? } else { Properties::default() };
    Some((
        id,
        match code {
            ..0x80 => Verdict::Taken,
            // A disk that is full, a limit that is reached: there is room again some time.
            reason::IMPLEMENTATION | reason::BUSY | reason::QUOTA => Verdict::Again(words(code, said.reason)),
            code => Verdict::Refused(words(code, said.reason)),
        },
    ))
}

/// Why a broker ends the connection, of the body of its DISCONNECT.
pub fn farewell(body: &[u8]) -> String {
    let code = body.first().copied().unwrap_or_default();
    let said = body.get(1..).and_then(Properties::read).unwrap_or_default();
    format!("the broker ended the connection: {}", words(code, said.reason))
}

fn words(code: u8, said: Option<String>) -> String {
    let known = || Some(reason::text(code).to_owned()).filter(|t| !t.is_empty());
    match said.filter(|t| !t.is_empty()).or_else(known) {
        Some(said) => format!("{said} (reason {code:#04x})"),
        None => format!("reason {code:#04x}"),
    }
}

/// Those that a publisher looks at.
#[derive(Debug, Default)]
struct Properties {
    receive_maximum: Option<u16>,
    packet_bytes_max: Option<u32>,
    reason: Option<String>,
}

impl Properties {
    /// `None`: they are malformed.
    fn read(bytes: &[u8]) -> Option<Properties> {
        let (n, used) = number(bytes)?;
        let mut rest = bytes.get(used..used + n)?;
        let mut said = Properties::default();
        while let Some((id, after)) = rest.split_first() {
            rest = after;
            match id {
                0x21 => said.receive_maximum = Some(rest.try_get_u16().ok()?),
                0x27 => said.packet_bytes_max = Some(rest.try_get_u32().ok()?),
                0x1f => said.reason = Some(String::from_utf8_lossy(string(&mut rest)?).into_owned()),
                0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(rest.try_get_u8().ok()?),
                0x13 | 0x22 => drop(rest.try_get_u16().ok()?),
                0x11 => drop(rest.try_get_u32().ok()?),
                0x12 | 0x15 | 0x16 | 0x1a | 0x1c => drop(string(&mut rest)?),
                0x26 => {
                    string(&mut rest)?;
                    string(&mut rest)?;
                }
                _ => return None,
            }
        }
        Some(said)
    }
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let n = usize::from(rest.try_get_u16().ok()?);
    let (text, after) = rest.split_at_checked(n)?;
    *rest = after;
    Some(text)
}

/// A variable byte integer, and how many bytes it takes. `None`: it is not there whole.
fn number(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut n = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        n |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((n, i + 1));
        }
    }
    None
}

fn text(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn length(out: &mut Vec<u8>, mut n: usize) {
    loop {
        let byte = (n % 128) as u8;
        n /= 128;
        out.push(if n > 0 { byte | 0x80 } else { byte });
        if n == 0 {
            return;
        }
    }
}

/// The first whole packet in `input`: its first byte and its body.
///
/// # Errors
/// What is there is no packet, or one over [`PACKET_BYTES_MAX`].
pub fn take_packet(input: &mut BytesMut) -> io::Result<Option<(u8, Bytes)>> {
    let bad = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let Some((n, used)) = input.get(1..).and_then(number) else {
        return if input.len() > 4 { bad("the broker sent no MQTT packet") } else { Ok(None) };
    };
    if n > PACKET_BYTES_MAX {
        return bad("the broker sent a packet over 64 KiB");
    }
    if input.len() < 1 + used + n {
        return Ok(None);
    }
    let head = input[0];
    input.advance(1 + used);
    Ok(Some((head, input.split_to(n).freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_out_of_the_stream_wherever_it_is_split() {
        let mut stream = BytesMut::new();
        let whole = [0x40, 2, 0, 7, 0xD0, 0];
        for (i, byte) in whole.iter().enumerate() {
            stream.extend_from_slice(&[*byte]);
            match (i, take_packet(&mut stream).unwrap()) {
                (3, Some((0x40, body))) => assert_eq!(&body[..], [0, 7]),
                (5, Some((0xD0, body))) => assert!(body.is_empty()),
                (3 | 5, other) => panic!("{other:?}"),
                (_, none) => assert!(none.is_none()),
            }
        }
        stream.extend_from_slice(&[0x40, 0xFF, 0xFF, 0xFF, 0xFF, 1]);
        assert!(take_packet(&mut stream).is_err());
    }

    #[test]
    fn an_acknowledgement_of_5_0_says_whether_the_message_was_taken() {
        let said = |body: &[u8]| puback(Version::V5, body);
        assert_eq!(said(&[0, 7]), Some((7, Verdict::Taken)));
        assert_eq!(said(&[0, 7, 0x10]), Some((7, Verdict::Taken)), "nobody listens: it is kept all the same");
        // A user property, and then the reason in words.
        let words = [0, 7, 0x99, 13, 0x26, 0, 1, b'k', 0, 1, b'v', 0x1f, 0, 3, b'b', b'a', b'd'];
        let words = [&words[..3], &[13], &words[4..]].concat();
        assert_eq!(said(&words), Some((7, Verdict::Refused("bad (reason 0x99)".into()))));
        assert!(matches!(said(&[0, 7, 0x87]), Some((7, Verdict::Refused(why))) if why.contains("no right")));
        for again in [0x83, 0x89, 0x97] {
            assert!(matches!(said(&[0, 7, again, 0]), Some((7, Verdict::Again(_)))), "{again:#x}");
        }
        assert_eq!(puback(Version::V4, &[0, 7]), Some((7, Verdict::Taken)));
        for bad in [&[0][..], &[], &[0, 7, 0x99, 9], &[0, 7, 0x99, 2, 0x77, 0], &[0, 7, 0x99, 4, 0x1f, 0, 9, 0]] {
            assert_eq!(said(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_greeting_says_what_the_broker_takes_or_that_it_speaks_another_version() {
        let welcome = |under_way, packet_bytes| Greeting::Welcome(Granted { under_way, packet_bytes });
        assert_eq!(greeting(Version::V5, 0x20, &[0, 0, 0]), welcome(65_535, usize::MAX));
        let limits = [0, 0, 8, 0x21, 0, 9, 0x27, 0, 0, 1, 0];
        assert_eq!(greeting(Version::V5, 0x20, &limits), welcome(9, 256));
        assert_eq!(greeting(Version::V4, 0x20, &[0, 0]), welcome(65_535, usize::MAX));
        assert_eq!(greeting(Version::V5, 0x20, &[0, 1]), Greeting::Version, "in the words of 3.1.1");
        assert_eq!(greeting(Version::V5, 0x20, &[0, 0x84, 0]), Greeting::Version);
        for (version, refused) in [(Version::V5, &[0, 0x86, 0][..]), (Version::V4, &[0, 4]), (Version::V5, &[0, 5])] {
            assert!(matches!(greeting(version, 0x20, refused), Greeting::Refused(_)), "{refused:?}");
        }
        for (head, again) in [(0x20, &[0, 0x89, 0][..]), (0x20, &[0, 3]), (0x30, &[0, 0, 0]), (0x20, &[0]), (0x20, &[])]
        {
            assert!(matches!(greeting(Version::V5, head, again), Greeting::Again(_)), "{again:?}");
        }
    }

    #[test]
    fn a_connect_and_a_publish_of_5_0_have_their_empty_properties() {
        let hello = |version| {
            let mut out = Vec::new();
            Hello { version, client_id: "c", keep_alive_s: 30, username: Some("u"), password: None }.encode(&mut out);
            out
        };
        assert_eq!(hello(Version::V4), b"\x10\x10\0\x04MQTT\x04\x82\0\x1e\0\x01c\0\x01u");
        assert_eq!(hello(Version::V5), b"\x10\x11\0\x04MQTT\x05\x82\0\x1e\0\0\x01c\0\x01u");
        let mut out = Vec::new();
        publish(&mut out, Version::V5, 7, "a", b"xy");
        assert_eq!(out, b"\x32\x08\0\x01a\0\x07\0xy");
        assert!(publish_bytes(Version::V5, "a", b"xy") >= out.len());
    }
}
