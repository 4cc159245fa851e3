//! What goes with a case to another node, and what goes down to all: terms, calendars, requests that were filed
//! above, and whose eyes a letter is not for.

use crate::harness::ran::{run, text, token};
use crate::harness::{Node, Tree, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;

const LITTER: &str = "[[category]]\ncode = \"litter\"\nname = \"暴露垃圾\"\ndispatch = \"1h\"\nsolution = \"4h\"\n\
                      evidence = [\"photo-after\"]\n";

fn case(node: &Node, id: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("{}: {what}\n{}", node.address, node.output()), || {
        Some(node.get(&format!("/v1/cases/{id}"))?["case"].take()).filter(&fits)
    })
}

fn step(node: &Node, id: &str, verb: &str, ask: &Value) {
    let (status, answer) = node.post(&format!("/v1/cases/{id}/{verb}"), ask);
    assert!((200..300).contains(&status), "{verb}: {status} {answer}");
}

/// A case of litter with somebody to call, opened at `c/s/a` and sent to `c/s/b`.
fn sent(tree: &Tree) -> String {
    let a = tree.node("c/s/a");
    let new = json!({"category": "litter", "title": "三号门", "by": "王大妈", "contact": {"name": "王大妈", "phone": "13900000000"}});
    let (status, opened) = a.post("/v1/cases", &new);
    assert_eq!(status, 201, "{opened}");
    let id = opened["case"]["id"].as_str().expect("an id").to_owned();
    step(a, &id, "accept", &json!({"by": "甲"}));
    step(a, &id, "dispatch", &json!({"by": "甲", "to": "c/s/b"}));
    id
}

fn tree(leaves: &[&str]) -> Tree {
    let tree = Tree::with(leaves, &HashMap::new(), "");
    tree.edit("c/s/a", |text| format!("{LITTER}{text}"));
    tree
}

#[test]
fn a_node_without_the_category_asks_for_its_evidence_and_sets_its_clocks_also_after_a_kill() {
    let mut tree = tree(&["c/s/a", "c/s/b"]);
    tree.start();
    let id = sent(&tree);
    case(tree.node("c/s/b"), &id, "has it", |c| c["owner"] == "c/s/b");
    tree.kill9("c/s/b");
    tree.start_node("c/s/b");
    let b = tree.node("c/s/b");
    let held = case(b, &id, "has it still", |c| c["owner"] == "c/s/b");
    assert_eq!(held["terms"], json!({"dispatch": "1h", "solution": "4h", "evidence": ["photo-after"]}));
    step(b, &id, "start", &json!({"by": "乙"}));
    run(&["case", "show", &id, "--node", &b.url()]).says(0, &["to show     photo-after, when it is solved"]);
    let (status, refused) = b.post(&format!("/v1/cases/{id}/resolve"), &json!({"by": "乙", "text": "清运"}));
    assert_eq!((status, &refused["error"]), (409, &json!("no-evidence")), "{refused}");
    let shown = json!({"by": "乙", "text": "清运", "evidence": ["photo-after=https://x.example/1.jpg"]});
    step(b, &id, "resolve", &shown);
    step(b, &id, "verify", &json!({"by": "丙", "role": "supervisor", "passed": false, "text": "还在"}));
    let runs = |c: &Value, name: &str, limit: &str| {
        let clocks = c["clocks"].as_array().map(Vec::as_slice).unwrap_or_default();
        clocks.iter().any(|k| k["name"] == name && k["limit"] == limit && k["stopped"].is_null())
    };
    case(b, &id, "is rework, with a limit", |c| runs(c, "solution", "4h"));
    step(b, &id, "return", &json!({"by": "乙", "text": "不是我们的"}));
    case(tree.node("c/s/a"), &id, "has it back, with a limit", |c| c["owner"] == "c/s/a" && runs(c, "dispatch", "1h"));
}

