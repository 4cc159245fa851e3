//! The Common Alerting Protocol: alarms out, warnings in, and what follows from them below.

use crate::harness::http::Told;
use crate::harness::mqtt::Client;
use crate::harness::ran::run;
use crate::harness::{Node, Tree, wait_for};
use chrono::{DateTime, FixedOffset, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use std::collections::HashMap;

/// At every node; the rule is as in `config/city.toml`.
const CONFIG: &str = r#"
[[rule]]
name = "warning"
on = ["city.cap.message", "city.cap.notice", "city.cap.expired"]
by = "event.subject"
when = "!(event.data.msg_type in ['Cancel', 'Expired'])"
clear = "event.data.msg_type in ['Cancel', 'Expired']"
[[rule.then]]
raise = { severity = "${event.data.level}", title = "${event.data.headline}", reach = "city" }
[[cap.alarm]]
name = "smoke*"
category = "Fire"
event = "火灾"
response = ["Evacuate"]
"#;

/// At the one node that has a detector.
const SMOKE: &str = r#"
[[rule]]
name = "smoke"
on = ["city.smoke"]
by = "event.subject"
when = "event.data.level > 0"
clear = "event.data.level == 0"
[[rule.then]]
raise = { severity = "${event.data.level > 1 ? 'critical' : 'major'}", title = "烟雾 ${event.subject} <3> & ${event.data.level}", reach = "city" }
"#;

const XML: &str = "application/cap+xml";

fn post(node: &Node, xml: &str) -> Told {
    node.asker().post_as("/v1/cap", XML, xml)
}

/// In CAP's form, so many seconds from now.
fn at(seconds: i64) -> String {
    let when = Utc::now() + TimeDelta::seconds(seconds);
    when.with_timezone(&FixedOffset::east_opt(8 * 3600).expect("an offset")).to_rfc3339_opts(SecondsFormat::Secs, false)
}

/// A warning for the street of the code 510115001.
struct Warning<'a> {
    id: &'a str,
    sent: &'a str,
    status: &'a str,
    kind: &'a str,
    references: &'a str,
    severity: &'a str,
    headline: &'a str,
    expires: &'a str,
}

impl<'a> Warning<'a> {
    fn alert(id: &'a str, sent: &'a str, headline: &'a str, expires: &'a str) -> Warning<'a> {
        Warning { id, sent, status: "Actual", kind: "Alert", references: "", severity: "Severe", headline, expires }
    }

    fn xml(&self) -> String {
        let Warning { id, sent, status, kind, references, severity, headline, expires } = self;
        let references =
            if references.is_empty() { String::new() } else { format!("<references>{references}</references>") };
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">
  <identifier>{id}</identifier><sender>eoc@met.example</sender><sent>{sent}</sent>
  <status>{status}</status><msgType>{kind}</msgType><scope>Public</scope>{references}
  <info>
    <language>zh-CN</language><category>Met</category><event>暴雨</event>
    <urgency>Immediate</urgency><severity>{severity}</severity><certainty>Likely</certainty>
    <expires>{expires}</expires><headline>{headline}</headline>
    <area>
      <areaDesc>柳城街道</areaDesc>
      <geocode><valueName>CN-STAT-12</valueName><value>510115001000</value></geocode>
    </area>
  </info>
</alert>"#
        )
    }
}

fn city() -> Tree {
    let mut tree = Tree::with(&["c/s/m", "c/t"], &HashMap::new(), CONFIG);
    for (address, code) in [("c", "5101"), ("c/s", "510115001"), ("c/t", "510115002")] {
        tree.edit(address, |text| text.replace("[node]", &format!("[node]\ncode = \"{code}\"")));
    }
    tree.edit("c/s/m", |text| format!("{SMOKE}{text}"));
    tree.start();
    tree.wait_all_known();
    tree
}

fn alarms(node: &Node, query: &str) -> Vec<Value> {
    let all = node.get(&format!("/v1/alarms?{query}"));
    all.and_then(|a| a["alarms"].as_array().cloned()).unwrap_or_default()
}

/// The node's own alarms of a warning; those from below are theirs.
fn warned(node: &Node, query: &str) -> Vec<Value> {
    let all = alarms(node, &format!("name=warning{query}"));
    all.into_iter().filter(|a| a["origin"] == node.address.as_str()).collect()
}

fn smoke(node: &Node, id: &str, level: u8) {
    let mut device = Client::connect(node.mqtt, "detector", true);
    let event = json!({"specversion": "1.0", "id": id, "source": "/m", "subject": "厨房", "type": "city.smoke",
        "data": {"level": level, "lat": 30.698, "lon": 103.8368}});
    assert!(device.publish("in/smoke", event.to_string().as_bytes()));
}

fn part<'a>(xml: &'a str, name: &str) -> &'a str {
    let from = xml.find(&format!("<{name}>")).unwrap_or_else(|| panic!("no `{name}` in {xml}")) + name.len() + 2;
    &xml[from..from + xml[from..].find("</").expect("an end")]
}

