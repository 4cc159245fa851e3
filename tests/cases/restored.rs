//! A box of which a backup is put back has again what it did since, and gives no seat twice.

use super::{COMMUNITY, CONFIG, LEAF, cli, id, wait_case};
use crate::harness::ran::run;
use crate::harness::{OPERA, Tree, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;

const LEAK: &str = r#"
[[rule]]
name = "leak"
on = ["city.leak"]
when = "true"
[[rule.then]]
raise = { severity = "major", title = "A leak" }
"#;

#[test]
fn a_restored_box_has_its_cases_steps_and_bookings_from_after_the_backup_again() {
    let mut tree = Tree::with(&[LEAF], &HashMap::new(), &format!("{OPERA}{CONFIG}"));
    tree.start();
    tree.wait_linked();
    let at = |tree: &Tree, node: &str, line: &[&str], code: i32| {
        let (was, out, err) = cli(tree.node(node), line);
        assert_eq!(was, code, "{line:?}: {out}{err}");
        serde_json::from_str::<Value>(&out).unwrap_or_default()
    };
    let new = ["case", "new", "--category", "暴露垃圾", "--title", "垃圾", "--by", "前台", "--json"];
    let before = id(&at(&tree, COMMUNITY, &new, 0)["case"]);
    tree.back_up(COMMUNITY);
    at(&tree, COMMUNITY, &["case", "accept", &before, "--by", "小李"], 0);
    let after = id(&at(&tree, COMMUNITY, &new, 0)["case"]);
    let book = ["service", "request", "opera", "--of", COMMUNITY, "--by", "甲", "--form", "health=好", "--json"];
    let booked = id(&at(&tree, COMMUNITY, &book, 0)["case"]);
    wait_case(tree.node("c"), "has heard of all", |c| c["id"] == booked && c["booking"]["state"] == "booked");
    wait_case(tree.node("c"), "has heard of all", |c| c["id"] == before && c["status"] == "accepted");
    tree.kill9(COMMUNITY);
    tree.restore(COMMUNITY);
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    let node = tree.node(COMMUNITY);
    wait_case(node, "has the case again", |c| c["id"] == after && c["status"] == "submitted");
    wait_case(node, "has the step again", |c| c["id"] == before && c["accepted_by"] == "小李");
    wait_case(node, "has the booking again", |c| c["id"] == booked && c["booking"]["state"] == "booked");
    let (code, out, err) = cli(node, &book.map(|word| if word == "甲" { "乙" } else { word }));
    assert_eq!(code, 1, "the seat is 甲's: {out}{err}");
    at(&tree, "c", &["case", "accept", &after, "--by", "城管"], 0);
    for there in ["c", "c/s", COMMUNITY] {
        wait_case(tree.node(there), "has one word", |c| c["id"] == after && c["status"] == "accepted");
    }
}

#[test]
fn a_box_that_has_not_heard_what_others_know_says_so_in_every_list_and_beside_every_number() {
    let mut tree = Tree::with(&[LEAF], &HashMap::new(), &format!("{OPERA}{CONFIG}"));
    tree.start();
    tree.wait_linked();
    let book = ["service", "request", "opera", "--of", COMMUNITY, "--form", "health=好", "--json", "--by"];
    let (code, out, err) = cli(tree.node(LEAF), &[&book[..], &["甲"]].concat());
    assert_eq!(code, 0, "{out}{err}");
    wait_case(tree.node("c/s"), "has heard of the booking", |c| c["booking"]["state"] == "booked");
    for gone in [LEAF, COMMUNITY, "c/s"] {
        tree.kill9(gone);
    }
    tree.lose_disk(COMMUNITY);
    tree.start_node(COMMUNITY);
    let says = |tree: &Tree, why: &str| {
        let node = tree.node(COMMUNITY);
        for line in [
            ["rates"].as_slice(),
            &["supervision"],
            &["case", "stats"],
            &["case", "list"],
            &["alarm", "list"],
            &["cap", "list"],
        ] {
            let (_, out, err) = cli(node, line);
            assert!(
                out.contains("some may be missing here, or old: c/s/m ") && out.contains(why),
                "{line:?}: {out}{err}"
            );
        }
        let (_, out, _) = cli(node, &["service", "show", "opera", "--of", COMMUNITY]);
        assert!(out.contains("not known yet: c/s/m ") && out.contains(why) && !out.contains("seats left"), "{out}");
        let (_, out, _) = cli(node, &["doctor"]);
        assert!(out.contains(why), "{out}");
        let (code, _, err) = cli(node, &["case", "show", "20200101-nothing"]);
        let none = "c/s/m knows no case `20200101-nothing`, as far as is known: c/s/m ";
        assert!(code == 1 && err.contains(none) && err.contains(why) && err.contains("`citybrain why c/s/m`"), "{err}");
        let (code, _, err) = cli(node, &["case", "list", "--service", "bus"]);
        assert!(code == 1 && err.contains("service `bus`, as far as is known: c/s/m ") && err.contains(why), "{err}");
        for path in ["/v1/alarms/nothing", "/v1/cases?service=bus"] {
            let told = node.asker().get(path);
            assert_eq!((told.status, told.header("retry-after")), (503, "10"), "{path}: {}", told.text);
        }
        // A client that is told of none forgets what it asked for.
        let open311 = |path: &str| node.asker().ask("GET", &format!("/open311/v2/{path}"), &[], "");
        for one in ["requests/20200101-nothing.json", "requests.json?service_request_id=20200101-nothing"] {
            let told = open311(one);
            assert_eq!((told.status, told.header("retry-after")), (503, "10"), "{one}: {}", told.text);
        }
        for list in ["requests.json", "servicerequestupdates.xml"] {
            let told = open311(list);
            let lacking = told.header("citybrain-awaits");
            assert!(told.status == 200 && lacking.starts_with("some may be missing here, or old: c/s/m "), "{lacking}");
            assert!(lacking.contains(why), "{lacking}");
        }
    };
    tree.wait_ready();
    says(&tree, "is new; its ");
    tree.start_node("c/s");
    wait_for("it knows whom it waits for", || {
        (tree.node(COMMUNITY).get("/v1/cases")?["awaits"]["nodes"] == json!([LEAF])).then_some(())
    });
    says(&tree, "is in place of a box that lost its disk; its ");
    let shown = tree.node(COMMUNITY).get("/v1/services/opera?of=c/s/m").expect("the service");
    assert_eq!((&shown["free"], &shown["awaits"]["nodes"]), (&Value::Null, &json!([LEAF])), "{shown}");
    // Who asks meanwhile is shown what the answer waits for.
    let (code, out, err) = cli(tree.node(COMMUNITY), &[&book[..], &["乙", "--wait", "1s"]].concat());
    let asked: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &asked["awaits"]["nodes"]), (3, &json!([LEAF])), "{out}{err}");
    tree.start_node(LEAF);
    wait_case(tree.node(COMMUNITY), "has answered", |c| c["id"] == asked["case"]["id"] && c["status"] == "rejected");
    wait_for("it counts its seats again", || {
        let shown = tree.node(COMMUNITY).get("/v1/services/opera?of=c/s/m")?;
        (shown["free"]["places"] == json!(0) && shown["awaits"].is_null()).then_some(())
    });
    let node = tree.node(COMMUNITY);
    // What a node below has still to give back may come a moment later.
    wait_for("nothing is awaited", || {
        let told = node.asker().ask("GET", "/open311/v2/requests.json", &[], "");
        let rates = node.get("/v1/rates")?;
        (rates["awaits"].is_null() && told.find("citybrain-awaits").is_none()).then_some(())
    });
    let one = "/open311/v2/requests.json?service_request_id=20200101-nothing";
    assert_eq!(node.asker().ask("GET", one, &[], "").status, 200);
    let (code, _, err) = cli(node, &["case", "show", "20200101-nothing"]);
    assert!(code == 1 && !err.contains("as far as is known"), "{err}");
}

