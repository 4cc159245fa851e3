//! Acknowledgements that wait for a commit, and leave in the order in which the publishes came.

use super::core::Core;
use super::packet::answer::Tongue;
use super::packet::{Version, kind, reason};
use super::pending::{Load, Pending};
use crate::engine::{Error, Offered, Outcome};
use citybrain_shared::Lane;
use std::collections::HashSet;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

/// One answer to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// PUBACK, PUBREC or PUBCOMP.
    pub kind: u8,
    pub id: u16,
    pub reason: u8,
    /// It is given again, and stands whatever becomes of the commit with which it waits.
    pub stands: bool,
}

/// A connection's held answers, first in, first out.
#[derive(Default)]
pub(crate) struct Held {
    /// What was offered together, with its answers.
    pending: Pending<Vec<Outcome>, Vec<Answer>>,
    /// Packet ids of publishes whose answer is held. A client that sends one again before its
    /// answer gets that one answer.
    ids: HashSet<u16>,
    len: usize,
}

impl Held {
    /// Answers held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Commits that are awaited, also without answers, and what waits for one of them.
    pub(crate) fn offers(&self) -> usize {
        self.pending.len()
    }

    /// Nothing waits, not even a commit without answers.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What has no room in the engine's queues yet.
    pub(crate) fn waiting(&self) -> Load {
        self.pending.waiting()
    }

    pub(crate) fn holds(&self, id: u16) -> bool {
        self.ids.contains(&id)
    }

    /// Notes that the publish `id` is being taken; its answer comes with the next [`Held::push`].
    pub(crate) fn take(&mut self, id: u16) {
        self.ids.insert(id);
    }

    /// Offers `drafts`, all of one lane, and gives the answers once they are on disk; without any at once, but not
    /// before those ahead of them.
    pub(crate) fn push(&mut self, core: &dyn Core, drafts: Vec<Offered>, answers: Vec<Answer>) {
        self.len += answers.len();
        if let Some(lane) = drafts.first().map(Offered::lane) {
            self.pending.push(lane, Load::of(&drafts), core.offer(drafts), answers);
        } else if !answers.is_empty() {
            self.pending.push_behind(answers);
        }
    }

    /// See [`Pending::poll_room`].
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> bool {
        self.pending.poll_room(cx)
    }

    /// See [`Pending::offered`].
    pub(crate) async fn offered(&mut self, lane: Lane) {
        self.pending.offered(lane).await;
    }

    /// See [`Pending::all_offered`].
    pub(crate) async fn all_offered(&mut self) {
        self.pending.all_offered().await;
    }

    /// Waits for the commits of what was offered, which is all ([`Held::all_offered`]), with nobody left to hear the
    /// answers.
    pub(crate) async fn settle(&mut self) {
        assert_eq!(self.waiting(), Load::default(), "what waits for room is in no commit");
        while !self.pending.is_empty() {
            let _ = poll_fn(|cx| self.pending.poll_next(cx)).await;
        }
    }

