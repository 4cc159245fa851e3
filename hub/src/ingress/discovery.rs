//! What devices announce of themselves by Home Assistant's MQTT discovery, and what their messages say.
//!
//! An announcement is JSON on `PREFIX/COMPONENT/[NODE/]OBJECT/config`, or `PREFIX/device/ID/config` for
//! all parts of a device at once; an empty payload takes it back. Keys may be abbreviated, `~` stands
//! for a base topic. A message on an announced topic becomes one event with what all parts of that
//! device find in it, in the words of the presets (`docs/devices.md`).
//!
//! Deliberately absent: what only Home Assistant's own templates know (`states()`; a part with such a one is named and
//! left out), and what is no reading: switches, lights, covers and their like are not events.

pub(super) mod template;

use super::mapping::Body;
use crate::note::reason::UNREAD_ALARM;
use citybrain_shared::address::Tier;
use citybrain_shared::config::Format;
use citybrain_shared::danger::{self, Danger, Told};
use citybrain_shared::{battery, topic, words};
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use template::{PATH_MAX, Way, Word};
use xxhash_rust::xxh3::xxh3_64;

/// Parts of all devices that a node remembers: some 300 bytes each, 3 MB.
const PARTS_MAX: usize = 10_000;
/// Parts of one announcement: a large one of Zigbee2MQTT has some forty.
const PARTS_OF_ONE_MAX: usize = 200;
/// Characters of a name: of a device, a part, a unit.
const NAME_CHARS_MAX: usize = 120;
/// Characters of a subject that names several.
const SUBJECT_CHARS_MAX: usize = 240;
/// Lost parts that a dead letter names.
const LOST_NAMED_MAX: usize = 5;
/// Characters of the templates of all parts that compute: some 100 bytes of memory each, 10 MB.
const TEMPLATES_CHARS_MAX: usize = 100_000;
/// The member that says whether a device is there, and the one that says which of its sensors does.
const ONLINE: &str = "online";
const TOLD_BY: &str = "told_by";
/// The member that says, of several devices, whose battery it is.
const BATTERY_OF: &str = "battery_of";

/// Words in a name, or of a press, that mean a call for help.
const SOS: [&str; 3] = ["sos", "panic", "emergency"];

/// Classes of a binary sensor that tells how the device itself is: that of a button for help is no call.
const OF_ITSELF: [&str; 7] = ["battery", "battery_charging", "connectivity", "plug", "power", "tamper", "update"];

/// Events that an announcement lists; what lists more may send any.
const EVENT_TYPES_MAX: usize = 50;

/// All announcements that hold.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// By an announcement's topic: what it was, and the topics of its parts.
    told: BTreeMap<String, (u64, Vec<String>)>,
    /// By topic, in the order of the announcements' topics.
    parts: HashMap<String, Vec<Part>>,
    /// Topics on which something has announced itself since they were heard, and whether a second has gone by.
    pub unheard: BTreeMap<String, bool>,
    count: usize,
    /// Characters of their templates.
    chars: usize,
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
    way: Way,
    reach: Option<Tier>,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Reading,
    Binary {
        on: String,
        off: String,
    },
    Online {
        on: String,
        off: String,
    },
    Press {
        of: Presses,
    },
    Trigger {
        payload: Option<String>,
        says: String,
    },
    /// It says whether there is a danger, or somebody calls, but by a template that cannot be followed.
    Lost {
        why: String,
    },
}

