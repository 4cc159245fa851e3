//! The commands of the real binary: their answers, their exit codes, and what they say when there is
//! nothing to say.

use crate::harness::mqtt::{Client, event, publish_all};
use crate::harness::ran::Ran;
use crate::harness::{Tree, binary, free_port, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn citybrain() -> Command {
    let mut command = Command::new(binary());
    command.env_remove("CITYBRAIN_NODE").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Ran {
    citybrain().args(args).output().expect("the binary starts").into()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("the file is written");
    path
}

#[test]
fn a_node_named_in_the_environment_is_not_in_the_way_of_what_asks_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = format!("[node]\naddress = \"c\"\ndata = \"{}\"\n", dir.path().join("data").display());
    let config = write(dir.path(), "c.toml", &text);
    let bundle = write(dir.path(), "none.tar", "");
    for args in [
        &["doctor", "--config", path(&config)][..],
        &["config", "show", "--config", path(&config)],
        &["doctor", "--bundle", path(&bundle)],
    ] {
        let mut command = citybrain();
        let ran =
            Ran::from(command.args(args).env("CITYBRAIN_NODE", "http://127.0.0.1:9").output().expect("it starts"));
        assert!(!ran.err.contains("cannot be used with"), "{args:?}: {}", ran.err);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A tree of three that is known to its city.
fn tree_of_three() -> Tree {
    let mut tree = Tree::new(&["c/s/m"]);
    tree.start();
    tree.wait_all_known();
    tree
}

// ---- check -------------------------------------------------------------------------------------

#[test]
fn check_takes_a_good_tree() {
    let tree = Tree::new(&["c/s1/m", "c/s2"]);
    let files: Vec<&Path> = tree.nodes.values().map(|n| n.config.as_path()).collect();
    let table = citybrain().arg("check").args(&files).output().map(Ran::from).expect("it starts");
    table.says(0, &["ADDRESS", "c/s1/m", "ok"]);
    let json = citybrain().args(["check", "--json"]).args(&files).output().map(Ran::from).expect("it starts").json();
    assert_eq!((json["schema"].as_str(), json["ok"].as_bool()), (Some("citybrain.check/1"), Some(true)));
    assert_eq!(json["files"].as_array().map(Vec::len), Some(4));
}

#[test]
fn check_names_every_error_with_its_line_and_the_key_probably_meant() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let bad = write(
        dir.path(),
        "bad.toml",
        "[node]\naddress = \"C/上海\"\ndatta = \"d\"\n[link]\nresend_after = 5\n[store]\nsegment_bytes = 12\n[lnik]\n",
    );
    let ran = run(&[Path::new("check"), &bad]);
    ran.says(
        2,
        &[
            "C/上海",
            "did you mean `data`?",
            "did you mean `resend_after_ms`?",
            "12 is out of bounds",
            "did you mean `link`?",
            "bad.toml:5:1",
        ],
    );
    let json = run(&[Path::new("check"), Path::new("--json"), &bad]);
    assert_eq!(json.code, 2);
    let problems = json.json()["files"][0]["problems"].as_array().expect("a list").clone();
    assert!(problems.len() >= 5, "{problems:?}");
    // A start refuses the same file in the same way.
    run(&[Path::new("run"), Path::new("--config"), &bad]).says(2, &["did you mean `resend_after_ms`?"]);
    run(&["check", "/nowhere/at/all.toml"]).says(2, &["/nowhere/at/all.toml"]);
}

#[test]
fn check_finds_two_nodes_of_a_tree_on_one_port() {
    let tree = Tree::new(&["c/s"]);
    let (city, street) = (tree.node("c"), tree.node("c/s"));
    let text = std::fs::read_to_string(&street.config).expect("the config is read");
    let taken = format!("127.0.0.1:{}", city.api);
    std::fs::write(&street.config, text.replace(&format!("127.0.0.1:{}", street.api), &taken)).expect("it is written");
    let ran = run(&[Path::new("check"), &city.config, &street.config]);
    ran.says(2, &[&format!("`{taken}` is `api.listen` in"), "already"]);
}

// ---- questions ---------------------------------------------------------------------------------

#[test]
fn a_node_in_which_nothing_happened_says_so() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let url = tree.node("c").url();
    for (line, said) in [
        ("events", "no events yet"),
        ("dlq list", "no open dead letters"),
        ("directives list", "nothing was sent down through this node yet"),
        ("links", "no links: no parent is configured, and no child has come yet"),
        ("tree", "c"),
        ("status", "0 of 0 children up"),
    ] {
        let mut args = words(line);
        args.extend(["--node", &url]);
        run(&args).says(0, &[said, "c, its own record, as of"]);
    }
    let events = run(&["events", "--json", "--node", &url]);
    assert_eq!((events.code, events.out.as_str()), (0, ""), "a stream without events has no line");
    for (line, list) in [("dlq list", "dead_letters"), ("directives list", "directives"), ("links", "links")] {
        let mut args = words(line);
        args.extend(["--json", "--node", &url]);
        let answer = run(&args).json();
        assert_eq!(answer[list], json!([]), "{line}");
    }
}

#[test]
fn every_question_has_a_table_and_one_json_object_that_says_whose_and_of_when() {
    let tree = tree_of_three();
    let node = tree.node("c");
    let url = node.url();
    let mut device = Client::connect(tree.node("c/s/m").mqtt, "device", true);
    assert!(device.publish("in/x", event("街灯/1", false).as_bytes()));
    assert!(device.publish("in/x", event("urgent-1", true).as_bytes()));
    wait_for("both are at the city", || {
        (node.records().iter().filter(|r| r.event_type == "city.test").count() == 2).then_some(())
    });
    let mut app = Client::connect(node.mqtt, "app", true);
    assert!(app.publish("in/x", b"rubbish \x1b[31m"));
    let sent = run(&[
        "send",
        "--node",
        &url,
        "--json",
        "--target",
        "c/**@street",
        "--type",
        "city.notice",
        "--data",
        "{\"a\":1}",
        "--yes",
    ]);
    assert_eq!(sent.code, 0, "{}", sent.err);
    let id = sent.json()["id"].as_str().expect("an id").to_owned();
    wait_for("the street has answered", || {
        (node.get(&format!("/v1/directives/{id}"))?["delivered"] == 1).then_some(())
    });
    let letter = node.get("/v1/dlq").expect("the node answers")["dead_letters"][0]["pos"].to_string();

    let show = format!("show {id}");
    let directive = format!("directives show {id}");
    let dead = format!("dlq show {letter}");
    let cases: Vec<(&str, &str, Vec<&str>)> = vec![
        ("status", "citybrain.status/1", vec!["ready", "节点 c", "1 dead letter open", "1 of 1 children up"]),
        ("tree", "citybrain.tree/1", vec!["节点 c_s_m", "HEALTH", "well"]),
        ("tree --known", "citybrain.tree/1", vec!["节点 c_s_m", "street", "known"]),
        ("links", "citybrain.links/1", vec!["LINK", "down", "c/s", "up", "OLDEST"]),
        ("show 街灯/1", "citybrain.event/1", vec!["街灯不亮", "began at c/s/m"]),
        (&show, "citybrain.event/1", vec!["for c/**@street", "city.notice"]),
        ("directives list", "citybrain.directives/1", vec![&id, "c/**@street", "DELIVERED"]),
        (&directive, "citybrain.directive/1", vec!["1 node expected: 1 delivered", "0 silent"]),
        ("dlq list", "citybrain.dlq/1", vec!["unmapped", "mqtt:app", "in/x"]),
        (&dead, "citybrain.dead-letter/1", vec!["unmapped", "rubbish"]),
    ];
    for (line, schema, said) in cases {
        let mut args = words(line);
        args.extend(["--node", &url]);
        let table = run(&args);
        table.says(0, &said);
        table.says(0, &["c, its own record, as of"]);
        assert!(!table.out.contains('\x1b'), "{line}: no escape reaches the screen\n{}", table.out);
        assert_eq!(table.err, "", "{line}");
        args.push("--json");
        let answer = run(&args).json();
        assert_eq!((answer["schema"].as_str(), answer["node"].as_str()), (Some(schema), Some("c")), "{line}");
        let as_of = answer["as_of"].as_str().unwrap_or_default();
        // On the second there are no milliseconds.
        let is_time = chrono::DateTime::parse_from_rfc3339(as_of).is_ok();
        assert!(is_time && as_of.ends_with('Z') && as_of.len() <= "2026-01-01T00:00:00.000Z".len(), "{line}: {as_of}");
    }

    run(&["events", "--node", &url]).says(0, &["POS", "city.test", "c/s/m", "urgent", "街灯不亮"]);
    let lines = run(&["events", "--json", "--priority", "urgent", "--type", "city.test", "--node", &url]);
    let lines: Vec<Value> = lines.out.lines().map(|l| serde_json::from_str(l).expect("a line is JSON")).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["event"]["id"], &lines[0]["origin"]), (&json!("urgent-1"), &json!("c/s/m")));

    // The same by the data folder, and of a node below through the links.
    let street = tree.node("c/s");
    let by_folder = run(&[Path::new("status"), Path::new("--data-dir"), &street.data]);
    by_folder.says(0, &["节点 c_s", "to c: up"]);
    let below = run(&["status", "--node", &url, "--at", "c/s/m", "--json"]);
    assert_eq!((below.code, &below.json()["node"]), (0, &json!("c/s/m")), "{}", below.err);
}

