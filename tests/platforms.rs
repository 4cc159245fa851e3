//! What other platforms lean on: tags of what they have seen, changes asked for twice, a supervisor's
//! token, and a bound of requests.

use crate::harness::http::Told;
use crate::harness::ran::{run, token};
use crate::harness::{Node, Signal, Tree, clock_ahead};
use serde_json::{Value, json};
use std::sync::Barrier;
use std::time::Duration;

const CATEGORY: &str = "[[category]]\ncode = \"SJ0102\"\nname = \"暴露垃圾\"\nresponse = \"2h\"\nsolution = \"4wh\"\n";

fn a_city(api: &str) -> Tree {
    let mut tree = Tree::new(&["c"]);
    tree.edit("c", |text| format!("{CATEGORY}{}", text.replace("[api]\n", &format!("[api]\n{api}\n"))));
    std::fs::write(tree.dir().join("tokens"), "").expect("it is written");
    tree.start_node("c");
    tree.wait_ready();
    tree
}

/// `None` while the node does not answer.
fn tried(node: &Node, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Option<Told> {
    let body = if method == "GET" { String::new() } else { body.to_string() };
    node.asker().tried(method, path, headers, body)
}

fn ask(node: &Node, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Told {
    tried(node, method, path, headers, &body).expect("the node answers")
}

fn a_case(node: &Node) -> String {
    let new = json!({"category": "暴露垃圾", "title": "三号门", "by": "a"});
    let told = ask(node, "POST", "/v1/cases", &[], new);
    assert_eq!(told.status, 201, "{}", told.text);
    told.json()["case"]["id"].as_str().expect("an id").to_owned()
}

fn comments(node: &Node, case: &str) -> Vec<String> {
    let told = ask(node, "GET", &format!("/v1/cases/{case}"), &[], json!(null)).json();
    let lines = told["history"].as_array().expect("a history");
    lines.iter().filter(|l| l["step"] == "comment").map(|l| l["text"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn whoever_has_a_case_is_told_so_and_whoever_steps_an_old_sight_of_it_is_refused() {
    let tree = a_city("");
    let node = tree.node("c");
    let at = format!("/v1/cases/{}", a_case(node));
    let seen = ask(node, "GET", &at, &[], json!(null));
    let tag = seen.header("etag").to_owned();
    let again = ask(node, "GET", &at, &[("if-none-match", &tag)], json!(null));
    assert_eq!((again.status, again.header("etag")), (304, tag.as_str()));
    let step = |verb: &str, tag: &str| {
        ask(node, "POST", &format!("{at}/{verb}"), &[("if-match", tag)], json!({"by": "a", "text": "x"}))
    };
    let accepted = step("accept", &tag);
    assert_eq!(accepted.status, 200, "{}", accepted.text);
    let late = step("dispatch", &tag);
    assert_eq!(late.error(), (412, "moved-on".into()));
    assert_eq!(ask(node, "GET", &at, &[("if-none-match", &tag)], json!(null)).status, 200, "it is another one now");
    assert_eq!(step("dispatch", accepted.header("etag")).status, 200, "what a step answers can be stepped on");
    assert_eq!(step("comment", "*").status, 200);
    assert_eq!(step("comment", "no tag").error(), (400, "bad-tag".into()));
    let body = ask(node, "POST", &format!("{at}/comment"), &[], json!({"by": "a", "text": "x", "seen": ["1.1"]}));
    assert_eq!(body.error(), (412, "moved-on".into()), "the body may say it, too");

    // Of many that have seen the same, one is in time: it is judged where the step is committed.
    let tag = ask(node, "GET", &at, &[], json!(null)).header("etag").to_owned();
    let (start, at, tag) = (Barrier::new(8), &at, &tag);
    let mut all: Vec<u16> = std::thread::scope(|s| {
        let one = |i: usize| {
            let start = &start;
            s.spawn(move || {
                start.wait();
                let body = json!({"by": format!("w{i}"), "text": "race"});
                ask(node, "POST", &format!("{at}/comment"), &[("if-match", tag)], body).status
            })
        };
        let all: Vec<_> = (0..8).map(one).collect();
        all.into_iter().map(|t| t.join().expect("it ends")).collect()
    });
    all.sort_unstable();
    assert_eq!(all, [200, 412, 412, 412, 412, 412, 412, 412]);

    for path in ["/v1/cases", "/v1/alarms", "/v1/services", "/v1/directives", "/v1/scenes"] {
        let tag = ask(node, "GET", path, &[], json!(null)).header("etag").to_owned();
        assert_eq!(ask(node, "GET", path, &[("if-none-match", &tag)], json!(null)).status, 304, "{path}");
    }
}

#[test]
fn a_change_asked_for_twice_under_one_key_is_made_once_and_answered_the_same() {
    let mut tree = a_city("");
    let node = tree.node("c");
    let key = |word: &'static str| [("idempotency-key", word)];
    let new = json!({"category": "暴露垃圾", "title": "三号门", "by": "a"});
    let first = ask(node, "POST", "/v1/cases", &key("\"k-1\""), new.clone());
    assert_eq!(first.status, 201, "{}", first.text);
    let case = first.json()["case"]["id"].as_str().expect("an id").to_owned();
    let comment = format!("/v1/cases/{case}/comment");
    let said = ask(node, "POST", &comment, &key("k-2"), json!({"by": "a", "text": "one"}));
    assert_eq!(said.status, 200, "{}", said.text);
    ask(node, "POST", &comment, &[], json!({"by": "a", "text": "two"}));
    // A key is one for whatever it was used for.
    let other = ask(node, "POST", &comment, &key("k-2"), json!({"by": "a", "text": "other"}));
    assert_eq!(other.error(), (422, "key-used".into()));
    assert_eq!(ask(node, "POST", "/v1/cases", &key("k-2"), new.clone()).error(), (422, "key-used".into()));
    assert_eq!(ask(node, "POST", &comment, &key("two words"), json!({})).error(), (400, "bad-key".into()));
    // It keeps no call for help away.
    for (word, place) in [("two words", "1栋"), ("k-1", "2栋"), ("k-2", "3栋")] {
        let press = json!({"sos": true, "title": "摔倒了", "place": {"text": place}, "governance": "zz", "by": "a"});
        let told = ask(node, "POST", "/v1/cases", &key(word), press);
        assert_eq!((told.status, told.json()["case"]["place"]["text"].as_str()), (201, Some(place)), "{}", told.text);
        assert_eq!(told.json()["case"]["governance"], json!(null), "{}", told.text);
        let event = json!({"specversion": "1.0", "id": place, "source": "/b", "type": "city.sos.pressed.v1"});
        let headers = [("idempotency-key", word), ("content-type", "application/cloudevents+json")];
        let told = ask(node, "POST", "/v1/events", &headers, event);
        assert_eq!(told.status, 202, "{word}: {}", told.text);
    }
    let odd = json!({"category": "暴露垃圾", "title": "三号门", "by": "a", "governance": "autonmy"});
    let odd = ask(node, "POST", "/v1/cases", &[], odd);
    assert!(odd.status == 400 && odd.text.contains("did you mean `autonomy`?"), "{}", odd.text);
    // What was refused has changed nothing, and is not kept.
    assert_eq!(ask(node, "POST", &comment, &key("k-3"), json!({"by": "a"})).status, 400);
    assert_eq!(ask(node, "POST", &comment, &key("k-3"), json!({"by": "a", "text": "three"})).status, 200);
    let notice = json!({"target": "c", "type": "city.notice"});
    let sent = ask(node, "POST", "/v1/send", &key("k-4"), notice.clone());

    // What says whom to call is not stored: it is found by what was made, and shown as it stands.
    let whom =
        json!({"category": "暴露垃圾", "title": "四号门", "by": "a", "contact": {"name": "王大妈", "phone": "139"}});
    let called = ask(node, "POST", "/v1/cases", &key("k-5"), whom.clone());
    assert_eq!((called.status, called.json()["contact"]["phone"].as_str()), (201, Some("139")));

    tree.kill9("c");
    tree.start_node("c");
    tree.wait_ready();
    let node = tree.node("c");
    let again = ask(node, "POST", "/v1/cases", &key("k-5"), whom.clone());
    assert_eq!((again.status, &again.json()["case"]), (201, &called.json()["case"]));
    let other = json!({"category": "暴露垃圾", "title": "五号门", "by": "a"});
    assert_eq!(ask(node, "POST", "/v1/cases", &key("k-5"), other).error(), (422, "key-used".into()));
    let again = ask(node, "POST", "/v1/cases", &key("k-1"), new);
    assert_eq!((again.status, again.text.as_str()), (201, first.text.as_str()), "the stored answer");
    let again = ask(node, "POST", &comment, &key("k-2"), json!({"by": "a", "text": "one"}));
    assert_eq!((again.status, again.text.as_str()), (200, said.text.as_str()));
    assert_eq!(again.header("etag"), said.header("etag"));
    assert_eq!(ask(node, "POST", "/v1/send", &key("k-4"), notice).text, sent.text);
    assert_eq!(comments(node, &case), ["one", "two", "three"]);
    let all = ask(node, "GET", "/v1/cases?category=SJ0102", &[], json!(null)).json();
    assert_eq!(all["fit"], 2);
    let directives = ask(node, "GET", "/v1/directives", &[], json!(null)).json()["directives"].clone();
    let notices = directives.as_array().expect("a list").iter().filter(|d| d["type"] == "city.notice");
    assert_eq!(notices.count(), 1);
}

#[test]
fn events_without_an_id_are_taken_once_under_one_key_though_the_answer_was_not_kept() {
    let tree = a_city("");
    let node = tree.node("c");
    // So long an answer is not kept: the second request is made again.
    let event = json!({"specversion": "1.0", "source": format!("/{}", "x".repeat(200)), "type": "city.count"});
    let mut events = vec![event; 800];
    events[7]["id"] = "its own".into();
    let post = |events: &Vec<serde_json::Value>| {
        let headers = [("idempotency-key", "batch-1"), ("content-type", "application/cloudevents-batch+json")];
        ask(node, "POST", "/v1/events", &headers, json!(events))
    };
    let first = post(&events);
    assert_eq!(first.status, 202, "{}", first.text);
    assert!(first.text.len() > 128 * 1024);
    let again = post(&events);
    assert_eq!(again.status, 200, "all are there already");
    let ids = |told: &Told| -> Vec<String> {
        let events = told.json()["events"].as_array().expect("a list").clone();
        events.iter().map(|e| e["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&again), ids(&first));
    assert_eq!(ids(&first)[7], "its own");
    assert_eq!(node.records().iter().filter(|r| r.event_type == "city.count").count(), 800);
    // Without a key nobody can know.
    let one = json!({"specversion": "1.0", "source": "/x", "type": "city.count"});
    let kind = [("content-type", "application/cloudevents+json")];
    assert_eq!(ask(node, "POST", "/v1/events", &kind, one.clone()).status, 202);
    assert_eq!(ask(node, "POST", "/v1/events", &kind, one).status, 202);
}

#[test]
fn what_is_bad_in_a_batch_keeps_no_call_for_help_away() {
    let tree = a_city("");
    let node = tree.node("c");
    let event = |kind: &str, data: serde_json::Value| json!({"specversion": "1.0", "source": "/panel", "id": kind, "type": kind, "data": data});
    let post = |events: serde_json::Value| {
        let headers = [("content-type", "application/cloudevents-batch+json")];
        ask(node, "POST", "/v1/events", &headers, events)
    };
    let (press, odd) =
        (event("city.sos.pressed.v1", json!({})), event("city.smoke.reading.v1", json!({"smoke": "maybe"})));
    let count = event("city.count", json!(1));
    let told = post(json!([count, odd, press]));
    assert_eq!((told.status, told.json()["error"].as_str()), (400, Some("unread-alarm")), "{}", told.text);
    assert!(told.text.contains("event 2 of the batch"), "{}", told.text);
    assert!(told.text.contains("what is urgent of the batch was taken (1 event), and nothing else"), "{}", told.text);
    let taken = |kind: &str| node.records().iter().filter(|r| r.event_type == kind).count();
    assert_eq!((taken("city.sos.pressed.v1"), taken("city.count")), (1, 0));
    assert_eq!(node.get("/v1/cases").expect("cases")["cases"].as_array().map(Vec::len), Some(1));
    // Sent again without what was bad, the press is there already.
    assert_eq!(post(json!([count, press])).status, 202);
    assert_eq!((taken("city.sos.pressed.v1"), taken("city.count")), (1, 1));
    let none = post(json!([count, odd]));
    assert!(none.status == 400 && none.text.contains("none of the batch was taken"), "{}", none.text);
}

#[test]
fn a_press_that_is_sent_again_with_its_key_is_one_case_though_the_key_is_bad_or_was_used_for_another_request() {
    let mut tree = a_city("");
    let press = |node: &Node, word: &str, title: &str| {
        let told = ask(node, "POST", "/v1/cases", &[("idempotency-key", word)], json!({"sos": true, "title": title}));
        assert_eq!(told.status, 201, "{word}: {}", told.text);
        told.json()["case"]["id"].as_str().expect("an id").to_owned()
    };
    let node = tree.node("c");
    let first = press(node, "k-1", "摔倒了");
    let (other, bad) = (press(node, "k-1", "胸口疼"), press(node, "two words", "起火了"));
    assert!(first != other && first != bad && other != bad);
    let again = |node: &Node| {
        assert_eq!(press(node, "k-1", "摔倒了"), first);
        assert_eq!(press(node, "k-1", "胸口疼"), other);
        assert_eq!(press(node, "two words", "起火了"), bad);
    };
    again(node);
    tree.kill9("c");
    tree.start_node("c");
    tree.wait_ready();
    let node = tree.node("c");
    again(node);
    // A key that says nothing tells no press from another: somebody else may press with the same words.
    assert_ne!(press(node, "", "摔倒了"), press(node, "\"\"", "摔倒了"));
    assert_ne!(press(node, "", "救命"), press(node, "", "救命"));
}

#[test]
fn neither_its_key_nor_its_token_s_limit_keeps_what_calls_for_help_in_a_batch_away() {
    let tree = a_city("tokens_file = \"tokens\"\nrequests_per_minute_of = { operator = 2 }");
    let node = tree.node("c");
    let [bearer, reads] =
        [("hub", "operator"), ("eyes", "reader")].map(|(of, role)| format!("Bearer {}", token(&tree, of, role)));
    let event = |kind: &str, id: &str| json!({"specversion": "1.0", "source": "/panel", "id": format!("{kind}-{id}"), "type": kind, "data": {}});
    let post = |key: &str, id: &str| {
        let kind = ("content-type", "application/cloudevents-batch+json");
        let headers = [("authorization", bearer.as_str()), kind, ("idempotency-key", key)];
        let batch = json!([event("city.count", id), event("city.sos.pressed.v1", id)]);
        ask(node, "POST", "/v1/events", &headers, batch)
    };
    let taken = |kind: &str| {
        let told =
            ask(node, "GET", &format!("/v1/events?type={kind}"), &[("authorization", reads.as_str())], json!(null));
        assert_eq!(told.status, 200, "{}", told.text);
        told.text.lines().count()
    };
    assert_eq!(post("k-1", "1").status, 202);
    let used = post("k-1", "2");
    assert_eq!(used.error(), (422, "key-used".into()));
    let told = "what is urgent of the batch was taken (1 event), and nothing else";
    assert!(used.text.contains(told), "{}", used.text);
    assert_eq!((taken("city.sos.pressed.v1"), taken("city.count")), (2, 1));
    let often = post("k-3", "3");
    assert_eq!(often.error(), (429, "too-many".into()));
    assert!(often.text.contains(told) && !often.header("retry-after").is_empty(), "{}", often.text);
    assert_eq!((taken("city.sos.pressed.v1"), taken("city.count")), (3, 1));
}

#[test]
fn two_systems_that_number_alike_open_a_case_each() {
    let tree = a_city("tokens_file = \"tokens\"");
    let node = tree.node("c");
    let (li, mia) = (token(&tree, "li", "worker"), token(&tree, "mia", "worker"));
    let open = |token: &str| {
        let new = json!({"category": "暴露垃圾", "title": "三号门", "by": "a", "key": "4711"});
        let told = ask(node, "POST", "/v1/cases", &[("authorization", &format!("Bearer {token}"))], new);
        (told.status, told.json()["case"]["id"].as_str().unwrap_or_default().to_owned())
    };
    let (first, second) = (open(&li), open(&mia));
    assert_eq!((first.0, second.0), (201, 201));
    assert_ne!(first.1, second.1);
    assert_eq!((open(&li), open(&mia)), ((200, first.1), (200, second.1)));
}

#[test]
fn a_key_that_is_used_again_after_a_day_is_a_new_one() {
    let Some(clock) = clock_ahead("+25h") else { return };
    let mut tree = a_city("");
    let key = [("idempotency-key", "daily")];
    let send = |tree: &Tree, text: &str| {
        let notice = json!({"target": "c", "type": "city.notice", "data": {"text": text}});
        ask(tree.node("c"), "POST", "/v1/send", &key, notice)
    };
    let first = send(&tree, "morning");
    assert_eq!(first.status, 202, "{}", first.text);
    assert_eq!(send(&tree, "morning").text, first.text);
    assert_eq!(send(&tree, "evening").error(), (422, "key-used".into()));
    tree.stop_node("c");
    tree.node_mut("c").env = clock;
    tree.start_node("c");
    tree.wait_ready();
    let second = send(&tree, "the next morning");
    assert_eq!(second.status, 202, "{}", second.text);
    assert_ne!(second.json()["id"], first.json()["id"]);
    let id = second.json()["id"].as_str().expect("an id").to_owned();
    let shown = ask(tree.node("c"), "GET", &format!("/v1/events/{id}?source=/c"), &[], json!(null));
    assert!(shown.text.contains("the next morning"), "{}", shown.text);
}

#[test]
fn one_key_at_the_same_time_is_one_change_and_under_way_for_the_others() {
    let tree = a_city("");
    let node = tree.node("c");
    let case = a_case(node);
    let (path, start) = (format!("/v1/cases/{case}/comment"), Barrier::new(8));
    for round in 0..5 {
        let (path, start, word) = (&path, &start, format!("round-{round}"));
        let all: Vec<Told> = std::thread::scope(|s| {
            let word = &word;
            let one = || {
                s.spawn(move || {
                    start.wait();
                    ask(node, "POST", path, &[("idempotency-key", word)], json!({"by": "a", "text": word}))
                })
            };
            let all: Vec<_> = (0..8).map(|_| one()).collect();
            all.into_iter().map(|t| t.join().expect("it ends")).collect()
        });
        for told in &all {
            assert!(told.status == 200 || told.error() == (409, "under-way".into()), "{}", told.text);
        }
        assert!(all.iter().any(|t| t.status == 200));
    }
    assert_eq!(comments(node, &case).len(), 5);
}

#[test]
fn a_change_whose_answer_a_kill_took_is_made_once_when_it_is_asked_for_again() {
    let mut tree = a_city("");
    let case = a_case(tree.node("c"));
    let path = format!("/v1/cases/{case}/comment");
    let rounds = 8;
    for round in 0..rounds {
        let word = format!("kill-{round}");
        let body = json!({"by": "a", "text": word.clone()});
        // Killed while it is asked, somewhat later each time: before, between or behind the commits.
        std::thread::scope(|s| {
            let node = tree.node("c");
            let asked = s.spawn(|| tried(node, "POST", &path, &[("idempotency-key", &word)], &body));
            std::thread::sleep(Duration::from_micros(300 * round));
            node.signal(Signal::KILL);
            asked.join().expect("it ends");
        });
        tree.kill9("c");
        tree.start_node("c");
        tree.wait_ready();
        let node = tree.node("c");
        let told = ask(node, "POST", &path, &[("idempotency-key", &word)], body.clone());
        assert_eq!(told.status, 200, "{}", told.text);
        let twice = ask(node, "POST", &path, &[("idempotency-key", &word)], body);
        assert_eq!(twice.text, told.text);
        let said = comments(node, &case);
        assert_eq!(said.iter().filter(|t| **t == word).count(), 1, "{said:?}");
    }
    assert_eq!(comments(tree.node("c"), &case).len(), rounds as usize);
}

#[test]
fn a_supervisor_s_token_does_what_supervision_means_and_nothing_to_nodes() {
    let tree = a_city("tokens_file = \"tokens\"");
    let node = tree.node("c");
    let bearer = |name: &str, role: &str| format!("Bearer {}", token(&tree, name, role));
    let (li, zhan) = (bearer("li", "worker"), bearer("zhan", "supervisor"));
    let post = |who: &str, path: &str, body: Value| ask(node, "POST", path, &[("authorization", who)], body);
    let new =
        json!({"category": "暴露垃圾", "title": "三号门", "by": "x", "contact": {"name": "王大妈", "phone": "139"}});
    let case = post(&li, "/v1/cases", new).json()["case"]["id"].as_str().expect("an id").to_owned();
    let step = |who: &str, verb: &str, body: Value| post(who, &format!("/v1/cases/{case}/{verb}"), body);
    for (verb, body) in
        [("accept", json!({})), ("dispatch", json!({"unit": "城管"})), ("start", json!({"contacted": true}))]
    {
        assert_eq!(step(&li, verb, body).status, 200, "{verb}");
    }
    // An extension takes two: the worker asks, the supervisor says yes, and neither is both.
    let longer = json!({"by": "li", "text": "等车", "limit": "2wd"});
    assert_eq!(step(&li, "extend", longer.clone()).error(), (403, "forbidden".into()));
    assert_eq!(
        step(&zhan, "extend", json!({"by": "zhan", "text": "等车", "limit": "2wd"})).error(),
        (403, "own-approval".into())
    );
    let extended = step(&zhan, "extend", longer);
    assert_eq!(extended.status, 200, "{}", extended.text);
    let extended = extended.json()["case"]["extended"].clone();
    assert_eq!((extended["by"].as_str(), extended["approved_by"].as_str()), (Some("li"), Some("zhan")));
    assert_eq!(
        step(&zhan, "escalate", json!({"text": "督办"})).error(),
        (409, "nobody-above".into()),
        "it may, at the top nobody is above"
    );
    assert_eq!(step(&li, "resolve", json!({"text": "已清"})).status, 200);
    assert_eq!(step(&li, "evaluate", json!({"solved": "solved"})).status, 403);
    let done = step(&zhan, "evaluate", json!({"solved": "solved", "satisfied": "yes"}));
    assert_eq!(done.json()["case"]["verdict"]["by"], "zhan", "{}", done.text);
    assert_eq!(step(&zhan, "close", json!({"by": "somebody"})).status, 200);
    assert_eq!(step(&zhan, "reopen", json!({"text": "又有了"})).status, 200);
    let shown = ask(node, "GET", &format!("/v1/cases/{case}"), &[("authorization", &zhan)], json!(null)).json();
    assert_eq!(shown["contact"]["phone"], "139", "as a worker sees it");
    assert!(shown["history"].as_array().is_some_and(|h| h.iter().any(|l| l["step"] == "closed" && l["by"] == "zhan")));
    for (path, body) in [
        ("/v1/send", json!({"target": "c", "type": "t"})),
        ("/v1/log-level", json!({"level": "info"})),
        ("/v1/reload", json!({})),
        ("/v1/cases/import", json!({"cases": []})),
    ] {
        assert_eq!(post(&zhan, path, body).error(), (403, "forbidden".into()), "{path}");
    }
    assert_eq!(step(&zhan, "forget", json!({})).error(), (403, "forbidden".into()));
}

#[test]
fn a_slip_in_a_question_is_told_and_so_is_a_method_that_a_path_does_not_take() {
    let tree = a_city("tokens_file = \"tokens\"");
    let node = tree.node("c");
    let mia = format!("Bearer {}", token(&tree, "mia", "reader"));
    let asked = |method: &str, path: &str| ask(node, method, path, &[("authorization", &mia)], json!(null));
    for path in [
        "cases?kind=quatsch",
        "cases?limit=0",
        "events?limit=0",
        "alarms?limit=0",
        "directives?limit=0",
        "dlq?limit=0",
        "counts?by=source&limit=0",
        "cases?limit=1001",
        "alarms?limit=5001",
        "directives?limit=1001",
        "dlq?limit=1001",
        "counts?by=source&limit=1001",
        "supervision?limit=201",
        "events?governance=foo",
        "events?origin=%C3%84%C3%96",
        "counts?by=source&origin=C/S",
        "scenes?x=1",
        "cap?x=1",
        "status?x=1",
        "health?x",
    ] {
        assert_eq!(asked("GET", &format!("/v1/{path}")).error(), (400, "bad-query".into()), "{path}");
    }
    for path in [
        "cases?kind=appeal&limit=1",
        "events?governance=law&origin=c/*",
        "events?origin=c&limit=1",
        "events?origin=*",
        "events?origin=c/s*",
        "status",
        "status?",
    ] {
        let told = asked("GET", &format!("/v1/{path}"));
        assert_eq!(told.status, 200, "{path}: {}", told.text);
    }
    for (method, path) in [("DELETE", "/v1/cases"), ("PUT", "/v1/events"), ("POST", "/v1/status")] {
        assert_eq!(asked(method, path).error(), (405, "method".into()), "{method} {path}");
    }
    assert_eq!(asked("POST", "/v1/send").error(), (403, "forbidden".into()));
}

#[test]
fn more_requests_than_a_token_s_minute_allows_are_answered_429_and_counted() {
    let tree = a_city("tokens_file = \"tokens\"\nrequests_per_minute = 30\nrequests_per_minute_of = { operator = 0 }");
    let node = tree.node("c");
    let bearer = |name: &str, role: &str| format!("Bearer {}", token(&tree, name, role));
    let (mia, anna) = (bearer("mia", "reader"), bearer("anna", "operator"));
    let get = |who: &str, path: &str| ask(node, "GET", path, &[("authorization", who)], json!(null));
    let all: Vec<Told> = (0..40).map(|_| get(&mia, "/v1/version")).collect();
    let good = all.iter().filter(|t| t.status == 200).count();
    // One more for each two seconds that the machine took.
    assert!((30..36).contains(&good), "{good}");
    let refused = all.last().expect("forty");
    assert_eq!(refused.error(), (429, "too-many".into()));
    let after: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=2).contains(&after), "{after}");
    assert!((0..60).all(|_| get(&anna, "/v1/version").status == 200), "an operator has no bound here");
    let metrics = get(&anna, "/metrics").text;
    let count = metrics.lines().find_map(|l| l.strip_prefix("citybrain_api_requests_limited_total{role=\"reader\"} "));
    assert_eq!(count.and_then(|n| n.parse().ok()), Some(40 - good), "{metrics}");
    assert_eq!(get("Bearer nobody", "/v1/version").status, 401, "whoever is not known takes no place");
}

#[test]
fn a_hint_names_what_a_request_takes_and_at_the_command_line_its_flags() {
    let tree = a_city("");
    let node = tree.node("c");
    let case = a_case(node);
    let hint = |told: &Told, status: u16| {
        assert_eq!(told.status, status, "{}", told.text);
        told.json()["hint"].as_str().expect("a hint").to_owned()
    };
    let step = |verb: &str, body: Value| ask(node, "POST", &format!("/v1/cases/{case}/{verb}"), &[], body);
    assert_eq!(hint(&step("accept", json!({})), 400), r#"`"by":"…"`"#);
    assert_eq!(hint(&step("escalate", json!({"by": "a"})), 400), r#"`"text":"…"`"#);
    run(&["case", "escalate", &case, "--by", "a", "--node", &node.url()]).says(1, &["hint: `--text …`"]);
    assert_eq!(hint(&step("acept", json!({"by": "a"})), 404), "did you mean `accept`?");
    assert!(hint(&step("fly", json!({"by": "a"})), 404).starts_with("one of accept, reject, "));
    let list = ask(node, "POST", "/v1/cases", &[], json!([]));
    assert_eq!(list.error(), (400, "bad-request".into()));
    assert!(list.text.contains("a request is a JSON object, and this is a list"), "{}", list.text);
    let none = ask(node, "GET", "/v1/events?after=999999", &[], json!(null));
    assert!(hint(&none, 410).contains("`?after=0` gives all"), "{}", none.text);
    run(&["events", "--after", "999999", "--node", &node.url()]).says(1, &["`--after 0` gives all"]);

    let guarded = a_city("tokens_file = \"tokens\"");
    let unknown = ask(guarded.node("c"), "GET", "/v1/status", &[], json!(null));
    assert!(hint(&unknown, 401).starts_with("`authorization: Bearer TOKEN`"), "{}", unknown.text);
    run(&["status", "--node", &guarded.node("c").url()]).says(1, &["hint: `--token-file FILE`"]);
}
