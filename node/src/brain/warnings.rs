//! Warnings that came in by CAP: what each message is about, who below is told, and when it is over.
//!
//! **Format.** A message is one event, [`MESSAGE`], with a [`Told`] as its data. Of a message that is
//! no `Actual` one (an exercise, a test) it is a [`TEST`], of an `Ack` or `Error` an [`ANSWER`]; from both
//! nothing follows, and no rule takes them for the real thing. To those below it goes as a [`NOTICE`].
//! The subject of all is the first message of the chain, so that what a rule has raised for an alert
//! moves on with its updates and ends with its cancellation.
//!
//! **Operation.** A table of what is in force, by that first message, folded from these events: it says
//! to which chain an update belongs, whom a cancellation must reach, and, by a timer, what has expired:
//! that is an [`EXPIRED`] at every node for itself, so that it ends in time also where the line is cut.
//! A node holds what came in at it, what comes down past it, and what comes up from below, each with the
//! nodes at which that came in: a word from below neither ends nor changes what holds for more than those
//! below its node. Rules hear what the table takes, and nothing else ([`Warnings::is_news`]): so the alarm of a
//! warning stands as the warning does.
//! A message that refers to several warnings is an event of each. What was cancelled stays so: what was
//! sent before the cancellation and comes after it is not taken. And a cancellation that is
//! older than the update in force is no more than an [`ANSWER`]. One that refers to what this node does not
//! know goes to all below: it may have lost its disk, and who does not know it either does nothing.
//! A child that has lost its disk, or was restored, is told again what is in force there, and what is cancelled:
//! those below it bring their old words again.
//! Every true warning is urgent, whatever it says of its urgency: on two lanes an update that had grown
//! worse would overtake its alert, and the alert would then take it back.
//!
//! **Bounds.** [`WARNINGS_MAX`] in force and as many cancelled, those that end first give way; [`KEYS_MAX`]
//! messages of each, [`CHAINS_MAX`] that one message is about.

use crate::brain::cases::is_wanted;
use crate::brain::cases::letter::data;
use crate::cap::{self, Message, alarms, areas, parts, text, values};
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_hub::policy::{Policy, Row};
use citybrain_hub::state::State;
use citybrain_shared::config::Config;
use citybrain_shared::config::cap::Notify;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::record::{Direction, Draft, Header, Kind, event_key};
use citybrain_shared::{Address, Lane, Pos, Tier, limits, view, words};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};

pub const MESSAGE: &str = "city.cap.message";
pub const TEST: &str = "city.cap.test";
pub const ANSWER: &str = "city.cap.answer";
pub const NOTICE: &str = "city.cap.notice";
pub const EXPIRED: &str = "city.cap.expired";

/// In force at a time. A province in a bad night has some hundred.
const WARNINGS_MAX: usize = 2_000;
/// Messages of one chain that are known again when another refers to them.
const KEYS_MAX: usize = 64;
/// Warnings that one message ends or moves on, each by an event of its own.
const CHAINS_MAX: usize = 64;
/// So long a message holds that does not say, hours: a bureau's day.
const HOLDS_HOURS: i64 = 24;
/// Nodes that one message is sent to by name, and at which one is known to have come in; of more, all are told.
const TARGETS_MAX: usize = 256;
/// Characters of what it is about, and of its headline.
const WORDS_MAX: usize = 500;
/// Ends in one group.
const TOGETHER: usize = 64;

/// `data` of all these events. Without `message` and `xml` in an [`EXPIRED`], without `xml` in a [`NOTICE`], and
/// without both in one to a box that has lost its disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The first message of the chain, and this one: `sender,identifier,sent`, the time in UTC.
    pub root: String,
    pub key: String,
    pub sent: DateTime<Utc>,
    /// CAP's words, and `Expired`.
    pub msg_type: String,
    pub status: String,
    /// As an alarm's.
    pub level: Severity,
    /// What it is about: 暴雨.
    pub event: String,
    pub headline: String,
    pub urgent: bool,
    /// In force until then.
    pub expires: DateTime<Utc>,
    /// Nodes that are told, each with all below it.
    #[serde(default)]
    pub nodes: Vec<Address>,
    /// To a box that has lost its disk: where it came in, if only at it and below it. Else it is the word of
    /// whoever tells it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub came_in: Vec<Address>,
    /// The whole message, with CAP's names.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub message: Value,
    /// As it came: a signature in it stays good.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub xml: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Warning {
    told: Told,
    /// Messages of the chain, oldest first.
    keys: Vec<String>,
    holders: Holders,
}

/// The nodes at which a warning came in (this one, those above that have told of it, those below), and when the
/// message was sent that is in force there.
type Holders = BTreeMap<Address, DateTime<Utc>>;

/// What a message does to what is known of its warning.
enum Outcome {
    /// It is in force now.
    Holds(Holders),
    /// It is cancelled for all that have it, and stays so.
    Ends,
    /// It has expired.
    Lapses,
    /// What is in force goes on; more may be known of who has it.
    GoesOn(Option<Holders>),
}

/// A warning that was cancelled, by this node or by those below it that had it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Cancelled {
    /// The newest cancellation; until it expires somebody may believe what it cancels.
    told: Told,
    /// Messages of the chain.
    keys: Vec<String>,
    /// For whom, each with all below it: others may have the warning still.
    of: Vec<Address>,
}

/// A row: what is cancelled at some may be in force at others.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warning: Option<Warning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cancelled: Option<Cancelled>,
}

/// A message as it came in, and what it is about beside its [`Told::root`].
#[derive(Clone, Debug)]
pub struct Read {
    pub told: Told,
    /// Further warnings in force, by their first messages.
    pub also: Vec<String>,
    /// What it refers to, and nothing in force here has come to.
    pub unknown: Vec<String>,
    /// Who below is told, and what; the worst first.
    pub below: Vec<Below>,
    /// A node above that goes on with what it moves on or ends here.
    pub above: Option<Address>,
}

/// What a message says to a node.
#[derive(Clone, Debug)]
struct Words {
    level: Severity,
    event: String,
    headline: String,
}

