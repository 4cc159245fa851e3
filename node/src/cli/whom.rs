//! Whom to call and where: what several commands ask in the same words.

use super::Fail;
use citybrain_shared::case::{Contact, Place, Role};
use clap::Args;
use std::collections::BTreeMap;

#[derive(Debug, Args)]
pub struct Whom {
    /// Whom to call
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// That person's telephone number
    #[arg(long, default_value = "", hide_default_value = true)]
    phone: String,
    /// Where that person lives, if not there
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    address: String,
}

impl Whom {
    pub fn contact(self) -> Contact {
        Contact { name: self.name, phone: self.phone, address: self.address, ..Contact::default() }
    }
}

/// The answers to what a category or a service asks.
///
/// # Errors
/// One is answered twice.
pub fn answers(given: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Fail> {
    let mut all = BTreeMap::new();
    for (name, answer) in given {
        if all.contains_key(&name) {
            let hint = format!("once; where several choices are taken, with commas: `--form {name}=A,B`");
            return Err(Fail::usage(format!("`--form` answers `{name}` twice"), hint));
        }
        all.insert(name, answer);
    }
    Ok(all)
}

/// In which role somebody opens a case: the shell's user, and nobody, do so for whoever is to be called.
pub fn role(said: Option<Role>, by: &str) -> Option<Role> {
    let is_shells = by.is_empty() || std::env::var("USER").is_ok_and(|user| user == by);
    said.or_else(|| is_shells.then_some(Role::Worker))
}

#[derive(Debug, Args)]
pub struct Coordinates {
    /// Degrees north, WGS84
    #[arg(long, allow_hyphen_values = true, requires = "lon")]
    lat: Option<f64>,
    /// Degrees east, WGS84
    #[arg(long, allow_hyphen_values = true, requires = "lat")]
    lon: Option<f64>,
}

impl Coordinates {
    /// With the words that say where it is; nothing if neither says anything.
    pub fn place(self, text: String) -> Option<Place> {
        let place = Place { text, lat: self.lat, lon: self.lon };
        (place != Place::default()).then_some(place)
    }
}
