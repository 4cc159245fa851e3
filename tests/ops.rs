//! What keeps nodes running: stores by hand, dead letters settled, doctor, levels, config, metrics.

use crate::harness::certs::Ca;
use crate::harness::mqtt::{Client, publish_all};
use crate::harness::ran::{Ran, acts, run, text};
use crate::harness::{Sent, Tree, free_port, wait_for, written_bytes};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

/// A street with some events in its log, running.
fn a_street(events: usize) -> Tree {
    let mut tree = Tree::with(
        &["c/s"],
        &Default::default(),
        "[[map]]\nfilter = \"in/raw/#\"\nformat = \"json\"\ntype = \"t.raw\"\n",
    );
    tree.start();
    if events > 0 {
        publish(&tree, "e", events);
    }
    tree
}

fn publish(tree: &Tree, prefix: &str, n: usize) -> Vec<Sent> {
    publish_all("c/s", tree.node("c/s").mqtt, prefix, n, false)
}

fn pos_of(letter: &Value) -> String {
    letter["pos"].as_u64().expect("a position").to_string()
}

// ---- stores ------------------------------------------------------------------------------------

#[test]
fn the_unit_runs_nothing_but_this_program_and_only_what_it_knows() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/systemd/citybrain@.service");
    let unit = std::fs::read_to_string(unit).expect("the unit reads");
    let commands: Vec<&str> =
        unit.lines().filter(|l| l.starts_with("Exec")).filter_map(|l| l.split_once('=')).map(|(_, c)| c).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in commands {
        let args = command.strip_prefix("/usr/bin/citybrain ").expect("a small Debian has nothing else");
        let args: Vec<&str> = args.split(' ').chain(["--help"]).collect();
        run(&args).says(0, &["Usage: citybrain"]);
    }
}

#[test]
fn a_store_is_counted_verified_backed_up_and_put_back_with_a_new_history() {
    let mut tree = a_street(0);
    let mut sent = publish(&tree, "before", 50);
    let (data, url) = (tree.node("c/s").data.clone(), tree.node("c/s").url());
    let backup = tree.dir().join("backup");
    // A receipt that the backup has not would be sent again by the new history.
    tree.wait_quiet();
    // While the node runs.
    let taken = run(&["store", "snapshot", text(&data), text(&backup), "--json"]);
    assert_eq!(taken.says(0, &[]).json()["schema"], "citybrain.store-change/1");
    run(&["store", "snapshot", text(&data), text(&backup)]).says(2, &["is there already"]);
    run(&["store", "restore", text(&backup), text(&data), "--yes"]).says(1, &["a node is running", "SIGTERM"]);
    run(&["store", "rebuild", text(&data), "--yes"]).says(1, &["a node is running"]);
    let between = publish(&tree, "between", 30);
    tree.wait_all_up(&between);
    tree.stop_node("c/s");

    let stats = run(&["store", "stats", text(&data), "--json"]).json();
    assert!(stats["records"].as_u64().expect("a number") >= 80, "{stats}");
    assert_eq!((stats["in_use"].as_bool(), stats["damage"].as_array().map(Vec::len)), (Some(false), Some(0)));
    run(&["store", "stats", text(&data)]).says(0, &["records", "segment", "rows up to position"]);
    run(&["store", "verify", text(&data)]).says(0, &["every one good", "is good"]);
    run(&["store", "verify", "/nowhere"]).says(2, &["is no data folder"]);

    // Nothing is done that was not confirmed.
    run(&["store", "restore", text(&backup), text(&data)]).says(2, &["begins a new history", "--yes"]);
    run(&["store", "restore", text(&data), text(&backup), "--yes"]).says(2, &["is no backup"]);
    let restored = run(&["store", "restore", text(&backup), text(&data), "--yes"]);
    restored.says(0, &["restored from the backup", "before-restore-1"]);
    assert!(data.join("restored").exists());

    let before = tree.node("c").get("/v1/status").expect("the city answers")["counters"]["lost"].clone();
    tree.start_node("c/s");
    tree.wait_ready();
    tree.wait_linked();
    assert!(!data.join("restored").exists(), "the mark goes with the first commit");
    // That its state is made anew is what a restore does.
    let found = run(&["doctor", "--data-dir", text(&data)]);
    let line = found.out.lines().find(|line| line.starts_with("state-rebuilt")).unwrap_or_default();
    assert!(
        line.contains(" ok ") && line.contains("made of the backup that was put back"),
        "{}{}",
        found.out,
        found.err
    );
    // What the city had is not overwritten by what now has the same positions.
    sent.extend(publish(&tree, "after", 20));
    tree.wait_all_up(&sent);
    let ids: BTreeSet<String> = tree.node("c").records().into_iter().map(|r| r.id).collect();
    assert!(between.iter().all(|s| ids.contains(&s.id)), "what came after the backup is still above");
    assert_eq!(tree.node("c").get("/v1/status").expect("it answers")["counters"]["lost"], before);
    let done = acts(&url);
    assert!(
        done.iter().any(|(what, who, is)| what == "store restore" && who.contains('@') && is == "claimed"),
        "{done:?}"
    );
}

