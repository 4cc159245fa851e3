//! What a case's events look like, and how they find their way.
//!
//! | type | way | what |
//! |---|---|---|
//! | `city.brain.case.STEP` | up to the case's reach | a step: the case afterwards, its line of history, and those before it where some may not know them |
//! | `city.brain.case.letter` | to one node, up and then down | a hand-over (or that it came to nothing), a copy, a wish, what has become of one, what is offered otherwise, a refusal |
//! | `city.brain.case.call` | directive for the node itself | responders are called |
//! | `city.brain.case.contact` | local, or up to the category's `contact_reach` | whom to call |
//! | `city.brain.case.answered` | local | what was decided about a letter |
//! | `city.brain.case.coming` | up to the case's reach | somebody comes to a press, whose own box may be dead; or was refused by it, or cannot come after all, or it is not over, and who says so; or that was refused |
//! | `city.brain.case.forget` | local | whom to call is forgotten here, before the owner has heard of it |
//! | `city.brain.case.wanted`, `.told`, `.roll`, `.present` | to the parent, to the child, to all below, back up | what a box with an empty disk learns ([`super::succession`]) |
//!
//! A letter goes up to the lowest node that is above both ends; there it is sent down anew. Nodes on
//! the way only pass it on.

use chrono::{DateTime, Utc};
use citybrain_shared::case::{Ask, Booking, Case, Coming, Contact, Denial, Entry, Place, Status, Verb, step};
use citybrain_shared::record::{Direction, Draft, Header, Kind, event_key};
use citybrain_shared::{Address, Lane, LogId, Tier, view};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Held;
use super::machine::{Stepped, common};

/// How every type of this part begins.
pub const PREFIX: &str = "city.brain.case.";
pub const LETTER: &str = "city.brain.case.letter";
pub const CALL: &str = "city.brain.case.call";
pub const CONTACT: &str = "city.brain.case.contact";
pub const ANSWERED: &str = "city.brain.case.answered";
/// Somebody comes to a press whose own box has not answered yet, or was refused by it.
pub const COMING: &str = "city.brain.case.coming";
/// Somebody wants a person forgotten, and this node does so at once, whoever owns the case.
pub const FORGET: &str = "city.brain.case.forget";

/// What was decided about a case that came back from below, told by one who cannot know of it.
pub const NOT_BELIEVED: &str = "not believed";

/// Why responders are called: a hand-over has not been taken for too long.
pub const ON_ITS_WAY: &str = "on-its-way";
/// Somebody calls for help again, from another place.
pub const AGAIN: &str = "again";
/// A call for help that its own box should have let climb by now.
pub const UNANSWERED: &str = "unanswered";

/// Lines of history that travel with a hand-over, a copy, or a step of which some who hear know nothing before it.
const HISTORY_SENT: usize = 100;
/// Bytes of them as JSON; of those that a box gets back. The case itself comes beside them, and whom to
/// call: together less than [`citybrain_shared::limits::EVENT_BYTES_MAX`], which every link takes.
const HISTORY_SENT_BYTES: usize = 64 * 1024;
const HISTORY_RETURNED_BYTES: usize = 128 * 1024;

/// The newest lines of a history, as many as travel.
pub fn sent(history: &[Entry]) -> Vec<Entry> {
    newest(&history[history.len().saturating_sub(HISTORY_SENT)..], HISTORY_SENT_BYTES)
}

/// As many as a box gets back.
pub fn returned(history: &[Entry]) -> Vec<Entry> {
    newest(history, HISTORY_RETURNED_BYTES)
}

fn newest(history: &[Entry], bytes_max: usize) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += bytes_of(entry);
        bytes <= bytes_max
    };
    let lines = history.iter().rev().take_while(fits).count();
    history[history.len() - lines..].to_vec()
}

/// Bytes as JSON.
pub fn bytes_of(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("cases and lines have string keys only");
    count.0
}

