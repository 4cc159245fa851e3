//! A city's own service requests, brought into a tree as cases: counts and times at every tier equal
//! those that `oracle/requests.py` computes from the file alone, whatever is killed on the way.
//!
//! The real files (Los Angeles 2018, Boston 2011) are the cities' and not part of this repository:
//! `CITYBRAIN_PUBLIC_DATA` names the folder that has them. A made-up file in the same form is played
//! always.

mod by_the_clock;

use crate::harness::{PATIENCE, Tree, binary, wait_for};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Part of the city of Los Angeles: what has no node of its own is a rest, at every level.
const LOS_ANGELES: [&str; 8] = [
    "la/east-los-angeles-apc/boyle-heights-nc/zip-90033",
    "la/east-los-angeles-apc/other-councils",
    "la/harbor-apc/wilmington-nc/zip-90744",
    "la/harbor-apc/wilmington-nc/other-zips",
    "la/central-apc/east-hollywood-nc",
    "la/central-apc/other-councils/zip-90005",
    "la/central-apc/other-councils/other-zips",
    "la/other-apcs/other-councils",
];
const BOSTON: [&str; 6] = [
    "boston/dorchester/ward-17",
    "boston/dorchester/other-wards/other-precincts",
    "boston/west-roxbury/ward-20/precinct-2015",
    "boston/west-roxbury/ward-20/other-precincts",
    "boston/roxbury",
    "boston/other-parts/other-wards",
];

fn public(name: &str) -> Option<PathBuf> {
    let Some(dir) = std::env::var_os("CITYBRAIN_PUBLIC_DATA") else {
        crate::harness::impossible(&format!("CITYBRAIN_PUBLIC_DATA names no folder with {name}"));
        return None;
    };
    let path = Path::new(&dir).join(name);
    assert!(path.exists(), "CITYBRAIN_PUBLIC_DATA has no {name}");
    Some(path)
}

/// What the script says of each node; `None`, aloud, where there is no Python with time zones.
fn oracle(file: &Path, tree: &Tree) -> Option<HashMap<String, Value>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/requests.py");
    let child = Command::new("python3").arg(script).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        crate::harness::skipped("python3 is not installed");
        return None;
    };
    let nodes: Vec<&str> = tree.nodes.keys().map(String::as_str).collect();
    let mut stdin = child.stdin.take().expect("it is a pipe");
    stdin.write_all(nodes.join("\n").as_bytes()).expect("it reads the nodes");
    drop(stdin);
    let done = child.wait_with_output().expect("it ends");
    if done.status.code() == Some(77) {
        crate::harness::skipped("this Python has no time zones");
        return None;
    }
    assert!(done.status.success(), "the script failed");
    Some(serde_json::from_slice(&done.stdout).expect("it prints JSON"))
}

fn stats(tree: &Tree, node: &str, by: &str) -> Option<Value> {
    tree.node(node).get(&format!("/v1/case-stats?by={by}"))
}

/// Brings the file into the tree by the city, kills nodes while it goes on, and does it again: the
/// second time nothing is new.
fn bring(tree: &mut Tree, city: &str, file: &Path, killed: &[&str]) -> Value {
    let url = tree.node(city).url();
    wait_for("the city knows its tree", || {
        let known = tree.node(city).get("/v1/tree")?["nodes"].as_array()?.len();
        (known == tree.nodes.len()).then_some(())
    });
    let command = || {
        let mut command = Command::new(binary());
        command.args(["case", "import", "--json", "--node", &url]).arg(file);
        command.stdout(Stdio::piped());
        command
    };
    let mut child = command().spawn().expect("the binary starts");
    for (i, node) in killed.iter().enumerate() {
        let begun = Instant::now();
        // Each in the middle of something: after a part of the cases, and before the last.
        while child.try_wait().expect("its status").is_none() {
            let there = stats(tree, city, "all").and_then(|s| s["total"]["cases"].as_u64()).unwrap_or(0);
            if there > 200 * (i as u64 + 1) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "nothing comes in");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        tree.kill9(node);
        tree.start_node(node);
        tree.wait_ready();
    }
    let done = child.wait_with_output().expect("it ends");
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stdout));
    let first: Value = serde_json::from_slice(&done.stdout).expect("it prints JSON");
    let again = command().output().expect("it runs");
    let again: Value = serde_json::from_slice(&again.stdout).expect("it prints JSON");
    let zero = |name: &str| assert_eq!(again[name], 0, "{name} of {again}");
    ["opened", "changed", "refused"].into_iter().for_each(zero);
    assert_eq!(again["known"], first["accounts"]);
    first
}

