//! A mapping: how rows become events, and where each belongs.

use super::case::{self, CaseMapping};
use super::local_time::{self, Clock, Time};
use super::rows::{Fields, Format, Row};
use super::slug::slug;
use chrono::{DateTime, FixedOffset, SecondsFormat};
use citybrain_shared::Tier;
use citybrain_shared::view::CaseAccount;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

/// The mappings that come with the program; a file's header chooses among them.
const BUILT_IN: [(&str, &str); 3] = [
    ("la311", include_str!("../../../config/replay/la311.toml")),
    ("boston311", include_str!("../../../config/replay/boston311.toml")),
    ("chengdu-air", include_str!("../../../config/replay/chengdu-air.toml")),
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the mapping `{path}`")]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the mapping `{name}` is not valid: {reason}")]
    Invalid { name: String, reason: String },
    #[error("the mapping `{name}` uses the column `{column}`, which the file does not have; it has: {columns}")]
    Column { name: String, column: String, columns: String },
    #[error("no built-in mapping knows a file with the columns {columns}")]
    Unknown { columns: String },
    #[error("the mapping `{name}`: {source}")]
    Time { name: String, source: local_time::Error },
}

/// The TOML file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    delimiter: Option<char>,
    /// A file that has all of these columns is of this kind.
    #[serde(default)]
    header: Vec<String>,
    /// Texts that mean "no value", besides the empty one.
    #[serde(default)]
    empty: Vec<String>,
    #[serde(default)]
    numbers: Vec<String>,
    event: EventFile,
    #[serde(default)]
    case: Option<case::File>,
    #[serde(default)]
    place: Option<PlaceFile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventFile {
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    subject: Option<String>,
    time: Time,
    #[serde(default)]
    urgent: Option<Urgent>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Urgent {
    column: String,
    #[serde(default)]
    values: Vec<String>,
    #[serde(default)]
    above: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceFile {
    city: LevelFile,
    street: LevelFile,
    community: LevelFile,
    neighbourhood: LevelFile,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelFile {
    key: String,
    name: String,
    #[serde(default)]
    word: Option<String>,
    #[serde(default)]
    rest: Option<String>,
}

/// A mapping, checked.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub name: String,
    pub title: String,
    pub format: Format,
    pub delimiter: u8,
    header: Vec<String>,
    empty: Vec<String>,
    numbers: Vec<String>,
    id: Template,
    source: Template,
    kind: Template,
    subject: Option<Template>,
    time: Template,
    clock: Clock,
    urgent: Option<Urgent>,
    /// City, street, community, neighbourhood; empty when the mapping says nothing of places.
    pub levels: Vec<Level>,
    /// What a row says of a case, if the mapping says it.
    case: Option<CaseMapping>,
}

/// One level of the tree.
#[derive(Clone, Debug)]
pub struct Level {
    key: Template,
    name: Template,
    /// What the file's people call such an area.
    pub word: String,
    /// The segment of the node that stands for the rest.
    pub rest: String,
}

/// A part of the city at one level.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Area {
    pub segment: String,
    pub name: String,
}

/// What a row became.
#[derive(Clone, Debug)]
pub struct Mapped {
    pub source: String,
    pub id: String,
    pub time: DateTime<FixedOffset>,
    pub urgent: bool,
    /// Street, community, neighbourhood; `None` is a hole in the row.
    pub place: [Option<Area>; 3],
    /// The CloudEvents object.
    pub json: Vec<u8>,
}

/// Why a row became nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the row has no `{0}`")]
    NoId(String),
    #[error("`{0}` is not a time of the mapping's format")]
    Time(String),
    #[error("the row has no `{0}`, which the event's type or source needs")]
    Hole(String),
    #[error("the event would have {0} bytes; at most {max} are carried", max = citybrain_shared::limits::EVENT_BYTES_MAX)]
    Large(usize),
}

