//! The machine alone, and trees of it with everything that links may do to records.

mod again;
mod apart;
mod bounds;
mod counted;
mod following;
mod forgetting;
mod handing;
mod life;
mod offered;
mod said;
mod succession;
mod terms;
mod trees;
mod wishes;

use super::counts::Scope;
use super::letter::{PREFIX, Pen};
use super::machine::{Opening, Stepped};
use super::rates::{Question, add, count};
use super::*;
use crate::brain::services::Services;
use citybrain_hub::policy::Policy as _;
use citybrain_hub::state::{Known, Presence, State};
use citybrain_shared::case::{Ask, Booked, Booking, ClosedReason, Kind, Role, Satisfied, Solved, Status};
use citybrain_shared::config::{Variables, parse};
use citybrain_shared::record::{Draft, Origin};
use citybrain_shared::view::{self, CaseAccount, GroupBy, RateCounts, RatePeriod};
use citybrain_shared::{LogId, Pos, Selector, Tier};
use proptest::prelude::*;

const CATEGORIES: &str = r#"
[[category]]
code = "G"
name = "垃圾"
tier = "community"
response = "2h"
dispatch = "1h"
solution = "4wh"
[[category]]
code = "L"
name = "路灯"
solution = "1wd"
[[category]]
code = "N"
name = "噪音"
reach = "community"
[[category]]
code = "R"
name = "井盖"
contact_reach = "street"
[[category]]
code = "X"
name = "演练"
solution = "1wd"
counted = false
[[service]]
code = "S"
name = "理发"
starts = "2026-12-05 09:00"
places = 1
"#;

/// Friday 2026-11-20 10:00 in Chengdu.
const START: i64 = 1_795_140_000_000_000;

