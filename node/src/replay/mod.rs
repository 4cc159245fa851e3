//! `citybrain replay`: plays a file of rows into a running node.
//!
//! | module | what it owns |
//! |---|---|
//! | [`rows`] | CSV and NDJSON, row by row, bad ones as values |
//! | [`mapping`] | how a row becomes an event, and where in a tree it belongs |
//! | [`case`] | what a row says of a case, for `citybrain case import` |
//! | [`local_time`] | the file's times, made absolute |
//! | [`slug`] | address segments from names |
//! | [`mod@sender`] | MQTT or HTTP |
//! | [`checkpoint`] | how far it has come |
//! | [`account`] | what it added up to, for people and as JSON |
//!
//! **Promise.** Each row is acknowledged by the node, or counted with its line and reason. A replay
//! that was stopped, or killed, goes on behind the last row up to which all were settled; rows that
//! go twice because of that carry the same id, and the node knows them.

mod account;
pub mod case;
pub mod checkpoint;
pub mod local_time;
pub mod mapping;
pub mod rows;
pub mod sender;
pub mod slug;

use crate::mqtt_publisher::{Message, Target};
use account::{Progress, Report};
pub use account::{SKIPPED_LISTED, Skipped};
use bytes::Bytes;
use checkpoint::{Checkpoint, Settled};
use chrono::{DateTime, FixedOffset};
use citybrain_hub::tls::Pair;
use citybrain_shared::event::Envelope;
use citybrain_shared::words::{grouped, with_causes};
use mapping::Mapping;
use miette::{IntoDiagnostic, WrapErr, miette};
use rows::{Format, Row, Rows};
use sender::{Keys, Sender, Sink, Told};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

/// Play a CSV or NDJSON file into a running node, as events.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArgs {
    /// CSV, or NDJSON (by its ending .ndjson or .jsonl; without a mapping its lines are CloudEvents).
    pub file: PathBuf,
    #[arg(help = "The node's MQTT address: mqtt:// or mqtts://[USER[:PASSWORD]@]HOST[:PORT]")]
    #[arg(long, value_name = "URL", conflicts_with = "http", default_value = "mqtt://127.0.0.1:1883")]
    pub mqtt: String,
    /// MQTT topic to publish on.
    #[arg(long, default_value = "in/replay")]
    pub topic: String,
    /// Send by HTTP instead: the node's API, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    pub http: Option<String>,
    /// A file with a token that the node knows, for --http.
    #[arg(long, value_name = "FILE", env = "CITYBRAIN_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// For mqtts:// and https://: PEM file of the certificates that sign the node's; default: whom this machine trusts.
    #[arg(long = "ca", value_name = "FILE", env = "CITYBRAIN_CA")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the certificate that is shown to the node.
    #[arg(long = "cert", value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of the key that belongs to --cert.
    #[arg(long = "cert-key", value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    /// How rows become events; without it a known header chooses a built-in mapping.
    #[arg(long, value_name = "TOML")]
    pub mapping: Option<PathBuf>,
    /// Offset of the file's local times, such as -08:00; in place of the mapping's own.
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
    pub utc_offset: Option<String>,
    /// Events per second; without it and --clock as fast as the node takes them.
    #[arg(long, value_name = "N", value_parser = above_zero, conflicts_with = "clock")]
    pub rate: Option<f64>,
    /// Keep the file's own times, this many times faster.
    #[arg(long, value_name = "FACTOR", value_parser = above_zero)]
    pub clock: Option<f64>,
    /// Stop after this many rows of this run.
    #[arg(long, value_name = "ROWS")]
    pub limit: Option<u64>,
    /// Where to remember how far it came; default FILE.replay-state
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Begin at the first row again, whatever the state file says.
    #[arg(long)]
    pub restart: bool,
    /// Exit with 1 when a row could not be played.
    #[arg(long)]
    pub strict: bool,
    /// Give up after this long without a connection or an answer, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub give_up_after: u64,
    /// One JSON object at the end.
    #[arg(long)]
    pub json: bool,
}

/// What `--rate` and `--clock` take.
pub fn above_zero(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|n: &f64| n.is_finite() && *n > 0.0)
        .ok_or_else(|| "it must be a number, more than 0".into())
}

/// An event's own time and its JSON.
pub type Ready = (DateTime<FixedOffset>, Vec<u8>);

