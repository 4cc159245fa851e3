//! What needs a look: what is overdue, what is suspended, what came back, where the same is reported again and again, who
//! calls again and again.
//!
//! [`Watching`] is shown every case once and remembers of each only what ranks it; what is told of the
//! few that are shown is looked up at the end. So nobody has to hold all cases still meanwhile.

use super::counts::Scope;
use super::machine::common;
use super::{Cases, Held};
use chrono::{DateTime, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{Case, Place, Status};
use citybrain_shared::view::{Caller, HotSpot, Supervision};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Cells of about 200 m: what is in one is one spot.
const CELL_DEGREES: f64 = 0.002;
/// With what is in a cell beside it, if their middles are nearer than that.
const SPOT_M: u64 = 200;
/// Ids of one row that are told.
const IDS_MAX: usize = 10;

/// Which cases are watched, and which of them are told.
#[derive(Clone, Debug)]
pub struct Question {
    pub scope: Scope,
    /// Reports of one place, or of one person, from which on it is told.
    pub again: u64,
    /// Entries of each list.
    pub limit: usize,
    /// With names and telephone numbers.
    pub shown: bool,
}

pub struct Watching {
    question: Question,
    now: DateTime<Utc>,
    /// By the limit that passed first.
    overdue: Vec<(Option<DateTime<Utc>>, String)>,
    /// By when that was done.
    suspended: Vec<(DateTime<Utc>, String)>,
    /// By when they last changed.
    reopened: Vec<(DateTime<Utc>, String)>,
    /// By category.
    spots: BTreeMap<String, BTreeMap<Cell, Spot>>,
    /// By the telephone number that this node keeps.
    callers: BTreeMap<String, Pile>,
}

/// A square of the map, or words that say where, at one node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    At(i64, i64),
    Words(Address, String),
}

/// Cases that belong together.
#[derive(Default)]
struct Pile {
    cases: u64,
    open: u64,
    /// The newest, latest first.
    newest: Vec<(DateTime<Utc>, String)>,
}

#[derive(Default)]
struct Spot {
    pile: Pile,
    /// In degrees; of `places` cases.
    lat_sum: f64,
    lon_sum: f64,
    places: u32,
    /// The lowest node at which, or below which, all of it was opened.
    node: Option<Address>,
}

