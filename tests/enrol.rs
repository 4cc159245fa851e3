//! `link.enrol = "manual"`: a box waits until an operator says that it may come in.

use crate::harness::mqtt::publish_all;
use crate::harness::ran::{acts, run};
use crate::harness::{Tree, wait_for};
use serde_json::Value;

const COMMUNITY: &str = "c/s/m";

/// A city, a street that wants to be asked, and a community below it that has not started.
fn a_tree_with_a_manual_street() -> Tree {
    let mut tree = Tree::new(&[COMMUNITY]);
    tree.edit("c/s", |text| format!("{text}[link]\nenrol = \"manual\"\n"));
    tree.start_node("c");
    tree.start_node("c/s");
    tree.wait_ready();
    tree.wait_linked();
    tree
}

/// Who waits at the street, once there is somebody with this word of an operator on him.
fn waiting(tree: &Tree, is_refused: bool) -> Value {
    wait_for("one waits", || {
        let list = tree.node("c/s").get("/v1/enrolments")?;
        let one = list["waiting"].as_array()?.first()?.clone();
        (one["is_refused"] == is_refused).then_some(one)
    })
}

#[test]
fn a_box_that_comes_for_the_first_time_is_let_in_by_an_operator_alone_and_a_copy_of_its_address_is_not() {
    let mut tree = a_tree_with_a_manual_street();
    let (city, street) = (tree.node("c").url(), tree.node("c/s").url());
    run(&["enrol", "list", "--node", &street]).says(0, &["nobody waits"]);
    run(&["enrol", "list", "--node", &city]).says(0, &["nobody waits", "link.enrol is \"auto\" here"]);
    run(&["enrol", "approve", COMMUNITY, "--yes", "--node", &street]).says(1, &["c/s/m is not waiting"]);
    run(&["enrol", "approve", "--all", "--yes", "--node", &street]).says(1, &["nobody waits"]);

    tree.start_node(COMMUNITY);
    tree.wait_ready();
    let first = waiting(&tree, false);
    assert!(first.get("before").is_none(), "{first}");
    let mut sent = publish_all(COMMUNITY, tree.node(COMMUNITY).mqtt, "early", 20, false);
    run(&["enrol", "list", "--at", "c/s", "--node", &city]).says(0, &["c/s/m", "节点 c_s_m", "first time", "none yet"]);
    // Said on both sides.
    let words = ["refused-unenrolled", "comes for the first time", "citybrain enrol approve"];
    wait_for("the street says why", || (run(&["why", COMMUNITY, "--node", &city]).code == 1).then_some(()));
    run(&["why", COMMUNITY, "--node", &city]).says(1, &words);
    run(&["why", "--node", &tree.node(COMMUNITY).url()]).says(1, &words);

    // Nothing without a word; then no, and yes.
    run(&["enrol", "approve", COMMUNITY, "--node", &street]).says(2, &["may come in", "--yes"]);
    run(&["enrol", "refuse", COMMUNITY, "--yes", "--node", &street]).says(0, &["stays outside"]);
    waiting(&tree, true);
    run(&["enrol", "list", "--node", &street]).says(0, &["refused"]);
    // A word survives a restart.
    tree.stop_node("c/s");
    tree.start_node("c/s");
    tree.wait_ready();
    waiting(&tree, true);
    let done = run(&["enrol", "approve", COMMUNITY, "--yes", "--json", "--at", "c/s", "--node", &city]).json();
    assert_eq!((&done["schema"], &done["node"]), (&"citybrain.enrolled/1".into(), &"c/s".into()));
    assert_eq!(done["children"][0]["incarnation"], first["incarnation"]);
    tree.wait_linked();
    sent.extend(publish_all(COMMUNITY, tree.node(COMMUNITY).mqtt, "late", 20, false));
    tree.wait_all_up(&sent);
    run(&["enrol", "list", "--node", &street]).says(0, &["nobody waits"]);
    let all: Vec<String> = acts(&street).into_iter().map(|(what, ..)| what).collect();
    assert_eq!(all, ["enrol refuse", "enrol approve"]);

    // It may come and go; another box under its address has to be let in again.
    tree.stop_node(COMMUNITY);
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    tree.wait_linked();
    tree.stop_node(COMMUNITY);
    tree.lose_disk(COMMUNITY);
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    let second = waiting(&tree, false);
    assert_eq!(second["before"], first["incarnation"]);
    assert_ne!(second["incarnation"], first["incarnation"]);
    run(&["why", COMMUNITY, "--node", &city]).says(1, &["refused-unenrolled", "new under a known address"]);
    run(&["enrol", "approve", "--all", "--yes", "--node", &street]).says(0, &["c/s/m", "is let in"]);
    tree.wait_linked();
}

