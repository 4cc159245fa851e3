//! Accounts: a file of names and password hashes.
//!
//! **Constraints**: no password is kept or compared as it is; a wrong one costs the node no more
//! than a right one, and guessing is slow; a storm of reconnecting clients hashes nothing.
//! **Format**: a line each, `USER:HASH`, or `USER:ADDRESS:HASH` for a child node's account; the hash
//! is an argon2id PHC string, or `-`: no password, only a certificate. `#` begins a comment. `citybrain user` writes it.
//! **Operation**: the file is read again when it changes. A password that was right is remembered as
//! a keyed digest for as long as its line stays the same; only others are hashed, on a thread for
//! blocking work, few at a time.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2};
use blake2::{Blake2s256, Digest};
use citybrain_shared::Address;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// Passwords hashed at a time; each takes 19 MiB.
const HASHING_MAX: usize = 2;

/// Failed logins of one peer within the time; beyond it nothing is hashed for it.
const FAILURES_MAX: u32 = 10;
const FAILURES_WITHIN: Duration = Duration::from_secs(60);

/// Remembered passwords, and remembered peers.
const REMEMBERED_MAX: usize = 20_000;

#[derive(Debug)]
pub struct Users {
    path: PathBuf,
    file: Mutex<File>,
    /// Of the digests; made anew by each process.
    key: [u8; 32],
    good: Mutex<HashMap<String, Good>>,
    failures: Mutex<HashMap<IpAddr, (Instant, u32)>>,
    hashing: Semaphore,
}

/// A password that was right.
#[derive(Debug)]
struct Good {
    /// The line's hash at that time.
    hash: Arc<str>,
    digest: [u8; 32],
}

#[derive(Debug, Default)]
struct File {
    /// When it was read last; `None`: it was not there.
    stamp: Option<(SystemTime, u64)>,
    by_name: HashMap<String, Account>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `None`: there is no password.
    pub hash: Option<Arc<str>>,
    pub child: Option<Address>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Wrong,
    /// This peer has been wrong too often.
    TooOften,
}

/// Stands for the hash of an account that is only for a certificate.
pub const NO_PASSWORD: &str = "-";

/// A line that is no account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the users file {what}; `citybrain user add NAME --file FILE` writes a line with a hash")]
pub struct BadLine {
    pub line: usize,
    pub what: &'static str,
}

/// Reads a users file's text: the accounts, by name, and the lines that are none.
pub fn parse(text: &str) -> (HashMap<String, Account>, Vec<BadLine>) {
    let (mut users, mut bad) = (HashMap::new(), Vec::new());
    for (i, line) in text.lines().map(str::trim).enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#')) {
        let mut refuse = |what| bad.push(BadLine { line: i + 1, what });
        let Some((name, rest)) = line.split_once(':').filter(|(n, _)| !n.is_empty()) else {
            refuse("is no `USER:HASH`");
            continue;
        };
        // A hash has no colon.
        let (child, hash) = match rest.rsplit_once(':') {
            Some((address, hash)) => match Address::parse(address) {
                Ok(address) => (Some(address), hash),
                Err(_) if hash.starts_with("$argon2") || hash == NO_PASSWORD => {
                    refuse("binds its user to something that is no address");
                    continue;
                }
                Err(_) => (None, rest),
            },
            None => (None, rest),
        };
        if hash == NO_PASSWORD {
            users.insert(name.to_owned(), Account { hash: None, child });
            continue;
        }
        if !PasswordHash::new(hash).is_ok_and(|h| h.algorithm == Algorithm::Argon2id.ident() && h.hash.is_some()) {
            refuse("holds a password in plain text, or a hash that is no argon2id");
            continue;
        }
        users.insert(name.to_owned(), Account { hash: Some(hash.into()), child });
    }
    (users, bad)
}

/// The PHC string of a password, with a new salt. Takes a while, on purpose.
///
/// # Errors
/// When the system has no random bytes, or the password is longer than 4 GiB.
pub fn hash(password: &[u8]) -> Result<String, String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|e| e.to_string())?;
    let salt = SaltString::encode_b64(&salt).map_err(|e| e.to_string())?;
    Ok(Argon2::default().hash_password(password, &salt).map_err(|e| e.to_string())?.to_string())
}

fn verify(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash).is_ok_and(|h| Argon2::default().verify_password(password, &h).is_ok())
}

/// Of nobody: an unknown user takes as long as a known one.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

impl Users {
    pub fn new(path: &Path) -> Users {
        let mut key = [0; 32];
        // Without random bytes the digests are only as good as the process's memory is closed.
        if let Err(error) = getrandom::fill(&mut key) {
            tracing::warn!(%error, "No random bytes for the key of remembered passwords.");
        }
        Users {
            path: path.to_owned(),
            file: Mutex::default(),
            key,
            good: Mutex::default(),
            failures: Mutex::default(),
            hashing: Semaphore::new(HASHING_MAX),
        }
    }

    /// The account of this name, as the file has it now.
    pub fn account(&self, name: &str) -> Option<Account> {
        let mut file = self.file.lock();
        file.refresh(&self.path);
        file.by_name.get(name).cloned()
    }

