//! CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT.

use super::publish::Properties;
use super::{Fault, Fields, Version, properties, property, reason};
use citybrain_shared::topic;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    pub version: Version,
    pub client: String,
    /// 3.1.1: the session is also forgotten at the end.
    pub clean: bool,
    pub keep_alive_s: u16,
    /// 3.1.1 without `clean`: "for ever", which config bounds.
    pub expiry_s: u32,
    /// Unacknowledged publishes that the client takes; 0 never.
    pub receive_maximum: u16,
    /// Largest packet that the client takes, bytes.
    pub packet_bytes_max: usize,
    /// Topic aliases that the client takes.
    pub topic_alias_maximum: u16,
    pub auth_method: bool,
    /// The client wants to be told why.
    pub problems: bool,
    pub user: Option<String>,
    pub password: Option<Vec<u8>>,
    pub will: Option<Will>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub delay_s: u32,
    /// As on the wire, fit for [`Properties::parse`].
    pub properties: Vec<u8>,
}

/// Why a CONNECT is answered with a refusal, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not MQTT, or so broken that its version is unknown: close.
    Close,
    /// Another protocol level.
    Level,
    Fault(Version, Fault),
}

impl Connect {
    /// # Errors
    /// How to answer.
    pub fn parse(body: &[u8]) -> Result<Connect, Refusal> {
        let mut f = Fields { rest: body };
        let name = f.text().map_err(|_| Refusal::Close)?;
        let level = f.u8().map_err(|_| Refusal::Close)?;
        let version = match (name, level) {
            ("MQTT", 4) => Version::V4,
            ("MQTT", 5) => Version::V5,
            ("MQTT" | "MQIsdp", _) => return Err(Refusal::Level),
            _ => return Err(Refusal::Close),
        };
        let connect = Connect::fields(version, &mut f).map_err(|fault| Refusal::Fault(version, fault))?;
        if connect.will.as_ref().is_some_and(|w| topic::check_topic(&w.topic).is_err()) {
            let what = "the will's topic is no topic";
            return Err(Refusal::Fault(version, Fault { reason: reason::TOPIC_INVALID, what }));
        }
        Ok(connect)
    }

    /// What follows the protocol level.
    fn fields(version: Version, f: &mut Fields<'_>) -> Result<Connect, Fault> {
        let flags = f.u8()?;
        let has = |bit: u8| flags & bit != 0;
        let (has_will, qos) = (has(4), flags >> 3 & 3);
        if has(1) || qos == 3 || (!has_will && (qos != 0 || has(32))) {
            return Err(Fault::malformed("the connect flags contradict each other"));
        }
        if version == Version::V4 && has(64) && !has(128) {
            return Err(Fault::malformed("a password without a user name"));
        }
        let clean = has(2);
        let mut connect = Connect {
            version,
            client: String::new(),
            clean,
            keep_alive_s: f.u16()?,
            expiry_s: if version == Version::V4 && !clean { u32::MAX } else { 0 },
            receive_maximum: u16::MAX,
            packet_bytes_max: usize::MAX,
            topic_alias_maximum: 0,
            auth_method: false,
            problems: true,
            user: None,
            password: None,
            will: None,
        };
        if version == Version::V5 {
            connect.properties(f)?;
        }
        connect.client = f.text()?.to_owned();
        if has_will {
            connect.will = Some(Will::fields(version, f, qos, has(32))?);
        }
        if has(128) {
            connect.user = Some(f.text()?.to_owned());
        }
        if has(64) {
            connect.password = Some(f.binary()?.to_vec());
        }
        f.end()?;
        Ok(connect)
    }

    fn properties(&mut self, f: &mut Fields<'_>) -> Result<(), Fault> {
        use property::*;
        const ONCE: [u8; 8] = [
            SESSION_EXPIRY,
            RECEIVE_MAXIMUM,
            PACKET_MAXIMUM,
            ALIAS_MAXIMUM,
            REQUEST_RESPONSE,
            REQUEST_PROBLEM,
            AUTH_METHOD,
            AUTH_DATA,
        ];
        let mut auth_data = false;
        properties(f, &ONCE, |p| match p.id {
            SESSION_EXPIRY => self.expiry_s = p.number,
            // It is of two bytes.
            RECEIVE_MAXIMUM => self.receive_maximum = p.number as u16,
            PACKET_MAXIMUM => self.packet_bytes_max = p.number as usize,
            ALIAS_MAXIMUM => self.topic_alias_maximum = p.number as u16,
            REQUEST_PROBLEM => self.problems = p.number != 0,
            AUTH_METHOD => self.auth_method = true,
            AUTH_DATA => auth_data = true,
            _ => {}
        })?;
        if auth_data && !self.auth_method {
            return Err(Fault::protocol("authentication data without a method"));
        }
        if self.receive_maximum == 0 || self.packet_bytes_max == 0 {
            return Err(Fault::protocol("receive maximum or maximum packet size is 0"));
        }
        Ok(())
    }
}

