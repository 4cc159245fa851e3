//! Who may connect, and what they may publish and subscribe to.

use citybrain_shared::{Address, config, topic};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

#[derive(Debug)]
pub struct Access {
    config: config::Access,
    link_root: String,
    users: Mutex<Users>,
}

#[derive(Debug, Default)]
struct Users {
    /// Of the file when it was read last; `None`: it was not there.
    stamp: Option<(SystemTime, u64)>,
    by_name: HashMap<String, Account>,
}

#[derive(Clone, Debug)]
struct Account {
    password: String,
    child: Option<Address>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Empty: anonymous.
    pub name: Arc<str>,
    /// The child node whose account this is.
    pub child: Option<Address>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    BadUserOrPassword,
    Anonymous,
}

impl Access {
    pub fn new(config: &config::Access, link_root: &str) -> Access {
        Access { config: config.clone(), link_root: link_root.to_owned(), users: Mutex::new(Users::default()) }
    }

    /// # Errors
    /// Why not.
    pub fn admit(&self, user: Option<&str>, password: Option<&[u8]>) -> Result<User, Denied> {
        let anonymous = || User { name: "".into(), child: None };
        let Some(name) = user else {
            return if self.config.anonymous { Ok(anonymous()) } else { Err(Denied::Anonymous) };
        };
        let Some(path) = &self.config.users_file else {
            // Nobody has an account: a name is only a name.
            return if self.config.anonymous {
                Ok(User { name: name.into(), child: None })
            } else {
                Err(Denied::BadUserOrPassword)
            };
        };
        let account = {
            let mut users = self.users.lock();
            users.refresh(path);
            users.by_name.get(name).cloned()
        };
        match account {
            Some(a) if same(a.password.as_bytes(), password.unwrap_or_default()) => {
                Ok(User { name: name.into(), child: a.child })
            }
            _ => Err(Denied::BadUserOrPassword),
        }
    }

    /// May the user publish on this valid topic, which is no link topic?
    ///
    /// `events/…` and `cmd/…` carry what is committed; nobody may speak there in its name. `$…` is
    /// the broker's.
    pub fn may_publish(&self, user: &User, topic: &str) -> bool {
        !is_ours(topic) && self.config.publish.iter().any(|p| topic::matches(&named(p, user), topic))
    }

    /// May the user subscribe to this valid filter, which is no link filter?
    pub fn may_subscribe(&self, user: &User, filter: &str) -> bool {
        self.config.subscribe.iter().any(|p| covers(&named(p, user), filter))
    }

    /// May the user publish on this link topic, or subscribe to it? Whose it is must be plain:
    /// wildcards never are.
    pub fn may_link(&self, user: &User, topic: &str, publishes: bool) -> bool {
        let Some((verb, child)) = topic::parse_link(&self.link_root, topic) else { return false };
        let whose = match &user.child {
            Some(own) => *own == child,
            None => self.config.anonymous && (user.name.is_empty() || self.config.users_file.is_none()),
        };
        // Whether it is a child of this node is for the link to judge: it can say what is wrong.
        whose && verb.is_from_child() == publishes
    }

    /// Is this a connection on which a child node may speak?
    pub fn may_be_child(&self, user: &User) -> bool {
        user.child.is_some() || self.config.anonymous
    }
}

fn is_ours(topic: &str) -> bool {
    topic.starts_with('$')
        || ["events", "cmd"].iter().any(|p| topic.strip_prefix(p).is_some_and(|r| r.starts_with('/')))
}

/// A pattern of config with the user's name in it. A name that would itself be a wildcard or span
/// levels stands for nothing.
fn named<'a>(pattern: &'a str, user: &User) -> std::borrow::Cow<'a, str> {
    if !pattern.contains("{user}") {
        return pattern.into();
    }
    let name = if user.name.is_empty() || user.name.contains(['+', '#', '/', '\0']) { "\0" } else { &user.name };
    pattern.replace("{user}", name).into()
}

