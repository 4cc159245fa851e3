//! What people and other systems ask this node for: cases that open, steps, and what is written of them.

use super::letter::{self, Body, End, Letter, Pen, RECALL};
use super::machine::{self, Asker, Opening, Refusal, Stepped};
use super::{Cases, Held, Told, Wish, intake, name_of};
use chrono::{DateTime, Utc};
use citybrain_shared::Address;
use citybrain_shared::Tier;
use citybrain_shared::case::{Ask, Case, Coming, Contact, Denial, Entry, Role, Status, Verb};
use citybrain_shared::record::Draft;
use citybrain_shared::view::{self, AccountRefused, CaseAccount, CasesImported};
use std::collections::{BTreeMap, HashMap};
use xxhash_rust::xxh3::xxh3_64;

/// Characters of a name, a telephone number, an address.
const CONTACT_MAX: usize = 200;

impl Cases {
    /// Opens a case that no event brought; the contact stays here.
    pub fn open(&self, mut opening: Opening, contact: Contact, now_us: i64) -> (Case, Vec<Draft>) {
        let now = view::time_of(now_us);
        let contact = kept(&contact);
        opening.by = who(opening.by, &contact);
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
            let proven = if self.is_unproven(&id) { Err(self.not_yet(&id)) } else { Ok(()) };
            if let Err(refusal) = room.and(proven) {
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
                    let known = self.held.get(&id).map(|h| h.history.as_slice()).unwrap_or_default();
                    drafts.push(pen.step(&stepped, known, None));
                    newest.insert(id, stepped.case);
                }
                Err(refusal) => refuse(told, refusal),
            }
        }
        (became, drafts)
    }

    /// A wish made at this node: done if the case is ours, else sent to its owner. `wish` is a fresh id: the wish is
    /// known by its words, and made again while it has no answer it is the same, which is sent again and done once.
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
        self.wish(id, verb, ask, wish, false, now_us)
    }

    /// The same of a wish that whoever makes it tells from his others by that name, whatever it says: made again, at
    /// any node, it is done once.
    ///
    /// # Errors
    /// [`Refusal`], in words for whoever asked.
    pub fn ask_named(
        &self,
        id: &str,
        verb: Verb,
        ask: &Ask,
        name: &str,
        now_us: i64,
    ) -> Result<(String, Told, Vec<Draft>), Refusal> {
        let held = self.find(id)?;
        match held.told_of(name) {
            Some(told) => Ok((held.case.id.clone(), told, Vec::new())),
            None => self.wish(id, verb, ask, name, true, now_us),
        }
    }

    fn wish(
        &self,
        id: &str,
        verb: Verb,
        ask: &Ask,
        wish: &str,
        is_named: bool,
        now_us: i64,
    ) -> Result<(String, Told, Vec<Draft>), Refusal> {
        let now = view::time_of(now_us);
        let held = self.find(id)?;
        let id = held.case.id.clone();
        let said = machine::act::named(&self.with_whole_ids(ask)?);
        let ask = &match held.case.owner == self.me && !self.is_unproven(&id) {
            true => held.in_a_role(verb, said.clone()),
            false => held.in_a_role_elsewhere(verb, said.clone()),
        };
        let mut drafts = Vec::new();
        let is_here = self.may_step(&id);
        if verb == Verb::Forget && !is_here {
            // At once, and not when the case has come to where it is bound for: that box may be dead.
            machine::act::may(Verb::Forget, ask)?;
            if !held.is_forgotten() {
                drafts.push(self.forget_draft(&id, &ask.by, wish, now));
            }
        }
        // Asked for again it is the same wish, also where its case has come here meanwhile.
        let asked = held.asked_as(verb, [&said, ask]).filter(|_| !is_named);
        let (name, again) = asked.unwrap_or((wish, 0));
        let next = self.sends_on(held, verb, ask);
        let no_more = self.no_more(held, verb, ask, name, now);
        let mut taken_back =
            held.wishes.iter().find(|w| w.id == name).map(|w| w.takes_back.clone()).unwrap_or_default();
        let takes_back = !no_more.is_empty() || !taken_back.is_empty();
        // What is said of a case that waits here waits with it, and what takes back who comes, or the end of it.
        let waits = next.is_none() && self.is_unproven(&id) && (takes_back || self.waits_with(verb, ask));
        if next.is_none() && !waits && (is_here || verb != Verb::Forget) {
            if verb == Verb::Recall && held.case.handing_to.is_some() {
                let letter = Letter { again, ..self.recall(held, ask, &self.me, name.to_owned(), now)? };
                drafts.extend(Pen { me: &self.me, now }.letter(&letter));
                return Ok((id, Told::Sent { to: letter.to, wish: letter.id }, drafts));
            }
            let mut steps = self.step(held, verb, ask, &self.me, now)?;
            let own = steps.iter_mut().find(|stepped| stepped.case.id == id).map(|stepped| &mut stepped.entry);
            let (term, version) = own.as_ref().map_or(held.case.order(), |e| (e.term, e.version));
            if let Some(own) = own.filter(|_| is_named || asked.is_some()) {
                own.wish = Some(name.to_owned());
            }
            for stepped in &steps {
                self.write(stepped, held.contact.as_ref(), None, now, &mut drafts);
            }
            self.keep_name(held, ask, now, &mut drafts);
            return Ok((id, Told::Done { term, version }, drafts));
        }
        machine::act::is_named(ask)?;
        // The owner looks again: it knows of what this copy does not.
        machine::act::is_as_seen(&held.case, ask)?;
        let pen = Pen { me: &self.me, now };
        if verb == Verb::Accept && held.case.urgent && held.is_unaccepted() {
            machine::act::may(verb, ask)?;
            let (term, version) = held.case.order();
            let (node, by) = (self.me.clone(), ask.by.clone());
            let coming = Coming { node, by, at: now, wish: name.to_owned(), term, version };
            drafts.push(pen.coming(&held.case, &coming, None));
        }
        if verb == Verb::Escalate {
            machine::act::may(verb, ask)?;
        }
        let by = heard_of(verb, ask).to_owned();
        let said = Denial { by, node: self.me.clone(), at: now, wish: name.to_owned() };
        for coming in no_more {
            drafts.push(pen.coming(&held.case, &coming, Some(End::TakenBack(said.clone()))));
            taken_back.push(coming.wish);
        }
        // Whoever gave it away asks for it back, and nobody else can.
        let to = if verb == Verb::Recall { &held.case.owner } else { next.unwrap_or(held.case.bound_for()) }.clone();
        drafts.extend(self.called_again(held, ask, wish, false, now));
        // Who is forgotten here already is forgotten everywhere, whatever has become of his case.
        let seen = if verb == Verb::Forget { Vec::new() } else { ask.seen.clone() };
        let ask = Ask { seen, ..ask.clone() };
        let body = Body::Ask { case: id.clone(), verb, ask, hops: 0, contact: None, offered: None };
        let letter = self.letter(name.to_owned(), &to, held.case.urgent, body);
        let letter = Letter { again, takes_back: taken_back, ..letter };
        drafts.extend(self.wish_sent(held, &letter, now));
        Ok((id, Told::Sent { to, wish: letter.id }, drafts))
    }

    /// A wish goes to whoever is to do it.
    pub(super) fn wish_sent(&self, held: &Held, letter: &Letter, now: DateTime<Utc>) -> Vec<Draft> {
        let pen = Pen { me: &self.me, now };
        // Whoever gives it away knows whom to call until it is taken, and its taker may be dead.
        let is_forget = matches!(letter.body, Body::Ask { verb: Verb::Forget, .. });
        let giver = Some(&held.case.owner).filter(|giver| is_forget && ![&letter.to, &self.me].contains(giver));
        let told = giver.and_then(|giver| self.sent_after(letter, giver));
        told.iter().chain([letter]).filter_map(|letter| pen.letter(letter)).collect()
    }

    /// Who comes to a press no more, if that is said here: whoever was to come, and whoever has accepted it.
    fn no_more(&self, held: &Held, verb: Verb, ask: &Ask, name: &str, now: DateTime<Utc>) -> Vec<Coming> {
        let is_theirs = |coming: &&Coming| verb == Verb::Escalate && takes_back(&self.me, ask, coming);
        let theirs = held.coming.iter().filter(is_theirs).cloned();
        theirs.chain(self.disowned(held, verb, ask, name, now)).collect()
    }

    /// Whoever has accepted a press does not come, and says so here; or somebody says that it is closed and not solved.
    /// Those above must hear it though its box may be dead, by the word of this node, for it may be said anywhere.
    fn disowned(&self, held: &Held, verb: Verb, ask: &Ask, name: &str, now: DateTime<Utc>) -> Option<Coming> {
        let is_reason = ask.text.as_ref().is_some_and(|text| !text.trim().is_empty());
        let is_late = held.case.reopen_until.is_some_and(|until| now > until);
        let is_said = held.denies(&self.me, name);
        let may = is_reason && !is_late && !is_said && machine::act::may(verb, ask).is_ok();
        let wish = held.taken_back_by(&self.me, verb, ask).filter(|_| may)?;
        let (term, version) = held.case.order();
        // Of one that is closed nobody was to come any more.
        let was_to_come = held.case.accepted_by.as_ref().filter(|_| held.case.status == Status::Accepted);
        let by = was_to_come.cloned().unwrap_or_default();
        Some(Coming { node: self.me.clone(), by, at: now, wish, term, version })
    }

    /// What is short for an id here may be short for another one where the wish is done; and who owns the one may not
    /// know of the other, beside it, nor whose that is.
    pub(super) fn with_whole_ids(&self, ask: &Ask) -> Result<Ask, Refusal> {
        let mut ask = ask.clone();
        if let Some(into) = &mut ask.into {
            match self.find(into) {
                Ok(held) => {
                    into.clone_from(&held.case.id);
                    ask.to = Some(held.case.bound_for().clone());
                }
                Err(refusal) if refusal.error == "ambiguous" => return Err(refusal),
                // Whoever owns the one may know of the other, and where it is.
                Err(_) => ask.to = None,
            }
        }
        Ok(ask)
    }

    pub(super) fn step(
        &self,
        held: &Held,
        verb: Verb,
        ask: &Ask,
        from: &Address,
        now: DateTime<Utc>,
    ) -> Result<Vec<Stepped>, Refusal> {
        self.step_for(held, verb, ask, from, &[], now)
    }

    /// The same of an escalation that may take back whichever of these acceptances stands, before it had an answer.
    pub(super) fn step_for(
        &self,
        held: &Held,
        verb: Verb,
        ask: &Ask,
        from: &Address,
        taken_back: &[String],
        now: DateTime<Utc>,
    ) -> Result<Vec<Stepped>, Refusal> {
        if held.case.owner == self.me && self.is_unproven(&held.case.id) {
            return Err(self.not_yet(&held.case.id));
        }
        // Nor does one that may have gone on take another.
        if let Some(into) = ask.into.as_ref().filter(|into| verb == Verb::Merge && self.is_unproven(into)) {
            return Err(self.not_yet(into));
        }
        let other = |id: &str| self.held.get(id).map(|held| held.case.clone());
        let opened_it = held.opener(from) == Some(ask.by.as_str());
        let was_unheard = held.stands_as().is_some_and(|wish| taken_back.contains(&wish));
        let takes_back = was_unheard || takes_back_accepted(from, ask, &held.case);
        let mut steps =
            self.book().act(&held.case, verb, ask, Asker { at: from, opened_it, takes_back }, &other, now)?;
        // For that its responders were called here while it waited for those below.
        if held.disowns().is_some_and(|disowned| disowned.called.is_some()) {
            let nobody_comes = steps.iter_mut().filter(|stepped| stepped.case.status == Status::Submitted);
            nobody_comes.for_each(|stepped| stepped.entry.calls.retain(|node| *node != self.me));
        }
        Ok(steps)
    }

    /// What somebody takes back that does not stand any more, or never has, is written down as he says it.
    pub(super) fn noted(
        &self,
        held: &Held,
        verb: Verb,
        ask: &Ask,
        from: &Address,
        now: DateTime<Utc>,
    ) -> Result<Vec<Stepped>, Refusal> {
        let what = if verb == Verb::Reopen { "it is not over" } else { "whoever was to come does not" };
        let text = ask.text.as_ref().map(|text| format!("{what}: {text}"));
        self.step(held, Verb::Comment, &Ask { text, ..ask.clone() }, from, now)
    }

    /// The letter that asks for a case back which is on its way from here. Nothing is stepped: it is
    /// this node's again when the other one has answered.
    pub(super) fn recall(
        &self,
        held: &Held,
        ask: &Ask,
        asker: &Address,
        id: String,
        now: DateTime<Utc>,
    ) -> Result<Letter, Refusal> {
        let ask = machine::act::named(ask);
        let case = &held.case;
        self.book().check(case, Verb::Recall, &ask, false, now)?;
        let history = letter::sent(&held.history);
        let (by, why, asker) = (ask.by, ask.text.unwrap_or_default(), asker.clone());
        let body = Body::Recall { case: case.clone(), history, by, why, asker };
        Ok(self.letter(id, case.bound_for(), case.urgent, body))
    }

    /// The records of a step of this node: the step, and the hand-over that it may begin.
    pub(super) fn write(
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
    pub(super) fn write_after(
        &self,
        known: &[Entry],
        stepped: &Stepped,
        contact: Option<&Contact>,
        answers: Option<&str>,
        now: DateTime<Utc>,
        drafts: &mut Vec<Draft>,
    ) {
        let pen = Pen { me: &self.me, now };
        drafts.push(pen.step(stepped, known, answers));
        let Some(to) = &stepped.case.handing_to else { return };
        let mut history = letter::sent(known);
        history.push(stepped.entry.clone());
        // Whoever had it with the case learns nothing new when it is returned.
        let had = stepped.case.opened_at == *to || known.iter().any(|e| e.node == *to);
        let may_travel = (self.settings.contact_travels || had) && !stepped.case.forgotten;
        let contact = contact.filter(|c| may_travel && !c.is_empty()).cloned();
        let id = letter::hand_over_id(&stepped.case);
        let body = Body::HandOver { case: stepped.case.clone(), history, contact };
        drafts.extend(pen.letter(&self.letter(id, to, stepped.case.urgent, body)));
    }

    /// Whom to call: here, and as far up as the category needs it.
    pub(super) fn contact_draft(&self, case: &Case, contact: &Contact, now: DateTime<Utc>, drafts: &mut Vec<Draft>) {
        if contact.is_empty() || case.forgotten || self.held.get(&case.id).is_some_and(Held::is_forgotten) {
            return;
        }
        let needed = case.terms.as_ref().and_then(|t| t.contact_reach);
        // No further than the case itself.
        let reach = needed.map_or(Tier::Neighbourhood, |needed| needed.max(case.reach));
        let data = serde_json::json!({"case": case.id, "contact": contact});
        drafts.push(Pen { me: &self.me, now }.contact(&case.id, case.urgent, reach, data));
    }

    /// A resident's step says `resident`; the name is kept where the telephone number is.
    pub(super) fn keep_name(&self, held: &Held, ask: &Ask, now: DateTime<Utc>, drafts: &mut Vec<Draft>) {
        let known = held.contact.clone().unwrap_or_default();
        if ask.role == Some(Role::Resident) && machine::is_name(&ask.by) && known.name.is_empty() {
            self.contact_draft(&held.case, &Contact { name: ask.by.trim().to_owned(), ..known }, now, drafts);
        }
    }
}

