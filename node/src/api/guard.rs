//! Who may pass: the door before every route, where the config names a tokens file.
//!
//! What a route needs stands in the [`table`]: health checks pass without a token; a reader may read; a
//! worker may also open and step cases, and acknowledge and shelve alarms; a supervisor means more by it, and
//! clears alarms; an app does what a resident may, with the cases that it brought, here and by Open311, which asks
//! for itself; a gateway brings and fetches messages of CAP; whatever else changes something needs an operator.
//! A question to a node below is judged here, where it comes in: the nodes of a tree trust those
//! above them. [`Caller`] is what of cases somebody may see and do.

use super::binding::{self, Carried};
use super::intake::{BATCH_BYTES_MAX, Urgent};
use super::listen::Peer;
use super::origin::check_page;
use super::{Refusal, table};
use crate::brain::cases::machine::{self, APP, app_of, is_for_others, is_residents, is_taken_back, roles};
use crate::brain::cases::{Held, intake, opener};
use crate::tokens::{Holder, Role, Tokens};
use axum::extract::{ConnectInfo, FromRequestParts, Request, State as From};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use citybrain_shared::case::{self, Ask, Case, Entry, Verb};
use citybrain_shared::event::{Envelope, Priority};
use citybrain_shared::record::Header;
use citybrain_shared::{Address, view, words};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// By whose word a request is judged.
#[derive(Clone)]
pub struct Judge {
    pub tokens: Arc<Tokens>,
    /// Is a category of that name or code one of calls for help?
    pub is_call: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

/// Lets a request pass with its [`Holder`] among its extensions, or answers 401 or 403. A token goes
/// before a certificate.
pub async fn guard(From(judge): From<Judge>, mut request: Request, next: Next) -> Response {
    let Judge { tokens, is_call } = judge;
    // What is open here is no question to a node below.
    let is_elsewhere = request.headers().contains_key(view::HEADER_AT);
    let at_least = is_elsewhere.then_some((Role::Reader, None));
    let Some((needed, also)) = needed(request.method(), request.uri().path()).or(at_least) else {
        return next.run(request).await;
    };
    // A node below shows whoever asks from above what a reader sees, and an app's cases are this node's.
    let also = also.filter(|also| !is_elsewhere || *also != Role::App);
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let certified = peer.and_then(|ConnectInfo(peer)| peer.certified.as_deref());
    // A browser shows its certificate for whatever page asks, as it never does with a token.
    if let (None, Some(_), Err(refused)) = (bearer(request.headers()), certified, check_page(request.headers())) {
        return refused.into_response();
    }
    let holder = match (bearer(request.headers()), certified) {
        (Some(token), _) => tokens
            .holder(token)
            .ok_or_else(|| unknown("this node does not know that token: it is of another node, or was removed")),
        (None, Some(name)) => tokens.named(name).ok_or_else(|| {
            unknown(&format!("this node has no token of the name `{name}`, which is in the certificate"))
        }),
        (None, None) => Err(unknown("this node answers only those whom it knows, and no token was given")),
    };
    let holder = match holder {
        Ok(holder) => holder,
        Err(refused) => return refused,
    };
    if holder.role < needed && also != Some(holder.role) {
        let Holder { name, role, .. } = holder;
        let or = also.map_or(String::new(), |also| format!(" or {also}"));
        let detail = format!("the token `{name}` has the role {role}, and this needs the role {needed}{or}");
        return forbidden(&detail, needed).into_response();
    }
    if let Err(wait) = tokens.admit(&holder, Instant::now()) {
        let press = as_press(request, &*is_call).await;
        match press.ok_or(wait).and_then(|press| tokens.admit_press(&holder, Instant::now()).map(|()| press)) {
            Ok(press) => {
                request = press;
                request.extensions_mut().insert(Urgent::only(too_many(&holder, wait)));
            }
            Err(wait) => {
                tokens.count_refused(&holder);
                return too_many(&holder, wait).into_response();
            }
        }
    }
    let leave = Leave(Some((tokens, holder.clone())));
    let judged = Judged { caller: Caller::of(&holder), leave, holder: Some(holder) };
    judged.mark(request.extensions_mut());
    next.run(request).await
}

/// The request, if it calls for help: those are counted by themselves, as all residents of an app share its token.
async fn as_press(request: Request, is_call: &(dyn Fn(&str) -> bool + Send + Sync)) -> Option<Request> {
    if request.method() != Method::POST || !["/v1/cases", "/v1/events"].contains(&request.uri().path()) {
        return None;
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BATCH_BYTES_MAX).await.ok()?;
    calls_for_help(&parts, &body, is_call).then(|| Request::from_parts(parts, body.into()))
}

/// Does this POST call for help?
pub(super) fn calls_for_help(parts: &Parts, body: &Bytes, is_call: &(dyn Fn(&str) -> bool + Send + Sync)) -> bool {
    match parts.uri.path() {
        "/v1/cases" => says_press(body, is_call),
        "/v1/events" => carries_press(&parts.headers, body),
        _ => false,
    }
}

/// Does one of the events, read as they will be, call for help?
fn carries_press(headers: &HeaderMap, body: &Bytes) -> bool {
    match binding::read(headers, body) {
        Ok(Carried::One(event)) => is_press(&event),
        Ok(Carried::Batch(events)) => events.iter().any(is_press),
        Err(_) => false,
    }
}

/// An appeal opens a case, and has time.
fn is_press(event: &Bytes) -> bool {
    Envelope::parse(event).is_ok_and(|envelope| {
        let is_urgent = envelope.priority() == Priority::Urgent;
        envelope.kind != case::APPEAL && case::opens_case(&envelope.kind, is_urgent, event)
    })
}

fn says_press(case: &[u8], is_call: &(dyn Fn(&str) -> bool + Send + Sync)) -> bool {
    let said: serde_json::Value = serde_json::from_str(&words::readable(case)).unwrap_or_default();
    case::says_sos(&said["sos"]) || is_call(&intake::word(&said["category"]).unwrap_or_default())
}

/// That whoever asked may go on reading; a request that nobody has judged by a token keeps it.
#[derive(Clone, Debug, Default)]
pub struct Leave(Option<(Arc<Tokens>, Holder)>);

impl Leave {
    /// Asks the file, if it has changed.
    pub fn holds(&self) -> bool {
        self.0.as_ref().is_none_or(|(tokens, holder)| tokens.knows(holder))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Leave {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Leave, Self::Rejection> {
        Ok(parts.extensions.get::<Leave>().cloned().unwrap_or_default())
    }
}

/// All that was judged of a request, for another that is asked in its place.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    caller: Caller,
    leave: Leave,
    holder: Option<Holder>,
}

impl Judged {
    pub fn of(extensions: &Extensions) -> Judged {
        Judged {
            caller: extensions.get().cloned().unwrap_or_default(),
            leave: extensions.get().cloned().unwrap_or_default(),
            holder: extensions.get().cloned(),
        }
    }

