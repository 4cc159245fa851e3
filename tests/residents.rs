//! A citizens' app with a token of the role `app`: what a resident may do, with what that app brought, at one node.

use crate::harness::http::Asker;
use crate::harness::ran::{run, text};
use crate::harness::receiver::{OK, Receiver};
use crate::harness::{OPERA, Tree, wait_for};
use citybrain_shared::view;
use serde_json::{Value, json};
use std::collections::HashMap;

const CONFIG: &str = r#"
[[category]]
code = "LAMP"
name = "路灯"
solution = "2h"
form = [{ name = "pole" }, { name = "door", personal = true }]
"#;

/// A city and a street in it, each with a tokens file of its own.
fn a_city_of_tokens() -> Tree {
    let mut tree = Tree::with(&["c/s"], &HashMap::new(), &format!("{CONFIG}{OPERA}"));
    for address in ["c", "c/s"] {
        let file = tokens_of(address);
        tree.edit(address, |text| text.replace("[api]\n", &format!("[api]\ntokens_file = \"{file}\"\n")));
        std::fs::write(tree.dir().join(file), "").expect("it is written");
        tree.start_node(address);
    }
    tree.wait_ready();
    let hall = Caller::new(&tree, "c/s", "hall", "operator");
    wait_for("the street has heard of the city's services", || {
        (hall.get("/v1/services").1["services"].as_array()?.len() == 2).then_some(())
    });
    tree
}

fn tokens_of(address: &str) -> String {
    format!("tokens-{}", address.replace('/', "_"))
}

struct Caller<'t> {
    asker: Asker<'t>,
    secret: String,
}

impl Caller<'_> {
    fn new<'t>(tree: &'t Tree, address: &str, name: &str, role: &str) -> Caller<'t> {
        let file = tree.dir().join(tokens_of(address));
        let made = run(&["token", "add", name, "--role", role, "--file", text(&file)]);
        let secret = made.says(0, &["citybrain_"]).out.trim().to_owned();
        Caller { asker: tree.node(address).by(&secret), secret }
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
        let json = [("content-type", "application/json")];
        let told = match method {
            "POST" => self.asker.ask(method, path, &[&json, headers].concat(), body.to_string()),
            _ => self.asker.ask(method, path, headers, ""),
        };
        (told.status, told.value())
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, &[], &Value::Null)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, &[], body)
    }

    fn case(&self, id: &str) -> Value {
        let (status, shown) = self.get(&format!("/v1/cases/{id}"));
        assert_eq!(status, 200, "{shown}");
        shown
    }

    fn step(&self, id: &str, step: &str, body: &Value) -> Value {
        let (status, shown) = self.post(&format!("/v1/cases/{id}/{step}"), body);
        assert!(matches!(status, 200 | 202), "{step}: {status} {shown}");
        shown
    }

    fn wait(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.case(id)).filter(|shown| is(&shown["case"])))
    }
}

fn id(shown: &Value) -> String {
    shown["case"]["id"].as_str().unwrap_or_else(|| panic!("no case: {shown}")).to_owned()
}

fn steps(shown: &Value) -> Vec<&str> {
    shown["history"].as_array().expect("lines").iter().filter_map(|e| e["step"].as_str()).collect()
}

