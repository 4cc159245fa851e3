//! What both drivers share: the clock, the facts of this node, commits, answers to frames, backoff.

use super::handshake::{Mint, Own, Terms};
use super::pipe::Outlet;
use super::sender::{self, Ms};
use super::view::{Links, Lost};
use crate::engine::{Error, Haste, Hub, Ticket};
use crate::log;
use crate::note::Note;
use crate::protocol::Received;
use crate::protocol::pack::unpack;
use crate::state::Me;
use bytes::Bytes;
use citybrain_shared::topic::{self, Verb};
use citybrain_shared::wire::{self, Ack, Message, Word};
use citybrain_shared::words::with_causes;
use citybrain_shared::{Address, Lane, LogId, Pos, config};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

/// Frames of a lane that were handed to the engine and are not answered yet, all peers together.
const TICKETS_MAX: usize = 256;
/// Bytes of a lane's frames that wait for the engine, all peers together: the windows of sixteen children that
/// are far behind. Where half of it is taken each peer is asked for a frame at a time.
const INTAKE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a frame counts as at least: it costs more than its bytes.
const FRAME_BYTES_MIN: usize = 4 * 1024;
/// Room for frames is counted in so many bytes.
const SHARE_BYTES: usize = 1024;
const SHARES: usize = INTAKE_BYTES_MAX / SHARE_BYTES;
/// How often a link's row for engineers is renewed, ms.
pub(crate) const SHOW_EVERY_MS: Ms = 250;

/// A node that is in session says so at least this often, ms: its peer takes it for dead after ten minutes
/// of silence and would let a copy of it have its address.
const ALIVE_EVERY_MS_MAX: Ms = 4 * 60 * 1000;
/// A holder of an address that was not heard for so long, and said no bye, is taken for dead, ms.
pub(crate) const ALIVE_WITHIN_MS: Ms = 10 * 60 * 1000;
/// A session ends in which so many words that the peer is there have failed to come: behind a broker between the two
/// nothing else says that it is dead, or hangs.
const SILENT_WORDS: Ms = 3;
/// Shorter silences are none: a machine may be busy for as long.
const SILENT_MS_MIN: Ms = 5_000;
/// A driver that did not look for so long has messages to read before it judges anybody's silence, ms.
const PAUSE_MS: Ms = 2_000;

/// What every link of a node needs. Clone it into each driver.
#[derive(Clone)]
pub struct Context {
    pub hub: Hub,
    pub address: Address,
    pub terms: Terms,
    pub config: config::Link,
    pub links: Links,
    started: Instant,
}

impl Context {
    pub fn new(hub: Hub, node: &config::Node, config: config::Link, links: Links) -> Context {
        let terms = Terms {
            name: node.name.clone(),
            message_bytes_max: u32::try_from(config.message_bytes_max).unwrap_or(u32::MAX),
            alive_every_ms: (Ms::from(config.keep_alive_s) * 1000).min(ALIVE_EVERY_MS_MAX),
            enrol: config.enrol,
            credit: config.credit(),
        };
        Context { hub, address: node.address.clone(), terms, config, links, started: Instant::now() }
    }

    pub fn now(&self) -> Ms {
        self.started.elapsed().as_millis() as Ms
    }

    pub fn at(&self, ms: Ms) -> Instant {
        self.started + Duration::from_millis(ms)
    }

    pub fn topic(&self, verb: Verb, child: &Address) -> String {
        topic::link(&self.config.root, verb, child)
    }

    /// Counts link messages that nothing was made of.
    pub fn ignored(&self, messages: u64) {
        self.hub.work().frames_ignored.fetch_add(messages, Ordering::Relaxed);
    }

    pub fn sender_terms(&self) -> sender::Terms {
        sender::Terms { window_frames: self.config.window_frames.max(1), resend_after_ms: self.config.resend_after_ms }
    }