impl Words {
    /// The worst of what is said, in Chinese if it is; what a message does not say it leaves as it was.
    fn of(infos: &[&Message], note: Option<&str>, before: Option<&Told>) -> Words {
        let level = |info: &Message| {
            let own = values(info, "parameter", cap::SEVERITY).find_map(Severity::parse);
            own.unwrap_or_else(|| alarms::level(text(info, "severity")))
        };
        let worst = infos.iter().min_by_key(|info| (level(info), !text(info, "language").starts_with("zh")));
        let says = |name: &str| worst.map(|info| text(info, name)).filter(|t| !t.is_empty());
        // It is held as long as the warning is; the whole of it stands in the message.
        let or = |given: Option<&str>, known: Option<&str>| {
            words::beginning(given.or(known).unwrap_or_default(), WORDS_MAX).to_owned()
        };
        Words {
            level: worst.map(|info| level(info)).or(before.map(|b| b.level)).unwrap_or(Severity::Indeterminate),
            event: or(says("event"), before.map(|b| b.event.as_str())),
            headline: or(says("headline").or(says("event")).or(note), before.map(|b| b.headline.as_str())),
        }
    }
}

/// A node that is told of a message.
#[derive(Clone, Debug)]
pub struct Below {
    pub node: Address,
    /// With all below it. If not, it came in there before.
    deep: bool,
    words: Words,
}

pub struct Warnings {
    me: Address,
    notify: Notify,
    /// In force, by the first message.
    table: BTreeMap<String, Warning>,
    /// µs since 1970, and which.
    ends: BTreeSet<(i64, String)>,
    /// By the first message.
    cancelled: BTreeMap<String, Cancelled>,
    dirty: BTreeSet<String>,
}

impl Cancelled {
    fn is_of(&self, node: &Address) -> bool {
        self.of.iter().any(|of| of.covers(node))
    }
}

