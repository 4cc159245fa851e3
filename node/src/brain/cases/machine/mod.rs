//! The life of a case, as a pure machine: a case, a wish and a moment in; the case afterwards and a
//! line of its history out, or a refusal that says what would be allowed.
//!
//! **One owner.** Only the owner's node calls this, and only on its newest copy. A step may set
//! [`Case::handing_to`]: from then on nobody steps until that node has [taken](Book::take) the case. Two nodes
//! can never both believe that they may step, whatever is delayed, repeated or reordered between
//! them: the one has written that it gave the case away before the other can learn of it.
//!
//! **Who handles may not close**: whoever started or resolved a case may neither verify, evaluate,
//! nor close it; nor may the unit for which he did, a unit that was summoned and has reported, or whoever
//! reported for it.
//!
//! | module | what it owns |
//! |---|---|
//! | here | what is known beside the case; how one begins, changes hands, and meets its time limits |
//! | [`act`] | a wish, done or refused |
//! | [`following`] | what becomes of a case that was merged into another |
//! | [`import`] | a case as another system tells of it |
//! | [`steps`] | what each wish does to the case |
//! | [`turn`] | one step being made: clocks, and the parts that steps share |

pub(super) mod act;
pub mod following;
pub mod import;
mod steps;
mod turn;

use super::calendar::Calendar;
use super::looking::SOS;
use crate::brain::form::Fault;
pub use act::is_for_others;
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_shared::case::{
    Booked, Booking, CALL_BACK, CLIMB, Case, Clock, ClosedReason, Entry, Kind, Place, RESPONSE, Role, SOLUTION, Status,
    Tally, Terms, Verb, step,
};
use citybrain_shared::config::cases::{Cases as Settings, Category, Missed};
use citybrain_shared::{Address, Tier};
use std::collections::BTreeMap;
pub use turn::TEXT_MAX;
pub use turn::{APP, OPEN311, RESIDENT, app_of, heard_as, is_name, two_persons};
use turn::{NAME_MAX, Turn};
pub(super) use turn::{cut, is_same_person, shown};

/// Who acts when a limit has passed.
pub const TIMER: &str = "timer";
/// What stands behind a clock's name in the line of its limit that has passed.
const MISSED: &str = " missed";

/// Characters of a description, as Open311 takes them.
const DESCRIPTION_MAX: usize = 4_000;
/// Characters of a title, of a place's name, and of a category's code or a channel.
const TITLE_MAX: usize = 200;
const PLACE_MAX: usize = 300;
const CODE_MAX: usize = 60;

/// What the machine knows beside the case: this node, its calendar, its categories.
pub struct Book<'a> {
    pub me: &'a Address,
    pub calendar: &'a Calendar,
    pub categories: &'a [Category],
    pub settings: &'a Settings,
    /// The parent has not said yet which categories there are.
    pub awaits_parent: bool,
}

/// Who asks, beside what he says of himself.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The node where he asks.
    pub at: &'a Address,
    /// He has opened the case, there.
    pub opened_it: bool,
    /// If he escalates it, he takes back the acceptance that stands, or somebody may, and does, for him; if he reopens it,
    /// the end that stands.
    pub takes_back: bool,
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, for programs.
    pub error: &'static str,
    pub detail: String,
    pub hint: String,
}

impl Refusal {
    pub fn new(error: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal { error, detail: detail.into(), hint: hint.into() }
    }

    /// The first of what is wrong with the answers of a form.
    pub fn of_form(faults: Vec<Fault>) -> Refusal {
        let Some(first) = faults.into_iter().next() else { return Refusal::new("bad-request", "", "") };
        Refusal::new(if first.is_missing { "missing" } else { "bad-request" }, first.detail, first.hint)
    }
}

/// A case after a step, and the line that says what was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped {
    pub case: Case,
    pub entry: Entry,
    /// Some who hear of it may know nothing of what was before: it raises the case's reach, or whoever wrote that may
    /// have lost it before they heard of it.
    pub tells_all: bool,
    /// Id of the event that led to it, where that is not the one that opened the case.
    pub because: Option<String>,
}

