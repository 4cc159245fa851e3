//! How answers about a tree look: many nodes' blocks, the way of an event, why, the books.

use super::directives::directive;
use super::{
    Cell, Color, Fail, Lines, Output, Screen, Stop, ago, clean, counted, footer, grouped, or_dash, print, right, span,
};
use citybrain_shared::view::{self, Answer, Severity};
use std::io::{self, Write};

/// What one node's reply looks like.
pub type Show = Box<dyn Fn(&view::Reply) -> Result<Output, Fail>>;

/// Answers of many nodes, as they come.
pub struct Many {
    pub lines: Lines,
    /// Makes one node's answer what its command shows.
    pub show: Show,
}

/// Somebody did not answer.
const UNREACHABLE: u8 = 3;

impl Screen {
    /// One block a node; then who is missing. The code is the worst of all.
    pub(super) fn many(&self, many: Many, out: &mut dyn Write) -> Result<u8, Stop> {
        let mut code = 0;
        for line in many.lines {
            let line = line.map_err(Stop::Fail)?;
            if let Ok(end) = Answer::<view::Asked>::parse(line.as_bytes()) {
                if self.json {
                    writeln!(out, "{line}")?;
                } else {
                    asked(&end, self, out)?;
                }
                let no = u8::from(end.body.not_asked > 0 || end.body.asked == 0);
                return Ok(if end.body.missing.is_empty() { code.max(no) } else { UNREACHABLE });
            }
            let foreign = |e: serde_json::Error| {
                Stop::Fail(Fail::no("foreign", format!("an answer does not read: {e}"), "`--json` shows it as it came"))
            };
            let reply: view::Reply = serde_json::from_str(&line).map_err(foreign)?;
            if self.json {
                // A view names its node itself; a stream does not.
                let text = reply.json.as_ref().map_or(line.as_str(), |j| j.get());
                writeln!(out, "{text}")?;
                // As its command judges it alone: an answer may say no.
                code = code.max(match (many.show)(&reply) {
                    Ok(output) => self.write(output, &mut io::sink())?,
                    Err(fail) => fail.code,
                });
            } else {
                let shown = (many.show)(&reply);
                // One line is worth no heading: a city has hundreds of them.
                if let Ok(Output::Version(a)) = &shown {
                    write!(out, "{}: ", reply.node)?;
                    super::node::version(&a.body, self, out)?;
                    out.flush()?;
                    continue;
                }
                writeln!(out, "── {} · {} ms", reply.node, grouped(reply.took_ms))?;
                match shown {
                    Ok(output) => code = code.max(self.write(output, out)?),
                    Err(fail) => {
                        code = code.max(fail.code);
                        writeln!(out, "{}", clean(&fail.failure.detail))?;
                    }
                }
                writeln!(out)?;
            }
            out.flush()?;
        }
        let hint = "ask again; the node's log may say more";
        Err(Stop::Fail(Fail::unreachable("the answers broke off: who is missing was not said", hint)))
    }
}

fn asked(end: &Answer<view::Asked>, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let a = &end.body;
    writeln!(out, "{} of {} nodes of {} answered", grouped(a.answered), grouped(a.asked), clean(&a.selector))?;
    if !a.missing.is_empty() {
        let mut table = s.table(&["MISSING", "WHY", "DETAIL"]);
        for m in &a.missing {
            table.add_row(vec![Cell::new(&m.node), s.mark(&m.why, true, Color::Yellow), Cell::new(clean(&m.detail))]);
        }
        print(&table, out)?;
        writeln!(out, "`citybrain why {}` says what is in the way", a.missing[0].node)?;
    }
    if a.asked == 0 {
        writeln!(out, "nobody is meant by that: `citybrain tree` shows who is there")?;
    }
    if a.not_asked > 0 {
        writeln!(out, "{} more are meant and were not asked: narrow the selector", grouped(a.not_asked))?;
    }
    Ok(())
}

