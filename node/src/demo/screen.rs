//! What a demo shows: progress on stderr, the account on stdout.

use super::Played;
use super::account::Latency;
use super::case_account::CaseAccount;
use super::data::Script;
use super::errands::{Alarm, Batches, Booked, Filed, Told};
use super::hook::HookAccount;
use super::town::Press;
use citybrain_shared::Tier;
use citybrain_shared::words::grouped;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::time::Instant;

/// The moment, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    pub events: u64,
    pub published: u64,
    pub acknowledged: u64,
    /// Committed and behind, city first.
    pub at_tier: [(u64, u64); 4],
    pub nodes: [usize; 4],
    pub doing: String,
}

/// Between two pictures on a terminal, and two lines elsewhere.
const REDRAW: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(3);
/// Rates are over this long.
const RATE_OVER: Duration = Duration::from_secs(1);

pub struct Screen {
    is_terminal: bool,
    began: Instant,
    /// Lines of the last picture, which the next one takes the place of.
    drawn: usize,
    shown: Instant,
    measured: (Instant, [u64; 4]),
    rates: [f64; 4],
}

impl Default for Screen {
    fn default() -> Self {
        let now = Instant::now();
        Screen {
            is_terminal: std::io::stderr().is_terminal(),
            began: now,
            drawn: 0,
            shown: now,
            measured: (now, [0; 4]),
            rates: [0.0; 4],
        }
    }
}

impl Screen {
    /// A line that stays.
    pub fn say(&mut self, text: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        let mut out = self.erase();
        let _ = writeln!(out, "{seconds:5.1} s  {text}");
        let _ = std::io::stderr().write_all(out.as_bytes());
    }

    pub fn show(&mut self, moment: &Moment) {
        if self.shown.elapsed() < if self.is_terminal { REDRAW } else { LINE_EVERY } {
            return;
        }
        self.shown = Instant::now();
        let (at, before) = self.measured;
        if at.elapsed() >= RATE_OVER {
            for (tier, rate) in self.rates.iter_mut().enumerate() {
                *rate = moment.at_tier[tier].0.saturating_sub(before[tier]) as f64 / at.elapsed().as_secs_f64();
            }
            self.measured = (self.shown, moment.at_tier.map(|(committed, _)| committed));
        }
        let mut out = self.erase();
        let seconds = self.began.elapsed().as_secs_f64();
        let Moment { events, published, acknowledged, .. } = moment;
        let head = format!(
            "{seconds:5.1} s  published {} of {}, acknowledged {}",
            grouped(*published),
            grouped(*events),
            grouped(*acknowledged)
        );
        if self.is_terminal {
            let mut lines = vec![
                head,
                format!("         {:<14}{:>6}{:>11}{:>8}{:>8}", "TIER", "NODES", "COMMITTED", "RATE/S", "BEHIND"),
            ];
            for (i, tier) in Tier::ALL.into_iter().enumerate().rev() {
                lines.push(format!(
                    "         {:<14}{:>6}{:>11}{:>8.0}{:>8}",
                    tier.as_str(),
                    moment.nodes[i],
                    grouped(moment.at_tier[i].0),
                    self.rates[i],
                    grouped(moment.at_tier[i].1)
                ));
            }
            lines.push(format!("         {}", moment.doing));
            self.drawn = lines.len();
            let _ = writeln!(out, "{}", lines.join("\n"));
        } else {
            let _ = write!(out, "{head}; committed");
            for (i, tier) in Tier::ALL.into_iter().enumerate().rev() {
                let _ = write!(out, " {tier} {}", grouped(moment.at_tier[i].0));
            }
            let _ = writeln!(out, ", {:.0}/s, the city {} behind", self.rates[0], grouped(moment.at_tier[0].1));
        }
        let _ = std::io::stderr().write_all(out.as_bytes());
    }

    /// Control sequences that take the last picture away.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            n => format!("\x1b[{n}A\x1b[J"),
        }
    }
}

