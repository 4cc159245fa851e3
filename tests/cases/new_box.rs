//! A new box whose parent has not been heard: what it does not know yet is said to be so, and made good.

use super::{COMMUNITY, LEAF, cli, history, id, wait_case};
use crate::harness::{Node, Tree, wait_for};
use serde_json::{Value, json};

/// One that has a category of its own.
const OTHER: &str = "c/s/m/o";

const OF_THE_CITY: &str = r#"
[[category]]
code = "lamp"
name = "路灯"
department = "市政"
response = "1h"
[[category]]
code = "sos"
name = "一键求助"
kind = "incident"
response = "5m"
"#;
const OF_ITS_OWN: &str = "[[category]]\ncode = \"own\"\nname = \"自有\"\n";

fn open311(node: &Node, path: &str) -> (u16, Option<String>) {
    let told = node.asker().ask("GET", &format!("/open311/v2/{path}"), &[], "");
    (told.status, told.find("citybrain-awaits").map(str::to_owned))
}

fn says(node: &Node, line: &[&str], code: i32, words: &[&str]) -> String {
    let (was, out, err) = cli(node, line);
    let said = format!("{out}{err}");
    assert!(was == code && words.iter().all(|word| said.contains(word)), "{line:?}: {was}: {said}");
    out
}

#[test]
fn what_a_new_box_opens_before_it_has_heard_its_parent_becomes_what_it_would_have_been() {
    let mut tree = Tree::new(&[LEAF, OTHER]);
    tree.edit("c", |text| format!("{OF_THE_CITY}{text}"));
    tree.edit(OTHER, |text| format!("{OF_ITS_OWN}{text}"));
    tree.start();
    tree.wait_linked();
    tree.kill9(COMMUNITY);
    for gone in [LEAF, OTHER] {
        tree.kill9(gone);
        tree.lose_disk(gone);
        tree.start_node(gone);
    }
    tree.wait_ready();
    let [leaf, other] = [LEAF, OTHER].map(|at| tree.node(at));
    let waits = "is new; its categories from above wait until the parent has said what it knows of them";
    for node in [leaf, other] {
        let (status, lacking) = open311(node, "services.json");
        assert!(status == 200 && lacking.as_ref().is_some_and(|text| text.contains(waits)), "{lacking:?}");
        assert_eq!(open311(node, "services/lamp.json"), (503, None), "a client that is told 404 forgets it");
        says(node, &["case", "list", "--category", "lamp"], 0, &["some may be missing here"]);
    }
    let new = ["case", "new", "--title", "三号灯不亮", "--by", "前台", "--json", "--category"];
    says(other, &[&new[..], &["lamp"]].concat(), 1, &["`lamp` is no category of this node, as far as is known", waits]);
    let opened = |category: &str| -> Value {
        serde_json::from_str(&says(leaf, &[&new[..], &[category]].concat(), 0, &[])).expect("JSON")
    };
    let [lamp, by_name] = ["lamp", "路灯"].map(|category| id(&opened(category)["case"]));
    let press: Value =
        serde_json::from_str(&says(leaf, &["sos", "p栋", "--by", "前台", "--json"], 0, &[])).expect("JSON");
    let press = id(&press["case"]);
    // What is known there is told as anywhere: Open311 knows no calls for help.
    assert_eq!(open311(leaf, &format!("requests/{press}.json")), (404, None));
    assert_eq!(open311(leaf, &format!("requests.json?service_request_id={press}")).0, 200);
    says(leaf, &["case", "show", &by_name], 0, &["`路灯` is not known here yet: the parent is still to be heard"]);

    tree.start_node(COMMUNITY);
    for (case, name, limit) in [(&lamp, "路灯", "1h"), (&by_name, "路灯", "1h"), (&press, "一键求助", "5m")] {
        for at in [LEAF, COMMUNITY, "c"] {
            let known =
                wait_case(tree.node(at), "is known", |c| c["id"] == case.as_str() && c["category_name"] == name);
            let due = known["clocks"].as_array().and_then(|all| all.iter().find(|clock| clock["name"] == "response"));
            let due = due.unwrap_or_else(|| panic!("it is due: {known}"));
            assert_eq!((&due["limit"], &due["started"]), (&json!(limit), &known["opened"]), "{known}");
            assert!(known["category_awaited"].is_null(), "{known}");
        }
        assert_eq!(history(tree.node(LEAF), case), ["submitted", "categorised"]);
    }
    let stats = tree.node("c").get("/v1/case-stats?by=category").expect("stats");
    let rows = stats["rows"].as_array().expect("rows").iter().map(|row| row["key"].as_str().unwrap_or_default());
    assert_eq!(rows.collect::<Vec<_>>(), ["lamp", "sos"], "{stats}");
    for at in [LEAF, OTHER] {
        let told = || (open311(tree.node(at), "services.json") == (200, None)).then_some(());
        wait_for("nothing is awaited", told);
    }
    assert_eq!(open311(tree.node(LEAF), "services/nope.json"), (404, None));
    says(tree.node(OTHER), &[&new[..], &["lamp"]].concat(), 0, &[]);
    says(tree.node(OTHER), &[&new[..], &["nope"]].concat(), 1, &["`nope` is no category of this node"]);
}