#[test]
fn an_alarm_goes_out_as_an_alert_is_updated_and_cancelled_and_is_the_same_at_every_node() {
    let tree = city();
    let (low, top) = (tree.node("c/s/m"), tree.node("c"));
    let seen = |word: &str| {
        wait_for("the city has it as it is now", || {
            let id = alarms(top, "active=false").first()?["id"].as_str()?.to_owned();
            let got = top.asker().get(&format!("/v1/alarms/{id}/cap"));
            (got.status == 200 && part(&got.text, "msgType") == word).then_some((id, got))
        })
    };
    smoke(low, "1", 1);
    let (id, alert) = seen("Alert");
    assert_eq!(alert.header("content-type"), XML);
    assert_eq!(alert.text, low.asker().get(&format!("/v1/alarms/{id}/cap")).text);
    let word = |name: &str| part(&alert.text, name).to_owned();
    assert_eq!(
        (word("sender"), word("category"), word("event")),
        ("c/s/m@citybrain".into(), "Fire".into(), "火灾".into())
    );
    assert_eq!(
        (word("severity"), word("urgency"), word("certainty")),
        ("Severe".into(), "Immediate".into(), "Observed".into())
    );
    assert_eq!((word("headline"), word("circle")), ("烟雾 厨房 &lt;3&gt; &amp; 1".into(), "30.698,103.8368 0".into()));
    assert!(word("sent").ends_with("+08:00"), "{}", word("sent"));
    let feed = top.asker().get("/v1/cap.atom");
    assert_eq!(feed.header("content-type"), "application/atom+xml; charset=utf-8");
    assert!(feed.text.contains(&format!("href=\"{}/v1/alarms/{id}/cap\"", top.url())), "{}", feed.text);

    smoke(low, "2", 2);
    let (_, update) = seen("Update");
    let reference = format!("{},{},{}", word("sender"), word("identifier"), word("sent"));
    assert_eq!((part(&update.text, "references"), part(&update.text, "severity")), (reference.as_str(), "Extreme"));
    smoke(low, "3", 0);
    let (_, cancel) = seen("Cancel");
    let earlier =
        format!("{reference} {},{},{}", word("sender"), part(&update.text, "identifier"), part(&update.text, "sent"));
    assert_eq!((part(&cancel.text, "references"), part(&cancel.text, "responseType")), (earlier.as_str(), "AllClear"));
    assert!(!top.asker().get("/v1/cap.atom").text.contains("<entry>"), "what is over is not current");
    assert_eq!(top.asker().get("/v1/alarms/none/cap").status, 404);

    // And into a tree of somebody else.
    let other = city();
    let there = other.node("c");
    for (xml, active) in [(&alert, 1), (&update, 1), (&cancel, 0)] {
        let taken = post(there, &xml.text);
        assert_eq!(taken.status, 202, "{}", taken.text);
        wait_for("it is there as it was here", || (warned(there, "").len() == active).then_some(()));
        if active == 1 {
            let wanted = if part(&xml.text, "severity") == "Extreme" { "critical" } else { "major" };
            wait_for("with its own severity", || (warned(there, "")[0]["severity"] == wanted).then_some(()));
        }
    }
    // The area named a node that is there too, and it was told.
    assert_eq!(post(there, &cancel.text).json()["notified"], json!(["c/s/m"]));
}