impl Held {
    /// What became of a wish that was made under that name before, here or at another node.
    fn told_of(&self, name: &str) -> Option<Told> {
        let done = self.history.iter().find(|e| e.wish.as_deref() == Some(name));
        let done = done.map(|e| Told::Done { term: e.term, version: e.version });
        let sent = self.wishes.iter().find(|w| w.id == name);
        let sent = || sent.map(|w| Told::Sent { to: w.to.clone(), wish: w.id.clone() });
        done.or_else(sent)
    }

    /// What stands, if whoever wants that there takes it back: the acceptance of a press, or its end.
    pub(super) fn taken_back_by(&self, from: &Address, verb: Verb, ask: &Ask) -> Option<String> {
        let is_taken_back = match (verb, self.case.status) {
            (Verb::Escalate, Status::Accepted) => takes_back_accepted(from, ask, &self.case),
            (Verb::Reopen, Status::Closed) => true,
            _ => false,
        };
        self.stands_as().filter(|_| is_taken_back)
    }

    /// Does what such a wish takes back, by these names, not stand any more? If somebody has taken it back before, that
    /// was done; and somebody else may have accepted it since.
    pub(super) fn is_taken_back_already(&self, verb: Verb, names: &[String]) -> bool {
        let status = self.case.status;
        let was_done = || self.history.iter().any(|line| names.contains(&name_of(line)));
        !names.is_empty()
            && match verb {
                Verb::Escalate if status == Status::Submitted => was_done(),
                Verb::Escalate => self.stands_as_another(names),
                Verb::Reopen => status.is_open(),
                _ => false,
            }
    }

