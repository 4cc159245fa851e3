//! An alarm as CAP messages: `Alert` when it was raised, `Update` whenever its severity or title has
//! changed, `Cancel` when it is over. Raised again it is a new alert.
//!
//! Nothing of it is kept: an alarm says when each of that was, so every node that knows it gives the
//! same messages with the same identifiers. That somebody has acknowledged or shelved an alarm is no
//! news to those outside.

use super::areas::twelve;
use super::{ADDRESS, DIVISION, Message, SEVERITY, time};
use chrono::{DateTime, FixedOffset, Utc};
use citybrain_shared::Address;
use citybrain_shared::config::cap::{Cap, CapAlarm};
use citybrain_shared::config::rules::Severity;
use citybrain_shared::view::Alarm;
use serde_json::{Value, json};

/// What is known of an alarm's node.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// For people; empty: the address is shown.
    pub name: String,
    pub code: Option<String>,
}

/// What is known of a warning whose own messages are not at hand.
#[derive(Clone, Debug)]
pub struct Warned {
    pub event: String,
    pub expires: DateTime<Utc>,
    /// The nodes that its areas name.
    pub nodes: Vec<(Address, Origin)>,
}

/// Says alarms in CAP.
pub struct Speaker<'a> {
    pub cap: &'a Cap,
    /// Of the times that are written.
    pub offset: FixedOffset,
}

impl Speaker<'_> {
    /// The newest message that this alarm has come to; those before it are its references. `of`: the warning for which
    /// it was raised.
    pub fn message(&self, alarm: &Alarm, origin: &Origin, of: Option<&Warned>) -> Message {
        let moments = moments(alarm);
        let sender = format!("{}@{}", alarm.origin, self.cap.domain);
        let identifier = |at: DateTime<Utc>| format!("{}-{}", alarm.id, at.timestamp_micros());
        let (sent, earlier) = moments.split_last().map_or((alarm.raised_at, &[][..]), |(last, all)| (*last, all));
        let kind = match (alarm.active, earlier.is_empty()) {
            (false, _) => "Cancel",
            (true, true) => "Alert",
            (true, false) => "Update",
        };
        let mut message = Message::new();
        let mut set = |name: &str, value: Value| message.insert(name.to_owned(), value);
        set("identifier", identifier(sent).into());
        set("sender", sender.clone().into());
        set("sent", time(sent, self.offset).into());
        set("status", if self.cap.test { "Test" } else { "Actual" }.into());
        set("msgType", kind.into());
        if self.cap.restriction.is_empty() {
            set("scope", "Public".into());
        } else {
            set("scope", "Restricted".into());
            set("restriction", self.cap.restriction.clone().into());
        }
        if !earlier.is_empty() {
            let one = |at: &DateTime<Utc>| format!("{sender},{},{}", identifier(*at), time(*at, self.offset));
            set("references", earlier.iter().map(one).collect::<Vec<_>>().join(" ").into());
        }
        set("incidents", alarm.id.clone().into());
        let mut info = self.info(alarm, origin);
        if let Some(warned) = of {
            info["event"] = warned.event.clone().into();
            info["expires"] = time(warned.expires, self.offset).into();
            info["area"] = warned.nodes.iter().map(|(node, origin)| area(node, origin)).collect();
        }
        // An element that stands no time has no list.
        if let Some(parts) = info.as_object_mut() {
            parts.retain(|_, value| value.as_array().is_none_or(|all| !all.is_empty()));
        }
        set("info", json!([info]));
        message
    }

    fn info(&self, alarm: &Alarm, origin: &Origin) -> Value {
        let none = CapAlarm::default();
        let words = self.cap.alarm.iter().find(|w| w.fits(&alarm.name)).unwrap_or(&none);
        let or = |given: &Option<String>, usual: &str| given.clone().unwrap_or_else(|| usual.to_owned());
        let mut info = json!({
            "language": "zh-CN",
            "category": [or(&words.category, "Safety")],
            "event": or(&words.event, &alarm.name),
            "urgency": if alarm.active { or(&words.urgency, urgency(alarm.severity)) } else { "Past".into() },
            "severity": or(&words.severity, severity(alarm.severity)),
            "certainty": or(&words.certainty, "Observed"),
            "onset": time(alarm.raised_at, self.offset),
            "senderName": name(&alarm.origin, origin),
            "headline": alarm.title,
            "parameter": [{"valueName": SEVERITY, "value": alarm.severity.as_str()}],
        });
        let responses = match alarm.cleared_by.as_deref() {
            _ if alarm.active => words.response.clone(),
            Some(Alarm::RETIRED) => Vec::new(),
            _ => vec!["AllClear".into()],
        };
        info["responseType"] = responses.into();
        if let Some(text) = words.instruction.as_ref().filter(|_| alarm.active) {
            info["instruction"] = text.clone().into();
        }
        let mut area = area(&alarm.origin, origin);
        if let Some((lat, lon)) = alarm.place.as_ref().and_then(|p| p.lat.zip(p.lon)) {
            area["circle"] = json!([format!("{lat},{lon} 0")]);
        }
        info["area"] = json!([area]);
        info
    }
}

