//! A change asked for twice is made once: `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
//!
//! **Format**: two notes of the log under the key of the asker and his word. [`Note::Made`] stands in
//! the same group as the change, so that both are on disk or neither; [`Note::Answered`] holds what was
//! answered, and comes right after it. An answer that says whom to call is not kept: what is to be
//! forgotten would come back with it.
//!
//! **Operation.** A request whose word has been answered gets that answer again; the same word for
//! another request is 422, and one that is under way is 409. After a kill between the two notes the
//! request is made again: the handler finds what was made, and only shows it. What the node gives a name
//! itself (a directive, an event that came without an id) has its note before it is made, and is made
//! again under that name. Changes that are known by names of their own (events by source and id, positions
//! of dead letters, accounts of cases, words on children) need no note: made again they change nothing.
//!
//! **Bounds.** A word belongs to its token, and is kept for [`KEPT_S`], if the log is kept that long
//! (`store.keep_s`): the log's bounds are the store's. What was refused or failed has changed nothing,
//! and is not kept: the same word may be used again. A call for help whose word is none, or was used for another
//! request, is known by that word and all that it says together.

use super::commit::{self, Late};
use super::input::too_large;
use super::intake::Urgent;
use super::{Ctx, Refusal, cases, guard, intake, now};
use crate::tokens::Holder;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request, State as From};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use citybrain_hub::note::Note;
use citybrain_shared::record::{Draft, Header};
use citybrain_shared::{Lane, view};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// How long a word is known, if the log is kept that long: whoever has not heard by then asks anew.
pub const KEPT_S: i64 = 86_400;
/// Longest word, bytes: a UUID has 36.
const WORD_BYTES_MAX: usize = 200;
/// Longer answers are not kept: made again, they are found by what was made.
const ANSWER_BYTES_MAX: usize = 128 * 1024;

pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Requests under way, by the names of their words.
pub struct Once {
    ctx: Arc<Ctx>,
    running: Mutex<HashMap<String, String>>,
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Once").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Once {
    pub fn new(ctx: Arc<Ctx>) -> Arc<Once> {
        Arc::new(Once { ctx, running: Mutex::default() })
    }

    /// Takes the place of a word, of this door or of another protocol that has one, for as long as the
    /// [`Repeat`] lives. `name` tells it from all others, `request` says what is asked for, `called` what whoever
    /// asks calls such a word.
    ///
    /// # Errors
    /// 409: the same request is under way. 422: it was used for another. Or the log does not read.
    pub fn take(
        self: &Arc<Once>,
        name: String,
        request: String,
        (called, word): (&str, &str),
    ) -> Result<Repeat, Refusal> {
        match self.running.lock().entry(name.clone()) {
            Entry::Vacant(place) => place.insert(request.clone()),
            Entry::Occupied(other) if *other.get() != request => return Err(used_otherwise((called, word))),
            Entry::Occupied(_) => {
                let detail = format!("a request with the {called} `{word}` is under way");
                return Err(Refusal::new(StatusCode::CONFLICT, UNDER_WAY, detail, "ask again in a moment"));
            }
        };
        let place = Place(self.clone(), name.clone());
        let repeat = Repeat(Some(Arc::new(Word { name, request, _place: place })));
        match repeat.noted(&self.ctx)? {
            Some((of, _)) if !repeat.is_of(&of) => Err(used_otherwise((called, word))),
            _ => Ok(repeat),
        }
    }
}

/// What the word of [`HEADER`] is called.
pub const KEY: &str = "idempotency key";
pub const UNDER_WAY: &str = "under-way";
pub const KEY_USED: &str = "key-used";
const BAD_KEY: &str = "bad-key";

pub fn used_otherwise((called, word): (&str, &str)) -> Refusal {
    let detail = format!("the {called} `{word}` was used for another request");
    let hint = "a new request takes a new key; the same request keeps its own";
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, KEY_USED, detail, hint)
}

/// A place among those under way, until it is dropped: when the request is answered, and what it asked
/// the engine for is on disk or never will be.
#[derive(Debug)]
struct Place(Arc<Once>, String);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.lock().remove(&self.1);
    }
}

/// The word of a request, if it has one: what a handler marks its change with.
#[derive(Clone, Debug, Default)]
pub struct Repeat(Option<Arc<Word>>);

#[derive(Debug)]
struct Word {
    /// Whose and which: `mia 7f3a…`.
    name: String,
    /// What was asked for, as a hash.
    request: String,
    _place: Place,
}

/// What an earlier attempt has made.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Its id.
    pub about: String,
    pub is_new: bool,
    /// Where the wish went.
    pub asked: Option<citybrain_shared::Address>,
}

