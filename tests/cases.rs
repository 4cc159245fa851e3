//! Cases over a tree of real processes: pressed, answered, handed over, closed, counted.
//!
//! | module | what it shows |
//! |---|---|
//! | here | the ways of cases between nodes, whatever is cut, killed or lost |
//! | `clocks` | limits on a calendar, and what follows from one that has passed |
//! | `lists` | second pages of cases, alarms and directives; all cases as a table |
//! | `looking` | overdue, reopened, urgent, one's own; hot spots and repeat callers |
//! | `new_box` | a new box whose parent has not been heard |
//! | `rates` | rates over three tiers, counted and divided by hand |
//! | `restored` | a box of which a backup is put back |
//! | `services` | services, activities and scenes |
//! | `verbs` | each step that is typed, on the screen, for programs, in every history |

mod clocks;
mod lists;
mod looking;
mod new_box;
mod rates;
mod restored;
mod services;
mod verbs;

use crate::harness::mqtt::Client;
use crate::harness::{Node, Tree, binary, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

const LEAF: &str = "c/s/m/n";
const COMMUNITY: &str = "c/s/m";

const CONFIG: &str = r#"
[[category]]
code = "SJ0102"
name = "暴露垃圾"
department = "城管"
tier = "community"
governance = "autonomy"
response = "2h"
solution = "4wh"
evidence = ["photo-after"]
[[category]]
code = "QUICK"
name = "急修"
tier = "community"
dispatch = "1s"
[[category]]
code = "sos"
name = "一键求助"
kind = "incident"
response = "1h"
[cases]
sos_climb_s = 1
"#;

fn tree(leaves: &[&str]) -> Tree {
    let mut tree = Tree::with(leaves, &HashMap::new(), CONFIG);
    tree.start();
    tree
}

fn say(node: &Node, id: &str, kind: &str, data: &Value) {
    let event = json!({"specversion": "1.0", "id": id, "source": "/app", "type": kind, "data": data});
    let mut device = Client::connect(node.mqtt, id, true);
    assert!(device.publish("in/app", event.to_string().as_bytes()));
}

fn cases(node: &Node) -> Vec<Value> {
    node.get("/v1/cases").and_then(|a| a["cases"].as_array().cloned()).unwrap_or_default()
}

fn wait_case(node: &Node, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("{}: {what}\n{:#?}\n{}", node.address, cases(node), node.output()), || {
        cases(node).into_iter().find(|c| fits(c))
    })
}

fn id(case: &Value) -> String {
    case["id"].as_str().expect("a case has an id").to_owned()
}

fn step(node: &Node, case: &str, verb: &str, ask: &Value) -> Value {
    let (status, answer) = node.post(&format!("/v1/cases/{case}/{verb}"), ask);
    assert!((200..300).contains(&status), "{verb}: {status} {answer}");
    answer
}

fn refused(node: &Node, case: &str, verb: &str, ask: &Value) -> String {
    let (status, answer) = node.post(&format!("/v1/cases/{case}/{verb}"), ask);
    assert!((400..500).contains(&status), "{verb} was taken: {answer}");
    answer["error"].as_str().unwrap_or_default().to_owned()
}

fn history(node: &Node, case: &str) -> Vec<String> {
    let shown = node.get(&format!("/v1/cases/{case}")).unwrap_or_default();
    let lines = shown["history"].as_array().cloned().unwrap_or_default();
    lines.iter().map(|l| l["step"].as_str().unwrap_or_default().to_owned()).collect()
}

fn cli(node: &Node, line: &[&str]) -> (i32, String, String) {
    let done = Command::new(binary()).args(line).args(["--node", &node.url()]).output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code().unwrap_or(-1), text(&done.stdout), text(&done.stderr))
}

#[test]
fn a_button_pressed_again_and_a_second_call_from_one_place_open_no_second_incident() {
    let tree = tree(&[LEAF]);
    let leaf = tree.node(LEAF);
    let press = |id: &str| {
        let event = json!({"specversion": "1.0", "id": id, "source": "/c/s/m/n/hall", "subject": "btn-7",
            "type": "city.sos.pressed.v1", "data": {"location": "7栋大厅", "phone": "13800000000"}});
        let mut button = Client::connect(leaf.mqtt, id, true);
        assert!(button.publish("in/btn", event.to_string().as_bytes()));
    };
    press("p1");
    let case = id(&wait_case(leaf, "is opened", |c| c["kind"] == "incident"));
    press("p2");
    wait_for("the second press is on it", || {
        let shown = leaf.get(&format!("/v1/cases/{case}"))?;
        let last = shown["history"].as_array()?.last()?.clone();
        (last["step"] == "comment" && last["text"] == "pressed again").then_some(())
    });
    assert_eq!(cases(leaf).len(), 1);
    wait_case(tree.node("c"), "is known in the city", |c| c["id"] == case.as_str());
    let above = tree.node("c").get_text("/v1/events?last=1000").expect("events");
    assert!(above.contains(&case) && !above.contains("13800000000"), "{above}");

    let line = ["sos", "7栋301", "--note", "老人摔倒", "--phone", "13900000000", "--by", "小李"];
    let (code, out, err) = cli(leaf, &line);
    assert!(code == 0 && out.contains("7栋301") && out.contains("13900000000"), "{out}{err}");
    let (code, out, err) = cli(leaf, &line);
    assert!(code == 0 && out.contains("pressed again: 老人摔倒"), "{out}{err}");
    assert_eq!(cases(leaf).len(), 2);
    let (code, _, err) = cli(leaf, &["sos", " "]);
    assert!(code == 2 && err.contains("at no place"), "{err}");
}

