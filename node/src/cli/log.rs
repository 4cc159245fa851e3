//! `citybrain log replay`: events of a range of a node's log, sent once more to a broker, to an
//! endpoint of CloudEvents, or to standard output.
//!
//! **Promise.** In the order of the log; each event that fits is acknowledged by the sink, or counted
//! with its reason. With a state file a replay that was stopped or killed goes on behind the last
//! position up to which all were settled; what goes twice because of that has the same `source` and
//! `id`. Whom to call goes to nobody who has not named its type, as with webhooks.

use super::events::Fits;
use super::render::{Ops, replayed};
use super::{At, Fail, Lines, Output, own, position};
use crate::api::{FORGOTTEN, WITHHELD};
use crate::ask::Node;
use crate::mqtt_publisher::{Message, Target};
use crate::replay::checkpoint::{self, Settled};
use crate::replay::sender::{self, Keys, Sender, Sink, Told, Unfit};
use crate::replay::{Pace, above_zero};
use crate::tokens::TOKEN_HINT;
use bytes::Bytes;
use citybrain_hub::tls::Pair;
use citybrain_shared::case::{self, Outside};
use citybrain_shared::view::{self, LogReplayed, RefusedEvent};
use citybrain_shared::words::with_causes;
use citybrain_shared::{Lane, Pos, event, topic};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};

const STATE_SCHEMA: &str = "citybrain.log-replay-state/1";
/// How often the state file is renewed.
const SAVE_EVERY: Duration = Duration::from_millis(500);
/// Refused events that are listed one by one.
const LISTED: usize = 20;
/// While nothing can be done but wait for the sink or for an event's time.
const NAP: Duration = Duration::from_millis(2);

#[derive(Debug, Subcommand)]
pub enum Log {
    /// Send events of a range once more: to a broker, an endpoint of CloudEvents, or standard output
    #[command(after_help = "Examples:
  citybrain log replay --time-after 1h --type 'city.air.*' | jq .data
  citybrain log replay --to https://lake.example/events --sink-ca ca.pem --state lake.state
  citybrain log replay --to mqtt://broker:1883 --topic 'archive/{type}' --after 12000 --upto 15000 --rate 200
  citybrain log replay --to mqtts://broker:8883 --sink-ca ca.pem --sink-cert me.pem --sink-key me-key.pem
  citybrain log replay --offline /var/lib/citybrain/city --to http://127.0.0.1:8080/v1/events
Events in which people say who they are (`city.appeal`, `city.sos`, …) go only if --type names exactly
their type; what nodes tell each other of cases and of whom to call never goes.
With --state the same command goes on where it was stopped. A citybrain node that gets an event
again knows it by its source and id.")]
    Replay(Box<Replay>),
}

#[derive(Debug, Args)]
pub struct Replay {
    #[arg(
        help = "mqtt:// or mqtts://[USER[:PASSWORD]@]HOST[:PORT], an http:// or https:// place for structured CloudEvents, or `-`"
    )]
    #[arg(long, value_name = "SINK", default_value = "-")]
    to: String,
    /// MQTT topic; {type} stands for the event's type
    #[arg(long, default_value = "events/{type}")]
    topic: String,
    /// Begin behind this position [default: the oldest that is kept]
    #[arg(long, value_name = "POS", value_parser = position)]
    after: Option<u64>,
    /// End with this position [default: the newest]
    #[arg(long, value_name = "POS", value_parser = position)]
    upto: Option<u64>,
    /// At most this many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    fits: Fits,
    /// Events per second; without it and --clock as fast as the sink takes them
    #[arg(long, value_name = "N", value_parser = above_zero, conflicts_with = "clock")]
    rate: Option<f64>,
    /// As they were committed, this many times faster
    #[arg(long, value_name = "FACTOR", value_parser = above_zero)]
    clock: Option<f64>,
    /// Remember here how far it came, and go on from there
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Begin anew, whatever the state file says
    #[arg(long, requires = "state")]
    restart: bool,
    /// Give up after this long without the sink, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    give_up_after: u64,
    /// A file with a token that an http:// or https:// sink knows
    #[arg(long, value_name = "FILE")]
    sink_token_file: Option<PathBuf>,
    /// For mqtts:// and https://: PEM file of the certificates that sign the sink's [default: whom this machine trusts]
    #[arg(long, value_name = "FILE")]
    sink_ca: Option<PathBuf>,
    /// PEM file of the certificate that is shown to the sink
    #[arg(long, value_name = "FILE", requires = "sink_key")]
    sink_cert: Option<PathBuf>,
    /// PEM file of the key that belongs to --sink-cert
    #[arg(long, value_name = "FILE", requires = "sink_cert")]
    sink_key: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

