//! Dead letters: what was refused, with its reason and its first bytes.
//!
//! The state knows which are open; the letters themselves lie in the log.

use super::events::{FORGOTTEN, WITHHELD};
use super::guard::Caller;
use super::input::{Path, limited, query};
use super::{Ctx, Refusal};
use crate::brain::cases::intake;
use crate::{brain, webhook};
use axum::extract::State as From;
use axum::http::Uri;
use axum::response::Response;
use citybrain_hub::log::{Entry, Reader};
use citybrain_hub::note::{self, Note};
use citybrain_shared::Pos;
use citybrain_shared::record::Header;
use citybrain_shared::view;
use serde::Deserialize;
use serde_json::Value;
use std::num::NonZeroUsize;
use std::sync::Arc;

const LETTERS_DEFAULT: usize = 100;
const LETTERS_MAX: usize = 1000;

/// Stands where what a letter holds would, whose event is not there to tell whose it is.
const UNKNOWN: &str =
    "it may be about a person who is forgotten, and its event is no longer in the log: it is shown to nobody";

/// Stands where what a letter holds would that is closed: of its event, if it has become one, that can be judged.
const CLOSED: &str = "it may name a person, and is no longer open: it is shown to nobody any more";

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Only after this position, oldest first; without it the newest.
    after: Option<u64>,
    /// At most so many, 1 to 1000; default 100.
    limit: Option<NonZeroUsize>,
    reason: Option<String>,
}

pub async fn list(From(ctx): From<Arc<Ctx>>, caller: Caller, uri: Uri) -> Result<Response, Refusal> {
    let wanted: Wanted = query(&uri)?;
    let limit = limited(wanted.limit, LETTERS_DEFAULT, LETTERS_MAX)?;
    let reader = ctx.hub.reader();
    // The state may be a little ahead of what is durable, and only that can be read.
    let last = reader.last();
    let (open, places) = ctx.hub.state(|state| {
        let after = Pos(wanted.after.unwrap_or(0)).next().min(last.next());
        let fits = |reason: &str| wanted.reason.as_deref().is_none_or(|r| r == reason);
        let all = state.dead_letters.range(after..last.next()).filter(|(_, reason)| fits(reason)).map(|(pos, _)| *pos);
        let mut places: Vec<Pos> = match wanted.after {
            Some(_) => all.take(limit).collect(),
            None => all.rev().take(limit).collect(),
        };
        places.sort_unstable();
        (state.dead_letters.range(..last.next()).count() as u64, places)
    });
    let letters = places.into_iter().filter_map(|pos| read(&reader, pos).transpose());
    let dead_letters =
        letters.map(|letter| letter.map(|l| seen(&ctx, &reader, l, &caller))).collect::<Result<_, _>>()?;
    Ok(ctx.answer(view::DeadLetters { open, dead_letters }))
}

pub async fn show(From(ctx): From<Arc<Ctx>>, caller: Caller, Path(pos): Path<u64>) -> Result<Response, Refusal> {
    let reader = ctx.hub.reader();
    match read(&reader, Pos(pos))? {
        Some(letter) => Ok(ctx.answer(seen(&ctx, &reader, letter, &caller))),
        None => Err(Refusal::not_found(
            format!("no dead letter at position {pos}"),
            "`citybrain dlq list` shows the open ones",
        )),
    }
}

/// What it holds did not read, so it may name anybody; or it is an event of somebody who is forgotten by now.
fn seen(ctx: &Ctx, reader: &Reader, letter: view::DeadLetter, caller: &Caller) -> view::DeadLetter {
    let word = match (whose(ctx, reader, &letter), caller.sees_persons()) {
        (Whose::Forgotten, _) => FORGOTTEN,
        (Whose::Unknown, _) => UNKNOWN,
        (Whose::Closed, _) => CLOSED,
        (Whose::Nobody, false) => WITHHELD,
        (Whose::Nobody, true) => return letter,
    };
    // Nor what somebody's receiver said to it: it may say it again.
    let detail = if letter.via.starts_with(webhook::VIA) { format!("[{word}]") } else { letter.detail };
    view::DeadLetter { payload: format!("[{word}]"), payload_is_hex: false, detail, withheld: true, ..letter }
}

pub(super) fn read(reader: &Reader, pos: Pos) -> Result<Option<view::DeadLetter>, Refusal> {
    let entry = reader.get(pos).map_err(|e| Refusal::log(&e))?;
    Ok(entry.and_then(|e| letter_of(&e)))
}

/// Of which forgotten person is the event that a letter is about?
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Nobody,
    Forgotten,
    /// The log has it no longer, and it may have been of one.
    Unknown,
    /// It is about no record, and nobody needs it any more: whoever it may name could not be forgotten.
    Closed,
}

