//! Who may ask a node over HTTP: a file of tokens' hashes, each with a name and a role.
//!
//! **Format**: a line `NAME ROLE SHA-256 [CREATED]` each, blanks between; `#` begins a comment. The
//! hash is of a random token of 256 bits, so a fast one is enough: nobody can try them all.
//!
//! The file is read again when it has changed. A line that does not read opens no door; a file
//! that cannot be read opens none at all.

use crate::replace::{Rights, Stopped, edit};
use citybrain_hub::stamp::Stamp;
use citybrain_shared::config::{Api, TOKEN_ROLES};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What every token begins with, so that whoever finds one knows what it opens.
const PREFIX: &str = "citybrain_";
const RANDOM_BYTES: usize = 32;
const NAME_BYTES_MAX: usize = 64;
/// More tokens than a node can have users for; a larger file is another one.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Buckets that are kept before those at rest are looked for: more tokens than a file has.
const BUCKETS_MAX: usize = 10_000;

/// So many calls for help of one token a minute pass beside its other requests, however few those may be: more
/// than a district's residents press.
pub const PRESSES_PER_MINUTE_MIN: u32 = 600;
/// The name of the token that the running node leaves in its data folder.
pub const LOCAL: &str = "local";

/// What somebody may do. An operator may all that the others may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Role {
    /// What a resident may: sees what is offered, brings cases, books, calls for help, and follows, judges and takes
    /// back what it brought itself; by the API and by Open311.
    App,
    /// Brings warnings by CAP, and fetches this node's alarms by it: a bureau's gateway.
    Gateway,
    /// Reads, here and below; never whom to call.
    Reader,
    /// Opens and handles cases in his own name, acknowledges alarms, and sees whom to call.
    Worker,
    /// Also what supervision may: approves, verifies, evaluates, closes, reopens what others handled; clears alarms.
    Supervisor,
    /// Changes things, too.
    Operator,
}

impl Role {
    pub const ALL: [Role; 6] = [Role::App, Role::Gateway, Role::Reader, Role::Worker, Role::Supervisor, Role::Operator];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::App => "app",
            Role::Gateway => "gateway",
            Role::Reader => "reader",
            Role::Worker => "worker",
            Role::Supervisor => "supervisor",
            Role::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How somebody gets a token into a file.
pub const TOKEN_HINT: &str =
    "`citybrain token add NAME --role reader --file TOKENS > FILE` makes one, on the node's machine";

/// How the token of a webhook's receiver gets there. The role is what it may be told: an app hears of its own cases
/// alone, and to a reader go the events themselves.
pub fn receiver_hint(name: &str) -> String {
    format!(
        "`citybrain token add {name} --role app --file TOKENS > FILE` makes one, on the node's machine (or with the \
         role that its receiver is to have)"
    )
}

/// The token in the file of somebody who asks.
///
/// # Errors
/// When the file cannot be read, or holds no single word.
pub fn token_in(file: &Path) -> Result<String, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("cannot read the token in `{}`: {e}", file.display()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("`{}` holds no token: a token is one word", file.display()));
    }
    Ok(token.to_owned())
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub role: Role,
    /// SHA-256 of the token, 64 hexadecimal digits.
    pub hash: String,
    /// RFC 3339; for people.
    pub created: Option<String>,
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(line: &str) -> Result<Entry, String> {
        let mut words = line.split_whitespace();
        let (Some(name), Some(role), Some(hash)) = (words.next(), words.next(), words.next()) else {
            return Err("a line is `NAME ROLE SHA-256`".into());
        };
        let Some(role) = Role::ALL.into_iter().find(|r| r.as_str() == role) else {
            return Err(format!("`{role}` is no role: {}", TOKEN_ROLES.join(", ")));
        };
        if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("the third word is no SHA-256: 64 hexadecimal digits".into());
        }
        check_name(name)?;
        Ok(Entry { name: name.into(), role, hash: hash.to_ascii_lowercase(), created: words.next().map(str::to_owned) })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.role, self.hash)?;
        self.created.as_ref().map_or(Ok(()), |at| write!(f, " {at}"))
    }
}