impl Refused {
    /// A few words that stay the same from row to row.
    pub fn label(&self) -> &'static str {
        match self {
            Refused::NoId(_) => "no id",
            Refused::Time(_) => "time not readable",
            Refused::Hole(_) => "no type",
            Refused::Large(_) => "too large",
        }
    }
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'static str>,
    datacontenttype: &'static str,
    data: Fields,
}

impl Mapping {
    /// Reads a mapping's text. `utc_offset` takes the place of its own.
    ///
    /// # Errors
    /// All but [`Error::Open`] and [`Error::Unknown`].
    pub fn parse(name: &str, text: &str, utc_offset: Option<&str>) -> Result<Mapping, Error> {
        let invalid = |reason: String| Error::Invalid { name: name.to_owned(), reason };
        let file: File = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        let template = |text: &str| Template::parse(text).map_err(&invalid);
        let delimiter = match file.delimiter {
            None => b',',
            Some(c) => u8::try_from(c).map_err(|_| invalid(format!("the delimiter `{c}` is not one byte")))?,
        };
        let mut levels = Vec::new();
        if let Some(place) = &file.place {
            let files = [&place.city, &place.street, &place.community, &place.neighbourhood];
            for (tier, level) in Tier::ALL.into_iter().zip(files) {
                let rest = level.rest.clone().unwrap_or_else(|| "rest".into());
                if slug(&rest).as_ref() != Some(&rest) {
                    return Err(invalid(format!("`{rest}` of [place.{tier}] is not an address segment")));
                }
                let word = level.word.clone().unwrap_or_else(|| tier.to_string());
                levels.push(Level { key: template(&level.key)?, name: template(&level.name)?, word, rest });
            }
            if levels[0].key.columns().next().is_some() || slug(&place.city.key).as_ref() != Some(&place.city.key) {
                return Err(invalid(
                    "the key of [place.city] must be an address segment, the same for all rows".into(),
                ));
            }
        }
        let clock =
            Clock::new(&file.event.time, utc_offset).map_err(|source| Error::Time { name: name.to_owned(), source })?;
        let case = file.case.as_ref().map(CaseMapping::new).transpose();
        let case = case.map_err(|e| invalid(format!("[case]: {e}")))?;
        Ok(Mapping {
            case,
            id: template(&file.event.id)?,
            source: template(&file.event.source)?,
            kind: template(&file.event.kind)?,
            subject: file.event.subject.as_deref().map(template).transpose()?,
            time: template(&file.event.time.text)?,
            name: name.to_owned(),
            title: file.title,
            format: file.format,
            delimiter,
            header: file.header,
            empty: file.empty,
            numbers: file.numbers,
            clock,
            urgent: file.event.urgent,
            levels,
        })
    }

