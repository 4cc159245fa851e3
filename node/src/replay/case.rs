//! What a row says of a case that another system ran: `[case]` of a mapping.

use super::local_time::Clock;
use super::mapping::Template;
use chrono::{DateTime, Utc};
use citybrain_shared::case::{ClosedReason, Place, Status};
use citybrain_shared::event::GOVERNANCE;
use citybrain_shared::view::CaseAccount;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The section. Every value but `words` is a template; times are in the format of `[event.time]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// A code, such as `{RequestType:slug}`.
    category: String,
    #[serde(default)]
    category_name: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    department: Option<String>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    governance: Option<String>,
    #[serde(default)]
    place: Option<String>,
    #[serde(default)]
    lat: Option<String>,
    #[serde(default)]
    lon: Option<String>,
    #[serde(default)]
    due: Option<String>,
    #[serde(default)]
    updated: Option<String>,
    #[serde(default)]
    closed: Option<String>,
    status: String,
    /// The file's word to ours: a status, and behind a space the reason of one that is closed.
    words: BTreeMap<String, String>,
    /// What the resident said: `solved`, `partly`, `unsolved`.
    #[serde(default)]
    solved: Option<String>,
    /// `yes`, `mostly`, `no`.
    #[serde(default)]
    satisfied: Option<String>,
}

/// The section, checked.
#[derive(Clone, Debug)]
pub struct CaseMapping {
    /// By the names of [`CaseAccount`]'s fields.
    templates: BTreeMap<&'static str, Template>,
    words: BTreeMap<String, (Status, Option<ClosedReason>)>,
}

/// Why a row says nothing of a case: a few words that stay the same from row to row, and the reason.
pub type Refused = (&'static str, String);

impl CaseMapping {
    pub(super) fn new(file: &File) -> Result<CaseMapping, String> {
        let mut templates = BTreeMap::new();
        let all = [
            ("category", Some(&file.category)),
            ("status", Some(&file.status)),
            ("category_name", file.category_name.as_ref()),
            ("title", file.title.as_ref()),
            ("description", file.description.as_ref()),
            ("department", file.department.as_ref()),
            ("channel", file.channel.as_ref()),
            ("governance", file.governance.as_ref()),
            ("place", file.place.as_ref()),
            ("lat", file.lat.as_ref()),
            ("lon", file.lon.as_ref()),
            ("due", file.due.as_ref()),
            ("updated", file.updated.as_ref()),
            ("closed", file.closed.as_ref()),
            ("solved", file.solved.as_ref()),
            ("satisfied", file.satisfied.as_ref()),
        ];
        for (name, text) in all {
            if let Some(text) = text {
                templates.insert(name, Template::parse(text)?);
            }
        }
        let mut words = BTreeMap::new();
        for (word, ours) in &file.words {
            let (status, reason) = match ours.split_once(' ') {
                Some((status, reason)) => (status, Some(reason.trim().parse()?)),
                None => (ours.as_str(), None),
            };
            words.insert(word.clone(), (status.parse()?, reason));
        }
        Ok(CaseMapping { templates, words })
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.templates.values().flat_map(Template::columns)
    }

    /// What the row says of its case, `opened` as the row's event says. A time that is left empty is
    /// not known; one that does not read refuses the row.
    pub(super) fn account<'a>(
        &self,
        (source, id, opened): (String, String, DateTime<Utc>),
        clock: &Clock,
        value: &impl Fn(&str) -> Option<Cow<'a, str>>,
    ) -> Result<CaseAccount, Refused> {
        let text = |name: &str| self.templates.get(name).and_then(|t| t.fill(value).ok());
        let time = |name: &str| match text(name) {
            None => Ok(None),
            Some(text) => match clock.read(&text) {
                Some(time) => Ok(Some(time.to_utc())),
                None => {
                    Err(("time not readable", format!("its `{name}`, `{text}`, is not a time of the mapping's format")))
                }
            },
        };
        let number = |name: &str| text(name).and_then(|t| t.parse::<f64>().ok());
        let word = text("status").ok_or(("no status", "the row has no status".to_owned()))?;
        let (status, reason) = *self
            .words
            .get(&word)
            .ok_or_else(|| ("status not known", format!("`{word}` is none of the mapping's [case] words")))?;
        let governance = text("governance");
        if let Some(other) = governance.as_deref().filter(|word| !GOVERNANCE.contains(word)) {
            let reason = format!("its `governance`, `{other}`, is none of {}", GOVERNANCE.join(", "));
            return Err(("no kind of governance", reason));
        }
        let category = text("category").ok_or(("no category", "the row has no category".to_owned()))?;
        let (updated, mut closed) = (time("updated")?, time("closed")?);
        if status.is_open() && closed.is_some() {
            return Err(("open, with a time of closing", format!("it is `{word}`, and has a time of closing")));
        }
        if !status.is_open() && closed.is_none() {
            closed =
                Some(updated.ok_or(("closed, nobody knows when", format!("it is `{word}`, and has no time of it")))?);
        }
        let place = Place { text: text("place").unwrap_or_default(), lat: number("lat"), lon: number("lon") };
        // One without the other is no place.
        let place =
            if place.lat.is_some() == place.lon.is_some() { place } else { Place { lat: None, lon: None, ..place } };
        Ok(CaseAccount {
            source,
            id,
            category_name: text("category_name").unwrap_or_default(),
            category,
            title: text("title").unwrap_or_default(),
            description: text("description").unwrap_or_default(),
            department: text("department").unwrap_or_default(),
            channel: text("channel").unwrap_or_default(),
            governance,
            place: (place != Place::default()).then_some(place),
            status,
            reason,
            opened,
            due: time("due")?,
            updated: updated.or(closed).unwrap_or(opened),
            closed,
            solved: text("solved").and_then(|t| t.parse().ok()),
            satisfied: text("satisfied").and_then(|t| t.parse().ok()),
        })
    }
}
