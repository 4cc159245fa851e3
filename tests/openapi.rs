//! Every route of the HTTP API is asked, and every answer is what the document says. (The harness
//! compares the answers of all other tests with it, too.)

use crate::harness::http::Asker;
use crate::harness::mqtt::Client;
use crate::harness::openapi::document;
use crate::harness::ran::token;
use crate::harness::{ONE_OF_EACH, Tree, wait_for};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;

const LEAF: &str = "c/s/m";

const WARNING: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">
  <identifier>1</identifier><sender>eoc@met.example</sender><sent>2026-01-01T08:00:00+08:00</sent>
  <status>Actual</status><msgType>Alert</msgType><scope>Public</scope>
  <info>
    <category>Met</category><event>暴雨</event>
    <urgency>Immediate</urgency><severity>Severe</severity><certainty>Likely</certainty>
    <expires>2100-01-01T08:00:00+08:00</expires><headline>暴雨</headline>
    <area><areaDesc>柳城街道</areaDesc></area>
  </info>
</alert>"#;

/// Asks a node, and keeps what was answered where.
struct Watched<'t> {
    asker: Asker<'t>,
    seen: &'t RefCell<BTreeSet<(String, String, u16)>>,
}

impl Watched<'_> {
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str, wanted: u16) -> Value {
        // A body that is too large may meet a closed connection before its answer is read.
        let told = wait_for("the node answers", || self.asker.tried(method, path, headers, body));
        assert_eq!(told.status, wanted, "{method} {path} {body}: {}", told.text);
        if let Some(template) = document().template(method, path) {
            self.seen.borrow_mut().insert((method.to_owned(), template.to_owned(), told.status));
        }
        told.value()
    }

    fn get(&self, path: &str) -> Value {
        self.ask("GET", path, &[], "", 200)
    }

    fn post(&self, path: &str, body: Value, wanted: u16) -> Value {
        self.ask("POST", path, &[("content-type", "application/json")], &body.to_string(), wanted)
    }

    fn fails(&self, method: &str, path: &str, wanted: u16) -> Value {
        self.ask(method, path, &[], "", wanted)
    }
}

fn word(answer: &Value, pointer: &str) -> String {
    answer.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {answer}")).to_owned()
}

fn a_tree() -> Tree {
    let mut tree = Tree::new(&[LEAF]);
    tree.edit(LEAF, |text| format!("{ONE_OF_EACH}{}", text.replace("[api]\n", "[api]\ntokens_file = \"tokens\"\n")));
    // Nobody listens there.
    tree.edit(LEAF, |text| format!("{text}[[webhook]]\nname = \"app\"\nurl = \"http://127.0.0.1:1/\"\n"));
    tree.edit("c/s", |text| format!("{text}[link]\nenrol = \"manual\"\n"));
    std::fs::write(tree.dir().join("tokens"), "").expect("it is written");
    for node in ["c", "c/s", LEAF] {
        tree.start_node(node);
    }
    tree.wait_ready();
    // The street lets nobody in without an operator's word.
    let waiting = wait_for("the leaf waits", || {
        let waiting = tree.node("c/s").get("/v1/enrolments")?["waiting"][0].clone();
        waiting["incarnation"].is_string().then_some(waiting)
    });
    let child = json!({"address": waiting["address"], "incarnation": waiting["incarnation"]});
    let (status, answer) = tree.node("c/s").post("/v1/enrolments", &json!({"admit": true, "children": [child]}));
    assert_eq!(status, 200, "{answer}");
    // The leaf answers only those whom it knows: the city is asked.
    tree.wait_all_known();
    tree
}

