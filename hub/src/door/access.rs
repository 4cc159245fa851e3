//! Who may connect, and what they may publish and subscribe to.

use super::socket::Peer;
use super::users::{Account, Refused, RefusedLogin, Users};
use citybrain_shared::{Address, config, topic};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What stands for the user's name in a filter of config.
const USER: &str = "{user}";

#[derive(Debug)]
pub(crate) struct Access {
    anonymous: bool,
    link_root: String,
    users: Option<Users>,
    /// Of those without a role: patterns to publish to, and to subscribe to.
    everyone: Patterns,
    roles: HashMap<String, Patterns>,
    /// `everyone`, if it is the same for all.
    shared: Option<Arc<Rights>>,
}

/// Topic filters in which `{user}` may stand for a user's name.
#[derive(Clone, Debug, Default)]
struct Patterns {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// Empty: anonymous.
    pub name: Arc<str>,
    /// Its line in the users file, as it was when it came in.
    account: Option<Account>,
    rights: Arc<Rights>,
}

/// What one user may do: filters. What none allows is refused.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rights {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    BadUserOrPassword,
    Anonymous,
    /// Wrong so often that nothing is tried any more for a while.
    TooOften,
    /// Another than the certificate says.
    OtherName,
    /// The certificate names nobody who is in the users file.
    NoAccount,
}

impl User {
    /// The child node whose account this is.
    pub(crate) fn child(&self) -> Option<&Address> {
        self.account.as_ref()?.child.as_ref()
    }
}

impl Access {
    /// Accounts whose last login was refused less than `within` ago.
    pub(crate) fn refused_logins(&self, within: Duration) -> Vec<RefusedLogin> {
        self.users.as_ref().map_or_else(Vec::new, |users| users.refused(within))
    }

    pub(crate) fn new(config: &config::Access, roles: &[config::Role], link_root: &str) -> Access {
        let given = |list: &Option<Vec<String>>| list.clone().unwrap_or_else(|| config.unless_given());
        let everyone = Patterns { publish: given(&config.publish), subscribe: given(&config.subscribe) };
        let role = |r: &config::Role| {
            (r.name.clone(), Patterns { publish: r.publish.clone(), subscribe: r.subscribe.clone() })
        };
        let same = !everyone.publish.iter().chain(&everyone.subscribe).any(|p| p.contains(USER));
        Access {
            anonymous: config.anonymous,
            link_root: link_root.to_owned(),
            users: config.users_file.as_deref().map(|path| Users::new(path, roles)),
            shared: same.then(|| Rights::of(&[&everyone], "").into()),
            everyone,
            roles: roles.iter().map(role).collect(),
        }
    }

    /// # Errors
    /// Why not.
    pub(crate) async fn admit(&self, peer: &Peer, user: Option<&str>, password: Option<&[u8]>) -> Result<User, Denied> {
        if let Some(name) = &peer.certified {
            // Where nobody has an account a name is only a name, and the certificate's is at least proven.
            let is_only_a_name = self.anonymous && self.users.is_none();
            let claims_another = !is_only_a_name && user.is_some_and(|u| *u != **name);
            return if claims_another { Err(Denied::OtherName) } else { self.certified(name) };
        }
        let Some(name) = user else {
            return if self.anonymous { Ok(self.user("", None)) } else { Err(Denied::Anonymous) };
        };
        let Some(users) = &self.users else {
            // Nobody has an account: a name is only a name.
            return if self.anonymous { Ok(self.user(name, None)) } else { Err(Denied::BadUserOrPassword) };
        };
        match users.login(peer.ip, name, password.unwrap_or_default()).await {
            Ok(account) => Ok(self.user(name, Some(account))),
            Err(Refused::Wrong) => Err(Denied::BadUserOrPassword),
            Err(Refused::TooOften) => Err(Denied::TooOften),
        }
    }

    /// Who has shown a certificate of this name. With a users file only those in it come in: so
    /// somebody can be kept out whose certificate is still good.
    fn certified(&self, name: &str) -> Result<User, Denied> {
        let account = self.users.as_ref().map(|users| users.account(name).ok_or(Denied::NoAccount)).transpose()?;
        Ok(self.user(name, account))
    }

