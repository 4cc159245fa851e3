//! Starts trees of nodes, breaks them, and compares what is in their logs.

pub mod brokers;
pub mod certs;
pub mod http;
pub mod mqtt;
pub mod openapi;
pub mod page;
pub mod ran;
pub mod receiver;
pub mod shape;
pub mod steps;
pub mod walk;

use rustix::process::{Pid, kill_process};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

/// How long anything may take that normally takes under a second; a machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A service with one place, which asks something personal, and the scene that it is of.
pub const OPERA: &str = r#"
[[service]]
code = "opera"
name = "川剧"
starts = "2099-12-05 09:00"
places = 1
form = [{ name = "health", personal = true }]
[[scene]]
code = "silver"
name = "银发乐园"
geometry = { type = "Point", coordinates = [103.83, 30.69] }
services = ["opera"]
"#;

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_citybrain")
}

/// A mapping, a rule, a category, services, an activity and a scene, for the front of a node's file: where
/// every answer is asked for, each has something to say.
pub const ONE_OF_EACH: &str = r#"
[[map]]
filter = "in/raw/#"
format = "json"
type = "t.raw"

[[rule]]
name = "smoke"
on = ["city.smoke"]
by = "event.subject"
when = "event.data.smoke == true"
clear = "event.data.smoke == false"
[[rule.then]]
raise = { severity = "${event.data.level > 1 ? 'critical' : 'major'}", title = "Smoke at ${event.subject}" }

[[category]]
code = "SJ0102"
name = "暴露垃圾"
form = [{ name = "amount", choices = ["一袋", "一车"] }]
department = "城管"
governance = "autonomy"
response = "2h"
solution = "4wh"

[[service]]
code = "haircut"
name = "义务理发"
hours = ["09:00-17:00"]
slot = "30m"
capacity = 2
category = "SJ0102"
form = [{ name = "floor", label = "几楼", required = true }]

[[service]]
code = "sports-day"
name = "社区运动会"
starts = "2100-12-05 09:00"
ends = "2100-12-05 12:00"
places = 100
volunteers = 10

[[scene]]
code = "silver"
name = "银发乐园"
theme = "养老"
geometry = { type = "Point", coordinates = [103.8368, 30.6980] }
services = ["haircut"]
"#;

/// Bytes of a log's segment without the zeros that are written ahead behind its newest record.
pub fn written_bytes(segment: &Path) -> usize {
    let bytes = std::fs::read(segment).expect("the file is read");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

/// A port below the range that the kernel gives to outgoing connections: while a node is dead, no
/// client's own end may take its port.
pub fn free_port() -> u16 {
    const FIRST: u32 = 15_000;
    const COUNT: u32 = 17_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + n % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port between {FIRST} and {} is free", FIRST + COUNT);
}

/// Waits until `ready` gives something; what it waited for is in the panic's message.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(got) = ready() {
            return got;
        }
        assert!(Instant::now() < end, "waited {} s in vain: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One node: its files, its ports, and its process while it runs.
pub struct Node {
    pub address: String,
    pub mqtt: u16,
    pub api: u16,
    pub data: PathBuf,
    pub config: PathBuf,
    /// Set for its process at the next start.
    pub env: Vec<(String, String)>,
    process: Option<Child>,
    log: PathBuf,
}

impl Node {
    fn is_running(&mut self) -> bool {
        self.process.is_some() && self.ended().is_none()
    }

    /// How its process ended by itself, if it did.
    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.as_mut()?.try_wait().expect("its status can be asked")
    }

    fn start(&mut self) {
        assert!(!self.is_running(), "{} is running already", self.address);
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("the log file opens");
        let child = Command::new(binary())
            .args(["run", "--config"])
            .arg(&self.config)
            // The node stops when this pipe closes, so none outlives a test that is killed.
            .env("CITYBRAIN_STOP_WITH_STDIN", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a file handle can be doubled"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.process = Some(child);
    }

    fn kill9(&mut self) {
        let mut child = self.process.take().expect("it runs");
        child.kill().expect("SIGKILL can be sent"); // Child::kill is SIGKILL on Unix
        child.wait().expect("it ends");
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("a signal can be sent");
    }

    /// SIGTERM, and waits for a clean end.
    fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.process.take().expect("it runs");
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(status) = child.try_wait().expect("its status can be asked") {
                assert!(status.success(), "{} ended with {status}\n{}", self.address, self.output());
                return;
            }
            assert!(Instant::now() < end, "{} did not stop within 15 s of SIGTERM\n{}", self.address, self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api)
    }

    /// Every event in the node's log, in its order.
    pub fn records(&self) -> Vec<Record> {
        self.records_after(0)
    }

    /// Those behind that position.
    pub fn records_after(&self, pos: u64) -> Vec<Record> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let after = all.last().map_or(pos, |r| r.pos);
            let Some(text) = self.get_text(&format!("/v1/records?after={after}&limit=50000")) else { return all };
            let page: Vec<Record> = text
                .lines()
                .filter(|l| !l.starts_with("{\"damaged\""))
                .map(|l| serde_json::from_str(l).expect("a record's line is JSON"))
                .collect();
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }
}

