//! MQTT sessions that outlast their connections, and the last wills of those that are there.
//!
//! **Constraints**: changed by the log alone, like the rest of the state; what all of them keep in memory
//! is known at any time, because a door for strangers must be able to say that it is enough.

use super::rows::Key;
use crate::note::{Apart, BrokerSession, LastWill, Note};
use citybrain_shared::Pos;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

/// Sessions whose ids begin so belong to the node's own webhooks.
pub const WEBHOOK: &str = "$webhook/";
/// The session that is the cursor of an outside broker.
pub const OUTSIDE: &str = "$outside-broker";

/// What a usual filter keeps in memory here, bytes, nearly; the routes of one that is connected keep as
/// much again.
pub const FILTER_BYTES: usize = 1000;

/// Is this session's cursor the node's own? No client may have such an id.
pub fn is_own_session(id: &str) -> bool {
    id == OUTSIDE || id.starts_with(WEBHOOK)
}

/// How many usual filters, of 8 levels and 256 bytes, one costs.
pub fn filter_cost(filter: &str) -> usize {
    1 + filter.bytes().filter(|b| *b == b'/').count() / 8 + filter.len() / 256
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub user: String,
    /// MQTT protocol level: 4 or 5.
    pub version: u8,
    pub expiry_s: u32,
    pub connected: bool,
    /// When its client left, or was found to be gone at a start; µs since 1970. Meaningless while
    /// `connected`.
    #[serde(default)]
    pub left_us: i64,
    /// In a row of their own: they are many, and change seldom. Shared, so that a connection can look at
    /// all of them without holding up the state.
    #[serde(skip)]
    pub filters: Arc<BTreeMap<String, Subscription>>,
    /// Everything up to here is settled for this session.
    pub upto: Pos,
    /// Settled beyond `upto`.
    pub beyond: Vec<Pos>,
    /// Messages of QoS 2 (record and part) that it has received and not completed.
    #[serde(default)]
    pub releasing: Vec<(Pos, u8)>,
    /// Messages (record, part and QoS) given to it before a filter changed, whether it has received them
    /// or not.
    #[serde(default)]
    pub begun: Vec<(Pos, u8, u8)>,
    /// Packet ids of QoS 2 messages of no record that it may have been given and not completed.
    #[serde(default)]
    pub loose: Vec<u16>,
    /// Of a shared subscription: messages of QoS 2 that its cursor has left behind.
    #[serde(default)]
    pub apart: Vec<Apart>,
    /// QoS 2 publishes received from it and not yet released: packet id and [`Note::print_of`].
    pub held: Vec<(u16, u32)>,
    /// Records up to here were given to it when its client left.
    #[serde(default)]
    pub given: Pos,
    /// Beyond `given`, some up to here may have been given when a process was killed; 0: none.
    #[serde(default)]
    pub unsure: Pos,
    /// Of [`OUTSIDE`] alone.
    #[serde(default)]
    pub broker_has: BrokerSession,
}

impl Session {
    /// The oldest record that it may still read.
    pub fn needs_from(&self) -> Pos {
        self.apart.iter().map(|a| a.pos).chain([self.upto.next()]).min().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    pub options: u8,
    pub id: Option<u32>,
    /// Only records after this position.
    pub since: Pos,
}

/// All of them, by client id.
#[derive(Debug, Default, PartialEq)]
pub struct Sessions {
    all: HashMap<String, Session>,
    /// Of clients that are connected, or gone for less than their will's delay.
    wills: HashMap<String, LastWill>,
    bytes: usize,
}

impl Deref for Sessions {
    type Target = HashMap<String, Session>;

    fn deref(&self) -> &HashMap<String, Session> {
        &self.all
    }
}

fn bytes_of_filter(filter: &str) -> usize {
    filter_cost(filter) * FILTER_BYTES
}

impl Sessions {
    pub fn wills(&self) -> &HashMap<String, LastWill> {
        &self.wills
    }

    /// Bytes that filters and wills keep in memory, nearly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// As the store has it, without its filters.
    pub(super) fn load(&mut self, client: String, session: Session) {
        self.all.insert(client, session);
    }