/// What a node above last knew of one that is silent.
pub fn known(answer: &Answer<view::Known>, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let k = &answer.body;
    let mut table = s.table(&[]);
    let mut row = |key: &str, value: String| {
        table.add_row(vec![s.bold(key), Cell::new(value)]);
    };
    row("node", format!("{} {} ({})", k.address, clean(&k.name), k.address.tier()));
    row("state", "does not answer; what follows is the word of a node above".into());
    if let Some(link) = &k.link {
        let why = link.why.as_ref().map_or_else(String::new, |w| format!(": {}", clean(w)));
        let to = if link.peer == k.address { String::new() } else { format!("to {}, on the way, ", link.peer) };
        row("link", format!("{to}{}{why}, {}", clean(&link.state), link.since_in_words()));
        let got = link.urgent.durable_here_pos.max(link.routine.durable_here_pos);
        row("received", format!("everything up to position {} of {}", grouped(got.0), link.peer));
    }
    if k.is_registered {
        row("told", format!("of itself {}, as version {}", ago(k.presence_ms_ago), or_dash(&k.version)));
    } else {
        row("told", "never of itself".into());
    }
    print(&table, out)?;
    footer(&answer.head, s, out)
}

pub fn trace(v: &view::Trace, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let to = if v.target.is_empty() { format!("reach {}", v.reach) } else { format!("for {}", clean(&v.target)) };
    writeln!(out, "{} {} from {}, {to}", clean(&v.priority), clean(&v.event_type), clean(&v.origin))?;
    let mut table = s.table(&["NODE", "STATE", "POSITION", "COMMITTED", "HOP", "DETAIL"]);
    for h in &v.hops {
        let good = ["committed", "acknowledged"].contains(&h.state.as_str());
        let color = if h.state == "missing" { Color::Red } else { Color::Yellow };
        let hop = match h.since_previous_us {
            None => "-".into(),
            Some(us) if us < 0 => format!("{:.1} ms (clocks differ)", us as f64 / 1000.0),
            Some(us) if us < 1_000_000 => format!("+{:.1} ms", us as f64 / 1000.0),
            Some(us) => format!("+{}", span(us as u64 / 1000)),
        };
        table.add_row(vec![
            Cell::new(&h.node),
            s.mark(&h.state, !good, color),
            right(h.pos.map_or("-".into(), |p| grouped(p.0))),
            Cell::new(h.committed_at.map_or("-".into(), |t| s.zone.short_ms(t))),
            right(hop),
            // What the last line says as a sentence is not said here as well.
            Cell::new(clean(h.detail.as_deref().filter(|d| *d != v.sentence).unwrap_or_default())),
        ]);
    }
    print(&table, out)?;
    for c in &v.caused {
        writeln!(out, "caused {} {} at {}, position {}", clean(&c.event_type), clean(&c.id), c.node, grouped(c.pos.0))?;
    }
    if let Some(d) = &v.directive {
        directive(d, s, out)?;
    }
    for m in &v.missing {
        writeln!(out, "not asked: {}: {}", m.node, clean(&m.detail))?;
    }
    let label = if v.sentence.starts_with(&v.outcome) { String::new() } else { format!("{}: ", v.outcome) };
    writeln!(out, "{label}{}", clean(&v.sentence))
}

/// 0 it is there or on its way without hindrance, 1 it is not.
pub fn trace_code(v: &view::Trace) -> u8 {
    u8::from(!["arrived", "passed-on"].contains(&v.outcome.as_str()))
}

pub fn why(v: &view::Why, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let color = if v.code == "well" { Color::Green } else { Color::Red };
    let code = s.mark(&v.code, true, color);
    let mut table = s.table(&[]);
    table.add_row(vec![code, Cell::new(clean(&v.sentence))]);
    if !v.remedy.is_empty() {
        table.add_row(vec![Cell::new("to do"), Cell::new(clean(&v.remedy))]);
    }
    print(&table, out)?;
    let rest: Vec<_> = v.symptoms.iter().filter(|s| s.sentence != v.sentence).collect();
    if !rest.is_empty() {
        let mut table = s.table(&["ALSO", "CODE", "BY", "WHAT"]);
        for symptom in rest {
            let severity = match symptom.severity {
                Severity::Stuck => "stuck",
                Severity::Slow => "slow",
                Severity::Note => "note",
            };
            table.add_row(vec![
                Cell::new(severity),
                Cell::new(clean(&symptom.code)),
                Cell::new(&symptom.by),
                Cell::new(clean(&symptom.sentence)),
            ]);
        }
        print(&table, out)?;
    }
    let looked = v.looked.iter().map(|l| match (&l.failed, l.took_ms) {
        (Some(_), _) | (None, None) => format!("{} (no answer)", l.node),
        (None, Some(0)) => l.node.to_string(),
        (None, Some(ms)) => format!("{} ({ms} ms)", l.node),
    });
    writeln!(out, "looked at: {}", looked.collect::<Vec<_>>().join(", "))
}

