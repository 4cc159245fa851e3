//! The few calls by which the log changes a disk, so that a test can make them fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub trait Disk: Send + Sync {
    /// Writes all of `bytes` at `offset`; after an error any part of them may be there.
    fn write(&self, path: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// All written before is on the disk, with the file's length.
    fn sync(&self, path: &Path, file: &File) -> io::Result<()>;
}

pub struct Real;

impl Disk for Real {
    fn write(&self, _: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, _: &Path, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Makes names in `dir` (created, renamed, removed files) survive a power cut.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A disk that fails on order.
#[cfg(test)]
pub mod test {
    use super::*;
    use parking_lot::Mutex;
    use std::collections::HashMap;
    use std::path::PathBuf;

    #[derive(Default)]
    pub struct Faulty(Mutex<Plan>);

    #[derive(Default)]
    struct Plan {
        /// Writes and syncs until one fails; `None` never.
        write_in: Option<u32>,
        sync_in: Option<u32>,
        /// Bytes of each file that a power cut leaves for certain.
        synced: HashMap<PathBuf, u64>,
        kind: Option<io::ErrorKind>,
    }

    impl Faulty {
        /// The n-th write from now fails half way (0: the next).
        pub fn fail_write(&self, n: u32, kind: io::ErrorKind) {
            let mut plan = self.0.lock();
            plan.write_in = Some(n);
            plan.kind = Some(kind);
        }

        pub fn fail_sync(&self, n: u32) {
            let mut plan = self.0.lock();
            plan.sync_in = Some(n);
            plan.kind = Some(io::ErrorKind::Other);
        }

        pub fn heal(&self) {
            let mut plan = self.0.lock();
            plan.write_in = None;
            plan.sync_in = None;
        }

        /// What was not synced is gone but for its first `kept` bytes.
        pub fn cut_power(&self, kept: u64) {
            for (path, synced) in &self.0.lock().synced {
                if let Ok(file) = File::options().write(true).open(path) {
                    let len = file.metadata().unwrap().len();
                    file.set_len(len.min(synced + kept)).unwrap();
                }
            }
        }
    }

    /// Counts down; at 0 it stays there: a broken disk stays broken until healed.
    fn due(left: &mut Option<u32>) -> bool {
        match left {
            None => false,
            Some(0) => true,
            Some(n) => {
                *n -= 1;
                false
            }
        }
    }

    impl Disk for Faulty {
        fn write(&self, path: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            let mut plan = self.0.lock();
            plan.synced.entry(path.to_owned()).or_insert(offset);
            if due(&mut plan.write_in) {
                file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                return Err(plan.kind.expect("set with the countdown").into());
            }
            file.write_all_at(bytes, offset)
        }

        fn sync(&self, path: &Path, file: &File) -> io::Result<()> {
            let mut plan = self.0.lock();
            if due(&mut plan.sync_in) {
                return Err(plan.kind.expect("set with the countdown").into());
            }
            plan.synced.insert(path.to_owned(), file.metadata()?.len());
            Ok(())
        }
    }
}
