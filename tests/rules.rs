//! Rules and alarms over a tree of real processes; what rules do beside raising them is in `actions`.

mod actions;

use crate::harness::mqtt::Client;
use crate::harness::ran::{Ran, run};
use crate::harness::{Node, Tree, binary, wait_for};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};

const LEAF: &str = "c/s/m/n";

/// Of the lowest node.
const RULES: &str = r#"
[[rule]]
name = "smoke"
on = ["city.smoke"]
by = "event.subject"
when = "event.data.smoke == true"
clear = "event.data.smoke == false"
[[rule.then]]
raise = { severity = "critical", title = "Smoke at ${event.subject}" }
[[rule.then]]
emit = { type = "city.test.evacuate", data = { where = "${event.subject}" } }

[[rule]]
name = "water"
on = ["city.water"]
by = "event.subject"
when = "event.data.level > 3.0"
for = "4s"
clear = "event.data.level < 2.5"
[[rule.then]]
raise = { severity = "major", title = "Water at ${event.data.level} m" }

[[rule]]
name = "noise"
on = ["city.noise"]
window = { within = "1h" }
when = "window.count >= 10"
[[rule.then]]
raise = { severity = "minor", title = "${window.count} complaints", reach = "REACH" }
"#;

fn tree_of(leaf: &str, reach: &str) -> Tree {
    let mut tree = Tree::new(&[leaf]);
    let config = &tree.node(leaf).config;
    let text = std::fs::read_to_string(config).expect("the config reads");
    std::fs::write(config, format!("{text}{}", RULES.replace("REACH", reach))).expect("it is written");
    tree.start();
    tree
}

fn tree() -> Tree {
    tree_of(LEAF, "community")
}

fn say(node: &Node, id: &str, kind: &str, subject: &str, data: &Value) {
    let event =
        json!({"specversion": "1.0", "id": id, "source": "/test", "type": kind, "subject": subject, "data": data});
    let mut device = Client::connect(node.mqtt, id, true);
    assert!(device.publish("in/x", event.to_string().as_bytes()));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn alarms(node: &Node) -> Vec<Value> {
    let all = node.get("/v1/alarms?active=false&shelved=true");
    all.and_then(|a| a["alarms"].as_array().cloned()).unwrap_or_default()
}

fn wait_alarm(node: &Node, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("{}: {what}\n{}", node.address, node.output()), || alarms(node).into_iter().find(|a| fits(a)))
}

#[test]
fn an_alarm_climbs_is_acknowledged_at_the_city_and_clears_by_its_rule() {
    let tree = tree();
    let (leaf, city) = (tree.node(LEAF), tree.node("c"));
    for i in 0..3 {
        say(leaf, &format!("s{i}"), "city.smoke", "flat-3", &json!({"smoke": true}));
    }
    let seen = wait_alarm(city, "sees the alarm", |a| a["active"] == true);
    assert_eq!((seen["origin"].as_str(), seen["title"].as_str()), (Some(LEAF), Some("Smoke at flat-3")));
    let id = seen["id"].as_str().expect("an id").to_owned();

    let (status, answer) = city.post(&format!("/v1/alarms/{id}/ack"), &json!({"by": "Li"}));
    assert_eq!((status, answer["alarm"]["asked"]["by"].as_str()), (202, Some("Li")), "{answer}");
    for address in [LEAF, "c/s/m", "c/s", "c"] {
        let acked = wait_alarm(tree.node(address), "knows that it was seen", |a| a["acknowledged"] == true);
        assert_eq!((acked["id"].as_str(), acked["acknowledged_by"].as_str()), (Some(id.as_str()), Some("Li")));
        assert!(acked.get("asked").is_none(), "{acked}");
    }
    let (status, answer) = city.post(&format!("/v1/alarms/{id}/ack"), &json!({}));
    assert_eq!((status, &answer["error"]), (400, &json!("missing")), "nothing is done in nobody's name");
    let (status, answer) = city.post(&format!("/v1/alarms/{id}/ack"), &json!({"by": "Li"}));
    assert_eq!((status, answer["error"].as_str()), (409, Some("nothing-to-do")));

    say(leaf, "s9", "city.smoke", "flat-3", &json!({"smoke": false}));
    wait_alarm(city, "knows that it is over", |a| a["active"] == false && a["acknowledged"] == true);
    for address in [LEAF, "c/s/m", "c/s", "c"] {
        let node = tree.node(address);
        assert_eq!(alarms(node).len(), 1, "{address}");
        let count = |kind: &str| node.records().iter().filter(|r| r.event_type == kind).count();
        assert_eq!(count("city.brain.alarm.raised"), 1, "{address}");
        assert_eq!(count("city.brain.alarm.cleared"), 1, "{address}");
        assert_eq!(count("city.test.evacuate"), 1, "{address}");
    }
}

