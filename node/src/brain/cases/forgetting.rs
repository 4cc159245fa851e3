//! Of whom a record is, and what goes with him when he is to be forgotten.
//!
//! **One rule**: an event is of the case that it has opened; if it has opened none, of the one that stood then and
//! whose button it pressed again. Whoever calls with a number of his own behind one who is forgotten opens a case of
//! his own, so nobody is forgotten with another.

use super::letter::{self, Body, Letter, Pen};
use super::{Cases, Held, intake, is_true, kept, machine};
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_hub::note::Note;
use citybrain_hub::state::{Retained, State};
use citybrain_shared::case::{Case, Contact, Verb};
use citybrain_shared::event::Envelope;
use citybrain_shared::record::{Draft, Header, Kind};
use citybrain_shared::{Lane, view};
use serde::Deserialize;

impl Cases {
    /// Is this a record about a person who is forgotten here? A letter about his case, or an event of it.
    pub fn is_forgotten(&self, header: &Header<'_>, payload: &[u8]) -> bool {
        if self.forgotten.is_empty() || !intake::may_name_persons(header, payload) {
            return false;
        }
        if [letter::LETTER, letter::CONTACT].contains(&header.name) {
            let subject = Envelope::parse(payload).ok().and_then(|envelope| envelope.subject);
            return subject.is_some_and(|case| self.forgotten.contains(case.as_ref()));
        }
        self.case_of(header, payload).is_some_and(Held::is_forgotten)
    }

    /// The case that an event is of which may say whom to call.
    fn case_of(&self, header: &Header<'_>, payload: &[u8]) -> Option<&Held> {
        let envelope = Envelope::parse(payload).ok()?;
        let (source, event) = (envelope.source.as_ref(), envelope.id.as_deref()?);
        let came = view::time_of(header.received_us);
        // Where it entered it may have been another day already.
        let days = [0, -1, 1].map(|d| came.checked_add_signed(TimeDelta::days(d)).unwrap_or(came));
        let opened = days.iter().find_map(|at| self.held.get(&intake::id(self.calendar.day(*at), source, event)));
        opened.or_else(|| self.pressed(header, payload, came))
    }

    /// The case whose button this pressed again. Of several of one source that say the same it is that of the number
    /// that it says, if that is known, and else the latest.
    fn pressed(&self, header: &Header<'_>, payload: &[u8], came: DateTime<Utc>) -> Option<&Held> {
        let day = self.calendar.day(came);
        let (opening, contact) = intake::read(header, payload, day, &|category| self.is_call(category))?;
        let button = opening.button.as_ref()?;
        let is_named = intake::names_device(button);
        let may_be = |held: &&Held| {
            held.stood(came) && (is_named || machine::says_the_same(&held.case, &opening) && held.may_call(&contact))
        };
        let all = self.by_button.range((button.clone(), String::new())..).take_while(|(b, _)| b == button);
        let all = all.filter_map(|(_, id)| self.held.get(id)).filter(may_be);
        all.max_by_key(|held| (!is_named && held.contact.is_some(), held.case.opened))
    }

    /// What follows where a record says of a case that its person is to be forgotten: it goes, too, what topics here
    /// retain of the events of that case, and would give to every new subscriber.
    fn no_longer_retained(&self, id: &str, state: &State) -> Vec<Draft> {
        if self.held.get(id).is_none_or(Held::is_forgotten) {
            return Vec::new();
        }
        let his = state.retained.iter().filter(|(_, retained)| self.is_retained_of(id, retained));
        // One note each: topics may be long.
        his.map(|(topic, r)| Note::RetainedExpired { topics: vec![(topic.clone(), r.pos)] }.draft()).collect()
    }

    /// The same, of a case as somebody shows it.
    pub(super) fn forgotten_with(&self, case: &Case, state: &State) -> Vec<Draft> {
        if case.forgotten { self.no_longer_retained(&case.id, state) } else { Vec::new() }
    }

    /// The same, of this node's own word ([`Cases::forget_draft`]).
    pub(super) fn forgotten_here(&self, header: &Header<'_>, payload: &[u8], state: &State) -> Vec<Draft> {
        #[derive(Deserialize)]
        struct About {
            case: String,
        }
        let about = letter::data::<About>(payload).filter(|_| header.origin.is_none());
        about.map_or_else(Vec::new, |about| self.no_longer_retained(&about.case, state))
    }

    /// The same, of a letter of others. A wish that somebody be forgotten may be for a box that is dead: whoever knows
    /// him and sees it go by forgets him at once, as it is where that is asked for.
    pub(super) fn forgotten_by(
        &self,
        header: &Header<'_>,
        letter: &Letter,
        state: &State,
        now: DateTime<Utc>,
    ) -> Vec<Draft> {
        if header.origin.is_none() || !is_true(header, letter) {
            return Vec::new();
        }
        match &letter.body {
            Body::Ask { case, verb: Verb::Forget, ask, .. } if machine::act::may(Verb::Forget, ask).is_ok() => {
                let held = self.held.get(case).filter(|held| !held.is_forgotten() && !self.may_step(case));
                held.map(|_| self.forget_draft(case, &ask.by, &letter.id, now)).into_iter().collect()
            }
            Body::HandOver { case, .. } | Body::Copy { case, .. } => self.forgotten_with(case, state),
            Body::Recall { case, .. } | Body::Returned { case, .. } => self.forgotten_with(case, state),
            Body::Ask { .. } | Body::WhatOf(_) | Body::SentBack { .. } | Body::Refused { .. } => Vec::new(),
        }
    }

    fn is_retained_of(&self, id: &str, retained: &Retained) -> bool {
        let Ok(envelope) = Envelope::parse(&retained.payload) else { return false };
        let (lane, received_us) = (Lane::Urgent, retained.committed_us);
        let header = Header { lane, received_us, ..Header::local(Kind::Event, &envelope.kind) };
        intake::may_name_persons(&header, &retained.payload)
            && self.case_of(&header, &retained.payload).is_some_and(|held| held.case.id == id)
    }

    /// That a person is forgotten here, whoever has the case.
    pub(super) fn forget_draft(&self, id: &str, by: &str, wish: &str, now: DateTime<Utc>) -> Draft {
        let data = serde_json::json!({"case": id, "by": by});
        Pen { me: &self.me, now }.local(letter::FORGET, &format!("{id}.forget.{wish}"), id, data)
    }
}

impl Held {
    /// Could it be joined then by another press? Not behind its end, nor, by whoever says whom to call, once its own
    /// person was forgotten here.
    fn stood(&self, came: DateTime<Utc>) -> bool {
        let forgotten = self.forgotten_us.map(view::time_of);
        came >= self.case.opened && [self.case.closed, forgotten].iter().flatten().all(|end| came <= *end)
    }

    /// May it be of whoever is called so? Where nobody knows any more whom to call, it may be of anybody.
    fn may_call(&self, contact: &Contact) -> bool {
        self.contact.as_ref().is_none_or(|known| *known == kept(contact))
    }
}