    /// Has it been accepted, or closed, under another name than these?
    pub(super) fn stands_as_another(&self, names: &[String]) -> bool {
        !names.is_empty() && self.stands_as().is_some_and(|stands| !names.contains(&stands))
    }

    /// The name of the wish that was asked for last, if it is this one and has no answer yet, and the how manieth time
    /// this is. Whoever types it again because no answer came must not have it done twice; and the letter, or its
    /// answer, may have been lost with a disk on its way, or thought so.
    fn asked_as(&self, verb: Verb, ask: [&Ask; 2]) -> Option<(&str, u32)> {
        // What this node has asked for in another's name was not asked for here.
        let is_open = |w: &&Wish| (w.refused.is_none() || w.is_lost) && !w.id.ends_with(RECALL);
        let last = self.wishes.iter().rev().find(is_open)?;
        // Since then it may have become known here whose word it is. A case comes back once, whatever is said of why.
        let says_so = || ask.iter().any(|ask| last.content == content(verb, ask));
        let is_same = last.verb == verb && (verb == Verb::Recall || says_so());
        is_same.then(|| (last.id.as_str(), last.again.saturating_add(1)))
    }

    /// The same where another node has the case, or may have it: whose word it is that knows, unless he is known here for
    /// the one to call.
    fn in_a_role_elsewhere(&self, verb: Verb, ask: Ask) -> Ask {
        let judged = self.in_a_role(verb, ask.clone());
        let is_his = judged.role == Some(Role::Resident) && judged.by == ask.by;
        if ask.role.is_none() && machine::is_residents(verb) && !is_his { ask } else { judged }
    }

