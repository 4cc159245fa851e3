//! One step being made: its clocks, and the parts that several steps share.

use super::{Book, Refusal, Stepped, common};
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_shared::case::{
    Approved, Ask, Booked, CALL_BACK, CLIMB, Case, Clock, ClosedReason, DISPATCH, Entry, Kind, Place, RESPONSE, Role,
    SOLUTION, Status, Terms, assist_clock,
};
use citybrain_shared::config::cases::{Category, Limit, Unit};
use citybrain_shared::{Address, Tier};

/// Characters of a reason, a result or a comment. What is longer belongs into an attachment.
pub const TEXT_MAX: usize = 2000;
/// Less than this is an adjustment of a clock.
const AHEAD_MAX: TimeDelta = TimeDelta::minutes(10);
/// References that a line of history keeps, and characters of one.
const SHOWN_MAX: usize = 8;
const SHOWN_CHARS: usize = 300;
/// Who did it, where a resident did: the name is kept with the telephone number.
pub const RESIDENT: &str = "resident";
/// Who did it, where residents did by a program: before the name of that program's token.
pub const APP: &str = "app:";
/// The same, where it speaks Open311.
pub const OPEN311: &str = "open311:";

/// The name of the token of the program by which residents did it.
pub fn app_of(by: &str) -> Option<&str> {
    by.strip_prefix(APP).or_else(|| by.strip_prefix(OPEN311))
}

/// Characters of a person's or a unit's name.
pub(super) const NAME_MAX: usize = 100;
/// Summons, dispatchers, handlers, followers of one case, each.
pub(super) const LIST_MAX: usize = 64;