#[test]
fn what_was_asked_of_an_alarm_that_was_raised_anew_meanwhile_is_a_no() {
    let mut tree = tree();
    say(tree.node(LEAF), "on", "city.smoke", "flat-3", &json!({"smoke": true}));
    let seen = wait_alarm(tree.node("c"), "sees the alarm", |a| a["active"] == true);
    tree.kill9("c/s");
    let (id, city) = (text(&seen["id"]).to_owned(), tree.node("c").url());
    run(&["alarm", "clear", &id, "--by", "Li", "--wait", "50ms", "--node", &city]).says(3, &["has not answered yet"]);
    say(tree.node(LEAF), "off", "city.smoke", "flat-3", &json!({"smoke": false}));
    say(tree.node(LEAF), "anew", "city.smoke", "flat-3", &json!({"smoke": true}));
    let asked = std::thread::spawn({
        let (id, city) = (id.clone(), city.clone());
        move || run(&["alarm", "clear", &id, "--by", "Li", "--wait", "60s", "--node", &city])
    });
    tree.start_node("c/s");
    let no = ["critical active", "not done   clear by Li at ", ": it was raised anew meanwhile, at "];
    asked.join().expect("it ran").says(1, &no);
    run(&["alarm", "show", &id, "--node", &city]).says(0, &no);
    run(&["alarm", "clear", &id, "--by", "Li", "--wait", "60s", "--node", &city]).says(0, &["critical cleared"]);
}

#[test]
fn lists_name_who_is_not_heard_however_far_below() {
    let mut tree = Tree::with(&[LEAF, "c/s/o"], &Default::default(), "[link]\nkeep_alive_s = 1\n");
    tree.start();
    tree.wait_all_known();
    let wait = |tree: &Tree, at: &str, unheard: &[&str], away: &[&str]| {
        let node = tree.node(at);
        wait_for(&format!("{at} knows that {unheard:?} are not heard\n{}", node.output()), || {
            let (alarms, cases) = (node.get("/v1/alarms")?, node.get("/v1/cases")?);
            let named = |list: &Value| list.as_array().cloned().unwrap_or_default();
            let nodes = named(&cases["away"]).into_iter().map(|one| one["node"].clone()).collect::<Vec<_>>();
            (named(&alarms["unheard"]) == unheard && nodes == away).then_some(())
        });
    };
    let above = ["c/s/m", "c/s", "c"];
    above.iter().for_each(|at| wait(&tree, at, &[], &[]));
    tree.kill9(LEAF);
    above.iter().for_each(|at| wait(&tree, at, &[LEAF], &[LEAF]));
    // What is not asked about is not named.
    let asked = tree.node("c").get("/v1/alarms?address=c/s/o").expect("an answer");
    assert!(asked.get("unheard").is_none(), "{asked}");
    tree.kill9("c/s/m");
    above[1..].iter().for_each(|at| wait(&tree, at, &["c/s/m", LEAF], &["c/s/m"]));
    tree.start_node("c/s/m");
    above.iter().for_each(|at| wait(&tree, at, &[LEAF], &[LEAF]));
    tree.start_node(LEAF);
    above.iter().for_each(|at| wait(&tree, at, &[], &[]));
}