/// # Errors
/// When a name does not fit into a line or a record.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        return Err(format!("`{name}` is no name: 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_`, `@`, `-`"));
    }
    if name == LOCAL {
        return Err(format!("`{LOCAL}` is the token that a running node leaves in its own folder"));
    }
    Ok(())
}

/// A new token. It is nowhere but in what is returned.
///
/// # Errors
/// When the kernel has no random bytes.
pub fn mint() -> io::Result<String> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("no random bytes: {e}")))?;
    Ok(format!("{PREFIX}{}", hex(&bytes)))
}

pub fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, b| {
        let _ = write!(text, "{b:02x}"); // a String takes all
        text
    })
}

/// The good lines, and what is wrong with the others: line number and reason.
pub fn parse(text: &str) -> (Vec<Entry>, Vec<(usize, String)>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.parse::<Entry>() {
            _ if line.is_empty() => {}
            Ok(entry) if good.iter().any(|e: &Entry| e.name == entry.name) => {
                bad.push((i + 1, format!("`{}` is there already", entry.name)));
            }
            Ok(entry) => good.push(entry),
            Err(why) => bad.push((i + 1, why)),
        }
    }
    (good, bad)
}

/// # Errors
/// When the file cannot be read, or is too large to be one.
pub fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    fs::read_to_string(path)
}

/// Changes the file in one step: a node sees the old or the new one. Its owner and rights stay.
///
/// # Errors
/// See [`Stopped`]; `change` is given what the file says, nothing where there is none.
pub fn rewrite<E>(path: &Path, change: impl FnOnce(String) -> Result<String, E>) -> Result<(), Stopped<E>> {
    // Hashes open nothing; the node's own user must be able to read them.
    edit(path, Rights::Public, |text| change(text.unwrap_or_default()))
}

/// Whoever a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    pub role: Role,
    /// Of his token: another one of the same name and role is another.
    hash: String,
}

impl From<&Entry> for Holder {
    fn from(entry: &Entry) -> Holder {
        Holder { name: entry.name.clone(), role: entry.role, hash: entry.hash.clone() }
    }
}

/// The file as a running node knows it.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    /// Of the token in the node's own folder.
    local: String,
    known: Mutex<Known>,
    limits: Limits,
    /// By the name of the token. Whoever has no place is at rest: his bucket is full.
    buckets: Mutex<HashMap<String, Bucket>>,
    /// Requests that were too many, by role.
    refused: [AtomicU64; Role::ALL.len()],
}

/// Requests that one token may make.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A minute, by role; 0: no bound.
    per_minute: [u32; Role::ALL.len()],
}

impl Limits {
    pub fn of(api: &Api) -> Limits {
        let of = |role: Role| api.requests_per_minute_of.get(role.as_str()).copied();
        Limits { per_minute: Role::ALL.map(|role| of(role).unwrap_or(api.requests_per_minute)) }
    }
}

/// Holds as many requests as a minute may have, and fills again evenly.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// One request, or after how long there is room for it.
    fn take(&mut self, per_minute: u32, now: Instant) -> Result<(), Duration> {
        let (most, per_s) = (f64::from(per_minute), f64::from(per_minute) / 60.0);
        self.left = (self.left + now.saturating_duration_since(self.at).as_secs_f64() * per_s).min(most);
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.left) / per_s))
    }
}

#[derive(Debug, Default)]
struct Known {
    stamp: Option<Stamp>,
    entries: Vec<Entry>,
}

impl Tokens {
    /// `local` opens too, as an operator.
    pub fn new(path: PathBuf, local: &str, limits: Limits) -> Tokens {
        Tokens {
            path,
            local: hash(local),
            known: Mutex::default(),
            limits,
            buckets: Mutex::default(),
            refused: Default::default(),
        }
    }

