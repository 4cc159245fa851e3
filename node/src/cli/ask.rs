//! Asks a running node over its API.

use super::Fail;
use citybrain_shared::view::{self, Answer, ApiFile, Failure, View};
use clap::Args;
use serde::Serialize;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

pub const URL_DEFAULT: &str = "http://127.0.0.1:8080";

const CONNECT_WAIT: Duration = Duration::from_secs(2);
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The node itself gives a commit 10 seconds.
const COMMIT_WAIT: Duration = Duration::from_secs(12);
/// No view is larger: 20,000 nodes of a tree are about 6 MB.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Which node is asked.
#[derive(Clone, Debug, Default, Args)]
pub struct At {
    /// The node's API [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "CITYBRAIN_NODE")]
    pub node: Option<String>,
    /// Or: the data folder of a node that runs on this machine (goes before --node)
    #[arg(long, value_name = "DIR", visible_alias = "data")]
    pub data_dir: Option<PathBuf>,
}

/// As [`At`], for a command whose `--data` is something else.
#[derive(Clone, Debug, Default, Args)]
pub struct AtOnly {
    /// The node's API [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "CITYBRAIN_NODE")]
    pub node: Option<String>,
    /// Or: the data folder of a node that runs on this machine (goes before --node)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl From<AtOnly> for At {
    fn from(at: AtOnly) -> At {
        At { node: at.node, data_dir: at.data_dir }
    }
}

/// A node that can be asked.
#[derive(Debug)]
pub struct Node {
    url: String,
    /// What to try when it does not answer.
    hint: String,
    agent: ureq::Agent,
}

impl At {
    /// # Errors
    /// When the data folder does not say where its node is: exit code 3.
    pub fn node(&self) -> Result<Node, Fail> {
        let (url, hint) = match &self.data_dir {
            Some(dir) => {
                let path = dir.join("api.json");
                let hint = "`citybrain run --config FILE` starts its node; a running one writes `api.json` there";
                let text = std::fs::read(&path).map_err(|e| {
                    Fail::unreachable(format!("no node runs on `{}`: {}: {e}", dir.display(), path.display()), hint)
                })?;
                let file: ApiFile = serde_json::from_slice(&text)
                    .map_err(|e| Fail::unreachable(format!("`{}` does not read: {e}", path.display()), hint))?;
                (
                    file.url,
                    format!(
                        "{} (pid {}) may have ended: `citybrain run --config FILE` starts it",
                        file.address, file.pid
                    ),
                )
            }
            None => (
                self.node.clone().unwrap_or_else(|| URL_DEFAULT.into()),
                "`citybrain run --config FILE` starts a node; `--node URL` or `--data-dir DIR` asks another".into(),
            ),
        };
        if !url.starts_with("http://") {
            return Err(Fail::usage(
                format!("`{url}` is no http:// address"),
                format!("such as `--node {URL_DEFAULT}`"),
            ));
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT_WAIT))
            .timeout_recv_response(Some(ANSWER_WAIT))
            .build()
            .new_agent();
        Ok(Node { url: url.trim_end_matches('/').to_owned(), hint, agent })
    }
}

impl Node {
    /// # Errors
    /// Unreachable: 3. Refused: 1, with the node's own words.
    pub fn get<T: View>(&self, path: &str, query: &[(&str, String)]) -> Result<Answer<T>, Fail> {
        let mut response = self.call(path, query)?;
        let body = self.body(&mut response)?;
        self.parse(response.status().as_u16(), &body)
    }

    /// An answer as it comes, JSON or text.
    ///
    /// # Errors
    /// As [`Node::get`].
    pub fn raw(&self, path: &str) -> Result<Vec<u8>, Fail> {
        let mut response = self.call(path, &[])?;
        let body = self.body(&mut response)?;
        match response.status().as_u16() {
            status if status >= 300 => Err(self.refused(status, &body)),
            _ => Ok(body),
        }
    }

    /// # Errors
    /// As [`Node::get`].
    pub fn post<T: View>(&self, path: &str, body: &impl Serialize) -> Result<Answer<T>, Fail> {
        let request =
            self.agent.post(format!("{}{path}", self.url)).header(view::HEADER_OPERATOR, super::confirm::who());
        let request = request.config().timeout_recv_response(Some(COMMIT_WAIT)).build();
        let mut response = request.send_json(body).map_err(|e| self.unreachable(&e))?;
        let body = self.body(&mut response)?;
        self.parse(response.status().as_u16(), &body)
    }

