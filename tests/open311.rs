//! Open311 GeoReport v2 at real nodes: golden answers, wrong input, and a request's whole life.

use crate::harness::http::Told;
use crate::harness::{Node, Tree, binary, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

const CONFIG: &str = r#"
[open311]
contact = "12345"
key_service = "ask & wait"
[[category]]
code = "SJ0102"
name = "暴露垃圾"
department = "环卫"
response = "2h"
solution = "4h"
[[category]]
code = "LAMP"
name = "路灯"
description = "A street lamp that is out, or on by day"
keywords = ["lamp", "灯"]
[[category]]
code = "sos"
name = "一键求助"
kind = "incident"
"#;
const GOOD: &str = "service_code=SJ0102&lat=30.6980&long=103.8368&description=%E5%9E%83%E5%9C%BE%3Cb%3E%26&first_name=%E5%B0%8F&last_name=%E7%8E%8B&phone=13900000000&email=w%40x";

/// Open311 names its character set with JSON, and has an answer of its own for what is wrong.
trait Said {
    fn said(&self) -> Value;
    fn wrong(&self) -> (u16, String);
}

impl Said for Told {
    fn said(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json; charset=utf-8", "{}", self.text);
        self.json()
    }

    fn wrong(&self) -> (u16, String) {
        (self.status, self.said()[0]["description"].as_str().expect("an array of code and description").to_owned())
    }
}

const ROOT: &str = "/open311/v2/";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

struct Client<'t>(&'t Node);

impl Client<'_> {
    fn of<'t>(tree: &'t Tree, address: &str) -> Client<'t> {
        Client(tree.node(address))
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Told {
        self.0.asker().ask(method, &format!("{ROOT}{path}"), headers, body)
    }

    fn get(&self, path: &str) -> Told {
        self.ask("GET", path, &[], "")
    }

    fn post(&self, path: &str, form: &str) -> Told {
        self.ask("POST", path, &[("content-type", FORM)], form)
    }

    fn one(&self, id: &str) -> Value {
        self.get(&format!("requests/{id}.json")).said()[0].clone()
    }
}