/// `data` of a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub case: Case,
    pub entry: Entry,
    /// What was before it, for those who hear of the case by it only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Entry>,
    /// The letter that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Letter {
    pub id: String,
    pub from: Address,
    /// Who sent it on, after a case that had moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Address>,
    pub to: Address,
    pub urgent: bool,
    /// When it was written first, by the clock of the node that it is from; the pen says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
    /// Of a wish, and of what refuses it: how often it was asked for before, without an answer. Each time it goes its
    /// whole way.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub again: u32,
    /// Of an escalation: the acceptances, by their names, that are taken back with it, had they an answer or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub takes_back: Vec<String>,
    #[serde(flatten)]
    pub body: Body,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "letter", rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant, reason = "a letter is read or written, and gone")]
pub enum Body {
    /// The case is yours.
    HandOver { case: Case, history: Vec<Entry>, contact: Option<Contact> },
    /// For your information; `entry` is the newest line.
    Copy { case: Case, entry: Entry, history: Vec<Entry>, answers: Option<String> },
    /// Somebody at `from` wants a step.
    Ask {
        case: String,
        verb: Verb,
        ask: Ask,
        hops: u8,
        /// Whom to call, as a later press says it; empty: that is kept where it was said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contact: Option<Contact>,
        /// What the case has booked as it is offered now, by the word of the node that offers it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offered: Option<Box<Offered>>,
    },
    /// The case cannot be handed over: the hand-over of that (term, version) went no further.
    SentBack { case: String, term: u32, version: u32, why: String },
    /// Its giver wants the case again, which `case` shows on its way; `asker` is the node where he said so who asked.
    Recall { case: Case, history: Vec<Entry>, by: String, why: String, asker: Address },
    /// Somebody at `from` wants to know what has become of that wish of his, which may be lost.
    WhatOf(WhatOf),
    /// What the parent knows of a case of the node that has asked, for that history of its log; and who comes to it.
    Returned {
        log: LogId,
        case: Case,
        history: Vec<Entry>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        coming: Vec<Coming>,
        /// The hand-over, by (term, version), that went back: it is not to be taken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent_back: Option<(u32, u32)>,
        /// Whom to call, if the node that has asked is to know.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contact: Option<Contact>,
    },
    /// It was not done.
    Refused {
        case: String,
        answers: String,
        error: String,
        detail: String,
        /// Of a press that came when help had gone ([`OVER`]): what was said, for a new incident.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        said: Option<Box<Ask>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contact: Option<Contact>,
    },
}

/// What a case has booked as it is offered now, and how a line says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offered {
    /// As the case says it: if it says something else by now, there will be another letter.
    pub before: Booking,
    pub after: Booking,
    /// When it is to be now, if that is another time.
    pub to: Option<String>,
    pub text: String,
}

/// Behind the id of a wish for a recall: the letter with which the case's giver asks for it.
pub const RECALL: &str = ".recall";

/// The wish behind a letter that asks for a case back, also where the giver asks for whoever wished it elsewhere.
pub fn recalled_by(id: &str) -> &str {
    id.strip_suffix(RECALL).unwrap_or(id)
}

/// Why a further press is refused whose case was over by then.
pub const OVER: &str = "over";
/// In the id of a further press's letter, before the id that a new incident would have.
pub const PRESS: &str = ".press.";

/// Why an acceptance is refused whose maker has said since that he does not come.
pub const TAKEN_BACK: &str = "taken-back";
/// Why nobody knows whether a wish was done.
pub const LOST: &str = "lost";

/// Why somebody does not come after all: by the word of the press's box, or by his own, or a supervisor's.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    Refused,
    TakenBack(Denial),
}

/// Writes events of one node at one moment.
pub struct Pen<'a> {
    pub me: &'a Address,
    pub now: DateTime<Utc>,
}

