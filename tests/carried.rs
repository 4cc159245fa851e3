//! A log carried elsewhere: a range of it replayed to a sink, all of it exported and imported.

use crate::harness::certs::{Ca, Pair};
use crate::harness::mqtt::{Client, publish_all};
use crate::harness::ran::{Ran, acts, run, text};
use crate::harness::{Tree, free_port, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

fn a_street(events: usize) -> Tree {
    let mut tree = Tree::new(&["c/s"]);
    tree.start();
    let sent = publish_all("c/s", tree.node("c/s").mqtt, "e", events, false);
    tree.wait_all_up(&sent);
    // A receipt that comes late would be in one of two answers that are compared.
    tree.wait_quiet();
    tree
}

fn replay(url: &str, more: &[&str]) -> Ran {
    run(&[&["log", "replay", "--node", url], more].concat())
}

fn ids(out: &str) -> Vec<String> {
    let id = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("a line is JSON");
        event["id"].as_str().expect("an id").to_owned()
    };
    out.lines().map(id).collect()
}

#[test]
fn a_range_of_the_log_is_printed_by_position_time_type_and_number_with_its_true_origin() {
    let tree = a_street(20);
    let (city, leaf) = (tree.node("c").url(), tree.node("c/s").url());
    let all = replay(&city, &["--type", "city.*", "--source", "/*"]);
    assert_eq!((all.code, ids(&all.out).len() >= 20), (0, true), "{}{}", all.out, all.err);
    assert!(all.err.contains("events sent to - and acknowledged"), "{}", all.err);
    assert!(all.out.lines().all(|l| l.starts_with("{\"origin\":\"c")), "{}", all.out);
    let wanted: Vec<String> = (0..20).map(|n| format!("e-{n}")).collect();
    let there: Vec<String> = ids(&all.out).into_iter().filter(|id| id.starts_with("e-")).collect();
    assert_eq!(there.len(), wanted.len(), "{there:?}");
    let records: Vec<_> = tree.node("c").records().into_iter().filter(|r| r.id.starts_with("e-")).collect();
    let (third, fifth) = (records[2].pos.to_string(), records[4].pos.to_string());
    let few = replay(&city, &["--after", &third, "--upto", &fifth, "--origin", "c/s"]);
    assert_eq!(ids(&few.out), [records[3].id.clone(), records[4].id.clone()]);
    assert_eq!(ids(&replay(&city, &["--limit", "2", "--origin", "c/s", "--after", &third]).out).len(), 2);
    assert!(replay(&city, &["--time-before", "1h"]).out.is_empty());
    // Through the links, and of a stopped node's folder.
    let below = replay(&city, &["--at", "c/s", "--type", "city.*"]);
    assert_eq!(ids(&below.out), ids(&replay(&leaf, &["--type", "city.*"]).out));
    for (line, words) in [
        (vec!["--to", "ftp://x"], "a sink is mqtt://"),
        (vec!["--rate", "0"], "more than 0"),
        (vec!["--to", "mqtt://h", "--topic", "a/#"], "is no topic"),
    ] {
        replay(&city, &line).says(2, &[words]);
    }
}

