//! The state as rows of a key-value store, and back.
//!
//! A key is a letter and a name; a value is JSON, except for retained messages, whose payload is
//! bytes behind a JSON line.

use super::{Counters, Directive, Gone, Known, Loss, Me, Peer, Retained, State, Stream, Subscription};
use crate::policy::Policy;
use bytes::Bytes;
use citybrain_shared::{Address, LogId, Pos};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What changed since the rows were last taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Me,
    Counters,
    DeadLetters,
    Losses,
    Peer(Address),
    Session(String),
    /// Of a session.
    Filters(String),
    Will(String),
    Retained(String),
    Known(Address),
    Retired(Address),
    Directive(String),
    Stream(Address, LogId),
}

impl Key {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Key::Me => b"m".to_vec(),
            Key::Counters => b"c".to_vec(),
            Key::DeadLetters => b"q".to_vec(),
            Key::Losses => b"l".to_vec(),
            Key::Peer(a) => format!("p{a}").into_bytes(),
            Key::Session(id) => format!("s{id}").into_bytes(),
            Key::Filters(id) => format!("f{id}").into_bytes(),
            Key::Will(id) => format!("w{id}").into_bytes(),
            Key::Retained(topic) => format!("r{topic}").into_bytes(),
            Key::Known(a) => format!("k{a}").into_bytes(),
            Key::Retired(a) => format!("g{a}").into_bytes(),
            Key::Directive(id) => format!("d{id}").into_bytes(),
            Key::Stream(a, log) => format!("t{a} {log}").into_bytes(),
        }
    }
}

/// The form of the rows, the policy's too, and of the notes in the log. Raised whenever one of them changes
/// so that a build from before would read less in it, or one from after would in what is there.
pub(crate) const FORMAT: u32 = 14;

/// Folders from before it was counted do not say it.
fn first_format() -> u32 {
    1
}

#[derive(Serialize, Deserialize)]
struct MeRow {
    #[serde(default = "first_format")]
    format: u32,
    me: Me,
    address: Option<Address>,
    #[serde(default)]
    last_us: i64,
}

#[derive(Serialize, Deserialize)]
struct RetainedRow {
    pos: Pos,
    qos: u8,
    committed_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heard: Option<u64>,
    door_bytes: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stored row that does not read.
    #[error("the state's row `{key}` does not read: {reason}")]
    Row { key: String, reason: String },
    #[error(
        "the data folder is of format {found}, and this build reads format {FORMAT}: run the build that wrote it, or begin with another folder"
    )]
    Format { found: u32 },
}

impl State {
    /// The rows that changed since the last call (`None`: removed), to be stored together with
    /// [`State::applied`].
    pub fn take_rows(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut dirty = std::mem::take(&mut self.dirty);
        // With it goes the time of the newest record.
        dirty.insert(Key::Me);
        let mut rows: Vec<_> = dirty.into_iter().map(|key| (key.bytes(), self.value(&key))).collect();
        let policy = self.policy.take_rows().into_iter();
        rows.extend(policy.map(|(key, value)| ([b"x", key.as_slice()].concat(), value)));
        rows
    }

    fn value(&self, key: &Key) -> Option<Vec<u8>> {
        fn json(v: &impl Serialize) -> Vec<u8> {
            serde_json::to_vec(v).expect("state has only string keys")
        }
        match key {
            Key::Me => Some(json(&MeRow {
                format: FORMAT,
                me: self.me.clone(),
                address: self.address.clone(),
                last_us: self.last_us,
            })),
            Key::Counters => Some(json(&self.counters)),
            Key::DeadLetters => Some(json(&self.dead_letters.iter().collect::<Vec<_>>())),
            Key::Losses => Some(json(&self.losses)),
            Key::Peer(a) => self.peers.get(a).map(json),
            Key::Session(id) => self.sessions.get(id).map(json),
            Key::Filters(id) => self.sessions.get(id).filter(|s| !s.filters.is_empty()).map(|s| json(&*s.filters)),
            Key::Will(id) => self.sessions.wills().get(id).map(json),
            Key::Known(a) => self.registry.get(a).map(json),
            Key::Retired(a) => self.retired.get(a).map(json),
            Key::Directive(id) => self.directives.get(id).map(json),
            Key::Stream(a, log) => self.streams.get(&(a.clone(), *log)).map(json),
            Key::Retained(topic) => self.retained.get(topic).map(|r| {
                let mut out = json(&RetainedRow {
                    pos: r.pos,
                    qos: r.qos,
                    committed_us: r.committed_us,
                    heard: r.heard,
                    door_bytes: r.door.len(),
                });
                out.push(b'\n');
                out.extend_from_slice(&r.door);
                out.extend_from_slice(&r.payload);
                out
            }),
        }
    }