/// How far a replay came, and of what.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    schema: String,
    node: String,
    to: String,
    /// What was asked for, as it was typed.
    typed: Vec<(String, String)>,
    /// The same with the times that the first run meant.
    fits: Vec<(String, String)>,
    upto: Pos,
}

impl Log {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Log::Replay(replay) => replay.act(),
        }
    }
}

impl Replay {
    fn act(self) -> Result<Output, Fail> {
        let sink = self.sink()?;
        let node = self.at.node()?;
        let began = Instant::now();
        let mut told = LogReplayed { to: self.shown(sink.as_ref()), ..LogReplayed::default() };
        let named = |query: Vec<(&str, String)>| query.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Vec<_>>();
        let fits = named(self.fits.query());
        let mut lines = node.lines("/v1/events", &behind(&fits, self.after.unwrap_or(0)))?;
        let mut state = State {
            schema: STATE_SCHEMA.into(),
            node: lines.node.clone(),
            to: told.to.clone(),
            typed: named(self.fits.typed()),
            fits,
            upto: Pos(lines.after),
        };
        if let Some(before) = self.before(&state)? {
            state = before;
            lines = node.lines("/v1/events", &behind(&state.fits, state.upto.0))?;
        }
        (told.after_pos, told.upto_pos) = (state.upto, state.upto);
        self.save(&state)?;
        match sink {
            None => self.print(&node, lines, &mut state, &mut told)?,
            Some(sink) => self.send(&node, lines, sink, &mut state, &mut told)?,
        }
        told.wall_ms = began.elapsed().as_millis() as u64;
        if self.to == "-" {
            // Standard output has the events.
            eprint!("{}", replayed(&told));
            return Ok(Output::Code(u8::from(told.withheld + told.damaged > 0)));
        }
        Ok(Output::Ops(Ops::LogReplayed(own(told))))
    }

    /// `None`: standard output.
    fn sink(&self) -> Result<Option<Sink>, Fail> {
        let is_tls = self.to.starts_with("mqtts://") || self.to.starts_with("https://");
        if !is_tls && (self.sink_ca.is_some() || self.sink_cert.is_some()) {
            let hint = "write mqtts:// or https://, or leave --sink-ca and --sink-cert out";
            return Err(Fail::usage("a sink without TLS shows no certificate and is shown none", hint));
        }
        if self.to == "-" {
            return Ok(None);
        }
        if self.to.starts_with("http://") || self.to.starts_with("https://") {
            return Ok(Some(Sink::Http(self.to.clone())));
        }
        let target = Target::parse(&self.to).map_err(|e| {
            let hint =
                "a sink is mqtt://HOST:PORT, mqtts://HOST:PORT, http://HOST:PORT/PATH, https://HOST/PATH, or `-`";
            Fail::usage(e.to_string(), hint)
        })?;
        let probe = self.topic.replace("{type}", "t");
        topic::check_topic(&probe).map_err(|e| {
            Fail::usage(format!("`{}` is no topic to publish to: {e}", self.topic), "such as `in/{type}`")
        })?;
        Ok(Some(Sink::Mqtt(target)))
    }

    /// Without a password.
    fn shown(&self, sink: Option<&Sink>) -> String {
        match sink {
            None => "-".into(),
            Some(Sink::Mqtt(target)) => format!("{target} on {}", self.topic),
            Some(Sink::Http(url)) => url.clone(),
        }
    }

