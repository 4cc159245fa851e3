//! An operator's word on dead letters: try it again, or let it go. Each leaves a record of who did it.
//!
//! What came in at a door goes in again; what a webhook's receiver has refused is sent to it again.

use super::commit::{self, COMMIT_WAIT, Late};
use super::dead_letters::{self, Whose};
use super::input::{Sent, parse};
use super::once::Repeat;
use super::ops::Operator;
use super::{Ctx, Refusal};
use crate::turns;
use crate::webhook::{self, Hook, NoTurn};
use axum::extract::State as From;
use axum::response::Response;
use bytes::Bytes;
use citybrain_hub::engine::{Outcome, Settled};
use citybrain_hub::operator as record;
use citybrain_shared::record::{Draft, Header};
use citybrain_shared::view::{self, SettledLetter};
use citybrain_shared::{Pos, event, limits};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// Letters in one request: each is a commit of its own.
const POSITIONS_MAX: usize = 1000;

/// `POST /v1/dlq/retry`: what each letter holds goes through ingress again, on its topic, or to its webhook.
pub async fn retry(From(ctx): From<Arc<Ctx>>, who: Operator, Sent(body): Sent) -> Answered {
    settle(ctx, who, &body, RETRY).await
}

/// `POST /v1/dlq/drop`: closes them; they stay in the log until retention takes them.
pub async fn drop_letters(From(ctx): From<Arc<Ctx>>, who: Operator, Sent(body): Sent) -> Answered {
    settle(ctx, who, &body, "dlq drop").await
}

/// What is done, as the record of it says.
const RETRY: &str = "dlq retry";

/// All letters of a request together wait this long for turns with receivers that say how often they may be asked.
const TURNS_WAIT: Duration = Duration::from_secs(2);
/// When they are answered at the latest: a client waits a little longer, and a receiver that hangs may take longer
/// than both. The next letter has half of it: one that is begun has time to end.
const ANSWER_WAIT: Duration = COMMIT_WAIT;

type Answered = Result<Response, Refusal>;

async fn settle(ctx: Arc<Ctx>, who: Operator, body: &Bytes, what: &'static str) -> Answered {
    let wanted: view::DlqSettle = parse(body, "{\"positions\":[7, 12]}")?;
    if wanted.positions.is_empty() || wanted.positions.len() > POSITIONS_MAX {
        let detail = format!("{} positions are given; 1 to {POSITIONS_MAX} can be", wanted.positions.len());
        return Err(Refusal::bad("bad-request", detail, "`citybrain dlq list` shows the open ones"));
    }
    let now = Instant::now();
    let (turn_by, begin_by, answer_by) = (now + TURNS_WAIT, now + ANSWER_WAIT / 2, now + ANSWER_WAIT);
    let mut letters = Vec::with_capacity(wanted.positions.len());
    for pos in wanted.positions {
        let say = |outcome: &str, detail: &str| said(pos, outcome, detail.to_owned(), None);
        if Instant::now() >= begin_by {
            letters.push(say("not-tried", "those before it took too long: ask again"));
            continue;
        }
        // Who goes away, or is answered before it is over, leaves no letter that was delivered and stays open.
        let settled = tokio::spawn(one(ctx.clone(), who.clone(), pos, what, turn_by));
        letters.push(match timeout_at(answer_by.into(), settled).await {
            Ok(settled) => settled.map_err(|_| turns::Error::Panicked)??,
            Err(_) => say("under-way", "it goes on; `citybrain dlq list` shows whether it is still open"),
        });
    }
    let open = ctx.hub.state(|s| s.dead_letters.len() as u64);
    Ok(ctx.answer(view::DlqSettled { letters, open }))
}

fn said(pos: Pos, outcome: &str, detail: String, now_at_pos: Option<Pos>) -> SettledLetter {
    SettledLetter { pos, outcome: outcome.to_owned(), detail, now_at_pos }
}

