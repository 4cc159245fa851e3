//! The other side: what a client writes and what it reads of the answers, for those of ours that speak to other
//! brokers (the publisher of a replay, a bench).

use super::publish::Out;
use super::{Fault, Fields, Property, Version, properties, property, put_text, put_varint, reason};

/// Longest text of a packet, bytes (MQTT 5.0, 1.5.4): whoever asks people for one looks first.
pub const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// A CONNECT without a will. No text of it may be longer than [`TEXT_BYTES_MAX`].
pub struct Hello<'a> {
    pub version: Version,
    pub client_id: &'a str,
    /// The session begins anew; in 5.0 it also ends with the connection, whatever this says.
    pub clean: bool,
    pub keep_alive_s: u16,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
}

impl Hello<'_> {
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        put_text("MQTT", &mut body);
        body.push(self.version.level());
        let flag = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
        let named = flag(0x80, self.username.is_some()) | flag(0x40, self.password.is_some());
        body.push(named | flag(0x02, self.clean));
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        if self.version == Version::V5 {
            body.push(0); // no properties
        }
        for text in [Some(self.client_id), self.username, self.password].into_iter().flatten() {
            put_text(text, &mut body);
        }
        put(0x10, &body, out);
    }
}

/// Writes a SUBSCRIBE, all of its filters with one QoS.
pub fn put_subscribe<'a>(
    version: Version,
    id: u16,
    filters: impl Iterator<Item = &'a str>,
    qos: u8,
    out: &mut Vec<u8>,
) {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0); // no properties
    }
    for filter in filters {
        put_text(filter, &mut body);
        body.push(qos);
    }
    put(0x82, &body, out);
}

/// Writes a DISCONNECT: all is done.
pub fn put_goodbye(out: &mut Vec<u8>) {
    put(0xe0, &[], out);
}

/// Writes a PINGREQ.
pub fn put_ping(out: &mut Vec<u8>) {
    put(0xc0, &[], out);
}

fn put(first: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    put_varint(body.len() as u32, out);
    out.extend_from_slice(body);
}

/// A PUBLISH of QoS 1 with nothing but its topic and payload.
pub fn publish<'a>(id: u16, topic: &'a str, payload: &'a [u8]) -> Out<'a> {
    Out {
        dup: false,
        qos: 1,
        retain: false,
        topic,
        alias: None,
        id,
        forwarded: &[],
        content_type: None,
        expiry_s: None,
        subscription_ids: &[],
        payload: [payload, &[], &[]],
    }
}

/// What a server says beside a code, as far as a client of ours looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub reason: Option<String>,
}

/// Properties of a CONNACK (3.2.2.3); those of PUBACK and DISCONNECT are among them.
const OF_A_SERVER: [u8; 17] = [
    property::SESSION_EXPIRY,
    property::ASSIGNED_CLIENT,
    property::SERVER_KEEP_ALIVE,
    property::AUTH_METHOD,
    property::AUTH_DATA,
    property::RESPONSE_INFORMATION,
    property::SERVER_REFERENCE,
    property::REASON_STRING,
    property::RECEIVE_MAXIMUM,
    property::ALIAS_MAXIMUM,
    property::MAXIMUM_QOS,
    property::RETAIN_AVAILABLE,
    property::PACKET_MAXIMUM,
    property::WILDCARD_AVAILABLE,
    property::SUBSCRIPTION_IDS_AVAILABLE,
    property::SHARED_AVAILABLE,
    property::USER,
];

impl Said {
    /// Nothing at all stands for no properties.
    fn fields(f: &mut Fields<'_>) -> Result<Said, Fault> {
        let mut said = Said::default();
        if f.rest.is_empty() {
            return Ok(said);
        }
        properties(f, &OF_A_SERVER, |Property { id, number, raw }| match id {
            property::RECEIVE_MAXIMUM => said.receive_maximum = Some(number as u16),
            property::PACKET_MAXIMUM => said.packet_bytes_max = Some(number),
            // Behind its identifier and its length.
            property::REASON_STRING => said.reason = Some(String::from_utf8_lossy(&raw[3..]).into_owned()),
            _ => {}
        })?;
        f.end()?;
        Ok(said)
    }
}

/// A CONNACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connack {
    /// A reason of 5.0; or, where it is of 3.1.1, a return code.
    pub code: u8,
    /// It has no properties: a server of 3.1.1 answers a CONNECT of 5.0 in its own words.
    pub is_v4: bool,
    pub said: Said,
}

impl Connack {
    /// # Errors
    /// It is malformed.
    pub fn parse(body: &[u8]) -> Result<Connack, Fault> {
        let mut f = Fields { rest: body };
        f.u8()?;
        let code = f.u8()?;
        let is_v4 = f.rest.is_empty();
        Ok(Connack { code, is_v4, said: Said::fields(&mut f)? })
    }
}

