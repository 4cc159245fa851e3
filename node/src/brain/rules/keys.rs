//! What a rule remembers of one value of its `by`.

use super::expression::{Facts, NodeFacts};
use super::raisers::Raised;
use super::rule::Rule;
use super::window::{Summary, Window};
use citybrain_shared::Pos;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::sync::Arc;

/// Bytes of an event that is kept while its condition holds: ten thousand keys may each have one. Of a
/// larger one, long texts and lists in its data are cut, and if that is not enough the data is left out.
const HELD_BYTES_MAX: usize = 8 * 1024;
/// Characters and items that are left then: a picture goes, a name or a reading stays.
const HELD_TEXT_MAX: usize = 256;
const HELD_ITEMS_MAX: usize = 16;
/// An alarm may change its title once in so long, µs, beside so many changes that may come at once.
const TITLE_US: i64 = 60_000_000;
const TITLES_AT_ONCE: i64 = 5;
/// Alarms that one key is known to raise, where each event may name another. Those beyond end with the others.
const RAISED_MAX: usize = 256;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyState {
    /// The newest event's time.
    pub last_us: i64,
    /// How long nothing could come since then, because the node was down.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deaf_us: i64,
    /// Of the rule's text by which the rest was planned.
    #[serde(default)]
    pub text: u64,
    /// Of what the rule hears and how it tells that apart, by which it came to this key.
    #[serde(default)]
    pub hears: u64,
    /// Of what its window counts, by which the newest event came into it.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub counts: u64,
    /// Behind the row's JSON, see [`KeyState::row`].
    #[serde(skip)]
    pub window: Option<Window>,
    /// Fired, and not over yet.
    #[serde(default)]
    pub on: bool,
    /// Not on yet, and the condition has held since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_us: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Title>,
    /// By the event that is held its alarms are called otherwise, which is told then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retitle_us: Option<i64>,
    /// What it raises while it is on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raised: Vec<Raised>,
    /// What its alarms were called when it took them up: until it says otherwise, nothing else is known of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub called: Vec<(u64, String)>,
    /// Until then its window lacks what came before it was taken up, a backup was put back, or it counted otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_us: Option<i64>,
    /// The record from which it was last concluded that something is to be said.
    #[serde(default)]
    pub concluded: Pos,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired_us: Option<i64>,
    /// The event that a later step speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Due>,
    /// The event since which the condition has been over, while that has to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Held>,
    /// The event that ends it came then, and it was not on, or only by a backup: the box that was here before may have
    /// raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calm_us: Option<i64>,
    /// It is as a backup has it: nothing was heard since that says how it stands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_backup: bool,
    /// Its rule was edited while it was on, and has not said yet what it makes of the alarm now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub edited: bool,
    /// Its row is to be written; [`Memories`](super::memory::Memories) alone says so.
    #[serde(skip)]
    pub is_dirty: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_nothing(n: &u64) -> bool {
    *n == 0
}

/// What its alarms were called last, and how far that has used up what may be told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Title {
    hash: u64,
    /// It may change once in [`TITLE_US`]; what was told sooner is made up for until then.
    even_us: i64,
}

impl KeyState {
    /// When this title may be told, if it is news: an alarm that counts in its title is not told with each event.
    pub fn may_retitle_us(&self, hash: u64, now: i64) -> Option<i64> {
        let Some(title) = self.title else { return Some(now) };
        (title.hash != hash).then(|| (title.even_us - (TITLES_AT_ONCE - 1) * TITLE_US).max(now))
    }

    /// What is to happen next if no event changes that.
    pub fn next(&self) -> Option<Due> {
        let retitle = self.retitle_us.map(|at_us| Due { at_us, what: What::Title });
        self.due.into_iter().chain(retitle).min_by_key(|due| due.at_us)
    }

    pub fn entitle(&mut self, hash: u64, now: i64) {
        if self.title.is_some_and(|t| t.hash == hash) {
            return;
        }
        let most = now + TITLES_AT_ONCE * TITLE_US;
        let even_us = self.title.map_or(now, |t| (t.even_us.max(now) + TITLE_US).min(most));
        self.title = Some(Title { hash, even_us });
    }

    /// It raises these now, beside others that it has raised.
    pub fn raise(&mut self, now: Vec<Raised>) {
        self.called.clear();
        let others = self.raised.drain(..).filter(|(alarm, _)| !now.iter().any(|(a, _)| a == alarm));
        let others: Vec<Raised> = others.collect();
        self.raised = now.into_iter().chain(others).take(RAISED_MAX).collect();
    }

