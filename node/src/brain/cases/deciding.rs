//! What follows from an event or a step, and how a letter goes: pure, before the commit.

use super::answering::follows;
use super::letter::{self, Body, Letter, Pen, Step};
use super::machine::{self, Opening, common};
use super::{AGAIN, Cases, HOPS_MAX, Held, PRESSES_MAX, intake, is_true, kept, who};
use chrono::{DateTime, Utc};
use citybrain_hub::note::{DeadLetter, Note};
use citybrain_hub::state::State;
use citybrain_shared::case::{Ask, Case, Contact, Entry, Role, Verb, step};
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
        let known = held.contact.clone().unwrap_or_default();
        let by = who(who(opening.by.clone(), &kept(contact)), &known);
        let role = if machine::is_name(&by) { Role::Worker } else { Role::Resident };
        // Whether he is the one to call its owner may know, and not this node.
        let role = Some(role).filter(|role| may_step || *role == Role::Resident);
        let ask = Ask { by, role, text: Some(text), place, ..Ask::default() };
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
    pub(super) fn pressed_anew(
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
            // Known, or written by one who has lost the case and does not know it yet. Whoever has it, or gets it, is told
            // of that line.
            if !known.history.contains(entry) {
                drafts.extend(self.copy_to(&entry.node, &known.case, known.history.last(), &known.history, None, now));
                let theirs = std::iter::once(&known.case.owner).chain(&known.case.handing_to);
                let mine = theirs.filter(|to| self.tells(&entry.node, to));
                drafts.extend(mine.filter_map(|to| self.copy_to(to, case, Some(entry), &[], None, now)));
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
            if self.tells(&entry.node, to) {
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

    /// Is it this node that tells `to` of a step of `node`? Those above a node see its records; the others are told by
    /// the node above both.
    fn tells(&self, node: &Address, to: &Address) -> bool {
        *to != self.me && !to.covers(node) && common(node, to).as_ref() == Some(&self.me)
    }

    /// May there be such a node below? Whoever has ever come up has told of itself, also to this folder, once it knows
    /// all that was before. (A node without any word of itself has no children.)
    pub(super) fn may_be_there(&self, node: &Address, state: &State) -> bool {
        !self.is_settled() || state.registry.is_empty() || state.registry.contains_key(node)
    }

    pub(super) fn knows_no(&self, node: &Address) -> String {
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
}

/// Another number for the same call for help, beside the one that is known; `None`: it is no other, or there are
/// [`NUMBERS_MAX`] already.
pub(super) fn beside(known: &Contact, new: &Contact, now: DateTime<Utc>) -> Option<Contact> {
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
