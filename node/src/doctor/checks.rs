//! Facts to findings. Pure: one function a check, one finding each, always the same list.

use super::Facts;
use super::facts::{Host, Node};
use crate::certificates::EXPIRES_SOON;
use crate::run::FILES_LEFT;
use citybrain_shared::view::{Doctor, Finding, Verdict};
use citybrain_shared::words::{bytes, span};

type Check = fn(&Facts) -> Answer;

/// Verdict, what was found, what to do. `None`: the check does not apply.
type Answer = Option<(Verdict, String, String)>;

use Verdict::{Bad, Note, Ok, Warn};

/// Every check by its stable id, in the order of the answer.
pub const CHECKS: [(&str, Check); 26] = [
    ("node-ready", node_ready),
    ("config", config),
    ("data-folder", data_folder),
    ("data-rights", data_rights),
    ("disk-kind", disk_kind),
    ("disk-fsync", disk_fsync),
    ("disk-space", disk_space),
    ("disk-inodes", disk_inodes),
    ("memory", memory),
    ("files-limit", files_limit),
    ("clock-sane", clock_sane),
    ("clock-sync", clock_sync),
    ("clock-of-children", clock_of_children),
    ("ports", ports),
    ("certificates", certificates),
    ("exposure", exposure),
    ("broker-kind", broker_kind),
    ("log-damage", log_damage),
    ("log-torn", log_torn),
    ("state-rebuilt", state_rebuilt),
    ("snapshot-age", snapshot_age),
    ("log-size", log_size),
    ("link-to-parent", link_to_parent),
    ("links-to-children", links_to_children),
    ("versions", versions),
    ("dead-letters", dead_letters),
];

