//! Copies of a data folder, and putting them back.
//!
//! # Constraints
//! - A backup is a prefix of the log: whatever was acknowledged before it began is in it.
//! - It can be taken while the node runs: segments are append-only, and of the newest only so much is
//!   copied as was read and found good before.
//! - A backup is whole or not there: it is written beside its place, synced, then renamed.
//! - A node that starts on a restored folder begins a new history ([`mark`]): it may give positions to
//!   records that its peers know for others.
//!
//! # Format
//! `log/` (segments and indexes) and `snapshots/`, as in a data folder, and `backup.json`. sled's folder is
//! left out: it is made again from snapshot and log.
//!
//! # Operation
//! Snapshots first, then the log, and a look whether it reaches back to one of them: if retention was
//! faster, all once more. Sealed segments never change and are linked where the file system can; the
//! newest is copied.
//!
//! A restore lays a synced copy beside the data folder before it touches that, and then exchanges the
//! two names in one step, so that a power cut finds one of the two there and never none: a node that
//! found none would begin anew.

use crate::files::{self, at, sync_folder};
use crate::log::{self, Damage, Reader};
use crate::store;
use citybrain_shared::Pos;
use rustix::fs::{AtFlags, CWD, RenameFlags, StatxAttributes, StatxFlags, renameat_with, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How often a log that is written while it is copied is tried: once more is mostly enough.
const TRIES: usize = 5;

/// What a backup says of itself: `backup.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub format: u32,
    /// RFC 3339.
    pub taken_at: String,
    /// The data folder that it is of.
    pub of: String,
    pub first: Pos,
    pub last: Pos,
    /// Bytes of the log's segments.
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] files::Error),
    #[error("`{path}` is there already")]
    Exists { path: PathBuf },
    #[error("a node is running on `{path}`")]
    InUse { path: PathBuf },
    #[error("`{path}` is no backup: it has no readable `backup.json`")]
    NoBackup { path: PathBuf },
    #[error("the log in `{path}` is damaged: {} of its records cannot be read, the first at {}", .damage.iter().map(|d| d.last.0 - d.first.0 + 1).sum::<u64>(), .damage.first().map_or(Pos::ZERO, |d| d.first))]
    Damaged { path: PathBuf, damage: Vec<Damage> },
    #[error(
        "the log in `{path}` begins at {first}, and no whole snapshot reaches that far: what came before it would be lost; try again after the node's next snapshot"
    )]
    Gap { path: PathBuf, first: Pos },
    #[error("`{path}` is a mount point, so nothing can be put in its place; mount the folder above it instead")]
    Mount { path: PathBuf },
    #[error(transparent)]
    Log(#[from] log::Error),
}

impl Error {
    /// May it be gone when a log that is being written is looked at again?
    fn is_of_the_moment(&self, newest: &Path) -> bool {
        let gone = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
        match self {
            Error::Io(e) | Error::Log(log::Error::Io(e)) => gone(&e.source),
            Error::Damaged { damage, .. } => damage.iter().all(|d| d.segment.file_name() == newest.file_name()),
            Error::Gap { .. } => true,
            _ => false,
        }
    }
}

const MARK: &str = "restored";
/// Why, of a folder that was put back or made of an export.
pub(crate) const RESTORED: &str = "restored from a backup";
const ABOUT: &str = "backup.json";

/// Why the next start on this folder must begin a new history, if something since the last one says so.
pub(crate) fn mark(dir: &Path) -> Option<String> {
    let text = fs::read(dir.join(MARK)).ok()?;
    Some(String::from_utf8_lossy(&text).lines().next().unwrap_or("restored").to_owned())
}

/// Marks a folder so; the mark survives a power cut.
pub(crate) fn put_mark(dir: &Path, why: &str, from: &str) -> Result<(), Error> {
    write_synced(&dir.join(MARK), format!("{why}\n{from}").as_bytes())?;
    Ok(sync_folder(dir)?)
}

/// That there is none is no error.
pub(crate) fn forget_mark(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(MARK)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.and_then(|()| File::open(dir)?.sync_all()),
    }
}

/// What a backup says of itself.
///
/// # Errors
/// [`Error::NoBackup`].
pub fn about(backup: &Path) -> Result<About, Error> {
    let text = fs::read(backup.join(ABOUT)).map_err(|_| Error::NoBackup { path: backup.to_owned() })?;
    serde_json::from_slice(&text).map_err(|_| Error::NoBackup { path: backup.to_owned() })
}

