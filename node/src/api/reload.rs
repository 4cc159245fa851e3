//! The config file, read again: what of it is put in force while the node runs, and what waits for a start.

use super::commit::{COMMIT_WAIT, Late};
use super::ops::Operator;
use super::{Ctx, Refusal};
use crate::brain::Brain;
use crate::brain::in_force::LOADED;
use crate::brain::services::request;
use axum::extract::State as From;
use axum::http::StatusCode;
use axum::response::Response;
use citybrain_hub::Hub;
use citybrain_hub::engine;
use citybrain_shared::Lane;
use citybrain_shared::config::Config;
use citybrain_shared::config::rules::Rule;
use citybrain_shared::config::services::Service;
use citybrain_shared::record::{Draft, Header, Kind, event_key};
use citybrain_shared::view::{self, ReloadedPart};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub async fn reload(From(ctx): From<Arc<Ctx>>, who: Operator) -> Result<Response, Refusal> {
    // A task of its own: one who asks and goes away must not leave it half done, nor without a record of him.
    let of_task = ctx.clone();
    let task = tokio::spawn(async move {
        let ctx = of_task;
        let reloaded = file_again(&ctx.hub).await.map_err(not_reloaded)?;
        super::ops::operator(&ctx, &who, "reload", &in_words(&reloaded)).await?;
        Ok(reloaded)
    });
    let late = Late { what: "the word of it", hint: "`citybrain config show` says what is in force" };
    let done = tokio::time::timeout(COMMIT_WAIT, task).await.map_err(|_| late.refusal())?;
    Ok(ctx.answer(done.unwrap_or_else(|e| Err(not_reloaded(e.to_string())))?))
}

fn not_reloaded(why: String) -> Refusal {
    let hint = "all stays as it was; `citybrain check FILE` draws what is wrong";
    Refusal::new(StatusCode::CONFLICT, "not-reloaded", why, hint)
}

/// What became otherwise, for the log.
pub fn in_words(reloaded: &view::Reloaded) -> String {
    let names = |part: &ReloadedPart| {
        let lists = [("new", &part.added), ("changed", &part.changed), ("gone", &part.removed)];
        let said = lists.into_iter().filter(|(_, names)| !names.is_empty());
        let said: Vec<String> = said.map(|(word, names)| format!("{word}: {names:?}")).collect();
        (!said.is_empty()).then(|| format!("{} {}", part.part, said.join(", ")))
    };
    let calendar = reloaded.calendar_changed.then(|| "calendar changed".to_owned());
    let all: Vec<String> = reloaded.parts.iter().filter_map(names).chain(calendar).collect();
    if all.is_empty() { "nothing is otherwise than before".into() } else { all.join("; ") }
}

/// A second one waits: what a first one that fails goes back to must be what was before it.
static RELOADING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Reads the config file again and puts its rules, services, scenes, categories and calendar in force, all at
/// once; all else in it waits for a start.
///
/// # Errors
/// A sentence; all then stays as it was.
pub async fn file_again(hub: &Hub) -> Result<view::Reloaded, String> {
    let _alone = RELOADING.lock().await;
    let of_brain = hub.state(|s| Brain::of(s).map(|b| (b.in_force(), b.slot())));
    let (before, slot) = of_brain.ok_or("this node has no mind of its own")?;
    let from = before.read_from.as_ref().ok_or("this node was not started from a file")?;
    let fresh = crate::config::load(&from.path, &from.variables).map_err(|e| e.in_words())?;
    if fresh.node.address != before.node.address {
        return Err(format!("{} is the file of {} now", from.path.display(), fresh.node.address));
    }
    let after = Arc::new(Config {
        rule: fresh.rule.clone(),
        service: fresh.service.clone(),
        scene: fresh.scene.clone(),
        category: fresh.category.clone(),
        calendar: fresh.calendar.clone(),
        ..(*before).clone()
    });
    // A record is what makes the fold take it over, at a place in the log that can be seen.
    let (offer_to, offered) = (slot.clone(), after.clone());
    let decide: engine::Decide = Box::new(move |_, now_us| {
        let (source, id) = (format!("/{}", offered.node.address), format!("loaded-{now_us:x}"));
        let event = json!({
            "specversion": "1.0", "id": id, "source": source, "type": LOADED,
            "time": view::rfc3339(view::time_of(now_us)), "data": names_of(&offered),
        });
        let header = Header { key: event_key(&source, &id), ..Header::local(Kind::Event, LOADED) };
        offer_to.offer(header.key, offered);
        Draft::new(&header, event.to_string().as_bytes()).into_iter().collect()
    });
    let done = async { engine::wait(hub.decide(Lane::Routine, decide).await?).await }.await;
    match done {
        Ok(_) => slot.confirm(),
        Err(e) => {
            slot.withdraw();
            return Err(e.to_string());
        }
    }
    let of_brain = hub.state(|s| Brain::of(s).map(|b| (b.rules.left_named(), doubts(b, &before, &after))));
    let ((left, left_more), doubts) = of_brain.unwrap_or_default();
    let parts = lists(&before).into_iter().zip(lists(&after)).map(|((part, was), (_, is))| compared(part, &was, &is));
    Ok(view::Reloaded {
        parts: parts.collect(),
        calendar_changed: before.calendar != after.calendar,
        left,
        left_more,
        doubts,
        waits: crate::config::differing(&after, &fresh),
    })
}

