//! By what a file is known to have changed, without reading it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Inode, time of change (s and ns) and length: one that was put in another's place differs, even if
/// it was made in the same moment and is as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64, i64, i64, u64);

impl Stamp {
    /// `None`: there is none to be seen.
    pub fn of(path: &Path) -> Option<Stamp> {
        let about = std::fs::metadata(path).ok()?;
        Some(Stamp(about.ino(), about.mtime(), about.mtime_nsec(), about.size()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_took_anothers_place_is_another_though_it_is_as_old_and_as_long() {
        let dir = tempfile::tempdir().unwrap();
        let (path, next) = (dir.path().join("file"), dir.path().join("next"));
        assert_eq!(Stamp::of(&path), None);
        std::fs::write(&path, "a").unwrap();
        std::fs::write(&next, "b").unwrap();
        let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(&next).unwrap().set_modified(changed).unwrap();
        let before = Stamp::of(&path);
        assert!(before.is_some() && before == Stamp::of(&path));
        std::fs::rename(&next, &path).unwrap();
        assert_ne!(Stamp::of(&path), before);
    }
}
