//! What a broker's answers mean to a publisher, in version 5.0 and in 3.1.1, whose acknowledgements cannot say that
//! a message is refused. Pure, without I/O; the bytes are the hub's (`door::packet`).

use bytes::{Buf, Bytes, BytesMut};
use citybrain_hub::door::packet::client::{self, Connack, Said};
use citybrain_hub::door::packet::{Fault, Head, Version, kind, reason};
use std::io;

/// The largest packet a broker may send us, bytes: we subscribe to nothing.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

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

/// Reads a CONNACK. A broker of 3.1.1 answers a CONNECT of 5.0 in its own words.
pub fn greeting(version: Version, packet: u8, body: &[u8]) -> Greeting {
    let no = |why: &str| Greeting::Refused(why.to_owned());
    let connack = Connack::parse(body).ok().filter(|_| packet == kind::CONNACK);
    let Some(Connack { code, is_v4, said }) = connack else { return Greeting::Again("its answer is not MQTT".into()) };
    if version == Version::V4 || is_v4 {
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
    match code {
        reason::SUCCESS => Greeting::Welcome(Granted {
            under_way: said.receive_maximum.map_or(usize::from(u16::MAX), usize::from).max(1),
            packet_bytes: said.packet_bytes_max.map_or(usize::MAX, |n| n as usize),
        }),
        reason::UNSUPPORTED_VERSION => Greeting::Version,
        reason::CLIENT_ID => no("it does not like the client id"),
        reason::BAD_USER_OR_PASSWORD => no("wrong user name or password"),
        reason::NOT_AUTHORIZED => no("not authorised"),
        reason::BANNED => no("this client is banned"),
        reason::USE_ANOTHER_SERVER | reason::SERVER_MOVED => no("it says that another server is meant"),
        code => Greeting::Again(words(code, said)),
    }
}

/// Reads a PUBACK: its packet id, and what it says.
///
/// # Errors
/// It is malformed.
pub fn puback(version: Version, body: &[u8]) -> Result<(u16, Verdict), Fault> {
    let (id, code, said) = client::puback(version, body)?;
    let verdict = match code {
        ..reason::UNSPECIFIED => Verdict::Taken,
        // A disk that is full, a limit that is reached: there is room again some time.
        reason::IMPLEMENTATION | reason::BUSY | reason::QUOTA => Verdict::Again(words(code, said)),
        code => Verdict::Refused(words(code, said)),
    };
    Ok((id, verdict))
}

/// Why a broker ends the connection, of the body of its DISCONNECT.
pub fn farewell(body: &[u8]) -> String {
    let of_code = |_| (body.first().copied().unwrap_or_default(), Said::default());
    let (code, said) = client::disconnect(body).unwrap_or_else(of_code);
    format!("the broker ended the connection: {}", words(code, said))
}

fn words(code: u8, said: Said) -> String {
    let known = || Some(reason::text(code).to_owned()).filter(|t| !t.is_empty());
    match said.reason.filter(|t| !t.is_empty()).or_else(known) {
        Some(said) => format!("{said} (reason {code:#04x})"),
        None => format!("reason {code:#04x}"),
    }
}

/// The first whole packet in `input`: its kind and its body.
///
/// # Errors
/// What is there is no packet, or one over [`PACKET_BYTES_MAX`].
pub fn take_packet(input: &mut BytesMut) -> io::Result<Option<(u8, Bytes)>> {
    let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let Some(head) = Head::parse(input).map_err(|_| bad("the broker sent no MQTT packet"))? else { return Ok(None) };
    if head.body_bytes > PACKET_BYTES_MAX {
        return Err(bad("the broker sent a packet over 64 KiB"));
    }
    if input.len() < head.total_bytes() {
        return Ok(None);
    }
    input.advance(head.head_bytes);
    Ok(Some((head.kind, input.split_to(head.body_bytes).freeze())))
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
                (3, Some((kind::PUBACK, body))) => assert_eq!(&body[..], [0, 7]),
                (5, Some((13, body))) => assert!(body.is_empty()),
                (3 | 5, other) => panic!("{other:?}"),
                (_, none) => assert!(none.is_none()),
            }
        }
        stream.extend_from_slice(&[0x40, 0xFF, 0xFF, 0xFF, 0xFF, 1]);
        assert!(take_packet(&mut stream).is_err());
    }

    #[test]
    fn an_acknowledgement_of_5_0_says_whether_the_message_was_taken() {
        let said = |body: &[u8]| puback(Version::V5, body).ok();
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
        assert_eq!(puback(Version::V4, &[0, 7]), Ok((7, Verdict::Taken)));
        for bad in [&[0][..], &[], &[0, 7, 0x99, 9], &[0, 7, 0x99, 2, 0x77, 0], &[0, 7, 0x99, 4, 0x1f, 0, 9, 0]] {
            assert_eq!(said(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_greeting_says_what_the_broker_takes_or_that_it_speaks_another_version() {
        let welcome = |under_way, packet_bytes| Greeting::Welcome(Granted { under_way, packet_bytes });
        assert_eq!(greeting(Version::V5, kind::CONNACK, &[0, 0, 0]), welcome(65_535, usize::MAX));
        let limits = [0, 0, 8, 0x21, 0, 9, 0x27, 0, 0, 1, 0];
        assert_eq!(greeting(Version::V5, kind::CONNACK, &limits), welcome(9, 256));
        assert_eq!(greeting(Version::V4, kind::CONNACK, &[0, 0]), welcome(65_535, usize::MAX));
        assert_eq!(greeting(Version::V5, kind::CONNACK, &[0, 1]), Greeting::Version, "in the words of 3.1.1");
        assert_eq!(greeting(Version::V5, kind::CONNACK, &[0, 0x84, 0]), Greeting::Version);
        for (version, refused) in [(Version::V5, &[0, 0x86, 0][..]), (Version::V4, &[0, 4]), (Version::V5, &[0, 5])] {
            assert!(matches!(greeting(version, kind::CONNACK, refused), Greeting::Refused(_)), "{refused:?}");
        }
        for (packet, again) in [(2, &[0, 0x89, 0][..]), (2, &[0, 3]), (3, &[0, 0, 0]), (2, &[0]), (2, &[])] {
            assert!(matches!(greeting(Version::V5, packet, again), Greeting::Again(_)), "{again:?}");
        }
    }
}
