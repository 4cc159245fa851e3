//! What a box with an empty disk learns before it acts for the one that was at its address before; and one that was
//! restored from a backup, or whose log is damaged, before it acts for what it was itself.
//!
//! **Constraints.** What the lost disk's node owned, or was being given, is known from copies only.
//! Those above have every word that came to the parent; those below may have got a case from the lost
//! node of which nobody above has heard. And letters to the lost node may come a second time: all that
//! the nodes below still have in their logs does.
//!
//! **Operation.** A new history of the log asks its parent (`wanted`), and names itself, so that an answer
//! to another is none. In a folder that had one before, what is held of this node's own is unproven: it is not
//! stepped, and letters that wait are taken for answered, as if they came from before. The parent answers with every case that it knows of that subtree
//! ([`Body::Returned`], some at a time), and then, in both lanes, that this was all, which nodes it knows
//! below, and whether any box was ever there before ([`All`]). The new node calls the roll of those
//! below (`roll`), in both lanes; what one of them answers (`present`) stands behind everything
//! that it has ever said. Until all have answered, letters from before wait, and so do the lost node's
//! cases; whatever comes behind the parent's `told`, or behind a node's own `present`, is new, and
//! is dealt with at once; so is what a child wrote that has met no other box there. Then each case is
//! recovered by one step in this node's own log, as the newest copy has it, in a term that the lost node
//! cannot have used; old letters follow. What the parent has told of this node's own cases is shown until then, and
//! calls for a press ([`Held::lent`]). What residents and workers asked of the lost node is refused; comments are
//! written, and whoever comes to a press is accepted. What had come no farther than to the lost disk, those who asked
//! for it ask after ([`Cases::ask_after`]).
//!
//! **Bounds.** Nobody can know of what the lost node gave to a node that its parent has never heard of.
//! The top of the tree has nobody to ask.

use super::asked_after::what_is_lost;
use super::folding::is_named;
use super::letter::{self, Body, Letter, PREFIX, Pen};
use super::letters::Posted;
use super::machine::{Refusal, Stepped};
use super::{Cases, Dirty, Held, TOGETHER};
use crate::brain::Brain;
use chrono::{DateTime, Utc};
use citybrain_hub::state::State;
use citybrain_shared::case::{Ask, Booked, Case, Coming, Entry, Role, Status, Verb, step};
use citybrain_shared::record::{Direction, Draft, Header};
use citybrain_shared::view::Awaited;
use citybrain_shared::{Address, Lane, LogId, Pos, Tier};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use xxhash_rust::xxh3::xxh3_64;

/// Cases in one group of an answer: 4 MB with the longest histories, so that other commits need not wait.
const RETURNED_TOGETHER: usize = 16;

/// Of cases that are over so many copies are returned from below: the last that was done.
const OVER_RETURNED: usize = 100;
/// Among so many of the last that are over: a millisecond for each part of an answer.
const OVER_LOOKED_AT: usize = 10_000;

/// Asks the parent for what it knows of this node's cases.
pub const WANTED: &str = "wanted";
/// That was all.
pub const TOLD: &str = "told";
/// Calls those below.
pub const ROLL: &str = "roll";
/// The answer: all that the node has ever said came before.
pub const PRESENT: &str = "present";

/// How far this node is with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Succession {
    /// The history of this node's log for which its parent is asked.
    history: Option<LogId>,
    /// There was another in this folder: it knows some of what it has said, and not all.
    knows_some: bool,
    /// The folder was empty, and nobody has told it all that was before since: so it knows nothing of that.
    #[serde(default)]
    began_empty: bool,
    asked: bool,
    all: Option<All>,
    /// The lanes in which the parent has said that it was all.
    heard: BTreeSet<Lane>,
    /// How often the roll was called; and whether since the parent has said whom to wait for.
    called: u32,
    called_all: bool,
    /// Nodes that have started since then: the roll may have come to a folder that is no more.
    again: BTreeSet<Address>,
    present: BTreeSet<(Address, Lane)>,
    /// Everybody has spoken: worked out whenever one of the others changes, for it is asked for each letter.
    #[serde(skip)]
    over: bool,
}

/// `data` of [`TOLD`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct All {
    log: LogId,
    /// The history that says so.
    by: LogId,
    /// Nodes below the one that asked.
    below: Vec<Address>,
    /// There was no box before.
    first: bool,
}

/// `data` of [`WANTED`], [`ROLL`] and [`PRESENT`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Roll {
    node: Address,
    log: LogId,
    /// The how manieth it is.
    n: u32,
    /// Of a question and a call: it comes from a box that knows some of what there was before.
    #[serde(default)]
    knows_some: bool,
    /// What it knows is of its own time, for it began on an empty disk, and not much before this.
    #[serde(default)]
    began_empty: bool,
    /// Of a question: the newest revision of its own alarms that the box knows from before; 0: of none.
    #[serde(default)]
    alarms: i64,
    /// Of an answer: there has been another box where the call comes from, for all that this node knows.
    #[serde(default)]
    met: bool,
}