impl Warnings {
    pub fn new(config: &Config) -> Warnings {
        Warnings {
            me: config.node.address.clone(),
            notify: config.cap.notify,
            table: BTreeMap::new(),
            ends: BTreeSet::new(),
            cancelled: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// What a message says and whom it concerns. `known`: this node and those below it, with their
    /// division codes.
    pub fn read(&self, message: Message, xml: &str, known: &[(Address, Option<String>)]) -> Read {
        let word = |name: &str| text(&message, name).to_owned();
        // What was read has a good time, and references that read.
        let sent = cap::moment(text(&message, "sent")).unwrap_or_default();
        let key = cap::key(text(&message, "sender"), text(&message, "identifier"), sent);
        let earlier = cap::references(text(&message, "references")).unwrap_or_default();
        let msg_type = word("msgType");
        let is_actual = text(&message, "status") == "Actual" && !matches!(msg_type.as_str(), "Ack" | "Error");
        let mut held: Vec<&Warning> = Vec::new();
        let mut unknown = Vec::new();
        for key in &earlier {
            match self.table.values().find(|w| w.keys.contains(key)) {
                None => unknown.push(key.clone()),
                Some(w) if held.iter().all(|known| known.told.root != w.told.root) => held.push(w),
                Some(_) => {}
            }
        }
        held.truncate(CHAINS_MAX);
        let chains: Vec<&Told> = held.iter().map(|w| &w.told).collect();
        let before = chains.first().copied();
        let root = match before {
            _ if msg_type == "Alert" => key.clone(),
            Some(known) => known.root.clone(),
            None => self.cancelled_of(&earlier).or_else(|| first(&earlier)).unwrap_or(&key).clone(),
        };
        let is_step = is_actual && msg_type != "Alert";
        // Of what it cancels and this node does not know, others below may know more.
        let is_lost = |key: &&String| msg_type == "Cancel" && **key != root && !self.was_cancelled(key);
        let lost = unknown.iter().filter(is_lost).cloned();
        let also = chains.iter().skip(1).map(|w| w.root.clone()).chain(lost);
        let also: Vec<String> = also.filter(|_| is_step).take(CHAINS_MAX).collect();
        let infos = parts(&message, "info").map(|info| (info, areas::places(info, &self.me, known)));
        let infos: Vec<(&Message, Option<Vec<Address>>)> = infos.collect();
        let note = Some(text(&message, "note")).filter(|t| !t.is_empty());
        let words = |node: &Address| Words::of(&concerning(&infos, node), note, before);
        let here = words(&self.me);
        let expires = infos.iter().filter_map(|(info, _)| cap::moment(text(info, "expires")).ok()).max();
        let holds = sent.checked_add_signed(TimeDelta::hours(HOLDS_HOURS)).unwrap_or(sent);
        // A cancellation must reach whoever would still believe what it cancels, however late it comes.
        let believed = chains.iter().filter(|_| msg_type == "Cancel").map(|before| before.expires);
        let expires = believed.chain([expires.unwrap_or(holds)]).max().unwrap_or(holds);
        let (nodes, alone) =
            if is_actual { self.concerned(&message, &held, &unknown, known) } else { Default::default() };
        let deep = nodes.iter().map(|node| (node, true));
        let alone = alone.iter().map(|node| (node, false));
        let below = deep.chain(alone).map(|(node, deep)| Below { node: node.clone(), deep, words: words(node) });
        // An update of other areas alone says nothing to those it has left: there it goes on as it was.
        let is_left = |node: &Address| msg_type == "Update" && is_elsewhere(&infos, node);
        let mut below: Vec<Below> = below.filter(|below| !is_left(&below.node)).collect();
        // Who is on the way to several hears the worst first.
        below.sort_by(|a, b| (a.words.level, &a.node).cmp(&(b.words.level, &b.node)));
        let mut holders = held.iter().filter(|_| is_step).flat_map(|w| w.holders.keys());
        let above = holders.find(|node| is_below(node, &self.me)).cloned();
        let told = Told {
            sent,
            status: word("status"),
            level: here.level,
            event: here.event,
            headline: here.headline,
            urgent: is_actual,
            expires,
            nodes,
            came_in: Vec::new(),
            root,
            key,
            msg_type,
            message: Value::Object(message),
            xml: xml.to_owned(),
        };
        Read { told, also, unknown, below, above }
    }

    /// The nodes that are told, each with all below it, and those that are told alone.
    fn concerned(
        &self,
        message: &Message,
        before: &[&Warning],
        unknown: &[String],
        known: &[(Address, Option<String>)],
    ) -> (Vec<Address>, Vec<Address>) {
        let all = || (vec![self.me.clone()], Vec::new());
        let mut nodes = match self.notify {
            Notify::Nobody => return Default::default(),
            Notify::Subtree => return all(),
            Notify::Areas => areas::named(message, &self.me, known),
        };
        if text(message, "msgType") == "Cancel" && unknown.iter().any(|key| !self.was_cancelled(key)) {
            return all();
        }
        // Who heard of it must hear how it goes on: who it was, as far as this node can tell them.
        nodes.extend(before.iter().flat_map(|b| &b.told.nodes).filter_map(|node| within(&self.me, node)));
        areas::topmost(&mut nodes);
        let is_told = |node: &Address| nodes.iter().any(|n| n.covers(node));
        let holders = before.iter().flat_map(|b| b.holders.keys()).filter(|node| is_below(&self.me, node));
        let alone: BTreeSet<Address> = holders.filter(|node| !is_told(node)).cloned().collect();
        match (nodes.len() + alone.len()) * before.len().max(1) > TARGETS_MAX {
            true => all(),
            false => (nodes, alone.into_iter().collect()),
        }
    }

    /// What is in force, and the messages that each has come to, oldest first.
    pub fn in_force(&self) -> impl Iterator<Item = (&Told, &[String])> {
        self.table.values().map(|w| (&w.told, w.keys.as_slice()))
    }

    /// Is it about a warning that is in force here?
    pub fn is_known(&self, root: &str) -> bool {
        self.table.contains_key(root)
    }

    /// The warning that was cancelled and has come to any of these messages, by its first.
    fn cancelled_of(&self, keys: &[String]) -> Option<&String> {
        self.cancelled.iter().find(|(_, c)| keys.iter().any(|key| c.keys.contains(key))).map(|(root, _)| root)
    }

    /// With all below this node?
    fn was_cancelled(&self, key: &String) -> bool {
        self.cancelled.values().any(|c| c.is_of(&self.me) && c.keys.contains(key))
    }

    /// When the cancellation was sent that is newer than this message of the warning, which comes in here.
    pub fn cancelled(&self, told: &Told) -> Option<DateTime<Utc>> {
        self.cancelled_at(&self.me, told)
    }

    fn cancelled_at(&self, by: &Address, told: &Told) -> Option<DateTime<Utc>> {
        let cancelled = self.cancelled.get(&told.root).filter(|c| c.is_of(by));
        cancelled.map(|c| c.told.sent).filter(|at| told.sent <= *at)
    }

    /// Is what is in force of the warning newer than this message of it?
    pub fn is_overtaken(&self, told: &Told) -> bool {
        self.table.get(&told.root).is_some_and(|known| known.told.sent > told.sent)
    }

    /// The event of a message, and what is sent down of it; the same of each further warning.
    ///
    /// # Errors
    /// It does not fit into an event.
    pub fn drafts(&self, read: &Read, now_us: i64) -> Result<Vec<Draft>, String> {
        let mut drafts = self.drafts_of(&read.told, read, &read.told.key, now_us)?;
        for root in &read.also {
            // As it came it stands in the first.
            let told = Told { root: root.clone(), xml: String::new(), ..read.told.clone() };
            drafts.extend(self.drafts_of(&told, read, &format!("{}.also.{root}", told.key), now_us)?);
        }
        Ok(drafts)
    }

    fn drafts_of(&self, told: &Told, read: &Read, id: &str, now_us: i64) -> Result<Vec<Draft>, String> {
        let is_late = told.msg_type == "Cancel" && self.is_overtaken(told);
        let kind = match (told.msg_type.as_str(), told.status.as_str()) {
            ("Ack" | "Error", _) => ANSWER,
            (_, "Actual") if is_late => ANSWER,
            (_, "Actual") => MESSAGE,
            _ => TEST,
        };
        let source = source_of(told);
        let way = if self.me.tier() == Tier::City { Direction::Local } else { Direction::Up };
        let first = Event { kind, id, source: &source, way, target: "", told, now_us }.draft()?;
        let mut drafts = vec![first];
        let mut below = Told { xml: String::new(), ..told.clone() };
        for Below { node, deep, words } in read.below.iter().filter(|_| !is_late) {
            let Words { level, event, headline } = words.clone();
            (below.level, below.event, below.headline) = (level, event, headline);
            let target = if *deep { format!("{node}/**") } else { node.to_string() };
            drafts.push(self.notice(&format!("{id}.for.{node}"), &target, &below, now_us)?);
        }
        Ok(drafts)
    }

    fn notice(&self, id: &str, target: &str, told: &Told, now_us: i64) -> Result<Draft, String> {
        let source = format!("/{}", self.me);
        Event { kind: NOTICE, id, source: &source, way: Direction::Down, target, told, now_us }.draft()
    }

    /// To a child whose disk is empty or older than what it knew: what is in force there, and what is cancelled, for
    /// it and for those whom it may not have told yet.
    fn told_again(&self, child: &Address, now_us: i64) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for warning in self.table.values().filter(|w| w.told.expires.timestamp_micros() > now_us) {
            let nodes = all_within(child, &warning.told.nodes);
            let mut targets: Vec<String> = nodes.iter().map(|node| format!("{node}/**")).collect();
            // What comes up is held by all on its way.
            if !nodes.contains(child) && warning.holders.keys().any(|node| child.covers(node)) {
                targets.push(child.to_string());
            }
            // What came in there and nowhere else it may end for all.
            let is_theirs = warning.holders.keys().all(|node| child.covers(node));
            let came_in = warning.holders.keys().filter(|_| is_theirs).cloned().collect();
            let told = Told { came_in, ..warning.told.clone() };
            for target in targets {
                let id = format!("{}.again.{now_us:x}.for.{}", told.key, target.trim_end_matches("/**"));
                drafts.extend(self.notice(&id, &target, &told, now_us));
            }
        }
        // Last: what others have still is over for those who have cancelled it.
        let cancelled = self.cancelled.values().filter(|c| c.told.expires.timestamp_micros() > now_us);
        for Cancelled { told, of, .. } in cancelled {
            for node in all_within(child, of) {
                let id = format!("{}.again.{now_us:x}.for.{node}.{}", told.key, told.root);
                drafts.extend(self.notice(&id, &format!("{node}/**"), told, now_us));
            }
        }
        drafts
    }

    /// Who says it, and what, if it is a word that counts for the table.
    fn said(&self, header: &Header<'_>, payload: &[u8]) -> Option<(Address, Told)> {
        let counts = match header.name {
            MESSAGE => header.direction != Direction::Down,
            EXPIRED => header.origin.is_none(),
            NOTICE => header.origin.is_some() && header.direction == Direction::Down,
            _ => false,
        };
        if !counts || header.kind != Kind::Event {
            return None;
        }
        let by = header.origin.map_or(Some(self.me.clone()), |o| Address::parse(o.address).ok())?;
        Some((by, data::<Told>(payload)?))
    }

    /// Is it for rules, too? Not if what is in force goes on behind it, nor where it is only passed on.
    pub fn is_news(&self, header: &Header<'_>, payload: &[u8]) -> bool {
        if header.name == NOTICE && header.origin.is_none() {
            return false;
        }
        let said = self.said(header, payload);
        said.is_none_or(|(by, told)| !matches!(self.outcome(&by, &told), Outcome::GoesOn(_)))
    }

    fn outcome(&self, by: &Address, told: &Told) -> Outcome {
        let is_below = is_below(&self.me, by);
        let is_word_of_it = !matches!(told.msg_type.as_str(), "Cancel" | "Expired");
        if is_word_of_it && self.cancelled_at(by, told).is_some() {
            return Outcome::GoesOn(None);
        }
        let Some(known) = self.table.get(&told.root) else {
            return match told.msg_type.as_str() {
                "Cancel" if !is_below => Outcome::Ends,
                "Cancel" | "Expired" => Outcome::GoesOn(None),
                _ => Outcome::Holds(moved_on(&self.me, &Holders::new(), by, told)),
            };
        };
        match told.msg_type.as_str() {
            "Expired" => Outcome::Lapses,
            "Cancel" if is_below => {
                let others = known.holders.iter().filter(|(node, _)| !by.covers(node));
                let others: Holders = others.map(|(node, sent)| (node.clone(), *sent)).collect();
                if others.is_empty() { Outcome::Ends } else { Outcome::GoesOn(Some(others)) }
            }
            "Cancel" if self.is_overtaken(told) => Outcome::GoesOn(None),
            "Cancel" => Outcome::Ends,
            _ => {
                let is_behind = |(node, sent): (&Address, &DateTime<Utc>)| !by.covers(node) && *sent < told.sent;
                let is_newer = told.sent > known.told.sent;
                let waits = is_below && is_newer && known.holders.iter().any(is_behind);
                // Of one message the worst word counts: areas of several levels are told each their own.
                let is_milder = told.key == known.told.key && told.level > known.told.level;
                let holders = moved_on(&self.me, &known.holders, by, told);
                let goes_on = waits || is_milder || self.is_overtaken(told);
                if goes_on { Outcome::GoesOn(Some(holders)) } else { Outcome::Holds(holders) }
            }
        }
    }

    /// More is known of who has it.
    fn note(&mut self, root: &str, nodes: Vec<Address>, holders: Holders) {
        if let Some(known) = self.table.get_mut(root) {
            known.holders = holders;
            known.told.nodes = joined(&self.me, &known.told.nodes, nodes);
            self.dirty.insert(root.to_owned());
        }
    }

    fn put(&mut self, told: Told, by: &Address, holders: Holders) {
        let told = Told { message: Value::Null, xml: String::new(), came_in: Vec::new(), ..told };
        let known = self.table.get(&told.root).filter(|_| *by != self.me);
        let nodes = known.map(|w| joined(&self.me, &w.told.nodes, told.nodes.clone()));
        let told = Told { nodes: nodes.unwrap_or(told.nodes), ..told };
        let mut keys = self.table.get(&told.root).map(|w| w.keys.clone()).unwrap_or_default();
        if !keys.contains(&told.key) {
            keys.push(told.key.clone());
        }
        let root = told.root.clone();
        bound(&mut keys, &root);
        self.remove(&root);
        self.ends.insert((told.expires.timestamp_micros(), root.clone()));
        self.table.insert(root, Warning { told, keys, holders });
        if self.table.len() > WARNINGS_MAX
            && let Some((_, first)) = self.ends.first().cloned()
        {
            self.remove(&first);
        }
    }

    /// Keeps that it is cancelled at that node and below; what is in force at others is not touched.
    fn cancel(&mut self, by: &Address, told: &Told) {
        let known = self.table.get(&told.root);
        let mut keys = known.map(|w| w.keys.clone()).unwrap_or_default();
        let believed = known.map(|w| w.told.expires);
        let earlier = self.cancelled.remove(&told.root);
        keys.extend(earlier.iter().flat_map(|c| c.keys.iter().cloned()).chain([told.root.clone(), told.key.clone()]));
        keys.sort_by(|a, b| (sent_at(a), a).cmp(&(sent_at(b), b)));
        keys.dedup();
        bound(&mut keys, &told.root);
        // One from above is for all of this node.
        let of = within(&self.me, by).into_iter().collect();
        let of = joined(&self.me, earlier.as_ref().map_or(&[], |c| &c.of), of);
        let expires = [believed, earlier.as_ref().map(|c| c.told.expires)].into_iter().flatten();
        let expires = expires.fold(told.expires, DateTime::max);
        let told = Told { message: Value::Null, xml: String::new(), ..told.clone() };
        let newest = earlier.map(|c| c.told).filter(|c| c.sent > told.sent).unwrap_or(told);
        let root = newest.root.clone();
        self.dirty.insert(root.clone());
        self.cancelled.insert(root, Cancelled { told: Told { expires, ..newest }, keys, of });
        if self.cancelled.len() > WARNINGS_MAX
            && let Some(first) = self.cancelled.iter().min_by_key(|(_, c)| c.told.expires).map(|(root, _)| root.clone())
        {
            self.cancelled.remove(&first);
            self.dirty.insert(first);
        }
    }

    /// A newer message of that node, for it and all below it.
    fn uncancel(&mut self, by: &Address, root: &str) {
        let Some(cancelled) = self.cancelled.get_mut(root) else { return };
        cancelled.of.retain(|of| !of.covers(by) && !by.covers(of));
        if cancelled.of.is_empty() {
            self.cancelled.remove(root);
        }
        self.dirty.insert(root.to_owned());
    }

    fn remove(&mut self, root: &str) {
        self.dirty.insert(root.to_owned());
        if let Some(old) = self.table.remove(root) {
            self.ends.remove(&(old.told.expires.timestamp_micros(), root.to_owned()));
        }
    }
}

/// Is it of the node, of one above it or below it? Of no node at all, it may be of any.
fn is_of(places: Option<&[Address]>, node: &Address) -> bool {
    let meets = |place: &Address| place.covers(node) || node.covers(place);
    places.is_none_or(|places| places.iter().any(meets))
}

/// What is said of the node. If nothing is, all.
fn concerning<'m>(infos: &[(&'m Message, Option<Vec<Address>>)], node: &Address) -> Vec<&'m Message> {
    let all = || infos.iter().map(|(info, _)| *info).collect();
    let of = infos.iter().filter(|(_, places)| is_of(places.as_deref(), node)).map(|(info, _)| *info);
    Some(of.collect()).filter(|of: &Vec<_>| !of.is_empty()).unwrap_or_else(all)
}

