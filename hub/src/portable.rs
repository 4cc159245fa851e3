//! A node's log as one text file, and back: to look into with any tool, to carry to another machine
//! or file system, to keep in an archive of another kind.
//!
//! # Constraints
//! - What comes back is the same log: same positions, same bytes, same chain hashes. The chain is
//!   computed anew and compared at every record, and the file's own hash at its end.
//! - A file that was cut, or changed anywhere, is refused whole; a folder is made or not there.
//! - A node that starts on an imported folder begins a new history, as after a restored backup: the
//!   node that it was exported from may have gone on.
//!
//! # Format
//! UTF-8, one JSON object a line; zstd around it where the file's name ends in `.zst`.
//!
//! | line | what |
//! |---|---|
//! | first | [`Head`] |
//! | `{"snapshot":NAME,"bytes":BASE64}` | a piece of the state's newest snapshot, in order; only where the log does not begin at 1 |
//! | `{"pos":N,"chain":HEX,"record":BASE64}` | a record in its log form, one each, without gaps |
//! | last | [`Foot`] |

use crate::backup::{self, Error as BackupError, RESTORED, beside, finish, put_mark};
use crate::files::{self, at};
use crate::log::{self, Log, Options};
use crate::store;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use citybrain_shared::Pos;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// In the first line of every file.
pub const SCHEMA: &str = "citybrain.log-export/1";
/// Bytes of a snapshot on one line, before base64.
const PIECE_BYTES: usize = 1 << 20;
/// A line: the largest record of a log (16 MiB) in base64, and its keys.
const LINE_BYTES_MAX: u64 = 24 << 20;
/// Records and bytes read, or written, at a time.
const TOGETHER: usize = 4_096;
const TOGETHER_BYTES: usize = 4 << 20;
/// Base64 of records shrinks to about a quarter; higher levels cost more than they gain.
const ZSTD_LEVEL: i32 = 3;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub schema: String,
    /// The data folder that it is of.
    pub of: String,
    /// RFC 3339.
    pub exported_at: String,
    pub first: Pos,
    pub last: Pos,
    /// The chain hash at `first - 1`, 16 hexadecimal digits.
    pub before: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Foot {
    pub records: u64,
    /// xxh3-64 of all lines before this one, with their line ends, 16 hexadecimal digits.
    pub xxh3: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Record { pos: Pos, chain: String, record: String },
    Snapshot { snapshot: String, bytes: String },
    Foot(Foot),
}

/// What was written or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub head: Head,
    pub records: u64,
    /// Of the text, before any compression.
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log in `{dir}` cannot be exported")]
    Log {
        dir: PathBuf,
        #[source]
        source: log::Error,
    },
    #[error(
        "the log begins at {first}, and no whole snapshot reaches that far: what came before it would be lost; try again after the node's next snapshot"
    )]
    Gap { first: Pos },
    #[error("the export cannot be written: {0}")]
    Write(io::Error),
    #[error("the export cannot be read: {0}")]
    Read(io::Error),
    #[error("this is no export of a log: {0}")]
    Foreign(String),
    #[error("line {line} of the export is not as it was written: {why}")]
    Changed { line: u64, why: String },
    #[error("the export ends at line {line}, before its last: it was cut")]
    Cut { line: u64 },
    #[error(transparent)]
    Folder(#[from] BackupError),
}

impl From<files::Error> for Error {
    fn from(error: files::Error) -> Error {
        Error::Folder(error.into())
    }
}

/// Text on its way out, counted and hashed.
struct Lines<W> {
    out: W,
    hash: Xxh3,
    bytes: u64,
}

impl<W: Write> Lines<W> {
    fn put(&mut self, line: &impl Serialize) -> Result<(), Error> {
        let mut text = serde_json::to_vec(line).map_err(|e| Error::Write(e.into()))?;
        text.push(b'\n');
        self.hash.update(&text);
        self.bytes += text.len() as u64;
        self.out.write_all(&text).map_err(Error::Write)
    }
}

