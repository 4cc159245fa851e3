//! CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT.

use super::publish::Properties;
use super::{Fault, Fields, Version, check_properties, property, reason};
use citybrain_shared::topic;
use mqtt_protocol_core::mqtt::packet::{Property, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;

/// A whole body must be read, or the packet has bytes that mean nothing.
fn exact<T>(body: &[u8], parsed: Result<(T, usize), MqttError>) -> Result<T, Fault> {
    match parsed {
        Ok((packet, used)) if used == body.len() => Ok(packet),
        Ok(_) => Err(Fault::malformed("bytes behind the last field")),
        Err(MqttError::ProtocolError) => Err(Fault::protocol("a field is wrong")),
        // The library names the field by its reason code (user name: bad user name or password); what
        // it says is that the packet is malformed.
        Err(_) => Err(Fault::malformed("a field is wrong")),
    }
}

/// Of MQTT 5: an id, and the properties that the library does not look at closely enough.
fn check_head(body: &[u8], once: &[u8]) -> Result<(), Fault> {
    let mut f = Fields { rest: body };
    f.u16()?;
    check_properties(&mut f, once)
}

fn check_filters<'a>(mut filters: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    if filters.any(|f| f.is_empty() || f.contains('\0')) {
        return Err(Fault::malformed("a filter is empty, or contains U+0000"));
    }
    Ok(())
}

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
        let fault = |what| Refusal::Fault(version, what);
        let flags = f.u8().map_err(fault)?;
        // Of these the library checks none.
        let (will, qos, retain) = (flags & 4 != 0, (flags >> 3) & 3, flags & 32 != 0);
        if flags & 1 != 0 || qos == 3 || (!will && (qos != 0 || retain)) {
            return Err(fault(Fault::malformed("the connect flags contradict each other")));
        }
        let connect = match version {
            Version::V4 => exact(body, v3_1_1::Connect::parse(body)).map(|c| from_v4(&c)),
            Version::V5 => exact(body, v5_0::Connect::parse(body)).and_then(|c| from_v5(&c)),
        }
        .map_err(fault)?;
        if connect.client.contains('\0') || connect.user.as_ref().is_some_and(|u| u.contains('\0')) {
            return Err(fault(Fault::malformed("a text contains U+0000")));
        }
        if connect.will.as_ref().is_some_and(|w| topic::check_topic(&w.topic).is_err()) {
            return Err(fault(Fault { reason: reason::TOPIC_INVALID, what: "the will's topic is no topic" }));
        }
        Ok(connect)
    }
}

fn from_v4(c: &v3_1_1::Connect) -> Connect {
    Connect {
        version: Version::V4,
        client: c.client_id().to_owned(),
        clean: c.clean_session(),
        keep_alive_s: c.keep_alive(),
        expiry_s: if c.clean_session() { 0 } else { u32::MAX },
        receive_maximum: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_maximum: 0,
        auth_method: false,
        problems: true,
        user: c.user_name().map(str::to_owned),
        password: c.password().map(<[u8]>::to_vec),
        will: c.will_topic().map(|topic| Will {
            topic: topic.to_owned(),
            payload: c.will_payload().unwrap_or_default().to_vec(),
            qos: c.will_qos() as u8,
            retain: c.will_retain(),
            delay_s: 0,
            properties: Vec::new(),
        }),
    }
}

fn from_v5(c: &v5_0::Connect) -> Result<Connect, Fault> {
    let mut connect = Connect {
        version: Version::V5,
        client: c.client_id().to_owned(),
        clean: c.clean_start(),
        keep_alive_s: c.keep_alive(),
        expiry_s: 0,
        receive_maximum: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_maximum: 0,
        auth_method: false,
        problems: true,
        user: c.user_name().map(str::to_owned),
        password: c.password().map(<[u8]>::to_vec),
        will: None,
    };
    for p in &c.props {
        match p {
            Property::SessionExpiryInterval(p) => connect.expiry_s = p.val(),
            Property::ReceiveMaximum(p) => connect.receive_maximum = p.val(),
            Property::MaximumPacketSize(p) => connect.packet_bytes_max = p.val() as usize,
            Property::TopicAliasMaximum(p) => connect.topic_alias_maximum = p.val(),
            Property::AuthenticationMethod(_) => connect.auth_method = true,
            Property::RequestProblemInformation(p) => connect.problems = p.val() != 0,
            _ => {}
        }
    }
    if !connect.auth_method && c.props.iter().any(|p| matches!(p, Property::AuthenticationData(_))) {
        return Err(Fault::protocol("authentication data without a method"));
    }
    if connect.receive_maximum == 0 || connect.packet_bytes_max == 0 {
        return Err(Fault::protocol("receive maximum or maximum packet size is 0"));
    }
    if let Some(topic) = c.will_topic() {
        let mut will = Will {
            topic: topic.to_owned(),
            payload: c.will_payload().unwrap_or_default().to_vec(),
            qos: c.will_qos() as u8,
            retain: c.will_retain(),
            delay_s: 0,
            properties: Vec::new(),
        };
        for p in &c.will_props {
            match p {
                Property::WillDelayInterval(p) => will.delay_s = p.val(),
                p => put_property(p, &mut will.properties),
            }
        }
        Properties::parse(&will.properties)?;
        connect.will = Some(will);
    }
    Ok(connect)
}

