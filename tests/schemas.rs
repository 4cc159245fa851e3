//! Every answer for programs has a schema's name, is in the table of `docs/schemas.md`, and has the
//! shape that is kept in `tests/schemas`.

use crate::harness::mqtt::Client;
use crate::harness::ran::{run, run_with, text};
use crate::harness::shape::{self, Seen};
use crate::harness::{ONE_OF_EACH, Tree, add_user, wait_for};
use citybrain_shared::record::event_key;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const LEAF: &str = "c/s/m";

/// What is somebody's own: payloads, labels, configs, what a machine was found to be.
const OPEN: [&str; 14] = [
    "labels",
    "nodes[].labels",
    "event",
    "record.event",
    "facts",
    "config",
    "fired[].why",
    "case.form",
    "case.place",
    "cases[].form",
    "cases[].place",
    "history[].form",
    "scenes[].geometry",
    "known",
];

/// Answers that take a load or a whole city to make, and files: their own tests look into them.
const ELSEWHERE: [&str; 10] = [
    "citybrain.bench/1",
    "citybrain.bench-door/1",
    "citybrain.bench-slept/1",
    "citybrain.bench-press/1",
    "citybrain.cases-brought/1",
    "citybrain.cases-imported/1",
    "citybrain.demo/1",
    "citybrain.replay-state/1",
    "citybrain.log-replay-state/1",
    "citybrain.log-export/1",
];

/// Answers by their schemas.
#[derive(Default)]
struct Answers(BTreeMap<String, Seen>);

impl Answers {
    fn keep(&mut self, what: &str, answer: &Value) {
        let schema = answer["schema"].as_str().unwrap_or_else(|| panic!("{what}: no schema in {answer}"));
        self.0.entry(schema.to_owned()).or_default().take(answer, &OPEN);
    }

    /// Of a command that ends well, whose answer is no, or that could not ask everybody.
    fn of(&mut self, args: &[&str]) -> Value {
        let ran = run(&[args, &["--json"]].concat());
        assert!(ran.code != 2 && !ran.out.is_empty(), "{args:?}: {} {} {}", ran.code, ran.out, ran.err);
        let answer = ran.json();
        self.keep(&args.join(" "), &answer);
        answer
    }

    /// A stream's lines have no head: they are kept under a name of their own.
    fn line(&mut self, name: &str, line: &Value) {
        self.0.entry(name.to_owned()).or_default().take(line, &OPEN);
    }
}

fn id_of(answer: &Value, pointer: &str) -> String {
    answer.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {answer}")).to_owned()
}

