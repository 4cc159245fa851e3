//! The node: whether it is ready, who may come in, its log and state, its links, and what it refused.

use super::{Answer, ok, say};
use crate::doctor::Facts;
use crate::doctor::facts::Node;
use citybrain_shared::view::Verdict::{Bad, Note, Warn};
use citybrain_shared::words::{bytes, counted, span};

pub(super) fn node_ready(f: &Facts) -> Answer {
    let Some(node) = &f.node else {
        return match &f.stopped {
            Some(s) if s.in_use => {
                say(Note, "a node runs on this folder", "without `--config` the node itself is asked")
            }
            _ => say(Note, "no node runs on this folder", "`citybrain run --config FILE` starts it"),
        };
    };
    if node.ready {
        return ok(format!("{} takes events, up {}", node.address, span(node.uptime_s * 1000)));
    }
    say(
        Bad,
        format!("{} takes nothing: {}", node.address, node.reasons.join("; ")),
        "the findings below say why; what is on disk stays readable",
    )
}

pub(super) fn config(f: &Facts) -> Answer {
    let c = &f.config;
    let file = c.file.as_deref().unwrap_or("FILE");
    match (c.problems.as_slice(), c.differs.as_slice()) {
        ([], []) => ok("no problems"),
        ([], parts) => say(
            Note,
            format!("{file} says otherwise than what the node goes by: {}", parts.join(", ")),
            format!(
                "`citybrain config diff {file}` shows how; `citybrain config reload` puts rules, services, scenes, \
                 categories and the calendar in force, a start all of it"
            ),
        ),
        (all, _) if c.file.is_some() => {
            let problems = counted(all.len() as u64, "problem");
            let found = format!("{file} has {problems} by now, and the next start would fail: {}", all.join("; "));
            say(Bad, found, format!("mend it before the node stops; `citybrain check {file}` shows what is wrong"))
        }
        (all, _) => say(Bad, all.join("; "), "`citybrain check FILE` shows where"),
    }
}

pub(super) fn exposure(f: &Facts) -> Answer {
    let c = &f.config;
    if c.api_open && !c.api_tokens {
        return say(
            Bad,
            format!(
                "the API listens on {} and asks nobody who he is: whoever reaches it can change things",
                c.api_listen
            ),
            "`api.tokens_file`, or `api.listen` on 127.0.0.1",
        );
    }
    if c.broker_open && c.anonymous {
        return say(
            Warn,
            format!("everybody who reaches {} comes in, and may do what `[access]` allows", c.broker_listen),
            "`access.users_file`, and `access.anonymous = false`",
        );
    }
    if c.api_open && !c.api_tls {
        return say(
            Note,
            format!("the API listens on {}, and tokens go there unencrypted", c.api_listen),
            "`api.cert_file` and `api.key_file` make it HTTPS; without, keep it inside a network of your own",
        );
    }
    let api = if c.api_open { "the API speaks TLS and asks for tokens" } else { "the API is on loopback" };
    let door = match &c.broker_url {
        Some(_) => "who comes in by MQTT is asked by the outside broker",
        None => "the door asks who comes or is on loopback",
    };
    ok(format!("{api}, and {door}"))
}

pub(super) fn broker_kind(f: &Facts) -> Answer {
    let away = f.node.as_ref().and_then(|n| n.broker_away.as_ref());
    match (&f.config.broker_url, away) {
        (None, _) => ok("embedded: an acknowledgement means on this node's disk"),
        (Some(url), Some(why)) => say(
            Bad,
            format!("outside, {url}, and not reached: {why}"),
            "does it run, and are `broker.url`, `broker.username` and `broker.password_file` right?",
        ),
        (Some(url), None) => say(
            Warn,
            format!("outside, {url}: an acknowledgement is that broker's word"),
            "leave `broker.url` out, unless one machine is too small",
        ),
    }
}

pub(super) fn log_damage(f: &Facts) -> Answer {
    if let Some(trouble) = f.stopped.as_ref().and_then(|s| s.trouble.as_ref()) {
        return say(Bad, trouble.clone(), "put a backup back: `citybrain store restore BACKUP DIR`");
    }
    let damages = f.node.as_ref().map(|n| &n.damages).or(f.stopped.as_ref().map(|s| &s.damages))?;
    match damages.as_slice() {
        [] => ok("none seen at the start; `citybrain store verify DIR` reads all"),
        all => say(
            Bad,
            all.join("; "),
            "the rest stays readable; a parent that has them is asked for nothing: look at the disk, and at `citybrain store verify DIR`",
        ),
    }
}

pub(super) fn log_torn(f: &Facts) -> Answer {
    if let Some((first, last)) = f.node.as_ref().and_then(|n| n.lost_end) {
        return say(
            Bad,
            format!("the log has lost its end: records {first} to {last} were durable, as the state shows"),
            "what had climbed is above (`citybrain audit` there); look at the disk, or put a backup back: `citybrain store restore BACKUP DIR`",
        );
    }
    let torn = f.node.as_ref().map(|n| n.torn_bytes).or(f.stopped.as_ref().map(|s| s.torn_bytes))?;
    match torn {
        0 => ok("the log ends cleanly"),
        n => say(
            Note,
            format!("the last stop was not clean: {n} bytes of an unfinished write; nothing of it was acknowledged"),
            "nothing to do",
        ),
    }
}

