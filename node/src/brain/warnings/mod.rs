//! Warnings that came in by CAP: what each message is about, who below is told, and when it is over.
//!
//! | module | what it owns |
//! |---|---|
//! | [`read`] | a message: what it says to each node, what it is about, whom it concerns |
//! | [`drafts`] | what follows from it, and what a box that lost its disk is told again |
//! | [`held`] | the table: what is in force, what was cancelled |
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

mod drafts;
mod held;
mod read;
#[cfg(test)]
mod tests;

pub use drafts::source_of;
pub use read::Read;

use crate::brain::cases::is_wanted;
use crate::brain::cases::letter::data;
use chrono::{DateTime, Utc};
use citybrain_hub::policy::{Policy, Row};
use citybrain_hub::state::State;
use citybrain_shared::config::Config;
use citybrain_shared::config::cap::Notify;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::record::{Direction, Draft, Header, Kind};
use citybrain_shared::{Address, Pos};
use drafts::Event;
use held::{Held, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::any::Any;

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
    /// For whom it is, as CAP says it. Who does not know (`""`) takes it for a message that is not for everybody.
    #[serde(default)]
    pub scope: String,
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
    /// To a box that has lost its disk: where it came in, of it, those above it and those below it; of a cancellation,
    /// for whom it is. None: it is the word of whoever tells it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub came_in: Vec<Address>,
    /// The whole message, with CAP's names.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub message: Value,
    /// As it came: a signature in it stays good.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub xml: String,
}

pub struct Warnings {
    me: Address,
    notify: Notify,
    held: Held,
}

impl Warnings {
    pub fn new(config: &Config) -> Warnings {
        let me = config.node.address.clone();
        Warnings { held: Held::new(me.clone()), me, notify: config.cap.notify }
    }

    /// What is in force, and the messages that each has come to, oldest first.
    pub fn in_force(&self) -> impl Iterator<Item = (&Told, &[String])> {
        self.held.in_force().map(|w| (&w.told, w.keys.as_slice()))
    }

    /// The newest message of the warning, in force or cancelled, and the record with the whole of it; `None` for that:
    /// a box that has lost its disk was told again without it.
    pub fn newest(&self, root: &str) -> Option<(&Told, Option<Pos>)> {
        self.held.newest(root)
    }

    /// Is it about a warning that is in force here?
    pub fn is_known(&self, root: &str) -> bool {
        self.held.get(root).is_some()
    }

    /// When the cancellation was sent that is newer than this message of the warning, which comes in here.
    pub fn cancelled(&self, told: &Told) -> Option<DateTime<Utc>> {
        self.held.cancelled_at(&self.me, told)
    }

    /// Is what is in force of the warning newer than this message of it?
    pub fn is_overtaken(&self, told: &Told) -> bool {
        self.held.is_overtaken(told)
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
        let told = data::<Told>(payload)?;
        // Told again, it ends no more than it did.
        let of = told.came_in.first().filter(|_| header.name == NOTICE && told.msg_type == "Cancel");
        Some((of.cloned().unwrap_or(by), told))
    }

    /// Is it for rules, too? Not if what is in force goes on behind it, nor where it is only passed on.
    pub fn is_news(&self, header: &Header<'_>, payload: &[u8]) -> bool {
        if header.name == NOTICE && header.origin.is_none() {
            return false;
        }
        let said = self.said(header, payload);
        said.is_none_or(|(by, told)| !matches!(self.held.outcome(&by, &told), Outcome::GoesOn(_)))
    }
}

impl Policy for Warnings {
    fn decide(&self, _: &State, now_us: i64, header: &Header<'_>, _: &[u8]) -> Vec<Draft> {
        let child = header.origin.filter(|_| is_wanted(header.name)).and_then(|o| Address::parse(o.address).ok());
        let child = child.filter(|child| child.is_child_of(&self.me));
        child.map(|child| self.told_again(&child, now_us)).unwrap_or_default()
    }

    fn next_due_us(&self) -> Option<i64> {
        self.held.next_end_us()
    }

    fn on_due(&self, _: &State, now_us: i64) -> Vec<Draft> {
        let end = |told: &Told| {
            let told = Told { msg_type: "Expired".into(), ..told.clone() };
            // The time too: one that comes back ends again.
            let (id, source) = (format!("{}.expired.{now_us:x}", told.root), format!("/{}", self.me));
            let way = Direction::Local;
            Event { kind: EXPIRED, id: &id, source: &source, way, target: "", told: &told, now_us }.draft().ok()
        };
        self.held.expired(now_us).take(TOGETHER).filter_map(end).collect()
    }

    fn apply(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) {
        if let Some((by, told)) = self.said(header, payload) {
            self.held.take(&by, told, pos);
        }
    }

    fn take_rows(&mut self) -> Vec<Row> {
        self.held.take_rows()
    }

    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.held.load_row(key, value)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
