//! What is held, looked up: one case, lists in an order, numbers.

use super::calendar::Calendar;
use super::letter::Letter;
use super::machine::{Book, Refusal};
use super::{CASES_MAX, Calls, Cases, Held, intake, letter};
use chrono::{DateTime, Days, Utc};
use citybrain_shared::case::{Case, Kind};
use citybrain_shared::config::cases::Category;
use citybrain_shared::record::Header;
use citybrain_shared::view;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The code of the category that calls for help have.
pub(super) const SOS: &str = "sos";
/// Degrees that lie between two cases of the same matter at most: about 200 m.
const NEAR: f64 = 0.002;

impl Cases {
    pub fn book(&self) -> Book<'_> {
        let (me, calendar, settings) = (&self.me, &self.calendar, &self.settings);
        Book { me, calendar, categories: &self.categories, settings, awaits_parent: self.awaits_parent() }
    }

    /// When people work here.
    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// The latest moment by which something of this node's is due in working time.
    pub fn latest_working_due(&self) -> Option<DateTime<Utc>> {
        let own = self.open_ones().map(|held| &held.case).filter(|case| case.owner == self.me);
        let clocks = own.flat_map(|case| &case.clocks).filter(|clock| clock.runs() && clock.is_working());
        clocks.filter_map(|clock| clock.due).max()
    }

    /// That, and whose it is.
    pub fn calendar_shown(&self) -> view::CalendarShown {
        view::CalendarShown { of: self.calendar_of.clone(), words: self.calendar.words() }
    }

    /// What cases may be about here: the node's own categories, then those of the nodes above it.
    pub fn categories(&self) -> Arc<Vec<Category>> {
        self.categories.clone()
    }

    /// Is whatever is of that category, by its code or its name here, a call for help?
    pub fn is_call(&self, category: &str) -> bool {
        let known = self.categories.iter().find(|c| c.code == category || c.name == category);
        known.map_or(category, |c| &c.code) == SOS
    }

    pub fn get(&self, id: &str) -> Option<&Held> {
        self.held.get(id)
    }

    /// All cases, oldest id first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Held> {
        self.held.values()
    }

    pub fn count(&self) -> usize {
        self.held.len()
    }

    /// Closed ones that have given way to newer ones: nobody counts them any more.
    pub fn gone(&self) -> Option<view::CasesGone> {
        self.gone.clone()
    }

    /// Open ones, the oldest first.
    pub fn open_ones(&self) -> impl ExactSizeIterator<Item = &Held> {
        self.open_since.iter().map(|(_, id)| &self.held[id])
    }

    /// Cases that were opened before this moment (µs since 1970) or, in the same one, have a smaller id;
    /// the newest first; all of them, or the open ones.
    pub fn before(&self, then: Option<(i64, String)>, only_open: bool) -> impl Iterator<Item = &Held> {
        let all = if only_open { &self.open_since } else { &self.opened };
        let range = (Bound::Unbounded, then.map_or(Bound::Unbounded, Bound::Excluded));
        all.range(range).rev().map(|(_, id)| &self.held[id])
    }

    /// Cases that ask for this service, the earliest appointment first; behind that one.
    pub fn asking_for(&self, service: &str, then: Option<(i64, String)>) -> impl Iterator<Item = &Held> {
        let then = then.unwrap_or((i64::MIN, String::new()));
        let range = (Bound::Excluded((service.to_owned(), then)), Bound::Unbounded);
        let all = self.bookings.range(range).take_while(move |(of, _)| of == service);
        all.map(|(_, (_, id))| &self.held[id])
    }

    /// Cases behind this id, oldest first.
    pub fn behind(&self, id: Option<&str>) -> impl Iterator<Item = &Held> {
        self.held
            .range::<str, _>((id.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
            .map(|(_, held)| held)
    }

    /// Cases of which there is something to tell behind this moment and id, the longest unchanged first; each with
    /// its own.
    pub fn changed_behind(&self, then: (i64, String)) -> impl Iterator<Item = (&(i64, String), &Held)> {
        let range = (Bound::Excluded(then), Bound::Unbounded);
        self.changed.range(range).map(|at| (at, &self.held[&at.1]))
    }

    /// The one case whose id is this, begins with this, or ends with this after the day.
    ///
    /// # Errors
    /// None, or several.
    pub fn find(&self, text: &str) -> Result<&Held, Refusal> {
        if let Some(held) = self.held.get(text) {
            return Ok(held);
        }
        if text.is_empty() {
            return Err(self.unknown(text));
        }
        let whole = self.held.range::<str, _>((Bound::Included(text), Bound::Unbounded)).map(|(id, _)| id);
        let whole = whole.take_while(|id| id.starts_with(text)).take(2);
        let rest = self.rests.range((text.to_owned(), String::new())..);
        let rest = rest.take_while(|(rest, _)| rest.starts_with(text)).map(|(_, id)| id).take(3);
        let found: BTreeSet<&String> = whole.chain(rest).collect();
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(one), None) => self.held.get(one).ok_or_else(|| self.unknown(text)),
            (Some(a), Some(b)) => {
                let detail = format!("`{text}` fits more than one, such as {a} and {b}");
                Err(Refusal::new("ambiguous", detail, "write more of it"))
            }
            _ => Err(self.unknown(text)),
        }
    }

    /// The case that this key has opened, today or yesterday (a key is no other one at midnight).
    ///
    /// # Errors
    /// There is none: the id of the one that it is to open.
    pub fn keyed(&self, source: &str, key: &str, now: DateTime<Utc>) -> Result<String, String> {
        let today = self.calendar.day(now);
        let before = today.pred_opt().map(|day| intake::id(day, source, key));
        let id = intake::id(today, source, key);
        match before.filter(|id| self.held.contains_key(id)) {
            Some(known) => Ok(known),
            None if self.held.contains_key(&id) => Ok(id),
            None => Err(id),
        }
    }

    /// Is this a letter of others about a case that this node never had? Whoever works here has nothing to do with
    /// the people in it.
    pub fn is_passing(&self, header: &Header<'_>, payload: &[u8]) -> bool {
        if header.name != letter::LETTER {
            return false;
        }
        let Some(letter) = letter::data::<Letter>(payload) else { return true };
        let had = |held: &Held| {
            let case = &held.case;
            let owned = case.owner == self.me || held.history.iter().any(|e| e.node == self.me);
            // Or its category has it told whom to call.
            owned || case.opened_at == self.me || held.contact.is_some()
        };
        letter.from != self.me && letter.to != self.me && !self.held.get(letter.body.case()).is_some_and(had)
    }

    /// May this node step the case?
    pub fn may_step(&self, id: &str) -> bool {
        self.held.get(id).is_some_and(|held| self.is_own(held))
    }

    /// Is it this node's, or on its way here?
    pub(super) fn is_here(&self, case: &Case) -> bool {
        case.owner == self.me || case.handing_to.as_ref() == Some(&self.me)
    }

    pub(super) fn is_own(&self, held: &Held) -> bool {
        held.case.owner == self.me && held.case.handing_to.is_none() && !(held.unproven && self.has_parent)
    }

    /// Is there room for one more open case? A call for help is never refused.
    ///
    /// # Errors
    /// [`Refusal`]: as many are open as a node holds.
    pub fn has_room(&self, sos: bool) -> Result<(), Refusal> {
        if sos || self.open.len() < CASES_MAX {
            return Ok(());
        }
        let detail = format!("{} holds {} open cases, as many as a node may", self.me, self.open.len());
        Err(Refusal::new("full", detail, "`citybrain case list --status open` shows them: some must be closed first"))
    }

    /// The case that another system's one is here.
    pub(super) fn imported_as(&self, source: &str, number: &str) -> Option<&String> {
        let id = self.imported.get(&number_there(source, number))?;
        let there = self.held.get(id)?.case.imported.as_ref()?;
        (there.source == source && there.id == number).then_some(id)
    }

    /// Cases that were opened beside this alarm, the newest first.
    pub fn beside(&self, alarm: &str) -> impl Iterator<Item = &Case> {
        let from = (alarm.to_owned(), (i64::MIN, String::new()));
        let until = (alarm.to_owned(), (i64::MAX, String::new()));
        self.beside.range(from..until).rev().map(|(_, (_, id))| &self.held[id].case)
    }

    /// Cases that may be about the same: same category, open within a week of each other, and near.
    pub fn similar(&self, case: &Case) -> Vec<&Case> {
        let near = |other: &Case| match (&case.place, &other.place) {
            (Some(a), Some(b)) => match (a.lat, a.lon, b.lat, b.lon) {
                (Some(a1), Some(a2), Some(b1), Some(b2)) => (a1 - b1).abs() < NEAR && (a2 - b2).abs() < NEAR,
                _ => !a.text.is_empty() && a.text == b.text && case.opened_at == other.opened_at,
            },
            _ => false,
        };
        let fits = |other: &&Case| {
            other.id != case.id
                // Who asks for a service asks for himself.
                && case.booking.is_none()
                && other.booking.is_none()
                && case.merged_into.as_ref() != Some(&other.id)
                && other.category == case.category
                && (other.opened - case.opened).num_days().abs() <= 7
                && near(other)
        };
        // Ids begin with the day: those of more than a week before need no look.
        let day = case.opened.date_naive().checked_sub_days(Days::new(10));
        let from = day.map(|day| day.format("%Y%m%d").to_string()).unwrap_or_default();
        let of_spot = |spot: u64| {
            let ids = self.spots.range((spot, from.clone())..).take_while(move |(s, _)| *s == spot);
            ids.map(|(_, id)| &self.held[id].case).filter(fits).take(10)
        };
        let mut found: Vec<&Case> = spots(case, 1).into_iter().flat_map(of_spot).collect();
        found.sort_unstable_by_key(|c| &c.id);
        found.dedup_by_key(|c| &c.id);
        found.truncate(10);
        found
    }

    /// The cases that follow it, without those that came back from it, as far as is known here.
    pub fn followers(&self, case: &Case) -> Vec<String> {
        let follows = |id: &&String| self.get(id).is_none_or(|held| held.case.merged_into.as_ref() == Some(&case.id));
        case.followers.iter().filter(follows).cloned().collect()
    }

    /// How many open cases of this node, and of those below, are over a limit?
    pub fn overdue(&self, now: DateTime<Utc>) -> u64 {
        self.limits.range((i64::MIN, String::new())..(now.timestamp_micros(), String::new())).count() as u64
    }

    /// Does anybody call for help, also where another node has the case by now?
    pub fn help_is_wanted(&self) -> bool {
        self.calls.known > 0
    }

    pub fn calls_for_help(&self) -> Calls {
        self.calls
    }

    /// Open ones of this node and of those below, in the order of [`Kind::ALL`].
    pub fn open_by_kind(&self) -> [u64; Kind::ALL.len()] {
        self.open_by_kind
    }

    pub fn open_of_below(&self) -> u64 {
        self.open_by_kind.iter().sum()
    }

    /// Those of nodes above and beside that are known here, and the open ones of them.
    pub fn elsewhere(&self) -> (u64, u64) {
        let all = (self.held.len() as u64).saturating_sub(self.of_below);
        (all, (self.open.len() as u64).saturating_sub(self.open_of_below()))
    }
}