#[test]
fn a_citizens_app_calls_for_help_books_cancels_appeals_and_judges_and_another_app_sees_nothing_of_it() {
    let tree = a_city_of_tokens();
    let (app, other) = (Caller::new(&tree, "c/s", "citizens", "app"), Caller::new(&tree, "c/s", "rival", "app"));
    let (li, boss) = (Caller::new(&tree, "c/s", "li", "worker"), Caller::new(&tree, "c/s", "boss", "supervisor"));
    let hall = Caller::new(&tree, "c", "hall", "operator");
    for path in ["/v1/services", "/v1/services/opera?of=c/s", "/v1/scenes", "/v1/scenes.geojson"] {
        assert_eq!(app.get(path).0, 200, "{path}");
    }

    // A press, sent again because its answer was lost, is one; another app's at the same door is another.
    let press = json!({"sos": true, "title": "摔倒了", "place": {"text": "三号楼"}, "contact": {"name": "王大妈", "phone": "13900000000"}});
    let word = [("idempotency-key", "\"k1\"")];
    let (status, pressed) = app.ask("POST", "/v1/cases", &word, &press);
    assert_eq!((status, &pressed["case"]["kind"]), (201, &json!("incident")), "{pressed}");
    assert_eq!(app.ask("POST", "/v1/cases", &word, &press), (201, pressed.clone()));
    let (status, again) = app.post("/v1/cases", &press);
    assert_eq!((status, id(&again)), (200, id(&pressed)), "the button was pressed again");
    let (status, rivals) = other.post("/v1/cases", &press);
    assert!(status == 201 && id(&rivals) != id(&pressed), "{rivals}");
    let pressed = id(&pressed);
    li.step(&pressed, "accept", &json!({}));
    let shown = app.case(&pressed);
    assert_eq!((&shown["case"]["status"], shown["contact"].is_null()), (&json!("accepted"), true));

    // An appointment of the city: given there, taken back here.
    let request = json!({"of": "c", "form": {"health": "轮椅"}, "contact": {"name": "王大妈", "phone": "13900000000"}});
    let (status, booked) = app.post("/v1/services/opera/requests", &request);
    assert_eq!(status, 201, "{booked}");
    let booked = id(&booked);
    let shown = app.wait(&booked, "it is booked", |case| case["booking"]["state"] == "booked");
    assert!(steps(&shown).contains(&"booked"), "{shown}");
    let asked = app.step(&booked, "withdraw", &json!({"text": "不去了"}));
    assert_eq!(asked["asked"], "c", "{asked}");
    app.wait(&booked, "it is withdrawn", |case| case["status"] == "withdrawn");
    assert_eq!(hall.get("/v1/services/opera?of=c").1["free"]["places"], 1);

    // An appeal: what the handler answers is shown, who he is and what is said among handlers is not.
    let appeal = json!({"category": "LAMP", "title": "路灯不亮", "form": {"pole": "7", "door": "五零一"}});
    let (_, appeal) = app.post("/v1/cases", &appeal);
    assert_eq!(appeal["allowed"], json!(["withdraw", "comment"]), "{appeal}");
    let appeal = id(&appeal);
    app.step(&appeal, "comment", &json!({"text": "晚上很黑"}));
    li.step(&appeal, "accept", &json!({}));
    li.step(&appeal, "comment", &json!({"text": "此人常来"}));
    li.step(&appeal, "dispatch", &json!({"unit": "路灯所"}));
    li.step(&appeal, "start", &json!({}));
    let why = json!({"text": "等零件", "approved_by": "boss", "by": "li"});
    boss.step(&appeal, "suspend", &why);
    li.step(&appeal, "resume", &json!({}));
    li.step(&appeal, "resolve", &json!({"text": "换了灯泡"}));
    let judged = json!({"solved": "unsolved", "satisfied": "no", "text": "还是黑的"});
    let shown = app.step(&appeal, "evaluate", &judged);
    assert_eq!(shown["case"]["unit"], "路灯所");
    let verdict = &shown["case"]["verdict"];
    let said = [&verdict["solved"], &verdict["satisfied"], &verdict["is_residents"], &verdict["by"]];
    assert_eq!(said, [&json!("unsolved"), &json!("no"), &json!(true), &json!("app:citizens")], "{shown}");
    boss.step(&appeal, "close", &json!({}));
    app.step(&appeal, "reopen", &json!({"text": "请再来"}));
    let shown = app.case(&appeal);
    assert!(shown["case"]["unit"].is_null(), "whoever had it has nothing to do with it any more: {shown}");
    let seen = [
        "submitted",
        "comment",
        "accepted",
        "dispatched",
        "suspended",
        "resumed",
        "resolved",
        "evaluated",
        "closed",
        "reopened",
    ];
    assert_eq!(steps(&shown), [&seen[..2], &["accepted", "dispatched", "started"], &seen[4..]].concat(), "{shown}");
    let all = format!("{shown}{}", app.get("/v1/cases").1);
    for theirs in ["此人常来", "等零件", "\"li\"", "boss", "五零一", "13900000000", "王大妈", "轮椅"] {
        assert!(!all.contains(theirs), "{theirs}: {all}");
    }
    for own in ["换了灯泡", "晚上很黑", "还是黑的", "请再来", "withheld"] {
        assert!(all.contains(own), "{own}: {all}");
    }
    assert!(li.case(&appeal)["contact"]["more"]["door"] == "五零一", "whoever calls him knows");

    // All that it brought, page by page, and nothing of others'.
    let mine = [&appeal, &booked, &pressed];
    let mut page = "/v1/cases?limit=1".to_owned();
    for (i, wanted) in mine.iter().enumerate() {
        let (_, list) = app.get(&page);
        let counts = [&list["fit"], &list["open"], &list["overdue"]];
        assert_eq!((&list["cases"][0]["id"], counts), (&json!(wanted), [&json!(3), &json!(2), &json!(0)]), "{list}");
        match list["next"].as_str() {
            Some(next) => page = format!("/v1/cases?limit=1&after={next}"),
            None => assert_eq!(i, 2, "{list}"),
        }
    }
    assert_eq!(other.get("/v1/cases").1["fit"], 1);

    // To another app they are as if they were not there, by whatever it asks; so they are by a token of the same
    // name at another node, though that node has a copy.
    let namesake = Caller::new(&tree, "c", "citizens", "app");
    let as_none = |body: Value, id: &str| body.to_string().replace(id, "nowhere");
    for stranger in [&other, &namesake] {
        let (_, nowhere) = stranger.get("/v1/cases/nowhere");
        for case in mine {
            wait_for("the city has a copy", || (hall.get(&format!("/v1/cases/{case}")).0 == 200).then_some(()));
            let (status, body) = stranger.get(&format!("/v1/cases/{case}"));
            assert_eq!((status, as_none(body, case)), (404, nowhere.to_string()), "{case}");
            for step in ["withdraw", "evaluate", "reopen", "comment", "accept"] {
                let said = json!({"text": "x", "solved": "solved"});
                let (status, body) = stranger.post(&format!("/v1/cases/{case}/{step}"), &said);
                assert_eq!((status, as_none(body, case)), (404, nowhere.to_string()), "{step} {case}");
            }
            let (status, body) = stranger.get(&format!("/v1/cases?after={case}"));
            assert_eq!(status, 400, "{body}");
            // Not by a part of its id either.
            assert_eq!(stranger.get(&format!("/v1/cases/{}", &case[..14])).0, 404);
        }
    }
    assert_eq!(namesake.get("/v1/cases").1["fit"], 0);

    // By Open311 they are its own, too; an incident and an appointment are there for nobody.
    let update = |who: &Caller<'_>, case: &str| {
        let form = format!("service_request_id={case}&status=CANCELLED&api_key={}", who.secret);
        let node = tree.node("c/s").asker();
        node.post_as("/open311/v2/servicerequestupdates.json", "application/x-www-form-urlencoded", form).status
    };
    assert_eq!([update(&other, &appeal), update(&app, &pressed), update(&app, &appeal)], [403, 404, 200]);
    assert_eq!(app.case(&appeal)["case"]["status"], "withdrawn");
}

