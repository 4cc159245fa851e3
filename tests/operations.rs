//! The questions of `docs/operations.md`: each fault is made, the command asked, and its answer
//! compared with the one on the page.

use crate::harness::certs::Ca;
use crate::harness::mqtt::{Client, publish_all};
use crate::harness::page::{self, answers};
use crate::harness::ran::run;
use crate::harness::{Signal, Tree, add_user, clock_ahead, free_port, wait_for, written_bytes};
use citybrain_hub::log::{Log, Options};
use citybrain_shared::record::{Direction, Draft, Header, Kind, Origin, event_key};
use citybrain_shared::{LogId, Pos, Tier};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

const CITY: &str = "chengdu";
const STREET: &str = "chengdu/liucheng";
const COMMUNITY: &str = "chengdu/liucheng/guanghua";
const GATE: &str = "chengdu/liucheng/guanghua/xuefu-yuan";
const OTHER_GATE: &str = "chengdu/liucheng/guanghua/shili";

fn started(addresses: &[&str]) -> Tree {
    let mut tree = Tree::new(addresses);
    tree.start();
    tree.wait_all_known();
    tree.wait_quiet();
    tree
}

fn post(tree: &Tree, at: &str, id: &str) {
    let event =
        json!({"specversion": "1.0", "id": id, "source": "/lamp/7", "type": "city.lamp.failed", "reach": "city"});
    let (status, answer) = tree.node(at).post("/v1/events", &event);
    assert_eq!(status, 202, "{answer}");
}

fn wait_at(tree: &Tree, at: &str, id: &str) {
    wait_for(&format!("{id} is at {at}"), || tree.node(at).records().iter().any(|r| r.id == id).then_some(()));
}

/// Puts lines at a file's front, where keys of no table stand, or replaces text in it.
fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).expect("the config reads");
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).expect("it is written");
}

#[test]
fn every_question_on_the_page_is_asked_here() {
    let page = std::fs::read_to_string(page::path()).expect("the page is there");
    let questions: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("### ")).collect();
    assert!(questions.len() >= 20, "{}", questions.len());
    for question in questions {
        assert!(include_str!("operations.rs").contains(&format!("\"{question}\"")), "nobody asks `{question}`");
    }
}

#[test]
fn a_stuck_event_a_silent_street_and_what_may_be_restarted() {
    let mut tree = started(&[GATE]);
    tree.kill9(STREET);
    post(&tree, GATE, "lamp-7-failed");
    wait_at(&tree, COMMUNITY, "lamp-7-failed");
    let waits = "waiting at chengdu/liucheng/guanghua for chengdu/liucheng";
    // What a first try finds stays the reason from then on.
    let why = "Connection refused";
    answers(&tree, COMMUNITY, "Where is my event?", "citybrain trace lamp-7-failed", 1, &[waits, why]);
    let gone = format!("citybrain why {GATE}");
    answers(&tree, CITY, "Why is a street silent?", &gone, 1, &["away", "chengdu/liucheng is gone from chengdu"]);
    let words = ["parent-unreachable", "is chengdu/liucheng running", why];
    answers(&tree, COMMUNITY, "Why does this node not reach its parent?", "citybrain why", 1, &words);
    let words = ["chengdu/liucheng", "UNSENT", "connecting", why];
    answers(&tree, COMMUNITY, "How far behind is it, and may I restart it?", "citybrain links", 0, &words);
}

#[test]
fn a_reading_that_was_sent_twice_is_there_once() {
    let tree = started(&[STREET]);
    let mut meter = Client::connect(tree.node(STREET).mqtt, "meter", true);
    let event = json!({"specversion": "1.0", "id": "water-12-0700", "source": "/meter/12", "type": "city.meter.reading",
        "reach": "city", "data": {"m3": 1207}});
    for _ in 0..2 {
        assert!(meter.publish("in/meter/12", event.to_string().as_bytes()));
    }
    wait_at(&tree, CITY, "water-12-0700");
    let line = "citybrain events --type city.meter.reading";
    answers(&tree, CITY, "Was a reading counted twice?", line, 0, &["{\"m3\":1207}"]);
    let told = run(&["events", "--type", "city.meter.reading", "--json", "--node", &tree.node(CITY).url()]);
    assert_eq!(told.out.lines().count(), 1, "{}", told.out);
}