/// Reads a PUBACK: its packet id, its reason, and what is said of it.
///
/// # Errors
/// It is malformed.
pub fn puback(version: Version, body: &[u8]) -> Result<(u16, u8, Said), Fault> {
    let mut f = Fields { rest: body };
    let id = f.u16()?;
    if version == Version::V4 || f.rest.is_empty() {
        return Ok((id, reason::SUCCESS, Said::default()));
    }
    Ok((id, f.u8()?, Said::fields(&mut f)?))
}

/// Reads the DISCONNECT of a server: its reason, and what is said of it.
///
/// # Errors
/// It is malformed.
pub fn disconnect(body: &[u8]) -> Result<(u8, Said), Fault> {
    let mut f = Fields { rest: body };
    if body.is_empty() {
        return Ok((reason::SUCCESS, Said::default()));
    }
    Ok((f.u8()?, Said::fields(&mut f)?))
}

#[cfg(test)]
mod tests {
    use super::super::control::{Connect, Subscribe};
    use super::super::publish::In;
    use super::super::{Head, kind};
    use super::*;

    fn body(packet: &[u8]) -> (Head, &[u8]) {
        let head = Head::parse(packet).unwrap().unwrap();
        assert_eq!(head.total_bytes(), packet.len());
        (head, &packet[head.head_bytes..])
    }

    #[test]
    fn what_our_clients_write_our_door_reads() {
        for version in [Version::V4, Version::V5] {
            let mut out = Vec::new();
            let (username, password) = (Some("u"), Some("p"));
            Hello { version, client_id: "c", clean: true, keep_alive_s: 30, username, password }.put(&mut out);
            let (head, connect) = body(&out);
            let connect = Connect::parse(connect).unwrap();
            assert_eq!((head.kind, connect.version, connect.client.as_str()), (kind::CONNECT, version, "c"));
            assert_eq!((connect.clean, connect.keep_alive_s, connect.expiry_s), (true, 30, 0));
            assert_eq!((connect.user.as_deref(), connect.password.as_deref()), (Some("u"), Some(&b"p"[..])));

            let mut out = Vec::new();
            put_subscribe(version, 7, ["a/+", "b"].into_iter(), 1, &mut out);
            let (head, subscribe) = body(&out);
            let subscribe = Subscribe::parse(version, subscribe).unwrap();
            assert_eq!((head.kind, subscribe.id, subscribe.entries.len()), (kind::SUBSCRIBE, 7, 2));

            let mut out = Vec::new();
            publish(9, "a", b"xy").put(version, &mut out);
            let (head, p) = body(&out);
            let p = In::parse(version, head.flags, p).unwrap();
            assert_eq!((p.id, p.qos, p.topic, p.payload), (9, 1, "a", &b"xy"[..]));
        }
    }

    #[test]
    fn a_connect_and_a_publish_of_5_0_have_their_empty_properties() {
        let hello = |version| {
            let mut out = Vec::new();
            let (username, password) = (Some("u"), None);
            Hello { version, client_id: "c", clean: true, keep_alive_s: 30, username, password }.put(&mut out);
            out
        };
        assert_eq!(hello(Version::V4), b"\x10\x10\0\x04MQTT\x04\x82\0\x1e\0\x01c\0\x01u");
        assert_eq!(hello(Version::V5), b"\x10\x11\0\x04MQTT\x05\x82\0\x1e\0\0\x01c\0\x01u");
        let mut out = Vec::new();
        publish(7, "a", b"xy").put(Version::V5, &mut out);
        assert_eq!(out, b"\x32\x08\0\x01a\0\x07\0xy");
    }

    #[test]
    fn what_a_server_says_is_read_and_what_it_cannot_say_is_refused() {
        let limits = [0, 0, 8, 0x21, 0, 9, 0x27, 0, 0, 1, 0];
        let said = Said { receive_maximum: Some(9), packet_bytes_max: Some(256), reason: None };
        assert_eq!(Connack::parse(&limits), Ok(Connack { code: 0, is_v4: false, said }));
        assert!(Connack::parse(&[0, 1]).is_ok_and(|c| c.is_v4 && c.code == 1));
        // All that a CONNACK may have.
        let all = [0, 0, 17, 0x24, 1, 0x25, 1, 0x28, 1, 0x29, 1, 0x2a, 1, 0x13, 0, 9, 0x1f, 0, 1, b'x'];
        assert_eq!(Connack::parse(&all).map(|c| c.said.reason), Ok(Some("x".into())));
        let user = [0, 7, 0x99, 13, 0x26, 0, 1, b'k', 0, 1, b'v', 0x1f, 0, 3, b'b', b'a', b'd'];
        assert!(matches!(puback(Version::V5, &user), Ok((7, 0x99, said)) if said.reason.as_deref() == Some("bad")));
        assert!(disconnect(&[0x8b]).is_ok_and(|(reason, _)| reason == 0x8b) && disconnect(&[]).is_ok());
        for bad in [&[0][..], &[], &[0, 7, 0x99, 9], &[0, 7, 0x99, 2, 0x77, 0], &[0, 7, 0x99, 4, 0x1f, 0, 9, 0]] {
            assert!(puback(Version::V5, bad).is_err(), "{bad:?}");
        }
    }
}