#[test]
fn damage_is_found_by_verify_and_a_state_is_rebuilt_by_hand() {
    let mut tree = a_street(50);
    // What lies behind it proves that the middle was synced, and is no unfinished write.
    publish(&tree, "more", 50);
    publish(&tree, "most", 50);
    let data = tree.node("c/s").data.clone();
    tree.stop_node("c/s");
    let db = data.join("state").join("db");
    let mut bytes = std::fs::read(&db).expect("the state is there");
    for at in (0..bytes.len()).step_by(97) {
        bytes[at] ^= 0x5a;
    }
    std::fs::write(&db, bytes).expect("it is written");
    run(&["store", "verify", text(&data)]).says(1, &["every one good", "damaged", "store rebuild"]);
    run(&["store", "rebuild", text(&data)]).says(2, &["aside", "--yes"]);
    run(&["store", "rebuild", text(&data), "--yes"]).says(0, &["the next start makes the state anew from all"]);
    run(&["store", "verify", text(&data)]).says(0, &["not there: the next start makes it", "is good"]);
    // The log itself: a byte in its middle.
    let log = data.join("log").join(format!("{:020}.log", 1));
    let mut bytes = std::fs::read(&log).expect("the log is there");
    let at = written_bytes(&log) / 4;
    bytes[at] ^= 0xff;
    std::fs::write(&log, bytes).expect("it is written");
    let bad = run(&["store", "verify", text(&data), "--json"]);
    assert_eq!(bad.code, 1);
    assert_eq!(bad.json()["ok"], false);
    assert!(bad.json()["damage"][0]["first_pos"].as_u64().is_some(), "{}", bad.out);
    tree.start_node("c/s");
    tree.wait_ready();
    let url = tree.node("c/s").url();
    run(&["doctor", "--node", &url]).says(1, &["log-damage", "BAD"]);
    assert!(acts(&url).iter().any(|(what, ..)| what == "store rebuild"));
}

// ---- dead letters ------------------------------------------------------------------------------