/// Writes the log of the data folder `dir`. The node may run: what it commits meanwhile is left out.
///
/// # Errors
/// [`Error::Log`] also where the log is damaged: an export is whole or none. [`Error::Gap`].
pub fn export(dir: &Path, exported_at: String, out: impl Write) -> Result<Done, Error> {
    let failed = |source| Error::Log { dir: dir.to_owned(), source };
    let reader = backup::look(&dir.join("log")).map_err(failed)?;
    let (first, last) = (reader.first(), reader.last());
    let before = reader.chain_at(Pos(first.0 - 1)).map_err(failed)?.unwrap_or(0);
    let of = dir.display().to_string();
    let head = Head { schema: SCHEMA.into(), of, exported_at, first, last, before: hex(before) };
    let mut lines = Lines { out, hash: Xxh3::new(), bytes: 0 };
    lines.put(&head)?;
    if first > Pos(1) {
        snapshot(dir, first, last, &mut lines)?;
    }
    let (mut after, mut records) = (Pos(first.0 - 1), 0);
    while after < last {
        let entries = reader.read(after, None, TOGETHER, TOGETHER_BYTES).map_err(failed)?;
        for entry in entries.iter().take_while(|e| e.pos <= last) {
            let record = BASE64_STANDARD.encode(&entry.bytes);
            lines.put(&Line::Record { pos: entry.pos, chain: hex(entry.chain), record })?;
            (after, records) = (entry.pos, records + 1);
        }
    }
    let foot = Foot { records, xxh3: hex(lines.hash.digest()) };
    lines.put(&foot)?;
    lines.out.flush().map_err(Error::Write)?;
    Ok(Done { head, records, bytes: lines.bytes })
}

/// As [`export`], into a new file that only its owner may read; zstd if its name ends in `.zst`.
///
/// # Errors
/// As [`export`], and when the file is there already; half a file does not stay.
pub fn export_file(dir: &Path, exported_at: String, path: &Path) -> Result<Done, Error> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(Error::Write)?;
    let done = (|| {
        let mut out = BufWriter::new(&file);
        let done = if is_zstd(path) {
            let mut packed = zstd::stream::write::Encoder::new(&mut out, ZSTD_LEVEL).map_err(Error::Write)?;
            let done = export(dir, exported_at, &mut packed)?;
            packed.finish().map_err(Error::Write)?;
            done
        } else {
            export(dir, exported_at, &mut out)?
        };
        out.flush().and_then(|()| file.sync_all()).map_err(Error::Write)?;
        Ok(done)
    })();
    if done.is_err() {
        let _ = fs::remove_file(path);
    }
    done
}

/// As [`import`], from a file; zstd if its name ends in `.zst`.
///
/// # Errors
/// As [`import`].
pub fn import_file(path: &Path, dir: &Path) -> Result<Done, Error> {
    let file = File::open(path).map_err(Error::Read)?;
    if is_zstd(path) {
        let plain = zstd::stream::read::Decoder::new(file).map_err(Error::Read)?;
        return import(BufReader::new(plain), dir);
    }
    import(BufReader::new(file), dir)
}

fn is_zstd(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "zst")
}