fn cli(tree: &Tree, address: &str, line: &[&str]) {
    let done = Command::new(binary()).args(line).args(["--node", &tree.node(address).url()]).output().expect("it runs");
    assert!(done.status.success(), "{line:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_request_filed_by_open311_is_handled_on_the_command_line_and_its_status_follows() {
    let mut tree = Tree::with(&["c/s/m"], &HashMap::new(), CONFIG);
    tree.start();
    let (here, city) = (Client::of(&tree, "c/s/m"), Client::of(&tree, "c"));
    let filed = here.post("requests.json", GOOD);
    assert_eq!(filed.status, 200, "{}", filed.text);
    let told = filed.said();
    let id = told[0]["service_request_id"].as_str().expect("an id").to_owned();
    assert_eq!(told, json!([{"service_request_id": id, "service_notice": null, "account_id": null}]));
    assert_eq!(here.get(&format!("tokens/{id}.json")).said(), json!([{"service_request_id": id, "token": id}]));

    let new = here.one(&id);
    assert_eq!(
        (&new["status"], &new["lat"], &new["description"]),
        (&json!("open"), &json!(30.698), &json!("垃圾<b>&"))
    );
    assert_eq!((&new["service_name"], &new["agency_responsible"]), (&json!("暴露垃圾"), &json!("环卫")));
    let xml = here.get(&format!("requests/{id}.xml"));
    assert_eq!(xml.header("content-type"), "text/xml; charset=utf-8");
    assert!(
        xml.text
            .starts_with("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<service_requests><request><service_request_id>")
    );
    assert!(xml.text.contains("<description>垃圾&lt;b&gt;&amp;</description>"), "{}", xml.text);
    assert!(xml.text.contains("<status>open</status>") && xml.text.contains("<zipcode/>"), "{}", xml.text);
    // Whom to call is known to those who handle it, and to nobody who asks here.
    let contact = tree.node("c/s/m").get(&format!("/v1/cases/{id}")).expect("shown")["contact"].clone();
    assert_eq!((&contact["name"], &contact["phone"]), (&json!("王小"), &json!("13900000000")));
    for client in [&here, &city] {
        let all = client.get("requests.xml").text + &client.get("servicerequestupdates.xml").text;
        assert!(!all.contains("13900000000") && !all.contains("王小"), "{all}");
    }

    for line in [
        vec!["case", "accept", &id, "--by", "甲"],
        vec!["case", "dispatch", &id, "--by", "甲", "--unit", "环卫所"],
        vec!["case", "start", &id, "--by", "乙", "--contacted"],
        vec!["case", "resolve", &id, "--by", "乙", "--result", "已清运"],
    ] {
        cli(&tree, "c/s/m", &line);
    }
    let done = here.one(&id);
    assert_eq!((&done["status"], &done["status_notes"]), (&json!("open"), &json!("已清运")));
    assert_eq!(done["agency_responsible"], "环卫所");
    assert!(done["expected_datetime"].as_str().is_some_and(|t| t.ends_with('Z')), "{done}");
    // The resident's app says that it is so, at the city; the owner hears it.
    wait_for("the city sees it resolved", || (city.one(&id)["status_notes"] == "已清运").then_some(()));
    let said = city.post(
        "servicerequestupdates.json",
        &format!(
            "service_request_id={id}&status=FIXED&description=%E8%B0%A2%E8%B0%A2&first_name=%E5%B0%8F&last_name=%E7%8E%8B\
             &phone=13900000001&email=w2%40x&account_id=77"
        ),
    );
    assert_eq!(said.status, 200, "{}", said.text);
    assert!(said.said()[0]["update_id"].is_string());
    let node = tree.node("c/s/m");
    wait_for("the owner hears the resident", || {
        (node.get(&format!("/v1/cases/{id}"))?["case"]["status"] == "evaluated").then_some(())
    });
    cli(&tree, "c/s/m", &["case", "close", &id, "--by", "丙"]);
    let closed = here.one(&id);
    assert_eq!(closed["status"], "closed");
    wait_for("the city sees it closed", || (city.one(&id)["status"] == "closed").then_some(()));
    // It is told there with the time at which it came.
    let told_there = city.one(&id);
    let at = |told: &Value| told["updated_datetime"].as_str().expect("a time").to_owned();
    assert!(at(&told_there) >= at(&closed), "{told_there}");
    let but_its_time = |mut told: Value| {
        told["updated_datetime"].take();
        told
    };
    assert_eq!(but_its_time(told_there), but_its_time(closed.clone()));
    let updates = city.get("servicerequestupdates.json").said();
    let words: Vec<&str> = updates.as_array().expect("a list").iter().filter_map(|u| u["status"].as_str()).collect();
    assert_eq!(words, ["investigating", "in_progress", "in_progress", "fixed", "fixed", "fixed"]);
    let ids: Vec<&Value> = updates.as_array().expect("a list").iter().map(|u| &u["update_id"]).collect();
    assert!(ids.contains(&&said.json()[0]["update_id"]), "the resident's word, as whoever posted it knows it: {ids:?}");

    // Filters.
    let count = |query: &str| {
        let told = here.get(&format!("requests.json?{query}"));
        assert_eq!(told.status, 200, "{query}: {}", told.text);
        told.said().as_array().expect("a list").len()
    };
    assert_eq!((count("status=closed"), count("status=open"), count("status=open,closed")), (1, 0, 1));
    assert_eq!((count("service_code=LAMP"), count("service_code=LAMP,SJ0102")), (0, 1));
    assert_eq!(count(&format!("service_request_id=nothing,{id}&status=open")), 1, "ids override all else");
    for other in ["start_date=rubbish", "start_date=2020-01-01T00:00:00Z&end_date=2026-01-01T00:00:00Z", "status=done"]
    {
        assert_eq!(count(&format!("service_request_id={id}&{other}")), 1, "{other}");
    }
    assert_eq!((count("page=1&page_size=1"), count("page=2&page_size=1")), (1, 0));
    assert_eq!(
        (
            count("start_date=2020-01-01T00:00:00Z&end_date=2020-02-01T00:00:00Z"),
            count("end_date=2020-02-01T00:00:00%2B08:00")
        ),
        (0, 0)
    );
    let updated = closed["updated_datetime"].as_str().expect("a time");
    assert_eq!((count(&format!("updated_after={updated}")), count("updated_before=2020-01-01T00:00:00Z")), (1, 0));

    // An emergency is nobody else's business.
    cli(&tree, "c/s/m", &["case", "new", "--sos", "--title", "7栋301", "--by", "x"]);
    assert_eq!(count(""), 1);

    // It was not so, says the app.
    let again =
        here.post("servicerequestupdates.xml", &format!("service_request_id={id}&status=REOPEN&description=no"));
    assert_eq!(again.status, 200, "{}", again.text);
    assert!(again.text.contains("<service_request_updates><request_update><update_id>"), "{}", again.text);
    assert_eq!(here.one(&id)["status"], "open");
    let named =
        "&description=%E8%B0%A2%E8%B0%A2%E5%90%84%E4%BD%8D&first_name=%E5%B0%8F&last_name=%E7%8E%8B&phone=13900000002";
    assert_eq!(city.post("servicerequestupdates.json", &format!("service_request_id={id}{named}")).status, 200);
    // Now that the resident and those who handle it have spoken: what they said is told, and no name of them.
    for client in [&here, &city] {
        wait_for("the words are told", || {
            let all: String =
                ["requests.xml?extensions=true", "servicerequestupdates.xml", "servicerequestupdates.json"]
                    .map(|path| client.get(path).text)
                    .concat();
            for hidden in ["1390000000", "王小", "小王", "w@x", "w2@x", "小李", "甲", "乙", "丙"] {
                assert!(!all.contains(hidden), "{hidden}: {all}");
            }
            (all.matches("谢谢各位").count() == 2 && all.matches("已清运").count() == 2).then_some(())
        });
    }
    let above = tree.node("c").get_text("/v1/events?last=1000").expect("events");
    assert!(above.contains("谢谢各位") && !above.contains("1390000000"), "{above}");
}

#[test]
fn who_polls_on_from_his_last_poll_sees_at_the_city_what_was_done_while_a_street_was_down() {
    let mut tree = Tree::with(&["c/s/m"], &HashMap::new(), CONFIG);
    tree.start();
    let filed = |tree: &Tree, form: &str| {
        let told = Client::of(tree, "c/s/m").post("requests.json", form).said();
        told[0]["service_request_id"].as_str().expect("an id").to_owned()
    };
    let is_open = |tree: &Tree, id: &str| Client::of(tree, "c").one(id)["status"] == "open";
    let all = |tree: &Tree, path: &str| {
        let all = Client::of(tree, "c").get(path).said();
        let named = |u: &Value| (u["service_request_id"].clone(), u["status"].clone());
        all.as_array().expect("a list").iter().map(named).collect::<Vec<_>>()
    };
    let id = filed(&tree, GOOD);
    wait_for("the city knows of it", || is_open(&tree, &id).then_some(()));
    tree.stop_node("c/s");
    cli(&tree, "c/s/m", &["case", "accept", &id, "--by", "甲"]);
    let other = filed(&tree, &GOOD.replace("30.6980", "30.7"));
    // Once all that is done, the first poll is over.
    let until = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    assert_eq!(all(&tree, &format!("servicerequestupdates.json?end_date={until}")), []);
    assert_eq!(all(&tree, &format!("requests.json?end_date={until}")), [(json!(id), json!("open"))]);
    tree.start_node("c/s");
    wait_for("the city hears of both", || is_open(&tree, &other).then_some(()));
    let city = Client::of(&tree, "c");
    let news = wait_for("the next poll tells what was done", || {
        let news = city.get(&format!("servicerequestupdates.json?start_date={until}")).said();
        (news.as_array().is_some_and(|news| !news.is_empty())).then_some(news)
    });
    assert_eq!((&news[0]["service_request_id"], &news[0]["status"]), (&json!(id), &json!("investigating")));
    let told_at = news[0]["updated_datetime"].as_str().expect("a time");
    assert!(told_at >= &until[..19], "who goes on from it misses nothing: {told_at} {until}");
    let both = [(json!(other), json!("open")), (json!(id), json!("open"))];
    assert_eq!(all(&tree, &format!("requests.json?updated_after={until}")), both);
    assert_eq!(all(&tree, &format!("requests.json?start_date={until}")), both[..1]);
}

/// A request, by its id.
fn filed(c: &Client) -> String {
    c.post("requests.json", GOOD).said()[0]["service_request_id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_client_that_sends_the_state_it_knows_with_every_comment_is_never_refused_and_gives_one_verdict() {
    let mut tree = Tree::with(&["c"], &HashMap::new(), CONFIG);
    tree.start();
    let c = Client::of(&tree, "c");
    let id = filed(&c);
    let says = |status: &str| {
        let form = format!("service_request_id={id}&status={status}&description=x");
        let got = c.post("servicerequestupdates.json", &form);
        if got.status == 200 {
            let told = c.get("servicerequestupdates.json").said();
            let has = |update: &Value| update["update_id"] == got.said()[0]["update_id"];
            assert!(told.as_array().is_some_and(|told| told.iter().any(has)), "{status}: {} of {told}", got.text);
        }
        got.status
    };
    let case = || tree.node("c").get(&format!("/v1/cases/{id}")).expect("shown")["case"].clone();
    cli(&tree, "c", &["case", "accept", &id, "--by", "甲"]);
    for state in ["INVESTIGATING", "IN_PROGRESS", "ACTION_SCHEDULED", "CLOSED", "REOPEN"] {
        assert_eq!((says(state), &case()["status"]), (200, &json!("accepted")), "{state}");
    }
    for line in [
        vec!["case", "dispatch", &id, "--by", "甲", "--unit", "环卫所"],
        vec!["case", "start", &id, "--by", "乙"],
        vec!["case", "resolve", &id, "--by", "乙", "--result", "已清运"],
    ] {
        cli(&tree, "c", &line);
    }
    // It was told that it is fixed; the resident says that it is not, and then only that he waits.
    assert_eq!(says("REOPEN"), 200);
    assert_eq!((&case()["status"], &case()["verdict"]["solved"]), (&json!("evaluated"), &json!("unsolved")));
    for state in ["FIXED", "DUPLICATE", "CLOSED"] {
        assert_eq!((says(state), &case()["verdict"]["solved"]), (200, &json!("unsolved")), "{state}");
    }
    assert_eq!(says("FISHED"), 400);
}

#[test]
fn a_verdict_on_a_closed_request_is_found_by_whoever_polls_and_does_not_say_that_it_is_open() {
    let mut tree = Tree::with(&["c"], &HashMap::new(), CONFIG);
    tree.start();
    let c = Client::of(&tree, "c");
    let id = filed(&c);
    for line in [
        vec!["case", "accept", &id, "--by", "甲"],
        vec!["case", "dispatch", &id, "--by", "甲", "--unit", "环卫所"],
        vec!["case", "start", &id, "--by", "乙"],
        vec!["case", "resolve", &id, "--by", "乙", "--result", "已清运"],
        vec!["case", "verify", &id, "--by", "丙", "--passed"],
        vec!["case", "close", &id, "--by", "丁"],
    ] {
        cli(&tree, "c", &line);
    }
    let closed = c.one(&id);
    let polled = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let since = |polled: &str| c.get(&format!("requests.json?updated_after={polled}")).said();
    assert_eq!(since(&polled), json!([]));
    cli(&tree, "c", &["case", "evaluate", &id, "--by", "居民", "--role", "resident", "--solved", "unsolved"]);
    let told = c.get("servicerequestupdates.json").said();
    let last = told.as_array().and_then(|told| told.last()).expect("updates");
    assert_eq!((&last["status"], &c.one(&id)["status"]), (&json!("no_further_action"), &json!("closed")));
    let found = since(&polled);
    assert_eq!(
        (&found[0]["service_request_id"], &found[0]["updated_datetime"]),
        (&json!(id), &closed["updated_datetime"])
    );
}

#[test]
fn what_was_told_of_a_request_stays_so_through_denial_rework_and_reopening_and_contradicts_nothing() {
    let mut tree = Tree::with(&["c"], &HashMap::new(), CONFIG);
    tree.start();
    let c = Client::of(&tree, "c");
    let id = filed(&c);
    let says = |status: &str| {
        let form = format!("service_request_id={id}&status={status}&description=x");
        assert_eq!(c.post("servicerequestupdates.json", &form).status, 200);
    };
    let shown = || tree.node("c").get(&format!("/v1/cases/{id}")).expect("shown");
    let told = || -> Vec<(Value, Value)> {
        let all = c.get("servicerequestupdates.json").said();
        let named = |u: &Value| (u["update_id"].clone(), u["status"].clone());
        all.as_array().expect("a list").iter().map(named).collect()
    };
    // What the case itself is called is what was told of it last.
    let is_called = |word: &str| {
        assert_eq!(shown()["words"]["update"], word);
        assert_eq!(told().last().expect("an update").1, word);
    };
    let steps = |lines: &[&[&str]]| {
        lines.iter().for_each(|line| cli(&tree, "c", &[&["case", line[0], &id], &line[1..]].concat()));
    };
    let handled: [&[&str]; 3] = [
        &["dispatch", "--by", "甲", "--unit", "环卫所"],
        &["start", "--by", "乙"],
        &["resolve", "--by", "乙", "--result", "已清运"],
    ];
    steps(&[&["accept", "--by", "甲"]]);
    steps(&handled);
    is_called("fixed");
    says("REOPEN");
    steps(&[
        &["verify", "--failed", "--reason", "还在", "--by", "丙"],
        &["resolve", "--by", "乙", "--result", "已清运"],
    ]);
    is_called("fixed");
    // Of the new answer he has not said anything yet.
    says("FIXED");
    assert_eq!(shown()["case"]["verdict"]["solved"], "solved");
    steps(&[&["close", "--by", "丙"]]);
    is_called("fixed");
    assert_eq!(shown()["case"]["closed_reason"], "solved");
    let first = told();
    assert_eq!(c.one(&id)["agency_responsible"], "环卫所");
    says("OPEN");
    assert_eq!(c.one(&id)["agency_responsible"], "环卫", "the unit has nothing to do with it any more");
    assert_eq!(told()[..first.len()], first, "it is open again");
    steps(&handled);
    says("REOPEN");
    steps(&[&["close", "--closed-reason", "solved", "--by", "丙"]]);
    is_called("no_further_action");
    assert_eq!(told()[..first.len()], first, "and closed for another reason");
}

#[test]
fn the_status_notes_of_a_request_that_is_not_dealt_with_say_why_in_the_words_of_whoever_rejected_it() {
    let mut tree = Tree::with(&["c"], &HashMap::new(), CONFIG);
    tree.start();
    let c = Client::of(&tree, "c");
    let file = || filed(&c);
    let (id, other) = (file(), file());
    cli(&tree, "c", &["case", "reject", &id, "--by", "甲", "--reason", "这是物业的事请找物业"]);
    assert_eq!(c.one(&id)["status_notes"], "这是物业的事请找物业");
    // A resident's own words, and nobody else's of such a step.
    let withdrawn = format!("service_request_id={other}&status=CANCELLED&description=%E4%B8%8D%E7%94%A8%E4%BA%86");
    assert_eq!(c.post("servicerequestupdates.json", &withdrawn).status, 200);
    assert_eq!(c.one(&other)["status_notes"], "不用了");
    let third = file();
    cli(&tree, "c", &["case", "withdraw", &third, "--by", "甲", "--role", "supervisor", "--reason", "among us"]);
    assert_eq!(c.one(&third)["status_notes"], "withdrawn");
    // Why two are one is said among those who found it.
    let [leader, follower] = [(); 2].map(|()| file());
    cli(&tree, "c", &["case", "merge", &follower, "--into", &leader, "--by", "甲", "--reason", "同一件"]);
    assert_eq!(c.one(&follower)["status_notes"], format!("it follows {leader}"));
    // What somebody could not do is not what is not his to do.
    let full = file();
    cli(&tree, "c", &["case", "reject", &full, "--by", "甲", "--closed-reason", "refused", "--reason", "人满了"]);
    let updates = c.get("servicerequestupdates.json").said();
    let of_full = updates.as_array().expect("a list").iter().rfind(|u| u["service_request_id"] == full.as_str());
    assert_eq!(of_full.expect("an update")["status"], "no_further_action");
}

#[test]
fn what_a_category_asks_are_attributes_at_every_node_below_and_answers_stay_with_the_case() {
    let form = r#"
[[category]]
code = "TREE"
name = "行道树"
description = "街边的树"
keywords = ["树", "行道树"]
evidence = ["photo-after"]
form = [
    { name = "KIND", label = "什么树", required = true, choices = ["银杏", "榕树"] },
    { name = "HARM", choices = ["a", "b"], multiple = true },
    { name = "HEIGHT", kind = "number" },
    { name = "SINCE", kind = "datetime" },
    { name = "FLAT", personal = true, kind = "text" },
]
"#;
    let mut tree = Tree::new(&["c/s"]);
    tree.edit("c", |text| format!("{form}{text}"));
    tree.start();
    let c = Client::of(&tree, "c/s");
    // The street has it from the city.
    wait_for("the category has come down", || (c.get("services.json").said()[0]["metadata"] == true).then_some(()));
    let service = &c.get("services.json").said()[0];
    assert_eq!((&service["description"], &service["keywords"]), (&json!("街边的树"), &json!("树,行道树")));
    let list = |key: &str| json!({"key": key, "name": key});
    let attribute = |order: u32, code: &str, datatype: &str, required: bool, description: &str| {
        json!({"variable": true, "code": code, "datatype": datatype, "required": required, "datatype_description": null,
            "order": order, "description": description})
    };
    let mut kind = attribute(1, "KIND", "singlevaluelist", true, "什么树");
    kind["values"] = json!([list("银杏"), list("榕树")]);
    let mut harm = attribute(2, "HARM", "multivaluelist", false, "HARM");
    harm["values"] = json!([list("a"), list("b")]);
    let golden = json!({"service_code": "TREE", "attributes": [kind, harm,
        attribute(3, "HEIGHT", "number", false, "HEIGHT"), attribute(4, "SINCE", "datetime", false, "SINCE"),
        attribute(5, "FLAT", "text", false, "FLAT")]});
    assert_eq!(c.get("services/TREE.json").said(), golden);
    let xml = c.get("services/TREE.xml").text;
    assert!(xml.contains("<service_definition><service_code>TREE</service_code><attributes><attribute><variable>true</variable><code>KIND</code><datatype>singlevaluelist</datatype><required>true</required><datatype_description/><order>1</order><description>什么树</description><values><value><key>银杏</key><name>银杏</name></value>"), "{xml}");

    let base = "service_code=TREE&address_string=x";
    for (form, words) in [
        ("", "attribute[KIND]: 行道树 asks `什么树`; one of 银杏, 榕树"),
        ("&attribute[KIND]=oak", "attribute[KIND]: `oak` is no answer to `什么树`; one of 银杏, 榕树"),
        ("&attribute[KIND]=银杏&attribute[HEIGHT]=tall", "attribute[HEIGHT]: `tall` is no answer"),
        ("&attribute[KIND]=银杏&attribute[HARM][]=a&attribute[HARM][]=z", "attribute[HARM]: `a,z` is no answer"),
        ("&attribute[KIND]=银杏&attribute[SINCE]=today", "attribute[SINCE]: `today`"),
        ("&attribute[KIND]=银杏&attribute[COLOUR]=red", "attribute[COLOUR]: 行道树 does not ask `COLOUR`"),
        ("&attribute[KIND=银杏", "attribute[KIND is no attribute"),
    ] {
        let (status, why) = c.post("requests.json", &format!("{base}{form}")).wrong();
        assert!(status == 400 && why.contains(words), "{form}: {status} {why}");
    }
    let filed = c.post(
        "requests.json",
        &format!("{base}&attribute%5BKIND%5D=%E9%93%B6%E6%9D%8F&attribute[HARM][]=a&attribute[HARM][]=b&attribute[HEIGHT]=2.5&attribute[FLAT]=7-301&media_url=https://photos.example/1.jpg"),
    );
    assert_eq!(filed.status, 200, "{}", filed.text);
    let id = filed.said()[0]["service_request_id"].as_str().expect("an id").to_owned();
    assert_eq!(c.one(&id)["media_url"], "https://photos.example/1.jpg");
    let shown = c.get(&format!("requests/{id}.json?extensions=true")).said();
    let answers = json!([{"code": "HARM", "value": "a,b"}, {"code": "HEIGHT", "value": "2.5"}, {"code": "KIND", "value": "银杏"}]);
    assert_eq!(shown[0]["attributes"], answers, "what is personal is not told");
    assert!(!c.get("requests.xml?extensions=true").text.contains("7-301"));
    let kept = tree.node("c/s").get(&format!("/v1/cases/{id}")).expect("shown");
    assert_eq!((&kept["case"]["form"]["KIND"], &kept["contact"]["more"]["FLAT"]), (&json!("银杏"), &json!("7-301")));

    // Pictures of what was done, and of what a resident says.
    for line in [
        vec!["case", "accept", &id, "--by", "甲"],
        vec!["case", "dispatch", &id, "--by", "甲", "--unit", "园林"],
        vec!["case", "start", &id, "--by", "乙"],
        vec![
            "case",
            "resolve",
            &id,
            "--by",
            "乙",
            "--result",
            "已修剪",
            "--evidence",
            "photo-after=https://photos.example/2.jpg",
        ],
    ] {
        cli(&tree, "c/s", &line);
    }
    let said =
        format!("service_request_id={id}&status=UNCHANGED&description=no&media_url=https://photos.example/3.jpg");
    assert_eq!(c.post("servicerequestupdates.json", &said).status, 200);
    assert_eq!(c.post("servicerequestupdates.json", &said.replace("https:", "ftp:")).wrong().0, 400);
    let told =
        |query: &str| c.get(&format!("servicerequestupdates.json{query}")).said().as_array().expect("a list").clone();
    let all = told("");
    let media: Vec<&Value> = all.iter().map(|u| &u["media_url"]).collect();
    assert_eq!(media[3..], [&json!("https://photos.example/2.jpg"), &json!("https://photos.example/3.jpg")]);
    assert_eq!(all[4]["description"], "no");
    let pages: Vec<Value> = (1..=3).flat_map(|page| told(&format!("?page={page}&page_size=2"))).collect();
    assert_eq!(pages, all, "page by page it is the same");
    assert_eq!(c.get("servicerequestupdates.json?page_size=0").wrong().0, 400);
    // What is sent again under the sender's own id is the same update, also when more was said since.
    let named = |word: &str, text: &str| format!("service_request_id={id}&update_id={word}&description={text}");
    let posted = |form: &str| {
        let got = c.post("servicerequestupdates.json", form);
        assert_eq!(got.status, 200, "{}", got.text);
        got.said()[0]["update_id"].as_str().expect("an id").to_owned()
    };
    let newest = || told("").last().expect("an update")["update_id"].as_str().expect("an id").to_owned();
    let mut ids = Vec::new();
    for (word, text) in [("upd-7", "still"), ("upd-8", "still"), ("upd-9", "a%0D%0Ab")] {
        ids.push(posted(&named(word, text)));
        assert_eq!(ids.last(), Some(&newest()), "{word}");
    }
    assert_eq!(told("").len(), all.len() + 3);
    let again =
        [posted(&named("upd-7", "again")), posted(&named("upd-8", "still")), posted(&named("upd-9", "a%0D%0Ab"))];
    assert_eq!(again.as_slice(), ids.as_slice());
    assert_eq!(told("").len(), all.len() + 3);
    // A picture stands behind a text that is longer than what is kept.
    let long = format!("{}&media_url=https://photos.example/4.jpg", named("upd-10", &"y".repeat(3_000)));
    posted(&long);
    let kept = told("").pop().expect("an update");
    assert_eq!(kept["media_url"], "https://photos.example/4.jpg");
    assert!(kept["description"].as_str().is_some_and(|d| d.len() > 1_900 && d.chars().all(|c| c == 'y')), "{kept}");
    // And at once: the others are told that it is under way, or what it became.
    let (before, at_once) = (told("").len(), named("upd-11", "at once"));
    let heard: Vec<(u16, String, String)> = std::thread::scope(|scope| {
        let one = || {
            let got = c.post("servicerequestupdates.json", &at_once);
            (got.status, got.said()[0]["update_id"].as_str().unwrap_or_default().to_owned(), got.text)
        };
        let asking: Vec<_> = (0..12).map(|_| scope.spawn(one)).collect();
        asking.into_iter().map(|one| one.join().expect("it is answered")).collect()
    });
    assert_eq!(told("").len(), before + 1, "{heard:?}");
    assert!(heard.iter().any(|(status, ..)| *status == 200), "{heard:?}");
    let is_told = |(status, id, text): &(u16, String, String)| match status {
        409 => text.contains("the update_id `upd-11` is under way"),
        status => *status == 200 && *id == newest(),
    };
    assert!(heard.iter().all(is_told), "{heard:?}");
    assert_eq!(c.post("servicerequestupdates.json", &format!("service_request_id={id}")).wrong().0, 400);
}

#[test]
fn answers_and_errors_are_as_the_specification_writes_them() {
    let mut tree = Tree::with(&["c"], &HashMap::new(), CONFIG);
    tree.edit("c", |text| text.replace("[node]", "[node]\ncode = \"510115001\""));
    tree.start();
    let c = Client::of(&tree, "c");
    let golden = json!([
        {"service_code": "SJ0102", "service_name": "暴露垃圾", "description": null, "metadata": false, "type": "realtime", "keywords": null, "group": "环卫"},
        {"service_code": "LAMP", "service_name": "路灯", "description": "A street lamp that is out, or on by day", "metadata": false, "type": "realtime", "keywords": "lamp,灯", "group": null},
    ]);
    assert_eq!(c.get("services.json").said(), golden);
    assert_eq!(c.get("services.json?jurisdiction_id=c").said(), golden);
    assert_eq!(c.get("services.json?jurisdiction_id=510115001").said(), golden);
    assert_eq!(
        c.get("services.xml").text,
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<services><service><service_code>SJ0102</service_code><service_name>暴露垃圾</service_name><description/><metadata>false</metadata><type>realtime</type><keywords/><group>环卫</group></service><service><service_code>LAMP</service_code><service_name>路灯</service_name><description>A street lamp that is out, or on by day</description><metadata>false</metadata><type>realtime</type><keywords>lamp,灯</keywords><group/></service></services>\n"
    );
    assert_eq!(c.get("services").header("content-type"), "text/xml; charset=utf-8", "XML unless JSON is asked for");
    let asked = c.ask("GET", "services", &[("accept", "application/json, text/xml;q=0.5")], "");
    assert_eq!(asked.said(), golden);
    let discovery = c.get("discovery.json").said();
    assert_eq!((&discovery["contact"], &discovery["key_service"]), (&json!("12345"), &json!("ask & wait")));
    let endpoint = &discovery["endpoints"][0];
    assert_eq!(endpoint["url"].as_str(), Some(format!("{}/open311/v2", c.0.url()).as_str()));
    assert_eq!(
        (&endpoint["type"], &endpoint["formats"]),
        (&json!("production"), &json!(["text/xml", "application/json"]))
    );
    assert!(c.get("discovery.xml").text.contains("<key_service>ask &amp; wait</key_service><endpoints><endpoint><specification>http://wiki.open311.org/GeoReport_v2</specification>"));

    let (status, why) = c.get("services.json?jurisdiction_id=sfgov.org").wrong();
    assert!(status == 404 && why.contains("sfgov.org"), "{why}");
    // Filed under the name or the number of the jurisdiction, or under none; under another one it is not.
    for named in ["", "&jurisdiction_id=c", "&jurisdiction_id=510115001"] {
        let filed = c.post("requests.xml", &format!("{GOOD}{named}"));
        let (head, tail) = (
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<service_requests><request><service_request_id>",
            "</service_request_id><service_notice/><account_id/></request></service_requests>\n",
        );
        let id = filed
            .text
            .strip_prefix(head)
            .and_then(|rest| rest.strip_suffix(tail))
            .unwrap_or_else(|| panic!("{named}: {}", filed.text));
        assert_eq!((filed.status, filed.header("content-type")), (200, "text/xml; charset=utf-8"));
        for path in ["requests", "tokens"] {
            let at = |jurisdiction: &str| c.get(&format!("{path}/{id}.xml?jurisdiction_id={jurisdiction}"));
            assert!(at("510115001").status == 200 && at("c").text.contains(id), "{path}: {}", at("c").text);
            assert_eq!(at("sfgov.org").status, 404, "{path}");
        }
        let update = |jurisdiction: &str| {
            let form = format!("service_request_id={id}&description=x&jurisdiction_id={jurisdiction}");
            c.post("servicerequestupdates.xml", &form)
        };
        assert_eq!((update("c").status, update("sfgov.org").status), (200, 404));
    }
    let before = c.get("requests.json").said().as_array().map(Vec::len);
    let refused = c.post("requests.xml", &format!("{GOOD}&jurisdiction_id=sfgov.org"));
    let told = refused.text.strip_prefix("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<errors><error><code>404</code><description>jurisdiction_id sfgov.org was not found");
    assert!(refused.status == 404 && told.is_some(), "{} {}", refused.status, refused.text);
    assert_eq!(c.get("requests.json").said().as_array().map(Vec::len), before, "nothing was filed");
    assert_eq!(c.get("services.xml?jurisdiction_id=sfgov.org").status, 404);
    for (path, wanted) in [
        ("services/NONE.json", 404),
        ("services/LAMP.json", 404),
        ("requests/1.json", 404),
        ("tokens/1.json", 404),
        ("nothing.json", 404),
        ("requests.json?status=done", 400),
        ("requests.json?start_date=yesterday", 400),
        ("requests.json?start_date=2026-01-01T00:00:00Z&end_date=2026-06-01T00:00:00Z", 400),
    ] {
        let got = c.get(path);
        assert_eq!((got.status, &got.said()[0]["code"]), (wanted, &json!(wanted)), "{path}: {}", got.text);
    }
    let call = c.get("services/sos.json").said();
    let told = call[0]["description"].as_str().expect("a text");
    assert!(told.contains("is a call for help") && told.contains("POST /v1/cases"), "{told}");
    assert_eq!(
        c.get("requests/1.xml").text,
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<errors><error><code>404</code><description>service_request_id 1 was not found</description></error></errors>\n"
    );
    for (form, wanted, word) in [
        ("service_code=NONE&address_string=x", 404, "NONE"),
        ("service_code=sos&address_string=x", 404, "sos"),
        ("address_string=x", 400, "service_code"),
        ("service_code=LAMP", 400, "location"),
        ("service_code=LAMP&lat=30&long=200", 400, "degrees"),
    ] {
        let (status, why) = c.post("requests.json", form).wrong();
        assert!(status == wanted && why.contains(word), "{form}: {status} {why}");
    }
    assert_eq!(c.post("requests.json", "").said().as_array().expect("a list").len(), 2, "all that is wrong at once");
    assert_eq!(c.post("services.json", "").status, 405);
    for (path, wanted) in [("services.json", "GET, HEAD"), ("requests.json", "GET, HEAD, POST")] {
        let refused = c.ask("PUT", path, &[], "");
        assert_eq!((refused.status, refused.header("allow")), (405, wanted), "{path}");
    }
    assert_eq!(c.post("requests.json", &format!("{GOOD}&device_id={}", "x".repeat(70_000))).status, 413);
    let multipart =
        |path: &str, body: &[u8]| c.ask("POST", path, &[("content-type", "multipart/form-data; boundary=x")], body);
    assert_eq!(multipart("requests.json", b"--x--").status, 400);
    // With a picture, as a telephone sends it: the request is filed, and it is said what became of the picture.
    let part = |head: &str, text: &str| format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{text}\r\n");
    let texts = part("name=\"service_code\"", "LAMP") + &part("name=\"address_string\"", "三号门");
    let picture = part("name=\"media\"; filename=\"a.jpg\"", &"\u{ff}\r\n".repeat(300_000));
    let filed = multipart("requests.json", format!("{texts}{picture}--x--\r\n").as_bytes());
    let filed = filed.said();
    assert!(filed[0]["service_notice"].as_str().is_some_and(|n| n.contains("media_url")), "{filed}");
    assert_eq!(c.one(filed[0]["service_request_id"].as_str().expect("an id"))["address"], "三号门");
    let filed = multipart("requests.json", format!("{texts}--x--\r\n").as_bytes());
    assert_eq!((filed.status, &filed.said()[0]["service_notice"]), (200, &Value::Null));
    assert_eq!(multipart("requests.json", format!("{texts}{picture}").as_bytes()).status, 400, "it breaks off");

    // Of what it has no room for it is told; a case has room for ten pictures.
    let all = format!(
        "{GOOD}&address_string=7&address_id=x7&media_url=https://p.example/1.jpg&media_url%5B%5D=https://p.example/2.jpg"
    );
    let filed = c.post("requests.json", &all).json();
    assert_eq!(filed[0]["service_notice"], "The address_id was not kept: the address_string is.");
    let id = filed[0]["service_request_id"].as_str().expect("an id");
    let media = tree.node("c").get(&format!("/v1/cases/{id}")).expect("shown")["case"]["media"].clone();
    assert_eq!(media, json!(["https://p.example/1.jpg", "https://p.example/2.jpg"]));
    let many = c.post("requests.json", &format!("{all}{}", "&media_url=https://p.example/3.jpg".repeat(9)));
    assert!(many.wrong().1.contains("10 times at most"), "{}", many.text);

    // The same key files it once.
    let file = |key: &str, form: &str| {
        c.ask("POST", "requests.json", &[("idempotency-key", key), ("content-type", FORM)], form)
    };
    let id_of = |got: &Told| got.said()[0]["service_request_id"].as_str().expect("an id").to_owned();
    let first = id_of(&file("a", GOOD));
    assert_eq!(first, id_of(&file("a", GOOD)));
    assert_ne!(first, id_of(&file("b", GOOD)));
    for other in [GOOD.replace("SJ0102", "LAMP"), GOOD.replace("30.6980", "30.6981"), format!("{GOOD}&phone=1")] {
        let (status, why) = file("a", &other).wrong();
        assert!(status == 422 && why.contains("another request"), "{status} {why}");
    }
    // As a page's text field sends it, and longer than what is kept: a retry is a retry all the same.
    let place = "service_code=LAMP&address_string=x&description=";
    // What has four bytes, as pictures of faces have, counts for more than a character.
    let (long, faces) = ("%E9%95%BF".repeat(4_000), "%F0%9F%98%80".repeat(4_000));
    for (key, text, is_cut) in [("c", "a%0D%0Ab", false), ("d", long.as_str(), false), ("e", faces.as_str(), true)] {
        let form = format!("{place}{text}");
        let filed = file(key, &form);
        assert_eq!(filed.status, 200, "{}", filed.text);
        assert_eq!(
            filed.said()[0]["service_notice"].as_str().is_some_and(|n| n.contains("first 3000 ch")),
            is_cut,
            "{key}"
        );
        assert_eq!(id_of(&filed), id_of(&file(key, &form)), "{key}");
    }
    assert_eq!(file("no word", GOOD).wrong().0, 400);
}

/// 三号门, 南门 and 王 as GBK has them.
const GATE: &[u8] = b"\xC8\xFD\xBA\xC5\xC3\xC5";
const SOUTH: &[u8] = b"\xC4\xCF\xC3\xC5";
const WANG: &[u8] = b"\xCD\xF5";

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("%{b:02X}")).collect()
}

