//! Cases: matters that somebody must deal with, from the press or the letter to the verdict.
//!
//! | module | what it owns |
//! |---|---|
//! | [`machine`] | the life of a case: steps, refusals, clocks; pure |
//! | [`calendar`] | working time |
//! | [`check`] | what is wrong with categories, calendar and weights before a start |
//! | [`letter`] | what a case's events look like, and how they find their way |
//! | [`intake`] | events that open cases |
//! | [`rates`] | response, solution, satisfaction, counted |
//!
//! **Promises.** (1) At any moment at most one node may step a case, whatever is cut, killed, delayed
//! or repeated. (2) Every node that a case's records reach ends up with the same copy. (3) A wish
//! that was taken is done or refused, once. (4) A limit that passes is acted on once, also after a
//! restart. (5) Names and telephone numbers leave a node only with a case that is handed over.
//!
//! **Format.** A step's record holds the whole case as the step left it and one line of history. A
//! copy is the case with the highest (term, version) and the set of all lines: whatever order records
//! come in, copies converge, and a gap heals with the next step. `term` counts hands, `version` steps;
//! both go on across hands, so what a node wrote that had lost the case (restored from a backup) is
//! recognised as older and answered with the newer copy.
//!
//! **Operation.** Opening and calling happen in the commit that takes their cause. Whatever depends on
//! the newest copy (wishes from other nodes, cases handed here, timers) waits in an inbox that is
//! folded from the log too, and is decided one by one right after that commit. The clock of a case
//! runs at its owner; while a hand-over is under way nobody steps, and what was missed meanwhile is
//! acted on when it is taken.
//!
//! **Bounds.** [`CASES_MAX`] cases, the oldest closed ones give way; [`HISTORY_MAX`] lines of each.

pub mod calendar;
pub mod check;
pub mod intake;
pub mod letter;
pub mod machine;
pub mod rates;
#[cfg(test)]
mod tests;

pub use machine::{Opening, Refusal};

use crate::brain::services::{hours, request};

use calendar::Calendar;
use chrono::{DateTime, Utc};
use citybrain_hub::policy::{Policy, Row};
use citybrain_hub::state::State;
use citybrain_shared::case::{Ask, Booked, Booking, Case, Contact, Entry, Role, Seat, Status, Verb};
use citybrain_shared::config::Config;
use citybrain_shared::config::cases::{Cases as Settings, Category};
use citybrain_shared::config::services::Service;
use citybrain_shared::record::{Direction, Draft, Header, Kind};
use citybrain_shared::{Address, Pos, view};
use letter::{Body, Letter, Pen, Step};
use machine::{Book, Stepped, common};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Cases that a node holds, about 3 KB each. A city of 10,000 cases a day holds three weeks.
const CASES_MAX: usize = 200_000;
/// Lines of history of one case; of more, the oldest but the first go.
const HISTORY_MAX: usize = 300;
/// Wishes of this node about one case whose fate is remembered.
const WISHES_MAX: usize = 16;
/// Letters and timers in one group: a few milliseconds of work.
const TOGETHER: usize = 64;
/// Presses of one button that are recorded on its incident, so that one that is stuck does not push
/// out what people did; all of them are in the log.
const PRESSES_MAX: usize = 50;
/// How the line of history begins that records one.
const AGAIN: &str = "pressed again";
/// A wish is sent after a case that has moved on so many times.
const HOPS_MAX: u8 = 4;

