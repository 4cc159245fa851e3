//! The front door of a node whose devices and apps are at an outside broker: the node is a client of
//! it, takes what is published there as the embedded door would, and publishes its events there.
//!
//! **Promises.** A message is acknowledged to the broker after its commit, in the order in which it
//! came; what the broker has not acknowledged is published again, after a restart too. So nothing
//! is lost that the broker keeps, and what is repeated is told by its event id. The PUBACK that a
//! device gets is the broker's word, not ours.
//!
//! What the broker retains comes with each SUBSCRIBE, and a message whose map has no `id` would be a new event
//! each time. So a filter is subscribed to once in the life of the broker's session, and all that comes is
//! taken: what is retained is then new, or left over from a connection before. Which filters the session has
//! is noted in the log. Nothing is noted from a CONNECT to its answer: the session may be another by then,
//! with nothing in it, and what was noted of the one before would leave this one without a filter.
//!
//! Deliberately absent: plain messages, retained ones and wills, which devices and apps at one broker
//! exchange without us.

mod client;
mod kept;
#[cfg(test)]
mod sessions;

use self::client::{Client, Dial, Event, WINDOW};
use self::kept::Kept;
use super::access::covers;
use super::core::{Core, look, read_on};
use super::message::{Me, Message, parts};
use super::{Ingress, Publish};
use crate::broker::Broker;
use crate::engine::{Error, Haste, Offered};
use crate::note::{BrokerSession, Note};
use citybrain_shared::config::{Config, Map};
use citybrain_shared::record::Header;
use citybrain_shared::{Pos, topic};
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The cursor of what the broker has got: a session like any other, which retention respects.
const SESSION: &str = crate::state::OUTSIDE;

/// The cursor is noted when it has moved this far, or after a while: a note is a record too. Until then
/// it is jotted beside the log, so that a kill repeats nothing for it.
const NOTE_RECORDS: u64 = 4096;
const NOTE_WITHIN: Duration = Duration::from_secs(1);

/// Messages offered in one commit, and bytes of their payloads after which no more join it.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 1024 * 1024;
/// Records looked at at once.
const READ_RECORDS: usize = 256;
const READ_BYTES: usize = 256 * 1024;
/// Between attempts to connect, twice as long each time, until a connection has held for
/// [`RETRY_MAX`]: a broker that ends each one soon is not asked five times a second.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

type Filters = BTreeSet<String>;

/// The note of a cursor, until it is written.
type Noting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What `status` shows.
#[derive(Debug)]
pub struct Seen {
    /// `None`: the door is open.
    pub away: Mutex<Option<Away>>,
    pub received: AtomicU64,
    pub refused: AtomicU64,
    pub delivered: AtomicU64,
}

/// Nothing comes or goes.
#[derive(Clone, Debug)]
pub struct Away {
    pub since: Instant,
    pub why: String,
}

impl Default for Seen {
    fn default() -> Self {
        let away = Away { since: Instant::now(), why: "it has not been reached yet".into() };
        Seen {
            away: Mutex::new(Some(away)),
            received: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
        }
    }
}

pub struct Outside<C> {
    core: C,
    ingress: Arc<dyn Ingress>,
    me: Me,
    broker: Broker,
    client_id: String,
    /// What the broker's session is to have.
    filters: Filters,
    link_root: String,
    packet_bytes_max: usize,
    dots_as_slashes: bool,
    /// How far the broker has acknowledged to this process; the log may not say so yet.
    acknowledged: AtomicU64,
    pub seen: Arc<Seen>,
}

/// What the node takes from a broker: what the embedded door would make an event of.
fn filters(maps: &[Map]) -> Filters {
    let all = std::iter::once("in/#").chain(maps.iter().map(|m| m.filter.as_str()));
    let covers = |f: &str, other: &str| covers(f, other) && f.starts_with('$') == other.starts_with('$');
    let mut filters = Filters::new();
    for filter in all {
        // A broker may send a message once for each filter that matches it: none within another.
        if !filters.iter().any(|f| covers(f, filter)) {
            filters.retain(|f| !covers(filter, f));
            filters.insert(filter.to_owned());
        }
    }
    filters
}

/// What is on its way to the broker, oldest first.
#[derive(Default)]
struct Flights {
    flying: VecDeque<Flight>,
}