/// Takes a backup of the data folder `dir` into `target`, which must not be there yet, and reads all of it
/// back. The node may run.
///
/// # Errors
/// [`Error`]; nothing is at `target` then.
pub fn take(dir: &Path, target: &Path, taken_at: String) -> Result<About, Error> {
    let mut part = beside(target, "part")?;
    let mut tries = 0;
    let copied = loop {
        tries += 1;
        let mut newest = PathBuf::new();
        match copy(dir, &part, &mut newest) {
            Err(error) if tries < TRIES && error.is_of_the_moment(&newest) => part = beside(target, "part")?,
            done => break done,
        }
    };
    let taken = copied.and_then(|(reader, bytes)| {
        let about = About {
            format: 1,
            taken_at,
            of: dir.display().to_string(),
            first: reader.first(),
            last: reader.last(),
            bytes,
        };
        write_synced(&part.join(ABOUT), &serde_json::to_vec_pretty(&about).map_err(|e| at(&part)(e.into()))?)?;
        Ok(about)
    });
    finish(&part, target, taken)
}

/// Copies snapshots and log into `part` and reads all of that back; says the bytes of its segments, and
/// in `newest` which was the newest.
fn copy(dir: &Path, part: &Path, newest: &mut PathBuf) -> Result<(Reader, u64), Error> {
    copy_folder(&dir.join("snapshots"), &part.join("snapshots"), Sealed::Link)?;
    let files = look(&dir.join("log"))?.files();
    newest.clone_from(&files[files.len() - 1].0);
    let bytes = copy_log(&files, &part.join("log"), Sealed::Link)?;
    let (reader, _) = log::open_read_only(&part.join("log"))?;
    let damage = reader.verify(|_, _| {})?;
    if !damage.is_empty() {
        return Err(Error::Damaged { path: dir.to_owned(), damage });
    }
    let first = reader.first();
    let reaches = store::newest_whole(part, |pos| pos.next() >= first && pos <= reader.last()).is_some();
    if first > Pos(1) && !reaches {
        return Err(Error::Gap { path: dir.to_owned(), first });
    }
    Ok((reader, bytes))
}

/// The log in this folder as it is now. What a node writes while it is read may look damaged once, not
/// twice.
pub(crate) fn look(log: &Path) -> Result<Reader, log::Error> {
    let (mut reader, mut found) = log::open_read_only(log)?;
    for _ in 1..TRIES {
        if found.damage.is_empty() {
            break;
        }
        let before = found.damage;
        (reader, found) = log::open_read_only(log)?;
        if found.damage == before {
            break;
        }
    }
    Ok(reader)
}

/// Puts a backup into the data folder `dir`. What is there is moved aside; returns where to. No node can
/// start on `dir` meanwhile.
///
/// # Errors
/// [`Error::NoBackup`], [`Error::Damaged`], [`Error::InUse`], [`Error::Mount`], [`Error::Io`]; `dir` is then
/// as it was, unless the error is of the very last step, the sync of the folder above it.
pub fn restore(backup: &Path, dir: &Path) -> Result<(About, Option<PathBuf>), Error> {
    let said = about(backup)?;
    // Under systemd's DynamicUser it is a link to a folder elsewhere, which must stay a link.
    let dir = &fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let _held = match log::hold(&dir.join("log")) {
        Err(log::Error::Locked { .. }) => return Err(Error::InUse { path: dir.to_owned() }),
        held => held?,
    };
    if is_mount(dir) {
        return Err(Error::Mount { path: dir.to_owned() });
    }
    let (reader, _) = log::open_read_only(&backup.join("log"))?;
    let damage = reader.verify(|_, _| {})?;
    if !damage.is_empty() {
        return Err(Error::Damaged { path: backup.to_owned(), damage });
    }
    let part = beside_existing(dir, "restoring")?;
    let laid = (|| {
        // Always a copy: the node will write to what is newest here.
        copy_folder(&backup.join("snapshots"), &part.join("snapshots"), Sealed::Copy)?;
        copy_log(&reader.files(), &part.join("log"), Sealed::Copy)?;
        put_mark(&part, RESTORED, &format!("from {}, taken at {}\n", backup.display(), said.taken_at))?;
        Ok(sync_all(&part)?)
    })();
    let placed = laid.and_then(|()| put_in_place(&part, dir));
    if placed.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    Ok((said, placed?))
}

