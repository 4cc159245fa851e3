//! The state's rows in sled, in the folder `state/`. The only file that names sled.
//!
//! One tree, keys with a prefix of one byte:
//!
//! | prefix | key | value |
//! |---|---|---|
//! | `m` | | position, rows, sum of the rows' hashes, staged pieces, crc32c |
//! | `r` | the row's (long ones hashed) | key is long (1), hash (8), length (4), the first bytes of the row |
//! | `p` | the row's, number (4) | further bytes of a row |
//! | `s` | number (4) | a piece of a list of changes that is too long for one batch |
//!
//! Little-endian but for numbers in keys.
//!
//! A sled batch is atomic, but it pins memory, so it is kept small. More changes than fit are
//! first staged: their list goes in piece by piece; one small batch makes it valid; then it is
//! carried out batch by batch, again after a crash; one more small batch forgets it.

use super::{Error, Row, Rows, take};
use crate::files::{self, at};
use citybrain_shared::Pos;
use crc32c::crc32c;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

/// Changes in one sled batch. A batch pins memory that grows out of proportion with its size.
const BATCH_ROWS: usize = 256;
/// A leaf of sled's tree holds 16 values, and must stay below a quarter of sled's segment.
const PIECE_BYTES: usize = 4096;
/// sled's segment, bytes: also the size of its write buffer, of which two may exist.
const SEGMENT_BYTES: usize = 512 * 1024;
/// Longer keys are shortened by a hash: 256 keys lie in an inner node of sled's tree.
const KEY_BYTES: usize = 192;
/// sled lets go of its lock a moment after it was dropped. One second of tries: whoever has it longer is another
/// process.
const LOCK_TRIES: u32 = 50;
const LOCK_TRY_EVERY: Duration = Duration::from_millis(20);
const META: &[u8] = b"m";

/// The rows, checked when they were opened.
pub(super) struct Table {
    path: PathBuf,
    db: sled::Db,
    /// sled's own file, once more, to sync it.
    file: File,
    meta: Meta,
}

/// Why a table does not open.
pub(super) enum Fault {
    /// The disk or the rights are in the way: nothing is known to be wrong with the data.
    Error(Error),
    /// As the end of a sentence that begins with "because".
    Damaged(String),
}

impl Table {
    /// Opens the folder `path`, or begins it, and reads all rows. `cache_bytes`: sled's cache.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<(Table, Rows), Fault> {
        let mut tries = 0;
        loop {
            match Table::open_once(path, cache_bytes) {
                // sled lets go of its lock a moment after it was dropped.
                Err(Fault::Error(Error::Locked { .. })) if tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_TRY_EVERY);
                }
                result => return result,
            }
        }
    }

    fn open_once(path: &Path, cache_bytes: u64) -> Result<(Table, Rows), Fault> {
        // A thread of its own: a panic deep in sled leaves nothing of ours half done.
        let opened = std::thread::scope(|scope| scope.spawn(|| quietly(|| open_sled(path, cache_bytes))).join());
        let (db, meta, rows) = match opened {
            Ok(Ok(result)) => result?,
            Ok(Err(reason)) => return Err(Fault::Damaged(format!("opening it failed: {reason}"))),
            Err(_) => return Err(Fault::Damaged("opening it failed".to_owned())),
        };
        let own = path.join("db");
        let file = File::open(&own).map_err(|source| Fault::Error(Error::Io(files::Error { path: own, source })))?;
        Ok((Table { path: path.to_owned(), db, file, meta }, rows))
    }

    /// The newest position that is in the rows.
    pub(super) fn upto(&self) -> Pos {
        self.meta.upto
    }

    /// How many there are.
    pub(super) fn rows(&self) -> u64 {
        self.meta.rows
    }

    /// Bytes of all rows with their keys, nearly. sled's file may be many times as large.
    pub(super) fn row_bytes(&self) -> u64 {
        self.meta.bytes
    }

    /// Bytes of sled's file.
    pub(super) fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.len())
    }

    /// Writes changes that bring the rows to `upto`: all of them or none, durable on return. Of
    /// several changes of one key the last counts.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Failed`]: the rows may be at either position. sled fails from then
    /// on; drop the table and open it again.
    pub(super) fn write(&mut self, rows: Vec<Row>, upto: Pos) -> Result<(), Error> {
        let rows: BTreeMap<Vec<u8>, Option<Vec<u8>>> = rows.into_iter().collect();
        let meta = quietly(|| write_rows(&self.db, self.meta, &rows, upto))
            .map_err(|reason| Error::Failed { reason })?
            .map_err(|error| from_sled(&self.path, error))?;
        self.file.sync_data().map_err(at(&self.path))?;
        self.meta = meta;
        Ok(())
    }

    /// Shows every row to `see`, in no particular order, and checks them.
    ///
    /// # Errors
    /// That of `see`; [`Error::Failed`] when they are damaged.
    pub(super) fn each_row(&self, see: impl FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<(), Error> {
        match quietly(|| each_row(&self.db, see)) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(Fault::Error(error))) => Err(error),
            Ok(Err(Fault::Damaged(reason))) | Err(reason) => Err(Error::Failed { reason }),
        }
    }
}