    /// Writes the answers of what was offered first if its commit is done. `Ready(Ok(()))`: call again.
    ///
    /// With MQTT 5 a failed commit is answered by a reason code, and the client decides.
    /// With 3.1.1 there is no such answer, nor is there for a PUBREL: the error is returned and the
    /// connection must end without an acknowledgement.
    /// `failed` hears of each answer that says so.
    pub(crate) fn poll(
        &mut self,
        tongue: Tongue,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        mut failed: impl FnMut(&Answer),
    ) -> Poll<Result<(), Error>> {
        let (answers, done) = ready!(self.pending.poll_next(cx));
        self.len -= answers.len();
        let unwritable = match done {
            Ok(()) => false,
            Err(Error::Unwritable(_))
                if tongue.version == Version::V5 && answers.iter().all(|a| a.kind != kind::PUBCOMP) =>
            {
                true
            }
            Err(e) => return Poll::Ready(Err(e)),
        };
        for a in answers {
            self.ids.remove(&a.id);
            let fails = unwritable && !a.stands;
            if fails {
                failed(&a);
            }
            tongue.put_ack(a.kind, a.id, if fails { reason::IMPLEMENTATION } else { a.reason }, out);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::pending::tests::{ONE, offer};
    use citybrain_shared::Pos;
    use proptest::prelude::*;
    use std::task::Waker;
    use tokio::sync::oneshot;

    /// A commit that waits for its sync.
    fn commit(held: &mut Held, answers: Vec<Answer>) -> oneshot::Sender<Result<Vec<Outcome>, Error>> {
        let (offering, room, reply) = offer();
        held.len += answers.len();
        held.pending.push(Lane::Routine, ONE, offering, answers);
        room.send(()).unwrap();
        assert!(held.poll_room(&mut Context::from_waker(Waker::noop())));
        reply
    }

    fn answer(id: u16) -> Answer {
        Answer { kind: kind::PUBACK, id, reason: 0, stands: false }
    }

    fn drain(held: &mut Held, version: Version) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(done) = held.poll(Tongue::unknown(version), &mut cx, &mut out, |_| {}) {
            done?;
        }
        Ok(out)
    }

    #[test]
    fn a_failed_commit_is_never_acknowledged() {
        let mut refusal = Vec::new();
        Tongue::unknown(Version::V5).put_ack(kind::PUBACK, 7, reason::IMPLEMENTATION, &mut refusal);
        for (version, want) in [(Version::V5, Some(refusal)), (Version::V4, None)] {
            let mut held = Held::default();
            held.take(7);
            let tx = commit(&mut held, vec![answer(7)]);
            tx.send(Err(Error::Unwritable("full".into()))).unwrap();
            assert_eq!(drain(&mut held, version).ok(), want);
        }
    }

    #[test]
    fn a_failed_commit_takes_nothing_from_what_was_said_before() {
        let mut held = Held::default();
        let again = Answer { kind: kind::PUBREC, stands: true, ..answer(3) };
        let tx = commit(&mut held, vec![again, answer(7)]);
        tx.send(Err(Error::Unwritable("full".into()))).unwrap();
        let (mut out, mut failed) = (Vec::new(), Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        let _ = held.poll(Tongue::unknown(Version::V5), &mut cx, &mut out, |a| failed.push(a.id));
        assert_eq!((&out[..4], &failed[..]), (&[0x50, 2, 0, 3][..], &[7][..]));
    }

    #[test]
    fn an_engine_that_vanished_acknowledges_nothing() {
        let mut held = Held::default();
        drop(commit(&mut held, vec![answer(7)]));
        assert!(drain(&mut held, Version::V5).is_err());
    }

    proptest! {
        /// Commits may complete in any order: acknowledgements leave in the order of the publishes.
        #[test]
        fn answers_leave_in_order(
            sizes in proptest::collection::vec((0usize..4, any::<bool>()), 1..20), order in any::<u64>(),
        ) {
            let mut held = Held::default();
            let mut open = Vec::new();
            let mut id = 0u16;
            let mut want = Vec::new();
            for (n, waits) in sizes {
                let answers: Vec<_> = (0..n).map(|_| { id += 1; answer(id) }).collect();
                want.extend(answers.iter().flat_map(|a| [0x40, 2, 0, a.id as u8]));
                if waits {
                    open.push(commit(&mut held, answers));
                } else {
                    held.len += answers.len();
                    held.pending.push_behind(answers);
                }
            }
            let mut got = Vec::new();
            let mut seed = order;
            while !open.is_empty() {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
                let tx = open.swap_remove((seed >> 33) as usize % open.len());
                tx.send(Ok(vec![Outcome::Committed(Pos(1))])).unwrap();
                got.extend(drain(&mut held, Version::V4).unwrap());
                prop_assert!(want.starts_with(&got));
            }
            got.extend(drain(&mut held, Version::V4).unwrap());
            prop_assert_eq!(got, want);
            prop_assert_eq!((held.len(), held.is_empty()), (0, true));
        }
    }
}