/// Where the name of a press stands.
#[derive(Clone, Debug, PartialEq)]
enum Presses {
    /// It is what the topic says, or what the template leads to.
    State,
    /// It is an `event_type`: one of these, or any if none is listed.
    Events(Vec<String>),
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

/// What is heard in a message on an announced topic.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// `None`: nothing that was announced.
    pub said: Option<Said>,
    /// Why not all of it may pass for calm: all look into JSON, and it is none; or a part that warns says what nobody
    /// can read. The reason of a dead letter, and its words.
    pub unread: Option<(&'static str, String)>,
}

/// What one part finds in a message.
struct Look {
    value: Option<Value>,
    /// Why nobody can say whether it warns.
    unread: Option<String>,
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
        if payload.is_empty() {
            self.forget(topic);
            return Ok(None);
        }
        let mut read = read(filter, topic, payload, reach)?;
        self.forget(topic);
        let room = PARTS_MAX - self.count;
        if read.parts.len() > room {
            read.parts.truncate(room);
            read.left_out.push(format!("a node remembers {PARTS_MAX} parts of devices"));
        }
        read.parts = std::mem::take(&mut read.parts)
            .into_iter()
            .filter_map(|part| self.remembered(part, &mut read.left_out))
            .collect();
        self.count += read.parts.len();
        let topics = read.parts.iter().map(|p| p.topic.clone()).collect();
        self.told.insert(topic.to_owned(), (hash, topics));
        self.unheard.extend(read.parts.iter().map(|part| (part.topic.clone(), false)));
        for part in &read.parts {
            let all = self.parts.entry(part.topic.clone()).or_default();
            all.insert(all.partition_point(|p| p.by <= part.by), part.clone());
        }
        Ok(Some(read))
    }

    /// A part with its template, if there is room for that.
    fn remembered(&mut self, part: Part, left_out: &mut Vec<String>) -> Option<Part> {
        if self.chars + part.way.chars() > TEMPLATES_CHARS_MAX {
            let why = format!("a node remembers {TEMPLATES_CHARS_MAX} characters of templates");
            left_out.push(format!("{}: {why}", part.object));
            return part.lost(why);
        }
        self.chars += part.way.chars();
        Some(part)
    }

    fn forget(&mut self, topic: &str) {
        for of in self.told.remove(topic).into_iter().flat_map(|(_, topics)| topics) {
            let Some(all) = self.parts.get_mut(&of) else { continue };
            let before = all.len();
            self.chars -= all.iter().filter(|p| p.by == topic).map(|p| p.way.chars()).sum::<usize>();
            all.retain(|p| p.by != topic);
            self.count -= before - all.len();
            if all.is_empty() {
                self.parts.remove(&of);
                self.unheard.remove(&of);
            }
        }
    }

    /// Does any part of a device speak on that topic?
    pub(super) fn is_told_on(&self, topic: &str) -> bool {
        self.parts.contains_key(topic)
    }

    /// What of the announcement on that topic may warn or call for help and cannot be followed.
    pub(super) fn lost(&self, topic: &str) -> Option<String> {
        let (_, topics) = self.told.get(topic)?;
        let all = topics.iter().collect::<BTreeSet<_>>();
        let parts = all.into_iter().filter_map(|of| self.parts.get(of)).flatten().filter(|part| part.by == topic);
        let lost: Vec<String> = parts.filter_map(Part::lost_for).collect();
        let (named, others) = lost.split_at(lost.len().min(LOST_NAMED_MAX));
        let others = (!others.is_empty()).then(|| format!("and {} more", others.len()));
        (!named.is_empty()).then(|| named.iter().cloned().chain(others).collect::<Vec<_>>().join("; "))
    }

    /// What a message on that topic says; nothing where nobody has announced it.
    pub(super) fn heard(&self, topic: &str, body: &Body<'_>) -> Heard {
        let Some(all) = self.parts.get(topic) else { return Heard::default() };
        let (mut found, mut unread) = (Vec::new(), Vec::new());
        for part in all {
            let Look { value, unread: why } = part.look(body);
            found.extend(value.map(|value| (part, value)));
            unread.extend(why.map(|why| (part, why)));
        }
        let said = said(topic, all, found);
        let wants_json = all.iter().all(|part| part.way.wants_json());
        let is_none = body.value(Format::Json).err().filter(|_| wants_json && !body.is_empty());
        let unread = match is_none {
            Some((_, wanted)) => {
                let looks = "what announced itself on this topic looks into a JSON payload there";
                Some(("not-json", format!("{looks}: it should be {wanted}")))
            }
            None => {
                // Where another part has read it, only a value of its own is that part's word.
                let is_its = |part: &Part| said.is_none() || part.way.wants_json();
                unread.into_iter().find(|(part, _)| is_its(part)).map(|(_, why)| (UNREAD_ALARM, why))
            }
        };
        Heard { said, unread }
    }
}