#[test]
fn an_app_is_a_resident_and_nobody_else() {
    let tree = a_city_of_tokens();
    let app = Caller::new(&tree, "c/s", "citizens", "app");
    let li = Caller::new(&tree, "c/s", "li", "worker");
    let (_, appeal) =
        app.post("/v1/cases", &json!({"category": "LAMP", "by": "li", "form": {"pole": "7", "door": "1"}}));
    assert_eq!(appeal["history"][0]["by"], "app:citizens", "whoever it says that it is: {appeal}");
    let appeal = id(&appeal);
    for (step, body) in [
        ("accept", json!({})),
        ("close", json!({})),
        ("forget", json!({})),
        ("withdraw", json!({"role": "supervisor"})),
        ("comment", json!({"role": "worker", "text": "x"})),
    ] {
        let (status, told) = app.post(&format!("/v1/cases/{appeal}/{step}"), &body);
        assert_eq!((status, &told["error"]), (403, &json!("forbidden")), "{step}: {told}");
    }
    for path in ["/v1/status", "/v1/events", "/v1/alarms", "/v1/rates", "/v1/dlq", "/metrics", "/v1/at/c/s"] {
        assert_eq!(app.get(path).0, 403, "{path}");
    }
    for path in ["/v1/events", "/v1/cases/import", "/v1/send", "/v1/cap"] {
        assert_eq!(app.post(path, &json!({})).0, 403, "{path}");
    }
    // A node below would show it what a reader sees.
    let (status, told) = app.ask("GET", "/v1/cases", &[(view::HEADER_AT, "c/s")], &Value::Null);
    assert_eq!(status, 403, "{told}");
    assert_eq!(li.case(&appeal)["case"]["status"], "submitted");
}

