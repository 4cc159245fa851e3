//! Each situation of the table, by its name.

use super::*;
use crate::state::State;
use citybrain_shared::Inc;
use citybrain_shared::wire::Epoch;

const CHILD: Inc = Inc(1);
const PARENT: Inc = Inc(2);
const E0: LogId = LogId(100);
const E1: LogId = LogId(101);
const P0: LogId = LogId(200);

fn a(s: &str) -> Address {
    Address::parse(s).unwrap()
}

fn boot(n: u64) -> Boot {
    Boot { counter: n, nonce: n * 7 }
}

fn mark(n: u64, first: u64) -> BootMark {
    BootMark { boot: boot(n), first: Pos(first) }
}

fn me(inc: Inc, log: LogId, marks: &[BootMark]) -> Me {
    Me {
        inc,
        boot: marks.last().unwrap().boot,
        boots: marks.to_vec(),
        epochs: vec![Epoch { log, first: Pos(1) }],
        ..Me::default()
    }
}

/// The hash of everybody's shared history; a fork's differ.
fn hash(at: Pos) -> u64 {
    at.0 * 10
}

fn at(log: LogId, upto: u64) -> Cursor {
    Cursor { log, upto: Pos(upto), chain: upto * 10 }
}

fn terms() -> Terms {
    Terms { name: "东街".into(), message_bytes_max: 1 << 20, alive_every_ms: 10_000, enrol: Enrol::Auto, credit: 8 }
}

/// A child with 100 records in three starts, and a parent with 50 that holds 40 and 60 of them.
struct Scene {
    child: Me,
    child_first: Pos,
    child_last: Pos,
    child_peers: Vec<(Address, Peer)>,
    parent: Me,
    parent_last: Pos,
    parent_hash: fn(Pos) -> u64,
    child_hash: fn(Pos) -> u64,
    known: Option<Peer>,
    holder: Holder,
    terms: Terms,
    saying: Saying,
}

impl Scene {
    fn usual() -> Scene {
        let child = me(CHILD, E0, &[mark(1, 1), mark(2, 30), mark(3, 90)]);
        let parent = me(PARENT, P0, &[mark(8, 1), mark(9, 20)]);
        let of_parent = Peer {
            party: Some(Party { inc: PARENT, boot: boot(9) }),
            boots: vec![boot(8), boot(9)],
            lease: 4,
            has: [Some(at(P0, 10)), Some(at(P0, 45))],
            peer_has: [Some(at(E0, 40)), Some(at(E0, 60))],
            peer_has_inc: Some(PARENT),
            ..Peer::default()
        };
        let of_child = Peer {
            party: Some(Party { inc: CHILD, boot: boot(2) }),
            boots: vec![boot(1), boot(2)],
            lease: 4,
            has: [Some(at(E0, 40)), Some(at(E0, 60))],
            peer_has: [Some(at(P0, 10)), Some(at(P0, 45))],
            peer_has_inc: Some(CHILD),
            furthest: [Pos(10), Pos(45)],
            ..Peer::default()
        };
        Scene {
            child,
            child_first: Pos(1),
            child_last: Pos(100),
            child_peers: vec![(a("c"), of_parent)],
            parent,
            parent_last: Pos(50),
            parent_hash: hash,
            child_hash: hash,
            known: Some(of_child),
            holder: Holder::default(),
            terms: terms(),
            saying: Saying { id: 3, ..Saying::default() },
        }
    }

    /// A child with a new folder: the parent knows what another one had.
    fn reinstalled() -> Scene {
        let mut s = Scene::usual();
        let known = s.known.as_mut().unwrap();
        known.party = Some(Party { inc: Inc(9), boot: boot(1) });
        known.peer_has_inc = Some(Inc(9));
        s.child_peers.clear();
        s
    }

    /// What the parent does with the notes of a welcome.
    fn commit(&mut self, notes: &[Note]) {
        let mut state = State::default();
        state.peers.insert(a("c/s"), self.known.take().unwrap());
        for (pos, note) in (1..).zip(notes) {
            let draft = note.draft();
            let (header, payload) = draft.parts();
            state.apply(Pos(pos), &header, payload);
        }
        self.known = state.peers.remove(&a("c/s"));
    }