fn node(address: &str) -> Cases {
    let text = format!("[node]\naddress = \"{address}\"\ndata = \"d\"\n{CATEGORIES}");
    let parsed = parse(&text, &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    // It has been up for long.
    Cases { started_us: Some(0), ..Cases::new(&parsed.config.unwrap()) }
}

/// A node's word of its start, as that folder.
fn presence(at: &str, inc: u128) -> Draft {
    let about = Presence {
        address: a(at),
        name: String::new(),
        code: None,
        labels: citybrain_shared::selector::Labels::new(),
        inc: citybrain_shared::Inc(inc),
        version: String::new(),
    };
    let (direction, reach) = (Direction::Up, Tier::City);
    let kind = citybrain_shared::record::Kind::Presence;
    let header = Header { direction, reach, lane: Lane::Urgent, ..Header::local(kind, "city.brain.node") };
    Draft::new(&header, serde_json::json!({"data": about}).to_string().as_bytes()).unwrap()
}

fn a(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn by(name: &str, role: Role) -> Ask {
    Ask { by: name.into(), role: Some(role), text: Some("t".into()), ..Ask::default() }
}

/// What becomes of a case that somebody has accepted, until it is closed.
fn until_closed(worker: &str) -> [(Verb, Ask); 5] {
    [
        (Verb::Dispatch, by(worker, Role::Worker)),
        (Verb::Start, by(worker, Role::Worker)),
        (Verb::Resolve, by(worker, Role::Worker)),
        (Verb::Evaluate, Ask { solved: Some(Solved::Solved), ..by("r", Role::Resident) }),
        (Verb::Close, by("boss", Role::Supervisor)),
    ]
}

/// What a case took when it was stepped last.
fn allowed(case: &Case) -> Vec<Verb> {
    node(case.owner.as_str()).book().allowed(case, case.changed)
}

fn opening(id: &str, category: &str) -> Opening {
    Opening { id: id.into(), by: "resident".into(), category: category.into(), title: "t".into(), ..Opening::default() }
}

/// `origin` is an address, or one with the number of its history behind a blank: another box there.
fn with_origin<R>(draft: &Draft, origin: Option<&str>, look: impl FnOnce(&Header<'_>, &[u8]) -> R) -> R {
    let (header, payload) = draft.parts();
    let origin = origin.map(|origin| origin.split_once(' ').unwrap_or((origin, "1")));
    let origin = origin.map(|(address, log)| Origin { address, log: LogId(log.parse().unwrap()), pos: Pos(1) });
    look(&Header { origin, ..header }, payload)
}

fn rates_of(cases: &Cases, under: Option<&str>) -> (Vec<view::RateRow>, RateCounts) {
    let by = GroupBy::Node;
    let question =
        Question { by, period: RatePeriod::Day, of: None, under: under.map(a), category: None, compare: false };
    let (rows, total) = rated(cases, question);
    (rows, total.now.counts)
}

/// Long after all limits.
fn rated(cases: &Cases, question: Question) -> (Vec<view::RateRow>, view::RateRow) {
    let mut counting = rates::Counting::new(question);
    let late = view::time_of(START + 400 * 86_400_000_000);
    cases.iter().for_each(|h| counting.add(cases, &h.case, &|_| None, late));
    counting.done(&cases.settings, &[], &|key| (key == "all").then_some(20_000))
}

fn stats_of(cases: &Cases, by: GroupBy, now: DateTime<Utc>) -> (Vec<view::StatsRow>, view::StatsRow) {
    let mut counting = counts::Counting::new(by, Scope::default());
    cases.iter().for_each(|h| counting.add(cases, &h.case, &district, now));
    counting.done()
}

fn district(of: &Address) -> Option<String> {
    a("c/s/a").covers(of).then(|| "温江区".into())
}

fn counts(r: &view::StatsRow) -> [u64; 11] {
    [
        r.cases,
        r.open,
        r.closed,
        r.rejected,
        r.withdrawn,
        r.overdue,
        r.with_limit,
        r.in_time,
        r.late,
        r.returned,
        r.reopened,
    ]
}

fn plus(a: [u64; 11], b: [u64; 11]) -> [u64; 11] {
    std::array::from_fn(|i| a[i] + b[i])
}

/// What a node's state knows of these.
fn registry(nodes: impl Iterator<Item = Address>) -> BTreeMap<Address, Known> {
    let known = |(i, node): (usize, Address)| {
        let known = Known {
            ordinal: i as u32,
            name: String::new(),
            tier: node.tier(),
            code: None,
            labels: citybrain_shared::selector::Labels::new(),
            inc: citybrain_shared::Inc(1),
            version: String::new(),
            last_heard_us: 0,
        };
        (node, known)
    };
    nodes.enumerate().map(known).collect()
}

/// What is committed together: records of `origin` (`None`: the node's own), and all that follows.
fn group_of(
    cases: &Cases,
    state: &State,
    now: i64,
    drafts: Vec<Draft>,
    origin: Option<&str>,
) -> Vec<(Option<String>, Draft)> {
    let mut group: Vec<_> = drafts.into_iter().map(|d| (origin.map(str::to_owned), d)).collect();
    let mut from = 0;
    while from < group.len() {
        let decide = |(origin, draft): &(Option<String>, Draft)| {
            with_origin(draft, origin.as_deref(), |h, p| cases.decide(state, now, h, p))
        };
        let more: Vec<Draft> = group[from..].iter().flat_map(decide).collect();
        from = group.len();
        group.extend(more.into_iter().map(|d| (None, d)));
    }
    for (_, draft) in &mut group {
        draft.stamp(now, 0);
        let bytes = draft.parts().1.len();
        assert!(bytes <= citybrain_shared::limits::EVENT_BYTES_MAX, "{bytes} bytes of {}", draft.header().name);
    }
    group
}

/// A node that offers the haircut of [`CATEGORIES`] like this, and its word of that.
fn offering(node: &str, now: i64, starts: &str, place: &str) -> (Config, Draft) {
    let offers = CATEGORIES.replace("starts = \"2026-12-05 09:00\"", &format!("starts = \"{starts}\"{place}"));
    let parsed = parse(&format!("[node]\naddress = \"{node}\"\ndata = \"d\"\n{offers}"), &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    let config = parsed.config.unwrap();
    let word = Services::new(&config).on_due(&State::default(), now).remove(0);
    (config, word)
}

/// One seat of an appointment that `node` offers, asked for.
fn haircut(node: &str) -> Booking {
    Booking {
        node: a(node),
        service: "S".into(),
        name: "理发".into(),
        at: Some("2026-12-05T01:00:00Z".parse().unwrap()),
        until: None,
        seat: Seat::Visitor,
        seats: 1,
        place: None,
        form: BTreeMap::new(),
        state: Booked::Asked,
    }
}

/// Where a record goes from this node, of those that may be there.
fn next_of(nodes: &[&str], at: &str, draft: &Draft) -> Vec<String> {
    let (me, h) = (a(at), draft.header());
    match h.direction {
        Direction::Up => me.parent().filter(|p| h.reach <= p.tier()).map(|p| p.to_string()).into_iter().collect(),
        Direction::Down => {
            let selector = Selector::parse(h.target).unwrap();
            let is_next = |n: &&&str| a(n).is_child_of(&me) && selector.may_reach(&a(n));
            nodes.iter().filter(is_next).map(|n| (*n).to_owned()).collect()
        }
        Direction::Local => Vec::new(),
    }
}

/// Who may step it.
fn owners_of<'n>(all: impl Iterator<Item = (&'n str, &'n Cases)>, id: &str) -> Vec<&'n str> {
    all.filter(|(_, cases)| cases.may_step(id)).map(|(n, _)| n).collect()
}

/// Each case of the city has one owner, and the same copy at every node above that.
fn agree<'n>(nodes: &[&'n str], cases_of: &dyn Fn(&str) -> &'n Cases) -> Result<(), TestCaseError> {
    for held in cases_of("c").iter() {
        let id = &held.case.id;
        let owners = owners_of(nodes.iter().map(|n| (*n, cases_of(n))), id);
        prop_assert_eq!(owners.len(), 1, "{} is owned by {:?}: {:#?}", id, owners, held);
        let theirs = cases_of(owners[0]).get(id).unwrap();
        prop_assert_eq!(&theirs.case.merging, &None, "{} has come, or come back", id);
        let mut at = Some(a(owners[0]));
        while let Some(n) = at {
            prop_assert_eq!(&cases_of(n.as_str()).get(id).unwrap().case, &theirs.case, "at {}", n);
            at = n.parent();
        }
    }
    Ok(())
}

/// Every node that hears of a case, of its owner and those above it, has the whole of its history.
fn histories_agree<'n>(nodes: &[&'n str], cases_of: &dyn Fn(&str) -> &'n Cases) -> Result<(), TestCaseError> {
    for held in nodes.iter().flat_map(|n| cases_of(n).iter().filter(|held| held.case.owner == a(n))) {
        let case = &held.case;
        for n in nodes.iter().filter(|n| a(n).covers(&case.owner) && case.reach <= a(n).tier()) {
            let known = cases_of(n).get(&case.id).map(|above| &above.history);
            prop_assert_eq!(known, Some(&held.history), "{} at {}", case.id, n);
        }
    }
    Ok(())
}