impl Watching {
    pub fn new(question: Question, now: DateTime<Utc>) -> Watching {
        Watching {
            question,
            now,
            overdue: Vec::new(),
            suspended: Vec::new(),
            reopened: Vec::new(),
            spots: BTreeMap::new(),
            callers: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, cases: &Cases, held: &Held) {
        let known = held.as_known();
        let case = known.as_ref();
        if !self.question.scope.holds(&cases.me, case) {
            return;
        }
        if case.status.is_open() && case.is_overdue(self.now) {
            let running = case.clocks.iter().filter(|k| k.stopped.is_none() && k.is_limit());
            self.overdue.push((running.filter_map(|k| k.due).min(), case.id.clone()));
        }
        if let Some(approved) = &case.suspended {
            self.suspended.push((approved.at, case.id.clone()));
        }
        if case.reopened > 0 {
            self.reopened.push((case.changed, case.id.clone()));
        }
        // An appointment is what a service is for, and no complaint.
        if case.booking.is_some() {
            return;
        }
        let gone = matches!(case.status, Status::Withdrawn | Status::Rejected);
        // What was merged into another is the same report, and a spot's worth all the more.
        if let Some(cell) = cell_of(case).filter(|_| !gone && !case.is_excluded()) {
            let spot = self.spots.entry(case.category.clone()).or_default().entry(cell).or_default();
            spot.pile.add(case);
            spot.opened_at(&case.opened_at);
            if let Some((lat, lon)) = case.place.as_ref().and_then(|p| p.lat.zip(p.lon)) {
                spot.lat_sum += lat;
                spot.lon_sum += lon;
                spot.places += 1;
            }
        }
        if let Some(contact) = &held.contact {
            let number = number(&contact.phone);
            if !number.is_empty() {
                self.callers.entry(number).or_default().add(case);
            }
        }
    }

    /// Ranks what was seen; without looking at a case again.
    pub fn ranked(mut self) -> Ranked {
        let Question { again, limit, shown, .. } = self.question;
        self.overdue.sort_unstable();
        self.suspended.sort_unstable();
        self.reopened.sort_unstable_by(|a, b| b.cmp(a));
        let few = |ids: Vec<String>| ids.into_iter().take(limit).collect();
        let of_category =
            |(category, cells)| joined(cells).into_iter().map(move |spot| (String::clone(&category), spot));
        let all = self.spots.into_iter().flat_map(of_category);
        let mut spots: Vec<(String, Spot)> = all.filter(|(_, s)| s.pile.cases >= again).collect();
        spots.sort_by_cached_key(|(_, s)| s.pile.rank());
        let mut callers: Vec<Pile> = self.callers.into_values().filter(|c| c.cases >= again).collect();
        callers.sort_by_cached_key(|c| (Reverse(c.cases), c.ids()));
        let lists = [self.overdue.len(), self.suspended.len(), self.reopened.len(), spots.len(), callers.len()];
        let in_all = lists.map(|n| n as u64);
        spots.truncate(limit);
        callers.truncate(limit);
        Ranked {
            overdue: few(self.overdue.into_iter().map(|(_, id)| id).collect()),
            suspended: few(self.suspended.into_iter().map(|(_, id)| id).collect()),
            reopened: few(self.reopened.into_iter().map(|(_, id)| id).collect()),
            in_all,
            spots,
            callers,
            shown,
            now: self.now,
        }
    }
}

/// What is told, by ids.
pub struct Ranked {
    overdue: Vec<String>,
    suspended: Vec<String>,
    reopened: Vec<String>,
    /// Of each list, in the order in which they are told.
    in_all: [u64; 5],
    spots: Vec<(String, Spot)>,
    callers: Vec<Pile>,
    shown: bool,
    now: DateTime<Utc>,
}

impl Ranked {
    /// The lists, with what the cases in them are now.
    pub fn told(self, cases: &Cases) -> Supervision {
        let listed =
            || [&self.overdue, &self.suspended, &self.reopened].into_iter().flatten().filter_map(|id| cases.get(id));
        let who_comes = |held: &Held| (held.case.id.clone(), held.who_comes().cloned().collect());
        let coming = listed().filter(|held| held.who_comes().next().is_some()).map(who_comes).collect();
        let not_coming = listed().filter_map(|held| Some((held.case.id.clone(), held.not_coming()?.clone()))).collect();
        let not_over = listed().filter_map(|held| Some((held.case.id.clone(), held.not_over()?.clone()))).collect();
        let now_as = |ids: Vec<String>| ids.iter().filter_map(|id| cases.get(id)).map(|h| h.case.clone()).collect();
        let [overdue_in_all, suspended_in_all, reopened_in_all, hot_spots_in_all, repeat_callers_in_all] = self.in_all;
        Supervision {
            overdue: now_as(self.overdue),
            overdue_in_all,
            suspended: now_as(self.suspended),
            suspended_in_all,
            reopened: now_as(self.reopened),
            reopened_in_all,
            hot_spots: self.spots.into_iter().map(|(category, s)| s.told(category, cases)).collect(),
            hot_spots_in_all,
            repeat_callers: self.callers.into_iter().map(|c| c.told(cases, self.shown)).collect(),
            repeat_callers_in_all,
            coming,
            not_coming,
            not_over,
            gone: cases.gone(),
            away: Vec::new(),
            awaits: cases.awaited(),
            at: self.now,
        }
    }
}

impl Pile {
    fn add(&mut self, case: &Case) {
        self.cases += 1;
        self.open += u64::from(case.status.is_open());
        let this = (case.opened, case.id.clone());
        let at = self.newest.partition_point(|known| *known > this);
        if at < IDS_MAX {
            self.newest.insert(at, this);
            self.newest.truncate(IDS_MAX);
        }
    }

    fn join(&mut self, other: Pile) {
        self.cases += other.cases;
        self.open += other.open;
        self.newest.extend(other.newest);
        self.newest.sort_unstable_by(|a, b| b.cmp(a));
        self.newest.truncate(IDS_MAX);
    }

    fn ids(&self) -> Vec<String> {
        self.newest.iter().map(|(_, id)| id.clone()).collect()
    }

    /// Most cases first, then the latest.
    fn rank(&self) -> impl Ord + use<> {
        (Reverse(self.cases), Reverse(self.newest.first().map(|(at, _)| *at)), self.ids())
    }

    fn first<'c>(&self, cases: &'c Cases) -> Option<&'c Held> {
        self.newest.first().and_then(|(_, id)| cases.get(id))
    }

    fn opened(&self) -> DateTime<Utc> {
        self.newest.first().map(|(at, _)| *at).unwrap_or_default()
    }

    fn told(self, cases: &Cases, shown: bool) -> Caller {
        let contact = self.first(cases).and_then(|h| h.contact.clone()).filter(|_| shown);
        Caller { contact, cases: self.cases, open: self.open, newest: self.opened(), ids: self.ids() }
    }
}

impl Spot {
    /// In the middle of all that is reported there.
    fn middle(&self) -> Place {
        let mean = |sum: f64| (self.places > 0).then(|| sum / f64::from(self.places));
        Place { lat: mean(self.lat_sum), lon: mean(self.lon_sum), ..Place::default() }
    }