#[test]
fn a_warning_becomes_an_alarm_here_and_at_those_whom_it_names_until_it_is_cancelled() {
    let tree = city();
    let (top, named, below, other) = (tree.node("c"), tree.node("c/s"), tree.node("c/s/m"), tree.node("c/t"));
    let (sent, expires) = (at(-60), at(3600));
    let first = Warning::alert("met-1", &sent, "暴雨橙色预警", &expires);
    let taken = post(top, &first.xml());
    assert_eq!(taken.status, 202, "{}", taken.text);
    let taken = taken.json();
    assert_eq!((&taken["notified"], &taken["duplicate"]), (&json!(["c/s"]), &json!(false)));
    assert_eq!(taken["id"], taken["about"]);
    let again = post(top, &first.xml());
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &json!(true)));
    let stands = |node: &Node, severity: &str| {
        wait_for("the warning is an alarm", || {
            let all = warned(node, "");
            (all.len() == 1 && all[0]["severity"] == severity).then(|| all[0].clone())
        })
    };
    for node in [top, named, below] {
        assert_eq!(stands(node, "major")["title"], "暴雨橙色预警", "{}", node.address);
    }
    // Who has it is counted, as of every notice.
    wait_for("the street and the community have said so", || {
        let all = top.get("/v1/directives")?;
        let one = all["directives"].as_array()?.iter().find(|d| d["type"] == "city.cap.notice")?.clone();
        (one["delivered"].as_u64()? == 2).then_some(())
    });

    let reference = format!("eoc@met.example,met-1,{sent}");
    let (sent_2, sent_3) = (at(-30), at(-10));
    let update = Warning {
        id: "met-2",
        sent: &sent_2,
        kind: "Update",
        references: &reference,
        severity: "Extreme",
        headline: "暴雨红色预警",
        ..first
    };
    let updated = post(top, &update.xml()).json();
    assert_eq!(updated["about"], taken["about"], "it moves the first one on");
    for node in [top, named, below] {
        assert_eq!(stands(node, "critical")["title"], "暴雨红色预警", "{}", node.address);
    }
    // The cancellation names the update alone; the chain is known all the same.
    let reference = format!("eoc@met.example,met-2,{sent_2}");
    let cancel = Warning { id: "met-3", sent: &sent_3, kind: "Cancel", references: &reference, ..first };
    assert_eq!(post(top, &cancel.xml()).json()["about"], taken["about"]);
    for node in [top, named, below] {
        wait_for("it is over", || warned(node, "").is_empty().then_some(()));
    }

    // The same on the command line, with a cancellation of the city's own.
    let file = tree.dir().join("storm.xml");
    let sent_4 = at(-5);
    std::fs::write(&file, Warning { id: "met-4", sent: &sent_4, ..first }.xml()).expect("it is written");
    let url = top.url();
    let cap = |words: &[&str]| run(&[&["cap"], words, &["--node", &url]].concat());
    cap(&["list"]).says(0, &["no warning is in force"]);
    cap(&["send", file.to_str().expect("UTF-8"), "--yes"]).says(0, &["taken: eoc@met.example,met-4", "told: c/s"]);
    cap(&["list"]).says(0, &["major", "暴雨橙色预警", "eoc@met.example,met-4"]);
    cap(&["show", "met-4"]).says(0, &["told       c/s"]);
    cap(&["show", "met-5"]).says(1, &["no warning in force is `met-5`"]);
    assert_eq!(stands(below, "major")["title"], "暴雨橙色预警");
    cap(&["cancel", "met-4"]).says(2, &["nothing was done"]);
    // As the bureau writes it, with its own offset.
    let named_4 = format!("eoc@met.example,met-4,{sent_4}");
    assert!(named_4.ends_with("+08:00"), "{named_4}");
    cap(&["show", &named_4]).says(0, &["told       c/s"]);
    cap(&["cancel", &named_4, "--note", "雨停了", "--yes"]).says(0, &["taken: c@citybrain,cancel-", "told: c/s"]);
    cap(&["cancel", "met-4", "--yes"]).says(1, &["no warning in force"]);
    for node in [top, named, below] {
        wait_for("it is over", || warned(node, "").is_empty().then_some(()));
    }
    std::fs::write(&file, "<alert/>").expect("it is written");
    cap(&["send", file.to_str().expect("UTF-8"), "--yes"]).says(1, &["line 1"]);
    assert!(warned(other, "&active=false").is_empty(), "the other street was never told");
}

/// What is current by the feed, each as its link has it.
fn current(node: &Node) -> Vec<String> {
    let feed = node.asker().get("/v1/cap.atom").text;
    let links = feed.split("<entry>").skip(1).map(|entry| {
        let path = entry.split(&format!("href=\"{}", node.url())).nth(1).expect("a link of the node's");
        node.asker().get(path.split('"').next().unwrap_or_default()).text
    });
    links.collect()
}

#[test]
fn a_warning_goes_out_as_it_came_in_and_once_at_however_many_nodes_it_is_an_alarm() {
    let tree = city();
    let (top, below) = (tree.node("c"), tree.node("c/s/m"));
    let (sent, expires) = (at(-60), at(3600));
    let alert = Warning::alert("met-1", &sent, "暴雨橙色预警", &expires);
    assert_eq!(post(top, &alert.xml()).status, 202);
    let of_whom = |node: &Node| {
        alarms(node, "name=warning").iter().map(|a| a["origin"].as_str().unwrap_or_default().to_owned()).collect()
    };
    wait_for("the city knows all alarms of it", || {
        let mut all: Vec<String> = of_whom(top);
        all.sort();
        (all == ["c", "c/s", "c/s/m"]).then_some(())
    });
    assert_eq!(current(top), [alert.xml()], "to the byte, so that a signature stays good");
    let told = current(below);
    assert_eq!(told.len(), 1, "{told:?}");
    for name in ["identifier", "sender", "sent", "scope", "category", "event", "expires", "areaDesc", "value"] {
        assert_eq!(part(&told[0], name), part(&alert.xml(), name), "{name}");
    }
    let url = tree.node("c/s").url();
    let id = warned(tree.node("c/s"), "")[0]["id"].as_str().expect("an id").to_owned();
    run(&["cap", "alarm", &id, "--node", &url]).says(0, &["<sender>eoc@met.example</sender>", "510115001000"]);

    // An update of the same severity and headline is another message all the same.
    let sent_2 = at(-30);
    let references = format!("eoc@met.example,met-1,{sent}");
    let update = Warning { id: "met-2", sent: &sent_2, kind: "Update", references: &references, ..alert };
    assert_eq!(post(top, &update.xml()).status, 202);
    wait_for("the update is current", || (current(top) == [update.xml()]).then_some(()));
    let feed = top.asker().get("/v1/cap.atom").text;
    assert!(feed.contains("<name>eoc@met.example</name>"), "{feed}");

    // Whose word ended it, the alarm says then.
    let alarm = warned(top, "")[0]["id"].as_str().expect("an id").to_owned();
    let url = top.url();
    run(&["cap", "cancel", "met-1", "--yes", "--node", &url]).says(0, &["taken: c@citybrain,cancel-"]);
    wait_for("it is over", || current(top).is_empty().then_some(()));
    let ended = top.asker().get(&format!("/v1/alarms/{alarm}/cap"));
    assert_eq!((part(&ended.text, "msgType"), part(&ended.text, "sender")), ("Cancel", "c@citybrain"));
    assert!(part(&ended.text, "references").contains("eoc@met.example,met-2,"), "{}", ended.text);
}

