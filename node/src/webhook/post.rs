//! One attempt: what is sent to a receiver, and what its answer means.

use super::Said;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use citybrain_shared::config::Webhook;
use citybrain_shared::record::event_key;
use citybrain_shared::words;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use ureq::tls::TlsConfig;

/// A receiver has this long to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// What `Retry-After` may ask for at most.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Sends to one receiver. Blocks, at most [`ANSWER_WITHIN`].
pub(super) struct Post {
    url: String,
    secret: Option<Vec<u8>>,
    agent: ureq::Agent,
}

impl Post {
    /// `secret` is the key itself.
    pub(super) fn new(config: &Webhook, secret: Option<Vec<u8>>, tls: TlsConfig) -> Post {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(ANSWER_WITHIN));
        Post { url: config.url.clone(), secret, agent: agent.build().into() }
    }

    /// `body` is an event, with its origin.
    pub(super) fn send(&self, body: &[u8]) -> Answer {
        let id = &match key_of(body) {
            Ok(key) => format!("{key:016x}"),
            Err(why) => return Answer::Refused(Said::nothing(why)),
        };
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
            Err(error) => return Answer::Later(Said::nothing(unanswered(&error)), None),
        };
        let after =
            response.headers().get("retry-after").and_then(|v| retry_after(v.to_str().ok()?, SystemTime::now()));
        let status = response.status();
        // Reading it to its end keeps the connection for the next event.
        let text = response.body_mut().with_config().limit(64 * 1024).read_to_string().unwrap_or_default();
        let text = words::beginning(&text, 200).to_owned();
        let said = Said { text, ..Said::nothing(status.to_string()) };
        match status.as_u16() {
            200..=299 => Answer::Taken,
            410 => Answer::Gone(said),
            300..=407 | 409..=428 | 430..=499 => Answer::Refused(said),
            _ => Answer::Later(said, after),
        }
    }

    /// Sends what it refused once more, as it was.
    ///
    /// # Errors
    /// A sentence: what is there is no event, or the receiver does not take it.
    pub(super) fn again(&self, body: &[u8]) -> Result<(), String> {
        match self.send(body) {
            Answer::Taken => Ok(()),
            Answer::Refused(said) | Answer::Gone(said) | Answer::Later(said, _) => Err(said.whole()),
        }
    }

    /// Asks whether events from `origin` are wanted: the time between two of them.
    pub(super) fn may_send(&self, origin: &str) -> Result<Duration, String> {
        let response = self
            .agent
            .options(&self.url)
            .header("webhook-request-origin", origin)
            .call()
            .map_err(|e| unanswered(&e))?;
        let says = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().trim();
        if !response.status().is_success() {
            return Err(format!("it answers OPTIONS with {}", response.status()));
        }
        allowed(origin, says("webhook-allowed-origin"), says("webhook-allowed-rate"))
    }
}

/// How long a receiver wants to be left alone: seconds, or until a time (RFC 9110, section 10.2.3).
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // One that is over asks for nothing more.
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Why there is no answer.
fn unanswered(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no answer within {} s", ANSWER_WITHIN.as_secs()),
        error => error.to_string(),
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
pub(super) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".into() } else { name.trim().to_owned() }
}

pub(super) enum Answer {
    Taken,
    Refused(Said),
    /// It will never take anything again.
    Gone(Said),
    /// Why, and when the receiver wants it again.
    Later(Said, Option<Duration>),
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
    use citybrain_shared::event;

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
    fn a_receiver_that_hangs_is_said_to_give_no_answer() {
        assert_eq!(unanswered(&ureq::Error::Timeout(ureq::Timeout::Global)), "no answer within 15 s");
        assert_eq!(unanswered(&ureq::Error::HostNotFound), ureq::Error::HostNotFound.to_string());
    }

    #[test]
    fn a_receiver_is_left_alone_for_seconds_or_until_a_time() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_717);
        let after = |text: &str| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(after(" 120 "), Some(120));
        // The three forms of RFC 9110 of one time.
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(after(date), Some(60), "{date}");
        }
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "it is over");
        assert_eq!((after("Mon, 07 Nov 1994 08:49:37 GMT"), after("86400")), (Some(3_600), Some(3_600)));
        assert_eq!((after("soon"), after("")), (None, None));
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
}
