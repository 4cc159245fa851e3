//! PUBLISH, read from and written to the wire by hand.

use super::{Fault, Fields, Version, property as id, put_text, put_varint, varint_bytes};

/// A PUBLISH as received; borrows from the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct In<'a> {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    /// Empty when only an alias was sent.
    pub topic: &'a str,
    /// 0 for QoS 0.
    pub id: u16,
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
}

/// MQTT 5 properties of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    /// As on the wire, without the length before them.
    pub raw: &'a [u8],
    pub is_text: bool,
    pub expiry_s: Option<u32>,
    pub content_type: Option<&'a str>,
    pub alias: Option<u16>,
    pub has_user: bool,
}

impl<'a> In<'a> {
    /// Checks all but what needs the connection: alias, rights, the topic's own rules.
    ///
    /// # Errors
    /// What the client did wrong.
    pub fn parse(version: Version, flags: u8, body: &'a [u8]) -> Result<In<'a>, Fault> {
        let (dup, qos, retain) = (flags & 8 != 0, (flags >> 1) & 3, flags & 1 != 0);
        if qos == 3 || (qos == 0 && dup) {
            return Err(Fault::malformed("QoS 3, or DUP with QoS 0"));
        }
        let mut f = Fields { rest: body };
        let topic = f.text()?;
        let id = if qos > 0 { f.u16()? } else { 0 };
        if qos > 0 && id == 0 {
            return Err(Fault::malformed("packet id 0"));
        }
        let properties = match version {
            Version::V4 => Properties::default(),
            Version::V5 => {
                let n = f.varint()? as usize;
                Properties::parse(f.take(n)?)?
            }
        };
        Ok(In { dup, qos, retain, topic, id, properties, payload: f.rest })
    }
}

impl<'a> Properties<'a> {
    /// # Errors
    /// A property that a client may not send with a PUBLISH, or sent twice.
    pub fn parse(raw: &'a [u8]) -> Result<Properties<'a>, Fault> {
        let mut p = Properties { raw, ..Properties::default() };
        let mut seen = 0u64;
        let mut f = Fields { rest: raw };
        while !f.rest.is_empty() {
            let id = f.u8()?;
            if id != id::USER {
                let bit = 1u64.checked_shl(id.into()).ok_or(Fault::malformed("an unknown property"))?;
                if seen & bit != 0 {
                    return Err(Fault::protocol("a property is given twice"));
                }
                seen |= bit;
            }
            match id {
                id::PAYLOAD_FORMAT => match f.u8()? {
                    n @ (0 | 1) => p.is_text = n == 1,
                    _ => return Err(Fault::protocol("payload format indicator is neither 0 nor 1")),
                },
                id::EXPIRY => p.expiry_s = Some(f.u32()?),
                id::CONTENT_TYPE => p.content_type = Some(f.text()?),
                id::RESPONSE_TOPIC => {
                    let topic = f.text()?;
                    if topic.is_empty() || topic.contains(['+', '#']) {
                        return Err(Fault::protocol("the response topic is empty, or has a wildcard"));
                    }
                }
                id::CORRELATION => {
                    f.binary()?;
                }
                id::ALIAS => p.alias = Some(f.u16()?),
                id::USER => {
                    f.text()?;
                    f.text()?;
                    p.has_user = true;
                }
                id::SUBSCRIPTION => return Err(Fault::protocol("a client sent a subscription identifier")),
                _ => return Err(Fault::malformed("an unknown property")),
            }
        }
        Ok(p)
    }

    pub fn user(&self) -> UserProperties<'a> {
        UserProperties { raw: if self.has_user { self.raw } else { &[] } }
    }