/// Is all that is said of others? What names no node that is known here may be of one above.
fn is_elsewhere(infos: &[(&Message, Option<Vec<Address>>)], node: &Address) -> bool {
    let names_some = infos.iter().any(|(_, places)| places.iter().flatten().next().is_some());
    names_some && infos.iter().all(|(_, places)| !is_of(places.as_deref(), node))
}

fn is_below(me: &Address, node: &Address) -> bool {
    me != node && me.covers(node)
}

/// What of these nodes, each with all below it, is at or below this one.
fn all_within(me: &Address, nodes: &[Address]) -> Vec<Address> {
    let mut nodes = nodes.iter().filter_map(|node| within(me, node)).collect();
    areas::topmost(&mut nodes);
    nodes
}

/// What of the node, and all below it, is at or below this one.
fn within(me: &Address, node: &Address) -> Option<Address> {
    if node.covers(me) { Some(me.clone()) } else { Some(node.clone()).filter(|node| me.covers(node)) }
}

/// These nodes and those, each with all below it; of too many, all.
fn joined(me: &Address, known: &[Address], more: Vec<Address>) -> Vec<Address> {
    let mut nodes = [known, &more].concat();
    areas::topmost(&mut nodes);
    if nodes.len() > TARGETS_MAX { vec![me.clone()] } else { nodes }
}