#[test]
fn a_restored_box_shows_a_case_as_it_stood_then_and_offers_no_step_that_it_refuses() {
    let mut tree = Tree::with(&[COMMUNITY], &HashMap::new(), &format!("{CONFIG}{LEAK}"));
    tree.start();
    tree.wait_linked();
    let case = ["case", "new", "--category", "暴露垃圾", "--title", "垃圾", "--by", "前台", "--json"];
    let (_, out, err) = cli(tree.node(COMMUNITY), &case);
    let case = id(&serde_json::from_str::<Value>(&out).expect(&err)["case"]);
    super::say(tree.node(COMMUNITY), "leak", "city.leak", &json!({}));
    let alarm = wait_for("the leak is an alarm", || {
        let all = tree.node(COMMUNITY).get("/v1/alarms")?;
        all["alarms"].as_array()?.iter().find(|a| a["origin"] == COMMUNITY).map(id)
    });
    let (_, out, _) = cli(tree.node(COMMUNITY), &["alarm", "show", &alarm]);
    assert!(out.contains("leak of c/s/m") && !out.contains("may be old"), "{out}");
    tree.back_up(COMMUNITY);
    super::step(tree.node(COMMUNITY), &case, "accept", &json!({"by": "小李"}));
    wait_case(tree.node("c/s"), "has heard of it", |c| c["status"] == "accepted");
    tree.kill9("c/s");
    tree.kill9(COMMUNITY);
    tree.restore(COMMUNITY);
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    let path = format!("/v1/cases/{case}");
    let shown = tree.node(COMMUNITY).get(&path).expect("the case");
    assert_eq!(
        (&shown["unproven"], &shown["allowed"]),
        (&json!(true), &json!(["accept", "withdraw", "comment", "forget"])),
        "{shown}"
    );
    let (_, out, _) = cli(tree.node(COMMUNITY), &["case", "show", &case]);
    assert!(out.contains("c/s/m has lost some of what it knew") && out.contains("how it stood then"), "{out}");
    let lost = "c/s/m has lost some of what it knew; its alarms wait";
    let (_, out, _) = cli(tree.node(COMMUNITY), &["alarm", "show", &alarm]);
    assert!(out.contains(&format!("this may be old: {lost}")), "{out}");
    let (_, out, _) = cli(tree.node(COMMUNITY), &["alarm", "ack", &alarm, "--by", "王"]);
    assert!(out.contains(&format!("this may be old: {lost}")), "{out}");
    let (code, _, err) = cli(tree.node(COMMUNITY), &["alarm", "show", "nosuch"]);
    assert!(code == 1 && err.contains(&format!("known here, as far as is known: {lost}")), "{err}");
    let (_, out, _) = cli(tree.node(COMMUNITY), &["case", "list"]);
    assert!(out.contains("some may be missing here, or old: c/s/m has lost some"), "{out}");
    let (code, out, _) = cli(tree.node(COMMUNITY), &["case", "comment", &case, "--by", "王", "--text", "见"]);
    assert!(code == 3 && out.contains("it waits here with the case; its answer"), "{out}");
    tree.kill9(COMMUNITY);
    let data = tree.node(COMMUNITY).data.display().to_string();
    run(&["case", "show", &case, "--offline", &data]).says(0, &["how it stood then"]);
    tree.start_node(COMMUNITY);
    tree.start_node("c/s");
    wait_case(tree.node(COMMUNITY), "has the step again", |c| c["accepted_by"] == "小李");
    let shown = tree.node(COMMUNITY).get(&path).expect("the case");
    assert!(shown["unproven"].is_null() && shown["awaits"].is_null(), "{shown}");
}