    /// What that alarm was called when it was taken up, if nothing was said of it since.
    pub fn called(&self, alarm: u64) -> Option<&str> {
        self.called.iter().find(|(a, _)| *a == alarm).map(|(_, title)| title.as_str())
    }

    /// When its window has all again, if that is still to come.
    pub fn whole_us(&self, now: i64) -> Option<i64> {
        self.whole_us.filter(|at| *at > now)
    }

    /// What its window holds at that moment, if the rule has one.
    pub fn summary(&self, rule: &Rule, at_us: i64) -> Option<Summary> {
        rule.window.as_ref().zip(self.window.as_ref()).map(|(w, seen)| seen.summary(w.span, at_us))
    }

    /// A line of JSON and, behind it, the window.
    pub fn row(&self) -> Vec<u8> {
        let mut row = serde_json::to_vec(self).expect("it has string keys only");
        row.push(b'\n');
        if let Some(window) = &self.window {
            window.encode(&mut row);
        }
        row
    }

    /// What was written while the clock was ahead, as if it had been right: all of it comes `by` earlier.
    pub fn shift(&mut self, by: i64) {
        self.last_us -= by;
        let moments =
            [&mut self.since_us, &mut self.fired_us, &mut self.calm_us, &mut self.retitle_us, &mut self.whole_us];
        for at in moments.into_iter().flatten() {
            *at -= by;
        }
        self.due.iter_mut().for_each(|due| due.at_us -= by);
        self.title.iter_mut().for_each(|title| title.even_us -= by);
        self.held.iter_mut().chain(&mut self.ended).for_each(|held| held.at_us -= by);
        self.window.iter_mut().for_each(|window| window.shift(by));
    }

    /// # Errors
    /// When it is no row of [`KeyState::row`].
    pub fn from_row(row: &[u8]) -> Result<KeyState, String> {
        let line = row.iter().position(|b| *b == b'\n').ok_or("it has no first line")?;
        let mut state: KeyState = serde_json::from_slice(&row[..line]).map_err(|e| e.to_string())?;
        let rest = &row[line + 1..];
        if !rest.is_empty() {
            state.window = Some(Window::decode(rest).ok_or("its window does not read")?);
        }
        Ok(state)
    }
}

/// A moment at which something is to happen if no event changes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    pub at_us: i64,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// The condition will have held long enough.
    Held,
    /// Nothing will have come for long enough.
    Absent,
    /// It will have been over for long enough, or the window empty enough.
    Over,
    /// Its alarms may be called otherwise again.
    Title,
}

/// An event that is needed later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    pub pos: Pos,
    pub at_us: i64,
    pub origin: String,
    /// The CloudEvents object.
    pub event: String,
    /// The box that was here before had it, and has done what it is to lead to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub had_before: bool,
}

impl Held {
    /// Whole, for what is said of it next.
    pub fn new(pos: Pos, at_us: i64, origin: &str, payload: &[u8]) -> Held {
        let event = String::from_utf8_lossy(payload).into_owned();
        Held { pos, at_us, origin: origin.to_owned(), event, had_before: false }
    }

    /// As expressions read it; `None` when it is no JSON object.
    pub fn facts(&self, node: &Arc<NodeFacts>) -> Option<Facts> {
        Facts::new(self.event.as_bytes(), &self.origin, self.at_us, node)
    }

    /// For later, in bounded memory.
    pub fn kept(mut self) -> Held {
        if self.event.len() > HELD_BYTES_MAX
            && let Ok(Json::Object(mut all)) = serde_json::from_str(&self.event)
        {
            all.remove("data_base64");
            all.get_mut("data").into_iter().for_each(shorten);
            self.event = Json::Object(all.clone()).to_string();
            if self.event.len() > HELD_BYTES_MAX {
                all.remove("data");
                self.event = Json::Object(all).to_string();
            }
        }
        self
    }
}

fn shorten(value: &mut Json) {
    match value {
        Json::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(HELD_TEXT_MAX) {
                text.truncate(end);
            }
        }
        Json::Array(items) => {
            items.truncate(HELD_ITEMS_MAX);
            items.iter_mut().for_each(shorten);
        }
        Json::Object(members) => members.values_mut().for_each(shorten),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}