    fn user(&self, name: &str, account: Option<Account>) -> User {
        let roles = account.as_ref().map_or(&[][..], |a| &a.roles);
        let is_child = account.as_ref().is_some_and(|a| a.child.is_some());
        let rights = match (&self.shared, roles.is_empty(), is_child) {
            // A child node has its link's topics.
            (_, true, true) => Arc::default(),
            (Some(shared), true, false) => shared.clone(),
            (None, true, false) => Rights::of(&[&self.everyone], name).into(),
            (_, false, _) => {
                let all: Vec<&Patterns> = roles.iter().filter_map(|r| self.roles.get(r)).collect();
                Rights::of(&all, name).into()
            }
        };
        User { name: name.into(), account, rights }
    }

    /// Who came in under this name before the node was started again, with the rights of today: none
    /// if the users file no longer knows the name.
    pub(crate) fn formerly(&self, name: &str) -> User {
        let Some(users) = self.users.as_ref().filter(|_| !name.is_empty()) else { return self.user(name, None) };
        match users.account(name) {
            Some(account) => self.user(name, Some(account)),
            None => User { name: name.into(), account: None, rights: Arc::default() },
        }
    }

    /// Grows with every change of the users file.
    pub(crate) fn generation(&self) -> u64 {
        self.users.as_ref().map_or(0, Users::generation)
    }

    /// Is the user's line in the users file still what it was?
    pub(crate) fn is_current(&self, user: &User) -> bool {
        match (&self.users, &user.account) {
            (Some(users), Some(account)) => users.account(&user.name).as_ref() == Some(account),
            _ => true,
        }
    }

    /// May the user publish on this valid topic, which is no link topic?
    ///
    /// `events/…` and `cmd/…` carry what is committed, `brain/…` how the node is; nobody may speak there
    /// in its name. `$SYS/…` is the broker's; other topics with `$` need a filter that names it, since
    /// `#` does not cover them.
    pub(crate) fn may_publish(&self, user: &User, topic: &str) -> bool {
        !is_ours(topic) && user.rights.publish.iter().any(|p| topic::matches(p, topic))
    }

    /// May the user subscribe to this valid filter, which is no link filter?
    pub(crate) fn may_subscribe(&self, user: &User, filter: &str) -> bool {
        user.rights.subscribe.iter().any(|p| covers(p, filter))
    }

    /// May the user publish on this link topic, or subscribe to it? Whose it is must be plain:
    /// wildcards never are.
    pub(crate) fn may_link(&self, user: &User, topic: &str, publishes: bool) -> bool {
        let Some((verb, child)) = topic::parse_link(&self.link_root, topic) else { return false };
        let whose = match user.child() {
            Some(own) => *own == child,
            None => self.anonymous && (user.name.is_empty() || self.users.is_none()),
        };
        // Whether it is a child of this node is for the link to judge: it can say what is wrong.
        whose && verb.is_from_child() == publishes
    }

    /// Is this a connection on which a child node may speak?
    pub(crate) fn may_be_child(&self, user: &User) -> bool {
        user.child().is_some() || self.anonymous
    }
}

fn is_ours(topic: &str) -> bool {
    topic::is_ours(topic) || topic.starts_with("$SYS/")
}

impl Rights {
    /// The patterns with the user's name in them. A name that would itself be a wildcard or span
    /// levels stands for nothing.
    fn of(all: &[&Patterns], name: &str) -> Rights {
        let name = (!name.is_empty() && !name.contains(['+', '#', '/', '\0'])).then_some(name);
        let fill = |p: &String| match name {
            _ if !p.contains(USER) => Some(p.clone()),
            Some(name) => Some(p.replace(USER, name)),
            None => None,
        };
        Rights {
            publish: all.iter().flat_map(|p| &p.publish).filter_map(fill).collect(),
            subscribe: all.iter().flat_map(|p| &p.subscribe).filter_map(fill).collect(),
        }
    }
}

