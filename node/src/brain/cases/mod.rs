//! Cases: matters that somebody must deal with, from the press or the letter to the verdict.
//!
//! | module | what it owns |
//! |---|---|
//! | [`machine`] | the life of a case: steps, refusals, clocks; pure |
//! | [`asking`] | what is asked for at this node: cases that open, steps, and what is written of them |
//! | [`looking`] | what is held, looked up |
//! | [`news`] | what a record says anew of a case |
//! | [`deciding`] | what follows from an event or a step, and how a letter goes |
//! | [`answering`] | what follows from a letter |
//! | [`asked_after`] | what became of a wish that may be lost with a disk, or has no answer |
//! | [`forgetting`] | of whom a record is, and what goes with him when he is to be forgotten |
//! | [`folding`] | records folded into what is held |
//! | [`policy`] | how the engine sees all that |
//! | [`booking`] | appointments and seats |
//! | [`calendar`] | working time |
//! | [`check`] | what is wrong with categories, calendar and weights before a start |
//! | [`letter`] | what a case's events look like, and how they find their way |
//! | [`letters`] | letters that wait |
//! | [`intake`] | events that open cases |
//! | [`succession`] | what a box that has lost what it knew, or some of it, learns of others |
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
//! copy is the case with the highest (term, version), of two the one written later, and the set of all lines:
//! whatever order records come in, copies converge, and a gap heals with the next step. `term` counts hands, `version` steps;
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

mod answering;
mod asked_after;
mod asking;
pub mod booking;
pub mod calendar;
pub mod check;
pub mod counts;
mod deciding;
mod folding;
mod forgetting;
pub mod intake;
pub mod letter;
mod letters;
mod looking;
pub mod machine;
mod news;
mod policy;
pub mod rates;
mod succession;
pub mod supervision;
#[cfg(test)]
mod tests;

pub use asking::names_reporter;
pub use looking::{booked, opened};
pub use machine::{Opening, Refusal};
pub use succession::{is_present, is_wanted, newest_alarm, tells_again};

use asking::{joined, kept, who};
use booking::Edition;
use calendar::Calendar;
use chrono::{DateTime, Utc};
use citybrain_shared::case::{
    Ask, CLIMB, Case, Clock, Coming, Contact, Denial, Entry, Kind, Place, Seat, Status, Verb, step,
};
use citybrain_shared::config::Config;
use citybrain_shared::config::cases::{Calendar as Days, Cases as Settings, Category};
use citybrain_shared::config::services::Service;
use citybrain_shared::record::{Direction, Header};
use citybrain_shared::{Address, Lane, view};
use letter::{Body, Letter, Step};
use letters::Letters;
use looking::{number_there, spots};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use succession::{Called, Owed, Succession};

/// Cases that a node holds, about 4 KB each. A city of 10,000 cases a day holds three weeks.
const CASES_MAX: usize = 200_000;
/// Lines of history of one case; of more, the oldest but the first go.
const HISTORY_MAX: usize = 300;
/// Wishes of this node about one case whose fate is remembered.
const WISHES_MAX: usize = 16;
/// Letters and timers in one group: a few milliseconds of work.
const TOGETHER: usize = 64;

/// Letters looked at for a group: those about one case take turns.
const LOOKED_AT: usize = 16 * TOGETHER;
/// Presses of one button that are recorded on its incident, so that one that is stuck does not push
/// out what people did; all of them are in the log.
const PRESSES_MAX: usize = 50;
/// Calls of this node's responders to another place of one call for help, while its owner says nothing.
const ANEW_MAX: u32 = 10;
/// Degrees: some thirty metres, which is what a receiver between houses is wrong by.
const SAME_SPOT: f64 = 0.000_3;
/// How the line of history begins that records one.
const AGAIN: &str = "pressed again";
/// How far records' time may step back before what waits is counted from then; less than anybody called waits.
const AHEAD_US: i64 = 10_000_000;
/// A box that starts has so long to hear what it has missed before it calls for it; one step of a press at most. So
/// long, too, the owner of a case that is offered has to hand it over, or to say that there is no need to; and that of
/// a press to call for it, if whoever has accepted it does not come.
const LISTENS_US: i64 = 10_000_000;
/// Characters of a wish's id that are kept; this program's have 36 at most.
const WISH_ID_MAX: usize = 100;
/// Of those who come to one press, and of those who say that one of them does not, how many are remembered.
const COMING_MAX: usize = 8;
/// A wish is sent after a case that has moved on so many times.
const HOPS_MAX: u8 = 4;