fn is_mount(dir: &Path) -> bool {
    // Where the kernel does not say, the exchange of the names does.
    statx(CWD, dir, AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|about| about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Puts the folder `part` where `dir` is, and what is there aside; returns where to.
fn put_in_place(part: &Path, dir: &Path) -> Result<Option<PathBuf>, Error> {
    if !dir.exists() {
        fs::rename(part, dir).map_err(at(dir))?;
        sync_above(dir)?;
        return Ok(None);
    }
    let place = (1..).map(|n| sibling(dir, &format!("before-restore-{n}"))).find(|p| !p.exists());
    let place = place.expect("one of endless names is free");
    // The copy gets the name that the old folder will have: `part` is what a try that failed has left, and
    // is removed by the next.
    fs::rename(part, &place).map_err(at(part))?;
    if let Err(errno) = renameat_with(CWD, &place, CWD, dir, RenameFlags::EXCHANGE) {
        fs::rename(&place, part).map_err(at(&place))?;
        // Not every file system can.
        if !matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) {
            return Err(at(dir)(errno.into()).into());
        }
        put_one_after_the_other(part, dir, &place)?;
    }
    sync_above(dir)?;
    Ok(Some(place))
}

fn put_one_after_the_other(part: &Path, dir: &Path, place: &Path) -> Result<(), Error> {
    fs::rename(dir, place).map_err(at(dir))?;
    fs::rename(part, dir).map_err(|source| {
        // As it was: a node that finds nothing here begins anew.
        let _ = fs::rename(place, dir);
        at(dir)(source).into()
    })
}

fn sync_above(path: &Path) -> Result<(), Error> {
    path.parent().filter(|p| !p.as_os_str().is_empty()).map_or(Ok(()), |above| Ok(sync_folder(above)?))
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    path.with_file_name(name)
}

pub(crate) fn beside(target: &Path, suffix: &str) -> Result<PathBuf, Error> {
    if target.exists() {
        return Err(Error::Exists { path: target.to_owned() });
    }
    beside_existing(target, suffix)
}

/// An empty folder beside `target`; what an earlier try left there goes.
fn beside_existing(target: &Path, suffix: &str) -> Result<PathBuf, Error> {
    let part = sibling(target, suffix);
    if part.exists() {
        fs::remove_dir_all(&part).map_err(at(&part))?;
    }
    // Residents' matters, as in a node's own folder: not for every user of the machine.
    fs::DirBuilder::new().recursive(true).mode(0o750).create(&part).map_err(at(&part))?;
    Ok(part)
}

pub(crate) fn finish<T>(part: &Path, target: &Path, done: Result<T, Error>) -> Result<T, Error> {
    let renamed = done.and_then(|value| {
        sync_all(part)?;
        fs::rename(part, target).map_err(at(target))?;
        sync_above(target)?;
        Ok(value)
    });
    if renamed.is_err() {
        // Half a backup must not be taken for one.
        let _ = fs::remove_dir_all(part);
    }
    renamed
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sealed {
    Link,
    Copy,
}

fn copy_file(from: &Path, to: &Path, how: Sealed) -> Result<u64, Error> {
    if how == Sealed::Link && fs::hard_link(from, to).is_ok() {
        return Ok(fs::metadata(to).map_err(at(to))?.len());
    }
    Ok(fs::copy(from, to).map_err(at(from))?)
}

/// Snapshots: whole files that never change, and may go while we look.
fn copy_folder(from: &Path, to: &Path, how: Sealed) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(at(to))?;
    let Ok(items) = fs::read_dir(from) else { return Ok(()) };
    for item in items {
        let path = item.map_err(at(from))?.path();
        if path.extension().is_none_or(|e| e != "snap") {
            continue;
        }
        match copy_file(&path, &to.join(path.file_name().unwrap_or_default()), how) {
            Err(Error::Io(e)) if e.source.kind() == io::ErrorKind::NotFound => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// Copies these segments, oldest first, and of the newest no more than the bytes that it says.
fn copy_log(files: &[(PathBuf, u64)], to: &Path, how: Sealed) -> Result<u64, Error> {
    fs::create_dir_all(to).map_err(at(to))?;
    let (mut bytes, mut copied) = (0, Vec::<PathBuf>::new());
    for (i, (path, len)) in files.iter().enumerate() {
        let target = to.join(path.file_name().unwrap_or_default());
        let is_newest = i + 1 == files.len();
        let done = if is_newest { copy_start(path, &target, *len) } else { copy_file(path, &target, how) };
        match done {
            Ok(n) => bytes += n,
            // Retention took it meanwhile, and before it all that are older: the log begins later.
            Err(Error::Io(e)) if e.source.kind() == io::ErrorKind::NotFound && !is_newest => {
                bytes = 0;
                for file in copied.drain(..) {
                    fs::remove_file(&file).map_err(at(&file))?;
                }
                continue;
            }
            Err(error) => return Err(error),
        }
        let index = path.with_extension("idx");
        if !is_newest && index.exists() {
            // Only a help: it is made again where it is missing.
            let beside = target.with_extension("idx");
            if copy_file(&index, &beside, how).is_ok() {
                copied.push(beside);
            }
        }
        copied.push(target);
    }
    Ok(bytes)
}

/// The first `len` bytes of a file: behind them another process may be writing.
fn copy_start(from: &Path, to: &Path, len: u64) -> Result<u64, Error> {
    let file = File::open(from).map_err(at(from))?;
    let mut out = File::create(to).map_err(at(to))?;
    let copied = io::copy(&mut file.take(len), &mut out).map_err(at(to))?;
    if copied < len {
        return Err(at(from)(io::ErrorKind::UnexpectedEof.into()).into());
    }
    Ok(copied)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), files::Error> {
    let mut file = File::create(path).map_err(at(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(path))
}

/// All files in a folder, and then itself.
fn sync_all(dir: &Path) -> Result<(), files::Error> {
    for item in fs::read_dir(dir).map_err(at(dir))? {
        let path = item.map_err(at(dir))?.path();
        if path.is_dir() { sync_all(&path)? } else { sync_file(&path)? }
    }
    sync_folder(dir)
}

fn sync_file(path: &Path) -> Result<(), files::Error> {
    File::open(path).and_then(|f| f.sync_all()).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, Options};
    use std::os::unix::fs::PermissionsExt;

    fn fill(dir: &Path, n: u32) -> Log {
        let mut log = Log::open(&dir.join("log"), Options { segment_bytes: 2_000, ..Options::default() }).unwrap().log;
        for i in 0..n {
            let text = format!("{{\"n\":{i},\"fill\":\"{}\"}}", "x".repeat(100));
            let header = citybrain_shared::record::Header::local(citybrain_shared::record::Kind::Event, "t");
            let draft = citybrain_shared::record::Draft::new(&header, text.as_bytes()).unwrap();
            log.append([draft.bytes()]);
            log.commit().unwrap();
        }
        log
    }

    #[test]
    fn a_backup_of_a_running_log_is_whole_and_comes_back_with_a_mark() {
        let root = tempfile::tempdir().unwrap();
        let (dir, target) = (root.path().join("data"), root.path().join("backup"));
        let mut log = fill(&dir, 50);
        assert!(log.segments().len() > 2);
        let taken = take(&dir, &target, "2026-01-01T00:00:00Z".into()).unwrap();
        assert_eq!((taken.first, taken.last), (Pos(1), Pos(50)));
        assert!(matches!(take(&dir, &target, String::new()), Err(Error::Exists { .. })));
        let is_open = |dir: &Path| fs::metadata(dir).unwrap().permissions().mode() & 0o007 != 0;
        assert!(!is_open(&target), "it is not for everybody");
        assert!(matches!(restore(&target, &dir), Err(Error::InUse { .. })));
        // What is written later is not in the backup, also not through a shared file.
        let header = citybrain_shared::record::Header::local(citybrain_shared::record::Kind::Event, "t");
        let draft = citybrain_shared::record::Draft::new(&header, b"{}").unwrap();
        log.append([draft.bytes()]);
        log.commit().unwrap();
        drop(log);
        let (said, aside) = restore(&target, &dir).unwrap();
        assert_eq!(said, taken);
        assert!(aside.unwrap().join("log").is_dir());
        assert_eq!(mark(&dir).as_deref(), Some(RESTORED));
        assert_eq!(log::open_read_only(&dir.join("log")).unwrap().0.last(), Pos(50));
        forget_mark(&dir).unwrap();
        forget_mark(&dir).unwrap();
        assert_eq!(mark(&dir), None);
    }

    #[test]
    fn a_log_that_grows_and_is_trimmed_while_it_is_copied_gives_a_whole_backup() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        let (mut state, _) = store::Store::open(&dir, 1 << 20).unwrap();
        let mut log = fill(&dir, 30);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (stop, dir) = (&stop, &dir);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..30 {
                        let header =
                            citybrain_shared::record::Header::local(citybrain_shared::record::Kind::Event, "t");
                        let draft = citybrain_shared::record::Draft::new(&header, &[b'x'; 300]).unwrap();
                        log.append([draft.bytes()]);
                        log.commit().unwrap();
                    }
                    state.write(vec![(b"k".to_vec(), Some(b"v".to_vec()))], log.last()).unwrap();
                    state.snapshot(log.last()).unwrap();
                    log.trim(state.trim_floor().next()).unwrap();
                }
            });
            let taken: Vec<_> = (0..20).map(|n| take(dir, &root.path().join(n.to_string()), String::new())).collect();
            stop.store(true, Ordering::Relaxed);
            for (n, about) in taken.into_iter().enumerate() {
                let (about, target) = (about.unwrap(), root.path().join(n.to_string()));
                let first = about.first;
                assert!(first == Pos(1) || store::newest_whole(&target, |pos| pos.next() >= first).is_some());
            }
        });
    }

    #[test]
    fn what_retention_took_meanwhile_is_left_out_with_all_before_it() {
        let root = tempfile::tempdir().unwrap();
        let (dir, to) = (root.path().join("data"), root.path().join("to"));
        let log = fill(&dir, 50);
        let files = log.reader().files();
        fs::remove_file(&files[2].0).unwrap();
        // What comes behind the newest's counted bytes is not copied.
        let mut more = File::options().append(true).open(&files[files.len() - 1].0).unwrap();
        more.write_all(b"half an entry").unwrap();
        let bytes = copy_log(&files, &to, Sealed::Link).unwrap();
        let reader = log::open_read_only(&to).unwrap().0;
        assert_eq!(reader.first(), log.segments()[3].first);
        assert_eq!(reader.last(), Pos(50));
        assert_eq!(bytes, files[3..].iter().map(|(_, n)| n).sum::<u64>());
        // No snapshot reaches that far back.
        let target = root.path().join("backup");
        for (path, _) in &files[..2] {
            fs::remove_file(path).unwrap();
        }
        assert!(matches!(take(&dir, &target, String::new()), Err(Error::Gap { .. })));
        assert!(!target.exists() && !root.path().join("backup.part").exists());
    }

    #[test]
    fn a_mount_point_is_known_before_anything_is_copied() {
        let root = tempfile::tempdir().unwrap();
        assert!(is_mount(Path::new("/proc")) && !is_mount(root.path()) && !is_mount(&root.path().join("none")));
    }

    #[test]
    fn a_restore_that_cannot_be_put_in_place_leaves_the_folder_that_was_there() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("data")).unwrap();
        fs::write(at("data").join("old"), "").unwrap();
        // The copy is not there: the second of two renames fails.
        assert!(put_one_after_the_other(&at("part"), &at("data"), &at("aside")).is_err());
        assert!(at("data").join("old").exists() && !at("aside").exists());
        fs::create_dir(at("part")).unwrap();
        put_one_after_the_other(&at("part"), &at("data"), &at("aside")).unwrap();
        assert!(at("aside").join("old").exists() && !at("data").join("old").exists());
        // The same in one step.
        let place = put_in_place(&at("aside"), &at("data")).unwrap().unwrap();
        assert!(at("data").join("old").exists() && !place.join("old").exists() && !at("aside").exists());
    }

    #[test]
    fn a_data_folder_that_is_a_link_stays_one_when_a_backup_is_put_back() {
        let root = tempfile::tempdir().unwrap();
        let (private, target) = (root.path().join("private"), root.path().join("backup"));
        fs::create_dir(&private).unwrap();
        let (real, link) = (private.join("data"), root.path().join("data"));
        drop(fill(&real, 5));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        take(&link, &target, String::new()).unwrap();
        let (_, aside) = restore(&target, &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), real);
        assert!(mark(&real).is_some());
        assert_eq!(aside.unwrap(), fs::canonicalize(&private).unwrap().join("data.before-restore-1"));
        assert_eq!(log::open_read_only(&link.join("log")).unwrap().0.last(), Pos(5));
    }

    #[test]
    fn a_damaged_backup_is_not_put_back() {
        let root = tempfile::tempdir().unwrap();
        let (dir, target) = (root.path().join("data"), root.path().join("backup"));
        drop(fill(&dir, 50));
        take(&dir, &target, String::new()).unwrap();
        let first = target.join("log").join(format!("{:020}.log", 1));
        let mut bytes = fs::read(&first).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 0xff;
        fs::remove_file(&first).unwrap();
        fs::write(&first, bytes).unwrap();
        assert!(matches!(restore(&target, &dir), Err(Error::Damaged { .. })));
        assert_eq!(mark(&dir), None);
        assert!(matches!(about(root.path()), Err(Error::NoBackup { .. })));
    }
}