/// What is played, and where each of its events enters.
pub fn introduce(script: &Script, has_file: bool, seed: u64) -> String {
    let mut out = String::new();
    let tree = &script.tree;
    let of_tier = |tier| tree.of_tier(tier).count();
    let _ = writeln!(out, "{}", script.title);
    if has_file {
        let skipped: u64 = script.skipped.values().sum();
        let _ = writeln!(
            out,
            "{}: {} rows read, {} become events, {} skipped",
            script.input,
            grouped(script.rows),
            grouped(script.events.len() as u64),
            grouped(skipped)
        );
        for (label, n) in &script.skipped {
            let _ = writeln!(out, "  skipped: {} {label}", grouped(*n));
        }
        for s in script.first_skipped.iter().take(5) {
            let _ = writeln!(out, "    line {}: {}", s.line, s.reason);
        }
        if !script.holes.is_empty() {
            let holes: Vec<String> = script.holes.iter().map(|(c, n)| format!("{c} {}", grouped(*n))).collect();
            let _ = writeln!(out, "  rows without a value: {}", holes.join(", "));
        }
    } else {
        let _ = writeln!(
            out,
            "{} events, made up: another day with `--seed {}`, a real one with `--input FILE.csv`",
            grouped(script.events.len() as u64),
            seed.wrapping_add(1)
        );
    }
    let _ = writeln!(
        out,
        "{} nodes: {} city, {} streets, {} communities, {} neighbourhoods; each event enters at a neighbourhood:",
        tree.places.len(),
        of_tier(Tier::City),
        of_tier(Tier::Street),
        of_tier(Tier::Community),
        of_tier(Tier::Neighbourhood)
    );
    for place in &tree.places {
        let depth = place.address.depth() - 1;
        let mut notes = vec![place.name.clone()];
        if !place.code.is_empty() {
            notes.push(place.code.clone());
        }
        if place.holes > 0 {
            notes.push(format!("of these rows {} do not say which", grouped(place.holes)));
        }
        let _ = writeln!(
            out,
            "{:>8}  {}{}  ({})",
            grouped(place.events),
            "  ".repeat(depth),
            place.address.leaf(),
            notes.join(", ")
        );
    }
    out
}

/// The city's rates, with what they are of.
fn rates(total: &Value) -> String {
    let count = |name: &str| total[name].as_u64().unwrap_or(0);
    let answered = count("solved") + count("partly_solved") + count("unsolved");
    // Whoever says that it is solved need not say more, as by Open311.
    let judged = count("satisfied") + count("mostly_satisfied") + count("dissatisfied");
    let all = [
        ("response", "response", count("response_kept"), count("response_of")),
        ("solution", "solution", count("solved"), answered),
        ("satisfaction", "satisfaction", count("satisfied"), judged),
    ];
    let text = all.map(|(word, key, n, of)| match total[key].as_f64() {
        Some(rate) => format!("{word} {:.1} % ({n}/{of})", rate * 100.0),
        None => format!("{word} not known yet"),
    });
    text.join(", ")
}

/// The account as a table.
pub(super) fn account(played: &Played, script: &Script, wall_s: f64) -> String {
    let Played { account, town, errands, webhooks, killed } = played;
    let mut out = String::new();
    let row = |tier: &str, nodes: &str, events: &str, of: &str, cases: &str| {
        format!("{tier:<14}{nodes:>6}{events:>11}{of:>17}{cases:>8}")
    };
    let _ = writeln!(out, "{}", row("TIER", "NODES", "COMMITTED", "OF ACKNOWLEDGED", "CASES"));
    let committed = [
        (Tier::Neighbourhood, account.committed.neighbourhood),
        (Tier::Community, account.committed.community),
        (Tier::Street, account.committed.street),
        (Tier::City, account.committed.city),
    ];
    for (tier, n) in committed {
        let nodes = script.tree.of_tier(tier).count();
        let cases = grouped(town.account.at_tier.get(tier.as_str()).copied().unwrap_or_default());
        let row = row(tier.as_str(), &nodes.to_string(), &grouped(n), &grouped(account.acknowledged), &cases);
        let _ = writeln!(out, "{row}");
    }
    out.push('\n');
    let ms = |latency: &Option<Latency>| match latency {
        Some(l) => format!("p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", l.p50, l.p99, l.max),
        None => "not measured".into(),
    };
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<14}  {value}");
    };
    line("published", format!("{}, of them {} urgent", grouped(account.published), account.urgent));
    line("acknowledged", grouped(account.acknowledged));
    line("missing", format!("{}  (acknowledged, and not at every node on its way up)", grouped(account.missing)));
    line("doubled", format!("{}  (more than once in one node's log)", grouped(account.doubled)));
    line(
        "out of order",
        format!("{}  (per origin and lane, and per publisher and lane)", grouped(account.out_of_order)),
    );
    if account.strayed > 0 {
        line("strayed", format!("{}  (at a node that is not on its way up)", grouped(account.strayed)));
    }
    line(
        "notice",
        format!(
            "{} of {} neighbourhoods confirmed it; {} without exactly one copy",
            account.notice.delivered, account.notice.targets, account.notice_wrong
        ),
    );
    let Press { at, to_city_ms, accepted_ms, .. } = &town.sos;
    line(
        "sos",
        format!(
            "pressed at {at}: at the city after {to_city_ms:.1} ms; accepted from the street {accepted_ms:.1} ms later"
        ),
    );
    let CaseAccount { cases, incidents, open, missing, different, owners_wrong, at_tier: _ } = &town.account;
    let wrong = missing + different + owners_wrong;
    line(
        "cases",
        format!(
            "{}, of them {incidents} incidents; {open} open; {wrong} not the same at every node above their owner",
            grouped(*cases)
        ),
    );
    let stand = town.by_status.iter().map(|(status, n)| format!("{} {status}", grouped(*n)));
    line("  stand", stand.collect::<Vec<_>>().join(", "));
    if let Some(b) = &town.brought {
        let skipped: u64 = b.skipped.values().sum();
        let rest = format!("{} rows are none, {} were refused", grouped(skipped), grouped(b.refused));
        line("  brought", format!("{} of {}, to {} nodes; {rest}", grouped(b.opened), b.file, b.nodes.len()));
    }
    line("rates", rates(&town.rates));
    for (name, value) in errands.iter().flat_map(answered) {
        line(name, value);
    }
    let HookAccount { nodes, opened, closed, calls, missing, again } = webhooks;
    line(
        "webhooks",
        format!(
            "{nodes} nodes told of {opened} openings, {closed} closings, {calls} calls for help: {missing} missing; {again} came again"
        ),
    );
    if !killed.is_empty() {
        line("killed (-9)", killed.join(", "));
    }
    line("to the city", ms(&account.latency));
    line("  urgent", ms(&account.latency_urgent));
    if !killed.is_empty() {
        line("  undisturbed", format!("{}  (below no node that was killed)", ms(&account.latency_undisturbed)));
    }
    line("in all", format!("{wall_s:.1} s"));
    for finding in &account.findings {
        let _ = writeln!(out, "  ! {finding}");
    }
    let _ = writeln!(out, "\n{}", verdict(account.is_good(), town.account.is_good(), played.is_answered()));
    out
}

