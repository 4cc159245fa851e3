//! Boxes that lose their disks, in trees whose links keep their word: in order by lane, once into each
//! log; a box with an empty disk gets again what its children have, and the last that its parent sent.

use super::*;
use citybrain_hub::state::Peer;
use citybrain_shared::record::Kind as RecordKind;
use citybrain_shared::{Inc, Lane};

const TREE: [&str; 6] = ["c", "c/s", "c/s/a", "c/s/b", "c/s/a/n", "c/s/a/k"];
const CASE: &str = "20261120-0";

fn node(address: &str) -> Cases {
    let parent = if address == "c" { "" } else { "[parent]\nurl = \"mqtt://p\"\n" };
    let text = format!("[node]\naddress = \"{address}\"\ndata = \"d\"\n{parent}{CATEGORIES}");
    let parsed = parse(&text, &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    Cases::new(&parsed.config.unwrap())
}

/// A record; `n` is its place in its origin's history, so to say.
#[derive(Clone)]
struct Carried {
    n: u64,
    origin: String,
    draft: Draft,
}

struct Place {
    cases: Cases,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    inc: Inc,
    pos: u64,
    seen: HashSet<u64>,
    keys: HashSet<u64>,
    heard: BTreeSet<String>,
    former: BTreeMap<String, Vec<Inc>>,
    /// How often its responders were called.
    calls: usize,
}

#[derive(Default)]
struct Line {
    waits: Vec<Carried>,
    sent: Vec<Carried>,
    came: Vec<Carried>,
}

struct Net {
    places: BTreeMap<String, Place>,
    lines: BTreeMap<(String, String), Line>,
    /// Lines that carry nothing.
    cut: BTreeSet<(String, String)>,
    now: i64,
    next: u64,
}

impl Net {
    fn empty() -> Net {
        Net { places: BTreeMap::new(), lines: BTreeMap::new(), cut: BTreeSet::new(), now: START, next: 1 }
    }

    fn new() -> Net {
        let mut net = Net::empty();
        TREE.iter().for_each(|n| net.begin(n));
        net.settle();
        net
    }

    /// An empty folder, and a first start.
    fn begin(&mut self, at: &str) {
        self.next += 1;
        let place = Place {
            cases: node(at),
            rows: BTreeMap::new(),
            inc: Inc(self.next.into()),
            pos: 0,
            seen: HashSet::new(),
            keys: HashSet::new(),
            heard: BTreeSet::from([at.to_owned()]),
            former: BTreeMap::new(),
            calls: 0,
        };
        self.places.insert(at.to_owned(), place);
        self.start(at);
    }

    fn start(&mut self, at: &str) {
        let way = if at == "c" { Direction::Local } else { Direction::Up };
        let header = Header {
            direction: way,
            lane: Lane::Urgent,
            reach: Tier::City,
            ..Header::local(RecordKind::Presence, "city.brain.node")
        };
        self.commit(at, vec![Draft::new(&header, b"{}").unwrap()], None);
    }

    /// The disk is lost, and another box begins in its place; of what its parent had sent, the last few
    /// come again.
    fn replace(&mut self, at: &str, again: usize) {
        let old = self.places[at].inc;
        if let Some(above) = a(at).parent().and_then(|p| self.places.get_mut(p.as_str())) {
            above.former.entry(at.to_owned()).or_default().push(old);
        }
        for child in TREE.iter().filter(|c| a(c).is_child_of(&a(at))) {
            if let Some(below) = self.places.get_mut(*child) {
                below.former.entry(at.to_owned()).or_default().push(old);
            }
        }
        for ((from, to), line) in &mut self.lines {
            if from == at {
                *line = Line::default();
            } else if to == at && a(from).is_child_of(&a(at)) {
                line.waits.clone_from(&line.sent);
                line.came.clear();
            } else if to == at {
                let few = line.came.len().saturating_sub(again);
                let mut waits = line.came.split_off(few);
                waits.append(&mut line.waits);
                line.waits = waits;
            }
        }
        self.begin(at);
    }

    /// A kill and a start: rows are as good as memory.
    fn restart(&mut self, at: &str) {
        let place = self.places.get_mut(at).unwrap();
        for (key, value) in place.cases.take_rows() {
            match value {
                Some(value) => place.rows.insert(key, value),
                None => place.rows.remove(&key),
            };
        }
        let mut anew = node(at);
        place.rows.iter().for_each(|(key, value)| anew.load_row(key, value).unwrap());
        assert_eq!(anew.iter().collect::<Vec<_>>(), place.cases.iter().collect::<Vec<_>>());
        assert_eq!(
            (&anew.due, &anew.succession, &anew.owed, &anew.rolls, &anew.uncalled),
            (&place.cases.due, &place.cases.succession, &place.cases.owed, &place.cases.rolls, &place.cases.uncalled)
        );
        assert_eq!((anew.inbox.len(), anew.waiting.len()), (place.cases.inbox.len(), place.cases.waiting.len()));
        place.cases = anew;
        self.start(at);
    }

    fn state(&self, at: &str) -> State {
        let place = &self.places[at];
        let mut state = State::default();
        state.me.inc = place.inc;
        for (i, node) in place.heard.iter().map(|n| a(n)).filter(|n| a(at).covers(n)).enumerate() {
            let known = Known {
                ordinal: i as u32,
                name: String::new(),
                tier: node.tier(),
                code: None,
                labels: citybrain_shared::selector::Labels::new(),
                inc: Inc(1),
                version: String::new(),
                last_heard_us: 0,
            };
            state.registry.insert(node, known);
        }
        if let Some(parent) = a(at).parent() {
            state.peers.insert(parent, Peer::default());
        }
        for (child, former) in &place.former {
            state.peers.insert(a(child), Peer { former: former.clone(), ..Peer::default() });
        }
        state
    }

    fn commit(&mut self, at: &str, drafts: Vec<Draft>, from: Option<&Carried>) {
        let state = self.state(at);
        let origin = from.map(|f| f.origin.as_str());
        let mut group: Vec<(Option<&str>, Draft)> = drafts.into_iter().map(|d| (origin, d)).collect();
        let mut begin = 0;
        while begin < group.len() {
            let cases = &self.places[at].cases;
            let decided = group[begin..]
                .iter()
                .flat_map(|(origin, draft)| with_origin(draft, *origin, |h, p| cases.decide(&state, self.now, h, p)));
            let decided: Vec<_> = decided.map(|d| (None, d)).collect();
            begin = group.len();
            group.extend(decided);
        }
        let place = self.places.get_mut(at).unwrap();
        for (origin, draft) in &group {
            place.pos += 1;
            let pos = Pos(place.pos);
            with_origin(draft, *origin, |h, p| place.cases.apply(pos, h, p));
            place.keys.insert(draft.header().key);
            place.calls += usize::from(draft.header().name == letter::CALL && origin.is_none());
        }
        for (origin, draft) in group {
            self.next += 1;
            let n = from.filter(|_| origin.is_some()).map_or(self.next, |f| f.n);
            let origin = origin.unwrap_or(at).to_owned();
            self.send(at, Carried { n, origin, draft });
        }
        self.check();
    }

    fn send(&mut self, at: &str, record: Carried) {
        let (me, h) = (a(at), record.draft.header());
        let next = match h.direction {
            Direction::Up => me.parent().filter(|p| h.reach <= p.tier()).into_iter().collect(),
            Direction::Down => {
                let selector = Selector::parse(h.target).unwrap();
                let below = TREE.iter().map(|n| a(n)).filter(|n| n.is_child_of(&me) && selector.may_reach(n));
                below.collect::<Vec<_>>()
            }
            Direction::Local => Vec::new(),
        };
        for next in next {
            // Nobody there yet: it lies in the log.
            let line = self.lines.entry((at.to_owned(), next.to_string())).or_default();
            line.waits.push(record.clone());
            line.sent.push(record.clone());
        }
    }

    /// The next of that lane on that line comes in.
    fn carry(&mut self, key: &(String, String), lane: Lane) -> bool {
        let line = self.lines.get_mut(key).unwrap();
        let Some(i) = line.waits.iter().position(|r| r.draft.header().lane == lane) else { return false };
        let record = line.waits.remove(i);
        line.came.push(record.clone());
        let place = self.places.get_mut(&key.1).unwrap();
        let h = record.draft.header();
        place.heard.insert(record.origin.clone());
        let is_new = match h.direction {
            Direction::Up => place.seen.insert(record.n),
            _ => !place.keys.contains(&h.key),
        };
        if is_new {
            self.commit(&key.1, vec![record.draft.clone()], Some(&record));
        }
        true
    }

    fn due(&mut self, at: &str) -> bool {
        let cases = &self.places[at].cases;
        if cases.next_due_us().is_none_or(|due| due > self.now) {
            return false;
        }
        let drafts = cases.on_due(&self.state(at), self.now);
        assert!(!drafts.is_empty(), "{at} says that something is due and does nothing");
        self.commit(at, drafts, None);
        true
    }

    fn settle(&mut self) {
        for _ in 0..20_000 {
            let here: Vec<&str> = TREE.into_iter().filter(|n| self.places.contains_key(*n)).collect();
            let busy = here.into_iter().any(|n| self.due(n));
            let key = self
                .lines
                .iter()
                .find(|(k, l)| !l.waits.is_empty() && !self.cut.contains(*k) && self.places.contains_key(&k.1))
                .map(|(k, _)| k.clone());
            match key {
                Some(key) => {
                    let _ = self.carry(&key, Lane::Urgent) || self.carry(&key, Lane::Routine);
                }
                None if !busy => return,
                None => {}
            }
        }
        let waits = self
            .lines
            .iter()
            .filter_map(|(k, l)| Some((k, String::from_utf8_lossy(l.waits.first()?.draft.parts().1).into_owned())));
        panic!("it never settles: {:?}", waits.collect::<Vec<_>>());
    }

    fn owners(&self, id: &str) -> Vec<&'static str> {
        TREE.into_iter().filter(|n| self.places.get(*n).is_some_and(|p| p.cases.may_step(id))).collect()
    }

    fn check(&self) {
        let ids: BTreeSet<&String> = self.places.values().flat_map(|p| p.cases.held.keys()).collect();
        for id in ids {
            let owners = self.owners(id);
            assert!(owners.len() <= 1, "{id} is owned by {owners:?}");
        }
    }

    fn open(&mut self, at: &str, id: &str, category: &str) {
        let (_, drafts) = self.places[at].cases.open(opening(id, category), Contact::default(), self.now);
        self.commit(at, drafts, None);
    }

    fn ask(&mut self, at: &str, id: &str, verb: Verb, ask: &Ask) -> bool {
        self.next += 1;
        let wish = format!("w{}", self.next);
        match self.places[at].cases.ask(id, verb, ask, &wish, self.now) {
            Ok((_, _, drafts)) => {
                self.commit(at, drafts, None);
                true
            }
            Err(_) => false,
        }
    }

    fn give(&mut self, at: &str, to: &str) -> bool {
        self.ask(at, CASE, Verb::Dispatch, &Ask { to: Some(a(to)), ..by("w", Role::Worker) })
    }

    fn held(&self, at: &str) -> &Held {
        self.places[at].cases.get(CASE).unwrap()
    }

    /// The line to its parent.
    fn cut(&mut self, at: &str) {
        let above = a(at).parent().unwrap().to_string();
        self.cut.extend([(at.to_owned(), above.clone()), (above, at.to_owned())]);
    }
}

