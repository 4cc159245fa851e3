//! How far durable sessions have acknowledged, jotted down the moment they do.
//!
//! A session's cursor is a note in the log, and a note waits for the commit that is being synced.
//! What a client acknowledges in that time would be sent to it again after a kill. A jot is one
//! write of 20 bytes beside the log, without a sync: it survives a kill, not a power cut. The next
//! start makes a note of what is jotted and not noted; from then on the log alone counts.
//!
//! A jot is a help and never needed: without it a message is repeated, as QoS 1 allows. So it is
//! taken only where it is certain: of this incarnation and of the boot before, whole, and of
//! records that the log has.

use crate::note::Note;
use crate::state::{Me, Session};
use citybrain_shared::Pos;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const FILE: &str = "jots";

/// Places in the file. Sessions that meet in one overwrite each other, so that one of them is
/// repeated to; 4,096 sessions at work are more than a node on two cores serves at a time.
const SLOTS: u64 = 4096;

/// Key, position, checksum; 32, so that none lies across two sectors.
const SLOT_BYTES: usize = 32;

/// The file of jots. Written by every connection, each in its session's slot.
#[derive(Debug, Default)]
pub(crate) struct Jots {
    /// `None`: the folder is only read, or the file could not be made, on a full disk. Then nothing
    /// is jotted.
    file: Option<File>,
    seed: u64,
}

impl Jots {
    /// Opens or makes the file in a node's data folder, for the jots of this boot.
    pub(crate) fn open(dir: &Path, me: &Me) -> Jots {
        let file = open(dir)
            .inspect_err(|error| {
                tracing::warn!(%error, "No jots of what subscribers acknowledge: after a kill some messages are repeated.");
            })
            .ok();
        Jots { file, seed: seed(me) }
    }

    /// The client has acknowledged everything up to `upto`, which is durable.
    pub(crate) fn put(&self, client: &str, upto: Pos) {
        let Some(file) = &self.file else { return };
        let key = xxh3_64_with_seed(client.as_bytes(), self.seed);
        // A jot that could not be written is one that is not there.
        let _ = file.write_all_at(&encode(key, upto), offset(key));
    }

    /// The notes that the process before this one had no time to make.
    pub(crate) fn left<'a>(
        dir: &Path,
        before: &Me,
        last: Pos,
        sessions: impl Iterator<Item = (&'a String, &'a Session)>,
    ) -> Vec<Note> {
        let Ok(bytes) = std::fs::read(dir.join(FILE)) else { return Vec::new() };
        let seed = seed(before);
        let jotted = |client: &str| {
            let key = xxh3_64_with_seed(client.as_bytes(), seed);
            decode(key, bytes.get(offset(key) as usize..)?)
        };
        sessions.filter_map(|(client, s)| note(client, s, jotted(client)?, last)).collect()
    }
}

/// What the session's cursor becomes by a jot; `None`: it says nothing new, or what cannot be.
pub(crate) fn note(client: &str, s: &Session, upto: Pos, last: Pos) -> Option<Note> {
    (s.upto < upto && upto <= last).then(|| Note::SessionAcked {
        client: client.to_owned(),
        upto,
        beyond: s.beyond.iter().copied().filter(|pos| *pos > upto).collect(),
        releasing: s.releasing.iter().copied().filter(|(pos, _)| *pos > upto).collect(),
        begun: s.begun.iter().copied().filter(|(pos, ..)| *pos > upto).collect(),
        apart: s.apart.clone(),
    })
}

/// Jots of another boot, or of another node's folder, have other keys.
fn seed(me: &Me) -> u64 {
    let boot = [me.boot.counter.to_le_bytes(), me.boot.nonce.to_le_bytes()].concat();
    xxh3_64_with_seed(&[me.inc.0.to_le_bytes().as_slice(), &boot].concat(), 0)
}

fn offset(key: u64) -> u64 {
    key % SLOTS * SLOT_BYTES as u64
}

fn encode(key: u64, upto: Pos) -> [u8; 20] {
    let mut slot = [0; 20];
    slot[..8].copy_from_slice(&key.to_le_bytes());
    slot[8..16].copy_from_slice(&upto.0.to_le_bytes());
    let crc = crc32c::crc32c(&slot[..16]);
    slot[16..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(key: u64, slot: &[u8]) -> Option<Pos> {
    let upto = u64::from_le_bytes(slot.get(8..16)?.try_into().ok()?);
    (slot.get(..20)? == encode(key, Pos(upto))).then_some(Pos(upto))
}

/// Written in full at once, so that a disk that fills up later takes no jot away.
fn open(dir: &Path) -> std::io::Result<File> {
    let path = dir.join(FILE);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(&path)?;
    let bytes = SLOTS * SLOT_BYTES as u64;
    if file.metadata()?.len() != bytes {
        file.set_len(0)?;
        file.write_all_at(&vec![0; bytes as usize], 0)?;
    }
    Ok(file)
}
