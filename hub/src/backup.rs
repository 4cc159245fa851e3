//! Copies of a data folder, and putting them back.
//!
//! # Constraints
//! - A backup is a prefix of the log: whatever was acknowledged before it began is in it.
//! - It can be taken while the node runs: segments are append-only, and whatever tears at the end
//!   of the copied newest one is cut at the next start like after a power cut.
//! - A backup is whole or not there: it is written beside its place, synced, then renamed.
//! - A node that starts on a restored folder begins a new history ([`is_restored`]): it may give
//!   positions to records that its peers know for others.
//!
//! # Format
//! `log/` (segments and indexes) and `snapshots/`, as in a data folder, and `backup.json`. sled's folder is
//! left out: it is made again from snapshot and log.
//!
//! # Operation
//! Snapshots first, then the log: retention never goes past the older of two snapshots, so the log
//! that is copied afterwards always reaches back to the newest one copied. Sealed segments never
//! change and are linked where the file system can; the newest is copied.

use crate::log::{self, Damage};
use citybrain_shared::Pos;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

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
    #[error("cannot use `{path}`")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is there already")]
    Exists { path: PathBuf },
    #[error("a node is running on `{path}`")]
    InUse { path: PathBuf },
    #[error("`{path}` is no backup: it has no readable `backup.json`")]
    NoBackup { path: PathBuf },
    #[error("the log in `{path}` is damaged: {} of its records cannot be read, the first at {}", .damage.iter().map(|d| d.last.0 - d.first.0 + 1).sum::<u64>(), .damage.first().map_or(Pos::ZERO, |d| d.first))]
    Damaged { path: PathBuf, damage: Vec<Damage> },
    #[error(transparent)]
    Log(#[from] log::Error),
}

const RESTORED: &str = "restored";
const ABOUT: &str = "backup.json";

pub(crate) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Io { path, source }
}

/// Was this folder put back from a backup since the node's last start?
pub(crate) fn is_restored(dir: &Path) -> bool {
    dir.join(RESTORED).exists()
}

pub(crate) fn forget_restored(dir: &Path) -> io::Result<()> {
    fs::remove_file(dir.join(RESTORED))?;
    File::open(dir)?.sync_all()
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
    let part = beside(target, "part")?;
    let taken = (|| {
        copy_folder(&dir.join("snapshots"), &part.join("snapshots"), Sealed::Link)?;
        let bytes = copy_log(&dir.join("log"), &part.join("log"), Sealed::Link)?;
        let (reader, _) = log::open_read_only(&part.join("log"))?;
        let damage = reader.verify(|_, _| {})?;
        if !damage.is_empty() {
            return Err(Error::Damaged { path: dir.to_owned(), damage });
        }
        let about = About {
            format: 1,
            taken_at,
            of: dir.display().to_string(),
            first: reader.first(),
            last: reader.last(),
            bytes,
        };
        write_synced(&part.join(ABOUT), &serde_json::to_vec_pretty(&about).map_err(|e| io_at(&part)(e.into()))?)?;
        Ok(about)
    })();
    finish(&part, target, taken)
}

/// Puts a backup into the data folder `dir`. What is there is moved aside first; returns where to.
///
/// # Errors
/// [`Error::NoBackup`], [`Error::Damaged`], [`Error::InUse`], [`Error::Io`]; `dir` is then as it was.
pub fn restore(backup: &Path, dir: &Path) -> Result<(About, Option<PathBuf>), Error> {
    let said = about(backup)?;
    // Under systemd's DynamicUser it is a link to a folder elsewhere, which must stay a link.
    let dir = &fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    if log::is_in_use(&dir.join("log"))? {
        return Err(Error::InUse { path: dir.to_owned() });
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
        copy_log(&backup.join("log"), &part.join("log"), Sealed::Copy)?;
        write_restored(&part, &format!("from {}, taken at {}\n", backup.display(), said.taken_at))
    })();
    if let Err(error) = laid {
        let _ = fs::remove_dir_all(&part);
        return Err(error);
    }
    let mut aside = None;
    if dir.exists() {
        let place = (1..).map(|n| sibling(dir, &format!("before-restore-{n}"))).find(|p| !p.exists());
        let place = place.expect("one of endless names is free");
        fs::rename(dir, &place).map_err(io_at(dir))?;
        aside = Some(place);
    }
    finish(&part, dir, Ok(()))?;
    Ok((said, aside))
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
        fs::remove_dir_all(&part).map_err(io_at(&part))?;
    }
    // Residents' matters, as in a node's own folder: not for every user of the machine.
    fs::DirBuilder::new().recursive(true).mode(0o750).create(&part).map_err(io_at(&part))?;
    Ok(part)
}