    /// How far an earlier run of the same came.
    fn before(&self, now: &State) -> Result<Option<State>, Fail> {
        let Some(path) = self.state.as_ref().filter(|_| !self.restart) else { return Ok(None) };
        let hint = "give another --state, or begin anew with --restart";
        let unfit = |e: checkpoint::Error| Fail::usage(with_causes(&e), hint);
        let Some(saved) = checkpoint::read::<State>(path).map_err(unfit)? else { return Ok(None) };
        let is_same =
            |s: &State| (&s.schema, &s.node, &s.to, &s.typed) == (&now.schema, &now.node, &now.to, &now.typed);
        if !is_same(&saved) {
            let what = "of another node, sink or question".into();
            return Err(unfit(checkpoint::Error::Other { path: path.clone(), what }));
        }
        Ok(Some(State { upto: saved.upto.max(Pos(self.after.unwrap_or(0))), ..saved }))
    }

    fn save(&self, state: &State) -> Result<(), Fail> {
        let Some(path) = &self.state else { return Ok(()) };
        let unwritten = |e| Fail::usage(with_causes(&e), "name another place with --state");
        checkpoint::write(path, state).map_err(unwritten)
    }

    fn print(&self, node: &Node, lines: Lines, state: &mut State, told: &mut LogReplayed) -> Result<(), Fail> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let mut pace = Pace::new(self.rate, self.clock);
        let mut saved = Instant::now();
        let mut ended = false;
        let fits = state.fits.clone();
        self.each(node, lines, &fits, told, |told, pos, event| {
            let due = pace.due(event.committed_at.fixed_offset());
            let wait = due.saturating_duration_since(tokio::time::Instant::now());
            let mut written = if wait.is_zero() { Ok(()) } else { out.flush() };
            std::thread::sleep(wait);
            written = written.and_then(|()| out.write_all(&bytes_of(event))).and_then(|()| out.write_all(b"\n"));
            if saved.elapsed() > SAVE_EVERY {
                written = written.and_then(|()| out.flush());
                saved = Instant::now();
                if written.is_ok() {
                    state.upto = pos;
                    self.save(state)?;
                }
            }
            match written {
                Ok(()) => told.acknowledged += 1,
                // Whoever read it has seen enough.
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ended = true,
                Err(e) => return Err(Fail::no("output", format!("cannot write: {e}"), "is the disk full?")),
            }
            told.upto_pos = pos;
            Ok(!ended)
        })?;
        if out.flush().is_ok() && !ended {
            state.upto = told.upto_pos;
            self.save(state)?;
        }
        Ok(())
    }

    fn send(
        &self,
        node: &Node,
        lines: Lines,
        sink: Sink,
        state: &mut State,
        told: &mut LogReplayed,
    ) -> Result<(), Fail> {
        let runtime =
            Runtime::new().map_err(|e| Fail::no("start", format!("cannot start the runtime: {e}"), "try again"))?;
        let mut flow = Flow::open(&runtime, self, sink, state.upto)?;
        let mut pace = Pace::new(self.rate, self.clock);
        let mut saved = Instant::now();
        let fits = state.fits.clone();
        let sent = self.each(node, lines, &fits, told, |told, pos, event| {
            let due = pace.due(event.committed_at.fixed_offset());
            while tokio::time::Instant::now() < due {
                flow.hear(told);
                std::thread::sleep(NAP.min(due.saturating_duration_since(tokio::time::Instant::now())));
            }
            let is_taken = flow.give(self, pos, event, told);
            if saved.elapsed() > SAVE_EVERY {
                saved = Instant::now();
                state.upto = Pos(flow.settled.upto().max(state.upto.0));
                self.save(state)?;
            }
            Ok(is_taken)
        });
        // What is under way is still waited for, whatever ended the reading.
        let (upto, ended) = flow.end(&runtime, told);
        told.upto_pos = upto.max(state.upto);
        state.upto = told.upto_pos;
        self.save(state)?;
        sent?;
        ended.map_err(|why| {
            let hint = match &self.state {
                Some(_) => "the same command goes on behind what was acknowledged".to_owned(),
                None => format!("`--after {}` goes on behind what was acknowledged", told.upto_pos),
            };
            Fail::unreachable(why, hint)
        })
    }

    /// Every event that fits and may be seen, in order, until `take` says that it is enough. A stream
    /// that was cut on its way through the links is asked for again behind its end.
    fn each(
        &self,
        node: &Node,
        mut lines: Lines,
        fits: &[(String, String)],
        told: &mut LogReplayed,
        mut take: impl FnMut(&mut LogReplayed, Pos, &view::Event) -> Result<bool, Fail>,
    ) -> Result<(), Fail> {
        loop {
            let (is_cut, mut newest) = (lines.cut, None);
            for line in lines {
                let line = line?;
                if let Ok(Damage { damaged }) = serde_json::from_str(&line) {
                    told.damaged += damaged.upto.0.saturating_sub(damaged.after.0);
                    continue;
                }
                let event: view::Event = serde_json::from_str(&line).map_err(|e| {
                    Fail::no("foreign", format!("an event does not read: {e}"), "is the node of this version?")
                })?;
                newest = Some(event.pos);
                if self.upto.is_some_and(|upto| event.pos.0 > upto) || self.limit == Some(told.events) {
                    return Ok(());
                }
                told.events += 1;
                if !may_leave(self.fits.event_type.as_deref(), &event) {
                    told.private += 1;
                } else if is_withheld(&event, WITHHELD) {
                    told.withheld += 1;
                } else if !take(told, event.pos, &event)? {
                    return Ok(());
                }
            }
            match newest {
                Some(newest) if is_cut => lines = node.lines("/v1/events", &behind(fits, newest.0))?,
                None if is_cut => {
                    let detail = "an event is larger than what comes through the links";
                    return Err(Fail::no("too-large", detail, "replay at the node itself: `--node URL`"));
                }
                _ => return Ok(()),
            }
        }
    }
}