pub(super) fn state_rebuilt(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    match &node.rebuilt {
        None if node.is_restored => ok("made of the backup that was put back"),
        None => ok("read as it was left"),
        Some(why) => {
            say(Warn, why.clone(), "it is made of the log, which has everything; if it happens twice, look at the disk")
        }
    }
}

pub(super) fn snapshot_age(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    let behind = node.last_pos.0.saturating_sub(node.snapshot_pos.0);
    let found = format!("the newest snapshot is {} old", counted(behind, "record"));
    if f.config.snapshot_records > 0 && behind > 2 * f.config.snapshot_records {
        return say(
            Warn,
            format!("{found}, and one is due every {}", f.config.snapshot_records),
            "the log output says why none could be written: disk full?",
        );
    }
    ok(found)
}

pub(super) fn log_size(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    let found = format!("{} in {}", bytes(node.log_bytes), counted(node.log_segments, "segment"));
    if node.log_bytes <= f.config.log_bytes_max {
        return ok(found);
    }
    let held = if node.needed_pos <= node.last_pos {
        format!("; {} still needs {} and on", node.needed_by, node.needed_pos)
    } else {
        String::new()
    };
    say(
        Warn,
        format!("{found}, more than `store.log_bytes_max` ({}){held}", bytes(f.config.log_bytes_max)),
        "`citybrain links` shows a peer that is behind; a session that never comes back holds the log until it expires",
    )
}

pub(super) fn link_to_parent(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    let Some(link) = node.links.iter().find(|l| l.up) else {
        return if f.config.has_parent {
            say(Warn, "a parent is configured, and its link has not begun", "`citybrain links`")
        } else {
            ok("no parent is configured: this node works alone")
        };
    };
    let why = link.why.as_ref().map_or(String::new(), |w| format!(": {w}"));
    match (link.state.as_str(), link.heard_ms_ago) {
        ("up", _) => ok(format!("{} is up, {} to send", link.peer, counted(link.unsent, "record"))),
        ("refused", _) => {
            say(Bad, format!("{} refuses{why}", link.peer), "what the reason says; events are kept here until then")
        }
        (state, None) => say(
            Warn,
            format!("{} was never reached since this start, {state}{why}", link.peer),
            "`parent.url`, its network, and whether it runs; events are kept here until then",
        ),
        (state, Some(ms)) => say(
            Warn,
            format!("{} was last heard {} ago, {state}{why}", link.peer, span(ms)),
            "its network, and whether it runs; events are kept here until then",
        ),
    }
}

pub(super) fn links_to_children(f: &Facts) -> Answer {
    let node: &Node = f.node.as_ref()?;
    let children: Vec<_> = node.links.iter().filter(|l| !l.up).collect();
    if children.is_empty() {
        return ok("no child has come yet");
    }
    let list = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        let fits = children.iter().filter(|l| wanted(&l.state));
        fits.map(|l| format!("{}{}", l.peer, l.why.as_ref().map_or(String::new(), |w| format!(" ({w})")))).collect()
    };
    let refused = list(&|s| s == "refused");
    if !refused.is_empty() {
        return say(
            Bad,
            format!("refused: {}", refused.join("; ")),
            "what the reason says; each keeps its events until then",
        );
    }
    let away = list(&|s| s != "up");
    if !away.is_empty() {
        return say(
            Warn,
            format!("{} of {} not up: {}", away.len(), children.len(), away.join("; ")),
            "`citybrain doctor` there; each keeps its events until then",
        );
    }
    ok(format!("all {} up", children.len()))
}

pub(super) fn clock_of_children(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    match &node.ahead {
        Some(a) if a.by_us > 5_000_000 => say(
            Warn,
            format!("{}'s clock is {} s ahead of this one", a.origin, a.by_us / 1_000_000),
            "set the clock that is wrong: `citybrain doctor` on both says which",
        ),
        _ => ok("no origin of the newest records is ahead of this clock"),
    }
}

pub(super) fn versions(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    let newer: Vec<String> = node
        .children
        .iter()
        .filter(|(_, v)| number(v) > number(&f.version))
        .map(|(a, v)| format!("{a} ({v})"))
        .collect();
    if newer.is_empty() {
        return ok(format!("{}, and no child is newer", f.version));
    }
    say(Warn, format!("this is {}, and newer: {}", f.version, newer.join(", ")), "upgrade parents before children")
}

pub(super) fn dead_letters(f: &Facts) -> Answer {
    match f.node.as_ref()?.dead_letters_open {
        0 => ok("none open"),
        n => say(
            Warn,
            format!("{n} open: refused, and nobody has looked"),
            "`citybrain dlq list`, then `dlq retry` or `dlq drop`",
        ),
    }
}

pub(super) fn calendar(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    let unknown = node.days_unknown_from.zip(node.working_until).filter(|(from, until)| from <= until);
    match (&node.calendar_of, unknown) {
        (Some(of), Some((from, until))) => say(
            Warn,
            format!(
                "the `[calendar]` of {of} knows no days off from {from} on, and working time is counted until {until}"
            ),
            "add those of that year to its `days_file` or `holidays`; clocks that are set keep their moment",
        ),
        (Some(of), None) => ok(format!("working time goes by the `[calendar]` of {of}: {}", node.calendar)),
        (None, _) => say(
            Note,
            format!("neither this node nor one above it has a `[calendar]`: working time is {}", node.calendar),
            "`[calendar]` in the city's file, with its days off: all below it go by it",
        ),
    }
}

fn number(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|p| p.parse().ok()).collect()
}
