//! Every command, one by one: what is typed wrong is 2, a node that is not there is 3, what is not
//! found is 1, and each error says what to type next.

use crate::harness::{Tree, binary, free_port};
use citybrain_node::cli::Cli;
use clap::CommandFactory;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// What each command that asks a node must be given, so that nothing but the node is missing.
const ASKS_A_NODE: &[(&str, &str)] = &[
    ("alarm ack", "x"),
    ("alarm clear", "x"),
    ("alarm list", ""),
    ("alarm shelve", "x --for 1h"),
    ("alarm show", "x"),
    ("audit", ""),
    ("cap alarm", "x"),
    ("cap cancel", "x --note so --yes"),
    ("cap list", ""),
    ("cap send", "{file} --yes"),
    ("cap show", "x"),
    ("case accept", "x"),
    ("case assist", "x --unit so --text so"),
    ("case close", "x"),
    ("case comment", "x --text so"),
    ("case contact", "x"),
    ("case dispatch", "x --to c/s"),
    ("case escalate", "x"),
    ("case evaluate", "x --solved solved"),
    ("case exclude", "x --approved-by so --text so"),
    ("case export", ""),
    ("case extend", "x --limit 2wd --approved-by so --text so"),
    ("case forget", "x --yes"),
    ("case import", "{requests}"),
    ("case list", ""),
    ("case merge", "x --into y"),
    ("case new", "--title so"),
    ("case rate", "x --assist 1 --rating 5"),
    ("case recall", "x"),
    ("case reject", "x --text so"),
    ("case reopen", "x"),
    ("case report", "x --assist 1 --text so"),
    ("case resolve", "x"),
    ("case resume", "x"),
    ("case return", "x --text so"),
    ("case show", "x"),
    ("case start", "x"),
    ("case stats", ""),
    ("case suspend", "x --text so"),
    ("case verify", "x --passed"),
    ("case withdraw", "x"),
    ("config diff", "{config}"),
    ("config reload", "--yes"),
    ("config show", ""),
    ("directives list", ""),
    ("directives show", "x"),
    ("dlq drop", "1 --yes"),
    ("dlq list", ""),
    ("dlq retry", "1 --yes"),
    ("dlq show", "1"),
    ("doctor", ""),
    ("doctor bundle", "{new}"),
    ("enrol approve", "c/s --yes"),
    ("enrol list", ""),
    ("enrol refuse", "c/s --yes"),
    ("enrol retire", "c/s --yes"),
    ("events", ""),
    ("links", ""),
    ("log replay", ""),
    ("log-level", ""),
    ("rates", ""),
    ("rule list", ""),
    ("rule reload", "--yes"),
    ("scene list", ""),
    ("send", "--target c/s --yes"),
    ("service list", ""),
    ("service request", "x"),
    ("service show", "x"),
    ("show", "x"),
    ("sos", "x"),
    ("status", ""),
    ("supervision", ""),
    ("trace", "x"),
    ("tree", ""),
    ("version", "--running"),
    ("webhook skip", "app 1 --yes"),
    ("why", ""),
];

/// What asks no node, and something that is not there: a file, a folder, a name in a file.
const ASKS_NONE: &[(&str, &str, i32)] = &[
    ("bench", "--dir {file}/x", 2),
    ("check", "{none}", 2),
    ("completions", "nutshell", 2),
    ("context add", "x ftp://so", 2),
    ("context list", "", 0),
    ("context remove", "x", 2),
    ("context use", "x", 2),
    ("demo", "--input {none}", 2),
    ("man", "{file}/x", 2),
    ("preset list", "", 0),
    ("preset show", "x", 1),
    ("preset try", "a/b {}", 1),
    ("replay", "{none}", 2),
    ("rule test", "{config} --events {none}", 2),
    ("run", "--config {none}", 2),
    ("store export", "{none} {new}", 2),
    ("store import", "{none} {new} --yes", 2),
    ("store rebuild", "{none} --yes", 2),
    ("store restore", "{none} {new} --yes", 2),
    ("store snapshot", "{none} {new}", 2),
    ("store stats", "{none}", 2),
    ("store verify", "{none}", 2),
    ("token add", "x --role king --file {new}", 2),
    ("token list", "--file {none}", 2),
    ("token remove", "x --file {none}", 2),
    // It needs a terminal first.
    ("top", "", 2),
    ("user add", "x:y --file {new}", 2),
    ("user list", "--file {none}", 2),
    ("user passwd", "x --file {none}", 2),
    ("user remove", "x --yes --file {none}", 2),
];

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
        write("file", "so\n");
        write("config.toml", "[node]\naddress = \"c\"\ndata = \"data\"\n");
        write("requests.csv", REQUESTS);
        Place { dir }
    }

    fn run(&self, line: &str, more: &[&str]) -> (i32, String, String) {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let fill = |word: &str| match word.strip_prefix('{').and_then(|w| w.split_once('}')) {
            Some(("file", rest)) => format!("{}{rest}", path("file")),
            Some(("config", _)) => path("config.toml"),
            Some(("requests", _)) => path("requests.csv"),
            Some(("new", _)) => path("new"),
            Some(("none", rest)) => format!("{}{rest}", path("none")),
            _ => word.to_owned(),
        };
        let done = Command::new(binary())
            .args(line.split_whitespace().map(fill))
            .args(more)
            .env_remove("CITYBRAIN_NODE")
            .env_remove("CITYBRAIN_CONTEXT")
            .env("USER", "so")
            .env("XDG_CONFIG_HOME", self.dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code().expect("it ends by itself"), text(&done.stdout), text(&done.stderr))
    }
}

