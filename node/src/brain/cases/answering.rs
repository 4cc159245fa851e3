//! What follows from a letter: pure, before the commit.

use super::asked_after::{how_lost, lost};
use super::deciding::{SENT_BACK, beside};
use super::letter::{self, Body, End, Letter, Offered, Pen, RECALL, WhatOf};
use super::letters::Posted;
use super::machine::{self, Refusal, Stepped};
use super::{COMING_MAX, Cases, Held, WISH_ID_MAX, Wish, awaits_help, is_hand_over, joined};
use chrono::{DateTime, Utc};
use citybrain_hub::state::State;
use citybrain_shared::Address;
use citybrain_shared::case::{Ask, Case, Coming, Contact, Entry, Role, Verb, step};
use citybrain_shared::record::{Draft, Header};

impl Cases {
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
            let main = self.held.get(main).filter(|held| !self.is_unproven(&held.case.id)).map(|held| &held.case);
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
            Body::Ask { .. } | Body::WhatOf(_) if letter.to != self.me => {
                Pen { me: &self.me, now }.answered(letter, "sent on", self.send_down(letter, state, now))
            }
            Body::Ask { case, verb, ask, contact, .. } => {
                // Done, and it comes again: its maker is told.
                if let Some(told) = self.told_that_done(case, *verb, &letter.id, letter, now) {
                    return told;
                }
                let wanted = if is_old { self.still_wanted(letter, *verb, ask) } else { Some(*verb) };
                let done = wanted
                    .ok_or_else(|| lost(how_lost(&self.me, self.knows_some())))
                    .and_then(|verb| self.may_be_summoned(verb, ask, state).map(|()| verb))
                    .and_then(|verb| self.asked(case, verb, ask, contact.as_ref(), letter, now));
                done.unwrap_or_else(|refusal| self.refused(case, refusal, letter, now))
            }
            Body::WhatOf(asked) => self.what_of(asked, letter, now),
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
        let noted = || self.noted(held, verb, ask, &letter.from, now);
        // Who offers it to the tier above wants more than to take somebody back.
        let is_already = !ask.hand_over && held.is_taken_back_already(verb, &letter.takes_back);
        let is_of_another = held.stands_as_another(&letter.takes_back) && (letter.again > 0 || !ask.hand_over);
        let step = match is_already {
            true => noted(),
            false if is_of_another => {
                let detail = format!("`{case}` is {} by now, which that was not said of", held.case.standing());
                return Err(Refusal::new("moved-on", detail, "say it again if it is so"));
            }
            false => self.step_for(held, verb, ask, &letter.from, &letter.takes_back, now),
        };
        let mut all = step.or_else(|refusal| {
            // He does not come, wherever the press is by now.
            if refusal.error == machine::NOBODY_ABOVE && !ask.hand_over && !letter.takes_back.is_empty() {
                return noted();
            }
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
        let case = letter.body.case();
        let mut wishes = self.inbox.wishes_of(case).chain(self.waiting.wishes_of(case));
        wishes.any(|(_, posted)| posted.letter.to == self.me && posted.letter.takes_back.contains(&letter.id))
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
        if let Body::WhatOf(WhatOf { wish, .. }) = &letter.body {
            return [&self.inbox, &self.waiting].iter().any(|letters| letters.place(wish).is_some());
        }
        let Body::Ask { case, verb, ask, .. } = &letter.body else { return false };
        // Whoever was to come, or has accepted it, takes that back behind his own word; and what is not over is opened
        // again behind its end.
        let accepts = |(_, posted): (u64, &Posted)| {
            matches!(posted.letter.body, Body::Ask { verb: Verb::Accept, .. }) && self.must_wait(&posted.letter)
        };
        let mut wishes = self.waiting.wishes_of(case).chain(self.inbox.wishes_of(case));
        let mut takes_back = || !letter.takes_back.is_empty() || *verb == Verb::Escalate && wishes.any(accepts);
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
        let is_press = |h: &&Held| h.case.urgent && h.is_unaccepted();
        let held = self.held.get(case).filter(is_press).filter(|h| h.case.reach < self.me.tier())?;
        let accepts = |w: &&Wish| w.id == wish && w.verb == Verb::Accept && w.refused.is_none();
        let Wish { by, .. } = held.wishes.iter().find(accepts)?;
        let (term, version) = held.case.order();
        let (node, by, wish) = (self.me.clone(), by.clone(), wish.to_owned());
        let coming = Coming { node, by, at: now, wish, term, version };
        Some(Pen { me: &self.me, now }.coming(&held.case, &coming, Some(End::Refused)))
    }

    /// The owner refuses a word of this node by which those above hold a press for one to which nobody comes: they believe
    /// it no longer.
    pub(super) fn told_that_it_stands(&self, case: &str, wish: &str, error: &str, now: DateTime<Utc>) -> Option<Draft> {
        let held = self.held.get(case).filter(|h| h.case.reach < self.me.tier() && error != letter::LOST)?;
        let is_it = held.denies(&self.me, wish);
        is_it.then(|| Pen { me: &self.me, now }.stands(&held.case, wish))
    }

    /// What is done of a wish that the box before this one may have answered: a comment, if the history does not have
    /// it; whoever comes to a press is not kept from it, nor from taking it back, nor one that is not over from calling
    /// again; and who is to be forgotten is. Another step may be out of date.
    fn still_wanted(&self, letter: &Letter, verb: Verb, ask: &Ask) -> Option<Verb> {
        let is_press = || self.held.get(letter.body.case()).is_some_and(|held| held.case.urgent);
        match verb {
            Verb::Accept if is_press() => Some(verb),
            _ if letter.is_done_once() => Some(verb),
            Verb::Reopen if is_press() => Some(verb),
            _ => (verb == Verb::Comment || is_by_open311(ask)).then_some(Verb::Comment),
        }
    }

    /// A wish is not granted, and whoever has it is told why.
    fn refused(&self, case: &str, refusal: Refusal, letter: &Letter, now: DateTime<Utc>) -> Vec<Draft> {
        let error = refusal.error;
        let told = self.refusal_of(case, refusal, letter, now);
        Pen { me: &self.me, now }.answered(letter, error, told)
    }

    pub(super) fn refusal_of(
        &self,
        case: &str,
        refusal: Refusal,
        letter: &Letter,
        now: DateTime<Utc>,
    ) -> Option<Draft> {
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
        // It was asked for, unless it came back by itself.
        let recall = letter.id.strip_suffix(SENT_BACK).filter(|id| *id != letter::hand_over_id(&held.case));
        let mut bounced = self.book().bounce(&held.case, why, recall.is_some(), now);
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
        // Taken, and nothing done: what people say of it meanwhile begins no work, nor that somebody is forgotten, nor what
        // it is about.
        let nothing = [Verb::Comment.done(), Verb::Forget.done(), step::CATEGORISED];
        let is_nothing = |e: &Entry| nothing.contains(&e.step.as_str());
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

/// Does such a wish go after a case that changes hands? For a comment, for what may be a resident's, and for whoever is
/// to be forgotten: whoever says it cannot know that he should say it again.
pub(super) fn follows(verb: Verb, ask: &Ask) -> bool {
    [Verb::Comment, Verb::Forget].contains(&verb)
        || ask.role.is_none_or(|role| role == Role::Resident) && machine::is_residents(verb)
}

/// Was whoever said it told that it will be read?
fn is_by_open311(ask: &Ask) -> bool {
    ask.role == Some(Role::Resident) && ask.by.starts_with(machine::OPEN311)
}