    /// # Errors
    /// As [`Mapping::parse`], and [`Error::Open`].
    pub fn load(path: &std::path::Path, utc_offset: Option<&str>) -> Result<Mapping, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Mapping::parse(&path.display().to_string(), &text, utc_offset)
    }

    /// The built-in mapping for a file with these columns: the one that names most of them.
    ///
    /// # Errors
    /// [`Error::Unknown`] when there is none.
    pub fn detect(columns: &[Arc<str>], utc_offset: Option<&str>) -> Result<Mapping, Error> {
        let mut best: Option<Mapping> = None;
        for (name, text) in BUILT_IN {
            let mapping = Mapping::parse(name, text, utc_offset)?;
            let fits = mapping.header.iter().all(|c| columns.iter().any(|column| **column == **c));
            if fits && best.as_ref().is_none_or(|b| b.header.len() < mapping.header.len()) {
                best = Some(mapping);
            }
        }
        best.ok_or_else(|| Error::Unknown { columns: columns.join(", ") })
    }

    /// Does a file with these columns have what the mapping uses?
    ///
    /// # Errors
    /// [`Error::Column`] names the first that is missing.
    pub fn check_columns(&self, columns: &[Arc<str>]) -> Result<(), Error> {
        let templates = [&self.id, &self.source, &self.kind, &self.time].into_iter().chain(&self.subject);
        let places = self.levels.iter().flat_map(|level| [&level.key, &level.name]);
        let used = templates
            .chain(places)
            .flat_map(Template::columns)
            .chain(self.case.iter().flat_map(CaseMapping::columns))
            .chain(self.urgent.iter().map(|u| u.column.as_str()))
            .chain(self.numbers.iter().map(String::as_str));
        for column in used {
            if !columns.iter().any(|c| **c == *column) {
                return Err(Error::Column {
                    name: self.name.clone(),
                    column: column.to_owned(),
                    columns: columns.join(", "),
                });
            }
        }
        Ok(())
    }

    /// The city's segment and display name; `None` when the mapping says nothing of places.
    pub fn city(&self) -> Option<Area> {
        self.area(self.levels.first()?, &Fields::default())
    }

    /// Is this column without a value in the row?
    pub fn is_empty(&self, value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::String(text) => text.trim().is_empty() || self.empty.iter().any(|e| e == text.trim()),
            _ => false,
        }
    }

    /// # Errors
    /// [`Refused`] says why the row is no event.
    pub fn apply(&self, row: &Row) -> Result<Mapped, Refused> {
        let value = |column: &str| self.value(&row.fields, column);
        let (source, id, time) = self.named(&row.fields)?;
        let kind = self.kind.fill(&value).map_err(Refused::Hole)?;
        let subject = self.subject.as_ref().and_then(|s| s.fill(&value).ok());
        let urgent = self.urgent.as_ref().is_some_and(|urgent| {
            value(&urgent.column).is_some_and(|v| {
                urgent.values.iter().any(|u| *u == v)
                    || urgent.above.is_some_and(|limit| v.parse::<f64>().is_ok_and(|n| n > limit))
            })
        });
        let place = self.place(&row.fields);
        let event = CloudEvent {
            specversion: "1.0",
            id: &id,
            source: &source,
            kind: &kind,
            subject: subject.as_deref(),
            time: &time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            priority: urgent.then_some("urgent"),
            datacontenttype: "application/json",
            data: self.data(&row.fields),
        };
        let json = serde_json::to_vec(&event).expect("an event has only text keys");
        if json.len() > citybrain_shared::limits::EVENT_BYTES_MAX {
            return Err(Refused::Large(json.len()));
        }
        Ok(Mapped { source, id, time, urgent, place, json })
    }

    fn named(&self, fields: &Fields) -> Result<(String, String, DateTime<FixedOffset>), Refused> {
        let value = |column: &str| self.value(fields, column);
        let id = self.id.fill(&value).map_err(Refused::NoId)?;
        let source = self.source.fill(&value).map_err(Refused::Hole)?;
        let text = self.time.fill(&value).map_err(|column| Refused::Time(format!("(no {column})")))?;
        let time = self.clock.read(&text).ok_or(Refused::Time(text))?;
        Ok((source, id, time))
    }

    /// Street, community, neighbourhood of a row; `None` is a hole in it.
    pub fn place(&self, fields: &Fields) -> [Option<Area>; 3] {
        [1, 2, 3].map(|i| self.levels.get(i).and_then(|level| self.area(level, fields)))
    }

    /// Does the mapping say what a row means as a case?
    pub fn is_of_cases(&self) -> bool {
        self.case.is_some()
    }

    /// What a row says of its case.
    ///
    /// # Errors
    /// Why it says nothing: a few words that stay the same from row to row, and the reason.
    pub fn account(&self, row: &Row) -> Result<CaseAccount, case::Refused> {
        let case = self.case.as_ref().ok_or(("no case", format!("the mapping `{}` has no [case]", self.name)))?;
        let (source, id, opened) = self.named(&row.fields).map_err(|e| (e.label(), e.to_string()))?;
        case.account((source, id, opened.to_utc()), &self.clock, &|column| self.value(&row.fields, column))
    }

    /// All columns but those that became the event's id and time; a hole is `null`.
    fn data(&self, fields: &Fields) -> Fields {
        let used = |name: &str| self.id.columns().chain(self.time.columns()).any(|c| c == name);
        let kept = fields.0.iter().filter(|(name, _)| !used(name)).map(|(name, value)| {
            let number = || match value {
                Value::String(text) if self.numbers.iter().any(|n| **n == **name) => {
                    serde_json::from_str::<serde_json::Number>(text.trim()).ok().map(Value::Number)
                }
                _ => None,
            };
            let value = if self.is_empty(value) { Value::Null } else { number().unwrap_or_else(|| value.clone()) };
            (name.clone(), value)
        });
        Fields(kept.collect())
    }

    fn area(&self, level: &Level, fields: &Fields) -> Option<Area> {
        let value = |column: &str| self.value(fields, column);
        // A key may join several parts; the whole must be a segment.
        let segment = slug(&level.key.fill(&value).ok()?)?;
        let name = level.name.fill(&value).unwrap_or_else(|_| segment.clone());
        Some(Area { segment, name })
    }

    fn value<'a>(&self, fields: &'a Fields, column: &str) -> Option<Cow<'a, str>> {
        let value = fields.get(column)?;
        if self.is_empty(value) {
            return None;
        }
        Some(match value {
            Value::String(text) => Cow::Borrowed(text.trim()),
            other => Cow::Owned(other.to_string()),
        })
    }
}

