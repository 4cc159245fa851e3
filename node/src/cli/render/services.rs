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
            Cell::new(or_none(&o.service.provider)),
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
    line(out, "offered by", format!("{node} {}", o.provider).trim_end())?;
    line(out, "what", &o.description)?;
    line(out, "where", &o.place.as_ref().map_or(String::new(), ToString::to_string))?;
    line(out, "when", &when(o))?;
    if let Some(slot) = o.slot {
        let text = format!("{slot} each, {} at a time, {} days ahead at most", o.capacity, o.ahead_days);
        line(out, "slots", &text)?;
    }
    line(out, "price", price(o))?;
    for f in &o.form {
        let label = if f.label.is_empty() { String::new() } else { format!(" ({})", f.label) };
        let choices = if f.choices.is_empty() { String::new() } else { format!(": {}", f.choices.join(", ")) };
        let needed = if f.required { ", needed" } else { "" };
        line(out, "asks", &format!("{}{label}{choices}{needed}", f.name))?;
    }
    let of = |all: Option<u32>| all.map_or(String::new(), |all| format!(" of {all}"));
    let Some(free) = &v.free else {
        line(out, "seats", &o.places.map_or(String::new(), |n| n.to_string()))?;
        line(out, "volunteers", &o.volunteers.map_or(String::new(), |n| format!("{n} wanted")))?;
        let why = match &v.awaits {
            Some(awaits) => format!("not known yet: {}; requests are answered then", awaits.whole("cases")),
            None => format!("only {node} knows: ask there, or request it and hear"),
        };
        return line(out, "free", &why);
    };
    if let Some(n) = free.places {
        line(out, "seats left", &format!("{n}{}", of(o.places)))?;
    }
    if let Some(n) = free.volunteers {
        line(out, "volunteers", &format!("{n}{} still wanted", of(o.volunteers)))?;
    }
    let shown = free.slots.iter().filter(|slot| slot.free > 0);
    let next: Vec<String> = shown.clone().take(8).map(|slot| format!("{} ({})", slot.local, slot.free)).collect();
    if !free.slots.is_empty() {
        let later = shown.count().saturating_sub(next.len());
        let more_than = if free.more { "more than " } else { "" };
        let more = if later > 0 { format!(", and {more_than}{later} later") } else { String::new() };
        let text = if next.is_empty() { "none of those ahead".to_owned() } else { next.join(", ") };
        line(out, "free", &format!("{text}{more}"))?;
    }
    Ok(())
}

pub fn scenes(v: &view::Scenes, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.scenes.is_empty() {
        return writeln!(out, "no scenes here or above");
    }
    let mut table = s.table(&["SCENE", "NAME", "THEME", "GOVERNANCE", "WHERE", "SERVICES", "RULES", "DEVICES", "NODE"]);
    for o in &v.scenes {
        table.add_row(vec![
            Cell::new(clean(&o.scene.code)),
            Cell::new(clean(&o.scene.name)),
            Cell::new(or_none(&o.scene.theme)),
            Cell::new(or_none(&o.scene.governance.join(", "))),
            Cell::new(clean(&o.scene.geometry.as_ref().map_or("-".into(), shape))),
            Cell::new(or_none(&o.scene.services.join(", "))),
            Cell::new(or_none(&o.scene.rules.join(", "))),
            Cell::new(or_none(&o.scene.devices.join(", "))),
            Cell::new(o.node.as_str()),
        ]);
    }
    print(&table, out)
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "-".into() } else { clean(text) }
}

/// A point by its place, all else by its kind: the map has the rest.
fn shape(geometry: &serde_json::Value) -> String {
    let point = geometry["coordinates"].as_array().filter(|_| geometry["type"] == "Point");
    match point.map(Vec::as_slice) {
        Some([lon, lat, ..]) => format!("({lat}, {lon})"),
        _ => geometry["type"].as_str().unwrap_or("-").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::clock::Zone;
    use serde_json::json;

    const PLAIN: Screen =
        Screen { json: false, color: false, color_stderr: false, width: None, zone: Zone::utc_in(2026) };

    #[test]
    fn what_is_free_beyond_what_an_answer_lists_is_said_to_be_more() {
        let slots: Vec<_> =
            (0..9).map(|n| json!({"at": "2026-12-05T01:00:00Z", "local": format!("09:0{n}"), "free": 1})).collect();
        let offer = json!({"node": "xs/a", "code": "cut", "name": "理发", "slot": "1m"});
        for (more, said) in [(false, "09:07 (1), and 1 later\n"), (true, "09:07 (1), and more than 1 later\n")] {
            let mut out = Vec::new();
            let shown = json!({"offer": offer, "free": {"slots": slots, "more": more}});
            service(&serde_json::from_value(shown).unwrap(), &mut out).unwrap();
            assert!(String::from_utf8(out).unwrap().ends_with(said));
        }
    }

    #[test]
    fn what_a_service_or_a_scene_does_not_say_is_a_dash_and_no_blank() {
        let offer = json!({"node": "xs/a", "code": "cut", "name": "理发", "starts": "2026-12-05 09:00"});
        let told = |out: Vec<u8>| String::from_utf8(out).unwrap();
        let mut out = Vec::new();
        let shown: view::ServiceShown = serde_json::from_value(json!({"offer": offer})).unwrap();
        service(&shown, &mut out).unwrap();
        assert!(told(out).contains("offered by  xs/a\n"));
        let mut out = Vec::new();
        services(&serde_json::from_value(json!({"services": [offer]})).unwrap(), &PLAIN, &mut out).unwrap();
        let row: Vec<String> = told(out).lines().nth(1).unwrap().split_whitespace().map(str::to_owned).collect();
        assert_eq!(row, ["cut", "理发", "-", "2026-12-05", "09:00", "free", "xs/a"]);
        let mut out = Vec::new();
        let scene = json!({"node": "xs/a", "code": "s", "name": "景"});
        scenes(&serde_json::from_value(json!({"scenes": [scene]})).unwrap(), &PLAIN, &mut out).unwrap();
        let row: Vec<String> = told(out).lines().nth(1).unwrap().split_whitespace().map(str::to_owned).collect();
        assert_eq!(row, ["s", "景", "-", "-", "-", "-", "-", "-", "xs/a"]);
    }
}
