//! The machine: folder, disk, memory, clock, ports and certificates.

use super::{Answer, ok, say, unknown};
use crate::certificates::EXPIRES_SOON;
use crate::doctor::Facts;
use crate::doctor::facts::Host;
use crate::files::FILES_LEFT;
use citybrain_shared::view::Verdict::{Bad, Warn};
use citybrain_shared::words::{bytes, time};

pub(super) fn data_folder(f: &Facts) -> Answer {
    match &f.host.unwritable {
        None => ok(format!("`{}` can be written", f.host.data)),
        Some(why) => say(
            Bad,
            format!("`{}` cannot be written: {why}", f.host.data),
            "give the node's user the folder: `chown`, or another `node.data`",
        ),
    }
}

pub(super) fn data_rights(f: &Facts) -> Answer {
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

pub(super) fn disk_kind(f: &Facts) -> Answer {
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

pub(super) fn disk_fsync(f: &Facts) -> Answer {
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

pub(super) fn disk_space(f: &Facts) -> Answer {
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

pub(super) fn disk_inodes(f: &Facts) -> Answer {
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

pub(super) fn memory(f: &Facts) -> Answer {
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

pub(super) fn files_limit(f: &Facts) -> Answer {
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

pub(super) fn clock_sane(f: &Facts) -> Answer {
    let now = f.host.now?;
    let newest =
        f.node.as_ref().map(|n| n.newest_record_us).or(f.stopped.as_ref().map(|s| s.newest_record_us)).unwrap_or(0);
    let remedy = "set the clock; order and once-ness do not depend on it, but times in events and limits of cases do";
    if let Some(built) = f.host.program_at
        && now < built
    {
        return say(Bad, format!("it is {}, and the program file is from {}", time(now), time(built)), remedy);
    }
    let behind_us = newest - now.timestamp_micros();
    if behind_us > 5_000_000 {
        let newest = citybrain_shared::view::time_of(newest);
        return say(
            Bad,
            format!("it is {}, and the newest record is from {}: the clock went back", time(now), time(newest)),
            remedy,
        );
    }
    ok(time(now))
}

pub(super) fn clock_sync(f: &Facts) -> Answer {
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

pub(super) fn ports(f: &Facts) -> Answer {
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

pub(super) fn certificates(f: &Facts) -> Answer {
    let all = &f.host.certificates;
    let now = f.host.now?;
    if let Some(c) = all.iter().find(|c| c.trouble.is_some()) {
        let why = c.trouble.as_deref().unwrap_or_default();
        return say(Bad, format!("{}: {why}", c.key), "put the certificate there, readable by the node's user");
    }
    if let Some(c) = all.iter().find(|c| c.from.is_some_and(|from| now < from)) {
        let from = c.from.map_or_else(String::new, time);
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
        say(Bad, format!("{} ended at {}: nobody who looks at it comes in", c.key, time(until)), remedy)
    } else if until < now + EXPIRES_SOON {
        say(Warn, format!("{} ends in {days} days, at {}", c.key, time(until)), remedy)
    } else if let Some((until, list)) = old_list {
        let what = format!("{} should have been renewed by {}: who was revoked since comes in", list.key, time(until));
        say(Warn, what, "get the newest list from whoever signs the clients' certificates; it is read by itself")
    } else {
        ok(format!("{}, the first to end in {days} days", all.iter().filter(|c| !c.is_list).count()))
    }
}

fn us(us: u64) -> String {
    if us < 1000 { format!("{us} µs") } else { format!("{:.1} ms", us as f64 / 1000.0) }
}