#[test]
fn exit_codes_tell_no_from_wrong_usage_from_nobody_there() {
    let tree = tree_of_three();
    let street = tree.node("c/s").url();
    for (line, code, said) in [
        ("show nothing", 1, "no event `nothing`"),
        ("dlq show 999999", 1, "no dead letter at position 999999"),
        ("directives show nothing", 1, "no receipts of a directive `nothing`"),
        ("send --target c/** --type t --yes", 1, "not below c/s"),
        ("events --after 99999999", 1, "the log ends at"),
        ("send --target c/s/** --data {", 2, "`--data` is not JSON"),
        ("send --target c/s/**@moon", 2, "moon"),
        ("events --priority high", 2, "possible values"),
        ("events --after minus", 2, "invalid"),
        ("events --limit 0", 2, "`--limit 0` shows nothing"),
        ("events --by type --limit 0", 2, "`--limit 0` shows nothing"),
        ("case new --category x --form a=1 --form b=1 --form a=2", 2, "`--form` answers `a` twice"),
        ("service request x --form a=1 --form a=2", 2, "`--form` answers `a` twice"),
    ] {
        let mut args = words(line);
        args.extend(["--node", &street]);
        run(&args).says(code, &[said]);
    }
    run(&["stauts"]).says(2, &["status"]);
    run(&["status", "--node", "ftp://x"]).says(2, &["no http:// or https:// address"]);

    let nobody = format!("http://127.0.0.1:{}", free_port());
    for line in ["status", "tree", "links", "events", "show x", "dlq list", "directives list", "send --target c --yes"]
    {
        let mut args = words(line);
        args.extend(["--node", &nobody]);
        let ran = run(&args);
        ran.says(3, &["cannot reach the node at", "hint: ", "citybrain run --config"]);
        assert_eq!(ran.out, "", "{line}: no answer, no output");
        args.push("--json");
        let failure: Value = serde_json::from_str(&run(&args).err).expect("stderr is one JSON object");
        assert_eq!(failure["error"], "unreachable", "{line}");
    }
    let empty = tempfile::tempdir().expect("a temporary folder");
    let ran = run(&[Path::new("status"), Path::new("--data-dir"), empty.path()]);
    ran.says(3, &["no node runs on", "hint: "]);
}