/// Every node says what the script says of it.
fn compare(tree: &Tree, expected: &HashMap<String, Value>) {
    for (node, facts) in expected {
        wait_for(&format!("{node} has its {} cases, closed as they were", facts["cases"]), || {
            let total = stats(tree, node, "all")?["total"].clone();
            let took = |t: &Value| if t.is_null() { Value::Null } else { t.clone() };
            (total["cases"] == facts["cases"] && took(&total["took"]) == facts["took"]).then_some(())
        });
        for by in ["category", "department", "channel", "status", "child", "node"] {
            let answer = stats(tree, node, by).expect("stats");
            let rows = answer["rows"].as_array().expect("rows");
            let wanted = facts[by].as_object().expect("an object");
            assert_eq!(rows.len(), wanted.len(), "{node} by {by}: {answer:#}\n{wanted:#?}");
            for row in rows {
                let key = row["key"].as_str().expect("a key");
                let want = &wanted[if key == "-" { "" } else { key }];
                assert_eq!(row["cases"], want["cases"], "{node} by {by}: {key}");
                if by == "category" {
                    assert_eq!(row["took"], want["took"], "{node}: how long {key} took");
                }
            }
        }
        let total = stats(tree, node, "all").expect("stats")["total"].clone();
        for name in ["with_limit", "in_time", "late", "overdue"] {
            assert_eq!(total[name], facts[name], "{node}: {name}");
        }
    }
}

/// Service requests of nobody, in the form of Los Angeles: holes, clock changes, what was closed before
/// it was opened, what is closed for a second time.
fn made_up(dir: &Path, rows: u64) -> PathBuf {
    let areas = [
        ("East Los Angeles APC", "BOYLE HEIGHTS NC", "90033"),
        ("East Los Angeles APC", "LA-32 NC", "90032"),
        ("Harbor APC", "WILMINGTON NC", "90744"),
        ("Harbor APC", "", "90731"),
        ("Central APC", "EAST HOLLYWOOD NC", ""),
        ("Central APC", "WILSHIRE CENTER - KOREATOWN NC", "90005"),
        ("West Los Angeles APC", "PALMS NC", "90034"),
        ("", "", ""),
    ];
    let kinds = [("Bulky Items", "BOS"), ("Graffiti Removal", "OCB"), ("Single Streetlight Issue", "BSL")];
    let mut text = String::from(
        "SRNumber,CreatedDate,UpdatedDate,Owner,RequestType,Status,RequestSource,ClosedDate,Address,ZipCode,Latitude,Longitude,APC,NC,NCName\n",
    );
    // The spring change of the clock (2018-03-11) lies between opening and closing.
    let first = chrono::NaiveDate::from_ymd_opt(2018, 3, 8).expect("a day").and_hms_opt(9, 0, 0).expect("a time");
    let gap = chrono::NaiveDate::from_ymd_opt(2018, 3, 11).expect("a day").and_hms_opt(2, 0, 0).expect("a time");
    let shown = |t: chrono::NaiveDateTime| {
        // No clock showed the hour that the change left out.
        let is_skipped = (gap..gap + chrono::TimeDelta::hours(1)).contains(&t);
        let t = if is_skipped { t + chrono::TimeDelta::hours(1) } else { t };
        t.format("%m/%d/%Y %I:%M:%S %p").to_string()
    };
    for n in 0..rows {
        let (apc, council, zip) = areas[(n * 7 % 8) as usize];
        let (kind, owner) = kinds[(n * n % 3) as usize];
        let status = ["Closed", "Closed", "Cancelled", "Closed", "Referred Out"][(n % 5) as usize];
        let opened = first + chrono::TimeDelta::seconds((n * 97) as i64);
        let closed = opened + chrono::TimeDelta::seconds((n * 7919 % 900_000) as i64 - 1000);
        let updated = closed + chrono::TimeDelta::seconds((n % 3 * 500) as i64);
        let (opened, updated, closed) = (shown(opened), shown(updated), shown(closed));
        let _ = writeln!(
            text,
            "1-{n},{opened},{updated},{owner},{kind},{status},Call,{closed},\"{n} A ST\",{zip},34.0,-118.2,{apc},1,{council}"
        );
    }
    let path = dir.join("made-up.csv");
    std::fs::write(&path, text).expect("the file is written");
    path
}