pub(crate) fn finish<T>(part: &Path, target: &Path, done: Result<T, Error>) -> Result<T, Error> {
    let renamed = done.and_then(|value| {
        sync_all(part)?;
        fs::rename(part, target).map_err(io_at(target))?;
        if let Some(above) = target.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync(above)?;
        }
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
        return Ok(fs::metadata(to).map_err(io_at(to))?.len());
    }
    fs::copy(from, to).map_err(io_at(from))
}

/// Snapshots: whole files that never change, and may go while we look.
fn copy_folder(from: &Path, to: &Path, how: Sealed) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(io_at(to))?;
    let Ok(items) = fs::read_dir(from) else { return Ok(()) };
    for item in items {
        let path = item.map_err(io_at(from))?.path();
        if path.extension().is_none_or(|e| e != "snap") {
            continue;
        }
        match copy_file(&path, &to.join(path.file_name().unwrap_or_default()), how) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            done => drop(done?),
        }
    }
    Ok(())
}

fn copy_log(from: &Path, to: &Path, how: Sealed) -> Result<u64, Error> {
    fs::create_dir_all(to).map_err(io_at(to))?;
    let mut segments: Vec<PathBuf> = Vec::new();
    for item in fs::read_dir(from).map_err(io_at(from))? {
        let path = item.map_err(io_at(from))?.path();
        if path.extension().is_some_and(|e| e == "log") {
            segments.push(path);
        }
    }
    segments.sort();
    let mut bytes = 0;
    let newest = segments.len().saturating_sub(1);
    for (i, path) in segments.iter().enumerate() {
        let target = to.join(path.file_name().unwrap_or_default());
        let how = if i == newest { Sealed::Copy } else { how };
        match copy_file(path, &target, how) {
            Ok(n) => bytes += n,
            // Retention took it meanwhile: the log begins later. Only ever the oldest go.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && bytes == 0 => continue,
            Err(error) => return Err(error),
        }
        let index = path.with_extension("idx");
        if i != newest && index.exists() {
            // Only a help: it is made again where it is missing.
            let _ = copy_file(&index, &target.with_extension("idx"), how);
        }
    }
    Ok(bytes)
}

/// Marks a folder so that its next start begins a new history.
pub(crate) fn write_restored(dir: &Path, from: &str) -> Result<(), Error> {
    write_synced(&dir.join(RESTORED), from.as_bytes())
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = File::create(path).map_err(io_at(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_at(path))
}

fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|f| f.sync_all()).map_err(io_at(path))
}

fn sync_all(dir: &Path) -> Result<(), Error> {
    for item in fs::read_dir(dir).map_err(io_at(dir))? {
        let path = item.map_err(io_at(dir))?.path();
        if path.is_dir() { sync_all(&path)? } else { sync(&path)? }
    }
    sync(dir)
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
        assert!(is_restored(&dir));
        assert_eq!(log::open_read_only(&dir.join("log")).unwrap().0.last(), Pos(50));
        forget_restored(&dir).unwrap();
        assert!(!is_restored(&dir));
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
        assert!(is_restored(&real));
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
        assert!(!is_restored(&dir));
        assert!(matches!(about(root.path()), Err(Error::NoBackup { .. })));
    }
}