/// Does the pattern match every topic that the filter matches?
pub(super) fn covers(pattern: &str, filter: &str) -> bool {
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
        let list = |all: &[&str]| Some(all.iter().map(|s| (*s).to_owned()).collect());
        let config = config::Access { anonymous, users_file: None, publish: list(publish), subscribe: list(subscribe) };
        let role = |name: &str, publish: &[&str], subscribe: &[&str]| config::Role {
            name: name.into(),
            publish: list(publish).unwrap(),
            subscribe: list(subscribe).unwrap(),
        };
        let roles = [role("sensor", &["in/{user}/#"], &[]), role("app", &[], &["events/#"])];
        Access::new(&config, &roles, "citybrain/v1")
    }

    fn account(child: Option<&str>, roles: &[&str]) -> Option<Account> {
        let child = child.map(|c| Address::parse(c).unwrap());
        Some(Account { hash: None, child, roles: roles.iter().map(|r| (*r).to_owned()).collect() })
    }

    #[test]
    fn a_child_speaks_only_as_itself() {
        let a = access(false, &["#"], &["#"]);
        let child = a.user("s", account(Some("c/s"), &[]));
        assert!(a.may_link(&child, "citybrain/v1/up/c/s", true));
        assert!(!a.may_link(&child, "citybrain/v1/up/c/t", true));
        assert!(!a.may_link(&child, "citybrain/v1/upack/c/s", true));
        assert!(a.may_link(&child, "citybrain/v1/upack/c/s", false));
        assert!(!a.may_link(&child, "citybrain/v1/upack/#", false));
        assert!(!a.may_publish(&child, "in/x") && !a.may_subscribe(&child, "events/#"), "and nowhere else");
        let other = a.user("ann", account(None, &[]));
        assert!(!a.may_link(&other, "citybrain/v1/up/c/s", true));
        let open = access(true, &["#"], &["#"]);
        assert!(open.may_link(&open.user("", None), "citybrain/v1/up/c/s", true));
        assert!(!open.may_link(&open.user("", None), "citybrain/v1/up/C", true));
    }

    #[test]
    fn nobody_publishes_where_committed_events_are_offered() {
        let a = access(true, &["#"], &["#"]);
        let user = a.user("ann", None);
        for topic in ["events/x", "cmd/x", "brain/c/state", "$SYS/x"] {
            assert!(!a.may_publish(&user, topic), "{topic}");
        }
        assert!(a.may_publish(&user, "eventsx/y"));
        assert!(!a.may_publish(&user, "$oc/devices/1/sys/properties/report"), "`#` covers no `$`");
        let cloud = access(true, &["#", "$oc/#"], &["#"]);
        assert!(cloud.may_publish(&cloud.user("ann", None), "$oc/devices/1/sys/properties/report"));
        assert!(a.may_subscribe(&user, "events/#"));
    }

    #[tokio::test]
    async fn a_certificates_name_is_the_users_and_another_is_refused_unless_anybody_may_come() {
        let peer = Peer { ip: [127, 0, 0, 1].into(), certified: Some("lamp-7".into()) };
        for (anonymous, other) in [(false, None), (true, Some("lamp-7".into()))] {
            let a = access(anonymous, &["#"], &["#"]);
            let named = |user| a.admit(&peer, user, Some(b"x"));
            assert_eq!(named(None).await.unwrap().name, "lamp-7".into());
            assert_eq!(named(Some("lamp-7")).await.unwrap().name, "lamp-7".into());
            assert_eq!(named(Some("lamp-8")).await.map(|u| u.name).ok(), other);
        }
    }

    #[test]
    fn a_users_name_is_no_wildcard() {
        let a = access(true, &["in/{user}/#"], &["out/{user}"]);
        let named = |n: &str| a.user(n, None);
        assert!(a.may_publish(&named("ann"), "in/ann/x"));
        assert!(!a.may_publish(&named("ann"), "in/bob/x"));
        assert!(!a.may_publish(&named("+"), "in/bob/x"));
        assert!(!a.may_publish(&named(""), "in//x"));
        assert!(!a.may_subscribe(&named("+"), "out/+"));
    }

    #[test]
    fn roles_add_up_and_stand_in_the_place_of_what_everybody_may() {
        let a = access(false, &["all/#"], &["all/#"]);
        let may = |roles: &[&str]| {
            let user = a.user("ann", account(None, roles));
            let publish = ["all/x", "in/ann/x", "in/bob/x"].map(|t| a.may_publish(&user, t));
            (publish, ["all/x", "events/a", "#"].map(|t| a.may_subscribe(&user, t)))
        };
        assert_eq!(may(&[]), ([true, false, false], [true, false, false]));
        assert_eq!(may(&["sensor"]), ([false, true, false], [false; 3]));
        assert_eq!(may(&["sensor", "app"]), ([false, true, false], [false, true, false]));
        assert_eq!(may(&["unknown"]), ([false; 3], [false; 3]));
        let closed = Access::new(&config::Access { anonymous: false, ..Default::default() }, &[], "r");
        let user = closed.user("ann", None);
        assert!(!closed.may_publish(&user, "in/x") && !closed.may_subscribe(&user, "x"), "without a word nothing");
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
