//! `citybrain store`: a stopped node's data folder.

use super::confirm::Yes;
use super::render::Ops;
use super::{Fail, Output, own};
use crate::ask::folder::is_data_folder;
use crate::ask::who;
use chrono::Utc;
use citybrain_hub::backup;
use citybrain_hub::log::{self, Damage, Reader};
use citybrain_hub::operator::{self, Act};
use citybrain_hub::{portable, store};
use citybrain_shared::record::Header;
use citybrain_shared::view::{SnapshotVerdict, StoreState};
use citybrain_shared::words::{counted, with_causes};
use citybrain_shared::{Pos, view};
use clap::Subcommand;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

/// sled's cache while a state is read, bytes.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub enum Store {
    /// Read every record, the state and the snapshots, and check them; 1 if anything is damaged
    Verify {
        /// The `data` folder of a node's config
        dir: PathBuf,
    },
    /// How much there is, and how old
    Stats {
        /// The `data` folder of a node's config
        dir: PathBuf,
    },
    /// Have the next start make the state anew, from the newest good snapshot and the log
    Rebuild {
        /// The `data` folder of a node's config
        dir: PathBuf,
        #[command(flatten)]
        yes: Yes,
    },
    /// A backup: the whole log and the snapshots, into a new folder; the node may run meanwhile
    Snapshot {
        /// The `data` folder of a node's config
        dir: PathBuf,
        /// The folder to make, such as /backup/node-2026-07-01
        target: PathBuf,
    },
    /// The whole log as text, a JSON object a line, verified when it is read back; the node may run meanwhile
    #[command(after_help = "Examples:
  citybrain store export /var/lib/citybrain/city city.ndjson.zst    compressed, because of its name
  citybrain store export /var/lib/citybrain/city - | wc -l          to standard output
It holds all that the log does, also whom to call.")]
    Export {
        /// The `data` folder of a node's config
        dir: PathBuf,
        /// A file to make, or `-`; zstd if its name ends in .zst
        file: PathBuf,
    },
    /// Make a data folder of an export, bit for bit the same log, and check it against its hashes
    #[command(after_help = "Example:
  citybrain store import city.ndjson.zst /var/lib/citybrain/city
The node that starts on it begins a new history, as after `restore`.")]
    Import {
        /// What `store export` made, or `-`
        file: PathBuf,
        /// A folder that is not there yet, or empty
        dir: PathBuf,
        #[command(flatten)]
        yes: Yes,
    },
    /// Put a backup back; what is in the folder now is moved aside
    Restore {
        /// A folder that `store snapshot` made
        backup: PathBuf,
        /// The `data` folder that it becomes
        dir: PathBuf,
        #[command(flatten)]
        yes: Yes,
    },
}

impl Store {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Store::Verify { dir } => verify(&dir).map(|v| Output::Ops(Ops::StoreVerify(own(v)))),
            Store::Stats { dir } => stats(&dir).map(|v| Output::Ops(Ops::StoreStats(own(v)))),
            Store::Rebuild { dir, yes } => rebuild(&dir, &yes).map(changed),
            Store::Snapshot { dir, target } => snapshot(&dir, &target).map(changed),
            Store::Export { dir, file } => export(&dir, &file),
            Store::Import { file, dir, yes } => import(&file, &dir, &yes).map(changed),
            Store::Restore { backup, dir, yes } => restore(&backup, &dir, &yes).map(changed),
        }
    }
}

fn changed(change: view::StoreChange) -> Output {
    Output::Ops(Ops::StoreChange(own(change)))
}

#[allow(clippy::disallowed_methods, reason = "a record says when it was made")]
fn now() -> String {
    view::rfc3339(Utc::now())
}

fn failed(e: &dyn std::error::Error) -> Fail {
    Fail::no("store", with_causes(e), "`citybrain store verify DIR` says what is damaged")
}

/// Does this say that something cannot be written? Reading meets none of these.
fn is_of_target(e: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    [FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull].contains(&e.kind())
}

