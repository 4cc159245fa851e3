//! The node's own bookkeeping: JSON payloads of records of [`Kind::Note`].
//!
//! State is a fold over the log, so whatever must survive a restart and is no event is a note.
//! Notes never leave their node.

use citybrain_shared::record::{Draft, Header, Kind, event_key};
use citybrain_shared::wire::{Cursor, Party};
use citybrain_shared::{Address, Boot, Inc, Lane, LogId, Pos};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// A start of this node. Committed before anything else of this start.
    Booted {
        inc: Inc,
        boot: Boot,
    },
    /// From `first` on, this log is known under a new name, because continuity could not be proven.
    Epoch {
        log: LogId,
        first: Pos,
        why: String,
    },

    /// Heads the group of a frame: the records behind it in the group came in it.
    Received {
        peer: Address,
        from: Party,
        lane: Lane,
        cursor: Cursor,
        records: u32,
        dropped: u32,
    },
    /// A peer acknowledged. Lazy: what is lost of it is only sent again.
    PeerHas {
        peer: Address,
        inc: Inc,
        lane: Lane,
        cursor: Cursor,
    },
    /// A child got a session. `lease` only grows.
    Granted {
        child: Address,
        party: Party,
        lease: u64,
    },
    /// An operator's word on a child that config wants approved.
    Enrolled {
        child: Address,
        inc: Inc,
        is_admitted: bool,
    },
    /// What a session with a new party starts from.
    CursorSet {
        peer: Address,
        inc: Inc,
        lane: Lane,
        cursor: Cursor,
        why: String,
    },
    /// Records that a peer can no longer send, or that retention took before everybody had them.
    Lost {
        peer: Option<Address>,
        lane: Option<Lane>,
        after: Pos,
        upto: Pos,
        reason: String,
    },

    /// Something was refused, with what it was.
    DeadLetter(DeadLetter),
    /// An operator's word on a dead letter, by its position.
    DeadLetterClosed {
        pos: Pos,
        retried: bool,
    },

    /// A session that outlives its connection was opened; `clean` forgets an older one.
    SessionOpened {
        client: String,
        user: String,
        version: u8,
        expiry_s: u32,
        clean: bool,
    },
    SessionEnded {
        client: String,
        why: String,
    },
    /// The connection is gone; the session's expiry counts from here.
    SessionLeft {
        client: String,
        /// A client may change it as it leaves, s.
        expiry_s: u32,
        /// Records up to here were given to it.
        given: Pos,
        /// Beyond that, some up to here may have been given by a process that was killed; 0: none.
        unsure: Pos,
    },
    /// `options` are the door's own (QoS in bits 0–1).
    Subscribed {
        client: String,
        filter: String,
        options: u8,
        id: Option<u32>,
        /// Only records after this position. It is before the note's own: what came between the two
        /// was given already.
        since: Pos,
    },
    Unsubscribed {
        client: String,
        filter: String,
    },
    /// Everything up to `upto` is settled for the session, and besides it the positions in `beyond`.
    SessionAcked {
        client: String,
        upto: Pos,
        beyond: Vec<Pos>,
        /// Messages of QoS 2 (record and part) that the client has received and not completed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        releasing: Vec<(Pos, u8)>,
        /// Messages (record, part and QoS) that were given to it before a filter changed, and that it may
        /// have received: they go on with their QoS.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        begun: Vec<(Pos, u8, u8)>,
        /// Of a shared subscription: messages of QoS 2, which are settled for its cursor and go on here.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        apart: Vec<Apart>,
    },
    /// What an outside broker certainly keeps for this node, in place of what was noted before.
    BrokerHas {
        client: String,
        has: BrokerSession,
    },
    /// Packet ids of QoS 2 messages of no record that the client may be given, and has not completed.
    LooseIds {
        client: String,
        ids: Vec<u16>,
    },
    /// QoS 2 of a publisher: ids received and not yet released.
    Qos2Held {
        client: String,
        id: u16,
        /// Of topic and payload ([`Note::print_of`]): tells a repetition from another message.
        print: u32,
    },
    Qos2Released {
        client: String,
        id: u16,
    },
    /// The client has connected with a will. It waits here for the connection's end, which may be the
    /// node's own.
    WillSet {
        client: String,
        will: LastWill,
    },
    /// The will was published, or its client has taken it back.
    WillEnded {
        client: String,
    },

    /// A retained message, by topic and record, was heard by who announced himself on its topic after it came; in
    /// the group of what it became.
    RetainedHeard {
        topic: String,
        pos: Pos,
        /// What it became, as a hash.
        said: u64,
    },
    /// Retained messages, topic and record, that are kept no longer: their time is over, or nobody is to be shown
    /// them any more.
    RetainedExpired {
        topics: Vec<(String, Pos)>,
    },

    /// A change that may be asked for twice was made; in its group. Found by [`Note::made_key`].
    Made {
        /// Whose word it was made by, and the word.
        name: String,
        /// What was asked for, as a hash.
        request: String,
        /// Id of what was made or changed.
        about: String,
        is_new: bool,
        /// The node that was asked to.
        asked: Option<Address>,
    },
    /// What was answered to it. Found by [`Note::answered_key`].
    Answered {
        name: String,
        request: String,
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
}