    /// The session itself is there already.
    pub(super) fn load_filters(&mut self, client: &str, filters: BTreeMap<String, Subscription>) {
        if let Some(s) = self.all.get_mut(client) {
            self.bytes += filters.keys().map(|f| bytes_of_filter(f)).sum::<usize>();
            s.filters = Arc::new(filters);
        }
    }

    pub(super) fn set_will(&mut self, client: String, will: LastWill) {
        self.bytes += will.bytes();
        if let Some(old) = self.wills.insert(client, will) {
            self.bytes -= old.bytes();
        }
    }

    /// The node has started: whoever was connected is not any more.
    pub(super) fn nobody_is_there(&mut self, pos: Pos, now_us: i64, dirty: &mut HashSet<Key>) {
        for (client, s) in self.all.iter_mut().filter(|(_, s)| s.connected) {
            (s.connected, s.left_us, s.unsure) = (false, now_us, pos);
            dirty.insert(Key::Session(client.clone()));
        }
    }

    /// Folds in a note of a session or a will; others change nothing here.
    pub(super) fn apply(&mut self, pos: Pos, committed_us: i64, note: Note, dirty: &mut HashSet<Key>) {
        match note {
            Note::SessionLeft { client, expiry_s, given, unsure } => {
                if let Some(s) = self.known(client, dirty) {
                    (s.connected, s.left_us, s.expiry_s) = (false, committed_us, expiry_s);
                    (s.given, s.unsure) = (given, unsure);
                }
            }
            Note::SessionAcked { client, upto, beyond, releasing, begun, apart } => {
                if let Some(s) = self.known(client, dirty) {
                    s.upto = s.upto.max(upto);
                    (s.beyond, s.releasing, s.begun, s.apart) = (beyond, releasing, begun, apart);
                }
            }
            Note::BrokerHas { client, has } => {
                if let Some(s) = self.known(client, dirty) {
                    s.broker_has = has;
                }
            }
            Note::LooseIds { client, ids } => {
                if let Some(s) = self.known(client, dirty) {
                    s.loose = ids;
                }
            }
            Note::Qos2Held { client, id, print } => {
                if let Some(s) = self.known(client, dirty) {
                    s.held.retain(|(held, _)| *held != id);
                    s.held.push((id, print));
                }
            }
            Note::Qos2Released { client, id } => {
                if let Some(s) = self.known(client, dirty) {
                    s.held.retain(|(held, _)| *held != id);
                }
            }
            Note::SessionOpened { client, user, version, expiry_s, clean } => {
                if clean {
                    self.end(&client);
                    dirty.insert(Key::Filters(client.clone()));
                }
                let s = self.all.entry(client.clone()).or_insert_with(|| Session { upto: pos, ..Session::default() });
                (s.user, s.version, s.expiry_s, s.connected) = (user, version, expiry_s, true);
                dirty.insert(Key::Session(client));
            }
            Note::SessionEnded { client, .. } => {
                self.end(&client);
                dirty.extend([Key::Filters(client.clone()), Key::Session(client)]);
            }
            Note::Subscribed { client, filter, options, id, since } => {
                if let Some(s) = self.all.get_mut(&client) {
                    let bytes = bytes_of_filter(&filter);
                    if Arc::make_mut(&mut s.filters).insert(filter, Subscription { options, id, since }).is_none() {
                        self.bytes += bytes;
                    }
                    dirty.insert(Key::Filters(client));
                }
            }
            Note::Unsubscribed { client, filter } => {
                if let Some(s) = self.all.get_mut(&client) {
                    if Arc::make_mut(&mut s.filters).remove(&filter).is_some() {
                        self.bytes -= bytes_of_filter(&filter);
                    }
                    dirty.insert(Key::Filters(client));
                }
            }
            Note::WillSet { client, will } => {
                self.set_will(client.clone(), will);
                dirty.insert(Key::Will(client));
            }
            Note::WillEnded { client } => {
                if let Some(old) = self.wills.remove(&client) {
                    self.bytes -= old.bytes();
                }
                dirty.insert(Key::Will(client));
            }
            _ => {}
        }
    }