#[test]
fn an_acknowledgement_made_while_the_node_is_cut_off_arrives_later() {
    let mut tree = tree();
    say(tree.node(LEAF), "s1", "city.smoke", "flat-3", &json!({"smoke": true}));
    let id =
        wait_alarm(tree.node("c"), "sees the alarm", |a| a["active"] == true)["id"].as_str().expect("id").to_owned();
    let ack = |tree: &Tree| {
        let (status, _) = tree.node("c").post(&format!("/v1/alarms/{id}/ack"), &json!({"by": "Li"}));
        assert_eq!(status, 202);
    };
    // Both ends go on: the city has seen it, the leaf has cleared it and raised it again. Of that nobody
    // at the city has seen anything.
    tree.stop_node("c/s");
    ack(&tree);
    say(tree.node(LEAF), "s2", "city.smoke", "flat-3", &json!({"smoke": false}));
    say(tree.node(LEAF), "s3", "city.smoke", "flat-3", &json!({"smoke": true}));
    wait_alarm(tree.node(LEAF), "raised again", |a| a["raises"] == 2);
    tree.start_node("c/s");
    wait_alarm(tree.node("c"), "hears of it", |a| a["raises"] == 2 && a["active"] == true && a.get("asked").is_none());
    for address in [LEAF, "c"] {
        wait_alarm(tree.node(address), "is not acknowledged", |a| a["raises"] == 2 && a["acknowledged"] == false);
    }
    tree.stop_node("c/s");
    ack(&tree);
    tree.start_node("c/s");
    for address in [LEAF, "c"] {
        wait_alarm(tree.node(address), "agrees", |a| a["raises"] == 2 && a["acknowledged"] == true);
    }
}

#[test]
fn alarms_outlast_a_lost_disk_and_are_over_while_their_box_is_out_of_the_tree() {
    let mut tree = tree();
    tree.wait_all_known();
    for flat in ["flat-3", "flat-4"] {
        say(tree.node(LEAF), flat, "city.smoke", flat, &json!({"smoke": true}));
    }
    let of = |flat: &'static str, active: bool| move |a: &Value| a["key"] == flat && a["active"] == active;
    let before = ["flat-3", "flat-4"].map(|flat| wait_alarm(tree.node("c"), "sees both", of(flat, true)));
    tree.kill9(LEAF);
    tree.lose_disk(LEAF);
    tree.start_node(LEAF);
    for alarm in &before {
        wait_alarm(tree.node(LEAF), "learns of both", |a| a == alarm);
    }
    // What they were raised by is in no log below the next disk that goes.
    tree.kill9("c/s/m");
    tree.lose_disk("c/s/m");
    tree.start_node("c/s/m");
    for flat in ["flat-3", "flat-4"] {
        wait_alarm(tree.node("c/s/m"), "hears of both once more", of(flat, true));
    }
    say(tree.node(LEAF), "over", "city.smoke", "flat-3", &json!({"smoke": false}));
    wait_alarm(tree.node("c"), "sees that one is over", of("flat-3", false));
    let (id, city) = (text(&before[1]["id"]).to_owned(), tree.node("c").url());
    run(&["alarm", "ack", &id, "--by", "Li", "--wait", "30s", "--node", &city]).says(0, &["critical active, acked"]);
    run(&["alarm", "ack", "0123456789abcdef", "--by", "Li", "--node", &city])
        .says(1, &["ask that node itself, `citybrain … --node URL`"]);

    tree.kill9(LEAF);
    let retire = ["enrol", "retire", LEAF, "--yes", "--at", "c/s/m", "--node", &city];
    let gone = wait_for("its session has ended", || Some(run(&retire)).filter(|ran| ran.code == 0));
    gone.says(0, &["over until it is back: 1 alarm"]);
    for address in ["c/s/m", "c/s", "c"] {
        let over = wait_alarm(tree.node(address), "has it as over", of("flat-4", false));
        assert_eq!(over["cleared_by"], "node:retired", "{address}");
    }
    let cap = tree.node("c").get_text(&format!("/v1/alarms/{id}/cap")).expect("a message");
    assert!(cap.contains("Cancel") && !cap.contains("AllClear"), "nobody has said that all is clear: {cap}");
    tree.start_node(LEAF);
    wait_alarm(tree.node("c"), "has it as active again", of("flat-4", true));

    // Taken out once more, and the box that has said so loses its disk before it is back; and where an operator has to
    // let it in first.
    for is_manual in [false, true] {
        tree.kill9(LEAF);
        wait_for("its session has ended", || Some(run(&retire)).filter(|ran| ran.code == 0));
        wait_alarm(tree.node("c"), "has it as over", of("flat-4", false));
        tree.kill9("c/s/m");
        tree.lose_disk("c/s/m");
        if is_manual {
            tree.edit("c/s/m", |text| format!("{text}[link]\nenrol = \"manual\"\n"));
        }
        tree.start_node("c/s/m");
        tree.start_node(LEAF);
        if is_manual {
            let url = tree.node("c/s/m").url();
            let approve = ["enrol", "approve", LEAF, "--yes", "--node", &url];
            wait_for("it has asked to come in", || Some(run(&approve)).filter(|ran| ran.code == 0));
        }
        wait_alarm(tree.node("c"), "has it as active again", of("flat-4", true));
    }
}

