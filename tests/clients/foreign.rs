//! Client libraries that we did not write. Each is in a small program that is driven by lines, so that
//! what is done with it, and what must come of it, is written once.
//!
//! A program is started with a port, the version (`4` or `5`), a client id, `1` to keep its session or
//! `0`, and perhaps the topic and the payload of a will (QoS 1, retained) and its delay in seconds
//! (Python's alone). It connects, and again whenever it is cut off. It reads, and says:
//!
//! | reads | says |
//! |---|---|
//! | | `connected 0` or `1`: was there a session? `-`: the library does not tell |
//! | `subscribe QOS FILTER` | `subscribed QOS` |
//! | `publish QOS RETAIN TOPIC PAYLOAD` | `published` once it is acknowledged, of QoS 0 once it is sent |
//! | | `message QOS RETAIN DUP TOPIC PAYLOAD` |
//! | `drop` | nothing: its line breaks (Python's alone) |
//! | `leave` | DISCONNECT, and ends |

use super::is_there;
use crate::harness::{PATIENCE, wait_for};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A program that can be started.
pub struct Library {
    program: PathBuf,
    first: Option<PathBuf>,
    pub versions: &'static [&'static str],
    /// It sends what was under way once more after a broken line, and tells messages of QoS 2 that come
    /// once more: MQTT asks for both.
    pub is_whole: bool,
}

/// A file of `tests/clients`.
pub fn script(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/clients")).join(name)
}

/// Where Debian's packages for Node.js lie, for one that did not come from Debian.
const NODE_PATH: &str = "/usr/share/nodejs:/usr/lib/nodejs";

impl Library {
    pub fn paho_python() -> Option<Library> {
        let there = ["-c", "import paho.mqtt; assert paho.mqtt.__version__ >= '2'"];
        is_there("python3", &there, "pip install paho-mqtt").then(|| Library {
            program: "python3".into(),
            first: Some(script("client.py")),
            versions: &["4", "5"],
            is_whole: true,
        })
    }

    pub fn mqtt_js() -> Option<Library> {
        let path = format!("NODE_PATH={NODE_PATH}");
        is_there("env", &[&path, "node", "-e", "require('mqtt')"], "MQTT.js: apt-get install nodejs node-mqtt").then(
            || Library {
                program: "node".into(),
                first: Some(script("client.js")),
                versions: &["4", "5"],
                is_whole: true,
            },
        )
    }

    /// Compiled into `dir`.
    pub fn paho_cpp(dir: &Path) -> Option<Library> {
        let program = dir.join("paho-cpp");
        let mut compile = Command::new("c++");
        compile.args(["-std=c++14", "-o"]).arg(&program).arg(script("client.cpp"));
        compile.args(["-lpaho-mqttpp3", "-lpaho-mqtt3a"]);
        compiles(compile, "Paho's C++ client: apt-get install g++ libpaho-mqtt-dev libpaho-mqttpp-dev")
            .then_some(Library { program, first: None, versions: &["4", "5"], is_whole: true })
    }

    /// Compiled into `dir`; Debian's is of 2018, knows 3.1.1 alone, and forgets what a broken line took.
    pub fn paho_go(dir: &Path) -> Option<Library> {
        let program = dir.join("paho-go");
        let mut compile = Command::new("go");
        compile.args(["build", "-o"]).arg(&program).arg(script("client.go"));
        compile.envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode")]).env("GOCACHE", dir.join("go-cache"));
        let how = "Paho's Go client: apt-get install golang-go golang-github-eclipse-paho.mqtt.golang-dev";
        compiles(compile, how).then_some(Library { program, first: None, versions: &["4"], is_whole: false })
    }

    /// Starts it and waits until it is connected. It keeps its session after it has left if it is told so.
    pub fn connect(&self, port: u16, version: &str, id: &str, keeps: bool, will: &[&str]) -> Foreign {
        let mut command = Command::new(&self.program);
        command.args(&self.first).args([port.to_string().as_str(), version, id, if keeps { "1" } else { "0" }]);
        command.args(will).env("NODE_PATH", NODE_PATH);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let (said, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        let stdin = child.stdin.take().expect("it is a pipe");
        let (id, heard) = (format!("{id} of MQTT {version}"), Heard::default());
        let mut client = Foreign { id, child, stdin, lines, heard };
        client.wait("it is connected", |heard| !heard.connected.is_empty());
        client
    }
}

fn compiles(mut compile: Command, how: &str) -> bool {
    let out = compile.output();
    let there = out.as_ref().is_ok_and(|out| out.status.success());
    if !there {
        let why = out.map_or_else(|e| e.to_string(), |out| String::from_utf8_lossy(&out.stderr).into_owned());
        crate::harness::skipped(&format!("{how} ({why})"));
    }
    there
}

/// A message as the library hands it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub topic: String,
    pub payload: String,
}

/// What a program has said so far.
#[derive(Debug, Default)]
pub struct Heard {
    pub connected: Vec<String>,
    pub granted: Vec<String>,
    pub published: usize,
    pub messages: Vec<Message>,
}

impl Heard {
    fn take(&mut self, line: &str) {
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        match what {
            "connected" => self.connected.push(rest.into()),
            "subscribed" => self.granted.push(rest.into()),
            "published" => self.published += 1,
            "message" => {
                let words: Vec<&str> = rest.splitn(5, ' ').collect();
                let [qos, retain, dup, topic, payload] = words[..] else { panic!("it says `{line}`") };
                let qos = qos.parse().expect("a QoS");
                let (topic, payload) = (topic.into(), payload.into());
                self.messages.push(Message { qos, retain: retain == "1", dup: dup == "1", topic, payload });
            }
            _ => panic!("it says `{line}`"),
        }
    }

    pub fn has(&self, payload: &str) -> bool {
        self.messages.iter().any(|m| m.payload == payload)
    }
}

/// A program that runs; killed with its owner.
pub struct Foreign {
    id: String,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    heard: Heard,
}

impl Foreign {
    fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it reads");
    }

    /// What it has said by now.
    pub fn heard(&mut self) -> &Heard {
        while let Ok(line) = self.lines.try_recv() {
            self.heard.take(&line);
        }
        &self.heard
    }

    pub fn wait(&mut self, what: &str, ready: impl Fn(&Heard) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !ready(&self.heard) {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => self.heard.take(&line),
                Err(_) => assert!(Instant::now() < end, "{}: waited in vain until {what}: {:?}", self.id, self.heard),
            }
        }
    }

    /// Returned: the QoS that was granted.
    pub fn subscribe(&mut self, qos: u8, filter: &str) -> u8 {
        let before = self.heard.granted.len();
        self.tell(&format!("subscribe {qos} {filter}"));
        self.wait("it has subscribed", |heard| heard.granted.len() > before);
        self.heard.granted[before].parse().expect("a QoS")
    }

    /// Without waiting.
    pub fn publish_later(&mut self, qos: u8, retain: bool, topic: &str, payload: &str) {
        self.tell(&format!("publish {qos} {} {topic} {payload}", u8::from(retain)));
    }

    pub fn publish(&mut self, qos: u8, retain: bool, topic: &str, payload: &str) {
        let before = self.heard().published;
        self.publish_later(qos, retain, topic, payload);
        self.wait("it has published", |heard| heard.published > before);
    }

    /// Its line breaks, without a word, and it connects again.
    pub fn drop_line(&mut self) {
        self.tell("drop");
    }

    /// In good order.
    pub fn leave(mut self) {
        self.tell("leave");
        wait_for("it ends", || self.child.try_wait().expect("its status can be asked"));
    }

    /// Without a word.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