/// A roll that is to be answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Called {
    /// Letters that came before it are dealt with before it is answered.
    at: u64,
    roll: Roll,
    /// The case that was sent last.
    after: Option<String>,
}

/// A child that has asked: what it has got already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Owed {
    log: LogId,
    knows_some: bool,
    /// The case that was sent last.
    after: Option<String>,
}

/// Does a record of this type say that a node has lost what it knew, or some of it?
pub fn is_wanted(name: &str) -> bool {
    name.strip_prefix(PREFIX) == Some(WANTED)
}

/// Does a record of this type say that a node has told all that came before a call from above?
pub fn is_present(name: &str) -> bool {
    name.strip_prefix(PREFIX) == Some(PRESENT)
}

/// The newest revision of its own alarms that whoever says [`WANTED`] knows.
pub fn newest_alarm(payload: &[u8]) -> i64 {
    letter::data::<Roll>(payload).map_or(0, |roll| roll.alarms)
}

/// Whom it answers, if another box may have been there before. (Of two calls in one frame only the later is answered,
/// so that which of them it is says nothing.)
pub fn tells_again(payload: &[u8]) -> Option<Address> {
    letter::data::<Roll>(payload).filter(|roll| roll.met).map(|roll| roll.node)
}

impl Succession {
    /// The parent has said all that it knows.
    fn is_told(&self) -> bool {
        self.all.is_some() && self.heard.len() == Lane::ALL.len()
    }

    fn has_spoken(&self, node: &Address) -> bool {
        Lane::ALL.iter().all(|lane| self.present.contains(&(node.clone(), *lane)))
    }

    fn is_first(&self) -> bool {
        self.all.as_ref().is_some_and(|all| all.first)
    }

    pub(super) fn look_if_over(&mut self) {
        let all_below = |all: &All| all.first || all.below.iter().all(|n| self.has_spoken(n));
        self.over = self.is_told() && self.all.as_ref().is_some_and(all_below);
    }

    /// Whom the roll is still to be called for: all at the begin, so that who has met no other box here
    /// is believed at once; and those whose word is needed.
    fn calls(&self, me: &Address) -> Vec<String> {
        if me.tier() == Tier::Neighbourhood {
            return Vec::new();
        }
        let awaits = self.all.as_ref().is_some_and(|all| !all.first && !all.below.is_empty());
        match self.called == 0 || (awaits && !self.called_all) {
            true => vec![format!("{me}/**")],
            false => self.again.iter().map(|n| format!("{n}/**")).collect(),
        }
    }
}

impl Cases {
    /// May this node act for whatever was at its address before?
    pub(super) fn is_settled(&self) -> bool {
        !self.has_parent || self.succession.over
    }

    /// Is the parent still to say what it knows of what was here before? Which categories there are it says before that.
    pub(super) fn awaits_parent(&self) -> bool {
        self.has_parent && !self.succession.is_told()
    }

    /// Does this node know all that was known at its address before: what to tell those below, and which seats were
    /// given here?
    pub fn knows_all(&self) -> bool {
        self.is_settled() && !self.waiting.bring_back_any()
    }

    /// Is the letter of a time before this folder, so far as one can know? Then it may have been
    /// answered by the box that was here.
    pub(super) fn is_old(&self, header: &Header<'_>, letter: &Letter) -> bool {
        match letter.body {
            // They are about what was before, whenever they were written.
            Body::Returned { .. } | Body::Recall { .. } => header.origin.is_some() && !self.is_settled(),
            _ => self.is_from_before(header),
        }
    }

    /// May the box that was here have had this record?
    pub(super) fn is_from_before(&self, header: &Header<'_>) -> bool {
        let Some(origin) = header.origin.filter(|_| !self.is_settled()) else { return false };
        if header.direction != Direction::Up {
            return !self.succession.heard.contains(&header.lane);
        }
        let sender = Address::parse(origin.address).ok();
        sender.is_none_or(|sender| !self.succession.present.contains(&(sender, header.lane)))
    }

