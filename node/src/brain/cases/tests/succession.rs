//! Boxes that lose their disks, in trees whose links keep their word: in order by lane, once into each
//! log; a box with an empty disk gets again what its children have, and the last that its parent sent.

mod categories;
mod comes;
mod contacts;
mod lent;
mod offered;
mod orders;
mod recalled;
mod restored;
mod unheard;

use super::*;
use citybrain_hub::state::Peer;
use citybrain_shared::wire::Epoch;
use citybrain_shared::{Inc, Lane, Pos};

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
    log: LogId,
    pos: u64,
    seen: HashSet<u64>,
    keys: HashSet<u64>,
    heard: BTreeSet<String>,
    former: BTreeMap<String, Vec<Inc>>,
    /// What its responders were called for.
    called: HashSet<u64>,
}

#[derive(Default)]
struct Line {
    waits: Vec<Carried>,
    sent: Vec<Carried>,
    came: Vec<Carried>,
}

/// A node's disk, as a backup has it.
struct Backup {
    at: String,
    inc: Inc,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pos: u64,
    seen: HashSet<u64>,
    keys: HashSet<u64>,
    called: HashSet<u64>,
    sent: BTreeMap<String, Vec<Carried>>,
    came: HashSet<(String, u64)>,
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
            log: LogId(self.next.into()),
            pos: 0,
            seen: HashSet::new(),
            keys: HashSet::new(),
            heard: BTreeSet::from([at.to_owned()]),
            former: BTreeMap::new(),
            called: HashSet::new(),
        };
        self.places.insert(at.to_owned(), place);
        self.begin_history(at);
        self.start(at);
    }

    /// As the fold of the note that says so.
    fn begin_history(&mut self, at: &str) {
        self.next += 1;
        let place = self.places.get_mut(at).unwrap();
        place.log = LogId(self.next.into());
        place.cases.begin_history(place.log, Pos(1), 0);
    }

    fn start(&mut self, at: &str) {
        let way = if at == "c" { Direction::Local } else { Direction::Up };
        let word = presence(at, self.places[at].inc.0);
        let header = Header { direction: way, ..word.header() };
        self.commit(at, vec![Draft::new(&header, word.parts().1).unwrap()], None);
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

    /// What is on its disk now.
    fn backup(&mut self, at: &str) -> Backup {
        let lines = self.lines.iter().filter(|((from, to), _)| from == at || to == at);
        let (mut sent, mut came) = (BTreeMap::new(), HashSet::new());
        for ((from, to), line) in lines {
            if from == at {
                sent.insert(to.clone(), line.sent.clone());
            } else {
                came.extend(line.came.iter().map(|r| (from.clone(), r.n)));
            }
        }
        self.write_rows(at);
        let place = &self.places[at];
        Backup {
            at: at.to_owned(),
            inc: place.inc,
            rows: place.rows.clone(),
            pos: place.pos,
            seen: place.seen.clone(),
            keys: place.keys.clone(),
            called: place.called.clone(),
            sent,
            came,
        }
    }

    /// The disk is again as it was then: what was written since is nowhere but where it has come, and whatever has
    /// come since comes again.
    fn restore(&mut self, backup: &Backup) {
        let at = backup.at.as_str();
        let mut cases = node(at);
        backup.rows.iter().for_each(|(key, value)| cases.load_row(key, value).unwrap());
        let place = self.places.get_mut(at).unwrap();
        place.cases = cases;
        place.rows.clone_from(&backup.rows);
        place.pos = backup.pos;
        place.seen.clone_from(&backup.seen);
        place.keys.clone_from(&backup.keys);
        place.called.clone_from(&backup.called);
        for ((from, to), line) in &mut self.lines {
            if from == at {
                let came: HashSet<u64> = line.came.iter().map(|r| r.n).collect();
                line.sent = backup.sent.get(to).cloned().unwrap_or_default();
                line.waits = line.sent.iter().filter(|r| !came.contains(&r.n)).cloned().collect();
            } else if to == at {
                line.came.retain(|r| backup.came.contains(&(from.clone(), r.n)));
                let is_there = |r: &&Carried| backup.came.contains(&(from.clone(), r.n));
                line.waits = line.sent.iter().filter(|r| !is_there(r)).cloned().collect();
            }
        }
        self.begin_history(at);
        self.start(at);
    }

    fn write_rows(&mut self, at: &str) {
        let place = self.places.get_mut(at).unwrap();
        for (key, value) in place.cases.take_rows() {
            match value {
                Some(value) => place.rows.insert(key, value),
                None => place.rows.remove(&key),
            };
        }
    }

    /// A kill and a start: rows are as good as memory.
    fn restart(&mut self, at: &str) {
        self.write_rows(at);
        let place = self.places.get_mut(at).unwrap();
        let mut anew = node(at);
        place.rows.iter().for_each(|(key, value)| anew.load_row(key, value).unwrap());
        assert_eq!(anew.iter().collect::<Vec<_>>(), place.cases.iter().collect::<Vec<_>>());
        assert_eq!(
            (&anew.due, &anew.succession, &anew.owed, &anew.rolls, &anew.uncalled),
            (&place.cases.due, &place.cases.succession, &place.cases.owed, &place.cases.rolls, &place.cases.uncalled)
        );
        assert_eq!((&anew.waits, &anew.unheard), (&place.cases.waits, &place.cases.unheard));
        assert_eq!((anew.inbox.len(), anew.waiting.len()), (place.cases.inbox.len(), place.cases.waiting.len()));
        place.cases = anew;
        self.start(at);
    }

    fn state(&self, at: &str) -> State {
        let place = &self.places[at];
        let mut state = State::default();
        state.me.inc = place.inc;
        state.me.epochs.push(Epoch { log: place.log, first: Pos(1) });
        state.registry = registry(place.heard.iter().map(|n| a(n)).filter(|n| a(at).covers(n)));
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
        let group = group_of(&self.places[at].cases, &state, self.now, drafts, origin);
        let place = self.places.get_mut(at).unwrap();
        for (origin, draft) in &group {
            place.pos += 1;
            let pos = Pos(place.pos);
            with_origin(draft, origin.as_deref(), |h, p| place.cases.apply(pos, h, p));
            place.keys.insert(draft.header().key);
            let h = draft.header();
            let again = h.name == letter::CALL && origin.is_none() && !place.called.insert(h.key);
            assert!(!again, "{at} calls twice for {}", String::from_utf8_lossy(draft.parts().1));
        }
        for (origin, draft) in group {
            self.next += 1;
            let n = from.filter(|_| origin.is_some()).map_or(self.next, |f| f.n);
            let origin = origin.unwrap_or_else(|| format!("{at} {}", self.places[at].log.0));
            self.send(at, Carried { n, origin, draft });
        }
        self.check();
    }

    fn send(&mut self, at: &str, record: Carried) {
        for next in next_of(&TREE, at, &record.draft) {
            // Nobody there yet: it lies in the log.
            let line = self.lines.entry((at.to_owned(), next)).or_default();
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
        place.heard.insert(record.origin.split(' ').next().unwrap().to_owned());
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

    fn owners(&self, id: &str) -> Vec<&str> {
        owners_of(TREE.into_iter().filter_map(|n| Some((n, &self.places.get(n)?.cases))), id)
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

    /// By a button, of nobody who can be called.
    fn press(&mut self, at: &str, id: &str) {
        let new = Opening { sos: true, button: Some("b".into()), ..opening(id, "") };
        let (_, drafts) = self.places[at].cases.open(new, Contact::default(), self.now);
        self.commit(at, drafts, None);
    }

    /// Of somebody who can be called.
    fn open_with_phone(&mut self, at: &str, id: &str, category: &str) {
        let new = Opening { has_contact: true, ..opening(id, category) };
        let contact = Contact { phone: "139".into(), ..Contact::default() };
        let (_, drafts) = self.places[at].cases.open(new, contact, self.now);
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

const ABOVE: [&str; 3] = ["c/s/a", "c/s", "c"];

impl Net {
    /// A press at that node that somebody there has accepted and dealt with.
    fn pressed_and_closed(at: &str, worker: &str) -> Net {
        let mut net = Net::new();
        net.press(at, CASE);
        assert!(net.ask(at, CASE, Verb::Accept, &by(worker, Role::Worker)));
        for (verb, ask) in until_closed(worker) {
            assert!(net.ask(at, CASE, verb, &ask), "{verb}");
        }
        net.settle();
        net
    }

    /// A press at that node, from which nothing goes or comes any more; at the desk somebody says that he comes.
    fn pressed_and_accepted(at: &str, desk: &str) -> Net {
        let mut net = Net::new();
        net.press(at, CASE);
        net.settle();
        net.cut(at);
        assert!(net.ask(desk, CASE, Verb::Accept, &by("街长", Role::Worker)));
        net.settle();
        net
    }

    /// He has accepted it once, nobody else was called above, and nothing waits.
    fn comes(&self, at: &str, told: &str) {
        for n in ABOVE.into_iter().chain([at]) {
            let held = self.held(n);
            assert_eq!(held.case.accepted_by.as_deref(), Some("街长"), "{told}: {n}: {held:?}");
            assert_eq!((held.coming.len(), held.wishes.len()), (0, 0), "{told}: {n}: {held:?}");
            let accepted = held.history.iter().filter(|e| e.step == Verb::Accept.done()).count();
            assert_eq!(accepted, 1, "{told}: {n}: {:?}", held.history);
            assert!(n == at || self.places[n].called.is_empty(), "{told}: {n} was called");
        }
    }
}

#[test]
fn whoever_comes_to_a_press_comes_though_its_box_has_lost_its_disk() {
    let at = "c/s/a/n";
    // His word waits above; was done and lost with the disk; and comes again besides.
    for (was_there, again) in [(false, 0), (true, 0), (true, 100)] {
        for desk in ABOVE {
            let mut net = Net::pressed_and_accepted(at, desk);
            if was_there {
                net.cut.remove(&("c/s/a".to_owned(), at.to_owned()));
                net.settle();
                assert_eq!(net.held(at).case.status, Status::Accepted);
            }
            net.replace(at, again);
            net.cut.clear();
            net.settle();
            net.comes(at, &format!("at {desk}, was there: {was_there}, again: {again}"));
        }
    }
}

#[test]
fn whoever_comes_to_a_press_comes_though_a_box_on_the_way_has_lost_its_disk() {
    let at = "c/s/a/n";
    for desk in ABOVE {
        let mut net = Net::pressed_and_accepted(at, desk);
        net.replace("c/s/a", 0);
        net.settle();
        assert_eq!(net.held("c/s/a").coming.len(), 1, "the new box knows of him: {desk}");
        net.now += 3_600_000_000;
        net.settle();
        net.cut.clear();
        net.settle();
        net.comes(at, desk);
    }
}

#[test]
fn whom_to_call_is_lost_with_the_box_that_kept_it_and_everybody_hears_of_it() {
    let at = "c/s/a/n";
    let phone = || Contact { phone: "139".into(), ..Contact::default() };
    let new = |id: &str| Opening { sos: true, button: Some("b".into()), ..opening(id, "") };
    let mut net = Net::new();
    let first = Opening { has_contact: true, ..new(CASE) };
    let (_, drafts) = net.places[at].cases.open(first, phone(), net.now);
    net.commit(at, drafts, None);
    net.settle();
    let lost =
        |net: &Net| ABOVE.into_iter().chain([at]).map(|n| net.held(n).case.contact_lost.clone()).collect::<Vec<_>>();
    assert_eq!(lost(&net), vec![None; 4]);
    net.replace(at, 0);
    net.settle();
    assert_eq!(lost(&net), vec![Some(a(at)); 4]);
    // Who presses again says it anew.
    let (_, drafts) = net.places[at].cases.pressed_again(&new("2"), &phone(), net.now).unwrap();
    net.commit(at, drafts, None);
    net.settle();
    assert_eq!(lost(&net), vec![None; 4]);
    assert!(net.held("c").case.contact_came && net.held(at).contact == Some(phone()));
}

#[test]
fn whoever_takes_it_back_is_not_who_has_accepted_it_though_the_box_has_lost_its_disk() {
    let at = "c/s/a/n";
    for (desk, who, role) in [("c/s", "街长", Role::Worker), ("c", "市长", Role::Supervisor)] {
        let mut net = Net::pressed_and_accepted(at, "c/s");
        net.now += 3_600_000_000;
        net.settle();
        assert!(net.ask(desk, CASE, Verb::Escalate, &by(who, role)));
        net.settle();
        net.replace(at, 0);
        net.cut.clear();
        net.settle();
        for n in ABOVE.into_iter().chain([at]) {
            let held = net.held(n);
            assert_eq!((held.case.status, held.coming.len()), (Status::Submitted, 0), "{who}: {n}: {held:?}");
            assert!(!net.places[n].called.is_empty(), "{who}: {n} was called");
        }
        assert_eq!(net.places[at].called.len(), 1, "{who}: once");
        assert!(
            net.held(at).history.iter().all(|e| e.step != Verb::Accept.done()),
            "{who}: {:?}",
            net.held(at).history
        );
    }
}

#[test]
fn a_press_that_is_reopened_while_its_box_is_lost_is_opened_again_by_the_one_in_its_place() {
    let at = "c/s/a/n";
    for (says, who, role) in
        [("c/s/a", "r", Role::Resident), ("c", "r", Role::Resident), ("c/s", "街长", Role::Supervisor)]
    {
        // It is said before the new box stands there, or while that waits for what the one above knows.
        for is_before in [true, false] {
            let told = format!("{who} at {says}, before: {is_before}");
            let mut net = Net::new();
            net.press(at, CASE);
            assert!(net.ask(at, CASE, Verb::Accept, &by("街长", Role::Worker)));
            for (verb, ask) in until_closed("w") {
                assert!(net.ask(at, CASE, verb, &ask), "{verb}");
            }
            net.settle();
            said_of_a_dead_box(&mut net, at, is_before, &told, |net| net.ask(says, CASE, Verb::Reopen, &by(who, role)));
            for n in ABOVE.into_iter().chain([at]) {
                let held = net.held(n);
                assert_eq!((held.case.status, held.wishes.len()), (Status::Submitted, 0), "{told}: {n}: {held:?}");
                let reopened = held.history.iter().filter(|e| e.step == Verb::Reopen.done()).count();
                assert_eq!((held.case.reopened, reopened), (1, 1), "{told}: {n}");
            }
            assert_eq!(net.places[at].called.len(), 1, "{told}");
            assert_eq!(ABOVE.map(|n| net.places[n].called.len()), [1; 3], "once: {told}");
        }
    }
}

#[test]
fn a_press_that_comes_back_to_a_new_box_calls_those_above_it_though_they_were_called_while_it_was_on_its_way() {
    let mut net = Net::new();
    net.press("c/s/a", CASE);
    assert!(net.ask("c/s/a", CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give("c/s/a", "c/s/b"));
    net.settle();
    net.cut("c/s/a");
    assert!(net.ask("c/s/b", CASE, Verb::Return, &by("w", Role::Worker)));
    net.settle();
    net.now += 31_000_000;
    net.settle();
    assert_eq!(["c/s", "c"].map(|n| net.places[n].called.len()), [1, 0], "on its way");
    net.replace("c/s/a", 0);
    net.cut.clear();
    net.settle();
    assert_eq!((net.owners(CASE), net.held("c/s/a").case.status), (vec!["c/s/a"], Status::Submitted));
    for called in [[2, 0], [2, 1]] {
        assert_eq!(["c/s", "c"].map(|n| net.places[n].called.len()), called);
        net.now += 30_000_000;
        net.settle();
    }
}

/// Something is said of the press of a box that is cut off and then replaced, before that or after: all above are
/// called for it, and then the box hears.
fn said_of_a_dead_box(net: &mut Net, at: &str, is_before: bool, told: &str, says: impl Fn(&mut Net) -> bool) {
    net.cut(at);
    if !is_before {
        net.replace(at, 0);
    }
    assert!(says(net), "{told}");
    net.settle();
    net.now += LISTENS_US;
    net.settle();
    assert_eq!(ABOVE.map(|n| net.places[n].called.len()), [1; 3], "{told}");
    if is_before {
        net.replace(at, 0);
    }
    net.cut.clear();
    net.settle();
}

#[test]
fn whoever_has_accepted_a_press_and_takes_it_back_is_heard_by_the_box_in_place_of_the_one_that_had_answered_him() {
    let at = "c/s/a/n";
    for (desk, says, who, role) in [
        ("c/s", "c/s", "街长", Role::Worker),
        ("c/s/a", "c", "市长", Role::Supervisor),
        (at, "c/s", "街长", Role::Worker),
    ] {
        // He says it before the new box stands there, or while that waits for what the one above knows.
        for is_before in [true, false] {
            let told = format!("accepted at {desk}, {who} at {says}, before: {is_before}");
            let mut net = Net::new();
            net.press(at, CASE);
            net.settle();
            assert!(net.ask(desk, CASE, Verb::Accept, &by("街长", Role::Worker)));
            net.settle();
            said_of_a_dead_box(&mut net, at, is_before, &told, |net| {
                net.ask(says, CASE, Verb::Escalate, &by(who, role))
            });
            for n in ABOVE.into_iter().chain([at]) {
                let held = net.held(n);
                assert_eq!((held.case.status, held.wishes.len()), (Status::Submitted, 0), "{told}: {n}: {held:?}");
            }
            assert!(!net.places[at].called.is_empty(), "{told}");
            assert_eq!(ABOVE.map(|n| net.places[n].called.len()), [1; 3], "once: {told}");
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Open(usize, usize),
    Ask(usize, usize, Verb, usize),
    Carry(usize, bool),
    Due(usize),
    Restart(usize),
    Replace(usize, usize),
    Backup(usize),
    Restore(usize),
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
        3 => (1usize..6).prop_map(Act::Backup),
        3 => (1usize..6).prop_map(Act::Restore),
    ];
    prop::collection::vec(one, 40..250)
}

fn play(net: &mut Net, acts: &[Act], categories: &[&str]) {
    let mut backups: BTreeMap<&str, Backup> = BTreeMap::new();
    for (i, act) in acts.iter().enumerate() {
        match act {
            Act::Open(n, c) => {
                let (at, id) = (TREE[*n], format!("20261120-{c}"));
                if net.places.values().all(|p| p.cases.get(&id).is_none()) && !net.is_known(&id) {
                    net.open_with_phone(at, &id, categories[i % categories.len()]);
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
            Act::Backup(n) => drop(backups.insert(TREE[*n], net.backup(TREE[*n]))),
            Act::Restore(n) => {
                let at = TREE[*n];
                if let Some(backup) = backups.get(at).filter(|backup| backup.inc == net.places[at].inc) {
                    net.restore(backup);
                }
            }
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
    /// copy at all above it, the same counts at every tier, no wish done twice, and whom to call where it belongs.
    #[test]
    fn a_case_has_one_owner_also_where_disks_are_lost(acts in acts()) {
        let mut net = Net::new();
        play(&mut net, &acts, &["G", "L", "R", "nobody's"]);
        net.settle();
        for n in TREE {
            let cases = &net.places[n].cases;
            prop_assert!(cases.is_settled() && cases.waiting.is_empty() && cases.inbox.is_empty(), "{}: {:?} {:?} {:?} {:?} owes {:?}", n, cases.succession, cases.awaited(), cases.waiting, cases.inbox, a(n).parent().map(|p| &net.places[p.as_str()].cases.owed));
        }
        for (n, place) in &net.places {
            for held in place.cases.held.values() {
                let done: Vec<&String> = held.history.iter().filter_map(|e| e.wish.as_ref()).collect();
                prop_assert_eq!(done.iter().collect::<HashSet<_>>().len(), done.len(), "{}: {:?}", n, done);
            }
        }
        agree(&TREE, &|n| &net.places[n].cases)?;
        contacts::belong(&net)?;
        rates_add_up(&TREE, &|n| &net.places[n].cases)?;
    }

    /// Also of what stays below, where nobody above can tell a new box of it.
    #[test]
    fn all_who_know_a_case_know_the_whole_of_its_history_also_where_disks_are_lost(
        (giver, taker) in prop::sample::select(vec![("c/s", "c/s/a"), ("c/s", "c/s/a/k"), ("c/s/a", "c/s/a/n")]),
        acts in acts(),
    ) {
        let mut net = Net::new();
        net.open(giver, CASE, "N");
        prop_assert!(net.ask(giver, CASE, Verb::Accept, &by("w", Role::Worker)) && net.give(giver, taker));
        play(&mut net, &acts, &["N", "L"]);
        net.settle();
        histories_agree(&TREE, &|n| &net.places[n].cases)?;
    }
}

#[test]
fn a_press_that_comes_back_to_its_own_box_calls_there_unless_somebody_comes() {
    let at = "c/s/a/n";
    for is_restored in [false, true] {
        for accepted_at in [None, Some(at), Some("c/s")] {
            for is_cut in [false, true] {
                let told = format!("restored: {is_restored}, accepted at: {accepted_at:?}, cut: {is_cut}");
                let mut net = Net::new();
                let backup = net.backup(at);
                net.press(at, CASE);
                net.settle();
                if is_cut {
                    net.cut(at);
                }
                if let Some(desk) = accepted_at {
                    assert!(net.ask(desk, CASE, Verb::Accept, &by("街长", Role::Worker)));
                    net.settle();
                }
                match is_restored {
                    true => net.restore(&backup),
                    false => net.replace(at, 0),
                }
                net.cut.clear();
                net.settle();
                // What nobody outside has heard is lost with the disk.
                let is_known = accepted_at.is_some_and(|desk| desk != at || !is_cut);
                assert_eq!(net.places[at].called.len(), usize::from(!is_known), "{told}");
                net.restart(at);
                net.settle();
                assert_eq!(net.places[at].called.len(), usize::from(!is_known), "once: {told}");
            }
        }
    }
}

#[test]
fn a_box_that_has_lost_what_it_did_with_a_case_that_is_below_learns_it_of_whoever_has_the_case() {
    for is_restored in [false, true] {
        for (owner, ends) in [("c/s/a", false), ("c/s/a/n", false), ("c/s/a", true)] {
            let mut net = Net::new();
            let backup = net.backup("c/s");
            net.open("c/s", CASE, "N");
            assert!(net.ask("c/s", CASE, Verb::Comment, &by("w", Role::Worker)));
            assert!(net.ask("c/s", CASE, Verb::Accept, &by("w", Role::Worker)));
            assert!(net.give("c/s", owner));
            net.settle();
            if ends {
                assert!(net.ask(owner, CASE, Verb::Withdraw, &by("boss", Role::Supervisor)));
                net.settle();
            }
            let before = net.held("c/s").history.clone();
            assert_eq!(before, net.held(owner).history);
            match is_restored {
                true => net.restore(&backup),
                false => net.replace("c/s", 0),
            }
            net.settle();
            assert_eq!(net.held("c/s").history, before, "{owner}, restored: {is_restored}, is over: {ends}");
            assert_eq!(net.held(owner).history, before);
            assert!(net.places["c/s"].called.is_empty());
        }
    }
}

#[test]
fn what_a_box_wrote_before_it_gave_a_case_to_one_below_is_known_above_though_its_disk_is_lost() {
    for is_restored in [false, true] {
        for was_taken in [false, true] {
            let at = "c/s/a";
            let mut net = Net::new();
            net.open(at, CASE, "L");
            net.settle();
            let backup = net.backup(at);
            net.cut(at);
            if !was_taken {
                net.cut("c/s/a/n");
                net.cut.remove(&(at.to_owned(), "c/s/a/n".to_owned()));
            }
            assert!(net.ask(at, CASE, Verb::Accept, &by("w", Role::Worker)));
            assert!(net.give(at, "c/s/a/n"));
            net.settle();
            match is_restored {
                true => net.restore(&backup),
                false => net.replace(at, 0),
            }
            net.cut.clear();
            net.settle();
            let steps = |n: &str| net.held(n).history.iter().map(|e| e.step.clone()).collect::<Vec<_>>();
            let all = ["submitted", "accepted", "dispatched", "taken"];
            for n in ABOVE.into_iter().chain(["c/s/a/n"]) {
                assert_eq!(steps(n), all, "{n}, restored: {is_restored}, was taken: {was_taken}");
            }
        }
    }
}

#[test]
fn whoever_has_a_case_hears_that_the_box_that_gave_it_has_sent_it_again() {
    let (giver, taker, above) = ("c/s/a/n", "c/s/a/k", "c/s/a");
    let line = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let mut net = Net::new();
    net.open(giver, CASE, "L");
    net.settle();
    let backup = net.backup(giver);
    net.cut(taker);
    assert!(net.ask(giver, CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give(giver, taker));
    net.settle();
    // It hears from above that the case is on its way, and sends it again; by then the case was taken.
    net.restore(&backup);
    net.cut.insert(line(above, giver));
    net.settle();
    net.cut.remove(&line(above, giver));
    net.cut.insert(line(giver, above));
    net.settle();
    net.cut.retain(|(from, _)| from == giver);
    net.settle();
    net.cut.clear();
    net.settle();
    let steps = |n: &str| net.held(n).history.iter().map(|e| e.step.clone()).collect::<Vec<_>>();
    for n in ABOVE.into_iter().chain([giver, taker]) {
        assert_eq!(steps(n), ["submitted", "accepted", "dispatched", "sent-again", "taken"], "{n}");
    }
}
