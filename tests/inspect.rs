//! Questions about a tree, asked with the CLI: at any node through the links, about any event, why
//! something does not move, whether the books add up, and of a stopped node's folder.

use crate::harness::brokers::{Broker, Kind};
use crate::harness::mqtt::publish_all;
use crate::harness::{Tree, binary, free_port, wait_for};
use citybrain_hub::log::{Log, Options};
use citybrain_shared::record::{self, Direction, Draft, Header, event_key};
use citybrain_shared::{Pos, Tier};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

const LEAF: &str = "c/s/m/n";
const OTHER: &str = "c/s/m/k";

/// What a command printed on both streams, and its exit code.
struct Said {
    out: String,
    err: String,
    code: i32,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {} {}", self.out, self.err))
    }

    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|l| serde_json::from_str(l).expect("a line is JSON")).collect()
    }

    fn has(&self, text: &str) -> &Said {
        assert!(self.out.contains(text), "`{text}` is not in:\n{}{}", self.out, self.err);
        self
    }

    fn code(&self, code: i32) -> &Said {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }
}

fn say(args: &[&str]) -> Said {
    let done = Command::new(binary()).args(args).env_remove("CITYBRAIN_NODE").output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { out: text(done.stdout), err: text(done.stderr), code: done.status.code().expect("it ends by itself") }
}

/// Asks the node at `address`: `args` are split at spaces.
fn ask(tree: &Tree, address: &str, args: &str) -> Said {
    let url = tree.node(address).url();
    let mut all: Vec<&str> = args.split(' ').collect();
    all.extend(["--node", &url]);
    say(&all)
}

fn tree() -> Tree {
    let mut tree = Tree::new(&[LEAF, OTHER]);
    tree.start();
    tree.wait_all_known();
    tree
}

fn post(tree: &Tree, address: &str, id: &str, more: Value) {
    let mut event = json!({"specversion": "1.0", "id": id, "source": "/x", "type": "city.test", "reach": "city"});
    event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let (status, answer) = tree.node(address).post("/v1/events", &event);
    assert_eq!(status, 202, "{answer}");
}

fn at_the_city(tree: &Tree, id: &str) {
    wait_for(&format!("{id} is at the city"), || tree.node("c").records().iter().any(|r| r.id == id).then_some(()));
}

#[test]
fn every_reading_command_reaches_any_node_below_through_the_links_alone() {
    let tree = tree();
    post(&tree, LEAF, "e1", json!({}));
    at_the_city(&tree, "e1");
    let status = ask(&tree, "c", "status --at c/s/m/n");
    status.code(0).has("c/s/m/n 节点 c_s_m_n (neighbourhood)").has("c/s/m/n, its own record, as of ");
    ask(&tree, "c", "links --at c/s").code(0).has("c/s/m").has("c/s, its own record");
    ask(&tree, "c", "show e1 --at c/s/m/n").code(0).has("\"id\": \"e1\"").has("began at c/s/m/n");
    ask(&tree, "c", "show none --at c/s/m/n").code(1);
    ask(&tree, "c", "events --at c/s/m/n --type city.test").code(0).has("city.test").has("c/s/m/n, its own record");
    ask(&tree, "c", "tree --at c/s/m").code(0).has("c/s/m ").has("  k ");
    ask(&tree, "c", "dlq list --at c/s/m/k").code(0).has("no open dead letters");
    // Only downwards, only reading, and no stream stays open.
    let upwards = ask(&tree, "c/s", "status --at c");
    assert!(upwards.err.contains("c is not below c/s"), "{}", upwards.err);
    assert_eq!(ask(&tree, "c", "events --follow --at c/s").code, 2);
    // The same road without the CLI.
    let links = tree.node("c").get("/v1/at/c/s/m/n?path=/v1/links").expect("an answer");
    assert_eq!((links["node"].as_str(), links["links"][0]["peer"].as_str()), (Some(LEAF), Some("c/s/m")));
}