/// With the word of this node, which all below it have heard, or of those for whom it speaks.
fn moved_on(me: &Address, holders: &Holders, by: &Address, told: &Told) -> Holders {
    let (mut holders, sent) = (holders.clone(), told.sent);
    let theirs = if told.came_in.is_empty() { std::slice::from_ref(by) } else { &told.came_in };
    for node in theirs {
        holders.entry(node.clone()).or_insert(sent);
    }
    for (_, known) in holders.iter_mut().filter(|(node, _)| by.covers(node)) {
        *known = sent.max(*known);
    }
    // So many have it that it is this node's.
    if holders.len() > TARGETS_MAX { Holders::from([(me.clone(), sent)]) } else { holders }
}

/// The message that was sent first.
fn first(keys: &[String]) -> Option<&String> {
    keys.iter().min_by_key(|key| sent_at(key))
}

/// The time of a message, which sorts as text.
fn sent_at(key: &str) -> Option<&str> {
    key.rsplit(',').next()
}

/// Of a chain too long, what is referred to is kept: its root, and the newest of its messages, which come last.
fn bound(keys: &mut Vec<String>, root: &str) {
    let mut over = keys.len().saturating_sub(KEYS_MAX);
    keys.retain(|key| {
        let goes = over > 0 && key != root;
        over -= usize::from(goes);
        !goes
    });
}

/// CloudEvents' `source` of a message: its sender, wherever it came in.
pub fn source_of(told: &Told) -> String {
    let sender = told.key.split(',').next().unwrap_or_default();
    let mut source = String::from("cap:");
    for byte in sender.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'@' | b':' | b'/' | b'.' | b'-' | b'_' => {
                source.push(byte.into())
            }
            _ => source.push_str(&format!("%{byte:02X}")),
        }
    }
    source
}

struct Event<'a> {
    kind: &'a str,
    id: &'a str,
    source: &'a str,
    way: Direction,
    target: &'a str,
    told: &'a Told,
    now_us: i64,
}

impl Event<'_> {
    fn draft(self) -> Result<Draft, String> {
        let Event { kind, id, source, way, target, told, now_us } = self;
        let mut event = json!({
            "specversion": "1.0", "id": id, "source": source, "type": kind, "subject": told.root,
            "time": view::rfc3339(told.sent), "datacontenttype": "application/json", "data": told,
        });
        let lane = if told.urgent { Lane::Urgent } else { Lane::Routine };
        if told.urgent {
            event["priority"] = "urgent".into();
        }
        let mut header = Header { lane, direction: way, target, ..Header::local(Kind::Event, kind) };
        header.key = event_key(source, id);
        match way {
            Direction::Up => header.reach = Tier::City,
            Direction::Down => {
                event["target"] = target.into();
                event["directive"] = "notice".into();
                event["expirytime"] = view::rfc3339(told.expires).into();
                let left_ms = (told.expires.timestamp_micros() - now_us) / 1_000;
                header.ttl_ms = u32::try_from(left_ms.max(1)).unwrap_or(u32::MAX);
            }
            Direction::Local => {}
        }
        let event = event.to_string();
        if event.len() > limits::EVENT_BYTES_MAX {
            return Err(format!("as an event it has {} bytes, and {} fit", event.len(), limits::EVENT_BYTES_MAX));
        }
        Draft::new(&header, event.as_bytes()).map_err(|e| e.to_string())
    }
}

impl Policy for Warnings {
    fn decide(&self, _: &State, now_us: i64, header: &Header<'_>, _: &[u8]) -> Vec<Draft> {
        let child = header.origin.filter(|_| is_wanted(header.name)).and_then(|o| Address::parse(o.address).ok());
        let child = child.filter(|child| child.is_child_of(&self.me));
        child.map(|child| self.told_again(&child, now_us)).unwrap_or_default()
    }

    fn next_due_us(&self) -> Option<i64> {
        self.ends.first().map(|(at, _)| *at)
    }

