//! Acknowledgements that wait for a commit, and leave in the order in which the publishes came.

use super::core::Offering;
use super::packet::answer::Tongue;
use super::packet::{Version, kind, reason};
use crate::engine::{Error, Outcome, Ticket};
use citybrain_shared::Lane;
use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// One answer to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// PUBACK, PUBREC or PUBCOMP.
    pub kind: u8,
    pub id: u16,
    pub reason: u8,
    /// It is given again, and stands whatever becomes of the commit with which it waits.
    pub stands: bool,
}

/// A client is read on while no more than this of what is not urgent waits for room with the engine, so that
/// what is urgent behind it is found.
const READ_ON_BYTES: usize = 64 * 1024;

/// The answers to one offer, or to publishes of which nothing is kept: given then, but not before those ahead
/// of them.
struct Batch {
    offer: Offer,
    answers: Vec<Answer>,
}

enum Offer {
    /// There is none.
    Nothing,
    /// The engine's queue was full a moment ago. With its lane and bytes.
    Waits(Offering<Vec<Outcome>>, Lane, usize),
    Taken(Ticket<Vec<Outcome>>),
}

/// A connection's held answers, first in, first out.
#[derive(Default)]
pub struct Held {
    batches: VecDeque<Batch>,
    /// How many of them wait for room, how many of these are urgent, and the others' bytes.
    waiting: usize,
    waiting_urgent: usize,
    waiting_bytes: usize,
    /// Packet ids of publishes whose answer is held. A client that sends one again before its
    /// answer gets that one answer.
    ids: HashSet<u16>,
    len: usize,
}

impl Held {
    /// Answers held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing waits, not even a ticket without answers.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub fn holds(&self, id: u16) -> bool {
        self.ids.contains(&id)
    }

    /// Notes that the publish `id` is being taken; its answer comes with the next [`Held::push`].
    pub fn take(&mut self, id: u16) {
        self.ids.insert(id);
    }

    /// Answers that wait only for those before them.
    pub fn push(&mut self, answers: Vec<Answer>) {
        if !answers.is_empty() {
            self.put(Offer::Nothing, answers);
        }
    }

    /// Answers to an offer: so many bytes, all of one lane.
    pub fn push_offer(&mut self, lane: Lane, bytes: usize, offering: Offering<Vec<Outcome>>, answers: Vec<Answer>) {
        self.waiting += 1;
        match lane {
            Lane::Urgent => self.waiting_urgent += 1,
            Lane::Routine => self.waiting_bytes += bytes,
        }
        self.put(Offer::Waits(offering, lane, bytes), answers);
    }

    fn put(&mut self, offer: Offer, answers: Vec<Answer>) {
        self.len += answers.len();
        self.batches.push_back(Batch { offer, answers });
    }

    /// May more be read, though the engine's queue may be full?
    pub fn is_room(&self) -> bool {
        self.waiting_urgent == 0 && self.waiting_bytes <= READ_ON_BYTES
    }

    /// Those that are left wait for nobody's answer any more; what was offered is offered all the same.
    pub async fn offer_all(&mut self) {
        for batch in self.batches.drain(..) {
            if let Offer::Waits(offering, ..) = batch.offer {
                drop(offering.await);
            }
        }
    }

    /// Asks for room for what waits, each lane's in their order. True: there was some.
    ///
    /// # Errors
    /// As the engine says.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let before = self.waiting;
        if before == 0 {
            return Ok(false);
        }
        for batch in &mut self.batches {
            let Offer::Waits(offering, lane, bytes) = &mut batch.offer else { continue };
            if let Poll::Ready(ticket) = offering.as_mut().poll(cx) {
                self.waiting -= 1;
                match lane {
                    Lane::Urgent => self.waiting_urgent -= 1,
                    Lane::Routine => self.waiting_bytes -= *bytes,
                }
                batch.offer = Offer::Taken(ticket?);
            }
        }
        Ok(self.waiting < before)
    }

    /// Writes the answers of the oldest batch if its commit is done. `Ready(Ok(true))`: call again.
    ///
    /// With MQTT 5 a failed commit is answered by a reason code, and the client decides.
    /// With 3.1.1 there is no such answer, nor is there for a PUBREL: the error is returned and the
    /// connection must end without an acknowledgement.
    /// `failed` hears of each answer that says so.
    pub fn poll(
        &mut self,
        tongue: Tongue,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        mut failed: impl FnMut(&Answer),
    ) -> Poll<Result<bool, Error>> {
        let Some(batch) = self.batches.front_mut() else { return Poll::Ready(Ok(false)) };
        let done = match &mut batch.offer {
            Offer::Nothing => Ok(()),
            Offer::Waits(..) => return Poll::Pending,
            Offer::Taken(ticket) => match Pin::new(ticket).poll(cx) {
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

    /// For which there is room at once.
    fn offered(ticket: Ticket<Vec<Outcome>>) -> Offering<Vec<Outcome>> {
        Box::pin(async { Ok(ticket) })
    }

    fn drain(held: &mut Held, version: Version) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        held.poll_room(&mut cx)?;
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
            held.push_offer(Lane::Routine, 1, offered(rx), vec![answer(7)]);
            tx.send(Err(Error::Unwritable("full".into()))).unwrap();
            assert_eq!(drain(&mut held, version).ok(), want);
        }
    }

    #[test]
    fn a_failed_commit_takes_nothing_from_what_was_said_before() {
        let mut held = Held::default();
        let (tx, rx) = oneshot::channel();
        let again = Answer { kind: kind::PUBREC, stands: true, ..answer(3) };
        held.push_offer(Lane::Routine, 1, offered(rx), vec![again, answer(7)]);
        tx.send(Err(Error::Unwritable("full".into()))).unwrap();
        let (mut out, mut failed) = (Vec::new(), Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        held.poll_room(&mut cx).unwrap();
        let _ = held.poll(Tongue::unknown(Version::V5), &mut cx, &mut out, |a| failed.push(a.id));
        assert_eq!((&out[..4], &failed[..]), (&[0x50, 2, 0, 3][..], &[7][..]));
    }

    #[test]
    fn an_engine_that_vanished_acknowledges_nothing() {
        let mut held = Held::default();
        let (tx, rx) = oneshot::channel();
        held.push_offer(Lane::Routine, 1, offered(rx), vec![answer(7)]);
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
                if waits {
                    let (tx, rx) = oneshot::channel();
                    open.push(tx);
                    held.push_offer(Lane::Routine, 1, offered(rx), answers);
                } else {
                    held.push(answers);
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