/// What the node now offers and can hardly mean: what it names and nobody has, and activities that are said anew and past.
/// And which windows are empty again.
fn doubts(brain: &Brain, before: &Config, after: &Config) -> Vec<String> {
    let (calendar, now) = (brain.cases.calendar(), super::now());
    let is_new = |s: &&Service| !before.service.contains(s);
    let past = after.service.iter().filter(is_new).filter(|s| request::is_over(s, calendar, now));
    let past = past.map(request::past_in_words);
    brain.nameless().into_iter().chain(past).chain(windows_anew(before, after)).collect()
}

/// What a window counts is another than before.
fn windows_anew<'a>(before: &'a Config, after: &'a Config) -> impl Iterator<Item = String> + 'a {
    fn value(rule: &Rule) -> Option<&String> {
        rule.window.as_ref().and_then(|window| window.value.as_ref())
    }
    let is_other = move |rule: &&Rule| {
        let was = before.rule.iter().find(|was| was.name == rule.name && was.window.is_some());
        value(rule).is_some() && was.is_some_and(|was| value(was) != value(rule))
    };
    let all = after.rule.iter().filter(is_other);
    all.map(|rule| format!("rule {}: its window begins anew, for its `value` is another", rule.name))
}

/// The lists of a config that a reload puts in force: each entry by its name, or its code.
fn lists(config: &Config) -> [(&'static str, BTreeMap<String, Value>); 4] {
    fn list<T: serde::Serialize>(all: &[T], name: impl Fn(&T) -> &String) -> BTreeMap<String, Value> {
        all.iter().map(|x| (name(x).clone(), serde_json::to_value(x).unwrap_or_default())).collect()
    }
    [
        ("rule", list(&config.rule, |r| &r.name)),
        ("service", list(&config.service, |s| &s.code)),
        ("scene", list(&config.scene, |s| &s.code)),
        ("category", list(&config.category, |c| &c.code)),
    ]
}

fn names_of(config: &Config) -> Value {
    lists(config).into_iter().map(|(part, all)| (part, json!(all.into_keys().collect::<Vec<_>>()))).collect()
}

fn compared(part: &str, before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> ReloadedPart {
    let names = |all: &BTreeMap<String, Value>, is_one: &dyn Fn(&String, &Value) -> bool| {
        all.iter().filter(|(name, x)| is_one(name, x)).map(|(name, _)| name.clone()).collect()
    };
    ReloadedPart {
        part: part.to_owned(),
        in_force: after.len() as u64,
        added: names(after, &|name, _| !before.contains_key(name)),
        changed: names(after, &|name, x| before.get(name).is_some_and(|was| was != x)),
        removed: names(before, &|name, _| !after.contains_key(name)),
    }
}
