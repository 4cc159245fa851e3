//! A box of which a backup is put back has again what it did since, and gives no seat twice.

use super::{COMMUNITY, CONFIG, LEAF, cli, id, wait_case};
use crate::harness::ran::run;
use crate::harness::{OPERA, Tree};
use serde_json::Value;
use std::collections::HashMap;

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
    let backup = tree.dir().join("backup");
    let (data, backup) = (tree.node(COMMUNITY).data.display().to_string(), backup.display().to_string());
    run(&["store", "snapshot", &data, &backup]).says(0, &[]);
    at(&tree, COMMUNITY, &["case", "accept", &before, "--by", "小李"], 0);
    let after = id(&at(&tree, COMMUNITY, &new, 0)["case"]);
    let book = ["service", "request", "opera", "--of", COMMUNITY, "--by", "甲", "--form", "health=好", "--json"];
    let booked = id(&at(&tree, COMMUNITY, &book, 0)["case"]);
    wait_case(tree.node("c"), "has heard of all", |c| c["id"] == booked && c["booking"]["state"] == "booked");
    wait_case(tree.node("c"), "has heard of all", |c| c["id"] == before && c["status"] == "accepted");
    tree.kill9(COMMUNITY);
    run(&["store", "restore", &backup, &data, "--yes"]).says(0, &[]);
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
