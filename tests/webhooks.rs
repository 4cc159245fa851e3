//! Webhooks: events leave at least once and in order, over failures of the receiver and of the node.

use crate::harness::certs::Ca;
use crate::harness::mqtt::{Client, publish_windowed};
use crate::harness::ran::run;
use crate::harness::receiver::{Got, OK, Receiver, UNABLE};
use crate::harness::{Node, Tree, wait_for};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NUMBER: &str = "13900000001";
/// With a body that says again what was sent.
const ECHOES_500: &str = "500 Internal Server Error\r\nconnection: close\r\ncontent-length: 15\r\n\r\nno: 13900000001";
const ECHOES_410: &str = "410 Gone\r\nconnection: close\r\ncontent-length: 15\r\n\r\nno: 13900000001";

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// As Standard Webhooks has it: over id, time and body as they came.
fn signature(got: &Got) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{}.{}.", got.headers["webhook-id"], got.headers["webhook-timestamp"]).as_bytes());
    mac.update(&got.raw);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

fn tree(receiver: &Receiver, more: &str) -> Tree {
    let extra = format!("[[webhook]]\nname = \"app\"\nurl = \"{}\"\n{more}\n", receiver.url);
    let mut tree = Tree::with(&["c"], &HashMap::new(), &extra);
    std::fs::write(tree.dir().join("secret"), format!("{SECRET}\n")).expect("it is written");
    tree.start();
    wait_for("the webhook has its cursor", || metric(tree.node("c"), "upto_position").filter(|p| *p > 0.0));
    tree
}

fn say(node: &Node, ids: std::ops::Range<u32>, kind: &str) {
    let mut device = Client::connect(node.mqtt, "device", true);
    for id in ids {
        let event = json!({"specversion": "1.0", "id": id.to_string(), "source": "/lamp/1", "type": kind});
        assert!(device.publish("in/lamp", event.to_string().as_bytes()));
    }
}

fn metric(node: &Node, name: &str) -> Option<f64> {
    let start = format!("citybrain_webhook_{name}{{webhook=\"app\"}} ");
    node.get_text("/metrics")?.lines().find_map(|l| l.strip_prefix(&start)?.parse().ok())
}

/// What the receiver does not take, the first of it.
fn stands(node: &Node) -> Option<Value> {
    node.get("/v1/status")?["webhooks"][0]["stands"].as_array()?.first().cloned()
}

/// What readers are told of webhooks, by each way.
fn told(node: &Node) -> String {
    let url = node.url();
    let says = |what: &str| run(&[what, "--node", &url]).out;
    format!("{}\n{}\n{}\n{}", node.get("/v1/status").expect("it answers"), says("status"), says("why"), says("doctor"))
}

fn wanted(ids: std::ops::Range<u32>) -> Vec<String> {
    ids.map(|i| i.to_string()).collect()
}

#[test]
fn events_leave_signed_in_order_and_only_those_that_fit() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.lamp\"]\nsources = [\"/lamp/\"]\nsecret_file = \"secret\"");
    let node = tree.node("c");
    say(node, 0..3, "city.other");
    say(node, 10..30, "city.lamp.failed");
    wait_for("all have come", || (receiver.ids().len() >= 20).then_some(()));
    assert_eq!(receiver.ids(), wanted(10..30));
    let first = receiver.all()[0].clone();
    assert_eq!(first.headers["content-type"], "application/cloudevents+json; charset=utf-8");
    assert_eq!((&first.body["origin"], &first.body["specversion"]), (&json!("c"), &json!("1.0")));
    for got in receiver.all() {
        assert_eq!(got.headers["webhook-signature"], signature(&got));
    }
    assert_eq!(first.headers["webhook-id"].len(), 16);
    wait_for("they are counted", || (metric(node, "delivered_total") == Some(20.0)).then_some(()));
}

#[test]
fn a_receiver_that_cannot_is_asked_again_and_one_that_will_not_leaves_a_dead_letter() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.lamp\"]");
    let mut asked = 0;
    receiver.answer(move |got| {
        asked += 1;
        match got.id().as_str() {
            "1" if asked < 4 => UNABLE,
            "2" => "422 Unprocessable Content",
            "3" if asked < 7 => "429 Too Many Requests",
            _ => OK,
        }
    });
    let node = tree.node("c");
    say(node, 0..6, "city.lamp.failed");
    wait_for("the others have come", || (receiver.ids().len() >= 5).then_some(()));
    assert_eq!(receiver.ids(), ["0", "1", "3", "4", "5"]);
    let letters = wait_for("the refused one is kept", || {
        let letters = node.get("/v1/dlq")?;
        letters.to_string().contains("webhook-refused").then_some(letters)
    });
    assert!(letters.to_string().contains("422"), "{letters}");
    assert_eq!(metric(node, "refused_total"), Some(1.0));
    assert!(metric(node, "retries_total") >= Some(3.0));
}