#[test]
fn every_answer_has_the_shape_that_is_kept() {
    let mut tree = Tree::new(&[LEAF, "c/s/k"]);
    tree.edit(LEAF, |text| format!("{ONE_OF_EACH}{text}"));
    // Nobody listens there.
    tree.edit("c", |text| format!("{text}[[webhook]]\nname = \"app\"\nurl = \"http://127.0.0.1:1/\"\n"));
    tree.edit("c/s", |text| format!("{text}[link]\nenrol = \"manual\"\n"));
    for node in ["c", "c/s", LEAF] {
        tree.start_node(node);
    }
    tree.wait_ready();
    let url = |tree: &Tree, at: &str| tree.node(at).url();
    let (city, street, leaf) = (url(&tree, "c"), url(&tree, "c/s"), url(&tree, LEAF));
    let mut all = Answers::default();

    // Who is let in.
    wait_for("the leaf waits", || {
        (tree.node("c/s").get("/v1/enrolments")?["waiting"].as_array()?.len() == 1).then_some(())
    });
    all.of(&["enrol", "list", "--node", &street]);
    all.of(&["enrol", "approve", "--all", "--yes", "--node", &street]);
    tree.wait_linked();
    wait_for("the city knows all", || (tree.node("c").get("/v1/tree")?["nodes"].as_array()?.len() == 3).then_some(()));

    events_and_letters(&tree, &mut all);
    rules(&tree, &mut all);
    cases_and_services(&tree, &mut all);
    directives(&tree, &mut all);

    let stands = || tree.node("c").get("/v1/status")?["webhooks"][0]["stands"].as_array()?.first().cloned();
    let stands = wait_for("the webhook stands", stands);

    // A node, its links, its tree.
    for at in [&city, &street, &leaf] {
        for command in ["status", "tree", "links", "why", "audit", "doctor"] {
            all.of(&[command, "--node", at]);
        }
    }
    all.of(&["webhook", "skip", "app", &stands["pos"].to_string(), "--yes", "--node", &city]);
    all.of(&["tree", "--known", "--node", &city]);
    all.of(&["version"]);
    all.of(&["version", "--running", "--node", &city]);
    for path in ["/readyz", "/v1/health", "/v1/symptoms?child=c/s", "/v1/known?address=c/s/m"] {
        all.keep(path, &tree.node("c").get(path).expect(path));
    }
    all.keep("ledger", &tree.node(LEAF).get("/v1/ledger").expect("a ledger"));
    let explain = "/v1/explain?origin=c/s/m&class=4&numbers=1-2,9000-9000";
    all.keep(explain, &tree.node(LEAF).get(explain).expect("an explanation"));
    for line in run(&["status", "--at", "c/**", "--json", "--node", &city]).out.lines() {
        all.keep("status --at", &serde_json::from_str(line).expect("a line is JSON"));
    }
    let raw = tree.node("c").get_text("/v1/ask?selector=c/**&path=/v1/version").expect("lines");
    for line in raw.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON")).filter(|l| l["took_ms"].is_u64()) {
        all.line("citybrain.line-ask", &line);
    }

    // What is cut off, is told by those above it, and looks otherwise.
    tree.stop_node(LEAF);
    wait_for("the street knows", || (run(&["why", LEAF, "--node", &city]).code == 1).then_some(()));
    all.of(&["why", LEAF, "--node", &city]);
    all.of(&["links", "--node", &street]);
    let known = run(&["status", "--at", LEAF, "--json", "--node", &city]);
    all.keep("known", &known.json());
    all.of(&["audit", "--node", &street]);

    let gone = ["enrol", "retire", LEAF, "--even-with-cases", "--yes", "--at", "c/s", "--node", &city];
    all.of(&gone);
    tree.start_node(LEAF);
    tree.wait_ready();
    tree.wait_linked();
    tree.stop_node(LEAF);

    operations(&mut tree, &mut all);
    let left: Vec<String> = schemas().into_iter().filter(|s| !ELSEWHERE.contains(&s.as_str())).collect();
    let missing: Vec<&String> = left.iter().filter(|s| !all.0.contains_key(*s)).collect();
    assert!(missing.is_empty(), "nobody asked for {missing:?}");
    shape::settle(&all.0);
}

