//! Runs the binary as an engineer would, and keeps what it said.

use super::{Tree, binary};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a command printed on both streams, and its exit code.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(done: Output) -> Ran {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it prints UTF-8");
        Ran { code: done.status.code().expect("it ends by itself"), out: text(&done.stdout), err: text(&done.stderr) }
    }
}

impl Ran {
    pub fn says(&self, code: i32, words: &[&str]) -> &Ran {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "no `{word}`\n{}\n{}", self.out, self.err);
        }
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {} {}", self.out, self.err))
    }
}

impl Tree {
    /// Backs a node's folder up, while it runs.
    pub fn back_up(&self, address: &str) {
        run(&["store", "snapshot", &self.folder(address), &self.backup()]).says(0, &[]);
    }

    /// Puts the backup back, at the node that is stopped.
    pub fn restore(&self, address: &str) {
        run(&["store", "restore", &self.backup(), &self.folder(address), "--yes"]).says(0, &[]);
    }

    fn folder(&self, address: &str) -> String {
        self.node(address).data.display().to_string()
    }

    fn backup(&self) -> String {
        self.dir().join("backup").display().to_string()
    }
}

/// Without a terminal, and asking whom the arguments name alone.
pub fn run(args: &[&str]) -> Ran {
    run_with(args, &[])
}

/// As [`run`], in this environment.
pub fn run_with(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(binary());
    for name in ["CITYBRAIN_NODE", "CITYBRAIN_CONTEXT", "CITYBRAIN_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).envs(env.iter().copied());
    command.args(args).output().expect("the binary starts").into()
}

/// A path for a command line.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's name is UTF-8")
}

/// A new token of the tree's file `tokens`.
pub fn token(tree: &Tree, name: &str, role: &str) -> String {
    let made = run(&["token", "add", name, "--role", role, "--file", text(&tree.dir().join("tokens"))]);
    made.says(0, &["citybrain_", "shown only now"]);
    made.out.trim().to_owned()
}

/// What operators did, oldest first: `what`, `who`, `who_is`.
pub fn acts(url: &str) -> Vec<(String, String, String)> {
    let ran = run(&["events", "--type", "city.brain.operator", "--json", "--node", url]);
    let act = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("an event is JSON");
        let data = &event["event"]["data"];
        let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
        (text("what"), text("who"), text("who_is"))
    };
    ran.out.lines().map(act).collect()
}