/// What the parts on a topic of which `all` speak there have found in a message; `None`: nothing.
fn said(topic: &str, all: &[Part], found: Vec<(&Part, Value)>) -> Option<Said> {
    let first = found.first()?.0;
    let online = found.iter().map(|(part, _)| *part).find(|part| matches!(part.what, What::Online { .. }));
    let (mut is_of_one, mut says): (bool, Vec<Saying>) = (true, Vec::new());
    for (part, value) in found {
        // A bridge speaks for all its devices, and of them but once.
        let is_online = matches!(part.what, What::Online { .. });
        if is_online && online.is_some_and(|first| first.device != part.device) {
            is_of_one = false;
            continue;
        }
        let at = says.iter().position(|one| one.device == part.device).unwrap_or_else(|| {
            says.push(Saying::of(&part.device, all));
            says.len() - 1
        });
        says[at].add(part, value);
    }
    says.iter_mut().for_each(|one| battery::read(&mut one.data));
    let said = Together(says);
    let subject = match topic.rsplit_once('/') {
        Some((bridge, _)) if !is_of_one && said.0.len() == 1 => bridge.to_owned(),
        _ => said.subject(),
    };
    let (kind, urgent) = said.kind();
    Some(Said { kind, subject, data: said.data(), urgent, reach: first.reach })
}

impl Part {
    fn look(&self, body: &Body<'_>) -> Look {
        if let Some(why) = self.lost_for() {
            return Look { value: None, unread: (!body.is_empty()).then_some(why) };
        }
        let word = self.way.look(body);
        let value = self.value(word.as_ref().ok().and_then(Option::as_ref), body);
        let unread = match &word {
            Err(why) => self.matters().then(|| format!("{}: {why}", self.shown())),
            Ok(Some(word)) if word.is_certain && self.warns() && value.is_none() => {
                let text = word.value.to_string();
                let shown = words::short(&text);
                Some(format!("{} says neither that it is so nor that it is not: {shown}", self.shown()))
            }
            Ok(_) => None,
        };
        Look { value, unread }
    }

    /// `word`: what stands where its template leads.
    fn value(&self, word: Option<&Word>, body: &Body<'_>) -> Option<Value> {
        match &self.what {
            What::Reading => {
                let Word { value, .. } = word.filter(|word| word.is_certain)?;
                Some(value.as_str().and_then(|t| t.parse().ok()).map_or_else(|| value.clone(), Value::Number))
            }
            What::Binary { on, off } | What::Online { on, off } => {
                let Word { value, text, is_certain } = word?;
                let is = |word: &str| text == word || value.is_boolean() && text.eq_ignore_ascii_case(word);
                let exactly = if is(on) { Some(true) } else { is(off).then_some(false) };
                let is_so = exactly.or_else(|| self.warns().then(|| meant(on, off, value, text))?)?;
                // What is not there may be no yes, and ends no alarm.
                (*is_certain || is_so && self.warns()).then_some(is_so.into())
            }
            What::Lost { .. } => None,
            What::Press { of } => self.press(of, word, body).map(Value::from),
            What::Trigger { payload, says } => {
                let Word { text, .. } = word?;
                payload.as_ref().is_none_or(|p| p == text).then(|| says.as_str().into())
            }
        }
    }

    /// Does it say whether there is a danger, or whether somebody calls?
    fn warns(&self) -> bool {
        matches!(self.what, What::Binary { .. }) && self.matters()
    }