/// A small disk of its own; gone with this.
struct Disk<'a>(&'a Path);

impl Disk<'_> {
    /// `None` where the kernel does not let us: that needs root.
    fn mount(at: &Path) -> Option<Disk<'_>> {
        std::fs::create_dir_all(at).expect("the folder is made");
        let done = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "none"]).arg(at).output();
        done.is_ok_and(|d| d.status.success()).then_some(Disk(at))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_what_waits_goes_on_when_there_is_room() {
    let mut tree = Tree::new(&[STREET]);
    let data = tree.node(STREET).data.clone();
    let Some(_disk) = Disk::mount(&data) else {
        crate::harness::impossible("a disk can be mounted by root only");
        return;
    };
    tree.start();
    tree.wait_all_known();
    let filler = data.join("somebody-elses-file");
    let mut file = std::fs::File::create(&filler).expect("a file is made");
    let url = tree.node(STREET).url();
    let event = json!({"specversion": "1.0", "id": "x", "source": "/x", "type": "t", "data": "x".repeat(100_000)});
    // Twice: the node gives up a file of its own that it kept for this, and the other program takes that, too.
    for _ in 0..2 {
        while file.write_all(&[7; 65536]).is_ok() {}
        wait_for("it takes nothing", || (tree.node(STREET).post("/v1/events", &event).0 == 503).then_some(()));
    }
    let words = ["disk-low", "takes nothing", "it goes on by itself"];
    answers(&tree, STREET, "Why does this node take nothing?", "citybrain why", 1, &words);
    drop(file);
    std::fs::remove_file(&filler).expect("it is removed");
    wait_for("it goes on", || tree.node(STREET).get_text("/readyz"));
    run(&["why", "--node", &url]).says(0, &["well"]);
    tree.stop_node(STREET);
}

#[test]
fn a_cloned_box_and_a_box_at_a_wrong_parent_are_turned_away_by_name() {
    let mut tree = started(&[COMMUNITY, "chengdu/wuhou"]);
    tree.stop_node(COMMUNITY);
    let data = tree.node(COMMUNITY).data.clone();
    let twin = tree.lay_twin(COMMUNITY, Some(&data));
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    tree.wait_linked();
    tree.start_node(&twin);
    let words = ["refused-duplicate", "a copy of this data folder", "two nodes use this address"];
    answers(&tree, &twin, "Are two boxes using one address?", "citybrain why", 1, &words);
    tree.stop_node(&twin);

    // Plugged in at another street, with the address that it had.
    tree.stop_node(COMMUNITY);
    let (right, wrong) = (tree.node(STREET).mqtt, tree.node("chengdu/wuhou").mqtt);
    edit(&tree.node(COMMUNITY).config, &format!("mqtt://127.0.0.1:{right}"), &format!("mqtt://127.0.0.1:{wrong}"));
    tree.start_node(COMMUNITY);
    tree.wait_ready();
    let question = "A box was moved to another street: why does nothing come from it?";
    answers(&tree, COMMUNITY, question, "citybrain why", 1, &["refused-wrong-parent", "node.address and parent.url"]);
}

#[test]
fn a_copy_of_a_running_box_looks_like_its_restart_and_the_older_one_says_so_and_comes_back() {
    let mut tree = Tree::with(&[COMMUNITY], &Default::default(), "[link]\nkeep_alive_s = 1\n");
    tree.start();
    tree.wait_all_known();
    tree.wait_quiet();
    let data = tree.node(COMMUNITY).data.clone();
    let twin = tree.lay_twin(COMMUNITY, Some(&data));
    tree.start_node(&twin);
    // One start later, to its parent it is the same box come again. The first one learns of it by itself.
    let (first, second) = (tree.node(COMMUNITY).url(), tree.node(&twin).url());
    wait_for("the older one is told", || {
        let said = run(&["why", "--node", &first]);
        said.out.contains("refused-stale").then(|| said.says(1, &["if that one is a copy of its disk"]).code)
    });
    run(&["why", "--node", &second]).says(0, &["well"]);
    tree.stop_node(&twin);
    let street = tree.node(STREET).url();
    wait_for("it is taken again", || {
        let links = run(&["links", "--json", "--node", &street]).json();
        let is_up = |l: &Value| l["role"] == "down" && l["state"] == "up";
        links["links"].as_array()?.iter().any(is_up).then_some(())
    });
    post(&tree, COMMUNITY, "after");
    wait_at(&tree, CITY, "after");
}

