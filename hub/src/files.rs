//! Files and folders of ours: one error that names its place, and how a file is put there whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A file or a folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{path}`")]
pub struct Error {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// What the operating system says, of this path.
pub fn at(path: &Path) -> impl Fn(io::Error) -> Error + Copy {
    move |source| Error { path: path.to_owned(), source }
}

/// Makes names in `dir` (created, renamed, removed files) survive a power cut.
///
/// # Errors
/// When it cannot be opened or synced.
pub fn sync_folder(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

/// Puts what `write` writes into `temporary`, which is open as `file`, in the place of `path`: file, fsync, rename,
/// fsync of the folder. All of it is there or nothing.
///
/// # Errors
/// That of `write`, or [`Error`]; what was at `path` stays, unless only the folder's fsync has failed.
pub fn put_whole<T, E: From<Error>>(
    file: &File,
    temporary: &Path,
    path: &Path,
    write: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let put = (|| {
        let written = write()?;
        file.sync_all().map_err(at(temporary))?;
        fs::rename(temporary, path).map_err(at(path))?;
        sync_folder(folder_of(path))?;
        Ok(written)
    })();
    if put.is_err() {
        // Best effort: half a file on a full disk is in the way.
        let _ = fs::remove_file(temporary);
    }
    put
}

/// The folder that a file lies in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_put_whole_or_leaves_what_was_there_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, temporary) = (dir.path().join("index"), dir.path().join("index.tmp"));
        let put = |text: &str, then: Result<u32, Error>| {
            let mut file = File::create(&temporary).unwrap();
            put_whole(&file.try_clone().unwrap(), &temporary, &path, || {
                file.write_all(text.as_bytes()).map_err(at(&temporary))?;
                then
            })
        };
        assert_eq!(put("one", Ok(1)).unwrap(), 1);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        let failed = put("two", Err(at(&temporary)(io::ErrorKind::StorageFull.into()))).unwrap_err();
        assert_eq!(failed.to_string(), format!("cannot use `{}`", temporary.display()));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
