//! Asks a node: the one that runs here, over its API; one below it, through that one's links; or,
//! stopped, from its folder.

use super::folder::Folder;
use super::hint::as_flags;
use super::{Asked, Fail, WITHIN_MAX_MS, is_http};
use crate::https;
use citybrain_shared::view::{self, Answer, Failure, View, segment};
use serde::Serialize;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// On top of the time that a question to a node below may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The node itself gives a commit 10 seconds.
const COMMIT_WAIT: Duration = Duration::from_secs(12);
/// No view is larger: 20,000 nodes of a tree are about 6 MB.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

type Post = ureq::RequestBuilder<ureq::typestate::WithBody>;
type Sent = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

/// A node that can be asked.
pub struct Node {
    via: Via,
    /// Who below it is to answer.
    below: Option<String>,
    within_ms: Option<u64>,
    /// What to try when it does not answer.
    hint: String,
}

enum Via {
    Http { url: String, agent: ureq::Agent, token: Option<String> },
    Folder(Box<Folder>),
}

/// An answer as it came.
pub(super) struct Got {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Box<dyn Read>,
}

impl Got {
    fn header(&self, name: &str) -> String {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    }
}

impl Node {
    pub(super) fn over_http(asked: Asked, below: Option<String>, within_ms: Option<u64>) -> Result<Node, Fail> {
        let Asked { url, token, trust, pair, hint } = asked;
        is_http(&url)?;
        let tls = trust.config_showing(&url, pair.as_ref());
        let tls = tls.map_err(|why| Fail::usage(why, "--ca, --cert and --cert-key name PEM files"))?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .tls_config(tls)
            .timeout_connect(Some(CONNECT_WAIT))
            .timeout_recv_response(Some(ANSWER_WAIT + Duration::from_millis(within_ms.unwrap_or(WITHIN_MAX_MS / 2))))
            .build()
            .new_agent();
        let via = Via::Http { url: url.trim_end_matches('/').to_owned(), agent, token };
        Ok(Node { via, below, within_ms, hint })
    }

    /// The folder of one that does not run.
    pub(super) fn stopped(dir: &Path) -> Result<Node, Fail> {
        let via = Via::Folder(Box::new(Folder::open(dir)?));
        Ok(Node { via, below: None, within_ms: None, hint: String::new() })
    }

    /// # Errors
    /// Unreachable: 3. Refused: 1, with the node's own words.
    pub fn get<T: View>(&self, path: &str, query: &[(&str, String)]) -> Result<Answer<T>, Fail> {
        let got = self.call(path, query)?;
        let status = got.status;
        let body = self.body(got.body)?;
        parse(self.name(), status, &body)
    }

    /// Looks again at what was answered, until what was asked of another node is answered or that takes
    /// too long: the last look then says what is still on its way.
    ///
    /// # Errors
    /// As [`Node::get`].
    pub fn until<T: View>(
        &self,
        path: &str,
        mut answer: Answer<T>,
        wait: Duration,
        is_on_its_way: impl Fn(&T) -> bool,
    ) -> Result<Answer<T>, Fail> {
        let end = Instant::now() + wait;
        while is_on_its_way(&answer.body) && Instant::now() < end {
            std::thread::sleep(LOOK_AGAIN);
            answer = self.get(path, &[])?;
        }
        Ok(answer)
    }

    /// An answer as it comes, JSON or text.
    ///
    /// # Errors
    /// As [`Node::get`].
    pub fn raw(&self, path: &str) -> Result<Vec<u8>, Fail> {
        let got = self.call(path, &[])?;
        let status = got.status;
        let body = self.body(got.body)?;
        if status < 300 { Ok(body) } else { Err(refused(self.name(), status, &body)) }
    }

    /// # Errors
    /// As [`Node::get`].
    pub fn post<T: View>(&self, path: &str, body: &impl Serialize) -> Result<Answer<T>, Fail> {
        Ok(self.post_new(path, body)?.0)
    }

    /// Also whether something new was made of it (201).
    ///
    /// # Errors
    /// As [`Node::get`].
    pub fn post_new<T: View>(&self, path: &str, body: &impl Serialize) -> Result<(Answer<T>, bool), Fail> {
        let (status, answer) = self.post_by(path, |request| request.send_json(body))?;
        Ok((answer, status == 201))
    }