    fn on_due(&self, _: &State, now_us: i64) -> Vec<Draft> {
        let over = self.ends.iter().take_while(|(at, _)| *at <= now_us).take(TOGETHER);
        let end = |(_, root): &(i64, String)| {
            let told = Told { msg_type: "Expired".into(), ..self.table.get(root)?.told.clone() };
            // The time too: one that comes back ends again.
            let (id, source) = (format!("{root}.expired.{now_us:x}"), format!("/{}", self.me));
            let way = Direction::Local;
            Event { kind: EXPIRED, id: &id, source: &source, way, target: "", told: &told, now_us }.draft().ok()
        };
        over.filter_map(end).collect()
    }

    fn apply(&mut self, _: Pos, header: &Header<'_>, payload: &[u8]) {
        let Some((by, told)) = self.said(header, payload) else { return };
        let outcome = self.outcome(&by, &told);
        if matches!(outcome, Outcome::Ends | Outcome::Holds(_) | Outcome::GoesOn(Some(_))) {
            match told.msg_type.as_str() {
                "Cancel" => self.cancel(&by, &told),
                _ => self.uncancel(&by, &told.root),
            }
        }
        match outcome {
            Outcome::GoesOn(None) => {}
            Outcome::GoesOn(Some(holders)) => self.note(&told.root, told.nodes, holders),
            Outcome::Ends | Outcome::Lapses => self.remove(&told.root),
            Outcome::Holds(holders) => self.put(told, &by, holders),
        }
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let row = |root: String| {
            let (warning, cancelled) = (self.table.get(&root).cloned(), self.cancelled.get(&root).cloned());
            let kept = (warning.is_some() || cancelled.is_some()).then_some(Kept { warning, cancelled });
            (root.into_bytes(), kept.map(|k| serde_json::to_vec(&k).expect("rows have string keys only")))
        };
        std::mem::take(&mut self.dirty).into_iter().map(row).collect()
    }

    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let Kept { warning, cancelled } = serde_json::from_slice(value).map_err(|e| e.to_string())?;
        let root = String::from_utf8_lossy(key).into_owned();
        if let Some(warning) = warning {
            self.ends.insert((warning.told.expires.timestamp_micros(), root.clone()));
            self.table.insert(root.clone(), warning);
        }
        self.cancelled.extend(cancelled.map(|cancelled| (root, cancelled)));
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::LogId;
    use citybrain_shared::config::{Variables, parse};
    use citybrain_shared::record::Origin;

