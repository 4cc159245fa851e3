//! Webhooks: events POSTed to other platforms as CloudEvents, structured JSON, with their `origin`.
//!
//! **Promise.** Each event that fits is delivered at least once, in the order of its lane, one at a
//! time: the next one leaves when the receiver has answered. What is urgent goes first, and past a routine
//! event that the receiver does not take. `webhook-id` is the same for every
//! attempt, so a receiver can tell a repetition. What is refused for good (4xx but 408 and 429, 3xx)
//! becomes a dead letter, and the next one follows; 410 ends it all, as the receiver is gone for good: what
//! there is by then and what comes until the node starts again is never sent; all else is tried again, for
//! ever, and `status`, `why` and `doctor` say so. An operator may pass it over (`webhook skip`), which makes a
//! dead letter of it, and send a dead letter again (`dlq retry`): by itself, out of its order.
//!
//! **Format.** A webhook's cursor is a session in the state for each lane, `$webhook/NAME` and
//! `$webhook/NAME/urgent`, so it survives a kill,
//! is held against trimming and shown like any other. A new one begins with the next event. Headers
//! are those of the Standard Webhooks specification: with a secret, `webhook-signature` is `v1,` and
//! base64 of HMAC-SHA-256 over `ID.TIMESTAMP.BODY`. With `handshake` nothing leaves before the receiver
//! has said that it wants events from here, as CloudEvents' web-hook specification has it: OPTIONS with
//! `WebHook-Request-Origin`, answered by `WebHook-Allowed-Origin`; its `WebHook-Allowed-Rate` (requests a
//! minute) is kept to. It is asked once a start, and asked again until it agrees.
//!
//! **Operation.** A thread each: the client blocks, and a receiver that hangs holds up nobody else.
//! The cursors are noted after each burst, so a kill repeats at most [`BURST`] events of each lane.

use crate::brain::{self, cases::letter::CALL};
use crate::https::{Trust, without_path};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use chrono::{DateTime, Utc};
use citybrain_hub::Hub;
use citybrain_hub::engine::{self, Haste};
use citybrain_hub::log::{self, Entry, Reader};
use citybrain_hub::note::{DeadLetter, Note};
use citybrain_hub::state::WEBHOOK;
use citybrain_shared::case::{self, Outside};
use citybrain_shared::config::{Config, Webhook};
use citybrain_shared::record::{Direction, Draft, Header, Kind, event_key};
use citybrain_shared::words::with_causes;
use citybrain_shared::{Lane, Pos, event, view, words};
use hmac::{Hmac, Mac};
use miette::{IntoDiagnostic, Report, miette};
use parking_lot::Mutex;
use sha2::Sha256;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use ureq::tls::TlsConfig;

/// Records read, and events delivered, before the cursor is noted.
const BURST: usize = 64;
const BURST_BYTES: usize = 256 * 1024;
/// Positions without an event for this webhook before its cursor is noted anyway, so that the log
/// can be trimmed.
const SKIPPED_MAX: u64 = 10_000;
/// A receiver has this long to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Between two tries to write while the node cannot.
const PAUSE_UNWRITABLE_MAX: Duration = Duration::from_secs(5);
/// What `Retry-After` may ask for at most.
const RETRY_AFTER_MAX_S: u64 = 3_600;

/// What the name of the urgent lane's session ends with.
const URGENT: &str = "/urgent";

/// Where dead letters of webhooks come from, before the webhook's name.
pub const VIA: &str = "webhook:";

/// What a webhook has done since the start. Plain numbers, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    pub name: String,
    pub delivered: AtomicU64,
    pub refused: AtomicU64,
    pub retries: AtomicU64,
    /// Everything up to here is settled.
    pub upto: AtomicU64,
    /// What the receiver does not take, of each lane.
    stands: Mutex<[Option<Stands>; 2]>,
    /// Since when, and why, nothing is sent to it: its receiver has not agreed to it by now,
    not_agreed: Mutex<Option<(DateTime<Utc>, String)>>,
    /// or it is gone.
    gone: Mutex<Option<(DateTime<Utc>, String)>>,
}