fn events_and_letters(tree: &Tree, all: &mut Answers) {
    let leaf = tree.node(LEAF).url();
    let event = |id: &str, more: Value| {
        let mut event = json!({"specversion": "1.0", "id": id, "source": "/x", "type": "city.test", "reach": "city"});
        event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        event
    };
    for body in [event("e1", json!({"data": 7})), event("e2", json!({"priority": "urgent", "subject": "s"}))] {
        all.keep("POST /v1/events", &tree.node(LEAF).post("/v1/events", &body).1);
    }
    let batch = json!([event("e3", json!({})), event("e4", json!({}))]).to_string();
    let batch = tree.node(LEAF).asker().post_as("/v1/events", "application/cloudevents-batch+json", batch);
    all.keep("a batch", &batch.json());
    wait_for("e1 is at the city", || tree.node("c").records().iter().any(|r| r.id == "e1").then_some(()));
    all.of(&["show", "e1", "--node", &leaf]);
    all.of(&["trace", "e1", "--node", &tree.node("c").url()]);
    all.of(&["events", "--by", "source", "--node", &leaf]);
    all.keep("a hop", &tree.node("c").get("/v1/hop/e1").expect("a hop"));
    for (name, path) in [("citybrain.line-event", "/v1/events?presence=true"), ("citybrain.line-record", "/v1/records")]
    {
        for line in tree.node("c").get_text(path).expect("lines").lines() {
            all.line(name, &serde_json::from_str(line).expect("a line is JSON"));
        }
    }
    let mut device = Client::connect(tree.node(LEAF).mqtt, "lamp-9", true);
    assert!(device.publish("in/lamp/9", b"{\"lux\": 0") && device.publish("in/raw/1", b"{"));
    let letters = wait_for("two letters", || {
        let letters = tree.node(LEAF).get("/v1/dlq")?["dead_letters"].clone();
        (letters.as_array()?.len() == 2).then_some(letters)
    });
    let pos = letters[0]["pos"].as_u64().expect("a position").to_string();
    all.of(&["dlq", "list", "--node", &leaf]);
    all.of(&["dlq", "show", &pos, "--node", &leaf]);
    all.of(&["dlq", "retry", &pos, "--yes", "--node", &leaf]);
    all.of(&["dlq", "drop", &pos, "--yes", "--node", &leaf]);
}

fn rules(tree: &Tree, all: &mut Answers) {
    let leaf = tree.node(LEAF).url();
    let smoke = json!({"specversion": "1.0", "id": "smoke", "source": "/x", "type": "city.smoke", "subject": "7",
        "time": "2026-01-01T00:00:00Z", "data": {"smoke": true, "level": 1, "lat": 30.698, "lon": 103.8368}});
    let mut worse = smoke.clone();
    (worse["id"], worse["data"]["level"]) = ("worse".into(), 2.into());
    for event in [&smoke, &worse] {
        let (status, answer) = tree.node(LEAF).post("/v1/events", event);
        assert_eq!(status, 202, "{answer}");
    }
    let list = wait_for("an alarm", || {
        let list = tree.node(LEAF).get("/v1/alarms")?;
        (list["alarms"][0]["severity"] == "critical").then_some(list)
    });
    let alarm = id_of(&list, "/alarms/0/id");
    all.of(&["alarm", "list", "--node", &leaf]);
    all.of(&["alarm", "ack", &alarm, "--by", "anna", "--node", &leaf]);
    all.of(&["alarm", "shelve", &alarm, "--by", "anna", "--node", &leaf]);
    all.of(&["alarm", "show", &alarm, "--node", &leaf]);
    all.of(&["alarm", "clear", &alarm, "--by", "anna", "--node", &leaf]);
    all.of(&["rule", "list", "--node", &leaf]);
    let events = tree.dir().join("events.ndjson");
    std::fs::write(&events, format!("{smoke}\nno event\n")).expect("it is written");
    all.of(&["rule", "test", text(&tree.node(LEAF).config), "--events", text(&events)]);
    all.of(&["rule", "reload", "--yes", "--node", &leaf]);
    for status in ["Actual", "Test"] {
        let xml = format!(
            "<alert xmlns=\"urn:oasis:names:tc:emergency:cap:1.2\"><identifier>{status}</identifier><sender>a@b</sender>\
             <sent>2100-01-01T00:00:00-00:00</sent><status>{status}</status><msgType>Alert</msgType><scope>Public</scope>\
             <info><category>Met</category><event>暴雨</event><urgency>Expected</urgency><severity>Minor</severity>\
             <certainty>Likely</certainty><area><areaDesc>m</areaDesc><geocode><valueName>citybrain-address</valueName>\
             <value>{LEAF}</value></geocode></area></info></alert>"
        );
        all.keep("POST /v1/cap", &tree.node(LEAF).asker().post_as("/v1/cap", "application/cap+xml", xml).json());
    }
    all.of(&["cap", "list", "--node", &leaf]);
    all.of(&["cap", "show", "Actual", "--node", &leaf]);
    all.of(&["cap", "cancel", "Actual", "--note", "over", "--yes", "--node", &leaf]);
}