fn name(node: &Address, known: &Origin) -> String {
    if known.name.is_empty() { node.to_string() } else { known.name.clone() }
}

/// A node's.
fn area(node: &Address, known: &Origin) -> Value {
    let pair = |name: &str, value: String| json!({"valueName": name, "value": value});
    let code = known.code.as_deref().and_then(twelve).map(|code| pair(DIVISION, code));
    let geocodes: Vec<Value> = code.into_iter().chain([pair(ADDRESS, node.to_string())]).collect();
    json!({"areaDesc": name(node, known), "geocode": geocodes})
}

/// When it was raised, changed and cleared, oldest first.
fn moments(alarm: &Alarm) -> Vec<DateTime<Utc>> {
    let ended = alarm.cleared_at.filter(|_| !alarm.active);
    [alarm.raised_at].into_iter().chain(alarm.changed_at.iter().copied()).chain(ended).collect()
}

/// When its newest message was sent.
pub fn updated(alarm: &Alarm) -> DateTime<Utc> {
    moments(alarm).last().copied().unwrap_or(alarm.raised_at)
}

fn severity(ours: Severity) -> &'static str {
    match ours {
        Severity::Critical => "Extreme",
        Severity::Major => "Severe",
        Severity::Minor => "Moderate",
        Severity::Warning => "Minor",
        Severity::Indeterminate => "Unknown",
    }
}

/// The other way round: what a message that came in is worth.
pub fn level(severity: &str) -> Severity {
    match severity {
        "Extreme" => Severity::Critical,
        "Severe" => Severity::Major,
        "Moderate" => Severity::Minor,
        "Minor" => Severity::Warning,
        _ => Severity::Indeterminate,
    }
}