impl Stepped {
    /// It says whom to call, and nobody knew that; `is_here`: its owner is told, too. What was responded before
    /// needed no call.
    pub fn brings_contact(&mut self, is_here: bool) {
        let case = &mut self.case;
        let had_response = !case.has_contact && case.responded().is_some();
        if case.knows_contact() || case.forgotten || had_response {
            return;
        }
        (case.has_contact, case.contact_came, case.contact_lost) = (true, is_here, None);
    }
}

/// A new case, as it came in.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    pub id: String,
    pub event: Option<String>,
    /// The alarm that it is opened beside.
    pub alarm: Option<String>,
    /// Of an incident: what was pressed, so that it is known again ([`super::intake::button`]).
    pub button: Option<String>,
    pub by: String,
    pub sos: bool,
    pub kind: Option<Kind>,
    pub category: String,
    pub title: String,
    pub description: String,
    pub place: Option<Place>,
    pub form: BTreeMap<String, String>,
    pub media: Vec<String>,
    pub channel: String,
    pub governance: Option<String>,
    pub has_contact: bool,
    /// Of a request for a service.
    pub booking: Option<Booking>,
    /// The node below that it was filed for.
    pub bound_for: Option<Address>,
    /// For the first line of its history.
    pub note: String,
}

/// A place as a case keeps it.
fn placed(place: &Place) -> Place {
    Place { text: cut(&place.text, PLACE_MAX), ..place.clone() }
}

/// A description, as a case keeps it.
pub fn described(text: &str) -> String {
    cut(text, DESCRIPTION_MAX)
}

/// What is said of a step, as a case keeps it where `beside` characters more must fit.
pub fn kept(text: &str, beside: usize) -> String {
    cut(text, TEXT_MAX.saturating_sub(beside))
}

/// What a case is called that nobody has given a title or a category. A call for help is known again by what it is
/// called, and a repeated one may say more.
fn first_words(description: &str) -> String {
    cut(description.lines().next().unwrap_or_default(), CODE_MAX)
}

/// Place, title and description, as a case keeps them.
pub fn said(opening: &Opening) -> (Option<Place>, String, String) {
    (opening.place.as_ref().map(placed), cut(&opening.title, TITLE_MAX), described(&opening.description))
}

/// Does it say what the case says, and of the same place?
pub fn says_the_same(case: &Case, opening: &Opening) -> bool {
    let (place, title, description) = said(opening);
    place == case.place && title.starts_with(&case.title) && description == case.description
}

/// Does the verb fit where the case stands? If not: why, beyond its status.
fn fits(case: &Case, verb: Verb) -> Result<(), &'static str> {
    use Status::{Accepted, Closed, Dispatched, Evaluated, Handling, Resolved, Submitted};
    let status = case.status;
    let is = |all: &[Status]| if all.contains(&status) { Ok(()) } else { Err("") };
    let merged = case.is_merged();
    match verb {
        Verb::Accept => is(&[Submitted]),
        Verb::Reject => is(&[Submitted, Accepted]),
        Verb::Dispatch => is(&[Accepted, Dispatched, Handling]),
        Verb::Start => is(&[Dispatched]),
        Verb::Resolve if case.suspended.is_some() => Err("it is suspended: resume it first"),
        Verb::Resolve => is(&[Handling]),
        Verb::Verify => is(&[Resolved, Evaluated]),
        Verb::Evaluate if merged => Err("it was merged into another: evaluate that one"),
        Verb::Evaluate => is(&[Resolved, Evaluated, Closed]),
        Verb::Close if status == Resolved && case.finding.as_ref().is_none_or(|f| !f.passed) => {
            Err("nobody has evaluated it, and no check has passed: verify or evaluate it first")
        }
        Verb::Close => is(&[Resolved, Evaluated]),
        Verb::Return => is(&[Dispatched, Handling]),
        Verb::Suspend if case.suspended.is_some() => Err("it is suspended already"),
        Verb::Suspend if case.suspensions > 0 => Err("it was suspended once, and once is all"),
        Verb::Suspend => is(&[Dispatched, Handling]),
        Verb::Resume if case.suspended.is_none() => Err("it is not suspended"),
        Verb::Extend if case.extended.is_some() => Err("it was extended once, and once is all"),
        Verb::Extend if case.suspended.is_some() => Err("it is suspended: resume it first"),
        Verb::Extend => is(&[Dispatched, Handling]),
        Verb::Assist => is(&[Accepted, Dispatched, Handling]),
        Verb::Report | Verb::Rate if case.assists.is_empty() => Err("nobody was summoned"),
        Verb::Reopen if merged => Err("it was merged into another: reopen that one"),
        Verb::Reopen if matches!(status, Status::Rejected | Status::Withdrawn) => Err(if case.booking.is_some() {
            "it stays so; ask for it anew: `citybrain service request`"
        } else {
            "it stays so; open a new case: `citybrain case new`"
        }),
        Verb::Reopen => is(&[Closed]),
        Verb::Merge if case.booking.is_some() => Err("it asks for a service, and follows no other: withdraw ends it"),
        Verb::Forget if case.forgotten => Err("it is forgotten already"),
        Verb::Exclude if case.is_excluded() => Err("it is excluded already"),
        Verb::Recall if case.handing_to.is_some() || case.offered_to.is_some() => Ok(()),
        Verb::Recall => Err("it is neither on its way to anybody nor offered"),
        Verb::Report | Verb::Rate | Verb::Comment | Verb::Exclude | Verb::Forget => Ok(()),
        Verb::Contact | Verb::Resume | Verb::Escalate | Verb::Withdraw | Verb::Merge if status.is_open() => Ok(()),
        Verb::Contact | Verb::Resume | Verb::Escalate | Verb::Withdraw | Verb::Merge => Err(""),
    }
}