#[test]
fn a_desk_that_booked_for_a_resident_cancels_it_at_his_word_and_no_other_worker_does() {
    let tree = a_city_of_tokens();
    let (desk, li) = (Caller::new(&tree, "c/s", "desk", "worker"), Caller::new(&tree, "c/s", "li", "worker"));
    let hall = Caller::new(&tree, "c", "hall", "operator");
    let request = json!({"of": "c", "form": {"health": "轮椅"}, "contact": {"name": "王大妈"}});
    let (status, booked) = desk.post("/v1/services/opera/requests", &request);
    assert_eq!(status, 201, "{booked}");
    let booked = id(&booked);
    desk.wait(&booked, "it is booked", |case| case["booking"]["state"] == "booked");
    li.step(&booked, "withdraw", &json!({}));
    let refused =
        wait_for("the city has refused it", || Some(li.case(&booked)["wishes"][0]["refused"].as_str()?.to_owned()));
    assert!(refused.contains("`withdraw` is for a resident or supervisor"), "{refused}");
    // Nor a token of the same name at the city: it has opened nothing here.
    let namesake = Caller::new(&tree, "c", "desk", "worker");
    assert_eq!(namesake.post(&format!("/v1/cases/{booked}/withdraw"), &json!({})).0, 403);
    desk.step(&booked, "withdraw", &json!({"text": "王大妈不来了"}));
    desk.wait(&booked, "it is withdrawn", |case| case["status"] == "withdrawn");
    assert_eq!(hall.get("/v1/services/opera?of=c").1["free"]["places"], 1);
}

/// A webhook of the street in the name of its token `citizens`.
fn told_as_citizens(tree: &mut Tree, receiver: &Receiver, more: &str) {
    let hook = format!("[[webhook]]\nname = \"app\"\nurl = \"{}\"\ntoken = \"citizens\"\n{more}\n", receiver.url);
    tree.stop_node("c/s");
    tree.edit("c/s", |text| format!("{hook}{text}"));
    tree.start_node("c/s");
    tree.wait_ready();
}

/// What the webhook does not send, and why.
fn stands(by: &Caller<'_>) -> Option<Value> {
    by.get("/v1/status").1["webhooks"][0]["stands"].as_array()?.first().cloned()
}

