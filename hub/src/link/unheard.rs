//! Who below a node is not heard. Each node says it to its parent with its sign of life, so that a node far above knows
//! whose word it lacks. Never stored: it is true as long as the links are up on which it came.

use super::sender::Ms;
use super::view::{LinkView, Role, Stage};
use crate::state::State;
use citybrain_shared::Address;
use citybrain_shared::view::Unheard;
use std::collections::{BTreeMap, BTreeSet};

/// How many are told to the parent, some 20 KiB; of more, how many there are.
pub(super) const TOLD_MAX: usize = 256;
/// What is told anew is so far apart at least, ms.
const APART_MS: Ms = 1_000;
/// And so long for each name, of some 80 bytes: 2 kB/s at most, where many come and go on a slow line.
const NAME_MS: Ms = 40;

/// The topmost nodes below that are not heard, by this node's own links and by what the children say that are heard;
/// and how many more those children have.
pub(super) fn unheard(state: &State, me: &Address, links: &[LinkView], now_us: i64) -> (Vec<Unheard>, u64) {
    let down = links.iter().filter(|l| l.role == Role::Down);
    let down: BTreeMap<&Address, &LinkView> = down.map(|l| (&l.peer, l)).collect();
    let children: BTreeSet<Address> = state.registry.keys().filter_map(|node| me.child_towards(node)).collect();
    let is_heard = |child: &Address| down.get(child).is_some_and(|l| l.stage == Stage::Up);
    let away = children.into_iter().filter(|child| !is_heard(child));
    // Of one that has had no link since this node's start the log says it.
    let by_log = |node: &Address| Some((now_us - state.heard_us(node)?).max(0) as u64 / 1000);
    let own = away.map(|node| {
        let by_link = down.get(&node).and_then(|l| l.last_heard_ms_ago);
        Unheard { last_heard_ms_ago: by_link.or_else(|| by_log(&node)), node }
    });
    let heard = || down.values().filter(|l| l.stage == Stage::Up);
    let all = own.chain(heard().flat_map(|l| l.unheard.iter().cloned())).collect();
    (all, heard().map(|l| l.unheard_more).sum())
}

/// The same for the parent, bounded.
pub(super) fn told(state: &State, me: &Address, links: &[LinkView], now_us: i64) -> (Vec<Unheard>, u64) {
    let (mut all, more) = unheard(state, me, links, now_us);
    let left = all.len().saturating_sub(TOLD_MAX) as u64;
    all.truncate(TOLD_MAX);
    (all, more + left)
}

/// How long after so many were told others may be, ms.
pub(super) fn apart_ms(names: usize) -> Ms {
    APART_MS.max(NAME_MS * names as Ms)
}

/// What a child says, as far as it may: of nodes below it.
pub(super) fn believed(child: &Address, said: Vec<Unheard>) -> Vec<Unheard> {
    said.into_iter().filter(|u| child.covers(&u.node) && u.node != *child).take(TOLD_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::Note;
    use crate::state::Known;
    use citybrain_shared::record::Header;
    use citybrain_shared::wire::{Cursor, Party};
    use citybrain_shared::{Boot, Inc, Lane, LogId, Pos};

    fn known(address: &Address) -> Known {
        Known {
            ordinal: 0,
            name: String::new(),
            tier: address.tier(),
            code: None,
            labels: Default::default(),
            inc: Inc(1),
            version: "0".into(),
            last_heard_us: 0,
        }
    }

    #[test]
    fn a_node_says_who_below_is_not_heard_by_itself_or_by_its_children() {
        let [city, a, b, c] = ["c", "c/a", "c/b", "c/c"].map(|text| Address::parse(text).unwrap());
        let mut state = State::default();
        for node in ["c", "c/a", "c/a/x", "c/a/y", "c/b", "c/b/x", "c/c/x"].map(|text| Address::parse(text).unwrap()) {
            state.registry.insert(node.clone(), known(&node));
        }
        let of = |text: &str, ms| Unheard { node: Address::parse(text).unwrap(), last_heard_ms_ago: ms };
        let up = LinkView { stage: Stage::Up, ..LinkView::new(a.clone(), Role::Down) };
        let said = vec![of("c/a/x", Some(7)), of("c/a", None), of("c/b/x", None)];
        let up = LinkView { unheard: believed(&a, said), unheard_more: 3, ..up };
        let away = LinkView { stage: Stage::Away, last_heard_ms_ago: Some(5), ..LinkView::new(b.clone(), Role::Down) };
        // What one said that is away itself is over.
        let away = LinkView { unheard: vec![of("c/b/x", None)], unheard_more: 2, ..away };
        let (all, more) = unheard(&state, &city, &[up, away], 0);
        let wanted = [of(b.as_str(), Some(5)), of(c.as_str(), None), of("c/a/x", Some(7))];
        assert_eq!((all.as_slice(), more), (&wanted[..], 3));
    }

    #[test]
    fn after_a_restart_the_log_says_when_a_child_was_heard_last_and_not_its_own_start() {
        let [city, child] = ["c", "c/a"].map(|text| Address::parse(text).unwrap());
        let mut state = State::default();
        state.registry.insert(child.clone(), Known { last_heard_us: 1_000_000, ..known(&child) });
        let ago = |state: &State| unheard(state, &city, &[], 9_000_000).0[0].last_heard_ms_ago;
        assert_eq!(ago(&state), Some(8_000));
        let (lane, cursor) = (Lane::Routine, Cursor { log: LogId(1), upto: Pos(7), chain: 0 });
        let from = Party { inc: Inc(1), boot: Boot::default() };
        let note = Note::Received { peer: child.clone(), from, lane, cursor, records: 1, dropped: 0 };
        let draft = note.draft();
        let (header, payload) = draft.parts();
        state.apply(Pos(1), &Header { committed_us: 7_000_000, ..header }, payload);
        assert_eq!(ago(&state), Some(2_000));
    }

    #[test]
    fn what_is_too_much_for_a_sign_of_life_is_counted() {
        let city = Address::parse("c").unwrap();
        let mut state = State::default();
        for n in 0..TOLD_MAX + 4 {
            let node = Address::parse(&format!("c/n{n}")).unwrap();
            state.registry.insert(node.clone(), known(&node));
        }
        let (all, more) = told(&state, &city, &[], 0);
        assert_eq!((all.len(), more), (TOLD_MAX, 4));
    }
}