    /// The session, if there is one, which changes now.
    fn known(&mut self, client: String, dirty: &mut HashSet<Key>) -> Option<&mut Session> {
        let s = self.all.get_mut(&client)?;
        dirty.insert(Key::Session(client));
        Some(s)
    }

    fn end(&mut self, client: &str) {
        if let Some(s) = self.all.remove(client) {
            self.bytes -= s.filters.keys().map(|f| bytes_of_filter(f)).sum::<usize>();
        }
    }
}

#[cfg(test)]
impl Sessions {
    /// As if its client had left so much earlier.
    pub fn left_earlier(&mut self, client: &str, by: std::time::Duration) {
        let s = self.all.get_mut(client).expect("the session is there");
        assert!(!s.connected && s.left_us > 0);
        s.left_us -= by.as_micros() as i64;
    }
}

#[cfg(test)]
impl super::State {
    /// As a start does it, but that it writes no records: what was jotted counts, and nobody is there.
    pub fn start_again(&mut self, jotted: Vec<Note>, now_us: i64) {
        for note in jotted {
            self.sessions.apply(self.applied, now_us, note, &mut self.dirty);
        }
        self.sessions.nobody_is_there(self.applied, now_us, &mut self.dirty);
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::policy;
    use citybrain_shared::record::Header;
    use citybrain_shared::{Boot, Inc};

    fn apply(state: &mut State, committed_us: i64, note: &Note) {
        let draft = note.draft();
        let (header, payload) = draft.parts();
        state.apply(state.applied.next(), &Header { committed_us, ..header }, payload);
    }

    #[test]
    fn an_acknowledgement_rewrites_no_filter_and_a_load_finds_both() {
        let mut state = State::default();
        let client = || "app".to_owned();
        let opened =
            Note::SessionOpened { client: client(), user: String::new(), version: 5, expiry_s: 60, clean: true };
        apply(&mut state, 1, &opened);
        for n in 0..100 {
            let filter = format!("f/{n}");
            apply(&mut state, 1, &Note::Subscribed { client: client(), filter, options: 1, id: None, since: Pos(1) });
        }
        let mut rows: BTreeMap<_, _> = state.take_rows().into_iter().collect();
        apply(&mut state, 1, &Note::settled("app", Pos(3), Vec::new()));
        let changed = state.take_rows();
        assert!(changed.iter().map(|(_, v)| v.as_ref().map_or(0, Vec::len)).sum::<usize>() < 1000, "{changed:?}");
        rows.extend(changed);
        let load = |rows: &BTreeMap<Vec<u8>, Option<Vec<u8>>>, applied| {
            let rows = rows.iter().filter_map(|(k, v)| Some((k.clone(), v.clone()?))).collect();
            State::load(rows, applied, Box::new(policy::None)).unwrap()
        };
        assert_eq!(load(&rows, state.applied).sessions, state.sessions);
        // Neither a clean start nor an end leaves any behind.
        for note in [opened, Note::SessionEnded { client: client(), why: String::new() }] {
            apply(&mut state, 1, &note);
            rows.extend(state.take_rows());
            assert_eq!(rows[&b"fapp"[..]], None);
            assert_eq!(load(&rows, state.applied).sessions, state.sessions);
        }
    }

    #[test]
    fn a_start_whose_clock_is_not_set_yet_makes_no_session_old() {
        let mut state = State::default();
        let opened =
            Note::SessionOpened { client: "app".into(), user: String::new(), version: 5, expiry_s: 60, clean: true };
        apply(&mut state, 5_000_000, &opened);
        let rows: Vec<_> = state.take_rows().into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
        let mut state = State::load(rows, state.applied, Box::new(policy::None)).unwrap();
        apply(&mut state, 1_000, &Note::Booted { inc: Inc(1), boot: Boot::default() });
        let session = &state.sessions["app"];
        assert_eq!((session.connected, session.left_us), (false, 5_000_000));
        apply(&mut state, 9_000_000, &opened);
        apply(&mut state, 9_500_000, &Note::Booted { inc: Inc(1), boot: Boot::default() });
        assert_eq!(state.sessions["app"].left_us, 9_500_000);
    }
}
