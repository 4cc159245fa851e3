//! How the engine sees cases: records in, drafts, timers and rows out.

use super::letter::{self, Body, End, Letter, Pen, Step};
use super::{
    Above, Cases, Dirty, Held, LOOKED_AT, TOGETHER, intake, is_hand_over, is_of_its_node, is_true, machine, succession,
};
use crate::brain::services::{CATALOGUE, Catalogue};
use chrono::{DateTime, Utc};
use citybrain_hub::policy::{Policy, Row};
use citybrain_hub::state::{RETIRED_TYPE, State, subtree_of};
use citybrain_shared::case::{Ask, Case, Coming, Contact, Denial, Role, Verb};
use citybrain_shared::record::{Direction, Draft, Header, Kind};
use citybrain_shared::{Address, Lane, LogId, Pos, view};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::HashSet;

impl Policy for Cases {
    fn decide(&self, state: &State, now_us: i64, header: &Header<'_>, payload: &[u8]) -> Vec<Draft> {
        if header.kind == Kind::Presence {
            return self.lost_below(header, payload, state, view::time_of(now_us));
        }
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
                let mut drafts = self.came_by(header, &letter, state, now);
                drafts.extend(self.forgotten_by(header, &letter, state, now));
                drafts
            }
            "forget" => self.forgotten_here(header, payload, state),
            "call" | "contact" | "answered" | "coming" => Vec::new(),
            succession::WANTED => self.lost_by(header, payload, now),
            succession::TOLD | succession::ROLL | succession::PRESENT => Vec::new(),
            _ => match letter::data::<Step>(payload) {
                Some(step) if is_of_its_node(&self.me, header, &step) => {
                    let mut drafts = self.seen(&step, state, now);
                    drafts.extend(self.forgotten_with(&step.case, state));
                    drafts
                }
                _ => Vec::new(),
            },
        }
    }

    fn next_due_us(&self) -> Option<i64> {
        let owes_words = !self.led.is_empty() || !self.forgetting.is_empty() || !self.to_rebook.is_empty();
        let owes_words = owes_words || !self.to_categorise.is_empty() || !self.to_call.is_empty();
        if !self.inbox.is_empty() || owes_words || self.succeeds() {
            return Some(0);
        }
        let due = self.due.first().map(|(at, _, _)| *at);
        due.into_iter().chain(self.next_wait_us()).chain(self.next_call_us()).min()
    }

    fn on_due(&self, state: &State, now_us: i64) -> Vec<Draft> {
        let now = view::time_of(now_us);
        let mut drafts = Vec::new();
        self.succeed(state, now, &mut drafts);
        // One decision a case in a group: the next one must see what the first has done.
        let mut touched: HashSet<&str> = HashSet::new();
        let mut booked: HashSet<&str> = HashSet::new();
        let mut decided = 0;
        for (letter, is_old) in self.in_turn().take(LOOKED_AT) {
            if decided == TOGETHER {
                break;
            }
            let steps = self.stepped_by(letter);
            if steps.iter().any(|id| touched.contains(id)) {
                continue;
            }
            // Two that want the last seat must not both see it.
            if let Body::HandOver { case: Case { booking: Some(b), .. }, .. }
            | Body::Returned { case: Case { booking: Some(b), .. }, .. } = &letter.body
                && !booked.insert(&b.service)
            {
                continue;
            }
            touched.extend(steps);
            decided += 1;
            drafts.extend(self.answer(letter, is_old, state, now));
        }
        drafts.extend(self.late_calls(now));
        for id in self.to_call.iter().take(TOGETHER) {
            let held = self.held.get(id).filter(|_| touched.insert(id));
            drafts.extend(held.map(|held| Pen { me: &self.me, now }.call_unproven(held, self.loss())));
        }
        // Before its clocks: what was due meanwhile passes then.
        for id in self.to_categorise.iter().take(TOGETHER) {
            let Some(held) = self.held.get(id).filter(|_| touched.insert(id)) else { continue };
            let stepped = self.book().categorise(&held.case, now);
            self.write(&stepped, held.contact.as_ref(), None, now, &mut drafts);
            // Those above may have to know now whom to call.
            let is_needed = stepped.case.terms.as_ref().is_some_and(|terms| terms.contact_reach.is_some());
            if let Some(contact) = held.contact.as_ref().filter(|_| is_needed) {
                self.contact_draft(&stepped.case, contact, now, &mut drafts);
            }
        }
        for (_, id, clock) in self.due.iter().take_while(|(at, _, _)| *at <= now_us).take(TOGETHER) {
            let Some(held) = self.held.get(id).filter(|_| touched.insert(id)) else { continue };
            let stepped = self.book().timer(&held.case, clock, now);
            self.write(&stepped, held.contact.as_ref(), None, now, &mut drafts);
        }
        for held in self.waited(now_us).take(TOGETHER) {
            if touched.insert(&held.case.id) {
                drafts.push(Pen { me: &self.me, now }.call_waiting(held));
            }
        }
        for held in self.unheard(now_us).take(TOGETHER) {
            if touched.insert(&held.case.id) {
                drafts.extend(self.ask_after_unheard(held, now));
            }
        }
        for id in self.forgetting.iter().take(TOGETHER) {
            let Some(held) = self.held.get(id).filter(|_| touched.insert(id)) else { continue };
            let by = held.to_forget.clone().unwrap_or_default();
            let mut ask = machine::act::named(&Ask { by, role: Some(Role::Supervisor), ..Ask::default() });
            // A record may have any name; without one no step is made, and this would be due for ever.
            if ask.by.is_empty() {
                ask.by = Role::Supervisor.as_str().into();
            }
            for stepped in self.step(held, Verb::Forget, &ask, &self.me, now).unwrap_or_default() {
                self.write(&stepped, None, None, now, &mut drafts);
            }
        }
        for id in self.led.iter().take(TOGETHER) {
            let Some(held) = self.held.get(id).filter(|_| touched.insert(id)) else { continue };
            let Some(leader) = self.leader(&held.case) else { continue };
            let told = self.book().follow(&held.case, leader, now);
            self.write(&told, held.contact.as_ref(), None, now, &mut drafts);
        }
        for id in self.to_rebook.iter().take(TOGETHER) {
            let Some(held) = self.held.get(id).filter(|_| touched.insert(id)) else { continue };
            if let Some(answer) = self.booked(&held.case, now) {
                let service = held.case.booking.as_ref().map(|b| b.service.as_str());
                if service.is_some_and(|service| booked.insert(service)) {
                    self.write(&answer, held.contact.as_ref(), None, now, &mut drafts);
                }
                continue;
            }
            match self.rebook(&held.case, now) {
                Some(told) => self.write(&told, held.contact.as_ref(), None, now, &mut drafts),
                None => drafts.extend(self.offer_letter(held, now)),
            }
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
            #[serde(default)]
            by: String,
            #[serde(default)]
            what: String,
            #[serde(default)]
            term: u32,
            #[serde(default)]
            version: u32,
        }
        self.at(header.committed_us);
        if !std::mem::replace(&mut self.has_looked, true) {
            self.look_at_bookings();
            self.look_at_categories();
        }
        if header.name == CATALOGUE && header.kind == Kind::Event {
            return self.apply_catalogue(header, payload);
        }
        if header.kind == Kind::Presence {
            // Of this node it is a start: its config may offer otherwise than the one before.
            if header.origin.is_none() {
                self.look_at_bookings();
                self.started_us = Some(header.committed_us);
            }
            return self.apply_started(header);
        }
        if header.name == RETIRED_TYPE && header.kind == Kind::Event {
            subtree_of(Some(&self.me), header, payload).iter().for_each(|gone| self.apply_retired(gone));
            return;
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
            succession::WANTED | succession::TOLD | succession::ROLL | succession::PRESENT => {
                self.apply_succession(step, pos, header, payload);
            }
            "coming" => {
                #[derive(Deserialize)]
                struct Told {
                    case: String,
                    coming: Option<Coming>,
                    #[serde(default)]
                    refused: bool,
                    #[serde(default)]
                    taken_back: bool,
                    said: Option<Denial>,
                    stands: Option<String>,
                }
                let from = header.origin.map_or(Some(self.me.clone()), |o| Address::parse(o.address).ok());
                // That something is taken back says who says so; without that it is not understood.
                let is_whole = |t: &Told| t.taken_back == t.said.is_some() && (t.refused || !t.taken_back);
                let told = letter::data::<Told>(payload).filter(|_| header.direction != Direction::Down);
                let Some((Told { case, coming, refused, said, stands, .. }, from)) = told.filter(is_whole).zip(from)
                else {
                    return;
                };
                if let Some(wish) = stands {
                    self.stands_after_all(&case, &from, &wish);
                }
                // Each says it of itself; that he does not come, those above him say, too.
                match coming.filter(|c| c.node == from || refused && from.covers(&c.node)) {
                    Some(coming) if refused => {
                        let end = said.map_or(End::Refused, End::TakenBack);
                        self.comes_not(&case, &coming.node, &coming.wish, &end);
                    }
                    Some(coming) => self.note_coming(&case, coming),
                    None => {}
                }
            }
            "call" | "contact" | "answered" | "forget" => {
                // Of the node's own words only whom to call comes from below, too.
                let may = |about: &About| match header.origin {
                    None => true,
                    Some(origin) => {
                        let case = self.held.get(&about.case).map(|h| &h.case);
                        let is_theirs =
                            |c: &Case| [&c.owner, &c.opened_at].iter().any(|a| a.as_str() == origin.address);
                        step == "contact" && header.direction == Direction::Up && case.is_some_and(is_theirs)
                    }
                };
                let Some(about) = letter::data::<About>(payload).filter(may) else { return };
                if step == "answered" {
                    self.settle(&about.letter, about.what != letter::NOT_BELIEVED);
                } else if step == "call" {
                    // For how the case stands, or for one step of it.
                    match (about.term, about.version) {
                        (0, 0) => self.apply_call(&about.case),
                        order => self.apply_called(&about.case, order),
                    }
                } else if step == "forget" {
                    self.forget_here(&about.case, about.by);
                } else {
                    self.keep_word(about.case, about.contact);
                }
            }
            _ => {
                let step = letter::data::<Step>(payload).filter(|s| is_of_its_node(&self.me, header, s));
                let Some(Step { case, entry, history: mut lines, answers }) = step else { return };
                let is_new = self.held.get(&case.id).is_none_or(|h| case.supersedes(&h.case));
                lines.push(entry);
                self.fold(&case, &lines);
                if let Some(entry) = lines.last().filter(|_| is_new) {
                    self.note_call(&case, entry, header);
                }
                if let Some(answers) = &answers {
                    self.settle(answers, true);
                    self.granted(&case.id, answers);
                }
            }
        }
    }

    fn begin_history(&mut self, log: LogId, _: Pos, _: i64) {
        self.begin_succession(log);
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .map(|(what, key)| match what {
                Dirty::Case => ([b"k", key.as_bytes()].concat(), self.held.get(&key).map(json)),
                Dirty::Inherited => {
                    let of = key.parse().ok().and_then(|of: Address| self.inherited.get(&of));
                    ([b"g", key.as_bytes()].concat(), of.map(json))
                }
                Dirty::Waiting => {
                    let letter = key.parse().ok().and_then(|pos: u64| self.waiting.get(pos));
                    ([b"w", key.as_bytes()].concat(), letter.map(json))
                }
                Dirty::Succession => (b"s".to_vec(), Some(json(&self.succession))),
                Dirty::Gone => (b"n".to_vec(), self.gone.as_ref().map(json)),
                Dirty::Edition => ([b"e", key.as_bytes()].concat(), self.editions.get(&key).map(json)),
                Dirty::Owed => {
                    let owed = key.parse().ok().and_then(|child: Address| self.owed.get(&child));
                    ([b"o", key.as_bytes()].concat(), owed.map(json))
                }
                Dirty::Roll => {
                    let roll = key.split_once(' ').and_then(|(lane, node)| self.rolls.get(&roll_key(lane, node)?));
                    ([b"r", key.as_bytes()].concat(), roll.map(json))
                }
                Dirty::Inbox => {
                    let letter = key.parse().ok().and_then(|pos: u64| self.inbox.get(pos));
                    ([b"i", key.as_bytes()].concat(), letter.map(json))
                }
            })
            .collect()
    }

    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(key).map_err(|e| e.to_string())?;
        if let Some(id) = text.strip_prefix('k') {
            let held: Held = serde_json::from_slice(value).map_err(|e| e.to_string())?;
            self.latest_us = self.latest_us.max(held.heard_us);
            self.now_us = self.latest_us;
            self.held.insert(id.to_owned(), held);
            self.index(id, true);
            self.look_at_followers(id);
        } else if let Some(pos) = text.strip_prefix('i') {
            let pos: u64 = pos.parse().map_err(|_| "its key is no position")?;
            self.inbox.insert(pos, serde_json::from_slice(value).map_err(|e| e.to_string())?);
        } else if let Some(node) = text.strip_prefix('g') {
            let node = Address::parse(node).map_err(|e| e.to_string())?;
            self.inherited.insert(node, serde_json::from_slice(value).map_err(|e| e.to_string())?);
            self.inherit();
        } else if let Some(pos) = text.strip_prefix('w') {
            let pos: u64 = pos.parse().map_err(|_| "its key is no position")?;
            self.waiting.insert(pos, serde_json::from_slice(value).map_err(|e| e.to_string())?);
        } else if let Some((lane, node)) = text.strip_prefix('r').and_then(|rest| rest.split_once(' ')) {
            let key = roll_key(lane, node).ok_or("its key is no roll")?;
            self.rolls.insert(key, serde_json::from_slice(value).map_err(|e| e.to_string())?);
        } else if let Some(code) = text.strip_prefix('e') {
            self.editions.insert(code.to_owned(), serde_json::from_slice(value).map_err(|e| e.to_string())?);
        } else if text == "n" {
            self.gone = Some(serde_json::from_slice(value).map_err(|e| e.to_string())?);
        } else if text == "s" {
            self.succession = serde_json::from_slice(value).map_err(|e| e.to_string())?;
            self.succession.look_if_over();
        } else if let Some(child) = text.strip_prefix('o') {
            let child = Address::parse(child).map_err(|e| e.to_string())?;
            self.owed.insert(child, serde_json::from_slice(value).map_err(|e| e.to_string())?);
        } else {
            return Err("its kind is not known to this build".into());
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Cases {
    /// What follows at once from a letter that comes, or comes by; what else it asks is decided when it is folded in.
    fn came_by(&self, header: &Header<'_>, letter: &Letter, state: &State, now: DateTime<Utc>) -> Vec<Draft> {
        if letter.to == self.me {
            return match &letter.body {
                _ if !is_true(header, letter) => Vec::new(),
                Body::Copy { case, entry, .. } => self.forgotten_below(case, entry, now),
                Body::Refused { case, answers, error, .. } => {
                    let comes_not = self.told_that_he_comes_not(case, answers, now);
                    comes_not.into_iter().chain(self.told_that_it_stands(case, answers, error, now)).collect()
                }
                Body::Returned { log, case, coming, .. }
                    if header.direction == Direction::Down && self.is_for(*log) =>
                {
                    self.still_come(case, coming, now)
                }
                _ => Vec::new(),
            };
        }
        // From below, for another part of this subtree: here it turns.
        let turns = self.turns(header, letter);
        // Of its own it looks only after those cases that it has sent straight down.
        let is_own = header.origin.is_none() && header.direction == Direction::Down;
        match is_own {
            false if turns && self.turns_later(header, letter) => Vec::new(),
            false if turns => self.send_down(letter, state, now).into_iter().collect(),
            true if is_hand_over(letter) => {
                let back = self.send_down(letter, state, now);
                back.filter(|d| d.header().target != letter.to.as_str()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// What a node above says that cases are about and when people work, or this node that it offers.
    fn apply_catalogue(&mut self, header: &Header<'_>, payload: &[u8]) {
        let Some(Catalogue { node, categories, services, calendar, .. }) = letter::data::<Catalogue>(payload) else {
            return;
        };
        if node == self.me && header.origin.is_none() {
            return self.apply_offers(&services, view::time_of(header.committed_us));
        }
        let above = Above { categories, calendar };
        if header.direction != Direction::Down
            || header.origin.is_none()
            || node == self.me
            || !node.covers(&self.me)
            || self.inherited.get(&node) == Some(&above)
        {
            return;
        }
        self.dirty.insert((Dirty::Inherited, node.to_string()));
        self.inherited.insert(node, above);
        let before = self.calendar.offset();
        self.inherit();
        self.shift_editions(before);
        self.look_at_bookings();
    }
}

fn roll_key(lane: &str, node: &str) -> Option<(Lane, Address)> {
    let lane = Lane::ALL.into_iter().find(|l| l.to_string() == lane)?;
    Some((lane, Address::parse(node).ok()?))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("rows have string keys only")
}
