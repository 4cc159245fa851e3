//! Whether a frame continues what the receiver holds. Pure; the engine asks inside its commit step.

use crate::state::{Peer, slot};
use citybrain_shared::Pos;
use citybrain_shared::wire::{Ack, Cursor, FrameHead, Party, Reason, Refuse};

/// What became of a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// To be sent back: committed, duplicate or gap, it always says what is durable here.
    Ack(Ack),
    /// The session is not (or no longer) good.
    Refuse(Refuse),
    /// Damaged, or of an older connection: counted, to be dropped in silence.
    Ignore,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Commit its records and [`taken`] as the new cursor, in one group.
    Take,
    /// All of it is here already: acknowledge again.
    Duplicate,
    /// It begins before the cursor and ends beyond it. A frame cannot be cut, because its records
    /// do not say which positions they had: acknowledge what is here, the sender goes back to it.
    Overlap,
    /// Something before it is missing: acknowledge what is here, the sender goes back to it.
    Gap,
    /// Same history and position, other content.
    Forked,
    /// Of an older session: count it and say nothing, for an answer would confuse the newer one.
    Stale,
    /// No such session here, or one with another history: the sender is to say hello again.
    UnknownSession,
}

/// `granted` is the session in force with this peer: who, and under which lease. Both survive a
/// restart (`Note::Granted`), so a receiver that comes back goes on where it was.
pub(crate) fn judge(peer: &Peer, granted: Option<(Party, u64)>, head: &FrameHead) -> Verdict {
    let Some((party, lease)) = granted else { return Verdict::UnknownSession };
    if head.lease < lease {
        return Verdict::Stale;
    }
    if head.lease > lease || head.from != party {
        return Verdict::UnknownSession;
    }
    let Some(cursor) = peer.has[slot(head.lane)] else { return Verdict::UnknownSession };
    if cursor.log != head.log {
        return Verdict::UnknownSession;
    }
    let forked = (head.after == cursor.upto && head.after_chain != cursor.chain)
        || (head.upto == cursor.upto && head.upto_chain != cursor.chain);
    if forked {
        Verdict::Forked
    } else if head.upto <= cursor.upto {
        Verdict::Duplicate
    } else if head.after == cursor.upto {
        Verdict::Take
    } else if head.after < cursor.upto {
        Verdict::Overlap
    } else {
        Verdict::Gap
    }
}

/// The session in force, as the state knows it.
pub(crate) fn granted(peer: &Peer) -> Option<(Party, u64)> {
    peer.party.map(|party| (party, peer.lease))
}

/// The cursor once a frame that was judged [`Verdict::Take`] is committed.
pub(crate) fn taken(head: &FrameHead) -> Cursor {
    Cursor { log: head.log, upto: head.upto, chain: head.upto_chain }
}

/// What goes back to the sender. `peer` is the state after the commit, `me` the receiver, `credit` how many
/// frames it lets be under way.
pub(crate) fn answer(verdict: Verdict, peer: &Peer, me: Party, credit: u16, head: &FrameHead) -> Received {
    let ack = |gap| {
        let upto = peer.has[slot(head.lane)].map_or(Pos::ZERO, |c| c.upto);
        Received::Ack(Ack {
            from: me,
            to: head.from.boot,
            lease: head.lease,
            log: head.log,
            lane: head.lane,
            upto,
            credit,
            gap,
        })
    };
    match verdict {
        Verdict::Take | Verdict::Duplicate => ack(false),
        Verdict::Overlap | Verdict::Gap => ack(true),
        Verdict::Stale => Received::Ignore,
        Verdict::Forked => Received::Refuse(Refuse {
            boots: peer.boots.clone(),
            held: peer.has,
            ..Refuse::new(
                me,
                head.from.boot,
                Reason::Forked,
                format!("at position {} the sender's history is not the one that is known here", head.after),
            )
        }),
        Verdict::UnknownSession => Received::Refuse(Refuse::new(
            me,
            head.from.boot,
            Reason::Unknown,
            "the frame belongs to no session that is known here: say hello",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::{Boot, Inc, Lane, LogId};

    const HERE: Party = Party { inc: Inc(1), boot: Boot { counter: 3, nonce: 30 } };

    fn peer() -> Peer {
        let at = |upto, chain| Some(Cursor { log: LogId(7), upto: Pos(upto), chain });
        Peer { party: Some(HERE), lease: 5, has: [at(4, 44), at(10, 100)], ..Peer::default() }
    }

    fn head(after: (u64, u64), upto: (u64, u64)) -> FrameHead {
        FrameHead {
            from: HERE,
            lease: 5,
            log: LogId(7),
            lane: Lane::Routine,
            after: Pos(after.0),
            upto: Pos(upto.0),
            after_chain: after.1,
            upto_chain: upto.1,
            records: 1,
        }
    }

    fn says(h: FrameHead) -> Verdict {
        judge(&peer(), granted(&peer()), &h)
    }

    #[test]
    fn only_a_frame_that_begins_at_the_cursor_is_taken() {
        assert_eq!(says(head((10, 100), (12, 120))), Verdict::Take);
        assert_eq!(says(head((11, 110), (12, 120))), Verdict::Gap);
        assert_eq!(says(head((9, 90), (12, 120))), Verdict::Overlap);
        assert_eq!(says(head((4, 40), (10, 100))), Verdict::Duplicate);
        assert_eq!(says(head((2, 20), (9, 90))), Verdict::Duplicate);
    }

    #[test]
    fn an_empty_frame_at_the_cursor_is_only_acknowledged() {
        assert_eq!(says(head((10, 100), (10, 100))), Verdict::Duplicate);
    }

    #[test]
    fn another_chain_at_the_same_position_is_a_fork() {
        assert_eq!(says(head((10, 101), (12, 120))), Verdict::Forked);
        assert_eq!(says(head((8, 80), (10, 101))), Verdict::Forked);
    }

    #[test]
    fn each_lane_has_its_own_cursor() {
        let urgent = FrameHead { lane: Lane::Urgent, ..head((4, 44), (12, 120)) };
        assert_eq!(says(urgent), Verdict::Take);
    }

    #[test]
    fn frames_of_an_older_session_are_dropped_in_silence_and_unknown_ones_are_answered() {
        assert_eq!(says(FrameHead { lease: 4, ..head((10, 100), (12, 120)) }), Verdict::Stale);
        assert_eq!(says(FrameHead { lease: 6, ..head((10, 100), (12, 120)) }), Verdict::UnknownSession);
        let other = Party { boot: Boot { counter: 3, nonce: 31 }, ..HERE };
        assert_eq!(says(FrameHead { from: other, ..head((10, 100), (12, 120)) }), Verdict::UnknownSession);
        assert_eq!(says(FrameHead { log: LogId(8), ..head((10, 100), (12, 120)) }), Verdict::UnknownSession);
        assert_eq!(judge(&peer(), None, &head((10, 100), (12, 120))), Verdict::UnknownSession);
    }

    #[test]
    fn the_answer_always_says_what_is_durable_here() {
        let h = head((11, 110), (12, 120));
        let Received::Ack(ack) = answer(Verdict::Gap, &peer(), HERE, 3, &h) else { panic!("no ack") };
        assert_eq!((ack.upto, ack.gap, ack.lease, ack.to, ack.credit), (Pos(10), true, 5, HERE.boot, 3));
    }
}
