//! Acknowledgements that wait for a commit, and leave in the order in which the publishes came.

use super::packet::answer::Tongue;
use super::packet::{Version, kind, reason};
use crate::engine::{Error, Outcome, Ticket};
use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

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

/// The answers of one socket read, given when its ticket completes; without one at once, but not
/// before those ahead of them.
#[derive(Debug)]
struct Batch {
    ticket: Option<Ticket<Vec<Outcome>>>,
    answers: Vec<Answer>,
}

/// A connection's held answers, first in, first out.
#[derive(Debug, Default)]
pub(crate) struct Held {
    batches: VecDeque<Batch>,
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

    /// Nothing waits, not even a ticket without answers.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(crate) fn holds(&self, id: u16) -> bool {
        self.ids.contains(&id)
    }

    /// Notes that the publish `id` is being taken; its answer comes with the next [`Held::push`].
    pub(crate) fn take(&mut self, id: u16) {
        self.ids.insert(id);
    }

    pub(crate) fn push(&mut self, ticket: Option<Ticket<Vec<Outcome>>>, answers: Vec<Answer>) {
        if ticket.is_none() && answers.is_empty() {
            return;
        }
        self.len += answers.len();
        self.batches.push_back(Batch { ticket, answers });
    }

    /// Waits for all commits, with nobody left to hear the answers.
    pub(crate) async fn settle(&mut self) {
        for ticket in self.batches.drain(..).filter_map(|batch| batch.ticket) {
            let _ = ticket.await;
        }
    }

    /// Writes the answers of the oldest batch if its commit is done. `Ready(Ok(true))`: call again.
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
    ) -> Poll<Result<bool, Error>> {
        let Some(batch) = self.batches.front_mut() else { return Poll::Ready(Ok(false)) };
        let done = match &mut batch.ticket {
            None => Ok(()),
            Some(ticket) => match Pin::new(ticket).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Ok(_))) => Ok(()),
                Poll::Ready(Ok(Err(e))) => Err(e),
                // The engine went away without a word.
                Poll::Ready(Err(_)) => Err(Error::Stopping),
            },
        };
        let batch = self.batches.pop_front().expect("its front was polled");
        self.len -= batch.answers.len();
        let unwritable = match done {
            Ok(()) => false,
            Err(Error::Unwritable(_))
                if tongue.version == Version::V5 && batch.answers.iter().all(|a| a.kind != kind::PUBCOMP) =>
            {
                true
            }
            Err(e) => return Poll::Ready(Err(e)),
        };
        for a in batch.answers {
            self.ids.remove(&a.id);
            let fails = unwritable && !a.stands;
            if fails {
                failed(&a);
            }
            tongue.put_ack(a.kind, a.id, if fails { reason::IMPLEMENTATION } else { a.reason }, out);
        }
        Poll::Ready(Ok(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::Pos;
    use proptest::prelude::*;
    use std::task::Waker;
    use tokio::sync::oneshot;

    fn answer(id: u16) -> Answer {
        Answer { kind: kind::PUBACK, id, reason: 0, stands: false }
    }

    fn drain(held: &mut Held, version: Version) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(more) = held.poll(Tongue::unknown(version), &mut cx, &mut out, |_| {}) {
            if !more? {
                break;
            }
        }
        Ok(out)
    }

    #[test]
    fn a_failed_commit_is_never_acknowledged() {
        let mut refusal = Vec::new();
        Tongue::unknown(Version::V5).put_ack(kind::PUBACK, 7, reason::IMPLEMENTATION, &mut refusal);
        for (version, want) in [(Version::V5, Some(refusal)), (Version::V4, None)] {
            let mut held = Held::default();
            let (tx, rx) = oneshot::channel();
            held.take(7);
            held.push(Some(rx), vec![answer(7)]);
            tx.send(Err(Error::Unwritable("full".into()))).unwrap();
            assert_eq!(drain(&mut held, version).ok(), want);
        }
    }

    #[test]
    fn a_failed_commit_takes_nothing_from_what_was_said_before() {
        let mut held = Held::default();
        let (tx, rx) = oneshot::channel();
        let again = Answer { kind: kind::PUBREC, stands: true, ..answer(3) };
        held.push(Some(rx), vec![again, answer(7)]);
        tx.send(Err(Error::Unwritable("full".into()))).unwrap();
        let (mut out, mut failed) = (Vec::new(), Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        let _ = held.poll(Tongue::unknown(Version::V5), &mut cx, &mut out, |a| failed.push(a.id));
        assert_eq!((&out[..4], &failed[..]), (&[0x50, 2, 0, 3][..], &[7][..]));
    }

    #[test]
    fn an_engine_that_vanished_acknowledges_nothing() {
        let mut held = Held::default();
        let (tx, rx) = oneshot::channel();
        held.push(Some(rx), vec![answer(7)]);
        drop(tx);
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
                let ticket = waits.then(|| { let (tx, rx) = oneshot::channel(); open.push(tx); rx });
                held.push(ticket, answers);
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