/// A case of `c/s/a` that is accepted there, and known above.
fn accepted() -> Net {
    let mut net = Net::new();
    net.open("c/s/a", CASE, "L");
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    net.settle();
    net
}

#[test]
fn what_a_lost_disks_node_owned_is_worked_to_its_close_by_the_box_in_its_place() {
    let mut net = accepted();
    net.replace("c/s/a", 0);
    assert!(net.places["c/s/a"].cases.find(CASE).is_err());
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    let steps: Vec<&str> = net.held("c/s/a").history.iter().map(|e| e.step.as_str()).collect();
    assert_eq!(steps, ["submitted", "accepted", "recovered"], "its history is whole");
    assert!(net.give("c/s/a", "c/s/a"), "dispatched there");
    for (verb, ask) in [
        (Verb::Start, by("h", Role::Worker)),
        (Verb::Resolve, by("h", Role::Worker)),
        (Verb::Evaluate, by("r", Role::Resident)),
        (Verb::Close, by("boss", Role::Supervisor)),
    ] {
        assert!(net.ask("c/s/a", CASE, verb, &ask), "{verb}");
    }
    net.settle();
    assert_eq!(net.held("c").case, net.held("c/s/a").case);
    assert_eq!((net.held("c").case.status, net.held("c").history.len()), (Status::Closed, 8));
    let whole = rates_of(&net.places["c"].cases, None).1;
    assert_eq!((whole.dispatched, &whole), (1, &rates_of(&net.places["c/s/a"].cases, None).1));
}

