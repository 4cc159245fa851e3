//! Services and scenes, for people.

use super::table::Cell;
use super::{Screen, clean, print};
use citybrain_shared::view;
use std::io::{self, Write};

pub fn services(v: &view::Services, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.services.is_empty() {
        return writeln!(out, "nothing that fits is offered here or above");
    }
    let mut table = s.table(&["SERVICE", "NAME", "BY", "WHEN", "PRICE", "NODE"]);
    for o in &v.services {
        table.add_row(vec![
            Cell::new(clean(&o.service.code)),
            Cell::new(clean(&o.service.name)),
            Cell::new(clean(&o.service.provider)),
            Cell::new(clean(&when(&o.service))),
            Cell::new(clean(price(&o.service))),
            Cell::new(o.node.as_str()),
        ]);
    }
    print(&table, out)
}

fn when(s: &citybrain_shared::config::services::Service) -> String {
    match (&s.starts, &s.ends) {
        (Some(from), Some(to)) => format!("{from} to {to}"),
        (Some(from), None) => from.clone(),
        _ if s.hours.is_empty() => "-".into(),
        _ => s.hours.join("; "),
    }
}

fn price(s: &citybrain_shared::config::services::Service) -> &str {
    if s.price.is_empty() { "free" } else { &s.price }
}

pub fn service(v: &view::ServiceShown, out: &mut dyn Write) -> io::Result<()> {
    let (node, o) = (&v.offer.node, &v.offer.service);
    let line = |out: &mut dyn Write, word: &str, text: &str| match text {
        "" => Ok(()),
        text => writeln!(out, "{word:<12}{}", clean(text)),
    };
    writeln!(out, "{}  {}", clean(&o.code), clean(&o.name))?;
    line(out, "offered by", &format!("{node} {}", o.provider))?;
    line(out, "what", &o.description)?;
    line(out, "where", o.place.as_ref().map_or("", |p| p.text.as_str()))?;
    line(out, "when", &when(o))?;
    line(out, "price", price(o))?;
    for f in &o.form {
        let label = if f.label.is_empty() { String::new() } else { format!(" ({})", f.label) };
        let choices = if f.choices.is_empty() { String::new() } else { format!(": {}", f.choices.join(", ")) };
        let needed = if f.required { ", needed" } else { "" };
        line(out, "asks", &format!("{}{label}{choices}{needed}", f.name))?;
    }
    let Some(free) = &v.free else {
        return line(out, "free", &format!("only {node} knows: ask there, or request it and hear"));
    };
    if let Some(n) = free.places {
        line(out, "seats left", &n.to_string())?;
    }
    if let Some(n) = free.volunteers {
        line(out, "volunteers", &format!("{n} still wanted"))?;
    }
    let shown = free.slots.iter().filter(|slot| slot.free > 0);
    let next: Vec<String> = shown.clone().take(8).map(|slot| format!("{} ({})", slot.local, slot.free)).collect();
    if !free.slots.is_empty() {
        let more = shown.count().saturating_sub(next.len());
        let more = if more > 0 { format!(", and {more} later") } else { String::new() };
        let text = if next.is_empty() { "none of those ahead".to_owned() } else { next.join(", ") };
        line(out, "free", &format!("{text}{more}"))?;
    }
    Ok(())
}

pub fn scenes(v: &view::Scenes, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.scenes.is_empty() {
        return writeln!(out, "no scenes here or above");
    }
    let mut table = s.table(&["SCENE", "NAME", "THEME", "GOVERNANCE", "SERVICES", "RULES", "DEVICES", "NODE"]);
    for o in &v.scenes {
        table.add_row(vec![
            Cell::new(clean(&o.scene.code)),
            Cell::new(clean(&o.scene.name)),
            Cell::new(clean(&o.scene.theme)),
            Cell::new(o.scene.governance.join(", ")),
            Cell::new(clean(&o.scene.services.join(", "))),
            Cell::new(o.scene.rules.len()),
            Cell::new(o.scene.devices.len()),
            Cell::new(o.node.as_str()),
        ]);
    }
    print(&table, out)
}
