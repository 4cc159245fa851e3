//! Messages of the broker's that are being kept: acknowledged once what was made of them is on disk, in the
//! order in which they came.

use super::super::core::{Core, Offering};
use crate::engine::{Error, Offered, Outcome, Ticket};
use citybrain_shared::{Lane, limits};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Batches that are kept at a time; and their bytes, as many as the engine's queue takes: while nothing can be
/// offered the broker is not read.
const BATCHES_MAX: usize = 64;
const BYTES_MAX: usize = limits::ENGINE_QUEUE_BYTES_MAX;

/// First in, first out. `M`: a message.
pub(super) struct Kept<M> {
    batches: VecDeque<Batch<M>>,
    bytes: usize,
}

struct Batch<M> {
    /// An offer for each lane that has something.
    offers: Vec<Offer>,
    messages: Vec<M>,
    /// Of what is offered.
    bytes: usize,
}

enum Offer {
    /// The engine's queue was full a moment ago.
    Waits(Offering<Vec<Outcome>>),
    Taken(Ticket<Vec<Outcome>>),
}

impl<M> Kept<M> {
    pub(super) fn new() -> Kept<M> {
        Kept { batches: VecDeque::new(), bytes: 0 }
    }

    /// May more be put?
    pub(super) fn has_room(&self) -> bool {
        self.batches.len() < BATCHES_MAX && self.bytes < BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Offers what was made of `messages`. What is urgent waits neither for room with what is not, nor for
    /// what came before.
    pub(super) fn put(&mut self, core: &dyn Core, drafts: Vec<Offered>, messages: Vec<M>) {
        let bytes = drafts.iter().map(Offered::bytes).sum();
        let (urgent, routine): (Vec<_>, Vec<_>) = drafts.into_iter().partition(|d| d.lane() == Lane::Urgent);
        let offers = [urgent, routine].into_iter().filter(|of_lane| !of_lane.is_empty());
        let offers = offers.map(|of_lane| Offer::Waits(core.offer(of_lane))).collect();
        self.push(Batch { offers, messages, bytes });
    }

    fn push(&mut self, batch: Batch<M>) {
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
    }

    /// The oldest messages, once all of theirs is on disk; never where nothing is kept. Cancel-safe.
    ///
    /// # Errors
    /// Something of them is not kept.
    pub(super) async fn next(&mut self) -> Result<Vec<M>, Error> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<M>, Error>> {
        // Each lane's in their order: the engine's queue for it is one.
        for offer in self.batches.iter_mut().flat_map(|batch| &mut batch.offers) {
            if let Offer::Waits(offering) = offer
                && let Poll::Ready(ticket) = offering.as_mut().poll(cx)
            {
                match ticket {
                    Ok(ticket) => *offer = Offer::Taken(ticket),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        let Some(oldest) = self.batches.front_mut() else { return Poll::Pending };
        while let Some(Offer::Taken(ticket)) = oldest.offers.last_mut() {
            match Pin::new(ticket).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Ok(_))) => drop(oldest.offers.pop()),
                Poll::Ready(Ok(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Error::Stopping)),
            }
        }
        if !oldest.offers.is_empty() {
            return Poll::Pending;
        }
        let Some(done) = self.batches.pop_front() else { return Poll::Pending };
        self.bytes -= done.bytes;
        Poll::Ready(Ok(done.messages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::Pos;
    use std::task::Waker;
    use tokio::sync::oneshot;

    type Reply = oneshot::Sender<Result<Vec<Outcome>, Error>>;

    /// An offer, the queue's room for it, and the engine's answer.
    fn offer() -> (Offer, oneshot::Sender<()>, Reply) {
        let ((room, is_room), (reply, ticket)) = (oneshot::channel::<()>(), oneshot::channel());
        let offering = Box::pin(async move { is_room.await.map(|()| ticket).map_err(|_| Error::Stopping) });
        (Offer::Waits(offering), room, reply)
    }

    fn is_taken(offer: &Offer) -> bool {
        matches!(offer, Offer::Taken(_))
    }

    #[test]
    fn what_is_urgent_is_taken_past_what_waits_for_room_and_acknowledged_in_its_place() {
        let mut kept = Kept::new();
        let ((first, first_room, first_reply), (second, second_room, second_reply)) = (offer(), offer());
        let (press, press_room, press_reply) = offer();
        kept.push(Batch { offers: vec![first], messages: vec![1], bytes: 10 });
        kept.push(Batch { offers: vec![press, second], messages: vec![2, 3], bytes: 10 });
        let cx = &mut Context::from_waker(Waker::noop());
        press_room.send(()).unwrap();
        assert!(kept.poll(cx).is_pending());
        assert!(is_taken(&kept.batches[1].offers[0]) && !is_taken(&kept.batches[0].offers[0]));
        let done = || Ok(vec![Outcome::Committed(Pos(1))]);
        press_reply.send(done()).unwrap();
        first_room.send(()).unwrap();
        assert!(kept.poll(cx).is_pending());
        first_reply.send(done()).unwrap();
        assert!(matches!(kept.poll(cx), Poll::Ready(Ok(messages)) if messages == [1]));
        second_room.send(()).unwrap();
        assert!(kept.poll(cx).is_pending(), "one of its two messages is not on disk");
        second_reply.send(done()).unwrap();
        assert!(matches!(kept.poll(cx), Poll::Ready(Ok(messages)) if messages == [2, 3]));
        assert!(kept.is_empty() && kept.poll(cx).is_pending());
    }

    #[test]
    fn no_more_is_read_while_what_waits_for_the_engine_is_large() {
        let mut kept = Kept::new();
        let (large, room, reply) = offer();
        kept.push(Batch { offers: vec![large], messages: vec![1], bytes: BYTES_MAX });
        assert!(!kept.has_room());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(kept.poll(cx).is_pending());
        room.send(()).unwrap();
        reply.send(Ok(Vec::new())).unwrap();
        assert!(kept.poll(cx).is_ready() && kept.has_room());
    }

    #[test]
    fn a_batch_of_which_something_is_not_kept_is_not_acknowledged() {
        let mut kept = Kept::new();
        let ((press, press_room, press_reply), (other, other_room, other_reply)) = (offer(), offer());
        kept.push(Batch { offers: vec![press, other], messages: vec![1, 2], bytes: 10 });
        for room in [press_room, other_room] {
            room.send(()).unwrap();
        }
        other_reply.send(Ok(vec![Outcome::Committed(Pos(1))])).unwrap();
        press_reply.send(Err(Error::Unwritable("full".into()))).unwrap();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(matches!(kept.poll(cx), Poll::Ready(Err(Error::Unwritable(_)))));
    }
}