fn behind(fits: &[(String, String)], after: u64) -> Vec<(&str, String)> {
    fits.iter().map(|(k, v)| (k.as_str(), v.clone())).chain([("after", after.to_string())]).collect()
}

/// Events under way to a sink that acknowledges.
struct Flow {
    messages: tokio::sync::mpsc::Sender<Message>,
    told: tokio::sync::mpsc::Receiver<Told>,
    task: tokio::task::JoinHandle<Result<(), sender::Error>>,
    settled: Settled,
}

impl Flow {
    fn open(runtime: &Runtime, of: &Replay, sink: Sink, upto: Pos) -> Result<Flow, Fail> {
        let _within = runtime.enter();
        let pair = Pair::of(&of.sink_cert, &of.sink_key);
        let keys = Keys { token_file: of.sink_token_file.as_deref(), ca_file: of.sink_ca.as_deref(), pair };
        let opened = sender::open(sink, &keys, Duration::from_secs(of.give_up_after)).map_err(|unfit| match unfit {
            Unfit::Token(why) => Fail::usage(why, TOKEN_HINT),
            Unfit::Certificate(why) => Fail::usage(why, "--sink-ca, --sink-cert and --sink-key name PEM files"),
        });
        let Sender { messages, told, task } = opened?;
        Ok(Flow { messages, told, task, settled: Settled::after(upto.0) })
    }

    /// Hands one over; false when the sink has given up.
    fn give(&mut self, of: &Replay, pos: Pos, event: &view::Event, told: &mut LogReplayed) -> bool {
        let kind = event::Envelope::parse(event.event.get().as_bytes()).map(|e| e.kind.into_owned());
        let topic = of.topic.replace("{type}", kind.as_deref().unwrap_or_default());
        self.settled.begin(pos.0);
        let mut message = Message { number: pos.0, topic: topic.into(), payload: Bytes::from(bytes_of(event)) };
        loop {
            match self.messages.try_send(message) {
                Ok(()) => {
                    self.hear(told);
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(back)) => message = back,
            }
            if !self.hear(told) {
                std::thread::sleep(NAP);
            }
        }
    }

