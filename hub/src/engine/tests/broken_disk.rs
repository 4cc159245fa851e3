//! A disk that fails and comes back, below a whole engine.

use super::*;
use crate::engine::upkeep::Lent;
use crate::log::Faulty;
use crate::note::{DeadLetter, LastWill};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn on_faulty(dir: &Path) -> (Node, Arc<Faulty>) {
    on_faulty_with(dir, "")
}

fn on_faulty_with(dir: &Path, store: &str) -> (Node, Arc<Faulty>) {
    on_faulty_where(dir, store, |_| ())
}

/// `change`: something about the engine before it runs.
fn on_faulty_where(dir: &Path, store: &str, change: impl FnOnce(&mut Engine)) -> (Node, Arc<Faulty>) {
    let disk = Arc::new(Faulty::default());
    let text = format!("[node]\naddress = \"c\"\ndata = \"{}\"\n[store]\n{store}", dir.display());
    let config: Config = toml::from_str(&text).unwrap();
    let (hub, mut engine, _) = super::super::open::open_on(&config, crate::policy::none(), disk.clone()).unwrap();
    change(&mut engine);
    (Node { hub, thread: Some(std::thread::spawn(|| engine.run())), config }, disk)
}

fn try_offer(node: &Node, id: &str) -> Result<Outcome, Error> {
    let draft = Ingress::new(&node.config).accept(event(id, "").as_bytes()).unwrap();
    Ok(run(async { wait(node.hub.offer(vec![draft]).await?).await })?[0])
}

fn lazily(node: &Node, note: Note) -> Result<(), Error> {
    run(async { wait(node.hub.note(vec![note], Haste::Lazy).await?).await })
}

fn opened(client: &str) -> Note {
    Note::SessionOpened { client: client.into(), user: String::new(), version: 5, expiry_s: 60, clean: true }
}