    /// The state that the rows of a store make, as of `applied`.
    ///
    /// # Errors
    /// The first row that does not read: the store is then to be rebuilt from snapshot and log. Or that all
    /// are of another build's format: that helps nothing then, the log's notes are as old.
    pub fn load(rows: Vec<(Vec<u8>, Vec<u8>)>, applied: Pos, policy: Box<dyn Policy>) -> Result<State, Error> {
        let mut state = State::with(policy);
        state.applied = applied;
        // Before any other row can be taken for damaged.
        let me =
            rows.iter().find(|(key, _)| key == b"m").and_then(|(_, row)| serde_json::from_slice::<MeRow>(row).ok());
        if let Some(MeRow { format: found, .. }) = me.filter(|row| row.format != FORMAT) {
            return Err(Error::Format { found });
        }
        let mut filters = Vec::new();
        for (key, value) in rows {
            if let Some(key) = key.strip_prefix(b"x") {
                let name = || format!("x{}", String::from_utf8_lossy(key));
                state.policy.load_row(key, &value).map_err(|reason| Error::Row { key: name(), reason })?;
                continue;
            }
            let name = String::from_utf8_lossy(&key).into_owned();
            if let Some(client) = name.strip_prefix('f') {
                // Its session may come behind it.
                let row: BTreeMap<String, Subscription> = serde_json::from_slice(&value)
                    .map_err(|e| Error::Row { key: name.clone(), reason: e.to_string() })?;
                filters.push((client.to_owned(), row));
                continue;
            }
            state.take_row(&name, &value).map_err(|reason| Error::Row { key: name, reason })?;
        }
        for (client, row) in filters {
            state.sessions.load_filters(&client, row);
        }
        Ok(state)
    }

    fn take_row(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        fn json<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
            serde_json::from_slice(value).map_err(|e| e.to_string())
        }
        let mut chars = key.chars();
        let letter = chars.next().ok_or("it has no key")?;
        let name = chars.as_str();
        let address = || Address::parse(name).map_err(|e| e.to_string());
        match letter {
            'm' => {
                let row: MeRow = json(value)?;
                (self.me, self.address, self.last_us) = (row.me, row.address, row.last_us);
            }
            'c' => self.counters = json::<Counters>(value)?,
            'q' => self.dead_letters = json::<Vec<(Pos, String)>>(value)?.into_iter().collect::<BTreeMap<_, _>>(),
            'l' => self.losses = json::<Vec<Loss>>(value)?,
            'p' => drop(self.peers.insert(address()?, json::<Peer>(value)?)),
            's' => self.sessions.load(name.to_owned(), json(value)?),
            'w' => self.sessions.set_will(name.to_owned(), json(value)?),
            'k' => drop(self.registry.insert(address()?, json::<Known>(value)?)),
            'g' => drop(self.retired.insert(address()?, json::<Gone>(value)?)),
            'd' => drop(self.directives.insert(name.to_owned(), json::<Directive>(value)?, usize::MAX)),
            't' => {
                let (a, log) = name.split_once(' ').ok_or("its key has no log id")?;
                let a = Address::parse(a).map_err(|e| e.to_string())?;
                let log: LogId = log.parse().map_err(|_| "its key's log id does not read")?;
                *self.stream((a, log)) = json::<Stream>(value)?;
            }
            'r' => {
                let line = value.iter().position(|b| *b == b'\n').ok_or("it has no first line")?;
                let row: RetainedRow = json(&value[..line])?;
                let rest = &value[line + 1..];
                let (door, payload) = rest.split_at_checked(row.door_bytes).ok_or("it is cut short")?;
                let kept = Retained {
                    pos: row.pos,
                    qos: row.qos,
                    payload: Bytes::copy_from_slice(payload),
                    door: Bytes::copy_from_slice(door),
                    committed_us: row.committed_us,
                    heard: row.heard,
                };
                self.keep_retained(name, kept);
            }
            other => return Err(format!("kind `{other}` is not known to this build")),
        }
        Ok(())
    }
}