/// Opens sled, ends what a crash has left of a staged list, and reads and checks everything.
fn open_sled(path: &Path, cache_bytes: u64) -> Result<(sled::Db, Meta, Rows), Fault> {
    let db = sled::Config::new()
        .path(path)
        .cache_capacity(cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(None)
        .mode(sled::Mode::HighThroughput)
        .open()
        .map_err(|error| fault(path, error))?;
    finish_staged(&db).map_err(|error| fault(path, error))?;
    let mut rows = Vec::new();
    let meta = each_row(&db, |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        Ok(())
    })?;
    // Shortened keys do not sort as the whole ones do.
    rows.sort_unstable();
    Ok((db, meta, rows))
}

fn fault(path: &Path, error: sled::Error) -> Fault {
    use io::ErrorKind::*;
    match from_sled(path, error) {
        Error::Io(files::Error { path, source }) => match source.kind() {
            StorageFull | PermissionDenied | ReadOnlyFilesystem | QuotaExceeded | OutOfMemory => {
                Fault::Error(Error::Io(files::Error { path, source }))
            }
            _ => Fault::Damaged(format!("opening it failed: {source}")),
        },
        Error::Failed { reason } => Fault::Damaged(format!("opening it failed: {reason}")),
        other => Fault::Error(other),
    }
}