    /// A stream, line by line as it comes.
    ///
    /// # Errors
    /// As [`Node::get`].
    pub fn lines(&self, path: &str, query: &[(&str, String)]) -> Result<Lines, Fail> {
        let mut response = self.call(path, query)?;
        let status = response.status().as_u16();
        if status != 200 {
            let body = self.body(&mut response)?;
            return Err(self.refused(status, &body));
        }
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let (node, as_of, after) = (header(view::HEADER_NODE), header(view::HEADER_AS_OF), header(view::HEADER_AFTER));
        let as_of = as_of.parse().unwrap_or_default();
        let reader: Box<dyn Read> = Box::new(response.into_body().into_reader());
        Ok(Lines {
            node,
            as_of,
            after: after.parse().unwrap_or(0),
            reader: BufReader::new(reader),
            hint: self.hint.clone(),
        })
    }

    fn call(&self, path: &str, query: &[(&str, String)]) -> Result<ureq::http::Response<ureq::Body>, Fail> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        for (key, value) in query {
            request = request.query(key, value);
        }
        request.call().map_err(|e| self.unreachable(&e))
    }

    fn body(&self, response: &mut ureq::http::Response<ureq::Body>) -> Result<Vec<u8>, Fail> {
        let reader = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        reader.read_to_vec().map_err(|e| self.unreachable(&e))
    }

    fn parse<T: View>(&self, status: u16, body: &[u8]) -> Result<Answer<T>, Fail> {
        // A node that is not ready answers 503 and says so in the view itself.
        match Answer::parse(body) {
            Ok(answer) => Ok(answer),
            Err(_) if status >= 300 => Err(self.refused(status, body)),
            Err(e) => Err(Fail::no(
                "foreign",
                format!("{} answers in another language: {e}", self.url),
                "is it a citybrain, of this version? `citybrain version` says which this one is",
            )),
        }
    }

    fn refused(&self, status: u16, body: &[u8]) -> Fail {
        let code = if status == 504 { 3 } else { 1 };
        match serde_json::from_slice::<Failure>(body) {
            Ok(failure) => Fail { code, failure, invalid: Vec::new() },
            Err(_) => Fail::new(
                code,
                "foreign",
                format!("{} answers with HTTP status {status}", self.url),
                "is it a citybrain?",
            ),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Fail {
        Fail::unreachable(format!("cannot reach the node at {}: {error}", self.url), self.hint.clone())
    }
}

/// A stream of lines, and whose it is.
pub struct Lines {
    pub node: String,
    pub as_of: chrono::DateTime<chrono::Utc>,
    /// Nothing up to here was looked at.
    pub after: u64,
    reader: BufReader<Box<dyn Read>>,
    hint: String,
}

impl Lines {
    #[cfg(test)]
    pub fn of(node: &str, text: &'static str) -> Lines {
        let reader: Box<dyn Read> = Box::new(text.as_bytes());
        Lines {
            node: node.into(),
            as_of: view::time_of(0),
            after: 0,
            reader: BufReader::new(reader),
            hint: String::new(),
        }
    }
}

impl Iterator for Lines {
    type Item = Result<String, Fail>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok(line.trim_end().to_owned())),
            Err(e) => {
                let detail = format!("the stream broke off, what came so far is not all: {e}");
                Some(Err(Fail::unreachable(detail, self.hint.clone())))
            }
        }
    }
}

/// One segment of a path.
pub fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_hides_what_would_split_the_path() {
        assert_eq!(segment("a/b c?温"), "a%2Fb%20c%3F%E6%B8%A9");
    }

    #[test]
    fn nobody_at_the_address_is_code_3_with_a_hint() {
        // Port 9 on loopback: nobody listens.
        let at = At { node: Some("http://127.0.0.1:9".into()), data_dir: None };
        let fail = at.node().unwrap().get::<view::Links>("/v1/links", &[]).unwrap_err();
        assert_eq!(fail.code, 3);
        assert!(
            fail.failure.detail.starts_with("cannot reach the node at http://127.0.0.1:9:"),
            "{}",
            fail.failure.detail
        );
        assert!(fail.failure.hint.contains("citybrain run --config"));
    }

    #[test]
    fn a_folder_without_a_node_is_code_3() {
        let dir = tempfile::tempdir().unwrap();
        let at = At { node: None, data_dir: Some(dir.path().into()) };
        assert_eq!(at.node().unwrap_err().code, 3);
        std::fs::write(dir.path().join("api.json"), "{\"url\":\"http://127.0.0.1:9\",\"pid\":7,\"address\":\"c/s\"}")
            .unwrap();
        let fail = at.node().unwrap().get::<view::Links>("/v1/links", &[]).unwrap_err();
        assert!(fail.failure.hint.starts_with("c/s (pid 7)"), "{}", fail.failure.hint);
    }
}
