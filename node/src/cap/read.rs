//! CAP 1.2 from XML.
//!
//! Strict where a mistake would change what a warning says: every element that CAP demands, once, with
//! a value of its kind. Lenient where it would not: the order of the elements, elements of other
//! namespaces (a signature), attributes, comments. No entity but XML's own five and those by number is
//! known, so nothing is ever expanded.

use super::{ALERT, BYTES_MAX, Element, Holds, Message, NAMESPACE, Often, moment, references};
use citybrain_shared::case::is_on_earth;
use citybrain_shared::words::short;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;
use serde_json::{Map, Value};
use std::fmt;

/// CAP is four deep; whatever else is in it is passed over, to this depth.
const DEPTH_MAX: usize = 32;
/// Characters of a sender, and of an identifier.
const ID_MAX: usize = 255;

/// Why a text is no CAP message, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Both from 1; the column in characters.
    pub line: usize,
    pub column: usize,
    pub detail: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.detail)
    }
}

/// An element as it stands in the text; `at` is its first byte.
struct Node {
    name: String,
    at: usize,
    text: String,
    children: Vec<Node>,
}

/// What is wrong, at which byte.
type Wrong = (usize, String);

/// # Errors
/// [`Error`]: it is no XML, no CAP 1.2, or something in it is missing, twice or not of its kind.
pub fn read(bytes: &[u8]) -> Result<Message, Error> {
    if bytes.len() > BYTES_MAX {
        return Err(Error { line: 1, column: 1, detail: format!("a message may have {BYTES_MAX} bytes") });
    }
    let place = |text: &[u8], (at, detail): Wrong| {
        let before = String::from_utf8_lossy(&text[..at.min(text.len())]).into_owned();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Error { line, column, detail }
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|e| place(bytes, (e.valid_up_to(), "this is not UTF-8, and no other encoding is read".into())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tree = tree(text).map_err(|wrong| place(text.as_bytes(), wrong))?;
    let message = element(&tree, ALERT).and_then(|m| whole(&tree, m));
    message.map_err(|wrong| place(text.as_bytes(), wrong))
}

/// The elements of CAP's own namespace.
fn tree(text: &str) -> Result<Node, Wrong> {
    let mut reader = NsReader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Node> = Vec::new();
    let mut root: Option<Node> = None;
    // How deep in an element of another namespace.
    let mut foreign = 0usize;
    loop {
        let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let (space, event) = match reader.read_resolved_event() {
            Ok(both) => both,
            Err(e) => {
                let at = usize::try_from(reader.error_position()).unwrap_or(at);
                return Err((at, format!("this is no XML: {e}")));
            }
        };
        match event {
            Event::Decl(decl) => {
                let encoding = decl.encoding().and_then(Result::ok);
                if let Some(other) = encoding.filter(|e| !e.eq_ignore_ascii_case(b"utf-8")) {
                    let name = String::from_utf8_lossy(&other);
                    return Err((at, format!("the encoding `{}` is not read: write it in UTF-8", short(&name))));
                }
            }
            Event::DocType(_) => {
                return Err((at, "a document type is not taken, nor any entity of it: leave `<!DOCTYPE` out".into()));
            }
            Event::Start(start) => {
                if open.len() + foreign >= DEPTH_MAX {
                    return Err((at, format!("this is nested deeper than {DEPTH_MAX} elements")));
                }
                let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                let own = matches!(space, ResolveResult::Bound(ns) if ns.as_ref() == NAMESPACE.as_bytes());
                match (open.is_empty(), own) {
                    (true, _) if root.is_some() => return Err((at, "one message at a time: this is a second".into())),
                    (true, true) if name == "alert" => {}
                    (true, _) => {
                        let space = match space {
                            ResolveResult::Bound(ns) => short(&String::from_utf8_lossy(ns.as_ref())).to_owned(),
                            _ => "none".into(),
                        };
                        let detail = format!(
                            "this is `{}` of the namespace `{space}`; CAP 1.2 is `alert` of `{NAMESPACE}`",
                            short(&name)
                        );
                        return Err((at, detail));
                    }
                    (false, true) if foreign == 0 => {}
                    (false, _) => {
                        foreign += 1;
                        continue;
                    }
                }
                open.push(Node { name, at, text: String::new(), children: Vec::new() });
            }
            Event::End(_) if foreign > 0 => foreign -= 1,
            Event::End(_) => {
                let Some(done) = open.pop() else { continue };
                match open.last_mut() {
                    Some(parent) => parent.children.push(done),
                    None => root = Some(done),
                }
            }
            Event::Text(words) => {
                let words = words.decode().map_err(|e| (at, format!("this is no text: {e}")))?;
                said(&mut open, foreign, at, &words)?;
            }
            Event::CData(words) => {
                let words = words.decode().map_err(|e| (at, format!("this is no text: {e}")))?;
                said(&mut open, foreign, at, &words)?;
            }
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|e| (at, format!("this is no text: {e}")))?;
                let by_number = reference.resolve_char_ref().map_err(|e| (at, format!("`&{}`: {e}", short(&name))))?;
                let known = by_number.map(String::from);
                match known.or_else(|| resolve_predefined_entity(&name).map(str::to_owned)) {
                    Some(words) => said(&mut open, foreign, at, &words)?,
                    None => {
                        let detail = format!("`&{};` stands for nothing: no entities are expanded", short(&name));
                        return Err((at, detail));
                    }
                }
            }
            Event::Eof => break,
            Event::Empty(_) | Event::Comment(_) | Event::PI(_) => {}
        }
    }
    if let Some(left) = open.last() {
        return Err((left.at, format!("`{}` does not end", short(&left.name))));
    }
    root.ok_or_else(|| (text.len(), "there is no element: CAP 1.2 is an `alert`".to_owned()))
}

