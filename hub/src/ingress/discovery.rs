//! What devices announce of themselves by Home Assistant's MQTT discovery, and what their messages say.
//!
//! An announcement is JSON on `PREFIX/COMPONENT/[NODE/]OBJECT/config`, or `PREFIX/device/ID/config` for
//! all parts of a device at once; an empty payload takes it back. Keys may be abbreviated, `~` stands
//! for a base topic. A message on an announced topic becomes one event with what all parts of that
//! device find in it, in the words of the presets (`docs/devices.md`).
//!
//! Deliberately absent: Jinja (a template may only lead to a value; a part with another is named and
//! left out), and what is no reading: switches, lights, covers and their like are not events.

use super::mapping::Body;
use citybrain_shared::address::Tier;
use citybrain_shared::config::Format;
use citybrain_shared::topic;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use xxhash_rust::xxh3::xxh3_64;

/// Parts of all devices that a node remembers: some 300 bytes each, 3 MB.
const PARTS_MAX: usize = 10_000;
/// Parts of one announcement: a large one of Zigbee2MQTT has some forty.
const PARTS_OF_ONE_MAX: usize = 200;
/// Characters of a name: of a device, a part, a unit.
const NAME_CHARS_MAX: usize = 120;
/// Parts of a value's path.
const PATH_MAX: usize = 8;

/// Words in a name, or of a press, that mean a call for help.
const SOS: [&str; 3] = ["sos", "panic", "emergency"];

/// All announcements that hold.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// By an announcement's topic: what it was, and the topics of its parts.
    told: BTreeMap<String, (u64, Vec<String>)>,
    /// By topic, in the order of the announcements' topics.
    parts: HashMap<String, Vec<Part>>,
    count: usize,
}

/// What one topic says of one device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// The announcement's topic.
    by: String,
    pub topic: String,
    /// What people call the device.
    pub device: String,
    /// Its member in the event's data, and the name that it has if another has that member.
    pub key: String,
    object: String,
    pub unit: String,
    what: What,
    is_sos: bool,
    /// Where the value stands; `None`: the whole payload as text.
    path: Option<Vec<String>>,
    reach: Option<Tier>,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Reading,
    Binary { on: String, off: String },
    Online { on: String, off: String },
    Press,
    Trigger { payload: Option<String>, says: String },
}

/// An event without its identity.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    pub kind: &'static str,
    pub subject: String,
    pub data: Value,
    pub urgent: bool,
    pub reach: Option<Tier>,
}

/// An announcement as it was read: its parts, and why others are left out.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    pub parts: Vec<Part>,
    pub left_out: Vec<String>,
}

impl Announced {
    /// Takes an announcement, a newer one, or its removal. `None`: nothing new.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn tell(
        &mut self,
        filter: &str,
        topic: &str,
        payload: &[u8],
        reach: Option<Tier>,
    ) -> Result<Option<Read>, String> {
        let hash = xxh3_64(payload);
        if self.told.get(topic).is_some_and(|(before, _)| *before == hash) {
            return Ok(None);
        }
        self.forget(topic);
        if payload.is_empty() {
            return Ok(None);
        }
        let mut read = read(filter, topic, payload, reach)?;
        let room = PARTS_MAX - self.count;
        if read.parts.len() > room {
            read.parts.truncate(room);
            read.left_out.push(format!("a node remembers {PARTS_MAX} parts of devices"));
        }
        self.count += read.parts.len();
        let topics = read.parts.iter().map(|p| p.topic.clone()).collect();
        self.told.insert(topic.to_owned(), (hash, topics));
        for part in &read.parts {
            let all = self.parts.entry(part.topic.clone()).or_default();
            all.insert(all.partition_point(|p| p.by <= part.by), part.clone());
        }
        Ok(Some(read))
    }

    fn forget(&mut self, topic: &str) {
        for of in self.told.remove(topic).into_iter().flat_map(|(_, topics)| topics) {
            let Some(all) = self.parts.get_mut(&of) else { continue };
            let before = all.len();
            all.retain(|p| p.by != topic);
            self.count -= before - all.len();
            if all.is_empty() {
                self.parts.remove(&of);
            }
        }
    }

    /// What a message on an announced topic says; `None`: nothing that was announced.
    pub(super) fn said(&self, topic: &str, body: &Body<'_>) -> Option<Said> {
        let mut found = self.parts.get(topic)?.iter().filter_map(|part| Some((part, part.value(body)?))).peekable();
        let (first, _) = found.peek()?;
        let (device, reach) = (first.device.as_str(), first.reach);
        let mut says = Saying::default();
        let mut is_of_one = true;
        for (part, value) in found {
            if part.device == device {
                says.add(part, value);
            } else {
                is_of_one &= !matches!(part.what, What::Online { .. });
            }
        }
        // A bridge speaks for all its devices.
        let subject = match topic.rsplit_once('/') {
            Some((bridge, _)) if !is_of_one => bridge,
            _ => device,
        };
        let (kind, urgent) = says.kind();
        Some(Said { kind, subject: subject.to_owned(), data: says.data(), urgent, reach })
    }
}