#[test]
fn an_old_hand_over_that_comes_again_to_another_box_is_not_taken() {
    let mut net = accepted();
    assert!(net.give("c/s/a", "c/s/b"));
    net.settle();
    assert!(net.give("c/s/b", "c/s/a"));
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    // Everything that was ever sent to `b` comes again.
    net.replace("c/s/b", usize::MAX);
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    assert_eq!(net.held("c/s/b").case, net.held("c/s/a").case, "it knows what became of it");
    assert_eq!(net.held("c/s/a").case.term, 3);
}

#[test]
fn what_children_send_again_to_another_box_is_not_taken_again() {
    let mut net = Net::new();
    // Its category is the community's: handed up at once.
    net.open("c/s/a/n", CASE, "G");
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    assert!(net.ask("c/s/a", CASE, Verb::Reject, &by("w", Role::Worker)));
    assert!(net.ask("c/s/a/n", CASE, Verb::Comment, &by("n", Role::Worker)));
    net.settle();
    let lines = net.held("c").history.len();
    net.replace("c/s/a", 0);
    net.settle();
    assert_eq!((net.owners(CASE), net.held("c").case.status), (vec!["c/s/a"], Status::Rejected));
    assert_eq!(net.held("c").history.len(), lines + 1, "recovered, and nothing a second time");
}

