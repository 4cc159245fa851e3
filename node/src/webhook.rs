//! Webhooks: events POSTed to other platforms as CloudEvents, structured JSON, with their `origin`.
//!
//! **Promise.** Each event that fits is delivered at least once, in the order of the log, one at a
//! time: the next one leaves when the receiver has answered. `webhook-id` is the same for every
//! attempt, so a receiver can tell a repetition. What is refused for good (4xx but 408 and 429, 3xx)
//! becomes a dead letter, and the next one follows; 410 ends it all, as the receiver is gone for good: the
//! rest is not sent until the node starts again; all else is tried again, for ever. An operator may
//! send a dead letter again (`dlq retry`): by itself, out of its order.
//!
//! **Format.** A webhook's cursor is a session in the state, `$webhook/NAME`, so it survives a kill,
//! is held against trimming and shown like any other. A new one begins with the next event. Headers
//! are those of the Standard Webhooks specification: with a secret, `webhook-signature` is `v1,` and
//! base64 of HMAC-SHA-256 over `ID.TIMESTAMP.BODY`. With `handshake` nothing leaves before the receiver
//! has said that it wants events from here, as CloudEvents' web-hook specification has it: OPTIONS with
//! `WebHook-Request-Origin`, answered by `WebHook-Allowed-Origin`; its `WebHook-Allowed-Rate` (requests a
//! minute) is kept to. It is asked once a start, and asked again until it agrees.
//!
//! **Operation.** A thread each: the client blocks, and a receiver that hangs holds up nobody else.
//! The cursor is noted after each burst, so a kill repeats at most [`BURST`] events.

use crate::brain::{self, cases::letter::CALL};
use crate::https::{Trust, without_path};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use citybrain_hub::Hub;
use citybrain_hub::engine::{self, Haste};
use citybrain_hub::log;
use citybrain_hub::note::{DeadLetter, Note};
use citybrain_hub::state::WEBHOOK;
use citybrain_shared::case::{self, Outside};
use citybrain_shared::config::{Config, Webhook};
use citybrain_shared::record::{Direction, Header, Kind, event_key};
use citybrain_shared::words::with_causes;
use citybrain_shared::{Lane, Pos, event, words};
use hmac::{Hmac, Mac};
use miette::{IntoDiagnostic, Report, miette};
use sha2::Sha256;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::watch;
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
}

