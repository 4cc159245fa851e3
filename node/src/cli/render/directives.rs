//! What was sent down, and who answered.

use super::{Cell, Screen, clean, counted, grouped, print, right};
use citybrain_shared::view;
use std::io::{self, Write};

pub(super) fn sent(v: &view::Sent, _: &Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{} for {}: on disk at position {}", clean(&v.event_type), v.target, grouped(v.pos.0))?;
    writeln!(out, "`citybrain directives show {}` says who answered", v.id)
}

pub(super) fn directives(v: &view::Directives, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.directives.is_empty() {
        return writeln!(out, "nothing was sent down through this node yet");
    }
    let mut table =
        s.table(&["ISSUED", "ID", "TYPE", "TARGET", "EXPECTED", "DELIVERED", "DONE", "FAILED", "EXPIRED", "SILENT"]);
    for d in &v.directives {
        let mut row = vec![
            Cell::new(s.zone.short(d.issued_at)),
            Cell::new(clean(&d.id)),
            Cell::new(clean(&d.event_type)),
            Cell::new(clean(&d.target)),
        ];
        row.extend([d.expected, d.delivered, d.done, d.failed, d.expired, d.silent].map(|n| right(grouped(n))));
        table.add_row(row);
    }
    print(&table, out)?;
    v.next.map_or(Ok(()), |next| writeln!(out, "`--after {next}` shows older ones"))
}

pub(super) fn directive(v: &view::Directive, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{} {} for {}", v.directive, clean(&v.event_type), clean(&v.target))?;
    writeln!(out, "issued by {} {}, position {} here", clean(&v.origin), s.zone.whole(v.issued_at), grouped(v.pos.0))?;
    writeln!(
        out,
        "{} expected: {} delivered, {} done, {} failed, {} expired, {} silent",
        counted(v.expected, "node"),
        grouped(v.delivered),
        grouped(v.done),
        grouped(v.failed),
        grouped(v.expired),
        grouped(v.silent)
    )?;
    v.silent_nodes.iter().try_for_each(|n| writeln!(out, "silent: {n}"))?;
    let more = v.silent.saturating_sub(v.silent_nodes.len() as u64);
    if more > 0 { writeln!(out, "silent: {} more", grouped(more)) } else { Ok(()) }
}
