//! The machine alone, and trees of it with everything that links may do to records.

mod handing;
mod succession;

use super::letter::PREFIX;
use super::machine::{Opening, allowed};
use super::rates::{Question, add, count};
use super::supervision::Scope;
use super::*;
use citybrain_hub::policy::Policy as _;
use citybrain_hub::state::{Known, State};
use citybrain_shared::case::{Booked, Booking, ClosedReason, Kind, Role, Satisfied, Solved, Status};
use citybrain_shared::config::{Variables, parse};
use citybrain_shared::record::Origin;
use citybrain_shared::view::{GroupBy, RateCounts, RatePeriod};
use citybrain_shared::{LogId, Pos, Selector};
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
    Cases::new(&parsed.config.unwrap())
}

fn a(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn by(name: &str, role: Role) -> Ask {
    Ask { by: name.into(), role: Some(role), text: Some("t".into()), ..Ask::default() }
}

fn opening(id: &str, category: &str) -> Opening {
    Opening { id: id.into(), by: "resident".into(), category: category.into(), title: "t".into(), ..Opening::default() }
}

/// One node's machine, without records: `act` until refused.
struct Desk {
    cases: Cases,
    case: Case,
    now: DateTime<Utc>,
}

impl Desk {
    fn new(category: &str) -> Desk {
        let cases = node("c/s/m");
        let now = view::time_of(START);
        let case = cases.book().open(opening("1", category), now).case;
        Desk { cases, case, now }
    }

    fn wait_h(&mut self, hours: i64) -> &mut Desk {
        self.now += chrono::TimeDelta::hours(hours);
        self
    }

    fn act(&mut self, verb: Verb, ask: Ask) -> &mut Desk {
        let all = self.try_act(verb, &ask).unwrap_or_else(|e| panic!("{verb}: {e:?}"));
        self.case = all[0].case.clone();
        self
    }

    fn try_act(&self, verb: Verb, ask: &Ask) -> Result<Vec<Stepped>, Refusal> {
        self.cases.book().act(&self.case, verb, ask, &a("c/s/m"), &|_| None, self.now)
    }

    fn error(&self, verb: Verb, ask: Ask) -> &'static str {
        self.try_act(verb, &ask).unwrap_err().error
    }

    fn until_resolved(&mut self) -> &mut Desk {
        self.act(Verb::Accept, by("w", Role::Worker));
        self.act(Verb::Dispatch, by("w", Role::Worker));
        self.act(Verb::Start, by("h", Role::Worker));
        self.act(Verb::Resolve, by("h", Role::Worker))
    }

    fn due(&self, clock: &str) -> String {
        let due = self.case.clock(clock).unwrap().due.unwrap() + chrono::TimeDelta::hours(8);
        due.format("%a %H:%M").to_string()
    }
}

#[test]
fn the_whole_way_has_its_order_and_a_refusal_names_what_is_allowed() {
    let mut d = Desk::new("L");
    let refusal = d.try_act(Verb::Start, &by("h", Role::Worker)).unwrap_err();
    assert_eq!(refusal.error, "not-now");
    assert_eq!(refusal.hint, "it takes accept, reject, contact, escalate, withdraw, merge, comment, forget, exclude");
    d.until_resolved();
    assert_eq!(d.error(Verb::Close, by("boss", Role::Supervisor)), "not-now");
    d.act(Verb::Verify, Ask { passed: Some(true), ..by("boss", Role::Supervisor) });
    d.act(Verb::Close, by("boss", Role::Supervisor));
    assert_eq!((d.case.status, d.case.closed_reason), (Status::Closed, Some(ClosedReason::Solved)));
    assert_eq!((d.case.version, d.case.term), (7, 1));
    // The resident may still say otherwise, and only he decides the rate.
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Unsolved), ..by("r", Role::Resident) });
    assert_eq!((d.case.status, count(&d.case, d.now).unsolved), (Status::Closed, 1));
    assert_eq!(d.case.outcome.as_ref().unwrap().solved, Solved::Solved);
}

#[test]
fn who_handles_may_not_verify_evaluate_or_close() {
    let mut d = Desk::new("L");
    d.until_resolved();
    for (verb, ask) in [
        (Verb::Verify, Ask { passed: Some(true), ..by("h", Role::Supervisor) }),
        (Verb::Evaluate, by("h", Role::Supervisor)),
    ] {
        assert_eq!(d.error(verb, ask), "handler");
    }
    d.act(Verb::Evaluate, by("r", Role::Resident));
    assert_eq!(d.error(Verb::Close, by("h", Role::Supervisor)), "handler");
    assert_eq!(d.error(Verb::Close, by(" h ", Role::Supervisor)), "handler", "blanks make no other person");
    let long = "名".repeat(200);
    assert_eq!(d.error(Verb::Close, by("boss", Role::Worker)), "not-your-role");
    d.act(Verb::Close, by("boss", Role::Supervisor));
    d.act(Verb::Reopen, by("r", Role::Resident)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Start, by(&long, Role::Worker)).act(Verb::Resolve, by(&long, Role::Worker));
    assert_eq!(d.error(Verb::Evaluate, by(&long, Role::Supervisor)), "handler");
}

#[test]
fn where_a_case_stands_is_told_in_others_words_through_rework_and_reopening() {
    let mut d = Desk::new("G");
    let words = |d: &Desk| {
        let w = d.case.words();
        (w.step, w.urban, w.hotline, w.open311, w.update)
    };
    let is = |d: &Desk, step: u8, urban: &str, hotline: &str, update: &str| {
        let open = if step == 7 { "closed" } else { "open" };
        assert_eq!(words(d), (step, urban.into(), hotline.into(), open.into(), update.into()));
    };
    is(&d, 1, "信息收集", "受理", "open");
    d.act(Verb::Accept, by("w", Role::Worker));
    is(&d, 2, "案卷建立", "登记", "investigating");
    d.act(Verb::Dispatch, by("w", Role::Worker)).act(Verb::Return, by("h", Role::Worker));
    is(&d, 2, "案卷建立", "退单", "for_triage");
    d.act(Verb::Dispatch, by("w", Role::Worker));
    is(&d, 3, "任务派遣", "派单", "in_progress");
    d.act(Verb::Start, by("h", Role::Worker));
    is(&d, 4, "任务处理", "办理", "in_progress");
    d.act(Verb::Resolve, by("h", Role::Worker));
    is(&d, 5, "处理反馈", "答复", "fixed");
    d.act(Verb::Verify, Ask { passed: Some(false), ..by("boss", Role::Supervisor) });
    is(&d, 4, "任务处理", "返工", "reopen");
    d.act(Verb::Resolve, by("h", Role::Worker)).act(Verb::Evaluate, by("r", Role::Resident));
    is(&d, 6, "核实结案", "回访", "fixed");
    d.act(Verb::Close, by("boss", Role::Supervisor));
    is(&d, 7, "综合评价", "办结", "fixed");
    d.act(Verb::Reopen, by("r", Role::Resident));
    is(&d, 2, "案卷建立", "重办", "reopen");
}