/// A case as this node knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    pub case: Case,
    /// Oldest first; each (term, version) once.
    pub history: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// What this node has asked the owner for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wishes: Vec<Wish>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    pub id: String,
    pub verb: Verb,
    pub by: String,
    pub to: Address,
    /// Why it was not done; without it there is no answer yet. A wish that was done is a line of history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What became of a wish at this node.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Done,
    /// The owner was asked.
    Sent {
        to: Address,
        wish: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Dirty {
    Case,
    Inbox,
}

/// What a booking is counted under.
type Place = (String, Option<DateTime<Utc>>, Seat);

pub struct Cases {
    me: Address,
    calendar: Calendar,
    categories: Arc<Vec<Category>>,
    /// What this node itself offers.
    services: Vec<Service>,
    pub settings: Settings,
    held: BTreeMap<String, Held>,
    /// Letters that wait for a decision, by when they came.
    inbox: BTreeMap<u64, Letter>,
    /// Clocks of cases that are this node's: µs since 1970, case, clock.
    due: BTreeSet<(i64, String, String)>,
    /// Seats that were given of this node's services: by service, begin and kind.
    given: BTreeMap<Place, u32>,
    /// Cases that are over, by when.
    over: BTreeSet<(i64, String)>,
    /// Open incidents that began here, by their buttons.
    buttons: BTreeSet<(String, String)>,
    dirty: HashSet<(Dirty, String)>,
}

impl Cases {
    pub fn new(config: &Config) -> Cases {
        Cases {
            me: config.node.address.clone(),
            // A config with a calendar that does not read is refused at a start.
            calendar: Calendar::new(&config.calendar).unwrap_or_default(),
            categories: Arc::new(config.category.clone()),
            services: config.service.clone(),
            settings: config.cases.clone(),
            held: BTreeMap::new(),
            inbox: BTreeMap::new(),
            due: BTreeSet::new(),
            over: BTreeSet::new(),
            buttons: BTreeSet::new(),
            given: BTreeMap::new(),
            dirty: HashSet::new(),
        }
    }

    pub fn book(&self) -> Book<'_> {
        Book { me: &self.me, calendar: &self.calendar, categories: &self.categories, settings: &self.settings }
    }

    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    pub fn get(&self, id: &str) -> Option<&Held> {
        self.held.get(id)
    }

    /// All cases, oldest id first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Held> {
        self.held.values()
    }

    /// The one case whose id is this, begins with this, or ends with this after the day.
    ///
    /// # Errors
    /// None, or several.
    pub fn find(&self, text: &str) -> Result<&Held, Refusal> {
        if let Some(held) = self.held.get(text) {
            return Ok(held);
        }
        let fits = |id: &str| id.starts_with(text) || id.split('-').nth(1).is_some_and(|rest| rest.starts_with(text));
        let mut found = self.held.values().filter(|h| !text.is_empty() && fits(&h.case.id));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(a), Some(b)) => {
                let detail = format!("`{text}` may be {}, {} or another", a.case.id, b.case.id);
                Err(Refusal::new("ambiguous", detail, "write more of it"))
            }
            _ => {
                let detail = format!("{} knows no case `{text}`", self.me);
                Err(Refusal::new("not-found", detail, "`citybrain case list` shows those it knows"))
            }
        }
    }

    /// May this node step the case?
    pub fn may_step(&self, id: &str) -> bool {
        self.held.get(id).is_some_and(|h| h.case.owner == self.me && h.case.handing_to.is_none())
    }

    /// Opens a case that no event brought; the contact stays here.
    pub fn open(&self, opening: Opening, contact: Contact, now_us: i64) -> (Case, Vec<Draft>) {
        let now = view::time_of(now_us);
        let stepped = self.book().open(opening, now);
        let mut drafts = Vec::new();
        self.write(&stepped, Some(&contact), None, now, &mut drafts);
        self.contact_draft(&stepped.case.id, &contact, now, &mut drafts);
        let answer = self.booked(&stepped.case, now);
        if let Some(answer) = &answer {
            self.write(answer, Some(&contact), None, now, &mut drafts);
        }
        (answer.unwrap_or(stepped).case, drafts)
    }

    /// A wish made at this node: done if the case is ours, else sent to its owner. `wish` is a fresh id.
    ///
    /// # Errors
    /// [`Refusal`], in words for whoever asked.
    pub fn ask(
        &self,
        id: &str,
        verb: Verb,
        ask: &Ask,
        wish: &str,
        now_us: i64,
    ) -> Result<(String, Told, Vec<Draft>), Refusal> {
        let now = view::time_of(now_us);
        let held = self.find(id)?;
        let id = held.case.id.clone();
        let mut drafts = Vec::new();
        if held.case.owner == self.me {
            for stepped in self.step(held, verb, ask, &self.me, now)? {
                self.write(&stepped, held.contact.as_ref(), None, now, &mut drafts);
            }
            return Ok((id, Told::Done, drafts));
        }
        if ask.by.trim().is_empty() {
            return Err(Refusal::new("missing", "`by` is missing: who does it", "`--by NAME`"));
        }
        let to = held.case.handing_to.as_ref().unwrap_or(&held.case.owner).clone();
        let body = Body::Ask { case: id.clone(), verb, ask: ask.clone(), hops: 0 };
        let letter = self.letter(wish.to_owned(), &to, held.case.urgent, body);
        drafts.extend(Pen { me: &self.me, now }.letter(&letter));
        Ok((id, Told::Sent { to, wish: wish.to_owned() }, drafts))
    }

    /// Removes names and telephone numbers from this node's state; the log's own copy goes with its
    /// segment.
    ///
    /// # Errors
    /// When there is no such case, or nothing to forget.
    pub fn forget(&self, id: &str, by: &str, now_us: i64) -> Result<(String, Vec<Draft>), Refusal> {
        let held = self.find(id)?;
        let id = held.case.id.clone();
        if held.contact.is_none() {
            return Err(Refusal::new("nothing-to-do", format!("{} keeps no contact data of `{id}`", self.me), ""));
        }
        let now = view::time_of(now_us);
        let draft = Pen { me: &self.me, now }.local(
            letter::FORGOTTEN,
            &format!("{id}.forgotten.{now_us:x}"),
            &id,
            serde_json::json!({"case": id, "by": by}),
        );
        Ok((id, vec![draft]))
    }

    /// Cases that may be about the same: same category, open within a week of each other, and near.
    pub fn similar(&self, case: &Case) -> Vec<&Case> {
        let near = |other: &Case| match (&case.place, &other.place) {
            (Some(a), Some(b)) => match (a.lat, a.lon, b.lat, b.lon) {
                // 0.002 degrees are about 200 m.
                (Some(a1), Some(a2), Some(b1), Some(b2)) => (a1 - b1).abs() < 0.002 && (a2 - b2).abs() < 0.002,
                _ => !a.text.is_empty() && a.text == b.text && case.opened_at == other.opened_at,
            },
            _ => false,
        };
        let fits = |other: &&Case| {
            other.id != case.id
                && other.category == case.category
                && other.status.is_open()
                && (other.opened - case.opened).num_days().abs() <= 7
                && near(other)
        };
        self.held.values().map(|h| &h.case).filter(fits).take(10).collect()
    }

    fn step(
        &self,
        held: &Held,
        verb: Verb,
        ask: &Ask,
        from: &Address,
        now: DateTime<Utc>,
    ) -> Result<Vec<Stepped>, Refusal> {
        let other = |id: &str| {
            let held = self.find(id).ok()?;
            (held.case.owner == self.me).then(|| held.case.clone())
        };
        self.book().act(&held.case, verb, ask, from, &other, now)
    }

    /// The records of a step of this node: the step, and the hand-over that it may begin.
    fn write(
        &self,
        stepped: &Stepped,
        contact: Option<&Contact>,
        answers: Option<&str>,
        now: DateTime<Utc>,
        drafts: &mut Vec<Draft>,
    ) {
        let pen = Pen { me: &self.me, now };
        drafts.push(pen.step(stepped, answers));
        let Some(to) = &stepped.case.handing_to else { return };
        let known = self.held.get(&stepped.case.id).map(|h| h.history.as_slice()).unwrap_or_default();
        let mut history: Vec<Entry> = known[known.len().saturating_sub(letter::HISTORY_SENT)..].to_vec();
        history.push(stepped.entry.clone());
        let contact = contact.filter(|c| self.settings.contact_travels && !c.is_empty()).cloned();
        let id = format!("{}.{}.{}.hand-over", stepped.case.id, stepped.case.term, stepped.case.version);
        let body = Body::HandOver { case: stepped.case.clone(), history, contact };
        drafts.extend(pen.letter(&self.letter(id, to, stepped.case.urgent, body)));
    }

    /// The answer to a request for a service of this node that has none yet.
    fn booked(&self, case: &Case, now: DateTime<Utc>) -> Option<Stepped> {
        let booking = case.booking.as_ref().filter(|b| b.node == self.me && b.state == Booked::Asked)?;
        Some(self.book().book(case, self.lack(booking, now), now))
    }

    /// Why a booking cannot be given.
    fn lack(&self, booking: &Booking, now: DateTime<Utc>) -> Option<String> {
        let Some(service) = self.services.iter().find(|s| s.code == booking.service) else {
            return Some(format!("{} no longer offers `{}`", self.me, booking.service));
        };
        if let Some(at) = booking.at.filter(|_| service.starts.is_none())
            && !request::is_slot(service, at, now, &self.calendar)
        {
            return Some(format!("there is no appointment at {} any more", self.calendar.shown(at)));
        }
        if booking.until.or(booking.at).is_some_and(|end| end <= now) {
            return Some("it is over".into());
        }
        let left = self.left(service, booking.at, booking.seat)?;
        (left < booking.seats).then(|| {
            let next = self.free(service, now).slots.into_iter().filter(|s| s.free > 0).take(3);
            let next: Vec<String> = next.map(|s| s.local).collect();
            let free = if next.is_empty() { String::new() } else { format!("; free is {}", next.join(", ")) };
            format!("{left} of {} are left{free}", limit_of(service, booking.seat).unwrap_or(0))
        })
    }

    /// Seats that are left; `None` where nothing is counted.
    fn left(&self, service: &Service, at: Option<DateTime<Utc>>, seat: Seat) -> Option<u32> {
        let given = self.given.get(&(service.code.clone(), at, seat)).copied().unwrap_or(0);
        Some(limit_of(service, seat)?.saturating_sub(given))
    }

    /// What is free of a service of this node.
    pub fn free(&self, service: &Service, now: DateTime<Utc>) -> view::Free {
        let at = request::activity(service, &self.calendar).map(|(starts, _)| starts);
        let slot = |at| view::Slot {
            at,
            local: self.calendar.shown(at),
            free: self.left(service, Some(at), Seat::Visitor).unwrap_or(0),
        };
        let slots = match service.slot {
            Some(length) => {
                let (hours, length_s) = (request::hours_of(service), request::length_s(length, &self.calendar));
                hours::slots_ahead(&hours, length_s, now, service.ahead_days, &self.calendar)
            }
            None => Vec::new(),
        };
        view::Free {
            slots: slots.into_iter().map(slot).collect(),
            places: service.starts.as_ref().and_then(|_| self.left(service, at, Seat::Visitor)),
            volunteers: service.starts.as_ref().and_then(|_| self.left(service, at, Seat::Volunteer)),
        }
    }

    fn contact_draft(&self, id: &str, contact: &Contact, now: DateTime<Utc>, drafts: &mut Vec<Draft>) {
        if contact.is_empty() {
            return;
        }
        let data = serde_json::json!({"case": id, "contact": contact});
        drafts.push(Pen { me: &self.me, now }.local(letter::CONTACT, &format!("{id}.contact"), id, data));
    }

    // ---- deciding ------------------------------------------------------------------------------

    fn opened_by(&self, header: &Header<'_>, payload: &[u8], now_us: i64) -> Vec<Draft> {
        let now = view::time_of(now_us);
        let Some((opening, contact)) = intake::read(header, payload, self.calendar.day(now)) else { return Vec::new() };
        if self.held.contains_key(&opening.id) {
            return Vec::new();
        }
        match self.pressed_again(&opening, &contact, now_us) {
            Some((_, drafts)) => drafts,
            None => self.open(opening, contact, now_us).1,
        }
    }

    /// Records the press of a button on the incident that it has opened, if that is not over: that
    /// case, and what there is to write. `None`: it is another matter.
    pub fn pressed_again(&self, opening: &Opening, contact: &Contact, now_us: i64) -> Option<(String, Vec<Draft>)> {
        let button = opening.button.as_ref()?;
        let open = self.buttons.range((button.clone(), String::new())..).take_while(|(b, _)| b == button);
        let held =
            open.filter_map(|(_, id)| self.held.get(id)).find(|held| self.is_same_matter(held, opening, contact))?;
        let now = view::time_of(now_us);
        let id = held.case.id.clone();
        let mut drafts = Vec::new();
        if held.contact.is_none() {
            self.contact_draft(&id, contact, now, &mut drafts);
        }
        if held.history.iter().filter(|e| e.text.starts_with(AGAIN)).count() >= PRESSES_MAX {
            return Some((id, drafts));
        }
        let said = [opening.description.as_str()].into_iter().filter(|t| !t.is_empty());
        let text = std::iter::once(AGAIN).chain(said).collect::<Vec<_>>().join(": ");
        let ask = Ask { by: opening.by.clone(), role: Some(Role::Resident), text: Some(text), ..Ask::default() };
        if self.may_step(&id) {
            for stepped in self.step(held, Verb::Comment, &ask, &self.me, now).unwrap_or_default() {
                self.write(&stepped, held.contact.as_ref(), None, now, &mut drafts);
            }
        } else {
            let to = held.case.handing_to.as_ref().unwrap_or(&held.case.owner);
            let body = Body::Ask { case: id.clone(), verb: Verb::Comment, ask, hops: 0 };
            let letter = self.letter(format!("{id}.press.{}", opening.id), to, held.case.urgent, body);
            drafts.extend(Pen { me: &self.me, now }.letter(&letter));
        }
        Some((id, drafts))
    }

    /// A button with a name of its own is one matter while its incident is open; behind a source
    /// without a subject may be many people, so nothing that is said may differ.
    fn is_same_matter(&self, held: &Held, opening: &Opening, contact: &Contact) -> bool {
        let named = opening.button.as_ref().is_some_and(|b| !b.starts_with(intake::SOURCE_ONLY));
        self.book().is_same_category(&held.case, opening)
            && (named
                || (opening.place == held.case.place
                    && opening.title.starts_with(&held.case.title)
                    && opening.description == held.case.description
                    && held.contact.clone().unwrap_or_default() == *contact))
    }

    /// What a step, of this node or from below, asks of this node: calls, copies for others, a word to
    /// one who did not know that the case is gone.
    fn seen(&self, step: &Step, now: DateTime<Utc>) -> Vec<Draft> {
        let pen = Pen { me: &self.me, now };
        let Step { case, entry, answers } = step;
        let mut drafts = Vec::new();
        if let Some(known) = self.held.get(&case.id)
            && entry.node != self.me
            && known.case.order() >= case.order()
        {
            // Known, or written by one who has lost the case and does not know it yet.
            if !known.history.contains(entry) {
                drafts.extend(self.copy_to(&entry.node, &known.case, known.history.last(), &known.history, None, now));
            }
            return drafts;
        }
        if entry.calls.contains(&self.me) {
            drafts.push(pen.call(case, entry));
        }
        let mut to: Vec<&Address> = vec![&case.opened_at];
        // Who asked for it; of a case that was taken: who gave it.
        to.extend(entry.from.as_ref());
        to.extend(entry.calls.iter());
        to.sort_unstable();
        to.dedup();
        for to in to {
            // Those above the owner see its records; the others are told by the node above both.
            let is_mine = !to.covers(&entry.node) && common(&entry.node, to).as_ref() == Some(&self.me);
            if is_mine && *to != self.me {
                let known = self.held.get(&case.id).map(|h| h.history.as_slice()).unwrap_or_default();
                drafts.extend(self.copy_to(to, case, Some(entry), known, answers.as_deref(), now));
            }
        }
        drafts
    }

    fn copy_to(
        &self,
        to: &Address,
        case: &Case,
        entry: Option<&Entry>,
        history: &[Entry],
        answers: Option<&str>,
        now: DateTime<Utc>,
    ) -> Option<Draft> {
        let history = history[history.len().saturating_sub(letter::HISTORY_SENT)..].to_vec();
        let id = format!("{}.{}.{}.copy.{to}", case.id, case.term, case.version);
        let answers = answers.map(str::to_owned);
        let body = Body::Copy { case: case.clone(), entry: entry?.clone(), history, answers };
        Pen { me: &self.me, now }.letter(&self.letter(id, to, case.urgent, body))
    }

    fn letter(&self, id: String, to: &Address, urgent: bool, body: Body) -> Letter {
        Letter { id, from: self.me.clone(), via: None, to: to.clone(), urgent, body }
    }

    /// Everything that a letter in the inbox leads to, and that it is done.
    fn answer(&self, letter: &Letter, now: DateTime<Utc>) -> Vec<Draft> {
        let pen = Pen { me: &self.me, now };
        let done = |word: &str| {
            let data = serde_json::json!({"letter": letter.id, "what": word});
            pen.local(letter::ANSWERED, &format!("{}.answered", letter.id), letter.body.case(), data)
        };
        match &letter.body {
            Body::HandOver { case, .. } => {
                let newest = self.held.get(&case.id).map(|h| &h.case);
                // What came late, or again, was taken before.
                let Some(newest) =
                    newest.filter(|k| k.order() == case.order() && k.handing_to.as_ref() == Some(&self.me))
                else {
                    return vec![done("known")];
                };
                let mut drafts = Vec::new();
                let taken = self.book().take(newest, now);
                self.write(&taken, None, Some(&letter.id), now, &mut drafts);
                if let Some(answer) = self.booked(&taken.case, now) {
                    self.write(&answer, None, None, now, &mut drafts);
                }
                drafts
            }
            Body::Ask { case, verb, ask, hops } => {
                let refused = |r: Refusal| {
                    let body = Body::Refused {
                        case: case.clone(),
                        answers: letter.id.clone(),
                        error: r.error.to_owned(),
                        detail: if r.hint.is_empty() { r.detail } else { format!("{}; {}", r.detail, r.hint) },
                    };
                    let id = format!("{}.refused", letter.id);
                    let mut drafts = vec![done(r.error)];
                    drafts.extend(pen.letter(&self.letter(id, &letter.from, letter.urgent, body)));
                    drafts
                };
                let Some(held) = self.held.get(case) else {
                    return refused(Refusal::new("not-found", format!("{} knows no case `{case}`", self.me), ""));
                };
                if held.case.owner != self.me {
                    let to = held.case.handing_to.as_ref().unwrap_or(&held.case.owner).clone();
                    if *hops >= HOPS_MAX || to == letter.from || to == self.me {
                        return refused(Refusal::new("not-owner", format!("`{case}` is at {to}"), "ask there"));
                    }
                    let body = Body::Ask { case: case.clone(), verb: *verb, ask: ask.clone(), hops: hops + 1 };
                    let mut drafts = vec![done("sent on")];
                    drafts.extend(pen.letter(&Letter { to, body, via: Some(self.me.clone()), ..letter.clone() }));
                    return drafts;
                }
                match self.step(held, *verb, ask, &letter.from, now) {
                    Err(refusal) => refused(refusal),
                    Ok(all) => {
                        let mut drafts = Vec::new();
                        for (i, stepped) in all.iter().enumerate() {
                            let answers = (i == 0).then_some(letter.id.as_str());
                            self.write(stepped, held.contact.as_ref(), answers, now, &mut drafts);
                        }
                        drafts
                    }
                }
            }
            Body::Copy { .. } | Body::Refused { .. } => vec![done("known")],
        }
    }

    // ---- folding -------------------------------------------------------------------------------

    fn fold(&mut self, case: &Case, entries: &[Entry]) {
        let id = case.id.clone();
        self.index(&id, false);
        match self.held.get_mut(&id) {
            None => {
                let held = Held { case: case.clone(), history: Vec::new(), contact: None, wishes: Vec::new() };
                self.held.insert(id.clone(), held);
            }
            Some(held) if case.order() > held.case.order() => held.case = case.clone(),
            Some(_) => {}
        }
        if let Some(held) = self.held.get_mut(&id) {
            for entry in entries {
                let key = |e: &Entry| (e.term, e.version);
                if let Err(place) = held.history.binary_search_by_key(&key(entry), key) {
                    held.history.insert(place, entry.clone());
                }
            }
            if held.history.len() > HISTORY_MAX {
                let extra = held.history.len() - HISTORY_MAX;
                held.history.drain(1..=extra);
            }
        }
        self.index(&id, true);
        self.dirty.insert((Dirty::Case, id));
        while self.held.len() > CASES_MAX {
            let Some((_, id)) = self.over.pop_first() else { break };
            self.held.remove(&id);
            self.dirty.insert((Dirty::Case, id));
        }
    }

    /// Puts a case's timers and its place among those that are over in, or takes them out.
    fn index(&mut self, id: &str, put: bool) {
        let Some(held) = self.held.get(id) else { return };
        let case = &held.case;
        let timers = case.clocks.iter().filter(|c| c.runs() && c.missed.is_none());
        let timers = timers.filter_map(|c| Some((c.due?.timestamp_micros(), id.to_owned(), c.name.clone())));
        let button = case.button.clone().filter(|_| case.opened_at == self.me && case.status.is_open());
        let button = button.map(|b| (b, id.to_owned()));
        let over = (case.closed.unwrap_or(case.changed).timestamp_micros(), id.to_owned());
        // Once given, a seat is taken, whoever has the case by now, until it is given back.
        let given = case.booking.as_ref().filter(|b| b.node == self.me && b.state == Booked::Booked);
        if let Some(b) = given.filter(|_| !matches!(case.status, Status::Withdrawn | Status::Rejected)) {
            let seats = self.given.entry((b.service.clone(), b.at, b.seat)).or_default();
            *seats = if put { *seats + b.seats } else { seats.saturating_sub(b.seats) };
        }
        if !put {
            for timer in timers {
                self.due.remove(&timer);
            }
            self.over.remove(&over);
            if let Some(button) = button {
                self.buttons.remove(&button);
            }
            return;
        }
        self.buttons.extend(button);
        if case.owner == self.me && case.handing_to.is_none() {
            self.due.extend(timers);
        }
        if !case.status.is_open() {
            self.over.insert(over);
        }
    }

    fn settle(&mut self, answers: &str) {
        if let Some(pos) = self.inbox.iter().find(|(_, l)| l.id == answers).map(|(pos, _)| *pos) {
            self.inbox.remove(&pos);
            self.dirty.insert((Dirty::Inbox, format!("{pos:020}")));
        }
    }

    /// The answer to a wish of this node, in the case's own records.
    fn granted(&mut self, case: &str, wish: &str) {
        if let Some(held) = self.held.get_mut(case) {
            held.wishes.retain(|w| w.id != wish);
        }
    }

    fn apply_letter(&mut self, pos: Pos, header: &Header<'_>, letter: Letter) {
        let own = header.origin.is_none();
        if own && letter.from == self.me && letter.to != self.me {
            if let Body::Ask { case, verb, ask, .. } = &letter.body
                && let Some(held) = self.held.get_mut(case)
            {
                let wish = Wish {
                    id: letter.id.clone(),
                    verb: *verb,
                    by: ask.by.clone(),
                    to: letter.to.clone(),
                    refused: None,
                };
                held.wishes.push(wish);
                let extra = held.wishes.len().saturating_sub(WISHES_MAX);
                held.wishes.drain(..extra);
                self.dirty.insert((Dirty::Case, case.clone()));
            }
            return;
        }
        if letter.to != self.me {
            // On its way down: those between must know as much as those below.
            if let (Direction::Down, Body::Copy { case, entry, history, .. }) = (header.direction, &letter.body) {
                self.fold(case, history);
                self.fold(case, std::slice::from_ref(entry));
            }
            return;
        }
        if !is_true(header, &letter) {
            return;
        }
        match &letter.body {
            Body::Copy { case, entry, history, answers } => {
                self.fold(case, history);
                self.fold(case, std::slice::from_ref(entry));
                if let Some(wish) = answers {
                    self.granted(&case.id, wish);
                }
            }
            Body::HandOver { case, history, contact } => {
                self.fold(case, history);
                if let (Some(contact), Some(held)) = (contact, self.held.get_mut(&case.id)) {
                    held.contact = Some(contact.clone());
                }
                self.post(pos, letter);
            }
            Body::Ask { .. } => self.post(pos, letter),
            Body::Refused { case, answers, detail, .. } => {
                if let Some(held) = self.held.get_mut(case)
                    && let Some(wish) = held.wishes.iter_mut().find(|w| w.id == *answers)
                {
                    wish.refused = Some(detail.clone());
                    self.dirty.insert((Dirty::Case, case.clone()));
                }
            }
        }
    }

    fn post(&mut self, pos: Pos, letter: Letter) {
        self.dirty.insert((Dirty::Inbox, format!("{:020}", pos.0)));
        self.inbox.insert(pos.0, letter);
    }
}