/// The newest whole snapshot that the log continues, in pieces: without it, what was before the log's
/// first position would be lost.
fn snapshot<W: Write>(dir: &Path, first: Pos, last: Pos, lines: &mut Lines<W>) -> Result<(), Error> {
    let fits = |pos: Pos| pos.next() >= first && pos <= last;
    let Some((_, path)) = store::newest_whole(dir, fits) else { return Err(Error::Gap { first }) };
    let bytes = fs::read(&path).map_err(at(&path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for piece in bytes.chunks(PIECE_BYTES) {
        lines.put(&Line::Snapshot { snapshot: name.clone(), bytes: BASE64_STANDARD.encode(piece) })?;
    }
    Ok(())
}

/// Makes the data folder `dir`, which must not be there yet or be empty.
///
/// # Errors
/// [`Error`]; nothing is at `dir` then that was not there before.
pub fn import(from: impl BufRead, dir: &Path) -> Result<Done, Error> {
    let is_empty = fs::read_dir(dir).is_ok_and(|mut d| d.next().is_none());
    if is_empty {
        fs::remove_dir(dir).map_err(at(dir))?;
    }
    let part = beside(dir, "importing")?;
    let laid = lay(from, &part);
    let why = match &laid {
        Ok(done) => format!("from an export of {}, made at {}\n", done.head.of, done.head.exported_at),
        Err(_) => String::new(),
    };
    match laid {
        Err(error) => {
            let _ = fs::remove_dir_all(&part);
            if is_empty {
                let _ = fs::create_dir(dir);
            }
            Err(error)
        }
        Ok(done) => {
            let marked = put_mark(&part, RESTORED, &why);
            Ok(finish(&part, dir, marked.map(|()| done))?)
        }
    }
}

/// Reads all of it into a folder that nobody knows yet.
fn lay(from: impl BufRead, part: &Path) -> Result<Done, Error> {
    let mut text = Text { from, hash: Xxh3::new(), line: 0, bytes: 0 };
    let first = text.next()?.ok_or_else(|| Error::Foreign("it is empty".into()))?;
    let head: Head = serde_json::from_slice(&first).map_err(|e| Error::Foreign(e.to_string()))?;
    let wrong = |why: &str| Error::Foreign(why.to_owned());
    if head.schema != SCHEMA {
        return Err(Error::Foreign(format!("its schema is `{}`, and this build reads `{SCHEMA}`", head.schema)));
    }
    let before = u64::from_str_radix(&head.before, 16).map_err(|_| wrong("`before` is no hash"))?;
    if head.first < Pos(1) || head.last.0 + 1 < head.first.0 {
        return Err(wrong("its positions make no sense"));
    }
    let folder = part.join("log");
    let failed = |source| Error::Folder(BackupError::Log(source));
    log::begin(&folder, head.first, before).map_err(failed)?;
    let mut log = Log::open(&folder, Options { tail_bytes: 0, ..Options::default() }).map_err(failed)?.log;
    let (mut records, mut waiting, mut chains) = (0u64, 0usize, Vec::new());
    loop {
        let hash = text.hash.digest();
        let Some(line) = text.next()? else { return Err(Error::Cut { line: text.line }) };
        let changed = |why: String| Error::Changed { line: text.line, why };
        match serde_json::from_slice(&line).map_err(|e| changed(e.to_string()))? {
            Line::Record { pos, chain, record } => {
                let record = BASE64_STANDARD.decode(record).map_err(|e| changed(e.to_string()))?;
                if pos != log.last().next() {
                    return Err(changed(format!("position {pos} where {} was expected", log.last().next())));
                }
                if !(log::RECORD_BYTES_MIN..=log::RECORD_BYTES_MAX).contains(&record.len()) {
                    return Err(changed(format!("a record of {} bytes is none", record.len())));
                }
                waiting += record.len();
                chains.push((pos, chain, text.line));
                log.append([record.as_slice()]);
                records += 1;
                if waiting > TOGETHER_BYTES {
                    settle(&mut log, &mut chains)?;
                    waiting = 0;
                }
            }
            Line::Snapshot { snapshot, bytes } => {
                let good = snapshot.strip_suffix(".snap").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
                let bytes = BASE64_STANDARD.decode(bytes).map_err(|e| changed(e.to_string()))?;
                if !good {
                    return Err(changed(format!("`{snapshot}` is no snapshot's name")));
                }
                append(&part.join("snapshots"), &snapshot, &bytes)?;
            }
            Line::Foot(foot) => {
                settle(&mut log, &mut chains)?;
                if foot.xxh3 != hex(hash) {
                    return Err(changed("the hash over all before it differs".into()));
                }
                if foot.records != records || log.last() != head.last {
                    let (last, want) = (log.last(), head.last);
                    return Err(changed(format!(
                        "{records} records up to {last}; {} up to {want} were written",
                        foot.records
                    )));
                }
                if text.next()?.is_some() {
                    return Err(Error::Changed {
                        line: text.line,
                        why: "something stands behind the last line".into(),
                    });
                }
                fs::create_dir_all(part.join("snapshots")).map_err(at(part))?;
                return Ok(Done { head, records, bytes: text.bytes });
            }
        }
    }
}

/// Commits, and compares the chain with what the lines say.
fn settle(log: &mut Log, chains: &mut Vec<(Pos, String, u64)>) -> Result<(), Error> {
    let failed = |source| Error::Folder(BackupError::Log(source));
    log.commit().map_err(failed)?;
    let Some((first, ..)) = chains.first() else { return Ok(()) };
    let (reader, mut after) = (log.reader(), Pos(first.0 - 1));
    let mut told = chains.drain(..);
    while after < log.last() {
        for entry in reader.read(after, None, TOGETHER, TOGETHER_BYTES).map_err(failed)? {
            let Some((pos, chain, line)) = told.next() else { return Ok(()) };
            if hex(entry.chain) != chain {
                return Err(Error::Changed { line, why: format!("the chain hash at position {pos} differs") });
            }
            after = entry.pos;
        }
    }
    Ok(())
}

fn append(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let path = folder.join(name);
    let file = fs::File::options().create(true).append(true).open(&path);
    Ok(file.and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all())).map_err(at(&path))?)
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// Text on its way in, line by line.
struct Text<R> {
    from: R,
    hash: Xxh3,
    line: u64,
    bytes: u64,
}

impl<R: BufRead> Text<R> {
    /// A line without its end; `None` behind the last.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut line = Vec::new();
        let n = (&mut self.from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(Error::Read)?;
        if n == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.bytes += n as u64;
        self.hash.update(&line);
        if line.pop() != Some(b'\n') {
            return Err(Error::Cut { line: self.line });
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::record::{Draft, Header, Kind};

    /// A folder with a log of this many records in segments of a few.
    fn folder(dir: &Path, records: u64) -> PathBuf {
        let data = dir.join("data");
        let options = Options { segment_bytes: 2_000, ..Options::default() };
        let mut log = Log::open(&data.join("log"), options).unwrap().log;
        for n in 1..=records {
            let mut draft = Draft::new(&Header::local(Kind::Event, "t"), format!("{{\"n\":{n}}}").as_bytes()).unwrap();
            draft.stamp(1_000_000 + n as i64, n);
            log.append([draft.bytes()]);
            log.commit().unwrap();
        }
        data
    }

    fn exported(data: &Path) -> Vec<u8> {
        let mut out = Vec::new();
        export(data, "2026-01-01T00:00:00Z".into(), &mut out).unwrap();
        out
    }

    fn all(data: &Path) -> Vec<log::Entry> {
        let (reader, _) = log::open_read_only(&data.join("log")).unwrap();
        let mut all: Vec<log::Entry> = Vec::new();
        while let Some(next) =
            Some(all.last().map_or(Pos(reader.first().0 - 1), |e| e.pos)).filter(|p| *p < reader.last())
        {
            all.extend(reader.read(next, None, 1000, 1 << 20).unwrap());
        }
        all
    }

    #[test]
    fn what_comes_back_is_the_same_log_to_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        let data = folder(dir.path(), 300);
        let text = exported(&data);
        let back = dir.path().join("back");
        let done = import(text.as_slice(), &back).unwrap();
        assert_eq!((done.records, done.head.first, done.head.last), (300, Pos(1), Pos(300)));
        assert_eq!(all(&back), all(&data));
        assert_eq!(
            exported(&back).len(),
            text.len() - data.display().to_string().len() + back.display().to_string().len()
        );
        assert!(backup::mark(&back).is_some(), "its next start begins a new history");
        let packed = dir.path().join("log.ndjson.zst");
        export_file(&data, "2026-01-01T00:00:00Z".into(), &packed).unwrap();
        assert!(fs::metadata(&packed).unwrap().len() < text.len() as u64 / 2);
        import_file(&packed, &dir.path().join("unpacked")).unwrap();
        assert_eq!(all(&dir.path().join("unpacked")), all(&data));
        assert!(export_file(&data, String::new(), &packed).is_err(), "nothing is overwritten");
        // Only into nothing.
        assert!(matches!(import(text.as_slice(), &back), Err(Error::Folder(BackupError::Exists { .. }))));
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        import(text.as_slice(), &empty).unwrap();
    }

    #[test]
    fn a_log_that_was_trimmed_keeps_its_positions_and_takes_its_snapshot_along() {
        let dir = tempfile::tempdir().unwrap();
        let data = folder(dir.path(), 300);
        let (mut state, _) = store::Store::open(&data, 1 << 20).unwrap();
        let rows = (0..60u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![7; 60_000])));
        state.write(rows.collect(), Pos(150)).unwrap();
        state.snapshot(Pos(150)).unwrap();
        drop(state);
        let whole = data.join("snapshots/00000000000000000150.snap");
        let mut half = fs::read(&whole).unwrap();
        half.truncate(2 << 20);
        fs::write(data.join("snapshots/00000000000000000200.snap"), half).unwrap();
        fs::write(data.join("snapshots/00000000000000000900.snap"), b"of another log").unwrap();
        let mut log = Log::open(&data.join("log"), Options::default()).unwrap().log;
        log.trim(Pos(120)).unwrap();
        let first = log.reader().first();
        assert!(first > Pos(1) && first <= Pos(120));
        drop(log);
        let back = dir.path().join("back");
        let done = import(exported(&data).as_slice(), &back).unwrap();
        assert_eq!(done.head.first, first);
        assert_eq!(all(&back), all(&data));
        let names: Vec<_> = fs::read_dir(back.join("snapshots")).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(names, ["00000000000000000150.snap"]);
        assert_eq!(fs::read(back.join("snapshots/00000000000000000150.snap")).unwrap(), fs::read(&whole).unwrap());
        fs::remove_file(whole).unwrap();
        assert!(matches!(export(&data, String::new(), io::sink()), Err(Error::Gap { .. })));
    }

    #[test]
    fn a_file_that_was_cut_or_changed_anywhere_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let text = String::from_utf8(exported(&folder(dir.path(), 20))).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let back = dir.path().join("back");
        let refused = |text: &str| {
            let error = import(text.as_bytes(), &back).unwrap_err();
            assert!(!back.exists() && !dir.path().join("back.importing").exists(), "{error}");
            error.to_string()
        };
        let without = |n: usize| {
            let kept = lines.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, l)| format!("{l}\n"));
            kept.collect::<String>()
        };
        assert!(refused("").contains("it is empty"));
        assert!(refused("{\"a\":1}\n").contains("no export"));
        assert!(refused(&text.replace("log-export/1", "log-export/9")).contains("log-export/9"));
        assert!(refused(&without(5)).contains("position 6 where 5 was expected"));
        assert!(refused(&without(20)).contains("the hash over all before it differs"));
        assert!(refused(&without(21)).contains("it was cut"));
        assert!(refused(&text[..text.len() - 4]).contains("it was cut"));
        assert!(refused(&(text.clone() + "{}\n")).contains("stands behind the last line"));
        // One character of a record, still base64; its own chain hash tells.
        let at = text.find("\"record\":\"").unwrap() + 40;
        let other = if &text[at..at + 1] == "A" { "B" } else { "A" };
        let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        assert!(refused(&changed).contains("the chain hash at position 1 differs"));
        // A time in the head, which no chain covers.
        assert!(refused(&text.replace("2026-01-01", "2027-01-01")).contains("the hash over all"));
    }
}