#[test]
fn whoever_is_forgotten_is_no_longer_sent_to_a_receiver_that_could_not_take_it() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.sos.pressed\", \"city.lamp\"]");
    receiver.answer(|got| if got.id() == "0" { UNABLE } else { OK });
    let node = tree.node("c");
    say(node, 0..1, "city.sos.pressed");
    wait_for("it is asked in vain", || metric(node, "retries_total").filter(|n| *n >= 1.0));
    let case = node.get("/v1/cases").expect("cases")["cases"][0]["id"].as_str().expect("the press is one").to_owned();
    let (status, answer) = node.post(&format!("/v1/cases/{case}/forget"), &json!({"by": "boss"}));
    assert!(status < 300, "{answer}");
    say(node, 1..2, "city.lamp.failed");
    wait_for("the next one's turn comes", || (!receiver.ids().is_empty()).then_some(()));
    assert_eq!(receiver.ids(), ["1"]);
}

/// With a number.
fn press(node: &Node) {
    press_as(node, "0", NUMBER);
}

fn press_as(node: &Node, id: &str, phone: &str) {
    let event = json!({"specversion": "1.0", "id": id, "source": "/button/1", "type": "city.sos.pressed",
        "data": {"contact": {"phone": phone}}});
    assert_eq!(node.post("/v1/events", &event).0, 202);
}

fn forget(node: &Node) {
    let case = node.get("/v1/cases").expect("cases")["cases"][0]["id"].as_str().expect("the press is one").to_owned();
    let (status, answer) = node.post(&format!("/v1/cases/{case}/forget"), &json!({"by": "boss"}));
    assert!(status < 300, "{answer}");
}

fn letters(node: &Node) -> String {
    node.get("/v1/dlq").expect("letters").to_string()
}

#[test]
fn whoever_presses_behind_one_who_is_forgotten_is_sent_to_a_receiver_that_was_away() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.sos.pressed\"]");
    let node = tree.node("c");
    press(node);
    wait_for("the first is sent", || (receiver.ids() == ["0"]).then_some(()));
    let case = node.get("/v1/cases").expect("cases")["cases"][0]["id"].as_str().expect("the press is one").to_owned();
    forget(node);
    receiver.answer(|_| UNABLE);
    press_as(node, "1", "13911111111");
    wait_for("it stands", || stands(node));
    // A step of the first case, behind the second press.
    let (status, answer) = node.post(&format!("/v1/cases/{case}/comment"), &json!({"by": "boss", "text": "x"}));
    assert!(status < 300, "{answer}");
    receiver.answer(|_| OK);
    wait_for("the second is sent", || stands(node).is_none().then_some(()));
    assert_eq!(receiver.ids(), ["0", "1"]);
}

#[test]
fn of_whoever_is_forgotten_what_is_passed_over_leaves_a_letter_without_him() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.sos.pressed\"]");
    receiver.answer(|_| "503 Service Unavailable\r\nretry-after: 3000");
    let node = tree.node("c");
    press(node);
    let stood = wait_for("it stands", || stands(node));
    forget(node);
    run(&["webhook", "skip", "app", &stood["pos"].to_string(), "--yes", "--node", &node.url()]).says(0, &["goes on"]);
    let letters = letters(node);
    assert!(letters.contains("webhook-skipped") && !letters.contains(NUMBER), "{letters}");
}

#[test]
fn of_whoever_is_forgotten_nothing_is_sent_again_from_a_letter() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.sos.pressed\"]");
    receiver.answer(|_| "422 Unprocessable Content");
    let node = tree.node("c");
    press(node);
    let letter = wait_for("it is kept", || node.get("/v1/dlq")?["dead_letters"].as_array()?.first().cloned());
    forget(node);
    receiver.answer(|_| OK);
    let pos = letter["pos"].to_string();
    let shown = node.get(&format!("/v1/dlq/{pos}")).expect("the letter").to_string();
    assert!(letter.to_string().contains(NUMBER), "it was shown before: {letter}");
    for told in [shown, letters(node)] {
        assert!(told.contains("a person who is forgotten") && !told.contains(NUMBER), "{told}");
    }
    run(&["dlq", "retry", &pos, "--yes", "--node", &node.url()]).says(1, &["not-retryable", "forgotten"]);
    assert!(receiver.ids().is_empty());
}

#[test]
fn a_call_for_help_reaches_the_receiver_that_names_it_and_no_other() {
    let (desk, all) = (Receiver::start(), Receiver::start());
    let other = format!("\n[[webhook]]\nname = \"all\"\nurl = \"{}\"\ntypes = [\"city.brain.case.\"]", all.url);
    let tree = tree(&desk, &format!("types = [\"city.brain.case.call\"]{other}"));
    let node = tree.node("c");
    let press = json!({"sos": true, "title": "7-301", "place": {"text": "7-301"}, "channel": "button", "by": "王大妈",
        "contact": {"phone": "13900000000"}});
    let (status, answer) = node.post("/v1/cases", &press);
    assert_eq!(status, 201, "{answer}");
    let case = answer["case"]["id"].as_str().expect("an id").to_owned();
    let call = wait_for("the desk is called", || desk.all().into_iter().next());
    assert_eq!((&call.body["type"], &call.body["data"]["case"]), (&json!("city.brain.case.call"), &json!(case)));
    assert_eq!(call.body["data"]["place"]["text"], "7-301", "whoever goes there is told where");
    assert!(!String::from_utf8_lossy(&call.raw).contains("13900000000"), "and asks the node whom");
    // What comes behind it in the log has come: the call would have come before.
    let (status, _) = node.post(&format!("/v1/cases/{case}/accept"), &json!({"by": "Li", "role": "worker"}));
    assert_eq!(status, 200);
    let accepted = |got: &Got| got.body["type"] == "city.brain.case.accepted";
    wait_for("the other is told of the case", || all.all().iter().any(accepted).then_some(()));
    assert!(all.all().iter().all(|got| got.body["type"] != "city.brain.case.call"), "{:?}", all.all());
    assert_eq!(desk.ids(), [call.id()], "one call, once");
}