#[test]
fn whoever_could_not_be_remembered_as_a_handler_does_not_handle() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker));
    for i in 0..64 {
        d.act(Verb::Dispatch, by("w", Role::Worker)).act(Verb::Start, by(&format!("h{i}"), Role::Worker));
    }
    d.act(Verb::Dispatch, by("w", Role::Worker));
    assert_eq!(d.error(Verb::Start, by("one more", Role::Worker)), "too-many");
    d.act(Verb::Start, by("h7", Role::Worker));
}

#[test]
fn a_form_that_an_appeal_left_open_opens_the_case_and_is_told() {
    let mut cases = node("c/s/m");
    let text = "[node]\naddress = \"c/s/m\"\ndata = \"d\"\n[[category]]\ncode = \"T\"\nname = \"树\"\n\
        form = [{ name = \"size\", label = \"多大\", required = true, choices = [\"大\", \"小\"] }, { name = \"id\", personal = true }, \
        { name = \"n\", kind = \"number\" }]\n";
    let parsed = parse(text, &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    cases.own_categories = parsed.config.unwrap().category.into();
    cases.inherit();
    let appeal = |form: serde_json::Value| {
        let event = serde_json::json!({"specversion": "1.0", "id": "1", "source": "/x", "type": "city.appeal",
            "data": {"category": "树", "title": "t", "form": form}});
        let drafts = with_origin(
            &Draft::new(
                &Header::local(citybrain_shared::record::Kind::Event, "city.appeal"),
                event.to_string().as_bytes(),
            )
            .unwrap(),
            None,
            |h, p| cases.decide(&State::default(), START, h, p),
        );
        let step = letter::data::<Step>(drafts[0].parts().1).unwrap();
        let told = drafts.iter().map(|d| String::from_utf8_lossy(d.parts().1).into_owned()).collect::<String>();
        (step.case, step.entry.text, told)
    };
    let (case, note, told) = appeal(serde_json::json!({"size": "大", "id": "510", "n": 3}));
    assert_eq!((case.form["size"].as_str(), case.form["n"].as_str(), note.as_str()), ("大", "3", ""));
    assert!(case.has_contact && !case.form.contains_key("id") && told.contains("510"));
    let (case, note, _) = appeal(serde_json::json!({"n": "viele", "x": "秘密", "id": "510"}));
    assert!(case.form.is_empty());
    assert_eq!(note, "the answer to `n` is none; `x` is not asked; `多大` was not answered");
    assert_eq!(appeal(serde_json::json!("none")).1, "`多大` was not answered");
}

#[test]
fn clocks_start_stop_pause_and_are_extended_in_working_time() {
    let mut d = Desk::new("G");
    // 10:00 on a Friday: handed up at once is not the case here, the node is the tier itself.
    assert_eq!(d.due("response"), "Fri 12:00");
    d.act(Verb::Accept, by("w", Role::Worker));
    assert_eq!(d.due("dispatch"), "Fri 11:00");
    d.act(Verb::Dispatch, by("w", Role::Worker));
    assert_eq!(d.due("solution"), "Fri 15:00");
    d.act(Verb::Start, by("h", Role::Worker));
    assert!(d.case.clock("response").unwrap().is_kept());
    let approved =
        |by_: &str| Ask { approved_by: Some(by_.into()), limit: Some("1wd".into()), ..by("h", Role::Worker) };
    assert_eq!(d.error(Verb::Suspend, approved("h")), "own-approval");
    d.wait_h(1).act(Verb::Suspend, approved("boss"));
    assert_eq!(d.error(Verb::Resolve, by("h", Role::Worker)), "not-now");
    // Three working hours are left; on Monday at 11:00 they begin to run again.
    d.wait_h(3 * 24).act(Verb::Resume, by("h", Role::Worker));
    assert_eq!(d.due("solution"), "Mon 15:00");
    assert_eq!(d.error(Verb::Suspend, approved("boss")), "not-now");
    d.act(Verb::Extend, approved("boss"));
    assert_eq!(d.due("solution"), "Tue 15:00");
    assert_eq!(d.case.clock("solution").unwrap().limit, "4wh+1wd");
    assert_eq!(d.error(Verb::Extend, approved("boss")), "not-now");
    d.wait_h(2 * 24).act(Verb::Resolve, by("h", Role::Worker));
    let clock = d.case.clock("solution").unwrap();
    assert!(!clock.is_kept() && clock.stopped.is_some());
}

#[test]
fn a_response_needs_a_signature_and_a_call_where_there_is_somebody_to_call() {
    let mut d = Desk::new("G");
    d.case.has_contact = true;
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Start, by("h", Role::Worker));
    assert!(d.case.clock("response").unwrap().runs());
    d.wait_h(3).act(Verb::Contact, by("h", Role::Worker));
    let counts = count(&d.case, d.now);
    assert_eq!((counts.response_of, counts.response_kept), (1, 0), "called an hour too late");
}

#[test]
fn a_failed_check_is_rework_and_a_return_starts_the_dispatch_clock_again() {
    let mut d = Desk::new("G");
    d.until_resolved().wait_h(1);
    d.act(Verb::Verify, Ask { passed: Some(false), ..by("boss", Role::Supervisor) });
    assert_eq!((d.case.status, d.case.reworks), (Status::Handling, 1));
    assert!(d.case.clock("solution").unwrap().runs());
    d.act(Verb::Return, by("h", Role::Worker));
    assert_eq!((d.case.status, d.case.returns), (Status::Accepted, 1));
    assert!(d.case.clock("dispatch").unwrap().runs() && d.case.clock("solution").unwrap().stopped.is_some());
    let empty = Ask { text: None, ..by("h", Role::Worker) };
    assert_eq!(d.error(Verb::Escalate, empty), "missing");
}