    /// A wish whose maker did not say in which role he speaks. What residents may want is a resident's word only if he
    /// is the one to call, or nobody is and the case knows him for nothing else: then he is no name, either, for he
    /// may be somebody else after all. Anybody else speaks for the supervision.
    pub(super) fn in_a_role(&self, verb: Verb, ask: Ask) -> Ask {
        let usual = verb.usual_role();
        let is_he = |name: &str| machine::is_same_person(name, &ask.by);
        let is_to_call = self.contact.as_ref().is_some_and(|contact| is_he(&contact.name));
        // What both may say is his word, too, if he is the one to call.
        let is_his = is_to_call && verb == Verb::Comment;
        if ask.role.is_some() || usual != Role::Resident && !is_his {
            return Ask { role: Some(ask.role.unwrap_or(usual)), ..ask };
        }
        if is_to_call || !machine::is_name(&ask.by) {
            return Ask { role: Some(Role::Resident), ..ask };
        }
        // Nobody was reached: that is no resident's word.
        if verb == Verb::Evaluate && ask.solved.is_none() && ask.satisfied.is_none() {
            return Ask { role: Some(Role::Supervisor), ..ask };
        }
        let works_on_it = self.history.iter().any(|e| is_he(&e.by)) || self.case.handlers.iter().any(|by| is_he(by));
        if self.case.has_contact || self.contact.is_some() || works_on_it {
            return Ask { role: Some(Role::Supervisor), ..ask };
        }
        Ask { role: Some(Role::Resident), by: machine::RESIDENT.into(), ..ask }
    }
}