/// What is tried again and again.
#[derive(Debug)]
struct Stands {
    pos: Pos,
    lane: Lane,
    since: DateTime<Utc>,
    /// As the last attempt ended.
    why: Said,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
struct Said {
    /// The answer's status, or that there was none.
    status: String,
    /// The beginning of the answer's body. A receiver may say again what it was sent: this is for a dead letter,
    /// which not everybody sees.
    text: String,
}

impl Said {
    /// All of it.
    fn whole(&self) -> String {
        format!("{} {}", self.status, self.text).trim().to_owned()
    }
}

impl Counters {
    /// Its receiver has not agreed, once more; what counts is since when.
    fn keep_not_agreed(&self, why: String) {
        let mut held = self.not_agreed.lock();
        let since = held.as_ref().map_or_else(Utc::now, |(since, _)| *since);
        *held = Some((since, why));
    }

    /// As it is shown, the log ending at `last`.
    pub fn view(&self, last: Pos) -> view::Webhook {
        let stands =
            |s: &Stands| view::WebhookStands { pos: s.pos, lane: s.lane, since: s.since, why: s.why.status.clone() };
        let (not_agreed, gone) = (self.not_agreed.lock().clone(), self.gone.lock().clone());
        view::Webhook {
            name: self.name.clone(),
            behind: last.0.saturating_sub(self.upto.load(Ordering::Relaxed)),
            stands: self.stands.lock().iter().flatten().map(stands).collect(),
            not_agreed_since: not_agreed.as_ref().map(|(since, _)| *since),
            not_agreed_why: not_agreed.map(|(_, why)| why),
            gone_since: gone.as_ref().map(|(since, _)| *since),
            gone_why: gone.map(|(_, why)| why),
        }
    }
}

/// An operator's word that this event is to be passed over.
pub struct Skip {
    pub pos: Pos,
    /// The record of who did it; goes into the group of the dead letter.
    pub act: Draft,
    pub told: oneshot::Sender<Result<(), NotSkipped>>,
}

/// Why an event was not passed over.
#[derive(Debug)]
pub enum NotSkipped {
    /// It does not stand, in a sentence.
    Moving(String),
    /// The log did not take it.
    Log(engine::Error),
}

struct Sender {
    hub: Hub,
    handle: Handle,
    stop: watch::Receiver<bool>,
    config: Webhook,
    post: Post,
    skips: mpsc::Receiver<Skip>,
    own_origin: String,
    /// Between two deliveries, as the receiver wants it.
    gap: Duration,
    /// Its receiver has said that nothing more is to be sent.
    is_gone: bool,
}

/// Sends to one receiver. Blocks, at most [`ANSWER_WITHIN`].
#[derive(Clone)]
pub struct Post {
    pub name: String,
    url: String,
    secret: Option<Vec<u8>>,
    agent: ureq::Agent,
    counters: Arc<Counters>,
    skips: mpsc::Sender<Skip>,
}

/// How far it is with one lane.
struct Cursor {
    lane: Lane,
    /// Its session.
    client: String,
    /// Everything of the lane up to here is settled, and that is noted up to there.
    upto: Pos,
    noted: Pos,
    /// Read, and to be delivered: those that fit, of all up to `end`.
    read: VecDeque<Entry>,
    end: Pos,
    /// Something was delivered since `noted`.
    told: bool,
    /// The first of `read` is not tried again before then.
    again: Option<Instant>,
    /// After the next attempt that fails.
    pause: Duration,
}

impl Cursor {
    /// The first of `read` is settled.
    fn go_past(&mut self) {
        if let Some(entry) = self.read.pop_front() {
            self.upto = entry.pos;
        }
        if self.read.is_empty() {
            self.upto = self.upto.max(self.end);
        }
        (self.told, self.again, self.pause) = (true, None, PAUSE_FIRST);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.again.is_none_or(|again| again <= now)
    }
}

/// All webhooks of a node.
pub struct Webhooks(Vec<Sender>);

fn unusable(why: String) -> Report {
    miette!(code = crate::codes::UNUSABLE, "{why}")
}

impl Webhooks {
    /// Makes them ready, and ends the cursors of those that config no longer has: they would keep
    /// the log from being trimmed.
    ///
    /// # Errors
    /// [`UNUSABLE`](crate::codes::UNUSABLE): a secret or a certificate that does not read; or the log cannot be
    /// written.
    pub async fn open(config: &Config, hub: &Hub, stop: &watch::Receiver<bool>) -> miette::Result<Webhooks> {
        let is_known = |client: &str| {
            client.strip_prefix(WEBHOOK).is_none_or(|name| {
                let name = name.strip_suffix(URGENT).unwrap_or(name);
                config.webhook.iter().any(|w| w.name == name)
            })
        };
        let gone: Vec<String> = hub.state(|s| s.sessions.keys().filter(|c| !is_known(c)).cloned().collect());
        let why = || "it is no longer in config".to_owned();
        let notes: Vec<Note> = gone.into_iter().map(|client| Note::SessionEnded { client, why: why() }).collect();
        if !notes.is_empty() {
            match engine::wait(hub.note(notes, Haste::Now).await.into_diagnostic()?).await {
                // A full disk is no reason not to start; the next start ends them.
                Err(engine::Error::Unwritable(reason)) => {
                    tracing::warn!(reason, "Sessions of former webhooks stay, and hold the log.");
                }
                noted => noted.into_diagnostic()?,
            }
        }
        let address = config.node.address.as_str();
        let sender = |w: &Webhook| {
            let secret = w.secret_file.as_ref().map(|file| {
                let text = std::fs::read_to_string(file);
                let text = text.map_err(|e| unusable(format!("cannot read the secret `{}`: {e}", file.display())))?;
                secret(&text).map_err(|why| unusable(format!("`{}`: {why}", file.display())))
            });
            let trust = Trust::of(w.ca_file.as_deref());
            let tls = trust.config(&w.url).map_err(|why| unusable(format!("webhook `{}`: {why}", w.name)))?;
            Ok(Sender::new(hub, w, secret.transpose()?, tls, address, stop.clone()))
        };
        config.webhook.iter().map(sender).collect::<miette::Result<Vec<Sender>>>().map(Webhooks)
    }

    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.0.iter().map(|s| s.post.counters.clone()).collect()
    }