    /// Takes what the sink has said; false if that was nothing.
    fn hear(&mut self, told: &mut LogReplayed) -> bool {
        let mut heard = false;
        loop {
            match self.told.try_recv() {
                Ok(word) => self.take(word, told),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return heard,
            }
            heard = true;
        }
    }

    fn take(&mut self, word: Told, told: &mut LogReplayed) {
        match word {
            Told::Connected => {}
            Told::Lost(reason) => tracing::debug!(reason, "The sink is away."),
            Told::Acknowledged(pos) => {
                told.acknowledged += 1;
                self.settled.settle(pos);
            }
            Told::Refused { number, reason } => {
                told.refused += 1;
                if told.first_refused.len() < LISTED {
                    told.first_refused.push(RefusedEvent { pos: Pos(number), reason });
                }
                self.settled.settle(number);
            }
        }
    }

    /// Waits for the last acknowledgements: up to where all is settled, and whether it ended early.
    fn end(mut self, runtime: &Runtime, told: &mut LogReplayed) -> (Pos, Result<(), String>) {
        drop(std::mem::replace(&mut self.messages, tokio::sync::mpsc::channel(1).0));
        while let Some(word) = self.told.blocking_recv() {
            self.take(word, told);
        }
        let ended = match runtime.block_on(self.task) {
            Ok(sender) => {
                sender.map_err(|e| format!("{e} ({})", e.hint("--sink-token-file", "--sink-ca", "--sink-cert")))
            }
            Err(e) => Err(e.to_string()),
        };
        (Pos(self.settled.upto()), ended)
    }
}

#[derive(Deserialize)]
struct Damage {
    damaged: view::Damaged,
}

/// The event as readers of the node get it: with its true origin.
fn bytes_of(event: &view::Event) -> Vec<u8> {
    event::with_origin(event.event.get().as_bytes(), &event.origin)
}

/// Whoever reads the sink need not be one who may see whom to call.
fn may_leave(named: Option<&str>, event: &view::Event) -> bool {
    let payload = event.event.get().as_bytes();
    let Ok(envelope) = event::Envelope::parse(payload) else { return false };
    match case::outside(&envelope.kind, event.priority == Lane::Urgent.as_str(), payload) {
        Outside::Anybody => true,
        Outside::ByName => named == Some(&*envelope.kind) && !is_withheld(event, FORGOTTEN),
        Outside::Nobody => false,
    }
}

/// Does this word of the node stand where the data was?
fn is_withheld(event: &view::Event, word: &str) -> bool {
    #[derive(Deserialize)]
    struct Data {
        withheld: String,
    }
    #[derive(Deserialize)]
    struct Held {
        data: Data,
    }
    serde_json::from_str::<Held>(event.event.get()).is_ok_and(|held| held.data.withheld == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, priority: &str, data: &str) -> view::Event {
        let event = format!(r#"{{"specversion":"1.0","id":"1","source":"/x","type":"{kind}","data":{data}}}"#);
        let text = format!(
            r#"{{"pos":1,"kind":"event","priority":"{priority}","direction":"up","origin":"c","origin_pos":1,
               "received_at":"2026-01-01T00:00:00Z","committed_at":"2026-01-01T00:00:00Z","reach":"city","event":{event}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn whom_to_call_leaves_the_tree_only_if_its_type_is_named_and_letters_never() {
        let air = event("city.air.v1", "routine", "{}");
        assert!(may_leave(None, &air) && may_leave(Some("city.*"), &air));
        let press = event("acme.button", "urgent", r#"{"sos":true}"#);
        for (call, exact) in [
            (event("city.appeal", "routine", "{}"), "city.appeal"),
            (event("city.sos.pressed.v1", "urgent", "{}"), "city.sos.pressed.v1"),
            (press, "acme.button"),
        ] {
            assert!(!may_leave(None, &call) && !may_leave(Some("city.*"), &call), "{exact}");
            assert!(may_leave(Some(exact), &call), "{exact}");
        }
        for letter in ["city.brain.case.contact", "city.brain.case.letter"] {
            assert!(!may_leave(Some(letter), &event(letter, "routine", "{}")), "{letter}");
        }
    }
}