async fn one(
    ctx: Arc<Ctx>,
    who: Operator,
    pos: Pos,
    what: &'static str,
    turn_by: Instant,
) -> Result<SettledLetter, Refusal> {
    let say = |outcome: &str, detail: String, now_at_pos| Ok(said(pos, outcome, detail, now_at_pos));
    if !ctx.hub.state(|s| s.dead_letters.contains_key(&pos)) {
        return say("not-open", "no open dead letter is at this position".into(), None);
    }
    let Some(letter) = dead_letters::read(&ctx.hub.reader(), pos)? else {
        return say("not-open", "no dead letter is at this position".into(), None);
    };
    let mut sent = false;
    let draft = if what != RETRY {
        None
    } else if let Some(name) = letter.via.strip_prefix(webhook::VIA) {
        if let Err((outcome, detail)) = resend(&ctx, &letter, name, turn_by).await {
            return say(outcome, detail, None);
        }
        sent = true;
        None
    } else {
        match again(&ctx, &letter) {
            Ok(draft) => Some(draft),
            Err((outcome, detail)) => return say(outcome, detail, None),
        }
    };
    let detail = format!("{pos} ({}, from {}, topic {})", letter.reason, letter.via, letter.topic);
    let note = record::draft(&ctx.config.node.address, &who.act(what, &detail));
    let late = Late { what: &format!("what becomes of {pos}"), hint: "`citybrain dlq list` shows those that are open" };
    match commit::within(ctx.hub.settle(pos, draft, vec![note]), &Repeat::default(), late).await? {
        Settled::NotOpen => say("not-open", "somebody else closed it in this moment".into(), None),
        Settled::Closed if sent => say("delivered", "its receiver has taken it".into(), None),
        Settled::Closed => say("dropped", "closed; it stays in the log until retention takes it".into(), None),
        Settled::Taken(Outcome::Committed(at)) => say("committed", "it went through".into(), Some(at)),
        Settled::Taken(Outcome::Duplicate(at)) => {
            say("duplicate", "the same event is in the log already; closed".into(), Some(at))
        }
    }
}

/// Sends the event to the receiver that refused it. Before the letter is closed: a kill in between sends
/// it twice, and never not at all.
async fn resend(
    ctx: &Ctx,
    letter: &view::DeadLetter,
    name: &str,
    turn_by: Instant,
) -> Result<(), (&'static str, String)> {
    let Some(hook) = ctx.operations.webhooks.iter().find(|w| w.name() == name).cloned() else {
        return Err(("not-retryable", format!("config has no webhook `{name}` any more")));
    };
    let payload = sent_again(ctx, &hook, letter)?;
    turn(&hook, turn_by).await.map_err(|why| ("not-sent", why))?;
    let sent = ctx.turns.send(move || hook.again(&payload)).await;
    sent.map_err(|busy| ("not-sent", busy.to_string()))?.map_err(|why| ("refused", format!("still refused: {why}")))
}

/// Waits for a turn of the receiver's, until `end`; or why there is none.
async fn turn(hook: &Hook, end: Instant) -> Result<(), String> {
    loop {
        match hook.turn_again() {
            Ok(()) => return Ok(()),
            Err(NoTurn::NotAgreed) => return Err("its receiver has not agreed to events from here by now".into()),
            Err(NoTurn::Until(next)) if next > end => {
                let wait_s = next.saturating_duration_since(Instant::now()).as_secs() + 1;
                return Err(format!("its receiver wants no more events than it has said: again in {wait_s} s"));
            }
            Err(NoTurn::Until(next)) => tokio::time::sleep_until(next.into()).await,
        }
    }
}

