//! Limits on a calendar, and what follows from one that has passed.

use super::{COMMUNITY, cases, id, step, wait_case};
use crate::harness::ran::run;
use crate::harness::{Node, Tree, skipped, wait_for};
use chrono::{DateTime, Datelike, Days, FixedOffset, NaiveDate, TimeDelta, Timelike, Utc};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// An offset at which it is noon now, so that no midnight is near, and which day it is there.
fn noon() -> (String, NaiveDate) {
    let now = Utc::now();
    let hours = 12 - now.hour() as i32;
    let zone = FixedOffset::east_opt(hours * 3_600).expect("half a day at most");
    (format!("{hours:+03}:00"), now.with_timezone(&zone).date_naive())
}

fn day(day: NaiveDate, ahead: u64) -> NaiveDate {
    day + Days::new(ahead)
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("{value} is no time"))
}

fn clock<'c>(case: &'c Value, name: &str) -> &'c Value {
    let found = case["clocks"].as_array().and_then(|all| all.iter().find(|c| c["name"] == name));
    found.unwrap_or_else(|| panic!("no clock {name}: {case:#}"))
}

fn open(node: &Node, category: &str) -> Value {
    let new = json!({"category": category, "title": category, "by": "前台"});
    let (status, made) = node.post("/v1/cases", &new);
    assert_eq!(status, 201, "{made}");
    made["case"].clone()
}

/// A tree of which each node has this config.
fn tree(leaves: &[&str], config: &str) -> Tree {
    let mut tree = Tree::with(leaves, &HashMap::new(), config);
    tree.start();
    tree
}