#[test]
fn a_stopped_node_is_unreachable_by_its_folder_and_says_so() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let data = tree.node("c").data.clone();
    let status = || run(&[Path::new("status"), Path::new("--data-dir"), &data]);
    assert_eq!(status().code, 0);
    tree.stop_node("c");
    status().says(3, &["no node runs on"]);
    tree.start_node("c");
    tree.wait_ready();
    assert_eq!(status().code, 0);
    tree.kill9("c");
    // The kill left the note of where it was.
    status().says(3, &["cannot reach the node at", "may have ended"]);
}

#[test]
fn what_needs_no_node_works_without_one() {
    run(&["version"]).says(0, &["citybrain", "link protocol"]);
    assert_eq!(run(&["version", "--json"]).json()["schema"], "citybrain.version/1");
    run(&["--version"]).says(0, &["citybrain"]);
    for shell in ["bash", "zsh", "fish"] {
        run(&["completions", shell]).says(0, &["directives", "replay"]);
    }
    run(&["completions", "nutshell"]).says(2, &["bash"]);
    run(&["--help"]).says(0, &["status", "replay", "demo"]);
    run::<&str>(&[]).says(2, &["Usage"]);
}

#[test]
fn a_tab_completes_commands_and_offers_files_only_where_a_file_may_stand() {
    let dir = tempfile::tempdir().expect("a folder");
    let scripts: Vec<String> = ["bash", "fish", "zsh"]
        .map(|shell| {
            let script = run(&["completions", shell]);
            write(dir.path(), if shell == "zsh" { "_citybrain" } else { shell }, &script.out).display().to_string()
        })
        .into();
    std::fs::create_dir(dir.path().join("folder")).expect("a folder");
    write(dir.path(), "folder/a file.toml", "");
    let folder = dir.path().join("fo").display().to_string();
    let asked = |shell: &str, line: &str| {
        let script = match shell {
            // As readline does it: the words, which of them it is, and the function that `complete` names.
            "bash" => format!(
                "source {}; IFS=' ' read -ra COMP_WORDS <<< '{line}'; [[ '{line}' == *' ' ]] && COMP_WORDS+=(''); \
                 COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; compopt() {{ :; }}; \
                 _citybrain_words citybrain \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                scripts[0]
            ),
            _ => format!("source {}; complete -C '{line}'", scripts[1]),
        };
        let done = Command::new(shell).args(["-c", &script]).current_dir(dir.path()).output().ok()?;
        assert!(done.status.success(), "{shell}: {line}: {done:?}");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let words = text.lines().map(|l| l.split('\t').next().unwrap_or_default().to_owned());
        Some(words.filter(|w| !w.is_empty()).collect::<Vec<_>>())
    };
    for shell in ["bash", "fish"] {
        if asked(shell, "citybrain st").is_none() {
            crate::harness::skipped(&format!("{shell} is not there (apt-get install {shell})"));
            continue;
        }
        let is = |line: &str, want: &[&str]| {
            let mut got = asked(shell, line).expect("it is there");
            got.sort();
            got.dedup();
            assert_eq!(got, want, "{shell}: {line}");
        };
        is("citybrain st", &["status", "store"]);
        is("citybrain --watch --json st", &["status", "store"]);
        is("citybrain help st", &["status", "store"]);
        is("citybrain dlq ", &["drop", "list", "retry", "show"]);
        is("citybrain status --off", &["--offline"]);
        is("citybrain events --priority ", &["routine", "urgent"]);
        is("citybrain completions b", &["bash"]);
        is("citybrain status --at ", &[]);
        is("citybrain log-level --context ", &[]);
        let slash = if shell == "fish" { "/" } else { "" };
        is(&format!("citybrain status --offline {folder}"), &[&format!("{folder}lder{slash}")]);
    }
    // Zsh completes in a line editor only; that it reads the script and knows whose it is can be asked.
    let zsh = format!(
        "fpath=({} $fpath); autoload -U compinit; compinit -u -D; print $_comps[citybrain]; autoload +X _citybrain",
        dir.path().display()
    );
    match Command::new("zsh").args(["-f", "-c", &zsh]).output() {
        Ok(done) => {
            assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
            assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "_citybrain");
        }
        Err(_) => crate::harness::skipped("zsh is not there (apt-get install zsh)"),
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    publish_all("c", tree.node("c").mqtt, "many", 3000, false);
    let url = tree.node("c").url();
    for more in [&["--json"][..], &[], &["--follow"]] {
        let mut child = citybrain()
            .args(["events", "--after", "0", "--node", &url])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        assert!(lines.next().is_some_and(|l| l.is_ok_and(|l| !l.is_empty())), "{more:?}");
        drop(lines);
        let done = Ran::from(child.wait_with_output().expect("it ends"));
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{more:?}");
    }
}

