//! Who may ask a node over HTTP and change it: tokens, contexts, and changes through the links.

use crate::harness::certs::{Ca, Pair};
use crate::harness::http::{Asker, Told};
use crate::harness::mqtt::{Client, connect_five_packet, publish_packet};
use crate::harness::ran::{Ran, acts, run, run_with, text, token};
use crate::harness::{Tree, add_user, add_user_as, binary, wait_for};
use citybrain_shared::view;
use serde_json::json;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A city that asks who comes, running. The tokens' file is empty.
fn a_guarded_city() -> Tree {
    let mut tree = Tree::new(&["c"]);
    let config = &tree.node("c").config;
    let text = std::fs::read_to_string(config).expect("the config reads");
    std::fs::write(config, text.replace("[api]\n", "[api]\ntokens_file = \"tokens\"\n")).expect("it is written");
    std::fs::write(tree.dir().join("tokens"), "").expect("it is written");
    tree.start_node("c");
    tree.wait_ready();
    tree
}

/// Makes a token and keeps it in a file, whose name is given back.
fn a_token(tree: &Tree, name: &str, role: &str) -> String {
    let file = tree.dir().join(format!("{name}.token"));
    std::fs::write(&file, token(tree, name, role)).expect("it is written");
    text(&file).to_owned()
}

#[test]
fn a_bureaus_gateway_brings_warnings_and_fetches_alarms_and_does_nothing_else() {
    let tree = a_guarded_city();
    let url = tree.node("c").url();
    let (gateway, worker) = (a_token(&tree, "met", "gateway"), a_token(&tree, "li", "worker"));
    let storm = tree.dir().join("storm.xml");
    let xml = "<alert xmlns=\"urn:oasis:names:tc:emergency:cap:1.2\"><identifier>1</identifier><sender>a@b</sender>\
        <sent>2100-01-01T00:00:00-00:00</sent><status>Actual</status><msgType>Alert</msgType><scope>Public</scope>\
        <info><category>Met</category><event>暴雨</event><urgency>Expected</urgency><severity>Minor</severity>\
        <certainty>Likely</certainty></info></alert>";
    std::fs::write(&storm, xml).expect("it is written");
    let ask = |token: &str, line: &[&str]| run(&[line, &["--node", &url, "--token-file", token]].concat());
    ask(&gateway, &["cap", "send", text(&storm), "--yes"]).says(0, &["taken: a@b,1,2100-01-01T00:00:00Z"]);
    ask(&gateway, &["cap", "list"]).says(0, &["暴雨"]);
    ask(&worker, &["cap", "send", text(&storm), "--yes"]).says(1, &["has the role worker"]);
    for line in
        [&["status"][..], &["events"], &["case", "list"], &["cap", "cancel", "a@b", "--yes"], &["alarm", "list"]]
    {
        ask(&gateway, line).says(1, &["`met` has the role gateway"]);
    }
}

#[test]
fn with_a_tokens_file_a_reader_reads_an_operator_changes_and_nobody_else_does_either() {
    let tree = a_guarded_city();
    let (url, tokens) = (tree.node("c").url(), tree.dir().join("tokens"));
    let (anna, mia) = (a_token(&tree, "anna", "operator"), a_token(&tree, "mia", "reader"));
    let ask = |token: &str, line: &str| -> Ran {
        let mut args: Vec<&str> = line.split(' ').collect();
        args.extend(["--node", &url, "--token-file", token]);
        run(&args)
    };
    // Health is for whoever watches machines.
    assert!(tree.node("c").get_text("/livez").is_some() && tree.node("c").get_text("/readyz").is_some());
    assert!(tree.node("c").get_text("/metrics").is_none());
    // Here; it is no way to those below.
    for path in ["/livez", "/readyz", "/openapi.json"] {
        assert_eq!(tree.node("c").asker().ask("GET", path, &[(view::HEADER_AT, "c/s")], "").status, 401, "{path}");
    }
    run(&["status", "--node", &url]).says(1, &["no token was given", "--token-file"]);
    let (status, _) = tree.node("c").post("/v1/send", &json!({"target": "c", "type": "t"}));
    assert_eq!(status, 401);

    ask(&mia, "status").says(0, &["c 节点 c (city)"]);
    ask(&mia, "events").says(0, &[]);
    for line in ["log-level debug --yes", "send --target c --type t --yes", "config reload --yes", "dlq drop 1 --yes"] {
        ask(&mia, line).says(1, &["`mia` has the role reader", "--role operator"]);
    }
    ask(&anna, "log-level info --yes").says(0, &["before: info"]);
    ask(&anna, "send --target c --type t --yes").says(0, &[]);
    ask(&anna, "config reload --yes").says(0, &[]);
    let here = tree.node("c").data.clone();
    let done = run(&["events", "--type", "city.brain.operator", "--json", "--data-dir", text(&here)]);
    let who: Vec<serde_json::Value> =
        done.out.lines().map(|l| serde_json::from_str(l).expect("a line is JSON")).collect();
    let data: Vec<&serde_json::Value> = who.iter().map(|l| &l["event"]["data"]).collect();
    assert_eq!(
        data.iter().map(|d| d["what"].as_str().unwrap_or("")).collect::<Vec<_>>(),
        ["log-level", "send", "reload"]
    );
    for d in data {
        assert!(d["who"].as_str().is_some_and(|w| w.starts_with("anna (")), "{d}");
        assert!(d["who_is"] == "token" && d["from"].as_str().is_some_and(|f| f.starts_with("127.0.0.1:")), "{d}");
    }
    // Whoever may read the folder may operate its node; nobody else may read that.
    let about = std::fs::metadata(here.join("api.json")).expect("the pointer is there");
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    run(&["log-level", "warn", "--yes", "--data-dir", text(&here)]).says(0, &["before: info"]);

    // A token that is taken out opens nothing from the next request on.
    run(&["token", "list", "--file", text(&tokens)]).says(0, &["anna", "operator", "mia", "reader"]);
    run(&["token", "add", "mia", "--role", "operator", "--file", text(&tokens)]).says(1, &["is a token `mia` already"]);
    run(&["token", "remove", "mia", "--file", text(&tokens)]).says(2, &["is refused from now on", "--yes"]);
    run(&["token", "remove", "mia", "--file", text(&tokens), "--yes"]).says(0, &["removed mia"]);
    ask(&mia, "status").says(1, &["does not know that token"]);
    ask(&anna, "status").says(0, &[]);
    let all = std::fs::read_to_string(&tokens).expect("it reads");
    let secret = std::fs::read_to_string(&anna).expect("it reads");
    assert!(!all.contains(secret.trim()), "only the hash is kept");
    // Of a bundle, too, nothing opens a door.
    let bundle = tree.dir().join("city.tar");
    run(&["doctor", "bundle", text(&bundle), "--data-dir", text(&here)]).says(0, &[]);
    let packed = std::fs::read(&bundle).expect("it reads");
    let local = std::fs::read_to_string(here.join("api.json")).expect("it reads");
    let local: serde_json::Value = serde_json::from_str(&local).expect("it is JSON");
    for secret in [secret.trim(), local["token"].as_str().expect("a token")] {
        assert!(!packed.windows(secret.len()).any(|w| w == secret.as_bytes()));
    }
}