/// Until the node takes an event again.
fn healed(node: &Node, id: &str) -> Pos {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match try_offer(node, id) {
            Ok(Outcome::Committed(pos)) => return pos,
            Err(Error::Unwritable(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn notes_that_were_written_and_not_synced_when_the_disk_failed_are_there_when_it_is_back() {
    for fail_write in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (node, disk) = on_faulty(dir.path());
        assert!(matches!(try_offer(&node, "before"), Ok(Outcome::Committed(_))));
        disk.fail_sync(0);
        // A lazy note needs no sync; whichever comes first fails, the offer's or the note's own later.
        lazily(&node, opened("app")).unwrap();
        assert!(matches!(try_offer(&node, "refused"), Err(Error::Unwritable(_))));
        if fail_write {
            disk.fail_write(0, std::io::ErrorKind::StorageFull);
        }
        assert!(matches!(try_offer(&node, "refused"), Err(Error::Unwritable(_))));
        disk.heal();
        let pos = healed(&node, "after");
        assert_eq!(node.hub.trouble(), None);
        assert!(node.hub.state(|s| s.applied >= pos && s.sessions.contains_key("app")), "its ticket said written");
        assert_eq!(node.events().len(), 2, "what was refused is not there");
        assert_eq!(try_offer(&node, "before").unwrap(), Outcome::Duplicate(Pos(3)));
        node.close();
        let node = Node::open(dir.path(), "c");
        assert!(node.hub.state(|s| s.sessions.contains_key("app")));
        assert_eq!(node.events().len(), 2);
        node.close();
    }
}

#[test]
fn a_disk_that_fails_in_any_step_costs_nothing_that_was_told() {
    for step in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let (node, disk) = on_faulty(dir.path());
        let mut told = Vec::new();
        if step % 2 == 0 {
            disk.fail_sync(step / 2)
        } else {
            disk.fail_write(step / 2, std::io::ErrorKind::Other)
        }
        for n in 0..8 {
            let client = format!("app-{n}");
            if lazily(&node, opened(&client)).is_ok() {
                told.push(client);
            }
            let id = n.to_string();
            if try_offer(&node, &id).is_ok() {
                told.push(id);
            }
        }
        disk.heal();
        healed(&node, "last");
        let check = |node: &Node| {
            for what in &told {
                let is_there = match what.strip_prefix("app-") {
                    Some(_) => node.hub.state(|s| s.sessions.contains_key(what)),
                    None => matches!(try_offer(node, what), Ok(Outcome::Duplicate(_))),
                };
                assert!(is_there, "{what} is gone, step {step}");
            }
        };
        check(&node);
        node.close();
        let node = Node::open(dir.path(), "c");
        check(&node);
        node.close();
    }
}

#[test]
fn a_state_that_cannot_be_read_back_says_what_the_operating_system_says() {
    let dir = tempfile::tempdir().unwrap();
    let (node, disk) = on_faulty(dir.path());
    assert!(matches!(try_offer(&node, "before"), Ok(Outcome::Committed(_))));
    // The store would be made anew, and has no room for its first file.
    std::fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    std::fs::create_dir(dir.path().join("state")).unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("state/conf")).unwrap();
    disk.fail_sync(0);
    assert!(matches!(try_offer(&node, "refused"), Err(Error::Unwritable(_))));
    disk.heal();
    wait_for("it names the reason", || {
        node.hub.trouble().is_some_and(|why| why.to_string().contains("state`: No space left on device"))
    });
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    healed(&node, "after");
    node.close();
}

fn newest_segment(dir: &Path) -> PathBuf {
    let logs = std::fs::read_dir(dir.join("log")).unwrap().map(|e| e.unwrap().path());
    logs.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap()
}

#[test]
fn an_event_is_not_taken_for_new_because_the_log_does_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c");
    let Outcome::Committed(pos) = node.offer(&event("1", "")) else { panic!("it is new") };
    node.close();
    // Nothing of it is in memory now but the index.
    let node = Node::open(dir.path(), "c");
    let (path, aside) = (newest_segment(dir.path()), dir.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap(); // opens, and does not read
    assert!(matches!(try_offer(&node, "1"), Err(Error::Unwritable(_))));
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(try_offer(&node, "1").unwrap(), Outcome::Duplicate(pos));
    // The record itself damaged: its key is known all the same.
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|w| w == b"city.test").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(try_offer(&node, "1").unwrap(), Outcome::Duplicate(pos));
    node.close();
}

/// Until it is so, or 20 s have passed.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const MIN: u64 = 64 << 20;

/// A node that holds its log for a child that is away, until the disk has no room left.
fn filled_up(dir: &Path) -> (Node, Arc<Faulty>, Pos) {
    let (node, disk) = on_faulty_with(dir, "segment_bytes = 65536\nlog_bytes_max = 131072\nkeep_s = 0\n");
    let about = Presence {
        address: Address::parse("c").unwrap(),
        name: "x".into(),
        code: None,
        labels: Default::default(),
        inc: Inc(1),
        version: "0".into(),
    };
    run(async { wait(node.hub.offer(vec![presence(&about, Boot::default())]).await?).await }).unwrap();
    node.note(vec![granted(1)]);
    disk.set_free(4 * MIN);
    let large = format!(r#","data":"{}""#, "x".repeat(20_000));
    for n in 0..20 {
        node.offer(&event(&n.to_string(), &large));
    }
    disk.set_free(MIN / 2);
    wait_for("it says that it is short", || {
        node.hub.trouble().is_some_and(|why| why.to_string().contains("free_bytes_min"))
    });
    assert!(matches!(try_offer(&node, "new"), Err(Error::Unwritable(_))));
    let last = node.hub.reader().last();
    (node, disk, last)
}

fn granted(lease: u64) -> Note {
    Note::Granted { child: child(), party: Party { inc: Inc(7), boot: Boot::default() }, lease }
}

fn child() -> Address {
    Address::parse("c/s").unwrap()
}

fn has(lane: Lane, upto: Pos) -> Note {
    let cursor = Cursor { log: citybrain_shared::LogId(1), upto, chain: 0 };
    Note::PeerHas { peer: child(), inc: Inc(7), lane, cursor }
}

#[test]
fn a_log_that_has_filled_the_disk_goes_once_the_child_that_it_was_held_for_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (node, disk, last) = filled_up(dir.path());
    assert_eq!(node.hub.reader().first(), Pos(1));
    // A new session, and what was sent in it.
    node.note(vec![granted(2)]);
    node.note(Lane::ALL.map(|lane| has(lane, last)).into());
    // No second snapshot will ever be made: nothing comes in.
    wait_for("what it has is gone here", || node.hub.reader().first() > Pos(1) && node.hub.house().log_segments == 1);
    disk.set_free(4 * MIN);
    healed(&node, "after");
    node.close();
    let node = Node::open(dir.path(), "c");
    assert!(node.hub.state(|s| s.peers[&child()].lease == 2));
    node.close();
}

