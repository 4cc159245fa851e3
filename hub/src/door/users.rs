//! Accounts: a file of names and password hashes.
//!
//! **Constraints**: no password is kept or compared as it is; a wrong one costs the node no more
//! than a right one, and guessing is slow; a storm of reconnecting clients hashes nothing.
//! **Format**: a line each, `USER:HASH`, `USER:ADDRESS:HASH` for a child node's account,
//! `USER:@ROLE,ROLE:HASH` for one with roles, or `USER:ADDRESS@ROLE:HASH` for one with both; the hash
//! is an argon2id PHC string, or `-`: no password, only a certificate. `#` begins a comment. `citybrain user` writes it.
//! **Operation**: the file is read again when it changes. A password that was right is remembered as
//! a keyed digest for as long as its line stays the same; only others are hashed, on a thread for
//! blocking work, few at a time.

use super::crowd::network;
use crate::stamp::Stamp;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2};
use blake2::{Blake2s256, Digest};
use citybrain_shared::{Address, config};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
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
    /// Those that config defines.
    roles: Vec<String>,
    /// Of the digests; made anew by each process.
    key: [u8; 32],
    good: Mutex<HashMap<String, Good>>,
    failures: Mutex<HashMap<IpAddr, (Instant, u32)>>,
    /// By account: its logins that were refused since its last one that was not.
    refused: Mutex<BTreeMap<String, RefusedLogin>>,
    hashing: Semaphore,
}

/// Logins of one account that were refused, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLogin {
    pub name: String,
    /// Whose account it is, if it is a child node's.
    pub child: Option<Address>,
    /// Where the last one came from.
    pub peer: IpAddr,
    pub times: u64,
    pub last: Instant,
    pub why: Refused,
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
    stamp: Option<Stamp>,
    /// It could not be read, and that has been said.
    unreadable: bool,
    /// Changes so far.
    generation: u64,
    by_name: HashMap<String, Account>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `None`: there is no password.
    pub hash: Option<Arc<str>>,
    pub child: Option<Address>,
    pub roles: Vec<String>,
}

impl Account {
    /// The line of the account in a users file.
    pub fn line(&self, name: &str) -> String {
        let mut line = format!("{name}:");
        if let Some(child) = &self.child {
            line.push_str(child.as_str());
        }
        if !self.roles.is_empty() {
            line.push('@');
            line.push_str(&self.roles.join(","));
        }
        if self.child.is_some() || !self.roles.is_empty() {
            line.push(':');
        }
        line.push_str(self.hash.as_deref().unwrap_or(NO_PASSWORD));
        line
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Wrong,
    /// This peer has been wrong too often.
    TooOften,
}

impl Refused {
    pub fn words(self) -> &'static str {
        match self {
            Refused::Wrong => "wrong user or password",
            Refused::TooOften => "its address had too many wrong passwords",
        }
    }
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
        let (what, hash) = rest.rsplit_once(':').unwrap_or(("", rest));
        let is_hash = hash.starts_with("$argon2") || hash == NO_PASSWORD;
        let Some((child, roles)) = about(what).filter(|_| is_hash || what.is_empty()) else {
            refuse(if is_hash { "has neither an address nor roles (`@ROLE`) between its colons" } else { PLAIN });
            continue;
        };
        if hash == NO_PASSWORD {
            users.insert(name.to_owned(), Account { hash: None, child, roles });
            continue;
        }
        if !PasswordHash::new(hash).is_ok_and(|h| h.algorithm == Algorithm::Argon2id.ident() && h.hash.is_some()) {
            refuse(PLAIN);
            continue;
        }
        users.insert(name.to_owned(), Account { hash: Some(hash.into()), child, roles });
    }
    (users, bad)
}

/// `[ADDRESS][@ROLE,ROLE]`, or nothing.
fn about(text: &str) -> Option<(Option<Address>, Vec<String>)> {
    let (address, roles) = text.split_once('@').map_or((text, None), |(a, r)| (a, Some(r)));
    let child = if address.is_empty() { None } else { Some(Address::parse(address).ok()?) };
    let roles: Vec<String> = roles.into_iter().flat_map(|r| r.split(',')).map(str::to_owned).collect();
    roles.iter().all(|r| config::Role::is_name(r)).then_some((child, roles))
}

