//! What a request brings, read: its query, its path's variables, its body. Whatever does not read is
//! refused as everything else is, with a [`view::Failure`](citybrain_shared::view::Failure).

use super::{Refusal, intake};
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use citybrain_shared::config::closest;
use citybrain_shared::limits;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use std::num::NonZeroUsize;

/// The query string, typed.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    let given = || form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let read = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(given()));
    read.map_err(|e| {
        let name = e.path().to_string();
        let value = given().find(|(given, _)| *given == name).map(|(_, value)| value);
        let (detail, hint) = unread(&name, value.as_deref(), &e.inner().to_string());
        let usual = "`GET /openapi.json` says what each question takes; the commands' `--help` does, too";
        Refusal::bad("bad-query", detail, hint.unwrap_or_else(|| usual.to_owned()))
    })
}

/// What did not read, and what would: serde says it in the words of a program. `said` is its text, of a value `given`
/// under that name.
fn unread(name: &str, given: Option<&str>, said: &str) -> (String, Option<String>) {
    let what = if [".", ""].contains(&name) { "the request".to_owned() } else { format!("`{name}`") };
    if let Some((word, known)) = named(said, "unknown field ") {
        return (format!("`{word}` is not known here"), Some(one_of(word, known)));
    }
    if let Some((word, known)) = named(said, "unknown variant ") {
        return (format!("{what} is `{word}`"), Some(one_of(word, known)));
    }
    if let Some((word, _)) = named(said, "missing field ") {
        return (format!("`{word}` is missing"), None);
    }
    if let Some((word, _)) = named(said, "duplicate field ") {
        return (format!("`{word}` is given twice"), None);
    }
    let typed = ["invalid type: ", "invalid value: "].iter().find_map(|head| said.strip_prefix(head));
    if let Some((is, wanted)) = typed.and_then(|typed| typed.rsplit_once(", expected ")) {
        return (format!("{what} is {}", given.map_or_else(|| value(is), |g| format!("`{g}`"))), kind(wanted));
    }
    let is = || format!("{what} is `{}`", given.unwrap_or_default());
    if ["invalid digit", "cannot parse integer", "number too"].iter().any(|head| said.starts_with(head)) {
        return (is(), Some("a whole number".to_owned()));
    }
    if said.contains("`true` or `false`") {
        return (is(), Some("`true` or `false`".to_owned()));
    }
    match said.starts_with("invalid ") || said.contains("untagged") {
        true => (format!("{what} does not read"), None),
        // What the types of cases, nodes and times say of themselves.
        false => (format!("{what}: {said}"), None),
    }
}

/// The word of such a text, and those that it lists behind it.
fn named<'t>(said: &'t str, head: &str) -> Option<(&'t str, Vec<&'t str>)> {
    let mut quoted = said.strip_prefix(head)?.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

fn one_of(word: &str, known: Vec<&str>) -> String {
    if known.is_empty() {
        return "nothing is taken here".to_owned();
    }
    match closest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", known.join(", ")),
    }
}

/// A value, as JSON calls it: serde has `integer `7`` and `string "x"`.
fn value(said: &str) -> String {
    match said {
        "sequence" => "a list".to_owned(),
        "map" => "an object".to_owned(),
        _ if said.starts_with("string ") => "a text".to_owned(),
        _ => said.split('`').nth(1).map_or_else(|| said.to_owned(), |plain| format!("`{plain}`")),
    }
}

/// What a value must be, as JSON calls it.
fn kind(wanted: &str) -> Option<String> {
    let is_number = |first: char| wanted.strip_prefix(first).is_some_and(|bits| bits.parse::<u8>().is_ok());
    let kind = match wanted {
        "a nonzero usize" | "a nonzero u32" | "a nonzero u64" => "a whole number, 1 or more",
        "usize" | "isize" => "a whole number",
        _ if is_number('u') || is_number('i') => "a whole number",
        _ if is_number('f') => "a number",
        "a boolean" => "`true` or `false`",
        "a string" => "a text",
        "a sequence" => "a list",
        "a map" => "an object",
        _ if wanted.starts_with("struct ") => "an object",
        _ => return None,
    };
    Some(kind.to_owned())
}

/// What a request has that says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// How much of a list is wanted: as many as it may have at most, and more is refused, so that nobody takes what is there
/// for all of it.
pub(super) fn limited(limit: Option<NonZeroUsize>, default: usize, max: usize) -> Result<usize, Refusal> {
    match limit.map_or(default, NonZeroUsize::get) {
        limit if limit <= max => Ok(limit),
        limit => Err(Refusal::bad("bad-query", format!("`limit` is {limit}"), format!("1 to {max}"))),
    }
}

/// A change's body, typed; an empty one is `{}`. `such_as` is what one looks like.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes, such_as: &str) -> Result<T, Refusal> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    let bad = |(detail, fits): (String, Option<String>)| {
        let fits = fits.map_or_else(String::new, |fits| format!("{fits}; "));
        Refusal::bad("bad-request", detail, format!("{fits}such as {such_as}"))
    };
    // It would read as an object whose members come in their order.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(bad(("a request is a JSON object, and this is a list".to_owned(), None)));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let (said, name) = (e.inner().to_string(), e.path().to_string());
        match e.inner().classify() {
            Category::Data => bad(unread(&name, None, said.rsplit_once(" at line ").map_or(&said, |(said, _)| said))),
            _ => bad((format!("not JSON: {said}"), None)),
        }
    })?;
    json.end().map_err(|e| bad((format!("not JSON: {e}"), None)))?;
    Ok(read)
}

