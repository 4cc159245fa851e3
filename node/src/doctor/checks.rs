//! Facts to findings. Pure: one function a check, one finding each, always the same list.
//!
//! | module | what it checks |
//! |---|---|
//! | `machine` | folder, disk, memory, clock, ports, certificates |
//! | `node` | readiness, who may come in, log and state, links, what was refused |

mod machine;
mod node;
#[cfg(test)]
mod tests;

use super::Facts;
use crate::tokens::receiver_hint;
use chrono::TimeDelta;
use citybrain_shared::view::{Doctor, Finding, Verdict, WebhookTrouble};
use citybrain_shared::words::counted;

type Check = fn(&Facts) -> Answer;

/// Verdict, what was found, what to do. `None`: the check does not apply.
type Answer = Option<(Verdict, String, String)>;

use Verdict::{Bad, Note, Ok, Warn};

/// Every check by its stable id, in the order of the answer.
pub const CHECKS: [(&str, Check); 27] = [
    ("node-ready", node::node_ready),
    ("config", node::config),
    ("data-folder", machine::data_folder),
    ("data-rights", machine::data_rights),
    ("disk-kind", machine::disk_kind),
    ("disk-fsync", machine::disk_fsync),
    ("disk-space", machine::disk_space),
    ("disk-inodes", machine::disk_inodes),
    ("memory", machine::memory),
    ("files-limit", machine::files_limit),
    ("clock-sane", machine::clock_sane),
    ("clock-sync", machine::clock_sync),
    ("clock-of-children", node::clock_of_children),
    ("ports", machine::ports),
    ("certificates", machine::certificates),
    ("exposure", node::exposure),
    ("broker-kind", node::broker_kind),
    ("log-damage", node::log_damage),
    ("log-torn", node::log_torn),
    ("state-rebuilt", node::state_rebuilt),
    ("snapshot-age", node::snapshot_age),
    ("log-size", node::log_size),
    ("link-to-parent", node::link_to_parent),
    ("links-to-children", node::links_to_children),
    ("versions", node::versions),
    ("dead-letters", node::dead_letters),
    ("calendar", node::calendar),
];

/// A webhook that has stood for so long does not go on by itself.
const STANDS_FOR: TimeDelta = TimeDelta::seconds(10);

/// What to do about a node that waits for what others know of its cases.
pub const AWAITS_REMEDY: &str = "until then it gives no seat, and its lists and counts lack some; bring those nodes back: for one that is gone for good, an empty box under its address will do";

/// Alarms that are named when no rule ends them.
const LEFT_NAMED: usize = 5;

/// Rules that are named when they fail.
const RULES_NAMED: usize = 5;

/// What to do about a rule that fails.
pub const RULES_REMEDY: &str = "`citybrain rule list` counts; mend what it asks of the event (`has(event.data.x)` where it may be missing), try \
     it with `citybrain rule test`, then `citybrain rule reload`";

/// What to do about a webhook that does not go on.
pub fn webhook_remedy(trouble: WebhookTrouble) -> String {
    let remedy = match trouble {
        WebhookTrouble::NotTaken => {
            "mend its receiver, which is asked again by itself; `citybrain webhook skip NAME POS` passes over what it \
             cannot take"
        }
        WebhookTrouble::NotAgreed => {
            "its receiver is to answer OPTIONS with WebHook-Allowed-Origin (`handshake`), and is asked again by itself"
        }
        WebhookTrouble::Gone => "its receiver answered 410; it is asked anew when the node starts again",
        WebhookTrouble::NoToken => return format!("{}; then it goes on by itself", receiver_hint("NAME")),
    };
    remedy.to_owned()
}

/// What a folder that is only read cannot tell: it depends on the config, on a write, or on a running process.
const BEYOND_A_FOLDER: [&str; 15] = [
    "node-ready",
    "data-folder",
    "disk-fsync",
    "disk-space",
    "memory",
    "files-limit",
    "ports",
    "certificates",
    "exposure",
    "broker-kind",
    "snapshot-age",
    "log-size",
    "link-to-parent",
    "links-to-children",
    "calendar",
];

fn folder_alone() -> Answer {
    let found = "a node's folder does not hold its config: what depends on it is not looked at";
    say(Note, found, "`citybrain doctor --config FILE` looks at all that a start would need")
}

