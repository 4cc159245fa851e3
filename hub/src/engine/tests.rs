//! The engine over a real log in a temporary folder.

mod behind;
mod broken_disk;
mod hostile;
mod retention;
mod too_large;

use super::*;
use crate::door::message::Message;
use crate::door::packet::publish::Properties;
use crate::door::packet::reason;
use crate::door::{Ingress as _, Publish};
use crate::ingress::Ingress;
use crate::meta;
use crate::operator::{self, Act};
use crate::state::Presence;
use citybrain_shared::config::Config;
use citybrain_shared::record::{Direction, Header, Kind};
use citybrain_shared::wire::{Cursor, FrameBuilder, FrameHead, Party};
use citybrain_shared::{Boot, Inc, Lane};
use std::thread::JoinHandle;

struct Node {
    hub: Hub,
    thread: Option<JoinHandle<()>>,
    config: Config,
}

impl Node {
    fn open(dir: &std::path::Path, address: &str) -> Node {
        Node::open_with(dir, address, "")
    }

    /// `more`: TOML behind its own.
    fn open_with(dir: &std::path::Path, address: &str, more: &str) -> Node {
        let parent = if address.contains('/') { "[parent]\nurl = \"mqtt://127.0.0.1:1\"\n" } else { "" };
        let text = format!("[node]\naddress = \"{address}\"\ndata = \"{}\"\n{parent}{more}", dir.display());
        let config: Config = toml::from_str(&text).unwrap();
        let (hub, engine, _) = open(&config, crate::policy::none()).unwrap();
        Node { hub, thread: Some(std::thread::spawn(|| engine.run())), config }
    }

    fn offer(&self, json: &str) -> Outcome {
        let draft = Ingress::new(&self.config).accept(json.as_bytes()).unwrap();
        run(async {
            let ticket = self.hub.offer(vec![draft]).await?;
            wait(ticket).await
        })
        .unwrap()[0]
    }

    /// Retained, of QoS 1.
    fn publish(&self, topic: &str, payload: &[u8]) -> Outcome {
        let mut door = Vec::new();
        assert!(meta::put("dev", None, |out| Properties::default().put_forwarded(out), &mut door));
        let publish = Publish { retain: true, door: &door, ..Publish::plain("dev", topic, payload) };
        let draft = Ingress::new(&self.config).take(&publish).draft.unwrap();
        run(async { wait(self.hub.offer(vec![draft]).await?).await }).unwrap()[0]
    }

    /// What a new subscriber of the topic gets.
    fn retained(&self, topic: &str) -> Option<String> {
        let found = |s: &State| s.retained.get(topic).map(|r| Message::retained(topic, r).whole_payload());
        self.hub.state(found).map(|payload| String::from_utf8(payload).unwrap())
    }

    fn note(&self, notes: Vec<Note>) {
        run(async { wait(self.hub.note(notes, Haste::Now).await?).await }).unwrap();
    }

    fn receive(&self, peer: &str, message: Vec<u8>) -> Received {
        let peer = Address::parse(peer).unwrap();
        run(async { wait(self.hub.receive(peer, Lane::Routine, message.into()).await?).await }).unwrap()
    }

    /// Kinds and names of the events in the log.
    fn events(&self) -> Vec<(Kind, String)> {
        let entries = self.hub.reader().read(Pos::ZERO, None, 10_000, usize::MAX).unwrap();
        let all = entries.iter().map(|e| Header::decode(&e.bytes).unwrap().0);
        all.filter(|h| h.kind.is_event()).map(|h| (h.kind, h.name.to_owned())).collect()
    }

