//! Services, activities and scenes: what a node offers, and what those below know of it.
//!
//! | module | what it owns |
//! |---|---|
//! | [`geometry`] | where a scene is, as GeoJSON |
//! | [`hours`] | opening hours and the appointments in them |
//! | [`request`] | a request, checked, as a case that opens |
//! | [`check`] | what is wrong with `[[service]]` and `[[scene]]` before a start |
//! | [`said`] | what a stopped node offered, from its folder |
//!
//! **Format.** `city.brain.service.catalogue`: what one node's config offers, its categories, its calendar and how it
//! rates, sent down to all below it whenever it has changed. `city.brain.service.wanted`: a node that is new asks its parent, which
//! answers with its own catalogue and those that it has inherited. The newest catalogue of each
//! ancestor is kept.
//!
//! **Promise.** A request is a case of the node that offers the service ([`super::cases`]); it alone
//! counts appointments and seats, in the order of its own log, so none is given twice.

pub mod check;
mod geometry;
pub mod hours;
pub mod request;
pub mod said;
#[cfg(test)]
mod tests;

use crate::brain::cases::Refusal;
use crate::brain::cases::calendar::Calendar as Days;
use crate::brain::cases::letter::{Pen, data};
use citybrain_hub::policy::{Policy, Row};
use citybrain_hub::state::State;
use citybrain_shared::config::Config;
use citybrain_shared::config::cases::{Calendar, Cases as Settings, Category};
use citybrain_shared::config::closest;
use citybrain_shared::config::services::{Scene, Service};
use citybrain_shared::record::{Direction, Draft, Header, Kind};
use citybrain_shared::selector::DISTRICT;
use citybrain_shared::view::RateWeights;
use citybrain_shared::{Address, Lane, Pos, Tier, view};
use request::Offered;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_64;

/// Which rows of the store are this part's.
pub(super) const PART: u8 = b's';

pub const PREFIX: &str = "city.brain.service.";
pub const CATALOGUE: &str = "city.brain.service.catalogue";
const WANTED: &str = "city.brain.service.wanted";

/// `data` of a catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    pub node: Address,
    #[serde(default)]
    pub services: Vec<Service>,
    #[serde(default)]
    pub scenes: Vec<Scene>,
    /// What cases are about, for [`super::cases`].
    #[serde(default)]
    pub categories: Vec<Category>,
    /// When people work there, and at all nodes below that do not say it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<Calendar>,
    /// Its label `district`, by which rates below it are cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub district: Option<String>,
    /// How its score is made, if otherwise than by default: for whoever reads its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<RateWeights>,
}

impl Catalogue {
    /// What a config offers.
    fn of(config: &Config) -> Catalogue {
        let mut own = Catalogue {
            node: config.node.address.clone(),
            services: config.service.clone(),
            scenes: config.scene.clone(),
            categories: config.category.clone(),
            // The days of its file are in it already.
            calendar: config.calendar.clone().map(|c| Calendar { days_file: None, ..c }),
            district: config.node.labels.get(DISTRICT).cloned(),
            weights: Some(RateWeights::of(&config.cases)).filter(|w| *w != RateWeights::of(&Settings::default())),
        };
        own.scenes.iter_mut().filter_map(|scene| scene.geometry.as_mut()).for_each(geometry::wind);
        // As it will be read again: what JSON has no word for must not be news for ever.
        serde_json::to_value(&own).and_then(serde_json::from_value).unwrap_or(own)
    }

    fn is_empty(&self) -> bool {
        let Catalogue { node: _, services, scenes, categories, calendar, district, weights } = self;
        let lists = services.is_empty() && scenes.is_empty() && categories.is_empty();
        lists && calendar.is_none() && district.is_none() && weights.is_none()
    }

    /// Puts what it says into a config of its node, which has only defaults.
    pub fn fill(self, config: &mut Config) {
        let Catalogue { node: _, services, scenes, categories, calendar, district: _, weights } = self;
        (config.service, config.scene, config.category) = (services, scenes, categories);
        config.calendar = calendar;
        if let Some(weights) = weights {
            config.cases = weights.in_place_of(std::mem::take(&mut config.cases));
        }
    }
}

pub struct Services {
    me: Address,
    own: Catalogue,
    /// Of this node, as last sent, and of those above it.
    known: BTreeMap<Address, Catalogue>,
    /// The parent was asked for what it knows.
    asked: bool,
    dirty: BTreeSet<Option<Address>>,
}

