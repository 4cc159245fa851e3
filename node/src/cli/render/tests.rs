use super::*;
use citybrain_shared::view::{LinkLane, LinkRole, TreeNode, time_of};
use citybrain_shared::{Address, Lane, Pos};

const PLAIN: Screen = Screen { json: false, color: false, color_stderr: false, width: None, zone: Zone::utc_in(2026) };
const JSON: Screen = Screen { json: true, ..PLAIN };

fn text(screen: Screen, output: Output) -> (String, u8) {
    let mut out = Vec::new();
    let code = match screen.write(output, &mut out) {
        Ok(code) => code,
        Err(Stop::Fail(fail)) => fail.code,
        Err(Stop::Io(e)) => panic!("{e}"),
    };
    (String::from_utf8(out).unwrap(), code)
}

#[test]
fn what_is_counted_by_nothing_is_one_row() {
    let row = |key: &str| view::StatsRow { key: key.into(), cases: 3, ..view::StatsRow::default() };
    let lines = |by: view::GroupBy, keys: &[&str]| {
        let (rows, total) = (keys.iter().map(|key| row(key)).collect(), row("all"));
        let (gone, awaits, away, at) = (None, None, Vec::new(), time_of(0));
        let body = view::CaseStats { by, rows, total, gone, awaits, away, at };
        text(PLAIN, Output::CaseStats(answer(body))).0.lines().filter(|line| line.contains("  3  ")).count()
    };
    assert_eq!(lines(view::GroupBy::All, &["all"]), 1);
    assert_eq!(lines(view::GroupBy::Category, &["litter", "all"]), 3);
}

fn a(s: &str) -> Address {
    Address::parse(s).unwrap()
}

fn answer<T: View>(body: T) -> Answer<T> {
    Answer::new("chengdu/liucheng", time_of(1_782_902_467_000_000), body)
}

fn link(role: LinkRole, peer: &str, state: &str, unsent: u64, heard: Option<u64>) -> view::Link {
    view::Link {
        role,
        peer: a(peer),
        state: state.into(),
        why: (state != "up").then(|| "the broker refused the connection".into()),
        code: None,
        last_heard_ms_ago: heard,
        down_ms: None,
        urgent: LinkLane::default(),
        routine: LinkLane {
            unsent,
            in_flight: 3,
            bytes: 1_204_881,
            oldest_ms: Some(61_000),
            at_most: unsent > 1_000,
            durable_at_peer_pos: Pos(1_204_881),
            credit_frames: 8,
            ..LinkLane::default()
        },
        lease: 1,
        received: 0,
        dropped: 0,
        resent_frames: 0,
        expired_records: 0,
        round_trip_us: (state == "up").then_some(410),
        unheard: Vec::new(),
        unheard_more: 0,
    }
}

fn two_links() -> view::Links {
    let links = vec![
        link(LinkRole::Up, "chengdu", "up", 0, Some(400)),
        link(LinkRole::Down, "chengdu/liucheng/guanghua", "waiting", 4210, Some(432_000)),
    ];
    view::Links { links }
}

#[test]
fn links_stand_in_a_table_that_says_whose_it_is() {
    let want = "\
LINK  PEER                       STATE    UNSENT   IN FLIGHT  BYTES     OLDEST   CREDIT  ROUND TRIP  LAST HEARD
up    chengdu                    up             0          3    1.2 MB  1 m 1 s       8      0.4 ms  0.4 s ago
down  chengdu/liucheng/guanghua  waiting  ≤ 4,210        ≤ 3  > 1.2 MB  1 m 1 s       -           -  7 m 12 s ago
chengdu/liucheng/guanghua: the broker refused the connection
chengdu/liucheng, its own record, as of 10:41:07Z
";
    assert_eq!(text(PLAIN, Output::Links(answer(two_links()))).0, want);
}

#[test]
fn json_is_one_object_with_its_schema_in_front() {
    let links = view::Links { links: vec![link(LinkRole::Up, "chengdu", "up", 0, Some(400))] };
    let want = "{\"schema\":\"citybrain.links/1\",\"node\":\"chengdu/liucheng\",\"as_of\":\"2026-07-01T10:41:07Z\",\
        \"links\":[{\"role\":\"up\",\"peer\":\"chengdu\",\"state\":\"up\",\"last_heard_ms_ago\":400,\
        \"urgent\":{\"unsent\":0,\"in_flight\":0,\"bytes\":0,\"at_most\":false,\"durable_at_peer_pos\":0,\"durable_here_pos\":0,\"credit_frames\":0},\
        \"routine\":{\"unsent\":0,\"in_flight\":3,\"bytes\":1204881,\"oldest_ms\":61000,\"at_most\":false,\"durable_at_peer_pos\":1204881,\"durable_here_pos\":0,\"credit_frames\":8},\
        \"lease\":1,\"received\":0,\"dropped\":0,\"resent_frames\":0,\"expired_records\":0,\"round_trip_us\":410}]}\n";
    assert_eq!(text(JSON, Output::Links(answer(links))).0, want);
}