    fn close(mut self) {
        run(self.hub.stop());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn run<T>(f: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(f)
}

fn event(id: &str, more: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/x","type":"city.test"{more}}}"#)
}

#[test]
fn an_event_offered_again_is_committed_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c/s");
    let Outcome::Committed(pos) = node.offer(&event("1", "")) else { panic!("it is new") };
    assert_eq!(node.offer(&event("1", "")), Outcome::Duplicate(pos));
    assert!(matches!(node.offer(&event("2", "")), Outcome::Committed(_)));
    node.close();
    let node = Node::open(dir.path(), "c/s");
    assert_eq!(node.offer(&event("1", "")), Outcome::Duplicate(pos));
    assert_eq!(node.events().len(), 2);
    assert_eq!(node.hub.state(|s| s.me.boot.counter), 2);
    node.close();
}

#[test]
fn a_known_event_that_comes_again_when_its_time_is_over_is_known_and_a_new_one_is_too_late() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c/s");
    let Outcome::Committed(pos) = node.offer(&event("1", "")) else { panic!("it is new") };
    let door = Ingress::new(&node.config).before(node.hub.reader());
    let taken = |id: &str| {
        let over = event(id, r#","expirytime":"2001-01-01T00:00:00Z""#);
        door.take(&Publish { qos: 1, ..Publish::plain("dev", "in/x", over.as_bytes()) })
    };
    let again = taken("1");
    assert_eq!(again.reason, reason::SUCCESS);
    let outcome = run(async { wait(node.hub.offer(vec![again.draft.unwrap()]).await?).await }).unwrap();
    assert_eq!(outcome, [Outcome::Duplicate(pos)]);
    let late = taken("2");
    assert_eq!(late.reason, reason::PAYLOAD_FORMAT);
    assert_eq!(late.draft.unwrap().header().kind, Kind::Note, "a dead letter");
    node.close();
}

#[test]
fn what_was_done_to_a_stopped_folder_is_recorded_once_though_the_file_that_says_so_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let act = |detail: &str| Act::claimed("root@gate", "store restore", detail, "2026-01-01T00:00:00Z".into(), "here");
    let file = dir.path().join("operator.ndjson");
    let recorded = || {
        let node = Node::open(dir.path(), "c/s");
        let n = node.events().iter().filter(|(_, name)| name == operator::TYPE).count();
        node.close();
        assert!(!file.exists(), "it is done with");
        n
    };
    assert_eq!(recorded(), 0);
    operator::leave(dir.path(), &act("a")).unwrap();
    operator::leave(dir.path(), &act("b")).unwrap();
    let said = std::fs::read(&file).unwrap();
    assert_eq!(recorded(), 2);
    // As after a kill before it was removed, or a power cut.
    std::fs::write(&file, said).unwrap();
    assert_eq!(recorded(), 2);
    operator::leave(dir.path(), &act("c")).unwrap();
    assert_eq!(recorded(), 3);
}