    fn opened_at(&mut self, node: &Address) {
        self.node = Some(self.node.as_ref().and_then(|known| common(known, node)).unwrap_or_else(|| node.clone()));
    }

    fn join(&mut self, other: Spot) {
        other.node.iter().for_each(|node| self.opened_at(node));
        self.pile.join(other.pile);
        self.lat_sum += other.lat_sum;
        self.lon_sum += other.lon_sum;
        self.places += other.places;
    }

    fn told(self, category: String, cases: &Cases) -> HotSpot {
        let newest = self.pile.first(cases).map(|h| &h.case);
        let place: Place = newest.and_then(|c| c.place.clone()).unwrap_or_default();
        // In the middle of them all, as it is no secret where a lamp is broken.
        let middle = self.middle();
        let rounded = |degrees: Option<f64>| degrees.map(|degrees| (degrees * 1e5).round() / 1e5);
        HotSpot {
            category,
            category_name: newest.map(|c| c.category_name.clone()).unwrap_or_default(),
            place: place.text,
            node: self.node,
            lat: rounded(middle.lat),
            lon: rounded(middle.lon),
            cases: self.pile.cases,
            open: self.pile.open,
            newest: self.pile.opened(),
            ids: self.pile.ids(),
        }
    }
}

/// The spots of one category. The fullest cell first takes those around it that are near, so that no border of the
/// grid cuts a spot in pieces; it takes none that is farther away, so that spots do not grow into a whole town.
fn joined(mut cells: BTreeMap<Cell, Spot>) -> Vec<Spot> {
    let mut order: Vec<_> = cells.iter().map(|(cell, spot)| (spot.pile.rank(), cell.clone())).collect();
    order.sort_unstable();
    let mut spots = Vec::new();
    for (_, cell) in order {
        let Some(mut spot) = cells.remove(&cell) else { continue };
        let middle = spot.middle();
        for beside in cell.around() {
            let is_near = |other: &Spot| middle.metres_to(&other.middle()).is_some_and(|m| m < SPOT_M);
            if cells.get(&beside).is_some_and(is_near) {
                spot.join(cells.remove(&beside).unwrap_or_default());
            }
        }
        spots.push(spot);
    }
    spots
}

impl Cell {
    /// The cells that it touches.
    fn around(&self) -> Vec<Cell> {
        let Cell::At(lat, lon) = *self else { return Vec::new() };
        let steps = (-1..=1).flat_map(|north| (-1..=1).map(move |east| (north, east)));
        steps.map(|(north, east)| Cell::At(lat + north, lon + east)).collect()
    }
}

fn cell_of(case: &Case) -> Option<Cell> {
    let place = case.place.as_ref()?;
    if let (Some(lat), Some(lon)) = (place.lat, place.lon) {
        let cell = |degrees: f64| (degrees / CELL_DEGREES).floor() as i64;
        return Some(Cell::At(cell(lat), cell(lon)));
    }
    let words = place.text.trim();
    (!words.is_empty()).then(|| Cell::Words(case.opened_at.clone(), words.to_owned()))
}

/// A telephone number as it is told from others: with the country's code in front, without the zero that is dialled
/// before an area's code, or in full-width digits as input methods write them, it is no other one.
fn number(phone: &str) -> String {
    let narrow = |c: char| match c {
        '０'..='９' | '＋' => char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c),
        _ => c,
    };
    let written: String = phone.chars().map(narrow).filter(|c| c.is_ascii_digit() || *c == '+').collect();
    let all = written.replace('+', "");
    let abroad = all.strip_prefix("00").or_else(|| written.starts_with('+').then_some(&all));
    let national = match abroad.filter(|rest| !rest.is_empty()) {
        Some(rest) => match rest.strip_prefix("86") {
            Some(national) => national,
            None => return format!("+{rest}"),
        },
        None => all.strip_prefix("86").filter(|rest| [10, 11].contains(&rest.len())).unwrap_or(&all),
    };
    national.strip_prefix('0').unwrap_or(national).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_telephone_number_is_one_however_it_is_written() {
        let mobile = [
            "13912345678",
            "+86 139-1234-5678",
            "008613912345678",
            "8613912345678",
            "１３９１２３４５６７８",
            "(+86)139 1234 5678",
        ];
        assert!(mobile.iter().all(|phone| number(phone) == "13912345678"), "{:?}", mobile.map(number));
        let landline =
            ["01012345678", "010-12345678", "(010)12345678", "861012345678", "＋86 10 12345678", "+86 (0)10 12345678"];
        assert!(landline.iter().all(|phone| number(phone) == "1012345678"), "{:?}", landline.map(number));
        assert_eq!(
            ["+1 391 234 5678", "8612 3456", "12345", "ask at the gate", ""].map(number),
            ["+13912345678", "86123456", "12345", "", ""]
        );
    }
}