/// Does a letter say truly where it comes from? On its way down the parent vouches for it.
fn is_true(header: &Header<'_>, letter: &Letter) -> bool {
    match (header.direction, header.origin) {
        (Direction::Up, Some(origin)) => letter.sender().as_str() == origin.address,
        _ => true,
    }
}

impl Policy for Cases {
    fn decide(&self, _: &State, now_us: i64, header: &Header<'_>, payload: &[u8]) -> Vec<Draft> {
        if header.kind != Kind::Event {
            return Vec::new();
        }
        let now = view::time_of(now_us);
        let Some(step) = header.name.strip_prefix(letter::PREFIX) else {
            return if intake::opens(header, payload) { self.opened_by(header, payload, now_us) } else { Vec::new() };
        };
        match step {
            "letter" => {
                let Some(letter) = letter::data::<Letter>(payload) else { return Vec::new() };
                if letter.to == self.me {
                    if let Body::Copy { case, entry, .. } = &letter.body
                        && entry.calls.contains(&self.me)
                        && self.held.get(&case.id).is_none_or(|h| !h.history.contains(entry))
                    {
                        return vec![Pen { me: &self.me, now }.call(case, entry)];
                    }
                    return Vec::new();
                }
                // From below, for another part of this subtree: here it turns.
                let turns = header.origin.is_some()
                    && header.direction == Direction::Up
                    && is_true(header, &letter)
                    && common(letter.sender(), &letter.to).as_ref() == Some(&self.me);
                if turns { Pen { me: &self.me, now }.letter(&letter).into_iter().collect() } else { Vec::new() }
            }
            "call" | "contact" | "forgotten" | "answered" => Vec::new(),
            _ => match letter::data::<Step>(payload) {
                Some(step) if is_of_its_node(&self.me, header, &step) => self.seen(&step, now),
                _ => Vec::new(),
            },
        }
    }