impl Services {
    pub fn new(config: &Config) -> Services {
        let (me, own) = (config.node.address.clone(), Catalogue::of(config));
        Services { me, own, known: BTreeMap::new(), asked: false, dirty: BTreeSet::new() }
    }

    /// Takes over what another config offers.
    pub fn adopt(&mut self, config: &Config) {
        self.own = Catalogue::of(config);
    }

    /// What is offered here: the node's own first, then that of its parent, and so on up.
    pub fn services(&self) -> impl Iterator<Item = (&Address, &Service)> {
        self.catalogues().flat_map(|c| c.services.iter().map(move |s| (&c.node, s)))
    }

    pub fn scenes(&self) -> impl Iterator<Item = (&Address, &Scene)> {
        self.catalogues().flat_map(|c| c.scenes.iter().map(move |s| (&c.node, s)))
    }

    /// Deeper nodes sort behind those that they begin with.
    fn catalogues(&self) -> impl Iterator<Item = &Catalogue> {
        std::iter::once(&self.own).chain(self.known.values().rev().filter(|c| c.node != self.me))
    }

    /// The nearest service of that code or name; `of` says whose.
    ///
    /// # Errors
    /// None of that name.
    pub fn find(&self, word: &str, of: Option<&Address>) -> Result<(&Address, &Service), Refusal> {
        let called = || self.services().filter(|(_, s)| s.code == word || s.name == word);
        let found = called().find(|(node, _)| of.is_none_or(|of| of == *node));
        found.ok_or_else(|| {
            let words = self.services().flat_map(|(_, s)| [s.code.as_str(), s.name.as_str()]);
            let hint = match (called().next(), closest(word, words)) {
                (Some((node, _)), _) => format!("it is offered by {node}"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => "`citybrain service list` shows what is offered".to_owned(),
            };
            let whose = of.map_or(String::new(), |of| format!(" of {of}"));
            Refusal::new("not-found", format!("{} knows no service `{word}`{whose}", self.me), hint)
        })
    }

    /// As [`Services::find`], with the calendar that its times go by.
    ///
    /// # Errors
    /// None of that name.
    pub fn offered(&self, word: &str, of: Option<&Address>) -> Result<Offered<'_>, Refusal> {
        let (node, service) = self.find(word, of)?;
        Ok(Offered { node, service, calendar: self.calendar_of(node), is_own: *node == self.me })
    }

    /// What the node's own services and scenes name and nobody here or above has, a sentence each. A file alone cannot
    /// tell, for what it names may come from above.
    pub fn nameless(&self, known: &[Category]) -> Vec<String> {
        let lacks = |code: &String| !known.iter().any(|c| c.code == *code);
        let services =
            self.own.services.iter().filter_map(|s| Some((s, s.category.as_ref().filter(|code| lacks(code))?)));
        let services = services.map(|(s, code)| {
            format!("service {}: nobody here or above has a category `{code}`: its requests get no limits", s.code)
        });
        let is_offered = |code: &String| self.services().any(|(_, s)| s.code == *code);
        let scenes = self.own.scenes.iter().flat_map(|s| s.services.iter().map(move |code| (s, code)));
        let scenes = scenes.filter(|(_, code)| !is_offered(code));
        let scenes =
            scenes.map(|(s, code)| format!("scene {}: nobody here or above offers a service `{code}`", s.code));
        services.chain(scenes).collect()
    }

    /// What a node above says of itself; this one's own is in its config.
    pub fn district_of(&self, node: &Address) -> Option<&String> {
        self.known.get(node).and_then(|c| c.district.as_ref())
    }

    /// By which a node works, this one or one above it: its own, or that of the nearest above it that has one.
    pub fn calendar_of(&self, node: &Address) -> Days {
        let above = self.catalogues().filter(|c| c.node.covers(node));
        above.filter_map(|c| c.calendar.as_ref()).find_map(|c| Days::new(c).ok()).unwrap_or_default()
    }

    fn sent(&self, catalogue: &Catalogue, target: &str, id: &str, now_us: i64) -> Draft {
        let pen = Pen { me: &self.me, now: view::time_of(now_us) };
        let way = (Direction::Down, Tier::Neighbourhood);
        let subject = catalogue.node.as_str();
        pen.event(
            CATALOGUE,
            id,
            subject,
            Lane::Routine,
            way,
            target,
            serde_json::json!({}),
            serde_json::json!(catalogue),
        )
    }