/// What a rule, a service, Open311 and batches by HTTP have come to, a line each.
fn answered(told: &Told) -> [(&'static str, String); 4] {
    let Told { at, community, alarm, booking, open311, batches } = told;
    let Alarm { to_city_ms, cleared_ms, at_nodes, of_nodes } = alarm;
    let alarm = format!(
        "of water at {at}: at the city after {to_city_ms:.1} ms, over {cleared_ms:.1} ms after it fell; once at {at_nodes} of {of_nodes} nodes"
    );
    let Booked { service, seats, asked, booked, refused } = booking;
    let booking = format!(
        "{asked} asked for the {seats} seats of a {service} at {community}: {booked} booked, {refused} refused"
    );
    let Filed { case: _, closed_ms, at_nodes, of_nodes } = open311;
    let open311 = format!(
        "filed at {at}, closed {closed_ms:.1} ms after the resident's verdict; so at {at_nodes} of {of_nodes} nodes"
    );
    let Batches { readings, at_nodes, of_nodes } = batches;
    let batches = format!("{readings} readings in two, one sent twice: each once at {at_nodes} of {of_nodes} nodes");
    [("alarm", alarm), ("booking", booking), ("open311", open311), ("batches", batches)]
}

fn verdict(account: bool, cases: bool, answered: bool) -> &'static str {
    match (account, cases, answered) {
        (true, true, true) => "Nothing lost, nothing doubled, everything in order: compared by id at every node.",
        (true, true, false) => "The account closes, but not all that was asked came out as it should: see above.",
        (true, false, _) => "No event was lost or doubled, but the cases are not the same at every node.",
        (false, ..) => "The account does not close.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rate_is_shown_with_those_who_have_said_something_of_it() {
        let total = serde_json::json!({ "solution": 0.75, "solved": 3, "unsolved": 1, "satisfaction": 0.5,
            "satisfied": 1, "dissatisfied": 1 });
        let shown = rates(&total);
        assert_eq!(shown, "response not known yet, solution 75.0 % (3/4), satisfaction 50.0 % (1/2)");
    }

    #[test]
    fn the_last_line_says_nothing_is_lost_only_where_the_cases_and_what_was_asked_are_right_too() {
        let gone = CaseAccount { missing: 2, owners_wrong: 1, ..CaseAccount::default() };
        assert!(verdict(true, true, true).starts_with("Nothing lost"));
        assert!(verdict(true, true, false).contains("not all that was asked"));
        assert!(verdict(true, gone.is_good(), true).contains("the cases are not the same"));
        assert_eq!(verdict(false, true, true), "The account does not close.");
        assert_eq!(gone.wrong_in_words(), "2 missing at a node, 0 otherwise than at their owner, 1 without one owner");
    }
}