#[test]
fn a_restored_backup_adds_up() {
    let mut tree = started(&[STREET]);
    let mut sent = publish_all(STREET, tree.node(STREET).mqtt, "before", 50, false);
    tree.wait_all_up(&sent);
    let (data, backup) = (tree.node(STREET).data.clone(), tree.dir().join("backup"));
    let folder = |p: &Path| p.to_str().expect("UTF-8").to_owned();
    run(&["store", "snapshot", &folder(&data), &folder(&backup)]).says(0, &[]);
    sent.extend(publish_all(STREET, tree.node(STREET).mqtt, "between", 30, false));
    tree.wait_all_up(&sent);
    tree.stop_node(STREET);
    let asked = run(&["store", "restore", &folder(&backup), &folder(&data)]);
    asked.says(2, &["nothing was done", "Puts the backup of", ". What is in"]);
    run(&["store", "restore", &folder(&backup), &folder(&data), "--yes"]).says(0, &[]);
    tree.start_node(STREET);
    tree.wait_ready();
    tree.wait_linked();
    sent.extend(publish_all(STREET, tree.node(STREET).mqtt, "after", 20, false));
    sent.iter().for_each(|s| wait_at(&tree, CITY, &s.id));
    let question = "A node was restored from a backup: is everything there?";
    answers(&tree, CITY, question, "citybrain audit", 0, &["it adds up"]);
}

#[test]
fn a_dead_box_is_replaced_by_a_new_one() {
    let mut tree = started(&[STREET]);
    let mut sent = publish_all(STREET, tree.node(STREET).mqtt, "old", 20, false);
    tree.wait_all_up(&sent);
    tree.kill9(STREET);
    tree.lose_disk(STREET);
    tree.start_node(STREET);
    tree.wait_ready();
    tree.wait_linked();
    sent.extend(publish_all(STREET, tree.node(STREET).mqtt, "new", 10, false));
    sent.iter().for_each(|s| wait_at(&tree, CITY, &s.id));
    let question = "A dead box was replaced by a new one: is it taken?";
    answers(&tree, CITY, question, "citybrain links", 0, &["chengdu", "up"]);
    run(&["audit", "--node", &tree.node(CITY).url()]).says(0, &["it adds up"]);
}

#[test]
fn a_clock_that_is_wrong_by_a_year_is_named_and_stops_nothing() {
    let Some(clock) = clock_ahead("+365d") else { return };
    let mut tree = Tree::new(&[STREET]);
    tree.node_mut(STREET).env = clock;
    tree.start();
    tree.wait_all_known();
    let sent = publish_all(STREET, tree.node(STREET).mqtt, "e", 20, false);
    tree.wait_all_up(&sent);
    let line = format!("citybrain why {STREET}");
    answers(&tree, CITY, "Is a clock wrong?", &line, 0, &["clock-off", "the clock of chengdu/liucheng is", "ahead"]);
}

#[test]
fn what_was_refused_is_kept_from_devices_as_from_children() {
    let mut tree = started(&[STREET]);
    let mut device = Client::connect(tree.node(STREET).mqtt, "lamp-9", true);
    assert!(device.publish("in/lamp/9", b"{\"lux\": 0"));
    let question = "What did a device send that was refused?";
    answers(&tree, STREET, question, "citybrain dlq list", 0, &["mqtt:lamp-9", "in/lamp/9"]);

    // A record in the street's log that says it began elsewhere.
    tree.stop_node(STREET);
    let mut log = Log::open(&tree.node(STREET).data.join("log"), Options::default()).expect("it has stopped").log;
    let header = Header {
        direction: Direction::Up,
        reach: Tier::City,
        key: event_key("/x", "stray"),
        origin: Some(Origin { address: "chengdu/wuhou", log: LogId(7), pos: Pos(1) }),
        ..Header::local(Kind::Event, "city.lamp.failed")
    };
    let event = br#"{"specversion":"1.0","id":"stray","source":"/x","type":"city.lamp.failed"}"#;
    let mut draft = Draft::new(&header, event).expect("it fits");
    draft.stamp(1_800_000_000_000_000, 1);
    log.append([draft.bytes()]);
    log.commit().expect("it is written");
    drop(log);
    tree.start_node(STREET);
    tree.wait_ready();
    tree.wait_linked();
    let question = "Which record does a parent refuse to take?";
    let line = "citybrain dlq list --reason foreign";
    answers(&tree, CITY, question, line, 0, &["foreign", "link:chengdu/liucheng"]);
    // It is set aside, and what comes behind it is not stopped.
    post(&tree, STREET, "behind");
    wait_at(&tree, CITY, "behind");
}