impl Pen<'_> {
    /// `known`: the case's history so far.
    pub fn step(&self, stepped: &Stepped, known: &[Entry], answers: Option<&str>) -> Draft {
        let Stepped { case, entry, tells_all, because } = stepped;
        let kind = format!("{PREFIX}{}", entry.step);
        let id = format!("{}.{}.{}", case.id, case.term, case.version);
        let history = if *tells_all { sent(known) } else { Vec::new() };
        let data = Step { case: case.clone(), entry: entry.clone(), history, answers: answers.map(str::to_owned) };
        let related = case.event.as_deref().unwrap_or(&case.id);
        let mut more = json!({"correlationid": related});
        if let Some(because) = because {
            more["causationid"] = because.as_str().into();
        }
        if let Some(governance) = &case.governance {
            more["governance"] = governance.as_str().into();
        }
        self.event(&kind, &id, &case.id, lane(case.urgent), self.way_up(case.reach), "", more, json!(data))
    }

    /// A letter on its first way: up, or down at once where `to` is below.
    pub fn letter(&self, letter: &Letter) -> Option<Draft> {
        let top = common(self.me, &letter.to)?;
        let (way, target) = if top == *self.me {
            ((Direction::Down, Tier::Neighbourhood), letter.to.as_str())
        } else {
            ((Direction::Up, top.tier()), "")
        };
        // Sent on from another node it is another event; its `data` stays the same. A wish that goes after its
        // case may pass one node several times: under one id it would be taken for known below.
        let id = letter.id_of_time();
        let id = match &letter.body {
            Body::Ask { hops, .. } | Body::WhatOf(WhatOf { hops, .. }) if *hops > 0 => {
                format!("{id}/{}.{hops}", self.me)
            }
            _ if letter.from == *self.me && letter.via.is_none() => id,
            _ => format!("{id}/{}", self.me),
        };
        let lane = lane(letter.urgent);
        let mut data = json!(letter);
        if letter.at.is_none() {
            data["at"] = json!(self.now);
        }
        Some(self.event(LETTER, &id, letter.body.case(), lane, way, target, json!({}), data))
    }

    /// That a letter is done, how, and what goes out with that word.
    pub fn answered(&self, letter: &Letter, what: &str, next: Option<Draft>) -> Vec<Draft> {
        let data = json!({"letter": letter.id, "what": what});
        let done = self.local(ANSWERED, &format!("{}.answered", letter.id), letter.body.case(), data);
        std::iter::once(done).chain(next).collect()
    }

    /// Calls this node's own responders: on `events/…` and on `cmd/…`.
    pub fn call(&self, case: &Case, entry: &Entry) -> Draft {
        let why = if entry.place.is_some() { AGAIN } else { &entry.step };
        let place = entry.place.as_ref().or(case.place_again.as_ref()).or(case.place.as_ref());
        let id = format!("{}.{}.{}.{}.call", case.id, entry.term, entry.version, entry.step);
        self.called(&id, case, place, json!({"why": why, "text": entry.text, "to": entry.to}))
    }

    /// The same, because this `wish` says that the call for help is at that place now; another node has the case.
    pub fn call_again(&self, case: &Case, place: Option<&Place>, ask: &Ask, wish: &str) -> Draft {
        let more = json!({"why": AGAIN, "text": ask.text, "to": case.bound_for()});
        self.called(&format!("{wish}.call"), case, place, more)
    }

    fn called(&self, id: &str, case: &Case, place: Option<&Place>, more: Value) -> Draft {
        let mut data = json!({
            "case": case.id, "title": case.title, "kind": case.kind, "category": case.category,
            "place": place, "description": case.description, "owner": case.owner,
            "opened_at": case.opened_at, "opened": case.opened,
        });
        if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
            data.extend(more);
        }
        let way = (Direction::Down, Tier::Neighbourhood);
        let related = json!({"correlationid": case.id, "directive": "command"});
        self.event(CALL, id, &case.id, lane(case.urgent), way, self.me.as_str(), related, data)
    }

    /// Calls this node's own responders, because `case` has been on its way, or not been accepted, for too
    /// long: since it was heard of here.
    pub fn call_waiting(&self, held: &Held) -> Draft {
        let case = &held.case;
        let to = case.bound_for();
        let since = view::rfc3339(view::time_of(held.heard_us));
        let (why, text) = match &case.handing_to {
            Some(to) => (ON_ITS_WAY, format!("{to} has not taken it since {since}")),
            None => match held.coming.last().map(|c| &c.by) {
                Some(by) => (UNANSWERED, format!("{by} was to come, and {to} has not confirmed it since {since}")),
                None if case.status == Status::Accepted => {
                    let by = case.accepted_by.as_deref().unwrap_or_default();
                    (
                        UNANSWERED,
                        format!("{by} has accepted it and does not come after all, and {to} has not answered that"),
                    )
                }
                None if case.status == Status::Closed => (
                    UNANSWERED,
                    format!("it was closed and is said not to be solved, and {to} has not opened it again"),
                ),
                None => (UNANSWERED, format!("nobody has accepted it, and {to} has not let it climb since {since}")),
            },
        };
        let id = format!("{}.{}.{}.waits{}", case.id, case.term, case.version, anew(held));
        let more = json!({"why": why, "text": text, "to": to, "term": case.term, "version": case.version});
        self.called(&id, case, held.place_now(), more)
    }

    /// The same, because the one above tells this box of a press that the box before it had: whether that one had called
    /// nobody knows. Or of any that waits for those below, because whoever was to come does not, or it is not over.
    pub fn call_unproven(&self, held: &Held, text: &str) -> Draft {
        let case = &held.case;
        let id = format!("{}.{}.{}.lent{}", case.id, case.term, case.version, anew(held));
        let more = json!({"why": step::RECOVERED, "text": text, "term": case.term, "version": case.version});
        self.called(&id, case, held.place_now(), more)
    }

    /// Somebody comes, and those above need not be called: they cannot wait for the press's own box to say so. Or he
    /// does not, by the word of that box or by his own.
    pub fn coming(&self, case: &Case, coming: &Coming, end: Option<End>) -> Draft {
        let (mut what, mut data) = (coming.wish.clone(), json!({"case": case.id, "coming": coming}));
        if let Some(end) = end {
            data["refused"] = true.into();
            data["taken_back"] = matches!(end, End::TakenBack(_)).into();
            match end {
                End::Refused => what.push_str(".refused"),
                // If the owner refuses that, somebody may say so once more.
                End::TakenBack(said) => {
                    what = format!("{what}.taken-back.{}", said.wish);
                    data["said"] = json!(said);
                }
            }
        }
        self.who_comes(case, &what, data)
    }

    /// Whoever has accepted it comes all the same, or it is over: the owner has refused that `wish`, which said otherwise.
    pub fn stands(&self, case: &Case, wish: &str) -> Draft {
        self.who_comes(case, &format!("{wish}.stands"), json!({"case": case.id, "stands": wish}))
    }

    fn who_comes(&self, case: &Case, what: &str, data: Value) -> Draft {
        let id = format!("{}.coming.{what}", case.id);
        let more = json!({"correlationid": case.event.as_deref().unwrap_or(&case.id)});
        self.event(COMING, &id, &case.id, lane(case.urgent), self.way_up(case.reach), "", more, data)
    }

    /// Whom to call.
    pub fn contact(&self, case: &str, urgent: bool, reach: Tier, data: Value) -> Draft {
        let id = format!("{case}.contact.{:x}", self.now.timestamp_micros());
        self.event(CONTACT, &id, case, lane(urgent), self.way_up(reach), "", json!({}), data)
    }

    /// Something that stays here.
    pub fn local(&self, kind: &str, id: &str, case: &str, data: Value) -> Draft {
        let way = (Direction::Local, Tier::Neighbourhood);
        self.event(kind, id, case, Lane::Routine, way, "", json!({}), data)
    }

    fn way_up(&self, reach: Tier) -> (Direction, Tier) {
        if reach < self.me.tier() { (Direction::Up, reach) } else { (Direction::Local, Tier::Neighbourhood) }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of an event; each call names them in one line")]
    pub fn event(
        &self,
        kind: &str,
        id: &str,
        subject: &str,
        lane: Lane,
        (direction, reach): (Direction, Tier),
        target: &str,
        more: Value,
        data: Value,
    ) -> Draft {
        let source = format!("/{}", self.me);
        let mut event = json!({
            "specversion": "1.0", "id": id, "source": source, "type": kind, "subject": subject,
            "time": view::rfc3339(self.now), "datacontenttype": "application/json",
        });
        if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
            if lane == Lane::Urgent {
                event.insert("priority".into(), "urgent".into());
            }
            if !target.is_empty() {
                event.insert("target".into(), target.into());
            }
            event.insert("data".into(), data);
        }
        let key = event_key(&source, id);
        let header = Header { lane, direction, reach, target, key, ..Header::local(Kind::Event, kind) };
        Draft::new(&header, event.to_string().as_bytes()).expect("its names are short")
    }
}