fn said(open: &mut [Node], foreign: usize, at: usize, words: &str) -> Result<(), Wrong> {
    // XML 1.0, section 2.2; its reader lets them pass.
    let is_none = |c: char| c < ' ' && !['\t', '\n', '\r'].contains(&c) || ['\u{fffe}', '\u{ffff}'].contains(&c);
    if let Some(c) = words.chars().find(|c| is_none(*c)) {
        return Err((at, format!("XML has no character U+{:04X}", u32::from(c))));
    }
    match open.last_mut() {
        Some(node) if foreign == 0 => node.text.push_str(words),
        None if !words.trim().is_empty() => return Err((at, "there is text outside of `alert`".into())),
        _ => {}
    }
    Ok(())
}

/// An element's parts, by the table.
fn element(node: &Node, table: &[Element]) -> Result<Map<String, Value>, Wrong> {
    if !node.text.trim().is_empty() {
        return Err((node.at, format!("`{}` holds elements and no text", node.name)));
    }
    let mut found = Map::new();
    for child in &node.children {
        let Some(known) = table.iter().find(|e| e.name == child.name) else {
            return Err((child.at, format!("CAP knows no `{}` in `{}`", short(&child.name), node.name)));
        };
        let value = match known.holds {
            Holds::Parts(table) => Value::Object(element(child, table)?),
            holds => Value::String(value(child, holds)?),
        };
        let is_many = matches!(known.often, Often::AnyNumber | Often::AtLeastOnce);
        match found.get_mut(known.name) {
            Some(Value::Array(all)) => all.push(value),
            Some(_) => return Err((child.at, format!("`{}` stands in `{}` twice", child.name, node.name))),
            None => {
                found.insert(known.name.to_owned(), if is_many { Value::Array(vec![value]) } else { value });
            }
        }
    }
    let needed = |e: &&Element| matches!(e.often, Often::Once | Often::AtLeastOnce) && !found.contains_key(e.name);
    match table.iter().find(needed) {
        Some(missing) => Err((node.at, format!("`{}` is missing in `{}`", missing.name, node.name))),
        None => Ok(found),
    }
}