#[test]
fn a_receiver_is_asked_first_where_config_says_so_and_gets_no_more_than_it_wants() {
    let receiver = Receiver::start();
    let mut asked = 0;
    receiver.answer(move |got| {
        asked += u32::from(got.method == "OPTIONS");
        match (got.method.as_str(), asked) {
            ("POST", _) => OK,
            (_, 1) => "404 Not Found",
            (_, 2) => "200 OK\r\nwebhook-allowed-origin: other.example",
            _ => "200 OK\r\nWebHook-Allowed-Origin: brain.example\r\nWebHook-Allowed-Rate: 600",
        }
    });
    let tree = tree(&receiver, "types = [\"city.lamp\"]\nhandshake = true\norigin = \"brain.example\"");
    let node = tree.node("c");
    say(node, 0..6, "city.lamp.failed");
    let started = Instant::now();
    let all = wait_for("all have come", || Some(receiver.all()).filter(|all| all.len() >= 8));
    let methods: Vec<&str> = all.iter().map(|g| g.method.as_str()).collect();
    // What was answered with 404 is not among them.
    assert_eq!(methods, [&["OPTIONS"; 2][..], &["POST"; 6]].concat());
    assert_eq!(all[1].headers["webhook-request-origin"], "brain.example");
    assert_eq!(all[2..].iter().map(Got::id).collect::<Vec<_>>(), wanted(0..6));
    assert!(started.elapsed() >= Duration::from_millis(450), "600 a minute are one each 100 ms");
    assert!(metric(node, "retries_total") >= Some(2.0));
}

#[test]
fn a_press_goes_past_an_event_that_the_receiver_does_not_take_and_an_operator_passes_it_over() {
    let receiver = Receiver::start();
    let mut tree = tree(&receiver, "types = [\"city.lamp\", \"city.sos.pressed\"]");
    receiver.answer(|got| if got.id() == "1" { "500 Internal Server Error" } else { OK });
    let url = tree.node("c").url();
    say(tree.node("c"), 0..4, "city.lamp.failed");
    let stood = wait_for("it is told what stands", || stands(tree.node("c")));
    let pos = stood["pos"].to_string();
    assert_eq!((&stood["lane"], &stood["why"]), (&json!("routine"), &json!("500 Internal Server Error")));
    say(tree.node("c"), 10..11, "city.sos.pressed");
    wait_for("the press has come", || receiver.ids().contains(&"10".to_owned()).then_some(()));
    assert_eq!(receiver.ids(), ["0", "10"], "and nothing routine past what stands");
    run(&["status", "--node", &url]).says(0, &[&format!("webhook app stands at {pos} (routine)"), "behind"]);
    run(&["why", "--node", &url]).says(0, &["webhook-stands", "500 Internal Server Error"]);
    let doctor = || Some(run(&["doctor", "--node", &url])).filter(|ran| ran.code == 1);
    wait_for("the doctor finds it bad", doctor).says(1, &["webhook-stands"]);

    // It stands there after a kill, too, and what was delivered is not sent again.
    tree.kill9("c");
    tree.start_node("c");
    tree.wait_ready();
    wait_for("it stands again", || stands(tree.node("c")).filter(|s| s["pos"] == stood["pos"]));
    let skip = |at: &str| run(&["webhook", "skip", "app", at, "--yes", "--node", &url]);
    skip("1").says(1, &["it does not stand at 1"]);
    skip(&pos).says(0, &["goes on behind"]);
    wait_for("the rest has come", || receiver.ids().contains(&"3".to_owned()).then_some(()));
    let mut after: Vec<String> = receiver.ids().into_iter().filter(|id| id != "0" && id != "10").collect();
    after.dedup();
    assert_eq!(after, ["2", "3"]);
    assert_eq!(stands(tree.node("c")), None);
    let letters = tree.node("c").get("/v1/dlq").expect("letters").to_string();
    assert!(letters.contains("webhook-skipped") && letters.contains("500 Internal Server Error"), "{letters}");
    let events = tree.node("c").get_text("/v1/events?last=100").expect("events");
    assert!(events.contains("webhook skip"), "who did it is there");
    let who = events.split_once("\"who\":\"").and_then(|(_, rest)| rest.split('"').next()).expect("a name");
    assert!(letters.contains(&format!("passed over by the operator {who}")), "{letters}");
}

