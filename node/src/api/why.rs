//! Why something does not move: what a node finds wrong with itself and with a child, and the
//! worst of what is found on the way from the node asked down to the one in question.
//!
//! Every symptom has a stable code. Nothing is guessed: each is read from what a node itself, or its
//! parent, has on record.

use super::input::query;
use super::{Ctx, Refusal, road};
use crate::brain::Brain;
use crate::doctor::checks::{RULES_REMEDY, webhook_remedy};
use crate::doctor::login_in_words;
use axum::extract::State as From;
use axum::http::Uri;
use axum::response::Response;
use citybrain_hub::door::users::RefusedLogin;
use citybrain_hub::engine::{self, Trouble};
use citybrain_hub::note::reason::{self, UNREAD_ALARM};
use citybrain_hub::state::State;
use citybrain_shared::view::{self, LinkRole, Looked, Severity, Symptom};
use citybrain_shared::{Address, Pos, words};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Clocks that differ by less are normal.
const CLOCK_OFF_MS: i64 = 2_000;
/// So many records behind is more than the work of a moment.
const BEHIND_RECORDS: u64 = 1_000;
/// Nothing heard for so many keep-alives while records wait.
const SILENT_KEEP_ALIVES: u64 = 3;
/// Dead letters that are not somebody's input: what a link could not carry or take.
const OF_LINKS: [&str; 3] = [reason::TOO_LARGE_FOR_LINK, reason::POISON, reason::FOREIGN];
const STARTING_S: u64 = 10;

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Child {
    child: Option<String>,
}

/// `GET /v1/symptoms?child=…`: this node's own, and what it sees of that child.
pub async fn symptoms(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let of: Child = query(&uri)?;
    let child = of.child.map(|c| road::below(&ctx.config.node.address, &c)).transpose()?;
    Ok(ctx.answer(view::Symptoms { symptoms: find(&ctx, child.as_ref()) }))
}

fn find(ctx: &Ctx, child: Option<&Address>) -> Vec<Symptom> {
    let me = &ctx.config.node.address;
    let mut found = own(ctx);
    if child.is_some() {
        // The way up from here is not in the way of a child.
        found.retain(|s| {
            s.node != *me
                || !(["parent-unreachable", "login-refused", "certificate"].contains(&s.code.as_str())
                    || s.code.starts_with("refused-"))
        });
    }
    if let Some(child) = child {
        let links = (ctx.links)();
        let link = links.iter().find(|l| l.role == LinkRole::Down && l.peer == *child);
        let known = ctx.hub.state(|s| Known::of(s, child));
        let is_up = link.is_some_and(|l| l.state == "up");
        let logins = (ctx.operations.refused_logins)();
        let login = logins.iter().find(|l| !is_up && l.child.as_ref() == Some(child));
        found.extend(match login {
            Some(login) => Some(of_login(me, child, login)),
            None => of_child(me, child, link, known, silent_ms(ctx)),
        });
    }
    found
}

/// What may be wrong with a node, as it finds it itself.
fn own(ctx: &Ctx) -> Vec<Symptom> {
    let mut found = Vec::new();
    found.extend(of_disk(ctx));
    found.extend(of_broker(ctx));
    found.extend(of_way_up(ctx));
    found.extend(of_start(ctx));
    found.extend(of_lost_cases(ctx));
    found.extend(of_retention(ctx));
    found.extend(of_webhooks(ctx));
    found.extend(of_letters(ctx));
    found.extend(of_rules(ctx));
    found
}

/// Of the node that is asked.
fn mine(ctx: &Ctx, code: &str, severity: Severity, sentence: String, remedy: &str) -> Symptom {
    let me = &ctx.config.node.address;
    Symptom { severity, ..stuck(me, code, sentence, remedy) }
}