fn put_property(p: &Property, out: &mut Vec<u8>) {
    let bytes = match p {
        Property::PayloadFormatIndicator(p) => p.to_continuous_buffer(),
        Property::MessageExpiryInterval(p) => p.to_continuous_buffer(),
        Property::ContentType(p) => p.to_continuous_buffer(),
        Property::ResponseTopic(p) => p.to_continuous_buffer(),
        Property::CorrelationData(p) => p.to_continuous_buffer(),
        Property::UserProperty(p) => p.to_continuous_buffer(),
        _ => return,
    };
    out.extend_from_slice(&bytes);
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    pub id: u16,
    pub subscription_id: Option<u32>,
    /// Filter (unchecked) and options: QoS in bits 0-1, no-local 2, retain-as-published 3,
    /// retain handling 4-5.
    pub entries: Vec<(String, u8)>,
}

impl Subscribe {
    /// # Errors
    /// What the client did wrong.
    pub fn parse(version: Version, body: &[u8]) -> Result<Subscribe, Fault> {
        let (id, subscription_id, entries) = match version {
            Version::V4 => {
                let s = exact(body, v3_1_1::Subscribe::parse(body))?;
                (s.packet_id(), None, s.entries().to_vec())
            }
            Version::V5 => {
                check_head(body, &[property::SUBSCRIPTION])?;
                let s = exact(body, v5_0::Subscribe::parse(body))?;
                let id = s.props.iter().find_map(|p| match p {
                    Property::SubscriptionIdentifier(p) => Some(p.val()),
                    _ => None,
                });
                (s.packet_id(), id, s.entries().to_vec())
            }
        };
        if id == 0 || subscription_id == Some(0) {
            return Err(Fault::protocol("packet id or subscription identifier 0"));
        }
        let entries: Vec<(String, u8)> =
            entries.into_iter().map(|e| (e.topic_filter().to_owned(), e.sub_opts().to_buffer()[0])).collect();
        check_filters(entries.iter().map(|(f, _)| f.as_str()))?;
        if version == Version::V4 && entries.iter().any(|(_, o)| o & !3 != 0) {
            return Err(Fault::malformed("reserved bits of a subscription are set"));
        }
        if entries.iter().any(|(f, o)| o & 4 != 0 && f.starts_with("$share/")) {
            return Err(Fault::protocol("no-local with a shared subscription"));
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
        let (id, filters): (u16, Vec<String>) = match version {
            Version::V4 => {
                let u = exact(body, v3_1_1::Unsubscribe::parse(body))?;
                (u.packet_id(), u.entries().iter().map(|f| f.as_str().to_owned()).collect())
            }
            Version::V5 => {
                check_head(body, &[])?;
                let u = exact(body, v5_0::Unsubscribe::parse(body))?;
                (u.packet_id(), u.entries().iter().map(|f| f.as_str().to_owned()).collect())
            }
        };
        check_filters(filters.iter().map(String::as_str))?;
        if id == 0 { Err(Fault::protocol("packet id 0")) } else { Ok(Unsubscribe { id, filters }) }
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
        if body.len() > 1 {
            check_properties(&mut Fields { rest: &body[1..] }, &[property::SESSION_EXPIRY, property::REASON_STRING])?;
        }
        let d = exact(body, v5_0::Disconnect::parse(body))?;
        let expiry_s = d.props.iter().flatten().find_map(|p| match p {
            Property::SessionExpiryInterval(p) => Some(p.val()),
            _ => None,
        });
        Ok(Disconnect { reason: d.reason_code().map_or(0, |r| r as u8), expiry_s })
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
