//! What whoever supervises looks at: what is overdue, what came back, where and by whom the same is reported
//! again and again.

use super::{COMMUNITY, id, say, step, wait_case};
use crate::harness::ran::run;
use crate::harness::{Node, Tree, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;

const CONFIG: &str = r#"
[[category]]
code = "SLOW"
name = "慢"
department = "市容"
response = "30d"
solution = "30d"
[[category]]
code = "QUICK"
name = "急修"
response = "1s"
[cases]
sos_climb_s = 600
"#;

fn tree() -> Tree {
    let mut tree = Tree::with(&[COMMUNITY], &HashMap::new(), CONFIG);
    tree.start();
    tree
}

fn open(node: &Node, more: &Value) -> String {
    let mut new = json!({"category": "SLOW", "title": "t", "by": "前台"});
    for (name, value) in more.as_object().expect("an object") {
        new[name] = value.clone();
    }
    let (status, made) = node.post("/v1/cases", &new);
    assert_eq!(status, 201, "{made}");
    id(&made["case"])
}

/// From acceptance to its close.
fn close(node: &Node, case: &str) {
    for (verb, ask) in [
        ("accept", json!({"by": "甲"})),
        ("dispatch", json!({"by": "甲", "unit": "环卫所"})),
        ("start", json!({"by": "老赵"})),
        ("resolve", json!({"by": "老赵", "text": "好了"})),
        ("evaluate", json!({"by": "r", "role": "resident", "solved": "solved"})),
        ("close", json!({"by": "站长", "role": "supervisor"})),
    ] {
        step(node, case, verb, &ask);
    }
}

fn ids(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(id).collect()
}

fn listed(node: &Node, query: &str) -> Vec<String> {
    ids(&node.get(&format!("/v1/cases?{query}")).expect("cases")["cases"])
}

fn watched(node: &Node, query: &str) -> Value {
    node.get(&format!("/v1/supervision?{query}")).expect("supervision")
}

#[test]
fn what_is_suspended_or_escalated_is_listed_at_every_tier() {
    let tree = tree();
    let owner = tree.node(COMMUNITY);
    let [waits, watched_one, plain] = [(); 3].map(|()| open(owner, &json!({})));
    for case in [&waits, &watched_one, &plain] {
        step(owner, case, "accept", &json!({"by": "甲"}));
    }
    step(owner, &waits, "dispatch", &json!({"by": "甲", "unit": "环卫所"}));
    step(owner, &waits, "suspend", &json!({"by": "甲", "text": "等配件", "approved_by": "站长"}));
    step(owner, &watched_one, "escalate", &json!({"by": "甲", "text": "急"}));
    for node in [owner, tree.node("c")] {
        let at = &node.address;
        wait_for("it knows both", || (listed(node, "suspended=true") == [&*waits]).then_some(()));
        wait_for("it knows both", || (listed(node, "escalated=true") == [&*watched_one]).then_some(()));
        let told = watched(node, "");
        assert_eq!((ids(&told["suspended"]), &told["suspended_in_all"]), (vec![waits.clone()], &json!(1)), "{at}");
    }
    let screen = |line: &[&str]| run(&[line, &["--node", &owner.url()]].concat());
    screen(&["case", "list", "--suspended"]).says(0, &[&waits, "1 of 1 that fit"]);
    screen(&["supervision"]).says(0, &["suspended: 1", "SINCE", "REASON", &waits]);
    screen(&["case", "list", "--status", "suspended"]).says(2, &["`--suspended` lists those"]);
    step(owner, &waits, "withdraw", &json!({"by": "站长", "role": "supervisor"}));
    assert_eq!(listed(owner, "suspended=true"), [""; 0], "it is over");
}

#[test]
fn what_is_overdue_reopened_urgent_or_ones_own_is_listed_at_every_tier() {
    let tree = tree();
    let (owner, city) = (tree.node(COMMUNITY), tree.node("c"));
    // By an old limit of another system, the first to pass; by one of our own; and two that are not over.
    let told = |n: &str, status: &str, due: &str, closed: Option<&str>| {
        let mut told = json!({"source": "/old", "id": n, "category": "SLOW", "status": status, "due": due,
            "opened": "2018-03-01T00:00:00Z", "updated": "2018-03-05T00:00:00Z"});
        if let Some(closed) = closed {
            told["closed"] = closed.into();
        }
        told
    };
    let old = [
        told("1", "dispatched", "2018-03-09T00:00:00Z", None),
        told("2", "handling", "2018-03-08T00:00:00Z", None),
        told("3", "dispatched", "2099-01-01T00:00:00Z", None),
        told("4", "closed", "2018-03-02T00:00:00Z", Some("2018-03-05T00:00:00Z")),
    ];
    let (status, became) = owner.post("/v1/cases/import", &json!({"cases": old}));
    assert_eq!((status, &became["opened"]), (200, &json!(4)), "{became}");
    let mut odd = told("5", "dispatched", "2099-01-01T00:00:00Z", None);
    odd["governance"] = "autonmy".into();
    let (status, became) = owner.post("/v1/cases/import", &json!({"cases": [odd]}));
    let refused = json!({"id": "5", "error": "bad-governance",
        "detail": "`autonmy` is no kind of governance; did you mean `autonomy`?"});
    assert_eq!((status, &became["opened"], &became["refused"]), (200, &json!(0), &json!([refused])));
    let known: HashMap<String, String> = super::cases(owner)
        .iter()
        .map(|c| (c["imported"]["id"].as_str().expect("a number").to_owned(), id(c)))
        .collect();
    let quick = open(owner, &json!({"category": "QUICK"}));
    let [back, back_twice, closed, open_one] = [(); 4].map(|()| open(owner, &json!({})));
    for case in [&back, &back_twice, &closed] {
        close(owner, case);
    }
    let again = json!({"by": "r", "role": "resident", "text": "又来了"});
    step(owner, &back, "reopen", &again);
    step(owner, &back_twice, "reopen", &again);
    for (verb, ask) in [
        ("dispatch", json!({"by": "甲", "unit": "环卫所"})),
        ("start", json!({"by": "老赵"})),
        ("resolve", json!({"by": "老赵", "text": "好了"})),
        ("verify", json!({"by": "站长", "role": "supervisor", "passed": true})),
        ("close", json!({"by": "站长", "role": "supervisor"})),
    ] {
        step(owner, &back_twice, verb, &ask);
    }
    say(owner, "p-1", "city.sos", &json!({"title": "7栋", "location": "7栋301"}));
    let press = id(&wait_case(owner, "is opened", |c| c["urgent"] == true));
    let at_city = open(city, &json!({}));
    wait_case(owner, "is over its limit", |c| c["id"] == quick.as_str() && c["escalations"] == 1);
    wait_for("the city knows all", || {
        let cases = city.get("/v1/cases?limit=1000")?;
        let is_known = |case: &str, name: &str, is: Value| {
            cases["cases"].as_array()?.iter().any(|c| c["id"] == case && c[name] == is).then_some(())
        };
        is_known(&quick, "escalations", json!(1))?;
        is_known(&back_twice, "status", json!("closed"))?;
        is_known(&back, "status", json!("accepted"))?;
        is_known(&press, "urgent", json!(true))?;
        is_known(&open_one, "status", json!("submitted"))?;
        is_known(&known["4"], "status", json!("closed"))
    });
    for node in [owner, city] {
        let at = &node.address;
        // The longest over first; what is over and closed is no matter any more.
        let overdue = [known["2"].clone(), known["1"].clone(), quick.clone()];
        let told = watched(node, "");
        assert_eq!((ids(&told["overdue"]), &told["overdue_in_all"]), (overdue.to_vec(), &json!(3)), "{at}");
        // The latest change first.
        let reopened = [back_twice.clone(), back.clone()];
        assert_eq!((ids(&told["reopened"]), &told["reopened_in_all"]), (reopened.to_vec(), &json!(2)), "{at}");
        let few = watched(node, "limit=1");
        assert_eq!((ids(&few["overdue"]), &few["overdue_in_all"]), (overdue[..1].to_vec(), &json!(3)), "{at}");
        assert_eq!(ids(&watched(node, "category=QUICK")["overdue"]), [&*quick], "{at}");
        assert_eq!(ids(&watched(node, "days=3")["overdue"]), [&*quick], "{at}: of the last days");
        for path in ["/v1/supervision?days=0", "/v1/case-stats?days=0"] {
            assert_eq!(node.asker().get(path).status, 400, "{at}: nothing is of no days, which is no peace: {path}");
        }
        let sorted = |mut ids: Vec<String>| {
            ids.sort_unstable();
            ids
        };
        assert_eq!(sorted(listed(node, "overdue=true")), sorted(overdue.to_vec()), "{at}");
        assert_eq!(sorted(listed(node, "reopened=true")), sorted(reopened.to_vec()), "{at}");
        assert_eq!(listed(node, "reopened=true&status=open"), [&*back], "{at}");
        assert_eq!(listed(node, "urgent=true"), [&*press], "{at}");
        assert_eq!(listed(node, "overdue=true&urgent=true"), [""; 0], "{at}");
        let all = node.get("/v1/cases").expect("cases");
        assert_eq!(&all["overdue"], &json!(3), "{at}");
    }
    // What a node has to do itself.
    assert_eq!(listed(city, "mine=true"), [&*at_city]);
    assert_eq!((listed(owner, "mine=true").len(), listed(tree.node("c/s"), "mine=true").len()), (10, 0));
    assert_eq!(listed(city, "owner=c/s").len(), 10);
    let screen = |node: &Node, line: &[&str]| run(&[line, &["--node", &node.url()]].concat());
    screen(city, &["case", "list", "--mine"]).says(0, &["1 of 1 that fit", &at_city]);
    screen(city, &["case", "list", "--urgent"]).says(0, &["1 of 1 that fit", &press]);
    let told = screen(city, &["supervision"]);
    told.says(0, &["overdue: 3\n", "reopened: 2\n", "hot spots: 0\n", "repeat callers: 0\n"]);
    let rows: Vec<&str> =
        told.out.lines().filter(|l| l.starts_with("20")).filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(rows, [&known["2"], &known["1"], &quick, &back_twice, &back]);
}

#[test]
fn a_summons_a_unit_s_and_a_department_s_cases_are_listed() {
    let there = "c/s/m2";
    let mut tree = Tree::with(&[COMMUNITY, there], &HashMap::new(), CONFIG);
    tree.start();
    tree.wait_all_known();
    let (owner, helper) = (tree.node(COMMUNITY), tree.node(there));
    let [first, second, own, done] = [(); 4].map(|()| open(owner, &json!({})));
    let quick = open(owner, &json!({"category": "QUICK"}));
    let accept = |case: &str| step(owner, case, "accept", &json!({"by": "甲"}));
    let summon = |case: &str, more: Value| {
        let mut ask = json!({"by": "甲", "text": "要吊车"});
        more.as_object().expect("an object").iter().for_each(|(name, value)| ask[name] = value.clone());
        step(owner, case, "assist", &ask)
    };
    for case in [&first, &second, &own, &done] {
        accept(case);
    }
    for case in [&first, &second, &done] {
        summon(case, json!({"unit": "车队", "to": there}));
    }
    summon(&own, json!({"unit": "电工"}));
    step(owner, &own, "dispatch", &json!({"by": "甲", "unit": "环卫所"}));
    let summoned = |query: &str| listed(helper, &format!("summoned=true{query}"));
    wait_for("it knows all three", || (summoned("").len() == 3).then_some(()));
    assert_eq!(listed(helper, "mine=true"), [""; 0], "what it has to help with is not its own");
    assert_eq!(listed(owner, "summoned=true"), [""; 0], "nobody summons whoever owns it");
    assert_eq!(listed(tree.node("c/s"), "summoned=true"), [""; 0]);
    let newest_first = [done.clone(), second.clone(), first.clone()];
    assert_eq!(summoned(""), newest_first);
    // Page by page, and by the unit.
    assert_eq!(summoned("&limit=2"), newest_first[..2]);
    assert_eq!(summoned(&format!("&limit=2&after={second}")), newest_first[2..]);
    assert_eq!((summoned("&unit=车队").len(), summoned("&unit=电工").len()), (3, 0));
    step(owner, &first, "dispatch", &json!({"by": "甲", "unit": "环卫所"}));
    wait_case(helper, "hears who handles it", |c| c["id"] == first.as_str() && c["unit"] == "环卫所");
    assert_eq!(summoned("&unit=环卫所"), [""; 0], "that unit is its owner's");
    // Who has reported, and what is over, waits for nobody.
    let url = helper.url();
    run(&["case", "report", &done, "--by", "车队长", "--result", "已吊走", "--node", &url]).says(0, &["reported"]);
    step(owner, &second, "withdraw", &json!({"by": "r", "role": "resident"}));
    wait_for("one is left", || (summoned("") == [&*first]).then_some(()));
    let screen = |node: &Node, line: &[&str]| run(&[line, &["--node", &node.url()]].concat());
    let foot = "0 are open here and below, 0 of them overdue, and 2 elsewhere";
    let row = format!("1 summons to 1 of 1 cases that fit, 1 of them elsewhere; {foot}");
    screen(helper, &["case", "list", "--summoned"]).says(0, &[&row, &first]);
    screen(helper, &["case", "list"]).says(0, &[&format!("3 of 3 that fit, 3 of them elsewhere; {foot}")]);
    screen(helper, &["case", "list", "--mine"]).says(0, &[&format!("no cases that fit; {foot}")]);
    let stats = helper.get("/v1/case-stats").expect("stats");
    assert_eq!(stats["total"]["open"], 0, "as it is counted: {stats}");
    screen(helper, &["case", "list", "--summoned", "--mine"]).says(2, &["cannot be used with"]);

    // Handled by a unit, or waiting for its report; by department.
    assert_eq!(listed(owner, "unit=环卫所"), [&*own, &*first]);
    assert_eq!(listed(owner, "unit=电工"), [&*own]);
    assert_eq!(listed(owner, "unit=车队"), [&*second, &*first], "of the third it has reported");
    assert_eq!(listed(owner, "unit=车队&status=open"), [&*first]);
    screen(owner, &["case", "list", "--unit", "环卫所"]).says(0, &["2 of 2 that fit", &own, &first]);
    assert_eq!(listed(owner, "department=市容"), [&*done, &*own, &*second, &*first]);
    assert_eq!(listed(owner, "department=市容&limit=1"), [&*done]);
    screen(owner, &["case", "list", "--department", "市容", "--status", "open"]).says(0, &["3 of 3 that fit"]);

    // A slip of the category is said, and what there is; one that only old cases have is none.
    screen(owner, &["case", "list", "--category", "QUIKC"]).says(2, &["`QUIKC` is no category", "mean `QUICK`?"]);
    screen(owner, &["case", "list", "--category", "垃圾分类"]).says(2, &["known here: 慢, 急修"]);
    screen(owner, &["case", "list", "--category", "急修", "--status", "closed"]).says(0, &["no cases that fit"]);
    screen(owner, &["case", "list", "--category", "QUICK"]).says(0, &["1 of 1 that fit", &quick]);
    let old = json!({"source": "/old", "id": "1", "category": "旧类", "status": "closed", "closed": "2018-03-01T00:00:00Z",
        "opened": "2018-03-01T00:00:00Z", "updated": "2018-03-01T00:00:00Z"});
    assert_eq!(owner.post("/v1/cases/import", &json!({"cases": [old]})).0, 200);
    screen(owner, &["case", "list", "--category", "旧类", "--status", "open"]).says(0, &["no cases that fit"]);
}

#[test]
fn a_likely_duplicate_is_shown_with_what_decides_and_merged_whosesoever_it_is() {
    let there = "c/s/m2";
    let mut tree = Tree::with(&[COMMUNITY, there], &HashMap::new(), CONFIG);
    tree.start();
    tree.wait_all_known();
    let (owner, street) = (tree.node(COMMUNITY), tree.node("c/s"));
    let at = |node: &Node, title: &str, lat: f64, lon: f64| {
        open(node, &json!({"title": title, "place": {"text": title, "lat": lat, "lon": lon}}))
    };
    let main = at(owner, "三号门", 30.6980, 103.8360);
    // 0.001 degrees to the north are 111 m; to the east, where it lies, 96 m.
    let north = at(owner, "三号门北", 30.6990, 103.8360);
    let east = at(tree.node(there), "三号门东", 30.6980, 103.8370);
    wait_for("the street has all", || (street.get("/v1/cases")?["fit"] == 3).then_some(()));
    let shown = street.get(&format!("/v1/cases/{main}")).expect("shown");
    let of = |s: &Value| json!([s["id"], s["title"], s["category"], s["status"], s["owner"], s["distance_m"]]);
    let mut similar: Vec<Value> = shown["similar"].as_array().expect("a list").iter().map(of).collect();
    similar.sort_by_key(|s| s[5].as_u64());
    let wanted = [
        json!([east, "三号门东", "慢", "submitted", there, 96]),
        json!([north, "三号门北", "慢", "submitted", COMMUNITY, 111]),
    ];
    assert_eq!(similar, wanted);
    let opened = shown["similar"][0]["opened"].as_str().expect("a time");
    assert!(chrono::DateTime::parse_from_rfc3339(opened).is_ok(), "{opened}");
    let screen = |line: &[&str]| run(&[line, &["--node", &street.url()]].concat());
    let told = screen(&["case", "show", &main]);
    told.says(0, &[&format!("similar     {east} submitted, 96 m away, opened ")]);
    told.says(0, &[&format!(" ago, of {there}: 慢, 三号门东\n"), &format!("{north} submitted, 111 m away")]);
    assert!(told.out.contains(" ago: 慢, 三号门北\n"), "its own owner's is no news: {}", told.out);
    // The words alone make a place, too.
    let words = [(); 2].map(|()| open(owner, &json!({"place": {"text": "五号门"}})));
    wait_for("the street has both", || (street.get("/v1/cases")?["fit"] == 5).then_some(()));
    screen(&["case", "show", &words[0]]).says(0, &[&format!("{} submitted, at the same place", words[1])]);

    let merge = |case: &str| screen(&["case", "merge", case, "--into", &main, "--by", "甲"]);
    merge(&north).says(0, &["closed (duplicate)"]);
    // Another node's goes to the owner of the one that it is to follow, and nobody has dispatched it.
    let told = merge(&east);
    told.says(0, &[]);
    let is_merged = |c: &Value| c["id"] == east.as_str() && c["merged_into"] == main.as_str();
    for node in [street, tree.node(there), owner] {
        let merged = wait_case(node, "is merged", is_merged);
        assert_eq!((&merged["owner"], &merged["status"]), (&json!(COMMUNITY), &json!("closed")), "{merged}");
        assert_eq!(merged["dispatched"], Value::Null);
    }
    let followers = owner.get(&format!("/v1/cases/{main}")).expect("shown")["case"]["followers"].clone();
    assert_eq!(followers, json!([north, east]));
}

#[test]
fn one_person_s_calls_and_one_place_s_reports_are_told_however_they_are_written() {
    let tree = tree();
    let (owner, city) = (tree.node(COMMUNITY), tree.node("c"));
    let by_phone = |phone: &str| open(owner, &json!({"contact": {"name": "王大妈", "phone": phone}}));
    // One number in five spellings; another twice; and two that only look like the first.
    let mut often: Vec<String> =
        ["13900000001", "+86 139-0000-0001", "0086 139 0000 0001", "8613900000001", "(139) 0000 0001"]
            .map(by_phone)
            .to_vec();
    let twice: Vec<String> = ["02887654321", "028-8765 4321"].map(by_phone).to_vec();
    let apart = ["8613900", "13900"].map(by_phone);
    close(owner, &often[0]);
    let callers = |node: &Node, again: u32| {
        let told = watched(node, &format!("again={again}"));
        let of = |c: &Value| {
            let ids = c["ids"].as_array().expect("ids").iter().map(|i| i.as_str().expect("text").to_owned()).collect();
            (c["cases"].as_u64().expect("a count"), c["open"].as_u64().expect("a count"), ids)
        };
        told["repeat_callers"].as_array().expect("a list").iter().map(of).collect::<Vec<(u64, u64, Vec<String>)>>()
    };
    often.reverse();
    let twice: Vec<String> = twice.into_iter().rev().collect();
    assert_eq!(callers(owner, 2), [(5, 4, often.clone()), (2, 2, twice)]);
    assert_eq!(callers(owner, 3), [(5, 4, often.clone())]);
    assert_eq!(callers(owner, 6), []);
    let shown = watched(owner, "again=3")["repeat_callers"][0]["contact"].clone();
    assert_eq!((&shown["name"], &shown["phone"]), (&json!("王大妈"), &json!("(139) 0000 0001")), "as it was last told");
    let screen = run(&["supervision", "--again", "3", "--node", &owner.url()]);
    screen.says(0, &["repeat callers: 1\n", "(139) 0000 0001"]);
    wait_for("the city has all", || (city.get("/v1/cases")?["fit"] == 9).then_some(()));
    assert_eq!(callers(city, 2), [], "numbers are compared where they are kept");
    assert!(!apart.contains(&often[0]));

    // Within one square of 0.002 degrees and over its border, in the middle of them; the same words at the same
    // node; and what is near to nobody. Who took it back did not report it; a duplicate did.
    let at = |lat: f64, lon: f64| open(owner, &json!({"place": {"text": "三号门", "lat": lat, "lon": lon}}));
    let mut spot = [(30.6981, 103.8361), (30.6985, 103.8369), (30.6997, 103.8379), (30.7001, 103.8361)]
        .map(|(lat, lon)| at(lat, lon))
        .to_vec();
    let gone = at(30.699, 103.837);
    let _too_far = at(30.7021, 103.8361);
    let mut words: Vec<String> =
        [" 五号门", "五号门", "五号门 "].map(|text| open(owner, &json!({"place": {"text": text}}))).to_vec();
    let _elsewhere = open(owner, &json!({"place": {"text": "六号门"}}));
    step(owner, &gone, "withdraw", &json!({"by": "r", "role": "resident"}));
    step(owner, &spot[1], "merge", &json!({"by": "甲", "into": spot[0]}));
    spot.reverse();
    words.reverse();
    wait_for("the city has all", || (city.get("/v1/cases?status=withdrawn")?["fit"] == 1).then_some(()));
    wait_for("the city has all", || (city.get("/v1/cases?status=closed")?["fit"] == 2).then_some(()));
    for node in [owner, city] {
        let told = watched(node, "");
        let of = |s: &Value| {
            json!([s["category"], s["place"], s["node"], s["lat"], s["lon"], s["cases"], s["open"], s["ids"]])
        };
        let spots: Vec<Value> = told["hot_spots"].as_array().expect("a list").iter().map(of).collect();
        // (30.6981 + 30.6985 + 30.6997 + 30.7001) / 4 and (103.8361 + 103.8369 + 103.8379 + 103.8361) / 4.
        let wanted = [
            json!(["SLOW", "三号门", COMMUNITY, 30.6991, 103.83675, 4, 3, spot]),
            json!(["SLOW", "五号门", COMMUNITY, null, null, 3, 3, words]),
        ];
        assert_eq!(spots, wanted, "{}", node.address);
        assert_eq!(watched(node, "again=5")["hot_spots"], json!([]), "{}", node.address);
        let told = watched(node, "limit=1");
        assert_eq!((&told["hot_spots"], &told["hot_spots_in_all"]), (&json!([told["hot_spots"][0]]), &json!(2)));
    }
}