#[test]
fn a_password_that_is_wrong_is_said_on_both_sides() {
    let mut tree = Tree::new(&[STREET]);
    let users = tree.dir().join("users");
    add_user(&users, "liucheng", "right", Some(STREET));
    std::fs::write(tree.dir().join("password"), "wrong\n").expect("it is written");
    edit(&tree.node(CITY).config, "[node]\n", "[access]\nanonymous = false\nusers_file = \"users\"\n\n[node]\n");
    edit(&tree.node(STREET).config, "[parent]\n", "[parent]\nusername = \"liucheng\"\npassword_file = \"password\"\n");
    tree.start_node(CITY);
    tree.start_node(STREET);
    tree.wait_ready();
    let question = "Is the password at the parent's broker right?";
    answers(
        &tree,
        STREET,
        question,
        "citybrain why",
        1,
        &["login-refused", "BadUserNamePassword", "citybrain user list"],
    );
    let line = "citybrain why chengdu/liucheng";
    let question = "Whom does a parent not let in?";
    answers(&tree, CITY, question, line, 1, &["login-refused", "account liucheng", "the last from 127.0.0.1"]);
    let doctor = run(&["doctor", "--node", &tree.node(CITY).url()]);
    assert!(doctor.out.contains("refused-logins"), "{}", doctor.out);
    // Read again at the next try.
    std::fs::write(tree.dir().join("password"), "right\n").expect("it is written");
    tree.wait_linked();
}

#[test]
fn a_certificate_that_is_over_is_said_on_both_sides() {
    let mut tree = Tree::new(&[STREET]);
    let ca = Ca::new(tree.dir(), "ca");
    ca.issue_until("city", "localhost", 2020);
    let door = free_port();
    let listener = format!(
        "[[listener]]\nlisten = \"127.0.0.1:{door}\"\nprotocol = \"mqtts\"\ncert_file = \"city.pem\"\nkey_file = \"city-key.pem\"\n\n[node]\n"
    );
    edit(&tree.node(CITY).config, "[node]\n", &listener);
    let plain = format!("url = \"mqtt://127.0.0.1:{}\"", tree.node(CITY).mqtt);
    edit(&tree.node(STREET).config, &plain, &format!("url = \"mqtts://localhost:{door}\"\nca_file = \"ca.pem\""));
    tree.start_node(CITY);
    tree.start_node(STREET);
    tree.wait_ready();
    let question = "Has a certificate expired?";
    answers(&tree, STREET, question, "citybrain why", 1, &["certificate", "certificate expired", "citybrain doctor"]);
    let line = "citybrain doctor | grep certificates";
    answers(
        &tree,
        CITY,
        "How long are the certificates good?",
        line,
        1,
        &["BAD", "listener.0.cert_file ended at 2020"],
    );
}

#[test]
fn who_has_a_notice_and_which_versions_run() {
    let mut tree = started(&[GATE, OTHER_GATE]);
    let versions = "citybrain version --at chengdu/**@community";
    answers(&tree, CITY, "Which versions run below?", versions, 0, &["1 of 1 nodes", "citybrain 0."]);
    tree.stop_node(OTHER_GATE);
    let target = "chengdu/**@neighbourhood";
    let url = tree.node(CITY).url();
    let sent = run(&["send", "--target", target, "--type", "city.notice", "--yes", "--json", "--node", &url]).json();
    let id = sent["id"].as_str().expect("an id");
    let line = format!("citybrain directives show {id}");
    let words = ["2 nodes expected: 1 delivered", "1 silent"];
    answers(&tree, CITY, "Has everybody got the notice?", &line, 0, &words);
    let words = ["well", "no answer: chengdu/liucheng/guanghua/shili has no session with its parent"];
    answers(&tree, CITY, "Who of all is not well?", "citybrain tree", 3, &words);
}