/// Service requests of nobody, in the form of Boston: each row's flag is drawn first, and its times are such
/// that it is true. The autumn change of the clock (2011-11-06) lies in between.
fn made_up_boston(dir: &Path, rows: u64) -> PathBuf {
    let places = [
        ("Dorchester", "Ward 17", "1714"),
        ("Dorchester", "17", "1702"),
        ("Dorchester", "03", "0301"),
        ("West Roxbury", "Ward 20", "2015"),
        ("West Roxbury", "20", "2001"),
        ("Roxbury", "Ward 9", "0905"),
        ("Back Bay", "Ward 5", "0507"),
        ("", "", ""),
    ];
    let kinds = [("Street Light Outages", "PWDx"), ("Pothole Repair", "PWDx"), ("Tree Emergencies", "PARK")];
    let mut text = String::from(
        "case_enquiry_id,open_dt,target_dt,closed_dt,ontime,case_status,closure_reason,case_title,subject,reason,type,department,location,neighborhood,ward,precinct,latitude,longitude,source\n",
    );
    let first = chrono::NaiveDate::from_ymd_opt(2011, 10, 31).expect("a day").and_hms_opt(9, 0, 0).expect("a time");
    let far = chrono::NaiveDate::from_ymd_opt(2099, 1, 1).expect("a day").and_hms_opt(12, 0, 0).expect("a time");
    let shown = |t: chrono::NaiveDateTime| t.format("%Y-%m-%d %H:%M:%S").to_string();
    for n in 0..rows {
        let (part, ward, precinct) = places[(n * 5 % 8) as usize];
        let (kind, department) = kinds[(n % 3) as usize];
        // By day, so that no time is one of the hour that came twice.
        let opened =
            first + chrono::TimeDelta::days((n % 14) as i64) + chrono::TimeDelta::seconds((n * 53 % 28_800) as i64);
        let due = opened + chrono::TimeDelta::days((n * 7 % 11) as i64);
        let far_from = chrono::TimeDelta::days((n * 3 % 9 + 1) as i64);
        let second = chrono::TimeDelta::seconds(1);
        let (due, closed, flag) = match n * 13 % 9 {
            0 => (Some(due), Some(due), "ONTIME"),
            1 => (Some(due), Some(due + second), "OVERDUE"),
            2 => (Some(due + far_from), Some(opened + chrono::TimeDelta::minutes(7)), "ONTIME"),
            3 => (Some(due), Some(due + far_from), "OVERDUE"),
            4 => (Some(due), None, "OVERDUE"),
            5 => (None, None, "ONTIME"),
            6 => (None, Some(opened + far_from), "ONTIME"),
            7 => (Some(far), None, "ONTIME"),
            _ => (Some(due + far_from), Some(due + far_from - second), "ONTIME"),
        };
        let (due, status) = (due.map(shown).unwrap_or_default(), if closed.is_some() { "Closed" } else { "Open" });
        let (opened, closed) = (shown(opened), closed.map(shown).unwrap_or_default());
        let _ = writeln!(
            text,
            "{n},{opened},{due},{closed},{flag},{status},,{n} {kind},s,r,{kind},{department},\"{n} A St, Boston\",{part},{ward},{precinct},42.3,-71.1,Call"
        );
    }
    let path = dir.join("made-up-boston.csv");
    std::fs::write(&path, text).expect("the file is written");
    path
}