/// What was read is sound.
fn unwritten(target: &Path, e: &io::Error) -> Fail {
    let hint = "make room there, or name a place on another disk; what was read is untouched";
    Fail::no("unwritable", format!("`{}` cannot be written: {e}", target.display()), hint)
}

fn is_in_use(dir: &Path) -> Result<bool, Fail> {
    log::is_in_use(&dir.join("log")).map_err(|e| failed(&e))
}

fn stopped(dir: &Path) -> Result<(), Fail> {
    if is_in_use(dir)? {
        let hint = format!(
            "stop it first: `systemctl stop citybrain@NAME`, or SIGTERM to the pid in {}/api.json",
            dir.display()
        );
        return Err(Fail::no("in-use", format!("a node is running on `{}`", dir.display()), hint));
    }
    Ok(())
}

fn damage(all: &[Damage]) -> Vec<view::StoreDamage> {
    let of = |d: &Damage| view::StoreDamage {
        segment: d.segment.display().to_string(),
        offset_bytes: d.offset,
        first_pos: d.first,
        last_pos: d.last,
    };
    all.iter().map(of).collect()
}

fn segments(dir: &Path) -> (u64, u64) {
    let files = std::fs::read_dir(dir.join("log")).into_iter().flatten().flatten();
    let logs = files.filter(|f| f.path().extension().is_some_and(|e| e == "log"));
    logs.fold((0, 0), |(n, bytes), f| (n + 1, bytes + f.metadata().map_or(0, |m| m.len())))
}

fn state_bytes(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("state").join("db")).map_or(0, |m| m.len())
}

fn snapshots(dir: &Path) -> Vec<view::SnapshotStats> {
    let stats = |(pos, path): (Pos, PathBuf)| {
        let about = std::fs::metadata(path).ok()?;
        Some(view::SnapshotStats { pos, bytes: about.len(), at: about.modified().ok()?.into() })
    };
    store::snapshots(dir).into_iter().filter_map(stats).collect()
}

fn committed_at(reader: &Reader, pos: Pos) -> Option<chrono::DateTime<Utc>> {
    let entry = reader.get(pos).ok()??;
    let (header, _) = Header::decode(&entry.bytes).ok()?;
    Some(view::time_of(header.committed_us))
}

fn stats(dir: &Path) -> Result<view::StoreStats, Fail> {
    is_data_folder(dir)?;
    let in_use = is_in_use(dir)?;
    let (reader, found) = log::open_read_only(&dir.join("log")).map_err(|e| failed(&e))?;
    let (segments, log_bytes) = segments(dir);
    // A running node changes sled's file while it is read.
    let state = if in_use { None } else { store::read(dir, CACHE_BYTES).ok() };
    Ok(view::StoreStats {
        dir: dir.display().to_string(),
        in_use,
        records: found.records,
        first_pos: reader.first(),
        last_pos: reader.last(),
        first_at: committed_at(&reader, reader.first()),
        last_at: committed_at(&reader, reader.last()),
        segments,
        log_bytes,
        torn_bytes: if in_use { 0 } else { found.cut_bytes },
        state_bytes: state_bytes(dir),
        state_rows: state.as_ref().map(|s| s.rows.len() as u64),
        state_upto_pos: state.as_ref().map(|s| s.upto),
        snapshots: snapshots(dir),
        damage: damage(&found.damage),
    })
}