#[test]
fn many_nodes_answer_one_question_and_the_missing_are_named() {
    let mut tree = tree();
    let both = ask(&tree, "c", "status --at c/**@neighbourhood");
    both.code(0).has("── c/s/m/k").has("── c/s/m/n").has("2 of 2 nodes of c/**@neighbourhood answered");
    let lines = ask(&tree, "c", "status --at c/** --json").lines();
    let schemas: Vec<&str> = lines.iter().filter_map(|l| l["schema"].as_str()).collect();
    assert_eq!(schemas.len(), 6, "five nodes and the end: {schemas:?}");
    assert_eq!((schemas[5], &lines[5]["answered"]), ("citybrain.asked/1", &json!(5)));
    tree.stop_node(OTHER);
    wait_for("one of two is missing", || {
        let said = ask(&tree, "c", "status --at c/**@neighbourhood");
        said.out.contains("1 of 2 nodes").then(|| said.has("c/s/m/k  away").has("── c/s/m/n").code(3).code)
    });
    assert_eq!(ask(&tree, "c", "status --at c/s/m/k@neighbourhood").code, 3, "nobody answered");
}

#[test]
fn a_node_that_is_cut_off_is_answered_for_by_its_parent() {
    let mut tree = tree();
    tree.stop_node(LEAF);
    let said = wait_for("the parent knows", || {
        let said = ask(&tree, "c", "status --at c/s/m/n --json");
        (said.json()["link"]["state"] == "away").then_some(said)
    });
    said.code(3);
    let known = said.json();
    assert_eq!((known["schema"].as_str(), known["node"].as_str()), (Some("citybrain.known/1"), Some("c/s/m")));
    assert!(known["link"]["last_heard_ms_ago"].as_u64().expect("an age") < 60_000);
    let plain = ask(&tree, "c", "status --at c/s/m/n");
    plain.code(3).has("away").has("c/s/m, its own record, as of ");
    assert!(plain.err.contains("c/s/m, its parent: the link is away"), "{}", plain.err);
    assert!(plain.err.contains("citybrain why c/s/m/n"), "{}", plain.err);
    // Two tiers further up somebody still says where the way ends.
    tree.stop_node("c/s/m");
    wait_for("the street knows", || {
        let said = ask(&tree, "c", "status --at c/s/m/n");
        said.err.contains("c/s, above it: the link to c/s/m, on the way, is away").then_some(())
    });
    let unknown = ask(&tree, "c", "status --at c/s/nobody");
    assert!(unknown.code == 3 && unknown.err.contains("c/s has never heard of it"), "{}", unknown.err);
    let deep = ask(&tree, "c", "tree --json");
    let deep = deep.code(3).json();
    assert_eq!(ask(&tree, "c", "tree --known").code, 0, "nobody was asked");
    let health = |address: &str| {
        let nodes = deep["nodes"].as_array().expect("a list");
        nodes.iter().find(|n| n["address"] == address).expect("it is known")["health"]
            .as_str()
            .expect("a word")
            .to_owned()
    };
    assert_eq!(health("c/s"), "well");
    assert!(health(LEAF).starts_with("no answer: "), "{}", health(LEAF));
}

#[test]
fn a_long_answer_is_cut_behind_a_whole_line_and_says_so() {
    let tree = tree();
    let sent = publish_all(LEAF, tree.node(LEAF).mqtt, "long", 2_000, false);
    tree.wait_all_up(&sent);
    let all = ask(&tree, "c", "events --at c/s/m/n --after 0 --json");
    let lines = all.code(0).lines();
    assert!(lines.len() > 300 && lines.len() < 2_000, "{} lines", lines.len());
    ask(&tree, "c", "events --at c/s/m/n --after 0").has("cut: more was there than comes over the links");
    let after = lines.last().expect("a line")["pos"].as_u64().expect("a position");
    let rest = ask(&tree, "c", &format!("events --at c/s/m/n --after {after} --limit 1 --json")).lines();
    assert_eq!(rest[0]["pos"], after + 1, "it goes on where it was cut");
}