/// A case as this node knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    pub case: Case,
    /// When this came here, by this node's own clock: µs since 1970. Others' clocks may be wrong.
    pub heard_us: i64,
    /// Oldest first; each once.
    pub history: Vec<Entry>,
    /// When each of these lines came here, by this node's own clock: µs since 1970.
    pub came_us: Vec<i64>,
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
    /// Whoever was to come does not, and nobody was called here for that yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_back: bool,
    /// The acceptance, or the end, that was taken back last; the owner may not have heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disowned: Option<Disowned>,
    /// Who wants the person forgotten, who is forgotten here already; the owner may not have heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_forget: Option<String>,
    /// When he was forgotten here, µs since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten_us: Option<i64>,
    /// Where a call for help is by a word that was seen here, and that the owner has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<Place>,
    /// Where responders were called to by such a word last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<Place>,
    /// How often they were called anew since the owner's last step, and how many presses went to it since then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub times_anew: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pressed: u32,
    /// The letter by which its owner was told last how that is offered now here which the case has booked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer_told: Option<String>,
    /// This node had it before it lost some of what it knew, and others may know what has become of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    /// So it is, and as the one above tells it: this node's own log has no step of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lent: bool,
    /// What this node has asked the owner for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wishes: Vec<Wish>,
}

impl Held {
    /// Does nobody come yet, as far as is known?
    pub fn is_unanswered(&self) -> bool {
        self.is_unaccepted() && self.who_comes().next().is_none()
    }

    /// Has nobody accepted it, or nobody who stands by that?
    fn is_unaccepted(&self) -> bool {
        self.case.status == Status::Submitted || self.disowns().is_some()
    }

    /// That whoever has accepted it does not come, or that it is closed and not solved, as long as its owner has not
    /// done what follows.
    fn disowns(&self) -> Option<&Disowned> {
        self.disowned.as_ref().filter(|disowned| self.stands_as().as_ref() == Some(&disowned.wish))
    }

    /// Who says that whoever has accepted it does not come, as long as its owner has not answered that.
    pub fn not_coming(&self) -> Option<&Denial> {
        self.denied(Status::Accepted)
    }

    /// Who says that it is not over though it is closed, as long as its owner has not answered that.
    pub fn not_over(&self) -> Option<&Denial> {
        self.denied(Status::Closed)
    }

    fn denied(&self, status: Status) -> Option<&Denial> {
        self.disowns().filter(|_| self.case.status == status).and_then(|disowned| disowned.said.first())
    }