#[test]
fn where_a_call_for_help_is_now_is_shown_before_the_owner_of_its_case_has_heard_of_it() {
    let mut tree = tree(&[LEAF]);
    tree.kill9(COMMUNITY);
    let leaf = tree.node(LEAF);
    let press = |id: &str, place: &str| {
        let event = json!({"specversion": "1.0", "id": id, "source": "/c/s/m/n/band", "subject": "band-3",
            "type": "city.sos.pressed.v1", "data": {"location": place}});
        let mut button = Client::connect(leaf.mqtt, id, true);
        assert!(button.publish("in/btn", event.to_string().as_bytes()));
    };
    press("p1", "7栋大厅");
    let case = id(&wait_case(leaf, "is opened", |c| c["kind"] == "incident"));
    step(leaf, &case, "accept", &json!({"by": "甲"}));
    step(leaf, &case, "dispatch", &json!({"by": "甲", "to": COMMUNITY}));
    press("p2", "5栋天台");
    wait_for("the second press is known", || {
        let shown = leaf.get(&format!("/v1/cases/{case}"))?;
        (shown["moved_to"] == json!({"text": "5栋天台"})).then_some(())
    });
    let (code, out, err) = cli(leaf, &["case", "show", &case]);
    assert!(code == 0 && out.contains("now at      5栋天台; its owner has not answered yet"), "{out}{err}");
    tree.start_node(COMMUNITY);
    wait_for("the owner has heard of it", || {
        let shown = tree.node(LEAF).get(&format!("/v1/cases/{case}"))?;
        (shown["moved_to"].is_null() && shown["case"]["place_again"]["text"] == "5栋天台").then_some(())
    });
    let (_, out, err) = cli(tree.node(LEAF), &["case", "show", &case]);
    assert!(out.contains("now at      5栋天台\n"), "{out}{err}");
}

#[test]
fn one_press_is_seen_everywhere_climbs_and_is_answered_from_above() {
    let tree = tree(&[LEAF]);
    let (leaf, community, city) = (tree.node(LEAF), tree.node(COMMUNITY), tree.node("c"));
    let mut guard = Client::connect(leaf.mqtt, "guard", true);
    guard.subscribe("cmd/city.brain.case.call", 1);
    say(leaf, "press-1", "city.sos", &json!({"title": "7栋一键求助", "location": "7栋301", "phone": "13800000000"}));
    let call = guard.next_message(Duration::from_secs(10)).expect("responders are called");
    let call: Value = serde_json::from_slice(&call.payload).expect("JSON");
    assert_eq!((call["data"]["title"].as_str(), call["priority"].as_str()), (Some("7栋一键求助"), Some("urgent")));

    let seen = wait_case(city, "sees the incident", |c| c["kind"] == "incident");
    assert_eq!((seen["owner"].as_str(), seen["opened_at"].as_str()), (Some(LEAF), Some(LEAF)));
    let case = id(&seen);
    let above = city.get_text("/v1/events?last=1000").expect("events");
    assert!(above.contains(&case) && !above.contains("13800000000"), "{above}");
    assert!(!seen.to_string().contains("13800000000"));
    // Nobody at the neighbourhood answers: the community is called, and its responders too.
    wait_case(community, "is called", |c| c["escalated_to"] == COMMUNITY || c["escalations"].as_u64() > Some(0));
    wait_for("the call is on the community's own lines", || {
        community.records().iter().any(|r| r.event_type == "city.brain.case.call").then_some(())
    });
    let answer = step(community, &case, "accept", &json!({"by": "李队", "role": "worker"}));
    assert_eq!(answer["asked"], LEAF);
    for node in [leaf, community, city] {
        let c = wait_case(node, "sees that somebody comes", |c| c["status"] == "accepted");
        assert_eq!(c["accepted_by"], "李队");
        assert!(
            c["clocks"].as_array().expect("clocks").iter().all(|c| c["name"] != "climb" || !c["stopped"].is_null())
        );
    }
    // The answer has come: the wish is no longer open.
    let shown = community.get(&format!("/v1/cases/{case}")).expect("it is known");
    assert!(shown["wishes"].is_null(), "{shown}");
}

/// As a button's maker has it: an object, which the map takes for a text.
const BUTTON: &str = r#"
[[map]]
filter = "in/sos/+"
format = "text"
type = "city.sos.pressed.v1"
subject = "{3}"
priority = "urgent"
"#;