#[test]
fn an_app_s_webhook_is_told_how_its_own_cases_stand_wherever_they_are_and_of_no_others() {
    let mut tree = a_city_of_tokens();
    let receiver = Receiver::start();
    told_as_citizens(&mut tree, &receiver, "");
    let (app, rival) = (Caller::new(&tree, "c/s", "citizens", "app"), Caller::new(&tree, "c/s", "rival", "app"));
    let li = Caller::new(&tree, "c/s", "li", "worker");
    let appeal = |title: &str| json!({"category": "LAMP", "title": title, "form": {"pole": "7", "door": "五零一"}});
    let press =
        json!({"sos": true, "title": "摔倒了", "place": {"text": "三号楼"}, "contact": {"phone": "13900000000"}});

    let theirs = [
        rival.post("/v1/cases", &appeal("别家的")),
        li.post("/v1/cases", &appeal("自己的")),
        rival.post("/v1/cases", &press),
    ]
    .map(|(_, shown)| id(&shown));
    for case in &theirs {
        li.step(case, "accept", &json!({}));
    }
    let (pressed, mine) = (id(&app.post("/v1/cases", &press).1), id(&app.post("/v1/cases", &appeal("我的")).1));
    for case in [&pressed, &mine] {
        li.step(case, "accept", &json!({}));
        li.step(case, "comment", &json!({"text": "此人常来"}));
        li.step(case, "dispatch", &json!({"unit": "路灯所"}));
    }
    // The city has it then, and what it does with it comes down by letters.
    let request = json!({"of": "c", "form": {"health": "轮椅"}, "contact": {"name": "王大妈", "phone": "13900000000"}});
    let booked = id(&app.post("/v1/services/opera/requests", &request).1);
    app.wait(&booked, "it is booked", |case| case["booking"]["state"] == "booked");
    app.step(&booked, "withdraw", &json!({"text": "不去了"}));

    let of = |case: &str| receiver.all().into_iter().filter(|got| got.body["data"]["id"] == case).collect::<Vec<_>>();
    let statuses = |case: &str| {
        let mut all: Vec<Value> = of(case).iter().map(|got| got.body["data"]["status"].clone()).collect();
        all.dedup();
        all
    };
    for case in [&pressed, &mine] {
        let told =
            wait_for("it is told", || Some(statuses(case)).filter(|all| all.last() == Some(&json!("dispatched"))));
        assert_eq!(told, ["submitted", "accepted", "dispatched"], "{case}");
    }
    wait_for("it is told", || (statuses(&booked).last() == Some(&json!("withdrawn"))).then_some(()));

    for got in receiver.all() {
        let (body, case) = (&got.body, got.body["data"]["id"].as_str().unwrap_or_default());
        assert!([&pressed, &mine, &booked].iter().any(|own| *own == case), "{body}");
        assert_eq!((&body["type"], &body["source"]), (&json!("city.case.changed"), &json!("/c/s/cases")), "{body}");
        let members: Vec<&String> = body["data"].as_object().expect("data").keys().collect();
        assert_eq!(members, ["id", "status", "term", "version"]);
        let raw = String::from_utf8_lossy(&got.raw);
        for word in
            ["别家的", "自己的", "我的", "li\"", "此人常来", "路灯所", "不去了", "13900000000", "五零一", "轮椅"]
        {
            assert!(!raw.contains(word), "{word}: {raw}");
        }
        assert!(theirs.iter().all(|case| !raw.contains(case)), "{raw}");
    }
    // What it was told last is what it reads.
    for case in [&pressed, &mine, &booked] {
        let (last, shown) = (of(case).pop().expect("it was told"), app.case(case));
        assert_eq!(
            ["status", "term", "version"].map(|m| &last.body["data"][m]),
            ["status", "term", "version"].map(|m| &shown["case"][m])
        );
    }
    let mut ids: Vec<String> = receiver.ids();
    ids.sort_unstable();
    let told = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), told, "no version of a case was told twice");
}