    /// Is this catalogue of the node another than it has sent last?
    fn is_news(&self, own: &Catalogue) -> bool {
        match self.known.get(&self.me) {
            Some(sent) => sent != own,
            None => !own.is_empty(),
        }
    }

    /// The word of what this config offers, where that is news to those below.
    pub fn news(&self, config: &Config, now_us: i64) -> Option<Draft> {
        let own = Catalogue::of(config);
        self.is_news(&own).then(|| self.said(&own, now_us))
    }

    fn said(&self, own: &Catalogue, now_us: i64) -> Draft {
        let text = serde_json::to_vec(own).expect("a catalogue has string keys only");
        // The time too: a catalogue that comes back is news again.
        let id = format!("{:016x}.{now_us:x}", xxh3_64(&text));
        self.sent(own, &format!("{}/**", self.me), &id, now_us)
    }
}

/// The catalogue of a row, if it is the row of one.
fn row_of(key: &[u8], value: &[u8]) -> Option<Result<Catalogue, String>> {
    key.starts_with(b"k").then(|| serde_json::from_slice(value).map_err(|e| e.to_string()))
}

impl Policy for Services {
    fn decide(&self, _: &State, now_us: i64, header: &Header<'_>, _: &[u8]) -> Vec<Draft> {
        let Some(origin) = header.origin.filter(|_| header.name == WANTED) else { return Vec::new() };
        let Ok(child) = Address::parse(origin.address) else { return Vec::new() };
        if !child.is_child_of(&self.me) {
            return Vec::new();
        }
        let all = self.catalogues().filter(|c| !c.is_empty());
        all.map(|c| self.sent(c, &format!("{child}/**"), &format!("{}.for.{child}.{now_us:x}", c.node), now_us))
            .collect()
    }

    fn next_due_us(&self) -> Option<i64> {
        let asks = !self.asked && self.me.parent().is_some();
        (asks || self.is_news(&self.own)).then_some(0)
    }

    fn on_due(&self, _: &State, now_us: i64) -> Vec<Draft> {
        let mut drafts = Vec::new();
        if self.is_news(&self.own) {
            drafts.push(self.said(&self.own, now_us));
        }
        if let Some(parent) = self.me.parent().filter(|_| !self.asked) {
            let pen = Pen { me: &self.me, now: view::time_of(now_us) };
            let way = (Direction::Up, parent.tier());
            let none = serde_json::json!({});
            drafts.push(pen.event(
                WANTED,
                &format!("wanted.{now_us:x}"),
                self.me.as_str(),
                Lane::Routine,
                way,
                "",
                none.clone(),
                none,
            ));
        }
        drafts
    }

    fn apply(&mut self, _: Pos, header: &Header<'_>, payload: &[u8]) {
        if header.kind != Kind::Event || !header.name.starts_with(PREFIX) {
            return;
        }
        match header.name {
            WANTED if header.origin.is_none() => {
                self.asked = true;
                self.dirty.insert(None);
            }
            CATALOGUE if header.direction == Direction::Down => {
                let Some(catalogue) = data::<Catalogue>(payload) else { return };
                let own = header.origin.is_none() && catalogue.node == self.me;
                // What it passed on to a child says nothing new of others.
                let from_above =
                    header.origin.is_some() && catalogue.node != self.me && catalogue.node.covers(&self.me);
                if own || from_above {
                    self.dirty.insert(Some(catalogue.node.clone()));
                    self.known.insert(catalogue.node.clone(), catalogue);
                }
            }
            _ => {}
        }
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let dirty = std::mem::take(&mut self.dirty);
        let row = |what: Option<Address>| match what {
            None => (b"asked".to_vec(), self.asked.then(|| b"true".to_vec())),
            Some(node) => {
                let value = self.known.get(&node).map(|c| serde_json::to_vec(c).expect("rows have string keys only"));
                (format!("k{node}").into_bytes(), value)
            }
        };
        dirty.into_iter().map(row).collect()
    }

    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match std::str::from_utf8(key) {
            Ok("asked") => self.asked = true,
            _ => {
                let catalogue = row_of(key, value).ok_or("its kind is not known to this build")??;
                self.known.insert(catalogue.node.clone(), catalogue);
            }
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
