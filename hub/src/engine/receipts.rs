//! Events that the node writes about itself: its presence, and receipts of directives.

use crate::state::{PRESENCE_TYPE, Presence, RECEIPT_TYPE, RETIRED_TYPE, RETURNED_TYPE, Receipt, Status, Subtree};
use citybrain_shared::address::Tier;
use citybrain_shared::event::Envelope;
use citybrain_shared::record::{Direction, Draft, Header, Kind, TTL_OVER_MS, event_key};
use citybrain_shared::{Address, Boot};
use serde_json::json;

/// The event in which a node tells every ancestor who it is.
pub fn presence(about: &Presence, boot: Boot) -> Draft {
    let source = format!("/{}", about.address);
    // The nonce too: a folder restored from a backup counts a start again.
    // The counter stands last: whoever counts starts reads it there.
    let id = format!("{}-{:x}-{}", about.inc, boot.nonce, boot.counter);
    let event = json!({
        "specversion": "1.0", "id": id, "source": source, "type": PRESENCE_TYPE, "data": about,
    });
    let mut header = Header::local(Kind::Presence, PRESENCE_TYPE);
    header.key = event_key(&source, &id);
    header.reach = Tier::City;
    if about.address.tier() != Tier::City {
        header.direction = Direction::Up;
    }
    // A presence goes with the urgent ones, so that a parent knows who is there before the backlog.
    header.lane = citybrain_shared::Lane::Urgent;
    draft(&header, &event)
}

/// The event by which a node takes a child out of the tree with all below it, or back into it. As urgent
/// as a presence, so that they keep their order.
pub fn subtree(me: &Address, child: &Address, is_gone: bool, id: &str) -> Draft {
    let (source, name) = (format!("/{me}"), if is_gone { RETIRED_TYPE } else { RETURNED_TYPE });
    let data = Subtree { address: child.clone() };
    let event = json!({ "specversion": "1.0", "id": id, "source": source, "type": name, "data": data });
    let mut header = Header::local(Kind::Event, name);
    header.key = event_key(&source, id);
    header.reach = Tier::City;
    if me.tier() != Tier::City {
        header.direction = Direction::Up;
    }
    header.lane = citybrain_shared::Lane::Urgent;
    draft(&header, &event)
}

/// The receipt that a directive for this node gets in the commit that takes it: `delivered`, or
/// `expired` when its time was over. Travels up to the tier where the directive was issued.
pub(super) fn automatic(me: &Address, directive: &Header<'_>, payload: &[u8], ttl_ms: u32) -> Option<Draft> {
    let envelope = Envelope::parse(payload).ok()?;
    let id = envelope.id?;
    let status = if ttl_ms == TTL_OVER_MS { Status::Expired } else { Status::Delivered };
    let issuer = match directive.origin {
        Some(o) => Address::parse(o.address).ok()?.tier(),
        None => me.tier(),
    };
    let source = format!("/{me}");
    let receipt_id = format!("{id}/{}", status.as_str());
    let event = json!({
        "specversion": "1.0", "id": receipt_id, "source": source, "type": RECEIPT_TYPE, "correlationid": id,
        "data": Receipt { node: me.clone(), status, detail: None },
    });
    let mut header = Header::local(Kind::Receipt, RECEIPT_TYPE);
    header.key = event_key(&source, &receipt_id);
    header.lane = directive.lane;
    header.reach = issuer;
    if issuer < me.tier() {
        header.direction = Direction::Up;
    }
    Some(draft(&header, &event))
}

fn draft(header: &Header<'_>, event: &serde_json::Value) -> Draft {
    let bytes = serde_json::to_vec(event).expect("a JSON value always serialises");
    Draft::new(header, &bytes).expect("its text fields are constants and an address")
}