#[test]
fn damage_in_a_folder_a_torn_end_and_a_lost_state_are_told() {
    let mut tree = started(&[STREET]);
    let data = tree.node(STREET).data.clone();
    for prefix in ["a", "b", "c"] {
        publish_all(STREET, tree.node(STREET).mqtt, prefix, 50, false);
    }
    tree.kill9(STREET);
    let log = data.join("log").join(format!("{:020}.log", 1));
    let mut file = std::fs::File::options().append(true).open(&log).expect("the log opens");
    file.write_all(b"half a record that a power cut left").expect("it is written");
    std::fs::remove_dir_all(data.join("state")).expect("the state is removed");
    let config = tree.node(STREET).config.file_name().expect("a name").to_string_lossy().into_owned();
    let line = format!("citybrain status --offline /var/lib/citybrain/{}", config.trim_end_matches(".toml"));
    answers(&tree, STREET, "What is in the folder of a stopped node?", &line, 1, &["the node is stopped", "offline"]);
    tree.start_node(STREET);
    tree.wait_ready();
    let question = "Was the last stop a clean one?";
    answers(&tree, STREET, question, "citybrain doctor | grep log-torn", i32::from(bad(&tree)), &["not clean"]);
    let question = "Did the node lose its state?";
    answers(&tree, STREET, question, "citybrain doctor | grep state-rebuilt", i32::from(bad(&tree)), &["warn"]);
    tree.stop_node(STREET);

    let mut bytes = std::fs::read(&log).expect("the log reads");
    let at = written_bytes(&log) / 4;
    bytes[at] ^= 0xff;
    std::fs::write(&log, bytes).expect("it is written");
    let line = format!("citybrain store verify /var/lib/citybrain/{}", config.trim_end_matches(".toml"));
    answers(&tree, STREET, "Is this folder damaged?", &line, 1, &["records"]);
}

/// Whether `doctor` finds this machine itself bad (a folder on tmpfs), whatever the question was.
fn bad(tree: &Tree) -> bool {
    tree.node(STREET).get("/v1/doctor").is_some_and(|d| d["ok"] == Value::Bool(false))
}

#[test]
fn a_flood_from_one_sensor_is_named() {
    let tree = started(&[GATE]);
    let gate = tree.node(GATE).mqtt;
    let mut sensor = Client::connect(gate, "noise-3", true);
    for n in 0..3_000 {
        let event = json!({"specversion": "1.0", "id": n.to_string(), "source": "/noise/3", "type": "city.noise.level",
            "reach": "city", "data": {"db": 61}});
        sensor.publish_later("in/noise/3", event.to_string().as_bytes());
        if n % 100 == 99 {
            sensor.wait_acknowledged();
        }
    }
    let mut lamp = Client::connect(gate, "lamp-7", true);
    for n in 0..5 {
        let event = json!({"specversion": "1.0", "id": n.to_string(), "source": "/lamp/7", "type": "city.lamp.failed",
            "reach": "city"});
        assert!(lamp.publish("in/lamp/7", event.to_string().as_bytes()));
    }
    wait_for("all is at the city", || {
        (tree.node(CITY).records().iter().filter(|r| r.source == "/lamp/7").count() == 5).then_some(())
    });
    let question = "Who floods the tree?";
    let line = "citybrain events --by source --type city.* --limit 2";
    answers(&tree, CITY, question, line, 0, &["/noise/3", "/lamp/7", "PER SECOND"]);
}