/// What stands for the variables of a path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Refusal> {
        let wrong = |e: PathRejection| {
            let detail = match no_number(e) {
                Some(value) => format!("`{value}` is no position"),
                None => "the path does not read".to_owned(),
            };
            Refusal::bad("bad-path", detail, "escaped UTF-8; a position is a whole number")
        };
        let axum::extract::Path(value) =
            axum::extract::Path::<T>::from_request_parts(parts, state).await.map_err(wrong)?;
        Ok(Path(value))
    }
}

/// What stands in a path where a number should.
fn no_number(wrong: PathRejection) -> Option<String> {
    let PathRejection::FailedToDeserializePathParams(wrong) = wrong else { return None };
    match wrong.into_kind() {
        ErrorKind::ParseError { value, .. }
        | ErrorKind::ParseErrorAtIndex { value, .. }
        | ErrorKind::ParseErrorAtKey { value, .. } => Some(value),
        _ => None,
    }
}

/// The body, whole.
pub struct Sent(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Sent, Refusal> {
        Bytes::from_request(request, state).await.map(Sent).map_err(|e| match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            status => Refusal::new(status, "bad-request", "the request's body broke off", "send it again"),
        })
    }
}

pub(super) fn too_large() -> Refusal {
    let (event, batch) = (limits::EVENT_BYTES_MAX, intake::BATCH_BYTES_MAX);
    let detail = format!("an event may have {event} bytes, and a request {batch}");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail, "send a reference to what is larger")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{filter, status};
    use citybrain_shared::case::{Ask, Kind};
    use citybrain_shared::view;

    /// Words that mean something to a programmer only.
    const OURS: [&str; 9] =
        ["eserializ", "nonzero", "usize", "u64", "integer", "struct ", "variant", "field", "at line"];

    fn told<T>(read: Result<T, Refusal>) -> (String, String) {
        let Err(Refusal { failure, .. }) = read else { panic!("it reads") };
        for ours in OURS {
            assert!(!failure.detail.contains(ours) && !failure.hint.contains(ours), "{failure:?}");
        }
        (failure.detail, failure.hint)
    }

    #[test]
    fn a_query_that_does_not_read_is_told_in_the_words_of_whoever_asks() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "nothing of it reads")]
        struct Wanted {
            limit: Option<NonZeroUsize>,
            kind: Option<Kind>,
            #[serde(default)]
            mine: bool,
            after: Option<u64>,
            node: String,
        }
        let asked = |query: &str| told(query_of::<Wanted>(query));
        fn query_of<T: DeserializeOwned>(text: &str) -> Result<T, Refusal> {
            query(&format!("/v1/x?{text}").parse().unwrap())
        }
        let pair = |detail: &str, hint: &str| (detail.to_owned(), hint.to_owned());
        assert_eq!(asked("limit=0"), pair("`limit` is `0`", "a whole number, 1 or more"));
        assert_eq!(asked("limit=x"), pair("`limit` is `x`", "a whole number"));
        assert_eq!(asked("after=-1"), pair("`after` is `-1`", "a whole number"));
        assert_eq!(asked("after="), pair("`after` is ``", "a whole number"));
        assert_eq!(asked("mine=yes"), pair("`mine` is `yes`", "`true` or `false`"));
        assert_eq!(asked("kind=apeal"), pair("`kind` is `apeal`", "did you mean `appeal`?"));
        assert_eq!(asked("kind=7"), pair("`kind` is `7`", "one of appeal, service, incident"));
        assert_eq!(asked("limmit=3"), pair("`limmit` is not known here", "did you mean `limit`?"));
        assert_eq!(asked("limit=3").0, "`node` is missing");
        assert_eq!(asked("node=a&node=b").0, "`node` is given twice");
        assert_eq!(told(query_of::<Nothing>("a=1")), pair("`a` is not known here", "nothing is taken here"));
        told(query_of::<filter::Wanted>("last=many"));
        told(query_of::<status::Depth>("depth=many"));
    }

    #[test]
    fn a_body_that_does_not_read_is_told_in_the_words_of_whoever_sends_it() {
        fn of<T: DeserializeOwned>(body: &str) -> Result<T, Refusal> {
            parse(&Bytes::copy_from_slice(body.as_bytes()), "{\"by\":\"…\"}")
        }
        let pair = |detail: &str, hint: &str| (detail.to_owned(), format!("{hint}such as {{\"by\":\"…\"}}"));
        assert_eq!(told(of::<Ask>(r#"{"by":7}"#)), pair("`by` is `7`", "a text; "));
        assert_eq!(told(of::<Ask>(r#"{"rating":"good"}"#)), pair("`rating` is a text", "a whole number; "));
        assert_eq!(
            told(of::<Ask>(r#"{"role":"boss"}"#)),
            pair("`role` is `boss`", "one of resident, worker, supervisor; ")
        );
        assert_eq!(told(of::<Ask>(r#"{"txet":"x"}"#)), pair("`txet` is not known here", "did you mean `text`?; "));
        assert_eq!(
            told(of::<view::CaseNew>(r#"{"place":{"lat":"north"}}"#)),
            pair("`place.lat` is a text", "a number; ")
        );
        assert_eq!(told(of::<view::CaseNew>("[]")), pair("a request is a JSON object, and this is a list", ""));
        assert_eq!(told(of::<view::CaseNew>(" [{}]")), pair("a request is a JSON object, and this is a list", ""));
        assert_eq!(told(of::<view::CaseNew>("7")), pair("the request is `7`", "an object; "));
        let Err(Refusal { failure, .. }) = of::<Ask>("{\"by\":") else { panic!("it reads") };
        assert!(failure.detail.starts_with("not JSON: "), "{failure:?}");
        assert!(of::<Ask>("{} {}").is_err() && of::<Ask>("").is_ok());
    }
}