struct Flight {
    /// Once this and all before are acknowledged, everything up to here is settled.
    settles: Pos,
    id: Option<u16>,
    acknowledged: bool,
}

impl Flights {
    fn have_room(&self) -> bool {
        self.flying.len() < WINDOW
    }

    fn sent(&mut self, id: u16) {
        if let Some(f) = self.flying.iter_mut().find(|f| f.id.is_none()) {
            f.id = Some(id);
        }
    }

    /// How far everything is settled now, if further than before.
    fn acknowledged(&mut self, id: u16) -> Option<Pos> {
        if let Some(f) = self.flying.iter_mut().find(|f| f.id == Some(id) && !f.acknowledged) {
            f.acknowledged = true;
        }
        let mut settled = None;
        while self.flying.front().is_some_and(|f| f.acknowledged) {
            settled = self.flying.pop_front().map(|f| f.settles);
        }
        settled
    }
}

/// What goes to the broker on one connection.
struct Going {
    /// Records up to here were looked at.
    looked: Pos,
    ready: VecDeque<(Pos, String, Vec<u8>)>,
    flights: Flights,
    /// How far everything is settled, if the log does not say so yet.
    settled: Option<Pos>,
    noted: Pos,
    /// It is to be noted, however little it is.
    is_due: bool,
    noting: Option<Noting>,
}

impl Going {
    fn behind(pos: Pos) -> Going {
        let (ready, flights) = (VecDeque::new(), Flights::default());
        Going { looked: pos, ready, flights, settled: None, noted: pos, is_due: false, noting: None }
    }

    /// Of many records without a message nothing is acknowledged.
    fn pass_over(&mut self) {
        if self.ready.is_empty() && self.flights.flying.is_empty() && self.looked.0 >= self.noted.0 + NOTE_RECORDS {
            self.settled = Some(self.looked);
        }
    }

    fn note(&mut self, core: &impl Core) {
        let is_wanted = |upto: &mut Pos| self.is_due || upto.0 >= self.noted.0 + NOTE_RECORDS;
        if self.noting.is_none()
            && let Some(upto) = self.settled.take_if(is_wanted)
        {
            self.is_due = false;
            self.noted = upto;
            let offering = core.note(vec![Note::settled(SESSION, upto, Vec::new())], Haste::Lazy);
            // A note that was not written only means that some is published again.
            self.noting = Some(Box::pin(async move { drop(super::settled(offering.await).await) }));
        }
    }
}

/// Why a connection is over.
enum Over {
    For(String),
    /// The client takes nothing more, and says why.
    Busy,
}

impl From<String> for Over {
    fn from(why: String) -> Over {
        Over::For(why)
    }
}

impl From<client::Busy> for Over {
    fn from(_: client::Busy) -> Over {
        Over::Busy
    }
}

impl<C: Core> Outside<C> {
    pub fn new(core: C, ingress: Arc<dyn Ingress>, config: &Config, broker: Broker) -> Outside<C> {
        Outside {
            core,
            ingress,
            me: Me::new(&config.node),
            broker,
            client_id: format!("{}-door", config.node.address),
            filters: filters(&config.map),
            link_root: config.link.root.clone(),
            packet_bytes_max: config.broker.packet_bytes_max,
            dots_as_slashes: config.broker.dots_as_slashes,
            acknowledged: AtomicU64::new(0),
            seen: Arc::default(),
        }
    }

