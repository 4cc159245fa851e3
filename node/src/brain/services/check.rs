//! What is wrong with `[[service]]` and `[[scene]]` before a node starts.

use super::geometry;
use super::hours::{self, Hours};
use super::request::length_s;
use crate::brain::cases::calendar::Calendar;
use crate::brain::form;
use chrono::NaiveDate;
use citybrain_shared::config::services::{Scene, Service};
use citybrain_shared::config::{Config, Places, Problem, closest};
use citybrain_shared::event::GOVERNANCE;
use std::collections::BTreeMap;

/// A catalogue travels as one event.
const CATALOGUE_BYTES_MAX: usize = 200 * 1024;

/// Every problem, with its place in the file.
pub fn problems(config: &Config, places: &Places) -> Vec<Problem> {
    let calendar = config.calendar.as_ref().and_then(|c| Calendar::new(c).ok()).unwrap_or_default();
    let mut look = Look { places, found: Vec::new() };
    let mut codes = BTreeMap::new();
    for (i, service) in config.service.iter().enumerate() {
        let at = |key: &str| format!("service.{i}.{key}");
        look.unique(&at("code"), &mut codes, &service.code, i);
        look.named(&at("name"), &service.name);
        look.service(&at, service, config, &calendar);
    }
    let mut codes = BTreeMap::new();
    for (i, scene) in config.scene.iter().enumerate() {
        let at = |key: &str| format!("scene.{i}.{key}");
        look.unique(&at("code"), &mut codes, &scene.code, i);
        look.named(&at("name"), &scene.name);
        look.scene(&at, scene, config);
    }
    let all = (&config.service, &config.scene, &config.category, &config.calendar);
    let size = serde_json::to_vec(&all).map_or(0, |text| text.len());
    if size > CATALOGUE_BYTES_MAX {
        let message =
            format!("services, scenes, categories and calendar are {size} bytes together; they travel as one event");
        let first = ["service", "scene", "category"].map(|s| format!("{s}.0.code"));
        look.bad(
            first.iter().find(|path| places.contains(path)).unwrap_or(&first[0]),
            message,
            format!("at most {CATALOGUE_BYTES_MAX}: shorten descriptions and geometries"),
        );
    }
    look.found
}

struct Look<'a> {
    places: &'a Places,
    found: Vec<Problem>,
}