#[test]
fn a_child_that_is_gone_for_good_can_be_retired_on_a_disk_without_room() {
    let dir = tempfile::tempdir().unwrap();
    let (node, disk, _) = filled_up(dir.path());
    let me = Address::parse("c").unwrap();
    let act = crate::operator::Act::claimed("root", "enrol retire", "c/s", String::new(), "here");
    let say = |draft| run(async { wait(node.hub.offer(vec![draft]).await?).await });
    say(crate::operator::draft(&me, &act)).unwrap();
    say(subtree(&me, &child(), true, "gone")).unwrap();
    wait_for("what was held for it is gone", || node.hub.reader().first() > Pos(1));
    // The rest of the room is for a start and a snapshot.
    disk.set_free(MIN / 8);
    wait_for("it says so", || node.hub.trouble().is_some_and(|why| why.to_string().contains("a quarter of")));
    assert!(matches!(lazily(&node, opened("app")), Err(Error::Unwritable(_))));
    node.close();
}

#[test]
fn a_client_that_completes_what_it_sent_is_heard_on_a_disk_without_room() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _disk, last) = filled_up(dir.path());
    let offer = |note: Note| run(async { wait(node.hub.offer(vec![note.draft()]).await?).await });
    let client = || "app".to_owned();
    // As the door says it: between publishes, in their order.
    let held = offer(Note::Qos2Held { client: client(), id: 7, print: 1 });
    assert!(matches!(held, Err(Error::Unwritable(_))), "it stands for something new");
    offer(Note::Qos2Released { client: client(), id: 7 }).unwrap();
    assert!(node.hub.reader().last() > last);
    node.close();
}

#[test]
fn clients_that_come_and_go_on_a_disk_without_room_leave_what_the_childs_return_needs() {
    let dir = tempfile::tempdir().unwrap();
    let (node, disk, last) = filled_up(dir.path());
    // Whoever sleeps may come for what is kept for it.
    lazily(&node, opened("app")).unwrap();
    disk.set_free(MIN / 3);
    wait_for("it says so", || node.hub.trouble().is_some_and(|why| why.to_string().contains("half of")));
    let will = LastWill {
        user: String::new(),
        topic: "t".into(),
        payload: Vec::new(),
        qos: 0,
        retain: false,
        delay_s: 0,
        properties: Vec::new(),
    };
    let came = [
        opened("other"),
        Note::WillSet { client: "other".into(), will },
        Note::DeadLetter(DeadLetter::new("x", "", "", "", b"")),
    ];
    for note in came {
        assert!(matches!(lazily(&node, note), Err(Error::Unwritable(_))));
    }
    let left = Note::SessionLeft { client: "app".into(), expiry_s: 60, given: Pos::ZERO, unsure: Pos::ZERO };
    lazily(&node, left).unwrap();
    node.note(vec![granted(2)]);
    node.note(Lane::ALL.map(|lane| has(lane, last)).into());
    wait_for("what it has is gone here", || node.hub.reader().first() > Pos(1));
    node.close();
}

