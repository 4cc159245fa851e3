//! Lists that have more than one page, and all cases as a table.

use super::{COMMUNITY, id, step, tree, wait_case};
use crate::harness::ran::run;
use crate::harness::{Node, Tree, wait_for};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

fn open(node: &Node, title: &str) -> String {
    let (status, made) = node.post("/v1/cases", &json!({"category": "QUICK", "title": title, "by": "前台"}));
    assert_eq!(status, 201, "{made}");
    id(&made["case"])
}

/// What a list gives page by page, by its `next` and by its `Link`, which must say the same; the values that
/// `of` takes from each item.
fn pages(node: &Node, path: &str, list: &str, of: &str) -> Vec<Vec<String>> {
    let (mut all, mut at) = (Vec::new(), path.to_owned());
    loop {
        let told = node.asker().get(&at);
        assert_eq!(told.status, 200, "{}", told.text);
        let body = told.json();
        let items = body[list].as_array().expect("a list").iter();
        all.push(items.map(|item| item[of].as_str().expect("text").to_owned()).collect());
        let link = told.find("link").map(str::to_owned);
        let next = match &body["next"] {
            Value::Null => None,
            Value::String(next) => Some(next.clone()),
            next => Some(next.to_string()),
        };
        assert_eq!(link.is_some(), next.is_some(), "{link:?} {next:?}");
        let Some((link, next)) = link.zip(next) else { return all };
        at = link.strip_prefix('<').and_then(|l| l.strip_suffix(">; rel=\"next\"")).expect("a link").to_owned();
        assert_eq!(at, format!("{path}&after={next}"));
        assert!(all.len() < 100, "it does not end: {all:?}");
    }
}