#[test]
fn a_warning_that_is_not_for_everybody_does_not_go_out_as_it_came() {
    let tree = city();
    let top = tree.node("c");
    let (sent, expires) = (at(-60), at(3600));
    for (id, scope) in [
        ("met-private", "<scope>Private</scope><addresses>duty@eoc.example</addresses>"),
        ("met-restricted", "<scope>Restricted</scope><restriction>duty officers</restriction>"),
    ] {
        let headline = format!("暴雨 {id}");
        let alert = Warning::alert(id, &sent, &headline, &expires).xml();
        let alert =
            alert.replace("<scope>Public</scope>", scope).replace("<area>", "<contact>13800000000</contact><area>");
        assert_eq!(post(top, &alert).status, 202);
        let alarm = wait_for("its alarm", || {
            let of_it = |a: &Value| a["title"] == headline.as_str();
            warned(top, "").iter().find(|a| of_it(a))?["id"].as_str().map(str::to_owned)
        });
        let told = top.asker().get(&format!("/v1/alarms/{alarm}/cap")).text;
        assert_eq!((part(&told, "scope"), part(&told, "restriction")), ("Restricted", "official use"), "{told}");
        assert_eq!((part(&told, "event"), part(&told, "sender")), ("暴雨", "c@citybrain"));
        let (all, feed) = (current(top), top.asker().get("/v1/cap.atom").text);
        assert!(!all.is_empty() && all.iter().all(|told| part(told, "scope") == "Restricted"), "{all:?}");
        for kept in [id, "eoc@met.example", "duty", "13800000000"] {
            assert!(all.iter().chain([&feed]).all(|told| !told.contains(kept)), "{kept}: {all:?} {feed}");
        }
        assert!(feed.contains("<title>暴雨</title>") && feed.contains("<name>c"), "{feed}");

        // Its end is one of what was said of it here.
        let said = part(&told, "identifier").to_owned();
        if id == "met-private" {
            let (sent_2, references) = (at(-30), format!("eoc@met.example,{id},{sent}"));
            let alert = Warning::alert("met-end", &sent_2, &headline, &expires);
            let cancel = Warning { kind: "Cancel", references: &references, ..alert }.xml();
            assert_eq!(post(top, &cancel.replace("<scope>Public</scope>", scope)).status, 202);
        } else {
            run(&["cap", "cancel", id, "--yes", "--node", &top.url()]).says(0, &["taken: c@citybrain,cancel-"]);
        }
        let ended = wait_for("the end of it", || {
            let told = top.asker().get(&format!("/v1/alarms/{alarm}/cap"));
            (told.status == 200 && part(&told.text, "msgType") == "Cancel").then_some(told.text)
        });
        assert_eq!((part(&ended, "scope"), part(&ended, "sender")), ("Restricted", "c@citybrain"), "{ended}");
        assert!(part(&ended, "references").contains(&said), "{said}: {ended}");
        for kept in [id, "met-end", "eoc@met.example", "duty"] {
            assert!(!ended.contains(kept), "{kept}: {ended}");
        }
    }
}

#[test]
fn a_warning_that_is_not_for_everybody_stays_so_at_a_box_that_has_lost_its_disk_and_with_it_the_message() {
    let mut tree = city();
    // Its own words are for everybody.
    tree.edit("c/s", |text| format!("{text}\n[cap]\nrestriction = \"\"\n"));
    let (sent, expires) = (at(-60), at(3600));
    for (id, scope) in [
        ("met-public", "<scope>Public</scope>"),
        ("met-private", "<scope>Private</scope><addresses>duty@eoc.example</addresses>"),
        ("met-restricted", "<scope>Restricted</scope><restriction>duty officers</restriction>"),
    ] {
        let alert = Warning::alert(id, &sent, id, &expires).xml().replace("<scope>Public</scope>", scope);
        assert_eq!(post(tree.node("c"), &alert).status, 202);
    }
    wait_for("the street is warned", || (warned(tree.node("c/s"), "").len() == 3).then_some(()));
    tree.kill9("c/s");
    tree.lose_disk("c/s");
    tree.start_node("c/s");
    tree.wait_ready();
    let street = tree.node("c/s");
    wait_for("the street is warned again", || {
        (warned(street, "").len() == 3 && listed(street).len() == 3).then_some(())
    });
    let scopes = |title: &str| {
        let all = warned(street, "");
        let alarm = all.iter().find(|a| a["title"] == title)?["id"].as_str()?.to_owned();
        let told = street.asker().get(&format!("/v1/alarms/{alarm}/cap")).text;
        assert_eq!((part(&told, "sender"), part(&told, "event")), ("c/s@citybrain", "暴雨"), "{told}");
        Some(part(&told, "scope").to_owned())
    };
    let all = ["met-public", "met-private", "met-restricted"].map(|id| scopes(id).expect("its alarm"));
    assert_eq!(all, ["Public", "Restricted", "Restricted"]);
    // Nor is the end of it for everybody.
    for id in ["met-public", "met-private"] {
        run(&["cap", "cancel", id, "--yes", "--node", &street.url()]).says(0, &["taken: c/s@citybrain,cancel-"]);
    }
    let said = street.get_text("/v1/events?type=city.cap.message").expect("events");
    let scope =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["event"]["data"]["message"]["scope"].clone();
    assert_eq!(said.lines().map(scope).collect::<Vec<_>>(), ["Public", "Restricted"]);
}