    /// The case as it stands, though its owner may not know yet that whoever has accepted it does not come, or that it is
    /// not over.
    pub fn as_known(&self) -> Cow<'_, Case> {
        self.known(&self.case)
    }

    /// The same of what is `shown` of it.
    pub fn known<'c>(&self, shown: &'c Case) -> Cow<'c, Case> {
        match self.disowns() {
            None => Cow::Borrowed(shown),
            Some(_) => Cow::Owned(shown.unanswered()),
        }
    }

    /// Is there anything that somebody may take back by that: who comes, the acceptance that stands, or the end?
    fn may_be_taken_back(&self, verb: Verb) -> bool {
        let stands = self.stands_as().is_some();
        match verb {
            Verb::Escalate => self.who_comes().next().is_some() || stands && self.case.status == Status::Accepted,
            Verb::Reopen => stands && self.case.status == Status::Closed,
            _ => false,
        }
    }

    /// Does that wish of somebody at that node deny it?
    fn denies(&self, node: &Address, wish: &str) -> bool {
        self.disowned.iter().flat_map(|disowned| &disowned.said).any(|said| said.node == *node && said.wish == wish)
    }

    /// The name of what lets nobody call for a press, its acceptance or its end: its wish's, or its order's if it was
    /// made where the case is.
    fn stands_as(&self) -> Option<String> {
        let done = match self.case.status {
            Status::Accepted => Verb::Accept.done(),
            Status::Closed if !self.case.is_merged() => Verb::Close.done(),
            _ => return None,
        };
        let line = self.history.iter().rfind(|e| self.case.urgent && e.step == done)?;
        Some(name_of(line))
    }

    /// Who comes to it, as far as is known: what its own box has said since is newer.
    pub fn who_comes(&self) -> impl Iterator<Item = &Coming> {
        self.coming.iter().filter(|c| (c.term, c.version) >= self.case.order())
    }

    /// Must they be called here at once, because nobody comes any more?
    fn calls_back(&self) -> bool {
        let is_uncalled = |disowned: &Disowned| disowned.called.is_none();
        (self.taken_back || self.disowns().is_some_and(is_uncalled)) && self.case.handing_to.is_none()
    }

    /// Were responders called here because it had not climbed, and was nothing done since? It has climbed, or people
    /// have said something of it, or another box is there in place of its own, or that box
    /// says now, too, that whoever had accepted it does not come, or that it is not over.
    fn was_called_for(&self) -> bool {
        let is_climb = |e: &Entry| e.by == machine::TIMER && e.step == Verb::Escalate.done();
        let mut is_owed = self.called.is_some() && self.disowned.as_ref().is_some_and(|d| d.called == self.called);
        let does_so = |e: &Entry| [Verb::Escalate.done(), Verb::Reopen.done()].contains(&e.step.as_str());
        let mut is_disowned = |e: &Entry| does_so(e) && std::mem::take(&mut is_owed);
        // A new box that takes what was on its way to it has climbed to nobody yet.
        let is_replaced = |e: &Entry| e.step == step::RECOVERED && e.from.is_none();
        let is_said = |e: &Entry| [Verb::Comment.done(), step::CATEGORISED].contains(&e.step.as_str());
        let says_nothing = |e: &Entry| is_said(e) || is_replaced(e);
        let mut is_nothing = |e: &Entry| is_climb(e) || says_nothing(e) || is_disowned(e);
        let all = |called| self.history.iter().filter(|e| (e.term, e.version) > called).all(&mut is_nothing);
        self.called.is_some_and(all)
    }

    /// Each line of its history, and since when it can be told here, µs since 1970: since it came, whatever the clock
    /// says where it was done, and not before the line ahead of it.
    pub fn told(&self) -> impl Iterator<Item = (&Entry, i64)> {
        let mut told_us = i64::MIN;
        self.history.iter().zip(&self.came_us).map(move |(e, came_us)| {
            told_us = told_us.max(*came_us);
            (e, told_us)
        })
    }

    /// Since when all of it can be told here, µs since 1970.
    pub fn told_us(&self) -> i64 {
        self.came_us.iter().copied().max().unwrap_or(self.heard_us)
    }

    /// Where it is, as it was said last.
    pub fn place_now(&self) -> Option<&Place> {
        self.moved_to.as_ref().or(self.case.place_again.as_ref()).or(self.case.place.as_ref())
    }

    /// Who opened it, if that was at `node`. Tokens are a node's own: elsewhere somebody else may have the same name.
    pub fn opener(&self, node: &Address) -> Option<&str> {
        opener(&self.case, &self.history, node)
    }

    /// Is that somewhere else than it was said to be last?
    fn is_elsewhere(&self, place: &Place) -> bool {
        !self.place_now().is_some_and(|known| is_same_spot(known, place))
    }

    /// Must responders be called to that place? A button that wanders step by step is near where it was said to be
    /// last, and far from where they were called to. While the owner says nothing they are called a few times only.
    fn calls_to(&self, place: &Place) -> bool {
        let called_to = self.anew.as_ref().or(self.case.place.as_ref());
        let is_far = !called_to.is_some_and(|known| is_same_spot(known, place));
        let is_news = self.is_elsewhere(place) || is_far && self.place_now() != Some(place);
        is_news && self.times_anew < ANEW_MAX
    }

    /// Is nobody here to know any more whom it is about?
    pub fn is_forgotten(&self) -> bool {
        self.case.forgotten || self.to_forget.is_some()
    }
}

