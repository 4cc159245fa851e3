//! Webhooks: events POSTed to other platforms as CloudEvents, structured JSON, with their `origin`.
//!
//! **Promise.** Each event that fits is delivered at least once, in the order of its lane, one of each at a
//! time: the next one leaves when the receiver has answered. What is urgent waits for nothing routine.
//! `webhook-id` is the same for every attempt, so a receiver can tell a repetition. What is refused for good (4xx but 408 and 429, 3xx)
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
//! **Operation.** A thread for each lane ([`sender`]): the client blocks, and a receiver that hangs holds up neither
//! the other lane nor anybody else. What both have in common is the [`Hook`]'s; how often the receiver may be
//! asked, by both together, the [`pace`]'s.
//! The cursors are noted after each burst, so a kill repeats at most [`BURST`](sender::BURST) events of each lane.

mod hook;
mod pace;
mod post;
mod sender;

pub use hook::{Hook, NoTurn, NotSkipped};
pub use post::secret;

use self::post::Post;
use self::sender::Sender;
use crate::brain::cases::letter::CALL;
use crate::https::Trust;
use citybrain_hub::Hub;
use citybrain_hub::engine::{self, Haste};
use citybrain_hub::note::Note;
use citybrain_hub::state::WEBHOOK;
use citybrain_shared::case::{self, Outside};
use citybrain_shared::config::{Config, Webhook};
use citybrain_shared::record::{Direction, Draft, Header, Kind};
use citybrain_shared::{Lane, Pos, event};
use miette::{IntoDiagnostic, Report, miette};
use std::borrow::Cow;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// What the name of the urgent lane's session ends with.
const URGENT: &str = "/urgent";

/// Where dead letters of webhooks come from, before the webhook's name.
pub const VIA: &str = "webhook:";

/// How an attempt ended.
#[derive(Clone, Debug, Default)]
struct Said {
    /// The answer's status, or that there was none.
    status: String,
    /// The beginning of the answer's body. A receiver may say again what it was sent: this is for a dead letter,
    /// which not everybody sees.
    text: String,
    /// It was not asked: the reason is this node's own.
    unasked: bool,
}

impl Said {
    /// There was no answer, or none is known.
    fn nothing(why: String) -> Said {
        Said { status: why, ..Said::default() }
    }

    /// All of it.
    fn whole(&self) -> String {
        format!("{} {}", self.status, self.text).trim().to_owned()
    }
}

/// An operator's word that this event is to be passed over.
struct Skip {
    pos: Pos,
    /// Who did it, and the record of that; both are in the group of the dead letter.
    who: String,
    act: Draft,
    told: oneshot::Sender<Result<(), NotSkipped>>,
}

/// What may be sent of a record.
pub enum Share<'a> {
    /// The record's event, with all of its data or without.
    Same(Cow<'a, [u8]>),
    /// Another event, of this type, about what it says.
    Instead(&'static str, Vec<u8>),
    Nothing,
}

/// What may be sent of a record to whoever reads it; an error, a sentence: nobody knows now what he may read.
pub type Reads = Arc<dyn for<'a> Fn(&Header<'_>, &'a [u8]) -> Result<Share<'a>, String> + Send + Sync>;

/// The id of the session that is a lane's cursor.
fn client_of(name: &str, lane: Lane) -> String {
    format!("{WEBHOOK}{name}{}", if lane == Lane::Urgent { URGENT } else { "" })
}

/// All webhooks of a node, with the senders of their lanes.
pub struct Webhooks(Vec<(Arc<Hook>, [Sender; 2])>);

fn unusable(why: String) -> Report {
    miette!(code = crate::codes::UNUSABLE, "{why}")
}

impl Webhooks {
    /// Makes them ready, and ends the cursors of those that config no longer has: they would keep
    /// the log from being trimmed. `reads`: what the token of a name may be sent.
    ///
    /// # Errors
    /// [`UNUSABLE`](crate::codes::UNUSABLE): a secret or a certificate that does not read; or the log cannot be
    /// written.
    pub async fn open(
        config: &Config,
        hub: &Hub,
        stop: &watch::Receiver<bool>,
        reads: &dyn Fn(&str) -> Reads,
    ) -> miette::Result<Webhooks> {
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
        let hook = |w: &Webhook| {
            let secret = w.secret_file.as_ref().map(|file| {
                let text = std::fs::read_to_string(file);
                let text = text.map_err(|e| unusable(format!("cannot read the secret `{}`: {e}", file.display())))?;
                secret(&text).map_err(|why| unusable(format!("`{}`: {why}", file.display())))
            });
            let trust = Trust::of(w.ca_file.as_deref());
            let tls = trust.config(&w.url).map_err(|why| unusable(format!("webhook `{}`: {why}", w.name)))?;
            let post = Post::new(w, secret.transpose()?, tls);
            let [urgent, routine] = Lane::ALL.map(|_| mpsc::channel(1));
            let reads = w.token.as_deref().map(reads);
            let hook = Arc::new(Hook::new(hub, w, post, address, reads, [urgent.0, routine.0], stop.clone()));
            let senders = [Sender::new(&hook, Lane::Urgent, urgent.1), Sender::new(&hook, Lane::Routine, routine.1)];
            Ok((hook, senders))
        };
        config.webhook.iter().map(hook).collect::<miette::Result<Vec<_>>>().map(Webhooks)
    }

    /// For whoever looks at them, or asks them for something.
    pub fn hooks(&self) -> Vec<Arc<Hook>> {
        self.0.iter().map(|(hook, _)| hook.clone()).collect()
    }

    /// Starts a thread for each lane; it ends with the node.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn run(self) -> miette::Result<Vec<JoinHandle<()>>> {
        let start = |sender: Sender| {
            let name = format!("hook-{}", sender.name());
            std::thread::Builder::new().name(name).spawn(move || sender.run()).into_diagnostic()
        };
        self.0.into_iter().flat_map(|(_, senders)| senders).map(start).collect()
    }
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
        Outside::Anybody => is_of_type(types, kind),
        Outside::ByName => types.iter().any(|t| t == kind),
        Outside::Nobody => false,
    };
    is_meant && is_from(sources, payload)
}

/// The same for an event that is sent in place of a record: it names nobody.
fn fits_instead(types: &[String], sources: &[String], kind: &str, event: &[u8]) -> bool {
    is_of_type(types, kind) && is_from(sources, event)
}

/// Is it of one of these types, or does it begin with one? None: all are.
pub fn is_of_type(types: &[String], kind: &str) -> bool {
    types.is_empty() || types.iter().any(|t| kind.starts_with(t.as_str()))
}

fn is_from(sources: &[String], payload: &[u8]) -> bool {
    sources.is_empty()
        || event::Envelope::parse(payload).is_ok_and(|e| sources.iter().any(|s| e.source.starts_with(s.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

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