fn of_disk(ctx: &Ctx) -> Option<Symptom> {
    let (me, data) = (&ctx.config.node.address, ctx.config.node.data.display());
    match ctx.hub.trouble() {
        Some(Trouble::Short(why)) => {
            let remedy = format!("make room on the disk of {data}; it goes on by itself");
            return Some(stuck(me, "disk-low", format!("{me} takes nothing: {why}"), &remedy));
        }
        Some(Trouble::Broken(why)) => {
            let remedy =
                format!("look at the disk of {data} (`citybrain doctor`); it goes on by itself once it can write");
            return Some(stuck(me, "unwritable", format!("{me} cannot write its log: {why}"), &remedy));
        }
        None => {}
    }
    let free = rustix::fs::statvfs(&ctx.config.node.data).map_or(u64::MAX, |s| s.f_bavail * s.f_frsize);
    let min = ctx.config.store.free_bytes_min;
    // How much must be free is in the config, which a folder alone does not have.
    if ctx.offline.is_some() || free >= 2 * min {
        return None;
    }
    let sentence = format!(
        "the disk of {me} is nearly full: {} are free, below {} it takes nothing",
        words::bytes(free),
        words::bytes(min)
    );
    Some(mine(ctx, "disk-nearly-full", Severity::Note, sentence, "make room, or lower store.log_bytes_max"))
}

/// Of a node whose broker is an outside one.
fn of_broker(ctx: &Ctx) -> Option<Symptom> {
    let (door, me) = ((ctx.door)(), &ctx.config.node.address);
    let (why, url, since) = (door.lost()?, &door.address, words::span(door.away_ms.unwrap_or_default()));
    let sentence =
        format!("{me} cannot reach its broker {url}, for {since}: {why}; nothing comes in by it or goes out");
    let remedy = "it tries again by itself; does the broker run, and are broker.url and the account right?";
    Some(stuck(me, "broker-unreachable", sentence, remedy))
}

fn of_way_up(ctx: &Ctx) -> Option<Symptom> {
    let me = &ctx.config.node.address;
    if let Some(since) = ctx.offline {
        let sentence = format!("{me} is stopped; its last record is of {}", view::rfc3339(since));
        let remedy =
            "`citybrain doctor --config FILE` says whether it can start, `citybrain run --config FILE` starts it";
        return Some(stuck(me, "stopped", sentence, remedy));
    }
    if let Some(link) = (ctx.links)().into_iter().find(|l| l.role == LinkRole::Up) {
        return of_parent(me, &link, silent_ms(ctx));
    }
    let parent = me.parent().filter(|_| ctx.config.parent.is_some())?;
    let sentence = format!("{me} has not tried to reach {parent} yet");
    Some(stuck(me, "parent-unreachable", sentence, "wait a moment"))
}

fn of_start(ctx: &Ctx) -> Option<Symptom> {
    let s = ctx.started.elapsed().as_secs();
    if ctx.offline.is_some() || s >= STARTING_S {
        return None;
    }
    let sentence = format!("{} started {s} s ago and may still be catching up", ctx.config.node.address);
    Some(mine(ctx, "starting", Severity::Note, sentence, "wait a moment"))
}

fn of_lost_cases(ctx: &Ctx) -> Option<Symptom> {
    let awaited = super::supervision::awaited(ctx).filter(|a| a.cases > 0)?;
    let sentence = format!("{}; cases that are known to wait: {}", awaited.whole("cases"), awaited.cases);
    let remedy = "bring those nodes back; for one that is gone for good, an empty box under its address will do";
    Some(mine(ctx, "cases-not-recovered", Severity::Slow, sentence, remedy))
}