fn cases_and_services(tree: &Tree, all: &mut Answers) {
    let leaf = tree.node(LEAF).url();
    let to = ["--node", leaf.as_str()];
    let new = [
        "case",
        "new",
        "--category",
        "暴露垃圾",
        "--title",
        "三号门",
        "--name",
        "王大妈",
        "--by",
        "a",
        "--form",
        "amount=一袋",
        "--media",
        "https://x/0",
    ];
    let case = id_of(&all.of(&[&new[..], &to].concat()), "/case/id");
    for step in [
        vec!["accept", &case, "--by", "a"],
        vec!["dispatch", &case, "--by", "a", "--unit", "城管"],
        vec!["start", &case, "--by", "b", "--contacted"],
        vec!["resolve", &case, "--by", "b", "--text", "已清", "--evidence", "photo-after=https://x/1"],
        vec!["evaluate", &case, "--by", "c", "--role", "resident", "--solved", "solved", "--satisfied", "yes"],
        vec!["close", &case, "--by", "c"],
    ] {
        all.of(&[&["case"], &step[..], &to].concat());
    }
    all.of(&[&["sos", "7栋301", "--phone", "139", "--by", "a"], &to[..]].concat());
    all.of(&[&["case", "show", &case], &to[..]].concat());
    all.of(&[&["case", "list"], &to[..]].concat());
    all.of(&[&["rates"], &to[..]].concat());
    all.of(&[&["supervision"], &to[..]].concat());
    all.of(&[&["case", "stats"], &to[..]].concat());
    all.of(&[&["service", "list"], &to[..]].concat());
    for service in ["haircut", "sports-day"] {
        all.of(&[&["service", "show", service], &to[..]].concat());
    }
    let request = ["service", "request", "sports-day", "--seats", "2", "--by", "王大妈"];
    all.of(&[&request[..], &to].concat());
    all.of(&[&["scene", "list"], &to[..]].concat());
}

fn directives(tree: &Tree, all: &mut Answers) {
    let city = tree.node("c").url();
    let send = ["send", "--target", "c/**@community", "--type", "city.notice", "--yes", "--ttl", "1h"];
    let id = id_of(&all.of(&[&send[..], &["--node", &city]].concat()), "/id");
    wait_for("it is delivered", || {
        (tree.node("c").get(&format!("/v1/directives/{id}"))?["delivered"] == 1).then_some(())
    });
    all.of(&["directives", "list", "--node", &city]);
    all.of(&["directives", "show", &id, "--node", &city]);
    all.of(&["trace", &id, "--node", &city]);
    all.keep("a hop", &tree.node("c").get(&format!("/v1/hop/{id}")).expect("a hop"));
    all.of(&["log-level", "--node", &city]);
    all.of(&["log-level", "info", "--yes", "--node", &city]);
}

