//! Why there is no answer to show, with the exit code of a command that wanted one.

use crate::config::Invalid;
use citybrain_shared::view::{Answer, Failure, Known};

#[derive(Debug, thiserror::Error)]
#[error("{}", failure.detail)]
pub struct Fail {
    pub code: u8,
    pub failure: Failure,
    /// Config files to be drawn first.
    pub invalid: Vec<Invalid>,
    /// What a node above the silent one last knew of it: to be shown as an answer.
    pub known: Option<Box<Answer<Known>>>,
}

impl Fail {
    /// Answered, and the answer is no.
    pub fn no(error: &str, detail: impl Into<String>, hint: impl Into<String>) -> Fail {
        Fail::new(1, error, detail, hint)
    }

    /// Wrong usage or config.
    pub fn usage(detail: impl Into<String>, hint: impl Into<String>) -> Fail {
        Fail::new(2, "usage", detail, hint)
    }

    /// Nobody answered, or too late.
    pub fn unreachable(detail: impl Into<String>, hint: impl Into<String>) -> Fail {
        Fail::new(3, "unreachable", detail, hint)
    }

    pub fn new(code: u8, error: &str, detail: impl Into<String>, hint: impl Into<String>) -> Fail {
        let failure = Failure { error: error.into(), detail: detail.into(), hint: hint.into() };
        Fail { code, failure, invalid: Vec::new(), known: None }
    }
}

impl From<Invalid> for Fail {
    fn from(invalid: Invalid) -> Fail {
        let hint = format!("`citybrain check {}` checks it again without starting", invalid.path().display());
        Fail { invalid: vec![invalid], ..Fail::new(2, "config", "", hint) }.counted()
    }
}

impl Fail {
    fn counted(mut self) -> Fail {
        self.failure.detail = self.invalid.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        self
    }
}