    /// For what is sent by itself.
    pub fn posts(&self) -> Vec<Post> {
        self.0.iter().map(|s| s.post.clone()).collect()
    }

    /// Starts a thread for each; it ends with the node.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn run(self) -> miette::Result<Vec<JoinHandle<()>>> {
        let start = |sender: Sender| {
            let name = format!("hook-{}", sender.config.name);
            std::thread::Builder::new().name(name).spawn(move || sender.run()).into_diagnostic()
        };
        self.0.into_iter().map(start).collect()
    }
}

/// The node is stopping.
struct Ended;

impl Sender {
    /// `secret` is the key itself.
    fn new(
        hub: &Hub,
        config: &Webhook,
        secret: Option<Vec<u8>>,
        tls: TlsConfig,
        address: &str,
        stop: watch::Receiver<bool>,
    ) -> Sender {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(ANSWER_WITHIN));
        let (skip, skips) = mpsc::channel(1);
        Sender {
            hub: hub.clone(),
            handle: Handle::current(),
            stop,
            config: config.clone(),
            post: Post {
                name: config.name.clone(),
                url: config.url.clone(),
                secret,
                agent: agent.build().into(),
                counters: Arc::new(Counters { name: config.name.clone(), ..Counters::default() }),
                skips: skip,
            },
            skips,
            gap: Duration::ZERO,
            is_gone: false,
            own_origin: address.to_owned(),
        }
    }

    /// Blocks until the node stops. Not on a thread of the runtime.
    fn run(mut self) {
        let _ = self.work();
    }

    fn work(&mut self) -> Result<(), Ended> {
        let (reader, mut committed) = (self.hub.reader(), self.hub.committed());
        let mut lanes = [self.open(Lane::Urgent)?, self.open(Lane::Routine)?];
        self.show(&lanes);
        if self.config.handshake {
            self.shake_hands()?;
        }
        loop {
            if let Err(ended) = self.turn(&reader, &mut lanes, &mut committed) {
                // Of an orderly end nothing comes twice.
                if !self.is_gone && lanes.iter().any(|c| c.told) {
                    let _ = self.note(settled(&lanes), Haste::Lazy);
                }
                return Err(ended);
            }
        }
    }

    /// One event, of the urgent lane if there is one, or a wait until there may be one.
    fn turn(
        &mut self,
        reader: &Reader,
        lanes: &mut [Cursor; 2],
        committed: &mut watch::Receiver<Pos>,
    ) -> Result<(), Ended> {
        if *self.stop.borrow() {
            return Err(Ended);
        }
        // Where a lane is always due there is no wait.
        while let Ok(skip) = self.skips.try_recv() {
            self.skip(lanes, skip)?;
        }
        // Before the reads, so that a commit behind them is not slept through.
        committed.borrow_and_update();
        let mut is_busy = false;
        for cursor in lanes.iter_mut() {
            if !is_busy && cursor.is_due(Instant::now()) {
                is_busy = cursor.read.is_empty() && self.read(reader, cursor)?;
                is_busy |= self.deliver(cursor)?;
            }
        }
        self.show(lanes);
        let is_through =
            |c: &Cursor| c.told && (c.read.is_empty() || c.again.is_some()) || c.upto.0 - c.noted.0 > SKIPPED_MAX;
        if lanes.iter().any(is_through) {
            self.note(settled(lanes), Haste::Lazy)?;
            lanes.iter_mut().for_each(|c| (c.noted, c.told) = (c.upto, false));
        }
        if is_busy { Ok(()) } else { self.wait(lanes, committed) }
    }

    /// How far it is, for metrics and `status`.
    fn show(&self, lanes: &[Cursor; 2]) {
        let upto = lanes.iter().map(|c| c.upto).min().unwrap_or_default();
        self.post.counters.upto.store(upto.0, Ordering::Relaxed);
    }

    /// What comes next, where all that was read is settled: was there anything?
    fn read(&mut self, reader: &Reader, cursor: &mut Cursor) -> Result<bool, Ended> {
        let last = reader.last();
        match reader.read(cursor.upto, Some(cursor.lane), BURST, BURST_BYTES) {
            Ok(entries) => {
                cursor.end = entries.last().map_or(last, |e| e.pos).max(cursor.upto);
                let fits = |e: &&Entry| {
                    Header::decode(&e.bytes)
                        .is_ok_and(|(header, payload)| fits(&self.config.types, &self.config.sources, &header, payload))
                };
                // What is not taken is kept for long.
                cursor.read = entries.iter().filter(fits).map(Entry::alone).collect();
                if cursor.read.is_empty() {
                    cursor.upto = cursor.end;
                }
                return Ok(!entries.is_empty());
            }
            // Lost, and recorded as lost by the log; what follows is still to be delivered.
            Err(log::Error::Damaged { upto: lost, .. }) => cursor.upto = lost.max(cursor.upto.next()),
            Err(log::Error::Trimmed { first }) => cursor.upto = Pos(first.0 - 1).max(cursor.upto),
            Err(error) => {
                tracing::warn!(webhook = self.config.name, error = %with_causes(&error), "The log does not read; trying again.");
                self.pause(PAUSE_FIRST)?;
            }
        }
        Ok(true)
    }

    /// Where a lane goes on; its session is made if there is none.
    fn open(&mut self, lane: Lane) -> Result<Cursor, Ended> {
        let end = if lane == Lane::Urgent { URGENT } else { "" };
        let client = format!("{WEBHOOK}{}{end}", self.config.name);
        let known = |me: &Sender| me.hub.state(|s| s.sessions.get(&client).map(|s| s.upto));
        let mut upto = known(self);
        if upto.is_none() {
            self.note(Note::open_own(&client, 5, &["events/#"], 1), Haste::Now)?;
            upto = known(self);
        }
        let upto = upto.ok_or(Ended)?;
        let (read, again, pause) = (VecDeque::new(), None, PAUSE_FIRST);
        Ok(Cursor { lane, client, upto, noted: upto, read, end: upto, told: false, again, pause })
    }

    /// Until it is noted: a disk that is full or fails for a while is no reason to end.
    fn note(&mut self, notes: Vec<Note>, haste: Haste) -> Result<(), Ended> {
        let mut pause = PAUSE_FIRST;
        loop {
            let all = async { engine::wait(self.hub.note(notes.clone(), haste).await?).await };
            match self.handle.block_on(all) {
                Ok(()) => return Ok(()),
                Err(engine::Error::Stopping) => return Err(Ended),
                Err(error) => {
                    if pause == PAUSE_FIRST {
                        let webhook = &self.config.name;
                        tracing::warn!(webhook, %error, "A webhook waits until the node can write again.");
                    }
                }
            }
            self.pause(pause)?;
            pause = (pause * 2).min(PAUSE_UNWRITABLE_MAX);
        }
    }

    /// Until there is something new, or something is to be tried again.
    fn wait(&mut self, lanes: &mut [Cursor; 2], committed: &mut watch::Receiver<Pos>) -> Result<(), Ended> {
        let again = lanes.iter().filter_map(|c| c.again).min();
        let (stop, skips) = (&mut self.stop, &mut self.skips);
        let skip = self.handle.block_on(async {
            let again = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => Err(Ended),
                Some(skip) = skips.recv() => Ok(Some(skip)),
                changed = committed.changed() => changed.map(|()| None).map_err(|_| Ended),
                () = again => Ok(None),
            }
        })?;
        skip.map_or(Ok(()), |skip| self.skip(lanes, skip))
    }

    /// Passes over what stands, by an operator's word: who said it, the dead letter and the cursor are one group.
    /// The letter has nothing of whoever is forgotten, nor what the receiver says of him.
    fn skip(&mut self, lanes: &mut [Cursor; 2], skip: Skip) -> Result<(), Ended> {
        let Skip { pos, act, told } = skip;
        // Whoever asked was told that it was not done.
        if told.is_closed() {
            return Ok(());
        }
        let stands = |c: &&mut Cursor| c.again.is_some() && c.read.front().is_some_and(|e| e.pos == pos);
        let Some(cursor) = lanes.iter_mut().find(stands) else {
            let _ = told.send(Err(NotSkipped::Moving(format!("it does not stand at {}", pos.0))));
            return Ok(());
        };
        let is_forgotten = cursor.read.front().is_none_or(|e| self.is_forgotten(e));
        let why = self.post.counters.stands.lock()[cursor.lane as usize]
            .as_ref()
            .map_or(String::new(), |s| if is_forgotten { s.why.status.clone() } else { s.why.whole() });
        let url = without_path(&self.config.url);
        let detail = format!("{url} did not take it ({why}), and it was passed over by an operator");
        let body = cursor.read.front().filter(|_| !is_forgotten).map(|e| self.body_of(e)).unwrap_or_default();
        let letter = Note::DeadLetter(self.letter("webhook-skipped", pos, detail, &body)).draft();
        let group = vec![act, letter, Note::settled(&cursor.client, pos, Vec::new()).draft()];
        let lane = cursor.lane;
        let noted = self
            .handle
            .block_on(async { engine::wait(self.hub.decide(lane, Box::new(move |_, _| group)).await?).await });
        match noted {
            Ok(_) => {
                cursor.go_past();
                self.post.counters.stands.lock()[cursor.lane as usize] = None;
                let _ = told.send(Ok(()));
                Ok(())
            }
            Err(error) => {
                let ended = if matches!(error, engine::Error::Stopping) { Err(Ended) } else { Ok(()) };
                let _ = told.send(Err(NotSkipped::Log(error)));
                ended
            }
        }
    }

    fn pause(&mut self, pause: Duration) -> Result<(), Ended> {
        let stop = &mut self.stop;
        self.handle.block_on(async {
            tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => Err(Ended),
                () = tokio::time::sleep(pause) => Ok(()),
            }
        })
    }

    /// Until the receiver says that it wants events from here.
    fn shake_hands(&mut self) -> Result<(), Ended> {
        let origin = self.config.origin.clone().unwrap_or_else(host_name);
        let mut pause = PAUSE_FIRST;
        loop {
            match self.post.may_send(&origin) {
                Ok(gap) => {
                    self.gap = gap;
                    *self.post.counters.not_agreed.lock() = None;
                    return Ok(());
                }
                Err(why) => {
                    if self.post.counters.retries.fetch_add(1, Ordering::Relaxed) == 0 || pause == PAUSE_MAX {
                        tracing::warn!(
                            webhook = self.config.name,
                            reason = why,
                            "A receiver does not want events from here; nothing is sent, and it is asked again."
                        );
                    }
                    self.post.counters.keep_not_agreed(why);
                    self.pause(pause)?;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// The first that was read, once: was there one? Nobody may have it any more whose person was forgotten while
    /// the receiver was away.
    fn deliver(&mut self, cursor: &mut Cursor) -> Result<bool, Ended> {
        let Some(entry) = cursor.read.front() else { return Ok(false) };
        let (pos, body) = (entry.pos, self.body_of(entry));
        let key = Header::decode(&entry.bytes).map_or(0, |(header, _)| header.key);
        let answer = if self.is_forgotten(entry) { None } else { Some(self.post.send(key, &body)) };
        match answer {
            None => {}
            Some(Answer::Taken) => {
                self.post.counters.delivered.fetch_add(1, Ordering::Relaxed);
                if !self.gap.is_zero() {
                    // If the node ends meanwhile, whoever asks next is told.
                    let _ = self.pause(self.gap);
                }
            }
            Some(Answer::Refused(said)) => {
                self.post.counters.refused.fetch_add(1, Ordering::Relaxed);
                let detail = format!("{} refused it: {}", without_path(&self.config.url), said.whole());
                let letter = self.letter("webhook-refused", pos, detail, &body);
                self.note(vec![Note::DeadLetter(letter)], Haste::Lazy)?;
            }
            Some(Answer::Gone(said)) => return self.end(pos, said, &body),
            Some(Answer::Later(said, after)) => {
                self.try_later(cursor, said, after);
                return Ok(true);
            }
        }
        self.post.counters.stands.lock()[cursor.lane as usize] = None;
        cursor.go_past();
        Ok(true)
    }

    fn try_later(&mut self, cursor: &mut Cursor, why: Said, after: Option<Duration>) {
        if self.post.counters.retries.fetch_add(1, Ordering::Relaxed) == 0 || cursor.pause == PAUSE_MAX {
            let reason = &why.status;
            tracing::warn!(webhook = self.config.name, reason, "A receiver does not take events; trying again.");
        }
        let (lane, pos) = (cursor.lane, cursor.read.front().map_or(cursor.upto, |e| e.pos));
        let stands = &mut self.post.counters.stands.lock()[lane as usize];
        let since = stands.as_ref().filter(|s| s.pos == pos).map_or_else(Utc::now, |s| s.since);
        *stands = Some(Stands { pos, lane, since, why });
        cursor.again = Some(Instant::now() + later(cursor.pause, after));
        cursor.pause = (cursor.pause * 2).min(PAUSE_MAX);
    }

    /// The receiver takes nothing any more.
    fn end(&mut self, pos: Pos, said: Said, body: &[u8]) -> Result<bool, Ended> {
        self.post.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            webhook = self.config.name,
            reason = said.status,
            "A receiver is gone for good; nothing more is sent to it."
        );
        let url = without_path(&self.config.url);
        let detail = format!(
            "{url} is gone ({}): what there is by now, and what comes until the node starts again, is never sent to it",
            said.whole()
        );
        let letter = Note::DeadLetter(self.letter("webhook-gone", pos, detail, body));
        // Its cursors would hold the log for nobody.
        let ended = ["", URGENT].map(|lane| Note::SessionEnded {
            client: format!("{WEBHOOK}{}{lane}", self.config.name),
            why: "its receiver is gone".into(),
        });
        self.note([letter].into_iter().chain(ended).collect(), Haste::Now)?;
        *self.post.counters.stands.lock() = [None, None];
        *self.post.counters.gone.lock() = Some((Utc::now(), said.status));
        self.is_gone = true;
        Err(Ended)
    }

    /// Nobody may have it any more.
    fn is_forgotten(&self, entry: &Entry) -> bool {
        Header::decode(&entry.bytes).map_or(true, |(header, payload)| brain::is_forgotten(&self.hub, &header, payload))
    }

    /// As it is sent.
    fn body_of(&self, entry: &Entry) -> Vec<u8> {
        let Ok((header, payload)) = Header::decode(&entry.bytes) else { return Vec::new() };
        event::with_origin(payload, header.origin.map_or(self.own_origin.as_str(), |o| o.address))
    }

    fn letter(&self, reason: &str, pos: Pos, detail: String, body: &[u8]) -> DeadLetter {
        let via = format!("{VIA}{}", self.config.name);
        DeadLetter { of: Some(pos), ..DeadLetter::new(reason, detail, via, "", body) }
    }
}

/// As far as each lane is by now.
fn settled(lanes: &[Cursor; 2]) -> Vec<Note> {
    lanes.iter().map(|c| Note::settled(&c.client, c.upto, Vec::new())).collect()
}

/// How long it is left alone. A receiver may ask for more time, and not for less: `Retry-After: 0` would
/// be a loop without end.
fn later(pause: Duration, after: Option<Duration>) -> Duration {
    after.map_or(pause, |after| after.max(pause))
}

impl Post {
    /// `body` is an event of this key, with its origin.
    fn send(&self, key: u64, body: &[u8]) -> Answer {
        let id = &format!("{key:016x}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        let mut request = self
            .agent
            .post(&self.url)
            .header("content-type", "application/cloudevents+json; charset=utf-8")
            .header("webhook-id", id)
            .header("webhook-timestamp", &now);
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", signature(secret, id, &now, body));
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Answer::Later(Said { status: error.to_string(), text: String::new() }, None),
        };
        let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok());
        let status = response.status();
        // Reading it to its end keeps the connection for the next event.
        let text = response.body_mut().with_config().limit(64 * 1024).read_to_string().unwrap_or_default();
        let said = Said { status: status.to_string(), text: words::beginning(&text, 200).to_owned() };
        match status.as_u16() {
            200..=299 => Answer::Taken,
            410 => Answer::Gone(said),
            300..=407 | 409..=428 | 430..=499 => Answer::Refused(said),
            _ => Answer::Later(said, after.map(|s| Duration::from_secs(s.min(RETRY_AFTER_MAX_S)))),
        }
    }
}

impl Post {
    /// Has what stands passed over. Who no longer waits for the answer takes the wish back, unless the log has it
    /// by then.
    ///
    /// # Errors
    /// It does not stand there, or the log does not take it.
    pub async fn skip(&self, pos: Pos, act: Draft) -> Result<(), NotSkipped> {
        let (told, answer) = oneshot::channel();
        let gone = || NotSkipped::Moving("nothing is sent to its receiver any more".into());
        self.skips.send(Skip { pos, act, told }).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Sends what it refused once more, as it was.
    ///
    /// # Errors
    /// A sentence: what is there is no event, or the receiver does not take it.
    pub fn again(&self, body: &[u8]) -> Result<(), String> {
        match self.send(key_of(body)?, body) {
            Answer::Taken => {
                self.counters.delivered.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Answer::Refused(said) | Answer::Gone(said) | Answer::Later(said, _) => Err(said.whole()),
        }
    }

    /// Asks whether events from `origin` are wanted: the time between two of them.
    fn may_send(&self, origin: &str) -> Result<Duration, String> {
        let response =
            self.agent.options(&self.url).header("webhook-request-origin", origin).call().map_err(|e| e.to_string())?;
        let says = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().trim();
        if !response.status().is_success() {
            return Err(format!("it answers OPTIONS with {}", response.status()));
        }
        allowed(origin, says("webhook-allowed-origin"), says("webhook-allowed-rate"))
    }
}

/// By which a receiver knows an event again. With its `origin` it may be longer than an event that comes in.
fn key_of(body: &[u8]) -> Result<u64, String> {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        source: Cow<'a, str>,
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let event: Named<'_> = serde_json::from_slice(body).map_err(|e| format!("it is no event: {e}"))?;
    Ok(event_key(&event.source, &event.id))
}

/// What a receiver's answer to a handshake means; its rate is in requests a minute.
fn allowed(origin: &str, allowed_origin: &str, rate: &str) -> Result<Duration, String> {
    if allowed_origin.is_empty() {
        return Err("its answer to OPTIONS has no WebHook-Allowed-Origin".into());
    }
    if allowed_origin != "*" && !allowed_origin.eq_ignore_ascii_case(origin) {
        return Err(format!("it wants events from `{allowed_origin}`, and this is `{origin}`"));
    }
    match (rate, rate.parse::<u32>()) {
        ("" | "*", _) => Ok(Duration::ZERO),
        (_, Ok(n)) if n > 0 => Ok(Duration::from_secs(60) / n),
        _ => Err(format!("its WebHook-Allowed-Rate `{rate}` is no number of requests a minute")),
    }
}

/// Of this machine, as the kernel knows it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".into() } else { name.trim().to_owned() }
}

enum Answer {
    Taken,
    Refused(Said),
    /// It will never take anything again.
    Gone(Said),
    /// Why, and when the receiver wants it again.
    Later(Said, Option<Duration>),
}

/// Prefixes of types and of sources; none: all.
fn fits(types: &[String], sources: &[String], header: &Header<'_>, payload: &[u8]) -> bool {
    let kind = header.name;
    // Of what goes down only this node's own calls: no step says that nobody has answered.
    let is_call = kind == CALL && header.origin.is_none();
    if header.kind != Kind::Event || header.direction == Direction::Down && !is_call {
        return false;
    }
    let is_meant = match case::outside(kind, header.lane == Lane::Urgent, payload) {
        Outside::Anybody if is_call => types.iter().any(|t| t == kind),
        Outside::Anybody => types.is_empty() || types.iter().any(|t| kind.starts_with(t.as_str())),
        Outside::ByName => types.iter().any(|t| t == kind),
        Outside::Nobody => false,
    };
    is_meant && is_from(sources, payload)
}

fn is_from(sources: &[String], payload: &[u8]) -> bool {
    sources.is_empty()
        || event::Envelope::parse(payload).is_ok_and(|e| sources.iter().any(|s| e.source.starts_with(s.as_str())))
}

fn signature(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// The key in a secret's file: base64 after `whsec_`, else the bytes of its first line.
///
/// # Errors
/// In words, when there is none.
pub fn secret(text: &str) -> Result<Vec<u8>, String> {
    let line = text.lines().next().unwrap_or_default().trim();
    let key = match line.strip_prefix("whsec_") {
        Some(coded) => BASE64_STANDARD.decode(coded).map_err(|e| format!("what follows `whsec_` is no base64: {e}"))?,
        None => line.as_bytes().to_vec(),
    };
    if key.len() < 16 {
        return Err("a secret has 16 bytes or more; `openssl rand -hex 32` makes one".into());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_just_fits_can_be_sent_again_with_its_origin() {
        let event = |padding: usize| {
            let data = "x".repeat(padding);
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"{data}"}}"#)
        };
        let largest = event(citybrain_shared::limits::EVENT_BYTES_MAX - event(0).len());
        let body = event::with_origin(largest.as_bytes(), "chengdu/liucheng");
        assert!(body.len() > citybrain_shared::limits::EVENT_BYTES_MAX);
        assert_eq!(key_of(&body), Ok(event_key("/s", "1")));
        assert!(key_of(b"{}").unwrap_err().contains("no event"));
    }

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // The example of the Standard Webhooks specification's own libraries.
        let key = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b"{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(secret("short").is_err() && secret("whsec_%%").is_err() && secret("").is_err());
    }

    #[test]
    fn a_receiver_says_whom_it_wants_to_hear_and_how_often() {
        let node = "brain.example";
        assert_eq!(allowed(node, "*", ""), Ok(Duration::ZERO));
        assert_eq!(allowed(node, "Brain.example", "120"), Ok(Duration::from_millis(500)));
        assert_eq!(allowed(node, "brain.example", "*"), Ok(Duration::ZERO));
        for (origin, rate) in [("", "*"), ("other.example", "*"), ("*", "0"), ("*", "fast"), ("*", "-1")] {
            assert!(allowed(node, origin, rate).is_err(), "{origin} {rate}");
        }
    }

    #[test]
    fn a_receiver_is_left_alone_for_as_long_as_it_says_and_for_no_less_than_without_a_word() {
        let s = Duration::from_secs;
        assert_eq!(later(s(4), None), s(4));
        assert_eq!(later(s(4), Some(s(0))), s(4));
        assert_eq!(later(s(4), Some(s(9))), s(9));
    }

    #[test]
    fn filters_are_prefixes_and_names_of_people_need_their_exact_type() {
        let all = |types: &[&str], sources: &[&str], kind: &str, source: &str| {
            let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
            let json = format!("{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"{source}\",\"type\":\"{kind}\"}}");
            fits(&own(types), &own(sources), &Header::local(Kind::Event, kind), json.as_bytes())
        };
        assert!(all(&[], &[], "city.smoke", "/a"));
        assert!(all(&["city."], &["/a"], "city.smoke", "/a/b"));
        assert!(!all(&["town."], &[], "city.smoke", "/a") && !all(&[], &["/b"], "city.smoke", "/a"));
        assert!(
            !all(&[], &[], "city.sos.pressed.v1", "/a")
                && all(&["city.sos.pressed.v1"], &[], "city.sos.pressed.v1", "/a")
        );
        assert!(!all(&["city."], &[], "city.appeal", "/a"));
        assert!(!all(&["city.brain.case.contact"], &[], "city.brain.case.contact", "/a"));
        // Its own calls are for who names them, and no other directive is for anybody.
        let down = |types: &[&str], kind: &str| {
            let header = Header { direction: Direction::Down, ..Header::local(Kind::Event, kind) };
            fits(&types.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>(), &[], &header, b"{}")
        };
        assert!(down(&[CALL], CALL) && down(&["x", CALL], CALL));
        assert!(!down(&[], CALL) && !down(&["city.brain.case."], CALL) && !down(&["city.siren"], "city.siren"));
        let note = Header::local(Kind::Note, "");
        assert!(!fits(&[], &[], &note, b"{}"));
    }
}