/// As [`Held::opener`], of a case as a node shows it.
pub fn opener<'h>(case: &Case, history: &'h [Entry], node: &Address) -> Option<&'h str> {
    let first = history.first().filter(|e| e.step == step::SUBMITTED)?;
    (case.opened_at == *node).then_some(first.by.as_str())
}

fn is_same_spot(a: &Place, b: &Place) -> bool {
    let near = |a: Option<f64>, b: Option<f64>| a.zip(b).is_some_and(|(a, b)| (a - b).abs() < SAME_SPOT);
    a == b || a.text == b.text && near(a.lat, b.lat) && near(a.lon, b.lon)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// An acceptance of a press that whoever has made it takes back, or an end of it that does not stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disowned {
    /// Its name ([`Held::stands_as`]).
    wish: String,
    /// By whom, the first first; never nobody. It is one matter, and counts as long as the word of one of them does.
    said: Vec<Denial>,
    /// When that came here first, by this node's own clock: µs since 1970.
    heard_us: i64,
    /// How the case stood, by (term, version), when responders were called here for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    called: Option<(u32, u32)>,
}

/// The name of what a line tells: of a wish that of the wish, of a step where the case is that of its order.
fn name_of(line: &Entry) -> String {
    line.wish.clone().unwrap_or_else(|| format!("{}.{}", line.term, line.version))
}

/// A step from elsewhere that calls this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uncalled {
    term: u32,
    version: u32,
    /// Nobody needs to come once the case has moved on from there; `None`: unless it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stood: Option<Status>,
    /// The box before this one may have called.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_old: bool,
    /// The case was offered to this node: nobody needs to come once whoever offered it has it and offers it no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_offer: bool,
}

impl Uncalled {
    fn is_of(&self, line: &Entry) -> bool {
        (self.term, self.version) == (line.term, line.version)
    }

    /// Is nobody needed any more once the press is accepted?
    fn is_of_press(&self) -> bool {
        self.stood == Some(Status::Submitted)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    pub id: String,
    pub verb: Verb,
    pub by: String,
    pub to: Address,
    /// What it says, as a hash ([`asking::content`]).
    #[serde(default)]
    pub content: u64,
    /// How often it was asked for before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub again: u32,
    /// Of an escalation: the acceptances that it takes back; of a reopening: the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    takes_back: Vec<String>,
    /// Of a recall: who gave the case, and has it again when it is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub giver: Option<Address>,
    /// Why it was not done; without it there is no answer yet. A wish that was done is a line of history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Whether it was done is not known, and may be said yet: asked for again, it is the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_lost: bool,
    /// When it was asked for, or asked after, last, by this node's own clock: µs since 1970; and how often it was asked
    /// after.
    #[serde(default)]
    asked_us: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    asked_after: u32,
    /// Of what may be asked for again by itself ([`Letter::may_be_sent_again`]): in which words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<Box<Ask>>,
}

/// What became of a wish at this node.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It is this entry of the case's history.
    Done { term: u32, version: u32 },
    /// The owner was asked, by the letter of that id.
    Sent { to: Address, wish: String },
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
    Gone,
}

/// What a booking is counted under: the service, begin and end, and for what.
type Slot = (String, Option<DateTime<Utc>>, Option<DateTime<Utc>>, Seat);

/// Urgent cases that are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Of this node and of those below.
    pub open: u64,
    /// Of them those of which nobody has said yet that he comes.
    pub unaccepted: u64,
    /// All that are held here, also those of nodes above and beside.
    known: u64,
}

/// What counts here of what a node above has sent of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Above {
    categories: Vec<Category>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calendar: Option<Days>,
}

