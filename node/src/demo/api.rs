//! What a demo asks of a node's HTTP API on the loopback.

use super::account::{Notice, Record};
use super::case_account::{Copies, Copy};
use citybrain_shared::words;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// Records asked for at once.
const PAGE: u64 = 2_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{url} does not answer")]
    Unreachable {
        url: String,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("{url} answers {status}: {text}")]
    Status { url: String, status: u16, text: String },
    #[error("the answer of {url} is not what it should be: {reason}")]
    Answer { url: String, reason: String },
}

/// One node's API. Its calls block; each has a deadline.
#[derive(Clone)]
pub struct Api {
    agent: ureq::Agent,
    base: String,
}

impl Api {
    pub fn local(port: u16) -> Api {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Nodes of this machine: whatever proxy it has for others is no way to them.
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        Api { agent, base: format!("http://127.0.0.1:{port}") }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn is_ready(&self) -> Result<(), Error> {
        self.get("/readyz").map(drop)
    }

    /// Every node that this one knows of: the state of its link for a child, `self` or `known` else.
    pub fn tree(&self) -> Result<BTreeMap<String, String>, Error> {
        let path = "/v1/tree";
        let tree = self.json(path, self.get(path)?)?;
        let nodes = tree.get("nodes").and_then(Value::as_array).ok_or_else(|| self.wrong(path, "it has no `nodes`"))?;
        let text = |node: &Value, name: &str| node.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(nodes.iter().map(|node| (text(node, "address"), text(node, "state"))).collect())
    }

    /// Calls `each` for every record after `after`, oldest first, until there is no more; the
    /// position of the last one.
    pub fn records(&self, after: u64, mut each: impl FnMut(Record)) -> Result<u64, Error> {
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
    pub fn records_page(&self, after: u64, mut each: impl FnMut(Record)) -> Result<u64, Error> {
        let path = format!("/v1/records?after={after}&limit={PAGE}");
        let mut answer = self.get(&path)?;
        let mut last = after;
        for line in BufReader::new(answer.body_mut().as_reader()).lines() {
            let line = line.map_err(|e| self.wrong(&path, e))?;
            if line.trim().is_empty() {
                continue;
            }
            let record: Record = serde_json::from_str(&line).map_err(|e| self.wrong(&path, e))?;
            if record.pos <= last {
                return Err(self.wrong(&path, format!("position {} comes after {last}", record.pos)));
            }
            last = record.pos;
            each(record);
        }
        Ok(last)
    }

    /// Sends a notice to every neighbourhood below `city`; its id.
    pub fn send_notice(&self, city: &str, data: &Value) -> Result<String, Error> {
        let path = "/v1/send";
        let body = json!({
            "target": format!("{city}/**@neighbourhood"), "type": "city.notice", "directive": "notice",
            "data": data,
        });
        let value = self.post(path, &body)?;
        let id = value.get("id").and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| self.wrong(path, "it has no `id`"))
    }

    /// How many nodes the directive is for, and how many have it.
    pub fn directive(&self, id: &str) -> Result<Notice, Error> {
        let path = format!("/v1/directives/{id}");
        let value = self.json(&path, self.get(&path)?)?;
        let count = |name: &str| {
            value
                .get(name)
                .and_then(Value::as_u64)
                .ok_or_else(|| self.wrong(&path, format!("it has no number `{name}`")))
        };
        Ok(Notice { id: id.to_owned(), targets: count("expected")?, delivered: count("delivered")? })
    }

    /// An answer of JSON lines.
    pub fn get_lines(&self, path: &str) -> Result<Vec<Value>, Error> {
        let mut answer = self.get(path)?;
        let lines = BufReader::new(answer.body_mut().as_reader()).lines();
        let parse = |line: std::io::Result<String>| {
            let line = line.map_err(|e| self.wrong(path, e))?;
            serde_json::from_str(&line).map_err(|e| self.wrong(path, e))
        };
        lines.map(parse).collect()
    }

    pub fn get_json(&self, path: &str) -> Result<Value, Error> {
        self.json(path, self.get(path)?)
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.send(path, "application/json", &body.to_string())
    }

    /// A POST of another kind of body.
    pub fn send(&self, path: &str, content_type: &str, body: &str) -> Result<Value, Error> {
        self.send_as(path, content_type, &[], body)
    }

    /// As [`Api::send`], under a key: said twice it is done once.
    pub fn send_once(&self, path: &str, content_type: &str, key: &str, body: &str) -> Result<Value, Error> {
        self.send_as(path, content_type, &[("idempotency-key", key)], body)
    }

    fn send_as(&self, path: &str, content_type: &str, more: &[(&str, &str)], body: &str) -> Result<Value, Error> {
        let url = format!("{}{path}", self.base);
        let post = self.agent.post(&url).header("content-type", content_type);
        let post = more.iter().fold(post, |post, (name, value)| post.header(*name, *value));
        let answer = self.check(&url, post.send(body))?;
        self.json(path, answer)
    }

    /// Every case that the node has.
    pub fn cases(&self) -> Result<Copies, Error> {
        let mut all = Copies::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/cases?limit=1000{after}");
            let page = self.get_json(&path)?;
            let cases = page["cases"].as_array().ok_or_else(|| self.wrong(&path, "it has no `cases`"))?;
            for case in cases {
                let text = |name: &str| case[name].as_str().unwrap_or_default();
                let copy = Copy {
                    owner: text("owner").to_owned(),
                    term: case["term"].as_u64().unwrap_or_default(),
                    version: case["version"].as_u64().unwrap_or_default(),
                    is_open: !["closed", "rejected", "withdrawn"].contains(&text("status")),
                    is_incident: text("kind") == "incident",
                };
                all.insert(text("id").to_owned(), copy);
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(all),
            }
        }
    }

    fn get(&self, path: &str) -> Result<ureq::http::Response<ureq::Body>, Error> {
        let url = format!("{}{path}", self.base);
        self.check(&url, self.agent.get(&url).call())
    }

    fn check(
        &self,
        url: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<ureq::http::Response<ureq::Body>, Error> {
        let mut answer = answer.map_err(|e| Error::Unreachable { url: url.to_owned(), source: Box::new(e) })?;
        let status = answer.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let text = answer.body_mut().with_config().limit(64 * 1024).read_to_string().unwrap_or_default();
        Err(Error::Status { url: url.to_owned(), status, text: words::beginning(&text, 300).into() })
    }

    fn json(&self, path: &str, mut answer: ureq::http::Response<ureq::Body>) -> Result<Value, Error> {
        answer.body_mut().read_json().map_err(|e| self.wrong(path, e))
    }

    pub fn wrong(&self, path: &str, reason: impl std::fmt::Display) -> Error {
        Error::Answer { url: format!("{}{path}", self.base), reason: reason.to_string() }
    }
}
