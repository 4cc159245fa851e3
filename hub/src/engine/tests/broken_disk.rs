//! A disk that fails and comes back, below a whole engine.

use super::*;
use crate::log::Faulty;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn on_faulty(dir: &Path) -> (Node, Arc<Faulty>) {
    let disk = Arc::new(Faulty::default());
    let text = format!("[node]\naddress = \"c\"\ndata = \"{}\"\n", dir.display());
    let config: Config = toml::from_str(&text).unwrap();
    let (hub, engine, _) = super::super::open::open_on(&config, crate::policy::none(), disk.clone()).unwrap();
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