    /// May it tell of a danger, or of a call for help?
    fn matters(&self) -> bool {
        match &self.what {
            What::Binary { .. } => self.is_sos || self.danger().is_some(),
            What::Press { of: Presses::Events(names) } => self.is_sos || names.iter().any(|name| has_sos(name)),
            What::Press { of: Presses::State } => self.is_sos,
            What::Trigger { says, .. } => self.is_sos || has_sos(says),
            What::Reading | What::Online { .. } | What::Lost { .. } => false,
        }
    }

    /// It, if it may not pass for calm, as one that cannot be followed.
    fn lost(self, why: String) -> Option<Part> {
        self.matters().then(|| Part { what: What::Lost { why }, way: Way::Whole, ..self })
    }

    /// What was pressed. A topic may carry more than presses: an `event_type` is one, and a word where none but
    /// a press's can stand.
    fn press(&self, of: &Presses, told: Option<&Word>, body: &Body<'_>) -> Option<String> {
        let (is_word, names) = match of {
            Presses::State => (true, &[][..]),
            Presses::Events(names) => (self.way.wants_json() || !names.is_empty(), names.as_slice()),
        };
        let event_type = |v: &Value| v.get("event_type").and_then(Value::as_str).map(str::to_owned);
        let there = told.and_then(|word| event_type(&word.value));
        let of_payload = || body.value(Format::Json).ok().and_then(|whole| event_type(&whole));
        let word = || {
            let is_meant = |text: &&String| is_word && !text.starts_with(['{', '[']);
            let certain = told.filter(|word| word.is_certain || has_sos(&word.text));
            certain.map(|word| &word.text).filter(is_meant).cloned()
        };
        let said = there.or_else(of_payload).or_else(word)?;
        (names.is_empty() || names.contains(&said)).then_some(said)
    }

    /// Which danger it tells of.
    fn danger(&self) -> Option<Danger> {
        dangerous(&self.key).filter(|_| matches!(self.what, What::Binary { .. }))
    }

    /// Is it left out, but not to be passed over?
    pub(super) fn is_lost(&self) -> bool {
        self.lost_for().is_some()
    }

    /// Why, if it is.
    fn lost_for(&self) -> Option<String> {
        let What::Lost { why } = &self.what else { return None };
        Some(format!("{}: {why}", self.shown()))
    }

    /// For people: where it stands, and what it becomes.
    pub(super) fn shown(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" in {}", self.unit) };
        format!("{}: `{}`{} is `{}`{unit}", self.device, self.topic, self.way, self.key)
    }
}

/// What one message says of one device, while its parts are gone through.
#[derive(Default)]
struct Saying<'p> {
    device: &'p str,
    data: Map<String, Value>,
    units: Map<String, Value>,
    dangers: BTreeMap<Danger, bool>,
    /// All its parts on the topic that tell of a danger, and those of them that say something.
    zones: Vec<&'p Part>,
    spoke: Vec<&'p Part>,
    sos: bool,
    press: bool,
    /// The sensor that says whether it is online.
    told_by: Option<&'p str>,
}