#[test]
fn a_follower_sees_events_as_they_are_committed() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let url = tree.node("c").url();
    let mut child = citybrain()
        .args(["events", "--follow", "--json", "--after", "0", "--node", &url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
    let mut device = Client::connect(tree.node("c").mqtt, "device", true);
    for id in ["one", "two"] {
        assert!(device.publish("in/x", event(id, false).as_bytes()));
        let line = lines.next().expect("a line").expect("it reads");
        let seen: Value = serde_json::from_str(&line).expect("a line is JSON");
        assert_eq!(seen["event"]["id"], id);
    }
    // It ends with the node.
    tree.stop_node("c");
    assert!(lines.next().is_none());
    child.wait().expect("it ends");
}

#[test]
fn who_only_follows_by_http_hears_of_nothing_that_was_committed_before() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let mut device = Client::connect(tree.node("c").mqtt, "device", true);
    assert!(device.publish("in/x", event("before", false).as_bytes()));
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().into();
    let follow = |query: &str| {
        let stream = agent.get(format!("{}/v1/events?follow=true{query}", tree.node("c").url())).call();
        BufReader::new(stream.expect("it is answered").into_body().into_reader()).lines()
    };
    let (mut new, mut all) = (follow(""), follow("&last=1"));
    assert!(device.publish("in/x", event("since", false).as_bytes()));
    let id = |lines: &mut dyn Iterator<Item = std::io::Result<String>>| {
        let line = lines.next().expect("a line").expect("it reads");
        let seen: Value = serde_json::from_str(&line).expect("a line is JSON");
        seen["event"]["id"].as_str().map(str::to_owned)
    };
    assert_eq!((id(&mut all), id(&mut new)), (Some("before".into()), Some("since".into())));
}

