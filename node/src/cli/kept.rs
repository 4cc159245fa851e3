//! The files of names that the command line keeps for a node: tokens and users.

use super::Fail;
use crate::replace::Stopped;
use std::io;
use std::path::Path;

/// Which file it is, for whoever gave another.
pub(super) struct Kept {
    /// The key of the node's config that names it.
    pub key: &'static str,
    /// What makes it.
    pub made_by: &'static str,
}

impl Kept {
    pub fn unreadable(&self, path: &Path, e: &io::Error) -> Fail {
        let hint = format!("give the file that `{}` of the node's config names; `{}` makes it", self.key, self.made_by);
        Fail::usage(format!("cannot read `{}`: {e}", path.display()), hint)
    }

    /// What kept a change from being made.
    pub fn stopped(&self, path: &Path, stopped: Stopped<Fail>) -> Fail {
        match stopped {
            Stopped::Read(e) => self.unreadable(path, &e),
            Stopped::Write(e) => {
                let hint = "give a place that is yours to write to: run it as the owner of the file's folder";
                Fail::usage(format!("cannot write `{}`: {e}", path.display()), hint)
            }
            Stopped::Change(fail) => fail,
        }
    }
}
