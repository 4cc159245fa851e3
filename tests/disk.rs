//! What a kill, a power cut, a careless hand or a restored backup leaves on a disk.

use crate::harness::mqtt::{Client, publish_all};
use crate::harness::ran::run;
use crate::harness::{Node, Record, Sent, Tree, copy_folder, wait_for, written_bytes};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LEAF: &str = "c/s/m/n";

fn segments(node: &Node) -> Vec<PathBuf> {
    let all = std::fs::read_dir(node.data.join("log")).expect("the log's folder can be read");
    let mut found: Vec<PathBuf> =
        all.map(|e| e.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
    found.sort();
    found
}

/// Changes a byte of the first place where `text` stands.
fn flip(path: &Path, text: &[u8]) {
    let mut bytes = std::fs::read(path).expect("the file is read");
    let at = bytes.windows(text.len()).position(|w| w == text).expect("it stands there");
    bytes[at] ^= 0x55;
    std::fs::write(path, bytes).expect("the file is written");
}

/// Takes so many bytes from its end.
fn cut(segment: &Path, bytes: usize) {
    let file = std::fs::File::options().write(true).open(segment).expect("it opens");
    file.set_len((written_bytes(segment) - bytes) as u64).expect("it is cut");
}

fn flip_middle(path: &Path) {
    let middle = written_bytes(path) / 2;
    let mut bytes = std::fs::read(path).expect("the file is read");
    bytes[middle] ^= 0x55;
    std::fs::write(path, bytes).expect("the file is written");
}

fn publish(tree: &Tree, prefix: &str, n: usize) -> Vec<Sent> {
    publish_all(LEAF, tree.node(LEAF).mqtt, prefix, n, false)
}

#[test]
fn a_damaged_or_deleted_state_is_rebuilt_aloud_and_nothing_is_lost_or_doubled() {
    let mut tree = Tree::new(&[LEAF]);
    tree.start();
    let mut sent = publish(&tree, "first", 300);
    tree.wait_all_up(&sent);
    type Harm = fn(&Path);
    let harm: [(&str, Harm); 4] = [
        ("deleted", |data| std::fs::remove_dir_all(data.join("state")).expect("it is removed")),
        ("flipped", |data| flip_middle(&data.join("state/db"))),
        ("cut", |data| {
            let file = std::fs::File::options().write(true).open(data.join("state/db")).expect("sled's file");
            let len = file.metadata().expect("its size").len();
            file.set_len(len / 2).expect("it is cut");
        }),
        ("emptied", |data| std::fs::write(data.join("state/db"), b"").expect("it is written")),
    ];
    for (what, harm) in harm {
        for victim in [LEAF, "c/s/m", "c"] {
            tree.kill9(victim);
            harm(&tree.node(victim).data);
            tree.start_node(victim);
        }
        tree.wait_ready();
        sent.extend(publish(&tree, what, 100));
        tree.wait_all_up(&sent);
    }
    assert!(tree.node("c").output().contains("The state was rebuilt"), "the log says so");
}

#[test]
fn a_torn_write_at_the_end_of_the_log_is_cut_and_the_rest_goes_on() {
    let mut tree = Tree::new(&[LEAF]);
    tree.start();
    let mut sent = publish(&tree, "first", 200);
    tree.wait_all_up(&sent);
    for (round, garbage) in [b"torn".as_slice(), &[0u8; 5000], &[0xff; 100]].into_iter().enumerate() {
        for victim in [LEAF, "c/s"] {
            tree.kill9(victim);
            let newest = segments(tree.node(victim)).pop().expect("a segment");
            let mut bytes = std::fs::read(&newest).expect("it is read");
            bytes.extend_from_slice(garbage);
            std::fs::write(&newest, bytes).expect("it is written");
            tree.start_node(victim);
        }
        tree.wait_ready();
        sent.extend(publish(&tree, &format!("torn{round}"), 50));
        tree.wait_all_up(&sent);
    }
}

#[test]
fn a_flipped_byte_in_the_log_is_reported_with_its_place_and_the_rest_stays() {
    let mut tree = Tree::new(&[LEAF]);
    tree.start();
    let sent = publish(&tree, "first", 300);
    tree.wait_all_up(&sent);
    // So that the damage is not in the last commit, where it cannot be told from an unfinished write.
    tree.wait_all_up(&publish(&tree, "later", 10));
    tree.stop_node("c");
    let oldest = segments(tree.node("c")).remove(0);
    flip(&oldest, b"first-000150");
    let dir = tree.node("c").data.display().to_string();
    run(&["doctor", "--offline", &dir]).says(1, &["log-damage", "BAD", "of the log do not read"]);
    tree.start_node("c");
    tree.wait_ready();
    let report = tree.node("c").output();
    assert!(report.contains("The log is damaged") && report.contains(".log"), "{report}");
    let after = publish(&tree, "after", 100);
    wait_for("what comes after the damage arrives", || {
        let records = tree.node("c").records();
        (records.iter().filter(|r| r.id.starts_with("after")).count() == after.len()).then_some(())
    });
    let there: Vec<String> =
        tree.node("c").records().into_iter().map(|r| r.id).filter(|id| id.starts_with("first")).collect();
    let all_but: Vec<String> = sent.into_iter().map(|s| s.id).filter(|id| id != "first-000150").collect();
    assert_eq!(there, all_but, "all but what stood in the damaged place is there");
    // The tiers below have it whole.
    assert_eq!(tree.node("c/s").records().iter().filter(|r| r.id.starts_with("first")).count(), 300);
}

#[test]
fn a_neighbourhood_restored_from_a_backup_loses_and_doubles_nothing_that_was_acknowledged() {
    let mut tree = Tree::new(&[LEAF]);
    tree.start();
    let mut sent = publish(&tree, "before", 200);
    tree.wait_all_up(&sent);
    tree.stop_node(LEAF);
    let backup = tree.dir().join("backup");
    copy_folder(&tree.node(LEAF).data, &backup);
    tree.start_node(LEAF);
    let gone = publish(&tree, "between", 200);
    tree.wait_all_up(&gone);
    tree.kill9(LEAF);
    tree.lose_disk(LEAF);
    copy_folder(&backup, &tree.node(LEAF).data);
    tree.start_node(LEAF);
    // These get positions that the parent knows as other events'.
    sent.extend(publish(&tree, "new", 300));
    tree.wait_all_up(&sent);
    for above in ["c/s/m", "c/s", "c"] {
        let between = tree.node(above).records().iter().filter(|r| r.id.starts_with("between")).count();
        assert_eq!(between, 200, "{above} keeps what the restored node has forgotten");
    }
}

#[test]
fn a_community_restored_from_a_backup_is_healed_from_below_and_known_above() {
    let middle = "c/s/m";
    let mut tree = Tree::new(&[LEAF]);
    tree.start();
    let mut sent = publish(&tree, "before", 200);
    tree.wait_all_up(&sent);
    tree.stop_node(middle);
    let backup = tree.dir().join("backup");
    copy_folder(&tree.node(middle).data, &backup);
    tree.start_node(middle);
    sent.extend(publish(&tree, "between", 200));
    tree.wait_all_up(&sent);
    tree.kill9(middle);
    tree.lose_disk(middle);
    copy_folder(&backup, &tree.node(middle).data);
    tree.start_node(middle);
    sent.extend(publish(&tree, "new", 200));
    // All of them at every tier, also what the restored node had forgotten.
    tree.wait_all_up(&sent);
}

#[test]
fn a_box_restored_from_a_backup_does_not_give_its_devices_again_the_commands_since_then() {
    let mut tree = Tree::new(&[LEAF]);
    tree.start();
    tree.wait_linked();
    let open = |tree: &Tree, n: u64| {
        let command = json!({"target": LEAF, "type": "city.valve.open", "directive": "command", "data": {"n": n}});
        let (status, sent) = tree.node("c").post("/v1/send", &command);
        assert_eq!(status, 202, "{sent}");
        let id = sent["id"].as_str().expect("an id").to_owned();
        wait_for("the box has it", || {
            (tree.node("c").get(&format!("/v1/directives/{id}"))?["delivered"] == 1).then_some(())
        });
    };
    let valve = |tree: &Tree| Client::connect(tree.node(LEAF).mqtt, "valve", false);
    let done_by = |valve: &mut Client| {
        let command = valve.next_message(Duration::from_secs(30)).expect("a command");
        serde_json::from_slice::<Value>(&command.payload).expect("JSON")["data"]["n"].as_u64()
    };
    let mut before = valve(&tree);
    before.subscribe("cmd/#", 1);
    open(&tree, 1);
    assert_eq!(done_by(&mut before), Some(1));
    tree.back_up(LEAF);
    for n in 2..4 {
        open(&tree, n);
        assert_eq!(done_by(&mut before), Some(n));
    }
    tree.kill9(LEAF);
    tree.restore(LEAF);
    tree.start_node(LEAF);
    tree.wait_ready();
    open(&tree, 4);
    let mut after = valve(&tree);
    // The backup may be from before the first was acknowledged.
    let next = Some(done_by(&mut after)).filter(|n| *n != Some(1)).unwrap_or_else(|| done_by(&mut after));
    assert_eq!(next, Some(4));
}

#[test]
fn old_segments_go_only_after_everybody_has_them() {
    let store = "[store]\nsegment_bytes = 1048576\nlog_bytes_max = 2097152\nkeep_s = 0\nsnapshot_records = 1000\nfree_bytes_min = 2000000\n";
    let mut tree = Tree::with_store(&[LEAF], store);
    tree.start();
    tree.stop_node("c/s/m");
    let mut sent = publish(&tree, "cut", 12_000);
    let before = segments(tree.node(LEAF)).len();
    assert!(before > 2, "{before} segments");
    tree.start_node("c/s/m");
    wait_for("the city has all", || {
        let there = tree.node("c").get("/v1/status")?["counters"]["received_up"].as_u64()?;
        (there >= 12_000).then_some(())
    });
    // The log goes back to the older of two snapshots: with more events come further ones.
    let mut round = 0;
    wait_for("old segments are gone at the neighbourhood", || {
        round += 1;
        sent.extend(publish(&tree, &format!("more{round:04}"), 500));
        (segments(tree.node(LEAF)).first().is_some_and(|p| !p.ends_with("00000000000000000001.log"))).then_some(())
    });
    // A start from what is left goes on where it was.
    tree.kill9(LEAF);
    tree.start_node(LEAF);
    tree.wait_ready();
    sent.extend(publish(&tree, "last", 100));
    wait_for("the city has these too", || {
        let there = tree.node("c").get("/v1/status")?["counters"]["received_up"].as_u64()?;
        (there >= sent.len() as u64).then_some(())
    });
    // The tiers above trim as well, so what the city got is counted by number: its own counters are a
    // fold over all that it ever committed, and a repeated event would not be counted as received.
    let counters = tree.node("c").get("/v1/status").expect("the city answers")["counters"].clone();
    assert_eq!(counters["lost"], 0, "{counters}");
    let kept = tree.node("c").records();
    check_order(&kept, &sent);
}

#[test]
fn a_log_that_has_filled_the_disk_is_sent_on_and_trimmed_when_the_line_is_back() {
    let store = "[store]\nsegment_bytes = 1048576\nlog_bytes_max = 2097152\nkeep_s = 0\nsnapshot_records = 1000\nfree_bytes_min = 2000000\n";
    let mut tree = Tree::with_store(&[LEAF], store);
    tree.start();
    tree.stop_node("c/s/m");
    let sent = publish(&tree, "cut", 12_000);
    tree.stop_node(LEAF);
    // As if it had filled the disk: two thirds of what must be free are. Below a half it would take less, and
    // others write to this disk, too.
    let disk = rustix::fs::statvfs(tree.dir()).expect("the disk is known");
    let more = disk.f_bavail * disk.f_frsize / 2 * 3;
    tree.edit(LEAF, |text| text.replace("free_bytes_min = 2000000", &format!("free_bytes_min = {more}")));
    tree.start_node("c/s/m");
    tree.start_node(LEAF);
    wait_for("the city has all", || {
        let there = tree.node("c").get("/v1/status")?["counters"]["received_up"].as_u64()?;
        (there >= sent.len() as u64).then_some(())
    });
    wait_for("old segments are gone at the neighbourhood", || {
        (segments(tree.node(LEAF)).first().is_some_and(|p| !p.ends_with("00000000000000000001.log"))).then_some(())
    });
    let node = tree.node(LEAF);
    run(&["why", "--node", &node.url()]).says(1, &["disk-low", "less than store.free_bytes_min"]);
    let mut device = Client::connect(node.mqtt, "device", true);
    assert!(!device.publish("in/x", br#"{"specversion":"1.0","id":"new","source":"/x","type":"city.test"}"#));
}

/// What of `sent` is still kept is kept once, in order, up to the newest.
fn check_order(kept: &[Record], sent: &[Sent]) {
    let kept: Vec<&str> = kept.iter().filter(|r| r.event_type == "city.test").map(|r| r.id.as_str()).collect();
    let all: Vec<&str> = sent.iter().map(|s| s.id.as_str()).collect();
    assert!(!kept.is_empty());
    assert_eq!(kept, all[all.len() - kept.len()..]);
}

#[test]
fn a_state_that_is_gone_with_its_snapshots_is_folded_anew_and_its_counters_are_true() {
    let store = "[store]\nsnapshot_records = 1000\nfree_bytes_min = 2000000\n";
    let mut tree = Tree::with_store(&[LEAF], store);
    tree.start();
    let mut sent = publish(&tree, "first", 2_500);
    tree.wait_all_up(&sent);
    let mut device = Client::connect(tree.node(LEAF).mqtt, "device", true);
    assert!(device.publish("in/x", b"rubbish"));
    let counters = |tree: &Tree, at: &str| {
        let status = tree.node(at).get("/v1/status")?;
        let named = |k: &str| status["counters"][k].as_u64();
        let all: Option<Vec<u64>> =
            ["accepted", "received_up", "dead_letters", "receipts", "lost"].into_iter().map(named).collect();
        Some((all?, status["dead_letters_open"].as_u64()?))
    };
    for victim in [LEAF, "c/s/m", "c"] {
        let data = tree.node(victim).data.clone();
        // It is written beside the commits, and takes its time.
        wait_for(&format!("{victim} makes a snapshot"), || {
            data.join("snapshots").read_dir().ok()?.flatten().find(|f| f.path().extension() != Some("tmp".as_ref()))
        });
        let before = counters(&tree, victim).expect("it answers");
        tree.stop_node(victim);
        std::fs::remove_dir_all(data.join("snapshots")).expect("it is removed");
        std::fs::remove_dir_all(data.join("state")).expect("it is removed");
        tree.start_node(victim);
        tree.wait_ready();
        let after = counters(&tree, victim).expect("it answers");
        // A start says once more who the node is, which is an event that began here.
        assert_eq!((after.0[0], &after.0[2..], after.1), (before.0[0] + 1, &before.0[2..], before.1), "{victim}");
        assert!(after.0[1] >= before.0[1], "{victim}: {after:?} {before:?}");
    }
    sent.extend(publish(&tree, "after", 200));
    tree.wait_all_up(&sent);
}

#[test]
fn a_log_that_lost_its_end_goes_on_under_a_new_name_and_is_healed_from_below() {
    let mut tree = Tree::new(&[LEAF]);
    tree.start();
    let mut sent = publish(&tree, "first", 300);
    tree.wait_all_up(&sent);
    // At the city what was cut comes again from below; it was on its disk, so this is no torn write.
    for (round, gone) in [700, 20_000].into_iter().enumerate() {
        tree.stop_node("c");
        let newest = segments(tree.node("c")).pop().expect("a segment");
        cut(&newest, gone);
        let dir = tree.node("c").data.display().to_string();
        run(&["store", "verify", &dir]).says(1, &["the log has lost records", "store restore BACKUP"]);
        run(&["status", "--offline", &dir]).says(1, &["the log has lost its end: the state knows of records"]);
        run(&["doctor", "--offline", &dir]).says(1, &["BAD   the log has lost its end: records"]);
        tree.start_node("c");
        tree.wait_ready();
        run(&["doctor", "--node", &tree.node("c").url()]).says(1, &["BAD   the log has lost its end: records"]);
        assert!(tree.node("c").output().contains("durable are gone from the log's end"), "it says so");
        sent.extend(publish(&tree, &format!("city{round}"), 100));
        tree.wait_all_up(&sent);
    }
    // At the neighbourhood it is gone there, and stays above; nothing new is taken for what was cut.
    tree.kill9(LEAF);
    let newest = segments(tree.node(LEAF)).pop().expect("a segment");
    cut(&newest, 10_000);
    tree.start_node(LEAF);
    tree.wait_ready();
    let new = publish(&tree, "new", 300);
    tree.wait_all_up(&new);
    for above in ["c/s/m", "c/s", "c"] {
        let records = tree.node(above).records();
        let there = records.iter().filter(|r| r.event_type == "city.test").count();
        assert_eq!(there, sent.len() + new.len(), "{above} has what was cut below, and the new");
    }
}

#[test]
fn a_city_with_an_old_or_empty_disk_reaches_its_streets_in_the_first_session_with_it() {
    let mut tree = Tree::new(&["c/s"]);
    tree.start();
    let lease = |tree: &Tree| {
        let links = tree.node("c").get("/v1/links")?;
        let street = links["links"].as_array()?.iter().find(|l| l["peer"] == "c/s" && l["state"] == "up")?.clone();
        street["lease"].as_u64()
    };
    let backup = tree.dir().join("backup");
    for old in [None, Some(&backup)] {
        wait_for("the street has a session", || lease(&tree));
        if old.is_some() {
            tree.stop_node("c");
            copy_folder(&tree.node("c").data, &backup);
            tree.start_node("c");
            tree.wait_ready();
        }
        // Each session has a lease of its own.
        let mut before = wait_for("the street has a session", || lease(&tree));
        for _ in 0..6 {
            tree.kill9("c/s");
            tree.start_node("c/s");
            before = wait_for("the next one", || lease(&tree).filter(|lease| *lease > before));
        }
        tree.kill9("c");
        tree.lose_disk("c");
        if let Some(backup) = old {
            copy_folder(backup, &tree.node("c").data);
        }
        tree.start_node("c");
        let begun = wait_for("the street has a session with the new disk", || lease(&tree));
        let notice = serde_json::json!({"target": "c/s", "type": "city.notice", "directive": "notice"});
        let (status, sent) = tree.node("c").post("/v1/send", &notice);
        assert_eq!(status, 202, "{sent}");
        let id = sent["id"].as_str().expect("an id");
        wait_for("the street has it", || {
            (tree.node("c").get(&format!("/v1/directives/{id}"))?["delivered"] == 1).then_some(())
        });
        // Where the street takes no frame of a session, the city ends it after ten seconds and grants the next.
        let last = wait_for("the session goes on", || lease(&tree));
        assert!(last <= begun + 1 && last < before, "{begun} to {last}, and {before} before");
    }
}