fn verify(dir: &Path) -> Result<view::StoreVerify, Fail> {
    is_data_folder(dir)?;
    let in_use = is_in_use(dir)?;
    let (reader, found) = log::open_read_only(&dir.join("log")).map_err(|e| failed(&e))?;
    let tell = std::io::stderr().is_terminal();
    let all = reader.verify(|done, of| {
        if tell {
            eprint!("\rsegment {done} of {of}");
            if done == of {
                eprint!("\r{}\r", " ".repeat(40));
            }
        }
    });
    let damages = all.map_err(|e| failed(&e))?;
    let (state, snapshots) = if !dir.join("state").exists() {
        (StoreState::Missing, Vec::new())
    } else if in_use {
        (StoreState::Unread, Vec::new())
    } else {
        let verdict = store::verify(dir, CACHE_BYTES).map_err(|e| failed(&e))?;
        let snapshots = verdict.snapshots.into_iter().map(|(pos, rows)| snapshot_verdict(pos, rows)).collect();
        (state_verdict(verdict.state, reader.last()), snapshots)
    };
    Ok(view::StoreVerify {
        dir: dir.display().to_string(),
        ok: damages.is_empty() && state.is_good() && snapshots.iter().all(SnapshotVerdict::is_good),
        records: found.records,
        segments: segments(dir).0,
        torn_bytes: if in_use { 0 } else { found.cut_bytes },
        damage: damage(&damages),
        state,
        snapshots,
    })
}

/// What its rows, and the position that they stand for, mean beside a log that ends at `last`.
fn state_verdict(read: Result<(u64, Pos), String>, last: Pos) -> StoreState {
    match read {
        Ok((rows, upto_pos)) if upto_pos > last => StoreState::Ahead { rows, upto_pos, lost_from_pos: last.next() },
        Ok((0, _)) if last > Pos::ZERO => StoreState::Empty,
        Ok((rows, upto_pos)) => StoreState::Good { rows, upto_pos },
        Err(why) => StoreState::Damaged { why },
    }
}

fn snapshot_verdict(pos: Pos, read: Result<u64, String>) -> SnapshotVerdict {
    match read {
        Ok(rows) => SnapshotVerdict { pos, rows: Some(rows), damage: None },
        Err(why) => SnapshotVerdict { pos, rows: None, damage: Some(why) },
    }
}

fn rebuild(dir: &Path, yes: &Yes) -> Result<view::StoreChange, Fail> {
    is_data_folder(dir)?;
    stopped(dir)?;
    let (reader, _) = log::open_read_only(&dir.join("log")).map_err(|e| failed(&e))?;
    let good = store::verify(dir, CACHE_BYTES).ok().and_then(|v| {
        v.snapshots.into_iter().find(|(pos, rows)| rows.is_ok() && *pos <= reader.last()).map(|(pos, _)| pos)
    });
    let from = match good {
        Some(pos) => format!("the snapshot at {pos} and {} behind it", counted(reader.last().0 - pos.0, "record")),
        None => {
            let all = counted(reader.last().0 + 1 - reader.first().0, "record");
            format!("all of the log ({all}): there is no good snapshot")
        }
    };
    yes.confirm(&format!(
        "Moves {} aside (as state.damaged-N). The next start makes it anew from {from}.\nThe log is not touched.",
        dir.join("state").display()
    ))?;
    // Here without the node's config: only the node itself folds its rules' and cases' records.
    store::rewind(dir, reader.last()).map_err(|e| failed(&e))?;
    let mut notes = Vec::new();
    if reader.first().0 > good.unwrap_or(Pos::ZERO).0 + 1 {
        let first = reader.first();
        notes.push(format!("the log begins at {first}: what the state knew from before, and no snapshot has, is lost"));
    }
    leave(dir, "store rebuild", &format!("from {from}"), &mut notes);
    Ok(view::StoreChange {
        dir: dir.display().to_string(),
        done: format!("the next start makes the state anew from {from}"),
        notes,
        first_pos: reader.first(),
        last_pos: reader.last(),
        bytes: segments(dir).1,
    })
}

