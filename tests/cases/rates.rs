//! Rates over three tiers, against numbers that were counted and divided by hand.

use super::{id, step, wait_case};
use crate::harness::ran::run;
use crate::harness::{Node, ONE_OF_EACH, Tree, wait_for};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::HashMap;

const CONFIG: &str = r#"
[[category]]
code = "litter"
name = "垃圾"
department = "环卫"
governance = "autonomy"
response = "1h"
[[category]]
code = "calm"
name = "不急"
department = "环卫"
governance = "autonomy"
response = "1h"
[[category]]
code = "hurry"
name = "急"
department = "环卫"
governance = "autonomy"
response = "1s"
"#;

const M: &str = "c/s/m";
const M2: &str = "c/s/m2";
const K: &str = "c/t/k";

/// Cases of another system that are over: so many of each, at a node, opened on a day.
struct Old {
    at: &'static str,
    n: usize,
    day: &'static str,
    /// Category, department, channel.
    what: [&'static str; 3],
    governance: Option<&'static str>,
    /// Solved, satisfied.
    said: Option<[&'static str; 2]>,
}

fn old(
    at: &'static str,
    n: usize,
    day: &'static str,
    what: [&'static str; 3],
    governance: Option<&'static str>,
    said: Option<[&'static str; 2]>,
) -> Old {
    Old { at, n, day, what, governance, said }
}

fn all_old() -> Vec<Old> {
    let (law, autonomy) = (Some("law"), Some("autonomy"));
    vec![
        old(M, 4, "2018-03-10", ["litter", "环卫", "12345"], autonomy, Some(["solved", "yes"])),
        old(M, 2, "2018-03-20", ["litter", "环卫", "app"], autonomy, Some(["partly", "mostly"])),
        old(M, 2, "2018-04-02", ["stall", "城管", "12345"], law, Some(["unsolved", "no"])),
        old(M2, 3, "2018-03-05", ["stall", "城管", "app"], law, Some(["solved", "mostly"])),
        old(M2, 3, "2018-04-09", ["stall", "城管", "app"], law, Some(["unsolved", "no"])),
        old(K, 5, "2018-04-11", ["lamp", "路灯所", "12345"], Some("virtue"), Some(["solved", "yes"])),
        old(K, 1, "2018-04-12", ["lamp", "路灯所", "app"], None, None),
    ]
}

fn bring(tree: &Tree) {
    let mut number = 0;
    for old in all_old() {
        let account = || {
            number += 1;
            let at = format!("{}T02:00:00Z", old.day);
            let mut account = json!({"source": "/old", "id": number.to_string(), "category": old.what[0],
                "department": old.what[1], "channel": old.what[2], "status": "closed", "opened": at, "updated": at,
                "closed": at});
            if let Some(governance) = old.governance {
                account["governance"] = governance.into();
            }
            if let Some([solved, satisfied]) = old.said {
                (account["solved"], account["satisfied"]) = (solved.into(), satisfied.into());
            }
            account
        };
        let cases: Vec<Value> = std::iter::repeat_with(account).take(old.n).collect();
        let (status, became) = tree.node(old.at).post("/v1/cases/import", &json!({"cases": cases}));
        assert_eq!((status, &became["opened"]), (200, &json!(old.n)), "{became}");
    }
}

/// A case that came by 12345 and was dispatched.
fn dispatched(node: &Node, category: &str) -> String {
    let new = json!({"category": category, "title": category, "by": "前台", "channel": "12345"});
    let (status, made) = node.post("/v1/cases", &new);
    assert_eq!(status, 201, "{made}");
    let case = id(&made["case"]);
    step(node, &case, "accept", &json!({"by": "甲"}));
    step(node, &case, "dispatch", &json!({"by": "甲", "unit": "环卫所"}));
    case
}

fn rates(node: &Node, query: &str) -> Value {
    node.get(&format!("/v1/rates?{query}")).expect("rates")
}

/// What a row counts: dispatched, excluded; with a response limit, kept, still in time; solved, partly, not;
/// satisfied, mostly, not; without an answer.
fn counts(row: &Value) -> [u64; 12] {
    [
        "dispatched",
        "excluded",
        "response_of",
        "response_kept",
        "response_open",
        "solved",
        "partly_solved",
        "unsolved",
        "satisfied",
        "mostly_satisfied",
        "dissatisfied",
        "unanswered",
    ]
    .map(|name| row[name].as_u64().unwrap_or_else(|| panic!("no {name}: {row}")))
}

/// Response, solution, satisfaction and score; below 0: there is none.
fn parts(row: &Value) -> [f64; 4] {
    ["response", "solution", "satisfaction", "score"].map(|name| row[name].as_f64().unwrap_or(-1.0))
}

/// The rows, in their order, are these and no other.
fn are(node: &Node, query: &str, wanted: &[(&str, [u64; 12], [f64; 4])]) {
    let told = rates(node, query);
    let rows = told["rows"].as_array().expect("rows");
    let all: Vec<(&str, [u64; 12], [f64; 4])> =
        rows.iter().map(|r| (r["key"].as_str().expect("a key"), counts(r), parts(r))).collect();
    assert_eq!(all, wanted, "{} {query}", node.address);
    // Whatever it is cut by, it is the same whole.
    let sum = all.iter().fold([0; 12], |sum, (_, counts, _)| std::array::from_fn(|i| sum[i] + counts[i]));
    assert_eq!(counts(&told["total"]), sum, "{} {query}", node.address);
}

/// A tree with districts, old cases at three communities, and four new ones at the first: two that were answered
/// in time, one that was not, and one that may still be.
fn a_city() -> (Tree, String) {
    let mut tree = Tree::with(&[M, M2, K], &HashMap::new(), CONFIG);
    for (node, labels) in [
        (K, "population = \"3000\""),
        ("c", "population = \"48000\""),
        ("c/s", "district = \"温江区\"\npopulation = \"20000\""),
        ("c/t", "district = \"武侯区\""),
    ] {
        tree.edit(node, |text| format!("{text}\n[node.labels]\n{labels}\n"));
    }
    tree.start();
    tree.wait_all_known();
    bring(&tree);
    let node = tree.node(M);
    let late = dispatched(node, "hurry");
    for category in ["litter", "calm"] {
        let case = dispatched(node, category);
        step(node, &case, "start", &json!({"by": "老赵"}));
    }
    dispatched(node, "litter");
    wait_case(node, "is answered by nobody in time", |c| c["id"] == late.as_str() && c["escalations"] == 1);
    step(node, &late, "start", &json!({"by": "老赵"}));
    for (at, n) in [("c/s", 18), ("c", 24)] {
        wait_for("all are known above, as they stand", || {
            let total = rates(tree.node(at), "by=all")["total"].clone();
            (total["dispatched"] == n && total["response_open"] == 1 && total["response_kept"] == 2).then_some(())
        });
        wait_case(tree.node(at), "it is begun too late", |c| c["id"] == late.as_str() && c["status"] == "handling");
    }
    (tree, late)
}

#[test]
fn each_rate_is_what_a_hand_counts_and_divides_at_every_tier_and_by_whatever_it_is_cut() {
    let (tree, late) = a_city();
    //          dispatched, excluded; response of, kept, open; solved; satisfied; unanswered
    let m = (M, [12, 0, 4, 2, 1, 4, 2, 2, 4, 2, 2, 4], [0.5, 0.625, 0.75, 65.0]);
    let m2 = (M2, [6, 0, 0, 0, 0, 3, 0, 3, 0, 3, 3, 0], [-1.0, 0.5, 0.5, 50.0]);
    let k = (K, [6, 0, 0, 0, 0, 5, 0, 0, 5, 0, 0, 1], [-1.0, 1.0, 1.0, 100.0]);
    let street = ([18, 0, 4, 2, 1, 7, 2, 5, 4, 5, 5, 4], [0.5, 0.571429, 0.642857, 58.57]);
    let city = ([24, 0, 4, 2, 1, 12, 2, 5, 9, 5, 5, 5], [0.5, 0.684211, 0.736842, 66.84]);
    are(tree.node(M), "by=node", &[m]);
    are(tree.node("c/s"), "by=node", &[m, m2]);
    are(tree.node("c"), "by=node", &[k, m, m2]);
    are(tree.node("c"), "by=node&under=c/s", &[m, m2]);
    are(tree.node("c"), "by=child", &[("c/t", k.1, k.2), ("c/s", street.0, street.1)]);
    are(tree.node("c/s"), "by=child", &[m, m2]);
    are(tree.node("c"), "by=all", &[("all", city.0, city.1)]);
    // By the `population` that each says of itself, or all its children do: 18 from 20,000, 6 from 3,000, 24 from
    // 48,000.
    let told = rates(tree.node("c"), "by=child");
    let of_people = |row: &Value| json!([row["key"], row["appeals"], row["people"], row["appeals_per_10000"]]);
    let rows: Vec<Value> = told["rows"].as_array().expect("rows").iter().map(of_people).collect();
    assert_eq!(rows, [json!(["c/t", 6, 3000, 20.0]), json!(["c/s", 18, 20_000, 9.0])]);
    assert_eq!(of_people(&told["total"]), json!(["all", 24, 48_000, 5.0]));
    // A child from which nobody has come is the best, and none of its people is left out of the whole.
    let told = rates(tree.node("c"), "by=child&category=stall");
    let rows: Vec<Value> = told["rows"].as_array().expect("rows").iter().map(of_people).collect();
    assert_eq!(rows, [json!(["c/s", 8, 20_000, 4.0]), json!(["c/t", 0, 3000, 0.0])]);
    let line = ["rates", "--by", "child", "--show", "appeals", "--category", "stall"];
    let told = run(&[&line[..], &["--node", &tree.node("c").url()]].concat());
    let ranks: Vec<Vec<&str>> = told.out.lines().map(|l| l.split_whitespace().take(3).collect()).collect();
    let at = |row: [&str; 3]| ranks.iter().position(|r| *r == row).unwrap_or_else(|| panic!("{row:?}: {}", told.out));
    assert!(at(["all", "1", "c/t"]) < at(["all", "2", "c/s"]), "{}", told.out);
    let month = "by=child&period=month&category=stall";
    let months: Vec<Value> =
        rates(tree.node("c"), month)["rows"].as_array().expect("rows").iter().map(of_people).collect();
    assert_eq!(months.iter().filter(|row| row[0] == "c/t").count(), months.len() / 2, "{months:?}");
    let empty = rates(tree.node("c"), "by=child&of=2017-03");
    assert_eq!(empty["rows"], json!([]), "nobody came to anybody then");
    let told = rates(tree.node("c/s"), "by=node");
    assert_eq!(of_people(&told["total"]), json!(["all", 18, 20_000, 9.0]), "its own people, and no node's");
    assert!(told["rows"].as_array().expect("rows").iter().all(|row| row["people"].is_null()));
    are(tree.node("c"), "by=district", &[("武侯区", k.1, k.2), ("温江区", street.0, street.1)]);
    // A district that only the street above has said.
    wait_for("its parent's district is known", || {
        (rates(tree.node(M), "by=district")["rows"][0]["key"] == "温江区").then_some(())
    });
    are(tree.node(M), "by=district", &[("温江区", m.1, m.2)]);
    // What is asked for by a slip is no answer of nothing.
    let city = tree.node("c");
    let slip = |more: &[&str], says: &[&str]| {
        let done = run(&[&["rates", "--node", &city.url()], more].concat());
        assert_ne!(done.code, 0, "{more:?}: {}", done.out);
        says.iter().for_each(|word| assert!(done.err.contains(word), "{more:?}: {}", done.err));
    };
    slip(&["--category", "liter"], &["`liter` is no category of this node", "did you mean `litter`?"]);
    slip(&["--under", "c/s/m3"], &["c knows no node `c/s/m3`", "did you mean `c/s/m"]);
    for line in [["case", "list", "--owner", "c/s/m3"], ["alarm", "list", "--address", "c/s/m3"]] {
        let done = run(&[&line[..], &["--node", &city.url()]].concat());
        done.says(2, &["c knows no node `c/s/m3`", "did you mean `c/s/m"]);
    }
    run(&["alarm", "list", "--address", "c/t", "--node", &city.url()]).says(0, &["no alarms that fit"]);
    run(&["rates", "--category", "litter", "--under", "c/t", "--node", &city.url()])
        .says(0, &["no case that fits was dispatched yet"]);
    for under in ["c/t", K] {
        let told = rates(city, &format!("by=child&under={under}"));
        assert_eq!(of_people(&told["rows"][0]), json!(["c/t", 6, 3000, 20.0]), "the row and the whole are the same");
        assert_eq!(of_people(&told["total"]), json!(["all", 6, 3000, 20.0]));
    }
    // A part is never told as the whole: neither of a node above the one that is asked, nor of a longer period.
    for (line, hint) in
        [("rates", "ask c/s itself"), ("case stats", "ask c/s itself"), ("supervision", "ask c/s itself")]
    {
        let line: Vec<&str> = line.split(' ').collect();
        let done = run(&[&line[..], &["--under", "c/s", "--node", &tree.node(M).url()]].concat());
        assert!(done.code != 0 && done.err.contains(hint), "{line:?}: {}{}", done.out, done.err);
    }
    for (of, period) in [("2018-03", "year"), ("2018-03-10", "year"), ("2018-03-10", "month")] {
        slip(&["--of", of, "--period", period], &[&format!("`{of}` is a part of such a period")]);
    }
    for (of, period) in [("2018", "month"), ("2018-03", "month"), ("2018-03", "day"), ("2018-03-10", "all")] {
        run(&["rates", "--of", of, "--period", period, "--node", &city.url()]).says(0, &["2018-03", "all"]);
    }
    are(
        tree.node("c"),
        "by=department",
        &[
            ("路灯所", k.1, k.2),
            ("环卫", [10, 0, 4, 2, 1, 4, 2, 0, 4, 2, 0, 4], [0.5, 0.833333, 1.0, 83.33]),
            ("城管", [8, 0, 0, 0, 0, 3, 0, 5, 0, 3, 5, 0], [-1.0, 0.375, 0.375, 37.5]),
        ],
    );
    are(
        tree.node("c"),
        "by=governance",
        &[
            ("virtue", [5, 0, 0, 0, 0, 5, 0, 0, 5, 0, 0, 0], [-1.0, 1.0, 1.0, 100.0]),
            ("autonomy", [10, 0, 4, 2, 1, 4, 2, 0, 4, 2, 0, 4], [0.5, 0.833333, 1.0, 83.33]),
            ("law", [8, 0, 0, 0, 0, 3, 0, 5, 0, 3, 5, 0], [-1.0, 0.375, 0.375, 37.5]),
            ("-", [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [-1.0, -1.0, -1.0, -1.0]),
        ],
    );
    are(
        tree.node("c"),
        "by=channel",
        &[
            ("12345", [15, 0, 4, 2, 1, 9, 0, 2, 9, 0, 2, 4], [0.5, 0.818182, 0.818182, 75.45]),
            ("app", [9, 0, 0, 0, 0, 3, 2, 3, 0, 5, 3, 1], [-1.0, 0.5, 0.625, 56.25]),
        ],
    );
    // A score of answers alone stands below those that residents have a part in.
    let litter = ("litter", [8, 0, 2, 1, 1, 4, 2, 0, 4, 2, 0, 2], [0.5, 0.833333, 1.0, 83.33]);
    are(
        tree.node("c"),
        "by=category",
        &[
            ("lamp", k.1, k.2),
            litter,
            ("stall", [8, 0, 0, 0, 0, 3, 0, 5, 0, 3, 5, 0], [-1.0, 0.375, 0.375, 37.5]),
            ("calm", [1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1], [1.0, -1.0, -1.0, 100.0]),
            ("hurry", [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0.0, -1.0, -1.0, 0.0]),
        ],
    );
    are(tree.node("c/s"), "by=category&category=垃圾", &[litter]);
    // By the month of the first dispatch.
    are(
        tree.node("c"),
        "by=node&of=2018-04",
        &[
            k,
            (M, [2, 0, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0], [-1.0, 0.0, 0.0, 0.0]),
            (M2, [3, 0, 0, 0, 0, 0, 0, 3, 0, 0, 3, 0], [-1.0, 0.0, 0.0, 0.0]),
        ],
    );
    are(
        tree.node("c"),
        "by=governance&of=2018-03",
        &[
            ("law", [3, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0], [-1.0, 1.0, 1.0, 100.0]),
            ("autonomy", [6, 0, 0, 0, 0, 4, 2, 0, 4, 2, 0, 0], [-1.0, 0.833333, 1.0, 91.67]),
        ],
    );
    let monthly = rates(tree.node("c"), "by=all&period=month");
    let months = monthly["rows"].as_array().expect("rows").iter();
    let months: Vec<(&str, u64)> =
        months.map(|r| (r["period"].as_str().expect("a month"), r["dispatched"].as_u64().expect("a count"))).collect();
    assert_eq!(months[..2], [("2018-03", 9), ("2018-04", 11)]);
    assert_eq!(months.iter().skip(2).map(|m| m.1).sum::<u64>(), 4, "and what came now: {months:?}");

    // 剔除: what is excluded is counted beside the rates, and in none of them; two unsolved ones move one node
    // past the other.
    let at_m2: Vec<Value> = super::cases(tree.node(M2));
    let unsolved = at_m2.iter().filter(|c| c["verdict"]["solved"] == "unsolved").map(id).take(2);
    let typed = |case: &str, at: &str| {
        let line = ["case", "exclude", case, "--by", "站长", "--reason", "台风", "--approved-by", "局长"];
        run(&[&line[..], &["--node", &tree.node(at).url()]].concat())
    };
    for case in unsolved {
        typed(&case, M2).says(0, &["approved by 局长: 台风"]);
        typed(&case, M2).says(1, &["it is excluded already"]);
    }
    let line = ["case", "exclude", &late, "--by", "站长", "--reason", "台风", "--approved-by", " 站长"];
    run(&[&line[..], &["--node", &tree.node("c").url()]].concat()).says(1, &["nobody approves what they ask for"]);
    typed(&late, "c").says(0, &["approved by 局长: 台风"]);
    let m = (M, [12, 1, 3, 2, 1, 4, 2, 2, 4, 2, 2, 3], [0.666667, 0.625, 0.75, 68.33]);
    let m2 = (M2, [6, 2, 0, 0, 0, 3, 0, 1, 0, 3, 1, 0], [-1.0, 0.75, 0.75, 75.0]);
    let street = ([18, 3, 3, 2, 1, 7, 2, 3, 4, 5, 3, 3], [0.666667, 0.666667, 0.75, 70.0]);
    for at in ["c/s", "c"] {
        wait_for("it knows what is excluded", || {
            (rates(tree.node(at), "by=all")["total"]["excluded"] == 3).then_some(())
        });
    }
    are(tree.node("c/s"), "by=node", &[m2, m]);
    are(tree.node("c"), "by=node", &[k, m2, m]);
    are(tree.node("c"), "by=child", &[("c/t", k.1, k.2), ("c/s", street.0, street.1)]);
    are(tree.node(M2), "by=node", &[m2]);
    let screen = run(&["rates", "--by", "node", "--node", &tree.node("c").url()]);
    screen.says(0, &["left out of what was dispatched: 3 excluded, 0 withdrawn, 0 rejected, 0 merged"]);
    let rows: Vec<String> =
        screen.out.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).take(3).collect();
    let wanted = [
        "all 1 c/t/k 6 0 - 100.0 % (5/5) 100.0 % (5/5) 100.0* 0 0 0",
        "all 2 c/s/m2 6 2 - 75.0 % (3/4) 75.0 % (3/4) 75.0* 0 0 0",
        "all 3 c/s/m 12 1 66.7 % (2/3) 62.5 % (4+2p/8) 75.0 % (6/8) 68.3 0 0 0",
    ];
    assert_eq!(rows, wanted, "{}", screen.out);
}

#[test]
fn a_category_is_counted_whole_by_the_name_that_it_has_now() {
    let mut tree = Tree::with(&[M], &HashMap::new(), CONFIG);
    tree.start();
    tree.wait_all_known();
    let nodes = [tree.node(M), tree.node("c")];
    let mut late = vec![dispatched(nodes[0], "hurry"), dispatched(nodes[0], "急")];
    dispatched(nodes[0], "calm");
    for node in nodes {
        let text = std::fs::read_to_string(&node.config).expect("the config reads");
        std::fs::write(&node.config, text.replace("\"急\"", "\"加急\"")).expect("it is written");
        run(&["config", "reload", "--yes", "--node", &node.url()]).says(0, &["changed  category hurry"]);
    }
    late.push(dispatched(nodes[0], "加急"));
    for node in nodes {
        let told = |path: &str| node.get(path);
        wait_for("all three are known, and overdue", || {
            (told("/v1/supervision?category=hurry")?["overdue_in_all"] == 3).then_some(())
        });
        for name in ["hurry", "加急"] {
            let all = |path: &str| told(&format!("/v1/{path}category={name}")).expect("an answer");
            assert_eq!(all("rates?by=all&")["total"]["dispatched"], 3, "{name} at {}", node.address);
            assert_eq!(all("case-stats?")["total"]["cases"], 3, "{name} at {}", node.address);
            assert_eq!(all("supervision?")["overdue_in_all"], 3, "{name} at {}", node.address);
            assert_eq!(all("cases?")["fit"], 3, "{name} at {}", node.address);
        }
    }
}

#[test]
fn what_was_handed_to_a_node_beside_is_not_told_as_all_that_it_has() {
    let mut tree = Tree::with(&[M, K], &HashMap::new(), CONFIG);
    tree.start();
    tree.wait_all_known();
    let (status, made) = tree.node(M).post("/v1/cases", &json!({"category": "calm", "title": "t", "by": "前台"}));
    assert_eq!(status, 201, "{made}");
    let case = id(&made["case"]);
    step(tree.node(M), &case, "accept", &json!({"by": "甲"}));
    step(tree.node(M), &case, "dispatch", &json!({"by": "甲", "to": "c/t"}));
    let street = tree.node("c/s");
    wait_case(street, "hears who has it", |c| c["id"] == case.as_str() && c["owner"] == "c/t");
    for line in [&["rates"][..], &["case", "stats"], &["supervision"]] {
        let done = run(&[line, &["--under", "c/t", "--node", &street.url()]].concat());
        done.says(2, &["c/s knows no more than a part of `c/t`", "ask c/t itself, or c"]);
    }
    run(&["case", "list", "--owner", "c/t", "--node", &street.url()]).says(0, &["1 of 1 that fit"]);
}

#[test]
fn a_stopped_nodes_folder_knows_its_services_scenes_categories_and_how_it_rates() {
    // At 02:00 in UTC it is the day before there.
    let of_its_own = "\n[calendar]\nutc_offset = \"-09:00\"\n\n[cases]\nweight_response = 0.1\nweight_solution = 0.9\n\
        weight_satisfaction = 0.0\npartly_solved = 0.25\nmostly_is_satisfied = false\n\n[node.labels]\n\
        district = \"武侯区\"\npopulation = \"3000\"\n";
    let mut tree = Tree::new(&["c"]);
    tree.edit("c", |text| format!("{ONE_OF_EACH}\n{text}{of_its_own}"));
    tree.start();
    let account = |id: &str, solved: &str| {
        json!({"source": "/old", "id": id, "category": "litter", "status": "closed", "solved": solved,
            "satisfied": "mostly", "opened": "2018-03-01T02:00:00Z", "updated": "2018-03-09T02:00:00Z",
            "closed": "2018-03-09T02:00:00Z"})
    };
    let cases = json!({"cases": [account("1", "solved"), account("2", "partly"), account("3", "unsolved")]});
    assert_eq!(tree.node("c").post("/v1/cases/import", &cases).0, 200);
    let asked = [
        "service list",
        "service show sports-day",
        "service show haircut",
        "scene list",
        "case list",
        "rates --by district --period day",
        "rates --by category --period month",
        "case stats --by category",
    ];
    let told = |from: &[&str]| {
        asked.map(|line| {
            let line: Vec<&str> = line.split(' ').chain(from.iter().copied()).chain(["--json"]).collect();
            let done = run(&line);
            assert_eq!(done.code, 0, "{line:?}: {}", done.err);
            let mut told: Value = serde_json::from_str(&done.out).expect("JSON");
            // Of when it is, and what is still free from then on.
            let fields = told.as_object_mut().expect("an object");
            fields.retain(|key, _| !["as_of", "at", "offline", "free"].contains(&key.as_str()));
            told
        })
    };
    let running = told(&["--node", &tree.node("c").url()]);
    let rates = &running[5];
    assert_eq!((&rates["rows"][0]["period"], &rates["rows"][0]["key"]), (&json!("2018-02-28"), &json!("武侯区")));
    assert_eq!(rates["total"]["solution"], 0.416667, "(1 + 0.25) / 3");
    let folder = tree.node("c").data.display().to_string();
    tree.kill9("c");
    for (line, (running, stopped)) in asked.iter().zip(running.into_iter().zip(told(&["--offline", &folder]))) {
        assert_eq!(stopped, running, "{line}");
    }
    // What the store knows by then, and not only the log.
    tree.start_node("c");
    tree.wait_ready();
    let running = told(&["--node", &tree.node("c").url()]);
    tree.stop_node("c");
    assert_eq!(told(&["--offline", &folder]), running);
}

#[test]
fn lists_and_counts_say_which_children_are_away_and_since_when() {
    let mut tree = Tree::new(&["c/s/m", "c/t"]);
    tree.start();
    tree.wait_all_known();
    let asked = [
        "/v1/cases",
        "/v1/rates",
        "/v1/case-stats",
        "/v1/supervision",
        "/v1/rates?under=c/s/m",
        "/v1/case-stats?under=c/s",
        "/v1/cases?owner=c/s/m",
        "/v1/cases?mine=true",
    ];
    let away = |tree: &Tree, path: &str| {
        let all = tree.node("c").get(path).expect("it answers")["away"].clone();
        let names: Option<Vec<String>> =
            all.as_array().map(|all| all.iter().map(|a| a["node"].as_str().expect("a node").to_owned()).collect());
        names.unwrap_or_default()
    };
    let are_away = |tree: &Tree, wanted: &[&str]| {
        for path in asked {
            wait_for(&format!("{path}: {wanted:?} are away"), || (away(tree, path) == wanted).then_some(()));
        }
    };
    are_away(&tree, &[]);
    tree.kill9("c/s");
    are_away(&tree, &["c/s"]);
    let others = ["/v1/rates?under=c/t", "/v1/case-stats?under=c/t", "/v1/supervision?under=c/t"];
    for path in others.iter().chain(&["/v1/cases?owner=c/t"]) {
        assert_eq!(away(&tree, path), [""; 0], "{path}");
    }
    let url = tree.node("c").url();
    let typed = |line: &[&str]| run(&[line, &["--node", &url]].concat());
    let since = |text: &str| text.contains("without what c/s has done since ") && text.contains(": it is away");
    let lines = [
        &["rates"][..],
        &["rates", "--show", "closing"],
        &["case", "stats"],
        &["supervision"],
        &["case", "list"],
        &["case", "list", "--summoned"],
        &["case", "list", "--mine"],
    ];
    for line in lines {
        let done = typed(line);
        assert!(done.code == 0 && since(&done.out), "{line:?}: {}", done.out);
    }
    let export = &["case", "export"][..];
    for line in [export, &["case", "export", "--json"]] {
        let done = typed(line);
        assert!(done.code == 0 && since(&done.err) && !since(&done.out), "{line:?}: {}", done.err);
    }
    let ago = || {
        let at = tree.node("c").get("/v1/rates")?["away"][0]["last_heard"].as_str()?.parse::<DateTime<Utc>>().ok()?;
        Some((Utc::now() - at).num_seconds())
    };
    let ago = ago().expect("since when");
    assert!((0..60).contains(&ago), "it was heard a moment ago: {ago} s");
    tree.start_node("c/s");
    are_away(&tree, &[]);
    let folder = tree.node("c").data.display().to_string();
    tree.stop_node("c");
    for line in lines {
        let done = run(&[line, &["--offline", &folder]].concat());
        let says = done.out.contains("what nodes below had not told by then is not in it\nc, offline, from its folder");
        assert!(done.code == 0 && says, "{line:?}: {}", done.out);
    }
    let done = run(&[export, &["--offline", &folder]].concat());
    assert!(done.code == 0 && done.err.contains("what nodes below had not told by then is not in it"), "{}", done.err);
}
