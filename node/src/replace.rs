//! A file of ours changed in one step: whoever reads it sees the old one or the new one, whole, after a
//! power cut too.

use citybrain_hub::files::{self, at, folder_of, put_whole};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Who may read and write it, as in chmod.
#[derive(Clone, Copy, Debug)]
pub enum Rights {
    /// As it was; if there was none, `new` less what the umask takes.
    Kept { new: u32 },
    /// As it was; if there was none, for everybody to read, whatever the umask: the node's own user has to.
    Public,
    /// For its owner's eyes only, and its group's where that was let in before, or where the folder says that
    /// all in it is the group's (setgid): how a service's own user gets to read it.
    Private,
}

/// Puts `bytes` in the place of what is at `path`, or there for the first time. Its owner stays: a
/// file that root changes must stay readable for the node's own user.
///
/// # Errors
/// When it cannot be written, synced or put in place; what was there stays.
pub fn replace(path: &Path, bytes: &[u8], rights: Rights) -> io::Result<()> {
    let before = match fs::metadata(path) {
        Ok(about) => Some(about),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let dir = folder_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let mode = match (rights, &before) {
        (Rights::Private, Some(about)) => 0o600 | about.mode() & 0o040,
        (Rights::Private, None) if fs::metadata(dir)?.mode() & 0o2000 != 0 => 0o640,
        (Rights::Private, None) => 0o600,
        (Rights::Kept { .. } | Rights::Public, Some(about)) => about.mode() & 0o777,
        (Rights::Kept { new }, None) => new,
        (Rights::Public, None) => 0o644,
    };
    // Of a process of this number that was killed; in a container it is always the same.
    let _ = fs::remove_file(&temporary);
    let file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
    let write = || {
        (&file).write_all(bytes)?;
        if let Some(about) = &before {
            // Only root can give a file away; anybody else owns it already or leaves it with himself.
            let _ = fchown(&file, Some(about.uid()), Some(about.gid()));
        }
        if before.is_some() || !matches!(rights, Rights::Kept { .. }) {
            // What it was made with is masked: root's umask must not shut the node's own user out.
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(())
    };
    let put = put_whole(&file, &temporary, path, || write().map_err(at(&temporary)));
    put.map_err(|e: files::Error| e.source)
}

/// What kept an [`edit`] from being done; what was there stays.
#[derive(Debug)]
pub enum Stopped<E> {
    Read(io::Error),
    Write(io::Error),
    /// The change itself had a reason.
    Change(E),
}

/// Changes the text of a file by what it says now, `None` where there is no file: as [`replace`], and
/// alone. Whoever else edits a file of that folder waits.
///
/// # Errors
/// See [`Stopped`].
pub fn edit<E>(
    path: &Path,
    rights: Rights,
    change: impl FnOnce(Option<String>) -> Result<String, E>,
) -> Result<(), Stopped<E>> {
    // The file itself is another one after each change; a lock of its folder holds for all of them
    // and leaves nothing beside them.
    let folder = File::open(folder_of(path)).map_err(Stopped::Read)?;
    folder.lock().map_err(Stopped::Write)?;
    let before = match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(Stopped::Read(e)),
    };
    let text = change(before).map_err(Stopped::Change)?;
    replace(path, text.as_bytes(), rights).map_err(Stopped::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn what_a_killed_process_of_the_same_number_left_stands_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let stale = dir.path().join(format!(".state.{}", std::process::id()));
        fs::write(&stale, "half").unwrap();
        replace(&path, b"one", Rights::Private).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(!stale.exists());
    }

    #[test]
    fn a_changed_file_is_whole_keeps_its_owner_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        replace(&path, b"one", Rights::Private).unwrap();
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        // Only root may give a file away; whoever else runs this sees that it stays his.
        let given = chown(&path, Some(4_711), Some(4_712)).is_ok();
        let owner = || fs::metadata(&path).map(|a| (a.uid(), a.gid())).unwrap();
        let before = owner();
        assert!(!given || before == (4_711, 4_712));
        replace(&path, b"two", Rights::Kept { new: 0o644 }).unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode(), owner()), (&b"two"[..], 0o640, before));
        replace(&path, b"three", Rights::Private).unwrap();
        assert_eq!((mode(), owner()), (0o640, before), "its group was let in");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"four", Rights::Private).unwrap();
        assert_eq!(mode(), 0o640, "and others never");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // A folder of a group, as a service has it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2750)).unwrap();
        fs::remove_file(&path).unwrap();
        replace(&path, b"five", Rights::Private).unwrap();
        assert_eq!(mode(), 0o640);
    }
}