/// At every tier: the whole is the sum of what the node owns and of what each child says.
fn rates_add_up<'n>(nodes: &[&'n str], cases_of: &dyn Fn(&str) -> &'n Cases) -> Result<(), TestCaseError> {
    for n in nodes {
        let (rows, whole) = rates_of(cases_of(n), None);
        let mut sum = RateCounts::default();
        rows.iter().filter(|r| r.key == *n).for_each(|r| add(&mut sum, &r.now.counts));
        for child in nodes.iter().filter(|c| a(c).is_child_of(&a(n))) {
            let (_, part) = rates_of(cases_of(child), None);
            prop_assert_eq!(&part, &rates_of(cases_of(n), Some(child)).1, "{} of {}", n, child);
            add(&mut sum, &part);
        }
        prop_assert_eq!(&sum, &whole, "at {}", n);
        let mut by_row = RateCounts::default();
        rows.iter().for_each(|r| add(&mut by_row, &r.now.counts));
        prop_assert_eq!(&by_row, &whole);
        // What was a day before is as exact, whichever parts have nothing by now.
        let of = |day: &str, compare| {
            let (by, of) = (GroupBy::Category, Some(day.to_owned()));
            rated(cases_of(n), Question { by, period: RatePeriod::Day, of, under: None, category: None, compare })
        };
        let (rows, total) = of("2026-11-21", true);
        let before = of("2026-11-20", false).1.now.counts;
        let mut sum = RateCounts::default();
        rows.iter().filter_map(|r| r.before.as_ref()).for_each(|then| add(&mut sum, &then.counts));
        prop_assert_eq!(&sum, &before);
        prop_assert_eq!(total.before.map(|then| then.counts).unwrap_or_default(), before);
        prop_assert_eq!(&total.now.counts, &of("2026-11-21", false).1.now.counts);
    }
    Ok(())
}