/// Is it refused whatever is said with it, though it fits where the case stands?
fn is_in_vain(case: &Case, verb: Verb, now: DateTime<Utc>) -> bool {
    match verb {
        Verb::Reopen => case.reopen_until.is_some_and(|until| now > until),
        Verb::Extend => !case.clock(SOLUTION).is_some_and(|c| c.runs() && c.due.is_some()),
        Verb::Escalate => above_watching(case).is_none() && may_be_offered(case).is_none(),
        _ => false,
    }
}

/// Of a refusal: whoever asks is none of [`roles`].
pub const NOT_YOUR_ROLE: &str = "not-your-role";
/// The press has climbed as far as it can.
pub const NOBODY_ABOVE: &str = "nobody-above";

/// The roles that may ask for it.
pub fn roles(verb: Verb) -> &'static [Role] {
    use Role::{Resident, Supervisor, Worker};
    match verb {
        Verb::Verify | Verb::Close | Verb::Exclude | Verb::Forget => &[Supervisor],
        Verb::Evaluate | Verb::Withdraw | Verb::Reopen => &[Resident, Supervisor],
        Verb::Comment => &[Resident, Worker, Supervisor],
        _ => &[Worker, Supervisor],
    }
}

/// May a resident ask for it?
pub fn is_residents(verb: Verb) -> bool {
    roles(verb).contains(&Role::Resident)
}

/// May whoever opened the case take it back, though it was for somebody else? A desk that books for a resident must
/// be able to cancel at his word. Until it is dispatched any worker may end it by `reject`, so that this is no more
/// power; from then on rates count it, and it is the resident's, or a supervisor's, to withdraw.
pub fn is_taken_back(case: &Case, verb: Verb) -> bool {
    let waits = matches!(case.status, Status::Submitted | Status::Accepted);
    verb == Verb::Withdraw && waits && case.dispatched.is_none() && case.handlers.is_empty()
}