pub fn audit(v: &view::Audit, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.links.is_empty() && v.unasked.is_empty() {
        return writeln!(out, "nothing to audit: it has no parent, and no child has come yet");
    }
    let head = ["UP FROM", "ACCEPTED", "ABOVE", "WAITING", "PARKED", "EXPIRED", "LOST", "MISSING"];
    let mut table = s.table(&head);
    let mut add = |name: String, sums: &view::Sums| {
        let numbers = [sums.accepted, sums.above, sums.waiting, sums.parked, sums.expired, sums.lost];
        let mut row = vec![Cell::new(name)];
        row.extend(numbers.map(|n| right(grouped(n))));
        let missing = s.mark(&grouped(sums.missing), sums.missing > 0, Color::Red);
        row.push(missing.right());
        table.add_row(row);
    };
    let links = in_tree(v);
    for l in &links {
        add(set_in(l, &links), &l.sums);
    }
    add("all".into(), &v.totals);
    print(&table, out)?;
    if v.down.sent > 0 {
        audit_down(v, s, out)?;
    }
    for l in &v.links {
        for m in &l.down_missing {
            writeln!(
                out,
                "missing at {}: {} {} for {}, position {} at {}",
                l.child,
                clean(&m.event_type),
                clean(&m.id),
                clean(&m.target),
                grouped(m.pos.0),
                l.parent
            )?;
        }
        for g in &l.gaps {
            let numbers = if g.first == g.last {
                format!("number {}", g.first)
            } else {
                format!("numbers {} to {}", g.first, g.last)
            };
            let ids = if g.ids.is_empty() { String::new() } else { format!(": {}", clean(&g.ids.join(", "))) };
            writeln!(
                out,
                "missing at {}: {numbers} of {}, {} events that reach the {}{ids}",
                l.parent,
                g.origin,
                clean(&g.priority),
                g.reach
            )?;
        }
        if let Some(note) = &l.note {
            writeln!(out, "{} → {}: {}", l.child, l.parent, clean(note))?;
        }
    }
    for m in &v.unasked {
        writeln!(out, "not audited: {}: {}", m.node, clean(&m.detail))?;
    }
    let verdict = match (v.adds_up, v.unasked.len()) {
        (true, 0) => "it adds up: everything accepted is above, waiting, or on record".to_owned(),
        (true, n) => format!("what could be asked adds up; {} could not", counted(n as u64, "node")),
        (false, _) => format!(
            "it does not add up: {} records are missing and nobody accounts for them",
            grouped(v.totals.missing + v.down.missing)
        ),
    };
    writeln!(out, "{verdict}")
}

/// The links by their child's address, each above those below it; what is wrong is told under the table.
fn in_tree(v: &view::Audit) -> Vec<&view::LinkAudit> {
    let mut links: Vec<&view::LinkAudit> = v.links.iter().collect();
    links.sort_by(|a, b| a.child.cmp(&b.child));
    links
}

/// The child at one end, set in below its parent: whole addresses of both ends would not fit a screen.
fn set_in(link: &view::LinkAudit, all: &[&view::LinkAudit]) -> String {
    let top = all.iter().map(|l| l.child.depth()).min().unwrap_or_default();
    format!("{}{}", " ".repeat(link.child.depth() - top), link.child.leaf())
}

