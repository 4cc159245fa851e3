//! What follows from an event, a step or a letter: pure, before the commit.

use super::letter::{self, Body, End, Letter, Offered, Pen, RECALL, Step};
use super::letters::Posted;
use super::machine::{self, Opening, Refusal, Stepped, common};
use super::{
    AGAIN, COMING_MAX, Cases, HOPS_MAX, Held, PRESSES_MAX, WISH_ID_MAX, Wish, awaits_help, intake, is_hand_over,
    is_true, joined, kept, who,
};
use chrono::{DateTime, Utc};
use citybrain_hub::note::{DeadLetter, Note};
use citybrain_hub::state::{Presence, State};
use citybrain_shared::case::{Ask, Case, Coming, Contact, Entry, Role, Status, Verb, step};
use citybrain_shared::record::{Direction, Draft, Header};
use citybrain_shared::{Address, view};

/// What the id of a hand-over that goes back ends with.
pub(super) const SENT_BACK: &str = ".sent-back";

/// Of those who press one button again, how many numbers are kept beside the first.
const NUMBERS_MAX: usize = 8;
/// How the line of history begins that says so of the alarm that a case was opened beside.
const RAISED_AGAIN: &str = "raised again";

impl Cases {
    pub(super) fn opened_by(&self, header: &Header<'_>, payload: &[u8], now_us: i64) -> Vec<Draft> {
        let now = view::time_of(now_us);
        let read = intake::read(header, payload, self.calendar.day(now), &|category| self.is_call(category));
        let Some((mut opening, mut contact)) = read else { return Vec::new() };
        if self.held.contains_key(&opening.id) {
            return Vec::new();
        }
        let book = self.book();
        let category = book.category(&opening.category);
        intake::answered(&mut opening, &mut contact, category);
        if let Some(drafts) = self.raised_again(&opening, now) {
            return drafts;
        }
        match self.pressed_again(&opening, &contact, now_us) {
            Some((_, drafts)) => drafts,
            None => match self.has_room(opening.sos) {
                Ok(()) => self.open(opening, contact, now_us).1,
                // The event is in the log all the same; that nothing came of it is told.
                Err(full) => {
                    let event = machine::cut(opening.event.as_deref().unwrap_or_default(), 100);
                    let detail = format!("event `{event}` opened no case: {}; {}", full.detail, full.hint);
                    vec![Note::DeadLetter(DeadLetter::new("full", detail, "cases", "", b"")).draft()]
                }
            },
        }
    }

    /// An alarm that flaps is one matter: where a case was opened beside it and is open here, that it was raised
    /// again is a line of that case. `None`: there is none.
    fn raised_again(&self, opening: &Opening, now: DateTime<Utc>) -> Option<Vec<Draft>> {
        let alarm = opening.alarm.as_ref().filter(|_| opening.button.is_none())?;
        let is_same = |case: &&Case| {
            case.status.is_open() && self.may_step(&case.id) && self.book().is_same_category(case, opening)
        };
        let held = &self.held[&self.beside(alarm).find(is_same)?.id];
        let (place, title, _) = machine::said(opening);
        let place = place.filter(|place| Some(place) != held.place_now());
        let mut drafts = Vec::new();
        let recorded = held.history.iter().filter(|e| e.text.starts_with(RAISED_AGAIN)).count();
        if recorded < PRESSES_MAX {
            let text = if title == held.case.title { RAISED_AGAIN.into() } else { format!("{RAISED_AGAIN}: {title}") };
            let (by, role, text) = (opening.by.clone(), Some(Role::Worker), Some(text));
            let ask = Ask { by, role, text, place, ..Ask::default() };
            for mut stepped in self.step(held, Verb::Comment, &ask, &self.me, now).unwrap_or_default() {
                stepped.because.clone_from(&opening.event);
                self.write(&stepped, held.contact.as_ref(), None, now, &mut drafts);
            }
        }
        Some(drafts)
    }

    /// Records the press of a button on the incident that it has opened, if that is not over: that
    /// case, and what there is to write. `None`: it is another matter.
    pub fn pressed_again(&self, opening: &Opening, contact: &Contact, now_us: i64) -> Option<(String, Vec<Draft>)> {
        let button = opening.button.as_ref()?;
        let open = self.buttons.range((button.clone(), String::new())..).take_while(|(b, _)| b == button);
        // Where the person is forgotten no number is kept any more: whoever calls with one calls for himself.
        let may_be = |held: &&Held| contact.is_empty() || !held.is_forgotten();
        let held = open
            .filter_map(|(_, id)| self.held.get(id))
            .find(|held| may_be(held) && self.is_same_matter(held, opening, contact))?;
        let now = view::time_of(now_us);
        let id = held.case.id.clone();
        let mut drafts = Vec::new();
        // Who else has the case has, or gets, whom to call.
        let (may_step, travels) = (self.may_step(&id), self.settings.contact_travels);
        let stays = may_step || !travels;
        let news = Some(contact).filter(|c| !c.is_empty());
        // That there is somebody to call is nobody's secret, and its owner's limit depends on it.
        let sent = news.filter(|_| !may_step).map(|contact| if travels { contact.clone() } else { Contact::default() });
        match &held.contact {
            None => {
                let here = news.filter(|_| stays);
                here.iter().for_each(|contact| self.contact_draft(&held.case, contact, now, &mut drafts));
            }
            Some(known) => {
                let both = beside(known, contact, now).filter(|_| stays);
                both.iter().for_each(|both| self.contact_draft(&held.case, both, now, &mut drafts));
            }
        }
        let (place, title, words) = machine::said(opening);
        // Only what it says beside what is known, or stands there anyway.
        let is_place = |title: &String| place.as_ref().is_some_and(|place| place.text == *title);
        let is_news = |title: &String| *title != held.case.title && title != intake::SOS_TITLE && !is_place(title);
        let title = Some(title).filter(is_news);
        let place = place.filter(|place| Some(place) != held.place_now());
        // Where somebody is now, and whom to call, is news, however often the button was pressed.
        let is_first_number = news.is_some() && !held.case.knows_contact();
        let is_elsewhere = place.as_ref().is_some_and(|place| held.is_elsewhere(place));
        let is_news = is_elsewhere || is_first_number || sent.is_some();
        let most = if is_news { 2 * PRESSES_MAX } else { PRESSES_MAX };
        let recorded = held.history.iter().filter(|e| e.text.starts_with(AGAIN)).count();
        if recorded + held.pressed as usize >= most {
            return Some((id, drafts));
        }
        let at = place.as_ref().map_or(String::new(), |p| match (p.text.as_str(), p.lat, p.lon) {
            ("", Some(lat), Some(lon)) => format!(" at {lat}, {lon}"),
            (text, ..) => format!(" at {text}"),
        });
        let said = [format!("{AGAIN}{at}"), title.unwrap_or_default(), words].into_iter().filter(|t| !t.is_empty());
        let text = said.collect::<Vec<_>>().join(": ");
        let by = who(opening.by.clone(), &kept(contact));
        let role = if machine::is_name(&by) { Role::Worker } else { Role::Resident };
        let ask = Ask { by, role: Some(role), text: Some(text), place, ..Ask::default() };
        if may_step {
            for mut stepped in self.step(held, Verb::Comment, &ask, &self.me, now).unwrap_or_default() {
                stepped.because.clone_from(&opening.event);
                if news.is_some() {
                    stepped.brings_contact(true);
                }
                self.write(&stepped, held.contact.as_ref(), None, now, &mut drafts);
            }
        } else {
            let to = self.sends_on(held, Verb::Comment, &ask).unwrap_or(held.case.bound_for());
            let wish = format!("{id}{}{}", letter::PRESS, opening.id);
            drafts.extend(self.called_again(held, &ask, &wish, held.pressed == 0, now));
            let body = Body::Ask { case: id.clone(), verb: Verb::Comment, ask, hops: 0, contact: sent, offered: None };
            drafts.extend(Pen { me: &self.me, now }.letter(&self.letter(wish, to, held.case.urgent, body)));
        }
        Some((id, drafts))
    }

