//! Entity tags (RFC 9110, 8.8.3): whoever has an answer already is told so (`If-None-Match`, 304), and
//! whoever steps a case as he has seen it is refused when it has moved on (`If-Match`, 412).
//!
//! **Format**: `"HASH"` over the answer without its head, which has the time in it. A case's is
//! `"TERM.VERSION-HASH"`: the hash is of all that this caller is shown, the version of the case
//! itself. `If-Match` asks for the version only, and is judged where the step is committed
//! ([`Ask::seen`](citybrain_shared::case::Ask::seen)), also at another node.

use super::{Ctx, Refusal};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use citybrain_shared::view::View;
use xxhash_rust::xxh3::xxh3_64;

/// Tags in one header: more are nobody's.
const TAGS_MAX: usize = 64;

/// The answer to a GET, tagged; or 304 to whoever has it.
pub(super) fn answer<T: View>(ctx: &Ctx, headers: &HeaderMap, body: T) -> Response {
    let tag = tag("", &body);
    if is_known(headers, &tag) { unchanged(tag) } else { tagged(ctx.answer(body), tag) }
}

/// `"PREFIX HASH"`, without the blank.
pub(super) fn tag<T: View>(prefix: &str, body: &T) -> HeaderValue {
    let json = serde_json::to_vec(body).expect("views have string keys only");
    let text = format!("\"{prefix}{:016x}\"", xxh3_64(&json));
    HeaderValue::try_from(text).expect("digits and dots")
}

pub(super) fn tagged(mut response: Response, tag: HeaderValue) -> Response {
    response.headers_mut().insert(header::ETAG, tag);
    response
}

pub(super) fn unchanged(tag: HeaderValue) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response()
}

/// Does whoever asks have it? By weak comparison, as a cache does.
pub(super) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let known = |given: &str| given == "*" || Some(given.strip_prefix("W/").unwrap_or(given)) == tag.to_str().ok();
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).flat_map(list).any(known)
}

/// The versions of a case that `If-Match` allows, as [`Ask::seen`](citybrain_shared::case::Ask::seen)
/// takes them; none: any.
///
/// # Errors
/// What is there is no list of tags, or has weak ones alone.
pub(super) fn seen(headers: &HeaderMap) -> Result<Vec<String>, Refusal> {
    let (mut versions, mut weak) = (Vec::new(), None);
    for value in headers.get_all(header::IF_MATCH) {
        for given in list(value.to_str().unwrap_or("?")) {
            if given == "*" {
                return Ok(Vec::new());
            }
            let tag = given.strip_prefix("W/").unwrap_or(given);
            let Some(tag) = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"')).filter(|t| !t.contains('"')) else {
                let detail = format!("`If-Match: {given}` is no entity tag");
                return Err(Refusal::bad("bad-tag", detail, "give back the `ETag` of the case as it was shown"));
            };
            // A weak one matches nothing here (RFC 9110, 13.1.1).
            match given.starts_with("W/") {
                true => weak = Some(given.to_owned()),
                false => versions.push(tag.split('-').next().unwrap_or("?").to_owned()),
            }
        }
    }
    if versions.len() > TAGS_MAX {
        return Err(Refusal::bad("bad-tag", format!("more than {TAGS_MAX} tags are given"), "one is enough"));
    }
    match weak.filter(|_| versions.is_empty()) {
        None => Ok(versions),
        Some(given) => {
            let detail = format!("`If-Match: {given}` is a weak tag, and says of no case how it was seen");
            let hint = "give back the `ETag` of the case as it was shown, without `W/`";
            Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "weak-tag", detail, hint))
        }
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(&name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn whoever_has_it_is_known_by_any_of_his_tags() {
        let tag = HeaderValue::from_static("\"1.2-ff\"");
        let known = |values: &[&str]| is_known(&headers(header::IF_NONE_MATCH, values), &tag);
        assert!(known(&["*"]) && known(&["\"x\", W/\"1.2-ff\""]) && known(&["\"x\"", "\"1.2-ff\""]));
        assert!(!known(&[]) && !known(&["\"1.2-fe\""]) && !known(&["1.2-ff"]));
    }

    #[test]
    fn a_version_is_taken_out_of_its_tag_and_a_weak_one_matches_nothing() {
        let versions = |values: &[&str]| seen(&headers(header::IF_MATCH, values));
        assert_eq!(versions(&["\"1.2-ff\", \"2.3-00\""]).unwrap(), ["1.2", "2.3"]);
        assert_eq!(versions(&["W/\"1.2-ff\", \"2.3-00\""]).unwrap(), ["2.3"]);
        let weak = versions(&["W/\"1.2-ff\""]).unwrap_err();
        assert_eq!((weak.status, weak.failure.error.as_str()), (StatusCode::PRECONDITION_FAILED, "weak-tag"));
        assert_eq!(versions(&["*"]).unwrap(), [""; 0]);
        assert_eq!(versions(&[]).unwrap(), [""; 0]);
        for bad in ["1.2", "\"1.2", "\"a\"b\""] {
            assert_eq!(versions(&[bad]).unwrap_err().failure.error, "bad-tag", "{bad}");
        }
    }
}