#[test]
fn a_case_on_its_way_to_a_lost_disk_comes_to_the_box_in_its_place() {
    // From above both, so that the parent sees it pass and nothing else.
    let mut net = Net::new();
    net.open("c", CASE, "L");
    assert!(net.ask("c", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c", "c/s/a"));
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    let mut net = Net::new();
    net.open("c", CASE, "L");
    assert!(net.ask("c", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c", "c/s/a"));
    // It is in the lost disk's log, and its answer nowhere.
    for key in [("c", "c/s"), ("c/s", "c/s/a")] {
        while net.carry(&(key.0.to_owned(), key.1.to_owned()), Lane::Routine) {}
    }
    net.replace("c/s/a", 0);
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    assert_eq!(net.held("c").history.last().unwrap().step, "recovered");
}

#[test]
fn what_the_lost_node_gave_to_one_below_unseen_from_above_stays_there() {
    let mut net = accepted();
    // Cut from above, it gives the case to its neighbourhood, which takes it; then its disk is lost.
    net.cut("c/s/a");
    assert!(net.give("c/s/a", "c/s/a/n"));
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a/n"]);
    net.cut.clear();
    ["c/s/a/n", "c/s/a/k"].into_iter().for_each(|n| net.cut(n));
    net.replace("c/s/a", 0);
    net.settle();
    // Not before everybody below has spoken.
    assert_eq!(net.owners(CASE), ["c/s/a/n"]);
    let awaited = net.places["c/s/a"].cases.awaited().unwrap();
    assert_eq!((awaited.cases, awaited.parent, awaited.nodes.len()), (1, false, 2));
    assert_eq!(net.places["c/s/a"].cases.find(CASE).unwrap_err().error, "not-yet");
    net.cut.clear();
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a/n"]);
    assert_eq!(net.places["c/s/a"].cases.awaited(), None);
    for n in ["c/s/a", "c/s", "c"] {
        assert_eq!(net.held(n).case.owner, a("c/s/a/n"), "{n}");
    }
}

#[test]
fn a_first_box_takes_what_its_children_wrote_before_it_has_heard_from_above() {
    let mut net = Net::empty();
    ["c/s/a", "c/s/a/n"].iter().for_each(|n| net.begin(n));
    net.cut("c/s/a");
    net.open("c/s/a/n", CASE, "G");
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
}

#[test]
fn new_work_of_another_box_does_not_wait_for_what_was_before() {
    let mut net = accepted();
    net.cut("c/s/a/k");
    net.replace("c/s/a", 0);
    net.settle();
    assert!(net.places["c/s/a"].cases.awaited().is_some(), "one below has nothing to say");
    // Its own, one from below, and one from above.
    net.open("c/s/a", "20261120-1", "L");
    net.open("c/s/a/n", "20261120-2", "G");
    net.open("c", "20261120-3", "L");
    assert!(net.ask("c", "20261120-3", Verb::Accept, &by("w", Role::Worker)));
    let to = Ask { to: Some(a("c/s/a")), ..by("w", Role::Worker) };
    assert!(net.ask("c", "20261120-3", Verb::Dispatch, &to));
    net.settle();
    for id in ["20261120-1", "20261120-2", "20261120-3"] {
        assert_eq!(net.owners(id), ["c/s/a"], "{id}");
    }
    assert_eq!(net.owners(CASE), [""; 0]);
}

/// Everything that this line has, in both lanes.
fn drain(net: &mut Net, from: &str, to: &str) {
    let key = (from.to_owned(), to.to_owned());
    while net.carry(&key, Lane::Urgent) || net.carry(&key, Lane::Routine) {}
}

#[test]
fn a_hand_over_that_came_back_is_not_sent_on_by_another_box_where_it_turns() {
    let mut net = Net::empty();
    ["c", "c/s", "c/s/a"].iter().for_each(|n| net.begin(n));
    net.settle();
    net.open("c/s/a", CASE, "L");
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c/s/a", "c/s/b"));
    net.settle();
    assert_eq!(net.held("c/s/a").history.last().unwrap().step, "came-back");
    // The letter comes again, to a box that has not sent it back; later there is such a node.
    net.replace("c/s", 0);
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    net.begin("c/s/b");
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/a"]);
    assert!(net.give("c/s/a", "c/s/b"));
    net.settle();
    assert_eq!(net.owners(CASE), ["c/s/b"]);
}

#[test]
fn a_word_that_a_hand_over_came_back_counts_before_the_roll_is_answered() {
    let mut net = Net::empty();
    ["c", "c/s", "c/s/a"].iter().for_each(|n| net.begin(n));
    net.settle();
    net.open("c/s/a", CASE, "L");
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c/s/a", "c/s/b"));
    drain(&mut net, "c/s/a", "c/s");
    net.due("c/s");
    drain(&mut net, "c/s", "c/s/a");
    assert_eq!(net.owners(CASE), [""; 0], "it has come, and is not decided yet");
    net.replace("c/s", 0);
    // The new box calls, and hears the answer, before the giver has dealt with that word.
    for _ in 0..4 {
        net.due("c/s");
        drain(&mut net, "c/s", "c");
        net.due("c");
        drain(&mut net, "c", "c/s");
        drain(&mut net, "c/s", "c/s/a");
        drain(&mut net, "c/s/a", "c/s");
    }
    net.begin("c/s/b");
    net.settle();
    assert_eq!(net.owners(CASE).len(), 1);
}

fn calls(net: &Net, at: &str) -> usize {
    net.places[at].calls
}

#[test]
fn a_box_in_place_of_another_calls_nobody_for_what_was_called_for_before() {
    for (urgent, again) in [(true, 0), (false, 0), (true, 9), (false, 9)] {
        let mut net = Net::new();
        let new = Opening { sos: urgent, ..opening(CASE, "L") };
        let (_, drafts) = net.places["c/s/a/n"].cases.open(new, Contact::default(), net.now);
        net.commit("c/s/a/n", drafts, None);
        net.settle();
        assert!(net.ask("c/s/a/n", CASE, Verb::Escalate, &by("w", Role::Worker)));
        assert!(net.ask("c/s/a/n", CASE, Verb::Escalate, &by("w", Role::Worker)));
        net.settle();
        assert_eq!((calls(&net, "c/s/a"), calls(&net, "c/s")), (1, 1));
        for (n, below) in [("c/s", "c/s/a"), ("c/s/a", "c/s/a/n"), ("c/s", "c/s/a")] {
            net.replace(n, again);
            // Those below are the first to speak.
            drain(&mut net, below, n);
            net.settle();
            assert_eq!(calls(&net, n), 0, "{n}");
        }
        // What is new is called for.
        assert!(net.ask("c/s/a/n", CASE, Verb::Escalate, &by("w", Role::Worker)));
        net.settle();
        assert_eq!(calls(&net, "c"), 1);
    }
}

#[test]
fn a_box_in_place_of_another_calls_for_what_that_one_may_not_have_heard_of() {
    let mut net = Net::new();
    net.open("c/s/a", CASE, "L");
    net.settle();
    net.cut("c/s/a");
    assert!(net.ask("c/s/a", CASE, Verb::Escalate, &by("w", Role::Worker)));
    net.settle();
    net.replace("c/s", 0);
    net.cut.clear();
    net.settle();
    assert_eq!(calls(&net, "c/s"), 1);
    net.restart("c/s");
    net.settle();
    assert_eq!(calls(&net, "c/s"), 1);
}

#[test]
fn a_box_in_place_of_another_calls_nobody_for_what_is_over_or_has_been_accepted() {
    for last in [Verb::Reject, Verb::Accept] {
        let mut net = Net::new();
        net.open("c/s/a", CASE, "L");
        net.settle();
        net.cut("c/s/a");
        assert!(net.ask("c/s/a", CASE, Verb::Escalate, &by("w", Role::Worker)));
        assert!(net.ask("c/s/a", CASE, last, &by("w", Role::Worker)));
        net.settle();
        net.replace("c/s", 0);
        net.cut.clear();
        drain(&mut net, "c/s/a", "c/s");
        net.settle();
        assert_eq!(calls(&net, "c/s"), 0, "{last}");
    }
}

#[test]
fn a_call_for_help_does_not_wait_for_a_city_that_cannot_be_reached() {
    let mut net = Net::new();
    ["c/s", "c/s/a/n"].into_iter().for_each(|n| net.cut(n));
    let new = Opening { sos: true, ..opening(CASE, "L") };
    let (_, drafts) = net.places["c/s/a"].cases.open(new, Contact::default(), net.now);
    net.replace("c/s", 0);
    net.commit("c/s/a", drafts, None);
    assert!(net.ask("c/s/a", CASE, Verb::Escalate, &by("w", Role::Worker)));
    drain(&mut net, "c/s/a", "c/s");
    net.settle();
    assert_eq!(calls(&net, "c/s"), 1);
    assert!(net.places["c/s"].cases.awaited().is_some());
}

#[derive(Clone, Debug)]
enum Act {
    Open(usize, usize),
    Ask(usize, usize, Verb, usize),
    Carry(usize, bool),
    Due(usize),
    Restart(usize),
    Replace(usize, usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let verb = prop::sample::select(Verb::ALL);
    let one = prop_oneof![
        4 => (0usize..6, 0usize..3).prop_map(|(n, c)| Act::Open(n, c)),
        3 => (0usize..6, 0usize..3, verb, 0usize..6).prop_map(|(n, c, v, to)| Act::Ask(n, c, v, to)),
        10 => (0usize..6, 0usize..3, Just(Verb::Dispatch), 0usize..6).prop_map(|(n, c, v, to)| Act::Ask(n, c, v, to)),
        4 => (0usize..6, 0usize..3, Just(Verb::Accept), 0usize..6).prop_map(|(n, c, v, to)| Act::Ask(n, c, v, to)),
        1 => (0usize..6, 0usize..3, Just(Verb::Recall), 0usize..6).prop_map(|(n, c, v, to)| Act::Ask(n, c, v, to)),
        40 => (0usize..10, any::<bool>()).prop_map(|(l, urgent)| Act::Carry(l, urgent)),
        15 => (0usize..6).prop_map(Act::Due),
        1 => (0usize..6).prop_map(Act::Restart),
        2 => (1usize..6, 0usize..4).prop_map(|(n, k)| Act::Replace(n, k)),
    ];
    prop::collection::vec(one, 40..250)
}

fn play(net: &mut Net, acts: &[Act]) {
    for (i, act) in acts.iter().enumerate() {
        match act {
            Act::Open(n, c) => {
                let (at, id) = (TREE[*n], format!("20261120-{c}"));
                if net.places.values().all(|p| p.cases.get(&id).is_none()) && !net.is_known(&id) {
                    net.open(at, &id, if i % 2 == 0 { "G" } else { "L" });
                }
            }
            Act::Ask(n, c, verb, to) => {
                let to = a(TREE[*to]);
                let ask = Ask { to: Some(to), ..anything(0, i) };
                net.ask(TREE[*n], &format!("20261120-{c}"), *verb, &ask);
            }
            Act::Carry(line, urgent) => {
                let keys: Vec<_> =
                    net.lines.iter().filter(|(_, l)| !l.waits.is_empty()).map(|(k, _)| k.clone()).collect();
                let Some(key) = keys.get(line % keys.len().max(1)) else { continue };
                let first = if *urgent { Lane::Urgent } else { Lane::Routine };
                let _ = net.carry(key, first) || net.carry(key, Lane::Urgent) || net.carry(key, Lane::Routine);
            }
            Act::Due(n) => {
                net.due(TREE[*n]);
            }
            Act::Restart(n) => net.restart(TREE[*n]),
            Act::Replace(n, again) => net.replace(TREE[*n], *again),
        }
    }
}

impl Net {
    /// Is it on some line, or waiting somewhere? (A number is not given twice.)
    fn is_known(&self, id: &str) -> bool {
        let waits = self.places.values().any(|p| p.cases.waiting.values().any(|l| l.body.case() == id));
        waits
            || self.lines.values().flat_map(|l| &l.sent).any(|r| {
                r.draft.header().name.contains(".case.") && String::from_utf8_lossy(r.draft.parts().1).contains(id)
            })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever is lost: never two owners; in the end one of each case that the city knows, the same
    /// copy at all above it, and the same counts at every tier.
    #[test]
    fn a_case_has_one_owner_also_where_disks_are_lost(acts in acts()) {
        let mut net = Net::new();
        play(&mut net, &acts);
        net.settle();
        for n in TREE {
            let cases = &net.places[n].cases;
            prop_assert!(cases.is_settled() && cases.waiting.is_empty() && cases.inbox.is_empty(), "{}: {:?} {:?} {:?} {:?} owes {:?}", n, cases.succession, cases.awaited(), cases.waiting, cases.inbox, a(n).parent().map(|p| &net.places[p.as_str()].cases.owed));
        }
        let all: Vec<String> = net.places["c"].cases.held.keys().cloned().collect();
        for id in &all {
            let owners = net.owners(id);
            prop_assert_eq!(owners.len(), 1, "{} is owned by {:?}: {:#?}", id, owners, net.places["c"].cases.get(id));
            let theirs = net.places[owners[0]].cases.get(id).unwrap();
            let mut at = Some(a(owners[0]));
            while let Some(n) = at {
                let copy = net.places[n.as_str()].cases.get(id).unwrap();
                prop_assert_eq!(&copy.case, &theirs.case, "at {}", n);
                at = n.parent();
            }
        }
        for n in TREE {
            let cases = &net.places[n].cases;
            let mut sum = RateCounts::default();
            let (rows, whole) = rates_of(cases, None);
            rows.iter().filter(|r| r.key == n).for_each(|r| add(&mut sum, &r.counts));
            for child in TREE.iter().filter(|c| a(c).is_child_of(&a(n))) {
                let (_, part) = rates_of(&net.places[*child].cases, None);
                prop_assert_eq!(&part, &rates_of(cases, Some(child)).1, "{} of {}", n, child);
                add(&mut sum, &part);
            }
            prop_assert_eq!(&sum, &whole, "at {}", n);
        }
    }
}