pub struct Cases {
    me: Address,
    /// In force: the node's own, or that of the nearest node above it that has one.
    calendar: Calendar,
    /// Whose that is; `None`: nobody's, as far as is known here.
    calendar_of: Option<Address>,
    own_calendar: Option<Days>,
    /// The node's own, and those of the nodes above it that have no other meaning here.
    categories: Arc<Vec<Category>>,
    own_categories: Arc<[Category]>,
    /// Of each node above, as it last sent them.
    inherited: BTreeMap<Address, Above>,
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
    /// Clocks of cases that are this node's: µs since 1970, case, clock.
    due: BTreeSet<(i64, String, String)>,
    /// Seats that were given of this node's services.
    given: BTreeMap<Slot, u32>,
    /// Open cases.
    open: BTreeSet<String>,
    /// The same, and all cases, by when they were opened: µs since 1970.
    open_since: BTreeSet<(i64, String)>,
    opened: BTreeSet<(i64, String)>,
    /// All, by when the newest of them could be told here: µs since 1970.
    changed: BTreeSet<(i64, String)>,
    /// Cases that are over, by when.
    over: BTreeSet<(i64, String)>,
    /// Open incidents that began here, by their buttons.
    buttons: BTreeSet<(String, String)>,
    /// Cases with calls that have not been made yet.
    uncalled: BTreeSet<String>,
    /// Cases of this node that follow another and have not been told yet how that one stands.
    led: BTreeSet<String>,
    /// Cases of this node that were opened before it was known what they are about, and of which that can be said now.
    to_categorise: BTreeSet<String>,
    /// Cases of this node whose person is forgotten here and not by the others yet.
    forgetting: BTreeSet<String>,
    /// Cases whose persons are forgotten.
    forgotten: BTreeSet<String>,
    /// All that began with a button, by it.
    by_button: BTreeSet<(String, String)>,
    /// All, by what stands behind the day in their ids.
    rests: BTreeSet<(String, String)>,
    /// Open cases by where they are; and those of this node and of those below by the first limit that they have not
    /// kept yet, µs since 1970.
    spots: BTreeSet<(u64, String)>,
    limits: BTreeSet<(i64, String)>,
    calls: Calls,
    /// Of this node and of those below: the open ones, and how many there are in all.
    open_by_kind: [u64; Kind::ALL.len()],
    of_below: u64,
    /// Cases by the alarm that they were opened beside, and by when.
    beside: BTreeSet<(String, (i64, String))>,
    /// Those of other systems, by [`number_there`].
    imported: HashMap<u64, String>,
    /// Closed cases that have given way to newer ones.
    gone: Option<view::CasesGone>,
    /// The newest record's time.
    now_us: i64,
    /// The latest of all records' since the clock was last seen to be ahead.
    latest_us: i64,
    /// Of this node's activities: when they were to begin, while that was ahead.
    editions: BTreeMap<String, Edition>,
    /// Cases that ask for a service, by that and by when it is for ([`looking::booked`]).
    bookings: BTreeSet<(String, (i64, String))>,
    /// Those with seats of what this node offers otherwise now, and that, or whose owners, have not been told.
    to_rebook: BTreeSet<String>,
    /// Was that looked at since this state was read? It is no part of its rows.
    has_looked: bool,
    /// Presses of the box before this one to which nobody is known to come, and for which nobody was called here yet.
    to_call: BTreeSet<String>,
    /// What this node looks after for others ([`Cases::watches`]), by when that has been so for too long.
    waits: BTreeSet<(i64, String)>,
    /// Cases of which something was asked for here that has no answer yet, by when it is asked after.
    unheard: BTreeSet<(i64, String)>,
    /// When this node has told of its start, µs since 1970. It is no part of its rows.
    started_us: Option<i64>,
    dirty: HashSet<(Dirty, String)>,
}

impl Cases {
    pub fn new(config: &Config) -> Cases {
        Cases {
            me: config.node.address.clone(),
            // A config with a calendar that does not read is refused at a start.
            calendar: config.calendar.as_ref().and_then(|c| Calendar::new(c).ok()).unwrap_or_default(),
            calendar_of: config.calendar.as_ref().map(|_| config.node.address.clone()),
            own_calendar: config.calendar.clone(),
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
            to_categorise: BTreeSet::new(),
            forgetting: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            by_button: BTreeSet::new(),
            rests: BTreeSet::new(),
            spots: BTreeSet::new(),
            limits: BTreeSet::new(),
            calls: Calls::default(),
            open_by_kind: Default::default(),
            of_below: 0,
            beside: BTreeSet::new(),
            imported: HashMap::new(),
            gone: None,
            now_us: 0,
            latest_us: 0,
            editions: BTreeMap::new(),
            bookings: BTreeSet::new(),
            to_rebook: BTreeSet::new(),
            has_looked: false,
            to_call: BTreeSet::new(),
            waits: BTreeSet::new(),
            unheard: BTreeSet::new(),
            started_us: None,
            given: BTreeMap::new(),
            dirty: HashSet::new(),
        }
    }