    /// Runs until `stop`, over any number of connections.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut wait = RETRY_MIN;
        let mut has = self.noted();
        loop {
            let began = Instant::now();
            let why = tokio::select! {
                () = stopped(&mut stop) => return self.leave().await,
                why = self.connection(&mut has) => why,
            };
            if began.elapsed() >= RETRY_MAX {
                wait = RETRY_MIN;
            }
            self.is_away(why);
            tokio::select! {
                () = stopped(&mut stop) => return self.leave().await,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn is_away(&self, why: String) {
        let mut away = self.seen.away.lock();
        match &*away {
            None => {
                tracing::warn!(reason = %why, broker = %self.broker.servers, "The connection to the outside broker ended; what it holds for this node comes later.");
            }
            Some(before) if before.why != why => {
                tracing::warn!(reason = %why, broker = %self.broker.servers, "The outside broker cannot be reached as a front door.");
            }
            Some(_) => {}
        }
        let since = away.as_ref().map_or_else(Instant::now, |before| before.since);
        *away = Some(Away { since, why });
    }

    async fn leave(&self) {
        let left =
            Note::SessionLeft { client: SESSION.into(), expiry_s: u32::MAX, given: Pos::ZERO, unsure: Pos::ZERO };
        let notes = vec![Note::settled(SESSION, self.acknowledged(), Vec::new()), left];
        if let Ok(ticket) = self.core.note(notes, Haste::Lazy).await {
            let _ = ticket.await;
        }
    }

    fn acknowledged(&self) -> Pos {
        Pos(self.acknowledged.load(Ordering::Relaxed))
    }

    /// Where the broker has got to; a new node begins with what is committed from now on.
    async fn cursor(&self) -> Result<Pos, Error> {
        let notes = Note::open_own(SESSION, 4, &["events/#", "cmd/#"], 1);
        crate::engine::wait(self.core.note(notes, Haste::Now).await?).await?;
        let noted = look(&self.core, |s| s.sessions.get(SESSION).map_or(s.applied, |s| s.upto));
        Ok(noted.max(self.acknowledged()))
    }

    /// One connection, until it ends; why it did. `has`: the filters that the broker's session certainly has.
    async fn connection(&self, has: &mut Filters) -> String {
        let mut client = match self.begin(has).await {
            Ok(client) => client,
            Err(why) => return why,
        };
        match self.serve(&mut client, has).await {
            Err(Over::Busy) => client.why_busy().await,
            Err(Over::For(why)) => why,
        }
    }

    async fn begin(&self, has: &mut Filters) -> Result<Client, String> {
        let dial = Dial::new(&self.broker, &self.client_id, self.packet_bytes_max)?;
        if !has.is_empty() {
            // A broker that is away has no new session.
            dial.probe().await?;
            self.note(&Filters::new()).await?;
        }
        let before = std::mem::take(has);
        let mut client = dial.connect();
        match client.event().await {
            Event::Began { is_known } => {
                if is_known {
                    *has = before;
                }
                self.note(has).await?;
                Ok(client)
            }
            Event::Refused(why) => {
                *has = before;
                self.note(has).await?;
                Err(why)
            }
            Event::Ended(why) => Err(why),
            other => Err(format!("the connection began with {other:?}")),
        }
    }

    /// What the log says that the broker's session has.
    fn noted(&self) -> Filters {
        let of_here = |has: &BrokerSession| has.name == self.session_name();
        look(&self.core, |s| {
            s.sessions.get(SESSION).map(|s| &s.broker_has).filter(|has| of_here(has)).map(|has| has.filters.clone())
        })
        .unwrap_or_default()
    }

    fn session_name(&self) -> String {
        format!("{} at {}", self.client_id, self.broker.servers)
    }

    async fn note(&self, has: &Filters) -> Result<(), String> {
        if self.noted() == *has {
            return Ok(());
        }
        let has = BrokerSession { name: self.session_name(), filters: has.clone() };
        let note = Note::BrokerHas { client: SESSION.into(), has };
        super::settled(self.core.note(vec![note], Haste::Now).await).await.map_err(|e| e.to_string())
    }

    fn missing(&self, has: &Filters) -> Vec<String> {
        self.filters.difference(has).cloned().collect()
    }

    /// Asks for the filters that the session does not have; true: it has all.
    fn ask(&self, client: &Client, has: &Filters) -> Result<bool, client::Busy> {
        let missing = self.missing(has);
        if missing.is_empty() { Ok(true) } else { client.subscribe(missing).map(|()| false) }
    }

    /// The answer to [`Outside::ask`].
    async fn granted(&self, granted: &[bool], has: &mut Filters) -> Result<(), String> {
        let new = self.missing(has).into_iter().zip(granted).filter(|(_, is)| **is).map(|(filter, _)| filter);
        has.extend(new);
        self.note(has).await?;
        let refused: Vec<String> = self.missing(has).iter().map(|filter| format!("`{filter}`")).collect();
        if refused.is_empty() {
            return Ok(());
        }
        Err(format!("the broker refuses the subscription to {}: check the account's rights", refused.join(", ")))
    }

    /// The session has all that it is to have: it is rid of the rest, and the door is open.
    async fn open(&self, client: &Client, has: &mut Filters) -> Result<(), String> {
        let surplus: Vec<String> = has.difference(&self.filters).cloned().collect();
        *has = self.filters.clone();
        // Before they go, so that one that is wanted again later is subscribed to again.
        self.note(has).await?;
        for filter in surplus {
            client.unsubscribe(filter).map_err(|client::Busy| "cannot unsubscribe".to_owned())?;
        }
        *self.seen.away.lock() = None;
        Ok(())
    }

    /// Takes and gives until the connection is over.
    async fn serve(&self, client: &mut Client, has: &mut Filters) -> Result<Infallible, Over> {
        let mut going = Going::behind(self.cursor().await.map_err(|e| e.to_string())?);
        if self.ask(client, has)? {
            self.open(client, has).await?;
        }
        let mut committed = self.core.committed();
        let mut held: Kept<client::Message> = Kept::new();
        let mut first = None;
        let mut clock = tokio::time::interval(NOTE_WITHIN);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let last = *committed.borrow_and_update();
            self.give(client, &mut going, last)?;
            going.note(&self.core);
            let next = async {
                match first.take() {
                    Some(event) => event,
                    None => client.event().await,
                }
            };
            let event = tokio::select! {
                biased;
                done = held.next(), if !held.is_empty() => {
                    // What failed is not acknowledged, so the broker sends it again on the next connection.
                    done.map_err(|e| e.to_string())?.iter().try_for_each(|m| client.acknowledge(m))?;
                    continue;
                }
                _ = clock.tick(), if going.settled.is_some() => {
                    going.is_due = true;
                    continue;
                }
                () = written(&mut going.noting), if going.noting.is_some() => {
                    going.noting = None;
                    continue;
                }
                changed = committed.changed(), if going.ready.is_empty() && going.flights.have_room() => {
                    changed.map_err(|_| "the node stops".to_owned())?;
                    continue;
                }
                event = next, if held.has_room() => event,
            };
            match event {
                Event::Began { .. } => {}
                Event::Subscribed(granted) => {
                    self.granted(&granted, has).await?;
                    self.open(client, has).await?;
                }
                Event::Message(message) => {
                    let batch = batch(client, message, &mut first);
                    // Also where nothing was made of them: acknowledgements keep the order of the messages.
                    let drafts: Vec<_> = batch.iter().flat_map(|m| self.take(m)).map(Offered::from).collect();
                    held.put(&self.core, drafts, batch);
                }
                Event::Sent(id) => going.flights.sent(id),
                Event::Acknowledged(id) => {
                    if let Some(upto) = going.flights.acknowledged(id) {
                        self.acknowledged.store(upto.0, Ordering::Relaxed);
                        self.core.jot(SESSION, upto);
                        going.settled = Some(upto);
                    }
                }
                Event::Ended(why) | Event::Refused(why) => return Err(why.into()),
            }
        }
    }

    /// Publishes what is committed, as much as may be under way.
    fn give(&self, client: &Client, going: &mut Going, last: Pos) -> Result<(), Over> {
        while going.flights.have_room() {
            if going.ready.is_empty() && going.looked < last {
                let upto = self.read(going.looked, last, &mut going.ready);
                going.looked = upto.ok_or_else(|| "the log cannot be read".to_owned())?;
                going.pass_over();
                continue;
            }
            let Some((settles, topic, payload)) = going.ready.pop_front() else { break };
            client.publish(topic, payload)?;
            self.seen.delivered.fetch_add(1, Ordering::Relaxed);
            going.flights.flying.push_back(Flight { settles, id: None, acknowledged: false });
        }
        Ok(())
    }

    /// What the log keeps of a message; nothing where it is none of ours.
    fn take(&self, message: &client::Message) -> impl Iterator<Item = citybrain_shared::record::Draft> {
        let at = message.topic();
        let ours = at.starts_with("events/") || at.starts_with("cmd/") || topic::is_link(&self.link_root, at);
        if ours {
            return None.into_iter().chain(None);
        }
        self.seen.received.fetch_add(1, Ordering::Relaxed);
        let taken = self.ingress.take(&Publish {
            qos: message.qos(),
            retain: message.retain(),
            ..Publish::plain(&self.client_id, at, message.payload())
        });
        if taken.reason >= 0x80 {
            self.seen.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken.beside.into_iter().chain(taken.draft)
    }

    /// Puts the messages of some records behind `looked` into `ready`; returns how far it looked, or
    /// `None` if the files cannot be read just now.
    fn read(&self, looked: Pos, last: Pos, ready: &mut VecDeque<(Pos, String, Vec<u8>)>) -> Option<Pos> {
        let chunk = read_on(&self.core, looked, last, READ_RECORDS, READ_BYTES);
        if chunk.broken {
            return None;
        }
        let now_us = super::now_us();
        let mut scratch = String::new();
        for entry in &chunk.entries {
            let Ok((header, payload)) = Header::decode(&entry.bytes) else { continue };
            let mut before = Pos(entry.pos.0 - 1);
            let mut messages = Vec::new();
            parts(&self.me, &header, &mut scratch, |n, topic| {
                if n != super::message::part::AS_PUBLISHED {
                    let message = Message::of_record(&self.me, entry, &header, payload, n, topic);
                    if !message.has_expired(now_us) {
                        let topic = if self.dots_as_slashes { topic.replace('.', "/") } else { topic.to_owned() };
                        messages.push((topic, message.whole_payload()));
                    }
                }
            });
            let count = messages.len();
            for (i, (topic, payload)) in messages.into_iter().enumerate() {
                // The record is settled with the last of its messages.
                if i + 1 == count {
                    before = entry.pos;
                }
                ready.push_back((before, topic, payload));
            }
        }
        // Records without messages are settled with the one before them.
        if let Some((settles, ..)) = ready.back_mut() {
            *settles = chunk.upto;
        }
        Some(chunk.upto)
    }
}

/// A message, with those that have come meanwhile and join its commit; what else has come is next.
fn batch(client: &mut Client, message: client::Message, first: &mut Option<Event>) -> Vec<client::Message> {
    let (mut batch, mut bytes) = (vec![message], 0);
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        match client.event_now() {
            Some(Event::Message(message)) => {
                bytes += message.payload().len();
                batch.push(message);
            }
            other => {
                *first = other;
                break;
            }
        }
    }
    batch
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // If its owner is gone, that is a stop as well.
    let _ = stop.wait_for(|s| *s).await;
}

async fn written(noting: &mut Option<Noting>) {
    if let Some(noting) = noting {
        noting.await;
    }
}

/// A node that has an embedded door again keeps nothing for a broker that it left.
///
/// # Errors
/// Those of a commit.
pub async fn retire(core: &dyn Core) -> Result<(), Error> {
    if look(core, |s| s.sessions.contains_key(SESSION)) {
        let note = Note::SessionEnded { client: SESSION.into(), why: "this node's front door is its own again".into() };
        crate::engine::wait(core.note(vec![note], Haste::Now).await?).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(settles: u64) -> Flight {
        Flight { settles: Pos(settles), id: None, acknowledged: false }
    }

    #[test]
    fn the_cursor_moves_over_what_is_acknowledged_without_a_gap() {
        let mut f = Flights::default();
        f.flying.extend([flight(3), flight(4), flight(9)]);
        for id in [11, 12, 13] {
            f.sent(id);
        }
        assert_eq!(f.acknowledged(12), None, "the first is still on its way");
        assert_eq!(f.acknowledged(12), None, "repeated");
        assert_eq!(f.acknowledged(99), None, "of nobody");
        assert_eq!(f.acknowledged(11), Some(Pos(4)));
        assert_eq!(f.acknowledged(13), Some(Pos(9)));
        assert!(f.flying.is_empty());
    }

    #[test]
    fn a_packet_id_that_is_used_again_is_that_of_the_newer_message() {
        let mut f = Flights::default();
        f.flying.extend([flight(1), flight(2)]);
        f.sent(5);
        f.sent(6);
        assert_eq!(f.acknowledged(6), None);
        f.flying.push_back(flight(3));
        f.sent(6);
        assert_eq!(f.acknowledged(6), None, "the newer 6, behind the 5");
        assert_eq!(f.acknowledged(5), Some(Pos(3)));
    }

    #[test]
    fn a_node_takes_from_a_broker_what_its_own_door_would_make_an_event_of() {
        let config: Config = toml::from_str(
            "[[map]]\nfilter = \"in/sos/+\"\n[[map]]\nfilter = \"z/a/+\"\n[[map]]\nfilter = \"z/#\"\n[[map]]\nfilter = \"in/#\"\n[node]\naddress = \"c\"\ndata = \"d\"\n",
        )
        .unwrap();
        assert_eq!(filters(&config.map), ["in/#", "z/#"].map(String::from).into(), "each message comes once");
    }
}