/// Does the pattern match every topic that the filter matches?
fn covers(pattern: &str, filter: &str) -> bool {
    let (mut p, mut f) = (pattern.split('/'), filter.split('/'));
    loop {
        match (p.next(), f.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Takes as long for a wrong first byte as for a wrong last one.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

impl Users {
    fn refresh(&mut self, path: &PathBuf) {
        let stamp = std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        if stamp == self.stamp && stamp.is_some() {
            return;
        }
        match std::fs::read_to_string(path) {
            Ok(text) => {
                self.by_name = parse(&text);
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

fn parse(text: &str) -> HashMap<String, Account> {
    let mut users = HashMap::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        // Every node below a city has at least two segments, so a password with a colon is not
        // mistaken for a child's account unless it begins like `a/b:`.
        let (child, password) = match rest.split_once(':').map(|(a, p)| (Address::parse(a), p)) {
            Some((Ok(address), password)) if address.depth() > 1 => (Some(address), password),
            _ => (None, rest),
        };
        users.insert(name.to_owned(), Account { password: password.to_owned(), child });
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn access(anonymous: bool, users: Option<PathBuf>, publish: &[&str], subscribe: &[&str]) -> Access {
        let config = config::Access {
            anonymous,
            users_file: users,
            publish: publish.iter().map(|s| (*s).to_owned()).collect(),
            subscribe: subscribe.iter().map(|s| (*s).to_owned()).collect(),
        };
        Access::new(&config, "citybrain/v1")
    }

    #[test]
    fn a_changed_users_file_counts_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        std::fs::write(&path, "# people\nann:secret:with:colons\nstreet:c/s:pass\n").unwrap();
        let a = access(false, Some(path.clone()), &["#"], &["#"]);
        assert_eq!(a.admit(None, None), Err(Denied::Anonymous));
        assert_eq!(a.admit(Some("ann"), Some(b"wrong")), Err(Denied::BadUserOrPassword));
        assert_eq!(a.admit(Some("ann"), None), Err(Denied::BadUserOrPassword));
        assert!(a.admit(Some("ann"), Some(b"secret:with:colons")).is_ok());
        let street = a.admit(Some("street"), Some(b"pass")).unwrap();
        assert_eq!(street.child, Some(Address::parse("c/s").unwrap()));
        std::fs::write(&path, "bob:x\n").unwrap();
        assert!(a.admit(Some("ann"), Some(b"secret:with:colons")).is_err());
        assert!(a.admit(Some("bob"), Some(b"x")).is_ok());
    }

    #[test]
    fn a_child_speaks_only_as_itself() {
        let a = access(false, None, &["#"], &["#"]);
        let child = User { name: "s".into(), child: Address::parse("c/s").ok() };
        assert!(a.may_link(&child, "citybrain/v1/up/c/s", true));
        assert!(!a.may_link(&child, "citybrain/v1/up/c/t", true));
        assert!(!a.may_link(&child, "citybrain/v1/upack/c/s", true));
        assert!(a.may_link(&child, "citybrain/v1/upack/c/s", false));
        assert!(!a.may_link(&child, "citybrain/v1/upack/#", false));
        let other = User { name: "ann".into(), child: None };
        assert!(!a.may_link(&other, "citybrain/v1/up/c/s", true));
        let open = access(true, None, &["#"], &["#"]);
        assert!(open.may_link(&User { name: "".into(), child: None }, "citybrain/v1/up/c/s", true));
        assert!(!open.may_link(&User { name: "".into(), child: None }, "citybrain/v1/up/C", true));
    }

    #[test]
    fn nobody_publishes_where_committed_events_are_offered() {
        let a = access(true, None, &["#"], &["#"]);
        let user = User { name: "ann".into(), child: None };
        for topic in ["events/x", "cmd/x", "$SYS/x"] {
            assert!(!a.may_publish(&user, topic), "{topic}");
        }
        assert!(a.may_publish(&user, "eventsx/y"));
        assert!(a.may_subscribe(&user, "events/#"));
    }

    #[test]
    fn a_users_name_is_no_wildcard() {
        let a = access(true, None, &["in/{user}/#"], &["out/{user}"]);
        let named = |n: &str| User { name: n.into(), child: None };
        assert!(a.may_publish(&named("ann"), "in/ann/x"));
        assert!(!a.may_publish(&named("ann"), "in/bob/x"));
        assert!(!a.may_publish(&named("+"), "in/bob/x"));
        assert!(!a.may_publish(&named(""), "in//x"));
        assert!(!a.may_subscribe(&named("+"), "out/+"));
    }

    proptest! {
        #[test]
        fn a_covered_filter_shows_nothing_that_the_pattern_hides(
            pattern in "([ab+]/){0,2}([ab+#])", filter in "([ab+]/){0,2}([ab+#])", topic in "[ab](/[ab]){0,2}",
        ) {
            if covers(&pattern, &filter) && topic::matches(&filter, &topic) {
                prop_assert!(topic::matches(&pattern, &topic), "{} {} {}", pattern, filter, topic);
            }
        }
    }
}