    /// Takes over the categories, the calendar and the services of another config. Cases keep the terms that they
    /// were opened with; those with seats of what is offered otherwise now are told when this node's own catalogue
    /// says so.
    pub fn adopt(&mut self, config: &Config) {
        self.own_calendar.clone_from(&config.calendar);
        self.own_categories = config.category.clone().into();
        self.services.clone_from(&config.service);
        self.inherit();
    }

    /// The case that this one of this node follows, if that one stands otherwise than was told here.
    fn leader(&self, case: &Case) -> Option<&Case> {
        let leader = &self.held.get(case.merged_into.as_ref()?)?.case;
        let is_owed = case.owner == self.me && machine::following::is_owed_a_word(case, leader);
        (is_owed && !self.is_unproven(&case.id)).then_some(leader)
    }

    /// Does this node look after what the case waits for? After a hand-over its giver does, and the node
    /// where its letter turns; after a press that nobody has accepted those above, until it has climbed to
    /// them: the box that should let it climb may be what burns.
    fn watches(&self, held: &Held) -> bool {
        let case = &held.case;
        match &case.handing_to {
            Some(to) => case.owner == self.me || machine::common(&case.owner, to).as_ref() == Some(&self.me),
            None => {
                // Who is said to come since then has had no answer, and nobody was called in his place. What was
                // accepted, or closed, need not climb.
                let has_climbed = self.has_climbed_here(case) || case.status != Status::Submitted;
                let was_called = has_climbed && held.coming.is_empty();
                case.urgent
                    && held.is_unanswered()
                    && case.owner != self.me
                    && self.me.covers(&case.owner)
                    && (!was_called || held.calls_back())
            }
        }
    }

    fn has_climbed_here(&self, case: &Case) -> bool {
        case.escalated_to.as_ref().is_some_and(|top| top.covers(&self.me))
    }

    /// Does that call wait? Somebody comes to the press, and its box, which cannot have heard of it yet, lets it climb:
    /// the box's answer decides, or [`Cases::watches`] if there is none in time.
    fn awaits_answer(&self, held: &Held, call: &Uncalled) -> bool {
        let is_watched = held.case.urgent && self.me.covers(&held.case.owner);
        is_watched && call.is_of_press() && !held.coming.is_empty()
    }

    /// Until when that call waits for the case, which is offered to this node and which it has asked for: its owner may
    /// have dealt with it, or taken the offer back, and what says so comes behind the offer. A call for help does not
    /// wait.
    fn awaits_case_until(&self, held: &Held, call: &Uncalled) -> Option<i64> {
        let is_asked_for = call.is_offer && !held.case.urgent && held.case.offered_to.as_ref() == Some(&self.me);
        if !is_asked_for {
            return None;
        }
        let mut lines = held.history.iter().zip(&held.came_us);
        lines.rfind(|(e, _)| call.is_of(e)).map(|(_, came_us)| came_us.saturating_add(LISTENS_US))
    }

    /// Since when a call waits here for the box's answer to those who come: what it has let climb since it could
    /// have heard of the last of them.
    fn awaits_answer_since(&self, held: &Held) -> Option<i64> {
        let said = held.coming.iter().map(|c| (c.term, c.version)).max()?;
        let is_behind = |e: &Entry| held.uncalled.iter().any(|u| self.awaits_answer(held, u) && u.is_of(e));
        let mut lines = held.history.iter().zip(&held.came_us).filter(|(e, _)| (e.term, e.version) > said);
        lines.find(|(e, _)| is_behind(e)).map(|(_, came_us)| *came_us)
    }