#[test]
fn a_question_that_is_watched_is_asked_again_until_nobody_reads_and_only_if_it_reads() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let url = tree.node("c").url();
    let mut child = citybrain()
        .args(["links", "--watch=0.2", "--json", "--node", &url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
    let mut as_of = || {
        let line = lines.next().expect("a line").expect("it reads");
        let answer: Value = serde_json::from_str(&line).expect("a line is JSON");
        answer["as_of"].as_str().expect("a time").to_owned()
    };
    let first = as_of();
    assert!(as_of() > first);
    drop(lines);
    assert!(child.wait().expect("it ends").success());
    let changes = run(&["log-level", "debug", "--yes", "--watch", "--node", &url]);
    changes.says(2, &["only commands that read", "`top` is a live screen"]);
}

#[test]
fn colour_is_for_a_terminal_that_wants_it() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let line = format!("{} status --node {}", binary(), tree.node("c").url());
    // `script` gives it a terminal.
    let on_terminal = |name: &str, value: &str| {
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env_remove("NO_COLOR").env("TERM", "xterm");
        command.env(name, value).output().ok()
    };
    let Some(coloured) = on_terminal("TERM", "xterm") else {
        crate::harness::skipped("script is not there (apt-get install bsdutils)");
        return;
    };
    let is_coloured = |done: &Output| String::from_utf8_lossy(&done.stdout).contains("\x1b[");
    assert!(is_coloured(&coloured), "{coloured:?}");
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let done = on_terminal(name, value).expect("it started before");
        assert!(!is_coloured(&done), "{name}={value}: {done:?}");
        assert!(String::from_utf8_lossy(&done.stdout).contains("ready"), "{name}={value}: {done:?}");
    }
    // Times too are for whoever sits there, and say their offset; in a pipe they are UTC.
    let last = |done: Output| {
        let text = String::from_utf8(done.stdout).expect("UTF-8");
        text.lines().last().expect("a line").trim_end().to_owned()
    };
    let here = last(on_terminal("TZ", "CST-8").expect("it started before"));
    assert!(here.starts_with("c, its own record, as of ") && here.ends_with("+08"), "{here}");
    let mut piped = citybrain();
    let piped = piped.args(["status", "--node", &tree.node("c").url()]).env("TZ", "CST-8").output().expect("it starts");
    let piped = last(piped);
    assert!(piped.starts_with("c, its own record, as of ") && piped.ends_with('Z'), "{piped}");
}