#[test]
fn only_children_can_be_let_in_and_one_that_is_not_there_by_its_whole_incarnation() {
    let tree = a_tree_with_a_manual_street();
    let street = tree.node("c/s").url();
    let inc = "00000000000000000000000000000007";
    let refused = |child: &str, inc: &str| {
        let word = serde_json::json!({"admit": true, "children": [{"address": child, "incarnation": inc}]});
        let (status, answer) = tree.node("c/s").post("/v1/enrolments", &word);
        (status, answer["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(refused("c/x/m", inc), (400, "not-a-child".into()));
    assert_eq!(refused("c/s/m", "x"), (400, "bad-incarnation".into()));
    run(&["enrol", "approve", COMMUNITY, "--incarnation", "x", "--yes", "--node", &street])
        .says(2, &["32 hexadecimal"]);
    run(&["enrol", "approve", COMMUNITY, "--incarnation", inc, "--yes", "--node", &street]).says(0, &["is let in"]);
}

#[test]
fn a_child_that_is_gone_for_good_is_taken_out_of_the_tree_and_may_come_back() {
    let mut tree = Tree::new(&[COMMUNITY, "c/s/k"]);
    tree.start();
    let (city, street) = (tree.node("c").url(), tree.node("c/s").url());
    let retire = |child: &str, more: &[&str]| {
        run(&[&["enrol", "retire", child, "--yes", "--at", "c/s", "--node", &city], more].concat())
    };
    retire(COMMUNITY, &[]).says(1, &["c/s/m is connected", "stop it first"]);
    run(&["enrol", "retire", COMMUNITY, "--yes", "--node", &city]).says(1, &["no child of c", "`--at c/s`"]);
    retire("c/s/none", &[]).says(1, &["is not in the tree of c/s"]);

    // A notice waits for it, and an open case is its own.
    let mut sent = publish_all(COMMUNITY, tree.node(COMMUNITY).mqtt, "early", 20, false);
    let opened =
        run(&["case", "new", "--title", "灯不亮", "--by", "li", "--json", "--node", &tree.node(COMMUNITY).url()])
            .json();
    let case = opened["case"]["id"].as_str().expect("an id").to_owned();
    wait_for("the street knows of the case", || {
        (run(&["case", "show", &case, "--node", &street]).code == 0).then_some(())
    });
    tree.stop_node(COMMUNITY);
    let notice =
        run(&["send", "--target", "c/s/**", "--type", "city.notice", "--json", "--yes", "--node", &city]).json();
    let notice = format!("/v1/directives/{}", notice["id"].as_str().expect("an id"));
    let counts = |tree: &Tree, node: &str| {
        let d = tree.node(node).get(&notice)?;
        Some((d["expected"].as_u64()?, d["delivered"].as_u64()?))
    };
    let nodes = |tree: &Tree, node: &str| Some(tree.node(node).get("/v1/tree")?["nodes"].as_array()?.len());
    wait_for("two have it", || (counts(&tree, "c") == Some((3, 2))).then_some(()));
    retire(COMMUNITY, &[]).says(1, &["the owners of 1 open case,", "--even-with-cases"]);
    // One that is given to it meanwhile would wait for nobody.
    let given = run(&["case", "new", "--title", "井盖", "--by", "li", "--json", "--node", &street]).json();
    let given = given["case"]["id"].as_str().expect("an id").to_owned();
    run(&["case", "accept", &given, "--by", "li", "--node", &street]).says(0, &[]);
    run(&["case", "dispatch", &given, "--to", COMMUNITY, "--by", "li", "--node", &street]).says(0, &[]);
    retire(COMMUNITY, &[]).says(1, &["the owners of 2 open cases,", "--even-with-cases"]);
    retire(COMMUNITY, &["--even-with-cases"]).says(0, &["c/s/m is out of the tree", "2 open cases"]);
    for node in ["c/s", "c"] {
        wait_for("it is in no tree", || (nodes(&tree, node)? == if node == "c" { 3 } else { 2 }).then_some(()));
        wait_for("nobody waits for it", || (counts(&tree, node) == Some((2, 2))).then_some(()));
    }
    retire(COMMUNITY, &[]).says(1, &["is not in the tree"]);
    run(&["why", COMMUNITY, "--node", &city]).says(1, &["retired", "c/s/m was taken out of the tree", "it is back"]);
    run(&["links", "--node", &street]).says(0, &["/k "]);
    assert!(!run(&["links", "--node", &street]).out.contains("/m "));
    // A restart remembers.
    tree.stop_node("c/s");
    tree.start_node("c/s");
    wait_for("it is in no tree after a start either", || (nodes(&tree, "c/s")? == 2).then_some(()));

    // It was only switched off: it is in the tree again, has what was sent, and nothing of its own is lost.
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    tree.wait_linked();
    wait_for("the city has it again", || (nodes(&tree, "c")? == 4).then_some(()));
    wait_for("it has the notice", || (counts(&tree, "c") == Some((3, 3))).then_some(()));
    sent.extend(publish_all(COMMUNITY, tree.node(COMMUNITY).mqtt, "late", 20, false));
    tree.wait_all_up(&sent);
    let told: Vec<String> = acts(&street).into_iter().map(|(what, ..)| what).collect();
    assert_eq!(told, ["enrol retire"]);
}