#[test]
fn one_cancellation_ends_all_that_it_refers_to_and_an_update_that_is_late_revives_nothing() {
    let tree = city();
    let (top, named) = (tree.node("c"), tree.node("c/s"));
    let expires = at(3600);
    let sent: Vec<String> = [-60, -50, -40, -20].map(at).to_vec();
    let first = Warning::alert("met-a", &sent[0], "a", &expires);
    let second = Warning { id: "met-b", sent: &sent[1], headline: "b", ..first };
    for warning in [&first, &second] {
        assert_eq!(post(top, &warning.xml()).status, 202);
    }
    for node in [top, named] {
        wait_for("both are alarms", || (warned(node, "").len() == 2).then_some(()));
    }
    let of_first = format!("eoc@met.example,met-a,{}", sent[0]);
    let update = Warning { id: "met-u", sent: &sent[2], kind: "Update", references: &of_first, ..first };
    assert_eq!(post(top, &update.xml()).status, 202);
    let both = format!("eoc@met.example,met-a,{} eoc@met.example,met-b,{} x@y,z,{}", sent[0], sent[1], sent[0]);
    let cancel = Warning { id: "met-d", sent: &sent[3], kind: "Cancel", references: &both, ..first };
    let taken = post(top, &cancel.xml()).json();
    assert!(taken["note"].as_str().is_some_and(|n| n.contains("x@y,z,") && !n.contains("met-a")), "{taken}");
    for node in [top, named] {
        wait_for("both are over", || warned(node, "").is_empty().then_some(()));
    }
    // Sent before the cancellation, it comes behind it.
    for (id, references) in [("met-a", &sent[0]), ("met-b", &sent[1])] {
        let references = format!("eoc@met.example,{id},{references}");
        let late = Warning { id: "met-c", sent: &sent[2], kind: "Update", references: &references, ..first };
        let refused = post(top, &late.xml());
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("cancelled")), "{}", refused.text);
    }
    // A feed that is read again and again brings what was taken: that is known, and no fault of anybody.
    let letters = || top.asker().get("/v1/dlq").json()["dead_letters"].as_array().expect("a list").len();
    let before = letters();
    for known in [&first, &second, &update, &cancel] {
        let again = post(top, &known.xml());
        assert_eq!((again.status, &again.json()["duplicate"]), (200, &json!(true)), "{}", again.text);
    }
    assert_eq!(letters(), before);
    // An alert that comes behind its own cancellation warns nobody.
    let of_late = format!("eoc@met.example,met-e,{}", sent[2]);
    let early = Warning { id: "met-f", sent: &sent[3], kind: "Cancel", references: &of_late, ..first };
    assert_eq!(post(top, &early.xml()).status, 202);
    let refused = post(top, &Warning { id: "met-e", sent: &sent[2], ..first }.xml());
    assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("cancelled")), "{}", refused.text);
    assert!(warned(top, "").is_empty() && warned(named, "").is_empty());
}

#[test]
fn a_cancellation_that_an_update_has_overtaken_ends_nothing() {
    let tree = city();
    let (top, named) = (tree.node("c"), tree.node("c/s"));
    let expires = at(3600);
    let sent: Vec<String> = [-60, -40, -20].map(at).to_vec();
    let alert = Warning::alert("met-a", &sent[0], "a", &expires);
    let references = format!("eoc@met.example,met-a,{}", sent[0]);
    let cancel = Warning { id: "met-b", sent: &sent[1], kind: "Cancel", references: &references, ..alert };
    let update =
        Warning { id: "met-c", sent: &sent[2], kind: "Update", references: &references, headline: "b", ..alert };
    for warning in [&alert, &update] {
        assert_eq!(post(top, &warning.xml()).status, 202);
    }
    let taken = post(top, &cancel.xml());
    assert_eq!(taken.status, 202, "{}", taken.text);
    assert!(taken.json()["note"].as_str().is_some_and(|n| n.contains("sent after it is in force")), "{}", taken.text);
    assert!(taken.json()["notified"].as_array().is_none_or(Vec::is_empty), "{}", taken.text);
    // Whoever was told of the alert hears of the update behind it, and of no end.
    let newer = Warning { id: "met-d", sent: &at(-5), severity: "Extreme", ..update };
    assert_eq!(post(top, &newer.xml()).status, 202);
    for node in [top, named] {
        let is_newest = |w: &Value| w["severity"] == "critical";
        wait_for("the newest is in force", || warned(node, "").iter().any(is_newest).then_some(()));
        let now = warned(node, "");
        assert_eq!((now.len(), &now[0]["raises"]), (1, &json!(1)), "it has never ended");
    }
}