#[test]
fn a_case_is_reopened_in_time_and_only_in_time() {
    let mut d = Desk::new("L");
    d.until_resolved();
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Solved), ..by("r", Role::Resident) });
    d.act(Verb::Close, by("boss", Role::Supervisor));
    let closed = d.case.clone();
    d.wait_h(14 * 24).act(Verb::Reopen, by("r", Role::Resident));
    assert_eq!((d.case.status, d.case.reopened, &d.case.verdict), (Status::Accepted, 1, &None));
    assert_eq!(count(&d.case, d.now).solved, 0, "an old verdict does not count for new work");
    d.case = closed;
    d.wait_h(2 * 24);
    assert_eq!(d.error(Verb::Reopen, by("r", Role::Resident)), "too-late");
}

#[test]
fn summons_have_clocks_and_ratings_of_their_own() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker));
    let assist = |unit: &str| Ask { unit: Some(unit.into()), limit: Some("2h".into()), ..by("w", Role::Worker) };
    d.act(Verb::Assist, assist("消防")).act(Verb::Assist, assist("燃气"));
    assert_eq!(d.error(Verb::Report, by("x", Role::Worker)), "which-assist");
    d.wait_h(1).act(Verb::Report, Ask { assist: Some("a2".into()), ..by("x", Role::Worker) });
    assert!(d.case.clock("assist:a2").unwrap().is_kept() && d.case.clock("assist:a1").unwrap().runs());
    assert_eq!(
        d.error(Verb::Rate, Ask { assist: Some("a2".into()), rating: Some(9), ..by("w", Role::Worker) }),
        "bad-request"
    );
    let rate = |who: &str, role| Ask { assist: Some("a2".into()), rating: Some(4), ..by(who, role) };
    for (who, role) in [("x", Role::Worker), ("somebody", Role::Worker), ("x", Role::Supervisor)] {
        assert_eq!(d.error(Verb::Rate, rate(who, role)), "not-the-caller", "{who} did not summon it");
    }
    d.act(Verb::Rate, rate("boss", Role::Supervisor)).act(Verb::Rate, rate("w", Role::Worker));
    assert_eq!(d.case.assists[1].rating, Some(4));
}

// ---- trees -------------------------------------------------------------------------------------

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
}

const NODES: [&str; 5] = ["c", "c/s", "c/s/a", "c/s/b", "c/s/a/n"];

impl World {
    fn new() -> World {
        let place = |a: &str| Place { cases: node(a), log: Vec::new(), pos: 0, crossed: Vec::new() };
        let places = NODES.iter().map(|a| ((*a).to_owned(), place(a))).collect();
        World { places, lines: BTreeMap::new(), now: START, restored: false, has_registry: false }
    }

    /// With a registry, if the world has one: every node has heard of those below it.
    fn state(&self, at: &str) -> State {
        let mut state = State::default();
        if self.has_registry {
            for (i, node) in NODES.iter().map(|n| a(n)).filter(|n| a(at).covers(n)).enumerate() {
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
                state.registry.insert(node, known);
            }
        }
        state
    }

    /// Commits a group at a node: what was decided, what follows from it, and then the timers.
    fn commit(&mut self, at: &str, drafts: Vec<Draft>, origin: Option<&str>) {
        let state = self.state(at);
        let mut group: Vec<(Option<String>, Draft)> =
            drafts.into_iter().map(|d| (origin.map(str::to_owned), d)).collect();
        let mut from = 0;
        while from < group.len() {
            let place = &self.places[at];
            let mut more = Vec::new();
            for (origin, draft) in &group[from..] {
                more.extend(with_origin(draft, origin.as_deref(), |h, p| place.cases.decide(&state, self.now, h, p)));
            }
            from = group.len();
            group.extend(more.into_iter().map(|d| (None, d)));
        }
        let place = self.places.get_mut(at).unwrap();
        for (origin, draft) in &group {
            place.pos += 1;
            let pos = Pos(place.pos);
            with_origin(draft, origin.as_deref(), |h, p| place.cases.apply(pos, h, p));
            place.log.push((origin.clone(), draft.clone()));
        }
        for (origin, draft) in group {
            self.send(at, origin.unwrap_or_else(|| at.to_owned()), draft);
        }
        self.check();
    }

    fn send(&mut self, at: &str, origin: String, draft: Draft) {
        let me = a(at);
        let h = draft.header();
        let next = match h.direction {
            Direction::Up => me.parent().filter(|p| h.reach <= p.tier()),
            Direction::Down => me.child_towards(&Selector::parse(h.target).unwrap().root),
            Direction::Local => None,
        };
        // Downward to somebody who never was: it lies in the log and goes nowhere.
        let Some(next) = next.filter(|n| self.places.contains_key(n.as_str())) else { return };
        self.lines.entry((at.to_owned(), next.to_string())).or_default().push(Flying { origin, draft });
    }

    fn due(&mut self, at: &str) -> bool {
        let cases = &self.places[at].cases;
        if cases.next_due_us().is_none_or(|due| due > self.now) {
            return false;
        }
        let drafts = cases.on_due(&State::default(), self.now);
        assert!(!drafts.is_empty(), "{at} says that something is due and does nothing");
        self.commit(at, drafts, None);
        true
    }

    fn arrive(&mut self, to: &str, flying: Flying) {
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
        let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (address, place) in &self.places {
            for held in place.cases.iter().filter(|h| place.cases.may_step(&h.case.id)) {
                owners.entry(&held.case.id).or_default().push(address);
            }
        }
        for (case, owners) in owners {
            assert!(owners.len() <= 1 || self.restored, "{case} is owned by {owners:?}");
        }
    }