/// The event as it is sent to that receiver again; or why it is not.
fn sent_again(ctx: &Ctx, hook: &Hook, letter: &view::DeadLetter) -> Result<Vec<u8>, (&'static str, String)> {
    let reader = ctx.hub.reader();
    let record = dead_letters::record_of(&reader, letter.pos);
    // In a token's name only what that token may read by now. Of what is in the log alone can that be said.
    if hook.has_token() {
        let record = record.ok_or_else(|| ("cut", "its event is no longer in the log".to_owned()))?;
        let sent = hook.sent_of(&record).map_err(|why| ("not-retryable", why))?;
        return sent.ok_or_else(|| ("not-retryable", "its receiver may not be sent it any more".into()));
    }
    let why = match dead_letters::whose(ctx, &reader, letter) {
        Whose::Nobody | Whose::Closed => None,
        Whose::Forgotten => Some("whom it is about is forgotten"),
        Whose::Unknown => Some("it may be about a person who is forgotten, and its event is no longer in the log"),
    };
    if let Some(why) = why {
        return Err(("not-retryable", format!("{why}; `citybrain dlq drop` closes it")));
    }
    let event = record.as_ref().and_then(|record| Header::decode(&record.bytes).ok());
    let from_log = || {
        let (header, payload) = event?;
        Some(event::with_origin(payload, header.origin.map_or(ctx.config.node.address.as_str(), |o| o.address)))
    };
    // What is too long for a letter is in the log, as long as that goes back so far.
    whole(letter).or_else(from_log).ok_or_else(|| {
        let kept = limits::DEAD_LETTER_BYTES_MAX;
        let detail = format!(
            "only the first {kept} of its {} bytes were kept, and its event is no longer in the log",
            letter.payload_bytes
        );
        ("cut", detail)
    })
}

/// What the letter holds, as a record; or why that cannot be.
fn again(ctx: &Ctx, letter: &view::DeadLetter) -> Result<Draft, (&'static str, String)> {
    if !(letter.via.starts_with("mqtt:") || letter.via == "http") {
        let detail = format!("it came by {}: only what came in at a door can go in again", letter.via);
        return Err(("not-retryable", detail));
    }
    if letter.reason == "forbidden" {
        return Err((
            "not-retryable",
            "its sender had no right to it; give it the right, and let it send again".into(),
        ));
    }
    let payload = whole(letter).ok_or_else(|| {
        let kept = limits::DEAD_LETTER_BYTES_MAX;
        (
            "cut",
            format!(
                "only the first {kept} of its {} bytes were kept; its sender must send it again",
                letter.payload_bytes
            ),
        )
    })?;
    // A mapping may make the subject of it.
    let client = letter.via.strip_prefix("mqtt:").unwrap_or_default();
    match (ctx.operations.again)(client, &letter.topic, &Bytes::from(payload)) {
        Ok(Some(draft)) => Ok(draft),
        Ok(None) => Err(("not-retryable", "it is a plain message that nobody keeps".into())),
        Err((reason, detail)) => Err(("refused", format!("still {reason}: {detail}"))),
    }
}

/// Its payload, if all of it was kept.
fn whole(letter: &view::DeadLetter) -> Option<Vec<u8>> {
    let bytes = if letter.payload_is_hex {
        let digits = letter.payload.as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>()?
    } else {
        letter.payload.clone().into_bytes()
    };
    (bytes.len() as u64 == letter.payload_bytes).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_payload_goes_in_again() {
        let of = |bytes: &[u8]| {
            let l = citybrain_hub::note::DeadLetter::new("not-json", "", "mqtt:a", "in/x", bytes);
            view::DeadLetter {
                pos: Pos(1),
                at: view::time_of(0),
                reason: l.reason,
                detail: l.detail,
                via: l.via,
                topic: l.topic,
                payload: l.payload,
                payload_is_hex: l.payload_is_hex,
                payload_bytes: l.payload_bytes,
                withheld: false,
            }
        };
        for bytes in [&b"{}"[..], b"", "温".as_bytes(), &[0xff, 0x00, 0x10]] {
            assert_eq!(whole(&of(bytes)).as_deref(), Some(bytes));
        }
        assert_eq!(whole(&of(&vec![b'x'; limits::DEAD_LETTER_BYTES_MAX + 1])), None);
        assert_eq!(whole(&of(&vec![0xff; limits::DEAD_LETTER_BYTES_MAX + 1])), None);
    }
}
