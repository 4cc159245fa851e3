//! What the front door keeps in a record's header (`Header::door`): who published, and the MQTT 5
//! properties that go on to subscribers.
//!
//! | size | field |
//! |---|---|
//! | 1 | flags: bit 0 an expiry follows, bit 1 the published payload follows at the end |
//! | 2 + n | client id |
//! | 4 | message expiry, s (bit 0) |
//! | 2 + n | properties as on the wire, without alias and expiry |
//! | rest | the payload as published, where the record's own is another (bit 1) |

use std::borrow::Cow;

/// Header fields have a two-byte length.
pub(crate) const BYTES_MAX: usize = u16::MAX as usize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta<'a> {
    pub client: &'a [u8],
    pub expiry_s: Option<u32>,
    pub forwarded: &'a [u8],
    /// What was published, where a mapping made something else of it.
    pub payload: Option<&'a [u8]>,
}

/// Appends to `out` what [`Meta::decode`] reads; `forwarded` appends the properties. Too large for a header: false,
/// `out` is of no use.
pub(crate) fn put(
    client: &str,
    expiry_s: Option<u32>,
    forwarded: impl FnOnce(&mut Vec<u8>),
    out: &mut Vec<u8>,
) -> bool {
    out.push(u8::from(expiry_s.is_some()));
    out.extend_from_slice(&(client.len() as u16).to_be_bytes());
    out.extend_from_slice(client.as_bytes());
    if let Some(s) = expiry_s {
        out.extend_from_slice(&s.to_be_bytes());
    }
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    forwarded(out);
    let len = out.len() - at - 2;
    out[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
    client.len() <= BYTES_MAX && out.len() <= BYTES_MAX
}

/// The same, with the payload as it was published. `None`: too large for a header.
pub(crate) fn with_payload(door: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    if door.is_empty() || door.len() + payload.len() > BYTES_MAX {
        return None;
    }
    let mut all = Vec::with_capacity(door.len() + payload.len());
    all.extend_from_slice(door);
    all[0] |= 2;
    all.extend_from_slice(payload);
    Some(all)
}

/// What [`with_payload`] was given.
pub(crate) fn without_payload(door: &[u8]) -> Cow<'_, [u8]> {
    let Some(payload) = Meta::decode(door).payload else { return door.into() };
    let mut plain = door[..door.len() - payload.len()].to_vec();
    plain[0] &= !2;
    plain.into()
}

impl Meta<'_> {
    /// Bytes that are none of ours (a record that did not come by MQTT) say nothing.
    pub(crate) fn decode(door: &[u8]) -> Meta<'_> {
        decode(door).unwrap_or_default()
    }
}

fn decode(door: &[u8]) -> Option<Meta<'_>> {
    let (&flags, rest) = door.split_first()?;
    let (client, rest) = lengthy(rest)?;
    let (expiry_s, rest) = if flags & 1 != 0 {
        let (s, rest) = rest.split_first_chunk::<4>()?;
        (Some(u32::from_be_bytes(*s)), rest)
    } else {
        (None, rest)
    };
    let (forwarded, rest) = lengthy(rest)?;
    Some(Meta { client, expiry_s, forwarded, payload: (flags & 2 != 0).then_some(rest) })
}

fn lengthy(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (n, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*n) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::packet::publish::Properties;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_reads_back(client in ".{0,30}", expiry in proptest::option::of(any::<u32>()), text: bool, payload in proptest::option::of(".{0,20}")) {
            let mut raw = Vec::new();
            if text { raw.extend_from_slice(&[1, 1]); }
            if let Some(s) = expiry { raw.push(2); raw.extend_from_slice(&s.to_be_bytes()); }
            let properties = Properties::parse(&raw).unwrap();
            let mut door = Vec::new();
            prop_assert!(put(&client, properties.expiry_s, |out| properties.put_forwarded(out), &mut door));
            let plain = door.clone();
            if let Some(p) = &payload { door = with_payload(&door, p.as_bytes()).unwrap(); }
            prop_assert_eq!(&*without_payload(&door), &plain[..]);
            let meta = Meta::decode(&door);
            prop_assert_eq!(meta.client, client.as_bytes());
            prop_assert_eq!(meta.expiry_s, expiry);
            prop_assert_eq!(meta.forwarded, if text { &[1, 1][..] } else { &[] });
            prop_assert_eq!(meta.payload, payload.as_ref().map(|p| p.as_bytes()));
        }

        #[test]
        fn foreign_bytes_say_nothing_and_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Meta::decode(&bytes);
        }
    }

    #[test]
    fn properties_too_large_for_a_header_are_noticed() {
        let mut raw = vec![3, 0xff, 0xf0];
        raw.extend(std::iter::repeat_n(b'x', 0xfff0));
        let properties = Properties::parse(&raw).unwrap();
        assert!(!put("a client", None, |out| properties.put_forwarded(out), &mut Vec::new()));
    }
}