    /// When that has been so for too long, µs since 1970: a press should have been here one step before.
    fn too_long(&self, held: &Held) -> i64 {
        let case = &held.case;
        let climb_s = i64::from(self.settings.sos_climb_s.max(1));
        if let Some(since_us) = self.awaits_answer_since(held) {
            return since_us.saturating_add(climb_s.saturating_mul(1_000_000));
        }
        // A box that lives says so itself, and calls those who are to know.
        if let Some(disowned) = held.disowns().filter(|disowned| disowned.called.is_none() && !held.taken_back) {
            // What it says as it comes back need not be that first.
            return disowned.heard_us.max(held.heard_us).saturating_add(self.listens_us());
        }
        let most_s: i64 = match &case.handing_to {
            None if held.calls_back() => 0,
            None => {
                let from = case.escalated_to.as_ref().unwrap_or(&case.owner).depth();
                climb_s.saturating_mul(from.saturating_sub(self.me.depth()) as i64 + 1)
            }
            Some(_) => self.on_its_way_s(case),
        };
        held.heard_us.saturating_add(most_s.saturating_mul(1_000_000))
    }

    /// How long a letter about that case may be on its way before somebody looks after it.
    fn on_its_way_s(&self, case: &Case) -> i64 {
        let settings = &self.settings;
        i64::from(if case.urgent { settings.sos_climb_s } else { settings.on_its_way_s }.max(1))
    }

    /// Before that nobody is called for what this node looks after for others, and nothing is asked after: while it was
    /// down it has heard nothing, and what it has missed comes now. `None`: it has not told of its start yet.
    fn listens_until(&self) -> Option<i64> {
        self.started_us.map(|at| at.saturating_add(self.listens_us()))
    }

    fn listens_us(&self) -> i64 {
        let step_us = i64::from(self.settings.sos_climb_s.max(1)).saturating_mul(1_000_000);
        step_us.min(LISTENS_US)
    }

    /// When somebody is to be called for the first of what waits, or something is to be asked after.
    fn next_wait_us(&self) -> Option<i64> {
        let (first, _) = [&self.waits, &self.unheard].into_iter().filter_map(BTreeSet::first).min()?;
        self.listens_until().map(|until| until.max(*first))
    }

    /// The cases for which this node's responders are to be called now: what waits has done so for too long.
    fn waited(&self, now_us: i64) -> impl Iterator<Item = &Held> {
        self.too_long_in(&self.waits, now_us)
    }

    fn too_long_in<'c>(&'c self, all: &'c BTreeSet<(i64, String)>, now_us: i64) -> impl Iterator<Item = &'c Held> {
        let is_on = self.listens_until().is_some_and(|until| until <= now_us);
        let due = all.iter().take_while(move |(at, _)| is_on && *at <= now_us);
        due.filter_map(|(_, id)| self.held.get(id))
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
        self.now_us = now_us;
        // Set back in small steps it is ahead as well.
        if self.latest_us <= now_us.saturating_add(AHEAD_US) {
            self.latest_us = self.latest_us.max(now_us);
            return;
        }
        self.latest_us = now_us;
        self.started_us = self.started_us.map(|at| at.min(now_us));
        let ahead_us = now_us.saturating_add(AHEAD_US);
        let is_ahead = |id: &&String| {
            let held = &self.held[*id];
            let disowned = held.disowned.as_ref().map_or(i64::MIN, |disowned| disowned.heard_us);
            held.heard_us.max(disowned) > ahead_us || held.wishes.iter().any(|w| w.asked_us > ahead_us)
        };
        let unheard = self.unheard.iter().map(|(_, id)| id);
        let ahead: BTreeSet<String> = self.open.iter().chain(unheard).filter(is_ahead).cloned().collect();
        for id in ahead {
            self.index(&id, false);
            if let Some(held) = self.held.get_mut(&id) {
                held.heard_us = now_us.min(held.heard_us);
                held.wishes.iter_mut().for_each(|w| w.asked_us = now_us.min(w.asked_us));
                held.came_us.iter_mut().for_each(|at| *at = now_us.min(*at));
                held.disowned.iter_mut().for_each(|disowned| disowned.heard_us = now_us.min(disowned.heard_us));
            }
            self.index(&id, true);
            self.dirty.insert((Dirty::Case, id));
        }
    }
}

/// Is help for it still to come, or there? Once it has gone, the same button calls for it again.
fn awaits_help(case: &Case) -> bool {
    matches!(case.status, Status::Submitted | Status::Accepted | Status::Dispatched | Status::Handling)
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