const CLOUD_EVENT: &str = "application/cloudevents+json";

/// The city, asked with the token in a file.
fn by<'t>(tree: &'t Tree, token: &str) -> Asker<'t> {
    tree.node("c").by(&std::fs::read_to_string(token).expect("it reads"))
}

/// Presses a button that tells a telephone number, and gives the case's id.
fn a_press_that_says_whom_to_call(tree: &Tree, token: &str) -> String {
    let event = json!({"specversion": "1.0", "id": "p1", "source": "/c/btn", "type": "city.sos.pressed.v1",
        "data": {"contact": {"name": "王大妈", "phone": "13900000000"}}});
    assert_eq!(by(tree, token).post_as("/v1/events", CLOUD_EVENT, event.to_string()).status, 202);
    let list = || run(&["case", "list", "--json", "--node", &tree.node("c").url(), "--token-file", token]).out;
    wait_for("the press opens a case", || {
        let all: serde_json::Value = serde_json::from_str(&list()).ok()?;
        Some(all["cases"][0]["id"].as_str()?.to_owned())
    })
}

#[test]
fn whom_to_call_is_told_by_the_tokens_role_and_not_by_what_the_caller_says() {
    let tree = a_guarded_city();
    let (anna, li, mia) =
        (a_token(&tree, "anna", "operator"), a_token(&tree, "li", "worker"), a_token(&tree, "mia", "reader"));
    let case = a_press_that_says_whom_to_call(&tree, &anna);
    let letter = "{\"phone\":\"13900000000\""; // no JSON: it becomes a dead letter
    assert_eq!(by(&tree, &anna).post_as("/v1/events", CLOUD_EVENT, letter).status, 400, "it does not parse");
    let get = |token: &str, path: &str, at: Option<&str>| -> (u16, String) {
        let at = at.map(|at| (view::HEADER_AT, at));
        let told = by(&tree, token).ask("GET", path, at.as_slice(), "");
        (told.status, told.text)
    };
    wait_for("the dead letter is kept", || get(&anna, "/v1/dlq", None).1.contains("13900000000").then_some(()));
    let show = format!("/v1/cases/{case}");
    let ways = [
        (show.clone(), None),
        (show.clone(), Some("c")),
        (format!("/v1/at/c?path={show}"), None),
        ("/v1/events?last=1000".to_owned(), None),
        ("/v1/events/p1?source=/c/btn".to_owned(), None),
        ("/v1/events/p1".to_owned(), Some("c")),
        ("/v1/dlq".to_owned(), None),
    ];
    for (path, at) in &ways {
        for token in [&anna, &li] {
            let (status, text) = get(token, path, *at);
            assert!(status == 200 && text.contains("13900000000"), "{path}: {status} {text}");
        }
        let (status, text) = get(&mia, path, *at);
        assert!(status == 200 && !text.contains("13900000000") && !text.contains("王大妈"), "{path}: {text}");
    }
    // A path that would be a second line of a question is none.
    let (status, text) = get(&mia, &format!("/v1/ask?selector=c&path={show}%0Apersons"), None);
    assert!(status == 400 && text.contains("is no path"), "{status} {text}");
    // To many at a time it is told to nobody; and a role in the question is not a word that is known.
    for token in [&anna, &mia] {
        let (_, text) = get(token, &format!("/v1/ask?selector=c&path={show}"), None);
        assert!(text.contains(&case) && !text.contains("13900000000"), "{text}");
    }
    assert_eq!(get(&mia, &format!("{show}?role=worker"), None).0, 400);

    // What it takes is told to each as what is for him.
    let boss = a_token(&tree, "zhao", "supervisor");
    let takes = |token: &str, at: Option<&str>| -> Vec<String> {
        let shown: serde_json::Value = serde_json::from_str(&get(token, &show, at).1).expect("JSON");
        let all = shown["allowed"].as_array().expect("a list");
        all.iter().map(|verb| verb.as_str().expect("a word").to_owned()).collect()
    };
    let all = takes(&anna, None);
    let but = |verbs: &[&str]| -> Vec<String> {
        all.iter().filter(|verb| !verbs.contains(&verb.as_str())).cloned().collect()
    };
    assert_eq!(but(&["accept", "comment", "forget", "withdraw", "exclude"]).len() + 5, all.len(), "{all:?}");
    assert_eq!(takes(&mia, None), [""; 0]);
    assert_eq!(takes(&boss, None), but(&["forget"]));
    let not_workers = ["verify", "close", "exclude", "forget", "evaluate", "withdraw", "reopen", "suspend", "extend"];
    assert_eq!(takes(&li, None), but(&not_workers));
    let asked = get(&mia, &format!("/v1/ask?selector=c&path={show}"), None).1;
    assert!(asked.contains("\"allowed\":[]"), "{asked}");

    let url = tree.node("c").url();
    let step = |token: &str, line: &[&str]| run(&[line, &["--node", &url, "--token-file", token]].concat());
    step(&mia, &["case", "show", &case]).says(0, &["takes       nothing by this token"]);
    step(&mia, &["case", "accept", &case, "--by", "li"]).says(1, &["`mia` has the role reader", "--role worker"]);
    step(&li, &["case", "close", &case, "--by", "anna", "--role", "supervisor"]).says(1, &["not as a supervisor"]);
    step(&li, &["case", "exclude", &case, "--role", "worker", "--approved-by", "anna"])
        .says(1, &["a second person's word"]);
    // A role that the token does not let him say is no advice, and no second person.
    step(&li, &["case", "withdraw", &case])
        .says(1, &["`withdraw` is for a resident or supervisor", "token add NAME --role supervisor"]);
    step(&li, &["case", "suspend", &case, "--text", "x"]).says(1, &["token add NAME --role supervisor"]);
    step(&li, &["case", "forget", &case, "--yes"]).says(1, &["only an operator"]);
    // Whoever has a worker's token acts in its name, whatever he says.
    step(&li, &["case", "accept", &case, "--by", "anna"]).says(0, &["accepted"]);
    let shown: serde_json::Value = serde_json::from_str(&get(&mia, &show, None).1).expect("JSON");
    assert_eq!(shown["case"]["accepted_by"], "li");
    // Who has handled it may not end it.
    assert!(takes(&li, None).contains(&"merge".to_owned()));
    step(&li, &["case", "dispatch", &case, "--unit", "保安"]).says(0, &[]);
    step(&li, &["case", "start", &case]).says(0, &[]);
    assert!(takes(&boss, None).contains(&"merge".to_owned()) && !takes(&li, None).contains(&"merge".to_owned()));
    step(&anna, &["case", "forget", &case, "--by", "anna", "--yes"]).says(0, &[]);
    for (path, at) in ways.iter().filter(|(path, _)| path != "/v1/dlq") {
        let (status, text) = get(&anna, path, *at);
        let is_gone = !text.contains("13900000000") && !text.contains("王大妈");
        assert!(status == 200 && is_gone, "to nobody any more: {path}: {status} {text}");
    }
    assert!(get(&anna, "/v1/events/p1", Some("c")).1.contains("about a person who is forgotten"));
}