impl Part {
    fn value(&self, body: &Body<'_>) -> Option<Value> {
        let value = match &self.path {
            None => body.value(Format::Text).ok()?.into_owned(),
            Some(path) => {
                let json = body.value(Format::Json).ok()?;
                path.iter()
                    .try_fold(&*json, |v, step| match v {
                        Value::Array(all) => all.get(step.parse::<usize>().ok()?),
                        other => other.get(step),
                    })?
                    .clone()
            }
        };
        let text = spelled(&value);
        if value.is_null() || ["", "unavailable", "unknown", "None"].contains(&text.as_str()) {
            return None;
        }
        match &self.what {
            What::Reading => Some(value.as_str().and_then(|t| t.parse().ok()).map_or(value, Value::Number)),
            What::Binary { on, off } | What::Online { on, off } => {
                let is = |word: &str| text == *word || value.is_boolean() && text.eq_ignore_ascii_case(word);
                if is(on) { Some(true.into()) } else { is(off).then(|| false.into()) }
            }
            What::Press => {
                let said = body.value(Format::Json).ok().and_then(|v| v.get("event_type").cloned());
                Some(said.filter(Value::is_string).unwrap_or_else(|| text.into()))
            }
            What::Trigger { payload, says } => {
                payload.as_ref().is_none_or(|p| *p == text).then(|| says.as_str().into())
            }
        }
    }

    /// For people: where it stands, and what it becomes.
    pub(super) fn shown(&self) -> String {
        let at = self.path.iter().map(|path| format!(" at /{}", path.join("/"))).collect::<String>();
        let unit = if self.unit.is_empty() { String::new() } else { format!(" in {}", self.unit) };
        format!("{}: `{}`{at} is `{}`{unit}", self.device, self.topic, self.key)
    }
}

/// What one message says, while its parts are gone through.
#[derive(Default)]
struct Saying {
    data: Map<String, Value>,
    units: Map<String, Value>,
    sos: bool,
    press: bool,
}

impl Saying {
    fn add(&mut self, part: &Part, value: Value) {
        match &part.what {
            What::Binary { .. } => {
                self.sos |= part.is_sos && value == true;
                // Two ways to be poisoned, one alarm.
                let is_gas = part.key == "carbon_monoxide" || part.key == "gas";
                if is_gas && self.data.get("gas") != Some(&Value::Bool(true)) {
                    self.data.insert("gas".into(), value.clone());
                }
                if part.key == "gas" {
                    return;
                }
            }
            What::Press | What::Trigger { .. } => {
                self.press = true;
                self.sos |= part.is_sos || value.as_str().is_some_and(has_sos);
            }
            What::Reading | What::Online { .. } => {}
        }
        let key = if self.data.contains_key(&part.key) { &part.object } else { &part.key };
        if !part.unit.is_empty() {
            self.units.insert(key.clone(), part.unit.clone().into());
        }
        self.data.insert(key.clone(), value);
    }

