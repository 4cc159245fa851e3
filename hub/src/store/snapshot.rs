//! Snapshots of the state's rows: `snapshots/POSITION.snap`.
//!
//! Magic (8), version (4), position (8), rows (8), then each row as key length (4), value length (4),
//! key, value; at the end the crc32c (4) of all before. Little-endian.

use super::{Error, Rows, take};
use crate::files::at;
use citybrain_shared::Pos;
use citybrain_shared::words::with_causes;
use crc32c::{crc32c, crc32c_append};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"cbrainsn";
const VERSION: u32 = 1;

pub(super) fn path_of(dir: &Path, pos: Pos) -> PathBuf {
    dir.join(format!("{:020}.snap", pos.0))
}

/// Newest first; none if the folder cannot be read.
pub(super) fn list(dir: &Path) -> Vec<(Pos, PathBuf)> {
    let mut all: Vec<(Pos, PathBuf)> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|item| {
            let path = item.ok()?.path();
            let pos = path.file_stem()?.to_str()?.parse().ok()?;
            (path.extension()? == "snap").then_some((Pos(pos), path))
        })
        .collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all
}

/// Removes what a kill has left of snapshots that were being written: each is as large as the state.
pub(super) fn tidy(dir: &Path) {
    for item in fs::read_dir(dir).into_iter().flatten().flatten() {
        if item.path().extension().is_some_and(|e| e == "tmp") {
            // What stays is in the way of nothing but room.
            let _ = fs::remove_file(item.path());
        }
    }
}

/// The rows of the newest snapshot that is good.
pub(super) fn newest_good(dir: &Path) -> Option<(Pos, Rows)> {
    list(dir).into_iter().find_map(|(_, path)| match read(&path) {
        Ok(good) => Some(good),
        Err(error) => {
            tracing::error!(error = %with_causes(&error), "A snapshot of the state is damaged.");
            None
        }
    })
}

/// A snapshot file that is being written.
pub(super) struct Writing<'a> {
    out: BufWriter<&'a File>,
    crc: u32,
    bytes: u64,
}

impl Writing<'_> {
    pub(super) fn begin(file: &File, upto: Pos, rows: u64) -> io::Result<Writing<'_>> {
        let out = BufWriter::with_capacity(64 * 1024, file);
        let mut file = Writing { out, crc: 0, bytes: 0 };
        file.put(&MAGIC)?;
        file.put(&VERSION.to_le_bytes())?;
        file.put(&upto.0.to_le_bytes())?;
        file.put(&rows.to_le_bytes())?;
        Ok(file)
    }

    fn put(&mut self, part: &[u8]) -> io::Result<()> {
        self.crc = crc32c_append(self.crc, part);
        self.bytes += part.len() as u64;
        self.out.write_all(part)
    }

    pub(super) fn put_row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.put(&(key.len() as u32).to_le_bytes())?;
        self.put(&(value.len() as u32).to_le_bytes())?;
        self.put(key)?;
        self.put(value)
    }

    /// All of it is with the kernel then; returns its size.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.put(&self.crc.to_le_bytes())?;
        self.out.flush()?;
        Ok(self.bytes)
    }
}

/// Position and rows of a snapshot file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Snapshot`] when it is damaged.
pub(super) fn read(path: &Path) -> Result<(Pos, Rows), Error> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| BufReader::new(file).read_to_end(&mut bytes)).map_err(at(path))?;
    decode(&bytes)
        .ok_or_else(|| Error::Snapshot { path: path.to_owned(), reason: "its checksum does not hold".to_owned() })
}

/// Is a snapshot file whole? Its checksum and head are looked at; memory: a buffer.
///
/// # Errors
/// As [`read`].
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let io = at(path);
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let bad = || Error::Snapshot { path: path.to_owned(), reason: "its checksum does not hold".to_owned() };
    let mut body = BufReader::with_capacity(64 * 1024, file).take(len.checked_sub(4).ok_or_else(bad)?);
    let (mut crc, mut head) = (0, [0; 12]);
    body.read_exact(&mut head).map_err(io)?;
    crc = crc32c_append(crc, &head);
    loop {
        let bytes = body.fill_buf().map_err(io)?;
        if bytes.is_empty() {
            break;
        }
        crc = crc32c_append(crc, bytes);
        let n = bytes.len();
        body.consume(n);
    }
    let mut stored = [0; 4];
    body.into_inner().read_exact(&mut stored).map_err(io)?;
    let is_ours = head[..8] == MAGIC && head[8..] == VERSION.to_le_bytes();
    if is_ours && crc == u32::from_le_bytes(stored) { Ok(()) } else { Err(bad()) }
}

fn decode(bytes: &[u8]) -> Option<(Pos, Rows)> {
    let (mut rest, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c(rest) != u32::from_le_bytes(*crc)
        || take(&mut rest)? != MAGIC
        || u32::from_le_bytes(take(&mut rest)?) != VERSION
    {
        return None;
    }
    let upto = Pos(u64::from_le_bytes(take(&mut rest)?));
    let n = u64::from_le_bytes(take(&mut rest)?);
    let mut rows = Vec::new();
    for _ in 0..n {
        let key_len = u32::from_le_bytes(take(&mut rest)?) as usize;
        let len = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (key, tail) = rest.split_at_checked(key_len)?;
        let (value, tail) = tail.split_at_checked(len)?;
        rows.push((key.to_vec(), value.to_vec()));
        rest = tail;
    }
    rows.sort_unstable();
    rest.is_empty().then_some((upto, rows))
}