    /// Looks at this node as the handshake needs it.
    ///
    /// # Errors
    /// [`Error::Unwritable`] when the log could not be read for it: what was found counts for nothing
    /// then, for a hash that cannot be read now is not one that is trimmed.
    pub fn with_own<R>(&self, me: &Me, look: impl FnOnce(&Own<'_>) -> R) -> Result<R, Error> {
        let reader = self.hub.reader();
        let failed = RefCell::new(None);
        let chain = |at: Pos| match reader.chain_at(at) {
            Ok(chain) => chain,
            // Gone for good, as if it were trimmed.
            Err(log::Error::Damaged { .. }) => None,
            Err(e) => {
                *failed.borrow_mut() = Some(with_causes(&e));
                None
            }
        };
        let (first, last) = (reader.first(), reader.last());
        let found = look(&Own { address: &self.address, me, first, last, chain: &chain });
        match failed.into_inner() {
            None => Ok(found),
            Some(why) => Err(Error::Unwritable(why)),
        }
    }

    /// Writes notes and waits for it.
    ///
    /// # Errors
    /// As the engine says; nothing of them is kept then.
    pub async fn commit(&self, notes: Vec<Note>, haste: Haste) -> Result<(), Error> {
        if notes.is_empty() {
            return Ok(());
        }
        self.hub.note(notes, haste).await?.await.map_err(|_| Error::Stopping)?
    }

    /// Mints what a peer's memory demands.
    ///
    /// # Errors
    /// As [`Context::commit`].
    pub async fn mint(&self, mint: &Mint) -> Result<(), Error> {
        tracing::warn!(why = %mint.why, "This node's past is not what a peer remembers; its history goes on under a new name.");
        self.commit(mint.notes(|| LogId(random_u128())), Haste::Now).await
    }
}

/// Since when a driver has looked without a pause, and so has read what came.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    since: Ms,
    looked: Ms,
}

impl Watch {
    pub(crate) fn look(&mut self, now: Ms) {
        if now > self.looked + PAUSE_MS {
            self.since = now;
        }
        self.looked = now;
    }

    /// A peer in session that was heard last at `heard` is silent.
    pub(crate) fn is_silent(&self, heard: Ms, alive_every_ms: Ms) -> bool {
        let patience = (SILENT_WORDS * alive_every_ms).clamp(SILENT_MS_MIN, ALIVE_WITHIN_MS);
        self.looked > heard.max(self.since) + patience
    }
}

/// Waits until the node stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop us is gone: the same.
    drop(stop.wait_for(|s| *s).await);
}

/// Random bits for ids and jitter.
pub(crate) fn random_u128() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u128::from_le_bytes(bytes)
}

/// 50 ms, doubled each time up to 5 s; a random half of it, so that a city's streets do not all
/// come back in the same moment.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    pub(crate) fn next_ms(&mut self) -> Ms {
        let ms = (50u64 << self.tries.min(7)).min(5_000);
        self.tries = self.tries.saturating_add(1);
        ms / 2 + (random_u128() as u64) % (ms / 2 + 1)
    }
}

/// Why a driver's connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The node stops.
    Stop,
    /// The connection is gone; a new one is made.
    Again(Lost),
}

impl End {
    pub(crate) fn again(why: impl Into<Lost>) -> End {
        End::Again(why.into())
    }
}

/// Reads a link message.
pub(crate) fn decode(payload: &[u8]) -> Result<Message<'_>, wire::Error> {
    wire::decode(payload, unpack)
}

/// A frame that the engine has, and whose it is.
struct Pending {
    child: Address,
    ticket: Ticket<Received>,
}

