//! MQTT topics and filters (MQTT 5 section 4.7), and the names of ours.
//!
//! | topic | what |
//! |---|---|
//! | `in/…` | devices and apps publish here |
//! | `events/TYPE` | committed events are offered here |
//! | `cmd/TYPE` | directives that are for this node |
//! | `brain/ADDRESS/state` | how this node is, retained, where config asks for it |
//! | `ROOT/VERB/CHILD` | links; `ROOT` is `citybrain/v1` unless config says otherwise |

use crate::address::Address;

/// Begins the filter of a shared subscription, `$share/NAME/FILTER`.
pub const SHARE: &str = "$share/";

/// Longest topic or filter, bytes (MQTT's own bound).
pub const BYTES_MAX: usize = 65_535;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than 65,535 bytes")]
    Long,
    #[error("it contains U+0000")]
    Null,
    #[error("a topic to publish to may not contain `+` or `#`")]
    Wildcard,
    #[error("`#` must be the last level and stand alone")]
    Hash,
    #[error("`+` must stand alone in its level")]
    Plus,
    #[error("a shared subscription is `$share/NAME/FILTER`, its name without `/`, `+` and `#`")]
    Share,
}

/// # Errors
/// When `topic` is no topic name that a client may publish to.
pub fn check_topic(topic: &str) -> Result<(), Error> {
    check_text(topic)?;
    if topic.bytes().any(|b| b == b'+' || b == b'#') { Err(Error::Wildcard) } else { Ok(()) }
}

/// # Errors
/// When `filter` is no topic filter. `$share/…` is checked as one.
pub fn check_filter(filter: &str) -> Result<(), Error> {
    check_text(filter)?;
    let filter = match filter.strip_prefix(SHARE) {
        None => filter,
        Some(rest) => {
            let (name, inner) = rest.split_once('/').ok_or(Error::Share)?;
            if name.is_empty() || inner.is_empty() || name.contains(['+', '#']) {
                return Err(Error::Share);
            }
            inner
        }
    };
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(Error::Hash);
        }
        if level.contains('+') && level != "+" {
            return Err(Error::Plus);
        }
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), Error> {
    match text {
        "" => Err(Error::Empty),
        t if t.len() > BYTES_MAX => Err(Error::Long),
        t if t.contains('\0') => Err(Error::Null),
        _ => Ok(()),
    }
}

/// Does the filter match everything that `other` matches? "No" where it is not plain.
pub fn covers(filter: &str, other: &str) -> bool {
    filter == other || (!other.contains(['#', '+']) && matches(filter, other)) || {
        let stem = filter.strip_suffix('#');
        stem.is_some_and(|stem| !stem.contains('+') && other.starts_with(stem) && !other.starts_with('$'))
    }
}

/// Does a valid filter match a valid topic? A wildcard in the first level matches no topic that
/// begins with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let (mut f, mut t) = (filter.split('/'), topic.split('/'));
    loop {
        match (f.next(), t.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// What a link topic carries. Named from the child's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Child to parent: hello, bye; retained, with a last will.
    Hello,
    /// Child to parent: frames.
    Up,
    /// Parent to child: welcome, refuse, acknowledgements of `up`.
    UpAck,
    /// Parent to child: frames.
    Down,
    /// Child to parent: acknowledgements of `down`.
    DownAck,
    /// Parent to child: a question of an engineer. Never stored.
    Ask,
    /// Child to parent: its answer. Never stored.
    Answer,
}

impl Verb {
    pub const ALL: [Verb; 7] = [Verb::Hello, Verb::Up, Verb::UpAck, Verb::Down, Verb::DownAck, Verb::Ask, Verb::Answer];

    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Hello => "hello",
            Verb::Up => "up",
            Verb::UpAck => "upack",
            Verb::Down => "down",
            Verb::DownAck => "downack",
            Verb::Ask => "ask",
            Verb::Answer => "answer",
        }
    }

    /// Who may publish: the child (true) or the parent (false).
    pub fn is_from_child(self) -> bool {
        matches!(self, Verb::Hello | Verb::Up | Verb::DownAck | Verb::Answer)
    }
}

