//! Every step that is typed: what the screen says, what programs get, and what stands in the history here
//! and at the city.

use super::{COMMUNITY, id, step, tree, wait_case};
use crate::harness::ran::{Ran, run};
use crate::harness::{Node, Tree, wait_for};
use serde_json::{Value, json};

const EVIDENCE: &str = "photo-after=https://p.example/u";

fn ran(node: &Node, line: &[&str]) -> Ran {
    run(&[line, &["--node", &node.url()]].concat())
}

/// A case of this node on which these steps have been taken.
fn a_case(node: &Node, steps: &[(&str, Value)]) -> String {
    let (status, made) = node.post("/v1/cases", &json!({"category": "暴露垃圾", "title": "三号门", "by": "前台"}));
    assert_eq!(status, 201, "{made}");
    let case = id(&made["case"]);
    for (verb, ask) in steps {
        step(node, &case, verb, ask);
    }
    case
}

fn shown(node: &Node, case: &str) -> Value {
    node.get(&format!("/v1/cases/{case}")).unwrap_or_default()
}

/// Waits until both have the same case with the same history, and gives it.
fn same_at(tree: &Tree, at: &[&str], case: &str) -> Value {
    let of = |node: &str| {
        let known = shown(tree.node(node), case);
        json!([known["case"], known["history"]])
    };
    wait_for(&format!("{case} is the same at {at:?}"), || {
        let first = of(at[0]);
        at.iter().all(|node| of(node) == first && first[0].is_object()).then(|| shown(tree.node(at[0]), case))
    })
}

/// Has this part all that is wanted, with these values? What else it has is not asked; null: it has not. What
/// begins with `/` leads further down.
fn holds(part: &Value, wanted: &Value) {
    for (name, value) in wanted.as_object().expect("an object") {
        let has = if name.starts_with('/') { part.pointer(name).unwrap_or(&Value::Null) } else { &part[name] };
        assert_eq!(has, value, "{name} of {part:#}");
    }
}

/// One step of a table.
struct Typed {
    /// Steps before it.
    before: Vec<(&'static str, Value)>,
    line: &'static [&'static str],
    /// How the case stands then.
    stands: &'static str,
    /// On the screen, beside that.
    says: &'static [&'static str],
    entry: Value,
    case: Value,
}

fn begun() -> Vec<(&'static str, Value)> {
    vec![("accept", json!({"by": "甲"})), ("dispatch", json!({"by": "甲", "unit": "环卫所"}))]
}

fn closed() -> Vec<(&'static str, Value)> {
    let mut steps = begun();
    steps.extend([
        ("start", json!({"by": "老赵"})),
        ("resolve", json!({"by": "老赵", "text": "已清", "evidence": [EVIDENCE]})),
        ("evaluate", json!({"by": "r", "role": "resident", "solved": "solved", "satisfied": "yes"})),
        ("close", json!({"by": "站长", "role": "supervisor"})),
    ]);
    steps
}

