//! What a rule does at a node that runs: commands down, events up, cases, windows, and only while an alarm holds.

use super::{alarms, say, wait_alarm};
use crate::harness::mqtt::Client;
use crate::harness::ran::run;
use crate::harness::{Node, Tree, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

const N: &str = "c/s/m/n";
const M: &str = "c/s/m";

/// A tree in which that node has these rules.
fn tree(leaves: &[&str], at: &str, rules: &str) -> Tree {
    let tree = Tree::new(leaves);
    tree.edit(at, |text| format!("{text}{rules}"));
    tree
}

fn times(node: &Node, kind: &str) -> usize {
    node.records().iter().filter(|r| r.event_type == kind).count()
}

/// The events of a type that this node has, each with what the node says of it.
fn events(node: &Node, kind: &str) -> Vec<Value> {
    let all = node.get_text(&format!("/v1/events?type={kind}&last=1000")).unwrap_or_default();
    all.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect()
}

#[test]
fn a_rule_s_command_reaches_the_node_or_the_nodes_it_names_and_no_other() {
    let rules = r#"
[[rule]]
name = "flood"
on = ["city.flood"]
when = "event.data.level > 1.5"
[[rule.then]]
command = { target = "${event.data.node}", type = "t.valve.close", ttl = "1h", priority = "urgent", data = { device = "${event.subject}", level = "${event.data.level}", text = "at ${event.data.level} m" } }
[[rule.then]]
command = { target = "c/s/m/**@neighbourhood[side=east]", type = "t.pump.start" }
[[rule.then]]
notice = { target = "${event.data.far}", type = "t.too-far" }
"#;
    let (east, west) = ("c/s/m/e", "c/s/m/w");
    let mut tree = tree(&[east, west], M, rules);
    tree.edit(east, |text| format!("{text}\n[node.labels]\nside = \"east\"\n"));
    tree.start();
    tree.wait_all_known();
    wait_for("the labels are known", || {
        let nodes = tree.node(M).get("/v1/tree")?["nodes"].as_array()?.clone();
        nodes.iter().any(|n| n["address"] == east && n["labels"]["side"] == "east").then_some(())
    });
    let mut valve = Client::connect(tree.node(west).mqtt, "valve-7", true);
    valve.subscribe("cmd/#", 1);
    let mut pump = Client::connect(tree.node(east).mqtt, "pump-1", true);
    pump.subscribe("cmd/#", 1);
    let flood = |id: &str, level: f64, node: &str| {
        say(tree.node(M), id, "city.flood", "valve-7", &json!({"level": level, "node": node, "far": "c/**"}));
    };
    flood("f0", 1.0, west);
    flood("f1", 2.5, west);
    let told = valve.next_message(Duration::from_secs(20)).expect("the device hears of it");
    assert_eq!(told.topic, "cmd/t.valve.close");
    let told: Value = serde_json::from_slice(&told.payload).expect("JSON");
    let data = json!({"device": "valve-7", "level": 2.5, "text": "at 2.5 m"});
    assert_eq!((&told["data"], &told["target"], &told["origin"]), (&data, &json!(west), &json!(M)));
    assert_eq!((&told["directive"], &told["priority"]), (&json!("command"), &json!("urgent")));
    let next = |client: &mut Client| client.next_message(Duration::from_secs(20)).expect("it hears of it").topic;
    assert_eq!(next(&mut pump), "cmd/t.pump.start");
    // What it hears then is the next that is for it: of the pumps' two none came here, nor the valve's there.
    flood("f2", 3.0, M);
    flood("f3", 3.5, west);
    assert_eq!(
        (next(&mut valve), next(&mut pump), next(&mut pump)),
        ("cmd/t.valve.close".to_owned(), "cmd/t.pump.start".to_owned(), "cmd/t.pump.start".to_owned())
    );
    flood("f4", 4.0, M);
    assert_eq!(next(&mut pump), "cmd/t.pump.start");
    assert_eq!((times(tree.node(east), "t.valve.close"), times(tree.node(west), "t.valve.close")), (0, 2));
    assert_eq!((times(tree.node(M), "t.valve.close"), times(tree.node(east), "t.pump.start")), (4, 4));
    // It asks for nothing above itself, and says so.
    assert!(tree.nodes.values().all(|node| times(node, "t.too-far") == 0));
    let ran = crate::harness::ran::run(&["rule", "list", "--json", "--node", &tree.node(M).url()]).json();
    let fired = wait_for("it has said what it did", || {
        let all = events(tree.node(M), "city.brain.rule.fired");
        let done = |e: &Value| e["event"]["data"]["fired"][0]["done"].clone();
        all.last().map(done).filter(|done| done[0].as_str().is_some_and(|d| d.ends_with(M)))
    });
    let said: Vec<&str> = fired.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(
        said,
        [
            "sent command t.valve.close to c/s/m",
            "sent command t.pump.start to c/s/m/**@neighbourhood[side=east]",
            "no notice: `c/**` is not below this node"
        ],
        "{ran}"
    );
    // Who has it is counted as of any command.
    let counted = wait_for("receipts are counted", || {
        let all = tree.node(M).get("/v1/directives")?["directives"].as_array()?.clone();
        all.into_iter().find(|d| d["type"] == "t.valve.close" && d["target"] == west && d["delivered"] == 1)
    });
    assert_eq!((&counted["directive"], &counted["expected"]), (&json!("command"), &json!(1)));
}

#[test]
fn a_rule_emits_an_event_that_travels_as_far_and_as_fast_as_it_says() {
    let rules = r#"
[[rule]]
name = "gas"
on = ["city.gas"]
by = "event.subject"
when = "event.data.ppm > 100"
[[rule.then]]
emit = { type = "t.street", subject = "${event.subject}/alarm", priority = "urgent", reach = "street", data = { ppm = "${event.data.ppm}", parts = ["${event.data.ppm > 200 ? 'evacuate' : 'air'}"] } }
[[rule.then]]
emit = { type = "t.here", reach = "neighbourhood" }
[[rule.then]]
emit = { type = "t.all" }
"#;
    let mut tree = tree(&[N], N, rules);
    tree.start();
    say(tree.node(N), "g1", "city.gas", "flat-3", &json!({"ppm": 250}));
    say(tree.node(N), "g2", "city.gas", "flat-3", &json!({"ppm": 50}));
    say(tree.node(N), "g3", "city.gas", "flat-3", &json!({"ppm": 150}));
    wait_for("the city has both that reach it", || (times(tree.node("c"), "t.all") == 2).then_some(()));
    wait_for("the street has both that reach it", || (times(tree.node("c/s"), "t.street") == 2).then_some(()));
    let reached = [N, M, "c/s", "c"].map(|at| ["t.here", "t.street", "t.all"].map(|kind| times(tree.node(at), kind)));
    assert_eq!(reached, [[2, 2, 2], [0, 2, 2], [0, 2, 2], [0, 0, 2]]);
    let told = events(tree.node("c/s"), "t.street");
    let of = |e: &Value| json!([e["event"]["subject"], e["priority"], e["event"]["data"], e["origin"]]);
    assert_eq!(of(&told[0]), json!(["flat-3/alarm", "urgent", {"ppm": 250, "parts": ["evacuate"]}, N]));
    assert_eq!(of(&told[1])[2], json!({"ppm": 150, "parts": ["air"]}));
}

#[test]
fn a_rule_opens_a_case_of_each_kind_that_goes_where_its_category_is_handled() {
    let rules = r#"
[[category]]
code = "LEAK"
name = "漏水"
department = "水务"
tier = "community"
response = "2h"
[[rule]]
name = "leak"
on = ["city.water"]
by = "event.subject"
when = "event.data.flow > 10.0"
clear = "event.data.flow < 5.0"
[[rule.then]]
case = { category = "漏水", kind = "KIND", title = "${event.subject} 漏水", data = { location = "${event.data.where}", description = "${event.data.flow} 升", contact = { name = "物业", phone = "028-1" } } }
"#;
    for kind in ["appeal", "service", "incident"] {
        let rules = rules.replace("KIND", kind);
        let mut tree = tree(&[N], N, &rules);
        // The category is known where it is handled, too.
        let category = rules.split("[[rule]]").next().expect("a category").to_owned();
        tree.edit(M, |text| format!("{text}{category}"));
        tree.start();
        let node = tree.node(N);
        for (id, flow) in [("w1", 12.5), ("w2", 13.0), ("w3", 2.0)] {
            say(node, id, "city.water", "meter-9", &json!({"flow": flow, "where": "7栋地下室"}));
        }
        let case = wait_for("the community has it", || {
            let all = tree.node(M).get("/v1/cases")?["cases"].as_array()?.clone();
            all.into_iter().find(|c| c["owner"] == M && c["handing_to"].is_null())
        });
        assert_eq!(
            (&case["kind"], &case["category"], &case["department"]),
            (&json!(kind), &json!("LEAK"), &json!("水务"))
        );
        assert_eq!((&case["title"], &case["channel"]), (&json!("meter-9 漏水"), &json!("rule:leak")));
        assert_eq!((&case["description"], &case["place"]["text"]), (&json!("12.5 升"), &json!("7栋地下室")));
        assert_eq!((&case["urgent"], &case["escalations"]), (&Value::Null, &Value::Null), "nobody is called");
        let clocks: Vec<&Value> = case["clocks"].as_array().expect("clocks").iter().map(|c| &c["name"]).collect();
        assert_eq!(clocks, ["response"]);
        let shown = tree.node(M).get(&format!("/v1/cases/{}", super::text(&case["id"]))).expect("shown");
        assert_eq!(shown["contact"]["phone"], "028-1");
        // It was one flood; the next one is another.
        say(node, "w4", "city.water", "meter-9", &json!({"flow": 20.0, "where": "8栋"}));
        wait_for("the second is opened", || {
            let all = tree.node(M).get("/v1/cases")?["cases"].as_array()?.clone();
            all.iter().any(|c| c["place"]["text"] == "8栋").then_some(())
        });
        assert_eq!(tree.node(N).get("/v1/cases").expect("cases")["fit"], 2);
        assert_eq!(times(node, "city.brain.case.call"), 0);
    }
}

#[test]
fn cases_of_what_a_rule_opens_may_be_asked_for_before_there_is_one() {
    let rule = r#"
[[rule]]
name = "smoke"
on = ["city.smoke"]
[[rule.then]]
case = { category = "smoke", kind = "sos", title = "起烟" }
"#;
    let litter = "[[category]]\ncode = \"LITTER\"\nname = \"暴露垃圾\"\n";
    // Also where the node has no category at all.
    for rules in [format!("{litter}{rule}"), rule.to_owned()] {
        let mut tree = tree(&["c"], "c", &rules);
        tree.start();
        let url = tree.node("c").url();
        let list = |category: &str| run(&["case", "list", "--category", category, "--node", &url]);
        list("smoke").says(0, &[]);
        list("smok").says(2, &["`smok` is no category of this node or its rules"]);
    }
}

#[test]
fn an_alarm_and_the_case_that_was_opened_beside_it_show_each_other_as_they_stand() {
    let own = r#"
[[rule]]
name = "smoke"
on = ["city.smoke"]
by = "event.subject"
when = "event.data.smoke == true"
clear = "event.data.smoke == false"
[[rule.then]]
case = { category = "FIRE", kind = "sos", title = "${event.subject} 起烟" }
[[rule.then]]
raise = { severity = "critical", title = "烟雾 ${event.subject}" }
"#;
    // Opened by a rule that was only told of it, at another node.
    let told = r#"
[[rule]]
name = "inspect"
on = ["city.brain.alarm.raised"]
[[rule.then]]
case = { category = "CHECK", title = "查 ${event.subject}" }
"#;
    let mut tree = tree(&[N], N, own);
    tree.edit(M, |text| format!("{text}{told}"));
    tree.start();
    let (node, above) = (tree.node(N), tree.node(M));
    say(node, "s1", "city.smoke", "7栋", &json!({"smoke": true}));
    let alarm = super::text(&wait_alarm(node, "is raised", |a| a["name"] == "smoke")["id"]).to_owned();
    let both = || -> Option<[String; 2]> {
        let cases = above.get(&format!("/v1/alarms/{alarm}"))?["cases"].as_array()?.clone();
        let of = |owner: &str| Some(cases.iter().find(|c| c["owner"] == owner)?["id"].as_str()?.to_owned());
        Some([of(N)?, of(M)?])
    };
    let [fire, check] = wait_for("the alarm has both cases", both);
    let show = |node: &Node, line: &[&str]| run(&[line, &["--node", &node.url()]].concat());
    for (node, case) in [(node, &fire), (above, &fire), (above, &check)] {
        let shown = node.get(&format!("/v1/cases/{case}")).expect("shown");
        assert_eq!((&shown["case"]["alarm"], &shown["alarm"]["active"]), (&json!(alarm), &json!(true)), "{shown}");
        show(node, &["case", "show", case])
            .says(0, &[&format!("alarm       {alarm} critical active since "), "not acked: 烟雾 7栋"]);
        show(node, &["alarm", "show", &alarm]).says(0, &[&format!("case       {case} submitted, of ")]);
    }
    show(node, &["alarm", "list"]).says(0, &["CASES", &format!("{fire} submitted")]);
    // Cleared by its rule: the case says so, and stays open until somebody has looked.
    say(node, "s2", "city.smoke", "7栋", &json!({"smoke": false}));
    for node in [node, above] {
        wait_alarm(node, "is over", |a| a["id"] == alarm.as_str() && a["active"] == false);
        show(node, &["case", "show", &fire])
            .says(0, &[&format!("alarm       {alarm} critical cleared "), "by rule:smoke: 烟雾 7栋"]);
    }
    let (status, _) = node.post(&format!("/v1/cases/{fire}/withdraw"), &json!({"by": "r", "role": "supervisor"}));
    assert_eq!(status, 200);
    show(node, &["alarm", "show", &alarm]).says(0, &[&format!("case       {fire} withdrawn")]);
    // A node that the alarm does not reach knows its id alone.
    let stray = json!({"specversion": "1.0", "id": "a1", "source": "/t", "type": "city.appeal",
        "data": {"category": "CHECK", "title": "t", "alarm": "0123456789abcdef"}});
    assert!(Client::connect(node.mqtt, "app", true).publish("in/x", stray.to_string().as_bytes()));
    let case = wait_for("it is opened", || {
        let all = node.get("/v1/cases")?["cases"].as_array()?.clone();
        all.into_iter().find(|c| c["title"] == "t")
    });
    show(node, &["case", "show", super::text(&case["id"])])
        .says(0, &["alarm       0123456789abcdef, which is not known here"]);
}

#[test]
fn a_rule_that_waits_for_an_alarm_does_something_only_while_it_is_active_also_over_a_kill() {
    let rules = r#"
[[rule]]
name = "flood"
on = ["city.flood"]
by = "event.subject"
when = "event.data.level > 1.0"
clear = "event.data.level < 0.5"
[[rule.then]]
raise = { severity = "major", title = "Flood at ${event.subject}" }
[[rule]]
name = "door"
on = ["city.door"]
by = "event.subject"
while_alarm = "flood"
[[rule.then]]
emit = { type = "t.door", data = { at = "${event.subject}" } }
[[rule]]
name = "any-door"
on = ["city.door"]
by = "event.subject"
while_alarm = "flood/*"
[[rule.then]]
emit = { type = "t.any", data = { at = "${event.subject}" } }
[[rule]]
name = "calm-door"
on = ["city.door"]
by = "event.subject"
unless_alarm = "flood"
[[rule.then]]
emit = { type = "t.calm", data = { at = "${event.subject}" } }
"#;
    let mut tree = tree(&["c"], "c", rules);
    tree.start();
    let mut n = 0;
    let mut door = |tree: &Tree, at: &str, wanted: [&[&str]; 3]| {
        n += 1;
        say(tree.node("c"), &format!("d{n}"), "city.door", at, &json!({}));
        let seen = || {
            ["t.door", "t.any", "t.calm"].map(|kind| {
                let all = events(tree.node("c"), kind);
                all.iter().map(|e| super::text(&e["event"]["data"]["at"]).to_owned()).collect::<Vec<_>>()
            })
        };
        wait_for(&format!("door {n} is judged: {:?}, {wanted:?}", seen()), || (seen() == wanted).then_some(()));
    };
    let flood = |tree: &Tree, id: &str, at: &str, level: f64| {
        say(tree.node("c"), id, "city.flood", at, &json!({"level": level}));
        wait_alarm(tree.node("c"), "knows", |a| a["key"] == at && a["active"] == (level > 1.0));
    };
    door(&tree, "a", [&[], &[], &["a"]]);
    flood(&tree, "f1", "a", 2.0);
    door(&tree, "a", [&["a"], &["a"], &["a"]]);
    door(&tree, "b", [&["a"], &["a", "b"], &["a", "b"]]);
    tree.kill9("c");
    tree.start_node("c");
    tree.wait_ready();
    door(&tree, "a", [&["a", "a"], &["a", "b", "a"], &["a", "b"]]);
    flood(&tree, "f2", "a", 0.1);
    door(&tree, "a", [&["a", "a"], &["a", "b", "a"], &["a", "b", "a"]]);
    assert_eq!(alarms(tree.node("c")).len(), 1);
}

#[test]
fn a_window_s_mean_least_most_sum_and_kinds_are_those_of_its_values_also_over_a_kill() {
    let rules = r#"
[[rule]]
name = "warm"
on = ["city.temp"]
by = "event.subject"
window = { within = "1h", value = "event.data.t" }
when = "window.count >= 4 && window.avg > 20.0"
[[rule.then]]
raise = { severity = "minor", title = "${window.count}: ${window.avg} of ${window.sum}, ${window.min} to ${window.max}" }
[[rule]]
name = "many"
on = ["city.complaint"]
window = { within = "1h", value = "event.data.who" }
when = "window.distinct >= 3"
[[rule.then]]
raise = { severity = "minor", title = "${window.distinct} of ${window.count}" }
"#;
    let mut tree = tree(&["c"], "c", rules);
    tree.start();
    // 12.5 + 30 + 20 = 62.5, with 17.5 it is 80, and a fifth of 22.5 makes 102.5: 20.5 on the average.
    for (i, t) in [12.5, 30.0, 20.0, 17.5].into_iter().enumerate() {
        if i == 2 {
            tree.kill9("c");
            tree.start_node("c");
            tree.wait_ready();
        }
        say(tree.node("c"), &format!("t{i}"), "city.temp", "hall", &json!({"t": t}));
    }
    say(tree.node("c"), "t-other", "city.temp", "roof", &json!({"t": 99.0}));
    for (i, who) in ["a", "b", "a", "a", "b"].into_iter().enumerate() {
        say(tree.node("c"), &format!("w{i}"), "city.complaint", "x", &json!({"who": who}));
    }
    wait_for("all are committed", || (times(tree.node("c"), "city.complaint") == 5).then_some(()));
    assert!(alarms(tree.node("c")).is_empty(), "four of 20.0 on the average are not more, nor are two people three");
    say(tree.node("c"), "t4", "city.temp", "hall", &json!({"t": 22.5}));
    let warm = wait_alarm(tree.node("c"), "is warm", |a| a["name"] == "warm");
    assert_eq!((&warm["title"], &warm["key"]), (&json!("5: 20.5 of 102.5, 12.5 to 30"), &json!("hall")));
    say(tree.node("c"), "w5", "city.complaint", "x", &json!({"who": "c"}));
    let many = wait_alarm(tree.node("c"), "are many", |a| a["name"] == "many");
    assert_eq!(many["title"], "3 of 6");
}