/// A session that an outside broker keeps for this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerSession {
    /// Whose it is, and where.
    pub name: String,
    /// It is subscribed to these.
    pub filters: BTreeSet<String>,
}

/// A message of QoS 2 that the cursor of a shared subscription has left behind: it goes to one member,
/// or to nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    pub pos: Pos,
    pub part: u8,
    /// Whose it is, until its exchange is complete or the session over; `None`: it may go to any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The client has received it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub releasing: bool,
}

/// What is published for a client that is gone without a goodbye.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastWill {
    /// Whose rights it is published with; empty: anonymous.
    pub user: String,
    pub topic: String,
    #[serde(with = "in_base64")]
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    /// From the connection's end on, s, if the session lives that long.
    pub delay_s: u32,
    /// MQTT 5 properties, as on the wire.
    #[serde(with = "in_base64", default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<u8>,
}

impl LastWill {
    /// What it keeps in memory, nearly: here and in its connection.
    pub fn bytes(&self) -> usize {
        2 * (self.topic.len() + self.payload.len() + self.properties.len())
    }
}

mod in_base64 {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(from)?).map_err(de::Error::custom)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Stable, for programs: `not-json`, `not-cloudevents`, `too-large`, `topic`, `unmapped`, `forbidden`, `poison`, …
    pub reason: String,
    /// One sentence for people: what is wrong, and what to do.
    pub detail: String,
    /// Where it came in: `mqtt:CLIENT`, `http`, `link:ADDRESS`.
    pub via: String,
    pub topic: String,
    /// Its first bytes, as text where they are UTF-8, else in hexadecimal.
    pub payload: String,
    pub payload_is_hex: bool,
    /// Its whole size, bytes.
    pub payload_bytes: u64,
    /// The record here that it is about: of what went out and was refused, or is too large for a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Pos>,
}

/// The reasons of dead letters about links.
pub mod reason {
    /// A record does not fit into a message of the peer's.
    pub const TOO_LARGE_FOR_LINK: &str = "too-large-for-link";
    /// What a peer sent is no sound record.
    pub const POISON: &str = "poison";
    /// What a peer sent does not come from there.
    pub const FOREIGN: &str = "foreign";
    /// What a device said of a danger, and nobody can read.
    pub const UNREAD_ALARM: &str = "unread-alarm";
}