#[test]
fn a_new_box_that_waits_is_named_with_what_lets_it_in() {
    let mut tree = Tree::new(&[STREET]);
    edit(&tree.node(CITY).config, "[node]\n", "[link]\nenrol = \"manual\"\n\n[node]\n");
    tree.start_node(CITY);
    tree.start_node(STREET);
    tree.wait_ready();
    let line = format!("citybrain why {STREET}");
    let words = ["refused-unenrolled", "comes for the first time", "citybrain enrol approve"];
    answers(&tree, CITY, "A new box is there: why does nothing come from it?", &line, 1, &words);
    let url = tree.node(CITY).url();
    run(&["enrol", "approve", STREET, "--yes", "--node", &url]).says(0, &["is let in"]);
    tree.wait_linked();
}

#[test]
fn a_child_that_takes_nothing_is_named_with_what_waits_for_it() {
    // A long keep-alive: the link must not break before the question is asked.
    let mut tree = Tree::with(&[STREET], &Default::default(), "[link]\nkeep_alive_s = 600\n");
    tree.start();
    tree.wait_all_known();
    tree.wait_quiet();
    // As if its disk had no end of a write: the process is there, its connection too, and it does nothing.
    tree.node(STREET).signal(Signal::STOP);
    let city = tree.node(CITY).url();
    // Each a commit and a frame of its own, more than may be under way.
    for _ in 0..12 {
        run(&["send", "--target", STREET, "--type", "city.notice", "--yes", "--node", &city]).says(0, &[]);
    }
    let line = format!("citybrain why {STREET}");
    let words = ["takes-nothing", "records waiting for it: 12", "frames were not acknowledged in time"];
    answers(&tree, CITY, "Why does a child lag behind?", &line, 1, &words);
    let words = ["hello", "12"];
    answers(&tree, CITY, "What waits for a slow child?", "citybrain links", 0, &words);
    tree.node(STREET).signal(Signal::CONT);
    wait_for("it has them all", || {
        let had = tree.node(STREET).records().iter().filter(|r| r.event_type == "city.notice").count();
        (had == 12).then_some(())
    });
}

#[test]
fn a_silent_loss_is_found() {
    let mut tree = started(&[GATE]);
    tree.stop_node(GATE);
    crate::inspect::skip_a_number(&tree.node(GATE).data);
    tree.start_node(GATE);
    wait_at(&tree, CITY, "planted");
    let question = "Did anything get lost without a word?";
    answers(&tree, CITY, question, "citybrain audit", 1, &["missing at chengdu/liucheng/guanghua", "does not add up"]);
}

#[test]
fn what_was_changed_by_whom_and_does_the_file_say_what_runs() {
    let tree = started(&[STREET]);
    let url = tree.node(STREET).url();
    run(&["log-level", "debug", "--yes", "--node", &url]).says(0, &[]);
    let line = "citybrain events --type city.brain.operator --json";
    answers(&tree, STREET, "Who changed something here?", line, 0, &["anna@liucheng", "log-level"]);
    let config = &tree.node(STREET).config;
    let doctor = || run(&["doctor", "--node", &url]);
    doctor().says(0, &["no problems"]);
    edit(config, "free_bytes_min = 2000000", "free_bytes_min = 3000000\nkeep_s = 7200");
    doctor().says(0, &["says otherwise than what the node goes by: store", "citybrain config diff"]);
    let file = config.file_name().expect("a name").to_string_lossy().into_owned();
    let line = format!("citybrain config diff /var/lib/citybrain/{file}");
    answers(&tree, STREET, "Does the node run with what its file says?", &line, 1, &["store.keep_s", "7200"]);
    // Nobody has reloaded it, and the next power cut would find it so.
    edit(config, "keep_s = 7200", "keep_s = \"s3cret\"");
    let said = doctor();
    said.says(1, &["has 1 problem by now, and the next start would fail: line ", "citybrain check"]);
    assert!(!said.out.contains("s3cret"), "{}", said.out);
}

#[test]
fn a_port_that_is_taken_is_found_before_a_start() {
    let tree = Tree::new(&[CITY]);
    let _other = TcpListener::bind(("127.0.0.1", tree.node(CITY).mqtt)).expect("the port is free");
    let question = "Why does a node not start?";
    let line = "citybrain doctor --config /var/lib/citybrain/chengdu.toml | grep ports";
    answers(&tree, CITY, question, line, 1, &["BAD", "broker.listen", "Address already in use"]);
}