#[test]
fn whoever_comes_to_a_press_of_a_dead_box_stands_in_every_list_and_nobody_above_has_its_number() {
    let mut tree = Tree::with(&[LEAF], &HashMap::new(), CONFIG);
    tree.edit(LEAF, |text| text + BUTTON);
    tree.start();
    let mut button = Client::connect(tree.node(LEAF).mqtt, "button", true);
    assert!(button.publish("in/sos/8-101", r#"{"location":"8栋101","phone":"13911112222"}"#.as_bytes()));
    let seen = wait_case(tree.node("c"), "sees the incident", |c| c["kind"] == "incident");
    assert_eq!((&seen["place"]["text"], &seen["has_contact"]), (&json!("8栋101"), &json!(true)), "{seen}");
    let above = tree.node("c").get_text("/v1/events?last=1000").expect("events");
    assert!(above.contains("8栋101") && !above.contains("13911112222"), "{above}");

    let case = id(&seen);
    tree.kill9(LEAF);
    let street = tree.node("c/s");
    let (code, out, err) = cli(street, &["case", "accept", &case, "--by", "李队", "--wait", "0s"]);
    assert!(code == 0 && out.contains("was asked"), "{out}{err}");
    for address in ["c", "c/s", COMMUNITY] {
        let node = tree.node(address);
        let list = wait_for("who comes is in the list", || {
            node.get("/v1/cases?status=open").filter(|list| list["coming"][&case].is_array())
        });
        assert_eq!(list["coming"][&case][0]["by"], "李队", "{list}");
        assert_eq!(list["cases"][0]["status"], "submitted", "{address}");
        let (_, out, err) = cli(node, &["case", "list", "--status", "open"]);
        assert!(out.contains("submitted (coming)"), "{address}: {out}{err}");
        let page = node.get_text("/metrics").expect("metrics");
        for sample in ["help_wanted{accepted=\"no\"} 0\n", "help_wanted{accepted=\"yes\"} 1\n"] {
            assert!(page.contains(sample), "{address}: {page}");
        }
    }
    tree.start_node(LEAF);
    let list = wait_for("its box has answered", || {
        let list = tree.node("c").get("/v1/cases?status=open")?;
        (list["cases"][0]["status"] == "accepted").then_some(list)
    });
    assert!(list["coming"].is_null(), "{list}");
}

#[test]
fn that_whoever_has_accepted_a_press_does_not_come_stands_in_every_answer_above_while_its_box_is_dead() {
    let mut tree = Tree::with(&[LEAF], &HashMap::new(), CONFIG);
    tree.start();
    let (code, out, err) = cli(tree.node(LEAF), &["sos", "8栋101", "--by", "r"]);
    assert!(code == 0, "{out}{err}");
    let case = id(&wait_case(tree.node("c"), "sees the incident", |c| c["kind"] == "incident"));
    let street = tree.node("c/s");
    let (code, out, err) = cli(street, &["case", "accept", &case, "--by", "李队"]);
    assert!(code == 0, "{out}{err}");
    wait_case(tree.node("c"), "sees who comes", |c| c["status"] == "accepted");
    tree.kill9(LEAF);
    let street = tree.node("c/s");
    let (_, out, err) = cli(street, &["case", "escalate", &case, "--by", "李队", "--reason", "车坏", "--wait", "0s"]);
    assert!(out.contains("was asked"), "{out}{err}");
    for address in ["c", "c/s", COMMUNITY] {
        let node = tree.node(address);
        let list = wait_for("that he does not come is in the list", || {
            let list = node.get("/v1/cases?status=submitted")?;
            list["not_coming"][&case].is_object().then_some(list)
        });
        let said = &list["not_coming"][&case];
        assert_eq!((&said["by"], &said["node"], &list["fit"]), (&json!("李队"), &json!("c/s"), &json!(1)), "{list}");
        let shown = node.get(&format!("/v1/cases/{case}")).expect("it is known");
        assert_eq!((&shown["not_coming"], &shown["case"]["status"]), (said, &json!("accepted")), "{address}");
        let (_, out, _) = cli(node, &["case", "list", "--status", "submitted"]);
        assert!(out.contains("accepted (nobody comes)") && out.contains(" response "), "{address}: {out}");
        let (_, out, _) = cli(node, &["case", "show", &case]);
        assert!(out.contains("not coming  李队 has accepted it and does not come"), "{address}: {out}");
    }
    tree.start_node(LEAF);
    let shown = wait_for("its box has answered", || {
        let shown = tree.node("c").get(&format!("/v1/cases/{case}"))?;
        (shown["case"]["status"] == "submitted").then_some(shown)
    });
    assert!(shown["not_coming"].is_null(), "{shown}");
}

#[test]
fn that_a_closed_press_is_not_over_stands_in_every_answer_above_while_its_box_is_dead() {
    let mut tree = Tree::with(&[LEAF], &HashMap::new(), CONFIG);
    tree.start();
    let (code, out, err) = cli(tree.node(LEAF), &["sos", "8栋101", "--by", "r"]);
    assert!(code == 0, "{out}{err}");
    let case = id(&wait_case(tree.node("c"), "sees the incident", |c| c["kind"] == "incident"));
    for step in [
        &["accept", "--by", "李队"][..],
        &["dispatch", "--by", "李队", "--unit", "社区医生"],
        &["start", "--by", "陈医生"],
        &["resolve", "--by", "陈医生", "--result", "已送医"],
        &["evaluate", "--by", "r", "--role", "resident", "--solved", "solved"],
        &["close", "--by", "站长"],
    ] {
        let (code, out, err) = cli(tree.node(LEAF), &[&["case", step[0], &case], &step[1..]].concat());
        assert!(code == 0, "{step:?}: {out}{err}");
    }
    wait_case(tree.node("c"), "sees that it is closed", |c| c["status"] == "closed");
    tree.kill9(LEAF);
    let said =
        ["case", "reopen", &case, "--by", "街长", "--role", "supervisor", "--reason", "还在地上", "--wait", "0s"];
    let (_, out, err) = cli(tree.node("c/s"), &said);
    assert!(out.contains("was asked"), "{out}{err}");
    for address in ["c", "c/s", COMMUNITY] {
        let node = tree.node(address);
        let list = wait_for("that it is not over is in the list", || {
            node.get("/v1/cases?status=open").filter(|list| list["not_over"][&case].is_object())
        });
        let said = &list["not_over"][&case];
        assert_eq!((&said["by"], &said["node"], &list["open"]), (&json!("街长"), &json!("c/s"), &json!(1)), "{list}");
        let shown = node.get(&format!("/v1/cases/{case}")).expect("it is known");
        assert_eq!((&shown["not_over"], &shown["case"]["status"]), (said, &json!("closed")), "{address}");
        assert_eq!(shown["words"]["hotline"], "受理", "{address}");
        assert!(shown["allowed"].as_array().is_some_and(|takes| takes.contains(&json!("accept"))), "{shown}");
        let (_, out, _) = cli(node, &["case", "list", "--status", "submitted"]);
        assert!(out.contains(" closed (reopened) "), "{address}: {out}");
        let (_, out, _) = cli(node, &["supervision"]);
        assert!(out.contains("reopened: 1") && out.contains(" closed (reopened) "), "{address}: {out}");
        let (_, out, _) = cli(node, &["case", "show", &case]);
        assert!(out.contains("not over    街长 of c/s has said"), "{address}: {out}");
    }
    tree.start_node(LEAF);
    let shown = wait_for("its box has opened it again", || {
        let shown = tree.node("c").get(&format!("/v1/cases/{case}"))?;
        (shown["case"]["status"] == "submitted").then_some(shown)
    });
    assert!(shown["not_over"].is_null(), "{shown}");
}

#[test]
fn an_appeal_goes_round_over_a_kill_and_counts_the_same_at_the_community_and_the_city() {
    let mut tree = tree(&[LEAF]);
    let data = json!({"category": "暴露垃圾", "title": "三号门垃圾", "description": "堆了两天",
        "location": {"text": "三号门", "lat": 30.698, "lon": 103.8368}, "contact": {"name": "王大妈", "phone": "13900000000"}});
    say(tree.node(LEAF), "a-1", "city.appeal", &data);
    let case =
        id(&wait_case(tree.node(COMMUNITY), "took it", |c| c["owner"] == COMMUNITY && c["handing_to"].is_null()));
    let m = |tree: &Tree, verb: &str, ask: Value| step(tree.node(COMMUNITY), &case, verb, &ask);
    let worker = |text: &str| json!({"by": "小张", "role": "worker", "text": text});
    m(&tree, "accept", worker(""));
    m(&tree, "dispatch", json!({"by": "小张", "role": "worker", "unit": "环卫所"}));
    tree.kill9(COMMUNITY);
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    m(&tree, "start", json!({"by": "老赵", "role": "worker", "contacted": true}));
    let why = refused(tree.node(COMMUNITY), &case, "resolve", &json!({"by": "老赵", "text": "已清理"}));
    assert_eq!(why, "no-evidence");
    m(&tree, "resolve", json!({"by": "老赵", "text": "已清理", "evidence": ["photo-after=https://x/1.jpg"]}));
    assert_eq!(refused(tree.node(COMMUNITY), &case, "close", &json!({"by": "站长", "role": "supervisor"})), "not-now");
    // The resident speaks at the neighbourhood, where the appeal came in.
    let said = json!({"by": "王大妈", "role": "resident", "solved": "solved", "satisfied": "mostly"});
    assert_eq!(step(tree.node(LEAF), &case, "evaluate", &said)["asked"], COMMUNITY);
    wait_case(tree.node(COMMUNITY), "hears her", |c| c["status"] == "evaluated");
    assert_eq!(refused(tree.node(COMMUNITY), &case, "close", &json!({"by": "老赵", "role": "supervisor"})), "handler");
    m(&tree, "close", json!({"by": "站长", "role": "supervisor"}));
    for address in [LEAF, COMMUNITY, "c/s", "c"] {
        let c = wait_case(tree.node(address), "sees it closed", |c| c["status"] == "closed");
        assert_eq!(c["closed_reason"], "solved", "{address}");
        assert_eq!(
            history(tree.node(address), &case),
            ["submitted", "taken", "accepted", "dispatched", "started", "resolved", "evaluated", "closed",]
        );
    }
    let rates = |address: &str| tree.node(address).get("/v1/rates?by=node").expect("rates")["rows"].clone();
    assert_eq!(rates(COMMUNITY), rates("c"));
    let row = &rates("c")[0];
    assert_eq!(
        (&row["key"], &row["dispatched"], &row["response_kept"], &row["solved"], &row["mostly_satisfied"]),
        (&json!(COMMUNITY), &json!(1), &json!(1), &json!(1), &json!(1))
    );
    assert_eq!(row["score"], 100.0);
    // Whom to call is known where the work is, and nowhere above.
    let contact =
        |address: &str| tree.node(address).get(&format!("/v1/cases/{case}")).expect("shown")["contact"].clone();
    assert_eq!(contact(COMMUNITY)["phone"], "13900000000");
    assert!(contact("c").is_null() && contact("c/s").is_null());
    for address in ["c", "c/s"] {
        let events = tree.node(address).get_text("/v1/events?last=1000").expect("events");
        assert!(!events.contains("13900000000") && !events.contains("王大妈\",\"phone"), "{address}");
    }
}

#[test]
fn a_missed_limit_escalates_while_the_tier_above_is_down() {
    let mut tree = tree(&[LEAF]);
    tree.stop_node("c/s");
    say(tree.node(LEAF), "q-1", "city.appeal", &json!({"category": "QUICK", "title": "水管爆裂"}));
    let case = id(&wait_case(tree.node(COMMUNITY), "took it", |c| c["owner"] == COMMUNITY));
    step(tree.node(COMMUNITY), &case, "accept", &json!({"by": "小张"}));
    let c = wait_case(tree.node(COMMUNITY), "escalates by itself", |c| c["escalations"] == 1);
    assert_eq!(c["escalated_to"], "c/s");
    assert_eq!(cases(tree.node("c")).len(), 0);
    // Over a kill it is not done twice.
    tree.kill9(COMMUNITY);
    tree.start_node(COMMUNITY);
    tree.start_node("c/s");
    tree.wait_ready();
    wait_case(tree.node("c"), "hears of it", |c| c["escalations"] == 1);
    wait_for("the street's own people are told", || {
        tree.node("c/s").records().iter().any(|r| r.event_type == "city.brain.case.call").then_some(())
    });
    // The lower clock did not stop, and the community still works.
    step(tree.node(COMMUNITY), &case, "dispatch", &json!({"by": "小张", "unit": "维修队"}));
    let c = wait_case(tree.node("c"), "sees the work go on", |c| c["status"] == "dispatched");
    assert_eq!((&c["escalations"], &c["owner"]), (&json!(1), &json!(COMMUNITY)));
}

#[test]
fn a_case_goes_sideways_while_the_line_is_cut_and_nobody_has_it_twice() {
    let (here, there) = ("c/s/m", "c/s/m2");
    let mut tree = tree(&["c/s/m/n", there]);
    say(tree.node(LEAF), "t-1", "city.appeal", &json!({"category": "QUICK", "title": "井盖"}));
    let case = id(&wait_case(tree.node(here), "took it", |c| c["owner"] == here));
    step(tree.node(here), &case, "accept", &json!({"by": "小张"}));
    tree.stop_node("c/s");
    step(tree.node(here), &case, "dispatch", &json!({"by": "小张", "to": there}));
    assert_eq!(refused(tree.node(here), &case, "start", &json!({"by": "小张"})), "on-its-way");
    assert_eq!(cases(tree.node(there)).len(), 0);
    tree.start_node("c/s");
    tree.wait_ready();
    wait_case(tree.node(there), "took it", |c| c["owner"] == there && c["handing_to"].is_null());
    // The giver, the neighbourhood and the city learn whose it is.
    for address in [here, LEAF, "c/s", "c"] {
        wait_case(tree.node(address), "knows the new owner", |c| c["owner"] == there);
    }
    let told = step(tree.node(here), &case, "comment", &json!({"by": "小张", "text": "拜托了"}));
    assert_eq!(told["asked"], there);
    wait_for("the comment is there", || history(tree.node(there), &case).contains(&"comment".to_owned()).then_some(()));
    // Not mine: back to whoever sent it.
    step(tree.node(there), &case, "return", &json!({"by": "小刘", "text": "不在我社区"}));
    wait_case(tree.node(here), "has it again", |c| {
        c["owner"] == here && c["returns"] == 1 && c["handing_to"].is_null()
    });
}

#[test]
fn a_case_is_called_back_from_a_dead_box_once_another_stands_in_its_place() {
    let (here, there) = ("c/s/m", "c/s/m2");
    let mut tree = tree(&["c/s/m/n", there]);
    tree.wait_all_known();
    say(tree.node(LEAF), "t-2", "city.appeal", &json!({"category": "QUICK", "title": "井盖", "form": {"x": "1"}}));
    let case = id(&wait_case(tree.node(here), "took it", |c| c["owner"] == here));
    step(tree.node(here), &case, "accept", &json!({"by": "小张"}));
    tree.kill9(there);
    step(tree.node(here), &case, "dispatch", &json!({"by": "小张", "to": there}));
    assert_eq!(refused(tree.node(here), &case, "start", &json!({"by": "小张"})), "on-its-way");
    // The duty officer of the city wants it back; without a word from there nobody has it.
    wait_case(tree.node("c"), "sees it on its way", |c| c["handing_to"] == there);
    assert_eq!(step(tree.node("c"), &case, "recall", &json!({"by": "值班", "text": "那边停电"}))["asked"], here);
    assert_eq!(refused(tree.node(here), &case, "start", &json!({"by": "小张"})), "on-its-way");
    // Another box takes its place, with an empty folder.
    tree.lose_disk(there);
    tree.start_node(there);
    wait_case(tree.node(here), "has it again", |c| {
        c["owner"] == here && c["handing_to"].is_null() && c["term"].as_u64() > Some(2)
    });
    wait_for("the city's wish is answered", || {
        tree.node("c").get(&format!("/v1/cases/{case}"))?["wishes"].is_null().then_some(())
    });
}

#[test]
fn what_lost_disks_owned_is_worked_to_its_close_by_the_boxes_in_their_place_and_counts_the_same_at_every_tier() {
    let mut tree = tree(&[LEAF]);
    tree.wait_all_known();
    // One of the neighbourhood, one of the community, and one that is over.
    say(tree.node(LEAF), "p-1", "city.sos", &json!({"title": "7栋", "location": "7栋301"}));
    let press = id(&wait_case(tree.node(LEAF), "is opened", |c| c["kind"] == "incident"));
    step(tree.node(LEAF), &press, "accept", &json!({"by": "小李"}));
    let mut appeals = Vec::new();
    for n in ["a-1", "a-2"] {
        say(tree.node(LEAF), n, "city.appeal", &json!({"category": "QUICK", "title": n}));
        let case = id(&wait_case(tree.node(COMMUNITY), "took it", |c| {
            c["title"] == n && c["owner"] == COMMUNITY && c["handing_to"].is_null()
        }));
        step(tree.node(COMMUNITY), &case, "accept", &json!({"by": "小张"}));
        step(tree.node(COMMUNITY), &case, "dispatch", &json!({"by": "小张", "unit": "维修"}));
        step(tree.node(COMMUNITY), &case, "start", &json!({"by": "老赵"}));
        appeals.push(case);
    }
    let finish = |node: &Node, case: &str| {
        step(node, case, "resolve", &json!({"by": "老赵", "text": "好了"}));
        step(node, case, "evaluate", &json!({"by": "r", "role": "resident", "solved": "solved", "satisfied": "yes"}));
        step(node, case, "close", &json!({"by": "站长", "role": "supervisor"}));
    };
    finish(tree.node(COMMUNITY), &appeals[0]);
    wait_case(tree.node("c"), "sees it closed", |c| c["id"] == appeals[0].as_str() && c["status"] == "closed");
    wait_case(tree.node("c"), "sees it begun", |c| c["id"] == appeals[1].as_str() && c["status"] == "handling");
    wait_case(tree.node("c"), "sees it accepted", |c| c["id"] == press.as_str() && c["status"] == "accepted");
    let before = history(tree.node("c"), &appeals[1]);

    // The community's disk first, with the neighbourhood away: its cases wait for that one's word.
    tree.kill9(LEAF);
    tree.kill9(COMMUNITY);
    tree.lose_disk(COMMUNITY);
    tree.start_node(COMMUNITY);
    wait_for("it says whom it waits for", || {
        let symptoms = tree.node(COMMUNITY).get("/v1/symptoms")?["symptoms"].as_array()?.clone();
        let said = symptoms.into_iter().find(|s| s["code"] == "cases-not-recovered")?;
        said["sentence"].as_str()?.contains(LEAF).then_some(())
    });
    let told = |method: &str, path: &str, body: &str| tree.node(COMMUNITY).asker().ask(method, path, &[], body);
    // A client that is told 404, or that it is wrong, forgets it.
    let is_told_to_ask_again = |method: &str, path: &str, body: &str| {
        let told = told(method, path, body);
        assert_eq!((told.status, told.find("retry-after")), (503, Some("10")), "{path}: {}", told.text);
    };
    is_told_to_ask_again("GET", "/v1/cases/20200101-nobody", "");
    is_told_to_ask_again("POST", &format!("/v1/cases/{}/resolve", appeals[1]), r#"{"by": "老赵", "text": "好了"}"#);
    is_told_to_ask_again("GET", "/open311/v2/requests/20200101-nobody.json", "");
    // What the node above knows is shown as it stood then.
    let shown = told("GET", &format!("/open311/v2/requests/{}.json", appeals[1]), "");
    assert!(shown.status == 200 && shown.find("citybrain-awaits").is_some(), "{}", shown.text);
    let shown = tree.node(COMMUNITY).get(&format!("/v1/cases/{}", appeals[1])).expect("the case");
    assert_eq!((&shown["unproven"], &shown["case"]["status"]), (&json!(true), &json!("handling")));
    // The neighbourhood's disk is lost, too.
    tree.lose_disk(LEAF);
    tree.start_node(LEAF);
    for (at, case) in [(COMMUNITY, &appeals[0]), (COMMUNITY, &appeals[1]), (LEAF, &press)] {
        wait_case(tree.node(at), "is recovered", |c| {
            c["id"] == case.as_str() && c["owner"] == at && c["handing_to"].is_null()
        });
    }
    wait_for("nobody is waited for", || {
        let path = "/open311/v2/requests/20200101-nobody.json";
        (tree.node(COMMUNITY).asker().ask("GET", path, &[], "").status == 404).then_some(())
    });
    let now = history(tree.node(COMMUNITY), &appeals[1]);
    assert_eq!((&now[..before.len()], now.last().map(String::as_str)), (&before[..], Some("recovered")));
    finish(tree.node(COMMUNITY), &appeals[1]);
    step(tree.node(LEAF), &press, "dispatch", &json!({"by": "小李", "unit": "社区医生"}));
    step(tree.node(LEAF), &press, "start", &json!({"by": "老赵"}));
    finish(tree.node(LEAF), &press);
    let all = [COMMUNITY, "c/s", "c"];
    for at in all {
        for case in appeals.iter().chain([&press]) {
            wait_case(tree.node(at), "is closed", |c| c["id"] == case.as_str() && c["status"] == "closed");
        }
    }
    let rows = |at: &str| tree.node(at).get("/v1/rates?by=node").expect("rates")["rows"].clone();
    for at in all {
        assert_eq!(rows(at), rows("c"), "{at}");
        let counted = |i: usize| (rows(at)[i]["dispatched"].clone(), rows(at)[i]["solved"].clone());
        assert_eq!((counted(0), counted(1)), ((json!(2), json!(2)), (json!(1), json!(1))), "{}", rows(at));
    }
    assert_eq!(rows(LEAF)[0], rows("c")[1], "the neighbourhood counts its own");
}

#[test]
fn the_command_line_does_and_shows_it() {
    let tree = tree(&["c/s/m"]);
    let node = tree.node(COMMUNITY);
    let (code, out, err) = cli(
        node,
        &["case", "new", "--category", "暴露垃圾", "--title", "垃圾", "--by", "前台", "--phone", "1", "--json"],
    );
    assert_eq!(code, 0, "{err}");
    let new: Value = serde_json::from_str(&out).expect("JSON");
    let case = id(&new["case"]);
    let short = case.split('-').nth(1).expect("a dash")[..6].to_owned();
    let (code, _, err) = cli(node, &["case", "new", "--category", "暴露拉圾", "--by", "x"]);
    assert!(code == 1 && err.contains("did you mean `暴露垃圾`?"), "{err}");
    let (code, _, err) =
        cli(node, &["case", "new", "--category", "暴露垃圾", "--by", "x", "--lat", "200", "--lon", "1"]);
    assert!(code == 1 && err.contains("-90 to 90"), "{err}");
    let (code, _, err) = cli(node, &["case", "assist", &short, "--by", "x", "--reason", "y", "--to", "c/s/m/nn"]);
    assert!(code == 1 && err.contains("knows no node `c/s/m/nn`"), "{err}");
    let (code, _, err) = cli(node, &["case", "close", &short, "--by", "x"]);
    assert!(code == 1 && err.contains("it takes accept, reject"), "{err}");
    // Whether it was opened is what the node says, whatever became of the title.
    let long = "长".repeat(201);
    for (title, is_new) in [(long.as_str(), true), (&long, false), ("另一件", false)] {
        let new = ["case", "new", "--category", "暴露垃圾", "--by", "前台", "--key", "k", "--title", title];
        let (code, _, err) = cli(node, &new);
        assert_eq!((code, err.contains("nothing was opened: this key has opened ")), (0, !is_new), "{err}");
    }
    for line in [
        vec!["case", "accept", &short, "--by", "甲"],
        vec!["case", "dispatch", &short, "--by", "甲", "--unit", "环卫所"],
        vec!["case", "start", &short, "--by", "乙", "--contacted"],
        vec!["case", "suspend", &short, "--by", "乙", "--reason", "下雨", "--approved-by", "丙"],
        vec!["case", "resume", &short, "--by", "乙"],
        vec!["case", "extend", &short, "--by", "乙", "--reason", "量大", "--limit", "1wd", "--approved-by", "丙"],
        vec!["case", "assist", &short, "--by", "乙", "--reason", "要车", "--unit", "车队", "--limit", "2h"],
        vec!["case", "report", &short, "--by", "丁", "--result", "车已到"],
        vec!["case", "rate", &short, "--by", "乙", "--rating", "5"],
        vec![
            "case",
            "resolve",
            &short,
            "--by",
            "乙",
            "--result",
            "已清",
            "--evidence",
            "photo-after=https://p.example/u",
        ],
        vec!["case", "verify", &short, "--by", "丙", "--passed"],
        vec!["case", "evaluate", &short, "--by", "居民", "--solved", "partly", "--satisfied", "no"],
        vec!["case", "close", &short, "--by", "丙"],
        vec!["case", "forget", &short, "--by", "丙", "--yes"],
        vec!["case", "show", &short],
        vec!["case", "list", "--status", "closed"],
        vec!["case", "export"],
        vec!["rates", "--by", "category", "--period", "month"],
        vec!["rates", "--by", "district"],
        vec!["case", "stats", "--by", "child"],
        vec!["supervision", "--again", "2"],
        vec!["supervision", "--days", "4294967295"],
        vec!["case", "stats", "--days", "4294967295"],
    ] {
        let (code, out, err) = cli(node, &line);
        assert_eq!(code, 0, "{line:?}: {err}");
        eprintln!("$ citybrain {}\n{out}", line.join(" "));
        if line[1] == "show" {
            assert!(out.contains("closed (unsolved)") && out.contains("partly") && out.contains("车队"), "{out}");
        }
    }
}

#[test]
fn who_gives_a_number_and_no_other_name_is_no_name_in_the_history_and_is_forgotten_with_it() {
    let tree = tree(&["c/s/m"]);
    let (city, owner) = (tree.node("c"), tree.node(COMMUNITY));
    let shown = |node: &Node, case: &str| node.get(&format!("/v1/cases/{case}"));
    for (more, by, name) in [
        (&[][..], "resident", json!("赵大妈")),
        (&["--role", "worker"], "赵大妈", json!(null)),
        (&["--name", "王大妈"], "赵大妈", json!("王大妈")),
    ] {
        let new =
            [&["case", "new", "--category", "暴露垃圾", "--by", "赵大妈", "--phone", "139", "--json"], more].concat();
        let (code, out, err) = cli(owner, &new);
        assert_eq!(code, 0, "{err}");
        let case = id(&serde_json::from_str::<Value>(&out).expect("JSON")["case"]);
        let above = wait_for("the city has it", || shown(city, &case));
        assert_eq!(above["history"][0]["by"], by, "{more:?}");
        assert_eq!(shown(owner, &case).expect("its own")["contact"]["name"], name, "{more:?}");
        let (code, _, err) = cli(owner, &["case", "forget", &case, "--by", "丙", "--yes"]);
        assert_eq!(code, 0, "{err}");
        let said = shown(owner, &case).expect("its own").to_string();
        assert_eq!(said.contains("赵大妈"), by == "赵大妈", "{said}");
    }
    let (_, out, _) = cli(owner, &["sos", "7栋301", "--by", "赵大妈", "--phone", "139"]);
    assert!(out.contains("to call     赵大妈, 139") && out.contains("  resident"), "{out}");
}

#[test]
fn a_step_asked_for_above_waits_for_the_answer_of_the_node_whose_case_it_is() {
    let tree = tree(&["c/s/m"]);
    let (city, owner) = (tree.node("c"), tree.node(COMMUNITY));
    let (_, out, err) =
        cli(owner, &["case", "new", "--category", "暴露垃圾", "--title", "垃圾", "--by", "前台", "--json"]);
    let case = id(&serde_json::from_str::<Value>(&out).expect(&err)["case"]);
    wait_for("the city has it", || city.get(&format!("/v1/cases/{case}")));
    let at_city = |step: &[&str]| {
        let line = [&["case", step[0], &case], &step[1..]].concat();
        cli(city, &line)
    };
    let first = |out: &str| out.lines().next().unwrap_or_default().to_owned();
    // Whatever became of the one before, each is answered as itself.
    for _ in 0..2 {
        let (code, _, err) = at_city(&["start", "--by", "甲"]);
        assert!(code == 1 && err.contains("c/s/m, whose case it is") && err.contains("does not take `start`"), "{err}");
    }
    let (code, out, _) = at_city(&["accept", "--by", "甲", "--contacted"]);
    assert_eq!((code, first(&out)), (0, format!("{case}  accepted  垃圾")));
    for line in [
        vec!["dispatch", &case, "--by", "甲"],
        vec!["start", &case, "--by", "乙"],
        vec!["resolve", &case, "--by", "乙", "--result", "已清", "--evidence", "photo-after=https://p.example/u"],
    ] {
        let (code, _, err) = cli(owner, &[&["case"], &line[..]].concat());
        assert_eq!(code, 0, "{line:?}: {err}");
    }
    // What a resident says is recorded without the name by which it was asked.
    let (code, out, err) = at_city(&["evaluate", "--by", "王大妈", "--solved", "solved"]);
    assert_eq!((code, first(&out)), (0, format!("{case}  evaluated  垃圾")), "{err}");
    let (code, out, err) = at_city(&["close", "--by", "丙", "--wait", "0s"]);
    assert!(code == 0 && out.contains("owns it and was asked"), "{code} {out} {err}");
}

#[test]
fn a_call_for_help_by_http_is_taken_with_what_can_be_read_of_it_and_known_again_by_its_place() {
    let tree = tree(&[COMMUNITY]);
    let node = tree.node(COMMUNITY);
    wait_for("the parent is heard", || node.get("/v1/cases")?["awaits"].is_null().then_some(()));
    let press = |said: Value| {
        let (status, answer) = node.post("/v1/cases", &said);
        assert!([200, 201].contains(&status), "{status} {answer}");
        (status == 201, answer["case"]["id"].as_str().expect("a case").to_owned())
    };
    let at = |lat: f64, lon: f64| json!({"sos": true, "by": "a", "place": {"lat": lat, "lon": lon}});
    let (is_new, first) = press(at(30.69801, 103.83601));
    assert!(is_new);
    assert_eq!(press(at(30.69802, 103.83602)), (false, first.clone()), "a receiver is wrong by a metre");
    assert!(press(at(30.69901, 103.83601)).0);
    let shown = |id: &str| node.get(&format!("/v1/cases/{id}")).expect("it is shown");
    // What is wrong beside it keeps no call away.
    let odd = json!({"sos": true, "phone": 13_900_000_000_u64, "place": "9栋", "battery": 12});
    // Not as other requests, whose bodies are compared with the document.
    let oddly = |said: Value| {
        let request = ureq::post(format!("{}/v1/cases", node.url())).header("content-type", "application/json");
        let answer = request.send(said.to_string()).expect("it is taken").body_mut().read_to_string().expect("a text");
        shown(&id(&serde_json::from_str::<Value>(&answer).expect("JSON")["case"]))
    };
    let odd = oddly(odd);
    // The same in GBK, as a system that knows no other encoding writes it.
    let request = ureq::post(format!("{}/v1/cases", node.url())).header("content-type", "application/json");
    let gbk = b"{\"sos\":true,\"title\":\"\xbe\xc8\xc3\xfc\",\"place\":\"6\xb6\xb0\",\"phone\":\"13900000000\"}";
    let answer = request.send(gbk.as_slice()).expect("it is taken").body_mut().read_to_string().expect("a text");
    let gbk = shown(&id(&serde_json::from_str::<Value>(&answer).expect("JSON")["case"]));
    assert_eq!(gbk["case"]["title"], "\u{fffd}BE\u{fffd}C8\u{fffd}C3\u{fffd}FC", "what was sent can still be told");
    assert_eq!((&gbk["case"]["urgent"], &gbk["contact"]["phone"]), (&json!(true), &json!("13900000000")), "{gbk}");
    assert!(odd["case"]["place"]["text"] == "9栋" && odd["contact"]["phone"] == "13900000000", "{odd}");
    for (i, sos) in [json!(1), json!(1.0), json!("1"), json!("true")].into_iter().enumerate() {
        let case = oddly(json!({"sos": sos, "title": 7, "place": format!("{i}号")}));
        assert_eq!((&case["case"]["urgent"], &case["case"]["title"]), (&json!(true), &json!("7")), "{case}");
    }
    let strange = oddly(json!({"sos": true, "category": "nope", "title": 7}));
    let clocks = strange["case"]["clocks"].as_array().expect("clocks");
    assert!(clocks.iter().any(|c| c["name"] == "response"), "{strange}");
    assert_eq!(strange["history"][0]["text"], "`nope` is no category that is known here", "{strange}");
    let (is_new, far) = press(json!({"sos": true, "by": "a", "place": {"text": "8栋", "lat": 200, "lon": 1}}));
    assert!(is_new && shown(&far)["case"]["place"] == json!({"text": "8栋"}));
    // The category says it as well, by code or name.
    for (i, category) in ["sos", "一键求助"].into_iter().enumerate() {
        let said = json!({"category": category, "title": "摔倒", "by": "a", "place": {"text": format!("{i}栋")}});
        let case = shown(&press(said).1);
        assert_eq!((&case["case"]["kind"], &case["case"]["urgent"]), (&json!("incident"), &json!(true)), "{case}");
    }
    let (status, _) = node.post("/v1/cases", &json!({"category": "暴露垃圾", "title": "t", "by": "a", "battery": 1}));
    assert_eq!(status, 400, "what is no call is refused as before");
}