impl Will {
    fn fields(version: Version, f: &mut Fields<'_>, qos: u8, retain: bool) -> Result<Will, Fault> {
        use property::*;
        const ONCE: [u8; 6] = [WILL_DELAY, PAYLOAD_FORMAT, EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION];
        let mut will =
            Will { topic: String::new(), payload: Vec::new(), qos, retain, delay_s: 0, properties: Vec::new() };
        if version == Version::V5 {
            properties(f, &ONCE, |p| match p.id {
                WILL_DELAY => will.delay_s = p.number,
                _ => will.properties.extend_from_slice(p.raw),
            })?;
            Properties::parse(&will.properties)?;
        }
        will.topic = f.text()?.to_owned();
        will.payload = f.binary()?.to_vec();
        Ok(will)
    }
}

fn filter<'a>(f: &mut Fields<'a>) -> Result<&'a str, Fault> {
    let filter = f.text()?;
    match topic::check_filter(filter) {
        Err(topic::Error::Empty) => Err(Fault::malformed("a filter is empty")),
        // [MQTT-4.7.1-1], [MQTT-4.7.1-2]
        Err(topic::Error::Hash | topic::Error::Plus) => Err(Fault::malformed("a wildcard does not stand alone")),
        // Of a shared subscription's name the answer says that it is wrong.
        Ok(()) | Err(_) => Ok(filter),
    }
}

