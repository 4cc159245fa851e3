//! Asks nodes over HTTP. Every answer is compared with `docs/openapi.json`, and so is what was asked, if the
//! node has taken it.

use super::{Node, PATIENCE, openapi};
use serde_json::Value;
use ureq::http::{HeaderMap, Request};

/// What was answered.
pub struct Told {
    pub status: u16,
    headers: HeaderMap,
    pub text: String,
}

impl Told {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Its JSON; or its text, where it is none.
    pub fn value(self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::String(self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no {name}: {}", self.text))
    }

    /// A header that need not be there.
    pub fn find(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().expect("ASCII"))
    }

    /// The status, and the stable word of what is wrong.
    pub fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

/// Somebody who asks a node.
#[derive(Clone)]
pub struct Asker<'t> {
    node: &'t Node,
    token: Option<String>,
}

impl Asker<'_> {
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Told {
        self.tried(method, path, headers, body).expect("the node answers")
    }

    /// `None` while the node does not answer, or hangs up.
    pub fn tried(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Option<Told> {
        let body = body.as_ref();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.node.url()));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // A client each: a node ends the connection of a body that it did not read.
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        let agent = ureq::Agent::new_with_config(config);
        let answer = match body.is_empty() && method != "POST" {
            true => agent.run(request.body(()).expect("it is a request")),
            false => agent.run(request.body(body).expect("it is a request")),
        };
        let (parts, mut told) = answer.ok()?.into_parts();
        let text = told.with_config().limit(1 << 30).read_to_string().ok()?;
        let told = Told { status: parts.status.as_u16(), headers: parts.headers, text };
        let of_path = path.split('?').next().unwrap_or_default();
        openapi::document().check(
            method,
            of_path,
            told.status,
            told.find("content-type").unwrap_or_default(),
            &told.text,
        );
        if parts.status.is_success() {
            let kind = headers.iter().find(|(name, _)| *name == "content-type").map_or("", |(_, kind)| kind);
            openapi::document().check_asked(method, path, kind, &String::from_utf8_lossy(body));
        }
        Some(told)
    }

    pub fn get(&self, path: &str) -> Told {
        self.ask("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Told {
        self.post_as(path, "application/json", format!("{body:#}"))
    }

    pub fn post_as(&self, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Told {
        self.ask("POST", path, &[("content-type", content_type)], body)
    }
}

impl Node {
    /// Without a token.
    pub fn asker(&self) -> Asker<'_> {
        Asker { node: self, token: None }
    }

    pub fn by(&self, token: &str) -> Asker<'_> {
        Asker { node: self, token: Some(token.trim().to_owned()) }
    }

    /// `None` while the node does not answer.
    pub fn get(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.get_text(path)?).ok()
    }

    pub fn get_text(&self, path: &str) -> Option<String> {
        let told = self.asker().tried("GET", path, &[], "")?;
        (told.status < 300).then_some(told.text)
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let told = self.asker().post(path, body);
        (told.status, told.value())
    }
}
