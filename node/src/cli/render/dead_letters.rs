//! What was refused.

use super::{Cell, Color, Screen, clean, grouped, or_dash, print, right};
use citybrain_shared::view;
use std::io::{self, Write};

pub(super) fn list(v: &view::DeadLetters, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.dead_letters.is_empty() {
        return match v.open {
            0 => writeln!(out, "no open dead letters"),
            n => writeln!(out, "none that fit, of {} open ones", grouped(n)),
        };
    }
    let mut table = s.table(&["POS", "AT", "REASON", "VIA", "TOPIC", "BYTES", "DETAIL"]);
    for l in &v.dead_letters {
        table.add_row(vec![
            right(grouped(l.pos.0)),
            Cell::new(s.zone.short(l.at)),
            s.mark(&l.reason, true, Color::Yellow),
            Cell::new(clean(&l.via)),
            Cell::new(clean(&l.topic)),
            right(grouped(l.payload_bytes)),
            Cell::new(clean(&l.detail)),
        ]);
    }
    print(&table, out)?;
    let shown = v.dead_letters.len() as u64;
    if v.open > shown { writeln!(out, "{} of {} open ones", grouped(shown), grouped(v.open)) } else { Ok(()) }
}

pub(super) fn one(v: &view::DeadLetter, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {}", clean(&v.reason), clean(&v.detail))?;
    writeln!(out, "came {} by {} on topic {}", s.zone.whole(v.at), clean(&v.via), or_dash(&clean(&v.topic)))?;
    let kept = if v.payload_is_hex { v.payload.len() / 2 } else { v.payload.len() };
    let part = match (kept as u64) < v.payload_bytes {
        _ if v.withheld => ", withheld".to_owned(),
        true => format!(", the first {} kept", grouped(kept as u64)),
        false => String::new(),
    };
    let how = if v.payload_is_hex { ", in hexadecimal" } else { "" };
    writeln!(out, "{} bytes{part}{how}:", grouped(v.payload_bytes))?;
    writeln!(out, "{}", clean(&v.payload))
}