fn of_retention(ctx: &Ctx) -> Option<Symptom> {
    let me = &ctx.config.node.address;
    let parent = me.parent().filter(|_| ctx.config.parent.is_some());
    let ((from, reader), applied) = ctx.hub.state(|s| (engine::needed(s, parent.as_ref()), s.applied));
    let (bytes, max) = (log_bytes(ctx), ctx.config.store.log_bytes_max);
    if bytes <= max || from > applied || from == Pos::ZERO || reader == "nobody" {
        return None;
    }
    let sentence = format!(
        "the log of {me} has {}, more than its {}, because {reader} has not taken what comes from position {from} on",
        words::bytes(bytes),
        words::bytes(max)
    );
    let remedy = "bring that reader back, or end its session; store.log_bytes_hard_max is the last resort";
    Some(mine(ctx, "retention-blocked", Severity::Slow, sentence, remedy))
}

/// What webhooks' receivers do not take.
fn of_webhooks(ctx: &Ctx) -> Vec<Symptom> {
    let troubles = ctx.webhooks().into_iter().flat_map(|w| w.troubles());
    let tell = |(trouble, sentence)| mine(ctx, "webhook-stands", Severity::Slow, sentence, &webhook_remedy(trouble));
    troubles.map(tell).collect()
}

/// A rule that fails is one that is off, for whatever it fails of.
fn of_rules(ctx: &Ctx) -> Option<Symptom> {
    let failing = ctx.hub.state(|s| Brain::of(s).map(|brain| brain.failing(ctx.as_of())))?;
    let more = match failing.len() {
        0 => return None,
        1 => String::new(),
        n => format!(" ({} more)", n - 1),
    };
    Some(mine(ctx, "rule-fails", Severity::Note, format!("{}{more}", failing[0]), RULES_REMEDY))
}

/// What was set aside, lost or refused.
fn of_letters(ctx: &Ctx) -> Vec<Symptom> {
    let me = &ctx.config.node.address;
    let (mut letters, loss, lost) = ctx.hub.state(|s| {
        let mut letters: BTreeMap<String, u64> = BTreeMap::new();
        for reason in s.dead_letters.values() {
            *letters.entry(reason.clone()).or_default() += 1;
        }
        (letters, s.losses.last().cloned(), s.counters.lost)
    });
    let mut found = Vec::new();
    for (reason, n) in OF_LINKS.iter().filter_map(|reason| letters.get_key_value(*reason)) {
        let sentence = format!("set aside at {me} on a link: {} ({reason})", words::counted(*n, "record"));
        let remedy = format!("`citybrain dlq list --reason {reason}` shows them");
        found.push(mine(ctx, "parked", Severity::Slow, sentence, &remedy));
    }
    found.extend(loss.map(|loss| {
        let lost = words::counted(lost, "position");
        let sentence = format!("{me} has recorded {lost} as lost, the latest because {}", loss.reason);
        mine(ctx, "lost", Severity::Note, sentence, "`citybrain audit` says whose they were")
    }));
    // Nobody may be coming: it may have been a fire.
    found.extend(letters.remove(UNREAD_ALARM).map(|n| {
        let sentence = format!("{me} could not read {} of devices that warn or call for help", words::counted(n, "word"));
        let remedy = format!(
            "`citybrain dlq list --reason {UNREAD_ALARM}` shows them: look there, mend the map, then `dlq retry` or `dlq drop`"
        );
        mine(ctx, UNREAD_ALARM, Severity::Slow, sentence, &remedy)
    }));
    found.extend(refused_inputs(me, &letters).map(|sentence| {
        mine(ctx, "refused-input", Severity::Note, sentence, "`citybrain dlq list` shows what was refused")
    }));
    found
}

/// How many there are of each reason, in words.
fn refused_inputs(me: &Address, letters: &BTreeMap<String, u64>) -> Option<String> {
    let inputs = || letters.iter().filter(|(reason, _)| !OF_LINKS.contains(&reason.as_str()));
    let refused = inputs().map(|(_, n)| n).sum();
    let (most, n) = inputs().max_by_key(|(_, n)| **n)?;
    let most_of_them = if *n == refused { "" } else { "most of them " };
    Some(format!("{me} has refused {}, {most_of_them}as `{most}`", words::counted(refused, "input")))
}