/// Does whoever escalates a press by hand say with it that this one does not come? Where it was said that he comes, and
/// above, it is his own word, or a supervisor's.
pub(super) fn takes_back(from: &Address, ask: &Ask, coming: &Coming) -> bool {
    let is_he = machine::is_same_person(&coming.by, &ask.by);
    (is_he || ask.role == Some(Role::Supervisor)) && from.covers(&coming.node)
}

/// The same of who has accepted it. His own word counts wherever he says it: rather calls for nothing than somebody who
/// waits for nobody. Who offers the case to the tier above has that come instead.
fn takes_back_accepted(from: &Address, ask: &Ask, case: &Case) -> bool {
    let accepted_at = case.accepted_from.as_ref().unwrap_or(&case.owner);
    let is_he = case.accepted_by.as_ref().is_some_and(|by| machine::is_same_person(by, &ask.by));
    !ask.hand_over && (is_he || ask.role == Some(Role::Supervisor) && from.covers(accepted_at))
}

/// Who says whom to call, and not by which name, speaks of himself, unless he says that he works on it: his name goes
/// where the telephone number is, and with it.
pub fn names_reporter(by: &str, role: Option<Role>, contact: &mut Contact) {
    let is_his = role.map_or(!contact.is_empty(), |role| role == Role::Resident);
    if is_his && contact.name.trim().is_empty() && machine::is_name(by) {
        by.trim().clone_into(&mut contact.name);
    }
}