    fn with_child<R>(&self, look: impl FnOnce(&Own<'_>) -> R) -> R {
        let chain = |p: Pos| (p >= self.child_first && p <= self.child_last).then(|| (self.child_hash)(p));
        let (first, last) = (self.child_first, self.child_last);
        look(&Own { address: &a("c/s"), me: &self.child, first, last, chain: &chain })
    }

    fn hello(&self) -> Hello {
        let peers = self.child_peers.iter().map(|(a, p)| (a, p));
        self.with_child(|own| super::hello(own, &terms(), &a("c"), peers, &self.saying))
    }

    fn answer_to(&self, hello: &Hello, minted_for: Option<LogId>) -> OnHello {
        let chain = |p: Pos| (p <= self.parent_last).then(|| (self.parent_hash)(p));
        let own = Own { address: &a("c"), me: &self.parent, first: Pos(1), last: self.parent_last, chain: &chain };
        on_hello(&own, &self.terms, self.known.as_ref(), self.holder, minted_for, hello)
    }

    fn answer(&self) -> OnHello {
        self.answer_to(&self.hello(), None)
    }

    fn welcome(&self) -> (Vec<Note>, Welcome) {
        match self.answer() {
            OnHello::Welcome { notes, welcome } => (notes, *welcome),
            other => panic!("{other:?}"),
        }
    }

    fn refusal(&self) -> Refuse {
        match self.answer() {
            OnHello::Refuse(r) => *r,
            other => panic!("{other:?}"),
        }
    }
}

fn cursors_set(notes: &[Note]) -> Vec<(Lane, Cursor)> {
    let set = |n: &Note| match n {
        Note::CursorSet { lane, cursor, .. } => Some((*lane, *cursor)),
        _ => None,
    };
    notes.iter().filter_map(set).collect()
}

#[test]
fn a_restart_is_welcomed_at_the_cursors_under_a_higher_lease() {
    let (notes, w) = Scene::usual().welcome();
    assert_eq!((w.lease, w.has, w.answers), (5, [at(E0, 40), at(E0, 60)], 3));
    assert_eq!(w.sends, [Some(at(P0, 10)), Some(at(P0, 45))]);
    let party = Party { inc: CHILD, boot: boot(3) };
    assert_eq!(notes, [Note::Granted { child: a("c/s"), party, lease: 5 }]);
}

#[test]
fn a_broker_without_memory_only_means_the_same_hello_again() {
    let s = Scene::usual();
    assert_eq!(s.welcome().1.has, s.welcome().1.has);
}

#[test]
fn a_loop_a_wrong_tier_and_a_stranger_are_told_that_this_is_not_their_parent() {
    let s = Scene::usual();
    for address in ["c", "c/s/m", "d/s"] {
        let hello = Hello { address: a(address), ..s.hello() };
        let OnHello::Refuse(r) = s.answer_to(&hello, None) else { panic!("{address}") };
        assert_eq!(r.reason, Reason::WrongParent, "{address}");
    }
}

#[test]
fn without_a_common_version_both_are_named() {
    let s = Scene::usual();
    let hello = Hello { version_min: 7, version_max: 9, ..s.hello() };
    let OnHello::Refuse(r) = s.answer_to(&hello, None) else { panic!() };
    assert_eq!(r.reason, Reason::Version);
    assert!(r.detail.contains("7 to 9"), "{}", r.detail);
}

#[test]
fn while_the_holder_is_alive_only_a_newer_start_of_it_takes_over() {
    let mut s = Scene::usual();
    s.holder.alive = true;
    assert_eq!(s.welcome().1.lease, 5);
    let mut hold = |party| {
        s.known.as_mut().unwrap().party = Some(party);
        s.refusal().reason
    };
    assert_eq!(hold(Party { inc: CHILD, boot: boot(4) }), Reason::Stale);
    let twin = Boot { counter: 3, nonce: 1 };
    assert_eq!(hold(Party { inc: CHILD, boot: twin }), Reason::Duplicate);
    assert_eq!(hold(Party { inc: Inc(9), boot: boot(1) }), Reason::Duplicate);
}

#[test]
fn a_reinstalled_child_starts_anew_where_it_offers_and_is_not_given_old_commands_again() {
    let s = Scene::reinstalled();
    let (notes, w) = s.welcome();
    assert_eq!(w.has, [at(E0, 0), at(E0, 0)]);
    assert_eq!(cursors_set(&notes), [(Lane::Urgent, at(E0, 0)), (Lane::Routine, at(E0, 0))]);
    assert_eq!(w.sends, [Some(at(P0, 10)), Some(at(P0, 45))]);
}

#[test]
fn a_reinstalled_child_whose_first_welcome_was_lost_begins_where_it_began() {
    let mut s = Scene::reinstalled();
    let (notes, w) = s.welcome();
    s.commit(&notes);
    s.saying.prove = vec![Pos::ZERO];
    let (_, again) = s.welcome();
    assert_eq!((again.lease, again.sends), (w.lease + 1, w.sends));
    // Restored from before its first frame, it needs again what it had.
    s.commit(&[Note::PeerHas { peer: a("c/s"), inc: CHILD, lane: Lane::Routine, cursor: at(P0, 48) }]);
    assert_eq!(s.welcome().1.sends, w.sends);
}

#[test]
fn an_old_hello_of_a_box_that_is_gone_brings_the_next_one_no_old_commands() {
    let mut s = Scene::usual();
    s.child_peers[0].1.has = [Some(at(P0, 5)), Some(at(P0, 20))];
    let (notes, w) = s.welcome();
    assert_eq!(w.sends, [Some(at(P0, 5)), Some(at(P0, 20))]);
    s.commit(&notes);
    s.child = me(Inc(9), E1, &[mark(1, 1)]);
    s.child_peers.clear();
    assert_eq!(s.welcome().1.sends, [Some(at(P0, 10)), Some(at(P0, 45))]);
}

#[test]
fn where_config_says_so_a_new_or_reinstalled_child_waits_for_an_operator() {
    let mut s = Scene::usual();
    s.terms.enrol = Enrol::Manual;
    s.known.as_mut().unwrap().party = Some(Party { inc: Inc(9), boot: boot(1) });
    s.child_peers.clear();
    assert_eq!(s.refusal().reason, Reason::Unenrolled);
    s.known.as_mut().unwrap().enrolled = Some((CHILD, false));
    assert!(s.refusal().detail.contains("has refused"));
    // A word on another incarnation is none on this one.
    s.known.as_mut().unwrap().enrolled = Some((Inc(9), true));
    assert_eq!(s.refusal().reason, Reason::Unenrolled);
    s.known.as_mut().unwrap().enrolled = Some((CHILD, true));
    s.welcome();
    // One that never came before waits, too.
    s.known = None;
    assert!(s.refusal().detail.contains("first time"));
    s.known = Some(Peer { enrolled: Some((CHILD, true)), ..Peer::default() });
    s.welcome();
}

#[test]
fn a_parent_ahead_of_what_its_child_remembers_asks_for_proof_of_all_at_once() {
    let mut s = Scene::usual();
    s.known.as_mut().unwrap().has = [Some(at(E0, 44)), Some(at(E0, 66))];
    let r = s.refusal();
    assert_eq!((r.reason, &r.prove[..]), (Reason::Prove, &[Pos(44), Pos(66)][..]));
    let said = s.hello();
    assert_eq!(s.with_child(|own| on_refuse(own, &said, true, &r)), OnRefuse::Prove(vec![Pos(44), Pos(66)]));
    s.saying.prove = r.prove;
    assert_eq!(s.welcome().1.has, [at(E0, 44), at(E0, 66)]);
}

#[test]
fn a_parent_restored_from_a_backup_is_sent_again_what_it_lost_after_it_took_a_new_name() {
    let mut s = Scene::usual();
    s.known.as_mut().unwrap().has = [Some(at(E0, 20)), Some(at(E0, 25))];
    s.saying.prove = vec![Pos(20), Pos(25)];
    s.parent.boots.push(mark(10, 48));
    let OnHello::Mint(m) = s.answer() else { panic!() };
    assert_eq!(m.firsts, [Pos(48)]);
    s.parent.epochs.push(Epoch { log: E1, first: Pos(48) });
    assert_eq!(s.welcome().1.has, [at(E0, 20), at(E0, 25)]);
}

#[test]
fn what_the_child_trimmed_before_its_parent_was_restored_is_recorded_as_lost() {
    let mut s = Scene::usual();
    s.child_first = Pos(31);
    s.known.as_mut().unwrap().has = [Some(at(E0, 40)), Some(at(E0, 25))];
    s.parent.epochs.push(Epoch { log: E1, first: Pos(1) });
    s.child_peers[0].1.boots.clear();
    s.child_peers[0].1.has = [None; 2];
    s.saying.prove = vec![Pos(30), Pos(40)];
    let (notes, w) = s.welcome();
    assert_eq!(w.has[1].upto, Pos(30));
    let lost = |n: &Note| matches!(n, Note::Lost { after: Pos(25), upto: Pos(30), lane: Some(Lane::Routine), .. });
    assert!(notes.iter().any(lost), "{notes:?}");
}

#[test]
fn a_parent_that_sent_what_it_no_longer_has_mints_from_its_first_unseen_start() {
    let mut s = Scene::usual();
    s.parent.boots.push(mark(10, 31));
    s.parent_last = Pos(35);
    let OnHello::Mint(m) = s.answer() else { panic!() };
    assert_eq!((m.firsts.as_slice(), m.held), (&[Pos(31)][..], P0));
    s.parent.epochs.push(Epoch { log: E1, first: Pos(31) });
    let hello = s.hello();
    let OnHello::Welcome { welcome: w, .. } = s.answer_to(&hello, Some(P0)) else { panic!() };
    assert_eq!(w.epoch.log, E1);
    assert_eq!(w.sends, [Some(at(E1, 10)), Some(at(E1, 30))]);
}

#[test]
fn a_parent_whose_hash_differs_where_the_child_stands_mints_too() {
    let mut s = Scene::usual();
    s.parent.boots.push(mark(10, 31));
    s.parent_hash = |p| if p.0 > 30 { p.0 } else { p.0 * 10 };
    let OnHello::Mint(m) = s.answer() else { panic!() };
    assert_eq!(m.firsts, [Pos(31)]);
}

#[test]
fn a_child_in_the_past_mints_from_its_first_unseen_start_and_goes_on() {
    let mut s = Scene::usual();
    s.known.as_mut().unwrap().has = [Some(at(E0, 40)), Some(at(E0, 130))];
    let r = s.refusal();
    assert_eq!((r.reason, &r.boots), (Reason::Past, &vec![boot(1), boot(2)]));
    let said = s.hello();
    let OnRefuse::Mint(m) = s.with_child(|own| on_refuse(own, &said, true, &r)) else { panic!() };
    assert_eq!((m.firsts.as_slice(), m.held), (&[Pos(90)][..], E0));
    s.child.epochs.push(Epoch { log: E1, first: Pos(90) });
    s.saying = Saying { id: 4, prove: vec![Pos(40), Pos(89)], minted_for: Some(E0) };
    let (notes, w) = s.welcome();
    assert_eq!(w.has, [at(E1, 40), at(E1, 89)]);
    assert_eq!(cursors_set(&notes).len(), 2);
    assert_eq!((log_at(&s.child.epochs, Pos(89)), log_at(&s.child.epochs, Pos(90))), (E0, E1));
}

#[test]
fn a_cloned_disk_shows_as_a_forked_chain() {
    let mut s = Scene::usual();
    s.child_hash = |p| if p.0 > 50 { p.0 } else { p.0 * 10 };
    let r = s.refusal();
    assert_eq!((r.reason, r.held), (Reason::Forked, [Some(at(E0, 40)), Some(at(E0, 60))]));
}

#[test]
fn a_new_name_that_was_not_needed_here_moves_the_cursor_and_sends_nothing_again() {
    let mut s = Scene::usual();
    s.child.epochs.push(Epoch { log: E1, first: Pos(30) });
    assert_eq!(s.welcome().1.has, [at(E1, 40), at(E1, 60)]);
}

#[test]
fn a_history_that_the_child_has_lost_is_refused_until_it_mints_for_it() {
    let mut s = Scene::usual();
    s.known.as_mut().unwrap().has = [Some(at(E1, 40)), Some(at(E1, 60))];
    let r = s.refusal();
    assert_eq!(r.reason, Reason::Forked);
    let said = s.hello();
    let OnRefuse::Mint(m) = s.with_child(|own| on_refuse(own, &said, true, &r)) else { panic!() };
    // Nothing that the parent still lacks keeps a name that may have been used twice.
    assert_eq!((m.firsts.as_slice(), m.held), (&[Pos(41), Pos(90)][..], E1));
    let mut ids = [LogId(7), LogId(8)].into_iter();
    assert_eq!(m.notes(|| ids.next().unwrap()).len(), 2);
}

#[test]
fn minted_and_still_refused_goes_one_start_further_back() {
    let mut s = Scene::usual();
    s.child.epochs.push(Epoch { log: E1, first: Pos(90) });
    s.saying.minted_for = Some(E0);
    let said = s.hello();
    let r = Refuse {
        answers: 3,
        boots: vec![boot(1), boot(2)],
        held: [None, Some(at(E0, 60))],
        ..Refuse::new(Party::default(), boot(3), Reason::Forked, "")
    };
    let OnRefuse::Mint(m) = s.with_child(|own| on_refuse(own, &said, true, &r)) else { panic!() };
    assert_eq!(m.firsts, [Pos(30)]);
}

#[test]
fn a_child_that_moved_starts_at_what_the_former_parent_acknowledged() {
    let mut s = Scene::usual();
    s.known = None;
    s.child_peers[0].1.peer_has = [Some(at(E0, 40)), Some(at(E0, 60))];
    let hello = Hello { peer_address: Some(a("old")), peer: Some(Inc(9)), has: [None; 2], ..s.hello() };
    let OnHello::Welcome { notes, welcome } = s.answer_to(&hello, None) else { panic!() };
    assert_eq!(welcome.has, [at(E0, 40), at(E0, 60)]);
    assert_eq!(cursors_set(&notes).len(), 2);
    assert_eq!(welcome.sends, [Some(at(P0, 0)), Some(at(P0, 0))]);
}

#[test]
fn a_reinstalled_parent_gets_all_that_its_child_retained() {
    let mut s = Scene::usual();
    s.known = None;
    s.child_first = Pos(31);
    s.parent = me(Inc(3), LogId(300), &[mark(1, 1)]);
    s.parent_last = Pos(1);
    s.saying.prove = vec![Pos(30)];
    let hello = Hello { has: [None; 2], ..s.hello() };
    let OnHello::Welcome { welcome, .. } = s.answer_to(&hello, None) else { panic!() };
    assert_eq!(welcome.has.map(|c| c.upto), [Pos(30), Pos(30)]);
}

#[test]
fn a_child_knows_what_the_box_before_its_parent_had_however_often_it_has_to_begin() {
    let mut s = Scene::usual();
    s.child_peers[0].1.furthest = [Pos(40), Pos(60)];
    s.saying.prove = vec![Pos(40), Pos(60)];
    let session = |s: &Scene, inc: Inc| {
        let (_, welcome) = s.welcome();
        let welcome = Welcome { from: Party { inc, ..welcome.from }, ..welcome };
        let (said, peer) = (s.hello(), &s.child_peers[0].1);
        match s.with_child(|own| on_welcome(own, &terms(), &a("c"), Some(peer), &said, true, &welcome)) {
            OnWelcome::Up { notes, session } => (notes, session.had_before),
            other => panic!("{other:?}"),
        }
    };
    // Another box, which is cut off as soon as it has come a little further.
    let (notes, had) = session(&s, Inc(3));
    assert_eq!(had, [Pos(40), Pos(60)]);
    assert!(notes.iter().any(|n| matches!(n, Note::PeerHas { inc: Inc(3), .. })), "{notes:?}");
    s.child_peers[0].1.note_has(Inc(3), Lane::Routine, at(E0, 20));
    assert_eq!(session(&s, Inc(3)).1, [Pos(40), Pos(60)]);
    // One more, in place of that.
    assert_eq!(session(&s, Inc(4)).1, [Pos(40), Pos(60)]);
}

#[test]
fn a_parent_restored_from_a_backup_is_told_what_it_had_since() {
    let mut s = Scene::usual();
    s.child_peers[0].1.furthest = [Pos(40), Pos(60)];
    s.known.as_mut().unwrap().has = [Some(at(E0, 20)), Some(at(E0, 25))];
    s.saying.prove = vec![Pos(20), Pos(25)];
    s.parent.boots.push(mark(10, 48));
    s.parent.epochs.push(Epoch { log: E1, first: Pos(48) });
    let (_, welcome) = s.welcome();
    let (said, peer) = (s.hello(), &s.child_peers[0].1);
    match s.with_child(|own| on_welcome(own, &terms(), &a("c"), Some(peer), &said, true, &welcome)) {
        OnWelcome::Up { session, .. } => {
            assert_eq!(session.starts, [at(E0, 20), at(E0, 25)]);
            assert_eq!(session.had_before, [Pos(40), Pos(60)]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_child_restored_from_a_backup_is_told_what_it_had_since() {
    let mut s = Scene::usual();
    s.child_peers[0].1.has = [Some(at(P0, 5)), Some(at(P0, 20))];
    let (_, welcome) = s.welcome();
    let session = session_of(s.known.as_ref(), &s.hello(), &welcome, &terms());
    assert_eq!(session.starts, [at(P0, 5), at(P0, 20)]);
    assert_eq!(session.had_before, [Pos(10), Pos(45)]);
    assert_eq!(session_of(None, &s.hello(), &welcome, &terms()).had_before, [Pos::ZERO; 2]);
}

#[test]
fn the_child_takes_the_welcome_it_waits_for_and_no_other() {
    let s = Scene::usual();
    let said = s.hello();
    let (_, w) = s.welcome();
    let take = |awaiting, w: &Welcome| {
        let peer = &s.child_peers[0].1;
        s.with_child(|own| on_welcome(own, &terms(), &a("c"), Some(peer), &said, awaiting, w))
    };
    let OnWelcome::Up { notes, session } = take(true, &w) else { panic!() };
    assert_eq!((session.lease, session.log, session.starts), (5, E0, [at(E0, 40), at(E0, 60)]));
    assert_eq!(cursors_set(&notes), []);
    assert!(matches!(take(false, &w), OnWelcome::Again(_)));
    assert_eq!(take(true, &Welcome { answers: 2, ..w.clone() }), OnWelcome::Ignore);
    assert_eq!(take(true, &Welcome { to: boot(2), ..w.clone() }), OnWelcome::Ignore);
    assert_eq!(take(false, &Welcome { lease: 4, ..w.clone() }), OnWelcome::Ignore);
    assert!(matches!(take(true, &Welcome { address: a("d"), ..w }), OnWelcome::Again(_)));
}

#[test]
fn a_child_follows_its_parents_new_name_and_records_what_was_trimmed() {
    let s = Scene::usual();
    let said = s.hello();
    let (_, mut w) = s.welcome();
    w.sends = [Some(at(E1, 10)), Some(at(P0, 48))];
    let peer = &s.child_peers[0].1;
    let up = s.with_child(|own| on_welcome(own, &terms(), &a("c"), Some(peer), &said, true, &w));
    let OnWelcome::Up { notes, .. } = up else { panic!("{up:?}") };
    assert_eq!(cursors_set(&notes), [(Lane::Urgent, at(E1, 10)), (Lane::Routine, at(P0, 48))]);
    assert!(notes.iter().any(|n| matches!(n, Note::Lost { after: Pos(45), upto: Pos(48), .. })), "{notes:?}");
}

#[test]
fn late_refusals_and_those_for_another_start_are_ignored() {
    let s = Scene::usual();
    let said = s.hello();
    let says = |awaiting, answers, to, reason| {
        let r = Refuse { answers, ..Refuse::new(Party::default(), to, reason, "") };
        s.with_child(|own| on_refuse(own, &said, awaiting, &r))
    };
    assert_eq!(says(true, 2, boot(3), Reason::Past), OnRefuse::Ignore);
    assert_eq!(says(true, 0, boot(3), Reason::Unknown), OnRefuse::Ignore);
    assert_eq!(says(false, 2, boot(3), Reason::Past), OnRefuse::Ignore);
    assert_eq!(says(false, 3, boot(3), Reason::Past), OnRefuse::Again, "the retained hello, by a parent that is back");
    assert_eq!(says(false, 3, boot(3), Reason::WrongParent), OnRefuse::Ignore, "somebody else at the same broker");
    assert_eq!(says(true, 3, boot(2), Reason::Stale), OnRefuse::Ignore);
    assert_eq!(says(false, 0, boot(3), Reason::Unknown), OnRefuse::Again);
    assert_eq!(says(false, 0, boot(3), Reason::Forked), OnRefuse::Again);
    assert_eq!(says(true, 3, boot(3), Reason::Unenrolled), OnRefuse::Wait);
}
