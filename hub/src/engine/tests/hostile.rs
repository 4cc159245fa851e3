//! A child that is broken or hostile: whatever it sends, its parent lives, believes nothing that is
//! not the child's to say, and goes on with the next frame.

use super::*;
use crate::state::{PRESENCE_TYPE, RECEIPT_TYPE};
use citybrain_shared::limits::{HISTORIES_PER_NODE_MAX, ORIGINS_PER_CHILD_MAX, PRESENCE_BYTES_MAX};
use citybrain_shared::record::{Origin, event_key};
use citybrain_shared::{LogId, event};

const LOG: LogId = LogId(77);
const PARTY: Party = Party { inc: Inc(5), boot: Boot { counter: 1, nonce: 9 } };

/// A child of `c` at `c/s`, as far as its parent can tell.
struct Child {
    parent: Node,
    _dir: tempfile::TempDir,
    upto: u64,
}

impl Child {
    fn new() -> Child {
        let dir = tempfile::tempdir().unwrap();
        let parent = Node::open(dir.path(), "c");
        let child = Address::parse("c/s").unwrap();
        let mut notes = vec![Note::Granted { child: child.clone(), party: PARTY, lease: 1 }];
        for lane in Lane::ALL {
            let cursor = Cursor { log: LOG, upto: Pos::ZERO, chain: 0 };
            notes.push(Note::CursorSet { peer: child.clone(), inc: PARTY.inc, lane, cursor, why: "test".into() });
        }
        parent.note(notes);
        Child { parent, _dir: dir, upto: 0 }
    }

    fn head(&self) -> FrameHead {
        FrameHead {
            from: PARTY,
            lease: 1,
            log: LOG,
            lane: Lane::Routine,
            after: Pos(self.upto),
            upto: Pos(self.upto + 1),
            after_chain: self.upto,
            upto_chain: self.upto + 1,
            records: 0,
        }
    }