/// One step being made.
pub(super) struct Turn<'a> {
    pub(super) book: &'a Book<'a>,
    pub(super) case: Case,
    pub(super) entry: Entry,
    pub(super) now: DateTime<Utc>,
    reach_before: Tier,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        book: &'a Book<'a>,
        case: &Case,
        step: &str,
        by: &str,
        role: Option<Role>,
        from: Option<Address>,
        now: DateTime<Utc>,
    ) -> Turn<'a> {
        let (mut case, reach_before) = (case.clone(), case.reach);
        case.version += 1;
        // From here on it is what counts, wherever the case goes.
        if case.terms.is_none() {
            case.terms = book.category(&case.category).map(Terms::of);
        }
        // A clock that is adjusted must not write a history that runs backwards; one that was far ahead,
        // and is right again, must not leave limits behind that pass when it would have been right.
        let now = if case.changed - now > AHEAD_MAX { now } else { now.max(case.changed) };
        case.changed = now;
        let entry = Entry {
            term: case.term,
            version: case.version,
            step: step.to_owned(),
            at: now,
            node: book.me.clone(),
            from,
            wish: None,
            // Copies of this line go to all tiers.
            by: cut(heard_as(by, role), NAME_MAX),
            role,
            text: String::new(),
            place: None,
            to: None,
            clocks: Vec::new(),
            calls: Vec::new(),
            evidence: Vec::new(),
        };
        Turn { book, case, entry, now, reach_before }
    }

    pub(super) fn done(self) -> Stepped {
        let tells_all = self.case.reach < self.reach_before;
        Stepped { case: self.case, entry: self.entry, tells_all, because: None }
    }

    /// One of the limits that the case was opened with.
    pub(super) fn limit_of(&self, which: impl FnOnce(&Terms) -> Option<Limit>) -> Option<Limit> {
        self.case.terms.as_ref().and_then(which)
    }

    // ---- clocks

    pub(super) fn start_clock(&mut self, name: &str, limit: Option<Limit>) {
        self.start_clock_at(name, limit, self.now);
    }

    fn start_clock_at(&mut self, name: &str, limit: Option<Limit>, started: DateTime<Utc>) {
        let Some(limit) = limit else { return };
        let due = self.book.calendar.due(started, limit);
        let clock = Clock {
            name: name.to_owned(),
            limit: limit.to_string(),
            started,
            due: Some(due),
            left_us: None,
            stopped: None,
            missed: None,
            due_before: None,
            missed_before: false,
        };
        self.entry.clocks.push(format!("{name} runs until {}", citybrain_shared::view::rfc3339(due)));
        match self.case.clocks.iter_mut().find(|c| c.name == name) {
            Some(old) if old.is_limit() => {
                let (due_before, missed_before) = passed(old, self.now);
                self.case.late |= missed_before;
                *old = Clock { due_before, missed_before, ..clock };
            }
            Some(old) => *old = clock,
            None => self.case.clocks.push(clock),
        }
    }

    pub(super) fn stop_clock(&mut self, name: &str) {
        let now = self.now;
        let Some(clock) = self.case.clocks.iter_mut().find(|c| c.name == name && c.stopped.is_none()) else { return };
        clock.stopped = Some(now);
        let is_over = clock.is_over(now);
        self.case.late |= is_over && clock.is_limit();
        let over = if is_over { ", too late" } else { "" };
        self.entry.clocks.push(format!("{name} stopped{over}"));
    }

    /// What it was stopped for does not stand: it runs on as before.
    pub(super) fn run_on(&mut self, name: &str) {
        let Some(clock) = self.case.clocks.iter_mut().find(|c| c.name == name && c.stopped.is_some()) else { return };
        clock.stopped = None;
        let until = clock.due.map(|due| format!(" until {}", citybrain_shared::view::rfc3339(due)));
        self.entry.clocks.push(format!("{name} runs on{}", until.unwrap_or_default()));
    }

    /// What ended in time without what it was for is due no more: whoever gets the case next has a limit of his own.
    pub(super) fn void_clock(&mut self, name: &str) {
        let now = self.now;
        let in_time = |c: &&mut Clock| c.name == name && c.missed.is_none() && !c.is_over(now);
        if let Some(clock) = self.case.clocks.iter_mut().find(in_time) {
            clock.due = None;
        }
    }

    /// What has passed waits for nobody: it stays missed, and over since then.
    pub(super) fn pause_clock(&mut self, name: &str) {
        let (now, calendar) = (self.now, self.book.calendar);
        let Some(clock) = self.case.clocks.iter_mut().find(|c| c.name == name && c.runs()) else { return };
        if clock.missed.is_some() || clock.is_over(now) {
            self.entry.clocks.push(format!("{name} not paused, its limit has passed"));
        } else if let Some(due) = clock.due.take() {
            clock.left_us = Some(calendar.left(unit_of(&clock.limit), now, due));
            self.entry.clocks.push(format!("{name} paused"));
        }
    }

    pub(super) fn resume_clock(&mut self, name: &str) {
        let (now, calendar) = (self.now, self.book.calendar);
        let Some(clock) = self.case.clocks.iter_mut().find(|c| c.name == name && c.stopped.is_none()) else { return };
        if let Some(left) = clock.left_us.take() {
            let due = calendar.later(now, unit_of(&clock.limit), left);
            clock.due = Some(due);
            self.entry.clocks.push(format!("{name} runs until {}", citybrain_shared::view::rfc3339(due)));
        }
    }

    pub(super) fn extend_clock(&mut self, name: &str, limit: Limit) -> bool {
        let (now, calendar) = (self.now, self.book.calendar);
        let Some(clock) = self.case.clocks.iter_mut().find(|c| c.name == name && c.runs()) else { return false };
        let Some(due) = clock.due else { return false };
        let later = calendar.due(due, limit);
        (clock.due_before, clock.missed_before) = passed(clock, now);
        self.case.late |= clock.missed_before;
        clock.due = Some(later);
        clock.limit = format!("{}+{limit}", clock.limit);
        if later > now {
            clock.missed = None;
        }
        self.entry.clocks.push(format!("{name} runs until {}", citybrain_shared::view::rfc3339(later)));
        true
    }

    pub(super) fn stop_all(&mut self) {
        let running: Vec<String> =
            self.case.clocks.iter().filter(|c| c.stopped.is_none()).map(|c| c.name.clone()).collect();
        running.iter().for_each(|name| self.stop_clock(name));
    }

    // ---- parts of steps

    /// The case is of that category, and was when it was opened. What nobody has answered yet is due as it would have
    /// been, and so is what was dispatched; the dispatch of what was accepted, and the asking of whoever has a
    /// result and has not said what he thinks of it, from now on. What is suspended runs when it is resumed.
    pub(super) fn categorise(&mut self, category: &Category) {
        let case = &mut self.case;
        case.category.clone_from(&category.code);
        case.category_name.clone_from(&category.name);
        case.department.clone_from(&category.department);
        case.governance = case.governance.take().or_else(|| category.governance.clone());
        case.terms.get_or_insert_with(|| Terms::of(category));
        if case.kind == Kind::Appeal {
            case.kind = category.kind;
        }
        let is_answered = case.first_responded().is_some() || !case.status.is_open();
        let (opened, dispatched) = (case.opened, case.dispatched);
        if !is_answered {
            self.start_clock_at(RESPONSE, self.limit_of(|t| t.response), opened);
        }
        let (next, limit, since) = match self.case.status {
            Status::Accepted => (DISPATCH, self.limit_of(|t| t.dispatch), Some(self.now)),
            Status::Dispatched | Status::Handling => (SOLUTION, self.limit_of(|t| t.solution), dispatched),
            Status::Resolved if self.case.verdict.is_none() => {
                (CALL_BACK, self.limit_of(|t| t.call_back), Some(self.now))
            }
            _ => return,
        };
        let is_new = self.case.clock(next).is_none();
        if let Some(since) = since.filter(|_| is_new) {
            self.start_clock_at(next, limit, since);
            if self.case.suspended.is_some() {
                self.pause_clock(next);
            }
        }
    }

    /// What shows what was done or said; that of a solution is kept with it.
    pub(super) fn show(&mut self, evidence: &[String]) -> Result<(), Refusal> {
        if evidence.len() > SHOWN_MAX {
            let detail = format!("{} references; a line of history has at most {SHOWN_MAX}", evidence.len());
            return Err(Refusal::new("too-many", detail, "say the rest in another `comment`"));
        }
        self.entry.evidence = shown(evidence);
        Ok(())
    }

    /// It is said to be elsewhere than was known: whoever is called for it, or comes already, must hear of it.
    pub(super) fn moved(&mut self, place: Option<&Place>) {
        let known = self.case.place_again.as_ref().or(self.case.place.as_ref());
        let Some(place) = place.filter(|place| Some(*place) != known).cloned() else { return };
        self.entry.place = Some(place.clone());
        self.case.place_again = Some(place);
        if self.case.urgent && self.case.status.is_open() {
            self.entry.calls.push(self.book.me.clone());
            // Where it was said they have heard of it.
            let is_new = |node: &Address| node != self.book.me && self.entry.from.as_ref() != Some(node);
            self.entry.calls.extend(self.case.accepted_from.clone().filter(is_new));
        }
    }

    pub(super) fn need_text(&self, what: &str) -> Result<(), Refusal> {
        if self.entry.text.trim().is_empty() { Err(missing("text", what)) } else { Ok(()) }
    }

    pub(super) fn approved(&mut self, ask: &Ask, what: &str) -> Result<Approved, Refusal> {
        self.need_text(what)?;
        let approved_by = ask.approved_by.clone().filter(|a| !a.trim().is_empty());
        let approved_by = approved_by.ok_or_else(|| missing("approved_by", "who approved it"))?;
        two_persons(&ask.by, &approved_by, r#"another: `"approved_by":"NAME"`"#)?;
        self.entry.to = Some(format!("approved by {approved_by}"));
        Ok(Approved { by: ask.by.clone(), approved_by, at: self.now, reason: self.entry.text.clone() })
    }

    pub(super) fn limit(&self, ask: &Ask) -> Result<Option<Limit>, Refusal> {
        ask.limit.as_deref().map(Limit::parse).transpose().map_err(|e| Refusal::new("bad-limit", e, "such as `2wd`"))
    }

    /// Whoever handles is remembered, and the unit for which he does: one who could not be must not handle, or he
    /// could close it.
    pub(super) fn handled(&mut self) -> Result<(), Refusal> {
        for name in [self.entry.by.clone(), self.case.unit.clone()] {
            let is_known = self.case.handlers.iter().any(|known| is_same_person(known, &name));
            if name.is_empty() || is_known {
                continue;
            }
            if self.case.handlers.len() >= LIST_MAX {
                let detail = format!("{LIST_MAX} people and units have handled it already");
                return Err(Refusal::new("too-many", detail, "one of them must go on: `case show` names them"));
            }
            self.case.handlers.push(name);
        }
        Ok(())
    }

    /// Signed for, and the resident called, if there is one: then the response is there.
    pub(super) fn responded(&mut self, contacted: bool) {
        if contacted && self.case.contacted.is_none() {
            self.case.contacted = Some(self.now);
            self.entry.to.get_or_insert_with(|| "the resident was called".into());
        }
        if self.case.responded().is_some() {
            self.stop_clock(RESPONSE);
        }
    }

    /// It waits for its dispatch again.
    pub(super) fn undispatch(&mut self) {
        self.leave_unit();
        self.case.status = Status::Accepted;
        self.start_clock(DISPATCH, self.limit_of(|t| t.dispatch));
    }

    /// The same, as whoever was sent does not come. Somebody who waits for help must not wait for those who have sent
    /// him, and believe that he is there.
    pub(super) fn nobody_came(&mut self) {
        if !self.case.urgent {
            return self.undispatch();
        }
        self.leave_unit();
        self.call_anew();
    }

    /// Whoever it was dispatched to has nothing to do with it any more.
    fn leave_unit(&mut self) {
        self.case.unit.clear();
        self.case.suspended = None;
        self.stop_clock(SOLUTION);
        self.void_clock(SOLUTION);
    }

    /// It is this node's now. Whoever was to return it here has done so.
    pub(super) fn arrive(&mut self) {
        self.case.owner = self.book.me.clone();
        self.case.handing_to = None;
        // What comes to be merged may go back to whoever was to return it.
        if self.case.merging.is_none() {
            self.case.dispatched_by.pop_if(|last| last == self.book.me);
        }
    }

    pub(super) fn hand_to(&mut self, to: Address) {
        if to == *self.book.me {
            return;
        }
        if let Some(top) = common(self.book.me, &to) {
            // Whoever passes it on must see it.
            self.case.reach = self.case.reach.min(top.tier());
        }
        self.entry.to = Some(to.to_string());
        self.case.handing_to = Some(to);
        self.case.offered_to = None;
    }

    pub(super) fn escalate(&mut self, above: Address) {
        self.case.escalations += 1;
        self.case.reach = self.case.reach.min(above.tier());
        self.entry.to = Some(above.to_string());
        self.entry.calls.push(above.clone());
        // The highest stays the highest.
        if self.case.escalated_to.as_ref().is_none_or(|known| !known.covers(&above)) {
            self.case.escalated_to = Some(above);
        }
    }

    /// How long a press waits at each tier.
    pub(super) fn climb(&self) -> Limit {
        Limit { amount: self.book.settings.sos_climb_s.max(1), unit: Unit::Clock("s", 1_000_000) }
    }

    /// The responders are called where it is, or will be, and those above until somebody accepts it.
    pub(super) fn call_for_help(&mut self) {
        let there = self.case.bound_for().clone();
        if there.parent().is_some() {
            self.start_clock(CLIMB, Some(self.climb()));
        }
        self.entry.calls.push(there);
    }

    /// To a call for help nobody comes any more, whoever had accepted it: it calls as at first, and is to be answered
    /// anew.
    fn call_anew(&mut self) {
        let case = &mut self.case;
        case.status = Status::Submitted;
        case.escalated_to = None;
        case.responded_before = case.first_responded();
        (case.accepted_by, case.accepted_from, case.signed) = (None, None, None);
        self.await_response_again();
        self.call_for_help();
    }

    /// What was not answered yet is due as it was. Otherwise there is a limit anew, and rates go by the first one.
    fn await_response_again(&mut self) {
        let Some(before) = self.case.clock(RESPONSE).filter(|c| c.stopped.is_some()).cloned() else { return };
        self.start_clock(RESPONSE, self.limit_of(|t| t.response));
        let Some(clock) = self.case.clocks.iter_mut().find(|c| c.name == RESPONSE) else { return };
        match before.due_before {
            Some(_) => clock.missed_before = before.missed_before,
            None => clock.due_before = before.due,
        }
    }

    /// The answer that they were said of does not stand: they are no word on the next one, and stay counted.
    pub(super) fn set_verdicts_aside(&mut self) {
        let case = &mut self.case;
        case.judged_before = case.judged();
        (case.verdict, case.other_verdict) = (None, None);
    }

    /// Another round begins.
    pub(super) fn begin_again(&mut self, status: Status) {
        if self.case.ended_uncalled() {
            self.void_clock(CALL_BACK);
        }
        let case = &mut self.case;
        case.status = status;
        (case.closed, case.closed_reason, case.reopen_until) = (None, None, None);
        (case.outcome, case.finding) = (None, None);
        case.escalated_to = None;
        self.set_verdicts_aside();
        if self.case.urgent {
            self.call_anew();
        } else if status == Status::Accepted {
            self.start_clock(DISPATCH, self.limit_of(|t| t.dispatch));
        }
        self.await_reports_again();
    }

    /// Whoever was summoned, and had not reported when the case ended, is called again, and has as long for it as he
    /// had then.
    fn await_reports_again(&mut self) {
        let nodes = self.case.assists.iter().filter(|a| a.reported.is_none()).filter_map(|a| a.node.clone());
        self.entry.calls.extend(nodes);
        let awaited = self.case.assists.iter().filter(|a| a.reported.is_none()).map(|a| assist_clock(&a.id));
        let limits = awaited.filter_map(|name| {
            let stopped = self.case.clock(&name).filter(|c| c.stopped.is_some())?;
            Some((name, Limit::parse(&stopped.limit).ok()?))
        });
        for (name, limit) in limits.collect::<Vec<_>>() {
            self.start_clock(&name, Some(limit));
        }
    }

    pub(super) fn end(&mut self, status: Status, reason: ClosedReason) {
        self.case.status = status;
        self.case.closed = Some(self.now);
        self.case.closed_reason = Some(reason);
        self.case.reopen_until = Some(self.book.reopen_until(self.now));
        self.case.suspended = None;
        self.case.offered_to = None;
        self.entry.to = Some(reason.to_string());
        self.stop_all();
        if !matches!(status, Status::Withdrawn | Status::Rejected) {
            return;
        }
        // Its seat is for others.
        if let Some(booking) = self.case.booking.as_mut().filter(|b| b.state.has_seat()) {
            booking.state = Booked::GivenBack;
        }
    }
}