#[test]
fn names_in_any_script_keep_the_columns_straight() {
    let node = |address: &str, name: &str, state: &str, heard| TreeNode {
        address: a(address),
        name: name.into(),
        tier: a(address).tier(),
        code: None,
        labels: Default::default(),
        version: "0.1.0".into(),
        state: state.into(),
        last_heard_ms_ago: heard,
        health: (state == "self").then(|| "well".into()),
        silent: false,
        behind: (state == "self").then_some(4210),
        alarms: u64::from(state == "up"),
    };
    let mut nodes = vec![
        node("chengdu/liucheng", "柳城街道", "self", None),
        node("chengdu/liucheng/guanghua", "光华", "up", Some(1200)),
        node("chengdu/liucheng/guanghua/x", "Ten Li", "known", Some(100_000_000)),
    ];
    let want = "\
NODE              NAME      TIER           LINK   ALARMS  LAST HEARD
chengdu/liucheng  柳城街道  street         self        0  -
  guanghua        光华      community      up          1  1.2 s ago
    x             Ten Li    neighbourhood  known       0  told 1 d 3 h ago
nobody was asked: `known` is who told of itself at its start
chengdu/liucheng, its own record, as of 10:41:07Z
";
    assert_eq!(text(PLAIN, Output::Tree(answer(view::Tree { nodes: nodes.clone() }))).0, want);
    // Each asked, and one that is of another version.
    (nodes[1].health, nodes[1].behind) = (Some("well".into()), Some(3));
    nodes[2].version = "0.2.0".into();
    (nodes[2].health, nodes[2].silent) = (Some("no answer: no session".into()), true);
    let want = "\
NODE              NAME      LINK   ALARMS  BEHIND  HEALTH     VERSION
chengdu/liucheng  柳城街道  self        0   4,210  well       0.1.0
  guanghua        光华      up          1       3  well       0.1.0
    x             Ten Li    known       0       -  no answer  0.2.0
chengdu/liucheng/guanghua/x: no answer: no session; it told of itself 1 d 3 h ago, at its start
chengdu/liucheng, its own record, as of 10:41:07Z
";
    assert_eq!(text(PLAIN, Output::Tree(answer(view::Tree { nodes }))).0, want);
}

#[test]
fn nothing_to_show_is_said() {
    let (links, _) = text(PLAIN, Output::Links(answer(view::Links { links: vec![] })));
    assert!(links.starts_with("no links: "), "{links}");
    let (events, code) = text(PLAIN, Output::Events { lines: Lines::of("c", ""), follow: false });
    assert!(events.starts_with("no events yet that fit\n"), "{events}");
    assert_eq!(code, 0);
    let none = view::DeadLetters { open: 0, dead_letters: vec![] };
    assert!(text(PLAIN, Output::DeadLetters(answer(none))).0.starts_with("no open dead letters"));
}

const EVENT: &str = "{\"pos\":7,\"kind\":\"event\",\"priority\":\"urgent\",\"direction\":\"up\",\"origin\":\"c/s\",\"origin_pos\":3,\"received_at\":\"2026-07-01T10:41:06Z\",\"committed_at\":\"2026-07-01T10:41:07Z\",\"reach\":\"city\",\"event\":{\"type\":\"city.sos\",\"subject\":\"\\u001b[2J7栋\",\"data\":{\"n\":1.10}}}\n";

#[test]
fn an_event_cannot_steer_the_terminal() {
    let (got, _) = text(PLAIN, Output::Events { lines: Lines::of("c", EVENT), follow: false });
    assert!(!got.contains('\u{1b}'), "{got}");
    let row = got.lines().nth(1).unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words, ["7", "07-01", "10:41:07Z", "urgent", "city.sos", "c/s", "\u{fffd}[2J7栋", "{\"n\":1.10}"]);
}

#[test]
fn json_events_pass_as_they_came() {
    let (got, _) = text(JSON, Output::Events { lines: Lines::of("c", EVENT), follow: true });
    assert_eq!(got, EVENT);
}

#[test]
fn a_bad_check_is_code_2() {
    let bad = view::Check { ok: false, files: vec![], checked: vec![], notes: vec![] };
    assert_eq!(text(PLAIN, Output::Check(super::super::own(bad), vec![])).1, 2);
}