#[test]
fn a_press_is_heard_while_the_receiver_hangs_on_a_routine_event() {
    let receiver = Receiver::start();
    let mut tree = tree(&receiver, "types = [\"city.lamp\", \"city.sos.pressed\"]");
    let (hangs, release) = receiver.hang("1");
    let node = tree.node("c");
    say(node, 0..3, "city.lamp.failed");
    wait_for("its receiver hangs", || (hangs.is_there.load(Ordering::SeqCst) == 1).then_some(()));
    let began = Instant::now();
    say(node, 10..11, "city.sos.pressed");
    wait_for("the press has come", || receiver.ids().contains(&"10".to_owned()).then_some(()));
    // The node itself gives the routine one up after 15 s.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(receiver.ids(), ["0", "10"], "and nothing routine past what hangs");
    release.send(()).expect("it hangs");
    wait_for("the rest has come", || (receiver.ids().len() == 4).then_some(()));
    // Each lane has noted how far it is.
    tree.stop_node("c");
    tree.start_node("c");
    tree.wait_ready();
    say(tree.node("c"), 3..4, "city.lamp.failed");
    wait_for("what is new has come", || receiver.ids().contains(&"3".to_owned()).then_some(()));
    assert_eq!(receiver.ids(), ["0", "10", "1", "2", "3"]);
}

#[test]
fn one_lane_that_is_told_that_the_receiver_is_gone_ends_both() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.lamp\", \"city.sos.pressed\"]");
    receiver.answer(|got| if got.id() == "10" { "410 Gone" } else { UNABLE });
    let node = tree.node("c");
    say(node, 1..2, "city.lamp.failed");
    wait_for("it stands", || stands(node));
    say(node, 10..11, "city.sos.pressed");
    wait_for("it is gone", || node.get("/v1/status")?["webhooks"][0].get("gone_since").cloned());
    assert_eq!(stands(node), None);
    receiver.answer(|_| OK);
    wait_for("it is told", || letters(node).contains("webhook-gone").then_some(()));
    // An operator is told that it does not stand, and nothing of it holds the log.
    let (status, answer) = node.post("/v1/webhooks/skip", &json!({"name": "app", "pos": 1}));
    assert_eq!((status, &answer["error"]), (409, &json!("not-standing")), "{answer}");
    wait_for("its cursors are gone", || (node.get("/v1/status")?["door"]["sessions"] == 0).then_some(()));
    assert!(receiver.ids().is_empty());
}

#[test]
fn a_skip_that_was_not_done_in_time_is_never_done() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.lamp\"]");
    let (release, held) = std::sync::mpsc::channel::<()>();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    receiver.answer(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => UNABLE,
        1 => {
            let _ = held.recv_timeout(Duration::from_secs(60));
            UNABLE
        }
        _ => OK,
    });
    let node = tree.node("c");
    say(node, 1..2, "city.lamp.failed");
    let stood = wait_for("it stands", || stands(node));
    wait_for("its receiver hangs", || (asked.load(Ordering::SeqCst) == 2).then_some(()));
    let (status, answer) = node.post("/v1/webhooks/skip", &json!({"name": "app", "pos": stood["pos"]}));
    assert_eq!((status, &answer["error"]), (504, &json!("deadline")), "{answer}");
    release.send(()).expect("it hangs");
    wait_for("it is delivered", || (receiver.ids() == ["1"]).then_some(()));
    assert!(!letters(node).contains("webhook-skipped"));
}

#[test]
fn what_a_receiver_says_is_in_dead_letters_alone() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.lamp\"]");
    let node = tree.node("c");
    let url = node.url();
    receiver.answer(|_| ECHOES_500);
    say(node, 1..2, "city.lamp.failed");
    let stood = wait_for("it stands", || stands(node));
    let all = told(node);
    assert!(all.contains("500 Internal Server Error") && !all.contains(NUMBER), "{all}");
    run(&["webhook", "skip", "app", &stood["pos"].to_string(), "--yes", "--node", &url]).says(0, &["goes on"]);
    assert!(letters(node).contains(NUMBER), "whoever sees persons is told all of it");
    receiver.answer(|_| ECHOES_410);
    say(node, 2..3, "city.lamp.failed");
    wait_for("it is gone", || letters(node).contains("webhook-gone").then_some(()));
    let all = wait_for("that is told", || Some(told(node)).filter(|all| all.contains("is gone since")));
    assert!(all.contains("(410 Gone)") && !all.contains(NUMBER), "{all}");
}

#[test]
fn what_stood_no_longer_stands_when_the_receiver_is_gone() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.lamp\"]");
    let node = tree.node("c");
    receiver.answer(|_| UNABLE);
    say(node, 1..2, "city.lamp.failed");
    wait_for("it stands", || stands(node));
    receiver.answer(|_| "410 Gone");
    wait_for("it is gone", || node.get("/v1/status")?["webhooks"][0].get("gone_since").cloned());
    assert_eq!(stands(node), None);
}