    /// A body of another content type.
    ///
    /// # Errors
    /// As [`Node::get`].
    pub fn post_as<T: View>(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer<T>, Fail> {
        Ok(self.post_by(path, |request| request.header("content-type", content_type).send(body))?.1)
    }

    /// An answer as it comes, to a body of another content type, sent with these headers.
    ///
    /// # Errors
    /// As [`Node::get`].
    pub fn post_raw(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Vec<u8>, Fail> {
        let with = |request, (name, value): &(&str, &str)| ureq::RequestBuilder::header(request, *name, *value);
        let (status, answer) = self.send(path, |request| headers.iter().fold(request, with).send(body))?;
        if status < 300 { Ok(answer) } else { Err(refused(self.name(), status, &answer)) }
    }

    fn post_by<T: View>(&self, path: &str, send: impl FnOnce(Post) -> Sent) -> Result<(u16, Answer<T>), Fail> {
        let (status, answer) = self.send(path, send)?;
        Ok((status, parse(self.name(), status, &answer)?))
    }

    fn send(&self, path: &str, send: impl FnOnce(Post) -> Sent) -> Result<(u16, Vec<u8>), Fail> {
        let Via::Http { url, agent, token } = &self.via else {
            return Err(Fail::usage("a folder is only read", "start its node, and change it there"));
        };
        let mut request = agent.post(format!("{url}{path}")).header(view::HEADER_OPERATOR, super::who());
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(below) = &self.below {
            request = request.header(view::HEADER_AT, below);
            request = request.query("within_ms", self.within_ms.unwrap_or(WITHIN_MAX_MS / 2).to_string());
        }
        let request = request.config().timeout_recv_response(Some(COMMIT_WAIT)).build();
        let mut response = send(request).map_err(|e| self.unreachable(&e))?;
        let reader = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        let body = reader.read_to_vec().map_err(|e| self.unreachable(&e))?;
        Ok((response.status().as_u16(), body))
    }

    /// A stream, line by line as it comes.
    ///
    /// # Errors
    /// As [`Node::get`].
    pub fn lines(&self, path: &str, query: &[(&str, String)]) -> Result<Lines, Fail> {
        let got = self.call(path, query)?;
        if got.status != 200 {
            let status = got.status;
            let body = self.body(got.body)?;
            return Err(refused(self.name(), status, &body));
        }
        Ok(Lines {
            node: got.header(view::HEADER_NODE),
            as_of: got.header(view::HEADER_AS_OF).parse().unwrap_or_default(),
            after: got.header(view::HEADER_AFTER).parse().unwrap_or(0),
            cut: got.header(view::HEADER_CUT) == "true",
            offline: matches!(self.via, Via::Folder(_)),
            reader: BufReader::new(got.body),
            hint: self.hint.clone(),
        })
    }

    fn call(&self, path: &str, query: &[(&str, String)]) -> Result<Got, Fail> {
        match &self.via {
            Via::Folder(folder) => folder.get(&format!("{path}{}", joined(query))),
            Via::Http { url, agent, token } => {
                let mut request = agent.get(format!("{url}{path}"));
                if let Some(token) = token {
                    request = request.header("authorization", format!("Bearer {token}"));
                }
                for (key, value) in query {
                    request = request.query(key, value);
                }
                if let Some(below) = &self.below {
                    request = request.header(view::HEADER_AT, below);
                }
                let is_for_asker = self.below.is_some() || path == "/v1/ask";
                if let Some(ms) = self.within_ms.filter(|_| is_for_asker) {
                    request = request.query("within_ms", ms.to_string());
                }
                let response = request.call().map_err(|e| self.unreachable(&e))?;
                let text = |v: &ureq::http::HeaderValue| v.to_str().unwrap_or_default().to_owned();
                let headers = response.headers().iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect();
                let status = response.status().as_u16();
                Ok(Got { status, headers, body: Box::new(response.into_body().into_reader()) })
            }
        }
    }

    fn body(&self, reader: Box<dyn Read>) -> Result<Vec<u8>, Fail> {
        let mut body = Vec::new();
        reader.take(ANSWER_BYTES_MAX).read_to_end(&mut body).map_err(|e| self.broken(&e))?;
        Ok(body)
    }

    fn name(&self) -> &str {
        match &self.via {
            Via::Http { url, .. } => url,
            Via::Folder(_) => "the folder",
        }
    }

    /// Where a change will be made, for whoever has to confirm it.
    pub fn place(&self) -> String {
        match &self.below {
            Some(below) => format!("{below}, through {}", self.name()),
            None => self.name().to_owned(),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Fail {
        let hint = match error {
            e if https::is_untrusted(e) => "`--ca FILE` says whose certificates to trust, `--cert FILE` which one is \
                                            shown; `citybrain doctor` there looks at the node's"
                .to_owned(),
            // Nobody listens.
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => self.hint.clone(),
            // What a server of TLS does when somebody speaks plainly; and a broker.
            ureq::Error::Io(_) | ureq::Error::Protocol(_) if self.name().starts_with("http://") => {
                "if it speaks TLS, write https://; is it the port of the node's `[api]`, and not its broker's?"
                    .to_owned()
            }
            _ => self.hint.clone(),
        };
        Fail::unreachable(format!("cannot reach the node at {}: {error}", self.name()), hint)
    }

    fn broken(&self, error: &std::io::Error) -> Fail {
        Fail::unreachable(format!("the answer of {} broke off: {error}", self.name()), self.hint.clone())
    }
}

/// `?a=1&b=2`, escaped; empty without any.
pub(crate) fn joined(query: &[(&str, String)]) -> String {
    let pairs: Vec<String> = query.iter().map(|(k, v)| format!("{k}={}", segment(v))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

pub(crate) fn parse<T: View>(name: &str, status: u16, body: &[u8]) -> Result<Answer<T>, Fail> {
    // A node that is not ready answers 503 and says so in the view itself.
    match Answer::parse(body) {
        Ok(answer) => Ok(answer),
        Err(_) if status >= 300 => Err(refused(name, status, body)),
        Err(e) => Err(Fail::no(
            "foreign",
            format!("{name} answers in another language: {e}"),
            "is it a citybrain, of this version? `citybrain version` says which this one is",
        )),
    }
}

const BADLY_ASKED: [&str; 4] = ["bad-address", "bad-level", "bad-query", "bad-selector"];

pub(crate) fn refused(name: &str, status: u16, body: &[u8]) -> Fail {
    let code = if status == 504 { 3 } else { 1 };
    if let Ok(view::Unanswered { failure, known: Some(known) }) = serde_json::from_slice(body) {
        let known = Answer::parse(known.to_string().as_bytes()).ok().map(Box::new);
        return Fail { code, failure: typed(failure), known, ..Fail::unreachable("", "") };
    }
    match serde_json::from_slice::<Failure>(body).map(typed) {
        // It was typed wrong, and only the node could tell.
        Ok(failure) if BADLY_ASKED.contains(&failure.error.as_str()) => {
            Fail { code: 2, failure, ..Fail::unreachable("", "") }
        }
        Ok(failure) => Fail { code, failure, ..Fail::unreachable("", "") },
        Err(_) => Fail::new(code, "foreign", format!("{name} answers with HTTP status {status}"), "is it a citybrain?"),
    }
}

/// With its hint for whoever types.
fn typed(failure: Failure) -> Failure {
    Failure { hint: as_flags(&failure.hint), ..failure }
}

/// A stream of lines, and whose it is.
pub struct Lines {
    pub node: String,
    pub as_of: chrono::DateTime<chrono::Utc>,
    /// Nothing up to here was looked at.
    pub after: u64,
    /// More was there than comes over the links.
    pub cut: bool,
    /// Read from a stopped node's folder.
    pub offline: bool,
    reader: BufReader<Box<dyn Read>>,
    hint: String,
}

impl Lines {
    /// What one of many answered.
    pub(crate) fn of_reply(reply: &view::Reply, text: &str) -> Lines {
        Lines {
            node: reply.node.to_string(),
            #[allow(clippy::disallowed_methods, reason = "it has just come")]
            as_of: chrono::Utc::now(),
            after: 0,
            cut: reply.cut,
            offline: false,
            reader: BufReader::new(Box::new(std::io::Cursor::new(text.to_owned()))),
            hint: String::new(),
        }
    }

    #[cfg(test)]
    pub fn of(node: &str, text: &'static str) -> Lines {
        let reader: Box<dyn Read> = Box::new(text.as_bytes());
        Lines {
            node: node.into(),
            as_of: view::time_of(0),
            after: 0,
            cut: false,
            offline: false,
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