#[test]
fn a_log_with_a_hole_in_what_the_state_is_made_of_goes_on_under_a_new_name() {
    let dir = tempfile::tempdir().unwrap();
    let harm = || {
        let path = newest_segment(dir.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(6).position(|w| w == b"\"sos-2").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    };
    let histories = |node: &Node| node.hub.state(|s| s.me.epochs.clone());
    let (node, disk) = on_faulty(dir.path());
    node.offer(&event("sos-1", ""));
    node.offer(&event("sos-2", ""));
    // More than the log keeps in memory.
    let large = format!(r#","data":"{}""#, "x".repeat(200_000));
    for n in 0..30 {
        node.offer(&event(&n.to_string(), &large));
    }
    assert_eq!(histories(&node).len(), 1);
    // While it runs: the state is read back after a failure of the disk.
    harm();
    disk.fail_sync(0);
    assert!(try_offer(&node, "refused").is_err());
    disk.heal();
    let pos = healed(&node, "after");
    let epochs = histories(&node);
    assert!(epochs.len() == 2 && epochs[1].first < pos, "{epochs:?} {pos}");
    node.close();
    // At a start.
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    let node = Node::open(dir.path(), "c");
    assert_eq!(histories(&node).len(), 3);
    node.close();
    let node = Node::open(dir.path(), "c");
    assert_eq!(histories(&node).len(), 3, "once for each time that it was passed over");
    node.close();
}

#[test]
fn a_start_that_was_cut_off_after_the_state_had_gone_back_is_followed_by_one_that_knows_why() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c");
    node.offer(&event("1", ""));
    node.offer(&event("2", ""));
    node.close();
    let log = crate::log::open_read_only(&dir.path().join("log")).unwrap().0;
    let (path, bytes) = log.files().remove(0);
    std::fs::File::options().write(true).open(path).unwrap().set_len(bytes - 10).unwrap();
    let text = format!("[node]\naddress = \"c\"\ndata = \"{}\"\n", dir.path().display());
    let config: Config = toml::from_str(&text).unwrap();
    // The log's own write is the first; of the second, the boot's, half is there.
    let disk = Arc::new(Faulty::default());
    disk.fail_write(1, std::io::ErrorKind::Other);
    let failed = super::super::open::open_on(&config, crate::policy::none(), disk).map(drop);
    assert!(matches!(failed, Err(OpenError::FirstCommit(_))));
    let node = Node::open(dir.path(), "c");
    assert_eq!(node.hub.state(|s| s.me.epochs.len()), 2);
    node.close();
    let node = Node::open(dir.path(), "c");
    assert_eq!(node.hub.state(|s| s.me.epochs.len()), 2, "and once is enough");
    node.close();
}

#[test]
fn commits_go_on_while_a_snapshot_is_written_and_nothing_of_them_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("[node]\naddress = \"c\"\ndata = \"{}\"\n", dir.path().display());
    let config: Config = toml::from_str(&text).unwrap();
    let (hub, mut engine, _) = open(&config, crate::policy::none()).unwrap();
    let store = engine.store.take().unwrap();
    let (done, wait_until) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        wait_until.recv().ok();
        Some((store, Ok(())))
    });
    engine.lent = Some(Lent { thread, given_up: Arc::default() });
    let node = Node { hub, thread: Some(std::thread::spawn(|| engine.run())), config };
    let first = Instant::now();
    node.note(vec![opened("app")]);
    // More than one turn of the housekeeping and of what goes to sled.
    while first.elapsed() < Duration::from_secs(3) {
        assert!(matches!(node.offer(&event(&first.elapsed().as_nanos().to_string(), "")), Outcome::Committed(_)));
        std::thread::sleep(Duration::from_millis(100));
    }
    done.send(()).unwrap();
    let rows = node.hub.house().state_rows;
    wait_for("the session is stored", || node.hub.house().state_rows > rows);
    node.close();
    std::fs::write(newest_segment(dir.path()), b"").unwrap();
    let left = crate::store::read(dir.path(), 1 << 20).unwrap();
    assert!(left.rows.iter().any(|(key, _)| key == b"sapp"), "it was in the state's own file");
}