/// Behind the id of a call: somewhere else, or because nobody comes any more, they are called for it anew.
fn anew(held: &Held) -> String {
    if held.times_anew > 0 { format!(".{}", held.times_anew) } else { String::new() }
}

/// Of the letter by which this case, as it is there, is handed over.
pub fn hand_over_id(case: &Case) -> String {
    format!("{}.{}.{}.hand-over", case.id, case.term, case.version)
}

impl Letter {
    /// Its id, which of a wish that was asked for again says so, too; and the same of its answer.
    pub fn id_of_time(&self) -> String {
        if self.again == 0 { self.id.clone() } else { format!("{}.{}", self.id, self.again) }
    }

    /// Does it hand a case over, with whom to call?
    pub fn brings_contact(&self) -> bool {
        matches!(&self.body, Body::HandOver { contact: Some(_), .. })
    }

    /// Is it a wish that done twice is done once: that somebody be forgotten, or that whoever was to come to a press
    /// does not, or that it is not over?
    pub fn is_done_once(&self) -> bool {
        let Body::Ask { verb, .. } = &self.body else { return false };
        *verb == Verb::Forget || [Verb::Escalate, Verb::Reopen].contains(verb) && !self.takes_back.is_empty()
    }

    /// May its maker send it again by itself, in the same words? By its name a comment is one line; what a further press
    /// says beside it, whom to call, is not kept.
    pub fn may_be_sent_again(&self) -> bool {
        let is_comment = matches!(&self.body, Body::Ask { verb: Verb::Comment, contact: None, .. });
        self.is_done_once() || is_comment
    }

    /// The node whose record brings it to the place where it turns.
    pub fn sender(&self) -> &Address {
        self.via.as_ref().unwrap_or(&self.from)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhatOf {
    pub case: String,
    pub verb: Verb,
    pub wish: String,
    pub hops: u8,
    /// With what it may be lost, if he has heard of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

impl Body {
    pub fn case(&self) -> &str {
        match self {
            Body::HandOver { case, .. } | Body::Copy { case, .. } => &case.id,
            Body::Recall { case, .. } | Body::Returned { case, .. } => &case.id,
            Body::Ask { case, .. } | Body::WhatOf(WhatOf { case, .. }) => case,
            Body::Refused { case, .. } | Body::SentBack { case, .. } => case,
        }
    }
}

pub fn lane(urgent: bool) -> Lane {
    if urgent { Lane::Urgent } else { Lane::Routine }
}

/// The `data` of an event, typed.
pub fn data<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Option<T> {
    #[derive(Deserialize)]
    struct Event<T> {
        data: T,
    }
    serde_json::from_slice::<Event<T>>(payload).ok().map(|e| e.data)
}
