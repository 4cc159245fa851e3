//! A platform that nodes tell of cases and calls for help by webhook, and its account: has it each, by id?

use super::account::Record;
use super::tree::Tree;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use citybrain_shared::Tier;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// As `config/demo/webhook.toml` names them. A node tells calls of its own responders only.
const OPENED: &str = "city.brain.case.submitted";
const CLOSED: &str = "city.brain.case.closed";
const CALL: &str = "city.brain.case.call";

/// How often each event came, by the address of its node, its source and its id.
type Got = HashMap<(String, String, String), u64>;

/// Listens as long as the runtime is there.
#[derive(Clone)]
pub struct Hook {
    url: String,
    got: Arc<Mutex<Got>>,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    source: String,
}

impl Hook {
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> io::Result<Hook> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let hook = Hook { url: format!("http://{}", listener.local_addr()?), got: Arc::default() };
        let app = Router::new().route("/{*node}", post(take)).with_state(hook.got.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(hook)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn account(&self, tree: &Tree, logs: &[Vec<Record>]) -> HookAccount {
        account(tree, logs, &self.got.lock())
    }
}

async fn take(State(got): State<Arc<Mutex<Got>>>, Path(node): Path<String>, body: Bytes) -> StatusCode {
    match serde_json::from_slice::<Event>(&body) {
        Ok(Event { id, source }) => {
            *got.lock().entry((node, source, id)).or_default() += 1;
            StatusCode::NO_CONTENT
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HookAccount {
    /// Nodes that told something.
    pub nodes: u64,
    pub opened: u64,
    pub closed: u64,
    pub calls: u64,
    /// What a node has in its log to tell, and the platform does not have.
    pub missing: u64,
    /// What came more than once with the same id, as a node that is killed may send it.
    pub again: u64,
}

impl HookAccount {
    pub fn is_good(&self) -> bool {
        self.wrong().is_none()
    }

    /// What is not as it should be.
    pub fn wrong(&self) -> Option<String> {
        if self.missing > 0 {
            return Some(format!("the webhooks' receiver lacks {} of what nodes had to tell", self.missing));
        }
        let told = [("case that was opened", self.opened), ("case that was closed", self.closed), ("call", self.calls)];
        let (what, _) = told.into_iter().find(|(_, told)| *told == 0)?;
        Some(format!("no node had a {what} to tell the webhooks' receiver: that it hears them is not shown"))
    }
}

fn account(tree: &Tree, logs: &[Vec<Record>], got: &Got) -> HookAccount {
    let mut out = HookAccount::default();
    for (place, log) in tree.places.iter().zip(logs) {
        let here = place.address.as_str();
        if !matches!(place.address.tier(), Tier::Community | Tier::Neighbourhood) {
            continue;
        }
        let mut tells = false;
        for record in log {
            let (Some(kind), Some(source), Some(id)) = (&record.name, &record.source, &record.id) else { continue };
            let count = match kind.as_str() {
                OPENED => &mut out.opened,
                CLOSED => &mut out.closed,
                CALL if record.origin.as_deref() == Some(here) => &mut out.calls,
                _ => continue,
            };
            *count += 1;
            tells = true;
            match got.get(&(here.to_owned(), source.clone(), id.clone())) {
                None => out.missing += 1,
                Some(times) => out.again += u64::from(*times > 1),
            }
        }
        out.nodes += u64::from(tells);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::chengdu;

    #[test]
    fn what_a_node_has_to_tell_and_did_not_is_missing_and_a_repetition_is_told() {
        let tree = chengdu::tree(15);
        let mut logs = vec![Vec::new(); tree.places.len()];
        let leaf = tree.of_tier(Tier::Neighbourhood).next().unwrap();
        let here = tree.places[leaf].address.to_string();
        let record = |id: &str, kind: &str, origin: &str| Record {
            id: Some(id.into()),
            source: Some(format!("/{origin}")),
            name: Some(kind.into()),
            origin: Some(origin.into()),
            ..Record::default()
        };
        logs[leaf] = vec![
            record("1", OPENED, &here),
            record("5", CLOSED, &here),
            record("2", CALL, &here),
            // Of another node's responders, and another step: nobody is told.
            record("3", CALL, "chengdu"),
            record("4", "city.brain.case.accepted", &here),
        ];
        let came = |id: &str, times: u64| ((here.clone(), format!("/{here}"), id.to_owned()), times);
        let all = account(&tree, &logs, &Got::from([came("1", 1), came("2", 2), came("5", 1)]));
        assert_eq!(all, HookAccount { nodes: 1, opened: 1, closed: 1, calls: 1, missing: 0, again: 1 });
        assert!(all.is_good());
        let one = account(&tree, &logs, &Got::from([came("1", 1), came("5", 1)]));
        assert!(one.wrong().is_some_and(|why| why.contains("lacks 1")), "{one:?}");
        let none = HookAccount { calls: 0, ..all };
        assert!(none.wrong().is_some_and(|why| why.starts_with("no node had a call")), "of nothing it is not shown");
    }

    #[test]
    fn what_is_counted_is_what_the_webhooks_of_config_name() {
        let config: toml::Table = include_str!("../../../config/demo/webhook.toml").parse().unwrap();
        let named = config["webhook"][0]["types"].as_array().unwrap().iter().filter_map(toml::Value::as_str);
        assert_eq!(named.collect::<Vec<_>>(), [CALL, OPENED, CLOSED]);
    }
}