    /// Appends what goes on to subscribers as it is: everything but alias and expiry, which
    /// belong to one hop and to the clock.
    pub fn put_forwarded(&self, out: &mut Vec<u8>) {
        if self.alias.is_none() && self.expiry_s.is_none() {
            out.extend_from_slice(self.raw);
            return;
        }
        let mut f = Fields { rest: self.raw };
        while let Some((id, whole)) = next_property(&mut f) {
            if id != id::ALIAS && id != id::EXPIRY {
                out.extend_from_slice(whole);
            }
        }
    }
}

/// The next property of a list that was checked before, with its identifier.
fn next_property<'a>(f: &mut Fields<'a>) -> Option<(u8, &'a [u8])> {
    let before = f.rest;
    let id = f.u8().ok()?;
    match id {
        id::PAYLOAD_FORMAT => f.u8().map(drop),
        id::EXPIRY => f.u32().map(drop),
        id::ALIAS => f.u16().map(drop),
        id::USER => f.binary().and_then(|_| f.binary()).map(drop),
        id::CONTENT_TYPE | id::RESPONSE_TOPIC | id::CORRELATION => f.binary().map(drop),
        _ => return None,
    }
    .ok()?;
    Some((id, &before[..before.len() - f.rest.len()]))
}

/// The user properties of a message, in their order; read on demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserProperties<'a> {
    raw: &'a [u8],
}

impl<'a> UserProperties<'a> {
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut f = Fields { rest: self.raw };
        std::iter::from_fn(move || {
            loop {
                let (id, whole) = next_property(&mut f)?;
                if id == id::USER {
                    let mut pair = Fields { rest: &whole[1..] };
                    return Some((pair.text().ok()?, pair.text().ok()?));
                }
            }
        })
    }
}

/// A PUBLISH to be sent. `payload` is given in parts, so that nothing is joined before the write.
pub struct Out<'a> {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    /// Empty: the alias alone says it.
    pub topic: &'a str,
    /// MQTT 5 only.
    pub alias: Option<u16>,
    /// Not read for QoS 0.
    pub id: u16,
    /// MQTT 5 only, as on the wire; see [`Properties::put_forwarded`].
    pub forwarded: &'a [u8],
    pub content_type: Option<&'a str>,
    pub expiry_s: Option<u32>,
    pub subscription_ids: &'a [u32],
    pub payload: [&'a [u8]; 3],
}