/// Why this node's responders were called for that case, in order.
fn calls(node: &Node, case: &str) -> Vec<String> {
    let all = node.get_text("/v1/events?type=city.brain.case.call&last=1000").unwrap_or_default();
    let events = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let data = events.map(|line| line["event"]["data"].clone()).filter(|data| data["case"] == case);
    data.map(|data| data["why"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Step, who, to whom, and what is said of the clocks.
fn lines(node: &Node, case: &str) -> Vec<(String, String, String, String)> {
    let shown = node.get(&format!("/v1/cases/{case}")).unwrap_or_default();
    let text = |l: &Value, name: &str| l[name].as_str().unwrap_or_default().to_owned();
    let clocks = |l: &Value| {
        let all = l["clocks"].as_array().cloned().unwrap_or_default();
        all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
    };
    let all = shown["history"].as_array().cloned().unwrap_or_default();
    all.iter().map(|l| (text(l, "step"), text(l, "by"), text(l, "to"), clocks(l))).collect()
}

#[test]
fn a_days_file_s_holidays_put_a_limit_off_and_its_made_up_days_bring_it_nearer() {
    let (offset, today) = noon();
    // Only today's day of the week is worked; two days in between are made up, and a week later is a holiday.
    let config = format!(
        r#"
[calendar]
utc_offset = "{offset}"
hours = ["06:00-18:00"]
workdays = ["{}"]
days_file = "days.csv"
[[category]]
code = "ONE"
name = "一天"
response = "1wd"
solution = "3wd"
[[category]]
code = "TWO"
name = "两天"
response = "2wd"
"#,
        today.weekday().to_string().to_lowercase()
    );
    let mut tree = Tree::with(&["c"], &HashMap::new(), &config);
    let file = format!(
        "# made up\n{},makeup,调休\n{},makeup\n\n{}..{},holiday,节\n",
        day(today, 2),
        day(today, 4),
        day(today, 6),
        day(today, 8)
    );
    std::fs::write(tree.dir().join("days.csv"), file).expect("the days are written");
    tree.start();
    let node = tree.node("c");
    // So many working days later, at the same time of the day.
    let later = |case: &Value, name: &str| {
        let clock = clock(case, name);
        time(&clock["due"]) - time(&clock["started"])
    };
    let one = open(node, "一天");
    assert_eq!(later(&one, "response"), TimeDelta::days(2), "tomorrow nobody works, and the day after it is made up");
    assert_eq!(later(&open(node, "TWO"), "response"), TimeDelta::days(4));
    step(node, &id(&one), "accept", &json!({"by": "甲"}));
    let one = step(node, &id(&one), "dispatch", &json!({"by": "甲", "unit": "环卫所"}));
    assert_eq!(later(&one["case"], "solution"), TimeDelta::days(14), "in a week it is a holiday");
    // A wait stops it, and it goes on with what was left: the same day in two weeks.
    let before = time(&clock(&one["case"], "solution")["due"]);
    step(node, &id(&one["case"]), "suspend", &json!({"by": "甲", "text": "下雨", "approved_by": "乙"}));
    let on = step(node, &id(&one["case"]), "resume", &json!({"by": "甲"}));
    let put_off = time(&clock(&on["case"], "solution")["due"]) - before;
    assert!((TimeDelta::zero()..TimeDelta::minutes(5)).contains(&put_off), "{put_off}");
    // One day more: the week after that.
    let more = step(
        node,
        &id(&one["case"]),
        "extend",
        &json!({"by": "甲", "text": "量大", "approved_by": "乙", "limit": "1wd"}),
    );
    let more = time(&clock(&more["case"], "solution")["due"]) - time(&clock(&on["case"], "solution")["due"]);
    assert_eq!(more, TimeDelta::days(7));
}

/// What the script says of each start and limit; `None`, aloud, where there is no Python.
fn oracle(days: &Path, args: &[&str], questions: &[(DateTime<Utc>, &str)]) -> Option<Vec<DateTime<Utc>>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/working_time.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(days).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        skipped("python3 is not installed");
        return None;
    };
    let mut stdin = child.stdin.take().expect("it is a pipe");
    for (start, limit) in questions {
        writeln!(stdin, "{} {limit}", start.format("%Y-%m-%dT%H:%M:%S%.6fZ")).expect("it reads");
    }
    drop(stdin);
    let done = child.wait_with_output().expect("it ends");
    assert!(done.status.success(), "the script failed");
    let text = String::from_utf8(done.stdout).expect("text");
    let at = |us: &str| DateTime::from_timestamp_micros(us.parse().expect("a number")).expect("a time");
    Some(text.lines().map(at).collect())
}

#[test]
fn limits_of_many_months_pass_when_the_calendar_says_so_day_by_day() {
    const LIMITS: [&str; 7] = ["3wh", "1wd", "22wd", "66wd", "130wd", "260wd", "90d"];
    let mut config = String::from(
        "[calendar]\nutc_offset = \"+08:00\"\nhours = [\"09:00-12:00\", \"13:00-17:30\"]\ndays_file = \"days.csv\"\n",
    );
    for limit in LIMITS {
        config += &format!(
            "[[category]]\ncode = \"L{limit}\"\nname = \"{limit}\"\nresponse = \"{limit}\"\nsolution = \"{limit}\"\n"
        );
    }
    let mut tree = Tree::with(&["c"], &HashMap::new(), &config);
    // Every few weeks some days off, and a weekend day before each made up.
    let today = Utc::now().date_naive();
    let mut file = String::new();
    for n in 0..24_u64 {
        let first = day(today, 3 + n * 19);
        file += &format!("{first}..{},holiday\n", day(first, n % 8));
        let to_saturday = 5 - i64::from(first.weekday().num_days_from_monday());
        file += &format!("{},makeup\n", first + TimeDelta::days(to_saturday - 7));
    }
    let days = tree.dir().join("days.csv");
    std::fs::write(&days, file).expect("the days are written");
    tree.start();
    let node = tree.node("c");
    let opened: Vec<Value> = LIMITS.iter().map(|limit| open(node, limit)).collect();
    let mut asked: Vec<(DateTime<Utc>, &str)> =
        opened.iter().zip(LIMITS).map(|(case, limit)| (time(&clock(case, "response")["started"]), limit)).collect();
    let mut told: Vec<DateTime<Utc>> = opened.iter().map(|case| time(&clock(case, "response")["due"])).collect();
    // Dispatched, and extended by two months: from where it was due.
    for (case, limit) in opened.iter().zip(LIMITS) {
        step(node, &id(case), "accept", &json!({"by": "甲"}));
        let given = step(node, &id(case), "dispatch", &json!({"by": "甲", "unit": "x"}));
        let due = time(&clock(&given["case"], "solution")["due"]);
        asked.push((time(&clock(&given["case"], "solution")["started"]), limit));
        told.push(due);
        let more = json!({"by": "甲", "text": "x", "approved_by": "乙", "limit": "44wd"});
        let given = step(node, &id(case), "extend", &more);
        asked.push((due, "44wd"));
        told.push(time(&clock(&given["case"], "solution")["due"]));
    }
    let week = "mon,tue,wed,thu,fri";
    let Some(wanted) = oracle(&days, &["8", week, "09:00-12:00", "13:00-17:30"], &asked) else { return };
    assert_eq!(told.len(), wanted.len());
    for ((asked, told), wanted) in asked.iter().zip(told).zip(wanted) {
        assert_eq!(told, wanted, "{} from {}", asked.1, asked.0);
    }
}

const LIMITED: &str = r#"
[[category]]
code = "QUICK"
name = "急修"
dispatch = "1s"
[[category]]
code = "CALM"
name = "不急"
[cases]
missed = "MISSED"
"#;

#[test]
fn a_summoned_unit_that_does_not_report_in_time_is_told_to_whoever_summoned_it_once() {
    let there = "c/s/m2";
    let mut tree = tree(&[COMMUNITY, there], &LIMITED.replace("MISSED", "supervise"));
    tree.wait_all_known();
    let case = id(&open(tree.node(COMMUNITY), "CALM"));
    step(tree.node(COMMUNITY), &case, "accept", &json!({"by": "甲"}));
    let ask = json!({"by": "甲", "text": "要吊车", "unit": "车队", "to": there, "limit": "2s"});
    step(tree.node(COMMUNITY), &case, "assist", &ask);
    wait_for("the unit's responders are called", || (calls(tree.node(there), &case) == ["assist"]).then_some(()));
    assert!(!tree.node(there).get(&format!("/v1/cases/{case}")).unwrap_or_default().is_null(), "and know the case");
    // Over a kill it is told once.
    tree.kill9(COMMUNITY);
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    let late = |node: &Node| {
        wait_case(node, "knows that it is late", |c| {
            c["id"] == case.as_str() && !clock(c, "assist:a1")["missed"].is_null()
        })
    };
    late(tree.node(COMMUNITY));
    tree.kill9(COMMUNITY);
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    for at in [COMMUNITY, "c/s", "c", there] {
        let c = late(tree.node(at));
        assert_eq!(
            (&c["escalations"], &c["late"], &c["owner"]),
            (&Value::Null, &Value::Null, &json!(COMMUNITY)),
            "{at}"
        );
    }
    wait_for("who summoned it is called", || (calls(tree.node(COMMUNITY), &case) == ["missed"]).then_some(()));
    let missed: Vec<_> = lines(tree.node("c"), &case).into_iter().filter(|l| l.0 == "missed").collect();
    assert_eq!(missed, [("missed".into(), "timer".into(), String::new(), "assist:a1 missed".into())]);
    for above in ["c/s", "c"] {
        assert!(calls(tree.node(above), &case).is_empty(), "{above} has nothing to do with it");
        let overdue = tree.node(above).get("/v1/cases?overdue=true").expect("cases");
        assert_eq!((&overdue["overdue"], &overdue["fit"]), (&json!(0), &json!(0)), "a unit's limit is not the case's");
    }
    let url = tree.node(COMMUNITY).url();
    let shown = run(&["case", "show", &case, "--node", &url]);
    shown.says(0, &["a1 车队 (c/s/m2): 要吊车; has not reported", "the assist:a1 limit has passed"]);
    // It reports late, from its own node, and whoever summoned it rates it.
    let url = tree.node(there).url();
    let done = run(&["case", "report", &case, "--by", "车队长", "--result", "已吊走", "--node", &url]);
    done.says(0, &["reported", "已吊走"]);
    step(tree.node(COMMUNITY), &case, "rate", &json!({"by": "甲", "rating": 2}));
    let c = wait_case(tree.node(there), "knows how it was rated", |c| c["assists"][0]["rating"] == 2);
    assert_eq!((&c["assists"][0]["reported_by"], &c["assists"][0]["result"]), (&json!("车队长"), &json!("已吊走")));
    assert!(!clock(&c, "assist:a1")["stopped"].is_null());
    assert_eq!((calls(tree.node(COMMUNITY), &case).len(), calls(tree.node(there), &case).len()), (1, 1));
}

#[test]
fn a_missed_limit_hands_a_case_over_when_the_tier_above_is_there_and_what_is_resolved_by_then_stays() {
    let mut tree = tree(&[COMMUNITY], &LIMITED.replace("MISSED", "hand-over"));
    tree.stop_node("c/s");
    let owner = tree.node(COMMUNITY);
    let [taken, stays] = [(); 2].map(|()| id(&open(owner, "QUICK")));
    for case in [&taken, &stays] {
        step(owner, case, "accept", &json!({"by": "甲"}));
        let c = wait_case(owner, "is offered", |c| c["id"] == **case && c["offered_to"] == "c/s");
        assert_eq!((&c["owner"], &c["handing_to"], &c["escalations"]), (&json!(COMMUNITY), &Value::Null, &json!(1)));
    }
    run(&["case", "show", &taken, "--node", &owner.url()])
        .says(0, &[&format!("{taken}  accepted (offered to c/s, escalated), overdue  QUICK"), "dispatch missed"]);
    // Until somebody takes it, its owner works on.
    for case in [&taken, &stays] {
        step(owner, case, "dispatch", &json!({"by": "甲", "unit": "维修队"}));
        step(owner, case, "start", &json!({"by": "老赵"}));
    }
    step(owner, &stays, "resolve", &json!({"by": "老赵", "text": "好了"}));
    tree.start_node("c/s");
    tree.wait_ready();
    for at in ["c/s", "c", COMMUNITY] {
        let c = wait_case(tree.node(at), "has a new owner", |c| {
            c["id"] == taken.as_str() && c["owner"] == "c/s" && c["handing_to"].is_null()
        });
        assert_eq!((&c["status"], &c["offered_to"], &c["escalations"]), (&json!("handling"), &Value::Null, &json!(1)));
    }
    let told: Vec<String> = lines(tree.node("c"), &taken).into_iter().map(|l| l.0).collect();
    assert_eq!(told, ["submitted", "accepted", "escalated", "dispatched", "started", "escalated", "taken"]);
    let by_whom = lines(tree.node("c"), &taken).into_iter().filter(|l| l.0 == "escalated").map(|l| (l.1, l.2));
    assert_eq!(by_whom.collect::<Vec<_>>(), [("timer".into(), "c/s".into()), ("timer".to_owned(), "c/s".to_owned())]);
    // The street works on it; what was resolved is where it was.
    step(tree.node("c/s"), &taken, "resolve", &json!({"by": "街道", "text": "好了"}));
    wait_case(tree.node("c"), "sees it resolved", |c| c["id"] == taken.as_str() && c["status"] == "resolved");
    wait_for("the street is called for the one", || (calls(tree.node("c/s"), &taken) == ["escalated"]).then_some(()));
    for at in [COMMUNITY, "c/s", "c"] {
        let c = wait_case(tree.node(at), "knows it", |c| c["id"] == stays.as_str() && c["status"] == "resolved");
        assert_eq!((&c["owner"], &c["offered_to"], &c["term"]), (&json!(COMMUNITY), &Value::Null, &json!(1)), "{at}");
    }
    assert_eq!(calls(tree.node("c/s"), &stays), [""; 0], "the other was dealt with when it heard of it");
}

#[test]
fn an_escalation_by_hand_waits_for_the_tier_above_and_reaches_it_when_it_is_back() {
    let mut tree = tree(&[COMMUNITY], &LIMITED.replace("MISSED", "supervise"));
    let [watched, given, kept] = [(); 3].map(|()| id(&open(tree.node(COMMUNITY), "CALM")));
    for case in [&watched, &given, &kept] {
        step(tree.node(COMMUNITY), case, "accept", &json!({"by": "甲"}));
        wait_case(tree.node("c"), "is known", |c| c["id"] == **case && c["status"] == "accepted");
    }
    tree.stop_node("c/s");
    let owner = tree.node(COMMUNITY);
    let typed = |case: &str, more: &[&str]| {
        let line = ["case", "escalate", case, "--by", "甲", "--reason", "没人管", "--node", &owner.url()];
        run(&[&line, more].concat())
    };
    // The next one above, then the one above that; there is nobody above the city.
    typed(&watched, &[]).says(0, &["c/s: 没人管", "accepted (escalated)"]);
    typed(&watched, &[]).says(0, &["c: 没人管"]);
    typed(&watched, &[]).says(1, &["is at the top already"]);
    typed(&given, &["--hand-over"]).says(0, &["accepted (offered to c/s, escalated)"]);
    // An offer can be taken back, once.
    let recall = || run(&["case", "recall", &kept, "--by", "甲", "--reason", "有人管了", "--node", &owner.url()]);
    assert_eq!(recall().code, 1, "it is not offered");
    typed(&kept, &["--hand-over"]).says(0, &["accepted (offered to c/s, escalated)"]);
    typed(&kept, &["--hand-over"]).says(1, &["is offered to c/s already", "`recall` takes the offer back"]);
    recall().says(0, &[&format!("{kept}  accepted (escalated)"), "the offer to c/s: 有人管了"]);
    recall().says(1, &["neither on its way to anybody nor offered"]);
    // What is watched, and what is offered, is worked on.
    for case in [&watched, &given] {
        step(owner, case, "dispatch", &json!({"by": "甲", "unit": "维修队"}));
    }
    let seen = cases(tree.node("c"));
    assert!(seen.iter().all(|c| c["status"] == "accepted" && c["escalations"].is_null()), "{seen:#?}");
    tree.kill9(COMMUNITY);
    tree.start_node(COMMUNITY);
    tree.start_node("c/s");
    tree.wait_ready();
    for at in ["c", "c/s", COMMUNITY] {
        let c = wait_case(tree.node(at), "knows all", |c| c["id"] == watched.as_str() && c["status"] == "dispatched");
        assert_eq!((&c["owner"], &c["escalations"], &c["escalated_to"]), (&json!(COMMUNITY), &json!(2), &json!("c")));
        let c = wait_case(tree.node(at), "knows whose it is", |c| {
            c["id"] == given.as_str() && c["owner"] == "c/s" && c["handing_to"].is_null()
        });
        assert_eq!((&c["status"], &c["escalations"]), (&json!("dispatched"), &json!(1)), "{at}");
    }
    step(tree.node("c/s"), &given, "start", &json!({"by": "街道"}));
    wait_case(tree.node("c/s"), "hears of the third", |c| c["id"] == kept.as_str() && c["owner"] == COMMUNITY);
    wait_for("each was called once for each", || {
        let heard = [("c/s", &watched), ("c", &watched), ("c/s", &given), ("c", &given), ("c/s", &kept)];
        let heard = heard.map(|(at, case)| calls(tree.node(at), case).len());
        (heard == [1, 1, 1, 0, 0]).then_some(())
    });
}