#[test]
fn what_a_topic_retains_of_whoever_is_forgotten_no_new_subscriber_gets() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let port = tree.node("c").mqtt;
    let retain = |topic: &str, id: &str, kind: &str| {
        let event = json!({"specversion": "1.0", "id": id, "source": "/bridge/b", "type": kind,
            "data": {"contact": {"name": "王大妈", "phone": "13900000000"}}});
        let mut bridge = Client::connect(port, "bridge", true);
        bridge.send(&publish_packet(topic, 1, true, false, 1, event.to_string().as_bytes())).expect("it is sent");
        assert_eq!(bridge.read(Duration::from_secs(10)).expect("its PUBACK").kind, 4);
    };
    // In the order of their topics.
    let first = |client: &str| {
        let mut new = Client::connect(port, client, true);
        new.subscribe("in/#", 1);
        new.next_message(Duration::from_secs(10)).expect("something is retained").topic
    };
    retain("in/a", "p1", "city.sos.pressed");
    retain("in/b", "l1", "city.lamp.failed");
    assert_eq!(first("s1"), "in/a");
    let cases = tree.node("c").get("/v1/cases").expect("cases");
    let case = cases["cases"][0]["id"].as_str().expect("the press is one").to_owned();
    run(&["case", "forget", &case, "--by", "boss", "--yes", "--node", &tree.node("c").url()]).says(0, &[]);
    assert_eq!(first("s2"), "in/b");
    // A bridge says again what it retains, whenever it comes back.
    retain("in/a", "p1", "city.sos.pressed");
    assert_eq!(first("s3"), "in/b");
    tree.kill9("c");
    tree.start_node("c");
    tree.wait_ready();
    assert_eq!(first("s4"), "in/b");
}