    /// Counts a request of his. Whoever is on the node's own machine is not counted.
    ///
    /// # Errors
    /// It is one too many; after so long there is room for it.
    pub fn admit(&self, holder: &Holder, now: Instant) -> Result<(), Duration> {
        let per_minute = self.limits.per_minute[holder.role as usize];
        if per_minute == 0 || holder.name == LOCAL {
            return Ok(());
        }
        self.take(holder.name.clone(), per_minute, now)
    }

    fn take(&self, bucket: String, per_minute: u32, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock();
        let full = || Bucket { left: f64::from(per_minute), at: now };
        let taken = buckets.entry(bucket).or_insert_with(full).take(per_minute, now);
        // Names come from the file alone; those that were taken out of it would stay.
        if buckets.len() > BUCKETS_MAX {
            buckets.retain(|_, b| now.saturating_duration_since(b.at) < Duration::from_secs(60));
        }
        taken
    }

    /// May he call for help, though his other requests were too many? Those have a bucket of their own: whoever
    /// has a token could else fill every node up to the city with them.
    ///
    /// # Errors
    /// It is one too many; after so long there is room for it.
    pub fn admit_press(&self, holder: &Holder, now: Instant) -> Result<(), Duration> {
        let per_minute = self.limits.per_minute[holder.role as usize].max(PRESSES_PER_MINUTE_MIN);
        // No name has a space.
        self.take(format!("{} presses", holder.name), per_minute, now)
    }