/// A record under way, as the link carries it.
#[derive(Clone)]
struct Flying {
    origin: String,
    draft: Draft,
}

struct Place {
    cases: Cases,
    log: Vec<(Option<String>, Draft)>,
    pos: u64,
    called: HashSet<u64>,
    /// Everything this node ever sent or received, for a second delivery.
    crossed: Vec<(String, Flying)>,
}

/// Nodes and the queues between them, by (from, to).
struct World {
    places: BTreeMap<String, Place>,
    lines: BTreeMap<(String, String), Vec<Flying>>,
    now: i64,
    /// After a restore there are two for a while; nothing below the restored node's own word can help.
    restored: bool,
    has_registry: bool,
    /// µs by which a node's clock is ahead.
    ahead: BTreeMap<&'static str, i64>,
}

const NODES: [&str; 5] = ["c", "c/s", "c/s/a", "c/s/b", "c/s/a/n"];

impl World {
    fn new() -> World {
        let place =
            |a: &str| Place { cases: node(a), log: Vec::new(), pos: 0, called: HashSet::new(), crossed: Vec::new() };
        let places = NODES.iter().map(|a| ((*a).to_owned(), place(a))).collect();
        World {
            places,
            lines: BTreeMap::new(),
            now: START,
            restored: false,
            has_registry: false,
            ahead: BTreeMap::new(),
        }
    }

    /// What the clock of that node says.
    fn now_at(&self, at: &str) -> i64 {
        self.now + self.ahead.get(at).copied().unwrap_or_default()
    }

    /// With a registry, if the world has one: every node has heard of those below it.
    fn state(&self, at: &str) -> State {
        let mut state = State::default();
        if self.has_registry {
            state.registry = registry(NODES.iter().map(|n| a(n)).filter(|n| a(at).covers(n)));
        }
        state
    }

    /// Commits a group at a node: what was decided, what follows from it, and then the timers.
    fn commit(&mut self, at: &str, drafts: Vec<Draft>, origin: Option<&str>) {
        let state = self.state(at);
        let group = group_of(&self.places[at].cases, &state, self.now_at(at), drafts, origin);
        let place = self.places.get_mut(at).unwrap();
        for (origin, draft) in &group {
            place.pos += 1;
            let pos = Pos(place.pos);
            with_origin(draft, origin.as_deref(), |h, p| place.cases.apply(pos, h, p));
            place.log.push((origin.clone(), draft.clone()));
            let h = draft.header();
            let again = h.name == letter::CALL && origin.is_none() && !place.called.insert(h.key);
            assert!(!again || self.restored, "{at} calls twice for {}", String::from_utf8_lossy(draft.parts().1));
        }
        for (origin, draft) in group {
            self.send(at, origin.unwrap_or_else(|| at.to_owned()), draft);
        }
        self.check();
    }

    /// Opens a case at a node, at the start.
    fn open(&mut self, at: &str, new: Opening, contact: Contact) -> Case {
        let (case, drafts) = self.places[at].cases.open(new, contact, START);
        self.commit(at, drafts, None);
        case
    }

    /// The node's disk is again as it was when its log was this.
    fn restore(&mut self, at: &str, backup: Vec<(Option<String>, Draft)>) {
        self.restored = true;
        self.now += 1_000_000;
        let mut old = node(at);
        for (i, (origin, draft)) in backup.iter().enumerate() {
            with_origin(draft, origin.as_deref(), |h, p| old.apply(Pos(i as u64 + 1), h, p));
        }
        let place = self.places.get_mut(at).unwrap();
        (place.cases, place.log) = (old, backup);
    }

