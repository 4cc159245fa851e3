//! A file that is only there to be given up: on a full disk a node must still be able to start and
//! to write its snapshot.

use super::Error;
use crate::files::{self, at, sync_folder};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const NAME: &str = "ballast";

/// Removes the ballast in the log's folder. That there is none is no error.
///
/// # Errors
/// [`Error::Io`].
pub fn release(dir: &Path) -> Result<(), Error> {
    let path = dir.join(NAME);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Io(files::Error { path, source })),
        _ => Ok(()),
    }
}

/// Makes the ballast if it is not there in its full size. Real bytes: a sparse file reserves nothing.
pub(super) fn create(dir: &Path, bytes: u64) -> Result<(), Error> {
    let path = dir.join(NAME);
    if bytes == 0 || fs::metadata(&path).is_ok_and(|m| m.len() == bytes) {
        return Ok(());
    }
    let made = (|| {
        let mut file = File::create(&path)?;
        let block = vec![0; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            let n = left.min(block.len() as u64);
            file.write_all(&block[..n as usize])?;
            left -= n;
        }
        file.sync_all()
    })();
    let made = made.map_err(at(&path)).and_then(|()| sync_folder(dir));
    made.map_err(|e| {
        let _ = fs::remove_file(&path);
        e.into()
    })
}