    /// A request of his was too many, and is answered so.
    pub fn count_refused(&self, holder: &Holder) {
        self.refused[holder.role as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were too many, by role.
    pub fn refused(&self) -> impl Iterator<Item = (Role, u64)> {
        Role::ALL.into_iter().zip(&self.refused).map(|(role, n)| (role, n.load(Ordering::Relaxed)))
    }

    /// Whose token it is.
    pub fn holder(&self, token: &str) -> Option<Holder> {
        let hash = hash(token);
        if hash == self.local {
            return Some(Holder { name: LOCAL.into(), role: Role::Operator, hash });
        }
        self.find(|e| e.hash == hash)
    }

    /// Who has shown a certificate of this name.
    pub fn named(&self, name: &str) -> Option<Holder> {
        self.find(|e| e.name == name)
    }

    /// Is his token still in the file, with the same role?
    pub fn knows(&self, holder: &Holder) -> bool {
        holder.hash == self.local || self.find(|e| e.name == holder.name).as_ref() == Some(holder)
    }

    fn find(&self, which: impl FnMut(&&Entry) -> bool) -> Option<Holder> {
        let mut known = self.known.lock();
        self.refresh(&mut known);
        known.entries.iter().find(which).map(Holder::from)
    }

    fn refresh(&self, known: &mut Known) {
        let stamp = Stamp::of(&self.path);
        if stamp.is_some() && stamp == known.stamp {
            return;
        }
        let path = self.path.display();
        match read(&self.path) {
            Ok(text) => {
                let (entries, bad) = parse(&text);
                for (line, why) in bad {
                    tracing::warn!(%path, line, why, "A line of the tokens file does not read.");
                }
                tracing::info!(%path, tokens = entries.len(), "Tokens were read.");
                *known = Known { stamp, entries };
            }
            Err(error) => {
                // Said once, not at every request: the entries are gone after the first time.
                if known.stamp.is_some() || !known.entries.is_empty() {
                    tracing::error!(%path, %error, "The tokens file cannot be read: nobody is let in.");
                }
                *known = Known::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn lines_read_back_and_bad_ones_are_told_by_number() {
        let token = mint().unwrap();
        assert_eq!(token.len(), PREFIX.len() + 2 * RANDOM_BYTES);
        assert_ne!(token, mint().unwrap());
        let entry = Entry {
            name: "anna@gate".into(),
            role: Role::Operator,
            hash: hash(&token),
            created: Some("2026-01-01T00:00:00Z".into()),
        };
        let text = format!("# who\n{entry}\n\nbob admin {}\nmia reader abc\n{entry} # again\n", hash("x"));
        let (good, bad) = parse(&text);
        assert_eq!(good, std::slice::from_ref(&entry));
        assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 5, 6]);
        assert!(bad[0].1.contains("`admin` is no role"), "{bad:?}");
        // Known answer: SHA-256 of "abc".
        assert!(hash("abc").starts_with("ba7816bf8f01cfea414140de5dae2223"));
        for name in ["", "a b", "温", LOCAL, &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_changed_file_counts_at_once_and_one_that_is_gone_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let tokens = Tokens::new(path.clone(), "here", Limits::of(&Api::default()));
        let line = |name: &str, role, token: &str| {
            Entry { name: name.into(), role, hash: hash(token), created: None }.to_string() + "\n"
        };
        assert_eq!(tokens.holder("a"), None);
        let rewrite = |path: &Path, change: &dyn Fn(String) -> String| {
            super::rewrite(path, |text| Ok::<_, ()>(change(text))).unwrap();
        };
        rewrite(&path, &|text| text + &line("anna", Role::Reader, "a"));
        assert_eq!(tokens.holder("a").unwrap().role, Role::Reader);
        rewrite(&path, &|_| line("anna", Role::Operator, "a") + &line("bob", Role::Reader, "b"));
        assert_eq!(tokens.holder("a").unwrap().role, Role::Operator);
        assert_eq!(tokens.holder("b").unwrap().name, "bob");
        assert_eq!(tokens.holder("c"), None);
        let (anna, bob) = (tokens.holder("a").unwrap(), tokens.named("bob").unwrap());
        assert!(tokens.knows(&anna) && tokens.knows(&bob));
        rewrite(&path, &|_| line("anna", Role::Reader, "a") + &line("bob", Role::Reader, "new"));
        assert!(!tokens.knows(&anna) && !tokens.knows(&bob), "another role, another token");
        assert!(tokens.knows(&tokens.holder("here").unwrap()));
        fs::remove_file(&path).unwrap();
        assert_eq!(tokens.holder("a"), None);
        assert_eq!(
            tokens.holder("here").unwrap(),
            Holder { name: LOCAL.into(), role: Role::Operator, hash: hash("here") }
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no temporary file stays");
    }

    #[test]
    fn a_token_has_its_minute_s_requests_and_then_as_many_as_the_time_that_passes() {
        let api = Api {
            requests_per_minute: 60,
            requests_per_minute_of: [("operator".to_owned(), 0)].into(),
            ..Api::default()
        };
        let tokens = Tokens::new(PathBuf::from("/none"), "here", Limits::of(&api));
        let of = |name: &str, role| Holder { name: name.into(), role, hash: String::new() };
        let (mia, li, began) = (of("mia", Role::Reader), of("li", Role::Worker), Instant::now());
        assert!((0..60).all(|_| tokens.admit(&mia, began).is_ok()));
        let wait = tokens.admit(&mia, began).unwrap_err();
        assert!(wait > Duration::from_millis(990) && wait <= Duration::from_secs(1), "{wait:?}");
        assert!(tokens.admit(&li, began).is_ok(), "each has his own");
        assert!(tokens.admit(&mia, began + wait).is_ok());
        assert!(tokens.admit(&mia, began + wait).is_err());
        let later = began + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| tokens.admit(&mia, later).is_ok()).count(), 60, "no more than a minute's");
        assert!((0..1000).all(|_| tokens.admit(&of("anna", Role::Operator), began).is_ok()), "without a bound");
        tokens.count_refused(&mia);
        assert_eq!(tokens.refused().filter(|(_, n)| *n > 0).collect::<Vec<_>>(), [(Role::Reader, 1)]);
    }

    #[test]
    fn roles_are_those_that_a_config_knows() {
        assert_eq!(Role::ALL.map(Role::as_str), TOKEN_ROLES);
        assert!(Role::ALL.is_sorted());
    }

    #[test]
    fn a_rewritten_file_keeps_its_rights() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        rewrite(&path, |_| Ok::<_, ()>("# new\n".into())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "# new\n");
    }
}