    fn next_due_us(&self) -> Option<i64> {
        if !self.inbox.is_empty() {
            return Some(0);
        }
        self.due.first().map(|(at, _, _)| *at)
    }

    fn on_due(&self, _: &State, now_us: i64) -> Vec<Draft> {
        let now = view::time_of(now_us);
        let mut drafts = Vec::new();
        // One decision a case in a group: the next one must see what the first has done.
        let mut touched: HashSet<&str> = HashSet::new();
        let mut booked: HashSet<&str> = HashSet::new();
        for letter in self.inbox.values().take(TOGETHER) {
            let into = match &letter.body {
                Body::Ask { ask: Ask { into: Some(into), .. }, .. } => self.find(into).ok().map(|h| h.case.id.as_str()),
                _ => None,
            };
            let both = [Some(letter.body.case()), into];
            if both.iter().flatten().any(|id| touched.contains(id)) {
                continue;
            }
            // Two that want the last seat must not both see it.
            if let Body::HandOver { case: Case { booking: Some(b), .. }, .. } = &letter.body
                && !booked.insert(&b.service)
            {
                continue;
            }
            touched.extend(both.into_iter().flatten());
            drafts.extend(self.answer(letter, now));
        }
        for (_, id, clock) in self.due.iter().take_while(|(at, _, _)| *at <= now_us).take(TOGETHER) {
            let Some(held) = self.held.get(id).filter(|_| touched.insert(id)) else { continue };
            let stepped = self.book().timer(&held.case, clock, now);
            self.write(&stepped, held.contact.as_ref(), None, now, &mut drafts);
        }
        drafts
    }

