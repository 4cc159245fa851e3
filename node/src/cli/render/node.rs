//! One node: its config, its health, its links.

use super::{Cell, Color, Screen, ago, clean, counted, grouped, or_dash, print, right, span};
use citybrain_shared::view::{self, Head, LinkRole};
use citybrain_shared::words::{beginning, bytes};
use std::io::{self, Write};

pub(super) fn version(v: &view::Version, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "citybrain {} (link protocol {} to {})", v.version, v.link_version_min, v.link_version_max)
}

pub(super) fn check(v: &view::Check, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&["FILE", "ADDRESS", "BROKER", "API", "PARENT", "RESULT"]);
    for f in &v.files {
        let result = match f.problems.len() as u64 {
            0 => s.state("ok"),
            n => s.mark(&counted(n, "problem"), true, Color::Red),
        };
        let address = f.address.as_ref().map_or("-", |a| a.as_str());
        table.add_row(vec![
            Cell::new(&f.path),
            Cell::new(address),
            Cell::new(or_dash(&f.broker)),
            Cell::new(or_dash(&f.api)),
            Cell::new(or_dash(&f.parent)),
            result,
        ]);
    }
    print(&table, out)?;
    v.checked.iter().try_for_each(|c| writeln!(out, "checked: {c}"))?;
    v.notes.iter().try_for_each(|n| writeln!(out, "note: {n}"))
}

pub(super) fn status(head: &Head, v: &view::Status, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let name = if v.name.is_empty() { String::new() } else { format!(" {}", clean(&v.name)) };
    let ready = if v.ready.ready { "ready" } else { "not ready" };
    let mut table = s.table(&[]);
    let mut row = |key: &str, value: Cell| {
        table.add_row(vec![s.bold(key), value]);
    };
    row("node", Cell::new(format!("{}{name} ({})", head.node, v.tier)));
    let why =
        if v.ready.reasons.is_empty() { String::new() } else { format!(": {}", clean(&v.ready.reasons.join("; "))) };
    row("state", s.mark(&format!("{ready}{why}"), true, if v.ready.ready { Color::Green } else { Color::Red }));
    let short = beginning(&v.incarnation, 8);
    let process = match v.pid {
        0 => format!("none, the node is stopped; its latest start was number {} of incarnation {short}", v.boots),
        pid => {
            let (version, up) = (&v.version, span(v.uptime_s * 1000));
            format!("citybrain {version}, pid {pid}, up {up}, start {} of incarnation {short}", v.boots)
        }
    };
    row("process", Cell::new(process));
    row("data", Cell::new(clean(&v.data)));
    row("log", Cell::new(format!("positions {} to {}", grouped(v.log.first_pos.0), grouped(v.log.last_pos.0))));
    let c = &v.counters;
    row(
        "events",
        Cell::new(format!(
            "{} began here, {} from below, {} from above; {} urgent",
            grouped(c.accepted),
            grouped(c.received_up),
            grouped(c.received_down),
            grouped(c.urgent)
        )),
    );
    row("repeated", Cell::new(format!("{} dropped that came again", counted(c.duplicates, "record"))));
    if c.lost > 0 {
        row("lost", s.mark(&counted(c.lost, "record"), true, Color::Red));
    }
    let d = &v.door;
    let (kind, address, sessions) = (clean(&d.kind), clean(&d.address), counted(d.sessions, "session"));
    let door = match (&d.away, d.connections_max) {
        (Some(why), _) => {
            let since = span(d.away_ms.unwrap_or_default());
            s.mark(&format!("{kind} {address}: not reached for {since}: {}", clean(why)), true, Color::Red)
        }
        // Of a stopped node.
        (None, 0) if d.address.is_empty() => Cell::new(format!("{kind}, {sessions}")),
        (None, 0) => Cell::new(format!("{kind} {address}: connected, {sessions}")),
        (None, max) => {
            let (n, max) = (grouped(d.connections), counted(max, "connection"));
            Cell::new(format!("{kind} {address}: {n} of {max}, {sessions}"))
        }
    };
    row("door", door);
    row("links", Cell::new(links_in_short(&v.links)));
    row("below", Cell::new(format!("{} known to be there", counted(v.descendants, "node"))));
    let look = if v.dead_letters_open > 0 { " (`citybrain dlq list`)" } else { "" };
    row("refused", Cell::new(format!("{} open{look}", counted(v.dead_letters_open, "dead letter"))));
    for (_, trouble) in v.webhooks.iter().flat_map(view::Webhook::troubles) {
        row("webhooks", Cell::new(clean(&trouble)));
    }
    print(&table, out)
}