#[test]
fn a_replay_to_a_broker_that_was_killed_goes_on_and_a_node_that_knows_the_events_takes_none_twice() {
    let tree = a_street(400);
    let mut other = Tree::new(&["d"]);
    other.start();
    let (city, sink) = (tree.node("c").url(), format!("mqtt://127.0.0.1:{}", other.node("d").mqtt));
    let state = tree.dir().join("replay.state");
    let args = [
        "log",
        "replay",
        "--node",
        &city,
        "--to",
        &sink,
        "--topic",
        "in/{type}",
        "--origin",
        "c/s",
        // What a node says of itself no other node takes.
        "--type",
        "city.test",
        "--state",
        text(&state),
        // The first run's time, whenever it goes on.
        "--time-after",
        "1h",
    ];
    let mut first = Command::new(crate::harness::binary());
    let first = first.args(args).args(["--rate", "100"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut first = first.env_remove("CITYBRAIN_NODE").spawn().expect("the binary starts");
    let begin: Value = wait_for("it begins", || serde_json::from_slice(&std::fs::read(&state).ok()?).ok());
    wait_for("it has noted how far it is", || {
        let saved: Value = serde_json::from_slice(&std::fs::read(&state).ok()?).ok()?;
        (saved["upto"].as_u64()? > begin["upto"].as_u64()? + 20).then_some(())
    });
    first.kill().expect("it can be killed");
    first.wait().expect("it ends");
    let there = || {
        let all = other.node("d").records();
        let ids: BTreeSet<String> = all.iter().filter(|r| r.id.starts_with("e-")).map(|r| r.id.clone()).collect();
        assert_eq!(ids.len(), all.iter().filter(|r| r.id.starts_with("e-")).count(), "none is there twice");
        ids.len()
    };
    assert!(there() < 400);
    let second = run(&[&args[..], &["--json"]].concat());
    second.says(0, &["citybrain.log-replayed/1"]);
    let told = second.json();
    assert!(told["after_pos"].as_u64() > begin["upto"].as_u64(), "{told}");
    assert_eq!((&told["events"], &told["refused"]), (&told["acknowledged"], &json!(0)), "{told}");
    assert_eq!(there(), 400);
    // Nothing is left; another question or sink is told apart; `--restart` begins anew.
    assert_eq!(run(&[&args[..], &["--json"]].concat()).json()["events"], 0);
    run(&[&args[..], &["--priority", "urgent"]].concat()).says(2, &["state of another replay", "--restart"]);
    let again = run(&[&args[..], &["--restart", "--json"]].concat()).json();
    assert!(again["acknowledged"].as_u64() >= Some(400), "{again}");
    assert_eq!(there(), 400);
}

#[test]
fn a_replay_to_a_broker_by_tls_shows_its_certificate_and_looks_at_the_brokers() {
    let tree = a_street(30);
    let mut other = Tree::new(&["d"]);
    let (ca, stranger) = (Ca::new(other.dir(), "ca"), Ca::new(other.dir(), "stranger"));
    let (_, me) = (ca.issue("node", "localhost"), ca.issue("me", "archivist"));
    let foreign = stranger.issue("foreign", "archivist");
    let door = free_port();
    let listener = format!(
        "[[listener]]\nlisten = \"127.0.0.1:{door}\"\nprotocol = \"mqtts\"\ncert_file = \"node.pem\"\n\
             key_file = \"node-key.pem\"\nclient_ca_file = \"ca.pem\"\nclient_required = true\n\n[node]\n"
    );
    other.edit("d", |config| config.replace("[node]\n", &listener));
    other.start();
    let (city, sink) = (tree.node("c").url(), format!("mqtts://localhost:{door}"));
    let to = |more: &[&str]| {
        let args = ["--to", &sink, "--topic", "in/{type}", "--origin", "c/s", "--type", "city.test", "--json"];
        replay(&city, &[&args, more].concat())
    };
    let showing = |pair: &Pair, ca: &Ca| {
        to(&["--sink-ca", text(&ca.pem), "--sink-cert", text(&pair.cert), "--sink-key", text(&pair.key)])
    };
    // What no second try would cure ends it at once.
    showing(&me, &stranger).says(3, &["UnknownIssuer"]);
    showing(&foreign, &ca).says(3, &["refuses the connection"]);
    to(&["--sink-ca", text(&ca.pem)]).says(3, &["CertificateRequired"]);
    assert!(other.node("d").records().iter().all(|r| r.origin != "c/s" && !r.id.starts_with("e-")));
    let ran = showing(&me, &ca);
    ran.says(0, &["citybrain.log-replayed/1", &sink]);
    assert_eq!(ran.json()["acknowledged"], ran.json()["events"], "{}", ran.out);
    assert_eq!(other.node("d").records().iter().filter(|r| r.id.starts_with("e-")).count(), 30);
    for (more, words) in [
        (vec!["--sink-ca", text(&foreign.key)], "has no certificate"),
        (vec!["--sink-ca", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
        (vec!["--sink-cert", text(&me.cert)], "--sink-key"),
        (
            vec!["--sink-ca", text(&ca.pem), "--sink-cert", text(&me.cert), "--sink-key", text(&foreign.key)],
            "do not belong together",
        ),
    ] {
        to(&more).says(2, &[words]);
    }
    replay(&city, &["--to", "mqtt://h", "--sink-ca", text(&ca.pem)]).says(2, &["without TLS", "mqtts://"]);

    // `replay` of a file goes the same way.
    let file = other.dir().join("day.ndjson");
    std::fs::write(&file, "{\"specversion\":\"1.0\",\"id\":\"row\",\"source\":\"/x\",\"type\":\"city.x\"}\n")
        .expect("it is written");
    let rows = ["replay", text(&file), "--mqtt", &sink, "--ca", text(&ca.pem)];
    run(&[&rows[..], &["--give-up-after", "1"]].concat()).says(3, &["CertificateRequired"]);
    run(&[&rows[..], &["--cert", text(&me.cert), "--cert-key", text(&me.key)]].concat()).says(0, &[]);
    assert!(other.node("d").records().iter().any(|r| r.id == "row"));
}

#[test]
fn a_replay_by_https_ends_at_once_where_the_certificate_is_not_trusted_and_says_what_to_name() {
    let tree = a_street(5);
    let mut other = Tree::new(&["d", "e"]);
    let (ca, stranger) = (Ca::new(other.dir(), "ca"), Ca::new(other.dir(), "stranger"));
    ca.issue("node", "node");
    ca.issue_for("elsewhere", "elsewhere.example");
    for (node, file) in [("d", "node"), ("e", "elsewhere")] {
        let api = format!("[api]\ncert_file = \"{file}.pem\"\nkey_file = \"{file}-key.pem\"\n");
        other.edit(node, |config| config.replace("[api]\n", &api));
        other.start_node(node);
    }
    let city = tree.node("c").url();
    let place = |node: &str| format!("https://localhost:{}", other.node(node).api);
    let up = || std::net::TcpStream::connect(("127.0.0.1", other.node("e").api)).ok();
    wait_for("both listen", || up().and(std::net::TcpStream::connect(("127.0.0.1", other.node("d").api)).ok()));
    // The default is to wait a minute for a sink: no second try cures these.
    let began = std::time::Instant::now();
    let to = |node: &str, more: &[&str]| {
        let sink = format!("{}/v1/events", place(node));
        replay(&city, &[&["--to", &sink, "--type", "city.test", "--json"], more].concat())
    };
    to("d", &[]).says(3, &["cannot be trusted", "UnknownIssuer", "--sink-ca FILE"]);
    to("d", &["--sink-ca", text(&stranger.pem)]).says(3, &["UnknownIssuer", "--sink-ca FILE"]);
    to("e", &["--sink-ca", text(&ca.pem)]).says(3, &["not valid for name", "elsewhere.example", "--sink-ca FILE"]);
    let file = other.dir().join("day.ndjson");
    std::fs::write(&file, "{\"specversion\":\"1.0\",\"id\":\"row\",\"source\":\"/x\",\"type\":\"city.x\"}\n")
        .expect("it is written");
    let rows = |more: &[&str]| run(&[&["replay", text(&file), "--http", &place("d")], more].concat());
    rows(&[]).says(3, &["cannot be trusted", "`--ca FILE`"]);
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "it waits for what will not come");
    rows(&["--ca", text(&ca.pem)]).says(0, &[]);
    let taken = to("d", &["--sink-ca", text(&ca.pem)]);
    taken.says(0, &["citybrain.log-replayed/1"]);
    assert_eq!(taken.json()["acknowledged"], 5, "{}", taken.out);
}

/// Takes structured CloudEvents; of those it does not like it says so.
fn receiver(refuses: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/lake", listener.local_addr().expect("its address"));
    let got: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = got.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut writer = stream.try_clone().expect("a handle");
            let mut reader = BufReader::new(stream);
            loop {
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                    if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = n.trim().parse().expect("a number");
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if length == 0 || reader.read_exact(&mut body).is_err() {
                    break;
                }
                let event: Value = serde_json::from_slice(&body).expect("JSON");
                let id = event["id"].as_str().expect("an id").to_owned();
                let status = if id == refuses { "422 No" } else { "204 No Content" };
                if id != refuses {
                    kept.lock().expect("no panic").push(id);
                }
                write!(writer, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").expect("it is read");
            }
        }
    });
    (url, got)
}

#[test]
fn a_replay_by_http_counts_what_the_sink_refuses_and_a_sink_that_is_not_there_is_code_3() {
    let tree = a_street(10);
    let city = tree.node("c").url();
    let refused = tree.node("c").records().into_iter().find(|r| r.id.starts_with("e-")).expect("one").id;
    let (url, got) = receiver(Box::leak(refused.clone().into_boxed_str()));
    let ran = replay(&city, &["--to", &url, "--origin", "c/s", "--type", "city.*", "--json"]);
    let told = ran.json();
    assert_eq!((ran.code, &told["refused"]), (1, &json!(1)), "{told}");
    assert!(told["first_refused"][0]["reason"].as_str().is_some_and(|r| r.contains("422")), "{told}");
    let got = got.lock().expect("no panic").clone();
    assert_eq!(got.len() as u64, told["acknowledged"].as_u64().expect("a number"));
    assert!(!got.contains(&refused));
    let gone = ["--to", "http://127.0.0.1:9/lake", "--give-up-after", "1", "--origin", "c/s"];
    replay(&city, &gone).says(3, &["does not take events", "--after"]);
}

#[test]
fn a_sink_that_points_elsewhere_has_taken_nothing() {
    let tree = a_street(3);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/lake", listener.local_addr().expect("its address"));
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a request");
            let (status, more) =
                if line.starts_with("POST") { ("302 Found", "location: /login\r\n") } else { ("200 OK", "") };
            kept.lock().expect("no panic").push(line);
            write!(stream, "HTTP/1.1 {status}\r\n{more}connection: close\r\ncontent-length: 0\r\n\r\n")
                .expect("it is read");
        }
    });
    let ran = replay(&tree.node("c").url(), &["--to", &url, "--origin", "c/s", "--json"]);
    ran.says(3, &["takes no events from here", "302", "the address that it points to"]);
    assert!(asked.lock().expect("no panic").iter().all(|line| line.starts_with("POST")));
}