/// A row on its way: its event, or why there is none (a label for counting, and the reason).
struct Played {
    row: u64,
    line: u64,
    what: Result<Ready, (&'static str, String)>,
}

/// Plays the file. Exit codes: 0 all rows up to the end or the limit are settled; 1 with `--strict`
/// when a row was skipped; 130 interrupted.
///
/// # Errors
/// When the file, the mapping, the state file or the node do not do their part.
pub async fn replay(args: ReplayArgs) -> miette::Result<u8> {
    let began = Instant::now();
    citybrain_shared::topic::check_topic(&args.topic)
        .map_err(|e| usage(miette!("`{}` is not a topic to publish to: {e}", args.topic)))?;
    let (rows, mapping) = open(&args.file, args.mapping.as_deref(), args.utc_offset.as_deref()).map_err(usage)?;
    let mapping_name = mapping.as_ref().map_or_else(|| "CloudEvents, as they are".to_owned(), |m| m.title.clone());
    let (target, Sender { messages, mut told, mut task }) = sender(&args).map_err(usage)?;

    eprintln!("{}: {mapping_name}", args.file.display());
    let (mut checkpoint, state) = begin(&args, &target)?;
    let after = checkpoint.row;

    let (played_tx, mut played) = mpsc::channel(256);
    let limit = args.limit.unwrap_or(u64::MAX);
    let reader = tokio::task::spawn_blocking(move || read(rows, mapping.as_ref(), after, limit, &played_tx));

    let report = Report::new(args.file.display().to_string(), mapping_name, target, after);
    let mut course = Course { report, settled: Settled::after(after), lines: BTreeMap::new(), trouble: None };
    let mut pace = Pace::new(args.rate, args.clock);
    let topic: Arc<str> = args.topic.as_str().into();
    let mut next: Option<(Instant, Message)> = None;
    let mut messages = Some(messages);
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = Progress::new();
    let mut interrupted = false;
    // One listener for the whole run: a signal between two turns of the loop must not be lost.
    let mut stop = std::pin::pin!(told_to_stop());
    loop {
        let due = next.as_ref().map_or_else(Instant::now, |(due, _)| *due);
        let is_due = due <= Instant::now();
        let slot = messages.clone();
        tokio::select! {
            row = played.recv(), if next.is_none() && messages.is_some() => match row {
                // Without a sender left the connection ends once all is acknowledged.
                None => messages = None,
                Some(played) => next = course.on_row(played).map(|(row, (time, json))| {
                    let message = Message { number: row, topic: topic.clone(), payload: Bytes::from(json) };
                    (pace.due(time), message)
                }),
            },
            () = tokio::time::sleep_until(due), if next.is_some() && !is_due => {}
            permit = async move { slot.expect("guarded below").reserve_owned().await },
                if next.is_some() && is_due && messages.is_some() => match (permit, next.take()) {
                (Ok(permit), Some((_, message))) => { permit.send(message); }
                // The connection gave up; its task says why.
                _ => messages = None,
            },
            word = told.recv() => match word {
                None => break,
                Some(word) => course.on_told(word),
            },
            _ = tick.tick() => {
                save(&mut checkpoint, &course.settled, &state)?;
                progress.show(&course.report, course.lines.len(), course.trouble.as_deref());
            }
            () = &mut stop => {
                interrupted = true;
                break;
            }
        }
    }
    progress.end();
    save(&mut checkpoint, &course.settled, &state)?;
    drop(played);
    let mut report = course.report;
    report.upto_row = course.settled.upto();
    report.wall_s = (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    if interrupted {
        task.abort();
        report.print(args.json);
        eprintln!("interrupted; the same command goes on behind row {}", grouped(report.upto_row));
        return Ok(130);
    }
    let sent = (&mut task).await.into_diagnostic()?;
    if let Err(e) = sent {
        report.print(args.json);
        let help = e.hint("--token-file", "--ca", "--cert");
        return Err(miette!(code = UNREACHABLE, help = help, "{}", with_causes(&e)));
    }
    report.finished =
        reader.await.into_diagnostic()?.into_diagnostic().wrap_err("the file could not be read to its end")?;
    report.print(args.json);
    Ok(u8::from(args.strict && !report.skipped.is_empty()))
}

/// What of the file is under way, and what has become of the rest.
struct Course {
    report: Report,
    settled: Settled,
    /// Lines of the rows that the node has not answered.
    lines: BTreeMap<u64, u64>,
    /// Why there is no connection.
    trouble: Option<String>,
}

impl Course {
    /// The row's number and its event, if it is one.
    fn on_row(&mut self, Played { row, line, what }: Played) -> Option<(u64, Ready)> {
        self.report.rows += 1;
        self.settled.begin(row);
        match what {
            Ok(ready) => {
                self.lines.insert(row, line);
                Some((row, ready))
            }
            Err((label, reason)) => {
                self.report.skip(label, Skipped { row, line, reason });
                // Where the file grows, the next run finds the rest of it.
                if label != rows::UNFINISHED {
                    self.settled.settle(row);
                }
                None
            }
        }
    }

    fn on_told(&mut self, word: Told) {
        match word {
            Told::Connected => self.trouble = None,
            Told::Lost(reason) => self.trouble = Some(reason),
            Told::Acknowledged(row) => {
                self.trouble = None;
                self.lines.remove(&row);
                self.report.acknowledged += 1;
                self.settled.settle(row);
            }
            Told::Refused { number, reason } => {
                let line = self.lines.remove(&number).unwrap_or_default();
                self.report.skip("refused by the node", Skipped { row: number, line, reason });
                self.settled.settle(number);
            }
        }
    }
}

/// Where it goes on, and the file that says so.
fn begin(args: &ReplayArgs, target: &str) -> miette::Result<(Checkpoint, PathBuf)> {
    let state = args.state.clone().unwrap_or_else(|| {
        let mut name = args.file.clone().into_os_string();
        name.push(".replay-state");
        name.into()
    });
    let saved = if args.restart { None } else { Checkpoint::load(&state, &args.file, target).map_err(other_replay)? };
    match &saved {
        Some(saved) => {
            eprintln!("goes on behind row {} (as {} says) to {target}", grouped(saved.row), state.display());
        }
        None => eprintln!("from its first row to {target}"),
    }
    let checkpoint = match saved {
        Some(saved) => saved,
        None => Checkpoint::begin(&args.file, target).into_diagnostic()?,
    };
    // Written at once, so that a folder which takes no state file is known before the first event.
    checkpoint
        .save(&state)
        .map_err(|e| miette!(code = USAGE, help = "name another place with --state FILE", "{}", with_causes(&e)))?;
    Ok((checkpoint, state))
}

/// The code of a report that means: it cannot be done as it was typed.
pub const USAGE: &str = "usage";
/// The same of one that means: nobody answered in time.
pub const UNREACHABLE: &str = "unreachable";

/// Whatever it is, it is for whoever typed the command to put right.
pub fn usage(report: miette::Report) -> miette::Report {
    let help = report.help().map_or_else(|| "`--help` shows the flags".to_owned(), |h| h.to_string());
    miette!(code = USAGE, help = help, "{}", with_causes(report.as_ref()))
}

/// Opens the file and finds its mapping; `None` for a file of CloudEvents.
///
/// # Errors
/// When there is no file or no mapping that fits it.
pub fn open(file: &Path, mapping: Option<&Path>, utc_offset: Option<&str>) -> miette::Result<(Rows, Option<Mapping>)> {
    let ending = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let is_ndjson = matches!(ending.as_str(), "ndjson" | "jsonl");
    let given = mapping.map(|path| Mapping::load(path, utc_offset)).transpose().into_diagnostic()?;
    let format = match &given {
        Some(mapping) => mapping.format,
        None if is_ndjson => Format::Ndjson,
        None => Format::Csv,
    };
    let delimiter = given.as_ref().map_or(b',', |m| m.delimiter);
    let rows = Rows::open(file, format, delimiter).into_diagnostic()?;
    let mapping = match (given, format) {
        (None, Format::Ndjson) => None,
        (None, Format::Csv) => Some(Mapping::detect(rows.header(), utc_offset).map_err(|e| {
            miette!(help = "write a mapping for it (config/replay/ has examples) and name it with --mapping", "{e}")
        })?),
        (Some(mapping), Format::Csv) => {
            mapping.check_columns(rows.header()).into_diagnostic()?;
            Some(mapping)
        }
        (Some(mapping), Format::Ndjson) => Some(mapping),
    };
    Ok((rows, mapping))
}

fn sender(args: &ReplayArgs) -> miette::Result<(String, Sender)> {
    let pair = Pair::of(&args.cert_file, &args.key_file);
    let (shown, sink) = match &args.http {
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
            let url = url.trim_end_matches('/');
            (url.to_owned(), Sink::Http(format!("{url}/v1/events")))
        }
        Some(url) => return Err(miette!("`{url}` is not an HTTP address: write http://HOST:PORT")),
        None => {
            let target = Target::parse(&args.mqtt).into_diagnostic()?;
            if pair.is_some() && !target.is_tls {
                return Err(miette!("--cert is for a node at mqtts:// or https://"));
            }
            (format!("{target} on {}", args.topic), Sink::Mqtt(target))
        }
    };
    let keys = Keys { token_file: args.token_file.as_deref(), ca_file: args.ca_file.as_deref(), pair };
    let sender = sender::open(sink, &keys, Duration::from_secs(args.give_up_after)).map_err(|e| miette!("{e}"))?;
    Ok((shown, sender))
}

/// Reads, maps and hands on the rows after `after`. True when it came to the file's end.
fn read(
    mut rows: Rows,
    mapping: Option<&Mapping>,
    after: u64,
    limit: u64,
    to: &mpsc::Sender<Played>,
) -> Result<bool, rows::Error> {
    let mut n = 0;
    while n < limit {
        let Some(row) = rows.next_row()? else { return Ok(true) };
        let played = match row {
            Err(bad) => Played { row: bad.number, line: bad.line, what: Err((bad.label, bad.reason)) },
            Ok(row) => {
                // The rest of it may be what it lacks.
                let unfinished = |(label, reason)| (if row.is_open { rows::UNFINISHED } else { label }, reason);
                Played { row: row.number, line: row.line, what: event_of(mapping, &row).map_err(unfinished) }
            }
        };
        if played.row <= after {
            continue;
        }
        n += 1;
        if to.blocking_send(played).is_err() {
            return Ok(false);
        }
    }
    Ok(rows.next_row()?.is_none())
}

/// An event of a row: its time and its JSON; or a few words that stay the same, and the reason.
///
/// # Errors
/// Why the row is no event.
pub fn event_of(mapping: Option<&Mapping>, row: &Row) -> Result<Ready, (&'static str, String)> {
    let (time, json) = match mapping {
        Some(mapping) => {
            let mapped = mapping.apply(row).map_err(|refused| (refused.label(), refused.to_string()))?;
            (mapped.time, mapped.json)
        }
        None => {
            let text = row.fields.get("time").and_then(serde_json::Value::as_str).unwrap_or_default();
            (DateTime::parse_from_rfc3339(text).unwrap_or_default(), row.text.clone())
        }
    };
    // As the node does: what it would refuse is known here with its line.
    match Envelope::parse(&json) {
        // Without an id of its own an event that goes twice would be taken for two.
        Ok(event) if event.id.is_none() => Err(("no CloudEvent", "it has no `id`".into())),
        Ok(_) => Ok((time, json)),
        Err(wrong) => Err(("no CloudEvent", wrong.to_string())),
    }
}

fn save(checkpoint: &mut Checkpoint, settled: &Settled, path: &Path) -> miette::Result<()> {
    if settled.upto() != checkpoint.row {
        checkpoint.row = settled.upto();
        checkpoint.save(path).into_diagnostic()?;
    }
    Ok(())
}

fn other_replay(e: checkpoint::Error) -> miette::Report {
    miette!(help = "--restart begins at the first row again; --state FILE keeps both", "{}", with_causes(&e))
}

/// Completes with Ctrl-C or SIGTERM.
pub async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let on = |kind| signal(kind).expect("a signal that a process may listen to");
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt()), on(SignalKind::terminate()));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Nothing waits longer for its turn, whatever the rate or the file's clock say: a hundred years, which
/// every machine's clock can count.
const APART_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// When each event is due.
pub struct Pace {
    interval: Option<Duration>,
    clock: Option<f64>,
    began: Option<(Instant, DateTime<FixedOffset>)>,
    last: Option<Instant>,
}