    /// Letters that may be decided now, and whether the box that was here may have answered them. The urgent ones
    /// first: a case keeps its lane, and so its letters their order.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (&Letter, bool)> {
        let were_answered = !self.is_first();
        [true, false].into_iter().flat_map(move |urgent| {
            let ripe = self.ripe(urgent).into_iter();
            let ripe = ripe.map(move |posted| (&posted.letter, were_answered && !posted.is_new));
            ripe.chain(self.inbox.of_lane(urgent).map(|(_, posted)| (&posted.letter, false)))
        })
    }

    /// Those that have waited; the cases that came back before all others, for they say what has become of those,
    /// and the newest word on a case first.
    fn ripe(&self, urgent: bool) -> Vec<&Posted> {
        if self.waiting.is_empty() || !self.is_settled() {
            return Vec::new();
        }
        let cases = self.waiting.brought_back(urgent, TOGETHER);
        if !cases.is_empty() {
            return cases;
        }
        let free = self.waiting.of_lane(urgent).filter(|(_, posted)| !self.must_wait(&posted.letter));
        // A wish does not pass one of the same case that came before it and waits no more.
        let first = |posted: &Posted| self.inbox.wishes_of(posted.letter.body.case()).next().map(|(pos, _)| pos);
        let next =
            free.filter(|(pos, posted)| !is_ask(&posted.letter) || first(posted).is_none_or(|first| *pos < first));
        next.map(|(_, posted)| posted).take(TOGETHER).collect()
    }

    /// Were the letters that wait answered by nobody, because nobody was here?
    pub(super) fn is_first(&self) -> bool {
        !self.has_parent || self.succession.is_first()
    }

    /// Is there anything to do beside letters and clocks?
    pub(super) fn succeeds(&self) -> bool {
        (self.has_parent && self.succession.history.is_some() && self.asks())
            || (!self.owed.is_empty() && self.knows_all())
            || (!self.waiting.is_empty() && self.is_settled())
            || self.rolls.values().any(|called| self.may_answer(called))
    }

    fn asks(&self) -> bool {
        !self.succession.asked || !self.succession.calls(&self.me).is_empty()
    }

    /// Questions, and answers to those below.
    pub(super) fn succeed(&self, state: &State, now: DateTime<Utc>, drafts: &mut Vec<Draft>) {
        let pen = Pen { me: &self.me, now };
        let down = (Direction::Down, Tier::Neighbourhood);
        if let Some(log) = self.succession.history.filter(|_| self.has_parent) {
            let Succession { called: n, knows_some, began_empty, .. } = self.succession;
            let alarms = Brain::of(state).map_or(0, |brain| brain.rules.newest_before());
            let data = json!(Roll { node: self.me.clone(), log, n, knows_some, began_empty, alarms, met: false });
            if !self.succession.asked {
                // The parent answers; whoever has asked something of it hears that it may be lost.
                let way = (Direction::Up, Tier::City);
                drafts.push(self.said(&pen, WANTED, &log.to_string(), Lane::Routine, way, "", data.clone()));
            }
            for target in self.succession.calls(&self.me) {
                for lane in Lane::ALL {
                    let id = format!("{log}.{n}.{target}.{lane}");
                    drafts.push(self.said(&pen, ROLL, &id, lane, down, &target, data.clone()));
                }
            }
        }
        for ((lane, _), called) in self.rolls.iter().filter(|(_, called)| self.may_answer(called)) {
            drafts.extend(self.answer_roll(state, *lane, called, now));
        }
        if !self.knows_all() {
            return;
        }
        let by = state.me.epoch().log;
        for (child, owed) in &self.owed {
            let met = owed.knows_some || state.peers.get(child).is_some_and(|p| !p.former.is_empty());
            let first = self.is_first() && !met;
            let from = owed.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let theirs =
                self.held.range::<str, _>((from, Bound::Unbounded)).filter(|(_, h)| !first && concerns(child, h));
            let theirs: Vec<&Held> = theirs.map(|(_, h)| h).take(RETURNED_TOGETHER).collect();
            for held in &theirs {
                drafts.extend(pen.letter(&self.returned(child, owed.log, by, held)));
            }
            if theirs.len() == RETURNED_TOGETHER {
                continue;
            }
            // Those that the one above knew, too: this folder may be younger than they are.
            let known = state.registry.keys().chain(self.succession.all.iter().flat_map(|all| &all.below));
            let below: BTreeSet<&Address> = known.filter(|n| *n != child && child.covers(n)).collect();
            let below = below.into_iter().cloned().collect();
            let all = All { log: owed.log, by, below, first };
            for lane in Lane::ALL {
                let id = format!("{child}.{}.{by}.{lane}", owed.log);
                drafts.push(self.said(&pen, TOLD, &id, lane, down, child.as_str(), json!(all)));
            }
        }
    }

    /// What the history `by` knows of a case, for the history `log` of `to`.
    fn returned(&self, to: &Address, log: LogId, by: LogId, held: &Held) -> Letter {
        let (case, history) = (held.case.clone(), letter::returned(&held.history));
        let about = short("returned", &format!("{log}.{by}"));
        let id = format!("{}.{}.{}.{about}", case.id, case.term, case.version);
        let urgent = case.urgent;
        let (coming, sent_back) = (held.coming.clone(), held.sent_back);
        let contact = held.contact.clone().filter(|_| to == case.bound_for() || is_named(to, &case));
        self.letter(id, to, urgent, Body::Returned { log, case, history, coming, sent_back, contact })
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of an event; each call names them in one line")]
    fn said(
        &self,
        pen: &Pen<'_>,
        what: &str,
        id: &str,
        lane: Lane,
        way: (Direction, Tier),
        target: &str,
        data: Value,
    ) -> Draft {
        pen.event(&format!("{PREFIX}{what}"), &short(what, id), self.me.as_str(), lane, way, target, json!({}), data)
    }

    /// Is everything decided that came before that roll?
    fn may_answer(&self, called: &Called) -> bool {
        self.inbox.is_behind(Pos(called.at))
    }

    /// One of those above calls the roll: first what this node knows of cases there, some at a time. Steps
    /// of which only those below were told may be among it, and hand-overs that may come yet.
    fn answer_roll(&self, state: &State, lane: Lane, called: &Called, now: DateTime<Utc>) -> Vec<Draft> {
        let roll = &called.roll;
        // What is below this node has its own word on the way. So has what is at it, but not what was done with it where
        // the call comes from. Of all others it may be the only one that is left who has seen the newest.
        let is_theirs = |h: &&Held| {
            let owner = &h.case.owner;
            // Whoever gave it to the lost box has heard that it was taken.
            let has_been_at = |node: &Address| h.history.iter().any(|e| e.node == *node);
            let may = match self.me.covers(owner) {
                true => *owner == self.me && has_been_at(&roll.node),
                false => roll.node.covers(owner) && (has_been_at(&self.me) || may_return(&h.case, &self.me)),
            };
            may && letter::lane(h.case.urgent) == lane
        };
        let over = self.over.iter().rev().take(OVER_LOOKED_AT).map(|(_, id)| &self.held[id]);
        let over = over.filter(is_theirs).take(OVER_RETURNED);
        let from = called.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let open = self.open.range::<str, _>((from, Bound::Unbounded)).map(|id| &self.held[id]);
        let open = open.filter(is_theirs).take(RETURNED_TOGETHER);
        let theirs: BTreeMap<&str, &Held> = open.chain(over).map(|h| (h.case.id.as_str(), h)).collect();
        let theirs: Vec<&Held> =
            theirs.range::<str, _>((from, Bound::Unbounded)).map(|(_, h)| *h).take(RETURNED_TOGETHER).collect();
        let pen = Pen { me: &self.me, now };
        let back = |h: &&Held| pen.letter(&self.returned(&roll.node, roll.log, roll.log, h));
        let mut drafts: Vec<Draft> = theirs.iter().filter_map(back).collect();
        if theirs.len() == RETURNED_TOGETHER {
            return drafts;
        }
        let id = format!("{}.{}.{lane}", roll.log, roll.n);
        let way = (Direction::Up, roll.node.tier());
        // Whoever is no neighbour of it has not seen it come and go.
        let met = roll.knows_some
            || self.me.parent().is_none_or(|p| p != roll.node)
            || state.peers.get(&roll.node).is_none_or(|p| !p.former.is_empty());
        drafts.push(self.said(&pen, PRESENT, &id, lane, way, "", json!(Roll { met, ..roll.clone() })));
        drafts
    }

    /// When responders are to be called, µs since 1970. For what came from before this folder once it is known what
    /// the box that was here had heard; a call for help waits only for whatever its own side has to say of it.
    fn calls_at(&self, id: &str) -> Option<i64> {
        let held = self.held.get(id)?;
        let calls = || held.uncalled.iter().filter(|u| !self.awaits_answer(held, u));
        let first = calls().map(|u| self.awaits_case_until(held, u).unwrap_or(0)).min()?;
        if calls().any(|u| !u.is_old) {
            return Some(first);
        }
        let case = &held.case;
        let below = self.me.child_towards(&case.owner);
        let has_spoken = |child| self.succession.present.contains(&(child, Lane::Urgent));
        (self.knows_all() || (case.urgent && below.is_some_and(has_spoken))).then_some(first)
    }

    /// When the first of the responders are to be called who have not been yet.
    pub(super) fn next_call_us(&self) -> Option<i64> {
        self.uncalled.iter().filter_map(|id| self.calls_at(id)).min()
    }

    /// Calls for steps from elsewhere: one a case, of its newest step that calls.
    pub(super) fn late_calls(&self, now: DateTime<Utc>) -> Vec<Draft> {
        let pen = Pen { me: &self.me, now };
        let call = |id: &String| {
            let held = &self.held[id];
            let newest = held.uncalled.iter().max_by_key(|u| (u.term, u.version))?;
            // Of two under one order the later, if both call.
            let entry = held.history.iter().rfind(|e| newest.is_of(e) && e.calls.contains(&self.me))?;
            Some(pen.call(&held.case, entry))
        };
        let is_due = |id: &&String| self.calls_at(id).is_some_and(|at| at <= now.timestamp_micros());
        self.uncalled.iter().filter(is_due).take(TOGETHER).filter_map(call).collect()
    }

    /// Folds one of the four in.
    pub(super) fn apply_succession(&mut self, what: &str, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        let origin = header.origin.and_then(|o| Address::parse(o.address).ok());
        self.dirty.insert((Dirty::Succession, String::new()));
        match (what, origin) {
            (WANTED, None) => {
                let wanted = letter::data::<Roll>(payload).map(|r| r.log);
                self.succession.asked = wanted.is_some() && wanted == self.succession.history;
            }
            (WANTED, Some(child)) if child.is_child_of(&self.me) => {
                let Some(Roll { log, knows_some, .. }) = letter::data::<Roll>(payload) else { return };
                self.owed.insert(child.clone(), Owed { log, knows_some, after: None });
                self.dirty.insert((Dirty::Owed, child.to_string()));
            }
            (TOLD, None) => {
                if let Ok(child) = Address::parse(header.target) {
                    self.owed.remove(&child);
                    self.dirty.insert((Dirty::Owed, child.to_string()));
                }
            }
            (TOLD, Some(parent)) if header.direction == Direction::Down => {
                let all = letter::data::<All>(payload).filter(|all| self.is_for(all.log));
                if let Some(all) = all.filter(|_| self.me.parent() == Some(parent)) {
                    if self.succession.all.as_ref().is_none_or(|before| before.by != all.by) {
                        self.succession.heard.clear();
                    }
                    self.succession.all = Some(all);
                    self.succession.heard.insert(header.lane);
                    self.look_at_categories();
                }
            }
            (ROLL, None) => {
                self.succession.called += 1;
                self.succession.called_all = self.succession.all.is_some();
                self.succession.again.clear();
            }
            (ROLL, Some(above)) if header.direction == Direction::Down => {
                let roll = letter::data::<Roll>(payload);
                let theirs = |r: &Roll| r.node == above && r.node != self.me && r.node.covers(&self.me);
                if let Some(roll) = roll.filter(theirs) {
                    self.dirty.insert((Dirty::Roll, format!("{} {above}", header.lane)));
                    self.rolls.insert((header.lane, above), Called { at: pos.0, roll, after: None });
                }
            }
            (PRESENT, None) => {
                let Some(roll) = letter::data::<Roll>(payload) else { return };
                self.dirty.insert((Dirty::Roll, format!("{} {}", header.lane, roll.node)));
                self.rolls.remove(&(header.lane, roll.node));
            }
            (PRESENT, Some(node)) if header.direction == Direction::Up => {
                let roll = letter::data::<Roll>(payload);
                let Some(roll) = roll.filter(|r| r.node == self.me && self.is_for(r.log)) else {
                    return;
                };
                if let Some(origin) = header.origin.filter(|_| !roll.met) {
                    self.believe(&node, origin.log, header.lane);
                }
                self.succession.present.insert((node, header.lane));
            }
            _ => {}
        }
        self.look_if_over();
    }

    /// Nodes below are gone for good: nobody waits for their word.
    pub(super) fn apply_retired(&mut self, gone: &Address) {
        let all = &mut self.succession;
        all.all.iter_mut().for_each(|all| all.below.retain(|n| !gone.covers(n)));
        all.again.retain(|n| !gone.covers(n));
        self.dirty.insert((Dirty::Succession, String::new()));
        self.look_if_over();
    }

    /// Once everybody has spoken, what nobody knows anything newer of is this node's own as before.
    fn look_if_over(&mut self) {
        let was_over = self.succession.over;
        self.succession.look_if_over();
        if was_over || !self.succession.over {
            return;
        }
        let unproven: Vec<String> =
            self.held.iter().filter(|(_, held)| held.unproven).map(|(id, _)| id.clone()).collect();
        for id in unproven {
            self.prove(&id);
            self.free_wishes(&id);
        }
        self.look_at_bookings();
    }

    /// Nothing newer of that case is on its way here any more.
    pub(super) fn prove(&mut self, id: &str) {
        if !self.is_unproven(id) || !self.is_settled() || self.waiting.back_of(id).next().is_some() {
            return;
        }
        self.index(id, false);
        if let Some(held) = self.held.get_mut(id) {
            (held.unproven, held.lent) = (false, false);
        }
        self.index(id, true);
        self.look_at_followers(id);
        self.dirty.insert((Dirty::Case, id.to_owned()));
    }

    /// This node's log has a new history. In a folder that had one before, what is held may be older than what this
    /// node has said: its own cases wait, and so do letters that it may have answered since, as on an empty disk.
    pub(super) fn begin_succession(&mut self, log: LogId) {
        let knows_some = self.succession.history.is_some();
        let began_empty = !knows_some || self.succession.began_empty && !self.is_settled();
        self.succession = Succession { history: Some(log), knows_some, began_empty, ..Succession::default() };
        self.dirty.insert((Dirty::Succession, String::new()));
        if !knows_some || !self.has_parent {
            return;
        }
        let here = self.held.iter().filter(|(_, h)| self.is_here(&h.case));
        let here: Vec<String> = here.map(|(id, _)| id.clone()).collect();
        for id in here {
            self.index(&id, false);
            if let Some(held) = self.held.get_mut(&id) {
                held.unproven = true;
            }
            self.index(&id, true);
            self.look_at_followers(&id);
            self.look_at_booking(&id);
            self.dirty.insert((Dirty::Case, id));
        }
        // What brings a case back was for the history before this one, and comes again.
        let back: Vec<u64> = self.waiting.brings_back().collect();
        for pos in back {
            self.waiting.remove(pos);
            self.dirty.insert((Dirty::Waiting, format!("{pos:020}")));
        }
        let open: Vec<u64> = self.inbox.iter().map(|(pos, _)| pos).collect();
        for pos in open {
            if let Some(posted) = self.inbox.remove(pos) {
                self.waiting.insert(pos, Posted { is_new: false, ..posted });
                self.dirty.extend([Dirty::Waiting, Dirty::Inbox].map(|kind| (kind, format!("{pos:020}"))));
            }
        }
    }

    /// A node below has lost some of what it knew.
    pub(super) fn lost_by(&self, header: &Header<'_>, payload: &[u8], now: DateTime<Utc>) -> Vec<Draft> {
        let node = header.origin.and_then(|o| Address::parse(o.address).ok());
        let roll = letter::data::<Roll>(payload).filter(|roll| roll.knows_some);
        let lost = node.zip(roll);
        let ask = |(node, roll): (Address, Roll)| self.ask_after(&node, !roll.began_empty, &roll.log.to_string(), now);
        lost.map_or_else(Vec::new, ask)
    }

    /// Does this box know some of what there was before, so that it has not lost its disk?
    pub(super) fn knows_some(&self) -> bool {
        self.succession.knows_some && !self.succession.began_empty
    }

    /// May others know of newer steps of that case, which was here before this node lost some of what it knew?
    pub fn is_unproven(&self, id: &str) -> bool {
        self.has_parent && self.held.get(id).is_some_and(|held| held.unproven)
    }

    /// What that box wrote was for no box but this one. (What a box before it there wrote may not have been:
    /// that one's letters wait.)
    fn believe(&mut self, node: &Address, log: LogId, lane: Lane) {
        let theirs = |Posted { letter, log: from, .. }: &Posted| {
            let is_new = !matches!(letter.body, Body::Returned { .. } | Body::Recall { .. });
            is_new && letter.sender() == node && *from == Some(log) && letter::lane(letter.urgent) == lane
        };
        let theirs: Vec<u64> = self.waiting.iter().filter(|(_, posted)| theirs(posted)).map(|(pos, _)| pos).collect();
        for pos in theirs {
            match self.waiting.get(pos).is_some_and(|posted| self.must_wait(&posted.letter)) {
                true => self.waiting.is_new(pos),
                false => self.take_up(pos),
            }
            self.dirty.insert((Dirty::Waiting, format!("{pos:020}")));
        }
    }

    /// This node's own answer to a child that has asked, or to one above that has called the roll.
    pub(super) fn apply_sent(&mut self, to: &Address, log: LogId, case: &Case) {
        if let Some(owed) = self.owed.get_mut(to).filter(|owed| owed.log == log) {
            owed.after = Some(case.id.clone());
            self.dirty.insert((Dirty::Owed, to.to_string()));
        }
        let lane = letter::lane(case.urgent);
        if let Some(called) = self.rolls.get_mut(&(lane, to.clone())).filter(|called| called.roll.log == log) {
            called.after = Some(case.id.clone());
            self.dirty.insert((Dirty::Roll, format!("{lane} {to}")));
        }
    }

    /// Is it for this history?
    pub(super) fn is_for(&self, log: LogId) -> bool {
        self.succession.asked && self.succession.history == Some(log)
    }

    /// A node below has started.
    pub(super) fn apply_started(&mut self, header: &Header<'_>) {
        let node = header.origin.and_then(|o| Address::parse(o.address).ok());
        if self.succession.called == 0 || self.is_settled() {
            return;
        }
        // What was on its way to those below it is lost, too, if it has lost its disk.
        let s = &self.succession;
        let awaits = |n: &Address| s.all.iter().flat_map(|a| &a.below).any(|b| n.covers(b) && !s.has_spoken(b));
        if let Some(node) = node.filter(awaits) {
            self.succession.again.insert(node);
            self.dirty.insert((Dirty::Succession, String::new()));
        }
    }

    /// Does a case that came back concern the lost node itself? Others' are copies as any other.
    pub(super) fn was_here(&self, case: &Case) -> bool {
        case.owner == self.me || case.handing_to.as_ref().is_some_and(|to| self.me.covers(to))
    }

    /// May whoever tells of a case that came back know of it? Those above may; of those below whom it
    /// concerns, and, if it was this node's own, who once had it: as the other copies here say, not his. He may
    /// have given it to the lost box, and heard that it was taken, and nobody above has.
    pub(super) fn believes(&self, letter: &Letter) -> bool {
        let (Body::Returned { case, .. }, sender) = (&letter.body, letter.sender()) else { return false };
        let had = |case: &Case, history: &[Entry]| {
            case.owner == *sender
                || case.handing_to.as_ref() == Some(sender)
                || history.iter().any(|e| e.node == *sender)
        };
        let told = |other: &Letter| match &other.body {
            Body::Returned { case: of, history, .. } => {
                of.id == case.id && !self.me.covers(other.sender()) && had(of, history)
            }
            _ => false,
        };
        !self.me.covers(sender)
            || may_return(case, sender)
            || (case.owner == self.me
                && (self.held.get(&case.id).is_some_and(|h| had(&h.case, &h.history))
                    || self.waiting.back_of(&case.id).any(told)))
    }

    /// What a case that came back leads to, now that everybody has spoken; `None`: more is known of it.
    pub(super) fn recovered(&self, case: &Case, coming: &[Coming], now: DateTime<Utc>) -> Option<Stepped> {
        let held = self.held.get(&case.id);
        let knows = |than: (u32, u32)| held.is_some_and(|h| h.case.order() > than);
        let stepped = if case.handing_to.as_ref() == Some(&self.me) {
            (!self.went_back(case) && !knows(case.order())).then(|| self.recover(case, coming, now))
        } else if case.owner != self.me {
            None
        } else {
            let newest = self.newest(case)?;
            Some(match newest.handing_to {
                Some(_) => self.book().send_again(newest, now),
                None => self.recover(newest, coming, now),
            })
        };
        stepped.map(|mut stepped| {
            stepped.entry.text = self.loss().into();
            stepped
        })
    }

    /// Why a case is recovered, in words.
    pub(super) fn loss(&self) -> &'static str {
        if self.knows_some() {
            "this node had lost some of what it knew"
        } else {
            "the box that was here has lost its disk"
        }
    }

    /// Takes a case of the box that was here before. Whether that one had called for a press nobody knows: if nobody is
    /// known to come its responders are called, unless they were while it waited.
    pub(super) fn recover(&self, case: &Case, coming: &[Coming], now: DateTime<Utc>) -> Stepped {
        let mut stepped = self.book().recover(case, now);
        let held = self.held.get(&case.id);
        let comes = held.is_some_and(|held| held.who_comes().next().is_some());
        let was_called = held.is_some_and(|held| held.lent && held.called == Some(case.order()));
        if is_press(case) && !comes && coming.is_empty() && !was_called {
            stepped.entry.calls.push(self.me.clone());
        }
        stepped
    }

    /// Is it a press to which nobody is known to come, and of which others may know more? For one that the one above has
    /// told of, its responders are called before all are heard, once; and whenever somebody does not come after all.
    pub(super) fn calls_for_unproven(&self, held: &Held) -> bool {
        let case = &held.case;
        let is_uncalled = held.lent && held.called != Some(case.order());
        case.urgent
            && case.merging.is_none()
            && *case.bound_for() == self.me
            && self.is_unproven(&case.id)
            && held.is_unanswered()
            && (is_uncalled || held.calls_back())
    }

    /// Did that hand-over go back from here, or past somebody who tells of it? Then its giver has it again, or will.
    fn went_back(&self, case: &Case) -> bool {
        let order = Some(case.order());
        let is_told = |letter: &Letter| match &letter.body {
            Body::Returned { sent_back, .. } => *sent_back == order && self.believes(letter),
            _ => false,
        };
        self.held.get(&case.id).is_some_and(|held| held.sent_back == order)
            || self.waiting.back_of(&case.id).any(is_told)
    }

    /// Of this copy of a case of this node and of what is held here, the one to go on from; `None`: what is held
    /// here is as new, and not only lent. Of two steps under one order none is left to be the newest anywhere.
    fn newest<'a>(&'a self, case: &'a Case) -> Option<&'a Case> {
        let Some(Held { case: held, lent: is_lent, .. }) = self.held.get(&case.id) else { return Some(case) };
        match held.order().cmp(&case.order()) {
            Ordering::Less => Some(case),
            Ordering::Equal if *is_lent || held != case => Some(if case.supersedes(held) { case } else { held }),
            _ => None,
        }
    }

    /// A hand-over to a node below that may have been lost with the box that was here, if it was not
    /// taken meanwhile: the letter again, unless its giver's own, with whom to call, has come here again and goes on.
    pub(super) fn sent_on(&self, case: &Case, history: &[Entry]) -> Option<Letter> {
        let to = case.handing_to.clone().filter(|to| *to != self.me && case.owner != self.me)?;
        if self.went_back(case) || self.held.get(&case.id).is_some_and(|h| h.case.order() > case.order()) {
            return None;
        }
        let id = letter::hand_over_id(case);
        if [&self.inbox, &self.waiting].iter().any(|letters| letters.place(&id).is_some()) {
            return None;
        }
        let body = Body::HandOver { case: case.clone(), history: letter::sent(history), contact: None };
        let (from, via) = (case.owner.clone(), Some(self.me.clone()));
        Some(Letter { from, via, ..self.letter(id, &to, case.urgent, body) })
    }

    /// Whose word the lost node's cases and seats still need; `None`: this node knows all that there is.
    pub fn awaited(&self) -> Option<Awaited> {
        if self.knows_all() {
            return None;
        }
        let theirs = self.waiting.values().filter(|l| l.to == self.me).map(|l| l.body.case());
        let unproven = self.open.iter().map(String::as_str).filter(|id| self.is_unproven(id));
        let cases: BTreeSet<&str> = theirs.chain(unproven).collect();
        let below = self.succession.all.iter().flat_map(|all| &all.below);
        let mut silent = below.filter(|n| !self.succession.has_spoken(n)).cloned();
        let nodes = silent.by_ref().take(Awaited::NODES).collect();
        Some(Awaited {
            node: self.me.clone(),
            cases: cases.len() as u64,
            knows_some: self.knows_some(),
            parent: self.awaits_parent(),
            nodes,
            nodes_more: silent.count() as u64,
        })
    }

    /// The same while the parent is awaited: what is there from above may be missing here.
    pub fn awaited_from_above(&self) -> Option<Awaited> {
        self.awaited().filter(|awaits| awaits.parent).map(Awaited::without_nodes)
    }

    /// What that case waits for: its next step, or the answer to what it asks this node for.
    pub fn case_awaits(&self, held: &Held) -> Option<Awaited> {
        let is_asked = self.booking_here(&held.case, Booked::Asked).is_some() && held.case.status.is_open();
        let waits = self.is_unproven(&held.case.id) || is_asked;
        waits.then(|| self.awaited()).flatten()
    }

    /// What a case takes now; one that may have gone on, only what waits with it.
    pub fn allowed(&self, held: &Held, role: Option<Role>, now: DateTime<Utc>) -> Vec<Verb> {
        let (id, ask) = (&held.case.id, Ask { role, ..Ask::default() });
        let waits = |verb: &Verb| self.waits_with(*verb, &ask) || held.may_be_taken_back(*verb);
        let takes = |verb: &Verb| !self.is_unproven(id) || waits(verb);
        self.book().allowed(&held.as_known(), now).into_iter().filter(takes).collect()
    }

    /// What becomes of a case that was here before depends on what others know of it.
    pub(super) fn not_yet(&self, id: &str) -> Refusal {
        let (why, hint) = self.awaited().map(|a| (a.sentence("cases"), a.hint())).unwrap_or_default();
        let what = what_is_lost(self.knows_some());
        let detail = format!("{} has lost {what}, and `{id}` may have gone on: {why}", self.me);
        Refusal::new("not-yet", detail, hint)
    }

    /// There is no such case here; or it is one that the lost node had, or may have had.
    pub(super) fn unknown(&self, text: &str) -> Refusal {
        let none = format!("{} knows no case `{text}`", self.me);
        let Some(awaited) = self.awaited() else {
            return Refusal::new("not-found", none, "`citybrain case list` shows those it knows");
        };
        let waits = |l: &Letter| text.len() >= 8 && l.body.case().contains(text);
        let detail = if self.waiting.values().any(waits) {
            format!("`{text}` was with the box that was at {} before; {}", self.me, awaited.sentence("cases"))
        } else {
            format!("{none}, as far as is known: {}", awaited.whole("cases"))
        };
        Refusal::new("not-yet", detail, awaited.hint())
    }
}

