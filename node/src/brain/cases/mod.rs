//! Cases: matters that somebody must deal with, from the press or the letter to the verdict.
//!
//! | module | what it owns |
//! |---|---|
//! | [`machine`] | the life of a case: steps, refusals, clocks; pure |
//! | [`deciding`] | what follows from an event, a step or a letter |
//! | [`folding`] | records folded into what is held |
//! | [`policy`] | how the engine sees all that |
//! | [`booking`] | appointments and seats |
//! | [`calendar`] | working time |
//! | [`check`] | what is wrong with categories, calendar and weights before a start |
//! | [`letter`] | what a case's events look like, and how they find their way |
//! | [`letters`] | letters that wait |
//! | [`intake`] | events that open cases |
//! | [`succession`] | what a box with an empty disk learns of the one before it |
//! | [`counts`] | how many there are of what, and how long they took |
//! | [`supervision`] | what is overdue, came back, or is reported again and again |
//! | [`rates`] | response, solution, satisfaction, counted |
//!
//! **Promises.** (1) At any moment at most one node may step a case, whatever is cut, killed, delayed
//! or repeated. (2) Every node that a case's records reach ends up with the same copy. (3) A wish
//! that was taken is done or refused, once. (4) A limit that passes is acted on once, also after a
//! restart. (5) Names and telephone numbers leave a node only with a case that is handed over, or as
//! far up as its category needs them, and go from all that have them when they are to be forgotten.
//!
//! **Format.** A step's record holds the whole case as the step left it and one line of history. A
//! copy is the case with the highest (term, version) and the set of all lines: whatever order records
//! come in, copies converge, and a gap heals with the next step. `term` counts hands, `version` steps;
//! both go on across hands, so what a node wrote that had lost the case (restored from a backup) is
//! recognised as older and answered with the newer copy. A hand-over to a node that the one at the turn
//! has never heard of comes back from there, once and for all; one that nobody has begun to work on comes
//! back when its giver asks for it (`recall`), by the word of the node that it was for. Until then nobody
//! steps, but responders are called where it has been under way for too long.
//!
//! **Operation.** Opening, and calling for a node's own steps, happen in the commit that takes their cause.
//! Whatever depends on the newest copy (wishes from other nodes, cases handed here, timers, calls for others'
//! steps) is folded from the log too, and is decided one by one right after that commit: what is over when
//! it comes calls nobody. The clock of a case
//! runs at its owner; while a hand-over is under way nobody steps, and what was missed meanwhile is
//! acted on when it is taken.
//!
//! **Bounds.** [`CASES_MAX`] cases, the oldest closed ones give way; so many open ones, and no other is
//! opened here but a call for help. [`HISTORY_MAX`] lines of each. A case, and
//! each letter about one, is smaller than any event may be, so that every link takes it.

mod booking;
pub mod calendar;
pub mod check;
pub mod counts;
mod deciding;
mod folding;
pub mod intake;
pub mod letter;
mod letters;
pub mod machine;
mod policy;
pub mod rates;
mod succession;
pub mod supervision;
#[cfg(test)]
mod tests;

pub use machine::{Opening, Refusal};

use booking::Edition;
use calendar::Calendar;
use chrono::{DateTime, Days, Utc};
use citybrain_shared::case::{Ask, CLIMB, Case, Clock, Coming, Contact, Entry, Kind, Place, Role, Seat, Status, Verb};
use citybrain_shared::config::Config;
use citybrain_shared::config::cases::{Cases as Settings, Category};
use citybrain_shared::config::services::Service;
use citybrain_shared::event::Envelope;
use citybrain_shared::record::{Direction, Draft, Header};
use citybrain_shared::view::{self, AccountRefused, CaseAccount, CasesImported};
use citybrain_shared::{Address, Lane, Tier};
use letter::{Body, Letter, Pen, Step};
use letters::Letters;
use machine::{Book, Stepped};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
pub use succession::Awaited;
use succession::{Called, Owed, Succession};
use xxhash_rust::xxh3::xxh3_64;