/// Says that a test is not run because something that can be installed is not: past libtest, which keeps
/// what a passing test prints to itself.
///
/// # Panics
/// With `CITYBRAIN_ALL=1`, where all of it was installed.
pub fn skipped(why: &str) {
    assert!(std::env::var("CITYBRAIN_ALL").as_deref() != Ok("1"), "CITYBRAIN_ALL=1, and a test cannot run: {why}");
    impossible(why);
}

/// As [`skipped`], for what no package brings: public data, the right to mount a disk.
pub fn impossible(why: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
}

/// What a node's environment needs for its wall clock to be ahead (`+25h`); `None`, and said aloud, where
/// libfaketime is not installed.
pub fn clock_ahead(by: &str) -> Option<Vec<(String, String)>> {
    let library = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"]
        .map(|dir| format!("{dir}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(library) = library else {
        skipped("libfaketime is not installed (apt-get install faketime)");
        return None;
    };
    let all = [("LD_PRELOAD", library.as_str()), ("FAKETIME", by), ("DONT_FAKE_MONOTONIC", "1")];
    Some(all.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

/// `citybrain user add`: an account, of a child node if there is an `address`.
pub fn add_user(file: &Path, name: &str, password: &str, address: Option<&str>) {
    add_user_as(file, name, password, address.map(|a| format!("--address={a}")).as_deref());
}

/// As [`add_user`], with an option of that command.
pub fn add_user_as(file: &Path, name: &str, password: &str, option: Option<&str>) {
    let mut command = Command::new(binary());
    command.args(["user", "add", name, "--file"]).arg(file).args(option);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    std::io::Write::write_all(&mut stdin, format!("{password}\n").as_bytes()).expect("it reads the password");
    drop(stdin);
    assert!(child.wait().expect("it ends").success(), "user add {name}");
}

#[derive(Clone, Debug, serde::Deserialize)]
pub struct Record {
    pub pos: u64,
    pub kind: String,
    pub id: String,
    pub source: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub origin: String,
    pub committed_us: i64,
}

/// A tree of nodes in a temporary folder. Everything stops and goes when it is dropped.
pub struct Tree {
    pub nodes: BTreeMap<String, Node>,
    dir: tempfile::TempDir,
    /// Addresses whose broker is an outside one, and its port.
    outside: HashMap<String, u16>,
}

impl Tree {
    /// Nodes at these addresses and at all above them; not started.
    pub fn new(addresses: &[&str]) -> Tree {
        Tree::with(addresses, &HashMap::new(), "")
    }

    /// As [`Tree::new`], with a `[store]` section of the test's own.
    pub fn with_store(addresses: &[&str], store: &str) -> Tree {
        Tree::with(addresses, &HashMap::new(), store)
    }

    /// As [`Tree::new`]; `outside` names nodes that use an outside broker at a port, `extra` is TOML
    /// for every node.
    pub fn with(addresses: &[&str], outside: &HashMap<String, u16>, extra: &str) -> Tree {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut tree = Tree { nodes: BTreeMap::new(), dir, outside: outside.clone() };
        let mut all: Vec<String> = Vec::new();
        for address in addresses {
            let mut at = String::new();
            for segment in address.split('/') {
                if !at.is_empty() {
                    at.push('/');
                }
                at.push_str(segment);
                if !all.contains(&at) {
                    all.push(at.clone());
                }
            }
        }
        all.sort();
        for address in all {
            let node = tree.lay(&address, extra);
            tree.nodes.insert(address, node);
        }
        tree
    }

    fn lay(&self, address: &str, extra: &str) -> Node {
        let name = address.replace('/', "_");
        let (mqtt, api) = (free_port(), free_port());
        let data = self.dir.path().join(&name);
        let mut text = extra.to_owned();
        let _ = write!(
            text,
            "\n[node]\naddress = \"{address}\"\nname = \"节点 {name}\"\ndata = \"{}\"\n[api]\nlisten = \"127.0.0.1:{api}\"\n",
            data.display()
        );
        if !extra.contains("[store]") {
            let _ = write!(text, "[store]\nfree_bytes_min = 2000000\n");
        }
        // Connections as every machine's limit of open files allows: a node warns where it is too low.
        let _ = match self.outside.get(address) {
            Some(port) => write!(text, "[broker]\nlisten = \"127.0.0.1:{mqtt}\"\nurl = \"mqtt://127.0.0.1:{port}\"\n"),
            None => write!(text, "[broker]\nlisten = \"127.0.0.1:{mqtt}\"\nconnections_max = 2000\n"),
        };
        if let Some((parent, _)) = address.rsplit_once('/') {
            let port = self.outside.get(parent).copied().unwrap_or_else(|| self.nodes[parent].mqtt);
            let _ = write!(text, "[parent]\nurl = \"mqtt://127.0.0.1:{port}\"\n");
        }
        let config = self.dir.path().join(format!("{name}.toml"));
        std::fs::write(&config, text).expect("the config is written");
        let log = self.dir.path().join(format!("{name}.log"));
        Node { address: address.to_owned(), mqtt, api, data, config, env: Vec::new(), process: None, log }
    }

    /// Changes a node's config; to be done before it starts.
    pub fn edit(&self, address: &str, change: impl FnOnce(String) -> String) {
        let config = &self.node(address).config;
        let text = std::fs::read_to_string(config).expect("the config is read");
        std::fs::write(config, change(text)).expect("the config is written");
    }

    /// A second node of the same address, beside the first: with ports and a data folder of its own,
    /// empty or a copy of `data`. Its name in this tree is returned; it is not started.
    pub fn lay_twin(&mut self, address: &str, data: Option<&Path>) -> String {
        let first = &self.nodes[address];
        let name = format!("{address} (twin)");
        let stem = format!("{}_twin", address.replace('/', "_"));
        let (mqtt, api) = (free_port(), free_port());
        let folder = self.dir.path().join(&stem);
        let text = std::fs::read_to_string(&first.config).expect("the first one's config is read");
        let text = text
            .replace(&format!("\"{}\"", first.data.display()), &format!("\"{}\"", folder.display()))
            .replace(&format!("listen = \"127.0.0.1:{}\"", first.mqtt), &format!("listen = \"127.0.0.1:{mqtt}\""))
            .replace(&format!("listen = \"127.0.0.1:{}\"", first.api), &format!("listen = \"127.0.0.1:{api}\""));
        let config = self.dir.path().join(format!("{stem}.toml"));
        std::fs::write(&config, text).expect("the config is written");
        if let Some(data) = data {
            copy_folder(data, &folder);
        }
        let log = self.dir.path().join(format!("{stem}.log"));
        let twin =
            Node { address: address.to_owned(), mqtt, api, data: folder, config, env: Vec::new(), process: None, log };
        self.nodes.insert(name.clone(), twin);
        name
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn node(&self, address: &str) -> &Node {
        &self.nodes[address]
    }

    pub fn node_mut(&mut self, address: &str) -> &mut Node {
        self.nodes.get_mut(address).expect("the tree has such a node")
    }

    /// Starts every node and waits until each is ready and has its parent.
    pub fn start(&mut self) {
        for node in self.nodes.values_mut() {
            node.start();
        }
        self.wait_ready();
        self.wait_linked();
    }

    pub fn start_node(&mut self, address: &str) {
        self.node_mut(address).start();
    }

    pub fn kill9(&mut self, address: &str) {
        self.node_mut(address).kill9();
    }

    /// The disk of a node that is stopped is gone.
    pub fn lose_disk(&self, address: &str) {
        std::fs::remove_dir_all(&self.node(address).data).expect("its disk is gone");
    }

    pub fn stop_node(&mut self, address: &str) {
        self.node_mut(address).stop();
    }

    pub fn wait_ready(&mut self) {
        for node in self.nodes.values_mut().filter(|n| n.process.is_some()) {
            let what = format!("{} is ready", node.address);
            wait_for(&what, || {
                if let Some(status) = node.ended() {
                    panic!("{} ended at its start with {status}\n{}", node.address, node.output());
                }
                node.get_text("/readyz")
            });
        }
    }

    /// Until every running node with a running parent has its link up.
    pub fn wait_linked(&self) {
        for node in self.nodes.values().filter(|n| n.process.is_some()) {
            let Some((parent, _)) = node.address.rsplit_once('/') else { continue };
            if self.nodes[parent].process.is_none() {
                continue;
            }
            wait_for(&format!("{} has its parent\n{}", node.address, node.output()), || {
                let links = node.get("/v1/links")?;
                links["links"].as_array()?.iter().any(|l| l["role"] == "up" && l["state"] == "up").then_some(())
            });
        }
    }

    /// Waits until the city knows every node of the tree.
    pub fn wait_all_known(&self) {
        wait_for("the city knows all", || {
            let known = self.node(self.nodes.keys().next()?).get("/v1/tree")?;
            (known["nodes"].as_array()?.len() == self.nodes.len()).then_some(())
        });
    }

    /// Waits until nothing is under way between the nodes, as after their first words to each other.
    pub fn wait_quiet(&self) {
        let mut before = None;
        wait_for("nothing is under way", || {
            let mut at = Vec::new();
            for node in self.nodes.values().filter(|n| n.process.is_some()) {
                let status = node.get("/v1/status")?;
                let waits =
                    |l: &Value| ["urgent", "routine"].iter().any(|n| l[n]["unsent"] != 0 || l[n]["in_flight"] != 0);
                if status["links"].as_array()?.iter().any(waits) {
                    return None;
                }
                at.push(status["log"]["last_pos"].as_u64()?);
            }
            let now = Some(at);
            let is_quiet = before == now;
            before = now;
            is_quiet.then_some(())
        });
    }

    /// Waits until every ancestor of each origin holds all of these events, then checks that none
    /// is there twice, and that each origin's order is kept within a lane.
    pub fn wait_all_up(&self, sent: &[Sent]) {
        let mut by_node: BTreeMap<&str, Vec<&Sent>> = BTreeMap::new();
        for s in sent {
            let mut at = Some(s.at.as_str());
            while let Some(a) = at {
                by_node.entry(a).or_default().push(s);
                at = a.rsplit_once('/').map(|(up, _)| up);
            }
        }
        for (address, wanted) in by_node {
            let node = self.node(address);
            let ids: HashSet<&str> = wanted.iter().map(|s| s.id.as_str()).collect();
            let records = wait_for(&format!("{address} holds all of {} events\n{}", ids.len(), node.output()), || {
                let records = node.records();
                let there = records.iter().filter(|r| ids.contains(r.id.as_str())).count();
                (there >= ids.len()).then_some(records)
            });
            check_once_and_in_order(address, &records, &wanted);
        }
    }
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the copy's folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a file is copied");
        }
    }
}

/// An event that was acknowledged to its publisher.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: String,
    pub id: String,
    pub urgent: bool,
}

pub fn check_once_and_in_order(address: &str, records: &[Record], wanted: &[&Sent]) {
    // Source and id together name an event: two nodes' receipts of one notice share an id.
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut seen = HashSet::new();
    for (i, r) in records.iter().enumerate() {
        assert!(seen.insert((&r.source, &r.id)), "{address} holds {} of {} twice", r.id, r.source);
        places.entry(r.id.as_str()).or_default().push(i);
    }
    let mut newest: HashMap<(&str, bool), (usize, &str)> = HashMap::new();
    for s in wanted {
        let at = places.get(s.id.as_str()).unwrap_or_else(|| panic!("{address} lacks {}", s.id))[0];
        if let Some((before, id)) = newest.insert((&s.at, s.urgent), (at, &s.id)) {
            assert!(before < at, "{address} holds {} before {id}, which was sent earlier", s.id);
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for node in self.nodes.values_mut() {
            if let Some(mut child) = node.process.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            for node in self.nodes.values() {
                let text = node.output();
                let from = text.len().saturating_sub(3000);
                let from = (from..text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
                eprintln!("--- {} ---\n{}", node.address, &text[from..]);
            }
        }
    }
}