/// [MQTT-3.3.1-5]
#[test]
fn a_known_event_that_is_published_again_is_what_its_topic_retains_and_no_second_event() {
    let map = "[[map]]\nfilter = \"in/m/#\"\nformat = \"json\"\nid = \"/seq\"\nvalue = \"/is\"\ntype = \"t\"\n";
    let mapped = |seq: u8, is: &str| format!(r#"{{"seq":{seq},"is":"{is}"}}"#);
    for (topic, on, off) in [("in/d", event("on", ""), event("off", "")), ("in/m/d", mapped(1, "on"), mapped(2, "off"))]
    {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::open_with(dir.path(), "c/s", map);
        let publish = |payload: &str| node.publish(topic, payload.as_bytes());
        assert!(matches!(publish(&on), Outcome::Committed(_)));
        assert!(matches!(publish(&off), Outcome::Committed(_)));
        assert!(matches!(publish(&on), Outcome::Duplicate(_)));
        assert_eq!(node.retained(topic).as_deref(), Some(&*on));
        // As after a PUBACK that was lost.
        let last = node.hub.state(|s| s.applied);
        assert!(matches!(publish(&on), Outcome::Duplicate(_)));
        assert_eq!(node.hub.state(|s| s.applied), last);
        publish("");
        assert_eq!(node.retained(topic), None);
        assert!(matches!(publish(&on), Outcome::Duplicate(_)));
        let events = node.events().len();
        node.close();
        let node = Node::open_with(dir.path(), "c/s", map);
        assert_eq!(node.retained(topic).as_deref(), Some(&*on));
        assert_eq!((events, node.events().len()), (2, 2));
        node.close();
    }
}

#[test]
fn upward_records_are_counted_without_gaps_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut seqs = Vec::new();
    for round in 0..3 {
        let node = Node::open(dir.path(), "c/s");
        for i in 0..3 {
            node.offer(&event(&format!("{round}-{i}"), ""));
        }
        node.offer(&event(&format!("{round}-own"), r#","reach":"street""#));
        if round == 2 {
            let entries = node.hub.reader().read(Pos::ZERO, None, 1000, usize::MAX).unwrap();
            for e in &entries {
                let h = Header::decode(&e.bytes).unwrap().0;
                if h.direction == Direction::Up {
                    seqs.push(h.seq);
                }
            }
        }
        node.close();
    }
    assert_eq!(seqs, (1..=9).collect::<Vec<u64>>());
}

#[test]
fn a_directive_for_the_node_is_answered_in_the_commit_that_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c");
    let about = Presence {
        address: Address::parse("c").unwrap(),
        name: "城".into(),
        code: None,
        labels: Default::default(),
        inc: Inc(1),
        version: "1".into(),
    };
    run(async { wait(node.hub.offer(vec![presence(&about, Boot::default())]).await?).await }).unwrap();
    node.offer(&event("n1", r#","target":"c/**""#));
    node.offer(&event("n2", r#","target":"c/**@street""#));
    let kinds: Vec<Kind> = node.events().into_iter().map(|(k, _)| k).collect();
    assert_eq!(kinds, [Kind::Presence, Kind::Event, Kind::Receipt, Kind::Event]);
    node.hub.state(|s| {
        let d = s.directives.get("n1").unwrap();
        assert_eq!((d.expected.len(), d.delivered.len()), (1, 1));
        assert_eq!(s.directives.get("n2").unwrap().expected.len(), 0);
    });
    let done = r#"{"specversion":"1.0","id":"r1","source":"/app","type":"city.brain.receipt","correlationid":"n1","data":{"node":"c","status":"done"}}"#;
    node.offer(done);
    node.hub.state(|s| assert_eq!(s.directives.get("n1").unwrap().done.len(), 1));
    node.close();
}

#[test]
fn a_directive_that_the_node_decides_on_for_itself_and_those_below_is_answered_by_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c");
    let json = event("n1", r#","target":"c/**""#);
    let draft = Ingress::new(&node.config).accept(json.as_bytes()).unwrap();
    run(async { wait(node.hub.decide(Lane::Routine, Box::new(move |_, _| vec![draft])).await?).await }).unwrap();
    let kinds: Vec<Kind> = node.events().into_iter().map(|(k, _)| k).collect();
    assert_eq!(kinds, [Kind::Event, Kind::Receipt]);
    node.close();
}

/// A frame of the child's log from `after` to its end, as its link would send it.
fn frame(child: &Node, after: Pos, lease: u64) -> (Vec<u8>, Pos) {
    frame_packed(child, after, lease, |_| None)
}

fn frame_packed(child: &Node, after: Pos, lease: u64, pack: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> (Vec<u8>, Pos) {
    let reader = child.hub.reader();
    let (party, log) = child.hub.state(|s| (Party { inc: s.me.inc, boot: s.me.boot }, s.me.epoch().log));
    let entries = reader.read(after, None, 1000, usize::MAX).unwrap();
    let upto = reader.last();
    let mut b = FrameBuilder::default();
    let address = child.config.node.address.clone();
    for e in &entries {
        let (h, payload) = Header::decode(&e.bytes).unwrap();
        if h.direction == Direction::Up && h.lane == Lane::Routine {
            let own = citybrain_shared::record::Origin { address: address.as_str(), log, pos: e.pos };
            b.push(&h, own, h.ttl_ms, payload);
        }
    }
    let head = FrameHead {
        from: party,
        lease,
        log,
        lane: Lane::Routine,
        after,
        upto,
        after_chain: reader.chain_at(after).unwrap().unwrap(),
        upto_chain: reader.chain_at(upto).unwrap().unwrap(),
        records: 0,
    };
    (b.finish(head, pack), upto)
}

fn grant(parent: &Node, child: &Node, lease: u64) {
    let (party, log) = child.hub.state(|s| (Party { inc: s.me.inc, boot: s.me.boot }, s.me.epoch().log));
    let address = child.config.node.address.clone();
    let mut notes = vec![Note::Granted { child: address.clone(), party, lease }];
    for lane in Lane::ALL {
        let cursor = Cursor { log, upto: Pos::ZERO, chain: 0 };
        notes.push(Note::CursorSet { peer: address.clone(), inc: party.inc, lane, cursor, why: "test".into() });
    }
    parent.note(notes);
}

#[test]
fn what_a_receiver_lets_be_under_way_is_what_its_config_says() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let child = Node::open(a.path(), "c/s");
    let parent = Node::open_with(b.path(), "c", "[link]\nwindow_frames = 3\n");
    grant(&parent, &child, 1);
    let Received::Ack(ack) = parent.receive("c/s", frame(&child, Pos::ZERO, 1).0) else { panic!("refused") };
    assert_eq!(ack.credit, 3);
    child.close();
    parent.close();
}

#[test]
fn a_frame_is_taken_once_and_its_repetition_is_acknowledged_again() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (child, parent) = (Node::open(a.path(), "c/s"), Node::open(b.path(), "c"));
    for i in 0..5 {
        child.offer(&event(&i.to_string(), ""));
    }
    assert!(matches!(parent.receive("c/s", frame(&child, Pos::ZERO, 1).0), Received::Refuse(_)), "no session yet");
    grant(&parent, &child, 1);
    let (bytes, upto) = frame(&child, Pos::ZERO, 1);
    for _ in 0..2 {
        let Received::Ack(ack) = parent.receive("c/s", bytes.clone()) else { panic!("refused") };
        assert_eq!((ack.upto, ack.gap), (upto, false));
        assert_eq!(parent.events().len(), 5);
    }
    // The same records by a new session that starts from nothing: told by their origin.
    grant(&parent, &child, 2);
    let Received::Ack(ack) = parent.receive("c/s", frame(&child, Pos::ZERO, 2).0) else { panic!("refused") };
    assert_eq!(ack.upto, upto);
    assert_eq!(parent.events().len(), 5);
    assert_eq!(parent.hub.state(|s| s.counters.duplicates), 5);
    assert_eq!(parent.receive("c/s", b"rubbish".to_vec()), Received::Ignore);
    child.close();
    parent.close();
}

#[test]
fn a_poison_record_is_parked_in_the_commit_of_its_frame_and_its_neighbours_are_taken() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (child, parent) = (Node::open(a.path(), "c/s"), Node::open(b.path(), "c"));
    for i in 0..3 {
        child.offer(&event(&i.to_string(), ""));
    }
    grant(&parent, &child, 1);
    // A child whose memory is bad: the frame's checksum holds, its first record is of no known kind.
    let poisoned = |body: &[u8]| {
        let mut body = body.to_vec();
        body[4] = 250;
        Some(zstd::bulk::compress(&body, 1).unwrap())
    };
    let (bytes, upto) = frame_packed(&child, Pos::ZERO, 1, poisoned);
    for _ in 0..2 {
        let Received::Ack(ack) = parent.receive("c/s", bytes.clone()) else { panic!("refused") };
        assert_eq!((ack.upto, ack.gap), (upto, false), "the lane goes on");
        assert_eq!(parent.events().len(), 2);
        assert_eq!(parent.hub.state(|s| s.dead_letters.values().cloned().collect::<Vec<_>>()), ["poison"]);
    }
    child.close();
    parent.close();
}

#[test]
fn a_record_too_large_for_the_peer_is_parked_once_and_the_lane_goes_on() {
    use crate::link::frames::{Audience, Press};
    use crate::link::sender::Send;
    let dir = tempfile::tempdir().unwrap();
    let child = Node::open(dir.path(), "c/s");
    child.offer(&event("small", ""));
    child.offer(&event("large", &format!(r#","data":"{}""#, "x".repeat(20_000))));
    child.offer(&event("last", ""));
    let reader = child.hub.reader();
    let (me, epochs) = child.hub.state(|s| (Party { inc: s.me.inc, boot: s.me.boot }, s.me.epochs.clone()));
    let start = Cursor { log: epochs.last().unwrap().log, upto: Pos::ZERO, chain: 0 };
    let session = crate::link::handshake::Session {
        party: me,
        lease: 1,
        log: start.log,
        starts: [start; 2],
        had_before: [Pos::ZERO; 2],
        credit: 8,
        message_bytes_max: 16 * 1024,
        alive_every_ms: 10_000,
    };
    let press = Press {
        reader: &reader,
        address: &child.config.node.address,
        me,
        epochs: &epochs,
        session: &session,
        audience: &Audience::Up(Address::parse("c").unwrap()),
        downward: None,
        compress: false,
        now_us: 0,
    };
    let send = Send { lane: Lane::Routine, after: Pos::ZERO, looked: Pos::ZERO, cover: false, bytes_max: usize::MAX };
    let mut builder = FrameBuilder::default();
    let first = press.build(&mut builder, send, Pos::ZERO).unwrap();
    assert_eq!((first.records, first.upto), (2, reader.last()));
    let [Note::DeadLetter(letter)] = &first.parked[..] else { panic!("{:?}", first.parked) };
    assert_eq!(letter.reason, "too-large-for-link");
    assert!(letter.detail.contains("16384 bytes"), "{}", letter.detail);
    // Sent again after a loss: the frame is the same, and there is no second dead letter.
    let again = press.build(&mut builder, send, first.upto).unwrap();
    assert_eq!((again.records, again.upto, again.parked.len()), (2, first.upto, 0));
    child.close();
}

#[test]
fn a_child_cannot_speak_for_a_sibling() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (child, parent) = (Node::open(a.path(), "c/s"), Node::open(b.path(), "c"));
    child.offer(&event("1", ""));
    grant(&parent, &child, 1);
    let (party, log) = child.hub.state(|s| (Party { inc: s.me.inc, boot: s.me.boot }, s.me.epoch().log));
    let mut builder = FrameBuilder::default();
    let header = Header { direction: Direction::Up, seq: 1, ..Header::local(Kind::Event, "t") };
    let sibling = citybrain_shared::record::Origin { address: "c/other", log, pos: Pos(1) };
    builder.push(&header, sibling, 0, event("x", "").as_bytes());
    let head = FrameHead {
        from: party,
        lease: 1,
        log,
        lane: Lane::Routine,
        after: Pos::ZERO,
        upto: Pos(1),
        after_chain: 0,
        upto_chain: 9,
        records: 0,
    };
    assert!(matches!(parent.receive("c/s", builder.finish(head, |_| None)), Received::Ack(_)));
    assert_eq!(parent.events().len(), 0);
    assert_eq!(parent.hub.state(|s| s.dead_letters.values().cloned().collect::<Vec<_>>()), ["foreign"]);
    child.close();
    parent.close();
}

#[test]
fn a_node_without_room_takes_nothing_says_why_and_goes_on_answering() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c/s");
    node.offer(&event("before", ""));
    node.close();
    let text = format!(
        "[node]\naddress = \"c/s\"\ndata = \"{}\"\n[store]\nfree_bytes_min = {}\n",
        dir.path().display(),
        i64::MAX
    );
    let config: Config = toml::from_str(&text).unwrap();
    let (hub, engine, _) = open(&config, crate::policy::none()).unwrap();
    let node = Node { hub, thread: Some(std::thread::spawn(|| engine.run())), config };
    let draft = Ingress::new(&node.config).accept(event("after", "").as_bytes()).unwrap();
    let refused = run(async { wait(node.hub.offer(vec![draft]).await?).await });
    assert!(matches!(refused, Err(Error::Unwritable(_))), "{refused:?}");
    assert!(matches!(node.hub.trouble(), Some(Trouble::Short(_))), "{:?}", node.hub.trouble());
    assert_eq!(node.events().len(), 1);
    node.close();
}

/// A durable session in the state, as its CONNECT leaves it.
fn session(node: &Node, client: &str) {
    let (client, user) = (client.to_owned(), String::new());
    node.note(vec![Note::SessionOpened { client, user, version: 5, expiry_s: 3600, clean: true }]);
}

fn cursor(node: &Node, client: &str) -> Pos {
    node.hub.state(|s| s.sessions[client].upto)
}

#[test]
fn what_a_client_acknowledged_just_before_a_kill_is_noted_by_the_next_start_only() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c");
    session(&node, "app");
    session(&node, "other");
    let before = cursor(&node, "other");
    let Outcome::Committed(pos) = node.offer(&event("1", "")) else { panic!("it is new") };
    node.hub.jot("app", pos);
    assert!(cursor(&node, "app") < pos, "no note was made of it");
    node.close();
    let node = Node::open(dir.path(), "c");
    assert_eq!((cursor(&node, "app"), cursor(&node, "other")), (pos, before));
    node.close();
    // It is in the log now: a start that finds no jots knows it too.
    std::fs::remove_file(dir.path().join("jots")).unwrap();
    let node = Node::open(dir.path(), "c");
    assert_eq!(cursor(&node, "app"), pos);
    node.close();
}

#[test]
fn a_jot_that_is_not_certain_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c");
    session(&node, "app");
    let before = cursor(&node, "app");
    let Outcome::Committed(pos) = node.offer(&event("1", "")) else { panic!("it is new") };
    // What is not durable yet may become something else.
    node.hub.jot("app", Pos(pos.0 + 100));
    node.hub.jot("app", pos);
    let jots = dir.path().join("jots");
    let good = std::fs::read(&jots).unwrap();
    node.close();

    let at = good.iter().position(|b| *b != 0).unwrap();
    let mut torn = good.clone();
    torn[at + 8] ^= 1;
    std::fs::write(&jots, &torn).unwrap();
    let node = Node::open(dir.path(), "c");
    assert_eq!(cursor(&node, "app"), before, "a torn one");
    node.close();

    // Of two boots ago: whatever was noted since is newer.
    std::fs::write(&jots, &good).unwrap();
    let node = Node::open(dir.path(), "c");
    assert_eq!(cursor(&node, "app"), before, "one of an earlier boot");
    node.close();

    for rubbish in [Vec::new(), vec![0xff; 100], vec![0xff; good.len() * 2]] {
        std::fs::write(&jots, &rubbish).unwrap();
        let node = Node::open(dir.path(), "c");
        assert_eq!(cursor(&node, "app"), before);
        assert_eq!(std::fs::metadata(&jots).unwrap().len(), good.len() as u64, "it is made anew");
        node.close();
    }
}

#[test]
fn a_jot_never_says_more_than_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c");
    session(&node, "app");
    let durable = *node.hub.committed().borrow();
    node.hub.jot("app", Pos(durable.0 + 100));
    node.close();
    let node = Node::open(dir.path(), "c");
    assert_eq!(cursor(&node, "app"), durable);
    node.close();
}

#[test]
fn a_folder_of_another_builds_format_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c");
    node.offer(&event("1", ""));
    let config = node.config.clone();
    node.close();
    let (mut store, found) = crate::store::Store::open(dir.path(), 1 << 20).unwrap();
    let (_, row) = found.rows.iter().find(|(key, _)| key == b"m").unwrap();
    let mut row: serde_json::Value = serde_json::from_slice(row).unwrap();
    assert_eq!(row["format"], crate::state::rows::FORMAT);
    // As it was before formats were counted; the log has everything, and its notes are as old.
    row.as_object_mut().unwrap().remove("format");
    store.write(vec![(b"m".to_vec(), Some(serde_json::to_vec(&row).unwrap()))], found.upto).unwrap();
    drop(store);
    for _ in 0..2 {
        let refused = open(&config, crate::policy::none()).map(drop).unwrap_err();
        let OpenError::Rows(why) = refused else { panic!("{refused}") };
        assert_eq!(
            why.to_string(),
            "the data folder is of format 1, and this build reads format 14: run the build that wrote it, or begin with another folder"
        );
    }
    assert!(!dir.path().join("state.damaged-1").exists());
}