fn snapshot(dir: &Path, target: &Path) -> Result<view::StoreChange, Fail> {
    is_data_folder(dir)?;
    let about = backup::take(dir, target, now()).map_err(|e| match &e {
        backup::Error::Exists { .. } => Fail::usage(e.to_string(), "give a folder that is not there yet"),
        // Whatever the copy was of: only the backup is written.
        backup::Error::Io(e) if is_of_target(&e.source) => unwritten(target, &e.source),
        e => failed(e),
    })?;
    let notes = vec![
        "every record of it was read back".into(),
        "the config file, password files and certificates are not in it: keep them, too".into(),
        "on the same disk it is no backup: copy the folder to another machine".into(),
    ];
    Ok(view::StoreChange {
        dir: target.display().to_string(),
        done: "snapshot".into(),
        notes,
        first_pos: about.first,
        last_pos: about.last,
        bytes: about.bytes,
    })
}

fn export(dir: &Path, file: &Path) -> Result<Output, Fail> {
    is_data_folder(dir)?;
    let is_stdout = file.as_os_str() == "-";
    let done = if is_stdout {
        portable::export(dir, now(), std::io::BufWriter::new(std::io::stdout().lock()))
    } else {
        portable::export_file(dir, now(), file)
    };
    let done = match done {
        Ok(done) => done,
        // Whoever read it has seen enough.
        Err(portable::Error::Write(e)) if is_stdout && e.kind() == std::io::ErrorKind::BrokenPipe => {
            return Ok(Output::Nothing);
        }
        Err(portable::Error::Write(e)) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let detail = format!("`{}` is there already", file.display());
            return Err(Fail::usage(detail, "give a file that is not there yet"));
        }
        Err(portable::Error::Write(e)) => return Err(unwritten(file, &e)),
        Err(e) => return Err(failed(&e)),
    };
    if is_stdout {
        return Ok(Output::Nothing);
    }
    let notes = vec![
        "it holds all that the log does, also whom to call: only its owner may read the file".into(),
        format!("`citybrain store import {} DIR` makes a data folder of it", file.display()),
    ];
    Ok(changed(view::StoreChange {
        dir: file.display().to_string(),
        done: format!("{} exported", counted(done.records, "record")),
        notes,
        first_pos: done.head.first,
        last_pos: done.head.last,
        bytes: std::fs::metadata(file).map_or(done.bytes, |m| m.len()),
    }))
}

fn import(file: &Path, dir: &Path, yes: &Yes) -> Result<view::StoreChange, Fail> {
    let shown = dir.display();
    let is_taken = std::fs::read_dir(dir).map_or_else(|_| dir.exists(), |mut d| d.next().is_some());
    if is_taken {
        let hint = "give a folder that is not there yet, or move what is in it away";
        return Err(Fail::usage(format!("`{shown}` holds something already"), hint));
    }
    if file.as_os_str() != "-" {
        std::fs::File::open(file).map_err(|e| {
            let hint = "give a file that `citybrain store export` made, or `-` for standard input";
            Fail::usage(format!("cannot read `{}`: {e}", file.display()), hint)
        })?;
    }
    yes.confirm(&format!(
        "Makes the data folder {shown} of {}. The next start begins a new history there, so that peers do not take new records for old ones.",
        file.display()
    ))?;
    let done = match file.as_os_str() == "-" {
        true => portable::import(std::io::stdin().lock(), dir),
        false => portable::import_file(file, dir),
    };
    let done = done.map_err(|e| {
        let hint = "`citybrain store export DIR FILE` makes it again; nothing was left behind";
        match e {
            portable::Error::Foreign(_) => {
                Fail::usage(e.to_string(), "give a file that `citybrain store export` made, or `-` for standard input")
            }
            e => Fail { failure: view::Failure { hint: hint.into(), ..failed(&e).failure }, ..failed(&e) },
        }
    })?;
    let mut notes = vec![
        "every record has the position, the bytes and the chain hash that it had".to_owned(),
        "the next start begins a new history of the log, and makes the state anew".into(),
    ];
    let detail = format!("{} of {}, up to {}", file.display(), done.head.of, done.head.last);
    leave(dir, "store import", &detail, &mut notes);
    Ok(view::StoreChange {
        dir: shown.to_string(),
        done: format!("{} imported", counted(done.records, "record")),
        notes,
        first_pos: done.head.first,
        last_pos: done.head.last,
        bytes: segments(dir).1,
    })
}