    fn a(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn city() -> Warnings {
        let parsed = parse("[node]\naddress = \"c\"\ndata = \"d\"\n", &Variables::new());
        Warnings::new(&parsed.config.unwrap())
    }

    fn at(second: u32) -> DateTime<Utc> {
        format!("2026-07-01T00:00:{second:02}Z").parse().unwrap()
    }

    fn key(identifier: u32, second: u32) -> String {
        cap::key("a@b", &identifier.to_string(), at(second))
    }

    /// A message of the chain, sent at that second; it begins with the first.
    fn told(msg_type: &str, second: u32, level: Severity) -> Told {
        Told {
            root: key(1, 1),
            key: key(second, second),
            sent: at(second),
            msg_type: msg_type.into(),
            status: "Actual".into(),
            level,
            event: "暴雨".into(),
            headline: String::new(),
            urgent: true,
            expires: "2026-07-01T06:00:00Z".parse().unwrap(),
            nodes: Vec::new(),
            came_in: Vec::new(),
            message: Value::Null,
            xml: String::new(),
        }
    }

    /// Comes to the city from there: do rules hear of it?
    fn hears(warnings: &mut Warnings, from: &str, told: &Told) -> bool {
        let origin = Origin { address: from, log: LogId(1), pos: Pos(1) };
        let (origin, direction) = if from == "c" { (None, Direction::Local) } else { (Some(origin), Direction::Up) };
        let header = Header { origin, direction, ..Header::local(Kind::Event, MESSAGE) };
        let event = json!({"data": told}).to_string();
        let is_news = warnings.is_news(&header, event.as_bytes());
        warnings.apply(Pos(1), &header, event.as_bytes());
        is_news
    }

    fn level(warnings: &Warnings) -> Option<Severity> {
        warnings.in_force().next().map(|(told, _)| told.level)
    }

    #[test]
    fn of_a_long_chain_the_first_message_and_the_newest_are_known() {
        let at = |i: usize| format!("a@b,{},2026-07-01T{:02}:{:02}:00.000Z", KEYS_MAX * 3 - i, i / 60, i % 60);
        let mut keys: Vec<String> = (0..KEYS_MAX + 10).map(at).collect();
        bound(&mut keys, &at(0));
        let wanted: Vec<String> = std::iter::once(at(0)).chain((11..KEYS_MAX + 10).map(at)).collect();
        assert_eq!(keys, wanted);
        assert_eq!(first(&keys), Some(&at(0)));
    }

    #[test]
    fn what_came_in_at_two_nodes_below_is_over_above_when_both_have_cancelled_it() {
        let mut warnings = city();
        for from in ["c/s", "c/t"] {
            assert!(hears(&mut warnings, from, &told("Alert", 1, Severity::Major)));
        }
        let cancel = told("Cancel", 3, Severity::Major);
        assert!(!hears(&mut warnings, "c/s", &cancel), "it goes on at the other");
        assert!(!hears(&mut warnings, "c/t/m", &cancel), "one below the other does not speak for it");
        assert_eq!(level(&warnings), Some(Severity::Major));
        assert!(hears(&mut warnings, "c/t", &cancel));
        assert_eq!(level(&warnings), None);
    }

    #[test]
    fn what_two_nodes_below_have_is_as_both_say_it_is() {
        let mut warnings = city();
        for from in ["c/s", "c/t"] {
            hears(&mut warnings, from, &told("Alert", 1, Severity::Major));
        }
        assert!(!hears(&mut warnings, "c/s", &told("Update", 2, Severity::Warning)), "the other has it as it was");
        assert_eq!(level(&warnings), Some(Severity::Major));
        assert!(hears(&mut warnings, "c/t", &told("Update", 2, Severity::Warning)));
        assert_eq!(level(&warnings), Some(Severity::Warning));
    }

    #[test]
    fn of_one_message_the_worst_word_counts_and_one_that_was_overtaken_does_not() {
        let mut warnings = city();
        for (from, told, is_heard) in [
            ("c/s", told("Alert", 1, Severity::Minor), true),
            ("c/t", told("Alert", 1, Severity::Critical), true),
            ("c/u", told("Alert", 1, Severity::Minor), false),
            ("c", told("Update", 4, Severity::Major), true),
            ("c/v", told("Alert", 1, Severity::Critical), false),
        ] {
            assert_eq!(hears(&mut warnings, from, &told), is_heard, "{from} at {}", told.sent);
        }
        assert_eq!(level(&warnings), Some(Severity::Major));
        hears(&mut warnings, "c", &told("Cancel", 5, Severity::Major));
        assert!(!hears(&mut warnings, "c/w", &told("Alert", 1, Severity::Critical)), "what was cancelled stays so");
        assert_eq!(level(&warnings), None);
    }

    #[test]
    fn an_update_of_the_same_second_is_taken_though_it_is_milder() {
        let mut warnings = city();
        hears(&mut warnings, "c", &told("Alert", 1, Severity::Major));
        let update = Told { key: key(2, 1), ..told("Update", 1, Severity::Minor) };
        assert!(hears(&mut warnings, "c", &update));
        assert_eq!(level(&warnings), Some(Severity::Minor));
    }

    #[test]
    fn of_more_nodes_than_are_told_by_name_none_ends_a_warning_above() {
        let mut warnings = city();
        let nodes: Vec<String> = (0..=TARGETS_MAX).map(|i| format!("c/s{i}")).collect();
        for from in &nodes {
            hears(&mut warnings, from, &Told { nodes: vec![a(from)], ..told("Alert", 1, Severity::Major) });
        }
        let held = warnings.table.get(&key(1, 1)).unwrap();
        assert_eq!((held.told.nodes.clone(), held.holders.len()), (vec![a("c")], 1));
        for from in &nodes {
            hears(&mut warnings, from, &told("Cancel", 2, Severity::Major));
        }
        assert_eq!(level(&warnings), Some(Severity::Major));
    }

    fn cancellation(references: &[&str]) -> Message {
        let message = json!({"sender": "a@b", "identifier": "9", "sent": "2026-07-01T00:00:09+00:00",
            "status": "Actual", "msgType": "Cancel", "references": references.join(" ")});
        message.as_object().unwrap().clone()
    }

    /// Types and targets of what follows.
    fn follows(warnings: &Warnings, message: Message) -> Vec<(String, String)> {
        let read = warnings.read(message, "", &[(a("c"), None), (a("c/s"), None)]);
        let drafts = warnings.drafts(&read, 0).unwrap();
        drafts.iter().map(|d| (d.header().name.to_owned(), d.header().target.to_owned())).collect()
    }

    #[test]
    fn a_cancellation_of_what_is_not_known_goes_to_all_below_once_for_each() {
        let mut warnings = city();
        let two = ["a@b,1,2026-07-01T00:00:01+00:00", "x@y,2,2026-07-01T00:00:00+00:00"];
        let wanted = |target: &str| [(MESSAGE.to_owned(), String::new()), (NOTICE.to_owned(), target.to_owned())];
        assert_eq!(follows(&warnings, cancellation(&two)), [wanted("c/**"), wanted("c/**")].concat());
        // Known, it goes to those who have it: the one at which it came in.
        hears(&mut warnings, "c/s", &told("Alert", 1, Severity::Major));
        assert_eq!(follows(&warnings, cancellation(&two[..1])), wanted("c/s"));
        // And again to nobody.
        hears(&mut warnings, "c", &told("Cancel", 9, Severity::Major));
        assert_eq!(follows(&warnings, cancellation(&two[..1])), wanted("")[..1]);
    }

    fn node(address: &str) -> Warnings {
        Warnings { me: a(address), ..city() }
    }

    /// The child's disk is empty or old: what its parent tells it again comes there.
    fn is_told_again(parent: &Warnings, child: &mut Warnings) {
        for draft in parent.told_again(&child.me, at(20).timestamp_micros()) {
            let sent = draft.header();
            let origin = Some(Origin { address: parent.me.as_str(), log: LogId(1), pos: Pos(1) });
            let target = Address::parse(sent.target.trim_end_matches("/**")).unwrap();
            assert!(child.me.covers(&target), "{target} is not of {}", child.me);
            child.apply(Pos(1), &Header { origin, ..sent }, draft.payload());
        }
    }

    #[test]
    fn a_box_that_was_lost_or_restored_hears_of_what_was_cancelled_above_it_at_it_and_below_it() {
        for (posted, cancelled) in [("c/s/m", "c/s"), ("c/s", "c/s"), ("c/s/m", "c"), ("c/s/m", "c/s/m"), ("c", "c")] {
            let mut parent = city();
            hears(&mut parent, posted, &told("Alert", 1, Severity::Major));
            assert!(hears(&mut parent, cancelled, &told("Cancel", 3, Severity::Major)), "{cancelled} ends it");
            // Its parent's memory is on a disk.
            let mut again = city();
            for (key, row) in parent.take_rows() {
                again.load_row(&key, &row.unwrap()).unwrap();
            }
            let mut lost = node("c/s");
            is_told_again(&again, &mut lost);
            assert!(
                !hears(&mut lost, "c/s/m", &told("Alert", 1, Severity::Major)),
                "{posted}, {cancelled}: an old word"
            );
            assert_eq!(level(&lost), None);
            let mut restored = node("c/s");
            hears(&mut restored, posted, &told("Alert", 1, Severity::Major));
            is_told_again(&again, &mut restored);
            assert_eq!(level(&restored), None, "{posted}, {cancelled}");
            assert!(hears(&mut restored, "c/s", &told("Update", 4, Severity::Minor)), "a newer word");
        }
        let mut parent = city();
        hears(&mut parent, "c/s", &told("Alert", 1, Severity::Major));
        hears(&mut parent, "c/s", &Told { expires: at(9), ..told("Cancel", 3, Severity::Major) });
        let us = told("Alert", 1, Severity::Major).expires.timestamp_micros();
        assert_eq!(parent.told_again(&a("c/s"), us - 1).len(), 1, "as long as the warning would be believed");
        assert!(parent.told_again(&a("c/s"), us).is_empty());
    }

    #[test]
    fn what_came_in_at_a_lost_box_goes_on_above_only_if_others_have_it() {
        for (posted, above) in [
            (&["c/s"][..], None),
            (&["c/s/m"], None),
            (&["c/s", "c/s/m"], None),
            (&["c/s", "c/t"], Some("c")),
            (&["c"], Some("c")),
            (&["c/s", "c"], Some("c")),
        ] {
            let mut parent = city();
            for from in posted {
                let nodes = vec![a(from)];
                hears(&mut parent, from, &Told { nodes, ..told("Alert", 1, Severity::Major) });
            }
            let mut lost = node("c/s");
            is_told_again(&parent, &mut lost);
            assert_eq!(level(&lost), Some(Severity::Major));
            let read = lost.read(cancellation(&["a@b,1,2026-07-01T00:00:01+00:00"]), "", &[]);
            assert_eq!(read.above, above.map(a), "it came in at {posted:?}");
            hears(&mut parent, "c/s", &told("Cancel", 9, Severity::Major));
            assert_eq!(level(&parent).is_some(), above.is_some(), "it came in at {posted:?}");
        }
    }

    #[test]
    fn what_one_below_has_cancelled_comes_again_from_another_and_is_over_for_the_first() {
        let mut parent = city();
        for from in ["c/s", "c/t"] {
            hears(&mut parent, from, &Told { nodes: vec![a(from)], ..told("Alert", 1, Severity::Major) });
        }
        hears(&mut parent, "c/s", &told("Cancel", 3, Severity::Major));
        let over = |parent: &Warnings, address: &str| {
            let mut lost = node(address);
            is_told_again(parent, &mut lost);
            level(&lost).is_none()
        };
        assert_eq!([over(&parent, "c/s"), over(&parent, "c/t")], [true, false]);
        assert!(!hears(&mut parent, "c/s/m", &told("Alert", 1, Severity::Critical)), "it was cancelled there");
        hears(&mut parent, "c/t", &told("Cancel", 3, Severity::Major));
        assert_eq!([over(&parent, "c/s"), over(&parent, "c/t")], [true, true]);
        // The line of a third was cut.
        assert!(hears(&mut parent, "c/u", &told("Alert", 1, Severity::Major)), "it is in force there");
        assert_eq!([over(&parent, "c/s"), over(&parent, "c/t")], [true, true]);
        assert!(hears(&mut parent, "c", &told("Update", 4, Severity::Minor)));
        assert!(parent.cancelled.is_empty(), "the newest word is for all");
    }

    /// A message of the chain, one `info` for each area.
    fn of_areas(msg_type: &str, second: u32, infos: &[(&str, &str)]) -> Message {
        let info = |(area, severity): &(&str, &str)| {
            json!({"event": "暴雨", "severity": severity, "headline": severity,
                "area": [{"areaDesc": area, "geocode": [{"valueName": "citybrain-address", "value": area}]}]})
        };
        let infos: Vec<Value> = infos.iter().map(info).collect();
        let references = if second == 1 { "" } else { "a@b,1,2026-07-01T00:00:01+00:00" };
        let message = json!({"sender": "a@b", "identifier": second.to_string(),
            "sent": format!("2026-07-01T00:00:{second:02}+00:00"), "status": "Actual", "msgType": msg_type,
            "references": references, "info": infos});
        message.as_object().unwrap().clone()
    }

    #[test]
    fn an_update_of_other_areas_raises_nothing_in_those_it_has_left_and_its_cancellation_reaches_them() {
        let known = ["c", "c/s", "c/s/m", "c/t", "c/t/m", "c/t/n"].map(|node| (a(node), None));
        let mut city = city();
        city.notify = Notify::Areas;
        let mut says = |message: Message| {
            let read = city.read(message, "", &known);
            hears(&mut city, "c", &read.told);
            let told = |below: &Below| (below.node.to_string(), below.words.headline.clone());
            read.below.iter().map(told).collect::<Vec<_>>()
        };
        let pair = |(node, headline): (&str, &str)| (node.to_owned(), headline.to_owned());
        assert_eq!(says(of_areas("Alert", 1, &[("c/s", "Minor")])), [("c/s", "Minor")].map(pair));
        let moved = of_areas("Update", 2, &[("c/t/m", "Severe"), ("c/t/n", "Minor")]);
        assert_eq!(says(moved), [("c/t/m", "Severe"), ("c/t/n", "Minor")].map(pair));
        let of_both = of_areas("Update", 3, &[("c/t/m", "Minor"), ("c/s/m", "Minor")]);
        assert_eq!(says(of_both), [("c/s", "Minor"), ("c/t/m", "Minor")].map(pair));
        // What names no area may be of anybody.
        let bare = json!({"event": "暴雨", "severity": "Severe", "headline": "all"});
        let mut of_none = of_areas("Update", 4, &[]);
        of_none.insert("info".into(), json!([bare]));
        assert_eq!(says(of_none), [("c/s", "all"), ("c/t/m", "all"), ("c/t/n", "all")].map(pair));
        // Nor is it known whose an area is that no node here has.
        let of_unknown = of_areas("Update", 5, &[("c/z", "Minor")]);
        assert_eq!(says(of_unknown), [("c/s", "Minor"), ("c/t/m", "Minor"), ("c/t/n", "Minor")].map(pair));
        let nodes: Vec<String> = says(of_areas("Cancel", 9, &[("c/t/m", "Severe")])).into_iter().map(|b| b.0).collect();
        assert_eq!(nodes, ["c/s", "c/t/m", "c/t/n"]);
    }

    #[test]
    fn nobody_is_told_whom_this_node_cannot_tell() {
        let mut warnings = city();
        warnings.me = a("c/s");
        let told = Told { nodes: vec![a("c/t"), a("c/s/m"), a("c/s/m/n")], ..told("Alert", 1, Severity::Major) };
        hears(&mut warnings, "c/s/m", &told);
        let read = warnings.read(cancellation(&["a@b,1,2026-07-01T00:00:01+00:00"]), "", &[]);
        assert_eq!(read.told.nodes, [a("c/s/m")]);
        // Told from above, it is this node's, with all below it.
        hears(&mut warnings, "c/s/m", &Told { nodes: vec![a("c")], ..told });
        let read = warnings.read(cancellation(&["a@b,1,2026-07-01T00:00:01+00:00"]), "", &[]);
        assert_eq!(read.told.nodes, [a("c/s")]);
    }
}
