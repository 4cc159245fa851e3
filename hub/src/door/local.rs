//! Link traffic: between child nodes, which are clients here, and this node's own link driver.
//! It is live and in memory; what must last is in the records that it carries.

use super::route::live_message;
use super::{Door, now_us, packet::reason};
use bytes::Bytes;
use citybrain_shared::topic::{self, Verb};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Messages between the connections and the link driver. With two lanes and eight frames under
/// way, a child has at most 16; more children wait their turn.
const QUEUE_MAX: usize = 32;

/// Retained link messages, one a child: far above the children of any node.
const RETAINED_MAX: usize = 20_000;

/// What is retained is a hello (or a goodbye): its starts, histories and proofs are some KB. And of all.
const RETAINED_BYTES_MAX: usize = 32 * 1024;
const RETAINED_ALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Something that a child said, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalMessage {
    /// Of a closed connection: the last link topic on which it spoke.
    pub topic: String,
    pub payload: Bytes,
    /// The child's client id.
    pub client: String,
    /// The connection that spoke on this topic is gone.
    pub closed: bool,
}

#[derive(Debug)]
pub(crate) struct Links {
    root: String,
    driver: Mutex<Option<mpsc::Sender<LocalMessage>>>,
    retained: Mutex<Retained>,
}

#[derive(Debug, Default)]
struct Retained {
    /// By topic: the message, and whose it is.
    all: HashMap<String, (Bytes, String)>,
    bytes: usize,
}

impl Retained {
    fn remove(&mut self, topic: &str) {
        self.bytes -= self.all.remove(topic).map_or(0, |(old, _)| old.len());
    }
}

/// Handing on was not possible at once.
pub(crate) enum Full {
    /// Wait for room, then send this.
    Wait(mpsc::Sender<LocalMessage>, LocalMessage),
    /// Nobody listens, or nothing more can be kept: the reason code.
    Refused(u8),
}

impl Links {
    pub(crate) fn new(root: &str) -> Links {
        Links { root: root.to_owned(), driver: Mutex::default(), retained: Mutex::default() }
    }

    /// Takes a publish of a child.
    ///
    /// # Errors
    /// When it must wait, or is refused.
    pub(crate) fn take(&self, client: &str, topic: &str, payload: Bytes, retain: bool) -> Result<(), Full> {
        if retain && !self.keep(client, topic, &payload) {
            return Err(Full::Refused(reason::QUOTA));
        }
        let message = LocalMessage { topic: topic.to_owned(), payload, client: client.to_owned(), closed: false };
        self.send(message)
    }

    /// Tells the driver that a child's connection is gone.
    pub(crate) async fn closed(&self, client: &str, topic: String) {
        let message = LocalMessage { topic, payload: Bytes::new(), client: client.to_owned(), closed: true };
        if let Err(Full::Wait(driver, message)) = self.send(message) {
            let _ = driver.send(message).await;
        }
    }

    pub(crate) async fn take_patiently(&self, client: &str, topic: &str, payload: Bytes, retain: bool) {
        if let Err(Full::Wait(driver, message)) = self.take(client, topic, payload, retain) {
            let _ = driver.send(message).await;
        }
    }

    fn send(&self, message: LocalMessage) -> Result<(), Full> {
        let driver = self.driver.lock().clone().ok_or(Full::Refused(reason::NO_MATCHING_SUBSCRIBERS))?;
        match driver.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(message)) => Err(Full::Wait(driver, message)),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Full::Refused(reason::NO_MATCHING_SUBSCRIBERS)),
        }
    }

    /// False: it does not fit. Of all that a child says only a hello is of use to who comes later.
    fn keep(&self, client: &str, topic: &str, payload: &Bytes) -> bool {
        if topic::parse_link(&self.root, topic).is_none_or(|(verb, _)| verb != Verb::Hello) {
            return true;
        }
        if payload.len() > RETAINED_BYTES_MAX {
            return false;
        }
        let mut retained = self.retained.lock();
        retained.remove(topic);
        if payload.is_empty() {
            return true;
        }
        let is_room = retained.all.len() < RETAINED_MAX && retained.bytes + payload.len() <= RETAINED_ALL_BYTES_MAX;
        if is_room {
            retained.bytes += payload.len();
            retained.all.insert(topic.to_owned(), (payload.clone(), client.to_owned()));
        }
        is_room
    }

    /// The retained message on a link topic.
    pub(crate) fn retained(&self, topic: &str) -> Option<Bytes> {
        self.retained.lock().all.get(topic).map(|(payload, _)| payload.clone())
    }
}

/// The link driver's connection to the front door. One at a time: a new one takes over.
pub struct LocalClient {
    door: Arc<Door>,
    /// Retained messages from before it came.
    backlog: VecDeque<LocalMessage>,
    queue: mpsc::Receiver<LocalMessage>,
}

impl Door {
    pub fn local(self: &Arc<Self>) -> LocalClient {
        let (driver, queue) = mpsc::channel(QUEUE_MAX);
        // Registered first: a hello that comes in between is seen twice rather than never.
        *self.links.driver.lock() = Some(driver);
        let retained = self.links.retained.lock();
        let backlog = retained
            .all
            .iter()
            .map(|(topic, (payload, client))| LocalMessage {
                topic: topic.clone(),
                payload: payload.clone(),
                client: client.clone(),
                closed: false,
            })
            .collect();
        drop(retained);
        LocalClient { door: self.clone(), backlog, queue }
    }
}

impl LocalClient {
    /// Sends to whoever subscribed to the link topic: QoS 0, live. A child that does not read fast
    /// enough misses it, as it would on any broken connection; the link protocol sends again.
    pub fn publish(&self, topic: &str, payload: Bytes, retain: bool) {
        if retain {
            self.door.links.keep("", topic, &payload);
        }
        self.door.router.live(live_message(topic, &[], payload, 0, false, now_us()));
    }

    /// The next message. While the queue is full, the connections that have more are not read.
    /// `None`: a newer local client has taken over. Cancel-safe.
    pub async fn recv(&mut self) -> Option<LocalMessage> {
        match self.backlog.pop_front() {
            Some(m) => Some(m),
            None => self.queue.recv().await,
        }
    }
}
