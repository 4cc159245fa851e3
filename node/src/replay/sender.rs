//! The ways into a node: MQTT and HTTP, behind one pair of channels.

use crate::https::{self, Trust};
use crate::mqtt_publisher::{self, Message, Target};
use crate::tokens::token_in;
use citybrain_hub::tls::Pair;
use citybrain_shared::words;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What a sender says back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Acknowledged(u64),
    /// The node will not have this one, now or later.
    Refused {
        number: u64,
        reason: String,
    },
    Lost(String),
    Connected,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Mqtt(#[from] mqtt_publisher::Error),
    #[error("{url} does not take events for {seconds} s: {reason}")]
    Http { url: String, seconds: u64, reason: String },
    /// Asking again changes nothing.
    #[error("{url} cannot be trusted: {reason}")]
    Untrusted { url: String, reason: String },
    /// It is not about one event: none of them would be taken.
    #[error("{url} takes no events from here: {answer}")]
    Refuses { url: String, status: u16, answer: String },
}

impl Error {
    /// What is to be done, where the flags `token`, `ca` and `cert` name files.
    pub fn hint(&self, token: &str, ca: &str, cert: &str) -> String {
        let rest = "the same command then goes on";
        match self {
            Error::Refuses { status: 401 | 403, .. } => {
                format!("`{token} FILE` names a token that may send events; {rest}")
            }
            Error::Refuses { status: 300..=399, .. } => format!("name the address that it points to; {rest}"),
            Error::Refuses { .. } => format!("name a place that takes CloudEvents by POST; {rest}"),
            // Of a broker the reason has rustls' words.
            e if matches!(e, Error::Untrusted { .. }) || e.to_string().contains("certificate") => {
                format!(
                    "`{ca} FILE` names who signs the node's certificate, which must name that address; `{cert} FILE` shows ours, where it asks for one"
                )
            }
            _ => format!("start it, or name another; {rest}"),
        }
    }
}

pub struct Sender {
    pub messages: mpsc::Sender<Message>,
    pub told: mpsc::Receiver<Told>,
    pub task: JoinHandle<Result<(), Error>>,
}

/// Messages between the reader and the connection, besides those under way.
const QUEUE: usize = 256;
/// Messages under way by MQTT. A node acknowledges in groups, one fsync each: hundreds fill one.
const WINDOW: usize = 512;

/// Where events go.
#[derive(Clone, PartialEq, Eq)]
pub enum Sink {
    Mqtt(Target),
    /// A place that takes structured CloudEvents by POST.
    Http(String),
}

/// What opens it, and whose certificate it shows, in files.
pub struct Keys<'a> {
    /// Sent as a bearer token, by HTTP.
    pub token_file: Option<&'a Path>,
    pub ca_file: Option<&'a Path>,
    /// Shown where there is TLS.
    pub pair: Option<Pair>,
}

/// A file that the keys name cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("{0}")]
    Token(String),
    #[error("{0}")]
    Certificate(String),
}

/// To be called within a runtime.
///
/// # Errors
/// See [`Unfit`].
pub fn open(sink: Sink, keys: &Keys<'_>, give_up_after: Duration) -> Result<Sender, Unfit> {
    let trust = Trust::of(keys.ca_file);
    let pair = keys.pair.as_ref();
    match sink {
        Sink::Http(url) => {
            let token = keys.token_file.map(token_in).transpose().map_err(Unfit::Token)?;
            let tls = trust.config_showing(&url, pair).map_err(Unfit::Certificate)?;
            Ok(http(url, token, tls, give_up_after))
        }
        Sink::Mqtt(target) => {
            let tls = target.is_tls.then(|| trust.client(pair)).transpose().map_err(Unfit::Certificate)?;
            let client_id = format!("citybrain-replay-{}", uuid::Uuid::now_v7().simple());
            let give_up_after = Some(give_up_after);
            Ok(mqtt(mqtt_publisher::Options { target, tls, client_id, window: WINDOW, give_up_after }))
        }
    }
}

fn mqtt(options: mqtt_publisher::Options) -> Sender {
    let (messages, queue) = mpsc::channel(QUEUE);
    let (events, mut happened) = mpsc::channel(QUEUE);
    let (tell, told) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(event) = happened.recv().await {
            let word = match event {
                mqtt_publisher::Event::Connected => Told::Connected,
                mqtt_publisher::Event::Lost { reason } => Told::Lost(reason),
                mqtt_publisher::Event::Acknowledged { number } => Told::Acknowledged(number),
                mqtt_publisher::Event::Refused { number, reason } => Told::Refused { number, reason },
            };
            if tell.send(word).await.is_err() {
                return;
            }
        }
    });
    let task = tokio::spawn(async move { Ok(mqtt_publisher::run(options, queue, events).await.map(|_| ())?) });
    Sender { messages, told, task }
}

/// One event after the other, in order.
fn http(url: String, token: Option<String>, tls: ureq::tls::TlsConfig, give_up_after: Duration) -> Sender {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let (messages, mut queue) = mpsc::channel::<Message>(QUEUE);
    let (tell, told) = mpsc::channel(QUEUE);
    let task = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls)
            // Followed, a POST becomes a GET, whose answer acknowledges nothing.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        while let Some(message) = queue.blocking_recv() {
            let number = message.number;
            let request = || {
                let request = agent.post(&url).header("content-type", "application/cloudevents+json");
                authorization.iter().fold(request, |r, value| r.header("authorization", value))
            };
            let word = match post(request, &url, &message.payload, give_up_after, &tell)? {
                Ok(()) => Told::Acknowledged(number),
                Err(reason) => Told::Refused { number, reason },
            };
            if tell.blocking_send(word).is_err() {
                return Ok(());
            }
        }
        Ok(())
    });
    Sender { messages, told, task }
}

/// Tries until the node answers for good: yes, or no with its reason.
fn post(
    request: impl Fn() -> ureq::RequestBuilder<ureq::typestate::WithBody>,
    url: &str,
    payload: &[u8],
    give_up_after: Duration,
    tell: &mpsc::Sender<Told>,
) -> Result<Result<(), String>, Error> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        let reason = match request().send(payload) {
            Ok(mut answer) => {
                let status = answer.status();
                // Reading it to its end keeps the connection for the next event.
                let text = answer.body_mut().with_config().limit(64 * 1024).read_to_string().unwrap_or_default();
                let line = format!("{status}: {}", words::beginning(&text, 300));
                match status.as_u16() {
                    200..=299 => return Ok(Ok(())),
                    408 | 429 | 500..=599 => line,
                    status @ (300..=399 | 401 | 403 | 404 | 405 | 415) => {
                        return Err(Error::Refuses { url: url.to_owned(), status, answer: line });
                    }
                    _ => return Ok(Err(line)),
                }
            }
            Err(e) if https::is_untrusted(&e) => {
                return Err(Error::Untrusted { url: url.to_owned(), reason: e.to_string() });
            }
            Err(e) => e.to_string(),
        };
        if began.elapsed() > give_up_after {
            return Err(Error::Http { url: url.to_owned(), seconds: began.elapsed().as_secs(), reason });
        }
        let _ = tell.blocking_send(Told::Lost(reason));
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