#[test]
fn a_node_that_is_not_ready_says_why_and_is_code_1() {
    let status = view::Status {
        name: "柳城街道".into(),
        tier: citybrain_shared::Tier::Street,
        code: None,
        labels: Default::default(),
        version: "0.1.0".into(),
        pid: 7,
        uptime_s: 3900,
        incarnation: "0123456789abcdef".into(),
        boots: 3,
        data: "/d".into(),
        ready: view::Ready { ready: false, reasons: vec!["the disk is full".into()] },
        log: view::Log { first_pos: Pos(1), last_pos: Pos(1_234_567), ..Default::default() },
        counters: view::Counters { accepted: 1_000, lost: 2, ..Default::default() },
        door: view::Door {
            kind: "embedded".into(),
            address: "127.0.0.1:1884".into(),
            connections: 12,
            connections_max: 10_000,
            ..Default::default()
        },
        links: two_links().links,
        descendants: 4,
        dead_letters_open: 1,
        webhooks: vec![view::Webhook {
            name: "hotline".into(),
            behind: 12,
            stands: vec![view::WebhookStands {
                pos: Pos(88_103),
                lane: Lane::Routine,
                since: view::time_of(0),
                why: "500 Internal Server Error".into(),
                unasked: false,
            }],
            not_agreed_since: None,
            not_agreed_why: None,
            gone_since: None,
            gone_why: None,
        }],
    };
    let want = "\
node      chengdu/liucheng 柳城街道 (street)
state     not ready: the disk is full
process   citybrain 0.1.0, pid 7, up 1 h 5 m, start 3 of incarnation 01234567
data      /d
log       positions 1 to 1,234,567
events    1,000 began here, 0 from below, 0 from above; 0 urgent
repeated  0 records dropped that came again
lost      2 records
door      embedded 127.0.0.1:1884: 12 of 10,000 connections, 0 sessions
links     to chengdu: up; 0 of 1 children up
below     4 nodes known to be there
refused   1 dead letter open (`citybrain dlq list`)
webhooks  webhook hotline stands at 88103 (routine) since 1970-01-01T00:00:00.000Z: 500 Internal Server Error; 12 records behind
chengdu/liucheng, its own record, as of 10:41:07Z
";
    assert_eq!(text(PLAIN, Output::Status(answer(status))), (want.to_owned(), 1));
}

#[test]
fn a_config_problem_is_drawn_in_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("street.toml");
    std::fs::write(&path, "[node]\naddress = \"c\"\ndata = \"d\"\n[link]\nresend_after = 500\n").unwrap();
    let invalid = crate::config::load(&path, &Default::default()).unwrap_err();
    let got = drawn(&invalid, false).replace(&format!("{}/", dir.path().display()), "");
    let want = "  × unknown key `resend_after` in `[link]`
   ╭─[street.toml:5:1]
 4 │ [link]
 5 │ resend_after = 500
   · ──────┬─────
   ·       ╰── here
   ╰────
  help: did you mean `resend_after_ms`?
";
    assert_eq!(got, want);
}

#[test]
fn a_score_that_lacks_a_rate_is_marked_and_what_no_rate_counts_is_told() {
    let counts = view::RateCounts {
        dispatched: 100,
        response_of: 3,
        response_kept: 1,
        response_open: 2,
        response_without_limit: 97,
        ..Default::default()
    };
    let rates = |solution: Option<f64>| view::PeriodRates {
        period: "all".into(),
        counts: counts.clone(),
        response: Some(1.0 / 3.0),
        solution,
        satisfaction: solution,
        score: Some(33.3),
        accurate_dispatch: None,
        closing: None,
        closing_in_time: None,
    };
    let row = |key: &str, now: view::PeriodRates| view::RateRow {
        key: key.into(),
        now,
        appeals_per_10000: None,
        people: None,
        before: None,
        year_before: None,
    };
    let shown = |rows: Vec<view::RateRow>| {
        let weights = view::RateWeights {
            response: 0.2,
            solution: 0.4,
            satisfaction: 0.4,
            partly_solved: 0.5,
            mostly_is_satisfied: true,
        };
        let (by, period) = (view::GroupBy::Child, view::RatePeriod::All);
        let total = row("all", rates(Some(0.5)));
        let rates =
            view::Rates { by, period, rows, total, weights, gone: None, away: vec![], awaits: None, at: time_of(0) };
        text(PLAIN, Output::Rates(Box::new(answer(rates)), crate::cli::rates::Show::Rates)).0
    };
    let marked = shown(vec![row("a", rates(Some(0.5))), row("b", rates(None))]);
    let line = |key: &str| marked.lines().find(|l| l.contains(key)).unwrap_or_else(|| panic!("{marked}")).to_owned();
    assert!(line("  b ").contains("33.3*") && !line("  a ").contains("33.3*"), "{marked}");
    assert!(marked.contains("* of fewer than three rates"), "{marked}");
    assert!(marked.contains(", partly solved counts 0.5, mostly satisfied 1; left out"), "{marked}");
    assert!(marked.contains("97 without a limit for the response; counted in the response, and not kept so far: 2 whose limit still runs"), "{marked}");
    let whole = shown(vec![row("a", rates(Some(0.5)))]);
    assert!(!whole.contains('*'), "{whole}");
}

