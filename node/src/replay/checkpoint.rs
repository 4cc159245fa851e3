//! How far a replay has come: a small file, replaced atomically.

use crate::replace::{Rights, replace};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const SCHEMA: &str = "citybrain.replay-state/1";
/// Bytes at a file's beginning that tell it from others. It may grow behind them.
const HEAD_BYTES: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the state file `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is not the state of a replay: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error("`{path}` is the state of another replay: {what}")]
    Other { path: PathBuf, what: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    schema: String,
    /// Of the input's first bytes.
    head_bytes: u64,
    head_xxh3: String,
    /// Where it goes to.
    pub target: String,
    /// Every row up to this one is settled: acknowledged, or counted as bad.
    pub row: u64,
}

impl Checkpoint {
    /// The state of a replay of `input` that has not begun.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn begin(input: &Path, target: &str) -> Result<Checkpoint, Error> {
        let (head_bytes, hash) = head(input, HEAD_BYTES)?;
        Ok(Checkpoint {
            schema: SCHEMA.into(),
            head_bytes,
            head_xxh3: format!("{hash:016x}"),
            target: target.to_owned(),
            row: 0,
        })
    }

    /// The state in the file at `path`, if there is one and it is about this input and target.
    ///
    /// # Errors
    /// [`Error::Other`] when it is about another file or target; silently beginning again, or
    /// skipping rows that went elsewhere, would both be wrong.
    pub fn load(path: &Path, input: &Path, target: &str) -> Result<Option<Checkpoint>, Error> {
        let Some(saved) = read::<Checkpoint>(path)? else { return Ok(None) };
        if saved.schema != SCHEMA {
            let reason = format!("its schema is `{}`", saved.schema);
            return Err(Error::Damaged { path: path.to_owned(), reason });
        }
        let other = |what: String| Err(Error::Other { path: path.to_owned(), what });
        let (bytes, hash) = head(input, saved.head_bytes)?;
        if bytes != saved.head_bytes || format!("{hash:016x}") != saved.head_xxh3 {
            return other("the input began with other bytes".into());
        }
        if saved.target != target {
            return other(format!("it went to {}, not to {target}", saved.target));
        }
        Ok(Some(saved))
    }

    /// Replaces the file at `path`: after a crash it holds the old state or the new one.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        write(path, self)
    }
}

/// What an earlier run left in its state file, if there is one.
///
/// # Errors
/// [`Error::Read`], [`Error::Damaged`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        Ok(text) => text,
    };
    let damaged = |e: serde_json::Error| Error::Damaged { path: path.to_owned(), reason: e.to_string() };
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

/// Replaces a state file: after a crash it holds the old state or the new one.
///
/// # Errors
/// [`Error::Write`].
pub fn write(path: &Path, state: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(state).expect("a state has only text keys");
    replace(path, &bytes, Rights::Kept { new: 0o644 }).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn head(input: &Path, bytes: u64) -> Result<(u64, u64), Error> {
    let mut head = Vec::new();
    File::open(input)
        .and_then(|file| file.take(bytes).read_to_end(&mut head))
        .map_err(|source| Error::Read { path: input.to_owned(), source })?;
    Ok((head.len() as u64, xxh3_64(&head)))
}

/// Which rows are settled, when they may settle in any order.
#[derive(Debug, Default)]
pub struct Settled {
    /// Rows after `upto`, in order, and whether each is settled.
    waiting: VecDeque<(u64, bool)>,
    upto: u64,
}

impl Settled {
    pub fn after(row: u64) -> Settled {
        Settled { waiting: VecDeque::new(), upto: row }
    }

    /// Rows begin in the order of the file.
    pub fn begin(&mut self, row: u64) {
        self.waiting.push_back((row, false));
    }

    pub fn settle(&mut self, row: u64) {
        if let Ok(at) = self.waiting.binary_search_by_key(&row, |(row, _)| *row) {
            self.waiting[at].1 = true;
        }
        while let Some((row, true)) = self.waiting.front() {
            self.upto = *row;
            self.waiting.pop_front();
        }
    }

    /// Everything up to this row is settled.
    pub fn upto(&self) -> u64 {
        self.upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_goes_on_where_it_was_even_if_the_file_grew_and_not_with_another_file_or_target() {
        let dir = tempfile::tempdir().unwrap();
        let (input, state) = (dir.path().join("in.csv"), dir.path().join("in.csv.state"));
        fs::write(&input, "a\n1\n").unwrap();
        assert_eq!(Checkpoint::load(&state, &input, "t").unwrap(), None);
        let mut checkpoint = Checkpoint::begin(&input, "t").unwrap();
        checkpoint.row = 1;
        checkpoint.save(&state).unwrap();
        fs::write(&input, "a\n1\n2\n").unwrap();
        assert_eq!(Checkpoint::load(&state, &input, "t").unwrap(), Some(checkpoint));
        assert!(matches!(Checkpoint::load(&state, &input, "u"), Err(Error::Other { .. })));
        fs::write(&input, "b\n1\n2\n").unwrap();
        assert!(matches!(Checkpoint::load(&state, &input, "t"), Err(Error::Other { .. })));
        fs::write(&state, "{").unwrap();
        assert!(matches!(Checkpoint::load(&state, &input, "t"), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_row_is_behind_us_only_when_all_before_it_are() {
        let mut settled = Settled::after(10);
        for row in [11, 12, 14] {
            settled.begin(row);
        }
        settled.settle(12);
        assert_eq!(settled.upto(), 10);
        settled.settle(11);
        assert_eq!(settled.upto(), 12);
        settled.settle(99);
        settled.settle(14);
        assert_eq!(settled.upto(), 14);
    }
}