#[test]
fn a_receiver_that_does_not_agree_to_events_is_told_of() {
    let receiver = Receiver::start();
    receiver.answer(|_| "403 Forbidden");
    let tree = tree(&receiver, "types = [\"city.lamp\"]\nhandshake = true");
    let node = tree.node("c");
    let url = node.url();
    let refused = || node.get("/v1/status")?["webhooks"][0].get("not_agreed_since").cloned();
    let since = wait_for("it is told", refused);
    let why = ["webhook app", "has not agreed", "it answers OPTIONS with 403 Forbidden"];
    run(&["status", "--node", &url]).says(0, &why);
    run(&["why", "--node", &url]).says(0, &why);
    assert!(run(&["doctor", "--node", &url]).out.contains("has not agreed"));
    wait_for("it is asked again", || metric(node, "retries_total").filter(|n| *n >= 3.0));
    assert_eq!(refused(), Some(since), "since it was asked first");
    receiver.answer(|_| "200 OK\r\nwebhook-allowed-origin: *");
    wait_for("it has agreed", || refused().is_none().then_some(()));
}

#[test]
fn a_refused_event_is_sent_again_when_an_operator_says_so() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.lamp\"]");
    let ids: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = ids.clone();
    receiver.answer(move |got| {
        seen.lock().expect("no panic").push(got.headers["webhook-id"].clone());
        "422 Unprocessable Content"
    });
    let node = tree.node("c");
    say(node, 7..8, "city.lamp.failed");
    let letter = wait_for("it is kept", || node.get("/v1/dlq")?["dead_letters"].as_array()?.first().cloned());
    let pos = letter["pos"].to_string();
    let url = node.url();
    let retry = || run(&["dlq", "retry", &pos, "--yes", "--node", &url]);
    retry().says(1, &["refused", "still refused: 422"]);
    assert!(receiver.ids().is_empty());
    receiver.answer(|_| OK);
    retry().says(0, &["delivered"]);
    assert_eq!(receiver.ids(), ["7"]);
    let got = receiver.all()[0].clone();
    assert_eq!(got.body["origin"], "c", "as it was the first time");
    let ids = ids.lock().expect("no panic");
    assert_eq!((ids.len(), &ids[0], &ids[1]), (2, &got.headers["webhook-id"], &got.headers["webhook-id"]));
    retry().says(1, &["not-open"]);
    assert_eq!(node.get("/v1/dlq").expect("it answers")["dead_letters"].as_array().map(Vec::len), Some(0));
}

/// How many there are, once one of them is about the event of this id.
fn letters_once_about(node: &Node, id: &str) -> usize {
    wait_for("its letter is there", || {
        let all = node.get("/v1/dlq")?["dead_letters"].as_array()?.clone();
        let about = format!("\"id\":\"{id}\"");
        let is_there = all.iter().any(|l| l["payload"].as_str().is_some_and(|p| p.contains(&about)));
        is_there.then_some(all.len())
    })
}

#[test]
fn what_a_receiver_refused_before_a_kill_is_one_dead_letter() {
    let receiver = Receiver::start();
    let mut tree = tree(&receiver, "types = [\"city.lamp\"]");
    receiver.answer(|_| "400 Bad Request");
    // In the midst of a burst, which begins behind the first: at its end the cursor is noted in any case.
    let (hangs, go_on) = receiver.hang("0");
    say(tree.node("c"), 0..10, "city.lamp.failed");
    wait_for("its receiver hangs", || (hangs.is_there.load(Ordering::SeqCst) == 1).then_some(()));
    let (_hangs, release) = receiver.hang("5");
    go_on.send(()).expect("it hangs");
    assert_eq!(letters_once_about(tree.node("c"), "4"), 5);
    tree.kill9("c");
    drop(release);
    tree.start_node("c");
    tree.wait_ready();
    assert_eq!(letters_once_about(tree.node("c"), "9"), 10);
}

#[test]
fn what_was_refused_is_sent_again_only_to_a_receiver_that_has_agreed_and_no_faster_than_it_wants() {
    let receiver = Receiver::start();
    let says = |options: &'static str, post: &'static str| {
        receiver.answer(move |got| if got.method == "OPTIONS" { options } else { post });
    };
    says("200 OK\r\nwebhook-allowed-origin: *", "400 Bad Request");
    let mut tree = tree(&receiver, "types = [\"city.lamp\"]\nhandshake = true");
    say(tree.node("c"), 0..2, "city.lamp.failed");
    assert_eq!(letters_once_about(tree.node("c"), "1"), 2);
    let all = tree.node("c").get("/v1/dlq").expect("letters")["dead_letters"].as_array().expect("a list").clone();
    let pos: Vec<String> = all.iter().map(|l| l["pos"].to_string()).collect();

    tree.stop_node("c");
    says("403 Forbidden", OK);
    tree.start_node("c");
    tree.wait_ready();
    let url = tree.node("c").url();
    let retry = || run(&["dlq", "retry", &pos[0], &pos[1], "--yes", "--node", &url]);
    retry().says(1, &["not-sent", "has not agreed"]);
    assert!(receiver.all().iter().all(|got| got.method == "OPTIONS"), "nothing has left");

    says("200 OK\r\nwebhook-allowed-origin: *\r\nwebhook-allowed-rate: 1", OK);
    let not_agreed = || tree.node("c").get("/v1/status").map(|s| s["webhooks"][0].get("not_agreed_since").is_some());
    wait_for("it has agreed", || not_agreed().filter(|not| !not));
    retry().says(1, &["delivered", "not-sent", "again in"]);
    assert_eq!(receiver.all().iter().filter(|got| got.method == "POST").count(), 1, "one a minute");
}