#[test]
fn each_step_that_is_typed_is_on_the_screen_in_the_answer_and_in_the_history_here_and_at_the_city() {
    let tree = tree(&[COMMUNITY]);
    let owner = tree.node(COMMUNITY);
    let table = [
        Typed {
            before: vec![],
            line: &["contact", "--by", "甲", "--text", "第二次才接"],
            stands: "submitted",
            says: &["the resident was called: 第二次才接", "甲 (worker)"],
            entry: json!({"step": "contacted", "by": "甲", "role": "worker", "text": "第二次才接",
                "to": "the resident was called"}),
            case: json!({"status": "submitted", "accepted_by": null}),
        },
        Typed {
            before: vec![],
            line: &["reject", "--by", "乙", "--reason", "着火了，已转119", "--closed-reason", "emergency"],
            stands: "rejected",
            says: &["emergency: 着火了，已转119", "response stopped"],
            entry: json!({"step": "rejected", "by": "乙", "role": "worker", "text": "着火了，已转119", "to": "emergency",
                "clocks": ["response stopped"]}),
            case: json!({"status": "rejected", "closed_reason": "emergency"}),
        },
        Typed {
            before: begun(),
            line: &["withdraw", "--by", "王大妈", "--role", "resident", "--note", "自己清了"],
            stands: "withdrawn",
            says: &["withdrawn: 自己清了", "takes       comment, forget, exclude"],
            entry: json!({"step": "withdrawn", "by": "resident", "role": "resident", "text": "自己清了", "to": "withdrawn",
                "clocks": ["response stopped", "solution stopped"]}),
            case: json!({"status": "withdrawn", "closed_reason": "withdrawn"}),
        },
        Typed {
            before: begun(),
            line: &["return", "--by", "环卫所长", "--reason", "不归我管"],
            stands: "accepted",
            says: &["returned", "环卫所长 (worker)", "不归我管", "solution stopped"],
            entry: json!({"step": "returned", "by": "环卫所长", "role": "worker", "text": "不归我管", "to": null,
                "clocks": ["solution stopped"]}),
            case: json!({"status": "accepted", "returns": 1, "unit": null, "owner": COMMUNITY, "handing_to": null}),
        },
        Typed {
            before: begun(),
            line: &["escalate", "--by", "甲", "--reason", "三天没人来"],
            stands: "dispatched (escalated)",
            says: &["escalated", "c/s: 三天没人来"],
            entry: json!({"step": "escalated", "by": "甲", "role": "worker", "text": "三天没人来", "to": "c/s",
                "calls": ["c/s"]}),
            case: json!({"status": "dispatched", "escalations": 1, "escalated_to": "c/s", "owner": COMMUNITY,
                "handing_to": null}),
        },
        Typed {
            before: closed(),
            line: &["exclude", "--by", "站长", "--reason", "台风", "--approved-by", "局长"],
            stands: "closed (solved)",
            says: &["approved by 局长: 台风", "站长 (supervisor)"],
            entry: json!({"step": "excluded", "by": "站长", "role": "supervisor", "text": "台风",
                "to": "approved by 局长"}),
            case: json!({"status": "closed", "closed_reason": "solved", "/excluded/by": "站长",
                "/excluded/approved_by": "局长", "/excluded/reason": "台风"}),
        },
        Typed {
            before: closed(),
            line: &["reopen", "--by", "王大妈", "--role", "resident", "--reason", "又堆起来了"],
            stands: "accepted",
            says: &["又堆起来了", "before      solved 1, satisfied 1: what was said in rounds that are over"],
            entry: json!({"step": "reopened", "by": "resident", "role": "resident", "text": "又堆起来了", "to": null}),
            case: json!({"status": "accepted", "reopened": 1, "closed": null, "closed_reason": null, "verdict": null,
                "outcome": null, "judged_before": {"solved": 1, "partly_solved": 0, "unsolved": 0, "satisfied": 1, "mostly_satisfied": 0,
                    "dissatisfied": 0}}),
        },
    ];
    for Typed { before, line, stands, says, entry, case } in table {
        // One for people, one for programs.
        let [told, programs] = [(), ()].map(|()| a_case(owner, &before));
        let done = ran(owner, &[&["case", line[0], &told], &line[1..]].concat());
        done.says(0, says);
        assert_eq!(done.out.lines().next(), Some(&*format!("{told}  {stands}  三号门")), "{}", done.out);
        let lines = shown(owner, &told)["history"].as_array().map_or(0, Vec::len);
        assert_eq!(lines, before.len() + 2, "it is one line more: {}", done.out);

        let done = ran(owner, &[&["case", line[0], &programs], &line[1..], &["--json"]].concat());
        let answer = done.says(0, &[]).json();
        holds(&answer, &json!({"schema": "citybrain.case/1", "node": COMMUNITY}));
        holds(&answer["case"], &case);
        for id in [&told, &programs] {
            let known = same_at(&tree, &[COMMUNITY, "c/s", "c"], id);
            holds(&known["case"], &case);
            let last = known["history"].as_array().and_then(|l| l.last()).expect("a line");
            holds(last, &json!({"node": COMMUNITY, "from": null}));
            holds(last, &entry);
        }
        ran(tree.node("c"), &["case", "show", &told]).says(0, says);
    }
    // Whoever watches is told of both.
    wait_for("the street's responders are called", || {
        let calls = tree.node("c/s").records().into_iter().filter(|r| r.event_type == "city.brain.case.call").count();
        (calls == 2).then_some(())
    });
}