#[test]
fn a_worker_acknowledges_an_alarm_in_his_own_name_and_a_supervisor_clears_it() {
    let mut tree = Tree::new(&["c"]);
    let rule = "[[rule]]\nname = \"smoke\"\non = [\"city.smoke\"]\n[[rule.then]]\nraise = { severity = \"critical\", title = \"烟雾\" }\n";
    tree.edit("c", |text| format!("{}{rule}", text.replace("[api]\n", "[api]\ntokens_file = \"tokens\"\n")));
    std::fs::write(tree.dir().join("tokens"), "").expect("it is written");
    tree.start();
    let tokens = [("anna", "operator"), ("zhan", "supervisor"), ("li", "worker"), ("mia", "reader")];
    let [anna, zhan, li, mia] = tokens.map(|(name, role)| a_token(&tree, name, role));
    let (port, url) = (tree.node("c").mqtt, tree.node("c").url());
    let smoke = json!({"specversion": "1.0", "id": "1", "source": "/c/k", "type": "city.smoke"});
    assert!(Client::connect(port, "kitchen", true).publish("in/k", smoke.to_string().as_bytes()));
    let ask = |token: &str, line: &[&str]| run(&[line, &["--node", &url, "--token-file", token]].concat());
    let id = wait_for("it is raised", || {
        let all = ask(&mia, &["alarm", "list", "--json"]).json();
        Some(all["alarms"][0]["id"].as_str()?.to_owned())
    });
    ask(&mia, &["alarm", "ack", &id, "--by", "li"]).says(1, &["`mia` has the role reader", "--role worker"]);
    ask(&mia, &["alarm", "clear", &id, "--by", "li"]).says(1, &["`mia` has the role reader", "--role supervisor"]);
    ask(&li, &["alarm", "clear", &id]).says(1, &["`li` has the role worker", "--role supervisor"]);
    // Whatever he says: who has seen it must be true.
    ask(&li, &["alarm", "ack", &id, "--by", "anna"]).says(0, &["active, acked", " by li\n"]);
    ask(&li, &["alarm", "shelve", &id, "--for", "1h"]).says(0, &["active, acked, shelved", " by li\n"]);
    ask(&zhan, &["alarm", "clear", &id, "--by", "anna"]).says(0, &["cleared", " by zhan\n"]);
    // An operator speaks for others.
    let again = smoke.to_string().replace("\"1\"", "\"2\"");
    assert!(Client::connect(port, "kitchen", true).publish("in/k", again.as_bytes()));
    wait_for("it is raised again", || (ask(&mia, &["alarm", "list", "--json"]).json()["active"] == 1).then_some(()));
    ask(&anna, &["alarm", "ack", &id, "--by", "值班长"]).says(0, &["active, acked", " by 值班长\n"]);
}

#[test]
fn a_replay_to_a_node_that_does_not_take_it_ends_and_the_same_command_then_plays_all_of_it() {
    let tree = a_guarded_city();
    let url = tree.node("c").url();
    let (anna, mia) = (a_token(&tree, "anna", "operator"), a_token(&tree, "mia", "reader"));
    let file = tree.dir().join("day.ndjson");
    let row = |i: u32| format!("{{\"specversion\":\"1.0\",\"id\":\"r{i}\",\"source\":\"/x\",\"type\":\"city.x\"}}\n");
    std::fs::write(&file, (0..50).map(row).collect::<String>()).expect("it is written");
    let play = |http: &str, more: &[&str]| run(&[&["replay", text(&file), "--http", http], more].concat());
    play(&url, &[]).says(3, &["takes no events from here", "401", "`--token-file FILE`"]);
    play(&url, &["--token-file", &mia]).says(3, &["403", "`--token-file FILE`"]);
    play(&format!("{url}/v2"), &["--token-file", &anna, "--state", &text(&file).replace("day", "other")])
        .says(3, &["404", "takes CloudEvents by POST"]);
    play(&url, &["--token-file", "/nowhere"]).says(2, &["cannot read the token"]);
    play(&url, &["--token-file", &anna]).says(0, &[]);
    let taken = run(&["events", "--type", "city.x", "--limit", "100", "--json", "--node", &url, "--token-file", &anna]);
    assert_eq!(taken.out.lines().count(), 50, "{}", taken.out);

    // So does one to another place.
    let sink = format!("{url}/v1/events");
    let again = |more: &[&str]| {
        let from = ["log", "replay", "--node", &url, "--token-file", &anna, "--type", "city.x", "--to", &sink];
        run(&[&from, more].concat())
    };
    again(&[]).says(3, &["takes no events from here", "`--sink-token-file FILE`"]);
    again(&["--sink-token-file", &anna]).says(0, &["50"]);
}

#[test]
fn an_api_that_is_open_to_the_network_must_ask_who_comes() {
    let tree = Tree::new(&["c"]);
    let config = &tree.node("c").config;
    let before = std::fs::read_to_string(config).expect("the config reads");
    let open = before.replace("[api]\nlisten = \"127.0.0.1:", "[api]\nlisten = \"0.0.0.0:");
    assert_ne!(before, open);
    std::fs::write(config, &open).expect("it is written");
    run(&["check", text(config)]).says(2, &["nobody is asked who he is", "tokens_file"]);
    std::fs::write(config, open.replace("[api]\n", "[api]\ntokens_file = \"tokens\"\n")).expect("it is written");
    run(&["check", text(config)]).says(2, &["cannot read", "tokens"]);
    std::fs::write(tree.dir().join("tokens"), "anna operator abc\n").expect("it is written");
    run(&["check", text(config)]).says(2, &["line 1 of", "no SHA-256"]);
    std::fs::write(tree.dir().join("tokens"), "").expect("it is written");
    a_token(&tree, "anna", "operator");
    run(&["check", text(config)]).says(0, &[]);
}

