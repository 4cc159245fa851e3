//! The parts together.

use super::Brain;
use super::in_force::LOADED;
use crate::brain::cases::Opening;
use crate::brain::services::{CATALOGUE, request};
use citybrain_hub::policy::Make;
use citybrain_hub::policy::Policy;
use citybrain_hub::state::State;
use citybrain_shared::Pos;
use citybrain_shared::case::{Booked, Contact};
use citybrain_shared::config::{Config, Variables, parse};
use citybrain_shared::record::{Direction, Draft, Header, Kind};
use citybrain_shared::view::{self, ServiceRequest};
use std::sync::Arc;

const S: i64 = 1_000_000;

fn config(text: &str) -> Config {
    let parsed = parse(&format!("[node]\naddress = \"c/s\"\ndata = \"d\"\n{text}"), &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    parsed.config.unwrap()
}

/// A brain and its log in memory.
struct Node {
    make: Make,
    brain: Box<dyn Policy>,
    state: State,
    pos: u64,
    now: i64,
}

impl Node {
    fn new(text: &str) -> Node {
        let make = Brain::make(&config(text));
        Node { brain: make(), make, state: State::default(), pos: 0, now: 1_795_140_000 * S }
    }

    fn is(&self) -> &Brain {
        self.brain.as_any().downcast_ref().unwrap()
    }

    /// Offers another config, and commits the record of this key with all that follows from it: their types.
    fn load(&mut self, key: u64, text: &str) -> Vec<String> {
        self.is().slot().offer(key, Arc::new(config(text)));
        self.loaded(key)
    }

    fn loaded(&mut self, key: u64) -> Vec<String> {
        let header = Header { key, ..Header::local(Kind::Event, LOADED) };
        let mut group = vec![Draft::new(&header, b"{}").unwrap()];
        group.extend(self.brain.decide(&State::default(), self.now, &header, b"{}"));
        self.commit_all(group)
    }

    fn commit_all(&mut self, group: Vec<Draft>) -> Vec<String> {
        let names = group.iter().map(|d| d.header().name.to_owned()).collect();
        group.into_iter().for_each(|d| self.commit(d));
        names
    }

    /// All that is due now.
    fn settle(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while self.brain.next_due_us().is_some_and(|due| due <= self.now) {
            let more = self.due();
            assert!(!more.is_empty(), "something is due and nothing comes of it");
            said.extend(more);
        }
        said
    }

    /// The state as it is read back after a failure: its rows, and no record behind them.
    fn read_back(&mut self) {
        let rows = self.brain.take_rows();
        self.brain = (self.make)();
        for (key, value) in rows {
            value.iter().for_each(|value| self.brain.load_row(&key, value).unwrap());
        }
    }

    /// Rules, services, categories by name, and whether the next Monday is a day off.
    fn goes_by(&self) -> (usize, Vec<String>, Vec<String>, bool) {
        let brain = self.is();
        let services = brain.services.services().map(|(_, s)| s.code.clone()).collect();
        let categories = brain.cases.categories().iter().map(|c| c.code.clone()).collect();
        let monday = "2026-11-23".parse().unwrap();
        let is_off = !brain.services.calendar_of(&"c/s".parse().unwrap()).works(monday);
        assert_eq!(is_off, !brain.cases.calendar().works(monday), "both go by one calendar");
        (brain.rules.view().rules.len(), services, categories, is_off)
    }

    /// Opens a request for an activity.
    fn book(&mut self, id: &str, word: &str) {
        let brain = self.is();
        let offered = brain.services.offered(word, None).unwrap();
        let wanted = ServiceRequest { by: "王大妈".into(), ..ServiceRequest::default() };
        let now = view::time_of(self.now);
        let (opening, contact) = request::opening(&offered, &wanted, id.to_owned(), |_| true, now).unwrap();
        let (_, drafts) = brain.cases.open(opening, contact, self.now);
        self.commit_all(drafts);
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
        self.commit_all(group)
    }
}

/// A press that somebody must answer.
fn press(node: &mut Node) {
    let press = Opening { id: "20261120-0".into(), sos: true, ..Opening::default() };
    let cases = &node.brain.as_any().downcast_ref::<Brain>().unwrap().cases;
    let (_, drafts) = cases.open(press, Contact::default(), node.now);
    drafts.into_iter().for_each(|d| node.commit(d));
}

const BEFORE: &str = r#"
[[rule]]
name = "one"
on = ["a"]
then = [{ emit = { type = "b" } }]
[[category]]
code = "G"
name = "垃圾"
solution = "4h"
[[service]]
code = "yoga"
name = "瑜伽"
category = "G"
place = { text = "1栋" }
starts = "2026-12-05 09:00"
ends = "2026-12-05 10:00"
places = 2
"#;

const AFTER: &str = r#"
[[category]]
code = "G"
name = "垃圾"
solution = "9h"
[[category]]
code = "L"
name = "路灯"
[[service]]
code = "yoga"
name = "瑜伽"
category = "G"
place = { text = "2栋" }
starts = "2026-12-06 09:00"
ends = "2026-12-06 10:00"
places = 2
[[service]]
code = "chess"
name = "象棋"
[calendar]
holidays = ["2026-11-23"]
"#;

#[test]
fn what_is_offered_otherwise_in_another_file_goes_down_and_to_who_booked_it_once() {
    let mut node = Node::new(BEFORE);
    node.settle();
    node.book("20261120-0", "yoga");
    node.settle();
    let terms = |node: &Node| node.is().cases.get("20261120-0").unwrap().case.terms.clone().unwrap();
    let (before, goes_by) = (terms(&node), node.goes_by());
    assert_eq!(node.load(7, AFTER), [LOADED, CATALOGUE], "in one commit");
    node.is().slot().confirm();
    assert_eq!(node.settle(), ["city.brain.case.rescheduled"], "one line for time and place together");
    let case = node.is().cases.get("20261120-0").unwrap().case.clone();
    let booking = case.booking.unwrap();
    assert_eq!(booking.at.unwrap().to_rfc3339(), "2026-12-06T01:00:00+00:00");
    assert_eq!((booking.place.unwrap().text.as_str(), booking.state), ("2栋", Booked::Booked));
    assert_eq!(terms(&node), before, "a case keeps the terms that it was opened with");
    let services = ["yoga", "chess"].map(str::to_owned).to_vec();
    assert_eq!(node.goes_by(), (0, services, vec!["G".into(), "L".into()], true));
    // The same file again is news to nobody; the one before is.
    assert_eq!(node.load(8, AFTER), [LOADED]);
    node.is().slot().confirm();
    assert!(node.settle().is_empty());
    assert_eq!(node.load(9, BEFORE), [LOADED, CATALOGUE]);
    node.is().slot().confirm();
    assert_eq!(node.settle(), ["city.brain.case.rescheduled"]);
    assert_eq!(node.goes_by(), goes_by);
    let left = Node::new(BEFORE).is().services.find("yoga", None).unwrap().1.clone();
    let free = node.is().cases.free(&left, view::time_of(node.now));
    assert_eq!(free.places, Some(1), "the seat was moved, and is counted once");
}

#[test]
fn a_case_is_told_what_is_offered_otherwise_though_the_state_is_read_back_before_that() {
    let mut node = Node::new(BEFORE);
    node.settle();
    node.book("20261120-0", "yoga");
    node.settle();
    node.load(7, AFTER);
    node.is().slot().confirm();
    node.read_back();
    node.hear("c");
    assert_eq!(node.settle(), ["city.brain.case.rescheduled"]);
}

#[test]
fn what_is_over_is_told_to_nobody_when_a_file_takes_it_out_in_a_quiet_hour() {
    let mut node = Node::new(BEFORE);
    node.settle();
    node.book("20261120-0", "yoga");
    node.settle();
    // Nothing was heard of since, and it is the day after.
    node.now += 16 * 24 * 3_600 * S;
    node.load(7, "");
    let said = node.settle();
    assert!(!said.iter().any(|name| name == "city.brain.case.cancelled"), "{said:?}");
}

#[test]
fn a_reload_whose_record_is_not_on_disk_leaves_what_was_in_force() {
    let mut node = Node::new(BEFORE);
    node.settle();
    let slot = node.is().slot();
    let before = node.goes_by();
    slot.offer(7, Arc::new(config(AFTER)));
    node.hear("c");
    assert_eq!(node.goes_by(), before, "what is offered waits for its record");
    node.loaded(7);
    let after = node.goes_by();
    assert_ne!(after, before);
    // That commit fails: the state is read back, by whichever is first.
    node.read_back();
    assert_eq!(node.goes_by(), before);
    slot.withdraw();
    node.read_back();
    node.loaded(7);
    assert_eq!(node.goes_by(), before);
    // The next one does not fail, and a state that is read back has it.
    node.load(8, AFTER);
    slot.confirm();
    node.hear("c");
    assert_eq!(node.goes_by(), after);
    node.read_back();
    assert_eq!(node.goes_by(), after);
}

#[test]
fn a_reload_that_failed_and_whose_record_is_in_the_log_all_the_same_is_taken_back() {
    let mut node = Node::new(BEFORE);
    node.settle();
    let before = node.goes_by();
    node.load(7, AFTER);
    assert_ne!(node.goes_by(), before);
    node.is().slot().withdraw();
    node.hear("c");
    assert_eq!(node.goes_by(), before);
    assert_eq!(node.settle(), [CATALOGUE], "those below hear of it, too");
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