impl Book<'_> {
    pub fn category(&self, code: &str) -> Option<&Category> {
        self.categories.iter().find(|c| c.code == code || c.name == code)
    }

    /// Which category it names, and what is known of that. A call for help of a category that nobody knows has the
    /// limits of one that names none.
    fn code<'o>(&self, opening: &'o Opening) -> (&'o str, Option<&Category>) {
        // What a service is called has nothing to do with a category that is called the same.
        if let Some(booking) = opening.booking.as_ref().filter(|_| opening.category.is_empty()) {
            return (&booking.service, None);
        }
        let named = self.category(&opening.category);
        let of_calls = self.category(SOS).filter(|_| opening.sos && named.is_none());
        let is_of_calls = opening.sos && (opening.category.is_empty() || of_calls.is_some());
        (if is_of_calls { SOS } else { &opening.category }, named.or(of_calls))
    }

    /// Is that case of the category that this opening would have?
    pub fn is_same_category(&self, case: &Case, opening: &Opening) -> bool {
        let (code, known) = self.code(opening);
        let of_case = Some(case).filter(|case| case.category_awaited).and_then(|case| self.category_of(case));
        of_case.map_or(&case.category, |c| &c.code) == known.map_or(&cut(code, CODE_MAX), |c| &c.code)
    }

    /// What a case is about that was opened before that was known here.
    pub fn category_of(&self, case: &Case) -> Option<&Category> {
        let of_calls = || self.category(SOS).filter(|_| case.urgent);
        self.category(&case.category).or_else(of_calls)
    }

    /// Which of its verbs a case would take now, whoever asks.
    pub fn allowed(&self, case: &Case, now: DateTime<Utc>) -> Vec<Verb> {
        if case.handing_to.is_some() {
            return vec![Verb::Recall];
        }
        Verb::ALL.iter().copied().filter(|v| fits(case, *v).is_ok() && !is_in_vain(case, *v, now)).collect()
    }

    /// Until when a case of this node that was closed then may be reopened.
    fn reopen_until(&self, closed: DateTime<Utc>) -> DateTime<Utc> {
        let most = TimeDelta::days(self.settings.reopen_days.into());
        closed.checked_add_signed(most).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Opens a case here; one of a category that another tier handles is handed there at once.
    pub fn open(&self, opening: Opening, now: DateTime<Utc>) -> Stepped {
        let (code, category) = self.code(&opening);
        let code = code.to_owned();
        let kind = match opening.sos {
            true => Kind::Incident,
            false => opening.kind.or(category.map(|c| c.kind)).unwrap_or(Kind::Appeal),
        };
        let (by, sos, named) = (opening.by.clone(), opening.sos, opening.category.clone());
        let is_unknown = !named.is_empty() && opening.booking.is_none() && self.category(&named).is_none();
        let shown = cut(&named, CODE_MAX);
        let note = match is_unknown {
            true if self.awaits_parent => format!("`{shown}` is not known here yet: the parent is still to be heard"),
            true if !sos => format!("`{shown}` is no category that is known here: no limits"),
            true if named != code => format!("`{shown}` is no category that is known here"),
            _ => opening.note.clone(),
        };
        let (note, bound_for) = (cut(&note, TEXT_MAX), opening.bound_for.clone());
        let mut case = self.blank(opening, now);
        case.kind = kind;
        case.urgent = sos;
        case.reach = category.map_or(case.reach, |c| c.reach);
        case.category = category.map_or(cut(&code, CODE_MAX), |c| c.code.clone());
        case.category_name = category.map(|c| c.name.clone()).unwrap_or_default();
        case.category_awaited = self.awaits_parent && category.is_none() && case.booking.is_none() && !code.is_empty();
        if case.title.is_empty() {
            let named = if case.category_name.is_empty() { cut(&named, CODE_MAX) } else { case.category_name.clone() };
            case.title = if named.is_empty() && !sos { first_words(&case.description) } else { named };
        }
        case.department = category.map(|c| c.department.clone()).unwrap_or_default();
        case.governance = case.governance.take().or_else(|| category.and_then(|c| c.governance.clone()));
        if case.booking.is_some() && category.is_none() {
            case.terms = Some(Terms::default());
        }
        let mut turn = Turn::new(self, &case, step::SUBMITTED, &by, None, None, now);
        turn.entry.text = note;
        turn.start_clock(RESPONSE, turn.limit_of(|t| t.response));
        if sos {
            turn.call_for_help();
        } else if let Some(to) = bound_for {
            // Above that node, if those handle such cases; what is handled below it is that node's to pass on.
            let handles = category.and_then(|c| c.tier).and_then(|tier| ancestor(&to, tier));
            turn.hand_to(handles.unwrap_or(to));
        } else if let Some(to) = case.booking.as_ref().map(|b| b.node.clone()) {
            turn.hand_to(to);
        } else if let Some(to) = category.and_then(|c| c.tier).and_then(|tier| ancestor(self.me, tier)) {
            turn.hand_to(to);
        }
        turn.done()
    }

    /// What the case is about is known by now, or nobody knows it: it becomes what it would have been. How far it goes
    /// up stays, for those up there have it.
    pub fn categorise(&self, case: &Case, now: DateTime<Utc>) -> Stepped {
        let mut turn = Turn::new(self, case, step::CATEGORISED, "catalogue", None, None, now);
        turn.case.category_awaited = false;
        let Some(category) = self.category_of(case) else {
            turn.entry.text = format!("`{}` is no category that is known here: no limits", case.category);
            return turn.done();
        };
        turn.entry.text = format!("its category is known here by now: {}", category.name);
        turn.categorise(category);
        let waits = turn.case.status == Status::Submitted && !case.urgent;
        if waits && category.code == SOS {
            // It is in the lane of what is not urgent, and stays there: somebody must look at once all the same.
            turn.entry.calls.push(self.me.clone());
        } else if let Some(to) = category.tier.filter(|_| waits).and_then(|tier| ancestor(self.me, tier)) {
            turn.hand_to(to);
        }
        turn.done()
    }

    /// A case of this node with which nothing has been done: what the opening itself says.
    fn blank(&self, opening: Opening, now: DateTime<Utc>) -> Case {
        let (place, title, description) = said(&opening);
        Case {
            id: opening.id,
            term: 1,
            version: 0,
            kind: opening.kind.unwrap_or(Kind::Appeal),
            status: Status::Submitted,
            owner: self.me.clone(),
            handing_to: None,
            opened_at: self.me.clone(),
            filed_for: opening.bound_for,
            opened: now,
            changed: now,
            event: opening.event,
            alarm: opening.alarm,
            imported: None,
            button: opening.button,
            urgent: false,
            reach: Tier::City,
            category: cut(&opening.category, CODE_MAX),
            category_awaited: false,
            category_name: String::new(),
            department: String::new(),
            governance: opening.governance.map(|text| cut(&text, NAME_MAX)),
            channel: cut(&opening.channel, CODE_MAX),
            title,
            description,
            place,
            place_again: None,
            form: opening.form,
            media: opening.media,
            has_contact: opening.has_contact,
            contact_came: opening.has_contact,
            contact_lost: None,
            forgotten: false,
            unit: String::new(),
            dispatched_by: Vec::new(),
            dispatched: None,
            accepted_by: None,
            accepted_from: None,
            signed: None,
            contacted: None,
            responded_before: None,
            handlers: Vec::new(),
            terms: None,
            clocks: Vec::new(),
            late: false,
            outcome: None,
            finding: None,
            verdict: None,
            other_verdict: None,
            judged_before: Tally::default(),
            suspended: None,
            extended: None,
            excluded: None,
            offered_to: None,
            escalated_to: None,
            assists: Vec::new(),
            suspensions: 0,
            escalations: 0,
            returns: 0,
            reworks: 0,
            reopened: 0,
            merged_into: None,
            merging: None,
            leader_ended: None,
            followers: Vec::new(),
            booking: opening.booking,
            closed: None,
            closed_reason: None,
            reopen_until: None,
        }
    }

    /// Takes a case that was handed here; `case` is what came with the hand-over.
    pub fn take(&self, case: &Case, now: DateTime<Utc>) -> Stepped {
        let mut turn = Turn::new(self, case, step::TAKEN, "hand-over", None, Some(case.owner.clone()), now);
        turn.arrive();
        turn.case.term += 1;
        turn.entry.term = turn.case.term;
        // What the giver wrote may be lost with its disk before those above both have heard of it. One above the giver
        // has passed that on before the case came.
        let tells_all = !self.me.covers(&case.owner);
        let taken = turn.done();
        Stepped { tells_all: taken.tells_all || tells_all, ..taken }
    }

    /// Takes a case that was with the box that was here before, or on its way to it: that box has lost
    /// its disk, and `case` is the newest that anybody else knows of it. The term after the next: the
    /// lost box may have taken it, and written steps of that term that some node holds.
    pub fn recover(&self, case: &Case, now: DateTime<Utc>) -> Stepped {
        let from = (case.owner != *self.me).then(|| case.owner.clone());
        let mut turn = Turn::new(self, case, step::RECOVERED, "succession", None, from, now);
        turn.arrive();
        turn.case.term += 2;
        turn.entry.term = turn.case.term;
        turn.entry.text = "the box that was here has lost its disk".into();
        Stepped { tells_all: true, ..turn.done() }
    }

    /// Sends a hand-over of the box that was here before again: nobody knows whether it has left.
    pub fn send_again(&self, case: &Case, now: DateTime<Utc>) -> Stepped {
        let mut turn = Turn::new(self, case, step::SENT_AGAIN, "succession", None, None, now);
        turn.entry.to = case.handing_to.as_ref().map(Address::to_string);
        turn.entry.text = "the box that was here has lost its disk".into();
        Stepped { tells_all: true, ..turn.done() }
    }

    /// Gives back to `to` a case that was taken here and not begun, because its giver wants it again.
    pub fn give_back(&self, case: &Case, to: &Address, by: &str, why: &str, now: DateTime<Utc>) -> Stepped {
        let mut turn = Turn::new(self, case, Verb::Recall.done(), by, None, Some(to.clone()), now);
        turn.entry.text = why.to_owned();
        if case.dispatched_by.last() == Some(to) {
            turn.undispatch();
        }
        turn.case.merging = None;
        turn.hand_to(to.clone());
        turn.done()
    }

    /// It could not be handed over, or is not to be (`is_recalled`), and is this node's again; `why` says what was in
    /// the way.
    pub fn bounce(&self, case: &Case, why: &str, is_recalled: bool, now: DateTime<Utc>) -> Stepped {
        let mut turn = Turn::new(self, case, step::CAME_BACK, "hand-over", None, None, now);
        let to = turn.case.handing_to.take();
        turn.case.merging = None;
        // Whoever was to return it would have been this node.
        let was_dispatched = turn.case.dispatched_by.pop_if(|last| last == self.me).is_some();
        match (was_dispatched, is_recalled) {
            (true, true) => turn.undispatch(),
            (true, false) => turn.nobody_came(),
            // Who believed that somebody comes must send another.
            (false, false) if case.urgent => turn.entry.calls.push(self.me.clone()),
            (false, _) => {}
        }
        turn.entry.to = to.map(|to| to.to_string());
        turn.entry.text = why.to_owned();
        turn.done()
    }

    /// Whom to call has come after the case itself, by the word of whoever gave it.
    pub fn contact_came(&self, case: &Case, giver: &Address, now: DateTime<Utc>) -> Stepped {
        let mut turn = Turn::new(self, case, Verb::Comment.done(), "hand-over", None, Some(giver.clone()), now);
        turn.entry.text = "whom to call has come behind the case".into();
        (turn.case.contact_came, turn.case.contact_lost) = (true, None);
        turn.done()
    }

    /// The node that offers the service answers a request: the appointment is given, or `why` not.
    pub fn book(&self, case: &Case, why: Option<String>, now: DateTime<Utc>) -> Stepped {
        let done = if why.is_none() { step::BOOKED } else { Verb::Reject.done() };
        let mut turn = Turn::new(self, case, done, "booking", None, None, now);
        let state = if why.is_none() { Booked::Booked } else { Booked::Refused };
        if let Some(booking) = &mut turn.case.booking {
            booking.state = state;
        }
        if let Some(why) = why {
            turn.entry.text = why;
            turn.end(Status::Rejected, ClosedReason::Refused);
        }
        turn.done()
    }

    /// What a case has seats of is offered otherwise now; a case that is over stays so. Responders are called whatever
    /// it is: who booked by telephone hears of it from nobody else, and who was told that it is cancelled would stay
    /// away.
    pub fn rebook(
        &self,
        case: &Case,
        booking: Booking,
        step: &str,
        to: Option<String>,
        text: String,
        now: DateTime<Utc>,
    ) -> Stepped {
        let mut turn = Turn::new(self, case, step, "booking", None, None, now);
        // Who named another place is visited there.
        if case.booking.as_ref().is_some_and(|before| before.place == case.place) {
            turn.case.place.clone_from(&booking.place);
        }
        turn.entry.calls.push(self.me.clone());
        turn.case.booking = Some(booking);
        (turn.entry.to, turn.entry.text) = (to, text);
        turn.done()
    }

    /// A clock's time is over.
    pub fn timer(&self, case: &Case, clock: &str, now: DateTime<Utc>) -> Stepped {
        let mut turn = Turn::new(self, case, Verb::Escalate.done(), TIMER, None, None, now);
        // Nobody takes over what is answered: whoever is above sees to it that the resident is asked.
        let takes = clock != CLIMB && clock != CALL_BACK && self.settings.missed == Missed::HandOver;
        let watching = watching(case).filter(|_| !takes);
        let above = watching.unwrap_or(&case.owner).parent();
        if clock == CLIMB {
            match above.filter(|_| case.status == Status::Submitted) {
                None => turn.stop_clock(CLIMB),
                Some(above) => {
                    turn.entry.text = "nobody has accepted it yet".into();
                    if above.parent().is_some() {
                        turn.start_clock(CLIMB, Some(turn.climb()));
                    } else {
                        turn.stop_clock(CLIMB);
                    }
                    turn.escalate(above);
                }
            }
            return turn.done();
        }
        if let Some(c) = turn.case.clocks.iter_mut().find(|c| c.name == clock) {
            c.missed = Some(now);
            turn.case.late |= c.is_limit();
        }
        turn.entry.clocks.push(format!("{clock}{MISSED}"));
        turn.entry.text = format!("the {clock} limit has passed");
        if let Some(imported) = &mut turn.case.imported
            && imported.version == case.version
        {
            // It is as much the other system's as before.
            imported.version = turn.case.version;
        }
        if turn.case.clock(clock).is_some_and(Clock::is_assist) {
            // Whoever summoned them hears of it; those above are not asked.
            turn.entry.step = step::MISSED.into();
            turn.entry.calls.push(self.me.clone());
            return turn.done();
        }
        // Watched at the top already, the top hears of it again.
        match above.or_else(|| watching.cloned()) {
            Some(above) => {
                turn.escalate(above.clone());
                if takes {
                    turn.case.offered_to = Some(above);
                }
            }
            None => {
                turn.entry.step = step::MISSED.into();
                turn.entry.calls.push(self.me.clone());
            }
        }
        turn.done()
    }
}