/// What a node exports of each case: its number there, and whether a limit was missed. All pages of it.
fn exported(tree: &Tree, node: &str, more: &[&str]) -> BTreeMap<String, bool> {
    let url = tree.node(node).url();
    let export = ["case", "export", "--json", "--node", &url];
    let done = Command::new(binary()).args(export).args(more).output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).expect("UTF-8");
    let read = |line: &str| {
        let case: Value = serde_json::from_str(line).expect("a case is JSON");
        let clock = case["clocks"].as_array().and_then(|all| all.iter().find(|c| c["name"] == "solution")).cloned();
        // What the rows of a spreadsheet call late, from the case alone.
        let is_late = clock.is_some_and(|c| !c["missed"].is_null());
        (case["imported"]["id"].as_str().expect("a number there").to_owned(), is_late)
    };
    let all: BTreeMap<String, bool> = text.lines().map(read).collect();
    assert_eq!(all.len(), text.lines().count(), "{node}: each once");
    all
}

fn tree(leaves: &[&str]) -> Tree {
    let mut tree = Tree::new(leaves);
    tree.start();
    tree
}

#[test]
fn cases_of_another_system_are_counted_and_timed_at_every_tier_as_their_file_says() {
    let mut tree = tree(&LOS_ANGELES);
    let file = made_up(tree.dir(), 1200);
    let Some(expected) = oracle(&file, &tree) else { return };
    let done = bring(&mut tree, "la", &file, &["la/harbor-apc/wilmington-nc", "la/central-apc/east-hollywood-nc"]);
    assert_eq!((&done["rows"], &done["cases"], &done["refused"]), (&1200.into(), &1200.into(), &0.into()));
    // What a killed node had on disk when its answer was lost, it knows when it is told again.
    let sum: u64 = ["opened", "changed", "known"].iter().filter_map(|name| done[name].as_u64()).sum();
    assert_eq!(done["accounts"], sum, "{done}");
    compare(&tree, &expected);
    // One of them, whole: its times are its own, and its history tells them.
    let shown = tree.node("la").get("/v1/cases?limit=1").expect("cases")["cases"][0].clone();
    assert!(shown["imported"]["source"] == "/us/los-angeles/myla311", "{shown}");
    assert!(shown["opened"].as_str().expect("a time").starts_with("2018-03-"), "{shown}");
}

#[test]
fn ten_thousand_requests_of_los_angeles_are_what_the_city_says() {
    let Some(file) = public("la311-2018.csv") else { return };
    let mut tree = tree(&LOS_ANGELES);
    let Some(expected) = oracle(&file, &tree) else { return };
    let done = bring(&mut tree, "la", &file, &["la/other-apcs", "la/east-los-angeles-apc/other-councils"]);
    assert_eq!((&done["rows"], &done["cases"]), (&10_000.into(), &10_000.into()), "{done}");
    compare(&tree, &expected);
}

#[test]
fn bostons_limits_are_kept_and_missed_as_the_city_flags_them_with_nodes_killed_on_the_way() {
    let Some(file) = public("boston311-2011.csv") else { return };
    let mut tree = tree(&BOSTON);
    let Some(expected) = oracle(&file, &tree) else { return };
    let killed =
        ["boston/other-parts", "boston", "boston/dorchester/other-wards", "boston/west-roxbury/ward-20/precinct-2015"];
    let done = bring(&mut tree, "boston", &file, &killed);
    assert_eq!((&done["rows"], &done["cases"]), (&5_000.into(), &5_000.into()), "{done}");
    compare(&tree, &expected);
    for (node, facts) in &expected {
        let total = stats(&tree, node, "all").expect("stats")["total"].clone();
        let flag = |name: &str| facts["flags"][name].as_u64().unwrap_or(0);
        assert_eq!(total["in_time"], flag("ONTIME"), "{node}");
        // Some are closed too late, and the city left its flag empty.
        assert_eq!(total["late"], flag("OVERDUE") + flag(""), "{node}");
    }
}