#[test]
fn every_route_answers_as_the_document_says_well_or_not() {
    let mut tree = a_tree();
    let seen = RefCell::default();
    {
        let of = |node: &str, role: &str| {
            let node = tree.node(node);
            let asker = if role.is_empty() { node.asker() } else { node.by(&token(&tree, role, role)) };
            Watched { asker, seen: &seen }
        };
        let (leaf, city) = (of(LEAF, "operator"), of("c", ""));
        node(&leaf);
        log(&tree, &leaf, &city);
        brain(&leaf);
        below(&tree, &city);
        refused(&leaf, &of(LEAF, "worker"), &of(LEAF, ""));
    }
    // Last, for nothing is asked of it behind that.
    tree.stop_node(LEAF);
    let street = Watched { asker: tree.node("c/s").asker(), seen: &seen };
    wait_for("the street has noticed that it is gone", || {
        let links = tree.node("c/s").get("/v1/links")?;
        links["links"].as_array()?.iter().all(|l| l["peer"] != LEAF || l["state"] != "up").then_some(())
    });
    street.post("/v1/enrolments/retire", json!({"address": LEAF, "even_with_cases": true}), 200);

    let mut missing: Vec<String> = Vec::new();
    for (path, methods) in document().json["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys().map(|m| m.to_uppercase()) {
            let is_met = |want: &dyn Fn(u16) -> bool| {
                seen.borrow().iter().any(|(m, p, status)| *m == method && p == path && want(*status))
            };
            if !is_met(&|s| s < 300) {
                missing.push(format!("{method} {path} was never answered well"));
            }
        }
    }
    let met: BTreeSet<u16> = seen.borrow().iter().map(|(_, _, status)| *status).collect();
    for status in [200, 201, 202, 400, 401, 403, 404, 409, 413, 415, 504] {
        if !met.contains(&status) {
            missing.push(format!("nobody was answered {status}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

fn node(leaf: &Watched<'_>) {
    let served = leaf.get("/openapi.json");
    assert_eq!(served, document().json, "the node serves the document that answers are compared with");
    for path in [
        "/livez",
        "/asyncapi.json",
        "/readyz",
        "/metrics",
        "/v1/status",
        "/v1/health",
        "/v1/version",
        "/v1/doctor",
        "/v1/config",
        "/v1/log-level",
        "/v1/log-lines",
        "/v1/enrolments",
        "/v1/tree?deep=true",
        "/v1/links",
        "/v1/why",
        "/v1/symptoms",
        "/v1/known?address=c/s/m",
        "/v1/audit",
        "/v1/ledger",
        "/v1/explain?origin=c/s/m&class=4&numbers=1-2,9000-9000",
        "/v1/held?keys=0000000000000001",
        "/v1/rules",
    ] {
        leaf.get(path);
    }
    leaf.post("/v1/log-level", json!({"level": "info"}), 200);
    leaf.post("/v1/log-level", json!({"level": "="}), 400);
    leaf.post("/v1/reload", json!({}), 200);
    leaf.post("/v1/enrolments", json!({"admit": true, "children": []}), 400);
    leaf.post("/v1/enrolments/retire", json!({"address": "c/s"}), 400);
}

fn log(tree: &Tree, leaf: &Watched<'_>, city: &Watched<'_>) {
    let event =
        |id: &str| json!({"specversion": "1.0", "id": id, "source": "/x", "type": "city.test", "reach": "city"});
    leaf.post("/v1/events", event("e1"), 202);
    leaf.post("/v1/events", event("e1"), 200);
    let batch = json!([event("e2"), event("e3")]).to_string();
    let batched = [("content-type", "application/cloudevents-batch+json")];
    leaf.ask("POST", "/v1/events", &batched, &batch, 202);
    leaf.ask("POST", "/v1/events", &batched, &batch, 200);
    leaf.ask("POST", "/v1/events", &[("content-type", "text/csv")], "1,2", 415);
    leaf.post("/v1/events", json!({"id": 1}), 400);
    let large = "x".repeat(1024 * 1024 + 1);
    leaf.ask("POST", "/v1/events", &[("content-type", "application/json")], &large, 413);
    leaf.ask("POST", "/v1/cases", &[("content-type", "application/json")], &large, 413);
    for path in
        ["/v1/events", "/v1/events?last=2&type=city.*", "/v1/records", "/v1/events/e1", "/v1/events/e1?source=/x"]
    {
        leaf.get(path);
    }
    leaf.fails("GET", "/v1/events/none", 404);
    leaf.fails("GET", "/v1/events?limitt=1", 400);
    leaf.fails("GET", "/v1/events/%FF", 400);
    assert_eq!(leaf.get("/v1/counts")["by"], "source", "what is asked without `by`");
    leaf.get("/v1/counts?by=type&limit=1&type=city.*");
    let wrong = leaf.fails("GET", "/v1/counts?by=colour", 400);
    assert!(word(&wrong, "/detail").contains("colour"), "{wrong}");
    wait_for("e1 is at the city", || tree.node("c").records().iter().any(|r| r.id == "e1").then_some(()));
    city.get("/v1/trace/e1");
    city.get("/v1/hop/e1");
    city.fails("GET", "/v1/trace/none", 404);

    let mut device = Client::connect(tree.node(LEAF).mqtt, "lamp-9", true);
    assert!(device.publish("in/lamp/9", b"{\"lux\": 0") && device.publish("in/raw/1", b"{"));
    let letters = wait_for("three letters", || {
        let letters = leaf.get("/v1/dlq")["dead_letters"].as_array()?.clone();
        (letters.len() == 3).then_some(letters)
    });
    let pos = letters[1]["pos"].as_u64().expect("a position");
    leaf.get(&format!("/v1/dlq/{pos}"));
    leaf.fails("GET", "/v1/dlq/1", 404);
    leaf.fails("GET", "/v1/dlq/x", 400);
    leaf.post("/v1/dlq/retry", json!({"positions": [pos]}), 200);
    leaf.post("/v1/dlq/drop", json!({"positions": [pos]}), 200);
    leaf.post("/v1/dlq/drop", json!({"positions": []}), 400);
    let stands = || leaf.get("/v1/status")["webhooks"][0]["stands"].as_array()?.first().cloned();
    let stands = wait_for("the webhook stands", stands);
    leaf.post("/v1/webhooks/skip", json!({"name": "app", "pos": stands["pos"]}), 200);
    leaf.post("/v1/webhooks/skip", json!({"name": "app", "pos": 1}), 409);
    leaf.post("/v1/webhooks/skip", json!({"name": "none", "pos": 1}), 404);

    let sent = city.post("/v1/send", json!({"target": "c/**", "type": "city.notice", "data": {"text": "停水"}}), 202);
    city.post("/v1/send", json!({"target": "x", "type": "city.notice"}), 403);
    city.post("/v1/send", json!({}), 400);
    city.get("/v1/directives");
    city.get(&format!("/v1/directives/{}", word(&sent, "/id")));
    city.fails("GET", "/v1/directives/none", 404);
}

fn brain(leaf: &Watched<'_>) {
    let smoke = json!({"specversion": "1.0", "id": "smoke", "source": "/x", "type": "city.smoke", "subject": "7",
        "data": {"smoke": true, "level": 2}});
    leaf.post("/v1/events", smoke, 202);
    let alarm = wait_for("an alarm", || leaf.get("/v1/alarms")["alarms"][0]["id"].as_str().map(str::to_owned));
    let at = format!("/v1/alarms/{alarm}");
    leaf.get(&at);
    leaf.get(&format!("{at}/cap"));
    leaf.get("/v1/cap.atom");
    let xml = [("content-type", "application/cap+xml")];
    leaf.ask("POST", "/v1/cap", &xml, WARNING, 202);
    leaf.ask("POST", "/v1/cap", &xml, WARNING, 200);
    let about = word(&leaf.get("/v1/cap"), "/warnings/0/about");
    let over = json!({"about": about, "note": "over"});
    leaf.post("/v1/cap/cancel", over.clone(), 202);
    leaf.post("/v1/cap/cancel", over, 404);
    leaf.ask("POST", "/v1/cap", &xml, "<alert/>", 400);
    leaf.ask("POST", "/v1/cap", &[("content-type", "text/csv")], "1", 415);
    leaf.post(&format!("{at}/ack"), json!({"by": "anna"}), 200);
    leaf.post(&format!("{at}/ack"), json!({"by": "anna"}), 409);
    leaf.post(&format!("{at}/shelve"), json!({"by": "anna", "for_s": 60}), 200);
    leaf.post(&format!("{at}/clear"), json!({"by": "anna"}), 200);
    leaf.fails("GET", "/v1/alarms/none", 404);
    leaf.fails("GET", "/v1/alarms?severity=bad", 400);
    leaf.fails("POST", &format!("{at}/dance"), 404);

    let new = json!({"category": "暴露垃圾", "title": "三号门", "by": "a", "key": "k1",
        "contact": {"name": "王大妈", "phone": "139"}, "place": {"text": "三号门", "lat": 30.698, "lon": 103.8368}});
    let case = word(&leaf.post("/v1/cases", new.clone(), 201), "/case/id");
    leaf.post("/v1/cases", new, 200);
    leaf.post("/v1/cases", json!({"category": "x", "by": "a"}), 400);
    let step = |verb: &str, body: Value, wanted| leaf.post(&format!("/v1/cases/{case}/{verb}"), body, wanted);
    step("accept", json!({"by": "a"}), 200);
    step("accept", json!({"by": "a"}), 409);
    step("dispatch", json!({"by": "a", "unit": "城管"}), 200);
    step("start", json!({"by": "b", "contacted": true}), 200);
    step("assist", json!({"by": "b", "unit": "物业", "text": "要车", "limit": "2h"}), 200);
    step("extend", json!({"by": "b", "approved_by": "s", "text": "等车", "limit": "2wd"}), 200);
    step("resolve", json!({"by": "b", "text": "已清", "evidence": ["photo-after=https://x/1"]}), 200);
    step("evaluate", json!({"by": "c", "role": "supervisor", "solved": "solved", "satisfied": "yes"}), 200);
    step("close", json!({"by": "b", "role": "supervisor"}), 403);
    step("close", json!({"by": "c", "role": "supervisor"}), 200);
    step("dance", json!({"by": "c"}), 404);
    leaf.post("/v1/cases", json!({"sos": true, "by": "a", "place": {"text": "7栋301"}}), 201);
    let told = json!({"source": "/old", "id": "1", "category": "SJ0102", "status": "closed", "reason": "solved",
        "opened": "2026-01-05T01:00:00Z", "updated": "2026-01-06T01:00:00Z", "closed": "2026-01-06T01:00:00Z"});
    let imported = leaf.post(
        "/v1/cases/import",
        json!({"cases": [told, {"source": "/old", "id": "", "category": "x",
        "status": "closed", "opened": "2026-01-05T01:00:00Z", "updated": "2026-01-06T01:00:00Z"}]}),
        200,
    );
    assert!(imported["opened"] == 1 && imported["refused"].as_array().is_some_and(|r| r.len() == 1), "{imported}");
    leaf.post("/v1/cases/import", json!({"cases": 7}), 400);
    leaf.get(&format!("/v1/cases/{case}"));
    leaf.fails("GET", "/v1/cases/none", 404);
    leaf.fails("GET", "/v1/cases/2", 409); // it begins two ids
    for path in [
        "/v1/cases",
        "/v1/cases?limit=1",
        "/v1/cases?status=open",
        "/v1/case-stats",
        "/v1/rates?by=category&period=month",
        "/v1/supervision",
    ] {
        leaf.get(path);
    }
    leaf.fails("GET", "/v1/cases?status=lost", 400);
    leaf.fails("GET", "/v1/rates?by=colour", 400);

    for path in ["/v1/services", "/v1/services/haircut", "/v1/services/sports-day", "/v1/scenes", "/v1/scenes.geojson"]
    {
        leaf.get(path);
    }
    leaf.fails("GET", "/v1/services/none", 404);
    let seat = json!({"by": "王大妈", "key": "s1", "seats": 2});
    leaf.post("/v1/services/sports-day/requests", seat.clone(), 201);
    leaf.post("/v1/services/sports-day/requests", seat, 200);
    leaf.post("/v1/services/sports-day/requests", json!({"by": "a", "seats": 1000}), 400);
    leaf.post("/v1/services/haircut/requests", json!({"by": "a"}), 400);
}

/// Through the links.
fn below(tree: &Tree, city: &Watched<'_>) {
    city.get("/v1/at/c/s/m?path=/v1/status");
    city.get("/v1/at/c%2Fs%2Fm?path=/v1/cases");
    city.get("/v1/ask?selector=c/**&path=/v1/version");
    for path in ["/v1/tree?deep=true", "/v1/audit", "/v1/why?address=c/s/m", "/v1/known?address=c/s/m"] {
        city.get(path);
    }
    city.ask("GET", "/v1/status", &[("x-citybrain-at", "c/s/m")], "", 200);
    city.ask("GET", "/v1/status", &[("x-citybrain-at", "x")], "", 400);
    city.ask("GET", "/v1/status", &[("x-citybrain-at", "c/none")], "", 504);
    city.ask("POST", "/v1/log-level", &[("x-citybrain-at", "c/s")], "{\"level\":\"info\"}", 200);
    city.fails("GET", "/v1/ask?selector=!", 400);
    let street = Watched { asker: tree.node("c/s").asker(), seen: city.seen };
    street.post("/v1/enrolments/retire", json!({"address": "c/s/none"}), 404);
    street.post("/v1/enrolments/retire", json!({"address": LEAF, "even_with_cases": true}), 409);
    street.post(
        "/v1/enrolments",
        json!({"admit": true, "children": [{"address": "c/s/k", "incarnation": "0".repeat(32)}]}),
        200,
    );
}

fn refused(leaf: &Watched<'_>, worker: &Watched<'_>, nobody: &Watched<'_>) {
    for said in document().json["paths"].as_object().expect("paths").iter() {
        let (template, methods) = said;
        for (method, operation) in methods.as_object().expect("methods") {
            let path = template.replace(['{', '}'], "");
            let method = method.to_uppercase();
            match operation["x-role"].as_str() {
                None => {}
                Some(role) => {
                    nobody.fails(&method, &path, 401);
                    if role == "operator" {
                        worker.fails(&method, &path, 403);
                    }
                }
            }
        }
    }
    leaf.fails("GET", "/v1/nothing", 404);
    leaf.fails("DELETE", "/v1/status", 405);
    let refused = leaf.fails("PATCH", "/v1/log-level", 405);
    assert!(word(&refused, "/hint").starts_with("it takes GET, POST, HEAD"), "{refused}");
}

#[test]
fn every_example_of_the_document_is_taken_by_a_node() {
    let mut tree = Tree::new(&["c/s"]);
    let sos = "[[category]]\ncode = \"sos\"\nname = \"一键求助\"\nkind = \"incident\"\n";
    tree.edit("c", |text| format!("{ONE_OF_EACH}{sos}{text}"));
    tree.start();
    tree.wait_all_known();
    let seen = RefCell::default();
    let city = Watched { asker: tree.node("c").asker(), seen: &seen };
    let examples = document().examples();
    assert!(examples.len() > 15, "{}", examples.len());
    let sent: RefCell<BTreeSet<(String, String)>> = RefCell::default();
    let send = |path: &str, place: &str, name: &str, wanted: u16| {
        let found = examples.iter().find(|(method, p, _, n, _)| method == "POST" && p == path && n == name);
        let (_, _, kind, _, body) = found.unwrap_or_else(|| panic!("{path} has no example `{name}`"));
        let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        sent.borrow_mut().insert((path.to_owned(), name.to_owned()));
        city.ask("POST", place, &[("content-type", kind)], &text, wanted)
    };
    let here = |path: &str, name: &str, wanted: u16| send(path, path, name, wanted);
    here("/v1/events", "a smoke alarm", 202);
    here("/v1/events", "two readings", 202);
    here("/v1/send", "a notice to all below", 202);
    here("/v1/send", "a command that is over in a minute", 202);
    here("/v1/cap", "a storm", 202);
    here("/v1/log-level", "more of the links", 200);
    here("/v1/dlq/drop", "two dead letters", 200);
    here("/v1/webhooks/skip", "one that its receiver does not take", 404);
    here("/v1/cases", "a call for help", 201);
    let case = word(&here("/v1/cases", "a report", 201), "/case/id");
    for step in ["accept", "dispatch", "start", "resolve", "evaluate"] {
        send("/v1/cases/{id}/{step}", &format!("/v1/cases/{case}/{step}"), step, 200);
    }
    send("/v1/services/{code}/requests", "/v1/services/sports-day/requests", "a seat", 201);
    let alarm = wait_for("the smoke is an alarm", || {
        let all = city.get("/v1/alarms");
        Some(all["alarms"].as_array()?.iter().find(|a| a["name"] == "smoke")?["id"].as_str()?.to_owned())
    });
    for action in ["ack", "shelve"] {
        send("/v1/alarms/{id}/{action}", &format!("/v1/alarms/{alarm}/{action}"), action, 200);
    }
    send("/v1/alarms/{id}/clear", &format!("/v1/alarms/{alarm}/clear"), "by a supervisor", 200);
    let sent = sent.borrow();
    let left = examples.iter().filter(|(_, path, _, name, _)| !sent.contains(&(path.clone(), name.clone())));
    assert_eq!(left.map(|(_, path, _, name, _)| format!("{path}: {name}")).collect::<Vec<_>>(), [""; 0]);
}