    /// The type, and whether it is urgent: what is wrong goes before what is well.
    fn kind(&self) -> (&'static str, bool) {
        const HAZARDS: [(&str, &str); 3] = [
            ("smoke", "city.smoke.reading.v1"),
            ("gas", "city.gas.reading.v1"),
            ("water_leak", "city.leak.reading.v1"),
        ];
        let of = |wanted: bool| HAZARDS.iter().find(|(key, _)| self.data.get(*key) == Some(&Value::Bool(wanted)));
        if self.sos {
            return ("city.sos.pressed.v1", true);
        }
        if let Some((_, kind)) = of(true) {
            return (kind, true);
        }
        match of(false) {
            Some((_, kind)) => (kind, false),
            None if self.press => ("city.button.pressed.v1", false),
            None if self.data.len() == 1 && self.data.contains_key("online") => ("city.device.state.v1", false),
            None => ("city.sensor.reading.v1", false),
        }
    }

    fn data(mut self) -> Value {
        if !self.units.is_empty() {
            self.data.insert("units".into(), self.units.into());
        }
        self.data.into()
    }
}

/// Reads an announcement; `filter` says where the prefix ends.
fn read(filter: &str, topic: &str, payload: &[u8], reach: Option<Tier>) -> Result<Read, String> {
    let prefix = filter.split('/').take_while(|level| *level != "+").count();
    let levels: Vec<&str> = topic.split('/').skip(prefix).collect();
    // What nodes tell of themselves (`[homeassistant] discovery`) is nothing new.
    if levels.iter().any(|level| level.starts_with("citybrain_")) {
        return Ok(Read::default());
    }
    let (Some(component), Some(object)) = (levels.first(), levels.len().checked_sub(2).and_then(|at| levels.get(at)))
    else {
        return Err("its topic is not PREFIX/COMPONENT/OBJECT/config".into());
    };
    let json: Value = serde_json::from_slice(payload).map_err(|e| format!("it is not JSON: {e}"))?;
    let Value::Object(whole) = json else { return Err("it is no JSON object".into()) };
    let mut found = Read::default();
    let parts = get(&whole, "components", "cmps").and_then(Value::as_object);
    match parts {
        None => {
            let from = Announcement { by: topic, component, object, said: &whole, reach };
            from.parts(&mut found);
        }
        Some(parts) => {
            // What stands beside the parts holds for each of them.
            let beside = |(key, _): &(&String, &Value)| !["components", "cmps"].contains(&key.as_str());
            let common: Map<String, Value> =
                whole.iter().filter(beside).map(|(key, value)| (key.clone(), value.clone())).collect();
            for (name, part) in parts.iter().take(PARTS_OF_ONE_MAX) {
                // A part without more than its platform is one that is taken back.
                let Some(part) = part.as_object().filter(|p| p.len() > 1) else { continue };
                let Some(component) = get(part, "platform", "p").and_then(Value::as_str) else { continue };
                let mut said = common.clone();
                said.extend(part.clone());
                Announcement { by: topic, component, object: name, said: &said, reach }.parts(&mut found);
            }
            if parts.len() > PARTS_OF_ONE_MAX {
                found.left_out.push(format!("an announcement has at most {PARTS_OF_ONE_MAX} parts"));
            }
        }
    }
    // All parts of a device name the same availability.
    let mut seen = std::collections::BTreeSet::new();
    found.parts.retain(|p| !matches!(p.what, What::Online { .. }) || seen.insert(p.topic.clone()) || p.key != "online");
    Ok(found)
}

fn get<'v>(of: &'v Map<String, Value>, key: &str, short: &str) -> Option<&'v Value> {
    of.get(key).or_else(|| of.get(short))
}

struct Announcement<'a> {
    by: &'a str,
    component: &'a str,
    object: &'a str,
    said: &'a Map<String, Value>,
    reach: Option<Tier>,
}

