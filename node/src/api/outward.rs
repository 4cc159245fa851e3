//! What a webhook may send that speaks in a token's name: what that token could read here, and nothing else.
//!
//! An app reads no events. It is told that a case that it brought has changed, how it stands by then, and asks for
//! the rest ([`resident`](super::resident) says what it is shown): so nothing of a record itself goes out.

use super::events::{WITHHELD, without_data};
use super::guard::{Caller, is_of_app};
use crate::brain::Brain;
use crate::brain::cases::Cases;
use crate::brain::cases::letter::PREFIX;
use crate::tokens::{Role, Tokens};
use crate::webhook::{Reads, Share};
use citybrain_hub::Hub;
use citybrain_shared::record::Header;
use citybrain_shared::{Address, view};
use serde_json::json;
use std::sync::Arc;

/// What an app is sent. No node has such an event in its log.
pub const CHANGED: &str = "city.case.changed";

/// What the token of this name may be sent; it is looked for at each record, so that one that was removed gets
/// nothing more.
pub fn of(hub: &Hub, tokens: Option<Arc<Tokens>>, me: &Address, name: &str) -> Reads {
    let (hub, me, name) = (hub.clone(), me.clone(), name.to_owned());
    Arc::new(move |header, payload| {
        let holder = tokens.as_ref().and_then(|tokens| tokens.named(&name));
        let holder = holder.ok_or_else(|| format!("this node's tokens file has no token `{name}`"))?;
        let caller = Caller::of(&holder);
        Ok(match holder.role {
            Role::App if header.name.starts_with(PREFIX) => {
                let changed = |brain: &Brain| changed(&brain.cases, &me, &name, header, payload);
                let event = hub.state(|state| Brain::of(state).and_then(changed));
                event.map_or(Share::Nothing, |event| Share::Instead(CHANGED, event))
            }
            Role::App | Role::Gateway => Share::Nothing,
            _ if caller.may_read(header, payload) => Share::Same(payload.into()),
            _ => Share::Same(without_data(payload, WITHHELD).get().as_bytes().to_vec().into()),
        })
    })
}

/// That a case of this app has changed, as far as this record says so. Of a step the id is the same by whatever record
/// it came.
fn changed(cases: &Cases, me: &Address, app: &str, header: &Header<'_>, payload: &[u8]) -> Option<Vec<u8>> {
    let news = cases.news(header, payload).filter(|news| is_of_app(news.held, me, app))?;
    let case = &news.held.case.id;
    let id = match news.is_step {
        true => format!("{case}.{}.{}", news.term, news.version),
        false => format!("{case}.{:016x}", header.key),
    };
    let event = json!({
        "specversion": "1.0", "id": id, "source": format!("/{me}/cases"), "type": CHANGED, "subject": case,
        "time": view::rfc3339(view::time_of(header.committed_us)), "datacontenttype": "application/json",
        "data": { "id": case, "status": news.status, "term": news.term, "version": news.version },
    });
    Some(event.to_string().into_bytes())
}
