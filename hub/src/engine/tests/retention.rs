//! What of the log goes, and when.

use super::*;
use std::time::{Duration, Instant};

#[test]
fn a_log_of_few_and_large_records_is_kept_to_its_size() {
    const LOG_BYTES_MAX: u64 = 512 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[node]\naddress = \"c\"\ndata = \"{}\"\n[store]\nsegment_bytes = 65536\nlog_bytes_max = {LOG_BYTES_MAX}\n",
        dir.path().display()
    );
    let config: Config = toml::from_str(&text).unwrap();
    let (hub, engine, _) = open(&config, crate::policy::none()).unwrap();
    let node = Node { hub, thread: Some(std::thread::spawn(|| engine.run())), config };
    let large = format!(r#","data":"{}""#, "x".repeat(20_000));
    let (mut n, deadline) = (0, Instant::now() + Duration::from_secs(60));
    // Far fewer records than a snapshot is made for.
    while node.hub.reader().first() == Pos(1) {
        assert!(Instant::now() < deadline, "nothing was trimmed: {:?}", node.hub.house());
        if node.hub.house().log_bytes < 32 * LOG_BYTES_MAX {
            node.offer(&event(&n.to_string(), &large));
            n += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    node.close();
    let node = Node::open(dir.path(), "c");
    node.offer(&event("after", ""));
    node.close();
}

#[test]
fn who_is_no_child_of_this_node_does_not_hold_its_log() {
    let mut state = State::default();
    state.address = Some(Address::parse("c/new").unwrap());
    state.applied = Pos(100);
    let peer = |upto| {
        let cursor = Some(Cursor { log: citybrain_shared::LogId(1), upto: Pos(upto), chain: 0 });
        crate::state::Peer { lease: 1, peer_has: [cursor; 2], ..Default::default() }
    };
    // Below the address that the folder had before.
    state.peers.insert(Address::parse("c/old/m").unwrap(), peer(5));
    state.peers.insert(Address::parse("c/new/m").unwrap(), peer(40));
    assert_eq!(needed(&state, None), (Pos(41), "c/new/m (urgent)".into()));
}

#[test]
fn a_retired_child_holds_the_log_no_more_until_it_is_heard_of_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c");
    let (me, child) = (Address::parse("c").unwrap(), Address::parse("c/s").unwrap());
    let party = Party { inc: Inc(7), boot: Boot::default() };
    let say = |draft| run(async { wait(node.hub.offer(vec![draft]).await?).await }).unwrap();
    let about = |address: &str| Presence {
        address: Address::parse(address).unwrap(),
        name: "x".into(),
        code: None,
        labels: Default::default(),
        inc: Inc(1),
        version: "0".into(),
    };
    say(presence(&about("c"), Boot::default()));
    node.note(vec![Note::Granted { child: child.clone(), party, lease: 1 }]);
    assert_eq!(node.hub.state(|s| needed(s, None)), (Pos(1), "c/s (urgent)".into()));
    // A word on somebody else's child counts for nothing.
    say(subtree(&me, &Address::parse("c/s/m").unwrap(), true, "b"));
    assert_eq!(node.hub.state(|s| needed(s, None).0), Pos(1));
    say(subtree(&me, &child, true, "c"));
    assert_eq!(node.hub.state(|s| needed(s, None).1), "nobody");
    // What it sends on under its old grant is not heard; it has to say hello.
    let head = FrameHead {
        from: party,
        lease: 1,
        log: citybrain_shared::LogId(1),
        lane: Lane::Urgent,
        after: Pos::ZERO,
        upto: Pos(1),
        after_chain: 0,
        upto_chain: 1,
        records: 0,
    };
    let frame = FrameBuilder::default().finish(head, |_| None);
    assert!(matches!(node.receive("c/s", frame), Received::Refuse(_)));
    node.note(vec![Note::Granted { child, party, lease: 2 }]);
    assert_eq!(node.hub.state(|s| needed(s, None)), (Pos(1), "c/s (urgent)".into()));
    node.close();
}
