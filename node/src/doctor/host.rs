//! Facts of the machine: its disk, clock, limits and ports. Leaves nothing behind.

use super::facts::{Certificate, Host};
use crate::certificates;
use chrono::{DateTime, Utc};
use citybrain_shared::config::Config;
use citybrain_shared::words::with_causes;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

/// Appends measured: enough for a median and a worst one, and under a second on a slow card.
const FSYNCS: usize = 24;
/// A small commit's size.
const FSYNC_BYTES: usize = 4096;

/// How far a look goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing is written.
    Read,
    /// The disk is measured.
    Write,
    /// Also whether the ports of a node that does not run are free.
    Ports,
}

#[allow(clippy::disallowed_methods, reason = "the clock itself is what is looked at")]
pub fn gather(config: &Config, reach: Reach) -> Host {
    // A folder that is not there yet will be made in the nearest one above it.
    let data = &config.node.data;
    let there = crate::config::above(data).find(|p| p.is_dir());
    let (total, available) = (proc_kb("/proc/meminfo", "MemTotal:"), proc_kb("/proc/meminfo", "MemAvailable:"));
    let group = group_memory();
    let mut host = Host {
        data: data.display().to_string(),
        now: Some(Utc::now()),
        program_at: program_at(),
        clock_synchronised: clock_synchronised(),
        files_max: files_max(),
        memory_total_bytes: total.map(|t| group.map_or(t, |(max, _)| t.min(max))),
        memory_available_bytes: available.map(|a| group.map_or(a, |(_, left)| a.min(left))),
        memory_resident_bytes: proc_kb("/proc/self/status", "VmRSS:"),
        certificates: certificates(config),
        ..Host::default()
    };
    match there {
        None => host.unwritable = Some("no folder above it exists".into()),
        Some(folder) => {
            host.data_mode = data.metadata().ok().map(|m| m.mode() & 0o777);
            match if reach == Reach::Read { Ok(Vec::new()) } else { measure(folder) } {
                Ok(times) => host.fsync_us = times,
                Err(Trouble::Open(e)) => host.unwritable = Some(format!("`{}`: {e}", folder.display())),
                Err(Trouble::Sync(e)) => host.fsync_error = Some(e.to_string()),
            }
            if let Ok(fs) = rustix::fs::statvfs(folder) {
                host.free_bytes = Some(fs.f_bavail * fs.f_frsize);
                host.total_bytes = Some(fs.f_blocks * fs.f_frsize);
                host.free_inodes = Some(fs.f_favail);
                host.total_inodes = Some(fs.f_files);
            }
            host.filesystem = filesystem(folder);
        }
    }
    if reach == Reach::Ports {
        for (key, at) in crate::check::listeners(config) {
            host.ports.push((format!("{key} {at}"), TcpListener::bind(at).err().map(|e| e.to_string())));
        }
    }
    host
}

enum Trouble {
    Open(std::io::Error),
    Sync(std::io::Error),
}

/// µs of appending and syncing, sorted.
fn measure(folder: &Path) -> Result<Vec<u64>, Trouble> {
    let path = folder.join(format!(".citybrain-doctor-{}", std::process::id()));
    let mut file = File::create(&path).map_err(Trouble::Open)?;
    let mut times = Vec::with_capacity(FSYNCS);
    let done = (0..FSYNCS).try_for_each(|i| {
        let started = Instant::now();
        file.write_all(&[i as u8; FSYNC_BYTES])?;
        file.sync_data()?;
        times.push(started.elapsed().as_micros() as u64);
        Ok(())
    });
    let _ = fs::remove_file(&path);
    done.map_err(Trouble::Sync)?;
    times.sort_unstable();
    Ok(times)
}

/// The name of the file system that the folder is on, from the mount table.
fn filesystem(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let table = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = table.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        // A space in a mount point is written as an octal escape.
        Some((place.replace("\\040", " "), kind.to_owned()))
    });
    // The longest mount point above it; of two at one place the later one covers the other.
    mounts.filter(|(place, _)| folder.starts_with(place)).max_by_key(|(place, _)| place.len()).map(|(_, kind)| kind)
}

fn program_at() -> Option<DateTime<Utc>> {
    let modified = std::env::current_exe().ok()?.metadata().ok()?.modified().ok()?;
    Some(modified.into())
}

/// The hard limit: a node raises its own to it when it starts.
fn files_max() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    Some(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX))
}

fn proc_kb(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kb| kb * 1024)
}

/// The tightest bound of the control groups (v2) that this process is in, as a container or `MemoryMax=`
/// sets it, and what is left below it, in bytes; `None`: there is none. Cached files give way, and so
/// count as free.
fn group_memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|l| l.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let bound = |folder: &Path| {
        let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
        let (max, current) = (number("memory.max")?, number("memory.current")?);
        let stat = fs::read_to_string(folder.join("memory.stat")).ok()?;
        let cached = stat.lines().find_map(|l| l.strip_prefix("file ")?.parse::<u64>().ok()).unwrap_or(0);
        Some((max, max.saturating_sub(current.saturating_sub(cached))))
    };
    let folder = root.join(own);
    let bounds = folder.ancestors().take_while(|f| f.starts_with(root)).filter_map(bound);
    bounds.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
}

fn certificates(config: &Config) -> Vec<Certificate> {
    let look = |named: certificates::Named| {
        let (validity, key, is_list) = (named.validity(), named.key, named.is_list);
        match validity {
            Ok(v) => {
                Certificate { key, from: Some(v.from.into()), until: Some(v.until.into()), is_list, trouble: None }
            }
            Err(e) => Certificate { key, is_list, trouble: Some(with_causes(&e)), ..Certificate::default() },
        }
    };
    certificates::of(config).into_iter().map(look).collect()
}

/// The kernel's own flag, which whoever keeps the clock (chrony, ntpd, timesyncd) sets and lets lapse.
#[allow(unsafe_code, reason = "libc has no safe way to ask the kernel's clock for its state")]
fn clock_synchronised() -> Option<bool> {
    // SAFETY: all zeros is a valid `timex`; `modes` 0 only reads, into a struct that is ours.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        match libc::adjtimex(&raw mut timex) {
            -1 => return None,
            state => (state, timex.status),
        }
    };
    Some(state.0 != libc::TIME_ERROR && state.1 & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_can_be_looked_at_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[node]\naddress = \"c\"\ndata = \"{}\"\n", dir.path().join("not/yet").display());
        let config = citybrain_shared::config::parse(&text, &Default::default()).config.unwrap();
        let host = gather(&config, Reach::Write);
        assert_eq!(host.fsync_us.len(), FSYNCS);
        assert!(host.fsync_us.is_sorted());
        assert!(host.filesystem.is_some_and(|f| !f.is_empty()));
        assert!(host.files_max.unwrap() > 0 && host.memory_total_bytes.unwrap() > 0 && host.program_at.is_some());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_port_that_a_start_would_need_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        let text = format!(
            "[node]\naddress = \"c\"\ndata = {:?}\n[broker]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
             [[listener]]\nlisten = \"{at}\"\nprotocol = \"ws\"\n",
            dir.path().display().to_string()
        );
        let parsed = citybrain_shared::config::parse(&text, &Default::default());
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let host = gather(&parsed.config.unwrap(), Reach::Ports);
        let bad: Vec<&str> = host.ports.iter().filter(|(_, e)| e.is_some()).map(|(key, _)| key.as_str()).collect();
        assert_eq!(bad, [format!("listener.0.listen {at}")]);
    }
}