#[test]
fn a_letter_on_its_way_is_for_the_eyes_of_operators_where_the_case_never_was() {
    let mut tree = tree(&["c/s/a", "c/s/b"]);
    std::fs::write(tree.dir().join("tokens"), "").expect("it is written");
    tree.edit("c/s", |t| t.replace("[api]\n", "[api]\ntokens_file = \"tokens\"\n"));
    let (worker, operator) = (token(&tree, "li", "worker"), token(&tree, "mia", "operator"));
    for address in ["c", "c/s", "c/s/a", "c/s/b"] {
        tree.start_node(address);
    }
    // A case for a node that its parent has not heard of comes back.
    tree.wait_all_known();
    wait_for("the leaf takes cases", || tree.node("c/s/a").get("/readyz"));
    let id = sent(&tree);
    case(tree.node("c/s/b"), &id, "has it", |c| c["owner"] == "c/s/b");
    let letters = |name: &str, token: &str| {
        let file = tree.dir().join(format!("{name}.token"));
        std::fs::write(&file, token).expect("it is written");
        let line = ["events", "--type", "city.brain.case.letter", "--json", "--node", &tree.node("c/s").url()];
        let ran = run(&[&line[..], &["--token-file", text(&file)]].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    let seen = letters("mia", &operator);
    assert!(seen.contains("13900000000"), "{seen}");
    let seen = letters("li", &worker);
    assert!(seen.contains(&id) && seen.contains("hand-over") && seen.contains("withheld"), "{seen}");
    assert!(!seen.contains("13900000000") && !seen.contains("王大妈"), "{seen}");

    // Who asks a node below is told what he may ask for, by the node that knows him.
    let reader = token(&tree, "wang", "reader");
    let show = format!("/v1/cases/{id}");
    let takes = |token: &str, path: &str, at: &[(&str, &str)]| {
        let told = tree.node("c/s").by(token).ask("GET", path, at, "");
        let shown = told.text.lines().next().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let shown = shown.unwrap_or_default();
        let all = shown.get("json").unwrap_or(&shown)["allowed"].as_array().cloned();
        let all = all.unwrap_or_else(|| panic!("{}", told.text)).into_iter();
        all.map(|verb| text_of(&verb)).collect::<Vec<String>>()
    };
    let many = format!("/v1/ask?selector=c/s/b&path={show}");
    for (path, at) in [(show.as_str(), &[("x-citybrain-at", "c/s/b")][..]), (&many, &[])] {
        assert_eq!(takes(&reader, path, at), [""; 0], "{path}");
        let all = takes(&operator, path, at);
        assert!(["start", "withdraw", "forget"].iter().all(|verb| all.iter().any(|v| v == verb)), "{path}: {all:?}");
        let his: Vec<String> = takes(&worker, path, at);
        assert!(his.contains(&"start".to_owned()), "{path}: {his:?}");
        let others = ["withdraw", "forget", "exclude", "extend", "suspend"];
        assert!(his.iter().all(|verb| !others.contains(&verb.as_str())), "{path}: {his:?}");
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[test]
fn who_has_given_a_case_back_hears_no_more_of_it_and_does_not_call_it_late() {
    let mut tree = Tree::with(&["c/s/a", "c/s/b"], &HashMap::new(), "");
    tree.edit("c/s/a", |text| format!("{}{text}", LITTER.replace("\"1h\"", "\"2s\"").replace("\"4h\"", "\"3s\"")));
    tree.start();
    let (a, b) = (tree.node("c/s/a"), tree.node("c/s/b"));
    let id = sent(&tree);
    case(b, &id, "has it", |c| c["owner"] == "c/s/b");
    step(b, &id, "return", &json!({"by": "乙", "text": "不是我们的"}));
    case(a, &id, "has it back", |c| c["owner"] == "c/s/a" && c["handing_to"].is_null());
    case(b, &id, "knows that", |c| c["owner"] == "c/s/a" && c["handing_to"].is_null());
    let late = |node: &Node| {
        let all = node.get("/v1/cases?overdue=true")?;
        Some(all["cases"].as_array()?.iter().map(|c| text_of(&c["id"])).collect::<Vec<_>>())
    };
    for node in [a, tree.node("c/s"), tree.node("c")] {
        wait_for("it is late", || (late(node)? == [id.as_str()]).then_some(()));
    }
    case(b, &id, "knows a limit that is past", |c| {
        let now = chrono::Utc::now();
        let is_past = |due: &Value| {
            due.as_str().and_then(|due| due.parse::<chrono::DateTime<chrono::Utc>>().ok()).is_some_and(|due| due < now)
        };
        c["clocks"].as_array().is_some_and(|all| all.iter().any(|k| k["stopped"].is_null() && is_past(&k["due"])))
    });
    assert_eq!(late(b), Some(Vec::new()));
    assert_eq!(b.get(&format!("/v1/cases/{id}")).expect("it is shown")["overdue"], false);
    let list = run(&["case", "list", "--node", &b.url()]);
    list.says(0, &[&id, "(as last heard)"]);
    assert!(!list.out.contains(", over"), "{}", list.out);
    let show = run(&["case", "show", &id, "--node", &b.url()]);
    show.says(0, &["ran when it was last heard of"]);
    assert!(!show.out.contains("overdue") && !show.out.contains("over;"), "{}", show.out);
}

#[test]
fn working_time_goes_by_the_nearest_calendar_above_and_check_doctor_and_config_say_whose() {
    let mut tree = tree(&["c/s/a"]);
    let days = "[calendar]\ndays_file = \"days.csv\"\n";
    std::fs::write(tree.dir().join("days.csv"), "2100-10-01..2100-10-07,holiday\n2100-10-10,makeup\n")
        .expect("written");
    tree.edit("c", |text| format!("{days}{text}"));
    let files: Vec<String> = ["c", "c/s", "c/s/a"].iter().map(|a| text(&tree.node(a).config).to_owned()).collect();
    let line: Vec<&str> = std::iter::once("check").chain(files.iter().map(String::as_str)).collect();
    run(&line).says(0, &["note: c/s, c/s/a go by the `[calendar]` of c ("]);
    tree.start();
    let words = "+08:00, Mon,Tue,Wed,Thu,Fri 09:00-12:00,13:00-17:00, 7 days off, 1 made up";
    let leaf = tree.node("c/s/a").url();
    wait_for("the leaf has the city's calendar", || {
        let shown = run(&["config", "show", "--node", &leaf]);
        shown.out.contains(&format!("# working time goes by the `[calendar]` of c: {words}")).then_some(())
    });
    let doctor = run(&["doctor", "--node", &leaf]).out;
    assert!(doctor.contains(&format!("working time goes by the `[calendar]` of c: {words}")), "{doctor}");
    // What a restart would change is another question.
    run(&["config", "diff", &files[2], "--node", &leaf]).says(0, &["no difference"]);
    // A bad day is named by its line.
    std::fs::write(tree.dir().join("days.csv"), "2100-10-01,holiday\n2100-02-30,holiday\n").expect("written");
    run(&["check", &files[0]]).says(2, &["days.csv:2: `2100-02-30` is no day"]);
}

#[test]
fn a_request_that_is_filed_at_the_city_for_a_node_below_goes_there_also_if_that_is_away() {
    let category = "[[category]]\ncode = \"LAMP\"\nname = \"路灯\"\nsolution = \"4h\"\n";
    let mut tree = Tree::with(&["c/s/a", "c/s/b"], &HashMap::new(), "");
    tree.edit("c", |text| format!("{category}{text}"));
    tree.edit("c/s/a", |text| text.replace("[node]\n", "[node]\ncode = \"510115001001\"\n"));
    tree.start();
    tree.wait_all_known();
    tree.kill9("c/s/a");
    let city = tree.node("c");
    let post = |form: &str| {
        let told = city.asker().post_as("/open311/v2/requests.json", "application/x-www-form-urlencoded", form);
        (told.status, told.json()[0].clone())
    };
    let file = |where_to: &str| {
        let (status, filed) = post(&format!("service_code=LAMP&address_string=x&description=dark&phone=139{where_to}"));
        assert_eq!(status, 200, "{filed}");
        filed["service_request_id"].as_str().expect("an id").to_owned()
    };
    let (below, by_code, own) = (file("&jurisdiction_id=c/s/a"), file("&jurisdiction_id=510115001001"), file(""));
    let (status, none) = post("service_code=LAMP&address_string=x&jurisdiction_id=c/x");
    assert!(status == 404 && none["description"].as_str().is_some_and(|d| d.contains("c/x")), "{none}");
    let listed = |node: &Node, query: &str| -> Vec<String> {
        let all = node.get(&format!("/open311/v2/requests.json{query}")).expect("a list");
        let mut ids: Vec<String> = all
            .as_array()
            .expect("a list")
            .iter()
            .map(|r| r["service_request_id"].as_str().expect("an id").to_owned())
            .collect();
        ids.sort();
        ids
    };
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort();
        ids
    };
    for part in ["?jurisdiction_id=c/s/a", "?jurisdiction_id=c/s"] {
        assert_eq!(listed(city, part), sorted(&[&below, &by_code]), "{part}");
    }
    assert_eq!(listed(city, "?jurisdiction_id=c/s/b"), [""; 0]);
    assert_eq!(listed(city, ""), sorted(&[&below, &by_code, &own]));
    assert_eq!(listed(city, &format!("?jurisdiction_id=c/s/a&service_request_id={own},{below}")), [below.as_str()]);
    let one = |id: &str| city.get(&format!("/open311/v2/requests/{id}.json?jurisdiction_id=c/s/a")).is_some();
    assert!(one(&below) && !one(&own));
    // Acknowledged means owned: it waits for that box, and nobody else steps it meanwhile.
    assert_eq!(case(city, &below, "waits", |_| true)["handing_to"], "c/s/a");
    tree.start_node("c/s/a");
    for id in [&below, &by_code] {
        let there = case(tree.node("c/s/a"), id, "has come", |c| c["owner"] == "c/s/a");
        assert_eq!((&there["opened_at"], &there["terms"]["solution"]), (&json!("c"), &json!("4h")));
    }
    let contact = tree.node("c/s/a").get(&format!("/v1/cases/{below}")).expect("shown")["contact"].clone();
    assert_eq!(contact["phone"], "139");
    wait_for("the city knows that it has come", || {
        let done = tree.node("c").get(&format!("/v1/cases/{below}"))?;
        (done["case"]["owner"] == "c/s/a").then_some(())
    });
    // That node passes it on: whoever filed it finds it where he filed it, and may say something about it.
    step(tree.node("c/s/a"), &below, "escalate", &json!({"by": "甲", "text": "要断电", "hand_over": true}));
    let city = tree.node("c");
    case(city, &below, "has gone up", |c| c["owner"] == "c/s" && c["handing_to"].is_null());
    assert_eq!(listed(city, "?jurisdiction_id=c/s/a"), sorted(&[&below, &by_code]));
    assert!(city.get(&format!("/open311/v2/requests/{below}.json?jurisdiction_id=c/s/a")).is_some());
    let said = format!("service_request_id={below}&jurisdiction_id=c/s/a&description=still");
    let updates = "/open311/v2/servicerequestupdates.json";
    let told = city.asker().post_as(updates, "application/x-www-form-urlencoded", said);
    assert_eq!(told.status, 200, "{}", told.text);
    wait_for("its owner has heard that", || {
        let held = tree.node("c/s").get(&format!("/v1/cases/{below}"))?;
        held["history"].as_array()?.iter().any(|line| line["text"] == "still").then_some(())
    });
}