#[test]
fn of_many_letters_to_a_receiver_with_a_pace_those_that_had_no_turn_in_time_are_told_of() {
    let receiver = Receiver::start();
    let says = |options: &'static str, post: &'static str| {
        receiver.answer(move |got| if got.method == "OPTIONS" { options } else { post });
    };
    says("200 OK\r\nwebhook-allowed-origin: *", "400 Bad Request");
    let mut tree = tree(&receiver, "types = [\"city.lamp\"]\nhandshake = true");
    say(tree.node("c"), 0..20, "city.lamp.failed");
    assert_eq!(letters_once_about(tree.node("c"), "19"), 20);
    let all = tree.node("c").get("/v1/dlq").expect("letters")["dead_letters"].as_array().expect("a list").clone();
    let pos: Vec<String> = all.iter().map(|l| l["pos"].to_string()).collect();
    tree.stop_node("c");
    says("200 OK\r\nwebhook-allowed-origin: *\r\nwebhook-allowed-rate: 60", OK);
    tree.start_node("c");
    tree.wait_ready();
    let node = tree.node("c");
    say(node, 20..21, "city.lamp.failed");
    wait_for("it has agreed", || receiver.ids().contains(&"20".to_owned()).then_some(()));

    let url = node.url();
    let line: Vec<&str> = ["dlq", "retry"].into_iter().chain(pos.iter().map(String::as_str)).collect();
    let began = Instant::now();
    let told = run(&[&line[..], &["--yes", "--json", "--node", &url]].concat());
    // One a second would be 20 s, and nobody waits for that.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let answer = told.json();
    let of = |outcome: &str| {
        answer["letters"].as_array().expect("a list").iter().filter(|l| l["outcome"] == outcome).count()
    };
    let delivered = of("delivered");
    assert!((1..=4).contains(&delivered) && of("not-sent") == 20 - delivered, "{answer}");
    assert_eq!((told.code, &answer["open"]), (1, &json!(20 - delivered)));
    let sent = receiver.all().iter().filter(|got| got.method == "POST" && got.id() != "20").count();
    assert_eq!(sent, delivered, "as many as are closed");
}

#[test]
fn a_letter_that_was_delivered_is_closed_though_whoever_sent_it_again_has_gone_away() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.lamp\"]");
    receiver.answer(|_| "400 Bad Request");
    let node = tree.node("c");
    say(node, 7..8, "city.lamp.failed");
    assert_eq!(letters_once_about(node, "7"), 1);
    let pos = node.get("/v1/dlq").expect("letters")["dead_letters"][0]["pos"].clone();
    receiver.answer(|_| OK);
    let (hangs, release) = receiver.hang("7");

    let body = json!({"positions": [pos]}).to_string();
    let mut asks = TcpStream::connect(node.url().trim_start_matches("http://")).expect("it listens");
    let length = body.len();
    let head = format!("POST /v1/dlq/retry HTTP/1.1\r\nhost: c\r\ncontent-length: {length}");
    asks.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).expect("it is sent");
    wait_for("its receiver hangs", || (hangs.is_there.load(Ordering::SeqCst) == 1).then_some(()));
    asks.shutdown(Shutdown::Write).expect("it is open");
    // The node has noticed: it says nothing and hangs up.
    asks.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    assert_eq!(asks.read_to_end(&mut Vec::new()).expect("its end"), 0);
    release.send(()).expect("it hangs");
    wait_for("the letter is closed", || node.get("/v1/dlq")?["dead_letters"].as_array()?.is_empty().then_some(()));
    assert_eq!(receiver.ids(), ["7"]);
}

#[test]
fn a_refused_event_that_is_too_long_for_a_dead_letter_is_sent_again_from_the_log() {
    let receiver = Receiver::start();
    let tree = tree(&receiver, "types = [\"city.lamp\"]");
    receiver.answer(|_| "422 Unprocessable Content");
    let node = tree.node("c");
    let long = "灯".repeat(20_000);
    let event = json!({"specversion": "1.0", "id": "long", "source": "/lamp/1", "type": "city.lamp.failed", "data": {"text": long}});
    assert_eq!(node.post("/v1/events", &event).0, 202);
    let letter = wait_for("it is kept", || node.get("/v1/dlq")?["dead_letters"].as_array()?.first().cloned());
    assert!(letter["payload"].as_str().is_some_and(|p| p.len() < 20_000), "only its beginning");
    receiver.answer(|_| OK);
    run(&["dlq", "retry", &letter["pos"].to_string(), "--yes", "--node", &node.url()]).says(0, &["delivered"]);
    let got = receiver.all()[0].clone();
    assert_eq!((got.body["data"]["text"].as_str(), &got.body["origin"]), (Some(long.as_str()), &json!("c")));
}

