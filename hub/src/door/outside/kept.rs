//! Messages of the broker's that are being kept: acknowledged once what was made of them is on disk, in the
//! order in which they came.

use super::super::core::Core;
use super::super::pending::{Load, Pending};
use crate::engine::{Error, Offered, Outcome};
use citybrain_shared::{Lane, limits};
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

/// Messages that are kept at a time, and what is offered of them, in bytes, as many as the engine's queue takes: while
/// nothing can be offered the broker is not read.
const MESSAGES_MAX: usize = 1024;
const BYTES_MAX: usize = limits::ENGINE_QUEUE_BYTES_MAX;

/// First in, first out. `M`: a message.
pub(super) struct Kept<M> {
    /// An offer for each lane of a batch; the messages, and what is offered of them, in bytes, go with the last.
    pending: Pending<Vec<Outcome>, Option<(Vec<M>, usize)>>,
    messages: usize,
    bytes: usize,
}

impl<M> Kept<M> {
    pub(super) fn new() -> Kept<M> {
        Kept { pending: Pending::default(), messages: 0, bytes: 0 }
    }

    /// May more be put?
    pub(super) fn has_room(&self) -> bool {
        self.messages < MESSAGES_MAX && self.bytes < BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Offers what was made of `messages`, each lane by itself.
    pub(super) fn put(&mut self, core: &dyn Core, drafts: Vec<Offered>, messages: Vec<M>) {
        let mut bytes = 0;
        let (urgent, routine): (Vec<_>, Vec<_>) = drafts.into_iter().partition(|d| d.lane() == Lane::Urgent);
        for (lane, of_lane) in [(Lane::Urgent, urgent), (Lane::Routine, routine)] {
            if !of_lane.is_empty() {
                let load = Load::of(&of_lane);
                bytes += load.bytes;
                self.pending.push(lane, load, core.offer(of_lane), None);
            }
        }
        self.end_batch(messages, bytes);
    }

    /// What was offered since the last one is a batch.
    fn end_batch(&mut self, messages: Vec<M>, bytes: usize) {
        self.messages += messages.len();
        self.bytes += bytes;
        self.pending.push_behind(Some((messages, bytes)));
    }

    /// The oldest messages, once all of theirs is on disk; never where nothing is kept. Cancel-safe.
    ///
    /// # Errors
    /// Something of them is not kept.
    pub(super) async fn next(&mut self) -> Result<Vec<M>, Error> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<M>, Error>> {
        self.pending.poll_room(cx);
        loop {
            let (batch, done) = ready!(self.pending.poll_next(cx));
            if let Err(error) = done {
                return Poll::Ready(Err(error));
            }
            if let Some((messages, bytes)) = batch {
                self.messages -= messages.len();
                self.bytes -= bytes;
                return Poll::Ready(Ok(messages));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::pending::tests::{ONE, offer};
    use citybrain_shared::Pos;
    use std::task::Waker;

    fn done() -> Result<Vec<Outcome>, Error> {
        Ok(vec![Outcome::Committed(Pos(1))])
    }

    #[test]
    fn messages_are_acknowledged_once_all_that_was_made_of_them_is_on_disk() {
        let mut kept = Kept::new();
        let ((press, press_room, press_reply), (other, other_room, other_reply)) = (offer(), offer());
        kept.pending.push(Lane::Urgent, ONE, press, None);
        kept.pending.push(Lane::Routine, ONE, other, None);
        kept.end_batch(vec![1, 2], 20);
        kept.end_batch(vec![3], 0);
        let cx = &mut Context::from_waker(Waker::noop());
        press_room.send(()).unwrap();
        press_reply.send(done()).unwrap();
        assert!(kept.poll(cx).is_pending(), "one of its two messages is not on disk");
        other_room.send(()).unwrap();
        other_reply.send(done()).unwrap();
        assert!(matches!(kept.poll(cx), Poll::Ready(Ok(messages)) if messages == [1, 2]));
        assert!(matches!(kept.poll(cx), Poll::Ready(Ok(messages)) if messages == [3]));
        assert!(kept.is_empty() && kept.poll(cx).is_pending());
    }

    #[test]
    fn no_more_is_read_while_what_waits_for_the_engine_is_large() {
        let mut kept = Kept::new();
        let (large, room, reply) = offer();
        kept.pending.push(Lane::Routine, ONE, large, None);
        kept.end_batch(vec![1], BYTES_MAX);
        assert!(!kept.has_room());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(kept.poll(cx).is_pending());
        room.send(()).unwrap();
        reply.send(done()).unwrap();
        assert!(kept.poll(cx).is_ready() && kept.has_room());
    }

    #[test]
    fn behind_what_waits_no_more_is_read_than_so_many_messages_however_they_come() {
        for at_once in [1, 128] {
            let mut kept = Kept::new();
            let (first, room, reply) = offer();
            kept.pending.push(Lane::Routine, ONE, first, None);
            for n in 0..MESSAGES_MAX / at_once {
                assert!(kept.has_room(), "{n}");
                kept.end_batch(vec![(); at_once], 1);
            }
            assert!(!kept.has_room());
            let cx = &mut Context::from_waker(Waker::noop());
            room.send(()).unwrap();
            reply.send(done()).unwrap();
            assert!(kept.poll(cx).is_ready() && kept.has_room());
        }
    }

    #[test]
    fn a_batch_of_which_something_is_not_kept_is_not_acknowledged() {
        let mut kept = Kept::new();
        let ((press, press_room, press_reply), (other, other_room, other_reply)) = (offer(), offer());
        kept.pending.push(Lane::Urgent, ONE, press, None);
        kept.pending.push(Lane::Routine, ONE, other, None);
        kept.end_batch(vec![1, 2], 20);
        for room in [press_room, other_room] {
            room.send(()).unwrap();
        }
        other_reply.send(done()).unwrap();
        press_reply.send(Err(Error::Unwritable("full".into()))).unwrap();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(matches!(kept.poll(cx), Poll::Ready(Err(Error::Unwritable(_)))));
    }
}