/// Of a street: what it does about what comes from below.
const STREET_RULES: &str = r#"
[[rule]]
name = "valve"
on = ["t.open"]
[[rule.then]]
command = { target = "c/s/**", type = "cmd.open", ttl = "1h", data = "${event.data}" }
[[rule.then]]
emit = { type = "t.opened", data = "${event.data}" }
[[rule.then]]
notice = { target = "c/s/**", type = "t.note", data = "${event.data}" }
[[rule.then]]
case = { category = "valve", title = "valve ${event.data.n}" }

[[rule]]
name = "leak"
on = ["t.leak"]
by = "event.subject"
when = "event.data.on"
clear = "!event.data.on"
[[rule.then]]
raise = { title = "leak" }
"#;

fn street_tree() -> Tree {
    let mut tree = Tree::new(&[LEAF]);
    tree.edit("c/s", |text| format!("{text}{STREET_RULES}"));
    tree.start();
    tree.wait_all_known();
    tree
}

fn open(tree: &Tree, n: u32) {
    say(tree.node(LEAF), &format!("o{n}"), "t.open", "v", &json!({"n": n}));
}

fn leak(tree: &Tree, id: &str, on: bool) {
    say(tree.node(LEAF), id, "t.leak", "a", &json!({"on": on}));
}

/// What the street has done about those, each once and in order, is heard where it goes, and its cases are there.
fn wait_done(tree: &Tree, all: &[u64]) {
    for (at, kind) in [(LEAF, "cmd.open"), (LEAF, "t.note"), ("c", "t.opened")] {
        wait_for(&format!("{at} hears {all:?}"), || {
            let text = tree.node(at).get_text(&format!("/v1/events?after=0&type={kind}")).unwrap_or_default();
            let of = |line| serde_json::from_str::<Value>(line).expect("a line is JSON")["event"]["data"]["n"].clone();
            let heard: Vec<_> = text.lines().map(|line| of(line).as_u64().expect("a number")).collect();
            assert!(heard.len() <= all.len(), "{kind} at {at}: {heard:?}");
            (heard == all).then_some(())
        });
    }
    for at in ["c", "c/s"] {
        wait_for(&format!("the cases are at {at}"), || {
            let fit = tree.node(at).get("/v1/cases")?["fit"].as_u64()?;
            assert!(fit <= all.len() as u64, "{fit} cases at {at}");
            (fit == all.len() as u64).then_some(())
        });
    }
}