/// What looks at folders and files. The leaf has stopped.
fn operations(tree: &mut Tree, all: &mut Answers) {
    let (city, data) = (tree.node("c").url(), tree.node(LEAF).data.clone());
    all.of(&["status", "--offline", text(&data)]);
    all.of(&["links", "--offline", text(&data)]);
    all.of(&["store", "stats", text(&data)]);
    all.of(&["store", "verify", text(&data)]);
    let backup = tree.dir().join("backup");
    all.of(&["store", "snapshot", text(&data), text(&backup)]);
    all.of(&["store", "restore", text(&backup), text(&data), "--yes"]);
    all.of(&["store", "rebuild", text(&data), "--yes"]);

    let config = tree.node("c").config.clone();
    all.of(&["check", text(&config), text(&tree.node("c/s").config)]);
    let bad = tree.dir().join("bad.toml");
    std::fs::write(&bad, "[node]\naddress = \"c\"\ndata = \"d\"\nnmae = 1\n").expect("it is written");
    let checked = run(&["check", text(&bad), "--json"]);
    all.keep("check", &checked.json());
    all.of(&["config", "show", "--node", &city]);
    all.of(&["config", "show", "--effective", "--node", &city]);
    tree.edit("c", |text| text.replace("free_bytes_min = 2000000", "free_bytes_min = 3000000"));
    all.of(&["config", "diff", text(&config), "--node", &city]);

    all.of(&["preset", "list"]);
    all.of(&["preset", "show", "zigbee2mqtt"]);
    all.of(&["preset", "try", "zigbee2mqtt/lift-door", "{\"contact\":false}"]);
    let tokens = tree.dir().join("tokens");
    run(&["token", "add", "anna", "--role", "operator", "--file", text(&tokens)]).says(0, &[]);
    all.of(&["token", "list", "--file", text(&tokens)]);
    let users = tree.dir().join("accounts");
    run(&["user", "add", "lamp", "--certificate", "--role", "sensor", "--file", text(&users)]).says(0, &[]);
    run(&["user", "add", "s", "--certificate", "--address", "c/s", "--file", text(&users)]).says(0, &[]);
    all.of(&["user", "list", "--file", text(&users)]);
    let users = tree.dir().join("users");
    add_user(&users, "lamp", "secret", None);
    let home = tree.dir().join("home");
    let env = [("XDG_CONFIG_HOME", text(&home))];
    run_with(&["context", "add", "city", &city], &env).says(0, &[]);
    all.keep("context list", &run_with(&["context", "list", "--json"], &env).json());

    let rows = tree.dir().join("rows.ndjson");
    let row =
        json!({"specversion": "1.0", "id": "r1", "source": "/r", "type": "city.row", "time": "2026-01-01T00:00:00Z"});
    std::fs::write(&rows, format!("{row}\nno row\n")).expect("it is written");
    all.of(&["replay", text(&rows), "--http", &city]);
    let sink = format!("{city}/v1/events");
    all.of(&["log", "replay", "--to", &sink, "--limit", "3", "--node", &city]);
    let held = format!("/v1/held?keys={:016x},{:016x}", event_key("/r", "r1"), 7);
    all.keep("held", &tree.node("c").get(&held).expect("an answer"));
}

/// Every name that stands in the sources.
fn schemas() -> BTreeSet<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeSet::new();
    let mut open = vec![root.join("shared/src"), root.join("node/src"), root.join("hub/src")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("a folder").map(|e| e.expect("an entry").path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let source = std::fs::read_to_string(&path).expect("it reads");
            let names = source.match_indices("\"citybrain.").filter_map(|(at, _)| source[at + 1..].split('"').next());
            found.extend(names.filter(|n| is_schema(n)).map(str::to_owned));
        }
    }
    found
}

fn is_schema(name: &str) -> bool {
    name.rsplit_once('/').is_some_and(|(_, number)| number.parse::<u32>().is_ok())
}

#[test]
fn every_schema_is_in_the_table_and_has_its_file_and_nothing_else_is_there() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let rows = page.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next());
    let told: BTreeSet<String> = rows.filter(|n| is_schema(n)).map(str::to_owned).collect();
    assert_eq!(told, schemas(), "docs/schemas.md has a row for each");
    let files = std::fs::read_dir(shape::folder()).expect("the folder is there");
    let kept: BTreeSet<PathBuf> = files.map(|f| f.expect("an entry").path()).collect();
    let lines = ["citybrain.line-event", "citybrain.line-record", "citybrain.line-ask"].map(str::to_owned);
    let wanted = schemas().into_iter().filter(|s| !ELSEWHERE.contains(&s.as_str())).chain(lines);
    assert_eq!(kept, wanted.map(|s| shape::file(&s)).collect::<BTreeSet<_>>(), "tests/schemas has a file for each");
}
