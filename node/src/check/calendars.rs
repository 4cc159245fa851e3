//! Whose `[calendar]` is in force at each node of some files, as far as the files tell.

use crate::brain::cases::calendar::Calendar;
use crate::config::File;
use citybrain_shared::config::Config;
use citybrain_shared::config::cases::{Limit, Unit};
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

/// Does it have a limit in working time?
fn counts(config: &Config) -> bool {
    let limits = |c: &'_ citybrain_shared::config::cases::Category| [c.response, c.dispatch, c.solution];
    let is_working = |limit: Limit| !matches!(limit.unit, Unit::Clock(..));
    config.category.iter().flat_map(limits).flatten().any(is_working)
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
    }
}