struct Sender {
    hub: Hub,
    handle: Handle,
    stop: watch::Receiver<bool>,
    config: Webhook,
    post: Post,
    client: String,
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
            client.strip_prefix(WEBHOOK).is_none_or(|name| config.webhook.iter().any(|w| w.name == name))
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
            },
            gap: Duration::ZERO,
            is_gone: false,
            client: format!("{WEBHOOK}{}", config.name),
            own_origin: address.to_owned(),
        }
    }

    /// Blocks until the node stops. Not on a thread of the runtime.
    fn run(mut self) {
        let _ = self.work();
    }

    fn work(&mut self) -> Result<(), Ended> {
        let reader = self.hub.reader();
        let mut committed = self.hub.committed();
        let mut upto = self.open()?;
        let mut noted = upto;
        if self.config.handshake {
            self.shake_hands()?;
        }
        loop {
            self.post.counters.upto.store(upto.0, Ordering::Relaxed);
            let entries = match reader.read(upto, None, BURST, BURST_BYTES) {
                Ok(entries) => entries,
                // Lost, and recorded as lost by the log; what follows is still to be delivered.
                Err(log::Error::Damaged { upto: lost, .. }) => {
                    upto = lost.max(upto.next());
                    continue;
                }
                Err(log::Error::Trimmed { first }) => {
                    upto = Pos(first.0 - 1).max(upto);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(webhook = self.config.name, error = %with_causes(&error), "The log does not read; trying again.");
                    self.pause(PAUSE_FIRST)?;
                    continue;
                }
            };
            if entries.is_empty() {
                self.wait(&mut committed, reader.last() > upto)?;
                continue;
            }
            let mut told = false;
            for entry in entries {
                if let Ok((header, payload)) = Header::decode(&entry.bytes)
                    && fits(&self.config.types, &self.config.sources, &header, payload)
                {
                    if let Err(ended) = self.deliver(entry.pos, &header, payload) {
                        // Of an orderly end nothing comes twice.
                        if told && !self.is_gone {
                            let note = Note::settled(&self.client, upto, Vec::new());
                            let _ = self.note(vec![note], Haste::Lazy);
                        }
                        return Err(ended);
                    }
                    told = true;
                }
                upto = entry.pos;
            }
            if told || upto.0 - noted.0 > SKIPPED_MAX {
                let note = Note::settled(&self.client, upto, Vec::new());
                self.note(vec![note], Haste::Lazy)?;
                noted = upto;
            }
        }
    }

    /// Where it goes on; the session is made if there is none.
    fn open(&mut self) -> Result<Pos, Ended> {
        let upto = |me: &Sender| me.hub.state(|s| s.sessions.get(&me.client).map(|s| s.upto));
        if let Some(upto) = upto(self) {
            return Ok(upto);
        }
        self.note(Note::open_own(&self.client, 5, &["events/#"], 1), Haste::Now)?;
        upto(self).ok_or(Ended)
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

    fn wait(&mut self, committed: &mut watch::Receiver<Pos>, is_more: bool) -> Result<(), Ended> {
        if is_more {
            return Ok(());
        }
        let stop = &mut self.stop;
        self.handle.block_on(async {
            tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => Err(Ended),
                changed = committed.changed() => changed.map_err(|_| Ended),
            }
        })
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
                    self.pause(pause)?;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Until the receiver has it, or has refused it, or nobody may have it any more: whom it is about may be
    /// forgotten while the receiver is away.
    fn deliver(&mut self, pos: Pos, header: &Header<'_>, payload: &[u8]) -> Result<(), Ended> {
        let origin = header.origin.map_or(self.own_origin.as_str(), |o| o.address);
        let body = event::with_origin(payload, origin);
        let mut pause = PAUSE_FIRST;
        loop {
            if *self.stop.borrow() {
                return Err(Ended);
            }
            if brain::is_forgotten(&self.hub, header, payload) {
                return Ok(());
            }
            let (why, after) = match self.post.send(header.key, &body) {
                Answer::Taken => {
                    self.post.counters.delivered.fetch_add(1, Ordering::Relaxed);
                    if !self.gap.is_zero() {
                        // If the node ends meanwhile, whoever asks next is told.
                        let _ = self.pause(self.gap);
                    }
                    return Ok(());
                }
                Answer::Refused(why) => {
                    self.post.counters.refused.fetch_add(1, Ordering::Relaxed);
                    let detail = format!("{} refused it: {why}", without_path(&self.config.url));
                    let via = format!("{VIA}{}", self.config.name);
                    let letter =
                        DeadLetter { of: Some(pos), ..DeadLetter::new("webhook-refused", detail, via, "", &body) };
                    return self.note(vec![Note::DeadLetter(letter)], Haste::Lazy);
                }
                Answer::Gone(why) => {
                    self.post.counters.refused.fetch_add(1, Ordering::Relaxed);
                    let url = without_path(&self.config.url);
                    tracing::warn!(
                        webhook = self.config.name,
                        reason = why,
                        "A receiver is gone for good; nothing more is sent to it."
                    );
                    let detail =
                        format!("{url} is gone ({why}): nothing more is sent to it until the node starts again");
                    let via = format!("{VIA}{}", self.config.name);
                    let letter =
                        DeadLetter { of: Some(pos), ..DeadLetter::new("webhook-gone", detail, via, "", &body) };
                    // Its cursor would hold the log for nobody.
                    let ended = Note::SessionEnded { client: self.client.clone(), why: "its receiver is gone".into() };
                    self.note(vec![Note::DeadLetter(letter), ended], Haste::Now)?;
                    self.is_gone = true;
                    return Err(Ended);
                }
                Answer::Later(why, after) => (why, after),
            };
            if self.post.counters.retries.fetch_add(1, Ordering::Relaxed) == 0 || pause == PAUSE_MAX {
                tracing::warn!(
                    webhook = self.config.name,
                    reason = why,
                    "A receiver does not take events; trying again."
                );
            }
            self.pause(later(pause, after))?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
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
            Err(error) => return Answer::Later(error.to_string(), None),
        };
        let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok());
        let status = response.status();
        // Reading it to its end keeps the connection for the next event.
        let text = response.body_mut().with_config().limit(64 * 1024).read_to_string().unwrap_or_default();
        let said = format!("{status} {}", words::beginning(&text, 200)).trim().to_owned();
        match status.as_u16() {
            200..=299 => Answer::Taken,
            410 => Answer::Gone(said),
            300..=407 | 409..=428 | 430..=499 => Answer::Refused(said),
            _ => Answer::Later(said, after.map(|s| Duration::from_secs(s.min(RETRY_AFTER_MAX_S)))),
        }
    }
}

impl Post {
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
            Answer::Refused(why) | Answer::Gone(why) | Answer::Later(why, _) => Err(why),
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
    Refused(String),
    /// It will never take anything again.
    Gone(String),
    /// Why, and when the receiver wants it again.
    Later(String, Option<Duration>),
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