const PLAIN: &str = "holds a password in plain text, or a hash that is no argon2id";

/// Roles that accounts have and `known` lacks, each with a user that has it, in order.
pub fn unknown_roles<'a>(accounts: &'a HashMap<String, Account>, known: &[String]) -> Vec<(&'a str, &'a str)> {
    let all = accounts.iter().flat_map(|(name, a)| a.roles.iter().map(move |r| (r.as_str(), name.as_str())));
    let unknown: BTreeMap<&str, &str> = all.filter(|(role, _)| !known.iter().any(|k| k == role)).collect();
    unknown.into_iter().collect()
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
    pub fn new(path: &Path, roles: &[config::Role]) -> Users {
        let mut key = [0; 32];
        // Without random bytes the digests are only as good as the process's memory is closed.
        if let Err(error) = getrandom::fill(&mut key) {
            tracing::warn!(%error, "No random bytes for the key of remembered passwords.");
        }
        Users {
            path: path.to_owned(),
            file: Mutex::default(),
            roles: roles.iter().map(|r| r.name.clone()).collect(),
            key,
            good: Mutex::default(),
            failures: Mutex::default(),
            refused: Mutex::default(),
            hashing: Semaphore::new(HASHING_MAX),
        }
    }

    /// The account of this name, as the file has it now.
    pub fn account(&self, name: &str) -> Option<Account> {
        let mut file = self.file.lock();
        file.refresh(&self.path, &self.roles);
        file.by_name.get(name).cloned()
    }

    /// Grows with every change of the file.
    pub fn generation(&self) -> u64 {
        let mut file = self.file.lock();
        file.refresh(&self.path, &self.roles);
        file.generation
    }

    /// # Errors
    /// Why not.
    pub async fn login(&self, peer: IpAddr, name: &str, password: &[u8]) -> Result<Account, Refused> {
        let account = self.account(name);
        let judged = self.judge(peer, name, password, account.clone()).await;
        match &judged {
            Ok(_) => drop(self.refused.lock().remove(name)),
            // Of names that nobody has only the log tells: there is no end of them.
            Err(why) => account.iter().for_each(|a| self.note_refused(peer, name, a, *why)),
        }
        judged
    }

    /// Accounts whose last login was refused less than `within` ago, by name.
    pub fn refused(&self, within: Duration) -> Vec<RefusedLogin> {
        self.refused.lock().values().filter(|r| r.last.elapsed() < within).cloned().collect()
    }

    fn note_refused(&self, peer: IpAddr, name: &str, account: &Account, why: Refused) {
        let mut refused = self.refused.lock();
        if refused.len() >= REMEMBERED_MAX {
            refused.clear();
        }
        let times = refused.get(name).map_or(0, |r| r.times) + 1;
        let (child, last) = (account.child.clone(), Instant::now());
        refused.insert(name.to_owned(), RefusedLogin { name: name.to_owned(), child, peer, times, last, why });
    }

    async fn judge(
        &self,
        from: IpAddr,
        name: &str,
        password: &[u8],
        account: Option<Account>,
    ) -> Result<Account, Refused> {
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
        let peer = network(from);
        if self.has_failed_often(peer) {
            return Err(Refused::TooOften);
        }
        let hash: Arc<str> = account.as_ref().and_then(|a| a.hash.clone()).unwrap_or_else(|| NOBODY.into());
        let right = {
            let _turn = self.hashing.acquire().await.map_err(|_| Refused::Wrong)?;
            // Many may have come at once.
            if self.has_failed_often(peer) {
                return Err(Refused::TooOften);
            }
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
                match self.note_failure(peer) {
                    1 => tracing::warn!(user = name, peer = %from, "A login was refused: wrong user or password."),
                    FAILURES_MAX => tracing::warn!(
                        user = name,
                        peer = %from,
                        failures = FAILURES_MAX,
                        "Too many wrong passwords came from this address: for the rest of the minute only those are \
                         let in from there who have been before.",
                    ),
                    _ => {}
                }
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

    /// How many it has made within the time.
    fn note_failure(&self, peer: IpAddr) -> u32 {
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
        entry.1
    }
}

/// Takes as long for a wrong first byte as for a wrong last one.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

impl File {
    fn refresh(&mut self, path: &Path, roles: &[String]) {
        let stamp = Stamp::of(path);
        if stamp == self.stamp && stamp.is_some() {
            return;
        }
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let (users, bad) = parse(&text);
                for line in bad {
                    tracing::warn!(path = %path.display(), "Nobody may log in by a line: {line}.");
                }
                for (role, user) in unknown_roles(&users, roles) {
                    tracing::warn!(path = %path.display(), role, user, "No `[[role]]` has this name: it gives no rights.");
                }
                self.generation += 1;
                self.by_name = users;
                (self.stamp, self.unreadable) = (stamp, false);
                tracing::info!(path = %path.display(), users = self.by_name.len(), "Read the users file.");
            }
            Err(error) => {
                // The accounts known so far stay good: a file that is being replaced locks nobody out.
                self.stamp = None;
                // Said once: it is looked at every second.
                if !std::mem::replace(&mut self.unreadable, true) {
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
        let users = Users::new(&path, &[]);
        assert_eq!(users.login(PEER, "ann", b"wrong").await, Err(Refused::Wrong));
        assert_eq!(users.login(PEER, "plain", b"word").await, Err(Refused::Wrong));
        assert_eq!(users.login(PEER, "card", b"-").await, Err(Refused::Wrong));
        assert_eq!(
            users.account("card"),
            Some(Account { hash: None, child: Address::parse("c/t").ok(), roles: Vec::new() })
        );
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
        let users = Users::new(&path, &[]);
        assert_eq!(users.login(PEER, "ann", b"wrong").await, Err(Refused::Wrong));
        let refused = users.refused(Duration::from_secs(60));
        assert_eq!(refused.iter().map(|r| (r.name.as_str(), r.times, r.peer)).collect::<Vec<_>>(), [("ann", 1, PEER)]);
        assert!(users.login(PEER, "ann", b"a").await.is_ok());
        assert!(users.refused(Duration::from_secs(60)).is_empty());
        for _ in 0..FAILURES_MAX {
            users.note_failure(PEER);
        }
        assert_eq!(users.login(PEER, "ann", b"b").await, Err(Refused::TooOften));
        assert!(users.login(PEER, "ann", b"a").await.is_ok());
        let other = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(users.login(other, "nobody", b"b").await, Err(Refused::Wrong));
        // All at once, and each from an address of its own in one network.
        let ips: Vec<IpAddr> = (1..=40).map(|n| format!("2001:db8::{n}").parse().unwrap()).collect();
        let tries = futures_util::future::join_all(ips.iter().map(|ip| users.login(*ip, "ann", b"c"))).await;
        let hashed = tries.iter().filter(|t| **t == Err(Refused::Wrong)).count();
        assert!(hashed < FAILURES_MAX as usize + HASHING_MAX, "{hashed}");
    }

    #[test]
    fn a_line_in_plain_text_names_the_command_that_hashes() {
        let (users, bad) = parse("\nann:secret\nbob\nc:c/d:$argon2i$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAA\n");
        assert!(users.is_empty());
        assert_eq!(bad.iter().map(|b| b.line).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(bad[0].to_string().contains("`citybrain user add"), "{}", bad[0]);
    }

    #[test]
    fn a_line_holds_an_address_and_roles_and_is_written_as_it_is_read() {
        for line in ["a:-", "a:c/d:-", "a:@app,sensor-2:-", "a:c/d@app:-"] {
            let (users, bad) = parse(line);
            assert!(bad.is_empty(), "{line}: {bad:?}");
            assert_eq!(users["a"].line("a"), line);
        }
        for line in ["a:@:-", "a:@App:-", "a:c/d@:-", "a:C:-", "a:@app,:-"] {
            assert_eq!(parse(line).1.len(), 1, "{line}");
        }
        let (users, _) = parse("a:@app,x:-\nb:@x,y:-");
        assert_eq!(unknown_roles(&users, &["app".into(), "y".into()]).iter().map(|u| u.0).collect::<Vec<_>>(), ["x"]);
    }
}