#[test]
fn an_event_is_traced_over_four_tiers() {
    let tree = tree();
    post(&tree, LEAF, "e1", json!({}));
    at_the_city(&tree, "e1");
    let said = ask(&tree, "c", "trace e1 --json");
    let trace = said.code(0).json();
    let hops = trace["hops"].as_array().expect("hops");
    let nodes: Vec<&str> = hops.iter().filter_map(|h| h["node"].as_str()).collect();
    assert_eq!(nodes, [LEAF, "c/s/m", "c/s", "c"]);
    assert!(hops.iter().all(|h| h["state"] == "committed" && h["pos"].as_u64() > Some(0)));
    assert!(hops[1..].iter().all(|h| h["since_previous_us"].is_i64()));
    assert_eq!(trace["outcome"], "arrived");
    // What a node shows of its links is a quarter of a second old.
    wait_for("the leaf knows that it is on its parent's disk", || {
        let below = ask(&tree, LEAF, "trace e1 --source /x");
        (below.code == 0).then(|| below.has("passed-on: c/s/m has it on disk").code)
    });
    // One that goes no further than its reach has arrived there.
    post(&tree, LEAF, "near", json!({"reach": "community"}));
    wait_for("near is at the community", || {
        let said = ask(&tree, "c", "trace near");
        (said.code == 0).then(|| said.has("it is at c/s/m, as high as it goes").code)
    });
    let city = tree.node("c").url();
    ask(&tree, LEAF, &format!("trace --probe --above {city}"))
        .code(0)
        .has("city.brain.probe")
        .has("it is at c, as high as it goes");
    // One that began at the top has no hop before it.
    ask(&tree, "c", "trace --probe").code(0).has("reach city").has("arrived: it is at c, as high as it goes");
}

#[test]
fn a_trace_shows_what_an_event_caused() {
    let mut tree = Tree::new(&[LEAF]);
    let config = &tree.node(LEAF).config;
    let rule = "[[rule]]\nname = \"smoke\"\non = [\"city.test\"]\nwhen = \"true\"\n[[rule.then]]\nemit = { type = \"city.evacuate\" }\n";
    let text = std::fs::read_to_string(config).expect("the config reads");
    std::fs::write(config, format!("{text}{rule}")).expect("it is written");
    tree.start();
    post(&tree, LEAF, "smoke-1", json!({}));
    at_the_city(&tree, "smoke-1");
    ask(&tree, "c", "trace smoke-1").code(0).has("caused city.evacuate");
    // A button that is pressed again opens no second incident; what came of it is a line of the first.
    for id in ["sos-1", "sos-2"] {
        let press =
            json!({"specversion": "1.0", "id": id, "source": "/button/4", "type": "city.sos.button", "reach": "city"});
        assert_eq!(tree.node(LEAF).post("/v1/events", &press).0, 202);
        at_the_city(&tree, id);
    }
    ask(&tree, "c", "trace sos-1").code(0).has("caused city.brain.case.submitted");
    ask(&tree, "c", "trace sos-2").code(0).has("caused city.brain.case.comment");
}

#[test]
fn a_directive_is_traced_down_with_its_receipts() {
    let mut tree = tree();
    tree.stop_node(OTHER);
    wait_for("the parent knows", || ask(&tree, "c", "why c/s/m/k --json").json()["code"].eq("away").then_some(()));
    let sent = ask(&tree, "c", "send --target c/**@neighbourhood --directive command --yes --json").json();
    let id = sent["id"].as_str().expect("an id").to_owned();
    // On a busy machine a link on the way may be built anew in between, and somebody not be asked.
    let said = wait_for("one of two has it, and the other's waits", || {
        let said = ask(&tree, "c", &format!("trace {id}"));
        (said.out.contains("1 delivered") && said.out.contains("waiting at c/s/m for c/s/m/k")).then_some(said)
    });
    said.code(1).has("2 nodes expected");
    tree.start_node(OTHER);
    wait_for("both have it", || (ask(&tree, "c", &format!("trace {id}")).code == 0).then_some(()));
}

#[test]
fn an_event_that_waits_for_a_cut_link_is_traced_to_where_it_waits() {
    let mut tree = tree();
    tree.stop_node("c/s");
    post(&tree, LEAF, "stuck", json!({}));
    let said = wait_for("it waits at the community", || {
        let said = ask(&tree, "c/s/m", "trace stuck");
        said.out.contains("waiting at c/s/m for c/s since").then_some(said)
    });
    said.code(1).has("the link is connecting");
    let from_above = ask(&tree, "c", "trace stuck");
    from_above.code(3);
    assert!(from_above.err.contains("not asked: c/s (c/s has no session with its parent)"), "{}", from_above.err);
    tree.start_node("c/s");
    wait_for("it arrives", || (ask(&tree, "c", "trace stuck").code == 0).then_some(()));
}