#[test]
fn a_restored_node_does_nothing_again_that_it_had_done_since_its_backup() {
    let mut tree = street_tree();
    (0..2).for_each(|n| open(&tree, n));
    wait_done(&tree, &[0, 1]);
    tree.back_up("c/s");
    (2..4).for_each(|n| open(&tree, n));
    leak(&tree, "l0", true);
    wait_alarm(tree.node("c"), "sees the leak", |a| a["active"] == true);
    wait_done(&tree, &[0, 1, 2, 3]);
    tree.kill9("c/s");
    tree.restore("c/s");
    open(&tree, 4);
    leak(&tree, "l1", false);
    tree.start_node("c/s");
    tree.wait_ready();
    // What was sent again comes before it.
    wait_done(&tree, &[0, 1, 2, 3, 4]);
    for at in ["c", "c/s"] {
        let over = wait_alarm(tree.node(at), "sees it over", |a| a["active"] == false);
        assert_eq!(over["raises"], 1, "{at}");
    }
}

#[test]
fn a_new_box_does_nothing_again_that_the_lost_one_had_done_and_all_that_it_had_not_heard() {
    let mut tree = street_tree();
    (0..3).for_each(|n| open(&tree, n));
    leak(&tree, "l0", true);
    wait_alarm(tree.node("c"), "sees the leak", |a| a["active"] == true);
    leak(&tree, "l1", false);
    wait_alarm(tree.node("c"), "sees it over", |a| a["active"] == false);
    wait_done(&tree, &[0, 1, 2]);
    for n in 3..5 {
        tree.kill9("c/s");
        tree.lose_disk("c/s");
        open(&tree, n);
        tree.start_node("c/s");
        // What was sent again comes before it.
        wait_done(&tree, &(0..=u64::from(n)).collect::<Vec<_>>());
        assert_eq!(alarms(tree.node("c")).iter().map(|a| a["raises"].as_u64()).collect::<Vec<_>>(), [Some(1)]);
    }
}

#[test]
fn an_alarm_whose_rule_is_gone_at_a_start_is_named_and_ends_when_the_rule_is_back() {
    let mut tree = tree_of("c", "city");
    say(tree.node("c"), "s1", "city.smoke", "flat-3", &json!({"smoke": true}));
    let id = text(&wait_alarm(tree.node("c"), "has it", |a| a["active"] == true)["id"]).to_owned();
    let url = tree.node("c").url();
    let show = || run(&["alarm", "show", &id, "--node", &url]).out.clone();
    assert!(!show().contains("no rule ends it"), "{}", show());
    run(&["alarm", "show", "smoke/fl", "--node", &url])
        .says(1, &["no alarm `smoke/fl` is known here", &format!("begin so: 'smoke/flat-3' of c ({id})")]);
    // Of a stopped node nobody knows which rules are in force: nothing is said of them.
    tree.stop_node("c");
    let folder = tree.node("c").data.display().to_string();
    let of_folder = |line: &[&str]| run(&[line, &["--offline", &folder]].concat());
    let shown = of_folder(&["alarm", "show", &id]);
    shown.says(0, &["critical active", "rule       smoke, of flat-3"]);
    assert!(!shown.out.contains("no rule ends it"), "{}", shown.out);
    let doctor = of_folder(&["doctor"]);
    assert!(!doctor.out.contains("alarms-left"), "{}", doctor.out);
    let rules = of_folder(&["rule", "list"]);
    assert_eq!(rules.code, 1, "{}", rules.out);
    assert!(rules.err.contains("does not hold its config") && rules.out.is_empty(), "{}", rules.err);
    tree.start_node("c");
    tree.wait_ready();
    let config = tree.node("c").config.clone();
    let with = std::fs::read_to_string(&config).expect("the config reads");
    let again = |tree: &mut Tree, text: &str| {
        tree.stop_node("c");
        std::fs::write(&config, text).expect("it is written");
        tree.start_node("c");
        tree.wait_ready();
    };
    again(&mut tree, with.split("[[rule]]").next().unwrap_or_default());
    assert!(show().contains("no rule ends it any more"), "{}", show());
    let doctor = run(&["doctor", "--node", &url]).out.clone();
    assert!(doctor.contains("alarms-left") && doctor.contains("smoke/flat-3"), "{doctor}");
    let told = tree.node("c").output();
    assert!(told.contains("no rule in force ends"), "{told}");
    again(&mut tree, &with);
    assert!(!show().contains("no rule ends it"), "{}", show());
    say(tree.node("c"), "s2", "city.smoke", "flat-3", &json!({"smoke": false}));
    wait_alarm(tree.node("c"), "has it as over", |a| a["active"] == false);
}