#[test]
fn the_api_speaks_tls_shows_a_renewed_certificate_and_is_asked_by_every_way_of_the_cli() {
    let mut tree = a_guarded_city();
    let ca = Ca::new(tree.dir(), "ca");
    ca.issue("api", "node");
    let other = Ca::new(tree.dir(), "other");
    tree.stop_node("c");
    let half = |text: String| text.replace("[api]\n", "[api]\ncert_file = \"api.pem\"\n");
    tree.edit("c", half);
    run(&["check", text(&tree.node("c").config)]).says(2, &["HTTPS needs `key_file`, too"]);
    tree.edit("c", |t| t.replace("[api]\n", "[api]\nkey_file = \"api-key.pem\"\n"));
    run(&["check", text(&tree.node("c").config)]).says(0, &[]);
    tree.start_node("c");
    let (here, port) = (tree.node("c").data.clone(), tree.node("c").api);
    wait_for("it answers", || (run(&["status", "--data-dir", text(&here)]).code == 0).then_some(()));
    let (url, plain) = (format!("https://localhost:{port}"), format!("http://localhost:{port}"));
    let anna = a_token(&tree, "anna", "operator");
    let ask = |url: &str, line: &str, ca: &Path| {
        let mut args: Vec<&str> = line.split(' ').collect();
        args.extend(["--node", url, "--token-file", &anna, "--ca", text(ca)]);
        run(&args)
    };
    ask(&url, "status", &ca.pem).says(0, &["c 节点 c (city)"]);
    ask(&url, "log-level debug --yes", &ca.pem).says(0, &["before: info"]);
    ask(&url, "status", &other.pem).says(3, &["UnknownIssuer", "--ca FILE"]);
    ask(&url, "status", Path::new("/nowhere")).says(2, &["cannot read `/nowhere`"]);
    // Whom the machine trusts, it does not know this one.
    run(&["status", "--node", &url, "--token-file", &anna]).says(3, &["--ca FILE"]);
    ask(&plain, "status", &ca.pem).says(3, &["write https://"]);
    let done = run(&["events", "--type", "city.brain.operator", "--json", "--data-dir", text(&here)]);
    assert!(done.out.contains("\"from\":\"127.0.0.1:"), "{}", done.out);

    let home = tree.dir().join("home");
    let env = [("XDG_CONFIG_HOME", text(&home))];
    let add = ["context", "add", "city", &url, "--token-file", &anna, "--ca", text(&ca.pem)];
    run_with(&add, &env).says(0, &["used from now on"]);
    run_with(&["status"], &env).says(0, &["c 节点 c (city)"]);
    run_with(&["context", "list"], &env).says(0, &["ca.pem"]);

    // One that sits on a connection without a word holds up nobody.
    let _silent = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it is accepted");
    ask(&url, "status", &ca.pem).says(0, &[]);
    other.issue("api", "node");
    wait_for("the new certificate is shown", || (ask(&url, "status", &other.pem).code == 0).then_some(()));
    ask(&url, "status", &ca.pem).says(3, &[]);
    let doctor = run(&["doctor", "--data-dir", text(&here), "--json"]).json();
    assert_eq!(doctor["facts"]["host"]["certificates"][0]["key"], "api.cert_file", "{doctor}");
    tree.stop_node("c");
}

#[test]
fn who_shows_a_certificate_is_the_holder_of_the_token_of_that_name_and_of_its_role() {
    let mut tree = a_guarded_city();
    let (ca, other) = (Ca::new(tree.dir(), "ca"), Ca::new(tree.dir(), "other"));
    ca.issue("api", "node");
    let (mia, anna, nobody) = (ca.issue("mia", "mia"), ca.issue("anna", "anna"), ca.issue("nobody", "nobody"));
    let foreign = other.issue("foreign", "anna");
    let (mias, annas) = (a_token(&tree, "mia", "reader"), a_token(&tree, "anna", "operator"));
    tree.stop_node("c");
    tree.edit("c", |t| t.replace("[api]\n", "[api]\nclient_ca_file = \"ca.pem\"\n"));
    run(&["check", text(&tree.node("c").config)]).says(2, &["nobody shows a certificate without HTTPS"]);
    tree.edit("c", |t| t.replace("[api]\n", "[api]\ncert_file = \"api.pem\"\nkey_file = \"api-key.pem\"\n"));
    run(&["check", text(&tree.node("c").config)]).says(0, &[]);
    tree.start_node("c");
    let (here, port) = (tree.node("c").data.clone(), tree.node("c").api);
    wait_for("it answers", || (run(&["status", "--data-dir", text(&here)]).code == 0).then_some(()));
    let url = format!("https://localhost:{port}");
    let showing = |pair: &Pair, line: &str| {
        let mut args: Vec<&str> = line.split(' ').collect();
        args.extend(["--node", &url, "--ca", text(&ca.pem), "--cert", text(&pair.cert), "--cert-key", text(&pair.key)]);
        run(&args)
    };
    showing(&mia, "status").says(0, &["c 节点 c (city)"]);
    showing(&mia, "log-level debug --yes").says(1, &["the token `mia` has the role reader"]);
    showing(&anna, "log-level debug --yes").says(0, &["before: info"]);
    let done = run(&["events", "--type", "city.brain.operator", "--json", "--data-dir", text(&here)]);
    assert!(done.out.contains("\"who\":\"anna"), "{}", done.out);
    // A token goes before a certificate; neither is as before.
    showing(&anna, &format!("log-level info --yes --token-file {mias}"))
        .says(1, &["the token `mia` has the role reader"]);
    showing(&mia, &format!("log-level info --yes --token-file {annas}")).says(0, &["before: debug"]);
    showing(&nobody, "status").says(1, &["no token of the name `nobody`"]);
    showing(&foreign, "status").says(3, &["UnknownCA"]);
    run(&["status", "--node", &url, "--ca", text(&ca.pem)]).says(1, &["no token was given"]);
    run(&["status", "--node", &url, "--cert", text(&mia.cert)]).says(2, &["--cert-key"]);
    run(&["status", "--node", &url, "--cert", "/nowhere", "--cert-key", "/nowhere"]).says(2, &["/nowhere"]);
    // Taken out of the tokens file, the certificate opens nothing either.
    let tokens = tree.dir().join("tokens");
    run(&["token", "remove", "mia", "--yes", "--file", text(&tokens)]).says(0, &[]);
    wait_for("mia is out", || (showing(&mia, "status").code == 1).then_some(()));

    let home = tree.dir().join("home");
    let env = [("XDG_CONFIG_HOME", text(&home))];
    let pair = ["--cert", text(&anna.cert), "--cert-key", text(&anna.key)];
    let add = [&["context", "add", "city", &url, "--ca", text(&ca.pem)][..], &pair].concat();
    run_with(&add, &env).says(0, &["used from now on"]);
    run_with(&["log-level", "warn", "--yes"], &env).says(0, &["before: info"]);
    run_with(&["context", "list"], &env).says(0, &["anna.pem"]);
    tree.stop_node("c");
}