#[test]
fn a_case_is_merged_by_hand_and_by_a_program_and_its_followers_end_as_it_does() {
    let tree = tree(&[COMMUNITY]);
    let owner = tree.node(COMMUNITY);
    let [main, typed, posted, taken_back, apart] = [(); 5].map(|()| a_case(owner, &begun()));
    let line = |from: &str, into: &str| {
        ran(owner, &["case", "merge", from, "--into", into, "--by", "甲", "--reason", "同一件"])
    };
    let done = line(&typed, &main[9..]);
    done.says(0, &[&format!("{main}: 同一件"), &format!("follows     {main}\n")]);
    assert_eq!(done.out.lines().next(), Some(&*format!("{typed}  closed (duplicate)  三号门")));
    let answer = step(owner, &posted, "merge", &json!({"by": "甲", "into": main, "text": "也是"}));
    holds(&answer["case"], &json!({"status": "closed", "closed_reason": "duplicate", "merged_into": main}));
    // Not twice, not into itself, not into what is over.
    line(&typed, &main).says(1, &["does not take `merge`"]);
    line(&apart, &apart).says(1, &["a case does not follow itself"]);
    line(&apart, &typed).says(1, &[&format!("`{typed}` is closed (duplicate)"), "both must be open"]);
    line(&apart, "20200101-nothing").says(1, &["knows no case `20200101-nothing`"]);
    ran(owner, &["case", "show", &main]).says(0, &[&format!("followers   {typed}, {posted}\n")]);
    let joined = same_at(&tree, &[COMMUNITY, "c"], &main);
    assert_eq!(joined["case"]["followers"], json!([typed, posted]));
    let lines = joined["history"].as_array().expect("a history").iter();
    let lines: Vec<(&Value, &Value)> = lines.map(|l| (&l["step"], &l["to"])).skip(3).collect();
    assert_eq!(lines, [(&json!("joined"), &json!(typed)), (&json!("joined"), &json!(posted))]);

    for (verb, ask) in closed().into_iter().skip(2) {
        step(owner, &main, verb, &ask);
    }
    for follower in [&typed, &posted] {
        wait_case(owner, "hears of the end", |c| {
            c["id"] == **follower && c["leader_ended"]["reason"] == "solved" && c["merged_into"] == *main
        });
        let known = same_at(&tree, &[COMMUNITY, "c"], follower);
        let last = known["history"].as_array().and_then(|l| l.last()).expect("a line");
        let text = format!("{main}, which it follows, is closed (solved): 已清");
        holds(last, &json!({"step": "followed", "by": "merge", "to": "solved", "text": text}));
        ran(tree.node("c"), &["case", "show", follower])
            .says(0, &[&format!("follows     {main}, which is over: solved\n")]);
    }
    // What nobody dealt with makes its follower a case of its own again.
    step(owner, &apart, "merge", &json!({"by": "甲", "into": taken_back}));
    step(owner, &taken_back, "withdraw", &json!({"by": "r", "role": "resident"}));
    wait_case(tree.node("c"), "is open again", |c| {
        c["id"] == *apart && c["status"] == "accepted" && c["merged_into"].is_null()
    });
}

#[test]
fn a_case_is_handed_to_the_tier_above_by_hand() {
    let tree = tree(&[COMMUNITY]);
    let owner = tree.node(COMMUNITY);
    let case = a_case(owner, &begun());
    let done = ran(owner, &["case", "escalate", &case, "--hand-over", "--by", "甲", "--reason", "要街道出面"]);
    done.says(0, &["c/s: 要街道出面"]);
    let known = wait_for("the street has it", || {
        let known = shown(tree.node("c/s"), &case);
        (known["case"]["owner"] == "c/s" && known["case"]["handing_to"].is_null()).then_some(known)
    });
    holds(&known["case"], &json!({"status": "dispatched", "escalations": 1, "escalated_to": "c/s"}));
    let known = same_at(&tree, &["c/s", "c", COMMUNITY], &case);
    let lines: Vec<&Value> = known["history"].as_array().expect("a history").iter().map(|l| &l["step"]).collect();
    assert_eq!(lines, ["submitted", "accepted", "dispatched", "escalated", "escalated", "taken"]);
    // It is the street's now: what is asked for here is done there.
    let done = ran(owner, &["case", "return", &case, "--by", "甲", "--reason", "x"]);
    assert!(done.code == 0 && done.out.starts_with(&format!("{case}  accepted")), "{}{}", done.out, done.err);
    assert_eq!(shown(tree.node("c/s"), &case)["case"]["owner"], "c/s", "nobody has dispatched it there");
}

