//! Who says how much: the newest events of the log, counted by what they have in common.

use super::filter::{Filter, Wanted};
use super::guard::Caller;
use super::input::{limited, query};
use super::{Ctx, Refusal};
use axum::extract::State as From;
use axum::http::Uri;
use axum::response::Response;
use citybrain_hub::log::{self, Reader};
use citybrain_shared::Pos;
use citybrain_shared::record::Header;
use citybrain_shared::view::{CountBy, CountRow, Counts};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

/// Records that are looked through, about half a second of reading.
const RECORDS_MAX: u64 = 200_000;
/// Names that are kept apart; what comes after so many is counted together.
const NAMES_MAX: usize = 20_000;
const ROWS_DEFAULT: usize = 20;
const ROWS_MAX: usize = 1_000;

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct By {
    /// What they have in common; default: who said it.
    by: CountBy,
}

/// `GET /v1/counts?by=source&limit=20&…`, with the filters of `/v1/events`.
pub async fn counts(From(ctx): From<Arc<Ctx>>, caller: Caller, uri: Uri) -> Result<Response, Refusal> {
    let By { by } = query(&uri)?;
    let wanted: Wanted = query(&without_by(&uri)?)?;
    let rows_max = limited(wanted.limit, ROWS_DEFAULT, ROWS_MAX)?;
    let filter = wanted.filter(&ctx, caller)?;
    let reader = ctx.hub.reader();
    let filter = Arc::new(filter);
    let counted = filter.clone();
    let counts = ctx.turns.read(move || count(&reader, &counted, by, rows_max)).await?;
    filter.check()?;
    Ok(ctx.answer(counts))
}

/// What is left of the query are filters, and those know no other keys.
fn without_by(uri: &Uri) -> Result<Uri, Refusal> {
    let rest: Vec<&str> = uri.query().unwrap_or_default().split('&').filter(|p| !p.starts_with("by=")).collect();
    let path = format!("{}?{}", uri.path(), rest.join("&"));
    path.parse().map_err(|_| Refusal::bad("bad-query", "the question does not read", "such as `by=source&limit=20`"))
}

fn count(reader: &Reader, filter: &Filter, by: CountBy, rows_max: usize) -> Result<Counts, log::Error> {
    let last = reader.last();
    let after = (reader.first().0.saturating_sub(1)).max(last.0.saturating_sub(RECORDS_MAX));
    let mut found: HashMap<String, CountRow> = HashMap::new();
    let mut counts = Counts { by, after_pos: Pos(after), upto_pos: last, ..Counts::default() };
    let (mut first_us, mut last_us) = (i64::MAX, i64::MIN);
    reader.each(Pos(after), last, |entry| {
        let Ok((header, payload)) = Header::decode(&entry.bytes) else { return };
        if filter.is_spent() || !filter.wants(&header, payload) {
            return;
        }
        counts.events += 1;
        (first_us, last_us) = (first_us.min(header.committed_us), last_us.max(header.committed_us));
        let name = filter.name(by, &header, payload);
        if found.len() >= NAMES_MAX && !found.contains_key(&name) {
            return;
        }
        let row = found.entry(name.clone()).or_insert_with(|| CountRow { name, ..CountRow::default() });
        row.events += 1;
        row.bytes += payload.len() as u64;
        row.last_pos = entry.pos;
    })?;
    counts.names = found.len() as u64;
    counts.names_cut = found.len() >= NAMES_MAX;
    // Over what time, at least a second: a burst of a moment is no rate.
    counts.span_ms = if counts.events == 0 { 0 } else { ((last_us - first_us) / 1000).max(1000) as u64 };
    counts.rows = found.into_values().collect();
    counts.rows.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.name.cmp(&b.name)));
    counts.rows.truncate(rows_max);
    for row in &mut counts.rows {
        row.per_s = row.events as f64 * 1000.0 / counts.span_ms as f64;
        row.share = row.events as f64 / counts.events as f64;
    }
    Ok(counts)
}