fn restore(from: &Path, dir: &Path, yes: &Yes) -> Result<view::StoreChange, Fail> {
    let about = backup::about(from)
        .map_err(|e| Fail::usage(e.to_string(), "give a folder that `citybrain store snapshot` made"))?;
    if dir.join("log").is_dir() {
        stopped(dir)?;
    }
    let there = if dir.exists() {
        format!("\nWhat is in {0} now is moved to {0}.before-restore-N.", dir.display())
    } else {
        String::new()
    };
    yes.confirm(&format!(
        "Puts the backup of {} (taken {}, positions {} to {}) into {}.{there}\nThe next start begins a new history there, so that peers do not take new records for old ones.\nEvents after the backup are gone here; those that the parent had committed are still there.",
        about.of, about.taken_at, about.first, about.last, dir.display()
    ))?;
    let (about, aside) = backup::restore(from, dir).map_err(|e| failed(&e))?;
    let mut notes = vec!["the next start begins a new history of the log: \"restored from a backup\"".to_owned()];
    notes.push(
        "rules forget what waited in the backup for a time, a count or another alarm (`for`, `quiet`, hours, windows, \
         `unless_alarm`, `while_alarm`): it begins anew when the device speaks again; alarms that are active stay"
            .into(),
    );
    notes.extend(aside.map(|a| format!("what was there is in {}", a.display())));
    leave(
        dir,
        "store restore",
        &format!("{} taken at {}, up to {}", from.display(), about.taken_at, about.last),
        &mut notes,
    );
    Ok(view::StoreChange {
        dir: dir.display().to_string(),
        done: format!("restored from the backup of {}", about.taken_at),
        notes,
        first_pos: about.first,
        last_pos: about.last,
        bytes: about.bytes,
    })
}

/// Who did it goes into the log at the next start.
fn leave(dir: &Path, what: &str, detail: &str, notes: &mut Vec<String>) {
    if let Err(e) = operator::leave(dir, &Act::claimed(&who(), what, detail, now(), "this machine")) {
        notes.push(format!("who did it could not be noted: {e}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_said_of_the_place_that_is_full() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(is_of_target(&full) && !is_of_target(&io::Error::from(io::ErrorKind::NotFound)));
        let fail = unwritten(Path::new("/backup/x"), &full);
        assert!(fail.failure.detail.contains("/backup/x") && !fail.failure.hint.contains("verify"), "{fail:?}");
    }

    #[test]
    fn a_state_is_good_only_if_the_log_has_all_that_it_stands_for() {
        let of = |rows, upto, last| state_verdict(Ok((rows, Pos(upto))), Pos(last));
        assert_eq!(of(9, 177, 177), StoreState::Good { rows: 9, upto_pos: Pos(177) });
        assert_eq!(of(0, 0, 0), StoreState::Good { rows: 0, upto_pos: Pos(0) });
        assert_eq!(of(9, 178, 170), StoreState::Ahead { rows: 9, upto_pos: Pos(178), lost_from_pos: Pos(171) });
        assert_eq!(of(0, 0, 1), StoreState::Empty);
        assert!(of(9, 177, 180).is_good() && !of(9, 178, 170).is_good() && !of(0, 0, 1).is_good());
        assert!(!state_verdict(Err("no sled".into()), Pos(1)).is_good());
        assert!(snapshot_verdict(Pos(5), Ok(3)).is_good() && !snapshot_verdict(Pos(5), Err("torn".into())).is_good());
    }

    #[test]
    fn a_folder_that_may_not_be_read_is_not_one_that_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = is_data_folder(dir.path()).unwrap_err();
        assert!(missing.failure.detail.contains("is no data folder"), "{missing:?}");
        let denied = crate::ask::folder::no_rights(dir.path(), &io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.code, 2);
        assert!(denied.failure.hint.contains("as root"), "{denied:?}");
    }
}
