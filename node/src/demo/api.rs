//! What a demo asks of a node's HTTP API on the loopback.

use super::account::{Notice, Record};
use super::case_account::{Copies, Copy};
use crate::ask::{Direct, Fail, Node};
use citybrain_shared::case::Kind;
use citybrain_shared::view::{self, View};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Records asked for at once.
const PAGE: u64 = 2_000;
/// Cases asked for at once.
const CASES: u64 = 1_000;

/// One node's API. Its calls block; each has a deadline.
#[derive(Clone)]
pub struct Api {
    node: Arc<Node>,
    base: String,
}

impl Api {
    pub fn local(port: u16) -> Api {
        let base = format!("http://127.0.0.1:{port}");
        let at = Direct { node: Some(base.clone()), ..Direct::default() };
        Api { node: Arc::new(at.node().expect("http:// on this machine needs no file")), base }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn is_ready(&self) -> Result<(), Fail> {
        let told: view::Ready = self.get("/readyz")?;
        if told.ready { Ok(()) } else { Err(Fail::no("not-ready", told.reasons.join("; "), "")) }
    }

    pub fn get<T: View>(&self, path: &str) -> Result<T, Fail> {
        Ok(self.node.get(path, &[])?.body)
    }

    pub fn post<T: View>(&self, path: &str, body: &impl Serialize) -> Result<T, Fail> {
        Ok(self.node.post(path, body)?.body)
    }

    /// A POST of another kind of body.
    pub fn post_as<T: View>(&self, path: &str, content_type: &str, body: &str) -> Result<T, Fail> {
        Ok(self.node.post_as(path, content_type, body.as_bytes())?.body)
    }

    /// Every node that this one knows of: the state of its link for a child, `self` or `known` else.
    pub fn tree(&self) -> Result<BTreeMap<String, String>, Fail> {
        let tree: view::Tree = self.get("/v1/tree")?;
        Ok(tree.nodes.into_iter().map(|node| (node.address.to_string(), node.state)).collect())
    }

    /// Calls `each` for every record after `after`, oldest first, until there is no more; the
    /// position of the last one.
    pub fn records(&self, after: u64, mut each: impl FnMut(Record)) -> Result<u64, Fail> {
        let mut last = after;
        loop {
            let upto = self.records_page(last, &mut each)?;
            if upto == last {
                return Ok(last);
            }
            last = upto;
        }
    }

    /// As [`Api::records`], one page at most.
    pub fn records_page(&self, after: u64, mut each: impl FnMut(Record)) -> Result<u64, Fail> {
        let path = "/v1/records";
        let mut last = after;
        for line in self.node.lines(path, &[("after", after.to_string()), ("limit", PAGE.to_string())])? {
            let line = line?;
            let record: view::Record<'_> = serde_json::from_str(&line).map_err(|e| self.wrong(path, e))?;
            let record = Record::from(record);
            if record.pos <= last {
                return Err(self.wrong(path, format!("position {} comes after {last}", record.pos)));
            }
            last = record.pos;
            each(record);
        }
        Ok(last)
    }

    /// Sends a notice to every neighbourhood below `city`; its id.
    pub fn send_notice(&self, city: &str, data: Value) -> Result<String, Fail> {
        let notice = view::Send {
            target: format!("{city}/**@neighbourhood"),
            event_type: "city.notice".into(),
            directive: Some("notice".into()),
            data: Some(data),
            ..view::Send::default()
        };
        Ok(self.post::<view::Sent>("/v1/send", &notice)?.id)
    }

    /// How many nodes the directive is for, and how many have it.
    pub fn directive(&self, id: &str) -> Result<Notice, Fail> {
        let told: view::Directive = self.get(&format!("/v1/directives/{id}"))?;
        Ok(Notice { id: id.to_owned(), targets: told.expected, delivered: told.delivered })
    }

    pub fn events(&self, query: &[(&str, String)]) -> Result<Vec<view::Event>, Fail> {
        let path = "/v1/events";
        let lines = self.node.lines(path, query)?;
        lines.map(|line| serde_json::from_str(&line?).map_err(|e| self.wrong(path, e))).collect()
    }

    /// Every case that the node has.
    pub fn cases(&self) -> Result<Copies, Fail> {
        let mut all = Copies::new();
        let mut query = vec![("limit", CASES.to_string())];
        loop {
            let page: view::Cases = self.node.get("/v1/cases", &query)?.body;
            all.extend(page.cases.into_iter().map(|case| {
                let copy = Copy {
                    owner: case.owner.to_string(),
                    term: case.term.into(),
                    version: case.version.into(),
                    is_open: case.status.is_open(),
                    is_incident: case.kind == Kind::Incident,
                };
                (case.id, copy)
            }));
            let Some(next) = page.next else { return Ok(all) };
            query.truncate(1);
            query.push(("after", next));
        }
    }

    /// What Open311 answers, which has no view.
    pub fn get_json(&self, path: &str) -> Result<Value, Fail> {
        self.json(path, &self.node.raw(path)?)
    }

    /// A form, to Open311; `key`: said twice it is done once.
    pub fn post_form(&self, path: &str, key: Option<&str>, form: &str) -> Result<Value, Fail> {
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        self.json(path, &self.node.post_raw(path, &headers, form.as_bytes())?)
    }

    fn json(&self, path: &str, answer: &[u8]) -> Result<Value, Fail> {
        serde_json::from_slice(answer).map_err(|e| self.wrong(path, e))
    }

    pub fn wrong(&self, path: &str, reason: impl std::fmt::Display) -> Fail {
        Fail::no("foreign", format!("the answer of {}{path} is not what it should be: {reason}", self.base), "")
    }
}