/// What a folder that is only read cannot tell: it depends on the config, on a write, or on a running process.
const BEYOND_A_FOLDER: [&str; 14] = [
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
            format!("{} records are recorded as lost", node.lost),
            "`citybrain audit` says at which link and how many, the node's log output when; nothing brings them back from here",
        );
    }
    if !node.refused_logins.is_empty() {
        add(
            "refused-logins",
            Warn,
            format!("accounts are refused at the front door: {}", node.refused_logins.join("; ")),
            "`citybrain user passwd NAME --file USERS` here, and the same in the password file there",
        );
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

fn node_ready(f: &Facts) -> Answer {
    let Some(node) = &f.node else {
        return match &f.stopped {
            Some(s) if s.in_use => {
                say(Note, "a node runs on this folder", "without `--config` the node itself is asked")
            }
            _ => say(Note, "no node runs on this folder", "`citybrain run --config FILE` starts it"),
        };
    };
    if node.ready {
        return ok(format!("{} takes events, up {}", node.address, span(node.uptime_s * 1000)));
    }
    say(
        Bad,
        format!("{} takes nothing: {}", node.address, node.reasons.join("; ")),
        "the findings below say why; what is on disk stays readable",
    )
}

fn config(f: &Facts) -> Answer {
    match f.config.problems.as_slice() {
        [] => ok("no problems"),
        all => say(Bad, all.join("; "), "`citybrain check FILE` shows where"),
    }
}

fn data_folder(f: &Facts) -> Answer {
    match &f.host.unwritable {
        None => ok(format!("`{}` can be written", f.host.data)),
        Some(why) => say(
            Bad,
            format!("`{}` cannot be written: {why}", f.host.data),
            "give the node's user the folder: `chown`, or another `node.data`",
        ),
    }
}

fn data_rights(f: &Facts) -> Answer {
    let mode = f.host.data_mode?;
    if mode & 0o007 == 0 {
        return ok(format!("mode {mode:03o}: others see nothing"));
    }
    say(
        Warn,
        format!("mode {mode:03o}: every user of this machine can read residents' events"),
        format!("`chmod o-rwx {}`", f.host.data),
    )
}

fn disk_kind(f: &Facts) -> Answer {
    let Some(kind) = &f.host.filesystem else { return unknown("the kind of the file system") };
    match kind.as_str() {
        "tmpfs" | "ramfs" | "devtmpfs" => {
            say(Bad, format!("{kind}: all is lost with the power"), "put `node.data` on a disk")
        }
        "overlay" | "aufs" => say(
            Warn,
            format!("{kind}: a container's own layer, gone with the container"),
            "mount a volume at `node.data`",
        ),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "sshfs" | "ceph" | "glusterfs" => say(
            Warn,
            format!("{kind}: an fsync is a server's word over a network"),
            "put `node.data` on a disk of this machine",
        ),
        kind if kind.starts_with("fuse") => say(
            Warn,
            format!("{kind}: an fsync is whatever that program makes of it"),
            "put `node.data` on a disk of this machine",
        ),
        kind => ok(kind),
    }
}

fn disk_fsync(f: &Facts) -> Answer {
    let Host { fsync_us, fsync_error, .. } = &f.host;
    if let Some(e) = fsync_error {
        return say(Bad, format!("fsync fails: {e}"), "the disk is full, read-only or broken: `dmesg` says more");
    }
    let (Some(median), Some(worst)) = (fsync_us.get(fsync_us.len() / 2), fsync_us.last()) else {
        return unknown("the time of an fsync");
    };
    let found =
        format!("append and fsync: {} in the middle, {} at worst, of {}", us(*median), us(*worst), fsync_us.len());
    match *median {
        0..20 => say(
            Warn,
            format!("{found}: no disk is that fast, so this one does not wait"),
            "a power cut may take what was acknowledged; turn write caching without a battery off, or use a volume that honours fsync",
        ),
        20..20_000 => ok(found),
        20_000..200_000 => say(Warn, found, "every acknowledgement waits for it: an SSD, or less that shares the disk"),
        _ => say(
            Bad,
            found,
            "every acknowledgement waits for it: the disk is failing or overloaded, `dmesg` and `iostat -x 1` say more",
        ),
    }
}

fn disk_space(f: &Facts) -> Answer {
    let (Some(free), Some(total)) = (f.host.free_bytes, f.host.total_bytes) else { return unknown("free space") };
    let min = f.config.free_bytes_min;
    let found = format!("{} of {} free; below {} nothing is accepted", bytes(free), bytes(total), bytes(min));
    let remedy = "make room, or lower `store.log_bytes_max` and `store.keep_s`; `log-size` says who holds the log";
    if free < min {
        say(Bad, found, remedy)
    } else if free < 2 * min || free < total / 20 {
        say(Warn, found, remedy)
    } else {
        ok(found)
    }
}

fn disk_inodes(f: &Facts) -> Answer {
    // Some file systems have no fixed number, and say zero.
    let (Some(free), Some(total)) = (f.host.free_inodes, f.host.total_inodes.filter(|t| *t > 0)) else {
        return ok("not limited");
    };
    let found = format!("{free} of {total} free");
    if free < 1000 {
        say(Bad, found, "no more files can be made: find the folder with the many small ones")
    } else {
        ok(found)
    }
}

fn memory(f: &Facts) -> Answer {
    let Some(available) = f.host.memory_available_bytes else { return unknown("free memory") };
    let of_node = f
        .node
        .as_ref()
        .and(f.host.memory_resident_bytes)
        .map_or(String::new(), |b| format!(", the node uses {}", bytes(b)));
    let found = format!("{} available{of_node}", bytes(available));
    if available < 64 << 20 {
        say(
            Warn,
            found,
            "the kernel may end the node at any time (nothing acknowledged is lost): give the machine more",
        )
    } else {
        ok(found)
    }
}

fn files_limit(f: &Facts) -> Answer {
    let Some(max) = f.host.files_max else { return unknown("the limit of open files") };
    // Beside connections: segments, state, sockets of links and API.
    let needed = if f.config.broker_url.is_some() { FILES_LEFT } else { f.config.connections_max + FILES_LEFT };
    let found = format!("{max} open files, {needed} may be needed");
    if max >= needed {
        return ok(found);
    }
    say(
        Warn,
        format!("{found}: the door stops at about {} connections", max.saturating_sub(FILES_LEFT)),
        format!("`LimitNOFILE={}` in the unit, or lower `broker.connections_max`", needed.next_power_of_two()),
    )
}

fn clock_sane(f: &Facts) -> Answer {
    let now = f.host.now?;
    let newest =
        f.node.as_ref().map(|n| n.newest_record_us).or(f.stopped.as_ref().map(|s| s.newest_record_us)).unwrap_or(0);
    let remedy = "set the clock; order and once-ness do not depend on it, but times in events and limits of cases do";
    if let Some(built) = f.host.program_at
        && now < built
    {
        return say(Bad, format!("it is {}, and the program file is from {}", minute(now), minute(built)), remedy);
    }
    let behind_us = newest - now.timestamp_micros();
    if behind_us > 5_000_000 {
        let newest = citybrain_shared::view::time_of(newest);
        return say(
            Bad,
            format!("it is {}, and the newest record is from {}: the clock went back", minute(now), minute(newest)),
            remedy,
        );
    }
    ok(minute(now))
}

fn clock_sync(f: &Facts) -> Answer {
    match f.host.clock_synchronised {
        Some(true) => ok("the kernel's clock is kept in step"),
        Some(false) => say(
            Warn,
            "nobody keeps the kernel's clock in step",
            "start chrony or systemd-timesyncd (in a container: on its host)",
        ),
        None => unknown("whether the clock is kept in step"),
    }
}

fn clock_of_children(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    match &node.ahead {
        Some(a) if a.by_us > 5_000_000 => say(
            Warn,
            format!("{}'s clock is {} s ahead of this one", a.origin, a.by_us / 1_000_000),
            "set the clock that is wrong: `citybrain doctor` on both says which",
        ),
        _ => ok("no origin of the newest records is ahead of this clock"),
    }
}

fn ports(f: &Facts) -> Answer {
    let taken: Vec<String> =
        f.host.ports.iter().filter_map(|(port, why)| Some(format!("{port}: {}", why.as_ref()?))).collect();
    if f.host.ports.is_empty() {
        return None;
    }
    match (taken.is_empty(), f.stopped.as_ref().is_some_and(|s| s.in_use)) {
        (true, _) => ok("free"),
        (false, true) => ok("used by the node that runs"),
        (false, false) => say(Bad, taken.join("; "), "another program has it: `ss -ltnp` says which"),
    }
}

fn certificates(f: &Facts) -> Answer {
    let all = &f.host.certificates;
    let now = f.host.now?;
    if let Some(c) = all.iter().find(|c| c.trouble.is_some()) {
        let why = c.trouble.as_deref().unwrap_or_default();
        return say(Bad, format!("{}: {why}", c.key), "put the certificate there, readable by the node's user");
    }
    if let Some(c) = all.iter().find(|c| c.from.is_some_and(|from| now < from)) {
        let from = c.from.map_or_else(String::new, minute);
        return say(Bad, format!("{} is not good before {from}", c.key), "set the clock, if that is what is wrong");
    }
    let ends = |is_list| {
        let of_kind = all.iter().filter(move |c| c.is_list == is_list);
        of_kind.filter_map(|c| Some((c.until?, c))).min_by_key(|(until, _)| *until)
    };
    let old_list = ends(true).filter(|(until, _)| *until <= now);
    let Some((until, c)) = ends(false) else {
        return ok("none is used");
    };
    let days = (until - now).num_days();
    let remedy = "renew it; the files are read again by themselves";
    if until <= now {
        say(Bad, format!("{} ended at {}: nobody who looks at it comes in", c.key, minute(until)), remedy)
    } else if until < now + EXPIRES_SOON {
        say(Warn, format!("{} ends in {days} days, at {}", c.key, minute(until)), remedy)
    } else if let Some((until, list)) = old_list {
        let what =
            format!("{} should have been renewed by {}: who was revoked since comes in", list.key, minute(until));
        say(Warn, what, "get the newest list from whoever signs the clients' certificates; it is read by itself")
    } else {
        ok(format!("{}, the first to end in {days} days", all.iter().filter(|c| !c.is_list).count()))
    }
}

fn exposure(f: &Facts) -> Answer {
    let c = &f.config;
    if c.api_open && !c.api_tokens {
        return say(
            Bad,
            format!(
                "the API listens on {} and asks nobody who he is: whoever reaches it can change things",
                c.api_listen
            ),
            "`api.tokens_file`, or `api.listen` on 127.0.0.1",
        );
    }
    if c.broker_open && c.anonymous {
        return say(
            Warn,
            format!("everybody who reaches {} comes in, and may do what `[access]` allows", c.broker_listen),
            "`access.users_file`, and `access.anonymous = false`",
        );
    }
    if c.api_open && !c.api_tls {
        return say(
            Note,
            format!("the API listens on {}, and tokens go there unencrypted", c.api_listen),
            "`api.cert_file` and `api.key_file` make it HTTPS; without, keep it inside a network of your own",
        );
    }
    let api = if c.api_open { "the API speaks TLS and asks for tokens" } else { "the API is on loopback" };
    let door = match &c.broker_url {
        Some(_) => "who comes in by MQTT is asked by the outside broker",
        None => "the door asks who comes or is on loopback",
    };
    ok(format!("{api}, and {door}"))
}

fn broker_kind(f: &Facts) -> Answer {
    match &f.config.broker_url {
        None => ok("embedded: an acknowledgement means on this node's disk"),
        Some(url) => say(
            Warn,
            format!("outside, {url}: an acknowledgement is that broker's word"),
            "leave `broker.url` out, unless one machine is too small",
        ),
    }
}

fn log_damage(f: &Facts) -> Answer {
    if let Some(trouble) = f.stopped.as_ref().and_then(|s| s.trouble.as_ref()) {
        return say(Bad, trouble.clone(), "put a backup back: `citybrain store restore BACKUP DIR`");
    }
    let damages = f.node.as_ref().map(|n| &n.damages).or(f.stopped.as_ref().map(|s| &s.damages))?;
    match damages.as_slice() {
        [] => ok("none seen at the start; `citybrain store verify DIR` reads all"),
        all => say(
            Bad,
            all.join("; "),
            "the rest stays readable; a parent that has them is asked for nothing: look at the disk, and at `citybrain store verify DIR`",
        ),
    }
}

fn log_torn(f: &Facts) -> Answer {
    if let Some((first, last)) = f.node.as_ref().and_then(|n| n.lost_end) {
        return say(
            Bad,
            format!("the log has lost its end: records {first} to {last} were durable, as the state shows"),
            "what had climbed is above (`citybrain audit` there); look at the disk, or put a backup back: `citybrain store restore BACKUP DIR`",
        );
    }
    let torn = f.node.as_ref().map(|n| n.torn_bytes).or(f.stopped.as_ref().map(|s| s.torn_bytes))?;
    match torn {
        0 => ok("the log ends cleanly"),
        n => say(
            Note,
            format!("the last stop was not clean: {n} bytes of an unfinished write; nothing of it was acknowledged"),
            "nothing to do",
        ),
    }
}

fn state_rebuilt(f: &Facts) -> Answer {
    match &f.node.as_ref()?.rebuilt {
        None => ok("read as it was left"),
        Some(why) => {
            say(Warn, why.clone(), "it is made of the log, which has everything; if it happens twice, look at the disk")
        }
    }
}

fn snapshot_age(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    let behind = node.last_pos.0.saturating_sub(node.snapshot_pos.0);
    let found = format!("the newest snapshot is {behind} records old");
    if f.config.snapshot_records > 0 && behind > 2 * f.config.snapshot_records {
        return say(
            Warn,
            format!("{found}, and one is due every {}", f.config.snapshot_records),
            "the log output says why none could be written: disk full?",
        );
    }
    ok(found)
}

fn log_size(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    let found = format!("{} in {} segments", bytes(node.log_bytes), node.log_segments);
    if node.log_bytes <= f.config.log_bytes_max {
        return ok(found);
    }
    let held = if node.needed_pos <= node.last_pos {
        format!("; {} still needs {} and on", node.needed_by, node.needed_pos)
    } else {
        String::new()
    };
    say(
        Warn,
        format!("{found}, more than `store.log_bytes_max` ({}){held}", bytes(f.config.log_bytes_max)),
        "`citybrain links` shows a peer that is behind; a session that never comes back holds the log until it expires",
    )
}

fn link_to_parent(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    let Some(link) = node.links.iter().find(|l| l.up) else {
        return if f.config.has_parent {
            say(Warn, "a parent is configured, and its link has not begun", "`citybrain links`")
        } else {
            ok("no parent is configured: this node works alone")
        };
    };
    let why = link.why.as_ref().map_or(String::new(), |w| format!(": {w}"));
    match (link.state.as_str(), link.heard_ms_ago) {
        ("up", _) => ok(format!("{} is up, {} records to send", link.peer, link.unsent)),
        ("refused", _) => {
            say(Bad, format!("{} refuses{why}", link.peer), "what the reason says; events are kept here until then")
        }
        (state, None) => say(
            Warn,
            format!("{} was never reached since this start, {state}{why}", link.peer),
            "`parent.url`, its network, and whether it runs; events are kept here until then",
        ),
        (state, Some(ms)) => say(
            Warn,
            format!("{} was last heard {} s ago, {state}{why}", link.peer, ms / 1000),
            "its network, and whether it runs; events are kept here until then",
        ),
    }
}

fn links_to_children(f: &Facts) -> Answer {
    let node: &Node = f.node.as_ref()?;
    let children: Vec<_> = node.links.iter().filter(|l| !l.up).collect();
    if children.is_empty() {
        return ok("no child has come yet");
    }
    let list = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        let fits = children.iter().filter(|l| wanted(&l.state));
        fits.map(|l| format!("{}{}", l.peer, l.why.as_ref().map_or(String::new(), |w| format!(" ({w})")))).collect()
    };
    let refused = list(&|s| s == "refused");
    if !refused.is_empty() {
        return say(
            Bad,
            format!("refused: {}", refused.join("; ")),
            "what the reason says; each keeps its events until then",
        );
    }
    let away = list(&|s| s != "up");
    if !away.is_empty() {
        return say(
            Warn,
            format!("{} of {} not up: {}", away.len(), children.len(), away.join("; ")),
            "`citybrain doctor` there; each keeps its events until then",
        );
    }
    ok(format!("all {} up", children.len()))
}