impl Out<'_> {
    fn properties_bytes(&self) -> usize {
        self.forwarded.len()
            + self.alias.map_or(0, |_| 3)
            + self.content_type.map_or(0, |t| 3 + t.len())
            + self.expiry_s.map_or(0, |_| 5)
            + self.subscription_ids.iter().map(|id| 1 + varint_bytes(*id as usize)).sum::<usize>()
    }

    fn body_bytes(&self, version: Version) -> usize {
        let properties = match version {
            Version::V4 => 0,
            Version::V5 => {
                let n = self.properties_bytes();
                n + varint_bytes(n)
            }
        };
        2 + self.topic.len()
            + if self.qos > 0 { 2 } else { 0 }
            + properties
            + self.payload.iter().map(|p| p.len()).sum::<usize>()
    }

    /// Bytes of the whole packet.
    pub fn packet_bytes(&self, version: Version) -> usize {
        let body = self.body_bytes(version);
        1 + varint_bytes(body) + body
    }

    /// Appends the packet. The topic must be at most 65,535 bytes, the whole below 256 MiB; both
    /// hold for whatever a record can carry.
    pub fn put(&self, version: Version, out: &mut Vec<u8>) {
        let body = self.body_bytes(version);
        out.reserve(body + 5);
        out.push(0x30 | u8::from(self.dup) << 3 | (self.qos & 3) << 1 | u8::from(self.retain));
        put_varint(body as u32, out);
        put_text(self.topic, out);
        if self.qos > 0 {
            out.extend_from_slice(&self.id.to_be_bytes());
        }
        if version == Version::V5 {
            put_varint(self.properties_bytes() as u32, out);
            out.extend_from_slice(self.forwarded);
            if let Some(t) = self.content_type {
                out.push(id::CONTENT_TYPE);
                put_text(t, out);
            }
            if let Some(s) = self.expiry_s {
                out.push(id::EXPIRY);
                out.extend_from_slice(&s.to_be_bytes());
            }
            if let Some(alias) = self.alias {
                out.push(id::ALIAS);
                out.extend_from_slice(&alias.to_be_bytes());
            }
            for id in self.subscription_ids {
                out.push(id::SUBSCRIPTION);
                put_varint(*id, out);
            }
        }
        for part in self.payload {
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Head;
    use super::*;
    use proptest::prelude::*;

    fn body(bytes: &[u8]) -> (u8, &[u8]) {
        let head = Head::parse(bytes).unwrap().unwrap();
        assert_eq!(head.total_bytes(), bytes.len());
        (head.flags, &bytes[head.head_bytes..])
    }

    #[test]
    fn alias_and_expiry_stay_on_their_hop() {
        let mut raw = vec![0x23, 0, 5, 0x01, 1, 0x02, 0, 0, 0, 9];
        raw.push(0x26);
        put_text("k", &mut raw);
        put_text("v", &mut raw);
        let p = Properties::parse(&raw).unwrap();
        assert_eq!((p.alias, p.expiry_s, p.is_text), (Some(5), Some(9), true));
        assert_eq!(p.user().iter().collect::<Vec<_>>(), [("k", "v")]);
        let mut on = Vec::new();
        p.put_forwarded(&mut on);
        assert_eq!(on, [0x01, 1, 0x26, 0, 1, b'k', 0, 1, b'v']);
    }

    #[test]
    fn properties_given_twice_or_not_for_clients_are_refused() {
        assert!(Properties::parse(&[0x01, 1, 0x01, 1]).is_err());
        assert!(Properties::parse(&[0x0b, 1]).is_err());
        assert!(Properties::parse(&[0x7f, 1]).is_err());
        assert!(Properties::parse(&[0x03, 0, 9]).is_err());
        assert!(Properties::parse(&[0x08, 0, 0]).is_err(), "a topic of no character");
    }

    #[test]
    fn bad_flags_ids_and_texts_are_refused() {
        assert!(In::parse(Version::V4, 0b0110, &[0, 1, b'a', 0, 1]).is_err());
        assert!(In::parse(Version::V4, 0b1000, &[0, 1, b'a']).is_err());
        assert!(In::parse(Version::V4, 0b0010, &[0, 1, b'a', 0, 0]).is_err());
        assert!(In::parse(Version::V4, 0, &[0, 1, 0xff]).is_err());
        assert!(In::parse(Version::V4, 0, &[0, 1, 0]).is_err());
        assert!(In::parse(Version::V4, 0, &[0, 9, b'a']).is_err());
    }

    proptest! {
        #[test]
        fn a_publish_reads_back(
            v5: bool, qos in 0u8..3, retain: bool, topic in "[a-z/]{1,40}", id in 1u16..,
            payload in proptest::collection::vec(any::<u8>(), 0..300), expiry in proptest::option::of(any::<u32>()),
            cut in 0usize..300,
        ) {
            let version = if v5 { Version::V5 } else { Version::V4 };
            let cut = cut.min(payload.len());
            let out = Out {
                dup: false, qos, retain, topic: &topic, alias: v5.then_some(7), id, forwarded: &[1, 1], content_type: Some("a/b"),
                expiry_s: expiry, subscription_ids: &[], payload: [&payload[..cut], &[], &payload[cut..]],
            };
            let mut bytes = vec![];
            out.put(version, &mut bytes);
            prop_assert_eq!(bytes.len(), out.packet_bytes(version));
            let (flags, body) = body(&bytes);
            let back = In::parse(version, flags, body).unwrap();
            prop_assert_eq!((back.qos, back.retain, back.topic, back.payload), (qos, retain, &*topic, &*payload));
            prop_assert_eq!(back.id, if qos > 0 { id } else { 0 });
            if v5 {
                prop_assert_eq!((back.properties.expiry_s, back.properties.content_type), (expiry, Some("a/b")));
            }
        }
    }
}