#[test]
fn a_webhook_in_the_name_of_a_token_stands_when_that_is_removed_and_goes_on_when_it_is_back() {
    let mut tree = a_city_of_tokens();
    let receiver = Receiver::start();
    told_as_citizens(&mut tree, &receiver, "types = [\"city.sos.pressed\", \"city.lamp\"]");
    let hall = Caller::new(&tree, "c/s", "desk", "operator");
    let say = |id: &str, kind: &str| {
        let event =
            json!({"specversion": "1.0", "id": id, "source": "/x", "type": kind, "data": {"phone": "13900000000"}});
        assert_eq!(hall.post("/v1/events", &event).0, 202);
    };
    say("1", "city.lamp.failed");
    let stood = wait_for("it stands", || stands(&hall));
    assert_eq!(stood["why"], "this node's tokens file has no token `citizens`", "{stood}");
    assert!(receiver.ids().is_empty());
    // The receiver has nothing to mend.
    let found = |path: &str| hall.get(path).1.to_string();
    for path in ["/v1/why", "/v1/doctor"] {
        let told = found(path);
        assert!(told.contains("citybrain token add NAME --role app") && !told.contains("mend its receiver"), "{told}");
    }

    // A reader reads all, but nothing that may name a person.
    let reader = Caller::new(&tree, "c/s", "citizens", "reader");
    wait_for("it goes on", || (receiver.ids() == ["1"]).then_some(()));
    say("2", "city.sos.pressed");
    wait_for("the press is told", || (receiver.ids() == ["1", "2"]).then_some(()));
    let [lamp, press] = &receiver.all()[..] else { panic!("two were sent") };
    assert_eq!(lamp.body["data"]["phone"], "13900000000");
    assert!(press.body["data"]["withheld"].is_string() && press.body["data"]["phone"].is_null(), "{}", press.body);
    assert_eq!(
        reader.get("/v1/events/2?source=/x").1["record"]["event"]["data"],
        press.body["data"],
        "as the API shows it"
    );

    let file = tree.dir().join(tokens_of("c/s"));
    run(&["token", "remove", "citizens", "--yes", "--file", text(&file)]).says(0, &[]);
    say("3", "city.lamp.failed");
    wait_for("it stands", || stands(&hall));
    let _gateway = Caller::new(&tree, "c/s", "citizens", "gateway");
    wait_for("it has gone past what a gateway may not read", || stands(&hall).is_none().then_some(()));
    assert_eq!(receiver.ids(), ["1", "2"]);
}

#[test]
fn what_an_app_s_receiver_refused_is_sent_again_as_it_was_and_to_nobody_whose_token_is_gone() {
    let mut tree = a_city_of_tokens();
    let receiver = Receiver::start();
    receiver.answer(|_| "422 Unprocessable Content");
    told_as_citizens(&mut tree, &receiver, "");
    let (app, hall) = (Caller::new(&tree, "c/s", "citizens", "app"), Caller::new(&tree, "c/s", "desk", "operator"));
    let mine = id(&app.post("/v1/cases", &json!({"category": "LAMP", "title": "我的", "form": {"pole": "7"}})).1);
    let letter = wait_for("it is kept", || hall.get("/v1/dlq").1["dead_letters"].as_array()?.first().cloned());
    assert!(!letter["payload"].as_str().expect("the event").contains("我的"), "{letter}");
    let retry = || hall.post("/v1/dlq/retry", &json!({"positions": [letter["pos"]]})).1["letters"][0].clone();
    let file = tree.dir().join(tokens_of("c/s"));
    run(&["token", "remove", "citizens", "--yes", "--file", text(&file)]).says(0, &[]);
    receiver.answer(|_| OK);
    assert_eq!(retry()["outcome"], "not-retryable");
    let _again = Caller::new(&tree, "c/s", "citizens", "app");
    assert_eq!(retry()["outcome"], "delivered");
    let got = receiver.all().pop().expect("it has come");
    assert_eq!((&got.body["data"]["id"], &got.body["data"]["status"]), (&json!(mine), &json!("submitted")));
    assert_eq!(
        got.body.to_string(),
        serde_json::from_str::<Value>(letter["payload"].as_str().expect("text")).expect("JSON").to_string()
    );
}