impl Pace {
    /// Events a second, or so many times faster than their own times.
    pub fn new(rate: Option<f64>, clock: Option<f64>) -> Pace {
        let interval = |r: f64| Duration::try_from_secs_f64(1.0 / r).map_or(APART_MAX, |d| d.min(APART_MAX));
        Pace { interval: rate.map(interval), clock, began: None, last: None }
    }

    /// When the next one, of this time, is to go.
    pub fn due(&mut self, time: DateTime<FixedOffset>) -> Instant {
        let now = Instant::now();
        let due = if let Some(interval) = self.interval {
            // Behind by more than a second (the node was away): go on at the rate, do not catch up in a burst.
            let floor = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
            self.last.map_or(now, |last| (last + interval).max(floor))
        } else if let Some(factor) = self.clock {
            let (began, first) = *self.began.get_or_insert((now, time));
            // A row older than the first (files are not always sorted) is due at once, in its turn.
            let seconds = (time - first).to_std().unwrap_or_default().as_secs_f64() / factor;
            began + Duration::try_from_secs_f64(seconds).map_or(APART_MAX, |d| d.min(APART_MAX))
        } else {
            now
        };
        let due = self.last.map_or(due, |last| due.max(last));
        self.last = Some(due);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_or_a_clock_slower_than_any_calendar_is_only_slow() {
        let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0).unwrap().fixed_offset();
        for (rate, clock) in [(Some(f64::MIN_POSITIVE), None), (None, Some(f64::MIN_POSITIVE))] {
            let mut pace = Pace::new(rate, clock);
            assert!(pace.due(at(0)) <= Instant::now());
            assert!(pace.due(at(1)) > Instant::now() + Duration::from_secs(3_600), "{rate:?} {clock:?}");
        }
    }