#[test]
fn a_warning_that_expires_is_over_by_itself_also_where_the_line_is_cut() {
    let mut tree = city();
    let (sent, expires) = (at(-1), at(4));
    let warning = Warning {
        id: "met-9",
        sent: &sent,
        status: "Actual",
        kind: "Alert",
        references: "",
        severity: "Moderate",
        headline: "大风蓝色预警",
        expires: &expires,
    };
    assert_eq!(post(tree.node("c"), &warning.xml()).status, 202);
    wait_for("the street has it", || (warned(tree.node("c/s"), "").len() == 1).then_some(()));
    tree.stop_node("c");
    wait_for("it is over at the street", || warned(tree.node("c/s"), "").is_empty().then_some(()));
    let ends: DateTime<FixedOffset> = expires.parse().expect("a time");
    assert!(Utc::now() >= ends, "and not before its time");
    tree.start_node("c");
    tree.wait_ready();
    wait_for("and at the city, which was away", || warned(tree.node("c"), "").is_empty().then_some(()));
    let again = post(tree.node("c"), &warning.xml());
    assert_eq!(
        (again.status, &again.json()["duplicate"]),
        (200, &json!(true)),
        "what was taken is known: {}",
        again.text
    );
}

#[test]
fn a_warning_that_names_no_place_by_a_code_reaches_all_and_one_for_nobody_here_says_so() {
    let tree = city();
    let top = tree.node("c");
    let (sent, expires) = (at(-60), at(3600));
    let alert = Warning::alert("met-1", &sent, "x", &expires).xml();
    let (from, to) = (alert.find("<geocode>").expect("a geocode"), alert.find("</geocode>").expect("its end"));
    // As an ordinary gateway of a bureau sends it.
    let bare = format!("{}<polygon>30,103 30,104 31,104 30,103</polygon>{}", &alert[..from], &alert[to + 10..]);
    let taken = post(top, &bare).json();
    assert_eq!((&taken["notified"], &taken["note"]), (&json!(["c"]), &Value::Null), "{taken}");
    for address in ["c", "c/s", "c/s/m", "c/t"] {
        stands(tree.node(address), Some("major"));
    }
    let mistyped = alert.replace("met-1", "met-2").replace("510115001000", "999999999999");
    let taken = post(top, &mistyped).json();
    assert_eq!(taken["notified"], json!([]), "{taken}");
    let file = tree.dir().join("storm.xml");
    std::fs::write(&file, &mistyped).expect("it is written");
    let sent = run(&["cap", "send", file.to_str().expect("UTF-8"), "--yes", "--node", &top.url()]);
    sent.says(0, &["told: nobody below", "note: no node here has the code 999999999999", "`[node]`", "`[cap] notify"]);
}