#[test]
fn to_a_receiver_that_is_gone_nothing_more_is_sent_until_the_node_starts_again() {
    let receiver = Receiver::start();
    let asked: Arc<Mutex<u32>> = Arc::default();
    let seen = asked.clone();
    receiver.answer(move |_| {
        *seen.lock().expect("no panic") += 1;
        "410 Gone"
    });
    let mut tree = tree(&receiver, "types = [\"city.lamp\"]");
    tree.stop_node("c");
    tree.edit("c", |t| short(&t, ""));
    tree.start_node("c");
    tree.wait_ready();
    say(tree.node("c"), 0..5, "city.lamp.failed");
    let letters = wait_for("it is told", || {
        let letters = tree.node("c").get("/v1/dlq")?;
        letters.to_string().contains("webhook-gone").then_some(letters)
    });
    assert!(letters.to_string().contains("is gone (410 Gone)"), "{letters}");
    assert!(letters.to_string().contains("what comes until the node starts again, is never sent"), "{letters}");
    say(tree.node("c"), 5..8, "city.lamp.failed");
    until_trimmed(tree.node("c"), "more");
    assert_eq!((*asked.lock().expect("no panic"), receiver.ids().len()), (1, 0));
    receiver.answer(|_| OK);
    tree.stop_node("c");
    tree.start_node("c");
    tree.wait_ready();
    say(tree.node("c"), 8..10, "city.lamp.failed");
    wait_for("what happens now comes", || (receiver.ids().len() >= 2).then_some(()));
    assert_eq!(receiver.ids(), ["8", "9"]);
}

/// A log that is trimmed as soon as nobody needs it.
fn short(config: &str, more: &str) -> String {
    let store = "segment_bytes = 65536\nlog_bytes_max = 131072\nkeep_s = 0\nsnapshot_records = 1000\n";
    config.replace("[store]\n", &format!("[store]\n{store}{more}"))
}

fn log_of(node: &Node, key: &str) -> Option<u64> {
    node.get("/v1/status")?["log"][key].as_u64()
}

fn lost(node: &Node) -> Option<u64> {
    node.get("/v1/status")?["counters"]["lost"].as_u64()
}

/// Publishes until the log's beginning is gone.
fn until_trimmed(node: &Node, name: &str) {
    let mut round = 0;
    wait_for("old segments are gone", || {
        round += 1;
        publish_windowed("c", node.mqtt, &format!("{name}{round:04}"), 500, false, 200);
        (log_of(node, "first_pos")? > 1).then_some(())
    });
}

#[test]
fn a_receiver_that_stalls_holds_the_log_and_gets_everything_when_it_comes_back() {
    let receiver = Receiver::start();
    let mut tree = tree(&receiver, "types = [\"city.test\"]");
    tree.stop_node("c");
    tree.edit("c", |t| short(&t, ""));
    receiver.answer(|_| UNABLE);
    tree.start_node("c");
    tree.wait_ready();
    let node = tree.node("c");
    let sent = publish_windowed("c", node.mqtt, "stalled", 4_000, false, 200);
    wait_for("it is asked in vain", || metric(node, "retries_total").filter(|n| *n >= 2.0));
    assert_eq!(log_of(node, "first_pos"), Some(1), "nothing goes that it has not read");
    receiver.answer(|_| OK);
    wait_for("all have come", || (receiver.ids().len() >= sent.len()).then_some(()));
    assert_eq!(receiver.ids(), sent.iter().map(|s| s.id.clone()).collect::<Vec<_>>());
    until_trimmed(node, "more");
    assert_eq!(lost(node), Some(0));
}

#[test]
fn where_the_disk_has_a_hard_limit_a_stalled_receiver_gets_what_is_left_and_the_loss_is_recorded() {
    let receiver = Receiver::start();
    let mut tree = tree(&receiver, "types = [\"city.test\"]");
    tree.stop_node("c");
    tree.edit("c", |t| short(&t, "log_bytes_hard_max = 262144\n"));
    receiver.answer(|_| UNABLE);
    tree.start_node("c");
    tree.wait_ready();
    let node = tree.node("c");
    until_trimmed(node, "stalled");
    wait_for("the loss is recorded", || lost(node).filter(|n| *n > 0));
    receiver.answer(|_| OK);
    let last = publish_windowed("c", node.mqtt, "then", 50, false, 50);
    let newest = &last.last().expect("some were sent").id;
    wait_for("the newest has come", || receiver.ids().contains(newest).then_some(()));
    let ids = receiver.ids();
    let ends: Vec<String> = last.iter().map(|s| s.id.clone()).collect();
    assert_eq!(ids[ids.len() - ends.len()..], ends, "what came later has all come, in its order");
    // It was in the middle of its first ones when the log went on without it.
    let bursts: Vec<&String> = ids.iter().filter(|id| id.starts_with("stalled")).collect();
    assert!(bursts.is_sorted() && !bursts.is_empty(), "{bursts:?}");
}

