//! Whose page asks: what keeps other people's web pages out where a request needs no token.
//!
//! A browser lets any page send a request to any host, this machine's own included, and one whose domain
//! is made to lead here (DNS rebinding) may read the answer, too. It says so: by `Origin`,
//! `Sec-Fetch-Site` (Fetch Metadata), and by the domain in `Host`. Whatever is no browser says neither
//! of the first two, and finds this machine by an address, as `localhost`, or by a name without a
//! domain (a machine's own, a container's).

use super::{Refusal, table};
use axum::extract::{Request, State as From};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use citybrain_shared::view;
use std::net::IpAddr;
use std::sync::Arc;

const FETCH_SITE: &str = "sec-fetch-site";

/// Before everything, where there are no tokens: whoever asks is an operator then. What needs no token
/// anywhere (health checks) is for every name. `own`: this machine's name.
pub async fn own_pages(From(own): From<Arc<str>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_open = table::of(request.method(), request.uri().path()).is_some_and(|said| said.needs.is_none())
        && !headers.contains_key(view::HEADER_AT);
    if !is_open {
        if let Err(refused) = check_page(headers) {
            return refused.into_response();
        }
        let authority = request.uri().authority().map(Authority::as_str);
        let named = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?")).chain(authority);
        for host in named {
            if !is_here(host, &own) {
                return foreign_host(host).into_response();
            }
        }
    }
    next.run(request).await
}

/// # Errors
/// 403: a web page of another origin sent this.
pub fn check_page(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let foreign = headers.get_all(header::ORIGIN).iter().map(|o| o.to_str().unwrap_or("?")).find(|origin| {
        let at = origin.split_once("://").map(|(_, at)| at);
        !at.zip(host).is_some_and(|(at, host)| at.eq_ignore_ascii_case(host))
    });
    let crossed = headers.get_all(FETCH_SITE).iter().any(|site| site != "same-origin" && site != "none");
    let said = match (foreign, crossed) {
        (Some(origin), _) => format!("a web page of `{origin}`"),
        (None, true) => "a web page of another site".to_owned(),
        (None, false) => return Ok(()),
    };
    let hint = "a program that asks by itself sends neither `Origin` nor `Sec-Fetch-Site`; a page of yours is \
                named by `[api] origins`, beside a `tokens_file`, and brings a token of it";
    Err(Refusal::new(StatusCode::FORBIDDEN, "foreign-page", format!("{said} asks, and not this node's own"), hint))
}

/// Does `host` (a `Host` header: a name or an address, perhaps with a port) name this machine, whoever
/// says where names lead?
fn is_here(host: &str, own: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    if name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    // Names without a domain are given out by the machine or its network; `localhost` is by RFC 6761 its own.
    !name.contains('.') || name.ends_with(".localhost") || name.eq_ignore_ascii_case(own)
}

fn foreign_host(host: &str) -> Refusal {
    let detail = format!("`{host}` is no name of this machine: a page of that domain could be asking");
    let hint = "ask by address or as `localhost`; with `[api] tokens_file` every name is good, and a proxy in front \
                may send `Host: localhost`";
    Refusal::new(StatusCode::FORBIDDEN, "foreign-host", detail, hint)
}

/// What this machine calls itself.
pub fn machine() -> Arc<str> {
    rustix::system::uname().nodename().to_string_lossy().as_ref().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(pairs: &[(&'static str, &str)]) -> bool {
        let headers = pairs.iter().map(|(name, value)| {
            (name.parse::<axum::http::HeaderName>().unwrap(), value.parse::<axum::http::HeaderValue>().unwrap())
        });
        check_page(&headers.collect()).is_ok()
    }

    #[test]
    fn a_page_of_another_origin_is_refused_and_a_program_or_a_typed_address_is_not() {
        let host = ("host", "127.0.0.1:8080");
        for good in [
            &[host][..],
            &[],
            &[host, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
            &[("host", "LocalHost:8080"), ("origin", "http://localhost:8080")],
        ] {
            assert!(page(good), "{good:?}");
        }
        for bad in [
            &[host, ("origin", "https://evil.example")][..],
            &[host, ("origin", "null")],
            // Another port is another page.
            &[host, ("origin", "http://127.0.0.1:3000"), ("sec-fetch-site", "same-site")],
            &[host, ("origin", "http://localhost:8080")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("origin", "http://127.0.0.1:8080"), ("origin", "https://evil.example")],
            &[("origin", "http://127.0.0.1:8080")],
        ] {
            assert!(!page(bad), "{bad:?}");
        }
    }

    #[test]
    fn this_machine_is_an_address_localhost_its_own_name_or_a_name_without_a_domain() {
        let here = |host: &str| is_here(host, "gate-7.city.example");
        for good in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "[::1]:8080",
            "10.0.0.5:80",
            "localhost:8080",
            "LOCALHOST.",
            "node.localhost:1",
            "citybrain:8080",
            "gate-7.city.example:8080",
        ] {
            assert!(here(good), "{good}");
        }
        for bad in ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "a b", "", "?"] {
            assert!(!here(bad), "{bad}");
        }
    }
}