fn from_sled(path: &Path, error: sled::Error) -> Error {
    match error {
        // sled has no variant of its own for this.
        sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            Error::Locked { path: path.to_owned() }
        }
        sled::Error::Io(source) => Error::Io(files::Error { path: path.to_owned(), source }),
        other => Error::Failed { reason: other.to_string() },
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` and makes a panic in it a sentence instead of a message on stderr.
fn quietly<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // sled's own threads panic along with it, on the same damage.
            let of_sled = std::thread::current().name().is_some_and(|name| name.starts_with("sled-"));
            if !of_sled && !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    QUIET.set(false);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        text.unwrap_or_else(|| "a panic without words".to_owned()).lines().next().unwrap_or_default().to_owned()
    })
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Meta {
    upto: Pos,
    rows: u64,
    sum: u64,
    staged: u32,
    /// Of the rows with their keys, nearly; not stored, but counted when they are read.
    bytes: u64,
}

impl Meta {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.extend_from_slice(&self.upto.0.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.sum.to_le_bytes());
        out.extend_from_slice(&self.staged.to_le_bytes());
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Meta> {
        let mut rest = bytes;
        let meta = Meta {
            upto: Pos(u64::from_le_bytes(take(&mut rest)?)),
            rows: u64::from_le_bytes(take(&mut rest)?),
            sum: u64::from_le_bytes(take(&mut rest)?),
            staged: u32::from_le_bytes(take(&mut rest)?),
            bytes: 0,
        };
        (meta.encode() == bytes).then_some(meta)
    }
}

/// Shows every row to `see`, and checks them: each as it comes, their number and sum at the end.
fn each_row(db: &sled::Db, mut see: impl FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<Meta, Fault> {
    let sled = |error| fault(Path::new("state"), error);
    let bad = |what: &str| Fault::Damaged(format!("its check failed: {what}"));
    let Some(meta) = db.get(META).map_err(sled)? else {
        return if db.is_empty() { Ok(Meta::default()) } else { Err(bad("it has rows and no position")) };
    };
    let mut meta = Meta::decode(&meta).ok_or_else(|| bad("its position does not decode"))?;
    let (mut rows, mut sum) = (0_u64, 0_u64);
    let mut blob = Vec::new();
    for item in db.scan_prefix(b"r") {
        let (stored_key, first) = item.map_err(sled)?;
        let stored_key = &stored_key[1..];
        let head = Head::decode(&first).ok_or_else(|| bad("a row does not decode"))?;
        blob.clear();
        blob.extend_from_slice(&first[Head::BYTES..]);
        for n in 1..head.pieces() {
            let piece = db.get(piece_key(stored_key, n)).map_err(sled)?;
            blob.extend_from_slice(&piece.ok_or_else(|| bad("a row has lost a piece"))?);
        }
        if blob.len() != head.len as usize || hash(stored_key, &blob) != head.hash {
            return Err(bad("a row is not what was written"));
        }
        rows += 1;
        sum = sum.wrapping_add(head.hash);
        meta.bytes += head.bytes(stored_key);
        let (key, value) = if head.long {
            blob.split_first_chunk()
                .and_then(|(len, rest)| rest.split_at_checked(u32::from_le_bytes(*len) as usize))
                .ok_or_else(|| bad("a row does not decode"))?
        } else {
            (stored_key, blob.as_slice())
        };
        see(key, value).map_err(Fault::Error)?;
    }
    if (rows, sum) != (meta.rows, meta.sum) {
        return Err(bad("rows are missing, or are older than its position"));
    }
    Ok(meta)
}

/// The beginning of a stored row.
struct Head {
    long: bool,
    hash: u64,
    len: u32,
}

impl Head {
    const BYTES: usize = 13;

    fn decode(bytes: &[u8]) -> Option<Head> {
        let mut rest = bytes;
        let [long] = take(&mut rest)?;
        Some(Head {
            long: long == 1,
            hash: u64::from_le_bytes(take(&mut rest)?),
            len: u32::from_le_bytes(take(&mut rest)?),
        })
    }

    /// What it takes with its key and two lengths, nearly.
    fn bytes(&self, stored_key: &[u8]) -> u64 {
        u64::from(self.len) + stored_key.len() as u64 + 8
    }

    fn pieces(&self) -> u32 {
        self.len.div_ceil(PIECE_BYTES as u32).max(1)
    }
}

fn hash(stored_key: &[u8], blob: &[u8]) -> u64 {
    xxh3_64_with_seed(blob, xxh3_64(stored_key))
}

fn stored_key(key: &[u8]) -> Vec<u8> {
    if key.len() <= KEY_BYTES {
        return key.to_vec();
    }
    let mut short = key[..KEY_BYTES].to_vec();
    short.extend_from_slice(&xxh3_128(key).to_be_bytes());
    short
}

fn row_key(stored: &[u8]) -> Vec<u8> {
    [b"r", stored].concat()
}

fn piece_key(stored: &[u8], n: u32) -> Vec<u8> {
    [b"p", stored, &n.to_be_bytes()].concat()
}

fn staged_key(n: u32) -> Vec<u8> {
    [b"s".as_slice(), &n.to_be_bytes()].concat()
}

/// One row's changes, and what they do to count and sum.
fn change(
    db: &sled::Db,
    key: &[u8],
    value: Option<&[u8]>,
    meta: &mut Meta,
    changes: &mut Vec<Row>,
) -> sled::Result<()> {
    let stored = stored_key(key);
    let old = db.get(row_key(&stored))?.and_then(|bytes| Head::decode(&bytes));
    let mut pieces = 0;
    if let Some(old) = &old {
        meta.rows -= 1;
        meta.sum = meta.sum.wrapping_sub(old.hash);
        meta.bytes = meta.bytes.saturating_sub(old.bytes(&stored));
    }
    if let Some(value) = value {
        let long = key.len() > KEY_BYTES;
        let blob = if long { [&(key.len() as u32).to_le_bytes(), key, value].concat() } else { value.to_vec() };
        let head = Head { long, hash: hash(&stored, &blob), len: blob.len() as u32 };
        meta.rows += 1;
        meta.sum = meta.sum.wrapping_add(head.hash);
        meta.bytes += head.bytes(&stored);
        pieces = head.pieces();
        let mut chunks = blob.chunks(PIECE_BYTES);
        let mut first = vec![u8::from(long)];
        first.extend_from_slice(&head.hash.to_le_bytes());
        first.extend_from_slice(&head.len.to_le_bytes());
        first.extend_from_slice(chunks.next().unwrap_or_default());
        changes.push((row_key(&stored), Some(first)));
        for (n, chunk) in (1..).zip(chunks) {
            changes.push((piece_key(&stored, n), Some(chunk.to_vec())));
        }
    } else if old.is_some() {
        changes.push((row_key(&stored), None));
    }
    for n in pieces.max(1)..old.map_or(0, |old| old.pieces()) {
        changes.push((piece_key(&stored, n), None));
    }
    Ok(())
}

fn batch(changes: impl IntoIterator<Item = Row>) -> sled::Batch {
    let mut batch = sled::Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    batch
}

fn write_rows(db: &sled::Db, meta: Meta, rows: &BTreeMap<Vec<u8>, Option<Vec<u8>>>, upto: Pos) -> sled::Result<Meta> {
    let mut meta = Meta { upto, ..meta };
    let mut changes = Vec::new();
    for (key, value) in rows {
        change(db, key, value.as_deref(), &mut meta, &mut changes)?;
    }
    if changes.len() <= BATCH_ROWS {
        changes.push((META.to_vec(), Some(meta.encode())));
        db.apply_batch(batch(changes))?;
        db.flush()?;
        return Ok(meta);
    }
    let list = encode_list(&changes);
    drop(changes);
    for (numbers, pieces) in (0..).step_by(BATCH_ROWS).zip(list.chunks(PIECE_BYTES * BATCH_ROWS)) {
        let staged = (numbers..).zip(pieces.chunks(PIECE_BYTES)).map(|(n, p)| (staged_key(n), Some(p.to_vec())));
        db.apply_batch(batch(staged))?;
    }
    meta.staged = list.len().div_ceil(PIECE_BYTES) as u32;
    db.insert(META, meta.encode())?;
    carry_out(db, meta, &list)?;
    db.flush()?;
    Ok(Meta { staged: 0, ..meta })
}

fn encode_list(changes: &[Row]) -> Vec<u8> {
    let mut list = Vec::new();
    for (key, value) in changes {
        list.extend_from_slice(&(key.len() as u32).to_le_bytes());
        let len = value.as_ref().map_or(u32::MAX, |v| v.len() as u32);
        list.extend_from_slice(&len.to_le_bytes());
        list.extend_from_slice(key);
        list.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    list
}

fn decode_list(list: &[u8]) -> Option<Vec<Row>> {
    let mut rest = list;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let key_len = u32::from_le_bytes(take(&mut rest)?) as usize;
        let len = u32::from_le_bytes(take(&mut rest)?);
        let (key, tail) = rest.split_at_checked(key_len)?;
        let (value, tail) = tail.split_at_checked(if len == u32::MAX { 0 } else { len as usize })?;
        changes.push((key.to_vec(), (len != u32::MAX).then(|| value.to_vec())));
        rest = tail;
    }
    Some(changes)
}

/// Carries out a staged list. Any part of it may have been done before: each change is whole in itself.
fn carry_out(db: &sled::Db, meta: Meta, list: &[u8]) -> sled::Result<()> {
    let changes =
        decode_list(list).ok_or_else(|| sled::Error::Unsupported("staged changes do not decode".to_owned()))?;
    for some in changes.chunks(BATCH_ROWS) {
        db.apply_batch(batch(some.iter().cloned()))?;
    }
    db.insert(META, Meta { staged: 0, ..meta }.encode())?;
    forget_staged(db)
}

fn forget_staged(db: &sled::Db) -> sled::Result<()> {
    loop {
        let keys: Vec<_> = db.scan_prefix(b"s").keys().take(BATCH_ROWS).collect::<sled::Result<_>>()?;
        if keys.is_empty() {
            return Ok(());
        }
        db.apply_batch(batch(keys.into_iter().map(|key| (key.to_vec(), None))))?;
    }
}

/// At start: a valid list is carried out once more, any other is forgotten.
fn finish_staged(db: &sled::Db) -> sled::Result<()> {
    if let Some(meta) = db.get(META)?.and_then(|bytes| Meta::decode(&bytes))
        && meta.staged > 0
    {
        let mut list = Vec::new();
        for n in 0..meta.staged {
            let piece = db.get(staged_key(n))?;
            list.extend_from_slice(&piece.ok_or_else(|| sled::Error::Unsupported("staged changes are gone".into()))?);
        }
        carry_out(db, meta, &list)?;
        db.flush()?;
    }
    forget_staged(db)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{CACHE, filled, open};
    use super::*;
    use std::fs;

    impl Table {
        pub(crate) fn keys_below(&self, prefix: &[u8]) -> usize {
            self.db.scan_prefix(prefix).count()
        }

        pub(crate) fn lose_row(&self, key: &[u8]) {
            self.db.remove(row_key(key)).unwrap();
        }
    }

    #[test]
    fn a_row_changed_behind_our_back_fails_the_check() {
        let dir = tempfile::tempdir().unwrap();
        for how in 0..4 {
            let model = filled(dir.path());
            let (store, _) = open(dir.path());
            match how {
                0 => drop(store.table.db.remove(row_key(b"row/7")).unwrap()),
                1 => drop(store.table.db.insert(row_key(b"row/7"), b"short".as_slice()).unwrap()),
                2 => drop(store.table.db.remove(META).unwrap()),
                _ => {
                    // Good in itself, but not what was written last.
                    let mut changes = Vec::new();
                    change(
                        &store.table.db,
                        b"row/7",
                        Some(b"10 7"),
                        &mut Meta { rows: 9, ..Meta::default() },
                        &mut changes,
                    )
                    .unwrap();
                    store.table.db.apply_batch(batch(changes)).unwrap();
                }
            }
            store.table.db.flush().unwrap();
            drop(store);
            let (_, opened) = open(dir.path());
            assert!(opened.rebuilt.unwrap().contains("its check failed"));
            assert_eq!((opened.upto, opened.rows.len()), (Pos(20), model.len()));
            fs::remove_dir_all(dir.path().join("state")).unwrap();
            fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
        }
        let aside: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(aside, ["state.damaged-4"], "only the newest is kept");
    }

    #[test]
    fn a_staged_list_is_carried_out_after_a_crash_and_half_of_one_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        let db = &store.table.db;
        let mut meta = Meta { upto: Pos(9), ..Meta::default() };
        let mut changes = Vec::new();
        for i in 0..500 {
            change(db, format!("{i}").as_bytes(), Some(&[7; 50]), &mut meta, &mut changes).unwrap();
        }
        let list = encode_list(&changes);
        let pieces: Vec<Row> =
            (0..).zip(list.chunks(PIECE_BYTES)).map(|(n, p)| (staged_key(n), Some(p.to_vec()))).collect();
        meta.staged = pieces.len() as u32;
        db.apply_batch(batch(pieces.clone())).unwrap();
        db.insert(META, meta.encode()).unwrap();
        // The crash comes when some of it has been carried out.
        db.apply_batch(batch(changes[..100].iter().cloned())).unwrap();
        db.flush().unwrap();
        drop(store);
        let (store, opened) = open(dir.path());
        assert_eq!((opened.upto, opened.rows.len(), opened.rebuilt), (Pos(9), 500, None));
        // The next crash comes before a list was valid.
        store.table.db.apply_batch(batch(pieces)).unwrap();
        store.table.db.flush().unwrap();
        drop(store);
        let (store, opened) = open(dir.path());
        assert_eq!((opened.upto, opened.rows.len(), opened.rebuilt), (Pos(9), 500, None));
        assert_eq!(store.table.db.scan_prefix(b"s").count(), 0);
    }

    #[test]
    fn a_locked_store_is_not_taken_for_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let _store = open(dir.path());
        assert!(matches!(Table::open_once(&dir.path().join("state"), CACHE), Err(Fault::Error(Error::Locked { .. }))));
        assert!(dir.path().join("state/db").exists());
    }
}