#[test]
fn an_exported_log_is_imported_bit_for_bit_and_its_node_goes_on_with_a_new_history() {
    let mut tree = a_street(60);
    let data = tree.node("c/s").data.clone();
    let (plain, packed) = (tree.dir().join("s.ndjson"), tree.dir().join("s.ndjson.zst"));
    // While the node runs.
    run(&["store", "export", text(&data), text(&plain)]).says(0, &["records exported", "only its owner"]);
    run(&["store", "export", text(&data), text(&plain)]).says(2, &["is there already"]);
    run(&["store", "export", "/nowhere", text(&packed)]).says(2, &["is no data folder"]);
    let sent = publish_all("c/s", tree.node("c/s").mqtt, "late", 20, false);
    tree.wait_all_up(&sent);
    tree.stop_node("c/s");
    run(&["store", "export", text(&data), text(&packed)]).says(0, &["records exported"]);
    let out = run(&["store", "export", text(&data), "-"]);
    assert_eq!(out.code, 0, "{}", out.err);
    let head: Value = serde_json::from_str(out.out.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&head["schema"], &head["first"]), (&json!("citybrain.log-export/1"), &json!(1)));
    assert_eq!(out.out.lines().count() as u64, head["last"].as_u64().expect("a number") + 2);

    // Only into nothing, and only what is whole.
    run(&["store", "import", text(&packed), text(&data), "--yes"]).says(2, &["holds something already"]);
    let other = tree.dir().join("other");
    run(&["store", "import", text(&packed), text(&other)]).says(2, &["begins a new history", "--yes"]);
    let cut = tree.dir().join("cut.ndjson");
    std::fs::write(&cut, &out.out[..out.out.len() / 2]).expect("it is written");
    run(&["store", "import", text(&cut), text(&other), "--yes"]).says(1, &["was cut", "nothing was left behind"]);
    let swapped = out.out.replacen("\"record\":\"", "\"record\":\"A", 1);
    std::fs::write(&cut, swapped).expect("it is written");
    run(&["store", "import", text(&cut), text(&other), "--yes"]).says(1, &["not as it was written"]);
    assert!(!other.exists());

    run(&["store", "import", text(&packed), text(&other), "--yes"]).says(0, &["records imported", "chain hash"]);
    let again = run(&["store", "export", text(&other), "-"]);
    let without_head =
        |text: &str| text.lines().skip(1).filter(|l| l.contains("\"pos\"")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_head(&again.out), without_head(&out.out), "the same records, bit for bit");
    run(&["store", "verify", text(&other)]).says(0, &["every one good"]);

    // The node goes on in the imported folder.
    std::fs::rename(&data, tree.dir().join("before")).expect("it is moved");
    std::fs::rename(&other, &data).expect("it is moved");
    tree.start_node("c/s");
    tree.wait_ready();
    tree.wait_linked();
    assert!(acts(&tree.node("c/s").url()).iter().any(|(what, ..)| what == "store import"));
    let sent = publish_all("c/s", tree.node("c/s").mqtt, "after", 10, false);
    tree.wait_all_up(&sent);
    run(&["audit", "--node", &tree.node("c").url()]).says(0, &["it adds up"]);
}