    /// A frame that follows the one before.
    fn frame(&self, records: &[(Header<'_>, &str, &str)]) -> Vec<u8> {
        let mut builder = FrameBuilder::default();
        for (header, origin, payload) in records {
            let origin = Origin { address: origin, log: LOG, pos: Pos(1) };
            builder.push(header, origin, 0, payload.as_bytes());
        }
        builder.finish(self.head(), |_| None)
    }

    /// Sends it; the lane must go on.
    fn send(&mut self, records: &[(Header<'_>, &str, &str)]) {
        let received = self.parent.receive("c/s", self.frame(records));
        self.upto += 1;
        let Received::Ack(ack) = received else { panic!("{received:?}") };
        assert_eq!((ack.upto, ack.gap), (Pos(self.upto), false), "the lane goes on");
    }

    fn letters(&self) -> Vec<String> {
        self.parent.hub.state(|s| s.dead_letters.values().cloned().collect())
    }
}

fn up<'a>(kind: Kind, name: &'a str, id: &str, seq: u64) -> Header<'a> {
    Header { direction: Direction::Up, seq, key: event_key("/x", id), ..Header::local(kind, name) }
}

#[test]
fn a_frame_that_claims_four_thousand_million_records_is_dropped() {
    let mut child = Child::new();
    let mut bytes = child.frame(&[]);
    let at = bytes.len() - 2 - 4; // the end marker, and before it the last of the core
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[2..4]), &bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(child.parent.receive("c/s", bytes), Received::Ignore);
    child.send(&[]);
    child.parent.close();
}

#[test]
fn a_child_writes_no_note_into_its_parents_log() {
    let mut child = Child::new();
    let me = child.parent.hub.state(|s| s.me.clone());
    let parent = Address::parse("c").unwrap();
    let cursor = Cursor { log: LogId(1), upto: Pos(1 << 40), chain: 0 };
    let notes = [
        Note::PeerHas { peer: Address::parse("c/t").unwrap(), inc: Inc(1), lane: Lane::Urgent, cursor },
        Note::Granted { child: Address::parse("c/t").unwrap(), party: Party::default(), lease: u64::MAX },
        Note::Booted { inc: Inc(666), boot: Boot { counter: 9, nonce: 9 } },
        Note::Enrolled { child: parent, inc: Inc(1), is_admitted: true },
    ];
    for (n, note) in notes.iter().enumerate() {
        let json = serde_json::to_string(note).unwrap();
        child.send(&[(up(Kind::Note, "", "n", n as u64 + 1), "c/s", &json)]);
    }
    assert_eq!(child.letters(), ["foreign"; 4]);
    child.parent.hub.state(|s| {
        assert_eq!((s.me.inc, s.me.boot), (me.inc, me.boot));
        assert_eq!(s.peers.keys().map(Address::as_str).collect::<Vec<_>>(), ["c/s"]);
    });
    child.parent.close();
}

#[test]
fn a_note_of_another_node_in_the_log_says_nothing() {
    let mut state = State::default();
    let note = Note::Booted { inc: Inc(666), boot: Boot { counter: 9, nonce: 9 } };
    let json = serde_json::to_string(&note).unwrap();
    let origin = Some(Origin { address: "c/s", log: LOG, pos: Pos(1) });
    state.apply(Pos(1), &Header { origin, ..Header::local(Kind::Note, "") }, json.as_bytes());
    assert_eq!(state.me.inc, Inc::default());
    state.apply(Pos(2), &Header::local(Kind::Note, ""), json.as_bytes());
    assert_eq!(state.me.inc, Inc(666));
}

#[test]
fn a_record_that_no_door_would_have_taken_is_parked_and_its_neighbours_are_taken() {
    let mut child = Child::new();
    let long = "x".repeat(65_529);
    let of = |kind: &str, id: &str| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/x","type":"{kind}"}}"#);
    let (good, more) = (of("t", "1"), of("t", "2"));
    let mut seq = 1;
    let cases: [(Header<'_>, String); 12] = [
        (up(Kind::Event, "a/#", "1", 2), of("a/#", "1")),
        (up(Kind::Event, "a+b", "1", 2), of("a+b", "1")),
        (up(Kind::Event, "", "1", 2), of("", "1")),
        (up(Kind::Event, &long, "1", 2), of(&long, "1")),
        (up(Kind::Event, "a", "1", 2), of("b", "1")),
        (up(Kind::Event, "t", "other", 2), good.clone()),
        (up(Kind::Event, "t", "1", 2), "\"{".into()),
        (up(Kind::Event, "t", "1", 2), String::new()),
        (up(Kind::Event, "t", "1", 0), good.clone()),
        (up(Kind::Event, "t", "1", u64::MAX), good.clone()),
        (Header { received_us: i64::MIN, ..up(Kind::Event, "t", "1", 2) }, good.clone()),
        (Header { received_us: i64::MAX, ..up(Kind::Event, "t", "1", 2) }, good.clone()),
    ];
    for (header, payload) in &cases {
        let id = format!("good-{seq}");
        let good = of("t", &id);
        child.send(&[(*header, "c/s", payload), (up(Kind::Event, "t", &id, seq), "c/s", &good)]);
        seq += 1;
        if seq == 2 {
            seq = 3; // the number that the bad ones claim
        }
    }
    assert_eq!(child.letters(), vec!["poison"; cases.len()]);
    assert_eq!(child.parent.events(), vec![(Kind::Event, "t".to_owned()); cases.len()]);
    // What was parked took no number: the true record of it is taken.
    child.send(&[(up(Kind::Event, "t", "2", 2), "c/s", &more)]);
    assert_eq!(child.parent.events().len(), cases.len() + 1);
    child.parent.close();
}

#[test]
fn a_plain_message_does_not_climb() {
    let mut child = Child::new();
    child.send(&[(up(Kind::Message, "", "1", 1), "c/s", "anything")]);
    assert_eq!((child.letters(), child.parent.events()), (vec!["foreign".to_owned()], vec![]));
    child.parent.close();
}

#[test]
fn a_copied_data_folder_at_two_addresses_loses_nothing_of_either() {
    let mut child = Child::new();
    let json = |id| event(id, "").replace("city.test", "t");
    let (a, b) = (json("a"), json("b"));
    // One history, one number, two origins below the child, in one frame.
    child.send(&[
        (up(Kind::Event, "t", "a", 1), "c/s/m", &a),
        (up(Kind::Event, "t", "b", 1), "c/s/n", &b),
        (up(Kind::Event, "t", "a", 1), "c/s/m", &a),
    ]);
    assert_eq!(child.parent.events().len(), 2);
    assert_eq!(child.parent.hub.state(|s| s.counters.duplicates), 1);
    child.parent.close();
}

#[test]
fn a_node_answers_a_directive_for_itself_only() {
    let mut child = Child::new();
    let presence = |node: &str| {
        let data = Presence {
            address: Address::parse(node).unwrap(),
            name: node.into(),
            code: None,
            labels: Default::default(),
            inc: Inc(1),
            version: "1".into(),
        };
        let more = format!(r#","data":{}"#, serde_json::to_string(&data).unwrap());
        event(node, &more).replace("city.test", PRESENCE_TYPE)
    };
    let own = Presence {
        address: Address::parse("c").unwrap(),
        name: "c".into(),
        code: None,
        labels: Default::default(),
        inc: Inc(1),
        version: "1".into(),
    };
    let own = super::presence(&own, Boot::default());
    run(async { wait(child.parent.hub.offer(vec![own]).await?).await }).unwrap();
    for (n, node) in ["c/s", "c/s/m"].into_iter().enumerate() {
        child.send(&[(up(Kind::Presence, PRESENCE_TYPE, node, n as u64 + 1), node, &presence(node))]);
    }
    child.parent.offer(&event("order", r#","target":"c/s/**""#));
    let receipt = |id: &str| {
        let more = r#","correlationid":"order","data":{"node":"c/s/m","status":"done"}"#;
        event(id, more).replace("city.test", RECEIPT_TYPE)
    };
    let done = |child: &Child| child.parent.hub.state(|s| s.directives.get("order").unwrap().done.len());
    child.send(&[(up(Kind::Receipt, RECEIPT_TYPE, "forged", 3), "c/s", &receipt("forged"))]);
    assert_eq!(done(&child), 0);
    child.send(&[(up(Kind::Receipt, RECEIPT_TYPE, "true", 1), "c/s/m", &receipt("true"))]);
    assert_eq!((done(&child), child.letters().len()), (1, 0));
    child.parent.close();
}

#[test]
fn origins_that_a_child_invents_are_bounded_and_its_true_ones_go_on() {
    let mut child = Child::new();
    let json = |n: u64| event(&n.to_string(), "").replace("city.test", "t");
    let mut n = 0;
    let of_one = HISTORIES_PER_NODE_MAX as u64;
    // One more than there is room for, 256 a frame; of one node after the other as many as it may have.
    while n <= ORIGINS_PER_CHILD_MAX as u64 {
        let mut builder = FrameBuilder::default();
        for _ in 0..256 {
            let id = n.to_string();
            let node = format!("c/s/m{}", n / of_one);
            let origin = Origin { address: &node, log: LogId(n.into()), pos: Pos(1) };
            builder.push(&up(Kind::Event, "t", &id, 1), origin, 0, json(n).as_bytes());
            n += 1;
        }
        let received = child.parent.receive("c/s", builder.finish(child.head(), |_| None));
        child.upto += 1;
        assert!(matches!(received, Received::Ack(_)), "{received:?}");
    }
    assert_eq!(child.letters().len() as u64, n - ORIGINS_PER_CHILD_MAX as u64);
    let parked = child.letters().len();
    // The history that the first record of all named is known.
    let mut builder = FrameBuilder::default();
    let origin = Origin { address: "c/s/m0", log: LogId(0), pos: Pos(2) };
    builder.push(&up(Kind::Event, "t", &n.to_string(), 2), origin, 0, json(n).as_bytes());
    child.parent.receive("c/s", builder.finish(child.head(), |_| None));
    assert_eq!(child.letters().len(), parked);
    let long = "x".repeat(PRESENCE_BYTES_MAX);
    let presence = event("p", &format!(r#","data":"{long}""#)).replace("city.test", PRESENCE_TYPE);
    child.upto += 1;
    child.send(&[(up(Kind::Presence, PRESENCE_TYPE, "p", 3), "c/s/m", &presence)]);
    assert_eq!(child.letters().len(), parked + 1);
    child.parent.close();
}

#[test]
fn histories_that_one_node_invents_are_not_to_the_cost_of_its_neighbours() {
    let mut child = Child::new();
    let json = |n: u64| event(&n.to_string(), "").replace("city.test", "t");
    let most = HISTORIES_PER_NODE_MAX as u64;
    let send = |child: &mut Child, address: &str, some: std::ops::Range<u64>| {
        let mut builder = FrameBuilder::default();
        for n in some {
            let origin = Origin { address, log: LogId(n.into()), pos: Pos(1) };
            builder.push(&up(Kind::Event, "t", &n.to_string(), 1), origin, 0, json(n).as_bytes());
        }
        let received = child.parent.receive("c/s", builder.finish(child.head(), |_| None));
        assert!(matches!(received, Received::Ack(_)), "{received:?}");
        child.upto += 1;
        child.letters().len() as u64
    };
    for at in (0..most).step_by(256) {
        assert_eq!(send(&mut child, "c/s/bad", at..at + 256), 0);
    }
    assert_eq!(send(&mut child, "c/s/bad", most..most + 10), 10);
    assert_eq!(send(&mut child, "c/s/good", most + 10..most + 20), 10, "the neighbour's are taken");
    child.parent.close();
}

#[test]
fn an_event_that_brings_its_own_origin_is_parked() {
    let mut child = Child::new();
    let lie = event("1", r#","origin":"c/other""#).replace("city.test", "t");
    let escaped = event("2", r#","\u006frigin":"c/other""#).replace("city.test", "t");
    for (i, payload) in [lie, escaped].iter().enumerate() {
        let id = (i + 1).to_string();
        child.send(&[(up(Kind::Event, "t", &id, i as u64 + 1), "c/s", payload)]);
    }
    assert_eq!(child.letters(), ["poison"; 2]);
    child.parent.close();
}

/// Frames of a good child with bytes changed and the checksum made right again.
#[test]
fn no_frame_harms_the_node_and_what_it_keeps_of_any_are_events() {
    const FRAMES: u64 = 200;
    let mut child = Child::new();
    let me = child.parent.hub.state(|s| s.me.clone());
    let mut random = 1u64;
    let mut next = |n: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % n
    };
    for n in 0..FRAMES {
        let (a, b) = (event(&format!("a{n}"), ""), event(&format!("b{n}"), r#","data":{"v":[1,2]}"#));
        let (a, b) = (a.replace("city.test", "t"), b.replace("city.test", "t"));
        let mut bytes = child.frame(&[
            (up(Kind::Event, "t", &format!("a{n}"), 2 * n + 1), "c/s", &a),
            (up(Kind::Event, "t", &format!("b{n}"), 2 * n + 2), "c/s/m", &b),
        ]);
        for _ in 0..=next(3) {
            // Beyond the envelope and the head, which decide whether it is looked at, in most of them.
            let from = if next(4) == 0 { 8 } else { 105 };
            let at = from + next(bytes.len() - from);
            bytes[at] = [0, 1, 0xff, b'#', b'"', next(256) as u8][next(6)];
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[2..4]), &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        child.parent.receive("c/s", bytes);
        // Wherever it has led the cursor: the child begins anew.
        let peer = Address::parse("c/s").unwrap();
        let cursor = Cursor { log: LOG, upto: Pos::ZERO, chain: 0 };
        let why = "test".to_owned();
        child.parent.note(vec![Note::CursorSet { peer, inc: PARTY.inc, lane: Lane::Routine, cursor, why }]);
    }
    let good = event("good", "").replace("city.test", "t");
    child.send(&[(up(Kind::Event, "t", "good", 1_000_000), "c/s", &good)]);
    let entries = child.parent.hub.reader().read(Pos::ZERO, None, 10_000, usize::MAX).unwrap();
    let mut events = 0;
    for entry in &entries {
        let (header, payload) = Header::decode(&entry.bytes).unwrap();
        if let Some(origin) = header.origin {
            assert!(header.kind.is_event() && event::is_type(header.name), "{header:?}");
            assert!(origin.address.starts_with("c/s") && header.direction == Direction::Up, "{header:?}");
            let told = event::identity(payload).unwrap();
            assert_eq!((told.kind.as_ref(), event_key(&told.source, &told.id)), (header.name, header.key));
            events += 1;
        }
    }
    assert!(events > 50 && child.letters().len() > 50, "{events} taken, {} parked", child.letters().len());
    child.parent.hub.state(|s| assert_eq!((s.me.inc, s.me.boot), (me.inc, me.boot)));
    child.parent.close();
}