/// By which limit a clock stays counted though it gets another one, and whether it has been missed: nobody takes what
/// has passed out of its period.
fn passed(clock: &Clock, now: DateTime<Utc>) -> (Option<DateTime<Utc>>, bool) {
    let is_missed = clock.missed.is_some() || clock.is_over(now);
    let due = clock.due.filter(|due| is_missed || now > *due);
    (clock.due_before.or(due), clock.missed_before || is_missed)
}

/// References as a line of history keeps them.
pub(in crate::brain::cases) fn shown(evidence: &[String]) -> Vec<String> {
    evidence.iter().take(SHOWN_MAX).map(|e| cut(e, SHOWN_CHARS)).collect()
}

/// By which name others hear of whoever says something in that role: a resident's own does not leave the node that has
/// his telephone number.
pub fn heard_as(by: &str, role: Option<Role>) -> &str {
    if role == Some(Role::Resident) && is_name(by) { RESIDENT } else { by }
}

/// Is it a person's name, and not a part of this program that speaks (`event`, `open311:app-1`)?
pub fn is_name(by: &str) -> bool {
    !(by.is_empty() || by == "event" || by == RESIDENT || by.contains(':'))
}

/// Are these two ways to write one name? Capitals, blanks and the wide letters of Chinese keyboards make no
/// other person.
pub(in crate::brain::cases) fn is_same_person(a: &str, b: &str) -> bool {
    let plain = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        c => c,
    };
    let letters = |name: &str| -> String {
        name.chars().map(plain).filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect()
    };
    letters(a) == letters(b)
}