#[test]
fn a_form_in_another_encoding_is_read_where_it_says_which_and_refused_otherwise() {
    let mut tree = Tree::with(&["c"], &HashMap::new(), CONFIG);
    tree.start();
    let c = Client::of(&tree, "c");
    let text = format!(
        "service_code=SJ0102&address_string={}&description={}&first_name={}",
        escaped(SOUTH),
        escaped(GATE),
        escaped(WANG)
    );
    let raw = [b"service_code=SJ0102&address_string=", SOUTH, b"&description=", GATE, b"&first_name=", WANG].concat();
    let part = |name: &str, kind: &str, value: &[u8]| {
        let head = format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n{kind}\r\n");
        [head.as_bytes(), value, b"\r\n"].concat()
    };
    let parts = |kind: &str| {
        let texts = [("description", GATE), ("address_string", SOUTH), ("first_name", WANG)];
        let texts = texts.map(|(name, value)| part(name, kind, value)).concat();
        [part("service_code", "", b"SJ0102"), texts, b"--x--".to_vec()].concat()
    };
    let post = |path: &str, kind: &str, body: &[u8]| c.ask("POST", path, &[("content-type", kind)], body);
    let id_of = |filed: &Told| {
        assert_eq!(filed.status, 200, "{}", filed.text);
        filed.said()[0]["service_request_id"].as_str().expect("an id").to_owned()
    };
    let (form, multipart) = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x");
    let mut id = String::new();
    for (kind, body) in [
        (format!("{form}; charset=GBK"), text.as_bytes()),
        (format!("{form}; Charset=\"gb18030\""), &raw),
        (format!("{multipart}; charset=gb2312"), &parts("")),
        (multipart.to_owned(), &parts("Content-Type: text/plain; charset=GBK\r\n")),
    ] {
        id = id_of(&post("requests.json", &kind, body));
        let kept = tree.node("c").get(&format!("/v1/cases/{id}")).expect("shown");
        let of = |name: &str| kept["case"][name].clone();
        assert_eq!((of("title"), of("description")), (json!("三号门"), json!("三号门")), "{kind}");
        assert_eq!(
            (&kept["case"]["place"]["text"], &kept["contact"]["name"]),
            (&json!("南门"), &json!("王")),
            "{kind}"
        );
    }
    // What it does not say, or says wrongly, is guessed by nobody.
    let before = c.get("requests.json").said().as_array().map(Vec::len);
    for (kind, body) in [
        (form.to_owned(), text.as_bytes()),
        (form.to_owned(), &raw),
        (format!("{form}; charset=utf-8"), text.as_bytes()),
        (format!("{form}; charset=none-such"), text.as_bytes()),
        (multipart.to_owned(), &parts("")),
        (multipart.to_owned(), &parts("Content-Type: text/plain; charset=utf-8\r\n")),
    ] {
        let refused = post("requests.json", &kind, body);
        let all = refused.said();
        let words: Vec<&str> =
            all.as_array().expect("a list").iter().filter_map(|w| w["description"].as_str()).collect();
        for name in ["description", "address_string", "first_name"] {
            let is_named =
                words.iter().any(|w| w.starts_with(name) && w.contains("UTF-8") && w.contains("charset=GBK"));
            assert!(refused.status == 400 && is_named, "{kind}: {words:?}");
        }
    }
    assert_eq!(c.get("requests.json").said().as_array().map(Vec::len), before, "nothing was filed");
    // Many name Latin-1 and send UTF-8.
    let utf8 = "service_code=SJ0102&address_string=x&description=%E4%B8%89%E5%8F%B7%E9%97%A8";
    for charset in ["iso-8859-1", "none-such"] {
        let id = id_of(&post("requests.json", &format!("{form}; charset={charset}"), utf8.as_bytes()));
        assert_eq!(c.one(&id)["description"], "三号门", "{charset}");
    }

    // The same of an update, and of what stands in an address.
    let said = format!("service_request_id={id}&description={}", escaped(GATE));
    let (status, why) = c.post("servicerequestupdates.json", &said).wrong();
    assert!(status == 400 && why.starts_with("description"), "{status} {why}");
    let taken = post("servicerequestupdates.json", &format!("{form}; charset=GBK"), said.as_bytes());
    assert_eq!(taken.status, 200, "{}", taken.text);
    let told = c.get("servicerequestupdates.json").text;
    assert!(told.contains("三号门"), "{told}");
    let (status, why) = c.get("requests.json?service_code=%C8%FD").wrong();
    assert!(status == 400 && why.starts_with("service_code"), "{status} {why}");
}