fn stuck(node: &Address, code: &str, sentence: String, remedy: &str) -> Symptom {
    Symptom {
        code: code.into(),
        severity: Severity::Stuck,
        node: node.clone(),
        by: node.clone(),
        sentence,
        remedy: remedy.into(),
    }
}

fn log_bytes(ctx: &Ctx) -> u64 {
    let Ok(files) = std::fs::read_dir(ctx.config.node.data.join("log")) else { return 0 };
    files.filter_map(|f| f.ok()?.metadata().ok()).map(|m| m.len()).sum()
}

/// What to do about a refusal, by its word.
fn remedy_of(reason: &str) -> &'static str {
    match reason {
        "duplicate" => "two nodes use this address: stop one, or give it another address and an empty data folder",
        "forked" => "a cloned disk, or a backup that went on: keep one of the two, empty the other's data folder",
        "past" => {
            "the node was restored from a backup; the link heals by itself, `citybrain audit` says whether all is there"
        }
        "stale" => {
            "a later start of this node is there: stop this one; if that one is a copy of its disk, stop the copy"
        }
        "unenrolled" => {
            "an operator has to let it in at its parent: `citybrain enrol list`, `citybrain enrol approve ADDRESS`"
        }
        "version" => "upgrade the parent first, then the child",
        "wrong-parent" => "its address is not below that node: look at node.address and parent.url in its config",
        "unavailable" => "the parent cannot write at the moment: `citybrain why` there says why",
        _ => "it tries again by itself",
    }
}

/// The link up, as the child sees it.
fn of_parent(me: &Address, link: &view::Link, silent_ms: u64) -> Option<Symptom> {
    let parent = &link.peer;
    let why = link.why.clone().unwrap_or_default();
    let heard = link.since_in_words();
    let waits = link.behind().0;
    let behind = if waits > 0 { format!("; records waiting: {}", link.behind_in_words()) } else { String::new() };
    let code = link.code.as_deref().unwrap_or_default();
    let (code, severity, sentence, remedy) = match link.state.as_str() {
        "refused" => {
            let (reason, detail) = (code, detail(code, &why));
            // Who answers there is then another node.
            let who = if reason == "wrong-parent" { "the node at parent.url" } else { parent.as_str() };
            let sentence = format!("{who} refuses {me} ({reason}): {detail}{behind}");
            (format!("refused-{reason}"), Severity::Stuck, sentence, remedy_of(reason).to_owned())
        }
        "up" => return of_flow(me, parent, link, "parent", silent_ms),
        state => {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            let sentence = format!("{me} cannot reach {parent} (the link is {state}{why}), {heard}{behind}");
            if code == "login" {
                let remedy = "parent.username and parent.password_file here must be an account there: `citybrain user \
                              list --file USERS` at the parent; a corrected file counts at the next try, which after \
                              ten wrong ones is let in a minute later";
                ("login-refused".into(), Severity::Stuck, sentence, remedy.into())
            } else if code == "certificate" {
                let remedy = "`citybrain doctor`, here and at the parent, looks at certificates; parent.ca_file must \
                              have the one that signed the parent's, and both clocks must be right";
                ("certificate".into(), Severity::Stuck, sentence, remedy.into())
            } else if code == "unavailable" {
                let remedy = format!(
                    "{parent} runs and lets nobody in now: it is stopping, or full, or had too many wrong passwords from \
                     this address within a minute (its log says so); it is tried again by itself"
                );
                ("parent-unreachable".into(), Severity::Stuck, sentence, remedy)
            } else {
                let remedy = format!("it tries again by itself; is {parent} running, and is parent.url right?");
                ("parent-unreachable".into(), Severity::Stuck, sentence, remedy)
            }
        }
    };
    Some(Symptom { code, severity, node: me.clone(), by: me.clone(), sentence, remedy })
}