/// Who asks for what must be approved, and who approves it. `way`: what whoever asks can do about it.
///
/// # Errors
/// They are one.
pub fn two_persons(by: &str, approved_by: &str, way: &str) -> Result<(), Refusal> {
    match is_same_person(by, approved_by) {
        true => Err(Refusal::new("own-approval", "nobody approves what they ask for", way)),
        false => Ok(()),
    }
}

pub(super) fn missing(field: &str, what: &str) -> Refusal {
    missing_such(field, "\"…\"", what)
}

/// `such`: what stands there, as JSON.
pub(super) fn missing_such(field: &str, such: &str, what: &str) -> Refusal {
    Refusal::new("missing", format!("`{field}` is missing: {what}"), format!("`\"{field}\":{such}`"))
}

/// So many characters, and three bytes for each at most (what Chinese has), without those that are no
/// text: as JSON it is never more than twice as long. Cut again it is the same.
pub(in crate::brain::cases) fn cut(text: &str, chars: usize) -> String {
    let mut bytes = 0;
    let fits = |c: &char| {
        bytes += c.len_utf8();
        bytes <= 3 * chars
    };
    let is_text = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let text = text.chars().filter(is_text).skip_while(|c| c.is_whitespace());
    let mut kept: String = text.take(chars).take_while(fits).collect();
    kept.truncate(kept.trim_end().len());
    kept
}

/// The kind of time that runs at the end of a limit: of one that was extended (`4wh+24h`) the last.
fn unit_of(limit: &str) -> Unit {
    let last = limit.rsplit('+').next().unwrap_or(limit);
    Limit::parse(last).map_or(Unit::Clock("s", 1_000_000), |l| l.unit)
}