/// Text with `{COLUMN}`, `{COLUMN:slug}`, `{COLUMN:number}` in it.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Column(String, Filter),
}

#[derive(Clone, Copy, Debug)]
enum Filter {
    None,
    Slug,
    /// Its digits without leading zeros.
    Number,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once('{') {
            let (inner, after) = tail.split_once('}').ok_or_else(|| format!("`{text}` has `{{` without `}}`"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (column, filter) = match inner.rsplit_once(':') {
                None => (inner, Filter::None),
                Some((column, "slug")) => (column, Filter::Slug),
                Some((column, "number")) => (column, Filter::Number),
                Some((_, other)) => return Err(format!("`{other}` in `{text}` is neither slug nor number")),
            };
            if column.is_empty() {
                return Err(format!("`{text}` has `{{}}` without a column"));
            }
            parts.push(Part::Column(column.to_owned(), filter));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template(parts))
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Column(column, _) => Some(column.as_str()),
            Part::Text(_) => None,
        })
    }

    /// `Err` names the column that has no value.
    pub(super) fn fill<'a>(&self, value: &impl Fn(&str) -> Option<Cow<'a, str>>) -> Result<String, String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Column(column, filter) => {
                    let text = value(column).ok_or_else(|| column.clone())?;
                    match filter {
                        Filter::None => out.push_str(&text),
                        Filter::Slug => out.push_str(&slug(&text).ok_or_else(|| column.clone())?),
                        Filter::Number => {
                            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
                            if digits.is_empty() {
                                return Err(column.clone());
                            }
                            let number = digits.trim_start_matches('0');
                            out.push_str(if number.is_empty() { "0" } else { number });
                        }
                    }
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in(name: &str) -> Mapping {
        let (_, text) = BUILT_IN.into_iter().find(|(n, _)| *n == name).unwrap();
        Mapping::parse(name, text, None).unwrap()
    }

    fn row(pairs: &[(&str, &str)]) -> Row {
        let fields = pairs.iter().map(|(name, value)| ((*name).into(), Value::from(*value))).collect();
        Row { number: 1, line: 2, fields: Fields(fields), ..Row::default() }
    }

    fn segments(mapped: &Mapped) -> [Option<&str>; 3] {
        mapped.place.each_ref().map(|area| area.as_ref().map(|a| a.segment.as_str()))
    }

    #[test]
    fn every_built_in_mapping_is_valid_and_chosen_by_its_own_header() {
        for (name, _) in BUILT_IN {
            let mapping = built_in(name);
            let columns: Vec<Arc<str>> = mapping.header.iter().map(|c| c.as_str().into()).collect();
            assert_eq!(Mapping::detect(&columns, None).unwrap().name, name);
            assert!(mapping.city().is_some());
        }
        assert!(matches!(Mapping::detect(&["x".into()], None), Err(Error::Unknown { .. })));
    }

    #[test]
    fn a_service_request_keeps_its_number_time_and_place() {
        let mapped = built_in("la311")
            .apply(&row(&[
                ("SRNumber", "1-870704814"),
                ("CreatedDate", "01/01/2018 12:00:09 AM"),
                ("RequestType", "Metal/Household Appliances"),
                ("APC", "South Valley APC"),
                ("NCName", "VAN NUYS NC"),
                ("ZipCode", "91405"),
                ("Latitude", "34.0676390557"),
                ("Owner", ""),
            ]))
            .unwrap();
        let event: Value = serde_json::from_slice(&mapped.json).unwrap();
        assert_eq!(event["id"], "1-870704814");
        assert_eq!(event["type"], "city.request.metal-household-appliances");
        assert_eq!(event["time"], "2018-01-01T00:00:09-08:00");
        assert_eq!(event["data"]["RequestType"], "Metal/Household Appliances");
        assert_eq!(event["data"]["Latitude"], 34.067_639_055_7);
        assert_eq!(event["data"]["Owner"], Value::Null);
        assert!(event["data"].get("SRNumber").is_none() && event.get("priority").is_none());
        assert_eq!(segments(&mapped), [Some("south-valley-apc"), Some("van-nuys-nc"), Some("zip-91405")]);
        assert_eq!(mapped.place[1].as_ref().unwrap().name, "VAN NUYS NC");
    }

    #[test]
    fn a_hole_in_the_place_is_none_and_a_hole_in_the_id_refuses_the_row() {
        let la = built_in("la311");
        let base = [("CreatedDate", "01/01/2018 12:00:09 AM"), ("RequestType", "Report Water Waste")];
        let whole = row(&[&base[..], &[("SRNumber", "1"), ("APC", " "), ("ZipCode", "90001")]].concat());
        let mapped = la.apply(&whole).unwrap();
        assert_eq!(segments(&mapped), [None, None, Some("zip-90001")]);
        assert!(mapped.urgent);
        assert_eq!(la.apply(&row(&base)).unwrap_err(), Refused::NoId("SRNumber".into()));
        let late = row(&[("SRNumber", "1"), ("RequestType", "x"), ("CreatedDate", "soon")]);
        assert_eq!(la.apply(&late).unwrap_err(), Refused::Time("soon".into()));
    }

    #[test]
    fn two_spellings_of_a_ward_are_one_place() {
        let boston = built_in("boston311");
        for ward in ["07", "Ward 7"] {
            let mapped = boston
                .apply(&row(&[
                    ("case_enquiry_id", "1"),
                    ("open_dt", "2011-12-01 08:00:00"),
                    ("type", "t"),
                    ("ward", ward),
                    ("precinct", " "),
                ]))
                .unwrap();
            assert_eq!(segments(&mapped), [None, Some("ward-7"), None]);
            assert_eq!(mapped.time.to_rfc3339(), "2011-12-01T08:00:00-05:00");
        }
    }

    #[test]
    fn a_sensor_without_a_value_says_null_and_heavy_pollution_is_urgent() {
        let air = built_in("chengdu-air");
        let hour = |pm: &str| {
            let fields =
                [("No", "7"), ("year", "2014"), ("month", "1"), ("day", "2"), ("hour", "3"), ("PM_US Post", pm)];
            air.apply(&row(&fields)).unwrap()
        };
        let event: Value = serde_json::from_slice(&hour("NA").json).unwrap();
        assert_eq!((&event["data"]["PM_US Post"], &event["time"]), (&Value::Null, &"2014-01-02T03:00:00+08:00".into()));
        assert!(!hour("250").urgent && hour("251").urgent);
    }

    #[test]
    fn a_mapping_that_does_not_fit_the_file_names_the_column() {
        let error = built_in("la311").check_columns(&["SRNumber".into()]).unwrap_err();
        assert!(matches!(error, Error::Column { ref column, .. } if column == "RequestType"), "{error}");
    }

    #[test]
    fn broken_templates_are_refused() {
        for bad in ["{a", "{}", "{a:upper}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