impl Announcement<'_> {
    fn text(&self, key: &str, short: &str) -> Option<String> {
        get(self.said, key, short).filter(|v| !v.is_null()).map(spelled)
    }

    fn topic(&self, text: &str) -> String {
        let base = self.said.get("~").and_then(Value::as_str).unwrap_or_default();
        match (text.strip_prefix('~'), text.strip_suffix('~')) {
            (Some(rest), _) => format!("{base}{rest}"),
            (_, Some(rest)) => format!("{rest}{base}"),
            _ => text.to_owned(),
        }
    }

    fn device(&self) -> String {
        let device = get(self.said, "device", "dev").and_then(Value::as_object);
        let name = device.and_then(|d| {
            let id = get(d, "identifiers", "ids");
            let first = id.and_then(|v| v.as_array().map_or(Some(v), |all| all.first()));
            [d.get("name"), first].into_iter().flatten().filter_map(Value::as_str).find(|t| !t.trim().is_empty())
        });
        // One that names no device is called by its own name.
        let own = || self.said.get("name").and_then(Value::as_str).filter(|t| !t.trim().is_empty());
        short(name.or_else(own).unwrap_or(self.object))
    }

    fn parts(&self, found: &mut Read) {
        match self.state() {
            Ok(part) => found.parts.extend(part),
            Err(why) => found.left_out.push(format!("{}: {why}", self.object)),
        }
        match self.availability() {
            Ok(parts) => found.parts.extend(parts),
            Err(why) => found.left_out.push(format!("{}, availability: {why}", self.object)),
        }
    }

    /// The part itself; `None`: what is no reading.
    fn state(&self) -> Result<Option<Part>, String> {
        let word = |key, short, default: &str| self.text(key, short).unwrap_or_else(|| default.to_owned());
        let class = word("device_class", "dev_cla", "");
        let name = self.text("name", "name").unwrap_or_default();
        let object = member(self.object);
        let what = match self.component {
            "sensor" if object == "action" => What::Press,
            "sensor" => What::Reading,
            "binary_sensor" => {
                let (on, off) = (word("payload_on", "pl_on", "ON"), word("payload_off", "pl_off", "OFF"));
                if class == "connectivity" { What::Online { on, off } } else { What::Binary { on, off } }
            }
            "event" => What::Press,
            "device_automation" | "device_trigger" => {
                let says = match (word("type", "type", ""), word("subtype", "stype", "")) {
                    (kind, sub) if has_sos(&kind) || sub.is_empty() => kind,
                    (_, sub) => sub,
                };
                What::Trigger { payload: self.text("payload", "pl"), says }
            }
            _ => return Ok(None),
        };
        let is_trigger = matches!(what, What::Trigger { .. });
        let (key, short_key) = if is_trigger { ("topic", "t") } else { ("state_topic", "stat_t") };
        let Some(topic) = self.text(key, short_key).map(|t| self.topic(&t)) else {
            return Err(format!("it has no `{key}`"));
        };
        let template = self.text("value_template", "val_tpl").unwrap_or_default();
        // What an event is called stands in its payload, whatever a template picks beside it.
        let path = if self.component == "event" { None } else { path_of(&template)? };
        let is_press = matches!(what, What::Press | What::Trigger { .. });
        let key = match (&what, class.as_str()) {
            (What::Press | What::Trigger { .. }, _) => "event".to_owned(),
            (What::Online { .. }, _) => "online".to_owned(),
            (What::Binary { .. }, "moisture") => "water_leak".to_owned(),
            (What::Binary { .. }, "battery") => "battery_low".to_owned(),
            // A counter of gas is no leak of it.
            (What::Reading, "gas" | "smoke" | "water_leak") | (_, "") => object.clone(),
            (_, class) => member(class),
        };
        let device = self.device();
        let is_sos = has_sos(self.object) || has_sos(&name) || (is_press && has_sos(&device));
        let unit = short(&word("unit_of_measurement", "unit_of_meas", ""));
        self.part(
            topic,
            Part {
                by: self.by.to_owned(),
                topic: String::new(),
                device,
                key,
                object,
                unit,
                what,
                is_sos,
                path,
                reach: self.reach,
            },
        )
        .map(Some)
    }

    fn availability(&self) -> Result<Vec<Part>, String> {
        let word = |of: &Map<String, Value>, key, short, default: &str| {
            get(of, key, short).map_or_else(|| default.to_owned(), spelled)
        };
        let mut all = Vec::new();
        let mut add = |topic: String, of: &Map<String, Value>, template: String| -> Result<(), String> {
            let what = What::Online {
                on: word(of, "payload_available", "pl_avail", "online"),
                off: word(of, "payload_not_available", "pl_not_avail", "offline"),
            };
            let part = Part {
                by: self.by.to_owned(),
                topic: String::new(),
                device: self.device(),
                key: "online".into(),
                object: "online".into(),
                unit: String::new(),
                what,
                is_sos: false,
                path: path_of(&template)?,
                reach: self.reach,
            };
            all.push(self.part(self.topic(&topic), part)?);
            Ok(())
        };
        if let Some(topic) = self.text("availability_topic", "avty_t") {
            add(topic, self.said, self.text("availability_template", "avty_tpl").unwrap_or_default())?;
        }
        match get(self.said, "availability", "avty") {
            Some(Value::Array(list)) => {
                for of in list.iter().filter_map(Value::as_object).take(PATH_MAX) {
                    let topic = word(of, "topic", "t", "");
                    add(topic, of, word(of, "value_template", "val_tpl", ""))?;
                }
            }
            Some(Value::Object(of)) => add(word(of, "topic", "t", ""), of, word(of, "value_template", "val_tpl", ""))?,
            _ => {}
        }
        Ok(all)
    }

    fn part(&self, topic: String, part: Part) -> Result<Part, String> {
        topic::check_topic(&topic).map_err(|e| format!("`{topic}` is no topic: {e}"))?;
        let first = topic.split('/').next().unwrap_or_default();
        // What a node says itself, and what is an event already, is nobody's reading.
        if topic::OURS.contains(&first) || first == "in" || first.starts_with('$') {
            return Err(format!("`{topic}` is no topic of devices"));
        }
        Ok(Part { topic, ..part })
    }
}