#[test]
fn a_context_is_a_name_for_a_node_and_its_token() {
    let mut tree = a_guarded_city();
    let home = tree.dir().join("home");
    let env = [("XDG_CONFIG_HOME", text(&home))];
    let (url, mia) = (tree.node("c").url(), a_token(&tree, "mia", "reader"));
    run_with(&["context", "list"], &env).says(0, &["no contexts"]);
    run_with(&["context", "add", "city", "city:1"], &env).says(2, &["no http:// or https:// address"]);
    run_with(&["context", "add", "city", &url, "--token-file", "/nowhere"], &env).says(2, &["cannot read the token"]);
    run_with(&["context", "add", "city", &url, "--token-file", &mia], &env).says(0, &["used from now on"]);
    // With its token, which a second one of that name would have dropped.
    run_with(&["context", "add", "city", &url], &env)
        .says(2, &["there is a context `city` already", "context remove city"]);
    run_with(&["context", "add", "away", "http://127.0.0.1:9"], &env).says(0, &["citybrain context use away"]);
    run_with(&["status"], &env).says(0, &["c 节点 c (city)"]);
    run_with(&["context", "use", "away"], &env).says(0, &[]);
    run_with(&["context", "list"], &env).says(0, &["*  away", "city", "mia.token"]);
    run_with(&["status"], &env).says(3, &["cannot reach the node at http://127.0.0.1:9"]);
    run_with(&["status", "--context", "city"], &env).says(0, &["c 节点 c (city)"]);
    run_with(&["status", "--context", "moon"], &env).says(2, &["no context `moon`", "there is away, city"]);
    run_with(&["context", "remove", "away"], &env).says(2, &["--yes"]);
    run_with(&["context", "remove", "away", "--yes"], &env).says(0, &[]);
    let list = run_with(&["context", "list", "--json"], &env).json();
    assert_eq!(list["contexts"].as_array().map(Vec::len), Some(1));
    tree.stop_node("c");
}

#[test]
fn a_node_below_is_changed_through_the_links_and_knows_by_whom() {
    let mut tree = Tree::new(&["c/s/m"]);
    tree.start();
    let (city, leaf) = (tree.node("c").url(), tree.node("c/s/m").url());
    tree.wait_all_known();
    let at = |line: &str| -> Ran {
        let mut args: Vec<&str> = line.split(' ').collect();
        args.extend(["--at", "c/s/m", "--node", &city]);
        run(&args)
    };
    at("log-level debug").says(2, &["The node at c/s/m, through http://", "--yes"]);
    at("log-level debug --yes").says(0, &["before: info", "c/s/m, its own record"]);
    run(&["log-level", "--node", &leaf]).says(0, &["debug"]);
    run(&["log-level", "--node", &city]).says(0, &["info"]);
    at("log-level dbg --yes").says(2, &["no log level"]);
    let mut device = Client::connect(tree.node("c/s/m").mqtt, "dev", true);
    device.publish("in/x", b"rubbish");
    let pos = wait_for("a letter", || {
        Some(tree.node("c/s/m").get("/v1/dlq")?["dead_letters"][0]["pos"].as_u64()?.to_string())
    });
    at(&format!("dlq drop {pos} --yes")).says(0, &["dropped", "0 still open"]);
    at("config reload --yes").says(0, &[]);
    let versions = run(&["version", "--at", "c/**", "--node", &city]);
    versions.says(0, &["c/s/m: citybrain", "c/s: citybrain", "3 of 3 nodes"]);

    let done: Vec<String> = acts(&leaf).into_iter().map(|(what, ..)| what).collect();
    assert_eq!(done, ["log-level", "dlq drop", "reload"]);
    let events = run(&["events", "--type", "city.brain.operator", "--json", "--node", &leaf]);
    assert!(events.out.lines().all(|l| l.contains(", by c\"")), "{}", events.out);
    assert_eq!(acts(&city), [], "nothing was done at the city itself");

    // What moves events is done where it happens; many nodes are not changed at once.
    let (status, answer) = post_at(&tree, "/v1/send", &json!({"target": "c/s/m", "type": "t"}));
    assert_eq!((status, answer["error"].as_str()), (405, Some("not-from-above")));
    run(&["log-level", "debug", "--yes", "--at", "c/**", "--node", &city]).says(2, &["may be many"]);
    tree.stop_node("c/s/m");
    wait_for("it is away", || {
        let ran = at("log-level info --yes");
        (ran.code == 3 && ran.err.contains("did not answer")).then_some(())
    });
}

/// A POST at the city that is meant for the leaf.
fn post_at(tree: &Tree, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
    let headers = [("content-type", "application/json"), (view::HEADER_AT, "c/s/m")];
    let told = tree.node("c").asker().ask("POST", path, &headers, body.to_string());
    (told.status, told.json())
}