#[test]
fn a_webhook_that_config_no_longer_has_holds_nothing() {
    let receiver = Receiver::start();
    let mut tree = tree(&receiver, "types = [\"city.test\"]");
    receiver.answer(|_| UNABLE);
    let hook = format!("[[webhook]]\nname = \"app\"\nurl = \"{}\"\ntypes = [\"city.test\"]\n", receiver.url);
    publish_windowed("c", tree.node("c").mqtt, "before", 1_000, false, 200);
    tree.stop_node("c");
    tree.edit("c", |t| {
        assert!(t.contains(&hook), "{t}");
        short(&t.replace(&hook, ""), "")
    });
    tree.start_node("c");
    tree.wait_ready();
    assert_eq!(metric(tree.node("c"), "upto_position"), None);
    until_trimmed(tree.node("c"), "after");
    // Put back, it begins with what comes then.
    tree.stop_node("c");
    receiver.answer(|_| OK);
    tree.edit("c", |t| format!("{hook}{t}"));
    tree.start_node("c");
    wait_for("it has a cursor", || metric(tree.node("c"), "upto_position").filter(|p| *p > 0.0));
    let sent = publish_windowed("c", tree.node("c").mqtt, "again", 20, false, 20);
    wait_for("they have come", || (receiver.ids().len() >= 20).then_some(()));
    assert_eq!(receiver.ids(), sent.iter().map(|s| s.id.clone()).collect::<Vec<_>>());
}

#[test]
fn over_a_kill_everything_is_delivered_at_least_once_and_in_order() {
    let receiver = Receiver::start();
    let mut tree = tree(&receiver, "types = [\"city.lamp\"]");
    let mut count = 0;
    // It hangs up its work in the middle: nothing is taken until the node was killed.
    receiver.answer(move |_| {
        count += 1;
        if count > 70 { UNABLE } else { OK }
    });
    say(tree.node("c"), 0..200, "city.lamp.failed");
    wait_for("some have come", || (receiver.ids().len() >= 70).then_some(()));
    tree.kill9("c");
    receiver.answer(|_| OK);
    tree.start_node("c");
    tree.wait_ready();
    wait_for("all have come", || (receiver.ids().last().is_some_and(|id| id == "199")).then_some(()));
    let all = receiver.ids();
    let mut seen = Vec::new();
    for id in &all {
        if !seen.contains(id) {
            seen.push(id.clone());
        }
    }
    assert_eq!(seen, wanted(0..200), "each came, and for the first time in its order");
    assert!(all.len() <= 200 + 64, "at most a burst is repeated: {}", all.len());
    // A repetition has the id of the first attempt.
    let got = receiver.all();
    let mut ids: HashMap<String, String> = HashMap::new();
    for g in got.iter() {
        let id = g.headers["webhook-id"].clone();
        assert_eq!(*ids.entry(g.id()).or_insert_with(|| id.clone()), id);
    }
}

#[test]
fn over_an_orderly_stop_in_the_middle_of_a_burst_nothing_comes_twice() {
    let receiver = Receiver::start();
    let mut tree = tree(&receiver, "types = [\"city.lamp\"]");
    let takes = Arc::new(AtomicUsize::new(0));
    let left = takes.clone();
    receiver.answer(move |_| {
        let one_less = |n: usize| n.checked_sub(1);
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() { OK } else { UNABLE }
    });
    say(tree.node("c"), 0..60, "city.lamp.failed");
    takes.store(40, Ordering::SeqCst);
    wait_for("forty have come", || (receiver.ids().len() == 40).then_some(()));
    tree.stop_node("c");
    receiver.answer(|_| OK);
    tree.start_node("c");
    tree.wait_ready();
    wait_for("all have come", || (receiver.ids().last().is_some_and(|id| id == "59")).then_some(()));
    assert_eq!(receiver.ids(), wanted(0..60));
}

#[test]
fn a_receiver_by_https_gets_events_once_its_certificate_is_trusted() {
    let mut tree = Tree::new(&["c", "d"]);
    Ca::new(tree.dir(), "ca").issue("lake", "lake");
    let port = tree.node("d").api;
    // A node is a receiver of CloudEvents, too.
    tree.edit("d", |t| t.replace("[api]\n", "[api]\ncert_file = \"lake.pem\"\nkey_file = \"lake-key.pem\"\n"));
    let hook = |ca: &str| {
        format!(
            "[[webhook]]\nname = \"app\"\nurl = \"https://localhost:{port}/v1/events\"\ntypes = [\"city.lamp\"]\n{ca}\n"
        )
    };
    let before = std::fs::read_to_string(&tree.node("c").config).expect("the config reads");
    tree.edit("c", |t| format!("{}{t}", hook("")));
    tree.start_node("c");
    tree.start_node("d");
    wait_for("c is ready", || tree.node("c").get_text("/readyz"));
    wait_for("the webhook has its cursor", || metric(tree.node("c"), "upto_position").filter(|p| *p > 0.0));
    say(tree.node("c"), 0..5, "city.lamp.failed");
    wait_for("nobody is sent to whom nobody trusts", || metric(tree.node("c"), "retries_total").filter(|n| *n > 0.0));
    assert_eq!(metric(tree.node("c"), "delivered_total"), Some(0.0));
    tree.stop_node("c");
    tree.edit("c", |_| format!("{}{before}", hook("ca_file = \"ca.pem\"")));
    tree.start_node("c");
    wait_for("all have gone", || metric(tree.node("c"), "delivered_total").filter(|n| *n == 5.0));
    let here = tree.node("d").data.display().to_string();
    let there = run(&["events", "--type", "city.lamp.failed", "--json", "--data-dir", &here]);
    assert_eq!(there.out.lines().count(), 5, "{}{}", there.out, there.err);
}