    #[tokio::test]
    async fn the_files_clock_is_kept_and_never_runs_backwards() {
        let at = |s: &str| DateTime::parse_from_rfc3339(&format!("2018-01-01T00:00:{s}Z")).unwrap();
        let mut pace = Pace::new(None, Some(10.0));
        let first = pace.due(at("10"));
        assert_eq!(pace.due(at("30")) - first, Duration::from_secs(2));
        assert_eq!(pace.due(at("20")) - first, Duration::from_secs(2), "an older row waits for its turn");
        assert_eq!(pace.due(at("40")) - first, Duration::from_secs(3));
    }

    #[test]
    fn a_last_row_that_the_mapping_refuses_is_not_finished_where_its_line_has_no_end() {
        let mapping = "title = \"t\"\n[event]\nid = \"{id}\"\nsource = \"/s\"\ntype = \"t\"\n\
                       time = { text = \"{at}\", format = \"%Y-%m-%d %H:%M\" }\n";
        let mapping = Mapping::parse("m", mapping, None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let played = |text: &str| {
            let path = dir.path().join("f.csv");
            std::fs::write(&path, text).unwrap();
            let (to, mut from) = mpsc::channel(8);
            read(Rows::open(&path, Format::Csv, b',').unwrap(), Some(&mapping), 0, 9, &to).unwrap();
            drop(to);
            std::iter::from_fn(|| from.blocking_recv())
                .map(|p| p.what.map_or_else(|(l, _)| l, |_| "played"))
                .collect::<Vec<_>>()
        };
        assert_eq!(played("id,at\n1,2026-01-02 03:04\n2,2026-0"), ["played", rows::UNFINISHED]);
        assert_ne!(played("id,at\n1,2026-01-02 03:04\n2,2026-0\n")[1], rows::UNFINISHED);
        assert_eq!(played("id,at\n1,2026-01-02 03:04\n2,2026-01-03 04:05"), ["played", "played"]);
    }

    #[test]
    fn a_row_that_the_node_would_refuse_is_skipped_with_what_is_wrong() {
        let line = |text: &str| {
            let value: serde_json::Map<_, _> = serde_json::from_str(text).unwrap();
            let fields = rows::Fields(value.into_iter().map(|(k, v)| (k.into(), v)).collect());
            Row { number: 1, line: 1, fields, text: text.into(), ..Row::default() }
        };
        let with = |more: &str| line(&format!(r#"{{"specversion":"1.0","source":"/s","type":"t"{more}}}"#));
        let long = with(r#","id":"1","data":123456789012345678901234"#);
        assert_eq!(event_of(None, &long).unwrap().1, long.text, "it goes as it stands");
        for (bad, why) in [
            (with(""), "it has no `id`"),
            (with(r#","id":"1","time":"yesterday""#), "`time`"),
            (line(r#"{"id":"1","source":"/s","type":"t"}"#), "`specversion`"),
        ] {
            let (label, reason) = event_of(None, &bad).unwrap_err();
            assert!(label == "no CloudEvent" && reason.contains(why), "{reason}");
        }
        let mapping = "title = \"t\"\n[event]\nid = \"{N}\"\nsource = \"/s\"\ntype = \"city.{T}\"\n\
                       time = { text = \"{N}\", format = \"unix_s\" }\n";
        let mapping = Mapping::parse("m", mapping, None).unwrap();
        assert!(event_of(Some(&mapping), &line(r#"{"N":"1","T":"Bulky"}"#)).is_ok());
        let (label, reason) =
            event_of(Some(&mapping), &line(r#"{"N":"1","T":"Metal/Household Appliances"}"#)).unwrap_err();
        assert!(label == "no CloudEvent" && reason.contains("`type`"), "{reason}");
    }
}