fn value(node: &Node, holds: Holds) -> Result<String, Wrong> {
    if let Some(child) = node.children.first() {
        return Err((child.at, format!("`{}` holds a text and no elements", node.name)));
    }
    let text = node.text.trim();
    let wrong = |detail: String| Err((node.at, format!("`{}`: {detail}", node.name)));
    match holds {
        Holds::Id if text.is_empty() => return wrong("it is empty".into()),
        Holds::Id if text.contains(|c: char| c.is_whitespace() || c.is_control() || [',', '<', '&'].contains(&c)) => {
            return wrong(format!("`{}` has a space, a comma, `<` or `&`, and CAP allows none", short(text)));
        }
        Holds::Id if text.chars().count() > ID_MAX => return wrong(format!("it is longer than {ID_MAX} characters")),
        Holds::Word(words) if !words.contains(&text) => {
            return wrong(format!("`{}` is none of {}", short(text), words.join(", ")));
        }
        Holds::Time => drop(moment(text).map_err(|why| (node.at, format!("`{}`: {why}", node.name)))?),
        Holds::References => drop(references(text).map_err(|why| (node.at, format!("`{}`: {why}", node.name)))?),
        Holds::Polygon => {
            let points: Vec<Option<(f64, f64)>> = text.split_whitespace().map(point).collect();
            if points.iter().any(Option::is_none) {
                return wrong("its points are `lat,lon`, in degrees, with spaces between them".into());
            }
            if points.len() < 4 || points.first() != points.last() {
                return wrong("it has at least four points, and the last is the first".into());
            }
        }
        Holds::Circle => {
            let (centre, radius) = text.split_once(' ').unwrap_or_default();
            let radius = radius.trim().parse::<f64>().ok().filter(|r| (0.0..=20_100.0).contains(r));
            if point(centre).is_none() || radius.is_none() {
                return wrong(format!("`{}` is no circle: write `lat,lon radius`, in degrees and km", short(text)));
            }
        }
        _ => {}
    }
    Ok(text.to_owned())
}

/// `lat,lon`
pub fn point(text: &str) -> Option<(f64, f64)> {
    let (lat, lon) = text.split_once(',')?;
    let (lat, lon) = (lat.parse::<f64>().ok()?, lon.parse::<f64>().ok()?);
    is_on_earth(lat, lon).then_some((lat, lon))
}

/// What one element demands of another.
fn whole(root: &Node, message: Message) -> Result<Message, Wrong> {
    let say = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default();
    let needed = match (say("msgType"), say("scope")) {
        ("Update" | "Cancel" | "Ack" | "Error", _) if say("references").is_empty() => "references",
        (_, "Restricted") if say("restriction").is_empty() => "restriction",
        (_, "Private") if say("addresses").is_empty() => "addresses",
        // What an alert is about, and where, stands in it. CAP 1.2 lets it be missing everywhere: systems ask each
        // other with less (`System`) whether they are there.
        ("Alert" | "Update", _) if say("status") == "Actual" && !message.contains_key("info") => "info",
        _ => return Ok(message),
    };
    let why = format!("`{needed}` is missing: msgType {} and scope {} demand it", say("msgType"), say("scope"));
    Err((root.at, why))
}

#[cfg(test)]
mod tests {
    use super::super::{parts, text, values, write};
    use super::*;
    use proptest::prelude::*;