    /// # Errors
    /// Why not.
    pub async fn login(&self, peer: IpAddr, name: &str, password: &[u8]) -> Result<Account, Refused> {
        let account = self.account(name);
        let digest = self.digest(name, password);
        if let Some(account) = &account
            && self
                .good
                .lock()
                .get(name)
                .is_some_and(|g| Some(&g.hash) == account.hash.as_ref() && same(&g.digest, &digest))
        {
            return Ok(account.clone());
        }
        if self.has_failed_often(peer) {
            return Err(Refused::TooOften);
        }
        let hash: Arc<str> = account.as_ref().and_then(|a| a.hash.clone()).unwrap_or_else(|| NOBODY.into());
        let right = {
            let _turn = self.hashing.acquire().await.map_err(|_| Refused::Wrong)?;
            let (hash, password) = (hash.clone(), password.to_vec());
            tokio::task::spawn_blocking(move || verify(&hash, &password)).await.unwrap_or(false)
        };
        match account.filter(|a| right && a.hash.is_some()) {
            Some(account) => {
                let mut good = self.good.lock();
                if good.len() >= REMEMBERED_MAX {
                    good.clear();
                }
                good.insert(name.to_owned(), Good { hash, digest });
                Ok(account)
            }
            None => {
                self.note_failure(peer);
                Err(Refused::Wrong)
            }
        }
    }

    fn digest(&self, name: &str, password: &[u8]) -> [u8; 32] {
        let mut d = Blake2s256::new();
        d.update(self.key);
        d.update((name.len() as u64).to_le_bytes());
        d.update(name);
        d.update(password);
        d.finalize().into()
    }

    fn has_failed_often(&self, peer: IpAddr) -> bool {
        let failures = self.failures.lock();
        failures.get(&peer).is_some_and(|(since, n)| *n >= FAILURES_MAX && since.elapsed() < FAILURES_WITHIN)
    }

    fn note_failure(&self, peer: IpAddr) {
        let mut failures = self.failures.lock();
        if failures.len() >= REMEMBERED_MAX {
            failures.retain(|_, (since, _)| since.elapsed() < FAILURES_WITHIN);
        }
        if failures.len() >= REMEMBERED_MAX {
            failures.clear();
        }
        let entry = failures.entry(peer).or_insert((Instant::now(), 0));
        if entry.0.elapsed() >= FAILURES_WITHIN {
            *entry = (Instant::now(), 0);
        }
        entry.1 += 1;
    }
}

/// Takes as long for a wrong first byte as for a wrong last one.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

impl File {
    fn refresh(&mut self, path: &Path) {
        let stamp = std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        if stamp == self.stamp && stamp.is_some() {
            return;
        }
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let (users, bad) = parse(&text);
                for line in bad {
                    tracing::warn!(path = %path.display(), "Nobody may log in by a line: {line}.");
                }
                self.by_name = users;
                self.stamp = stamp;
                tracing::info!(path = %path.display(), users = self.by_name.len(), "Read the users file.");
            }
            Err(error) => {
                // The accounts known so far stay good: a file that is being replaced locks nobody out.
                if self.stamp.take().is_some() || self.by_name.is_empty() {
                    tracing::warn!(path = %path.display(), %error, "The users file cannot be read.");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn a_changed_file_counts_at_once_and_a_right_password_is_hashed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let secret = hash(b"secret:with:colons").unwrap();
        std::fs::write(&path, format!("# people\nann:{secret}\nstreet:c/s:{secret}\nplain:word\ncard:c/t:-\n"))
            .unwrap();
        let users = Users::new(&path);
        assert_eq!(users.login(PEER, "ann", b"wrong").await, Err(Refused::Wrong));
        assert_eq!(users.login(PEER, "plain", b"word").await, Err(Refused::Wrong));
        assert_eq!(users.login(PEER, "card", b"-").await, Err(Refused::Wrong));
        assert_eq!(users.account("card"), Some(Account { hash: None, child: Address::parse("c/t").ok() }));
        assert!(users.login(PEER, "ann", b"secret:with:colons").await.is_ok());
        let street = users.login(PEER, "street", b"secret:with:colons").await.unwrap();
        assert_eq!(street.child, Some(Address::parse("c/s").unwrap()));
        let start = Instant::now();
        for _ in 0..100 {
            assert!(users.login(PEER, "ann", b"secret:with:colons").await.is_ok());
        }
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        std::fs::write(&path, format!("ann:{}\n", hash(b"new").unwrap())).unwrap();
        assert!(users.login(PEER, "ann", b"secret:with:colons").await.is_err());
        assert!(users.login(PEER, "ann", b"new").await.is_ok());
        assert!(users.login(PEER, "street", b"secret:with:colons").await.is_err());
    }

    #[tokio::test]
    async fn who_guesses_is_no_longer_heard_and_who_is_known_still_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        std::fs::write(&path, format!("ann:{}\n", hash(b"a").unwrap())).unwrap();
        let users = Users::new(&path);
        assert!(users.login(PEER, "ann", b"a").await.is_ok());
        for _ in 0..FAILURES_MAX {
            users.note_failure(PEER);
        }
        assert_eq!(users.login(PEER, "ann", b"b").await, Err(Refused::TooOften));
        assert!(users.login(PEER, "ann", b"a").await.is_ok());
        let other = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(users.login(other, "nobody", b"b").await, Err(Refused::Wrong));
    }

    #[test]
    fn a_line_in_plain_text_names_the_command_that_hashes() {
        let (users, bad) = parse("\nann:secret\nbob\nc:c/d:$argon2i$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAA\n");
        assert!(users.is_empty());
        assert_eq!(bad.iter().map(|b| b.line).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(bad[0].to_string().contains("`citybrain user add"), "{}", bad[0]);
    }
}