#[test]
fn a_stream_ends_when_the_token_of_its_reader_is_removed_whichever_way_it_was_asked_for() {
    let tree = a_guarded_city();
    let tokens = tree.dir().join("tokens");
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).build().into();
    for (name, path, at) in [
        ("mia", "/v1/events?follow=true", None),
        ("ida", "/v1/events?follow=true", Some("c")),
        ("eva", "/v1/at/c?path=/v1/events%3Ffollow%3Dtrue", None),
    ] {
        let token = std::fs::read_to_string(a_token(&tree, name, "reader")).expect("it reads");
        let mut stream = agent.get(format!("{}{path}", tree.node("c").url()));
        stream = stream.header("authorization", format!("Bearer {}", token.trim()));
        if let Some(at) = at {
            stream = stream.header(view::HEADER_AT, at);
        }
        let stream = stream.call().expect("it is answered");
        let removed = run(&["token", "remove", name, "--file", text(&tokens), "--yes"]);
        removed.says(0, &[&format!("removed {name}")]);
        let end = stream.into_body().read_to_string();
        assert!(end.as_ref().is_err_and(|e| !matches!(e, ureq::Error::Timeout(_))), "{name}'s breaks off: {end:?}");
    }
}

/// What a browser asks before a page's request.
fn preflight<'a>(origin: &'a str, method: &'a str, headers: &'a str) -> [(&'static str, &'a str); 3] {
    [("origin", origin), ("access-control-request-method", method), ("access-control-request-headers", headers)]
}

#[test]
fn a_web_page_that_is_named_asks_first_and_then_with_its_token_and_another_has_open311_alone() {
    let mut tree = a_guarded_city();
    tree.stop_node("c");
    tree.edit("c", |t| t.replace("[api]\n", "[api]\norigins = [\"https://desk.example\"]\n"));
    tree.start_node("c");
    tree.wait_ready();
    let mia = std::fs::read_to_string(a_token(&tree, "mia", "reader")).expect("it reads");
    let token = format!("Bearer {}", mia.trim());
    let node = tree.node("c").asker();
    let said = |told: Told| (told.status, told.find("access-control-allow-origin").map(str::to_owned));
    let (desk, evil) = ("https://desk.example", "https://evil.example");
    let asks = |path: &str, origin: &str, method: &str| {
        said(node.ask("OPTIONS", path, &preflight(origin, method, "authorization"), ""))
    };
    let gets = |path: &str, origin: &str, token: &str| {
        said(node.ask("GET", path, &[("origin", origin), ("authorization", token)], ""))
    };
    let named = Some(desk.to_owned());
    assert_eq!(asks("/v1/cases", desk, "POST"), (204, named.clone()));
    assert_eq!(asks("/v1/cases", evil, "POST"), (401, None));
    assert_eq!(gets("/v1/status", desk, &token), (200, named.clone()));
    assert_eq!(gets("/v1/status", desk, "Bearer none"), (401, named));
    assert_eq!(gets("/v1/status", evil, &token), (200, None), "its browser keeps the answer from it");
    assert_eq!(gets("/open311/v2/services.json", evil, ""), (200, Some("*".into())));
    // What a page has to send and to see, as a program has.
    let wanted = preflight(desk, "POST", "authorization,ce-id,ce-source,ce-own7,x-other");
    let told = node.ask("OPTIONS", "/v1/events", &wanted, "");
    let sent = told.header("access-control-allow-headers");
    for name in ["authorization", "x-citybrain-at", "ce-id", "ce-source", "ce-own7"] {
        assert!(sent.split(", ").any(|n| n == name), "{name}: {sent}");
    }
    assert!(!sent.contains("x-other"), "{sent}");
    let told = node.ask("GET", "/v1/status", &[("origin", desk), ("authorization", &token)], "");
    let seen = told.header("access-control-expose-headers");
    for name in ["etag", "citybrain-node", "citybrain-cut", "citybrain-took-ms"] {
        assert!(seen.split(", ").any(|n| n == name), "{name}: {seen}");
    }
}

#[test]
fn without_tokens_other_peoples_web_pages_neither_change_nor_read_anything_and_programs_do() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let node = tree.node("c");
    let port = node.api;
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| -> (u16, String) {
        let body = if method == "POST" { "{\"target\":\"c\",\"type\":\"city.page\"}" } else { "" };
        let told = node.asker().ask(method, path, headers, body);
        (told.status, told.text)
    };
    // As `fetch(…, {mode: "no-cors"})` and a form of a page elsewhere send it.
    let page = ("origin", "https://evil.example");
    for (path, kind) in [
        ("/v1/send", "text/plain"),
        ("/v1/log-level", "text/plain"),
        ("/open311/v2/requests.json", "application/x-www-form-urlencoded"),
    ] {
        let (status, text) = ask("POST", path, &[page, ("content-type", kind)]);
        assert!(status == 403 && text.contains("foreign-page"), "{path}: {status} {text}");
    }
    let crossed = [("sec-fetch-site", "cross-site"), ("content-type", "text/plain")];
    assert_eq!(ask("POST", "/v1/send", &crossed).0, 403);
    // A domain that was made to lead here: to the browser it is the page's own.
    let (host, origin) = (format!("evil.example:{port}"), format!("http://evil.example:{port}"));
    for path in ["/v1/cases", "/v1/events", "/open311/v2/requests.json", "/metrics"] {
        let (status, text) =
            ask("GET", path, &[("host", &host), ("origin", &origin), ("sec-fetch-site", "same-origin")]);
        assert!(status == 403 && text.contains("foreign-host"), "{path}: {status} {text}");
    }
    assert_eq!(ask("GET", "/livez", &[("host", &host)]).0, 200, "health is for everybody, by any name");
    for host in ["localhost", "citybrain", "[::1]", "10.0.0.5"] {
        let host = format!("{host}:{port}");
        assert_eq!(ask("GET", "/metrics", &[("host", &host)]).0, 200, "{host}");
    }
    assert_eq!(node.records().iter().filter(|r| r.event_type == "city.page").count(), 0);
    let own_page = node.url();
    let own = [("origin", own_page.as_str()), ("sec-fetch-site", "same-origin"), ("content-type", "text/plain")];
    assert_eq!(ask("POST", "/v1/send", &own).0, 202);
    assert_eq!(ask("POST", "/v1/send", &[]).0, 202, "a program says nothing of pages");
}