#[test]
fn a_case_that_nobody_has_begun_is_called_back_by_hand_and_a_returned_one_comes_back_to_its_giver() {
    let (here, there) = (COMMUNITY, "c/s/m2");
    let mut tree = tree(&[here, there]);
    tree.wait_all_known();
    let away = |case: &str, node: &Node, line: &[&str]| {
        let done = ran(node, &[&["case", line[0], case], &line[1..]].concat());
        (done.code, done.out.lines().next().unwrap_or_default().to_owned(), done.out + &done.err)
    };
    let case = a_case(tree.node(here), &[("accept", json!({"by": "甲"}))]);
    let (code, _, err) = away(&case, tree.node(here), &["recall", "--by", "甲", "--reason", "派错了"]);
    assert!(code == 1 && err.contains("it is neither on its way to anybody nor offered"), "{err}");
    tree.stop_node("c/s");
    let (code, first, all) = away(&case, tree.node(here), &["dispatch", "--by", "甲", "--to", there]);
    assert_eq!((code, first), (0, format!("{case}  dispatched (on its way to {there})  三号门")), "{all}");
    // Nobody answers for it yet.
    let recall = ["recall", "--by", "甲", "--reason", "派错了", "--wait", "300ms"];
    let (code, _, err) = away(&case, tree.node(here), &recall);
    assert!(code == 3 && err.contains(&format!("it is on its way to {there}, which was asked")), "{code} {err}");
    tree.start_node("c/s");
    tree.wait_ready();
    wait_case(tree.node(here), "has it again", |c| {
        c["id"] == case.as_str() && c["owner"] == here && c["handing_to"].is_null() && c["term"] == 3
    });
    let known = same_at(&tree, &[here, "c"], &case);
    let lines = known["history"].as_array().expect("a history");
    let told: Vec<(&str, &str)> =
        lines.iter().map(|l| (l["step"].as_str().unwrap_or(""), l["node"].as_str().unwrap_or(""))).collect();
    let wanted = [
        ("submitted", here),
        ("accepted", here),
        ("dispatched", here),
        ("taken", there),
        ("recalled", there),
        ("taken", here),
    ];
    assert_eq!(told, wanted);
    holds(&lines[4], &json!({"by": "甲", "text": "派错了", "to": here}));
    ran(tree.node(here), &["case", "show", &case]).says(0, &["recalled", "派错了"]);

    // Given again, and begun there: it does not come back by a wish; by its new owner's word it does.
    let (code, ..) = away(&case, tree.node(here), &["dispatch", "--by", "甲", "--to", there]);
    assert_eq!(code, 0);
    wait_case(tree.node(there), "took it", |c| c["owner"] == there && c["handing_to"].is_null());
    let (code, first, all) = away(&case, tree.node(there), &["return", "--by", "小刘", "--reason", "不在我社区"]);
    assert_eq!((code, first), (0, format!("{case}  accepted (on its way to {here})  三号门")), "{all}");
    wait_case(tree.node(here), "has it again", |c| {
        c["owner"] == here && c["handing_to"].is_null() && c["returns"] == 1
    });
    let known = same_at(&tree, &[here, "c"], &case);
    let last = known["history"].as_array().map(|l| l[l.len() - 2].clone()).expect("lines");
    holds(&last, &json!({"step": "returned", "node": there, "by": "小刘", "text": "不在我社区", "to": here}));
}

#[test]
fn a_case_that_has_gone_on_where_it_was_sent_is_refused_to_whoever_calls_it_back() {
    let (here, there) = (COMMUNITY, "c/s/m2");
    let mut tree = tree(&[here, there]);
    tree.wait_all_known();
    let case = a_case(tree.node(here), &[("accept", json!({"by": "甲"}))]);
    tree.stop_node("c/s");
    ran(tree.node(here), &["case", "dispatch", &case, "--by", "甲", "--to", there]).says(0, &["on its way"]);
    // The resident's word goes after the case, and before the recall.
    let withdraw = ["case", "withdraw", &case, "--by", "r", "--role", "resident", "--wait", "0s"];
    ran(tree.node(here), &withdraw).says(0, &[&format!("it is on its way to {there}, which was asked")]);
    let line = ["case", "recall", &case, "--by", "甲", "--wait", "60s", "--node", &tree.node(here).url()];
    let line = line.map(str::to_owned);
    let recalls = std::thread::spawn(move || run(&line.each_ref().map(String::as_str)));
    wait_for("both are asked for", || (shown(tree.node(here), &case)["wishes"].as_array()?.len() == 2).then_some(()));
    tree.start_node("c/s");
    let has_gone_on = format!("`{case}` was taken and has gone on: it is withdrawn, and {there} has it");
    recalls.join().expect("it ends").says(1, &[&has_gone_on]);
    let asked = format!("asked       recall by 甲 of {there}: refused: {has_gone_on}\n");
    ran(tree.node(here), &["case", "show", &case]).says(0, &[&asked]);
}