#[test]
fn no_table_is_wider_than_its_terminal_and_without_one_a_row_is_one_line() {
    use unicode_width::UnicodeWidthStr;
    let long = "chengdu/wangjianglu/guojiaqiao/guojiaqiao-beiyuan";
    let mut tree = Tree::new(&[long]);
    tree.start();
    tree.wait_all_known();
    let data = "三号门堆了垃圾，没有人来收拾，味道很大".repeat(4);
    let event = json!({"specversion":"1.0","id":"1","source":"/guojiaqiao-beiyuan/residents/20261129","type":"city.hello.from.far",
        "subject":"20261129-h63f39ukjz","data":{"text":data}});
    assert_eq!(tree.node(long).post("/v1/events", &event).0, 202);
    let city = tree.node("chengdu").url();
    wait_for("the city has it", || run(&["show", "1", "--node", &city]).code.eq(&0).then_some(()));
    run(&["send", "--target", "chengdu/**", "--yes", "--node", &city]).says(0, &["on disk"]);
    let of = |command: &str, columns: &str| {
        let line = format!("stty cols {columns} rows 24; {} {command} --node {city}", binary());
        let done = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().ok()?;
        Some(String::from_utf8_lossy(&done.stdout).replace('\r', ""))
    };
    if of("status", "80").is_none() {
        crate::harness::skipped("script is not there (apt-get install bsdutils)");
        return;
    }
    for columns in [60, 80, 132] {
        for command in
            ["events", "directives list", "tree --known", "tree", "links", "status", "audit", "doctor", "trace 1"]
        {
            let text = of(command, &columns.to_string()).expect("script is there");
            // What is said above or under a table is a sentence, which the terminal breaks.
            let is_sentence = |l: &&str| [": ", "`citybrain", ", reach "].iter().any(|w| l.contains(w));
            let rows: Vec<&str> = text.lines().filter(|l| !is_sentence(l)).collect();
            assert!(rows.len() > 1, "{command}: {text}");
            let widest = rows.iter().map(|l| strip_colours(l).width()).max();
            assert!(widest <= Some(columns), "{command} in {columns} columns is {widest:?} wide:\n{text}");
        }
    }
    let piped = run(&["events", "--node", &city]).out;
    let row = piped.lines().find(|l| l.contains("city.hello.from.far")).expect("its row");
    assert!(row.contains(long) && row.contains("20261129-h63f39ukjz") && row.contains("三号门"), "{piped}");
}

fn strip_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

// ---- replay and demo ---------------------------------------------------------------------------