#[test]
fn a_probe_asks_a_node_above_that_wants_to_know_who_comes() {
    let mut tree = Tree::new(&["c/s"]);
    tree.edit("c", |text| text.replace("[api]\n", "[api]\ntokens_file = \"tokens\"\n"));
    std::fs::write(tree.dir().join("tokens"), "").expect("it is written");
    tree.start();
    let (city, street) = (tree.node("c").url(), tree.node("c/s").url());
    let anna = a_token(&tree, "anna", "operator");
    let probe = |more: &[&str]| run(&[&["trace", "--probe", "--above", &city, "--node", &street], more].concat());
    probe(&[]).says(1, &["no token was given"]);
    wait_for("the probe is at the city", || (probe(&["--token-file", &anna]).code == 0).then_some(()));
    let home = tree.dir().join("home");
    let with = |line: &[&str]| run_with(line, &[("XDG_CONFIG_HOME", text(&home))]);
    with(&["context", "add", "city", &city, "--token-file", &anna]).says(0, &[]);
    with(&["trace", "--probe", "--above", "city", "--node", &street]).says(0, &["as high as it goes"]);
}

#[test]
fn a_strict_umask_does_not_shut_out_the_group_that_was_let_in() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let users = dir.path().join("users");
    add_user(&users, "ann", "secret", None);
    std::fs::set_permissions(&users, Permissions::from_mode(0o640)).expect("it is changed");
    let script = "umask 077; echo secret | \"$0\" user add bob --file \"$1\"";
    let done = Command::new("sh").args(["-c", script, binary(), text(&users)]).output().expect("the shell runs");
    assert!(done.status.success(), "{done:?}");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&users), 0o640);
    // Of a first file, too, which the node's own user has to read: it names tokens by their hashes.
    let tokens = dir.path().join("tokens");
    let script = "umask 077; \"$0\" token add mia --role reader --file \"$1\"";
    let done = Command::new("sh").args(["-c", script, binary(), text(&tokens)]).output().expect("the shell runs");
    assert!(done.status.success(), "{done:?}");
    assert_eq!(mode(&tokens), 0o644);
}

#[test]
fn users_and_tokens_that_are_added_at_once_are_all_in_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let (users, tokens) = (dir.path().join("users"), dir.path().join("tokens"));
    let add = |args: &[&str]| {
        let mut command = Command::new(binary());
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("it starts")
    };
    let names: Vec<String> = (0..12).map(|i| format!("n{i}")).collect();
    let adding: Vec<_> = names
        .iter()
        .flat_map(|name| {
            [
                add(&["user", "add", name, "--certificate", "--file", text(&users)]),
                add(&["token", "add", name, "--role", "reader", "--file", text(&tokens)]),
            ]
        })
        .collect();
    for mut one in adding {
        assert!(one.wait().expect("it ends").success());
    }
    for file in [&users, &tokens] {
        let said = std::fs::read_to_string(file).expect("it reads");
        let mut found: Vec<&str> = said.lines().filter_map(|line| line.split([':', ' ']).next()).collect();
        let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
        found.sort_unstable();
        all.sort_unstable();
        assert_eq!(found, all, "{}", file.display());
    }
}

#[test]
fn a_user_with_another_password_comes_in_by_that_alone_as_whom_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let users = dir.path().join("users");
    std::fs::write(&users, "# those below\n").expect("it is written");
    add_user(&users, "child", "old", Some("c/s"));
    add_user_as(&users, "clerk", "old", Some("--role=desk"));
    let role = "[[role]]\nname = \"desk\"\npublish = [\"in/#\"]\n";
    let access = format!("[access]\nanonymous = false\nusers_file = \"{}\"\n\n{role}\n", users.display());
    let mut tree = Tree::with(&["c"], &Default::default(), &access);
    tree.start();
    let port = tree.node("c").mqtt;
    let code = |name: &str, password: &str| {
        let mut client = Client::dial(port)?;
        client.send(&connect_five_packet(name, Some((name, password)))).ok()?;
        client.read(Duration::from_secs(5)).map(|connack| connack.body[1])
    };
    let listed = || run(&["user", "list", "--json", "--file", text(&users)]).json()["users"].clone();
    let before = listed();
    for name in ["child", "clerk"] {
        assert_eq!(code(name, "old"), Some(0));
        let mut passwd = Command::new(binary());
        passwd.args(["user", "passwd", name, "--file", text(&users)]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut passwd = passwd.spawn().expect("it starts");
        passwd.stdin.take().expect("it is a pipe").write_all(b"new\n").expect("it reads the password");
        let done = passwd.wait_with_output().expect("it ends");
        assert!(done.status.success() && done.stdout == format!("changed {name}\n").into_bytes(), "{done:?}");
        wait_for("the new password counts", || (code(name, "new")? == 0).then_some(()));
        assert_eq!(code(name, "old"), Some(0x86), "{name}");
    }
    assert_eq!(listed(), before, "address and role are as they were");
    let file = std::fs::read_to_string(&users).expect("it reads");
    assert!(file.starts_with("# those below\nchild:") && file.lines().count() == 3, "{file}");
}