pub(super) fn whose(ctx: &Ctx, reader: &Reader, letter: &view::DeadLetter) -> Whose {
    let Some(of) = of(reader, letter.pos) else {
        let is_open = ctx.hub.state(|state| state.dead_letters.contains_key(&letter.pos));
        // What a door reads out of it is a matter of its mappings: no member of it says whether it names somebody.
        return if is_open || letter.payload.is_empty() { Whose::Nobody } else { Whose::Closed };
    };
    let record = reader.get(of).ok().flatten();
    match record.as_ref().map(|record| Header::decode(&record.bytes)) {
        Some(Ok((header, payload))) if brain::is_forgotten(&ctx.hub, &header, payload) => Whose::Forgotten,
        Some(Ok(_)) => Whose::Nobody,
        None | Some(Err(_)) if may_name_persons(letter) => Whose::Unknown,
        None | Some(Err(_)) => Whose::Nobody,
    }
}

/// By what the letter itself holds. Of what was cut off, never read, or is no event, nobody knows.
fn may_name_persons(letter: &view::DeadLetter) -> bool {
    if letter.payload.is_empty() {
        return false;
    }
    let event = serde_json::from_str(&letter.payload).ok().filter(|event: &Value| event["type"].is_string());
    event.is_none_or(|event| intake::is_of_persons(&event))
}

/// The record that a letter is about, whole, if the log still has it.
pub(super) fn record_of(reader: &Reader, pos: Pos) -> Option<Entry> {
    reader.get(of(reader, pos)?).ok()?
}

/// Where the record is, or was, that a letter is about.
fn of(reader: &Reader, pos: Pos) -> Option<Pos> {
    let letter = reader.get(pos).ok()??;
    let (_, payload) = Header::decode(&letter.bytes).ok()?;
    match Note::parse(payload) {
        Ok(Note::DeadLetter(note::DeadLetter { of, .. })) => of,
        _ => None,
    }
}

/// The letter in a record, if it is one.
fn letter_of(entry: &Entry) -> Option<view::DeadLetter> {
    let (header, payload) = Header::decode(&entry.bytes).ok()?;
    let Ok(Note::DeadLetter(letter)) = Note::parse(payload) else { return None };
    let note::DeadLetter { reason, detail, via, topic, payload, payload_is_hex, payload_bytes, of: _ } = letter;
    let at = view::time_of(header.committed_us);
    Some(view::DeadLetter {
        pos: entry.pos,
        at,
        reason,
        detail,
        via,
        topic,
        payload,
        payload_is_hex,
        payload_bytes,
        withheld: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_letter_reads_from_its_record_and_nothing_else_does() {
        let letter = note::DeadLetter::new("not-json", "it is no JSON", "mqtt:lamp", "in/x", b"\xff");
        let draft = Note::DeadLetter(letter).draft();
        let entry = Entry { pos: Pos(4), chain: 0, bytes: Bytes::copy_from_slice(draft.bytes()) };
        let seen = letter_of(&entry).unwrap();
        assert_eq!(
            (seen.pos, seen.reason.as_str(), seen.payload.as_str(), seen.payload_is_hex),
            (Pos(4), "not-json", "ff", true)
        );
        let other = Note::SessionLeft { client: "x".into(), expiry_s: 1, given: Pos(1), unsure: Pos::ZERO }.draft();
        assert!(letter_of(&Entry { pos: Pos(5), chain: 0, bytes: Bytes::copy_from_slice(other.bytes()) }).is_none());
    }

    #[test]
    fn a_letter_whose_event_is_gone_may_be_of_anybody_unless_it_reads_and_names_nobody() {
        let names = |payload: &[u8]| {
            let draft = Note::DeadLetter(note::DeadLetter::new("refused", "", "webhook:app", "", payload)).draft();
            let entry = Entry { pos: Pos(4), chain: 0, bytes: Bytes::copy_from_slice(draft.bytes()) };
            may_name_persons(&letter_of(&entry).unwrap())
        };
        assert!(names(br#"{"type":"city.sos.pressed","data":{"contact":{"phone":"139"}}}"#));
        assert!(names(br#"{"type":"city.lamp.failed","data":{"sos":true}}"#));
        assert!(names(br#"{"type":"city.lamp.failed","data":"cut of"#) && names(b"\xff"));
        assert!(names(br#"{"phone":"139"}"#) && names(b"[]"), "no event, and it may say whatever it likes");
        assert!(!names(b""));
        assert!(!names(br#"{"type":"city.lamp.failed","data":{}}"#));
    }
}