/// What a refusal says behind its reason.
fn detail<'a>(reason: &str, why: &'a str) -> &'a str {
    why.strip_prefix(reason).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(why)
}

fn silent_ms(ctx: &Ctx) -> u64 {
    u64::from(ctx.config.link.keep_alive_s) * 1000 * SILENT_KEEP_ALIVES
}

/// A link in session on which records wait.
fn of_flow(me: &Address, peer: &Address, link: &view::Link, what: &str, silent_ms: u64) -> Option<Symptom> {
    let lanes = [&link.urgent, &link.routine];
    let waits = lanes.into_iter().map(|l| l.unsent + l.in_flight).max()?;
    let words = link.behind_in_words();
    let (code, severity, sentence, remedy) = if waits > 0 && link.last_heard_ms_ago.is_none_or(|ms| ms > silent_ms) {
        let sentence = format!("{peer} is silent, {}; records waiting for it: {words}", link.since_in_words());
        ("silent", Severity::Stuck, sentence, "the link is built anew by itself within seconds".to_owned())
    } else if waits > BEHIND_RECORDS {
        let sentence = format!("{me} is catching up with its {what} {peer}; records waiting: {words}");
        ("catching-up", Severity::Slow, sentence, "wait; `citybrain links` shows whether it becomes less".to_owned())
    } else {
        return None;
    };
    Some(Symptom { code: code.into(), severity, node: me.clone(), by: me.clone(), sentence, remedy })
}

/// A child that knocks, with a password that its parent does not know.
fn of_login(me: &Address, child: &Address, login: &RefusedLogin) -> Symptom {
    let sentence = format!("{me} refuses the login of {child}: account {}", login_in_words(login));
    let remedy = format!(
        "`citybrain user passwd {} --file USERS` at {me}, and the same in parent.password_file of {child}",
        login.name
    );
    Symptom { by: me.clone(), ..stuck(child, "login-refused", sentence, &remedy) }
}

/// What a parent's registry says of a child.
enum Known {
    Never,
    There,
    /// Taken out of the tree.
    Retired,
}

impl Known {
    fn of(state: &State, child: &Address) -> Known {
        match (state.registry.contains_key(child), state.retired.contains_key(child)) {
            (true, _) => Known::There,
            (false, true) => Known::Retired,
            (false, false) => Known::Never,
        }
    }
}

