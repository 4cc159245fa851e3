//! Who is connected, and who has left a session behind.

use super::access::User;
use super::connection::{Before, Earlier};
use super::core::{Core, look};
use super::packet::control::Will;
use super::route::{Inbox, Router};
use super::share;
use crate::state::State;
use citybrain_shared::{Lane, Pos};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio::sync::watch;

#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: Mutex<HashMap<Arc<str>, Seat>>,
    parked: Mutex<HashMap<Arc<str>, Parked>>,
    /// Of clients that are gone, with the time at which they are due.
    wills: Mutex<HashMap<Arc<str>, (Instant, LeftWill)>>,
    /// Clients of whom something was taken from `parked` or `wills` and is on its way into the log.
    ending: watch::Sender<HashMap<Arc<str>, usize>>,
}

/// A last will of a client that is gone.
#[derive(Clone, Debug)]
pub(crate) struct LeftWill {
    pub user: User,
    pub will: Will,
    /// In which it would have been said when it was left.
    pub lane: Lane,
}

#[derive(Debug)]
struct Seat {
    live: Arc<Live>,
    /// Closes when the connection has left everything in order.
    gone: watch::Receiver<()>,
}

/// What others may see of a connection, and how they end it.
#[derive(Debug)]
pub(crate) struct Live {
    pub user: User,
    pub version: u8,
    pub durable: bool,
    pub inbox: Mutex<Option<Arc<Inbox>>>,
    pub filters: AtomicUsize,
    pub in_flight: AtomicUsize,
    /// Found for the client, or fetched from the log, and not written yet.
    pub fetched: AtomicUsize,
    kicked: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Live {
    pub(crate) fn new(user: User, version: u8, durable: bool) -> Arc<Live> {
        Arc::new(Live {
            user,
            version,
            durable,
            inbox: Mutex::new(None),
            filters: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            fetched: AtomicUsize::new(0),
            kicked: AtomicU8::new(0),
            waker: Mutex::new(None),
        })
    }

    /// Ends the connection, with a reason for MQTT 5.
    pub(crate) fn kick(&self, reason: u8) {
        self.kicked.store(reason, Ordering::Release);
        if let Some(w) = self.waker.lock().take() {
            w.wake();
        }
    }

    pub(crate) fn is_kicked(&self) -> bool {
        self.kicked.load(Ordering::Acquire) != 0
    }

    /// The reason to end, if there is one; else the task will be woken.
    pub(crate) fn poll_kicked(&self, cx: &mut Context<'_>) -> Option<u8> {
        let mut waker = self.waker.lock();
        match self.kicked.load(Ordering::Acquire) {
            0 => {
                match &mut *waker {
                    Some(w) => w.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                None
            }
            reason => Some(reason),
        }
    }
}

/// A client's place. Dropped by the connection as its last act.
pub(crate) struct Taken<'a> {
    seats: &'a Seats,
    client: Arc<str>,
    live: Arc<Live>,
    _gone: watch::Sender<()>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        if taken.get(&self.client).is_some_and(|s| Arc::ptr_eq(&s.live, &self.live)) {
            taken.remove(&self.client);
        }
    }
}

/// What is remembered of a session whose client is away, beside what the log knows. After a
/// restart there is none of it.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    /// When it expires.
    until: Instant,
    /// `None`: unknown, an earlier process gave it.
    pub delivered: Option<Delivered>,
}

impl Parked {
    /// Its time is over, though nobody has ended it yet.
    pub(crate) fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    /// Records up to here were given to the client.
    pub upto: Pos,
    /// See [`super::connection::Earlier`].
    pub earlier: Earlier,
    /// QoS 2 messages that it received and has not completed: record and part.
    pub releasing: HashSet<(Pos, u8)>,
    /// Messages given before a filter changed, with their QoS.
    pub begun: HashMap<(Pos, u8), u8>,
    /// The filters by which they were given, where they have changed since.
    pub before: Option<Before>,
    /// Ids of QoS 2 messages of no record that it has not completed.
    pub loose: Vec<u16>,
}

/// A session, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    pub client: String,
    pub user: String,
    /// MQTT protocol level: 4 or 5.
    pub version: u8,
    pub durable: bool,
    pub connected: bool,
    pub filters: usize,
    /// Messages given and not acknowledged.
    pub in_flight: usize,
    /// Messages waiting in memory.
    pub queued: usize,
    /// It reads the log by itself, because it is slow or has just come back.
    pub behind: bool,
    /// Everything up to here is settled; 0 for a session that is not durable.
    pub upto: Pos,
}

impl Seats {
    /// Takes the client's place, after whoever has it now has left; `reason` is what that one hears.
    /// True if there was one. Of several who wait the newest gets it: the others find themselves
    /// kicked when it is their turn, and must only leave.
    pub(crate) async fn take(&self, client: &Arc<str>, live: &Arc<Live>, reason: u8) -> (Taken<'_>, bool) {
        let (gone_tx, gone) = watch::channel(());
        let before = self.taken.lock().insert(client.clone(), Seat { live: live.clone(), gone });
        let seat = Taken { seats: self, client: client.clone(), live: live.clone(), _gone: gone_tx };
        let took_over = before.is_some();
        if let Some(mut before) = before {
            before.live.kick(reason);
            let _ = before.gone.changed().await;
        }
        (seat, took_over)
    }

    /// Clients that are here.
    pub(crate) fn connected(&self) -> usize {
        self.taken.lock().len()
    }

    pub(crate) fn kick_if(&self, is_out: impl Fn(&User) -> bool, reason: u8) {
        self.taken.lock().values().filter(|s| is_out(&s.live.user)).for_each(|s| s.live.kick(reason));
    }