/// `ROOT/VERB/CHILD`
pub fn link(root: &str, verb: Verb, child: &Address) -> String {
    format!("{root}/{}/{child}", verb.as_str())
}

/// `ROOT/VERB/#`: the same verb of every child.
pub fn link_filter(root: &str, verb: Verb) -> String {
    format!("{root}/{}/#", verb.as_str())
}

/// The verb and the child of a link topic; `None` for any other topic.
pub fn parse_link(root: &str, topic: &str) -> Option<(Verb, Address)> {
    let rest = topic.strip_prefix(root)?.strip_prefix('/')?;
    let (verb, child) = rest.split_once('/')?;
    let verb = Verb::ALL.into_iter().find(|v| v.as_str() == verb)?;
    Some((verb, Address::parse(child).ok()?))
}

/// Is this topic below the links' root, well-formed or not? Such topics are never ingress.
pub fn is_link(root: &str, topic: &str) -> bool {
    topic.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// First levels below which only the node itself publishes.
pub const OURS: [&str; 3] = ["events", "cmd", "brain"];

/// Is it below one of [`OURS`]?
pub fn is_ours(topic: &str) -> bool {
    topic.split_once('/').is_some_and(|(first, _)| OURS.contains(&first))
}

/// `brain/ADDRESS/state`
pub fn state(node: &Address) -> String {
    format!("brain/{node}/state")
}

/// `events/TYPE`
pub fn events(kind: &str) -> String {
    format!("events/{kind}")
}

/// `cmd/TYPE`
pub fn cmd(kind: &str) -> String {
    format!("cmd/{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn filters_match_as_the_specification_shows() {
        for (filter, topic, want) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("+", "finance", true),
            ("+", "/finance", false),
            ("/+", "/finance", true),
            ("+/+", "/finance", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
        ] {
            assert_eq!(matches(filter, topic), want, "{filter} {topic}");
        }
    }

    #[test]
    fn bad_topics_and_filters_say_why() {
        assert_eq!(check_topic("a/+/b"), Err(Error::Wildcard));
        assert_eq!(check_topic("a\0b"), Err(Error::Null));
        assert_eq!(check_topic(""), Err(Error::Empty));
        assert_eq!(check_filter("a/#/b"), Err(Error::Hash));
        assert_eq!(check_filter("a#"), Err(Error::Hash));
        assert_eq!(check_filter("a/b+"), Err(Error::Plus));
        assert_eq!(check_filter("$share/g"), Err(Error::Share));
        assert_eq!(check_filter("$share/g/a/+"), Ok(()));
        assert_eq!(check_filter("+/+/#"), Ok(()));
    }

    #[test]
    fn link_topics_read_back() {
        let child = Address::parse("c/s/m").unwrap();
        for v in Verb::ALL {
            assert_eq!(parse_link("citybrain/v1", &link("citybrain/v1", v, &child)), Some((v, child.clone())));
        }
        assert_eq!(parse_link("citybrain/v1", "citybrain/v1/up/BAD"), None);
        assert_eq!(parse_link("citybrain/v1", "citybrain/v12/up/c"), None);
        assert!(is_link("citybrain/v1", "citybrain/v1/up/BAD"));
        assert!(!is_link("citybrain/v1", "citybrain/v12/up/c"));
    }

    proptest! {
        #[test]
        fn a_topic_matches_itself_and_the_hash_above_it(topic in "[a-z]{1,3}(/[a-z]{0,3}){0,4}") {
            prop_assert!(matches(&topic, &topic));
            let first = topic.split('/').next().unwrap_or_default();
            let above = format!("{}/#", first);
            prop_assert!(matches(&above, &topic));
        }
    }
}