fn versions(f: &Facts) -> Answer {
    let node = f.node.as_ref()?;
    let newer: Vec<String> = node
        .children
        .iter()
        .filter(|(_, v)| number(v) > number(&f.version))
        .map(|(a, v)| format!("{a} ({v})"))
        .collect();
    if newer.is_empty() {
        return ok(format!("{}, and no child is newer", f.version));
    }
    say(Warn, format!("this is {}, and newer: {}", f.version, newer.join(", ")), "upgrade parents before children")
}

fn dead_letters(f: &Facts) -> Answer {
    match f.node.as_ref()?.dead_letters_open {
        0 => ok("none open"),
        n => say(
            Warn,
            format!("{n} open: refused, and nobody has looked"),
            "`citybrain dlq list`, then `dlq retry` or `dlq drop`",
        ),
    }
}

// ---- words -------------------------------------------------------------------------------------

fn number(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|p| p.parse().ok()).collect()
}

fn us(us: u64) -> String {
    if us < 1000 { format!("{us} µs") } else { format!("{:.1} ms", us as f64 / 1000.0) }
}

fn minute(at: chrono::DateTime<chrono::Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Ahead, Certificate, Link, Stopped};
    use super::*;
    use citybrain_shared::Pos;
    use citybrain_shared::view::time_of;

    /// A node and a host with nothing to complain about.
    fn well() -> Facts {
        let mut f = Facts { version: "0.2.0".into(), ..Facts::default() };
        f.config.connections_max = 1000;
        f.config.free_bytes_min = 1 << 20;
        f.config.log_bytes_max = 1 << 30;
        f.config.snapshot_records = 100;
        f.config.has_parent = true;
        let h = &mut f.host;
        h.data = "/d".into();
        h.data_mode = Some(0o750);
        h.filesystem = Some("ext4".into());
        (h.free_bytes, h.total_bytes) = (Some(50 << 30), Some(100 << 30));
        (h.free_inodes, h.total_inodes) = (Some(1 << 20), Some(1 << 21));
        h.fsync_us = vec![400, 500, 900];
        h.files_max = Some(4096);
        h.memory_available_bytes = Some(1 << 30);
        (h.now, h.program_at) = (Some(time_of(2_000_000_000_000_000)), Some(time_of(1_900_000_000_000_000)));
        h.clock_synchronised = Some(true);
        h.certificates = vec![Certificate {
            key: "listener.0.cert_file".into(),
            from: Some(time_of(0)),
            until: Some(time_of(2_100_000_000_000_000)),
            is_list: false,
            trouble: None,
        }];
        h.ports = vec![("api.listen".into(), None)];
        f.node = Some(Node {
            ready: true,
            links: vec![
                Link { up: true, peer: "c".into(), state: "up".into(), ..Link::default() },
                Link { peer: "c/s/m".into(), state: "up".into(), ..Link::default() },
            ],
            children: vec![("c/s/m".into(), "0.1.9".into())],
            last_pos: Pos(150),
            snapshot_pos: Pos(100),
            newest_record_us: 2_000_000_000_000_000,
            ..Node::default()
        });
        f
    }

    fn severity(f: &Facts, id: &str) -> Verdict {
        let found = examine(f).checks.into_iter().find(|c| c.id == id);
        found.unwrap_or_else(|| panic!("no finding {id}")).severity
    }

    #[test]
    fn where_all_is_well_every_check_says_so() {
        let doctor = examine(&well());
        assert!(doctor.ok);
        for c in &doctor.checks {
            assert_eq!((c.severity, c.remedy.as_str()), (Ok, ""), "{c:?}");
        }
        assert_eq!(doctor.checks.len(), CHECKS.len());
        let back: Facts = serde_json::from_value(doctor.facts).unwrap();
        assert_eq!(back, well(), "facts read back from a bundle");
    }

    /// Each check's other answer, by what is changed in a node that is well.
    #[test]
    fn every_check_has_another_answer() {
        type Break = fn(&mut Facts);
        fn node(f: &mut Facts) -> &mut Node {
            f.node.as_mut().unwrap()
        }
        let cases: &[(&str, Verdict, Break)] = &[
            ("node-ready", Bad, |f| node(f).ready = false),
            ("node-ready", Note, |f| f.node = None),
            ("config", Bad, |f| f.config.problems.push("no".into())),
            ("data-folder", Bad, |f| f.host.unwritable = Some("denied".into())),
            ("data-rights", Warn, |f| f.host.data_mode = Some(0o755)),
            ("disk-kind", Bad, |f| f.host.filesystem = Some("tmpfs".into())),
            ("disk-kind", Warn, |f| f.host.filesystem = Some("overlay".into())),
            ("disk-kind", Warn, |f| f.host.filesystem = Some("nfs4".into())),
            ("disk-kind", Note, |f| f.host.filesystem = None),
            ("disk-fsync", Warn, |f| f.host.fsync_us = vec![2, 3, 4]),
            ("disk-fsync", Warn, |f| f.host.fsync_us = vec![30_000; 3]),
            ("disk-fsync", Bad, |f| f.host.fsync_us = vec![300_000; 3]),
            ("disk-fsync", Bad, |f| f.host.fsync_error = Some("EIO".into())),
            ("disk-fsync", Note, |f| f.host.fsync_us.clear()),
            ("disk-space", Bad, |f| f.host.free_bytes = Some(1)),
            ("disk-space", Warn, |f| f.host.free_bytes = Some(1 << 30)),
            ("disk-inodes", Bad, |f| f.host.free_inodes = Some(3)),
            ("memory", Warn, |f| f.host.memory_available_bytes = Some(1 << 20)),
            ("files-limit", Warn, |f| f.host.files_max = Some(1024)),
            ("clock-sane", Bad, |f| f.host.now = Some(time_of(0))),
            ("clock-sane", Bad, |f| node(f).newest_record_us += 60_000_000),
            ("clock-sync", Warn, |f| f.host.clock_synchronised = Some(false)),
            ("clock-sync", Note, |f| f.host.clock_synchronised = None),
            ("clock-of-children", Warn, |f| {
                node(f).ahead = Some(Ahead { origin: "c/s/m".into(), by_us: 60_000_000 });
            }),
            ("ports", Bad, |f| f.host.ports[0].1 = Some("in use".into())),
            ("certificates", Bad, |f| f.host.certificates[0].until = f.host.now),
            ("certificates", Bad, |f| f.host.certificates[0].from = Some(time_of(2_100_000_000_000_000))),
            ("certificates", Bad, |f| f.host.certificates[0].trouble = Some("no such file".into())),
            ("certificates", Warn, |f| f.host.certificates[0].until = Some(time_of(2_001_000_000_000_000))),
            ("certificates", Warn, |f| {
                let list = Certificate { is_list: true, until: f.host.now, ..f.host.certificates[0].clone() };
                f.host.certificates.push(list);
            }),
            ("exposure", Bad, |f| f.config.api_open = true),
            ("exposure", Note, |f| (f.config.api_open, f.config.api_tokens) = (true, true)),
            ("exposure", Warn, |f| (f.config.broker_open, f.config.anonymous) = (true, true)),
            ("broker-kind", Warn, |f| f.config.broker_url = Some("mqtt://h:1".into())),
            ("log-damage", Bad, |f| node(f).damages.push("records 3 to 4".into())),
            ("log-damage", Bad, |f| {
                f.stopped = Some(Stopped { trouble: Some("headless".into()), ..Stopped::default() });
            }),
            ("log-torn", Note, |f| node(f).torn_bytes = 7),
            ("log-torn", Bad, |f| node(f).lost_end = Some((Pos(7), Pos(9)))),
            ("state-rebuilt", Warn, |f| node(f).rebuilt = Some("it was damaged".into())),
            ("snapshot-age", Warn, |f| node(f).last_pos = Pos(1000)),
            ("log-size", Warn, |f| node(f).log_bytes = 2 << 30),
            ("link-to-parent", Bad, |f| node(f).links[0].state = "refused".into()),
            ("link-to-parent", Warn, |f| node(f).links[0].state = "connecting".into()),
            ("link-to-parent", Warn, |f| drop(node(f).links.remove(0))),
            ("links-to-children", Bad, |f| node(f).links[1].state = "refused".into()),
            ("links-to-children", Warn, |f| node(f).links[1].state = "away".into()),
            ("versions", Warn, |f| node(f).children[0].1 = "0.10.0".into()),
            ("dead-letters", Warn, |f| node(f).dead_letters_open = 1),
            ("refused-logins", Warn, |f| node(f).refused_logins.push("ann, once, the last from ::1: wrong".into())),
            ("lost-records", Bad, |f| node(f).lost = 1),
            ("commit-time", Warn, |f| (node(f).commits, node(f).commits_over_100_ms) = (1000, 50)),
        ];
        for (id, want, change) in cases {
            let mut f = well();
            change(&mut f);
            assert_eq!(severity(&f, id), *want, "{id}");
            let doctor = examine(&f);
            assert_eq!(doctor.ok, *want != Bad, "{id}");
            let found = doctor.checks.into_iter().find(|c| c.id == *id).unwrap();
            assert!(!found.remedy.is_empty() && !found.found.is_empty(), "{id} says what to do");
        }
        for (id, _) in CHECKS {
            assert!(cases.iter().any(|(i, ..)| *i == id), "{id} has no case for its other answer");
        }
    }
}