/// Cases that a node holds, about 4 KB each. A city of 10,000 cases a day holds three weeks.
const CASES_MAX: usize = 200_000;
/// Lines of history of one case; of more, the oldest but the first go.
const HISTORY_MAX: usize = 300;
/// Wishes of this node about one case whose fate is remembered.
const WISHES_MAX: usize = 16;
/// Characters of a name, a telephone number, an address.
const CONTACT_MAX: usize = 200;
/// Letters and timers in one group: a few milliseconds of work.
const TOGETHER: usize = 64;
/// Presses of one button that are recorded on its incident, so that one that is stuck does not push
/// out what people did; all of them are in the log.
const PRESSES_MAX: usize = 50;
/// How the line of history begins that records one.
const AGAIN: &str = "pressed again";
/// Degrees that lie between two cases of the same matter at most: about 200 m.
const NEAR: f64 = 0.002;
/// How far records' time may step back before what waits is counted from then; less than anybody called waits.
const AHEAD_US: i64 = 10_000_000;
/// Characters of a wish's id that are kept; this program's have 36 at most.
const WISH_ID_MAX: usize = 100;
/// Of those who come to one press, how many are remembered.
const COMING_MAX: usize = 8;
/// A wish is sent after a case that has moved on so many times.
const HOPS_MAX: u8 = 4;

/// A case as this node knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    pub case: Case,
    /// When this came here, by this node's own clock: µs since 1970. Others' clocks may be wrong.
    pub heard_us: i64,
    /// Oldest first; each (term, version) once.
    pub history: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// The hand-over, by (term, version), that went back from here, or past here: it is not taken any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_back: Option<(u32, u32)>,
    /// The hand-over, by (term, version), for which this node's responders were called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called: Option<(u32, u32)>,
    /// Calls for this node's responders that have not been made yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncalled: Vec<Uncalled>,
    /// Who comes to it, as long as its owner has not said that it is accepted; oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coming: Vec<Coming>,
    /// Who wants the person forgotten, who is forgotten here already; the owner may not have heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_forget: Option<String>,
    /// Where a call for help is by a word that was seen here, and that the owner has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<Place>,
    /// What this node has asked the owner for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wishes: Vec<Wish>,
}

impl Held {
    /// Does nobody come yet, as far as is known? What its own box has said since is newer.
    pub fn is_unanswered(&self) -> bool {
        let is_newer = |c: &Coming| (c.term, c.version) >= self.case.order();
        self.case.status == Status::Submitted && !self.coming.iter().any(is_newer)
    }

    /// Where it is, as it was said last.
    pub fn place_now(&self) -> Option<&Place> {
        self.moved_to.as_ref().or(self.case.place_again.as_ref()).or(self.case.place.as_ref())
    }

    /// Is nobody here to know any more whom it is about?
    pub fn is_forgotten(&self) -> bool {
        self.case.forgotten || self.to_forget.is_some()
    }
}

/// A step from elsewhere that calls this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uncalled {
    term: u32,
    version: u32,
    /// Of a press that nobody has accepted: somebody has by now, and nobody else needs to come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    climbs: bool,
    /// The box before this one may have called.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_old: bool,
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
    /// It is this entry of the case's history.
    Done { term: u32, version: u32 },
    /// The owner was asked.
    Sent { to: Address },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Dirty {
    Case,
    Inbox,
    Inherited,
    Waiting,
    Succession,
    Owed,
    Roll,
    Edition,
}

/// What a booking is counted under: the service, begin and end, and for what.
type Slot = (String, Option<DateTime<Utc>>, Option<DateTime<Utc>>, Seat);

/// Urgent cases that are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub open: u64,
    /// Nobody has said yet that he comes.
    pub unaccepted: u64,
}