impl Made {
    /// It was there already.
    pub fn known(about: String) -> Made {
        Made { about, is_new: false, asked: None }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Repeat {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Repeat, Self::Rejection> {
        Ok(parts.extensions.get::<Repeat>().cloned().unwrap_or_default())
    }
}

impl Repeat {
    /// What was asked for under this word, and what was made of it.
    fn noted(&self, ctx: &Ctx) -> Result<Option<(String, Made)>, Refusal> {
        let Some(word) = &self.0 else { return Ok(None) };
        Ok(match find(ctx, Note::made_key(&word.name))? {
            Some(Note::Made { name, request, about, is_new, asked }) if name == word.name => {
                Some((request, Made { about, is_new, asked }))
            }
            _ => None,
        })
    }

    fn is_of(&self, request: &str) -> bool {
        self.0.as_ref().is_some_and(|word| word.request == request)
    }

    /// What was made under this word already.
    ///
    /// # Errors
    /// The log does not read.
    pub fn made(&self, ctx: &Ctx) -> Result<Option<Made>, Refusal> {
        Ok(self.noted(ctx)?.map(|(_, made)| made))
    }

    /// Goes into the group of the change.
    pub fn mark(&self, made: &Made) -> Option<Draft> {
        let word = self.0.as_ref()?;
        let Made { about, is_new, asked } = made.clone();
        Some(Note::Made { name: word.name.clone(), request: word.request.clone(), about, is_new, asked }.draft())
    }

    pub fn has_word(&self) -> bool {
        self.0.is_some()
    }

    /// Notes, before it is made, the name of what will be made under this word, in one group with `also`:
    /// for what is known by that name however often it is made. `lane`: of what will be made.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn begin(&self, ctx: &Ctx, lane: Lane, name: &str, also: Vec<Draft>) -> Result<(), Refusal> {
        let made = Made { about: name.to_owned(), is_new: true, asked: None };
        let group: Vec<Draft> = also.into_iter().chain(self.mark(&made)).collect();
        let late = Late { what: "the record of it", hint: "nothing else was done: ask again with the same key" };
        commit::within(ctx.hub.decide(lane, Box::new(move |_, _| group)), self, late).await.map(drop)
    }
}

/// Before every change, behind the [`guard`].
pub async fn once(From(once): From<Arc<Once>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    answer(once, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(once: Arc<Once>, request: Request, next: Next) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, intake::BATCH_BYTES_MAX).await.map_err(|_| too_large())?;
    let begun = match begin(&once, &parts, &body) {
        Err(refused) if is_of_the_key(&refused) && is_call(&once.ctx, &parts, &body) => {
            parts.extensions.get_or_insert_with(|| Urgent::only(refused));
            match begin_call(&once, &parts, &body)? {
                Some(begun) => begun,
                None => return Ok(next.run(Request::from_parts(parts, Body::from(body))).await),
            }
        }
        begun => begun?,
    };
    let Begun { name, asked, repeat } = match begun {
        Earlier::None(begun) => begun,
        Earlier::Answer(answer) => return Ok(answer),
    };
    parts.extensions.insert(repeat.clone());
    // A task of its own goes on when the client goes away: whoever asks again meets it, or what it made.
    let made = tokio::spawn(async move {
        let response = next.run(Request::from_parts(parts, Body::from(body))).await;
        let kept = keep(&once.ctx, name, asked, response).await;
        drop(repeat);
        kept
    });
    made.await.unwrap_or_else(|e| {
        let hint = "the node's log says more";
        Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", format!("the change broke off: {e}"), hint))
    })
}

/// A request whose word has its place.
struct Begun {
    name: String,
    asked: String,
    repeat: Repeat,
}

/// What was answered under a word.
enum Earlier {
    Answer(Response),
    None(Begun),
}

/// # Errors
/// The word is none, is under way, or was used for another request; or the log does not read.
fn begin(once: &Arc<Once>, parts: &Parts, body: &Bytes) -> Result<Earlier, Refusal> {
    let word = word_of(&parts.headers)?;
    begin_as(once, format!("{} {word}", who(parts)), fingerprint(&parts.uri, &parts.headers, body), &word)
}

/// A call for help whose word is not its own has one of that word and all that it says: sent again it is the same
/// call. `None`: the header says nothing, and another may call with the same words.
///
/// # Errors
/// The same call is under way, or the log does not read.
fn begin_call(once: &Arc<Once>, parts: &Parts, body: &Bytes) -> Result<Option<Earlier>, Refusal> {
    let said: Vec<&[u8]> = parts.headers.get_all(HEADER).iter().map(HeaderValue::as_bytes).collect();
    let said = said.join(&b' ');
    if said.iter().all(|b| b.is_ascii_whitespace() || *b == b'"') {
        return Ok(None);
    }
    let asked = fingerprint(&parts.uri, &parts.headers, body);
    // No word has a space.
    let name = format!("{} {:032x} {asked}", who(parts), xxh3_128(&said));
    begin_as(once, name, asked, &String::from_utf8_lossy(&said)).map(Some)
}

fn who(parts: &Parts) -> &str {
    parts.extensions.get::<Holder>().map_or("", |h| h.name.as_str())
}

fn begin_as(once: &Arc<Once>, name: String, asked: String, word: &str) -> Result<Earlier, Refusal> {
    let repeat = once.take(name.clone(), asked.clone(), (KEY, word))?;
    match find(&once.ctx, Note::answered_key(&name))? {
        Some(Note::Answered { name: of, request, .. }) if of == name && request != asked => {
            Err(used_otherwise((KEY, word)))
        }
        Some(Note::Answered { name: of, status, headers, body, .. }) if of == name => {
            Ok(Earlier::Answer(again(status, &headers, body)))
        }
        _ => Ok(Earlier::None(Begun { name, asked, repeat })),
    }
}

fn is_of_the_key(refused: &Refusal) -> bool {
    [BAD_KEY, KEY_USED].contains(&refused.failure.error.as_str())
}

/// Nothing that is wrong beside a call for help keeps it away, and no key does.
fn is_call(ctx: &Ctx, parts: &Parts, body: &Bytes) -> bool {
    guard::calls_for_help(parts, body, &|category| cases::is_call(ctx, category))
}

/// The word, as a structured field's string (`"…"`) or bare.
///
/// # Errors
/// There are several, or it is no such word.
pub fn word_of(headers: &HeaderMap) -> Result<String, Refusal> {
    let wrong = || {
        let detail = format!("`Idempotency-Key` is one word of 1 to {WORD_BYTES_MAX} visible ASCII characters");
        Refusal::bad(BAD_KEY, detail, "a UUID in quotes: `Idempotency-Key: \"8e03978e-40d5-43dd-bc93-6894a57f9324\"`")
    };
    let mut all = headers.get_all(HEADER).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return Err(wrong()) };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    let word = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    let fits = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if word.is_empty() || word.len() > WORD_BYTES_MAX || !word.chars().all(fits) {
        return Err(wrong());
    }
    Ok(word.to_owned())
}

