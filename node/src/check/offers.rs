//! What `[[service]]` and `[[scene]]` name that stands in the file itself or in one of a node above it.

use super::calendars;
use crate::brain::services::request;
use crate::config::File;
use chrono::{DateTime, Utc};
use citybrain_shared::Address;
use citybrain_shared::config::{Config, closest};

/// A name that nobody has who could, as far as the files tell.
#[derive(Debug, PartialEq)]
pub(super) struct Unknown {
    pub(super) key: String,
    pub(super) message: String,
    pub(super) help: String,
}

/// Activities that have been: a file that is to be loaded hardly means them.
pub(super) fn past(files: &[File], now: DateTime<Utc>) -> Vec<String> {
    let mut notes = Vec::new();
    for (file, config) in files.iter().filter_map(|f| Some((f, f.config.as_ref()?))) {
        let calendar = calendars::at(files, config);
        let past = config.service.iter().filter(|service| request::is_over(service, &calendar, now));
        notes.extend(past.map(|service| format!("{}: {}", file.path.display(), request::past_in_words(service))));
    }
    notes
}

/// Those of one config, and which nodes above it have no file here: one of them may have what is named.
pub(super) fn unknown(files: &[File], config: &Config) -> (Vec<Unknown>, Vec<Address>) {
    let me = &config.node.address;
    let above: Vec<&Config> = files
        .iter()
        .filter_map(|f| f.config.as_ref())
        .filter(|c| c.node.address != *me && c.node.address.covers(me))
        .collect();
    let all = || std::iter::once(config).chain(above.iter().copied());
    let categories: Vec<&str> = all().flat_map(|c| &c.category).map(|c| c.code.as_str()).collect();
    let services: Vec<&str> = all().flat_map(|c| &c.service).map(|s| s.code.as_str()).collect();
    let mut found = Vec::new();
    let mut look = |key: String, code: &str, what: &str, known: &[&str]| {
        if !known.contains(&code) {
            let above = if me.parent().is_some() { ", nor of those above it" } else { "" };
            let message = format!("`{code}` is no {what} of this file{above}");
            let near = closest(code, known.iter().copied());
            let help = near.map_or(format!("add the `[[{what}]]`"), |near| format!("did you mean `{near}`?"));
            found.push(Unknown { key, message, help });
        }
    };
    // At the top it is a fault of the file by itself.
    for (i, service) in config.service.iter().enumerate().filter(|_| me.parent().is_some()) {
        if let Some(code) = &service.category {
            look(format!("service.{i}.category"), code, "category", &categories);
        }
    }
    for (i, scene) in config.scene.iter().enumerate() {
        for code in &scene.services {
            look(format!("scene.{i}.services"), code, "service", &services);
        }
    }
    let ancestors = std::iter::successors(me.parent(), Address::parent);
    let absent = ancestors.filter(|node| !above.iter().any(|c| c.node.address == *node)).collect();
    (found, absent)
}