    fn ask(&mut self, at: &str, id: &str, verb: Verb, ask: &Ask, wish: &str) -> bool {
        match self.places[at].cases.ask(id, verb, ask, wish, self.now) {
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
        assert_eq!(from_rows.due, place.cases.due);
        assert_eq!((&from_rows.open, &from_rows.changed), (&place.cases.open, &place.cases.changed));
        assert_eq!((&from_rows.over, &from_rows.given), (&place.cases.over, &place.cases.given));
        assert_eq!(from_rows.buttons, place.cases.buttons);
        assert_eq!(from_rows.inbox.len(), place.cases.inbox.len());
        place.cases = from_rows;
    }
}

fn with_origin<R>(draft: &Draft, origin: Option<&str>, look: impl FnOnce(&Header<'_>, &[u8]) -> R) -> R {
    let (header, payload) = draft.parts();
    let origin = origin.map(|address| Origin { address, log: LogId(1), pos: Pos(1) });
    look(&Header { origin, ..header }, payload)
}

#[derive(Clone, Debug)]
enum Move {
    Open(usize, bool),
    Ask(usize, usize, Verb, usize),
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
        20 => (0usize..8, 0usize..4, any::<bool>()).prop_map(|(l, i, again)| Move::Carry(l, i, again)),
        3 => (0usize..5, any::<usize>()).prop_map(|(n, i)| Move::Again(n, i)),
        10 => (0usize..5).prop_map(Move::Due),
        2 => (1u32..100_000).prop_map(Move::Wait),
        1 => (0usize..5).prop_map(Move::Restart),
    ];
    prop::collection::vec(one, 20..140)
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

fn play(world: &mut World, moves: &[Move]) {
    let mut opened = 0;
    for (i, one) in moves.iter().enumerate() {
        match one {
            Move::Open(n, sos) if opened < 3 => {
                let id = format!("20261120-{opened}");
                opened += 1;
                let new = Opening { sos: *sos, ..opening(&id, if i % 2 == 0 { "G" } else { "L" }) };
                let contact = Contact { phone: "1".into(), ..Contact::default() };
                let (_, drafts) = world.places[NODES[*n]].cases.open(new, contact, world.now);
                world.commit(NODES[*n], drafts, None);
            }
            Move::Open(..) => {}
            Move::Ask(n, c, verb, to) => {
                world.ask(NODES[*n], &format!("20261120-{c}"), *verb, &anything(*to, i), &format!("w{i}"));
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

fn rates_of(cases: &Cases, under: Option<&str>) -> (Vec<view::RateRow>, RateCounts) {
    let question =
        Question { by: GroupBy::Node, period: RatePeriod::Day, of: None, under: under.map(a), category: None };
    let mut counting = rates::Counting::new(question);
    cases.iter().for_each(|h| counting.add(cases, &h.case, &|_| None, view::time_of(START)));
    let (rows, total) = counting.done(&cases.settings);
    (rows, total.counts)
}

fn stats_of(cases: &Cases, by: GroupBy, now: DateTime<Utc>) -> (Vec<view::StatsRow>, view::StatsRow) {
    let mut counting = supervision::Counting::new(by, Scope::default());
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Records late, twice, out of order; nodes killed: never two owners; in the end one, and every
    /// node above it holds the same.
    #[test]
    fn a_case_has_one_owner_and_copies_converge(moves in moves()) {
        let mut world = World::new();
        play(&mut world, &moves);
        world.settle();
        for n in NODES {
            world.restart(n);
        }
        for held in world.places["c"].cases.iter() {
            let id = &held.case.id;
            let owners: Vec<&str> = NODES.iter().copied().filter(|n| world.places[*n].cases.may_step(id)).collect();
            prop_assert_eq!(owners.len(), 1, "{} is owned by {:?}: {:?}", id, owners, held.case);
            let mut at = Some(a(owners[0]));
            let theirs = world.places[owners[0]].cases.get(id).unwrap();
            while let Some(n) = at {
                let copy = world.places[n.as_str()].cases.get(id).unwrap();
                prop_assert_eq!(&copy.case, &theirs.case, "at {}", n);
                at = n.parent();
            }
            // Where it came in, its fate is known too.
            let entered = world.places[theirs.case.opened_at.as_str()].cases.get(id).unwrap();
            prop_assert_eq!(&entered.case, &theirs.case);
            prop_assert!(theirs.history.iter().all(|e| e.version <= theirs.case.version));
        }
        // Nothing waits for ever.
        for n in NODES {
            prop_assert!(world.places[n].cases.inbox.is_empty());
        }
    }

    /// At every tier: the whole is the sum of what the node owns and of what each child says.
    #[test]
    fn the_rates_of_the_parts_add_up(moves in moves()) {
        let mut world = World::new();
        play(&mut world, &moves);
        world.settle();
        for n in NODES {
            let cases = &world.places[n].cases;
            let (rows, whole) = rates_of(cases, None);
            let mut sum = RateCounts::default();
            rows.iter().filter(|r| r.key == n).for_each(|r| add(&mut sum, &r.counts));
            for child in NODES.iter().filter(|c| a(c).is_child_of(&a(n))) {
                let (_, part) = rates_of(&world.places[*child].cases, None);
                prop_assert_eq!(&part, &rates_of(cases, Some(child)).1, "{} of {}", n, child);
                add(&mut sum, &part);
            }
            prop_assert_eq!(&sum, &whole, "at {}", n);
            let by_row = rows.iter().fold(RateCounts::default(), |mut s, r| { add(&mut s, &r.counts); s });
            prop_assert_eq!(&by_row, &whole);
            // However it is cut, the pieces are the whole; and each child says of itself what is said of it.
            let now = view::time_of(world.now);
            for by in [GroupBy::Child, GroupBy::District, GroupBy::Channel, GroupBy::Governance, GroupBy::Status] {
                let (rows, all) = stats_of(cases, by, now);
                let sum = rows.iter().map(counts).fold([0; 11], plus);
                prop_assert_eq!(sum, counts(&all), "{:?} at {}", by, n);
                for row in rows.iter().filter(|r| by == GroupBy::Child && r.key != n) {
                    let own = stats_of(&world.places[row.key.as_str()].cases, by, now).1;
                    prop_assert_eq!(counts(row), counts(&own), "{} of {}", &row.key, n);
                    prop_assert_eq!(row.took, own.took);
                }
            }
        }
    }
}

#[test]
fn a_wish_from_afar_is_done_or_refused_once_and_its_maker_learns_it() {
    let mut world = World::new();
    let (_, drafts) = world.places["c/s/a/n"].cases.open(opening("20261120-0", "G"), Contact::default(), START);
    world.commit("c/s/a/n", drafts, None);
    world.settle();
    assert!(world.places["c/s/a"].cases.may_step("20261120-0"));
    // The resident withdraws where she is; before that, a worker there asks for what does not fit.
    world.ask("c/s/a/n", "20261120-0", Verb::Start, &by("w", Role::Worker), "w1");
    world.ask("c/s/a/n", "20261120-0", Verb::Withdraw, &by("r", Role::Resident), "w2");
    assert_eq!(world.places["c/s/a/n"].cases.get("20261120-0").unwrap().wishes.len(), 2);
    world.settle();
    let held = world.places["c/s/a/n"].cases.get("20261120-0").unwrap();
    assert_eq!(held.case.status, Status::Withdrawn);
    assert_eq!(held.wishes.len(), 1);
    assert!(held.wishes[0].refused.as_ref().unwrap().contains("it takes accept"), "{:?}", held.wishes);
}

#[test]
fn a_wish_for_an_old_sight_of_a_case_is_refused_by_whoever_owns_it() {
    let mut world = World::new();
    let (_, drafts) = world.places["c/s/a/n"].cases.open(opening("20261120-0", "G"), Contact::default(), START);
    world.commit("c/s/a/n", drafts, None);
    world.settle();
    let seen = |world: &World, at: &str| world.places[at].cases.get("20261120-0").unwrap().case.stamp();
    let old = seen(&world, "c/s/a/n");
    assert_eq!(old, seen(&world, "c/s/a"), "both have seen the same");
    let accept = |stamp: &str| Ask { seen: vec![stamp.to_owned()], ..by("w", Role::Worker) };
    // While the wish is on its way the owner steps.
    assert!(world.ask("c/s/a/n", "20261120-0", Verb::Accept, &accept(&old), "w1"));
    assert!(world.ask("c/s/a", "20261120-0", Verb::Comment, &by("o", Role::Worker), ""));
    assert!(!world.ask("c/s/a", "20261120-0", Verb::Accept, &accept(&old), ""), "nor by the owner itself");
    world.settle();
    let held = world.places["c/s/a/n"].cases.get("20261120-0").unwrap();
    assert_eq!(held.case.status, Status::Submitted);
    assert!(held.wishes[0].refused.as_ref().unwrap().contains("has moved on"), "{:?}", held.wishes);
    assert!(!world.ask("c/s/a/n", "20261120-0", Verb::Accept, &accept(&old), "w2"), "this copy knows by now");
    let new = seen(&world, "c/s/a/n");
    assert!(world.ask("c/s/a/n", "20261120-0", Verb::Accept, &accept(&new), "w3"));
    world.settle();
    assert_eq!(world.places["c/s/a"].cases.get("20261120-0").unwrap().case.status, Status::Accepted);
}

#[test]
fn a_node_restored_from_yesterday_learns_that_the_case_is_gone() {
    let mut world = World::new();
    let (_, drafts) = world.places["c/s/a"].cases.open(opening("20261120-0", "L"), Contact::default(), START);
    world.commit("c/s/a", drafts, None);
    world.settle();
    let backup = world.places["c/s/a"].log.clone();
    world.ask("c/s/a", "20261120-0", Verb::Accept, &by("w", Role::Worker), "");
    let to = Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) };
    world.ask("c/s/a", "20261120-0", Verb::Dispatch, &to, "");
    world.settle();
    world.restored = true;
    world.now += 1_000_000;
    let place = world.places.get_mut("c/s/a").unwrap();
    let mut old = node("c/s/a");
    for (i, (origin, draft)) in backup.iter().enumerate() {
        with_origin(draft, origin.as_deref(), |h, p| old.apply(Pos(i as u64 + 1), h, p));
    }
    (place.cases, place.log) = (old, backup);
    // It believes that the case is its own until its first word reaches one who knows better.
    assert!(world.ask("c/s/a", "20261120-0", Verb::Accept, &by("w", Role::Worker), ""));
    world.settle();
    assert!(!world.places["c/s/a"].cases.may_step("20261120-0"));
    assert!(world.places["c/s/b"].cases.may_step("20261120-0"));
    assert_eq!(world.places["c"].cases.get("20261120-0").unwrap().case.owner, a("c/s/b"));
}

#[test]
fn a_press_climbs_until_somebody_accepts_and_a_clock_fires_once() {
    let mut world = World::new();
    let new = Opening { sos: true, ..opening("20261120-0", "") };
    let (_, drafts) = world.places["c/s/a/n"].cases.open(new, Contact::default(), START);
    world.commit("c/s/a/n", drafts, None);
    let calls = |world: &World, at: &str| {
        world.places[at].log.iter().filter(|(_, d)| d.header().name == "city.brain.case.call").count()
    };
    world.settle();
    assert_eq!((calls(&world, "c/s/a/n"), calls(&world, "c/s/a")), (1, 0));
    world.now += 30_000_000;
    world.settle();
    assert_eq!((calls(&world, "c/s/a"), calls(&world, "c/s")), (1, 0));
    world.now += 30_000_000;
    world.settle();
    assert_eq!((calls(&world, "c/s/a"), calls(&world, "c/s"), calls(&world, "c")), (1, 1, 0));
    world.ask("c/s", "20261120-0", Verb::Accept, &by("w", Role::Worker), "w1");
    world.settle();
    world.now += 3600 * 1_000_000;
    world.settle();
    assert_eq!(calls(&world, "c"), 0);
    let case = &world.places["c"].cases.get("20261120-0").unwrap().case;
    assert_eq!(
        (case.status, case.kind, case.escalations, &case.owner),
        (Status::Accepted, Kind::Incident, 2, &a("c/s/a/n"))
    );
}

/// Presses what is named so at `c/s/a/n`: the case, and whether it is new.
fn press(world: &mut World, id: &str, button: &str, more: Opening, contact: &Contact) -> (String, bool) {
    let new = Opening { id: id.into(), button: Some(button.into()), sos: true, by: "event".into(), ..more };
    let cases = &world.places["c/s/a/n"].cases;
    let (case, fresh, drafts) = match cases.pressed_again(&new, contact, world.now) {
        Some((case, drafts)) => (case, false, drafts),
        None => {
            let (case, drafts) = cases.open(new, contact.clone(), world.now);
            (case.id, true, drafts)
        }
    };
    world.commit("c/s/a/n", drafts, None);
    world.settle();
    (case, fresh)
}

#[test]
fn a_button_pressed_again_is_the_same_incident_wherever_that_is_until_it_is_over() {
    let mut world = World::new();
    let (none, plain) = (Contact::default(), Opening::default);
    let phone = Contact { phone: "139".into(), ..Contact::default() };
    let lines = |world: &World, at: &str| {
        world.places[at].cases.get("1").unwrap().history.iter().filter(|e| e.text.starts_with(AGAIN)).count()
    };
    assert_eq!(press(&mut world, "1", "b", plain(), &none), ("1".into(), true));
    let said = Opening { description: "fire".into(), ..plain() };
    assert_eq!(press(&mut world, "2", "b", said, &phone), ("1".into(), false));
    let held = world.places["c/s/a/n"].cases.get("1").unwrap();
    assert_eq!(
        (held.history.last().unwrap().text.as_str(), held.contact.as_ref()),
        ("pressed again: fire", Some(&phone))
    );
    assert_eq!((lines(&world, "c/s/a/n"), lines(&world, "c")), (1, 1), "those above hear of it");
    // Another button, and another category of the same one, are other matters.
    assert!(press(&mut world, "3", "x", plain(), &none).1);
    assert!(press(&mut world, "4", "b", Opening { category: "L".into(), ..plain() }, &none).1);
    // Somebody else's by now, and over a restart.
    world.ask("c/s/a/n", "1", Verb::Accept, &by("w", Role::Worker), "");
    world.ask("c/s/a/n", "1", Verb::Dispatch, &Ask { to: Some(a("c/s/b")), ..by("w", Role::Worker) }, "");
    world.settle();
    world.restart("c/s/a/n");
    assert_eq!(press(&mut world, "5", "b", plain(), &none), ("1".into(), false));
    assert_eq!((lines(&world, "c/s/b"), lines(&world, "c/s/a/n")), (2, 2));
    // One that is stuck does not push out what people did.
    for i in 0..PRESSES_MAX {
        assert_eq!(press(&mut world, &format!("s{i}"), "b", plain(), &none), ("1".into(), false));
    }
    assert_eq!(lines(&world, "c/s/b"), PRESSES_MAX);
    world.ask("c/s/b", "1", Verb::Withdraw, &by("boss", Role::Supervisor), "");
    world.settle();
    assert_eq!(press(&mut world, "6", "b", plain(), &none), ("6".into(), true));
}

#[test]
fn behind_a_source_without_a_subject_another_place_or_number_is_another_matter() {
    let mut world = World::new();
    let (b, none) = (intake::button("/app", ""), Contact::default());
    let at = |text: &str| Opening {
        place: Some(citybrain_shared::case::Place { text: text.into(), ..Default::default() }),
        ..Opening::default()
    };
    let phone = Contact { phone: "139".into(), ..Contact::default() };
    assert!(press(&mut world, "1", &b, at("7栋301"), &none).1);
    assert_eq!(press(&mut world, "2", &b, at("7栋301"), &none), ("1".into(), false));
    assert!(press(&mut world, "3", &b, at("9栋502"), &none).1);
    assert!(press(&mut world, "4", &b, at("7栋301"), &phone).1);
    assert_ne!(intake::button("/app", "a"), intake::button("/app", "b"));
}

#[test]
fn two_cases_become_one_and_are_counted_as_one() {
    let mut world = World::new();
    for id in ["20261120-0", "20261120-1"] {
        let (_, drafts) = world.places["c/s/a"].cases.open(opening(id, "L"), Contact::default(), START);
        world.commit("c/s/a", drafts, None);
        world.ask("c/s/a", id, Verb::Accept, &by("w", Role::Worker), "");
        world.ask("c/s/a", id, Verb::Dispatch, &by("w", Role::Worker), "");
    }
    let into = Ask { into: Some("20261120-0".into()), ..by("w", Role::Worker) };
    assert!(world.ask("c/s/a", "20261120-1", Verb::Merge, &into, ""));
    assert!(!world.ask("c/s/a", "20261120-0", Verb::Merge, &Ask { into: Some("20261120-1".into()), ..into }, ""));
    world.settle();
    let (_, counts) = rates_of(&world.places["c"].cases, None);
    assert_eq!((counts.dispatched, counts.merged, counts.unanswered), (2, 1, 1));
    assert_eq!(world.places["c"].cases.get("20261120-0").unwrap().case.followers, ["20261120-1"]);
    let follower = &world.places["c"].cases.get("20261120-1").unwrap().case;
    assert!(!allowed(follower).contains(&Verb::Evaluate) && !allowed(follower).contains(&Verb::Reopen));
}

#[test]
fn two_nodes_want_the_last_seat_and_one_of_them_gets_it() {
    let mut world = World::new();
    let wants = ["c/s/a/n", "c/s", "c/s/b", "c"];
    for (i, at) in wants.iter().enumerate() {
        let booking = Booking {
            node: a("c/s/a"),
            service: "S".into(),
            name: "理发".into(),
            at: Some("2026-12-05T01:00:00Z".parse().unwrap()),
            until: None,
            seat: Seat::Visitor,
            seats: 1,
            form: BTreeMap::new(),
            state: Booked::Asked,
        };
        let new = Opening { booking: Some(booking), ..opening(&format!("20261120-{i}"), "") };
        let (_, drafts) = world.places[*at].cases.open(new, Contact::default(), START);
        world.commit(at, drafts, None);
    }
    // All four are in the inbox before the first is decided.
    while let Some(key) = world.lines.iter().find(|(_, q)| !q.is_empty()).map(|(k, _)| k.clone()) {
        let flying = world.lines.get_mut(&key).unwrap().remove(0);
        world.arrive(&key.1, flying);
    }
    world.settle();
    world.restart("c/s/a");
    let states = |at: &str| -> Vec<Booked> {
        world.places[at].cases.iter().filter_map(|h| Some(h.case.booking.as_ref()?.state)).collect()
    };
    assert_eq!(states("c/s/a").iter().filter(|s| **s == Booked::Booked).count(), 1, "{:?}", states("c/s/a"));
    assert_eq!(states("c/s/a").iter().filter(|s| **s == Booked::Refused).count(), 3);
    // Each of those who asked has its answer.
    for (i, at) in wants.iter().enumerate() {
        let case = &world.places[*at].cases.get(&format!("20261120-{i}")).unwrap().case;
        assert_eq!(case, &world.places["c/s/a"].cases.get(&case.id).unwrap().case);
    }
}

#[test]
fn nobody_speaks_for_another_node() {
    let mut world = World::new();
    let (_, drafts) = world.places["c/s/a"].cases.open(opening("20261120-0", "L"), Contact::default(), START);
    let forged = drafts[0].clone();
    assert!(forged.header().name.starts_with(PREFIX));
    // The same bytes, but they come from `b`.
    world.arrive("c/s", Flying { origin: "c/s/b".into(), draft: forged.clone() });
    assert_eq!(world.places["c/s"].cases.iter().count(), 0);
    world.arrive("c/s", Flying { origin: "c/s/a".into(), draft: forged });
    assert_eq!(world.places["c/s"].cases.iter().count(), 1);
}

fn told(id: &str, status: Status, updated_h: i64, closed_h: Option<i64>) -> CaseAccount {
    let at = |h: i64| view::time_of(START + h * 3_600_000_000);
    CaseAccount {
        source: "/old".into(),
        id: id.into(),
        category: "bulky".into(),
        category_name: "Bulky Items".into(),
        title: String::new(),
        description: String::new(),
        department: "BOS".into(),
        channel: "Call".into(),
        governance: None,
        place: None,
        status,
        reason: None,
        opened: at(0),
        due: Some(at(48)),
        updated: at(updated_h),
        closed: closed_h.map(at),
        solved: None,
        satisfied: None,
    }
}

#[test]
fn what_another_system_tells_is_taken_once_and_in_its_own_time() {
    let mut world = World::new();
    let at = "c/s/a";
    let import = |world: &mut World, told: &[CaseAccount]| {
        let (became, drafts) = world.places[at].cases.import(told, "op", world.now);
        world.commit(at, drafts, None);
        world.settle();
        became
    };
    // Long after it was due there.
    world.now += 30 * 86_400_000_000;
    let life = [told("1", Status::Dispatched, 0, None), told("1", Status::Closed, 72, Some(72))];
    let became = import(&mut world, &life);
    assert_eq!((became.opened, became.changed, became.known), (1, 1, 0));
    let became = import(&mut world, &life);
    assert_eq!((became.opened, became.changed, became.known), (0, 0, 2));
    let held = world.places["c"].cases.iter().next().unwrap();
    assert_eq!((held.history.len(), held.case.took().unwrap().num_hours()), (2, 72));
    assert_eq!((held.case.escalations, held.case.title.as_str()), (0, "Bulky Items"));
    let total = |world: &World, at: &str| {
        let now = view::time_of(world.now);
        stats_of(&world.places[at].cases, GroupBy::All, now).1
    };
    assert_eq!((total(&world, "c").late, total(&world, "c").in_time), (1, 0));

    // One that is open and late was missed there: nobody is called here. Once it is dealt with here, it
    // is no longer that system's.
    let became = import(&mut world, &[told("2", Status::Dispatched, 0, None)]);
    assert_eq!((became.opened, total(&world, at).overdue), (1, 1));
    let id = world.places[at].cases.iter().find(|h| h.case.status.is_open()).unwrap().case.id.clone();
    assert!(world.ask(at, &id, Verb::Start, &by("h", Role::Worker), "w"));
    let became = import(&mut world, &[told("2", Status::Closed, 90, Some(90))]);
    assert_eq!(became.refused[0].error, "not-theirs");
    let became = import(&mut world, &[told("", Status::Closed, 90, None), told("3", Status::Closed, 1, None)]);
    assert_eq!((became.refused.len(), became.refused[1].error.as_str()), (2, "bad-account"));
    // No time that a calendar cannot go on from.
    for far in [chrono::DateTime::<chrono::Utc>::MAX_UTC, chrono::DateTime::<chrono::Utc>::MIN_UTC] {
        let opened = CaseAccount { opened: far, ..told("4", Status::Dispatched, 0, None) };
        let closed = CaseAccount { closed: Some(far), ..told("4", Status::Closed, 0, None) };
        let due = CaseAccount { due: Some(far), ..told("4", Status::Dispatched, 0, None) };
        let became = import(&mut world, &[opened, closed, due]);
        assert!(became.refused.iter().all(|r| r.error == "bad-account"), "{:?}", became.refused);
        assert_eq!(became.refused.len(), 3);
    }
}

#[test]
fn a_key_is_the_same_one_behind_midnight() {
    let mut world = World::new();
    let now = world.now;
    let id = world.places["c/s"].cases.keyed("/c/s/cases", "k", view::time_of(now)).unwrap_err();
    let (_, drafts) = world.places["c/s"].cases.open(opening(&id, "L"), Contact::default(), now);
    world.commit("c/s", drafts, None);
    let keyed = |us: i64| world.places["c/s"].cases.keyed("/c/s/cases", "k", view::time_of(us));
    assert_eq!(keyed(now + 20 * 3_600_000_000), Ok(id.clone()));
    assert!(keyed(now + 48 * 3_600_000_000).is_err());
}

#[test]
fn the_same_report_again_is_a_hot_spot_and_the_same_number_a_repeat_caller() {
    let mut world = World::new();
    let spot = |lat: f64| citybrain_shared::case::Place { text: "三号门".into(), lat: Some(lat), lon: Some(103.83) };
    for (i, (lat, phone)) in
        [(30.6901, "139 0000"), (30.6903, "1390000"), (30.6905, "138"), (30.75, "1390000")].iter().enumerate()
    {
        let new = Opening { place: Some(spot(*lat)), has_contact: true, ..opening(&format!("20261120-{i}"), "L") };
        let contact = Contact { name: "王大妈".into(), phone: (*phone).into(), ..Contact::default() };
        let (_, drafts) = world.places["c/s/a/n"].cases.open(new, contact, START);
        world.commit("c/s/a/n", drafts, None);
    }
    world.settle();
    let watched = |at: &str, shown: bool| {
        let cases = &world.places[at].cases;
        let question = watching::Question { scope: Scope::default(), again: 2, limit: 10, shown };
        let mut watching = watching::Watching::new(question, view::time_of(world.now));
        cases.iter().for_each(|held| watching.add(cases, held));
        watching.ranked().told(cases)
    };
    let spots = watched("c", true).hot_spots;
    assert_eq!((spots[0].lat, spots[0].ids.len(), spots[0].open), (Some(30.6903), 3, 3));
    assert_eq!((spots.len(), spots[0].cases, spots[0].category_name.as_str()), (1, 3, "路灯"));
    let callers = |at: &str, shown: bool| watched(at, shown).repeat_callers;
    assert_eq!(callers("c/s/a/n", true)[0].contact.as_ref().unwrap().name, "王大妈");
    assert_eq!((callers("c/s/a/n", false)[0].cases, &callers("c/s/a/n", false)[0].contact), (3, &None));
    assert!(callers("c", true).is_empty(), "the city keeps no numbers");
}

#[test]
fn a_case_sent_to_a_node_that_never_was_comes_back_with_the_reason() {
    let mut world = World { has_registry: true, ..World::new() };
    let (case, drafts) = world.places["c/s/a"].cases.open(opening("20261120-0", "G"), Contact::default(), START);
    world.commit("c/s/a", drafts, None);
    assert!(world.ask("c/s/a", &case.id, Verb::Accept, &by("w", Role::Worker), "1"));
    let to = |node: &str| Ask { to: Some(a(node)), ..by("w", Role::Worker) };
    for (i, nowhere) in ["c/s/x", "c/t/x", "c/s/a/never"].iter().enumerate() {
        assert!(world.ask("c/s/a", &case.id, Verb::Dispatch, &to(nowhere), &format!("d{i}")), "{nowhere}");
        world.settle();
        let held = world.places["c/s/a"].cases.get(&case.id).unwrap();
        assert!(world.places["c/s/a"].cases.may_step(&case.id), "{nowhere}: {:?}", held.case.handing_to);
        let last = held.history.last().unwrap();
        assert_eq!((last.step.as_str(), last.to.as_deref()), ("came-back", Some(*nowhere)));
        assert!(last.text.ends_with(&format!("knows no node {nowhere}")), "{}", last.text);
        assert!(held.case.dispatched_by.is_empty());
    }
    // The letter again: it is not sent on now that there is such a node, because its owner steps.
    let again: Vec<Flying> = world.places["c/s"].crossed.iter().map(|(_, f)| f.clone()).collect();
    world.has_registry = false;
    for flying in again {
        world.arrive("c/s", flying);
    }
    world.settle();
    assert!(world.ask("c/s/a", &case.id, Verb::Dispatch, &to("c/s/b"), "good"));
    world.settle();
    assert!(world.places["c/s/b"].cases.may_step(&case.id));
}

#[test]
fn what_is_forgotten_is_forgotten_by_everybody_who_had_it() {
    let mut world = World::new();
    let contact = Contact { name: "王大妈".into(), phone: "139".into(), ..Contact::default() };
    let new = Opening { has_contact: true, ..opening("20261120-0", "L") };
    let (case, drafts) = world.places["c/s/a/n"].cases.open(new, contact, START);
    world.commit("c/s/a/n", drafts, None);
    world.settle();
    let mut at = "c/s/a/n";
    for (i, to) in ["c/s/a", "c/s/b"].iter().enumerate() {
        if i == 0 {
            assert!(world.ask(at, &case.id, Verb::Accept, &by("w", Role::Worker), "acc"));
        }
        let ask = Ask { to: Some(a(to)), ..by("w", Role::Worker) };
        assert!(world.ask(at, &case.id, Verb::Dispatch, &ask, &format!("d{i}")));
        world.settle();
        at = to;
    }
    let has = |world: &World, n: &str| world.places[n].cases.get(&case.id).is_some_and(|h| h.contact.is_some());
    assert!(["c/s/a/n", "c/s/a", "c/s/b"].iter().all(|n| has(&world, n)), "it went with the case");
    // Asked for at the city, which holds a copy only.
    assert!(world.ask("c", &case.id, Verb::Forget, &by("boss", Role::Supervisor), "f"));
    world.settle();
    for n in NODES {
        assert!(!has(&world, n), "{n} still knows whom to call");
        world.restart(n);
        assert!(!has(&world, n), "{n} knows it again after a restart");
    }
    assert!(world.places["c/s/b"].cases.get(&case.id).unwrap().history.len() >= 6, "the history is whole");
    assert!(!world.ask("c/s/b", &case.id, Verb::Forget, &by("boss", Role::Supervisor), "f2"), "once is enough");
}

#[test]
fn categories_of_the_nodes_above_count_where_nothing_nearer_does() {
    let mut below = node("c/s/a");
    let say = |at: &mut Cases, from: &str, categories: &str| {
        let text = format!("[node]\naddress = \"{from}\"\ndata = \"d\"\n{categories}");
        let config = parse(&text, &Variables::new()).config.unwrap();
        let data = serde_json::json!({"node": from, "categories": config.category});
        let pen = Pen { me: &a(from), now: view::time_of(START) };
        let way = (Direction::Down, citybrain_shared::Tier::Neighbourhood);
        let draft = pen.event(
            crate::brain::services::CATALOGUE,
            "1",
            from,
            citybrain_shared::Lane::Routine,
            way,
            &format!("{from}/**"),
            serde_json::json!({}),
            data,
        );
        with_origin(&draft, Some(from), |h, p| at.apply(Pos(1), h, p));
    };
    say(
        &mut below,
        "c",
        "[[category]]\ncode = \"G\"\nname = \"别的\"\n[[category]]\ncode = \"W\"\nname = \"水\"\nsolution = \"2h\"\n",
    );
    say(&mut below, "c/s", "[[category]]\ncode = \"W2\"\nname = \"水\"\n");
    let known: Vec<(String, String)> = below.categories().iter().map(|c| (c.code.clone(), c.name.clone())).collect();
    let known: Vec<(&str, &str)> = known.iter().map(|(c, n)| (c.as_str(), n.as_str())).collect();
    assert_eq!(known, [("G", "垃圾"), ("L", "路灯"), ("W2", "水")], "the nearest meaning of a word is the one");
    let mut again = node("c/s/a");
    for (key, value) in below.take_rows() {
        again.load_row(&key, &value.unwrap()).unwrap();
    }
    assert_eq!(again.categories(), below.categories());
}