/// One row as Los Angeles publishes them.
const REQUESTS: &str = "\
SRNumber,CreatedDate,UpdatedDate,Owner,RequestType,Status,RequestSource,ClosedDate,Address,ZipCode,Latitude,Longitude,APC,NC,NCName
1-1,01/02/2020 08:00:00 AM,01/02/2020 08:00:00 AM,BOS,Bulky Items,Open,App,,1 A ST,90001,34.0,-118.2,South,1,ONE
";

/// Names of the commands that do something themselves, such as `case accept`, and whether they ask a
/// node.
fn commands() -> BTreeMap<String, bool> {
    fn walk(command: &clap::Command, name: &str, all: &mut BTreeMap<String, bool>) {
        let below = || command.get_subcommands().filter(|c| c.get_name() != "help");
        if below().next().is_none() || !command.is_subcommand_required_set() && !name.is_empty() {
            all.insert(name.to_owned(), command.get_arguments().any(|a| a.get_long() == Some("node")));
        }
        for c in below() {
            walk(c, format!("{name} {}", c.get_name()).trim(), all);
        }
    }
    let mut all = BTreeMap::new();
    walk(&Cli::command(), "", &mut all);
    all
}

#[test]
fn every_command_stands_in_one_of_the_tables() {
    for (name, asks) in commands() {
        let is_there = match asks && name != "top" {
            true => ASKS_A_NODE.iter().any(|(n, _)| *n == name),
            false => ASKS_NONE.iter().any(|(n, _, _)| *n == name),
        };
        assert!(is_there, "`citybrain {name}` is in no table of its exit codes");
    }
}

#[test]
fn a_node_that_is_not_there_is_code_3_of_every_command_that_asks_one() {
    let place = Place::new();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for (name, args) in ASKS_A_NODE {
        let (code, out, err) = place.run(&format!("{name} {args}"), &["--node", &nobody]);
        assert_eq!(code, 3, "citybrain {name} {args}\n{out}{err}");
        assert!(
            err.contains("hint: ") && err.contains("citybrain run --config FILE"),
            "citybrain {name} {args}\n{err}"
        );
    }
}