pub struct Cases {
    me: Address,
    calendar: Calendar,
    /// The node's own, and those of the nodes above it that have no other meaning here.
    categories: Arc<Vec<Category>>,
    own_categories: Arc<[Category]>,
    /// Of each node above, as it last sent them.
    inherited: BTreeMap<Address, Vec<Category>>,
    /// What this node itself offers.
    services: Vec<Service>,
    pub settings: Settings,
    held: BTreeMap<String, Held>,
    /// Letters that wait for a decision, by when they came.
    inbox: Letters,
    /// Letters that the box before this one may have answered, and the cases that it had.
    waiting: Letters,
    has_parent: bool,
    succession: Succession,
    /// Children that are to be told what is known of their cases.
    owed: BTreeMap<Address, Owed>,
    /// Rolls of nodes above that are to be answered.
    rolls: BTreeMap<(Lane, Address), Called>,
    /// Clocks of cases that are this node's, and of hand-overs that it watches: µs since 1970, case, clock.
    due: BTreeSet<(i64, String, String)>,
    /// Seats that were given of this node's services.
    given: BTreeMap<Slot, u32>,
    /// Open cases.
    open: BTreeSet<String>,
    /// The same, and all cases, by when they were opened: µs since 1970.
    open_since: BTreeSet<(i64, String)>,
    opened: BTreeSet<(i64, String)>,
    /// All, by when they last changed: µs since 1970.
    changed: BTreeSet<(i64, String)>,
    /// Cases that are over, by when.
    over: BTreeSet<(i64, String)>,
    /// Open incidents that began here, by their buttons.
    buttons: BTreeSet<(String, String)>,
    /// Cases with calls that have not been made yet.
    uncalled: BTreeSet<String>,
    /// Cases of this node that follow another and have not been told yet how that one stands.
    led: BTreeSet<String>,
    /// Cases of this node whose person is forgotten here and not by the others yet.
    forgetting: BTreeSet<String>,
    /// Cases whose persons are forgotten; by their buttons.
    forgotten: BTreeSet<String>,
    forgotten_buttons: BTreeSet<(String, String)>,
    /// All, by what stands behind the day in their ids.
    rests: BTreeSet<(String, String)>,
    /// Open cases by where they are, and by the first limit that they have not kept yet, µs since 1970.
    spots: BTreeSet<(u64, String)>,
    limits: BTreeSet<(i64, String)>,
    calls: Calls,
    open_by_kind: [u64; Kind::ALL.len()],
    /// Those of other systems, by [`number_there`].
    imported: HashMap<u64, String>,
    /// The newest record's time.
    now_us: i64,
    /// Of this node's activities: when they were to begin, while that was ahead.
    editions: BTreeMap<String, Edition>,
    dirty: HashSet<(Dirty, String)>,
}

