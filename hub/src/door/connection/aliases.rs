//! Topic aliases towards a client: the topics that it got most lately go as two bytes.

use bytes::Bytes;
use std::collections::HashMap;

/// More would save little and cost a search among them for each new topic.
const ALIASES_MAX: u16 = 64;

/// A topic this short is no longer than the property that would stand for it.
const TOPIC_BYTES_MIN: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Aliases {
    max: u16,
    by_topic: HashMap<Bytes, u16>,
    /// Topic and last use of each alias, from alias 1 on.
    slots: Vec<(Bytes, u64)>,
    now: u64,
}

/// How a topic goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    pub alias: u16,
    /// The client knows it; the topic itself is left out.
    pub known: bool,
}

impl Aliases {
    /// For a client that takes so many.
    pub(super) fn new(max: u16) -> Aliases {
        Aliases { max: max.min(ALIASES_MAX), ..Aliases::default() }
    }

    /// The alias for the topic of the next message; the one used longest ago may lose its own.
    pub(super) fn of(&mut self, topic: &Bytes) -> Option<Alias> {
        if self.max == 0 || topic.len() < TOPIC_BYTES_MIN {
            return None;
        }
        self.now += 1;
        if let Some(alias) = self.by_topic.get(topic) {
            self.slots[usize::from(*alias) - 1].1 = self.now;
            return Some(Alias { alias: *alias, known: true });
        }
        // A slice of a record would keep the whole record.
        let topic = Bytes::copy_from_slice(topic);
        let alias = if self.slots.len() < self.max.into() {
            self.slots.push((topic.clone(), self.now));
            self.slots.len() as u16
        } else {
            let oldest = (0..self.slots.len()).min_by_key(|i| self.slots[*i].1)?;
            let (old, _) = std::mem::replace(&mut self.slots[oldest], (topic.clone(), self.now));
            self.by_topic.remove(&old);
            oldest as u16 + 1
        };
        self.by_topic.insert(topic, alias);
        Some(Alias { alias, known: false })
    }

    /// The message that was to make the topic known did not go out.
    pub(super) fn forget(&mut self, topic: &Bytes) {
        if let Some(alias) = self.by_topic.remove(topic) {
            // Its place is the next to be used; the empty topic is nobody's.
            self.slots[usize::from(alias) - 1] = (Bytes::new(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn none_without_leave_and_none_for_what_is_short() {
        assert_eq!(Aliases::new(0).of(&Bytes::from_static(b"a/long/topic")), None);
        assert_eq!(Aliases::new(9).of(&Bytes::from_static(b"a/b")), None);
    }

    proptest! {
        /// A client that keeps what it is told always has the right topic.
        #[test]
        fn the_client_knows_every_alias_that_stands_alone(
            max in 1u16..5, steps in proptest::collection::vec((0u8..9, any::<bool>()), 0..200),
        ) {
            let mut aliases = Aliases::new(max);
            let mut client: HashMap<u16, Bytes> = HashMap::new();
            for (n, sent) in steps {
                let topic = Bytes::from(format!("topic/{n}"));
                let a = aliases.of(&topic).unwrap();
                prop_assert!(a.alias >= 1 && a.alias <= max);
                if !sent {
                    if !a.known { aliases.forget(&topic); }
                    continue;
                }
                if a.known {
                    prop_assert_eq!(client.get(&a.alias), Some(&topic));
                } else {
                    client.insert(a.alias, topic);
                }
            }
        }
    }
}