/// A name as people wrote it, without what no event may have in its subject.
fn short(name: &str) -> String {
    name.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(NAME_CHARS_MAX).collect()
}

/// A name as a member of an event's data.
fn member(name: &str) -> String {
    let fits = |c: char| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    name.trim().chars().map(fits).take(NAME_CHARS_MAX).collect()
}

fn has_sos(name: &str) -> bool {
    name.split(|c: char| !c.is_alphanumeric()).any(|word| SOS.iter().any(|sos| word.eq_ignore_ascii_case(sos)))
}

/// A scalar as payloads have it: texts as they are, the rest as JSON.
fn spelled(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

/// Where a template leads: `{{ value_json.a['b'][0] | float }}`; `None`: the payload itself.
///
/// # Errors
/// What cannot be followed.
fn path_of(template: &str) -> Result<Option<Vec<String>>, String> {
    let wrong = || format!("`{template}` does more than lead to a value: `{{{{ value_json.a.b }}}}`");
    let text = template.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let inner = text.strip_prefix("{{").and_then(|t| t.strip_suffix("}}")).ok_or_else(wrong)?;
    let mut pieces = inner.trim_matches('-').split('|').map(str::trim);
    let value = pieces.next().unwrap_or_default();
    // None of these makes another value of one that is there.
    const HARMLESS: [&str; 7] = ["float", "int", "round", "default", "is_defined", "string", "trim"];
    if !pieces.all(|f| HARMLESS.contains(&f.split('(').next().unwrap_or_default().trim())) {
        return Err(wrong());
    }
    if value == "value" {
        return Ok(None);
    }
    let mut rest = value.strip_prefix("value_json").ok_or_else(wrong)?;
    let mut path = Vec::new();
    while !rest.is_empty() {
        let (step, after) = if let Some(named) = rest.strip_prefix('.') {
            let end = named.find(['.', '[']).unwrap_or(named.len());
            let (step, after) = named.split_at(end);
            (Some(step).filter(|s| s.chars().all(|c| c.is_alphanumeric() || c == '_')), after)
        } else {
            let (key, after) = rest.strip_prefix('[').and_then(|t| t.split_once(']')).ok_or_else(wrong)?;
            let quoted = |q: char| key.strip_prefix(q).and_then(|k| k.strip_suffix(q));
            let number = Some(key).filter(|k| k.chars().all(|c| c.is_ascii_digit()));
            (quoted('\'').or_else(|| quoted('"')).or(number), after)
        };
        path.push(step.filter(|s| !s.is_empty()).ok_or_else(wrong)?.to_owned());
        rest = after;
    }
    if path.len() > PATH_MAX { Err(wrong()) } else { Ok(Some(path)) }
}

#[cfg(test)]
mod tests;
