//! Who may pass: the door before every route, where the config names a tokens file.
//!
//! Health checks pass without a token. A reader may read; a worker may also open and step cases; an
//! app has only Open311, which asks for itself; whatever else changes something needs an operator.
//! A question to a node below is judged here, where it comes in: the nodes of a tree trust those
//! above them. [`Caller`] is what of cases somebody may see and do.

use super::Refusal;
use crate::brain::cases::intake;
use crate::tokens::{Holder, Role, Tokens};
use axum::extract::{FromRequestParts, Request, State as From};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use citybrain_shared::case::{self, Ask};
use citybrain_shared::record::Header;
use std::sync::Arc;

/// Lets a request pass with its [`Holder`] among its extensions, or answers 401 or 403.
pub async fn guard(From(tokens): From<Arc<Tokens>>, mut request: Request, next: Next) -> Response {
    let Some(needed) = needed(request.method(), request.uri().path()) else { return next.run(request).await };
    let Some(token) = bearer(request.headers()) else {
        return unknown("this node answers only those whom it knows, and no token was given");
    };
    let Some(holder) = tokens.holder(token) else {
        return unknown("this node does not know that token: it is of another node, or was removed");
    };
    if holder.role < needed {
        let Holder { name, role } = holder;
        let detail = format!("the token `{name}` is of a {role}, and this needs the role {needed}");
        return forbidden(&detail, needed).into_response();
    }
    request.extensions_mut().insert(Caller::of(&holder));
    request.extensions_mut().insert(holder);
    next.run(request).await
}

/// What a request needs; `None`: nothing.
fn needed(method: &Method, path: &str) -> Option<Role> {
    match (method, path) {
        (_, "/livez" | "/readyz") => None,
        (&Method::GET | &Method::HEAD, _) => Some(Role::Reader),
        (&Method::POST, path) if is_case_work(path) => Some(Role::Worker),
        _ => Some(Role::Operator),
    }
}

fn is_case_work(path: &str) -> bool {
    path == "/v1/cases"
        || (path.starts_with("/v1/cases/") && path != "/v1/cases/import")
        || (path.starts_with("/v1/services/") && path.ends_with("/requests"))
}

/// What whoever asks may see and do with cases. A request that nobody has marked (from above,
/// or on a way that nobody thought of) gets the least.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    #[default]
    Reader,
    /// Acts only as a worker, and only in the token's own name.
    Worker(String),
    /// Acts for others too: a supervisor, a hotline's desk. Without a tokens file, whoever is on the
    /// node's machine.
    Operator,
}

impl Caller {
    fn of(holder: &Holder) -> Caller {
        match holder.role {
            Role::App | Role::Reader => Caller::Reader,
            Role::Worker => Caller::Worker(holder.name.clone()),
            Role::Operator => Caller::Operator,
        }
    }

    /// Names, telephone numbers, and what else says whom to call.
    pub fn sees_persons(&self) -> bool {
        *self != Caller::Reader
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
            Caller::Reader => Err(forbidden("a reader opens and steps no case", Role::Worker)),
            Caller::Worker(name) => Ok(name.clone()),
            Caller::Operator => Ok(said),
        }
    }

    /// The step as he may ask for it.
    ///
    /// # Errors
    /// When he claims to be what his token is not.
    pub fn asks(&self, ask: Ask) -> Result<Ask, Refusal> {
        let by = self.acts_as(ask.by.clone())?;
        if let Caller::Worker(_) = self {
            if let Some(role) = ask.role.filter(|r| *r != case::Role::Worker) {
                let detail = format!("a worker's token acts as a worker, not as a {role}");
                return Err(forbidden(&detail, Role::Operator));
            }
            if ask.approved_by.is_some() {
                return Err(forbidden("a worker's token does not carry a second person's word", Role::Operator));
            }
            return Ok(Ask { by, role: Some(case::Role::Worker), ..ask });
        }
        Ok(Ask { by, ..ask })
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

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Self::Rejection> {
        Ok(parts.extensions.get::<Caller>().cloned().unwrap_or_default())
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

fn unknown(detail: &str) -> Response {
    let hint = "`--token-file FILE`, or `citybrain context add NAME URL --token-file FILE`; on the node's own \
                machine `--data-dir DIR`";
    let mut response = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", detail, hint).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_needs_nothing_reading_a_reader_cases_a_worker_and_all_else_an_operator() {
        for path in ["/v1/cases", "/v1/cases/1/accept", "/v1/services/x/requests"] {
            assert_eq!(needed(&Method::POST, path), Some(Role::Worker));
            assert_eq!(needed(&Method::PUT, path), Some(Role::Operator));
        }
        assert_eq!(needed(&Method::POST, "/v1/casesx"), Some(Role::Operator));
        assert_eq!(needed(&Method::POST, "/v1/cases/import"), Some(Role::Operator), "it writes history");
        assert_eq!(needed(&Method::GET, "/livez"), None);
        assert_eq!(needed(&Method::GET, "/readyz"), None);
        assert_eq!(needed(&Method::GET, "/metrics"), Some(Role::Reader));
        assert_eq!(needed(&Method::HEAD, "/v1/status"), Some(Role::Reader));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            assert_eq!(needed(&method, "/v1/events"), Some(Role::Operator));
        }
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
        let done = li.asks(ask(None, None)).unwrap();
        assert_eq!((done.by.as_str(), done.role), ("li", Some(case::Role::Worker)));
        for role in [case::Role::Supervisor, case::Role::Resident] {
            assert_eq!(li.asks(ask(Some(role), None)).unwrap_err().status, StatusCode::FORBIDDEN);
        }
        assert!(li.asks(ask(None, Some("站长"))).is_err());
        assert!(li.is_operator().is_err());
        let desk = Caller::Operator.asks(ask(Some(case::Role::Supervisor), Some("x"))).unwrap();
        assert_eq!((desk.by.as_str(), desk.role), ("站长", Some(case::Role::Supervisor)));
        assert!(Caller::Reader.asks(ask(None, None)).is_err());
        assert!(!Caller::default().sees_persons() && li.sees_persons());
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