    fn send(&mut self, at: &str, origin: String, draft: Draft) {
        for next in next_of(&NODES, at, &draft) {
            let flying = Flying { origin: origin.clone(), draft: draft.clone() };
            self.lines.entry((at.to_owned(), next)).or_default().push(flying);
        }
    }

    fn due(&mut self, at: &str) -> bool {
        let cases = &self.places[at].cases;
        let now = self.now_at(at);
        if cases.next_due_us().is_none_or(|due| due > now) {
            return false;
        }
        let drafts = cases.on_due(&self.state(at), now);
        assert!(!drafts.is_empty(), "{at} says that something is due and does nothing");
        self.commit(at, drafts, None);
        true
    }

    /// As the hub does it: what comes down is told from what is in the log by its source and id.
    fn arrive(&mut self, to: &str, flying: Flying) {
        let (h, log) = (flying.draft.header(), &self.places[to].log);
        if h.direction == Direction::Down && log.iter().any(|(_, known)| known.header().key == h.key) {
            return;
        }
        self.places.get_mut(to).unwrap().crossed.push((to.to_owned(), flying.clone()));
        let origin = flying.origin.clone();
        self.commit(to, vec![flying.draft], Some(&origin));
    }

    /// Everything that is under way comes in, everything that is due is done.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let busy = NODES.iter().any(|n| self.due(n));
            let line = self.lines.iter().find(|(_, q)| !q.is_empty()).map(|(k, _)| k.clone());
            match line {
                Some(key) => {
                    let flying = self.lines.get_mut(&key).unwrap().remove(0);
                    self.arrive(&key.1, flying);
                }
                None if !busy => return,
                None => {}
            }
        }
        panic!("it never settles");
    }

    /// Nobody ever has a case twice.
    fn check(&self) {
        let ids: BTreeSet<&str> =
            self.places.values().flat_map(|p| p.cases.iter()).map(|h| h.case.id.as_str()).collect();
        for id in ids {
            let owners = owners_of(self.places.iter().map(|(n, p)| (n.as_str(), &p.cases)), id);
            assert!(owners.len() <= 1 || self.restored, "{id} is owned by {owners:?}");
        }
    }

    fn ask(&mut self, at: &str, id: &str, verb: Verb, ask: &Ask, wish: &str) -> bool {
        match self.places[at].cases.ask(id, verb, ask, wish, self.now_at(at)) {
            Ok((_, _, drafts)) => {
                self.commit(at, drafts, None);
                true
            }
            Err(_) => false,
        }
    }

    /// A kill and a start: rows are as good as the log.
    fn restart(&mut self, at: &str) {
        let place = self.places.get_mut(at).unwrap();
        let mut anew = node(at);
        for (i, (origin, draft)) in place.log.iter().enumerate() {
            with_origin(draft, origin.as_deref(), |h, p| anew.apply(Pos(i as u64 + 1), h, p));
        }
        let mut from_rows = node(at);
        for (key, value) in anew.take_rows() {
            if let Some(value) = value {
                from_rows.load_row(&key, &value).unwrap();
            }
        }
        let old: Vec<&Held> = place.cases.iter().collect();
        assert_eq!(from_rows.iter().collect::<Vec<_>>(), old);
        assert_eq!((&from_rows.due, &from_rows.waits), (&place.cases.due, &place.cases.waits));
        assert_eq!(from_rows.unheard, place.cases.unheard);
        assert_eq!((&from_rows.open, &from_rows.opened), (&place.cases.open, &place.cases.opened));
        assert_eq!(from_rows.open_since, place.cases.open_since);
        assert_eq!((&from_rows.imported, &from_rows.changed), (&place.cases.imported, &place.cases.changed));
        assert_eq!((&from_rows.over, &from_rows.given), (&place.cases.over, &place.cases.given));
        assert_eq!((&from_rows.buttons, &from_rows.led), (&place.cases.buttons, &place.cases.led));
        assert_eq!(from_rows.forgetting, place.cases.forgetting);
        assert_eq!(from_rows.forgotten, place.cases.forgotten);
        assert_eq!(from_rows.by_button, place.cases.by_button);
        assert_eq!((&from_rows.rests, &from_rows.spots), (&place.cases.rests, &place.cases.spots));
        assert_eq!((&from_rows.limits, from_rows.calls), (&place.cases.limits, place.cases.calls));
        assert_eq!(from_rows.open_by_kind, place.cases.open_by_kind);
        let elsewhere = old.iter().filter(|h| !a(at).covers(&h.case.owner));
        let open = elsewhere.clone().filter(|h| h.case.status.is_open()).count() as u64;
        assert_eq!(place.cases.elsewhere(), (elsewhere.count() as u64, open));
        let counted = |fits: &dyn Fn(&citybrain_shared::case::Case) -> bool| {
            place.cases.open_ones().filter(|h| fits(&h.case)).count() as u64
        };
        let is_below = |c: &citybrain_shared::case::Case| a(at).covers(&c.owner);
        let known = counted(&|c| c.urgent);
        assert_eq!((place.cases.calls.known, place.cases.calls.open), (known, counted(&|c| c.urgent && is_below(c))));
        let waits = |h: &&Held| h.case.urgent && is_below(&h.case) && h.is_unanswered();
        let waits = place.cases.open_ones().filter(waits).count() as u64;
        assert_eq!(place.cases.calls.unaccepted, waits);
        for (kind, open) in Kind::ALL.iter().zip(place.cases.open_by_kind) {
            assert_eq!(open, counted(&|c| c.kind == *kind && is_below(c)), "{kind}");
        }
        assert_eq!(from_rows.inbox.len(), place.cases.inbox.len());
        place.cases = from_rows;
    }
}