    /// Where a wish goes on to; `None`: it is for this node to do or to refuse.
    pub(super) fn sends_on<'h>(&self, held: &'h Held, verb: Verb, ask: &Ask) -> Option<&'h Address> {
        let case = &held.case;
        let follows = follows(verb, ask);
        if case.owner == self.me {
            return case.handing_to.as_ref().filter(|_| follows);
        }
        // Whoever gives it writes behind the case what it sends on; and has it again if it came back.
        let is_on_its_way = case.handing_to.as_ref() == Some(&self.me) || held.sent_back == Some(case.order());
        Some(if follows && is_on_its_way { &case.owner } else { case.bound_for() })
    }

    /// Somebody calls for help again, and another node has the case: whoever is on duty here hears of it at once,
    /// those there when they do. From another place always; from the same one at the first press since the owner's
    /// last word (`is_first`), for nobody here knows what has become of it there.
    pub(super) fn called_again(
        &self,
        held: &Held,
        ask: &Ask,
        wish: &str,
        is_first: bool,
        now: DateTime<Utc>,
    ) -> Option<Draft> {
        let elsewhere = ask.place.as_ref().filter(|place| held.calls_to(place));
        let is_wanted = held.case.urgent && held.case.status.is_open() && (elsewhere.is_some() || is_first);
        let place = elsewhere.or(held.place_now());
        is_wanted.then(|| Pen { me: &self.me, now }.call_again(&held.case, place, ask, wish))
    }

    /// The owner says that the case was over before somebody pressed again here: that is an incident of its own, or
    /// belongs to the one that another such press has opened.
    fn pressed_anew(
        &self,
        case: &str,
        wish: &str,
        said: &Ask,
        contact: Option<&Contact>,
        now: DateTime<Utc>,
    ) -> Option<Vec<Draft>> {
        let held = self.held.get(case).filter(|held| held.case.opened_at == self.me)?;
        let (_, id) = wish.split_once(letter::PRESS).filter(|(_, id)| !self.held.contains_key(*id))?;
        let told = contact.filter(|contact| !contact.is_empty());
        let contact = told.or(held.contact.as_ref()).cloned().unwrap_or_default();
        let known = held.case.clone();
        let opening = Opening {
            id: id.to_owned(),
            button: known.button,
            by: said.by.clone(),
            sos: true,
            category: known.category,
            title: known.title,
            description: said.text.clone().unwrap_or_default(),
            place: said.place.clone().or_else(|| held.place_now().cloned()),
            channel: known.channel,
            governance: known.governance,
            has_contact: !contact.is_empty(),
            ..Opening::default()
        };
        let now_us = now.timestamp_micros();
        let joined = self.pressed_again(&opening, &contact, now_us).filter(|(other, _)| other != case);
        Some(joined.map_or_else(|| self.open(opening, contact, now_us).1, |(_, drafts)| drafts))
    }

    /// A button with a name of its own is one matter while its incident is open; behind a source
    /// without a subject may be many people, so nothing that is said may differ.
    pub(super) fn is_same_matter(&self, held: &Held, opening: &Opening, contact: &Contact) -> bool {
        self.book().is_same_category(&held.case, opening)
            && (opening.button.as_deref().is_some_and(intake::names_device) || {
                machine::says_the_same(&held.case, opening)
                    // Where nobody here knows any more whom to call, it may be somebody else who calls now.
                    && (held.contact.is_some() || !held.case.has_contact)
                    && held.contact.clone().unwrap_or_default() == kept(contact)
            })
    }

    /// What a step, of this node or from below, asks of this node: a call for a step of its own, copies for
    /// others, a word to one who did not know that the case is gone.
    pub(super) fn seen(&self, step: &Step, state: &State, now: DateTime<Utc>) -> Vec<Draft> {
        let pen = Pen { me: &self.me, now };
        let Step { case, entry, history, answers } = step;
        let mut drafts = Vec::new();
        if let Some(known) = self.held.get(&case.id)
            && entry.node != self.me
            && !case.supersedes(&known.case)
        {
            // Known, or written by one who has lost the case and does not know it yet.
            if !known.history.contains(entry) {
                drafts.extend(self.copy_to(&entry.node, &known.case, known.history.last(), &known.history, None, now));
            }
            return drafts;
        }
        if entry.node == self.me && entry.calls.contains(&self.me) {
            drafts.push(pen.call(case, entry));
        }
        // The case is offered to this node: it asks for it now that it knows, so that nobody waits for it where it
        // is dead.
        if case.offered_to.as_ref() == Some(&self.me) && entry.step == Verb::Escalate.done() {
            let ask = Ask { by: machine::TIMER.into(), role: Some(Role::Worker), hand_over: true, ..Ask::default() };
            let body =
                Body::Ask { case: case.id.clone(), verb: Verb::Escalate, ask, hops: 0, contact: None, offered: None };
            let id = format!("{}.{}.{}.take", case.id, case.term, case.version);
            drafts.extend(pen.letter(&self.letter(id, &case.owner, case.urgent, body)));
        }
        let mut to: Vec<&Address> = vec![&case.opened_at];
        // Who asked for it; of a case that was taken: who gave it.
        to.extend(entry.from.as_ref());
        to.extend(entry.calls.iter());
        // And the one that it did not come to, which may think that it comes.
        let bound = entry.to.as_deref().filter(|_| entry.step == step::CAME_BACK).map(Address::parse);
        let bound = bound.and_then(Result::ok);
        to.extend(bound.as_ref());
        // Whoever was summoned works on it, too, and would else see it open for ever.
        to.extend(case.assists.iter().filter_map(|a| a.node.as_ref()));
        // Who gives the seat counts it.
        to.extend(case.booking.as_ref().map(|b| &b.node));
        // Whoever had it may still know whom to call, and would see it open, and overdue, for ever.
        let known = self.held.get(&case.id).map(|h| h.history.as_slice()).unwrap_or_default();
        if case.forgotten
            || !case.status.is_open()
            || [Verb::Reopen.done(), step::UNMERGED].contains(&entry.step.as_str())
        {
            to.extend(known.iter().map(|e| &e.node));
        }
        to.sort_unstable();
        to.dedup();
        for to in to {
            // Those above the owner see its records; the others are told by the node above both.
            let is_mine = !to.covers(&entry.node) && common(&entry.node, to).as_ref() == Some(&self.me);
            if is_mine && *to != self.me {
                // Where it is heard of for the first time, its step tells more of it.
                let lines = if history.is_empty() { known } else { history };
                drafts.extend(self.copy_to(to, case, Some(entry), lines, answers.as_deref(), now));
                let is_summoned = entry.step == Verb::Assist.done() && entry.calls.contains(to);
                if is_summoned && !self.may_be_there(to, state) {
                    drafts.extend(pen.letter(&self.of_nobody(case, to)));
                }
            }
        }
        drafts
    }

    /// May there be such a node below? Whoever has ever come up has told of itself, also to this folder, once it knows
    /// all that was before. (A node without any word of itself has no children.)
    fn may_be_there(&self, node: &Address, state: &State) -> bool {
        !self.is_settled() || state.registry.is_empty() || state.registry.contains_key(node)
    }

    fn knows_no(&self, node: &Address) -> String {
        format!("{} knows no node {node}", self.me)
    }

    /// A word to the owner, which summoned a node that never was and would wait for it.
    fn of_nobody(&self, case: &Case, node: &Address) -> Letter {
        let text = Some(format!("{}, which was summoned", self.knows_no(node)));
        let ask = Ask { by: self.me.to_string(), role: Some(Role::Worker), text, ..Ask::default() };
        let body = Body::Ask { case: case.id.clone(), verb: Verb::Comment, ask, hops: 0, contact: None, offered: None };
        let id = format!("{}.{}.{}.no.{node}", case.id, case.term, case.version);
        self.letter(id, &case.owner, case.urgent, body)
    }

    /// What is to be forgotten, for those whom only this node has given the case: the node above both
    /// may have seen nothing of that.
    pub(super) fn forgotten_below(&self, case: &Case, entry: &Entry, now: DateTime<Utc>) -> Vec<Draft> {
        let Some(held) = self.held.get(&case.id).filter(|h| case.forgotten && !h.case.forgotten) else {
            return Vec::new();
        };
        let mut to: Vec<&Address> = held.history.iter().map(|e| &e.node).collect();
        to.retain(|node| **node != self.me && self.me.covers(node));
        to.sort_unstable();
        to.dedup();
        to.into_iter().filter_map(|to| self.copy_to(to, case, Some(entry), &held.history, None, now)).collect()
    }

    pub(super) fn copy_to(
        &self,
        to: &Address,
        case: &Case,
        entry: Option<&Entry>,
        history: &[Entry],
        answers: Option<&str>,
        now: DateTime<Utc>,
    ) -> Option<Draft> {
        let history = letter::sent(history);
        // With its time: of two steps of one order both go.
        let at = case.changed.timestamp_micros();
        let id = format!("{}.{}.{}.{at:x}.copy.{to}", case.id, case.term, case.version);
        let answers = answers.map(str::to_owned);
        let body = Body::Copy { case: case.clone(), entry: entry?.clone(), history, answers };
        Pen { me: &self.me, now }.letter(&self.letter(id, to, case.urgent, body))
    }

    pub(super) fn letter(&self, id: String, to: &Address, urgent: bool, body: Body) -> Letter {
        Letter {
            id,
            from: self.me.clone(),
            via: None,
            to: to.clone(),
            urgent,
            at: None,
            again: 0,
            takes_back: Vec::new(),
            body,
        }
    }

    /// Is it a letter from below, for another part of this subtree?
    pub(super) fn turns(&self, header: &Header<'_>, letter: &Letter) -> bool {
        header.origin.is_some()
            && header.direction == Direction::Up
            && is_true(header, letter)
            && common(letter.sender(), &letter.to).as_ref() == Some(&self.me)
    }

    /// Where a letter turns down: on to a node that there is, or, a case, back to where it came from.
    pub(super) fn send_down(&self, letter: &Letter, state: &State, now: DateTime<Utc>) -> Option<Draft> {
        let pen = Pen { me: &self.me, now };
        let may_be_there = self.may_be_there(&letter.to, state);
        let Body::HandOver { case, .. } = &letter.body else {
            // What follows a case that comes back from nowhere comes back with it.
            let giver = self.held.get(letter.body.case()).map(|h| &h.case.owner).filter(|_| !may_be_there);
            let again = giver.and_then(|giver| self.sent_after(letter, giver));
            return pen.letter(again.as_ref().unwrap_or(letter));
        };
        let (term, version) = case.order();
        let known = self.held.get(&case.id);
        // It comes a second time, and its owner has it again already; or from a box that was restored,
        // and was answered long ago: while it is under way nobody steps, so what is newer says so.
        if known.is_some_and(|h| h.sent_back == Some((term, version)) || h.case.order() > (term, version)) {
            return None;
        }
        if may_be_there {
            return pen.letter(letter);
        }
        let why = self.knows_no(&letter.to);
        let body = Body::SentBack { case: case.id.clone(), term, version, why };
        pen.letter(&self.letter(format!("{}{SENT_BACK}", letter.id), &letter.from, letter.urgent, body))
    }

    /// A wish that goes after its case to another node; `None`: it does not, or has done so too often.
    pub(super) fn sent_after(&self, letter: &Letter, to: &Address) -> Option<Letter> {
        let Body::Ask { case, verb, ask, hops, contact, offered } = &letter.body else { return None };
        if *hops >= HOPS_MAX || *to == letter.from && !follows(*verb, ask) {
            return None;
        }
        let (case, ask, contact, offered) = (case.clone(), ask.clone(), contact.clone(), offered.clone());
        let body = Body::Ask { case, verb: *verb, ask, hops: hops + 1, contact, offered };
        Some(Letter { to: to.clone(), via: Some(self.me.clone()), body, ..letter.clone() })
    }

    /// The records of a case that has come here, by that letter.
    fn take(&self, taken: &Stepped, letter: &Letter, now: DateTime<Utc>) -> Vec<Draft> {
        let mut drafts = Vec::new();
        let mut taken = taken.clone();
        let known = self.held.get(&taken.case.id);
        let (came, is_whole) = self.brought(&taken.case);
        let came = came.as_ref();
        // What one on the way has kept back is not here, also when the next one keeps nothing back.
        let giver = taken.entry.from.as_ref().unwrap_or(&self.me);
        let keeper = if taken.case.contact_came { giver } else { &taken.case.opened_at };
        if *keeper == self.me && came.is_none() && taken.case.knows_contact() {
            // The box that was here kept it.
            taken.case.contact_lost = Some(self.me.clone());
        }
        taken.case.contact_came = taken.case.has_contact && is_whole;
        taken.case.contact_lost.take_if(|_| is_whole);
        let (case, taken) = (&taken.case, &taken);
        let mut history = known.map(|h| h.history.clone()).unwrap_or_default();
        if let Body::Returned { history: theirs, .. } = &letter.body {
            history.clone_from(theirs);
        }
        self.write_after(&history, taken, None, Some(&letter.id), now, &mut drafts);
        // Those above this node need it as much as those above the one that gave it. What another letter brings is kept
        // with this step: the case may go on before that one is answered.
        let needed = case.terms.as_ref().is_some_and(|t| t.contact_reach.is_some());
        let is_known = letter.brings_contact() || came == known.and_then(|held| held.contact.as_ref());
        if let Some(contact) = came.filter(|_| needed || !is_known) {
            self.contact_draft(case, contact, now, &mut drafts);
        }
        if let Some(main) = case.merging.as_ref().filter(|_| case.handing_to.is_none()) {
            let main = self.held.get(main).map(|held| &held.case);
            history.push(taken.entry.clone());
            for step in self.book().merge_here(case, main, taken.entry.from.as_ref(), now) {
                self.write_after(&history, &step, came, None, now, &mut drafts);
            }
        } else if let Some(answer) = self.booked(case, now) {
            self.write(&answer, None, None, now, &mut drafts);
        }
        drafts
    }

    /// Whom to call, as far as it has come here by the time that case is taken, and whether that is all that was known of
    /// it. A box that is told what the one before it had may have the hand-over itself, too.
    fn brought(&self, case: &Case) -> (Option<Contact>, bool) {
        let held = self.held.get(&case.id);
        if case.forgotten || held.is_some_and(Held::is_forgotten) {
            return (None, false);
        }
        let letters = self.inbox.handing(&case.id).chain(self.waiting.handing(&case.id));
        // Of the box that was here before the one above may know it, too.
        let letters = letters.chain(self.waiting.back_of(&case.id)).filter(|letter| letter.to == self.me);
        let given = letters.filter_map(|letter| match &letter.body {
            Body::HandOver { case, contact: Some(contact), .. }
            | Body::Returned { case, contact: Some(contact), .. } => Some((case, contact.clone())),
            _ => None,
        });
        let newest = given.max_by_key(|(given, _)| given.order());
        let was_whole = case.contact_came || case.opened_at == self.me;
        let is_whole = was_whole || newest.as_ref().is_some_and(|(given, _)| given.contact_came);
        let known = held.and_then(|held| held.contact.clone());
        let came = joined(newest.map(|(_, contact)| contact), known);
        let has_come = came.is_some();
        (came, has_come && is_whole)
    }

    /// Whom to call comes behind the word by which this node has the case: nobody is to believe any more that it is
    /// lost, and its giver need not keep it.
    fn came_late(&self, given: &Case, letter: &Letter, now: DateTime<Utc>) -> Option<Vec<Draft>> {
        let held = self.held.get(&given.id).filter(|held| self.is_own(held) && !held.is_forgotten())?;
        let case = &held.case;
        let is_news = case.has_contact && !case.contact_came && given.contact_came && letter.brings_contact();
        let told = is_news.then(|| self.book().contact_came(case, &given.owner, now))?;
        let mut drafts = Vec::new();
        self.write(&told, None, Some(&letter.id), now, &mut drafts);
        Some(drafts)
    }

    /// The cases that the answer to a letter may step; of a press that may open one, its button, too.
    pub(super) fn stepped_by<'a>(&'a self, letter: &'a Letter) -> Vec<&'a str> {
        let mut all = vec![letter.body.case()];
        match &letter.body {
            Body::HandOver { case, .. } | Body::Returned { case, .. } => all.extend(case.merging.as_deref()),
            Body::Ask { ask: Ask { into: Some(into), .. }, .. } => {
                all.extend(self.find(into).ok().map(|held| held.case.id.as_str()));
            }
            Body::Refused { case, said: Some(_), .. } => {
                let button = self.held.get(case).and_then(|held| held.case.button.as_deref());
                let Some(button) = button else { return all };
                let theirs = self.buttons.range((button.to_owned(), String::new())..);
                all.extend(theirs.take_while(|(b, _)| b == button).map(|(_, id)| id.as_str()));
                all.push(button);
            }
            _ => {}
        }
        all
    }

    /// Everything that a letter in the inbox leads to, and that it is done.
    /// `is_old`: the box that was here before may have answered it.
    pub(super) fn answer(&self, letter: &Letter, is_old: bool, state: &State, now: DateTime<Utc>) -> Vec<Draft> {
        let done = |what| Pen { me: &self.me, now }.answered(letter, what, None);
        match &letter.body {
            Body::HandOver { case, .. } if letter.to != self.me => self.turned(case, letter, state, now),
            Body::HandOver { case, .. } => self.taken_over(case, letter, is_old, now),
            Body::Returned { .. } if !self.believes(letter) => done(letter::NOT_BELIEVED),
            Body::Returned { case, history, coming, .. } => self.sent_home(case, history, coming, letter, now),
            Body::Ask { .. } | Body::WhatOf { .. } if letter.to != self.me => {
                Pen { me: &self.me, now }.answered(letter, "sent on", self.send_down(letter, state, now))
            }
            Body::Ask { case, verb, ask, contact, .. } => {
                if let Some(told) = self.done_before(case, letter, now) {
                    return told;
                }
                let wanted = if is_old { self.still_wanted(letter, *verb, ask) } else { Some(*verb) };
                let done = wanted
                    .ok_or_else(|| lost(how_lost(&self.me, self.knows_some())))
                    .and_then(|verb| self.may_be_summoned(verb, ask, state).map(|()| verb))
                    .and_then(|verb| self.asked(case, verb, ask, contact.as_ref(), letter, now));
                done.unwrap_or_else(|refusal| self.refused(case, refusal, letter, now))
            }
            Body::WhatOf { case, verb, wish, hops, how } => self.what_of(case, *verb, wish, *hops, how, letter, now),
            Body::SentBack { case, term, version, why } => self.bounced(case, (*term, *version), why, letter, now),
            Body::Recall { case, by, why, asker, .. } => self.called_back(case, by, why, asker, letter, now),
            Body::Refused { case, answers, said: Some(said), contact, .. } => {
                let opened = self.pressed_anew(case, answers, said, contact.as_ref(), now);
                opened.into_iter().flatten().chain(done("known")).collect()
            }
            Body::Copy { .. } | Body::Refused { .. } => done("known"),
        }
    }

    /// # Errors
    /// [`Refusal`]: a node below is to be summoned that never was.
    fn may_be_summoned(&self, verb: Verb, ask: &Ask, state: &State) -> Result<(), Refusal> {
        let below = ask.to.as_ref().filter(|to| verb == Verb::Assist && **to != self.me && self.me.covers(to));
        match below.filter(|to| !self.may_be_there(to, state)) {
            None => Ok(()),
            Some(to) => Err(Refusal::new("unknown-node", self.knows_no(to), "`citybrain tree` shows those it knows")),
        }
    }

    /// A hand-over turns here, and waited. What its giver has done since then says that it was answered.
    fn turned(&self, case: &Case, letter: &Letter, state: &State, now: DateTime<Utc>) -> Vec<Draft> {
        let pen = Pen { me: &self.me, now };
        if self.held.get(&case.id).is_some_and(|h| h.case.order() > case.order()) {
            return pen.answered(letter, "known", None);
        }
        pen.answered(letter, "sent on", self.send_down(letter, state, now))
    }

    /// A case is handed to this node.
    fn taken_over(&self, case: &Case, letter: &Letter, is_old: bool, now: DateTime<Utc>) -> Vec<Draft> {
        // What went back is not taken when it comes after all.
        let newest = self.held.get(&case.id).filter(|h| h.sent_back != Some(case.order())).map(|h| &h.case);
        // What came late, or again, was taken before.
        let Some(newest) = newest.filter(|k| k.order() == case.order() && k.handing_to.as_ref() == Some(&self.me))
        else {
            if let Some(told) = self.came_late(case, letter, now) {
                return told;
            }
            // One that is sent again comes from a box that may not have heard what became of it.
            let known = self.held.get(&case.id).filter(|h| h.case.order() > case.order());
            let copy = known.and_then(|h| self.copy_to(&letter.from, &h.case, h.history.last(), &h.history, None, now));
            return Pen { me: &self.me, now }.answered(letter, "known", copy);
        };
        let taken = if is_old { self.recover(newest, &[], now) } else { self.book().take(newest, now) };
        self.take(&taken, letter, now)
    }

    /// The node above tells of a case of the box that was here before.
    fn sent_home(
        &self,
        case: &Case,
        history: &[Entry],
        coming: &[Coming],
        letter: &Letter,
        now: DateTime<Utc>,
    ) -> Vec<Draft> {
        let pen = Pen { me: &self.me, now };
        match (self.recovered(case, coming, now), self.sent_on(case, history)) {
            (Some(stepped), _) => self.take(&stepped, letter, now),
            (None, Some(again)) => pen.answered(letter, "sent on", pen.letter(&again)),
            (None, None) => pen.answered(letter, "known", None),
        }
    }

    /// A wish that was done, and comes again: its maker is told.
    fn done_before(&self, case: &str, letter: &Letter, now: DateTime<Utc>) -> Option<Vec<Draft>> {
        let Body::Ask { verb, .. } = &letter.body else { return None };
        self.told_that_done(case, *verb, &letter.id, letter, now)
    }

    /// The answer to that letter, if the wish was done.
    fn told_that_done(
        &self,
        case: &str,
        verb: Verb,
        wish: &str,
        letter: &Letter,
        now: DateTime<Utc>,
    ) -> Option<Vec<Draft>> {
        let held = self.held.get(case)?;
        let name = if verb == Verb::Recall { letter::recalled_by(wish) } else { wish };
        let name = machine::cut(name, WISH_ID_MAX);
        // Who is forgotten is, whoever has asked for it first.
        let is_forget = |e: &Entry| verb == Verb::Forget && e.step == Verb::Forget.done();
        let done = held.history.iter().find(|e| e.wish.as_deref() == Some(&name) || is_forget(e))?;
        let (case, history) = (held.case.clone(), letter::sent(&held.history));
        let body = Body::Copy { case, entry: done.clone(), history, answers: Some(wish.to_owned()) };
        let told = self.letter(format!("{}.done", letter.id_of_time()), &letter.from, letter.urgent, body);
        let pen = Pen { me: &self.me, now };
        Some(pen.answered(letter, "known", pen.letter(&told)))
    }

    /// Somebody asks what has become of a wish of his that may be lost: all that came here before is decided.
    #[allow(clippy::too_many_arguments, reason = "the parts of a question, from the letter that has them")]
    fn what_of(
        &self,
        case: &str,
        verb: Verb,
        wish: &str,
        hops: u8,
        how: &str,
        letter: &Letter,
        now: DateTime<Utc>,
    ) -> Vec<Draft> {
        if let Some(told) = self.told_that_done(case, verb, wish, letter, now) {
            return told;
        }
        let pen = Pen { me: &self.me, now };
        if let Some(held) = self.held.get(case) {
            let recall = format!("{wish}{RECALL}");
            let is_under_way = held.wishes.iter().any(|w| w.id == recall && w.refused.is_none());
            // The case's own giver hears so by its coming back.
            if verb == Verb::Recall && (is_under_way || held.sent_back == Some(held.case.order())) {
                return pen.answered(letter, "known", None);
            }
            let to = held.case.bound_for();
            // After its case, as the wish.
            if verb != Verb::Recall && *to != self.me && hops < HOPS_MAX {
                let (case, wish, how) = (case.to_owned(), wish.to_owned(), how.to_owned());
                let body = Body::WhatOf { case, verb, wish, hops: hops + 1, how };
                let on = Letter { to: to.clone(), via: Some(self.me.clone()), body, ..letter.clone() };
                return pen.answered(letter, "sent on", pen.letter(&on));
            }
        }
        let lost = self.refusal_of(case, lost(how.to_owned()), &Letter { id: wish.to_owned(), ..letter.clone() }, now);
        pen.answered(letter, letter::LOST, lost)
    }

    /// Somebody at another node wants a step.
    ///
    /// # Errors
    /// [`Refusal`], for him to read.
    fn asked(
        &self,
        case: &str,
        verb: Verb,
        ask: &Ask,
        contact: Option<&Contact>,
        letter: &Letter,
        now: DateTime<Utc>,
    ) -> Result<Vec<Draft>, Refusal> {
        let pen = Pen { me: &self.me, now };
        let sent_on = |again: Letter| pen.answered(letter, "sent on", pen.letter(&again));
        let Some(held) = self.held.get(case) else {
            // It may have overtaken the case: who sent it here knows who has given that away.
            let is_first = follows(verb, ask) && letter.via.is_none() && letter.from != self.me;
            let back = self.sent_after(letter, &letter.from).filter(|_| is_first);
            return back.map(sent_on).ok_or_else(|| self.unknown(case));
        };
        if let Some(to) = self.sends_on(held, verb, ask) {
            return self.sent_to_owner(held, to, follows(verb, ask), letter).map(sent_on);
        }
        if let Body::Ask { offered: Some(offered), .. } = &letter.body {
            return Ok(self.heard_of_offer(held, offered, letter, now));
        }
        if letter.id.contains(letter::PRESS) && !awaits_help(&held.case) {
            let detail = format!("`{}` was {} by then: whoever pressed calls anew", held.case.id, held.case.standing());
            return Err(Refusal::new(letter::OVER, detail, ""));
        }
        if verb == Verb::Recall && held.case.handing_to.is_some() {
            let recall = self.recall(held, ask, &letter.from, format!("{}{RECALL}", letter.id), now)?;
            let recall = Letter { again: letter.again, ..recall };
            return Ok(pen.answered(letter, "asked for", pen.letter(&recall)));
        }
        let ask = &held.in_a_role(verb, ask.clone());
        if verb == Verb::Accept && self.is_taken_back(letter) {
            let detail = format!("{} has said since that he does not come", ask.by);
            return Err(Refusal::new(letter::TAKEN_BACK, detail, ""));
        }
        let step = self.step_for(held, verb, ask, &letter.from, &letter.takes_back, now);
        let mut all = step.or_else(|refusal| {
            // Who said it by Open311 was told that it will be read, and waits for no answer.
            let said = is_by_open311(ask).then(|| self.step(held, Verb::Comment, ask, &letter.from, now).ok());
            said.flatten().ok_or(refusal)
        })?;
        if let Some(first) = all.first_mut() {
            first.entry.wish = Some(machine::cut(&letter.id, WISH_ID_MAX));
            if let Some(contact) = contact {
                first.brings_contact(!contact.is_empty());
            }
        }
        let mut drafts = Vec::new();
        for (i, stepped) in all.iter().enumerate() {
            let answers = (i == 0).then_some(letter.id.as_str());
            self.write(stepped, held.contact.as_ref(), answers, now, &mut drafts);
        }
        self.keep_name(held, ask, now, &mut drafts);
        if let Some(contact) = contact {
            let both = held.contact.as_ref().map_or(Some(contact.clone()), |known| beside(known, contact, now));
            both.iter().for_each(|both| self.contact_draft(&held.case, both, now, &mut drafts));
        }
        Ok(drafts)
    }

    /// Has whoever takes that acceptance back said so here already? Then it need not be done first, and keep others who
    /// come from being accepted.
    fn is_taken_back(&self, letter: &Letter) -> bool {
        let wishes = self.inbox.wishes_of(letter.body.case());
        wishes
            .into_iter()
            .any(|(_, posted)| posted.letter.to == self.me && posted.letter.takes_back.contains(&letter.id))
    }

    /// The node that offers what this case has booked says how it is offered now. Its word may come twice, or
    /// late, and then changes nothing.
    fn heard_of_offer(&self, held: &Held, offered: &Offered, letter: &Letter, now: DateTime<Utc>) -> Vec<Draft> {
        let Some(told) = self.offered_otherwise(&held.case, &letter.from, offered, now) else {
            return Pen { me: &self.me, now }.answered(letter, "known", None);
        };
        let mut drafts = Vec::new();
        self.write(&told, held.contact.as_ref(), Some(&letter.id), now, &mut drafts);
        drafts
    }

    /// A wish for a case that is, or will be, at `to`.
    ///
    /// # Errors
    /// [`Refusal`]: it goes no further.
    fn sent_to_owner(&self, held: &Held, to: &Address, follows: bool, letter: &Letter) -> Result<Letter, Refusal> {
        let (me, case) = (&self.me, &held.case);
        // Where the case has come and waits for the word of those below, its giver knows no more.
        if to == me || case.handing_to.as_ref() == Some(me) && self.waits_here(case) {
            let detail = format!("`{}` is on its way to {me} and has not been taken yet", case.id);
            return Err(Refusal::new("on-its-way", detail, "ask again in a moment"));
        }
        // Where it is not yet it will be behind its giver's word.
        let is_early = to == letter.sender() && case.owner != self.me && follows;
        let to = if is_early { &case.owner } else { to };
        let gone = || Refusal::new("not-owner", format!("`{}` is at {to}", case.id), "ask there");
        self.sent_after(letter, to).ok_or_else(gone)
    }

    /// Has that case come to this box, in place of another, and waits for the word of those below?
    fn waits_here(&self, case: &Case) -> bool {
        let letter = self.waiting.place(&letter::hand_over_id(case));
        self.is_unproven(&case.id) || letter.is_some() || self.waiting.back_of(&case.id).next().is_some()
    }

    /// Is it a wish of which this box, in place of another, cannot say yet where its case is? It waits with the
    /// case: what says that somebody comes, or does not after all, and what [`follows`].
    pub(super) fn must_wait(&self, letter: &Letter) -> bool {
        // What has become of a wish is known once it is decided.
        if let Body::WhatOf { wish, .. } = &letter.body {
            return [&self.inbox, &self.waiting].iter().any(|letters| letters.place(wish).is_some());
        }
        let Body::Ask { case, verb, ask, .. } = &letter.body else { return false };
        // Whoever was to come takes it back behind his own word.
        let accepts = |(_, posted): (u64, &Posted)| {
            matches!(posted.letter.body, Body::Ask { verb: Verb::Accept, .. }) && self.must_wait(&posted.letter)
        };
        let mut wishes = self.waiting.wishes_of(case).chain(self.inbox.wishes_of(case));
        let mut takes_back = || *verb == Verb::Escalate && wishes.any(accepts);
        (self.waits_with(*verb, ask) || takes_back())
            && match self.held.get(case) {
                None => letter.to == self.me && !self.is_settled() || self.waiting.back_of(case).next().is_some(),
                Some(held) => self.waits_here(&held.case),
            }
    }

    /// Does such a wish wait with its case, where that waits?
    pub(super) fn waits_with(&self, verb: Verb, ask: &Ask) -> bool {
        verb == Verb::Accept || follows(verb, ask)
    }

    /// Does a letter that turns here wait before it does? A hand-over that the box before this one may have sent
    /// on, or back; and what goes after one.
    pub(super) fn turns_later(&self, header: &Header<'_>, letter: &Letter) -> bool {
        is_hand_over(letter) && self.is_old(header, letter) || self.must_wait(letter)
    }

    /// A node below says which folder it is: what was on its way to it, or past it, may be lost with the one before.
    pub(super) fn lost_below(
        &self,
        header: &Header<'_>,
        payload: &[u8],
        state: &State,
        now: DateTime<Utc>,
    ) -> Vec<Draft> {
        let Some(node) = header.origin.and_then(|o| Address::parse(o.address).ok()) else { return Vec::new() };
        let inc = letter::data::<Presence>(payload).map(|presence| presence.inc);
        let known = state.registry.get(&node).map(|known| known.inc);
        let other = inc.filter(|inc| known.is_some_and(|known| known != *inc));
        other.map_or_else(Vec::new, |inc| self.ask_after(&node, false, &inc.to_string(), now))
    }

    /// Of each wish of this node that may be lost with what that node knew, and that nobody would ever answer then: the
    /// question what has become of it. It goes the same way behind the wish, so whatever came of that is told first, and
    /// only what is lost indeed is said to be; no node need know how far each of those below had come. Not of whoever
    /// comes to a press: that is said with the case ([`Cases::still_come`]). `knows_some`: the node did not lose all.
    /// `token` names this loss.
    pub(super) fn ask_after(&self, node: &Address, knows_some: bool, token: &str, now: DateTime<Utc>) -> Vec<Draft> {
        let may_be_lost = |held: &Held, w: &Wish| {
            let is_said_otherwise = held.coming.iter().any(|c| c.wish == w.id);
            w.refused.is_none() && node.covers(&w.to) && !is_said_otherwise
        };
        let question = |held: &Held, w: &Wish| {
            let (case, verb, wish) = (held.case.id.clone(), w.verb, w.id.clone());
            let body = Body::WhatOf { case, verb, wish, hops: 0, how: how_lost(node, knows_some) };
            let question = self.letter(format!("{}.what.{token}", w.id), &w.to, held.case.urgent, body);
            Pen { me: &self.me, now }.letter(&Letter { again: w.again, ..question })
        };
        let theirs = |held: &Held| -> Vec<Draft> {
            let lost = held.wishes.iter().filter(|w| may_be_lost(held, w));
            lost.filter_map(|w| question(held, w)).collect()
        };
        self.held.values().flat_map(theirs).collect()
    }

    /// The node above tells this box, which has an empty disk, who comes to a press of it or of one below. The word
    /// that was on its way to the press may be lost with the old disk: it goes there from here, again or for the first
    /// time. By its name it is done once.
    pub(super) fn still_come(&self, case: &Case, coming: &[Coming], now: DateTime<Utc>) -> Vec<Draft> {
        let accepts = |coming: &Coming| {
            let ask = Ask { by: coming.by.clone(), role: Some(Role::Worker), ..Ask::default() };
            let (verb, case_id) = (Verb::Accept, case.id.clone());
            let body = Body::Ask { case: case_id, verb, ask, hops: 0, contact: None, offered: None };
            let (id, from, via) = (coming.wish.clone(), coming.node.clone(), Some(self.me.clone()));
            let letter = self.letter(id, case.bound_for(), case.urgent, body);
            Pen { me: &self.me, now }.letter(&Letter { from, via, at: Some(coming.at), ..letter })
        };
        coming.iter().take(COMING_MAX).filter_map(accepts).collect()
    }

    /// The owner refuses whoever was to come from here: those above, who heard of him by this node's word and not by
    /// his wish, wait for him no longer.
    pub(super) fn told_that_he_comes_not(&self, case: &str, wish: &str, now: DateTime<Utc>) -> Option<Draft> {
        let is_press = |h: &&Held| h.case.urgent && h.case.status == Status::Submitted;
        let held = self.held.get(case).filter(is_press).filter(|h| h.case.reach < self.me.tier())?;
        let accepts = |w: &&Wish| w.id == wish && w.verb == Verb::Accept && w.refused.is_none();
        let Wish { by, .. } = held.wishes.iter().find(accepts)?;
        let (term, version) = held.case.order();
        let (node, by, wish) = (self.me.clone(), by.clone(), wish.to_owned());
        let coming = Coming { node, by, at: now, wish, term, version };
        Some(Pen { me: &self.me, now }.coming(&held.case, &coming, Some(End::Refused)))
    }

    /// What is done of a wish that the box before this one may have answered: a comment, if the history does not have
    /// it; whoever comes to a press is not kept from it, nor from taking it back; and who is to be forgotten is.
    /// Another step may be out of date.
    fn still_wanted(&self, letter: &Letter, verb: Verb, ask: &Ask) -> Option<Verb> {
        let is_press = || self.held.get(letter.body.case()).is_some_and(|held| held.case.urgent);
        match verb {
            Verb::Accept if is_press() => Some(verb),
            // Done twice it is done once.
            Verb::Forget => Some(verb),
            Verb::Escalate if !letter.takes_back.is_empty() => Some(verb),
            _ => (verb == Verb::Comment || is_by_open311(ask)).then_some(Verb::Comment),
        }
    }

    /// A wish is not granted, and whoever has it is told why.
    fn refused(&self, case: &str, refusal: Refusal, letter: &Letter, now: DateTime<Utc>) -> Vec<Draft> {
        let error = refusal.error;
        let told = self.refusal_of(case, refusal, letter, now);
        Pen { me: &self.me, now }.answered(letter, error, told)
    }

    fn refusal_of(&self, case: &str, refusal: Refusal, letter: &Letter, now: DateTime<Utc>) -> Option<Draft> {
        let Refusal { error, detail, hint } = refusal;
        let detail = if hint.is_empty() { detail } else { format!("{detail}; {hint}") };
        let (case, answers) = (case.to_owned(), letter.id.clone());
        let (said, contact) = match &letter.body {
            Body::Ask { ask, contact, .. } if error == letter::OVER => (Some(Box::new(ask.clone())), contact.clone()),
            _ => (None, None),
        };
        let body = Body::Refused { case, answers, error: error.to_owned(), detail, said, contact };
        let told = self.letter(format!("{}.refused", letter.id), &letter.from, letter.urgent, body);
        Pen { me: &self.me, now }.letter(&Letter { again: letter.again, ..told })
    }

    /// A case of this node could not be handed over.
    fn bounced(&self, case: &str, order: (u32, u32), why: &str, letter: &Letter, now: DateTime<Utc>) -> Vec<Draft> {
        let held = self.held.get(case).filter(|h| h.case.owner == self.me && h.case.handing_to.is_some());
        let Some(held) = held.filter(|h| h.case.order() == order) else {
            return Pen { me: &self.me, now }.answered(letter, "known", None);
        };
        let mut drafts = Vec::new();
        let mut bounced = self.book().bounce(&held.case, why, now);
        // It was asked for, unless it came back by itself.
        let recall = letter.id.strip_suffix(SENT_BACK).filter(|id| *id != letter::hand_over_id(&held.case));
        // Who believed that somebody comes must send another.
        if bounced.case.urgent && recall.is_none() {
            bounced.entry.calls.push(self.me.clone());
        }
        bounced.entry.wish = recall.map(|id| machine::cut(letter::recalled_by(id), WISH_ID_MAX));
        self.write(&bounced, held.contact.as_ref(), Some(&letter.id), now, &mut drafts);
        drafts
    }

    /// Whoever gave a case here wants it again.
    fn called_back(
        &self,
        case: &Case,
        by: &str,
        why: &str,
        asker: &Address,
        letter: &Letter,
        now: DateTime<Utc>,
    ) -> Vec<Draft> {
        let pen = Pen { me: &self.me, now };
        let Some(held) = self.held.get(&case.id) else { return pen.answered(letter, "known", None) };
        let (term, version) = case.order();
        let newest = &held.case;
        let is_back = |e: &Entry| e.node == case.owner && (e.term, e.version) > (term, version);
        if newest.bound_for() == &case.owner || held.history.iter().any(is_back) {
            // It was asked for before, and goes there, or has been there since, whatever its giver has done with it
            // then: whoever asked for it above him hears so.
            let theirs = letter.id.strip_suffix(RECALL).filter(|_| *asker != letter.from && *asker != self.me);
            let told = theirs.zip(held.history.last()).and_then(|(wish, entry)| {
                let (case, history, answers) = (newest.clone(), letter::sent(&held.history), Some(wish.to_owned()));
                let body = Body::Copy { case, entry: entry.clone(), history, answers };
                pen.letter(&self.letter(format!("{}.done", letter.id_of_time()), asker, letter.urgent, body))
            });
            return pen.answered(letter, "known", told);
        }
        if newest.order() == (term, version) && newest.handing_to.as_ref() == Some(&self.me) {
            // It has not come yet, and will not be taken when it does.
            let colon = if why.is_empty() { "" } else { ": " };
            let why = format!("called back by {by}{colon}{why}");
            let body = Body::SentBack { case: case.id.clone(), term, version, why };
            let back = self.letter(format!("{}{SENT_BACK}", letter.id), &case.owner, letter.urgent, body);
            return pen.answered(letter, "sent back", pen.letter(&Letter { again: letter.again, ..back }));
        }
        // Taken, and nothing done: what people say of it meanwhile begins no work, nor that somebody is forgotten.
        let is_nothing = |e: &Entry| [Verb::Comment, Verb::Forget].iter().any(|verb| e.step == verb.done());
        let begins = |e: &Entry| e.version > version + 1 && !is_nothing(e);
        let is_begun = newest.term == term || held.history.iter().any(begins);
        if !self.may_step(&case.id) || is_begun {
            return self.keeps(newest, asker, letter, now);
        }
        let mut drafts = Vec::new();
        let mut back = self.book().give_back(newest, &case.owner, by, why, now);
        back.entry.wish = Some(machine::cut(letter::recalled_by(&letter.id), WISH_ID_MAX));
        self.write(&back, held.contact.as_ref(), Some(&letter.id), now, &mut drafts);
        drafts
    }

    /// What has gone on is not given back: its giver is told, and whoever asked him to call for it.
    fn keeps(&self, newest: &Case, asker: &Address, letter: &Letter, now: DateTime<Utc>) -> Vec<Draft> {
        let (id, standing, owner) = (&newest.id, newest.standing(), &newest.owner);
        let detail = format!("`{id}` was taken and has gone on: it is {standing}, and {owner} has it");
        let refusal = || Refusal::new("begun", detail.clone(), "");
        let mut drafts = self.refused(id, refusal(), letter, now);
        if let Some(wish) = letter.id.strip_suffix(RECALL).filter(|_| *asker != letter.from) {
            let wish = Letter { id: wish.to_owned(), from: asker.clone(), ..letter.clone() };
            drafts.extend(self.refusal_of(id, refusal(), &wish, now));
        }
        drafts
    }
}