fn is_ask(letter: &Letter) -> bool {
    matches!(letter.body, Body::Ask { .. })
}

/// Does somebody call for help, and is to be helped here?
fn is_press(case: &Case) -> bool {
    case.urgent && case.status == Status::Submitted && case.merging.is_none()
}

/// May this node, from below, say how a case stands that came back? If it is its own, came in there, is on its way
/// there, or summons somebody there.
pub(super) fn may_return(case: &Case, node: &Address) -> bool {
    case.owner == *node
        || case.opened_at == *node
        || case.handing_to.as_ref() == Some(node)
        || case.assists.iter().any(|a| a.node.as_ref() == Some(node))
}

/// Is it a case of this subtree, or was it ever, or was it to be? (A hand-over that came back may come again.)
fn concerns(child: &Address, held: &Held) -> bool {
    let case = &held.case;
    let handed = case.handing_to.as_ref().filter(|_| held.sent_back != Some(case.order()));
    let now = [Some(&case.owner), Some(&case.opened_at), handed];
    let came_back = |e: &Entry| {
        let to = e.to.as_deref().filter(|_| e.step == step::CAME_BACK).and_then(|to| Address::parse(to).ok());
        to.is_some_and(|to| child.covers(&to))
    };
    now.into_iter().flatten().any(|a| child.covers(a))
        || held.history.iter().any(|e| child.covers(&e.node) || came_back(e))
}

/// An id that a table has room for.
fn short(what: &str, id: &str) -> String {
    format!("{what}.{:016x}", xxh3_64(id.as_bytes()))
}
