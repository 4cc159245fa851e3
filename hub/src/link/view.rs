//! What engineers see of a node's links.

use citybrain_shared::view::Unheard;
use citybrain_shared::wire::Reason;
use citybrain_shared::words::with_causes;
use citybrain_shared::{Address, Inc, Pos};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The link to the parent.
    Up,
    /// A link to a child.
    Down,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stage {
    /// No connection to the broker, or waiting to try again.
    #[default]
    Connecting,
    /// Connected; the hello is not answered yet.
    Hello,
    /// In session.
    Up,
    Refused {
        reason: Reason,
        detail: String,
    },
    /// Said bye, or its connection broke.
    Away,
}

/// Why a connection or a session ended, as far as it is known what to do about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    #[default]
    Other,
    /// The broker does not take the user name or the password.
    Login,
    /// The broker takes nobody now.
    Unavailable,
    /// One side does not trust the other's certificate.
    Certificate,
    /// Frames were not acknowledged in time.
    NoProgress,
    /// The peer no longer said that it is there.
    Silent,
}

impl Cause {
    /// `None`: nothing to be done.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Cause::Other => None,
            Cause::Login => Some("login"),
            Cause::Unavailable => Some("unavailable"),
            Cause::Certificate => Some("certificate"),
            Cause::NoProgress => Some("no-progress"),
            Cause::Silent => Some("silent"),
        }
    }
}

/// The end of a connection or a session: for programs, and for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    pub cause: Cause,
    pub text: String,
}

impl Lost {
    pub(crate) fn because(text: impl Into<String>) -> Lost {
        Lost { cause: Cause::Other, text: text.into() }
    }

    pub(crate) fn silent() -> Lost {
        Lost { cause: Cause::Silent, text: "nothing was heard of it".into() }
    }

    pub(crate) fn no_progress() -> Lost {
        Lost { cause: Cause::NoProgress, text: "frames were not acknowledged in time".into() }
    }

    /// In MQTT 3.1.1 a broker that was given too many wrong passwords only says that it is unavailable: what it
    /// said of the password before goes on to count.
    pub(crate) fn or_login(self, before: Option<Lost>) -> Lost {
        before.filter(|before| self.cause == Cause::Unavailable && before.cause == Cause::Login).unwrap_or(self)
    }
}

/// With its causes, of which the last often says the most.
impl<E: std::error::Error> From<E> for Lost {
    fn from(error: E) -> Lost {
        Lost::because(with_causes(&error))
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LaneView {
    /// The peer has everything up to here on disk.
    pub acked_pos: Pos,
    /// The log was looked through for the peer up to here.
    pub looked_pos: Pos,
    pub credit_frames: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LinkView {
    pub peer: Address,
    pub role: Role,
    pub stage: Stage,
    pub urgent: LaneView,
    pub routine: LaneView,
    /// Newest position that the link knows of.
    pub last_pos: Pos,
    pub sent_records: u64,
    pub sent_bytes: u64,
    /// Their time was over before they could be sent.
    pub expired_records: u64,
    pub received_frames: u64,
    pub received_bytes: u64,
    pub resends: u64,
    /// Of an older connection or session.
    pub late_acks: u64,
    /// Messages that did not decode, or were not for this link.
    pub bad_messages: u64,
    pub rtt_ms: Option<f64>,
    /// By the time of the snapshot; `None` if never.
    pub last_heard_ms_ago: Option<u64>,
    /// For so long it has not been up; `None`: it is, or it never was.
    pub down_ms: Option<u64>,
    pub reconnects: u64,
    /// Why the last session or connection ended.
    pub last_reason: Option<Lost>,
    /// Why another node was turned away that has this child's address.
    pub refused_another: Option<String>,
    /// Who below a child is not heard, as the child says: the topmost of them, and how many more there are.
    pub unheard: Vec<Unheard>,
    pub unheard_more: u64,
    /// A child that an operator has to let in, for as long as it is connected.
    pub asking: Option<Asking>,
}

/// Who wants to be enrolled.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    pub inc: Inc,
    /// As it says of itself.
    pub name: String,
}

impl LinkView {
    pub fn new(peer: Address, role: Role) -> LinkView {
        LinkView {
            peer,
            role,
            stage: Stage::Connecting,
            urgent: LaneView::default(),
            routine: LaneView::default(),
            last_pos: Pos::ZERO,
            sent_records: 0,
            sent_bytes: 0,
            expired_records: 0,
            received_frames: 0,
            received_bytes: 0,
            resends: 0,
            late_acks: 0,
            bad_messages: 0,
            rtt_ms: None,
            last_heard_ms_ago: None,
            down_ms: None,
            reconnects: 0,
            last_reason: None,
            refused_another: None,
            unheard: Vec::new(),
            unheard_more: 0,
            asking: None,
        }
    }
}

/// All links of a node, by peer. Written by the drivers a few times a second, cheap to read.
#[derive(Clone, Debug, Default)]
pub struct Links(Arc<RwLock<Rows>>);

#[derive(Clone, Debug)]
struct Row {
    view: LinkView,
    heard: Option<Instant>,
    /// When it was last seen no longer to be up.
    down: Option<Instant>,
}

type Rows = BTreeMap<Address, Row>;

impl Links {
    /// A snapshot; each row is at most a quarter of a second old while its driver runs.
    pub fn links(&self) -> Vec<LinkView> {
        let ms = |at: Instant| at.elapsed().as_millis() as u64;
        let rows = self.0.read();
        let row = |r: &Row| LinkView { last_heard_ms_ago: r.heard.map(ms), down_ms: r.down.map(ms), ..r.view.clone() };
        rows.values().map(row).collect()
    }

    pub(super) fn remove(&self, peer: &Address) {
        self.0.write().remove(peer);
    }

    pub(super) fn set(&self, view: &LinkView, heard: Option<Instant>) {
        let mut rows = self.0.write();
        let down = match rows.get(&view.peer) {
            _ if view.stage == Stage::Up => None,
            Some(before) if before.view.stage == Stage::Up => Some(Instant::now()),
            before => before.and_then(|b| b.down),
        };
        rows.insert(view.peer.clone(), Row { view: view.clone(), heard, down });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_was_up_says_how_long_it_is_not() {
        let links = Links::default();
        let mut view = LinkView::new(Address::parse("c/s").unwrap(), Role::Down);
        let mut down = |stage| {
            view.stage = stage;
            links.set(&view, None);
            links.links()[0].down_ms.is_some()
        };
        assert!(!down(Stage::Connecting), "it never was up");
        assert!(!down(Stage::Up));
        assert!(down(Stage::Away) && down(Stage::Connecting) && down(Stage::Hello), "still the same absence");
        assert!(!down(Stage::Up));
    }

    #[test]
    fn a_session_that_an_error_ends_says_what_the_operating_system_says() {
        let source = std::io::Error::from_raw_os_error(5);
        let error = super::super::frames::Error::Log(crate::files::at("/log/1".as_ref())(source).into());
        let text = Lost::from(error).text;
        assert_eq!(text, "the log cannot be read: cannot use `/log/1`: Input/output error (os error 5)");
    }
}