/// A child, as its parent sees it.
fn of_child(me: &Address, child: &Address, link: Option<&view::Link>, known: Known, silent_ms: u64) -> Option<Symptom> {
    let tell = |code: String, sentence: String, remedy: String| {
        Some(Symptom { code, severity: Severity::Stuck, node: child.clone(), by: me.clone(), sentence, remedy })
    };
    let Some(link) = link else {
        let (code, sentence, remedy) = match known {
            Known::There => (
                "away",
                format!("{child} has not come back since {me} started"),
                format!("is {child} running, and does its parent.url lead to {me}?"),
            ),
            Known::Retired => {
                ("retired", format!("{child} was taken out of the tree"), "start it, and it is back".to_owned())
            }
            Known::Never => (
                "never-came",
                format!("{me} has never heard of {child}"),
                format!("start it, with node.address = \"{child}\" and parent.url leading to {me}"),
            ),
        };
        return tell(code.into(), sentence, remedy);
    };
    let heard = link.since_in_words();
    let why = link.why.clone().unwrap_or_default();
    let code = link.code.as_deref().unwrap_or_default();
    match link.state.as_str() {
        "up" if code.is_empty() => of_flow(me, child, link, "child", silent_ms),
        "up" => {
            let sentence = format!("{child} is up, but another node with its address was turned away: {why}");
            let symptom = tell("refused-another".into(), sentence, remedy_of("duplicate").into())?;
            Some(Symptom { severity: Severity::Slow, ..symptom })
        }
        "refused" => tell(
            format!("refused-{code}"),
            format!("{me} refuses {child} ({code}): {}", detail(code, &why)),
            remedy_of(code).into(),
        ),
        // Its connection stands, and nothing is heard on it.
        "hello" if code == "no-progress" => {
            let sentence = format!(
                "{child} takes nothing from {me}: {why}, {heard}; records waiting for it: {}",
                link.behind_in_words()
            );
            let remedy = "its process or its disk stands still: look there (`citybrain doctor`, `systemctl status`), \
                          restart it; what waits is kept here";
            tell("takes-nothing".into(), sentence, remedy.into())
        }
        // The same with nothing that waits.
        "hello" if code == "silent" => {
            let sentence = format!("{child} no longer says that it is there, {heard}");
            let remedy =
                format!("look at {child}: its process stands still, or the broker between them does not carry");
            tell("silent".into(), sentence, remedy)
        }
        state => {
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            let sentence = format!("{child} is gone from {me}: the link is {state}{why}, {heard}");
            tell("away".into(), sentence, format!("is {child} running, and its network up? it comes back by itself"))
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    address: Option<String>,
    within_ms: Option<u64>,
}

/// `GET /v1/why?address=…`
pub async fn why(From(ctx): From<Arc<Ctx>>, uri: Uri) -> Result<Response, Refusal> {
    let wanted: Wanted = query(&uri)?;
    let me = ctx.config.node.address.clone();
    let to = wanted.address.map_or(Ok(me.clone()), |a| road::below(&me, &a))?;
    let within = road::within(wanted.within_ms)?;
    let next = me.child_towards(&to);
    let mut symptoms = find(&ctx, next.as_ref());
    let here = Looked { node: me.clone(), took_ms: Some(0), clock_ahead_ms: None, failed: None };
    let mut looked = vec![here];
    let mut at = next;
    while let Some(node) = at {
        at = node.child_towards(&to);
        let (row, found) = visit(&ctx, &node, at.as_ref(), within).await;
        symptoms.extend(found);
        let silent = row.failed.is_some();
        looked.push(row);
        if silent {
            break;
        }
    }
    Ok(ctx.answer(verdict(to, symptoms, looked)))
}

/// Asks a node on the way for what it finds, and compares clocks.
async fn visit(ctx: &Ctx, node: &Address, child: Option<&Address>, within: Duration) -> (Looked, Vec<Symptom>) {
    let path = child.map_or_else(|| "/v1/symptoms".to_owned(), |c| format!("/v1/symptoms?child={c}"));
    match road::ask_view::<view::Symptoms>(ctx, node, &path, within).await {
        Err(silent) => {
            let row =
                Looked { node: node.clone(), took_ms: None, clock_ahead_ms: None, failed: Some(silent.detail.clone()) };
            // That it is away is told by its parent already; a node in session that says nothing is not.
            let me = &ctx.config.node.address;
            let sentence = format!("{node} does not answer: {}", silent.detail);
            let remedy = "it may be overloaded, or have just gone: ask again in a few seconds";
            (row, vec![Symptom { by: me.clone(), ..stuck(node, "no-answer", sentence, remedy) }])
        }
        Ok((answer, took)) => {
            let ahead_ms = road::ahead_ms(answer.head.as_of, super::now(), took);
            let mut found = answer.body.symptoms;
            found.extend(clock(&ctx.config.node.address, node, ahead_ms, took));
            let row = Looked {
                node: node.clone(),
                took_ms: Some(took.as_millis() as u64),
                clock_ahead_ms: Some(ahead_ms),
                failed: None,
            };
            (row, found)
        }
    }
}

fn clock(me: &Address, node: &Address, ahead_ms: i64, took: Duration) -> Option<Symptom> {
    if ahead_ms.abs() < CLOCK_OFF_MS + took.as_millis() as i64 {
        return None;
    }
    let way = if ahead_ms > 0 { "ahead of" } else { "behind" };
    Some(Symptom {
        code: "clock-off".into(),
        severity: Severity::Note,
        node: node.clone(),
        by: me.clone(),
        sentence: format!("the clock of {node} is {} s {way} that of {me}", ahead_ms.abs() / 1000),
        remedy: "nothing is lost by it, but times mislead: set up time synchronisation on one of the two".into(),
    })
}

/// The worst first; among equals the one nearest to the node asked, for it hides what is below.
fn verdict(address: Address, mut symptoms: Vec<Symptom>, looked: Vec<Looked>) -> view::Why {
    // The parent's own word on a silent child says more than the silence.
    let named: Vec<Address> = symptoms
        .iter()
        .filter(|s| s.severity == Severity::Stuck && s.code != "no-answer")
        .map(|s| s.node.clone())
        .collect();
    symptoms.retain(|s| s.code != "no-answer" || !named.contains(&s.node));
    // What is wrong with others than the one in question counts only if it is in the way.
    symptoms.retain(|s| s.node == address || s.severity == Severity::Stuck);
    symptoms.sort_by_key(|s| (s.severity, s.node.depth()));
    let worst = symptoms.iter().find(|s| s.severity != Severity::Note);
    let (code, sentence, remedy) = match worst {
        Some(s) => (s.code.clone(), s.sentence.clone(), s.remedy.clone()),
        None if looked[0].node == address => ("well".into(), format!("all is well at {address}"), String::new()),
        None => ("well".into(), format!("all is well from {} to {address}", looked[0].node), String::new()),
    };
    let moves = !symptoms.iter().any(|s| s.severity == Severity::Stuck);
    view::Why { address, code, sentence, remedy, moves, symptoms, looked }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::view::LinkLane;

    fn a(s: &str) -> Address {
        Address::parse(s).unwrap()
    }

    /// `why`: code and text.
    fn link(peer: &str, state: &str, why: Option<(&str, &str)>, unsent: u64) -> view::Link {
        view::Link {
            role: LinkRole::Up,
            peer: a(peer),
            state: state.into(),
            why: why.map(|(_, text)| text.into()),
            code: why.map(|(code, _)| code.into()),
            last_heard_ms_ago: Some(1_200),
            down_ms: (state == "away").then_some(400),
            urgent: LinkLane::default(),
            routine: LinkLane { unsent, ..LinkLane::default() },
            lease: 1,
            received: 0,
            dropped: 0,
            resent_frames: 0,
            expired_records: 0,
            round_trip_us: None,
            unheard: Vec::new(),
            unheard_more: 0,
        }
    }

    #[test]
    fn one_input_that_was_refused_is_no_plural() {
        let said = |letters: &[(&str, u64)]| {
            let letters = letters.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect();
            refused_inputs(&Address::parse("c").unwrap(), &letters)
        };
        assert_eq!(said(&[(OF_LINKS[0], 3)]), None);
        assert_eq!(said(&[("not-json", 1)]).as_deref(), Some("c has refused 1 input, as `not-json`"));
        let both = said(&[("full", 1), ("not-json", 1_200), (OF_LINKS[0], 3)]);
        assert_eq!(both.as_deref(), Some("c has refused 1,201 inputs, most of them as `not-json`"));
    }

    #[test]
    fn each_state_of_a_link_has_its_code() {
        let me = a("c/s");
        let code = |l: &view::Link| of_parent(&me, l, 30_000).map(|s| s.code);
        assert_eq!(code(&link("c", "up", None, 3)), None);
        assert_eq!(code(&link("c", "up", None, 5_000)).as_deref(), Some("catching-up"));
        let silent = ("silent", "nothing was heard of it");
        assert_eq!(code(&link("c", "hello", Some(silent), 0)).as_deref(), Some("parent-unreachable"));
        assert_eq!(
            code(&view::Link { code: None, ..link("c", "connecting", Some(("", "refused")), 0) }).as_deref(),
            Some("parent-unreachable")
        );
        let wrong = ("login", "Connection refused");
        assert_eq!(code(&link("c", "connecting", Some(wrong), 0)).as_deref(), Some("login-refused"));
        let later =
            of_parent(&me, &link("c", "connecting", Some(("unavailable", "Connection refused")), 0), 30_000).unwrap();
        assert!(later.remedy.contains("too many wrong passwords"), "{}", later.remedy);
        let over = ("certificate", "certificate expired");
        assert_eq!(code(&link("c", "connecting", Some(over), 0)).as_deref(), Some("certificate"));
        let refused =
            of_parent(&me, &link("c", "refused", Some(("duplicate", "duplicate: c/s is held by another")), 7), 30_000)
                .unwrap();
        assert_eq!(refused.code, "refused-duplicate");
        assert_eq!(refused.sentence, "c refuses c/s (duplicate): c/s is held by another; records waiting: 7");
        let code = |l: Option<&view::Link>, known| of_child(&a("c"), &me, l, known, 30_000).map(|s| s.code);
        assert_eq!(code(None, Known::Never).as_deref(), Some("never-came"));
        assert_eq!(code(None, Known::There).as_deref(), Some("away"));
        assert_eq!(code(None, Known::Retired).as_deref(), Some("retired"));
        assert_eq!(code(Some(&link("c/s", "away", None, 0)), Known::There).as_deref(), Some("away"));
        let login = RefusedLogin {
            name: "street".into(),
            child: Some(me.clone()),
            peer: [10, 0, 0, 7].into(),
            times: 29,
            last: std::time::Instant::now(),
            why: citybrain_hub::door::users::Refused::Wrong,
        };
        let refused = of_login(&a("c"), &me, &login);
        assert_eq!(refused.code, "login-refused");
        let last = "account street, refused in a row: 29, the last from 10.0.0.7: wrong user or password";
        assert_eq!(refused.sentence, format!("c refuses the login of c/s: {last}"));
        let stuck = link("c/s", "hello", Some(("no-progress", "frames were not acknowledged in time")), 3);
        assert_eq!(code(Some(&stuck), Known::There).as_deref(), Some("takes-nothing"));
        assert_eq!(code(Some(&link("c/s", "hello", Some(silent), 0)), Known::There).as_deref(), Some("silent"));
        assert_eq!(
            code(Some(&link("c/s", "up", Some(("refused-another", "x")), 0)), Known::There).as_deref(),
            Some("refused-another")
        );
    }

    #[test]
    fn the_worst_comes_first_and_notes_about_others_are_left_out() {
        let note = |node: &str| Symptom { severity: Severity::Note, ..stuck(&a(node), "lost", "lost".into(), "") };
        let looked = vec![Looked { node: a("c"), took_ms: Some(0), clock_ahead_ms: None, failed: None }];
        let seen = verdict(
            a("c/s/m"),
            vec![note("c"), note("c/s/m"), stuck(&a("c/s"), "away", "gone".into(), "")],
            looked.clone(),
        );
        let codes: Vec<&str> = seen.symptoms.iter().map(|s| s.code.as_str()).collect();
        assert_eq!((seen.code.as_str(), seen.moves, codes), ("away", false, vec!["away", "lost"]));
        let well = verdict(a("c/s/m"), vec![note("c")], looked);
        assert_eq!((well.code.as_str(), well.moves, well.symptoms.len()), ("well", true, 0));
    }

    #[test]
    fn a_clock_that_is_off_is_told_only_beyond_doubt() {
        let off = |ms| clock(&a("c"), &a("c/s"), ms, Duration::from_millis(500)).map(|s| s.sentence);
        assert_eq!(off(2_400), None);
        assert_eq!(off(-31_536_000_000).as_deref(), Some("the clock of c/s is 31536000 s behind that of c"));
    }
}
