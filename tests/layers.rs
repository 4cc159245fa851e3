//! Absences, checked: who may import whom, and which file alone names a library.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("node lies in the workspace").to_owned()
}

/// Every Rust file below `dir`, as (path from the workspace's root, lines that are not comments).
fn sources(dir: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(dir)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the workspace's folders can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file is UTF-8");
                let code = text.lines().map(|l| l.split("//").next().unwrap_or_default().to_owned()).collect();
                let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.push((name, code));
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {dir}");
    // A folder is listed in no particular order.
    found.sort_unstable();
    found
}

fn naming<'a>(files: &'a [(String, Vec<String>)], word: &str) -> Vec<&'a str> {
    let names = |line: &String| {
        line.match_indices(word).any(|(i, _)| {
            let before = line[..i].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '"')
        })
    };
    files.iter().filter(|(_, code)| code.iter().any(names)).map(|(name, _)| name.as_str()).collect()
}

#[test]
fn crates_import_only_what_lies_below_them() {
    let shared = sources("shared/src");
    let hub = sources("hub/src");
    for upper in ["citybrain_hub", "citybrain_node"] {
        assert_eq!(naming(&shared, upper), [""; 0], "shared imports {upper}");
    }
    assert_eq!(naming(&hub, "citybrain_node"), [""; 0], "hub imports node");
}

/// The hub's rooms from the bottom up. Each may name those below it, and those of its own row.
const HUB: &[&[&str]] = &[
    &["files", "stamp", "note", "meta", "operator"],
    &["tls"],
    &["broker"],
    &["log"],
    &["store"],
    &["backup"],
    &["portable"],
    // The fold, and the mind that is plugged into it.
    &["state", "policy"],
    &["protocol"],
    &["engine"],
    &["door"],
    &["ingress"],
    &["link"],
];

#[test]
fn the_hubs_rooms_name_only_those_below_them() {
    let room_of = |name: &str| {
        let below = name.strip_prefix("hub/src/").expect("a file of the hub");
        below.split(['/', '.']).next().expect("a path has a first part").to_owned()
    };
    let mut files = sources("hub/src");
    // Tests build whatever they need.
    files.retain(|(name, _)| !name.contains("/tests/") && !name.ends_with("/tests.rs"));
    for (_, code) in &mut files {
        let tests = code.iter().position(|line| line.starts_with("mod tests {"));
        code.truncate(tests.unwrap_or(code.len()));
    }
    for (name, _) in &files {
        let room = room_of(name);
        assert!(room == "lib" || HUB.iter().any(|row| row.contains(&room.as_str())), "{name} is in no room's row");
    }
    for (i, row) in HUB.iter().enumerate() {
        let of_row: Vec<_> = files.iter().filter(|(name, _)| row.contains(&room_of(name).as_str())).cloned().collect();
        assert!(!of_row.is_empty(), "no files of {row:?}");
        for upper in HUB[i + 1..].iter().copied().flatten() {
            assert_eq!(naming(&of_row, &format!("crate::{upper}")), [""; 0], "{row:?} names {upper}");
        }
        // Or what they name could not be seen here.
        assert_eq!(naming(&of_row, "crate::{"), [""; 0], "a line for each room");
    }
}

#[test]
fn the_brain_and_the_warnings_format_know_nothing_of_who_asks() {
    for room in ["node/src/brain", "node/src/cap"] {
        let files = sources(room);
        for upper in ["crate::api", "crate::cli"] {
            assert_eq!(naming(&files, upper), [""; 0], "{room} names {upper}");
        }
    }
}

#[test]
fn the_command_line_is_nobodys_library_and_whoever_tells_of_a_node_needs_no_api() {
    let mut all = sources("node/src");
    all.retain(|(name, _)| !name.starts_with("node/src/cli"));
    assert_eq!(naming(&all, "crate::cli"), [""; 0], "the client of the API is `ask`");
    all.retain(|(name, _)| {
        ["ctx", "turns", "codes", "files", "announce", "doctor", "webhook"]
            .iter()
            .any(|room| name.starts_with(&format!("node/src/{room}")))
    });
    assert!(all.len() >= 7, "{}", all.len());
    assert_eq!(naming(&all, "crate::api"), [""; 0]);
}

#[test]
fn the_language_has_no_clock_no_files_and_no_async() {
    let shared = sources("shared/src");
    for word in ["tokio::", "std::fs", "std::net::Tcp", "SystemTime", "Instant::", "Utc::now"] {
        assert_eq!(naming(&shared, word), [""; 0], "shared names {word}");
    }
}

#[test]
fn sled_and_rumqttc_are_named_where_they_are_owned() {
    let mut all = sources("hub/src");
    all.extend(sources("node/src"));
    assert_eq!(naming(&all, "sled::"), ["hub/src/store/table.rs"]);
    assert_eq!(
        naming(&all, "rumqttc::"),
        ["hub/src/broker.rs", "hub/src/door/outside/client.rs", "hub/src/link/pipe.rs"]
    );
}

#[test]
fn protocol_and_state_are_pure() {
    let hub = sources("hub/src");
    let pure = ["hub/src/protocol/", "hub/src/link/handshake/", "hub/src/link/sender.rs", "hub/src/state/"];
    let pure: Vec<_> = hub.into_iter().filter(|(name, _)| pure.iter().any(|p| name.starts_with(p))).collect();
    assert!(pure.len() >= 6, "{}", pure.len());
    for word in ["tokio::", "SystemTime", "Instant::", "Utc::now", "getrandom", "std::fs"] {
        assert_eq!(naming(&pure, word), [""; 0], "a pure module names {word}");
    }
}