#[test]
fn a_letter_is_retried_or_dropped_once_and_who_did_it_is_recorded() {
    let mut tree = a_street(0);
    let url = tree.node("c/s").url();
    let mut client = Client::connect(tree.node("c/s").mqtt, "dev", true);
    // Not an event, on a topic that no map knows yet; and rubbish on one that is known.
    client.publish("in/new/7", b"{\"pm25\": 30, \"type\": \"air\"}");
    client.publish("in/raw/7", b"no json");
    let letters = wait_for("two letters", || {
        let l = tree.node("c/s").get("/v1/dlq")?["dead_letters"].as_array()?.clone();
        (l.len() == 2).then_some(l)
    });
    let (new, rubbish) = (pos_of(&letters[0]), pos_of(&letters[1]));
    let shown = |pos: &String| run(&["dlq", "show", pos, "--node", &url]);
    shown(&new).says(0, &["27 bytes:", "pm25"]);
    run(&["dlq", "retry", &new, "--node", &url])
        .says(2, &["what was published goes through ingress on its topic", "--yes"]);
    run(&["dlq", "retry", &new, &rubbish, "--yes", "--node", &url])
        .says(1, &["refused", "still not-cloudevents", "2 still open"]);
    // With a map for it the same bytes are an event.
    let config = tree.node("c/s").config.clone();
    let more = "[[map]]\nfilter = \"in/new/#\"\nformat = \"json\"\ntype = \"t.new\"\n";
    let old = std::fs::read_to_string(&config).expect("the config is read");
    std::fs::write(&config, format!("{more}{old}")).expect("it is written");
    let diff = run(&["config", "diff", text(&config), "--node", &url]);
    diff.says(1, &["map.in/new/#", "a restart takes what the file says"]);
    tree.kill9("c/s");
    tree.start_node("c/s");
    tree.wait_ready();
    run(&["config", "diff", text(&config), "--node", &url]).says(0, &["no difference"]);
    let done = run(&["dlq", "retry", &new, "--yes", "--json", "--node", &url]);
    assert_eq!(done.says(0, &[]).json()["letters"][0]["outcome"], "committed");
    run(&["dlq", "retry", &new, "--yes", "--node", &url]).says(1, &["not-open"]);
    run(&["dlq", "drop", &rubbish, "--yes", "--node", &url]).says(0, &["dropped", "0 still open"]);
    run(&["dlq", "drop", "999999", "--yes", "--node", &url]).says(1, &["not-open"]);
    // Whoever was named in one must be forgotten with its event, or where it has become none.
    for (pos, held) in [(&new, "pm25"), (&rubbish, "no json")] {
        let closed = shown(pos);
        closed.says(0, &["bytes, withheld:", "no longer open: it is shown to nobody any more"]);
        assert!(!closed.out.contains(held), "{}", closed.out);
    }
    let events = run(&["events", "--type", "t.new", "--json", "--node", &url]);
    assert_eq!(events.out.lines().count(), 1, "{}", events.out);
    assert!(events.out.contains("pm25"));
    let done: Vec<String> = acts(&url).into_iter().map(|(what, ..)| what).collect();
    assert_eq!(done, ["dlq retry", "dlq drop"]);
    // Nobody outside can write such a record.
    let (status, _) = tree.node("c/s").post(
        "/v1/events",
        &json!({"specversion": "1.0", "id": "1", "source": "/x", "type": "city.brain.operator", "data": {}}),
    );
    assert!((400..500).contains(&status), "{status}");
}

// ---- a running node ----------------------------------------------------------------------------

