//! Whose `[calendar]` is in force at each node of some files, as far as the files tell.

use crate::brain::cases::calendar::Calendar;
use crate::config::File;
use chrono::{DateTime, Utc};
use citybrain_shared::config::Config;
use citybrain_shared::config::cases::{Limit, Unit};
use citybrain_shared::config::rules::Rule;
use std::collections::BTreeMap;

/// What there is to say of nodes without a calendar of their own, a line for each whose it is.
pub(super) fn notes(files: &[File]) -> Vec<String> {
    let configs = || files.iter().filter_map(|f| Some((f, f.config.as_ref()?)));
    let mut of: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut nobodys: Vec<&str> = Vec::new();
    for (_, config) in configs().filter(|(_, c)| c.calendar.is_none()) {
        let me = &config.node.address;
        let above = configs().filter(|(_, c)| c.calendar.is_some() && c.node.address.covers(me));
        match above.max_by_key(|(_, c)| c.node.address.depth()) {
            Some((file, c)) => {
                let whose = format!("{} ({})", c.node.address, file.path.display());
                of.entry(whose).or_default().push(me.as_str());
            }
            None => nobodys.push(me.as_str()),
        }
    }
    let goes = |who: &[&str]| if who.len() == 1 { "goes" } else { "go" };
    let mut notes: Vec<String> = of
        .iter()
        .map(|(whose, who)| format!("{} {} by the `[calendar]` of {whose}", who.join(", "), goes(who)))
        .collect();
    if !nobodys.is_empty() && configs().any(|(_, config)| counts(config)) {
        let words = Calendar::default().words();
        let (who, goes) = (nobodys.join(", "), goes(&nobodys));
        notes.push(format!("no `[calendar]`: {who} {goes} by that of the nearest node above, or else by {words}"));
    }
    notes
}

/// The calendar that is in force at that node, as far as the files tell.
pub(super) fn at(files: &[File], config: &Config) -> Calendar {
    let configs = files.iter().filter_map(|f| f.config.as_ref());
    let all = configs.filter(|c| c.calendar.is_some() && c.node.address.covers(&config.node.address));
    let nearest = all.max_by_key(|c| c.node.address.depth()).and_then(|c| c.calendar.as_ref());
    nearest.and_then(|calendar| Calendar::new(calendar).ok()).unwrap_or_default()
}

/// A limit that would begin now and end where a calendar knows no days off any more.
pub(super) fn run_out(files: &[File], now: DateTime<Utc>) -> Vec<String> {
    let configs = || files.iter().filter_map(|f| Some((f, f.config.as_ref()?)));
    let mut notes = Vec::new();
    for (file, whose) in configs() {
        let Some(calendar) = whose.calendar.as_ref().and_then(|c| Calendar::new(c).ok()) else { continue };
        let Some(unknown) = calendar.unknown_from() else { continue };
        // Those below that have none go by it, too.
        let nearest = |c: &Config| {
            let above = configs().filter(|(_, a)| a.calendar.is_some() && a.node.address.covers(&c.node.address));
            above.max_by_key(|(_, a)| a.node.address.depth()).map(|(_, a)| a.node.address.clone())
        };
        let theirs = configs().filter(|(_, c)| nearest(c).as_ref() == Some(&whose.node.address));
        let ends = theirs.flat_map(|(_, c)| working(c)).map(|limit| (calendar.day(calendar.due(now, limit)), limit));
        if let Some((day, limit)) = ends.max_by_key(|(day, _)| *day).filter(|(day, _)| *day >= unknown) {
            notes.push(format!(
                "{}: its `[calendar]` knows no days off from {unknown} on; {limit} that begin now end on {day}",
                file.path.display()
            ));
        }
    }
    notes
}

/// Does it have a limit in working time, or a rule that asks for the hour or the day?
fn counts(config: &Config) -> bool {
    working(config).next().is_some() || config.rule.iter().any(Rule::goes_by_calendar)
}

/// Its limits in working time.
fn working(config: &Config) -> impl Iterator<Item = Limit> {
    let limits = |c: &'_ citybrain_shared::config::cases::Category| [c.response, c.dispatch, c.solution, c.call_back];
    let is_working = |limit: &Limit| !matches!(limit.unit, Unit::Clock(..));
    config.category.iter().flat_map(limits).flatten().filter(is_working)
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::config::{Variables, parse};

    fn file(address: &str, rest: &str) -> File {
        let text = format!("[node]\naddress = \"{address}\"\ndata = \"d\"\n{rest}");
        let parsed = parse(&text, &Variables::new());
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let path = format!("{}.toml", address.replace('/', "-")).into();
        File { path, text, config: parsed.config, problems: Vec::new(), places: parsed.places }
    }

    #[test]
    fn a_limit_that_ends_where_no_day_off_is_known_is_told() {
        let own = "[calendar]\nholidays = [\"2026-10-01..2026-10-07\"]\n";
        let limits = |solution: &str| {
            format!("[[category]]\ncode = \"A\"\nname = \"a\"\nresponse = \"99d\"\nsolution = \"{solution}\"\n")
        };
        let now: DateTime<Utc> = "2026-11-20T02:00:00Z".parse().unwrap();
        let of = |solution: &str, now| run_out(&[file("c", own), file("c/s", &limits(solution))], now);
        assert_eq!(of("20wd", now), [""; 0]);
        let told =
            "c.toml: its `[calendar]` knows no days off from 2027-01-01 on; 60wd that begin now end on 2027-02-12";
        assert_eq!(of("60wd", now), [told]);
        assert_eq!(of("1wd", "2027-03-01T02:00:00Z".parse().unwrap()).len(), 1, "it is behind us");
        assert_eq!(run_out(&[file("c", &limits("60wd"))], now), [""; 0], "nobody counts with days off");
    }

    #[test]
    fn a_check_says_whose_calendar_is_in_force() {
        let own = "[calendar]\nholidays = [\"2026-10-01..2026-10-07\"]\n";
        let limit = "[[category]]\ncode = \"A\"\nname = \"a\"\nsolution = \"2wd\"\n";
        let all = [file("c", own), file("c/s", ""), file("c/s/a", own), file("c/s/b", limit), file("c/s/a/n", "")];
        assert_eq!(
            notes(&all),
            [
                "c/s, c/s/b go by the `[calendar]` of c (c.toml)",
                "c/s/a/n goes by the `[calendar]` of c/s/a (c-s-a.toml)"
            ]
        );
        assert_eq!(notes(&all[..1]), [""; 0]);
        assert_eq!(notes(&[file("c", "")]), [""; 0], "nothing here is counted in working time");
        let nobodys = "no `[calendar]`: c goes by that of the nearest node above, or else by \
                       +08:00, Mon,Tue,Wed,Thu,Fri 09:00-12:00,13:00-17:00, 0 days off, 0 made up";
        assert_eq!(notes(&[file("c", limit)]), [nobodys]);
        let rule = "[[rule]]\nname = \"r\"\non = [\"t\"]\nthen = [{ raise = { title = \"x\" } }]\n";
        assert_eq!(notes(&[file("c", rule)]), [""; 0]);
        assert_eq!(notes(&[file("c", &format!("{rule}hours = [\"workdays 08:00-12:00\"]\n"))]), [nobodys]);
    }
}