#[test]
fn what_is_typed_wrong_is_code_2_of_every_command() {
    let place = Place::new();
    let mut failed = Vec::new();
    for (name, args) in ASKS_A_NODE {
        for wrong in ["--no-such-flag", "--node=ftp://x", "--context=none-such", "--token-file={none}", "--within=1y"] {
            let (code, out, err) = place.run(&format!("{name} {args} {wrong}"), &[]);
            if code != 2 || !(err.contains("hint: ") || err.contains("--help")) {
                failed.push(format!("citybrain {name} {args} {wrong}: {code}\n{out}{err}"));
            }
        }
    }
    for (name, args, _) in ASKS_NONE {
        let (code, out, err) = place.run(&format!("{name} {args} --no-such-flag"), &[]);
        if code != 2 || !err.contains("--help") {
            failed.push(format!("citybrain {name} {args}: {code}\n{out}{err}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_file_or_a_name_that_is_not_there_is_said_with_what_to_do() {
    let place = Place::new();
    let mut failed = Vec::new();
    for (name, args, want) in ASKS_NONE {
        let (code, out, err) = place.run(&format!("{name} {args}"), &[]);
        let is_told = *want == 0
            || [&out, &err].iter().any(|t| ["hint: ", "help: ", "--help", "no mapping"].iter().any(|w| t.contains(w)));
        if code != *want || !is_told {
            failed.push(format!("citybrain {name} {args}: {code}, not {want}\n{out}{err}"));
        }
    }
    for (line, want) in [
        ("status --offline {none}", 2),
        ("status --offline {file}", 2),
        ("doctor --config {none}", 2),
        ("doctor --bundle {none}", 2),
        ("config show --config {none}", 2),
        ("status --data-dir {none}", 3),
    ] {
        let (code, out, err) = place.run(line, &[]);
        if code != want || !err.contains("citybrain ") && !err.contains("folder") {
            failed.push(format!("citybrain {line}: {code}, not {want}\n{out}{err}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn what_a_node_does_not_have_is_code_1_and_what_it_was_badly_asked_is_2() {
    let place = Place::new();
    let mut tree = Tree::new(&["c/s"]);
    tree.start();
    tree.wait_all_known();
    let city = tree.node("c").url();
    let mut failed = Vec::new();
    for (line, want) in [
        ("show x", 1),
        ("show x --source /y", 1),
        ("trace x", 1),
        ("directives show x", 1),
        ("dlq show 999999", 1),
        ("dlq retry 999999 --yes", 1),
        ("dlq drop 999999 --yes", 1),
        ("webhook skip nobody 1 --yes", 1),
        ("alarm show x", 1),
        ("alarm ack x", 1),
        ("alarm clear x", 1),
        ("alarm shelve x --for 1h", 1),
        ("cap show x", 1),
        ("cap alarm x", 1),
        ("cap cancel x --note so --yes", 1),
        ("case show x", 1),
        ("case accept x", 1),
        ("case close x", 1),
        ("service show x", 1),
        ("service request x", 1),
        ("enrol approve c/s --yes", 1),
        ("enrol refuse c/s --yes", 1),
        ("enrol retire c/nobody --yes", 1),
        ("why c/nobody", 1),
        ("why elsewhere", 1),
        ("status --at elsewhere", 1),
        ("send --target elsewhere --yes", 1),
        ("status --at c/**@street[a=b]", 1),
        // Nobody answers for it, though it may be there.
        ("status --at c/nobody", 3),
        ("why a//b", 2),
        ("status --at a//b", 2),
        ("send --target a//b --yes", 2),
        ("events --where event.data.n+1", 2),
        ("events --where evnt.data==1", 2),
        ("events --time-after yesterday", 2),
        ("log-level so=so=so --yes", 2),
        ("rates --under a//b", 2),
        ("case list --after 20200101-nothing", 2),
        ("alarm list --after nothing", 2),
        // A terminal would be asked.
        ("send --target c/s", 2),
        ("dlq drop 1", 2),
    ] {
        let (code, out, err) = place.run(line, &["--node", &city]);
        let is_told = ["`citybrain ", "`--", "--help", "not-open", "such as", "to do", "send it at", "`info`"]
            .iter()
            .any(|w| out.contains(w) || err.contains(w));
        if code != want || !is_told {
            failed.push(format!("citybrain {line}: {code}, not {want}\n{out}{err}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn whoever_starts_a_node_can_tell_a_wrong_config_from_what_may_be_tried_again() {
    let place = Place::new();
    let start = |name: &str, port: u16, more: &str| {
        let data = place.dir.path().join(name);
        let text = format!(
            "[node]\naddress = \"c\"\ndata = {data:?}\n[broker]\nlisten = \"127.0.0.1:{port}\"\n[api]\nlisten = \"127.0.0.1:0\"\n{more}"
        );
        std::fs::write(place.dir.path().join("run.toml"), text).expect("a file");
        let (code, out, err) = place.run(&format!("run --config {}", place.dir.path().join("run.toml").display()), &[]);
        (code, format!("{out}{err}"))
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (code, said) = start("port", taken.local_addr().expect("an address").port(), "");
    assert!(code == 75 && said.contains("broker.listen") && said.contains("hint: "), "{code}: {said}");
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let (code, said) = start(&tree.node("c").data.display().to_string(), free_port(), "");
    assert!(code == 75 && said.contains("cannot open the data folder") && said.contains("hint: "), "{code}: {said}");
    let none = "cert_file = \"none.pem\"\nkey_file = \"none.key\"\n";
    let (code, said) = start("certificate", free_port(), none);
    assert!(code == 2 && said.contains("none.pem") && said.contains("hint: "), "{code}: {said}");
    let (code, said) = start("key", free_port(), "no_such_key = 1\n");
    assert!(code == 2 && said.contains("no_such_key"), "{code}: {said}");
}