#[test]
fn a_replay_that_was_killed_goes_on_where_it_was_and_no_row_is_there_twice() {
    const ROWS: usize = 900;
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let node = tree.node("c");
    let mapping = write(
        tree.dir(),
        "lamps.toml",
        "title = \"Lamps\"\nheader = [\"id\", \"at\", \"lamp\"]\n[event]\nid = \"{id}\"\nsource = \"/lamps\"\n\
         type = \"city.lamp\"\nsubject = \"{lamp}\"\n[event.time]\ntext = \"{at}\"\nformat = \"%Y-%m-%d %H:%M:%S\"\n\
         utc_offset = \"+08:00\"\n[place.city]\nkey = \"c\"\nname = \"C\"\n[place.street]\nkey = \"s\"\nname = \"S\"\n\
         [place.community]\nkey = \"m\"\nname = \"M\"\n[place.neighbourhood]\nkey = \"n\"\nname = \"N\"\n",
    );
    let mut csv = String::from("id,at,lamp\n");
    for i in 0..ROWS {
        csv.push_str(&format!("{i},2026-03-01 08:{:02}:{:02},路灯-{}\n", i / 60 % 60, i % 60, i % 7));
    }
    csv.push_str("broken,no time,x\n");
    let file = write(tree.dir(), "lamps.csv", &csv);
    let state = tree.dir().join("lamps.state");
    let replay = |rate: &str| {
        let mut command = citybrain();
        command.arg("replay").arg(&file).arg("--mapping").arg(&mapping).arg("--state").arg(&state);
        command.args(["--mqtt", &format!("mqtt://127.0.0.1:{}", node.mqtt), "--rate", rate, "--json"]);
        command
    };
    let there = || node.records().iter().filter(|r| r.event_type == "city.lamp").count();

    let mut first = replay("300").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
    wait_for("it has noted how far it is", || {
        let saved: Value = serde_json::from_slice(&std::fs::read(&state).ok()?).ok()?;
        (saved["row"].as_u64()? > 50).then_some(())
    });
    first.kill().expect("it can be killed");
    first.wait().expect("it ends");
    let half = there();
    assert!((50..ROWS).contains(&half), "{half}");

    let second = Ran::from(replay("100000").output().expect("the binary starts"));
    assert_eq!(second.code, 0, "{}", second.err);
    let report = second.json();
    assert_eq!((&report["schema"], &report["finished"]), (&json!("citybrain.replay/1"), &json!(true)));
    assert!(report["after_row"].as_u64().is_some_and(|n| n > 50), "{report}");
    assert_eq!(report["upto_row"], ROWS + 1);
    assert_eq!(report["first_skipped"][0]["row"], ROWS + 1, "{report}");
    assert_eq!(there(), ROWS, "every good row is there, once");

    let third = Ran::from(replay("100000").output().expect("the binary starts"));
    assert_eq!((third.code, &third.json()["rows"]), (0, &json!(0)), "nothing is left to play");
    let strict = Ran::from(replay("100000").args(["--restart", "--strict"]).output().expect("the binary starts"));
    assert_eq!(strict.code, 1, "a row that cannot be played is a no with --strict");
    assert_eq!(there(), ROWS, "the node knows the rows again");
}

#[test]
fn rows_that_the_node_refuses_are_counted_by_mqtt_as_by_http() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let node = tree.node("c");
    let row = |id: &str, kind: &str| {
        format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/x\",\"type\":\"{kind}\"}}\n")
    };
    // The second is of a type that is the node's own; the third is no event at all.
    let rows = [row("1", "city.x"), row("2", "city.brain.case.opened"), row("3", "a/b"), row("4", "city.x")].concat();
    let file = write(tree.dir(), "day.ndjson", &rows);
    for to in [["--mqtt", &format!("mqtt://127.0.0.1:{}", node.mqtt)], ["--http", &node.url()]] {
        let mut command = citybrain();
        command.arg("replay").arg(&file).args(to).args(["--restart", "--strict", "--json"]);
        let played = Ran::from(command.output().expect("the binary starts"));
        let report = played.json();
        assert_eq!(played.code, 1, "{report}");
        assert_eq!((&report["acknowledged"], &report["upto_row"]), (&json!(2), &json!(4)), "{report}");
        assert_eq!(report["skipped"], json!({"no CloudEvent": 1, "refused by the node": 1}), "{report}");
        let lines: Vec<&Value> =
            report["first_skipped"].as_array().expect("a list").iter().map(|s| &s["line"]).collect();
        assert!(lines.contains(&&json!(2)) && lines.contains(&&json!(3)), "{report}");
    }
}