#[test]
fn what_is_no_warning_makes_none_and_is_told_why() {
    let tree = city();
    let top = tree.node("c");
    let (sent, expires, past) = (at(-60), at(3600), at(-30));
    let good = Warning::alert("met-5", &sent, "x", &expires);
    for status in ["Exercise", "System", "Test", "Draft"] {
        let id = format!("met-{status}");
        let taken = post(top, &Warning { status, id: &id, ..good }.xml()).json();
        assert_eq!(taken["notified"], json!([]), "{taken}");
        assert!(taken["note"].as_str().is_some_and(|n| n.contains(status)), "{taken}");
    }
    let from = good.xml().find("<info>").expect("an info");
    let heartbeat = format!("{}</alert>", &good.xml()[..from]).replace("Actual", "System").replace("met-5", "beat");
    assert_eq!(post(top, &heartbeat).status, 202, "a system asks whether another is there");
    let ack = Warning { kind: "Ack", references: "a@b,1,2026-07-01T08:00:00+08:00", ..good };
    assert!(post(top, &ack.xml()).json()["note"].as_str().is_some_and(|n| n.contains("nothing follows")));
    let unknown = Warning { kind: "Cancel", references: "a@b,1,2026-07-01T08:00:00+08:00", id: "met-6", ..good };
    assert!(post(top, &unknown.xml()).json()["note"].as_str().is_some_and(|n| n.contains("nothing that is in force")));

    let over = post(top, &Warning { expires: &past, id: "met-7", ..good }.xml());
    assert_eq!((over.status, &over.json()["error"]), (400, &json!("expired")));
    let entity = good.xml().replace("<alert ", "<!DOCTYPE x [<!ENTITY x SYSTEM \"file:///etc/hostname\">]>\n<alert ");
    for (xml, words) in [
        (good.xml().replace("<scope>Public</scope>", ""), "line 2, column 1: `scope` is missing in `alert`"),
        (good.xml().replace("</info>", ""), "line 1"),
        (entity, "line 2, column 1: a document type is not taken"),
        ("{}".into(), "text outside"),
    ] {
        let got = post(top, &xml);
        let told = got.json();
        assert_eq!((got.status, &told["error"]), (400, &json!("not-cap")), "{told}");
        let detail = told["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(words) || (words == "line 1" && detail.contains("this is no XML")), "{detail}");
    }
    assert_eq!(post(top, &format!("{}{}", good.xml(), " ".repeat(100_000))).status, 413);
    assert_eq!(top.asker().post_as("/v1/cap", "application/json", "{}").status, 415);
    // What was refused is kept.
    let is_kept = |l: &&Value| l["reason"] == "not-cap";
    wait_for("all four letters are kept", || {
        let letters = top.get("/v1/dlq")?;
        (letters["dead_letters"].as_array()?.iter().filter(is_kept).count() == 4).then_some(())
    });

    // Nobody at the front door speaks for a bureau.
    let mut device = Client::connect(top.mqtt, "device", true);
    let forged = json!({"specversion": "1.0", "id": "1", "source": "cap:eoc@met.example", "type": "city.cap.message", "subject": "x",
        "data": {"msg_type": "Alert", "level": "critical", "headline": "x"}});
    assert!(device.publish("in/x", forged.to_string().as_bytes()));
    wait_for("it is refused", || top.get("/v1/dlq")?.to_string().contains("only a node itself writes").then_some(()));
    assert!(warned(top, "&active=false").is_empty(), "none of this is an alarm");
}

fn listed(node: &Node) -> Vec<Value> {
    node.get("/v1/cap").and_then(|w| w["warnings"].as_array().cloned()).unwrap_or_default()
}

/// The warning is in force and an alarm there at that level, or neither; the two never say otherwise for long.
fn stands(node: &Node, level: Option<&str>) {
    wait_for(&format!("at {}: {level:?}", node.address), || {
        let of = |all: Vec<Value>, key: &str| all.iter().map(|w| w[key].clone()).collect::<Vec<_>>();
        let wanted: Vec<Value> = level.into_iter().map(Value::from).collect();
        (of(listed(node), "level") == wanted && of(warned(node, ""), "severity") == wanted).then_some(())
    });
}

/// So many messages of CAP have come to the node.
fn has_heard(node: &Node, messages: usize) {
    wait_for("its log has the message", || {
        let is_one = |r: &&crate::harness::Record| r.event_type == "city.cap.message";
        (node.records().iter().filter(is_one).count() == messages).then_some(())
    });
}

#[test]
fn a_warning_that_came_in_below_is_over_above_when_it_expires_or_is_cancelled_there() {
    let tree = city();
    let (top, street, low) = (tree.node("c"), tree.node("c/s"), tree.node("c/s/m"));
    let (sent, expires) = (at(-60), at(4));
    assert_eq!(post(street, &Warning::alert("met-1", &sent, "x", &expires).xml()).status, 202);
    stands(top, Some("major"));
    for node in [top, street, low] {
        stands(node, None);
    }
    assert!(Utc::now() >= expires.parse::<DateTime<FixedOffset>>().expect("a time"), "and not before its time");

    // It came in below only; it ends there, too, and at all on the way.
    let expires = at(3600);
    let alert = Warning::alert("met-2", &sent, "x", &expires);
    assert_eq!(post(low, &alert.xml()).status, 202);
    for node in [top, street, low] {
        stands(node, Some("major"));
    }
    let (references, now) = (format!("eoc@met.example,met-2,{sent}"), at(0));
    let cancel = Warning { id: "met-3", sent: &now, kind: "Cancel", references: &references, ..alert };
    let xml = cancel.xml();
    let from = xml.find("<info>").expect("an info");
    let taken = post(top, &format!("{}</alert>", &xml[..from])).json();
    assert_eq!((&taken["notified"], &taken["note"]), (&json!(["c/s/m"]), &Value::Null), "{taken}");
    for node in [top, street, low] {
        stands(node, None);
    }
}

#[test]
fn a_word_from_below_ends_and_lowers_nothing_that_holds_for_more() {
    let tree = city();
    let (top, street, low) = (tree.node("c"), tree.node("c/s"), tree.node("c/s/m"));
    let (sent, expires) = (at(-60), at(3600));
    let alert = Warning::alert("met-1", &sent, "x", &expires);
    assert_eq!(post(top, &alert.xml()).status, 202);
    stands(low, Some("major"));
    let (references, now) = (format!("eoc@met.example,met-1,{sent}"), at(-30));
    let milder =
        Warning { id: "met-2", sent: &now, kind: "Update", references: &references, severity: "Minor", ..alert };
    assert_eq!(post(low, &milder.xml()).json()["notified"], json!(["c/s/m"]), "nobody else is below it");
    stands(low, Some("warning"));
    has_heard(street, 1);
    has_heard(top, 2);
    let url = low.url();
    run(&["cap", "cancel", "met-1", "--yes", "--node", &url])
        .says(0, &["told: c/s/m\n", "note: it came from c, and goes on there"]);
    stands(low, None);
    has_heard(street, 2);
    has_heard(top, 3);
    for node in [top, street] {
        stands(node, Some("major"));
        assert_eq!(warned(node, "")[0]["raises"], json!(1), "it has never ended");
    }
    run(&["cap", "cancel", "met-1", "--yes", "--node", &top.url()]).says(0, &["told: c/s\n"]);
    for node in [top, street, low] {
        stands(node, None);
    }
}

#[test]
fn a_box_that_has_lost_its_disk_is_warned_again() {
    let mut tree = city();
    let (sent, expires) = (at(-60), at(3600));
    assert_eq!(post(tree.node("c"), &Warning::alert("met-1", &sent, "x", &expires).xml()).status, 202);
    // From below, at the same node.
    assert_eq!(post(tree.node("c/s"), &Warning::alert("met-2", &sent, "x", &expires).xml()).status, 202);
    let both = |tree: &Tree, address: &str| {
        let node = tree.node(address);
        wait_for("both are alarms", || (warned(node, "").len() == 2 && listed(node).len() == 2).then_some(()));
    };
    for address in ["c", "c/s", "c/s/m"] {
        both(&tree, address);
    }
    for lost in ["c/s", "c/s/m"] {
        tree.kill9(lost);
        tree.lose_disk(lost);
        tree.start_node(lost);
        tree.wait_ready();
        both(&tree, lost);
    }
}

#[test]
fn a_box_in_place_of_a_lost_one_says_that_its_parent_has_not_told_it_yet_what_is_in_force() {
    let mut tree = city();
    let (sent, expires) = (at(-60), at(3600));
    assert_eq!(post(tree.node("c"), &Warning::alert("met-1", &sent, "x", &expires).xml()).status, 202);
    stands(tree.node("c/s"), Some("major"));
    for gone in ["c", "c/s"] {
        tree.kill9(gone);
    }
    tree.lose_disk("c/s");
    tree.start_node("c/s");
    tree.wait_ready();
    let street = tree.node("c/s");
    let url = street.url();
    // Why it waits, its child may have told it by now.
    let missing = "no warning is in force\nsome may be missing here, or old: c/s ";
    let waits = "; its warnings wait until the parent has said what it knows of them";
    run(&["cap", "list", "--node", &url]).says(0, &[missing, waits]);
    assert_eq!(street.get("/v1/cap").expect("warnings")["awaits"]["parent"], json!(true));
    run(&["cap", "show", "met-1", "--node", &url])
        .says(1, &["`met-1`, as far as is known", waits, "`citybrain why c/s`"]);
    run(&["cap", "cancel", "met-1", "--yes", "--node", &url]).says(1, &["`met-1`, as far as is known", waits]);
    let atom = street.asker().get("/v1/cap.atom");
    let says = part(&atom.text, "subtitle xml:lang=\"en\"").to_owned();
    let whole = says.starts_with("some may be missing here, or old: c/s ") && says.contains("; its alarms wait until");
    assert!(whole, "{says}");
    tree.start_node("c");
    tree.wait_ready();
    let street = tree.node("c/s");
    stands(street, Some("major"));
    wait_for("nothing is missing any more", || street.get("/v1/cap")?["awaits"].is_null().then_some(()));
    assert!(!street.asker().get("/v1/cap.atom").text.contains("subtitle"));
    let shown = run(&["cap", "list", "--node", &street.url()]);
    shown.says(0, &["met-1"]);
    assert!(!shown.out.contains("missing"), "{}", shown.out);
}

#[test]
fn of_several_areas_each_node_is_told_the_worst_that_is_said_of_it() {
    let tree = city();
    let (sent, expires) = (at(-60), at(3600));
    let info = |severity: &str, headline: &str, code: &str| {
        let xml = Warning { severity, ..Warning::alert("met-1", &sent, headline, &expires) }.xml();
        let (from, to) = (xml.find("<info>").expect("an info"), xml.find("</alert>").expect("an end"));
        xml[from..to].replace("510115001000", code)
    };
    let whole = Warning::alert("met-1", &sent, "", &expires).xml();
    let head = &whole[..whole.find("<info>").expect("an info")];
    let all = [
        info("Minor", "蓝色", "510115002000"),
        info("Extreme", "红色", "510115001000"),
        info("Severe", "橙色", "510115001000"),
        info("Extreme", "elsewhere", "440100000000"),
    ];
    let taken = post(tree.node("c"), &format!("{head}{}</alert>", all.concat()));
    assert_eq!((taken.status, &taken.json()["notified"]), (202, &json!(["c/s", "c/t"])), "{}", taken.text);
    for (address, level, headline) in [
        ("c", "critical", "红色"),
        ("c/s", "critical", "红色"),
        ("c/s/m", "critical", "红色"),
        ("c/t", "warning", "蓝色"),
    ] {
        stands(tree.node(address), Some(level));
        assert_eq!(warned(tree.node(address), "")[0]["title"], headline, "at {address}");
    }
}
