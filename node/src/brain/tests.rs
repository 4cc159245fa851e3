//! The parts together.

use super::Brain;
use crate::brain::cases::Opening;
use citybrain_hub::policy::Policy;
use citybrain_hub::state::State;
use citybrain_shared::Pos;
use citybrain_shared::case::Contact;
use citybrain_shared::config::{Variables, parse};
use citybrain_shared::record::{Direction, Draft, Header, Kind};

const S: i64 = 1_000_000;

/// A brain and its log in memory.
struct Node {
    brain: Box<dyn Policy>,
    state: State,
    pos: u64,
    now: i64,
}

impl Node {
    fn new(rules: &str) -> Node {
        let text = format!("[node]\naddress = \"c/s\"\ndata = \"d\"\n{rules}");
        let parsed = parse(&text, &Variables::new());
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        Node { brain: Brain::make(&parsed.config.unwrap())(), state: State::default(), pos: 0, now: 1_795_140_000 * S }
    }

    fn commit(&mut self, mut draft: Draft) {
        draft.stamp(self.now, 0);
        self.pos += 1;
        let (header, payload) = draft.parts();
        self.brain.apply(Pos(self.pos), &header, payload);
    }

    fn hear(&mut self, kind: &str) {
        let event = format!(r#"{{"specversion":"1.0","id":"e{}","source":"/t","type":"{kind}"}}"#, self.pos);
        let header = Header { direction: Direction::Up, ..Header::local(Kind::Event, kind) };
        self.commit(Draft::new(&header, event.as_bytes()).unwrap());
    }

    /// One group of what is due: the types of its records.
    fn due(&mut self) -> Vec<String> {
        let group = self.brain.on_due(&self.state, self.now);
        let names = group.iter().map(|d| d.header().name.to_owned()).collect();
        group.into_iter().for_each(|d| self.commit(d));
        names
    }
}

/// A press that somebody must answer.
fn press(node: &mut Node) {
    let press = Opening { id: "20261120-0".into(), sos: true, ..Opening::default() };
    let cases = &node.brain.as_any().downcast_ref::<Brain>().unwrap().cases;
    let (_, drafts) = cases.open(press, Contact::default(), node.now);
    drafts.into_iter().for_each(|d| node.commit(d));
}

#[test]
fn rules_that_always_have_something_to_say_keep_no_call_for_help_from_climbing() {
    let mut node = Node::new("[[rule]]\nname = \"r\"\non = [\"a\"]\nthen = [{ emit = { type = \"b\" } }]\n");
    press(&mut node);
    node.now += 3_600 * S;
    let mut said = Vec::new();
    for _ in 0..2 {
        (0..2_000).for_each(|_| node.hear("a"));
        assert!(node.brain.is_behind());
        said.extend(node.due());
    }
    assert!(said.iter().any(|name| name == "b"), "and rules go on: {said:?}");
    assert!(said.iter().any(|name| name == "city.brain.case.escalated"), "it has climbed");
}

#[test]
fn what_was_due_while_the_node_was_down_is_said_behind_its_start_and_none_of_that_time_is_silence() {
    let rule = "[[rule]]\nname = \"silent\"\non = [\"t\"]\nabsent = \"10m\"\nthen = [{ raise = { title = \"x\" } }]\n";
    let mut node = Node::new(rule);
    press(&mut node);
    node.hear("t");
    // An hour down; the engine asks before the node has said that it is there.
    node.now += 3_600 * S;
    node.state.me.boot.counter = 1;
    assert_eq!(node.due(), [""; 0]);
    let presence = Header::local(Kind::Presence, "city.brain.node");
    node.commit(Draft::new(&presence, br#"{"id":"x-1"}"#).unwrap());
    let all_due = |node: &mut Node| -> Vec<String> {
        std::iter::from_fn(|| Some(node.due()).filter(|names| !names.is_empty())).flatten().collect()
    };
    let said = all_due(&mut node);
    assert!(said.iter().any(|name| name == "city.brain.case.escalated"), "{said:?}");
    assert!(!said.iter().any(|name| name == "city.brain.alarm.raised"), "{said:?}");
    node.now += 660 * S;
    assert!(all_due(&mut node).iter().any(|name| name == "city.brain.alarm.raised"));
}