/// All that makes a request what it is, but who asks.
fn fingerprint(uri: &Uri, headers: &HeaderMap, body: &Bytes) -> String {
    let mut hash = Xxh3::new();
    let mut put = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    put(uri.path_and_query().map_or("", |p| p.as_str()).as_bytes());
    let counts = |name: &str| name.starts_with("ce-") || [view::HEADER_AT, "content-type", "if-match"].contains(&name);
    let mut counted: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    counted.retain(|(name, _)| counts(name));
    // A proxy may send them in another order the second time.
    counted.sort_unstable();
    for (name, value) in counted {
        put(name.as_bytes());
        put(value);
    }
    put(body);
    format!("{:032x}", hash.digest128())
}

/// The note under a key, if it is young enough.
fn find(ctx: &Ctx, key: u64) -> Result<Option<Note>, Refusal> {
    let reader = ctx.hub.reader();
    let read = || {
        let Some(pos) = reader.find(key)? else { return Ok(None) };
        reader.get(pos)
    };
    let entry = read().map_err(|e| Refusal::log(&e))?;
    let oldest_us = now().timestamp_micros() - KEPT_S * 1_000_000;
    Ok(entry.and_then(|entry| {
        let (header, payload) = Header::decode(&entry.bytes).ok()?;
        (header.committed_us >= oldest_us).then(|| Note::parse(payload).ok()).flatten()
    }))
}

/// Keeps what is answered, on disk, and answers it.
async fn keep(ctx: &Ctx, name: String, request: String, response: Response) -> Result<Response, Refusal> {
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.map_err(|e| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", format!("the answer broke off: {e}"), "ask again")
    })?;
    #[derive(serde::Deserialize)]
    struct Shown {
        contact: Option<serde::de::IgnoredAny>,
    }
    let names_a_person = serde_json::from_slice::<Shown>(&body).is_ok_and(|s| s.contact.is_some());
    if body.len() <= ANSWER_BYTES_MAX
        && !names_a_person
        && let Ok(text) = std::str::from_utf8(&body)
    {
        let kept = [header::CONTENT_TYPE, header::ETAG];
        let headers =
            kept.iter().filter_map(|n| Some((n.to_string(), parts.headers.get(n)?.to_str().ok()?.to_owned())));
        let status = parts.status.as_u16();
        let note = Note::Answered { name, request, status, headers: headers.collect(), body: text.to_owned() };
        let late = Late { what: "the answer", hint: "it is made: ask again with the same key" };
        commit::noted(ctx, vec![note], late).await?;
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn again(status: u16, headers: &[(String, String)], body: String) -> Response {
    let mut response = (StatusCode::from_u16(status).unwrap_or(StatusCode::OK), body).into_response();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_same_whatever_the_order_of_its_headers() {
        let print = |order: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in order {
                headers.append(*name, axum::http::HeaderValue::from_static(value));
            }
            fingerprint(&Uri::from_static("/v1/events"), &headers, &Bytes::from_static(b"x"))
        };
        let there = print(&[("ce-id", "1"), ("ce-type", "t"), ("content-type", "text/plain")]);
        assert_eq!(there, print(&[("content-type", "text/plain"), ("ce-type", "t"), ("ce-id", "1"), ("date", "now")]));
        assert_ne!(there, print(&[("content-type", "text/plain"), ("ce-type", "1"), ("ce-id", "t")]));
    }
}