/// What goes down, for the links on which anything does.
fn audit_down(v: &view::Audit, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let head = ["DOWN TO", "SENT", "HELD", "WAITING", "PARKED", "REFUSED", "LOST", "NOT KEPT", "MISSING"];
    let mut table = s.table(&head);
    let mut add = |name: String, d: &view::DownSums| {
        let mut row = vec![Cell::new(name)];
        row.extend([d.sent, d.held, d.waiting, d.parked, d.refused, d.lost, d.not_kept].map(|n| right(grouped(n))));
        let missing = s.mark(&grouped(d.missing), d.missing > 0, Color::Red);
        row.push(missing.right());
        table.add_row(row);
    };
    let links = in_tree(v);
    for l in links.iter().filter(|l| l.down.sent > 0) {
        add(set_in(l, &links), &l.down);
    }
    add("all".into(), &v.down);
    print(&table, out)
}

/// 1 something is missing; 3 somebody could not be asked.
pub fn audit_code(v: &view::Audit) -> u8 {
    match (v.adds_up, v.unasked.is_empty()) {
        (false, _) => 1,
        (true, false) => UNREACHABLE,
        (true, true) => 0,
    }
}

pub fn counts(v: &view::Counts, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.rows.is_empty() {
        return writeln!(out, "no events that fit between positions {} and {}", v.after_pos.next(), v.upto_pos);
    }
    let by = match v.by {
        view::CountBy::Source => "SOURCE",
        view::CountBy::Type => "TYPE",
        view::CountBy::Origin => "ORIGIN",
        view::CountBy::Priority => "PRIORITY",
    };
    let mut table = s.table(&[by, "EVENTS", "PER SECOND", "SHARE", "BYTES", "LAST AT"]);
    for row in &v.rows {
        table.add_row(vec![
            Cell::new(clean(or_dash(&row.name))),
            right(grouped(row.events)),
            right(format!("{:.1}", row.per_s)),
            right(format!("{:.0} %", row.share * 100.0)),
            right(grouped(row.bytes)),
            right(grouped(row.last_pos.0)),
        ]);
    }
    print(&table, out)?;
    let what = match v.by {
        view::CountBy::Source => "source",
        view::CountBy::Type => "type",
        view::CountBy::Origin => "origin",
        view::CountBy::Priority => "lane",
    };
    let more = if v.names_cut { "more than " } else { "" };
    let names = format!("{more}{}", counted(v.names, what));
    let left = v.names.saturating_sub(v.rows.len() as u64);
    if left > 0 {
        writeln!(out, "{} of {names} shown: `--limit N` shows more", grouped(v.rows.len() as u64))?;
    }
    writeln!(
        out,
        "{} of {names} in {:.1} s, positions {} to {}",
        counted(v.events, "event"),
        v.span_ms as f64 / 1e3,
        grouped(v.after_pos.next().0),
        grouped(v.upto_pos.0)
    )
}