#[test]
fn made_up_limits_are_kept_and_missed_row_by_row_at_every_tier_as_their_file_says_with_nodes_killed_on_the_way() {
    let mut tree = tree(&BOSTON);
    let file = made_up_boston(tree.dir(), 1_125);
    let Some(expected) = oracle(&file, &tree) else { return };
    let done = bring(&mut tree, "boston", &file, &["boston/dorchester", "boston"]);
    assert_eq!((&done["rows"], &done["cases"], &done["refused"]), (&1_125.into(), &1_125.into(), &0.into()), "{done}");
    compare(&tree, &expected);
    for (node, facts) in &expected {
        let flags = facts["rows"].as_object().expect("an object");
        let told = exported(&tree, node, &[]);
        assert_eq!(told.len(), flags.len(), "{node}");
        for (number, is_late) in told {
            assert_eq!(flags[&number], if is_late { "OVERDUE" } else { "ONTIME" }, "{node}: {number}");
        }
    }
    // Also through the links, in many pages.
    let dorchester = "boston/dorchester";
    assert_eq!(exported(&tree, "boston", &["--at", dorchester]), exported(&tree, dorchester, &[]));
    let city = &expected["boston"];
    // Each kind of row is an eighth or ninth of the file, so that nothing is compared with nothing.
    assert_eq!(
        ["with_limit", "in_time", "late", "overdue"].map(|name| city[name].as_u64().expect("a number")),
        [875, 375, 250, 125]
    );
}

const FOUL: &str = r#"
[[rule]]
name = "foul"
on = ["city.air.hourly"]
only = "event.data['PM_US Post'] != null"
when = "event.data['PM_US Post'] > 150"
clear = "event.data['PM_US Post'] < 100"
then = [{ raise = { title = "PM2.5 ${event.data['PM_US Post']}" } }]
"#;
/// As `config/replay/chengdu-air.toml`, but nothing of it is urgent: that would overtake what was read before.
const AIR: &str = r#"
title = "Air"
empty = ["NA"]
numbers = ["PM_US Post"]
[event]
id = "{No}"
source = "/air"
type = "city.air.hourly"
[event.time]
text = "{year}-{month}-{day} {hour}:00"
format = "%Y-%m-%d %H:%M"
utc_offset = "+08:00"
"#;
const LONG_AND_SILENT: &str = r#"
[[rule]]
name = "foul-for-long"
on = ["city.air.hourly"]
only = "event.data['PM_US Post'] != null"
when = "event.data['PM_US Post'] > 115"
for = "6h"
clear = "event.data['PM_US Post'] <= 115"
then = [{ raise = { title = "PM2.5 for six hours" } }]
[[rule]]
name = "silent"
on = ["city.air.hourly"]
only = "event.data['PM_US Post'] != null"
absent = "3h"
then = [{ raise = { title = "no reading for three hours" } }]
# Of what is read and no number nothing can be computed.
[[rule]]
name = "clean"
on = ["city.air.hourly"]
window = { within = "3h", value = "event.data['PM_US Post']" }
when = "window.min < 45.0"
then = [{ emit = { type = "air.clean" } }]
"#;

/// Two weeks of readings that rise, fall and fail.
fn made_up_air(dir: &Path) -> PathBuf {
    let mut text = String::from("No,year,month,day,hour,PM_US Post,TEMP,HUMI\n");
    for n in 0..336_u32 {
        let value = match n * 7919 % 100 {
            _ if n % 60 > 54 => "NA".to_owned(),
            wave => (40 + (n % 48) * 4 + wave / 4).to_string(),
        };
        let _ = writeln!(text, "{n},2014,1,{},{},{value},5,80", n / 24 + 1, n % 24);
    }
    let path = dir.join("air.csv");
    std::fs::write(&path, text).expect("the file is written");
    path
}

/// A rule, `fired` or `over`, and the number of the reading before which it did, or that ended it.
type Told = (String, String, String);