/// The slow one: fifteen nodes and two kills.
#[test]
fn the_demo_accounts_for_every_event() {
    let done = run(&["demo", "--json", "--events", "300", "--seconds", "3", "--nodes-max", "15"]);
    assert_eq!(done.code, 0, "{}\n{}", done.out, done.err);
    let account = done.json();
    assert_eq!(account["schema"], "citybrain.demo/1");
    for key in ["missing", "doubled", "out_of_order"] {
        assert_eq!(account[key], 0, "{key}: {account}");
    }
    assert_eq!((&account["published"], &account["acknowledged"]), (&json!(300), &json!(300)));
    assert_eq!(account["committed"]["city"], 300, "{account}");
    assert_eq!(account["notice"]["targets"], account["notice"]["delivered"]);
    assert_eq!(account["killed"].as_array().map(Vec::len), Some(2), "{account}");
    let cases = &account["cases"];
    for key in ["missing", "different", "owners_wrong"] {
        assert_eq!(cases[key], 0, "{key}: {cases}");
    }
    // Nine appeals, of which three are still worked on and one was not solved, and the request by Open311.
    let of = |key: &str| cases["rates"][key].as_u64();
    assert_eq!((of("dispatched"), of("solved"), of("unsolved")), (Some(10), Some(6), Some(1)), "{cases}");
    assert!(cases["sos"]["to_city_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{cases}");
    // What was asked while the first of the killed was away, from below it.
    let told = &account["errands"];
    assert_eq!(told["community"], account["killed"][0], "{told}");
    for key in ["alarm", "open311", "batches"] {
        assert_eq!((&told[key]["at_nodes"], &told[key]["of_nodes"]), (&json!(4), &json!(4)), "{key}: {told}");
    }
    let seats = |key: &str| told["booking"][key].as_u64();
    assert_eq!((seats("seats"), seats("asked")), (Some(2), Some(3)), "{told}");
    assert_eq!((seats("booked"), seats("refused")), (Some(2), Some(1)), "{told}");
    let webhooks = &account["webhooks"];
    assert_eq!(webhooks["missing"], 0, "{webhooks}");
    assert!(["opened", "closed", "calls"].iter().all(|key| webhooks[key].as_u64() > Some(0)), "{webhooks}");
}

#[test]
fn the_bench_of_a_press_sees_every_press_at_the_city() {
    let done = citybrain().args(["bench", "--press", "--percent", "1", "--json"]).output().expect("it runs");
    let report = Ran::from(done).json();
    assert_eq!((&report["schema"], &report["backlog"]), (&json!("citybrain.bench-press/1"), &json!(1000)));
    assert_eq!((&report["rounds"], &report["presses"]), (&json!(1), &json!(30)));
    let ms = |name: &str| report[name].as_f64().expect("a number");
    assert!(0.0 < ms("median_ms") && ms("median_ms") <= ms("p99_ms") && ms("p99_ms") <= ms("longest_ms"), "{report}");
    assert_eq!(report["waited_at_first"].as_array().map(Vec::len), Some(3));
}

#[test]
fn the_bench_of_the_front_door_measures_every_load() {
    let done = citybrain().args(["bench", "--door", "--percent", "1", "--json"]).output().expect("it runs");
    let report = Ran::from(done).json();
    assert_eq!((&report["schema"], &report["load"]["connections"]), (&json!("citybrain.bench-door/1"), &json!(100)));
    // Processor time is counted in steps of 10 ms, which this load may stay below.
    for figure in [
        "connects_per_s",
        "idle_mb",
        "fan_out_deliveries_per_s",
        "filters_mb",
        "filters_publishes_per_s",
        "through_per_s",
        "one_connection_per_s",
        "hundred_connections_per_s",
    ] {
        let n = report["citybrain"][figure].as_f64().expect("a number");
        assert!(n > 0.0, "{figure}: {report}");
    }
    assert_eq!(report["mosquitto"].is_null(), report["ratios"].is_null());
    // For people it is a table, as of other commands.
    let done = citybrain().args(["bench", "--events", "200"]).output().expect("it runs");
    Ran::from(done).says(0, &["200 of 400 bytes", "committed", "/s", "taken by a parent"]);
}