#[test]
fn cases_are_listed_page_by_page_and_what_comes_meanwhile_shifts_nothing() {
    let tree = tree(&[COMMUNITY]);
    let (owner, city) = (tree.node(COMMUNITY), tree.node("c"));
    let mut opened: Vec<String> = (0..7).map(|n| open(owner, &format!("t{n}"))).collect();
    step(owner, &opened[2], "accept", &json!({"by": "甲"}));
    wait_for("the city has all", || (city.get("/v1/cases?status=submitted")?["fit"] == 6).then_some(()));
    opened.reverse();
    let newest_first: Vec<&[String]> = opened.chunks(3).collect();
    for node in [owner, city] {
        assert_eq!(pages(node, "/v1/cases?limit=3", "cases", "id"), newest_first);
        assert_eq!(pages(node, "/v1/cases?limit=7", "cases", "id"), [&opened[..]], "the last page names no next");
        assert_eq!(pages(node, "/v1/cases?status=accepted&limit=1", "cases", "id"), [[opened[4].clone()]]);
        let few = pages(node, "/v1/cases?status=submitted&limit=4", "cases", "id");
        let submitted: Vec<String> = opened.iter().filter(|id| **id != opened[4]).cloned().collect();
        assert_eq!(few, submitted.chunks(4).collect::<Vec<_>>());
    }
    let asked = |after: &str| run(&["case", "list", "--limit", "3", "--after", after, "--node", &city.url()]);
    let ids = |out: &str| -> Vec<String> {
        let rows = out.lines().filter(|l| l.starts_with("20"));
        rows.map(|l| l.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    let first = run(&["case", "list", "--limit", "3", "--node", &city.url()]);
    first.says(0, &[&format!("3 of 7 that fit (`--after {}` shows more); 7 are open", opened[2])]);
    // One that is opened now is on the first page, which was seen already.
    open(owner, "t7");
    wait_case(city, "has it", |c| c["title"] == "t7");
    let second = asked(&opened[2]);
    second.says(0, &["3 of 8 that fit"]);
    let third = asked(&opened[5]);
    assert_eq!([ids(&first.out), ids(&second.out), ids(&third.out)].concat(), opened);
    assert!(!third.out.contains("shows more"), "{}", third.out);
    asked("20200101-nothing").says(2, &["names no case of this node", "begin anew"]);
}

#[test]
fn alarms_and_directives_are_listed_page_by_page() {
    const RULE: &str = r#"
[[rule]]
name = "r"
on = ["t.level"]
by = "event.subject"
[[rule.then]]
raise = { severity = "${event.data.is}", title = "${event.subject}" }
"#;
    let mut tree = Tree::new(&["c/s"]);
    tree.edit("c/s", |text| text + RULE);
    tree.start();
    tree.wait_all_known();
    let (street, city) = (tree.node("c/s"), tree.node("c"));
    for (n, severity) in ["minor", "critical", "major", "minor", "critical"].into_iter().enumerate() {
        let event = json!({"specversion": "1.0", "id": format!("e{n}"), "source": "/t", "type": "t.level",
            "subject": format!("a{n}"), "data": {"is": severity}});
        let told = street.asker().post_as("/v1/events", "application/cloudevents+json", event.to_string());
        assert_eq!(told.status, 202, "{}", told.text);
        wait_for("it is raised", || (street.get("/v1/alarms")?["active"] == n + 1).then_some(()));
    }
    wait_for("the city has them", || (city.get("/v1/alarms")?["active"] == 5).then_some(()));
    // The worst first, and of those the newest.
    let wanted = [vec!["a4", "a1"], vec!["a2", "a3"], vec!["a0"]];
    for node in [street, city] {
        assert_eq!(pages(node, "/v1/alarms?limit=2", "alarms", "title"), wanted, "{}", node.address);
    }
    let bad = run(&["alarm", "list", "--after", "x", "--node", &city.url()]);
    bad.says(2, &["`x` is no place in the list"]);
    let second = city.get("/v1/alarms?limit=2").expect("alarms")["next"].as_str().expect("a next").to_owned();
    let second = run(&["alarm", "list", "--limit", "2", "--after", &second, "--node", &city.url()]);
    let titles = |out: &str, all: [&str; 5]| all.map(|t| out.lines().any(|l| l.trim_end().ends_with(t)));
    assert_eq!(
        titles(&second.out, ["a0", "a1", "a2", "a3", "a4"]),
        [false, false, true, true, false],
        "{}",
        second.out
    );

    let mut sent = Vec::new();
    for n in 0..5 {
        let (status, answer) =
            city.post("/v1/send", &json!({"target": "c/**", "type": "city.notice", "data": {"text": format!("n{n}")}}));
        assert_eq!(status, 202, "{answer}");
        sent.push(answer["id"].as_str().expect("an id").to_owned());
    }
    // The newest page first, and on each the oldest, as a terminal shows them; behind those that were sent here
    // come the nodes' own words to each other.
    let wanted = [&sent[3..5], &sent[1..3]];
    for node in [city, street] {
        let all = || node.get("/v1/directives")?["directives"].as_array().cloned();
        let known = wait_for("all are known", || all().filter(|all| all.iter().any(|d| d["id"] == *sent[4])));
        let pages = pages(node, "/v1/directives?limit=2", "directives", "id");
        assert_eq!(pages[..2], wanted, "{}", node.address);
        assert_eq!(pages[2].last(), Some(&sent[0]), "{}", node.address);
        let mut known: Vec<&str> = known.iter().filter_map(|d| d["id"].as_str()).collect();
        known.reverse();
        let one_by_one: Vec<&String> = pages.iter().flat_map(|page| page.iter().rev()).collect();
        assert_eq!(one_by_one, known, "each once: {}", node.address);
    }
    let next = city.get("/v1/directives?limit=2").expect("directives")["next"].to_string();
    let second = run(&["directives", "list", "--limit", "2", "--after", &next, "--node", &city.url(), "--json"]).json();
    let ids: Vec<&Value> = second["directives"].as_array().expect("a list").iter().map(|d| &d["id"]).collect();
    assert_eq!(ids, [sent[1].as_str(), &sent[2]]);
}

#[test]
fn all_cases_are_exported_as_a_table_and_as_lines_also_through_the_links() {
    let tree = tree(&[COMMUNITY]);
    let (owner, city) = (tree.node(COMMUNITY), tree.node("c"));
    let line = [
        "case",
        "new",
        "--category",
        "暴露垃圾",
        "--title",
        "=1+1, \"三号门\"",
        "--location=-三号门",
        "--lat",
        "30.698",
        "--lon",
        "103.8368",
        "--channel",
        "12345",
        "--governance",
        "law",
        "--name",
        "王大妈",
        "--phone",
        "13900000000",
        "--by",
        "前台",
        "--json",
        "--node",
        &owner.url(),
    ];
    let full = id(&run(&line).json()["case"]);
    let bare = open(owner, "t");
    for (verb, ask) in [
        ("accept", json!({"by": "甲"})),
        ("dispatch", json!({"by": "甲", "unit": "环卫所"})),
        ("return", json!({"by": "环卫所长", "text": "不归我管"})),
        ("dispatch", json!({"by": "甲", "unit": "环卫所"})),
        ("start", json!({"by": "老赵"})),
        ("contact", json!({"by": "老赵"})),
        ("resolve", json!({"by": "老赵", "text": "已清", "solved": "partly"})),
        ("verify", json!({"by": "丙", "role": "supervisor", "passed": false, "text": "还有"})),
        ("resolve", json!({"by": "老赵", "text": "已清", "solved": "partly"})),
        ("verify", json!({"by": "丙", "role": "supervisor", "passed": false, "text": "还有"})),
        ("resolve", json!({"by": "老赵", "text": "已清", "solved": "partly"})),
        ("verify", json!({"by": "丙", "role": "supervisor", "passed": true})),
        ("evaluate", json!({"by": "r", "role": "resident", "solved": "unsolved", "satisfied": "mostly"})),
        ("close", json!({"by": "站长", "role": "supervisor"})),
    ] {
        step(owner, &full, verb, &ask);
    }
    wait_case(city, "sees it closed", |c| c["id"] == full.as_str() && c["status"] == "closed");
    wait_case(city, "sees the other", |c| c["id"] == bare.as_str());
    let exported = |node: &Node, more: &[&str]| {
        let done = run(&[&["case", "export", "--node", &node.url()], more].concat());
        done.says(0, &[]);
        done.out
    };
    let known = owner.get(&format!("/v1/cases/{full}")).expect("shown");
    let ms = |time: &str| time.parse::<DateTime<Utc>>().expect("a time").to_rfc3339_opts(SecondsFormat::Millis, true);
    let at = |pointer: &str| ms(known.pointer(pointer).and_then(Value::as_str).expect(pointer));
    let due = |name: &str| {
        let clock = known["case"]["clocks"].as_array().and_then(|all| all.iter().find(|c| c["name"] == name)).cloned();
        ms(clock.expect(name)["due"].as_str().expect("a time"))
    };
    // By hand: what each column is, with quotes where a spreadsheet needs them, and no formula.
    let head = "\u{feff}id,kind,status,closed_reason,category,category_name,department,governance,channel,title,owner,unit,opened_at,\
        opened,dispatched,signed,contacted,resolved,closed,handler_says,check,resident_solved,resident_satisfied,\
        response_due,solution_due,late,returns,reworks,reopened,merged_into,lat,lon,place,\
        on_its_way_to,urgent,description,dispatch_due,suspended,extended,excluded,escalations,service,slot,seats,seat,\
        booking,summoned,summoned_reported,summoned_rated,call_back_due,evaluated";
    let times = ["opened", "dispatched", "signed", "contacted", "outcome/at", "closed"];
    let times = times.map(|t| at(&format!("/case/{t}"))).join(",");
    let row = format!(
        "{full},appeal,closed,unsolved,SJ0102,暴露垃圾,城管,law,12345,\"'=1+1, \"\"三号门\"\"\",c/s/m,环卫所,c/s/m,{times},\
         partly,passed,unsolved,mostly,{},{},false,1,2,0,,30.698,103.8368,'-三号门,\
         ,false,,,false,false,false,0,,,,,,,,,,{}",
        due("response"),
        due("solution"),
        at("/case/verdict/at")
    );
    let opened = owner.get(&format!("/v1/cases/{bare}")).expect("shown")["case"]["opened"].clone();
    let opened = ms(opened.as_str().expect("a time"));
    let open_row = format!(
        "{bare},appeal,submitted,,QUICK,急修,,,api,t,c/s/m,,c/s/m,{opened},,,,,,,,,,,,false,0,0,0,,,,,,false,,,false,false,false,0,,,,,,,,,,"
    );
    let whole = exported(owner, &[]);
    assert_eq!(whole, format!("{head}\n{open_row}\n{row}\n"));
    assert_eq!(exported(city, &["--at", COMMUNITY]), whole, "through the links it is the same");
    assert_eq!(exported(city, &[]), whole);
    assert!(!whole.contains("13900000000") && !whole.contains("王大妈"));
    assert_eq!(exported(owner, &["--status", "closed"]), format!("{head}\n{row}\n"));
    assert_eq!(exported(owner, &["--category", "急修", "--owner", COMMUNITY]), format!("{head}\n{open_row}\n"));
    assert_eq!(exported(owner, &["--overdue"]), format!("{head}\n"));
    // For programs: the cases as they are, one a line.
    let lines = exported(city, &["--json", "--at", COMMUNITY]);
    let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let both = [&bare, &full].map(|id| owner.get(&format!("/v1/cases/{id}")).expect("shown")["case"].clone());
    assert_eq!(lines, both);
}