/// What the script says of the readings, and when rules fire that wait for time; `None`, aloud, where there is no
/// Python.
fn air_oracle(file: &Path) -> Option<(Value, Vec<Told>)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/air.py");
    let Ok(told) = Command::new("python3").arg(script).arg(file).output() else {
        crate::harness::skipped("python3 is not installed");
        return None;
    };
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let mut told: Value = serde_json::from_slice(&told.stdout).expect("it prints JSON");
    let when = serde_json::from_value(told["told"].take()).expect("it is a list");
    Some((told, when))
}

#[test]
fn readings_of_air_drive_threshold_duration_and_absence_rules() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("node.toml");
    let node = "[node]\naddress = \"chengdu\"\ndata = \"./data\"\n";
    std::fs::write(&config, format!("{node}{FOUL}{LONG_AND_SILENT}")).expect("the config is written");
    let files = [Some(made_up_air(dir.path())), public("chengdu-air-2014-2015.csv")];
    for file in files.into_iter().flatten() {
        let Some((told, _)) = air_oracle(&file) else { return };
        let ran = Command::new(binary())
            .args(["rule", "test", "--json"])
            .arg(&config)
            .arg("--events")
            .arg(&file)
            .output()
            .expect("the binary runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let ran: Value = serde_json::from_slice(&ran.stdout).expect("it prints JSON");
        assert_eq!(ran["events"], told["readings"]);
        let of_clean = ran["rules"].as_array().expect("a list").iter().find(|r| r["name"] == "clean");
        assert_eq!(of_clean.expect("it is in the file")["errors"], told["holes"], "in {}", file.display());
        for rule in ["foul", "foul-for-long", "silent", "clean"] {
            let fired = ran["fired"].as_array().expect("a list").iter();
            let fired = fired.filter(|f| f["rule"] == rule && f["what"] == "fired").count() as u64;
            assert!(fired > 0, "{rule} never fires in {}: {told}", file.display());
            assert_eq!(told[rule], fired, "{rule} in {}: {told}", file.display());
        }
        eprintln!("{}: {told}", file.display());
    }
}

#[test]
fn readings_that_are_played_into_a_tree_raise_alarms_as_often_as_their_file_says_over_kills() {
    let leaf = "chengdu/stations/air/us-post";
    let mut tree = Tree::new(&[leaf]);
    for node in [leaf, "chengdu"] {
        tree.edit(node, |text| format!("{text}{FOUL}"));
    }
    tree.start();
    let file = made_up_air(tree.dir());
    let Some((told, _)) = air_oracle(&file) else { return };
    let mapping = tree.dir().join("air.toml");
    std::fs::write(&mapping, AIR).expect("the mapping is written");
    let door = format!("mqtt://127.0.0.1:{}", tree.node(leaf).mqtt);
    let mut playing = Command::new(binary())
        .args(["replay", "--rate", "200", "--mqtt", &door, "--mapping"])
        .args([&mapping, &file])
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let count = |tree: &Tree, node: &str, kind: &str, origin: &str| {
        let all = tree.node(node).records();
        all.iter().filter(|r| r.event_type == kind && r.origin == origin).count() as u64
    };
    for (at_least, killed) in [(80, leaf), (160, "chengdu")] {
        wait_for("some have been read", || (count(&tree, leaf, "city.air.hourly", leaf) > at_least).then_some(()));
        tree.kill9(killed);
        tree.start_node(killed);
        tree.wait_ready();
    }
    assert!(playing.wait().expect("it ends").success());
    for node in [leaf, "chengdu"] {
        wait_for(&format!("{node} has read all of {told}"), || {
            (count(&tree, node, "city.air.hourly", leaf) == told["readings"].as_u64()?).then_some(())
        });
        let of = |origin: &str| {
            wait_for(&format!("{node}: {told}"), || {
                let raised = count(&tree, node, "city.brain.alarm.raised", origin);
                let cleared = count(&tree, node, "city.brain.alarm.cleared", origin);
                let is_foul = u64::from(told["is_foul"] == true);
                (raised == told["foul"].as_u64()? && cleared + is_foul == raised).then_some(raised)
            })
        };
        assert!(of(node) > 3, "{told}");
        assert!(of(leaf) > 3, "what the station has raised is known above");
    }
}