#[test]
fn a_write_that_fails_while_a_snapshot_is_written_ends_the_snapshot_and_leaves_nothing_to_be_seen() {
    let dir = tempfile::tempdir().unwrap();
    let given_up = Arc::new(AtomicBool::new(false));
    let (node, disk) = on_faulty_where(dir.path(), "", |engine| {
        let (store, given_up, until) = (engine.store.take().unwrap(), given_up.clone(), given_up.clone());
        // It would go on for ever.
        let thread = std::thread::spawn(move || {
            wait_for("it is given up", || until.load(Ordering::SeqCst));
            Some((store, Err("it was given up".into())))
        });
        engine.lent = Some(Lent { thread, given_up });
    });
    assert!(matches!(try_offer(&node, "before"), Ok(Outcome::Committed(_))));
    let before = node.hub.state(|s| s.applied);
    assert!(!given_up.load(Ordering::SeqCst));
    disk.fail_sync(0);
    assert!(matches!(try_offer(&node, "refused"), Err(Error::Unwritable(_))));
    assert_eq!(node.hub.state(|s| s.applied), before, "what was refused is not there");
    disk.heal();
    let pos = healed(&node, "after");
    assert!(node.hub.state(|s| s.applied >= pos));
    assert_eq!(node.events().len(), 2);
    node.close();
}

#[test]
fn a_state_that_cannot_be_stored_gives_up_the_ballast_as_a_log_does_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let ballast = dir.path().join("log/ballast");
    let (node, disk) = on_faulty_where(dir.path(), "", |engine| engine.store.as_mut().unwrap().fails = true);
    assert!(ballast.exists());
    // Enough to go on, and not enough for it to be made again.
    disk.set_free(node.config.store.free_bytes_min);
    assert!(matches!(try_offer(&node, "before"), Ok(Outcome::Committed(_))));
    wait_for("the ballast is given up", || !ballast.exists());
    healed(&node, "after");
    assert!(!ballast.exists());
    disk.set_free(2 * node.config.store.free_bytes_min);
    wait_for("the ballast is there again", || ballast.exists());
    node.close();
}

#[test]
fn whoever_looks_ahead_does_not_wait_for_a_sync_and_whoever_looks_sees_what_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (node, disk) = on_faulty(dir.path());
    assert!(matches!(try_offer(&node, "first"), Ok(Outcome::Committed(_))));
    let before = node.hub.state(|s| s.applied);
    let may_sync = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let held = disk.hold_syncs();
        let offered = scope.spawn(|| try_offer(&node, "slow"));
        let deadline = Instant::now() + Duration::from_secs(20);
        // It is in the state, and its sync goes on.
        while !(disk.is_syncing() && node.hub.state_ahead(|s| s.applied) > before) {
            assert!(Instant::now() < deadline, "nothing is synced");
            std::thread::yield_now();
        }
        let looked = scope.spawn(|| (node.hub.state(|s| s.applied), may_sync.load(Ordering::SeqCst)));
        // As long as nothing is on the disk it has seen nothing.
        std::thread::sleep(Duration::from_millis(100));
        assert!(!looked.is_finished());
        may_sync.store(true, Ordering::SeqCst);
        drop(held);
        let (seen, was_synced) = looked.join().unwrap();
        assert!(seen > before && was_synced);
        assert!(matches!(offered.join().unwrap(), Ok(Outcome::Committed(_))));
    });
    node.close();
}