/// What is wrong and what to do.
pub fn examine(facts: &Facts) -> Doctor {
    let finding = |(id, check): &(&str, Check)| {
        let (severity, found, remedy) = match facts.is_folder {
            true if *id == "config" => folder_alone(),
            true if BEYOND_A_FOLDER.contains(id) => None,
            _ => check(facts),
        }?;
        Some(Finding { id: (*id).to_owned(), severity, found, remedy })
    };
    let mut checks: Vec<Finding> = CHECKS.iter().filter_map(finding).collect();
    checks.extend(more(facts));
    Doctor { ok: super::ok(&checks), checks, facts: serde_json::to_value(facts).unwrap_or_default() }
}

/// Findings that are only made when there is something to say.
fn more(facts: &Facts) -> Vec<Finding> {
    let Some(node) = &facts.node else { return Vec::new() };
    let mut all = Vec::new();
    let mut add = |id: &str, severity, found: String, remedy: &str| {
        all.push(Finding { id: id.into(), severity, found, remedy: remedy.into() });
    };
    if node.lost > 0 {
        add(
            "lost-records",
            Bad,
            format!("recorded as lost: {}", counted(node.lost, "record")),
            "the node's log output says when, and of damage where; `citybrain audit` how many a link has lost; nothing brings them back from here",
        );
    }
    if !node.refused_logins.is_empty() {
        add(
            "refused-logins",
            Warn,
            format!("accounts are refused at the front door: {}", node.refused_logins.join("; ")),
            "`citybrain user passwd NAME --file USERS` here, and the same in the password file there; an address with too \
             many wrong passwords is let in again a minute later",
        );
    }
    if !node.alarms_left.is_empty() {
        let named = node.alarms_left.iter().take(LEFT_NAMED).map(|a| format!("{} ({})", a.named(), a.id));
        let named: Vec<String> = named.collect();
        let more = node.alarms_left_more + (node.alarms_left.len() - named.len()) as u64;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        add(
            "alarms-left",
            Warn,
            format!("active, and no rule in force ends them: {}{more}", named.join(", ")),
            "`citybrain alarm clear ID`, or put the rule that raised it back and `citybrain rule reload`",
        );
    }
    if let Some(awaits) = &node.awaits {
        add("cases-not-recovered", Warn, awaits.whole("cases"), AWAITS_REMEDY);
    }
    for sentence in &node.nameless {
        add(
            "services",
            Warn,
            sentence.clone(),
            "put it into the config here or above, or name another; then `citybrain config reload`",
        );
    }
    for sentence in node.failing.iter().take(RULES_NAMED) {
        add("rules", Warn, sentence.clone(), RULES_REMEDY);
    }
    if let Some(more) = node.failing.len().checked_sub(RULES_NAMED).filter(|more| *more > 0) {
        add("rules", Warn, format!("{} more have failed within a day", counted(more as u64, "rule")), RULES_REMEDY);
    }
    for sentence in &node.past {
        add(
            "services",
            Warn,
            sentence.clone(),
            "correct its `starts` and `ends`, or take it out, which is told; then `citybrain config reload`",
        );
    }
    for webhook in &node.webhooks {
        let since =
            webhook.stands.iter().map(|s| s.since).chain(webhook.not_agreed_since).chain(webhook.gone_since).min();
        // A receiver that starts anew is away for a moment.
        let is_long = since.zip(facts.host.now).is_none_or(|(since, now)| now - since >= STANDS_FOR);
        for (trouble, sentence) in webhook.troubles() {
            add("webhook-stands", if is_long { Bad } else { Warn }, sentence, &webhook_remedy(trouble));
        }
    }
    if node.commits >= 100 && node.commits_over_100_ms * 100 > node.commits {
        add(
            "commit-time",
            Warn,
            format!("{} of {} commits took longer than 100 ms", node.commits_over_100_ms, node.commits),
            "the disk is slow or shared: see `disk-fsync`; every acknowledgement waits for it",
        );
    }
    all
}

fn ok(found: impl Into<String>) -> Answer {
    Some((Ok, found.into(), String::new()))
}

fn say(severity: Verdict, found: impl Into<String>, remedy: impl Into<String>) -> Answer {
    Some((severity, found.into(), remedy.into()))
}

fn unknown(what: &str) -> Answer {
    say(Note, format!("{what} could not be found out"), "look at it by hand")
}
