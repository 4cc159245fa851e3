//! The log, read: events as lines, one event by its id, and short records for those who keep account.

use super::filter::{Filter, Probe, Wanted, probe};
use super::guard::{Caller, Leave};
use super::input::{Path, query};
use super::listen::Streamed;
use super::{Ctx, Refusal};
use crate::brain;
use crate::turns::Turns;
use axum::body::Body;
use axum::extract::State as From;
use axum::http::{StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use citybrain_hub::log::{self, Entry, Reader};
use citybrain_shared::record::{Direction, Header, event_key};
use citybrain_shared::view;
use citybrain_shared::{Address, Pos};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// Read and sent at a time: enough to make the way through a thread cheap, little enough that many
/// readers do not cost much memory.
const CHUNK_RECORDS: usize = 2048;
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that wait for a slow client.
const CHUNKS_WAITING: usize = 1;
/// How far back the newest events are looked for, records: about a second of reading.
const BACK_RECORDS_MAX: u64 = 1_000_000;
/// Most events that `last` gives; more are asked for by position.
const LAST_MAX: usize = 10_000;
/// How far back an id without its source is looked for, records.
const ID_BACK_RECORDS_MAX: u64 = 200_000;

/// A stream that waits looks again whether its client may still read.
const LEAVE_AGAIN: Duration = Duration::from_secs(1);

/// Stands where data would that may name a person.
pub(crate) const WITHHELD: &str =
    "it may name a person: it is shown to a token of the role worker, supervisor or operator, by one node at a time";

/// Stands where data would about somebody who is to be forgotten.
pub(crate) const FORGOTTEN: &str = "it was about a person who is forgotten: it is shown to nobody";

/// Stands where data would that only passes through this node on its way to another.
pub(crate) const PASSING: &str = "it goes from one node to another, about a case that is none of this one's: it is shown to a token of the role operator";

/// Says which records are about persons who are forgotten here, whose data nobody reads any more, and which only
/// pass through.
#[derive(Clone, Default)]
pub(super) struct Forgotten(Option<citybrain_hub::Hub>);

impl Forgotten {
    pub(super) fn of(hub: &citybrain_hub::Hub) -> Forgotten {
        Forgotten(Some(hub.clone()))
    }

    /// A word in place of the data that this caller may not read; `None`: he may.
    pub(super) fn withheld(&self, caller: &Caller, header: &Header<'_>, payload: &[u8]) -> Option<&'static str> {
        if !caller.may_read(header, payload) {
            return Some(WITHHELD);
        }
        let hub = self.0.as_ref()?;
        match *caller != Caller::Operator && brain::is_passing(hub, header, payload) {
            true => Some(PASSING),
            false => brain::is_forgotten(hub, header, payload).then_some(FORGOTTEN),
        }
    }
}

/// `GET /v1/events`: lines of [`view::Event`], oldest first.
pub async fn list(From(ctx): From<Arc<Ctx>>, caller: Caller, leave: Leave, uri: Uri) -> Result<Response, Refusal> {
    let wanted: Wanted = query(&uri)?;
    let filter = wanted.filter(&ctx, caller)?;
    let reader = ctx.hub.reader();
    // Before the first read, so that a commit between a read and the wait is not slept through.
    let committed = ctx.hub.committed();
    let mut pump =
        Pump { reader, filter: Arc::new(filter), after: Pos::ZERO, left: wanted.limit.map(NonZeroUsize::get), leave };
    // Whoever only follows hears of what comes from now on.
    let only_follows = wanted.follow && wanted.after.is_none() && wanted.time_after.is_none();
    let last = wanted.last.or(only_follows.then_some(0));
    let from = match last {
        None => {
            pump.after = start(&pump.reader, wanted.after)?;
            pump.after
        }
        Some(n) => {
            let n = n.min(LAST_MAX).min(wanted.limit.map_or(usize::MAX, NonZeroUsize::get));
            let (reader, filter) = (pump.reader.clone(), pump.filter.clone());
            let newest = ctx.turns.read(move || newest(&reader, &filter, n)).await?;
            pump.filter.check()?;
            pump.after = newest.begin;
            if !wanted.follow {
                pump.left = Some(newest.count);
            }
            newest.after
        }
    };
    stream(&ctx, pump, from, wanted.follow.then_some(committed)).await
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Span {
    after: Option<u64>,
    limit: Option<NonZeroUsize>,
}

/// `GET /v1/records`: lines of [`view::Record`] for every event record, in the order of the log.
pub async fn records(From(ctx): From<Arc<Ctx>>, leave: Leave, uri: Uri) -> Result<Response, Refusal> {
    let span: Span = query(&uri)?;
    let reader = ctx.hub.reader();
    let after = start(&reader, span.after)?;
    let filter = Filter { own: ctx.address().to_owned(), short: true, presence: true, ..Filter::default() };
    let pump = Pump { reader, filter: Arc::new(filter), after, left: span.limit.map(NonZeroUsize::get), leave };
    stream(&ctx, pump, after, None).await
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Which {
    source: Option<String>,
}

/// `GET /v1/events/{id}`: with its source through the index, without it by looking back.
pub async fn show(
    From(ctx): From<Arc<Ctx>>,
    caller: Caller,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let which: Which = query(&uri)?;
    let reader = ctx.hub.reader();
    let own = ctx.address().to_owned();
    let wanted = id.clone();
    let by_source = which.source.is_some();
    let forgotten = Forgotten::of(&ctx.hub);
    let found =
        ctx.turns.read(move || find(&reader, &wanted, which.source.as_deref(), &own, &caller, &forgotten)).await?;
    match found {
        Some(record) => Ok(ctx.answer(view::Shown { record })),
        None if by_source => Err(Refusal::not_found(
            format!("{own} holds no event `{id}` of that source", own = ctx.address()),
            "`citybrain events` shows what it holds",
        )),
        None => Err(Refusal::not_found(
            format!("no event `{id}` among the newest {ID_BACK_RECORDS_MAX} records of {}", ctx.address()),
            "`?source=SOURCE` finds older ones too",
        )),
    }
}

pub(super) fn find(
    reader: &Reader,
    id: &str,
    source: Option<&str>,
    own: &str,
    caller: &Caller,
    forgotten: &Forgotten,
) -> Result<Option<view::Event>, log::Error> {
    if let Some(source) = source {
        let Some(pos) = reader.find(event_key(source, id))? else { return Ok(None) };
        let entry = reader.get(pos)?;
        return Ok(entry
            .and_then(|e| event_of(&e, own, caller, forgotten))
            .filter(|e| identity(e.event.get()).is_some_and(|i| i == (id.into(), source.into()))));
    }
    let first = reader.first().0.max(reader.last().0.saturating_sub(ID_BACK_RECORDS_MAX) + 1);
    let mut upto = reader.last().0;
    while upto >= first && upto > 0 {
        let from = upto.saturating_sub(CHUNK_RECORDS as u64).max(first - 1);
        let mut found = None;
        reader.each(Pos(from), Pos(upto), |entry| {
            let Ok((header, payload)) = Header::decode(&entry.bytes) else { return };
            let named = header.kind.is_event() && probe(payload).is_some_and(|p| p.id == id);
            if named {
                found = Some(entry.clone());
            }
        })?;
        if let Some(entry) = found {
            return Ok(event_of(&entry, own, caller, forgotten));
        }
        upto = from;
    }
    Ok(None)
}

/// Where a reader that asks for what comes after `after` begins. To begin elsewhere in silence would look
/// like a complete answer.
fn start(reader: &Reader, after: Option<u64>) -> Result<Pos, Refusal> {
    let gone = |word: &str, detail: String, hint: String| Err(Refusal::new(StatusCode::GONE, word, detail, hint));
    let (oldest, last) = (reader.first().0.saturating_sub(1), reader.last().0);
    match after {
        None | Some(0) => Ok(Pos(oldest)),
        Some(n) if n < oldest => {
            let detail = format!("what came after position {n} is trimmed away up to {oldest}");
            gone("trimmed", detail, format!("`?after={oldest}` gives all that is kept"))
        }
        Some(n) if n > last => {
            let detail =
                format!("the log ends at {last}: position {n} is of another log, or of this one before a restore");
            gone("beyond", detail, format!("`?after={oldest}` gives all that there is, `?after={last}` what comes"))
        }
        Some(n) => Ok(Pos(n)),
    }
}

// ---- streaming ---------------------------------------------------------------------------------

struct Pump {
    reader: Reader,
    filter: Arc<Filter>,
    after: Pos,
    /// Lines that may still be sent.
    left: Option<usize>,
    leave: Leave,
}

/// Why a stream breaks off.
type Broken = Box<dyn std::error::Error + Send + Sync>;

struct Chunk {
    lines: Vec<u8>,
    count: usize,
    after: Pos,
    is_end: bool,
}

/// # Errors
/// There are too many streams.
async fn stream(ctx: &Ctx, pump: Pump, from: Pos, follow: Option<watch::Receiver<Pos>>) -> Result<Response, Refusal> {
    let place = ctx.turns.stream().await?;
    let (tx, rx) = mpsc::channel::<Result<Bytes, Broken>>(CHUNKS_WAITING);
    let (turns, stop) = (ctx.turns.clone(), ctx.stop.clone());
    tokio::spawn(async move {
        pump.run(tx, &turns, follow, stop).await;
        drop(place);
    });
    let head = Response::builder()
        .extension(Streamed)
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .header(view::HEADER_NODE, ctx.address())
        .header(view::HEADER_AS_OF, view::rfc3339(ctx.as_of()))
        .header(view::HEADER_HISTORY, ctx.hub.state(|s| s.me.epoch().log.to_string()))
        .header(view::HEADER_AFTER, from.0);
    Ok(head.body(Body::from_stream(ReceiverStream::new(rx))).expect("its headers are plain ASCII"))
}

impl Pump {
    /// Sends chunk after chunk; ends at the log's end unless it follows, when the client is gone, or
    /// when the log does not read, or one event alone is too much for the condition, or whoever reads may no
    /// more: the body then breaks off, so that nobody takes it for complete.
    async fn run(
        mut self,
        tx: mpsc::Sender<Result<Bytes, Broken>>,
        turns: &Turns,
        mut follow: Option<watch::Receiver<Pos>>,
        mut stop: watch::Receiver<bool>,
    ) {
        // Asked each time: where nothing fits, nothing is sent that could fail.
        while self.left != Some(0) && !tx.is_closed() {
            if !self.leave.holds() {
                let _ = tx.send(Err("the token was removed, or is of another role".into())).await;
                return;
            }
            if let Some(committed) = &mut follow {
                committed.borrow_and_update();
            }
            let (reader, filter, after) = (self.reader.clone(), self.filter.clone(), self.after);
            let want = self.left.unwrap_or(usize::MAX);
            let chunk = match turns.go_on(move || chunk(&reader, &filter, after, want)).await {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(error)) => {
                    tracing::warn!(after = after.0, %error, "A stream of events breaks off.");
                    let _ = tx.send(Err(error)).await;
                    return;
                }
                Err(_) => return,
            };
            self.after = chunk.after;
            self.left = self.left.map(|left| left - chunk.count);
            if !chunk.lines.is_empty() && tx.send(Ok(chunk.lines.into())).await.is_err() {
                return;
            }
            if chunk.is_end {
                let Some(committed) = &mut follow else { return };
                tokio::select! {
                    changed = committed.changed() => if changed.is_err() { return },
                    _ = stop.wait_for(|stopping| *stopping) => return,
                    () = tx.closed() => return,
                    () = tokio::time::sleep(LEAVE_AGAIN) => {}
                }
            }
        }
    }
}

fn chunk(reader: &Reader, filter: &Filter, after: Pos, want: usize) -> Result<Chunk, Broken> {
    let entries = match reader.read(after, filter.lane, CHUNK_RECORDS, CHUNK_BYTES) {
        // Said in its place, and then on: what lies behind it is as good as ever.
        Err(log::Error::Damaged { after, upto, .. }) => {
            let line = serde_json::json!({ "damaged": view::Damaged { after, upto } });
            return Ok(Chunk { lines: format!("{line}\n").into_bytes(), count: 0, after: upto, is_end: false });
        }
        read => read?,
    };
    let mut chunk = Chunk { lines: Vec::new(), count: 0, after, is_end: entries.is_empty() };
    filter.begin();
    for entry in &entries {
        // The rest is another part's: until then somebody may have gone.
        if filter.is_spent() {
            break;
        }
        let fits = filter.line(entry, &mut chunk.lines);
        if filter.is_cut() {
            // The next part begins with it, and has all of its time for it.
            if chunk.after != after {
                break;
            }
            return Err(format!("the condition takes too long for the event at {}", entry.pos.0).into());
        }
        chunk.after = entry.pos;
        if fits {
            chunk.count += 1;
            if chunk.count == want {
                break;
            }
        }
    }
    Ok(chunk)
}

struct Newest {
    count: usize,
    /// They come after this position.
    begin: Pos,
    /// Looked at: what comes after this.
    after: Pos,
}

/// Where the newest `n` that fit begin. Looks back in windows that grow.
fn newest(reader: &Reader, filter: &Filter, n: usize) -> Result<Newest, log::Error> {
    let last = reader.last();
    let floor = (reader.first().0.saturating_sub(1)).max(last.0.saturating_sub(BACK_RECORDS_MAX));
    let mut found = Newest { count: 0, begin: last, after: last };
    let mut window = (n as u64).clamp(256, CHUNK_RECORDS as u64);
    while found.count < n && found.after.0 > floor && !filter.is_spent() {
        let from = Pos(found.after.0.saturating_sub(window).max(floor));
        let mut fits = Vec::new();
        reader.each(from, found.after, |entry| {
            if !filter.is_spent() && filter.fits(entry) {
                fits.push(entry.pos);
            }
        })?;
        let kept = &fits[fits.len().saturating_sub(n - found.count)..];
        found.count += kept.len();
        if let Some(oldest) = kept.first() {
            found.begin = Pos(oldest.0 - 1);
        }
        found.after = from;
        window = (window * 2).min(64 * 1024);
    }
    Ok(found)
}

// ---- lines -------------------------------------------------------------------------------------

impl Filter {
    fn fits(&self, entry: &Entry) -> bool {
        Header::decode(&entry.bytes).is_ok_and(|(header, payload)| self.wants(&header, payload))
    }

    /// Appends the record's line, if it is wanted.
    fn line(&self, entry: &Entry, out: &mut Vec<u8>) -> bool {
        let Ok((header, payload)) = Header::decode(&entry.bytes) else { return false };
        if !self.wants_header(&header) {
            return false;
        }
        let start = out.len();
        let written = if self.short {
            let probe = probe(payload).unwrap_or_default();
            serde_json::to_writer(&mut *out, &record_of(entry.pos, &header, probe, &self.own))
        } else {
            if !self.wants_payload(&header, payload) {
                return false;
            }
            let withheld = self.forgotten.withheld(&self.caller, &header, payload);
            serde_json::to_writer(&mut *out, &event_from(entry.pos, &header, payload, &self.own, withheld))
        };
        match written {
            Ok(()) => out.push(b'\n'),
            Err(_) => out.truncate(start),
        }
        out.len() > start
    }
}

/// Id and source of an event.
pub(super) fn identity(json: &str) -> Option<(String, String)> {
    probe(json.as_bytes()).map(|p| (p.id.into_owned(), p.source.into_owned()))
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Local => "local",
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

fn record_of<'a>(pos: Pos, header: &Header<'a>, probe: Probe<'a>, own: &'a str) -> view::Record<'a> {
    let (origin, origin_pos) = header.origin.map_or((own, pos), |o| (o.address, o.pos));
    view::Record {
        pos,
        kind: header.kind.as_str().into(),
        id: probe.id,
        source: probe.source,
        event_type: header.name.into(),
        origin: origin.into(),
        origin_pos,
        lane: header.lane.as_str().into(),
        direction: direction(header.direction).into(),
        received_us: header.received_us,
        committed_us: header.committed_us,
    }
}

fn event_of(entry: &Entry, own: &str, caller: &Caller, forgotten: &Forgotten) -> Option<view::Event> {
    let (header, payload) = Header::decode(&entry.bytes).ok()?;
    let withheld = || forgotten.withheld(caller, &header, payload);
    header.kind.is_event().then(|| event_from(entry.pos, &header, payload, own, withheld()))
}

/// `withheld`: the word that stands in place of its data.
fn event_from(pos: Pos, header: &Header<'_>, payload: &[u8], own: &str, withheld: Option<&str>) -> view::Event {
    let (origin, origin_pos) = header.origin.map_or((own, pos), |o| (o.address, o.pos));
    // What stays has no reach on disk: it goes no higher than here.
    let here = || Address::parse(own).map_or(header.reach, |a| a.tier());
    view::Event {
        pos,
        kind: header.kind.as_str().to_owned(),
        priority: header.lane.as_str().to_owned(),
        direction: direction(header.direction).to_owned(),
        origin: origin.to_owned(),
        origin_pos,
        received_at: view::time_of(header.received_us),
        committed_at: view::time_of(header.committed_us),
        reach: if header.direction == Direction::Local { here() } else { header.reach },
        target: header.target.to_owned(),
        topic: header.topic.to_owned(),
        ttl_ms: (header.ttl_ms != 0).then_some(header.ttl_ms),
        event: withheld.map_or_else(|| raw(payload), |why| without_data(payload, why)),
    }
}

/// The event's bytes on one line. A line break in JSON can only stand between its parts (inside a
/// string it is escaped), so a space in its place changes nothing.
fn raw(payload: &[u8]) -> Box<RawValue> {
    let text: String =
        String::from_utf8_lossy(payload).chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }).collect();
    RawValue::from_string(text.trim().to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The event with a word in place of its data.
pub(super) fn without_data(payload: &[u8], why: &str) -> Box<RawValue> {
    let Ok(mut event) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(payload) else {
        return RawValue::NULL.to_owned();
    };
    // `subject` and extensions stay: they say which device or case, not who.
    event.remove("data_base64");
    event.insert("data".into(), serde_json::json!({ "withheld": why }));
    serde_json::value::to_raw_value(&event).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::record::{Draft, Kind, Origin};
    use citybrain_shared::{LogId, Tier};

    fn entry(pos: u64, header: &Header<'_>, payload: &str) -> Entry {
        let draft = Draft::new(header, payload.as_bytes()).unwrap();
        Entry { pos: Pos(pos), chain: 0, bytes: Bytes::copy_from_slice(draft.bytes()) }
    }

    fn line(filter: &Filter, entry: &Entry) -> Option<String> {
        let mut out = Vec::new();
        filter.line(entry, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn whoever_is_shown_no_persons_is_told_which_roles_are() {
        let name = || "n".to_owned();
        let callers = [
            ("reader", Caller::Reader),
            ("app", Caller::App(name())),
            ("worker", Caller::Worker(name())),
            ("supervisor", Caller::Supervisor(name())),
            ("operator", Caller::Operator),
        ];
        for (role, caller) in callers {
            assert_eq!(WITHHELD.contains(role), caller.sees_persons(), "{role}");
        }
    }

    #[test]
    fn a_short_line_says_where_a_record_began() {
        let own = Filter { own: "c".into(), short: true, ..Filter::default() };
        let payload = "{\"id\":\"a\\\"1\",\"source\":\"/x\",\"data\":{\"id\":\"not me\"}}";
        let mut header = Header { received_us: 1, committed_us: 2, ..Header::local(Kind::Event, "t") };
        assert_eq!(
            line(&own, &entry(7, &header, payload)).unwrap(),
            "{\"pos\":7,\"kind\":\"event\",\"id\":\"a\\\"1\",\"source\":\"/x\",\"type\":\"t\",\"origin\":\"c\",\"origin_pos\":7,\"lane\":\"routine\",\"direction\":\"local\",\"received_us\":1,\"committed_us\":2}\n"
        );
        header.origin = Some(Origin { address: "c/s", log: LogId(1), pos: Pos(3) });
        header.direction = Direction::Up;
        let text = line(&own, &entry(8, &header, payload)).unwrap();
        let read: view::Record<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!((read.origin.as_ref(), read.origin_pos, read.direction.as_ref()), ("c/s", Pos(3), "up"));
    }

    #[test]
    fn a_pretty_printed_event_is_still_one_line_with_the_same_numbers() {
        let filter = Filter { own: "c".into(), ..Filter::default() };
        let payload = "{\n  \"id\": \"1\",\r\n  \"source\": \"/x\", \"data\": 1.10\n}\n";
        let text = line(&filter, &entry(1, &Header::local(Kind::Event, "t"), payload)).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        let read: view::Event = serde_json::from_str(&text).unwrap();
        assert!(read.event.get().contains("1.10"));
        assert_eq!((read.origin.as_str(), read.reach), ("c", Tier::City));
    }

    #[test]
    fn a_filter_takes_types_and_sources_whole_or_by_their_beginning() {
        let of = |event_type: Option<&str>, source: Option<&str>| Filter {
            event_type: event_type.map(Into::into),
            source: source.map(Into::into),
            ..Filter::default()
        };
        let air = entry(1, &Header::local(Kind::Event, "city.air.v1"), "{\"id\":\"1\",\"source\":\"/c/x\"}");
        for (t, s, want) in [
            (None, None, true),
            (Some("city.*"), None, true),
            (Some("city"), None, false),
            (Some("city.air.v1"), Some("/c/*"), true),
            (None, Some("/c"), false),
        ] {
            assert_eq!(line(&of(t, s), &air).is_some(), want, "{t:?} {s:?}");
        }
        let note = entry(2, &Header::local(Kind::Note, ""), "{}");
        let presence = entry(3, &Header::local(Kind::Presence, "city.brain.node"), "{\"id\":\"1\",\"source\":\"/c\"}");
        assert!(line(&of(None, None), &note).is_none());
        assert!(line(&of(None, None), &presence).is_none());
        assert!(line(&Filter { presence: true, ..Filter::default() }, &presence).is_some());
    }
}