#[test]
fn a_duration_goes_on_over_a_kill() {
    let mut tree = tree_of("c", "city");
    say(tree.node("c"), "w1", "city.water", "g1", &json!({"level": 3.2}));
    tree.kill9("c");
    tree.start_node("c");
    tree.wait_ready();
    assert!(alarms(tree.node("c")).is_empty(), "it was not high for long enough yet");
    let raised = wait_alarm(tree.node("c"), "has been high for long enough", |a| a["name"] == "water");
    assert_eq!(raised["title"], "Water at 3.2 m");
    say(tree.node("c"), "w2", "city.water", "g1", &json!({"level": 2.7}));
    say(tree.node("c"), "w3", "city.water", "g1", &json!({"level": 2.4}));
    wait_alarm(tree.node("c"), "is low again", |a| a["active"] == false);
    let cleared = tree.node("c").records().into_iter().filter(|r| r.event_type == "city.brain.alarm.cleared").count();
    assert_eq!(cleared, 1);
}

#[test]
fn a_window_counts_on_over_kills_and_the_alarm_stays_below_its_reach() {
    let mut tree = tree();
    for i in 0..10 {
        if i % 4 == 3 {
            tree.kill9(LEAF);
            tree.start_node(LEAF);
            tree.wait_ready();
        }
        say(tree.node(LEAF), &format!("n{i}"), "city.noise", "x", &json!({}));
        let raised = alarms(tree.node(LEAF)).len();
        assert!(raised == 0 || i == 9, "it counted too far at {i}");
    }
    let raised = wait_alarm(tree.node("c/s/m"), "sees it", |a| a["name"] == "noise");
    assert_eq!(raised["title"], "10 complaints");
    // Whatever is going to climb has climbed when this one has.
    say(tree.node(LEAF), "s1", "city.smoke", "flat-3", &json!({"smoke": true}));
    wait_alarm(tree.node("c"), "sees the other", |a| a["name"] == "smoke");
    assert!(alarms(tree.node("c")).iter().all(|a| a["name"] == "smoke"));
}

#[test]
fn the_rule_of_the_shipped_community_counts_complaints_that_its_neighbourhoods_take() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/community.toml");
    let shipped = std::fs::read_to_string(shipped).expect("it reads");
    let rule = shipped.split("\n\n").find(|part| part.contains("\nname = \"noise\"")).expect("the rule");
    let mut tree = Tree::new(&[LEAF]);
    tree.edit("c/s/m", |text| format!("{text}\n{rule}\n"));
    tree.start();
    for i in 0..11 {
        let category = if i == 0 { "lamp" } else { "noise" };
        say(tree.node(LEAF), &format!("a{i}"), "city.appeal", "x", &json!({"title": "loud", "category": category}));
    }
    let raised = wait_alarm(tree.node("c/s"), "the street sees it", |a| a["name"] == "noise");
    assert_eq!(raised["title"], format!("10 complaints about noise from {LEAF}"));
}

#[test]
fn nobody_outside_may_write_an_alarm() {
    let tree = tree();
    let forged =
        json!({"specversion": "1.0", "id": "f", "source": "/x", "type": "city.brain.alarm.raised", "data": {}});
    let (status, _) =
        tree.node(LEAF).post("/v1/send", &json!({"target": LEAF, "type": "city.brain.alarm.ask", "data": {}}));
    assert!((400..500).contains(&status), "{status}");
    let mut device = Client::connect(tree.node(LEAF).mqtt, "forger", true);
    device.publish("in/x", forged.to_string().as_bytes());
    wait_for("the forgery is a dead letter", || {
        let letters = tree.node(LEAF).get("/v1/dlq")?;
        letters["dead_letters"].as_array()?.iter().any(|l| l["reason"] == "forbidden").then_some(())
    });
    assert!(alarms(tree.node(LEAF)).is_empty());
}