#[test]
fn doctor_looks_at_a_running_node_a_stopped_one_and_a_bundle() {
    let mut tree = a_street(5);
    let (url, config) = (tree.node("c/s").url(), tree.node("c/s").config.clone());
    let answer = run(&["doctor", "--json", "--node", &url]).json();
    let ids: Vec<&str> = answer["checks"].as_array().expect("a list").iter().filter_map(|c| c["id"].as_str()).collect();
    for id in ["disk-fsync", "clock-sane", "link-to-parent", "files-limit", "log-damage", "versions"] {
        assert!(ids.contains(&id), "{ids:?}");
    }
    assert!(answer["facts"]["host"]["fsync_us"].as_array().is_some_and(|f| !f.is_empty()));
    // From above, through the link.
    let above = tree.node("c").url();
    run(&["doctor", "--at", "c/s", "--node", &above])
        .says(i32::from(!answer["ok"].as_bool().unwrap_or(true)), &["disk-kind"]);

    let bundle = tree.dir().join("street.tar");
    run(&["doctor", "bundle", text(&bundle), "--node", &url]).says(0, &["without secrets", "--bundle"]);
    run(&["doctor", "bundle", text(&bundle), "--node", &url]).says(2, &["is there already"]);
    let elsewhere = run(&["doctor", "--bundle", text(&bundle), "--json"]).json();
    assert_eq!((&elsewhere["facts"]["node"]["address"], &elsewhere["node"]), (&json!("c/s"), &json!("c/s")));
    // An older one says how old it is.
    let made = elsewhere["as_of"].as_str().expect("a time");
    let packed = std::fs::read(&bundle).expect("it reads");
    let old = String::from_utf8(packed).expect("text").replace(made, &format!("2020{}", &made[4..]));
    std::fs::write(&bundle, old).expect("it is written");
    let told = run(&["doctor", "--bundle", text(&bundle)]).out;
    assert!(told.contains("when the bundle was made: 2020-") && told.contains(" h ago"), "{told}");
    run(&["doctor", "--bundle", text(&config)]).says(2, &["cannot read"]);

    tree.stop_node("c/s");
    let stopped = run(&["doctor", "--config", text(&config)]);
    assert!(stopped.out.contains("no node runs on this folder") && stopped.out.contains("ports"), "{}", stopped.out);
    run(&["doctor", "--node", &url]).says(3, &["cannot reach"]);
}

#[test]
fn the_log_level_changes_while_it_runs_and_its_last_lines_are_kept() {
    let mut tree = Tree::with(&["c/s"], &Default::default(), "[log]\nlevel = \"error\"\n");
    tree.start();
    let url = tree.node("c/s").url();
    run(&["log-level", "--node", &url]).says(0, &["error"]);
    assert_eq!(tree.node("c/s").get_text("/v1/log-lines").as_deref(), Some(""));
    run(&["log-level", "debg", "--yes", "--node", &url]).says(2, &["no log level"]);
    run(&["log-level", "info", "--node", &url]).says(2, &["--yes"]);
    run(&["log-level", "citybrain_hub::link=info,error", "--yes", "--node", &url]).says(0, &["before: error"]);
    tree.kill9("c");
    tree.start_node("c");
    tree.wait_ready();
    wait_for("a line of the link", || {
        let lines = tree.node("c/s").get_text("/v1/log-lines")?;
        lines.contains("The link to the parent is up.").then_some(())
    });
    run(&["log-level", "error", "--yes", "--node", &url]).says(0, &["before: citybrain_hub::link=info,error"]);
    assert_eq!(acts(&url).len(), 2);
}

#[test]
fn config_and_version_are_a_running_nodes_own() {
    let tree = a_street(0);
    let (url, config) = (tree.node("c/s").url(), tree.node("c/s").config.clone());
    let short = run(&["config", "show", "--node", &url]);
    short.says(0, &["free_bytes_min = 2000000", "filter = \"in/raw/#\"", "--effective"]);
    assert!(!short.out.contains("cache_bytes"), "{}", short.out);
    run(&["config", "show", "--effective", "--node", &url]).says(0, &["cache_bytes = 4194304", "keep_s"]);
    run(&["config", "show", "--config", text(&config)]).says(0, &["free_bytes_min"]);
    run(&["config", "diff", text(&config), "--node", &url]).says(0, &["no difference"]);
    run(&["version", "--running", "--node", &url]).says(0, &["citybrain 0."]);
    run(&["top", "--node", &url]).says(2, &["needs a terminal"]);
    let man = tree.dir().join("man");
    run(&["man", text(&man)]).says(0, &["pages"]);
    assert!(man.join("citybrain-store-restore.1").exists());
}

// ---- metrics -----------------------------------------------------------------------------------

/// Every `citybrain_…` word in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c)).filter(|w| w.starts_with("citybrain_")).map(str::to_owned).collect()
}

