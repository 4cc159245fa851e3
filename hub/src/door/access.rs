//! Who may connect, and what they may publish and subscribe to.

use super::socket::Peer;
use super::users::{Refused, Users};
use citybrain_shared::{Address, config, topic};
use std::sync::Arc;

#[derive(Debug)]
pub struct Access {
    config: config::Access,
    link_root: String,
    users: Option<Users>,
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
    /// Wrong so often that nothing is tried any more for a while.
    TooOften,
    /// Another than the certificate says.
    OtherName,
    /// The certificate names nobody who is in the users file.
    NoAccount,
}

impl Access {
    pub fn new(config: &config::Access, link_root: &str) -> Access {
        let users = config.users_file.as_deref().map(Users::new);
        Access { config: config.clone(), link_root: link_root.to_owned(), users }
    }

    /// # Errors
    /// Why not.
    pub async fn admit(&self, peer: &Peer, user: Option<&str>, password: Option<&[u8]>) -> Result<User, Denied> {
        if let Some(name) = &peer.certified {
            return if user.is_some_and(|u| *u != **name) { Err(Denied::OtherName) } else { self.certified(name) };
        }
        let Some(name) = user else {
            return if self.config.anonymous {
                Ok(User { name: "".into(), child: None })
            } else {
                Err(Denied::Anonymous)
            };
        };
        let Some(users) = &self.users else {
            // Nobody has an account: a name is only a name.
            return if self.config.anonymous {
                Ok(User { name: name.into(), child: None })
            } else {
                Err(Denied::BadUserOrPassword)
            };
        };
        match users.login(peer.ip, name, password.unwrap_or_default()).await {
            Ok(account) => Ok(User { name: name.into(), child: account.child }),
            Err(Refused::Wrong) => Err(Denied::BadUserOrPassword),
            Err(Refused::TooOften) => Err(Denied::TooOften),
        }
    }

    /// Who has shown a certificate of this name. With a users file only those in it come in: so
    /// somebody can be kept out whose certificate is still good.
    fn certified(&self, name: &str) -> Result<User, Denied> {
        let child = match &self.users {
            None => None,
            Some(users) => users.account(name).ok_or(Denied::NoAccount)?.child,
        };
        Ok(User { name: name.into(), child })
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn access(anonymous: bool, publish: &[&str], subscribe: &[&str]) -> Access {
        let config = config::Access {
            anonymous,
            users_file: None,
            publish: publish.iter().map(|s| (*s).to_owned()).collect(),
            subscribe: subscribe.iter().map(|s| (*s).to_owned()).collect(),
        };
        Access::new(&config, "citybrain/v1")
    }

    #[test]
    fn a_child_speaks_only_as_itself() {
        let a = access(false, &["#"], &["#"]);
        let child = User { name: "s".into(), child: Address::parse("c/s").ok() };
        assert!(a.may_link(&child, "citybrain/v1/up/c/s", true));
        assert!(!a.may_link(&child, "citybrain/v1/up/c/t", true));
        assert!(!a.may_link(&child, "citybrain/v1/upack/c/s", true));
        assert!(a.may_link(&child, "citybrain/v1/upack/c/s", false));
        assert!(!a.may_link(&child, "citybrain/v1/upack/#", false));
        let other = User { name: "ann".into(), child: None };
        assert!(!a.may_link(&other, "citybrain/v1/up/c/s", true));
        let open = access(true, &["#"], &["#"]);
        assert!(open.may_link(&User { name: "".into(), child: None }, "citybrain/v1/up/c/s", true));
        assert!(!open.may_link(&User { name: "".into(), child: None }, "citybrain/v1/up/C", true));
    }

    #[test]
    fn nobody_publishes_where_committed_events_are_offered() {
        let a = access(true, &["#"], &["#"]);
        let user = User { name: "ann".into(), child: None };
        for topic in ["events/x", "cmd/x", "$SYS/x"] {
            assert!(!a.may_publish(&user, topic), "{topic}");
        }
        assert!(a.may_publish(&user, "eventsx/y"));
        assert!(a.may_subscribe(&user, "events/#"));
    }

    #[test]
    fn a_users_name_is_no_wildcard() {
        let a = access(true, &["in/{user}/#"], &["out/{user}"]);
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