impl Look<'_> {
    fn bad(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(Problem::new(message, self.places.value(path), help));
    }

    fn unique<'c>(&mut self, path: &str, seen: &mut BTreeMap<&'c str, usize>, code: &'c str, i: usize) {
        if code.is_empty() || code.chars().count() > 60 || code.contains('/') {
            self.bad(path, format!("`{code}` is no code"), "1 to 60 characters without `/`");
        } else if let Some(first) = seen.insert(code, i) {
            self.bad(path, format!("`{code}` is number {} already", first + 1), "codes are unique at a node");
        }
    }

    fn named(&mut self, path: &str, name: &str) {
        if name.trim().is_empty() {
            self.bad(path, "it is shown by its name, and has none", "write what people call it");
        }
    }

    fn governance(&mut self, path: &str, word: &str) {
        if !GOVERNANCE.contains(&word) {
            let help = match closest(word, GOVERNANCE.into_iter()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("one of {}", GOVERNANCE.join(", ")),
            };
            self.bad(path, format!("`{word}` is no kind of governance"), help);
        }
    }

    fn service(&mut self, at: &dyn Fn(&str) -> String, s: &Service, config: &Config, calendar: &Calendar) {
        let places = self.places;
        let is_broken = |key: &str| places.is_broken(&at(key));
        for text in &s.hours {
            if let Err(why) = Hours::parse(text) {
                self.bad(&at("hours"), why, "");
            }
        }
        if s.slot.is_some() && s.hours.is_empty() && !is_broken("hours") {
            self.bad(&at("slot"), "appointments need `hours` to lie in", "such as hours = [\"mon-fri 09:00-11:30\"]");
        }
        if let Some(length) = s.slot
            && !(60..=86_400).contains(&length_s(length, calendar))
        {
            self.bad(&at("slot"), format!("an appointment of {length}"), "one minute to one day");
        }
        if let Some(length) = s.slot {
            let hours: Vec<Hours> = s.hours.iter().filter_map(|text| Hours::parse(text).ok()).collect();
            let week = NaiveDate::default().iter_days().take(7);
            let most = week.map(|day| hours::slots_of(&hours, length_s(length, calendar), day, calendar).len()).max();
            if most.is_some_and(|most| most >= hours::SLOTS_MAX) {
                let help = "less than 500 are given; make `slot` longer, or several services of it";
                self.bad(&at("slot"), "500 appointments or more on one day", help);
            }
        }
        if !(1..=10_000).contains(&s.capacity) {
            self.bad(&at("capacity"), format!("{} requests in one appointment", s.capacity), "1 to 10000");
        }
        if s.ahead_days > 366 {
            self.bad(&at("ahead_days"), format!("{} days ahead", s.ahead_days), "at most 366");
        }
        let moment = |text: &Option<String>| text.as_deref().map(|t| (t.to_owned(), hours::moment(t, calendar)));
        let (starts, ends) = (moment(&s.starts), moment(&s.ends));
        for (key, read) in [("starts", &starts), ("ends", &ends)] {
            if let Some((text, None)) = read {
                self.bad(&at(key), format!("`{text}` is no moment"), "write 2026-12-05 09:00");
            }
        }
        match (&starts, &ends) {
            (None, Some(_)) if !is_broken("starts") => {
                self.bad(&at("ends"), "it ends and does not start", "add `starts`")
            }
            (Some((_, Some(from))), Some((_, Some(to)))) if to <= from => {
                self.bad(&at("ends"), "it ends before it starts", "");
            }
            _ => {}
        }
        if starts.is_some() && s.slot.is_some() {
            self.bad(&at("slot"), "an activity has its one time: `starts`", "leave `slot` out");
        }
        for (key, number) in [("places", s.places), ("volunteers", s.volunteers)] {
            if number.is_some() && starts.is_none() && !is_broken("starts") {
                self.bad(&at(key), format!("`{key}` belong to an activity"), "add `starts`, or leave it out");
            }
        }
        // A node below may name what it inherits: `citybrain check` looks for it in the files above.
        if let Some(code) = &s.category
            && config.node.address.parent().is_none()
            && !config.category.iter().any(|c| c.code == *code)
        {
            let near = closest(code, config.category.iter().map(|c| c.code.as_str()));
            let help = near.map_or("add the `[[category]]`".to_owned(), |n| format!("did you mean `{n}`?"));
            self.bad(&at("category"), format!("`{code}` is no category of this file"), help);
        }
        if let Some(word) = &s.governance {
            self.governance(&at("governance"), word);
        }
        if s.place.as_ref().is_some_and(|place| !place.is_one()) {
            let help = "`lat` is -90 to 90 and `lon` -180 to 180 degrees, both or neither";
            self.bad(&at("place"), "that is no place on the earth", help);
        }
        self.found.extend(form::problems(&s.form, &at("form"), self.places));
    }

    fn scene(&mut self, at: &dyn Fn(&str) -> String, s: &Scene, config: &Config) {
        for word in &s.governance {
            self.governance(&at("governance"), word);
        }
        for name in s.rules.iter().filter(|n| !config.rule.iter().any(|r| r.name == **n)) {
            let near = closest(name, config.rule.iter().map(|r| r.name.as_str()));
            let help = near.map_or("add the `[[rule]]`".to_owned(), |n| format!("did you mean `{n}`?"));
            self.bad(&at("rules"), format!("`{name}` is no rule of this file"), help);
        }
        if let Some(geometry) = &s.geometry
            && let Err(why) = geometry::check(geometry)
        {
            let help = "a GeoJSON geometry: { type = \"Point\", coordinates = [103.83, 30.69] }, longitude first";
            self.bad(&at("geometry"), why, help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        crate::brain::found(problems, text)
    }

    #[test]
    fn what_has_no_name_is_told() {
        let both = "[[service]]\ncode = \"a\"\nname = \" \"\n[[scene]]\ncode = \"b\"\nname = \"\"\n";
        assert_eq!(crate::brain::found(problems, both), ["it is shown by its name, and has none"; 2]);
    }

    #[test]
    fn a_service_that_could_never_be_given_is_refused() {
        let service = |rest: &str| found(&format!("[[service]]\ncode = \"a\"\nname = \"a\"\n{rest}"));
        assert_eq!(service("slot = \"30m\""), ["appointments need `hours` to lie in"]);
        assert!(service("hours = [\"mon 9\"]")[0].contains("are no hours"));
        assert_eq!(service("places = 3"), ["`places` belong to an activity"]);
        assert_eq!(service("starts = \"2026-12-05 09:00\"\nends = \"2026-12-05 08:00\""), ["it ends before it starts"]);
        let many = service("slot = \"1m\"\nhours = [\"mon-fri 09:00-18:00\"]");
        assert_eq!(many, ["500 appointments or more on one day"]);
        assert_eq!(service("category = \"X\""), ["`X` is no category of this file"]);
        assert_eq!(service("slot = \"30m\"\nhours = [\"mon-fri 09:00-11:00\"]"), Vec::<String>::new());
        for place in ["lat = 103.8, lon = 30.7", "lat = nan, lon = 103.8", "lat = 30.7"] {
            assert_eq!(service(&format!("place = {{ {place} }}")), ["that is no place on the earth"]);
        }
        assert_eq!(service("place = { text = \"门口\", lat = 30.7, lon = 103.8 }"), Vec::<String>::new());
    }

    #[test]
    fn a_scene_lies_on_the_earth_and_names_rules_that_are_there() {
        let scene = |rest: &str| found(&format!("[[scene]]\ncode = \"a\"\nname = \"a\"\n{rest}"));
        assert_eq!(scene("rules = [\"x\"]"), ["`x` is no rule of this file"]);
        let ring = "geometry = { type = \"Polygon\", coordinates = [[[1, 1], [2, 1], [2, 2], [1, 2]]] }";
        assert_eq!(scene(ring), ["a ring has at least four positions, and the last is the first"]);
        let swapped = "geometry = { type = \"Point\", coordinates = [30.69, 103.83] }";
        assert_eq!(scene(swapped), ["[30.69,103.83] is no longitude and latitude"]);
        let point = "{ type = \"Point\", coordinates = [103.83, 30.69] }";
        assert!(scene(&format!("geometry = {point}")).is_empty());
        let collection = |all: &str| format!("{{ type = \"GeometryCollection\", geometries = [{all}] }}");
        let of = |geometry: &str| scene(&format!("geometry = {geometry}"));
        assert!(of(&collection(point)).is_empty());
        assert_eq!(of(&collection(&swapped["geometry = ".len()..])), ["[30.69,103.83] is no longitude and latitude"]);
        assert_eq!(of(&collection(&collection(point))), ["a collection within a collection"]);
        assert_eq!(of("{ type = \"GeometryCollection\" }"), ["a collection has `geometries`"]);
    }
}
