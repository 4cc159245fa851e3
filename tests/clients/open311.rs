//! Clients of Open311 that we did not write, Python's `georeport` and `civicbot`, at a real node. Neither sends
//! an `api_key` with what it reads.

use super::foreign::script;
use super::is_there;
use crate::harness::Tree;
use crate::harness::ran::{Ran, token};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::Command;

const CONFIG: &str = r#"
[[category]]
code = "litter"
name = "暴露垃圾 & more"
description = "Bags and <things>"
keywords = ["垃圾", "litter"]
department = "环卫"
form = [
    { name = "amount", label = "多少", required = true, choices = ["一袋", "一车"] },
    { name = "kinds", choices = ["a", "b"], multiple = true },
]
[[category]]
code = "lamp"
name = "路灯"
"#;
const GEOREPORT: &str = "0.3.1";
const CIVICBOT: &str = "0.4.0";

/// Is the package there, in that version?
fn has(package: &str, version: &str) -> bool {
    let without = std::env::var("CITYBRAIN_WITHOUT").unwrap_or_default();
    if without.split(' ').any(|name| name == package) {
        crate::harness::impossible(&format!("{package} could not be installed"));
        return false;
    }
    let asked = format!("from importlib.metadata import version as v; assert v('{package}') == '{version}'");
    is_there("python3", &["-c", &asked], &format!("pip install {package}=={version}"))
}

fn tree(with_tokens: bool, open311: &str) -> Tree {
    let tree = Tree::with(&["c"], &HashMap::new(), &format!("[open311]\n{open311}\n{CONFIG}"));
    if with_tokens {
        tree.edit("c", |text| text.replace("[api]", "[api]\ntokens_file = \"tokens\""));
    }
    tree
}

fn endpoint(tree: &Tree) -> String {
    format!("{}/open311/v2", tree.node("c").url())
}

fn client(args: &[&str]) -> Value {
    let mut command = Command::new("python3");
    command.arg(script("open311.py")).args(args).env("NO_PROXY", "*").env_remove("GEOREPORT_API_KEY");
    let ran = Ran::from(command.output().expect("python3 starts"));
    assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
    ran.json()
}

#[test]
fn georeport_reads_services_definitions_and_requests_in_json_and_in_xml() {
    if !has("georeport", GEOREPORT) {
        return;
    }
    let mut tree = tree(false, "");
    tree.start();
    let case = |title: &str| {
        let new = json!({"category": "litter", "title": title, "form": {"amount": "一袋"}, "by": "x",
            "place": {"text": "3 号门 <b>", "lat": 30.698, "lon": 103.8368}});
        let (status, answer) = tree.node("c").post("/v1/cases", &new);
        assert_eq!(status, 201, "{answer}");
        answer["case"]["id"].as_str().expect("an id").to_owned()
    };
    // Of one service or request alone XML has no list, as its reader has it: two of each.
    let ids = [case("one & two"), case("three")];
    for format in ["json", "xml"] {
        let found = client(&["georeport", &endpoint(&tree), format, "litter", &ids[0]]);
        let [litter, lamp] = &found["services"].as_array().expect("a list")[..] else { panic!("{found}") };
        assert_eq!((&litter["service_code"], &lamp["service_code"]), (&json!("litter"), &json!("lamp")), "{found}");
        assert_eq!(litter["service_name"], "暴露垃圾 & more");
        assert_eq!((&litter["description"], &litter["keywords"]), (&json!("Bags and <things>"), &json!("垃圾,litter")));
        let attributes = &found["definition"]["attributes"];
        let first = if format == "json" { &attributes[0] } else { &attributes["attribute"][0] };
        assert_eq!((&first["code"], &first["datatype"]), (&json!("amount"), &json!("singlevaluelist")), "{found}");
        let request = &found["request"];
        assert_eq!((&request["service_request_id"], &request["status"]), (&json!(ids[0]), &json!("open")), "{found}");
        assert_eq!((&request["description"], &request["address"]), (&json!("one & two"), &json!("3 号门 <b>")));
        let listed: Vec<&Value> =
            found["requests"].as_array().expect("a list").iter().map(|r| &r["service_request_id"]).collect();
        assert_eq!(listed.len(), 2, "{found}");
        assert!(ids.iter().all(|id| listed.contains(&&json!(id))), "{found}");
    }
}

#[test]
fn where_there_are_tokens_clients_read_without_a_key_only_if_open311_is_public() {
    if !has("georeport", GEOREPORT) {
        return;
    }
    for (open311, wanted) in [("", Some(403)), ("public = true", None)] {
        let mut tree = tree(true, open311);
        let key = token(&tree, "app", "app");
        tree.start();
        let form =
            format!("api_key={key}&service_code=litter&lat=30.698&long=103.8368&attribute[amount]=%E4%B8%80%E8%A2%8B");
        let path = "/open311/v2/requests.json";
        let filed = tree.node("c").asker().post_as(path, "application/x-www-form-urlencoded", form).json();
        let id = filed[0]["service_request_id"].as_str().expect("an id");
        let found = client(&["georeport", &endpoint(&tree), "json", "litter", id]);
        assert_eq!(found["services"].as_array().map(Vec::len), Some(2), "services are for everybody: {found}");
        match wanted {
            Some(status) => assert_eq!((&found["requests"], &found["request"]), (&json!(status), &json!(status))),
            None => assert_eq!(found["request"]["service_request_id"], id, "{found}"),
        }
    }
}

#[test]
fn civicbot_checks_a_request_against_the_definition_files_it_with_its_key_and_reads_it_again() {
    if !has("civicbot", CIVICBOT) {
        return;
    }
    let mut tree = tree(true, "public = true");
    let key = token(&tree, "app", "app");
    tree.start();
    let found = client(&["civicbot", &endpoint(&tree), "litter", &key]);
    assert_eq!(found["services"].as_array().map(Vec::len), Some(2), "{found}");
    assert!(found["lacking"][0].as_str().is_some_and(|w| w.contains("'amount'")), "it read what is asked: {found}");
    let id = &found["filed"][0]["service_request_id"];
    assert_eq!((&found["request"]["service_request_id"], &found["request"]["status"]), (id, &json!("open")), "{found}");
    assert_eq!((&found["token"][0]["service_request_id"], &found["without_key"]), (id, &json!(403)), "{found}");
    assert_eq!(found["requests"].as_array().map(Vec::len), Some(1), "what was refused is not there: {found}");
}