#[test]
fn why_names_the_parent_that_is_stopped_and_the_child_that_is_gone() {
    let mut tree = tree();
    ask(&tree, "c", "why c/s/m/n").code(0).has("all is well from c to c/s/m/n").has("looked at: c, c/s");
    tree.stop_node("c/s");
    wait_for("both sides know", || {
        let below = ask(&tree, "c/s/m", "why --json").json();
        let above = ask(&tree, "c", "why c/s/m/n --json").json();
        (below["code"] == "parent-unreachable" && above["code"] == "away").then_some(())
    });
    let said = ask(&tree, "c/s/m", "why");
    said.code(1).has("c/s/m cannot reach c/s").has("is c/s running, and is parent.url right?");
    ask(&tree, "c", "why c/s/m/n").code(1).has("c/s is gone from c").has("c/s (no answer)");
    ask(&tree, "c", "why c/nobody").code(1).has("never-came").has("c has never heard of c/nobody");
}

#[test]
fn a_node_whose_outside_broker_is_away_says_so_and_why_to_whoever_asks() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let Some(mut broker) = Broker::start(Kind::Mosquitto, dir.path()) else { return };
    let mut tree = Tree::with(&["c"], &HashMap::from([("c".to_owned(), broker.port)]), "");
    tree.start();
    let node = tree.node("c");
    let is_away = |what: &str, is_so: bool| {
        wait_for(what, || (node.get("/v1/status")?["door"]["away"].is_string() == is_so).then_some(()));
        let page = node.get_text("/metrics").expect("the node answers");
        assert_eq!(page.lines().any(|l| l == "citybrain_door_open 0"), is_so, "{page}");
    };
    is_away("it is at its broker", false);
    ask(&tree, "c", "status").code(0).has(": connected, ");
    broker.kill9();
    is_away("it has noticed", true);
    wait_for("it is found wrong", || {
        (ask(&tree, "c", "why --json").json()["code"] == "broker-unreachable").then_some(())
    });
    ask(&tree, "c", "why").code(1).has("c cannot reach its broker mqtt://127.0.0.1:").has("does the broker run");
    ask(&tree, "c", "status").has(": not reached for ");
    ask(&tree, "c", "tree").has("its broker is not reached: ");
    ask(&tree, "c", "doctor").code(1).has("and not reached: ");
    broker.run();
    is_away("it is back", false);
    ask(&tree, "c", "why").code(0);
}