#[test]
fn rules_are_changed_without_a_stop_and_what_they_counted_stays() {
    let tree = tree_of("c", "city");
    let node = tree.node("c");
    for i in 0..5 {
        say(node, &format!("n{i}"), "city.noise", "x", &json!({}));
    }
    let text = std::fs::read_to_string(&node.config).expect("the config reads");
    std::fs::write(&node.config, text.replace("window.count >= 10", "window.count >> 6")).expect("it is written");
    let (status, answer) = node.post("/v1/reload", &json!({}));
    assert_eq!((status, answer["error"].as_str()), (409, Some("not-reloaded")), "{answer}");
    let line = text.lines().position(|l| l.contains("window.count >= 10")).expect("the rule") + 1;
    let detail = answer["detail"].as_str().expect("a cause");
    assert!(detail.contains(&format!("line {line}: ")), "{detail}");
    std::fs::write(&node.config, text.replace("window.count >= 10", "window.count >= 6")).expect("it is written");
    let file = node.config.display().to_string();
    let diff = || run(&["config", "diff", &file, "--node", &node.url()]);
    diff().says(1, &["rule.", "window.count >= 6"]);
    let (status, answer) = node.post("/v1/reload", &json!({"file": "other.toml"}));
    assert_eq!((status, answer["error"].as_str()), (400, Some("bad-request")), "{answer}");
    let (status, answer) = node.post("/v1/reload", &json!({}));
    let rules = json!({"part": "rule", "in_force": 3, "added": [], "changed": ["noise"], "removed": []});
    assert_eq!((status, &answer["parts"][0]), (200, &rules), "{answer}");
    assert_eq!(answer["waits"], json!([]), "{answer}");
    // What is shown as running is what runs.
    diff().says(0, &["no difference"]);
    say(node, "n5", "city.noise", "x", &json!({}));
    let raised = wait_alarm(node, "counts on", |a| a["name"] == "noise");
    assert_eq!(raised["title"], "6 complaints");
    // What else was changed is told, and waits.
    std::fs::write(&node.config, format!("{text}\n[cases]\nsos_climb_s = 77\n")).expect("it is written");
    run(&["config", "reload", "--yes", "--node", &node.url()]).says(
        0,
        &[
            "changed  rule noise",
            "changed in the file and not in force until a start: cases (`citybrain config diff FILE`)",
        ],
    );
    diff().says(1, &["cases.sos_climb_s"]);
    let valued =
        text.replace("window = { within = \"1h\" }", "window = { within = \"1h\", value = \"event.data.db\" }");
    std::fs::write(&node.config, valued).expect("it is written");
    let begins = "note     rule noise: its window begins anew, for its `value` is another";
    run(&["config", "reload", "--yes", "--node", &node.url()]).says(0, &["changed  rule noise", begins]);
}