/// Does such a wish go after a case that changes hands? For a comment, for what a resident may want, and for whoever is
/// to be forgotten: whoever says it cannot know that he should say it again.
fn follows(verb: Verb, ask: &Ask) -> bool {
    [Verb::Comment, Verb::Forget].contains(&verb)
        || ask.role == Some(Role::Resident) && machine::roles(verb).contains(&Role::Resident)
}

/// Nobody knows what became of a wish.
fn lost(how: String) -> Refusal {
    Refusal::new(letter::LOST, how, "look at the case, and ask again if it is still wanted")
}

fn how_lost(node: &Address, knows_some: bool) -> String {
    let what = if knows_some { "some of what it knew" } else { "its disk" };
    format!("{node} has lost {what}, and does not know whether it was done")
}

/// Was whoever said it told that it will be read?
fn is_by_open311(ask: &Ask) -> bool {
    ask.role == Some(Role::Resident) && ask.by.starts_with(machine::OPEN311)
}

/// Another number for the same call for help, beside the one that is known; `None`: it is no other, or there are
/// [`NUMBERS_MAX`] already.
fn beside(known: &Contact, new: &Contact, now: DateTime<Utc>) -> Option<Contact> {
    let new = kept(new);
    let is_news = |new: &str, known: &str| !new.is_empty() && new != known;
    let pairs = [(&new.name, &known.name), (&new.phone, &known.phone), (&new.address, &known.address)];
    let said: Vec<&str> = pairs.iter().map(|(new, _)| new.as_str()).filter(|word| !word.is_empty()).collect();
    let said = said.join(", ");
    let again = known.more.keys().filter(|key| key.starts_with(AGAIN)).count();
    let is_known = known.more.values().any(|known| *known == said);
    if !pairs.iter().any(|(new, known)| is_news(new, known)) || is_known || again >= NUMBERS_MAX {
        return None;
    }
    let mut both = known.clone();
    both.more.insert(format!("{AGAIN} {}", view::rfc3339(now)), said);
    Some(both)
}