#[derive(Clone, Debug)]
enum Move {
    Open(usize, bool),
    Ask(usize, usize, Verb, usize),
    /// The case's owner does what comes next, or one of the steps that may.
    Next(usize),
    /// A record of a line comes in: which line, which place in it, and whether it stays to come again.
    Carry(usize, usize, bool),
    /// A record that came in before comes in again.
    Again(usize, usize),
    Due(usize),
    Wait(u32),
    Restart(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let verb = prop::sample::select(Verb::ALL);
    let one = prop_oneof![
        2 => (0usize..5, any::<bool>()).prop_map(|(n, sos)| Move::Open(n, sos)),
        3 => (0usize..5, 0usize..3, verb, 0usize..5).prop_map(|(n, c, v, to)| Move::Ask(n, c, v, to)),
        6 => (0usize..5, 0usize..3, Just(Verb::Dispatch), 0usize..5).prop_map(|(n, c, v, to)| Move::Ask(n, c, v, to)),
        3 => (0usize..5, 0usize..3, Just(Verb::Accept), 0usize..5).prop_map(|(n, c, v, to)| Move::Ask(n, c, v, to)),
        30 => (0usize..3).prop_map(Move::Next),
        20 => (0usize..8, 0usize..4, any::<bool>()).prop_map(|(l, i, again)| Move::Carry(l, i, again)),
        3 => (0usize..5, any::<usize>()).prop_map(|(n, i)| Move::Again(n, i)),
        10 => (0usize..5).prop_map(Move::Due),
        2 => (1u32..100_000).prop_map(Move::Wait),
        1 => (0usize..5).prop_map(Move::Restart),
    ];
    prop::collection::vec(one, 20..200)
}

/// Everything that a wish could need, so that every verb has its chance.
fn anything(to: usize, i: usize) -> Ask {
    Ask {
        by: format!("p{}", i % 4),
        role: Some([Role::Worker, Role::Supervisor, Role::Resident, Role::Supervisor][i % 4]),
        text: Some("t".into()),
        to: Some(a(NODES[to])),
        passed: Some(!i.is_multiple_of(3)),
        solved: Some(Solved::ALL[i % 3]),
        satisfied: Some(Satisfied::ALL[i % 3]),
        approved_by: Some("boss".into()),
        limit: Some("2h".into()),
        rating: Some(3),
        into: Some("20261120-0".into()),
        hand_over: i.is_multiple_of(2),
        contacted: true,
        ..Ask::default()
    }
}

/// What takes a case on, the later steps first; each by one who may. Now and then it is closed before anybody
/// is asked, begun again, left out, given back or over in another way.
fn steps_on(i: usize) -> Vec<(Verb, Ask)> {
    let (worker, boss) = (|| by("w", Role::Worker), || by("boss", Role::Supervisor));
    let says =
        Ask { solved: Some(Solved::ALL[i % 3]), satisfied: Some(Satisfied::ALL[i / 3 % 3]), ..by("r", Role::Resident) };
    let mut all = vec![
        (Verb::Evaluate, says),
        (Verb::Close, boss()),
        (Verb::Verify, Ask { passed: Some(!i.is_multiple_of(3)), ..boss() }),
        (Verb::Resolve, worker()),
        (Verb::Start, Ask { contacted: true, ..worker() }),
        (Verb::Dispatch, worker()),
        (Verb::Accept, worker()),
    ];
    match i % 8 {
        0 => all.swap(0, 1),
        3 | 7 => all.swap(0, 2),
        1 => all.insert(0, (Verb::Reopen, by("r", Role::Resident))),
        2 => {
            let ends = [
                (Verb::Exclude, Ask { approved_by: Some("chief".into()), ..boss() }),
                (Verb::Return, worker()),
                (Verb::Merge, Ask { into: Some(format!("20261120-{}", i % 3)), ..worker() }),
                (Verb::Withdraw, by("r", Role::Resident)),
                (Verb::Reject, worker()),
            ];
            all.splice(0..0, ends.into_iter().cycle().skip(i / 8 % 5).take(1));
        }
        _ => {}
    }
    all
}

/// How often responders were called there.
fn calls(world: &World, at: &str) -> usize {
    world.places[at].log.iter().filter(|(_, d)| d.header().name == letter::CALL).count()
}

/// The cases that it opens are of these categories in turn.
fn play(world: &mut World, moves: &[Move], categories: &[&str]) {
    let mut opened = 0;
    for (i, one) in moves.iter().enumerate() {
        match one {
            Move::Open(n, sos) if opened < 3 => {
                let id = format!("20261120-{opened}");
                opened += 1;
                let category = categories[i % categories.len()];
                let (channel, governance) = (["app", "12345"][i % 2].into(), (i % 3 == 0).then(|| "法治".into()));
                let new = Opening { sos: *sos, channel, governance, ..opening(&id, category) };
                let contact = Contact { phone: "1".into(), ..Contact::default() };
                let (_, drafts) = world.places[NODES[*n]].cases.open(new, contact, world.now);
                world.commit(NODES[*n], drafts, None);
            }
            Move::Open(..) => {}
            Move::Ask(n, c, verb, to) => {
                world.ask(NODES[*n], &format!("20261120-{c}"), *verb, &anything(*to, i), &format!("w{i}"));
            }
            Move::Next(c) => {
                let id = format!("20261120-{c}");
                let Some(owner) = NODES.into_iter().find(|n| world.places[*n].cases.may_step(&id)) else { continue };
                for (verb, ask) in steps_on(i) {
                    if world.ask(owner, &id, verb, &ask, "") {
                        break;
                    }
                }
            }
            Move::Carry(line, place, again) => {
                let keys: Vec<_> = world.lines.iter().filter(|(_, q)| !q.is_empty()).map(|(k, _)| k.clone()).collect();
                let Some(key) = keys.get(line % keys.len().max(1)) else { continue };
                let queue = world.lines.get_mut(key).unwrap();
                let place = place % queue.len();
                let flying = if *again { queue[place].clone() } else { queue.remove(place) };
                world.arrive(&key.1, flying);
            }
            Move::Again(n, i) => {
                let crossed = &world.places[NODES[*n]].crossed;
                if !crossed.is_empty() {
                    let (to, flying) = crossed[i % crossed.len()].clone();
                    world.arrive(&to, flying);
                }
            }
            Move::Due(n) => {
                world.due(NODES[*n]);
            }
            Move::Wait(s) => world.now += i64::from(*s) * 1_000_000,
            Move::Restart(n) => world.restart(NODES[*n]),
        }
    }
}