impl DeadLetter {
    /// Keeps at most [`citybrain_shared::limits::DEAD_LETTER_BYTES_MAX`] bytes of the payload.
    pub fn new(
        reason: &str,
        detail: impl Into<String>,
        via: impl Into<String>,
        topic: &str,
        payload: &[u8],
    ) -> DeadLetter {
        let kept = &payload[..payload.len().min(citybrain_shared::limits::DEAD_LETTER_BYTES_MAX)];
        let text = match std::str::from_utf8(kept) {
            Ok(t) => Some(t),
            // A character cut in two at the end is our doing, not the sender's.
            Err(e) if e.error_len().is_none() && kept.len() < payload.len() => {
                std::str::from_utf8(&kept[..e.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        DeadLetter {
            reason: reason.to_owned(),
            detail: detail.into(),
            via: via.into(),
            topic: topic.to_owned(),
            payload: text.map_or_else(|| kept.iter().map(|b| format!("{b:02x}")).collect(), str::to_owned),
            payload_is_hex: text.is_none(),
            payload_bytes: payload.len() as u64,
            of: None,
        }
    }
}

impl Note {
    /// What makes a session that no client of ours has: its cursor is the node's own, for as long as
    /// nothing ends it. Harmless if it is there. From where on is said by the cursor.
    pub fn open_own(name: &str, version: u8, filters: &[&str], options: u8) -> Vec<Note> {
        let opened = Note::SessionOpened {
            client: name.to_owned(),
            user: String::new(),
            version,
            expiry_s: u32::MAX,
            clean: false,
        };
        let subscribed = |filter: &&str| Note::Subscribed {
            client: name.to_owned(),
            filter: (*filter).to_owned(),
            options,
            id: None,
            since: Pos::ZERO,
        };
        std::iter::once(opened).chain(filters.iter().map(subscribed)).collect()
    }

    /// A cursor without QoS 2.
    pub fn settled(name: &str, upto: Pos, beyond: Vec<Pos>) -> Note {
        let (releasing, begun, apart) = (Vec::new(), Vec::new(), Vec::new());
        Note::SessionAcked { client: name.to_owned(), upto, beyond, releasing, begun, apart }
    }

    /// The note as a record that has no position yet.
    pub fn draft(&self) -> Draft {
        let json = serde_json::to_vec(self).expect("notes have only string keys");
        let key = match self {
            Note::Made { name, .. } => Note::made_key(name),
            Note::Answered { name, .. } => Note::answered_key(name),
            _ => 0,
        };
        Draft::new(&Header { key, ..Header::local(Kind::Note, "") }, &json)
            .expect("a note has no text field in its header")
    }

    /// Does it let the log be trimmed, or forget something? A disk without room still takes it: what it holds
    /// would otherwise stay there for ever. There is an end to those: each is about something that came
    /// before.
    pub fn lets_go(&self) -> bool {
        match self {
            Note::Epoch { .. }
            | Note::PeerHas { .. }
            | Note::Granted { .. }
            | Note::CursorSet { .. }
            | Note::Lost { .. }
            | Note::DeadLetterClosed { .. }
            | Note::SessionEnded { .. }
            | Note::SessionLeft { .. }
            | Note::Unsubscribed { .. }
            | Note::SessionAcked { .. }
            | Note::Qos2Released { .. }
            | Note::WillEnded { .. }
            | Note::RetainedExpired { .. } => true,
            Note::Booted { .. }
            | Note::Received { .. }
            | Note::Enrolled { .. }
            | Note::DeadLetter(_)
            | Note::SessionOpened { .. }
            | Note::Subscribed { .. }
            | Note::BrokerHas { .. }
            | Note::LooseIds { .. }
            | Note::Qos2Held { .. }
            | Note::WillSet { .. }
            | Note::RetainedHeard { .. }
            | Note::Made { .. }
            | Note::Answered { .. } => false,
        }
    }

    /// What a publish is recognised by if it comes again under its packet id: 32 bits of the xxh3 of both.
    pub fn print_of(topic: &str, payload: &[u8]) -> u32 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(topic.as_bytes());
        // No topic has a zero in it.
        hash.update(&[0]);
        hash.update(payload);
        hash.digest() as u32
    }

    /// Under which the log's index has the newest [`Note::Made`] of this name. No event can be there: no
    /// source has a control character.
    pub fn made_key(name: &str) -> u64 {
        event_key("\u{1}made", name)
    }

    /// As [`Note::made_key`], of [`Note::Answered`].
    pub fn answered_key(name: &str) -> u64 {
        event_key("\u{1}answered", name)
    }

    /// # Errors
    /// When the payload is not a note of this build.
    pub fn parse(payload: &[u8]) -> Result<Note, serde_json::Error> {
        serde_json::from_slice(payload)
    }
}