    pub(crate) fn kick_all(&self, reason: u8) {
        self.taken.lock().values().for_each(|s| s.live.kick(reason));
    }

    /// Sessions of a state that was found at start. Their expiry counts from when their clients left,
    /// which for those that an earlier process's end cut off is this start: they could not come back
    /// before. A clock that was set back keeps a session longer.
    pub(crate) fn park_all(&self, state: &State, now_us: i64) {
        let now = Instant::now();
        let mut parked = self.parked.lock();
        // A group has no client whose absence could end it.
        for (client, s) in state.sessions.iter().filter(|(c, _)| !share::is_shared(c)) {
            let away = Duration::from_micros(u64::try_from(now_us - s.left_us).unwrap_or(0));
            let left = Duration::from_secs(s.expiry_s.into()).saturating_sub(away);
            parked.insert(client.as_str().into(), Parked { until: now + left, delivered: None });
        }
    }

    pub(crate) fn park(&self, client: &Arc<str>, expiry_s: u32, delivered: Delivered) {
        let until = Instant::now() + Duration::from_secs(expiry_s.into());
        let parked = Parked { until, delivered: Some(delivered) };
        self.parked.lock().insert(client.clone(), parked);
    }

    /// The client could not come back after all.
    pub(crate) fn park_again(&self, client: &Arc<str>, parked: Parked) {
        self.parked.lock().insert(client.clone(), parked);
    }

    /// The client is back.
    pub(crate) fn unpark(&self, client: &str) -> Option<Parked> {
        self.parked.lock().remove(client)
    }

    pub(crate) fn put_will(&self, client: Arc<str>, delay: Duration, left: LeftWill) {
        self.wills.lock().insert(client, (Instant::now() + delay, left));
    }

    /// The client is back in time, if there is one. With what was left of its delay.
    pub(crate) fn take_will(&self, client: &str) -> Option<(Duration, LeftWill)> {
        let (due, left) = self.wills.lock().remove(client)?;
        Some((due.saturating_duration_since(Instant::now()), left))
    }

    /// So many of the lane's that are due, of so many bytes together, nearly: at least one. Until
    /// [`Seats::have_ended`] their clients wait.
    pub(crate) fn wills_due(&self, lane: Lane, wills_max: usize, bytes_max: usize) -> Vec<(Arc<str>, LeftWill)> {
        let now = Instant::now();
        let mut wills = self.wills.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for (client, (_, left)) in wills.extract_if(|_, (due, left)| *due <= now && left.lane == lane) {
            bytes += left.will.topic.len() + left.will.payload.len() + left.will.properties.len();
            self.begin_to_end(&client);
            taken.push((client, left));
            if taken.len() == wills_max || bytes >= bytes_max {
                break;
            }
        }
        taken
    }

    /// Sessions whose client has been away for too long; they are forgotten here. Until
    /// [`Seats::have_ended`] their clients wait.
    pub(crate) fn expired(&self) -> Vec<(Arc<str>, Parked)> {
        let now = Instant::now();
        let mut parked = self.parked.lock();
        parked.extract_if(|_, p| p.until <= now).inspect(|(client, _)| self.begin_to_end(client)).collect()
    }

    fn begin_to_end(&self, client: &Arc<str>) {
        self.ending.send_modify(|all| *all.entry(client.clone()).or_default() += 1);
    }

    /// What was taken of these clients is in the log, or could not be.
    pub(crate) fn have_ended<'a>(&self, clients: impl Iterator<Item = &'a Arc<str>>) {
        self.ending.send_modify(|all| {
            for client in clients {
                if let Some(n) = all.get_mut(client) {
                    *n -= 1;
                    if *n == 0 {
                        all.remove(client);
                    }
                }
            }
        });
    }

    /// Waits until nothing of the client's is on its way into the log: it would come behind what it does now.
    pub(crate) async fn nothing_ends(&self, client: &str) {
        // Whoever sends is this.
        let _ = self.ending.subscribe().wait_for(|all| !all.contains_key(client)).await;
    }

    pub(crate) fn views(&self, core: &dyn Core, router: &Router) -> Vec<SessionView> {
        let routed = router.routed();
        let mut views: HashMap<String, SessionView> = look(core, |state| {
            let view = |(client, s): (&String, &crate::state::Session)| {
                let view = SessionView {
                    client: client.clone(),
                    user: s.user.clone(),
                    version: s.version,
                    durable: true,
                    connected: false,
                    filters: s.filters.len(),
                    in_flight: 0,
                    queued: 0,
                    behind: s.upto < routed,
                    upto: s.upto,
                };
                (client.clone(), view)
            };
            state.sessions.iter().map(view).collect()
        });
        for (client, seat) in self.taken.lock().iter() {
            let live = &seat.live;
            let inbox = live.inbox.lock().clone();
            let upto = views.get(&**client).map_or(Pos::ZERO, |v| v.upto);
            let view = SessionView {
                client: client.to_string(),
                user: live.user.name.to_string(),
                version: live.version,
                durable: live.durable,
                connected: true,
                filters: live.filters.load(Ordering::Relaxed),
                in_flight: live.in_flight.load(Ordering::Relaxed),
                queued: inbox.as_ref().map_or(0, |i| i.queued()) + live.fetched.load(Ordering::Relaxed),
                behind: inbox.as_ref().is_some_and(|i| !i.is_live()),
                upto,
            };
            views.insert(client.to_string(), view);
        }
        let mut views: Vec<_> = views.into_values().collect();
        views.sort_by(|a, b| a.client.cmp(&b.client));
        views
    }
}