/// By what cases are listed: when it was opened, µs since 1970, and its id.
pub fn opened(case: &Case) -> (i64, String) {
    (case.opened.timestamp_micros(), case.id.clone())
}

/// By what those are listed that ask for one service: when it is for, µs since 1970, and its id.
pub fn booked(case: &Case) -> (i64, String) {
    let at = case.booking.as_ref().and_then(|b| b.at);
    (at.map_or(i64::MAX, |at| at.timestamp_micros()), case.id.clone())
}

/// A hash of another system's name and its number of a case.
pub(super) fn number_there(source: &str, number: &str) -> u64 {
    xxh3_64(format!("{source}\0{number}").as_bytes())
}

/// What a case is found by where another is near: each a hash. `around`: of the squares of [`NEAR`] about it,
/// too, so many to each side.
pub(super) fn spots(case: &Case, around: i64) -> Vec<u64> {
    let Some(place) = &case.place else { return Vec::new() };
    let hash = |text: String| xxh3_64(format!("{}\0{text}", case.category).as_bytes());
    let mut all = Vec::new();
    if let (Some(lat), Some(lon)) = (place.lat, place.lon) {
        let square = |degrees: f64| (degrees / NEAR).floor() as i64;
        for (i, j) in (-around..=around).flat_map(|i| (-around..=around).map(move |j| (i, j))) {
            all.push(hash(format!("{} {}", square(lat).saturating_add(i), square(lon).saturating_add(j))));
        }
    }
    if !place.text.is_empty() {
        all.push(hash(format!("{}\0{}", case.opened_at, place.text)));
    }
    all
}