    /// As a weather bureau's gateway would send it.
    pub const STORM: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<cap:alert xmlns:cap="urn:oasis:names:tc:emergency:cap:1.2">
  <cap:identifier>CD-MET-2026-0701-3</cap:identifier>
  <cap:sender>eoc@met.example</cap:sender>
  <cap:sent>2026-07-01T08:00:00+08:00</cap:sent>
  <cap:status>Actual</cap:status>
  <cap:msgType>Alert</cap:msgType>
  <cap:scope>Public</cap:scope>
  <!-- orange -->
  <cap:info>
    <cap:language>en-US</cap:language><cap:category>Met</cap:category><cap:event>Rainstorm</cap:event>
    <cap:urgency>Immediate</cap:urgency><cap:severity>Severe</cap:severity><cap:certainty>Likely</cap:certainty>
    <cap:area><cap:areaDesc>Liucheng</cap:areaDesc></cap:area>
  </cap:info>
  <cap:info>
    <cap:language>zh-CN</cap:language>
    <cap:category>Met</cap:category>
    <cap:category>Safety</cap:category>
    <cap:event>暴雨</cap:event>
    <cap:responseType>Shelter</cap:responseType>
    <cap:urgency>Immediate</cap:urgency>
    <cap:severity>Severe</cap:severity>
    <cap:certainty>Likely</cap:certainty>
    <cap:expires>2026-07-01T20:00:00+08:00</cap:expires>
    <cap:headline>暴雨橙色预警 &amp; 内涝 &#x26A0;</cap:headline>
    <cap:description><![CDATA[三小时 > 50 毫米]]></cap:description>
    <cap:parameter><cap:valueName>colour</cap:valueName><cap:value>橙</cap:value></cap:parameter>
    <cap:area>
      <cap:areaDesc>柳城街道</cap:areaDesc>
      <cap:polygon>30.6,103.8 30.7,103.8 30.7,103.9 30.6,103.8</cap:polygon>
      <cap:circle>30.65,103.85 2.5</cap:circle>
      <cap:geocode><cap:valueName>CN-STAT-12</cap:valueName><cap:value>510115001000</cap:value></cap:geocode>
      <cap:geocode><cap:valueName>CN-STAT-12</cap:valueName><cap:value>510115002000</cap:value></cap:geocode>
    </cap:area>
  </cap:info>
  <ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo><x>1</x></ds:SignedInfo></ds:Signature>
</cap:alert>
"#;

    const SMALLEST: &str = r#"<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2"><identifier>1</identifier><sender>a@b</sender><sent>2026-07-01T08:00:00+08:00</sent><status>Exercise</status><msgType>Alert</msgType><scope>Public</scope><info><category>Met</category><event>暴雨</event><urgency>Immediate</urgency><severity>Severe</severity><certainty>Likely</certainty></info></alert>"#;