#[test]
fn what_differs_and_needs_no_restart_is_said() {
    let shown = |keys: &[&str]| {
        let difference =
            |key: &&str| view::ConfigDifference { key: (*key).into(), running: None, file: Some("1".into()) };
        let diff = view::ConfigDiff { differences: keys.iter().map(difference).collect() };
        text(PLAIN, Output::Ops(Ops::ConfigDiff(answer(diff)))).0
    };
    let one = shown(&["store.keep_s"]);
    assert!(one.contains("a restart takes what the file says\n"), "{one}");
    let some = shown(&["store.keep_s", "service.0.name", "service.1.code", "calendar.holidays.0"]);
    let said = "a restart takes what the file says; of calendar, service `citybrain config reload` does, too\n";
    assert!(some.contains(said), "{some}");
}

#[test]
fn rows_are_ranked_by_what_a_table_shows_and_those_that_stand_alike_share_a_rank() {
    use crate::cli::rates::Show;
    let row = |key: &str, period: &str, in_time: u64, due: u64, per_10000: Option<f64>| {
        let counts = view::RateCounts {
            dispatched: 10,
            due,
            due_closed: due,
            due_closed_in_time: in_time,
            appeals: 1,
            ..Default::default()
        };
        let now = view::PeriodRates {
            period: period.into(),
            counts,
            response: None,
            solution: None,
            satisfaction: None,
            score: None,
            accurate_dispatch: Some(1.0),
            closing: (due > 0).then_some(1.0),
            closing_in_time: (due > 0).then(|| in_time as f64 / due as f64),
        };
        let (before, year_before) = (None, None);
        view::RateRow { key: key.into(), now, appeals_per_10000: per_10000, people: Some(10_000), before, year_before }
    };
    let rows = vec![
        row("late", "2026-10", 1, 4, None),
        row("few", "2026-10", 3, 4, Some(2.0)),
        row("none", "2026-10", 0, 0, Some(1.0)),
        row("alike", "2026-10", 6, 8, Some(2.0)),
        row("next", "2026-11", 0, 1, Some(9.0)),
    ];
    let weights = view::RateWeights::of(&Default::default());
    let (by, period, total) = (view::GroupBy::Child, view::RatePeriod::Month, row("all", "", 9, 17, Some(3.0)));
    let rates =
        view::Rates { by, period, rows, total, weights, gone: None, away: vec![], awaits: None, at: time_of(0) };
    let shown = |show: Show| -> Vec<String> {
        let text = text(PLAIN, Output::Rates(Box::new(answer(rates.clone())), show)).0;
        let words = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        text.lines().skip(1).take(6).map(words).collect()
    };
    let closing = ["2026-10 1 few", "2026-10 1 alike", "2026-10 3 late", "2026-11 1 next", "all 17 100.0"];
    assert_eq!(shown(Show::Closing)[..5], closing);
    let appeals = ["2026-10 1 none", "2026-10 2 few", "2026-10 2 alike", "2026-10 4 late", "2026-11 1 next"];
    assert_eq!(shown(Show::Appeals)[..5], appeals);
    assert_eq!(shown(Show::Rates)[0], "2026-10 - late", "no score, no rank");
}

#[test]
fn of_a_dead_letter_that_is_withheld_nothing_is_said_to_be_cut() {
    let letter = |withheld: bool, payload: &str| -> view::DeadLetter {
        let letter = serde_json::json!({"pos": 7, "at": "2026-11-30T00:00:00Z", "reason": "not-json", "detail": "d",
            "via": "http", "topic": "", "payload": payload, "payload_is_hex": false, "payload_bytes": 251,
            "withheld": withheld});
        serde_json::from_value(letter).unwrap()
    };
    let shown = |letter| text(PLAIN, Output::DeadLetter(answer(letter))).0;
    assert!(shown(letter(true, "[to nobody]")).contains("251 bytes, withheld:\n[to nobody]\n"));
    assert!(shown(letter(false, "{\"phone\":")).contains("251 bytes, the first 9 kept:\n{\"phone\":\n"));
}