/// Sends the engine's answers to a lane's frames, in order, of each peer only the newest when several are ready.
///
/// `verb`: where acknowledgements go. A refusal goes there too if this node is the parent; a child
/// cannot refuse, it says hello again: `refused` tells its driver. `room`: what is left for frames.
async fn answer(
    cx: Context,
    outlet: Outlet,
    verb: Verb,
    mut pending: mpsc::Receiver<Pending>,
    room: Arc<Semaphore>,
    refused: Option<mpsc::Sender<String>>,
) {
    let mut next: Option<Pending> = None;
    loop {
        let first = match next.take() {
            Some(p) => p,
            None => match pending.recv().await {
                Some(p) => p,
                None => return,
            },
        };
        let mut acks: Vec<(Address, Ack)> = Vec::new();
        let mut messages: Vec<(Address, Vec<u8>)> = Vec::new();
        let mut take = |child: Address, received: Received| match received {
            Received::Ack(ack) => match acks.iter_mut().find(|(c, _)| *c == child) {
                Some((_, newest)) => *newest = ack,
                None => acks.push((child, ack)),
            },
            Received::Refuse(refuse) => match &refused {
                // Full: it has been told already.
                Some(tx) => drop(tx.try_send(refuse.detail)),
                None => messages.push((child, Word::Refuse(refuse).encode())),
            },
            Received::Ignore => {}
        };
        // A ticket that fails says nothing to the peer: it sends again after a while.
        if let Ok(Ok(received)) = first.ticket.await {
            take(first.child, received);
        }
        while let Ok(mut p) = pending.try_recv() {
            match p.ticket.try_recv() {
                Ok(Ok(received)) => take(p.child, received),
                Ok(Err(_)) | Err(tokio::sync::oneshot::error::TryRecvError::Closed) => {}
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => {
                    next = Some(p);
                    break;
                }
            }
        }
        let is_crowded = room.available_permits() < SHARES / 2;
        for (child, mut ack) in acks {
            if is_crowded {
                ack.credit = ack.credit.min(1);
            }
            messages.push((child, Word::Ack(ack).encode()));
        }
        for (child, message) in messages {
            if outlet.publish(cx.topic(verb, &child), message, false).await.is_err() {
                return;
            }
        }
    }
}

/// Frames on their way to the engine, over one connection. Those of each lane wait for its queue there by
/// themselves, and so do their answers: neither lane waits for the other, and the driver for none.
pub(crate) struct Intake {
    cx: Context,
    ways: [Way; 2],
}

struct Way {
    /// In [`SHARE_BYTES`]. All of it is free where nothing waits here.
    room: Arc<Semaphore>,
    frames: mpsc::UnboundedSender<Came>,
    answers: mpsc::Sender<Pending>,
}

struct Came {
    peer: Address,
    /// Of the link: names the topic of the answer.
    child: Address,
    payload: Bytes,
    room: OwnedSemaphorePermit,
}

impl Intake {
    /// `verb`, `refused`: as for [`answer`]. What is spawned ends with this or with the connection.
    pub(crate) fn new(cx: &Context, outlet: &Outlet, verb: Verb, refused: Option<mpsc::Sender<String>>) -> Intake {
        let ways = Lane::ALL.map(|lane| {
            // Bounded by `room`.
            let (frames, came) = mpsc::unbounded_channel();
            let (answers, pending) = mpsc::channel(TICKETS_MAX);
            let room = Arc::new(Semaphore::new(SHARES));
            tokio::spawn(hand_in(cx.hub.clone(), lane, came, answers.clone()));
            tokio::spawn(answer(cx.clone(), outlet.clone(), verb, pending, room.clone(), refused.clone()));
            Way { room, frames, answers }
        });
        Intake { cx: cx.clone(), ways }
    }

    /// Takes a frame of a peer. Where too many wait it is dropped and counted: its sender goes back to it.
    ///
    /// # Errors
    /// [`End::Stop`] when the engine has ended, [`End::Again`] when nobody sends answers any more: the
    /// connection broke, and what it had brought was still queued.
    pub(crate) fn take(&self, peer: &Address, child: &Address, payload: Bytes) -> Result<(), End> {
        let lane = wire::lane_of(&payload).unwrap_or(Lane::Routine);
        let way = &self.ways[lane as usize];
        // At once, where the engine has a place: it need not hear of the frame by a task of its own.
        if way.room.available_permits() == SHARES
            && let Ok(answer) = way.answers.try_reserve()
            && let Some(ticket) = self.cx.hub.try_receive(peer, lane, &payload).map_err(|_| End::Stop)?
        {
            answer.send(Pending { child: child.clone(), ticket });
            return Ok(());
        }
        let share = payload.len().clamp(FRAME_BYTES_MIN, INTAKE_BYTES_MAX).div_ceil(SHARE_BYTES) as u32;
        let Ok(room) = way.room.clone().try_acquire_many_owned(share) else {
            self.cx.ignored(1);
            return Ok(());
        };
        let came = Came { peer: peer.clone(), child: child.clone(), payload, room };
        way.frames.send(came).map_err(|_| End::again(Lost::because("answers can no longer be sent")))
    }
}