pub fn tree(v: &view::Tree, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    // A column in which all rows say the same is not worth its place on a narrow screen; a tier is
    // how far a node is set in.
    let is_deep = v.nodes.iter().skip(1).any(|n| n.health.is_some());
    let version = v.nodes.first().map_or("", |n| n.version.as_str());
    let is_mixed = v.nodes.iter().any(|n| n.version != version);
    let of_kind = |is_there: bool, head: &[&'static str]| if is_there { head.to_vec() } else { Vec::new() };
    let head = [
        vec!["NODE", "NAME"],
        of_kind(!is_deep, &["TIER"]),
        vec!["LINK", "ALARMS"],
        of_kind(is_deep, &["BEHIND", "HEALTH"]),
        of_kind(!is_deep, &["LAST HEARD"]),
        of_kind(is_mixed, &["VERSION"]),
    ];
    let mut table = s.table(&head.concat());
    let top = v.nodes.first().map_or(1, |n| n.address.depth());
    for n in &v.nodes {
        // The whole address for the top, then the last segment, set in by its depth.
        let node = match n.address.depth().saturating_sub(top) {
            0 => n.address.to_string(),
            depth => format!("{}{}", "  ".repeat(depth), n.address.leaf()),
        };
        let mut row = vec![Cell::new(node), Cell::new(clean(or_dash(&n.name)))];
        if !is_deep {
            row.push(Cell::new(n.tier));
        }
        row.extend([s.state(&n.state), right(grouped(n.alarms))]);
        if is_deep {
            row.push(right(n.behind.map_or("-".into(), grouped)));
            // What it says of itself as a sentence stands under the table.
            let health = n.health.as_deref().unwrap_or("-");
            let short = health.split(':').next().unwrap_or(health);
            row.push(s.mark(short, !["-", "well"].contains(&health), Color::Yellow));
        } else {
            // Of whom no link tells, the last word is that of its start.
            let told = if n.state == "known" { "told " } else { "" };
            row.push(Cell::new(format!("{told}{}", ago(n.last_heard_ms_ago))));
        }
        if is_mixed {
            row.push(Cell::new(clean(&n.version)));
        }
        table.add_row(row);
    }
    print(&table, out)?;
    for n in v.nodes.iter() {
        if let Some(health) = n.health.as_ref().filter(|h| h.contains(':')) {
            let heard = match n.last_heard_ms_ago {
                Some(0) | None => String::new(),
                told if n.state == "known" => format!("; it told of itself {}, at its start", ago(told)),
                heard => format!("; last heard {}", ago(heard)),
            };
            writeln!(out, "{}: {}{heard}", n.address, clean(health))?;
        }
    }
    match v.nodes.as_slice() {
        [] | [_] => writeln!(out, "nobody below has told of itself yet"),
        _ if is_deep => Ok(()),
        _ => writeln!(out, "nobody was asked: `known` is who told of itself at its start"),
    }
}

/// 3 if some did not answer who were asked.
pub fn tree_code(v: &view::Tree) -> u8 {
    if v.nodes.iter().any(|n| n.silent) { 3 } else { 0 }
}

pub fn cut_note(lines_cut: bool, out: &mut dyn Write) -> io::Result<()> {
    if lines_cut {
        writeln!(out, "cut: more was there than comes over the links; ask on with `--after POS`")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Zone;
    use super::*;

    #[test]
    fn answers_of_many_nodes_mean_the_same_code_as_json_as_they_do_as_tables() {
        let of = |is_ready: bool| {
            let text = match is_ready {
                true => {
                    "{\"node\":\"c/s\",\"took_ms\":1,\"status\":200,\"json\":{\"schema\":\"citybrain.ready/1\",\"node\":\"c/s\",\"as_of\":\"2026-01-01T00:00:00Z\",\"ready\":true,\"reasons\":[]}}\n{\"schema\":\"citybrain.asked/1\",\"node\":\"c\",\"as_of\":\"2026-01-01T00:00:00Z\",\"selector\":\"c/**\",\"asked\":1,\"answered\":1,\"missing\":[],\"not_asked\":0}\n"
                }
                false => {
                    "{\"node\":\"c/s\",\"took_ms\":1,\"status\":200,\"json\":{\"schema\":\"citybrain.ready/1\",\"node\":\"c/s\",\"as_of\":\"2026-01-01T00:00:00Z\",\"ready\":false,\"reasons\":[\"full\"]}}\n{\"schema\":\"citybrain.asked/1\",\"node\":\"c\",\"as_of\":\"2026-01-01T00:00:00Z\",\"selector\":\"c/**\",\"asked\":1,\"answered\":1,\"missing\":[],\"not_asked\":0}\n"
                }
            };
            let show: Show = Box::new(|reply| {
                let json = reply.json.as_ref().map_or("", |j| j.get());
                let ready = Answer::<view::Ready>::parse(json.as_bytes()).expect("it is a view");
                Ok(Output::Code(u8::from(!ready.body.ready)))
            });
            Many { lines: Lines::of("c", text), show }
        };
        for json in [false, true] {
            let screen = Screen { json, color: false, color_stderr: false, width: None, zone: Zone::utc_in(2026) };
            for (is_ready, code) in [(true, 0), (false, 1)] {
                let mut out = Vec::new();
                let Ok(found) = screen.many(of(is_ready), &mut out) else { panic!("it ends") };
                assert_eq!(found, code, "json {json}: {}", String::from_utf8_lossy(&out));
            }
        }
    }
}