impl<'p> Saying<'p> {
    /// Of this device, which has some of the topic's parts.
    fn of(device: &'p str, all: &'p [Part]) -> Saying<'p> {
        let zones = all.iter().filter(|part| part.device == device && part.danger().is_some()).collect();
        Saying { device, zones, ..Saying::default() }
    }

    /// Who says it. Where only some of a device's zones speak, it is their word alone: it is about them, and ends
    /// no alarm of another.
    fn who(&self) -> String {
        let is_alone = |zone: &&&Part| {
            let of = |zones: &[&Part]| zones.iter().filter(|z| z.danger() == zone.danger()).count();
            of(&self.zones) != of(&self.spoke)
        };
        let is_one = |zone: &Part| self.zones.iter().filter(|z| z.object == zone.object).count() == 1;
        // Where another is called the same, with its announcement.
        let at = |zone: &Part| format!("{}/{}", zone.by.strip_suffix("/config").unwrap_or(&zone.by), zone.object);
        let name = |zone: &&Part| if is_one(zone) { zone.object.clone() } else { at(zone) };
        let alone = self.spoke.iter().filter(is_alone).map(name);
        std::iter::once(self.device.to_owned()).chain(alone).collect::<Vec<_>>().join(" ")
    }

    fn add(&mut self, part: &'p Part, value: Value) {
        match &part.what {
            What::Binary { .. } => self.sos |= part.is_sos && value == true,
            What::Press { .. } | What::Trigger { .. } => {
                self.press = true;
                self.sos |= part.is_sos || value.as_str().is_some_and(has_sos);
            }
            What::Reading | What::Online { .. } | What::Lost { .. } => {}
        }
        // Of several parts of a class, as of the zones of a panel, each has a name of its own.
        let is_zone = self.zones.iter().filter(|zone| zone.key == part.key).count() > 1;
        if let Some(danger) = part.danger() {
            // One zone is enough.
            *self.dangers.entry(danger).or_default() |= value == true;
            self.spoke.push(part);
            let own = if is_zone { &part.object } else { &part.key };
            if danger.member() == Some(own) {
                return;
            }
        }
        let key = if is_zone || self.data.contains_key(&part.key) { &part.object } else { &part.key };
        if !part.unit.is_empty() {
            self.units.insert(key.clone(), part.unit.clone().into());
        }
        // Beside its availability a device may have a sensor of its own that says so.
        if key == ONLINE && part.object != ONLINE {
            self.told_by = Some(&part.object);
        }
        self.data.insert(key.clone(), value);
    }

    fn data(mut self) -> Value {
        if !self.units.is_empty() {
            self.data.insert("units".into(), self.units.into());
        }
        if let Some(sensor) = self.told_by {
            self.data.insert(TOLD_BY.into(), sensor.into());
        }
        // A zone may be called as a danger is; what counts is whether any says so.
        self.data.extend(members(self.dangers));
        self.data.into()
    }
}

fn members(dangers: BTreeMap<Danger, bool>) -> impl Iterator<Item = (String, Value)> {
    dangers.into_iter().filter_map(|(danger, is)| Some((danger.member()?.to_owned(), is.into())))
}

/// What one message says of all devices that it tells of: mostly one. It is one event whatever their number.
struct Together<'p>(Vec<Saying<'p>>);