fn urgency(ours: Severity) -> &'static str {
    match ours {
        Severity::Critical | Severity::Major => "Immediate",
        Severity::Minor | Severity::Warning => "Expected",
        Severity::Indeterminate => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parts, read, references, text, values, write};
    use super::*;
    use citybrain_shared::case::Place;

    fn alarm() -> Alarm {
        let at = "2026-07-01T00:00:00.000001Z";
        serde_json::from_value(json!({
            "id": "0514b02ac59e300d", "origin": "c/s/m", "name": "smoke", "key": "厨房<3>", "severity": "critical",
            "title": "烟雾 厨房<3> & 7栋", "active": true, "acknowledged": false, "reach": "city",
            "raised_at": at, "first_raised_at": at, "raises": 1, "rev": 1,
        }))
        .unwrap()
    }

    fn meiyuan() -> Origin {
        Origin { name: "梅园社区".into(), code: Some("510115001044".into()) }
    }

    fn said(alarm: &Alarm, cap: &Cap) -> Message {
        said_of(alarm, cap, None)
    }

    fn said_of(alarm: &Alarm, cap: &Cap, of: Option<&Warned>) -> Message {
        let speaker = Speaker { cap, offset: FixedOffset::east_opt(8 * 3600).unwrap() };
        let message = speaker.message(alarm, &meiyuan(), of);
        let read = read::read(write::write(&message).as_bytes()).expect("what is written is CAP");
        assert_eq!(read, message, "and read again it is the same");
        message
    }

    #[test]
    fn an_alarm_is_an_alert_then_updates_then_a_cancel_and_each_names_those_before_it() {
        let mut a = alarm();
        let alert = said(&a, &Cap::default());
        assert_eq!((text(&alert, "msgType"), text(&alert, "references")), ("Alert", ""));
        assert_eq!(text(&alert, "sent"), "2026-07-01T08:00:00+08:00");
        assert_eq!(text(&alert, "sender"), "c/s/m@citybrain");
        assert_eq!((text(&alert, "scope"), text(&alert, "restriction")), ("Restricted", "official use"));
        // Acknowledged or not is nobody's business outside.
        a.acknowledged = true;
        assert_eq!(said(&a, &Cap::default()), alert);
        a.changed_at = vec!["2026-07-01T00:05:00Z".parse().unwrap()];
        a.severity = Severity::Major;
        let update = said(&a, &Cap::default());
        assert_eq!(text(&update, "msgType"), "Update");
        let key = |m: &Message| {
            super::super::key(text(m, "sender"), text(m, "identifier"), super::super::moment(text(m, "sent")).unwrap())
        };
        assert_eq!(references(text(&update, "references")).unwrap(), [key(&alert)]);
        (a.active, a.cleared_at) = (false, Some("2026-07-01T00:09:00Z".parse().unwrap()));
        let cancel = said(&a, &Cap::default());
        assert_eq!(text(&cancel, "msgType"), "Cancel");
        assert_eq!(references(text(&cancel, "references")).unwrap(), [key(&alert), key(&update)]);
        let info = parts(&cancel, "info").next().unwrap();
        assert_eq!((text(info, "urgency"), &info["responseType"]), ("Past", &json!(["AllClear"])));
        // Raised again it is another alert.
        (a.active, a.changed_at, a.raised_at) = (true, Vec::new(), "2026-07-01T01:00:00Z".parse().unwrap());
        let again = said(&a, &Cap::default());
        assert_eq!((text(&again, "msgType"), text(&again, "references")), ("Alert", ""));
        assert_ne!(text(&again, "identifier"), text(&alert, "identifier"));
    }

    #[test]
    fn the_alarm_of_a_warning_says_what_that_is_about_how_long_and_where() {
        let node = |address: &str| Address::parse(address).unwrap();
        let nodes = vec![(node("c/t"), Origin::default()), (node("c/s/m"), meiyuan())];
        let warned = Warned { event: "暴雨".into(), expires: "2026-07-01T06:00:00Z".parse().unwrap(), nodes };
        let m = said_of(&alarm(), &Cap::default(), Some(&warned));
        let info = parts(&m, "info").next().unwrap();
        assert_eq!((text(info, "event"), text(info, "expires")), ("暴雨", "2026-07-01T14:00:00+08:00"));
        let areas: Vec<_> = parts(info, "area").collect();
        assert_eq!(areas.iter().map(|area| text(area, "areaDesc")).collect::<Vec<_>>(), ["c/t", "梅园社区"]);
        assert_eq!(values(areas[1], "geocode", DIVISION).collect::<Vec<_>>(), ["510115001044"]);
        // Of no node that is known here, it is not of all of this one.
        let m = said_of(&alarm(), &Cap::default(), Some(&Warned { nodes: Vec::new(), ..warned }));
        assert_eq!(parts(parts(&m, "info").next().unwrap(), "area").count(), 0);
    }

    #[test]
    fn words_and_places_are_as_config_and_the_tree_have_them() {
        let mut a = alarm();
        a.place = Some(Place { text: String::new(), lat: Some(30.698), lon: Some(103.8368) });
        let fire = CapAlarm {
            name: "smo*".into(),
            category: Some("Fire".into()),
            event: Some("火灾".into()),
            certainty: Some("Likely".into()),
            response: vec!["Evacuate".into()],
            ..CapAlarm::default()
        };
        let cap = Cap { test: true, restriction: String::new(), alarm: vec![fire], ..Cap::default() };
        let m = said(&a, &cap);
        assert_eq!((text(&m, "status"), text(&m, "scope")), ("Test", "Public"));
        let info = parts(&m, "info").next().unwrap();
        let word = |name: &str| text(info, name).to_owned();
        assert_eq!(
            (word("language"), word("event"), word("certainty")),
            ("zh-CN".into(), "火灾".into(), "Likely".into())
        );
        assert_eq!((word("severity"), word("urgency")), ("Extreme".into(), "Immediate".into()));
        assert_eq!(word("headline"), "烟雾 厨房<3> & 7栋");
        let area = parts(info, "area").next().unwrap();
        assert_eq!((text(area, "areaDesc"), &area["circle"]), ("梅园社区", &json!(["30.698,103.8368 0"])));
        assert_eq!(values(area, "geocode", DIVISION).collect::<Vec<_>>(), ["510115001044"]);
        assert_eq!(values(area, "geocode", ADDRESS).collect::<Vec<_>>(), ["c/s/m"]);
        for s in Severity::ALL {
            assert_eq!(level(severity(s)), s, "what goes out comes in as the same");
        }
    }
}