pub(super) fn links_in_short(links: &[view::Link]) -> String {
    let up = match links.iter().find(|l| l.role == LinkRole::Up) {
        Some(l) => format!("to {}: {}", l.peer, clean(&l.state)),
        None => "no parent".into(),
    };
    let (well, all) = links
        .iter()
        .filter(|l| l.role == LinkRole::Down)
        .fold((0, 0), |(well, all), l| (well + u64::from(l.state == "up"), all + 1));
    format!("{up}; {} of {} children up", grouped(well), grouped(all))
}

pub(super) fn links(v: &view::Links, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.links.is_empty() {
        return writeln!(out, "no links: no parent is configured, and no child has come yet");
    }
    let mut table = s.table(&[
        "LINK",
        "PEER",
        "STATE",
        "UNSENT",
        "IN FLIGHT",
        "BYTES",
        "OLDEST",
        "CREDIT",
        "ROUND TRIP",
        "LAST HEARD",
    ]);
    for l in &v.links {
        let (way, peer) = match l.role {
            LinkRole::Up => ("up", l.peer.to_string()),
            // Whole for a program; for people it is below this node anyway.
            LinkRole::Down if s.width.is_none() => ("down", l.peer.to_string()),
            LinkRole::Down => ("down", format!("…/{}", l.peer.leaf())),
        };
        // By positions there are no more records than that; where there are none, it is known.
        let most = |n: u64| format!("{}{}", if l.behind().1 && n > 0 { "≤ " } else { "" }, grouped(n));
        let all = l.urgent.unsent + l.routine.unsent;
        let unsent = match l.urgent.unsent {
            0 => most(all),
            urgent => format!("{} ({} urgent)", most(all), grouped(urgent)),
        };
        let waiting = l.behind().0 > 0;
        let size = match l.urgent.bytes + l.routine.bytes {
            n if waiting && l.behind().1 => format!("> {}", bytes(n)),
            n if waiting => bytes(n),
            _ => "-".into(),
        };
        let oldest = l.urgent.oldest_ms.max(l.routine.oldest_ms).map_or("-".into(), span);
        // The frames that the peer takes at once; of the lane that waits, if one does.
        let busy = if l.urgent.unsent > 0 { &l.urgent } else { &l.routine };
        let credit = if l.state == "up" { busy.credit_frames.to_string() } else { "-".into() };
        let round_trip = l.round_trip_us.map_or("-".into(), |us| format!("{:.1} ms", us as f64 / 1000.0));
        table.add_row(vec![
            Cell::new(way),
            Cell::new(peer),
            s.state(&l.state),
            right(unsent),
            right(most(l.urgent.in_flight + l.routine.in_flight)),
            right(size),
            right(oldest),
            right(credit),
            right(round_trip),
            Cell::new(ago(l.last_heard_ms_ago)),
        ]);
    }
    print(&table, out)?;
    for l in &v.links {
        let down = l.down_ms.map(|ms| format!("{} for {}", l.state, span(ms)));
        let expired = (l.expired_records > 0)
            .then(|| format!("{} not sent: their time was over", counted(l.expired_records, "record")));
        let told: Vec<_> = l.why.as_ref().map(|w| clean(w)).into_iter().chain(down).chain(expired).collect();
        if !told.is_empty() {
            writeln!(out, "{}: {}", l.peer, told.join("; "))?;
        }
    }
    Ok(())
}
