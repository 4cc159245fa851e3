//! What people did to a node, as events of its log: type `city.brain.operator`, never leaving it.
//!
//! Without a tokens file `who` is what the asking side says of itself, and the record says so.
//! What is done to a stopped node's folder is left in a file there ([`leave`]) and recorded at the
//! next start.

use citybrain_shared::Address;
use citybrain_shared::record::{Draft, Header, Kind, event_key};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// Type of these events. Nobody outside can send one.
pub const TYPE: &str = "city.brain.operator";

/// Longer texts are cut: they end in a record.
const TEXT_BYTES_MAX: usize = 2048;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// `user@host`, as the asking side said, or the name of a token with that behind it.
    pub who: String,
    /// `dlq drop`, `log-level`, `store restore`, …
    pub what: String,
    pub detail: String,
    /// RFC 3339, by the clock of whoever recorded it.
    pub when: String,
    /// Where the request came from: `127.0.0.1:41234`, `this machine`, or that and by which node above.
    pub from: String,
    /// `claimed`: nobody checked it. `token`: the name before it is of a token that was given.
    pub who_is: String,
}

impl Act {
    pub fn claimed(who: &str, what: &str, detail: &str, when: String, from: &str) -> Act {
        let who = if who.is_empty() { "unknown" } else { who };
        Act { who: cut(who), who_is: "claimed".into(), what: cut(what), detail: cut(detail), when, from: cut(from) }
    }

    /// As [`Act::claimed`], by somebody who was known; `who_is` says by what.
    pub fn known(who_is: &str, act: Act) -> Act {
        Act { who_is: cut(who_is), ..act }
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// In this order, so that a table's first characters say who did what.
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    time: &'a str,
    data: &'a Act,
}

/// The event that records it at `me`.
pub fn draft(me: &Address, act: &Act) -> Draft {
    named(me, act, &uuid::Uuid::now_v7().to_string())
}

fn named(me: &Address, act: &Act, id: &str) -> Draft {
    let source = format!("/{me}");
    let event = Event { specversion: "1.0", id, source: &source, kind: TYPE, time: &act.when, data: act };
    let mut header = Header::local(Kind::Event, TYPE);
    header.key = event_key(&source, id);
    let bytes = serde_json::to_vec(&event).expect("its keys are strings");
    Draft::new(&header, &bytes).expect("its text fields are constants")
}

fn path(dir: &Path) -> PathBuf {
    dir.join("operator.ndjson")
}

/// Leaves word in a stopped node's folder; the next start records it.
///
/// # Errors
/// When the file cannot be written and synced.
pub fn leave(dir: &Path, act: &Act) -> io::Result<()> {
    let mut line = serde_json::to_vec(act)?;
    line.push(b'\n');
    let mut file = File::options().create(true).append(true).open(path(dir))?;
    file.write_all(&line)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

/// The events that record what was left. Each is known again if it is read twice: the file may still be there, or
/// be there again after a power cut, when all is recorded. A line that does not read is told as such, not dropped.
pub(crate) fn left(dir: &Path, me: &Address) -> Vec<Draft> {
    let bytes = fs::read(path(dir)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let draft = |(number, line): (usize, &str)| {
        let id = uuid::Uuid::from_u128(xxh3_128(format!("{number} {line}").as_bytes())).to_string();
        named(me, &read(line), &id)
    };
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(draft).collect()
}

fn read(line: &str) -> Act {
    serde_json::from_str(line).unwrap_or_else(|_| Act {
        what: "unreadable".into(),
        detail: cut(line),
        ..Act::default()
    })
}

pub(crate) fn forget(dir: &Path) -> io::Result<()> {
    fs::remove_file(path(dir))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn what_was_left_reads_back_and_is_cut_to_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let act = Act::claimed("root@gate", "store restore", &"温".repeat(2000), "2026-01-01T00:00:00Z".into(), "x");
        assert!(act.detail.len() <= TEXT_BYTES_MAX && act.detail.chars().all(|c| c == '温'));
        leave(dir.path(), &act).unwrap();
        fs::write(path(dir.path()), [&fs::read(path(dir.path())).unwrap()[..], b"half a \xff li"].concat()).unwrap();
        let me = Address::parse("c").unwrap();
        let told = || -> Vec<Act> {
            let data = |draft: &Draft| serde_json::from_slice::<Value>(draft.payload()).unwrap()["data"].take();
            left(dir.path(), &me).iter().map(|draft| serde_json::from_value(data(draft)).unwrap()).collect()
        };
        let acts = told();
        assert_eq!(acts[0], act);
        assert_eq!((acts.len(), acts[1].what.as_str()), (2, "unreadable"));
        forget(dir.path()).unwrap();
        assert_eq!(told(), []);
    }
}