/// Hands a lane's frames to the engine in their order, and queues their answers.
async fn hand_in(hub: Hub, lane: Lane, mut frames: mpsc::UnboundedReceiver<Came>, answers: mpsc::Sender<Pending>) {
    while let Some(Came { peer, child, payload, room }) = frames.recv().await {
        // The engine has ended.
        let Ok(ticket) = hub.receive(peer, lane, payload).await else { return };
        if answers.send(Pending { child, ticket }).await.is_err() {
            return;
        }
        // Only now may the next one be handed in without waiting here.
        drop(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::pipe::{LocalPipe, Pipe};
    use citybrain_shared::wire::Party;

    #[tokio::test]
    async fn where_many_frames_wait_each_peer_is_asked_for_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[node]\naddress = \"c\"\ndata = \"{}\"\n", dir.path().display());
        let config: config::Config = toml::from_str(&text).unwrap();
        let (hub, _engine, _) = crate::engine::open(&config, crate::policy::none()).unwrap();
        let cx = Context::new(hub, &config.node, config.link.clone(), Links::default());
        let ((tx, mut published), (_inbox, rx)) = (mpsc::channel(8), mpsc::channel(8));
        let Pipe { outlet, .. } = LocalPipe { tx, rx }.into();
        let room = Arc::new(Semaphore::new(SHARES));
        let (answers, pending) = mpsc::channel(8);
        tokio::spawn(answer(cx, outlet, Verb::UpAck, pending, room.clone(), None));
        let party = Party::default();
        let full = Ack {
            from: party,
            to: party.boot,
            lease: 1,
            log: LogId(1),
            lane: Lane::Routine,
            upto: Pos(1),
            credit: 8,
            gap: false,
        };
        let child = Address::parse("c/s").unwrap();
        for (free, credit) in [(SHARES, 8), (SHARES / 2 - 1, 1), (SHARES, 8)] {
            let waiting = room.clone().try_acquire_many_owned((SHARES - free) as u32).unwrap();
            let (reply, ticket) = tokio::sync::oneshot::channel();
            reply.send(Ok(Received::Ack(full))).unwrap();
            answers.send(Pending { child: child.clone(), ticket }).await.ok().unwrap();
            let (_, message, _) = published.recv().await.unwrap();
            let Ok(Message::Word(Word::Ack(ack))) = decode(&message) else { panic!("no acknowledgement") };
            assert_eq!(ack.credit, credit);
            drop(waiting);
        }
    }

    #[test]
    fn a_peer_is_silent_when_its_words_fail_to_come_and_not_because_this_node_did_not_look() {
        let (second, minute) = (1_000, 60_000);
        let mut watch = Watch::default();
        let mut until = |now: Ms| {
            (watch.looked + second..=now).step_by(second as usize).for_each(|at| watch.look(at));
            [second, 10 * second, 4 * minute].map(|every| watch.is_silent(second, every))
        };
        assert_eq!(until(6 * second), [false; 3], "five seconds are none");
        assert_eq!(until(7 * second), [true, false, false]);
        assert_eq!(until(32 * second), [true, true, false]);
        assert_eq!(until(10 * minute), [true, true, false], "it may say that it is there every four minutes only");
        assert_eq!(until(11 * minute), [true; 3]);
        watch.look(20 * minute);
        assert!(!watch.is_silent(second, second), "what came meanwhile is not read yet");
    }

    #[test]
    fn waits_grow_to_five_seconds_and_differ() {
        let mut backoff = Backoff::default();
        let waits: Vec<Ms> = (0..12).map(|_| backoff.next_ms()).collect();
        assert!((25..=50).contains(&waits[0]), "{waits:?}");
        assert!(waits[8..].iter().all(|w| (2_500..=5_000).contains(w)), "{waits:?}");
        backoff.reset();
        assert!(backoff.next_ms() <= 50);
    }
}