#[test]
fn why_names_two_nodes_with_one_address() {
    let tree = tree();
    let (mqtt, api) = (free_port(), free_port());
    let dir = tree.dir().join("clone");
    let config = tree.dir().join("clone.toml");
    let text = format!(
        "[node]\naddress = \"{LEAF}\"\ndata = \"{}\"\n[api]\nlisten = \"127.0.0.1:{api}\"\n[broker]\nlisten = \"127.0.0.1:{mqtt}\"\n[parent]\nurl = \"mqtt://127.0.0.1:{}\"\n[store]\nfree_bytes_min = 2000000\n",
        dir.display(),
        tree.node("c/s/m").mqtt
    );
    std::fs::write(&config, text).expect("the config is written");
    let mut second = Command::new(binary())
        .args(["run", "--config"])
        .arg(&config)
        .env("CITYBRAIN_STOP_WITH_STDIN", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let url = format!("http://127.0.0.1:{api}");
    let said = wait_for("the second one is refused", || {
        let said = say(&["why", "--node", &url]);
        said.out.contains("refused-duplicate").then_some(said)
    });
    said.code(1).has("c/s/m refuses c/s/m/n (duplicate)").has("two nodes use this address");
    let above = wait_for("the parent says so too", || {
        let said = ask(&tree, "c", "why c/s/m/n");
        said.out.contains("refused-another").then_some(said)
    });
    above.code(0).has("another node with its address was turned away");
    second.kill().expect("it can be killed");
    second.wait().expect("it ends");
}

#[test]
fn an_audit_adds_up_while_a_link_is_cut_and_finds_what_was_lost_in_silence() {
    let mut tree = tree();
    let mut sent = publish_all(LEAF, tree.node(LEAF).mqtt, "a", 300, false);
    tree.wait_all_up(&sent);
    let clean = ask(&tree, "c", "audit --json");
    let audit = clean.code(0).json();
    assert_eq!((audit["adds_up"].as_bool(), audit["links"].as_array().map(Vec::len)), (Some(true), Some(4)));
    assert!(audit["totals"]["accepted"].as_u64() > Some(900), "300 events over 3 links, and more: {audit}");
    assert_eq!(audit["totals"]["accepted"], audit["totals"]["above"]);

    // What waits is not missing; a link that nobody can ask about is named.
    tree.stop_node("c/s");
    sent.extend(publish_all(LEAF, tree.node(LEAF).mqtt, "b", 50, true));
    let waits = ask(&tree, "c/s/m", "audit");
    waits.code(0).has("it adds up");
    let ledger = tree.node("c/s/m").get("/v1/ledger").expect("an answer");
    let rows = ledger["rows"].as_array().expect("rows");
    assert!(rows.iter().any(|r| r["origin"] == LEAF && !r["waiting"].as_array().expect("runs").is_empty()), "{ledger}");
    // Its own link counts too, by what its parent has acknowledged; at a leaf there is no other.
    let own = |node: &str| {
        let audit = ask(&tree, node, "audit --json").code(0).json();
        let link =
            audit["links"].as_array().expect("links").iter().find(|l| l["child"] == node).expect("its own").clone();
        let sums = |name: &str| link["sums"][name].as_u64().expect("a number");
        assert_eq!(sums("accepted"), sums("above") + sums("waiting"), "{link}");
        (sums("waiting"), link["parent"].as_str().map(str::to_owned))
    };
    wait_for("the community holds all that waits", || (own("c/s/m").0 >= 50).then_some(()));
    wait_for("the leaf has heard so", || (own(LEAF) == (0, Some("c/s/m".into()))).then_some(()));
    tree.stop_node("c/s/m");
    sent.extend(publish_all(LEAF, tree.node(LEAF).mqtt, "l", 20, true));
    ask(&tree, LEAF, "audit").code(0).has("by its own books").has("it adds up");
    let own_at_leaf = ask(&tree, LEAF, "audit --json").code(0).json();
    assert!(own_at_leaf["links"][0]["sums"]["waiting"].as_u64() >= Some(20), "{own_at_leaf}");
    tree.start_node("c/s/m");
    wait_for("the city cannot ask", || (ask(&tree, "c", "audit").code == 3).then_some(()));
    tree.start_node("c/s");
    tree.wait_all_up(&sent);
    wait_for("it adds up again", || (ask(&tree, "c", "audit").code == 0).then_some(()));

    // A number that the leaf gave and nobody has: as if a record had vanished from its log.
    tree.stop_node(LEAF);
    let number = skip_a_number(&tree.node(LEAF).data);
    tree.start_node(LEAF);
    at_the_city(&tree, "planted");
    let said = wait_for("the loss is found", || {
        let said = ask(&tree, "c", "audit --json");
        (said.code == 1).then_some(said)
    });
    let audit = said.json();
    assert_eq!((&audit["totals"]["missing"], &audit["adds_up"]), (&json!(1), &json!(false)), "{audit}");
    let link = &audit["links"][0];
    assert_eq!((&link["child"], &link["parent"]), (&json!(LEAF), &json!("c/s/m")));
    let gap = &link["gaps"][0];
    assert_eq!(gap["origin"], LEAF);
    assert_eq!((&gap["priority"], &gap["reach"], &gap["first"]), (&json!("routine"), &json!("city"), &json!(number)));
    ask(&tree, "c", "audit")
        .code(1)
        .has(&format!("missing at c/s/m: number {number} of c/s/m/n"))
        .has("it does not add up");
}

#[test]
fn an_audit_accounts_for_every_directive_and_finds_one_that_vanished_below() {
    let mut tree = tree();
    let send = |tree: &Tree, target: &str| {
        let line = format!("send --target {target} --type city.notice --yes --json");
        ask(tree, "c", &line).json()["id"].as_str().expect("an id").to_owned()
    };
    send(&tree, "c/**@neighbourhood");
    let down = |tree: &Tree, want: Value| {
        wait_for(&format!("what goes down adds up to {want}"), || {
            let audit = ask(tree, "c", "audit --json").json();
            (audit["down"] == want).then_some(audit)
        })
    };
    let sums = |sent: u64, held: u64, waiting: u64, missing: u64| {
        json!({"sent": sent, "held": held, "waiting": waiting, "parked": 0, "refused": 0, "lost": 0, "not_kept": 0,
            "missing": missing})
    };
    // Over four links: to the street, the community and two neighbourhoods. Each got two words of its
    // parent's that nobody was there before it, and the two calls of the roll of each above it but the city.
    let own = 4 * 2 + 2 + 2 * 4;
    down(&tree, sums(own + 4, own + 4, 0, 0));
    ask(&tree, "c", "audit").code(0).has("DOWN TO").has("  n ").has("NOT KEPT").has("it adds up");
    // Of a box that is away nothing is said.
    tree.stop_node(OTHER);
    let second = send(&tree, "c/**@neighbourhood");
    wait_for("the other one has it", || {
        let said = ask(&tree, "c/s/m", "audit --json");
        (said.code == 3 && said.json()["down"] == sums(6 + 2, 6 + 2, 0, 0)).then_some(())
    });
    tree.start_node(OTHER);
    tree.wait_ready();
    tree.wait_linked();
    down(&tree, sums(own + 8, own + 8, 0, 0));

    // The leaf's log loses its last record in silence, as a disk does that lied about its fsync.
    tree.stop_node(LEAF);
    rename_an_event(&tree.node(LEAF).data, &second);
    tree.start_node(LEAF);
    tree.wait_ready();
    tree.wait_linked();
    // Its log has another name now, under which its first question came and was answered again.
    let audit = down(&tree, sums(own + 10, own + 9, 0, 1));
    assert_eq!(audit["adds_up"], false, "{audit}");
    let link = &audit["links"][0];
    assert_eq!((&link["child"], &link["down_missing"][0]["id"]), (&json!(LEAF), &json!(second)), "{audit}");
    ask(&tree, "c", "audit").code(1).has(&format!("missing at c/s/m/n: city.notice {second}")).has("does not add up");
}

/// Writes a stopped node's log anew, with another id in the event that has this one: as if that had
/// never come in.
fn rename_an_event(data: &Path, id: &str) {
    let folder = data.join("log");
    let mut records = Vec::new();
    {
        let (reader, _) = citybrain_hub::log::open_read_only(&folder).expect("it has stopped");
        let mut after = Pos::ZERO;
        while after < reader.last() {
            let entries = reader.read(after, None, 1000, 1 << 20).expect("the log reads");
            after = entries.last().expect("there is more").pos;
            records.extend(entries.into_iter().map(|e| e.bytes.to_vec()));
        }
    }
    let mut renamed = 0;
    for record in &mut records {
        let (header, payload) = Header::decode(record).expect("a record");
        let is_it = header.kind.is_event() && header.direction == Direction::Down;
        if is_it && String::from_utf8_lossy(payload).contains(&format!("\"id\":\"{id}\"")) {
            let header = Header { key: header.key ^ 1, ..header };
            let (committed_us, seq) = (header.committed_us, header.seq);
            let mut draft = Draft::new(&header, payload).expect("it fits");
            draft.stamp(committed_us, seq);
            let bytes = draft.bytes().to_vec();
            *record = bytes;
            renamed += 1;
        }
    }
    assert_eq!(renamed, 1, "the event is there once");
    std::fs::remove_dir_all(&folder).expect("the log is removed");
    std::fs::remove_dir_all(data.join("state")).expect("the state is removed");
    let mut log = Log::open(&folder, Options::default()).expect("it is begun").log;
    for record in &records {
        log.append([record.as_slice()]);
    }
    log.commit().expect("it is written");
}

/// Appends an event to a stopped node's log whose number leaves one out; gives the one left out.
pub fn skip_a_number(data: &Path) -> u64 {
    let mut log = Log::open(&data.join("log"), Options::default()).expect("it has stopped").log;
    let mut newest = 0;
    let mut after = Pos::ZERO;
    while after < log.last() {
        let entries = log.reader().read(after, None, 1000, 1 << 20).expect("the log reads");
        after = entries.last().expect("there is more").pos;
        for entry in &entries {
            let (h, _) = Header::decode(&entry.bytes).expect("a record");
            let is_of = h.origin.is_none() && h.direction == Direction::Up && h.reach == Tier::City;
            if is_of && h.lane.as_str() == "routine" {
                newest = h.seq;
            }
        }
    }
    let header = Header {
        direction: Direction::Up,
        reach: Tier::City,
        key: event_key("/x", "planted"),
        ..Header::local(record::Kind::Event, "city.test")
    };
    let event = br#"{"specversion":"1.0","id":"planted","source":"/x","type":"city.test"}"#;
    let mut draft = Draft::new(&header, event).expect("it fits");
    draft.stamp(1_800_000_000_000_000, newest + 2);
    log.append([draft.bytes()]);
    log.commit().expect("it is written");
    newest + 1
}

#[test]
fn a_stopped_nodes_folder_answers_and_a_running_ones_is_left_alone() {
    let mut tree = tree();
    post(&tree, LEAF, "e1", json!({}));
    post(&tree, LEAF, "e2", json!({"governance": "autonomy"}));
    at_the_city(&tree, "e2");
    let dir = tree.node("c/s/m").data.display().to_string();
    let running = say(&["status", "--offline", &dir]);
    running.code(1);
    assert!(running.err.contains("a node is running on"), "{}", running.err);
    tree.kill9("c/s/m");
    let before = files(&tree.node("c/s/m").data);
    let status = say(&["status", "--offline", &dir]);
    status.code(1).has("c/s/m 节点 c_s_m (community)").has("the node is stopped; its last record is of ");
    status.has("c/s/m, offline, from its folder, as of ");
    say(&["events", "--offline", &dir, "--type", "city.test"]).code(0).has("c/s/m/n").has("offline, from its folder");
    say(&["show", "e1", "--offline", &dir]).code(0).has("\"id\": \"e1\"");
    say(&["show", "e1", "--source", "/x", "--offline", &dir]).code(0).has("\"id\": \"e1\"");
    say(&["dlq", "list", "--offline", &dir]).code(0).has("no open dead letters");
    say(&["tree", "--offline", &dir]).code(0).has("节点 c_s_m_n");
    let json = say(&["status", "--offline", &dir, "--json"]).json();
    assert_eq!((&json["offline"], &json["node"]), (&json!(true), &json!("c/s/m")));
    assert_eq!(files(&tree.node("c/s/m").data), before, "nothing was written");
    // What a folder does not hold is not made up from defaults, and a look writes nothing.
    let changed = || std::fs::metadata(&dir).and_then(|m| m.modified()).expect("the folder is there");
    let before = changed();
    let doctor = say(&["doctor", "--offline", &dir]);
    doctor.code(0).has("does not hold its config").has("log-damage");
    assert!(!doctor.out.contains("disk-fsync") && !doctor.out.contains("broker-kind"), "{}", doctor.out);
    assert_eq!(changed(), before, "a folder is only read");
    say(&["why", "--offline", &dir]).code(1).has("stopped").has("c/s/m is stopped; its last record is of ");
    let ran = say(&["config", "show", "--offline", &dir]);
    ran.code(1);
    assert!(ran.err.contains("does not hold its config"), "{}", ran.err);
    say(&["audit", "--offline", &dir]).code(3).has("its folder asks nobody");
    assert_eq!(say(&["status", "--offline", "/nowhere"]).code, 2);
    tree.start_node("c/s/m");
    tree.wait_ready();
}

/// Names and sizes of all files below.
fn files(dir: &std::path::Path) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for item in std::fs::read_dir(dir).expect("a folder").flatten() {
            let about = item.metadata().expect("it is there");
            match about.is_dir() {
                true => open.push(item.path()),
                false => all.push((item.path().display().to_string(), about.len())),
            }
        }
    }
    all.sort();
    all
}

#[test]
fn events_are_filtered_by_where_they_began_when_and_how_governed() {
    let tree = tree();
    post(&tree, LEAF, "n1", json!({"governance": "party"}));
    post(&tree, OTHER, "k1", json!({}));
    at_the_city(&tree, "n1");
    at_the_city(&tree, "k1");
    let ids = |args: &str| -> Vec<String> {
        let said = ask(&tree, "c", &format!("events --type city.test --json {args}"));
        said.code(0).lines().iter().map(|l| l["event"]["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids("--origin c/s/m/n"), ["n1"]);
    assert_eq!(ids("--origin c/s/*").len(), 2);
    assert_eq!(ids("--governance party"), ["n1"]);
    assert_eq!(ids("--time-after 1h").len(), 2);
    assert!(ids("--time-before 1h").is_empty() && ids("--time-after 2200-01-01T00:00:00Z").is_empty());
    assert_eq!(ask(&tree, "c", "events --time-after yesterday").code, 2);
}