/// Does that line say that a limit has passed?
pub fn misses(entry: &Entry) -> bool {
    entry.by == TIMER && entry.clocks.iter().any(|said| said.ends_with(MISSED))
}

/// The highest that watches the case, of those above its owner: it may have come from another branch.
fn watching(case: &Case) -> Option<&Address> {
    case.escalated_to.as_ref().filter(|above| above.covers(&case.owner))
}

/// Who watches it next, if it is escalated.
fn above_watching(case: &Case) -> Option<Address> {
    watching(case).unwrap_or(&case.owner).parent()
}

/// To whom its owner may offer it.
fn may_be_offered(case: &Case) -> Option<Address> {
    case.owner.parent().filter(|above| case.offered_to.as_ref() != Some(above))
}

fn not_offered(case: &Case) -> Refusal {
    let detail = format!("`{}` is not offered any more", case.id);
    Refusal::new("not-now", detail, "it was dealt with, or taken, since it was offered")
}

/// The ancestor of that tier, if it is one and not the node itself.
pub fn ancestor(me: &Address, tier: Tier) -> Option<Address> {
    let mut at = me.parent();
    while let Some(a) = at {
        if a.tier() == tier {
            return Some(a);
        }
        at = a.parent();
    }
    None
}

/// The lowest node that is above both, or one of them; none in different trees.
pub fn common(a: &Address, b: &Address) -> Option<Address> {
    let mut at = Some(a.clone());
    while let Some(x) = at {
        if x.covers(b) {
            return Some(x);
        }
        at = x.parent();
    }
    None
}