/// Who opens it, or presses again, as others may read it: whoever is the one to call is named nowhere else.
pub(super) fn who(by: String, contact: &Contact) -> String {
    let is_he = !contact.name.trim().is_empty() && machine::is_same_person(&contact.name, &by);
    if is_he { machine::RESIDENT.into() } else { by }
}

/// By which name others hear of whoever asks for it, before its owner has said whose word it is: what is for a resident
/// if no role is said may be his.
pub(super) fn heard_of(verb: Verb, ask: &Ask) -> &str {
    machine::heard_as(&ask.by, ask.role.or(Some(verb.usual_role())))
}

/// What a wish says, whenever it was said and whatever its case was then. Of one that says no role its owner may still
/// have to find out whose word it is.
pub(super) fn content(verb: Verb, ask: &Ask) -> u64 {
    let ask = Ask { seen: Vec::new(), role: ask.role.or(Some(verb.usual_role())), ..ask.clone() };
    xxh3_64(&serde_json::to_vec(&(verb, ask)).expect("a wish has string keys only"))
}

/// Of whom to call, what is kept.
pub(super) fn kept(contact: &Contact) -> Contact {
    let [name, phone, address] =
        [&contact.name, &contact.phone, &contact.address].map(|t| machine::cut(t, CONTACT_MAX));
    Contact { name, phone, address, more: contact.more.clone() }
}

/// What is known by the newer word, and by the older one where that says nothing.
pub(super) fn joined(newer: Option<Contact>, older: Option<Contact>) -> Option<Contact> {
    let (newer, older) = match (newer, older) {
        (Some(newer), Some(older)) => (newer, older),
        (newer, older) => return newer.or(older),
    };
    let said = |newer: String, older: String| if newer.is_empty() { older } else { newer };
    let (name, phone) = (said(newer.name, older.name), said(newer.phone, older.phone));
    let (address, mut more) = (said(newer.address, older.address), older.more);
    more.extend(newer.more);
    Some(Contact { name, phone, address, more })
}