impl Together<'_> {
    /// Whether each danger of which any device speaks is there.
    fn dangers(&self) -> BTreeMap<Danger, bool> {
        let mut all = BTreeMap::new();
        for (danger, is) in self.0.iter().flat_map(|one| &one.dangers) {
            *all.entry(*danger).or_default() |= *is;
        }
        all
    }

    /// The type, and whether it is urgent: what is wrong goes before what is well.
    fn kind(&self) -> (&'static str, bool) {
        let dangers = self.dangers();
        let of = |wanted: bool| dangers.iter().find(|(_, is)| **is == wanted).map(|(danger, _)| danger.kind());
        if self.0.iter().any(|one| one.sos) {
            return ("city.sos.pressed.v1", true);
        }
        if let Some(kind) = of(true) {
            return (kind, true);
        }
        let is_online = |one: &Saying| one.data.len() == 1 && one.data.contains_key(ONLINE);
        match of(false) {
            Some(kind) => (kind, false),
            None if self.0.iter().any(|one| one.press) => ("city.button.pressed.v1", false),
            None if matches!(self.0.as_slice(), [one] if is_online(one)) => ("city.device.state.v1", false),
            None => ("city.sensor.reading.v1", false),
        }
    }

    /// Whom it is about: who calls for help, and who speaks of a danger, so that the same ones end its alarm; else
    /// who was pressed; else all.
    fn named(&self) -> Vec<&Saying<'_>> {
        let calls = |one: &&Saying| one.sos || !one.dangers.is_empty();
        let pressed = |one: &&Saying| one.press;
        let any = |_: &&Saying| true;
        let of = |is: fn(&&Saying) -> bool| self.0.iter().filter(is).collect::<Vec<_>>();
        [calls, pressed, any].into_iter().map(of).find(|all| !all.is_empty()).unwrap_or_default()
    }

    fn subject(&self) -> String {
        let whole = self.named().into_iter().map(Saying::who).collect::<Vec<_>>().join(", ");
        if whole.chars().count() <= SUBJECT_CHARS_MAX {
            return whole;
        }
        // Too many to be named, but no other ones.
        let hash = xxh3_64(whole.as_bytes());
        format!("{} … {hash:016x}", whole.chars().take(SUBJECT_CHARS_MAX).collect::<String>())
    }

    /// The lowest battery of those who speak, and whether any is low; the alarm goes by the subject, so all must be
    /// named there.
    fn batteries(&self) -> Map<String, Value> {
        let mut told = Map::new();
        if self.named().len() < self.0.len() {
            return told;
        }
        let level = |one: &Saying| one.data.get(battery::LEVEL).and_then(Value::as_f64);
        let is_low = |one: &&Saying| one.data.get(battery::LOW) == Some(&Value::Bool(true));
        let of = self.0.iter().filter(|one| level(one).is_some());
        let lowest = of.min_by(|a, b| level(a).partial_cmp(&level(b)).unwrap_or(Ordering::Equal));
        let low = self.0.iter().find(is_low);
        told.extend(lowest.and_then(|one| Some((battery::LEVEL.to_owned(), one.data.get(battery::LEVEL)?.clone()))));
        if self.0.iter().any(|one| one.data.contains_key(battery::LOW)) {
            told.insert(battery::LOW.to_owned(), low.is_some().into());
        }
        told.extend(low.or(lowest).map(|one| (BATTERY_OF.to_owned(), one.device.into())));
        told
    }

    /// Of one device its members; of several each one's below its name, and beside them the dangers of all and the
    /// worst battery.
    fn data(mut self) -> Value {
        if self.0.len() == 1
            && let Some(one) = self.0.pop()
        {
            return one.data();
        }
        let (dangers, batteries) = (self.dangers(), self.batteries());
        let mut data: Map<String, Value> = self.0.into_iter().map(|one| (one.device.to_owned(), one.data())).collect();
        data.extend(members(dangers));
        data.extend(batteries);
        data.into()
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
    let mut seen = BTreeSet::new();
    found.parts.retain(|p| !matches!(p.what, What::Online { .. }) || seen.insert(p.topic.clone()) || p.key != ONLINE);
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
        match self.state(&mut found.left_out) {
            Ok(parts) => found.parts.extend(parts),
            Err(why) => found.left_out.push(format!("{}: {why}", self.object)),
        }
        match self.availability() {
            Ok(parts) => found.parts.extend(parts),
            Err(why) => found.left_out.push(format!("{}, availability: {why}", self.object)),
        }
    }

    /// The part itself, none where it is no reading; and beside an event that may be a call, what is lost of it.
    fn state(&self, left_out: &mut Vec<String>) -> Result<Vec<Part>, String> {
        let word = |key, short, default: &str| self.text(key, short).unwrap_or_else(|| default.to_owned());
        let class = word("device_class", "dev_cla", "");
        let name = self.text("name", "name").unwrap_or_default();
        let object = member(self.object);
        let what = match self.component {
            "sensor" if object == "action" => What::Press { of: Presses::State },
            "sensor" => What::Reading,
            "binary_sensor" => {
                let (on, off) = (word("payload_on", "pl_on", "ON"), word("payload_off", "pl_off", "OFF"));
                if class == "connectivity" { What::Online { on, off } } else { What::Binary { on, off } }
            }
            "event" => What::Press { of: Presses::Events(self.event_types()) },
            "device_automation" | "device_trigger" => {
                let says = match (word("type", "type", ""), word("subtype", "stype", "")) {
                    (kind, sub) if has_sos(&kind) || sub.is_empty() => kind,
                    (_, sub) => sub,
                };
                What::Trigger { payload: self.text("payload", "pl"), says }
            }
            _ => return Ok(Vec::new()),
        };
        let is_trigger = matches!(what, What::Trigger { .. });
        let (key, short_key) = if is_trigger { ("topic", "t") } else { ("state_topic", "stat_t") };
        let Some(topic) = self.text(key, short_key).map(|t| self.topic(&t)) else {
            return Err(format!("it has no `{key}`"));
        };
        let is_press = matches!(what, What::Press { .. } | What::Trigger { .. });
        let key = match (&what, class.as_str()) {
            (What::Press { .. } | What::Trigger { .. }, _) => "event".to_owned(),
            (What::Online { .. }, _) => ONLINE.to_owned(),
            (What::Binary { .. }, "moisture") => "water_leak".to_owned(),
            (What::Binary { .. }, "battery") => battery::LOW.to_owned(),
            // A counter of gas is no leak of it, and what a sensor of smoke measures no alarm.
            (What::Reading, class) if class.is_empty() || dangerous(class).is_some() => {
                if dangerous(&object).is_some() { format!("{object}_value") } else { object.clone() }
            }
            (_, "") => object.clone(),
            (_, class) => member(class),
        };
        let device = self.device();
        let is_named_sos = has_sos(self.object) || has_sos(&name) || (is_press && has_sos(&device));
        let is_sos = is_named_sos && !OF_ITSELF.contains(&class.as_str());
        let unit = short(&word("unit_of_measurement", "unit_of_meas", ""));
        let part = Part {
            by: self.by.to_owned(),
            topic: String::new(),
            device,
            key,
            object,
            unit,
            what,
            is_sos,
            way: Way::Whole,
            reach: self.reach,
        };
        let mut part = self.part(topic, part)?;
        let why = match Way::of(&self.text("value_template", "val_tpl").unwrap_or_default()) {
            Ok(way) => {
                part.way = way;
                return Ok(vec![part]);
            }
            Err(why) => why,
        };
        // Nor may it pass for calm what this one says.
        let lost = part.clone().lost(why.clone());
        // What an event is called may stand in its payload all the same.
        if self.component == "event" {
            left_out.push(format!("{}: {why}; only an `event_type` in its payload is a press", self.object));
            return Ok([part].into_iter().chain(lost).collect());
        }
        let lost = lost.ok_or_else(|| why.clone())?;
        left_out.push(format!("{}: {why}", self.object));
        Ok(vec![lost])
    }

    fn event_types(&self) -> Vec<String> {
        let all = get(self.said, "event_types", "evt_typ")
            .and_then(Value::as_array)
            .filter(|all| all.len() <= EVENT_TYPES_MAX);
        all.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
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
                key: ONLINE.into(),
                object: ONLINE.into(),
                unit: String::new(),
                what,
                is_sos: false,
                way: Way::of(&template)?,
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

fn dangerous(word: &str) -> Option<Danger> {
    Danger::OF_ALARMS.into_iter().find(|danger| danger.member() == Some(word))
}

/// What a device means that warns by another word than those that it announced, unless it turns words round.
fn meant(on: &str, off: &str, value: &Value, text: &str) -> Option<bool> {
    let says = |word: &str| danger::told(&word.into());
    if text.eq_ignore_ascii_case(on) || text.eq_ignore_ascii_case(off) {
        return Some(text.eq_ignore_ascii_case(on));
    }
    match danger::told(value) {
        _ if says(on) == Told::No || says(off) == Told::Yes => None,
        Told::Yes => Some(true),
        Told::No => Some(false),
        _ => None,
    }
}

fn has_sos(name: &str) -> bool {
    name.split(|c: char| !c.is_alphanumeric()).any(|word| SOS.iter().any(|sos| word.eq_ignore_ascii_case(sos)))
}

/// A scalar as payloads have it: texts as they are, the rest as JSON.
fn spelled(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
