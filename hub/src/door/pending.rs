//! What was offered to the engine and is not on disk yet, first in, first out.
//!
//! **Constraints**: within a lane the engine gets what came first before what came later; what is urgent waits neither
//! for room with what is not, nor for what came before it. What became of each is told in the order in which they came.

use super::core::Offering;
use crate::engine::{Error, Offered, Ticket};
use citybrain_shared::Lane;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// `O`: what the engine says of an offer. `T`: what goes with it until then.
pub(crate) struct Pending<O, T> {
    all: VecDeque<One<O, T>>,
    /// How many have left `all`.
    gone: usize,
    /// Those of each lane that wait for room, counted from the first that ever came: behind many that do not, what
    /// waits is asked for at no cost.
    waits: [VecDeque<usize>; Lane::ALL.len()],
    waiting: Load,
}

/// What waits for room in the engine's queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub records: usize,
    pub bytes: usize,
}

impl Load {
    pub(crate) fn of(drafts: &[Offered]) -> Load {
        Load { records: drafts.len(), bytes: drafts.iter().map(Offered::bytes).sum() }
    }
}

struct One<O, T> {
    step: Step<O>,
    with: T,
}

enum Step<O> {
    /// The engine's queue was full a moment ago.
    Waits(Load, Offering<O>),
    Taken(Ticket<O>),
    /// Nothing was offered, or it was not taken.
    Over(Result<(), Error>),
}

impl<O, T> Default for Pending<O, T> {
    fn default() -> Self {
        Pending { all: VecDeque::new(), gone: 0, waits: Default::default(), waiting: Load::default() }
    }
}

impl<O, T> Pending<O, T> {
    /// `load`: of what is offered; at least a record.
    pub(crate) fn push(&mut self, lane: Lane, load: Load, offering: Offering<O>, with: T) {
        self.waiting.records += load.records;
        self.waiting.bytes += load.bytes;
        self.waits[lane as usize].push_back(self.gone + self.all.len());
        self.all.push_back(One { step: Step::Waits(load, offering), with });
    }

    /// Waits for nothing but those before it.
    pub(crate) fn push_behind(&mut self, with: T) {
        self.all.push_back(One { step: Step::Over(Ok(())), with });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn waiting(&self) -> Load {
        self.waiting
    }

    /// Of what waits for room.
    pub(crate) fn waits_with(&self, is: impl Fn(&T) -> bool) -> bool {
        self.waits.iter().flatten().any(|n| is(&self.all[n - self.gone].with))
    }

    /// Asks for room. True: something has it now.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_moved = false;
        for lane in Lane::ALL {
            // Behind the first of a lane that waits nothing of it is asked for: it could come to have room first.
            while let Some(first) = self.waits[lane as usize].front() {
                let step = &mut self.all[first - self.gone].step;
                let Step::Waits(load, offering) = step else { unreachable!("what has room waits no more") };
                let Poll::Ready(taken) = offering.as_mut().poll(cx) else { break };
                self.waiting.records -= load.records;
                self.waiting.bytes -= load.bytes;
                *step = taken.map_or_else(|error| Step::Over(Err(error)), Step::Taken);
                self.waits[lane as usize].pop_front();
                has_moved = true;
            }
        }
        has_moved
    }

    /// Until nothing of the lane waits for room.
    pub(crate) async fn offered(&mut self, lane: Lane) {
        poll_fn(|cx| {
            self.poll_room(cx);
            if self.waits[lane as usize].is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Until nothing waits for room.
    pub(crate) async fn all_offered(&mut self) {
        for lane in Lane::ALL {
            self.offered(lane).await;
        }
    }

    /// The oldest, once it is on disk or will not be; never where there is none.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(T, Result<(), Error>)> {
        let Some(oldest) = self.all.front_mut() else { return Poll::Pending };
        let done = match &mut oldest.step {
            Step::Waits(..) => return Poll::Pending,
            Step::Taken(ticket) => match ready!(Pin::new(ticket).poll(cx)) {
                Ok(done) => done.map(drop),
                // The engine went away without a word.
                Err(_) => Err(Error::Stopping),
            },
            Step::Over(done) => std::mem::replace(done, Ok(())),
        };
        let oldest = self.all.pop_front().expect("its front was polled");
        self.gone += 1;
        Poll::Ready((oldest.with, done))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::sync::oneshot;

    pub(crate) const ONE: Load = Load { records: 1, bytes: 10 };

    /// An offer, the queue's room for it, and the engine's answer.
    pub(crate) fn offer<O: Send + 'static>() -> (Offering<O>, oneshot::Sender<()>, oneshot::Sender<Result<O, Error>>) {
        let ((room, is_room), (reply, ticket)) = (oneshot::channel::<()>(), oneshot::channel());
        let offering = Box::pin(async move { is_room.await.map(|()| ticket).map_err(|_| Error::Stopping) });
        (offering, room, reply)
    }

    #[test]
    fn what_is_urgent_is_taken_past_what_waits_for_room_and_told_in_its_place() {
        let mut pending = Pending::default();
        let cx = &mut Context::from_waker(Waker::noop());
        let ((first, first_room, first_reply), (press, press_room, press_reply)) = (offer::<()>(), offer());
        pending.push(Lane::Routine, ONE, first, 1);
        pending.push(Lane::Urgent, ONE, press, 2);
        assert!(!pending.poll_room(cx));
        press_room.send(()).unwrap();
        assert!(pending.poll_room(cx));
        assert_eq!(pending.waiting(), ONE);
        assert!(pending.waits_with(|n| *n == 1) && !pending.waits_with(|n| *n == 2));
        press_reply.send(Ok(())).unwrap();
        assert!(pending.poll_next(cx).is_pending());
        first_room.send(()).unwrap();
        assert!(pending.poll_room(cx) && pending.poll_next(cx).is_pending());
        first_reply.send(Ok(())).unwrap();
        for n in [1, 2] {
            assert!(matches!(pending.poll_next(cx), Poll::Ready((with, Ok(()))) if with == n));
        }
        assert!(pending.is_empty() && pending.poll_next(cx).is_pending());
    }

    #[test]
    fn within_a_lane_nothing_is_taken_before_what_came_before_it() {
        for lane in Lane::ALL {
            let mut pending = Pending::default();
            let cx = &mut Context::from_waker(Waker::noop());
            let ((first, first_room, _), (second, second_room, _)) = (offer::<()>(), offer());
            pending.push(lane, ONE, first, 1);
            pending.push(lane, ONE, second, 2);
            second_room.send(()).unwrap();
            assert!(!pending.poll_room(cx), "it is asked for when the first has room");
            first_room.send(()).unwrap();
            assert!(pending.poll_room(cx));
            assert_eq!(pending.waiting(), Load::default());
        }
    }

    #[test]
    fn one_that_is_not_taken_is_told_in_its_place_and_those_behind_it_are() {
        let mut pending = Pending::default();
        let cx = &mut Context::from_waker(Waker::noop());
        let ((large, too_large, _), (next, room, reply)) = (offer::<()>(), offer());
        pending.push(Lane::Routine, ONE, large, 1);
        pending.push(Lane::Routine, ONE, next, 2);
        pending.push_behind(3);
        drop(too_large);
        room.send(()).unwrap();
        reply.send(Ok(())).unwrap();
        assert!(pending.poll_room(cx));
        assert!(matches!(pending.poll_next(cx), Poll::Ready((1, Err(Error::Stopping)))));
        assert!(matches!(pending.poll_next(cx), Poll::Ready((2, Ok(())))));
        assert!(matches!(pending.poll_next(cx), Poll::Ready((3, Ok(())))));
    }
}