    fn why(xml: &str) -> String {
        read(xml.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_real_message_is_read_whole() {
        let m = read(STORM.as_bytes()).unwrap();
        assert_eq!((text(&m, "identifier"), text(&m, "msgType")), ("CD-MET-2026-0701-3", "Alert"));
        let info = parts(&m, "info").nth(1).unwrap();
        assert_eq!(info["category"], serde_json::json!(["Met", "Safety"]));
        assert_eq!(text(info, "headline"), "暴雨橙色预警 & 内涝 ⚠");
        assert_eq!(text(info, "description"), "三小时 > 50 毫米");
        let area = parts(info, "area").next().unwrap();
        assert_eq!(values(area, "geocode", "CN-STAT-12").collect::<Vec<_>>(), ["510115001000", "510115002000"]);
        assert_eq!(values(info, "parameter", "colour").collect::<Vec<_>>(), ["橙"]);
        // Written and read again it is the same.
        assert_eq!(read(write::write(&m).as_bytes()).unwrap(), m);
    }

    #[test]
    fn a_heartbeat_has_no_info_and_a_warning_has() {
        let from = SMALLEST.find("<info>").unwrap();
        let empty = format!("{}</alert>", &SMALLEST[..from]);
        assert!(read(empty.as_bytes()).is_ok());
        assert!(read(empty.replace("Exercise", "System").as_bytes()).is_ok());
        assert!(why(&empty.replace("Exercise", "Actual")).contains("`info` is missing"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        assert_eq!(
            why(&SMALLEST.replace("<scope>Public</scope>", "")),
            "line 1, column 1: `scope` is missing in `alert`"
        );
        let told = why(&STORM.replace("<cap:status>Actual<", "<cap:status>Real<"));
        assert_eq!(told, "line 6, column 3: `status`: `Real` is none of Actual, Exercise, System, Test, Draft");
        for (from, to, wanted) in [
            ("08:00:00+08:00", "00:00:00Z", "with an offset, no `Z`"),
            ("<identifier>1<", "<identifier>a b<", "a space, a comma"),
            ("<identifier>1<", "<identifier><", "it is empty"),
            ("<msgType>Alert<", "<msgType>Update<", "`references` is missing"),
            ("<scope>Public<", "<scope>Private<", "`addresses` is missing"),
            ("<scope>Public<", "<scope>Restricted<", "`restriction` is missing"),
            ("<sender>a@b</sender>", "<sender>a@b</sender><sender>a@c</sender>", "`sender` stands in `alert` twice"),
            ("<event>暴雨</event>", "<event><b/></event>", "holds a text and no elements"),
            ("<event>暴雨</event>", "<event>暴雨</event><colour>red</colour>", "CAP knows no `colour` in `info`"),
            ("<info>", "<info>words", "`info` holds elements and no text"),
            ("cap:1.2", "cap:1.1", "of the namespace `urn:oasis:names:tc:emergency:cap:1.1`"),
            ("<info>", "<references>a,b</references><info>", "is no reference"),
            ("</info>", "<area><areaDesc>x</areaDesc><circle>1,2</circle></area></info>", "is no circle"),
            ("</info>", "<area><areaDesc>x</areaDesc><polygon>1,2 3,4 1,2</polygon></area></info>", "at least four"),
            ("</info>", "<area><areaDesc>x</areaDesc><polygon>91,2 3,4 1,2 91,2</polygon></area></info>", "in degrees"),
            ("</alert>", "</alert><alert/>", "this is a second"),
            ("</alert>", "", "`alert` does not end"),
            ("</info>", "</inf>", "this is no XML"),
            ("暴雨", "&rain;", "`&rain;` stands for nothing"),
            ("暴雨", "\u{1}", "XML has no character U+0001"),
            ("暴雨", "&#x1b;", "XML has no character U+001B"),
            ("<identifier>1<", "<identifier>1\u{7f}<", "CAP allows none"),
            ("暴雨", "&#xFFFFFFFF;", "`&#xFFFFFFFF`"),
            (
                "<alert ",
                "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><alert ",
                "a document type is not taken",
            ),
            ("<alert ", "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><alert ", "write it in UTF-8"),
        ] {
            assert!(SMALLEST.contains(from), "{from}");
            let told = why(&SMALLEST.replacen(from, to, 1));
            assert!(told.contains(wanted), "{from} → {to}\n  said: {told}\n  want: {wanted}");
        }
        assert!(why("").contains("there is no element") && why("{}").contains("text outside"));
        assert!(why(&"<a>".repeat(100)).contains("of the namespace `none`"));
        let deep = format!("<alert xmlns=\"{NAMESPACE}\">{}", "<x xmlns=\"u\">".repeat(100));
        assert!(why(&deep).contains("nested deeper than 32"), "{}", why(&deep));
        assert!(read(&[b'<', 0xff]).unwrap_err().to_string().contains("column 2: this is not UTF-8"));
        assert!(why(&" ".repeat(BYTES_MAX + 1)).contains("may have 98304 bytes"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_message_with_anything_changed_is_read_or_refused(at in 0..1400usize, what in "[<>&;/a-z\"\\u{0}\\u{ffff} ]{0,3}") {
            let mut text = STORM.to_owned();
            let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            text.insert_str(at, &what);
            let _ = read(text.as_bytes());
        }
    }
}