impl Cases {
    pub fn new(config: &Config) -> Cases {
        Cases {
            me: config.node.address.clone(),
            // A config with a calendar that does not read is refused at a start.
            calendar: Calendar::new(&config.calendar).unwrap_or_default(),
            categories: Arc::new(config.category.clone()),
            own_categories: config.category.clone().into(),
            inherited: BTreeMap::new(),
            services: config.service.clone(),
            settings: config.cases.clone(),
            held: BTreeMap::new(),
            inbox: Letters::default(),
            waiting: Letters::default(),
            has_parent: config.parent.is_some() && config.node.address.parent().is_some(),
            succession: Succession::default(),
            owed: BTreeMap::new(),
            rolls: BTreeMap::new(),
            due: BTreeSet::new(),
            open: BTreeSet::new(),
            open_since: BTreeSet::new(),
            opened: BTreeSet::new(),
            changed: BTreeSet::new(),
            over: BTreeSet::new(),
            buttons: BTreeSet::new(),
            uncalled: BTreeSet::new(),
            led: BTreeSet::new(),
            forgetting: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            forgotten_buttons: BTreeSet::new(),
            rests: BTreeSet::new(),
            spots: BTreeSet::new(),
            limits: BTreeSet::new(),
            calls: Calls::default(),
            open_by_kind: Default::default(),
            imported: HashMap::new(),
            now_us: 0,
            editions: BTreeMap::new(),
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

    /// What cases may be about here: the node's own categories, then those of the nodes above it.
    pub fn categories(&self) -> Arc<Vec<Category>> {
        self.categories.clone()
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

    /// Cases behind this id, oldest first.
    pub fn behind(&self, id: Option<&str>) -> impl Iterator<Item = &Held> {
        self.held
            .range::<str, _>((id.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
            .map(|(_, held)| held)
    }

    /// Cases that have changed behind this moment and id, the longest unchanged first; each with its own.
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
                let detail = format!("`{text}` may be {a}, {b} or another");
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

    /// Is this a record about a person who is forgotten here? A letter about his case, or the event that
    /// opened it or was one more press of its button.
    pub fn is_forgotten(&self, header: &Header<'_>, payload: &[u8]) -> bool {
        if self.forgotten.is_empty() || !intake::may_name_persons(header, payload) {
            return false;
        }
        let Ok(envelope) = Envelope::parse(payload) else { return false };
        let subject = envelope.subject.as_deref().unwrap_or_default();
        if [letter::LETTER, letter::CONTACT].contains(&header.name) {
            return self.forgotten.contains(subject);
        }
        let (source, event) = (envelope.source.as_ref(), envelope.id.as_deref().unwrap_or_default());
        let came = view::time_of(header.received_us);
        // Where it entered it may have been another day already.
        let days = [-1, 0, 1].map(|d| came.checked_add_signed(chrono::TimeDelta::days(d)).unwrap_or(came));
        let opened = days.map(|at| intake::id(self.calendar.day(at), source, event));
        if opened.iter().any(|id| self.forgotten.contains(id)) {
            return true;
        }
        let button = intake::button(source, subject);
        let presses = self.forgotten_buttons.range((button.clone(), String::new())..).take_while(|(b, _)| *b == button);
        presses.filter_map(|(_, id)| self.held.get(id)).any(|held| {
            let until = held.case.closed.unwrap_or(held.case.changed);
            (held.case.opened..=until).contains(&came)
        })
    }

    /// May this node step the case?
    pub fn may_step(&self, id: &str) -> bool {
        self.held.get(id).is_some_and(|h| h.case.owner == self.me && h.case.handing_to.is_none())
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

    /// Opens a case that no event brought; the contact stays here.
    pub fn open(&self, mut opening: Opening, contact: Contact, now_us: i64) -> (Case, Vec<Draft>) {
        let now = view::time_of(now_us);
        let contact = kept(&contact);
        if !contact.name.is_empty() && contact.name.trim() == opening.by.trim() {
            opening.by = machine::RESIDENT.into();
        }
        let stepped = self.book().open(opening, now);
        let mut drafts = Vec::new();
        self.write(&stepped, Some(&contact), None, now, &mut drafts);
        self.contact_draft(&stepped.case, &contact, now, &mut drafts);
        let answer = self.booked(&stepped.case, now);
        if let Some(answer) = &answer {
            self.write(answer, Some(&contact), None, now, &mut drafts);
        }
        (answer.unwrap_or(stepped).case, drafts)
    }

    /// Takes what another system tells of its cases, in this order; each is this node's own from then
    /// on. Told twice, it is taken once.
    pub fn import(&self, told: &[CaseAccount], by: &str, now_us: i64) -> (CasesImported, Vec<Draft>) {
        let now = view::time_of(now_us);
        let pen = Pen { me: &self.me, now };
        let (mut became, mut drafts) = (CasesImported::default(), Vec::new());
        // Two accounts of one case in one group: the second must see what the first has done.
        let mut newest: BTreeMap<String, Case> = BTreeMap::new();
        let mut told_before: HashMap<(&str, &str), String> = HashMap::new();
        let mut refuse = |told: &CaseAccount, Refusal { error, detail, .. }| {
            became.refused.push(AccountRefused { id: told.id.clone(), error: error.into(), detail });
        };
        for told in told {
            // Before its day is looked up: no calendar has every time that can be written.
            if let Err(refusal) = machine::import::check(told, now) {
                refuse(told, refusal);
                continue;
            }
            // A day of opening that is told otherwise by now makes no other case of it.
            let mut id = intake::id(self.calendar.day(told.opened), &told.source, &told.id);
            if !newest.contains_key(&id) && !self.held.contains_key(&id) {
                let there = (told.source.as_str(), told.id.as_str());
                if let Some(known) = told_before.get(&there).or_else(|| self.imported_as(there.0, there.1)) {
                    id.clone_from(known);
                }
                told_before.insert(there, id.clone());
            }
            let known = newest.get(&id).or_else(|| self.held.get(&id).map(|h| &h.case));
            let is_new = known.is_none();
            let room = if is_new && told.status.is_open() { self.has_room(false) } else { Ok(()) };
            if let Err(refusal) = room {
                refuse(told, refusal);
                continue;
            }
            match self.book().import(&id, told, known, by, now) {
                Ok(None) => became.known += 1,
                Ok(Some(stepped)) => {
                    if is_new {
                        became.opened += 1
                    } else {
                        became.changed += 1
                    }
                    drafts.push(pen.step(&stepped, None));
                    newest.insert(id, stepped.case);
                }
                Err(refusal) => refuse(told, refusal),
            }
        }
        (became, drafts)
    }

    /// The case that another system's one is here.
    fn imported_as(&self, source: &str, number: &str) -> Option<&String> {
        let id = self.imported.get(&number_there(source, number))?;
        let there = self.held.get(id)?.case.imported.as_ref()?;
        (there.source == source && there.id == number).then_some(id)
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
        let ask = &self.with_whole_ids(ask)?;
        let mut drafts = Vec::new();
        let is_here = self.may_step(&id);
        if verb == Verb::Forget && !is_here {
            // At once, and not when the case has come to where it is bound for: that box may be dead.
            machine::act::may(Verb::Forget, ask)?;
            if !held.is_forgotten() {
                let data = serde_json::json!({"case": id, "by": ask.by.trim()});
                drafts.push(Pen { me: &self.me, now }.local(letter::FORGET, &format!("{id}.forget.{wish}"), &id, data));
            }
        }
        let next = self.sends_on(held, verb, ask);
        if next.is_none() && (is_here || verb != Verb::Forget) {
            if verb == Verb::Recall {
                let letter = self.recall(held, ask, wish.to_owned())?;
                drafts.extend(Pen { me: &self.me, now }.letter(&letter));
                return Ok((id, Told::Sent { to: letter.to }, drafts));
            }
            let steps = self.step(held, verb, ask, &self.me, now)?;
            let own = steps.iter().find(|stepped| stepped.case.id == id).map(|stepped| &stepped.entry);
            let (term, version) = own.map_or((held.case.term, held.case.version), |e| (e.term, e.version));
            for stepped in &steps {
                self.write(stepped, held.contact.as_ref(), None, now, &mut drafts);
            }
            self.keep_name(held, ask, now, &mut drafts);
            return Ok((id, Told::Done { term, version }, drafts));
        }
        if ask.by.trim().is_empty() {
            return Err(Refusal::new("missing", "`by` is missing: who does it", "`--by NAME`"));
        }
        // The owner looks again: it knows of what this copy does not.
        machine::act::is_as_seen(&held.case, ask)?;
        if verb == Verb::Accept && held.case.urgent && held.case.status == Status::Submitted {
            machine::act::may(verb, ask)?;
            let (term, version) = held.case.order();
            let by = machine::act::named(ask).by;
            let coming = Coming { node: self.me.clone(), by, at: now, wish: wish.to_owned(), term, version };
            drafts.push(Pen { me: &self.me, now }.coming(&held.case, &coming));
        }
        // Whoever gave it away asks for it back, and nobody else can.
        let to = if verb == Verb::Recall { &held.case.owner } else { next.unwrap_or(held.case.bound_for()) }.clone();
        drafts.extend(self.called_again(held, ask, wish, now));
        let body = Body::Ask { case: id.clone(), verb, ask: machine::act::named(ask), hops: 0, contact: None };
        let letter = self.letter(wish.to_owned(), &to, held.case.urgent, body);
        drafts.extend(Pen { me: &self.me, now }.letter(&letter));
        Ok((id, Told::Sent { to }, drafts))
    }

    /// What is short for an id here may be short for another one where the wish is done.
    fn with_whole_ids(&self, ask: &Ask) -> Result<Ask, Refusal> {
        let mut ask = ask.clone();
        if let Some(into) = &mut ask.into {
            match self.find(into) {
                Ok(held) => into.clone_from(&held.case.id),
                Err(refusal) if refusal.error == "ambiguous" => return Err(refusal),
                // Whoever owns the one may know of the other.
                Err(_) => {}
            }
        }
        Ok(ask)
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

    /// How many open cases are over a limit?
    pub fn overdue(&self, now: DateTime<Utc>) -> u64 {
        self.limits.range(..(now.timestamp_micros(), String::new())).count() as u64
    }

    /// Does anybody call for help?
    pub fn help_is_wanted(&self) -> bool {
        self.calls.open > 0
    }

    pub fn calls_for_help(&self) -> Calls {
        self.calls
    }

    /// In the order of [`Kind::ALL`].
    pub fn open_by_kind(&self) -> [u64; Kind::ALL.len()] {
        self.open_by_kind
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
            let held = self.held.get(id)?;
            (held.case.owner == self.me).then(|| held.case.clone())
        };
        self.book().act(&held.case, verb, ask, from, &other, now)
    }

    /// The case that this one of this node follows, if that one stands otherwise than was told here.
    fn leader(&self, case: &Case) -> Option<&Case> {
        let leader = &self.held.get(case.merged_into.as_ref()?)?.case;
        (case.owner == self.me && machine::following::is_owed_a_word(case, leader)).then_some(leader)
    }

    /// The letter that asks for a case back which is on its way from here. Nothing is stepped: it is
    /// this node's again when the other one has answered.
    fn recall(&self, held: &Held, ask: &Ask, id: String) -> Result<Letter, Refusal> {
        let ask = machine::act::named(ask);
        let case = &held.case;
        self.book().check(case, Verb::Recall, &ask)?;
        let history = letter::sent(&held.history);
        let body = Body::Recall { case: case.clone(), history, by: ask.by, why: ask.text.unwrap_or_default() };
        Ok(self.letter(id, case.bound_for(), case.urgent, body))
    }

    /// Does this node look after what the case waits for? After a hand-over its giver does, and the node
    /// where its letter turns; after a press that nobody has accepted those above, until it has climbed to
    /// them: the box that should let it climb may be what burns.
    fn watches(&self, held: &Held) -> bool {
        let case = &held.case;
        match &case.handing_to {
            Some(to) => case.owner == self.me || machine::common(&case.owner, to).as_ref() == Some(&self.me),
            None => {
                let was_called = case.escalated_to.as_ref().is_some_and(|top| top.covers(&self.me));
                case.urgent
                    && held.is_unanswered()
                    && case.owner != self.me
                    && self.me.covers(&case.owner)
                    && !was_called
            }
        }
    }

    /// When that has been so for too long, µs since 1970: a press should have been here one step before.
    fn too_long(&self, held: &Held) -> i64 {
        let (settings, case) = (&self.settings, &held.case);
        let climb_s = i64::from(settings.sos_climb_s.max(1));
        let most_s: i64 = match &case.handing_to {
            None => {
                let from = case.escalated_to.as_ref().unwrap_or(&case.owner).depth();
                climb_s.saturating_mul(from.saturating_sub(self.me.depth()) as i64 + 1)
            }
            Some(_) if case.urgent => climb_s,
            Some(_) => settings.on_its_way_s.max(1).into(),
        };
        held.heard_us.saturating_add(most_s.saturating_mul(1_000_000))
    }

    /// When a clock's time is over, µs since 1970. A press climbs no later than by this node's own time, whatever
    /// the clock said when it came.
    fn due_us(&self, held: &Held, clock: &Clock) -> Option<i64> {
        let due = clock.due?.timestamp_micros();
        let climb_us = i64::from(self.settings.sos_climb_s.max(1)) * 1_000_000;
        Some(if clock.name == CLIMB { due.min(held.heard_us.saturating_add(climb_us)) } else { due })
    }

    /// A record of that time comes. If the clock was ahead and is right again, what waits here waits from now on.
    fn at(&mut self, now_us: i64) {
        let latest = std::mem::replace(&mut self.now_us, now_us);
        if latest <= now_us.saturating_add(AHEAD_US) {
            return;
        }
        let is_ahead = |id: &&String| self.held[*id].heard_us > now_us.saturating_add(AHEAD_US);
        let ahead: Vec<String> = self.open.iter().filter(is_ahead).cloned().collect();
        for id in ahead {
            self.index(&id, false);
            if let Some(held) = self.held.get_mut(&id) {
                held.heard_us = now_us;
            }
            self.index(&id, true);
            self.dirty.insert((Dirty::Case, id));
        }
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
        let known = self.held.get(&stepped.case.id).map(|h| h.history.as_slice()).unwrap_or_default();
        self.write_after(known, stepped, contact, answers, now, drafts);
    }

    /// As [`Cases::write`], `known` being the case's history so far.
    fn write_after(
        &self,
        known: &[Entry],
        stepped: &Stepped,
        contact: Option<&Contact>,
        answers: Option<&str>,
        now: DateTime<Utc>,
        drafts: &mut Vec<Draft>,
    ) {
        let pen = Pen { me: &self.me, now };
        drafts.push(pen.step(stepped, answers));
        let Some(to) = &stepped.case.handing_to else { return };
        let mut history = letter::sent(known);
        history.push(stepped.entry.clone());
        // Whoever had it with the case learns nothing new when it is returned.
        let had = stepped.case.opened_at == *to || known.iter().any(|e| e.node == *to);
        let may_travel = (self.settings.contact_travels || had) && !stepped.case.forgotten;
        let contact = contact.filter(|c| may_travel && !c.is_empty()).cloned();
        let id = format!("{}.{}.{}.hand-over", stepped.case.id, stepped.case.term, stepped.case.version);
        let body = Body::HandOver { case: stepped.case.clone(), history, contact };
        drafts.extend(pen.letter(&self.letter(id, to, stepped.case.urgent, body)));
    }

    /// Whom to call: here, and as far up as the category needs it.
    fn contact_draft(&self, case: &Case, contact: &Contact, now: DateTime<Utc>, drafts: &mut Vec<Draft>) {
        if contact.is_empty() || case.forgotten || self.held.get(&case.id).is_some_and(Held::is_forgotten) {
            return;
        }
        let needed = self.book().category(&case.category).and_then(|c| c.contact_reach);
        // No further than the case itself.
        let reach = needed.map_or(Tier::Neighbourhood, |needed| needed.max(case.reach));
        let data = serde_json::json!({"case": case.id, "contact": contact});
        drafts.push(Pen { me: &self.me, now }.contact(&case.id, case.urgent, reach, data));
    }

    /// A resident's step says `resident`; the name is kept where the telephone number is.
    fn keep_name(&self, held: &Held, ask: &Ask, now: DateTime<Utc>, drafts: &mut Vec<Draft>) {
        let known = held.contact.clone().unwrap_or_default();
        if ask.role == Some(Role::Resident) && machine::is_name(&ask.by) && known.name.is_empty() {
            self.contact_draft(&held.case, &Contact { name: ask.by.trim().to_owned(), ..known }, now, drafts);
        }
    }
}

/// By what cases are listed: when it was opened, µs since 1970, and its id.
pub fn opened(case: &Case) -> (i64, String) {
    (case.opened.timestamp_micros(), case.id.clone())
}

/// A hash of another system's name and its number of a case.
fn number_there(source: &str, number: &str) -> u64 {
    xxh3_64(format!("{source}\0{number}").as_bytes())
}

/// What a case is found by where another is near: each a hash. `around`: of the squares of [`NEAR`] about it,
/// too, so many to each side.
fn spots(case: &Case, around: i64) -> Vec<u64> {
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

/// Of whom to call, what is kept.
fn kept(contact: &Contact) -> Contact {
    let [name, phone, address] =
        [&contact.name, &contact.phone, &contact.address].map(|t| machine::cut(t, CONTACT_MAX));
    Contact { name, phone, address, more: contact.more.clone() }
}

/// Does a letter say truly where it comes from? Nobody gives away, or wants back, what is another's. On
/// its way down the parent vouches for it.
fn is_true(header: &Header<'_>, letter: &Letter) -> bool {
    let is_givers = match &letter.body {
        Body::HandOver { case, .. } | Body::Recall { case, .. } => case.owner == letter.from,
        _ => true,
    };
    match (header.direction, header.origin) {
        (Direction::Up, Some(origin)) => letter.sender().as_str() == origin.address && is_givers,
        _ => true,
    }
}

fn is_hand_over(letter: &Letter) -> bool {
    matches!(letter.body, Body::HandOver { .. })
}

/// A step is believed of the node that it names: the header's origin is what the links vouch for.
fn is_of_its_node(me: &Address, header: &Header<'_>, step: &Step) -> bool {
    header.direction != Direction::Down
        && step.entry.node.as_str() == header.origin.map_or(me.as_str(), |o| o.address)
        && step.entry.node == step.case.owner
}