#[test]
fn the_command_line_shows_and_changes_alarms() {
    let tree = tree_of("c", "city");
    let node = tree.node("c");
    say(node, "s1", "city.smoke", "flat-3", &json!({"smoke": true}));
    let id = wait_alarm(node, "raised", |a| a["active"] == true)["id"].as_str().expect("an id").to_owned();
    let run = |args: &[&str]| {
        let done = Command::new(binary()).args(args).args(["--node", &node.url()]).output().expect("it runs");
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let (code, table) = run(&["alarm", "list", "--severity", "major"]);
    assert!(code == Some(0) && table.contains(&id) && table.contains("Smoke at flat-3"), "{table}");
    let (code, shown) = run(&["alarm", "ack", &id, "--by", "Wang"]);
    assert!(code == Some(0) && shown.contains("by Wang"), "{shown}");
    assert_eq!(run(&["alarm", "ack", &id, "--by", "Wang"]).0, Some(1));
    assert!(run(&["alarm", "list", "--unacknowledged"]).1.starts_with("no alarms that fit; 1 are active"));
    assert_eq!(run(&["alarm", "shelve", &id, "--for", "1h", "--by", "Wang"]).0, Some(0));
    assert!(run(&["alarm", "list"]).1.starts_with("no alarms that fit"));
    let (_, all) = run(&["alarm", "list", "--shelved"]);
    assert!(all.contains("\n1 active, 0 of them not acknowledged, 1 shelved\n"), "{all}");
    assert_eq!(run(&["alarm", "clear", &id, "--by", "Wang"]).0, Some(0));
    let (_, json) = run(&["alarm", "show", &id, "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (json["schema"].as_str(), json["alarm"]["cleared_by"].as_str()),
        (Some("citybrain.alarm/1"), Some("Wang"))
    );
    let (code, rules) = run(&["rule", "list"]);
    assert!(code == Some(0) && rules.contains("water") && rules.contains("for 4s"), "{rules}");
}

#[test]
fn a_test_of_rules_says_why_each_has_fired_for_events_a_line_each_from_a_file_and_from_standard_input() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("node.toml");
    let rules = RULES.replace("REACH", "city");
    let node = "[node]\naddress = \"c\"\nname = \"C\"\ndata = \"data\"\n";
    std::fs::write(&config, format!("{node}{rules}")).expect("it is written");
    let event = |id: &str, kind: &str, subject: &str, at: u32, data: Value| {
        json!({"specversion": "1.0", "id": id, "source": "/test", "type": kind, "subject": subject,
            "time": format!("2026-01-01T00:00:{at:02}Z"), "data": data})
    };
    let lines = [
        event("s1", "city.smoke", "flat-3", 0, json!({"smoke": true})).to_string(),
        event("w1", "city.water", "g1", 1, json!({"level": 3.2})).to_string(),
        "no event".into(),
        event("w2", "city.water", "g1", 10, json!({"level": 3.4})).to_string(),
        event("s2", "city.smoke", "flat-3", 11, json!({"smoke": false})).to_string(),
    ];
    let text = format!("{}\n", lines.join("\n"));
    let file = dir.path().join("events.ndjson");
    std::fs::write(&file, &text).expect("it is written");
    let ask = |events: &str, json: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["rule", "test", crate::harness::ran::text(&config), "--events", events]).args(json);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        // Whoever reads a file has closed it by then.
        let _ = stdin.write_all(text.as_bytes());
        drop(stdin);
        Ran::from(child.wait_with_output().expect("it ends"))
    };
    let file = crate::harness::ran::text(&file);
    let told = ask(file, &["--json"]);
    assert_eq!(told.code, 0, "{}", told.err);
    let json = told.json();
    assert_eq!((&json["events"], &json["unread"].as_array().map(Vec::len)), (&json!(4), &Some(1)), "{json}");
    let fired: Vec<(&str, &str, &str, &Value)> = json["fired"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|f| (self::text(&f["rule"]), self::text(&f["what"]), self::text(&f["event"]), &f["why"]))
        .collect();
    let (on, high, off) =
        (json!({"event.data.smoke": true}), json!({"event.data.level": 3.2}), json!({"event.data.smoke": false}));
    let higher = json!({"event.data.level": 3.4});
    assert_eq!(
        fired,
        [
            ("smoke", "fired", "s1", &on),
            ("water", "fired", "", &high),
            ("water", "changed", "w2", &higher),
            ("smoke", "over", "s2", &off)
        ],
        "the second by the time that went by"
    );
    // For people, in a column of its own.
    let table = ask(file, &[]);
    table.says(0, &["BECAUSE", "event.data.smoke = true", "event.data.level = 3.2", "time went by", "line 3"]);
    table.says(0, &["4 events, 2 firings"]);
    let piped = ask("-", &["--json"]).json();
    assert_eq!((&piped["fired"], &piped["unread"]), (&json["fired"], &json["unread"]));
}

#[test]
fn events_that_cannot_be_read_are_no_test_of_the_rules() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let config = format!("{folder}/../config/neighbourhood.toml");
    run(&["rule", "test", &config, "--events", folder]).says(2, &["cannot read"]);
}