fn in_config(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn alerts_and_dashboard_ask_only_for_what_a_node_exports() {
    let dir = tempfile::tempdir().expect("a folder");
    let own = Ca::new(dir.path(), "ca").issue("street", "street");
    let mut tree = Tree::new(&["c/s"]);
    let door = format!(
        "\n[[listener]]\nlisten = \"127.0.0.1:{}\"\nprotocol = \"mqtts\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
        free_port(),
        text(&own.cert),
        text(&own.key)
    );
    let webhook = format!("[[webhook]]\nname = \"app\"\nurl = \"http://127.0.0.1:{}/\"\n", free_port());
    tree.edit("c/s", |text| text + &door + &webhook);
    tree.start();
    publish(&tree, "e", 20);
    let pressed = json!({"sos": true, "by": "a", "place": {"text": "7栋301"}});
    let (status, answer) = tree.node("c/s").post("/v1/cases", &pressed);
    assert_eq!(status, 201, "{answer}");
    let wanted = |accepted: &str, n: u32| format!("citybrain_help_wanted{{accepted=\"{accepted}\"}} {n}\n");
    let id = answer["case"]["id"].as_str().expect("an id").to_owned();
    let page = tree.node("c/s").get_text("/metrics").expect("metrics");
    assert!(page.contains(&wanted("no", 1)) && page.contains(&wanted("yes", 0)), "{page}");
    let kind = answer["case"]["kind"].as_str().expect("a kind");
    assert!(page.contains(&format!("citybrain_cases_open{{kind=\"{kind}\"}} 1\n")), "{page}");
    let (status, answer) = tree.node("c/s").post(&format!("/v1/cases/{id}/accept"), &json!({"by": "li"}));
    assert_eq!(status, 200, "{answer}");
    let page = tree.node("c/s").get_text("/metrics").expect("metrics");
    assert!(page.contains(&wanted("no", 0)) && page.contains(&wanted("yes", 1)), "{page}");
    // With a round trip measured, so that its family has a sample.
    let text = wait_for("a round trip", || {
        let text = tree.node("c/s").get_text("/metrics")?;
        text.contains("citybrain_link_round_trip_seconds{").then_some(text)
    });
    let exported: BTreeSet<String> =
        names_in(&text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n"));
    for file in ["prometheus/alerts.yml", "grafana/citybrain.json"] {
        let wanted = names_in(&in_config(file));
        assert!(wanted.len() > 10, "{file}: {wanted:?}");
        let missing: Vec<&String> = wanted.difference(&exported).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}");
    }
    let dashboard: Value = serde_json::from_str(&in_config("grafana/citybrain.json")).expect("the dashboard is JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|p| p.len() > 10));
    conventions(&text);
    promtool(&["check", "metrics"], Some(&text));
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/prometheus/alerts.yml");
    promtool(&["check", "rules", rules.to_str().expect("UTF-8")], None);
}

/// What Prometheus asks of names: counters end in `_total`, each family has its help and type once.
fn conventions(text: &str) {
    let mut seen = BTreeSet::new();
    for line in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        assert!(seen.insert(name.to_owned()), "{name} stands twice");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
        assert!(!name.contains("_ms") && !name.contains("_us"), "{name} is not in a base unit");
    }
}

fn promtool(args: &[&str], stdin: Option<&str>) {
    let mut command = Command::new("promtool");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        crate::harness::skipped(&format!("promtool is not installed (apt-get install prometheus): {args:?}"));
        return;
    };
    if let Some(text) = stdin {
        use std::io::Write;
        child.stdin.as_mut().expect("it is piped").write_all(text.as_bytes()).expect("promtool reads");
    }
    let done = Ran::from(child.wait_with_output().expect("promtool ends"));
    assert_eq!((done.code, done.err.as_str()), (0, ""), "promtool {args:?}\n{}\n{}", done.out, done.err);
}
