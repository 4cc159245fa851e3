//! Services, activities and scenes: inherited, found, requested, booked, on a map.

use super::{COMMUNITY, LEAF, cli, id, step, wait_case};
use crate::harness::ran::{Ran, run};
use crate::harness::{Node, OPERA, Tree, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;

#[test]
fn a_service_is_inherited_requested_below_and_its_last_seat_given_once() {
    let mut tree = Tree::with(&[LEAF], &HashMap::new(), OPERA);
    tree.start();
    let leaf = tree.node(LEAF);
    let offered = wait_for("the leaf has inherited from all three above", || {
        let all = leaf.get("/v1/services")?["services"].as_array()?.clone();
        (all.len() == 4).then_some(all)
    });
    let nodes: Vec<&str> = offered.iter().filter_map(|o| o["node"].as_str()).collect();
    assert_eq!(nodes, [LEAF, COMMUNITY, "c/s", "c"]);
    let map: Value = serde_json::from_str(&leaf.get_text("/v1/scenes.geojson").expect("a map")).expect("JSON");
    assert_eq!((map["type"].as_str(), map["features"].as_array().map(Vec::len)), (Some("FeatureCollection"), Some(4)));
    let request = |by: &str, wanted: i32| {
        let line = [
            "service",
            "request",
            "opera",
            "--of",
            COMMUNITY,
            "--by",
            by,
            "--form",
            "health=轮椅",
            "--phone",
            "139",
            "--json",
        ];
        let (code, out, err) = cli(leaf, &line);
        assert_eq!(code, wanted, "{err}");
        id(&serde_json::from_str::<Value>(&out).expect("JSON")["case"])
    };
    // The second is told no: there was one seat.
    let (first, second) = (request("王大妈", 0), request("李大爷", 1));
    let booked = |case: &str, state: &str| {
        wait_case(leaf, "hears of its booking", |c| c["id"] == case && c["booking"]["state"] == state)
    };
    assert_eq!(booked(&first, "booked")["owner"], COMMUNITY);
    assert_eq!(booked(&second, "refused")["status"], "rejected");
    let (code, out, _) = cli(tree.node(COMMUNITY), &["service", "show", "opera"]);
    assert!(code == 0 && out.contains("seats left  0"), "{out}");
    // Given back, it is free again; who asked with what is known only where it is needed.
    step(leaf, &first, "withdraw", &json!({"by": "王大妈", "role": "resident"}));
    wait_for("the seat is free", || {
        (tree.node(COMMUNITY).get("/v1/services/opera")?["free"]["places"] == 1).then_some(())
    });
    assert!(!tree.node("c").get_text("/v1/cases").expect("cases").contains("轮椅"));
    let (code, _, err) = cli(leaf, &["service", "request", "oprea", "--by", "x"]);
    assert!(code == 1 && err.contains("did you mean `opera`?"), "{err}");
    for line in [vec!["service", "list"], vec!["scene", "list"], vec!["service", "show", "opera", "--of", "c"]] {
        let (code, out, err) = cli(leaf, &line);
        assert!(code == 0 && (out.contains("川剧") || out.contains("银发乐园")), "{line:?}: {out}{err}");
    }
}

/// Of the city and of the community.
const CITY: &str = r#"
[[service]]
code = "notary"
name = "公证"
provider = "Notary Office"
description = "遗嘱、委托"
hours = ["mon-fri 09:00-17:00"]
[[scene]]
code = "green"
name = "绿道"
geometry = { type = "LineString", coordinates = [[103.83, 30.69], [103.84, 30.7]] }
"#;
const HERE: &str = r#"
[[rule]]
name = "fall"
on = ["city.fall"]
then = [{ emit = { type = "t.fall" } }]
[[service]]
code = "haircut"
name = "义务理发"
provider = "张师傅"
description = "Every Saturday, for the old"
place = { text = "活动室", lat = 30.698, lon = 103.8368 }
[[service]]
code = "sports-day"
name = "社区运动会"
provider = "社工站"
governance = "autonomy"
starts = "2099-12-05 09:00"
ends = "2099-12-05 12:00"
places = 2
volunteers = 2
[[service]]
code = "opera"
name = "川剧"
starts = "2099-11-05 19:00"
[[scene]]
code = "silver"
name = "银发乐园"
theme = "养老"
description = "For whoever is over 60"
governance = ["autonomy", "virtue"]
geometry = { type = "Polygon", coordinates = [[[103.83, 30.69], [103.84, 30.69], [103.84, 30.7], [103.83, 30.69]]] }
services = ["haircut", "sports-day", "notary"]
rules = ["fall"]
devices = ["btn-7", "mat-301"]
"#;

fn neighbourhood() -> Tree {
    let mut tree = Tree::new(&[LEAF]);
    tree.edit("c", |text| format!("{CITY}{text}"));
    tree.edit(COMMUNITY, |text| format!("{HERE}{text}"));
    tree.start();
    wait_for("the leaf has inherited all", || {
        (tree.node(LEAF).get("/v1/services")?["services"].as_array()?.len() == 4).then_some(())
    });
    tree
}

fn ran(node: &Node, line: &[&str]) -> Ran {
    run(&[line, &["--node", &node.url()]].concat())
}

#[test]
fn a_service_is_found_by_a_word_of_its_code_name_description_provider_or_place_and_activities_alone() {
    let tree = neighbourhood();
    let leaf = tree.node(LEAF);
    let found = |query: &str| {
        let all = leaf.get(&format!("/v1/services?{query}")).expect("services")["services"].clone();
        let all = all.as_array().expect("a list").iter();
        all.map(|s| format!("{} of {}", s["code"].as_str().unwrap_or(""), s["node"].as_str().unwrap_or("")))
            .collect::<Vec<_>>()
    };
    let [notary, haircut, sports, opera] =
        ["notary of c", "haircut of c/s/m", "sports-day of c/s/m", "opera of c/s/m"].map(str::to_owned);
    assert_eq!(found(""), [haircut.clone(), sports.clone(), opera.clone(), notary.clone()]);
    for (word, wanted) in [
        ("search=HAIR", vec![&haircut]),
        ("search=%E7%90%86%E5%8F%91", vec![&haircut]), // 理发
        ("search=saturday", vec![&haircut]),
        ("search=%E5%BC%A0%E5%B8%88%E5%82%85", vec![&haircut]), // 张师傅
        ("search=office", vec![&notary]),
        ("search=o", vec![&haircut, &sports, &opera, &notary]),
        ("search=%E6%B4%BB%E5%8A%A8%E5%AE%A4", vec![&haircut]), // 活动室
        ("search=activity-room", vec![]),
        ("activities=true", vec![&sports, &opera]),
        ("activities=true&search=sports", vec![&sports]),
        ("activities=true&of=c", vec![]),
        ("of=c", vec![&notary]),
        ("of=c/s/m&search=o", vec![&haircut, &sports, &opera]),
    ] {
        assert_eq!(found(word).iter().collect::<Vec<_>>(), wanted, "{word}");
    }
    let screen = |line: &[&str]| {
        let done = ran(leaf, &[&["service", "list"], line].concat());
        done.says(0, &[]);
        let rows = done.out.lines().filter(|l| l.contains("  c")).map(|l| l.split(' ').next().unwrap_or("").to_owned());
        rows.collect::<Vec<_>>()
    };
    assert_eq!(screen(&["--search", "理发"]), ["haircut"]);
    assert_eq!(screen(&["--search", "NOTARY office"]), ["notary"]);
    assert_eq!(screen(&["--activities"]), ["sports-day", "opera"]);
    assert_eq!(screen(&["--activities", "--search", "opera", "--of", COMMUNITY]), ["opera"]);
    ran(leaf, &["service", "list", "--search", "火箭"]).says(0, &["nothing that fits is offered here or above"]);
    // Of a node beside, below or nowhere nothing is known here, which is not that it offers nothing.
    for (of, node) in [("c/nope", leaf), ("c/s/b", leaf), (LEAF, tree.node(COMMUNITY))] {
        ran(node, &["service", "list", "--of", of]).says(2, &[&format!("`{of}` is none of them"), "ask "]);
    }
    let json = ran(leaf, &["service", "list", "--activities", "--json"]).json();
    assert_eq!(json["services"].as_array().map(Vec::len), Some(2));
}

#[test]
fn volunteers_are_counted_apart_from_visitors_whether_a_program_or_a_person_asks_for_them() {
    let tree = neighbourhood();
    let (leaf, community) = (tree.node(LEAF), tree.node(COMMUNITY));
    let free = || {
        let free = community.get("/v1/services/sports-day").expect("shown")["free"].clone();
        (free["places"].as_u64().expect("seats"), free["volunteers"].as_u64().expect("volunteers"))
    };
    let wait_free = |wanted: (u64, u64)| wait_for(&format!("{wanted:?} are free"), || (free() == wanted).then_some(()));
    assert_eq!(free(), (2, 2));
    let (status, asked) =
        leaf.post("/v1/services/sports-day/requests", &json!({"by": "小李", "volunteer": true, "text": "可搬椅子"}));
    assert_eq!((status, &asked["case"]["booking"]["seat"]), (201, &json!("volunteer")), "{asked}");
    let first = id(&asked["case"]);
    let booked = wait_case(leaf, "is booked", |c| c["id"] == first.as_str() && c["booking"]["state"] == "booked");
    assert_eq!((&booked["owner"], &booked["kind"]), (&json!(COMMUNITY), &json!("service")));
    assert_eq!((&booked["governance"], &booked["description"]), (&json!("autonomy"), &json!("可搬椅子")));
    assert_eq!(free(), (2, 1));
    let typed = |more: &[&str]| ran(leaf, &[&["service", "request", "sports-day", "--by", "小张"], more].concat());
    let done = typed(&["--volunteer"]);
    done.says(0, &["社区运动会 of c/s/m, ", ", as a volunteer: booked"]);
    wait_free((2, 0));
    ran(community, &["service", "show", "sports-day"])
        .says(0, &["seats left  2 of 2\n", "volunteers  0 of 2 still wanted\n"]);
    // There is no place for a third who helps, and there is for one who comes.
    let done = typed(&["--volunteer", "--json"]);
    done.says(1, &[]);
    let refused = done.json();
    assert_eq!(
        (&refused["case"]["status"], &refused["case"]["booking"]["state"]),
        (&json!("rejected"), &json!("refused"))
    );
    typed(&["--seats", "2"]).says(0, &[", 2 seats: booked"]);
    wait_free((0, 0));
    typed(&[]).says(1, &["refused"]);
    // Whoever cannot help after all gives his place back, and nobody else's.
    step(leaf, &first, "withdraw", &json!({"by": "小李", "role": "resident"}));
    wait_free((0, 1));
    let (status, answer) = leaf.post("/v1/services/haircut/requests", &json!({"by": "小李", "volunteer": true}));
    assert_eq!((status, &answer["error"]), (400, &json!("bad-request")), "{answer}");
    assert_eq!(answer["detail"], "义务理发 asks for no volunteers");
    // A key is one request's: repeated it is answered again, and another one is not answered with that.
    let keyed = |more: Value| {
        let mut asked = json!({"by": "小王", "key": "k1"});
        asked.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let (status, answer) = leaf.post("/v1/services/sports-day/requests", &asked);
        (status, answer["error"].clone())
    };
    assert_eq!(keyed(json!({"volunteer": true})), (201, Value::Null));
    assert_eq!(keyed(json!({"volunteer": true})), (200, Value::Null));
    assert_eq!(keyed(json!({})), (422, json!("key-used")));
    ran(leaf, &["service", "request", "haircut", "--volunteer", "--by", "x"]).says(1, &["asks for no volunteers"]);
}

#[test]
fn a_provider_lists_who_comes_and_when_and_only_for_those_who_may_know_it() {
    let tree = neighbourhood();
    let (leaf, community) = (tree.node(LEAF), tree.node(COMMUNITY));
    let typed = |more: &[&str]| {
        let line = ["service", "request", "sports-day", "--by", "前台"];
        ran(leaf, &[&line, more].concat()).says(0, &[": booked"]);
    };
    typed(&["--seats", "2", "--name", "王大妈", "--phone", "13900000000"]);
    typed(&["--volunteer", "--name", "小李"]);
    for word in ["sports-day", "社区运动会"] {
        let told = ran(community, &["case", "list", "--service", word]);
        told.says(0, &["WHEN", "2 of 2 that fit"]);
        assert!(told.out.contains("  社区运动会  c/s/m  "), "whose it is: {}", told.out);
        let row =
            |who: &str| told.out.lines().find(|l| l.contains(who)).unwrap_or_else(|| panic!("{who}: {}", told.out));
        assert!(row("王大妈 13900000000").starts_with("2099-12-05 01:00:00Z  2  "), "{}", told.out);
        assert!(row("小李").contains("1, to help") && row("小李").contains("booked"), "{}", told.out);
    }
    ran(community, &["case", "list", "--service", "haircut"]).says(0, &["no cases that fit"]);
    ran(community, &["case", "list", "--service", "sport-day"]).says(1, &["did you mean `sports-day`?"]);
    // A node that does not offer it knows it by its cases, and by the name that they have.
    let city = tree.node("c");
    wait_for("the city has both", || (city.get("/v1/cases")?["fit"] == 2).then_some(()));
    for line in [&["社区运动会"][..], &["sports-day"], &["sports-day", "--of", COMMUNITY]] {
        ran(city, &[&["case", "list", "--service"], line].concat()).says(0, &["2 of 2 that fit"]);
    }
    ran(city, &["case", "list", "--service", "sports-day", "--of", "c"]).says(1, &["knows no service"]);
    // Page by page.
    let page = |after: &str| community.get(&format!("/v1/cases?service=sports-day&limit=1{after}")).expect("a page");
    let first = page("");
    let next = first["next"].as_str().expect("there is another");
    let second = page(&format!("&after={next}"));
    assert_ne!(first["cases"][0]["id"], second["cases"][0]["id"]);
    assert_eq!((&second["next"], &second["fit"]), (&Value::Null, &json!(2)));
    // Other lists name nobody.
    assert!(!community.get_text("/v1/cases").expect("cases").contains("13900000000"));
}

#[test]
fn a_list_of_a_service_says_whose_it_is_and_that_others_have_one_of_that_code() {
    let mut tree = Tree::new(&[COMMUNITY]);
    let sports_day = "[[service]]\ncode = \"sports-day\"\nname = \"运动会\"\nstarts = \"2099-12-05 09:00\"\n";
    for node in ["c", COMMUNITY] {
        tree.edit(node, |text| format!("{text}\n{sports_day}"));
    }
    tree.start();
    let (city, community) = (tree.node("c"), tree.node(COMMUNITY));
    ran(community, &["service", "request", "sports-day", "--by", "王大妈"]).says(0, &["of c/s/m, ", ": booked"]);
    wait_for("the city has it", || (city.get("/v1/cases")?["fit"] == 1).then_some(()));
    let list = |node: &Node, of: &[&str]| ran(node, &[&["case", "list", "--service", "sports-day"], of].concat());
    let others = "this is the service of c; asked of others that have one of that code: 1 (`--of c/s/m`)\n";
    list(city, &[]).says(0, &["no cases that fit; 1 are open, 0 of them overdue\n", others]);
    let told = list(city, &["--json"]).json();
    assert_eq!((&told["of"], &told["of_others"]), (&json!("c"), &json!({"cases": 1, "such_as": COMMUNITY})));
    for (node, of) in [(city, &["--of", COMMUNITY][..]), (community, &[]), (community, &["--of", COMMUNITY])] {
        let told = list(node, of);
        told.says(0, &["1 of 1 that fit"]);
        assert!(!told.out.contains("asked of others"), "{}", told.out);
    }
    ran(community, &["service", "request", "sports-day", "--of", "c", "--by", "李大爷"]).says(0, &[": booked"]);
    // Beside what fits, too, and page by page the same.
    list(city, &[]).says(0, &["1 of 1 that fit", others]);
    ran(city, &["service", "request", "sports-day", "--by", "赵叔"]).says(0, &[": booked"]);
    let first = list(city, &["--limit", "1", "--json"]).json();
    let second = list(city, &["--limit", "1", "--json", "--after", first["next"].as_str().expect("another")]).json();
    assert_ne!(first["cases"][0]["id"], second["cases"][0]["id"]);
    for page in [&first, &second] {
        let of_others = json!({"cases": 1, "such_as": COMMUNITY});
        assert_eq!((&page["fit"], &page["of"], &page["of_others"]), (&json!(2), &json!("c"), &of_others));
    }
    assert_eq!(second["next"], Value::Null);
    list(city, &["--of", "c"]).says(0, &["2 of 2 that fit"]);
    assert_eq!(city.get("/v1/cases").expect("cases").get("of_others"), None);
}

#[test]
fn who_asks_by_his_name_alone_is_somebody_to_call_at_every_tier() {
    let tree = neighbourhood();
    let (leaf, community, city) = (tree.node(LEAF), tree.node(COMMUNITY), tree.node("c"));
    let asked = ["service", "request", "sports-day", "--by", "王大妈", "--json"];
    let case = id(&ran(leaf, &asked).says(0, &[]).json()["case"]);
    for node in [leaf, community, city] {
        wait_case(node, "is booked, and has whom to call", |c| {
            c["id"] == case && c["booking"]["state"] == "booked" && c["has_contact"] == true
        });
    }
    ran(community, &["case", "show", &case]).says(0, &["to call", "王大妈"]);
    ran(city, &["case", "show", &case]).says(0, &["to call     kept at c/s/m: "]);
    assert!(!city.get_text(&format!("/v1/cases/{case}")).expect("the case").contains("王大妈"));
}

#[test]
fn a_scene_is_on_the_map_with_all_that_belongs_to_it() {
    let tree = neighbourhood();
    for at in [LEAF, COMMUNITY] {
        // RFC 7946: longitude first, the ring closed.
        let wanted = json!({"type": "FeatureCollection", "features": [
            {"type": "Feature", "id": "c/s/m/silver",
                "geometry": {"type": "Polygon",
                    "coordinates": [[[103.83, 30.69], [103.84, 30.69], [103.84, 30.7], [103.83, 30.69]]]},
                "properties": {"node": "c/s/m", "code": "silver", "name": "银发乐园", "theme": "养老",
                    "description": "For whoever is over 60", "governance": ["autonomy", "virtue"],
                    "services": ["haircut", "sports-day", "notary"], "rules": ["fall"], "devices": ["btn-7", "mat-301"]}},
            {"type": "Feature", "id": "c/green",
                "geometry": {"type": "LineString", "coordinates": [[103.83, 30.69], [103.84, 30.7]]},
                "properties": {"node": "c", "code": "green", "name": "绿道", "theme": "", "description": "",
                    "governance": [], "services": [], "rules": [], "devices": []}},
        ]});
        // A new box says that it waits for its parent's word, as long as it does.
        let map = wait_for(&format!("{at} waits for nobody"), || {
            let map: Value = serde_json::from_str(&tree.node(at).get_text("/v1/scenes.geojson")?).ok()?;
            map.get("awaits").is_none().then_some(map)
        });
        assert_eq!(map, wanted, "{at}");
    }
    let city: Value =
        serde_json::from_str(&tree.node("c").get_text("/v1/scenes.geojson").expect("a map")).expect("JSON");
    assert_eq!(city["features"].as_array().map(Vec::len), Some(1), "nothing goes up");
    let map = tree.node("c").asker().get("/v1/scenes.geojson");
    assert_eq!(map.header("content-type"), "application/geo+json");
    // A map that asks every minute is told that nothing has changed.
    let again = [("if-none-match", map.header("etag"))];
    assert_eq!(tree.node("c").asker().ask("GET", "/v1/scenes.geojson", &again, "").status, 304);
    let told = ran(tree.node(LEAF), &["scene", "list"]);
    told.says(0, &["autonomy, virtue", "haircut, sports-day, notary"]);
    let row = told.out.lines().find(|l| l.starts_with("silver")).expect("a row");
    assert!(row.contains("polygon") && row.contains("fall") && row.contains("btn-7, mat-301"), "{row}");
}

/// As an editor saves a file.
fn write(node: &Node, text: &str) {
    std::fs::write(&node.config, text).expect("the config is written");
}

#[test]
fn an_edited_file_is_offered_without_a_restart_and_who_booked_what_was_moved_is_told() {
    let tree = neighbourhood();
    let (leaf, community) = (tree.node(LEAF), tree.node(COMMUNITY));
    let asked = ["service", "request", "sports-day", "--of", COMMUNITY, "--by", "王大妈", "--json"];
    let case = id(&ran(leaf, &asked).says(0, &[]).json()["case"]);
    wait_case(leaf, "is booked", |c| c["id"] == case && c["booking"]["state"] == "booked");
    let text = std::fs::read_to_string(&community.config).expect("the config reads");

    // A file that does not check changes nothing, and says where and why.
    let faulty = text
        .replace("2099-12-05 12:00", "2098-12-05 12:00")
        .replace("[[scene]]", "[[service]]\ncode = \"new\"\nname = \"新\"\n[[scene]]");
    write(community, &faulty);
    let line = faulty.lines().position(|l| l.contains("2098-12-05 12:00")).expect("the end") + 1;
    ran(community, &["config", "reload", "--yes"]).says(1, &[&format!("line {line}: "), "citybrain check"]);
    assert_eq!(community.get("/v1/services").expect("services")["services"].as_array().map(Vec::len), Some(4));

    // One activity is added, one is moved, another scene and a day off come with it.
    let added = "[[service]]\ncode = \"yoga\"\nname = \"瑜伽\"\nstarts = \"2099-12-07 09:00\"\nplaces = 9\n";
    let moved = text.replace("2099-12-05 09:00", "2099-12-06 09:00").replace("2099-12-05 12:00", "2099-12-06 12:00");
    let days = tree.dir().join("days.csv");
    std::fs::write(&days, "2099-12-25,holiday,x\n").expect("it is written");
    let calendar = format!("[calendar]\ndays_file = \"{}\"\n", days.display());
    write(community, &format!("{added}{moved}\n{calendar}"));
    ran(community, &["config", "reload", "--yes"]).says(
        0,
        &[
            "1 rule, 4 services, 1 scene, 0 categories in force\n",
            "added    service yoga\nchanged  service sports-day\nchanged  calendar\n",
        ],
    );
    wait_for("the leaf shows both", || {
        let all = leaf.get("/v1/services")?["services"].as_array()?.clone();
        let starts = |code: &str| all.iter().find(|s| s["code"] == code).map(|s| s["starts"].clone());
        (starts("yoga")? == "2099-12-07 09:00" && starts("sports-day")? == "2099-12-06 09:00").then_some(())
    });
    ran(leaf, &["service", "list"]).says(0, &["瑜伽", "2099-12-06"]);
    ran(community, &["config", "show"]).says(0, &["yoga"]);
    wait_case(leaf, "hears of the new time", |c| c["id"] == case && c["booking"]["at"] == "2099-12-06T01:00:00Z");
    let lines = leaf.get(&format!("/v1/cases/{case}")).expect("the case")["history"].clone();
    let told = lines.as_array().expect("lines").iter().filter(|l| l["step"] == "rescheduled").count();
    assert_eq!(told, 1, "{lines}");

    // The days' file alone may be another, and the log says who did it, and what.
    std::fs::write(&days, "2099-12-26,holiday,x\n").expect("it is written");
    ran(community, &["rule", "reload", "--yes"]).says(0, &["in force\nchanged  calendar\n"]);
    ran(community, &["events", "--type", "city.brain.operator"]).says(0, &["calendar changed"]);
}

#[test]
fn a_reload_and_doctor_say_what_of_the_services_can_hardly_be_meant() {
    let tree = neighbourhood();
    let community = tree.node(COMMUNITY);
    let text = std::fs::read_to_string(&community.config).expect("the config reads");
    let repair = "[[service]]\ncode = \"repair\"\nname = \"修\"\ncategory = \"litter\"\n";
    write(community, &format!("{}\n{repair}", text.replace("2099-12-05", "2019-12-05")));
    let nobody = "service repair: nobody here or above has a category `litter`: its requests get no limits";
    let past = "service sports-day: its time is past, 2019-12-05 12:00";
    ran(community, &["config", "reload", "--yes"]).says(0, &[&format!("note     {nobody}\n"), past]);
    let again = ran(community, &["config", "reload", "--yes"]);
    again.says(0, &[nobody]);
    assert!(!again.out.contains(past), "it is said once: {}", again.out);
    let doctor = ran(community, &["doctor"]).out;
    assert!(doctor.contains(nobody), "{doctor}");
}

#[test]
fn doctor_and_the_log_name_a_booked_activity_that_the_file_of_a_start_puts_into_the_past() {
    let mut tree = neighbourhood();
    let asked = ["service", "request", "sports-day", "--by", "王大妈", "--json"];
    let case = id(&ran(tree.node(COMMUNITY), &asked).says(0, &[]).json()["case"]);
    wait_case(tree.node(COMMUNITY), "is booked", |c| c["id"] == case && c["booking"]["state"] == "booked");
    tree.kill9(COMMUNITY);
    tree.edit(COMMUNITY, |text| text.replace("2099-12-05", "2019-12-05"));
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    let past = "service sports-day: its time is past, 2019-12-05 12:00: who has booked it is told nothing";
    let doctor = || ran(tree.node(COMMUNITY), &["doctor"]).out;
    assert!(doctor().contains(past), "{}", doctor());
    assert!(tree.node(COMMUNITY).output().contains(past), "{}", tree.node(COMMUNITY).output());
    tree.edit(COMMUNITY, |text| text.replace("2019-12-05", "2099-12-06"));
    ran(tree.node(COMMUNITY), &["config", "reload", "--yes"]).says(0, &["changed  service sports-day"]);
    assert!(!doctor().contains("its time is past"), "{}", doctor());
}

#[test]
fn a_new_box_whose_parent_is_away_says_that_what_those_above_offer_is_missing() {
    let mut tree = neighbourhood();
    for gone in ["c/s", COMMUNITY] {
        tree.kill9(gone);
    }
    tree.lose_disk(COMMUNITY);
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    let node = tree.node(COMMUNITY);
    // Why it waits, its child may have told it by now.
    let missing = "some may be missing here, or old: c/s/m ";
    let waits = |what: &str| format!("; its {what} from above wait until the parent has said what it knows of them");
    ran(node, &["service", "list"]).says(0, &["sports-day", missing, &waits("services")]);
    ran(node, &["service", "list", "--search", "nobody"]).says(0, &["nothing that fits", missing, &waits("services")]);
    ran(node, &["scene", "list"]).says(0, &["silver", missing, &waits("scenes")]);
    let features = node.get("/v1/scenes.geojson").expect("a collection");
    assert_eq!(features["awaits"]["parent"], serde_json::json!(true), "{features}");
    for line in [["service", "show", "notary"].as_slice(), &["service", "request", "notary", "--by", "王大妈"]] {
        ran(node, line).says(
            1,
            &["knows no service `notary`, as far as is known: c/s/m ", &waits("services"), "`citybrain why c/s/m`"],
        );
    }
    let own = ran(node, &["service", "show", "notary", "--of", COMMUNITY]);
    own.says(1, &["knows no service `notary` of c/s/m"]);
    assert!(!own.err.contains("as far as is known"), "it knows its own: {}", own.err);
    tree.start_node("c/s");
    let node = tree.node(COMMUNITY);
    wait_for("nothing is missing any more", || {
        let all = node.get("/v1/services")?;
        (all["awaits"].is_null() && all["services"].as_array()?.len() == 4).then_some(())
    });
    ran(node, &["service", "show", "notary"]).says(0, &[]);
    let shown = ran(node, &["scene", "list"]);
    assert!(!shown.out.contains("missing"), "{}", shown.out);
}