#[test]
fn what_a_token_may_not_see_is_not_replayed() {
    let mut tree = Tree::new(&["c"]);
    std::fs::write(tree.dir().join("tokens"), "").expect("it is written");
    tree.edit("c", |t| t.replace("[api]\n", "[api]\ntokens_file = \"tokens\"\n"));
    tree.start_node("c");
    tree.wait_ready();
    let token = |name: &str, role: &str| {
        let made = run(&["token", "add", name, "--role", role, "--file", text(&tree.dir().join("tokens"))]);
        let file = tree.dir().join(format!("{name}.token"));
        std::fs::write(&file, made.out).expect("it is written");
        text(&file).to_owned()
    };
    let (mia, li) = (token("mia", "reader"), token("li", "worker"));
    let mut device = Client::connect(tree.node("c").mqtt, "button", true);
    let press = json!({"specversion": "1.0", "id": "p1", "source": "/btn", "type": "city.sos.pressed",
        "data": {"contact": {"phone": "13900000000"}}});
    assert!(device.publish("in/btn", press.to_string().as_bytes()));
    let url = tree.node("c").url();
    let of = |token: &str| replay(&url, &["--type", "city.sos.pressed", "--token-file", token]);
    of(&mia).says(1, &["0 events sent", "1 events were not sent: this token may not see"]);
    let seen = of(&li);
    assert!(seen.code == 0 && seen.out.contains("13900000000"), "{}{}", seen.out, seen.err);
}