#[test]
fn the_time_of_an_update_may_be_left_out_and_is_refused_where_it_is_none() {
    let mut tree = Tree::with(&["c"], &HashMap::new(), CONFIG);
    tree.start();
    let c = Client::of(&tree, "c");
    let id = filed(&c);
    let says = |at: &str| {
        c.post("servicerequestupdates.json", &format!("service_request_id={id}&description=x&updated_datetime={at}"))
    };
    for at in ["nonsense", "2026-13-01T00:00:00Z", "2026-11-24"] {
        let (status, why) = says(at).wrong();
        assert!(
            status == 400 && why.contains("updated_datetime") && why.contains("2026-11-24T08:00:00Z"),
            "{at}: {why}"
        );
    }
    for at in ["2026-11-24T08:00:00%2B08:00", "2035-01-01T00:00:00Z", ""] {
        assert_eq!(says(at).status, 200, "{at}");
    }
}

#[test]
fn keys_say_who_may_file_and_who_may_read() {
    let mut tree = Tree::with(&["c"], &HashMap::new(), CONFIG);
    let file = tree.dir().join("tokens");
    let key = |name: &str, role: &str| {
        let made = Command::new(binary())
            .args(["token", "add", name, "--role", role, "--file"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).expect("text").trim().to_owned()
    };
    let (app, reader, other) = (key("app-1", "app"), key("mia", "reader"), key("app-2", "app"));
    tree.edit("c", |text| text.replace("[api]", &format!("[api]\ntokens_file = \"{}\"", file.display())));
    tree.start();
    let c = Client::of(&tree, "c");
    assert_eq!(c.get("discovery.xml").status, 200);
    assert_eq!(c.get("services.xml").status, 200);
    assert_eq!(
        c.post("requests.xml", &format!("api_key=k&{GOOD}")).text,
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<errors><error><code>403</code><description>Invalid api_key</description></error></errors>\n"
    );
    assert_eq!(c.post("requests.json", GOOD).wrong(), (403, "api_key was not provided".into()));
    assert_eq!(c.post("requests.json", &format!("api_key={reader}&{GOOD}")).wrong().0, 403);
    // A key beside the form is judged before the form has come.
    for (query, bearer) in [("?api_key=k", "x"), (&format!("?api_key={reader}"), "x"), ("", &*reader)] {
        let mut socket = TcpStream::connect(("127.0.0.1", tree.node("c").api)).expect("the port is open");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let head = format!(
            "POST /open311/v2/requests.json{query} HTTP/1.1\r\nhost: c\r\nauthorization: Bearer {bearer}\r\n\
             content-type: multipart/form-data; boundary=x\r\ncontent-length: 1000000\r\n\r\n--x\r\n"
        );
        socket.write_all(head.as_bytes()).expect("it is sent");
        let mut status = [0; 12];
        socket.read_exact(&mut status).expect("an answer, though the form has not come");
        assert_eq!(&status, b"HTTP/1.1 403", "{query}");
    }
    let filed = c.post("requests.json", &format!("api_key={app}&{GOOD}"));
    assert_eq!(filed.status, 200, "{}", filed.text);
    let id = filed.said()[0]["service_request_id"].as_str().expect("an id").to_owned();
    // A web page may file, too, and sees what became of it: it would file again.
    let page = [("content-type", FORM), ("origin", "https://app.example")];
    for (key, status) in [(&app, 200), (&reader, 403)] {
        let told = c.ask("POST", "requests.json", &page, format!("api_key={key}&{GOOD}"));
        assert_eq!((told.status, told.header("access-control-allow-origin")), (status, "*"), "{}", told.text);
    }
    let refused = |query: &str| {
        let (code, words) = c.get(&format!("requests/{id}.json{query}")).wrong();
        (code, words.split(':').next().unwrap_or_default().to_owned())
    };
    assert_eq!(refused(""), (403, "api_key was not provided".into()));
    assert_eq!(refused("?api_key=k"), (403, "Invalid api_key".into()));
    let nothing = c.get("");
    assert!(nothing.status == 404 && nothing.text.contains("see /open311/v2/discovery.xml"), "{}", nothing.text);
    for key in [&app, &reader] {
        assert_eq!(c.get(&format!("requests/{id}.json?api_key={key}")).status, 200);
    }
    // Another app may say something about it, and not take it back.
    let update = |key: &str, status: &str| {
        c.post(
            "servicerequestupdates.json",
            &format!("api_key={key}&service_request_id={id}&status={status}&description=x"),
        )
    };
    assert_eq!(update(&other, "CANCELLED").wrong().0, 403);
    assert_eq!(update(&other, "UNCHANGED").status, 200);
    assert_eq!(update(&app, "CANCELLED").status, 200);
    // An app's key opens nothing else.
    let bearer = |path: &str| tree.node("c").by(&app).get(path).status;
    assert_eq!(bearer("/v1/status"), 403);
    assert_eq!(bearer("/open311/v2/requests.xml"), 200);
    // Whose it is, is in the case's history.
    let shown = tree.node("c").by(&reader).get(&format!("/v1/cases/{id}"));
    assert!(shown.text.contains("open311:app-1"), "{}", shown.text);

    tree.stop_node("c");
    tree.edit("c", |text| text.replace("[open311]", "[open311]\npublic = true"));
    tree.start_node("c");
    tree.wait_ready();
    let c = Client::of(&tree, "c");
    assert_eq!(c.get(&format!("requests/{id}.json")).status, 200);
    assert_eq!(c.post("requests.json", GOOD).wrong().0, 403);
}
