//! What was sent down through or from this node, and who answered.

use super::input::{Path, limited, query};
use super::{Ctx, Refusal, etag, several, with_next};
use axum::extract::State as From;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use citybrain_hub::state::{Directive, Known, State};
use citybrain_shared::prefix::Named;
use citybrain_shared::{Pos, view};
use serde::Deserialize;
use std::num::NonZeroUsize;
use std::sync::Arc;

const DIRECTIVES_DEFAULT: usize = 100;
const DIRECTIVES_MAX: usize = 1000;
const SILENT_NODES_MAX: usize = 1000;

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// At most so many, 1 to 1000; default 100.
    limit: Option<NonZeroUsize>,
    /// Only those that were committed before this position: `next` of the page before.
    after: Option<u64>,
}

pub async fn list(From(ctx): From<Arc<Ctx>>, uri: Uri, headers: HeaderMap) -> Result<Response, Refusal> {
    let wanted: Wanted = query(&uri)?;
    let limit = limited(wanted.limit, DIRECTIVES_DEFAULT, DIRECTIVES_MAX)?;
    let (mut directives, is_last): (Vec<view::Directive>, bool) = ctx.hub.state(|state| {
        let mut newest = state.directives.before(wanted.after.map(Pos));
        (newest.by_ref().take(limit).map(|(id, d)| short(id, d)).collect(), newest.next().is_none())
    });
    let next = directives.last().filter(|_| !is_last).map(|d| d.pos);
    directives.reverse();
    let response = etag::answer(&ctx, &headers, view::Directives { directives, next });
    Ok(with_next(response, &uri, next))
}

pub async fn show(From(ctx): From<Arc<Ctx>>, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Refusal> {
    let found = ctx.hub.state(|state| match state.directives.named(&id) {
        Named::One((whole, d)) => Ok(Some(directive_view(state, whole, d))),
        Named::Nothing => Ok(None),
        Named::Several((a, _), (b, _)) => Err(several(&id, a, b)),
    })?;
    match found {
        Some(directive) => Ok(etag::answer(&ctx, &headers, directive)),
        None => Err(Refusal::not_found(
            format!("{} counts no receipts of a directive `{id}`", ctx.address()),
            format!("`citybrain show {id}` says whether it holds such an event"),
        )),
    }
}

pub fn directive_view(state: &State, id: &str, d: &Directive) -> view::Directive {
    let is_silent = |known: &Known| {
        let n = known.ordinal;
        let heard = [&d.delivered, &d.done, &d.failed, &d.expired].iter().any(|set| set.contains(n));
        d.expected.contains(n) && !heard
    };
    let silent = state.registry.iter().filter(|(_, known)| is_silent(known)).map(|(a, _)| a);
    view::Directive { silent_nodes: silent.take(SILENT_NODES_MAX).cloned().collect(), ..short(id, d) }
}

/// Without the names of the silent ones, for which all nodes must be looked at.
fn short(id: &str, d: &Directive) -> view::Directive {
    view::Directive {
        id: id.to_owned(),
        pos: d.pos,
        event_type: d.kind.clone(),
        directive: if d.is_command { "command" } else { "notice" }.to_owned(),
        origin: d.origin.to_string(),
        target: d.target.clone(),
        issued_at: view::time_of(d.issued_us),
        expected: d.expected.len(),
        delivered: d.delivered.len(),
        done: d.done.len(),
        failed: d.failed.len(),
        expired: d.expired.len(),
        silent: d.silent(),
        silent_nodes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_hub::state::{Nodes, Status};
    use citybrain_shared::{Address, Inc, Tier};

    #[test]
    fn whoever_was_expected_and_said_nothing_is_named() {
        let mut state = State::default();
        let mut expected = Nodes::default();
        for (i, address) in ["c/a", "c/b", "c/d"].into_iter().enumerate() {
            let known = Known {
                ordinal: i as u32,
                name: String::new(),
                tier: Tier::Street,
                code: None,
                labels: Default::default(),
                inc: Inc(1),
                version: String::new(),
                last_heard_us: 0,
            };
            state.registry.insert(Address::parse(address).unwrap(), known);
            expected.insert(i as u32);
        }
        let mut d = Directive {
            pos: Pos(9),
            kind: "city.notice".into(),
            origin: Address::parse("c").unwrap(),
            target: "c/**".into(),
            is_command: true,
            issued_us: 0,
            expected,
            delivered: Nodes::default(),
            done: Nodes::default(),
            failed: Nodes::default(),
            expired: Nodes::default(),
        };
        d.take(0, Status::Delivered);
        d.take(2, Status::Expired);
        let seen = directive_view(&state, "x", &d);
        assert_eq!((seen.expected, seen.delivered, seen.expired, seen.silent), (3, 1, 1, 1));
        assert_eq!(seen.silent_nodes, [Address::parse("c/b").unwrap()]);
        assert_eq!(seen.directive, "command");
    }
}
