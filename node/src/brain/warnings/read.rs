//! A message as it came in: what it says to each node, what it is about and whom it concerns.

use super::held::{Warning, first, is_below, within};
use super::{CHAINS_MAX, HOLDS_HOURS, TARGETS_MAX, Told, WORDS_MAX, Warnings};
use crate::cap::{self, Message, alarms, areas, parts, text, values};
use chrono::{DateTime, TimeDelta, Utc};
use citybrain_shared::config::cap::Notify;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::{Address, words};
use serde_json::Value;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
pub struct Read {
    pub told: Told,
    /// Further warnings in force, by their first messages.
    pub also: Vec<String>,
    /// What it refers to, and nothing in force here has come to.
    pub unknown: Vec<String>,
    /// Who below is told, and what; the worst first.
    pub below: Vec<Below>,
    /// The codes of its areas, if it is told to nobody for no node here having one of them.
    pub nobodys: Vec<String>,
    /// A node above that goes on with what it moves on or ends here.
    pub above: Option<Address>,
}

/// What a message says to a node.
#[derive(Clone, Debug)]
pub(super) struct Words {
    pub level: Severity,
    pub event: String,
    pub headline: String,
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
    pub(super) deep: bool,
    pub(super) words: Words,
}

/// An `info` of a message, and the nodes that its areas name, if any do.
type Info<'m> = (&'m Message, Option<Vec<Address>>);

impl Warnings {
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
        let (held, unknown) = self.held.referred(&earlier);
        let chains: Vec<&Told> = held.iter().map(|w| &w.told).collect();
        let before = chains.first().copied();
        let root = match before {
            _ if msg_type == "Alert" => key.clone(),
            Some(known) => known.root.clone(),
            None => self.held.cancelled_of(&earlier).or_else(|| first(&earlier)).unwrap_or(&key).clone(),
        };
        let is_step = is_actual && msg_type != "Alert";
        // Of what it cancels and this node does not know, others below may know more.
        let is_lost = |key: &&String| msg_type == "Cancel" && !self.held.was_cancelled(key);
        let lost: Vec<&String> = unknown.iter().filter(is_lost).collect();
        let others = lost.iter().filter(|key| ***key != root).map(|key| (*key).clone());
        let also = chains.iter().skip(1).map(|w| w.root.clone()).chain(others);
        let also: Vec<String> = also.filter(|_| is_step).take(CHAINS_MAX).collect();
        let infos = parts(&message, "info").map(|info| (info, areas::places(info, &self.me, known)));
        let infos: Vec<Info<'_>> = infos.collect();
        let note = Some(text(&message, "note")).filter(|t| !t.is_empty());
        let words = |node: &Address| Words::of(&concerning(&infos, node), note, before);
        let here = words(&self.me);
        // A cancellation must reach whoever would still believe what it cancels, however late it comes.
        let believed = chains.iter().filter(|_| msg_type == "Cancel").map(|before| before.expires);
        let expires = believed.chain([expires(&infos, sent)]).max().unwrap_or(sent);
        let whom = is_actual.then(|| self.concerned(&held, &infos, !lost.is_empty()));
        let (nodes, alone) = whom.unwrap_or_default();
        let is_nobodys = is_actual && self.notify == Notify::Areas && nodes.is_empty() && alone.is_empty();
        let codes = infos.iter().filter(|_| is_nobodys).flat_map(|(info, _)| areas::codes(info));
        let nobodys: BTreeSet<String> = codes.map(str::to_owned).collect();
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
            scope: word("scope"),
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
        Read { told, also, unknown, below, nobodys: nobodys.into_iter().collect(), above }
    }

    /// The nodes that are told, each with all below it, and those that are told alone.
    fn concerned(&self, before: &[&Warning], infos: &[Info<'_>], is_lost: bool) -> (Vec<Address>, Vec<Address>) {
        let all = || (vec![self.me.clone()], Vec::new());
        let mut nodes: Vec<Address> = match self.notify {
            Notify::Nobody => return Default::default(),
            Notify::Subtree => return all(),
            Notify::Areas if is_lost => return all(),
            Notify::Areas => infos.iter().filter_map(|(_, places)| places.as_ref()).flatten().cloned().collect(),
        };
        // Who heard of it must hear how it goes on: who it was, as far as this node can tell them.
        nodes.extend(before.iter().flat_map(|b| &b.told.nodes).filter_map(|node| within(&self.me, node)));
        areas::topmost(&mut nodes);
        let is_told = |node: &Address| nodes.iter().any(|n| n.covers(node));
        let holders = before.iter().flat_map(|b| b.holders.keys()).filter(|node| is_below(&self.me, node));
        let alone: BTreeSet<Address> = holders.filter(|node| !is_told(node)).cloned().collect();
        // What says of no place by a code where it is may be of anybody.
        if nodes.is_empty() && alone.is_empty() && infos.iter().any(|(_, places)| places.is_none()) {
            return all();
        }
        match (nodes.len() + alone.len()) * before.len().max(1) > TARGETS_MAX {
            true => all(),
            false => (nodes, alone.into_iter().collect()),
        }
    }
}

/// When the message ends, by the last of what it says.
fn expires(infos: &[Info<'_>], sent: DateTime<Utc>) -> DateTime<Utc> {
    let said = infos.iter().filter_map(|(info, _)| cap::moment(text(info, "expires")).ok()).max();
    said.or_else(|| sent.checked_add_signed(TimeDelta::hours(HOLDS_HOURS))).unwrap_or(sent)
}

/// Is it of the node, of one above it or below it? Of no node at all, it may be of any.
fn is_of(places: Option<&[Address]>, node: &Address) -> bool {
    let meets = |place: &Address| place.covers(node) || node.covers(place);
    places.is_none_or(|places| places.iter().any(meets))
}

/// What is said of the node. If nothing is, all.
fn concerning<'m>(infos: &[Info<'m>], node: &Address) -> Vec<&'m Message> {
    let all = || infos.iter().map(|(info, _)| *info).collect();
    let of = infos.iter().filter(|(_, places)| is_of(places.as_deref(), node)).map(|(info, _)| *info);
    Some(of.collect()).filter(|of: &Vec<_>| !of.is_empty()).unwrap_or_else(all)
}

/// Is all that is said of others? What names no node that is known here may be of one above.
fn is_elsewhere(infos: &[Info<'_>], node: &Address) -> bool {
    let names_some = infos.iter().any(|(_, places)| places.iter().flatten().next().is_some());
    names_some && infos.iter().all(|(_, places)| !is_of(places.as_deref(), node))
}