    fn apply(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        #[derive(Deserialize)]
        struct About {
            #[serde(default)]
            case: String,
            #[serde(default)]
            contact: Contact,
            #[serde(default)]
            letter: String,
        }
        let Some(step) = header.name.strip_prefix(letter::PREFIX).filter(|_| header.kind == Kind::Event) else {
            return;
        };
        match step {
            "letter" => {
                if let Some(letter) = letter::data::<Letter>(payload) {
                    self.apply_letter(pos, header, letter);
                }
            }
            "call" => {}
            "contact" | "forgotten" | "answered" => {
                let Some(about) = letter::data::<About>(payload).filter(|_| header.origin.is_none()) else { return };
                if step == "answered" {
                    self.settle(&about.letter);
                } else if let Some(held) = self.held.get_mut(&about.case) {
                    held.contact = (step == "contact").then_some(about.contact);
                    self.dirty.insert((Dirty::Case, about.case));
                }
            }
            _ => {
                let Some(step) = letter::data::<Step>(payload).filter(|s| is_of_its_node(&self.me, header, s)) else {
                    return;
                };
                self.fold(&step.case, std::slice::from_ref(&step.entry));
                if let Some(answers) = &step.answers {
                    self.settle(answers);
                    self.granted(&step.case.id, answers);
                }
            }
        }
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .map(|(what, key)| match what {
                Dirty::Case => ([b"k", key.as_bytes()].concat(), self.held.get(&key).map(json)),
                Dirty::Inbox => {
                    let letter = key.parse().ok().and_then(|pos: u64| self.inbox.get(&pos));
                    ([b"i", key.as_bytes()].concat(), letter.map(json))
                }
            })
            .collect()
    }

    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(key).map_err(|e| e.to_string())?;
        if let Some(id) = text.strip_prefix('k') {
            let held: Held = serde_json::from_slice(value).map_err(|e| e.to_string())?;
            self.held.insert(id.to_owned(), held);
            self.index(id, true);
        } else if let Some(pos) = text.strip_prefix('i') {
            let pos: u64 = pos.parse().map_err(|_| "its key is no position")?;
            self.inbox.insert(pos, serde_json::from_slice(value).map_err(|e| e.to_string())?);
        } else {
            return Err("its kind is not known to this build".into());
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// How many seats there are; `None` where nothing is counted.
fn limit_of(service: &Service, seat: Seat) -> Option<u32> {
    match (service.starts.is_some(), seat) {
        (true, Seat::Visitor) => service.places,
        (true, Seat::Volunteer) => service.volunteers,
        (false, _) => service.slot.map(|_| service.capacity),
    }
}

/// A step is believed of the node that it names: the header's origin is what the links vouch for.
fn is_of_its_node(me: &Address, header: &Header<'_>, step: &Step) -> bool {
    header.direction != Direction::Down
        && step.entry.node.as_str() == header.origin.map_or(me.as_str(), |o| o.address)
        && step.entry.node == step.case.owner
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("rows have string keys only")
}