    /// Without a token.
    pub fn as_caller(caller: Caller) -> Judged {
        Judged { caller, ..Judged::default() }
    }

    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    pub fn mark(self, extensions: &mut Extensions) {
        extensions.insert(self.caller);
        extensions.insert(self.leave);
        if let Some(holder) = self.holder {
            extensions.insert(holder);
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Judged {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Judged, Self::Rejection> {
        Ok(Judged::of(&parts.extensions))
    }
}

/// What a request needs; `None`: nothing. What no row of the [`table`] is about is there for nobody,
/// which a reader may be told.
/// The second is a role that may, too.
fn needed(method: &Method, path: &str) -> Option<(Role, Option<Role>)> {
    match (table::of(method, path), method) {
        (Some(said), _) => said.needs.map(|role| (role, said.also)),
        (None, &Method::GET | &Method::HEAD) => Some((Role::Reader, None)),
        // Whom the node knows is told what may be done there: it is the method that is wrong.
        (None, _) if !table::methods_at(path).is_empty() => Some((Role::App, None)),
        (None, _) => Some((Role::Operator, None)),
    }
}

/// What whoever asks may see and do with cases. A request that nobody has marked (from above,
/// or on a way that nobody thought of) gets the least.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    #[default]
    Reader,
    /// Asks through the links: the node at which he came in has judged him, and nobody steps a case that way.
    Above { sees_persons: bool },
    /// Speaks for residents, of the cases that it brought itself, and sees no others.
    App(String),
    /// Acts only as a worker, and only in the token's own name.
    Worker(String),
    /// Acts in the token's own name, as a supervisor or as a worker, and gives a second person's word.
    Supervisor(String),
    /// Acts for others too: a resident, a hotline's desk. Without a tokens file, whoever is on the
    /// node's machine.
    Operator,
}

impl Caller {
    pub(super) fn of(holder: &Holder) -> Caller {
        match holder.role {
            Role::Gateway | Role::Reader => Caller::Reader,
            Role::App => Caller::App(holder.name.clone()),
            Role::Worker => Caller::Worker(holder.name.clone()),
            Role::Supervisor => Caller::Supervisor(holder.name.clone()),
            Role::Operator => Caller::Operator,
        }
    }

    /// Names, telephone numbers, and what else says whom to call.
    pub fn sees_persons(&self) -> bool {
        match self {
            Caller::Reader | Caller::App(_) => false,
            Caller::Above { sees_persons } => *sees_persons,
            Caller::Worker(_) | Caller::Supervisor(_) | Caller::Operator => true,
        }
    }

    /// Is this case there for him? `me`: this node.
    pub fn sees(&self, held: &Held, me: &Address) -> bool {
        match self {
            Caller::App(name) => is_of_app(held, me, name),
            _ => true,
        }
    }

    /// Is this record's data for him? Contact data comes in with such events, and goes on in letters.
    pub fn may_read(&self, header: &Header<'_>, payload: &[u8]) -> bool {
        self.sees_persons() || !intake::may_name_persons(header, payload)
    }

    /// In whose name he acts; `said` is what he says.
    ///
    /// # Errors
    /// He may not act at all.
    pub fn acts_as(&self, said: String) -> Result<String, Refusal> {
        match self {
            Caller::Reader | Caller::Above { .. } => Err(forbidden("a reader only reads", Role::Worker)),
            Caller::App(name) => Ok(format!("{APP}{name}")),
            Caller::Worker(name) | Caller::Supervisor(name) => Ok(name.clone()),
            Caller::Operator => Ok(said),
        }
    }

    /// The step as he may ask for it.
    ///
    /// # Errors
    /// When he claims to be what his token is not.
    pub fn asks(&self, verb: Verb, ask: Ask) -> Result<Ask, Refusal> {
        let by = self.acts_as(ask.by.clone())?;
        match self {
            Caller::App(_) => as_resident(by, verb, ask),
            Caller::Supervisor(name) => as_supervisor(name, verb, ask),
            Caller::Worker(_) => {
                if let Some(role) = ask.role.filter(|r| *r != case::Role::Worker) {
                    let detail = format!("a worker's token acts as a worker, not as a {role}");
                    let needed = if role == case::Role::Supervisor { Role::Supervisor } else { Role::Operator };
                    return Err(forbidden(&detail, needed));
                }
                if verb.needs_two() || ask.approved_by.is_some() {
                    return Err(forbidden("a worker's token does not carry a second person's word", Role::Supervisor));
                }
                Ok(Ask { by, role: Some(case::Role::Worker), ..ask })
            }
            // Whose word it is where no role is said, the case tells.
            Caller::Reader | Caller::Above { .. } | Caller::Operator => Ok(Ask { by, ..ask }),
        }
    }

    /// A refusal as it helps him: a role that his token does not let him say is no advice.
    pub fn told(&self, refusal: Refusal) -> Refusal {
        match self {
            Caller::Worker(_) if refusal.failure.error == machine::NOT_YOUR_ROLE => {
                forbidden(&refusal.failure.detail, Role::Supervisor)
            }
            _ => refusal,
        }
    }

    /// May he ask for such a step of this case, once it allows it? Whoever asks through the links is judged where he
    /// came in. `me`: this node.
    pub fn may_ask(&self, case: &Case, history: &[Entry], me: &Address, verb: Verb) -> bool {
        match self {
            Caller::Reader => false,
            Caller::App(_) => is_residents(verb),
            // What needs two persons a worker asks for at a desk, where the second one is.
            Caller::Worker(name) => {
                let opened_it = opener(case, history, me) == Some(name.as_str());
                let is_his = roles(verb).contains(&case::Role::Worker) && !verb.needs_two();
                (is_his || (opened_it && is_taken_back(case, verb))) && !is_for_others(case, verb, name)
            }
            Caller::Supervisor(name) => verb != Verb::Forget && !is_for_others(case, verb, name),
            Caller::Above { .. } | Caller::Operator => true,
        }
    }

    /// # Errors
    /// He is no operator.
    pub fn is_operator(&self) -> Result<(), Refusal> {
        match self {
            Caller::Operator => Ok(()),
            _ => Err(forbidden("only an operator may do this", Role::Operator)),
        }
    }
}

/// Did the app with the token of this name bring it, at this node, by whichever of its two ways?
pub fn is_of_app(held: &Held, me: &Address, name: &str) -> bool {
    held.opener(me).and_then(app_of) == Some(name)
}

/// An app says what a resident may say, and nothing else.
fn as_resident(by: String, verb: Verb, ask: Ask) -> Result<Ask, Refusal> {
    if !is_residents(verb) {
        let detail = format!("`{verb}` is not for residents, and an app's token acts as one");
        let needed = if roles(verb).contains(&case::Role::Worker) && !verb.needs_two() {
            Role::Worker
        } else {
            Role::Supervisor
        };
        return Err(forbidden(&detail, needed));
    }
    if let Some(role) = ask.role.filter(|r| *r != case::Role::Resident) {
        return Err(forbidden(&format!("an app's token acts as a resident, not as a {role}"), Role::Worker));
    }
    let Ask { text, place, solved, satisfied, evidence, seen, .. } = ask;
    Ok(Ask { by, role: Some(case::Role::Resident), text, place, solved, satisfied, evidence, seen, ..Ask::default() })
}

/// A supervisor's token is one person. What needs two is asked for by somebody else, and approved by it.
fn as_supervisor(name: &str, verb: Verb, ask: Ask) -> Result<Ask, Refusal> {
    if let Some(role) = ask.role.filter(|r| *r == case::Role::Resident) {
        let detail = format!("a supervisor's token acts as a supervisor or a worker, not as a {role}");
        return Err(forbidden(&detail, Role::Operator));
    }
    if !verb.needs_two() {
        let role = Some(ask.role.unwrap_or(case::Role::Supervisor));
        if ask.approved_by.is_some() {
            return Err(forbidden("only what needs two persons is approved", Role::Operator));
        }
        return Ok(Ask { by: name.to_owned(), role, ..ask });
    }
    if ask.approved_by.as_deref().is_some_and(|by| by != name) {
        return Err(forbidden("a supervisor's token approves in its own name only", Role::Operator));
    }
    machine::two_persons(&ask.by, name, r#"another asks for it, and this token approves: `"by":"NAME"`"#)?;
    // The role is the asker's, who is somebody else.
    let role = Some(ask.role.unwrap_or_else(|| verb.usual_role()));
    Ok(Ask { role, approved_by: Some(name.to_owned()), ..ask })
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Self::Rejection> {
        Ok(parts.extensions.get::<Caller>().cloned().unwrap_or_default())
    }
}

/// The name of the token that asks; empty where none is needed. What systems number for themselves is told
/// apart by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// No token's name has a blank in it.
    pub fn own(&self, key: String) -> String {
        if self.0.is_empty() { key } else { format!("{} {key}", self.0) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Name, Self::Rejection> {
        Ok(Name(parts.extensions.get::<Holder>().map(|h| h.name.clone()).unwrap_or_default()))
    }
}

fn forbidden(detail: &str, needed: Role) -> Refusal {
    let hint = format!("`citybrain token add NAME --role {needed} --file FILE` makes a token, on the node's machine");
    Refusal::new(StatusCode::FORBIDDEN, "forbidden", detail, hint)
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Whole seconds, at least one.
pub(super) fn retry_after_s(wait: Duration) -> u64 {
    wait.as_secs_f64().ceil().max(1.0) as u64
}

fn too_many(holder: &Holder, wait: Duration) -> Refusal {
    let after_s = retry_after_s(wait);
    let detail = format!("the token `{}` asks too often: there is room again in {after_s} s", holder.name);
    let hint = "ask for more at a time, or raise `requests_per_minute` in `[api]`";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too-many", detail, hint).after(after_s)
}

fn unknown(detail: &str) -> Response {
    let hint = "`authorization: Bearer TOKEN`; for commands `citybrain context add NAME URL --token-file FILE` keeps \
                it, and on the node's own machine `--data-dir DIR` needs none";
    let mut response = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", detail, hint).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(tokens: Arc<Tokens>) -> Judge {
        Judge { tokens, is_call: Arc::new(|category| category == "一键求助") }
    }

    #[test]
    fn health_needs_nothing_reading_a_reader_cases_a_worker_and_all_else_an_operator() {
        let needed = |method: &Method, path: &str| needed(method, path).map(|(role, _)| role);
        for path in ["/v1/cases", "/v1/cases/1/accept", "/v1/services/x/requests"] {
            assert_eq!(needed(&Method::POST, path), Some(Role::Worker));
            assert_eq!(needed(&Method::PUT, path), Some(Role::App), "it is answered 405");
        }
        assert_eq!(needed(&Method::POST, "/v1/casesx"), Some(Role::Operator));
        assert_eq!(needed(&Method::POST, "/v1/cases/import"), Some(Role::Operator), "it writes history");
        assert_eq!(needed(&Method::POST, "/v1/alarms/1/ack"), Some(Role::Worker));
        assert_eq!(needed(&Method::POST, "/v1/alarms/1/shelve"), Some(Role::Worker));
        assert_eq!(needed(&Method::POST, "/v1/alarms/1/clear"), Some(Role::Supervisor));
        assert_eq!(needed(&Method::GET, "/livez"), None);
        assert_eq!(needed(&Method::GET, "/readyz"), None);
        assert_eq!(needed(&Method::GET, "/metrics"), Some(Role::Reader));
        assert_eq!(needed(&Method::HEAD, "/v1/status"), Some(Role::Reader));
        assert_eq!(needed(&Method::POST, "/v1/events"), Some(Role::Operator));
        for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            assert_eq!(needed(&method, "/v1/events"), Some(Role::App), "{method} is answered 405");
            assert_eq!(needed(&method, "/v1/nothing"), Some(Role::Operator));
        }
    }

    #[test]
    fn a_gateway_speaks_cap_and_nothing_else() {
        let may = |method: Method, path| needed(&method, path).is_some_and(|(_, also)| also == Some(Role::Gateway));
        for (method, path) in [
            (Method::POST, "/v1/cap"),
            (Method::GET, "/v1/cap"),
            (Method::GET, "/v1/cap.atom"),
            (Method::GET, "/v1/alarms/7/cap"),
        ] {
            assert!(may(method.clone(), path), "{method} {path}");
        }
        for path in ["/v1/cap/cancel", "/v1/events", "/v1/cases", "/v1/send", "/v1/alarms/7/ack"] {
            assert!(!may(Method::POST, path), "{path}");
        }
        assert!(Role::Gateway < Role::Reader && !may(Method::GET, "/v1/alarms"));
    }

    #[test]
    fn a_worker_acts_in_his_own_name_and_as_nothing_else_and_a_reader_not_at_all() {
        let ask = |role, approved_by: Option<&str>| Ask {
            by: "站长".into(),
            role,
            approved_by: approved_by.map(Into::into),
            ..Ask::default()
        };
        let li = Caller::Worker("li".into());
        let done = li.asks(Verb::Accept, ask(None, None)).unwrap();
        assert_eq!((done.by.as_str(), done.role), ("li", Some(case::Role::Worker)));
        for role in [case::Role::Supervisor, case::Role::Resident] {
            assert_eq!(li.asks(Verb::Close, ask(Some(role), None)).unwrap_err().status, StatusCode::FORBIDDEN);
        }
        for approved_by in [None, Some("站长")] {
            assert_eq!(li.asks(Verb::Extend, ask(None, approved_by)).unwrap_err().status, StatusCode::FORBIDDEN);
        }
        // No hint is to say a role that his token does not let him say.
        let refused =
            |error| Refusal::new(StatusCode::FORBIDDEN, error, "for a supervisor", r#"`"role":"supervisor"`"#);
        let hint = |caller: &Caller, error| caller.told(refused(error)).failure.hint;
        assert!(hint(&li, machine::NOT_YOUR_ROLE).contains("--role supervisor --file FILE"));
        for (caller, error) in [(&li, "handler"), (&Caller::Operator, machine::NOT_YOUR_ROLE)] {
            assert_eq!(hint(caller, error), r#"`"role":"supervisor"`"#);
        }
        assert!(li.is_operator().is_err());
        let desk = Caller::Operator.asks(Verb::Extend, ask(Some(case::Role::Supervisor), Some("x"))).unwrap();
        assert_eq!((desk.by.as_str(), desk.role), ("站长", Some(case::Role::Supervisor)));
        assert!(Caller::Reader.asks(Verb::Comment, ask(None, None)).is_err());
        assert!(!Caller::default().sees_persons() && li.sees_persons());
    }

    #[test]
    fn a_supervisor_is_one_person_and_the_second_one_where_two_are_needed() {
        let ask = |role, by: &str, approved_by: Option<&str>| Ask {
            by: by.into(),
            role,
            approved_by: approved_by.map(Into::into),
            ..Ask::default()
        };
        let zhan = Caller::Supervisor("zhan".into());
        let closed = zhan.asks(Verb::Close, ask(None, "somebody", None)).unwrap();
        assert_eq!((closed.by.as_str(), closed.role), ("zhan", Some(case::Role::Supervisor)));
        let started = zhan.asks(Verb::Start, ask(Some(case::Role::Worker), "", None)).unwrap();
        assert_eq!((started.by.as_str(), started.role), ("zhan", Some(case::Role::Worker)));
        let extended = zhan.asks(Verb::Extend, ask(None, "li", None)).unwrap();
        assert_eq!((extended.by.as_str(), extended.approved_by.as_deref()), ("li", Some("zhan")));
        for (verb, wrong) in [
            (Verb::Evaluate, ask(Some(case::Role::Resident), "", None)),
            (Verb::Extend, ask(None, "li", Some("mia"))),
            (Verb::Close, ask(None, "", Some("zhan"))),
        ] {
            assert_eq!(zhan.asks(verb, wrong).unwrap_err().status, StatusCode::FORBIDDEN, "{verb}");
        }
        // Whoever asks is another: this one can do no more than approve.
        for by in ["zhan", " zhan "] {
            let refused = zhan.asks(Verb::Suspend, ask(None, by, None)).unwrap_err();
            assert_eq!(
                (refused.failure.error.as_str(), refused.status),
                ("own-approval", StatusCode::FORBIDDEN),
                "{by}"
            );
            assert!(refused.failure.hint.contains(r#"`"by":"NAME"`"#), "{}", refused.failure.hint);
        }
        assert!(zhan.is_operator().is_err() && zhan.sees_persons());
        assert_eq!(zhan.acts_as("li".into()).unwrap(), "zhan");
    }

    #[tokio::test]
    async fn a_certificate_does_not_speak_for_a_page_of_another_origin_and_a_token_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, format!("anna operator {}\n", crate::tokens::hash("secret"))).unwrap();
        let limits = crate::tokens::Limits::of(&citybrain_shared::config::Api::default());
        let tokens = Arc::new(Tokens::new(path, "here", limits));
        let routes = axum::Router::new().route("/v1/status", axum::routing::get(|| async {}));
        let routes = routes.layer(axum::middleware::from_fn_with_state(judge(tokens), guard));
        let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), certified: Some("anna".into()) };
        for (headers, status) in [
            (&[][..], 200),
            (&[("origin", "https://node:8080")], 200),
            (&[("origin", "https://evil.example")], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("origin", "https://evil.example"), ("authorization", "Bearer secret")], 200),
        ] {
            let mut request = axum::http::Request::get("/v1/status").header("host", "node:8080");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let mut request = request.body(axum::body::Body::empty()).unwrap();
            request.extensions_mut().insert(ConnectInfo(peer.clone()));
            let answer = tower_service::Service::call(&mut routes.clone(), request).await.unwrap();
            assert_eq!(answer.status(), status, "{headers:?}");
        }
    }

    #[tokio::test]
    async fn a_certificate_of_an_app_is_that_app_within_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, format!("citizens app {}\n", crate::tokens::hash("secret"))).unwrap();
        let api = citybrain_shared::config::Api {
            requests_per_minute_of: [("app".to_owned(), 2)].into(),
            ..Default::default()
        };
        let tokens = Arc::new(Tokens::new(path, "here", crate::tokens::Limits::of(&api)));
        let who = |caller: Caller| async move { format!("{caller:?}") };
        let routes = axum::Router::new().route("/v1/cases", axum::routing::get(who));
        let routes = routes.layer(axum::middleware::from_fn_with_state(judge(tokens), guard));
        let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), certified: Some("citizens".into()) };
        let ask = |at: Option<&'static str>| {
            let mut request = axum::http::Request::get("/v1/cases");
            if let Some(at) = at {
                request = request.header(view::HEADER_AT, at);
            }
            let mut request = request.body(axum::body::Body::empty()).unwrap();
            request.extensions_mut().insert(ConnectInfo(peer.clone()));
            tower_service::Service::call(&mut routes.clone(), request)
        };
        for _ in 0..2 {
            let body = ask(None).await.unwrap().into_body();
            assert_eq!(axum::body::to_bytes(body, 100).await.unwrap(), "App(\"citizens\")");
        }
        assert_eq!(ask(None).await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(ask(Some("c/s")).await.unwrap().status(), StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn of_an_app_whose_minute_is_used_up_calls_for_help_pass_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, format!("citizens app {}\n", crate::tokens::hash("secret"))).unwrap();
        let api = citybrain_shared::config::Api {
            requests_per_minute_of: [("app".to_owned(), 1)].into(),
            ..Default::default()
        };
        let tokens = Arc::new(Tokens::new(path, "here", crate::tokens::Limits::of(&api)));
        let routes = axum::Router::new()
            .route("/v1/cases", axum::routing::get(|| async {}).post(|body: String| async move { body }))
            .route("/v1/cases/{id}/comment", axum::routing::post(|body: String| async move { body }));
        let routes = routes.layer(axum::middleware::from_fn_with_state(judge(tokens.clone()), guard));
        let ask = |method: &str, path: &str, body: &'static str| {
            let request =
                axum::http::Request::builder().method(method).uri(path).header("authorization", "Bearer secret");
            let request = request.body(axum::body::Body::from(body)).unwrap();
            tower_service::Service::call(&mut routes.clone(), request)
        };
        assert_eq!(ask("GET", "/v1/cases", "").await.unwrap().status(), StatusCode::OK);
        let press = r#"{"sos": true, "place": {"text": "7栋"}}"#;
        for (path, body, status) in [
            ("/v1/cases", press, 200),
            ("/v1/cases", r#"{"category": "一键求助"}"#, 200),
            ("/v1/cases", r#"{"sos": true, "category": 7}"#, 200),
            ("/v1/cases", r#"{"sos": "1"}"#, 200),
            ("/v1/cases", r#"{"sos": false, "category": "路灯"}"#, 429),
            ("/v1/cases", r#"{"category": "路灯"}"#, 429),
            ("/v1/cases", r#"{"sos": 0}"#, 429),
            ("/v1/cases", "no JSON", 429),
            ("/v1/cases/1/comment", press, 429),
        ] {
            let answer = ask("POST", path, body).await.unwrap();
            assert_eq!(answer.status(), status, "{path} {body}");
            if status == 200 {
                assert_eq!(axum::body::to_bytes(answer.into_body(), 100).await.unwrap(), body, "it comes in whole");
            }
        }
        assert_eq!(tokens.refused().map(|(_, n)| n).sum::<u64>(), 5, "what passed was not refused");
        for _ in 4..crate::tokens::PRESSES_PER_MINUTE_MIN {
            assert_eq!(ask("POST", "/v1/cases", press).await.unwrap().status(), StatusCode::OK);
        }
        assert_eq!(ask("POST", "/v1/cases", press).await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    }

    #[tokio::test]
    async fn an_event_that_is_a_press_calls_for_help_in_either_mode() {
        let pressed = |path: &str, headers: &[(&str, &str)], body: &'static str| {
            let request = axum::http::Request::builder().method("POST").uri(path);
            let request = headers.iter().fold(request, |r, (name, value)| r.header(*name, *value));
            let request = request.body(axum::body::Body::from(body)).unwrap();
            async { as_press(request, &|_| false).await.is_some() }
        };
        const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");
        const ONE: (&str, &str) = ("content-type", "application/cloudevents+json");
        const JSON: (&str, &str) = ("content-type", "application/json");
        let of = |kind| [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/a"), ("ce-type", kind), JSON];
        let sos = r#"{"specversion": "1.0", "id": "1", "source": "/a", "type": "city.sos"}"#;
        let button = r#"{"specversion": "1.0", "id": "1", "source": "/a", "type": "acme.button", "priority": "urgent",
            "data": {"sos": true}}"#;
        let appeal =
            r#"{"specversion": "1.0", "id": "1", "source": "/a", "type": "city.appeal", "priority": "urgent"}"#;
        let batch = r#"[{"specversion": "1.0", "id": "2", "source": "/a", "type": "city.count"},
            {"specversion": "1.0", "id": "1", "source": "/a", "type": "city.sos"}]"#;
        let other = ("ce-type", "city.air.reading.v1");
        for (path, headers, body, is_press) in [
            ("/v1/events", &of("city.sos")[..], "{}", true),
            ("/v1/events", &of("%63ity.sos"), "{}", true),
            ("/v1/events", &of("city.air.reading.v1"), sos, false),
            ("/v1/events", &[ONE], sos, true),
            ("/v1/events", &[JSON], sos, true),
            ("/v1/events", &[ONE, other], sos, true),
            ("/v1/events", &[ONE], button, true),
            ("/v1/events", &[ONE], appeal, false),
            ("/v1/events", &[BATCH, ("ce-type", "city.sos")], "[]", false),
            ("/v1/events", &[BATCH], batch, true),
            ("/v1/events", &[BATCH], sos, false),
            ("/v1/events", &[ONE, ("ce-type", "city.sos")], appeal, false),
            ("/v1/cases", &[other], r#"{"sos": true}"#, true),
            ("/v1/cases", &[("ce-type", "city.sos")], sos, false),
        ] {
            assert_eq!(pressed(path, headers, body).await, is_press, "{path} {headers:?} {body}");
        }
        // Whatever a device takes for an encoding.
        let gbk =
            b"{\"specversion\":\"1.0\",\"source\":\"/a\",\"type\":\"city.sos\",\"data\":{\"title\":\"\xbe\xc8\"}}";
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
        assert!(carries_press(&headers, &Bytes::from_static(gbk)));
        assert!(says_press(b"{\"sos\":true,\"title\":\"\xbe\xc8\"}", &|_| false));
    }

    #[test]
    fn an_app_says_what_residents_say_and_carries_nothing_else() {
        let app = Caller::App("citizens".into());
        let said = Ask { by: "li".into(), text: Some("x".into()), unit: Some("u".into()), ..Ask::default() };
        for verb in Verb::ALL {
            let asked = app.asks(*verb, said.clone());
            let theirs = [Verb::Evaluate, Verb::Reopen, Verb::Withdraw, Verb::Comment].contains(verb);
            assert_eq!(asked.is_ok(), theirs, "{verb}");
            let Ok(asked) = asked else { continue };
            assert_eq!((asked.by.as_str(), asked.role, asked.unit), ("app:citizens", Some(case::Role::Resident), None));
        }
        assert!(app.asks(Verb::Comment, Ask { role: Some(case::Role::Worker), ..said }).is_err());
        assert!(!app.sees_persons() && app.is_operator().is_err());
    }

    #[test]
    fn a_token_comes_as_bearer_and_nothing_else() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(with("Basic abc"), None);
        assert_eq!(with("Bearer"), None);
    }
}
