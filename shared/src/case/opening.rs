//! Which events open a case, and who may hear of them outside of the tree.

use crate::event::{Envelope, Priority};
use crate::words;
use serde::Deserialize;
use serde_json::Value;

/// An event of exactly this type opens a case where it enters.
pub const APPEAL: &str = "city.appeal";
/// An event of this type, or of one that goes on behind a dot (`city.sos.pressed.v1`), opens an incident.
pub const SOS: &str = "city.sos";

/// Is an event of this type a call for help? It is urgent, whatever else it says.
pub fn is_sos(kind: &str) -> bool {
    kind.strip_prefix(SOS).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Does an event of this type open a case, whatever its data says?
pub fn is_call(kind: &str) -> bool {
    kind == APPEAL || is_sos(kind)
}

/// Is this what nodes say to each other of their cases, with the people whom to call in it? Such events
/// are for no subscriber; what there is to know of a case comes as its steps.
pub fn is_letter(kind: &str) -> bool {
    let step = kind.strip_prefix("city.brain.case.").unwrap_or_default();
    matches!(step, "letter" | "contact" | "answered" | "forget" | "wanted" | "told" | "roll" | "present")
}

/// Does this member `sos` say that somebody calls for help? Devices write what is true in more than one way.
pub fn says_sos(sos: &Value) -> bool {
    match sos {
        Value::Bool(yes) => *yes,
        Value::Number(n) => n.as_f64() == Some(1.0),
        Value::String(text) => matches!(text.as_str(), "true" | "1"),
        _ => false,
    }
}

/// Does an event open a case? Those of the types above; and what is urgent and says so in its data
/// ([`says_sos`]), whatever its type, except the node's own. Whoever called may be named in it.
pub fn opens_case(kind: &str, is_urgent: bool, payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        sos: Value,
    }
    if is_call(kind) {
        return true;
    }
    // Only what has the word is read at all.
    is_urgent
        && !kind.starts_with(crate::event::OWN)
        && payload.windows(5).any(|w| w == b"\"sos\"")
        && serde_json::from_slice::<Event>(payload).is_ok_and(|e| says_sos(&e.data.sos))
}

/// An event that must be heard though not all of it is UTF-8: as a text, with what does not read marked in it. A device
/// with another encoding hears of no refusal, and whoever presses it hears of none at all. `None`: it is UTF-8, or
/// nothing hangs on it, and is what it is.
pub fn mended(event: &[u8]) -> Option<String> {
    words::utf8(event).err()?;
    Some(words::readable(event)).filter(|text| must_be_heard(text.as_bytes()))
}

/// Is this event, as it stands, urgent, or does it open a case?
pub fn must_be_heard(event: &[u8]) -> bool {
    Envelope::parse(event).is_ok_and(|read| read.priority() == Priority::Urgent || opens_case(&read.kind, false, event))
}

/// Who gets an event outside of the tree of nodes, a webhook's endpoint or the sink of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    Anybody,
    /// People say in it who and where they are: only who names exactly its type.
    ByName,
    /// What nodes say to each other of cases.
    Nobody,
}

/// The one rule for all that leaves the tree.
pub fn outside(kind: &str, is_urgent: bool, payload: &[u8]) -> Outside {
    let is_appeal = kind.strip_prefix(APPEAL).is_some_and(|rest| rest.starts_with('.'));
    if is_letter(kind) {
        Outside::Nobody
    } else if is_appeal || opens_case(kind, is_urgent, payload) {
        Outside::ByName
    } else {
        Outside::Anybody
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appeals_presses_and_urgent_events_that_say_so_open_cases() {
        for kind in ["city.appeal", "city.sos", "city.sos.pressed.v1"] {
            assert!(opens_case(kind, false, b"{}"), "{kind}");
        }
        for kind in ["city.sosx", "city.appeal.heating.v1", "city.brain.x"] {
            assert!(!opens_case(kind, true, b"{}"), "{kind}");
        }
        let (yes, no) = (["true", "1", "1.0", "\"true\"", "\"1\""], ["false", "0", "2", "\"yes\"", "null", "[1]"]);
        for (yes, says) in yes.map(|says| (true, says)).into_iter().chain(no.map(|says| (false, says))) {
            let payload = format!("{{\"data\":{{\"sos\":{says}}}}}");
            assert_eq!(opens_case("acme.button", true, payload.as_bytes()), yes, "{says}");
            assert!(!opens_case("acme.button", false, payload.as_bytes()), "not urgent");
        }
        assert!(mended(b"{}").is_none() && mended(b"\xff").is_none());
        assert!(is_letter("city.brain.case.letter") && !is_letter("city.brain.case.call"));
        assert!(!opens_case("city.brain.case.letter", true, b"{\"data\":{\"sos\":true}}"));
    }
}