fn packet_id(f: &mut Fields<'_>) -> Result<u16, Fault> {
    match f.u16()? {
        0 => Err(Fault::protocol("packet id 0")),
        id => Ok(id),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    pub id: u16,
    pub subscription_id: Option<u32>,
    /// Filter (well formed, as far as it is not of a shared subscription) and options: QoS in bits 0-1, no-local 2, retain-as-published 3,
    /// retain handling 4-5.
    pub entries: Vec<(String, u8)>,
}

impl Subscribe {
    /// # Errors
    /// What the client did wrong.
    pub fn parse(version: Version, body: &[u8]) -> Result<Subscribe, Fault> {
        let f = &mut Fields { rest: body };
        let id = packet_id(f)?;
        let mut subscription_id = None;
        if version == Version::V5 {
            properties(f, &[property::SUBSCRIPTION], |p| {
                if p.id == property::SUBSCRIPTION {
                    subscription_id = Some(p.number);
                }
            })?;
        }
        if subscription_id == Some(0) {
            return Err(Fault::protocol("subscription identifier 0"));
        }
        let mut entries = Vec::new();
        while !f.rest.is_empty() {
            let filter = filter(f)?;
            let options = f.u8()?;
            let reserved = if version == Version::V5 { 0xc0 } else { 0xfc };
            if options & reserved != 0 {
                return Err(Fault::malformed("reserved bits of a subscription are set"));
            }
            if options & 3 == 3 || options & 0x30 == 0x30 {
                return Err(Fault::protocol("QoS 3, or retain handling 3"));
            }
            if options & 4 != 0 && filter.starts_with(topic::SHARE) {
                return Err(Fault::protocol("no-local with a shared subscription"));
            }
            entries.push((filter.to_owned(), options));
        }
        if entries.is_empty() {
            return Err(Fault::protocol("a subscription of nothing"));
        }
        Ok(Subscribe { id, subscription_id, entries })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    pub id: u16,
    pub filters: Vec<String>,
}

impl Unsubscribe {
    /// # Errors
    /// What the client did wrong.
    pub fn parse(version: Version, body: &[u8]) -> Result<Unsubscribe, Fault> {
        let f = &mut Fields { rest: body };
        let id = packet_id(f)?;
        if version == Version::V5 {
            properties(f, &[], |_| {})?;
        }
        let mut filters = Vec::new();
        while !f.rest.is_empty() {
            filters.push(filter(f)?.to_owned());
        }
        if filters.is_empty() {
            return Err(Fault::protocol("an unsubscription of nothing"));
        }
        Ok(Unsubscribe { id, filters })
    }
}

/// DISCONNECT of MQTT 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    pub reason: u8,
    pub expiry_s: Option<u32>,
}

impl Disconnect {
    /// # Errors
    /// What the client did wrong.
    pub fn parse(body: &[u8]) -> Result<Disconnect, Fault> {
        let f = &mut Fields { rest: body };
        let mut said = Disconnect { reason: reason::SUCCESS, expiry_s: None };
        if !f.rest.is_empty() {
            said.reason = f.u8()?;
            // Those of section 3.14.2.1 that a client may send.
            if !matches!(said.reason, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99) {
                return Err(Fault::protocol("a reason code that the packet cannot have"));
            }
        }
        if !f.rest.is_empty() {
            properties(f, &[property::SESSION_EXPIRY, property::REASON_STRING], |p| {
                if p.id == property::SESSION_EXPIRY {
                    said.expiry_s = Some(p.number);
                }
            })?;
        }
        f.end()?;
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(level: u8, flags: u8, tail: &[u8]) -> Vec<u8> {
        let mut b = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60];
        if level == 5 {
            b.push(0);
        }
        b.extend_from_slice(tail);
        b
    }

    #[test]
    fn both_versions_connect_and_others_are_told_apart() {
        assert_eq!(Connect::parse(&connect(4, 2, &[0, 1, b'a'])).unwrap().client, "a");
        let c = Connect::parse(&connect(5, 0, &[0, 0])).unwrap();
        assert_eq!((c.version, c.clean, c.expiry_s, c.receive_maximum), (Version::V5, false, 0, u16::MAX));
        assert_eq!(Connect::parse(&connect(6, 2, &[0, 0])), Err(Refusal::Level));
        assert_eq!(Connect::parse(b"\0\x06MQIsdp\x03\x02\0\0\0\0"), Err(Refusal::Level));
        assert_eq!(Connect::parse(b"GET / HTTP/1.1"), Err(Refusal::Close));
    }

    #[test]
    fn connect_flags_that_contradict_are_refused() {
        for flags in [3, 0x0a, 0x22, 0x1e] {
            assert!(matches!(Connect::parse(&connect(4, flags, &[0, 0])), Err(Refusal::Fault(..))), "{flags:#x}");
        }
    }

    #[test]
    fn a_password_alone_is_for_mqtt_5() {
        let tail = [0, 1, b'a', 0, 1, b'p'];
        assert!(matches!(Connect::parse(&connect(4, 0x42, &tail)), Err(Refusal::Fault(..))));
        let c = Connect::parse(&connect(5, 0x42, &tail)).unwrap();
        assert_eq!((c.user, c.password), (None, Some(b"p".to_vec())));
    }

    #[test]
    fn a_connect_and_its_will_have_their_own_properties_and_no_others() {
        let parse = |list: &[u8], will: &[u8]| {
            let mut b = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 6, 0, 60, list.len() as u8];
            b.extend_from_slice(list);
            b.extend([0, 1, b'a', will.len() as u8]);
            b.extend_from_slice(will);
            b.extend([0, 1, b't', 0, 1, b'p']);
            Connect::parse(&b).map_err(|r| match r {
                Refusal::Fault(_, f) => f.reason,
                r => panic!("{r:?}"),
            })
        };
        let c = parse(&[0x11, 0, 0, 0, 9, 0x21, 0, 7, 0x17, 0], &[0x18, 0, 0, 0, 5, 0x01, 1]).unwrap();
        let will = c.will.unwrap();
        assert_eq!((c.expiry_s, c.receive_maximum, c.problems), (9, 7, false));
        assert_eq!((will.delay_s, &will.properties[..], &will.payload[..]), (5, &[0x01, 1][..], &b"p"[..]));
        assert_eq!(parse(&[0x23, 0, 1], &[]), Err(reason::MALFORMED), "an alias");
        assert_eq!(parse(&[], &[0x23, 0, 1]), Err(reason::MALFORMED), "an alias of a will");
        assert_eq!(parse(&[0x17, 2], &[]), Err(reason::PROTOCOL_ERROR));
        assert_eq!(parse(&[0x21, 0, 1, 0x21, 0, 1], &[]), Err(reason::PROTOCOL_ERROR));
        assert_eq!(parse(&[0x21, 0, 0], &[]), Err(reason::PROTOCOL_ERROR));
        assert_eq!(parse(&[0x16, 0, 0], &[]), Err(reason::PROTOCOL_ERROR), "data without a method");
        assert_eq!(parse(&[0x26, 0, 1, 0, 0, 1, b'v'], &[]), Err(reason::MALFORMED), "U+0000");
        assert_eq!(parse(&[], &[0x08, 0, 1, b'#']), Err(reason::PROTOCOL_ERROR), "a wildcard to answer to");
    }

    #[test]
    fn topic_alias_maximum_zero_is_legal() {
        let mut b = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 3, 0x22, 0, 0];
        b.extend_from_slice(&[0, 1, b'a']);
        assert!(Connect::parse(&b).is_ok());
    }

    #[test]
    fn a_plain_disconnect_is_no_error() {
        assert_eq!(Disconnect::parse(&[]).unwrap(), Disconnect { reason: 0, expiry_s: None });
        assert_eq!(Disconnect::parse(&[4]).unwrap().reason, 4);
    }

    #[test]
    fn a_subscription_without_filters_or_with_id_zero_is_refused() {
        assert!(Subscribe::parse(Version::V4, &[0, 1]).is_err());
        assert!(Subscribe::parse(Version::V4, &[0, 0, 0, 1, b'a', 0]).is_err());
        assert!(Subscribe::parse(Version::V4, &[0, 1, 0, 1, b'a', 3]).is_err());
        assert!(Subscribe::parse(Version::V4, &[0, 1, 0, 1, b'a', 5]).is_err());
        assert_eq!(Subscribe::parse(Version::V5, &[0, 1, 0, 0, 1, b'a', 1]).unwrap().entries, [("a".into(), 1)]);
    }

    #[test]
    fn a_filter_that_no_topic_could_match_is_malformed() {
        for filter in [&[0, 0][..], &[0, 1, 0], &[0, 2, 0xed, 0xa0]] {
            let subscribe = [&[0, 1], filter, &[0]].concat();
            assert_eq!(Subscribe::parse(Version::V4, &subscribe).unwrap_err().reason, reason::MALFORMED);
            let unsubscribe = [&[0, 1, 0], filter].concat();
            assert_eq!(Unsubscribe::parse(Version::V5, &unsubscribe).unwrap_err().reason, reason::MALFORMED);
        }
    }

    #[test]
    fn a_property_of_another_packet_is_malformed_and_one_given_twice_a_protocol_error() {
        let subscribe = |list: &[u8]| {
            let body = [&[0, 1, list.len() as u8], list, &[0, 1, b'a', 0]].concat();
            Subscribe::parse(Version::V5, &body).map_err(|f| f.reason)
        };
        assert!(subscribe(&[0x0b, 5, 0x26, 0, 0, 0, 0]).is_ok());
        assert_eq!(subscribe(&[0x0b, 5, 0x0b, 5]), Err(reason::PROTOCOL_ERROR));
        assert_eq!(subscribe(&[0x11, 0, 0, 0, 9]), Err(reason::MALFORMED));
        let unsubscribe = Unsubscribe::parse(Version::V5, &[0, 1, 2, 0x0b, 5, 0, 1, b'a']);
        assert_eq!(unsubscribe.unwrap_err().reason, reason::MALFORMED);
        assert_eq!(Disconnect::parse(&[0, 2, 0x01, 1]).unwrap_err().reason, reason::MALFORMED);
        assert_eq!(Disconnect::parse(&[0, 5, 0x11, 0, 0, 0, 9]).unwrap().expiry_s, Some(9));
    }

    #[test]
    fn what_is_not_utf8_in_a_connect_is_malformed_and_no_wrong_password() {
        for version in [4, 5] {
            let parsed = Connect::parse(&connect(version, 0x82, &[0, 1, b'a', 0, 3, 0xed, 0xa0, 0x80]));
            assert!(matches!(parsed, Err(Refusal::Fault(_, f)) if f.reason == reason::MALFORMED), "{parsed:?}");
        }
    }
}
