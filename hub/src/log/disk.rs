//! The few calls by which the log changes a disk, and how much room it has, so that a test can make
//! them fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub(crate) trait Disk: Send + Sync {
    /// Writes all of `bytes` at `offset`; after an error any part of them may be there.
    fn write(&self, path: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes so many zeros at `offset`; after an error any part of them may be there.
    fn zero(&self, path: &Path, file: &File, offset: u64, bytes: u64) -> io::Result<()> {
        // A page at a time: what is written at once the kernel may keep as one large folio, and write
        // to the disk whole for each byte that changes in it.
        let end = offset + bytes;
        let mut at = offset;
        while at < end {
            let len = (PAGE_BYTES - at % PAGE_BYTES).min(end - at);
            self.write(path, file, &ZEROS[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }

    /// All written before is on the disk, with the file's length.
    fn sync(&self, path: &Path, file: &File) -> io::Result<()>;

    /// Free for this process on the file system of `dir`, bytes; a lot where that cannot be told.
    fn free_bytes(&self, dir: &Path) -> u64 {
        rustix::fs::statvfs(dir).map_or(u64::MAX, |s| s.f_bavail.saturating_mul(s.f_frsize))
    }
}

const PAGE_BYTES: u64 = 4096;
static ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

pub(crate) struct Real;

impl Disk for Real {
    fn write(&self, _: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, _: &Path, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// A disk that fails on order.
#[cfg(test)]
pub(super) mod test {
    use super::*;
    use parking_lot::Mutex;
    use std::collections::HashMap;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// What a disk writes at once.
    const SECTOR_BYTES: usize = 512;

    #[derive(Default)]
    pub(crate) struct Faulty(Mutex<Plan>, Sync);

    #[derive(Default)]
    struct Sync {
        /// Whoever holds it holds up every sync.
        may: Mutex<()>,
        is_waiting: AtomicBool,
    }

    #[derive(Default)]
    struct Plan {
        /// Writes and syncs until one fails; `None` never.
        write_in: Option<u32>,
        sync_in: Option<u32>,
        /// What of each file a power cut leaves for certain.
        synced: HashMap<PathBuf, Vec<u8>>,
        kind: Option<io::ErrorKind>,
        /// Free, as this disk has it; `None`: as it is.
        free_bytes: Option<u64>,
    }

    impl Faulty {
        pub(crate) fn set_free(&self, bytes: u64) {
            self.0.lock().free_bytes = Some(bytes);
        }

        /// The n-th write from now fails half way (0: the next).
        pub(crate) fn fail_write(&self, n: u32, kind: io::ErrorKind) {
            let mut plan = self.0.lock();
            plan.write_in = Some(n);
            plan.kind = Some(kind);
        }

        pub(crate) fn fail_sync(&self, n: u32) {
            let mut plan = self.0.lock();
            plan.sync_in = Some(n);
            plan.kind = Some(io::ErrorKind::Other);
        }

        /// No sync comes to its end while what is returned is held.
        pub(crate) fn hold_syncs(&self) -> impl Drop + '_ {
            self.1.may.lock()
        }

        /// Has one begun since they were held?
        pub(crate) fn is_syncing(&self) -> bool {
            self.1.is_waiting.load(Ordering::SeqCst)
        }

        pub(crate) fn heal(&self) {
            let mut plan = self.0.lock();
            plan.write_in = None;
            plan.sync_in = None;
        }

        /// Of what was written and not synced some sectors are there, in no order: the n-th if bit
        /// n modulo 64 of `kept` is set.
        pub(crate) fn cut_power(&self, kept: u64) {
            for (path, synced) in &self.0.lock().synced {
                let Ok(written) = std::fs::read(path) else { continue };
                let mut left = synced.clone();
                let changed = (0..written.len()).find(|at| synced.get(*at) != Some(&written[*at]));
                let first = changed.unwrap_or(written.len()) / SECTOR_BYTES;
                for (n, sector) in written.chunks(SECTOR_BYTES).enumerate().skip(first) {
                    if kept & (1 << ((n - first) % 64)) != 0 {
                        let at = n * SECTOR_BYTES;
                        left.resize(left.len().max(at + sector.len()), 0);
                        left[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
                std::fs::write(path, left).unwrap();
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
            let synced = || std::fs::read(path).unwrap_or_default();
            plan.synced.entry(path.to_owned()).or_insert_with(synced);
            if due(&mut plan.write_in) {
                file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                return Err(plan.kind.expect("set with the countdown").into());
            }
            file.write_all_at(bytes, offset)
        }

        fn sync(&self, path: &Path, _: &File) -> io::Result<()> {
            self.1.is_waiting.store(true, Ordering::SeqCst);
            drop(self.1.may.lock());
            self.1.is_waiting.store(false, Ordering::SeqCst);
            let mut plan = self.0.lock();
            if due(&mut plan.sync_in) {
                return Err(plan.kind.expect("set with the countdown").into());
            }
            plan.synced.insert(path.to_owned(), std::fs::read(path)?);
            Ok(())
        }

        fn free_bytes(&self, dir: &Path) -> u64 {
            self.0.lock().free_bytes.unwrap_or_else(|| Real.free_bytes(dir))
        }
    }
}
